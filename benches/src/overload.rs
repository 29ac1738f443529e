//! More lookups than a worker can answer: what it still answers, and how fast it says no to the rest.
//!
//! A flood travels as the peak does that it is a multiple of: in frames, which clients change over to by themselves, or
//! over gRPC, where the same lookups cost more.
//! Knows multiples of a peak and what is to remain of it. The work is that of compressed data pages, which costs a
//! worker most. Client and worker have a core each: on one core the sender would take what is measured. How late a
//! refusal is depends on who looks: the worker from reading the frame on, the client from when the connection took it,
//! or from when it was due; all three are rows, and how busy the client was is another.

use std::sync::Arc;

use alcedo_testkit::cluster::BUCKET;
use anyhow::Context;

use crate::asker::{Asker, By};
use crate::big_tables::{MEMORY, TABLE};
use crate::built;
use crate::effort::Effort;
use crate::flood::{Flooded, Flooder, Way};
use crate::keys::Keys;
use crate::load::MANY;
use crate::placement::{Cores, Used};
use crate::report::{Row, median};
use crate::table::Layout;
use crate::worker::{BenchWorker, Metrics};

/// Multiples of the peak, and the share of the peak's goodput that is to remain.
const FLOODS: [(f64, f64); 2] = [(2.0, 0.9), (10.0, 0.7)];
/// How long a refusal may take, 99 of 100 times.
const REFUSAL_US: f64 = 5_000.0;
/// How lookups travel, and what rows say of it.
const WAYS: [(Way, &str); 2] = [(Way::Frames, ""), (Way::Grpc, " over gRPC")];
/// A flood lasts so many times a load's time: queues must have time to fill, and calls time to be late.
const FLOOD_LOADS: u32 = 5;
/// The worker's own times of lookups that came to nothing, refusals nearly all.
const OWN_TIMES: &str = "alcedo_lookup_duration_seconds_bucket";

/// One flood, as seen from outside and by the worker itself.
struct Seen {
    flooded: Flooded,
    peak: f64,
    /// Upper bound of the bucket that holds the 99th of a hundred refusals, from reading the frame to the refusal.
    own_us: f64,
    /// The client's processor time, as a share of the flood's.
    client: f64,
}

/// Measures in so many rounds.
///
/// # Errors
/// Something cannot be started, or an answer is not right.
pub async fn run(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let file = TABLE.file(Layout::Seeking)?;
    let worker = BenchWorker::start(&[MEMORY, built::OFF].concat(), &[("table.parquet", &file)]).await?;
    let path: Arc<str> = format!("{BUCKET}/table.parquet").into();
    let keys = Keys::uniform(TABLE.rows);
    let mut sides = Vec::with_capacity(WAYS.len());
    for (way, said) in WAYS {
        let client = worker.client().frames(way == Way::Frames).build()?;
        let asker = Asker { client, path: Arc::clone(&path), by: By::Id, keys: keys.clone() };
        asker.warm(TABLE).await?;
        let flooder = Flooder::connect(worker.endpoint(), &path, way).await?;
        sides.push(Side { said, asker, flooder, peaks: Vec::new(), seen: Default::default() });
    }
    let cores = Cores::of_this_process()?;
    let placement = *cores.placements().last().context("no core")?;
    placement.pin(&[worker.id()?])?;
    for _ in 0..effort.rounds {
        for side in &mut sides {
            side.round(effort, &worker).await?;
        }
    }
    cores.release()?;
    let name = |side: &Side| format!("overload, {}, from compressed data pages{}", placement.name, side.said);
    Ok(sides
        .into_iter()
        .flat_map(|side| {
            let name = name(&side);
            side.report(&name)
        })
        .collect())
}

/// Lookups that travel one way.
struct Side {
    said: &'static str,
    asker: Asker,
    flooder: Flooder,
    peaks: Vec<f64>,
    seen: [Vec<Seen>; FLOODS.len()],
}

impl Side {
    async fn round(&mut self, effort: Effort, worker: &BenchWorker) -> anyhow::Result<()> {
        let duration = effort.load * FLOOD_LOADS;
        let peak = self.asker.run(MANY, &[worker.id()?], duration).await?.keys_per_second;
        self.peaks.push(peak);
        for ((times, _), seen) in FLOODS.iter().zip(&mut self.seen) {
            let (before, used) = (worker.metrics().await?, Used::by(&[std::process::id()])?);
            let flooded = self.flooder.flood(&self.asker.keys, peak * times, duration).await?;
            let client = Used::by(&[std::process::id()])?.since(&used) / duration.as_secs_f64();
            let own_us = own_p99_us(&before, &worker.metrics().await?);
            seen.push(Seen { flooded, peak, own_us, client });
        }
        Ok(())
    }

    fn report(self, name: &str) -> Vec<Row> {
        let mut rows = vec![Row::new(format!("{name}: peak, {}", MANY.name), "keys per second", median(self.peaks))];
        for ((times, least), seen) in FLOODS.iter().zip(&self.seen) {
            rows.extend(report(&format!("{name}, {times} times the peak"), *least, seen));
        }
        rows
    }
}

fn report(name: &str, least: f64, seen: &[Seen]) -> Vec<Row> {
    let of = |figure: fn(&Seen) -> f64| median(seen.iter().map(figure));
    let refused = of(|seen| seen.flooded.refused);
    let timed = |what: &str, p99: f64| Row::new(format!("{name}: refusals, p99, {what}"), "us", p99);
    let judged = |row: Row| {
        let is_met = refused > 0.0 && row.alcedo <= REFUSAL_US;
        row.judged(format!("some are refused, within {REFUSAL_US} us"), Some(is_met))
    };
    let goodput = Row::new(format!("{name}: goodput"), "of the peak", of(|seen| seen.flooded.goodput / seen.peak));
    vec![
        goodput.at_least(least),
        judged(timed("from the connection to the reply", of(|seen| seen.flooded.refusal_us))),
        judged(timed("by the worker's own clock, at most", of(|seen| seen.own_us))),
        timed("from when they were due", of(|seen| seen.flooded.refusal_since_due_us)),
        Row::new(format!("{name}: refused"), "of all calls", refused),
        Row::new(format!("{name}: too late"), "of all calls", of(|seen| seen.flooded.late)),
        Row::new(format!("{name}: the client's processor"), "of its core", of(|seen| seen.client)),
    ]
}

/// The bound of the bucket below which 99 of 100 failed lookups between two looks were.
fn own_p99_us(before: &Metrics, after: &Metrics) -> f64 {
    let failed = |metrics: &Metrics| metrics.buckets(OWN_TIMES, "outcome=\"error\"");
    let (before, after) = (failed(before), failed(after));
    let grown = |(bound, count): &(f64, f64)| {
        let earlier = before.iter().find(|(other, _)| other == bound).map_or(0.0, |(_, count)| *count);
        (*bound, count - earlier)
    };
    let grown: Vec<(f64, f64)> = after.iter().map(grown).collect();
    let all = grown.last().map_or(0.0, |(_, count)| *count);
    grown.iter().find(|(_, count)| *count >= 0.99 * all).map_or(0.0, |(bound, _)| bound.min(60.0) * 1e6)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn the_workers_own_time_is_the_bucket_of_what_grew() {
        let look = |counts: [u64; 3]| {
            let line = |(bound, count)| format!("{OWN_TIMES}{{le=\"{bound}\",outcome=\"error\"}} {count}\n");
            let text: String = ["0.0001", "0.004", "+Inf"].into_iter().zip(counts).map(line).collect();
            Metrics::parse(&(text + &format!("{OWN_TIMES}{{le=\"9\",outcome=\"hit\"}} 1000\n")))
        };
        assert_eq!(own_p99_us(&look([900, 900, 900]), &look([900, 1_000, 1_000])), 4_000.0);
        assert_eq!(own_p99_us(&look([0, 0, 0]), &look([99, 100, 100])), 100.0);
        assert_eq!(own_p99_us(&look([0, 0, 0]), &look([0, 90, 100])), 60e6);
    }
}
