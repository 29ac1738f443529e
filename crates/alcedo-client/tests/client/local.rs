//! A worker in the same process, played by the test.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use alcedo_client::{Client, Column, Key, Kind, Local, LocalAnswer, LocalFile, LocalReply, Reason, RowSchema, Type};
use alcedo_proto::v1 as pb;
use futures::FutureExt as _;

use crate::scripted::{PATIENCE, answer, rows, values};

/// A worker that answers with the first key; to negative ones later, to 0 never, to 13 with a failure. Also how often a
/// question was prepared.
fn echoing() -> (Client, Arc<AtomicUsize>) {
    let prepared = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&prepared);
    let prepare = move |request: pb::LookupRequest| {
        counted.fetch_add(1, Ordering::SeqCst);
        let url: Arc<str> = request.path.into();
        let reply = move |keys: Vec<Key>, timeout: Duration| {
            assert!(timeout > Duration::ZERO && timeout <= PATIENCE);
            let Key::Int(first) = keys[0] else { panic!("not an int key: {keys:?}") };
            let column = Column { name: "v".into(), ty: Type::Int64 };
            let schema = Arc::new(RowSchema { columns: vec![column] });
            let files = vec![LocalFile { url: Arc::clone(&url), version: "v1".into(), schema }];
            let answer = LocalAnswer { answer: answer(keys.len(), vec![rows(0, &[(0, 0, first)])]), files };
            let detail = pb::ErrorDetail { reason: pb::Reason::NoSuchColumn.into(), ..Default::default() };
            let code = tonic::Code::InvalidArgument.into();
            let refused = pb::Failure { code, message: "as told".into(), detail: Some(detail) };
            match first {
                0 => LocalReply::Later(std::future::pending().boxed()),
                13 => LocalReply::Now(Err(refused)),
                ..0 => LocalReply::Later(async { Ok(answer) }.boxed()),
                _ => LocalReply::Now(Ok(answer)),
            }
        };
        Box::new(reply) as alcedo_client::LocalLookup
    };
    let connect = || async { Err(std::io::ErrorKind::ConnectionRefused.into()) }.boxed();
    let client = Client::builder().in_process(Local::new("here", prepare, connect)).deadline(PATIENCE).build().unwrap();
    (client, prepared)
}

#[tokio::test]
async fn a_question_is_prepared_once_and_answered_at_once_or_later() {
    let (client, prepared) = echoing();
    for key in [7, -7, 8] {
        let answer = client.lookup("lake/a").key(key).await.unwrap();
        assert_eq!((values(&answer), &*answer.worker, &*answer.files[0].url), (vec![key], "here", "lake/a"));
    }
    assert_eq!(prepared.load(Ordering::SeqCst), 1);
    let other = client.prepare("lake/b");
    assert_eq!(values(&other.get(3).await.unwrap()), [3]);
    assert_eq!(values(&other.get_many(1..=2_000).await.unwrap()), [1, 1_025]);
    assert_eq!(prepared.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn its_failures_and_its_silence_are_errors_like_others() {
    let (client, _) = echoing();
    let error = client.prepare("lake/a").get(13).await.unwrap_err();
    assert_eq!((error.kind(), error.reason), (Kind::Invalid, Some(Reason::NoSuchColumn)));
    let error = client.lookup("lake/a").key(0).deadline(Duration::from_millis(500)).await.unwrap_err();
    assert_eq!(error.to_string(), "the deadline of 500ms passed while waiting for here");
    // What needs a connection says why there is none.
    let error = client.stat("lake/a").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("here"), "{error}");
}

#[test]
fn it_is_asked_instead_of_endpoints_not_beside_them() {
    let local = Local::new(
        "here",
        |_| Box::new(|_, _| LocalReply::Later(std::future::pending().boxed())),
        || std::future::pending().boxed(),
    );
    let error = Client::builder().endpoints(["a:1"]).in_process(local).build().unwrap_err();
    assert!(error.to_string().contains("instead of endpoints"), "{error}");
}
