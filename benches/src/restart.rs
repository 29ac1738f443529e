//! How long a worker with a full page store takes until it serves.
//!
//! Knows the public page store only. Its segments are made small once and then repeated: what is measured is reading
//! tables and making the index, so the data behind them is holes, and every page is 64 KiB of a file of 1 GiB.

use std::time::Instant;

use alcedo_cache::{CacheDir, PageStore, StoreName, synthetic_segments};
use anyhow::Context as _;

use crate::report::Row;

/// Pages of the two stores.
const PAGES: [u64; 2] = [1_000_000, 10_000_000];
/// The store that the design's target is about.
const TARGET_PAGES: u64 = 10_000_000;
/// What the design asks of it.
const TARGET_SECONDS: f64 = 2.0;

/// Opens stores of a million and of ten million pages.
///
/// # Errors
/// The directory for temporary files cannot be written.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for pages in PAGES {
        let temp = tempfile::tempdir().context("no temporary directory")?;
        let dir = CacheDir::open(temp.path(), "w1")?;
        let capacity = synthetic_segments(&dir, pages).context("the segments cannot be written")?;
        let before = resident_bytes()?;
        let began = Instant::now();
        let store = PageStore::open(&dir, StoreName::Pages, capacity)?;
        let seconds = began.elapsed().as_secs_f64();
        let held = store.counts().extents;
        anyhow::ensure!(held == pages, "{held} of {pages} pages were found again");
        let memory = (resident_bytes()? - before) / pages as f64;
        // The target is about a full store; a small one shows what is there before the first page.
        let is_met = (pages == TARGET_PAGES).then_some(seconds <= TARGET_SECONDS);
        let name = |what: &str| format!("restart with {} M pages: {what}", pages / 1_000_000);
        let row = |name, unit, alcedo, target: &str, met| {
            let target = target.to_owned();
            Row { name, unit, alcedo, peer: None, ratio: None, target, met }
        };
        rows.push(row(name("until it serves"), "s", seconds, if is_met.is_some() { "<= 2 s" } else { "" }, is_met));
        rows.push(row(name("memory of the index"), "B/page", memory, "", None));
    }
    Ok(rows)
}

/// Memory of this process that is in use.
fn resident_bytes() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = status.split_whitespace().nth(1).context("statm has no second field")?.parse()?;
    Ok(pages * 4096.0)
}
