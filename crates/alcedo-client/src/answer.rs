//! Answers as callers see them: rows with their files, and what the answer cost.
//!
//! Plain values without a trace of the wire. It must not know how they were decoded or fetched.

use std::sync::Arc;
use std::time::Duration;

use alcedo_lookup::schema::RowSchema;
use alcedo_lookup::value::Value;
use bytes::Bytes;

/// The answer to a lookup.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The files that hold rows, in listing order. A file without a matching row is absent below a prefix, and there
    /// without rows where the path names it.
    pub files: Vec<FileAnswer>,
    /// What became of each key, in the order of the keys.
    pub statuses: Vec<KeyStatus>,
    /// The ring that the worker saw: a digest of its members.
    pub ring_epoch: u64,
    /// Address of the worker that answered; the first of them if the keys took several messages. `origin` if no worker
    /// did, and this client read the origin itself.
    pub worker: Arc<str>,
    /// The slowest place that bytes of this answer came from.
    pub source: Source,
    /// Files below the path.
    pub files_total: u32,
    /// How many of them were asked after pruning by key bounds; the most that one message asked.
    pub files_asked: u32,
    /// GETs at the origin that this lookup waited for.
    pub origin_gets: u64,
    /// Bytes of those GETs.
    pub origin_bytes: u64,
    /// Where the time went, if it was asked for.
    pub trace: Option<Trace>,
    /// From the call to the decoded answer, as this side saw it.
    pub elapsed: Duration,
}

impl Answer {
    /// All rows with their files, file by file.
    pub fn rows(&self) -> impl Iterator<Item = (&FileAnswer, &Row)> {
        self.files.iter().flat_map(|file| file.rows.iter().map(move |row| (file, row)))
    }

    /// Whether no row matched any key.
    pub fn is_empty(&self) -> bool {
        self.files.iter().all(|file| file.rows.is_empty())
    }
}

/// The rows of one content version of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct FileAnswer {
    /// The file's canonical URL.
    pub url: Arc<str>,
    /// What tells this content of the file from any other; opaque.
    pub version: Arc<str>,
    /// Names and types of the rows' columns.
    pub schema: Arc<RowSchema>,
    /// The rows, in file order.
    pub rows: Vec<Row>,
    /// The rows as an Arrow IPC stream, in the order of `rows`, if that form was asked for and there are any. A lookup
    /// of more keys than fit in one message then names a file once per message.
    pub arrow: Option<Bytes>,
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Which key it belongs to: an index into the lookup's keys.
    pub key_index: u32,
    /// Its 0-based number in the file.
    pub row_number: u64,
    /// One value per column of the schema; empty if the values are in [`FileAnswer::arrow`].
    pub values: Vec<Value>,
}

/// What became of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyStatus {
    /// No row has it.
    NotFound,
    /// All its rows are in the answer.
    Found,
    /// The row limit cut its rows.
    Truncated,
}

/// Where bytes came from, fastest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// The worker did not say.
    Unknown,
    /// The worker's memory.
    Memory,
    /// The worker's page store.
    PageStore,
    /// Another worker.
    Peer,
    /// The origin.
    Origin,
}

/// Where a lookup's time and bytes went, as the worker saw it. Stages may overlap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace {
    /// The stages, in the order in which they began.
    pub stages: Vec<Stage>,
    /// From the request's arrival to its answer.
    pub total_us: u64,
    /// Decisions in words, in order.
    pub notes: Vec<String>,
}

/// One stage of a [`Trace`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// `list`, `open`, `plan`, …
    pub name: String,
    /// The file it belongs to; empty for the whole request.
    pub file: String,
    /// From the request's arrival at the worker.
    pub start_us: u64,
    /// How long it took.
    pub duration_us: u64,
    /// Bytes read, from anywhere.
    pub bytes: u64,
    /// GETs at the origin.
    pub origin_gets: u32,
    /// Bytes of those GETs.
    pub origin_bytes: u64,
}
