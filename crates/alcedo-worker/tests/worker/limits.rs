//! Connections that are of no use, and how little they matter to others.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use alcedo_origin::Freshness;
use alcedo_proto::v1;
use alcedo_proto::v1::lookup_service_client::LookupServiceClient;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use crate::served::*;

/// A client's preface with empty settings (RFC 9113, section 3.4).
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn a_client_that_never_reads_its_answers_is_cut_off_and_others_go_on() {
    let settings = read("[connections]\nwrite_timeout = \"1s\"\nunanswered = 4\n");
    let served = serve_with(lake().await, Freshness::default(), settings);
    let address = format!("http://{}", served.running.local_addr());
    let channel = Endpoint::from_shared(address).unwrap().initial_stream_window_size(65_535).connect_lazy();
    let (frames, receiver) = mpsc::channel(64);
    let mut client = LookupServiceClient::new(channel);
    let mut replies = client.lookup_stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let keys: Vec<i64> = (0..100).collect();
    // As long as its connection lives it asks, and it reads nothing.
    let asking = async {
        for id in 1.. {
            if frames.send(frame(id, ask("lake/users/a.parquet", &keys))).await.is_err() {
                break;
            }
        }
    };
    let metrics = served.running.metrics();
    let cut = async {
        while metrics.connections_stalled_total.get() == 0 {
            served.lookup(ask("lake/users/b.parquet", &[95])).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, async { tokio::join!(asking, cut) }).await.unwrap();
    // What it had in its window it may read, and then it learns that it was cut off.
    let ended = async { while let Ok(Some(_)) = replies.message().await {} };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
    eventually(|| metrics.connections.get() == 1 && metrics.lookups_in_flight.get() == 0).await;
    served.lookup(ask("lake/users/b.parquet", &[95])).await.unwrap();
}

/// What opens a connection of frames. One that is idle is sent nothing, so that nobody need answer in time.
const FRAMES_HELLO: &[u8] = b"ALCEDO\0\x01";
/// Idle connections that speak HTTP/2, at most: those that answer no ping are closed after 15 s, by which time all that
/// is asked beside them must be done.
const MOST_OF_HTTP2: u64 = 256;
/// Files of this process for all else that its tests do meanwhile.
const OTHER_FILES: u64 = 4_096;

#[tokio::test]
async fn thousands_of_idle_connections_disturb_nobody_and_one_more_waits() {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    // Both ends of each connection are in this process.
    let wanted = 4_096_u64.min(hard.saturating_sub(OTHER_FILES).max(hard / 2) / 2);
    let both = hard.min(wanted * 2 + OTHER_FILES).max(limit.current.unwrap_or(u64::MAX));
    setrlimit(Resource::Nofile, Rlimit { current: Some(both), maximum: limit.maximum }).unwrap();
    let settings = read(&format!("[connections]\nmax = {wanted}\n"));
    let served = serve_with(lake().await, Freshness::default(), settings);
    let address = served.running.local_addr();
    let metrics = served.running.metrics();
    let idle = |hello: &'static [u8]| {
        let mut idle = TcpStream::connect(address).unwrap();
        idle.write_all(hello).unwrap();
        idle
    };
    let of_http2 = MOST_OF_HTTP2.min(wanted / 2);
    let of_frames: Vec<TcpStream> = (of_http2 + 1..wanted).map(|_| idle(FRAMES_HELLO)).collect();
    eventually(|| metrics.connections.get() == wanted - of_http2 - 1).await;
    served.lookup(ask("lake/users/a.parquet", &[1])).await.unwrap();
    let of_http2: Vec<TcpStream> = (0..of_http2).map(|_| idle(HELLO)).collect();
    eventually(|| metrics.connections.get() == wanted).await;
    for key in 0..100 {
        served.lookup(ask("lake/users/a.parquet", &[key])).await.unwrap();
    }
    // One more is in the kernel's queue: it is not refused, and not served until another leaves.
    let late = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let mut client = LookupServiceClient::new(late);
    let mut waiting = std::pin::pin!(client.lookup(ask("lake/users/a.parquet", &[1])));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut waiting).await.is_err());
    assert_eq!(metrics.connections.get(), wanted);
    drop((of_frames, of_http2));
    waiting.await.unwrap();
    eventually(|| metrics.connections.get() == 2).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_in_use_is_not() {
    const IDLE: Duration = Duration::from_secs(1);
    let settings = read("[lookup]\nmax_timeout = \"1s\"\n[connections]\nidle_timeout = \"1s\"\n");
    let served = serve_with(lake().await, Freshness::default(), settings);
    let mut idle = TcpStream::connect(served.running.local_addr()).unwrap();
    idle.write_all(HELLO).unwrap();
    let closed = tokio::task::spawn_blocking(move || {
        idle.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut all = Vec::new();
        idle.read_to_end(&mut all).is_ok_and(|read| read > 0)
    });
    // It is used without a pause for more than twice as long as an idle one lives. A machine that holds all of this up
    // for so long that it was idle begins anew: it may be another connection then.
    let (metrics, until) = (served.running.metrics(), Instant::now() + PATIENCE);
    let (mut last, mut in_use) = (Instant::now(), None);
    loop {
        let begun = Instant::now();
        let found = served.lookup(ask("lake/users/a.parquet", &[7])).await;
        let connections = metrics.connections_total.get();
        if last.elapsed() >= IDLE {
            in_use = None;
            last = if found.is_ok() { begun } else { last };
        } else {
            found.unwrap();
            last = begun;
            let (since, before) = *in_use.get_or_insert((begun, connections));
            assert_eq!(connections, before, "it is another connection");
            if since.elapsed() > 2 * IDLE + IDLE / 2 {
                break;
            }
        }
        assert!(Instant::now() < until, "the machine is never quick enough to keep a connection in use");
        tokio::time::sleep(IDLE / 10).await;
    }
    assert!(closed.await.unwrap());
}

#[tokio::test]
async fn a_stream_of_an_old_connection_ends_between_two_messages() {
    let served = serve_with(lake().await, Freshness::default(), read("[connections]\nmax_age = \"3s\"\n"));
    let (frames, mut replies) = served.stream().await;
    let (mut asked, mut answered) = (0, 0);
    // It asks one question after the other until the stream ends, which it does with every question answered.
    while frames.send(frame(asked + 1, ask("lake/users/a.parquet", &[7]))).await.is_ok() {
        asked += 1;
        let mut ended = false;
        loop {
            match replies.message().await.unwrap() {
                Some(v1::ReplyFrame { id: 0, .. }) => {}
                Some(reply) => {
                    assert!(matches!(reply.body, Some(v1::reply_frame::Body::Answer(_))));
                    answered += 1;
                    break;
                }
                None => {
                    ended = true;
                    break;
                }
            }
        }
        if ended {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The last one may have crossed the end of the stream; it was not begun.
    assert!(answered > 0 && asked - answered <= 1, "{asked} {answered}");
    // A question on the old connection would meet its end, which this plain client does not repeat.
    let address = format!("http://{}", served.running.local_addr());
    let new = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
    LookupServiceClient::new(new).lookup(ask("lake/users/a.parquet", &[7])).await.unwrap();
}
