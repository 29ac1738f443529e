//! What a lookup costs at the store: requests, rounds and bytes, cold and again.
//!
//! A round is what one step of a lookup waits for: requests of one round are sent together, and a round begins only
//! when the one before it has been answered. So the number of rounds is the number of dependent trips, without a clock.

use alcedo_client::{Answer, Client, Source};
use alcedo_testkit::cluster::TestCluster;
use alcedo_testkit::s3::{Counters, Operation, RequestRecord};

use crate::sample::{large, large_cluster, large_file, only_row, small, small_cluster, values};

const PATH: &str = "lake/big.parquet";

/// Dependent trips to the store that a traced answer waited for.
fn rounds(answer: &Answer) -> usize {
    let stages = &answer.trace.as_ref().expect("a trace").stages;
    stages.iter().filter(|stage| stage.origin_gets > 0).count()
}

async fn look_up(client: &Client, file: u32, row: usize) -> Answer {
    let lake = large(7);
    let truth = lake.row(lake.rows_of_file(file)[row]).unwrap();
    let answer = client.lookup(PATH).key_column("id").key(truth.id).trace(true).await.unwrap();
    assert_eq!(only_row(&answer).1, values(&truth));
    answer
}

/// What the store saw since the last time.
fn taken(cluster: &TestCluster) -> (Counters, Vec<RequestRecord>) {
    let seen = (cluster.store().counters(), cluster.store().requests());
    cluster.store().reset_counters();
    seen
}

/// The answer's own account of its cost is the store's.
fn assert_accounts(answer: &Answer, seen: &Counters) {
    assert_eq!((answer.origin_gets, answer.origin_bytes), (seen.get, seen.bytes_sent));
    let stages = &answer.trace.as_ref().unwrap().stages;
    let of_stages: u64 = stages.iter().map(|stage| u64::from(stage.origin_gets)).sum();
    assert_eq!(of_stages, seen.get, "{stages:?}");
}

fn assert_no_request(seen: &Counters) {
    assert_eq!((seen.get, seen.head, seen.list, seen.other, seen.bytes_sent), (0, 0, 0, 0, 0));
}

/// The first read asks for whatever version there is; all others insist on that one.
fn assert_one_version(requests: &[RequestRecord]) {
    assert!(requests.iter().all(|request| request.operation == Operation::Get && request.range.is_some()));
    assert_eq!(requests[0].if_match, None);
    assert_eq!(requests[0].range.as_deref(), Some("bytes=-65536"));
    let tag = requests.get(1).and_then(|request| request.if_match.clone());
    assert!(requests.len() == 1 || tag.is_some(), "{requests:?}");
    assert!(requests[1..].iter().all(|request| request.if_match == tag), "{requests:?}");
}

#[tokio::test]
async fn an_indexed_file_costs_three_rounds_and_few_bytes_then_nothing() {
    for file in [0, 2] {
        let cluster = large_cluster(file);
        let middle = large(7).rows_of_file(file).len() / 2;
        let cold = look_up(cluster.client(), file, middle).await;
        let (seen, requests) = taken(&cluster);
        assert_accounts(&cold, &seen);
        assert_one_version(&requests);
        assert_eq!((seen.head, seen.list), (0, 0));
        assert!(rounds(&cold) <= 3, "file {file}: {:?}", cold.trace);
        assert_eq!(cold.source, Source::Origin);
        let size = large_file(file).len() as u64;
        assert!(seen.bytes_sent * 4 < size, "file {file}: {} of {size} bytes", seen.bytes_sent);
        report("indexed", file, &cold, &seen, size);

        let again = look_up(cluster.client(), file, middle).await;
        let (seen, _) = taken(&cluster);
        assert_no_request(&seen);
        assert_accounts(&again, &seen);
        assert_ne!(again.source, Source::Origin);
        // A neighbour lies in the same data pages.
        look_up(cluster.client(), file, middle + 1).await;
        assert_no_request(&taken(&cluster).0);

        // The first row of all is in another row group: of the index only its part is missing, and the data pages.
        let far = look_up(cluster.client(), file, 0).await;
        let (seen, requests) = taken(&cluster);
        assert_accounts(&far, &seen);
        assert!(rounds(&far) <= 2, "file {file}: {:?}", far.trace);
        assert!(requests.iter().all(|request| request.if_match.is_some()), "the version is known: {requests:?}");
        assert!(seen.bytes_sent * 4 < size);
        report("indexed, another group", file, &far, &seen, size);
    }
}

#[tokio::test]
async fn an_absent_key_between_two_rows_costs_no_more_and_nothing_again() {
    let (cluster, lake) = (large_cluster(0), large(7));
    let rows = lake.rows_of_file(0);
    let present = lake.row(rows[rows.len() / 2]).unwrap().id;
    let absent = (present..).find(|id| lake.row_of_int_key(*id).is_none()).unwrap();
    for first in [true, false] {
        let answer = cluster.client().lookup(PATH).key_column("id").key(absent).trace(true).await.unwrap();
        assert!(answer.is_empty());
        let (seen, _) = taken(&cluster);
        assert_eq!(first, seen.get > 0);
        assert!(seen.head == 0 && rounds(&answer) <= 3);
    }
    // Outside of all bounds the file index alone says so.
    let outside = cluster.client().lookup(PATH).key_column("id").key(i64::MAX).await.unwrap();
    assert!(outside.is_empty());
    assert_no_request(&taken(&cluster).0);
}

#[tokio::test]
async fn fewer_columns_cost_fewer_bytes() {
    let lake = large(7);
    let id = lake.row(lake.rows_of_file(0)[9]).unwrap().id;
    let mut bytes = Vec::new();
    for columns in [vec!["score"], vec![]] {
        let cluster = large_cluster(0);
        let answer = cluster.client().lookup(PATH).key_column("id").key(id).select(columns).await.unwrap();
        assert_eq!(answer.rows().count(), 1);
        bytes.push(cluster.store().counters().bytes_sent);
    }
    assert!(bytes[0] < bytes[1], "{bytes:?}");
}

#[tokio::test]
async fn a_file_without_a_page_index_is_learned_once() {
    for file in [1, 3] {
        let cluster = large_cluster(file);
        let rows = large(7).rows_of_file(file).len();
        let cold = look_up(cluster.client(), file, rows / 3).await;
        let (seen, requests) = taken(&cluster);
        assert_accounts(&cold, &seen);
        assert_one_version(&requests);
        assert_eq!((seen.head, seen.list), (0, 0));
        assert!(rounds(&cold) <= 3, "file {file}: {:?}", cold.trace);
        let size = large_file(file).len() as u64;
        report("without index", file, &cold, &seen, size);

        look_up(cluster.client(), file, rows / 3).await;
        assert_no_request(&taken(&cluster).0);

        // Another key: now every data page's place is known, so at most the pages of that row are asked for.
        let other = look_up(cluster.client(), file, rows * 9 / 10).await;
        let (seen, requests) = taken(&cluster);
        assert_accounts(&other, &seen);
        assert!(rounds(&other) <= 2, "file {file}: {:?}", other.trace);
        assert!(seen.bytes_sent * 2 < size, "file {file}: {} of {size} bytes", seen.bytes_sent);
        assert!(requests.iter().all(|request| request.if_match.is_some()));
        report("without index, another key", file, &other, &seen, size);
    }
}

#[tokio::test]
async fn a_prefix_is_listed_once_and_its_indexes_are_read_once() {
    let (cluster, lake) = (small_cluster(), small());
    let ask = async |number: u64| {
        let truth = lake.row(number).unwrap();
        let answer = cluster.client().lookup("lake/lake/").key_column("id").key(truth.id).trace(true).await.unwrap();
        assert_eq!(only_row(&answer).1, values(&truth));
        answer
    };
    let cold = ask(1_234).await;
    let (seen, requests) = taken(&cluster);
    assert_eq!((seen.list, seen.head, cold.files_total), (1, 0, 16));
    assert_accounts(&cold, &seen);
    // The listing names each version, so not even the first read of a file takes what it gets.
    let gets = requests.iter().filter(|request| request.operation == Operation::Get);
    assert!(gets.clone().all(|request| request.if_match.is_some()), "{requests:?}");
    println!("prefix of 16 small files, cold: {} GETs, {} bytes, 1 listing", seen.get, seen.bytes_sent);
    ask(1_234).await;
    assert_no_request(&taken(&cluster).0);
    // A key of another file: its index is known, and only its row's data pages may be missing.
    let other = ask(15_000).await;
    let (seen, requests) = taken(&cluster);
    assert_accounts(&other, &seen);
    assert_eq!((seen.list, seen.head), (0, 0));
    let keys: std::collections::BTreeSet<&str> = requests.iter().map(|request| request.key.as_str()).collect();
    assert!(keys.len() <= other.files_asked as usize, "{keys:?}");
}

/// Numbers for whoever reads the tests' output; nothing depends on them.
#[allow(clippy::print_stdout)]
fn report(kind: &str, file: u32, answer: &Answer, seen: &Counters, size: u64) {
    let codec = if file >= 2 { "zstd" } else { "snappy" };
    let (gets, bytes) = (seen.get, seen.bytes_sent);
    println!("{kind}, {codec}: {} rounds, {gets} GETs, {bytes} of {size} bytes", rounds(answer));
}
