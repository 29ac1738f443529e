//! Layer 1: whether the disk may be asked.
//!
//! Knows how often the disk failed lately. It must not know what was asked of it. A disk that fails again and again
//! would cost each read its wait, so after a few errors the store passes everything through until a probe succeeds.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many errors ...
const MOST_ERRORS: usize = 3;
/// ... within this time, and the disk is down.
const ERROR_WINDOW: Duration = Duration::from_secs(60);
/// A disk that is down is probed this often.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// A full disk is left alone for so long: what was dropped frees room at once, and others may be writing.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// The state of one disk.
#[derive(Debug, Default)]
pub(crate) struct Health {
    down: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    errors: VecDeque<Instant>,
    paused_until: Option<Instant>,
    probed: Option<Instant>,
}

impl Health {
    /// Whether the disk is down: nothing is read or written.
    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Whether something may be written.
    pub(crate) fn admits(&self) -> bool {
        if self.is_down() {
            return false;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_paused = state.paused_until.is_some_and(|until| Instant::now() < until);
        if !is_paused {
            state.paused_until = None;
        }
        !is_paused
    }

    /// The disk failed.
    pub(crate) fn failed(&self) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.errors.push_back(now);
        while state.errors.front().is_some_and(|error| now.duration_since(*error) > ERROR_WINDOW) {
            state.errors.pop_front();
        }
        if state.errors.len() >= MOST_ERRORS {
            state.errors.clear();
            state.probed = Some(now);
            self.down.store(true, Ordering::Relaxed);
        }
    }

    /// The disk is full.
    pub(crate) fn is_full(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.paused_until = Some(Instant::now() + FULL_PAUSE);
    }

    /// Whether it is time to probe a disk that is down.
    pub(crate) fn wants_probe(&self) -> bool {
        if !self.is_down() {
            return false;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_due = state.probed.is_none_or(|probed| now.duration_since(probed) >= PROBE_INTERVAL);
        if is_due {
            state.probed = Some(now);
        }
        is_due
    }

    /// A probe succeeded.
    pub(crate) fn recovered(&self) {
        self.down.store(false, Ordering::Relaxed);
    }

    /// Makes the next probe due, for tests that do not wait.
    #[cfg(test)]
    pub(crate) fn forget_probe(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).probed = None;
    }

    /// Ends a pause, for tests that do not wait.
    #[cfg(test)]
    pub(crate) fn end_pause(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).paused_until = None;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn three_errors_are_too_many_and_a_probe_brings_it_back() {
        let health = Health::default();
        health.failed();
        health.failed();
        assert!(!health.is_down() && health.admits() && !health.wants_probe());
        health.failed();
        assert!(health.is_down() && !health.admits());
        assert!(!health.wants_probe(), "it has just failed");
        health.forget_probe();
        assert!(health.wants_probe() && !health.wants_probe());
        health.recovered();
        health.failed();
        assert!(!health.is_down() && health.admits(), "errors from before do not count");
    }

    #[test]
    fn a_full_disk_is_paused_and_still_read() {
        let health = Health::default();
        health.is_full();
        assert!(!health.admits() && !health.is_down());
        health.end_pause();
        assert!(health.admits());
    }
}
