//! Answers of many rows and of large values: complete, in order, and in nobody's way.
//!
//! Knows files of two columns in which nearly every row has one key. Frames are counted, never timed.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use alcedo_client::{Answer, Form, Kind, Lookup, Reason, Value};
use alcedo_proto::v1::lookup_service_client::LookupServiceClient;
use alcedo_proto::v1::{self, lookup_frame, reply_frame};
use alcedo_testkit::cluster::{ClusterOptions, TestCluster};
use arrow_array::cast::AsArray as _;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use prost::Message as _;
use tonic::Code;
use xxhash_rust::xxh3::xxh3_64;

use crate::sample::refused;
use crate::stream::{Talk, channel, int_key, request};

/// The key of nearly all rows, and that of the others.
const KEY: i64 = 7;
const OTHER: i64 = 1;
/// Of ten rows, this one has the other key, so that row numbers have gaps.
const OTHER_AT: u64 = 3;
/// Rows of files with 100,000 and 1,000,000 rows of the key.
const HUNDRED_THOUSAND: u64 = 111_111;
const MILLION: u64 = 1_111_111;
/// Longer than any answer takes, on any machine.
const DEADLINE: Duration = Duration::from_secs(100);
/// What a frame may have: a part, and its ids and lengths.
const FRAME_BYTES: usize = (256 << 10) + 256;
/// Frames that may be on their way while nobody reads: what HTTP/2's windows and the worker's queue hold, amply.
const ON_THEIR_WAY: usize = 16;

fn parquet_file(columns: [(&str, ArrayRef); 2]) -> Bytes {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap().into()
}

/// `k` and `v`, where `v` is the row's number times 3.
fn many_rows(rows: u64) -> Bytes {
    let keys: Int64Array = (0..rows).map(|row| if row % 10 == OTHER_AT { OTHER } else { KEY }).collect();
    let values: Int64Array = (0..rows).map(|row| row as i64 * 3).collect();
    parquet_file([("k", Arc::new(keys)), ("v", Arc::new(values))])
}

/// Forty rows with values of 1 MiB each.
fn large_values() -> Bytes {
    let keys = Int64Array::from(vec![KEY; 40]);
    parquet_file([("k", Arc::new(keys)), ("v", Arc::new(StringArray::from_iter_values((0..40).map(large_value))))])
}

fn large_value(row: u64) -> String {
    format!("{row:016x}").repeat((1 << 20) / 16)
}

fn cluster() -> TestCluster {
    static OBJECTS: OnceLock<Vec<(String, Bytes)>> = OnceLock::new();
    let objects = OBJECTS.get_or_init(|| {
        let file = |name: &str, bytes| (format!("{name}.parquet"), bytes);
        vec![
            file("some", many_rows(HUNDRED_THOUSAND)),
            file("many", many_rows(MILLION)),
            file("too_many", many_rows(MILLION + 1)),
            file("wide", large_values()),
        ]
    });
    let tables = "[lookup]\nmax_timeout = \"110s\"\n[connections]\nidle_timeout = \"120s\"\n".to_owned();
    TestCluster::start(ClusterOptions { objects: objects.clone(), tables, ..ClusterOptions::default() }).unwrap()
}

fn ask(cluster: &TestCluster, file: &str, form: Form) -> Lookup {
    let lookup = cluster.client().lookup(format!("lake/{file}.parquet")).key_column("k").key(KEY);
    lookup.form(form).deadline(DEADLINE)
}

/// The numbers of the rows that have the key.
fn wanted(rows: u64) -> impl Iterator<Item = u64> {
    (0..rows).filter(|row| row % 10 != OTHER_AT)
}

fn row_numbers(answer: &Answer) -> Vec<u64> {
    answer.rows().map(|(_, row)| row.row_number).collect()
}

/// The keys and values of an answer in Arrow form, batch after batch.
fn arrow_columns(answer: &Answer) -> (Vec<i64>, Vec<i64>) {
    let stream = answer.files[0].arrow.clone().expect("an Arrow stream");
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for batch in arrow_ipc::reader::StreamReader::try_new(std::io::Cursor::new(stream), None).unwrap() {
        let batch = batch.unwrap();
        keys.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
        values.extend_from_slice(batch.column(1).as_primitive::<Int64Type>().values());
    }
    (keys, values)
}

/// All forms of an answer to a file of so many rows.
async fn all_rows_arrive(cluster: &TestCluster, file: &str, rows: u64) {
    let numbers: Vec<u64> = wanted(rows).collect();
    for form in [Form::CompactRows, Form::Pages] {
        let answer = ask(cluster, file, form).await.unwrap();
        assert_eq!(answer.files.len(), 1, "{form:?}");
        assert!(row_numbers(&answer) == numbers, "{form:?}: {} rows", answer.rows().count());
        let row =
            |(_, row): (_, &alcedo_client::Row)| row.values == [Value::Int(KEY), Value::Int(row.row_number as i64 * 3)];
        assert!(answer.rows().all(row), "{form:?}");
    }
    let answer = ask(cluster, file, Form::ArrowIpc).await.unwrap();
    assert!(row_numbers(&answer) == numbers, "{} rows", answer.rows().count());
    let (keys, values) = arrow_columns(&answer);
    assert!(keys.iter().all(|key| *key == KEY));
    assert!(values.iter().copied().eq(numbers.iter().map(|number| *number as i64 * 3)));
}

#[tokio::test]
async fn a_hundred_thousand_rows_of_one_key_arrive_in_order_in_every_form() {
    all_rows_arrive(&cluster(), "some", HUNDRED_THOUSAND).await;
}

#[tokio::test]
async fn a_million_rows_of_one_key_arrive_in_order_in_every_form() {
    all_rows_arrive(&cluster(), "many", MILLION).await;
}

#[tokio::test]
async fn one_row_more_than_the_bound_is_refused_by_its_number_and_a_limit_helps() {
    let cluster = cluster();
    let error = refused(ask(&cluster, "too_many", Form::CompactRows).await);
    assert_eq!((error.kind(), error.reason), (Kind::Invalid, Some(Reason::AnswerTooLarge)));
    assert!(error.message.contains("more than 1000000 rows") && error.message.contains("limit"), "{error}");
    let some = ask(&cluster, "too_many", Form::CompactRows).row_limit(1_000).await.unwrap();
    assert!(row_numbers(&some).into_iter().eq(wanted(MILLION).take(1_000)));
}

#[tokio::test]
async fn values_of_a_megabyte_each_arrive_whole_in_every_form() {
    let cluster = cluster();
    for form in [Form::CompactRows, Form::Pages] {
        let answer = ask(&cluster, "wide", form).await.unwrap();
        assert!(row_numbers(&answer).into_iter().eq(0..40), "{form:?}");
        for (_, row) in answer.rows() {
            assert!(row.values == [Value::Int(KEY), Value::String(large_value(row.row_number))], "{form:?}");
        }
    }
    let answer = ask(&cluster, "wide", Form::ArrowIpc).await.unwrap();
    let stream = std::io::Cursor::new(answer.files[0].arrow.clone().expect("an Arrow stream"));
    let batches = arrow_ipc::reader::StreamReader::try_new(stream, None).unwrap().map(Result::unwrap);
    let texts = |batch: RecordBatch| {
        batch.column(1).as_string::<i32>().iter().map(|text| text.unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(batches.flat_map(texts).eq((0..40).map(large_value)));
}

#[tokio::test]
async fn the_command_prints_all_rows_in_order() {
    let cluster = cluster();
    for (file, rows, format) in [("many", MILLION, "csv"), ("some", HUNDRED_THOUSAND, "jsonl")] {
        let path = format!("lake/{file}.parquet");
        let said = cluster.run(&["get", &path, "7", "-k", "k", "-o", format, "-q", "--timeout", "50s"]).await.unwrap();
        assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
        let mut lines = said.stdout.lines();
        let line = |row: u64| match format {
            "csv" => format!("{KEY},{}", row * 3),
            _ => format!("{{\"k\":{KEY},\"v\":{}}}", row * 3),
        };
        assert!(format != "csv" || lines.next() == Some("k,v"));
        assert!(lines.eq(wanted(rows).map(line)), "{format}: {} lines", said.stdout.lines().count());
    }
    let said = cluster.run(&["get", "lake/too_many.parquet", "7", "-k", "k", "--timeout", "50s"]).await.unwrap();
    assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{}", said.stderr);
    assert!(said.stderr.contains("more than 1000000 rows"), "{}", said.stderr);
}

fn large_request(file: &str, form: v1::AnswerForm) -> v1::LookupRequest {
    let asked = request(&format!("lake/{file}.parquet"), vec![int_key(KEY)]);
    v1::LookupRequest { key_column: "k".to_owned(), form: form.into(), accept_parts: true, ..asked }
}

fn other_request() -> v1::LookupRequest {
    let asked = request("lake/some.parquet", vec![int_key(OTHER)]);
    v1::LookupRequest { key_column: "k".to_owned(), row_limit: 1, ..asked }
}

/// Takes frames up to the first part of request `id`.
async fn first_part(talk: &mut Talk, id: u64) {
    loop {
        let frame = talk.frame().await;
        match frame.body {
            Some(reply_frame::Body::Part(part)) => {
                assert_eq!((frame.id, part.number), (id, 0));
                return;
            }
            Some(reply_frame::Body::Announce(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_large_answer_comes_in_parts_of_whole_rows_that_are_small() {
    let cluster = cluster();
    let mut talk = Talk::open(&cluster).await;
    for (id, file, form) in [
        (1, "many", v1::AnswerForm::CompactRows),
        (2, "wide", v1::AnswerForm::CompactRows),
        (3, "some", v1::AnswerForm::TypedValues),
        (4, "many", v1::AnswerForm::ArrowIpc),
        (5, "many", v1::AnswerForm::Pages),
    ] {
        talk.send(id, large_request(file, form)).await;
        let (mut number, mut rows) = (0, 0);
        let (parts, last_rows) = loop {
            let frame = talk.reply().await;
            assert!(frame.encoded_len() <= FRAME_BYTES, "{file} {form:?}: {}", frame.encoded_len());
            match frame.body {
                Some(reply_frame::Body::Part(part)) => {
                    assert_eq!((frame.id, part.number), (id, number));
                    number += 1;
                    rows += part.files.iter().map(|file| file.row_number.len()).sum::<usize>();
                    if file == "many" && form == v1::AnswerForm::CompactRows {
                        let [file] = part.files.as_slice() else { panic!("{} files", part.files.len()) };
                        // Each row is a length, a byte of nulls and two int64.
                        assert_eq!(file.compact.len(), 18 * file.row_number.len());
                    }
                }
                Some(reply_frame::Body::Answer(answer)) => {
                    break (answer.parts, answer.files.iter().map(|file| file.row_number.len()).sum::<usize>());
                }
                other => panic!("{other:?}"),
            }
        };
        let wanted = match file {
            "many" => 1_000_000,
            "some" => 100_000,
            _ => 40,
        };
        assert_eq!((parts, rows + last_rows), (number, wanted), "{file} {form:?}");
        assert!(number > 5, "{file} {form:?}: {number} parts");
    }
}

#[tokio::test]
async fn small_lookups_are_answered_while_a_large_answer_is_on_its_way() {
    let cluster = cluster();
    let mut talk = Talk::open(&cluster).await;
    talk.exchange(1, other_request()).await;
    talk.send(2, large_request("wide", v1::AnswerForm::CompactRows)).await;
    first_part(&mut talk, 2).await;
    let mut parts = 1;
    for id in 3..13 {
        let answered = cluster.client().status().await.unwrap()[0].1.as_ref().unwrap().lookups_total;
        talk.send(id, other_request()).await;
        // Nobody reads meanwhile, so the large answer does not move on.
        while cluster.client().status().await.unwrap()[0].1.as_ref().unwrap().lookups_total == answered {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let before = parts;
        loop {
            let frame = talk.reply().await;
            match frame.body {
                Some(reply_frame::Body::Part(_)) => parts += 1,
                Some(reply_frame::Body::Answer(_)) => {
                    assert_eq!(frame.id, id, "the large answer went before");
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(parts - before <= ON_THEIR_WAY, "{} parts went before", parts - before);
    }
}

#[tokio::test]
async fn a_large_answer_that_is_cancelled_stops_and_its_id_is_free_again() {
    let cluster = cluster();
    let mut talk = Talk::open(&cluster).await;
    talk.exchange(1, other_request()).await;
    talk.send(2, large_request("wide", v1::AnswerForm::CompactRows)).await;
    first_part(&mut talk, 2).await;
    // The id is taken until the last frame.
    talk.send(2, other_request()).await;
    let (mut parts, mut refused) = (0, false);
    talk.send_body(2, Some(lookup_frame::Body::Cancel(v1::Cancel {}))).await;
    loop {
        let frame = talk.reply().await;
        match frame.body {
            Some(reply_frame::Body::Part(_)) => parts += 1,
            Some(reply_frame::Body::Failure(failure)) if failure.code == Code::InvalidArgument as i32 => {
                assert_eq!(failure.message, "the id 2 is in use by an unanswered request of this stream");
                refused = true;
            }
            Some(reply_frame::Body::Failure(failure)) => {
                assert_eq!(Code::from(failure.code), Code::Cancelled);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(refused && parts <= 2 * ON_THEIR_WAY, "{parts} parts came after the cancel");
    let frames = talk.exchange(2, other_request()).await;
    assert!(matches!(frames.last().unwrap().body, Some(reply_frame::Body::Answer(_))), "{frames:?}");
}

#[tokio::test]
async fn who_does_not_know_parts_gets_the_answer_in_one_frame() {
    let cluster = cluster();
    let mut talk = Talk::open(&cluster).await;
    let asked = v1::LookupRequest { accept_parts: false, ..large_request("some", v1::AnswerForm::CompactRows) };
    let frames = talk.exchange(1, asked).await;
    let Some(reply_frame::Body::Answer(answer)) = &frames.last().unwrap().body else { panic!("no answer") };
    assert_eq!((answer.parts, answer.files.len(), answer.files[0].row_number.len()), (0, 1, 100_000));
    assert_eq!(answer.files[0].compact.len(), 1_800_000);
}

#[tokio::test]
async fn a_unary_answer_beyond_what_grpc_clients_take_names_the_way_out() {
    let cluster = cluster();
    let mut unary = LookupServiceClient::new(channel(&cluster));
    for form in [v1::AnswerForm::Unspecified, v1::AnswerForm::ArrowIpc, v1::AnswerForm::CompactRows] {
        let status = unary.lookup(large_request("many", form)).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{form:?}: {status:?}");
        for words in ["more than 4194304 bytes", "LookupStream", "row_limit", "lake/many.parquet"] {
            assert!(status.message().contains(words), "{form:?}: {}", status.message());
        }
        let limited = v1::LookupRequest { row_limit: 10_000, ..large_request("many", form) };
        let answer = unary.lookup(limited).await.unwrap().into_inner().answer.unwrap();
        assert_eq!((answer.files[0].row_number.len(), answer.parts), (10_000, 0));
    }
}

/// The frames of the answer of 100,000 rows, each as its digest, and two small ones as they are.
fn frame_line(name: &str, frame: &v1::ReplyFrame) -> String {
    let bytes = frame.encode_to_vec();
    if bytes.len() < 200 {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        return format!("{name} {hex}\n");
    }
    format!("{name} {} bytes, xxh3-64 {:016x}\n", bytes.len(), xxh3_64(&bytes))
}

#[tokio::test]
async fn parts_are_what_they_were() {
    let cluster = cluster();
    let mut talk = Talk::open(&cluster).await;
    // Asked before, so that the answer does not tell what it cost at the origin.
    talk.exchange(1, other_request()).await;
    talk.send(7, v1::LookupRequest { columns: vec!["v".into()], ..large_request("some", v1::AnswerForm::CompactRows) })
        .await;
    let mut frames = String::new();
    loop {
        let frame = talk.reply().await;
        match &frame.body {
            Some(reply_frame::Body::Part(_)) => frames += &frame_line("part", &frame),
            Some(reply_frame::Body::Answer(answer)) => {
                let files = answer.files.clone();
                let body = reply_frame::Body::Answer(v1::Answer { files, parts: answer.parts, ..Default::default() });
                frames += &frame_line("end", &v1::ReplyFrame { id: frame.id, body: Some(body) });
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let rows = v1::FileRows {
        file: 1,
        schema: 2,
        key_index: vec![0, 3],
        row_number: vec![4, 300],
        compact: Bytes::from_static(b"\x02\0\x01\x02\0\x01"),
        pages_piece: Bytes::from_static(b"piece"),
        ..v1::FileRows::default()
    };
    let part = v1::AnswerPart { number: 5, files: vec![rows], rows_total: 6, bytes_total: 7 };
    frames += &frame_line("part", &v1::ReplyFrame { id: 9, body: Some(reply_frame::Body::Part(part)) });
    let golden = include_str!("../golden/answer_parts_v1.txt");
    let wanted: String = golden.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    assert_eq!(frames, wanted, "the wire contract is broken, or the golden file's own lookup changed");
}
