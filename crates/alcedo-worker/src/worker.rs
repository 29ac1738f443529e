//! Layer 3: assembly, start and drain of one worker.
//!
//! Knows the order of starting and stopping. It must not know what requests mean, nor signals and service managers,
//! which the binary turns into calls of this room.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use alcedo_cluster::{Member, Members, MembersFile, Ring};
use alcedo_origin::Mounts;
use futures::future::OptionFuture;
use tokio::runtime::Handle;
use tokio::sync::{Barrier, Semaphore, mpsc, watch};
use tonic_health::server::HealthReporter;

use crate::admin;
use crate::admission::Admission;
use crate::builds::{Builds, Failed, What};
use crate::config::{AdminListen, Config, ConfigError};
use crate::connection::Accepted;
use crate::files::Files;
use crate::lookups::Lookups;
use crate::membership::{self, Membership};
use crate::memory;
use crate::metrics::Metrics;
use crate::pins::{self, Pins};
use crate::process;
use crate::service::Door;
use crate::serving::{HANDED_SOCKETS, Listeners, Shared, THREAD_STACK_BYTES, accept, runtime, serve, set_not_serving};
use crate::status_page;
use crate::unix_socket::UnixSocket;
use crate::watchdog::{self, Watchdog};

/// Connections that the kernel keeps for us while we are busy accepting.
pub(crate) const LISTEN_BACKLOG: i32 = 1_024;
/// File descriptors per allowed connection: as many as connections remain for the cache's files and the origins.
const FDS_PER_CONNECTION: u64 = 2;

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
    /// The cache directory.
    #[error(transparent)]
    Cache(#[from] alcedo_cache::OpenError),
    /// The metadata store in it.
    #[error(transparent)]
    Metadata(#[from] alcedo_cache::MetadataError),
    /// The listener.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What happened and what to do.
        why: String,
    },
    /// The Unix socket.
    #[error("cannot listen on unix:{}: {why}", path.display())]
    ListenUnix {
        /// Its path.
        path: PathBuf,
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
    admin: Option<SocketAddr>,
    door: Arc<Door>,
    health: HealthReporter,
    /// The settings that it started with.
    started_with: Config,
    /// Time left to drain, once that began.
    drain: watch::Sender<Option<Duration>>,
    /// Closed once every serving thread has ended.
    alive: watch::Sender<()>,
    /// Where sockets are handed to the serving threads.
    hands: Vec<mpsc::Sender<Accepted>>,
    /// The runtimes of the serving threads.
    runtimes: Vec<Handle>,
    /// Removed when the worker is gone.
    _unix_socket: Option<UnixSocket>,
    /// Ends the thread beside the serving ones.
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

/// What a reload changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys whose new values are in force.
    pub taken: Vec<&'static str>,
    /// Keys whose new values need a restart.
    pub restart: Vec<&'static str>,
}

impl Worker {
    /// Opens the mounts, listens where the configuration says, and serves.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub fn start(config: Config) -> Result<Running, StartError> {
        config.check()?;
        let mounts = Mounts::open(&config.mounts, config.origin.clone())?;
        let listener = listen(config.listen, "listen")?;
        let admin = admin_listener(&config, &listener)?;
        Self::assemble(config, mounts, listener, admin)
    }

    /// Serves these mounts on this listener, whatever the configuration says about either; for tests and embedders.
    /// There is an admin port if the configuration names one.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub fn with_mounts(config: Config, mounts: Mounts, listener: TcpListener) -> Result<Running, StartError> {
        config.check()?;
        let admin = match config.admin.listen {
            AdminListen::At(address) => Some(listen(address, "admin.listen")?),
            AdminListen::Beside | AdminListen::Off => None,
        };
        Self::assemble(config, mounts, listener, admin)
    }

    fn assemble(
        config: Config,
        mounts: Mounts,
        listener: TcpListener,
        admin: Option<TcpListener>,
    ) -> Result<Running, StartError> {
        let failed = |error: io::Error| StartError::Start(error.to_string());
        let address = listener.local_addr().map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let (unix, unix_socket) = config.listen_unix.as_deref().map(UnixSocket::bind).transpose()?.unzip();
        let listeners = Listeners { tcp: listener, unix };
        let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose().map_err(failed)?;
        let (drain, draining) = watch::channel(None);
        let (members, members_file) = members(&config, address)?;
        let door = Arc::new(door(&config, mounts, &members, draining.clone())?);
        let (own, own_mounts) = watchdog::built_in(&config).map_err(StartError::Start)?;
        let built_in = Arc::new(self::door(&own, own_mounts, &members, draining.clone())?);
        let (alive, is_alive) = watch::channel(());
        let (streams, runtime_count) = (config.connections.streams, runtime_count(config.runtimes));
        let all_served = Arc::new(Barrier::new(runtime_count));
        let health = HealthReporter::new();
        let shared = Shared { door, built_in, health, drain: draining, streams, all_served, _alive: is_alive };
        let (stop, stopped) = watch::channel(false);
        let mut running = Running {
            address,
            admin: admin_address,
            door: Arc::clone(&shared.door),
            health: shared.health.clone(),
            started_with: config,
            drain,
            alive,
            hands: Vec::new(),
            runtimes: Vec::new(),
            _unix_socket: unix_socket,
            stop,
            threads: Vec::new(),
        };
        // From here on an early return drops `running`, which stops the threads that have begun.
        for number in 0..runtime_count {
            let (hand, handed) = mpsc::channel(HANDED_SOCKETS);
            let (shared, runtime) = (shared.clone(), runtime()?);
            running.runtimes.push(runtime.handle().clone());
            running.thread(format!("alcedo-{number}"), move || runtime.block_on(serve(shared, handed)))?;
            running.hands.push(hand);
        }
        let beside = Beside { door: Arc::clone(&shared.door), admin, members_file };
        let runtime_beside = runtime()?;
        for number in 0..running.started_with.builds.parallel {
            let (door, io, stopped) = (Arc::clone(&shared.door), runtime_beside.handle().clone(), stopped.clone());
            let runtime = runtime()?;
            let body = move || runtime.block_on(door.builds.run(&door, &io, stopped));
            running.thread(format!("alcedo-build-{number}"), body)?;
        }
        running.thread("alcedo-admin".to_owned(), move || runtime_beside.block_on(beside.run(stopped)))?;
        let (runtime, hands) = (runtime()?, running.hands.clone());
        let places = Arc::new(Semaphore::new(most_connections(running.started_with.connections.max)));
        running
            .thread("alcedo-accept".to_owned(), move || runtime.block_on(accept(shared, listeners, places, hands)))?;
        Ok(running)
    }
}

impl Running {
    /// The address listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The address of metrics, health and the status page; none where they are off.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// This worker for a client in the same process, which asks it without a connection; see
    /// [`alcedo_client::Builder::in_process`]. What is in memory is answered on the thread that asks; everything else
    /// is done by the serving threads, whose stacks and pools have the sizes for it. It does not keep the worker alive.
    pub fn local(&self) -> alcedo_client::Local {
        let threads = self.runtimes.iter().cloned().zip(self.hands.iter().cloned()).collect();
        crate::service::local(&self.door, threads)
    }

    /// The worker's counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.door.metrics
    }

    /// What proves that every serving thread serves. Must be called within a runtime.
    pub fn watchdog(&self) -> Watchdog {
        Watchdog::new(&self.hands)
    }

    /// The inside, for tests of rooms that need all of a worker.
    #[cfg(test)]
    pub(crate) fn door(&self) -> &Arc<Door> {
        &self.door
    }

    /// Makes a derived object of a file's current version, whatever its heat, unless it is there, and waits for it.
    /// Returns its bytes.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn build(&self, path: &str, what: What) -> Result<u64, Failed> {
        let place = self.door.lookups.resolve(path).map_err(Failed::Broken)?;
        let made = self.door.builds.on_request(&self.door, &place, what, false).await;
        made.map(|object| object.bytes())
    }

    /// One line about how it is.
    pub fn status_line(&self) -> String {
        status_page::line(&self.door)
    }

    /// Writes several lines about how it is to the log.
    pub fn dump(&self) {
        for line in status_page::dump(&self.door) {
            tracing::info!("{line}");
        }
    }

    /// Takes what a running worker can take of other settings, all of it or nothing.
    ///
    /// # Errors
    /// The first broken rule; everything stays as it was.
    pub fn reload(&self, config: Config) -> Result<Reloaded, ConfigError> {
        config.check_rules().inspect_err(|error| self.refuse_reload(error))?;
        self.door.metrics.reloads_total.up();
        let (taken, _) = self.door.settings().changed(&config);
        let (_, restart) = self.started_with.changed(&config);
        self.door.admission.set_timeouts(&config.lookup);
        if taken.contains(&"members") && !config.members.is_empty() {
            self.door.membership.replace(&config.members, &self.door.worker_id);
        }
        *self.door.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        for key in &restart {
            tracing::warn!(key, "this setting has changed and needs a restart; the old value stays in force");
        }
        tracing::info!(taken = taken.join(" "), "the settings were reloaded");
        Ok(Reloaded { taken, restart })
    }

    /// Writes down that settings could not be reloaded; everything stays as it was.
    pub fn refuse_reload(&self, why: &dyn std::fmt::Display) {
        self.door.metrics.reloads_total.up();
        self.door.metrics.reloads_refused_total.up();
        tracing::error!(%why, "the settings were not reloaded; the old ones stay in force");
    }

    /// Leaves: is not ready from now on but still serves for `drain.notice`, so that clients turn to others first, then
    /// stops as [`Running::shutdown`] does within `drain.grace`. A worker that is alone skips the notice.
    pub async fn drain(self) {
        self.door.leaving.store(true, Ordering::Relaxed);
        set_not_serving(&self.health).await;
        let settings = self.door.settings();
        if self.door.membership.ring().members().len() > 1 {
            tokio::time::sleep(settings.drain.notice).await;
        }
        self.shutdown(settings.drain.grace).await;
    }

    /// Stops: no more connections, health says NOT_SERVING, streams end at message boundaries, requests under way
    /// finish. What is not finished after `grace` is broken off. Returns when every serving thread has ended.
    pub async fn shutdown(self, grace: Duration) {
        self.drain.send_replace(Some(grace));
        self.wait().await;
    }

    /// Waits until every serving thread has ended, which without [`Running::shutdown`] they do not.
    pub async fn wait(&self) {
        self.alive.closed().await;
    }

    fn thread(&mut self, name: String, body: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
        let thread = thread::Builder::new().name(name).stack_size(THREAD_STACK_BYTES).spawn(body);
        self.threads.push(thread.map_err(|error| StartError::Start(format!("no thread: {error}")))?);
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After a shutdown the serving threads have ended and this changes nothing for them.
        self.drain.send_replace(Some(Duration::ZERO));
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            // A thread that panicked has ended, which is what is wanted here.
            let _ = thread.join();
        }
    }
}

/// What runs beside serving, on a thread of its own: a scrape or a new ring keeps no lookup waiting.
struct Beside {
    door: Arc<Door>,
    admin: Option<TcpListener>,
    members_file: Option<MembersFile>,
}

impl Beside {
    async fn run(self, mut stopped: watch::Receiver<bool>) {
        let Self { door, admin, members_file } = self;
        let serving = OptionFuture::from(admin.map(|listener| admin::serve(listener, &door)));
        let following =
            members_file.map(|file| membership::follow(file, &door.membership, &door.worker_id, &door.metrics));
        let following = OptionFuture::from(following);
        tokio::select! {
            // An error means that the worker's handle is gone.
            _ = stopped.wait_for(|stop| *stop) => {}
            _ = async { tokio::join!(serving, following, memory::watch(&door), pins::follow(&door)) } => {}
        }
    }
}

/// Connections that the open files of this process allow: the configured ones if they can be had, else fewer.
fn most_connections(configured: usize) -> usize {
    let fds = process::raise_open_files(configured as u64 * FDS_PER_CONNECTION + 1);
    let allowed = usize::try_from(fds.saturating_sub(1) / FDS_PER_CONNECTION).unwrap_or(usize::MAX).max(1);
    if allowed < configured {
        tracing::warn!(
            configured,
            allowed,
            open_files = fds,
            "connections.max is lowered, because it must stay below half of the open files that this process may have: \
             raise LimitNOFILE= of the service, or `ulimit -n`"
        );
    }
    configured.min(allowed)
}

/// The admin port's listener.
fn admin_listener(config: &Config, grpc: &TcpListener) -> Result<Option<TcpListener>, StartError> {
    let address = match config.admin.listen {
        AdminListen::Off => return Ok(None),
        AdminListen::At(address) => return listen(address, "admin.listen").map(Some),
        // Whoever chose any port there wants any port here.
        AdminListen::Beside if config.listen.port() == 0 => 0,
        AdminListen::Beside => grpc.local_addr().map_or(0, |address| address.port().checked_add(1).unwrap_or(0)),
    };
    let beside = |port| listen(SocketAddr::from(([127, 0, 0, 1], port)), "admin.listen");
    // Nobody asked for this port, so it being taken is no reason not to serve.
    beside(address).or_else(|_| beside(0)).map(Some)
}

/// A listener with the port's owner named in the error.
fn listen(address: SocketAddr, key: &str) -> Result<TcpListener, StartError> {
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
                format!("address already in use: another worker may be running; choose another [{key}]")
            }
            io::ErrorKind::AddrNotAvailable => format!("this machine has no such address; choose another [{key}]"),
            io::ErrorKind::PermissionDenied => format!("permission denied; choose a port above 1023 for [{key}]"),
            _ => error.to_string(),
        };
        StartError::Listen { address, why }
    })
}

/// The first members, and the file that tells the next ones.
fn members(config: &Config, address: SocketAddr) -> Result<(Members, Option<MembersFile>), StartError> {
    let failed = |error: &dyn std::fmt::Display| StartError::Start(error.to_string());
    if let Some(path) = &config.members_file {
        let (file, members) = MembersFile::open(path).map_err(|error| failed(&error))?;
        membership::warn_if_absent(&members, &config.worker_id);
        return Ok((members, Some(file)));
    }
    if !config.members.is_empty() {
        return Ok((config.members.clone(), None));
    }
    let told = if config.advertise.is_empty() { address.to_string() } else { config.advertise.clone() };
    let member = Member::new(&config.worker_id, &told, alcedo_cluster::DEFAULT_WEIGHT, "");
    let alone = Members::new([member.map_err(|error| failed(&error))?]);
    Ok((alone.map_err(|error| failed(&error))?, None))
}

fn door(
    config: &Config,
    mounts: Mounts,
    members: &Members,
    draining: watch::Receiver<Option<Duration>>,
) -> Result<Door, StartError> {
    let metrics = Arc::new(Metrics::default());
    let lookups = Arc::new(Lookups::new(config, mounts, &metrics)?);
    Ok(Door {
        worker_id: config.worker_id.clone(),
        membership: Membership::new(Ring::new(members)),
        files: Files::new(Arc::clone(&lookups)),
        pins: Pins::open(lookups.derived().pins_file()),
        lookups,
        admission: Admission::new(&config.lookup, Arc::clone(&metrics)),
        builds: Builds::default(),
        metrics,
        settings: RwLock::new(Arc::new(config.clone())),
        leaving: AtomicBool::new(false),
        draining,
        started: Instant::now(),
    })
}

fn runtime_count(configured: usize) -> usize {
    if configured > 0 { configured } else { thread::available_parallelism().map_or(1, usize::from) }
}
