//! Files that are overwritten: between lookups and in the middle of one. An answer is never made of two versions.

use alcedo_client::{Answer, Client, Kind, Reason, Value};
use alcedo_testkit::cluster::{ClusterOptions, TestCluster};
use alcedo_testkit::s3::{Fault, Rule};
use bytes::Bytes;

use crate::sample::{large, large_file, only_row, refused, values};

const PATH: &str = "lake/big.parquet";

/// The same file in two versions: rows with the same ids here and there, and other values.
fn versions() -> (Bytes, Bytes) {
    (large_file(0), large(8).file(0).unwrap())
}

/// Keys that both versions have.
fn shared_ids() -> Vec<i64> {
    let (old, new) = (large(7), large(8));
    let ids = old.rows_of_file(0).into_iter().skip(1_000).step_by(5_000).map(|number| old.row(number).unwrap().id);
    let in_both = |id: &i64| new.row_of_int_key(*id).is_some_and(|row| new.file_of_row(row.number) == Some(0));
    let shared: Vec<i64> = ids.filter(in_both).collect();
    assert!(shared.len() >= 3, "{shared:?}");
    shared
}

fn cluster(mount: &str) -> TestCluster {
    let objects = vec![("big.parquet".to_owned(), versions().0)];
    TestCluster::start(ClusterOptions { objects, mount: mount.to_owned(), ..ClusterOptions::default() }).unwrap()
}

async fn ask(client: &Client, id: i64) -> Answer {
    client.lookup(PATH).key_column("id").key(id).await.unwrap()
}

fn row_of(seed: u64, id: i64) -> Vec<Value> {
    values(&large(seed).row_of_int_key(id).unwrap())
}

#[tokio::test]
async fn an_overwrite_in_the_middle_restarts_on_the_new_version() {
    let id = shared_ids()[1];
    assert_ne!(row_of(7, id), row_of(8, id));
    // Before the second read, before the third, ...: wherever it happens the answer is all new.
    let (mut after, mut happened) = (1, 0);
    loop {
        let cluster = cluster("");
        cluster.store().faults().add(Rule::once(Fault::SwapObject { bytes: versions().1 }).after(after));
        let answer = ask(cluster.client(), id).await;
        let (file, row) = only_row(&answer);
        if cluster.store().faults().pending() > 0 {
            assert_eq!(row, row_of(7, id), "nothing was overwritten");
            break;
        }
        assert_eq!(row, row_of(8, id), "overwritten before read {}", after + 1);
        let asked: Vec<_> = cluster.store().requests().iter().map(|request| request.status).collect();
        assert!(asked.contains(&Some(412)), "{asked:?}");
        let tag = cluster.store().requests().last().unwrap().if_match.clone().unwrap();
        assert!(file.version.contains(tag.trim_matches('"')), "{} is not of {tag}", file.version);
        (after, happened) = (after + 1, happened + 1);
    }
    assert!(happened >= 2, "only {happened} reads follow the first");
}

#[tokio::test]
async fn a_file_that_changes_at_every_read_is_given_up_and_says_so() {
    let cluster = cluster("");
    let (old, new) = versions();
    for _ in 0..8 {
        // Both are known to the store in turn, each with an entity tag of its own.
        for bytes in [&new, &old] {
            let swap = Fault::SwapObject { bytes: bytes.clone() };
            cluster.store().faults().add(Rule::always(swap));
        }
    }
    let error = refused(cluster.client().lookup(PATH).key_column("id").key(shared_ids()[0]).await);
    assert_eq!((error.kind(), error.reason), (Kind::VersionChanged, Some(Reason::VersionChanged)));
    let wanted = "s3://lake/big.parquet: the file changed at the origin again and again while it was read: try again";
    assert_eq!(error.message, wanted);
    assert!(error.is_retryable());
    let said = cluster.run(&["get", PATH, "1", "-k", "id"]).await.unwrap();
    assert_eq!((said.code, said.stderr), (Some(1), format!("error: {wanted}\n")));
    cluster.store().faults().clear();
    ask(cluster.client(), shared_ids()[0]).await;
}

#[tokio::test]
async fn an_always_fresh_mount_answers_from_the_new_file_at_once() {
    let cluster = cluster("freshness = \"always\"\n");
    let id = shared_ids()[0];
    let before = ask(cluster.client(), id).await;
    assert_eq!(only_row(&before).1, row_of(7, id));
    cluster.store().put("lake", "big.parquet", versions().1);
    let after = ask(cluster.client(), id).await;
    assert_eq!(only_row(&after).1, row_of(8, id));
    assert_ne!(before.files[0].version, after.files[0].version);
    // Being sure costs one HEAD, and no bytes when nothing changed.
    cluster.store().reset_counters();
    ask(cluster.client(), id).await;
    let seen = cluster.store().counters();
    assert_eq!((seen.get, seen.head, seen.bytes_sent), (0, 1, 0));
}

#[tokio::test]
async fn a_cached_version_answers_whole_until_something_new_is_read() {
    let cluster = cluster("");
    let ids = shared_ids();
    assert_eq!(only_row(&ask(cluster.client(), ids[0]).await).1, row_of(7, ids[0]));
    cluster.store().put("lake", "big.parquet", versions().1);
    // Within the mount's freshness the old answer is as good as it was, and needs no request.
    cluster.store().reset_counters();
    assert_eq!(only_row(&ask(cluster.client(), ids[0]).await).1, row_of(7, ids[0]));
    assert_eq!(cluster.store().counters().get, 0);
    // What must be read now exists in the new version only; from then on everything is new.
    let far = *ids.last().unwrap();
    assert_eq!(only_row(&ask(cluster.client(), far).await).1, row_of(8, far));
    assert_eq!(only_row(&ask(cluster.client(), ids[0]).await).1, row_of(8, ids[0]));
}

#[tokio::test]
async fn an_immutable_mount_never_asks_again() {
    let cluster = cluster("freshness = \"immutable\"\n");
    let id = shared_ids()[0];
    ask(cluster.client(), id).await;
    cluster.store().reset_counters();
    for _ in 0..10 {
        ask(cluster.client(), id).await;
    }
    assert_eq!(cluster.store().counters(), alcedo_testkit::s3::Counters::default());
}
