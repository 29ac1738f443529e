//! `alcedo worker run`: the daemon's entry point.
//!
//! It reads flags, environment and file, starts the worker, and turns signals into calls of it: SIGTERM and SIGINT
//! drain, SIGHUP reloads, SIGUSR1 dumps. It tells the service manager how that goes. Everything else is the worker's.

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use alcedo_worker::{Config, Notifier, Running, Worker};
use clap::{Args, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Context, config};
use crate::failure::Failure;
use crate::logging::{self, LogFormat};
use crate::output::quantity::counted;

/// While stores are opened, a service manager is asked this often for so much more time.
const EXTEND_EVERY: Duration = Duration::from_secs(5);
const EXTEND_BY: Duration = Duration::from_secs(30);
/// How often the service manager's line about the worker is renewed.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// Proofs within the time that a watchdog gives: one that comes late does not kill.
const FEEDS_PER_TIMEOUT: u32 = 3;

/// What to do as a worker.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// Serve lookups until SIGTERM or Ctrl-C
    ///
    /// Settings come from --config, by default /etc/alcedo/worker.toml. Each can also be given as a variable:
    /// ALCEDO_CACHE__PAGES=1GiB is `pages` of the table `[cache]`.
    Run(RunArgs),
}

/// The flags of `worker run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Address and port of the gRPC listener
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The worker's name for life
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// How log lines look
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

impl WorkerCommand {
    pub(crate) fn log_format(&self) -> LogFormat {
        let Self::Run(args) = self;
        args.log_format
    }
}

/// Runs until it is told to stop.
///
/// # Errors
/// The settings are wrong, or the worker cannot start.
pub(crate) async fn run(command: WorkerCommand, context: &Context) -> Result<(), Failure> {
    let WorkerCommand::Run(args) = command;
    let flag = |key: &str, text: Option<String>, name: &str| Some((key.to_owned(), text?, name.to_owned()));
    let flags = [flag("listen", args.listen, "--listen"), flag("worker_id", args.id, "--id")];
    let source = Source { file: config::file(None, context), flags: flags.into_iter().flatten().collect() };
    let settings = config::load(&source.file, source.flags.clone()).map_err(config::Problem::failure)?;
    logging::set_filter(&settings.log.filter).map_err(Failure::error)?;
    // Before the worker says that it is ready: from then on a signal means drain.
    let mut signals = Signals::new()?;
    let notifier = Notifier::default();
    let (id, mounts) = (settings.worker_id.clone(), counted(settings.mounts.len() as u64, "mount"));
    let running = opened(settings, &notifier, &mut signals).await?;
    let admin = running.admin_addr().map(|address| format!(", admin on {address}")).unwrap_or_default();
    context.terminal.say(&format!("alcedo worker {id} ready on {}, {mounts}{admin}\n", running.local_addr()));
    notifier.status(&running.status_line());
    notifier.ready();
    until_told(&running, &notifier, &mut signals, &source).await?;
    tracing::info!("draining; another signal ends it at once");
    notifier.stopping();
    notifier.status("draining");
    let mut drained = Box::pin(running.drain());
    tokio::select! {
        () = signals.stop() => {
            // Dropping a worker waits for its threads, and the second signal means that nobody wants to wait.
            std::mem::forget(drained);
            Err(Failure::interrupted())
        }
        () = &mut drained => Ok(()),
    }
}

/// Where the settings come from, every time they are read.
struct Source {
    file: PathBuf,
    flags: Vec<config::Override>,
}

/// The worker, once its stores and listeners are open. A store with much in it takes a while, and the service manager
/// is told that it goes on.
async fn opened(settings: Config, notifier: &Notifier, signals: &mut Signals) -> Result<Running, Failure> {
    notifier.status("opening the stores");
    let mut start = tokio::task::spawn_blocking(move || Worker::start(settings));
    let mut extending = tokio::time::interval(EXTEND_EVERY);
    loop {
        tokio::select! {
            started = &mut start => {
                let started = started.map_err(|error| Failure::error(format!("cannot start: {error}")))?;
                return started.map_err(Failure::error);
            }
            _ = extending.tick() => notifier.extend(EXTEND_BY),
            () = signals.stop() => return Err(Failure::interrupted()),
        }
    }
}

/// Serves until a signal says stop; meanwhile tells the service manager how it is, and reloads or dumps on demand.
async fn until_told(
    running: &Running,
    notifier: &Notifier,
    signals: &mut Signals,
    source: &Source,
) -> Result<(), Failure> {
    let watchdog = running.watchdog();
    let mut feeding = pin!(async {
        match Notifier::watchdog() {
            Some(within) => watchdog.run(within / FEEDS_PER_TIMEOUT, || notifier.alive()).await,
            None => std::future::pending().await,
        }
    });
    let mut status = tokio::time::interval(STATUS_EVERY);
    loop {
        tokio::select! {
            told = signals.next() => match told {
                Told::Stop => return Ok(()),
                Told::Reload => {
                    notifier.reloading();
                    reload(running, source);
                    notifier.ready();
                }
                Told::Dump => running.dump(),
            },
            () = running.wait() => {
                return Err(Failure::error("the worker ended by itself; the log says why"));
            }
            () = &mut feeding => {}
            _ = status.tick() => notifier.status(&running.status_line()),
        }
    }
}

/// Reads the settings again and takes what can be taken: all of it, or nothing.
fn reload(running: &Running, source: &Source) {
    let settings = match config::read(&source.file, source.flags.clone()) {
        Ok(settings) => settings,
        Err(problem) => return running.refuse_reload(&problem.message()),
    };
    let filter = settings.log.filter.clone();
    if let Err(why) = logging::parse_filter(&filter) {
        return running.refuse_reload(&why);
    }
    // What is wrong is logged and counted there.
    if running.reload(settings).is_ok()
        && let Err(error) = logging::set_filter(&filter)
    {
        tracing::warn!(error, "the log's filter could not be changed");
    }
}

/// What a signal means.
enum Told {
    Stop,
    Reload,
    Dump,
}

/// SIGTERM and SIGINT, which mean the same here, SIGHUP and SIGUSR1.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::error(format!("cannot listen for signals: {error}")));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
            user: listen(SignalKind::user_defined1())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hangup.recv() => Told::Reload,
            _ = self.user.recv() => Told::Dump,
        }
    }

    /// The next signal that means stop; others mean nothing meanwhile.
    async fn stop(&mut self) {
        while !matches!(self.next().await, Told::Stop) {}
    }
}
