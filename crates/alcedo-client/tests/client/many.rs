//! Lookups on many paths at once.

use alcedo_client::{Budget, Client, Kind};

use crate::acting::{Acting, Mode, in_a_ring};
use crate::scripted::{PATIENCE, dead_address, eventually, values};

#[tokio::test]
async fn each_result_stands_where_its_lookup_stood() {
    let workers = [Acting::new(), Acting::new(), Acting::new()];
    let ring = in_a_ring(&workers.each_ref());
    // A hedge is a second call to another worker, and calls are counted here.
    let builder = Client::builder().endpoints([&workers[0].server.address]).deadline(PATIENCE);
    let client = builder.hedge_budget(Budget::NONE).build().unwrap();
    let url = |number: i64| format!("s3://bucket/{number}");
    let lookups = (0..500).map(|number| client.lookup(url(number)).key(number));
    let answers = client.lookup_many(lookups).await;
    assert_eq!(answers.len(), 500);
    let mut owned = [0; 3];
    for (number, answer) in (0..).zip(answers) {
        let answer = answer.unwrap();
        let owner = ring.owners(&url(number)).next().unwrap();
        assert_eq!((values(&answer), &*answer.worker), (vec![number], owner.address()));
        owned[owner.id()[2..].parse::<usize>().unwrap()] += 1;
    }
    assert_eq!(workers.each_ref().map(Acting::asked), owned);
    assert!(client.lookup_many([]).await.is_empty());
}

#[tokio::test]
async fn a_slow_worker_holds_up_its_own_group_and_a_failure_its_own_place() {
    let workers = [Acting::new(), Acting::new()];
    let ring = in_a_ring(&workers.each_ref());
    let builder = Client::builder().endpoints([&workers[0].server.address]).deadline(PATIENCE);
    let client = builder.hedge_budget(Budget::NONE).build().unwrap();
    let owned_by = |id: &str| {
        let urls = (0..10_000).map(|number| format!("s3://bucket/{number}"));
        let owned: Vec<_> = urls.filter(|url| ring.owners(url).next().unwrap().id() == id).take(200).collect();
        owned
    };
    let (slow, fast) = (owned_by("w-0"), owned_by("w-1"));
    workers[0].is(Mode::IgnoresKeys(0..1_000));
    let lookups = slow.iter().chain(&fast).zip(0..).map(|(url, key)| client.lookup(url).key(key));
    let lookups: Vec<_> = lookups.chain([client.lookup("s3://bucket/none")]).collect();
    let many = client.clone();
    let answers = tokio::spawn(async move { many.lookup_many(lookups).await });
    // More than go to one worker at once wait behind the slow one, and none of the other's.
    eventually("a group waits", || workers[1].asked() == 200 && workers[0].asked() >= 64).await;
    assert_eq!(workers[0].asked(), 64);
    answers.abort();

    workers[0].is(Mode::Answers);
    let lookups = [client.lookup(&fast[0]).key(1), client.lookup(&fast[1]), client.lookup(&slow[0]).key(3)];
    let answers = client.lookup_many(lookups).await;
    assert_eq!(values(answers[0].as_ref().unwrap()), [1]);
    assert_eq!(answers[1].as_ref().unwrap_err().kind(), Kind::Invalid);
    assert_eq!(values(answers[2].as_ref().unwrap()), [3]);
}

#[tokio::test]
async fn without_workers_every_lookup_says_so() {
    let client = Client::builder().endpoints([dead_address().to_string()]).deadline(PATIENCE).build().unwrap();
    let answers = client.lookup_many((0..3).map(|key| client.lookup("lake/a").key(key))).await;
    let kinds: Vec<_> = answers.into_iter().map(|answer| answer.unwrap_err().kind()).collect();
    assert_eq!(kinds, [Kind::Unavailable; 3]);
}
