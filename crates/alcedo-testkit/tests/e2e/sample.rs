//! The sample lakes that the tests ask, and what the right answer is.
//!
//! Knows the columns of the sample and how a client shows their values. It must not know what is asked.

use std::sync::OnceLock;

use alcedo_client::{Answer, Error, FileAnswer, KeyStatus, Value};
use alcedo_testkit::cluster::{ClusterOptions, TestCluster};
use alcedo_testkit::lake::{SampleLake, SampleSpec, TruthRow};
use alcedo_worker::Running;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The columns of a file, in its order.
pub(crate) const COLUMNS: [&str; 10] =
    ["id", "user", "name", "city", "score", "amount", "created", "flags", "active", "tags"];

/// 20,000 rows in 16 files: most of a file fits in the first read.
pub(crate) fn small() -> SampleLake {
    SampleLake::new(SampleSpec { rows: 20_000, files: 16, seed: 7 }).unwrap()
}

/// Files of 125,000 rows and some MiB: larger than anything that one lookup should read.
pub(crate) fn large(seed: u64) -> SampleLake {
    SampleLake::new(SampleSpec { rows: 1_000_000, files: 8, seed }).unwrap()
}

/// The small lake's files below `lake/`.
pub(crate) fn small_objects() -> Vec<(String, Bytes)> {
    static OBJECTS: OnceLock<Vec<(String, Bytes)>> = OnceLock::new();
    let object = |file: anyhow::Result<(String, Bytes)>| file.map(|(name, bytes)| (format!("lake/{name}"), bytes));
    OBJECTS.get_or_init(|| small().files().map(|file| object(file).unwrap()).collect()).clone()
}

/// One file of the large lake of seed 7: 0 and 2 are indexed, 1 and 3 are not; 2 and 3 are compressed with Zstandard.
pub(crate) fn large_file(file: u32) -> Bytes {
    static FILES: [OnceLock<Bytes>; 4] = [const { OnceLock::new() }; 4];
    FILES[file as usize].get_or_init(|| large(7).file(file).unwrap()).clone()
}

/// A cluster of the small lake.
pub(crate) fn small_cluster() -> TestCluster {
    cluster_of(small_objects())
}

/// A cluster of one file of the large lake, `big.parquet`.
pub(crate) fn large_cluster(file: u32) -> TestCluster {
    cluster_of(vec![("big.parquet".to_owned(), large_file(file))])
}

pub(crate) fn cluster_of(objects: Vec<(String, Bytes)>) -> TestCluster {
    TestCluster::start(ClusterOptions { objects, ..ClusterOptions::default() }).unwrap()
}

/// A row of the sample as a client shows it, all columns.
pub(crate) fn values(row: &TruthRow) -> Vec<Value> {
    let text = |text: &str| Value::String(text.to_owned());
    let sign = if row.amount < 0 { "-" } else { "" };
    let hundredths = row.amount.unsigned_abs();
    let amount = format!("{sign}{}.{:02}", hundredths / 100, hundredths % 100);
    let tags = row.tags.as_ref().map_or(Value::Null, |tags| Value::List(tags.iter().map(|tag| text(tag)).collect()));
    vec![
        Value::Int(row.id),
        text(&row.user),
        row.name.as_deref().map_or(Value::Null, text),
        text(row.city),
        Value::Float64(row.score),
        Value::Decimal(amount.into()),
        Value::Int(row.created_micros),
        Value::Int(row.flags.into()),
        Value::Bool(row.active),
        tags,
    ]
}

/// The one row of an answer to one key, with its file.
pub(crate) fn only_row(answer: &Answer) -> (&FileAnswer, &[Value]) {
    let mut rows = answer.rows();
    let (file, row) = rows.next().expect("a row");
    assert!(rows.next().is_none(), "more than one row: {answer:?}");
    assert_eq!(answer.statuses, [KeyStatus::Found]);
    (file, &row.values)
}

/// An answer that says of every key that no row has it.
pub(crate) fn assert_nothing(answer: &Answer, keys: usize) {
    assert_eq!(answer.statuses, vec![KeyStatus::NotFound; keys]);
    assert!(answer.is_empty(), "{answer:?}");
}

/// The error of a lookup that must fail.
pub(crate) fn refused(answer: Result<Answer, Error>) -> Error {
    match answer {
        Ok(answer) => panic!("answered with {answer:?}"),
        Err(error) => error,
    }
}

/// Numbers that look random and are the same in every run (the step of a full-period generator, Knuth's MMIX).
pub(crate) fn draw(count: usize, below: u64) -> Vec<u64> {
    let mut state = 0x5eed_u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    (0..count).map(next).collect()
}

/// Keys of the small lake that no row has: between the first and the last, and outside.
pub(crate) fn absent_ids(lake: &SampleLake, count: usize) -> Vec<i64> {
    let absent = (0..).filter(|id| lake.row_of_int_key(*id).is_none());
    let mut ids: Vec<i64> = absent.step_by(97).take(count - 2).collect();
    ids.extend([-1, i64::MAX]);
    ids
}

/// A number of a worker's metrics.
pub(crate) async fn metric(worker: &Running, name: &str) -> u64 {
    let mut socket = TcpStream::connect(worker.admin_addr().unwrap()).await.unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    socket.read_to_string(&mut page).await.unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {page}")).trim().parse().unwrap()
}
