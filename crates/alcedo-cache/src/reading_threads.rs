//! Layer 1: the threads that wait for the disk on behalf of readers.
//!
//! Knows threads and work. It must not know what is read. They are the store's own: a disk that hangs takes all of
//! them, and if they were the runtime's, nothing could be decoded any more. There are as many as reads wait at once,
//! made when they are needed; one that has had nothing to do for a while ends.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

/// Most threads. Whoever hands in work keeps no more than so many under way.
pub(crate) const MOST_THREADS: usize = 64;
/// Stack of each: a read needs a page of it.
const STACK_BYTES: usize = 128 << 10;
/// A thread without work ends after this time.
const IDLE: Duration = Duration::from_secs(10);

type Work = Box<dyn FnOnce() + Send>;

/// The threads of one store. Dropping it lets them end.
#[derive(Default)]
pub(crate) struct ReadingThreads {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    work: VecDeque<Work>,
    threads: usize,
    /// Threads that wait for work.
    idle: usize,
    is_closed: bool,
}

/// A thread of the pool, counted as long as it lives, also when its work panics.
struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.queue().threads -= 1;
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No work runs while the lock is held, so a panic of a holder leaves the counts right.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next work; nothing when there was none for a while, or there will be none.
    fn next(&self) -> Option<Work> {
        let mut queue = self.queue();
        loop {
            if let Some(work) = queue.work.pop_front() {
                return Some(work);
            }
            if queue.is_closed {
                return None;
            }
            queue.idle += 1;
            let (woken, timeout) = self.wake.wait_timeout(queue, IDLE).unwrap_or_else(PoisonError::into_inner);
            queue = woken;
            queue.idle -= 1;
            if timeout.timed_out() && queue.work.is_empty() {
                return None;
            }
        }
    }
}

impl ReadingThreads {
    /// Runs the work on one of the threads. Nothing comes back when it panics or no thread can be had.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
        let (done, outcome) = oneshot::channel();
        let work = move || {
            // Whoever asked may have given up.
            let _ = done.send(work());
        };
        let mut queue = self.shared.queue();
        queue.work.push_back(Box::new(work));
        if queue.work.len() > queue.idle && queue.threads < MOST_THREADS {
            queue.threads += 1;
            drop(queue);
            self.begin();
        } else {
            drop(queue);
            self.shared.wake.notify_one();
        }
        outcome
    }

    fn begin(&self) {
        let counted = Counted(Arc::clone(&self.shared));
        let body = move || {
            while let Some(work) = counted.0.next() {
                work();
            }
        };
        let thread = thread::Builder::new().name("page-reader".into()).stack_size(STACK_BYTES).spawn(body);
        if let Err(error) = thread {
            tracing::warn!(%error, "no thread can be had to read from the disk");
            let mut queue = self.shared.queue();
            if queue.threads == 0 {
                // Nobody would ever do it: whoever waits hears at once that nothing comes.
                queue.work.clear();
            }
        }
    }
}

impl Drop for ReadingThreads {
    fn drop(&mut self) {
        self.shared.queue().is_closed = true;
        self.shared.wake.notify_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn as_much_work_as_there_may_be_threads_runs_at_once() {
        let threads = ReadingThreads::default();
        // Each waits for all others: with one thread less, none would ever end.
        let all = Arc::new(std::sync::Barrier::new(MOST_THREADS));
        let outcomes: Vec<_> = (0..MOST_THREADS)
            .map(|number| {
                let all = Arc::clone(&all);
                threads.run(move || {
                    all.wait();
                    number
                })
            })
            .collect();
        for (number, outcome) in outcomes.into_iter().enumerate() {
            assert_eq!(outcome.await.unwrap(), number);
        }
        assert_eq!(threads.shared.queue().threads, MOST_THREADS);
        assert_eq!(threads.run(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn work_that_panics_costs_its_own_answer() {
        let threads = ReadingThreads::default();
        assert!(threads.run(|| panic!("planted")).await.is_err());
        assert_eq!(threads.run(|| 7).await.unwrap(), 7);
    }
}
