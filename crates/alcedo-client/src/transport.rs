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
use pb::lookup_service_client::LookupServiceClient;
use tokio::time::{Instant, timeout_at};
use tonic::Code;
use tonic::transport::Endpoint;

use crate::deadline::Deadline;
use crate::decode::Received;
use crate::ending::CallError;
use crate::error::{Error, Kind, cause};
use crate::handles::Handles;
use crate::health::Health;
use crate::lane::{self, Pause};
use crate::local::Local;
use crate::lookup::Message;
use crate::replies::MAX_REPLY_BYTES;
use crate::stream::Link;
use crate::tries::Turn;
use crate::wire::Place;

/// How long a TCP connection may take: more than three round trips around the world.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// HTTP/2 flow-control window of one stream: what may be under way before the reader has taken it.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// HTTP/2 flow-control window of one connection.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// A connection is probed after so long without a frame, and given up when the probe is not answered in time: a
/// worker's host may vanish without a word, and a lookup stream is idle for long.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Who was refused a connection a moment ago is not asked again at once, however many calls want it: an outage costs a
/// hundred attempts a second per worker and client, and calls that nobody accepts end at once.
const REFUSAL_BELIEVED: Duration = Duration::from_millis(10);

/// What an address begins with that is the path of a Unix socket.
pub(crate) const UNIX: &str = "unix:";
/// Longest path of one: what the kernel has room for (unix(7)), less the final 0.
pub(crate) const MAX_SOCKET_PATH_BYTES: usize = 107;
/// How long a worker may take to say what it speaks.
const ASKING_TIMEOUT: Duration = Duration::from_secs(2);

/// A shared connection attempt: whoever needs the connection drives it, all get its outcome.
type Attempt = Shared<BoxFuture<'static, Result<Arc<Link>, Refusal>>>;

/// Why there is no connection.
#[derive(Debug, Clone)]
struct Refusal {
    why: Arc<str>,
    at: Instant,
}

/// The last attempt; a finished one holds the link or the reason why there is none.
type Connection = Mutex<Option<Attempt>>;

/// The link of a connection, if it is open.
fn open(connection: &Connection) -> Option<Arc<Link>> {
    let last = connection.lock().unwrap_or_else(PoisonError::into_inner);
    let link = last.as_ref()?.peek()?.as_ref().ok()?;
    link.is_usable().then(|| Arc::clone(link))
}

/// What a client wants of all its connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    /// So many to each worker.
    pub(crate) connections: usize,
    /// Lookups may travel in frames.
    pub(crate) frames: bool,
}

/// How a worker is reached.
#[derive(Debug)]
enum Way {
    /// By its address; over the Unix socket that it told of, if it did and the socket is there.
    Tcp(Mutex<Option<Near>>),
    Unix,
    Inside(Local),
}

/// The Unix socket of a worker.
#[derive(Debug, Clone)]
struct Near {
    endpoint: Box<Endpoint>,
    path: Arc<str>,
}

/// One worker and its connections. Nothing is opened before the first call.
#[derive(Debug)]
pub(crate) struct Worker {
    address: Arc<str>,
    endpoint: Endpoint,
    way: Way,
    connections: Box<[Connection]>,
    turn: AtomicUsize,
    health: Arc<Health>,
    /// Lookups may travel in frames.
    frames: bool,
    /// While they do not.
    frames_pause: Arc<Pause>,
}

impl Worker {
    /// A worker at `address`, `host:port` or `unix:/path`.
    ///
    /// # Errors
    /// The address makes no URI.
    pub(crate) fn new(address: &str, reach: Reach) -> Result<Self, Error> {
        let (uri, way) = match address.starts_with(UNIX) {
            true => (address.to_owned(), Way::Unix),
            false => (format!("http://{address}"), Way::Tcp(Mutex::default())),
        };
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|error| Error::invalid(format!("the address `{address}` cannot be used: {error}")))?;
        Ok(Self::by(way, address, endpoint, reach))
    }

    /// A worker in this process.
    pub(crate) fn inside(local: Local) -> Self {
        let name = Arc::clone(local.name());
        let reach = Reach { connections: 1, frames: false };
        Self::by(Way::Inside(local), &name, Endpoint::from_static("http://in-process"), reach)
    }

    fn by(way: Way, address: &str, endpoint: Endpoint, reach: Reach) -> Self {
        Self {
            address: address.into(),
            endpoint: with_settings(endpoint),
            way,
            connections: (0..reach.connections).map(|_| Mutex::default()).collect(),
            turn: AtomicUsize::new(0),
            health: Arc::default(),
            frames: reach.frames,
            frames_pause: Arc::default(),
        }
    }

    /// Whether it is in this process.
    pub(crate) fn is_inside(&self) -> bool {
        matches!(self.way, Way::Inside(_))
    }

    /// Whether it is reached in another way than by its address in the ring.
    pub(crate) fn is_by_name(&self) -> bool {
        !matches!(self.way, Way::Tcp(_))
    }

    /// Takes what the worker at the other end of a connection says of itself.
    fn learn(&self, link: &Link, reply: &pb::ClusterResponse) {
        link.note_protocol(reply.protocol);
        let (Way::Tcp(known), path) = (&self.way, reply.unix_socket.as_str()) else { return };
        if !path.starts_with('/') || path.len() > MAX_SOCKET_PATH_BYTES {
            return;
        }
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none()
            && let Ok(endpoint) = Endpoint::from_shared(format!("{UNIX}{path}"))
        {
            tracing::debug!(worker = %self.address, path, "it is on this machine; its Unix socket is used from now on");
            *known = Some(Near { endpoint: Box::new(with_settings(endpoint)), path: path.into() });
            link.retire();
        }
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// How it has done lately.
    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// The connection whose turn it is.
    fn connection(&self) -> Option<&Connection> {
        match &*self.connections {
            [only] => Some(only),
            all => all.get(self.turn.fetch_add(1, Ordering::Relaxed) % all.len().max(1)),
        }
    }

    /// An open connection, connecting until `connect_by` if there is none.
    pub(crate) async fn link(&self, connect_by: Instant) -> Result<Arc<Link>, CallError> {
        self.link_of(self.connection(), connect_by).await
    }

    async fn link_of(&self, connection: Option<&Connection>, connect_by: Instant) -> Result<Arc<Link>, CallError> {
        let Some(connection) = connection else {
            return Err(CallError::NotAccepted("no connection is configured".to_owned()));
        };
        let attempt = {
            let mut last = connection.lock().unwrap_or_else(PoisonError::into_inner);
            match last.as_ref().map(|attempt| (attempt, attempt.peek())) {
                Some((_, Some(Ok(link)))) if link.is_usable() => return Ok(Arc::clone(link)),
                Some((attempt, None)) => attempt.clone(),
                Some((_, Some(Err(refusal)))) if refusal.at.elapsed() < REFUSAL_BELIEVED => {
                    return Err(CallError::NotAccepted(refusal.why.as_ref().to_owned()));
                }
                _ => last.insert(self.connect()).clone(),
            }
        };
        match timeout_at(connect_by, attempt).await {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(refusal)) => Err(CallError::NotAccepted(refusal.why.as_ref().to_owned())),
            Err(_) => Err(CallError::NotAccepted("connecting took too long".to_owned())),
        }
    }

    fn connect(&self) -> Attempt {
        let (address, endpoint, health) = (Arc::clone(&self.address), self.endpoint.clone(), Arc::clone(&self.health));
        let (near, inside, place) = match &self.way {
            Way::Tcp(near) => {
                let near = near.lock().unwrap_or_else(PoisonError::into_inner).clone();
                (near, None, Some(Place::Tcp(Arc::clone(&address))))
            }
            Way::Unix => (None, None, address.strip_prefix(UNIX).map(|path| Place::Unix(path.into()))),
            Way::Inside(local) => (None, Some(local.clone()), None),
        };
        let attempt = async move {
            let connected = match (near, inside) {
                (_, Some(local)) => local.channel(&endpoint).await.map(|channel| (channel, place)),
                (Some(near), _) => match near.endpoint.connect().await {
                    Ok(channel) => Ok((channel, Some(Place::Unix(near.path)))),
                    // Its file may not be where this process looks, or may be gone.
                    Err(_) => endpoint.connect().await.map(|channel| (channel, place)),
                },
                (None, None) => endpoint.connect().await.map(|channel| (channel, place)),
            };
            match connected {
                Ok((channel, place)) => {
                    tracing::debug!(worker = %address, "connected");
                    Ok(Arc::new(Link::open(address, channel, place, health)))
                }
                Err(error) => Err(Refusal { why: cause(&error).into(), at: Instant::now() }),
            }
        };
        attempt.boxed().shared()
    }

    /// One message on the lookup stream, or as a unary call.
    pub(crate) async fn lookup(
        self: &Arc<Self>,
        message: &Message<'_>,
        turn: &Turn,
        deadline: Deadline,
    ) -> Result<Received, CallError> {
        let connection = self.connection();
        let (link, now) = match connection.and_then(open) {
            Some(link) => (link, turn.now),
            None => (Box::pin(self.link_of(connection, turn.connect_by)).await?, Instant::now()),
        };
        if message.unary {
            return Box::pin(self.lookup_unary(&link, message, deadline)).await;
        }
        if message.handle.is_some() {
            if link.claim_asking() {
                self.ask_protocol(&link);
            } else if self.frames {
                self.open_lane(&link);
            }
        }
        link.call(message, deadline, now).await
    }

    /// One unary lookup.
    async fn lookup_unary(
        &self,
        link: &Link,
        message: &Message<'_>,
        deadline: Deadline,
    ) -> Result<Received, CallError> {
        let request = pb::LookupRequest {
            timeout_us: deadline.timeout_us(),
            trace: message.trace,
            accept_parts: false,
            ..message.question.request(message.keys.clone().into_vec())
        };
        let mut client = LookupServiceClient::new(link.channel()).max_decoding_message_size(MAX_REPLY_BYTES);
        let reply = self.bounded(deadline, client.lookup(timed(request, deadline))).await?;
        let mut handles = Handles::default();
        handles.announce(reply.announce.unwrap_or_default());
        let unreadable = |what| Error::internal(format!("{} sent an answer that cannot be read: {what}", self.address));
        let answer = reply.answer.ok_or_else(|| unreadable("there is no answer in it".to_owned()))?;
        let named = handles.resolve(&answer.files).map_err(unreadable)?;
        Ok(Received::Whole { worker: Arc::clone(&self.address), answer, named })
    }

    /// Learns in the background what the worker at the other end of a connection speaks; until then lookups travel in
    /// full.
    fn ask_protocol(self: &Arc<Self>, link: &Arc<Link>) {
        // Where no answer comes in time it may only be busy, and the connection may last for days.
        let (errand, worker) = (Errand { link: Arc::clone(link), undone: Link::ask_again }, Arc::clone(self));
        tokio::spawn(async move {
            let link = &errand.link;
            let mut client = ClusterServiceClient::new(link.channel()).max_decoding_message_size(MAX_REPLY_BYTES);
            let asking = client.cluster(timed(pb::ClusterRequest {}, Deadline::after(ASKING_TIMEOUT)));
            match tokio::time::timeout(ASKING_TIMEOUT, asking).await {
                Ok(Ok(reply)) => worker.learn(link, reply.get_ref()),
                Ok(Err(status)) if !matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded) => {
                    link.note_protocol(0);
                    tracing::debug!(worker = %worker.address, "it does not say what it speaks; lookups travel in full");
                }
                _ => {}
            }
        });
    }

    /// Opens a connection of frames in the background, if the worker speaks them and there is none; lookups change over
    /// when it is there.
    fn open_lane(&self, link: &Arc<Link>) {
        let pause = &self.frames_pause;
        let Some(place) = link.claim_lane(|| pause.is_over()) else { return };
        let (place, worker, health) = (place.clone(), Arc::clone(&self.address), Arc::clone(&self.health));
        let (link, pause) = (Arc::clone(link), Arc::clone(pause));
        let errand = Errand { link, undone: |link| link.set_lane(None) };
        tokio::spawn(async move {
            let lane = lane::open(&place, Arc::clone(&worker), health, &pause).await;
            if let Err(error) = &lane {
                tracing::debug!(%worker, %error, "no connection of frames; lookups stay with gRPC for a while");
                pause.begin();
            }
            errand.link.set_lane(lane.ok());
        });
    }

    /// The next message of a listing, read, check, pin or list of pins; `None` at its end.
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
        let link = self.link(connect_by).await?;
        let mut client = ClusterServiceClient::new(link.channel()).max_decoding_message_size(MAX_REPLY_BYTES);
        let reply = self.bounded(deadline, client.cluster(timed(pb::ClusterRequest {}, deadline))).await?;
        self.learn(&link, &reply);
        Ok(reply)
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

    /// A call's reply, within its deadline even if the worker is silent.
    pub(crate) async fn bounded<T>(
        &self,
        deadline: Deadline,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, CallError> {
        let answered = timeout_at(deadline.give_up_at(), call).await;
        let silent = |_| CallError::Silent(deadline.passed(format_args!("waiting for {}", self.address)));
        let answered = answered.map_err(silent)?.map_err(|status| self.failed(&status));
        if !matches!(answered, Err(CallError::Lost(_))) {
            self.health.hear();
        }
        Ok(answered?.into_inner())
    }

    /// The error of a call that no other worker is asked for.
    pub(crate) fn error_of(&self, error: CallError) -> Error {
        match error {
            CallError::Failed(error) | CallError::Lost(error) | CallError::Silent(error) => error,
            CallError::NotAccepted(why) | CallError::Unsent(why) => {
                let message = format!("no answer from {}: {why}", self.address);
                Error::new(Kind::Unavailable, message).with_reason(crate::error::Reason::NoWorker)
            }
        }
    }

    fn failed(&self, status: &tonic::Status) -> CallError {
        use std::error::Error as _;
        let error = Error::from_status(&self.address, status);
        match status.source() {
            Some(_) => CallError::Lost(error),
            None => CallError::answered(error),
        }
    }
}

/// Something that one call does in the background for all calls of a link. When it is over, also because the runtime of
/// that call ended, what is not done by then may be begun by another.
struct Errand {
    link: Arc<Link>,
    undone: fn(&Link),
}

impl Drop for Errand {
    fn drop(&mut self) {
        (self.undone)(&self.link);
    }
}

/// What all connections have in common.
fn with_settings(endpoint: Endpoint) -> Endpoint {
    endpoint
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

/// A request with its deadline as `grpc-timeout`: the time that this side waits, because tonic's client enforces it
/// here too and would cut off the worker's own words.
pub(crate) fn timed<T>(message: T, deadline: Deadline) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(deadline.give_up_at().saturating_duration_since(Instant::now()));
    request
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    /// Why there is no connection to a worker at an address where nobody listens.
    async fn refusal(worker: &Worker) -> String {
        match worker.link(Instant::now() + Duration::from_secs(60)).await {
            Err(CallError::NotAccepted(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_believed_for_a_moment_by_all() {
        // It is taken and nobody listens there.
        let place = tokio::net::TcpSocket::new_v4().unwrap();
        place.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let worker =
            Worker::new(&place.local_addr().unwrap().to_string(), Reach { connections: 1, frames: true }).unwrap();
        let planted = Refusal { why: "planted".into(), at: Instant::now() };
        let attempt = async move { Err(planted) }.boxed().shared();
        assert!(attempt.clone().now_or_never().is_some());
        *worker.connections[0].lock().unwrap() = Some(attempt);
        for _ in 0..1_000 {
            assert_eq!(refusal(&worker).await, "planted");
        }
        tokio::time::advance(REFUSAL_BELIEVED).await;
        assert_ne!(refusal(&worker).await, "planted");
    }
}
