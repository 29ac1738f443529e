//! How calls and streams end without an answer.
//!
//! Knows what an end says about the calls that were under way: whether a worker may have accepted them. It must not
//! know what is done about it, which `tries` decides.

use crate::error::{Error, Kind, Reason};

/// What is said of a worker that ends its stream between two messages.
pub(crate) const DRAINING: &str = "the worker is draining";

/// Why a call to one worker gave no answer.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The worker never accepted the call, for this reason: another one may be asked at no cost.
    NotAccepted(String),
    /// The connection ended before the call was sent, for this reason: anybody may be asked at no cost, the same worker
    /// too, because it says nothing about that one.
    Unsent(String),
    /// The connection broke in the middle, and whether the worker had accepted the call is not known; or the answer
    /// broke in the middle.
    Lost(Error),
    /// No answer came by the deadline.
    Silent(Error),
    /// The worker answered with an error, or with something that cannot be read.
    Failed(Error),
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl CallError {
    /// A worker's own answer: one that drains refuses what it has not accepted.
    pub(crate) fn answered(error: Error) -> Self {
        match error.reason {
            Some(Reason::Draining) if error.kind == Kind::Unavailable => Self::NotAccepted(error.message),
            _ => Self::Failed(error),
        }
    }
}

/// How a stream ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// The server did not accept what it has not answered: it drains, or it did not open the stream.
    NotAccepted(String),
    /// The server refused the stream itself, for a reason that concerns the caller.
    Refused(Box<Error>),
    /// In the middle: whether the unanswered calls were accepted is not known.
    Broken(String),
}

impl End {
    /// For a call that was sent.
    pub(crate) fn for_call(self, worker: &str) -> CallError {
        match self {
            Self::NotAccepted(why) => CallError::NotAccepted(why),
            Self::Refused(error) => CallError::Failed(*error),
            Self::Broken(cause) => {
                let message = format!(
                    "the connection to {worker} broke ({cause}); \
                     whether the worker had accepted the lookup is not known"
                );
                CallError::Lost(Error::new(Kind::Unavailable, message))
            }
        }
    }

    /// For a call that was not sent yet.
    pub(crate) fn before(self, worker: &str) -> CallError {
        match self {
            Self::Broken(cause) => CallError::Unsent(format!("the connection broke: {cause}")),
            end => end.for_call(worker),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_breaks_says_nothing_of_a_worker_that_was_not_asked() {
        let broken = || End::Broken("cut".to_owned());
        assert!(matches!(broken().before("w"), CallError::Unsent(_)));
        assert!(matches!(broken().for_call("w"), CallError::Lost(_)));
        assert!(matches!(End::NotAccepted(DRAINING.to_owned()).before("w"), CallError::NotAccepted(_)));
        assert!(matches!(End::NotAccepted(DRAINING.to_owned()).for_call("w"), CallError::NotAccepted(_)));
    }
}
