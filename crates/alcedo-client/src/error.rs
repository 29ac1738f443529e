//! The one error of this crate, made from failure frames, gRPC statuses and this side's own findings.
//!
//! It knows the wire's codes and reasons and hides them: callers match on [`Kind`], and on [`Reason`] where they need
//! more. It must not know what a call was about; the message says that.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use alcedo_proto::v1 as pb;
use prost::Message as _;
use tonic::Code;

/// Type URL of the detail inside `grpc-status-details-bin`.
const ERROR_DETAIL_TYPE: &str = "type.googleapis.com/alcedo.v1.ErrorDetail";

/// What kind of failure it was, and so what a caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// No such mount, file, or nothing below the prefix. A key that no row has is not an error.
    NotFound,
    /// The request is wrong or over a bound; sending it again does not help.
    Invalid,
    /// The origin or the worker does not allow it.
    Denied,
    /// No worker, or no origin, could be reached; another try may find one.
    Unavailable,
    /// The deadline passed. What the worker learned meanwhile stays, so a later try is faster.
    Deadline,
    /// The worker refuses load; try again later.
    Exhausted,
    /// The file is not what a lookup needs: not Parquet, corrupt, encrypted, of an unsupported kind.
    Failed,
    /// The origin's bytes contradict their own checksum.
    DataLoss,
    /// The file changed while it was read; another try reads the new content.
    VersionChanged,
    /// The call was cancelled.
    Cancelled,
    /// A defect of Alcedo, or an answer that cannot be read.
    Internal,
}

/// The worker's reason, more precise than the [`Kind`]; the names are those of `alcedo.v1.Reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)] // The variants say what they mean.
pub enum Reason {
    BadRequest,
    BadPath,
    BadKey,
    NoSuchColumn,
    NoSuchMount,
    NoSuchFile,
    EmptyPrefix,
    TooManyKeys,
    TooManyCandidates,
    AnswerTooLarge,
    NotParquet,
    Corrupt,
    Unsupported,
    Encrypted,
    ParquetLimit,
    Checksum,
    VersionChanged,
    OriginDenied,
    OriginUnavailable,
    Draining,
    NoWorker,
    Deadline,
    IndexBuilding,
    Overloaded,
    Cancelled,
    Bug,
}

/// Why a call failed.
///
/// It prints as the message and, where there is one, the hint.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Error {
    /// What can be done about it.
    pub kind: Kind,
    /// More precisely, where it is known.
    pub reason: Option<Reason>,
    /// What happened, and to what.
    pub message: String,
    /// What to do, or what was probably meant.
    pub hint: Option<String>,
    /// The file or key that it is about.
    pub subject: Option<String>,
    /// The worker's advice how long to wait before another try.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// What kind of failure it was.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the same call may succeed later without a change by the caller. Lookups change nothing, so repeating one
    /// is safe.
    pub fn is_retryable(&self) -> bool {
        match self.kind {
            Kind::Unavailable | Kind::Exhausted | Kind::VersionChanged => true,
            Kind::Deadline => self.reason == Some(Reason::IndexBuilding),
            _ => false,
        }
    }

    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, reason: None, message: message.into(), hint: None, subject: None, retry_after: None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message).with_reason(Reason::BadRequest)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    pub(crate) fn with_reason(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    pub(crate) fn with_subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// A failure frame of a lookup stream.
    pub(crate) fn from_failure(failure: pb::Failure) -> Self {
        Self::from_parts(Code::from(failure.code), failure.message, failure.detail)
    }

    /// A status of a call to `worker`.
    pub(crate) fn from_status(worker: &str, status: &tonic::Status) -> Self {
        if status.source().is_some() {
            return Self::new(Kind::Unavailable, format!("the connection to {worker} broke: {}", cause(status)));
        }
        let detail = RpcStatus::decode(status.details()).ok().and_then(|packed| packed.detail());
        Self::from_parts(status.code(), status.message().to_owned(), detail)
    }

    fn from_parts(code: Code, message: String, detail: Option<pb::ErrorDetail>) -> Self {
        let detail = detail.unwrap_or_default();
        let message = if message.is_empty() { code.description().to_owned() } else { message };
        let given = |text: String| if text.is_empty() { None } else { Some(text) };
        Self {
            kind: kind(code),
            reason: reason(detail.reason()),
            message,
            hint: given(detail.hint),
            subject: given(detail.subject),
            retry_after: (detail.retry_after_ms > 0).then(|| Duration::from_millis(detail.retry_after_ms)),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        // A worker's message may end in its hint already.
        let unsaid = self.hint.as_ref().filter(|hint| !self.message.contains(hint.as_str()));
        unsaid.map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

impl std::error::Error for Error {}

/// The innermost cause in words. What the operating system or a timer says is put shortly: "(os error 111)" tells
/// nobody anything.
pub(crate) fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    let mut short = None;
    loop {
        let io = innermost.downcast_ref::<std::io::Error>();
        if let Some(io) = io.filter(|io| io.raw_os_error().is_some() || io.kind() == std::io::ErrorKind::TimedOut) {
            short = Some(io.kind().to_string());
        }
        // The source of an I/O error that wraps another error is that one's source, not that one.
        let wrapped = io.and_then(|io| io.get_ref()).map(|wrapped| wrapped as &(dyn std::error::Error + 'static));
        match wrapped.or_else(|| innermost.source()) {
            Some(source) => innermost = source,
            None => return short.unwrap_or_else(|| innermost.to_string()),
        }
    }
}

fn kind(code: Code) -> Kind {
    match code {
        Code::NotFound => Kind::NotFound,
        Code::InvalidArgument | Code::OutOfRange => Kind::Invalid,
        Code::PermissionDenied | Code::Unauthenticated => Kind::Denied,
        Code::Unavailable => Kind::Unavailable,
        Code::DeadlineExceeded => Kind::Deadline,
        Code::ResourceExhausted => Kind::Exhausted,
        Code::FailedPrecondition | Code::Unimplemented => Kind::Failed,
        Code::DataLoss => Kind::DataLoss,
        Code::Aborted => Kind::VersionChanged,
        Code::Cancelled => Kind::Cancelled,
        Code::Ok | Code::Unknown | Code::AlreadyExists | Code::Internal => Kind::Internal,
    }
}

fn reason(reason: pb::Reason) -> Option<Reason> {
    Some(match reason {
        pb::Reason::Unspecified => return None,
        pb::Reason::BadRequest => Reason::BadRequest,
        pb::Reason::BadPath => Reason::BadPath,
        pb::Reason::BadKey => Reason::BadKey,
        pb::Reason::NoSuchColumn => Reason::NoSuchColumn,
        pb::Reason::NoSuchMount => Reason::NoSuchMount,
        pb::Reason::NoSuchFile => Reason::NoSuchFile,
        pb::Reason::EmptyPrefix => Reason::EmptyPrefix,
        pb::Reason::TooManyKeys => Reason::TooManyKeys,
        pb::Reason::TooManyCandidates => Reason::TooManyCandidates,
        pb::Reason::AnswerTooLarge => Reason::AnswerTooLarge,
        pb::Reason::NotParquet => Reason::NotParquet,
        pb::Reason::Corrupt => Reason::Corrupt,
        pb::Reason::Unsupported => Reason::Unsupported,
        pb::Reason::Encrypted => Reason::Encrypted,
        pb::Reason::ParquetLimit => Reason::ParquetLimit,
        pb::Reason::Checksum => Reason::Checksum,
        pb::Reason::VersionChanged => Reason::VersionChanged,
        pb::Reason::OriginDenied => Reason::OriginDenied,
        pb::Reason::OriginUnavailable => Reason::OriginUnavailable,
        pb::Reason::Draining => Reason::Draining,
        pb::Reason::NoWorker => Reason::NoWorker,
        pb::Reason::Deadline => Reason::Deadline,
        pb::Reason::IndexBuilding => Reason::IndexBuilding,
        pb::Reason::Overloaded => Reason::Overloaded,
        pb::Reason::Cancelled => Reason::Cancelled,
        pb::Reason::Bug => Reason::Bug,
    })
}

/// `google.rpc.Status`, of which only the details matter: code and message are in the gRPC status too.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Packed>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct Packed {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: bytes::Bytes,
}

impl RpcStatus {
    fn detail(&self) -> Option<pb::ErrorDetail> {
        let packed = self.details.iter().find(|packed| packed.type_url == ERROR_DETAIL_TYPE)?;
        pb::ErrorDetail::decode(packed.value.clone()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error as IoError, ErrorKind};

    #[test]
    fn causes_are_put_shortly() {
        let late = IoError::new(ErrorKind::TimedOut, "deadline has elapsed");
        let wrapped = IoError::other(IoError::from_raw_os_error(111));
        let named = IoError::other("no such host");
        for (error, text) in [(late, "timed out"), (wrapped, "connection refused"), (named, "no such host")] {
            assert_eq!(cause(&error), text);
        }
    }

    #[test]
    fn every_code_and_reason_has_a_meaning() {
        for code in 0..=16 {
            let failure = pb::Failure { code, message: String::new(), detail: None };
            let error = Error::from_failure(failure);
            assert!(!error.message.is_empty(), "{code}");
            let retryable = matches!(Code::from(code), Code::Unavailable | Code::ResourceExhausted | Code::Aborted);
            assert_eq!(error.is_retryable(), retryable, "{code}");
        }
        let known = (0..=100).filter_map(|value| pb::Reason::try_from(value).ok()).filter_map(reason);
        assert_eq!(known.collect::<std::collections::HashSet<_>>().len(), 26);
    }
}
