//! A mixed run of so many minutes (the first argument, 10 without it) that shows what a worker takes.
//!
//! Layer 5. It prints; everything else is [`alcedo_testkit::soak`]'s.
#![allow(clippy::print_stdout)]

use std::time::Duration;

use alcedo_testkit::soak;
use anyhow::{Context, ensure};

fn main() -> anyhow::Result<()> {
    let minutes = match std::env::args().nth(1) {
        Some(text) => text.parse::<f64>().context("the first argument is a number of minutes")?,
        None => 10.0,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let seen = runtime.block_on(soak::run(Duration::from_secs_f64(minutes * 60.0)))?;
    println!("answered {}, turned away {}, dropped by the asker {}", seen.answered, seen.turned_away, seen.dropped);
    let mebibytes: Vec<u64> = seen.resident_bytes.iter().map(|bytes| bytes >> 20).collect();
    println!("resident MiB, largest in each tenth of the run: {mebibytes:?}");
    let allowed = soak::DISK_BYTES + soak::METADATA_ALLOWANCE_BYTES;
    println!("most MiB in the cache directory: {} of {} allowed", seen.most_disk_bytes >> 20, allowed >> 20);
    println!("MiB sent by the store: {}", seen.origin_bytes >> 20);
    ensure!(seen.most_disk_bytes <= allowed, "the cache directory grew past its bound");
    Ok(())
}
