//! The entries of one pass over a key column: those of as many buckets as memory holds, sorted a few at a time.
//!
//! A pass begins with the buckets that should fit. Where there are more entries than that, the last buckets are dropped
//! and are the next pass's. A bucket that alone is too much, because one key has very many rows, is given up: whoever
//! asks for its keys is sent to a search.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::keymap::layout::Layout;

/// Rows of a bucket at most, those of its lists included: a key of more is better searched for, which finds its first
/// rows soon and its last ones with few reads each.
const BUCKET_ROWS: usize = 1 << 18;
/// Entries are kept in so many shelves at most, each of which is sorted by itself: one fits a core's cache.
const SHELVES: u32 = 256;
/// Entries that are held at least, whatever the budget: some usual buckets' worth, in 128 KiB.
const MIN_ENTRIES: usize = 1 << 14;
/// A shelf grows by this fraction of itself, so that little of it is unused.
const GROWTH: usize = 8;

/// The entries of one pass.
pub(crate) struct Gather {
    layout: Layout,
    /// The buckets of this pass.
    buckets: Range<u32>,
    /// Buckets of a shelf, as bits.
    shelf_bits: u32,
    shelves: Vec<Vec<u64>>,
    entries: usize,
    /// Entries at most.
    capacity: usize,
    /// Rows of a bucket at most.
    bucket_rows: usize,
    /// Buckets that have more.
    overfull: BTreeSet<u32>,
}

impl Gather {
    /// `budget_bytes`: what the entries may take.
    pub(crate) fn new(layout: Layout, budget_bytes: usize) -> Self {
        // A shelf may have an eighth more room than it has entries.
        let capacity = (budget_bytes / size_of::<u64>() / 9 * 8).max(MIN_ENTRIES);
        let bucket_rows = BUCKET_ROWS.min(capacity / 4);
        let (shelves, overfull) = (Vec::new(), BTreeSet::new());
        Self { layout, buckets: 0..0, shelf_bits: 0, shelves, entries: 0, capacity, bucket_rows, overfull }
    }

    /// Entries of one pass at most.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Begins a pass behind the last one's buckets; `keys` are about as many as the column has.
    pub(crate) fn begin(&mut self, keys: u64) {
        let (first, all) = (self.buckets.end, self.layout.buckets());
        let share = (self.capacity as u64 * u64::from(all) / keys.max(1)).max(1);
        let past = u64::from(first) + if keys <= self.capacity as u64 { all.into() } else { share - share / 16 };
        let past = past.min(all.into()) as u32;
        self.buckets = first..past;
        let shelves = (past - first).div_ceil(SHELVES).max(1).next_power_of_two();
        self.shelf_bits = shelves.trailing_zeros();
        self.shelves = vec![Vec::new(); (past - first).div_ceil(shelves) as usize];
        self.entries = 0;
    }

    /// Whether there are buckets behind this pass's.
    pub(crate) fn is_last(&self) -> bool {
        self.buckets.end == self.layout.buckets()
    }

    /// Takes a row whose key has this hash, if its bucket is of this pass.
    #[inline]
    pub(crate) fn add(&mut self, hash: u64, row: u64) {
        let bucket = self.layout.bucket(hash);
        if bucket < self.buckets.start || bucket >= self.buckets.end {
            return;
        }
        let shelf = ((bucket - self.buckets.start) >> self.shelf_bits) as usize;
        let Some(shelf) = self.shelves.get_mut(shelf) else { return };
        if shelf.len() == shelf.capacity() {
            shelf.reserve_exact(shelf.len() / GROWTH + 64);
        }
        shelf.push(self.layout.packed(hash, row));
        self.entries += 1;
        if self.entries > self.capacity {
            self.shrink();
        }
    }

    /// Gives overfull buckets up, then drops buckets from behind, until half of the memory is free.
    #[cold]
    fn shrink(&mut self) {
        let half = self.capacity / 2;
        let large = self.capacity / 8;
        for number in (0..self.shelves.len()).filter(|number| self.shelves[*number].len() > large).collect::<Vec<_>>() {
            self.give_up_overfull(number);
        }
        self.entries = self.shelves.iter().map(Vec::len).sum();
        while self.shelves.len() > 1 && self.entries > half {
            self.entries -= self.shelves.pop().map_or(0, |dropped| dropped.len());
            self.buckets.end = self.buckets.start + ((self.shelves.len() as u32) << self.shelf_bits);
        }
        let layout = self.layout;
        let Some(shelf) = self.shelves.first_mut().filter(|shelf| shelf.len() > half) else { return };
        // One shelf alone is too much, and is sorted by now: its first buckets, one at least, are this pass's.
        let at_half = layout.bucket_of(shelf[half]).max(self.buckets.start + 1);
        shelf.truncate(shelf.partition_point(|entry| layout.bucket_of(*entry) < at_half));
        self.entries = shelf.len();
        self.buckets.end = at_half;
    }

    /// Sorts a shelf and drops its overfull buckets.
    fn give_up_overfull(&mut self, number: usize) {
        let (layout, Some(shelf)) = (self.layout, self.shelves.get_mut(number)) else { return };
        shelf.sort_unstable();
        shelf.dedup();
        let full = shelf.chunk_by(|a, b| layout.bucket_of(*a) == layout.bucket_of(*b));
        let full: BTreeSet<u32> = full
            .filter(|entries| entries.len() > self.bucket_rows)
            .map(|entries| layout.bucket_of(entries[0]))
            .collect();
        if !full.is_empty() {
            shelf.retain(|entry| !full.contains(&layout.bucket_of(*entry)));
            self.overfull.extend(full);
        }
    }

    /// Takes the sorted entries of one shelf and the buckets that they are of; none when all are taken.
    pub(crate) fn take_shelf(&mut self, number: usize) -> Option<(Range<u32>, Vec<u64>)> {
        let shelf = self.shelves.get_mut(number)?;
        let mut entries = std::mem::take(shelf);
        entries.sort_unstable();
        // A row may have come twice where a damaged index was believed at first.
        entries.dedup();
        let first = self.buckets.start + ((number as u32) << self.shelf_bits);
        Some((first..first.saturating_add(1 << self.shelf_bits).min(self.buckets.end), entries))
    }

    /// Whether a bucket of so many entries is given up.
    pub(crate) fn is_overfull(&self, bucket: u32, entries: usize) -> bool {
        entries > self.bucket_rows || self.overfull.contains(&bucket)
    }
}
