//! The quickstart: a real lake, a real store, a real worker process, real lookups, and one table of what they cost.
//!
//! Layer 5. Everything is on loopback and in a temporary directory. Every looked-up row is compared with the generated
//! truth, and the figures come from the store's own counters and this process's clock, never from what the worker says
//! of itself.

mod measure;
mod process;

use std::sync::Arc;
use std::time::{Duration, Instant};

use alcedo_client::Client;
use anyhow::{Context, Result, bail};

use crate::lake::{SampleLake, SampleSpec};
use crate::s3::{S3Options, S3Server};
use measure::{Measured, Measurement};
use process::WorkerProcess;

/// The bucket and prefix of the sample lake, and its mount's name.
const BUCKET: &str = "sample";
/// The lake's name as a mount.
const MOUNT: &str = "lake";
/// First-byte latency that the store adds to each request: what S3 takes in its own region.
const STORE_LATENCY: Duration = Duration::from_millis(30);
/// Deadline of a lookup: the first touch of a file without an index reads and decodes its whole key column.
const DEADLINE: Duration = Duration::from_secs(10);
/// Workers that are started afresh to measure lookups of which nothing is known.
const FRESH_WORKERS: usize = 5;

/// What the command line asks for.
#[derive(Debug, Clone)]
pub struct Options {
    rows: u64,
    files: u32,
    lookups: u64,
    keep: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { rows: 1_000_000, files: 16, lookups: 200, keep: false }
    }
}

/// What `--help` prints.
const USAGE: &str = "usage: cargo xtask quickstart [--rows N] [--files N] [--lookups N] [--keep]";

impl Options {
    /// Reads `--rows N --files N --lookups N --keep`.
    ///
    /// # Errors
    /// What is not one of them, with the usage.
    pub fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut args = args;
        while let Some(arg) = args.next() {
            let mut number = || {
                let value = args.next().unwrap_or_default();
                value
                    .replace('_', "")
                    .parse::<u64>()
                    .map_err(|_| format!("{arg} takes a number, not `{value}`\n{USAGE}"))
            };
            match arg.as_str() {
                "--rows" => options.rows = number()?,
                "--files" => options.files = number()?.try_into().map_err(|_| "too many files".to_owned())?,
                "--lookups" => options.lookups = number()?,
                "--keep" => options.keep = true,
                _ => return Err(format!("`{arg}` is no flag of the quickstart\n{USAGE}")),
            }
        }
        if options.rows < u64::from(options.files) * 100 || options.files == 0 || options.lookups == 0 {
            return Err(format!("at least one file, one lookup and 100 rows a file are needed\n{USAGE}"));
        }
        Ok(options)
    }
}

/// Runs the quickstart to its end, or with `--keep` until Ctrl-C.
///
/// # Errors
/// Something could not be started, or a row differed from the truth.
#[allow(clippy::print_stdout)] // The quickstart is a program that talks to a person.
pub async fn run(options: Options) -> Result<()> {
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let lake = SampleLake::new(SampleSpec { rows: options.rows, files: options.files, ..SampleSpec::default() })?;
    let (store, bytes) = fill_store(&lake)?;
    println!(
        "sample lake   {} rows in {} Parquet files, {:.1} MB: s3://{BUCKET}/{MOUNT}/ on a loopback S3 server",
        options.rows,
        options.files,
        bytes as f64 / 1e6
    );
    println!("              half with page index and 64 KiB data pages, half as pyarrow and DuckDB write by default");
    println!("              every request to the store waits {} ms first\n", STORE_LATENCY.as_millis());
    store.set_latency(STORE_LATENCY);
    let session = Session { options: &options, lake: &lake, store: &store, directory: directory.path() };
    let (worker, rows) = session.measure().await?;
    measure::print(&rows);
    println!("\nevery row was compared with the generated truth: {} lookups, 0 wrong", measure::total(&rows));
    session.end(worker).await
}

#[allow(clippy::print_stdout)]
fn fill_store(lake: &SampleLake) -> Result<(S3Server, u64)> {
    let started = Instant::now();
    let store = S3Server::start(S3Options::default()).context("cannot start the S3 server")?;
    store.create_bucket(BUCKET);
    let mut bytes = 0;
    for file in lake.files() {
        let (name, content) = file?;
        bytes += content.len() as u64;
        store.put(BUCKET, &format!("{MOUNT}/{name}"), content);
    }
    println!("wrote the sample lake in {:.1} s", started.elapsed().as_secs_f64());
    Ok((store, bytes))
}

struct Session<'a> {
    options: &'a Options,
    lake: &'a SampleLake,
    store: &'a S3Server,
    directory: &'a std::path::Path,
}

impl Session<'_> {
    async fn start_worker(&self) -> Result<(WorkerProcess, Client)> {
        let worker =
            WorkerProcess::start(self.directory, MOUNT, &format!("s3://{BUCKET}/{MOUNT}"), &self.store.url()).await?;
        let client = Client::builder().endpoints([worker.address()]).deadline(DEADLINE).build()?;
        Ok((worker, client))
    }

    async fn measure(&self) -> Result<(WorkerProcess, Vec<Measured>)> {
        let mut rows = Vec::new();
        let mut fresh = Measurement::new("by int64 key, nothing known", self.store);
        for round in 0..FRESH_WORKERS {
            let (worker, client) = self.start_worker().await?;
            fresh.lookup(&client, self.lake, "id", self.nth_row(round as u64)).await?;
            worker.stop().await?;
        }
        rows.push(fresh.finish());
        let (worker, client) = self.start_worker().await?;
        for column in ["id", "user"] {
            let kind = if column == "id" { "int64" } else { "string" };
            // The string key is in no order: every file has to be asked for it. A few lookups show what that costs.
            let lookups = if column == "id" { self.options.lookups } else { self.options.lookups.min(20) };
            for name in ["first time", "again"] {
                let mut measurement = Measurement::new(&format!("by {kind} key, {name}"), self.store);
                for i in 0..lookups {
                    measurement.lookup(&client, self.lake, column, self.nth_row(100 + i)).await?;
                }
                rows.push(measurement.finish());
            }
        }
        let mut batch = Measurement::new("by int64 key, 100 keys a call", self.store);
        let wanted: Vec<u64> = (0..100).map(|i| self.nth_row(100 + i)).collect();
        for _ in 0..self.options.lookups.min(50) {
            batch.multi_get(&client, self.lake, &wanted).await?;
        }
        rows.push(batch.finish());
        Ok((worker, rows))
    }

    /// Rows far apart, the same in each run.
    fn nth_row(&self, n: u64) -> u64 {
        (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) % self.options.rows
    }

    #[allow(clippy::print_stdout)]
    async fn end(&self, worker: WorkerProcess) -> Result<()> {
        let row = self.lake.row(self.nth_row(100)).context("the lake has lost a row")?;
        let command = |verb: &str, rest: &str| {
            format!("  {} -e {} {verb} {MOUNT}/ {rest}", process::binary_text(), worker.address())
        };
        if !self.options.keep {
            worker.stop().await?;
            println!(
                "\nall processes ended. Next: `cargo xtask quickstart --keep` leaves the worker up to type lookups at,"
            );
            println!("and README.md shows how to point a worker at your own lake.");
            return Ok(());
        }
        println!("\nthe worker stays up until Ctrl-C; in another terminal try:\n");
        println!("{}", command("get", &format!("{} -k id", row.id)));
        println!("{}", command("get", &format!("{} -k user -s id,name,tags", row.user)));
        println!("{}", command("explain", &format!("{} -k id --analyze", row.id)));
        println!("{}", command("ls", "-l"));
        tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")?;
        worker.stop().await
    }
}

/// The values of a looked-up row, for the comparison with truth.
type Row = Arc<[alcedo_client::Value]>;

fn differs(wanted: &crate::lake::TruthRow, found: &[alcedo_client::Value]) -> Result<()> {
    let truth: Row = measure::truth_values(wanted);
    if *truth != *found {
        bail!("row {} is {found:?}, the truth is {truth:?}", wanted.number);
    }
    Ok(())
}
