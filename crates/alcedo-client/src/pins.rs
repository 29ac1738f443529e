//! What is to stay with the workers whatever is asked.
//!
//! Knows these calls, and that every worker is asked: each keeps what it is the owner or a replica of. It must not know
//! how a worker keeps anything. None of these calls changes an answer.

use std::sync::Arc;

use alcedo_proto::v1 as pb;

use crate::client::Client;
use crate::cluster::Member;
use crate::ending::CallError;
use crate::error::{Error, Kind};
use crate::transport::Worker;

/// A part of a file, or what a worker makes of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PinThing {
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
    /// Lookup-ready rows of all columns by this key column; none: as above.
    Rows(Option<String>),
}

/// Whether a thing is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinState {
    /// All of it is; that may be nothing.
    Pinned,
    /// Not yet; it is tried again.
    Waiting,
    /// No.
    Refused,
}

/// What came of one thing of one file at one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinEntry {
    /// The file's canonical URL; of a pin without files, its own.
    pub url: String,
    /// The content version of which it is; empty where that is not known.
    pub version: String,
    /// The thing.
    pub thing: PinThing,
    /// Whether it is kept.
    pub state: PinState,
    /// Bytes that are kept. Things of one file may share bytes.
    pub bytes: u64,
    /// What it waits for, why it was refused and what to do, or something to know.
    pub why: String,
    /// Of what was refused for want of room: bytes that it needs.
    pub needed_bytes: u64,
    /// And bytes that were free for it.
    pub free_bytes: u64,
}

/// What ended with a pin at one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unpinned {
    /// Pins; one, or none if there was none.
    pub pins: u64,
    /// Files of which anything was dropped.
    pub files: u64,
    /// Its bytes.
    pub freed_bytes: u64,
}

/// One pin at one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinInfo {
    /// The canonical URL of the file or prefix.
    pub url: String,
    /// What is to stay of it.
    pub things: Vec<PinThing>,
    /// What came of that, file by file.
    pub entries: Vec<PinEntry>,
}

/// The pins of one worker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pins {
    /// In the order of their URLs.
    pub pins: Vec<PinInfo>,
    /// Bytes that all pins of the worker take, those that were not asked for included.
    pub held_bytes: u64,
    /// Bytes that they may take.
    pub capacity_bytes: u64,
}

impl Client {
    /// Makes every member keep things of a file, or of the files below a prefix, of which it is the owner or a replica:
    /// now, in every later content version, and of files that come later. Things are added to those of an earlier pin
    /// of the same path. What is not done by the client's deadline is [`PinState::Waiting`], or not told at all, and
    /// goes on; [`Client::pins`] tells more later.
    ///
    /// # Errors
    /// No worker told who the members are. A single member's failure is in its place of the list.
    pub async fn pin(
        &self,
        path: &str,
        things: &[PinThing],
    ) -> Result<Vec<(Member, Result<Vec<PinEntry>, Error>)>, Error> {
        let things: Vec<_> = things.iter().map(PinThing::to_wire).collect();
        let ask = |worker: Arc<Worker>, deadline| {
            let request = pb::PinRequest { path: path.to_owned(), things: things.clone(), timeout_us: 0 };
            async move {
                let mut messages = worker.pin(request, deadline).await?;
                let mut entries = Vec::new();
                while let Some(message) = worker.next_message(&mut messages, deadline).await? {
                    entries.extend(read_entries(&worker, message.entries)?);
                }
                Ok(entries)
            }
        };
        self.every_worker(ask).await
    }

    /// Ends the pin of exactly this path at every member. What no other pin keeps is dropped.
    ///
    /// # Errors
    /// As [`Client::pin`].
    pub async fn unpin(&self, path: &str) -> Result<Vec<(Member, Result<Unpinned, Error>)>, Error> {
        let ask = |worker: Arc<Worker>, deadline| async move {
            let pb::UnpinResponse { pins, files, freed_bytes } = worker.unpin(path.to_owned(), deadline).await?;
            Ok(Unpinned { pins, files, freed_bytes })
        };
        self.every_worker(ask).await
    }

    /// The pins of every member, and what came of them: of this path, above it and below it, or all.
    ///
    /// # Errors
    /// As [`Client::pin`].
    pub async fn pins(&self, path: Option<&str>) -> Result<Vec<(Member, Result<Pins, Error>)>, Error> {
        let path = path.unwrap_or_default();
        let ask = |worker: Arc<Worker>, deadline| async move {
            let mut messages = worker.pins(path.to_owned(), deadline).await?;
            let mut all = Pins::default();
            while let Some(message) = worker.next_message(&mut messages, deadline).await? {
                all.held_bytes = message.held_bytes;
                all.capacity_bytes = message.capacity_bytes;
                for pin in message.pins {
                    let entries = read_entries(&worker, pin.entries)?;
                    match all.pins.last_mut() {
                        // It goes on from the message before.
                        Some(last) if last.url == pin.url => last.entries.extend(entries),
                        _ => {
                            let things = pin.things.into_iter().map(|thing| read_thing(&worker, Some(thing)));
                            let things = things.collect::<Result<_, _>>()?;
                            all.pins.push(PinInfo { url: pin.url, things, entries });
                        }
                    }
                }
            }
            Ok(all)
        };
        self.every_worker(ask).await
    }
}

impl PinThing {
    fn to_wire(&self) -> pb::PinThing {
        let (kind, column) = match self {
            Self::Footer => (pb::PinKind::Footer, None),
            Self::Index => (pb::PinKind::Index, None),
            Self::Bloom => (pb::PinKind::Bloom, None),
            Self::Column(name) => (pb::PinKind::Column, Some(name)),
            Self::Keymap(key) => (pb::PinKind::Keymap, key.as_ref()),
            Self::Rows(key) => (pb::PinKind::Rows, key.as_ref()),
        };
        pb::PinThing { kind: kind.into(), column: column.cloned().unwrap_or_default() }
    }
}

fn read_entries(worker: &Worker, entries: Vec<pb::PinEntry>) -> Result<Vec<PinEntry>, CallError> {
    entries.into_iter().map(|entry| read_entry(worker, entry)).collect()
}

fn read_entry(worker: &Worker, entry: pb::PinEntry) -> Result<PinEntry, CallError> {
    let state = match entry.state() {
        pb::PinState::Pinned => PinState::Pinned,
        pb::PinState::Waiting => PinState::Waiting,
        pb::PinState::Refused => PinState::Refused,
        pb::PinState::Unspecified => return Err(unknown(worker, "a state")),
    };
    Ok(PinEntry {
        thing: read_thing(worker, entry.thing)?,
        state,
        url: entry.url,
        version: entry.version,
        bytes: entry.bytes,
        why: entry.why,
        needed_bytes: entry.needed_bytes,
        free_bytes: entry.free_bytes,
    })
}

fn read_thing(worker: &Worker, thing: Option<pb::PinThing>) -> Result<PinThing, CallError> {
    let thing = thing.unwrap_or_default();
    let kind = thing.kind();
    let key = (!thing.column.is_empty()).then_some(thing.column);
    match (kind, key) {
        (pb::PinKind::Footer, _) => Ok(PinThing::Footer),
        (pb::PinKind::Index, _) => Ok(PinThing::Index),
        (pb::PinKind::Bloom, _) => Ok(PinThing::Bloom),
        (pb::PinKind::Column, Some(name)) => Ok(PinThing::Column(name)),
        (pb::PinKind::Keymap, key) => Ok(PinThing::Keymap(key)),
        (pb::PinKind::Rows, key) => Ok(PinThing::Rows(key)),
        (pb::PinKind::Column | pb::PinKind::Unspecified, _) => Err(unknown(worker, "a thing")),
    }
}

fn unknown(worker: &Worker, what: &str) -> CallError {
    let message = format!(
        "the answer of {} tells {what} of a pin that this client does not know; use one of the workers' version",
        worker.address()
    );
    CallError::Failed(Error::new(Kind::DataLoss, message))
}
