//! More lookups than a worker can answer: what it still answers, and how fast it says no to the rest.
//!
//! Knows how to send at a rate without waiting for answers. The work is that of compressed data pages, which costs a
//! worker most. Client and worker have a core each: on one core the sender would take what is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alcedo_client::{Budget, Kind};
use alcedo_testkit::cluster::BUCKET;
use anyhow::{Context, bail};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::asker::{Asker, By};
use crate::big_tables::{MEMORY, TABLE};
use crate::built;
use crate::effort::Effort;
use crate::keys::Keys;
use crate::load::{MANY, Times};
use crate::placement::Cores;
use crate::report::{Row, median};
use crate::table::Layout;
use crate::worker::BenchWorker;

/// Connections that the calls are spread over: what one client holds back by itself is no load.
const CONNECTIONS: usize = 16;
/// Multiples of the peak, and the share of the peak's goodput that is to remain.
const FLOODS: [(f64, f64); 2] = [(2.0, 0.9), (10.0, 0.7)];
/// How long a refusal may take, 99 of 100 times.
const REFUSAL_US: f64 = 5_000.0;
/// How often a handful of calls is sent.
const TICK: Duration = Duration::from_millis(1);
/// A call that takes longer is of no use to its caller.
const DEADLINE: Duration = Duration::from_secs(1);
/// A flood lasts so many times a load's time: queues must have time to fill, and calls time to be late.
const FLOOD_LOADS: u32 = 5;

/// What a flood came to.
#[derive(Default)]
struct Seen {
    goodput_share: Vec<f64>,
    refusal_p99_us: Vec<f64>,
    refused_share: Vec<f64>,
    late_share: Vec<f64>,
}

/// What the calls of one flood ended in.
struct Ends {
    good: AtomicU64,
    late: AtomicU64,
    refused: Times,
    wrong: AtomicU64,
}

/// Measures in so many rounds.
///
/// # Errors
/// Something cannot be started, or an answer is not right.
pub async fn run(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let file = TABLE.file(Layout::Seeking)?;
    let worker = BenchWorker::start(&[MEMORY, built::OFF].concat(), &[("table.parquet", &file)]).await?;
    let builder = worker.client().retry_budget(Budget::NONE).hedge_budget(Budget::NONE);
    let path: Arc<str> = format!("{BUCKET}/table.parquet").into();
    let asker = Asker { client: builder.clone().build()?, path, by: By::Id, keys: Keys::uniform(TABLE.rows) };
    asker.warm(TABLE).await?;
    let mut askers = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let client = builder.clone().deadline(DEADLINE).build()?;
        client.cluster().await?;
        askers.push(Asker { client, ..asker.clone() });
    }
    let cores = Cores::of_this_process()?;
    let placement = *cores.placements().last().context("no core")?;
    placement.pin(&[worker.id()?])?;
    let mut peaks = Vec::new();
    let mut all: [Seen; FLOODS.len()] = Default::default();
    for _ in 0..effort.rounds {
        let peak = asker.run(MANY, &[worker.id()?], effort.load).await?.keys_per_second;
        peaks.push(peak);
        for ((times, _), seen) in FLOODS.iter().zip(&mut all) {
            flood(&askers, peak, peak * times, effort.load * FLOOD_LOADS, seen).await?;
        }
    }
    cores.release()?;
    let name = format!("overload, {}, from compressed data pages", placement.name);
    let mut rows = vec![Row::new(format!("{name}: peak, {}", MANY.name), "keys per second", median(peaks))];
    for ((times, least), seen) in FLOODS.iter().zip(all) {
        let name = format!("{name}, {times} times the peak");
        rows.push(Row::new(format!("{name}: goodput"), "of the peak", median(seen.goodput_share)).at_least(*least));
        let (p99, share) = (median(seen.refusal_p99_us), median(seen.refused_share));
        let is_met = share > 0.0 && p99 <= REFUSAL_US;
        let words = format!("some are refused, within {REFUSAL_US} us");
        rows.push(Row::new(format!("{name}: refusals, p99"), "us", p99).judged(words, Some(is_met)));
        rows.push(Row::new(format!("{name}: refused"), "of all calls", share));
        rows.push(Row::new(format!("{name}: too late"), "of all calls", median(seen.late_share)));
    }
    Ok(rows)
}

/// Sends at a rate for so long, whatever comes back.
async fn flood(askers: &[Asker], peak: f64, rate: f64, duration: Duration, seen: &mut Seen) -> anyhow::Result<()> {
    let zero = || AtomicU64::new(0);
    let ends = Arc::new(Ends { good: zero(), late: zero(), refused: Times::new()?, wrong: zero() });
    let (begin, mut sent, mut calls) = (Instant::now(), 0_u64, JoinSet::new());
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while begin.elapsed() < duration {
        ticks.tick().await;
        let due = (begin.elapsed().min(duration).as_secs_f64() * rate) as u64;
        for number in sent..due {
            let asker = askers[number as usize % askers.len()].clone();
            let ends = Arc::clone(&ends);
            calls.spawn(async move { one(&asker, &ends, begin + duration).await });
        }
        sent = due.max(sent);
        while let Some(ended) = calls.try_join_next() {
            ended.context("a call panicked")??;
        }
    }
    while let Some(ended) = calls.join_next().await {
        ended.context("a call panicked")??;
    }
    let count = |number: &AtomicU64| number.load(Ordering::Relaxed) as f64;
    if count(&ends.wrong) > 0.0 {
        bail!("{} calls failed for another reason than load", count(&ends.wrong));
    }
    seen.goodput_share.push(count(&ends.good) / duration.as_secs_f64() / peak);
    seen.refusal_p99_us.push(ends.refused.quantile_us(0.99));
    seen.refused_share.push(ends.refused.count() as f64 / sent as f64);
    seen.late_share.push(count(&ends.late) / sent as f64);
    Ok(())
}

/// One call of a flood.
async fn one(asker: &Asker, ends: &Ends, end: Instant) -> anyhow::Result<()> {
    let rows = [asker.keys.draw()];
    let begin = Instant::now();
    match asker.call(&rows).await {
        Ok(answer) => {
            // What comes after the flood is no goodput of it.
            ends.good.fetch_add(u64::from(Instant::now() <= end), Ordering::Relaxed);
            return asker.compare(&rows, &answer);
        }
        Err(error) if error.kind == Kind::Exhausted => ends.refused.record(begin.elapsed()),
        Err(error) if error.kind == Kind::Deadline => {
            ends.late.fetch_add(1, Ordering::Relaxed);
        }
        Err(_) => {
            ends.wrong.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}
