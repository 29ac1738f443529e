//! Tests of builds: parts and heads, waits, reasons to give up, and what is remembered of a failure.

use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use alcedo_cache::{Fetch, Urgency};
use alcedo_lookup::answer::Form;
use alcedo_lookup::derived::Built;
use alcedo_lookup::error::Error as FileError;
use alcedo_lookup::machine::{Fed, Machine, Piece, Step};
use alcedo_origin::{Freshness, Mount, Mounts, OriginLimits};
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use super::building::build;
use super::pace::Paced;
use super::*;
use crate::cost::Cost;
use crate::indexes::OpenFile;
use crate::prepared::{Ask, Asked, FileTarget};
use crate::reader::{PREFETCHES_AT_ONCE, Reader};
use crate::{Config, Running, Worker, status_page};

/// Longest wait for what happens on another thread.
const PATIENCE: Duration = Duration::from_secs(60);
/// Small, so that what is made until something else is noticed finds room: thousands of them.
const PART: usize = 16 << 10;

/// Pieces of a KiB that are read of the file, which has more.
const PIECES: u64 = 256;

/// A worker over one file `lake/a.parquet`, with what its tests look into.
pub(crate) struct Site {
    pub(crate) running: Running,
    store: Arc<InMemory>,
}

/// Rows of its file, and of one that overwrites it.
pub(crate) const ROWS: i64 = 20_000;
pub(crate) const FEWER_ROWS: i64 = 100;

fn file(rows: i64) -> Vec<u8> {
    // Scattered, so that neither order nor a dictionary helps; only `id` is sorted.
    let column = |seed: i64| Arc::new(Int64Array::from_iter_values((0..rows).map(|id| id * seed % 1_000_003)));
    let columns = [("id", 2), ("x", 7_919), ("y", 104_729), ("z", 611_953)];
    let columns = columns.map(|(name, seed)| (name, column(seed) as ArrayRef));
    // Each value about ten times, in no order.
    let tens = Int64Array::from_iter_values((0..rows).map(|id| id * 7_919 % 1_000_003 % (rows / 10)));
    let batch = RecordBatch::try_from_iter(columns.into_iter().chain([("ten", Arc::new(tens) as ArrayRef)])).unwrap();
    let pages = WriterProperties::builder().set_data_page_row_count_limit(1_000).set_write_batch_size(1_000);
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(pages.build())).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

impl Site {
    /// A worker that builds nothing of its own accord.
    pub(crate) async fn new() -> Self {
        let mut config = Config::default();
        config.builds.parallel = 0;
        Self::with(config).await
    }

    pub(crate) async fn with(mut config: Config) -> Self {
        let store = Arc::new(InMemory::new());
        store.put(&Path::from("a.parquet"), file(ROWS).into()).await.unwrap();
        let origin = Arc::clone(&store) as Arc<dyn ObjectStore>;
        let mount = Mount::with_store("lake", "s3://lake", origin, Freshness::default(), OriginLimits::default());
        let mounts = Mounts::from_mounts(vec![mount.unwrap()]).unwrap();
        config.runtimes = 1;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { running: Worker::with_mounts(config, mounts, listener).unwrap(), store }
    }

    pub(crate) fn door(&self) -> &Arc<Door> {
        self.running.door()
    }

    fn builds(&self) -> &Builds {
        &self.door().builds
    }

    async fn opened(&self) -> (Place, OpenFile) {
        let lookups = &self.door().lookups;
        let place = lookups.resolve("lake/a.parquet").unwrap();
        let file = lookups.indexes().open(&place, None, &Cost::new(false)).await.unwrap();
        (place, file)
    }

    /// A question to the file.
    pub(crate) fn asked(&self, key: &str, columns: &[&str], row_limit: Option<u32>) -> Arc<Asked> {
        let columns = Some(columns.iter().map(ToString::to_string).collect());
        let (path, key_column) = ("lake/a.parquet".to_owned(), Some(key.to_owned()));
        let ask = Ask { path, key_column, columns, form: Form::CompactRows, row_limit };
        self.door().lookups.asked(ask).unwrap()
    }

    /// The same, resolved.
    pub(crate) async fn target(&self, key: &str, columns: &[&str]) -> Arc<FileTarget> {
        let (place, file) = self.opened().await;
        file.target(&self.asked(key, columns, None), &place, self.door().lookups.limits()).unwrap()
    }

    async fn job(&self, name: &str) -> Job {
        let (place, file) = self.opened().await;
        let what = What::Ready { key: Some("id".to_owned()), columns: None };
        let (version, index, name) = (file.version, file.index, name.to_owned());
        Job { place, version, index, what, name, is_pinned: false, rate: 1.0, object_bytes: 1 << 20 }
    }

    fn source<'a>(&'a self, io: &'a Handle, job: &'a Job) -> Paced<'a> {
        let (lookups, cost) = (&self.door().lookups, Arc::new(Cost::new(false)));
        let reader = Reader::of_version(lookups.store(), &job.place, job.version.clone(), &cost).ahead_of_need();
        Paced::new(self.door(), io, reader, &job.version)
    }

    /// Overwrites the file, and lets the worker know.
    pub(crate) async fn overwrite(&self) {
        self.store.put(&Path::from("a.parquet"), file(FEWER_ROWS).into()).await.unwrap();
        let place = self.door().lookups.resolve("lake/a.parquet").unwrap();
        self.door().lookups.indexes().revalidated(&place, &Cost::new(false)).await.unwrap();
    }
}

/// Makes parts, each of a piece of the file that it reads.
struct Copying {
    left: Range<u32>,
    piece: Option<Bytes>,
    steps: Arc<AtomicU32>,
}

impl Copying {
    fn new(parts: u32) -> Self {
        Self { left: 0..parts, piece: None, steps: Arc::default() }
    }
}

impl Machine for Copying {
    type Output = Built<Self>;

    fn step(&mut self) -> Result<Step<Built<Self>>, FileError> {
        self.steps.fetch_add(1, Ordering::Relaxed);
        let (number, left, steps) = (self.left.start, self.left.clone(), Arc::clone(&self.steps));
        if left.is_empty() {
            return Ok(Step::Done(Built::Head(Bytes::from(format!("{number} parts")))));
        }
        match self.piece.take() {
            None => Ok(Step::Need(Piece::Range(self.range()).into())),
            Some(bytes) => {
                let bytes = bytes.repeat(PART / bytes.len()).into();
                let rest = Self { left: number + 1..left.end, piece: None, steps };
                Ok(Step::Done(Built::Part { number, bytes, rest }))
            }
        }
    }

    fn feed(&mut self, _: &Piece, fed: Fed) {
        self.piece = Some(fed.bytes);
    }

    fn stage(&self) -> &'static str {
        "copy"
    }

    fn work_bytes(&self) -> u64 {
        0
    }
}

impl Copying {
    /// The file's pieces in turn, over and over: there are as many parts as are wanted.
    fn range(&self) -> Range<u64> {
        let start = u64::from(self.left.start) % PIECES * 1_024;
        start..start + 1_024
    }
}

#[tokio::test]
async fn an_object_is_made_part_by_part_and_is_found() {
    let site = Site::new().await;
    let (job, io) = (site.job("rows-1").await, Handle::current());
    let made = build(site.door(), &site.source(&io, &job), &job, Copying::new(5)).await.unwrap();
    let derived = site.door().lookups.derived();
    let found = derived.named(&job.version.key, "rows-1").unwrap();
    assert!(Arc::ptr_eq(&made, &found) && found.bytes() == 5 * PART as u64 + 7 && found.rate() == 1.0);
    let bytes = derived.read(&found, 3, 2_048..4_096).unwrap();
    let whole = site.store.get(&Path::from("a.parquet")).await.unwrap().bytes().await.unwrap();
    assert_eq!(bytes, [&whole[3_072..4_096], &whole[3_072..4_096]].concat());
}

#[tokio::test]
async fn a_file_that_changes_ends_its_build_and_nothing_is_left() {
    let site = Site::new().await;
    let (job, io) = (site.job("rows-1").await, Handle::current());
    let machine = Copying::new(100_000);
    let steps = Arc::clone(&machine.steps);
    let change = async {
        while steps.load(Ordering::Relaxed) < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        site.overwrite().await;
    };
    let source = site.source(&io, &job);
    let building = tokio::time::timeout(PATIENCE, build(site.door(), &source, &job, machine));
    let (made, ()) = tokio::join!(building, change);
    assert!(matches!(made.unwrap(), Err(Failed::Changed)));
    assert!(site.door().lookups.derived().pages().files().is_empty());
}

#[tokio::test]
async fn while_requests_need_the_worker_a_build_waits() {
    let mut config = Config::default();
    (config.builds.parallel, config.lookup.permits) = (0, 8);
    let site = Site::with(config).await;
    let (job, io) = (site.job("rows-1").await, Handle::current());
    let admission = &site.door().admission;
    let deadline = admission.deadline(None, None);
    let held = futures::future::try_join_all((0..5).map(|_| admission.admit(1, deadline))).await.unwrap();
    let machine = Copying::new(2);
    let (steps, source) = (Arc::clone(&machine.steps), site.source(&io, &job));
    let mut building = std::pin::pin!(build(site.door(), &source, &job, machine));
    let waited = tokio::time::timeout(Duration::from_millis(300), &mut building).await;
    assert!(waited.is_err() && steps.load(Ordering::Relaxed) == 0);
    assert!(site.builds().counts().yielded.get() > 0);
    drop(held);
    tokio::time::timeout(PATIENCE, building).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_a_build_reads_stands_behind_other_reads_that_nobody_waits_for() {
    let site = Site::with(Config::default()).await;
    let job = site.job("rows-1").await;
    let (store, file) = (site.door().lookups.store(), FileKey::new("s3://lake/other", "v"));
    let never: Fetch<Error> = Arc::new(|_| Box::pin(std::future::pending()));
    // All turns are taken.
    let apart: Vec<Range<u64>> = (0..PREFETCHES_AT_ONCE as u64).map(|turn| turn << 24..(turn << 24) + 1).collect();
    let taken = store.flights().read(store.pages(), &file, 1 << 30, &apart, Urgency::Prefetch, never);
    let mut taken = std::pin::pin!(taken);
    assert!(futures::poll!(&mut taken).is_pending());
    assert_eq!(store.flights().under_way(), PREFETCHES_AT_ONCE);
    let mount = Arc::clone(&job.place.mount);
    let gets = mount.counts().gets;
    let _built = site.builds().request(job).unwrap();
    let waits = async {
        while store.flights().under_way() == PREFETCHES_AT_ONCE {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((mount.counts().gets, site.builds().counts().done.get()), (gets, 0), "it did not wait for its turn");
}

#[tokio::test]
async fn where_memory_is_short_a_build_is_broken_off_and_gives_its_own_back() {
    let site = Site::new().await;
    let (job, io) = (site.job("rows-1").await, Handle::current());
    let source = site.source(&io, &job);
    let mut config = Config::default();
    (config.runtimes, config.builds.parallel, config.memory.limit_bytes) = (1, 0, 1);
    site.running.reload(config).unwrap();
    let made = tokio::time::timeout(PATIENCE, build(site.door(), &source, &job, Copying::new(1_000_000))).await;
    assert!(matches!(made.unwrap(), Err(Failed::Broken(Error::Overloaded { .. }))));
    assert!(site.door().lookups.derived().pages().files().is_empty());
}

#[tokio::test]
async fn what_finds_no_room_is_not_made_and_it_is_said_aloud() {
    let mut config = Config::default();
    config.cache.derived_bytes = 1 << 20;
    let site = Site::with(config).await;
    let job = Job { object_bytes: 50 << 20, ..site.job("rows-1").await };
    let (version, builds) = (job.version.clone(), site.builds());
    let refused = builds.request(job).unwrap();
    let refused = tokio::time::timeout(PATIENCE, refused).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(refused, Failed::Full(_)) && refused.to_string().contains("cache.derived"), "{refused}");
    let counts = builds.counts();
    assert_eq!((counts.begun.get(), counts.refused.get(), counts.done.get(), counts.failed.get()), (1, 1, 0, 0));
    assert!(status_page::line(site.door()).contains("1 builds refused"), "{}", status_page::line(site.door()));
    assert!(status_page::dump(site.door()).iter().any(|line| line.contains("no room for lookup-ready rows")));
    assert!(builds.is_barred(&version, "rows-1") && !builds.is_barred(&version, "rows-2"), "it is not tried again");
}

#[tokio::test]
async fn what_cannot_be_made_is_remembered_for_a_while() {
    let site = Site::with(Config::default()).await;
    let what = What::Ready { key: Some("nobody".to_owned()), columns: None };
    let job = Job { what, ..site.job("rows-1").await };
    let (version, builds) = (job.version.clone(), site.builds());
    let failed = builds.request(job).unwrap().await.unwrap().unwrap_err();
    assert!(matches!(failed, Failed::Broken(_)), "{failed}");
    assert!(builds.is_barred(&version, "rows-1") && builds.counts().failed.get() == 1);
    for number in 0..2 * MOST_FAILED {
        builds.remember((version.key.clone(), format!("rows-{number}")));
    }
    assert_eq!(builds.lock().failed.len(), MOST_FAILED);
}

#[tokio::test]
async fn what_is_asked_for_must_fit_the_file_and_somebody_must_build() {
    let site = Site::new().await;
    let what = What::Ready { key: Some("id".to_owned()), columns: None };
    let refused = site.running.build("lake/a.parquet", what.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("builds.parallel"), "{refused}");
    let site = Site::with(Config::default()).await;
    let refused = site.running.build("lake/nobody.parquet", what).await.unwrap_err();
    assert!(matches!(refused, Failed::Broken(_)) && refused.to_string().contains("nobody"), "{refused}");
}

#[tokio::test]
async fn a_build_under_way_is_known_and_is_no_obstacle_to_the_end() {
    let site = Site::new().await;
    let job = site.job("rows-1").await;
    let name = (job.version.key.clone(), job.name.clone());
    let under_way = site.builds().begin(&name).unwrap();
    assert!(site.builds().begin(&name).is_none() && site.builds().is_barred(&job.version, "rows-1"));
    assert_eq!(site.builds().under_way(), 1);
    drop(under_way);
    assert!(!site.builds().is_barred(&job.version, "rows-1") && site.builds().under_way() == 0);
}
