//! Layer 3: how long one serving thread has worked without a look at its sockets.
//!
//! Knows the time that work took on this thread lately, and how much of it waits. It must not know the work. What
//! arrives while a thread decodes is neither read nor refused, and a queue that nobody has read is one that nobody can
//! bound: so whoever works for others stops for a moment every fraction of a millisecond, and then it is the next one's
//! turn.

mod line;
mod look;

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use line::Turn;
pub(crate) use look::Look;

use crate::shortage;

/// For so long a thread works before it looks at its sockets: two or three lookups from compressed data pages.
const MAX_WORK: Duration = Duration::from_micros(500);
/// What one poll of work counts for at most in what work is expected to take: longer steps are handed to decoding
/// threads, so a thread that was gone for longer stood still, with its machine.
const LONGEST_POLL: Duration = Duration::from_millis(50);
/// Weight of all earlier work, against the last, in what work is expected to take.
const EARLIER: u32 = 15;

thread_local! {
    /// Work since the last look.
    static WORKED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// What work takes, lately.
    static EACH: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// How much work waits.
    static WAITING: Cell<u32> = const { Cell::new(0) };
}

/// Work that waits to be begun on this thread.
#[derive(Debug)]
pub(crate) struct Waits;

impl Waits {
    pub(crate) fn new() -> Self {
        WAITING.set(WAITING.get() + 1);
        Self
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        // On a runtime of several threads it may end on another one than it began; there this is a guess.
        WAITING.set(WAITING.get().saturating_sub(1));
    }
}

/// How long work that comes now would wait on this thread, by what work took lately.
pub(crate) fn expected_wait() -> Duration {
    EACH.get() * WAITING.get()
}

/// Notes work that took the thread and is done.
pub(crate) fn worked(took: Duration) {
    WORKED.set(WORKED.get() + took);
}

/// Whether the thread should look at its sockets before it begins more work.
pub(crate) fn is_tired() -> bool {
    WORKED.get() >= MAX_WORK
}

/// Whether work that comes now cannot begin at once.
pub(crate) fn is_busy() -> bool {
    is_tired() || line::is_waited_for()
}

/// The thread has looked.
pub(crate) fn rested() {
    WORKED.set(Duration::ZERO);
}

/// The thread has looked, and goes on with what costs next to nothing: it is rested only if nobody waits for a turn.
pub(crate) fn looked() {
    if !line::is_waited_for() {
        rested();
    }
}

/// Waits for a turn on this thread.
pub(crate) async fn turn() {
    let mut turn = Turn::default();
    poll_fn(|cx| if turn.is_on(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Does work, and measures it: what it waits for between is no work. Work that goes on after a wait on a thread that is
/// tired gives way once: whoever polls many of these in a row would otherwise do the work of all of them in one go.
pub(crate) async fn measured<T>(work: impl Future<Output = T>) -> T {
    let (mut work, mut all, mut gave_way) = (pin!(work), Duration::ZERO, true);
    let done = poll_fn(|cx| {
        if !gave_way && is_tired() {
            gave_way = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        gave_way = false;
        let began = Instant::now();
        let polled = work.as_mut().poll(cx);
        let took = began.elapsed();
        worked(took);
        shortage::worked(took);
        all += took.min(LONGEST_POLL);
        polled
    })
    .await;
    EACH.set((EACH.get() * EARLIER + all) / (EARLIER + 1));
    done
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_is_tired_after_work_and_knows_what_more_would_take() {
        rested();
        assert!(!is_tired() && expected_wait().is_zero());
        assert_eq!(measured(std::future::ready(7)).await, 7);
        measured(async {
            // Work takes the thread; a timer would give it away.
            let begin = std::time::Instant::now();
            while begin.elapsed() < MAX_WORK {
                std::hint::spin_loop();
            }
        })
        .await;
        assert!(is_tired());
        let waiting = [Waits::new(), Waits::new()];
        let two = expected_wait();
        assert!(two > MAX_WORK / (EARLIER + 1));
        drop(waiting);
        assert!(expected_wait().is_zero());
        rested();
        assert!(!is_tired());
    }

    // The clock stands still: a thread that loses the processor in between has not worked meanwhile.
    #[tokio::test(start_paused = true)]
    async fn work_that_goes_on_gives_way_once_on_a_tired_thread() {
        let (begun, gone_on) = (Cell::new(0), Cell::new(0));
        let work = || {
            measured(async {
                begun.set(begun.get() + 1);
                tokio::task::yield_now().await;
                gone_on.set(gone_on.get() + 1);
                worked(MAX_WORK);
            })
        };
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let mut all: Vec<_> = (0..3).map(|_| Box::pin(work())).collect();
        let mut poll_all =
            || all.iter_mut().map(|work| usize::from(work.as_mut().poll(&mut cx).is_ready())).sum::<usize>();
        rested();
        assert_eq!((poll_all(), begun.get()), (0, 3));
        // The first goes on, and the thread is tired then.
        assert_eq!((poll_all(), gone_on.get()), (1, 1));
        rested();
    }

    #[tokio::test(start_paused = true)]
    async fn a_thread_that_stood_still_says_little_of_what_work_takes() {
        EACH.set(Duration::ZERO);
        measured(tokio::time::advance(Duration::from_secs(2))).await;
        assert_eq!(EACH.replace(Duration::ZERO), LONGEST_POLL / (EARLIER + 1));
        rested();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_waited_for_is_no_work() {
        rested();
        measured(tokio::time::sleep(Duration::from_secs(9))).await;
        assert!(!is_tired());
    }
}
