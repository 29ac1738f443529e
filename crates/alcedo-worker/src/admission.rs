//! Layer 3: who may work now.
//!
//! Knows permits, deadlines and how long a request may queue. It must not know what the work is. A request that cannot
//! begin soon is turned away at once, while its caller still has time to ask elsewhere: under overload a queue only
//! makes all answers late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::config::LookupConfig;
use crate::cost::Cost;
use crate::error::Error;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::turns;

/// Longest wait for a permit: beyond it another worker, or a later try, is the better answer, and it is of use only if
/// it comes soon.
const MAX_QUEUE_WAIT: Duration = Duration::from_millis(3);
/// Most requests that wait for a permit: about as many as come free in that time, so that of more most wait in vain.
const MAX_WAITING: usize = 64;
/// A request queues at most this part of its time, so that some is left to work in.
const QUEUE_SHARE: u32 = 4;
/// Advice to those who are turned away: a little more than a full queue takes to move.
const RETRY_AFTER: Duration = Duration::from_millis(50);
/// The same where memory is short, which takes about so long to be looked at again.
const MEMORY_RETRY_AFTER: Duration = Duration::from_secs(1);
/// Most permits of one lookup, as a part of all: a multi-get of very many keys leaves room for others, and is one
/// request's work at a time in any case.
const WEIGHT_SHARE: u32 = 4;
/// Work that can wait does so while less than this part of all permits, as a divisor, is free.
const STRAINED_SHARE: usize = 2;
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

    /// The same of one that may have waited for what is learned without it.
    pub(crate) fn passed(&self, subject: &str, cost: &Cost) -> Error {
        let Some((walked, total)) = cost.learned() else { return self.error(subject) };
        Error::IndexBuilding { subject: subject.to_owned(), timeout: self.timeout, walked, total }
    }
}

/// Why requests are turned away most of the time.
const ALL_TAKEN: &str = "all lookup.permits are taken";

/// A request that waits for a permit.
struct Waiting<'a> {
    all: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiting<'a> {
    fn new(all: &'a AtomicUsize) -> Self {
        Self { all, before: all.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The permits of one worker.
#[derive(Debug)]
pub struct Admission {
    permits: Arc<Semaphore>,
    /// Requests that wait for one.
    waiting: AtomicUsize,
    /// All permits.
    total: usize,
    /// Most permits of one request.
    heaviest: u32,
    default_timeout_us: AtomicU64,
    max_timeout_us: AtomicU64,
    /// How much of the memory that the process may have is left.
    memory: AtomicU8,
    metrics: Arc<Metrics>,
}

impl Admission {
    /// All permits free.
    pub fn new(config: &LookupConfig, metrics: Arc<Metrics>) -> Self {
        let total = config.permits.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        let admission = Self {
            permits: Arc::new(Semaphore::new(total)),
            waiting: AtomicUsize::new(0),
            total,
            heaviest: (total as u32 / WEIGHT_SHARE).max(1),
            default_timeout_us: AtomicU64::new(0),
            max_timeout_us: AtomicU64::new(0),
            memory: AtomicU8::new(Memory::Enough as u8),
            metrics,
        };
        admission.set_timeouts(config);
        admission
    }

    /// Takes other times for requests that arrive from now on.
    pub(crate) fn set_timeouts(&self, config: &LookupConfig) {
        let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.default_timeout_us.store(us(config.default_timeout), Ordering::Relaxed);
        self.max_timeout_us.store(us(config.max_timeout), Ordering::Relaxed);
    }

    /// While memory is scarce, work that can wait does; while it is short, whoever asks is turned away.
    pub(crate) fn set_memory(&self, memory: Memory) {
        self.memory.store(memory as u8, Ordering::Relaxed);
    }

    /// How much memory is left.
    pub(crate) fn memory(&self) -> Memory {
        [Memory::Enough, Memory::Scarce]
            .into_iter()
            .find(|memory| *memory as u8 == self.memory.load(Ordering::Relaxed))
            .unwrap_or(Memory::Short)
    }

    /// Whether whoever asks is turned away.
    pub(crate) fn memory_is_short(&self) -> bool {
        self.memory() == Memory::Short
    }

    /// Whether requests need the worker for themselves: memory is scarce, or many permits are taken.
    pub(crate) fn is_strained(&self) -> bool {
        self.memory() != Memory::Enough || self.permits.available_permits() < self.total / STRAINED_SHARE
    }

    /// Why a request is turned away while memory is short.
    pub(crate) fn memory_error() -> Error {
        Error::Overloaded { what: "memory.limit is nearly reached", retry_after: MEMORY_RETRY_AFTER }
    }

    fn refused_for_memory(&self) -> Error {
        self.metrics.shed_memory_total.up();
        Self::memory_error()
    }

    fn max_timeout(&self) -> Duration {
        Duration::from_micros(self.max_timeout_us.load(Ordering::Relaxed))
    }

    /// The time of a request that arrives now. `message` is what its message says, `call` what the gRPC call says; the
    /// shorter wins, and none means the default.
    pub fn deadline(&self, message: Option<Duration>, call: Option<Duration>) -> Deadline {
        self.deadline_or(Duration::from_micros(self.default_timeout_us.load(Ordering::Relaxed)), message, call)
    }

    /// As [`Admission::deadline`] for calls that move much and whose default is the longest time allowed.
    pub fn long_deadline(&self, message: Option<Duration>, call: Option<Duration>) -> Deadline {
        self.deadline_or(self.max_timeout(), message, call)
    }

    fn deadline_or(&self, default: Duration, message: Option<Duration>, call: Option<Duration>) -> Deadline {
        let call = call.map(|call| call - HOP_MARGIN.min(call / 10));
        let asked = match (message, call) {
            (Some(message), Some(call)) => message.min(call),
            (message, call) => message.or(call).unwrap_or(default),
        };
        let timeout = asked.min(self.max_timeout());
        Deadline { timeout, at: Instant::now() + timeout }
    }

    /// Why a request that comes now would be turned away for certain, or would wait too long for its turn.
    pub(crate) fn refusal(&self, deadline: Deadline, is_admitted: bool) -> Option<Error> {
        // Not for want of permits: who is told so comes again much too soon.
        if !is_admitted && self.memory_is_short() {
            return Some(self.refused_for_memory());
        }
        // Where others wait for a turn, a permit and the end of a wait for one would be noticed far too late.
        let may_wait = || self.waiting.load(Ordering::Relaxed) < MAX_WAITING && !turns::is_busy();
        let what = if !is_admitted && !may_wait() {
            ALL_TAKEN
        } else if turns::expected_wait() > deadline.timeout / QUEUE_SHARE {
            "what waits already takes more than a quarter of the request's time"
        } else {
            return None;
        };
        self.metrics.shed_total.up();
        Some(Error::Overloaded { what, retry_after: RETRY_AFTER })
    }

    /// The permits of a request, if they are free and memory is not short.
    pub(crate) fn try_admit(&self, weight: usize) -> Option<OwnedSemaphorePermit> {
        if self.memory_is_short() {
            return None;
        }
        Arc::clone(&self.permits).try_acquire_many_owned(self.weight(weight)).ok()
    }

    fn weight(&self, keys: usize) -> u32 {
        u32::try_from(keys).unwrap_or(u32::MAX).clamp(1, self.heaviest)
    }

    /// Waits for `weight` permits, or for a quarter of all if that is fewer, and at most a short time.
    ///
    /// # Errors
    /// [`Error::Overloaded`]; nothing was done.
    pub async fn admit(&self, weight: usize, deadline: Deadline) -> Result<OwnedSemaphorePermit, Error> {
        let weight = self.weight(weight);
        if self.memory_is_short() {
            return Err(self.refused_for_memory());
        }
        let shed = || {
            self.metrics.shed_total.up();
            Err(Error::Overloaded { what: ALL_TAKEN, retry_after: RETRY_AFTER })
        };
        let permits = Arc::clone(&self.permits);
        if let Ok(permit) = Arc::clone(&permits).try_acquire_many_owned(weight) {
            return Ok(permit);
        }
        let waiting = Waiting::new(&self.waiting);
        if waiting.before >= MAX_WAITING {
            return shed();
        }
        let wait = (deadline.timeout / QUEUE_SHARE).min(MAX_QUEUE_WAIT);
        match tokio::time::timeout(wait, permits.acquire_many_owned(weight)).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Error::Draining),
            Err(_) => shed(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn admission(permits: usize) -> Admission {
        // What another test did on this thread, where all of them have one, is not this one's.
        turns::rested();
        Admission::new(&LookupConfig { permits, ..LookupConfig::default() }, Arc::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_multi_get_weighs_its_keys_and_the_rest_is_turned_away_soon() {
        let admission = admission(40);
        let deadline = admission.deadline(None, None);
        let held: Vec<_> =
            futures::future::join_all((0..4).map(|_| admission.admit(8, deadline))).await.into_iter().collect();
        let small = admission.admit(8, deadline).await.unwrap();
        let began = Instant::now();
        let shed = admission.admit(1, deadline).await.unwrap_err();
        assert!(matches!(shed, Error::Overloaded { retry_after, .. } if retry_after == RETRY_AFTER));
        assert_eq!(began.elapsed(), MAX_QUEUE_WAIT);
        assert_eq!(admission.metrics.shed_total.get(), 1);
        let hurried = admission.deadline(Some(Duration::from_millis(8)), None);
        let began = Instant::now();
        admission.admit(1, hurried).await.unwrap_err();
        assert_eq!(began.elapsed(), Duration::from_millis(2));
        drop((held, small));
        drop(admission.admit(1, deadline).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn of_very_many_who_would_wait_most_are_turned_away_at_once() {
        let admission = admission(4);
        let deadline = admission.deadline(None, None);
        assert!(admission.refusal(deadline, false).is_none());
        let held = futures::future::join_all((0..4).map(|_| admission.admit(1, deadline))).await;
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| Box::pin(admission.admit(1, deadline))).collect();
        for waiting in &mut waiting {
            assert!(futures::poll!(waiting).is_pending());
        }
        let began = Instant::now();
        assert!(matches!(admission.refusal(deadline, false), Some(Error::Overloaded { .. })));
        assert!(matches!(admission.admit(1, deadline).await, Err(Error::Overloaded { .. })));
        assert!(began.elapsed().is_zero());
        assert_eq!(admission.metrics.shed_total.get(), 2);
        drop((waiting, held));
        assert!(admission.refusal(deadline, false).is_none());
        drop(admission.admit(1, deadline).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn one_lookup_takes_a_quarter_at_most_however_many_keys_it_has() {
        let admission = admission(512);
        let deadline = admission.deadline(None, None);
        let heavy = admission.admit(1_024, deadline).await.unwrap();
        assert_eq!((heavy.num_permits(), admission.permits.available_permits()), (128, 384));
        let began = Instant::now();
        let others: Vec<_> =
            futures::future::join_all((0..384).map(|_| admission.admit(1, deadline))).await.into_iter().collect();
        assert!(others.iter().all(Result::is_ok) && began.elapsed().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn while_memory_is_short_all_are_turned_away() {
        let admission = admission(8);
        let deadline = admission.deadline(None, None);
        admission.set_memory(Memory::Scarce);
        assert!(admission.is_strained());
        drop(admission.admit(1, deadline).await.unwrap());
        admission.set_memory(Memory::Short);
        assert!(admission.is_strained() && admission.try_admit(1).is_none());
        assert!(matches!(admission.admit(1, deadline).await, Err(Error::Overloaded { .. })));
        assert_eq!(admission.metrics.shed_memory_total.get(), 1);
        // A thread that is tired tells the same reason.
        turns::worked(Duration::from_secs(1));
        let refused = admission.refusal(deadline, false).unwrap();
        assert_eq!(refused.to_string(), Admission::memory_error().to_string());
        assert_eq!((admission.metrics.shed_memory_total.get(), admission.metrics.shed_total.get()), (2, 0));
        admission.set_memory(Memory::Enough);
        let refused = admission.refusal(deadline, false).unwrap();
        assert!(refused.to_string().contains(ALL_TAKEN), "{refused}");
        turns::rested();
        assert!(admission.refusal(deadline, false).is_none() && !admission.is_strained());
        drop(admission.admit(1, deadline).await.unwrap());
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
