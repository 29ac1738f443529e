//! Where the checkout and its build output are, and how a command is run in them.
//!
//! The lowest room of `xtask`: it knows paths, processes and exit codes. It must not know what a command is for.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// Why a command of `xtask` ended without doing its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something is missing or wrong: the text says what, and what to do about it.
    Said(String),
    /// A program that was started has already said why; its exit code is handed on.
    Exit(u8),
    /// The command line was not understood; the text says how it is written.
    Usage(String),
}

/// The result of every step.
pub(crate) type Outcome = Result<(), Failure>;

/// The checkout, its target directory and the cargo that started us.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The directory of the root `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Cargo's target directory.
    pub(crate) target: PathBuf,
    /// The cargo that started us.
    pub(crate) cargo: PathBuf,
}

impl Workspace {
    /// Finds the workspace that this program was built in.
    ///
    /// The target directory is taken from the place of our own executable (`<target>/debug/xtask`), which is right
    /// however it was chosen: by `CARGO_TARGET_DIR`, by a cargo config file, or not at all.
    pub(crate) fn find() -> Result<Self, Failure> {
        let own =
            std::env::current_exe().map_err(|e| Failure::Said(format!("cannot find xtask's own executable: {e}")))?;
        let target = own.parent().and_then(Path::parent).map(Path::to_path_buf);
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let root = manifest.as_deref().and_then(Path::parent).and_then(Path::parent).map(Path::to_path_buf);
        match (root, target) {
            (Some(root), Some(target)) if root.join("Cargo.lock").is_file() => {
                let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
                Ok(Self { root, target, cargo })
            }
            _ => Err(Failure::Said("start xtask through cargo: `cargo xtask ...`, anywhere in the checkout".into())),
        }
    }

    /// A program that the workspace builds.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.target.join("debug").join(name)
    }

    /// A built program that runs what is built beside it.
    pub(crate) fn program(&self, name: &str, args: &[String]) -> Command {
        let mut command = Command::new(self.binary(name));
        command.args(args).env("TESTKIT_ALCEDO", self.binary("alcedo"));
        command
    }

    /// A cargo command in the workspace root, on the same target directory as ours.
    pub(crate) fn cargo<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> Command {
        let mut command = Command::new(&self.cargo);
        command.args(args).current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        command
    }
}

/// Runs a command to its end, with our terminal; its failure is ours.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let status = command
        .status()
        .map_err(|e| Failure::Said(format!("cannot start `{}`: {e}", command.get_program().to_string_lossy())))?;
    if status.success() { Ok(()) } else { Err(Failure::Exit(exit_code(status))) }
}

/// The exit code as a shell gives it: 128 + signal for a program that was killed.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn code_of(script: &str) -> u8 {
        match run(Command::new("sh").args(["-c", script])) {
            Err(Failure::Exit(code)) => code,
            other => panic!("{script}: {other:?}"),
        }
    }

    #[test]
    fn exit_codes_are_handed_on() {
        assert_eq!(code_of("exit 7"), 7);
        assert_eq!(code_of("kill -TERM $$"), 143);
        assert!(run(Command::new("sh").args(["-c", "exit 0"])).is_ok());
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        match run(&mut Command::new("no-such-program-anywhere")) {
            Err(Failure::Said(text)) => assert!(text.contains("no-such-program-anywhere"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}
