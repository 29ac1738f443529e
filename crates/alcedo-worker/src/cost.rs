//! Layer 3: what one request cost, and where its time went.
//!
//! Knows GETs, bytes, the slowest place that bytes came from, and stages. It must not know what was read. Shared work,
//! such as opening a file that many wait for, has a cost of its own, which everybody who waited adds to theirs.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::indexes::Progress;

/// Stages that one trace keeps: enough for hundreds of files, and it bounds the answer.
const MAX_STAGES: usize = 1_024;

/// Where bytes came from, the fastest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Decoded in this worker's memory.
    Memory,
    /// The page store.
    PageStore,
    /// The object store.
    ObjectStore,
}

/// A stretch of a request's time.
#[derive(Debug, Clone)]
pub struct Stage {
    /// list, open, plan, key pages, value pages, ...
    pub name: &'static str,
    /// The file that it belongs to; none for the whole request.
    pub file: Option<Arc<str>>,
    /// When it began.
    pub began: Instant,
    /// When it ended.
    pub ended: Instant,
    /// Bytes read, from anywhere.
    pub bytes: u64,
    /// GETs among them.
    pub origin_gets: u32,
    /// Bytes of these GETs.
    pub origin_bytes: u64,
}

/// What one request, or one shared task, cost.
#[derive(Debug)]
pub struct Cost {
    began: Instant,
    origin_gets: AtomicU32,
    origin_bytes: AtomicU64,
    slowest: AtomicU8,
    stages: Option<Mutex<Vec<Stage>>>,
    /// What is being learned in the background that the request waits for.
    learning: Mutex<Vec<Arc<Progress>>>,
}

impl Cost {
    /// Nothing yet. `traced` keeps the stages too.
    pub fn new(traced: bool) -> Self {
        Self {
            began: Instant::now(),
            origin_gets: AtomicU32::new(0),
            origin_bytes: AtomicU64::new(0),
            slowest: AtomicU8::new(Origin::Memory as u8),
            stages: traced.then(|| Mutex::new(Vec::new())),
            learning: Mutex::default(),
        }
    }

    /// When the request arrived.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Whether stages are kept.
    pub fn is_traced(&self) -> bool {
        self.stages.is_some()
    }

    /// Bytes came from here.
    pub(crate) fn came_from(&self, origin: Origin) {
        self.slowest.fetch_max(origin as u8, Ordering::Relaxed);
    }

    /// A stage came to its end.
    pub(crate) fn add(&self, stage: Stage) {
        if stage.origin_gets > 0 {
            self.origin_gets.fetch_add(stage.origin_gets, Ordering::Relaxed);
            self.origin_bytes.fetch_add(stage.origin_bytes, Ordering::Relaxed);
            self.came_from(Origin::ObjectStore);
        }
        self.keep(stage);
    }

    /// Adds what a shared task cost that this request waited for.
    pub(crate) fn join(&self, shared: &Self) {
        self.origin_gets.fetch_add(shared.origin_gets(), Ordering::Relaxed);
        self.origin_bytes.fetch_add(shared.origin_bytes(), Ordering::Relaxed);
        self.slowest.fetch_max(shared.slowest.load(Ordering::Relaxed), Ordering::Relaxed);
        if self.is_traced() {
            shared.stages().into_iter().for_each(|stage| self.keep(stage));
        }
    }

    fn keep(&self, stage: Stage) {
        if let Some(stages) = &self.stages {
            let mut stages = stages.lock().unwrap_or_else(PoisonError::into_inner);
            if stages.len() < MAX_STAGES {
                stages.push(stage);
            }
        }
    }

    /// The request waits for something that is learned in the background.
    pub(crate) fn waits_for(&self, progress: &Arc<Progress>) {
        self.learning().push(Arc::clone(progress));
    }

    /// It has come.
    pub(crate) fn has(&self, progress: &Arc<Progress>) {
        self.learning().retain(|other| !Arc::ptr_eq(other, progress));
    }

    /// How far the learning got that the request still waits for, of how many bytes.
    pub(crate) fn learned(&self) -> Option<(u64, u64)> {
        let learning = self.learning();
        let bytes = learning.iter().map(|progress| progress.bytes());
        bytes.reduce(|(walked, total), (more, of)| (walked + more, total + of))
    }

    fn learning(&self) -> MutexGuard<'_, Vec<Arc<Progress>>> {
        self.learning.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// GETs that were waited for.
    pub fn origin_gets(&self) -> u32 {
        self.origin_gets.load(Ordering::Relaxed)
    }

    /// Bytes of these GETs.
    pub fn origin_bytes(&self) -> u64 {
        self.origin_bytes.load(Ordering::Relaxed)
    }

    /// The slowest place that bytes came from.
    pub fn slowest(&self) -> Origin {
        match self.slowest.load(Ordering::Relaxed) {
            0 => Origin::Memory,
            1 => Origin::PageStore,
            _ => Origin::ObjectStore,
        }
    }

    /// The stages so far, by the time they began.
    pub fn stages(&self) -> Vec<Stage> {
        let Some(stages) = &self.stages else { return Vec::new() };
        let mut stages = stages.lock().unwrap_or_else(PoisonError::into_inner).clone();
        stages.sort_by_key(|stage| stage.began);
        stages
    }
}
