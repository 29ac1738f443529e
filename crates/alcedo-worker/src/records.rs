//! Layer 3: what a worker keeps on disk of what it learned, and how it reads it back.
//!
//! Knows the records of the metadata store: a version byte, then a protobuf message, so that fields can be added. It
//! must not know when a record is asked for, nor for how long what it says is believed. Times are kept as times of day
//! and become points of this process's own clock when they are read: a record from the future, which a clock that went
//! backwards leaves behind, is as old as can be. Without a cache directory nothing is kept and nothing is found.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alcedo_cache::{Metadata, Table};
use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::limits::Limits;
use alcedo_origin::{ContentVersion, FileStat};
use bytes::Bytes;
use prost::Message;
use tokio::time::Instant;

use crate::indexes::Known;
use crate::reader::{FileVersion, INLINE_WORK_BYTES};

/// First byte of every record. What another version wrote is not read.
const VERSION: u8 = 1;
/// The age of what cannot be dated: more than any freshness allows.
const UNDATED: Duration = Duration::from_secs(100 * 365 * 86_400);
/// Reading a record back costs about four times what inflating as many bytes does.
const DECODE_WEIGHT: u64 = 4;
/// What a file of a listing keeps in memory until it is written.
const LISTED_BYTES: u64 = 512;

/// One version of a file, beside its name.
#[derive(Clone, PartialEq, Message)]
struct StatRecord {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, optional, tag = "2")]
    etag: Option<String>,
    #[prost(uint64, tag = "3")]
    size: u64,
    #[prost(sint64, tag = "4")]
    modified_us: i64,
}

/// The current version of a file.
#[derive(Clone, PartialEq, Message)]
struct FileRecord {
    #[prost(message, optional, tag = "1")]
    stat: Option<StatRecord>,
    /// When the origin said so, in milliseconds since 1970 (UTC).
    #[prost(sint64, tag = "2")]
    checked_ms: i64,
}

/// The index of one version of a file.
#[derive(Clone, PartialEq, Message)]
struct IndexRecord {
    #[prost(string, tag = "1")]
    version: String,
    /// As [`FileIndex::encode`] writes it.
    #[prost(bytes = "bytes", tag = "2")]
    index: Bytes,
}

/// One file of a listing.
#[derive(Clone, PartialEq, Message)]
struct ListedRecord {
    /// Its name below the prefix.
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    stat: Option<StatRecord>,
}

/// The files below a prefix.
#[derive(Clone, PartialEq, Message)]
struct ListingRecord {
    #[prost(message, repeated, tag = "1")]
    files: Vec<ListedRecord>,
    #[prost(bool, tag = "2")]
    too_many: bool,
    /// When it was listed, in milliseconds since 1970 (UTC).
    #[prost(sint64, tag = "3")]
    listed_ms: i64,
    /// Since when it is known that no file has the prefix's own name.
    #[prost(sint64, optional, tag = "4")]
    no_file_since_ms: Option<i64>,
}

/// A listing as it is kept: the stats of its files, in order.
#[derive(Debug, Clone)]
pub(crate) struct StoredListing {
    pub(crate) files: Vec<Arc<FileStat>>,
    pub(crate) too_many: bool,
    pub(crate) listed: Instant,
    pub(crate) no_file_since: Option<Instant>,
}

/// The time of day.
#[derive(Clone)]
pub(crate) struct WallClock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl WallClock {
    pub(crate) fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    fn now_ms(&self) -> i64 {
        let since = (self.0)().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    /// The time of day of a point of this process's clock that has passed.
    fn ms_of(&self, instant: Instant) -> i64 {
        let age = i64::try_from(instant.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.now_ms().saturating_sub(age)
    }

    /// The point of this process's clock at a time of day; long ago, if that is in the future.
    fn instant_of(&self, ms: i64) -> Option<Instant> {
        let age = u64::try_from(self.now_ms().saturating_sub(ms)).map_or(UNDATED, Duration::from_millis);
        Instant::now().checked_sub(age)
    }
}

/// The records of one worker; clones are the same records.
#[derive(Clone)]
pub(crate) struct Records {
    metadata: Option<Arc<Metadata>>,
    clock: WallClock,
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").field("metadata", &self.metadata).finish_non_exhaustive()
    }
}

impl Records {
    /// Records in this store, or nowhere.
    pub(crate) fn new(metadata: Option<Arc<Metadata>>, clock: WallClock) -> Self {
        Self { metadata, clock }
    }

    /// Whether anything is kept at all.
    pub(crate) fn are_kept(&self) -> bool {
        self.metadata.is_some()
    }

    /// What is kept of a file.
    pub(crate) async fn file(&self, url: &Arc<str>) -> Option<Known> {
        let clock = self.clock.clone();
        self.load(Table::Files, url, move |url, bytes| {
            let record: FileRecord = decode(bytes)?;
            let checked = clock.instant_of(record.checked_ms)?;
            Some(Known { version: FileVersion::new(stat(Arc::clone(url), record.stat?)), checked })
        })
        .await
    }

    /// Keeps a file's current version.
    pub(crate) fn keep_file(&self, known: &Known) {
        let Some(metadata) = &self.metadata else { return };
        let (stat, checked_ms) = (Arc::clone(&known.version.stat), self.clock.ms_of(known.checked));
        let record = move || encode(&FileRecord { stat: Some(stat_record(&stat)), checked_ms });
        metadata.put(Table::Files, Arc::clone(&known.version.stat.url), LISTED_BYTES, record);
    }

    /// A file's version is not known any more.
    pub(crate) fn drop_file(&self, url: &Arc<str>) {
        if let Some(metadata) = &self.metadata {
            metadata.remove(Table::Files, Arc::clone(url));
        }
    }

    /// The index of a version, if the one that is kept is of this version.
    pub(crate) async fn index(&self, version: &FileVersion, limits: &Arc<Limits>) -> Option<Arc<FileIndex>> {
        let (wanted, size, limits) = (version.key.clone(), version.stat.size, Arc::clone(limits));
        let read = self.load(Table::Indexes, &version.stat.url, move |_, bytes| {
            let record: IndexRecord = decode(bytes)?;
            if record.version != wanted.version() {
                return Some(None);
            }
            let index = FileIndex::decode(&record.index, &limits).ok()?;
            // It would be a bug of ours: the version says which bytes these are.
            (index.file_size() == size).then(|| Some(Arc::new(index)))
        });
        read.await.flatten()
    }

    /// Keeps the index of a version, with the page tables that it has learned by now.
    pub(crate) fn keep_index(&self, version: &FileVersion, index: &Arc<FileIndex>) {
        let Some(metadata) = &self.metadata else { return };
        let (key, index, held_bytes) = (version.key.clone(), Arc::clone(index), index.weight());
        let record = move || encode(&IndexRecord { version: key.version().to_owned(), index: index.encode().into() });
        metadata.put(Table::Indexes, Arc::clone(&version.stat.url), held_bytes, record);
    }

    /// Drops the index of a file, of whatever version.
    pub(crate) fn drop_index(&self, url: &Arc<str>) {
        if let Some(metadata) = &self.metadata {
            metadata.remove(Table::Indexes, Arc::clone(url));
        }
    }

    /// The listing that is kept of a prefix.
    pub(crate) async fn listing(&self, prefix: &Arc<str>) -> Option<StoredListing> {
        let clock = self.clock.clone();
        self.load(Table::Listings, prefix, move |prefix, bytes| {
            let record: ListingRecord = decode(bytes)?;
            let listed = clock.instant_of(record.listed_ms)?;
            let no_file_since = record.no_file_since_ms.and_then(|ms| clock.instant_of(ms));
            let file = |file: ListedRecord| Some(Arc::new(stat(format!("{prefix}/{}", file.name).into(), file.stat?)));
            let files = record.files.into_iter().map(file).collect::<Option<Vec<_>>>()?;
            Some(StoredListing { files, too_many: record.too_many, listed, no_file_since })
        })
        .await
    }

    /// Keeps a listing.
    pub(crate) fn keep_listing(&self, prefix: &Arc<str>, listing: StoredListing) {
        let Some(metadata) = &self.metadata else { return };
        let listed_ms = self.clock.ms_of(listing.listed);
        let no_file_since_ms = listing.no_file_since.map(|since| self.clock.ms_of(since));
        let (below, held_bytes) = (prefix.len() + 1, listing.files.len() as u64 * LISTED_BYTES);
        let record = move || {
            let name = |stat: &FileStat| stat.url.get(below..).unwrap_or_default().to_owned();
            let file = |stat: &Arc<FileStat>| ListedRecord { name: name(stat), stat: Some(stat_record(stat)) };
            let files = listing.files.iter().map(file).collect();
            encode(&ListingRecord { files, too_many: listing.too_many, listed_ms, no_file_since_ms })
        };
        metadata.put(Table::Listings, Arc::clone(prefix), held_bytes, record);
    }

    /// Drops the listing of a prefix.
    pub(crate) fn drop_listing(&self, prefix: &Arc<str>) {
        if let Some(metadata) = &self.metadata {
            metadata.remove(Table::Listings, Arc::clone(prefix));
        }
    }

    /// A record, and what is made of it; one that cannot be read is removed and counted.
    async fn load<T: Send + 'static>(
        &self,
        table: Table,
        url: &Arc<str>,
        read: impl FnOnce(&Arc<str>, &[u8]) -> Option<T> + Send + 'static,
    ) -> Option<T> {
        let metadata = self.metadata.as_ref()?;
        let bytes = metadata.load(table, url).await?;
        let read = if bytes.len() as u64 * DECODE_WEIGHT <= INLINE_WORK_BYTES {
            read(url, &bytes)
        } else {
            let url = Arc::clone(url);
            tokio::task::spawn_blocking(move || read(&url, &bytes)).await.ok().flatten()
        };
        if read.is_none() {
            metadata.reject(table, Arc::clone(url));
        }
        read
    }
}

fn encode(record: &impl Message) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    record.encode_raw(&mut bytes);
    bytes
}

fn decode<T: Message + Default>(bytes: &[u8]) -> Option<T> {
    let (version, message) = bytes.split_first()?;
    (*version == VERSION).then(|| T::decode(message).ok()).flatten()
}

fn stat_record(stat: &FileStat) -> StatRecord {
    let (version, etag) = (stat.version.as_str().to_owned(), stat.etag.clone());
    StatRecord { version, etag, size: stat.size, modified_us: stat.modified_us }
}

fn stat(url: Arc<str>, record: StatRecord) -> FileStat {
    let StatRecord { version, etag, size, modified_us } = record;
    FileStat { url, version: ContentVersion::new(version), etag, size, modified_us }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use alcedo_cache::CacheDir;
    use std::sync::atomic::{AtomicU64, Ordering};

    // Where the runtime's clock stands still, a disk that answers late is waited for: it goes on only when nothing is
    // under way.

    /// A clock that a test sets, in milliseconds since 1970.
    fn clock(ms: &Arc<AtomicU64>) -> WallClock {
        let ms = Arc::clone(ms);
        WallClock::new(move || UNIX_EPOCH + Duration::from_millis(ms.load(Ordering::Relaxed)))
    }

    fn metadata() -> (tempfile::TempDir, Arc<Metadata>) {
        let home = tempfile::tempdir().unwrap();
        let dir = CacheDir::open(&home.path().join("cache"), "w1").unwrap();
        let metadata = Metadata::open(&dir).unwrap();
        (home, Arc::new(metadata))
    }

    fn version(url: &str) -> FileVersion {
        FileVersion::new(FileStat {
            url: url.into(),
            version: ContentVersion::new("e:\"1\""),
            etag: Some("\"1\"".to_owned()),
            size: 7,
            modified_us: -5,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_version_is_as_old_as_it_was_and_one_from_the_future_is_as_old_as_can_be() {
        let ((_home, metadata), ms) = (metadata(), Arc::new(AtomicU64::new(1_000_000)));
        let records = Records::new(Some(Arc::clone(&metadata)), clock(&ms));
        let (url, checked) = (Arc::from("s3://lake/a"), Instant::now());
        records.keep_file(&Known { version: version("s3://lake/a"), checked });
        metadata.settle();
        for (now_ms, least, most) in
            [(1_000_000, 0, 1_000), (1_030_000, 30_000, 31_000), (9_000_000, 8_000_000, 8_001_000)]
        {
            ms.store(now_ms, Ordering::Relaxed);
            let known = records.file(&url).await.unwrap();
            assert_eq!(known.version.stat, version("s3://lake/a").stat);
            let age = known.checked.elapsed().as_millis();
            assert!((least..most).contains(&age), "{age}");
        }
        // Backwards, by more than the second that this test may take.
        ms.store(900_000, Ordering::Relaxed);
        assert!(records.file(&url).await.unwrap().checked.elapsed() >= UNDATED);
    }

    #[tokio::test(start_paused = true)]
    async fn listings_and_their_times_are_read_back() {
        let ((_home, metadata), ms) = (metadata(), Arc::new(AtomicU64::new(50_000_000)));
        let records = Records::new(Some(Arc::clone(&metadata)), clock(&ms));
        let prefix: Arc<str> = "s3://lake/table".into();
        assert!(records.listing(&prefix).await.is_none());
        let files: Vec<_> =
            (0..3_000).map(|i| version(&format!("s3://lake/table/year={i}/part-{i}.parquet")).stat).collect();
        let listed = Instant::now();
        let listing = StoredListing { files, too_many: true, listed, no_file_since: Some(listed) };
        records.keep_listing(&prefix, listing.clone());
        metadata.settle();
        ms.fetch_add(7_000, Ordering::Relaxed);
        let read = records.listing(&prefix).await.unwrap();
        assert_eq!((read.files, read.too_many), (listing.files, true));
        for since in [read.listed, read.no_file_since.unwrap()] {
            assert!((7_000..8_000).contains(&since.elapsed().as_millis()));
        }
        records.drop_listing(&prefix);
        metadata.settle();
        assert!(records.listing(&prefix).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_read_is_counted_and_removed() {
        let (_home, metadata) = metadata();
        let records = Records::new(Some(Arc::clone(&metadata)), WallClock::new(SystemTime::now));
        let limits = Arc::new(Limits::default());
        let version = version("s3://lake/a");
        let url = &version.stat.url;
        let newer = [&[VERSION + 1], encode(&FileRecord::default()).split_at(1).1].concat();
        let of_version = |name: &str, index: &'static [u8]| {
            encode(&IndexRecord { version: name.to_owned(), index: Bytes::from_static(index) })
        };
        let unreadable = [
            (Table::Files, Vec::new()),
            (Table::Files, newer),
            (Table::Files, vec![VERSION, 0xff, 0xff]),
            (Table::Files, encode(&FileRecord { stat: None, checked_ms: 1 })),
            (Table::Listings, encode(&ListingRecord { files: vec![ListedRecord::default()], ..Default::default() })),
            (Table::Indexes, of_version(version.key.version(), b"no index")),
        ];
        for (i, (table, bytes)) in unreadable.into_iter().enumerate() {
            metadata.put(table, Arc::clone(url), 0, move || bytes);
            metadata.settle();
            let found = match table {
                Table::Files => records.file(url).await.is_some(),
                Table::Listings => records.listing(url).await.is_some(),
                Table::Indexes => records.index(&version, &limits).await.is_some(),
            };
            metadata.settle();
            assert!(!found && metadata.get(table, url).is_none(), "{i}");
            assert_eq!(metadata.counts().errors, i as u64 + 1);
        }
        // Another version's index is no damage, and stays until this version's takes its place.
        let other = of_version("e:\"2\"", b"of another file");
        metadata.put(Table::Indexes, Arc::clone(url), 0, move || other);
        metadata.settle();
        assert!(records.index(&version, &limits).await.is_none());
        metadata.settle();
        assert!(metadata.get(Table::Indexes, url).is_some());
        assert_eq!(metadata.counts().errors, 6);
    }

    #[tokio::test]
    async fn without_a_directory_nothing_is_kept() {
        let records = Records::new(None, WallClock::new(SystemTime::now));
        let version = version("s3://lake/a");
        records.keep_file(&Known { version: version.clone(), checked: Instant::now() });
        assert!(!records.are_kept() && records.file(&version.stat.url).await.is_none());
    }
}
