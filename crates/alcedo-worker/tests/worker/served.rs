//! A worker over an in-memory store, and a small table in it, as the tests ask them.

use alcedo_origin::{Freshness, Mount, Mounts, OriginLimits};
use alcedo_proto::v1::lookup_service_client::LookupServiceClient;
use alcedo_proto::v1::{self, key, lookup_frame, value};
use alcedo_worker::{Config, Running, Worker};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt as _,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parquet::arrow::ArrowWriter;
use prost::Message as _;
use std::fmt;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// Longest wait for what must come, on a machine that is busy with much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

/// A store that answers no read while its gate is closed.
#[derive(Debug)]
pub(crate) struct Gated {
    files: InMemory,
    is_open: watch::Sender<bool>,
}

impl Gated {
    pub(crate) fn open(&self) {
        self.is_open.send_replace(true);
    }
}

impl fmt::Display for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("gated")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Gated {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.files.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(&self, at: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.files.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.is_open.subscribe().wait_for(|is_open| *is_open).await.unwrap();
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

/// A Parquet file with the ids of a range, which it declares to be sorted, and a name for each.
pub(crate) fn file(ids: std::ops::Range<i64>) -> Vec<u8> {
    let names: StringArray = ids.clone().map(|id| Some(format!("name-{id}"))).collect();
    let columns =
        [("id", Arc::new(Int64Array::from_iter_values(ids)) as ArrayRef), ("name", Arc::new(names) as ArrayRef)];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

pub(crate) async fn put(store: &dyn ObjectStore, path: &str, bytes: Vec<u8>) {
    store.put(&Path::from(path), bytes.into()).await.unwrap();
}

/// Three files of one table with overlapping ids, beside what is no part of it.
pub(crate) async fn lake() -> Arc<InMemory> {
    let store = Arc::new(InMemory::new());
    put(store.as_ref(), "users/a.parquet", file(0..100)).await;
    put(store.as_ref(), "users/b.parquet", file(90..200)).await;
    put(store.as_ref(), "users/sub/c.parquet", file(200..300)).await;
    put(store.as_ref(), "users/_SUCCESS", Vec::new()).await;
    put(store.as_ref(), "users/_temporary/d.parquet", b"half".to_vec()).await;
    put(store.as_ref(), "users/readme.txt", b"hello".to_vec()).await;
    put(store.as_ref(), "broken/e.parquet", b"this is no Parquet file".to_vec()).await;
    store
}

pub(crate) struct Served {
    pub(crate) running: Running,
    pub(crate) channel: Channel,
    pub(crate) mounts: Mounts,
}

pub(crate) fn serve_with(store: Arc<dyn ObjectStore>, freshness: Freshness, config: Config) -> Served {
    serve_within(store, freshness, config, OriginLimits::default())
}

/// A worker over a file `a.parquet` whose origin answers while its gate is open, and waits for it otherwise.
pub(crate) async fn gated(config: Config) -> (Served, Arc<Gated>) {
    let store = Arc::new(Gated { files: InMemory::new(), is_open: watch::Sender::new(false) });
    put(store.as_ref(), "a.parquet", file(0..100)).await;
    // However long the gate is closed, a read is tried once.
    let limits = OriginLimits { attempt_timeout: LONG, ..OriginLimits::default() };
    (serve_within(store.clone(), Freshness::default(), config, limits), store)
}

fn serve_within(store: Arc<dyn ObjectStore>, freshness: Freshness, config: Config, limits: OriginLimits) -> Served {
    let mount = Mount::with_store("lake", "s3://bucket", store, freshness, limits).unwrap();
    let mounts = Mounts::from_mounts(vec![mount]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let running = Worker::with_mounts(config, mounts.clone(), listener).unwrap();
    let address = format!("http://{}", running.local_addr());
    let channel = Endpoint::from_shared(address).unwrap().connect_lazy();
    Served { running, channel, mounts }
}

/// Waits for what happens behind a call's back.
pub(crate) async fn eventually(happened: impl Fn() -> bool) {
    let waiting = async {
        while !happened() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it never happens");
}

/// Settings under which nothing fails because the machine is busy: a lookup has all the time that it needs.
pub(crate) fn config(runtimes: usize) -> Config {
    let mut config = Config::default();
    (config.runtimes, config.lookup.default_timeout) = (runtimes, LONG);
    (config.lookup.max_timeout, config.connections.idle_timeout) = (LONG, LONG);
    config
}

/// The same, with what this says of them.
pub(crate) fn read(toml: &str) -> Config {
    let mut config = Config::from_toml(&format!("runtimes = 2\n{toml}"), "worker.toml").unwrap();
    if !toml.contains("idle_timeout") {
        config.connections.idle_timeout = LONG;
    }
    if !toml.contains("max_timeout") {
        config.lookup.max_timeout = LONG.min(config.connections.idle_timeout);
    }
    if !toml.contains("default_timeout") {
        config.lookup.default_timeout = config.lookup.max_timeout;
    }
    config
}

pub(crate) async fn serve() -> Served {
    serve_with(lake().await, Freshness::default(), config(2))
}

impl Served {
    /// GETs, HEADs and listings that the origin was asked so far.
    pub(crate) fn origin_calls(&self) -> (u64, u64, u64) {
        let counts = self.mounts.get("lake").unwrap().counts();
        (counts.gets, counts.heads, counts.lists)
    }

    pub(crate) async fn lookup(&self, request: v1::LookupRequest) -> Result<v1::LookupResponse, Status> {
        let answer = LookupServiceClient::new(self.channel.clone()).lookup(request).await;
        answer.map(tonic::Response::into_inner)
    }

    pub(crate) async fn stream(&self) -> (mpsc::Sender<v1::LookupFrame>, Streaming<v1::ReplyFrame>) {
        let (frames, receiver) = mpsc::channel(64);
        let mut client = LookupServiceClient::new(self.channel.clone());
        let replies = client.lookup_stream(ReceiverStream::new(receiver)).await.unwrap();
        (frames, replies.into_inner())
    }
}

pub(crate) fn ask(path: &str, keys: &[i64]) -> v1::LookupRequest {
    let keys = keys.iter().map(|key| v1::Key { kind: Some(key::Kind::Int(*key)) }).collect();
    v1::LookupRequest { path: path.to_owned(), key_column: "id".to_owned(), keys, ..v1::LookupRequest::default() }
}

pub(crate) fn frame(id: u64, request: v1::LookupRequest) -> v1::LookupFrame {
    v1::LookupFrame { id, body: Some(lookup_frame::Body::Request(request)) }
}

pub(crate) fn names(answer: &v1::Answer) -> Vec<String> {
    let rows = answer.files.iter().flat_map(|file| &file.typed);
    rows.map(|row| match row.values[1].kind.as_ref().unwrap() {
        value::Kind::String(name) => name.clone(),
        other => panic!("{other:?}"),
    })
    .collect()
}

/// `google.rpc.Status`, as any client of the details reads it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(message, repeated, tag = "3")]
    pub(crate) details: Vec<prost_types::Any>,
}

pub(crate) fn detail(status: &Status) -> v1::ErrorDetail {
    let decoded = RpcStatus::decode(status.details()).unwrap();
    assert_eq!(decoded.code, status.code() as i32);
    v1::ErrorDetail::decode(decoded.details[0].value.as_slice()).unwrap()
}
