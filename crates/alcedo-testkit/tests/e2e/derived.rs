//! Derived objects from outside: what is hot is built for in the background, and whatever happens to a build or to what
//! it made, every answer is right.
//!
//! Knows metrics, the log, and the cache directory as far as it breaks it. Every answer is compared with the sample's
//! own rows.

use std::fs;
use std::path::Path;
use std::time::Duration;

use alcedo_client::Client;
use alcedo_testkit::cluster::{BUCKET, WorkerProcess, free_ports, worker_toml};
use alcedo_testkit::s3::{S3Options, S3Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::sample::{draw, large, large_file, only_row, values};

/// Lookups until something must have been built: minutes of work at the worst.
const MOST_ROUNDS: usize = 600;
const KEYS_PER_ROUND: usize = 50;
/// Far longer than any answer takes, so that a slow machine fails no test.
const DEADLINE: Duration = Duration::from_secs(25);
/// Between two rounds; it is looked for hot files every few seconds.
const PAUSE: Duration = Duration::from_millis(250);
/// A part of the columns, and no list: what is asked is what is built.
const COLUMNS: [&str; 3] = ["user", "score", "created"];

/// A worker in a process of its own over one file that was not written for seeking.
struct Site {
    _store: S3Server,
    worker: WorkerProcess,
    admin: u16,
    rows: Vec<u64>,
}

impl Site {
    async fn start(tables: &str, cache: &str) -> Self {
        let store = S3Server::start(S3Options::default()).unwrap();
        store.create_bucket(BUCKET);
        store.put(BUCKET, "big.parquet", large_file(1));
        let admin = free_ports(1).unwrap()[0];
        let tables = format!(
            "{tables}\n[cache]\ndir = \"cache\"\ndecoded = \"0\"\n{cache}\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n"
        );
        let worker = WorkerProcess::start(&worker_toml(&store.url(), "", &tables), &[]).await.unwrap();
        Self { _store: store, worker, admin, rows: large(7).rows_of_file(1) }
    }

    /// Asks for rows all over the file, and compares them.
    async fn ask(&self, round: usize) {
        let client = Client::builder().endpoints([self.worker.endpoint()]).deadline(DEADLINE).build().unwrap();
        let lake = large(7);
        for number in draw(KEYS_PER_ROUND * (round + 1), self.rows.len() as u64).split_off(KEYS_PER_ROUND * round) {
            let truth = lake.row(self.rows[number as usize]).unwrap();
            let lookup = client.lookup("lake/big.parquet").key_column("id").key(truth.id).select(COLUMNS);
            let answer = lookup.await.unwrap();
            let all = values(&truth);
            assert_eq!(only_row(&answer).1, [all[1].clone(), all[4].clone(), all[6].clone()], "row {number}");
        }
    }

    /// Asks until a metric says so much.
    async fn ask_until(&self, metric: &str, least: u64) {
        for round in 0..MOST_ROUNDS {
            self.ask(round).await;
            if self.metric(metric).await >= least {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("{metric} never was {least}: {}", self.worker.stderr().unwrap());
    }

    async fn metric(&self, name: &str) -> u64 {
        let mut socket = TcpStream::connect(("127.0.0.1", self.admin)).await.unwrap();
        socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut page = String::new();
        socket.read_to_string(&mut page).await.unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {page}")).trim().parse().unwrap()
    }

    fn objects(&self) -> Vec<std::path::PathBuf> {
        let directory = self.worker.home().join("cache/derived");
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

const DONE: &str = "alcedo_builds_total{result=\"done\"}";
const READY_KEYS: &str = "alcedo_derived_keys_total{kind=\"ready\"}";
const REFUSED: &str = "alcedo_builds_total{result=\"refused\"}";

fn flip(path: &Path) {
    let bytes: Vec<u8> = fs::read(path).unwrap().iter().map(|byte| byte ^ 0x11).collect();
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn what_is_hot_is_built_for_is_found_after_a_restart_and_may_be_damaged() {
    let mut site = Site::start("[builds]\ncpu_percent = 100", "").await;
    site.ask_until(READY_KEYS, 1).await;
    site.ask(1_000).await;
    let made = site.metric("alcedo_derived_events_total{event=\"made\"}").await;
    assert_eq!(site.worker.terminate().await.unwrap(), Some(0), "{}", site.worker.stderr().unwrap());
    site.worker.restart().await.unwrap();
    assert!(site.metric("alcedo_derived_events_total{event=\"restored\"}").await >= made.min(1));
    site.ask(1_001).await;
    assert!(site.metric(READY_KEYS).await > 0, "what was built before is used");
    assert!(!site.objects().is_empty());
    site.objects().iter().for_each(|path| flip(path));
    site.ask(1_002).await;
    assert!(site.metric("alcedo_derived_events_total{event=\"broken\"}").await > 0);
}

#[tokio::test]
async fn a_build_that_is_killed_in_the_middle_begins_again() {
    let mut site = Site::start("[builds]\ncpu_percent = 1", "").await;
    site.ask_until("alcedo_builds_begun_total", 1).await;
    site.worker.crash().await.unwrap();
    let toml = site.worker.home().join("worker.toml");
    fs::write(&toml, fs::read_to_string(&toml).unwrap().replace("cpu_percent = 1", "cpu_percent = 100")).unwrap();
    site.worker.restart().await.unwrap();
    site.ask_until(DONE, 1).await;
    site.ask(1_000).await;
}

#[tokio::test]
async fn a_full_quota_means_no_build_and_it_is_said_aloud() {
    let site = Site::start("[builds]\ncpu_percent = 100", "derived = \"1MiB\"").await;
    site.ask_until(REFUSED, 1).await;
    let log = site.worker.stderr().unwrap();
    assert!(log.contains("ERROR") && log.contains("no room for a derived object"), "{log}");
    // A keymap may have found room; the rows did not, and nothing lies beyond the quota.
    assert_eq!(site.metric("alcedo_derived_objects{kind=\"ready\"}").await, 0);
    let held: u64 = site.objects().iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(held <= 1 << 20, "{held} bytes");
    site.ask(1_000).await;
}
