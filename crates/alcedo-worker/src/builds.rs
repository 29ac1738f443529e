//! Layer 3: derived objects that are made in the background.
//!
//! Knows what waits to be built, what is under way, and what failed lately; when a build begins and why it ends. It
//! must not know how an object is made: that is a machine's, driven here over the ordinary source. A build never delays
//! a lookup: it has threads of its own with the lowest priority and a share of the processor, its reads stand behind
//! those of lookups, and it waits while requests are turned away or many permits are taken.

mod building;
mod choice;
mod machines;
mod pace;

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alcedo_cache::FileKey;
use alcedo_lookup::file_index::FileIndex;
use alcedo_origin::Place;
use futures::FutureExt as _;
use thread_priority::unix::{NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy};
use thread_priority::{ThreadPriority, thread_native_id};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::cost::Cost;
use crate::derived::{Full, Object};
use crate::error::Error;
use crate::metrics::Counter;
use crate::prepared::FileTarget;
use crate::reader::FileVersion;
use crate::service::Door;
pub use building::Failed;

/// How often it is looked whether something has become hot: a build that repays itself does so over minutes.
const SURVEY_PERIOD: Duration = Duration::from_secs(5);
/// How often the heat of objects is taken.
const TICK_PERIOD: Duration = Duration::from_secs(60);
/// After a failure the same object is not tried again for so long: what failed for its bytes fails again, and a quota
/// that is full stays so for a while.
const FAILED_PAUSE: Duration = Duration::from_secs(600);
/// Failures that are remembered: each is a name.
const MOST_FAILED: usize = 1_024;
/// Builds on request that wait at most.
const MOST_REQUESTS: usize = 1_024;
/// The lowest priority of a thread (nice(2)) where the policy of idle threads is refused: it gets what others leave.
const NICENESS: i32 = 19;

/// Which object to make of a file version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Key to rows.
    Keymap {
        /// The key column's name.
        column: String,
    },
    /// Rows that need no decompression.
    Ready {
        /// The key column by which they are found; none: as a lookup that names none.
        key: Option<String>,
        /// Their columns; none: all.
        columns: Option<Vec<String>>,
    },
}

/// One object to be made.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) place: Place,
    pub(crate) version: FileVersion,
    pub(crate) index: Arc<FileIndex>,
    pub(crate) what: What,
    /// The object's name.
    pub(crate) name: String,
    pub(crate) is_pinned: bool,
    /// Reads per minute that are expected.
    pub(crate) rate: f32,
    /// Bytes that it is thought to take.
    pub(crate) object_bytes: u64,
}

impl Job {
    /// Whether its object is for questions like this one: to the same file version, by the same key column.
    fn answers(&self, asked: &FileTarget) -> bool {
        let key = match &self.what {
            What::Keymap { column } => Some(column),
            What::Ready { key, .. } => key.as_ref(),
        };
        asked.version.key == self.version.key && key.is_none_or(|key| key == asked.prepared.key_name())
    }
}

/// How builds ended.
#[derive(Debug, Default)]
pub(crate) struct BuildCounts {
    pub(crate) begun: Counter,
    pub(crate) done: Counter,
    pub(crate) failed: Counter,
    pub(crate) cancelled: Counter,
    /// No room for the object.
    pub(crate) refused: Counter,
    /// Waits because of requests, of 50 ms each.
    pub(crate) yielded: Counter,
}

type Name = (FileKey, String);
type Asker = oneshot::Sender<Result<Arc<Object>, Failed>>;

/// The builds of one worker.
#[derive(Debug, Default)]
pub(crate) struct Builds {
    state: Mutex<State>,
    wake: Notify,
    counts: BuildCounts,
}

#[derive(Debug, Default)]
struct State {
    requests: VecDeque<(Job, Asker)>,
    under_way: Vec<Name>,
    /// What failed, and until when that is remembered.
    failed: HashMap<Name, Instant>,
    ticked: Option<Instant>,
    /// What was last refused for want of room, and how often anything was.
    refusal: Option<String>,
}

/// A build that is under way until this is dropped.
struct UnderWay<'b> {
    builds: &'b Builds,
    name: Name,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.builds.lock().under_way.retain(|name| *name != self.name);
    }
}

impl Builds {
    /// What happened so far.
    pub(crate) fn counts(&self) -> &BuildCounts {
        &self.counts
    }

    /// Builds under way.
    pub(crate) fn under_way(&self) -> usize {
        self.lock().under_way.len()
    }

    /// What was last refused for want of room.
    pub(crate) fn refusal(&self) -> Option<String> {
        self.lock().refusal.clone()
    }

    /// Makes an object of a file's current version whatever its heat, unless it is there, and waits for it. One that is
    /// pinned stays whatever is asked later.
    ///
    /// # Errors
    /// See [`Failed`]; also when nothing is built here, or too many wait.
    pub(crate) async fn on_request(
        &self,
        door: &Door,
        place: &Place,
        what: What,
        is_pinned: bool,
    ) -> Result<Arc<Object>, Failed> {
        if door.settings().builds.parallel == 0 {
            return Err(Error::BadRequest("nothing is built here: builds.parallel is 0".to_owned()).into());
        }
        let file = door.lookups.indexes().open(place, None, &Cost::new(false)).await.map_err(Failed::Broken)?;
        let (version, index) = (file.version, file.index);
        let (name, object_bytes) = machines::described(door, &what, &index).map_err(|error| {
            // The question does not fit the file.
            Error::file(&place.url, error)
        })?;
        let there = door.lookups.derived().named(&version.key, &name);
        if let Some(there) = there.filter(|object| object.is_pinned() || !is_pinned) {
            return Ok(there);
        }
        let place = place.clone();
        let answer = self.request(Job { place, version, index, what, name, is_pinned, rate: 0.0, object_bytes })?;
        answer.await.unwrap_or(Err(Failed::Draining))
    }

    fn request(&self, job: Job) -> Result<oneshot::Receiver<Result<Arc<Object>, Failed>>, Error> {
        let (asker, answer) = oneshot::channel();
        let mut state = self.lock();
        if state.requests.len() >= MOST_REQUESTS {
            return Err(Error::Overloaded { what: "too many builds wait", retry_after: SURVEY_PERIOD });
        }
        state.requests.push_back((job, asker));
        drop(state);
        self.wake.notify_one();
        Ok(answer)
    }

    /// Makes objects until the worker drains or `stopped` says so. Fetches run on `io`, so that a lookup that joins one
    /// never waits for this thread.
    pub(crate) async fn run(&self, door: &Arc<Door>, io: &Handle, mut stopped: watch::Receiver<bool>) {
        step_back();
        let mut draining = door.draining.clone();
        let working = async {
            loop {
                match self.next(door) {
                    Some((job, asker)) => self.make(door, io, job, asker).await,
                    None => {
                        // Either is a reason to look; nothing is lost by looking once too often.
                        let _ = tokio::time::timeout(SURVEY_PERIOD, self.wake.notified()).await;
                    }
                }
            }
        };
        tokio::select! {
            () = working => {}
            _ = stopped.wait_for(|stop| *stop) => {}
            _ = draining.wait_for(Option::is_some) => {}
        }
    }

    /// What to make next: what was asked for, else what is hot enough.
    fn next(&self, door: &Door) -> Option<(Job, Option<Asker>)> {
        self.tick(door);
        let asked = self.lock().requests.pop_front();
        match asked {
            Some((job, asker)) => Some((job, Some(asker))),
            None => choice::hottest(door).map(|job| (job, None)),
        }
    }

    fn tick(&self, door: &Door) {
        let now = Instant::now();
        let mut state = self.lock();
        if state.ticked.is_none_or(|ticked| now.duration_since(ticked) >= TICK_PERIOD) {
            state.ticked = Some(now);
            state.failed.retain(|_, until| *until > now);
            drop(state);
            door.lookups.derived().tick();
        }
    }

    /// Whether an object is not to be begun: it is being made, or failed a short time ago.
    pub(crate) fn is_barred(&self, version: &FileVersion, name: &str) -> bool {
        let state = self.lock();
        let is_it = |(version_of, name_of): &Name| *version_of == version.key && name_of == name;
        state.under_way.iter().any(is_it)
            || state.failed.iter().any(|(name, until)| is_it(name) && *until > Instant::now())
    }

    /// Makes one object. A panic in it is a build that failed.
    async fn make(&self, door: &Arc<Door>, io: &Handle, job: Job, asker: Option<Asker>) {
        let name = (job.version.key.clone(), job.name.clone());
        let Some(_under_way) = self.begin(&name) else {
            // Another thread makes it at this moment.
            asker.map(|asker| asker.send(Err(Failed::Busy)));
            return;
        };
        self.counts.begun.up();
        let began = Instant::now();
        let made = AssertUnwindSafe(machines::make(door, io, &job)).catch_unwind().await;
        let made = made.unwrap_or_else(|_| {
            door.metrics.panics_total.up();
            Err(Failed::Panicked)
        });
        let (url, object, took) = (&*job.place.url, &*job.name, began.elapsed());
        match &made {
            Ok(made) => {
                self.counts.done.up();
                // What is noted from now on is what it cannot answer.
                door.lookups.heat().forget(|asked| job.answers(asked));
                tracing::info!(url, object, bytes = made.bytes(), ?took, "a derived object was made");
            }
            Err(why @ (Failed::Full(_) | Failed::NotKept(_) | Failed::Head { .. })) => self.refuse(&job, why),
            Err(Failed::Changed | Failed::Draining | Failed::Busy) => self.counts.cancelled.up(),
            Err(why) => {
                self.counts.failed.up();
                tracing::warn!(url, object, %why, "a derived object could not be made; lookups go on without it");
            }
        }
        if made.as_ref().is_err_and(Failed::is_remembered) {
            self.remember(name);
        }
        // Who asked may have left.
        asker.map(|asker| asker.send(made));
    }

    fn begin(&self, name: &Name) -> Option<UnderWay<'_>> {
        let mut state = self.lock();
        if state.under_way.contains(name) {
            return None;
        }
        state.under_way.push(name.clone());
        Some(UnderWay { builds: self, name: name.clone() })
    }

    /// An object that finds no room is not made, and not in silence.
    fn refuse(&self, job: &Job, why: &Failed) {
        self.counts.refused.up();
        tracing::error!(url = &*job.place.url, object = &*job.name, %why, "no room for a derived object");
        let what = match job.what {
            What::Keymap { .. } => "a keymap",
            What::Ready { .. } => "lookup-ready rows",
        };
        self.lock().refusal = Some(format!("no room for {what}: {why}"));
    }

    fn remember(&self, name: Name) {
        let mut state = self.lock();
        if state.failed.len() >= MOST_FAILED {
            let oldest = state.failed.iter().min_by_key(|(_, until)| **until).map(|(name, _)| name.clone());
            oldest.map(|oldest| state.failed.remove(&oldest));
        }
        state.failed.insert(name, Instant::now() + FAILED_PAUSE);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Lists and maps; nothing panics between their changes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives this thread the lowest priority there is. Where it is refused, the share of the processor is still bounded.
fn step_back() {
    // A thread that is merely nice keeps the processor until its slice is over, a millisecond or more, whoever wakes
    // meanwhile; an idle one gives it up at once.
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle);
    let _ = rustix::process::nice(NICENESS);
}

/// Whether there is room for an object: in its store, and for its head in memory.
fn room(door: &Door, job: &Job) -> Result<(), Full> {
    let derived = door.lookups.derived();
    if job.is_pinned {
        // Nothing makes room for it.
        return derived.pinned_room(job.object_bytes);
    }
    derived.make_room(job.object_bytes, job.rate)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
pub(crate) mod tests;
