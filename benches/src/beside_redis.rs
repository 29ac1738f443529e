//! A worker beside `redis-server`: the same rows, one interleaved run, twice placed.
//!
//! Knows the order of a run and the targets of the design. The worker is a process over an S3 server of the testkit,
//! warm before anything is timed; Redis holds the same columns of the same rows as JSON. Either client hands out what
//! its users get: Alcedo's decoded values, Redis's the bytes.

use std::sync::Arc;
use std::time::Duration;

use alcedo_client::{Client, Value};
use alcedo_testkit::cluster::{BUCKET, WorkerProcess};
use alcedo_testkit::lake::{SampleLake, SampleSpec, TruthRow};
use alcedo_testkit::s3::{S3Options, S3Server};
use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::load::{self, Load, Sample};
use crate::placement::{Cores, Placement};
use crate::redis_server::RedisServer;
use crate::report::Row;
use crate::side::{Shape, Side};

/// Rows of the table: one file with snappy data pages of 64 KiB, sorted by its key.
const TABLE_ROWS: u64 = 100_000;
/// Rows that are asked for again and again, spread over the table.
const HOT_ROWS: u64 = 1_000;
/// How long each load lasts in each round: tens of thousands of Redis's answers, hundreds of ticks of its clock.
const LOAD_TIME: Duration = Duration::from_millis(400);
/// Deadline of a call: far beyond what any takes, so that a busy machine ends no run.
const DEADLINE: Duration = Duration::from_secs(10);

/// One call after the other: how long it takes.
const ONE: Load = Load { name: "one outstanding", outstanding: 1, keys: 1 };
/// As many as keep the server busy: how much it can.
const MANY: Load = Load { name: "256 outstanding", outstanding: 256, keys: 1 };
/// Many keys a call; four calls, because a worker weighs each key and accepts 512 at once.
const BATCHES: Load = Load { name: "4 batches of 100", outstanding: 4, keys: 100 };
const LOADS: [Load; 3] = [ONE, MANY, BATCHES];

/// Both servers with what they hold, and both clients.
pub struct Arena {
    worker: WorkerProcess,
    redis: RedisServer,
    sides: [Side; 2],
    ids: Arc<[i64]>,
    _store: S3Server,
    _home: TempDir,
}

/// All samples of one side by one load in one shape and placement.
struct Series {
    placement: Placement,
    shape: Shape,
    load: Load,
    /// Alcedo's, then Redis's, round by round.
    samples: [Vec<Sample>; 2],
}

/// Measures in so many rounds; each round asks both sides in every way, and they take turns at being first.
///
/// # Errors
/// Something cannot be started, or an answer is not right.
pub async fn run(rounds: usize) -> anyhow::Result<Vec<Row>> {
    let arena = Arena::start().await?;
    let cores = Cores::of_this_process()?;
    let mut all: Vec<Series> = Vec::new();
    for placement in cores.placements() {
        for shape in Shape::ALL {
            all.extend(LOADS.map(|load| Series { placement, shape, load, samples: [Vec::new(), Vec::new()] }));
        }
    }
    for round in 0..rounds {
        let mut placed = None;
        for series in &mut all {
            if placed != Some(series.placement) {
                series.placement.pin(&arena.servers()?)?;
                placed = Some(series.placement);
            }
            for turn in 0..2 {
                let side = (round + turn) % 2;
                let sample = arena.ask(side, series.shape, series.load).await?;
                series.samples[side].push(sample);
            }
        }
    }
    cores.release()?;
    Ok(all.iter().flat_map(rows).collect())
}

/// Keeps the worker busy with the hot rows and says which process it is, so that a profiler can look at it.
///
/// # Errors
/// Something cannot be started, or an answer is not right.
#[allow(clippy::print_stdout)]
pub async fn hold(duration: Duration) -> anyhow::Result<()> {
    let arena = Arena::start().await?;
    let [worker, _] = arena.servers()?;
    let cores = Cores::of_this_process()?;
    cores.placements().last().context("no core")?.pin(&arena.servers()?)?;
    println!("worker process {worker} answers {} lookups of 2 columns for {duration:?}", MANY.name);
    // The clock's event: virtual machines seldom have the processor's counters.
    println!("  perf record -e cpu-clock --freq 999 --pid {worker} -- sleep {}", duration.as_secs().div_ceil(2));
    println!("  perf report --no-children --sort symbol --percent-limit 1");
    let sample = load::run(&arena.sides[0], Shape::TwoColumns, &arena.ids, MANY, worker, duration).await?;
    println!("{:.0} lookups/s, {:.2} us of its time each", sample.keys_per_second, sample.server_us_per_key);
    Ok(())
}

impl Arena {
    async fn start() -> anyhow::Result<Self> {
        let lake = SampleLake::new(SampleSpec { rows: TABLE_ROWS, files: 1, ..SampleSpec::default() })?;
        let store = S3Server::start(S3Options::default())?;
        store.create_bucket(BUCKET);
        store.put(BUCKET, &SampleLake::file_name(0), lake.file(0)?);
        let home = tempfile::tempdir()?;
        let worker = WorkerProcess::start_in(home.path(), &worker_toml(&store.url()), &[]).await?;
        let client = Client::builder().endpoints([worker.endpoint().to_owned()]).deadline(DEADLINE).build()?;
        let redis = RedisServer::start().await?;
        let path: Arc<str> = format!("{BUCKET}/{}", SampleLake::file_name(0)).into();
        let rows: Vec<TruthRow> =
            (0..HOT_ROWS).filter_map(|n| lake.row((n * 7_919 + 13) * (TABLE_ROWS / HOT_ROWS) % TABLE_ROWS)).collect();
        compare(&client, &path, &rows).await?;
        let sides = [Side::Alcedo { client, path }, Side::Redis(redis.connect().await?)];
        sides[1].fill(&rows).await?;
        let ids: Arc<[i64]> = rows.iter().map(|row| row.id).collect();
        for (side, shape) in sides.iter().flat_map(|side| Shape::ALL.map(|shape| (side, shape))) {
            for id in &*ids {
                side.get(shape, *id).await?;
            }
        }
        Ok(Self { worker, redis, sides, ids, _store: store, _home: home })
    }

    /// Both process ids, in the order of the sides.
    fn servers(&self) -> anyhow::Result<[u32; 2]> {
        Ok([self.worker.id().context("the worker has ended")?, self.redis.id().context("redis-server has ended")?])
    }

    async fn ask(&self, side: usize, shape: Shape, load: Load) -> anyhow::Result<Sample> {
        load::run(&self.sides[side], shape, &self.ids, load, self.servers()?[side], LOAD_TIME).await
    }
}

/// One runtime: the worker has one core, as Redis has one thread.
fn worker_toml(store_url: &str) -> String {
    format!(
        "worker_id = \"bench\"\nlisten = \"127.0.0.1:0\"\nruntimes = 1\n\n[cache]\ndir = \"cache\"\n\n\
         [[mount]]\nname = \"{BUCKET}\"\nurl = \"s3://{BUCKET}\"\nendpoint = \"{store_url}\"\nregion = \"us-east-1\"\n\
         allow_http = true\nanonymous = true\n"
    )
}

/// Every hot row once, compared with the truth: what is fast and wrong is not measured.
async fn compare(client: &Client, path: &str, rows: &[TruthRow]) -> anyhow::Result<()> {
    for row in rows {
        let answer = client.lookup(path).key_column("id").key(row.id).select(["user", "score"]).await?;
        let truth = [Value::String(row.user.clone()), Value::Float64(row.score)];
        let found: Vec<&[Value]> = answer.rows().map(|(_, found)| found.values.as_slice()).collect();
        ensure!(found == [&truth[..]], "the worker answers {found:?} for key {}, the truth is {truth:?}", row.id);
    }
    Ok(())
}

/// What a figure has to be, in words and in numbers.
enum Target {
    /// So many times the peer's at most.
    Ratio(f64),
    /// So many keys per second and core at least.
    PerCore(f64),
    None,
}

/// The rows of one series: medians of its rounds.
fn rows(series: &Series) -> Vec<Row> {
    let row = |what: &str, unit: &'static str, figure: &dyn Fn(&Sample) -> f64, target: Target| {
        let [alcedo, peer] = [0, 1].map(|side| median(series.samples[side].iter().map(figure).collect()));
        let ratio = alcedo / peer;
        let (target, met) = match target {
            Target::Ratio(most) => (format!("at most {most} times Redis"), Some(ratio <= most)),
            Target::PerCore(least) => (format!("at least {} K/s per core", least / 1e3), Some(1e6 / alcedo >= least)),
            Target::None => (String::new(), None),
        };
        let name = format!("{}, {}, {}: {what}", series.placement.name, series.shape.name(), series.load.name);
        Row { name, unit, alcedo, peer: Some(peer), ratio: Some(ratio), target, met }
    };
    let server = |target| row("server CPU", "us per key", &|sample| sample.server_us_per_key, target);
    let rate = || row("rate", "keys per second", &|sample| sample.keys_per_second, Target::None);
    match series.load {
        ONE => vec![
            row("p50", "us", &|sample| sample.p50_us, Target::Ratio(1.5)),
            row("p99", "us", &|sample| sample.p99_us, Target::Ratio(3.0)),
            server(Target::None),
        ],
        MANY => vec![rate(), server(Target::PerCore(100e3))],
        _ => vec![rate(), server(Target::PerCore(400e3))],
    }
}

/// The middle one of a series, the higher of two; no figure where there is none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn series(load: Load, alcedo: &[f64], redis: &[f64]) -> Series {
        let sample = |value: &f64| Sample {
            p50_us: *value,
            p99_us: value * 2.5,
            keys_per_second: 1e6 / value,
            server_us_per_key: value / 4.0,
        };
        let placement = Cores::of_this_process().unwrap().placements()[0];
        let samples = [alcedo.iter().map(sample).collect(), redis.iter().map(sample).collect()];
        Series { placement, shape: Shape::TwoColumns, load, samples }
    }

    #[test]
    fn verdicts_come_from_the_medians_and_the_designs_targets() {
        let verdicts = |load, alcedo: &[f64], redis: &[f64]| -> Vec<(Option<f64>, Option<bool>)> {
            rows(&series(load, alcedo, redis)).iter().map(|row| (row.ratio, row.met)).collect()
        };
        let met = [(Some(1.5), Some(true)), (Some(1.5), Some(true)), (Some(1.5), None)];
        assert_eq!(verdicts(ONE, &[30.0, 900.0, 1.0], &[20.0, 1.0, 500.0]), met);
        let missed = [(Some(4.0), Some(false)), (Some(4.0), Some(false)), (Some(4.0), None)];
        assert_eq!(verdicts(ONE, &[80.0], &[20.0]), missed);
        // 40 us a call are 10 us of the server's time: just 100,000 a second.
        assert_eq!(verdicts(MANY, &[40.0], &[10.0])[1].1, Some(true));
        assert_eq!(verdicts(MANY, &[41.0], &[10.0])[1].1, Some(false));
        assert_eq!(verdicts(BATCHES, &[10.0], &[10.0])[1].1, Some(true));
        assert_eq!(verdicts(BATCHES, &[11.0], &[10.0])[1].1, Some(false));
    }

    #[test]
    fn every_row_says_how_it_was_placed_and_asked() {
        let row = &rows(&series(MANY, &[1.0], &[1.0]))[1];
        assert_eq!(row.name, "one core, 2 columns, 256 outstanding: server CPU");
        assert_eq!(row.target, "at least 100 K/s per core");
    }
}
