//! Layer 3: who may work now.
//!
//! Knows permits, deadlines and how long a request may queue. It must not know what the work is. A request that cannot
//! begin soon is turned away at once, while its caller still has time to ask elsewhere: under overload a queue only
//! makes all answers late.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::config::LookupConfig;
use crate::error::Error;
use crate::metrics::Metrics;

/// Longest wait for a permit: beyond it another worker, or a later try, is the better answer.
const MAX_QUEUE_WAIT: Duration = Duration::from_millis(20);
/// A request queues at most this part of its time, so that some is left to work in.
const QUEUE_SHARE: u32 = 4;
/// Advice to those who are turned away: a little more than a full queue takes to move.
const RETRY_AFTER: Duration = Duration::from_millis(50);
/// What is taken off a call's own timeout, so that our answer, which says why, is on its way before the caller gives
/// up.
const HOP_MARGIN: Duration = Duration::from_millis(5);

/// A request's time: how long it has, and until when.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    /// The time it has from its arrival.
    pub timeout: Duration,
    /// When it ends.
    pub at: Instant,
}

impl Deadline {
    /// The error of a request whose time is over.
    pub(crate) fn error(&self, subject: &str) -> Error {
        Error::Deadline { subject: subject.to_owned(), timeout: self.timeout }
    }
}

/// The permits of one worker.
#[derive(Debug)]
pub struct Admission {
    permits: Arc<Semaphore>,
    total: u32,
    default_timeout: Duration,
    max_timeout: Duration,
    metrics: Arc<Metrics>,
}

impl Admission {
    /// All permits free.
    pub fn new(config: &LookupConfig, metrics: Arc<Metrics>) -> Self {
        let total = config.permits.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        Self {
            permits: Arc::new(Semaphore::new(total)),
            total: total as u32,
            default_timeout: config.default_timeout,
            max_timeout: config.max_timeout,
            metrics,
        }
    }

    /// The time of a request that arrives now. `message` is what its message says, `call` what the gRPC call says; the
    /// shorter wins, and none means the default.
    pub fn deadline(&self, message: Option<Duration>, call: Option<Duration>) -> Deadline {
        self.deadline_or(self.default_timeout, message, call)
    }

    /// As [`Admission::deadline`] for calls that move much and whose default is the longest time allowed.
    pub fn long_deadline(&self, message: Option<Duration>, call: Option<Duration>) -> Deadline {
        self.deadline_or(self.max_timeout, message, call)
    }

    fn deadline_or(&self, default: Duration, message: Option<Duration>, call: Option<Duration>) -> Deadline {
        let call = call.map(|call| call - HOP_MARGIN.min(call / 10));
        let asked = match (message, call) {
            (Some(message), Some(call)) => message.min(call),
            (message, call) => message.or(call).unwrap_or(default),
        };
        let timeout = asked.min(self.max_timeout);
        Deadline { timeout, at: Instant::now() + timeout }
    }

    /// Waits for `weight` permits, or for all of them if there are fewer, and at most a short time.
    ///
    /// # Errors
    /// [`Error::Overloaded`]; nothing was done.
    pub async fn admit(&self, weight: usize, deadline: Deadline) -> Result<OwnedSemaphorePermit, Error> {
        let weight = u32::try_from(weight).unwrap_or(u32::MAX).clamp(1, self.total);
        let shed = || Error::Overloaded { what: "all lookup.permits are taken", retry_after: RETRY_AFTER };
        let permits = Arc::clone(&self.permits);
        if let Ok(permit) = Arc::clone(&permits).try_acquire_many_owned(weight) {
            return Ok(permit);
        }
        let wait = (deadline.timeout / QUEUE_SHARE).min(MAX_QUEUE_WAIT);
        match tokio::time::timeout(wait, permits.acquire_many_owned(weight)).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Error::Draining),
            Err(_) => {
                self.metrics.shed_total.up();
                Err(shed())
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn admission(permits: usize) -> Admission {
        Admission::new(&LookupConfig { permits, ..LookupConfig::default() }, Arc::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_multi_get_weighs_its_keys_and_the_rest_is_turned_away_soon() {
        let admission = admission(10);
        let deadline = admission.deadline(None, None);
        let held = admission.admit(8, deadline).await.unwrap();
        let small = admission.admit(2, deadline).await.unwrap();
        let began = Instant::now();
        let shed = admission.admit(1, deadline).await.unwrap_err();
        assert!(matches!(shed, Error::Overloaded { retry_after, .. } if retry_after == RETRY_AFTER));
        assert_eq!(began.elapsed(), MAX_QUEUE_WAIT);
        assert_eq!(admission.metrics.shed_total.get(), 1);
        drop((held, small));
        // More keys than permits: it waits for all of them instead of for ever.
        let whole = admission.admit(1_000, deadline).await.unwrap();
        assert!(admission.permits.try_acquire().is_err());
        drop(whole);
        let hurried = admission.deadline(Some(Duration::from_millis(8)), None);
        let _all = admission.admit(10, deadline).await.unwrap();
        let began = Instant::now();
        admission.admit(1, hurried).await.unwrap_err();
        assert_eq!(began.elapsed(), Duration::from_millis(2));
    }

    #[tokio::test(start_paused = true)]
    async fn the_shorter_time_wins_within_the_longest() {
        let admission = admission(1);
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(admission.deadline(None, None).timeout, Duration::from_secs(1));
        assert_eq!(admission.deadline(seconds(2), None).timeout, Duration::from_secs(2));
        assert_eq!(admission.deadline(seconds(2), seconds(1)).timeout, Duration::from_millis(995));
        assert_eq!(admission.deadline(seconds(90), seconds(80)).timeout, Duration::from_secs(30));
        assert_eq!(admission.long_deadline(None, None).timeout, Duration::from_secs(30));
        assert_eq!(admission.deadline(None, Some(Duration::ZERO)).timeout, Duration::ZERO);
    }
}
