//! `alcedo bench get`: lookups as fast as the answers come, and how long they took.
//!
//! A closed loop: each of so many loops asks its next question when the last one is answered. It knows keys, loops and
//! when to stop; `report` knows the numbers. It does not listen to the Ctrl-C of the other commands, because what was
//! measured until then is worth printing.

mod report;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use alcedo_client::{Answer, Budget, Error, Lookup};
use clap::{Args, Subcommand, value_parser};

use super::Context;
use super::keys::Keys;
use super::question::Question;
use crate::failure::{Failure, exit};
use crate::output::{Format, json_document};
use crate::settings;
use report::{Measured, Setup};

/// Keys that are held at most: enough that a run does not repeat itself soon, and some hundred megabytes.
const MAX_KEYS: usize = 1_000_000;
/// Most keys of one lookup: one message to a worker, so that a lookup is one there too.
const MAX_BATCH: i64 = alcedo_client::MAX_KEYS_PER_MESSAGE as i64;
/// A loop whose lookup failed waits so long: those who cannot be reached refuse in microseconds, and hammering them
/// would measure nothing.
const FAILURE_PAUSE: Duration = Duration::from_millis(10);
/// How long a run takes unless told otherwise.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Look keys up as fast as the answers come, and tell how long they took
    ///
    /// Prints aligned columns, or -o table|json.
    Get(BenchGetArgs),
}

/// The flags of `bench get`.
#[derive(Debug, Args)]
pub(crate) struct BenchGetArgs {
    #[command(flatten)]
    question: Question,
    /// File with one key per line; - is stdin. They are asked in this order, again and again
    #[arg(long, value_name = "FILE")]
    keys_from: PathBuf,
    /// Lookups under way at once
    #[arg(short = 'j', long, value_name = "N", default_value_t = 64,
        value_parser = value_parser!(u16).range(1..=4_096))]
    concurrency: u16,
    /// How long to ask [default: 10s]
    #[arg(short, long, value_name = "DURATION", value_parser = settings::timeout, conflicts_with = "count")]
    duration: Option<Duration>,
    /// How many lookups, instead of how long
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Keys per lookup
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u16).range(1..=MAX_BATCH))]
    batch: u16,
}

/// When the loops stop.
#[derive(Debug, Clone, Copy)]
enum Until {
    Count(u64),
    Time(Instant),
}

/// What all loops share. They run on one thread.
struct Load {
    lookup: Lookup,
    keys: Vec<String>,
    batch: usize,
    until: Until,
    /// Lookups that were begun.
    begun: Cell<u64>,
    next_key: Cell<usize>,
    measured: RefCell<Measured>,
}

/// Measures, and prints what was measured, also when it is interrupted.
///
/// # Errors
/// The first lookup failed, or some of the later ones did, or it was interrupted.
pub(crate) async fn run(command: BenchCommand, context: &Context) -> Result<(), Failure> {
    let BenchCommand::Get(args) = command;
    let format = Format::among(context.globals.output, Format::Table, &[Format::Table, Format::Json])?;
    // A second question for a slow answer would hide what is measured, and workers would count lookups that nobody
    // made.
    let client = context.builder()?.hedge_budget(Budget::NONE).build()?;
    let lookup = args.question.lookup(&client)?;
    let keys = unless_interrupted(read_keys(&args)).await??;
    let mut load = Load::new(lookup, keys, args.batch.into());
    // Connecting and the view of the cluster belong to no later lookup; and a question that is wrong is told at once.
    let first = load.ask();
    let first = unless_interrupted(first).await??.elapsed;

    load.begin(args.count, args.duration.unwrap_or(DEFAULT_DURATION));
    let began = Instant::now();
    let loops = futures::future::join_all((0..args.concurrency).map(|_| load.run()));
    let interrupted = unless_interrupted(loops).await.is_err();
    let setup = Setup {
        path: args.question.path.clone(),
        concurrency: args.concurrency.into(),
        batch: args.batch.into(),
        first,
        elapsed: began.elapsed(),
        interrupted,
    };
    let measured = load.measured.into_inner();
    let printed = match format {
        Format::Json => json_document(&measured.json(&setup)),
        _ => measured.text(&setup).into_bytes(),
    };
    context.terminal.print(printed).await?;
    if interrupted {
        return Err(Failure::interrupted());
    }
    match measured.failed() {
        0 => Ok(()),
        failed => {
            Err(Failure::new(exit::PARTIAL, format!("{failed} of {} lookups failed", measured.lookups() + failed)))
        }
    }
}

/// What a future gives, unless Ctrl-C comes first.
async fn unless_interrupted<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::select! {
        done = work => Ok(done),
        Ok(()) = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    }
}

async fn read_keys(args: &BenchGetArgs) -> Result<Vec<String>, Failure> {
    let mut source = Keys::new(Vec::new(), Some(&args.keys_from), false)?;
    let mut keys: Vec<String> = Vec::new();
    loop {
        let batch = source.batch().await?;
        if batch.is_empty() {
            break;
        }
        keys.extend(batch.into_iter().flatten());
        if keys.len() > MAX_KEYS {
            let message = format!("there are more than {MAX_KEYS} keys in the file of --keys-from");
            return Err(Failure::usage(message).hint("give a sample: shuf -n 1000000 FILE"));
        }
    }
    if keys.is_empty() {
        return Err(Failure::usage("there is no key in the file of --keys-from"));
    }
    Ok(keys)
}

impl Load {
    fn new(lookup: Lookup, keys: Vec<String>, batch: usize) -> Self {
        let (begun, next_key, measured) = (Cell::new(0), Cell::new(0), RefCell::new(Measured::default()));
        Self { lookup, keys, batch, until: Until::Count(1), begun, next_key, measured }
    }

    /// What comes from now on is measured.
    fn begin(&mut self, count: Option<u64>, duration: Duration) {
        self.until = count.map_or_else(|| Until::Time(Instant::now() + duration), Until::Count);
        self.begun.set(0);
    }

    /// One lookup of the next keys.
    async fn ask(&self) -> Result<Answer, Error> {
        self.lookup.clone().keys(self.next_keys()).await
    }

    fn next_keys(&self) -> Vec<String> {
        let start = self.next_key.get();
        self.next_key.set((start + self.batch) % self.keys.len());
        self.keys.iter().cycle().skip(start).take(self.batch).cloned().collect()
    }

    /// Whether another lookup is to begin, which is counted.
    fn may_begin(&self) -> bool {
        let begun = self.begun.get();
        let more = match self.until {
            Until::Count(count) => begun < count,
            Until::Time(end) => Instant::now() < end,
        };
        self.begun.set(begun + u64::from(more));
        more
    }

    /// One loop: asks until it is time to stop.
    async fn run(&self) {
        while self.may_begin() {
            let began = Instant::now();
            let answer = self.ask().await;
            let took = began.elapsed();
            match answer {
                Ok(answer) => self.measured.borrow_mut().add(&answer, took),
                Err(error) => {
                    self.measured.borrow_mut().fail(&error);
                    tokio::time::sleep(FAILURE_PAUSE).await;
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use alcedo_client::Client;

    use super::*;

    fn load(keys: &[&str], batch: usize) -> Load {
        let client = Client::builder().endpoints(["127.0.0.1:1"]).build().unwrap();
        Load::new(client.lookup("lake/"), keys.iter().map(|key| (*key).to_owned()).collect(), batch)
    }

    #[test]
    fn keys_are_asked_in_order_again_and_again() {
        let load = load(&["a", "b", "c"], 2);
        let asked: Vec<String> = (0..3).flat_map(|_| load.next_keys()).collect();
        assert_eq!(asked.concat(), "abcabc");
        let longer = self::load(&["a", "b"], 5);
        assert_eq!(longer.next_keys().concat(), "ababa");
        assert_eq!(longer.next_keys().concat(), "babab");
    }

    #[test]
    fn loops_stop_at_the_count_or_the_time() {
        let mut load = load(&["a"], 1);
        load.begin(Some(2), Duration::ZERO);
        assert_eq!([load.may_begin(), load.may_begin(), load.may_begin()], [true, true, false]);
        load.begin(None, Duration::ZERO);
        assert!(!load.may_begin());
        load.begin(None, Duration::from_secs(3_600));
        assert!(load.may_begin());
    }
}
