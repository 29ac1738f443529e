//! What a search holds at once is bounded: it goes through a column chunk of any size in windows, and what a first
//! lookup learned lets the second one read single data pages.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alcedo_lookup::answer::{Body, FileAnswer, Form, KeyStatus};
use alcedo_lookup::error::Error;
use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::key::Key;
use alcedo_lookup::learn::{LEARNING_STAGE, Learn};
use alcedo_lookup::limits::Limits;
use alcedo_lookup::machine::{Fed, Machine, Piece, Step, drive_bytes};
use alcedo_lookup::open::Open;
use alcedo_lookup::rows::decode_rows;
use alcedo_lookup::search::{Query, Search};
use alcedo_lookup::value::Value;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

const ROWS: i64 = 20_000;
const ROWS_OF_A_PAGE: usize = 200;

/// Keys 0, 2, 4, ... and a text per row; one row group, `ROWS / ROWS_OF_A_PAGE` data pages per column.
fn file(properties: impl FnOnce(parquet::file::properties::WriterPropertiesBuilder) -> WriterProperties) -> Bytes {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..ROWS).map(|row| row * 2)));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..ROWS).map(|row| format!("wing {row}"))));
    let batch = RecordBatch::try_from_iter([("k", keys), ("t", texts)]).unwrap();
    let builder = WriterProperties::builder()
        .set_data_page_row_count_limit(ROWS_OF_A_PAGE)
        .set_write_batch_size(ROWS_OF_A_PAGE)
        .set_dictionary_enabled(false);
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties(builder))).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap().into()
}

fn without_index() -> Bytes {
    file(|builder| builder.set_statistics_enabled(EnabledStatistics::None).set_offset_index_disabled(true).build())
}

fn open(file: &Bytes) -> Arc<FileIndex> {
    drive_bytes(Open::new(64 << 10, Arc::new(Limits::default())), file).unwrap()
}

/// What each round of a search wanted.
type Rounds = Vec<(&'static str, Vec<Range<u64>>)>;

fn ask(
    index: &Arc<FileIndex>,
    file: &Bytes,
    (keys, row_limit): (&[Key], Option<u32>),
    limits: &Limits,
) -> (Result<FileAnswer, Error>, Rounds) {
    let query = Query {
        key_column: Some("k".to_owned()),
        keys: keys.to_vec(),
        columns: None,
        form: Form::CompactRows,
        row_limit,
    };
    let mut search = Search::new(index.clone(), Arc::new(query), Arc::new(limits.clone())).unwrap();
    let mut rounds = Vec::new();
    loop {
        match search.step() {
            Err(error) => return (Err(error), rounds),
            Ok(Step::Done(answer)) => return (Ok(answer), rounds),
            Ok(Step::Need(need)) => {
                let mut ranges = Vec::new();
                for piece in &need.pieces {
                    let Piece::Range(range) = piece else { panic!("a search knows the file") };
                    ranges.push(range.clone());
                    let bytes = file.slice(range.start as usize..range.end as usize);
                    search.feed(piece, Fed { start: range.start, file_size: file.len() as u64, bytes });
                }
                rounds.push((search.stage(), ranges));
            }
        }
    }
}

fn texts(answer: &FileAnswer) -> Vec<String> {
    let Body::Compact(bytes) = &answer.body else { panic!("not asked for") };
    let rows = decode_rows(&answer.schema, bytes).unwrap();
    let text = |row: Vec<Value>| match &row[1] {
        Value::String(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    rows.into_iter().map(text).collect()
}

fn bytes_of(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

#[test]
fn no_round_wants_more_than_a_window_and_a_data_page() {
    let file = without_index();
    let window = 8 << 10;
    let limits = Limits { scan_bytes: window, speculate_bytes: 0, ..Limits::default() };
    let (answer, rounds) = ask(&open(&file), &file, (&[Key::Int(20_000)], None), &limits);
    assert_eq!(texts(&answer.unwrap()), ["wing 10000"]);
    let most = rounds.iter().map(|(_, ranges)| bytes_of(ranges)).max().unwrap();
    let page = 4 << 10;
    assert!(most <= window + page, "a round of {most} bytes");
    assert!(rounds.len() > 20, "{} rounds for {} bytes", rounds.len(), file.len());
}

#[test]
fn the_second_lookup_of_a_file_without_indexes_reads_one_data_page_per_column() {
    let file = without_index();
    let index = open(&file);
    let first = ask(&index, &file, (&[Key::Int(20_000)], None), &Limits::default());
    assert_eq!(texts(&first.0.unwrap()), ["wing 10000"]);
    let index = Arc::new(FileIndex::decode(&index.encode(), &Limits::default()).unwrap());
    let (answer, rounds) = ask(&index, &file, (&[Key::Int(20_002)], None), &Limits::default());
    assert_eq!(texts(&answer.unwrap()), ["wing 10001"]);
    let read: Vec<usize> = rounds.iter().map(|(_, ranges)| ranges.len()).collect();
    assert_eq!(read, [1, 1], "one key data page, then one of the texts: {rounds:?}");
    // What is between two keys of a page is not there; what is between two pages is seen without reading.
    let (answer, rounds) = ask(&index, &file, (&[Key::Int(20_001)], None), &Limits::default());
    assert_eq!((answer.unwrap().statuses, rounds.len()), (vec![KeyStatus::NotFound], 1));
    let between = Key::Int(ROWS_OF_A_PAGE as i64 * 2 - 1);
    let (answer, rounds) = ask(&index, &file, (&[between], None), &Limits::default());
    assert_eq!((answer.unwrap().statuses, rounds.len()), (vec![KeyStatus::NotFound], 0));
}

#[test]
fn a_search_that_has_enough_rows_stops_reading() {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..ROWS).map(|row| row % 7)));
    let batch = RecordBatch::try_from_iter([("k", keys.clone()), ("t", keys)]).unwrap();
    let properties = WriterProperties::builder()
        .set_data_page_row_count_limit(ROWS_OF_A_PAGE)
        .set_write_batch_size(ROWS_OF_A_PAGE)
        .set_dictionary_enabled(false)
        .set_max_row_group_row_count(Some(2_000))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    let file: Bytes = writer.into_inner().unwrap().into();
    let limits = Limits { scan_bytes: 4 << 10, speculate_bytes: 0, ..Limits::default() };
    let (all, rounds) = ask(&open(&file), &file, (&[Key::Int(3)], None), &limits);
    let all_rows: Vec<u64> = (0..ROWS as u64).filter(|row| row % 7 == 3).collect();
    assert_eq!(all.unwrap().row_number, all_rows);
    let (some, few_rounds) = ask(&open(&file), &file, (&[Key::Int(3)], Some(5)), &limits);
    let some = some.unwrap();
    assert_eq!((&some.row_number[..], &some.statuses[..]), (&all_rows[..5], &[KeyStatus::Truncated][..]));
    assert!(few_rounds.len() * 4 < rounds.len(), "{} rounds, {} without a limit", few_rounds.len(), rounds.len());
}

#[test]
fn more_rows_than_an_answer_may_have_are_an_error_before_they_are_held() {
    let file = file(|builder| builder.build());
    let limits = Limits { answer_rows: 99, ..Limits::default() };
    let keys: Vec<Key> = (0..100).map(|key| Key::Int(key * 2)).collect();
    let (answer, _) = ask(&open(&file), &file, (&keys, None), &limits);
    assert!(matches!(answer, Err(Error::AnswerTooLarge(_))), "{answer:?}");
    let (answer, _) = ask(&open(&file), &file, (&keys[..99], None), &limits);
    assert_eq!(answer.unwrap().row_number.len(), 99);
}

#[test]
fn a_bloom_filter_spares_an_absent_key_the_whole_column() {
    let filtered = |builder: parquet::file::properties::WriterPropertiesBuilder, with_index: bool| {
        let statistics = if with_index { EnabledStatistics::Page } else { EnabledStatistics::None };
        builder
            .set_bloom_filter_enabled(true)
            .set_statistics_enabled(statistics)
            .set_offset_index_disabled(!with_index)
            .set_compression(parquet::basic::Compression::UNCOMPRESSED)
            .build()
    };
    for with_index in [false, true] {
        let file = shuffled(|builder| filtered(builder, with_index));
        let index = open(&file);
        let absent: Vec<Key> = (0..20).map(|key| Key::Int(ROWS + key * 2 + 1)).collect();
        let mut asked_of_filter = 0;
        for key in &absent {
            let (answer, rounds) = ask(&index, &file, (std::slice::from_ref(key), None), &Limits::default());
            assert_eq!(answer.unwrap().statuses, [KeyStatus::NotFound]);
            let bytes: u64 = rounds.iter().map(|(_, ranges)| bytes_of(ranges)).sum();
            asked_of_filter += u32::from(bytes < 10_000);
        }
        // A filter errs now and then, and the first lookup with an index reads that.
        assert!(asked_of_filter >= 15, "{asked_of_filter} of 20 ended at the filter");
        for row in [0, 7, ROWS - 1] {
            let (answer, _) = ask(&index, &file, (&[Key::Int(shuffle(row) * 2)], None), &Limits::default());
            assert_eq!(answer.unwrap().row_number, [row as u64]);
        }
    }
}

/// A permutation of the rows.
fn shuffle(row: i64) -> i64 {
    row * 7_919 % ROWS
}

/// As `file`, in no order.
fn shuffled(properties: impl FnOnce(parquet::file::properties::WriterPropertiesBuilder) -> WriterProperties) -> Bytes {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..ROWS).map(|row| shuffle(row) * 2)));
    let batch = RecordBatch::try_from_iter([("k", keys)]).unwrap();
    let builder = WriterProperties::builder().set_data_page_row_count_limit(ROWS_OF_A_PAGE);
    let builder = builder.set_write_batch_size(ROWS_OF_A_PAGE).set_dictionary_enabled(false);
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties(builder))).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap().into()
}

#[test]
fn what_a_search_would_learn_is_learned_apart_and_then_not_again() {
    let (file, index) = (without_index(), open(&without_index()));
    let limits = Arc::new(Limits { scan_bytes: 8 << 10, ..Limits::default() });
    let (_, rounds) = ask(&open(&file), &file, (&[Key::Int(4)], None), &limits);
    let wanted = rounds.first().filter(|(stage, _)| *stage == LEARNING_STAGE).map(|(_, ranges)| ranges.clone());
    let names: Vec<_> = index.unlearned(&wanted.expect("nothing is known of the key's chunk")).into_iter().collect();
    let [Some(key_chunk)] = names[..] else { panic!("{names:?}") };
    assert!(!index.is_learned(key_chunk));
    let bytes = index.chunk_bytes(&[key_chunk]);
    assert!(bytes > 2 * limits.scan_bytes && bytes < file.len() as u64, "several windows: {bytes}");

    let walked = Arc::new(AtomicU64::new(0));
    let mut learn = Learn::new(index.clone(), &[key_chunk], limits.clone(), walked.clone()).unwrap();
    let mut progress = vec![0];
    while let Step::Need(need) = learn.step().unwrap() {
        progress.push(walked.load(Ordering::Relaxed));
        assert!(need.along.is_empty());
        for piece in &need.pieces {
            let Piece::Range(range) = piece else { panic!("the file is known") };
            assert!(range.end - range.start <= limits.scan_bytes);
            let bytes = file.slice(range.start as usize..range.end as usize);
            learn.feed(piece, Fed { start: range.start, file_size: file.len() as u64, bytes });
        }
    }
    assert!(progress.len() > 3 && progress.is_sorted(), "{progress:?}");
    assert_eq!(walked.load(Ordering::Relaxed), bytes, "each byte was gone through once");
    assert!(index.is_learned(key_chunk));
    assert_eq!(index.unlearned(&[Range { start: 4, end: 5 }]), [None], "nothing is left to learn there");
    let (answer, rounds) = ask(&index, &file, (&[Key::Int(4)], None), &limits);
    assert_eq!(answer.unwrap().statuses, [KeyStatus::Found]);
    assert_eq!(rounds[0].0, "key pages", "{rounds:?}");
}

#[test]
fn a_search_goes_on_with_what_was_learned_while_it_waited() {
    let (file, limits) = (without_index(), Arc::new(Limits::default()));
    let index = open(&file);
    let query = Query {
        key_column: Some("k".to_owned()),
        keys: vec![Key::Int(4)],
        columns: None,
        form: Form::CompactRows,
        row_limit: None,
    };
    let mut search = Search::new(index.clone(), Arc::new(query), limits.clone()).unwrap();
    let mut learned = 0;
    loop {
        let Step::Need(need) = search.step().unwrap() else { break };
        let range = |piece: &Piece| match piece {
            Piece::Range(range) => range.clone(),
            Piece::Tail(_) => panic!("a search knows the file"),
        };
        let ranges: Vec<_> = need.pieces.iter().map(range).collect();
        for (piece, (range, name)) in need.pieces.iter().zip(ranges.iter().zip(index.unlearned(&ranges))) {
            let mut bytes = file.slice(range.start as usize..range.end as usize);
            if let Some(name) = name {
                drive_bytes(Learn::new(index.clone(), &[name], limits.clone(), Arc::default()).unwrap(), &file)
                    .unwrap();
                (bytes, learned) = (Bytes::new(), learned + 1);
            }
            search.feed(piece, Fed { start: range.start, file_size: file.len() as u64, bytes });
        }
    }
    assert_eq!(learned, 2, "the key's chunk, and that of the text");
}
