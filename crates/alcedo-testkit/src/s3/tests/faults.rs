//! Each fault does what it says, once, and is counted as what was sent.

use std::pin::pin;

use super::*;

const RANGE: [(&str, &str); 1] = [("range", "bytes=10-59")];

/// A range of 50 bytes of an object of 1,000, with one fault.
fn faulty(fault: Fault) -> (S3Server, Wire) {
    let server = start();
    server.put("lake", "k", content(1_000));
    server.faults().add(Rule::once(fault));
    let answer = wire(&server, "GET", "/lake/k", &RANGE);
    assert_eq!(server.faults().pending(), 0, "the fault was not used");
    let clean = wire(&server, "GET", "/lake/k", &RANGE);
    assert_eq!((clean.status, &clean.body[..]), (206, &content(1_000)[10..60]), "one fault, one answer");
    (server, answer)
}

#[test]
fn an_error_fault_has_status_code_and_retry_after() {
    let (server, answer) = faulty(Fault::Status { code: 503, retry_after: Some(7) });
    assert_eq!((answer.status, answer.header("retry-after")), (503, "7"));
    assert!(answer.text().contains("<Code>SlowDown</Code>"));
    let counters = server.counters();
    assert_eq!((counters.get, counters.bytes_sent), (2, 50), "a failed request is a request");
    for (code, text) in [(403, "AccessDenied"), (404, "NoSuchKey"), (500, "InternalError")] {
        let (_, answer) = faulty(Fault::Status { code, retry_after: None });
        assert_eq!(answer.status, code);
        assert!(answer.text().contains(text) && answer.header("retry-after") == "-");
    }
}

#[test]
fn a_short_body_is_told_in_each_framing() {
    let expected = &content(1_000)[10..40];
    for (framing, length, version) in [
        (Framing::Declared, "30", "HTTP/1.1"),
        (Framing::Chunked, "-", "HTTP/1.1"),
        (Framing::UntilClose, "-", "HTTP/1.0"),
    ] {
        let (server, answer) = faulty(Fault::ShortBody { drop_bytes: 20, framing });
        assert_eq!((answer.status, answer.header("content-range")), (206, "bytes 10-59/1000"), "{framing:?}");
        assert_eq!((answer.header("content-length"), answer.version.as_str()), (length, version), "{framing:?}");
        assert_eq!((&answer.body[..], answer.is_complete), (expected, true), "{framing:?}");
        assert_eq!(answer.headers.contains_key("transfer-encoding"), framing == Framing::Chunked);
        assert_eq!(server.counters().bytes_sent, 30 + 50);
    }
}

#[test]
fn a_long_body_is_told_in_each_framing() {
    for (framing, length) in [(Framing::Declared, "55"), (Framing::Chunked, "-"), (Framing::UntilClose, "-")] {
        let (server, answer) = faulty(Fault::LongBody { extra_bytes: 5, framing });
        assert_eq!((answer.status, answer.header("content-range")), (206, "bytes 10-59/1000"), "{framing:?}");
        assert_eq!((answer.header("content-length"), answer.is_complete), (length, true), "{framing:?}");
        assert_eq!((&answer.body[..50], &answer.body[50..]), (&content(1_000)[10..60], &[0; 5][..]), "{framing:?}");
        assert_eq!(server.counters().bytes_sent, 55 + 50);
    }
}

#[test]
fn a_cut_body_ends_before_its_promised_length() {
    let (_, answer) = faulty(Fault::CutBody { after_bytes: 20 });
    assert_eq!((answer.status, answer.header("content-length")), (206, "50"));
    assert_eq!((&answer.body[..], answer.is_complete), (&content(1_000)[10..30], false));
}

#[test]
fn a_range_can_be_misnamed_ignored_or_damaged() {
    let (_, answer) = faulty(Fault::WrongContentRange);
    assert_eq!((answer.status, answer.header("content-range")), (206, "bytes 11-60/1000"));
    assert_eq!(&answer.body[..], &content(1_000)[10..60]);

    let (_, answer) = faulty(Fault::FullInsteadOfRange);
    assert_eq!((answer.status, answer.header("content-range")), (200, "-"));
    assert_eq!(&answer.body[..], &content(1_000)[..]);

    let (_, answer) = faulty(Fault::FlipBit { offset: 53 });
    let mut expected = content(1_000)[10..60].to_vec();
    expected[3] ^= 1;
    assert_eq!((answer.status, answer.body, answer.is_complete), (206, expected, true));
}

#[tokio::test]
async fn a_stall_leaves_the_client_waiting() {
    let server = start();
    server.put("lake", key().as_ref(), content(1_000));
    let store = s3(&server);
    server.faults().add(Rule::once(Fault::StallHeaders));
    let place = key();
    let mut asking = pin!(store.get(&place));
    // The silence counts from when the server has been asked.
    while server.requests().is_empty() {
        tokio::time::timeout(STALL, &mut asking).await.expect_err("no headers come");
    }
    tokio::time::timeout(STALL, &mut asking).await.expect_err("no headers come");
    assert_eq!((server.requests()[0].status, server.requests()[0].bytes), (None, 0));

    server.faults().add(Rule::once(Fault::StallBody { after_bytes: 300 }));
    let result = tokio::time::timeout(HANG, store.get(&key())).await.unwrap().unwrap();
    assert_eq!(result.meta.size, 1_000, "the headers are right");
    let mut body = result.into_stream();
    let mut received = Vec::new();
    while received.len() < 300 {
        let chunk = tokio::time::timeout(HANG, body.next()).await.expect("the first bytes come");
        received.extend_from_slice(&chunk.unwrap().unwrap());
    }
    assert_eq!(received, content(1_000)[..300]);
    assert!(tokio::time::timeout(STALL, body.next()).await.is_err(), "the body does not end either");
    assert_eq!(server.counters().bytes_sent, 300);
}

#[tokio::test]
async fn an_object_is_swapped_before_the_answer_it_was_asked_for() {
    let server = start();
    let etag = server.put("lake", key().as_ref(), content(1_000));
    let store = s3(&server);
    let new = Bytes::from_static(b"new");
    server.faults().add(Rule::once(Fault::SwapObject { bytes: new.clone() }).after(2).key("part 1"));
    let place = key();
    let read = || {
        let options = GetOptions { if_match: Some(etag.clone()), ..GetOptions::default() };
        store.get_opts(&place, GetOptions { range: Some((0..10).into()), ..options })
    };
    read().await.unwrap();
    store.head(&key()).await.unwrap();
    read().await.unwrap();
    assert!(matches!(read().await, Err(Error::Precondition { .. })), "the third GET meets the new version");
    assert_eq!(store.get(&key()).await.unwrap().bytes().await.unwrap(), new);
}

#[tokio::test]
async fn a_redirect_is_followed_by_a_client_that_lets_itself_be_led() {
    let (server, other) = (start(), start());
    server.put("lake", "k", content(10));
    other.put("elsewhere", "x", Bytes::from_static(b"not yours"));
    let to = format!("{}/elsewhere/x", other.url());
    server.faults().add(Rule::once(Fault::Redirect { to: to.clone() }));
    let answer = wire(&server, "GET", "/lake/k", &[]);
    assert_eq!((answer.status, answer.header("location")), (307, to.as_str()));
    assert_eq!(other.counters().get, 0);
    server.faults().add(Rule::once(Fault::Redirect { to }));
    let _ = s3(&server).get(&Path::from("k")).await;
    assert_eq!((server.counters().get, other.counters().get), (2, 1), "object_store follows");
}

#[test]
fn latency_comes_before_the_first_byte() {
    let latency = Duration::from_millis(60);
    let server = S3Server::start(S3Options { latency, ..S3Options::default() }).unwrap();
    server.put("lake", "k", content(10));
    server.faults().add(Rule::once(Fault::Latency(latency)));
    // A sleep is never shorter than asked, however busy the machine is.
    let clock = Instant::now();
    assert_eq!(wire(&server, "GET", "/lake/k", &[]).status, 200);
    assert!(clock.elapsed() >= 2 * latency, "the server's latency and the rule's");
    let clock = Instant::now();
    assert_eq!(wire(&server, "GET", "/lake/none", &[]).status, 404);
    assert!(clock.elapsed() >= latency, "errors have latency too");
    server.set_latency(Duration::ZERO);
    assert_eq!(wire(&server, "GET", "/lake/k", &[]).body, content(10));
}
