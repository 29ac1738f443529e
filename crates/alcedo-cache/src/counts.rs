//! Layer 1: what a page store counted.
//!
//! Knows numbers only. It must not know how they come about, nor how they are shown.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a page store did since it was made, and what it holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PageStoreCounts {
    /// Reads of a range that were answered from the store.
    pub hits: u64,
    /// Ranges of which something had to be fetched.
    pub misses: u64,
    /// Extents, headers and tables that failed their checks, or could not be read; each became a miss.
    pub corrupt: u64,
    /// Writes that were not admitted: the queue was full, or the disk was full, failing or down.
    pub dropped_writes: u64,
    /// Errors of the operating system on writing.
    pub write_errors: u64,
    /// Errors of the operating system on reading.
    pub read_errors: u64,
    /// Reads that waited for the disk longer than they may, and became misses.
    pub slow_reads: u64,
    /// Extents dropped for want of room; in memory, pages.
    pub evictions: u64,
    /// Extents that were found again when the store was opened.
    pub restored_extents: u64,
    /// Extents held now.
    pub extents: u64,
    /// Segment files now.
    pub segments: u64,
    /// Bytes of the segment files now, as far as the store reserved them.
    pub file_bytes: u64,
    /// Bytes that wait to be written now.
    pub pending_bytes: u64,
    /// Whether the disk failed so often that the store passes everything through until a probe succeeds.
    pub down: bool,
}

/// A count that many threads add to.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, now: u64) {
        self.0.store(now, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
