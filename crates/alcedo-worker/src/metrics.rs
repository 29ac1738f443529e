//! Layer 3: the worker's counters.
//!
//! Knows numbers that only grow, and gauges. It must not know who shows them: `Status` and the admin port do, by the
//! table in [`crate::exposition`].

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;
use crate::histogram::Histogram;

/// One number.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds some.
    pub fn add(&self, some: u64) {
        self.0.fetch_add(some, Ordering::Relaxed);
    }

    /// Takes one away, where the number is a gauge.
    pub fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one worker.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Lookups that were answered or failed, cancelled ones too.
    pub lookups_total: Counter,
    /// Of these, the failed ones.
    pub lookups_failed: Counter,
    /// Lookups under way, waiting ones too.
    pub lookups_in_flight: Counter,
    /// Requests that were turned away for want of permits.
    pub shed_total: Counter,
    /// Requests that were turned away for want of memory.
    pub shed_memory_total: Counter,
    /// Panics that were caught: at a request's or a shared task's border, or around the decoder.
    pub panics_total: Counter,
    /// File indexes that were built.
    pub opens_total: Counter,
    /// Column chunks without an offset index whose data pages were learned in the background.
    pub chunks_learned_total: Counter,
    /// File versions that were read anew after an error in their bytes, and were right then.
    pub rereads_cured: Counter,
    /// Those that came to an error again.
    pub rereads_broken: Counter,
    /// Connections that were accepted.
    pub connections_total: Counter,
    /// Accept calls that failed; the listener goes on.
    pub accept_errors_total: Counter,
    /// Connections that are open.
    pub connections: Counter,
    /// Connections that were broken off because their client did not read its answers.
    pub connections_stalled_total: Counter,
    /// Members files that could not be used; the last good members stayed.
    pub members_errors_total: Counter,
    /// Settings that were reloaded.
    pub reloads_total: Counter,
    /// Of these, those that were refused as a whole.
    pub reloads_refused_total: Counter,
    /// Keys that were answered from hot rows, and keys that were not.
    pub hot_rows_hits: Counter,
    /// See above.
    pub hot_rows_misses: Counter,
    /// Lookups that were answered with data pages where compact rows were asked for.
    pub sent_pages_total: Counter,
    /// Keys that were searched for in data pages without the origin, and how long that took.
    pub searched_keys: Counter,
    /// See above.
    pub searched_us: Counter,
    /// Rows that were kept as hot.
    pub hot_rows_filled: Counter,
    /// How long lookups took, by their outcome.
    pub lookup_seconds: LookupSeconds,
}

impl Metrics {
    /// Counts an error over bytes that made the decoder panic.
    pub(crate) fn count_panic(&self, error: &Error) {
        if error.is_decoder_panic() {
            self.panics_total.up();
        }
    }

    /// A file version was read anew after an error in its bytes.
    pub fn reread(&self, is_cured: bool) {
        if is_cured { self.rereads_cured.up() } else { self.rereads_broken.up() }
    }
}

/// How a lookup ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With rows, and without the origin.
    Hit,
    /// With rows, and the origin was asked.
    Miss,
    /// Without rows: no file has any of the keys.
    NotFound,
    /// With an error, or not at all because its caller left.
    Error,
}

impl Outcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Hit, Self::Miss, Self::NotFound, Self::Error];

    /// The label's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::NotFound => "not_found",
            Self::Error => "error",
        }
    }
}

/// One histogram per outcome.
#[derive(Debug, Default)]
pub struct LookupSeconds([Histogram; Outcome::ALL.len()]);

impl LookupSeconds {
    /// The histogram of an outcome.
    pub fn of(&self, outcome: Outcome) -> &Histogram {
        &self.0[outcome as usize]
    }
}
