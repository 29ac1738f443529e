//! What becomes of an answer: many messages made one, every form the same rows, and what cannot be read.

use std::time::Duration;

use alcedo_client::{Client, Form, KeyStatus, Kind, Reason, Source};
use alcedo_proto::v1 as pb;
use prost::Message as _;

use crate::scripted::{Server, answer, echo, file, int_key, opened, rows, schema, values};

async fn answered(
    server: &mut Server,
    client: &Client,
    reply: impl FnOnce(&pb::LookupRequest) -> pb::Answer,
) -> Result<alcedo_client::Answer, alcedo_client::Error> {
    let mut session = opened(server, client).await;
    let lookup = tokio::spawn(client.lookup("lake/a").key(7).into_future());
    let (id, request) = session.request().await;
    session.answer(id, reply(&request)).await;
    lookup.await.unwrap()
}

#[tokio::test]
async fn three_thousand_keys_are_three_messages_and_one_answer() {
    let mut server = Server::start();
    let client = server.client();
    let mut session = opened(&mut server, &client).await;
    session.announce(vec![file(2, "s3://lake/0", "v1")]).await;
    let lookup = tokio::spawn(client.lookup("lake/").keys(0..3_000_i64).trace(true).into_future());
    for keys in [1_024, 1_024, 952] {
        let (id, part) = session.request().await;
        assert_eq!((part.keys.len(), part.trace), (keys, true));
        // Each part has its even keys in file 1; the row numbers run against the keys. File 2 holds each part's first
        // key too.
        let found = part.keys.iter().zip(0_u32..).filter(|(key, _)| int_key(key) % 2 == 0);
        let mut held: Vec<_> = found.map(|(key, i)| (i, 3_000 - int_key(key) as u64, int_key(key))).collect();
        held.reverse();
        let first = int_key(&part.keys[0]);
        let mut answer = answer(part.keys.len(), vec![rows(1, &held), rows(2, &[(0, first as u64, first)])]);
        for (status, key) in answer.statuses.iter_mut().zip(&part.keys) {
            *status = i32::from(int_key(key) % 2 == 0);
        }
        let trace = pb::Trace {
            stages: vec![pb::Stage::default()],
            total_us: 10 + first as u64,
            notes: vec![first.to_string()],
        };
        let source = if first == 1_024 { pb::Source::Origin } else { pb::Source::Memory };
        answer = pb::Answer { origin_gets: 1, origin_bytes: 100, trace: Some(trace), source: source.into(), ..answer };
        session.answer(id, answer).await;
    }
    let answer = lookup.await.unwrap().unwrap();
    assert_eq!(answer.statuses.len(), 3_000);
    assert!(answer.statuses.iter().enumerate().all(|(i, status)| (*status == KeyStatus::Found) == (i % 2 == 0)));
    assert_eq!(answer.files.iter().map(|file| &*file.url).collect::<Vec<_>>(), ["s3://lake/0", "s3://lake/a"]);
    let first_keys: Vec<_> = answer.files[0].rows.iter().map(|row| row.key_index).collect();
    assert_eq!(first_keys, [0, 1_024, 2_048]);
    let file = &answer.files[1];
    assert_eq!(file.rows.len(), 1_500);
    assert!(file.rows.is_sorted_by_key(|row| row.row_number));
    assert!(file.rows.iter().all(|row| row.values == [alcedo_client::Value::Int(row.key_index.into())]));
    assert_eq!((answer.origin_gets, answer.origin_bytes, answer.source), (3, 300, Source::Origin));
    let trace = answer.trace.unwrap();
    assert_eq!((trace.stages.len(), trace.total_us), (3, 2_058));
    assert_eq!(trace.notes, ["0", "1024", "2048"]);
}

#[tokio::test]
async fn a_failed_part_fails_the_lookup_and_the_others_are_cancelled() {
    let mut server = Server::start();
    let client = server.client();
    let mut session = opened(&mut server, &client).await;
    let lookup = tokio::spawn(client.lookup("lake/").keys(0..9_000_i64).into_future());
    let (id, _) = session.request().await;
    let mut others = [session.request().await.0, session.request().await.0, session.request().await.0];
    let failure = pb::Failure { code: tonic::Code::NotFound.into(), message: "no such file".into(), detail: None };
    session.reply(id, pb::reply_frame::Body::Failure(failure)).await;
    assert_eq!(lookup.await.unwrap().unwrap_err().kind(), Kind::NotFound);
    let mut cancelled = [session.cancel().await, session.cancel().await, session.cancel().await];
    cancelled.sort_unstable();
    others.sort_unstable();
    assert_eq!(cancelled, others);
    // Of the nine messages no other was sent.
    let _next = tokio::spawn(client.lookup("lake/").key(-1).into_future());
    let (_, request) = session.request().await;
    assert_eq!(request.keys.iter().map(int_key).collect::<Vec<_>>(), [-1]);
}

/// Four messages of one lookup may take all of a worker's permits.
#[tokio::test]
async fn messages_that_are_turned_away_go_one_after_the_other() {
    let mut server = Server::start();
    let client = server.client();
    let mut session = opened(&mut server, &client).await;
    let lookup = tokio::spawn(client.lookup("lake/").keys(0..5_000_i64).into_future());
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(session.request().await);
    }
    let failure = |message: &str| pb::Failure {
        code: tonic::Code::ResourceExhausted.into(),
        message: message.into(),
        detail: None,
    };
    let (id, refused) = asked.swap_remove(1);
    session.reply(id, pb::reply_frame::Body::Failure(failure("busy"))).await;
    for (id, request) in asked {
        session.answer(id, answer(request.keys.len(), vec![rows(1, &[(0, 0, 0)])])).await;
    }
    // The one that was refused, then the last; neither before the other is answered.
    let (id, again) = session.request().await;
    assert_eq!(again.keys, refused.keys);
    session.answer(id, answer(again.keys.len(), Vec::new())).await;
    let (id, last) = session.request().await;
    assert_eq!(int_key(&last.keys[0]), 4_096);
    session.answer(id, answer(last.keys.len(), Vec::new())).await;
    assert_eq!(lookup.await.unwrap().unwrap().statuses.len(), 5_000);

    let lookup = tokio::spawn(client.lookup("lake/").keys(0..2_000_i64).into_future());
    let (one, two) = (session.request().await.0, session.request().await.0);
    session.reply(one, pb::reply_frame::Body::Failure(failure("busy"))).await;
    session.reply(two, pb::reply_frame::Body::Failure(failure("very busy"))).await;
    assert_eq!(lookup.await.unwrap().unwrap_err().to_string(), "very busy");
}

#[tokio::test]
async fn one_answer_is_made_of_one_version() {
    let mut server = Server::start();
    let client = server.client();
    let mut session = opened(&mut server, &client).await;
    session.announce(vec![file(2, "s3://lake/a", "v2")]).await;
    let lookup = tokio::spawn(client.lookup("lake/a").keys(0..1_025_i64).into_future());
    for handle in [1, 2] {
        let (id, part) = session.request().await;
        session.answer(id, answer(part.keys.len(), vec![rows(handle, &[(0, 0, 0)])])).await;
    }
    let error = lookup.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.reason), (Kind::VersionChanged, Some(Reason::VersionChanged)));
    assert_eq!(error.to_string(), "s3://lake/a changed between two messages of this lookup; try again");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_lookup_without_a_key_is_refused_here() {
    let server = Server::start();
    let error = server.client().lookup("lake/a").await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Invalid, "empty key list: give at least one key"));
    let error = server.client().lookup("lake/a").key(1).deadline(Duration::ZERO).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn the_request_says_what_was_asked_for() {
    let mut server = Server::start();
    let client = server.client();
    let mut session = opened(&mut server, &client).await;
    let lookup = client.lookup("lake/b/").key_column("id").key("a").keys([1_u64]).key(alcedo_client::Key::Null);
    let lookup = lookup.select(["x", "y.z"]).row_limit(3).form(Form::ArrowIpc);
    let lookup = tokio::spawn(lookup.into_future());
    let (id, request) = session.request().await;
    assert_eq!((request.path.as_str(), request.key_column.as_str(), request.row_limit), ("lake/b/", "id", 3));
    assert_eq!(request.columns, ["x", "y.z"]);
    assert_eq!(request.form(), pb::AnswerForm::ArrowIpc);
    use pb::key::Kind;
    let kinds: Vec<_> = request.keys.into_iter().map(|key| key.kind.unwrap()).collect();
    assert_eq!(kinds, [Kind::Text("a".into()), Kind::Uint(1), Kind::Null(true)]);

    let arrow = pb::FileRows { arrow_ipc: "ARROW".into(), compact: bytes::Bytes::new(), ..rows(1, &[(2, 5, 0)]) };
    let statuses = vec![0, 0, pb::KeyStatus::Truncated.into()];
    session.answer(id, pb::Answer { files: vec![arrow], statuses, ..Default::default() }).await;
    let answer = lookup.await.unwrap().unwrap();
    assert_eq!(answer.statuses, [KeyStatus::NotFound, KeyStatus::NotFound, KeyStatus::Truncated]);
    let file = &answer.files[0];
    assert_eq!(file.arrow.as_deref(), Some(b"ARROW".as_slice()));
    assert_eq!((file.rows[0].key_index, file.rows[0].row_number, file.rows[0].values.len()), (2, 5, 0));
}

#[tokio::test]
async fn the_unary_call_and_the_stream_answer_alike() {
    let mut server = Server::start();
    let client = server.client();
    *server.script.unary.lock().unwrap() = Some(Box::new(|request| {
        assert_eq!(request.form(), pb::AnswerForm::TypedValues);
        let value = pb::Value { kind: Some(pb::value::Kind::Int(int_key(&request.keys[0]))) };
        let compact = echo(&request).files.remove(0);
        let typed = vec![pb::TypedRow { values: vec![value] }];
        let files = vec![pb::FileRows { compact: bytes::Bytes::new(), typed, ..compact }];
        let announce = pb::Announce { files: vec![file(1, "s3://lake/a", "v1")], schemas: vec![schema()] };
        Ok(pb::LookupResponse { announce: Some(announce), answer: Some(answer(1, files)) })
    }));
    let unary = client.lookup("lake/a").key(7).unary(true).await.unwrap();
    let mut stream = answered(&mut server, &client, echo).await.unwrap();
    assert_eq!(values(&unary), [7]);
    stream.elapsed = unary.elapsed;
    assert_eq!(unary, stream);
}

#[tokio::test]
async fn a_unary_status_carries_the_same_detail_as_a_failure_frame() {
    let server = Server::start();
    *server.script.unary.lock().unwrap() = Some(Box::new(|_| {
        let detail = pb::ErrorDetail {
            reason: pb::Reason::IndexBuilding.into(),
            subject: "s3://lake/a".into(),
            hint: "ask again".into(),
            retry_after_ms: 250,
        };
        let type_url = "type.googleapis.com/alcedo.v1.ErrorDetail".to_owned();
        // google.rpc.Status: code = 1, message = 2, details = 3.
        let any = prost_types::Any { type_url, value: detail.encode_to_vec() }.encode_to_vec();
        let mut packed = vec![8, 4, 0x12, 1, b'm', 0x1a, u8::try_from(any.len()).unwrap()];
        packed.extend(any);
        Err(tonic::Status::with_details(tonic::Code::DeadlineExceeded, "40 % of the index", packed.into()))
    }));
    let error = server.client().lookup("lake/a").key(1).unary(true).await.unwrap_err();
    assert_eq!((error.kind(), error.reason), (Kind::Deadline, Some(Reason::IndexBuilding)));
    assert_eq!(error.to_string(), "40 % of the index; ask again");
    assert_eq!((error.subject.as_deref(), error.retry_after), (Some("s3://lake/a"), Some(Duration::from_millis(250))));
    assert!(error.is_retryable());
}

#[tokio::test]
async fn rows_that_contradict_themselves_are_refused_not_believed() {
    let good = || rows(1, &[(0, 0, 7)]);
    let compact = |bytes: &'static [u8]| pb::FileRows { compact: bytes.into(), ..good() };
    let typed = vec![pb::TypedRow::default()];
    let cases: Vec<(pb::FileRows, &str)> = vec![
        (compact(&[9, 0, 1]), "compact rows are damaged: a value ends beyond its row"),
        (compact(&[1, 1, 1, 1]), "2 rows have 1 row numbers"),
        (pb::FileRows { key_index: vec![1], ..good() }, "a row belongs to key 1 of 1"),
        (pb::FileRows { key_index: vec![0, 0], ..good() }, "2 key indexes stand for 1 rows"),
        (pb::FileRows { row_number: vec![0, 1], key_index: vec![], ..good() }, "1 rows have 2 row numbers"),
        (pb::FileRows { row_number: vec![1, 0], key_index: vec![], ..good() }, "the rows are not in file order"),
        (pb::FileRows { typed, ..good() }, "they are in more than one form"),
        (compact(&[]), "they are in no form that this client knows"),
    ];
    for (rows, what) in cases {
        let mut server = Server::start();
        let client = server.client();
        let error = answered(&mut server, &client, |_| answer(1, vec![rows])).await.unwrap_err();
        assert_eq!((error.kind(), error.subject.as_deref()), (Kind::Internal, Some("s3://lake/a")));
        let text = format!("{} sent rows of s3://lake/a that cannot be read: {what}", server.address);
        assert_eq!(error.to_string(), text);
    }
}

#[tokio::test]
async fn an_answer_to_another_number_of_keys_is_refused() {
    let mut server = Server::start();
    let client = server.client();
    let error = answered(&mut server, &client, |_| answer(2, Vec::new())).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{} sent 2 key statuses for 1 keys", server.address));
}

#[tokio::test]
async fn no_row_is_an_answer() {
    let mut server = Server::start();
    let client = server.client();
    let empty = pb::Answer { statuses: vec![0], files_total: 16, files_asked: 2, ..Default::default() };
    let answer = answered(&mut server, &client, |_| empty).await.unwrap();
    assert!(answer.is_empty());
    assert_eq!((answer.statuses[0], answer.files_total, answer.files_asked), (KeyStatus::NotFound, 16, 2));
    assert_eq!(answer.source, Source::Unknown);
}

/// Data pages that are none: how real ones decode is for the end-to-end tests.
#[tokio::test]
async fn data_pages_that_cannot_be_decoded_name_their_file() {
    let mut server = Server::start();
    let client = server.client();
    let pages = pb::Pages { parquet_schema: vec![0xff; 3], columns: Vec::new() };
    let file = pb::FileRows { pages: Some(pages), compact: bytes::Bytes::new(), ..rows(1, &[(0, 0, 7)]) };
    let error = answered(&mut server, &client, |_| answer(1, vec![file])).await.unwrap_err();
    assert_eq!(error.subject.as_deref(), Some("s3://lake/a"));
    let kind = if cfg!(feature = "pages") { Kind::Failed } else { Kind::Internal };
    assert_eq!(error.kind(), kind, "{error}");
}

#[cfg(feature = "pages")]
#[tokio::test]
async fn who_cannot_decode_pages_that_came_in_place_of_rows_asks_for_rows() {
    let mut server = Server::start();
    let builder = Client::builder().endpoints([server.address.clone()]).deadline(crate::scripted::PATIENCE);
    let client = builder.accept_pages(true).build().unwrap();
    let mut session = opened(&mut server, &client).await;
    let lookup = tokio::spawn(client.lookup("lake/a").key(7).into_future());
    let (id, request) = session.request().await;
    assert!(request.accept_pages);
    let pages = pb::Pages { parquet_schema: vec![0xff; 3], columns: Vec::new() };
    let file = pb::FileRows { pages: Some(pages), compact: bytes::Bytes::new(), ..rows(1, &[(0, 0, 7)]) };
    session.answer(id, answer(1, vec![file])).await;
    let (id, request) = session.request().await;
    assert!(!request.accept_pages);
    session.answer(id, echo(&request)).await;
    assert_eq!(values(&lookup.await.unwrap().unwrap()), [7]);
}

#[cfg(not(feature = "pages"))]
#[tokio::test]
async fn pages_are_refused_by_a_build_that_cannot_decode_them() {
    let server = Server::start();
    let error = server.client().lookup("lake/a").key(1).form(Form::Pages).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().starts_with("built without the feature"), "{error}");
}
