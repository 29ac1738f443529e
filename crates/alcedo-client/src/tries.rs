//! One call and the workers that it is given to, one after the other or two at once.
//!
//! Knows what each end of a try means for the next one, and pays for it. It must not know what is asked, or how workers
//! are chosen: they come in the order of preference. This is the one place where a call is repeated.
//!
//! * Not accepted (down, draining, ejected): the next worker, at no cost, because nobody has worked for it yet.
//! * Never sent, because the connection ended under it: the same way; where nobody is next, the same worker is asked on
//!   a new connection, as its old one may have ended with the runtime of somebody else.
//! * Lost in the middle, unavailable, or turned away: once more on the next worker, within the retry budget. Who turned
//!   it away is left alone for as long as it asked; where a connection was lost and nobody is next, the same worker is
//!   asked on a new one.
//! * Silent: after the time in which 95 of 100 answers come, the next worker is asked too, within the hedge budget and
//!   unless it is this side that was held up. The first answer wins and the other call is cancelled. While a worker is
//!   found out to be ejected, its calls may do so at no cost: that only leads around it.
//! * Past the deadline, or any other answer: never repeated.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::budget::{Budget, MOST_HEDGES, MOST_RETRIES, Tokens};
use crate::deadline::Deadline;
use crate::ending::CallError;
use crate::error::{Error, Kind};
use crate::latency::Latencies;
use crate::transport::{Worker, no_worker};

/// A lookup is not hedged sooner than this: below it the usual stalls of a busy machine are not worth a second call.
const HEDGE_AFTER_LEAST: Duration = Duration::from_millis(5);
/// A lookup is hedged at the latest when one part in so many of its time is over, so that the second worker has enough
/// of it left.
const HEDGE_AFTER_SHARE: u32 = 4;
/// Timers tell milliseconds: one that comes later than two of them behind its time says that this side was busy.
const HELD_UP: Duration = Duration::from_millis(3);
/// How often a call whose connection ended before it was sent begins anew with the last worker: each time somebody
/// else's runtime has to end in the same moment, and a worker that ends all its connections is not asked for ever.
const MOST_UNSENT: u32 = 8;
/// Workers that one call is given to at once.
const AT_ONCE: usize = 2;

/// What all calls of a client pay from, and what they have learned.
#[derive(Debug)]
pub(crate) struct Purse {
    retries: Tokens,
    hedges: Tokens,
    latencies: Latencies,
}

impl Purse {
    pub(crate) fn new(retries: Budget, hedges: Budget) -> Self {
        let (retries, hedges) = (Tokens::new(retries, MOST_RETRIES), Tokens::new(hedges, MOST_HEDGES));
        Self { retries, hedges, latencies: Latencies::default() }
    }
}

/// One try at one worker.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) worker: Arc<Worker>,
    /// Until when it may connect.
    pub(crate) connect_by: Instant,
    /// When it begins.
    pub(crate) now: Instant,
}

/// A worker that is being asked.
struct Asked {
    worker: Arc<Worker>,
    /// What was heard of it before.
    heard: u64,
    since: Instant,
}

/// What to do after a try.
enum Next<T> {
    Over(Result<T, Error>),
    /// Ask another worker.
    Another,
    /// Ask nobody else.
    Enough,
}

/// What happened while a call waited.
enum Event<T> {
    Ended(usize, Result<T, CallError>),
    /// It is time to look at the clock.
    Late,
}

/// One call.
struct Tries<'a> {
    purse: &'a Purse,
    deadline: Deadline,
    /// Everybody, in the order in which they are asked.
    workers: Arc<[Arc<Worker>]>,
    /// How many of them were asked.
    asked: usize,
    /// Who is asked once more after all of them.
    again: Option<Arc<Worker>>,
    /// Who is being asked.
    waiting: [Option<Asked>; AT_ONCE],
    refusals: Vec<(Arc<str>, String)>,
    failure: Option<Error>,
    retried: bool,
    /// How often it began anew with the last worker.
    unsent: u32,
    hedge_at: Option<Instant>,
}

/// Gives a call to `workers` in turn until one answers it. `attempt` gets each try; it is given up when the deadline
/// has passed. `now` is the time. Dropping the future cancels whatever is under way.
///
/// # Errors
/// The call's own error, or that nobody accepted it.
pub(crate) async fn run<T, F>(
    purse: &Purse,
    workers: Arc<[Arc<Worker>]>,
    (deadline, now): (Deadline, Instant),
    may_hedge: bool,
    mut attempt: impl FnMut(Turn) -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, CallError>>,
{
    let mut tries = Tries::new(purse, workers, (deadline, now), may_hedge);
    // Most calls have one try and no second: it is here, and needs no place elsewhere.
    let mut first = pin!(None::<F>);
    let mut second: Option<Pin<Box<F>>> = None;
    let mut due = Some(now);
    loop {
        if let Some(now) = due.take() {
            let Some(turn) = tries.next_turn(now) else { return Err(tries.over()) };
            if tries.wait_for(&turn) == 0 {
                first.set(Some(attempt(turn)));
            } else {
                second = Some(Box::pin(attempt(turn)));
            }
        }
        let mut late = pin!(sleep_until(tries.wake_at()));
        let event = poll_fn(|cx| match poll_tries(first.as_mut(), &mut second, cx) {
            Poll::Ready((place, result)) => Poll::Ready(Event::Ended(place, result)),
            Poll::Pending => late.as_mut().poll(cx).map(|()| Event::Late),
        });
        let (event, now) = (event.await, Instant::now());
        match event {
            Event::Ended(place, result) => {
                match place {
                    0 => first.set(None),
                    _ => second = None,
                }
                match tries.settle(place, result, now) {
                    Next::Over(result) => return result,
                    Next::Another => due = Some(now),
                    Next::Enough if tries.is_idle() => return Err(tries.over()),
                    Next::Enough => {}
                }
            }
            Event::Late if now >= deadline.give_up_at() => return Err(tries.give_up()),
            Event::Late => due = tries.may_hedge_now(now).then_some(now),
        }
    }
}

/// The end of one of the tries under way, and its place.
fn poll_tries<T, F: Future<Output = T>>(
    first: Pin<&mut Option<F>>,
    second: &mut Option<Pin<Box<F>>>,
    cx: &mut Context<'_>,
) -> Poll<(usize, T)> {
    if let Some(first) = first.as_pin_mut()
        && let Poll::Ready(result) = first.poll(cx)
    {
        return Poll::Ready((0, result));
    }
    match second {
        Some(second) => second.as_mut().poll(cx).map(|result| (1, result)),
        None => Poll::Pending,
    }
}

impl<'a> Tries<'a> {
    fn new(
        purse: &'a Purse,
        workers: Arc<[Arc<Worker>]>,
        (deadline, now): (Deadline, Instant),
        may_hedge: bool,
    ) -> Self {
        purse.retries.save();
        purse.hedges.save();
        let hedge_at = (may_hedge && workers.len() > 1).then(|| now + patience(purse, deadline, now));
        Self {
            purse,
            deadline,
            workers,
            asked: 0,
            again: None,
            waiting: [const { None }; AT_ONCE],
            refusals: Vec::new(),
            failure: None,
            retried: false,
            unsent: 0,
            hedge_at,
        }
    }

    /// Who comes after those that were asked.
    fn next_one(&self) -> Option<&Arc<Worker>> {
        self.workers.get(self.asked).or(self.again.as_ref())
    }

    /// The next try; none when all were asked or no time is left.
    fn next_turn(&mut self, now: Instant) -> Option<Turn> {
        let remaining = self.deadline.at().saturating_duration_since(now);
        if remaining.is_zero() {
            return None;
        }
        let worker = Arc::clone(self.next_one()?);
        if self.asked < self.workers.len() {
            self.asked += 1;
        } else {
            self.again = None;
        }
        // Half of what is left, so that one unreachable host never takes the time of all others.
        let patience = if self.next_one().is_none() { remaining } else { remaining / 2 };
        Some(Turn { worker, connect_by: now + patience, now })
    }

    /// Notes who is being asked; gives the place.
    fn wait_for(&mut self, turn: &Turn) -> usize {
        let place = usize::from(self.waiting[0].is_some());
        let worker = Arc::clone(&turn.worker);
        let heard = worker.health().heard();
        self.waiting[place] = Some(Asked { worker, heard, since: turn.now });
        place
    }

    fn is_idle(&self) -> bool {
        self.waiting.iter().all(Option::is_none)
    }

    /// When to look at the clock at the latest.
    fn wake_at(&self) -> Instant {
        let give_up = self.deadline.give_up_at();
        self.hedge_at.map_or(give_up, |at| at.min(give_up))
    }

    /// Nobody answered in time.
    fn give_up(&mut self) -> Error {
        for asked in std::mem::take(&mut self.waiting).into_iter().flatten() {
            asked.worker.health().note_silence(asked.heard);
            self.failure = Some(self.deadline.passed(format_args!("waiting for {}", asked.worker.address())));
        }
        self.over()
    }

    /// Learns from a try that ended.
    fn settle<T>(&mut self, place: usize, result: Result<T, CallError>, now: Instant) -> Next<T> {
        let Some(Asked { worker, heard, since }) = self.waiting.get_mut(place).and_then(Option::take) else {
            return Next::Enough;
        };
        match result {
            Ok(answer) => {
                worker.health().note_success();
                self.purse.latencies.record(now.saturating_duration_since(since));
                // Who was asked before and has said nothing since has lost.
                self.waiting.iter().flatten().for_each(|loser| loser.worker.health().note_silence(loser.heard));
                return Next::Over(Ok(answer));
            }
            Err(CallError::NotAccepted(why)) => {
                worker.health().note_failure();
                return self.refused(&worker, why);
            }
            Err(CallError::Unsent(why)) => {
                if self.next_one().is_none() && self.unsent < MOST_UNSENT {
                    self.unsent += 1;
                    self.again = Some(Arc::clone(&worker));
                }
                return self.refused(&worker, why);
            }
            Err(CallError::Silent(error)) => {
                worker.health().note_silence(heard);
                self.failure = Some(error);
                return Next::Enough;
            }
            Err(CallError::Lost(error)) => {
                worker.health().note_failure();
                self.failure = Some(error);
                if self.next_one().is_none() && !self.retried {
                    // Nobody else is left, and perhaps only the connection is gone.
                    self.again = Some(worker);
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

    /// Nobody has worked for it.
    fn refused<T>(&mut self, worker: &Worker, why: String) -> Next<T> {
        tracing::debug!(worker = %worker.address(), why, "not accepted");
        self.refusals.push((Arc::clone(worker.address()), why));
        if self.is_idle() { Next::Another } else { Next::Enough }
    }

    /// Whether a call that somebody may have worked for is given to another worker; if so, it is paid for.
    fn may_repeat(&mut self) -> bool {
        let may = self.is_idle() && !self.retried && self.next_one().is_some() && self.purse.retries.spend();
        self.retried |= may;
        may
    }

    /// Whether a second worker is asked now. If not now, it may be later: when the first one turns out to be ejected,
    /// or when there is something in the purse again.
    fn may_hedge_now(&mut self, now: Instant) -> bool {
        let (Some(silent), None, Some(replica)) = (&self.waiting[0], &self.waiting[1], self.next_one()) else {
            self.hedge_at = None;
            return false;
        };
        let is_ejected = silent.worker.health().is_ejected();
        // Who looks at the clock so late was kept from it, and the answer may be here and waits to be read.
        let was_held_up = self.hedge_at.is_some_and(|at| now.saturating_duration_since(at) > HELD_UP);
        let may_pay = || !was_held_up && self.purse.hedges.spend();
        let may = !replica.health().is_ejected() && (is_ejected || may_pay());
        let patience = patience(self.purse, self.deadline, now).max(HEDGE_AFTER_LEAST);
        self.hedge_at = (!may).then(|| now + patience);
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
fn patience(purse: &Purse, deadline: Deadline, now: Instant) -> Duration {
    let most = deadline.at().saturating_duration_since(now) / HEDGE_AFTER_SHARE;
    purse.latencies.p95().map_or(most, |p95| p95.max(HEDGE_AFTER_LEAST).min(most))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::sync::Mutex;

    use futures::FutureExt as _;
    use futures::future::BoxFuture;
    use tokio::sync::Notify;
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::transport::Reach;

    const LONG: Duration = Duration::from_secs(4);
    /// Tries after which a call is taken to be repeated for ever.
    const FAR_TOO_MANY: usize = 50;

    type Ended = Result<u8, CallError>;

    fn workers(count: usize) -> Arc<[Arc<Worker>]> {
        let reach = Reach { connections: 1, frames: true };
        (0..count).map(|number| Arc::new(Worker::new(&format!("w:{number}"), reach).unwrap())).collect()
    }

    fn purse() -> Purse {
        Purse::new(Budget { percent: 100, reserve: 1_000 }, Budget { percent: 100, reserve: 1_000 })
    }

    fn lost() -> CallError {
        CallError::Lost(Error::new(Kind::Unavailable, "cut"))
    }

    /// Which workers a call is given to, and how it ends; `ended` says by a worker's number how its try does.
    async fn given_to(
        purse: &Purse,
        workers: &Arc<[Arc<Worker>]>,
        ended: impl Fn(usize) -> BoxFuture<'static, Ended>,
    ) -> (Vec<usize>, Result<u8, Error>) {
        let asked = Mutex::new(Vec::new());
        let deadline = Deadline::after(LONG);
        let attempt = |turn: Turn| {
            let number = workers.iter().position(|worker| Arc::ptr_eq(worker, &turn.worker)).unwrap();
            let mut asked = asked.lock().unwrap();
            asked.push(number);
            assert!(asked.len() < FAR_TOO_MANY, "it is repeated for ever");
            ended(number)
        };
        let outcome = run(purse, Arc::clone(workers), (deadline, Instant::now()), true, attempt).await;
        (asked.into_inner().unwrap(), outcome)
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_never_sent_begins_anew_a_few_times_with_the_last_worker() {
        let none = Purse::new(Budget::NONE, Budget::NONE);
        for (count, first) in [(1, vec![0]), (3, vec![0, 1, 2])] {
            let workers = workers(count);
            let unsent = |_| async { Err(CallError::Unsent("its runtime ended".to_owned())) }.boxed();
            let (asked, outcome) = given_to(&none, &workers, unsent).await;
            assert_eq!(asked, [first, vec![count - 1; MOST_UNSENT as usize]].concat());
            assert_eq!(outcome.unwrap_err().kind, Kind::Unavailable);
            // It says nothing about them.
            assert!(workers.iter().all(|worker| worker.health().is_well()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_have_been_accepted_is_repeated_once_and_what_was_silent_never() {
        for (count, expected) in [(1, vec![0, 0]), (3, vec![0, 1])] {
            let (asked, outcome) = given_to(&purse(), &workers(count), |_| async { Err(lost()) }.boxed()).await;
            assert_eq!((asked, outcome.unwrap_err().kind), (expected, Kind::Unavailable));
        }
        let silent = |_| async { Err(CallError::Silent(Error::new(Kind::Deadline, "late"))) }.boxed();
        let (asked, outcome) = given_to(&purse(), &workers(3), silent).await;
        assert_eq!((asked, outcome.unwrap_err().kind), (vec![0], Kind::Deadline));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_asked_after_the_deadline() {
        let late = |_| async {
            sleep(LONG + Duration::from_millis(5)).await;
            Err(CallError::NotAccepted("it drains".to_owned()))
        };
        let alone = Purse::new(Budget::RETRIES, Budget::NONE);
        let (asked, outcome) = given_to(&alone, &workers(2), |number| late(number).boxed()).await;
        assert_eq!((asked, outcome.unwrap_err().kind), (vec![0], Kind::Deadline));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_unreachable_leaves_time_for_the_next() {
        let (workers, deadline, times) = (workers(3), Deadline::after(LONG), Mutex::new(Vec::new()));
        let attempt = |turn: Turn| {
            times.lock().unwrap().push(turn.connect_by - turn.now);
            async { Err::<u8, _>(CallError::NotAccepted("refused".to_owned())) }
        };
        run(&purse(), workers, (deadline, Instant::now()), true, attempt).await.unwrap_err();
        assert_eq!(times.into_inner().unwrap(), [LONG / 2, LONG / 2, LONG]);
    }

    /// The first worker answers when it was silent for half of the deadline, the others end at once.
    fn slow_first(others: fn() -> CallError) -> impl Fn(usize) -> BoxFuture<'static, Ended> {
        move |number| match number {
            0 => async { sleep(LONG / 2).await }.map(|()| Ok(0)).boxed(),
            _ => async move { Err(others()) }.boxed(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_one_is_under_way_a_second_one_that_fails_is_not_followed_by_a_third() {
        for others in [lost, || CallError::NotAccepted("it drains".to_owned())] {
            let (asked, outcome) = given_to(&purse(), &workers(3), slow_first(others)).await;
            assert_eq!((asked.as_slice(), outcome.unwrap()), (&[0, 1][..], 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn hedges_are_saved_up_by_calls_and_no_ejected_worker_is_asked() {
        let all = Purse::new(Budget::NONE, Budget { percent: 100, reserve: 0 });
        let workers = workers(2);
        let second = |number| match number {
            0 => std::future::pending().boxed(),
            _ => async { Ok(1) }.boxed(),
        };
        let (asked, outcome) = given_to(&all, &workers, second).await;
        assert_eq!((asked, outcome.unwrap()), (vec![0, 1], 1));
        workers[1].health().note_failure();
        let (asked, outcome) = given_to(&all, &workers, slow_first(lost)).await;
        assert_eq!((asked, outcome.unwrap()), (vec![0], 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_held_up_reads_before_it_asks_others() {
        let (answer, workers, purse) = (Arc::new(Notify::new()), workers(2), purse());
        let waiting = Arc::clone(&answer);
        let first = move |_| {
            let waiting = Arc::clone(&waiting);
            async move { waiting.notified().await }.map(|()| Ok(0)).boxed()
        };
        let held_up = async {
            tokio::task::yield_now().await;
            advance(LONG / HEDGE_AFTER_SHARE + Duration::from_millis(50)).await;
            // Whoever reads the connection has its turn.
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            answer.notify_one();
        };
        let ((asked, outcome), ()) = tokio::join!(given_to(&purse, &workers, first), held_up);
        assert_eq!((asked, outcome.unwrap()), (vec![0], 0));
    }
}
