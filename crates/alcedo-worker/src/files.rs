//! Layer 3: files as bytes and names: stat, list, read, and what of them is held here.
//!
//! Knows versions, ranges and chunks. It must not know the wire. Reads go the same way as a lookup's: page store,
//! flight map, origin, one content version per call.

use std::ops::Range;
use std::sync::Arc;

use alcedo_origin::{ErrorKind, Listed, Listing, Place};
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

/// Files whose pages are looked for before others on this thread get their turn: it takes some 10 us for each where
/// pages are in memory.
const VISITED_AT_ONCE: usize = 16;

/// What a stat says.
#[derive(Debug, Clone)]
pub struct FileFacts {
    /// The file.
    pub version: FileVersion,
    /// Its index, once it has been opened.
    pub opened: Option<OpenFile>,
}

/// What is held of one file in its current version.
#[derive(Debug, Clone)]
pub struct Holding {
    /// The file.
    pub version: FileVersion,
    /// Bytes of it in the page store.
    pub cached_bytes: u64,
    /// Whether its index is held.
    pub indexed: bool,
}

/// What is held of a file, or of the files below a prefix.
#[derive(Debug, Clone)]
pub struct Holdings {
    /// Per file, in the origin's order; files of which nothing is held too.
    pub files: Vec<Holding>,
    /// More files lie below the prefix than its mount lists.
    pub truncated: bool,
}

/// What was dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freed {
    /// Files of which anything was held.
    pub files: u64,
    /// Bytes of their pages and derived objects.
    pub bytes: u64,
    /// Files of which something is pinned, which stays.
    pub pinned_files: u64,
    /// Bytes of that.
    pub pinned_bytes: u64,
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
        self.listing(&place, recursive, limit, deadline).await
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

    /// What is held of a file or of the files below a prefix. Of the origin only the version or the listing is asked.
    ///
    /// # Errors
    /// The path's and the origin's.
    pub async fn check(&self, path: &str, deadline: Deadline, cost: &Cost) -> Result<Holdings, Error> {
        let place = self.lookups.resolve(path)?;
        if !place.ends_with_slash && !place.key.is_root() {
            match self.lookups.indexes().version(&place, cost).await {
                Ok(version) => return Ok(Holdings { files: vec![self.holding(version).await], truncated: false }),
                Err(error) if !error.is_not_found() => return Err(error),
                // No file: what lies below it, if anything does.
                Err(error) => {
                    let holdings = self.check_below(&place, deadline).await?;
                    return if holdings.files.is_empty() { Err(error) } else { Ok(holdings) };
                }
            }
        }
        self.check_below(&place, deadline).await
    }

    async fn check_below(&self, place: &Place, deadline: Deadline) -> Result<Holdings, Error> {
        let listing = self.listing(place, true, usize::MAX, deadline).await?;
        let mut files = Vec::new();
        for (number, entry) in listing.entries.into_iter().enumerate() {
            if let Listed::File(stat) = entry {
                files.push(self.holding(FileVersion::new(stat)).await);
            }
            if number % VISITED_AT_ONCE == VISITED_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
        }
        Ok(Holdings { files, truncated: listing.truncated })
    }

    async fn holding(&self, version: FileVersion) -> Holding {
        let cached_bytes = self.lookups.store().pages().held_bytes(&version.key);
        let indexed = self.lookups.indexes().is_held(&version).await;
        Holding { cached_bytes, indexed, version }
    }

    /// Drops what is held of a file, or of the files that lie below a prefix at the origin, in every content version.
    /// For a file of which anything is held the origin is not asked. What is pinned stays, with the file's index.
    ///
    /// # Errors
    /// The path's; the origin's, where only its listing says what lies below.
    pub async fn free(&self, path: &str, deadline: Deadline) -> Result<Freed, Error> {
        let place = self.lookups.resolve(path)?;
        let mut freed = Freed::default();
        if !place.ends_with_slash && !place.key.is_root() {
            self.drop_file(&place.url, &mut freed).await;
            if freed.files + freed.pinned_files > 0 {
                return Ok(freed);
            }
        }
        let listing = self.listing(&place, true, usize::MAX, deadline).await?;
        for (number, entry) in listing.entries.iter().enumerate() {
            if let Listed::File(stat) = entry {
                self.drop_file(&stat.url, &mut freed).await;
            }
            if number % VISITED_AT_ONCE == VISITED_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
        }
        Ok(freed)
    }

    async fn drop_file(&self, url: &str, freed: &mut Freed) {
        let derived_bytes = self.lookups.derived().forget_url(url);
        let bytes = self.lookups.store().pages().forget_url(url) + derived_bytes;
        // Without its index what is pinned of a file would be of no use until the origin was asked for it.
        let pinned = self.lookups.store().pinned().kept_bytes(url);
        let was_known = pinned.is_none() && self.lookups.indexes().drop_url(url).await;
        freed.pinned_files += u64::from(pinned.is_some());
        freed.pinned_bytes += pinned.unwrap_or_default();
        freed.files += u64::from(bytes > 0 || was_known);
        freed.bytes += bytes;
    }

    /// What lies below a prefix at the origin; nothing below one that does not exist, in a directory as in a bucket.
    async fn listing(
        &self,
        place: &Place,
        recursive: bool,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Listing, Error> {
        match place.mount.list(&place.key, recursive, limit, deadline.at).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Listing::default()),
            listing => Ok(listing?),
        }
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
