//! What can go wrong between a path and its bytes, sorted by what the caller does about it. Knows the causes; must not
//! know how callers report them, because each door has a status map of its own.
//!
//! Errors keep texts and no source objects: the library's own errors print request URLs, whose queries may hold
//! signatures, in their `Debug` output. Every text that comes from outside passes `scrub` first.

use crate::secret::scrub;
use http::StatusCode;
use object_store::client::{HttpError, HttpErrorKind};
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// Deepest chain of error sources that is followed.
const MAX_SOURCES: usize = 16;

/// Error codes of a 400 answer that mean the credentials, not the request, are at fault.
const CREDENTIAL_CODES: [&str; 6] = [
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "TokenRefreshRequired",
];

/// Error codes of a 404 answer that mean that all of the mount is missing, not one file.
const NO_BUCKET_CODES: [&str; 2] = ["ContainerNotFound", "NoSuchBucket"];

/// The cause where a condition on the entity tag failed.
const OTHER_TAG: &str = "it no longer has the entity tag that was asked for";

/// The cause where the machine has no credentials to give. The usual reason is that none were configured.
const NO_CREDENTIALS: &str = "no credentials: none are configured and the cloud's metadata service gave none; set \
     credentials_file, the store's environment variables, or anonymous = true";

/// The cause where a local path leaves its mount.
pub(crate) const LEADS_OUT: &str = "a symbolic link leads out of the mount's directory, or in a circle";

/// A failure of this crate. Messages name the file's canonical URL, the cause and, where there is one, the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The path cannot name a file: nothing was asked of any origin.
    #[error("{path}: not a usable path: {why}")]
    BadPath {
        /// The path as given, made safe to print.
        path: String,
        /// The rule that it breaks.
        why: String,
    },
    /// The path names no configured mount.
    #[error("{path}: no such mount{hint}; known mounts: {known}")]
    NoSuchMount {
        /// The path as given, made safe to print.
        path: String,
        /// ` (did you mean ...?)`, or empty.
        hint: String,
        /// The names of the mounts with their URLs.
        known: String,
    },
    /// The origin says that there is no such file.
    #[error("{url}: no such file at the origin")]
    NotFound {
        /// Canonical URL of the file.
        url: Arc<str>,
    },
    /// The origin refuses to show the file (401, 403, file permissions, a symbolic link out of the mount).
    #[error("{url}: {cause}: {}", remedy(url, cause))]
    Denied {
        /// Canonical URL of the file.
        url: Arc<str>,
        /// What the origin answered.
        cause: Arc<str>,
    },
    /// The file is no longer the version that was asked for. Forget what is known about the file and start again.
    #[error("{url}: the file changed at the origin: {cause}")]
    VersionChanged {
        /// Canonical URL of the file.
        url: Arc<str>,
        /// How the change showed.
        cause: Arc<str>,
    },
    /// No usable answer within the allowed tries: 5xx, 429, no connection, silence, or a body of the wrong length.
    #[error("{url}: the origin is unavailable: {cause}")]
    Unavailable {
        /// Canonical URL of the file.
        url: Arc<str>,
        /// The last try's failure.
        cause: Arc<str>,
    },
    /// The deadline passed first.
    #[error("{url}: the deadline passed: {cause}")]
    Deadline {
        /// Canonical URL of the file.
        url: Arc<str>,
        /// What was being waited for.
        cause: Arc<str>,
    },
    /// The mount cannot work as configured, or the origin answered what only configuration explains (a redirect, a
    /// 400). A person has to act.
    #[error("mount {mount}: {why}")]
    Config {
        /// Name of the mount as configured.
        mount: String,
        /// What is wrong and what to change.
        why: String,
    },
    /// The request is larger than the mount's limits allow at once.
    #[error("{url}: {bytes} bytes asked for, but the mount buffers at most {limit} (limits.buffered_bytes)")]
    TooLarge {
        /// Canonical URL of the file.
        url: Arc<str>,
        /// Bytes asked for.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The range does not lie within the file as its own stat describes it.
    #[error("{url}: bytes {start}..{end} asked for, but the file has {size}")]
    BadRange {
        /// Canonical URL of the file.
        url: Arc<str>,
        /// First byte asked for.
        start: u64,
        /// One past the last byte asked for.
        end: u64,
        /// The file's size in bytes.
        size: u64,
    },
}

/// What a caller does about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Refuse the request: the path is unusable.
    BadPath,
    /// Refuse the request: no such mount.
    NoSuchMount,
    /// Answer "no such file"; it may be remembered for a short time.
    NotFound,
    /// Answer "denied", like for a path that does not exist where that must not be told apart.
    Denied,
    /// Forget the file's version and start over.
    VersionChanged,
    /// Try later or elsewhere.
    Unavailable,
    /// Give up; the caller's time is over.
    Deadline,
    /// Tell the operator.
    Config,
    /// Refuse the request: too large.
    TooLarge,
    /// Refuse the request: the range lies outside the file.
    BadRange,
}

impl Error {
    /// What the caller should do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::BadPath { .. } => ErrorKind::BadPath,
            Self::NoSuchMount { .. } => ErrorKind::NoSuchMount,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Denied { .. } => ErrorKind::Denied,
            Self::VersionChanged { .. } => ErrorKind::VersionChanged,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Deadline { .. } => ErrorKind::Deadline,
            Self::Config { .. } => ErrorKind::Config,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::BadRange { .. } => ErrorKind::BadRange,
        }
    }

    /// A path that breaks a rule.
    pub(crate) fn bad_path(path: &str, why: impl Into<String>) -> Self {
        Self::BadPath { path: scrub(path), why: why.into() }
    }

    /// A mount that cannot work.
    pub(crate) fn config(mount: &str, why: impl AsRef<str>) -> Self {
        Self::Config { mount: scrub(mount), why: scrub(why.as_ref()) }
    }
}

/// What to do about a refusal: local files have no credentials and no policy.
fn remedy(url: &str, cause: &str) -> &'static str {
    match (url.starts_with("file://"), cause == LEADS_OUT) {
        (true, true) => "links are followed inside the mount only",
        (true, false) => "check the permissions of the file and of the directories above it",
        (false, _) => "check the mount's credentials and the bucket policy",
    }
}

/// A status that the store answered instead of content, with the error code of the answer's body. It travels as the
/// source of an `HttpError`, because the library shows no status to its callers; the body itself, which may quote
/// signatures, is dropped.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) code: Option<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the origin answered {}", self.status)?;
        match &self.code {
            Some(code) => write!(f, " ({code})"),
            None => Ok(()),
        }
    }
}

impl StdError for Refused {}

/// How one attempt failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another attempt would end the same way.
    Final(Error),
    /// Another attempt may succeed.
    Passing(Arc<str>),
    /// The origin answered something that does not fit the question; another way of asking may help.
    Odd(Arc<str>),
    /// The origin answered 416: the file has no bytes at all, if the question was for its last ones.
    Unsatisfiable,
}

impl Failure {
    /// A failure that another attempt may cure.
    pub(crate) fn passing(cause: impl AsRef<str>) -> Self {
        Self::Passing(scrub(cause.as_ref()).into())
    }

    /// Whether the origin is to blame: it gave no answer, a broken one, or a refusal. That a file does not exist or
    /// has changed is a good answer.
    pub(crate) fn is_the_origins(&self) -> bool {
        match self {
            Self::Final(error) => {
                matches!(error.kind(), ErrorKind::Denied | ErrorKind::Config | ErrorKind::Unavailable)
            }
            Self::Passing(_) | Self::Odd(_) => true,
            Self::Unsatisfiable => false,
        }
    }

    /// The failure as the caller's error, when there is no further try.
    pub(crate) fn into_error(self, url: &Arc<str>) -> Error {
        match self {
            Self::Final(error) => error,
            Self::Passing(cause) | Self::Odd(cause) => Error::Unavailable { url: Arc::clone(url), cause },
            Self::Unsatisfiable => Error::Unavailable {
                url: Arc::clone(url),
                cause: "the origin answered 416 Range Not Satisfiable".into(),
            },
        }
    }

    /// Sorts an error of the library.
    pub(crate) fn sort(mount: &str, url: &Arc<str>, error: &object_store::Error) -> Self {
        use object_store::Error as E;
        if let Some(refused) = find_source::<Refused>(error) {
            return Self::sort_status(mount, url, refused);
        }
        let url = Arc::clone(url);
        match error {
            E::NotFound { .. } => Self::Final(Error::NotFound { url }),
            E::Precondition { source, .. } | E::NotModified { source, .. } => {
                let cause = match is_http(source.as_ref()) {
                    true => OTHER_TAG.to_owned(),
                    false => scrub(&source.to_string()),
                };
                Self::Final(Error::VersionChanged { url, cause: cause.into() })
            }
            E::PermissionDenied { source, .. } | E::Unauthenticated { source, .. } => {
                let cause = match is_http(source.as_ref()) {
                    true => "the origin refused access".to_owned(),
                    false => scrub(&source.to_string()),
                };
                Self::Final(Error::Denied { url, cause: cause.into() })
            }
            E::InvalidPath { source } => Self::Final(Error::config(
                mount,
                format!("the origin lists an object whose name cannot be a path: {source}"),
            )),
            E::NotSupported { source } => Self::Final(Error::config(mount, source.to_string())),
            E::NotImplemented { operation, .. } => {
                Self::Final(Error::config(mount, format!("the store does not implement {operation}")))
            }
            _ if is_for_credentials(&error.to_string()) => Self::passing(NO_CREDENTIALS),
            _ => match find_source::<HttpError>(error) {
                Some(http) => Self::passing(transport(http)),
                None => Self::Odd(scrub(&error.to_string()).into()),
            },
        }
    }

    /// Sorts a status that the store answered.
    fn sort_status(mount: &str, url: &Arc<str>, refused: &Refused) -> Self {
        let has_code = |codes: &[&str]| refused.code.as_deref().is_some_and(|code| codes.contains(&code));
        let owned = || Arc::clone(url);
        match refused.status {
            StatusCode::NOT_FOUND if has_code(&NO_BUCKET_CODES) => {
                Self::Final(Error::config(mount, format!("{refused} to {url}: the bucket or container does not exist")))
            }
            StatusCode::NOT_FOUND => Self::Final(Error::NotFound { url: owned() }),
            StatusCode::PRECONDITION_FAILED | StatusCode::NOT_MODIFIED => {
                Self::Final(Error::VersionChanged { url: owned(), cause: OTHER_TAG.into() })
            }
            StatusCode::RANGE_NOT_SATISFIABLE => Self::Unsatisfiable,
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => {
                Self::Final(Error::Denied { url: owned(), cause: refused.to_string().into() })
            }
            StatusCode::BAD_REQUEST if has_code(&CREDENTIAL_CODES) => {
                Self::Final(Error::Denied { url: owned(), cause: refused.to_string().into() })
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT => {
                Self::Passing(refused.to_string().into())
            }
            status if status.is_server_error() => Self::Passing(refused.to_string().into()),
            status if status.is_redirection() => Self::Final(Error::config(
                mount,
                format!("{refused} to {url}: redirects are not followed; check the mount's endpoint and region"),
            )),
            _ => {
                Self::Final(Error::config(mount, format!("{refused} to {url}: check the mount's endpoint and region")))
            }
        }
    }
}

/// The first source of type `T` in an error's chain.
fn find_source<'e, T: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e T> {
    let mut at = error.source();
    for _ in 0..MAX_SOURCES {
        let source = at?;
        if let Some(found) = source.downcast_ref::<T>() {
            return Some(found);
        }
        at = source.source();
    }
    None
}

/// Whether a text was made by the library's HTTP layer and so would repeat a request's URL.
fn is_http(source: &(dyn StdError + 'static)) -> bool {
    source.to_string().starts_with("Error performing ")
}

/// Longest error code that is believed; S3's longest has 39 letters.
const MAX_CODE_BYTES: usize = 64;

/// Whether a text from a refusal's body is an error code such as `SlowDown`, and so harmless.
pub(crate) fn is_error_code(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_CODE_BYTES
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'_')
}

/// Whether a failed request was for credentials, which clouds give to their own machines only.
fn is_for_credentials(text: &str) -> bool {
    ["://169.254.", "://metadata.google.internal", "://metadata/"].iter().any(|host| text.contains(host))
}

/// A sentence for a failure below HTTP.
fn transport(error: &HttpError) -> String {
    let what = match error.kind() {
        HttpErrorKind::Connect => "could not connect",
        HttpErrorKind::Timeout => "the connection timed out",
        HttpErrorKind::Interrupted | HttpErrorKind::Request => "the connection broke",
        _ => "the answer could not be read",
    };
    let mut root: &(dyn StdError + 'static) = error;
    for _ in 0..MAX_SOURCES {
        match root.source() {
            Some(source) => root = source,
            None => break,
        }
    }
    format!("{what}: {root}")
}
