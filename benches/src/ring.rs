//! The ring by itself: finding the owner of a file, and building a large ring.
//!
//! Knows the public ring only. The peer of a lookup is a binary search in a plain array of as many hashes, which is
//! what remains when nothing is stored beside them.

use std::hint::black_box;
use std::time::Instant;

use alcedo_cluster::{Member, Members, Ring, VNODES_PER_WEIGHT, file_hash};

use crate::report::Row;

/// Members of the large ring.
const MEMBERS: usize = 1_000;
/// Different files, so that the search does not stay in the processor's caches.
const FILES: usize = 100_000;
/// Rounds over all files; the median round counts.
const ROUNDS: usize = 9;
/// What the project asks of a lookup.
const TARGET_NS: f64 = 1_000.0;

/// Measures both.
///
/// # Errors
/// The members do not make a ring.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let member = |number: usize| Member::new(&format!("worker-{number}"), &format!("h{number}:7610"), 1, "");
    let members = Members::new((0..MEMBERS).map(member).collect::<Result<Vec<_>, _>>()?)?;
    let urls: Vec<String> =
        (0..FILES).map(|number| format!("s3://lake/events/day={}/part-{number:06}.parquet", number % 365)).collect();
    let built = median((0..ROUNDS).map(|_| timed(|| drop(black_box(Ring::new(&members))))).collect()) / 1e6;
    let ring = Ring::new(&members);
    let per_file = |work: &dyn Fn(&str)| {
        let round = || timed(|| urls.iter().for_each(|url| work(url))) / FILES as f64;
        median((0..ROUNDS).map(|_| round()).collect())
    };
    let owner = per_file(&|url| {
        black_box(ring.owners(black_box(url)).next());
    });
    let mut hashes: Vec<u64> =
        (0..MEMBERS * VNODES_PER_WEIGHT as usize).map(|number| file_hash(&number.to_string())).collect();
    hashes.sort_unstable();
    let search = per_file(&|url| {
        black_box(hashes.binary_search(&file_hash(black_box(url))).unwrap_or_else(|place| place));
    });
    Ok(vec![
        Row {
            name: format!("owner of a file among {MEMBERS} workers"),
            unit: "ns",
            alcedo: owner,
            peer: Some(search),
            ratio: Some(owner / search),
            target: "at most 1 us".to_owned(),
            met: Some(owner <= TARGET_NS),
        },
        Row {
            name: format!("building the ring of {MEMBERS} workers"),
            unit: "ms",
            alcedo: built,
            peer: None,
            ratio: None,
            target: "none; it is built outside of runtime threads".to_owned(),
            met: None,
        },
    ])
}

/// Nanoseconds of a piece of work.
fn timed(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64() * 1e9
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}
