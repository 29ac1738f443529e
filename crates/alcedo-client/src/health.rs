//! How a worker has done lately, as this client sees it.
//!
//! Knows failures, silences and when a worker may be asked first again. It must not know what was asked. It only orders
//! workers: one that is ejected is still asked where nobody else answers, so being wrong here costs a detour.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// After a failure a worker is ejected for so long, doubled per further failure up to the cap.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// So many calls in a row that heard nothing from a worker eject it. One may be a lost race, or a deadline that was too
/// short; three are a pattern.
const SILENCES: u32 = 3;

/// One worker's record.
#[derive(Debug, Default)]
pub(crate) struct Health {
    record: Mutex<Record>,
    /// Whether there is anything in the record; spares healthy workers the lock.
    marked: AtomicBool,
    /// Frames and replies that came from it, whatever they said.
    heard: AtomicU64,
}

#[derive(Debug, Default)]
struct Record {
    failures: u32,
    silences: u32,
    /// Set while it is ejected: when the next call may try it first.
    probe_at: Option<Instant>,
    pause: Duration,
    /// Whether a call is trying it.
    probed: bool,
}

impl Health {
    /// How often it was heard of. A call that ends without a change heard nothing at all meanwhile, also not for
    /// others.
    pub(crate) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Something came from it.
    pub(crate) fn hear(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether there is nothing against it.
    pub(crate) fn is_well(&self) -> bool {
        !self.marked.load(Ordering::Acquire)
    }

    /// Whether others should be asked first.
    pub(crate) fn is_ejected(&self) -> bool {
        self.marked.load(Ordering::Acquire) && self.record().probe_at.is_some()
    }

    /// Whether the ejected worker's pause is over. The one call that is told so tries it; the next one may after
    /// another pause.
    pub(crate) fn claim_probe(&self) -> bool {
        let (now, mut record) = (Instant::now(), self.record());
        let due = record.probe_at.is_some_and(|at| at <= now);
        if due {
            record.probe_at = Some(now + record.pause.max(FIRST_PAUSE));
            record.probed = true;
        }
        due
    }

    /// A call was not accepted, or its connection broke.
    pub(crate) fn note_failure(&self) {
        Self::fail(&mut self.marking());
    }

    /// A call heard nothing; `heard` is what [`Self::heard`] said when it began.
    pub(crate) fn note_silence(&self, heard: u64) {
        let mut record = self.marking();
        if self.heard() != heard {
            record.silences = 0;
            return;
        }
        record.silences += 1;
        if record.silences >= SILENCES {
            Self::fail(&mut record);
        }
    }

    /// It asked to be left alone.
    pub(crate) fn note_overload(&self, wait: Option<Duration>) {
        let mut record = self.marking();
        record.pause = wait.unwrap_or(FIRST_PAUSE).min(LONGEST_PAUSE);
        record.probe_at = Some(Instant::now() + record.pause);
    }

    /// It answered.
    pub(crate) fn note_success(&self) {
        if self.marked.load(Ordering::Acquire) {
            let mut record = self.record();
            *record = Record::default();
            self.marked.store(false, Ordering::Release);
        }
    }

    fn fail(record: &mut Record) {
        let now = Instant::now();
        // All calls that one lost connection leaves behind are one failure.
        if record.failures > 0 && !record.probed && record.probe_at.is_some_and(|at| at > now) {
            return;
        }
        record.probed = false;
        record.pause = FIRST_PAUSE.saturating_mul(1 << record.failures.min(16)).min(LONGEST_PAUSE);
        record.failures = record.failures.saturating_add(1);
        record.probe_at = Some(now + record.pause);
    }

    fn marking(&self) -> MutexGuard<'_, Record> {
        let record = self.record();
        self.marked.store(true, Ordering::Release);
        record
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn an_ejected_worker_is_probed_by_one_call_per_pause() {
        let health = Health::default();
        health.note_failure();
        assert!(health.is_ejected() && !health.claim_probe());
        advance(FIRST_PAUSE).await;
        assert!(health.is_ejected() && health.claim_probe());
        assert!(!health.claim_probe(), "a second call tries it too");
        health.note_success();
        assert!(!health.is_ejected() && !health.claim_probe());
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_per_outage_not_per_call() {
        let health = Health::default();
        (0..100).for_each(|_| health.note_failure());
        advance(FIRST_PAUSE).await;
        assert!(health.claim_probe());
        // The probe and another call that had waited both fail.
        (0..2).for_each(|_| health.note_failure());
        advance(FIRST_PAUSE).await;
        assert!(!health.claim_probe());
        advance(FIRST_PAUSE).await;
        assert!(health.claim_probe());
        for _ in 0..40 {
            advance(LONGEST_PAUSE).await;
            health.note_failure();
        }
        advance(LONGEST_PAUSE).await;
        assert!(health.claim_probe());
    }

    #[tokio::test(start_paused = true)]
    async fn three_silences_in_a_row_eject_and_a_word_in_between_does_not() {
        let health = Health::default();
        let heard = health.heard();
        health.note_silence(heard);
        health.note_silence(heard);
        health.hear();
        health.note_silence(heard);
        assert!(!health.is_ejected());
        let heard = health.heard();
        (0..SILENCES).for_each(|_| health.note_silence(heard));
        assert!(health.is_ejected());
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_to_wait_is_left_alone_so_long() {
        let health = Health::default();
        health.note_overload(Some(Duration::from_millis(300)));
        advance(Duration::from_millis(299)).await;
        assert!(health.is_ejected() && !health.claim_probe());
        advance(Duration::from_millis(1)).await;
        assert!(health.claim_probe());
    }
}
