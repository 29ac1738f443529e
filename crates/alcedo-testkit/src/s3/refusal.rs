//! Error answers: one list of reasons, spelled as S3 and as Azure spell them.
//!
//! It knows statuses, codes and XML bodies. It must not know why a request is refused.

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, ETAG, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::call::Dialect;
use super::xml;

/// Why a request is not answered with what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NoSuchKey,
    NoSuchBucket,
    AccessDenied,
    /// The access key is known, the signature is not made with its secret.
    SignatureDoesNotMatch,
    /// The range selects nothing of an object of this size.
    InvalidRange {
        size: u64,
    },
    PreconditionFailed,
    /// Not an error: `If-None-Match` found the version it knows, whose quoted ETag this is.
    NotModified {
        etag: String,
    },
    /// A sub-resource, parameter or header that this server does not know.
    NotImplemented(String),
    InvalidArgument(String),
    EntityTooLarge,
    MethodNotAllowed,
    /// Asked for by a fault rule.
    Injected {
        status: StatusCode,
        retry_after: Option<u64>,
    },
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchKey | Self::NoSuchBucket => StatusCode::NOT_FOUND,
            Self::AccessDenied | Self::SignatureDoesNotMatch => StatusCode::FORBIDDEN,
            Self::InvalidRange { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::NotModified { .. } => StatusCode::NOT_MODIFIED,
            Self::NotImplemented(_) => StatusCode::NOT_IMPLEMENTED,
            Self::InvalidArgument(_) | Self::EntityTooLarge => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Injected { status, .. } => *status,
        }
    }

    /// The error code of S3 and of Azure.
    fn codes(&self) -> (&'static str, &'static str) {
        match self {
            Self::NoSuchKey => ("NoSuchKey", "BlobNotFound"),
            Self::NoSuchBucket => ("NoSuchBucket", "ContainerNotFound"),
            Self::AccessDenied => ("AccessDenied", "AuthorizationFailure"),
            Self::SignatureDoesNotMatch => ("SignatureDoesNotMatch", "AuthenticationFailed"),
            Self::InvalidRange { .. } => ("InvalidRange", "InvalidRange"),
            Self::PreconditionFailed => ("PreconditionFailed", "ConditionNotMet"),
            Self::NotModified { .. } => ("NotModified", "ConditionNotMet"),
            Self::NotImplemented(_) => ("NotImplemented", "UnsupportedQueryParameter"),
            Self::InvalidArgument(_) => ("InvalidArgument", "InvalidInput"),
            Self::EntityTooLarge => ("EntityTooLarge", "RequestBodyTooLarge"),
            Self::MethodNotAllowed => ("MethodNotAllowed", "UnsupportedHttpVerb"),
            Self::Injected { status, .. } => match status.as_u16() {
                401 => ("InvalidToken", "NoAuthenticationInformation"),
                403 => ("AccessDenied", "AuthorizationFailure"),
                404 => ("NoSuchKey", "BlobNotFound"),
                412 => ("PreconditionFailed", "ConditionNotMet"),
                429 => ("TooManyRequests", "TooManyRequests"),
                503 => ("SlowDown", "ServerBusy"),
                _ => ("InternalError", "InternalError"),
            },
        }
    }

    fn message(&self) -> String {
        match self {
            Self::NotImplemented(what) => format!("This server does not implement {what}."),
            Self::InvalidArgument(what) => what.clone(),
            Self::InvalidRange { size } => format!("The range is not satisfiable: the object has {size} bytes."),
            Self::Injected { .. } => "A fault rule of the test server asked for this error.".to_owned(),
            other => other.codes().0.to_owned(),
        }
    }

    /// The answer. A `304` has no body; a `HEAD` loses it later.
    pub(super) fn respond(&self, dialect: Dialect, resource: &str) -> Response {
        let (s3_code, azure_code) = self.codes();
        let mut headers = HeaderMap::new();
        match self {
            Self::InvalidRange { size } => insert(&mut headers, CONTENT_RANGE, &format!("bytes */{size}")),
            Self::NotModified { etag } => insert(&mut headers, ETAG, etag),
            Self::Injected { retry_after: Some(seconds), .. } => {
                insert(&mut headers, RETRY_AFTER, &seconds.to_string())
            }
            _ => {}
        }
        let mut text = String::new();
        if !matches!(self, Self::NotModified { .. }) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
            text.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
            xml::open(&mut text, "Error");
            xml::element(&mut text, "Code", if dialect == Dialect::Azure { azure_code } else { s3_code });
            xml::element(&mut text, "Message", &self.message());
            if dialect == Dialect::Amazon {
                xml::element(&mut text, "Resource", resource);
            }
            xml::close(&mut text, "Error");
        }
        if dialect == Dialect::Azure {
            insert(&mut headers, HeaderName::from_static("x-ms-error-code"), azure_code);
        }
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = self.status();
        *response.headers_mut() = headers;
        response
    }
}

/// Sets a header whose text comes from data; text that no header may carry is left out, as a store would.
pub(super) fn insert(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
