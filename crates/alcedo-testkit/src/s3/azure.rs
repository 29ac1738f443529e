//! The dialect of Azure Blob, path style below the account's name, as Azure's emulator has it.
//!
//! It knows operations, headers and XML of the Blob service's REST API, for flat namespaces without snapshots or
//! versions. It must not know faults beyond handing them on. Two traits of the real service are kept because they trip
//! clients: there are no suffix ranges, and an ETag has quotes in headers and none in listings.

use axum::response::Response;
use http::header::{ETAG, LAST_MODIFIED};
use http::{HeaderName, HeaderValue, StatusCode};

use super::amazon::{decode_token, document, empty, encode_token};
use super::call::Call;
use super::content::{self, Answer, http_date};
use super::faults::Fault;
use super::log::Operation;
use super::objects::{Cursor, ListPage, ListQuery, Object, Objects};
use super::refusal::{Refusal, insert};
use super::xml;

const BLOB_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-type");
const CREATION_TIME: HeaderName = HeaderName::from_static("x-ms-creation-time");

/// A deadline in seconds that clients may send with every request; answers here take no time.
const TIMEOUT: &str = "timeout";

/// Answers one request.
///
/// # Errors
/// What Azure refuses, and what this server does not implement.
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
            call.only_parameters(&[TIMEOUT])?;
            objects.get(&call.bucket, &call.key)?;
            objects.remove(&call.bucket, &call.key);
            Ok(empty(StatusCode::ACCEPTED).into())
        }
        Operation::Other => container(objects, call).map(Answer::from),
    }
}

fn read(objects: &Objects, call: &Call, fault: Option<&Fault>) -> Result<Answer, Refusal> {
    call.only_parameters(&[TIMEOUT])?;
    if call.range().is_some_and(|range| range.starts_with("bytes=-")) {
        return Err(Refusal::InvalidArgument("Azure has no suffix ranges.".to_owned()));
    }
    let object = objects.get(&call.bucket, &call.key)?;
    let mut answer = content::answer(call, &object, &etag(&object), fault)?;
    let headers = answer.response.headers_mut();
    headers.insert(BLOB_TYPE, HeaderValue::from_static("BlockBlob"));
    insert(headers, CREATION_TIME, &http_date(object.modified));
    Ok(answer)
}

fn put(objects: &Objects, call: &Call) -> Result<Response, Refusal> {
    call.only_parameters(&[TIMEOUT])?;
    if call.header(BLOB_TYPE.as_str()) != Some("BlockBlob") || call.headers.contains_key("x-ms-copy-source") {
        return Err(Refusal::NotImplemented("a PUT of anything but a whole block blob".to_owned()));
    }
    if let Some(name) = ["if-match", "if-none-match"].iter().find(|name| call.headers.contains_key(**name)) {
        return Err(Refusal::NotImplemented(format!("the header {name} of a PUT")));
    }
    if !objects.bucket_exists(&call.bucket) {
        return Err(Refusal::NoSuchBucket);
    }
    let object = objects.put(&call.bucket, &call.key, call.body.clone());
    let mut response = empty(StatusCode::CREATED);
    insert(response.headers_mut(), ETAG, &format!("\"{}\"", etag(&object)));
    insert(response.headers_mut(), LAST_MODIFIED, &http_date(object.modified));
    Ok(response)
}

fn container(objects: &Objects, call: &Call) -> Result<Response, Refusal> {
    if call.bucket.is_empty() || call.parameter("restype") != Some("container") {
        return Err(Refusal::NotImplemented("this request; it is not about a container or a blob".to_owned()));
    }
    call.only_parameters(&["restype", TIMEOUT])?;
    match call.method.as_str() {
        "PUT" => {
            objects.create_bucket(&call.bucket);
            Ok(empty(StatusCode::CREATED))
        }
        "GET" | "HEAD" if objects.bucket_exists(&call.bucket) => Ok(empty(StatusCode::OK)),
        "GET" | "HEAD" => Err(Refusal::NoSuchBucket),
        _ => Err(Refusal::MethodNotAllowed),
    }
}

fn list(objects: &Objects, page_size: usize, call: &Call) -> Result<Response, Refusal> {
    call.only_parameters(&["restype", "comp", "prefix", "delimiter", "marker", "maxresults", "startFrom", TIMEOUT])?;
    if call.parameter("restype") != Some("container") {
        return Err(Refusal::InvalidArgument("restype must be container.".to_owned()));
    }
    let limit = match call.parameter("maxresults").map(str::parse::<usize>) {
        None => page_size,
        Some(Ok(count)) if count > 0 => count.min(page_size),
        Some(_) => return Err(Refusal::InvalidArgument("maxresults must be a count above zero.".to_owned())),
    };
    let cursor = match (call.parameter("marker"), call.parameter("startFrom")) {
        (Some(marker), _) if !marker.is_empty() => decode_token(marker)?,
        (_, Some(key)) => Cursor::From(key.to_owned()),
        _ => Cursor::Start,
    };
    let query = ListQuery {
        prefix: call.parameter("prefix").unwrap_or_default().to_owned(),
        delimiter: call.parameter("delimiter").unwrap_or_default().to_owned(),
        cursor,
        limit,
    };
    Ok(document(&list_document(&query, &objects.list(&call.bucket, &query)?)))
}

fn list_document(query: &ListQuery, page: &ListPage) -> String {
    let mut out = String::new();
    xml::open(&mut out, "EnumerationResults");
    xml::element(&mut out, "Prefix", &query.prefix);
    xml::element(&mut out, "MaxResults", &query.limit.to_string());
    xml::element(&mut out, "Delimiter", &query.delimiter);
    xml::open(&mut out, "Blobs");
    for (key, object) in &page.objects {
        xml::open(&mut out, "Blob");
        xml::element(&mut out, "Name", key);
        xml::open(&mut out, "Properties");
        xml::element(&mut out, "Creation-Time", &http_date(object.modified));
        xml::element(&mut out, "Last-Modified", &http_date(object.modified));
        xml::element(&mut out, "Etag", &etag(object));
        xml::element(&mut out, "Content-Length", &object.size.to_string());
        xml::element(&mut out, "Content-Type", "binary/octet-stream");
        xml::element(&mut out, "BlobType", "BlockBlob");
        xml::close(&mut out, "Properties");
        xml::close(&mut out, "Blob");
    }
    for prefix in &page.prefixes {
        xml::open(&mut out, "BlobPrefix");
        xml::element(&mut out, "Name", prefix);
        xml::close(&mut out, "BlobPrefix");
    }
    xml::close(&mut out, "Blobs");
    let next = page.next.as_ref().map(encode_token);
    xml::element(&mut out, "NextMarker", &next.unwrap_or_default());
    xml::close(&mut out, "EnumerationResults");
    out
}

/// An ETag as Azure makes them: 0x and fifteen hex digits.
fn etag(object: &Object) -> String {
    let digits: String = object.etag.chars().take(15).collect();
    format!("0x{}", digits.to_uppercase())
}
