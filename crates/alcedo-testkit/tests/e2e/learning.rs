//! What a file lacks is learned behind the lookups that need it first, and fetches ahead of need stand behind demand.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use alcedo_cache::{Fetch, FileKey, FlightSettings, Flights, Lost, PageStore, Urgency};
use alcedo_origin::{MountConfig, Mounts, OriginLimits};
use alcedo_proto::v1::{self, Reason, reply_frame};
use alcedo_testkit::cluster::{ClusterOptions, TestCluster};
use alcedo_testkit::s3::{Fault, Operation, RequestRecord, Rule, S3Options, S3Server};
use bytes::Bytes;
use parquet::file::properties::EnabledStatistics;
use tonic::Code;

use crate::stream::{Talk, int_key, request};
use crate::trips::{batch, metadata, written};

const PATH: &str = "lake/plain.parquet";
/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(25);
/// How late the answer is that learning waits for: long after the short requests have given up.
const LATE: Duration = Duration::from_secs(6);
/// The time of a request that gives up.
const SHORT_US: u64 = 400_000;

/// 20,000 rows without a page index.
fn plain() -> Bytes {
    written(&batch(20_000, 100), 500, |properties| {
        properties.set_offset_index_disabled(true).set_statistics_enabled(EnabledStatistics::Chunk)
    })
}

fn cluster(file: Bytes) -> TestCluster {
    let objects = vec![("plain.parquet".to_owned(), file)];
    let tables = "[origin]\nattempt_timeout = \"20s\"\n".to_owned();
    TestCluster::start(ClusterOptions { objects, tables, ..ClusterOptions::default() }).unwrap()
}

fn question(row: i64, timeout_us: u64) -> v1::LookupRequest {
    let (key_column, columns) = ("id".to_owned(), vec!["a".to_owned()]);
    v1::LookupRequest { key_column, columns, timeout_us, ..request(PATH, vec![int_key(row * 3)]) }
}

/// A stream on which the file has been asked for a key outside of its bounds: its end is known, and nothing is learned.
/// A short request has all of its time for what is learned then, and the store's next answer is late.
async fn opened_before_it_is_slow(cluster: &TestCluster) -> Talk {
    let mut talk = Talk::open(cluster).await;
    let frames = talk.exchange(100, question(-1, PATIENCE.as_micros() as u64)).await;
    assert!(matches!(frames.last().unwrap().body, Some(reply_frame::Body::Answer(_))), "{frames:?}");
    assert_eq!(cluster.store().counters().get, 1, "{:?}", cluster.store().requests());
    cluster.store().faults().add(Rule::once(Fault::Latency(LATE)).on(Operation::Get));
    talk
}

/// The bytes that a request asked for, of a file of this size.
fn asked(request: &RequestRecord, size: u64) -> Range<u64> {
    let range = request.range.as_deref().and_then(|range| range.strip_prefix("bytes=")).unwrap();
    let (start, end) = range.split_once('-').unwrap();
    match start.parse::<u64>() {
        Ok(start) => start..end.parse::<u64>().unwrap() + 1,
        Err(_) => size.saturating_sub(end.parse().unwrap())..size,
    }
}

#[tokio::test]
async fn a_lookup_that_gives_up_says_how_far_learning_is_and_the_next_joins_it() {
    let file = plain();
    let size = file.len() as u64;
    let key_chunk = metadata(&file).row_group(0).column(0).byte_range();
    let cluster = cluster(file);
    // The tail came at once, the key's chunk does not.
    let mut talk = opened_before_it_is_slow(&cluster).await;
    for id in 1..=3 {
        talk.send(id, question(12_345, SHORT_US)).await;
        let (code, reason, message) = talk.failure(id).await;
        assert_eq!((code, reason), (Code::DeadlineExceeded, Reason::IndexBuilding), "{message}");
        assert!(message.contains(&format!("0 of {} bytes", key_chunk.1)), "{message}");
        assert_eq!(cluster.store().counters().get, 2, "nobody begins what is under way");
    }
    talk.send(9, question(12_345, PATIENCE.as_micros() as u64)).await;
    let frame = talk.reply().await;
    let Some(reply_frame::Body::Answer(answer)) = &frame.body else { panic!("{frame:?}") };
    assert_eq!((answer.files.len(), answer.files[0].row_number.as_slice()), (1, &[12_345][..]));
    assert_eq!(cluster.worker().metrics().chunks_learned_total.get(), 2, "each chunk is gone through once");
    let seen = cluster.store().requests();
    assert_eq!(seen.len(), 3, "the tail, the key's chunk, the text's: {seen:?}");
    let mut ranges: Vec<Range<u64>> = seen[1..].iter().map(|request| asked(request, size)).collect();
    ranges.sort_by_key(|range| range.start);
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "{ranges:?}");
    // All that was learned stays: other rows of the same columns cost nothing.
    talk.send(10, question(3, PATIENCE.as_micros() as u64)).await;
    let frame = talk.reply().await;
    assert!(matches!(frame.body, Some(reply_frame::Body::Answer(_))), "{frame:?}");
    assert_eq!(cluster.store().counters().get, 3);
}

#[tokio::test]
async fn what_is_learned_goes_on_although_everybody_left() {
    let cluster = cluster(plain());
    let mut talk = opened_before_it_is_slow(&cluster).await;
    talk.send(1, question(12_345, SHORT_US)).await;
    assert_eq!(talk.failure(1).await.1, Reason::IndexBuilding);
    drop(talk);
    let is_answered = || cluster.store().requests().iter().all(|request| request.answered.is_some());
    while !is_answered() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut talk = Talk::open(&cluster).await;
    talk.send(2, question(12_345, PATIENCE.as_micros() as u64)).await;
    let frame = talk.reply().await;
    assert!(matches!(frame.body, Some(reply_frame::Body::Answer(_))), "{frame:?}");
    assert_eq!(cluster.store().counters().get, 3, "only the text's chunk was wanting");
}

/// A mount over a store, and the fetch of a file of it.
async fn fetching(store: &S3Server, key: &str) -> (u64, Fetch<String>) {
    let patient = OriginLimits { attempt_timeout: PATIENCE, tries: 1, ..OriginLimits::default() };
    let endpoint = Some(store.url());
    let mount = MountConfig { endpoint, allow_http: true, anonymous: true, ..MountConfig::new("lake", "s3://lake") };
    let mounts = Mounts::open(&[mount], patient).unwrap();
    let place = mounts.resolve(&format!("lake/{key}")).unwrap();
    let stat = place.mount.stat(&place.key, tokio::time::Instant::now() + PATIENCE).await.unwrap();
    let size = stat.size;
    let fetch: Fetch<String> = Arc::new(move |range| {
        let (place, stat) = (place.clone(), stat.clone());
        Box::pin(async move {
            let deadline = tokio::time::Instant::now() + PATIENCE;
            place.mount.read_range(&place.key, &stat, range, deadline).await.map_err(|error| error.to_string())
        })
    });
    (size, fetch)
}

#[tokio::test]
async fn a_queued_prefetch_that_somebody_needs_is_fetched_at_once_and_once() {
    let store = S3Server::start(S3Options::default()).unwrap();
    store.put("lake", "file", vec![7; 100 << 10]);
    let (size, fetch) = fetching(&store, "file").await;
    let settings = FlightSettings {
        max_gap_bytes: 0,
        flight_timeout: PATIENCE,
        max_flights: 100,
        max_prefetches: 100,
        prefetches_at_once: 1,
        lost: |lost: Lost| lost.to_string(),
    };
    let (flights, pages) = (Flights::new(settings), PageStore::in_memory(1 << 20));
    let read = |range: Range<u64>, urgency: Urgency| {
        let (flights, pages, fetch) = (flights.clone(), pages.clone(), Arc::clone(&fetch));
        let file = FileKey::new("s3://lake/file", "v");
        tokio::spawn(async move { flights.read(&pages, &file, size, &[range], urgency, fetch).await })
    };
    // The first takes the only turn and never ends.
    store.faults().add(Rule::once(Fault::StallHeaders).on(Operation::Get));
    let stuck = read(0..4_096, Urgency::Prefetch);
    while store.counters().get < 1 {
        tokio::task::yield_now().await;
    }
    let queued = read(40_960..45_056, Urgency::Prefetch);
    while flights.under_way() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.counters().get, 1, "it waits for its turn");
    let wanted = tokio::time::timeout(PATIENCE, read(40_960..45_056, Urgency::Demand)).await;
    let wanted = wanted.expect("demand does not wait for prefetches").unwrap().unwrap();
    assert_eq!((wanted.origin_gets, wanted.parts[0].len()), (1, 4_096));
    assert_eq!(queued.await.unwrap().unwrap().parts, wanted.parts, "both got the same answer");
    assert_eq!(store.counters().get, 2, "{:?}", store.requests());
    stuck.abort();
}
