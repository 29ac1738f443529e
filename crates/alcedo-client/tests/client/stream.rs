//! The lookup stream: ids, handles, cancels, deadlines, and how it ends.

use std::time::Duration;

use alcedo_client::{Kind, Reason};
use alcedo_proto::v1 as pb;
use pb::reply_frame::Body;

use crate::scripted::{PATIENCE, Server, answer, echo, file, opened, rows, values};

#[tokio::test]
async fn replies_in_any_order_reach_their_callers() {
    let mut server = Server::start();
    let client = server.client();
    let mut session = opened(&mut server, &client).await;
    let lookups: Vec<_> = (0..50).map(|key| tokio::spawn(client.lookup("lake/a").key(key).into_future())).collect();
    let mut requests = Vec::new();
    for _ in 0..50 {
        requests.push(session.request().await);
    }
    let ids: std::collections::HashSet<u64> = requests.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids.len(), 50);
    for (id, request) in requests.into_iter().rev() {
        session.answer(id, echo(&request)).await;
    }
    for (key, lookup) in (0..).zip(lookups) {
        assert_eq!(values(&lookup.await.unwrap().unwrap()), [key]);
    }
}

#[tokio::test]
async fn dropping_a_lookup_cancels_that_lookup_only() {
    let mut server = Server::start();
    let client = server.client();
    let mut session = opened(&mut server, &client).await;
    let dropped = tokio::spawn(client.lookup("lake/a").key(1).into_future());
    let (dropped_id, dropped_request) = session.request().await;
    let kept = tokio::spawn(client.lookup("lake/a").key(2).into_future());
    let (kept_id, kept_request) = session.request().await;
    dropped.abort();
    assert_eq!(session.cancel().await, dropped_id);
    // The late reply to the one that was dropped is ignored; the stream goes on.
    session.answer(dropped_id, echo(&dropped_request)).await;
    session.answer(kept_id, echo(&kept_request)).await;
    assert_eq!(values(&kept.await.unwrap().unwrap()), [2]);
    let next = tokio::spawn(client.lookup("lake/a").key(3).into_future());
    let (id, request) = session.request().await;
    session.answer(id, echo(&request)).await;
    assert_eq!(values(&next.await.unwrap().unwrap()), [3]);
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_file_is_announced_once_and_named_in_every_answer() {
    let mut server = Server::start();
    let client = server.client();
    let mut session = opened(&mut server, &client).await;
    for key in 1..4 {
        let lookup = tokio::spawn(client.lookup("lake/a").key(key).into_future());
        let (id, request) = session.request().await;
        session.answer(id, echo(&request)).await;
        let answer = lookup.await.unwrap().unwrap();
        assert_eq!((&*answer.files[0].url, &*answer.files[0].version), ("s3://lake/a", "v1"));
        assert_eq!(answer.files[0].schema.columns[0].name, "v");
        assert_eq!(*answer.worker, *server.address);
    }
}

#[tokio::test]
async fn a_handle_that_was_never_announced_fails_that_answer_only() {
    let mut server = Server::start();
    let client = server.client();
    let mut session = opened(&mut server, &client).await;
    let lookup = tokio::spawn(client.lookup("lake/a").key(1).into_future());
    let (id, _) = session.request().await;
    session.answer(id, answer(1, vec![rows(77, &[(0, 0, 1)])])).await;
    let error = lookup.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    assert!(error.to_string().ends_with("file handle 77 was never announced"), "{error}");
    let next = tokio::spawn(client.lookup("lake/a").key(3).into_future());
    let (id, request) = session.request().await;
    session.answer(id, echo(&request)).await;
    assert_eq!(values(&next.await.unwrap().unwrap()), [3]);
}

#[tokio::test]
async fn a_silent_worker_is_given_up_at_the_deadline_and_told_so() {
    let mut server = Server::start();
    let client = server.client();
    let mut session = opened(&mut server, &client).await;
    let deadline = Duration::from_secs(1);
    let lookup = client.lookup("lake/a").key(1).deadline(deadline);
    let given_up = tokio::time::timeout(PATIENCE, lookup.into_future()).await.expect("the lookup still waits");
    let error = given_up.unwrap_err();
    assert_eq!((error.kind(), error.reason), (Kind::Deadline, Some(Reason::Deadline)));
    assert_eq!(error.to_string(), format!("the deadline of 1s passed while waiting for {}", server.address));
    assert!(!error.is_retryable());
    let (id, request) = session.request().await;
    assert!((1..=1_000_000).contains(&request.timeout_us), "{}", request.timeout_us);
    assert_eq!(session.cancel().await, id);
}

#[tokio::test]
async fn a_failure_frame_is_an_error_with_all_its_parts() {
    let mut server = Server::start();
    let client = server.client();
    let mut session = opened(&mut server, &client).await;
    let lookup = tokio::spawn(client.lookup("lake/a").key(1).into_future());
    let (id, _) = session.request().await;
    let detail = pb::ErrorDetail {
        reason: pb::Reason::NoSuchColumn.into(),
        subject: "s3://lake/a".into(),
        hint: "did you mean `name`?".into(),
        retry_after_ms: 0,
    };
    let message = "no column `nmae` in s3://lake/a".to_owned();
    let code = tonic::Code::InvalidArgument.into();
    session.reply(id, Body::Failure(pb::Failure { code, message, detail: Some(detail) })).await;
    let error = lookup.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.reason), (Kind::Invalid, Some(Reason::NoSuchColumn)));
    assert_eq!(error.subject.as_deref(), Some("s3://lake/a"));
    assert_eq!(error.to_string(), "no column `nmae` in s3://lake/a; did you mean `name`?");
}

#[tokio::test]
async fn a_worker_that_dies_in_the_middle_leaves_open_whether_it_had_accepted() {
    let mut server = Server::start();
    let client = server.client();
    let mut session = opened(&mut server, &client).await;
    let lookup = tokio::spawn(client.lookup("lake/a").key(1).into_future());
    session.request().await;
    server.kill();
    let error = lookup.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.is_retryable());
    assert!(error.to_string().contains("whether the worker had accepted the lookup is not known"), "{error}");
    // The next call finds out that nobody is there, and a new worker at the same address is found again.
    let error = client.lookup("lake/a").key(1).await.unwrap_err();
    assert_eq!(error.to_string(), format!("no worker reachable: {}: connection refused (tried 1)", server.address));
    let mut reborn = Server::start_at(&server.address);
    // The refusal is believed for a moment.
    while client.cluster().await.is_err() {
        tokio::task::yield_now().await;
    }
    opened(&mut reborn, &client).await;
}

#[tokio::test]
async fn a_status_that_ends_the_stream_is_the_error_of_its_lookups() {
    let mut server = Server::start();
    let client = server.client();
    let mut session = opened(&mut server, &client).await;
    let lookup = tokio::spawn(client.lookup("lake/a").key(1).into_future());
    session.request().await;
    session.end(tonic::Status::permission_denied("no certificate")).await;
    let error = lookup.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Denied, "no certificate"));
}

#[tokio::test]
async fn a_stream_full_of_handles_is_replaced_while_its_calls_go_on() {
    let mut server = Server::start();
    let client = server.client();
    let mut old = opened(&mut server, &client).await;
    let slow = tokio::spawn(client.lookup("lake/a").key(1).into_future());
    let (slow_id, slow_request) = old.request().await;
    old.announce((2..70_000).map(|handle| file(handle, "s3://lake/many", "v")).collect()).await;
    let nudge = tokio::spawn(client.lookup("lake/a").key(2).into_future());
    let (id, request) = old.request().await;
    old.answer(id, echo(&request)).await;
    nudge.await.unwrap().unwrap();

    let mut new = opened(&mut server, &client).await;
    old.answer(slow_id, echo(&slow_request)).await;
    assert_eq!(values(&slow.await.unwrap().unwrap()), [1]);
    let next = tokio::spawn(client.lookup("lake/a").key(3).into_future());
    let (id, request) = new.request().await;
    new.answer(id, echo(&request)).await;
    assert_eq!(values(&next.await.unwrap().unwrap()), [3]);
    // Nobody holds the old stream any more, so it is reset.
    assert!(old.is_reset().await);
}

#[tokio::test]
async fn a_reply_of_an_unknown_kind_fails_its_lookup() {
    let mut server = Server::start();
    let client = server.client();
    let mut session = opened(&mut server, &client).await;
    let lookup = tokio::spawn(client.lookup("lake/a").key(1).into_future());
    let (id, _) = session.request().await;
    session.unknown_reply(id).await;
    let error = lookup.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    assert!(error.to_string().contains("of a kind that this client does not know"), "{error}");
}

#[tokio::test]
async fn a_worker_that_does_not_open_the_stream_has_accepted_nothing() {
    let server = Server::start();
    for (status, text) in [
        (
            tonic::Status::unavailable("starting"),
            format!("no worker reachable: {}: starting (tried 1)", server.address),
        ),
        (tonic::Status::unauthenticated("who are you?"), "who are you?".to_owned()),
    ] {
        *server.script.refuse_stream.lock().unwrap() = Some(status);
        assert_eq!(server.client().lookup("lake/a").key(1).await.unwrap_err().to_string(), text);
    }
}
