//! Data pages in place of rows, for who is short of time: when they are sent, and that they hold the same rows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use alcedo_lookup::answer::{Body, FileAnswer, Form};
use alcedo_lookup::decoded::DecodedPages;
use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::key::Key;
use alcedo_lookup::limits::Limits;
use alcedo_lookup::machine::drive_bytes;
use alcedo_lookup::open::Open;
use alcedo_lookup::pages_answer::{KeptPages, decode_pages_with};
use alcedo_lookup::prepared::Prepared;
use alcedo_lookup::search::{Query, Search};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

const ROWS: i64 = 20_000;
const MIB: u64 = 1 << 20;

/// `id` counts up, `text` is long enough that a column has many data pages.
fn file(codec: Compression, is_indexed: bool) -> Bytes {
    written(codec, (is_indexed, false), |id| format!("row {id} {}", id % 977))
}

fn written(codec: Compression, (is_indexed, has_dictionary): (bool, bool), text: impl Fn(i64) -> String) -> Bytes {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS));
    let text: ArrayRef = Arc::new(StringArray::from_iter_values((0..ROWS).map(text)));
    let batch = RecordBatch::try_from_iter([("id", ids), ("text", text)]).unwrap();
    let properties = WriterProperties::builder()
        .set_compression(codec)
        .set_dictionary_enabled(has_dictionary)
        .set_data_page_row_count_limit(1_000)
        .set_write_batch_size(500)
        .set_offset_index_disabled(!is_indexed)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap().into()
}

struct Asking {
    file: Bytes,
    index: Arc<FileIndex>,
    limits: Arc<Limits>,
    decoded: Arc<DecodedPages>,
}

impl Asking {
    fn new(codec: Compression, decoded_bytes: u64) -> Self {
        Self::of(file(codec, true), decoded_bytes)
    }

    fn of(file: Bytes, decoded_bytes: u64) -> Self {
        let limits = Arc::new(Limits::default());
        let index = drive_bytes(Open::new(64 << 10, Arc::clone(&limits)), &file).unwrap();
        Self { file, index, limits, decoded: Arc::new(DecodedPages::new(decoded_bytes)) }
    }

    fn ask(&self, keys: &[i64], form: Form, most_sent: u64) -> FileAnswer {
        let keys: Vec<Key> = keys.iter().copied().map(Key::Int).collect();
        let columns = Some(vec!["text".to_owned(), "id".to_owned()]);
        let key_column = Some("id".to_owned());
        let query = Query { key_column, keys, columns, form, row_limit: Some(1) };
        let prepared = Prepared::new(Arc::clone(&self.index), &query, Arc::clone(&self.limits)).unwrap();
        let prepared = Arc::new(prepared.with_decoded(Arc::clone(&self.decoded)));
        let search = Search::of(prepared, &query.keys).unwrap().noted().or_pages(most_sent);
        drive_bytes(search, &self.file).unwrap()
    }

    /// The answer's rows as a client decodes them.
    fn rows(&self, answer: &FileAnswer, kept: &KeptPages) -> Bytes {
        match &answer.body {
            Body::Compact(rows) => rows.clone(),
            Body::Pages(pages) => {
                decode_pages_with(pages, &answer.schema, &answer.row_number, &self.limits, Some(kept)).unwrap()
            }
            Body::ArrowIpc(_) => panic!("not asked for"),
        }
    }
}

fn are_pages(answer: &FileAnswer) -> bool {
    matches!(answer.body, Body::Pages(_))
}

#[test]
fn pages_are_sent_once_it_is_known_which_they_are() {
    let asking = Asking::of(file(Compression::SNAPPY, false), 0);
    // Where the data pages of the answer's columns are is learned with the first one.
    for are_sent in [false, true, true] {
        assert_eq!(are_pages(&asking.ask(&[5], Form::CompactRows, MIB)), are_sent);
    }
}

#[test]
fn pages_hold_the_rows() {
    let asking = Asking::new(Compression::SNAPPY, 0);
    let cache = Arc::new(DecodedPages::new(MIB));
    let kept = KeptPages::new(Arc::clone(&cache), "s3://a", "1");
    for keys in [&[5][..], &[19_999, 4, 4, 77_777, 1_500], &[-1], &[5], &[5]] {
        let rows = asking.ask(keys, Form::CompactRows, 0);
        let pages = asking.ask(keys, Form::CompactRows, MIB);
        assert_eq!((are_pages(&rows), are_pages(&pages)), (false, keys != [-1]));
        assert_eq!(asking.rows(&pages, &kept), asking.rows(&rows, &kept), "{keys:?}");
        assert_eq!((&pages.row_number, &pages.key_index), (&rows.row_number, &rows.key_index));
        assert_eq!((&pages.statuses, &pages.schema), (&rows.statuses, &rows.schema));
        assert_eq!(pages.notes.iter().any(|note| note == "data pages in place of rows"), keys != [-1]);
    }
    // The first page of both columns was asked for again and again, and is decoded no more.
    let misses = cache.misses();
    let hot = asking.ask(&[7], Form::CompactRows, MIB);
    asking.rows(&hot, &kept);
    assert_eq!((cache.misses(), cache.pages()), (misses, 2));
}

#[test]
fn a_page_that_comes_back_is_decoded_here() {
    let asking = Asking::new(Compression::SNAPPY, 64 * MIB);
    asking.ask(&[5, 19_000], Form::CompactRows, 0);
    assert!(are_pages(&asking.ask(&[7_000], Form::CompactRows, MIB)));
    assert_eq!(asking.decoded.pages(), 0);
    // It was asked for before, so it is kept, and answers from then on.
    for _ in 0..3 {
        assert!(!are_pages(&asking.ask(&[7_001], Form::CompactRows, MIB)));
        assert!(asking.decoded.pages() >= 2);
    }
    assert!(are_pages(&asking.ask(&[9_000], Form::CompactRows, MIB)));
    // Decoded keys serve whatever the answer's form is.
    let hits = asking.decoded.hits();
    assert!(are_pages(&asking.ask(&[7_002], Form::Pages, 0)));
    assert!(asking.decoded.hits() > hits);
}

#[test]
fn pages_that_cost_more_than_rows_are_not_sent() {
    for (codec, most_sent, are_sent) in
        [(Compression::SNAPPY, 100, false), (Compression::UNCOMPRESSED, MIB, false), (Compression::SNAPPY, MIB, true)]
    {
        let asking = Asking::new(codec, 0);
        asking.ask(&[5], Form::CompactRows, 0);
        assert_eq!(are_pages(&asking.ask(&[5], Form::CompactRows, most_sent)), are_sent, "{codec} {most_sent}");
        assert!(matches!(asking.ask(&[5], Form::ArrowIpc, most_sent).body, Body::ArrowIpc(_)));
    }
}

#[test]
fn what_is_kept_belongs_to_one_version_of_one_file() {
    let cache = Arc::new(DecodedPages::new(MIB));
    for (url, version, text) in [("s3://a", "1", "one"), ("s3://b", "1", "another"), ("s3://a", "2", "a newer")] {
        let asking = Asking::of(written(Compression::SNAPPY, (true, false), |id| format!("{text} row {id}")), 0);
        let kept = KeptPages::new(Arc::clone(&cache), url, version);
        let hits = cache.hits();
        for _ in 0..4 {
            let rows = asking.ask(&[5], Form::CompactRows, 0);
            let pages = asking.ask(&[5], Form::CompactRows, MIB);
            assert!(are_pages(&pages));
            assert_eq!(asking.rows(&pages, &kept), asking.rows(&rows, &kept), "{url} {version}");
        }
        assert!(cache.hits() > hits);
    }
}

#[test]
fn the_bound_holds_for_data_pages_and_dictionaries_together() {
    let long = |id: i64| format!("{:0>900}", id % 97 * 7_919);
    let asking = Asking::of(written(Compression::SNAPPY, (true, true), long), 0);
    let Body::Pages(pages) = asking.ask(&[5, 9_000], Form::CompactRows, MIB).body else { panic!("rows") };
    let chunks = || pages.columns.iter().flat_map(|column| &column.chunks);
    let dictionaries: usize = chunks().map(|chunk| chunk.dictionary.len()).sum();
    let data_pages: usize = chunks().flat_map(|chunk| &chunk.data_pages).map(|page| page.page.len()).sum();
    assert!(dictionaries > 1_000, "{dictionaries}");
    let bytes = (dictionaries + data_pages) as u64;
    for (most_sent, are_sent) in [(bytes - 1, false), (bytes, true)] {
        assert_eq!(are_pages(&asking.ask(&[5, 9_000], Form::CompactRows, most_sent)), are_sent, "{most_sent}");
    }
}
