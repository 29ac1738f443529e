//! Logs on stderr.
//!
//! The worker logs at `info`, as text on a terminal or JSON for a collector; the other commands log nothing unless they
//! are asked to. It knows filters and formats, not what is logged.

use std::sync::OnceLock;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use crate::cli::Cli;
use crate::failure::Failure;

/// The variable with a filter such as `alcedo_worker=debug,info`; it wins over `-v`.
pub(crate) const FILTER_VARIABLE: &str = "ALCEDO_LOG";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object per line
    Json,
}

/// Starts logging for this process.
///
/// # Errors
/// The filter in the environment is wrong.
pub(crate) fn start(cli: &Cli, color: bool) -> Result<(), Failure> {
    let (base, format) = match &cli.command {
        #[cfg(feature = "worker")]
        crate::cli::Command::Worker(command) => (1, command.log_format()),
        _ => (0, LogFormat::Text),
    };
    let from_environment = std::env::var(FILTER_VARIABLE).ok().filter(|filter| !filter.is_empty());
    let filter = match &from_environment {
        Some(filter) => filter.as_str(),
        None => level(base + cli.globals.verbose),
    };
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| Failure::usage(format!("{FILTER_VARIABLE}={filter} is no log filter: {error}")))?;
    let base = if from_environment.is_some() { None } else { Some(level(base + cli.globals.verbose)) };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Logging that was started already, as tests do, stays.
    let _ = match format {
        LogFormat::Text => {
            let builder = builder.with_ansi(color).with_filter_reloading();
            let handle = builder.reload_handle();
            remember(base, Box::new(move |filter| handle.reload(filter).is_ok()));
            builder.try_init()
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            remember(base, Box::new(move |filter| handle.reload(filter).is_ok()));
            builder.try_init()
        }
    };
    Ok(())
}

/// Changes the filter of the running process.
struct Changer {
    /// What holds where the settings say nothing; none where the environment decides.
    base: Option<&'static str>,
    change: Box<dyn Fn(EnvFilter) -> bool + Send + Sync>,
}

static CHANGER: OnceLock<Changer> = OnceLock::new();

fn remember(base: Option<&'static str>, change: Box<dyn Fn(EnvFilter) -> bool + Send + Sync>) {
    // Set once, by the one start of a process.
    let _ = CHANGER.set(Changer { base, change });
}

/// A filter that the settings name.
///
/// # Errors
/// It is none; in words.
#[cfg(feature = "worker")]
pub(crate) fn parse_filter(text: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(text).map_err(|error| format!("log.filter: `{text}` is no log filter: {error}"))
}

/// Takes the filter that the settings name, empty for the command's own; the environment's wins over both.
#[cfg(feature = "worker")]
pub(crate) fn set_filter(text: &str) -> Result<(), String> {
    let Some(Changer { base: Some(base), change }) = CHANGER.get() else { return Ok(()) };
    let filter = parse_filter(if text.is_empty() { base } else { text })?;
    if change(filter) { Ok(()) } else { Err("the log is closed".to_owned()) }
}

/// The filter for a verbosity: our crates one level ahead of the libraries below.
fn level(verbosity: u8) -> &'static str {
    match verbosity {
        0 => "off",
        1 => "warn,alcedo=info,alcedo_worker=info,alcedo_origin=info,alcedo_client=info,alcedo_cache=info",
        2 => "info,alcedo=debug,alcedo_worker=debug,alcedo_origin=debug,alcedo_client=debug,alcedo_cache=debug",
        _ => "debug,alcedo=trace,alcedo_worker=trace,alcedo_origin=trace,alcedo_client=trace,alcedo_cache=trace",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_verbosity_is_a_filter() {
        for verbosity in 0..=4 {
            EnvFilter::try_new(level(verbosity)).unwrap();
        }
    }

    #[cfg(feature = "worker")]
    #[test]
    fn a_filter_of_the_settings_is_checked_before_it_is_taken() {
        assert!(parse_filter("alcedo_worker=debug,info").is_ok());
        let wrong = parse_filter("alcedo_worker=loud").unwrap_err();
        assert!(wrong.starts_with("log.filter: `alcedo_worker=loud` is no log filter: "), "{wrong}");
    }
}
