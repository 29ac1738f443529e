//! Layer 3: the worker's counters.
//!
//! Knows numbers that only grow, and gauges. It must not know who shows them: `Status` does now.

use std::sync::atomic::{AtomicU64, Ordering};

/// One number.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
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
    /// Panics that were caught at a request's or a shared task's border.
    pub panics_total: Counter,
    /// File indexes that were built.
    pub opens_total: Counter,
    /// Connections that were accepted.
    pub connections_total: Counter,
    /// Accept calls that failed; the listener goes on.
    pub accept_errors_total: Counter,
}
