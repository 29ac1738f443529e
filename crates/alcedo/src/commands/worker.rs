//! `alcedo worker run`: the daemon's entry point.
//!
//! It reads flags, environment and file, starts the worker, and turns signals into a drain. Everything else is the
//! worker's.

use std::time::Duration;

use alcedo_worker::Worker;
use clap::{Args, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Context, config};
use crate::failure::Failure;
use crate::logging::LogFormat;
use crate::output::quantity::counted;

/// How long requests under way may take after the first signal: the longest that a request is granted. A service
/// manager should wait a little longer before it kills.
const DRAIN_GRACE: Duration = Duration::from_secs(30);

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
    let file = config::file(None, context);
    let settings = config::load(&file, flags.into_iter().flatten().collect()).map_err(config::Problem::failure)?;
    // Before the worker says that it is ready: from then on a signal means drain.
    let mut signals = Signals::new()?;
    let (id, mounts) = (settings.worker_id.clone(), counted(settings.mounts.len() as u64, "mount"));
    let mut running = Worker::start(settings).map_err(Failure::error)?;
    context.terminal.say(&format!("alcedo worker {id} ready on {}, {mounts}\n", running.local_addr()));
    tokio::select! {
        () = signals.next() => tracing::info!("draining; another signal ends it at once"),
        () = running.wait() => return Err(Failure::error("the worker ended by itself; the log says why")),
    }
    let mut drained = Box::pin(running.shutdown(DRAIN_GRACE));
    tokio::select! {
        () = signals.next() => {
            // Dropping a worker waits for its threads, and the second signal means that nobody wants to wait.
            std::mem::forget(drained);
            Err(Failure::interrupted())
        }
        () = &mut drained => Ok(()),
    }
}

/// SIGTERM and SIGINT, which mean the same here.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::error(format!("cannot listen for signals: {error}")));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
