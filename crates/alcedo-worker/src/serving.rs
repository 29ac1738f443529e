//! Layer 3: the threads that accept and serve connections.
//!
//! Knows runtimes, sockets and the limits of HTTP/2. It must not know what requests mean, nor when a worker starts and
//! stops. Each serving thread has a runtime of its own, because no request should hop between threads; one thread
//! accepts and hands sockets to them in turn. A connection's first bytes say whether it is HTTP/2, with all services
//! behind it, or one lookup stream in frames.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::OptionFuture;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Barrier, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::connection::{Accepted, Connection, Patience, Peer, Spoken};
use crate::service::{Door, HEALTH_NAMES, routes, serve_frames};
use crate::worker::StartError;

/// Stack of every thread. Decoding recurses over a schema at most 100 deep, which takes a small part of it.
pub(crate) const THREAD_STACK_BYTES: usize = 4 << 20;
/// Threads per runtime for steps that decompress or decode much: as many as keep a core busy while some wait to be
/// scheduled; more would only share the same cores.
const BLOCKING_THREADS: usize = 8;
/// Sockets that wait for one runtime to take them.
pub(crate) const HANDED_SOCKETS: usize = 64;
/// Pause after a failed accept: out of file descriptors, the next try would fail as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// HTTP/2 flow control: a 64 KiB window stalls a stream of answers every trip; a connection carries several streams.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// A silent peer is asked after this time, and given up after that one.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Headers of one request: metadata is a few hundred bytes.
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// Calls that a client may reset before we have looked at them, and errors of a client's own making, until its
/// connection is closed as a flood. A client that cancels does it by a frame of its stream.
const MAX_PENDING_RESETS: usize = 20;
const MAX_ERROR_RESETS: usize = 128;

/// What every thread needs.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) door: Arc<Door>,
    pub(crate) built_in: Arc<Door>,
    pub(crate) health: HealthReporter,
    pub(crate) drain: watch::Receiver<Option<Duration>>,
    pub(crate) streams: u32,
    /// No runtime ends before all have served: requests of one may wait for shared work that runs on another.
    pub(crate) all_served: Arc<Barrier>,
    /// Dropped by the thread when it ends.
    pub(crate) _alive: watch::Receiver<()>,
}

pub(crate) fn runtime() -> Result<Runtime, StartError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .thread_stack_size(THREAD_STACK_BYTES)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("alcedo-decode")
        .build();
    runtime.map_err(|error| StartError::Start(format!("no runtime: {error}")))
}

/// Where connections come from.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) tcp: std::net::TcpListener,
    pub(crate) unix: Option<std::os::unix::net::UnixListener>,
}

enum Listener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<Peer> {
        match self {
            Self::Tcp(listener) => {
                let (socket, _) = listener.accept().await?;
                // `serve_with_incoming` sets no socket options; without this one every unary call took 44 ms.
                socket.set_nodelay(true)?;
                socket.into_std().map(Peer::Tcp)
            }
            Self::Unix(listener) => listener.accept().await?.0.into_std().map(Peer::Unix),
        }
    }
}

/// Accepts connections until the worker drains. A failed accept is counted and tried again: a listener that gave up
/// would be a dead worker that looks alive.
pub(crate) async fn accept(
    shared: Shared,
    listeners: Listeners,
    places: Arc<Semaphore>,
    runtimes: Vec<mpsc::Sender<Accepted>>,
) {
    let mut drain = shared.drain.clone();
    let Ok(tcp) = tokio::net::TcpListener::from_std(listeners.tcp) else { return };
    let unix = listeners.unix.and_then(|unix| tokio::net::UnixListener::from_std(unix).ok());
    let accept_all = |listener: Listener| {
        let (shared, places, runtimes) = (&shared, &places, &runtimes);
        async move {
            for runtime in runtimes.iter().cycle() {
                let Ok(place) = Arc::clone(places).acquire_owned().await else { return };
                let accepted = accept_one(shared, &listener, place).await;
                if runtime.send(accepted).await.is_err() {
                    tracing::error!("a serving thread has ended; connections are handed to the others");
                }
            }
        }
    };
    let beside = OptionFuture::from(unix.map(|unix| accept_all(Listener::Unix(unix))));
    tokio::select! {
        _ = async { tokio::join!(accept_all(Listener::Tcp(tcp)), beside) } => {}
        // An error means that nobody can ask for a drain any more, which ends the worker as well.
        _ = drain.wait_for(Option::is_some) => {}
    }
}

async fn accept_one(shared: &Shared, listener: &Listener, place: OwnedSemaphorePermit) -> Accepted {
    let metrics = &shared.door.metrics;
    let mut is_failing = false;
    loop {
        match listener.accept().await {
            Ok(peer) => {
                metrics.connections_total.up();
                return Accepted::Peer(peer, place);
            }
            Err(error) => {
                metrics.accept_errors_total.up();
                // Once per failure and not once per try, which would fill a log at 20 lines a second.
                if !is_failing {
                    tracing::warn!(%error, "no connection can be accepted; it is tried again and again");
                }
                is_failing = true;
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves connections until the worker has drained.
pub(crate) async fn serve(shared: Shared, handed: mpsc::Receiver<Accepted>) {
    let routes = match routes(&shared.door, &shared.built_in, &shared.health) {
        Ok(routes) => routes,
        Err(error) => {
            tracing::error!(%error, "the services could not be built");
            return;
        }
    };
    set_serving(&shared).await;
    let (http2, connections) = mpsc::channel(HANDED_SOCKETS);
    let told_apart = tell_apart(&shared, handed, http2);
    let mut drain = shared.drain.clone();
    let drained = async move {
        let _ = drain.wait_for(Option::is_some).await;
    };
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(shared.streams)
        .max_connection_age(shared.door.settings().connections.max_age)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .http2_max_local_error_reset_streams(Some(MAX_ERROR_RESETS))
        .serve_with_incoming_shutdown(routes.prepare(), ReceiverStream::new(connections), drained);
    let mut drain = shared.drain.clone();
    let broken_off = async {
        let grace = drain.wait_for(Option::is_some).await.ok().and_then(|grace| *grace).unwrap_or_default();
        set_not_serving(&shared.health).await;
        tokio::time::sleep(grace).await;
    };
    let served = async {
        if let (Err(error), ()) = tokio::join!(server, told_apart) {
            tracing::error!(%error, "serving ended");
        }
        shared.all_served.wait().await;
    };
    tokio::select! {
        () = served => {}
        () = broken_off => {}
    }
}

/// Hands on the connections that speak HTTP/2 and serves the others, until the worker drains and all of them have
/// ended. Dropping it breaks them off.
async fn tell_apart(
    shared: &Shared,
    mut handed: mpsc::Receiver<Accepted>,
    http2: mpsc::Sender<io::Result<Connection>>,
) {
    let mut drain = shared.drain.clone();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = handed.recv() => accepted,
            Some(_) = connections.join_next() => continue,
            // An error means that the worker's handle is gone, which drains it as well.
            _ = drain.wait_for(Option::is_some) => None,
        };
        let Some(accepted) = accepted else { break };
        let settings = shared.door.settings();
        let patience = Patience::new(&settings.connections, settings.drain.grace);
        match Connection::new(accepted, patience, &shared.door.metrics) {
            Ok(connection) => {
                connections.spawn(serve_one(connection, shared.clone(), http2.clone()));
            }
            Err(error) => tracing::warn!(%error, "a connection could not be taken over"),
        }
    }
    drop(http2);
    while connections.join_next().await.is_some() {}
}

async fn serve_one(mut connection: Connection, shared: Shared, http2: mpsc::Sender<io::Result<Connection>>) {
    let mut drain = shared.drain.clone();
    let spoken = tokio::select! {
        spoken = connection.spoken() => spoken,
        // It has asked nothing yet.
        _ = drain.wait_for(Option::is_some) => return,
    };
    match spoken {
        Ok(Spoken::Frames) => {
            let door = if connection.line().is_own { &shared.built_in } else { &shared.door };
            serve_frames(connection, Arc::clone(door)).await;
        }
        Ok(Spoken::Http2) => {
            // An error means that serving has ended.
            let _ = http2.send(Ok(connection)).await;
        }
        Err(error) => tracing::debug!(%error, "a peer left before it said what it speaks"),
    }
}

/// Says SERVING for every service, unless the worker leaves already: a serving thread may begin late.
async fn set_serving(shared: &Shared) {
    if !shared.door.is_ready() {
        return;
    }
    for name in HEALTH_NAMES {
        shared.health.set_service_status(name, ServingStatus::Serving).await;
    }
    // Whoever leaves says so in the door first and here then, so one of the two sees the other.
    if !shared.door.is_ready() {
        set_not_serving(&shared.health).await;
    }
}

/// Says NOT_SERVING for every service.
pub(crate) async fn set_not_serving(health: &HealthReporter) {
    for name in HEALTH_NAMES {
        health.set_service_status(name, ServingStatus::NotServing).await;
    }
}
