//! The answer to a GET or HEAD of an object: conditions, range, headers, and the body with what a fault does to it.
//!
//! It knows HTTP (RFC 9110 sections 13 and 14) and faults. It must not know dialects: those hand it the ETag in their
//! own form and add their own headers. Files are read in chunks on the server's thread: they are local and nobody else
//! waits.

use std::future::pending;
use std::io;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures::stream;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue, StatusCode, Version};

use super::call::Call;
use super::faults::{Fault, Framing};
use super::log::Operation;
use super::objects::Object;
use super::range::{self, Selection};
use super::refusal::{Refusal, insert};

/// Most bytes read from a file at once, and so most that a slow client keeps in memory.
const CHUNK_BYTES: u64 = 256 * 1024;

/// How long a connection stays open before it is cut, so that the bytes before the cut reach the client: hyper writes
/// what it has when a body has nothing more to give, and forgets it when the body fails.
const FLUSH_PAUSE: Duration = Duration::from_millis(20);

/// An answer and the bytes of content it sets out to send.
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) bytes: u64,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self { response, bytes: 0 }
    }
}

/// Headers that would change the meaning of a read and that this server does not implement.
const REFUSED_CONDITIONS: [&str; 3] = ["if-modified-since", "if-unmodified-since", "if-range"];

/// Answers a GET or HEAD of `object`, whose ETag in the dialect's own form, without quotes, is `etag`.
///
/// # Errors
/// A failed condition, a range outside of the object, a condition that is not implemented.
pub(super) fn answer(call: &Call, object: &Object, etag: &str, fault: Option<&Fault>) -> Result<Answer, Refusal> {
    if let Some(name) = REFUSED_CONDITIONS.iter().find(|name| call.headers.contains_key(**name)) {
        return Err(Refusal::NotImplemented(format!("the header {name}")));
    }
    let quoted = format!("\"{etag}\"");
    if call.header("if-match").is_some_and(|tags| !names(tags, etag)) {
        return Err(Refusal::PreconditionFailed);
    }
    if call.header("if-none-match").is_some_and(|tags| names(tags, etag)) {
        return Err(Refusal::NotModified { etag: quoted });
    }
    let (status, span) = match range::select(call.range(), object.size) {
        Selection::Unsatisfiable => return Err(Refusal::InvalidRange { size: object.size }),
        Selection::Part(span) if fault != Some(&Fault::FullInsteadOfRange) => (StatusCode::PARTIAL_CONTENT, span),
        _ => (StatusCode::OK, 0..object.size),
    };
    let plan = BodyPlan::new(&span, fault);
    let mut headers = HeaderMap::new();
    insert(&mut headers, ETAG, &quoted);
    insert(&mut headers, LAST_MODIFIED, &http_date(object.modified));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("binary/octet-stream"));
    if status == StatusCode::PARTIAL_CONTENT {
        let shift = u64::from(fault == Some(&Fault::WrongContentRange));
        let (first, last) = (span.start + shift, span.end - 1 + shift);
        insert(&mut headers, CONTENT_RANGE, &format!("bytes {first}-{last}/{}", object.size));
    }
    if let Some(length) = plan.content_length {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    *response.version_mut() = plan.version;
    if call.operation == Operation::Head {
        return Ok(response.into());
    }
    let bytes = plan.sent + plan.surplus;
    *response.body_mut() = plan.body(object, span.start);
    Ok(Answer { response, bytes })
}

/// Whether an `If-Match` or `If-None-Match` header names this ETag. Stores take it with and without quotes.
fn names(header: &str, etag: &str) -> bool {
    header.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_matches('"') == etag)
}

/// The date form of HTTP headers and of Azure's listings.
pub(super) fn http_date(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Clean,
    /// The connection is closed before the promised length.
    Cut,
    /// Nothing more comes.
    Stall,
}

/// What is sent for a span of an object.
#[derive(Debug)]
struct BodyPlan {
    /// Bytes of the span that are sent.
    sent: u64,
    /// Zero bytes after them.
    surplus: u64,
    content_length: Option<u64>,
    version: Version,
    ending: Ending,
    /// The byte of the body whose lowest bit is flipped.
    flip: Option<u64>,
}

impl BodyPlan {
    fn new(span: &Range<u64>, fault: Option<&Fault>) -> Self {
        let length = span.end - span.start;
        let mut plan = Self {
            sent: length,
            surplus: 0,
            content_length: Some(length),
            version: Version::HTTP_11,
            ending: Ending::Clean,
            flip: None,
        };
        match fault {
            Some(Fault::ShortBody { drop_bytes, framing }) => {
                plan.sent = length.saturating_sub(*drop_bytes);
                plan.frame(*framing);
            }
            Some(Fault::LongBody { extra_bytes, framing }) => {
                plan.surplus = *extra_bytes;
                plan.frame(*framing);
            }
            Some(Fault::CutBody { after_bytes }) => {
                plan.sent = (*after_bytes).min(length.saturating_sub(1));
                plan.ending = Ending::Cut;
            }
            Some(Fault::StallBody { after_bytes }) => {
                plan.sent = (*after_bytes).min(length.saturating_sub(1));
                plan.ending = Ending::Stall;
            }
            Some(Fault::FlipBit { offset }) => plan.flip = offset.checked_rem(length),
            _ => {}
        }
        plan
    }

    fn frame(&mut self, framing: Framing) {
        self.content_length = match framing {
            Framing::Declared => Some(self.sent + self.surplus),
            Framing::Chunked | Framing::UntilClose => None,
        };
        // hyper ends the body of an HTTP/1.0 answer without a length by closing the connection.
        if framing == Framing::UntilClose {
            self.version = Version::HTTP_10;
        }
    }

    fn body(self, object: &Object, start: u64) -> Body {
        let reader = Reader { object: object.clone(), start, position: 0, plan: self };
        Body::from_stream(stream::unfold(Some(reader), |reader| async {
            let mut reader = reader?;
            match reader.next_chunk() {
                Ok(Some(chunk)) => Some((Ok(chunk), Some(reader))),
                Ok(None) => reader.end().await.map(|error| (Err(error), None)),
                Err(error) => Some((Err(error), None)),
            }
        }))
    }
}

/// Gives out a body chunk by chunk.
struct Reader {
    object: Object,
    /// Where in the object the body begins.
    start: u64,
    /// Bytes of the body given out.
    position: u64,
    plan: BodyPlan,
}

impl Reader {
    fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        let mut chunk = if self.position < self.plan.sent {
            let length = (self.plan.sent - self.position).min(CHUNK_BYTES);
            self.object.read(self.start + self.position, length)?
        } else {
            let length = (self.plan.sent + self.plan.surplus - self.position).min(CHUNK_BYTES);
            Bytes::from(vec![0; usize::try_from(length).map_err(io::Error::other)?])
        };
        if chunk.is_empty() {
            return Ok(None);
        }
        let end = self.position + chunk.len() as u64;
        if let Some(flip) = self.plan.flip.filter(|flip| (self.position..end).contains(flip)) {
            let mut damaged = BytesMut::from(&chunk[..]);
            damaged[usize::try_from(flip - self.position).map_err(io::Error::other)?] ^= 1;
            chunk = damaged.freeze();
        }
        self.position = end;
        Ok(Some(chunk))
    }

    /// What comes after the last chunk.
    async fn end(&self) -> Option<io::Error> {
        match self.plan.ending {
            Ending::Clean => None,
            Ending::Stall => pending().await,
            Ending::Cut => {
                tokio::time::sleep(FLUSH_PAUSE).await;
                Some(io::Error::other("a fault rule cuts this body"))
            }
        }
    }
}
