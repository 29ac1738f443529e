//! How long answers take, as this client sees it.
//!
//! Knows durations only. It keeps the last few hundred and their 95th percentile, after which waiting longer is likely
//! waiting for somebody who will not answer.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// So many answers are looked at: the 95th percentile then rests on a dozen of them, and follows within seconds.
const SAMPLES: usize = 256;
/// The percentile is computed again after so many answers; sorting costs microseconds.
const COMPUTED_EVERY: usize = 32;

/// The latest latencies. All clones of a client share one.
#[derive(Debug)]
pub(crate) struct Latencies {
    samples: Mutex<Samples>,
    /// In microseconds; 0 until there is one.
    p95: AtomicU32,
}

#[derive(Debug)]
struct Samples {
    micros: [u32; SAMPLES],
    taken: usize,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { samples: Mutex::new(Samples { micros: [0; SAMPLES], taken: 0 }), p95: AtomicU32::new(0) }
    }
}

impl Latencies {
    /// An answer took so long.
    pub(crate) fn record(&self, took: Duration) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let place = samples.taken % SAMPLES;
        if let Some(sample) = samples.micros.get_mut(place) {
            *sample = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        }
        samples.taken += 1;
        if samples.taken.is_multiple_of(COMPUTED_EVERY) {
            let known = samples.taken.min(SAMPLES);
            let mut sorted = samples.micros;
            let (_, p95, _) = sorted[..known].select_nth_unstable(known * 95 / 100);
            self.p95.store(*p95, Ordering::Relaxed);
        }
    }

    /// 95 of 100 answers took at most so long; nothing until there were enough.
    pub(crate) fn p95(&self) -> Option<Duration> {
        match self.p95.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_is_that_of_the_latest_answers() {
        let latencies = Latencies::default();
        (0..31).for_each(|_| latencies.record(Duration::from_micros(5)));
        assert_eq!(latencies.p95(), None);
        latencies.record(Duration::from_micros(5));
        assert_eq!(latencies.p95(), Some(Duration::from_micros(5)));
        (1..=256).for_each(|micros| latencies.record(Duration::from_micros(micros)));
        assert_eq!(latencies.p95(), Some(Duration::from_micros(244)));
        // The odd slow one does not move it, and what was long ago is forgotten.
        (0..256).for_each(|i| latencies.record(Duration::from_micros(if i % 32 == 0 { 1_000_000 } else { 7 })));
        assert_eq!(latencies.p95(), Some(Duration::from_micros(7)));
    }
}
