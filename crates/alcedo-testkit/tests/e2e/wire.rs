//! The wire as a promise: how few bytes a row costs, and frames that never change.

use alcedo_proto::v1::{self, reply_frame};
use alcedo_testkit::cluster::{ClusterOptions, TestCluster};
use bytes::Bytes;
use prost::Message as _;

use crate::corpus::corpus_file;
use crate::sample::{large, large_cluster, values};
use crate::stream::{Talk, int_key, request};

/// Bytes that a row of seven columns may cost beyond its values.
const ROW_OVERHEAD_BYTES: usize = 64;
/// Before each message: a flag and a length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;

#[tokio::test]
async fn a_row_of_seven_columns_costs_few_bytes_beyond_its_values() {
    let (cluster, lake) = (large_cluster(0), large(7));
    let columns = ["id", "user", "name", "city", "score", "created", "flags"];
    let mut talk = Talk::open(&cluster).await;
    let rows = lake.rows_of_file(0);
    for (id, at) in (1..).zip((0..rows.len()).step_by(rows.len() / 20)) {
        let truth = lake.row(rows[at]).unwrap();
        let asked = request("lake/big.parquet", vec![int_key(truth.id)]);
        let columns = columns.map(str::to_owned).to_vec();
        talk.send(id, v1::LookupRequest { columns, ..asked }).await;
        let frame = talk.reply().await;
        let Some(reply_frame::Body::Answer(answer)) = &frame.body else { panic!("{frame:?}") };
        assert_eq!((answer.files.len(), answer.files[0].row_number.len()), (1, 1));
        // Texts and numbers as they are: 8 bytes for id, score and created, 4 for flags.
        let texts = truth.user.len() + truth.name.as_ref().map_or(0, String::len) + truth.city.len();
        let overhead = frame.encoded_len() + PREFIX_BYTES - (texts + 8 + 8 + 8 + 4);
        assert!(overhead <= ROW_OVERHEAD_BYTES, "{overhead} bytes: {frame:?}");
    }
    assert_eq!(talk.announced, 1, "the file and the schema were announced once");
    assert_eq!(values(&lake.row(rows[0]).unwrap()).len(), 10);
}

/// The corpus file and key of the golden frames.
const GOLDEN_FILE: &str = "pa_one_row.parquet";

async fn golden_frames(cluster: &TestCluster) -> String {
    let mut talk = Talk::open(cluster).await;
    let key = v1::Key { kind: Some(v1::key::Kind::Text("7".to_owned())) };
    let mut asked = request(&format!("lake/{GOLDEN_FILE}"), vec![key, int_key(-1)]);
    asked.key_column = "k".to_owned();
    let mut text = String::new();
    for form in [v1::AnswerForm::CompactRows, v1::AnswerForm::TypedValues] {
        asked.form = form.into();
        let frames = talk.exchange(7, asked.clone()).await;
        for frame in frames {
            let kind = match frame.body.as_ref().expect("a body") {
                reply_frame::Body::Announce(_) => "announce",
                reply_frame::Body::Answer(_) => "answer",
                reply_frame::Body::Part(part) => panic!("{part:?}"),
                reply_frame::Body::Failure(failure) => panic!("{failure:?}"),
                reply_frame::Body::Batch(batch) => panic!("{batch:?}"),
            };
            let hex: String = frame.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
            text += &format!("{kind} {hex}\n");
        }
    }
    text
}

#[tokio::test]
async fn frames_are_what_they_were() {
    let golden = include_str!("../golden/lookup_frames_v1.txt");
    // An answer says where its rows came from; here always from the same place.
    let (objects, tables) =
        (vec![(GOLDEN_FILE.to_owned(), corpus_file(GOLDEN_FILE))], "[cache]\ndecoded = 0\n".to_owned());
    let cluster = TestCluster::start(ClusterOptions { objects, tables, ..ClusterOptions::default() }).unwrap();
    let frames = golden_frames(&cluster).await;
    let wanted: String = golden.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    assert_eq!(frames, wanted, "the wire contract is broken, or the golden file's own lookup changed");
}

#[test]
fn golden_frames_are_read_by_their_documented_layout() {
    let golden = include_str!("../golden/lookup_frames_v1.txt");
    let frame = |line: &str| {
        let (_, hex) = line.split_once(' ').unwrap();
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        v1::ReplyFrame::decode(Bytes::from((0..hex.len()).step_by(2).map(byte).collect::<Vec<u8>>())).unwrap()
    };
    let frames: Vec<_> = golden.lines().filter(|line| !line.starts_with('#')).map(frame).collect();
    let [announce, compact, typed] = frames.as_slice() else { panic!("{} frames", frames.len()) };
    let Some(reply_frame::Body::Announce(announce)) = &announce.body else { panic!("{announce:?}") };
    assert_eq!(announce.files[0].url, format!("s3://lake/{GOLDEN_FILE}"));
    assert_eq!(announce.files[0].size_bytes, corpus_file(GOLDEN_FILE).len() as u64);
    for frame in [compact, typed] {
        let Some(reply_frame::Body::Answer(answer)) = &frame.body else { panic!("{frame:?}") };
        assert_eq!((frame.id, answer.files[0].file), (7, announce.files[0].handle));
        assert_eq!(answer.statuses, [v1::KeyStatus::Found as i32, v1::KeyStatus::NotFound as i32]);
    }
}
