//! Clients on the worker's own machine: over its Unix socket, and in its own process.

use std::path::Path;
use std::time::Duration;

use alcedo_client::{Answer, Client, Error, Form, Kind, ListOptions, Reason, Source};
use alcedo_testkit::cluster::{ClusterOptions, TestCluster};
use alcedo_worker::{Config, StartError, Worker};
use futures::TryStreamExt as _;

use crate::sample::{draw, only_row, small, small_cluster, small_objects, values};

const DEADLINE: Duration = Duration::from_secs(25);

/// A worker that listens on a Unix socket too.
fn cluster_at(socket: &Path) -> TestCluster {
    let tables = format!("listen_unix = \"{}\"", socket.display());
    TestCluster::start(ClusterOptions { objects: small_objects(), tables, ..ClusterOptions::default() }).unwrap()
}

fn client_of(endpoint: &str) -> Client {
    Client::builder().endpoints([endpoint]).deadline(DEADLINE).build().unwrap()
}

/// A client of the first worker in its own process.
fn inside(cluster: &TestCluster) -> Client {
    Client::builder().in_process(cluster.worker().local()).deadline(DEADLINE).build().unwrap()
}

fn some_ids(count: usize) -> Vec<i64> {
    let lake = small();
    draw(count, lake.spec().rows).into_iter().map(|number| lake.row(number).unwrap().id).collect()
}

/// What does not depend on the way an answer came.
fn plain(answer: Answer) -> Answer {
    let (elapsed, source) = (Duration::ZERO, Source::Unknown);
    Answer { worker: "any".into(), elapsed, source, origin_gets: 0, origin_bytes: 0, ..answer }
}

#[tokio::test]
async fn a_unix_socket_serves_what_the_address_serves() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("alcedo.sock");
    let cluster = cluster_at(&socket);
    let client = client_of(&format!("unix:{}", socket.display()));
    let lake = small();
    for id in some_ids(20) {
        for _ in 0..3 {
            let answer = client.lookup("lake/lake/").key_column("id").key(id).await.unwrap();
            assert_eq!(only_row(&answer).1, values(&lake.row_of_int_key(id).unwrap()));
        }
    }
    let listing = client.list("lake/lake/", ListOptions::default()).await.unwrap();
    assert_eq!(listing, cluster.client().list("lake/lake/", ListOptions::default()).await.unwrap());
    assert_eq!(client.status().await.unwrap()[0].1.as_ref().unwrap().worker_id, "w-1");
    // The connection for lookups in frames is opened beside them, and may come late.
    let connections = || cluster.worker().metrics().connections_total.get();
    let (mut before, until) = (0, tokio::time::Instant::now() + DEADLINE);
    while connections() != before && tokio::time::Instant::now() < until {
        before = connections();
        for id in some_ids(20) {
            only_row(&client.lookup("lake/lake/").key_column("id").key(id).await.unwrap());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The ring names its member by the address; this client goes by the socket alone.
    client.prepare("lake/lake/").key_column("id").get(some_ids(1)[0]).await.unwrap();
    assert_eq!(connections(), before);
}

#[tokio::test]
async fn a_client_that_comes_over_loopback_changes_over_to_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("alcedo.sock");
    let cluster = cluster_at(&socket);
    let prepared = cluster.client().prepare("lake/lake/").key_column("id");
    let id = some_ids(1)[0];
    let connections = || cluster.worker().metrics().connections_total.get();
    let until = tokio::time::Instant::now() + DEADLINE;
    while connections() < 3 && tokio::time::Instant::now() < until {
        only_row(&prepared.get(id).await.unwrap());
    }
    for _ in 0..50 {
        only_row(&prepared.get(id).await.unwrap());
    }
    // One connection by the address, on which the client learned of the socket, and two by the socket: one of them is
    // for lookups in frames.
    assert_eq!(connections(), 3);

    // Where the file is not there, as in another file system, the address does.
    std::fs::remove_file(&socket).unwrap();
    let elsewhere = client_of(&cluster.endpoint());
    for _ in 0..5 {
        only_row(&elsewhere.lookup("lake/lake/").key_column("id").key(id).await.unwrap());
    }
}

#[tokio::test]
async fn a_worker_does_not_take_the_socket_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("alcedo.sock");
    let cluster = cluster_at(&socket);
    let second = || {
        let mut config = Config::default();
        config.apply_override("listen", "127.0.0.1:0", "test").unwrap();
        config.apply_override("listen_unix", &socket.display().to_string(), "test").unwrap();
        Worker::start(config)
    };
    let refused = second().unwrap_err();
    assert!(matches!(refused, StartError::ListenUnix { .. }));
    assert!(refused.to_string().contains("it is in use"), "{refused}");
    let id = some_ids(1)[0];
    let client = client_of(&format!("unix:{}", socket.display()));
    only_row(&client.lookup("lake/lake/").key_column("id").key(id).await.unwrap());
    drop(cluster);
    drop(second().unwrap());
    assert!(!socket.exists());
}

#[tokio::test]
async fn an_answer_in_the_process_is_the_one_that_travels_in_every_form() {
    let cluster = small_cluster();
    let (near, far, ids) = (inside(&cluster), cluster.client(), some_ids(40));
    for form in [Form::CompactRows, Form::ArrowIpc, Form::Pages] {
        for unary in [false, true] {
            for path in ["lake/lake/", "lake/lake/part-00000.parquet"] {
                let ask = |client: &Client, ids: &[i64]| {
                    let lookup = client.lookup(path).key_column("id").keys(ids.iter().copied());
                    lookup.form(form).unary(unary).into_future()
                };
                match (ask(&near, &ids).await, ask(far, &ids).await) {
                    // A call of its own may carry less than an answer of many data pages.
                    (_, Err(error)) if error.reason == Some(Reason::AnswerTooLarge) => {}
                    (near, far) => assert_eq!(plain(near.unwrap()), plain(far.unwrap()), "{form:?} {unary} {path}"),
                }
            }
        }
    }
    let (near, far) = (near.prepare("lake/lake/").key_column("id"), far.prepare("lake/lake/").key_column("id"));
    for _ in 0..4 {
        for id in ids.iter().copied().chain([-1, -2]) {
            assert_eq!(plain(near.get(id).await.unwrap()), plain(far.get(id).await.unwrap()));
        }
    }
    let many: Vec<i64> = ids.iter().copied().cycle().take(3_000).collect();
    let (near, far) = (near.get_many(many.clone()).await.unwrap(), far.get_many(many).await.unwrap());
    assert_eq!(plain(near), plain(far));
}

#[tokio::test]
async fn in_the_process_everything_else_is_there_too() {
    let cluster = small_cluster();
    let (near, far) = (inside(&cluster), cluster.client());
    let path = "lake/lake/part-00000.parquet";
    assert_eq!(near.stat(path).await.unwrap(), far.stat(path).await.unwrap());
    let listed = near.list("lake/lake/", ListOptions::default()).await.unwrap();
    assert_eq!(listed, far.list("lake/lake/", ListOptions::default()).await.unwrap());
    let read = |client: &Client| client.read(path, 4, Some(1_000)).try_collect::<Vec<_>>();
    assert_eq!(read(&near).await.unwrap().concat(), read(far).await.unwrap().concat());
    assert_eq!(near.cluster().await.unwrap(), far.cluster().await.unwrap());
    assert_eq!(near.status().await.unwrap()[0].1.as_ref().unwrap().worker_id, "w-1");
    let traced = near.lookup(path).key_column("id").key(some_ids(1)[0]).trace(true).await.unwrap();
    assert!(traced.trace.is_some());
    let wrong = |client: &Client| client.lookup(path).key_column("idd").key(1).into_future();
    let (near, far): (Error, Error) = (wrong(&near).await.unwrap_err(), wrong(far).await.unwrap_err());
    assert_eq!(near, far);
}

#[tokio::test]
async fn a_client_in_the_process_outlives_the_worker_and_says_that_it_is_gone() {
    let cluster = small_cluster();
    let near = inside(&cluster);
    let id = some_ids(1)[0];
    let prepared = near.prepare("lake/lake/").key_column("id");
    only_row(&prepared.get(id).await.unwrap());
    drop(cluster);
    for error in [prepared.get(id).await.unwrap_err(), near.stat("lake/lake/").await.unwrap_err()] {
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    }
}
