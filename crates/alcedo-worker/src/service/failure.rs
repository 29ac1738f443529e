//! Layer 3: from a failed request to a gRPC status.
//!
//! Knows which code, reason, subject and hint each error gets; the groups of `Reason` in `lookup.proto` are the rule.
//! It must not know how an error came about. The stream's failure frame and the unary call's status are made of the
//! same parts.

use alcedo_cache::Lost;
use alcedo_lookup::error::Error as FileError;
use alcedo_origin::ErrorKind;
use alcedo_proto::v1::{self, Reason};
use prost::Message as _;
use tonic::{Code, Status};

use crate::error::Error;

/// Longest message, in bytes: it travels in a trailer, twice, and clients bound their headers to 8 or 16 KiB.
const MAX_MESSAGE_BYTES: usize = 1_500;
/// What says that a detail is an `ErrorDetail`.
const DETAIL_TYPE_URL: &str = "type.googleapis.com/alcedo.v1.ErrorDetail";

/// `google.rpc.Status`, as `grpc-status-details-bin` carries it
/// (<https://github.com/googleapis/googleapis/blob/master/google/rpc/status.proto>).
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// The stream's form of an error.
pub(super) fn failure(error: &Error) -> v1::Failure {
    let (code, reason) = sort(error);
    let (subject, hint, retry_after_ms) = about(error);
    let detail =
        v1::ErrorDetail { reason: reason.into(), subject: bounded(subject), hint: bounded(hint), retry_after_ms };
    v1::Failure { code: code.into(), message: bounded(error.to_string()), detail: Some(detail) }
}

/// The call's form of an error.
pub(super) fn status(error: &Error) -> Status {
    let v1::Failure { code, message, detail } = failure(error);
    let value = detail.unwrap_or_default().encode_to_vec();
    let details = vec![prost_types::Any { type_url: DETAIL_TYPE_URL.to_owned(), value }];
    let rpc_status = RpcStatus { code, message: message.clone(), details };
    Status::with_details(Code::from_i32(code), message, rpc_status.encode_to_vec().into())
}

fn bounded(mut text: String) -> String {
    if text.len() > MAX_MESSAGE_BYTES {
        text.truncate(text.floor_char_boundary(MAX_MESSAGE_BYTES));
        text.push_str("...");
    }
    text
}

fn sort(error: &Error) -> (Code, Reason) {
    match error {
        Error::Origin(error) => sort_origin(error.kind()),
        Error::File { error, .. } => sort_file(error),
        Error::Lost { lost, .. } => match lost {
            Lost::TooManyFlights { .. } => (Code::ResourceExhausted, Reason::Overloaded),
            Lost::TimedOut { .. } | Lost::WrongLength { .. } => (Code::Unavailable, Reason::OriginUnavailable),
            Lost::OutsideFile { .. } => (Code::FailedPrecondition, Reason::Corrupt),
            Lost::Died => (Code::Internal, Reason::Bug),
        },
        Error::BadRequest(_) => (Code::InvalidArgument, Reason::BadRequest),
        Error::BadKey { .. } => (Code::InvalidArgument, Reason::BadKey),
        Error::TooManyKeys { .. } => (Code::OutOfRange, Reason::TooManyKeys),
        Error::EmptyPrefix { .. } => (Code::NotFound, Reason::EmptyPrefix),
        Error::TooManyFiles { .. } | Error::TooManyCandidates { .. } => (Code::OutOfRange, Reason::TooManyCandidates),
        Error::AnswerTooLarge { .. } => (Code::OutOfRange, Reason::AnswerTooLarge),
        Error::VersionChanged { .. } => (Code::Aborted, Reason::VersionChanged),
        // Another try ends the same way: the caller asked for what no longer exists.
        Error::VersionGone { .. } => (Code::FailedPrecondition, Reason::VersionChanged),
        Error::Deadline { .. } => (Code::DeadlineExceeded, Reason::Deadline),
        Error::IndexBuilding { .. } => (Code::DeadlineExceeded, Reason::IndexBuilding),
        Error::Overloaded { .. } => (Code::ResourceExhausted, Reason::Overloaded),
        Error::NotWritten { .. } => (Code::Internal, Reason::Unspecified),
        Error::Draining => (Code::Unavailable, Reason::Draining),
        Error::Cancelled => (Code::Cancelled, Reason::Cancelled),
        Error::Bug { .. } => (Code::Internal, Reason::Bug),
    }
}

fn sort_origin(kind: ErrorKind) -> (Code, Reason) {
    match kind {
        ErrorKind::BadPath => (Code::InvalidArgument, Reason::BadPath),
        ErrorKind::NoSuchMount => (Code::NotFound, Reason::NoSuchMount),
        ErrorKind::NotFound => (Code::NotFound, Reason::NoSuchFile),
        ErrorKind::Denied => (Code::PermissionDenied, Reason::OriginDenied),
        ErrorKind::VersionChanged => (Code::Aborted, Reason::VersionChanged),
        // A mount that is set up wrongly: another worker may be set up better.
        ErrorKind::Unavailable | ErrorKind::Config => (Code::Unavailable, Reason::OriginUnavailable),
        ErrorKind::Deadline => (Code::DeadlineExceeded, Reason::Deadline),
        ErrorKind::TooLarge => (Code::OutOfRange, Reason::AnswerTooLarge),
        ErrorKind::BadRange => (Code::InvalidArgument, Reason::BadRequest),
        _ => (Code::Internal, Reason::Bug),
    }
}

fn sort_file(error: &FileError) -> (Code, Reason) {
    match error {
        FileError::NotParquet(_) => (Code::FailedPrecondition, Reason::NotParquet),
        // The decoder gave up in its own way over bytes that make no sense.
        FileError::Corrupt(_) | FileError::DecoderPanicked(_) => (Code::FailedPrecondition, Reason::Corrupt),
        FileError::Checksum(_) => (Code::DataLoss, Reason::Checksum),
        FileError::Unsupported(_) => (Code::FailedPrecondition, Reason::Unsupported),
        FileError::Encrypted(_) => (Code::FailedPrecondition, Reason::Encrypted),
        FileError::Limit(_) => (Code::FailedPrecondition, Reason::ParquetLimit),
        FileError::AnswerTooLarge(_) => (Code::OutOfRange, Reason::AnswerTooLarge),
        FileError::NoSuchColumn { .. } => (Code::InvalidArgument, Reason::NoSuchColumn),
        FileError::NoKeyColumn { .. } => (Code::InvalidArgument, Reason::BadRequest),
        FileError::BadKey { .. } => (Code::InvalidArgument, Reason::BadKey),
        _ => (Code::Internal, Reason::Bug),
    }
}

/// The subject, the hint, and how long to wait, in milliseconds.
fn about(error: &Error) -> (String, String, u64) {
    use alcedo_origin::Error as O;
    let (subject, hint) = match error {
        Error::File { url, error: FileError::NoSuchColumn { hint, .. } } => {
            (url.to_string(), hint.as_ref().map(|name| format!("did you mean `{name}`?")).unwrap_or_default())
        }
        Error::File { error: FileError::BadKey { key, wanted, .. }, .. } => (key.clone(), wanted.clone()),
        Error::File { url, error: FileError::NoKeyColumn { columns } } => (url.to_string(), columns.clone()),
        Error::File { url, .. }
        | Error::Lost { url, .. }
        | Error::AnswerTooLarge { url, .. }
        | Error::VersionChanged { url } => (url.to_string(), String::new()),
        Error::VersionGone { url, found, .. } => (url.to_string(), found.clone()),
        Error::EmptyPrefix { url } | Error::TooManyFiles { url, .. } | Error::TooManyCandidates { url, .. } => {
            (format!("{url}/"), String::new())
        }
        Error::Origin(O::BadPath { path, why }) => (path.clone(), why.clone()),
        Error::Origin(O::NoSuchMount { path, hint, .. }) => (path.clone(), hint.trim().to_owned()),
        Error::Origin(
            O::NotFound { url }
            | O::Denied { url, .. }
            | O::VersionChanged { url, .. }
            | O::Unavailable { url, .. }
            | O::Deadline { url, .. }
            | O::TooLarge { url, .. }
            | O::BadRange { url, .. },
        ) => (url.to_string(), String::new()),
        Error::Origin(O::Config { mount, why }) => (mount.clone(), why.clone()),
        Error::Origin(_) => Default::default(),
        Error::BadKey { index, .. } => (format!("key {index}"), String::new()),
        Error::NotWritten { file, .. } => (file.clone(), String::new()),
        Error::Deadline { subject, .. } | Error::Bug { subject, .. } => (subject.clone(), String::new()),
        Error::IndexBuilding { subject, walked, total, .. } => (subject.clone(), format!("{walked} of {total} bytes")),
        Error::BadRequest(_)
        | Error::TooManyKeys { .. }
        | Error::Overloaded { .. }
        | Error::Draining
        | Error::Cancelled => Default::default(),
    };
    let retry_after = match error {
        Error::Overloaded { retry_after, .. } => u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX),
        _ => 0,
    };
    (subject, hint, retry_after)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_status_carries_the_typed_detail_and_names_the_file() {
        let url: Arc<str> = "s3://lake/users/a.parquet".into();
        let hint = Some("id".to_owned());
        let error = Error::file(&url, FileError::NoSuchColumn { name: "idd".to_owned(), hint });
        let status = status(&error);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "s3://lake/users/a.parquet: no column `idd`: did you mean `id`?");
        let decoded = RpcStatus::decode(status.details()).unwrap();
        assert_eq!((decoded.code, decoded.message.as_str()), (3, status.message()));
        assert_eq!(decoded.details[0].type_url, DETAIL_TYPE_URL);
        let detail = v1::ErrorDetail::decode(decoded.details[0].value.as_slice()).unwrap();
        assert_eq!(detail.reason(), Reason::NoSuchColumn);
        assert_eq!((detail.subject.as_str(), detail.hint.as_str()), (url.as_ref(), "did you mean `id`?"));
    }

    #[test]
    fn those_who_are_turned_away_are_told_how_long_to_wait() {
        let error = Error::Overloaded { what: "all lookup.permits are taken", retry_after: Duration::from_millis(50) };
        let failure = failure(&error);
        assert_eq!(failure.code, Code::ResourceExhausted as i32);
        assert_eq!(failure.detail.unwrap().retry_after_ms, 50);
    }

    #[test]
    fn codes_follow_the_groups_of_reasons() {
        let url: Arc<str> = "u".into();
        let file = |error| Error::file(&url, error);
        let cases = [
            (Error::TooManyKeys { keys: 2, limit: 1 }, Code::OutOfRange, Reason::TooManyKeys),
            (Error::EmptyPrefix { url: url.clone() }, Code::NotFound, Reason::EmptyPrefix),
            (file(FileError::NotParquet("x".into())), Code::FailedPrecondition, Reason::NotParquet),
            (file(FileError::Checksum("x".into())), Code::DataLoss, Reason::Checksum),
            (file(FileError::DecoderPanicked("x".into())), Code::FailedPrecondition, Reason::Corrupt),
            (Error::VersionChanged { url: url.clone() }, Code::Aborted, Reason::VersionChanged),
            (Error::Cancelled, Code::Cancelled, Reason::Cancelled),
            (Error::from(alcedo_origin::Error::NotFound { url: url.clone() }), Code::NotFound, Reason::NoSuchFile),
            (
                Error::from(Lost::OutsideFile { start: 0, end: 2, file_size: 1 }),
                Code::FailedPrecondition,
                Reason::Corrupt,
            ),
        ];
        for (error, code, reason) in cases {
            assert_eq!(sort(&error), (code, reason), "{error}");
        }
    }

    #[test]
    fn messages_are_bounded() {
        assert!(failure(&Error::BadRequest("ä".repeat(10_000))).message.len() <= MAX_MESSAGE_BYTES + 3);
    }
}
