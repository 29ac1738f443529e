//! What the commands do: build, fmt, test, clippy, doc, each one cargo invocation, and the list that `ci` runs.
//!
//! Knows cargo's command line. Every invocation is `--workspace --locked` and has development dependencies in view: a
//! narrower one would choose other features for shared dependencies, and compile them a second time.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::workspace::{Failure, Outcome, Workspace, run};
use crate::{fuzz, needs, python};

/// Builds all programs. One test target, `house`, is named beside them because that makes cargo unify features with the
/// development dependencies, as `cargo test` does; it is small.
const BUILD: &[&str] = &["build", "--workspace", "--locked", "--bins", "--test", "house"];
/// What the quickstart needs of it: the first build is long enough without the programs that measure.
const BUILD_QUICKSTART: &[&str] =
    &["build", "--workspace", "--locked", "--bin", "alcedo", "--bin", "quickstart", "--test", "house"];
const FMT: &[&str] = &["fmt", "--all", "--check"];
const TEST: &[&str] = &["test", "--workspace", "--locked"];
/// One test target, seen with the features of the whole workspace as `test` sees it.
const PROPERTY: &[&str] = &["test", "--workspace", "--locked", "--test", "property", "--", "--nocapture"];
/// Generated files of the property test by command; an ordinary test run has 300.
const PROPERTY_CASES: &str = "10000";
const CLIPPY: &[&str] = &["clippy", "--workspace", "--locked", "--all-targets", "--quiet", "--", "--deny", "warnings"];
const DOC: &[&str] = &["doc", "--workspace", "--locked", "--no-deps", "--quiet"];

/// How long the first build takes on the machines it was measured on, without RocksDB.
const FIRST_BUILD: &str = "about 10 minutes on 2 cores, once";
/// How long RocksDB's own sources take there.
const ROCKSDB_BUILD: &str = "343 C++ files, about 20 minutes on 2 cores, once";
/// The environment variable that names the directory of a RocksDB library which is already there.
const ROCKSDB_LIB_DIR: &str = "ROCKSDB_LIB_DIR";

/// Builds all programs, and says beforehand what takes long.
pub(crate) fn build(workspace: &Workspace) -> Outcome {
    build_some(workspace, BUILD)
}

fn build_some(workspace: &Workspace, programs: &[&str]) -> Outcome {
    needs::bring(needs::BUILD)?;
    if !workspace.binary("alcedo").exists() {
        let lock = fs::read_to_string(workspace.root.join("Cargo.lock")).unwrap_or_default();
        println!("xtask: compiling up to {} crates, {FIRST_BUILD}", crates_in(&lock));
    }
    let given = std::env::var_os(ROCKSDB_LIB_DIR).is_some();
    if let Some(text) = rocksdb_notice(given, rocksdb_is_built(workspace)) {
        println!("xtask: {text}");
    }
    run(&mut workspace.cargo(programs))
}

/// What to say about RocksDB before a build; nothing where it need not be compiled.
fn rocksdb_notice(given: bool, built: bool) -> Option<String> {
    let advice = format!("{ROCKSDB_LIB_DIR} names a directory with a matching library where there is one");
    (!given && !built).then(|| format!("RocksDB is among them, the long step: {ROCKSDB_BUILD}; {advice}"))
}

/// Whether RocksDB's sources have been compiled in this target directory: its build script has left its library.
fn rocksdb_is_built(workspace: &Workspace) -> bool {
    let Ok(entries) = fs::read_dir(workspace.target.join("debug/build")) else { return false };
    let mut of_rocksdb = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("librocksdb-sys-")));
    // The archive is written when all files are compiled, so an interrupted build has none.
    of_rocksdb.any(|path| path.join("out/librocksdb.a").exists())
}

/// Builds, then becomes the quickstart program, so that its signals and its exit code are its own.
pub(crate) fn quickstart(workspace: &Workspace, args: &[String]) -> Outcome {
    build_some(workspace, BUILD_QUICKSTART)?;
    become_program(&mut workspace.program("quickstart", args))
}

/// Builds, then becomes the measuring program; where a run is written it says by itself.
pub(crate) fn bench(workspace: &Workspace, args: &[String]) -> Outcome {
    needs::bring(needs::BENCHES)?;
    build(workspace)?;
    let python = python::prepare(workspace, &python::BENCHES)?;
    let mut command = workspace.program("bench", args);
    become_program(command.env("BENCH_PYTHON", python).env("PYTHONDONTWRITEBYTECODE", "1"))
}

fn become_program(command: &mut Command) -> Outcome {
    let (error, program) = (command.exec(), command.get_program().to_string_lossy().into_owned());
    Err(Failure::Said(format!("cannot start {program}: {error}")))
}

/// Builds, prepares the tests' Python, and runs all tests; `args` go to `cargo test`.
pub(crate) fn test(workspace: &Workspace, args: &[String]) -> Outcome {
    build(workspace)?;
    run_tests(workspace, args)
}

fn run_tests(workspace: &Workspace, args: &[String]) -> Outcome {
    needs::bring(needs::TESTS)?;
    let python = python::prepare(workspace, &python::TESTS)?;
    let mut command = workspace.cargo(TEST);
    command.args(args).env("TESTKIT_ALCEDO", workspace.binary("alcedo"));
    command.env("TESTKIT_PYTHON", python).env("PYTHONDONTWRITEBYTECODE", "1");
    run(&mut command)
}

/// Runs the property test of lookups with more cases than an ordinary test run: `args` are their number and first seed.
pub(crate) fn property(workspace: &Workspace, args: &[String]) -> Outcome {
    let numbers = property_numbers(args)?;
    needs::bring(needs::BUILD)?;
    run(workspace.cargo(PROPERTY).envs(numbers))
}

/// The environment variables that say how many cases there are and which is the first.
fn property_numbers(args: &[String]) -> Result<[(&'static str, &str); 2], Failure> {
    if let Some(word) = args.iter().find(|arg| arg.parse::<u64>().is_err()) {
        return Err(Failure::Usage(format!("`property` takes numbers, but was given `{word}`")));
    }
    let (cases, first) = match args {
        [] => (PROPERTY_CASES, "0"),
        [cases] => (cases.as_str(), "0"),
        [cases, first] => (cases.as_str(), first.as_str()),
        _ => return Err(Failure::Usage("`property` takes two numbers at most".into())),
    };
    Ok([("ALCEDO_PROPERTY_CASES", cases), ("ALCEDO_PROPERTY_FIRST", first)])
}

/// Checks the formatting; changes nothing.
pub(crate) fn fmt_check(workspace: &Workspace) -> Outcome {
    run(&mut workspace.cargo(FMT))
}

/// Lints everything; a warning is a failure.
pub(crate) fn clippy(workspace: &Workspace) -> Outcome {
    needs::bring(needs::BUILD)?;
    run(&mut workspace.cargo(CLIPPY))
}

/// Builds the documentation; a warning is a failure.
pub(crate) fn doc(workspace: &Workspace) -> Outcome {
    needs::bring(needs::BUILD)?;
    run(workspace.cargo(DOC).env("RUSTDOCFLAGS", "--deny warnings"))
}

/// One step of `ci`.
struct Step {
    name: &'static str,
    /// The steps after it would only repeat its errors.
    ends_the_run: bool,
    run: fn(&Workspace) -> Outcome,
}

/// Everything that must hold before a change is accepted, cheapest news first.
const CI: &[Step] = &[
    Step { name: "fmt", ends_the_run: false, run: fmt_check },
    Step { name: "build", ends_the_run: true, run: build },
    Step { name: "test", ends_the_run: false, run: |workspace| run_tests(workspace, &["--no-fail-fast".into()]) },
    Step { name: "clippy", ends_the_run: false, run: clippy },
    Step { name: "doc", ends_the_run: false, run: doc },
    Step { name: "fuzz", ends_the_run: false, run: |workspace| fuzz::fuzz(workspace, &[]) },
];

/// Runs every step of [`CI`], even after a failed one, and gives the verdict.
pub(crate) fn ci(workspace: &Workspace) -> Outcome {
    verdict(&run_all(workspace, CI))
}

/// What came of one step.
struct Entry {
    name: &'static str,
    passed: bool,
    time: Duration,
}

fn run_all(workspace: &Workspace, steps: &[Step]) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(steps.len());
    for step in steps {
        println!("ci: {} ...", step.name);
        let start = Instant::now();
        let outcome = (step.run)(workspace);
        let entry = Entry { name: step.name, passed: outcome.is_ok(), time: start.elapsed() };
        println!("ci: {}", describe(&entry));
        if let Err(Failure::Said(text)) = outcome {
            println!("ci: {text}");
        }
        let ends = step.ends_the_run && !entry.passed;
        entries.push(entry);
        if ends {
            break;
        }
    }
    entries
}

fn verdict(entries: &[Entry]) -> Outcome {
    let total = entries.iter().map(|entry| entry.time).sum::<Duration>().as_secs_f64();
    let failed: Vec<&str> = entries.iter().filter(|entry| !entry.passed).map(|entry| entry.name).collect();
    if failed.is_empty() {
        println!("ci: PASSED, all {} steps in {total:.0} s", entries.len());
        Ok(())
    } else {
        println!("ci: FAILED: {} ({total:.0} s)", failed.join(", "));
        Err(Failure::Exit(1))
    }
}

fn describe(entry: &Entry) -> String {
    let word = if entry.passed { "ok" } else { "FAILED" };
    format!("{} {word} ({:.1} s)", entry.name, entry.time.as_secs_f64())
}

/// The number of packages in a lock file.
fn crates_in(lock: &str) -> usize {
    lock.lines().filter(|line| *line == "[[package]]").count()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn names(entries: &[Entry]) -> Vec<String> {
        entries.iter().map(|e| format!("{} {}", e.name, e.passed)).collect()
    }

    #[test]
    fn a_failed_step_fails_the_run_and_only_the_build_ends_it() {
        let workspace = Workspace { root: "/".into(), target: "/".into(), cargo: "cargo".into() };
        let fine = Step { name: "fine", ends_the_run: false, run: |_| Ok(()) };
        let bad = Step { name: "bad", ends_the_run: false, run: |_| Err(Failure::Exit(101)) };
        let last = Step { name: "last", ends_the_run: true, run: |_| Err(Failure::Said("no".into())) };
        let entries =
            run_all(&workspace, &[bad, fine, last, Step { name: "never", ends_the_run: false, run: |_| Ok(()) }]);
        assert_eq!(names(&entries), ["bad false", "fine true", "last false"]);
        assert!(matches!(verdict(&entries), Err(Failure::Exit(1))));
        assert!(verdict(&entries[1..2]).is_ok());
    }

    #[test]
    fn every_cargo_invocation_sees_the_whole_workspace_and_keeps_the_lock_file() {
        for args in [BUILD, BUILD_QUICKSTART, TEST, PROPERTY, CLIPPY, DOC] {
            assert!(args.contains(&"--workspace") && args.contains(&"--locked"), "{args:?}");
        }
    }

    #[test]
    fn rocksdb_is_announced_only_before_it_is_compiled() {
        let target = std::env::temp_dir().join(format!("alcedo-xtask-rocksdb-{}", std::process::id()));
        let out = target.join("debug/build/librocksdb-sys-0123/out");
        let workspace = Workspace { root: "/".into(), target: target.clone(), cargo: "cargo".into() };
        assert!(!rocksdb_is_built(&workspace), "there is no target directory");
        fs::create_dir_all(&out).unwrap();
        fs::write(out.join("bindings.rs"), "").unwrap();
        assert!(!rocksdb_is_built(&workspace), "only begun");
        fs::write(out.join("librocksdb.a"), "").unwrap();
        assert!(rocksdb_is_built(&workspace));
        fs::remove_dir_all(&target).unwrap();

        let text = rocksdb_notice(false, false).unwrap();
        assert!(text.contains("343 C++ files, about 20 minutes") && text.contains("ROCKSDB_LIB_DIR"), "{text}");
        assert_eq!(rocksdb_notice(false, true), None);
        assert_eq!(rocksdb_notice(true, false), None, "a library that is there is linked, nothing is compiled");
    }

    #[test]
    fn packages_of_a_lock_file_are_counted() {
        assert_eq!(crates_in("version = 4\n\n[[package]]\nname = \"a\"\n\n[[package]]\nname = \"b\"\n"), 2);
    }
}
