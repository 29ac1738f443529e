//! Questions that are asked again: handles on the wire, several lookups in one message, and that nobody notices.

use std::time::Duration;

use alcedo_client::{Budget, Client, Error, KeyStatus, Kind, Prepared, Value};
use alcedo_proto::v1 as pb;
use pb::lookup_frame::Body;
use tonic::Code;

use crate::acting::{Acting, Mode, Pair, failure, in_a_ring};
use crate::scripted::{PATIENCE, Server, Session, answer, dead_address, echo, eventually, file, int_key, rows, values};

type Asking = tokio::task::JoinHandle<Result<alcedo_client::Answer, Error>>;

/// A server that says it speaks this version.
fn speaking(protocol: u32) -> Server {
    let server = Server::start();
    server.script.cluster.lock().unwrap().protocol = protocol;
    server
}

fn get(prepared: &Prepared, key: i64) -> Asking {
    let prepared = prepared.clone();
    tokio::spawn(async move { prepared.get(key).await })
}

/// The first lookup of a prepared question on a stream, answered; gives the stream and the handle.
async fn begun(server: &mut Server, prepared: &Prepared) -> (Session, u32) {
    let asking = get(prepared, 0);
    let mut session = server.session().await;
    let Some(Body::Prepare(prepare)) = session.frame().await.body else { panic!("no prepare") };
    let frame = session.frame().await;
    let Some(Body::Lookup(lookup)) = frame.body else { panic!("no lookup") };
    assert_eq!(lookup.handle, prepare.handle);
    session.announce(vec![file(1, "s3://lake/a", "v1")]).await;
    session.answer(frame.id, answer(1, vec![rows(1, &[(0, 0, int_key(&lookup.keys[0]))])])).await;
    assert_eq!(values(&asking.await.unwrap().unwrap()), [0]);
    (session, prepare.handle)
}

#[tokio::test]
async fn what_is_asked_again_travels_by_a_handle() {
    let mut server = speaking(2);
    let client = server.client();
    let lookup = |key: i64| client.lookup("lake/a").key_column("id").select(["v", "w"]).row_limit(3).key(key);
    let first = tokio::spawn(lookup(1).into_future());
    let mut session = server.session().await;
    session.announce(vec![file(1, "s3://lake/a", "v1")]).await;
    let (id, request) = session.request().await;
    session.answer(id, echo(&request)).await;
    first.await.unwrap().unwrap();

    let again = tokio::spawn(lookup(2).into_future());
    let frame = session.frame().await;
    let Some(Body::Prepare(prepare)) = frame.body else { panic!("no prepare: {frame:?}") };
    let defined = prepare.request.unwrap();
    assert_eq!((frame.id, prepare.handle, defined.keys.len()), (0, 1, 0));
    let other_than_keys = pb::LookupRequest { keys: Vec::new(), timeout_us: 0, ..request };
    assert_eq!(defined, other_than_keys);
    for key in [2, 3] {
        let asking = if key == 3 { Some(tokio::spawn(lookup(3).into_future())) } else { None };
        let frame = session.frame().await;
        let Some(Body::Lookup(lookup)) = frame.body else { panic!("no lookup") };
        assert_eq!((lookup.handle, int_key(&lookup.keys[0])), (1, key));
        assert!((1..=PATIENCE.as_micros() as u64).contains(&lookup.timeout_us));
        session.answer(frame.id, answer(1, vec![rows(1, &[(0, 0, key)])])).await;
        if let Some(asking) = asking {
            assert_eq!(values(&asking.await.unwrap().unwrap()), [3]);
        }
    }
    assert_eq!(values(&again.await.unwrap().unwrap()), [2]);

    // Another question has another handle; one that wants to know its cost goes alone and in full.
    let _traced = tokio::spawn(lookup(4).trace(true).into_future());
    assert!(session.request().await.1.trace);
    let other = client.prepare("lake/a").key_column("id").select(["w", "v"]);
    let _other = get(&other, 5);
    let Some(Body::Prepare(prepare)) = session.frame().await.body else { panic!("no prepare") };
    assert_eq!((prepare.handle, prepare.request.unwrap().columns), (2, vec!["w".to_owned(), "v".to_owned()]));
}

#[tokio::test]
async fn a_worker_of_the_first_version_gets_whole_requests() {
    let mut server = speaking(1);
    let client = server.client();
    let prepared = client.prepare("lake/a").select(["v"]);
    let mut session = None;
    for key in 0..3 {
        let asking = get(&prepared, key);
        let session = match &mut session {
            Some(session) => session,
            none => {
                let new = none.insert(server.session().await);
                new.announce(vec![file(1, "s3://lake/a", "v1")]).await;
                new
            }
        };
        let (id, request) = session.request().await;
        assert_eq!((request.path.as_str(), request.columns.len()), ("lake/a", 1));
        session.answer(id, echo(&request)).await;
        assert_eq!(values(&asking.await.unwrap().unwrap()), [key]);
    }
}

#[tokio::test]
async fn a_member_whose_version_is_not_known_is_asked_for_it_once() {
    let pair = Pair::new();
    [&pair.owner, &pair.replica].iter().for_each(|worker| worker.speaks(2));
    // The view comes from the other one.
    let client = pair.builder().hedge_budget(Budget::NONE).build().unwrap();
    let prepared = client.prepare(&pair.url);
    eventually_by_handle(&prepared, &pair.owner).await;
    assert_eq!((pair.owner.server.cluster_calls(), pair.replica.asked()), (1, 0));
}

/// Asks until it is asked by a handle, once more if it was before.
async fn eventually_by_handle(prepared: &Prepared, worker: &Acting) {
    let before = worker.by_handle();
    while worker.by_handle() == before {
        assert_eq!(values(&prepared.get(1).await.unwrap()), [1]);
    }
}

#[tokio::test]
async fn a_worker_that_starts_again_is_told_what_a_handle_means() {
    let mut server = speaking(2);
    let client = server.client();
    let prepared = client.prepare("lake/a");
    let _session = begun(&mut server, &prepared).await;
    server.kill();
    let mut reborn = Server::start_at(&server.address);
    reborn.script.cluster.lock().unwrap().protocol = 2;
    let asking = get(&prepared, 7);
    let mut session = reborn.session().await;
    session.announce(vec![file(1, "s3://lake/a", "v1")]).await;
    // What the new process speaks is not known before it has said so.
    let (id, request) = session.request().await;
    session.answer(id, echo(&request)).await;
    assert_eq!(values(&asking.await.unwrap().unwrap()), [7]);
    eventually("nobody asked what it speaks", || reborn.cluster_calls() >= 1).await;
    let asking = tokio::spawn(async move { while prepared.get(8).await.is_ok() {} });
    loop {
        let frame = session.frame().await;
        match frame.body {
            Some(Body::Request(request)) => session.answer(frame.id, echo(&request)).await,
            Some(Body::Prepare(prepare)) => {
                assert_eq!((prepare.handle, prepare.request.unwrap().path.as_str()), (1, "lake/a"));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    asking.abort();
}

#[tokio::test]
async fn one_at_a_time_never_waits_for_company() {
    let mut server = speaking(2);
    let client = server.client();
    let prepared = client.prepare("lake/a");
    let (mut session, handle) = begun(&mut server, &prepared).await;
    for key in 1..50 {
        let asking = get(&prepared, key);
        let frame = session.frame().await;
        let Some(Body::Lookup(lookup)) = frame.body else { panic!("no lookup") };
        assert_eq!(lookup.handle, handle);
        session.answer(frame.id, answer(1, vec![rows(1, &[(0, 0, key)])])).await;
        assert_eq!(values(&asking.await.unwrap().unwrap()), [key]);
    }
}

/// How many frames the keys 1 to `last` travel in, all of them answered; `answered` answers one batch.
async fn asked_together(
    session: &mut Session,
    last: i64,
    answered: impl AsyncFn(&Session, pb::PreparedBatch),
) -> usize {
    let (mut keys, mut frames) = (0, 0);
    while keys < last {
        let frame = session.frame().await;
        frames += 1;
        match frame.body {
            Some(Body::Lookup(lookup)) => {
                keys += 1;
                let key = int_key(&lookup.keys[0]);
                session.answer(frame.id, answer(1, vec![rows(1, &[(0, 0, key)])])).await;
            }
            Some(Body::Batch(batch)) => {
                assert_eq!(frame.id, 0);
                keys += batch.keys.len() as i64;
                answered(session, batch).await;
            }
            other => panic!("{other:?}"),
        }
    }
    frames
}

#[tokio::test]
async fn many_at_a_time_travel_together_and_each_gets_its_own() {
    let mut server = speaking(2);
    let client = server.client();
    let prepared = client.prepare("s3://lake/a");
    let (mut session, _) = begun(&mut server, &prepared).await;
    let asking: Vec<_> = (1..=256).map(|key| get(&prepared, key)).collect();
    // Even keys have a row; every third is answered by itself, the others together.
    let frames = asked_together(&mut session, 256, async |session, batch| {
        let asked: Vec<_> = batch.ids.iter().copied().zip(batch.keys.iter().map(int_key)).collect();
        let (alone, together): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(_, key)| key % 3 == 0);
        let row = |at: usize, key: i64| (key % 2 == 0).then_some((at as u32, 1_000 - key as u64, key));
        let reply = |of: &[(u64, i64)]| {
            let mut found: Vec<_> = of.iter().enumerate().filter_map(|(at, (_, key))| row(at, *key)).collect();
            found.sort_by_key(|(_, number, _)| *number);
            let mut answer = answer(of.len(), vec![rows(1, &found)]);
            answer.statuses = of.iter().map(|(_, key)| i32::from(key % 2 == 0)).collect();
            answer
        };
        for one in alone {
            session.answer(one.0, reply(&[one])).await;
        }
        let ids = together.iter().map(|(id, _)| *id).collect();
        let batch = pb::BatchAnswer { ids, answer: Some(reply(&together)) };
        session.reply(0, pb::reply_frame::Body::Batch(batch)).await;
    });
    assert!(frames.await < 20);
    for (key, asking) in (1..).zip(asking) {
        let answer = asking.await.unwrap().unwrap();
        assert_eq!(*answer.worker, *server.address);
        // The file that the path names is there with its version, whether it has a row with the key or not.
        assert_eq!((answer.files.len(), &*answer.files[0].version), (1, "v1"));
        if key % 2 == 0 {
            assert_eq!((values(&answer), answer.statuses.as_slice()), (vec![key], &[KeyStatus::Found][..]));
            assert_eq!(
                (answer.files[0].rows[0].row_number, answer.files[0].rows[0].key_index),
                (1_000 - key as u64, 0)
            );
        } else {
            assert!(answer.is_empty() && answer.statuses == [KeyStatus::NotFound]);
        }
    }
}

#[tokio::test]
async fn below_a_prefix_a_file_is_named_to_those_who_find_a_row_in_it() {
    let mut server = speaking(2);
    let client = server.client();
    let prepared = client.prepare("s3://lake/");
    let (mut session, _) = begun(&mut server, &prepared).await;
    session.announce(vec![file(2, "s3://lake/b", "v1")]).await;
    let asking: Vec<_> = (1..=40).map(|key| get(&prepared, key)).collect();
    asked_together(&mut session, 40, async |session, batch| {
        let held = |odd: i64| -> Vec<_> {
            let keys = (0..).zip(batch.keys.iter().map(int_key)).filter(|(_, key)| key % 2 == odd);
            keys.map(|(at, key)| (at, at.into(), key)).collect()
        };
        let files = vec![rows(1, &held(1)), rows(2, &held(0))];
        let answer = answer(batch.ids.len(), files);
        let batch = pb::BatchAnswer { ids: batch.ids, answer: Some(answer) };
        session.reply(0, pb::reply_frame::Body::Batch(batch)).await;
    })
    .await;
    for (key, asking) in (1_i64..).zip(asking) {
        let answer = asking.await.unwrap().unwrap();
        assert_eq!(values(&answer), [key]);
        let url = if answer.files.len() == 1 { &*answer.files[0].url } else { "several" };
        assert!(url == "s3://lake/a" && key % 2 == 1 || url == "s3://lake/b" && key % 2 == 0, "{key}: {url}");
    }
}

#[tokio::test]
async fn a_batch_that_cannot_be_read_fails_those_in_it_and_no_other() {
    let mut server = speaking(2);
    let client = server.client();
    let prepared = client.prepare("s3://lake/a");
    let (mut session, handle) = begun(&mut server, &prepared).await;
    let asking: Vec<_> = (1..=40).map(|key| get(&prepared, key)).collect();
    asked_together(&mut session, 40, async |session, batch| {
        let answer = Some(answer(batch.ids.len(), vec![rows(9, &[(0, 0, 1)])]));
        let batch = pb::BatchAnswer { ids: batch.ids, answer };
        session.reply(0, pb::reply_frame::Body::Batch(batch)).await;
    })
    .await;
    let outcomes: Vec<_> = futures::future::join_all(asking).await.into_iter().map(Result::unwrap).collect();
    let failed: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(failed.len() > 20);
    for error in failed {
        assert_eq!(error.kind(), Kind::Internal);
        assert!(
            error.to_string().ends_with("an answer that cannot be read: file handle 9 was never announced"),
            "{error}"
        );
    }
    let asking = get(&prepared, 3);
    let frame = session.frame().await;
    let Some(Body::Lookup(lookup)) = frame.body else { panic!("no lookup") };
    session.answer(frame.id, answer(1, vec![rows(1, &[(0, 0, 3)])])).await;
    assert_eq!((lookup.handle, values(&asking.await.unwrap().unwrap())), (handle, vec![3]));
}

#[tokio::test]
async fn dropping_one_of_many_cancels_that_one() {
    let mut server = speaking(2);
    let client = server.client();
    let prepared = client.prepare("s3://lake/a");
    let (mut session, _) = begun(&mut server, &prepared).await;
    let asking: Vec<_> = (1..=40).map(|key| get(&prepared, key)).collect();
    let mut ids = Vec::new();
    while ids.len() < 40 {
        let frame = session.frame().await;
        match frame.body {
            Some(Body::Lookup(lookup)) => ids.push((frame.id, int_key(&lookup.keys[0]))),
            Some(Body::Batch(batch)) => ids.extend(batch.ids.into_iter().zip(batch.keys.iter().map(int_key))),
            other => panic!("{other:?}"),
        }
    }
    asking[6].abort();
    let dropped = ids.iter().find(|(_, key)| *key == 7).unwrap().0;
    assert_eq!(session.cancel().await, dropped);
    let (ids, keys): (Vec<_>, Vec<_>) = ids.into_iter().unzip();
    let found: Vec<_> = (0..).zip(&keys).map(|(at, key)| (at, at.into(), *key)).collect();
    let batch = pb::BatchAnswer { ids, answer: Some(answer(40, vec![rows(1, &found)])) };
    session.reply(0, pb::reply_frame::Body::Batch(batch)).await;
    for (key, asking) in (1..).zip(asking) {
        match asking.await {
            Ok(answer) => assert_eq!(values(&answer.unwrap()), [key]),
            Err(_) => assert_eq!(key, 7),
        }
    }
}

#[tokio::test]
async fn prepared_lookups_are_hedged_and_repeated_like_others() {
    let pair = Pair::new();
    [&pair.owner, &pair.replica].iter().for_each(|worker| worker.speaks(2));
    let client = pair.builder().build().unwrap();
    let prepared = client.prepare(&pair.url);
    eventually_by_handle(&prepared, &pair.owner).await;
    // After 32 answers the client knows how long they take, and hedges soon.
    for _ in pair.owner.asked()..32 {
        prepared.get(1).await.unwrap();
    }
    // The replica answers what the owner is silent about ...
    pair.owner.is(Mode::IgnoresKeys(5..6));
    let cancelled = pair.owner.cancelled();
    let answer = prepared.get(5).await.unwrap();
    assert_eq!((values(&answer), &*answer.worker), (vec![5], &*pair.replica.server.address));
    eventually("the loser was not cancelled", || pair.owner.cancelled() > cancelled).await;
    // ... and what it turns away; that is no hedge of an answer that comes late.
    pair.owner.is(Mode::Answers);
    let client = pair.builder().hedge_budget(Budget::NONE).build().unwrap();
    let prepared = client.prepare(&pair.url);
    eventually_by_handle(&prepared, &pair.owner).await;
    pair.owner.is(failure(Code::Unavailable, pb::Reason::OriginUnavailable, Duration::ZERO));
    assert_eq!(values(&prepared.get(6).await.unwrap()), [6]);
    // A question that the worker refuses is refused, once.
    pair.owner.is(failure(Code::InvalidArgument, pb::Reason::NoSuchColumn, Duration::ZERO));
    let asked = pair.replica.asked();
    assert_eq!(prepared.get(7).await.unwrap_err().kind(), Kind::Invalid);
    assert_eq!(pair.replica.asked(), asked);
}

#[tokio::test]
async fn many_keys_are_asked_by_the_handle_in_messages_of_1024() {
    let worker = Acting::new();
    in_a_ring(&[&worker]);
    worker.speaks(2);
    let client = Client::builder().endpoints([&worker.server.address]).deadline(PATIENCE).build().unwrap();
    let prepared = client.prepare("s3://bucket/a");
    let answer = prepared.get_many(0..3_000_i64).await.unwrap();
    assert_eq!((answer.statuses.len(), worker.asked(), worker.by_handle()), (3_000, 3, 3));
    let firsts: Vec<_> = answer.rows().map(|(_, row)| (row.key_index, row.values.clone())).collect();
    assert_eq!(firsts, [0, 1_024, 2_048].map(|key| (key, vec![Value::Int(key.into())])));
    let none: [i64; 0] = [];
    assert_eq!(prepared.get_many(none).await.unwrap_err().to_string(), "empty key list: give at least one key");
}

#[tokio::test]
async fn a_prepared_question_follows_the_ring() {
    let (one, two) = (Acting::new(), Acting::new());
    in_a_ring(&[&one]);
    let client = Client::builder().endpoints([&one.server.address]).deadline(PATIENCE).hedge_budget(Budget::NONE);
    let client = client.build().unwrap();
    let asked: Vec<_> = (0..32).map(|number| client.prepare(format!("s3://bucket/{number}"))).collect();
    for prepared in &asked {
        prepared.get(1).await.unwrap();
    }
    assert_eq!((one.asked(), two.asked()), (32, 0));
    let ring = in_a_ring(&[&one, &two]);
    client.cluster().await.unwrap();
    let of_two = (0..32).filter(|number| ring.owners(&format!("s3://bucket/{number}")).next().unwrap().id() == "w-1");
    let of_two = of_two.count();
    for prepared in &asked {
        prepared.get(1).await.unwrap();
    }
    assert!(of_two > 0);
    assert_eq!((one.asked(), two.asked()), (64 - of_two, of_two));
}

#[tokio::test]
async fn without_a_worker_it_says_so() {
    let client = Client::builder().endpoints([dead_address().to_string()]).deadline(PATIENCE);
    let client = client.retry_budget(Budget::NONE).build().unwrap();
    assert_eq!(client.prepare("lake/a").get(1).await.unwrap_err().kind(), Kind::Unavailable);
}
