//! The lookup stream without our client: what the contract promises to any.

use std::collections::BTreeSet;
use std::time::Duration;

use alcedo_proto::v1::lookup_service_client::LookupServiceClient;
use alcedo_proto::v1::{self, Reason, key, lookup_frame, reply_frame};
use alcedo_testkit::cluster::{ClusterOptions, TestCluster};
use alcedo_testkit::s3::{Fault, Rule};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};

use crate::sample::{large, large_file, small, small_cluster};

/// Longest wait for a reply that must come.
const PATIENCE: Duration = Duration::from_secs(25);

/// A stream, and what was announced on it.
pub(crate) struct Talk {
    frames: mpsc::Sender<v1::LookupFrame>,
    replies: Streaming<v1::ReplyFrame>,
    /// Announce frames so far.
    pub(crate) announced: usize,
    files: BTreeSet<u32>,
    schemas: BTreeSet<u32>,
    versions: BTreeSet<(String, String)>,
}

impl Talk {
    pub(crate) async fn open(cluster: &TestCluster) -> Self {
        let channel = channel(cluster);
        let (frames, receiver) = mpsc::channel(2_048);
        let replies = LookupServiceClient::new(channel).lookup_stream(ReceiverStream::new(receiver)).await.unwrap();
        let replies = replies.into_inner();
        let (files, schemas, versions) = Default::default();
        Self { frames, replies, announced: 0, files, schemas, versions }
    }

    pub(crate) async fn send(&self, id: u64, request: v1::LookupRequest) {
        self.send_body(id, Some(lookup_frame::Body::Request(request))).await;
    }

    pub(crate) async fn send_body(&self, id: u64, body: Option<lookup_frame::Body>) {
        self.frames.send(v1::LookupFrame { id, body }).await.unwrap();
    }

    /// The next frame. Nothing is announced twice, nor used before it is announced.
    pub(crate) async fn frame(&mut self) -> v1::ReplyFrame {
        let frame = tokio::time::timeout(PATIENCE, self.replies.message()).await.expect("a reply");
        let frame = frame.unwrap().expect("the stream goes on");
        match frame.body.as_ref().expect("a body") {
            reply_frame::Body::Announce(announce) => {
                assert_eq!(frame.id, 0);
                self.announced += 1;
                for file in &announce.files {
                    assert!(self.files.insert(file.handle), "{announce:?}");
                    assert!(self.versions.insert((file.url.clone(), file.version.clone())), "{announce:?}");
                }
                assert!(announce.schemas.iter().all(|schema| self.schemas.insert(schema.handle)), "{announce:?}");
            }
            reply_frame::Body::Answer(v1::Answer { files, .. })
            | reply_frame::Body::Part(v1::AnswerPart { files, .. }) => {
                let known =
                    |rows: &v1::FileRows| self.files.contains(&rows.file) && self.schemas.contains(&rows.schema);
                assert!(files.iter().all(known), "{:?}, {:?}", self.files, self.schemas);
            }
            reply_frame::Body::Failure(_) => {}
            // Nobody here sends batches.
            reply_frame::Body::Batch(batch) => panic!("{batch:?}"),
        }
        frame
    }

    /// The next answer or failure, or part of an answer.
    pub(crate) async fn reply(&mut self) -> v1::ReplyFrame {
        loop {
            let frame = self.frame().await;
            if frame.id != 0 {
                return frame;
            }
        }
    }

    /// Sends one request and takes all frames up to its reply.
    pub(crate) async fn exchange(&mut self, id: u64, request: v1::LookupRequest) -> Vec<v1::ReplyFrame> {
        self.send(id, request).await;
        let mut frames = Vec::new();
        loop {
            frames.push(self.frame().await);
            if frames.last().is_some_and(|frame| frame.id == id) {
                return frames;
            }
        }
    }

    pub(crate) async fn failure(&mut self, id: u64) -> (Code, Reason, String) {
        let frame = self.reply().await;
        let Some(reply_frame::Body::Failure(failure)) = frame.body else { panic!("{frame:?}") };
        assert_eq!(frame.id, id);
        (Code::from(failure.code), failure.detail.unwrap_or_default().reason(), failure.message)
    }
}

pub(crate) fn channel(cluster: &TestCluster) -> Channel {
    Endpoint::from_shared(format!("http://{}", cluster.endpoint())).unwrap().connect_lazy()
}

pub(crate) fn int_key(value: i64) -> v1::Key {
    v1::Key { kind: Some(key::Kind::Int(value)) }
}

pub(crate) fn request(path: &str, keys: Vec<v1::Key>) -> v1::LookupRequest {
    let timeout_us = PATIENCE.as_micros() as u64;
    v1::LookupRequest { path: path.to_owned(), key_column: "id".to_owned(), keys, timeout_us, ..Default::default() }
}

fn ask(path: &str, id: i64) -> v1::LookupRequest {
    request(path, vec![int_key(id)])
}

#[tokio::test]
async fn every_id_is_answered_once_and_versions_are_announced_once() {
    let (cluster, lake) = (small_cluster(), small());
    let mut talk = Talk::open(&cluster).await;
    let count = 400;
    for id in 1..=count {
        talk.send(id, ask("lake/lake/", lake.row(id * 49).unwrap().id)).await;
    }
    let mut answered = BTreeSet::new();
    for _ in 0..count {
        let frame = talk.reply().await;
        let Some(reply_frame::Body::Answer(answer)) = &frame.body else { panic!("{frame:?}") };
        assert_eq!((answer.statuses.as_slice(), answer.files.len()), ([v1::KeyStatus::Found as i32].as_slice(), 1));
        assert!(answered.insert(frame.id), "{} was answered twice", frame.id);
    }
    assert_eq!(answered, (1..=count).collect());
    assert_eq!((talk.files.len(), talk.schemas.len()), (16, 1), "one schema for all files");
}

#[tokio::test]
async fn a_fast_request_overtakes_a_slow_one() {
    let (cluster, lake) = (small_cluster(), small());
    let mut talk = Talk::open(&cluster).await;
    let id = lake.row(3).unwrap().id;
    talk.exchange(1, ask("lake/lake/part-00000.parquet", id)).await;
    cluster.store().faults().add(Rule::always(Fault::StallHeaders).key("part-00005"));
    let slow = v1::LookupRequest { timeout_us: 3_000_000, ..ask("lake/lake/part-00005.parquet", id) };
    talk.send(2, slow).await;
    talk.send(3, ask("lake/lake/part-00000.parquet", id)).await;
    assert_eq!(talk.reply().await.id, 3);
    let (code, reason, message) = talk.failure(2).await;
    assert_eq!((code, reason), (Code::DeadlineExceeded, Reason::Deadline));
    assert_eq!(message, "lake/lake/part-00005.parquet: the deadline of 3s passed");
}

#[tokio::test]
async fn a_cancelled_request_is_answered_or_fails_as_cancelled_and_its_id_is_free_again() {
    let objects = vec![("big.parquet".to_owned(), large_file(0))];
    // Work that several may share goes on when one of them leaves; here it must not stay silent for long, but until the
    // request was cancelled.
    let mount = "limits = { attempt_timeout = \"3s\" }\n".to_owned();
    let cluster = TestCluster::start(ClusterOptions { objects, mount, ..ClusterOptions::default() }).unwrap();
    let lake = large(7);
    let ask = |id| ask("lake/big.parquet", id);
    let mut talk = Talk::open(&cluster).await;
    cluster.store().faults().add(Rule::once(Fault::StallHeaders));
    let id = lake.row(5).unwrap().id;
    talk.send(9, ask(id)).await;
    while cluster.store().counters().get == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    talk.send_body(9, Some(lookup_frame::Body::Cancel(v1::Cancel {}))).await;
    let (code, reason, message) = talk.failure(9).await;
    assert_eq!((code, reason, message.as_str()), (Code::Cancelled, Reason::Cancelled, "the request was cancelled"));
    // One that is not under way is nothing to cancel, before its request and after its answer.
    talk.send_body(10, Some(lookup_frame::Body::Cancel(v1::Cancel {}))).await;
    for id in [9, 10] {
        let frames = talk.exchange(id, ask(lake.row(6).unwrap().id)).await;
        assert!(matches!(frames.last().unwrap().body, Some(reply_frame::Body::Answer(_))), "{frames:?}");
    }
    talk.send_body(10, Some(lookup_frame::Body::Cancel(v1::Cancel {}))).await;
    talk.exchange(11, ask(id)).await;
}

#[tokio::test]
async fn wrong_frames_fail_by_themselves_with_a_reason() {
    let (cluster, lake) = (small_cluster(), small());
    let mut talk = Talk::open(&cluster).await;
    let path = "lake/lake/part-00000.parquet";
    let keys = |count| request(path, vec![int_key(1); count]);
    let unset = request(path, vec![int_key(1), v1::Key { kind: None }]);
    let no_null = request(path, vec![v1::Key { kind: Some(key::Kind::Null(false)) }]);
    let cases = [
        (
            keys(1_025),
            (Code::OutOfRange, Reason::TooManyKeys),
            "1025 keys in one lookup, at most 1024 are allowed: split the lookup (lookup.max_keys)",
        ),
        (keys(0), (Code::InvalidArgument, Reason::BadRequest), "no keys: a lookup has at least one"),
        (
            unset,
            (Code::InvalidArgument, Reason::BadKey),
            "key 1: it has no value: set one of text, int, uint, float, bool, bytes or null",
        ),
        (no_null, (Code::InvalidArgument, Reason::BadKey), "key 0: null must be true"),
        (
            request("", vec![int_key(1)]),
            (Code::InvalidArgument, Reason::BadPath),
            "(empty): not a usable path: a path names a mount and a file: mount/dir/file",
        ),
    ];
    for (id, (request, (code, reason), message)) in (1..).zip(cases) {
        talk.send(id, request).await;
        assert_eq!(talk.failure(id).await, (code, reason, message.to_owned()));
    }
    talk.send_body(77, None).await;
    let wanted = "the frame holds neither a request nor a cancel".to_owned();
    assert_eq!(talk.failure(77).await, (Code::InvalidArgument, Reason::BadRequest, wanted));
    // As many keys as are allowed, all the same.
    talk.send(78, keys(1_024)).await;
    let frame = talk.reply().await;
    let Some(reply_frame::Body::Answer(answer)) = frame.body else { panic!("{frame:?}") };
    assert_eq!(answer.statuses.len(), 1_024);
    talk.exchange(79, ask(path, lake.row(0).unwrap().id)).await;
}

#[tokio::test]
async fn an_id_in_use_is_refused_and_the_first_request_still_answered() {
    let (cluster, lake) = (small_cluster(), small());
    let mut talk = Talk::open(&cluster).await;
    cluster.store().faults().add(Rule::once(Fault::Latency(Duration::from_millis(300))));
    let path = "lake/lake/part-00000.parquet";
    talk.send(4, ask(path, lake.row(0).unwrap().id)).await;
    talk.send(4, ask(path, lake.row(1).unwrap().id)).await;
    let (code, reason, message) = talk.failure(4).await;
    assert_eq!((code, reason), (Code::InvalidArgument, Reason::BadRequest));
    assert_eq!(message, "the id 4 is in use by an unanswered request of this stream");
    let frame = talk.reply().await;
    let Some(reply_frame::Body::Answer(answer)) = &frame.body else { panic!("{frame:?}") };
    assert_eq!((frame.id, answer.files[0].row_number.as_slice()), (4, [0].as_slice()));
}

#[tokio::test]
async fn a_request_that_is_too_large_ends_the_stream_with_a_reason() {
    let cluster = small_cluster();
    let mut talk = Talk::open(&cluster).await;
    let key = v1::Key { kind: Some(key::Kind::Text("x".repeat(2 << 20))) };
    talk.send(1, request("lake/lake/", vec![key])).await;
    let status = tokio::time::timeout(PATIENCE, talk.replies.message()).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    // The connection's other streams live on.
    let mut other = Talk::open(&cluster).await;
    other.exchange(1, ask("lake/lake/part-00000.parquet", 1)).await;
}
