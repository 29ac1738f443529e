//! The system's packages that building and testing need, and how a missing one is brought.
//!
//! Knows Debian's package names. It must not know what is built. A new need is one entry in a table below.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::workspace::{Failure, Outcome, run};

/// Something that must be on the machine and that cargo cannot bring.
#[derive(Debug)]
pub(crate) struct Need {
    /// What it is, for people.
    what: &'static str,
    /// A command that succeeds where it is present.
    probe: &'static [&'static str],
    /// The Debian packages that bring it.
    debian: &'static [&'static str],
    /// What cannot be done without it.
    why: &'static str,
}

/// What every build needs.
pub(crate) const BUILD: &[Need] = &[
    Need {
        what: "a C and C++ compiler, a linker and make",
        probe: &["sh", "-c", "cc --version && c++ --version && make --version"],
        debian: &["build-essential"],
        why: "rustc links with it; RocksDB is C++, zstd, the TLS library and the allocator are C; make builds the last",
    },
    Need {
        what: "libclang",
        probe: &["sh", "-c", FIND_LIBCLANG],
        debian: &["libclang-dev"],
        why: "RocksDB's bindings are read from its headers with it",
    },
];

/// Succeeds where the bindings' generator finds libclang: only where `LIBCLANG_PATH` says (a directory or the file), if
/// it says anything, else in the places of distributions. `libclang-dev` brings the compiler's own headers along, which
/// are needed too, so without `LIBCLANG_PATH` they are looked for as well.
const FIND_LIBCLANG: &str = r#"
set -- /usr/lib/llvm-*/lib /usr/lib/*-linux-gnu /usr/lib64 /usr/lib /usr/local/lib
headers="/usr/lib/llvm-*/lib/clang/*/include/stddef.h /usr/lib*/clang/*/include/stddef.h"
if [ -n "$LIBCLANG_PATH" ]; then
    [ -f "$LIBCLANG_PATH" ] && exit 0
    set -- "$LIBCLANG_PATH"
    headers=/dev/null
fi
ls $headers 2>/dev/null | grep -q . || exit 1
for directory in "$@"; do
    for library in "$directory"/libclang.so* "$directory"/libclang-[0-9]*.so*; do
        [ -f "$library" ] && exit 0
    done
done
exit 1
"#;

/// What the tests need beside [`BUILD`].
pub(crate) const TESTS: &[Need] = &[
    Need {
        what: "Python 3 with venv",
        probe: &["python3", "-c", "import ensurepip, venv"],
        debian: &["python3", "python3-venv", "python3-pip"],
        why: "the tests' peers, a second S3 server and a gRPC client of another language, are Python programs",
    },
    Need {
        what: "systemd-analyze",
        probe: &["systemd-analyze", "--version"],
        debian: &["systemd"],
        why: "the tests verify the worker's systemd unit with it",
    },
];

/// What the measurements need beside [`BUILD`].
pub(crate) const BENCHES: &[Need] = &[
    Need {
        what: "redis-server",
        probe: &["redis-server", "--version"],
        debian: &["redis-server"],
        why: "Alcedo is measured beside it",
    },
    Need {
        what: "Python 3 with venv",
        probe: &["python3", "-c", "import ensurepip, venv"],
        debian: &["python3", "python3-venv", "python3-pip"],
        why: "the other peers are Python packages",
    },
];

/// Makes sure that all of `needs` are there: installs what is missing where that is possible without a question
/// (Debian and its kin, as root or with passwordless sudo), else says the exact line to run.
pub(crate) fn bring(needs: &[Need]) -> Outcome {
    let missing: Vec<&Need> = needs.iter().filter(|need| !succeeds(need.probe)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let explained: Vec<String> = missing.iter().map(|need| format!("{} ({})", need.what, need.why)).collect();
    let explained = explained.join(", and ");
    let packages = packages_of(&missing);
    let Some(prefix) = rights() else {
        return Err(Failure::Said(advice(&explained, &packages, is_debian())));
    };
    let install = [&["apt-get", "install", "-y", "--no-install-recommends"][..], &packages].concat();
    println!("xtask: missing: {explained}\nxtask: running `apt-get update` and `{}`", install.join(" "));
    for command in [&["apt-get", "update"][..], &install] {
        let words = [prefix, &["env", "DEBIAN_FRONTEND=noninteractive"], command].concat();
        run(Command::new(words[0]).args(&words[1..]))?;
    }
    match missing.iter().find(|need| !succeeds(need.probe)) {
        None => Ok(()),
        Some(need) => Err(Failure::Said(format!(
            "{} was installed, yet {} is not found: run this by hand to see why:\n{}",
            need.debian.join(" "),
            need.what,
            need.probe.join(" ")
        ))),
    }
}

/// The packages that bring all of these, each once.
fn packages_of(needs: &[&Need]) -> Vec<&'static str> {
    let mut packages = Vec::new();
    for package in needs.iter().flat_map(|need| need.debian) {
        if !packages.contains(package) {
            packages.push(package);
        }
    }
    packages
}

/// What a user who must install the packages is told.
fn advice(explained: &str, packages: &[&str], debian: bool) -> String {
    let packages = packages.join(" ");
    if debian {
        let line = format!("apt-get update && sudo apt-get install -y --no-install-recommends {packages}");
        format!("missing: {explained}. Run this once, then start again:\n  sudo {line}")
    } else {
        format!("missing: {explained}. Install what Debian calls `{packages}`, then start again")
    }
}

/// What must stand before a command that installs packages; `None` where we may not.
fn rights() -> Option<&'static [&'static str]> {
    if !is_debian() {
        None
    } else if output_of(&["id", "-u"]).is_some_and(|uid| uid.trim() == "0") {
        Some(&[])
    } else if succeeds(&["sudo", "-n", "true"]) {
        Some(&["sudo", "-n"])
    } else {
        None
    }
}

fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists() && succeeds(&["apt-get", "--version"])
}

fn succeeds(words: &[&str]) -> bool {
    output_of(words).is_some()
}

/// The standard output of a command that succeeds.
fn output_of(words: &[&str]) -> Option<String> {
    let (program, args) = words.split_first()?;
    let output = Command::new(program).args(args).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_installed() {
        const PRESENT: Need = Need { what: "a shell", probe: &["sh", "-c", "true"], debian: &["dash"], why: "-" };
        assert!(bring(&[PRESENT]).is_ok());
    }

    #[test]
    fn a_probe_fails_for_absent_programs_and_for_failing_ones() {
        assert!(!succeeds(&["no-such-program-anywhere"]));
        assert!(!succeeds(&["sh", "-c", "exit 3"]));
        assert!(!succeeds(&[]));
    }

    /// Whether the probe finds a libclang where `LIBCLANG_PATH` is this.
    fn finds_libclang(path: &Path) -> bool {
        let status = Command::new("sh").args(["-c", FIND_LIBCLANG]).env("LIBCLANG_PATH", path).status();
        status.unwrap().success()
    }

    #[test]
    fn libclang_is_looked_for_where_the_environment_says_and_nowhere_else() {
        let home = std::env::temp_dir().join(format!("alcedo-xtask-libclang-{}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        assert!(!finds_libclang(&home), "an empty directory, whatever else the machine has");
        std::fs::write(home.join("libclang-cpp.so"), "").unwrap();
        assert!(!finds_libclang(&home), "another library");
        std::fs::write(home.join("libclang-14.so.14"), "").unwrap();
        assert!(finds_libclang(&home), "a directory that has it");
        assert!(finds_libclang(&home.join("libclang-14.so.14")), "the file itself");
        std::fs::remove_dir_all(&home).unwrap();
    }

    #[test]
    fn the_tables_name_packages_and_reasons() {
        for need in BUILD.iter().chain(TESTS).chain(BENCHES) {
            assert!(!need.probe.is_empty() && !need.debian.is_empty() && !need.why.is_empty(), "{}", need.what);
        }
        let all: Vec<&Need> = BUILD.iter().chain(BUILD).collect();
        assert_eq!(packages_of(&all), ["build-essential", "libclang-dev"]);
    }

    #[test]
    fn the_advice_is_the_exact_line() {
        assert_eq!(
            advice("a C compiler (to link)", &["build-essential", "make"], true),
            "missing: a C compiler (to link). Run this once, then start again:\n  sudo apt-get update && \
             sudo apt-get install -y --no-install-recommends build-essential make"
        );
        assert!(advice("x", &["y"], false).ends_with("Install what Debian calls `y`, then start again"));
    }
}
