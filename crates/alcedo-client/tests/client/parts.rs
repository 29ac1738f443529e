//! Large answers: put together from their parts, and what becomes of those that cannot be.

use alcedo_client::{Budget, Kind, Reason};
use alcedo_proto::v1 as pb;
use pb::reply_frame::Body;

use crate::acting::{Mode, Pair};
use crate::scripted::{Server, answer, echo, eventually, opened, rows, values};

/// Part `number` of an answer of four rows, which holds the rows `at` and the one after it.
fn part(number: u32, at: i64) -> Body {
    let held = [at, at + 1].map(|value| (0, value as u64, value));
    let (rows_total, bytes_total) = if number == 0 { (4, 40) } else { (0, 0) };
    Body::Part(pb::AnswerPart { number, files: vec![rows(1, &held)], rows_total, bytes_total })
}

/// The end of an answer that `parts` parts went before.
fn end(parts: u32) -> Body {
    Body::Answer(pb::Answer { parts, ..answer(1, vec![]) })
}

#[tokio::test]
async fn parts_become_one_answer_and_others_are_answered_in_between() {
    let mut server = Server::start();
    let client = server.client();
    let mut session = opened(&mut server, &client).await;
    let large = tokio::spawn(client.lookup("lake/a").key(1).into_future());
    let (large_id, request) = session.request().await;
    assert!(request.accept_parts);
    session.reply(large_id, part(0, 0)).await;
    let small = tokio::spawn(client.lookup("lake/a").key(9).into_future());
    let (id, request) = session.request().await;
    session.answer(id, echo(&request)).await;
    assert_eq!(values(&small.await.unwrap().unwrap()), [9]);
    assert!(!large.is_finished());
    session.reply(large_id, part(1, 2)).await;
    session.reply(large_id, end(2)).await;
    let answer = large.await.unwrap().unwrap();
    assert_eq!(values(&answer), [0, 1, 2, 3]);
    let numbers: Vec<u64> = answer.rows().map(|(_, row)| row.row_number).collect();
    assert_eq!((numbers, answer.files.len()), (vec![0, 1, 2, 3], 1));
}

#[tokio::test]
async fn parts_that_make_no_answer_are_asked_of_the_replica() {
    for frames in [
        vec![part(1, 0), end(1)],
        vec![part(0, 0), part(0, 2), end(2)],
        vec![part(0, 0), end(2)],
        vec![part(0, 0), end(1)],
        vec![part(0, 0), part(1, 2), part(2, 4), end(3)],
        vec![part(0, 2), part(1, 0), end(1)],
    ] {
        let pair = Pair::new();
        pair.owner.is(Mode::Sends(frames));
        let client = pair.builder().retry_budget(Budget::RETRIES).hedge_budget(Budget::NONE).build().unwrap();
        let answer = client.lookup(&pair.url).key(5).await.unwrap();
        assert_eq!((values(&answer), pair.owner.asked(), pair.replica.asked()), (vec![5], 1, 1));
    }
}

#[tokio::test]
async fn where_nobody_else_can_answer_it_is_said_what_was_wrong() {
    let pair = Pair::new();
    for worker in [&pair.owner, &pair.replica] {
        worker.is(Mode::Sends(vec![part(0, 0), end(3)]));
    }
    let error = pair.builder().build().unwrap().lookup(&pair.url).key(5).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    let said = error.to_string();
    assert!(said.ends_with("sent a large answer that cannot be put together: the answer ended after 1 of 3 parts"));
}

#[tokio::test]
async fn a_worker_that_dies_between_two_parts_is_replaced() {
    let mut pair = Pair::new();
    pair.owner.is(Mode::Sends(vec![part(0, 0)]));
    let client = pair.builder().hedge_budget(Budget::NONE).build().unwrap();
    let lookup = tokio::spawn(client.lookup(&pair.url).key(5).into_future());
    eventually("the owner was not asked", || pair.owner.asked() == 1).await;
    pair.owner.server.kill();
    let answer = lookup.await.unwrap().unwrap();
    assert_eq!((values(&answer), pair.replica.asked()), (vec![5], 1));
}

#[tokio::test]
async fn an_answer_beyond_the_clients_own_bound_is_stopped_at_its_first_part() {
    let pair = Pair::new();
    let first = pb::AnswerPart { bytes_total: 1 << 40, rows_total: 1, ..Default::default() };
    pair.owner.is(Mode::Sends(vec![Body::Part(first)]));
    let client = pair.builder().build().unwrap();
    let error = client.lookup(&pair.url).key(5).await.unwrap_err();
    assert_eq!((error.kind(), error.reason), (Kind::Invalid, Some(Reason::AnswerTooLarge)));
    assert!(error.to_string().contains("more than 268435456 bytes") && error.to_string().contains("row limit"));
    eventually("the worker was not told", || pair.owner.cancelled() == 1).await;
    assert_eq!((pair.owner.asked(), pair.replica.asked()), (1, 0));
}

#[tokio::test]
async fn a_large_answer_that_is_given_up_is_cancelled_and_its_late_parts_are_ignored() {
    let mut server = Server::start();
    let client = server.client();
    let mut session = opened(&mut server, &client).await;
    let dropped = tokio::spawn(client.lookup("lake/a").key(1).into_future());
    let (id, _) = session.request().await;
    session.reply(id, part(0, 0)).await;
    dropped.abort();
    assert_eq!(session.cancel().await, id);
    session.reply(id, part(1, 2)).await;
    session.reply(id, end(2)).await;
    let next = tokio::spawn(client.lookup("lake/a").key(3).into_future());
    let (id, request) = session.request().await;
    session.answer(id, echo(&request)).await;
    assert_eq!((values(&next.await.unwrap().unwrap()), server.accepted()), (vec![3], 1));
}
