//! A worker that does what a test says: a real gRPC server on a thread and runtime of its own, so that killing it
//! closes every socket, as the end of a process does.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alcedo_client::{Client, Value};
use alcedo_proto::v1 as pb;
use pb::cluster_service_server::{ClusterService, ClusterServiceServer};
use pb::file_service_server::{FileService, FileServiceServer};
use pb::lookup_service_server::{LookupService, LookupServiceServer};
use pb::{lookup_frame, reply_frame};
use tokio::net::TcpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

/// Longer than any test takes on the busiest machine; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Unary = Box<dyn Fn(pb::LookupRequest) -> Result<pb::LookupResponse, Status> + Send>;

/// What the server answers beside the lookup stream, and what it counts.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) accepted: AtomicUsize,
    pub(crate) cluster_calls: AtomicUsize,
    pub(crate) cluster: Mutex<pb::ClusterResponse>,
    pub(crate) refuse_stream: Mutex<Option<Status>>,
    pub(crate) unary: Mutex<Option<Unary>>,
    pub(crate) stat: Mutex<Option<Result<pb::StatResponse, Status>>>,
    pub(crate) list: Mutex<Vec<Result<pb::ListResponse, Status>>>,
    pub(crate) read: Mutex<Vec<Result<pb::ReadResponse, Status>>>,
    pub(crate) reads: Mutex<Vec<pb::ReadRequest>>,
}

/// A running server.
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) script: Arc<Script>,
    sessions: mpsc::UnboundedReceiver<Session>,
    lanes: mpsc::UnboundedReceiver<std::net::TcpStream>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    /// Its address, which nobody else gets while it is down.
    _place: TcpSocket,
}

/// One lookup stream that a client opened. Dropping it ends the stream as draining does: cleanly.
pub(crate) struct Session {
    frames: Streaming<pb::LookupFrame>,
    replies: mpsc::Sender<Result<pb::ReplyFrame, Status>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0")
    }

    pub(crate) fn start_at(address: &str) -> Self {
        let script = Arc::new(Script::default());
        let place = taken(address.parse().unwrap());
        let address = place.local_addr().unwrap();
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (opened, sessions) = mpsc::unbounded_channel();
        let (framed, lanes) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let service = Service { script: Arc::clone(&script), opened, framed };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                tokio::select! {
                    () = serve(listener, service) => {}
                    _ = stopped => {}
                }
            });
        });
        let address = address.to_string();
        Self { address, script, sessions, lanes, stop: Some(stop), thread: Some(thread), _place: place }
    }

    pub(crate) fn client(&self) -> Client {
        client(&[self])
    }

    /// The next lookup stream that a client opens.
    pub(crate) async fn session(&mut self) -> Session {
        tokio::time::timeout(PATIENCE, self.sessions.recv()).await.expect("no lookup stream was opened").unwrap()
    }

    /// The next connection that does not begin as HTTP/2 does; nothing was read from it.
    pub(crate) async fn lane(&mut self) -> std::net::TcpStream {
        tokio::time::timeout(PATIENCE, self.lanes.recv()).await.expect("no connection of frames was opened").unwrap()
    }

    /// Whether such a connection was opened that nobody took.
    pub(crate) fn has_lane(&mut self) -> bool {
        self.lanes.try_recv().is_ok()
    }

    /// All lookup streams from now on.
    pub(crate) fn take_sessions(&mut self) -> mpsc::UnboundedReceiver<Session> {
        std::mem::replace(&mut self.sessions, mpsc::unbounded_channel().1)
    }

    pub(crate) fn accepted(&self) -> usize {
        self.script.accepted.load(Ordering::SeqCst)
    }

    pub(crate) fn cluster_calls(&self) -> usize {
        self.script.cluster_calls.load(Ordering::SeqCst)
    }

    /// Ends the server and closes all its sockets.
    pub(crate) fn kill(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn client(servers: &[&Server]) -> Client {
    let endpoints: Vec<&str> = servers.iter().map(|server| server.address.as_str()).collect();
    Client::builder().endpoints(endpoints).deadline(PATIENCE).build().unwrap()
}

/// An address at which nobody listens, also later: it stays taken as long as the test program runs, so that no server
/// of another test comes to be there.
pub(crate) fn dead_address() -> SocketAddr {
    static TAKEN: Mutex<Vec<TcpSocket>> = Mutex::new(Vec::new());
    let place = taken("127.0.0.1:0".parse().unwrap());
    let address = place.local_addr().unwrap();
    TAKEN.lock().unwrap().push(place);
    address
}

/// An address that the system gives to nobody who asks for any. Connections to it are refused, unless somebody listens
/// there who asked for this very one.
fn taken(address: SocketAddr) -> TcpSocket {
    let place = TcpSocket::new_v4().unwrap();
    place.set_reuseaddr(true).unwrap();
    place.bind(address).unwrap();
    place
}

impl Session {
    /// The next frame of the client.
    pub(crate) async fn frame(&mut self) -> pb::LookupFrame {
        let frame = tokio::time::timeout(PATIENCE, self.frames.message()).await.expect("no frame came");
        frame.unwrap().expect("the client ended the stream")
    }

    /// Waits for the client to let go of the stream.
    pub(crate) async fn is_reset(&mut self) -> bool {
        let frame = tokio::time::timeout(PATIENCE, self.frames.message()).await.expect("the stream is still open");
        !matches!(frame, Ok(Some(_)))
    }

    /// The next frame, `None` when the client has let go of the stream.
    pub(crate) async fn next_frame(&mut self) -> Option<pb::LookupFrame> {
        self.frames.message().await.ok().flatten()
    }

    /// The next request, `None` when the client has let go of the stream. Cancels are skipped.
    pub(crate) async fn next_request(&mut self) -> Option<(u64, pb::LookupRequest)> {
        while let Ok(Some(frame)) = self.frames.message().await {
            if let Some(lookup_frame::Body::Request(request)) = frame.body {
                return Some((frame.id, request));
            }
        }
        None
    }

    /// The next frame, which must be a request.
    pub(crate) async fn request(&mut self) -> (u64, pb::LookupRequest) {
        let frame = self.frame().await;
        match frame.body {
            Some(lookup_frame::Body::Request(request)) => (frame.id, request),
            other => panic!("not a request: {other:?}"),
        }
    }

    /// The next frame, which must be a cancel.
    pub(crate) async fn cancel(&mut self) -> u64 {
        let frame = self.frame().await;
        assert_eq!(frame.body, Some(lookup_frame::Body::Cancel(pb::Cancel {})));
        frame.id
    }

    pub(crate) async fn reply(&self, id: u64, body: reply_frame::Body) {
        self.replies.send(Ok(pb::ReplyFrame { id, body: Some(body) })).await.unwrap();
    }

    pub(crate) async fn announce(&self, files: Vec<pb::FileVersion>) {
        let announce = pb::Announce { files, schemas: vec![schema()] };
        self.reply(0, reply_frame::Body::Announce(announce)).await;
    }

    pub(crate) async fn answer(&self, id: u64, answer: pb::Answer) {
        self.reply(id, reply_frame::Body::Answer(answer)).await;
    }

    /// Answers with a kind of reply that does not exist yet.
    pub(crate) async fn unknown_reply(&self, id: u64) {
        self.replies.send(Ok(pb::ReplyFrame { id, body: None })).await.unwrap();
    }

    /// Ends the stream with a status.
    pub(crate) async fn end(self, status: Status) {
        self.replies.send(Err(status)).await.unwrap();
    }
}

/// Schema handle 1: one int64 column `v`.
pub(crate) fn schema() -> pb::SchemaHandle {
    let columns = vec![pb::Column { name: "v".into(), r#type: "int64".into() }];
    pb::SchemaHandle { handle: 1, schema: Some(pb::RowSchema { columns }) }
}

pub(crate) fn file(handle: u32, url: &str, version: &str) -> pb::FileVersion {
    pb::FileVersion { handle, url: url.into(), version: version.into(), size_bytes: 4_096 }
}

/// Rows of file handle `file` in compact form: (key index, row number, value).
pub(crate) fn rows(file: u32, rows: &[(u32, u64, i64)]) -> pb::FileRows {
    let mut compact = Vec::new();
    for (_, _, value) in rows {
        compact.extend([9, 0]);
        compact.extend(value.to_le_bytes());
    }
    pb::FileRows {
        file,
        schema: 1,
        key_index: rows.iter().map(|row| row.0).collect(),
        row_number: rows.iter().map(|row| row.1).collect(),
        compact: compact.into(),
        ..Default::default()
    }
}

/// An answer to `keys` keys, all found.
pub(crate) fn answer(keys: usize, files: Vec<pb::FileRows>) -> pb::Answer {
    let statuses = vec![pb::KeyStatus::Found.into(); keys];
    pb::Answer {
        files,
        statuses,
        source: pb::Source::Memory.into(),
        files_total: 1,
        files_asked: 1,
        ..Default::default()
    }
}

/// An answer that holds the request's first key as its only value, in row 0 of file handle 1.
pub(crate) fn echo(request: &pb::LookupRequest) -> pb::Answer {
    answer(request.keys.len(), vec![rows(1, &[(0, 0, int_key(&request.keys[0]))])])
}

pub(crate) fn int_key(key: &pb::Key) -> i64 {
    match key.kind {
        Some(pb::key::Kind::Int(value)) => value,
        ref other => panic!("not an int key: {other:?}"),
    }
}

/// The values of an answer with one int64 column.
pub(crate) fn values(answer: &alcedo_client::Answer) -> Vec<i64> {
    let value = |row: &alcedo_client::Row| match row.values.as_slice() {
        [Value::Int(value)] => *value,
        other => panic!("not one int: {other:?}"),
    };
    answer.rows().map(|(_, row)| value(row)).collect()
}

/// Opens the client's stream with one lookup that is answered, and hands the stream out. File handle 1 is announced on
/// it.
pub(crate) async fn opened(server: &mut Server, client: &Client) -> Session {
    let lookup = tokio::spawn(client.lookup("lake/a").key(0).into_future());
    let mut session = server.session().await;
    let (id, request) = session.request().await;
    session.announce(vec![file(1, "s3://lake/a", "v1")]).await;
    session.answer(id, echo(&request)).await;
    lookup.await.unwrap().unwrap();
    session
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct Service {
    script: Arc<Script>,
    opened: mpsc::UnboundedSender<Session>,
    framed: mpsc::UnboundedSender<std::net::TcpStream>,
}

#[derive(Clone)]
struct Shared(Arc<Service>);

async fn serve(listener: std::net::TcpListener, service: Service) {
    let shared = Shared(Arc::new(service));
    let service = Arc::clone(&shared.0);
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let sockets = TcpListenerStream::new(listener).then(move |socket| {
        let service = Arc::clone(&service);
        async move {
            let socket = socket.unwrap();
            // tonic sets this only on sockets that it accepts itself.
            socket.set_nodelay(true).unwrap();
            service.script.accepted.fetch_add(1, Ordering::SeqCst);
            let mut first = [0];
            if socket.peek(&mut first).await.is_ok_and(|read| read > 0) && first != *b"P" {
                service.script.accepted.fetch_sub(1, Ordering::SeqCst);
                // An error means that the test is over.
                let _ = service.framed.send(socket.into_std().unwrap());
                return None;
            }
            Some(Ok::<_, std::io::Error>(socket))
        }
    });
    let sockets = sockets.filter_map(|socket| socket);
    tonic::transport::Server::builder()
        .add_service(LookupServiceServer::new(shared.clone()))
        .add_service(ClusterServiceServer::new(shared.clone()))
        .add_service(FileServiceServer::new(shared))
        .serve_with_incoming(sockets)
        .await
        .unwrap();
}

#[tonic::async_trait]
impl LookupService for Shared {
    type LookupStreamStream = Boxed<pb::ReplyFrame>;

    async fn lookup(&self, request: Request<pb::LookupRequest>) -> Result<Response<pb::LookupResponse>, Status> {
        let unary = self.0.script.unary.lock().unwrap();
        let unary = unary.as_ref().ok_or_else(|| Status::unimplemented("no unary lookups in this script"))?;
        unary(request.into_inner()).map(Response::new)
    }

    async fn lookup_stream(
        &self,
        request: Request<Streaming<pb::LookupFrame>>,
    ) -> Result<Response<Self::LookupStreamStream>, Status> {
        if let Some(status) = self.0.script.refuse_stream.lock().unwrap().clone() {
            return Err(status);
        }
        let (replies, stream) = mpsc::channel(16);
        let session = Session { frames: request.into_inner(), replies };
        self.0.opened.send(session).map_err(|_| Status::internal("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

#[tonic::async_trait]
impl ClusterService for Shared {
    async fn cluster(&self, _: Request<pb::ClusterRequest>) -> Result<Response<pb::ClusterResponse>, Status> {
        self.0.script.cluster_calls.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(self.0.script.cluster.lock().unwrap().clone()))
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let status = pb::StatusResponse { worker_id: "scripted".into(), lookups_total: 7, ..Default::default() };
        Ok(Response::new(status))
    }
}

#[tonic::async_trait]
impl FileService for Shared {
    type ListStream = Boxed<pb::ListResponse>;
    type ReadStream = Boxed<pb::ReadResponse>;
    type CheckStream = Boxed<pb::CheckResponse>;

    async fn stat(&self, _: Request<pb::StatRequest>) -> Result<Response<pb::StatResponse>, Status> {
        self.0.script.stat.lock().unwrap().clone().expect("no stat in this script").map(Response::new)
    }

    async fn list(&self, _: Request<pb::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let pages = self.0.script.list.lock().unwrap().clone();
        Ok(Response::new(Box::pin(tokio_stream::iter(pages))))
    }

    async fn read(&self, request: Request<pb::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        self.0.script.reads.lock().unwrap().push(request.into_inner());
        let chunks = self.0.script.read.lock().unwrap().clone();
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn check(&self, _: Request<pb::CheckRequest>) -> Result<Response<Self::CheckStream>, Status> {
        let holding = pb::Holding { url: "s3://lake/a".into(), size_bytes: 9, cached_bytes: 4, ..Default::default() };
        let pages = [false, true].map(|truncated| Ok(pb::CheckResponse { holdings: vec![holding.clone()], truncated }));
        Ok(Response::new(Box::pin(tokio_stream::iter(pages))))
    }

    async fn free(&self, _: Request<pb::FreeRequest>) -> Result<Response<pb::FreeResponse>, Status> {
        Ok(Response::new(pb::FreeResponse { files: 2, freed_bytes: 13, ..Default::default() }))
    }

    type PinStream = Boxed<pb::PinResponse>;
    type PinsStream = Boxed<pb::PinsResponse>;

    async fn pin(&self, request: Request<pb::PinRequest>) -> Result<Response<Self::PinStream>, Status> {
        let entry =
            |thing| pb::PinEntry { url: "s3://lake/a".into(), thing: Some(thing), state: 1, ..Default::default() };
        // One message each.
        let pages = request.into_inner().things.into_iter().map(entry);
        let pages: Vec<_> = pages.map(|entry| Ok(pb::PinResponse { entries: vec![entry] })).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(pages))))
    }

    async fn unpin(&self, _: Request<pb::UnpinRequest>) -> Result<Response<pb::UnpinResponse>, Status> {
        Ok(Response::new(pb::UnpinResponse { pins: 1, files: 2, freed_bytes: 13 }))
    }

    async fn pins(&self, request: Request<pb::PinsRequest>) -> Result<Response<Self::PinsStream>, Status> {
        let kind = if request.into_inner().path == "lake/newer" { 99 } else { 1 };
        let thing = || pb::PinThing { kind, column: String::new() };
        let entry = |url: &str| pb::PinEntry { url: url.into(), thing: Some(thing()), state: 3, ..Default::default() };
        let pin = |url: &str, entries| pb::PinInfo { url: url.into(), things: vec![thing()], entries };
        let page = |pins| Ok(pb::PinsResponse { pins, held_bytes: 5, capacity_bytes: 7 });
        let first = page(vec![pin("s3://lake/a", vec![]), pin("s3://lake/b", vec![entry("s3://lake/b/1")])]);
        let second = page(vec![pin("s3://lake/b", vec![entry("s3://lake/b/2")]), pin("s3://lake/c", vec![])]);
        Ok(Response::new(Box::pin(tokio_stream::iter([first, second]))))
    }
}
