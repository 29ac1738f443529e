//! Hot rows: a worker beside `redis-server` with the same rows, in one interleaved run, twice placed.
//!
//! Knows the order of a run and what is asked of hot rows. The worker is a process over an S3 server of the testkit,
//! warm before anything is timed; Redis holds the same columns of the same rows as JSON. Either client hands out what
//! its users get: Alcedo's decoded values, Redis's the bytes. Between the sides, the floors are measured too.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use alcedo_testkit::cluster::BUCKET;
use alcedo_testkit::lake::{SampleLake, SampleSpec};
use anyhow::Context;
use tempfile::TempDir;

use crate::effort::Effort;
use crate::floors::{Floor, FloorServer};
use crate::load::{self, BATCHES, Load, MANY, ONE, Sample};
use crate::placement::{Cores, Placement};
use crate::redis_server::RedisServer;
use crate::report::Row;
use crate::series::Series;
use crate::side::{HotRow, Shape, Side};
use crate::transport::{self, Transport};
use crate::worker::BenchWorker;

/// Rows of the table: one file with snappy data pages of 64 KiB, sorted by its key.
const TABLE_ROWS: u64 = 100_000;
/// Rows that are asked for again and again, spread over the table.
const HOT_ROWS: u64 = 1_000;
/// How long hot rows are asked for before anything is timed: what is made by heat is made then.
const HEATING: Duration = Duration::from_secs(1);
/// What is asked how. Redis has no other key column than its key, so the last two shapes are asked less.
const PLAN: [(Shape, Load); 11] = [
    (Shape::TwoColumns, ONE),
    (Shape::TwoColumns, MANY),
    (Shape::TwoColumns, BATCHES),
    (Shape::WholeRow, ONE),
    (Shape::WholeRow, MANY),
    (Shape::WholeRow, BATCHES),
    (Shape::ByUser, ONE),
    (Shape::ByUser, MANY),
    (Shape::Absent, ONE),
    (Shape::Absent, MANY),
    (Shape::Absent, BATCHES),
];

/// Everybody who is asked.
struct Arena {
    worker: BenchWorker,
    /// The same with a Unix socket, which its clients change over to.
    listening: BenchWorker,
    redis: RedisServer,
    floors: [FloorServer; 2],
    sides: Vec<Contender>,
    rows: Arc<[Arc<HotRow>]>,
    _embedded: transport::Embedded,
    _home: TempDir,
}

/// One who is asked for rows.
struct Contender {
    who: Who,
    side: Side,
    /// The process whose time counts.
    server: u32,
}

/// Who answers, and over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Alcedo(Transport),
    Redis,
}

/// One thing that is measured in one placement.
struct Measured {
    placement: Placement,
    what: What,
    series: Series,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Asked { side: usize, who: Who, shape: Shape, load: Load },
    Floor(Floor, Load),
}

/// Measures in so many rounds; each round asks all sides in every way, and they take turns at being first.
///
/// # Errors
/// Something cannot be started, or an answer is not right.
pub async fn run(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let arena = Arena::start().await?;
    let cores = Cores::of_this_process()?;
    let mut all: Vec<Measured> = Vec::new();
    for placement in cores.placements() {
        all.extend(arena.plan().into_iter().map(|what| Measured { placement, what, series: Series::default() }));
    }
    for round in 0..effort.rounds {
        let mut placed = None;
        let order: Vec<usize> = if round % 2 == 0 { (0..all.len()).collect() } else { (0..all.len()).rev().collect() };
        for at in order {
            let measured = &mut all[at];
            if placed != Some(measured.placement) {
                measured.placement.pin(&arena.servers()?)?;
                placed = Some(measured.placement);
            }
            let sample = arena.measure(measured.placement, measured.what, effort.load).await?;
            measured.series.push(sample);
        }
    }
    cores.release()?;
    Ok(cores.placements().into_iter().flat_map(|placement| rows(placement, &all)).collect())
}

/// Keeps the worker busy with the hot rows and says which process it is, so that a profiler can look at it.
///
/// # Errors
/// Something cannot be started, or an answer is not right.
#[allow(clippy::print_stdout)]
pub async fn hold(duration: Duration) -> anyhow::Result<()> {
    let arena = Arena::start().await?;
    let worker = arena.worker.id()?;
    let cores = Cores::of_this_process()?;
    cores.placements().last().context("no core")?.pin(&arena.servers()?)?;
    println!("worker process {worker} answers {} lookups of 2 columns for {duration:?}", MANY.name);
    // The clock's event: virtual machines seldom have the processor's counters.
    println!("  perf record -e cpu-clock --freq 999 --pid {worker} -- sleep {}", duration.as_secs().div_ceil(2));
    println!("  perf report --no-children --sort symbol --percent-limit 1");
    let sample = arena.ask(0, Shape::TwoColumns, MANY, duration).await?;
    println!("{:.0} lookups/s, {:.2} us of its time each", sample.keys_per_second, sample.server_us_per_key);
    Ok(())
}

impl Arena {
    async fn start() -> anyhow::Result<Self> {
        let lake = SampleLake::new(SampleSpec { rows: TABLE_ROWS, files: 1, ..SampleSpec::default() })?;
        let home = tempfile::tempdir()?;
        let file = home.path().join("table.parquet");
        std::fs::write(&file, lake.file(0)?)?;
        let objects: [(&str, &Path); 1] = [("table.parquet", &file)];
        let socket = home.path().join("alcedo.sock");
        let worker = BenchWorker::start(&[], &objects).await?;
        let (key, value) = transport::listening(&socket);
        let listening = BenchWorker::start(&[(key, &value)], &objects).await?;
        let redis = RedisServer::start().await?;
        let floors = [FloorServer::start(Floor::Tcp).await?, FloorServer::start(Floor::Stream).await?];
        let rows: Arc<[Arc<HotRow>]> = (0..HOT_ROWS)
            .filter_map(|n| lake.row((n * 7_919 + 13) * (TABLE_ROWS / HOT_ROWS) % TABLE_ROWS))
            .filter_map(|truth| {
                let absent = (1..=3).map(|step| truth.id + step).find(|id| lake.row_of_int_key(*id).is_none());
                Some(Arc::new(HotRow::new(&truth, absent?)))
            })
            .collect();
        let path: Arc<str> = format!("{BUCKET}/table.parquet").into();
        let embedded = transport::Embedded::start(worker.store(), &home.path().join("embedded"))?;
        let alcedo = |transport: Transport, client, server| {
            let side = Side::Alcedo { client, path: Arc::clone(&path) };
            Contender { who: Who::Alcedo(transport), side, server }
        };
        let mut sides = vec![alcedo(Transport::Tcp, worker.client().build()?, worker.id()?)];
        sides.push(Contender {
            who: Who::Redis,
            side: Side::Redis(redis.connect().await?),
            server: redis.id().context("redis-server has ended")?,
        });
        sides.push(alcedo(Transport::Socket, listening.client().build()?, listening.id()?));
        sides.push(alcedo(Transport::InProcess, embedded.client()?, std::process::id()));
        let arena = Self { worker, listening, redis, floors, sides, rows, _embedded: embedded, _home: home };
        arena.heat().await?;
        Ok(arena)
    }

    /// Compares every hot row in every shape with the truth, and makes them hot.
    async fn heat(&self) -> anyhow::Result<()> {
        for (at, contender) in self.sides.iter().enumerate() {
            contender.side.fill(&self.rows).await?;
            for shape in Shape::ALL {
                for row in &*self.rows {
                    contender.side.ask(shape, std::slice::from_ref(row)).await?;
                }
                self.ask(at, shape, BATCHES, HEATING / 4).await?;
            }
        }
        Ok(())
    }

    /// Everything that is measured in each placement: sides beside each other, so that they meet the same machine.
    fn plan(&self) -> Vec<What> {
        let asked = PLAN.iter().flat_map(|(shape, load)| {
            self.sides.iter().enumerate().filter_map(move |(side, contender)| {
                // The other transports differ by what a call costs, not by what is asked.
                let is_asked = *shape == Shape::TwoColumns
                    || !matches!(contender.who, Who::Alcedo(Transport::Socket | Transport::InProcess));
                is_asked.then_some(What::Asked { side, who: contender.who, shape: *shape, load: *load })
            })
        });
        let floors = Floor::ALL.iter().flat_map(|floor| [ONE, MANY].map(|load| What::Floor(*floor, load)));
        asked.chain(floors).collect()
    }

    fn servers(&self) -> anyhow::Result<Vec<u32>> {
        let mut servers =
            vec![self.worker.id()?, self.listening.id()?, self.redis.id().context("redis-server has ended")?];
        for floor in &self.floors {
            servers.push(floor.id()?);
        }
        Ok(servers)
    }

    async fn measure(&self, placement: Placement, what: What, duration: Duration) -> anyhow::Result<Sample> {
        match what {
            What::Asked { side, who: Who::Alcedo(Transport::InProcess), shape, load } => {
                // Both ends are threads of this process.
                placement.pin_together(std::process::id())?;
                let sample = self.ask(side, shape, load, duration).await?;
                placement.pin(&[])?;
                Ok(sample)
            }
            What::Asked { side, shape, load, .. } => self.ask(side, shape, load, duration).await,
            What::Floor(floor, load) => self.floors[floor as usize].measure(load, duration).await,
        }
    }

    async fn ask(&self, side: usize, shape: Shape, load: Load, duration: Duration) -> anyhow::Result<Sample> {
        let (side, server) = (self.sides[side].side.clone(), self.sides[side].server);
        let (rows, next) = (Arc::clone(&self.rows), Arc::new(AtomicUsize::new(0)));
        let ask = move |keys: usize| {
            let from = next.fetch_add(keys, Ordering::Relaxed);
            let asked: Vec<Arc<HotRow>> = (from..from + keys).map(|at| Arc::clone(&rows[at % rows.len()])).collect();
            let side = side.clone();
            async move { side.ask(shape, &asked).await }
        };
        load::run(load, &[server], duration, ask).await
    }
}

/// The rows of one placement.
fn rows(placement: Placement, all: &[Measured]) -> Vec<Row> {
    let here: Vec<&Measured> = all.iter().filter(|measured| measured.placement == placement).collect();
    let of = |who: Who, shape: Shape, load: Load| {
        let asked = (who, shape, load);
        let is_it =
            |what: &What| matches!(what, What::Asked { who, shape, load, .. } if (*who, *shape, *load) == asked);
        here.iter().find(|measured| is_it(&measured.what)).map(|measured| &measured.series)
    };
    let mut rows = Vec::new();
    for (shape, load) in PLAN {
        let (tcp, redis) = (of(Who::Alcedo(Transport::Tcp), shape, load), of(Who::Redis, shape, load));
        let (Some(tcp), Some(redis)) = (tcp, redis) else { continue };
        let name = format!("{}, {}, {}", placement.name, shape.name(), load.name);
        rows.extend(beside_redis(&name, shape, load, tcp, redis));
        let int64 = of(Who::Alcedo(Transport::Tcp), Shape::TwoColumns, load);
        rows.extend(int64.and_then(|int64| beside_int64(&name, shape, load, tcp, int64)));
        for transport in [Transport::Socket, Transport::InProcess] {
            let Some(series) = of(Who::Alcedo(transport), shape, load) else { continue };
            rows.extend(untargeted(&format!("{name}, {}", transport.name()), load, series, redis));
        }
    }
    let stream = |load| of(Who::Alcedo(Transport::Tcp), Shape::TwoColumns, load);
    for measured in &here {
        let What::Floor(floor, load) = measured.what else { continue };
        let Some(alcedo) = stream(load) else { continue };
        let name = format!("{}, 2 columns, {}, beside {}", placement.name, load.name, floor.name());
        rows.extend(untargeted(&name, load, alcedo, &measured.series));
    }
    rows
}

/// Alcedo beside Redis, with what is asked of it.
fn beside_redis(name: &str, shape: Shape, load: Load, tcp: &Series, redis: &Series) -> Vec<Row> {
    let server = tcp.server_row(name).beside(redis.server());
    let least = match (shape, load) {
        (Shape::TwoColumns | Shape::WholeRow, MANY) => Some(100e3),
        (Shape::TwoColumns | Shape::WholeRow, BATCHES) => Some(400e3),
        (Shape::Absent, BATCHES) => Some(250e3),
        _ => None,
    };
    let server = match least {
        Some(least) => server.per_core(least),
        None => server,
    };
    if load != ONE {
        return vec![tcp.rate_row(name).beside(redis.rate()), server];
    }
    vec![
        tcp.p50_row(name).beside(redis.p50()).at_most_times(1.5, "Redis"),
        tcp.p99_row(name).beside(redis.p99()).at_most_times(3.0, "Redis"),
        server,
    ]
}

/// Other keys beside the sorted int64 key that is there.
fn beside_int64(name: &str, shape: Shape, load: Load, it: &Series, int64: &Series) -> Option<Row> {
    let name = format!("{name}, beside the sorted int64 key");
    match (shape, load) {
        (Shape::ByUser, ONE) => Some(it.p50_row(&name).beside(int64.p50()).at_most_times(1.5, "the int64 key")),
        (Shape::ByUser, MANY) => Some(it.server_row(&name).beside(int64.server()).at_most_times(1.5, "the int64 key")),
        (Shape::Absent, MANY) => Some(it.server_row(&name).beside(int64.server()).at_most_times(1.0, "keys with rows")),
        _ => None,
    }
}

fn untargeted(name: &str, load: Load, it: &Series, peer: &Series) -> Vec<Row> {
    let server = it.server_row(name).beside(peer.server());
    match load {
        ONE => vec![it.p50_row(name).beside(peer.p50()), it.p99_row(name).beside(peer.p99()), server],
        _ => vec![it.rate_row(name).beside(peer.rate()), server],
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> Series {
        let mut series = Series::default();
        values.iter().for_each(|value| {
            series.push(Sample {
                p50_us: *value,
                p99_us: value * 2.5,
                keys_per_second: 1e6 / value,
                server_us_per_key: value / 4.0,
                keys: 1e3,
            });
        });
        series
    }

    #[test]
    fn verdicts_come_from_the_medians_and_the_targets() {
        let verdicts = |load, alcedo: &[f64], redis: &[f64]| -> Vec<(Option<f64>, Option<bool>)> {
            let rows = beside_redis("x", Shape::TwoColumns, load, &series(alcedo), &series(redis));
            rows.iter().map(|row| (row.ratio, row.met)).collect()
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
    fn other_keys_are_judged_beside_the_sorted_one() {
        let judged = |shape, load, it: f64| beside_int64("x", shape, load, &series(&[it]), &series(&[10.0]));
        assert_eq!(judged(Shape::ByUser, ONE, 15.0).unwrap().met, Some(true));
        assert_eq!(judged(Shape::ByUser, ONE, 15.1).unwrap().met, Some(false));
        assert_eq!(judged(Shape::Absent, MANY, 10.1).unwrap().met, Some(false));
        assert!(judged(Shape::TwoColumns, MANY, 1.0).is_none());
    }
}
