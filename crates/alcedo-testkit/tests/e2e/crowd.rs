//! Many at once: one cold key asked by a thousand costs what one costs, and those who leave disturb nobody.

use std::sync::OnceLock;
use std::time::Duration;

use alcedo_client::{Client, Kind};
use alcedo_testkit::cluster::{ClusterOptions, TestCluster};
use alcedo_testkit::lake::TruthRow;
use alcedo_testkit::s3::{Fault, Rule, S3Options};
use futures::future::join_all;

use crate::sample::{large, large_cluster, large_file, only_row, values};

const CROWD: usize = 1_000;
const PATH: &str = "lake/big.parquet";
/// How late the answer is that all wait for: long after those who leave have left.
const LATE: Duration = Duration::from_secs(5);

/// A cluster whose store is slow enough that a crowd meets at it, and which lets the whole crowd in.
fn slow_cluster(file: u32) -> TestCluster {
    let store = S3Options { latency: Duration::from_millis(40), ..S3Options::default() };
    let objects = vec![("big.parquet".to_owned(), large_file(file))];
    let tables = "[lookup]\npermits = 4096\n".to_owned();
    TestCluster::start(ClusterOptions { objects, store, tables, ..ClusterOptions::default() }).unwrap()
}

fn truth(file: u32, row: usize) -> TruthRow {
    // Gone through once per file, and not by each of a thousand who ask.
    static ROWS: [OnceLock<Vec<u64>>; 2] = [const { OnceLock::new() }; 2];
    let lake = large(7);
    let rows = ROWS[file as usize].get_or_init(|| lake.rows_of_file(file));
    lake.row(rows[row]).unwrap()
}

async fn ask(client: Client, file: u32, row: usize) {
    let truth = truth(file, row);
    let answer = client.lookup(PATH).key_column("id").key(truth.id).await.unwrap();
    assert_eq!(only_row(&answer).1, values(&truth));
}

#[tokio::test]
async fn a_thousand_who_ask_one_cold_key_cost_what_one_costs() {
    // Without a page index each of them decodes whole chunks, so the crowd is smaller there.
    for (file, crowd) in [(0, CROWD), (1, 50)] {
        let alone = large_cluster(file);
        ask(alone.client().clone(), file, 70_000).await;
        let cluster = slow_cluster(file);
        join_all((0..crowd).map(|_| ask(cluster.client().clone(), file, 70_000))).await;
        let (one, all) = (alone.store().counters(), cluster.store().counters());
        assert_eq!((all.get, all.head, all.list, all.bytes_sent), (one.get, 0, 0, one.bytes_sent), "file {file}");
    }
}

/// As many as a worker that comes back cold may meet. Two small columns: what is tested is who asks the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_who_ask_one_cold_key_fetch_nothing_twice() {
    let truth = truth(0, 70_000);
    let ask = async |client: Client| {
        let answer = client.lookup(PATH).key_column("id").key(truth.id).select(["id", "user"]).await.unwrap();
        assert_eq!(only_row(&answer).1, &values(&truth)[..2]);
    };
    let alone = large_cluster(0);
    ask(alone.client().clone()).await;
    let store = S3Options { latency: Duration::from_millis(40), ..S3Options::default() };
    let objects = vec![("big.parquet".to_owned(), large_file(0))];
    let tables = "[lookup]\npermits = 16384\n".to_owned();
    let cluster =
        TestCluster::start(ClusterOptions { objects, store, tables, cache: true, ..ClusterOptions::default() });
    let cluster = cluster.unwrap();
    join_all((0..10_000).map(|_| ask(cluster.client().clone()))).await;
    let (one, all) = (alone.store().counters(), cluster.store().counters());
    assert_eq!((all.get, all.head, all.list, all.bytes_sent), (one.get, 0, 0, one.bytes_sent));
}

#[tokio::test]
async fn those_who_run_out_of_time_take_nothing_from_the_patient() {
    let cluster = slow_cluster(0);
    let truth = truth(0, 70_000);
    let hurried = (0..CROWD).map(|_| {
        let lookup = cluster.client().lookup(PATH).key_column("id").key(truth.id);
        async move { lookup.deadline(Duration::from_millis(1)).await }
    });
    let patient = join_all((0..10).map(|_| ask(cluster.client().clone(), 0, 70_000)));
    let (hurried, _) = futures::join!(join_all(hurried), patient);
    for outcome in hurried {
        assert_eq!(outcome.unwrap_err().kind(), Kind::Deadline);
    }
    assert_idle_and_well(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_are_dropped_take_nothing_from_the_patient() {
    let cluster = slow_cluster(0);
    cluster.store().faults().add(Rule::once(Fault::Latency(LATE)));
    let leaving: Vec<_> = (0..CROWD).map(|i| tokio::spawn(ask(cluster.client().clone(), 0, 60_000 + i * 10))).collect();
    let patient = tokio::spawn(ask(cluster.client().clone(), 0, 70_000));
    // Many are under way, and the first trip to the store is not over.
    let metrics = cluster.worker().metrics();
    while metrics.lookups_in_flight.get() < CROWD as u64 / 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    leaving.iter().for_each(tokio::task::JoinHandle::abort);
    for left in join_all(leaving).await {
        assert!(left.is_err_and(|error| error.is_cancelled()));
    }
    patient.await.unwrap();
    assert_idle_and_well(&cluster).await;
}

/// Nothing is left under way, no permit is lost, and everybody is answered.
async fn assert_idle_and_well(cluster: &TestCluster) {
    let in_flight = async || cluster.client().status().await.unwrap()[0].1.clone().unwrap().lookups_in_flight;
    let mut looks = 0;
    while in_flight().await > 0 {
        looks += 1;
        assert!(looks < 2_000, "lookups that nobody waits for are still under way");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cluster.store().set_latency(Duration::ZERO);
    join_all((0..CROWD).map(|i| ask(cluster.client().clone(), 0, i * 100))).await;
}
