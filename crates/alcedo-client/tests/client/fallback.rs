//! Lookups that no worker accepts, answered from the origin within a bound.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alcedo_client::{
    Answer, Builder, Client, FallbackBudget, Form, Freshness, KeyStatus, Kind, MountConfig, Reason, Source,
};
use alcedo_proto::v1 as pb;
use tempfile::TempDir;

use crate::acting::{Acting, Pair, failure};
use crate::scripted::{PATIENCE, dead_address, eventually};

const ALL: FallbackBudget = FallbackBudget { concurrent: 32, percent: 100 };

fn corpus() -> PathBuf {
    fs::canonicalize(concat!(env!("CARGO_MANIFEST_DIR"), "/../alcedo-lookup/tests/corpus")).unwrap()
}

fn mount(dir: &Path) -> MountConfig {
    MountConfig { freshness: Freshness::Always, ..MountConfig::new("lake", format!("file://{}", dir.display())) }
}

/// A client whose only worker is down, with a mount of its own.
fn alone(dir: &Path) -> Builder {
    let builder = Client::builder().endpoints([dead_address().to_string()]).deadline(PATIENCE);
    builder.mounts([mount(dir)]).fallback_budget(ALL)
}

/// Two copies of a file in a directory, with what does not count beside them.
fn table() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = corpus().join("files/ar_default.parquet");
    for name in ["users/part-0.parquet", "users/part-1.parquet", "users/_temporary/part-2.parquet", "users/notes.txt"] {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(&file, path).unwrap();
    }
    dir
}

fn row_numbers(answer: &Answer) -> Vec<u64> {
    answer.rows().map(|(_, row)| row.row_number).collect()
}

#[tokio::test]
async fn rows_are_those_of_the_corpus() {
    let client = alone(&corpus().join("files")).build().unwrap();
    let queries = fs::read_to_string(corpus().join("queries.jsonl")).unwrap();
    let mut found = 0;
    for query in queries.lines() {
        let query: serde_json::Value = serde_json::from_str(query).unwrap();
        let (file, key) = (query["file"].as_str().unwrap(), &query["key"]);
        let plain = matches!(key["type"].as_str().unwrap(), "int64" | "int32" | "string");
        let (Some(value), "ok", true) = (key["value"].as_str(), query["expect"]["status"].as_str().unwrap(), plain)
        else {
            continue;
        };
        if query["op"] != "eq" || !query["alternatives"].is_null() {
            continue;
        }
        let lookup = client.lookup(format!("lake/{file}")).key_column(key["column"].as_str().unwrap()).key(value);
        let answer = match query["project"].as_array() {
            Some(columns) => lookup.select(columns.iter().map(|column| column.as_str().unwrap())).await,
            None => lookup.await,
        };
        let answer = answer.unwrap_or_else(|error| panic!("{}: {error}", query["qid"]));
        let expected: Vec<u64> =
            query["expect"]["row_numbers"].as_array().unwrap().iter().map(|row| row.as_u64().unwrap()).collect();
        assert_eq!(row_numbers(&answer), expected, "{}", query["qid"]);
        assert_eq!((&*answer.worker, answer.source), ("origin", Source::Origin));
        let width = query["expect"]["columns"].as_array().unwrap().len();
        assert!(answer.rows().all(|(_, row)| row.values.len() == width), "{}", query["qid"]);
        found += 1;
    }
    assert!(found > 100, "only {found} queries were asked");
}

#[tokio::test]
async fn a_prefix_is_answered_from_its_files_in_order() {
    let dir = table();
    let client = alone(dir.path()).build().unwrap();
    for path in ["lake/users/", "lake/users", "lake/"] {
        let answer = client.lookup(path).key_column("k").keys([-5_000_i64, 1 << 60]).await.unwrap();
        let urls: Vec<&str> = answer.files.iter().map(|file| file.url.rsplit('/').next().unwrap()).collect();
        assert_eq!(urls, ["part-0.parquet", "part-1.parquet"], "{path}");
        assert_eq!(answer.statuses, [KeyStatus::Found, KeyStatus::NotFound]);
        assert_eq!((answer.files_total, answer.files_asked, row_numbers(&answer)), (2, 2, vec![0, 0]));
    }
    let one = client.lookup("lake/users/").key_column("k").key(-5_000).row_limit(1).trace(true).await.unwrap();
    assert_eq!((row_numbers(&one), one.statuses), (vec![0], vec![KeyStatus::Truncated]));
    assert!(one.trace.unwrap().notes[0].starts_with("answered from the origin directly: no worker reachable"));
    let arrow = client.lookup("lake/users/part-0.parquet").key_column("k").key(-5_000).form(Form::ArrowIpc);
    assert!(arrow.await.unwrap().files[0].arrow.as_ref().is_some_and(|stream| !stream.is_empty()));
    let error = client.lookup("lake/nobody/").key(1).await.unwrap_err();
    assert_eq!((error.kind(), error.reason), (Kind::NotFound, Some(Reason::EmptyPrefix)));
}

#[tokio::test]
async fn an_opened_file_is_not_read_again_and_an_overwritten_one_is() {
    let dir = table();
    let client = alone(dir.path()).build().unwrap();
    let ask = || client.lookup("lake/users/part-0.parquet").key_column("k").key(-5_000).select(["d"]).into_future();
    let (cold, warm) = (ask().await.unwrap(), ask().await.unwrap());
    assert!(warm.origin_gets < cold.origin_gets, "{} and then {} GETs", cold.origin_gets, warm.origin_gets);
    assert_eq!(row_numbers(&warm), [0]);
    fs::copy(corpus().join("files/ar_lz4_hadoop.parquet"), dir.path().join("users/new")).unwrap();
    fs::rename(dir.path().join("users/new"), dir.path().join("users/part-0.parquet")).unwrap();
    let other = ask().await.unwrap();
    assert_ne!(other.files[0].version, warm.files[0].version);
    assert_ne!(other.rows().next().unwrap().1.values, warm.rows().next().unwrap().1.values);
}

#[tokio::test]
async fn beyond_the_bound_lookups_are_turned_away_at_once() {
    let dir = table();
    let none = FallbackBudget { percent: 0, ..FallbackBudget::default() };
    let client = alone(dir.path()).fallback_budget(none).build().unwrap();
    let mut turned_away = 0;
    for _ in 0..50 {
        match client.lookup("lake/users/part-0.parquet").key_column("k").key(-5_000).await {
            Ok(answer) => assert_eq!(row_numbers(&answer), [0]),
            Err(error) => {
                assert_eq!((error.kind(), error.reason), (Kind::Exhausted, Some(Reason::Overloaded)));
                assert_eq!(error.retry_after, Some(Duration::from_secs(1)));
                let text = error.to_string();
                assert!(text.contains("connection refused") && text.contains("32 lookups at once, 0 %"), "{text}");
                turned_away += 1;
            }
        }
    }
    // One a second goes through in any case.
    assert!(turned_away > 25, "{turned_away}");
}

#[tokio::test]
async fn a_worker_that_is_there_is_never_gone_around() {
    let pair = Pair::new();
    let dir = table();
    let client = pair.builder().mounts([mount(dir.path())]).fallback_budget(ALL).build().unwrap();
    assert_eq!(*client.lookup(&pair.url).key(1).await.unwrap().worker, *pair.owner.server.address);
    for (code, reason, kind) in [
        (tonic::Code::NotFound, pb::Reason::NoSuchFile, Kind::NotFound),
        (tonic::Code::ResourceExhausted, pb::Reason::Overloaded, Kind::Exhausted),
        (tonic::Code::Unavailable, pb::Reason::OriginUnavailable, Kind::Unavailable),
        (tonic::Code::DeadlineExceeded, pb::Reason::Deadline, Kind::Deadline),
    ] {
        pair.owner.is(failure(code, reason, Duration::ZERO));
        pair.replica.is(failure(code, reason, Duration::ZERO));
        let asked = client.lookup("lake/users/part-0.parquet").key_column("k").key(-5_000).await;
        assert_eq!(asked.unwrap_err().kind(), kind);
    }
}

#[tokio::test]
async fn a_lookup_whose_only_worker_dies_is_answered_from_the_origin() {
    let dir = table();
    let mut worker = Acting::new();
    worker.is_silent();
    let builder = Client::builder().endpoints([&worker.server.address]).deadline(PATIENCE);
    let client = builder.mounts([mount(dir.path())]).fallback_budget(ALL).build().unwrap();
    let lookup = tokio::spawn(client.lookup("lake/users/part-0.parquet").key_column("k").key(-5_000).into_future());
    eventually("the worker was not asked", || worker.asked() == 1).await;
    worker.server.kill();
    let answer = lookup.await.unwrap().unwrap();
    assert_eq!((row_numbers(&answer), &*answer.worker), (vec![0], "origin"));
}

#[tokio::test]
async fn errors_are_those_that_a_worker_gives() {
    let dir = table();
    let client = alone(dir.path()).build().unwrap();
    for (path, column, kind, reason) in [
        ("lake/users/none.parquet", "k", Kind::NotFound, Reason::NoSuchFile),
        ("sea/users", "k", Kind::NotFound, Reason::NoSuchMount),
        ("lake/../users", "k", Kind::Invalid, Reason::BadPath),
        ("lake/users/notes.txt", "kk", Kind::Invalid, Reason::NoSuchColumn),
        ("lake/users/part-0.parquet", "n32", Kind::Invalid, Reason::BadKey),
    ] {
        let error = client.lookup(path).key_column(column).key("no number").await.unwrap_err();
        assert_eq!((error.kind(), error.reason), (kind, Some(reason)), "{error}");
    }
    // Without mounts there is no other way, and with one that cannot be opened its fault is named, though not before
    // it is needed: building does no I/O.
    let endpoint = dead_address().to_string();
    let bare = Client::builder().endpoints([&endpoint]).deadline(PATIENCE).build().unwrap();
    let error = bare.lookup("lake/users/part-0.parquet").key(1).await.unwrap_err();
    assert_eq!((error.kind(), error.reason), (Kind::Unavailable, Some(Reason::NoWorker)));
    let lost = bare_with_mount(&endpoint).lookup("lake/a").key(1).await.unwrap_err();
    assert_eq!(lost.kind(), Kind::Unavailable);
    assert!(lost.to_string().contains("mount lake"), "{lost}");
}

fn bare_with_mount(endpoint: &str) -> Client {
    let missing = [mount(Path::new("/nonexistent/lake"))];
    Client::builder().endpoints([endpoint]).deadline(PATIENCE).mounts(missing).build().unwrap()
}
