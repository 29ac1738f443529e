//! What is wrong with a file, as callers are told it.
//!
//! Gives the same kind and reason that a worker gives when it reads the file itself. It must not know whether the bytes
//! came from a worker or from the origin.

use alcedo_lookup::error::Error as FileError;

use crate::error::{Error, Kind, Reason};

/// The error of a lookup in this file.
pub(crate) fn error(url: &str, error: &FileError) -> Error {
    let (kind, reason) = match error {
        FileError::NotParquet(_) => (Kind::Failed, Reason::NotParquet),
        FileError::Checksum(_) => (Kind::DataLoss, Reason::Checksum),
        FileError::Unsupported(_) => (Kind::Failed, Reason::Unsupported),
        FileError::Encrypted(_) => (Kind::Failed, Reason::Encrypted),
        FileError::Limit(_) => (Kind::Failed, Reason::ParquetLimit),
        FileError::AnswerTooLarge(_) => (Kind::Invalid, Reason::AnswerTooLarge),
        FileError::NoSuchColumn { .. } => (Kind::Invalid, Reason::NoSuchColumn),
        FileError::NoKeyColumn { .. } => (Kind::Invalid, Reason::BadRequest),
        FileError::BadKey { .. } => (Kind::Invalid, Reason::BadKey),
        _ => (Kind::Failed, Reason::Corrupt),
    };
    let subject = match error {
        FileError::BadKey { key, .. } => key,
        _ => url,
    };
    Error::new(kind, format!("{url}: {error}")).with_reason(reason).with_subject(subject)
}
