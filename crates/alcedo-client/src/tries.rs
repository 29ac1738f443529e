//! One call and the workers that it is given to, one after the other or two at once.
//!
//! Knows what each end of a try means for the next one, and pays for it. It must not know what is asked, or how workers
//! are chosen: they come in the order of preference. This is the one place where a call is repeated.
//!
//! * Not accepted (down, draining, ejected): the next worker, at no cost, because nobody has worked for it yet.
//! * Lost in the middle, unavailable, or turned away: once more on the next worker, within the retry budget. Who turned
//!   it away is left alone for as long as it asked; where a connection was lost and nobody is next, the same worker is
//!   asked on a new one.
//! * Silent: after the time in which 95 of 100 answers come, the next worker is asked too, within the hedge budget. The
//!   first answer wins and the other call is cancelled. While a worker is found out to be ejected, its calls may do so
//!   at no cost: that only leads around it.
//! * Past the deadline, or any other answer: never repeated.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

use crate::budget::{Budget, Tokens};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::latency::Latencies;
use crate::stream::CallError;
use crate::transport::{Worker, no_worker};

/// A lookup is not hedged sooner than this: below it the usual stalls of a busy machine are not worth a second call.
const HEDGE_AFTER_LEAST: Duration = Duration::from_millis(5);
/// A lookup is hedged at the latest when one part in so many of its time is over, so that the second worker has enough
/// of it left.
const HEDGE_AFTER_SHARE: u32 = 4;

/// What all calls of a client pay from, and what they have learned.
#[derive(Debug)]
pub(crate) struct Purse {
    retries: Tokens,
    hedges: Tokens,
    latencies: Latencies,
}

impl Purse {
    pub(crate) fn new(retries: Budget, hedges: Budget) -> Self {
        Self { retries: Tokens::new(retries), hedges: Tokens::new(hedges), latencies: Latencies::default() }
    }
}

/// One try that came to its end.
struct Finished<T> {
    worker: Arc<Worker>,
    /// What was heard of the worker before it.
    heard: u64,
    took: Duration,
    result: Result<T, CallError>,
}

/// What to do after a try.
enum Next<T> {
    Over(Result<T, Error>),
    /// Ask another worker.
    Another,
    /// Ask nobody else.
    Enough,
}

/// One call.
struct Tries<'a> {
    purse: &'a Purse,
    deadline: Deadline,
    /// Whom to ask next.
    left: std::vec::IntoIter<Arc<Worker>>,
    /// Who is being asked, and what was heard of each before.
    waiting: Vec<(Arc<Worker>, u64)>,
    refusals: Vec<(Arc<str>, String)>,
    failure: Option<Error>,
    retried: bool,
    hedge_at: Option<Instant>,
}

/// Gives a call to `workers` in turn until one answers it. `attempt` gets the worker and the instant until which it may
/// connect. Dropping the future cancels whatever is under way.
///
/// # Errors
/// The call's own error, or that nobody accepted it.
pub(crate) async fn run<T, F>(
    purse: &Purse,
    workers: Vec<Arc<Worker>>,
    deadline: Deadline,
    may_hedge: bool,
    mut attempt: impl FnMut(Arc<Worker>, Instant) -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, CallError>>,
{
    let mut tries = Tries::new(purse, workers, deadline, may_hedge);
    let mut running = FuturesUnordered::new();
    let mut is_due = true;
    loop {
        if is_due {
            let Some((worker, connect_by)) = tries.next_worker() else { return Err(tries.over()) };
            running.push(one(Arc::clone(&worker), attempt(worker, connect_by)));
            is_due = false;
        }
        let finished = match tries.hedge_at {
            Some(at) => timeout_at(at, running.next()).await,
            None => Ok(running.next().await),
        };
        match finished {
            Ok(Some(finished)) => match tries.settle(finished) {
                Next::Over(result) => return result,
                Next::Another => is_due = true,
                Next::Enough if tries.waiting.is_empty() => return Err(tries.over()),
                Next::Enough => {}
            },
            Ok(None) => return Err(tries.over()),
            Err(_) => is_due = tries.may_hedge_now(),
        }
    }
}

async fn one<T>(worker: Arc<Worker>, call: impl Future<Output = Result<T, CallError>>) -> Finished<T> {
    let (heard, began) = (worker.health().heard(), Instant::now());
    let result = call.await;
    Finished { worker, heard, took: began.elapsed(), result }
}

impl<'a> Tries<'a> {
    fn new(purse: &'a Purse, workers: Vec<Arc<Worker>>, deadline: Deadline, may_hedge: bool) -> Self {
        purse.retries.save();
        purse.hedges.save();
        let hedge_at = (may_hedge && workers.len() > 1).then(|| Instant::now() + patience(purse, deadline));
        let left = workers.into_iter();
        Self {
            purse,
            deadline,
            left,
            waiting: Vec::new(),
            refusals: Vec::new(),
            failure: None,
            retried: false,
            hedge_at,
        }
    }

    /// The next worker to ask, and until when it may connect; nobody when all were asked or no time is left.
    fn next_worker(&mut self) -> Option<(Arc<Worker>, Instant)> {
        let remaining = self.deadline.remaining();
        if remaining.is_zero() {
            return None;
        }
        let worker = self.left.next()?;
        // Half of what is left, so that one unreachable host never takes the time of all others.
        let patience = if self.left.as_slice().is_empty() { remaining } else { remaining / 2 };
        self.waiting.push((Arc::clone(&worker), worker.health().heard()));
        Some((worker, Instant::now() + patience))
    }

    /// Learns from a try that ended.
    fn settle<T>(&mut self, finished: Finished<T>) -> Next<T> {
        let Finished { worker, heard, took, result } = finished;
        self.waiting.retain(|(other, _)| !Arc::ptr_eq(other, &worker));
        match result {
            Ok(answer) => {
                worker.health().note_success();
                self.purse.latencies.record(took);
                // Who was asked before and has said nothing since has lost.
                self.waiting.iter().for_each(|(loser, heard)| loser.health().note_silence(*heard));
                return Next::Over(Ok(answer));
            }
            Err(CallError::NotAccepted(why)) => {
                tracing::debug!(worker = %worker.address(), why, "not accepted");
                worker.health().note_failure();
                self.refusals.push((Arc::clone(worker.address()), why));
                return if self.waiting.is_empty() { Next::Another } else { Next::Enough };
            }
            Err(CallError::Silent(error)) => {
                worker.health().note_silence(heard);
                self.failure = Some(error);
                return Next::Enough;
            }
            Err(CallError::Lost(error)) => {
                worker.health().note_failure();
                self.failure = Some(error);
                if self.left.as_slice().is_empty() && !self.retried {
                    // Nobody else is left, and perhaps only the connection is gone.
                    self.left = vec![worker].into_iter();
                }
            }
            Err(CallError::Failed(error)) => match error.kind {
                Kind::Exhausted => {
                    worker.health().note_overload(error.retry_after);
                    self.failure = Some(error);
                }
                Kind::Unavailable => self.failure = Some(error),
                _ => {
                    worker.health().note_success();
                    return Next::Over(Err(error));
                }
            },
        }
        if self.may_repeat() { Next::Another } else { Next::Enough }
    }

    /// Whether a call that somebody may have worked for is given to another worker; if so, it is paid for.
    fn may_repeat(&mut self) -> bool {
        let may =
            self.waiting.is_empty() && !self.retried && !self.left.as_slice().is_empty() && self.purse.retries.spend();
        self.retried |= may;
        may
    }

    /// Whether a second worker is asked now. If not now, it may be later: when the first one turns out to be ejected,
    /// or when there is something in the purse again.
    fn may_hedge_now(&mut self) -> bool {
        let replica = self.left.as_slice().first();
        let ([(silent, _)], Some(replica)) = (self.waiting.as_slice(), replica) else {
            self.hedge_at = None;
            return false;
        };
        let may = !replica.health().is_ejected() && (silent.health().is_ejected() || self.purse.hedges.spend());
        self.hedge_at = (!may).then(|| Instant::now() + patience(self.purse, self.deadline).max(HEDGE_AFTER_LEAST));
        may
    }

    /// The error of a call that nobody answered.
    fn over(&mut self) -> Error {
        match self.failure.take() {
            Some(error) => error,
            None if self.refusals.is_empty() => self.deadline.passed("choosing a worker"),
            // Who had no time for more than a refusal was refused by the deadline.
            None if self.deadline.remaining().is_zero() => self.deadline.passed("reaching a worker"),
            None => no_worker(&self.refusals),
        }
    }
}

/// How long to wait before a second worker is asked.
fn patience(purse: &Purse, deadline: Deadline) -> Duration {
    let most = deadline.remaining() / HEDGE_AFTER_SHARE;
    purse.latencies.p95().map_or(most, |p95| p95.max(HEDGE_AFTER_LEAST).min(most))
}
