//! Lookup streams in frames, spoken byte by byte: what the contract promises, and what a peer of any kind costs.

use std::collections::BTreeMap;
use std::time::Duration;

use alcedo_origin::Freshness;
use alcedo_proto::v1::{self, Reason, lookup_frame, reply_frame};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

use crate::served::*;

/// What opens a connection of frames, in either direction.
const HELLO: [u8; 8] = [b'A', b'L', b'C', b'E', b'D', b'O', 0, 1];
const FILE: &str = "lake/users/a.parquet";
/// All that a test does before the first connection has idled must be done within this time.
const IDLE: &str = "[lookup]\nmax_timeout = \"5s\"\n[connections]\nidle_timeout = \"5s\"\n";

/// A connection of frames.
struct Talk {
    socket: TcpStream,
    come: Vec<u8>,
    /// Lengths of 0 that came.
    pings: usize,
}

impl Talk {
    async fn open(served: &Served) -> Self {
        let mut socket = TcpStream::connect(served.running.local_addr()).await.unwrap();
        socket.set_nodelay(true).unwrap();
        socket.write_all(&HELLO).await.unwrap();
        let mut hello = [0; 8];
        socket.read_exact(&mut hello).await.unwrap();
        assert_eq!(hello, HELLO);
        Self { socket, come: Vec::new(), pings: 0 }
    }

    async fn send(&mut self, frame: &v1::LookupFrame) {
        self.socket.write_all(&bytes_of(frame)).await.unwrap();
    }

    /// The next frame; none at the end of the connection, which must be between two frames.
    async fn frame(&mut self) -> Option<v1::ReplyFrame> {
        loop {
            while self.come.starts_with(&[0; 4]) {
                self.pings += 1;
                self.come.drain(..4);
            }
            if let Some(frame) = cut(&mut self.come) {
                return Some(frame);
            }
            let read = tokio::time::timeout(PATIENCE, self.socket.read_buf(&mut self.come)).await.expect("silence");
            if read.unwrap() == 0 {
                assert!(self.come.is_empty(), "it ended in the middle of a frame");
                return None;
            }
        }
    }

    /// The next frame that says more than what handles mean.
    async fn reply(&mut self) -> Option<v1::ReplyFrame> {
        loop {
            match self.frame().await {
                Some(v1::ReplyFrame { body: Some(reply_frame::Body::Announce(_)), .. }) => {}
                frame => return frame,
            }
        }
    }

    /// Keys found by the ids of the requests, for so many answers, alone or together.
    async fn found(&mut self, answers: usize) -> BTreeMap<u64, bool> {
        let mut found = BTreeMap::new();
        while found.len() < answers {
            let frame = self.reply().await.expect("the stream ended");
            let (ids, answer) = match frame.body.unwrap() {
                reply_frame::Body::Answer(answer) => (vec![frame.id], answer),
                reply_frame::Body::Batch(batch) => (batch.ids, batch.answer.unwrap()),
                other => panic!("{other:?}"),
            };
            assert_eq!(ids.len(), answer.statuses.len());
            for (id, status) in ids.into_iter().zip(answer.statuses) {
                assert!(found.insert(id, status == v1::KeyStatus::Found as i32).is_none(), "{id} was answered twice");
            }
        }
        found
    }

    async fn failure(&mut self) -> (u64, Code, Reason, String) {
        let frame = self.reply().await.expect("the stream ended");
        let Some(reply_frame::Body::Failure(failure)) = frame.body else { panic!("{frame:?}") };
        (frame.id, Code::from(failure.code), failure.detail.unwrap_or_default().reason(), failure.message)
    }
}

/// The frame at the front, if it is whole.
fn cut(come: &mut Vec<u8>) -> Option<v1::ReplyFrame> {
    let length = u32::from_le_bytes(*come.first_chunk::<4>()?) as usize;
    let frame = v1::ReplyFrame::decode(come.get(4..4 + length)?).unwrap();
    come.drain(..4 + length);
    Some(frame)
}

fn bytes_of(frame: &v1::LookupFrame) -> Vec<u8> {
    let body = frame.encode_to_vec();
    [&(body.len() as u32).to_le_bytes()[..], &body].concat()
}

fn prepare(handle: u32, path: &str) -> v1::LookupFrame {
    let body = lookup_frame::Body::Prepare(v1::Prepare { handle, request: Some(ask(path, &[])) });
    v1::LookupFrame { id: 0, body: Some(body) }
}

fn lookup(id: u64, handle: u32, key: i64) -> v1::LookupFrame {
    let lookup = v1::PreparedLookup { handle, keys: ask("", &[key]).keys, timeout_us: 0 };
    v1::LookupFrame { id, body: Some(lookup_frame::Body::Lookup(lookup)) }
}

fn batch(handle: u32, ids: &[u64], keys: &[i64]) -> v1::LookupFrame {
    let batch = v1::PreparedBatch { handle, ids: ids.to_vec(), keys: ask("", keys).keys, timeout_us: 0 };
    v1::LookupFrame { id: 0, body: Some(lookup_frame::Body::Batch(batch)) }
}

#[tokio::test]
async fn a_stream_in_frames_answers_what_a_stream_over_grpc_does() {
    let served = serve().await;
    let mut talk = Talk::open(&served).await;
    talk.send(&frame(1, ask(FILE, &[7]))).await;
    let announce = talk.frame().await.unwrap();
    let Some(reply_frame::Body::Announce(announce)) = announce.body else { panic!("{announce:?}") };
    assert_eq!(announce.files[0].url, "s3://bucket/users/a.parquet");
    assert_eq!(talk.found(1).await, BTreeMap::from([(1, true)]));
    talk.send(&prepare(3, FILE)).await;
    talk.send(&lookup(2, 3, 8)).await;
    assert_eq!(talk.found(1).await, BTreeMap::from([(2, true)]));
    talk.send(&batch(3, &[3, 4, 5], &[9, 1_000, 10])).await;
    assert_eq!(talk.found(3).await, BTreeMap::from([(3, true), (4, false), (5, true)]));
    talk.send(&lookup(6, 4, 8)).await;
    let (id, code, reason, message) = talk.failure().await;
    assert_eq!((id, code, reason), (6, Code::InvalidArgument, Reason::BadRequest));
    assert!(message.contains("the handle 4 was not defined"), "{message}");
    talk.send(&v1::LookupFrame { id: 7, body: None }).await;
    assert_eq!(talk.failure().await.0, 7);
    talk.send(&frame(8, ask("lake/nothing.parquet", &[1]))).await;
    let (id, code, reason, _) = talk.failure().await;
    assert_eq!((id, code, reason), (8, Code::NotFound, Reason::NoSuchFile));
    assert_eq!(served.running.metrics().connections.get(), 1);
}

#[tokio::test]
async fn frames_may_come_in_pieces_and_in_crowds() {
    let mut settings = config(2);
    // However slowly they are answered, there is a permit for each.
    settings.lookup.permits = 4_096;
    let served = serve_with(lake().await, Freshness::default(), settings);
    for (count, piece) in [(20, 1), (200, 7), (2_000, 100_000)] {
        let mut talk = Talk::open(&served).await;
        let all: Vec<u8> = std::iter::once(prepare(1, "lake/users/"))
            .chain((1..=count).map(|id| lookup(id, 1, id as i64 % 400)))
            .flat_map(|frame| bytes_of(&frame))
            .collect();
        for piece in all.chunks(piece) {
            talk.socket.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let found = talk.found(count as usize).await;
        assert!(found.iter().all(|(id, found)| *found == (id % 400 < 300)), "{found:?}");
    }
}

#[tokio::test]
async fn pings_are_answered_and_are_no_lookups() {
    let served = serve().await;
    let mut talk = Talk::open(&served).await;
    talk.socket.write_all(&[0; 4]).await.unwrap();
    let mut pong = [9; 4];
    talk.socket.read_exact(&mut pong).await.unwrap();
    assert_eq!(pong, [0; 4]);
    let mixed = [&[0; 8][..], &bytes_of(&frame(1, ask(FILE, &[1]))), &[0; 4], &bytes_of(&frame(2, ask(FILE, &[2])))];
    talk.socket.write_all(&mixed.concat()).await.unwrap();
    assert_eq!(talk.found(2).await.len(), 2);
    talk.socket.write_all(&[0; 4_096]).await.unwrap();
    talk.send(&frame(3, ask(FILE, &[3]))).await;
    assert_eq!(talk.found(1).await.len(), 1);
    // A flood of them is answered like few.
    assert!((1..100).contains(&talk.pings), "{}", talk.pings);
}

#[tokio::test]
async fn a_client_whose_requests_wait_hears_that_its_connection_lives() {
    let settings = read("[connections]\nunanswered = 1\n");
    // The origin is silent: the first request stays where it is, and the second waits for its turn.
    let (served, origin) = gated(settings).await;
    let mut talk = Talk::open(&served).await;
    for id in 1..=2 {
        talk.send(&frame(id, ask("lake/a.parquet", &[1]))).await;
    }
    talk.socket.write_all(&[0; 4]).await.unwrap();
    let mut pong = [9; 4];
    tokio::time::timeout(PATIENCE, talk.socket.read_exact(&mut pong)).await.unwrap().unwrap();
    assert_eq!(pong, [0; 4]);
    origin.open();
    assert_eq!(talk.found(2).await, BTreeMap::from([(1, true), (2, true)]));
}

#[tokio::test]
async fn hostile_bytes_end_their_own_connection_with_the_reason() {
    let served = serve().await;
    served.lookup(ask(FILE, &[1])).await.unwrap();
    let good = bytes_of(&frame(1, ask(FILE, &[1])));
    let too_long = "a frame of 1048577 bytes: at most 1048576 are taken";
    for (bytes, expected) in [
        (vec![255; 4], "a frame of 4294967295 bytes: at most 1048576 are taken"),
        (vec![255; 100_000], "a frame of 4294967295 bytes: at most 1048576 are taken"),
        ((1_048_577_u32).to_le_bytes().to_vec(), too_long),
        ([&3_u32.to_le_bytes()[..], &[255; 3]].concat(), "a frame cannot be read"),
        ([&9_u32.to_le_bytes()[..], b"GET / HTT"].concat(), "a frame cannot be read"),
    ] {
        let mut talk = Talk::open(&served).await;
        talk.socket.write_all(&good).await.unwrap();
        // What was asked before is answered.
        assert_eq!(talk.found(1).await, BTreeMap::from([(1, true)]));
        talk.socket.write_all(&bytes).await.unwrap();
        let (id, code, reason, message) = talk.failure().await;
        assert_eq!((id, code, reason), (0, Code::InvalidArgument, Reason::BadRequest), "{message}");
        assert!(message.contains(expected), "{message}");
        assert_eq!(talk.reply().await, None);
    }
    let metrics = served.running.metrics();
    eventually(|| metrics.connections.get() == 1).await;
    served.lookup(ask(FILE, &[2])).await.unwrap();
}

#[tokio::test]
async fn who_stops_in_the_middle_holds_nothing_but_its_place() {
    let served = serve_with(lake().await, Freshness::default(), read(IDLE));
    let metrics = served.running.metrics();
    let mut held = Vec::new();
    for bytes in [&[][..], &[1], &[0, 0, 16], &[0, 0, 16, 0], &[9, 0, 0, 0, 1, 2, 3]] {
        let mut talk = Talk::open(&served).await;
        talk.socket.write_all(bytes).await.unwrap();
        held.push(talk);
    }
    eventually(|| metrics.connections.get() == 5).await;
    // Half of a frame and pings are no use of a connection: it goes when it has idled.
    let mut pinging = Talk::open(&served).await;
    let until = tokio::time::Instant::now() + PATIENCE;
    while metrics.connections.get() > 0 {
        let _ = pinging.socket.write_all(&[0; 4]).await;
        assert!(tokio::time::Instant::now() < until, "{} connections are left", metrics.connections.get());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for cut in [1, 4, 7] {
        let mut socket = TcpStream::connect(served.running.local_addr()).await.unwrap();
        socket.write_all(&HELLO[..cut]).await.unwrap();
        drop(socket);
    }
    eventually(|| metrics.connections_total.get() == 9 && metrics.connections.get() == 0).await;
}

#[tokio::test]
async fn who_reads_late_gets_every_answer_whole() {
    let served = serve().await;
    let mut talk = Talk::open(&served).await;
    let (most, keys): (u64, Vec<i64>) = (12_000, (0..100).collect());
    let (mut read, mut write) = talk.socket.into_split();
    let asking = tokio::spawn(async move {
        for id in 1..=most {
            write.write_all(&bytes_of(&frame(id, ask(FILE, &keys)))).await.unwrap();
        }
        write
    });
    // More than sockets hold: the worker's writes are taken in pieces.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (mut answered, mut refused) = (0, 0);
    while answered + refused < most {
        assert!(read.read_buf(&mut talk.come).await.unwrap() > 0, "it ended after {answered} answers");
        while let Some(frame) = cut(&mut talk.come) {
            match frame.body {
                Some(reply_frame::Body::Answer(answer)) => {
                    answered += 1;
                    assert_eq!((answer.statuses.len(), answer.files[0].row_number.len()), (100, 100));
                }
                // They are more than a slow machine takes, and a refusal is a reply as well.
                Some(reply_frame::Body::Failure(failure)) if failure.code == Code::ResourceExhausted as i32 => {
                    refused += 1;
                }
                // A ping says that the connection lives.
                Some(reply_frame::Body::Announce(_)) | None => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(answered > 0, "{refused} are refused");
    drop(asking.await.unwrap());
}

#[tokio::test]
async fn a_client_in_frames_that_never_reads_is_cut_off_and_others_go_on() {
    let settings = read("[connections]\nwrite_timeout = \"1s\"\n");
    let served = serve_with(lake().await, Freshness::default(), settings);
    let metrics = served.running.metrics();
    let mut talk = Talk::open(&served).await;
    let keys: Vec<i64> = (0..100).collect();
    let asking = async {
        for id in 1.. {
            if talk.socket.write_all(&bytes_of(&frame(id, ask(FILE, &keys)))).await.is_err() {
                break;
            }
        }
    };
    let cut = async {
        while metrics.connections_stalled_total.get() == 0 {
            // A slow machine turns one away now and then.
            if let Err(refused) = served.lookup(ask("lake/users/b.parquet", &[95])).await {
                assert_eq!(refused.code(), Code::ResourceExhausted);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, async { tokio::join!(asking, cut) }).await.unwrap();
    eventually(|| metrics.connections.get() == 1 && metrics.lookups_in_flight.get() == 0).await;
    assert_eq!(metrics.connections_stalled_total.get(), 1);
    // Whoever was cut off may have left the worker with work that it turns others away for.
    let asked_again = async {
        while let Err(refused) = served.lookup(ask(FILE, &[7])).await {
            assert_eq!(refused.code(), Code::ResourceExhausted);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked_again).await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_requests_with_it() {
    let (served, _origin) = gated(config(2)).await;
    let mut talk = Talk::open(&served).await;
    for id in 1..=10 {
        talk.send(&frame(id, ask("lake/a.parquet", &[1]))).await;
    }
    let metrics = served.running.metrics();
    eventually(|| metrics.lookups_in_flight.get() == 10).await;
    drop(talk);
    eventually(|| metrics.lookups_in_flight.get() == 0 && metrics.connections.get() == 0).await;
}

#[tokio::test]
async fn a_cancel_ends_its_request_only() {
    let (served, origin) = gated(config(2)).await;
    let mut talk = Talk::open(&served).await;
    for id in 1..=2 {
        talk.send(&frame(id, ask("lake/a.parquet", &[1]))).await;
    }
    talk.send(&v1::LookupFrame { id: 1, body: Some(lookup_frame::Body::Cancel(v1::Cancel {})) }).await;
    let (id, code, ..) = talk.failure().await;
    assert_eq!((id, code), (1, Code::Cancelled));
    origin.open();
    assert_eq!(talk.found(1).await, BTreeMap::from([(2, true)]));
}

#[tokio::test]
async fn a_drain_answers_what_is_under_way_in_frames_and_ends_between_two() {
    let (served, origin) = gated(config(2)).await;
    let mut talk = Talk::open(&served).await;
    let mut half = Talk::open(&served).await;
    half.socket.write_all(&[9, 0]).await.unwrap();
    talk.send(&frame(7, ask("lake/a.parquet", &[1]))).await;
    eventually(|| served.running.metrics().lookups_in_flight.get() > 0).await;
    let address = served.running.local_addr();
    let shutdown = tokio::spawn(served.running.shutdown(PATIENCE));
    eventually(|| std::net::TcpStream::connect(address).is_err()).await;
    // A stream that has not heard of it may take some of these, and none of them makes the end of the connection a
    // broken one.
    for id in 8..2_000 {
        talk.send(&frame(id, ask("lake/a.parquet", &[1]))).await;
    }
    origin.open();
    let (mut answered, mut ends) = (BTreeMap::new(), Vec::new());
    for mut talk in [talk, half] {
        let end = loop {
            let reply = talk.reply().await.expect("it ended without a word");
            match reply.body {
                Some(reply_frame::Body::Answer(answer)) => {
                    answered.insert(reply.id, answer.statuses == [v1::KeyStatus::Found as i32])
                }
                Some(reply_frame::Body::Failure(failure)) => break (reply.id, failure.detail.unwrap().reason()),
                other => panic!("{other:?}"),
            };
        };
        ends.push(end);
        assert_eq!(talk.reply().await, None);
    }
    assert_eq!(ends, [(0, Reason::Draining); 2]);
    assert!(answered.contains_key(&7) && answered.values().all(|is_found| *is_found), "{answered:?}");
    assert!(answered.len() < 1_993, "all of them were taken");
    shutdown.await.unwrap();
}

#[tokio::test]
async fn an_old_connection_of_frames_ends_between_two_frames() {
    let served = serve_with(lake().await, Freshness::default(), read("[connections]\nmax_age = \"3s\"\n"));
    let mut talk = Talk::open(&served).await;
    let (mut asked, mut answered) = (0, 0);
    loop {
        asked += 1;
        if talk.socket.write_all(&bytes_of(&frame(asked, ask(FILE, &[7])))).await.is_err() {
            break;
        }
        match talk.reply().await {
            Some(reply) if reply.id > 0 => answered += 1,
            _ => break,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The last one may have crossed the end of the stream; it was not begun.
    assert!(answered > 0 && asked - answered <= 1, "{asked} {answered}");
}
