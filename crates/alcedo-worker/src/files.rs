//! Layer 3: files as bytes and names: stat, list, read.
//!
//! Knows versions, ranges and chunks. It must not know the wire. Reads go the same way as a lookup's: page store,
//! flight map, origin, one content version per call.

use std::ops::Range;
use std::sync::Arc;

use alcedo_origin::{Listing, Place};
use bytes::Bytes;

use crate::admission::Deadline;
use crate::cost::Cost;
use crate::error::Error;
use crate::indexes::OpenFile;
use crate::lookups::Lookups;
use crate::reader::{FileVersion, Reader};

/// Bytes of one message of a read: the wire contract's bound.
pub const CHUNK_BYTES: u64 = 256 << 10;
/// Bytes that a read asks the origin for at once: at 30 ms a trip, four times as fast as chunk by chunk.
const FETCH_BYTES: u64 = 1 << 20;

/// What a stat says.
#[derive(Debug, Clone)]
pub struct FileFacts {
    /// The file.
    pub version: FileVersion,
    /// Its index, once it has been opened.
    pub opened: Option<OpenFile>,
}

/// The file services of one worker.
#[derive(Debug, Clone)]
pub struct Files {
    lookups: Arc<Lookups>,
}

/// A read under way.
#[derive(Debug)]
pub struct Reading {
    reader: Reader,
    version: FileVersion,
    rest: Range<u64>,
    fetched: Bytes,
}

impl Files {
    /// Files below the same mounts and in the same caches as lookups.
    pub fn new(lookups: Arc<Lookups>) -> Self {
        Self { lookups }
    }

    /// What is known of a file, by its mount's freshness.
    ///
    /// # Errors
    /// The path's and the origin's.
    pub async fn stat(&self, path: &str, cost: &Cost) -> Result<FileFacts, Error> {
        let place = self.lookups.resolve(path)?;
        let version = self.lookups.indexes().version(&place, cost).await?;
        let opened = self.lookups.indexes().get(&version);
        Ok(FileFacts { version, opened })
    }

    /// What lies below a prefix now, at most `limit` entries; 0: as many as the mount allows.
    ///
    /// # Errors
    /// The path's and the origin's.
    pub async fn list(&self, path: &str, recursive: bool, limit: u64, deadline: Deadline) -> Result<Listing, Error> {
        let place = self.lookups.resolve(path)?;
        let limit = if limit == 0 { usize::MAX } else { usize::try_from(limit).unwrap_or(usize::MAX) };
        Ok(place.mount.list(&place.key, recursive, limit, deadline.at).await?)
    }

    /// The index of a listed file, if it has been opened.
    pub fn opened(&self, version: &FileVersion) -> Option<OpenFile> {
        self.lookups.indexes().get(version)
    }

    /// Begins to read a range: `length` bytes from `offset`, or to the end if it is 0 or reaches beyond it. `pinned`
    /// names the only version that will do; empty means the current one. The first bytes are read here, so that a
    /// version that turns out to be old is noticed while the read can still begin anew.
    ///
    /// # Errors
    /// The path's and the origin's; [`Error::VersionGone`] if a named version is not the current one.
    pub async fn read(
        &self,
        path: &str,
        offset: u64,
        length: u64,
        pinned: &str,
        cost: &Arc<Cost>,
    ) -> Result<Reading, Error> {
        let place = self.lookups.resolve(path)?;
        let indexes = self.lookups.indexes();
        let mut version = indexes.version(&place, cost).await?;
        if !pinned.is_empty() && version.key.version() != pinned {
            // What is believed may be older than what the caller knows.
            version = indexes.revalidated(&place, cost).await?;
        }
        let mut reading = self.begin(&place, version, offset, length, pinned, cost)?;
        match reading.fill().await {
            Err(error) if error.is_changed() => {
                indexes.forget(&reading.version);
                let version = indexes.revalidated(&place, cost).await?;
                reading = self.begin(&place, version, offset, length, pinned, cost)?;
                reading.fill().await?;
            }
            filled => filled?,
        }
        Ok(reading)
    }

    fn begin(
        &self,
        place: &Place,
        version: FileVersion,
        offset: u64,
        length: u64,
        pinned: &str,
        cost: &Arc<Cost>,
    ) -> Result<Reading, Error> {
        let (url, size) = (Arc::clone(&version.stat.url), version.stat.size);
        if !pinned.is_empty() && version.key.version() != pinned {
            return Err(Error::VersionGone { url, wanted: pinned.to_owned(), found: version.key.version().to_owned() });
        }
        if offset > size {
            return Err(alcedo_origin::Error::BadRange {
                url,
                start: offset,
                end: offset.saturating_add(length),
                size,
            }
            .into());
        }
        let end = if length == 0 { size } else { offset.saturating_add(length).min(size) };
        let reader = Reader::of_version(self.lookups.store(), place, version.clone(), cost);
        Ok(Reading { reader, version, rest: offset..end, fetched: Bytes::new() })
    }
}

impl Reading {
    /// The version that is read.
    pub fn version(&self) -> &FileVersion {
        &self.version
    }

    /// The next bytes, at most [`CHUNK_BYTES`]; none at the end.
    ///
    /// # Errors
    /// The origin's; [`Error::VersionChanged`] if the file changed in the middle.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.fetched.is_empty() {
            let filled = self.fill().await;
            filled.map_err(|error| match error.is_changed() {
                true => Error::VersionChanged { url: Arc::clone(&self.version.stat.url) },
                false => error,
            })?;
        }
        let length = self.fetched.len().min(CHUNK_BYTES as usize);
        Ok((length > 0).then(|| self.fetched.split_to(length)))
    }

    async fn fill(&mut self) -> Result<(), Error> {
        let end = self.rest.end.min(self.rest.start.saturating_add(FETCH_BYTES));
        if self.rest.start < end {
            let mut parts = self.reader.read_ranges("read", std::slice::from_ref(&(self.rest.start..end))).await?;
            self.fetched = parts.pop().unwrap_or_default();
            self.rest.start = end;
        }
        Ok(())
    }
}
