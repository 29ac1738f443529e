//! Layer 3: page tables that are learned in the background of the lookups that need them first.
//!
//! Knows which column chunks are being gone through, and how far. It must not know who waits. A lookup whose time is
//! over says how far it got, the work goes on without it, and the next one joins it. What is under way is bounded, in
//! chunks and in bytes held, and so is its time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alcedo_cache::FileKey;
use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::learn::{ChunkName, Learn};
use alcedo_lookup::limits::Limits;
use alcedo_lookup::machine::drive;
use alcedo_origin::Place;
use futures::FutureExt as _;
use tokio::sync::{Semaphore, watch};

use super::Tables;
use crate::cost::Cost;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::reader::{Bytestore, FileVersion, Reader};

/// Longest time of one piece of learning, whoever waits for it: a gigabyte at the rate of a slow store.
const LEARNING_TIMEOUT: Duration = Duration::from_secs(300);
/// Column chunks that are being learned, or wait for it: those of one lookup of many files with many columns. A few
/// hundred bytes each.
const MAX_LEARNING: usize = 16_384;
/// Bytes of column chunks held at once by all learning. What needs more waits.
const HELD_BYTES: u64 = 256 << 20;
/// The unit in which they are counted, so that a number of permits fits 32 bits.
const HELD_UNIT_BYTES: u64 = 1 << 10;
/// Advice to those who are turned away: about the time of a few reads of an origin.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// How far learning got.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Bytes of column chunks that were gone through.
    walked: Arc<AtomicU64>,
    /// All their bytes.
    total: u64,
}

impl Progress {
    /// Bytes that were gone through, and all of them.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.walked.load(Ordering::Relaxed).min(self.total), self.total)
    }
}

type Outcome = Result<Arc<Cost>, Error>;

/// One column chunk of one opened file: an index that was read anew has everything to learn again.
type ChunkKey = (FileKey, usize, ChunkName);

#[derive(Debug, Clone)]
struct UnderWay {
    outcome: watch::Receiver<Option<Outcome>>,
    progress: Arc<Progress>,
}

/// What all learning of one worker shares.
#[derive(Debug)]
pub(crate) struct Learnings {
    store: Arc<Bytestore>,
    tables: Tables,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    under_way: Mutex<HashMap<ChunkKey, UnderWay>>,
    room: Semaphore,
}

/// What somebody needs learned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) place: &'a Place,
    pub(crate) version: &'a FileVersion,
    pub(crate) index: &'a Arc<FileIndex>,
}

/// Entries in the map, which end with their task.
struct Entries {
    learnings: Arc<Learnings>,
    keys: Vec<ChunkKey>,
}

impl Drop for Entries {
    fn drop(&mut self) {
        let mut under_way = self.learnings.lock();
        for key in &self.keys {
            under_way.remove(key);
        }
    }
}

impl Learnings {
    pub(super) fn new(store: &Arc<Bytestore>, tables: &Tables, limits: &Arc<Limits>, metrics: &Arc<Metrics>) -> Self {
        let room = usize::try_from(HELD_BYTES / HELD_UNIT_BYTES).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            store: Arc::clone(store),
            tables: tables.clone(),
            limits: Arc::clone(limits),
            metrics: Arc::clone(metrics),
            under_way: Mutex::default(),
            room: Semaphore::new(room),
        }
    }

    /// Column chunks that are being learned, or wait for it.
    pub(crate) fn under_way(&self) -> usize {
        self.lock().len()
    }

    /// Waits until the index knows where these chunks' data pages are. What somebody else is learning is joined.
    ///
    /// # Errors
    /// The origin's, those of the file's bytes, or that too much is being learned.
    pub(crate) async fn learn(
        self: &Arc<Self>,
        of: Subject<'_>,
        names: &[ChunkName],
        cost: &Cost,
    ) -> Result<(), Error> {
        let waits = self.begin(of, names)?;
        for wait in &waits {
            cost.waits_for(&wait.progress);
        }
        let mut learned = Ok(());
        for UnderWay { mut outcome, progress } in waits {
            // A task that panics has an outcome; only a runtime that shuts down drops one without.
            let arrived = outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
            cost.has(&progress);
            match arrived.ok().flatten().unwrap_or(Err(Error::Draining)) {
                Ok(shared) => cost.join(&shared),
                Err(error) => learned = learned.and(Err(error)),
            }
        }
        learned
    }

    /// What is under way of these chunks, each once; what is not begins now, all of it together.
    fn begin(self: &Arc<Self>, of: Subject<'_>, names: &[ChunkName]) -> Result<Vec<UnderWay>, Error> {
        let key = |name: &ChunkName| (of.version.key.clone(), Arc::as_ptr(of.index).addr(), *name);
        let mut under_way = self.lock();
        let mut waits: Vec<UnderWay> = Vec::new();
        let mut new = Vec::new();
        for name in names {
            match under_way.entry(key(name)) {
                Entry::Occupied(known)
                    if waits.iter().any(|wait| Arc::ptr_eq(&wait.progress, &known.get().progress)) => {}
                Entry::Occupied(known) => waits.push(known.get().clone()),
                Entry::Vacant(_) => new.push(*name),
            }
        }
        if new.is_empty() {
            return Ok(waits);
        }
        if under_way.len() + new.len() > MAX_LEARNING {
            let what = "the indexes of too many column chunks are being learned";
            return Err(Error::Overloaded { what, retry_after: RETRY_AFTER });
        }
        let progress = Arc::new(Progress { walked: Arc::default(), total: of.index.chunk_bytes(&new) });
        let (tell, outcome) = watch::channel(None);
        let begun = UnderWay { outcome, progress: Arc::clone(&progress) };
        let keys: Vec<ChunkKey> = new.iter().map(key).collect();
        under_way.extend(keys.iter().map(|key| (key.clone(), begun.clone())));
        drop(under_way);
        waits.push(begun);
        let entries = Entries { learnings: Arc::clone(self), keys };
        let (place, version, index) = (of.place.clone(), of.version.clone(), Arc::clone(of.index));
        let learnings = Arc::clone(self);
        tokio::spawn(async move {
            let work = learnings.run(&place, &version, &index, &new, &progress);
            let outcome = learnings.bounded(&place, work).await;
            drop(entries);
            if tell.receiver_count() == 0 {
                // Those who wait weigh the index when they are done with it.
                learnings.settle(&version, &index);
            }
            // Everybody who waited may have left.
            let _ = tell.send(Some(outcome));
        });
        Ok(waits)
    }

    async fn bounded(&self, place: &Place, work: impl Future<Output = Outcome>) -> Outcome {
        let subject = || place.url.to_string();
        match tokio::time::timeout(LEARNING_TIMEOUT, AssertUnwindSafe(work).catch_unwind()).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => {
                self.metrics.panics_total.up();
                Err(Error::Bug { subject: subject(), what: "learning its indexes panicked" })
            }
            Err(_) => Err(Error::Deadline { subject: subject(), timeout: LEARNING_TIMEOUT }),
        }
    }

    async fn run(
        &self,
        place: &Place,
        version: &FileVersion,
        index: &Arc<FileIndex>,
        names: &[ChunkName],
        progress: &Progress,
    ) -> Outcome {
        // A round holds a window, and one data page more at most.
        let held = progress.total.min(2 * self.limits.scan_bytes).min(HELD_BYTES);
        let units = u32::try_from(held.div_ceil(HELD_UNIT_BYTES)).unwrap_or(u32::MAX);
        let _room = self.room.acquire_many(units).await.map_err(|_| Error::Draining)?;
        // Those who join may want a trace, whether or not the first does.
        let cost = Arc::new(Cost::new(true));
        let (limits, walked) = (Arc::clone(&self.limits), Arc::clone(&progress.walked));
        let learn = Learn::new(Arc::clone(index), names, limits, walked);
        let learn = learn.map_err(|error| Error::file(&place.url, error))?;
        let reader = Reader::of_version(&self.store, place, version.clone(), &cost);
        let learned = drive(learn, &reader).await.map_err(|error| error.about(&place.url));
        learned.inspect_err(|error| self.metrics.count_panic(error))?;
        self.metrics.chunks_learned_total.add(names.len() as u64);
        Ok(cost)
    }

    /// What was learned is weighed and kept, unless the index was dropped meanwhile.
    fn settle(&self, version: &FileVersion, index: &Arc<FileIndex>) {
        if let Some(file) = self.tables.built.get(&version.key).filter(|file| Arc::ptr_eq(&file.index, index)) {
            self.tables.settle(&file);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ChunkKey, UnderWay>> {
        // Nothing that may panic runs while the map is half changed.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
