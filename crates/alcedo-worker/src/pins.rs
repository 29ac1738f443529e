//! Layer 3: what is to stay whatever is asked, and what came of it.
//!
//! Knows pins: a file or a prefix, and things of it. It must not know how bytes are kept (`keeping`), nor when a file
//! is looked at again (`following`). A pin is written down before anybody is told that it is there; what is pinned of a
//! file stays in a store of its own, from which nothing goes to make room, and what finds no room there is refused
//! aloud.

mod following;
mod keeping;
mod record;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alcedo_cache::FileKey;
use alcedo_origin::Place;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::error::Error;
use crate::metrics::Counter;
use crate::pinned::PinnedBytes;
use crate::reader::FileVersion;
pub(crate) use following::follow;

/// Pins of one worker at most: each is gone through every few seconds.
const MOST_PINS: usize = 1_000;
/// Things of one pin at most: a column each, of a wide table.
const MOST_THINGS: usize = 256;

/// A part of a file, or what is made of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// The footer.
    Footer,
    /// Column and offset indexes of all columns.
    Index,
    /// Bloom filters of all columns.
    Bloom,
    /// All data pages of this column.
    Column(String),
    /// A keymap of this key column; none: that of lookups that name none.
    Keymap(Option<String>),
    /// Lookup-ready rows of all columns, by this key column; none: as above.
    Rows(Option<String>),
}

impl std::fmt::Display for Thing {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Footer => out.write_str("footer"),
            Self::Index => out.write_str("index"),
            Self::Bloom => out.write_str("bloom"),
            Self::Column(name) => write!(out, "column {name}"),
            Self::Keymap(None) => out.write_str("keymap"),
            Self::Keymap(Some(key)) => write!(out, "keymap of {key}"),
            Self::Rows(None) => out.write_str("rows"),
            Self::Rows(Some(key)) => write!(out, "rows by {key}"),
        }
    }
}

/// What is to stay of a file, or of the files below a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The path as it was given.
    pub path: String,
    /// Its canonical URL, by which a pin is known.
    pub url: Arc<str>,
    /// In order, each once.
    pub things: Vec<Thing>,
}

/// Whether a thing is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is; `why` says something about one of which there is nothing.
    Pinned {
        /// Its bytes.
        bytes: u64,
        /// Something to know, or empty.
        why: String,
    },
    /// Not yet; it is tried again.
    Waiting {
        /// What it waits for.
        why: String,
    },
    /// No.
    Refused {
        /// Why, and what to do.
        why: String,
        /// Bytes that it needs; 0 where it was not for want of room.
        needed: u64,
        /// Bytes that were free.
        free: u64,
    },
}

/// What came of one thing of a file.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The thing.
    pub thing: Thing,
    /// What came of it.
    pub outcome: Outcome,
    /// Where its bytes are in the file.
    ranges: Vec<Range<u64>>,
    /// The derived object that it is.
    object: Option<String>,
    /// When it is tried again although nothing has changed that is known of.
    again_at: Option<Instant>,
}

impl Entry {
    fn new(thing: Thing, outcome: Outcome) -> Self {
        Self { thing, outcome, ranges: Vec::new(), object: None, again_at: None }
    }
}

/// What came of all things of a file.
#[derive(Debug, Clone)]
struct PinnedFile {
    /// None while the file cannot be asked for.
    version: Option<FileVersion>,
    /// In the order of the things.
    entries: Vec<Entry>,
    /// The changes of the pins of which it is.
    generation: u64,
}

/// A pin, and what came of it: per file, in the order of their URLs, its URL, version and entries.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The pin.
    pub pin: Pin,
    /// Its files.
    pub files: Vec<(Arc<str>, String, Vec<Entry>)>,
}

/// What an end of a pin freed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpinned {
    /// Pins that ended.
    pub pins: u64,
    /// Files of which anything was dropped.
    pub files: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// How many entries came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) pins: u64,
    pub(crate) pinned: u64,
    pub(crate) waiting: u64,
    pub(crate) refused: u64,
}

/// What happened to pins.
#[derive(Debug, Default)]
pub(crate) struct PinCounts {
    /// Things that were refused.
    pub(crate) refused: Counter,
    /// The pins could not be written down, or not be read back.
    pub(crate) record_errors: Counter,
}

/// The pins of one worker.
#[derive(Debug)]
pub(crate) struct Pins {
    file: Option<PathBuf>,
    state: Mutex<State>,
    /// One writes at a time, so that what is on disk is what was decided last.
    writing: tokio::sync::Mutex<()>,
    wake: Notify,
    /// The changes of the pins that were gone through.
    applied: watch::Sender<u64>,
    counts: PinCounts,
}

#[derive(Debug, Default)]
struct State {
    /// By URL.
    pins: BTreeMap<Arc<str>, Pin>,
    /// By URL.
    files: BTreeMap<Arc<str>, PinnedFile>,
    /// Grows whenever pins change.
    generation: u64,
}

impl Pins {
    /// The pins that were written down, none where that cannot be read.
    pub(crate) fn open(file: Option<&Path>) -> Self {
        let (mut state, counts) = (State { generation: 1, ..State::default() }, PinCounts::default());
        match file.map_or(Ok(Vec::new()), record::read) {
            Ok(pins) => state.pins = pins.into_iter().map(|pin| (Arc::clone(&pin.url), pin)).collect(),
            Err(error) => {
                counts.record_errors.up();
                tracing::error!(%error, "the pins are lost; what was pinned is dropped: pin it again");
            }
        }
        let (writing, wake) = (tokio::sync::Mutex::default(), Notify::new());
        let applied = watch::Sender::new(0);
        Self { file: file.map(Path::to_owned), state: Mutex::new(state), writing, wake, applied, counts }
    }

    /// What happened so far.
    pub(crate) fn counts(&self) -> &PinCounts {
        &self.counts
    }

    /// How many entries came to what.
    pub(crate) fn tally(&self) -> Tally {
        let state = self.lock();
        let mut tally = Tally { pins: state.pins.len() as u64, ..Tally::default() };
        for entry in state.files.values().flat_map(|file| &file.entries) {
            *match entry.outcome {
                Outcome::Pinned { .. } => &mut tally.pinned,
                Outcome::Waiting { .. } => &mut tally.waiting,
                Outcome::Refused { .. } => &mut tally.refused,
            } += 1;
        }
        tally
    }

    /// Adds a pin, or things to the one that is there, and returns what [`Pins::applied`] waits for.
    ///
    /// # Errors
    /// There are too many, or the pins cannot be written down; everything is as before.
    pub(crate) async fn add(&self, place: &Place, path: &str, things: Vec<Thing>) -> Result<u64, Error> {
        let adds = |pins: &mut BTreeMap<Arc<str>, Pin>| {
            let fresh = || Pin { path: path.to_owned(), url: Arc::clone(&place.url), things: Vec::new() };
            let pin = pins.entry(Arc::clone(&place.url)).or_insert_with(fresh);
            pin.things.extend(things);
            pin.things.sort_unstable();
            pin.things.dedup();
            if pin.things.len() > MOST_THINGS {
                return Err(Error::BadRequest(format!("a pin of more than {MOST_THINGS} things: name fewer columns")));
            }
            if pins.len() > MOST_PINS {
                return Err(Error::BadRequest(format!("more than {MOST_PINS} pins: pin prefixes in place of files")));
            }
            Ok(())
        };
        self.change(adds, |_| {}).await
    }

    /// Ends a pin. What it alone kept is dropped at once, of files that another pin covers as well a little later.
    ///
    /// # Errors
    /// The pins cannot be written down; everything is as before.
    pub(crate) async fn remove(&self, url: &str, dropped: impl Fn(&FileVersion) -> u64) -> Result<Unpinned, Error> {
        let mut unpinned = Unpinned::default();
        let removes = |pins: &mut BTreeMap<Arc<str>, Pin>| {
            unpinned.pins = u64::from(pins.remove(url).is_some());
            Ok(())
        };
        // In one step with the change: who goes through the pins next finds both done.
        let (mut files, mut bytes) = (0, 0);
        let drops = |state: &mut State| {
            let State { pins, files: all, .. } = state;
            all.retain(|file_url, file| {
                if !covers(url, file_url) || pins.keys().any(|other| covers(other, file_url)) {
                    return true;
                }
                let freed = file.version.as_ref().map_or(0, &dropped);
                files += u64::from(freed > 0);
                bytes += freed;
                false
            });
        };
        self.change(removes, drops).await?;
        Ok(Unpinned { files, bytes, ..unpinned })
    }

    /// Changes the pins, on disk first, and then what else is to be changed with them.
    async fn change(
        &self,
        change: impl FnOnce(&mut BTreeMap<Arc<str>, Pin>) -> Result<(), Error>,
        with_it: impl FnOnce(&mut State),
    ) -> Result<u64, Error> {
        let _writing = self.writing.lock().await;
        let mut pins = self.lock().pins.clone();
        change(&mut pins)?;
        if let Some(file) = self.file.clone() {
            let record = record::encode(pins.values());
            let written = tokio::task::spawn_blocking(move || record::write(&file, &record)).await;
            written.map_err(|_| Error::Draining)?.inspect_err(|_| self.counts.record_errors.up())?;
        }
        let mut state = self.lock();
        state.pins = pins;
        state.generation += 1;
        let generation = state.generation;
        with_it(&mut state);
        drop(state);
        self.wake.notify_one();
        Ok(generation)
    }

    /// Waits until the pins, as they were changed then, were gone through once. Returns whether that happened in time.
    pub(crate) async fn applied(&self, generation: u64, until: Instant) -> bool {
        let mut applied = self.applied.subscribe();
        let gone_through = applied.wait_for(|done| *done >= generation);
        matches!(tokio::time::timeout_at(until, gone_through).await, Ok(Ok(_)))
    }

    /// The pins at, above and below a URL, and what came of them there; without one all.
    pub(crate) fn listed(&self, url: Option<&str>) -> Vec<Listed> {
        let state = self.lock();
        let is_meant = |one: &str| url.is_none_or(|url| covers(url, one));
        let concerns = |pin: &&Pin| is_meant(&pin.url) || url.is_some_and(|url| covers(&pin.url, url));
        let of = |pin: &Pin| Listed { pin: pin.clone(), files: state.outcome(pin, is_meant) };
        state.pins.values().filter(concerns).map(of).collect()
    }

    /// What came of these things of a pin.
    pub(crate) fn outcome(&self, url: &str, things: &[Thing]) -> Vec<(Arc<str>, String, Vec<Entry>)> {
        let state = self.lock();
        let Some(pin) = state.pins.get(url) else { return Vec::new() };
        let asked = Pin { things: things.to_vec(), ..pin.clone() };
        state.outcome(&asked, |_| true)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Maps and a number; nothing panics between their changes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What came of a pin's things, of the files that are meant.
    fn outcome(&self, pin: &Pin, is_meant: impl Fn(&str) -> bool) -> Vec<(Arc<str>, String, Vec<Entry>)> {
        let files = self.files.range(Arc::clone(&pin.url)..).take_while(|(url, _)| url.starts_with(&*pin.url));
        let files = files.filter(|(url, _)| covers(&pin.url, url) && is_meant(url));
        files
            .map(|(url, file)| {
                let version = file.version.as_ref().map(|version| version.key.version().to_owned());
                let entries = file.entries.iter().filter(|entry| pin.things.contains(&entry.thing));
                (Arc::clone(url), version.unwrap_or_default(), entries.cloned().collect())
            })
            .collect()
    }
}

/// Whether a file or prefix is another, or below it.
fn covers(prefix: &str, url: &str) -> bool {
    url.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/'))
}

/// Drops what is pinned of a file version, derived objects included, and returns how many bytes those were.
pub(crate) fn drop_pinned(pinned: &PinnedBytes, derived: &crate::derived::Derived, version: &FileKey) -> u64 {
    let objects = derived.of(version).unwrap_or_default();
    let objects = objects.iter().filter(|object| object.is_pinned());
    let bytes: u64 = objects.filter(|object| derived.drop_object(object)).map(|object| object.bytes()).sum();
    bytes + pinned.forget(version)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
