//! Layer 3: the lookup, from a path and keys to rows.
//!
//! Knows the way: path, candidates, indexes, pruning, search, one answer. It must not know the wire, nor where bytes
//! are. A file is answered from one content version; if it changes in the middle it is asked once more on the new
//! version.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use alcedo_cache::{CacheDir, Metadata};
use alcedo_lookup::answer::{Body, FileAnswer, KeyStatus};
use alcedo_lookup::limits::Limits;
use alcedo_lookup::machine::drive;
use alcedo_lookup::search::{Query, Search};
use alcedo_origin::{Mounts, Place};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;

use crate::config::{Config, LookupConfig};
use crate::cost::{Cost, Stage};
use crate::error::Error;
use crate::indexes::{Indexes, Known, OpenFile};
use crate::listings::{Listings, TableFiles};
use crate::merge::{FileRows, merge};
use crate::metrics::Metrics;
use crate::reader::{Bytestore, FileVersion, Reader};
use crate::records::{Records, WallClock};
use crate::worker::StartError;

/// Files of one lookup that are opened at once: all of a usual prefix, and few enough that one lookup of a large one
/// does not take every turn at the origin.
const OPENS_AT_ONCE: usize = 64;
/// Files of one lookup that are asked at once.
const ASKS_AT_ONCE: usize = 64;
/// Keys that are compared with files' bounds before others on this thread get their turn: about 1 ms.
const COMPARED_AT_ONCE: usize = 4_096;
/// Notes of one trace.
const MAX_NOTES: usize = 256;

/// One question.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// A file or a prefix, as the caller wrote it.
    pub path: String,
    /// What is asked of each file.
    pub query: Arc<Query>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The files that hold rows, in listing order; a file that the path names is there also without any.
    pub files: Vec<FileRows>,
    /// Per key.
    pub statuses: Vec<KeyStatus>,
    /// Files below the path.
    pub files_total: usize,
    /// Files that were asked after pruning.
    pub files_asked: usize,
    /// Decisions in words; empty unless the request is traced.
    pub notes: Vec<String>,
}

/// A file that may hold rows.
struct Candidate {
    place: Place,
    listed: Option<Known>,
    /// Opened already: that it could be opened shows that the path names a file.
    opened: Option<OpenFile>,
}

/// Rows and bytes of one answer so far, over all of its files.
#[derive(Default)]
struct Tally {
    rows: AtomicUsize,
    bytes: AtomicUsize,
}

/// A version that is worked on. What a panic may have left half done in its index is dropped with it.
struct Suspect<'s> {
    indexes: &'s Indexes,
    version: &'s FileVersion,
}

impl Drop for Suspect<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.indexes.drop_index(self.version);
        }
    }
}

/// The lookups of one worker.
#[derive(Debug)]
pub struct Lookups {
    mounts: Mounts,
    store: Arc<Bytestore>,
    metadata: Option<Arc<Metadata>>,
    indexes: Indexes,
    listings: Listings,
    config: LookupConfig,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
}

impl Lookups {
    /// Caches over these mounts: what the cache directory holds, and else empty ones.
    ///
    /// # Errors
    /// The cache directory cannot be used.
    pub fn new(config: &Config, mounts: Mounts, metrics: &Arc<Metrics>) -> Result<Self, StartError> {
        let (cache, lookup) = (&config.cache, &config.lookup);
        let limits = Arc::new(lookup.limits());
        let gap_bytes = lookup.coalesce_gap_bytes;
        let dir = cache.dir.as_ref().map(|dir| CacheDir::open(dir, &config.worker_id)).transpose()?;
        let store = Arc::new(match &dir {
            Some(dir) => Bytestore::on_disk(dir, cache.disk_bytes, gap_bytes)?,
            None => Bytestore::in_memory(cache.pages_bytes, gap_bytes),
        });
        let metadata = dir.as_ref().map(Metadata::open).transpose()?.map(Arc::new);
        let records = Records::new(metadata.clone(), WallClock::new(SystemTime::now));
        let (bytes, metrics_of) = (cache.index_bytes, Arc::clone(metrics));
        let (tail_bytes, rules) = (lookup.tail_bytes, (Arc::clone(&limits), lookup.broken_ttl));
        let indexes = Indexes::new(Arc::clone(&store), records.clone(), bytes, tail_bytes, rules, metrics_of);
        let listings = Listings::new(cache.listings_bytes, lookup.max_files, records, metrics);
        let (config, metrics) = (lookup.clone(), Arc::clone(metrics));
        Ok(Self { mounts, store, metadata, indexes, listings, config, limits, metrics })
    }

    /// The mounts.
    pub fn mounts(&self) -> &Mounts {
        &self.mounts
    }

    /// The bytes in memory or on disk.
    pub fn store(&self) -> &Arc<Bytestore> {
        &self.store
    }

    /// What is kept on disk of what was learned about files; none where there is no cache directory.
    pub fn metadata(&self) -> Option<&Arc<Metadata>> {
        self.metadata.as_ref()
    }

    /// The file indexes.
    pub fn indexes(&self) -> &Indexes {
        &self.indexes
    }

    /// The place that a path names.
    ///
    /// # Errors
    /// The path is too long, breaks a rule, or names no mount.
    pub fn resolve(&self, path: &str) -> Result<Place, Error> {
        if path.len() > self.config.max_path_bytes {
            let why = format!("longer than {} bytes (lookup.max_path_bytes)", self.config.max_path_bytes);
            let path = format!("a path of {} bytes", path.len());
            return Err(alcedo_origin::Error::BadPath { path, why }.into());
        }
        Ok(self.mounts.resolve(path)?)
    }

    /// The rows that have the keys.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn answer(&self, lookup: &Lookup, cost: &Arc<Cost>) -> Result<Answer, Error> {
        match lookup.query.keys.len() {
            0 => return Err(Error::BadRequest("no keys: a lookup has at least one".to_owned())),
            keys if keys > self.config.max_keys => {
                return Err(Error::TooManyKeys { keys, limit: self.config.max_keys });
            }
            _ => {}
        }
        let place = self.resolve(&lookup.path)?;
        match self.attempt(&place, &lookup.query, cost).await {
            // A listed file is gone: what replaced it is in a new listing only, and its rows must not be missed.
            Err(error) if is_listed_and_gone(&error, &place) => {
                self.listings.forget(&place);
                self.attempt(&place, &lookup.query, cost).await.map_err(|error| {
                    match is_listed_and_gone(&error, &place) {
                        true => Error::VersionChanged { url: place.url },
                        false => error,
                    }
                })
            }
            answer => answer,
        }
    }

    async fn attempt(&self, place: &Place, query: &Arc<Query>, cost: &Arc<Cost>) -> Result<Answer, Error> {
        let candidates = self.candidates(place, cost).await?;
        let files_total = candidates.len();
        // Of a file that is named it is told also which version has no such row.
        let is_named = matches!(candidates.as_slice(), [Candidate { listed: None, .. }]);
        let opened = self.opened(candidates, cost).await?;
        let mut asked = Vec::with_capacity(opened.len());
        let (mut files_asked, mut compared) = (0, 0);
        for (candidate, file) in opened {
            compared += query.keys.len();
            if compared > COMPARED_AT_ONCE {
                compared = 0;
                tokio::task::yield_now().await;
            }
            let may_hold = file.index.may_hold(query).map_err(|error| Error::file(&candidate.place.url, error))?;
            files_asked += usize::from(may_hold);
            if may_hold || is_named {
                asked.push((candidate, file));
            }
        }
        let limit = self.config.max_candidates;
        if files_asked > limit {
            let url = Arc::clone(&place.url);
            return Err(Error::TooManyCandidates { url, candidates: files_asked, files: files_total, limit });
        }
        let tally = Tally::default();
        let asking = asked.into_iter().map(|(candidate, file)| self.ask(candidate, file, query, cost, &tally));
        let answers: Vec<FileRows> = stream::iter(asking).buffered(ASKS_AT_ONCE).try_collect().await?;
        let notes = if cost.is_traced() { notes(files_total, files_asked, &answers) } else { Vec::new() };
        #[cfg(test)]
        crate::panics::here(&place.url, "merge", false);
        let bug = |_| Error::Bug { subject: place.url.to_string(), what: "an answer's rows are damaged" };
        let (files, statuses) = merge(answers, query.keys.len(), query.row_limit, is_named).map_err(bug)?;
        Ok(Answer { files, statuses, files_total, files_asked, notes })
    }

    /// The files that a place stands for: itself, or those below it. What ends in a slash is a prefix, and so is what
    /// is no file but has files below it.
    async fn candidates(&self, place: &Place, cost: &Arc<Cost>) -> Result<Vec<Candidate>, Error> {
        let is_prefix = place.ends_with_slash || place.key.is_root() || self.listings.instead_of_file(place);
        // A worker that was started again may have forgotten whether this is a file or a prefix; its disk knows.
        if is_prefix || (!self.indexes.is_known(place) && self.listings.instead_of_unknown_file(place).await) {
            let files = self.listings.below(place, cost).await?;
            return self.listed(place, &files);
        }
        let asked = Instant::now();
        match self.indexes.open(place, None, cost).await {
            Err(error) if error.is_not_found() => {
                let files = self.listings.below(place, cost).await?;
                if files.files.is_empty() && !files.too_many {
                    return Err(error);
                }
                self.listings.no_file_at(place, asked);
                self.listed(place, &files)
            }
            Err(error) => Err(error),
            Ok(file) => Ok(vec![Candidate { place: place.clone(), listed: None, opened: Some(file) }]),
        }
    }

    fn listed(&self, place: &Place, files: &TableFiles) -> Result<Vec<Candidate>, Error> {
        let url = || Arc::clone(&place.url);
        if files.too_many {
            return Err(Error::TooManyFiles { url: url(), limit: self.config.max_files });
        }
        if files.files.is_empty() {
            return Err(Error::EmptyPrefix { url: url() });
        }
        let candidate = |file: &crate::listings::ListedFile| Candidate {
            place: file.place.clone(),
            listed: Some(file.known.clone()),
            opened: None,
        };
        Ok(files.files.iter().map(candidate).collect())
    }

    /// All candidates with their indexes, opened at once.
    async fn opened(&self, candidates: Vec<Candidate>, cost: &Arc<Cost>) -> Result<Vec<(Candidate, OpenFile)>, Error> {
        let open = |mut candidate: Candidate| async move {
            let file = match candidate.opened.take() {
                Some(file) => file,
                None => self.indexes.open(&candidate.place, candidate.listed.as_ref(), cost).await?,
            };
            Ok((candidate, file))
        };
        stream::iter(candidates).map(open).buffered(OPENS_AT_ONCE).try_collect().await
    }

    /// Asks one file: once more where it changed, and once more with bytes from the origin where those that are here
    /// came to an error.
    async fn ask(
        &self,
        candidate: Candidate,
        mut file: OpenFile,
        query: &Arc<Query>,
        cost: &Arc<Cost>,
        tally: &Tally,
    ) -> Result<FileRows, Error> {
        let (place, indexes) = (&candidate.place, &self.indexes);
        let (mut has_changed, mut is_reopened) = (false, false);
        let answer = loop {
            match self.search(place, &file, query, cost).await {
                Err(error) if error.is_changed() && !has_changed => {
                    has_changed = true;
                    indexes.forget(&file.version);
                    file = indexes.open(place, None, cost).await?;
                }
                Err(error) if error.is_changed() => {
                    return Err(Error::VersionChanged { url: Arc::clone(&place.url) });
                }
                // Bytes may have been damaged on their way, or be damaged here. What the origin's own come to is
                // remembered, so that a broken file is not fetched again by everybody who asks it.
                Err(error)
                    if error.is_about_the_file() && !is_reopened && !indexes.is_incurable(&file.version, &error) =>
                {
                    is_reopened = true;
                    file = indexes.reopen(place, &file, cost).await?;
                }
                answer => {
                    if is_reopened && answer.as_ref().err().is_none_or(Error::is_about_the_file) {
                        indexes.was_reopened(&file.version, answer.as_ref().err());
                    }
                    break answer?;
                }
            }
        };
        indexes.settle(&file);
        self.check_size(&answer, tally, &place.url)?;
        Ok(FileRows { version: file.version, answer })
    }

    async fn search(
        &self,
        place: &Place,
        file: &OpenFile,
        query: &Arc<Query>,
        cost: &Arc<Cost>,
    ) -> Result<FileAnswer, Error> {
        let _suspect = Suspect { indexes: &self.indexes, version: &file.version };
        let began = Instant::now();
        let search = Search::new(Arc::clone(&file.index), Arc::clone(query), Arc::clone(&self.limits));
        let search = search.map_err(|error| Error::file(&place.url, error))?;
        let reader = Reader::of_version(&self.store, place, file.version.clone(), cost);
        let answer = drive(search, &reader).await.map_err(|error| error.about(&place.url));
        let answer = answer.inspect_err(|error| self.metrics.count_panic(error))?;
        if cost.is_traced() {
            let (name, file, ended) = ("search", Some(Arc::clone(&place.url)), Instant::now());
            cost.add(Stage { name, file, began, ended, bytes: 0, origin_gets: 0, origin_bytes: 0 });
        }
        Ok(answer)
    }

    /// Each file keeps the bounds of an answer by itself; here all files together do.
    fn check_size(&self, answer: &FileAnswer, tally: &Tally, url: &Arc<str>) -> Result<(), Error> {
        let rows = answer.row_number.len();
        let bytes = match &answer.body {
            Body::Compact(bytes) | Body::ArrowIpc(bytes) => bytes.len(),
            Body::Pages(pages) => {
                let chunks = pages.columns.iter().flat_map(|column| &column.chunks);
                let page_bytes = |chunk: &alcedo_lookup::answer::PagesChunk| {
                    chunk.dictionary.len() + chunk.data_pages.iter().map(|page| page.page.len()).sum::<usize>()
                };
                chunks.map(page_bytes).sum()
            }
        };
        let too_large = |limit, unit| Err(Error::AnswerTooLarge { url: Arc::clone(url), limit, unit });
        if tally.rows.fetch_add(rows, Ordering::Relaxed) + rows > self.limits.answer_rows {
            return too_large(self.limits.answer_rows, "rows");
        }
        if tally.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > self.limits.answer_bytes {
            return too_large(self.limits.answer_bytes, "bytes of rows");
        }
        Ok(())
    }
}

fn is_listed_and_gone(error: &Error, asked: &Place) -> bool {
    matches!(error, Error::Origin(alcedo_origin::Error::NotFound { url }) if *url != asked.url)
}

fn notes(files_total: usize, files_asked: usize, answers: &[FileRows]) -> Vec<String> {
    let pruned = files_total - files_asked;
    let first = format!("{files_total} files, {pruned} pruned by key bounds, {files_asked} asked");
    let of_files = answers
        .iter()
        .flat_map(|file| file.answer.notes.iter().map(|note| format!("{}: {note}", file.version.stat.url)));
    std::iter::once(first).chain(of_files).take(MAX_NOTES).collect()
}
