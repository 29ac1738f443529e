//! moto's S3 server: a second implementation of S3, so that our own test server is not the only judge. It verifies
//! every signature with botocore's code.
//!
//! Knows moto's process and S3 paths. It must not know the questions, which all stores share.

use alcedo_client::Kind;
use bytes::Bytes;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStoreExt as _};
use serde_json::Value as Json;
use tempfile::NamedTempFile;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::overwrite::overwrites;
use crate::python::{PATIENCE, program};
use crate::served::{ALWAYS, FILES, LASTING, Served, serve};
use crate::tour::{PREFIX, path, row_of, tour_of_files, tour_of_prefix};

const BUCKET: &str = "lake";

/// The server's process with its answers; it ends with this.
struct Moto {
    _process: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    endpoint: String,
    access_key: (String, String),
}

/// One request that the server answered.
#[derive(Debug)]
struct Asked {
    method: String,
    path: String,
    is_listing: bool,
    range: Option<String>,
    if_match: Option<String>,
    authorization: String,
    status: u64,
}

impl Moto {
    /// A server whose bucket holds the lake.
    async fn start() -> Self {
        let mut process = program("moto_s3.py").arg(BUCKET).spawn().unwrap();
        let (stdin, stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut lines = BufReader::new(stdout).lines();
        let ready = next(&mut lines).await;
        let text = |name: &str| ready[name].as_str().unwrap().to_owned();
        let endpoint = format!("http://127.0.0.1:{}", ready["port"]);
        let access_key = (text("access_key_id"), text("secret_access_key"));
        let mut moto = Self { _process: process, stdin, lines, endpoint, access_key };
        for (name, bytes) in FILES.iter() {
            moto.put(name, bytes.clone()).await;
        }
        moto.asked().await;
        moto
    }

    async fn put(&self, name: &str, bytes: Bytes) {
        put(&self.store(), name, bytes).await;
    }

    /// The bucket, for a client that writes.
    fn store(&self) -> AmazonS3 {
        let (id, secret) = &self.access_key;
        let builder = AmazonS3Builder::new().with_endpoint(&self.endpoint).with_bucket_name(BUCKET);
        let builder = builder.with_access_key_id(id).with_secret_access_key(secret).with_region("us-east-1");
        builder.with_client_options(ClientOptions::new().with_allow_http(true)).build().unwrap()
    }

    /// The requests since the last call.
    async fn asked(&mut self) -> Vec<Asked> {
        self.stdin.write_all(b"requests\n").await.unwrap();
        let Json::Array(requests) = next(&mut self.lines).await else { panic!("a list of requests") };
        let text = |value: &Json| value.as_str().map(str::to_owned);
        let asked = |request: Json| Asked {
            method: text(&request["method"]).unwrap(),
            path: text(&request["path"]).unwrap(),
            is_listing: text(&request["query"]).unwrap().contains("list-type=2"),
            range: text(&request["range"]),
            if_match: text(&request["if_match"]),
            authorization: text(&request["authorization"]).unwrap(),
            status: request["status"].as_u64().unwrap(),
        };
        requests.into_iter().map(asked).collect()
    }

    /// A worker that mounts the bucket with the server's key, or with another secret.
    fn serve(&self, secret: Option<&str>, freshness: &str) -> Served {
        let (id, right_secret) = &self.access_key;
        let secret = secret.unwrap_or(right_secret);
        let file = NamedTempFile::new().unwrap();
        let credentials = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
        std::fs::write(file.path(), credentials).unwrap();
        serve(&format!(
            "url = \"s3://{BUCKET}\"\nendpoint = \"{}\"\nallow_http = true\nfreshness = {freshness}\n\
             credentials_file = \"{}\"",
            self.endpoint,
            file.path().display()
        ))
    }
}

async fn put(store: &AmazonS3, name: &str, bytes: Bytes) {
    store.put(&Path::from(format!("users/{name}")), bytes.into()).await.unwrap();
}

async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> Json {
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("moto_s3.py is silent").unwrap();
    serde_json::from_str(&line.expect("moto_s3.py has ended")).unwrap()
}

#[tokio::test]
async fn lookups_in_a_bucket_of_another_s3_are_the_truth_and_every_request_is_signed() {
    let mut moto = Moto::start().await;
    let served = moto.serve(None, LASTING);
    tour_of_prefix(&served.client).await;
    let asked = moto.asked().await;
    let gets = asked.iter().filter(|request| !request.is_listing);
    assert!(gets.clone().count() > 4, "{asked:?}");
    assert!(asked.iter().all(|request| request.authorization == "AWS4-HMAC-SHA256"), "{asked:?}");
    assert!(asked.iter().all(|request| request.method == "GET"), "no HEAD: {asked:?}");
    // The listing named every version, so no read was without one.
    for request in gets {
        let if_match = request.if_match.as_deref().unwrap_or_default();
        assert!(if_match.starts_with('"') && request.range.is_some() && request.status == 206, "{request:?}");
    }
    assert_eq!(asked.iter().filter(|request| request.is_listing).count(), 1);
    tour_of_files(&served.client).await;
    let asked = moto.asked().await;
    assert!(asked.iter().all(|request| request.method == "GET" && request.status == 206), "{asked:?}");
}

#[tokio::test]
async fn a_cold_lookup_of_a_file_asks_s3_for_its_last_bytes_first() {
    let mut moto = Moto::start().await;
    for (file, gets) in [(0, 2), (1, 3)] {
        let served = moto.serve(None, LASTING);
        let answer = served.client.lookup(path(file)).key_column("id").key(row_of(file).id).await.unwrap();
        let asked = moto.asked().await;
        assert_eq!((answer.origin_gets, asked.len()), (gets, gets as usize), "{asked:?}");
        assert!(asked.iter().all(|request| request.method == "GET"), "no HEAD: {asked:?}");
        let (tail, others) = asked.split_first().unwrap();
        assert_eq!((tail.range.as_deref(), tail.if_match.as_deref()), (Some("bytes=-65536"), None));
        assert!(others.iter().all(|request| request.if_match.is_some() && request.path == tail.path), "{asked:?}");
    }
}

#[tokio::test]
async fn a_wrong_secret_is_refused_and_never_shown() {
    let mut moto = Moto::start().await;
    let served = moto.serve(Some("canary-secret-0123456789"), LASTING);
    for path in [PREFIX.to_owned(), path(0)] {
        let error = served.client.lookup(path).key_column("id").key(1).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{error}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    }
    let asked = moto.asked().await;
    assert!(!asked.is_empty() && asked.iter().all(|request| request.status == 403), "{asked:?}");
}

#[tokio::test]
async fn an_overwritten_object_is_seen_at_once_where_freshness_is_always() {
    let moto = Moto::start().await;
    let (served, store) = (moto.serve(None, ALWAYS), moto.store());
    for overwrite in overwrites() {
        overwrite.is_seen_at_once(&served.client, async |name, bytes| put(&store, &name, bytes).await).await;
    }
}

#[tokio::test]
async fn an_object_that_changes_between_two_reads_is_read_anew_and_never_mixed() {
    let mut moto = Moto::start().await;
    let store = moto.store();
    for by_prefix in [false, true] {
        for overwrite in overwrites() {
            let (name, older) = FILES[overwrite.file as usize].clone();
            moto.put(&name, older).await;
            let served = moto.serve(None, LASTING);
            let path = if by_prefix { PREFIX.to_owned() } else { path(overwrite.file) };
            moto.asked().await;
            overwrite.is_never_mixed(&served.client, &path, async |name, bytes| put(&store, &name, bytes).await).await;
            let asked = moto.asked().await;
            let refused = asked.iter().filter(|request| request.status == 412).count();
            assert!(refused > 0, "no read was refused, so this test has not tested anything: {asked:?}");
        }
    }
}
