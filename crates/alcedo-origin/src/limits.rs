//! The bounds of one mount: how much is asked of the origin at once, how often, and how long each answer may take.
//! Knows numbers and their reasons; must not know who enforces them. `object_store` retries for three minutes and waits
//! 30 s for an answer by default, which no lookup survives, so none of its own limits are used.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// Limits of one mount. Every field may be set in the mount's `limits` table; durations are written like `"250ms"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OriginLimits {
    /// Requests under way at once (64: enough to fill a 10 Gbit/s link with 1 MiB reads, few enough not to be
    /// throttled). Waiting for a turn counts against the call's deadline.
    pub concurrent_gets: usize,
    /// Bytes of answers that may be in memory on their way to callers at once (256 MiB). One read larger than this is
    /// refused.
    pub buffered_bytes: u64,
    /// Attempts per call (2): the second only after a failure that another attempt may cure.
    pub tries: u32,
    /// Longest silence of the origin (2 s): until the answer's headers, and then until each next piece of its body.
    #[serde(deserialize_with = "duration")]
    pub attempt_timeout: Duration,
    /// Longest time to open a connection, TLS included (1 s).
    #[serde(deserialize_with = "duration")]
    pub connect_timeout: Duration,
    /// Pause before a second attempt (25 ms): a store that is shedding load is not asked again at once.
    #[serde(deserialize_with = "duration")]
    pub retry_pause: Duration,
    /// Entries of one listing at most (100,000).
    pub listed_entries: usize,
    /// How long the origin takes to the first byte of an answer; zero (the default): measured. Beside the rate it says
    /// how many bytes are worth a trip.
    #[serde(deserialize_with = "duration")]
    pub trip: Duration,
    /// Bytes per second of one answer; zero (the default): measured.
    pub bytes_per_second: u64,
}

impl Default for OriginLimits {
    fn default() -> Self {
        Self {
            concurrent_gets: 64,
            buffered_bytes: 256 << 20,
            tries: 2,
            attempt_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(1),
            retry_pause: Duration::from_millis(25),
            listed_entries: 100_000,
            trip: Duration::ZERO,
            bytes_per_second: 0,
        }
    }
}

impl OriginLimits {
    /// What makes these limits unusable, if anything.
    pub(crate) fn defect(&self) -> Option<&'static str> {
        if self.concurrent_gets == 0 || self.concurrent_gets > MAX_CONCURRENT_GETS {
            Some("limits.concurrent_gets must be between 1 and 65536")
        } else if self.buffered_bytes < BUFFER_UNIT_BYTES || self.buffered_bytes > MAX_BUFFERED_BYTES {
            Some("limits.buffered_bytes must be between 4096 and 2^40")
        } else if self.tries == 0 || self.tries > MAX_TRIES {
            Some("limits.tries must be between 1 and 10")
        } else if self.attempt_timeout.is_zero() || self.connect_timeout.is_zero() {
            Some("limits.attempt_timeout and limits.connect_timeout must be longer than zero")
        } else if self.listed_entries == 0 || self.listed_entries > MAX_LISTED_ENTRIES {
            Some("limits.listed_entries must be between 1 and 1000000")
        } else if self.trip > MAX_TRIP {
            Some("limits.trip must be at most 10s")
        } else {
            None
        }
    }
}

/// Buffered bytes are counted in units of this many bytes, so that a permit count fits the semaphore's 32 bits.
pub(crate) const BUFFER_UNIT_BYTES: u64 = 4096;

/// Ceiling of `concurrent_gets`: more sockets than one process should hold.
const MAX_CONCURRENT_GETS: usize = 65_536;

/// Ceiling of `buffered_bytes`: above any machine's memory, below the semaphore's range.
const MAX_BUFFERED_BYTES: u64 = 1 << 40;

/// Ceiling of `tries`: more only multiplies the load on a store that is already failing.
const MAX_TRIES: u32 = 10;

/// Ceiling of `listed_entries`: each entry costs a few hundred bytes of memory.
const MAX_LISTED_ENTRIES: usize = 1_000_000;

/// Ceiling of `trip`: no lookup would end.
const MAX_TRIP: Duration = Duration::from_secs(10);

/// Reads a duration such as `"30s"` or `"5min"`.
pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(D::Error::custom)
}

/// `"30s"`, `"5min"` and the like as a duration.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("not a duration such as \"30s\" or \"5min\": {e}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_with_units_and_unknown_keys_refused() {
        let limits: OriginLimits = serde_json::from_str(r#"{"attempt_timeout": "250ms", "tries": 1}"#).unwrap();
        assert_eq!((limits.attempt_timeout, limits.tries), (Duration::from_millis(250), 1));
        assert_eq!(limits.concurrent_gets, OriginLimits::default().concurrent_gets);
        assert!(serde_json::from_str::<OriginLimits>(r#"{"atempt_timeout": "250ms"}"#).is_err());
        assert!(serde_json::from_str::<OriginLimits>(r#"{"attempt_timeout": "soon"}"#).is_err());
    }

    #[test]
    fn unusable_limits_are_named() {
        assert_eq!(OriginLimits::default().defect(), None);
        let broken = OriginLimits { tries: 0, ..OriginLimits::default() };
        assert!(broken.defect().unwrap().contains("tries"));
        let broken = OriginLimits { concurrent_gets: 0, ..OriginLimits::default() };
        assert!(broken.defect().unwrap().contains("concurrent_gets"));
    }
}
