//! The first lookup in a file of which nothing is known, over a store that answers late.
//!
//! Knows the kinds of files by where their index lies, and how many dependent trips and bytes each may cost. The store
//! counts both; time is the injected latency's multiple. Each round has a fresh worker, whose first file it is, and
//! then further files of the same mount, of which no more is known than what the first one taught about the mount.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alcedo_testkit::cluster::BUCKET;
use alcedo_testkit::s3::trips;
use anyhow::{Context, ensure};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

use crate::asker::{Asker, By};
use crate::effort::Effort;
use crate::keys::Keys;
use crate::placement::{Cores, Used};
use crate::report::{Row, median};
use crate::table::{Layout, Table};
use crate::worker::BenchWorker;

/// How late each answer of the store begins: as over a region's network, with room for what the machine does meanwhile.
const LATENCY: Duration = Duration::from_millis(40);
/// What may come on top of the trips, as a share of one.
const SLACK: f64 = 0.3;
/// Further files of the mount in each round.
const FURTHER_FILES: u64 = 4;
/// A worker's first read of a file where nothing was learned yet: its setting's default.
const TAIL_BYTES: f64 = 65_536.0;
/// The leaf columns that a lookup reads: the key and the two that are selected.
const LEAVES: [usize; 3] = [0, 2, 3];

/// A kind of file.
struct Kind {
    name: &'static str,
    layout: Layout,
    table: Table,
    /// Dependent trips that the first file of a mount may cost, and those after it, where what is read along to save
    /// one costs less than it.
    trips: [f64; 2],
}

/// Index and footer in the first read; the footer alone; no page index at all, so that chunks are read whole.
const KINDS: [Kind; 3] = [
    Kind { name: "index in the tail", layout: Layout::Seeking, table: Table { rows: 100_000 }, trips: [2.0, 2.0] },
    Kind { name: "index outside", layout: Layout::Seeking, table: Table { rows: 1_200_000 }, trips: [3.0, 2.0] },
    Kind { name: "no page index", layout: Layout::Plain, table: Table { rows: 100_000 }, trips: [3.0, 3.0] },
];

/// What cold lookups in files of one kind came to: of first files, and of further ones.
#[derive(Default)]
struct Seen([Vec<Cost>; 2]);

struct Cost {
    p50_us: f64,
    trips: f64,
    bytes: f64,
    needed: f64,
    /// Bytes that come in the time of a trip, by the worker's own measure.
    worth: f64,
    /// Processor time of the worker, and of the client and the store, which are one process.
    worker_us: f64,
    beside_us: f64,
}

/// Measures in so many rounds. The latency hides where the sides run, so placement is the cores' own.
///
/// # Errors
/// Something cannot be started, or an answer is not right.
pub async fn run(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let cores = Cores::of_this_process()?;
    let mut rows = Vec::new();
    for placement in cores.placements() {
        let mut seen: [Seen; KINDS.len()] = Default::default();
        for round in 0..effort.rounds as u64 {
            for (kind, seen) in KINDS.iter().zip(&mut seen) {
                let file = kind.table.file(kind.layout)?;
                let worker = worker(&file).await?;
                placement.pin(&[worker.id()?])?;
                for number in 0..=FURTHER_FILES {
                    let row = crate::table::mixed(round << 8 | number) % kind.table.rows;
                    let cost = ask(&worker, kind, &file, number, row).await?;
                    seen.0[usize::from(number > 0)].push(cost);
                }
            }
        }
        cores.release()?;
        rows.extend(KINDS.iter().zip(&seen).flat_map(|(kind, seen)| report(placement.name, kind, seen)));
    }
    Ok(rows)
}

/// A worker over a late store with one file under many names.
async fn worker(file: &Path) -> anyhow::Result<BenchWorker> {
    let names: Vec<String> = (0..=FURTHER_FILES).map(name).collect();
    let objects: Vec<_> = names.iter().map(|name| (name.as_str(), file)).collect();
    let worker = BenchWorker::start(&[], &objects).await?;
    worker.store().set_latency(LATENCY);
    Ok(worker)
}

fn name(number: u64) -> String {
    format!("cold-{number}.parquet")
}

/// One cold lookup.
async fn ask(worker: &BenchWorker, kind: &Kind, file: &Path, number: u64, row: u64) -> anyhow::Result<Cost> {
    let client = worker.client().build()?;
    // Opens the connection.
    client.cluster().await?;
    let path: Arc<str> = format!("{BUCKET}/{}", name(number)).into();
    let asker = Asker { client, path, by: By::Id, keys: Keys::from(vec![row]) };
    worker.store().reset_counters();
    let (its, own) = ([worker.id()?], [std::process::id()]);
    let used = (Used::by(&its)?, Used::by(&own)?);
    let p50_us = asker.ask(1).await?.as_secs_f64() * 1e6;
    let (worker_us, beside_us) = (Used::by(&its)?.since(&used.0) * 1e6, Used::by(&own)?.since(&used.1) * 1e6);
    let requests = worker.store().requests();
    ensure!(!requests.is_empty(), "a cold lookup asked the store nothing");
    let bytes = worker.store().counters().bytes_sent as f64;
    let metrics = worker.metrics().await?;
    let mount = format!("mount=\"{BUCKET}\"");
    let pace = ["alcedo_origin_trip_seconds", "alcedo_origin_rate_bytes"].map(|name| metrics.sum(name, &[&mount]));
    let (trips, needed, worth) = (trips(&requests) as f64, needed(kind, file, row)?, pace[0] * pace[1]);
    Ok(Cost { p50_us, trips, bytes, needed, worth, worker_us, beside_us })
}

/// Bytes that nobody can do without: the footer, the page index's parts and data pages of the columns; whole chunks
/// where there is no index.
fn needed(kind: &Kind, file: &Path, row: u64) -> anyhow::Result<f64> {
    let read = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
    let metadata = read.parse_and_finish(&std::fs::File::open(file)?)?;
    let (mut group, mut first) = (0, 0);
    while first + metadata.row_group(group).num_rows() <= row.cast_signed() {
        first += metadata.row_group(group).num_rows();
        group += 1;
    }
    let of_leaf = |leaf: usize| match kind.layout {
        Layout::Seeking => page_bytes(&metadata, group, leaf, row.cast_signed() - first),
        Layout::Plain => Some(metadata.row_group(group).column(leaf).compressed_size()),
    };
    let bytes: Option<i64> = LEAVES.iter().map(|leaf| of_leaf(*leaf)).sum();
    Ok(bytes.context("a file without what its kind has")? as f64)
}

/// The data page of a leaf that holds a row, and the leaf's part of the page index.
fn page_bytes(metadata: &ParquetMetaData, group: usize, leaf: usize, row: i64) -> Option<i64> {
    let pages = metadata.offset_index()?[group][leaf].page_locations();
    let page = pages.iter().rev().find(|page| page.first_row_index <= row)?;
    let chunk = metadata.row_group(group).column(leaf);
    // Bounds are needed of the key only.
    let bounds = if leaf == LEAVES[0] { chunk.column_index_length()? } else { 0 };
    Some(i64::from(page.compressed_page_size) + i64::from(bounds) + i64::from(chunk.offset_index_length()?))
}

fn report(placement: &str, kind: &Kind, seen: &Seen) -> Vec<Row> {
    let mut rows = Vec::new();
    for (which, (costs, allowed)) in seen.0.iter().zip(kind.trips).enumerate() {
        let tail = if which == 0 { "the mount's first file" } else { "the tail is learned" };
        let name = format!("cold, {placement}, {}, {tail}", kind.name);
        let of = |figure: fn(&Cost) -> f64| median(costs.iter().map(figure));
        let (trips, bytes, needed) = (of(|cost| cost.trips), of(|cost| cost.bytes), of(|cost| cost.needed));
        let worth = of(|cost| cost.worth);
        rows.push(Row::new(format!("{name}: dependent trips"), "trips", trips).at_most(allowed));
        let bound = 1.25 * needed + TAIL_BYTES;
        // A trip less is paid with bytes, as long as they take less time than the trip.
        let words = format!(
            "at most 1.25 times what is needed and the tail ({bound:.0}); with {allowed} trips what is beyond may cost \
             one more ({worth:.0})"
        );
        let is_met = bytes <= bound || trips <= allowed && bytes - bound <= worth;
        rows.push(Row::new(format!("{name}: bytes"), "bytes", bytes).beside(needed).judged(words, Some(is_met)));
        let latency = LATENCY.as_secs_f64() * 1e6;
        let p50 = Row::new(format!("{name}: p50"), "us", of(|cost| cost.p50_us)).beside(latency);
        rows.push(p50.at_most_times(allowed + SLACK, "the injected latency"));
        // What of the time is work, which no trip hides.
        rows.push(Row::new(format!("{name}: processor time of the worker"), "us", of(|cost| cost.worker_us)));
        rows.push(Row::new(format!("{name}: of client and store"), "us", of(|cost| cost.beside_us)));
    }
    rows
}
