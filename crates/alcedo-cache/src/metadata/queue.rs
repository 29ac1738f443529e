//! The queue of records that wait to be written.
//!
//! Knows order and bounds. It must not know the database. Records of one name are written in the order in which they
//! were stored, so a removal holds; and it holds at once, because readers ask here what is about to be removed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Table;

/// Records that wait at once: what opening a few thousand files at once learns. Written at some 100,000/s.
const MAX_JOBS: usize = 16_384;
/// What they may keep in memory until then, beside what other tiers hold anyway.
const MAX_HELD_BYTES: u64 = 64 << 20;
/// Removals are small and must hold, so they wait beyond that, up to so many jobs in all.
const MAX_REMOVALS: usize = 2 * MAX_JOBS;
/// Jobs that are written together.
const BATCH_JOBS: usize = 256;

/// Something to write.
pub(super) enum Job {
    Put { table: Table, url: Arc<str>, held_bytes: u64, encode: Box<dyn FnOnce() -> Vec<u8> + Send> },
    Remove { table: Table, url: Arc<str> },
}

/// What the writing thread is to do next.
pub(super) enum Next {
    /// Write these.
    Write(Vec<Job>),
    /// Nothing to write for now.
    Idle,
    /// Everything is written, and nothing will come.
    Closed,
}

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Told of jobs that arrive, of the end, and of an empty queue.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    held_bytes: u64,
    /// Removals that are not written yet, and how often each is queued.
    removals: HashMap<(Table, Arc<str>), u32>,
    /// Those of them that were taken to be written.
    taken_removals: Vec<(Table, Arc<str>)>,
    /// Jobs were taken that are not written yet.
    is_writing: bool,
    is_closed: bool,
}

impl Job {
    fn held_bytes(&self) -> u64 {
        match self {
            Self::Put { held_bytes, .. } => *held_bytes,
            Self::Remove { .. } => 0,
        }
    }
}

impl State {
    fn removals_written(&mut self) {
        for name in std::mem::take(&mut self.taken_removals) {
            if let Some(count) = self.removals.get_mut(&name) {
                *count -= 1;
                if *count == 0 {
                    self.removals.remove(&name);
                }
            }
        }
    }
}

impl Queue {
    /// Whether there was room for it.
    pub(super) fn push(&self, job: Job) -> bool {
        let mut state = self.lock();
        let held_bytes = state.held_bytes.saturating_add(job.held_bytes());
        let has_room = match job {
            // One that is larger than all room may wait alone.
            Job::Put { .. } => state.jobs.len() < MAX_JOBS && (held_bytes <= MAX_HELD_BYTES || state.held_bytes == 0),
            Job::Remove { .. } => state.jobs.len() < MAX_REMOVALS,
        };
        if has_room && !state.is_closed {
            state.held_bytes = held_bytes;
            if let Job::Remove { table, url } = &job {
                *state.removals.entry((*table, Arc::clone(url))).or_default() += 1;
            }
            state.jobs.push_back(job);
            self.changed.notify_all();
        }
        has_room && !state.is_closed
    }

    /// The next jobs, waited for at most so long. What was taken before is written by now.
    pub(super) fn next(&self, patience: Duration) -> Next {
        let mut state = self.lock();
        state.is_writing = false;
        state.removals_written();
        if state.jobs.is_empty() {
            self.changed.notify_all();
        }
        let is_idle = |state: &mut State| state.jobs.is_empty() && !state.is_closed;
        let waited = self.changed.wait_timeout_while(state, patience, is_idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if state.jobs.is_empty() {
            return if state.is_closed { Next::Closed } else { Next::Idle };
        }
        let count = state.jobs.len().min(BATCH_JOBS);
        let jobs: Vec<Job> = state.jobs.drain(..count).collect();
        state.held_bytes -= jobs.iter().map(Job::held_bytes).sum::<u64>();
        state.taken_removals.extend(jobs.iter().filter_map(|job| match job {
            Job::Remove { table, url } => Some((*table, Arc::clone(url))),
            Job::Put { .. } => None,
        }));
        state.is_writing = true;
        Next::Write(jobs)
    }

    /// What a read finds of a record, unless the record is about to be removed: what is on disk under its name is not
    /// to be used any more. That is looked at before the read, because a removal may be written behind the read's
    /// back, and after it, because one may be asked for meanwhile.
    pub(super) fn unless_removing<T>(&self, table: Table, url: &str, read: impl FnOnce() -> Option<T>) -> Option<T> {
        if self.is_removing(table, url) {
            return None;
        }
        read().filter(|_| !self.is_removing(table, url))
    }

    fn is_removing(&self, table: Table, url: &str) -> bool {
        let state = self.lock();
        !state.removals.is_empty() && state.removals.contains_key(&(table, Arc::from(url)))
    }

    /// Waits until nothing is queued and nothing is being written.
    pub(super) fn settle(&self) {
        let is_busy = |state: &mut State| !state.jobs.is_empty() || state.is_writing;
        drop(self.changed.wait_while(self.lock(), is_busy));
    }

    /// Takes no more jobs.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that may panic runs while the queue is half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn put(held_bytes: u64) -> Job {
        Job::Put { table: Table::Files, url: "u".into(), held_bytes, encode: Box::new(Vec::new) }
    }

    fn remove() -> Job {
        Job::Remove { table: Table::Files, url: "u".into() }
    }

    #[test]
    fn jobs_and_what_they_hold_are_bounded_and_room_comes_back() {
        let queue = Queue::default();
        assert_eq!((0..MAX_JOBS + 9).filter(|_| queue.push(put(1))).count(), MAX_JOBS);
        assert_eq!((0..MAX_REMOVALS).filter(|_| queue.push(remove())).count(), MAX_REMOVALS - MAX_JOBS);
        let mut taken = 0;
        while let Next::Write(jobs) = queue.next(Duration::ZERO) {
            taken += jobs.len();
        }
        assert_eq!(taken, MAX_REMOVALS);
        assert!(queue.push(put(MAX_HELD_BYTES - 1)) && queue.push(put(1)) && !queue.push(put(1)));
        assert!(matches!(queue.next(Duration::ZERO), Next::Write(jobs) if jobs.len() == 2));
        assert!(queue.push(put(2 * MAX_HELD_BYTES)) && !queue.push(put(1)));
        assert!(matches!(queue.next(Duration::ZERO), Next::Write(_)));
        assert!(queue.push(put(1)));
    }

    #[test]
    fn what_is_to_be_removed_is_not_read_whenever_the_removal_is_written() {
        let queue = Queue::default();
        let write = || assert!(matches!(queue.next(Duration::ZERO), Next::Write(jobs) if jobs.len() == 1));
        let is_written = || assert!(matches!(queue.next(Duration::ZERO), Next::Idle));
        let read = |meanwhile: &dyn Fn()| {
            let old = || {
                meanwhile();
                Some(7)
            };
            queue.unless_removing(Table::Files, "u", old)
        };
        assert_eq!(read(&|| {}), Some(7));
        assert!(queue.push(remove()));
        // The read finds what was there, and then the removal is written.
        let written_behind_it = || {
            write();
            is_written();
        };
        assert_eq!(read(&written_behind_it), None);
        while let Next::Write(_) = queue.next(Duration::ZERO) {}
        assert_eq!(read(&|| {}), Some(7));
        assert_eq!(read(&|| assert!(queue.push(remove()))), None);
        write();
        assert_eq!(read(&|| {}), None, "it is being written");
        is_written();
        assert_eq!(read(&|| {}), Some(7));
    }

    #[test]
    fn a_closed_queue_gives_what_it_has_and_takes_no_more() {
        let queue = Queue::default();
        assert!(matches!(queue.next(Duration::ZERO), Next::Idle));
        assert!(queue.push(put(1)));
        queue.close();
        assert!(!queue.push(put(1)) && !queue.push(remove()));
        assert!(matches!(queue.next(Duration::ZERO), Next::Write(_)));
        assert!(matches!(queue.next(Duration::MAX), Next::Closed));
        queue.settle();
    }
}
