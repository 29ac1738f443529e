//! Lookups in frames: when the client changes over to them, what it makes of each way in which they end, and that it
//! does without where they cannot be had.

use std::time::Duration;

use alcedo_client::{Error, Kind, Prepared, Reason};
use alcedo_proto::v1 as pb;
use pb::lookup_frame;
use pb::reply_frame::Body;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::scripted::{PATIENCE, Server, Session, answer, client, echo, file, int_key, rows, schema, values};

/// What opens a connection of frames, in either direction.
const HELLO: [u8; 8] = [b'A', b'L', b'C', b'E', b'D', b'O', 0, 1];

type Asking = tokio::task::JoinHandle<Result<alcedo_client::Answer, Error>>;

/// A connection of frames, as a worker has it.
struct Lane {
    socket: TcpStream,
    come: Vec<u8>,
    pings: usize,
}

impl Lane {
    /// The next one that a client opens, greeted.
    async fn open(server: &mut Server) -> Self {
        let mut socket = TcpStream::from_std(server.lane().await).unwrap();
        let mut hello = [0; 8];
        socket.read_exact(&mut hello).await.unwrap();
        assert_eq!(hello, HELLO);
        socket.write_all(&HELLO).await.unwrap();
        let mut lane = Self { socket, come: Vec::new(), pings: 0 };
        let announce = pb::Announce { files: vec![file(1, "s3://lake/a", "v1")], schemas: vec![schema()] };
        lane.reply(0, Body::Announce(announce)).await;
        lane
    }

    /// The next frame; none when the client has let go of the connection.
    async fn next_frame(&mut self) -> Option<pb::LookupFrame> {
        loop {
            if let Some(length) = self.come.first_chunk::<4>() {
                let length = u32::from_le_bytes(*length) as usize;
                if length == 0 {
                    self.pings += 1;
                    self.come.drain(..4);
                    continue;
                }
                if self.come.len() >= 4 + length {
                    let frame = pb::LookupFrame::decode(&self.come[4..4 + length]).unwrap();
                    self.come.drain(..4 + length);
                    return Some(frame);
                }
            }
            let read = tokio::time::timeout(PATIENCE, self.socket.read_buf(&mut self.come)).await;
            if read.expect("no frame came").is_ok_and(|read| read == 0) {
                return None;
            }
        }
    }

    /// The next frame, which must be a lookup by a handle; its definition is passed over.
    async fn lookup(&mut self) -> (u64, i64) {
        loop {
            let frame = self.next_frame().await.expect("the client let go of the connection");
            match frame.body.unwrap() {
                lookup_frame::Body::Prepare(_) => {}
                lookup_frame::Body::Lookup(lookup) => return (frame.id, int_key(&lookup.keys[0])),
                other => panic!("{other:?}"),
            }
        }
    }

    async fn reply(&mut self, id: u64, body: Body) {
        let body = pb::ReplyFrame { id, body: Some(body) }.encode_to_vec();
        let bytes = [&(body.len() as u32).to_le_bytes()[..], &body].concat();
        self.socket.write_all(&bytes).await.unwrap();
    }

    async fn answer(&mut self, id: u64, value: i64) {
        self.reply(id, Body::Answer(answer(1, vec![rows(1, &[(0, 0, value)])]))).await;
    }
}

fn speaking(protocol: u32) -> Server {
    let server = Server::start();
    server.script.cluster.lock().unwrap().protocol = protocol;
    server
}

fn get(prepared: &Prepared, key: i64) -> Asking {
    let prepared = prepared.clone();
    tokio::spawn(async move { prepared.get(key).await })
}

/// Answers everything that is asked on a stream over gRPC.
fn answering(mut session: Session) {
    tokio::spawn(async move {
        session.announce(vec![file(1, "s3://lake/a", "v1")]).await;
        while let Some(frame) = session.next_frame().await {
            match frame.body.unwrap() {
                lookup_frame::Body::Request(request) => session.answer(frame.id, echo(&request)).await,
                lookup_frame::Body::Lookup(lookup) => {
                    let answer = answer(1, vec![rows(1, &[(0, 0, int_key(&lookup.keys[0]))])]);
                    session.answer(frame.id, answer).await;
                }
                _ => {}
            }
        }
    });
}

/// A client of this server that has changed over, and its connection of frames.
async fn changed_over(server: &mut Server, prepared: &Prepared) -> Lane {
    let asking = get(prepared, 0);
    answering(server.session().await);
    let lane = Lane::open(server).await;
    assert_eq!(values(&asking.await.unwrap().unwrap()), [0]);
    let mut lane = lane;
    // The client takes it over when it has read the greeting; until then it asks over gRPC.
    let mut number = 1;
    loop {
        let mut asking = get(prepared, number);
        tokio::select! {
            (id, key) = lane.lookup() => {
                lane.answer(id, key).await;
                assert_eq!(values(&asking.await.unwrap().unwrap()), [number]);
                return lane;
            }
            answer = &mut asking => assert_eq!(values(&answer.unwrap().unwrap()), [number]),
        }
        number += 1;
    }
}

#[tokio::test]
async fn lookups_change_over_to_frames_and_those_under_way_are_not_disturbed() {
    let mut server = speaking(3);
    let prepared = server.client().prepare("lake/a");
    let before = get(&prepared, 5);
    let mut session = server.session().await;
    session.announce(vec![file(1, "s3://lake/a", "v1")]).await;
    assert!(matches!(session.frame().await.body, Some(lookup_frame::Body::Prepare(_))));
    let under_way = session.frame().await;
    let mut lane = Lane::open(&mut server).await;
    // The same handles mean nothing on the other connection: all is said anew.
    let mut after = get(&prepared, 6);
    let (id, key) = loop {
        tokio::select! {
            lookup = lane.lookup() => break lookup,
            frame = session.frame() => session.answer(frame.id, answer(1, vec![rows(1, &[(0, 0, 6)])])).await,
        }
        after.await.unwrap().unwrap();
        after = get(&prepared, 6);
    };
    assert_eq!(key, 6);
    lane.answer(id, key).await;
    assert_eq!(values(&after.await.unwrap().unwrap()), [6]);
    session.answer(under_way.id, answer(1, vec![rows(1, &[(0, 0, 5)])])).await;
    assert_eq!(values(&before.await.unwrap().unwrap()), [5]);
    assert_eq!((server.accepted(), server.has_lane()), (1, false));
}

#[tokio::test]
async fn an_older_worker_and_a_client_that_is_told_not_to_stay_with_grpc() {
    for (protocol, frames) in [(2, true), (3, false)] {
        let mut server = speaking(protocol);
        let builder = alcedo_client::Client::builder().endpoints([server.address.clone()]).deadline(PATIENCE);
        let prepared = builder.frames(frames).build().unwrap().prepare("lake/a");
        let first = get(&prepared, 0);
        answering(server.session().await);
        first.await.unwrap().unwrap();
        for key in 1..50 {
            assert_eq!(values(&prepared.get(key).await.unwrap()), [key]);
        }
        assert!(!server.has_lane(), "{protocol} {frames}");
    }
}

#[tokio::test]
async fn where_no_connection_of_frames_can_be_had_grpc_goes_on_and_it_is_not_tried_again_at_once() {
    for answer in [&b""[..], b"HTTP/1.1 400 Bad Request", b"ALCEDO\0\x02", b"ALC"] {
        let mut server = speaking(3);
        let prepared = server.client().prepare("lake/a");
        let first = get(&prepared, 0);
        answering(server.session().await);
        first.await.unwrap().unwrap();
        let mut refused = TcpStream::from_std(server.lane().await).unwrap();
        refused.write_all(answer).await.unwrap();
        drop(refused);
        for key in 1..50 {
            assert_eq!(values(&prepared.get(key).await.unwrap()), [key]);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!((server.accepted(), server.has_lane()), (1, false));
    }
}

#[tokio::test]
async fn an_end_that_is_announced_costs_nothing_and_one_that_is_not_a_repetition() {
    for (drains, cut) in [(true, &b""[..]), (false, b""), (false, b"\x20\0\0\0abc")] {
        let mut server = speaking(3);
        let prepared = server.client().prepare("lake/a");
        let mut lane = changed_over(&mut server, &prepared).await;
        let asking = get(&prepared, 77);
        lane.lookup().await;
        if drains {
            let detail = pb::ErrorDetail { reason: pb::Reason::Draining.into(), ..Default::default() };
            let failure = pb::Failure { code: 14, message: "it drains".to_owned(), detail: Some(detail) };
            lane.reply(0, Body::Failure(failure)).await;
        }
        lane.socket.write_all(cut).await.unwrap();
        drop(lane);
        // Nobody else is there to be asked.
        if drains {
            let error = asking.await.unwrap().unwrap_err();
            assert_eq!((error.kind(), error.reason), (Kind::Unavailable, Some(Reason::NoWorker)), "{error}");
            assert!(error.to_string().contains("draining"), "{error}");
        } else {
            answering(server.session().await);
            assert_eq!(values(&asking.await.unwrap().unwrap()), [77]);
        }
    }
}

#[tokio::test]
async fn a_failure_of_no_request_is_the_end_of_all() {
    let mut server = speaking(3);
    let prepared = server.client().prepare("lake/a");
    let mut lane = changed_over(&mut server, &prepared).await;
    let asking = [get(&prepared, 1), get(&prepared, 2)];
    for _ in &asking {
        lane.lookup().await;
    }
    let detail = pb::ErrorDetail { reason: pb::Reason::BadRequest.into(), ..Default::default() };
    let failure = pb::Failure { code: 3, message: "a frame of nonsense".to_owned(), detail: Some(detail) };
    lane.reply(0, Body::Failure(failure)).await;
    for asking in asking {
        let error = asking.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.reason), (Kind::Invalid, Some(Reason::BadRequest)));
    }
    assert_eq!(lane.next_frame().await, None);
    let next = get(&prepared, 3);
    answering(server.session().await);
    assert_eq!(values(&next.await.unwrap().unwrap()), [3]);
}

#[tokio::test]
async fn what_a_worker_may_not_send_ends_the_connection() {
    for hostile in [&[255; 4][..], &[3, 0, 0, 0, 255, 255, 255], &[1, 0, 0, 7]] {
        let mut server = speaking(3);
        let prepared = server.client().prepare("lake/a");
        let mut lane = changed_over(&mut server, &prepared).await;
        let asking = get(&prepared, 1);
        lane.lookup().await;
        lane.socket.write_all(hostile).await.unwrap();
        // It is not for want of bytes that the connection ends.
        let more = async {
            while lane.socket.write_all(&[0; 4]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, more).await.expect("what cannot be read is waited for");
        answering(server.session().await);
        assert_eq!(values(&asking.await.unwrap().unwrap()), [1]);
    }
}

#[tokio::test]
async fn a_lookup_that_is_dropped_is_cancelled_and_pings_are_passed_over() {
    let mut server = speaking(3);
    let prepared = server.client().prepare("lake/a");
    let mut lane = changed_over(&mut server, &prepared).await;
    let dropped = get(&prepared, 1);
    let (dropped_id, _) = lane.lookup().await;
    dropped.abort();
    let frame = lane.next_frame().await.unwrap();
    assert_eq!((frame.id, frame.body), (dropped_id, Some(lookup_frame::Body::Cancel(pb::Cancel {}))));
    lane.socket.write_all(&[0; 12]).await.unwrap();
    let asking = get(&prepared, 2);
    let (id, key) = lane.lookup().await;
    lane.socket.write_all(&[0; 4]).await.unwrap();
    lane.answer(dropped_id, 1).await;
    lane.answer(id, key).await;
    assert_eq!(values(&asking.await.unwrap().unwrap()), [2]);
    assert_eq!((server.accepted(), server.has_lane(), lane.pings), (1, false, 0));
}

#[tokio::test]
async fn many_at_once_travel_together_in_frames_too() {
    let mut server = speaking(3);
    let prepared = server.client().prepare("lake/a");
    let mut lane = changed_over(&mut server, &prepared).await;
    let asking: Vec<Asking> = (0..200).map(|key| get(&prepared, key)).collect();
    let (mut asked, mut frames) = (Vec::new(), 0);
    while asked.len() < 200 {
        let frame = lane.next_frame().await.unwrap();
        frames += 1;
        match frame.body.unwrap() {
            lookup_frame::Body::Lookup(lookup) => asked.push((frame.id, int_key(&lookup.keys[0]))),
            lookup_frame::Body::Batch(batch) => {
                asked.extend(batch.ids.into_iter().zip(batch.keys.iter().map(int_key)));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(frames < 20, "{frames}");
    for (id, key) in asked.into_iter().rev() {
        lane.answer(id, key).await;
    }
    for (key, asking) in (0..).zip(asking) {
        assert_eq!(values(&asking.await.unwrap().unwrap()), [key]);
    }
}

#[tokio::test]
async fn a_client_that_is_dropped_closes_its_connection_of_frames() {
    let mut server = speaking(3);
    let client = client(&[&server]);
    let prepared = client.prepare("lake/a");
    let mut lane = changed_over(&mut server, &prepared).await;
    drop((client, prepared));
    assert_eq!(lane.next_frame().await, None);
}
