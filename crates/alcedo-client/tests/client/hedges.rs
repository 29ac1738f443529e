//! Lookups whose worker is silent: a second one is asked, the first answer wins, and who stays silent is ejected.

use std::time::{Duration, Instant};

use alcedo_client::{Budget, Client, Kind};

use crate::acting::{Mode, Pair};
use crate::scripted::{eventually, values};

/// Of lookups that are to reach it.
const DEADLINE: Duration = Duration::from_millis(400);
/// Never reached by a test that goes well.
const LONG: Duration = Duration::from_secs(60);
/// After so many answers a client knows how long they take. From then on a silent worker's lookup is hedged after some
/// milliseconds, and tried to be hedged again and again: on a busy machine many a try comes too late to count. Before,
/// that takes a quarter of the deadline.
const KNOWN_FROM: usize = 32;

/// A client that has learned where everybody is, and how long answers take.
async fn ready(pair: &Pair, hedges: Budget) -> Client {
    let client = pair.builder().deadline(LONG).retry_budget(Budget::NONE).hedge_budget(hedges).build().unwrap();
    for _ in 0..KNOWN_FROM {
        client.lookup(&pair.url).key(0).await.unwrap();
    }
    assert_eq!((pair.owner.asked(), pair.replica.asked()), (KNOWN_FROM, 0));
    client
}

#[tokio::test]
async fn the_first_answer_wins_and_the_loser_is_cancelled() {
    let pair = Pair::new();
    let client = ready(&pair, Budget::HEDGES).await;
    pair.owner.is_silent();
    let answer = client.lookup(&pair.url).key(5).await.unwrap();
    assert_eq!((values(&answer), &*answer.worker), (vec![5], &*pair.replica.server.address));
    eventually("the loser was not cancelled", || pair.owner.cancelled() == 1).await;
    assert_eq!((pair.owner.asked(), pair.replica.asked(), pair.replica.cancelled()), (KNOWN_FROM + 1, 1, 0));
}

#[tokio::test]
async fn a_slow_answer_of_the_first_one_wins_over_a_silent_second_one() {
    let pair = Pair::new();
    let client = ready(&pair, Budget::HEDGES).await;
    pair.replica.is_silent();
    pair.owner.is(Mode::IgnoresKeys(5..6));
    let lookup = tokio::spawn(client.lookup(&pair.url).key(5).deadline(5 * DEADLINE).into_future());
    eventually("the replica was not asked", || pair.replica.asked() == 1).await;
    // Both are silent: the deadline holds over both, and both are told.
    assert_eq!(lookup.await.unwrap().unwrap_err().kind(), Kind::Deadline);
    eventually("not cancelled", || pair.owner.cancelled() == 1 && pair.replica.cancelled() == 1).await;
}

#[tokio::test]
async fn hedging_ends_with_its_budget() {
    let pair = Pair::new();
    let client = ready(&pair, Budget { percent: 0, reserve: 1 }).await;
    pair.owner.is(Mode::IgnoresKeys(5..6));
    client.lookup(&pair.url).key(5).await.unwrap();
    // A word in between: it is slow, not gone.
    client.lookup(&pair.url).key(1).await.unwrap();
    let error = client.lookup(&pair.url).key(5).deadline(DEADLINE).await.unwrap_err();
    assert_eq!((error.kind(), pair.replica.asked()), (Kind::Deadline, 1));
}

#[tokio::test]
// The thread itself is to be held up.
#[allow(clippy::disallowed_methods)]
async fn when_all_answers_become_slow_at_once_few_calls_are_added() {
    let pair = Pair::new();
    [&pair.owner, &pair.replica].iter().for_each(|worker| worker.speaks(2));
    let client = ready(&pair, Budget { percent: 5, reserve: 0 }).await;
    let prepared = client.prepare(&pair.url);
    // What five of a hundred save up in a long quiet time.
    for round in 0..20 {
        let lookups = (0..100).map(|key| prepared.get(100 * round + key));
        assert!(futures::future::join_all(lookups).await.iter().all(Result::is_ok));
    }
    let (asked_twice, lookups) = (pair.replica.asked(), KNOWN_FROM + 2_000);
    assert!(asked_twice <= lookups * 5 / 100, "{asked_twice} of {lookups} lookups were asked twice");
    // Answers that lie here for so long make the client as patient: others are heard of before it asks anybody else.
    let held_up = async { std::thread::sleep(DEADLINE) };
    let (held, ()) =
        futures::future::join(futures::future::join_all((0..100).map(|key| prepared.get(key))), held_up).await;
    assert!(held.iter().all(Result::is_ok));
    let (before, asked) = (pair.replica.asked(), pair.owner.asked());
    pair.owner.is(Mode::IgnoresKeys(10_000..11_000));
    let slow: Vec<_> = (10_000..10_200)
        .map(|key| tokio::spawn(client.lookup(&pair.url).key(key).deadline(8 * DEADLINE).into_future()))
        .collect();
    // Others are answered meanwhile, so the owner is slow, not gone.
    while !slow.iter().all(tokio::task::JoinHandle::is_finished) {
        prepared.get(1).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answered = futures::future::join_all(slow).await.into_iter().filter(|answer| answer.as_ref().unwrap().is_ok());
    let added = pair.replica.asked() - before;
    // Twenty are saved up at most, and what is asked meanwhile saves up a few.
    let most = 20 + (pair.owner.asked() - asked).div_ceil(20);
    assert!(answered.count() <= added && added <= most, "{added} calls were added");
}

#[tokio::test]
// The thread itself is to be held up.
#[allow(clippy::disallowed_methods)]
async fn a_client_that_was_held_up_reads_its_answers_before_it_asks_others() {
    let pair = Pair::new();
    let client = ready(&pair, Budget { percent: 100, reserve: 1_000 }).await;
    let mut took = Vec::new();
    for key in 0..256 {
        let asked = Instant::now();
        client.lookup(&pair.url).key(key).await.unwrap();
        took.push(asked.elapsed());
    }
    took.sort_unstable();
    // The client would ask others after the time in which 95 of 100 of these came, and no sooner than after 5 ms; it is
    // held up for clearly longer than that, however long answers take here.
    let held_up = took[256 * 97 / 100].max(Duration::from_millis(5)) + Duration::from_millis(10);
    let before = pair.replica.asked();
    for key in 0..50 {
        let lookup = tokio::spawn(client.lookup(&pair.url).key(key).into_future());
        tokio::task::yield_now().await;
        // Whoever else has this thread for so long.
        std::thread::sleep(held_up);
        assert_eq!(values(&lookup.await.unwrap().unwrap()), [key]);
    }
    let added = pair.replica.asked() - before;
    assert!(added < 25, "{added} of 50 lookups were asked twice");
}

#[tokio::test]
async fn hedging_can_be_switched_off() {
    let pair = Pair::new();
    let client = ready(&pair, Budget::NONE).await;
    pair.owner.is_silent();
    let error = client.lookup(&pair.url).key(5).deadline(DEADLINE).await.unwrap_err();
    assert_eq!((error.kind(), pair.replica.asked()), (Kind::Deadline, 0));
}

#[tokio::test]
async fn a_worker_that_is_silent_three_times_is_asked_last_and_tried_again() {
    let pair = Pair::new();
    let client = ready(&pair, Budget { percent: 0, reserve: 3 }).await;
    pair.owner.is_silent();
    for key in 0..3 {
        client.lookup(&pair.url).key(key).await.unwrap();
    }
    eventually("the owner was not asked", || pair.owner.asked() == KNOWN_FROM + 3).await;
    assert_eq!(pair.replica.asked(), 3);
    // It is ejected, and who goes around it pays nothing; now and then one call tries it.
    for key in 0..200 {
        client.lookup(&pair.url).key(key).await.unwrap();
    }
    let tried = pair.owner.asked() - KNOWN_FROM - 3;
    assert!(tried < 50, "{tried} calls tried a silent worker");
    pair.owner.is(Mode::Answers);
    let is_owners = async || *client.lookup(&pair.url).key(1).await.unwrap().worker == *pair.owner.server.address;
    while !is_owners().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // There is nothing left to pay a second call with, so who answers is who was asked first.
    assert!(is_owners().await, "the owner is not asked first again");
}

#[tokio::test]
async fn calls_under_way_to_a_worker_that_froze_are_led_around_it() {
    let pair = Pair::new();
    // Three pay, and find out that it is silent; all others follow them at no cost.
    let client = ready(&pair, Budget { percent: 0, reserve: 3 }).await;
    pair.owner.is_silent();
    let lookups: Vec<_> = (0..100).map(|key| tokio::spawn(client.lookup(&pair.url).key(key).into_future())).collect();
    for (key, lookup) in (0..).zip(lookups) {
        assert_eq!(values(&lookup.await.unwrap().unwrap()), [key]);
    }
    assert_eq!(pair.replica.asked(), 100);
}

#[tokio::test]
async fn short_deadlines_do_not_eject_a_worker_that_answers_others() {
    let pair = Pair::new();
    let client = ready(&pair, Budget::NONE).await;
    pair.owner.is(Mode::IgnoresKeys(7..8));
    for round in 0..3 {
        // Short beside the others', and long enough for a busy machine to hear a word in between.
        let hurried = || client.lookup(&pair.url).key(7).deadline(5 * DEADLINE).into_future();
        let hurried: Vec<_> = (0..4).map(|_| tokio::spawn(hurried())).collect();
        eventually("the owner was not asked", || pair.owner.asked() == KNOWN_FROM + 4 + 5 * round).await;
        client.lookup(&pair.url).key(1).await.unwrap();
        for lookup in hurried {
            assert_eq!(lookup.await.unwrap().unwrap_err().kind(), Kind::Deadline);
        }
    }
    assert_eq!(pair.replica.asked(), 0);
}

#[tokio::test]
async fn dropping_a_hedged_lookup_cancels_both_calls_and_no_other() {
    let pair = Pair::new();
    let client = ready(&pair, Budget::HEDGES).await;
    pair.owner.is(Mode::IgnoresKeys(5..6));
    pair.replica.is_silent();
    let lookup = tokio::spawn(client.lookup(&pair.url).key(5).into_future());
    eventually("the replica was not asked", || pair.replica.asked() == 1).await;
    lookup.abort();
    eventually("not cancelled", || pair.owner.cancelled() == 1 && pair.replica.cancelled() == 1).await;
    assert_eq!(values(&client.lookup(&pair.url).key(6).await.unwrap()), [6]);
    assert_eq!((pair.owner.server.accepted(), pair.owner.cancelled()), (1, 1));
}
