//! One worker as seen from here: its connections, whether it is reachable, and the calls that it answers.
//!
//! Knows tonic channels and their settings. It must not know rings or paths: routing chooses the worker, and learns
//! from a [`CallError`] whether another may be asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alcedo_proto::v1 as pb;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use pb::cluster_service_client::ClusterServiceClient;
use pb::file_service_client::FileServiceClient;
use pb::lookup_service_client::LookupServiceClient;
use tokio::time::{Instant, timeout_at};
use tonic::transport::Endpoint;

use crate::deadline::Deadline;
use crate::decode::Received;
use crate::error::{Error, Kind, cause};
use crate::handles::Handles;
use crate::stream::{CallError, Link, MAX_REPLY_BYTES};

/// How long a TCP connection may take: more than three round trips around the world.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// HTTP/2 flow-control window of one stream: what may be under way before the reader has taken it.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// HTTP/2 flow-control window of one connection.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// A connection is probed after so long without a frame, and given up when the probe is not answered in time: a
/// worker's host may vanish without a word, and a lookup stream is idle for long.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// After a failure a worker is asked last for so long, doubled per further failure up to the cap. It is still asked
/// where nobody else answers, so the pause costs no call.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A shared connection attempt: whoever needs the connection drives it, all get its outcome.
type Attempt = Shared<BoxFuture<'static, Result<Arc<Link>, Arc<str>>>>;

/// One worker and its connections. Nothing is opened before the first call.
#[derive(Debug)]
pub(crate) struct Worker {
    address: Arc<str>,
    endpoint: Endpoint,
    /// The last attempt per connection; a finished one holds the link or the reason why there is none.
    connections: Box<[Mutex<Option<Attempt>>]>,
    turn: AtomicUsize,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    failures: u32,
    paused_until: Option<Instant>,
}

impl Worker {
    /// A worker at `address`, `host:port`.
    ///
    /// # Errors
    /// The address makes no URI.
    pub(crate) fn new(address: &str, connections: usize) -> Result<Self, Error> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| Error::invalid(format!("the address `{address}` cannot be used: {error}")))?
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        Ok(Self {
            address: address.into(),
            endpoint,
            connections: (0..connections).map(|_| Mutex::default()).collect(),
            turn: AtomicUsize::new(0),
            health: Mutex::default(),
        })
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// Whether it failed a moment ago, so that others should be asked first.
    pub(crate) fn is_paused(&self) -> bool {
        self.health().paused_until.is_some_and(|until| Instant::now() < until)
    }

    /// Notes that a call was not accepted.
    pub(crate) fn note_failure(&self) {
        let mut health = self.health();
        let pause = FIRST_PAUSE.saturating_mul(1 << health.failures.min(16)).min(LONGEST_PAUSE);
        health.failures = health.failures.saturating_add(1);
        health.paused_until = Some(Instant::now() + pause);
    }

    /// Notes that it answered.
    pub(crate) fn note_success(&self) {
        *self.health() = Health::default();
    }

    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An open connection, connecting until `connect_by` if there is none.
    async fn link(&self, connect_by: Instant) -> Result<Arc<Link>, CallError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.connections.len().max(1);
        let Some(connection) = self.connections.get(turn) else {
            return Err(CallError::NotAccepted("no connection is configured".to_owned()));
        };
        let attempt = {
            let mut last = connection.lock().unwrap_or_else(PoisonError::into_inner);
            match last.as_ref().map(|attempt| (attempt, attempt.peek())) {
                Some((_, Some(Ok(link)))) if link.is_usable() => return Ok(Arc::clone(link)),
                Some((attempt, None)) => attempt.clone(),
                _ => last.insert(connect(Arc::clone(&self.address), self.endpoint.clone())).clone(),
            }
        };
        match timeout_at(connect_by, attempt).await {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(why)) => Err(CallError::NotAccepted(why.as_ref().to_owned())),
            Err(_) => Err(CallError::NotAccepted("connecting took too long".to_owned())),
        }
    }

    /// One message on the lookup stream.
    pub(crate) async fn lookup(
        &self,
        request: pb::LookupRequest,
        connect_by: Instant,
        deadline: Deadline,
    ) -> Result<Received, CallError> {
        self.link(connect_by).await?.call(request, deadline).await
    }

    /// One unary lookup.
    pub(crate) async fn lookup_unary(
        &self,
        mut request: pb::LookupRequest,
        connect_by: Instant,
        deadline: Deadline,
    ) -> Result<Received, CallError> {
        let link = self.link(connect_by).await?;
        request.timeout_us = deadline.timeout_us();
        let mut client = LookupServiceClient::new(link.channel()).max_decoding_message_size(MAX_REPLY_BYTES);
        let reply = self.bounded(deadline, client.lookup(timed(request, deadline))).await?;
        let mut handles = Handles::default();
        handles.announce(reply.announce.unwrap_or_default());
        let unreadable = |what| Error::internal(format!("{} sent an answer that cannot be read: {what}", self.address));
        let answer = reply.answer.ok_or_else(|| unreadable("there is no answer in it".to_owned()))?;
        let named = handles.resolve(&answer.files).map_err(unreadable)?;
        Ok(Received { worker: Arc::clone(&self.address), answer, named })
    }

    pub(crate) async fn stat(
        &self,
        path: String,
        connect_by: Instant,
        deadline: Deadline,
    ) -> Result<pb::StatResponse, CallError> {
        let mut client = self.files(connect_by).await?;
        let request = pb::StatRequest { path, timeout_us: deadline.timeout_us() };
        self.bounded(deadline, client.stat(timed(request, deadline))).await
    }

    /// Starts a listing; its messages are taken with [`Self::next_message`].
    pub(crate) async fn list(
        &self,
        mut request: pb::ListRequest,
        connect_by: Instant,
        deadline: Deadline,
    ) -> Result<tonic::Streaming<pb::ListResponse>, CallError> {
        let mut client = self.files(connect_by).await?;
        request.timeout_us = deadline.timeout_us();
        self.bounded(deadline, client.list(timed(request, deadline))).await
    }

    /// Starts a read; its messages are taken with [`Self::next_message`].
    pub(crate) async fn read(
        &self,
        mut request: pb::ReadRequest,
        connect_by: Instant,
        deadline: Deadline,
    ) -> Result<tonic::Streaming<pb::ReadResponse>, CallError> {
        let mut client = self.files(connect_by).await?;
        request.timeout_us = deadline.timeout_us();
        self.bounded(deadline, client.read(timed(request, deadline))).await
    }

    /// The next message of a listing or read; `None` at its end.
    pub(crate) async fn next_message<M>(
        &self,
        messages: &mut tonic::Streaming<M>,
        deadline: Deadline,
    ) -> Result<Option<M>, CallError> {
        let message = timeout_at(deadline.give_up_at(), messages.message()).await;
        let message = message.map_err(|_| deadline.passed(format_args!("waiting for {}", self.address)))?;
        message.map_err(|status| self.failed(&status))
    }

    /// The worker's view of the cluster.
    pub(crate) async fn cluster(
        &self,
        connect_by: Instant,
        deadline: Deadline,
    ) -> Result<pb::ClusterResponse, CallError> {
        let mut client = ClusterServiceClient::new(self.link(connect_by).await?.channel())
            .max_decoding_message_size(MAX_REPLY_BYTES);
        self.bounded(deadline, client.cluster(timed(pb::ClusterRequest {}, deadline))).await
    }

    /// How the worker is doing.
    pub(crate) async fn status(
        &self,
        connect_by: Instant,
        deadline: Deadline,
    ) -> Result<pb::StatusResponse, CallError> {
        let mut client = ClusterServiceClient::new(self.link(connect_by).await?.channel());
        self.bounded(deadline, client.status(timed(pb::StatusRequest {}, deadline))).await
    }

    async fn files(&self, connect_by: Instant) -> Result<FileServiceClient<tonic::transport::Channel>, CallError> {
        let channel = self.link(connect_by).await?.channel();
        Ok(FileServiceClient::new(channel).max_decoding_message_size(MAX_REPLY_BYTES))
    }

    /// A call's reply, within its deadline even if the worker is silent.
    async fn bounded<T>(
        &self,
        deadline: Deadline,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, CallError> {
        match timeout_at(deadline.give_up_at(), call).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(self.failed(&status)),
            Err(_) => Err(deadline.passed(format_args!("waiting for {}", self.address)).into()),
        }
    }

    fn failed(&self, status: &tonic::Status) -> CallError {
        CallError::answered(Error::from_status(&self.address, status))
    }
}

/// A request with its deadline as `grpc-timeout`: the time that this side waits, because tonic's client enforces it
/// here too and would cut off the worker's own words.
fn timed<T>(message: T, deadline: Deadline) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(deadline.give_up_at().saturating_duration_since(Instant::now()));
    request
}

fn connect(address: Arc<str>, endpoint: Endpoint) -> Attempt {
    let attempt = async move {
        match endpoint.connect().await {
            Ok(channel) => {
                tracing::debug!(worker = %address, "connected");
                Ok(Arc::new(Link::open(address, channel)))
            }
            Err(error) => Err(Arc::from(cause(&error))),
        }
    };
    attempt.boxed().shared()
}

/// The error of a call that nobody accepted.
pub(crate) fn no_worker(refusals: &[(Arc<str>, String)]) -> Error {
    let listed: Vec<String> = refusals.iter().take(SHOWN_REFUSALS).map(|(who, why)| format!("{who}: {why}")).collect();
    let more = if refusals.len() > listed.len() { "; …" } else { "" };
    let message = format!("no worker reachable: {}{more} (tried {})", listed.join("; "), refusals.len());
    Error::new(Kind::Unavailable, message).with_reason(crate::error::Reason::NoWorker)
}

/// How many workers a message names, so that a large cluster's outage stays readable.
const SHOWN_REFUSALS: usize = 4;
