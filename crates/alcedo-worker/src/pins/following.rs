//! Layer 3: pins that follow their files.
//!
//! Knows when pins are gone through: after each change of them, when a pinned file has a new version, and now and then.
//! It must not know how bytes are kept. A new version takes the place of the old one, a file that comes below a pinned
//! prefix is pinned, one that goes is dropped. Of a prefix those files are pinned here that are asked for here: those
//! that this worker is the owner or a replica of, and all of them where it is that of the prefix. What it has pinned
//! stays with it when the ring changes. Where the origin cannot say which files there are, nothing is dropped.

use std::collections::{BTreeMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use alcedo_origin::Place;
use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::time::Instant;

use super::keeping::{Keeper, is_passing, refused, waiting};
use super::{Entry, Outcome, Pin, PinnedFile, Pins, Thing, covers, drop_pinned};
use crate::cost::Cost;
use crate::error::Error;
use crate::indexes::{Known, OpenFile};
use crate::reader::FileVersion;
use crate::service::Door;

/// How often pins are gone through without a reason: what is not noticed otherwise is a file that comes, and bytes that
/// were damaged.
const PERIOD: Duration = Duration::from_secs(10);
/// How often it is looked whether lookups have noticed a new version: a few hundred nanoseconds for each file.
const LOOK: Duration = Duration::from_secs(1);
/// Files that are opened at once.
const OPENS_AT_ONCE: usize = 8;

/// A file of which something is to be kept.
struct Wanted {
    place: Place,
    version: FileVersion,
    /// What a listing says of it.
    listed: Option<Known>,
    /// In order, each once.
    things: Vec<Thing>,
}

/// What is wanted now.
#[derive(Default)]
struct Survey {
    /// By URL.
    files: BTreeMap<Arc<str>, Wanted>,
    /// Pins of which it is not known which files they have.
    unsure: Vec<Arc<str>>,
    /// What is to be said of a pin itself.
    notes: Vec<(Pin, Outcome)>,
}

/// Follows the pins of a worker for as long as it is polled.
pub(crate) async fn follow(door: &Door) {
    loop {
        if AssertUnwindSafe(door.pins.go_through(door)).catch_unwind().await.is_err() {
            door.metrics.panics_total.up();
            tracing::error!("going through the pins panicked; it is tried again");
            tokio::time::sleep(PERIOD).await;
        }
        door.pins.wait_for_reason(door).await;
    }
}

impl Pins {
    /// Whether the pins are as they were then.
    pub(super) fn is_still(&self, generation: u64) -> bool {
        self.lock().generation == generation
    }

    async fn wait_for_reason(&self, door: &Door) {
        let until = Instant::now() + PERIOD;
        loop {
            let is_woken = tokio::time::timeout(LOOK, self.wake.notified()).await.is_ok();
            let state = self.lock();
            let outdated = |file: &PinnedFile| {
                file.version.as_ref().is_some_and(|version| door.lookups.indexes().is_outdated(version))
            };
            let is_due = Instant::now() >= until && !state.pins.is_empty();
            if is_woken || is_due || state.files.values().any(outdated) {
                return;
            }
        }
    }

    /// Looks at all files of all pins once. Pins that change meanwhile are a reason to begin again.
    async fn go_through(&self, door: &Door) {
        let (generation, pins) = {
            let state = self.lock();
            (state.generation, state.pins.values().cloned().collect::<Vec<_>>())
        };
        let survey = survey(door, &pins).await;
        self.sweep(door, &survey);
        self.note(survey.notes, generation);
        let open = |(url, wanted): (Arc<str>, Wanted)| async move {
            let opened = if self.is_settled(door, &url, &wanted, generation) {
                None
            } else {
                let (indexes, cost) = (door.lookups.indexes(), Cost::new(false));
                Some(indexes.open(&wanted.place, wanted.listed.as_ref(), &cost).await)
            };
            (url, wanted, opened)
        };
        let mut files = stream::iter(survey.files).map(open).buffered(OPENS_AT_ONCE);
        while let Some((url, wanted, opened)) = files.next().await {
            if !self.is_still(generation) {
                return;
            }
            if let Some(opened) = opened {
                self.apply(door, &url, wanted, opened, generation).await;
            }
        }
        self.applied.send_if_modified(|applied| std::mem::replace(applied, generation) != generation);
    }

    /// Drops what nobody wants: of old versions, of files that are gone, and what a lost list of pins left behind.
    fn sweep(&self, door: &Door, survey: &Survey) {
        let (pinned, derived) = (door.lookups.store().pinned(), door.lookups.derived());
        let is_sure = |url: &str| !survey.unsure.iter().any(|pin| covers(pin, url));
        let goes = |version: &alcedo_cache::FileKey| match survey.files.get(version.url()) {
            Some(wanted) => wanted.version.key != *version,
            None => is_sure(version.url()),
        };
        pinned.versions().iter().filter(|version| goes(version)).for_each(|version| {
            pinned.forget(version);
        });
        derived.all().iter().filter(|object| object.is_pinned() && goes(object.version())).for_each(|object| {
            derived.drop_object(object);
        });
        self.lock().files.retain(|url, file| {
            // Notes are made anew.
            let stays = file.version.is_some() && (survey.files.contains_key(url) || !is_sure(url));
            if !stays {
                pinned.note_kept(url, 0);
            }
            stays
        });
    }

    /// Says of pins what came of them where there is no file to say it of.
    fn note(&self, notes: Vec<(Pin, Outcome)>, generation: u64) {
        let mut state = self.lock();
        for (pin, outcome) in notes {
            let entries = pin.things.into_iter().map(|thing| Entry::new(thing, outcome.clone())).collect();
            state.files.entry(pin.url).or_insert(PinnedFile { version: None, entries, generation });
        }
    }

    /// Whether all that is wanted of a file was kept or refused before, and that is still so.
    fn is_settled(&self, door: &Door, url: &str, wanted: &Wanted, generation: u64) -> bool {
        let derived = door.lookups.derived();
        let (free, now) = (derived.pinned_free(), Instant::now());
        let mut state = self.lock();
        let Some(file) = state.files.get_mut(url) else { return false };
        let (key, size) = (&wanted.version.key, wanted.version.stat.size);
        let is_here = |entry: &Entry| {
            let object = entry.object.as_ref().map(|name| derived.named(key, name));
            object.is_none_or(|object| object.is_some_and(|object| object.is_pinned()))
                && entry.ranges.iter().all(|range| derived.pinned().missing(key, size, range.clone()).is_empty())
        };
        let is_decided = |entry: &Entry| match &entry.outcome {
            Outcome::Pinned { .. } => is_here(entry),
            Outcome::Refused { needed, free: then, .. } => {
                let is_due = entry.again_at.is_some_and(|at| at <= now);
                file.generation == generation && !is_due && (*needed == 0 || free <= *then)
            }
            Outcome::Waiting { .. } => false,
        };
        let is_same = file.version.as_ref().is_some_and(|version| version.key == *key)
            && file.entries.iter().map(|entry| &entry.thing).eq(&wanted.things);
        let is_settled = is_same && file.entries.iter().all(is_decided);
        if is_settled {
            file.generation = generation;
        }
        is_settled
    }

    /// Keeps what is wanted of one file.
    async fn apply(
        &self,
        door: &Door,
        url: &Arc<str>,
        wanted: Wanted,
        opened: Result<OpenFile, Error>,
        generation: u64,
    ) {
        let before = self.lock().files.get(url).cloned();
        let (version, entries) = match opened {
            Ok(file) => {
                let (pinned, derived) = (door.lookups.store().pinned(), door.lookups.derived());
                let is_same = |before: &&PinnedFile| {
                    before.version.as_ref().is_some_and(|version| version.key == file.version.key)
                };
                let is_unwanted = |entry: &Entry| !entry.ranges.is_empty() && !wanted.things.contains(&entry.thing);
                match before.as_ref().filter(is_same) {
                    // Bytes of things cannot be told from each other: those that are wanted come again.
                    Some(before) if before.entries.iter().any(is_unwanted) => {
                        pinned.forget(&file.version.key);
                    }
                    Some(_) => {}
                    None => {
                        // Of the version before, there is room to be had.
                        let old = before.as_ref().and_then(|before| before.version.as_ref());
                        old.iter().for_each(|old| {
                            drop_pinned(pinned, derived, &old.key);
                        });
                    }
                }
                let keeper = Keeper { door, place: &wanted.place, file: &file, generation };
                let entries = keeper.keep(&wanted.things).await;
                drop_unnamed(door, &file.version, &entries);
                (file.version, entries)
            }
            Err(error) => {
                let outcome = if is_passing(&error) { waiting(&error) } else { refused(&error) };
                let entry = |thing| Entry::new(thing, outcome.clone());
                (wanted.version, wanted.things.into_iter().map(entry).collect())
            }
        };
        self.tell_refused(url, &entries, before.as_ref());
        let file = PinnedFile { version: Some(version.clone()), entries, generation };
        {
            let mut state = self.lock();
            if state.generation != generation && !state.pins.keys().any(|pin| covers(pin, url)) {
                // The pin has ended meanwhile, and was told what it freed; the next round drops the rest.
                return;
            }
            state.files.insert(Arc::clone(url), file);
        }
        let objects = door.lookups.derived().of(&version.key).unwrap_or_default();
        let objects: u64 = objects.iter().filter(|object| object.is_pinned()).map(|object| object.bytes()).sum();
        let bytes = objects + door.lookups.derived().pinned().held_bytes(&version.key);
        door.lookups.store().pinned().note_kept(url, bytes);
    }

    /// Says aloud what is refused, once.
    fn tell_refused(&self, url: &str, entries: &[Entry], before: Option<&PinnedFile>) {
        let was = |thing: &Thing| {
            before.is_some_and(|before| {
                let mut entries = before.entries.iter().filter(|entry| entry.thing == *thing);
                entries.any(|entry| matches!(entry.outcome, Outcome::Refused { .. }))
            })
        };
        for entry in entries {
            if let Outcome::Refused { why, .. } = &entry.outcome
                && !was(&entry.thing)
            {
                self.counts.refused.up();
                tracing::warn!(url, thing = %entry.thing, why, "a pin was refused");
            }
        }
    }
}

/// Drops pinned objects that are none of the entries, unless one of them is still to come.
fn drop_unnamed(door: &Door, version: &FileVersion, entries: &[Entry]) {
    if entries.iter().any(|entry| matches!(entry.outcome, Outcome::Waiting { .. })) {
        return;
    }
    let derived = door.lookups.derived();
    for object in derived.of(&version.key).unwrap_or_default().iter().filter(|object| object.is_pinned()) {
        if !entries.iter().any(|entry| entry.object.as_deref() == Some(object.name())) {
            derived.drop_object(object);
        }
    }
}

/// Which files are wanted, and what of each.
async fn survey(door: &Door, pins: &[Pin]) -> Survey {
    let (ring, mut survey) = (door.membership.ring(), Survey::default());
    let is_mine = |url: &str| ring.owners(url).any(|member| member.id() == door.worker_id);
    let versions = door.lookups.store().pinned().versions();
    let objects = door.lookups.derived().all();
    let objects = objects.iter().filter(|object| object.is_pinned()).map(|object| object.version().url());
    let held: HashSet<&str> = versions.iter().map(|version| version.url()).chain(objects).collect();
    for pin in pins {
        let is_of_pin = is_mine(&pin.url);
        let note = match files_of(door, pin).await {
            Ok((files, trouble)) => {
                for (place, version, listed) in files {
                    if is_of_pin || is_mine(&place.url) || held.contains(&*place.url) {
                        let fresh = || Wanted { place: place.clone(), version, listed, things: Vec::new() };
                        let wanted = survey.files.entry(Arc::clone(&place.url)).or_insert_with(fresh);
                        wanted.things.extend(pin.things.iter().cloned());
                        wanted.things.sort_unstable();
                        wanted.things.dedup();
                    }
                }
                trouble
            }
            Err(error) if error.is_not_found() => Some(waiting("there is no such file yet")),
            Err(error) => {
                survey.unsure.push(Arc::clone(&pin.url));
                Some(waiting(&error))
            }
        };
        survey.notes.extend(note.filter(|_| is_of_pin).map(|outcome| (pin.clone(), outcome)));
    }
    survey
}

type Files = Vec<(Place, FileVersion, Option<Known>)>;

/// The files of a pin, and what is to be said of the pin itself.
async fn files_of(door: &Door, pin: &Pin) -> Result<(Files, Option<Outcome>), Error> {
    let (lookups, cost) = (&door.lookups, Cost::new(false));
    let place = lookups.resolve(&pin.path)?;
    let mut not_found = None;
    if !place.ends_with_slash && !place.key.is_root() {
        match lookups.indexes().version(&place, &cost).await {
            Ok(version) => return Ok((vec![(place, version, None)], None)),
            Err(error) if error.is_not_found() => not_found = Some(error),
            Err(error) => return Err(error),
        }
    }
    let below = lookups.listings().below(&place, &cost).await?;
    let files = below.files.iter().map(|file| {
        let newest = lookups.indexes().newest(&file.known);
        (file.place.clone(), newest.version, Some(file.known.clone()))
    });
    let trouble = match (below.files.is_empty(), not_found) {
        _ if below.too_many => Some(refused(format!(
            "there are more than {} files below it, and the rest is not pinned: pin narrower prefixes, or raise \
             lookup.max_files (and origin.listed_entries)",
            below.files.len()
        ))),
        (true, Some(error)) => return Err(error),
        (true, None) => Some(waiting("there are no .parquet files below it yet")),
        (false, _) => None,
    };
    Ok((files.collect(), trouble))
}
