//! The dialect of S3, path style, which the XML API of Google Cloud Storage shares.
//!
//! It knows operations and XML of the S3 API, and the generation header of Google. It must not know faults beyond
//! handing them on, nor who asks.

use std::time::SystemTime;

use axum::body::Body;
use axum::response::Response;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::call::Call;
use super::content::{self, Answer};
use super::faults::Fault;
use super::log::Operation;
use super::objects::{Cursor, ListPage, ListQuery, Object, Objects};
use super::refusal::{Refusal, insert};
use super::xml;

/// Google's name for an object's version.
const GENERATION: HeaderName = HeaderName::from_static("x-goog-generation");

/// A parameter that Amazon's own clients add to every request to name the operation; it has no meaning.
const OPERATION_ID: &str = "x-id";

/// What `encoding-type=url` leaves as it is in keys.
const LISTED_KEY: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Answers one request.
///
/// # Errors
/// What S3 refuses, and what this server does not implement.
pub(super) fn answer(
    objects: &Objects,
    page_size: usize,
    call: &Call,
    fault: Option<&Fault>,
) -> Result<Answer, Refusal> {
    match call.operation {
        Operation::Get | Operation::Head => read(objects, call, fault),
        Operation::List => list(objects, page_size, call).map(Answer::from),
        Operation::Put => put(objects, call).map(Answer::from),
        Operation::Delete => {
            call.only_parameters(&[OPERATION_ID])?;
            require_bucket(objects, call)?;
            objects.remove(&call.bucket, &call.key);
            Ok(empty(StatusCode::NO_CONTENT).into())
        }
        Operation::Other => bucket(objects, call).map(Answer::from),
    }
}

fn read(objects: &Objects, call: &Call, fault: Option<&Fault>) -> Result<Answer, Refusal> {
    call.only_parameters(&[OPERATION_ID, "generation"])?;
    let object = objects.get(&call.bucket, &call.key)?;
    // Only the newest generation is kept.
    if call.parameter("generation").is_some_and(|wanted| wanted != object.generation.to_string()) {
        return Err(Refusal::NoSuchKey);
    }
    let mut answer = content::answer(call, &object, &object.etag, fault)?;
    add_generation(answer.response.headers_mut(), &object);
    Ok(answer)
}

fn put(objects: &Objects, call: &Call) -> Result<Response, Refusal> {
    call.only_parameters(&[OPERATION_ID])?;
    let encoding = call.header("x-amz-content-sha256").unwrap_or_default();
    if encoding.starts_with("STREAMING-") {
        return Err(Refusal::NotImplemented(format!("the body encoding {encoding}")));
    }
    for name in ["x-amz-copy-source", "x-goog-copy-source", "if-match", "if-none-match", "x-goog-if-generation-match"] {
        if call.headers.contains_key(name) {
            return Err(Refusal::NotImplemented(format!("the header {name} of a PUT")));
        }
    }
    require_bucket(objects, call)?;
    let object = objects.put(&call.bucket, &call.key, call.body.clone());
    let mut response = empty(StatusCode::OK);
    insert(response.headers_mut(), ETAG, &object.quoted_etag());
    add_generation(response.headers_mut(), &object);
    Ok(response)
}

fn bucket(objects: &Objects, call: &Call) -> Result<Response, Refusal> {
    if call.bucket.is_empty() {
        return Err(Refusal::NotImplemented("requests without a bucket".to_owned()));
    }
    if !call.key.is_empty() {
        return Err(Refusal::MethodNotAllowed);
    }
    match call.method.as_str() {
        "PUT" => {
            call.only_parameters(&[OPERATION_ID])?;
            objects.create_bucket(&call.bucket);
            Ok(empty(StatusCode::OK))
        }
        "HEAD" => {
            call.only_parameters(&[OPERATION_ID])?;
            require_bucket(objects, call).map(|()| empty(StatusCode::OK))
        }
        "GET" if call.parameter("location").is_some() => {
            call.only_parameters(&[OPERATION_ID, "location"])?;
            require_bucket(objects, call)?;
            // Empty stands for us-east-1.
            let location = "<LocationConstraint xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"/>";
            Ok(document(location))
        }
        "GET" => {
            Err(Refusal::NotImplemented("GET of a bucket other than ListObjectsV2 and GetBucketLocation".to_owned()))
        }
        "POST" => Err(Refusal::NotImplemented("POST of a bucket, such as bulk deletion".to_owned())),
        _ => Err(Refusal::MethodNotAllowed),
    }
}

fn require_bucket(objects: &Objects, call: &Call) -> Result<(), Refusal> {
    if objects.bucket_exists(&call.bucket) { Ok(()) } else { Err(Refusal::NoSuchBucket) }
}

fn list(objects: &Objects, page_size: usize, call: &Call) -> Result<Response, Refusal> {
    let known = ["list-type", "prefix", "delimiter", "max-keys", "continuation-token", "start-after", "encoding-type"];
    call.only_parameters(&[&known[..], &[OPERATION_ID, "fetch-owner"]].concat())?;
    if call.parameter("list-type") != Some("2") {
        return Err(Refusal::InvalidArgument("list-type must be 2.".to_owned()));
    }
    let max_keys = match call.parameter("max-keys") {
        None => page_size,
        Some(text) => {
            let bad = || Refusal::InvalidArgument(format!("max-keys={text} is not a count."));
            text.parse::<u32>().map_err(|_| bad())?.try_into().map_err(|_| bad())?
        }
    };
    let cursor = match (call.parameter("continuation-token"), call.parameter("start-after")) {
        (Some(token), _) => decode_token(token)?,
        (None, Some(key)) => Cursor::After(key.to_owned()),
        (None, None) => Cursor::Start,
    };
    let query = ListQuery {
        prefix: call.parameter("prefix").unwrap_or_default().to_owned(),
        delimiter: call.parameter("delimiter").unwrap_or_default().to_owned(),
        cursor,
        limit: max_keys.min(page_size),
    };
    let page = objects.list(&call.bucket, &query)?;
    let encode = match call.parameter("encoding-type") {
        None => |key: &str| key.to_owned(),
        Some("url") => |key: &str| utf8_percent_encode(key, &LISTED_KEY).to_string(),
        Some(other) => return Err(Refusal::InvalidArgument(format!("encoding-type={other} is unknown."))),
    };
    Ok(document(&list_document(call, &query, &page, encode)))
}

fn list_document(call: &Call, query: &ListQuery, page: &ListPage, encode: fn(&str) -> String) -> String {
    let mut out = String::from("<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    xml::element(&mut out, "Name", &call.bucket);
    xml::element(&mut out, "Prefix", &encode(&query.prefix));
    if !query.delimiter.is_empty() {
        xml::element(&mut out, "Delimiter", &encode(&query.delimiter));
    }
    if let Some(key) = call.parameter("start-after") {
        xml::element(&mut out, "StartAfter", &encode(key));
    }
    if let Some(encoding) = call.parameter("encoding-type") {
        xml::element(&mut out, "EncodingType", encoding);
    }
    if let Some(token) = call.parameter("continuation-token") {
        xml::element(&mut out, "ContinuationToken", token);
    }
    xml::element(&mut out, "MaxKeys", &query.limit.to_string());
    xml::element(&mut out, "KeyCount", &(page.objects.len() + page.prefixes.len()).to_string());
    xml::element(&mut out, "IsTruncated", if page.next.is_some() { "true" } else { "false" });
    if let Some(next) = &page.next {
        xml::element(&mut out, "NextContinuationToken", &encode_token(next));
    }
    for (key, object) in &page.objects {
        xml::open(&mut out, "Contents");
        xml::element(&mut out, "Key", &encode(key));
        xml::element(&mut out, "LastModified", &iso_date(object.modified));
        xml::element(&mut out, "ETag", &object.quoted_etag());
        xml::element(&mut out, "Size", &object.size.to_string());
        xml::element(&mut out, "StorageClass", "STANDARD");
        xml::close(&mut out, "Contents");
    }
    for prefix in &page.prefixes {
        xml::open(&mut out, "CommonPrefixes");
        xml::element(&mut out, "Prefix", &encode(prefix));
        xml::close(&mut out, "CommonPrefixes");
    }
    xml::close(&mut out, "ListBucketResult");
    out
}

/// A cursor as an opaque word. Both dialects use it.
pub(super) fn encode_token(cursor: &Cursor) -> String {
    let text = match cursor {
        Cursor::Start => String::new(),
        Cursor::After(key) => format!("a{key}"),
        Cursor::From(key) => format!("f{key}"),
        Cursor::AfterPrefix(prefix) => format!("p{prefix}"),
    };
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

/// # Errors
/// [`Refusal::InvalidArgument`] for a word that [`encode_token`] did not make.
pub(super) fn decode_token(token: &str) -> Result<Cursor, Refusal> {
    let bad = || Refusal::InvalidArgument("The continuation token is not one of this server.".to_owned());
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    match text.split_at_checked(1) {
        Some(("a", key)) => Ok(Cursor::After(key.to_owned())),
        Some(("f", key)) => Ok(Cursor::From(key.to_owned())),
        Some(("p", prefix)) => Ok(Cursor::AfterPrefix(prefix.to_owned())),
        _ => Err(bad()),
    }
}

fn iso_date(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn add_generation(headers: &mut HeaderMap, object: &Object) {
    headers.insert(GENERATION, HeaderValue::from(object.generation));
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// An XML document with status 200.
pub(super) fn document(text: &str) -> Response {
    let mut response = Response::new(Body::from(format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{text}")));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    response
}
