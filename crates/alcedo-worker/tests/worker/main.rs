//! One worker over an in-memory object store, asked over real sockets: what each service answers, what it costs at the
//! origin, and how errors look on the wire. End-to-end tests over HTTP stores are in `alcedo-testkit`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admin;
mod frames;
mod lifecycle;
mod limits;
mod prepared;
mod served;

use alcedo_origin::Freshness;
use alcedo_proto::v1::cluster_service_client::ClusterServiceClient;
use alcedo_proto::v1::file_service_client::FileServiceClient;
use alcedo_proto::v1::{self, Reason, lookup_frame, reply_frame};
use alcedo_worker::{StartError, Worker};
use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use served::*;

#[tokio::test]
async fn a_client_learns_members_ring_and_mounts_from_one_address() {
    let served = serve().await;
    let mut client = ClusterServiceClient::new(served.channel.clone());
    let cluster = client.cluster(v1::ClusterRequest {}).await.unwrap().into_inner();
    assert_eq!(cluster.members.len(), 1);
    assert_eq!(cluster.members[0].address, served.running.local_addr().to_string());
    let ring = cluster.ring.unwrap();
    assert_eq!((ring.vnodes_per_weight, ring.hash.as_str()), (512, "xxh3-64"));
    assert_eq!((cluster.mounts[0].url.as_str(), cluster.mounts[0].freshness.as_str()), ("s3://bucket", "ttl"));
    served.lookup(ask("lake/users/a.parquet", &[1])).await.unwrap();
    let status = client.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.worker_id.as_str(), status.ring_epoch), ("worker", ring.epoch));
    assert_eq!((status.lookups_total, status.lookups_failed, status.lookups_in_flight), (1, 0, 0));
    assert!(status.origin_gets >= 1 && status.index_bytes > 0 && status.page_bytes > 0 && !status.draining);
}

#[tokio::test]
async fn health_and_reflection_are_there() {
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let served = serve().await;
    let request = tonic_health::pb::HealthCheckRequest { service: "alcedo.v1.LookupService".to_owned() };
    let health = HealthClient::new(served.channel.clone()).check(request).await.unwrap().into_inner();
    assert_eq!(health.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);
    let list = MessageRequest::ListServices(String::new());
    let request =
        tonic_reflection::pb::v1::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut client = ServerReflectionClient::new(served.channel.clone());
    let mut replies = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    let reply = replies.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(services)) = reply.message_response else { panic!() };
    let names: Vec<&str> = services.service.iter().map(|service| service.name.as_str()).collect();
    for name in
        ["alcedo.v1.LookupService", "alcedo.v1.FileService", "alcedo.v1.ClusterService", "grpc.health.v1.Health"]
    {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[tokio::test]
async fn a_repeated_lookup_asks_the_origin_nothing() {
    let served = serve().await;
    let first = served.lookup(ask("lake/users/a.parquet", &[7, 1_000])).await.unwrap();
    let announce = first.announce.unwrap();
    let answer = first.answer.unwrap();
    assert_eq!(names(&answer), ["name-7"]);
    assert_eq!(answer.statuses, [v1::KeyStatus::Found as i32, v1::KeyStatus::NotFound as i32]);
    assert_eq!(announce.files[0].url, "s3://bucket/users/a.parquet");
    let columns = &announce.schemas[0].schema.as_ref().unwrap().columns;
    assert_eq!(columns.iter().map(|column| column.r#type.as_str()).collect::<Vec<_>>(), ["int64", "string"]);
    assert_eq!(answer.source(), v1::Source::Origin);
    // The whole file fits in the first read of its tail, and no HEAD was needed.
    assert_eq!((answer.origin_gets, served.origin_calls()), (1, (1, 0, 0)));
    let again = served.lookup(ask("s3://bucket/users/a.parquet", &[8])).await.unwrap().answer.unwrap();
    assert_eq!((names(&again), again.origin_gets), (vec!["name-8".to_owned()], 0));
    assert_ne!(again.source(), v1::Source::Origin);
    assert_eq!(served.origin_calls(), (1, 0, 0));
}

#[tokio::test]
async fn a_prefix_is_listed_once_pruned_and_answered_in_listing_order() {
    let served = serve().await;
    for path in ["lake/users/", "lake/users"] {
        let answer = served.lookup(ask(path, &[95, 250])).await.unwrap().answer.unwrap();
        assert_eq!(names(&answer), ["name-95", "name-95", "name-250"], "{path}");
        assert_eq!((answer.files_total, answer.files_asked), (3, 3));
    }
    let (gets, heads, lists) = served.origin_calls();
    // One GET for each file of the table, and one that found no file named `users`.
    assert_eq!((gets, heads, lists), (4, 0, 1));
    let mut request = ask("lake/users", &[150]);
    request.trace = true;
    let answer = served.lookup(request).await.unwrap().answer.unwrap();
    assert_eq!((answer.files_total, answer.files_asked, answer.origin_gets), (3, 1, 0));
    let trace = answer.trace.unwrap();
    assert_eq!(trace.notes[0], "3 files, 2 pruned by key bounds, 1 asked");
    assert!(trace.stages.iter().any(|stage| stage.name == "search"));
    assert_eq!(served.origin_calls(), (4, 0, 1));
    let mut limited = ask("lake/users", &[95]);
    limited.row_limit = 1;
    let answer = served.lookup(limited).await.unwrap().answer.unwrap();
    assert_eq!((names(&answer).len(), answer.statuses[0]), (1, v1::KeyStatus::Truncated as i32));
}

#[tokio::test]
async fn many_lookups_of_one_cold_file_open_it_once() {
    let slow = ThrottleConfig { wait_get_per_call: Duration::from_millis(50), ..ThrottleConfig::default() };
    let store = InMemory::new();
    put(&store, "a.parquet", file(0..10)).await;
    let store = Arc::new(ThrottledStore::new(store, slow));
    let served = serve_with(store, Freshness::default(), config(2));
    let asks = (0..200).map(|i| served.lookup(ask("lake/a.parquet", &[i % 10])));
    for (i, answer) in futures::future::join_all(asks).await.into_iter().enumerate() {
        assert_eq!(names(&answer.unwrap().answer.unwrap()), [format!("name-{}", i % 10)]);
    }
    assert_eq!(served.origin_calls(), (1, 0, 0));
}

#[tokio::test]
async fn an_overwritten_file_is_answered_from_its_new_version() {
    let store = lake().await;
    let served = serve_with(store.clone(), Freshness::Always, config(1));
    let before = served.lookup(ask("lake/users/a.parquet", &[5])).await.unwrap();
    put(store.as_ref(), "users/a.parquet", file(1_000..1_100)).await;
    let after = served.lookup(ask("lake/users/a.parquet", &[5, 1_005])).await.unwrap();
    assert_eq!(names(after.answer.as_ref().unwrap()), ["name-1005"]);
    assert_ne!(before.announce.unwrap().files[0].version, after.announce.unwrap().files[0].version);
}

#[tokio::test]
async fn what_is_believed_is_checked_by_the_mounts_freshness() {
    let hour = Duration::from_secs(3_600);
    let soft = Freshness::Ttl { soft: Duration::ZERO, hard: hour };
    let served = serve_with(lake().await, soft, config(1));
    for _ in 0..2 {
        served.lookup(ask("lake/users/a.parquet", &[5])).await.unwrap();
    }
    // The second was answered at once and checked behind its back.
    eventually(|| served.origin_calls().1 > 0).await;
    assert_eq!(served.origin_calls(), (1, 1, 0));
    let hard = Freshness::Ttl { soft: Duration::ZERO, hard: Duration::ZERO };
    let served = serve_with(lake().await, hard, config(1));
    for heads in [0, 1, 2] {
        served.lookup(ask("lake/users/a.parquet", &[5])).await.unwrap();
        assert_eq!(served.origin_calls(), (1, heads, 0));
    }
    let served = serve_with(lake().await, Freshness::Ttl { soft: hour, hard: hour }, config(1));
    for _ in 0..2 {
        served.lookup(ask("lake/users/", &[5])).await.unwrap();
        assert_eq!(served.origin_calls(), (3, 0, 1));
    }
}

#[tokio::test]
async fn a_listed_file_that_was_overwritten_or_replaced_is_noticed_within_the_same_lookup() {
    let (store, hour) = (lake().await, Duration::from_secs(3_600));
    let mut settings = config(1);
    // Nothing but indexes and listings is kept, so every lookup meets the origin as it is now.
    settings.cache.pages_bytes = 0;
    settings.lookup.broken_ttl = Duration::from_millis(100);
    let served = serve_with(store.clone(), Freshness::Ttl { soft: hour, hard: hour }, settings);
    let rows = async |path, id| served.lookup(ask(path, &[id])).await.map(|found| names(&found.answer.unwrap()));
    assert_eq!(rows("lake/users/sub/", 250).await.unwrap(), ["name-250"]);
    // The old version's bounds lead to the file, which is another one by now, and the answer is of that.
    put(store.as_ref(), "users/sub/c.parquet", file(240..260)).await;
    assert_eq!(rows("lake/users/sub/", 210).await.unwrap(), Vec::<String>::new());
    assert_eq!(rows("lake/users/sub/", 250).await.unwrap(), ["name-250"]);
    put(store.as_ref(), "users/x.parquet", b"broken".to_vec()).await;
    assert_eq!(rows("lake/users/", 250).await.unwrap_err().code(), Code::FailedPrecondition);
    // Replaced by a file of another name, behind the listing's back.
    put(store.as_ref(), "users/y.parquet", file(700..800)).await;
    store.delete(&Path::from("users/x.parquet")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(rows("lake/users/", 750).await.unwrap(), ["name-750"]);
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_their_turn() {
    use std::io::{Read as _, Write as _};
    let mut settings = config(1);
    settings.connections.max = 1;
    let served = serve_with(lake().await, Freshness::default(), settings);
    served.lookup(ask("lake/users/a.parquet", &[5])).await.unwrap();
    let mut second = std::net::TcpStream::connect(served.running.local_addr()).unwrap();
    second.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    second.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(second.read(&mut [0; 9]).is_err());
    assert_eq!(served.running.metrics().connections_total.get(), 1);
    drop(served.channel);
    second.set_read_timeout(Some(PATIENCE)).unwrap();
    let answered = tokio::task::spawn_blocking(move || second.read(&mut [0; 9]).unwrap());
    assert_eq!(answered.await.unwrap(), 9);
}

#[tokio::test]
async fn errors_name_the_file_and_say_what_to_do() {
    let served = serve().await;
    let failed = async |request: v1::LookupRequest| served.lookup(request).await.unwrap_err();
    let mut misspelt = ask("lake/users/a.parquet", &[1]);
    misspelt.key_column = "idd".to_owned();
    let status = failed(misspelt).await;
    assert_eq!(status.message(), "s3://bucket/users/a.parquet: no column `idd`: did you mean `id`?");
    assert_eq!((status.code(), detail(&status).reason()), (Code::InvalidArgument, Reason::NoSuchColumn));
    let cases = [
        ("lake/none.parquet", Code::NotFound, Reason::NoSuchFile),
        ("lake/nothing/", Code::NotFound, Reason::EmptyPrefix),
        ("lak/users/", Code::NotFound, Reason::NoSuchMount),
        ("lake/../secret", Code::InvalidArgument, Reason::BadPath),
        ("lake/broken/e.parquet", Code::FailedPrecondition, Reason::NotParquet),
    ];
    for (path, code, reason) in cases {
        let status = failed(ask(path, &[1])).await;
        assert_eq!((status.code(), detail(&status).reason()), (code, reason), "{path}: {}", status.message());
    }
    let status = failed(ask("lake/users/a.parquet", &[])).await;
    assert_eq!(detail(&status).reason(), Reason::BadRequest);
    let status = failed(ask("lake/users/a.parquet", &[1; 1_025])).await;
    assert_eq!((status.code(), detail(&status).reason()), (Code::OutOfRange, Reason::TooManyKeys));
    // A broken file is asked for once: that it is broken is remembered for a moment.
    let before = served.origin_calls();
    failed(ask("lake/broken/e.parquet", &[1])).await;
    assert_eq!(served.origin_calls(), before);
}

#[tokio::test]
async fn too_many_candidates_are_counted_in_the_message() {
    let mut settings = config(1);
    settings.lookup.max_candidates = 1;
    let served = serve_with(lake().await, Freshness::default(), settings);
    let status = served.lookup(ask("lake/users/", &[95])).await.unwrap_err();
    assert_eq!((status.code(), detail(&status).reason()), (Code::OutOfRange, Reason::TooManyCandidates));
    assert!(status.message().starts_with("s3://bucket/users/: 2 of 3 files may hold the keys, at most 1 are asked"));
    let mut settings = config(1);
    settings.lookup.max_files = 2;
    let served = serve_with(lake().await, Freshness::default(), settings);
    let status = served.lookup(ask("lake/users/", &[95])).await.unwrap_err();
    assert!(status.message().starts_with("s3://bucket/users/: more than 2 files below this prefix"));
}

#[tokio::test]
async fn a_stream_announces_once_and_answers_each_id() {
    let served = serve().await;
    let (frames, mut replies) = served.stream().await;
    frames.send(frame(1, ask("lake/users/a.parquet", &[1]))).await.unwrap();
    let announce = replies.message().await.unwrap().unwrap();
    assert!(announce.id == 0 && matches!(announce.body, Some(reply_frame::Body::Announce(_))));
    let first = replies.message().await.unwrap().unwrap();
    let Some(reply_frame::Body::Answer(answer)) = first.body else { panic!("{first:?}") };
    assert_eq!((first.id, answer.files[0].compact.is_empty(), answer.files[0].row_number[0]), (1, false, 1));
    // The second answer of the same file and columns needs no announcement.
    frames.send(frame(2, ask("lake/users/a.parquet", &[2]))).await.unwrap();
    let second = replies.message().await.unwrap().unwrap();
    assert!(second.id == 2 && matches!(second.body, Some(reply_frame::Body::Answer(_))));
    frames.send(frame(3, ask("lake/none.parquet", &[2]))).await.unwrap();
    let failed = replies.message().await.unwrap().unwrap();
    let Some(reply_frame::Body::Failure(failure)) = failed.body else { panic!("{failed:?}") };
    assert_eq!(
        (failed.id, failure.code, failure.detail.unwrap().reason()),
        (3, Code::NotFound as i32, Reason::NoSuchFile)
    );
    drop(frames);
    assert!(replies.message().await.unwrap().is_none());
}

/// The next reply of a stream that is more than an announcement: its id, and why it failed if it did.
async fn outcome(replies: &mut Streaming<v1::ReplyFrame>) -> (u64, Option<Reason>) {
    loop {
        let reply = replies.message().await.unwrap().unwrap();
        match reply.body.unwrap() {
            reply_frame::Body::Announce(_) | reply_frame::Body::Part(_) => {}
            reply_frame::Body::Answer(_) => return (reply.id, None),
            reply_frame::Body::Failure(failure) => return (reply.id, Some(failure.detail.unwrap().reason())),
            reply_frame::Body::Batch(batch) => panic!("{batch:?}"),
        }
    }
}

#[tokio::test]
async fn requests_of_a_stream_are_cancelled_timed_out_and_refused_one_by_one() {
    let (served, origin) = gated(config(1)).await;
    let (frames, mut replies) = served.stream().await;
    let patient = ask("lake/a.parquet", &[1]);
    let hurried = v1::LookupRequest { timeout_us: 100_000, ..patient.clone() };
    let cancel = Some(lookup_frame::Body::Cancel(v1::Cancel {}));
    frames.send(frame(1, patient.clone())).await.unwrap();
    frames.send(frame(1, patient.clone())).await.unwrap();
    assert_eq!(outcome(&mut replies).await, (1, Some(Reason::BadRequest)));
    frames.send(frame(2, patient.clone())).await.unwrap();
    frames.send(v1::LookupFrame { id: 2, body: cancel }).await.unwrap();
    assert_eq!(outcome(&mut replies).await, (2, Some(Reason::Cancelled)));
    frames.send(frame(3, hurried)).await.unwrap();
    assert_eq!(outcome(&mut replies).await, (3, Some(Reason::Deadline)));
    origin.open();
    assert_eq!(outcome(&mut replies).await, (1, None));
    // Those who left did not break off the shared opening, and did not repeat it.
    assert_eq!(served.origin_calls(), (1, 0, 0));
}

#[tokio::test]
async fn a_drain_answers_what_is_under_way_and_ends_streams() {
    let (served, origin) = gated(config(2)).await;
    let (frames, mut replies) = served.stream().await;
    frames.send(frame(7, ask("lake/a.parquet", &[1]))).await.unwrap();
    eventually(|| served.running.metrics().lookups_in_flight.get() > 0).await;
    let address = served.running.local_addr();
    let shutdown = tokio::spawn(served.running.shutdown(PATIENCE));
    // It drains before the answer can be given.
    eventually(|| std::net::TcpStream::connect(address).is_err()).await;
    origin.open();
    let mut answered = Vec::new();
    while let Some(reply) = replies.message().await.unwrap() {
        if let Some(reply_frame::Body::Answer(_)) = reply.body {
            answered.push(reply.id);
        }
    }
    assert_eq!(answered, [7]);
    drop(frames);
    shutdown.await.unwrap();
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[tokio::test]
async fn files_are_stated_listed_and_read() {
    let served = serve().await;
    let mut client = FileServiceClient::new(served.channel.clone());
    let stat = async |client: &mut FileServiceClient<Channel>, path: &str| {
        let request = v1::StatRequest { path: path.to_owned(), timeout_us: 0 };
        client.stat(request).await.map(|found| found.into_inner().file.unwrap())
    };
    let file = stat(&mut client, "lake/users/a.parquet").await.unwrap();
    assert_eq!((file.url.as_str(), file.parquet.is_none()), ("s3://bucket/users/a.parquet", true));
    served.lookup(ask("lake/users/a.parquet", &[1])).await.unwrap();
    let opened = stat(&mut client, "lake/users/a.parquet").await.unwrap().parquet.unwrap();
    assert_eq!((opened.rows, opened.row_groups, opened.columns), (100, 1, 2));
    let list = async |client: &mut FileServiceClient<Channel>, recursive, limit| {
        let request = v1::ListRequest { path: "lake/users/".to_owned(), recursive, limit, timeout_us: 0 };
        client.list(request).await.unwrap().into_inner().message().await.unwrap().unwrap()
    };
    let urls = |listed: &v1::ListResponse| listed.entries.iter().map(|entry| entry.url.clone()).collect::<Vec<_>>();
    let level = list(&mut client, false, 0).await;
    assert!(urls(&level).contains(&"s3://bucket/users/sub/".to_owned()) && !level.truncated);
    assert_eq!(list(&mut client, true, 0).await.entries.len(), 6);
    let cut = list(&mut client, true, 2).await;
    assert!(cut.entries.len() == 2 && cut.truncated);
    let read = async |client: &mut FileServiceClient<Channel>, offset, length, version: &str| {
        let (path, version) = ("lake/users/readme.txt".to_owned(), version.to_owned());
        let request = v1::ReadRequest { path, offset, length, version, timeout_us: 0 };
        let mut chunks = client.read(request).await?.into_inner();
        let mut data = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            assert_eq!(chunk.file.is_some(), data.is_empty());
            data.extend_from_slice(&chunk.data);
        }
        Ok::<_, Status>(data)
    };
    assert_eq!(read(&mut client, 0, 0, "").await.unwrap(), b"hello");
    assert_eq!(read(&mut client, 1, 3, "").await.unwrap(), b"ell");
    assert_eq!(read(&mut client, 5, 0, "").await.unwrap(), b"");
    assert_eq!(read(&mut client, 6, 0, "").await.unwrap_err().code(), Code::InvalidArgument);
    let gone = read(&mut client, 0, 0, "e:other").await.unwrap_err();
    assert_eq!((gone.code(), detail(&gone).reason()), (Code::FailedPrecondition, Reason::VersionChanged));
}

#[tokio::test]
async fn a_large_file_is_read_in_chunks_that_are_whole() {
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 3) as u8).collect();
    let store = Arc::new(InMemory::new());
    put(store.as_ref(), "big.bin", bytes.clone()).await;
    let served = serve_with(store, Freshness::Immutable, config(1));
    let mut client = FileServiceClient::new(served.channel.clone());
    for gets in [3, 3] {
        let request = v1::ReadRequest { path: "lake/big.bin".to_owned(), ..v1::ReadRequest::default() };
        let mut chunks = client.read(request).await.unwrap().into_inner();
        let mut data = Vec::new();
        while let Some(chunk) = chunks.message().await.unwrap() {
            assert!(chunk.data.len() <= 256 << 10);
            data.extend_from_slice(&chunk.data);
        }
        assert!(data == bytes);
        assert_eq!(served.origin_calls(), (gets, 1, 0));
    }
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let mut settings = config(1);
    settings.listen = listen;
    let refused = Worker::start(settings).unwrap_err();
    assert!(matches!(refused, StartError::Listen { .. }));
    assert_eq!(
        refused.to_string(),
        format!(
            "cannot listen on {listen}: address already in use: another worker may be running; choose another [listen]"
        )
    );
}
