//! Layer 3: assembly, start and drain of one worker.
//!
//! Knows threads, sockets and the order of starting and stopping. It must not know what requests mean. Each serving
//! thread has a runtime of its own, because no request should hop between threads; one thread accepts and hands sockets
//! to them in turn.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use alcedo_cluster::{Member, Members, Ring};
use alcedo_origin::Mounts;
use futures::StreamExt as _;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Barrier, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::admission::Admission;
use crate::config::{Config, ConfigError};
use crate::connection::Connection;
use crate::files::Files;
use crate::lookups::Lookups;
use crate::metrics::Metrics;
use crate::service::{Door, HEALTH_NAMES, routes};

/// Stack of every thread. Decoding recurses over a schema at most 100 deep, which takes a small part of it.
const THREAD_STACK_BYTES: usize = 4 << 20;
/// Threads per runtime for steps that decompress or decode much: as many as keep a core busy while some wait to be
/// scheduled; more would only share the same cores.
const BLOCKING_THREADS: usize = 8;
/// Sockets that wait for one runtime to take them.
const HANDED_SOCKETS: usize = 64;
/// Connections that the kernel keeps for us while we are busy accepting.
const LISTEN_BACKLOG: i32 = 1_024;
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

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A mount.
    #[error(transparent)]
    Mounts(#[from] alcedo_origin::Error),
    /// The listener.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What happened and what to do.
        why: String,
    },
    /// The operating system refused a thread, or a service could not be built.
    #[error("cannot start: {0}")]
    Start(String),
}

/// Starts workers.
#[derive(Debug)]
pub struct Worker {}

/// A worker that serves. Dropping it stops it at once.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    door: Arc<Door>,
    /// Time left to drain, once that began.
    drain: watch::Sender<Option<Duration>>,
    /// Yields nothing until every thread has ended.
    ended: mpsc::Receiver<()>,
    threads: Vec<JoinHandle<()>>,
}

/// What every thread needs.
#[derive(Clone)]
struct Shared {
    door: Arc<Door>,
    health: HealthReporter,
    drain: watch::Receiver<Option<Duration>>,
    streams: u32,
    /// No runtime ends before all have served: requests of one may wait for shared work that runs on another.
    all_served: Arc<Barrier>,
    /// Dropped by the thread when it ends.
    _alive: mpsc::Sender<()>,
}

type Handed = (std::net::TcpStream, OwnedSemaphorePermit);

impl Worker {
    /// Opens the mounts, listens where the configuration says, and serves.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub fn start(config: Config) -> Result<Running, StartError> {
        config.check()?;
        let mounts = Mounts::open(&config.mounts, config.origin.clone())?;
        let listener = listen(config.listen)?;
        Self::with_mounts(config, mounts, listener)
    }

    /// Serves these mounts on this listener, whatever the configuration says about either; for tests and embedders.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub fn with_mounts(config: Config, mounts: Mounts, listener: TcpListener) -> Result<Running, StartError> {
        config.check()?;
        let failed = |error: io::Error| StartError::Start(error.to_string());
        let address = listener.local_addr().map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let (drain, draining) = watch::channel(None);
        let door = Arc::new(door(&config, mounts, address, draining.clone())?);
        let (alive, ended) = mpsc::channel(1);
        let (streams, runtime_count) = (config.connections.streams, runtime_count(config.runtimes));
        let all_served = Arc::new(Barrier::new(runtime_count));
        let shared =
            Shared { door, health: HealthReporter::new(), drain: draining, streams, all_served, _alive: alive };
        let mut running = Running { address, door: Arc::clone(&shared.door), drain, ended, threads: Vec::new() };
        // From here on an early return drops `running`, which stops the threads that have begun.
        let mut runtimes = Vec::new();
        for number in 0..runtime_count {
            let (hand, handed) = mpsc::channel(HANDED_SOCKETS);
            let (shared, runtime) = (shared.clone(), runtime()?);
            running.thread(format!("alcedo-{number}"), move || runtime.block_on(serve(shared, handed)))?;
            runtimes.push(hand);
        }
        let runtime = runtime()?;
        let places = Arc::new(Semaphore::new(config.connections.max));
        running
            .thread("alcedo-accept".to_owned(), move || runtime.block_on(accept(shared, listener, places, runtimes)))?;
        Ok(running)
    }
}

impl Running {
    /// The address listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The worker's counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.door.metrics
    }

    /// Stops: no more connections, health says NOT_SERVING, streams end at message boundaries, requests under way
    /// finish. What is not finished after `grace` is broken off. Returns when every thread has ended.
    pub async fn shutdown(mut self, grace: Duration) {
        self.drain.send_replace(Some(grace));
        self.wait().await;
    }

    /// Waits until every thread has ended, which without [`Running::shutdown`] they do not.
    pub async fn wait(&mut self) {
        // Nothing is ever sent: the channel closes when the last thread drops its end.
        while self.ended.recv().await.is_some() {}
    }

    fn thread(&mut self, name: String, body: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
        let thread = thread::Builder::new().name(name).stack_size(THREAD_STACK_BYTES).spawn(body);
        self.threads.push(thread.map_err(|error| StartError::Start(format!("no thread: {error}")))?);
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After a shutdown all threads have ended and this changes nothing.
        self.drain.send_replace(Some(Duration::ZERO));
        for thread in self.threads.drain(..) {
            // A thread that panicked has ended, which is what is wanted here.
            let _ = thread.join();
        }
    }
}

/// A listener with the port's owner named in the error.
fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bind = || {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        // A restarted worker may bind while connections of its predecessor linger.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(LISTEN_BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    bind().map_err(|error: io::Error| {
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "address already in use: another worker may be running; choose another [listen]".to_owned()
            }
            io::ErrorKind::AddrNotAvailable => "this machine has no such address; choose another [listen]".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied; choose a port above 1023 for [listen]".to_owned(),
            _ => error.to_string(),
        };
        StartError::Listen { address, why }
    })
}

fn door(
    config: &Config,
    mounts: Mounts,
    address: SocketAddr,
    draining: watch::Receiver<Option<Duration>>,
) -> Result<Door, StartError> {
    let members = if config.members.is_empty() {
        let told = if config.advertise.is_empty() { address.to_string() } else { config.advertise.clone() };
        let member = Member::new(&config.worker_id, &told, alcedo_cluster::DEFAULT_WEIGHT, "");
        let member = member.map_err(|error| StartError::Start(error.to_string()))?;
        Members::new([member]).map_err(|error| StartError::Start(error.to_string()))?
    } else {
        config.members.clone()
    };
    let metrics = Arc::new(Metrics::default());
    let lookups = Arc::new(Lookups::new(config, mounts, &metrics));
    Ok(Door {
        worker_id: config.worker_id.clone(),
        ring: Ring::new(&members),
        files: Files::new(Arc::clone(&lookups)),
        lookups,
        admission: Admission::new(&config.lookup, Arc::clone(&metrics)),
        metrics,
        unanswered: config.connections.unanswered,
        draining,
        started: Instant::now(),
    })
}

fn runtime_count(configured: usize) -> usize {
    if configured > 0 { configured } else { thread::available_parallelism().map_or(1, usize::from) }
}

fn runtime() -> Result<Runtime, StartError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .thread_stack_size(THREAD_STACK_BYTES)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("alcedo-decode")
        .build();
    runtime.map_err(|error| StartError::Start(format!("no runtime: {error}")))
}

/// Accepts connections until the worker drains. A failed accept is counted and tried again: a listener that gave up
/// would be a dead worker that looks alive.
async fn accept(shared: Shared, listener: TcpListener, places: Arc<Semaphore>, runtimes: Vec<mpsc::Sender<Handed>>) {
    let mut drain = shared.drain.clone();
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let metrics = &shared.door.metrics;
    let accepting = async {
        for runtime in runtimes.iter().cycle() {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let socket = loop {
                // `serve_with_incoming` sets no socket options; without this one every unary call took 44 ms.
                let accepted = listener.accept().await;
                match accepted.and_then(|(socket, _)| socket.set_nodelay(true).and_then(|()| socket.into_std())) {
                    Ok(socket) => break socket,
                    Err(error) => {
                        metrics.accept_errors_total.up();
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            };
            metrics.connections_total.up();
            if runtime.send((socket, place)).await.is_err() {
                tracing::error!("a serving thread has ended; connections are handed to the others");
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        // An error means that nobody can ask for a drain any more, which ends the worker as well.
        _ = drain.wait_for(Option::is_some) => {}
    }
}

/// Serves connections until the worker has drained.
async fn serve(shared: Shared, handed: mpsc::Receiver<Handed>) {
    let routes = match routes(&shared.door, &shared.health) {
        Ok(routes) => routes,
        Err(error) => {
            tracing::error!(%error, "the services could not be built");
            return;
        }
    };
    for name in HEALTH_NAMES {
        shared.health.set_service_status(name, ServingStatus::Serving).await;
    }
    let connections = ReceiverStream::new(handed).map(|(socket, place)| Connection::new(socket, place));
    let mut drain = shared.drain.clone();
    let drained = async move {
        let _ = drain.wait_for(Option::is_some).await;
    };
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(shared.streams)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .serve_with_incoming_shutdown(routes.prepare(), connections, drained);
    let mut drain = shared.drain.clone();
    let broken_off = async {
        let grace = drain.wait_for(Option::is_some).await.ok().and_then(|grace| *grace).unwrap_or_default();
        for name in HEALTH_NAMES {
            shared.health.set_service_status(name, ServingStatus::NotServing).await;
        }
        tokio::time::sleep(grace).await;
    };
    let served = async {
        if let Err(error) = server.await {
            tracing::error!(%error, "serving ended");
        }
        shared.all_served.wait().await;
    };
    tokio::select! {
        () = served => {}
        () = broken_off => {}
    }
}
