//! The `alcedo` command: point lookups on Parquet data lakes from a terminal, and the entry point of the worker daemon.
//!
//! The top of the house, and thin: it parses, prints and wires, and has no rules of its own. From the bottom up:
//! `failure` (exit codes), `terminal` (the standard streams), `output` (formats), `settings` (files of the client),
//! `cli` (flags), `commands`.

mod cli;
mod commands;
mod failure;
mod logging;
mod output;
mod settings;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::commands::Context;
use crate::failure::{Failure, exit};
use crate::terminal::Terminal;

/// The C library keeps what is freed, so that a worker whose caches have become smaller is as large as before, and is
/// refused its memory for ever (measured: 165 MiB of which 57 were freed). This one gives it back within a second.
#[cfg(feature = "worker")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // Help that nobody reads (`alcedo --help | head -1`) is no failure.
            let _ = usage.print();
            return u8::try_from(usage.exit_code()).unwrap_or(exit::USAGE).into();
        }
    };
    let terminal = Terminal::new(cli.globals.color, cli.globals.quiet);
    match start(cli, terminal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            terminal.say(&failure.lines(terminal.color));
            failure.code().into()
        }
    }
}

fn start(cli: Cli, terminal: Terminal) -> Result<(), Failure> {
    logging::start(&cli, terminal.color)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::error(format!("cannot start: {error}")))?;
    let context = Context { globals: cli.globals, terminal };
    let result = runtime.block_on(run(cli.command, &context));
    // A thread may still wait for a key on stdin or for a pager; the process does not.
    runtime.shutdown_background();
    result
}

async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        #[cfg(feature = "worker")]
        Command::Worker(command) => Box::pin(commands::worker::run(command, context)).await,
        // It prints what it measured before it ends.
        Command::Bench(command) => Box::pin(commands::bench::run(command, context)).await,
        command => {
            tokio::select! {
                result = Box::pin(ask(command, context)) => result,
                Ok(()) = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
            }
        }
    }
}

/// The commands that end by themselves, and at once on Ctrl-C.
async fn ask(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Get(args) => commands::get::run(args, context).await,
        Command::Explain(args) => commands::explain::run(args, context).await,
        Command::Stat(args) => commands::stat::run(args, context).await,
        Command::Ls(args) => commands::ls::run(args, context).await,
        Command::Who(args) => commands::who::run(args, context).await,
        Command::Check(args) => commands::check::run(args, context).await,
        Command::Free(args) => commands::free::run(args, context).await,
        Command::Pin(args) => commands::pin::run(args, context).await,
        Command::Pins(args) => commands::pins::run(args, context).await,
        Command::Unpin(args) => commands::unpin::run(args, context).await,
        Command::Status => commands::status::run(context).await,
        Command::Workers => commands::workers::run(context).await,
        Command::Ring(command) => commands::ring::run(command, context).await,
        Command::Bench(command) => commands::bench::run(command, context).await,
        Command::Completion(args) => commands::completion::run(args, context).await,
        Command::Man(args) => commands::man::run(args, context).await,
        #[cfg(feature = "worker")]
        Command::Config(command) => commands::config::run(command, context).await,
        #[cfg(feature = "worker")]
        Command::Worker(command) => commands::worker::run(command, context).await,
    }
}
