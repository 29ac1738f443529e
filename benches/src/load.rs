//! Asking one side in one way for a while, and what came of it.
//!
//! Knows the clock and the server's processor time. It must not know which side it asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::placement::processor_seconds;
use crate::side::{Shape, Side};

/// Digits that the histogram keeps.
const SIGNIFICANT_DIGITS: u8 = 3;
/// The longest call that the histogram tells from longer ones, in nanoseconds: a minute.
const MAX_NANOS: u64 = 60_000_000_000;

/// A way of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// What it is called in a row's name.
    pub name: &'static str,
    /// Calls that are outstanding at once.
    pub outstanding: usize,
    /// Keys of each call.
    pub keys: usize,
}

/// What came of one load on one side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// The median call, in microseconds.
    pub p50_us: f64,
    /// The 99th of a hundred calls, in microseconds.
    pub p99_us: f64,
    /// Keys answered in a second.
    pub keys_per_second: f64,
    /// The server's processor time per key, in microseconds.
    pub server_us_per_key: f64,
}

/// What the tasks of a load share.
struct Shared {
    side: Side,
    shape: Shape,
    ids: Arc<[i64]>,
    keys: usize,
    until: Instant,
    /// Of all tasks together: they run on one thread, so nobody waits for it.
    times: Mutex<Histogram<u64>>,
}

/// Asks for `duration`, in turn for all of `ids`, whose rows are there. `server` is the process whose time is taken.
///
/// # Errors
/// A call fails, which ends the run: figures of failing calls mean nothing.
pub async fn run(
    side: &Side,
    shape: Shape,
    ids: &Arc<[i64]>,
    load: Load,
    server: u32,
    duration: Duration,
) -> anyhow::Result<Sample> {
    let (begin, used) = (Instant::now(), processor_seconds(server)?);
    let (side, ids) = (side.clone(), Arc::clone(ids));
    let times = Mutex::new(Histogram::new_with_bounds(1, MAX_NANOS, SIGNIFICANT_DIGITS)?);
    let shared = Arc::new(Shared { side, shape, ids, keys: load.keys, until: begin + duration, times });
    if load.outstanding == 1 {
        // In this very task: one that is spawned would be woken in another order.
        shared.ask(0).await?;
    } else {
        let mut tasks = JoinSet::new();
        for number in 0..load.outstanding {
            let shared = Arc::clone(&shared);
            tasks.spawn(async move { shared.ask(number).await });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.context("a task panicked")??;
        }
    }
    let times = shared.times.lock().unwrap_or_else(PoisonError::into_inner);
    let (seconds, used) = (begin.elapsed().as_secs_f64(), processor_seconds(server)? - used);
    let keys = (times.len() * load.keys as u64) as f64;
    Ok(Sample {
        p50_us: times.value_at_quantile(0.5) as f64 / 1e3,
        p99_us: times.value_at_quantile(0.99) as f64 / 1e3,
        keys_per_second: keys / seconds,
        server_us_per_key: used * 1e6 / keys,
    })
}

impl Shared {
    /// Asks one call after the other; each task begins elsewhere among the keys.
    async fn ask(&self, number: usize) -> anyhow::Result<()> {
        let mut batch = Vec::with_capacity(self.keys);
        let mut place = number * self.keys;
        loop {
            let begin = Instant::now();
            if begin >= self.until {
                return Ok(());
            }
            batch.clear();
            batch.extend((place..place + self.keys).map(|at| self.ids[at % self.ids.len()]));
            place += self.keys;
            match batch[..] {
                [id] => self.side.get(self.shape, id).await?,
                _ => self.side.get_many(self.shape, &batch).await?,
            }
            let nanos = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(MAX_NANOS);
            self.times.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(nanos);
        }
    }
}
