//! What each worker said, where a command asks all of them.
//!
//! Knows how members are named, what state a status means, and how failures of some or all of them end a command. It
//! must not know what was asked.

use alcedo_client::{Error, Member, Reason, WorkerStatus};
use serde_json::{Value as Json, json};

use crate::failure::{Failure, exit};
use crate::output::quantity::counted;

/// Workers that a message names; the table above it has all of them.
const NAMED_WORKERS: usize = 4;

/// What every member said.
pub(crate) type Answers<T> = [(Member, Result<T, Error>)];

/// How a worker is doing, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It answers lookups.
    Ready,
    /// It answers, and is not ready for lookups yet.
    Starting,
    /// It finishes what is under way and takes nothing new.
    Draining,
    /// It did not answer.
    Down,
}

impl State {
    pub(crate) fn of(status: &Result<WorkerStatus, Error>) -> Self {
        match status {
            Err(_) => Self::Down,
            Ok(status) if status.draining => Self::Draining,
            Ok(status) if status.ready => Self::Ready,
            Ok(_) => Self::Starting,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}

/// A member's id, or its address where no ring gave it one.
pub(crate) fn name(member: &Member) -> &str {
    if member.id.is_empty() { &member.address } else { &member.id }
}

/// Why a member has no numbers in a table, in one word.
pub(crate) fn trouble(error: &Error) -> &'static str {
    if error.reason == Some(Reason::NoWorker) { "down" } else { "failed" }
}

/// Who a member is, in JSON.
pub(crate) fn identity(member: &Member) -> Json {
    json!({ "id": member.id, "address": member.address })
}

/// A digest of a ring as people and programs see it.
pub(crate) fn digest(value: u64) -> String {
    format!("{value:016x}")
}

/// What some or all members' failures mean for the command: nothing if there are none; partial where somebody answered;
/// else the one failure that says most.
///
/// # Errors
/// The failure.
pub(crate) fn settle<T>(answers: &Answers<T>) -> Result<(), Failure> {
    let failed: Vec<(&Member, &Error)> =
        answers.iter().filter_map(|(member, answer)| Some((member, answer.as_ref().err()?))).collect();
    let Some((_, first)) = failed.first() else { return Ok(()) };
    if failed.len() == answers.len() {
        // Who answered that there is no such file has said more than who did not answer.
        let said = failed.iter().map(|(_, error)| Failure::from((*error).clone()));
        let told = said.into_iter().find(|failure| failure.code() != exit::NO_WORKER);
        return Err(told.unwrap_or_else(|| Failure::from((*first).clone())));
    }
    let named: Vec<String> = failed
        .iter()
        .take(NAMED_WORKERS)
        .map(|(member, error)| format!("{}: {}", name(member), error.message))
        .collect();
    let more = if failed.len() > named.len() { "; …" } else { "" };
    let of = counted(answers.len() as u64, "worker");
    let message = format!("{} of {of} failed: {}{more}", failed.len(), named.join("; "));
    Err(Failure::new(exit::PARTIAL, crate::output::printable(&message)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use alcedo_client::Kind;

    use super::*;

    pub(crate) fn member(id: &str) -> Member {
        Member { id: id.into(), address: format!("{id}.example:7610"), weight: 1, zone: String::new() }
    }

    pub(crate) fn error(kind: Kind, reason: Option<Reason>, message: &str) -> Error {
        // Only the client makes errors; this one is about missing endpoints until it is made another.
        let mut error = alcedo_client::Client::builder().build().unwrap_err();
        (error.kind, error.reason, error.message) = (kind, reason, message.to_owned());
        error
    }

    pub(crate) fn down() -> Error {
        error(Kind::Unavailable, Some(Reason::NoWorker), "no answer from w-2.example:7610: connection refused")
    }

    #[test]
    fn a_status_is_one_word() {
        let ready = WorkerStatus { ready: true, ..WorkerStatus::default() };
        let draining = WorkerStatus { draining: true, ..ready.clone() };
        let states =
            [Ok(ready), Ok(draining), Ok(WorkerStatus::default()), Err(down())].map(|status| State::of(&status));
        assert_eq!(states.map(State::word), ["ready", "draining", "starting", "down"]);
    }

    #[test]
    fn some_failures_are_partial_and_all_are_the_one_that_says_most() {
        let missing = || error(Kind::NotFound, Some(Reason::NoSuchFile), "s3://lake/a: no such file at the origin");
        settle(&[(member("w-0"), Ok(1))]).unwrap();
        settle::<u8>(&[]).unwrap();
        let failure = settle(&[(member("w-0"), Ok(1)), (member("w-2"), Err(down()))]).unwrap_err();
        assert_eq!(failure.code(), 5);
        let wanted = "error: 1 of 2 workers failed: w-2: no answer from w-2.example:7610: connection refused\n";
        assert_eq!(failure.to_string(), wanted);
        let failure = settle::<u8>(&[(member("w-2"), Err(down())), (member("w-0"), Err(missing()))]).unwrap_err();
        assert_eq!(failure.code(), 3);
        let failure = settle::<u8>(&[(member("w-2"), Err(down())), (member("w-3"), Err(down()))]).unwrap_err();
        assert_eq!(failure.code(), 4);
        let many: Vec<_> =
            (0..9).map(|i| (member(&format!("w-{i}")), if i == 0 { Ok(()) } else { Err(down()) })).collect();
        let said = settle(&many).unwrap_err().to_string();
        assert!(said.starts_with("error: 8 of 9 workers failed: w-1: ") && said.ends_with("refused; …\n"), "{said}");
    }
}
