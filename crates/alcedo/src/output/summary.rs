//! What lookups cost and where their answers came from: the line on stderr, and the fields of the JSON document.
//!
//! Part of the output layer. A summary is filled by a command from the answers of one or more lookups.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::quantity::{bytes, count, counted, elapsed};

/// The sum of some lookups.
#[derive(Debug, Default, Clone)]
pub(crate) struct Summary {
    /// Keys that were asked, and how many of them have no row.
    pub(crate) keys: u64,
    pub(crate) missing: u64,
    pub(crate) rows: u64,
    /// Requests: a multi-get of many keys takes several.
    pub(crate) lookups: u64,
    /// Addresses of the workers that answered.
    pub(crate) workers: BTreeSet<String>,
    /// The slowest place that bytes came from, of the last lookup.
    pub(crate) source: String,
    pub(crate) ring_epoch: u64,
    pub(crate) files_total: u64,
    pub(crate) files_asked: u64,
    pub(crate) origin_gets: u64,
    pub(crate) origin_bytes: u64,
    pub(crate) elapsed: Duration,
}

impl Summary {
    /// `1 row · 0.41 ms · 127.0.0.1:7610 · 1/16 files asked · 0 origin GETs`
    pub(crate) fn line(&self) -> String {
        let mut parts = vec![counted(self.rows, "row")];
        if self.missing > 0 {
            parts.push(format!("{} of {} not found", count(self.missing), counted(self.keys, "key")));
        }
        parts.push(elapsed(self.elapsed));
        parts.push(match (self.workers.len(), self.workers.first()) {
            (1, Some(worker)) => worker.clone(),
            (workers, _) => counted(workers as u64, "worker"),
        });
        if self.lookups == 1 {
            parts.push(format!("{}/{} asked", count(self.files_asked), counted(self.files_total, "file")));
        } else {
            parts.push(counted(self.lookups, "lookup"));
        }
        parts.push(self.origin());
        parts.join(" · ")
    }

    /// The times of a repeated lookup: the first run apart, because it may have paid for the others.
    pub(crate) fn repeated(&self, runs: &[Duration]) -> String {
        let mut later: Vec<Duration> = runs.iter().skip(1).copied().collect();
        later.sort_unstable();
        let quantile = |q: f64| {
            // Nearest rank: the smallest time that at least this share of the runs did not exceed.
            let rank = (q * later.len() as f64).ceil() as usize;
            elapsed(later.get(rank.saturating_sub(1)).copied().unwrap_or_default())
        };
        format!(
            "{} · first {} ({}) · then p50 {} · p99 {} · max {}",
            counted(runs.len() as u64, "run"),
            elapsed(runs.first().copied().unwrap_or_default()),
            self.origin(),
            quantile(0.50),
            quantile(0.99),
            quantile(1.0),
        )
    }

    fn origin(&self) -> String {
        let gets = counted(self.origin_gets, "origin GET");
        if self.origin_bytes == 0 { gets } else { format!("{gets} ({})", bytes(self.origin_bytes)) }
    }

    /// The fields of a JSON document.
    pub(crate) fn fields(&self) -> Map<String, Json> {
        let fields = json!({
            "lookups": self.lookups,
            "workers": self.workers,
            "source": self.source,
            "ring_epoch": format!("{:016x}", self.ring_epoch),
            "files_total": self.files_total,
            "files_asked": self.files_asked,
            "origin_gets": self.origin_gets,
            "origin_bytes": self.origin_bytes,
            "elapsed_us": u64::try_from(self.elapsed.as_micros()).unwrap_or(u64::MAX),
        });
        if let Json::Object(fields) = fields { fields } else { Map::new() }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn one_lookup() -> Summary {
        Summary {
            keys: 1,
            rows: 1,
            lookups: 1,
            workers: ["127.0.0.1:7610".to_owned()].into(),
            source: "memory".into(),
            ring_epoch: 0xabc,
            files_total: 16,
            files_asked: 1,
            elapsed: Duration::from_micros(410),
            ..Summary::default()
        }
    }

    #[test]
    fn one_lookup_is_told_in_one_line() {
        assert_eq!(one_lookup().line(), "1 row · 0.41 ms · 127.0.0.1:7610 · 1/16 files asked · 0 origin GETs");
    }

    #[test]
    fn many_lookups_are_told_by_their_sums() {
        let summary = Summary {
            keys: 10_000,
            missing: 2,
            rows: 9_998,
            lookups: 10,
            workers: ["a:1".to_owned(), "b:1".to_owned()].into(),
            origin_gets: 3,
            origin_bytes: 1 << 20,
            elapsed: Duration::from_millis(148),
            ..one_lookup()
        };
        assert_eq!(
            summary.line(),
            "9,998 rows · 2 of 10,000 keys not found · 148 ms · 2 workers · 10 lookups · 3 origin GETs (1.0 MiB)"
        );
    }

    #[test]
    fn a_repeated_lookup_tells_the_first_run_apart() {
        let runs: Vec<Duration> = [93_100, 300, 100, 200].into_iter().map(Duration::from_micros).collect();
        assert_eq!(
            one_lookup().repeated(&runs),
            "4 runs · first 93.1 ms (0 origin GETs) · then p50 0.20 ms · p99 0.30 ms · max 0.30 ms"
        );
    }
}
