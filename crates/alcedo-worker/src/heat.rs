//! Layer 3: which questions would be answered faster with a derived object.
//!
//! Knows, of questions to file versions, how many keys lately went down to compressed data pages, and what that took.
//! It must not know what could be built for them. Noting is for the way of a lookup: it never waits and allocates
//! nothing. The table is bounded; what is noted fades, so that a question that nobody asks any more is forgotten.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use crate::prepared::FileTarget;

/// Questions that are kept: 64 buckets of 16, about 100 KB. Only the hottest matters, one build is done at a time.
const BUCKETS: usize = 64;
const WAYS: usize = 16;
/// What is noted counts half after this time: a build takes minutes at its share of the processor, and heat that does
/// not last as long does not repay it.
const HALF_LIFE: Duration = Duration::from_secs(300);
/// Most that one key counts, in microseconds: beyond it the time was a disk's or another's, which no object saves.
const MOST_MICROS: f32 = 20_000.0;

/// A question, and what its lookups cost lately.
#[derive(Debug, Clone)]
pub struct Hot {
    /// The question.
    pub target: Arc<FileTarget>,
    /// Keys per minute that went down to compressed data pages.
    pub keys_per_minute: f32,
    /// Microseconds per minute that they took there.
    pub micros_per_minute: f32,
}

#[derive(Debug, Default)]
struct Slot {
    id: u64,
    target: Weak<FileTarget>,
    keys: f32,
    micros: f32,
    /// Seconds since the table was made.
    noted: f32,
}

/// The table.
#[derive(Debug)]
pub struct Heat {
    began: Instant,
    buckets: Box<[Mutex<[Slot; WAYS]>]>,
}

impl Slot {
    /// What is left of its heat at a time.
    fn faded(&self, now: f32) -> (f32, f32) {
        let left = (-(now - self.noted).max(0.0) / HALF_LIFE.as_secs_f32()).exp2();
        (self.keys * left, self.micros * left)
    }
}

impl Default for Heat {
    fn default() -> Self {
        let buckets = (0..BUCKETS).map(|_| Mutex::default()).collect();
        Self { began: Instant::now(), buckets }
    }
}

impl Heat {
    /// Notes that so many keys of this question went down to compressed data pages and took so long together. Where
    /// another thread is in the way it is left out.
    pub fn note(&self, target: &Arc<FileTarget>, keys: usize, took: Duration) {
        self.note_at(target, keys, took, self.began.elapsed().as_secs_f32());
    }

    fn note_at(&self, target: &Arc<FileTarget>, keys: usize, took: Duration, now: f32) {
        // Ids are numbers in a row, so they spread evenly.
        let bucket = &self.buckets[target.id as usize % BUCKETS];
        let mut slots = match bucket.try_lock() {
            Ok(slots) => slots,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let keys = keys as f32;
        let micros = (took.as_secs_f32() * 1e6).min(MOST_MICROS * keys);
        let slot = match slots.iter_mut().position(|slot| slot.id == target.id) {
            Some(place) => &mut slots[place],
            None => {
                // The coldest makes room; a new one starts from nothing, so it has to be asked again and again to stay.
                let cold = |a: &&mut Slot, b: &&mut Slot| a.faded(now).1.total_cmp(&b.faded(now).1);
                let Some(coldest) = slots.iter_mut().min_by(cold) else { return };
                *coldest = Slot { id: target.id, target: Arc::downgrade(target), ..Slot::default() };
                coldest
            }
        };
        let (old_keys, old_micros) = slot.faded(now);
        (slot.keys, slot.micros, slot.noted) = (old_keys + keys, old_micros + micros, now);
    }

    /// All questions whose files are still open, the hottest first.
    pub fn hottest(&self) -> Vec<Hot> {
        self.hottest_at(self.began.elapsed().as_secs_f32())
    }

    fn hottest_at(&self, now: f32) -> Vec<Hot> {
        // What fades by half in a half-life and stays as it is gains so much of itself in a minute.
        let per_minute = std::f32::consts::LN_2 * 60.0 / HALF_LIFE.as_secs_f32();
        let mut hot = Vec::new();
        for bucket in &self.buckets {
            for slot in lock(bucket).iter() {
                let Some(target) = slot.target.upgrade() else { continue };
                let (keys, micros) = slot.faded(now);
                let (keys_per_minute, micros_per_minute) = (keys * per_minute, micros * per_minute);
                hot.push(Hot { target, keys_per_minute, micros_per_minute });
            }
        }
        hot.sort_by(|a, b| b.micros_per_minute.total_cmp(&a.micros_per_minute));
        hot
    }

    /// Forgets questions: what they wanted is there now, and what was noted before would want it again, or more.
    pub fn forget(&self, goes: impl Fn(&FileTarget) -> bool) {
        let goes = |slot: &&mut Slot| slot.target.upgrade().is_some_and(|target| goes(&target));
        for bucket in &self.buckets {
            lock(bucket).iter_mut().filter(goes).for_each(|slot| *slot = Slot::default());
        }
    }
}

fn lock(bucket: &Mutex<[Slot; WAYS]>) -> MutexGuard<'_, [Slot; WAYS]> {
    // Numbers; nothing panics between their changes.
    bucket.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
