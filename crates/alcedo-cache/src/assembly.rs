//! Layer 1: parts of an answer, and how they become whole.
//!
//! Knows stretches that a survey found and bytes that flights brought. It must not know how flights come about.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use futures::future::join_all;

use crate::file_key::FileKey;
use crate::page_store::PageStore;
use crate::stretch::{Held, Stretch, joined};

/// Bytes of flights that landed, by where they start.
pub(crate) type Landed = BTreeMap<u64, Bytes>;

/// A range that was asked for and that the store did not have at once.
pub(crate) struct Part {
    /// Which of the asked ranges.
    pub(crate) number: usize,
    /// It is made of these, in order.
    pub(crate) stretches: Vec<Stretch>,
}

/// A part whose stretches were read.
pub(crate) struct ReadPart {
    pub(crate) number: usize,
    pieces: Vec<Piece>,
}

enum Piece {
    Bytes(Bytes),
    Flown(Range<u64>),
    /// It was in the store and could not be had.
    Vanished,
}

/// Reads what the store has of all parts.
pub(crate) async fn read_all(store: &PageStore, file: &FileKey, parts: Vec<Part>) -> Vec<ReadPart> {
    let read = |part: Part| async move {
        let pieces = part.stretches.into_iter().map(|stretch| async move {
            match stretch {
                Stretch::Missing(range) => Piece::Flown(range),
                Stretch::Here(Held::Bytes(bytes)) => Piece::Bytes(bytes),
                Stretch::Here(held) => store.fetch(file, held).await.map_or(Piece::Vanished, Piece::Bytes),
            }
        });
        ReadPart { number: part.number, pieces: join_all(pieces).await }
    };
    join_all(parts.into_iter().map(read)).await
}

impl ReadPart {
    /// The part with what the flights brought, and how many of its bytes the store had; `None` if something of it
    /// vanished.
    pub(crate) fn whole(self, landed: &Landed) -> Option<(Bytes, u64)> {
        let mut from_store_bytes = 0;
        let mut slices = Vec::with_capacity(self.pieces.len());
        for piece in self.pieces {
            match piece {
                Piece::Vanished => return None,
                Piece::Flown(range) => cut(landed, range, &mut slices),
                Piece::Bytes(bytes) => {
                    from_store_bytes += bytes.len() as u64;
                    slices.push(bytes);
                }
            }
        }
        Some((joined(&slices), from_store_bytes))
    }
}

/// Cuts a range out of the flights that together cover it.
fn cut(landed: &Landed, range: Range<u64>, slices: &mut Vec<Bytes>) {
    let first = landed.range(..=range.start).next_back().map_or(range.start, |(first, _)| *first);
    for (start, bytes) in landed.range(first..range.end) {
        let end = start + bytes.len() as u64;
        let (from, to) = (range.start.max(*start), range.end.min(end));
        if from < to {
            // Both are inside bytes that are in memory, so they fit in its address space.
            slices.push(bytes.slice((from - start) as usize..(to - start) as usize));
        }
    }
}
