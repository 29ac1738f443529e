//! Layer 1: what waits to be written.
//!
//! Knows a queue between those who have bytes and the one thread that writes. It must not know what a segment is. It is
//! bounded in bytes and in number, and nobody waits to get in: whoever finds it full drops what it has.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::file_key::FileKey;
use crate::places::PendingExtent;

/// Bytes that wait at most: what a disk of 250 MB/s writes in a quarter of a second; more would only hide that it is
/// slow.
const MOST_BYTES: u64 = 64 << 20;
/// Extents and notes that wait at most; small ones cost their own overhead of memory.
const MOST_ITEMS: usize = 4_096;

/// Something to do for the writer.
#[derive(Debug)]
pub(crate) enum Job {
    Append(PendingExtent),
    /// Note that the file, of this size, was forgotten, so that a restart does not bring it back.
    Forget(FileKey, u64),
}

/// What the writer gets.
#[derive(Debug)]
pub(crate) enum Next {
    Job(Job),
    /// Nothing came for a while.
    Idle,
    /// No more will come.
    Closed,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Places that are promised: jobs that wait, that are being done, or that are about to come.
    bytes: u64,
    items: usize,
    closed: bool,
    ended: bool,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct WriteQueue {
    state: Mutex<State>,
    came: Condvar,
    went: Condvar,
}

impl WriteQueue {
    /// Takes a place for so many bytes, if there is one; a job must follow.
    pub(crate) fn reserve(&self, bytes: u32) -> bool {
        let mut state = self.lock();
        let fits = state.bytes + u64::from(bytes) <= MOST_BYTES && state.items < MOST_ITEMS && !state.closed;
        if fits {
            state.bytes += u64::from(bytes);
            state.items += 1;
        }
        fits
    }

    /// Puts in jobs whose places were taken.
    pub(crate) fn push(&self, jobs: impl Iterator<Item = Job>) {
        self.lock().jobs.extend(jobs);
        self.came.notify_one();
    }

    /// The next job; waits for it for so long.
    pub(crate) fn next(&self, at_most: Duration) -> Next {
        let state = self.lock();
        let empty = |state: &mut State| state.jobs.is_empty() && !state.closed;
        let waited = self.came.wait_timeout_while(state, at_most, empty);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match state.jobs.pop_front() {
            Some(job) => Next::Job(job),
            None if state.closed => Next::Closed,
            None => Next::Idle,
        }
    }

    /// Gives the place of a job back: it is done.
    pub(crate) fn done(&self, bytes: u32) {
        let mut state = self.lock();
        state.bytes -= u64::from(bytes);
        state.items -= 1;
        if state.items == 0 {
            self.went.notify_all();
        }
    }

    /// Lets nothing in any more.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.came.notify_all();
    }

    /// Says that the writer takes no more jobs.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.went.notify_all();
    }

    /// Waits until nothing waits to be written. Returns whether that happened in time.
    pub(crate) fn wait_empty(&self, at_most: Duration) -> bool {
        self.wait(at_most, |state| state.items > 0 && !state.ended)
    }

    /// Waits until the writer takes no more jobs. Returns whether that happened in time.
    pub(crate) fn wait_ended(&self, at_most: Duration) -> bool {
        self.wait(at_most, |state| !state.ended)
    }

    fn wait(&self, at_most: Duration, goes_on: impl Fn(&State) -> bool) -> bool {
        let until = Instant::now() + at_most;
        let mut state = self.lock();
        while goes_on(&state) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.went.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Numbers and a list; nothing panics between their changes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn forget() -> Job {
        Job::Forget(FileKey::new("a", "1"), 0)
    }

    #[test]
    fn it_is_bounded_in_bytes_and_in_number() {
        let queue = WriteQueue::default();
        for _ in 0..MOST_BYTES >> 20 {
            assert!(queue.reserve(1 << 20));
        }
        assert!(!queue.reserve(1) && queue.reserve(0));
        queue.done(1 << 20);
        assert!(queue.reserve(1) && !queue.reserve(1 << 20));
        let queue = WriteQueue::default();
        for _ in 0..MOST_ITEMS {
            assert!(queue.reserve(0));
        }
        assert!(!queue.reserve(0));
    }

    #[test]
    fn what_is_being_done_counts_until_it_is_done() {
        let queue = WriteQueue::default();
        assert!(queue.reserve(5));
        queue.push(std::iter::once(forget()));
        assert!(matches!(queue.next(Duration::ZERO), Next::Job(Job::Forget(..))));
        assert!(matches!(queue.next(Duration::ZERO), Next::Idle));
        assert!(!queue.wait_empty(Duration::from_millis(1)));
        queue.done(5);
        assert!(queue.wait_empty(Duration::ZERO));
    }

    #[test]
    fn a_closed_queue_gives_what_it_has_and_takes_nothing() {
        let queue = WriteQueue::default();
        assert!(queue.reserve(5));
        queue.push(std::iter::once(forget()));
        queue.close();
        assert!(!queue.reserve(0));
        assert!(matches!(queue.next(Duration::ZERO), Next::Job(_)));
        assert!(matches!(queue.next(Duration::ZERO), Next::Closed));
        assert!(!queue.wait_ended(Duration::ZERO));
        queue.end();
        assert!(queue.wait_ended(Duration::ZERO) && queue.wait_empty(Duration::ZERO));
    }
}
