//! Layer 3: how long things took, counted by many threads at once.
//!
//! Knows fixed buckets. It must not know what is timed. Serving threads count into stripes of their own, so that a
//! count costs one uncontended cache line and not a lock; only a scrape reads all of them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Upper bounds of the buckets in microseconds: from a row in memory to the default deadline. What is slower is in the
/// last bucket, which has no bound.
const BOUNDS_US: [u64; 14] =
    [50, 100, 200, 400, 1_000, 2_000, 4_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000];
/// Buckets with the last one.
const BUCKETS: usize = BOUNDS_US.len() + 1;
/// More stripes than a worker has serving threads on most machines; beyond it threads share.
const STRIPES: usize = 16;

/// One thread's counts. Aligned, so that no two stripes share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

/// A histogram of durations.
#[derive(Debug, Default)]
pub struct Histogram([Stripe; STRIPES]);

/// The stripe of this thread.
fn stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
    }
    MINE.with(|mine| *mine)
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, took: Duration) {
        let stripe = &self.0[stripe()];
        let us = took.as_micros();
        let bucket = BOUNDS_US.iter().position(|bound| us <= u128::from(*bound)).unwrap_or(BOUNDS_US.len());
        stripe.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        stripe.sum_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets().iter().map(|(_, count)| count).sum()
    }

    /// Upper bounds in seconds, and how many were counted in each bucket alone.
    fn buckets(&self) -> [(f64, u64); BUCKETS] {
        std::array::from_fn(|bucket| {
            let bound = BOUNDS_US.get(bucket).map_or(f64::INFINITY, |us| *us as f64 / 1e6);
            (bound, self.0.iter().map(|stripe| stripe.buckets[bucket].load(Ordering::Relaxed)).sum())
        })
    }
}

impl EncodeMetric for &Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let buckets = self.buckets();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum_ns: u64 = self.0.iter().map(|stripe| stripe.sum_ns.load(Ordering::Relaxed)).sum();
        encoder.encode_histogram::<NoLabelSet>(sum_ns as f64 / 1e9, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for us in [0, 50, 51, 1_000_000, 1_000_001] {
            histogram.observe(Duration::from_micros(us));
        }
        let counts = histogram.buckets().map(|(_, count)| count);
        assert_eq!((counts[0], counts[1], counts[BUCKETS - 2], counts[BUCKETS - 1]), (2, 1, 1, 1));
        assert_eq!(histogram.count(), 5);
    }

    #[test]
    fn no_count_of_any_thread_is_lost() {
        let histogram = Histogram::default();
        std::thread::scope(|scope| {
            for _ in 0..STRIPES + 3 {
                scope.spawn(|| (0..1_000).for_each(|us| histogram.observe(Duration::from_micros(us))));
            }
        });
        assert_eq!(histogram.count(), (STRIPES as u64 + 3) * 1_000);
    }
}
