//! The server itself: a thread with a runtime of its own, and the handle that tests hold.
//!
//! It knows threads, sockets and the way of one request. It must not know what a dialect means. A thread of its own,
//! because a test may run on any runtime or none, may stop its clock, and must not starve the store it talks to.

use std::fs::File;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::serve::ListenerExt;
use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use super::auth::AccessKey;
use super::call::{AZURE_ACCOUNT, Call, Dialect};
use super::content::Answer;
use super::faults::{Fault, Faults};
use super::log::{Counters, Log, Operation, RequestRecord};
use super::objects::Objects;
use super::refusal::{Refusal, insert};
use super::{amazon, azure};

/// Most entries that S3 puts on one page of a listing.
const LIST_PAGE_SIZE: usize = 1_000;

/// Largest object that a client may put; larger ones come from disk, by [`S3Server::put_file`].
const MAX_PUT_BYTES: usize = 256 * 1024 * 1024;

/// Latencies from this on are there to let others go first, and are made of short waits. Shorter ones are a store's
/// own, and exact.
const LONG_LATENCY: Duration = Duration::from_millis(200);
const TICK: Duration = Duration::from_millis(20);

/// How a server is started.
#[derive(Clone, Debug)]
pub struct S3Options {
    /// How long every answer waits before its first byte.
    pub latency: Duration,
    /// Where to listen; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Access key id and secret; none lets everybody in. S3 requests must be signed with them (Signature Version 4); of
    /// Azure's `SharedKey` only the account is compared, with the id; Google's `Bearer` token must be the secret.
    pub access_key: Option<(String, String)>,
    /// Most entries on one page of a listing, 1 to 1,000; tests take few to see paging with few objects.
    pub list_page_size: usize,
}

impl Default for S3Options {
    /// Loopback, a free port, no latency, anonymous.
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            access_key: None,
            list_page_size: LIST_PAGE_SIZE,
        }
    }
}

/// What the handle and the requests share.
struct Shared {
    objects: Objects,
    faults: Faults,
    log: Log,
    latency: Mutex<Duration>,
    access_key: Option<AccessKey>,
    list_page_size: usize,
    requests: AtomicU64,
}

/// A running server. Dropping it closes all connections and waits for its thread.
pub struct S3Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl S3Server {
    /// Starts a server that serves no bucket yet; it answers when this returns.
    ///
    /// # Errors
    /// When the address cannot be bound, when an option is out of its range, or when the system gives no thread.
    pub fn start(options: S3Options) -> anyhow::Result<Self> {
        if !(1..=LIST_PAGE_SIZE).contains(&options.list_page_size) {
            bail!("a listing's page has 1 to {LIST_PAGE_SIZE} entries, not {}", options.list_page_size);
        }
        let listener = TcpListener::bind(options.bind).with_context(|| format!("cannot listen on {}", options.bind))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared {
            objects: Objects::default(),
            faults: Faults::default(),
            log: Log::default(),
            latency: Mutex::new(options.latency),
            access_key: options.access_key.map(|(id, secret)| AccessKey { id, secret }),
            list_page_size: options.list_page_size,
            requests: AtomicU64::new(0),
        });
        let listener = {
            // A tokio socket is registered with the runtime that will drive it.
            let _guard = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&shared);
        let run = move || run(&runtime, listener, served, stopped);
        let thread = std::thread::Builder::new().name("s3-test-server".to_owned()).spawn(run)?;
        Ok(Self { address, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint for S3 clients (path style), which is also the base URL for clients of Google Cloud Storage.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The endpoint for Azure clients, the account's name included: containers come right behind it.
    #[must_use]
    pub fn azure_url(&self) -> String {
        format!("http://{}/{AZURE_ACCOUNT}", self.address)
    }

    /// Makes an empty bucket. Putting an object makes its bucket too.
    pub fn create_bucket(&self, bucket: &str) {
        self.shared.objects.create_bucket(bucket);
    }

    /// Stores an object in memory and returns its ETag, quoted as S3 sends it. Every put has an ETag of its own.
    pub fn put(&self, bucket: &str, key: &str, bytes: impl Into<Bytes>) -> String {
        self.shared.objects.put(bucket, key, bytes.into()).quoted_etag()
    }

    /// Serves a file from disk and returns its ETag, made of name, size and time now. The file stays open until the
    /// object is replaced or removed; writing into it in place is seen by readers and does not change the ETag.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn put_file(&self, bucket: &str, key: &str, path: impl AsRef<Path>) -> anyhow::Result<String> {
        let path = path.as_ref();
        let put = || self.shared.objects.put_file(bucket, key, File::open(path)?);
        Ok(put().with_context(|| format!("cannot serve {}", path.display()))?.quoted_etag())
    }

    /// Removes an object; says whether there was one.
    pub fn remove(&self, bucket: &str, key: &str) -> bool {
        self.shared.objects.remove(bucket, key)
    }

    /// Changes the latency of all answers to come.
    pub fn set_latency(&self, latency: Duration) {
        *self.shared.latency.lock().unwrap_or_else(PoisonError::into_inner) = latency;
    }

    /// The rules of what goes wrong.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Requests since the start or the last reset.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.log.counters()
    }

    /// The last 65,536 requests since the start or the last reset, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.shared.log.requests()
    }

    /// Sets all counters to zero and forgets the requests.
    pub fn reset_counters(&self) {
        self.shared.log.reset();
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // A thread that has already ended does not listen any more.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // A panic of the server's thread was printed where it happened; a second one here would hide the test's
            // own.
            let _ = thread.join();
        }
    }
}

/// The server's thread: serves until it is told to stop; the runtime's end then closes every connection.
fn run(runtime: &Runtime, listener: tokio::net::TcpListener, shared: Arc<Shared>, stopped: oneshot::Receiver<()>) {
    runtime.block_on(async {
        // Without this, small answers on a kept connection wait for a delayed ACK. A socket that is already closed may
        // refuse.
        let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
        let router = Router::new().fallback(handle).with_state(shared);
        tokio::select! {
            _ = axum::serve(listener, router).into_future() => {}
            _ = stopped => {}
        }
    });
}

/// The way of one request.
async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let began = shared.log.arrival();
    let number = shared.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let mut response = match parse(request).await {
        Ok(call) => respond(&shared, &call, began).await,
        Err(refusal) => {
            let response = refusal.respond(Dialect::Amazon, "");
            shared.log.record(RequestRecord {
                operation: Operation::Other,
                bucket: String::new(),
                key: String::new(),
                range: None,
                if_match: None,
                status: Some(response.status().as_u16()),
                bytes: 0,
                began,
                answered: None,
            });
            response
        }
    };
    shared.log.answers(began);
    let id = format!("{number:016X}");
    insert(response.headers_mut(), HeaderName::from_static("x-amz-request-id"), &id);
    insert(response.headers_mut(), HeaderName::from_static("x-ms-request-id"), &id);
    response
}

async fn parse(request: Request) -> Result<Call, Refusal> {
    let (parts, body) = request.into_parts();
    let body = match parts.method {
        Method::PUT => to_bytes(body, MAX_PUT_BYTES).await.map_err(|_| Refusal::EntityTooLarge)?,
        _ => Bytes::new(),
    };
    Call::parse(parts, body)
}

async fn respond(shared: &Shared, call: &Call, began: u64) -> Response {
    let name = format!("{}/{}", call.bucket, call.key_or_prefix());
    let injected = shared.faults.take(call.operation, &name);
    if let Some(bytes) = injected.swap {
        shared.objects.put(&call.bucket, &call.key, bytes);
    }
    let is_stalled = injected.fault == Some(Fault::StallHeaders);
    let outcome = shared.answer(call, injected.fault.as_ref());
    let answer = outcome.unwrap_or_else(|refusal| refusal.respond(call.dialect, &call.path).into());
    let status = answer.response.status().as_u16();
    shared.log.record(RequestRecord {
        operation: call.operation,
        bucket: call.bucket.clone(),
        key: call.key_or_prefix().to_owned(),
        range: call.range().map(str::to_owned),
        if_match: call.header("if-match").map(str::to_owned),
        status: (!is_stalled).then_some(status),
        bytes: if is_stalled { 0 } else { answer.bytes },
        began,
        answered: None,
    });
    if is_stalled {
        // Ends with the connection or the server, whichever goes first.
        return pending().await;
    }
    let latency = *shared.latency.lock().unwrap_or_else(PoisonError::into_inner) + injected.latency;
    hold_back(latency).await;
    answer.response
}

/// Waits so long, and longer where the machine stands still meanwhile: one long wait would end when it goes on, before
/// anybody else has had any of that time.
async fn hold_back(latency: Duration) {
    let mut left = latency;
    while latency >= LONG_LATENCY && left > TICK {
        tokio::time::sleep(TICK).await;
        left -= TICK;
    }
    if !left.is_zero() {
        tokio::time::sleep(left).await;
    }
}

impl Shared {
    fn answer(&self, call: &Call, fault: Option<&Fault>) -> Result<Answer, Refusal> {
        if let Some(key) = &self.access_key {
            key.check(call)?;
        }
        match fault {
            Some(Fault::Status { code, retry_after }) => {
                let status = StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                return Err(Refusal::Injected { status, retry_after: *retry_after });
            }
            Some(Fault::Redirect { to }) => {
                let mut response = amazon::empty(StatusCode::TEMPORARY_REDIRECT);
                let location = HeaderValue::from_str(to);
                response.headers_mut().insert(
                    LOCATION,
                    location.map_err(|_| Refusal::InvalidArgument(format!("{to:?} cannot be a Location.")))?,
                );
                return Ok(response.into());
            }
            _ => {}
        }
        match call.dialect {
            Dialect::Amazon => amazon::answer(&self.objects, self.list_page_size, call, fault),
            Dialect::Azure => azure::answer(&self.objects, self.list_page_size, call, fault),
        }
    }
}
