//! Files as names and bytes: stat, list, read.
//!
//! Knows these calls and checks what comes back. It must not know Parquet; nothing is ever written.

use std::sync::Arc;

use alcedo_proto::v1 as pb;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::transport::Worker;
use crate::tries::Turn;

/// Most entries that a listing collects, whatever its limit; more are reported as truncated. About 300 MB of names.
pub const MAX_LISTED: u64 = 1_000_000;

/// What is known of a file, or of a common prefix in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// The canonical URL; that of a common prefix ends with `/`.
    pub url: String,
    /// Its size.
    pub size_bytes: u64,
    /// The content version; opaque.
    pub version: String,
    /// Last modification, in microseconds since the Unix epoch.
    pub modified_us: i64,
    /// Whether it is a common prefix, not a file.
    pub is_prefix: bool,
    /// What the worker knows of it as Parquet; absent until it has been opened.
    pub parquet: Option<ParquetInfo>,
}

/// What a worker knows of a Parquet file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParquetInfo {
    /// Its rows.
    pub rows: u64,
    /// Its row groups.
    pub row_groups: u32,
    /// Its leaf columns.
    pub columns: u32,
    /// Whether it was written with a page index.
    pub has_page_index: bool,
    /// Bytes of the worker's memory that the file index takes.
    pub index_bytes: u64,
}

/// What to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListOptions {
    /// All files below; otherwise one level, where deeper names appear as prefixes.
    pub recursive: bool,
    /// At most so many entries; 0: as many as the server and [`MAX_LISTED`] allow.
    pub limit: u64,
}

/// Names below a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// In the origin's order.
    pub entries: Vec<FileInfo>,
    /// Whether there are more.
    pub truncated: bool,
}

impl Client {
    /// What is known of a file.
    ///
    /// # Errors
    /// There is no such file, or it could not be asked for.
    pub async fn stat(&self, path: &str) -> Result<FileInfo, Error> {
        let deadline = self.start(self.deadline)?;
        let attempt = |turn: Turn| async move { turn.worker.stat(path.to_owned(), turn.connect_by, deadline).await };
        let reply = self.routing.route(path, deadline, attempt).await?;
        self.routing.observe(reply.ring_epoch);
        let missing = || Error::internal(format!("the answer about {path} names no file"));
        reply.file.map(FileInfo::from_wire).ok_or_else(missing)
    }

    /// The files below a prefix.
    ///
    /// # Errors
    /// There is no such mount, or the origin could not be asked. A worker that fails in the middle fails the listing.
    pub async fn list(&self, path: &str, options: ListOptions) -> Result<Listing, Error> {
        let deadline = self.start(self.deadline)?;
        let ListOptions { recursive, limit } = options;
        let request = pb::ListRequest { path: path.to_owned(), recursive, limit, timeout_us: 0 };
        let limit = if limit == 0 { MAX_LISTED } else { limit.min(MAX_LISTED) };
        let attempt = |turn: Turn| {
            let request = request.clone();
            async move {
                let pages = turn.worker.list(request, turn.connect_by, deadline).await?;
                Ok((turn.worker, pages))
            }
        };
        let (worker, mut pages) = self.routing.route(path, deadline, attempt).await?;
        let mut listing = Listing::default();
        while let Some(page) = next(&worker, &mut pages, deadline).await? {
            listing.truncated |= page.truncated;
            listing.entries.extend(page.entries.into_iter().map(FileInfo::from_wire));
            if listing.entries.len() as u64 > limit {
                listing.entries.truncate(limit as usize);
                listing.truncated = true;
                break;
            }
        }
        Ok(listing)
    }

    /// The bytes of a file from `offset`, `length` of them or to its end, all of one content version. The stream ends
    /// after an error. The client's deadline is for the whole read; see [`Client::with_deadline`].
    ///
    /// A read that ends early yields an error of kind [`Kind::DataLoss`], never a short success.
    pub fn read(&self, path: &str, offset: u64, length: Option<u64>) -> BoxStream<'static, Result<Bytes, Error>> {
        if length == Some(0) {
            return futures::stream::empty().boxed();
        }
        let (client, path) = (self.clone(), path.to_owned());
        futures::stream::once(async move { client.start_read(path, offset, length).await })
            .map_ok(|read| futures::stream::try_unfold(read, Read::step))
            .try_flatten()
            .boxed()
    }

    async fn start_read(self, path: String, offset: u64, length: Option<u64>) -> Result<Read, Error> {
        let deadline = self.start(self.deadline)?;
        let wire_length = length.unwrap_or_default();
        let request = pb::ReadRequest { path, offset, length: wire_length, version: String::new(), timeout_us: 0 };
        let attempt = |turn: Turn| {
            let request = request.clone();
            async move {
                let chunks = turn.worker.read(request, turn.connect_by, deadline).await?;
                Ok((turn.worker, chunks))
            }
        };
        let (worker, chunks) = self.routing.route(&request.path, deadline, attempt).await?;
        Ok(Read { worker, chunks, deadline, path: request.path, offset, length, left: None })
    }
}

/// A read under way.
struct Read {
    worker: Arc<Worker>,
    chunks: tonic::Streaming<pb::ReadResponse>,
    deadline: Deadline,
    path: String,
    offset: u64,
    length: Option<u64>,
    /// Bytes that are still to come; known with the first message.
    left: Option<u64>,
}

impl Read {
    /// The next chunk that holds bytes, and the rest of the read.
    async fn step(mut self) -> Result<Option<(Bytes, Self)>, Error> {
        while let Some(chunk) = next(&self.worker, &mut self.chunks, self.deadline).await? {
            let left = match (self.left, chunk.file) {
                (Some(left), _) => left,
                (None, Some(file)) => {
                    let rest = file.size_bytes.saturating_sub(self.offset);
                    self.length.map_or(rest, |length| length.min(rest))
                }
                (None, None) => return Err(self.damaged("its first message names no file")),
            };
            let bytes = chunk.data.len() as u64;
            self.left =
                Some(left.checked_sub(bytes).ok_or_else(|| self.damaged("it sent more bytes than were asked for"))?);
            if bytes > 0 {
                return Ok(Some((chunk.data, self)));
            }
        }
        match self.left {
            Some(0) => Ok(None),
            Some(left) => Err(self.damaged(&format!("it ended {left} bytes early"))),
            None => Err(self.damaged("it ended without a message")),
        }
    }

    fn damaged(&self, what: &str) -> Error {
        let message = format!("the read of {} from {} is damaged: {what}", self.path, self.worker.address());
        Error::new(Kind::DataLoss, message).with_subject(&self.path)
    }
}

/// The next message; what the worker refuses in the middle of an answer is an error like any other.
async fn next<M>(worker: &Worker, messages: &mut tonic::Streaming<M>, deadline: Deadline) -> Result<Option<M>, Error> {
    worker.next_message(messages, deadline).await.map_err(|error| worker.error_of(error))
}

impl FileInfo {
    fn from_wire(file: pb::FileInfo) -> Self {
        let parquet = |parquet: pb::ParquetInfo| ParquetInfo {
            rows: parquet.rows,
            row_groups: parquet.row_groups,
            columns: parquet.columns,
            has_page_index: parquet.has_page_index,
            index_bytes: parquet.index_bytes,
        };
        Self {
            url: file.url,
            size_bytes: file.size_bytes,
            version: file.version,
            modified_us: file.modified_us,
            is_prefix: file.is_prefix,
            parquet: file.parquet.map(parquet),
        }
    }
}
