//! Layer 1: what the page store on disk counts while it works.
//!
//! Knows numbers only; [`crate::PageStoreCounts`] is their copy at one moment. It must not know how they come about.

use crate::counts::Count;

/// Counts of one store, added to by all of its threads.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) hits: Count,
    pub(crate) misses: Count,
    pub(crate) corrupt: Count,
    pub(crate) dropped_writes: Count,
    pub(crate) write_errors: Count,
    pub(crate) read_errors: Count,
    pub(crate) slow_reads: Count,
    pub(crate) evictions: Count,
    pub(crate) restored: Count,
    /// Segment files now.
    pub(crate) segments: Count,
    /// Bytes of segment files now.
    pub(crate) file_bytes: Count,
}
