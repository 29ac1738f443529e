//! The fuzz targets of `alcedo-lookup`: brings cargo-fuzz, builds all targets, runs each for a while.
//!
//! Knows cargo-fuzz and libFuzzer. It must not know what a target feeds. Everything is kept below `target/fuzz`: the
//! tool, the build, what runs learned, what they found. A build with a sanitizer shares nothing with other builds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::needs;
use crate::workspace::{Failure, Outcome, Workspace, run};

/// Where the targets' own workspace is, from the workspace root.
const HOME: &str = "crates/alcedo-lookup/fuzz";
/// The tool, pinned: what it passes to rustc decides what is built.
const CARGO_FUZZ: &str = "0.13.2";
/// How long each target runs where nothing else is asked for, in seconds.
const SECONDS: u32 = 60;
/// How long the first build takes on the machines it was measured on.
const FIRST_BUILD: &str = "about 5 minutes on 2 cores, once";

/// With optimisation, and without cargo-fuzz's single codegen unit, which only makes the build slow.
const BUILD_OPTIONS: [&str; 3] = ["--release", "--codegen-units", "16"];

/// When an input is a finding: one that takes this many seconds (the sanitizer makes everything some five times slower,
/// and another process may have the core), one that takes this much memory at once, or in all.
const BOUNDS: [&str; 4] = ["-timeout=10", "-malloc_limit_mb=256", "-rss_limit_mb=1024", "-max_len=16384"];

/// The sanitizer keeps freed memory to find uses of it; counted as resident, it would hide what an input takes.
const SANITIZER_OPTIONS: &str = "quarantine_size_mb=8:allocator_may_return_null=1:detect_leaks=0";

/// Runs every target for so many seconds.
pub(crate) fn fuzz(workspace: &Workspace, args: &[String]) -> Outcome {
    let seconds = seconds(args)?;
    needs::bring(needs::BUILD)?;
    let home = workspace.target.join("fuzz");
    bring_cargo_fuzz(workspace, &home)?;
    let targets = targets(&workspace.root.join(HOME))?;
    if !home.join("x86_64-unknown-linux-gnu").exists() {
        println!("fuzz: compiling with a sanitizer, {FIRST_BUILD}");
    }
    run(cargo_fuzz(workspace, &home).arg("build").args(BUILD_OPTIONS))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("fuzz: {} targets, {seconds} s each, {cores} at a time", targets.len());
    let (waiting, failed) = (Mutex::new(targets), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(target) = next(&waiting) {
                    if let Err(text) = run_target(workspace, &home, &target, seconds) {
                        println!("fuzz: {target} FAILED: {text}");
                        failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(target);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if failed.is_empty() { Ok(()) } else { Err(Failure::Said(format!("fuzz: {} found something", failed.join(", ")))) }
}

fn next(waiting: &Mutex<Vec<String>>) -> Option<String> {
    waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop()
}

fn seconds(args: &[String]) -> Result<u32, Failure> {
    match args {
        [] => Ok(SECONDS),
        [text] => match text.parse() {
            Ok(seconds) if seconds > 0 => Ok(seconds),
            _ => Err(Failure::Usage(format!("`fuzz` takes a number of seconds, not `{text}`"))),
        },
        [_, extra, ..] => Err(Failure::Usage(format!("`fuzz` takes one argument, but was given `{extra}` too"))),
    }
}

/// The names of all targets: one source each.
fn targets(home: &Path) -> Result<Vec<String>, Failure> {
    let folder = home.join("targets");
    let entries = fs::read_dir(&folder).map_err(|e| Failure::Said(format!("cannot read {}: {e}", folder.display())))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut names: Vec<String> =
        paths.filter_map(|path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned())).collect();
    names.sort();
    Ok(names)
}

fn program(home: &Path) -> PathBuf {
    home.join("tools/bin/cargo-fuzz")
}

fn bring_cargo_fuzz(workspace: &Workspace, home: &Path) -> Outcome {
    if program(home).exists() {
        return Ok(());
    }
    println!("fuzz: installing cargo-fuzz {CARGO_FUZZ} into {}, about a minute, once", home.display());
    let install = ["install", "--locked", "--quiet", "cargo-fuzz", "--version", CARGO_FUZZ, "--root"];
    run(workspace.cargo(install).arg(home.join("tools")).env("CARGO_TARGET_DIR", home))
}

/// cargo-fuzz, on its own build directory; the sanitizer is an unstable option of the stable compiler.
fn cargo_fuzz(workspace: &Workspace, home: &Path) -> Command {
    let mut command = Command::new(program(home));
    command.arg("fuzz").current_dir(workspace.root.join(HOME).join(".."));
    command.env("CARGO_TARGET_DIR", home).env("RUSTC_BOOTSTRAP", "1").env("ASAN_OPTIONS", SANITIZER_OPTIONS);
    command
}

/// Runs one target; its words go to a file, of which the last line, or the reason of a failure, is said here.
fn run_target(workspace: &Workspace, home: &Path, target: &str, seconds: u32) -> Result<(), String> {
    let (learned, found) = (home.join("learned").join(target), home.join("found").join(target));
    for folder in [&learned, &found] {
        fs::create_dir_all(folder).map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
    }
    let seeds = workspace.root.join(HOME).join("corpus").join(target);
    let mut command = cargo_fuzz(workspace, home);
    command.args(["run", target]).args([&learned, &seeds]).args(BUILD_OPTIONS).arg("--").args(BOUNDS);
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-artifact_prefix={}/", found.display()));
    let output = command.output().map_err(|e| format!("cannot start {}: {e}", program(home).display()))?;
    let log = home.join(format!("{target}.log"));
    fs::write(&log, &output.stderr).map_err(|e| format!("cannot write {}: {e}", log.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        println!("fuzz: {target}: {}", said.lines().rfind(|line| line.starts_with("Done ")).unwrap_or("done"));
        return Ok(());
    }
    Err(format!("{}; see {}, the input is in {}", reason(&said), log.display(), found.display()))
}

/// The line that says why a run ended; a panic's words are in the line after it.
fn reason(said: &str) -> String {
    let tells = |line: &&str| line.contains("panicked at") || line.contains("ERROR: ") || line.starts_with("error");
    let mut lines = said.lines().skip_while(|line| !tells(line));
    match (lines.next(), lines.next()) {
        (Some(place), Some(words)) if place.contains("panicked at") => format!("{place} {words}"),
        (Some(line), _) => line.to_owned(),
        (None, _) => "it ended without a reason".to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn seconds_are_a_number_above_zero() {
        assert_eq!(seconds(&[]).unwrap(), SECONDS);
        assert_eq!(seconds(&args(&["5"])).unwrap(), 5);
        for wrong in [["0"].as_slice(), &["x"], &["-1"], &["1", "2"]] {
            assert!(matches!(seconds(&args(wrong)), Err(Failure::Usage(_))), "{wrong:?}");
        }
    }

    #[test]
    fn every_target_is_declared_and_has_seeds() {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(HOME);
        let manifest = fs::read_to_string(home.join("Cargo.toml")).unwrap();
        let targets = targets(&home).unwrap();
        assert_eq!(targets.len(), manifest.matches("[[bin]]").count());
        for target in targets {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
            assert!(fs::read_dir(home.join("corpus").join(&target)).unwrap().next().is_some(), "{target}");
        }
    }

    #[test]
    fn a_failed_run_says_why() {
        assert_eq!(reason("#1 INITED\npanicked at src/x.rs:1:1:\nboom\n"), "panicked at src/x.rs:1:1: boom");
        assert_eq!(
            reason("==7== ERROR: libFuzzer: timeout after 10 seconds\n"),
            "==7== ERROR: libFuzzer: timeout after 10 seconds"
        );
        assert_eq!(reason(""), "it ended without a reason");
    }
}
