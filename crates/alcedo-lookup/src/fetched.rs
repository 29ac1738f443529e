//! The pieces of a file that a search was fed, and those that it still wants, both within a window.
//!
//! A search may have to see gigabytes (a key column without statistics), but it must never hold them. What it wants in
//! one round is bounded, and what it is done with is let go when room is needed. A piece that was let go too early is
//! only wanted once more.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;

use crate::machine::{Need, Piece};

/// How many fed pieces before a range's start are tried for one that holds it: pieces nest at most as data pages in a
/// chunk.
const LOOK_BACK: usize = 64;

/// Fed pieces by their offset in the file.
#[derive(Default)]
pub(crate) struct Fetched {
    pieces: BTreeMap<u64, Bytes>,
    /// Offsets of pieces that were used and may go when room is needed.
    used: BTreeSet<u64>,
    bytes: u64,
    new_bytes: u64,
}

impl Fetched {
    pub(crate) fn insert(&mut self, range: Range<u64>, bytes: Bytes) {
        self.new_bytes += bytes.len() as u64;
        self.used.remove(&range.start);
        let longer = self.pieces.get(&range.start).is_none_or(|old| old.len() < bytes.len());
        if longer {
            self.bytes += bytes.len() as u64;
            let old = self.pieces.insert(range.start, bytes);
            self.bytes -= old.map_or(0, |old| old.len() as u64);
        }
    }

    /// The bytes of a range, if a fed piece holds all of it.
    pub(crate) fn get(&self, range: &Range<u64>) -> Option<Bytes> {
        let (start, bytes) = self.holder(range)?;
        let from = (range.start - start) as usize;
        let to = (range.end - start) as usize;
        Some(bytes.slice(from..to))
    }

    /// Whether a fed piece holds all of a range.
    pub(crate) fn has(&self, range: &Range<u64>) -> bool {
        self.holder(range).is_some()
    }

    fn holder(&self, range: &Range<u64>) -> Option<(u64, &Bytes)> {
        let before = self.pieces.range(..=range.start).rev().take(LOOK_BACK);
        before.map(|(start, bytes)| (*start, bytes)).find(|(start, bytes)| range.end - start <= bytes.len() as u64)
    }

    /// The search is done with the piece that holds this range: it may go when room is needed.
    pub(crate) fn let_go(&mut self, range: &Range<u64>) {
        if let Some((start, _)) = self.holder(range) {
            self.used.insert(start);
        }
    }

    /// From here on bytes are new again. What was let go goes if all pieces take more than so many bytes.
    pub(crate) fn start_round(&mut self, max_bytes: u64) {
        self.new_bytes = 0;
        if self.bytes > max_bytes {
            for start in std::mem::take(&mut self.used) {
                self.bytes -= self.pieces.remove(&start).map_or(0, |piece| piece.len() as u64);
            }
        }
    }

    /// Bytes of all fed pieces that have not gone.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes fed since the last round: what the next step may have to decode.
    pub(crate) fn new_bytes(&self) -> u64 {
        self.new_bytes
    }
}

/// Ranges that a search wants next.
pub(crate) struct Wanted {
    ranges: Vec<Range<u64>>,
    bytes: u64,
    max_bytes: u64,
    along: Vec<Range<u64>>,
    along_bytes: u64,
    max_along_bytes: u64,
    stage: Option<&'static str>,
}

impl Wanted {
    /// Nothing yet, and at most about so many bytes; beside them at most so many on suspicion.
    pub(crate) fn new(max_bytes: u64, max_along_bytes: u64) -> Self {
        let (ranges, along) = (Vec::new(), Vec::new());
        Self { ranges, bytes: 0, max_bytes, along, along_bytes: 0, max_along_bytes, stage: None }
    }

    /// Wants a range that must not be empty. The first stage that wants something names the round.
    pub(crate) fn add(&mut self, stage: &'static str, range: Range<u64>) {
        self.stage.get_or_insert(stage);
        self.bytes += range.end - range.start;
        self.ranges.push(range);
    }

    /// Whether anything may be taken along.
    pub(crate) fn may_speculate(&self) -> bool {
        self.along_bytes < self.max_along_bytes
    }

    /// Would take ranges along if the wanted ones cost a trip: all of them or, where they are too many bytes, none.
    pub(crate) fn speculate(&mut self, ranges: Vec<Range<u64>>) {
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        if self.along_bytes + bytes <= self.max_along_bytes {
            self.along_bytes += bytes;
            self.along.extend(ranges);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The round wants as much as it may: the rest waits for the next one.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= self.max_bytes
    }

    pub(crate) fn stage(&self) -> &'static str {
        self.stage.unwrap_or("plan")
    }

    pub(crate) fn into_need(mut self) -> Need {
        let by_place = |range: &Range<u64>| (range.start, range.end);
        for ranges in [&mut self.ranges, &mut self.along] {
            ranges.sort_unstable_by_key(by_place);
            ranges.dedup();
        }
        self.along.retain(|range| self.ranges.binary_search_by_key(&by_place(range), by_place).is_err());
        let pieces = |ranges: Vec<Range<u64>>| ranges.into_iter().map(Piece::Range).collect();
        Need { pieces: pieces(self.ranges), along: pieces(self.along) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(byte: u8, length: usize) -> Bytes {
        Bytes::from(vec![byte; length])
    }

    #[test]
    fn a_range_is_found_inside_a_longer_piece_behind_shorter_ones() {
        let mut fetched = Fetched::default();
        fetched.insert(100..200, piece(1, 100));
        fetched.insert(120..130, piece(2, 10));
        fetched.insert(100..110, piece(3, 10));
        assert_eq!(fetched.get(&(125..150)).map(|bytes| bytes.len()), Some(25));
        assert_eq!(fetched.get(&(122..124)), Some(piece(2, 2)));
        assert_eq!(fetched.get(&(190..201)), None);
        assert_eq!(fetched.get(&(90..95)), None);
    }

    #[test]
    fn what_was_let_go_stays_until_room_is_needed() {
        let mut fetched = Fetched::default();
        fetched.insert(0..10, piece(1, 10));
        fetched.insert(10..20, piece(2, 10));
        fetched.let_go(&(2..5));
        fetched.start_round(20);
        assert!(fetched.has(&(0..10)) && fetched.has(&(10..20)), "there is room");
        fetched.start_round(19);
        assert!(!fetched.has(&(0..10)), "it was let go");
        assert!(fetched.has(&(10..20)), "it was not");
        fetched.insert(0..10, piece(3, 10));
        fetched.start_round(0);
        assert!(fetched.has(&(0..10)), "what came again is needed again");
    }

    #[test]
    fn a_round_is_full_when_it_wants_its_window() {
        let mut wanted = Wanted::new(100, 0);
        assert!(!wanted.is_full());
        wanted.add("key pages", 0..60);
        wanted.add("key pages", 100..160);
        assert!(wanted.is_full());
    }
}
