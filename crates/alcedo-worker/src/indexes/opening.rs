//! Layer 3: the task that opens one file.
//!
//! Knows the ways to an index: in memory, kept on disk, or made of the file's bytes, which are read twice before a file
//! is called broken. It must not know who waits for it, nor whether a version is the current one, but that it says what
//! it learned of that. It runs detached, once for all who ask at the same time.

use std::sync::Arc;

use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::limits::Limits;
use alcedo_lookup::machine::drive;
use alcedo_lookup::open::Open;
use alcedo_origin::{Freshness, Place};
use tokio::time::Instant;

use super::{Brought, Indexes, Known, OpenFile, Tables};
use crate::cost::Cost;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::prepared::Targets;
use crate::reader::{Bytestore, FileVersion, Reader};

/// The task that opens one file.
pub(super) struct Opening {
    store: Arc<Bytestore>,
    tables: Tables,
    place: Place,
    version: Option<FileVersion>,
    /// What a listing says of the file.
    listed: Option<Known>,
    /// The index of the version to be read anew, where there is one that is not to be trusted.
    pub(super) damaged: Option<Arc<FileIndex>>,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
}

impl Opening {
    pub(super) fn new(indexes: &Indexes, place: &Place, version: Option<FileVersion>, listed: Option<Known>) -> Self {
        Self {
            store: Arc::clone(&indexes.store),
            tables: indexes.tables.clone(),
            place: place.clone(),
            version,
            listed,
            damaged: None,
            limits: Arc::clone(&indexes.limits),
            metrics: Arc::clone(&indexes.metrics),
        }
    }

    pub(super) async fn run(self) -> Result<Brought, Error> {
        // Those who join may want a trace, whether or not the first does.
        let cost = Arc::new(Cost::new(true));
        if let Some(listed) = &self.listed {
            // Whoever names the file by itself next need not ask for its version.
            self.tables.learn(&listed.version, listed.checked);
        }
        let opened = match self.version.clone().or_else(|| self.just_learned()) {
            Some(version) => match self.open(Some(&version), &cost).await {
                // What was known is older than the file: whatever is there now is as good, to one who only named the
                // file.
                Err(error) if error.is_changed() => self.open(None, &cost).await,
                opened => opened,
            },
            None => self.open(None, &cost).await,
        };
        let opened = match opened {
            // Between the tail and the rest of the index the file was overwritten: once more, on the new version.
            Err(error) if error.is_changed() => self.open(None, &cost).await,
            opened => opened,
        };
        match opened {
            Ok(file) => Ok(Brought { version: file.version.clone(), file: Some(file), cost }),
            Err(error) => {
                if error.is_not_found() {
                    self.tables.forget(&self.place.url);
                    self.tables.absent.insert(Arc::clone(&self.place.url), error.clone());
                }
                Err(error)
            }
        }
    }

    /// The version that another task learned between the moment at which nothing was known and this one: whoever came
    /// just too late to join it need not read the tail again. A mount that is always asked is asked.
    fn just_learned(&self) -> Option<FileVersion> {
        let known = self.tables.current.get(&self.place.url)?;
        let is_believed = match self.place.mount.freshness() {
            Freshness::Immutable => true,
            Freshness::Ttl { soft, .. } => known.checked.elapsed() < soft,
            Freshness::Always => false,
        };
        is_believed.then_some(known.version)
    }

    async fn open(&self, version: Option<&FileVersion>, cost: &Arc<Cost>) -> Result<OpenFile, Error> {
        if let Some(version) = version
            && let Some(file) = self.held(version).await
        {
            return Ok(file);
        }
        let began = Instant::now();
        let (read, mut opened) = self.read(version, cost).await?;
        if version.is_none() {
            self.tables.learn(&read, began);
        }
        // Bytes may have been damaged on their way, or be damaged here: once more from the origin before the file is
        // called broken. One that is read anew comes from there already.
        if self.damaged.is_none() && opened.as_ref().is_err_and(Error::is_about_the_file) {
            self.store.forget(&read.key);
            opened = self.read(Some(&read), cost).await?.1;
            self.metrics.reread(opened.is_ok());
        }
        match opened {
            Ok(index) => {
                self.metrics.opens_total.up();
                self.tables.records.keep_index(&read, &index);
                Ok(self.opened(&read, index))
            }
            Err(error) => {
                if error.is_about_the_file() {
                    self.tables.damage.not_opened(&read.key, &error);
                }
                Err(error)
            }
        }
    }

    /// A version that is open already, in memory or on disk. One that is to be read anew is not, unless another task
    /// did that since; what is here of it is dropped.
    async fn held(&self, version: &FileVersion) -> Option<OpenFile> {
        let built = self.tables.built.get(&version.key);
        let Some(damaged) = &self.damaged else {
            if built.is_some() {
                return built;
            }
            let index = self.tables.records.index(version, &self.limits).await?;
            return Some(self.opened(version, index));
        };
        let newer = built.filter(|file| !Arc::ptr_eq(&file.index, damaged));
        if newer.is_none() {
            self.tables.drop_built(&version.key);
            self.tables.records.drop_index(&version.stat.url);
            self.store.forget(&version.key);
        }
        newer
    }

    /// Reads a version, or whichever there is, and says which it is; the index is that version's.
    async fn read(
        &self,
        version: Option<&FileVersion>,
        cost: &Arc<Cost>,
    ) -> Result<(FileVersion, Result<Arc<FileIndex>, Error>), Error> {
        let reader = match version {
            Some(version) => Reader::of_version(&self.store, &self.place, version.clone(), cost),
            None => Reader::of_unknown(&self.store, &self.place, cost),
        };
        let (tails, mount) = (self.store.tails(), &self.place.mount);
        let tail_bytes = tails.bytes(mount);
        let pinned = |of: &FileVersion| self.store.pinned().tail_bytes(&of.key, of.stat.size, tail_bytes);
        let tail_bytes = version.and_then(pinned).unwrap_or(tail_bytes);
        let opened = drive(Open::new(tail_bytes, Arc::clone(&self.limits)), &reader).await;
        let opened = opened.map_err(|error| error.about(&self.place.url));
        let opened = opened.inspect_err(|error| self.metrics.count_panic(error));
        let opened = opened.inspect(|index| tails.footer_took(mount, index.footer_bytes()));
        match reader.version() {
            Some(version) => Ok((version.clone(), opened)),
            None => Err(opened.err().unwrap_or_else(|| Error::Bug {
                subject: self.place.url.to_string(),
                what: "a file was opened without a read",
            })),
        }
    }

    fn opened(&self, version: &FileVersion, index: Arc<FileIndex>) -> OpenFile {
        let file = OpenFile {
            version: version.clone(),
            weight: index.weight(),
            index,
            kept: None,
            targets: Arc::new(Targets::new(self.tables.decoded.clone())),
        };
        self.tables.built.insert(version.key.clone(), file.clone());
        file
    }
}
