//! `cargo xtask`: the repository's own commands, without dependencies, so that a fresh machine has them in seconds.
//!
//! Reads the command line and says what went wrong. The rest, from the bottom up: `workspace` (paths and processes),
//! `needs` (packages of the system), `python` (the tests' Python), `steps` (what each command does), `fuzz` (the
//! fuzz targets).

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the terminal is this program's only output")]

mod fuzz;
mod needs;
mod python;
mod steps;
mod workspace;

use std::process::ExitCode;

use workspace::{Failure, Outcome, Workspace};

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  quickstart [ARG...]  bring what is missing, build, and look up rows of a sample lake (--help: its options)
  test [ARG...]        build and run all tests; ARG... go to `cargo test`
  bench [ARG...]       build, and measure beside floors and peers into benches/runs (--help: its options)
  property [N [SEED]]  lookups against a plain scan: N generated files (10,000), from this seed (0) on
  fuzz [SECONDS]       run every fuzz target for so long, 60 where nothing is said
  ci                   everything that a change must pass: fmt, build, test, clippy, doc, fuzz
  fmt-check            is everything formatted? (`cargo fmt` formats)
  clippy               lints, warnings denied
  doc                  documentation, warnings denied
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Exit(code)) => ExitCode::from(code),
        Err(Failure::Said(text)) => {
            eprintln!("xtask: {text}");
            ExitCode::FAILURE
        }
        Err(Failure::Usage(text)) => {
            eprintln!("xtask: {text}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn dispatch(args: &[String]) -> Outcome {
    let Some((command, rest)) = args.split_first() else {
        return Err(Failure::Usage("which command?".into()));
    };
    let takes_arguments = matches!(command.as_str(), "quickstart" | "test" | "bench" | "property" | "fuzz");
    if let (false, Some(extra)) = (takes_arguments, rest.first()) {
        return Err(Failure::Usage(format!("`{command}` takes no argument, but was given `{extra}`")));
    }
    match command.as_str() {
        "quickstart" => steps::quickstart(&Workspace::find()?, rest),
        "test" => steps::test(&Workspace::find()?, rest),
        "bench" => steps::bench(&Workspace::find()?, rest),
        "property" => steps::property(&Workspace::find()?, rest),
        "fuzz" => fuzz::fuzz(&Workspace::find()?, rest),
        "ci" => steps::ci(&Workspace::find()?),
        "fmt-check" => steps::fmt_check(&Workspace::find()?),
        "clippy" => steps::clippy(&Workspace::find()?),
        "doc" => steps::doc(&Workspace::find()?),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        unknown => Err(Failure::Usage(format!("there is no command `{unknown}`"))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn usage_error(args: &[&str]) -> String {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        match dispatch(&args) {
            Err(Failure::Usage(text)) => text,
            other => panic!("{args:?}: {other:?}"),
        }
    }

    #[test]
    fn a_wrong_command_line_is_refused_before_anything_runs() {
        assert_eq!(usage_error(&[]), "which command?");
        assert_eq!(usage_error(&["tset"]), "there is no command `tset`");
        assert_eq!(usage_error(&["property", "many"]), "`property` takes numbers, but was given `many`");
        assert_eq!(usage_error(&["property", "1", "2", "3"]), "`property` takes two numbers at most");
        assert_eq!(usage_error(&["ci", "--fast"]), "`ci` takes no argument, but was given `--fast`");
    }
}
