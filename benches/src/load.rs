//! Asking in one way for a while, and what came of it.
//!
//! Knows the clock and the servers' processor time. It must not know who is asked, nor for what: that is in the closure
//! that it is given.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::placement::Used;

/// Digits that a histogram keeps.
const SIGNIFICANT_DIGITS: u8 = 3;
/// The longest call that a histogram tells from longer ones, in nanoseconds: a minute.
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

/// One call after the other: how long it takes.
pub const ONE: Load = Load { name: "one outstanding", outstanding: 1, keys: 1 };
/// As many as keep a server busy: how much it can.
pub const MANY: Load = Load { name: "256 outstanding", outstanding: 256, keys: 1 };
/// Enough to keep a server busy where each costs it much.
pub const SOME: Load = Load { name: "64 outstanding", outstanding: 64, keys: 1 };
/// Many keys a call; four calls, because a worker weighs each key and accepts 512 at once.
pub const BATCHES: Load = Load { name: "4 batches of 100", outstanding: 4, keys: 100 };

/// What came of one load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// The median call, in microseconds.
    pub p50_us: f64,
    /// The 99th of a hundred calls, in microseconds.
    pub p99_us: f64,
    /// Keys answered in a second.
    pub keys_per_second: f64,
    /// The servers' processor time per key, in microseconds.
    pub server_us_per_key: f64,
    /// Keys that were answered.
    pub keys: f64,
}

/// Times of many calls.
#[derive(Debug)]
pub struct Times(Mutex<Histogram<u64>>);

impl Times {
    /// None yet.
    ///
    /// # Errors
    /// The histogram cannot be made.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self(Mutex::new(Histogram::new_with_bounds(1, MAX_NANOS, SIGNIFICANT_DIGITS)?)))
    }

    /// Adds one. Everybody who does runs on one thread, so nobody waits.
    pub fn record(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(MAX_NANOS);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(nanos);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Microseconds that this share of them stays below; 0 where there is none.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).value_at_quantile(share) as f64 / 1e3
    }
}

/// Asks for so long: `ask` makes one call of that many keys, compares what comes with the truth, and says how long the
/// call alone took. `servers` are the processes whose time is taken.
///
/// # Errors
/// A call fails, which ends the run: figures of failing calls mean nothing.
pub async fn run<A, F>(load: Load, servers: &[u32], duration: Duration, ask: A) -> anyhow::Result<Sample>
where
    A: Fn(usize) -> F + Send + Sync + 'static,
    F: Future<Output = anyhow::Result<Duration>> + Send,
{
    let (begin, used) = (Instant::now(), Used::by(servers)?);
    let times = Arc::new(Times::new()?);
    if load.outstanding == 1 {
        // In this very task: one that is spawned would be woken in another order.
        // At least once, however late it begins.
        loop {
            times.record(ask(load.keys).await?);
            if begin.elapsed() >= duration {
                break;
            }
        }
    } else {
        let ask = Arc::new(ask);
        let mut tasks = JoinSet::new();
        for _ in 0..load.outstanding {
            let (ask, times) = (Arc::clone(&ask), Arc::clone(&times));
            tasks.spawn(async move {
                loop {
                    times.record(ask(load.keys).await?);
                    if begin.elapsed() >= duration {
                        return anyhow::Ok(());
                    }
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.context("a task panicked")??;
        }
    }
    let (seconds, used) = (begin.elapsed().as_secs_f64(), Used::by(servers)?.since(&used));
    let keys = (times.count() * load.keys as u64) as f64;
    Ok(Sample {
        p50_us: times.quantile_us(0.5),
        p99_us: times.quantile_us(0.99),
        keys_per_second: keys / seconds,
        server_us_per_key: used * 1e6 / keys,
        keys,
    })
}
