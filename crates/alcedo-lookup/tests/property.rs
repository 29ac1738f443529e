//! Lookups against a plain scan: generated files, every query answered as the rows in memory say.
//!
//! A case is a seed. The kept ones, in `property/seeds.txt`, come first; each of them once failed. Then come
//! `ALCEDO_PROPERTY_CASES` (300) from `ALCEDO_PROPERTY_FIRST` (0) on; `cargo xtask property` sets both. A failed case
//! says how to run it alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "property/asking.rs"]
mod asking;
#[path = "property/case.rs"]
mod case;
#[path = "property/checking.rs"]
mod checking;
#[path = "property/packing.rs"]
mod packing;
#[path = "property/random.rs"]
mod random;
#[path = "property/reading.rs"]
mod reading;
#[path = "property/readying.rs"]
mod readying;
#[path = "property/rewriting.rs"]
mod rewriting;
#[path = "property/schema.rs"]
mod schema;
#[path = "property/statistics.rs"]
mod statistics;
#[path = "property/thrift.rs"]
mod thrift;
#[path = "property/values.rs"]
mod values;
#[path = "property/writing.rs"]
mod writing;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use case::Case;

/// Cases of an ordinary test run.
const CASES: u64 = 300;
const CASES_VARIABLE: &str = "ALCEDO_PROPERTY_CASES";
const FIRST_VARIABLE: &str = "ALCEDO_PROPERTY_FIRST";
/// So many failures are told in full; more of them seldom tell more.
const TOLD: usize = 12;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// The seeds that once failed, without their comments.
fn kept() -> Vec<u64> {
    let lines = include_str!("property/seeds.txt").lines();
    let seeds = lines.map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|seed| !seed.is_empty());
    seeds.map(|seed| seed.parse().expect("a seed")).collect()
}

fn run(seed: u64) -> Result<(), String> {
    let case = catch_unwind(|| Case::generate(seed)).map_err(|panic| format!("not generated: {}", said(&*panic)))?;
    let described = case.described.clone();
    let mut case = AssertUnwindSafe(case);
    let result = catch_unwind(move || case.run()).unwrap_or_else(|panic| Err(format!("panic: {}", said(&*panic))));
    result.map_err(|problem| {
        format!(
            "seed {seed}: {problem}\n{described}\n  alone: {FIRST_VARIABLE}={seed} {CASES_VARIABLE}=1, or `cargo xtask \
             property 1 {seed}`"
        )
    })
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

#[test]
fn generated_files_are_answered_as_a_plain_scan_answers() {
    let (first, cases) = (number(FIRST_VARIABLE, 0), number(CASES_VARIABLE, CASES));
    let mut seeds = kept();
    seeds.extend(first..first + cases);
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(failure) = run(*seed) {
                        failures.lock().unwrap().push((*seed, failure));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    for (_, failure) in failures.iter().take(TOLD) {
        eprintln!("{failure}\n");
    }
    let failed: Vec<u64> = failures.iter().map(|(seed, _)| *seed).collect();
    assert!(failed.is_empty(), "{} of {} cases failed: seeds {failed:?}", failed.len(), seeds.len());
}
