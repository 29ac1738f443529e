//! Layer 3: the things of one file version, kept.
//!
//! Knows which bytes a thing is and how they come into the store of what is pinned: from the page store if they are
//! there, else from the origin, past the page store, so that nothing ordinary goes to make room. It must not know which
//! files are pinned, nor when. What is made of a file is a build like any other, into the same store.

use std::ops::Range;
use std::time::Duration;

use alcedo_lookup::error::Error as FileError;
use alcedo_origin::Place;
use bytes::Bytes;
use tokio::time::Instant;

use super::{Entry, Outcome, Thing};
use crate::builds::{Failed, What};
use crate::derived::Full;
use crate::error::Error;
use crate::indexes::OpenFile;
use crate::service::Door;

/// Bytes that are fetched and written at once: many times what an origin sends in a trip, and little memory.
const PIECE_BYTES: u64 = 4 << 20;
/// Longest time of one such fetch: that of any request.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for such bytes to reach the disk.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// After so long bytes that the store dropped are brought again: a disk may have recovered.
const DROPPED_PAUSE: Duration = Duration::from_secs(60);

/// Keeps things of one file version.
pub(super) struct Keeper<'d> {
    pub(super) door: &'d Door,
    pub(super) place: &'d Place,
    pub(super) file: &'d OpenFile,
    /// The changes of the pins of which this is.
    pub(super) generation: u64,
}

/// Bytes that were not kept.
enum NotKept {
    /// There was no room from the start; nothing was written.
    Full(Full),
    /// The store dropped some of what was written.
    Dropped(u64),
    /// The pins have changed meanwhile.
    Superseded,
    /// They could not be had.
    Failed(Error),
}

impl Keeper<'_> {
    /// Keeps these things, and says what came of each.
    pub(super) async fn keep(&self, things: &[Thing]) -> Vec<Entry> {
        let mut refused: Vec<Entry> = Vec::new();
        'anew: loop {
            let mut entries = Vec::with_capacity(things.len());
            for thing in things {
                if let Some(entry) = refused.iter().find(|entry| entry.thing == *thing) {
                    entries.push(entry.clone());
                    continue;
                }
                let (entry, is_whole) = self.kept(thing).await;
                if !is_whole {
                    // What was written of it cannot be told from the bytes of others: those that have room come again.
                    self.door.lookups.store().pinned().forget(&self.file.version.key);
                    refused.push(entry);
                    continue 'anew;
                }
                entries.push(entry);
            }
            return entries;
        }
    }

    /// Keeps one thing. The flag says that nothing of what was refused is left.
    async fn kept(&self, thing: &Thing) -> (Entry, bool) {
        let index = &self.file.index;
        let (ranges, nothing) = match thing {
            Thing::Footer => (Ok(vec![index.footer_range()]), ""),
            Thing::Index => (Ok(index.page_index_ranges()), "the file has no page index"),
            Thing::Bloom => (Ok(index.bloom_filter_ranges()), "the file has no bloom filters"),
            Thing::Column(name) => (index.column_ranges(name), "the column has no data pages"),
            Thing::Keymap(key) => return (self.object(thing, self.keymap(key)).await, true),
            Thing::Rows(key) => {
                return (self.object(thing, Ok(What::Ready { key: key.clone(), columns: None })).await, true);
            }
        };
        let ranges = match ranges {
            Ok(ranges) => merged(ranges),
            Err(error) => return (Entry::new(thing.clone(), refused(&error)), true),
        };
        let bytes = ranges.iter().map(|range| range.end - range.start).sum();
        let why = if bytes == 0 { nothing.to_owned() } else { String::new() };
        let (outcome, is_whole) = match self.bytes(&ranges).await {
            Ok(()) => (Outcome::Pinned { bytes, why }, true),
            Err(NotKept::Full(full)) => (no_room(&full), true),
            Err(NotKept::Dropped(needed)) => {
                let why = format!(
                    "the store of what is pinned dropped some of its {needed} bytes, for want of room or because the \
                     disk failed: raise cache.pinned, or unpin something"
                );
                (Outcome::Refused { why, needed, free: self.door.lookups.derived().pinned_free() }, false)
            }
            Err(NotKept::Superseded) => (waiting("the pins have changed meanwhile"), true),
            Err(NotKept::Failed(error)) => (waiting(&error), true),
        };
        let again_at = (!is_whole).then(|| Instant::now() + DROPPED_PAUSE);
        (Entry { ranges, again_at, ..Entry::new(thing.clone(), outcome) }, is_whole)
    }

    /// Brings what is missing of these ranges.
    async fn bytes(&self, ranges: &[Range<u64>]) -> Result<(), NotKept> {
        let (lookups, version) = (&self.door.lookups, &self.file.version);
        let (store, size) = (lookups.derived().pinned(), version.stat.size);
        let missing =
            || merged(ranges.iter().flat_map(|range| store.missing(&version.key, size, range.clone())).collect());
        let gaps = missing();
        let needed = gaps.iter().map(|gap| gap.end - gap.start).sum();
        lookups.derived().pinned_room(needed).map_err(NotKept::Full)?;
        for gap in gaps {
            let mut start = gap.start;
            while start < gap.end {
                if !self.door.pins.is_still(self.generation) {
                    return Err(NotKept::Superseded);
                }
                let end = gap.end.min(start + PIECE_BYTES);
                let bytes = self.brought(start..end).await.map_err(NotKept::Failed)?;
                lookups.store().pinned().write(&version.key, size, start, &bytes);
                let store = store.clone();
                // Whether it was kept shows below.
                let _ = tokio::task::spawn_blocking(move || store.settle(WRITE_PATIENCE)).await;
                start = end;
            }
        }
        if missing().is_empty() { Ok(()) } else { Err(NotKept::Dropped(needed)) }
    }

    async fn brought(&self, range: Range<u64>) -> Result<Bytes, Error> {
        let version = &self.file.version;
        let held = self.door.lookups.store().pages().read_waiting(&version.key, range.clone()).await;
        if let Some(bytes) = held {
            return Ok(bytes);
        }
        let deadline = Instant::now() + FETCH_TIMEOUT;
        Ok(self.place.mount.read_range(&self.place.key, &version.stat, range, deadline).await?)
    }

    fn keymap(&self, key: &Option<String>) -> Result<What, FileError> {
        let column = match key {
            Some(column) => column.clone(),
            None => self.file.index.default_key()?,
        };
        Ok(What::Keymap { column })
    }

    async fn object(&self, thing: &Thing, what: Result<What, FileError>) -> Entry {
        let made = match what {
            Ok(what) => self.door.builds.on_request(self.door, self.place, what, true).await,
            Err(error) => return Entry::new(thing.clone(), refused(&error)),
        };
        let outcome = match &made {
            Ok(object) => Outcome::Pinned { bytes: object.bytes(), why: String::new() },
            Err(Failed::Full(full)) => no_room(full),
            Err(why @ (Failed::Changed | Failed::Draining | Failed::Busy)) => waiting(why),
            Err(Failed::Broken(error)) if is_passing(error) => waiting(error),
            Err(why) => refused(why),
        };
        Entry { object: made.ok().map(|object| object.name().to_owned()), ..Entry::new(thing.clone(), outcome) }
    }
}

/// Whether the same may go well a little later, though nothing is done about it.
pub(super) fn is_passing(error: &Error) -> bool {
    !matches!(error, Error::File { .. } | Error::BadRequest(_) | Error::Bug { .. })
}

pub(super) fn waiting(why: impl std::fmt::Display) -> Outcome {
    Outcome::Waiting { why: why.to_string() }
}

pub(super) fn refused(why: impl std::fmt::Display) -> Outcome {
    Outcome::Refused { why: why.to_string(), needed: 0, free: 0 }
}

fn no_room(full: &Full) -> Outcome {
    let Full { needed, free, quota, key } = full;
    let why = format!(
        "it needs {needed} bytes, and of the {quota} that `{key}` leaves {free} are free: raise it, or unpin something"
    );
    Outcome::Refused { why, needed: *needed, free: *free }
}

/// Ranges in order, apart from each other, without empty ones.
fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_one() {
        assert_eq!(merged(vec![8..12, 0..4, 4..4, 4..6, 5..7, 11..11]), [0..7, 8..12]);
        assert_eq!(merged(vec![3..3]), []);
    }
}
