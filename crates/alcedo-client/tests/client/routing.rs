//! Whom a call goes to: the view of the cluster, the ring, and what happens when workers are down.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alcedo_client::{Client, Kind, Reason};
use alcedo_cluster::{Member, Members, Ring, file_hash};
use alcedo_proto::v1 as pb;
use pb::reply_frame::Body;

use crate::scripted::{Server, client, dead_address, echo, eventually, file, opened, values};

/// What a worker of this ring tells.
pub(crate) fn cluster(members: &[(&str, &str)], mounts: &[(&str, &str)]) -> (pb::ClusterResponse, Ring) {
    let member = |(id, address): &(&str, &str)| Member::new(id, address, 1, "").unwrap();
    let ring = Ring::new(&Members::new(members.iter().map(member)).unwrap());
    let wire = |(id, address): &(&str, &str)| pb::Member {
        id: (*id).into(),
        address: (*address).into(),
        weight: 1,
        zone: String::new(),
    };
    let mount =
        |(name, url): &(&str, &str)| pb::Mount { name: (*name).into(), url: (*url).into(), freshness: "ttl".into() };
    let parameters = pb::RingParameters { epoch: ring.epoch(), vnodes_per_weight: 512, hash: "xxh3-64".into() };
    let response = pb::ClusterResponse {
        members: members.iter().map(wire).collect(),
        ring: Some(parameters),
        mounts: mounts.iter().map(mount).collect(),
        protocol: 1,
        ..Default::default()
    };
    (response, ring)
}

/// A server that answers every lookup, and how many it answered.
pub(crate) fn answering() -> (Server, Arc<AtomicUsize>, Arc<Mutex<u64>>) {
    let mut server = Server::start();
    let (count, epoch) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(0)));
    let mut sessions = server.take_sessions();
    let (counted, told) = (Arc::clone(&count), Arc::clone(&epoch));
    tokio::spawn(async move {
        while let Some(mut session) = sessions.recv().await {
            let (counted, told) = (Arc::clone(&counted), Arc::clone(&told));
            tokio::spawn(async move {
                session.announce(vec![file(1, "s3://lake/a", "v1")]).await;
                while let Some((id, request)) = session.next_request().await {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let ring_epoch = *told.lock().unwrap();
                    session.answer(id, pb::Answer { ring_epoch, ..echo(&request) }).await;
                }
            });
        }
    });
    (server, count, epoch)
}

#[tokio::test]
async fn nothing_is_opened_before_the_first_call() {
    let server = Server::start();
    let client = server.client();
    let _lookup = client.lookup("lake/a").key(1);
    let dead = Client::builder().endpoints([dead_address().to_string()]).build().unwrap();
    drop(dead.clone());
    // A connection that was opened would be accepted before this one.
    let probe = tokio::net::TcpStream::connect(&server.address).await.unwrap();
    eventually("the probe was not accepted", || server.accepted() > 0).await;
    assert_eq!(server.accepted(), 1);
    drop(probe);
}

#[tokio::test]
async fn a_worker_that_is_down_is_named_at_once() {
    let (one, two) = (dead_address(), dead_address());
    let client = Client::builder().endpoints([one.to_string()]).deadline(Duration::from_secs(20)).build().unwrap();
    let error = client.lookup("lake/a").key(1).await.unwrap_err();
    assert_eq!((error.kind(), error.reason), (Kind::Unavailable, Some(Reason::NoWorker)));
    assert_eq!(error.to_string(), format!("no worker reachable: {one}: connection refused (tried 1)"));
    assert!(error.is_retryable());

    let client = Client::builder().endpoints([one.to_string(), format!("http://{two}")]);
    let client = client.deadline(Duration::from_secs(20)).build().unwrap();
    let error = client.lookup("lake/a").key(1).await.unwrap_err();
    let both = format!("no worker reachable: {one}: connection refused; {two}: connection refused (tried 2)");
    assert_eq!(error.to_string(), both);
}

#[tokio::test]
async fn clones_share_the_connections() {
    let (server, count, _) = answering();
    let client = server.client();
    let lookups = (0..20).map(|key| {
        let clone = client.clone();
        tokio::spawn(async move { clone.lookup("lake/a").key(key).await })
    });
    for lookup in lookups.collect::<Vec<_>>() {
        lookup.await.unwrap().unwrap();
    }
    assert_eq!((server.accepted(), count.load(Ordering::SeqCst), server.cluster_calls()), (1, 20, 1));

    let builder = Client::builder().endpoints([&server.address]).deadline(Duration::from_secs(20));
    let three = builder.connections_per_worker(3).build().unwrap();
    for key in 0..9 {
        three.clone().lookup("lake/a").key(key).await.unwrap();
    }
    assert_eq!(server.accepted(), 1 + 3);
}

#[tokio::test]
async fn the_owner_is_asked_by_alias_and_by_url_alike() {
    let (one, at_one, _) = answering();
    let (two, at_two, _) = answering();
    let (view, ring) = cluster(&[("w-1", &one.address), ("w-2", &two.address)], &[("lake", "s3://bucket/prefix")]);
    *one.script.cluster.lock().unwrap() = view;
    // On a busy machine a slow answer is no reason to count twice.
    let builder = Client::builder().endpoints([&one.address]).deadline(Duration::from_secs(20));
    let client = builder.hedge_budget(alcedo_client::Budget::NONE).build().unwrap();
    let mut expected = [0, 0];
    for number in 0..32 {
        let rest = format!("part-{number}.parquet");
        let owner = ring.owners(&format!("s3://bucket/prefix/{rest}")).next().unwrap().id();
        expected[usize::from(owner == "w-2")] += 2;
        client.lookup(format!("lake/{rest}")).key(1).await.unwrap();
        client.lookup(format!("s3://bucket/prefix/{rest}")).key(1).await.unwrap();
        assert_eq!([at_one.load(Ordering::SeqCst), at_two.load(Ordering::SeqCst)], expected, "{rest}");
    }
    assert!(expected[0] > 0 && expected[1] > 0);
}

#[tokio::test]
async fn an_owner_that_is_down_is_passed_over() {
    let (up, count, _) = answering();
    let dead = dead_address().to_string();
    let (view, ring) = cluster(&[("dead", &dead), ("up", &up.address)], &[]);
    *up.script.cluster.lock().unwrap() = view;
    let client = up.client();
    let urls: Vec<String> = (0..16).map(|number| format!("s3://bucket/{number}")).collect();
    assert!(urls.iter().any(|url| ring.owners(url).next().unwrap().id() == "dead"));
    for url in &urls {
        client.lookup(url).key(1).await.unwrap();
    }
    assert_eq!(count.load(Ordering::SeqCst), 16);
}

#[tokio::test]
async fn a_ring_of_another_hash_makes_any_worker_do() {
    let (server, count, _) = answering();
    let (mut view, _) = cluster(&[("w-1", &server.address)], &[]);
    view.ring.as_mut().unwrap().hash = "md5".into();
    *server.script.cluster.lock().unwrap() = view;
    server.client().lookup("s3://bucket/a").key(1).await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_stream_that_drains_sends_its_lookups_to_the_other_endpoint() {
    let (mut one, mut two) = (Server::start(), Server::start());
    let client = client(&[&one, &two]);
    let lookup = tokio::spawn(client.lookup("lake/a").key(5).into_future());
    let (mut draining, other) = tokio::select! {
        session = one.session() => (session, &mut two),
        session = two.session() => (session, &mut one),
    };
    draining.request().await;
    drop(draining);
    let mut session = other.session().await;
    let (id, request) = session.request().await;
    session.announce(vec![file(1, "s3://lake/a", "v1")]).await;
    session.answer(id, echo(&request)).await;
    assert_eq!(values(&lookup.await.unwrap().unwrap()), [5]);
}

#[tokio::test]
async fn a_request_that_a_draining_worker_refuses_goes_to_the_other_endpoint() {
    let (mut one, two) = (Server::start(), dead_address());
    let endpoints = [one.address.clone(), two.to_string()];
    let client = Client::builder().endpoints(endpoints).deadline(Duration::from_secs(20)).build().unwrap();
    let mut session = opened(&mut one, &client).await;
    let lookup = tokio::spawn(client.lookup("lake/a").key(5).into_future());
    let (id, _) = session.request().await;
    let detail = pb::ErrorDetail { reason: pb::Reason::Draining.into(), ..Default::default() };
    let code = tonic::Code::Unavailable.into();
    let failure = pb::Failure { code, message: "the worker is draining".into(), detail: Some(detail) };
    session.reply(id, Body::Failure(failure)).await;
    let error = lookup.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    for part in [format!("{}: the worker is draining", one.address), format!("{two}: connection refused")] {
        assert!(error.to_string().contains(&part), "{error}");
    }
    assert!(error.to_string().ends_with("(tried 2)"), "{error}");
}

#[tokio::test]
async fn another_ring_in_a_reply_makes_the_view_be_read_again_once() {
    let (server, _, epoch) = answering();
    let (view, ring) = cluster(&[("w-1", &server.address)], &[]);
    let client = server.client();
    *epoch.lock().unwrap() = 0;
    client.lookup("s3://bucket/a").key(1).await.unwrap();
    assert_eq!(server.cluster_calls(), 1);

    *server.script.cluster.lock().unwrap() = view;
    *epoch.lock().unwrap() = ring.epoch();
    for _ in 0..20 {
        client.lookup("s3://bucket/a").key(1).await.unwrap();
    }
    eventually("the view was not read again", || server.cluster_calls() == 2).await;
    // The reading is done when the client knows the new members.
    let names = || async { client.status().await.unwrap()[0].0.id.clone() };
    while names().await != "w-1" {
        tokio::task::yield_now().await;
    }
    client.lookup("s3://bucket/a").key(1).await.unwrap();
    assert_eq!(server.cluster_calls(), 2);
}

#[tokio::test]
async fn workers_that_disagree_for_long_are_asked_once_a_second() {
    let (server, _, epoch) = answering();
    *epoch.lock().unwrap() = 99;
    let client = server.client();
    let started = std::time::Instant::now();
    for _ in 0..50 {
        client.lookup("s3://bucket/a").key(1).await.unwrap();
    }
    eventually("the view was not read again", || server.cluster_calls() >= 2).await;
    // One reading before the first call, one for the first reply, one per second after that.
    let bound = 2 + started.elapsed().as_secs();
    assert!(server.cluster_calls() as u64 <= bound, "{} readings, at most {bound}", server.cluster_calls());
}

#[tokio::test]
async fn an_endpoint_that_never_answers_does_not_hide_the_next_one() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (server, count, _) = answering();
    let endpoints = [silent.local_addr().unwrap().to_string(), server.address.clone()];
    let client = Client::builder().endpoints(endpoints).deadline(Duration::from_secs(6)).build().unwrap();
    assert_eq!(client.cluster().await.unwrap(), alcedo_client::ClusterView::default());
    // It accepted the connection, so it might be asked for this file first; the view has already shown that it is slow.
    let answer = client.lookup("lake/a").key(1).deadline(Duration::from_secs(20)).await.unwrap();
    assert_eq!((&*answer.worker, count.load(Ordering::SeqCst)), (server.address.as_str(), 1));
}

#[tokio::test]
async fn the_cluster_and_its_workers_are_described() {
    let (server, ..) = answering();
    let dead = dead_address().to_string();
    let (view, ring) = cluster(&[("a", &dead), ("b", &server.address)], &[("lake", "s3://bucket/prefix")]);
    *server.script.cluster.lock().unwrap() = view;
    let client = server.client();
    let told = client.cluster().await.unwrap();
    assert_eq!((told.epoch, told.protocol, told.members.len()), (ring.epoch(), 1, 2));
    assert_eq!((told.mounts[0].name.as_str(), told.mounts[0].url.as_str()), ("lake", "s3://bucket/prefix"));
    let status = client.status().await.unwrap();
    assert_eq!((status[0].0.id.as_str(), status[0].1.as_ref().unwrap_err().kind()), ("a", Kind::Unavailable));
    assert_eq!((status[1].0.id.as_str(), status[1].1.as_ref().unwrap().lookups_total), ("b", 7));
}

#[tokio::test]
async fn owners_and_shares_are_those_of_the_ring() {
    let (server, ..) = answering();
    let (view, ring) = cluster(&[("w-1", &server.address), ("w-2", "10.0.0.2:1")], &[("lake", "s3://bucket/prefix")]);
    *server.script.cluster.lock().unwrap() = view;
    let client = server.client();
    for path in ["lake/a/", "lake/a", "s3://bucket/prefix/a"] {
        let placement = client.owners(path).await.unwrap();
        assert_eq!((placement.url.as_str(), placement.hash), ("s3://bucket/prefix/a", file_hash(&placement.url)));
        let owners: Vec<&str> = ring.owners(&placement.url).map(Member::id).collect();
        assert_eq!(placement.owners.iter().map(|owner| owner.id.as_str()).collect::<Vec<_>>(), owners);
    }
    let shown = client.ring().await.unwrap();
    assert_eq!((shown.epoch, shown.vnodes_per_weight, shown.hash_name.as_str()), (ring.epoch(), 512, "xxh3-64"));
    assert_eq!(shown.members.iter().map(|(member, _)| member.id.as_str()).collect::<Vec<_>>(), ["w-1", "w-2"]);
    assert_eq!(shown.members.iter().map(|(_, share)| *share).collect::<Vec<_>>(), ring.shares());

    // A worker that stands alone owns nothing, and a ring of another hash cannot be shown.
    *server.script.cluster.lock().unwrap() = pb::ClusterResponse::default();
    assert_eq!(client.ring().await.unwrap().members, []);
    assert_eq!(client.owners("s3://bucket/a").await.unwrap().owners, []);
    let (mut view, _) = cluster(&[("w-1", &server.address)], &[]);
    view.ring.as_mut().unwrap().hash = "md5".into();
    *server.script.cluster.lock().unwrap() = view;
    assert_eq!(client.ring().await.unwrap_err().kind(), Kind::Failed);
    assert_eq!(client.owners("s3://bucket/a").await.unwrap_err().kind(), Kind::Failed);
}

#[tokio::test]
async fn a_members_file_is_where_to_start_and_is_read_again_when_nobody_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("members");
    let client = Client::builder().members_file(&path).deadline(Duration::from_secs(20)).build().unwrap();
    let error = client.lookup("s3://bucket/a").key(1).await.unwrap_err();
    assert_eq!((error.kind(), error.reason), (Kind::Unavailable, Some(Reason::NoWorker)));
    assert!(error.to_string().contains("/members cannot be read"), "{error}");
    let (mut first, ..) = answering();
    std::fs::write(&path, format!("w-1={}\n", first.address)).unwrap();
    client.lookup("s3://bucket/a").key(1).await.unwrap();
    // The cluster moves; a file that is damaged meanwhile changes nothing.
    let (second, count, _) = answering();
    std::fs::write(&path, "w-1").unwrap();
    client.cluster().await.unwrap();
    std::fs::write(&path, format!("w-1={}\n", second.address)).unwrap();
    first.kill();
    while client.lookup("s3://bucket/a").key(1).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
}
