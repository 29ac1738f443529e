//! What asking an origin costs in time: how long a trip takes, and how many bytes come per second.
//!
//! Knows the durations of answers. It must not know what was read, nor what is made of the estimates: whoever reads
//! compares the price of a trip with that of bytes which may not be needed. The trip is what the fastest fifth of the
//! last answers took to their first byte, because a new connection or a busy store says nothing about the next trip.
//! The rate is the median of the last long bodies, because short ones come with their headers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::limits::OriginLimits;
use crate::mount::Scheme;
use crate::recent::Recent;

/// Measurements that are needed before they are believed instead of the usual values.
const BELIEVED_FROM: usize = 4;
/// Bodies that are shorter say nothing about the rate: most of one may have come with its headers.
const MEASURED_BODY_BYTES: u64 = 64 << 10;
/// The fastest part of the answers, in per cent, that the trip's time is taken from.
const TRIP_QUANTILE: usize = 20;
/// The part of the bodies, in per cent, that were slower than what is taken as the rate.
const RATE_QUANTILE: usize = 50;

/// What is usual for an object store in the same region: time to the first byte, and bytes per second of one answer.
const USUAL: (Duration, u64) = (Duration::from_millis(30), 100_000_000);
/// What is usual for a local disk.
const USUAL_LOCAL: (Duration, u64) = (Duration::from_micros(100), 1_000_000_000);
/// Estimates stay in these bounds, whatever is measured: below, a trip costs no time worth counting, and above, reads
/// time out.
const TRIP_BOUNDS: (Duration, Duration) = (Duration::from_micros(20), Duration::from_secs(2));
/// From a modem's rate to that of memory.
const RATE_BOUNDS: (u64, u64) = (100_000, 10_000_000_000);

/// What asking an origin costs, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From a request to the first byte of its answer.
    pub trip: Duration,
    /// Bytes that then come per second, within one answer.
    pub bytes_per_second: u64,
}

/// Measures one mount's answers.
#[derive(Debug)]
pub(crate) struct PaceMeter {
    trips: Mutex<Recent>,
    rates: Mutex<Recent>,
    trip_us: AtomicU64,
    bytes_per_second: AtomicU64,
    /// Values that the configuration fixes are not measured.
    trip_is_fixed: bool,
    rate_is_fixed: bool,
}

impl PaceMeter {
    /// What the limits fix, and else what is usual.
    pub(crate) fn new(scheme: Scheme, limits: &OriginLimits) -> Self {
        let (trip, rate) = if scheme == Scheme::File { USUAL_LOCAL } else { USUAL };
        let (trip_is_fixed, rate_is_fixed) = (!limits.trip.is_zero(), limits.bytes_per_second > 0);
        let trip = if trip_is_fixed { limits.trip } else { trip };
        let rate = if rate_is_fixed { limits.bytes_per_second } else { rate };
        Self {
            trips: Mutex::default(),
            rates: Mutex::default(),
            trip_us: AtomicU64::new(micros(trip)),
            bytes_per_second: AtomicU64::new(rate),
            trip_is_fixed,
            rate_is_fixed,
        }
    }

    /// The estimates now.
    pub(crate) fn pace(&self) -> Pace {
        Pace {
            trip: Duration::from_micros(self.trip_us.load(Ordering::Relaxed)),
            bytes_per_second: self.bytes_per_second.load(Ordering::Relaxed),
        }
    }

    /// An answer's first byte came after so long.
    pub(crate) fn first_byte(&self, after: Duration) {
        if !self.trip_is_fixed
            && let Some(trip) = learned(&self.trips, micros(after), TRIP_QUANTILE)
        {
            self.trip_us.store(trip.clamp(micros(TRIP_BOUNDS.0), micros(TRIP_BOUNDS.1)), Ordering::Relaxed);
        }
    }

    /// So many bytes of a body took so long after its headers.
    pub(crate) fn body(&self, bytes: u64, took: Duration) {
        if self.rate_is_fixed || bytes < MEASURED_BODY_BYTES {
            return;
        }
        let per_second = u128::from(bytes) * 1_000_000_000 / took.as_nanos().max(1);
        let per_second = u64::try_from(per_second).unwrap_or(u64::MAX);
        if let Some(rate) = learned(&self.rates, per_second, RATE_QUANTILE) {
            self.bytes_per_second.store(rate.clamp(RATE_BOUNDS.0, RATE_BOUNDS.1), Ordering::Relaxed);
        }
    }
}

/// Adds a measurement; what all of them say, once they are enough.
fn learned(recent: &Mutex<Recent>, value: u64, per_cent: usize) -> Option<u64> {
    let mut recent = recent.lock().unwrap_or_else(PoisonError::into_inner);
    recent.add(value);
    if recent.len() < BELIEVED_FROM { None } else { recent.quantile(per_cent) }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn meter() -> PaceMeter {
        PaceMeter::new(Scheme::S3, &OriginLimits::default())
    }

    #[test]
    fn few_measurements_are_not_believed_and_the_slow_ones_never() {
        let meter = meter();
        let usual = Pace { trip: USUAL.0, bytes_per_second: USUAL.1 };
        for _ in 1..BELIEVED_FROM {
            meter.first_byte(Duration::from_millis(4));
            meter.body(MIB, Duration::from_millis(20));
        }
        assert_eq!(meter.pace(), usual);
        meter.first_byte(Duration::from_secs(1));
        meter.body(MIB, Duration::from_millis(20));
        let measured = meter.pace();
        assert_eq!((measured.trip, measured.bytes_per_second), (Duration::from_millis(4), 52_428_800));
        // Half of all answers are slow now; the trip is not.
        for _ in 0..5 {
            meter.first_byte(Duration::from_secs(1));
        }
        assert_eq!(meter.pace().trip, Duration::from_millis(4));
        // A store that moved away is believed in the end.
        for _ in 0..60 {
            meter.first_byte(Duration::from_millis(90));
        }
        assert_eq!(meter.pace().trip, Duration::from_millis(90));
    }

    #[test]
    fn short_bodies_and_nonsense_say_nothing() {
        let meter = meter();
        for _ in 0..100 {
            meter.body(MEASURED_BODY_BYTES - 1, Duration::from_nanos(1));
        }
        assert_eq!(meter.pace().bytes_per_second, USUAL.1);
        for _ in 0..100 {
            meter.body(u64::MAX, Duration::ZERO);
            meter.first_byte(Duration::ZERO);
        }
        assert_eq!(meter.pace(), Pace { trip: TRIP_BOUNDS.0, bytes_per_second: RATE_BOUNDS.1 });
        for _ in 0..100 {
            meter.body(MIB, Duration::MAX);
            meter.first_byte(Duration::MAX);
        }
        assert_eq!(meter.pace(), Pace { trip: TRIP_BOUNDS.1, bytes_per_second: RATE_BOUNDS.0 });
    }

    #[test]
    fn what_is_configured_is_not_measured() {
        let limits =
            OriginLimits { trip: Duration::from_millis(7), bytes_per_second: 1_000, ..OriginLimits::default() };
        let meter = PaceMeter::new(Scheme::S3, &limits);
        for _ in 0..100 {
            meter.body(MIB, Duration::from_millis(1));
            meter.first_byte(Duration::from_millis(1));
        }
        assert_eq!(meter.pace(), Pace { trip: limits.trip, bytes_per_second: 1_000 });
        assert_eq!(PaceMeter::new(Scheme::File, &OriginLimits::default()).pace().trip, USUAL_LOCAL.0);
    }
}
