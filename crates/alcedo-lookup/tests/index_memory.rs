//! What file indexes take of a process, beside what they say they take: memory is given out by what they say.
//!
//! One test, so that nothing else of its process grows meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::fs;
use std::sync::Arc;

use alcedo_lookup::answer::Form;
use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::key::Key;
use alcedo_lookup::limits::Limits;
use alcedo_lookup::machine::drive_bytes;
use alcedo_lookup::open::Open;
use alcedo_lookup::search::{Query, Search};
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

/// Indexes that are held at once: one takes some KiB, and a process grows by pages.
const INDEXES: usize = 8_000;
const ROWS_OF_A_PAGE: usize = 100;
/// The name of the key column in the file, which is as long as the names that take its place.
const KEY: &str = "k-------";

/// A file of six columns and one row group, whose columns have so many data pages each and a page index.
fn file(pages: usize) -> Vec<u8> {
    let rows = 0..(pages * ROWS_OF_A_PAGE) as i64;
    let texts = || Arc::new(StringArray::from_iter_values(rows.clone().map(|row| format!("text-{row}"))));
    let columns: [(&str, ArrayRef); 6] = [
        (KEY, Arc::new(Int64Array::from_iter_values(rows.clone()))),
        ("user", texts()),
        ("note", texts()),
        ("score", Arc::new(Float64Array::from_iter_values(rows.clone().map(|row| row as f64)))),
        ("count", Arc::new(Int64Array::from_iter_values(rows.clone()))),
        ("created", Arc::new(Int64Array::from_iter_values(rows))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder()
        .set_data_page_row_count_limit(ROWS_OF_A_PAGE)
        .set_write_batch_size(ROWS_OF_A_PAGE)
        .set_dictionary_enabled(false)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

/// The file with another name of its key column.
fn named(file: &[u8], name: &str) -> Bytes {
    let (mut renamed, mut at) = (file.to_vec(), 0);
    while let Some(found) = renamed[at..].windows(KEY.len()).position(|window| window == KEY.as_bytes()) {
        renamed[at + found..at + found + KEY.len()].copy_from_slice(name.as_bytes());
        at += found + KEY.len();
    }
    assert!(at > 0, "the file does not name its column");
    renamed.into()
}

/// An index as it is after a lookup by the key column alone.
fn asked(file: &Bytes, key: &str) -> Arc<FileIndex> {
    let limits = Arc::new(Limits::default());
    let index = drive_bytes(Open::new(64 << 10, Arc::clone(&limits)), file).unwrap();
    let query = Query {
        key_column: Some(key.to_owned()),
        keys: vec![Key::Int(150)],
        columns: Some(vec![key.to_owned()]),
        form: Form::CompactRows,
        row_limit: None,
    };
    let answer = drive_bytes(Search::new(Arc::clone(&index), Arc::new(query), limits).unwrap(), file).unwrap();
    assert_eq!(answer.row_number, [150]);
    index
}

/// Memory of the process that is in no file. The sum over its mappings, where the kernel tells it: the count that it
/// keeps is late by some hundred KiB for each processor.
fn resident() -> f64 {
    let (text, name) = match fs::read_to_string("/proc/self/smaps_rollup") {
        Ok(text) => (text, "Anonymous:"),
        Err(_) => (fs::read_to_string("/proc/self/status").unwrap(), "VmRSS:"),
    };
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
}

/// Bytes for each of so many indexes: what they say, with their part of shared schemas, and what the process grew. They
/// join those that are held, because memory that is free again would not grow.
fn weigh(
    what: &str,
    indexes: usize,
    all: &mut Vec<Arc<FileIndex>>,
    make: impl Fn(usize) -> Arc<FileIndex>,
) -> (f64, f64) {
    // Whatever is made once; and memory that was given back before is in use again.
    all.reserve(2 * indexes);
    all.extend((0..indexes / 2).map(&make));
    let (before, shared_before) = (resident(), FileIndex::shared_bytes());
    let first = all.len();
    all.extend((indexes / 2..indexes + indexes / 2).map(make));
    let said = all[first..].iter().map(|index| index.weight()).sum::<u64>() + FileIndex::shared_bytes() - shared_before;
    let (said, grown) = (said as f64 / indexes as f64, (resident() - before) / indexes as f64);
    println!("{what}: {said:.0} bytes by their own count, {grown:.0} by the process's growth");
    (said, grown)
}

#[test]
fn an_index_weighs_what_it_takes() {
    let (mut wrong, mut all) = (Vec::new(), Vec::new());
    let mut compare = |what: &str, (said, grown): (f64, f64)| {
        if (said - grown).abs() > grown / 10.0 {
            wrong.push(format!("{what}: {said:.0} bytes are said, {grown:.0} are taken"));
        }
        said
    };
    for (pages, indexes) in [(12, INDEXES), (150, INDEXES / 4)] {
        let (small, what) = (file(pages), format!("{pages} data pages of the key"));
        let same = named(&small, "the-same");
        let said = compare(&what, weigh(&what, indexes, &mut all, |_| asked(&same, "the-same")));
        assert!(said <= (2_048 + 64 * pages) as f64, "{what}: {said:.0} bytes");
    }
    // As many as are shared, and each is another one.
    let (small, what) = (file(2), "a schema of its own each");
    let name = |i: usize| format!("k{i:07}");
    compare(what, weigh(what, INDEXES / 4, &mut all, |i| asked(&named(&small, &name(i)), &name(i))));
    assert!(wrong.is_empty(), "{wrong:#?}");
}
