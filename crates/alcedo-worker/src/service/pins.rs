//! Layer 3: pins as messages.
//!
//! Knows the messages of pin, unpin and pins, and what of a request is checked. It must not know how anything is kept.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use alcedo_proto::v1;

use super::Door;
use crate::admission::Deadline;
use crate::error::Error;
use crate::pins::{Entry, Outcome, Thing, drop_pinned};

/// Entries of one message: about 200 KiB.
const ENTRIES_PER_MESSAGE: usize = 1_000;
/// Longest name of a column: a file's own are shorter.
const MOST_NAME_BYTES: usize = 4 << 10;
/// Before its deadline a call tells what came of its pin until then: in time for the telling, however much there is.
const TELLING: Duration = Duration::from_millis(500);
/// At most this part of the call's time, as a divisor, is left for that.
const TELLING_SHARE: u32 = 4;

/// A pin that was taken.
pub(super) struct Asked {
    url: Arc<str>,
    things: Vec<Thing>,
    generation: u64,
}

type Files = Vec<(Arc<str>, String, Vec<Entry>)>;

/// Takes a pin.
pub(super) async fn pin(door: &Door, path: &str, things: Vec<v1::PinThing>) -> Result<Asked, Error> {
    let things = things.into_iter().map(thing).collect::<Result<Vec<_>, _>>()?;
    if things.is_empty() {
        return Err(Error::BadRequest("nothing to pin: name at least one thing".to_owned()));
    }
    let place = door.lookups.resolve(path)?;
    let generation = door.pins.add(&place, path, things.clone()).await?;
    Ok(Asked { url: place.url, things, generation })
}

/// What came of a pin when all its files were looked at, or shortly before the deadline.
pub(super) async fn outcome(door: &Door, asked: Asked, deadline: Deadline) -> VecDeque<v1::PinResponse> {
    let Asked { url, things, generation } = asked;
    door.pins.applied(generation, deadline.at - TELLING.min(deadline.timeout / TELLING_SHARE)).await;
    let mut messages = VecDeque::from([v1::PinResponse::default()]);
    for entry in entries(door.pins.outcome(&url, &things)) {
        match messages.back_mut() {
            Some(last) if last.entries.len() < ENTRIES_PER_MESSAGE => last.entries.push(entry),
            _ => messages.push_back(v1::PinResponse { entries: vec![entry] }),
        }
    }
    messages
}

/// Ends a pin.
pub(super) async fn unpin(door: &Door, path: &str) -> Result<v1::UnpinResponse, Error> {
    let place = door.lookups.resolve(path)?;
    let (pinned, derived) = (door.lookups.store().pinned(), door.lookups.derived());
    let ended = door.pins.remove(&place.url, |version| {
        pinned.note_kept(&version.stat.url, 0);
        drop_pinned(pinned, derived, &version.key)
    });
    let ended = ended.await?;
    Ok(v1::UnpinResponse { pins: ended.pins, files: ended.files, freed_bytes: ended.bytes })
}

/// The pins at, above and below a path; all without one.
pub(super) fn list(door: &Door, path: &str) -> Result<VecDeque<v1::PinsResponse>, Error> {
    let place = if path.is_empty() { None } else { Some(door.lookups.resolve(path)?) };
    let derived = door.lookups.derived();
    let (held_bytes, capacity_bytes) = (derived.pinned().bytes(), derived.pinned_free() + derived.pinned().bytes());
    let message = || v1::PinsResponse { pins: Vec::new(), held_bytes, capacity_bytes };
    let mut messages = VecDeque::from([message()]);
    let mut room = ENTRIES_PER_MESSAGE;
    for listed in door.pins.listed(place.as_ref().map(|place| &*place.url)) {
        let info = || v1::PinInfo {
            url: listed.pin.url.to_string(),
            things: listed.pin.things.iter().map(thing_message).collect(),
            entries: Vec::new(),
        };
        let mut open = info();
        for entry in entries(listed.files) {
            if room == 0 {
                let full = std::mem::replace(&mut open, info());
                messages.back_mut().into_iter().for_each(|last| last.pins.push(full.clone()));
                messages.push_back(message());
                room = ENTRIES_PER_MESSAGE;
            }
            open.entries.push(entry);
            room -= 1;
        }
        messages.back_mut().into_iter().for_each(|last| last.pins.push(open.clone()));
    }
    Ok(messages)
}

fn entries(files: Files) -> impl Iterator<Item = v1::PinEntry> {
    files
        .into_iter()
        .flat_map(|(url, version, entries)| entries.into_iter().map(move |entry| entry_message(&url, &version, entry)))
}

fn entry_message(url: &str, version: &str, entry: Entry) -> v1::PinEntry {
    let (state, bytes, why, needed_bytes, free_bytes) = match entry.outcome {
        Outcome::Pinned { bytes, why } => (v1::PinState::Pinned, bytes, why, 0, 0),
        Outcome::Waiting { why } => (v1::PinState::Waiting, 0, why, 0, 0),
        Outcome::Refused { why, needed, free } => (v1::PinState::Refused, 0, why, needed, free),
    };
    v1::PinEntry {
        url: url.to_owned(),
        version: version.to_owned(),
        thing: Some(thing_message(&entry.thing)),
        state: state.into(),
        bytes,
        why,
        needed_bytes,
        free_bytes,
    }
}

fn thing_message(thing: &Thing) -> v1::PinThing {
    let (kind, column) = match thing {
        Thing::Footer => (v1::PinKind::Footer, None),
        Thing::Index => (v1::PinKind::Index, None),
        Thing::Bloom => (v1::PinKind::Bloom, None),
        Thing::Column(name) => (v1::PinKind::Column, Some(name)),
        Thing::Keymap(key) => (v1::PinKind::Keymap, key.as_ref()),
        Thing::Rows(key) => (v1::PinKind::Rows, key.as_ref()),
    };
    v1::PinThing { kind: kind.into(), column: column.cloned().unwrap_or_default() }
}

fn thing(thing: v1::PinThing) -> Result<Thing, Error> {
    let kind = thing.kind();
    if thing.column.len() > MOST_NAME_BYTES {
        return Err(Error::BadRequest(format!("a column name of more than {MOST_NAME_BYTES} bytes")));
    }
    let key = (!thing.column.is_empty()).then_some(thing.column);
    match (kind, key) {
        (v1::PinKind::Footer, None) => Ok(Thing::Footer),
        (v1::PinKind::Index, None) => Ok(Thing::Index),
        (v1::PinKind::Bloom, None) => Ok(Thing::Bloom),
        (v1::PinKind::Column, Some(name)) => Ok(Thing::Column(name)),
        (v1::PinKind::Keymap, key) => Ok(Thing::Keymap(key)),
        (v1::PinKind::Rows, key) => Ok(Thing::Rows(key)),
        (v1::PinKind::Column, None) => Err(Error::BadRequest("a column to pin has no name".to_owned())),
        (v1::PinKind::Footer | v1::PinKind::Index | v1::PinKind::Bloom, Some(_)) => {
            Err(Error::BadRequest("footer, index and bloom filters are pinned of all columns: name none".to_owned()))
        }
        (v1::PinKind::Unspecified, _) => {
            Err(Error::BadRequest("a thing to pin that this worker does not know".to_owned()))
        }
    }
}
