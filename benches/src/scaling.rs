//! From one connection to a thousand, from one worker to four, and what fifty would need.
//!
//! Knows hot lookups and their cost in processor time and bytes. The model at its end is arithmetic on what was
//! measured, not a measurement.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use alcedo_client::Client;
use alcedo_testkit::cluster::{BUCKET, ClusterOptions, ProcessCluster};
use anyhow::Context;
use bytes::Bytes;

use crate::asker::{Asker, By};
use crate::effort::Effort;
use crate::keys::Keys;
use crate::load::{self, Load, MANY, Sample};
use crate::placement::Cores;
use crate::report::{Row, median};
use crate::series::Series;
use crate::table::{Layout, Table, mixed};
use crate::worker::{BenchWorker, DEADLINE};

/// The table, and how many of its rows are asked for again and again.
const TABLE: Table = Table { rows: 100_000 };
const HOT_ROWS: u64 = 1_000;
/// One call outstanding on each of so many connections.
const CONNECTIONS: [Load; 4] = [
    Load { name: "1 connection", outstanding: 1, keys: 1 },
    Load { name: "10 connections", outstanding: 10, keys: 1 },
    Load { name: "100 connections", outstanding: 100, keys: 1 },
    Load { name: "1,000 connections", outstanding: 1_000, keys: 1 },
];
/// Workers of a ring.
const WORKERS: [usize; 3] = [1, 2, 4];
/// Names of the file, so that every worker owns some.
const NAMES: usize = 16;
/// How often every hot row is asked for before anything is timed, and how many at once.
const HEATINGS: u64 = 3;
const HEATED_KEYS: usize = 100;
/// The model's ring and what is asked of all of it.
const MODEL_WORKERS: f64 = 50.0;
const MODEL_RATE: f64 = 1e6;

/// Measures in so many rounds.
///
/// # Errors
/// Something cannot be started, or an answer is not right.
pub async fn run(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let file = TABLE.file(Layout::Seeking)?;
    let mut rows = connections(&file, effort).await?;
    rows.extend(workers(&file, effort).await?);
    Ok(rows)
}

fn hot_keys() -> Keys {
    Keys::from((0..HOT_ROWS).map(|number| mixed(number) % TABLE.rows).collect::<Vec<_>>())
}

/// Makes the hot rows of an asker's file hot.
async fn heat(asker: &Asker) -> anyhow::Result<()> {
    for _ in 0..HEATINGS * HOT_ROWS / HEATED_KEYS as u64 {
        asker.ask(HEATED_KEYS).await?;
    }
    Ok(())
}

/// Asks in turn through all of these, each of which has its own connection or file.
async fn run_all(askers: &[Asker], load: Load, servers: &[u32], duration: Duration) -> anyhow::Result<Sample> {
    let (askers, next): (Arc<[Asker]>, _) = (askers.into(), Arc::new(AtomicUsize::new(0)));
    let ask = move |keys| {
        let asker = askers[next.fetch_add(1, Ordering::Relaxed) % askers.len()].clone();
        async move { asker.ask(keys).await }
    };
    load::run(load, servers, duration, ask).await
}

async fn connections(file: &Path, effort: Effort) -> anyhow::Result<Vec<Row>> {
    let worker = BenchWorker::start(&[], &[("table.parquet", file)]).await?;
    let most = CONNECTIONS.iter().map(|load| load.outstanding).max().unwrap_or(1);
    let asker = |client| Asker { client, path: format!("{BUCKET}/table.parquet").into(), by: By::Id, keys: hot_keys() };
    let mut askers = Vec::with_capacity(most);
    for _ in 0..most {
        askers.push(asker(worker.client().build()?));
    }
    heat(&askers[0]).await?;
    for asker in &askers {
        asker.ask(1).await?;
    }
    let cores = Cores::of_this_process()?;
    let mut rows = Vec::new();
    for placement in cores.placements() {
        placement.pin(&[worker.id()?])?;
        let mut all: [(Series, Vec<f64>); CONNECTIONS.len()] = Default::default();
        for _ in 0..effort.rounds {
            for (load, (series, bytes)) in CONNECTIONS.iter().zip(&mut all) {
                let before = loopback_bytes()?;
                let askers = &askers[..load.outstanding];
                let sample = run_all(askers, *load, &[worker.id()?], effort.load).await?;
                bytes.push((loopback_bytes()? - before) / sample.keys);
                series.push(sample);
            }
        }
        cores.release()?;
        for (load, (series, _)) in CONNECTIONS.iter().zip(&all) {
            let name = format!("scaling, {}, hot rows, {}", placement.name, load.name);
            rows.extend([
                series.p50_row(&name),
                series.p99_row(&name),
                series.rate_row(&name),
                series.server_row(&name),
            ]);
        }
        // A hundred connections: no worker of a large ring has a single client.
        let (series, bytes) = &all[2];
        rows.extend(model(placement.name, series.server(), median(bytes.iter().copied())));
    }
    Ok(rows)
}

/// What each worker of a large ring needs, from what one lookup costs here.
fn model(placement: &str, server_us: f64, bytes: f64) -> Vec<Row> {
    let name = format!("model, {placement}, {MODEL_WORKERS} workers at {} M hot lookups/s", MODEL_RATE / 1e6);
    let each = MODEL_RATE / MODEL_WORKERS;
    vec![
        Row::new(format!("{name}: bytes on the wire"), "bytes per key", bytes),
        Row::new(format!("{name}: processor of each"), "cores", each * server_us / 1e6),
        Row::new(format!("{name}: network of each, both ways"), "Mbit/s", each * bytes * 8.0 / 1e6),
    ]
}

async fn workers(file: &Path, effort: Effort) -> anyhow::Result<Vec<Row>> {
    let bytes = Bytes::from(std::fs::read(file)?);
    let mut clusters = Vec::new();
    for workers in WORKERS {
        let objects = (0..NAMES).map(|number| (format!("{number}.parquet"), bytes.clone())).collect();
        // What a user has who says nothing of it.
        let mount = "freshness = \"ttl\"\n".to_owned();
        let options = ClusterOptions { objects, workers, mount, cache: true, ..ClusterOptions::default() };
        let cluster = ProcessCluster::start(options).await?;
        let ids: Option<Vec<u32>> = cluster.workers().iter().map(|worker| worker.id()).collect();
        let endpoints: Vec<String> = cluster.workers().iter().map(|worker| worker.endpoint().to_owned()).collect();
        let client = Client::builder().endpoints(endpoints).deadline(DEADLINE).build()?;
        let asker = |number| Asker {
            client: client.clone(),
            path: format!("{BUCKET}/{number}.parquet").into(),
            by: By::Id,
            keys: hot_keys(),
        };
        let askers: Vec<Asker> = (0..NAMES).map(asker).collect();
        let ids = ids.context("a worker has ended")?;
        for asker in &askers {
            heat(asker).await?;
        }
        clusters.push((workers, cluster, ids, askers, Series::default()));
    }
    for _ in 0..effort.rounds {
        for (_, _, ids, askers, series) in &mut clusters {
            series.push(run_all(askers, MANY, ids, effort.load).await?);
        }
    }
    Ok(clusters
        .iter()
        .flat_map(|(workers, .., series)| {
            let name = format!("scaling, all cores, hot rows, {workers} workers, {}", MANY.name);
            [series.p50_row(&name), series.rate_row(&name), series.server_row(&name)]
        })
        .collect())
}

/// Bytes that have gone over loopback, with all headers.
fn loopback_bytes() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/net/dev")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:")).context("no loopback device")?;
    Ok(line.split_whitespace().next().context("a device without counts")?.parse()?)
}
