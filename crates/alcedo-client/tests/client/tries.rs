//! When a call is given to a second worker, and what that may cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use alcedo_client::{Budget, Client, Kind, Reason};
use alcedo_proto::v1 as pb;
use tonic::Code;

use crate::acting::{Acting, Mode, Pair, failure, in_a_ring};
use crate::routing::cluster;
use crate::scripted::{PATIENCE, dead_address, eventually, values};

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn of_a_hundred_calls_ten_are_repeated_and_the_eleventh_is_not() {
    let pair = Pair::new();
    let client = pair.builder().retry_budget(Budget { percent: 10, reserve: 0 }).build().unwrap();
    pair.owner.is(failure(Code::Unavailable, pb::Reason::OriginUnavailable, Duration::ZERO));
    let mut answered = 0;
    for key in 0..109 {
        // Clones pay from one purse.
        match client.clone().lookup(&pair.url).key(key).await {
            Ok(answer) => {
                assert_eq!(values(&answer), [key]);
                answered += 1;
            }
            Err(error) => assert_eq!(error.reason, Some(Reason::OriginUnavailable)),
        }
    }
    assert_eq!((answered, pair.owner.asked(), pair.replica.asked()), (10, 109, 10));
    client.lookup(&pair.url).key(0).await.unwrap();
}

#[tokio::test]
async fn a_call_that_was_not_accepted_goes_on_at_no_cost() {
    let up = Acting::new();
    let dead = dead_address().to_string();
    let (view, ring) = cluster(&[("dead", &dead), ("up", &up.server.address)], &[]);
    *up.server.script.cluster.lock().unwrap() = view;
    let urls: Vec<String> = (0..32).map(|number| format!("s3://bucket/{number}")).collect();
    assert!(urls.iter().any(|url| ring.owners(url).next().unwrap().id() == "dead"));
    let client = Client::builder().endpoints([&up.server.address]).deadline(PATIENCE).retry_budget(Budget::NONE);
    let client = client.build().unwrap();
    for url in &urls {
        client.lookup(url).key(1).await.unwrap();
    }
    assert_eq!(up.asked(), 32);
}

#[tokio::test]
async fn who_turns_calls_away_is_left_alone_as_long_as_it_asked() {
    let pair = Pair::new();
    let client = pair.builder().retry_budget(Budget { percent: 0, reserve: 1 }).build().unwrap();
    // As long as a client believes anybody, so that no pause of a busy machine is longer.
    pair.owner.is(failure(Code::ResourceExhausted, pb::Reason::Overloaded, Duration::from_secs(5)));
    for key in 0..5 {
        assert_eq!(values(&client.lookup(&pair.url).key(key).await.unwrap()), [key]);
    }
    assert_eq!((pair.owner.asked(), pair.replica.asked()), (1, 5));
    // Where all of them do so the caller is told, and how long to wait.
    pair.replica.is(failure(Code::ResourceExhausted, pb::Reason::Overloaded, LONG));
    let error = client.lookup(&pair.url).key(1).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after), (Kind::Exhausted, Some(LONG)));
}

#[tokio::test]
async fn what_a_worker_has_decided_is_not_asked_again() {
    for (code, reason, kind) in [
        (Code::DeadlineExceeded, pb::Reason::Deadline, Kind::Deadline),
        (Code::DeadlineExceeded, pb::Reason::IndexBuilding, Kind::Deadline),
        (Code::NotFound, pb::Reason::NoSuchFile, Kind::NotFound),
        (Code::InvalidArgument, pb::Reason::BadKey, Kind::Invalid),
        (Code::Aborted, pb::Reason::VersionChanged, Kind::VersionChanged),
        (Code::Internal, pb::Reason::Bug, Kind::Internal),
    ] {
        let pair = Pair::new();
        pair.owner.is(failure(code, reason, Duration::ZERO));
        let error = pair.builder().build().unwrap().lookup(&pair.url).key(1).await.unwrap_err();
        assert_eq!((error.kind(), pair.owner.asked(), pair.replica.asked()), (kind, 1, 0));
    }
}

#[tokio::test]
async fn a_lookup_whose_worker_dies_is_answered_by_the_replica_if_the_budget_allows() {
    for (budget, survives) in [(Budget::RETRIES, true), (Budget::NONE, false)] {
        let mut pair = Pair::new();
        pair.owner.is_silent();
        let client = pair.builder().retry_budget(budget).hedge_budget(Budget::NONE).build().unwrap();
        let lookup = tokio::spawn(client.lookup(&pair.url).key(5).into_future());
        eventually("the owner was not asked", || pair.owner.asked() == 1).await;
        pair.owner.server.kill();
        let answer = lookup.await.unwrap();
        assert_eq!(answer.is_ok(), survives);
        match answer {
            Ok(answer) => assert_eq!((values(&answer), &*answer.worker), (vec![5], &*pair.replica.server.address)),
            Err(error) => assert!(error.to_string().contains("had accepted the lookup is not known"), "{error}"),
        }
        // Later calls know that it is gone.
        client.lookup(&pair.url).key(6).await.unwrap();
        assert_eq!(pair.replica.asked(), 1 + usize::from(survives));
    }
}

#[tokio::test]
async fn a_worker_killed_during_ten_thousand_lookups_fails_none_of_them() {
    const LOOKUPS: usize = 10_000;
    let mut workers = [Acting::new(), Acting::new(), Acting::new()];
    in_a_ring(&workers.each_ref());
    let client = Client::builder().endpoints([&workers[1].server.address]).deadline(PATIENCE).build().unwrap();
    let next = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..32)
        .map(|_| {
            let (client, next) = (client.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= LOOKUPS {
                        return;
                    }
                    let key = number as i64;
                    let answer = client.lookup(format!("s3://bucket/{}", number % 100)).key(key).await;
                    assert_eq!(values(&answer.unwrap()), [key], "lookup {number}");
                }
            })
        })
        .collect();
    eventually("a third is not done", || next.load(Ordering::SeqCst) > LOOKUPS / 3).await;
    let asked_before = workers[0].asked();
    workers[0].server.kill();
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(asked_before > 0, "the dead one owned nothing");
}

#[test]
fn a_client_outlives_the_runtime_that_it_was_first_used_in() {
    let worker_runtime = tokio::runtime::Runtime::new().unwrap();
    let worker = worker_runtime.block_on(async { Acting::new() });
    let client = worker.server.client();
    for key in 0..3 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(client.lookup("s3://bucket/a").key(key).into_future());
        assert_eq!(values(&answer.unwrap()), [key]);
    }
    // Two at once, each in a thread and runtime of its own.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    for key in 0..50 {
                        assert_eq!(values(&client.lookup("s3://bucket/a").key(key).await.unwrap()), [key]);
                    }
                });
            });
        }
    });
}

#[test]
fn a_lookup_whose_connection_ends_with_another_runtime_goes_on_on_a_new_one() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let (of_worker, mine, other) = (runtime(), runtime(), runtime());
    for (budget, survives) in [(Budget::RETRIES, true), (Budget::NONE, false)] {
        let worker = of_worker.block_on(async { Acting::new() });
        let builder = Client::builder().endpoints([&worker.server.address]).deadline(PATIENCE);
        let client = builder.retry_budget(budget).build().unwrap();
        let opening = runtime();
        opening.block_on(client.lookup("s3://bucket/a").key(1).into_future()).unwrap();
        worker.is_silent();
        let lookup = mine.spawn(client.lookup("s3://bucket/a").key(2).into_future());
        other.block_on(eventually("the worker was not asked", || worker.asked() == 2));
        worker.is(Mode::Answers);
        drop(opening);
        let answer = mine.block_on(lookup).unwrap();
        assert_eq!(answer.is_ok(), survives, "{answer:?}");
        assert_eq!((worker.asked(), worker.server.accepted()), (2 + usize::from(survives), 1 + usize::from(survives)));
    }
}
