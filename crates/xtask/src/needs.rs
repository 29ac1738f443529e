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
pub(crate) const BUILD: &[Need] = &[Need {
    what: "a C compiler and linker",
    probe: &["cc", "--version"],
    debian: &["build-essential"],
    why: "rustc links with it; zstd and the TLS library are C",
}];

/// What the tests need beside [`BUILD`].
pub(crate) const TESTS: &[Need] = &[Need {
    what: "Python 3 with venv",
    probe: &["python3", "-c", "import ensurepip, venv"],
    debian: &["python3", "python3-venv", "python3-pip"],
    why: "the tests' peers, a second S3 server and a gRPC client of another language, are Python programs",
}];

/// Makes sure that all of `needs` are there: installs what is missing where that is possible without a question
/// (Debian and its kin, as root or with passwordless sudo), else says the exact line to run.
pub(crate) fn bring(needs: &[Need]) -> Outcome {
    let missing: Vec<&Need> = needs.iter().filter(|need| !succeeds(need.probe)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let explained: Vec<String> = missing.iter().map(|need| format!("{} ({})", need.what, need.why)).collect();
    let explained = explained.join(", and ");
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.debian.iter().copied()).collect();
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
            "{} was installed, yet `{}` still fails: run it by hand to see why",
            need.debian.join(" "),
            need.probe.join(" ")
        ))),
    }
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
