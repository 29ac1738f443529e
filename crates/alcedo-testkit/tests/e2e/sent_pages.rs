//! Data pages in place of rows: a worker that is short of CPU sends them to who takes them, and answers stay the same.

use std::time::Duration;

use alcedo_client::{Answer, Client, Form, KeyStatus};
use alcedo_testkit::cluster::{ClusterOptions, TestCluster};
use bytes::Bytes;
use parquet::basic::Compression;

use crate::corpus::{check, corpus_objects, lookup_of, queries};
use crate::sample::{absent_ids, draw, large, large_file, small, small_objects, values};
use crate::trips::{batch, written};

/// Never reached by a test that goes well.
const PATIENCE: Duration = Duration::from_secs(25);
/// A worker that is always short, keeps nothing decoded, and builds nothing.
const SHORT: &str =
    "[lookup]\npages_wait = \"0s\"\npages_bytes = \"16MiB\"\n[cache]\ndecoded = 0\n[builds]\nparallel = 0\n";

/// The store is asked for each lookup whether a file has changed.
const ALWAYS: &str = "freshness = \"always\"";

fn cluster(objects: Vec<(String, Bytes)>, tables: &str) -> TestCluster {
    let tables = tables.to_owned();
    TestCluster::start(ClusterOptions { objects, mount: ALWAYS.to_owned(), tables, ..ClusterOptions::default() })
        .unwrap()
}

/// A client that takes pages, though its worker is on this machine.
fn taking(cluster: &TestCluster) -> Client {
    Client::builder().endpoints([cluster.endpoint()]).deadline(PATIENCE).accept_pages(true).build().unwrap()
}

fn plain(cluster: &TestCluster) -> Client {
    Client::builder().endpoints([cluster.endpoint()]).deadline(PATIENCE).build().unwrap()
}

/// Lookups so far that were answered with data pages in place of rows.
fn sent(cluster: &TestCluster) -> u64 {
    cluster.worker().metrics().sent_pages_total.get()
}

/// What an answer says beside what it cost.
fn said(answer: Answer) -> Answer {
    let (elapsed, source) = (Duration::ZERO, alcedo_client::Source::Unknown);
    Answer { elapsed, source, origin_gets: 0, origin_bytes: 0, ring_epoch: 0, ..answer }
}

#[tokio::test]
async fn the_corpus_is_answered_alike_by_pages_with_a_warm_cache() {
    let cluster = cluster(corpus_objects(), SHORT);
    let client = taking(&cluster);
    let mut failures = Vec::new();
    for query in queries().iter().filter(|query| !query["key"]["value"].is_null()) {
        // The first finds out where the pages are, the others send them; the last finds them decoded.
        for time in ["first", "second", "third", "fourth"] {
            let outcome = check(&lookup_of(&client, query).await, &query["expect"]);
            failures.extend(outcome.err().map(|problem| format!("{} {time} time: {problem}", query["qid"])));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let kept = client.decoded_pages();
    assert!(sent(&cluster) > 500 && kept.hits > 500, "{} lookups by pages, {kept:?}", sent(&cluster));
}

#[tokio::test]
async fn prefixes_many_keys_limits_and_absent_keys_are_answered_alike() {
    let (cluster, lake) = (cluster(small_objects(), SHORT), small());
    let mut ids: Vec<i64> = draw(40, lake.spec().rows).into_iter().map(|n| lake.row(n).unwrap().id).collect();
    ids.extend(absent_ids(&lake, 20));
    ids.push(ids[0]);
    let (with, without) = (taking(&cluster), plain(&cluster));
    let file = format!("lake/{}", small_objects()[3].0);
    for (path, key_column) in [("lake/lake/", "id"), ("lake/lake/", "city"), (&file, "id"), (&file, "city")] {
        let ask = |client: &Client, columns: &[&str], keys: usize, limit: u32| {
            let lookup = client.lookup(path).key_column(key_column).select(columns.iter().copied()).row_limit(limit);
            match key_column {
                "id" => lookup.keys(ids.iter().copied().skip(7).step_by(3).take(keys)),
                _ => lookup.key(lake.row(5).unwrap().city).key("nowhere"),
            }
        };
        for (columns, keys, limit) in [
            (&["name", "tags"][..], 1, 0),
            (&["score", "id"], 1, 1),
            (&[], 20, 0),
            (&["user"], 20, 2),
            (&["city"], 3, 1),
        ] {
            for _ in 0..3 {
                let wanted = said(ask(&without, columns, keys, limit).await.unwrap());
                let got = said(ask(&with, columns, keys, limit).await.unwrap());
                assert_eq!(got, wanted, "{path} {key_column} {columns:?} {keys} {limit}");
            }
        }
    }
    assert!(sent(&cluster) > 30, "{} lookups by pages", sent(&cluster));
}

#[tokio::test]
async fn only_who_takes_pages_gets_them_and_only_where_cpu_is_short() {
    let lake = large(7);
    let objects = || vec![("big.parquet".to_owned(), large_file(0))];
    let ids: Vec<i64> = lake.rows_of_file(0).into_iter().step_by(9_000).map(|n| lake.row(n).unwrap().id).collect();
    let ask = async |client: &Client, form| {
        for id in &ids {
            let answer = client.lookup("lake/big.parquet").key_column("id").key(*id).form(form).await.unwrap();
            let (_, row) = answer.rows().next().unwrap();
            assert_eq!(
                (&row.values, answer.statuses[0]),
                (&values(&lake.row_of_int_key(*id).unwrap()), KeyStatus::Found)
            );
        }
    };
    // Other tests take turns with it, and a thread that waited for a processor is as short of it as a busy one.
    let relaxed = cluster(objects(), "[lookup]\npages_wait = \"1s\"\n[cache]\ndecoded = 0\n");
    let client = taking(&relaxed);
    ask(&client, Form::CompactRows).await;
    ask(&client, Form::CompactRows).await;
    assert_eq!((sent(&relaxed), client.decoded_pages().misses), (0, 0));
    let short = cluster(objects(), SHORT);
    ask(&plain(&short), Form::CompactRows).await;
    // Pages that were asked for take nothing's place, and other forms have none.
    ask(&plain(&short), Form::Pages).await;
    assert_eq!(sent(&short), 0);
    let client = taking(&short);
    ask(&client, Form::CompactRows).await;
    assert_eq!(sent(&short), ids.len() as u64);
    let unary = client.lookup("lake/big.parquet").key_column("id").key(ids[0]).unary(true).await.unwrap();
    let traced = client.lookup("lake/big.parquet").key_column("id").key(ids[0]).trace(true).await.unwrap();
    let note = "data pages in place of rows: this worker is short of CPU";
    assert!(traced.trace.unwrap().notes.iter().any(|told| told.ends_with(note)));
    assert_eq!((unary.rows().count(), sent(&short)), (1, ids.len() as u64 + 1));
    let never = cluster(objects(), &SHORT.replace("16MiB", "0"));
    let client = taking(&never);
    ask(&client, Form::CompactRows).await;
    ask(&client, Form::CompactRows).await;
    assert_eq!(sent(&never), 0);
}

#[tokio::test]
async fn prepared_lookups_and_batches_take_pages() {
    let (cluster, lake) = (cluster(small_objects(), SHORT), small());
    let users = taking(&cluster).prepare("lake/lake/").key_column("id");
    let ids: Vec<i64> = draw(300, lake.spec().rows).into_iter().map(|n| lake.row(n).unwrap().id).collect();
    for _ in 0..2 {
        // So many at once travel together.
        let answers = futures::future::join_all(ids.iter().map(|id| users.get(*id))).await;
        for (id, answer) in ids.iter().zip(answers) {
            let answer = answer.unwrap();
            let rows: Vec<_> = answer.rows().map(|(_, row)| &row.values).collect();
            assert_eq!(rows, [&values(&lake.row_of_int_key(*id).unwrap())]);
        }
    }
    let many = users.get_many(ids.iter().copied()).await.unwrap();
    assert!(many.statuses.iter().all(|status| *status == KeyStatus::Found));
    assert!(sent(&cluster) > 300, "{} lookups by pages", sent(&cluster));
}

#[tokio::test]
async fn an_overwritten_file_is_never_answered_from_pages_that_are_kept() {
    let (old, new) = (large(7), large(8));
    let cluster = cluster(vec![("big.parquet".to_owned(), large_file(0))], SHORT);
    let in_both = |id: &i64| new.row_of_int_key(*id).is_some_and(|row| new.file_of_row(row.number) == Some(0));
    let ids: Vec<i64> = old.rows_of_file(0).into_iter().step_by(700).map(|n| old.row(n).unwrap().id).collect();
    let ids: Vec<i64> = ids.into_iter().filter(in_both).take(12).collect();
    let client = taking(&cluster);
    let ask = async |lake: &alcedo_testkit::lake::SampleLake| {
        for id in &ids {
            let answer = client.lookup("lake/big.parquet").key_column("id").key(*id).await.unwrap();
            let (_, row) = answer.rows().next().unwrap();
            assert_eq!(row.values, values(&lake.row_of_int_key(*id).unwrap()));
        }
    };
    for _ in 0..4 {
        ask(&old).await;
    }
    let before = client.decoded_pages();
    assert!(before.hits > 100 && before.pages > 9, "{before:?}");
    cluster.store().put(alcedo_testkit::cluster::BUCKET, "big.parquet", new.file(0).unwrap());
    for _ in 0..4 {
        ask(&new).await;
    }
    assert!(client.decoded_pages().hits > before.hits);
}

#[tokio::test]
async fn what_a_client_keeps_of_pages_is_bounded_and_a_kept_page_is_not_decoded_again() {
    let lake = large(7);
    let cluster = cluster(vec![("big.parquet".to_owned(), large_file(0))], SHORT);
    let ids: Vec<i64> = lake.rows_of_file(0).into_iter().step_by(500).map(|n| lake.row(n).unwrap().id).collect();
    const BOUND: u64 = 2 << 20;
    for bound in [BOUND, 0] {
        let client = Client::builder().endpoints([cluster.endpoint()]).decoded_pages_bytes(bound).accept_pages(true);
        let client = client.deadline(PATIENCE).build().unwrap();
        let ask = async |id: i64| {
            let lookup = client.lookup("lake/big.parquet").key_column("id").key(id).select(["user", "score"]);
            let answer = lookup.await.unwrap();
            let (_, row) = answer.rows().next().unwrap();
            let wanted = values(&lake.row_of_int_key(id).unwrap());
            assert_eq!(row.values, [wanted[1].clone(), wanted[4].clone()]);
            assert!(client.decoded_pages().bytes <= bound, "{:?}", client.decoded_pages());
        };
        for _ in 0..3 {
            ask(ids[0]).await;
        }
        let kept = client.decoded_pages();
        ask(ids[0]).await;
        let again = client.decoded_pages();
        let expected = if bound == 0 { (0, kept.hits, kept.misses + 2) } else { (2, kept.hits + 2, kept.misses) };
        assert_eq!((again.pages, again.hits, again.misses), expected);
        for _ in 0..4 {
            for id in ids.iter().step_by(4) {
                ask(*id).await;
            }
        }
    }
}

#[tokio::test]
async fn what_is_sent_of_all_files_together_is_bounded() {
    // Data pages of some 50 KB.
    let file = written(&batch(4_000, 100), 500, |properties| properties.set_compression(Compression::SNAPPY));
    let objects = ["two/a.parquet", "two/b.parquet"].map(|name| (name.to_owned(), file.clone()));
    let cluster = cluster(objects.to_vec(), &SHORT.replace("16MiB", "80KiB"));
    let client = taking(&cluster);
    for (path, files, are_sent) in [("lake/two/a.parquet", 1, 3), ("lake/two/", 2, 3), ("lake/two/b.parquet", 1, 6)] {
        for _ in 0..3 {
            let answer = client.lookup(path).key_column("id").key(300).select(["a"]).await.unwrap();
            assert_eq!(answer.rows().count(), files);
        }
        assert_eq!(sent(&cluster), are_sent, "{path}");
    }
}

#[tokio::test]
async fn more_lookups_than_there_is_time_for_make_a_worker_send_pages() {
    let lake = large(7);
    // Waits that any queue has.
    let tables = SHORT.replace("0s", "10us");
    let objects = vec![("big.parquet".to_owned(), large_file(0))];
    let cluster = TestCluster::start(ClusterOptions { objects, tables, ..ClusterOptions::default() }).unwrap();
    let ids: Vec<i64> = lake.rows_of_file(0).into_iter().step_by(97).map(|n| lake.row(n).unwrap().id).collect();
    let users = taking(&cluster).prepare("lake/big.parquet").key_column("id").select(["user", "name"]);
    for _ in 0..200 {
        let answers = futures::future::join_all(ids.iter().take(256).map(|id| users.get(*id))).await;
        assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.rows().count() == 1)));
        if sent(&cluster) > 0 {
            return;
        }
    }
    panic!("no lookup of 51,200 was answered by pages");
}
