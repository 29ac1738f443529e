//! What is measured, in which order, and what happens to the workers meanwhile.
//!
//! Knows the cluster of processes and the lake. It must not know how a lookup is timed or printed.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use alcedo_client::Client;
use anyhow::{Context, Result};
use tokio::sync::Notify;

use super::PREFIX;
use super::measure::{self, Measured, Measurement, Question};
use crate::cluster::{BUCKET, ProcessCluster};
use crate::lake::SampleLake;

/// Deadline of a lookup: the first touch of a file without an index reads and decodes its whole key column.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often all workers are started with empty disks to measure lookups of which nothing is known.
const FRESH_STARTS: usize = 5;
/// Lookups by a key in no order, which asks every file: a few show what that costs.
const SCANNED_LOOKUPS: u64 = 20;
/// Calls of many keys.
const BATCHES: u64 = 50;
/// Keys of such a call.
const BATCH_KEYS: u64 = 100;
/// Lookups during which a worker is killed.
const LOOKUPS_OF_THE_KILL: u64 = 1_000;
/// How many of them have been answered when it is killed.
const KILL_AFTER: usize = 100;

/// The workers and what is asked of them.
pub(super) struct Session<'a> {
    lake: &'a SampleLake,
    pub(super) cluster: ProcessCluster,
    rows: u64,
    lookups: u64,
    client: Client,
}

/// What everything came to.
pub(super) struct Shown {
    pub(super) keys: u64,
    pub(super) wrong: u64,
    pub(super) failed: u64,
    pub(super) complaint: Option<String>,
}

impl<'a> Session<'a> {
    pub(super) fn new(lake: &'a SampleLake, cluster: ProcessCluster, rows: u64, lookups: u64) -> Result<Self> {
        let client = client(&cluster)?;
        Ok(Self { lake, cluster, rows, lookups, client })
    }

    /// Measures everything, and prints each part of the table when it is there.
    pub(super) async fn measure(&mut self) -> Result<Shown> {
        let by_prefix = self.by_prefix().await?;
        measure::print("whole rows, by the lake's prefix", &by_prefix);
        let (by_file, answered) = self.by_file().await?;
        measure::print("whole rows, by the file that has them", &by_file);
        let by_loss = self.through_a_loss(&answered).await?;
        measure::print("the same rows, one worker of three killed", &by_loss);
        let all: Vec<&Measured> = by_prefix.iter().chain(&by_file).chain(&by_loss).collect();
        Ok(Shown {
            keys: all.iter().map(|row| row.keys).sum(),
            wrong: all.iter().map(|row| row.wrong).sum(),
            failed: all.iter().map(|row| row.failed).sum(),
            complaint: all.iter().find_map(|row| row.complaint.clone()),
        })
    }

    async fn by_prefix(&mut self) -> Result<Vec<Measured>> {
        let prefix = format!("{BUCKET}/{PREFIX}/");
        let ask = |column, number| Question { path: prefix.clone(), column, number };
        let mut rows = vec![self.nothing_known(&ask).await?];
        for (column, kind, lookups) in
            [("id", "int64", self.lookups), ("user", "string", self.lookups.min(SCANNED_LOOKUPS))]
        {
            for time in ["first time", "again"] {
                let mut part = Measurement::new(&format!("by {kind} key, {time}"), self.cluster.store());
                for i in 0..lookups {
                    part.lookup(&self.client, self.lake, &ask(column, self.nth_row(i))).await?;
                }
                rows.push(part.finish(self.cluster.store()));
            }
        }
        let wanted: Vec<u64> = (0..BATCH_KEYS).map(|i| self.nth_row(i)).collect();
        let mut part = Measurement::new(&format!("by int64 key, {BATCH_KEYS} keys a call"), self.cluster.store());
        for _ in 0..self.lookups.min(BATCHES) {
            part.multi_get(&self.client, self.lake, &prefix, &wanted).await?;
        }
        rows.push(part.finish(self.cluster.store()));
        Ok(rows)
    }

    /// The first lookup after all workers were started with empty disks, several times.
    async fn nothing_known(&mut self, ask: &impl Fn(&'static str, u64) -> Question) -> Result<Measured> {
        let mut part = Measurement::new("by int64 key, nothing known", self.cluster.store());
        for round in 0..FRESH_STARTS {
            self.start_empty().await?;
            // Far from the rows that are asked for later.
            let question = ask("id", self.nth_row(1_000_000 + round as u64));
            part.lookup(&self.client, self.lake, &question).await?;
        }
        Ok(part.finish(self.cluster.store()))
    }

    /// Ends all workers, clears their disks and starts them again.
    async fn start_empty(&mut self) -> Result<()> {
        for index in 0..self.cluster.workers().len() {
            let directory = self.cluster.cache_dir(index)?;
            let worker = &mut self.cluster.workers_mut()[index];
            worker.crash().await?;
            if directory.exists() {
                fs::remove_dir_all(&directory).context("cannot clear a cache directory")?;
            }
            worker.restart().await?;
        }
        self.client = client(&self.cluster)?;
        Ok(())
    }

    /// Lookups that name the file, so that every worker is asked; and who answered for which row.
    async fn by_file(&self) -> Result<(Vec<Measured>, BTreeMap<u64, Arc<str>>)> {
        let (mut rows, mut answered) = (Vec::new(), BTreeMap::new());
        for time in ["first time", "again"] {
            let mut part = Measurement::new(&format!("by int64 key, {time}"), self.cluster.store());
            for number in (0..self.lookups).map(|i| self.nth_row(i)) {
                let worker = part.lookup(&self.client, self.lake, &self.in_file(number)?).await?;
                answered.extend(worker.map(|worker| (number, worker)));
            }
            rows.push(part.finish(self.cluster.store()));
        }
        Ok((rows, answered))
    }

    /// Kills the worker that answered most, in the middle of lookups; then starts it again over its disk.
    async fn through_a_loss(&mut self, answered: &BTreeMap<u64, Arc<str>>) -> Result<Vec<Measured>> {
        let victim = busiest(answered).context("no lookup was answered, so there is no worker to kill")?;
        let index = self.cluster.workers().iter().position(|worker| worker.endpoint() == &*victim);
        let index = index.context("an answer came from an unknown worker")?;
        let wanted: Vec<Question> =
            (0..LOOKUPS_OF_THE_KILL).map(|i| self.in_file(self.nth_row(i % self.lookups))).collect::<Result<_>>()?;
        let (client, lake, killing) = (self.client.clone(), self.lake, Notify::new());
        let mut part = Measurement::new("it is killed (SIGKILL) after a tenth of these", self.cluster.store());
        let workers = self.cluster.workers_mut();
        let lookups = async {
            for question in &wanted {
                part.lookup(&client, lake, question).await?;
                if part.calls() == KILL_AFTER.min(wanted.len()) {
                    killing.notify_one();
                }
            }
            anyhow::Ok(())
        };
        let kill = async {
            killing.notified().await;
            workers[index].crash().await
        };
        // Together, so that lookups are under way while it dies.
        tokio::try_join!(lookups, kill)?;
        let mut rows = vec![part.finish(self.cluster.store())];
        self.cluster.workers_mut()[index].restart().await?;
        self.client = self::client(&self.cluster)?;
        rows.push(self.after_the_restart(answered, &victim).await?);
        Ok(rows)
    }

    /// What the restarted worker had, asked of it once more.
    async fn after_the_restart(&self, answered: &BTreeMap<u64, Arc<str>>, victim: &str) -> Result<Measured> {
        let mut part = Measurement::new("it is up again: what it had, asked of it", self.cluster.store());
        for (number, _) in answered.iter().filter(|(_, worker)| ***worker == *victim) {
            part.lookup(&self.client, self.lake, &self.in_file(*number)?).await?;
        }
        Ok(part.finish(self.cluster.store()))
    }

    fn in_file(&self, number: u64) -> Result<Question> {
        let file = self.lake.file_of_row(number).context("the lake has lost a row")?;
        Ok(Question { path: format!("{BUCKET}/{PREFIX}/{}", SampleLake::file_name(file)), column: "id", number })
    }

    /// Rows far apart, the same in each run.
    pub(super) fn nth_row(&self, n: u64) -> u64 {
        (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) % self.rows
    }
}

/// A client that knows nothing yet.
fn client(cluster: &ProcessCluster) -> Result<Client> {
    let endpoints = cluster.workers().iter().map(|worker| worker.endpoint().to_owned());
    Ok(Client::builder().endpoints(endpoints).deadline(DEADLINE).build()?)
}

/// The worker that answered for most rows.
fn busiest(answered: &BTreeMap<u64, Arc<str>>) -> Option<Arc<str>> {
    let mut counts: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
    for worker in answered.values() {
        *counts.entry(worker).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(worker, _)| Arc::clone(worker))
}
