//! How many dependent trips to the store a cold lookup makes, and how many bytes it reads, as the store saw it.
//!
//! The store holds each answer back, so that requests of one round arrive before any of them is answered: which request
//! waited for which is then seen in the order of arrivals and answers.

use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use alcedo_client::{Answer, KeyStatus, Value};
use alcedo_testkit::cluster::{ClusterOptions, StorePace, TestCluster};
use alcedo_testkit::s3::{Operation, RequestRecord, S3Options, trips};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};

/// How long the store holds answers back: far longer than the requests of one round take to be sent.
const HELD_BACK: Duration = Duration::from_millis(400);
/// The first read of a file before anything is learned.
const TAIL: u64 = 64 << 10;
/// The unit of the page store: what is needed is counted in these.
const BLOCK: u64 = 4 << 10;

/// Keys 0, 3, 6, ... and two texts per row that no codec shortens.
pub(crate) fn batch(rows: i64, text_bytes: usize) -> RecordBatch {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut text = |_: i64| {
        let mut text = String::with_capacity(text_bytes + 16);
        while text.len() < text_bytes {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text += &format!("{state:016x}");
        }
        text.truncate(text_bytes);
        text
    };
    let texts = |text: &mut dyn FnMut(i64) -> String| Arc::new(StringArray::from_iter_values((0..rows).map(text)));
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(|row| row * 3)));
    let (a, b): (ArrayRef, ArrayRef) = (texts(&mut text), texts(&mut text));
    RecordBatch::try_from_iter([("id", keys), ("a", a), ("b", b)]).unwrap()
}

/// One row group without compression, with data pages of so many rows.
pub(crate) fn written(
    batch: &RecordBatch,
    page_rows: usize,
    more: impl FnOnce(WriterPropertiesBuilder) -> WriterPropertiesBuilder,
) -> Bytes {
    let properties = WriterProperties::builder()
        .set_compression(Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .set_data_page_row_count_limit(page_rows)
        .set_write_batch_size(page_rows);
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(more(properties).build())).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap().into()
}

/// 40 data pages of about 52 KB per text; all indexes are in the file's last 64 KiB.
fn near() -> Bytes {
    static FILE: OnceLock<Bytes> = OnceLock::new();
    FILE.get_or_init(|| written(&batch(20_000, 100), 500, |properties| properties)).clone()
}

/// 2,000 data pages of 10 rows, whose bounds take far more than 64 KiB before the footer.
fn far() -> Bytes {
    static FILE: OnceLock<Bytes> = OnceLock::new();
    FILE.get_or_init(|| written(&batch(20_000, 64), 10, |properties| properties)).clone()
}

pub(crate) fn metadata(file: &Bytes) -> ParquetMetaData {
    ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional).parse_and_finish(file).unwrap()
}

/// A cluster whose store holds answers back, and to which trips cost so much.
fn cluster(objects: Vec<(String, Bytes)>, pace: StorePace) -> TestCluster {
    let store = S3Options { latency: HELD_BACK, ..S3Options::default() };
    TestCluster::start(ClusterOptions { objects, store, pace, ..ClusterOptions::default() }).unwrap()
}

/// A store whose trips are worth so many bytes.
fn worth(bytes: u64) -> StorePace {
    StorePace { trip: Duration::from_millis(100), bytes_per_second: bytes * 10 }
}

fn one(name: &str, file: Bytes) -> Vec<(String, Bytes)> {
    vec![(name.to_owned(), file)]
}

/// Asks for the text `a` of these rows; what the store saw.
async fn ask(cluster: &TestCluster, path: &str, rows: &[i64]) -> (Answer, Vec<RequestRecord>) {
    cluster.store().reset_counters();
    let keys = rows.iter().map(|row| row * 3);
    let answer = cluster.client().lookup(path).key_column("id").keys(keys).select(["a"]).await.unwrap();
    assert_eq!(answer.statuses, vec![KeyStatus::Found; rows.len()]);
    (answer, cluster.store().requests())
}

fn texts(answer: &Answer) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    answer.rows().map(|(_, row)| text(&row.values[0])).collect()
}

fn truth(file: &RecordBatch, rows: &[i64]) -> Vec<String> {
    let column = file.column_by_name("a").unwrap().as_any().downcast_ref::<StringArray>().unwrap();
    rows.iter().map(|row| column.value(*row as usize).to_owned()).collect()
}

fn bytes(requests: &[RequestRecord]) -> u64 {
    requests.iter().map(|request| request.bytes).sum()
}

/// What a lookup of one row needs beside the footer: indexes and data pages of the key and of `a`.
fn needed(file: &Bytes, row: i64) -> (Vec<Range<u64>>, Vec<Range<u64>>) {
    let metadata = metadata(file);
    let group = metadata.row_group(0);
    let place = |offset: Option<i64>, length: Option<i32>| {
        offset.unwrap() as u64..(offset.unwrap() + i64::from(length.unwrap())) as u64
    };
    let (key, text) = (group.column(0), group.column(1));
    let indexes = vec![
        place(key.column_index_offset(), key.column_index_length()),
        place(key.offset_index_offset(), key.offset_index_length()),
        place(text.offset_index_offset(), text.offset_index_length()),
    ];
    let page = |column: usize| {
        let pages = metadata.offset_index().unwrap()[0][column].page_locations();
        let page = pages.iter().rfind(|page| page.first_row_index <= row).unwrap();
        page.offset as u64..(page.offset + i64::from(page.compressed_page_size)) as u64
    };
    (indexes, vec![page(0), page(1)])
}

/// Bytes of the blocks that these ranges touch, each once.
fn in_blocks(ranges: &[Range<u64>]) -> u64 {
    let mut blocks: Vec<u64> = ranges.iter().flat_map(|range| range.start / BLOCK..range.end.div_ceil(BLOCK)).collect();
    blocks.sort_unstable();
    blocks.dedup();
    blocks.len() as u64 * BLOCK
}

#[tokio::test]
async fn an_indexed_file_costs_two_trips_where_bytes_cost_less_than_a_third() {
    let (file, row) = (near(), 12_345);
    let data = needed(&file, row).1;
    let cluster = cluster(one("near.parquet", file), worth(1 << 20));
    let (answer, seen) = ask(&cluster, "lake/near.parquet", &[row]).await;
    assert_eq!(texts(&answer), truth(&batch(20_000, 100), &[row]));
    assert_eq!((trips(&seen), seen.len()), (2, 3), "the tail, then the key's data page and the text's: {seen:?}");
    assert_eq!(bytes(&seen), TAIL + in_blocks(&data));
    let (_, again) = ask(&cluster, "lake/near.parquet", &[row + 1]).await;
    assert!(again.is_empty(), "{again:?}");
    // Everything but the data pages is known now.
    let (_, other) = ask(&cluster, "lake/near.parquet", &[100]).await;
    assert_eq!(trips(&other), 1, "{other:?}");
}

#[tokio::test]
async fn where_bytes_cost_more_it_is_three_trips_and_nothing_that_is_not_needed() {
    let (file, row) = (near(), 12_345);
    let (indexes, data) = needed(&file, row);
    // The text's data page takes some 52 KB, so it is worth its own trip.
    let cluster = cluster(one("near.parquet", file), worth(20_000));
    let (_, seen) = ask(&cluster, "lake/near.parquet", &[row]).await;
    assert_eq!((trips(&seen), seen.len()), (3, 3), "{seen:?}");
    let needed = in_blocks(&[indexes, data].concat());
    assert!(bytes(&seen) * 4 <= needed * 5 + TAIL * 4, "{} bytes for {needed}", bytes(&seen));
}

#[tokio::test]
async fn a_tail_that_is_too_short_is_longer_for_the_next_file() {
    let row = 7_777;
    let (indexes, data) = needed(&far(), row);
    let size = far().len() as u64;
    let before_end = size - indexes.iter().map(|range| range.start).min().unwrap();
    assert!(before_end > 2 * TAIL, "the indexes begin {before_end} bytes before the end");
    let objects = (0..3).map(|number| (format!("far-{number}.parquet"), far())).collect();
    let cluster = cluster(objects, StorePace::default());
    let (_, first) = ask(&cluster, "lake/far-0.parquet", &[row]).await;
    assert_eq!(trips(&first), 3, "the tail, the indexes, the data pages: {first:?}");
    let all_needed = in_blocks(&[indexes, data.clone()].concat());
    assert!(bytes(&first) * 4 <= all_needed * 5 + TAIL * 4, "{} bytes for {all_needed}", bytes(&first));
    for path in ["lake/far-1.parquet", "lake/far-2.parquet"] {
        let (answer, seen) = ask(&cluster, path, &[row]).await;
        assert_eq!(texts(&answer), truth(&batch(20_000, 64), &[row]));
        assert_eq!(trips(&seen), 2, "{seen:?}");
        let tail = seen[0].bytes;
        assert!((before_end..before_end + before_end / 2).contains(&tail), "{tail} for {before_end}");
        assert_eq!(bytes(&seen), tail + in_blocks(&data));
    }
}

#[tokio::test]
async fn indexes_that_are_not_worth_reading_with_the_tail_cost_one_trip_more() {
    let row = 7_777;
    let (indexes, data) = needed(&far(), row);
    let objects = (0..3).map(|number| (format!("far-{number}.parquet"), far())).collect();
    // All that is not needed in front of the footer takes longer than a trip, and the data pages do not.
    let cluster = cluster(objects, worth(60_000));
    for number in 0..3 {
        let (_, seen) = ask(&cluster, &format!("lake/far-{number}.parquet"), &[row]).await;
        assert_eq!(trips(&seen), 3, "{seen:?}");
        let needed = in_blocks(&[&indexes[..], &data].concat());
        assert!(bytes(&seen) * 4 <= needed * 5 + TAIL * 4, "{} bytes for {needed}", bytes(&seen));
    }
}

#[tokio::test]
async fn a_gap_is_fetched_along_only_where_it_costs_less_than_a_request() {
    // Data pages 4 and 6 of the text, with one of 52 KB between them.
    let rows = [2_100, 3_100];
    let gets = async |pace| {
        let cluster = cluster(one("near.parquet", near()), pace);
        let (_, warm_up) = ask(&cluster, "lake/near.parquet", &[12_345]).await;
        assert!(!warm_up.is_empty());
        let (answer, seen) = ask(&cluster, "lake/near.parquet", &rows).await;
        assert_eq!(texts(&answer), truth(&batch(20_000, 100), &rows));
        assert_eq!(trips(&seen), 1, "{seen:?}");
        let of_text = seen.iter().filter(|request| request.bytes > 40_000);
        of_text.map(|request| request.bytes).collect::<Vec<_>>()
    };
    let joined = gets(worth(1 << 20)).await;
    assert!(matches!(joined[..], [bytes] if bytes > 150_000), "{joined:?}");
    // The same trip is worth all data pages, and an eighth of it is not worth the gap.
    let apart = gets(worth(300_000)).await;
    assert!(matches!(apart[..], [one, other] if one < 70_000 && other < 70_000), "{apart:?}");
}

#[tokio::test]
async fn a_file_without_a_page_index_costs_three_trips_for_whole_chunks_once() {
    let file = written(&batch(20_000, 100), 500, |properties| {
        properties.set_offset_index_disabled(true).set_statistics_enabled(EnabledStatistics::Chunk)
    });
    let metadata = metadata(&file);
    let chunk = |column: usize| metadata.row_group(0).column(column).byte_range();
    let cluster = cluster(one("plain.parquet", file), worth(1 << 20));
    let (answer, seen) = ask(&cluster, "lake/plain.parquet", &[12_345]).await;
    assert_eq!(texts(&answer), truth(&batch(20_000, 100), &[12_345]));
    assert_eq!((trips(&seen), seen.len()), (3, 3), "{seen:?}");
    let whole = |(start, length): (u64, u64)| start..start + length;
    assert_eq!(bytes(&seen), TAIL + in_blocks(&[whole(chunk(0)), whole(chunk(1))]));
    let (_, again) = ask(&cluster, "lake/plain.parquet", &[5, 19_999]).await;
    assert!(again.is_empty(), "both chunks are here, and it is known where their data pages are: {again:?}");
}

#[tokio::test]
async fn a_prefix_costs_as_many_trips_as_one_of_its_files_and_the_listing() {
    let (rows, row) = (3_000, 1_234);
    let batch = batch(rows, 100);
    let file = written(&batch, 500, |properties| properties);
    assert!(file.len() as u64 > 4 * TAIL);
    let objects = (0..20).map(|number| (format!("twenty/part-{number}.parquet"), file.clone())).collect();
    let cluster = cluster(objects, worth(1 << 20));
    cluster.store().reset_counters();
    let answer = cluster.client().lookup("lake/twenty/").key_column("id").key(row * 3).select(["a"]).await.unwrap();
    let seen = cluster.store().requests();
    assert_eq!((answer.files_total, answer.files_asked, answer.rows().count()), (20, 20, 20));
    assert!(texts(&answer).iter().all(|text| [text.clone()] == truth(&batch, &[row])[..]));
    let listings = seen.iter().filter(|request| request.operation == Operation::List).count();
    assert_eq!((listings, trips(&seen), seen.len()), (1, 3, 1 + 20 * 3), "{seen:?}");
}
