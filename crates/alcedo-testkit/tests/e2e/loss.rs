//! What may be lost at any moment: a worker, and every byte that a worker keeps.
//!
//! Workers are processes here, because what is tested is their sudden end. A right answer is the sample's own row; a
//! lookup that fails is as much a defect as one that is wrong.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use alcedo_client::Client;
use alcedo_testkit::cluster::{ClusterOptions, ProcessCluster};
use alcedo_testkit::lake::SampleLake;
use alcedo_testkit::soak;
use futures::StreamExt as _;
use tokio::task::JoinHandle;

use crate::sample::{draw, only_row, small, small_objects, values};

/// Lookups of the run in which a worker is killed, and how many are answered before that.
const LOOKUPS: u64 = 10_000;
const BEFORE_THE_KILL: u64 = 3_000;
/// Lookups under way at once: enough that some are on the killed worker at any moment.
const AT_ONCE: usize = 16;
/// How often a worker is killed while it fills its cache; `ALCEDO_KILLS` asks for more.
const KILLS: usize = 8;
/// How often everything in a live cache directory is removed.
const REMOVALS: usize = 10;

async fn cluster(workers: usize) -> ProcessCluster {
    let options = ClusterOptions { objects: small_objects(), workers, cache: true, ..ClusterOptions::default() };
    ProcessCluster::start(options).await.unwrap()
}

/// One lookup of a file by name, compared with the truth.
async fn ask(client: &Client, lake: &SampleLake, number: u64) {
    let truth = lake.row(number).unwrap();
    let file = lake.file_of_row(number).unwrap();
    let path = format!("lake/lake/{}", SampleLake::file_name(file));
    match client.lookup(path).key_column("id").key(truth.id).await {
        Ok(answer) => assert_eq!(only_row(&answer).1, values(&truth), "row {number}"),
        Err(error) => panic!("row {number}: {error} ({:?})", error.kind()),
    }
}

/// Asks for random rows until it is told to stop; gives the number of answers.
fn asking(client: &Client, stop: &Arc<AtomicBool>, seed: usize) -> JoinHandle<u64> {
    let (client, stop) = (client.clone(), Arc::clone(stop));
    tokio::spawn(async move {
        let lake = small();
        let mut answered = 0;
        for number in draw(1_000_000, lake.spec().rows).into_iter().skip(seed * 1_000) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            ask(&client, &lake, number).await;
            answered += 1;
        }
        answered
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_in_the_middle_of_ten_thousand_lookups_costs_none_of_them() {
    let mut cluster = cluster(3).await;
    let lake = small();
    let answered = Arc::new(AtomicU64::new(0));
    let (client, counted) = (cluster.client().clone(), Arc::clone(&answered));
    let load = tokio::spawn(async move {
        let rows = futures::stream::iter(draw(LOOKUPS as usize, lake.spec().rows));
        let each = |number| {
            let (client, counted, lake) = (&client, &counted, &lake);
            async move {
                ask(client, lake, number).await;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        };
        rows.for_each_concurrent(AT_ONCE, each).await;
    });
    while answered.load(Ordering::Relaxed) < BEFORE_THE_KILL && !load.is_finished() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let before = answered.load(Ordering::Relaxed);
    cluster.workers_mut()[1].crash().await.unwrap();
    load.await.unwrap();
    assert!(before < LOOKUPS, "the worker was killed after the last lookup");
    assert_eq!(answered.load(Ordering::Relaxed), LOOKUPS);
}

/// Removes everything in a directory, but not the directory; what vanishes or comes meanwhile is left aside.
fn clear(directory: &Path) -> usize {
    let mut removed = 0;
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let gone = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(entry.path()),
            _ => fs::remove_file(entry.path()),
        };
        removed += usize::from(gone.is_ok());
    }
    removed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_content_of_a_live_cache_directory_may_vanish() {
    let cluster = cluster(1).await;
    let stop = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = (0..4).map(|seed| asking(cluster.client(), &stop, seed)).collect();
    let directory = cluster.cache_dir(0).unwrap();
    let mut removed = 0;
    for _ in 0..REMOVALS {
        tokio::time::sleep(Duration::from_millis(250)).await;
        removed += clear(&directory);
    }
    stop.store(true, Ordering::Relaxed);
    let mut answered = 0;
    for load in loads {
        answered += load.await.unwrap();
    }
    // The worker needs some seconds to make again what it lost, so later removals find less.
    assert!(removed >= 3 && answered > 0, "{removed} entries were removed during {answered} lookups");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_at_any_moment_of_filling_comes_back_and_is_right() {
    let kills = std::env::var("ALCEDO_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    let mut cluster = cluster(1).await;
    let lake = small();
    let moments = draw(kills, 120);
    for (round, moment) in moments.into_iter().enumerate() {
        // Each round meets a cache that earlier rounds filled in part, and every third begins with none.
        if round % 3 == 0 {
            cluster.workers_mut()[0].crash().await.unwrap();
            let _ = fs::remove_dir_all(cluster.cache_dir(0).unwrap());
            cluster.workers_mut()[0].restart().await.unwrap();
        }
        let client = cluster.client().clone();
        let filling = tokio::spawn(async move {
            let lake = small();
            for number in draw(1_000_000, lake.spec().rows).into_iter().skip(round * 100) {
                let truth = lake.row(number).unwrap();
                let path = format!("lake/lake/{}", SampleLake::file_name(lake.file_of_row(number).unwrap()));
                // The only worker dies: a failure is right then, a wrong row never is.
                match client.lookup(path).key_column("id").key(truth.id).await {
                    Ok(answer) => assert_eq!(only_row(&answer).1, values(&truth), "row {number}"),
                    Err(_) => return,
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(moment)).await;
        cluster.workers_mut()[0].crash().await.unwrap();
        filling.await.unwrap();
        cluster.workers_mut()[0].restart().await.unwrap();
        for number in draw(1_000, lake.spec().rows).into_iter().skip(round).step_by(50) {
            ask(cluster.client(), &lake, number).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_run_stays_within_the_disk_that_it_was_given() {
    let seen = soak::run(Duration::from_secs(8)).await.unwrap();
    assert!(seen.answered > 100, "{seen:?}");
    assert!(seen.most_disk_bytes > soak::DISK_BYTES / 2, "the run never came near its bound: {seen:?}");
    assert!(seen.most_disk_bytes <= soak::DISK_BYTES + soak::METADATA_ALLOWANCE_BYTES, "{seen:?}");
}
