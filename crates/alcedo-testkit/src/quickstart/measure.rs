//! Lookups, timed and checked: what the quickstart's table is made of.
//!
//! Knows the clock, the store's counters and the generated truth. It must not know workers or what happens to them.

use std::sync::Arc;
use std::time::Instant;

use alcedo_client::{Answer, Client, Error, KeyStatus, Value};
use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;

use crate::lake::{SampleLake, TruthRow};
use crate::s3::{Counters, S3Server};

/// Digits that the histogram keeps.
const SIGNIFICANT_DIGITS: u8 = 3;
/// The longest lookup that the histogram tells from longer ones, in microseconds: a minute.
const MAX_MICROS: u64 = 60_000_000;

/// What is asked: the row of this number, below this path, by this key column.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) path: String,
    pub(super) column: &'static str,
    pub(super) number: u64,
}

/// One row of the table in the making.
pub(super) struct Measurement {
    name: String,
    before: Counters,
    micros: Vec<u64>,
    keys: u64,
    failed: u64,
    wrong: u64,
    /// The first of those that failed or were wrong, in words.
    complaint: Option<String>,
}

/// One row of the table.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    name: String,
    calls: u64,
    pub(super) keys: u64,
    p50_ms: f64,
    p99_ms: f64,
    /// Requests to the store of all calls together.
    pub(super) requests: u64,
    bytes: u64,
    pub(super) failed: u64,
    pub(super) wrong: u64,
    pub(super) complaint: Option<String>,
}

impl Measurement {
    /// Everything that is asked of the store from here to [`Measurement::finish`] counts, also what happens in the
    /// background.
    pub(super) fn new(name: &str, store: &S3Server) -> Self {
        let (before, micros) = (store.counters(), Vec::new());
        Self { name: name.to_owned(), before, micros, keys: 0, failed: 0, wrong: 0, complaint: None }
    }

    /// Looks one row up and compares it with the truth. Returns the address of the worker that answered.
    pub(super) async fn lookup(
        &mut self,
        client: &Client,
        lake: &SampleLake,
        question: &Question,
    ) -> Result<Option<Arc<str>>> {
        let truth = lake.row(question.number).context("the lake has lost a row")?;
        let key = if question.column == "id" { truth.id.to_string() } else { truth.user.clone() };
        let started = Instant::now();
        let answer = client.lookup(&question.path).key_column(question.column).key(key).await;
        self.take(started, answer, &[truth])
    }

    /// Looks many rows up by `id` in one call.
    pub(super) async fn multi_get(
        &mut self,
        client: &Client,
        lake: &SampleLake,
        path: &str,
        numbers: &[u64],
    ) -> Result<()> {
        let truths: Vec<TruthRow> =
            numbers.iter().map(|n| lake.row(*n).context("the lake has lost a row")).collect::<Result<_>>()?;
        let started = Instant::now();
        let answer = client.lookup(path).key_column("id").keys(truths.iter().map(|truth| truth.id)).await;
        self.take(started, answer, &truths).map(|_| ())
    }

    fn take(
        &mut self,
        started: Instant,
        answer: Result<Answer, Error>,
        truths: &[TruthRow],
    ) -> Result<Option<Arc<str>>> {
        self.micros.push(u64::try_from(started.elapsed().as_micros())?);
        self.keys += truths.len() as u64;
        match answer {
            Ok(answer) => {
                if let Err(difference) = check(&answer, truths) {
                    self.wrong += 1;
                    self.complaint.get_or_insert_with(|| difference.to_string());
                }
                Ok(Some(answer.worker))
            }
            Err(error) => {
                self.failed += 1;
                self.complaint.get_or_insert_with(|| error.to_string());
                Ok(None)
            }
        }
    }

    /// How many calls have ended.
    pub(super) fn calls(&self) -> usize {
        self.micros.len()
    }

    pub(super) fn finish(self, store: &S3Server) -> Measured {
        let after = store.counters();
        let requests = |of: &Counters| of.get + of.list + of.head;
        Measured {
            calls: self.micros.len() as u64,
            keys: self.keys,
            p50_ms: percentile_ms(&self.micros, 0.5),
            p99_ms: percentile_ms(&self.micros, 0.99),
            requests: requests(&after) - requests(&self.before),
            bytes: after.bytes_sent - self.before.bytes_sent,
            name: self.name,
            failed: self.failed,
            wrong: self.wrong,
            complaint: self.complaint,
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
        let (wanted, truth) = (&truths[key], truth_values(&truths[key]));
        if *truth != *row.values {
            bail!("row {} is {:?}, the truth is {truth:?}", wanted.number, row.values);
        }
    }
    ensure!(found.iter().all(|count| *count == 1), "some key has another number of rows than one: {found:?}");
    ensure!(answer.statuses.iter().all(|status| *status == KeyStatus::Found), "a key that has a row is not found");
    Ok(())
}

/// A truth row as the client hands it out.
fn truth_values(truth: &TruthRow) -> Vec<Value> {
    let tags = truth.tags.as_ref().map(|tags| tags.iter().map(|tag| Value::String((*tag).to_owned())).collect());
    vec![
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
    ]
}

/// A count of hundredths as a decimal of scale 2, without the code under test.
fn hundredths(amount: i128) -> String {
    let sign = if amount < 0 { "-" } else { "" };
    let magnitude = amount.unsigned_abs();
    format!("{sign}{}.{:02}", magnitude / 100, magnitude % 100)
}

/// Prints rows of the table below a head line that says what they have in common.
#[allow(clippy::print_stdout)] // The quickstart's table.
pub(super) fn print(head: &str, rows: &[Measured]) {
    println!("{head:<45}{:>6}{:>11}{:>11}{:>10}{:>11}{:>8}", "calls", "p50", "p99", "requests", "bytes", "failed");
    println!("{:<45}{:>6}{:>11}{:>11}{:>21}", "", "", "", "", "of the store per call");
    for row in rows {
        let per_call = |total: u64| total as f64 / row.calls.max(1) as f64;
        println!(
            "{:<45}{:>6}{:>8.2} ms{:>8.2} ms{:>10.2}{:>11}{:>8}",
            row.name,
            row.calls,
            row.p50_ms,
            row.p99_ms,
            per_call(row.requests),
            bytes_text(per_call(row.bytes)),
            row.failed
        );
    }
    println!();
}

fn bytes_text(bytes: f64) -> String {
    match bytes {
        b if b >= 1e6 => format!("{:.1} MB", b / 1e6),
        b if b >= 1e3 => format!("{:.1} kB", b / 1e3),
        b => format!("{b:.0} B"),
    }
}
