//! Layer 3: why a request failed, in the worker's own words.
//!
//! Knows the failures of the crates below and those of the use cases here, and names the file that each is about. It
//! must not know gRPC: the status and the typed detail of each failure are made in one place, `service::failure`.

use std::sync::Arc;
use std::time::Duration;

use alcedo_cache::Lost;
use alcedo_lookup::error::Error as FileError;
use alcedo_origin::ErrorKind;

/// A failed request. Clones are cheap, because all who wait for one shared task get the same failure.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The path or the origin.
    #[error(transparent)]
    Origin(#[from] alcedo_origin::Error),
    /// The file's bytes, or a question that does not fit the file.
    #[error("{url}: {error}")]
    File {
        /// Canonical URL of the file.
        url: Arc<str>,
        /// What is wrong.
        error: FileError,
    },
    /// A shared fetch ended without an answer of the origin.
    #[error("{url}: {lost}")]
    Lost {
        /// Canonical URL of the file.
        url: Arc<str>,
        /// How it ended.
        lost: Lost,
    },
    /// The request is malformed.
    #[error("{0}")]
    BadRequest(String),
    /// A key that is no key at all.
    #[error("key {index}: {why}")]
    BadKey {
        /// Its place in the request, from 0.
        index: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// More keys than allowed.
    #[error("{keys} keys in one lookup, at most {limit} are allowed: split the lookup (lookup.max_keys)")]
    TooManyKeys {
        /// How many there are.
        keys: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A prefix without Parquet files.
    #[error("{url}/: no .parquet files below this prefix")]
    EmptyPrefix {
        /// Canonical URL of the prefix.
        url: Arc<str>,
    },
    /// A prefix with more files than allowed.
    #[error(
        "{url}/: more than {limit} files below this prefix: name a narrower prefix, or raise lookup.max_files \
         (and origin.listed_entries)"
    )]
    TooManyFiles {
        /// Canonical URL of the prefix.
        url: Arc<str>,
        /// How many are allowed.
        limit: usize,
    },
    /// More files than allowed may hold the keys.
    #[error(
        "{url}/: {candidates} of {files} files may hold the keys, at most {limit} are asked: name a narrower prefix, \
         ask for fewer keys, sort the files by the key column, or raise lookup.max_candidates"
    )]
    TooManyCandidates {
        /// Canonical URL of the prefix.
        url: Arc<str>,
        /// Files that may hold the keys.
        candidates: usize,
        /// Files below the prefix.
        files: usize,
        /// How many are asked at most.
        limit: usize,
    },
    /// The answer of all files together is too large.
    #[error("{url}: the answer has more than {limit} {unit}: set row_limit, or ask for fewer keys or columns")]
    AnswerTooLarge {
        /// Canonical URL of the file or prefix.
        url: Arc<str>,
        /// How many are allowed.
        limit: usize,
        /// `rows` or `bytes of rows`.
        unit: &'static str,
    },
    /// The file changed twice while one request read it.
    #[error("{url}: the file changed at the origin again and again while it was read: try again")]
    VersionChanged {
        /// Canonical URL of the file.
        url: Arc<str>,
    },
    /// The caller named a version that the file no longer has.
    #[error("{url}: the file is no longer version {wanted}: it is {found} now")]
    VersionGone {
        /// Canonical URL of the file.
        url: Arc<str>,
        /// The version that was asked for.
        wanted: String,
        /// The version that the file has.
        found: String,
    },
    /// The deadline passed.
    #[error("{subject}: the deadline of {timeout:?} passed")]
    Deadline {
        /// The path as asked.
        subject: String,
        /// The time that the request had.
        timeout: Duration,
    },
    /// The deadline passed while indexes that a file lacks were learned, which goes on.
    #[error(
        "{subject}: the deadline of {timeout:?} passed while the places of data pages were learned: {walked} of \
         {total} bytes of column chunks are gone through, and the rest goes on without this request: try again"
    )]
    IndexBuilding {
        /// The path as asked.
        subject: String,
        /// The time that the request had.
        timeout: Duration,
        /// Bytes that were gone through.
        walked: u64,
        /// Bytes to go through.
        total: u64,
    },
    /// Too much is under way; nothing was done.
    #[error("the worker is overloaded ({what}): try again in {retry_after:?}, or ask another worker")]
    Overloaded {
        /// What ran out.
        what: &'static str,
        /// Wait at least so long.
        retry_after: Duration,
    },
    /// The worker is about to stop; nothing was done.
    #[error("the worker is shutting down: ask another one")]
    Draining,
    /// Something that must outlive the process could not be written down; nothing was changed.
    #[error("{file} cannot be written: {why}; nothing was changed")]
    NotWritten {
        /// The file.
        file: String,
        /// The disk's reason.
        why: String,
    },
    /// The caller gave the request up.
    #[error("the request was cancelled")]
    Cancelled,
    /// A defect of this program.
    #[error("{subject}: internal error: {what}; please report it")]
    Bug {
        /// The file or path as far as it is known.
        subject: String,
        /// What went wrong.
        what: &'static str,
    },
}

impl Error {
    /// What is wrong with the file's bytes or with the question to it.
    pub(crate) fn file(url: &Arc<str>, error: FileError) -> Self {
        Self::File { url: Arc::clone(url), error }
    }

    /// The error, about this file where it does not know one.
    pub(crate) fn about(self, url: &Arc<str>) -> Self {
        match self {
            Self::File { url: unknown, error } if unknown.is_empty() => Self::file(url, error),
            Self::Lost { url: unknown, lost } if unknown.is_empty() => Self::Lost { url: Arc::clone(url), lost },
            other => other,
        }
    }

    /// The file is another one now than the one that was being read.
    pub(crate) fn is_changed(&self) -> bool {
        matches!(self, Self::Origin(error) if error.kind() == ErrorKind::VersionChanged)
    }

    /// The origin has no such file.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Origin(error) if error.kind() == ErrorKind::NotFound)
    }

    /// Bytes over which the decoder panicked; it was caught where it happened.
    pub(crate) fn is_decoder_panic(&self) -> bool {
        matches!(self, Self::File { error: FileError::DecoderPanicked(_), .. })
    }

    /// Asking again about the same content version gives the same error.
    pub(crate) fn is_about_the_file(&self) -> bool {
        matches!(self, Self::File { error, .. } if error.is_about_the_file())
    }
}

impl From<FileError> for Error {
    /// The file is filled in by `Error::about`.
    fn from(error: FileError) -> Self {
        Self::File { url: "".into(), error }
    }
}

impl From<Lost> for Error {
    /// The file is filled in by `Error::about`.
    fn from(lost: Lost) -> Self {
        match lost {
            // Only a file whose own offsets lie makes a machine ask for such a range.
            Lost::OutsideFile { start, end, file_size } => {
                FileError::Corrupt(format!("bytes {start}..{end} are outside the file's {file_size}")).into()
            }
            lost => Self::Lost { url: "".into(), lost },
        }
    }
}
