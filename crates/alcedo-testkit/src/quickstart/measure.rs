//! Lookups, timed and checked: what the quickstart's table is made of.

use std::sync::Arc;
use std::time::Instant;

use alcedo_client::{Answer, Client, KeyStatus, Value};
use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;

use super::{MOUNT, Row, differs};
use crate::lake::{SampleLake, TruthRow};
use crate::s3::S3Server;

/// Digits that the histogram keeps.
const SIGNIFICANT_DIGITS: u8 = 3;
/// The longest lookup that the histogram tells from longer ones, in microseconds: a minute.
const MAX_MICROS: u64 = 60_000_000;

/// One row of the table in the making.
pub(super) struct Measurement<'a> {
    name: String,
    store: &'a S3Server,
    micros: Vec<u64>,
    gets: u64,
    other_requests: u64,
    bytes: u64,
    keys: u64,
}

/// One row of the table.
pub(super) struct Measured {
    name: String,
    calls: u64,
    keys: u64,
    p50_ms: f64,
    p99_ms: f64,
    gets: f64,
    bytes: f64,
}

impl<'a> Measurement<'a> {
    pub(super) fn new(name: &str, store: &'a S3Server) -> Self {
        Self { name: name.to_owned(), store, micros: Vec::new(), gets: 0, other_requests: 0, bytes: 0, keys: 0 }
    }

    /// Looks one row up by a key column and compares it with the truth.
    pub(super) async fn lookup(&mut self, client: &Client, lake: &SampleLake, column: &str, number: u64) -> Result<()> {
        let truth = lake.row(number).context("the lake has lost a row")?;
        let key = if column == "id" { truth.id.to_string() } else { truth.user.clone() };
        let before = self.store.counters();
        let started = Instant::now();
        let answer = client.lookup(format!("{MOUNT}/")).key_column(column).key(key).await?;
        self.micros.push(u64::try_from(started.elapsed().as_micros())?);
        self.count(&before, 1);
        check(&answer, &[truth])
    }

    /// Looks many rows up in one call.
    pub(super) async fn multi_get(&mut self, client: &Client, lake: &SampleLake, numbers: &[u64]) -> Result<()> {
        let truths: Vec<TruthRow> =
            numbers.iter().map(|n| lake.row(*n).context("the lake has lost a row")).collect::<Result<_>>()?;
        let before = self.store.counters();
        let started = Instant::now();
        let answer =
            client.lookup(format!("{MOUNT}/")).key_column("id").keys(truths.iter().map(|truth| truth.id)).await?;
        self.micros.push(u64::try_from(started.elapsed().as_micros())?);
        self.count(&before, numbers.len() as u64);
        check(&answer, &truths)
    }

    fn count(&mut self, before: &crate::s3::Counters, keys: u64) {
        let after = self.store.counters();
        self.gets += after.get - before.get;
        self.other_requests += (after.list - before.list) + (after.head - before.head);
        self.bytes += after.bytes_sent - before.bytes_sent;
        self.keys += keys;
    }

    pub(super) fn finish(self) -> Measured {
        let calls = self.micros.len() as u64;
        let at = |quantile| percentile_ms(&self.micros, quantile);
        Measured {
            name: self.name,
            calls,
            keys: self.keys,
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            gets: (self.gets + self.other_requests) as f64 / calls.max(1) as f64,
            bytes: self.bytes as f64 / calls.max(1) as f64,
        }
    }
}

fn percentile_ms(micros: &[u64], quantile: f64) -> f64 {
    let Ok(mut histogram) = Histogram::<u64>::new_with_bounds(1, MAX_MICROS, SIGNIFICANT_DIGITS) else {
        return f64::NAN;
    };
    for value in micros {
        histogram.saturating_record(*value);
    }
    histogram.value_at_quantile(quantile) as f64 / 1_000.0
}

/// Every key found, and every row equal to the truth in all of its columns.
fn check(answer: &Answer, truths: &[TruthRow]) -> Result<()> {
    let mut found = vec![0; truths.len()];
    for (_, row) in answer.rows() {
        let key = row.key_index as usize;
        ensure!(key < truths.len(), "an answer names key {key} of {}", truths.len());
        found[key] += 1;
        differs(&truths[key], &row.values)?;
    }
    ensure!(found.iter().all(|count| *count == 1), "some key has another number of rows than one: {found:?}");
    ensure!(answer.statuses.iter().all(|status| *status == KeyStatus::Found), "a key that has a row is not found");
    Ok(())
}

/// A truth row as the client hands it out.
pub(super) fn truth_values(truth: &TruthRow) -> Row {
    let tags = truth.tags.as_ref().map(|tags| tags.iter().map(|tag| Value::String((*tag).to_owned())).collect());
    Arc::new([
        Value::Int(truth.id),
        Value::String(truth.user.clone()),
        truth.name.clone().map_or(Value::Null, Value::String),
        Value::String(truth.city.to_owned()),
        Value::Float64(truth.score),
        Value::Decimal(hundredths(truth.amount).into()),
        Value::Int(truth.created_micros),
        Value::Int(truth.flags.into()),
        Value::Bool(truth.active),
        tags.map_or(Value::Null, Value::List),
    ])
}

/// How many keys were looked up and compared in all.
pub(super) fn total(rows: &[Measured]) -> u64 {
    rows.iter().map(|row| row.keys).sum()
}

#[allow(clippy::print_stdout)] // The quickstart's table.
pub(super) fn print(rows: &[Measured]) {
    println!(
        "{:<32}{:>7}{:>12}{:>12}{:>18}{:>16}",
        "lookup of whole rows", "calls", "p50", "p99", "store requests", "store bytes"
    );
    println!("{:<32}{:>7}{:>12}{:>12}{:>18}{:>16}", "by the lake's prefix", "", "", "", "per call", "per call");
    for row in rows {
        println!(
            "{:<32}{:>7}{:>9.2} ms{:>9.2} ms{:>18.2}{:>16}",
            row.name,
            row.calls,
            row.p50_ms,
            row.p99_ms,
            row.gets,
            bytes_text(row.bytes)
        );
    }
}

fn bytes_text(bytes: f64) -> String {
    match bytes {
        b if b >= 1e6 => format!("{:.1} MB", b / 1e6),
        b if b >= 1e3 => format!("{:.1} kB", b / 1e3),
        b => format!("{b:.0} B"),
    }
}

/// A count of hundredths as a decimal of scale 2, without the code under test.
fn hundredths(amount: i128) -> String {
    let sign = if amount < 0 { "-" } else { "" };
    let magnitude = amount.unsigned_abs();
    format!("{sign}{}.{:02}", magnitude / 100, magnitude % 100)
}
