//! `alcedo config`: a worker's settings, checked and shown; and where `worker run` gets them.
//!
//! Precedence: flag, `ALCEDO_*`, file, default. It finds the texts; what they mean is the worker's.

use std::path::{Path, PathBuf};

use alcedo_worker::{Config, ConfigError};
use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

use super::Context;
use crate::failure::{Failure, exit};
use crate::output::aligned::aligned;
use crate::output::quantity::counted;
use crate::output::{API_VERSION, Format, json_document};

/// The worker's settings unless another file is named.
const DEFAULT_FILE: &str = "/etc/alcedo/worker.toml";

/// A configuration of thousands of mounts is smaller; what is larger is something else.
const MAX_FILE_BYTES: u64 = 4 << 20;

const PREFIX: &str = "ALCEDO_";
/// Variables of the command itself, which are no settings of a worker.
const OWN_VARIABLES: [&str; 3] = ["ALCEDO_ENDPOINTS", "ALCEDO_TIMEOUT", crate::logging::FILTER_VARIABLE];

/// What to do with a worker's settings.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check the settings that a worker would start with; exit code 7 if it would not
    Check(CheckArgs),
    /// Show every setting that a worker would start with, without secrets
    ///
    /// Prints aligned columns, or -o table|json.
    Show(ShowArgs),
}

/// The flags of `config check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Settings file of a worker [default: --config, else /etc/alcedo/worker.toml]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// The flags of `config show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Settings file of a worker [default: --config, else /etc/alcedo/worker.toml]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Also where each value comes from: file and line, variable, or default
    #[arg(long)]
    origin: bool,
}

/// Checks or shows.
///
/// # Errors
/// The file cannot be read, or its settings are wrong.
pub(crate) async fn run(command: ConfigCommand, context: &Context) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check(args) => {
            let file = file(args.file.as_deref(), context);
            let config = load(&file, Vec::new()).map_err(Problem::of_check)?;
            let mounts = counted(config.mounts.len() as u64, "mount");
            let line = format!(
                "{} is fine: worker {}, listens on {}, {mounts}\n",
                file.display(),
                config.worker_id,
                config.listen
            );
            context.terminal.print(line).await
        }
        ConfigCommand::Show(args) => {
            let formats = [Format::Table, Format::Json];
            let format = Format::among(context.globals.output, Format::Table, &formats)?;
            let settings = load(&file(args.file.as_deref(), context), Vec::new()).map_err(Problem::failure)?.describe();
            context.terminal.print(print(settings, format, args.origin)).await
        }
    }
}

/// The settings file that a command names.
pub(crate) fn file(named: Option<&Path>, context: &Context) -> PathBuf {
    named.or(context.globals.config.as_deref()).unwrap_or(Path::new(DEFAULT_FILE)).to_owned()
}

fn print(settings: Vec<(String, String, String)>, format: Format, origin: bool) -> Vec<u8> {
    if format == Format::Json {
        let item =
            |(key, value, origin): (String, String, String)| json!({ "key": key, "value": value, "origin": origin });
        let items: Json = settings.into_iter().map(item).collect();
        return json_document(&json!({ "apiVersion": API_VERSION, "kind": "WorkerConfig", "items": items }));
    }
    if origin {
        let line = |(key, value, origin)| [key, format!("= {value}"), format!("# {origin}")];
        return aligned(None, &settings.into_iter().map(line).collect::<Vec<_>>()).into_bytes();
    }
    aligned(None, &settings.into_iter().map(|(key, value, _)| [key, format!("= {value}")]).collect::<Vec<_>>())
        .into_bytes()
}

/// What keeps a worker from starting.
#[derive(Debug, Clone)]
pub(crate) enum Problem {
    /// There is no such file, or it cannot be read.
    Unreadable(String),
    /// It can be read, and is wrong.
    Wrong(String),
}

impl Problem {
    /// What is wrong, in one line.
    pub(crate) fn message(&self) -> &str {
        let (Self::Unreadable(message) | Self::Wrong(message)) = self;
        message
    }

    pub(crate) fn failure(self) -> Failure {
        match self {
            Self::Unreadable(message) => {
                Failure::error(message).hint("name the settings file: --config FILE; deploy/worker.example.toml is one")
            }
            Self::Wrong(message) => Failure::error(message),
        }
    }

    fn of_check(self) -> Failure {
        match self {
            Self::Wrong(message) => Failure::new(exit::CHECK_FAILED, message),
            unreadable => unreadable.failure(),
        }
    }
}

/// A setting from outside the file: its key, its text, and what to call the place it comes from.
pub(crate) type Override = (String, String, String);

/// The settings in a file, with the environment and flags on top, checked.
///
/// # Errors
/// See [`Problem`].
pub(crate) fn load(file: &Path, flags: Vec<Override>) -> Result<Config, Problem> {
    let config = read(file, flags)?;
    config.check().map_err(|error| Problem::Wrong(error.to_string()))?;
    Ok(config)
}

/// The same, but the rules for a worker that is to start are not checked: one that runs has rules of its own.
///
/// # Errors
/// See [`Problem`].
pub(crate) fn read(file: &Path, flags: Vec<Override>) -> Result<Config, Problem> {
    let name = file.display().to_string();
    let unreadable = |error: std::io::Error| Problem::Unreadable(format!("cannot read {name}: {}", error.kind()));
    if std::fs::metadata(file).map_err(unreadable)?.len() > MAX_FILE_BYTES {
        return Err(Problem::Unreadable(format!("{name} has more than {MAX_FILE_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    let wrong = |error: ConfigError| Problem::Wrong(error.to_string());
    let mut config = Config::from_toml(&text, &name).map_err(wrong)?;
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    for (key, text, origin) in overrides(variables).into_iter().chain(flags) {
        config.apply_override(&key, &text, &origin).map_err(wrong)?;
    }
    Ok(config)
}

/// The settings in environment variables, in the order of their names: `ALCEDO_CACHE__PAGES` is `cache.pages`.
fn overrides(variables: impl Iterator<Item = (String, String)>) -> Vec<Override> {
    let setting = |(name, value): (String, String)| {
        let key = name.strip_prefix(PREFIX)?;
        if OWN_VARIABLES.contains(&name.as_str()) || is_service_link(key, &value) {
            return None;
        }
        Some((key.to_ascii_lowercase().replace("__", "."), value, name))
    };
    let mut overrides: Vec<Override> = variables.filter_map(setting).collect();
    overrides.sort_by(|a, b| a.2.cmp(&b.2));
    overrides
}

/// Kubernetes puts the addresses of every service of a namespace into every container; a service named `alcedo` or
/// `alcedo-worker` must not keep workers from starting.
fn is_service_link(key: &str, value: &str) -> bool {
    let in_words = |part: &str| key == part || key.ends_with(&format!("_{part}")) || key.contains(&format!("{part}_"));
    in_words("SERVICE_HOST")
        || in_words("SERVICE_PORT")
        || (in_words("PORT") && (value.contains("://") || key.contains("_TCP")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_settings_unless_they_are_others() {
        let variables = [
            ("ALCEDO_LISTEN", "127.0.0.1:1"),
            ("ALCEDO_CACHE__PAGES", "1GiB"),
            ("ALCEDO_ENDPOINTS", "a:1"),
            ("ALCEDO_TIMEOUT", "1s"),
            ("ALCEDO_LOG", "info"),
            ("ALCEDO_SERVICE_HOST", "10.0.0.1"),
            ("ALCEDO_SERVICE_PORT_GRPC", "7610"),
            ("ALCEDO_PORT", "tcp://10.0.0.1:7610"),
            ("ALCEDO_PORT_7610_TCP_ADDR", "10.0.0.1"),
            ("ALCEDO_WORKER_PORT", "tcp://10.0.0.1:7610"),
            ("PATH", "/bin"),
        ];
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let wanted = [("cache.pages", "1GiB", "ALCEDO_CACHE__PAGES"), ("listen", "127.0.0.1:1", "ALCEDO_LISTEN")];
        let wanted = wanted.map(|(key, text, origin)| (key.to_owned(), text.to_owned(), origin.to_owned()));
        assert_eq!(overrides(variables), wanted);
    }

    #[test]
    fn settings_are_shown_with_their_origins() {
        let settings = || vec![("listen".to_owned(), "\"a:1\"".to_owned(), "w.toml:3".to_owned())];
        let printed = |format, origin| String::from_utf8(print(settings(), format, origin)).unwrap();
        assert_eq!(printed(Format::Table, false), "listen  = \"a:1\"\n");
        assert_eq!(printed(Format::Table, true), "listen  = \"a:1\"  # w.toml:3\n");
        let json: Json = serde_json::from_str(&printed(Format::Json, false)).unwrap();
        assert_eq!(
            (json["kind"].as_str(), json["items"][0]["origin"].as_str()),
            (Some("WorkerConfig"), Some("w.toml:3"))
        );
    }

    #[test]
    fn the_example_is_a_configuration() {
        let example = include_str!("../../../../deploy/worker.example.toml");
        let config = Config::from_toml(example, "worker.example.toml").unwrap();
        config.check().unwrap();
        assert!(!config.mounts.is_empty());
        // What is commented out must work too when somebody takes the `#` away.
        let uncommented: String = example
            .lines()
            .map(|line| {
                format!("{}\n", line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '#'])).unwrap_or(line))
            })
            .collect();
        assert_ne!(uncommented, example);
        Config::from_toml(&uncommented, "worker.example.toml").unwrap().check().unwrap();
    }
}
