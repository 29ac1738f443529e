//! The quickstart: a real lake, a real store, three real worker processes, real lookups, and one table of what they
//! cost, before and after one of the workers is killed.
//!
//! Layer 5. Everything is on loopback and in a temporary directory. Every looked-up row is compared with the generated
//! truth, and the figures come from the store's own counters and this process's clock, never from what the workers say
//! of themselves.

mod measure;
mod session;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cluster::{BUCKET, ClusterOptions, ProcessCluster, WorkerProcess, alcedo_binary};
use crate::lake::{SampleLake, SampleSpec};
use crate::s3::{S3Options, S3Server};
use session::{Session, Shown};

/// The prefix of the sample lake in the bucket that all clusters of the testkit mount under the bucket's own name.
const PREFIX: &str = "sample";
/// First-byte latency that the store adds to each request: what S3 takes in its own region.
const STORE_LATENCY: Duration = Duration::from_millis(30);
/// How many workers share the lake.
const WORKERS: usize = 3;

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
/// Something could not be started, a lookup failed, or a row differed from the truth.
#[allow(clippy::print_stdout)] // The quickstart is a program that talks to a person.
pub async fn run(options: Options) -> Result<()> {
    let lake = SampleLake::new(SampleSpec { rows: options.rows, files: options.files, ..SampleSpec::default() })?;
    let store = S3Server::start(S3Options::default()).context("cannot start the S3 server")?;
    let bytes = fill(&store, &lake)?;
    println!(
        "sample lake   {} rows in {} Parquet files, {:.1} MB: s3://{BUCKET}/{PREFIX}/ on a loopback S3 server",
        options.rows,
        options.files,
        bytes as f64 / 1e6
    );
    println!("              half with page index and 64 KiB data pages, half as pyarrow and DuckDB write by default");
    println!("              every request to the store waits {} ms first", STORE_LATENCY.as_millis());
    println!("workers       {WORKERS} processes that share the files, each with a cache directory\n");
    store.set_latency(STORE_LATENCY);
    // What a user has who says nothing of it.
    let mount = "freshness = \"ttl\"\n".to_owned();
    let shape = ClusterOptions { workers: WORKERS, mount, cache: true, ..ClusterOptions::default() };
    let cluster = ProcessCluster::over(store, &shape).await?;
    let mut session = Session::new(&lake, cluster, options.rows, options.lookups)?;
    let shown = session.measure().await?;
    finish(&options, &lake, session, &shown).await
}

#[allow(clippy::print_stdout)]
fn fill(store: &S3Server, lake: &SampleLake) -> Result<u64> {
    let started = Instant::now();
    store.create_bucket(BUCKET);
    let mut bytes = 0;
    for file in lake.files() {
        let (name, content) = file?;
        bytes += content.len() as u64;
        store.put(BUCKET, &format!("{PREFIX}/{name}"), content);
    }
    println!("wrote the sample lake in {:.1} s", started.elapsed().as_secs_f64());
    Ok(bytes)
}

/// Says what it all came to, and ends the workers, with `--keep` after Ctrl-C.
#[allow(clippy::print_stdout)]
async fn finish(options: &Options, lake: &SampleLake, mut session: Session<'_>, shown: &Shown) -> Result<()> {
    println!(
        "every row was compared with the generated truth: {} lookups, {} wrong, {} failed",
        shown.keys, shown.wrong, shown.failed
    );
    if let Some(complaint) = &shown.complaint {
        println!("the first complaint: {complaint}");
    }
    if options.keep {
        suggest(lake, &session)?;
        tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")?;
    }
    // All at once: each goes on serving for a while, so that clients turn to the others first.
    futures::future::try_join_all(session.cluster.workers_mut().iter_mut().map(WorkerProcess::terminate)).await?;
    if shown.wrong + shown.failed > 0 {
        bail!("{} lookups were wrong and {} failed; none should", shown.wrong, shown.failed);
    }
    if !options.keep {
        println!(
            "\nall processes ended. Next: `cargo xtask quickstart --keep` leaves the workers up to type lookups at,"
        );
        println!("and README.md shows how to point a worker at your own lake.");
    }
    Ok(())
}

/// The lines to type at workers that stay up.
#[allow(clippy::print_stdout)]
fn suggest(lake: &SampleLake, session: &Session<'_>) -> Result<()> {
    let row = lake.row(session.nth_row(0)).context("the lake has lost a row")?;
    let worker = session.cluster.workers().first().context("there is no worker")?;
    let command = |verb: &str, rest: &str| {
        println!("  {} -e {} {verb} {BUCKET}/{PREFIX}/ {rest}", binary_text(), worker.endpoint());
    };
    println!("\nthe workers stay up until Ctrl-C; in another terminal try:\n");
    command("get", &format!("{} -k id", row.id));
    command("get", &format!("{} -k user -s id,name,tags", row.user));
    command("explain", &format!("{} -k id --analyze", row.id));
    command("ls", "-l");
    Ok(())
}

/// The binary as a person types it: relative to the current directory where that is shorter.
fn binary_text() -> String {
    let Ok(path) = alcedo_binary() else { return "alcedo".to_owned() };
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(&path).display().to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Result<Options, String> {
        Options::parse(args.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_are_read_and_wrong_ones_refused_with_the_usage() {
        let options = parse("--rows 20_000 --files 4 --lookups 5 --keep").unwrap();
        assert_eq!((options.rows, options.files, options.lookups, options.keep), (20_000, 4, 5, true));
        for wrong in ["--row 1", "--rows many", "--rows", "--rows 100 --files 2", "--files 0", "--lookups 0"] {
            assert!(parse(wrong).unwrap_err().ends_with(USAGE), "{wrong}");
        }
    }
}
