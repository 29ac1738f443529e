//! Layer 3: the file indexes that are in memory, and how a file comes to have one.
//!
//! Knows which version of a file is current and for how long that is believed, which versions have an index, and which
//! cannot be opened. It must not know what an index holds. A repeated lookup finds version and index here and asks the
//! origin nothing; 10,000 lookups of one cold file open it once. What is learned is kept on disk too, where there is
//! one, and what is not in memory is looked for there before the origin is asked.

mod believing;
mod learning;
mod opening;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alcedo_cache::FileKey;
use alcedo_lookup::decoded::DecodedPages;
use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::limits::Limits;
use alcedo_origin::{Freshness, Place};
use moka::sync::Cache;
use tokio::time::Instant;

use crate::cost::{Cost, Stage};
use crate::damage::Damage;
use crate::errands::Errands;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::prepared::Targets;
use crate::reader::{Bytestore, FileVersion};
use crate::records::Records;
pub(crate) use learning::{Learnings, Progress, Subject};
use opening::Opening;

/// How long it is believed that a file does not exist. One that is written is found after this time at the latest.
const ABSENT_TTL: Duration = Duration::from_secs(1);
/// Files of which that is remembered at once: a few hundred bytes each.
const MAX_ABSENT: u64 = 100_000;
/// Part of the index memory, as a divisor, that current versions may take beside it.
const CURRENT_SHARE: u64 = 8;
/// What an entry costs beside its texts: tables, queues and counters of the cache, and the stat.
const ENTRY_OVERHEAD_BYTES: usize = 384;
/// An index that has grown by more than one part in so many since it was weighed is weighed again.
const GROWTH_SHARE: u64 = 4;
/// An index that has grown by less is kept on disk again after this time: each time all of it is written.
const KEEP_PAUSE: Duration = Duration::from_secs(10);
/// Longest time of the HEAD that revalidates a version, whoever waits for it.
const REVALIDATE_TIMEOUT: Duration = Duration::from_secs(10);

/// Names of errands that are not about one version; versions never look like these.
const UNKNOWN_VERSION: &str = "";
const REVALIDATION: &str = "?";
/// Before the version, for the errand that reads it anew.
const REOPENING: char = '!';

/// What is known of a file, and since when.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its current version.
    pub version: FileVersion,
    /// When the origin last said so.
    pub checked: Instant,
}

/// An opened file.
#[derive(Debug, Clone)]
pub struct OpenFile {
    /// Its version.
    pub version: FileVersion,
    /// Its index.
    pub index: Arc<FileIndex>,
    /// What the index weighed when it was last put into the cache.
    weight: u64,
    /// When it was last kept on disk after it had grown.
    kept: Option<Instant>,
    /// What is resolved against it.
    targets: Arc<Targets>,
}

/// What a shared task brought.
#[derive(Debug, Clone)]
struct Brought {
    version: FileVersion,
    file: Option<OpenFile>,
    cost: Arc<Cost>,
}

/// All file indexes of one worker.
#[derive(Debug)]
pub struct Indexes {
    store: Arc<Bytestore>,
    tables: Tables,
    errands: Errands<FileKey, Brought>,
    recalls: Errands<Arc<str>, Option<Known>>,
    learnings: Arc<Learnings>,
    limits: Arc<Limits>,
    capacity_bytes: u64,
    metrics: Arc<Metrics>,
}

/// The caches; clones are the same caches, so that a detached task can fill them.
#[derive(Debug, Clone)]
struct Tables {
    built: Cache<FileKey, OpenFile>,
    absent: Cache<Arc<str>, Error>,
    damage: Damage,
    current: Cache<Arc<str>, Known>,
    records: Records,
    /// Counts what makes other answers than before: a file's version that is new here, and what was dropped.
    changes: Arc<AtomicU64>,
    /// Where decoded data pages are kept.
    decoded: Option<Arc<DecodedPages>>,
}

impl Indexes {
    /// No index in memory yet, and room for `capacity_bytes` of them. What is wrong with a version is believed for
    /// `broken_ttl`.
    pub(crate) fn new(
        store: Arc<Bytestore>,
        records: Records,
        capacity_bytes: u64,
        (limits, broken_ttl): (Arc<Limits>, Duration),
        metrics: Arc<Metrics>,
    ) -> Self {
        let built = Cache::builder().max_capacity(capacity_bytes).weigher(|key: &FileKey, file: &OpenFile| {
            let texts = key.url().len() + key.version().len() + ENTRY_OVERHEAD_BYTES;
            u32::try_from(file.weight.saturating_add(texts as u64)).unwrap_or(u32::MAX)
        });
        let current =
            Cache::builder().max_capacity(capacity_bytes / CURRENT_SHARE).weigher(|url: &Arc<str>, known: &Known| {
                u32::try_from(url.len() + known.version.key.version().len() + ENTRY_OVERHEAD_BYTES).unwrap_or(u32::MAX)
            });
        let absent = Cache::builder().max_capacity(MAX_ABSENT).time_to_live(ABSENT_TTL).build();
        let (built, current, damage) = (built.build(), current.build(), Damage::new(broken_ttl));
        let tables = Tables { built, absent, damage, current, records, changes: Arc::default(), decoded: None };
        let (errands, recalls) = (Errands::new(Arc::clone(&metrics)), Errands::new(Arc::clone(&metrics)));
        let learnings = Arc::new(Learnings::new(&store, &tables, &limits, &metrics));
        Self { store, tables, errands, recalls, learnings, limits, capacity_bytes, metrics }
    }

    /// What is being learned of files without a page index.
    pub(crate) fn learnings(&self) -> &Arc<Learnings> {
        &self.learnings
    }

    /// The same, with a place for data pages that are decoded on the way of lookups.
    pub(crate) fn with_decoded(mut self, decoded: &Arc<DecodedPages>) -> Self {
        self.tables.decoded = Some(Arc::clone(decoded));
        self
    }

    /// The file at a place, opened. `listed` is what a listing that is fresh enough says about it.
    ///
    /// # Errors
    /// The origin's, or those of the file's bytes.
    pub async fn open(&self, place: &Place, listed: Option<&Known>, cost: &Cost) -> Result<OpenFile, Error> {
        let version = match listed {
            // Whichever is newer: the listing, or what was learned about this one file since.
            Some(listed) => Some(self.newest(listed).version),
            None => self.believed(place, cost).await?,
        };
        let Some(version) = version else { return self.open_unknown(place, cost).await };
        if let Some(file) = self.tables.built.get(&version.key) {
            return Ok(file);
        }
        if let Some(error) = self.tables.damage.of_opening(&version.key) {
            return Err(error);
        }
        let opening = Opening::new(self, place, Some(version.clone()), listed.cloned());
        self.joined(self.errands.run(version.key, || opening.run()).await?, place, cost)
    }

    /// What is known of a listed file: what the listing says, or what was learned since.
    pub(crate) fn newest(&self, listed: &Known) -> Known {
        let learned = self.tables.current.get(&listed.version.stat.url);
        learned.filter(|known| known.checked > listed.checked).unwrap_or_else(|| listed.clone())
    }

    async fn open_unknown(&self, place: &Place, cost: &Cost) -> Result<OpenFile, Error> {
        if let Some(error) = self.tables.absent.get(&place.url) {
            return Err(error);
        }
        let (name, opening) =
            (FileKey::new(Arc::clone(&place.url), UNKNOWN_VERSION), Opening::new(self, place, None, None));
        self.joined(self.errands.run(name, || opening.run()).await?, place, cost)
    }

    /// A version whose bytes came to an error, read anew from the origin: its pages and its index are dropped before,
    /// in memory and on disk. All who find the same at the same time, and those who still hold the dropped index, read
    /// it once together.
    ///
    /// # Errors
    /// The origin's, or those of the file's bytes.
    pub async fn reopen(&self, place: &Place, damaged: &OpenFile, cost: &Cost) -> Result<OpenFile, Error> {
        let (version, index) = (damaged.version.clone(), Arc::clone(&damaged.index));
        let name = FileKey::new(Arc::clone(&place.url), format!("{REOPENING}{}", version.key.version()));
        let mut opening = Opening::new(self, place, Some(version), None);
        opening.damaged = Some(index);
        self.joined(self.errands.run(name, || opening.run()).await?, place, cost)
    }

    /// Whether it is known that reading this version anew does not cure this error.
    pub fn is_incurable(&self, version: &FileVersion, error: &Error) -> bool {
        self.tables.damage.is_known(&version.key, error)
    }

    /// Notes what came of a version that was read anew: a right answer, or an error, which is then believed for a
    /// while.
    pub fn was_reopened(&self, version: &FileVersion, error: Option<&Error>) {
        self.metrics.reread(error.is_none());
        if let Some(error) = error {
            self.tables.damage.not_read(&version.key, error);
        }
    }

    fn joined(&self, brought: Brought, place: &Place, cost: &Cost) -> Result<OpenFile, Error> {
        cost.join(&brought.cost);
        let bug = || Error::Bug { subject: place.url.to_string(), what: "a file was opened without an index" };
        brought.file.ok_or_else(bug)
    }

    /// The current version of a file, by the freshness of its mount: asked of the origin where that is needed, and
    /// asked of it in the background where it will be soon. Nothing if the file is not known at all.
    async fn believed(&self, place: &Place, cost: &Cost) -> Result<Option<FileVersion>, Error> {
        let Some(known) = self.known(place).await else { return Ok(None) };
        let age = known.checked.elapsed();
        match place.mount.freshness() {
            Freshness::Immutable => Ok(Some(known.version)),
            Freshness::Ttl { hard, .. } if age >= hard => self.revalidated(place, cost).await.map(Some),
            Freshness::Ttl { soft, .. } if age >= soft => {
                let (name, check) = self.revalidation(place);
                // Refused only when too much is under way; the next lookup tries again.
                let _ = self.errands.begin(name, || check);
                Ok(Some(known.version))
            }
            Freshness::Ttl { .. } => Ok(Some(known.version)),
            Freshness::Always => self.revalidated(place, cost).await.map(Some),
        }
    }

    /// What is known of a file, in memory or on disk.
    async fn known(&self, place: &Place) -> Option<Known> {
        if let Some(known) = self.tables.current.get(&place.url) {
            return Some(known);
        }
        if !self.tables.records.are_kept() {
            return None;
        }
        let (tables, url) = (self.tables.clone(), Arc::clone(&place.url));
        let recall = async move {
            let known = tables.records.file(&url).await;
            if let Some(known) = known.as_ref().filter(|known| tables.is_news(known)) {
                tables.current.insert(url, known.clone());
            }
            Ok(known)
        };
        // When too much is under way it is as if nothing were kept.
        self.recalls.run(Arc::clone(&place.url), || recall).await.ok().flatten()
    }

    /// Whether the current version of a file is in memory.
    pub fn is_known(&self, place: &Place) -> bool {
        self.tables.current.contains_key(&place.url)
    }

    /// The version that a file has now: what is known while that is fresh, else what the origin says.
    ///
    /// # Errors
    /// The origin's.
    pub async fn version(&self, place: &Place, cost: &Cost) -> Result<FileVersion, Error> {
        match self.believed(place, cost).await? {
            Some(version) => Ok(version),
            None => self.revalidated(place, cost).await,
        }
    }

    /// Asks the origin which version a file has.
    ///
    /// # Errors
    /// The origin's.
    pub async fn revalidated(&self, place: &Place, cost: &Cost) -> Result<FileVersion, Error> {
        let (name, check) = self.revalidation(place);
        let brought = self.errands.run(name, || check).await?;
        cost.join(&brought.cost);
        Ok(brought.version)
    }

    fn revalidation(&self, place: &Place) -> (FileKey, impl Future<Output = Result<Brought, Error>> + Send + use<>) {
        let (tables, place) = (self.tables.clone(), place.clone());
        let name = FileKey::new(Arc::clone(&place.url), REVALIDATION);
        let check = async move {
            let (began, cost) = (Instant::now(), Arc::new(Cost::new(true)));
            let stat = place.mount.stat(&place.key, began + REVALIDATE_TIMEOUT).await;
            let stat = stat.inspect_err(|error| {
                if error.kind() == alcedo_origin::ErrorKind::NotFound {
                    tables.forget(&place.url);
                }
            })?;
            let file = Some(Arc::clone(&place.url));
            let name = "revalidate";
            cost.add(Stage { name, file, began, ended: Instant::now(), bytes: 0, origin_gets: 0, origin_bytes: 0 });
            let version = FileVersion::new(stat);
            tables.learn(&version, began);
            Ok(Brought { version, file: None, cost })
        };
        (name, check)
    }

    /// A version turned out not to be the current one: the next to ask opens whatever is there.
    pub fn forget(&self, version: &FileVersion) {
        let is_current = |known: &Known| known.version.key == version.key;
        if self.tables.current.get(&version.stat.url).as_ref().is_some_and(is_current) {
            self.tables.forget(&version.stat.url);
        }
    }

    /// Weighs an index again after lookups that may have taught it page tables, and keeps what it learned.
    pub fn settle(&self, file: &OpenFile) {
        self.tables.settle(file);
    }

    /// The index of a version, if there is one in memory.
    pub fn get(&self, version: &FileVersion) -> Option<OpenFile> {
        self.tables.built.get(&version.key)
    }

    /// Whether the index of this version is here, in memory or on disk.
    pub async fn is_held(&self, version: &FileVersion) -> bool {
        self.tables.built.contains_key(&version.key) || self.tables.records.index(version, &self.limits).await.is_some()
    }

    /// Drops what is known about a file: its current version and its index, in memory and on disk. Says whether there
    /// was anything.
    pub async fn drop_url(&self, url: &str) -> bool {
        let (tables, url) = (&self.tables, Arc::from(url));
        let known = match tables.current.remove(&url) {
            Some(known) => Some(known),
            None => tables.records.file(&url).await,
        };
        if let Some(known) = &known {
            tables.drop_built(&known.version.key);
            tables.damage.forget(&known.version.key);
        }
        tables.forget(&url);
        tables.records.drop_index(&url);
        known.is_some()
    }

    /// Whether a newer version of the file is known here.
    pub(crate) fn is_outdated(&self, version: &FileVersion) -> bool {
        self.tables.current.get(&version.stat.url).is_some_and(|known| known.version.key != version.key)
    }

    /// Drops the index of a version from memory; the next to ask has another.
    pub(crate) fn drop_index(&self, version: &FileVersion) {
        self.tables.drop_built(&version.key);
    }

    /// Bytes of all indexes in memory.
    pub fn bytes(&self) -> u64 {
        self.tables.built.run_pending_tasks();
        self.tables.built.weighted_size()
    }

    /// Drops indexes until all of them take at most this part of what they may, in percent; which ones is chance.
    pub(crate) fn shrink_to(&self, percent: u64) {
        let most = self.capacity_bytes / 100 * percent;
        let mut held = self.bytes();
        if percent >= 100 || held <= most {
            return;
        }
        for (key, file) in &self.tables.built {
            if held <= most {
                break;
            }
            held = held.saturating_sub(file.weight);
            self.tables.drop_built(&key);
        }
    }

    /// Bytes that indexes may take.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }
}

impl Tables {
    /// The origin said at this time that a file has this version.
    fn learn(&self, version: &FileVersion, checked: Instant) {
        let known = Known { version: version.clone(), checked };
        let last = self.current.get(&version.stat.url);
        if last.as_ref().is_none_or(|last| last.checked <= checked) {
            self.records.keep_file(&known);
            self.current.insert(Arc::clone(&version.stat.url), known);
            if last.is_none_or(|last| last.version.key != version.key) {
                self.changed();
            }
        }
    }

    /// Whether nothing newer is known.
    fn is_news(&self, known: &Known) -> bool {
        self.current.get(&known.version.stat.url).is_none_or(|last| last.checked <= known.checked)
    }

    /// See [`Indexes::settle`].
    fn settle(&self, file: &OpenFile) {
        let weight = file.index.weight();
        if weight <= file.weight {
            return;
        }
        // Others may have used the same index meanwhile.
        let last = self.built.get(&file.version.key).unwrap_or_else(|| file.clone());
        if !Arc::ptr_eq(&last.index, &file.index) {
            // The file was read anew meanwhile, because something in this index or beside it was damaged.
            return;
        }
        let has_grown = weight > last.weight + last.weight / GROWTH_SHARE;
        let is_due = weight > last.weight && last.kept.is_none_or(|kept| kept.elapsed() >= KEEP_PAUSE);
        if has_grown || is_due {
            let file = OpenFile { weight, kept: Some(Instant::now()), ..file.clone() };
            self.records.keep_index(&file.version, &file.index);
            self.built.insert(file.version.key.clone(), file);
        }
    }

    /// What is known of the current version of a file is not true any more.
    fn forget(&self, url: &Arc<str>) {
        self.current.invalidate(url);
        self.changed();
        self.records.drop_file(url);
    }

    /// The next to ask has another index.
    fn drop_built(&self, key: &FileKey) {
        self.built.invalidate(key);
        self.changed();
    }

    fn changed(&self) {
        // After the change itself: whoever reads the new number finds what has changed.
        self.changes.fetch_add(1, Ordering::Release);
    }
}
