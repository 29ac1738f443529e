//! Bytes that are not what was written: damaged on the way, at rest at the origin, and at rest in a worker's cache.
//!
//! The file is one whose data pages carry checksums. A bit that flips in one of them never makes a wrong row: it is
//! read once more, and if the origin's own copy is damaged, that is said with the file, the column and the data page,
//! without asking the origin again for a while; everything else in the file is answered as before.

use std::fs;
use std::path::Path;
use std::time::Duration;

use alcedo_client::{Answer, Client, Error, Form, Kind, Lookup, Reason, Value};
use alcedo_testkit::cluster::{ClusterOptions, TestCluster};
use alcedo_testkit::s3::{Fault, Rule};
use bytes::Bytes;

use crate::corpus::corpus_file;
use crate::sample::{cluster_of, refused};

/// 6,000 rows in four row groups, each data page with a checksum.
const FILE: &str = "pa_page_checksum.parquet";
/// The key of row 0. Its data pages are outside of what is first read of the file.
const KEY: i64 = -5_000;
/// Far longer than any answer takes, so that a slow machine fails no test.
const PATIENCE: Duration = Duration::from_secs(25);
/// A key of the last row group.
const LATE_KEY: i64 = 12_997;
/// Column chunks of the first row group, as its footer says: `k`, `name`, `n32`, `d` and `pay`.
const KEY_PAGES: std::ops::Range<usize> = 4..2_017;
const NAME_PAGES: std::ops::Range<usize> = 2_017..23_170;
const N32_PAGES: std::ops::Range<usize> = 23_170..29_230;
const D_PAGES: std::ops::Range<usize> = 29_230..41_488;
const PAY_PAGES: std::ops::Range<usize> = 41_488..95_975;

/// The file with a bit flipped in the first data page of a chunk, behind its header.
fn damaged(chunk: &std::ops::Range<usize>) -> Bytes {
    let mut file = corpus_file(FILE).to_vec();
    file[chunk.start + 100] ^= 1;
    file.into()
}

fn ask(cluster: &TestCluster, path: &str, key: i64) -> Lookup {
    cluster.client().lookup(format!("lake/{path}")).key_column("k").key(key)
}

fn rows(answer: &Answer) -> Vec<(u64, Vec<Value>)> {
    answer.rows().map(|(_, row)| (row.row_number, row.values.clone())).collect()
}

/// GETs of one object so far.
fn gets(cluster: &TestCluster, path: &str) -> usize {
    cluster.store().requests().iter().filter(|request| request.key == path).count()
}

fn rereads(cluster: &TestCluster) -> (u64, u64) {
    let metrics = cluster.worker().metrics();
    (metrics.rereads_cured.get(), metrics.rereads_broken.get())
}

fn assert_data_loss(error: &Error, path: &str, column: &str) {
    assert_eq!((error.kind(), error.reason), (Kind::DataLoss, Some(Reason::Checksum)), "{error}");
    for part in [format!("s3://lake/{path}: "), format!("`{column}`"), "data page 0".to_owned()] {
        assert!(error.message.contains(&part), "no {part} in: {error}");
    }
}

#[tokio::test]
async fn a_bit_that_flips_on_the_way_is_never_seen() {
    // In the first data page of each column, which is read for the key: in its header and behind it.
    let chunks = [KEY_PAGES, NAME_PAGES, N32_PAGES, D_PAGES, PAY_PAGES];
    let places = chunks.iter().flat_map(|chunk| (0..300).step_by(19).map(move |at| (chunk.start + at) as u64));
    let places: Vec<u64> = places.collect();
    let name = |place: &u64| format!("at-{place}.parquet");
    let mut objects: Vec<_> = places.iter().map(|place| (name(place), corpus_file(FILE))).collect();
    objects.push(("good.parquet".to_owned(), corpus_file(FILE)));
    let cluster = cluster_of(objects);
    let wanted = rows(&ask(&cluster, "good.parquet", KEY).await.unwrap());
    assert_eq!(wanted.len(), 1);
    let cold = gets(&cluster, "good.parquet");
    for place in &places {
        // The first read is of the footer, which carries no checksum.
        let flip = Rule::once(Fault::FlipBit { offset: *place }).key(name(place)).after(1);
        cluster.store().faults().add(flip);
        let (cured, _) = rereads(&cluster);
        let answer = ask(&cluster, &name(place), KEY).await.unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_eq!(rows(&answer), wanted, "{place}");
        let is_cured = rereads(&cluster).0 > cured;
        let most = if is_cured { 2 * cold } else { cold };
        assert!(gets(&cluster, &name(place)) <= most, "{place}: {:?}", cluster.store().requests());
        // Nothing damaged stays: every column is right without the origin.
        let before = gets(&cluster, &name(place));
        assert_eq!(rows(&ask(&cluster, &name(place), KEY).await.unwrap()), wanted, "{place}");
        assert_eq!((gets(&cluster, &name(place)), is_cured), (before, rereads(&cluster).0 > cured), "{place}");
    }
    assert_eq!(cluster.store().faults().pending(), 0);
    let (cured, broken) = rereads(&cluster);
    assert!(cured as usize > places.len() / 2 && broken == 0, "{cured} cured, {broken} broken");
}

#[tokio::test]
async fn a_flip_in_the_end_of_the_file_is_read_again() {
    let objects = vec![("a.parquet".to_owned(), corpus_file(FILE)), ("b.parquet".to_owned(), corpus_file(FILE))];
    let cluster = cluster_of(objects);
    let wanted = rows(&ask(&cluster, "b.parquet", LATE_KEY).await.unwrap());
    // The last byte of the file: it does not end as Parquet files do.
    cluster.store().faults().add(Rule::once(Fault::FlipBit { offset: (64 << 10) - 1 }).key("a.parquet"));
    assert_eq!(rows(&ask(&cluster, "a.parquet", LATE_KEY).await.unwrap()), wanted);
    assert_eq!((rereads(&cluster), cluster.store().faults().pending()), ((1, 0), 0));
    assert_eq!(gets(&cluster, "a.parquet"), gets(&cluster, "b.parquet") + 1);
}

#[tokio::test]
async fn damage_at_the_origin_is_told_by_name_and_fetched_twice_at_most() {
    for (chunk, column) in [(KEY_PAGES, "k"), (NAME_PAGES, "name"), (PAY_PAGES, "pay")] {
        let objects = vec![("bad.parquet".to_owned(), damaged(&chunk)), ("good.parquet".to_owned(), corpus_file(FILE))];
        let cluster = cluster_of(objects);
        let answer = ask(&cluster, "good.parquet", KEY).await.unwrap();
        let wanted = rows(&answer);
        let late = rows(&ask(&cluster, "good.parquet", LATE_KEY).await.unwrap());
        let cold = gets(&cluster, "good.parquet");
        assert_data_loss(&refused(ask(&cluster, "bad.parquet", KEY).await), "bad.parquet", column);
        let most = gets(&cluster, "bad.parquet");
        assert!(most <= 2 * cold, "{most} GETs where a good file takes {cold}");
        assert_eq!(rereads(&cluster), (0, 1));
        // In every form, again and again, without the origin.
        for form in [Form::CompactRows, Form::ArrowIpc, Form::Pages] {
            for unary in [false, true] {
                let error = refused(ask(&cluster, "bad.parquet", KEY).form(form).unary(unary).await);
                assert_data_loss(&error, "bad.parquet", column);
            }
        }
        assert_eq!((gets(&cluster, "bad.parquet"), rereads(&cluster)), (most, (0, 1)), "`{column}`");
        // Other data pages and other columns are as good as ever.
        assert_eq!(rows(&ask(&cluster, "bad.parquet", LATE_KEY).await.unwrap()), late);
        if column != "k" {
            let answer = ask(&cluster, "bad.parquet", KEY).select(["k", "d"]).await.unwrap();
            assert_eq!(rows(&answer)[0].1, [wanted[0].1[0].clone(), wanted[0].1[3].clone()]);
        }
        assert_eq!(rereads(&cluster), (0, 1));
    }
}

#[tokio::test]
async fn each_form_finds_damage_by_itself() {
    for (chunk, column) in [(KEY_PAGES, "k"), (NAME_PAGES, "name")] {
        for form in [Form::CompactRows, Form::ArrowIpc, Form::Pages] {
            for unary in [false, true] {
                let cluster = cluster_of(vec![("bad.parquet".to_owned(), damaged(&chunk))]);
                let error = refused(ask(&cluster, "bad.parquet", KEY).form(form).unary(unary).await);
                assert_data_loss(&error, "bad.parquet", column);
                assert_eq!(rereads(&cluster), (0, 1), "{form:?}, unary {unary}, `{column}`");
            }
        }
    }
}

#[tokio::test]
async fn a_crowd_that_finds_damage_reads_the_file_anew_once() {
    let objects =
        vec![("bad.parquet".to_owned(), damaged(&NAME_PAGES)), ("good.parquet".to_owned(), corpus_file(FILE))];
    let cluster = cluster_of(objects);
    ask(&cluster, "good.parquet", KEY).await.unwrap();
    let asking = (0..100).map(|_| ask(&cluster, "bad.parquet", KEY).into_future());
    for answer in futures::future::join_all(asking).await {
        assert_data_loss(&refused(answer), "bad.parquet", "name");
    }
    let (bad, good) = (gets(&cluster, "bad.parquet"), gets(&cluster, "good.parquet"));
    // Whoever still holds the dropped index, and has the other columns decoded by it, may ask for the damaged data page
    // just before the second reading does, which then finds that block here: one range more, and no byte more.
    assert!(bad <= 2 * good + 1, "{bad} GETs where one lookup of a good file takes {good}");
    let bytes = |path: &str| -> u64 {
        cluster.store().requests().iter().filter(|request| request.key == path).map(|request| request.bytes).sum()
    };
    // The end of a file whose size is known is read in whole blocks.
    let most = 2 * bytes("good.parquet") + 4_096;
    assert!(bytes("bad.parquet") <= most, "{} bytes: more than one reading anew", bytes("bad.parquet"));
}

#[tokio::test]
async fn a_new_version_and_an_elapsed_time_are_each_another_chance() {
    let options = |mount: &str, tables: &str| ClusterOptions {
        objects: vec![("a.parquet".to_owned(), damaged(&NAME_PAGES))],
        mount: mount.to_owned(),
        tables: tables.to_owned(),
        ..ClusterOptions::default()
    };
    let cluster = TestCluster::start(options("freshness = \"always\"\n", "")).unwrap();
    assert_data_loss(&refused(ask(&cluster, "a.parquet", KEY).await), "a.parquet", "name");
    cluster.store().put("lake", "a.parquet", corpus_file(FILE));
    assert_eq!(rows(&ask(&cluster, "a.parquet", KEY).await.unwrap()).len(), 1);
    // Believed for no time at all, it is read anew by everybody.
    let cluster = TestCluster::start(options("", "[lookup]\nbroken_ttl = \"0s\"\n")).unwrap();
    for times in 1..4 {
        refused(ask(&cluster, "a.parquet", KEY).await);
        assert_eq!(rereads(&cluster), (0, times));
    }
}

#[tokio::test]
async fn files_that_are_broken_without_a_checksum_are_fetched_twice_at_most_too() {
    let names = ["bad_codec_lzo.parquet", "bad_page_uncompressed_size_2g.parquet", "bad_cut_half_with_tail.parquet"];
    let cluster = cluster_of(names.iter().map(|name| ((*name).to_owned(), corpus_file(name))).collect());
    for (at, name) in names.iter().enumerate() {
        let first = refused(ask(&cluster, name, KEY).await);
        assert_eq!(first.kind(), Kind::Failed, "{first}");
        let most = gets(&cluster, name);
        assert!(most <= 8, "{most} GETs of {name}");
        for _ in 0..3 {
            assert_eq!(refused(ask(&cluster, name, KEY).await), first);
        }
        assert_eq!((gets(&cluster, name), rereads(&cluster)), (most, (0, at as u64 + 1)), "{name}");
    }
}

/// Flips a bit in every block of every file of a page store.
fn damage_pages(cache: &Path) -> usize {
    let mut flips = 0;
    for entry in fs::read_dir(cache.join("pages")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        for at in (0..bytes.len()).step_by(1_000).filter(|at| bytes[*at] != 0).collect::<Vec<_>>() {
            bytes[at] ^= 1;
            flips += 1;
        }
        fs::write(&path, bytes).unwrap();
    }
    flips
}

#[tokio::test]
async fn damage_in_the_cache_is_a_miss() {
    let objects = vec![("a.parquet".to_owned(), corpus_file(FILE))];
    let options = ClusterOptions { objects, cache: true, ..ClusterOptions::default() };
    let cluster = TestCluster::start(options).unwrap();
    let wanted = rows(&ask(&cluster, "a.parquet", KEY).await.unwrap());
    let cache = cluster.cache_dir(0).unwrap();
    // Started again, it has nothing in memory; what it finds on its disk is damaged.
    let cluster = cluster.restart().unwrap();
    assert!(damage_pages(&cache) > 10);
    let before = gets(&cluster, "a.parquet");
    // Another client: the first one's connection has just been told that the worker leaves.
    let client = Client::builder().endpoints([cluster.endpoint()]).deadline(PATIENCE).build().unwrap();
    let answer = client.lookup("lake/a.parquet").key_column("k").key(KEY).await.unwrap();
    assert_eq!(rows(&answer), wanted);
    assert!(gets(&cluster, "a.parquet") > before, "the pages were read from the origin");
    assert_eq!(rereads(&cluster), (0, 0), "the cache knew by itself that they were damaged");
}
