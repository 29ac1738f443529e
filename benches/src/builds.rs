//! Building derived objects: how fast alone, and what lookups notice of it.
//!
//! Knows the builders of `alcedo-lookup`, driven over a file in memory, and a worker that builds in the background at
//! its usual share of a processor while hot rows of another file are asked for. It must not know when a build is worth
//! it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alcedo_lookup::answer::Form;
use alcedo_lookup::derived::Built;
use alcedo_lookup::keymap::builder::Builder;
use alcedo_lookup::limits::Limits;
use alcedo_lookup::machine::{Machine, drive_bytes};
use alcedo_lookup::open::Open;
use alcedo_lookup::prepared::Prepared;
use alcedo_lookup::ready::ReadyBuild;
use alcedo_lookup::search::Query;
use alcedo_testkit::cluster::BUCKET;
use anyhow::ensure;
use bytes::Bytes;

use crate::asker::{Asker, By};
use crate::big_tables::TABLE;
use crate::built::{self, Kind};
use crate::effort::Effort;
use crate::keys::Keys;
use crate::load::ONE;
use crate::placement::{Cores, Placement};
use crate::report::{Row, median};
use crate::series::Series;
use crate::table::{Layout, Table, mixed};
use crate::worker::BenchWorker;

/// Int64 keys that a keymap's builder is to take up in a second of one core.
const KEYMAP_KEYS: f64 = 5e6;
/// What the entries of one pass may take: enough for the table in one.
const KEYMAP_BUDGET_BYTES: usize = 64 << 20;
/// The file whose hot rows are asked for while another is built for.
const HOT: Table = Table { rows: 100_000 };
const HOT_ROWS: u64 = 1_000;
/// One look: short, so that a build seldom ends within it.
const SLICE: Duration = Duration::from_millis(100);
/// Looks without a build, and most looks during one.
const SLICES: usize = 30;
/// How long hot rows are asked for before anything is timed.
const HEATING: Duration = Duration::from_secs(1);

/// Measures both.
///
/// # Errors
/// Something cannot be started, or an answer is not right.
pub async fn run(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let mut rows = rates(effort.rounds)?;
    let cores = Cores::of_this_process()?;
    for placement in cores.placements() {
        rows.extend(noticed(placement, Kind::Ready).await?);
        rows.extend(noticed(placement, Kind::Keymap).await?);
        cores.release()?;
    }
    Ok(rows)
}

/// How fast the builders are, alone on one core.
fn rates(rounds: usize) -> anyhow::Result<Vec<Row>> {
    let file = Bytes::from(std::fs::read(TABLE.file(Layout::Seeking)?)?);
    let limits = Arc::new(Limits::default());
    let index = drive_bytes(Open::new(64 << 10, Arc::clone(&limits)), &file)?;
    let selected: Vec<String> = Table::SELECTED.map(str::to_owned).into();
    let (mut keymap_seconds, mut ready_seconds) = (Vec::new(), Vec::new());
    let (mut keymap_bytes, mut ready_bytes) = (0, 0);
    for _ in 0..rounds {
        let query = Query {
            key_column: Some("id".to_owned()),
            keys: Vec::new(),
            columns: Some(selected.clone()),
            form: Form::CompactRows,
            row_limit: None,
        };
        let prepared = Prepared::new(Arc::clone(&index), &query, Arc::clone(&limits))?;
        let began = Instant::now();
        keymap_bytes = build(Builder::new(Arc::new(prepared), KEYMAP_BUDGET_BYTES)?, &file)?;
        keymap_seconds.push(began.elapsed().as_secs_f64());
        let began = Instant::now();
        let ready = ReadyBuild::new(Arc::clone(&index), Some("id"), Some(&selected), Arc::clone(&limits))?;
        ready_bytes = build(ready, &file)?;
        ready_seconds.push(began.elapsed().as_secs_f64());
    }
    let table_rows = TABLE.rows as f64;
    Ok(vec![
        Row::new("builds, keymap of an int64 column", "keys per second", table_rows / median(keymap_seconds))
            .at_least(KEYMAP_KEYS),
        Row::new("builds, keymap of an int64 column: size", "bytes per row", keymap_bytes as f64 / table_rows),
        Row::new(
            "builds, lookup-ready rows of 2 columns",
            "MB per second",
            ready_bytes as f64 / 1e6 / median(ready_seconds),
        ),
        Row::new("builds, lookup-ready rows of 2 columns: size", "bytes per row", ready_bytes as f64 / table_rows),
    ])
}

/// Drives a builder over a file in memory; the object's bytes.
fn build<B: Machine<Output = Built<B>>>(mut builder: B, file: &Bytes) -> anyhow::Result<usize> {
    let mut whole = 0;
    loop {
        match drive_bytes(builder, file)? {
            Built::Part { bytes, rest, .. } => {
                whole += bytes.len();
                builder = rest;
            }
            Built::Head(head) => return Ok(whole + head.len()),
        }
    }
}

/// Hot lookups while an object of this kind is built for another file, beside the same ones while nothing is.
async fn noticed(placement: Placement, kind: Kind) -> anyhow::Result<Vec<Row>> {
    let (hot_file, big_file) = (HOT.file(Layout::Seeking)?, TABLE.file(Layout::Seeking)?);
    let objects: [(&str, &Path); 2] = [("hot.parquet", &hot_file), ("big.parquet", &big_file)];
    let worker = BenchWorker::start(&[], &objects).await?;
    placement.pin(&[worker.id()?])?;
    let asker = |file: &str, by, keys| -> anyhow::Result<Asker> {
        Ok(Asker { client: worker.client().build()?, path: format!("{BUCKET}/{file}").into(), by, keys })
    };
    let hot_rows = (0..HOT_ROWS).map(|number| mixed(number) % HOT.rows).collect::<Vec<_>>();
    let hot = asker("hot.parquet", By::Id, Keys::from(hot_rows))?;
    let by = if kind == Kind::Ready { By::Id } else { By::User };
    let big = asker("big.parquet", by, Keys::uniform(TABLE.rows))?;
    big.warm(TABLE).await?;
    hot.run(ONE, &[], HEATING).await?;
    let (mut quiet, mut building) = (Series::default(), Series::default());
    for _ in 0..SLICES {
        quiet.push(hot.run(ONE, &[worker.id()?], SLICE).await?);
    }
    built::until_begun(worker.endpoint(), &big).await?;
    let mut slices = 0;
    while slices < SLICES {
        let sample = hot.run(ONE, &[worker.id()?], SLICE).await?;
        if built::under_way(&worker.metrics().await?) == 0.0 {
            break;
        }
        building.push(sample);
        slices += 1;
    }
    ensure!(slices > 0, "the build of the kind {kind:?} was over before it was looked at");
    let what = if kind == Kind::Ready { "lookup-ready rows are" } else { "a keymap is" };
    let name = format!("builds, {}, hot rows while {what} built, beside none", placement.name);
    Ok(vec![
        building.p50_row(&name).beside(quiet.p50()),
        building.p99_row(&name).beside(quiet.p99()),
        building.rate_row(&name).beside(quiet.rate()),
    ])
}
