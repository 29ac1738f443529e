//! The server as its clients see it: three clients of the `object_store` crate, and a bare socket where a library would
//! hide what is on the wire.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::azure::{MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::gcp::{GcpCredential, GoogleCloudStorage, GoogleCloudStorageBuilder};
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, RetryConfig, StaticCredentialProvider};

use super::*;

mod faults;
mod protocol;

/// Longer than any answer takes; only a hanging test waits for it.
const HANG: Duration = Duration::from_secs(20);
/// How long a stalled answer is waited for before it counts as stalled.
const STALL: Duration = Duration::from_millis(150);

fn start() -> S3Server {
    S3Server::start(S3Options::default()).unwrap()
}

fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn s3_builder(server: &S3Server) -> AmazonS3Builder {
    let builder = AmazonS3Builder::new().with_endpoint(server.url()).with_allow_http(true);
    builder.with_bucket_name("lake").with_retry(no_retries())
}

fn s3(server: &S3Server) -> AmazonS3 {
    s3_builder(server).with_skip_signature(true).build().unwrap()
}

fn gcs(server: &S3Server) -> GoogleCloudStorage {
    let builder = GoogleCloudStorageBuilder::new().with_base_url(&server.url()).with_bucket_name("lake");
    let http = object_store::ClientOptions::new().with_allow_http(true);
    // With `skip_signature` alone a PUT would look for a token in the metadata service of a cloud.
    let token = StaticCredentialProvider::new(GcpCredential { bearer: "any".to_owned() });
    builder.with_credentials(Arc::new(token)).with_client_options(http).with_retry(no_retries()).build().unwrap()
}

fn azure(server: &S3Server) -> MicrosoftAzure {
    let builder = MicrosoftAzureBuilder::new().with_account("any").with_endpoint(server.azure_url());
    let builder = builder.with_allow_http(true).with_container_name("lake").with_retry(no_retries());
    builder.with_skip_signature(true).build().unwrap()
}

fn key() -> Path {
    Path::from("a/part 1.parquet")
}

/// One byte per offset, so that a shifted range shows.
fn content(length: usize) -> Bytes {
    (0..length).map(|offset| (offset % 251) as u8).collect()
}

/// An answer as it came over the wire.
#[derive(Debug)]
struct Wire {
    status: u16,
    version: String,
    headers: BTreeMap<String, String>,
    /// Without the framing of chunks.
    body: Vec<u8>,
    /// Whether the body ended where its framing says.
    is_complete: bool,
}

impl Wire {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("-", String::as_str)
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

fn wire(server: &S3Server, method: &str, target: &str, headers: &[(&str, &str)]) -> Wire {
    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.set_read_timeout(Some(HANG)).unwrap();
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", server.address());
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();

    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a complete head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let raw = bytes[end + 4..].to_vec();
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap().split(' ');
    let (version, status) = (first.next().unwrap().to_owned(), first.next().unwrap().parse().unwrap());
    let headers: BTreeMap<String, String> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let (body, is_complete) = match (headers.get("transfer-encoding"), headers.get("content-length")) {
        (Some(_), _) => dechunk(&raw),
        (None, Some(length)) => (raw.clone(), method == "HEAD" || raw.len() == length.parse::<usize>().unwrap()),
        (None, None) => (raw, true),
    };
    Wire { status, version, headers, body, is_complete }
}

fn dechunk(mut raw: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = raw.windows(2).position(|window| window == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&raw[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            return (body, true);
        }
        body.extend_from_slice(&raw[end + 2..end + 2 + length]);
        raw = &raw[end + 4 + length..];
    }
    (body, false)
}
