//! A worker that is started again with the same cache directory: what it knew it knows, and what its disk lost it
//! learns again.
//!
//! Knows the directory's layout only as far as it breaks it. Every answer is compared with the sample's own rows, and
//! what was kept shows in the requests that the store does not see.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alcedo_client::{Answer, Client};
use alcedo_testkit::cluster::{BUCKET, worker_toml};
use alcedo_testkit::lake::{SampleLake, TruthRow};
use alcedo_testkit::s3::{Counters, S3Options, S3Server};
use alcedo_worker::{Config, Running, Worker};
use tempfile::TempDir;

use crate::sample::{absent_ids, assert_nothing, large, large_file, metric, only_row, small, small_objects, values};

/// Far longer than any answer takes, so that a slow machine fails no test.
const DEADLINE: Duration = Duration::from_secs(25);

/// A store, and a cache directory that outlives the workers on it.
struct Home {
    store: S3Server,
    dir: TempDir,
    mount: &'static str,
}

/// How often a worker is started again whose disk did not answer in time.
const MOST_LATE: usize = 50;

/// A worker on it, and its client.
struct Started {
    client: Client,
    // Stops when this is dropped, and writes what it has learned.
    worker: Running,
}

impl Started {
    /// Reads that the disk did not answer in time. The store is asked then, which says nothing about what is on it.
    async fn late_reads(&self) -> u64 {
        metric(&self.worker, "alcedo_page_store_events_total{event=\"slow_read\"}").await
            + metric(&self.worker, "alcedo_metadata_store_events_total{event=\"error\"}").await
    }
}

impl Home {
    fn new(mount: &'static str) -> Self {
        let store = S3Server::start(S3Options::default()).unwrap();
        store.create_bucket(BUCKET);
        for (key, bytes) in small_objects() {
            store.put(BUCKET, &key, bytes);
        }
        for file in [0, 1] {
            store.put(BUCKET, &format!("big-{file}.parquet"), large_file(file));
        }
        Self { store, dir: tempfile::tempdir().unwrap(), mount }
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn start(&self) -> Started {
        let tables = format!("[cache]\ndir = \"{}\"", self.cache().display());
        let config = Config::from_toml(&worker_toml(&self.store.url(), self.mount, &tables), "worker.toml").unwrap();
        let worker = Worker::start(config).unwrap();
        let client = Client::builder().endpoints([worker.local_addr().to_string()]).deadline(DEADLINE).build().unwrap();
        Started { client, worker }
    }

    /// What the store saw since the last time.
    fn taken(&self) -> Counters {
        let counters = self.store.counters();
        self.store.reset_counters();
        counters
    }

    /// Starts a worker that answers this without a request to the store.
    async fn start_knowing(&self, ask: impl AsyncFn(&Client)) -> Started {
        for _ in 0..MOST_LATE {
            self.taken();
            let started = self.start();
            ask(&started.client).await;
            if self.store.requests().is_empty() || started.late_reads().await == 0 {
                self.assert_untouched();
                return started;
            }
        }
        panic!("the disk does not answer in time");
    }

    /// The store saw no request since the last time.
    fn assert_untouched(&self) {
        let requests = self.store.requests();
        assert!(requests.is_empty(), "{requests:?}");
    }
}

async fn ask(client: &Client, path: &str, id: i64) -> Answer {
    client.lookup(path).key_column("id").key(id).await.unwrap()
}

async fn right(client: &Client, path: &str, truth: &TruthRow) {
    assert_eq!(only_row(&ask(client, path, truth.id).await).1, values(truth), "{path}");
}

/// Rows of the small lake below its prefix, spelled as a prefix and as a name; a file of it by name; an absent key;
/// and rows of two large files, the second without a page index.
async fn ask_everything(client: &Client) {
    let (lake, big) = (small(), large(7));
    for number in [3, 1_234, 15_000] {
        let truth = lake.row(number).unwrap();
        right(client, "lake/lake/", &truth).await;
        right(client, "lake/lake", &truth).await;
        let name = SampleLake::file_name(lake.file_of_row(number).unwrap());
        right(client, &format!("lake/lake/{name}"), &truth).await;
    }
    let absent = absent_ids(&lake, 3)[0];
    assert_nothing(&ask(client, "lake/lake/", absent).await, 1);
    for file in [0, 1] {
        let rows = big.rows_of_file(file);
        for row in [rows[0], rows[rows.len() / 2]] {
            right(client, &format!("lake/big-{file}.parquet"), &big.row(row).unwrap()).await;
        }
    }
}

#[tokio::test]
async fn what_was_asked_before_a_restart_costs_the_store_nothing_after_it() {
    let home = Home::new("");
    let started = home.start();
    ask_everything(&started.client).await;
    assert!(home.taken().get > 0);
    // What a later lookup learned is kept as well as what the first did.
    ask_everything(&started.client).await;
    home.assert_untouched();
    drop(started);
    for _ in 0..2 {
        drop(started_again(&home).await);
    }
}

async fn started_again(home: &Home) -> Started {
    home.start_knowing(ask_everything).await
}

#[tokio::test]
async fn a_file_that_a_prefix_has_shown_is_not_asked_for_its_version_by_name() {
    let home = Home::new("");
    let (started, lake) = (home.start(), small());
    let truth = lake.row(1_234).unwrap();
    right(&started.client, "lake/lake/", &truth).await;
    assert_eq!(home.taken().list, 1);
    for file in 0..lake.spec().files {
        let path = format!("lake/lake/{}", SampleLake::file_name(file));
        let row = lake.row(lake.rows_of_file(file)[0]).unwrap();
        right(&started.client, &path, &row).await;
    }
    // Data pages may be missing; the version never is, so no read takes whatever it gets.
    let requests = home.store.requests();
    assert!(requests.iter().all(|request| request.if_match.is_some()), "{requests:?}");
    drop(started);
    let path = format!("lake/lake/{}", SampleLake::file_name(lake.file_of_row(1_234).unwrap()));
    home.start_knowing(async |client: &Client| right(client, &path, &truth).await).await;
}

#[tokio::test]
async fn where_the_store_must_be_asked_first_a_restart_costs_that_question_only() {
    for mount in ["freshness = \"always\"", "freshness = { mode = \"ttl\", soft = \"0s\", hard = \"0s\" }"] {
        let home = Home::new(mount);
        let truth = large(7).row(large(7).rows_of_file(0)[5]).unwrap();
        right(&home.start().client, "lake/big-0.parquet", &truth).await;
        home.taken();
        right(&home.start().client, "lake/big-0.parquet", &truth).await;
        let seen = home.taken();
        assert_eq!((seen.head, seen.get, seen.list), (1, 0, 0), "{mount}");
        // Another file took its place while nobody looked.
        home.store.put(BUCKET, "big-0.parquet", large_file(1));
        let other = large(7).row(large(7).rows_of_file(1)[5]).unwrap();
        let started = home.start();
        right(&started.client, "lake/big-0.parquet", &other).await;
        assert_nothing(&ask(&started.client, "lake/big-0.parquet", truth.id).await, 1);
    }
}

#[tokio::test]
async fn an_old_version_that_is_believed_after_a_restart_is_noticed_when_it_is_read() {
    let home = Home::new("freshness = \"immutable\"");
    let (lake, path) = (large(7), "lake/big-0.parquet");
    right(&home.start().client, path, &lake.row(lake.rows_of_file(0)[0]).unwrap()).await;
    home.store.put(BUCKET, "big-0.parquet", large_file(1));
    // A row whose data pages nobody has read: the store says that they are another file's.
    let started = home.start();
    let rows = lake.rows_of_file(0);
    assert_nothing(&ask(&started.client, path, lake.row(rows[rows.len() - 1]).unwrap().id).await, 1);
    right(&started.client, path, &lake.row(lake.rows_of_file(1)[7]).unwrap()).await;
    drop(started);
    let truth = lake.row(lake.rows_of_file(1)[7]).unwrap();
    home.start_knowing(async |client: &Client| right(client, path, &truth).await).await;
}

/// The files of the metadata store whose names contain this.
fn metadata_files(home: &Home, kind: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(home.cache().join("metadata")).unwrap().map(|entry| entry.unwrap().path());
    let is_meant = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(kind));
    files.filter(|path| is_meant(path)).collect()
}

#[tokio::test]
async fn whatever_the_metadata_store_lost_is_learned_again() {
    let home = Home::new("");
    ask_everything(&home.start().client).await;
    home.taken();
    for kind in ["CURRENT", "MANIFEST", ".log", "OPTIONS", "IDENTITY", "LOCK", ""] {
        for remove in [true, false] {
            let files = metadata_files(&home, kind);
            assert!(!files.is_empty(), "{kind}");
            for file in files {
                let length = fs::metadata(&file).unwrap().len() as usize;
                if remove { fs::remove_file(&file) } else { fs::write(&file, vec![0xa5; length]) }.unwrap();
            }
            let started = home.start();
            ask_everything(&started.client).await;
            home.taken();
            // It keeps what it learns from now on.
            drop(started);
            drop(started_again(&home).await);
        }
    }
    fs::remove_dir_all(home.cache().join("metadata")).unwrap();
    ask_everything(&home.start().client).await;
    assert!(home.taken().list > 0);
    drop(started_again(&home).await);
}

#[tokio::test]
async fn a_metadata_store_that_vanishes_under_lookups_harms_none_of_them() {
    let home = Home::new("");
    let started = home.start();
    for round in 0..4 {
        ask_everything(&started.client).await;
        if round % 2 == 0 {
            fs::remove_dir_all(home.cache().join("metadata")).unwrap();
        } else {
            for file in metadata_files(&home, "").iter().filter(|file| file.is_file()) {
                fs::write(file, "nothing").unwrap();
            }
        }
        ask_everything(&started.client).await;
        fs::create_dir_all(home.cache().join("metadata")).unwrap();
    }
    drop(started);
    ask_everything(&home.start().client).await;
}
