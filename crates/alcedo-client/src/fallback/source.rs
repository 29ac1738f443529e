//! One version of one file at the origin, as a source of pieces.
//!
//! Knows ranges and their version; there is no cache of bytes, because whoever is here hopes to be gone soon. It must
//! not know what the bytes mean.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use alcedo_lookup::error::Error as FileError;
use alcedo_lookup::machine::{Fed, Machine, Need, Piece, Source, Step};
use alcedo_origin::{FileStat, Place, Tail};
use bytes::Bytes;
use futures::future::try_join_all;
use tokio::time::Instant;

/// What reads at the origin have cost.
#[derive(Debug, Default)]
pub(super) struct Cost {
    pub(super) gets: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// Why a file gave no answer.
#[derive(Debug)]
pub(super) enum Failure {
    Origin(alcedo_origin::Error),
    File(FileError),
    /// A step died or its runtime ended.
    Died,
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<alcedo_origin::Error> for Failure {
    fn from(error: alcedo_origin::Error) -> Self {
        Self::Origin(error)
    }
}

impl Failure {
    pub(super) fn is(&self, kind: alcedo_origin::ErrorKind) -> bool {
        matches!(self, Self::Origin(error) if error.kind() == kind)
    }
}

/// Reads one file for one lookup.
pub(super) struct OriginFile<'a> {
    place: &'a Place,
    stat: OnceLock<FileStat>,
    tail: OnceLock<Tail>,
    gap_bytes: u64,
    deadline: Instant,
    cost: &'a Cost,
}

impl<'a> OriginFile<'a> {
    /// A file of a known version, or of whatever version its tail turns out to have.
    pub(super) fn new(
        place: &'a Place,
        stat: Option<FileStat>,
        gap_bytes: u64,
        deadline: Instant,
        cost: &'a Cost,
    ) -> Self {
        let known = OnceLock::new();
        if let Some(stat) = stat {
            // The cell is new, so this cannot fail.
            let _ = known.set(stat);
        }
        Self { place, stat: known, tail: OnceLock::new(), gap_bytes, deadline, cost }
    }

    /// What the file is, once that is known.
    pub(super) fn stat(&self) -> Option<&FileStat> {
        self.stat.get()
    }

    async fn read_tail(&self, length: u64) -> Result<(), Failure> {
        let tail = self.place.mount.read_tail(&self.place.key, length, self.deadline).await?;
        self.spent(tail.bytes.len());
        // A machine asks for one tail, so nobody else can have set these.
        let _ = self.stat.set(tail.stat.clone());
        let _ = self.tail.set(tail);
        Ok(())
    }

    async fn read_range(&self, stat: &FileStat, range: Range<u64>) -> Result<(u64, Bytes), Failure> {
        let bytes = self.place.mount.read_range(&self.place.key, stat, range.clone(), self.deadline).await?;
        self.spent(bytes.len());
        Ok((range.start, bytes))
    }

    fn spent(&self, bytes: usize) {
        self.cost.gets.fetch_add(1, Ordering::Relaxed);
        self.cost.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A range that the tail brought.
    fn in_tail(&self, range: &Range<u64>) -> Option<Bytes> {
        self.tail.get().and_then(|tail| part(tail.start, &tail.bytes, range))
    }
}

/// A range of bytes that start at `start`.
fn part(start: u64, bytes: &Bytes, range: &Range<u64>) -> Option<Bytes> {
    let from = usize::try_from(range.start.checked_sub(start)?).ok()?;
    let to = usize::try_from(range.end.checked_sub(start)?).ok()?;
    (from <= to && to <= bytes.len()).then(|| bytes.slice(from..to))
}

/// The ranges as few reads: what is apart by at most `gap` is read as one.
fn coalesced(mut ranges: Vec<Range<u64>>, gap: u64) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut reads: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match reads.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(gap) => last.end = last.end.max(range.end),
            _ => reads.push(range),
        }
    }
    reads
}

impl Source for OriginFile<'_> {
    type Error = Failure;

    async fn read(&self, _: &'static str, need: &Need) -> Result<Vec<Fed>, Failure> {
        if self.stat.get().is_none() {
            let tails = need.pieces.iter().filter_map(|piece| match piece {
                Piece::Tail(length) => Some(*length),
                Piece::Range(_) => None,
            });
            self.read_tail(tails.max().unwrap_or(1)).await?;
        }
        let stat = self.stat.get().ok_or(Failure::Died)?;
        let range = |piece: &Piece| match piece {
            Piece::Tail(length) => stat.size.saturating_sub(*length)..stat.size,
            Piece::Range(range) => range.clone(),
        };
        let mut ranges: Vec<Range<u64>> = need.pieces.iter().map(range).collect();
        if ranges.iter().any(|range| self.in_tail(range).is_none()) {
            ranges.extend(need.along.iter().map(range));
        }
        let missing = ranges.iter().filter(|range| self.in_tail(range).is_none()).cloned().collect();
        let reads = coalesced(missing, self.gap_bytes).into_iter().map(|range| self.read_range(stat, range));
        let read = try_join_all(reads).await?;
        let fed = |range: Range<u64>| {
            let read = || read.iter().find_map(|(start, bytes)| part(*start, bytes, &range));
            let bytes = self.in_tail(&range).or_else(read).ok_or(Failure::Died)?;
            Ok(Fed { start: range.start, file_size: stat.size, bytes })
        };
        ranges.into_iter().map(fed).collect()
    }

    /// Every step runs where blocking is allowed: decoding takes longer than the way there, and a step that dies must
    /// not take the caller's task along.
    async fn step<M: Machine>(&self, mut machine: M) -> Result<(M, Step<M::Output>), Failure> {
        let done = tokio::task::spawn_blocking(move || (machine.step(), machine)).await;
        let (step, machine) = done.map_err(|_| Failure::Died)?;
        Ok((machine, step?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_ranges_are_one_read() {
        assert_eq!(coalesced(vec![30..40, 0..10, 12..20, 5..8], 2), [0..20, 30..40]);
        assert_eq!(coalesced(vec![0..10, 20..30, 100..101], 10), [0..30, 100..101]);
        assert!(coalesced(Vec::new(), 10).is_empty());
    }
}
