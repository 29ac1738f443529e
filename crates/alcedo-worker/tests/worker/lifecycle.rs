//! How a worker proves that it serves, follows its members, takes other settings, and leaves.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alcedo_origin::Freshness;
use alcedo_proto::v1;
use alcedo_proto::v1::cluster_service_client::ClusterServiceClient;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use tonic::Code;

use crate::served::*;

/// A store that blocks the thread which asks it, as a defect would, for as long as the gate is closed.
#[derive(Debug)]
struct Blocking {
    files: InMemory,
    gate: Arc<Mutex<()>>,
    /// It is being asked: the thread that does is blocked now, unless the gate is open.
    is_asked: Arc<AtomicBool>,
}

impl fmt::Display for Blocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("blocking")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Blocking {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.files.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(&self, at: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.files.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.is_asked.store(true, Ordering::SeqCst);
        drop(self.gate.lock().unwrap());
        self.files.get_opts(at, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn the_watchdog_looks_a_row_up_that_no_client_can_reach_and_counts_nothing() {
    let served = serve().await;
    let watchdog = served.running.watchdog();
    for _ in 0..3 {
        watchdog.look(PATIENCE).await.unwrap();
    }
    let metrics = served.running.metrics();
    assert_eq!((metrics.lookups_total.get(), metrics.connections_total.get(), metrics.connections.get()), (0, 0, 0));
    let refused = served.lookup(ask("built-in/one_row.parquet", &[1])).await.unwrap_err();
    assert_eq!((refused.code(), detail(&refused).reason()), (Code::NotFound, v1::Reason::NoSuchMount));
    let refused = served.lookup(ask("file:///built-in/one_row.parquet", &[1])).await.unwrap_err();
    assert_eq!(detail(&refused).reason(), v1::Reason::NoSuchMount);
    let mut client = ClusterServiceClient::new(served.channel.clone());
    let cluster = client.cluster(v1::ClusterRequest {}).await.unwrap().into_inner();
    assert_eq!(cluster.mounts.iter().map(|mount| mount.name.as_str()).collect::<Vec<_>>(), ["lake"]);
}

// The lock is what blocks a serving thread while this one goes on.
#[allow(clippy::await_holding_lock)]
#[tokio::test]
async fn a_serving_thread_that_hangs_does_not_feed_the_watchdog() {
    let (gate, is_asked) = (Arc::new(Mutex::new(())), Arc::new(AtomicBool::new(false)));
    let store = Blocking { files: InMemory::new(), gate: Arc::clone(&gate), is_asked: Arc::clone(&is_asked) };
    put(&store, "a.parquet", file(0..10)).await;
    let served = serve_with(Arc::new(store), Freshness::default(), config(2));
    let watchdog = served.running.watchdog();
    watchdog.look(PATIENCE).await.unwrap();
    let closed = gate.lock().unwrap();
    let hanging = tokio::spawn({
        let mut client = v1::lookup_service_client::LookupServiceClient::new(served.channel.clone());
        async move { client.lookup(ask("lake/a.parquet", &[1])).await }
    });
    eventually(|| is_asked.load(Ordering::SeqCst)).await;
    // The other thread answers; that is not enough.
    let fed = AtomicU32::new(0);
    let feed = || {
        fed.fetch_add(1, Ordering::Relaxed);
    };
    let run = watchdog.run(Duration::from_millis(200), feed);
    assert!(tokio::time::timeout(Duration::from_millis(700), run).await.is_err());
    assert_eq!(fed.load(Ordering::Relaxed), 0);
    let unproven = watchdog.look(Duration::from_millis(200)).await.unwrap_err();
    assert!(unproven.to_string().contains("no answer within"), "{unproven}");
    drop(closed);
    hanging.await.unwrap().unwrap();
    watchdog.look(PATIENCE).await.unwrap();
    tokio::select! {
        () = watchdog.run(PATIENCE, feed) => panic!("it goes on as long as it is polled"),
        () = eventually(|| fed.load(Ordering::Relaxed) > 0) => {}
    }
}

#[tokio::test]
async fn a_members_file_is_followed_and_a_broken_one_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("members");
    let write = |text: &str| {
        let aside = directory.path().join("new");
        std::fs::write(&aside, text).unwrap();
        std::fs::rename(aside, &path).unwrap();
    };
    write("worker=127.0.0.1:1\n");
    let settings = read(&format!("members_file = \"{}\"\n", path.display()));
    let served = serve_with(lake().await, Freshness::default(), settings);
    let view = async || {
        let mut client = ClusterServiceClient::new(served.channel.clone());
        let cluster = client.cluster(v1::ClusterRequest {}).await.unwrap().into_inner();
        (cluster.members.len(), cluster.ring.unwrap().epoch)
    };
    let (alone, before) = view().await;
    assert_eq!(alone, 1);
    // Not being a member is legal; the worker answers all the same.
    write("other=127.0.0.1:2\nthird=127.0.0.1:3\n");
    while view().await.0 != 2 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (_, after) = view().await;
    assert_ne!(before, after);
    let answer = served.lookup(ask("lake/users/a.parquet", &[7])).await.unwrap().answer.unwrap();
    assert_eq!((names(&answer), answer.ring_epoch), (vec!["name-7".to_owned()], after));
    write("other=127.0.0.1:2\nother=127.0.0.1:3\n");
    eventually(|| served.running.metrics().members_errors_total.get() > 0).await;
    assert_eq!(view().await, (2, after));
    let errors = served.running.metrics().members_errors_total.get();
    write("");
    eventually(|| served.running.metrics().members_errors_total.get() > errors).await;
    assert_eq!(view().await, (2, after));
}

#[tokio::test]
async fn a_reload_is_taken_as_a_whole_or_not_at_all() {
    let (served, origin) = gated(read("")).await;
    let refused = read("members = [\"a=h:1\"]\nmembers_file = \"m\"\n[lookup]\nmax_timeout = \"1s\"\n");
    let why = served.running.reload(refused).unwrap_err().to_string();
    assert!(why.contains("exclude each other"), "{why}");
    let taken = "members = [\"a=h:1\", \"b=h:2\"]\n[lookup]\ndefault_timeout = \"50ms\"\npermits = 7\n";
    let reloaded = served.running.reload(read(taken)).unwrap();
    assert_eq!((reloaded.taken, reloaded.restart), (vec!["members", "lookup.default_timeout"], vec!["lookup.permits"]));
    let late = served.lookup(ask("lake/a.parquet", &[1])).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    // One that has its own time takes it.
    origin.open();
    let patient = v1::LookupRequest { timeout_us: 60_000_000, ..ask("lake/a.parquet", &[1]) };
    served.lookup(patient).await.unwrap();
    let mut client = ClusterServiceClient::new(served.channel.clone());
    assert_eq!(client.cluster(v1::ClusterRequest {}).await.unwrap().into_inner().members.len(), 2);
    let metrics = served.running.metrics();
    assert_eq!((metrics.reloads_total.get(), metrics.reloads_refused_total.get()), (2, 1));
}

#[tokio::test]
async fn a_member_that_leaves_says_so_and_serves_for_the_notice() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;
    let settings = read("members = [\"worker=127.0.0.1:1\", \"other=127.0.0.1:2\"]\n[drain]\nnotice = \"8s\"\n");
    let served = serve_with(lake().await, Freshness::default(), settings);
    served.lookup(ask("lake/users/a.parquet", &[1])).await.unwrap();
    let channel = served.channel.clone();
    let drained = tokio::spawn(served.running.drain());
    let health = async || {
        let request = tonic_health::pb::HealthCheckRequest { service: String::new() };
        HealthClient::new(channel.clone()).check(request).await.unwrap().into_inner().status()
    };
    while health().await != ServingStatus::NotServing {
        tokio::task::yield_now().await;
    }
    let mut client = v1::lookup_service_client::LookupServiceClient::new(channel.clone());
    client.lookup(ask("lake/users/a.parquet", &[2])).await.unwrap();
    let status = ClusterServiceClient::new(channel.clone()).status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert!(status.draining && !status.ready);
    drained.await.unwrap();
    client.lookup(ask("lake/users/a.parquet", &[3])).await.unwrap_err();
}

#[tokio::test]
async fn who_leaves_while_serving_threads_still_begin_is_not_serving() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;
    let lake = lake().await;
    for _ in 0..20 {
        let mut settings =
            read("members = [\"worker=127.0.0.1:1\", \"other=127.0.0.1:2\"]\n[drain]\nnotice = \"60s\"\n");
        settings.runtimes = 8;
        let served = serve_with(lake.clone(), Freshness::default(), settings);
        let channel = served.channel.clone();
        let drain = tokio::spawn(served.running.drain());
        let health = async || {
            let request = tonic_health::pb::HealthCheckRequest { service: String::new() };
            HealthClient::new(channel.clone()).check(request).await.unwrap().into_inner().status()
        };
        while health().await != ServingStatus::NotServing {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for _ in 0..20 {
            assert_eq!(health().await, ServingStatus::NotServing);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drain.abort();
    }
}
