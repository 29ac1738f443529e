//! Layer 3: the Parquet files below a prefix, listed once.
//!
//! Knows which names count as files of a table, and how long a listing is believed. It must not know what the files
//! hold. A listing names each file's version, so files that were listed are opened without asking for it again.
//! Listings are kept on disk too, where there is one, and age there as they do in memory.

use std::sync::Arc;
use std::time::Duration;

use alcedo_origin::{ErrorKind, FileStat, Freshness, Listed, Path, Place};
use moka::sync::Cache;
use tokio::time::Instant;

use crate::cost::{Cost, Stage};
use crate::errands::Errands;
use crate::error::Error;
use crate::indexes::Known;
use crate::metrics::Metrics;
use crate::reader::FileVersion;
use crate::records::{Records, StoredListing};

/// The ending of names that are looked into.
const FILE_ENDING: &str = ".parquet";
/// How long it is believed that a prefix has no files.
const EMPTY_TTL: Duration = Duration::from_secs(1);
/// Longest time of one listing, whoever waits for it.
const LISTING_TIMEOUT: Duration = Duration::from_secs(30);
/// What a file of a listing costs beside its texts.
const FILE_OVERHEAD_BYTES: usize = 320;

/// One file of a listing.
#[derive(Debug, Clone)]
pub struct ListedFile {
    /// Where it is.
    pub place: Place,
    /// Its version, as the listing says.
    pub known: Known,
}

/// The files below a prefix, in the origin's order.
#[derive(Debug, Clone)]
pub struct TableFiles {
    /// At most as many as the bound allows.
    pub files: Arc<[ListedFile]>,
    /// There are more than the bound allows.
    pub too_many: bool,
    listed: Instant,
    /// Since when it is known that no file has the prefix's own name.
    no_file_since: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Brought {
    files: TableFiles,
    cost: Arc<Cost>,
}

/// All listings of one worker.
#[derive(Debug)]
pub struct Listings {
    cache: Cache<Arc<str>, TableFiles>,
    errands: Errands<Arc<str>, Brought>,
    recalls: Errands<Arc<str>, Option<TableFiles>>,
    max_files: usize,
    records: Records,
}

impl Listings {
    /// No listing in memory yet, and room for `capacity_bytes` of them.
    pub(crate) fn new(capacity_bytes: u64, max_files: usize, records: Records, metrics: &Arc<Metrics>) -> Self {
        let weigher = |url: &Arc<str>, files: &TableFiles| {
            let bytes = |file: &ListedFile| {
                FILE_OVERHEAD_BYTES + 2 * file.place.url.len() + file.known.version.key.version().len()
            };
            u32::try_from(url.len() + files.files.iter().map(bytes).sum::<usize>()).unwrap_or(u32::MAX)
        };
        let cache = Cache::builder().max_capacity(capacity_bytes).weigher(weigher).build();
        let (errands, recalls) = (Errands::new(Arc::clone(metrics)), Errands::new(Arc::clone(metrics)));
        Self { cache, errands, recalls, max_files, records }
    }

    /// The files below a prefix, by the freshness of its mount. That a mount's files are immutable does not say that
    /// none are added, so such listings age like those of other mounts.
    ///
    /// # Errors
    /// The origin's.
    pub async fn below(&self, prefix: &Place, cost: &Cost) -> Result<TableFiles, Error> {
        if let Some(files) = self.known(prefix).await {
            let (soft, hard) = times(prefix, files.files.is_empty());
            let age = files.listed.elapsed();
            if age < hard {
                if age >= soft {
                    let _ = self.errands.begin(Arc::clone(&prefix.url), || self.listing(prefix));
                }
                return Ok(files);
            }
        }
        let brought = self.errands.run(Arc::clone(&prefix.url), || self.listing(prefix)).await?;
        cost.join(&brought.cost);
        Ok(brought.files)
    }

    /// The listing that is in memory or on disk, however old.
    async fn known(&self, prefix: &Place) -> Option<TableFiles> {
        if let Some(files) = self.cache.get(&prefix.url) {
            return Some(files);
        }
        if !self.records.are_kept() {
            return None;
        }
        let (cache, records, prefix, max_files) =
            (self.cache.clone(), self.records.clone(), prefix.clone(), self.max_files);
        let name = Arc::clone(&prefix.url);
        let recall = async move {
            let files = records.listing(&prefix.url).await.and_then(|stored| recalled(&prefix, stored, max_files));
            if let Some(files) = &files
                && cache.get(&prefix.url).is_none_or(|last| last.listed <= files.listed)
            {
                cache.insert(Arc::clone(&prefix.url), files.clone());
            }
            Ok(files)
        };
        // When too much is under way it is as if nothing were kept.
        self.recalls.run(name, || recall).await.ok().flatten()
    }

    /// The files below a prefix and until when that is believed, where no wait is needed to know it. None for a name
    /// that may be a file's.
    pub(crate) fn believed_until(&self, prefix: &Place, now: Instant) -> Option<(Arc<[ListedFile]>, Instant)> {
        if !prefix.ends_with_slash && !prefix.key.is_root() && !self.instead_of_file(prefix) {
            return None;
        }
        let files = self.cache.get(&prefix.url).filter(|files| !files.too_many)?;
        let (soft, hard) = times(prefix, files.files.is_empty());
        let age = now.saturating_duration_since(files.listed);
        if age >= hard {
            return None;
        }
        if age >= soft {
            let _ = self.errands.begin(Arc::clone(&prefix.url), || self.listing(prefix));
        }
        let until = files.listed + if age >= soft { hard } else { soft };
        // That it is no file's name is believed for a time, too.
        let (_, hard) = times(prefix, false);
        let is_no_file = files.no_file_since.filter(|_| !prefix.ends_with_slash && !prefix.key.is_root());
        Some((files.files, is_no_file.map_or(until, |since| until.min(since + hard))))
    }

    /// The same as [`Listings::instead_of_file`], of a name of which nothing is in memory.
    pub async fn instead_of_unknown_file(&self, name: &Place) -> bool {
        self.known(name).await.is_some() && self.instead_of_file(name)
    }

    /// The listing below a name that is known to be no file's.
    pub fn instead_of_file(&self, name: &Place) -> bool {
        let (_, hard) = times(name, false);
        let since = self.cache.get(&name.url).filter(|files| !files.files.is_empty());
        since.and_then(|files| files.no_file_since).is_some_and(|since| since.elapsed() < hard)
    }

    /// Remembers that no file has the name of this prefix.
    pub fn no_file_at(&self, name: &Place, since: Instant) {
        if let Some(files) = self.cache.get(&name.url) {
            let files = TableFiles { no_file_since: Some(since), ..files };
            keep(&self.records, &name.url, &files);
            self.cache.insert(Arc::clone(&name.url), files);
        }
    }

    /// A listing turned out to be old.
    pub fn forget(&self, prefix: &Place) {
        self.cache.invalidate(&prefix.url);
        self.records.drop_listing(&prefix.url);
    }

    fn listing(&self, prefix: &Place) -> impl Future<Output = Result<Brought, Error>> + Send + use<> {
        let (cache, records, prefix, max_files) =
            (self.cache.clone(), self.records.clone(), prefix.clone(), self.max_files);
        async move {
            let (listed, cost) = (Instant::now(), Arc::new(Cost::new(true)));
            let found = prefix.mount.list(&prefix.key, true, usize::MAX, listed + LISTING_TIMEOUT).await;
            let found = match found {
                Err(error) if error.kind() == ErrorKind::NotFound => alcedo_origin::Listing::default(),
                found => found?,
            };
            let mut files = Vec::new();
            for entry in found.entries {
                let Listed::File(stat) = entry else { continue };
                let Some(place) = table_file(&prefix, &stat.url) else { continue };
                files.push(ListedFile { place, known: Known { version: FileVersion::new(stat), checked: listed } });
            }
            let too_many = found.truncated || files.len() > max_files;
            files.truncate(max_files);
            let (name, file, ended) = ("list", Some(Arc::clone(&prefix.url)), Instant::now());
            cost.add(Stage { name, file, began: listed, ended, bytes: 0, origin_gets: 0, origin_bytes: 0 });
            let no_file_since = cache.get(&prefix.url).and_then(|old| old.no_file_since);
            let files = TableFiles { files: files.into(), too_many, listed, no_file_since };
            keep(&records, &prefix.url, &files);
            cache.insert(Arc::clone(&prefix.url), files.clone());
            Ok(Brought { files, cost })
        }
    }
}

/// Keeps a listing on disk; one without files is believed too shortly to be worth it.
fn keep(records: &Records, prefix: &Arc<str>, files: &TableFiles) {
    if files.files.is_empty() {
        return records.drop_listing(prefix);
    }
    let stats = files.files.iter().map(|file| Arc::clone(&file.known.version.stat)).collect();
    let (too_many, listed, no_file_since) = (files.too_many, files.listed, files.no_file_since);
    records.keep_listing(prefix, StoredListing { files: stats, too_many, listed, no_file_since });
}

/// A listing as it was kept, under the bound that holds now; none if it was cut at another.
fn recalled(prefix: &Place, stored: StoredListing, max_files: usize) -> Option<TableFiles> {
    let StoredListing { files: stats, too_many, listed, no_file_since } = stored;
    if too_many && stats.len() < max_files {
        return None;
    }
    let too_many = too_many || stats.len() > max_files;
    let file = |stat: Arc<FileStat>| {
        let place = table_file(prefix, &stat.url)?;
        let known = Known { version: FileVersion::from_shared(stat), checked: listed };
        Some(ListedFile { place, known })
    };
    let files = stats.into_iter().take(max_files).map(file).collect::<Option<Vec<_>>>()?;
    Some(TableFiles { files: files.into(), too_many, listed, no_file_since })
}

/// For how long a listing is believed: without asking, and at all.
fn times(prefix: &Place, is_empty: bool) -> (Duration, Duration) {
    let (soft, hard) = match prefix.mount.freshness() {
        Freshness::Ttl { soft, hard } => (soft, hard),
        Freshness::Always => (Duration::ZERO, Duration::ZERO),
        Freshness::Immutable => match Freshness::default() {
            Freshness::Ttl { soft, hard } => (soft, hard),
            Freshness::Immutable | Freshness::Always => (Duration::ZERO, Duration::ZERO),
        },
    };
    if is_empty { (EMPTY_TTL.min(soft), EMPTY_TTL.min(hard)) } else { (soft, hard) }
}

/// The place of a listed name, if it counts as a file of the table: it ends in `.parquet`, and neither it nor a
/// directory on the way is hidden, as `_temporary/`, `_delta_log/` or `.tmp` are.
fn table_file(prefix: &Place, url: &Arc<str>) -> Option<Place> {
    let below = url.strip_prefix(prefix.url.as_ref())?.strip_prefix('/')?;
    let is_hidden = below.split('/').any(|segment| segment.starts_with(['_', '.']));
    if is_hidden || !below.ends_with(FILE_ENDING) {
        return None;
    }
    let key = Path::parse(url.strip_prefix(prefix.mount.url())?).ok()?;
    let mount = Arc::clone(&prefix.mount);
    Some(Place { mount, key, url: Arc::clone(url), ends_with_slash: false })
}
