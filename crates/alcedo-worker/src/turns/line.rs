//! Layer 3: who works next on one serving thread.
//!
//! Knows the streams and calls that have work for the thread, in the order in which they came. It must not know the
//! work. One of them works at a time, and between two of them the thread looks at its sockets and everybody who has no
//! such work has a turn: what arrives is read, and refused if need be, within the time of one turn, however many
//! streams are at work.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::look::Look;
use super::{is_tired, rested};

/// Whose turn it is and who does not come is passed over after this time: a connection that cannot write asks for
/// nothing, and its stream may not be woken at all.
const PATIENCE: Duration = Duration::from_millis(5);

thread_local! {
    static LINE: Arc<Line> = Arc::default();
}

/// Those who wait for their turn on one thread.
#[derive(Default)]
struct Line {
    waiting: Mutex<Waiting>,
    /// How many they are.
    length: AtomicUsize,
}

#[derive(Default)]
struct Waiting {
    places: VecDeque<Place>,
    next: u64,
    /// Since when the first one has been called.
    called: Option<Instant>,
}

struct Place {
    number: u64,
    waker: Option<Waker>,
}

/// Whether anybody on this thread waits for a turn.
pub(crate) fn is_waited_for() -> bool {
    LINE.with(|line| line.length.load(Ordering::Relaxed) > 0)
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place out; the next one is called if it was the first.
    fn leave(&self, number: u64) {
        let mut waiting = self.lock();
        let Some(at) = waiting.places.iter().position(|place| place.number == number) else { return };
        waiting.places.remove(at);
        self.length.store(waiting.places.len(), Ordering::Relaxed);
        let first = if at == 0 { waiting.call() } else { None };
        drop(waiting);
        first.into_iter().for_each(Waker::wake);
    }
}

impl Waiting {
    /// Calls the first one.
    fn call(&mut self) -> Option<Waker> {
        self.called = Some(Instant::now());
        self.places.front_mut()?.waker.take()
    }

    /// Whether this is the first; one that was called long ago and has not come goes to the end.
    fn is_first(&mut self, number: u64) -> (bool, Option<Waker>) {
        let is_late = |first: &Place| first.number != number && self.called.is_some_and(|at| at.elapsed() > PATIENCE);
        let woken = match self.places.front().is_some_and(is_late) {
            true => {
                self.places.rotate_left(1);
                self.call()
            }
            false => None,
        };
        (self.places.front().is_some_and(|first| first.number == number), woken)
    }
}

/// A place in the line; dropping it leaves.
struct Ticket {
    line: Arc<Line>,
    number: u64,
    /// Once it is the first: while the thread looks at its sockets.
    look: Option<Look>,
    /// Until then: when it looks whether the first one came.
    next_check: Option<Pin<Box<Sleep>>>,
}

impl Ticket {
    fn new() -> Self {
        let line = LINE.with(Arc::clone);
        let mut waiting = line.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.places.push_back(Place { number, waker: None });
        if waiting.places.len() == 1 {
            waiting.called = Some(Instant::now());
        }
        line.length.store(waiting.places.len(), Ordering::Relaxed);
        drop(waiting);
        Self { line, number, look: None, next_check: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.line.lock();
        let (is_first, woken) = waiting.is_first(self.number);
        if !is_first {
            self.look = None;
            let place = waiting.places.iter_mut().find(|place| place.number == self.number);
            place.into_iter().for_each(|place| place.waker = Some(cx.waker().clone()));
        }
        drop(waiting);
        woken.into_iter().for_each(Waker::wake);
        if !is_first {
            self.check_again(cx);
            return Poll::Pending;
        }
        self.next_check = None;
        self.look.get_or_insert_with(Look::begin).poll(cx)
    }
}

impl Ticket {
    /// Who stands behind one that does not come has nobody else to wake it.
    fn check_again(&mut self, cx: &mut Context<'_>) {
        let next = self.next_check.get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
        while next.as_mut().poll(cx).is_ready() {
            next.as_mut().reset(Instant::now() + PATIENCE);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.line.leave(self.number);
    }
}

/// The turns of one stream or call.
#[derive(Default)]
pub(crate) struct Turn {
    ticket: Option<Ticket>,
    /// It is its turn until the thread is tired.
    is_on: bool,
}

impl Turn {
    /// Whether it may work now. If not, whoever polls is woken when it may.
    pub(crate) fn is_on(&mut self, cx: &mut Context<'_>) -> bool {
        self.is_on &= !is_tired();
        if self.is_on || self.ticket.is_none() && !is_tired() && !is_waited_for() {
            return true;
        }
        if self.ticket.get_or_insert_with(Ticket::new).poll(cx).is_ready() {
            rested();
            (self.ticket, self.is_on) = (None, true);
        }
        self.is_on
    }

    /// It has nothing to do for now.
    pub(crate) fn end(&mut self) {
        (self.ticket, self.is_on) = (None, false);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::cell::RefCell;
    use std::future::poll_fn;
    use std::rc::Rc;

    use tokio::task::{LocalSet, yield_now};

    use super::super::{MAX_WORK, worked};
    use super::*;

    /// Works so many times, each time for a whole turn, and notes it.
    async fn work(name: u32, times: u32, notes: &RefCell<Vec<u32>>) {
        let (mut turn, mut left) = (Turn::default(), times);
        poll_fn(|cx| {
            while left > 0 && turn.is_on(cx) {
                worked(MAX_WORK);
                notes.borrow_mut().push(name);
                left -= 1;
            }
            if left == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    // The clock stands still: who is called always comes in time, however busy the machine is.
    #[tokio::test(start_paused = true)]
    async fn turns_go_round_and_between_two_everybody_else_has_one() {
        rested();
        let notes = Rc::new(RefCell::new(Vec::new()));
        let all = LocalSet::new();
        for name in 0..16 {
            let notes = Rc::clone(&notes);
            all.spawn_local(async move { work(name, 8, &notes).await });
        }
        let seen = Rc::clone(&notes);
        // It has no work that takes the thread, and comes each time that the thread has looked at its sockets.
        let most = all
            .run_until(async {
                let (mut most, mut before) = (0, 0);
                while seen.borrow().len() < 16 * 8 {
                    yield_now().await;
                    let now = seen.borrow().len();
                    (most, before) = (most.max(now - before), now);
                }
                most
            })
            .await;
        assert!(most <= 2, "{most} turns while one looked away");
        // The very first turn was had when nobody else was in line.
        for round in notes.borrow()[1..].chunks_exact(16) {
            let mut names = round.to_vec();
            names.sort_unstable();
            assert_eq!(names, (0..16).collect::<Vec<_>>(), "{:?}", notes.borrow());
        }
        assert!(!is_waited_for());
        rested();
    }

    fn is_on(turn: &mut Turn) -> bool {
        turn.is_on(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn who_does_not_come_is_passed_over_and_who_leaves_calls_the_next() {
        rested();
        tokio::time::pause();
        let [mut first, mut second, mut third] = [const { Turn { ticket: None, is_on: false } }; 3];
        assert!(is_on(&mut first) && is_on(&mut second), "nobody waits");
        worked(MAX_WORK);
        assert!(!is_on(&mut first) && !is_on(&mut second) && !is_on(&mut third));
        // The first one is called and is not polled.
        tokio::time::advance(PATIENCE).await;
        assert!(!is_on(&mut second));
        yield_now().await;
        assert!(!is_on(&mut second));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!is_on(&mut second) && !is_on(&mut second), "the thread looks at its sockets first");
        yield_now().await;
        assert!(is_on(&mut second) && is_on(&mut second));
        worked(MAX_WORK);
        assert!(!is_on(&mut second) && !is_on(&mut first), "they are behind the third now");
        third.end();
        assert!(!is_on(&mut second) && !is_on(&mut first));
        yield_now().await;
        assert!(!is_on(&mut second) && is_on(&mut first));
        first.end();
        assert!(!is_on(&mut second));
        yield_now().await;
        assert!(is_on(&mut second) && !is_waited_for());
        second.end();
        rested();
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_long_for_one_that_does_not_come() {
        rested();
        worked(MAX_WORK);
        let mut absent = Turn::default();
        assert!(!is_on(&mut absent));
        let began = Instant::now();
        let mut turn = Turn::default();
        // Nothing else wakes it.
        poll_fn(|cx| if turn.is_on(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
        assert!(began.elapsed() >= PATIENCE && began.elapsed() <= 3 * PATIENCE, "{:?}", began.elapsed());
        drop((turn, absent));
        assert!(!is_waited_for());
        rested();
    }

    #[tokio::test]
    async fn a_place_that_ends_on_another_thread_is_given_back() {
        rested();
        worked(MAX_WORK);
        let mut turn = Turn::default();
        assert!(!is_on(&mut turn) && is_waited_for());
        std::thread::spawn(move || drop(turn)).join().unwrap();
        assert!(!is_waited_for());
        rested();
    }
}
