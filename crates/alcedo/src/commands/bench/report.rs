//! The numbers of a measurement: what the answers said, how long they took, and how that is told.
//!
//! Knows histograms, sums and their two forms. It must not know how the lookups were made.

use std::collections::BTreeMap;
use std::time::Duration;

use alcedo_client::{Answer, Error, KeyStatus, Kind};
use hdrhistogram::Histogram;
use serde_json::{Map, Value as Json, json};

use crate::commands::get::source;
use crate::output::aligned::aligned;
use crate::output::quantity::{bytes, count, counted, elapsed, millis};
use crate::output::{API_VERSION, printable};

/// Digits that times keep in the histogram: one part in a thousand.
const DIGITS: u8 = 3;

/// Longest time that the histogram tells from longer ones: the longest deadline.
const MAX_NANOS: u64 = 3_600_000_000_000;

/// What the percentiles of a closed loop leave out.
const NOTE: &str = "closed loop: a slow answer delays the loop's next question, so a pause of a worker is counted once \
                    per loop and not for the questions that would have come meanwhile; times at a fixed rate are \
                    longer";

/// What was measured how.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) path: String,
    pub(super) concurrency: u64,
    pub(super) batch: u64,
    /// The first lookup, which is not among the measured ones.
    pub(super) first: Duration,
    pub(super) elapsed: Duration,
    pub(super) interrupted: bool,
}

/// What the lookups came to.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// Times of the lookups that were answered, in nanoseconds; none until the first.
    times: Option<Histogram<u64>>,
    keys: u64,
    missing: u64,
    rows: u64,
    origin_gets: u64,
    origin_bytes: u64,
    /// Lookups by the slowest place that their bytes came from.
    sources: BTreeMap<&'static str, u64>,
    /// By kind: how many, and what the first of them said.
    errors: BTreeMap<&'static str, (u64, String)>,
}

impl Measured {
    /// An answer that took so long.
    pub(super) fn add(&mut self, answer: &Answer, took: Duration) {
        if self.times.is_none() {
            // The bounds are constants that the library takes.
            self.times = Histogram::new_with_max(MAX_NANOS, DIGITS).ok();
        }
        if let Some(times) = &mut self.times {
            times.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
        self.keys += answer.statuses.len() as u64;
        self.missing += answer.statuses.iter().filter(|status| **status == KeyStatus::NotFound).count() as u64;
        self.rows += answer.files.iter().map(|file| file.rows.len() as u64).sum::<u64>();
        self.origin_gets += answer.origin_gets;
        self.origin_bytes += answer.origin_bytes;
        *self.sources.entry(source(answer.source)).or_default() += 1;
    }

    /// A lookup that failed.
    pub(super) fn fail(&mut self, error: &Error) {
        let (count, _) = self.errors.entry(kind(error.kind())).or_insert_with(|| (0, error.message.clone()));
        *count += 1;
    }

    /// Lookups that were answered.
    pub(super) fn lookups(&self) -> u64 {
        self.times.as_ref().map_or(0, Histogram::len)
    }

    /// Lookups that failed.
    pub(super) fn failed(&self) -> u64 {
        self.errors.values().map(|(count, _)| count).sum()
    }

    /// The time that so many of a hundred lookups did not exceed, in microseconds; 100 is the longest.
    fn percentile(&self, part: f64) -> u64 {
        self.times.as_ref().map_or(0, |times| times.value_at_percentile(part)) / 1_000
    }

    pub(super) fn text(&self, setup: &Setup) -> String {
        let line = |name: &str, value: String| [name.to_owned(), value];
        let rate = |count| per_second(count, setup.elapsed);
        let stopped = if setup.interrupted { ", interrupted" } else { "" };
        let (lookups, each) = (count(self.lookups()), counted(setup.batch, "key"));
        let mut lines = vec![
            line(
                "lookups",
                format!("{lookups} of {each} in {}, {} at once{stopped}", elapsed(setup.elapsed), setup.concurrency),
            ),
            line("rate", format!("{} lookups/s, {} keys/s", count(rate(self.lookups())), count(rate(self.keys)))),
        ];
        if self.lookups() > 0 {
            let shown = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0)];
            lines.extend(shown.map(|(name, part)| line(name, millis(self.percentile(part)))));
        }
        let from: Vec<_> = self.sources.iter().map(|(name, lookups)| format!("{name} {}", count(*lookups))).collect();
        let found = count(self.keys - self.missing);
        lines.extend([
            line("keys", format!("{found} found, {} in no row; {}", count(self.missing), counted(self.rows, "row"))),
            line("from", if from.is_empty() { "-".to_owned() } else { from.join(", ") }),
            line("origin", format!("{}, {}", counted(self.origin_gets, "GET"), bytes(self.origin_bytes))),
        ]);
        for (kind, (failed, first)) in &self.errors {
            lines.push(line("failed", format!("{kind} {}: {}", count(*failed), printable(first))));
        }
        lines.push(line("first", format!("{}, connecting included; not among the above", elapsed(setup.first))));
        lines.push(line("note", NOTE.to_owned()));
        aligned(None, &lines)
    }

    pub(super) fn json(&self, setup: &Setup) -> Json {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let errors: Map<String, Json> =
            self.errors.iter().map(|(kind, (failed, _))| ((*kind).to_owned(), (*failed).into())).collect();
        let sources: Map<String, Json> =
            self.sources.iter().map(|(name, lookups)| ((*name).to_owned(), (*lookups).into())).collect();
        json!({
            "apiVersion": API_VERSION,
            "kind": "LookupBench",
            "path": setup.path,
            "loop": "closed",
            "concurrency": setup.concurrency,
            "batch": setup.batch,
            "interrupted": setup.interrupted,
            "elapsed_us": micros(setup.elapsed),
            "lookups": self.lookups(),
            "failed": self.failed(),
            "keys": self.keys,
            "keys_found": self.keys - self.missing,
            "keys_missing": self.missing,
            "rows": self.rows,
            "lookups_per_s": per_second(self.lookups(), setup.elapsed),
            "keys_per_s": per_second(self.keys, setup.elapsed),
            "p50_us": self.percentile(50.0),
            "p90_us": self.percentile(90.0),
            "p99_us": self.percentile(99.0),
            "p99_9_us": self.percentile(99.9),
            "max_us": self.percentile(100.0),
            "first_us": micros(setup.first),
            "sources": sources,
            "origin_gets": self.origin_gets,
            "origin_bytes": self.origin_bytes,
            "errors": errors,
        })
    }
}

/// Whole events per second.
fn per_second(count: u64, elapsed: Duration) -> u64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 { (count as f64 / seconds).round() as u64 } else { 0 }
}

/// The word of an error's kind.
fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::NotFound => "not_found",
        Kind::Invalid => "invalid",
        Kind::Denied => "denied",
        Kind::Unavailable => "unavailable",
        Kind::Deadline => "deadline",
        Kind::Exhausted => "exhausted",
        Kind::Failed => "failed",
        Kind::DataLoss => "data_loss",
        Kind::VersionChanged => "version_changed",
        Kind::Cancelled => "cancelled",
        Kind::Internal => "internal",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use alcedo_client::Source;

    use super::super::super::members::tests::error;
    use super::*;

    fn answer(statuses: &[KeyStatus], origin_gets: u64) -> Answer {
        Answer {
            files: Vec::new(),
            statuses: statuses.to_vec(),
            ring_epoch: 7,
            worker: "127.0.0.1:7610".into(),
            source: if origin_gets > 0 { Source::Origin } else { Source::Memory },
            files_total: 1,
            files_asked: 1,
            origin_gets,
            origin_bytes: 10 * origin_gets,
            trace: None,
            elapsed: Duration::ZERO,
        }
    }

    fn measured() -> Measured {
        let mut measured = Measured::default();
        for micros in 1..=1_000 {
            let statuses = [KeyStatus::Found, if micros <= 10 { KeyStatus::NotFound } else { KeyStatus::Found }];
            measured.add(&answer(&statuses, u64::from(micros == 1)), Duration::from_micros(micros));
        }
        measured.fail(&error(Kind::Deadline, None, "the deadline of 5s passed\u{1b}"));
        measured.fail(&error(Kind::Deadline, None, "another"));
        measured.fail(&error(Kind::Exhausted, None, "the worker is overloaded"));
        measured
    }

    fn setup(interrupted: bool) -> Setup {
        let elapsed = Duration::from_millis(500);
        let first = Duration::from_micros(12_300);
        Setup { path: "lake/".into(), concurrency: 64, batch: 2, first, elapsed, interrupted }
    }

    #[test]
    fn times_are_percentiles_and_failures_are_by_kind() {
        let expected = "\
lookups  1,000 of 2 keys in 500 ms, 64 at once
rate     2,000 lookups/s, 4,000 keys/s
p50      0.500 ms
p90      0.900 ms
p99      0.990 ms
p99.9    1.000 ms
max      1.000 ms
keys     1,990 found, 10 in no row; 0 rows
from     memory 999, origin 1
origin   1 GET, 10 B
failed   deadline 2: the deadline of 5s passed\\\\u{1b}
failed   exhausted 1: the worker is overloaded
first    12.3 ms, connecting included; not among the above
note     closed loop: ";
        let text = measured().text(&setup(false));
        assert!(text.starts_with(&expected.replace("\\\\", "\\")), "{text}");
        let nothing = Measured::default().text(&setup(true));
        assert!(nothing.starts_with("lookups  0 of 2 keys in 500 ms, 64 at once, interrupted\n"), "{nothing}");
        assert!(!nothing.contains("p50"), "{nothing}");
    }

    #[test]
    fn programs_get_integers() {
        let json = measured().json(&setup(true));
        assert_eq!((json["kind"].as_str(), json["loop"].as_str()), (Some("LookupBench"), Some("closed")));
        for (field, value) in [
            ("lookups", 1_000),
            ("failed", 3),
            ("keys", 2_000),
            ("keys_missing", 10),
            ("lookups_per_s", 2_000),
            ("p50_us", 500),
            ("p99_9_us", 1_000),
            ("max_us", 1_000),
            ("elapsed_us", 500_000),
            ("first_us", 12_300),
            ("origin_gets", 1),
        ] {
            assert_eq!(json[field].as_u64(), Some(value), "{field}");
        }
        assert_eq!((json["errors"]["deadline"].as_u64(), json["sources"]["memory"].as_u64()), (Some(2), Some(999)));
        assert_eq!(json["interrupted"].as_bool(), Some(true));
    }
}
