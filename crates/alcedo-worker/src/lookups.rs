//! Layer 3: the lookup, from a path and keys to rows.
//!
//! Knows the way: path, candidates, indexes, pruning, search, one answer. It must not know the wire, nor where bytes
//! are. A file is answered from one content version; if it changes in the middle it is asked once more on the new
//! version. What can be answered without waiting is in `at_once`.

mod at_once;
mod by_objects;
mod one_file;
mod tally;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use alcedo_cache::{CacheDir, Metadata};
use alcedo_lookup::answer::{Body, Form, KeyStatus};
use alcedo_lookup::decoded::DecodedPages;
use alcedo_lookup::key::Key;
use alcedo_lookup::limits::Limits;
use alcedo_origin::{Mounts, Place};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;

use crate::config::{Config, LookupConfig};
use crate::cost::Cost;
use crate::decoded_budget::DecodedBudget;
use crate::derived::Derived;
use crate::error::Error;
use crate::heat::Heat;
use crate::hot_rows::HotRows;
use crate::indexes::{Indexes, Known, OpenFile};
use crate::listings::{ListedFile, Listings, TableFiles};
use crate::merge::{FileRows, merge};
use crate::metrics::Metrics;
use crate::prepared::{Ask, Asked, FileTarget, Questions, Target};
use crate::reader::{Bytestore, FileVersion, ReadSizes};
use crate::records::{Records, WallClock};
use crate::shortage;
use crate::worker::StartError;
pub use at_once::{Answered, AtOnce, FileAtOnce};
pub(crate) use by_objects::Serving;
use tally::Tally;

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
    /// What is asked, and of which files.
    pub asked: Arc<Asked>,
    /// For these.
    pub keys: Vec<Key>,
    /// Bytes of data pages that may take the place of compact rows, where that saves time here; 0: none.
    pub sent_pages_bytes: u64,
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

/// The files that a path stands for, and the listing that names them; none where the path names the file.
type Candidates = (Vec<Candidate>, Option<Arc<[ListedFile]>>);

/// A file that is asked.
struct Chosen {
    place: Place,
    file: OpenFile,
    target: Arc<FileTarget>,
    /// Its part of [`Lookup::sent_pages_bytes`].
    sent_pages_bytes: u64,
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
    questions: Questions,
    hot: HotRows,
    decoded: Arc<DecodedPages>,
    budget: DecodedBudget,
    derived: Arc<Derived>,
    heat: Heat,
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
        let sizes = ReadSizes { gap_bytes: lookup.coalesce_gap_bytes, tail_bytes: lookup.tail_bytes };
        let dir = cache.dir.as_ref().map(|dir| CacheDir::open(dir, &config.worker_id)).transpose()?;
        let store = match &dir {
            Some(dir) => Bytestore::on_disk(dir, cache.disk_bytes, sizes)?,
            None => Bytestore::in_memory(cache.pages_bytes, sizes),
        };
        let (derived, heat) = (Arc::new(Derived::open(dir.as_ref(), cache)?), Heat::default());
        let store = Arc::new(store.with_pinned(derived.pinned().clone()));
        let metadata = dir.as_ref().map(Metadata::open).transpose()?.map(Arc::new);
        let records = Records::new(metadata.clone(), WallClock::new(SystemTime::now));
        let (bytes, metrics_of) = (cache.index_bytes, Arc::clone(metrics));
        let rules = (Arc::clone(&limits), lookup.broken_ttl);
        let budget = DecodedBudget::new(cache.decoded_bytes);
        let (row_bytes, page_bytes) = budget.parts();
        let decoded = Arc::new(DecodedPages::new(page_bytes));
        let indexes = Indexes::new(Arc::clone(&store), records.clone(), bytes, rules, metrics_of);
        let indexes = indexes.with_decoded(&decoded);
        let listings = Listings::new(cache.listings_bytes, lookup.max_files, records, metrics);
        let hot = HotRows::new(row_bytes, Arc::clone(metrics));
        let (config, metrics, questions) = (lookup.clone(), Arc::clone(metrics), Questions::new());
        Ok(Self {
            mounts,
            store,
            metadata,
            indexes,
            listings,
            questions,
            hot,
            decoded,
            budget,
            derived,
            heat,
            config,
            limits,
            metrics,
        })
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

    /// What lies below prefixes.
    pub(crate) fn listings(&self) -> &Listings {
        &self.listings
    }

    /// The derived objects.
    pub fn derived(&self) -> &Arc<Derived> {
        &self.derived
    }

    /// What went down to compressed data pages.
    pub fn heat(&self) -> &Heat {
        &self.heat
    }

    /// The bounds within which files are read.
    pub(crate) fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// The rows that are kept as they are sent.
    pub fn hot_rows(&self) -> &HotRows {
        &self.hot
    }

    /// The data pages that are kept decoded.
    pub fn decoded_pages(&self) -> &DecodedPages {
        &self.decoded
    }

    /// Divides the memory for decoded things anew, by what it saved lately. To be called now and then.
    pub(crate) fn divide_decoded(&self) {
        self.budget.look(&self.hot, &self.decoded, &self.metrics);
    }

    /// Lets the caches in memory have so much of what they are configured to have, in percent. What is too much leaves:
    /// it is found again on disk or at the origin.
    pub(crate) fn set_room(&self, percent: u64) {
        self.budget.set_room(percent, &self.hot, &self.decoded);
        self.derived.set_heads_room(percent);
        self.indexes.shrink_to(percent);
    }

    /// Most keys of one lookup.
    pub fn max_keys(&self) -> usize {
        self.config.max_keys
    }

    /// Bytes of data pages that this thread would now send in place of one lookup's rows, to who takes them.
    pub(crate) fn sent_pages_bytes(&self) -> u64 {
        let is_short = self.config.pages_wait.is_zero() || shortage::is_short();
        if is_short { self.config.pages_bytes.min(self.config.answer_bytes as u64) } else { 0 }
    }

    /// The wait of lookups that makes a thread short of CPU.
    pub(crate) fn pages_wait(&self) -> Duration {
        self.config.pages_wait
    }

    /// All of a question but its keys, with what its path names.
    ///
    /// # Errors
    /// The path is too long, breaks a rule, or names no mount.
    pub fn asked(&self, ask: Ask) -> Result<Arc<Asked>, Error> {
        self.questions.of(ask, |path| self.resolve(path))
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
        let Lookup { asked, keys, .. } = lookup;
        match keys.len() {
            0 => return Err(Error::BadRequest("no keys: a lookup has at least one".to_owned())),
            keys if keys > self.config.max_keys => {
                return Err(Error::TooManyKeys { keys, limit: self.config.max_keys });
            }
            _ => {}
        }
        let place = &asked.place;
        match self.attempt(lookup, cost).await {
            // A listed file is gone: what replaced it is in a new listing only, and its rows must not be missed.
            Err(error) if is_listed_and_gone(&error, place) => {
                self.listings.forget(place);
                self.attempt(lookup, cost).await.map_err(|error| match is_listed_and_gone(&error, place) {
                    true => Error::VersionChanged { url: Arc::clone(&place.url) },
                    false => error,
                })
            }
            answer => answer,
        }
    }

    async fn attempt(&self, lookup: &Lookup, cost: &Arc<Cost>) -> Result<Answer, Error> {
        let Lookup { asked, keys, sent_pages_bytes } = lookup;
        let (place, changes) = (&asked.place, self.indexes.changes());
        let (candidates, listing) = self.candidates(place, cost).await?;
        let files_total = candidates.len();
        // Of a file that is named it is told also which version has no such row.
        let is_named = listing.is_none();
        let opened = self.opened(candidates, cost).await?;
        let (mut chosen, mut targets) = (Vec::with_capacity(opened.len()), Vec::new());
        let (mut files_asked, mut compared) = (0, 0);
        for (Candidate { place, .. }, file) in opened {
            compared += keys.len();
            if compared > COMPARED_AT_ONCE {
                compared = 0;
                tokio::task::yield_now().await;
            }
            let target = file.target(asked, &place, &self.limits)?;
            let may_hold = target.prepared.may_hold(keys).map_err(|error| Error::file(&place.url, error))?;
            files_asked += usize::from(may_hold);
            targets.push(Arc::downgrade(&target));
            if may_hold || is_named {
                chosen.push(Chosen { place, file, target, sent_pages_bytes: 0 });
            }
        }
        self.remember(asked, Target { files: targets.into(), listing, changes, valid_until: cost.began() });
        let limit = self.config.max_candidates;
        if files_asked > limit {
            let url = Arc::clone(&place.url);
            return Err(Error::TooManyCandidates { url, candidates: files_asked, files: files_total, limit });
        }
        // However many files there are, no more is sent than of one.
        let share = sent_pages_bytes / chosen.len().max(1) as u64;
        chosen.iter_mut().for_each(|chosen| chosen.sent_pages_bytes = share);
        let tally = Tally::default();
        let asking = chosen.into_iter().map(|chosen| self.ask(chosen, asked, keys, cost, &tally));
        let answers: Vec<FileRows> = stream::iter(asking).buffered(ASKS_AT_ONCE).try_collect().await?;
        let notes = if cost.is_traced() { notes(files_total, files_asked, &answers) } else { Vec::new() };
        #[cfg(test)]
        crate::panics::here(&place.url, "merge", false);
        if asked.ask.form == Form::CompactRows && answers.iter().any(|file| matches!(file.answer.body, Body::Pages(_)))
        {
            self.metrics.sent_pages_total.up();
        }
        let bug = |_| Error::Bug { subject: place.url.to_string(), what: "an answer's rows are damaged" };
        let (files, statuses) = merge(answers, keys.len(), asked.ask.row_limit, is_named).map_err(bug)?;
        Ok(Answer { files, statuses, files_total, files_asked, notes })
    }

    /// The files that a place stands for: itself, or those below it. What ends in a slash is a prefix, and so is what
    /// is no file but has files below it.
    async fn candidates(&self, place: &Place, cost: &Arc<Cost>) -> Result<Candidates, Error> {
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
            Ok(file) => Ok((vec![Candidate { place: place.clone(), listed: None, opened: Some(file) }], None)),
        }
    }

    fn listed(&self, place: &Place, files: &TableFiles) -> Result<Candidates, Error> {
        let url = || Arc::clone(&place.url);
        if files.too_many {
            return Err(Error::TooManyFiles { url: url(), limit: self.config.max_files });
        }
        if files.files.is_empty() {
            return Err(Error::EmptyPrefix { url: url() });
        }
        let candidate =
            |file: &ListedFile| Candidate { place: file.place.clone(), listed: Some(file.known.clone()), opened: None };
        Ok((files.files.iter().map(candidate).collect(), Some(Arc::clone(&files.files))))
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
        chosen: Chosen,
        asked: &Asked,
        keys: &[Key],
        cost: &Arc<Cost>,
        tally: &Tally,
    ) -> Result<FileRows, Error> {
        let Chosen { place, mut file, mut target, mut sent_pages_bytes } = chosen;
        let (mut has_changed, mut is_reopened) = (false, false);
        let answer = loop {
            match self.search(&target, keys, cost, sent_pages_bytes).await {
                Err(error) if error.is_changed() && !has_changed => {
                    has_changed = true;
                    self.indexes.forget(&file.version);
                    file = self.indexes.open(&place, None, cost).await?;
                }
                Err(error) if error.is_changed() => {
                    return Err(Error::VersionChanged { url: Arc::clone(&place.url) });
                }
                // Bytes may have been damaged on their way, or be damaged here. What the origin's own come to is
                // remembered, so that a broken file is not fetched again by everybody who asks it.
                Err(error)
                    if error.is_about_the_file()
                        && !is_reopened
                        && !self.indexes.is_incurable(&file.version, &error) =>
                {
                    is_reopened = true;
                    // What is wrong is found out where the rows are decoded.
                    sent_pages_bytes = 0;
                    self.derived.forget_version(&file.version.key);
                    file = self.indexes.reopen(&place, &file, cost).await?;
                }
                answer => {
                    if is_reopened && answer.as_ref().err().is_none_or(Error::is_about_the_file) {
                        self.indexes.was_reopened(&file.version, answer.as_ref().err());
                    }
                    break answer?;
                }
            }
            target = file.target(asked, &place, &self.limits)?;
        };
        self.indexes.settle(&file);
        tally.add(&answer, asked.ask.form, &self.limits, &place.url)?;
        Ok(FileRows { version: file.version, answer })
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
