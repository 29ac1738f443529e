//! Without faults: ranges, conditions, listings, errors, access keys, and what each dialect's client may expect.

use super::*;

#[tokio::test]
async fn ranges_are_exact_and_counted() {
    let server = start();
    let bytes = content(1_000);
    let etag = server.put("lake", key().as_ref(), bytes.clone());
    let store = s3(&server);

    assert_eq!(store.get_range(&key(), 10..20).await.unwrap(), bytes.slice(10..20));
    assert_eq!(store.get_range(&key(), 990..2_000).await.unwrap(), bytes.slice(990..));
    let suffix = GetOptions { range: Some(GetRange::Suffix(8)), ..GetOptions::default() };
    let result = store.get_opts(&key(), suffix).await.unwrap();
    assert_eq!((result.meta.size, result.range.clone()), (1_000, 992..1_000), "a suffix tells the size");
    assert_eq!(result.meta.e_tag.as_deref(), Some(etag.as_str()));
    assert_eq!(result.bytes().await.unwrap(), bytes.slice(992..));
    let offset = GetOptions { range: Some(GetRange::Offset(995)), ..GetOptions::default() };
    assert_eq!(store.get_opts(&key(), offset).await.unwrap().bytes().await.unwrap(), bytes.slice(995..));
    assert_eq!(store.get(&key()).await.unwrap().bytes().await.unwrap(), bytes);
    assert_eq!(store.head(&key()).await.unwrap().size, 1_000);
    assert!(store.get_range(&key(), 1_000..1_001).await.is_err(), "nothing is there");

    let counters = server.counters();
    let sent = 10 + 10 + 8 + 5 + 1_000;
    assert_eq!((counters.get, counters.head, counters.bytes_sent), (6, 1, sent));
    assert_eq!((counters.list, counters.put, counters.delete, counters.other), (0, 0, 0, 0));
    assert_eq!(counters.by_key["lake/a/part 1.parquet"], KeyCounters { get: 6, head: 1, bytes_sent: sent });
    let requests = server.requests();
    let seen: Vec<_> = requests.iter().map(|record| (record.range.as_deref(), record.status, record.bytes)).collect();
    assert_eq!(seen[0], (Some("bytes=10-19"), Some(206), 10));
    assert_eq!(seen[2], (Some("bytes=-8"), Some(206), 8));
    assert_eq!(seen[5], (None, Some(200), 0), "HEAD sends nothing");
    assert_eq!(seen[6], (Some("bytes=1000-1000"), Some(416), 0));
    server.reset_counters();
    assert_eq!(server.counters(), Counters::default());
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn conditions_hold_and_every_put_is_a_new_version() {
    let server = start();
    let store = s3(&server);
    let old = server.put("lake", key().as_ref(), content(10));
    let new = server.put("lake", key().as_ref(), content(10));
    assert_ne!(old, new, "equal bytes, another version");
    let matching = |etag: &str| GetOptions { if_match: Some(etag.to_owned()), ..GetOptions::default() };
    assert_eq!(store.get_opts(&key(), matching(&new)).await.unwrap().bytes().await.unwrap(), content(10));
    assert!(matches!(store.get_opts(&key(), matching(&old)).await, Err(Error::Precondition { .. })));
    let unless = GetOptions { if_none_match: Some(new.clone()), ..GetOptions::default() };
    assert!(matches!(store.get_opts(&key(), unless).await, Err(Error::NotModified { .. })));
    assert_eq!(server.requests()[1].if_match.as_deref(), Some(old.as_str()));

    let answer = wire(&server, "GET", "/lake/a/part%201.parquet", &[("if-none-match", &new)]);
    assert_eq!((answer.status, answer.header("etag"), answer.body.len()), (304, new.as_str(), 0));
    let answer = wire(&server, "GET", "/lake/a/part%201.parquet", &[("if-unmodified-since", "yesterday")]);
    assert_eq!(answer.status, 501, "a condition is never ignored");
    assert!(server.remove("lake", key().as_ref()));
    assert!(!server.remove("lake", key().as_ref()));
    assert!(matches!(store.get(&key()).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn a_listing_comes_in_pages_and_in_order() {
    let server = S3Server::start(S3Options { list_page_size: 3, ..S3Options::default() }).unwrap();
    let store = s3(&server);
    let keys: Vec<String> = (0..10).map(|n| format!("t/d{}/part-{n} & <1>.parquet", n % 2)).collect();
    let mut expected = keys.clone();
    expected.sort();
    for key in &keys {
        server.put("lake", key, content(7));
    }
    server.put("lake", "t", content(1));
    server.put("lake", "u/other", content(1));

    let prefix = Path::from("t");
    let listed: Vec<_> = store.list(Some(&prefix)).try_collect().await.unwrap();
    let names: Vec<String> = listed.iter().map(|meta| meta.location.to_string()).collect();
    assert_eq!(names, expected);
    assert_eq!(server.counters().list, 4, "ten keys, three to a page");
    let etag = store.head(&listed[0].location).await.unwrap().e_tag;
    assert_eq!((listed[0].size, &listed[0].e_tag), (7, &etag), "a listing tells the version");

    server.reset_counters();
    let level = store.list_with_delimiter(Some(&prefix)).await.unwrap();
    let prefixes: Vec<&str> = level.common_prefixes.iter().map(Path::as_ref).collect();
    assert_eq!((prefixes, level.objects.len()), (vec!["t/d0", "t/d1"], 0));
    assert_eq!(server.counters().list, 1);
    let top = store.list_with_delimiter(None).await.unwrap();
    let prefixes: Vec<&str> = top.common_prefixes.iter().map(Path::as_ref).collect();
    assert_eq!((prefixes, top.objects[0].location.as_ref()), (vec!["t", "u"], "t"));
    let after = store.list_with_offset(Some(&prefix), &Path::parse(&expected[7]).unwrap());
    let names: Vec<String> = after.map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap();
    assert_eq!(names, expected[8..]);
    assert!(store.list(Some(&Path::from("none"))).next().await.is_none());

    server.reset_counters();
    let page = wire(&server, "GET", "/lake?list-type=2&prefix=t/&delimiter=/&max-keys=1&encoding-type=url", &[]).text();
    for part in ["<KeyCount>1</KeyCount>", "<IsTruncated>true</IsTruncated>", "<Prefix>t/d0/</Prefix>"] {
        assert!(page.contains(part), "{part} in {page}");
    }
    let token = page.split_once("<NextContinuationToken>").unwrap().1.split_once('<').unwrap().0;
    let target = format!("/lake?list-type=2&prefix=t/&delimiter=/&max-keys=1&continuation-token={token}");
    let page = wire(&server, "GET", &target, &[]).text();
    assert!(page.contains("<Prefix>t/d1/</Prefix>") && page.contains("<IsTruncated>false</IsTruncated>"), "{page}");
    let page = wire(&server, "GET", "/lake?list-type=2&max-keys=1&start-after=t/&encoding-type=url", &[]).text();
    assert!(page.contains("<Key>t/d0/part-0%20%26%20%3C1%3E.parquet</Key>"), "{page}");
    assert_eq!(server.requests()[0].key, "t/", "a listing is recorded under its prefix");
    let page = wire(&server, "GET", "/lake?list-type=2&max-keys=5000", &[]).text();
    assert!(page.contains("<KeyCount>3</KeyCount>"), "no client makes a page larger: {page}");
    let target = "/devstoreaccount1/lake?restype=container&comp=list&maxresults=5000";
    assert_eq!(wire(&server, "GET", target, &[]).text().matches("<Blob>").count(), 3);
    let page = wire(&server, "GET", "/lake?list-type=2&max-keys=0", &[]).text();
    assert!(page.contains("<KeyCount>0</KeyCount><IsTruncated>false</IsTruncated>"), "{page}");
    assert_eq!(wire(&server, "GET", "/lake?list-type=2&continuation-token=x", &[]).status, 400);
}

#[tokio::test]
async fn foreign_clients_can_fill_it() {
    let server = start();
    let store = s3(&server);
    assert!(matches!(store.put(&key(), content(9).into()).await, Err(Error::NotFound { .. })), "no bucket yet");
    assert_eq!(wire(&server, "PUT", "/lake", &[]).status, 200);
    let put = store.put(&key(), content(9).into()).await.unwrap();
    assert_eq!(store.head(&key()).await.unwrap().e_tag, put.e_tag);
    assert_eq!(store.get(&key()).await.unwrap().bytes().await.unwrap(), content(9));
    assert_eq!(wire(&server, "DELETE", "/lake/a/part%201.parquet", &[]).status, 204);
    assert_eq!(wire(&server, "DELETE", "/lake/a/part%201.parquet", &[]).status, 204, "S3 does not say what was there");
    assert!(matches!(store.head(&key()).await, Err(Error::NotFound { .. })));
    assert_eq!(wire(&server, "POST", "/lake?delete", &[]).status, 501, "bulk deletion is refused");

    let put = azure(&server).put(&key(), content(5).into()).await.unwrap();
    assert_eq!(azure(&server).head(&key()).await.unwrap().e_tag, put.e_tag);
    let put = gcs(&server).put(&key(), content(6).into()).await.unwrap();
    assert_eq!(gcs(&server).head(&key()).await.unwrap().version, put.version);
    gcs(&server).delete(&key()).await.unwrap();
    let target = "/devstoreaccount1/lake/a/part%201.parquet";
    assert_eq!(wire(&server, "DELETE", target, &[]).status, 404, "Azure says when there was nothing to delete");
    azure(&server).put(&key(), content(5).into()).await.unwrap();
    assert_eq!(wire(&server, "DELETE", target, &[]).status, 202);
    assert_eq!(wire(&server, "HEAD", target, &[]).status, 404);
    assert_eq!((server.counters().put, server.counters().delete), (5, 5));
}

#[test]
fn errors_and_unknown_requests_are_said_in_xml() {
    let server = start();
    server.put("lake", "k", content(100));
    for (method, target, headers, status, code) in [
        ("GET", "/lake/none", vec![], 404, "NoSuchKey"),
        ("GET", "/none/k", vec![], 404, "NoSuchBucket"),
        ("GET", "/none?list-type=2", vec![], 404, "NoSuchBucket"),
        ("GET", "/lake/k", vec![("range", "bytes=100-")], 416, "InvalidRange"),
        ("GET", "/lake/k", vec![("if-match", "\"x\"")], 412, "PreconditionFailed"),
        ("GET", "/lake/k?acl", vec![], 501, "NotImplemented"),
        ("GET", "/lake/k?versionId=1", vec![], 501, "NotImplemented"),
        ("GET", "/lake?list-type=2&unknown=1", vec![], 501, "NotImplemented"),
        ("GET", "/lake", vec![], 501, "NotImplemented"),
        ("GET", "/", vec![], 501, "NotImplemented"),
        ("GET", "/lake/%ff", vec![], 400, "InvalidArgument"),
        ("POST", "/lake/k", vec![], 405, "MethodNotAllowed"),
        ("PUT", "/lake/k", vec![("x-amz-copy-source", "/lake/x")], 501, "NotImplemented"),
        ("GET", "/devstoreaccount1/lake/none", vec![], 404, "BlobNotFound"),
        ("GET", "/devstoreaccount1/none/k", vec![], 404, "ContainerNotFound"),
        ("GET", "/devstoreaccount1/lake/k", vec![("range", "bytes=-4")], 400, "InvalidInput"),
    ] {
        let answer = wire(&server, method, target, &headers);
        assert_eq!(answer.status, status, "{method} {target}");
        assert!(answer.text().contains(&format!("<Code>{code}</Code>")), "{method} {target}: {}", answer.text());
        assert_ne!(answer.header("x-amz-request-id"), "-");
    }
    let answer = wire(&server, "GET", "/lake/k", &[("range", "bytes=100-")]);
    assert_eq!(answer.header("content-range"), "bytes */100");
    let answer = wire(&server, "GET", "/lake/k", &[("range", "bytes=0-1,5-6")]);
    assert_eq!((answer.status, answer.body.len()), (200, 100), "several ranges give the whole object");
    let answer = wire(&server, "HEAD", "/lake/k", &[]);
    assert_eq!((answer.status, answer.header("content-length"), answer.body.len()), (200, "100", 0));
    assert_eq!(answer.header("accept-ranges"), "bytes");
    assert!(answer.header("last-modified").ends_with(" GMT"));
    assert_eq!(wire(&server, "HEAD", "/lake", &[]).status, 200);
    assert!(wire(&server, "GET", "/lake?location", &[]).text().contains("LocationConstraint"));
    assert_eq!(wire(&server, "GET", "/lake/k?x-id=GetObject", &[]).status, 200);
}

#[tokio::test]
async fn an_access_key_is_demanded_and_its_signature_verified() {
    let access_key = Some(("kingfisher".to_owned(), "perch".to_owned()));
    let server = S3Server::start(S3Options { access_key, ..S3Options::default() }).unwrap();
    server.put("lake", key().as_ref(), content(100));
    let signed = |id: &str, secret: &str| {
        s3_builder(&server).with_access_key_id(id).with_secret_access_key(secret).build().unwrap()
    };
    let store = signed("kingfisher", "perch");
    assert_eq!(store.get_range(&key(), 1..3).await.unwrap(), content(100).slice(1..3));
    assert_eq!(store.list_with_delimiter(Some(&Path::from("a b/c+d~é"))).await.unwrap().objects.len(), 0);
    assert_eq!(store.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 1);
    store.put(&Path::from("a+b=c é"), content(3).into()).await.unwrap();
    for store in [signed("kingfisher", "roach"), signed("heron", "perch"), s3(&server)] {
        assert!(matches!(store.get(&key()).await, Err(Error::PermissionDenied { .. })));
    }
    let code = |authorization: &str| wire(&server, "GET", "/lake/k", &[("authorization", authorization)]).text();
    assert!(code("AWS4-HMAC-SHA256 Credential=heron/x, SignedHeaders=host, Signature=0").contains("AccessDenied"));
    assert!(
        code("AWS4-HMAC-SHA256 Credential=kingfisher/x, SignedHeaders=host, Signature=0").contains("SignatureDoesNot")
    );

    let azure = |id: &str| {
        let builder = MicrosoftAzureBuilder::new().with_account(id).with_access_key("AAAA").with_allow_http(true);
        builder.with_endpoint(server.azure_url()).with_container_name("lake").with_retry(no_retries()).build().unwrap()
    };
    assert_eq!(azure("kingfisher").head(&key()).await.unwrap().size, 100);
    assert!(matches!(azure("heron").head(&key()).await, Err(Error::PermissionDenied { .. })));
}

/// What every dialect must let its client do.
async fn reads_and_lists(server: &S3Server, store: &impl ObjectStore) {
    let bytes = content(1_000);
    server.put("lake", key().as_ref(), bytes.clone());
    server.put("lake", "a/b/c&d é.parquet", content(5));
    let meta = store.head(&key()).await.unwrap();
    assert_eq!((meta.size, meta.location), (1_000, key()));
    let matching = GetOptions { if_match: meta.e_tag.clone(), ..GetOptions::default() };
    let result = store.get_opts(&key(), GetOptions { range: Some((5..15).into()), ..matching }).await.unwrap();
    assert_eq!(result.meta.e_tag, meta.e_tag);
    assert_eq!(result.bytes().await.unwrap(), bytes.slice(5..15));
    assert_eq!(store.get(&key()).await.unwrap().bytes().await.unwrap(), bytes);
    let other = GetOptions { if_match: Some("\"other\"".to_owned()), ..GetOptions::default() };
    assert!(matches!(store.get_opts(&key(), other).await, Err(Error::Precondition { .. })));
    let unless = GetOptions { if_none_match: meta.e_tag, ..GetOptions::default() };
    assert!(matches!(store.get_opts(&key(), unless).await, Err(Error::NotModified { .. })));
    assert!(matches!(store.head(&Path::from("none")).await, Err(Error::NotFound { .. })));

    let listed: Vec<_> = store.list(Some(&Path::from("a"))).try_collect().await.unwrap();
    let names: Vec<&str> = listed.iter().map(|meta| meta.location.as_ref()).collect();
    assert_eq!(names, ["a/b/c&d é.parquet", "a/part 1.parquet"]);
    assert_eq!((listed[0].size, listed[1].size), (5, 1_000));
    let level = store.list_with_delimiter(Some(&Path::from("a"))).await.unwrap();
    assert_eq!((level.common_prefixes, level.objects.len()), (vec![Path::from("a/b")], 1));
    let after: Vec<_> = store.list_with_offset(None, &listed[0].location).try_collect().await.unwrap();
    assert_eq!(after.len(), 1);
}

fn two_to_a_page() -> S3Server {
    S3Server::start(S3Options { list_page_size: 1, ..S3Options::default() }).unwrap()
}

#[tokio::test]
async fn an_s3_client_reads_and_lists() {
    let server = two_to_a_page();
    reads_and_lists(&server, &s3(&server)).await;
}

#[tokio::test]
async fn a_google_client_reads_and_lists() {
    let server = two_to_a_page();
    let store = gcs(&server);
    reads_and_lists(&server, &store).await;
    let old = store.head(&key()).await.unwrap().version.expect("a generation");
    let at = |version: &str| GetOptions { version: Some(version.to_owned()), ..GetOptions::default() };
    assert_eq!(store.get_opts(&key(), at(&old)).await.unwrap().bytes().await.unwrap(), content(1_000));
    server.put("lake", key().as_ref(), content(1));
    assert!(matches!(store.get_opts(&key(), at(&old)).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn an_azure_client_reads_and_lists() {
    let server = two_to_a_page();
    let store = azure(&server);
    reads_and_lists(&server, &store).await;
    let head = store.head(&key()).await.unwrap().e_tag.unwrap();
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    let in_list = listed.iter().find(|meta| meta.location == key()).unwrap().e_tag.clone().unwrap();
    assert_eq!(head, format!("\"{in_list}\""), "quotes in headers, none in listings");
    let answer = wire(&server, "GET", "/devstoreaccount1/lake/a/part%201.parquet", &[("x-ms-range", "bytes=0-4")]);
    assert_eq!((answer.status, answer.header("x-ms-blob-type"), &answer.body[..]), (206, "BlockBlob", &content(5)[..]));
    server.faults().add(Rule::once(Fault::Status { code: 503, retry_after: None }).key("lake/a/part"));
    let answer = wire(&server, "HEAD", "/devstoreaccount1/lake/a/part%201.parquet", &[]);
    assert_eq!((answer.status, answer.header("x-ms-error-code")), (503, "ServerBusy"));
}

#[tokio::test]
async fn a_file_is_served_from_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("big.parquet");
    let bytes = content(1_000_000);
    std::fs::write(&path, &bytes).unwrap();
    let server = start();
    let etag = server.put_file("lake", key().as_ref(), &path).unwrap();
    let store = s3(&server);
    assert_eq!(store.head(&key()).await.unwrap().e_tag, Some(etag.clone()));
    assert_eq!(store.get_range(&key(), 250_000..800_000).await.unwrap(), bytes.slice(250_000..800_000));
    server.faults().add(Rule::once(Fault::FlipBit { offset: 700_000 }));
    let damaged = store.get(&key()).await.unwrap().bytes().await.unwrap();
    let wrong: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != damaged[*at]).collect();
    assert_eq!(wrong, [700_000], "also beyond the first chunk");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(store.get(&key()).await.unwrap().bytes().await.unwrap(), bytes, "the file is held open");
    assert!(server.put_file("lake", "gone", &path).unwrap_err().to_string().contains("big.parquet"));
}

#[test]
fn a_dropped_server_closes_its_port_and_its_connections() {
    let server = start();
    let address = server.address();
    server.faults().add(Rule::always(Fault::StallHeaders));
    server.put("lake", "k", content(1));
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(HANG)).unwrap();
    socket.write_all(b"GET /lake/k HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    while server.counters().get == 0 {
        std::thread::yield_now();
    }
    drop(server);
    assert_eq!(socket.read(&mut [0; 16]).unwrap_or(0), 0, "no answer ever came");
    assert!(TcpStream::connect(address).is_err());
    for list_page_size in [0, 1_001] {
        assert!(S3Server::start(S3Options { list_page_size, ..S3Options::default() }).is_err());
    }
}
