//! How a command fails: the exit code, and what is said on stderr.
//!
//! It maps the client's error kinds to the exit codes that docs/CLI.md promises. It knows no command and prints
//! nothing.

use std::fmt;
use std::io;

use alcedo_client::{Error, Kind, Reason};

/// Exit codes, a contract with scripts. 0 is success; 130 follows the shells' custom of 128 + the signal's number.
pub(crate) mod exit {
    /// Anything that has no code of its own.
    pub(crate) const ERROR: u8 = 1;
    /// The command line cannot be understood.
    pub(crate) const USAGE: u8 = 2;
    /// No such key, file, prefix or mount.
    pub(crate) const NOT_FOUND: u8 = 3;
    /// No worker could be reached.
    pub(crate) const NO_WORKER: u8 = 4;
    /// Some of the work was done and its results were printed, the rest failed.
    pub(crate) const PARTIAL: u8 = 5;
    /// The time ran out.
    pub(crate) const DEADLINE: u8 = 6;
    /// A check found something wrong.
    #[cfg(feature = "worker")]
    pub(crate) const CHECK_FAILED: u8 = 7;
    /// Ended by Ctrl-C.
    pub(crate) const INTERRUPTED: u8 = 130;
}

/// Why a command did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    code: u8,
    /// Whole first line on stderr; nothing is said without one.
    line: Option<String>,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl fmt::Display) -> Self {
        Self { code, line: Some(format!("error: {message}")), hint: None }
    }

    pub(crate) fn error(message: impl fmt::Display) -> Self {
        Self::new(exit::ERROR, message)
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(exit::USAGE, message)
    }

    /// No row has the key or keys: an answer rather than an error, so it is said without the word.
    pub(crate) fn no_rows(message: impl fmt::Display) -> Self {
        Self { code: exit::NOT_FOUND, line: Some(format!("not found: {message}")), hint: None }
    }

    /// Ctrl-C: whoever pressed it needs no message.
    pub(crate) fn interrupted() -> Self {
        Self { code: exit::INTERRUPTED, line: None, hint: None }
    }

    /// Printing failed. A reader that went away, like `head`, has what it wanted: that ends the command in silence and
    /// success.
    pub(crate) fn output(error: impl Into<io::Error>) -> Self {
        let error = error.into();
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { code: 0, line: None, hint: None };
        }
        Self::error(format!("cannot write the output: {error}"))
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, after some results were printed already.
    pub(crate) fn after_some(mut self, done: &str) -> Self {
        if self.code != 0 {
            self.code = exit::PARTIAL;
            self.line = self.line.map(|line| format!("{line} ({done})"));
        }
        self
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// The lines for stderr, the words `error:` and `hint:` in colour if `color`.
    pub(crate) fn lines(&self, color: bool) -> String {
        let mut lines = String::new();
        if let Some(line) = &self.line {
            lines += &match line.strip_prefix("error:") {
                Some(rest) if color => format!("\u{1b}[1;31merror:\u{1b}[0m{rest}\n"),
                _ => format!("{line}\n"),
            };
        }
        if let Some(hint) = &self.hint {
            lines += &if color { format!("\u{1b}[36mhint:\u{1b}[0m {hint}\n") } else { format!("hint: {hint}\n") };
        }
        lines
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines(false))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = exit_code(error.kind, error.reason);
        let mut failure = Self::new(code, super::output::printable(&error.message));
        // A worker's message may end in its hint already.
        let hint = error.hint.filter(|hint| !error.message.contains(hint.as_str()));
        failure.hint = hint.map(|hint| super::output::printable(&hint).into_owned());
        if code == exit::NO_WORKER && failure.hint.is_none() {
            failure.hint = Some(
                "start one with `alcedo worker run -c worker.toml`, or name another with --endpoints HOST:PORT".into(),
            );
        }
        if error.reason == Some(Reason::NoSuchMount) && failure.hint.is_none() {
            failure.hint = Some("`alcedo ls` lists the mounts".into());
        }
        failure
    }
}

/// The exit code of a client error.
fn exit_code(kind: Kind, reason: Option<Reason>) -> u8 {
    match (kind, reason) {
        (Kind::NotFound, _) => exit::NOT_FOUND,
        // The worker answered; it is the origin that cannot be reached.
        (Kind::Unavailable, Some(Reason::OriginUnavailable)) => exit::ERROR,
        (Kind::Unavailable, _) => exit::NO_WORKER,
        (Kind::Deadline, _) => exit::DEADLINE,
        _ => exit::ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_kinds_map_to_the_promised_exit_codes() {
        let cases = [
            (Kind::NotFound, Some(Reason::NoSuchFile), 3),
            (Kind::NotFound, None, 3),
            (Kind::Unavailable, Some(Reason::NoWorker), 4),
            (Kind::Unavailable, Some(Reason::Draining), 4),
            (Kind::Unavailable, None, 4),
            (Kind::Unavailable, Some(Reason::OriginUnavailable), 1),
            (Kind::Deadline, Some(Reason::IndexBuilding), 6),
            (Kind::Deadline, None, 6),
            (Kind::Invalid, Some(Reason::BadKey), 1),
            (Kind::Denied, None, 1),
            (Kind::Exhausted, None, 1),
            (Kind::Failed, Some(Reason::NotParquet), 1),
            (Kind::DataLoss, None, 1),
            (Kind::VersionChanged, None, 1),
            (Kind::Cancelled, None, 1),
            (Kind::Internal, None, 1),
        ];
        for (kind, reason, code) in cases {
            assert_eq!(exit_code(kind, reason), code, "{kind:?} {reason:?}");
        }
    }

    #[test]
    fn a_reader_that_went_away_is_silence_and_success() {
        let failure = Failure::output(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.code(), failure.to_string().as_str()), (0, ""));
        assert_eq!(failure.after_some("3 keys were answered").code(), 0);
        let full = Failure::output(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.to_string(), "error: cannot write the output: no storage space\n");
        assert_eq!(full.code(), 1);
    }

    #[test]
    fn what_failed_after_results_is_partial() {
        let failure = Failure::new(exit::DEADLINE, "time is up").hint("wait").after_some("8 of 9 keys were answered");
        assert_eq!(failure.code(), 5);
        assert_eq!(failure.to_string(), "error: time is up (8 of 9 keys were answered)\nhint: wait\n");
        assert_eq!(
            failure.lines(true),
            "\u{1b}[1;31merror:\u{1b}[0m time is up (8 of 9 keys were answered)\n\u{1b}[36mhint:\u{1b}[0m wait\n"
        );
    }
}
