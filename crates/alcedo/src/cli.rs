//! The command line: global flags and the tree of commands.
//!
//! Each command's own flags are beside it in `commands`. Texts here are what `--help` prints; docs/CLI.md has the long
//! form, and a test compares the two.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, Args, Parser, Subcommand};

use crate::commands::{bench, check, completion, explain, free, get, ls, man, pin, pins, ring, stat, unpin, who};
use crate::output::Format;
use crate::settings;
use crate::terminal::Color;

/// Point lookups on Parquet data lakes
#[derive(Debug, Parser)]
#[command(name = "alcedo", version, propagate_version = true, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global flags")]
pub(crate) struct Globals {
    /// Settings file; for `worker run` and `config`, the worker's
    #[arg(short, long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Workers to ask; one that answers is enough [default: 127.0.0.1:7610]
    #[arg(short, long, global = true, value_name = "HOST:PORT,...", env = "ALCEDO_ENDPOINTS", value_delimiter = ',',
        value_parser = NonEmptyStringValueParser::new())]
    pub(crate) endpoints: Option<Vec<String>>,
    /// Output format; what a command prints without it is in its help
    #[arg(short, long, global = true, value_name = "FORMAT", value_enum, hide_possible_values = true)]
    pub(crate) output: Option<Format>,
    /// Leave out the line of column names
    #[arg(long, global = true)]
    pub(crate) no_headers: bool,
    /// No summary line on stderr
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Log to stderr; twice for more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Colour on stderr
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,
    /// Longest time of a call [default: 5s]
    #[arg(long, global = true, value_name = "DURATION", env = "ALCEDO_TIMEOUT", value_parser = settings::timeout)]
    pub(crate) timeout: Option<Duration>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the rows whose key column equals a key
    ///
    /// Prints a table on a terminal and jsonl elsewhere, or -o table|json|jsonl|csv|tsv|arrow|raw.
    Get(get::GetArgs),
    /// Show how a lookup would go, or where its time and bytes went
    ///
    /// Prints a tree, or -o table|json.
    Explain(explain::ExplainArgs),
    /// Show a file's size, version and what is known of it
    ///
    /// Prints aligned columns, or -o table|json|name.
    Stat(stat::StatArgs),
    /// List the files below a path, or the mounts
    ///
    /// Prints aligned columns, or -o table|json|jsonl|name.
    Ls(ls::LsArgs),
    /// Show which worker a path belongs to, and whether the workers agree
    ///
    /// Prints aligned columns, or -o table|json|jsonl|name.
    Who(who::WhoArgs),
    /// Show what the workers hold of a file, or of the files below a prefix
    ///
    /// Prints aligned columns, or -o table|json|jsonl|name.
    Check(check::CheckArgs),
    /// Make the workers drop what they hold of a file, or of the files below a prefix
    ///
    /// Prints aligned columns, or -o table|json|jsonl.
    Free(free::FreeArgs),
    /// Keep parts of a file, or of the files below a prefix, whatever else is asked
    ///
    /// Prints aligned columns, or -o table|json|jsonl.
    Pin(pin::PinArgs),
    /// List what is pinned, and what came of it
    ///
    /// Prints aligned columns, or -o table|json|jsonl|name.
    Pins(pins::PinsArgs),
    /// End a pin, and drop what it kept
    ///
    /// Prints aligned columns, or -o table|json|jsonl.
    Unpin(unpin::UnpinArgs),
    /// Show how the cluster is doing, and what somebody should look at
    ///
    /// Prints a few lines, or -o table|json.
    Status,
    /// List the workers and how each is doing
    ///
    /// Prints aligned columns, or -o table|json|jsonl|name.
    Workers,
    /// Look at the ring
    #[command(subcommand)]
    Ring(ring::RingCommand),
    /// Measure
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Run the daemon
    #[cfg(feature = "worker")]
    #[command(subcommand)]
    Worker(crate::commands::worker::WorkerCommand),
    /// Check or show a worker's settings
    #[cfg(feature = "worker")]
    #[command(subcommand)]
    Config(crate::commands::config::ConfigCommand),
    /// Print a script that teaches a shell the commands and flags
    Completion(completion::CompletionArgs),
    /// Print the manual page, or write the pages of all commands
    Man(man::ManArgs),
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const REFERENCE: &str = include_str!("../../../docs/CLI.md");

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }

    /// The part of the reference below a heading, up to the next heading of any level.
    fn section(heading: &str) -> Option<&'static str> {
        let start = REFERENCE.find(&format!("\n{heading}\n"))? + heading.len() + 2;
        let rest = &REFERENCE[start..];
        Some(&rest[..rest.find("\n## ").unwrap_or(rest.len())])
    }

    fn check(command: &clap::Command, path: &str, missing: &mut Vec<String>) {
        let leaf = command.get_subcommands().next().is_none();
        let heading = format!("## `{path}`");
        let text = match section(&heading) {
            Some(text) => text,
            None if leaf => return missing.push(heading),
            None => "",
        };
        for arg in command.get_arguments().filter(|arg| leaf && !arg.is_global_set()) {
            let name = match (arg.get_long(), arg.get_short()) {
                (Some("help" | "version"), _) => continue,
                (Some(long), Some(short)) => format!("`-{short}`, `--{long}`"),
                (Some(long), None) => format!("`--{long}`"),
                (None, Some(short)) => format!("`-{short}`"),
                (None, None) => format!("`{}`", arg.get_value_names().map(|names| names.join(" ")).unwrap_or_default()),
            };
            if !text.contains(&name) {
                missing.push(format!("{path} {name}"));
            }
        }
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            check(below, &format!("{path} {}", below.get_name()), missing);
        }
    }

    #[test]
    fn the_reference_has_every_command_and_flag() {
        let mut missing = Vec::new();
        let tree = Cli::command();
        check(&tree, "alcedo", &mut missing);
        let globals = section("## Global flags").unwrap();
        for arg in tree.get_arguments() {
            let long = arg.get_long().unwrap();
            if !globals.contains(&format!("`--{long}`")) {
                missing.push(format!("global --{long}"));
            }
        }
        for format in <Format as clap::ValueEnum>::value_variants() {
            let name = clap::ValueEnum::to_possible_value(format).unwrap().get_name().to_owned();
            if !REFERENCE.contains(&format!("| `{name}` |")) {
                missing.push(format!("format {name}"));
            }
        }
        assert!(missing.is_empty(), "docs/CLI.md lacks {missing:#?}");
    }
}
