//! Data pages that are inflated in part answer as those that are inflated whole.
//!
//! Snappy's are, as far as a lookup needs; zstd's never are, and uncompressed ones have nothing to inflate. The same
//! rows in each must give the same answers, whatever is learned of a page by the lookup before.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use alcedo_lookup::answer::{Body, Form};
use alcedo_lookup::error::Error;
use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::key::Key;
use alcedo_lookup::limits::Limits;
use alcedo_lookup::machine::drive_bytes;
use alcedo_lookup::open::Open;
use alcedo_lookup::search::{Query, Search};
use arrow_array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};

const ROWS: i64 = 6_000;
/// The column of keys that ascend, of such that do not, of numbers and of texts.
const KEYS: [&str; 4] = ["sorted", "mixed", "text", "mixed_text"];

/// A number that looks like chance.
fn mixed(row: i64) -> i64 {
    (row * 2_654_435_761 + 97) % 1_000_003
}

fn columns() -> Vec<(&'static str, ArrayRef)> {
    let rows = 0..ROWS;
    let text = |row: i64| format!("{} {row:05}", ["amber", "birch", "copper"][(mixed(row) % 3) as usize]);
    // Each third row has none.
    let some = |row: i64| (row % 3 > 0).then(|| text(row));
    vec![
        ("sorted", Arc::new(Int64Array::from_iter_values(rows.clone().map(|row| row / 2 * 3))) as ArrayRef),
        ("mixed", Arc::new(Int32Array::from_iter_values(rows.clone().map(|row| mixed(row) as i32)))),
        ("text", Arc::new(StringArray::from_iter_values(rows.clone().map(|row| format!("key-{row:06}"))))),
        ("mixed_text", Arc::new(StringArray::from_iter_values(rows.clone().map(|row| format!("m{}", mixed(row)))))),
        ("note", Arc::new(StringArray::from_iter(rows.clone().map(some)))),
        ("score", Arc::new(Float64Array::from_iter(rows.map(|row| (row % 7 > 0).then_some(mixed(row) as f64))))),
    ]
}

fn key_of(column: &str, row: i64) -> Key {
    match column {
        "sorted" => Key::Int(row / 2 * 3),
        "mixed" => Key::Int(mixed(row)),
        "text" => Key::Text(format!("key-{row:06}")),
        _ => Key::Text(format!("m{}", mixed(row))),
    }
}

fn file(compression: Compression, version: WriterVersion, has_dictionaries: bool) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns()).unwrap();
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_writer_version(version)
        .set_dictionary_enabled(has_dictionaries)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_data_page_row_count_limit(2_000)
        .set_write_batch_size(100);
    // Version 2 writes what is not in a dictionary as differences.
    let plain = |properties: parquet::file::properties::WriterPropertiesBuilder| {
        properties.set_encoding(parquet::basic::Encoding::PLAIN)
    };
    let properties = if has_dictionaries { properties } else { plain(properties) };
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.build())).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn open(file: &Bytes) -> Arc<FileIndex> {
    drive_bytes(Open::new(64 << 10, Arc::default()), file).unwrap()
}

/// Row numbers, and the rows of all columns.
fn ask(file: &Bytes, index: &Arc<FileIndex>, column: &str, keys: Vec<Key>) -> Result<(Vec<u64>, Bytes), Error> {
    let key_column = Some(column.to_owned());
    let query = Query { key_column, keys, columns: None, form: Form::CompactRows, row_limit: None };
    let search = Search::new(Arc::clone(index), Arc::new(query), Arc::new(Limits::default()))?;
    let answer = drive_bytes(search, file)?;
    match answer.body {
        Body::Compact(rows) => Ok((answer.row_number, rows)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_same_rows_give_the_same_answers_in_every_codec() {
    for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
        for has_dictionaries in [false, true] {
            let codecs = [Compression::SNAPPY, Compression::ZSTD(ZstdLevel::default()), Compression::UNCOMPRESSED];
            let files = codecs.map(|codec| Bytes::from(file(codec, version, has_dictionaries)));
            let indexes = files.each_ref().map(open);
            for column in KEYS {
                // The same data pages again and again, so that what is known of them is used.
                for row in (0..ROWS).step_by(487).chain([1, 1_999, 2_000, ROWS - 1]) {
                    for keys in [vec![row], vec![ROWS + row], vec![row, ROWS - 1 - row, row / 3, 2 * ROWS]] {
                        let keys: Vec<Key> = keys.into_iter().map(|row| key_of(column, row)).collect();
                        let answers = [0, 1, 2].map(|i| ask(&files[i], &indexes[i], column, keys.clone()).unwrap());
                        assert!(answers[0] == answers[1] && answers[1] == answers[2], "{column} {keys:?} {version:?}");
                        let is_there = keys[0] == key_of(column, row);
                        assert!(!is_there || answers[0].0.contains(&(row as u64)), "{column} {keys:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn damage_is_seen_by_whom_it_matters_to() {
    let whole = Bytes::from(file(Compression::SNAPPY, WriterVersion::PARQUET_1_0, false));
    let index = open(&whole);
    let (early, late) = (key_of("text", 5), key_of("text", 1_990));
    let ask = |file: &Bytes, key: &Key| ask(file, &index, "text", vec![key.clone()]);
    let wanted = ask(&whole, &early).unwrap();
    assert_eq!(wanted.0, [5]);
    // The last bytes of the first page of each chunk: what is in front of them is whole.
    let read = parquet::file::metadata::ParquetMetaDataReader::new()
        .with_page_index_policy(parquet::file::metadata::PageIndexPolicy::Required);
    let metadata = read.parse_and_finish(&whole).unwrap();
    let mut damaged = whole.to_vec();
    for column in &metadata.offset_index().unwrap()[0] {
        let page = &column.page_locations()[0];
        let end = (page.offset + i64::from(page.compressed_page_size)) as usize;
        // A copy from before the page's start.
        damaged[end - 30..end].fill(0xff);
    }
    let damaged = Bytes::from(damaged);
    // Whoever looked through the key's page saw that it ascends: then little behind the key is inflated.
    assert_eq!(ask(&damaged, &early).unwrap(), wanted);
    assert!(matches!(ask(&damaged, &late), Err(Error::Corrupt(_))));
    let unlearned = open(&whole);
    let query = Query {
        key_column: Some("text".to_owned()),
        keys: vec![early],
        columns: None,
        form: Form::CompactRows,
        row_limit: None,
    };
    let search = Search::new(unlearned, Arc::new(query), Arc::new(Limits::default())).unwrap();
    assert!(matches!(drive_bytes(search, &damaged), Err(Error::Corrupt(_))));
}
