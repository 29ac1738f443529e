//! A long mixed run against one worker with small bounds: what it may take in memory and on disk, and what it took.
//!
//! Layer 5. It knows how to load a worker in every way at once and how to look at its process and its directory. It
//! must not know how the worker keeps its bounds. Every row is compared with the truth.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use alcedo_client::Client;
use anyhow::{Context, ensure};
use bytes::Bytes;
use futures::TryStreamExt as _;
use tokio::task::JoinSet;

use crate::cluster::{ClusterOptions, ProcessCluster};
use crate::lake::{SampleLake, SampleSpec};

/// The worker's disk for pages: a third of the lake, so that pages are reclaimed all the time.
pub const DISK_BYTES: u64 = 16 << 20;
/// What may lie in the cache directory beside the pages: RocksDB's files, logs and what it has not compacted yet.
pub const METADATA_ALLOWANCE_BYTES: u64 = 64 << 20;
/// The worker's settings: small, so that every bound is reached within seconds.
const SETTINGS: &str = "[cache]\ndisk = \"16MiB\"\nindex = \"1MiB\"\nlistings = \"1MiB\"\n[lookup]\npermits = 64\n\
                        [origin]\nconcurrent_gets = 16\nbuffered_bytes = 33554432\n";
/// The store is asked again now and then, as in a long life.
const USUAL: &str = "freshness = \"ttl\"\n";
/// How often the process and the directory are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Tasks that ask, each in its own manner.
const TASKS: u64 = 12;
/// Bytes of one read.
const READ_BYTES: usize = 200_000;
/// Rows and files of the lake.
const SPEC: SampleSpec = SampleSpec { rows: 600_000, files: 32, seed: 11 };

/// What a run saw.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Lookups and reads that were answered, all of them right.
    pub answered: u64,
    /// Those that were turned away for want of permits or time, which a loaded worker may do.
    pub turned_away: u64,
    /// Those that were dropped by the asker.
    pub dropped: u64,
    /// Largest resident set of the worker in each tenth of the run, in bytes.
    pub resident_bytes: Vec<u64>,
    /// Most bytes in the cache directory at any look.
    pub most_disk_bytes: u64,
    /// Bytes that the store sent: many times the lake when pages were reclaimed all the time.
    pub origin_bytes: u64,
}

/// Loads a worker for so long and looks at it.
///
/// # Errors
/// When a worker cannot be started, a row is wrong, or a call fails for a reason that load does not excuse.
pub async fn run(length: Duration) -> anyhow::Result<Seen> {
    let lake = SampleLake::new(SPEC)?;
    let objects = lake.files().map(|file| file.map(|(name, bytes)| (format!("t/{name}"), bytes)));
    let objects = objects.collect::<anyhow::Result<Vec<_>>>()?;
    let files = objects.iter().map(|(_, bytes)| bytes.clone()).collect();
    let (tables, mount) = (SETTINGS.to_owned(), USUAL.to_owned());
    let options = ClusterOptions { objects, tables, mount, cache: true, ..ClusterOptions::default() };
    let cluster = ProcessCluster::start(options).await?;
    let shared = Arc::new(Shared::new(lake, files));
    let mut tasks = JoinSet::new();
    for manner in 0..TASKS {
        tasks.spawn(Arc::clone(&shared).ask(cluster.client().clone(), manner));
    }
    let looked = look(&cluster, length, &mut tasks).await;
    shared.stop.store(true, Ordering::Relaxed);
    let mut seen = looked?;
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    seen.answered = shared.answered.load(Ordering::Relaxed);
    seen.turned_away = shared.turned_away.load(Ordering::Relaxed);
    seen.dropped = shared.dropped.load(Ordering::Relaxed);
    seen.origin_bytes = cluster.store().counters().bytes_sent;
    Ok(seen)
}

/// Looks at the worker until the time is over or an asker has failed.
async fn look(
    cluster: &ProcessCluster,
    length: Duration,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Seen> {
    let worker = cluster.workers().first().context("there is no worker")?;
    let directory = cluster.cache_dir(0)?;
    let id = worker.id().context("the worker has ended")?;
    let mut seen = Seen { resident_bytes: vec![0; 10], ..Seen::default() };
    let began = Instant::now();
    while began.elapsed() < length {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let tenth = (began.elapsed().as_secs_f64() / length.as_secs_f64() * 10.0) as usize;
        let resident = resident_bytes(id)?;
        if let Some(most) = seen.resident_bytes.get_mut(tenth.min(9)) {
            *most = (*most).max(resident);
        }
        seen.most_disk_bytes = seen.most_disk_bytes.max(directory_bytes(&directory));
        if let Some(ended) = tasks.try_join_next() {
            ended??;
        }
    }
    Ok(seen)
}

struct Shared {
    lake: SampleLake,
    files: Vec<Bytes>,
    stop: AtomicBool,
    answered: AtomicU64,
    turned_away: AtomicU64,
    dropped: AtomicU64,
}

impl Shared {
    fn new(lake: SampleLake, files: Vec<Bytes>) -> Self {
        let zero = AtomicU64::default;
        Self { lake, files, stop: AtomicBool::new(false), answered: zero(), turned_away: zero(), dropped: zero() }
    }

    /// Asks in one manner until it is told to stop.
    async fn ask(self: Arc<Self>, client: Client, manner: u64) -> anyhow::Result<()> {
        let mut state = manner.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        while !self.stop.load(Ordering::Relaxed) {
            // Marsaglia's xorshift: any spread over the rows will do.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let number = state % self.lake.spec().rows;
            let outcome = match manner % 6 {
                0 | 1 => self.one(&client, number).await,
                2 => self.many(&client, number).await,
                3 => self.below_the_prefix(&client, number).await,
                4 => self.bytes(&client, number).await,
                _ => {
                    let hurry = Duration::from_micros(state % 3_000);
                    match tokio::time::timeout(hurry, self.one(&client, number)).await {
                        Ok(outcome) => outcome,
                        Err(_) => {
                            self.dropped.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                    }
                }
            };
            match outcome {
                Ok(()) => self.answered.fetch_add(1, Ordering::Relaxed),
                Err(error) if excused(&error) => self.turned_away.fetch_add(1, Ordering::Relaxed),
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }

    fn path(&self, number: u64) -> anyhow::Result<String> {
        let file = self.lake.file_of_row(number).context("the row is in no file")?;
        Ok(format!("lake/t/{}", SampleLake::file_name(file)))
    }

    async fn one(&self, client: &Client, number: u64) -> anyhow::Result<()> {
        let truth = self.lake.row(number).context("no such row")?;
        let answer = client.lookup(self.path(number)?).key_column("id").key(truth.id).select(["user", "score"]).await?;
        self.compare(&answer, &truth.user)
    }

    async fn many(&self, client: &Client, number: u64) -> anyhow::Result<()> {
        let file = self.lake.file_of_row(number).context("the row is in no file")?;
        let rows = self.lake.rows_of_file(file);
        let keys: Vec<i64> =
            rows.iter().step_by(rows.len() / 50 + 1).filter_map(|row| self.lake.row(*row)).map(|row| row.id).collect();
        let count = keys.len();
        let answer = client.lookup(self.path(number)?).key_column("id").keys(keys).select(["id"]).await?;
        ensure!(answer.rows().count() == count, "{count} keys have {} rows", answer.rows().count());
        Ok(())
    }

    async fn below_the_prefix(&self, client: &Client, number: u64) -> anyhow::Result<()> {
        let truth = self.lake.row(number).context("no such row")?;
        let answer = client.lookup("lake/t/").key_column("id").key(truth.id).select(["user"]).await?;
        self.compare(&answer, &truth.user)
    }

    /// Reads a stretch of a file as bytes.
    async fn bytes(&self, client: &Client, number: u64) -> anyhow::Result<()> {
        let file = self.lake.file_of_row(number).context("the row is in no file")?;
        let whole = self.files.get(file as usize).context("there is no such file")?;
        let offset = usize::try_from(number)? * 31 % whole.len();
        let length = READ_BYTES.min(whole.len() - offset);
        let mut chunks = client.read(&self.path(number)?, offset as u64, Some(length as u64));
        let mut read = 0;
        while let Some(chunk) = chunks.try_next().await? {
            let expected = whole.get(offset + read..offset + read + chunk.len());
            ensure!(expected == Some(&chunk[..]), "wrong bytes of file {file} behind {}", offset + read);
            read += chunk.len();
        }
        ensure!(read == length, "{read} of {length} bytes came");
        Ok(())
    }

    fn compare(&self, answer: &alcedo_client::Answer, user: &str) -> anyhow::Result<()> {
        let (_, row) = answer.rows().next().context("a row is missing")?;
        let expected = alcedo_client::Value::String(user.to_owned());
        ensure!(row.values.first() == Some(&expected), "wrong row: {:?} instead of {expected:?}", row.values);
        Ok(())
    }
}

/// What a worker under too much load may say.
fn excused(error: &anyhow::Error) -> bool {
    use alcedo_client::Kind;
    let kind = error.downcast_ref::<alcedo_client::Error>().map(alcedo_client::Error::kind);
    matches!(kind, Some(Kind::Exhausted | Kind::Deadline | Kind::Unavailable))
}

/// The resident set of a process, from `/proc/<id>/status`.
fn resident_bytes(id: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).context("the worker has ended")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS line")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kibibytes * 1024)
}

/// Bytes that the files below a directory take on disk.
#[must_use]
pub fn directory_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => directory_bytes(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
