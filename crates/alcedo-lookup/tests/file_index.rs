//! File indexes as bytes: a golden file for each version of the format, hostile bytes, and what they weigh.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alcedo_lookup::answer::{FileAnswer, Form};
use alcedo_lookup::error::Error;
use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::key::Key;
use alcedo_lookup::limits::Limits;
use alcedo_lookup::machine::drive_bytes;
use alcedo_lookup::open::Open;
use alcedo_lookup::search::{Query, Search};
use bytes::Bytes;
use proptest::prelude::*;

/// Several row groups with several data pages each, a page index with bounds of texts and numbers.
const GOLDEN_FILE: &str = "pa_dups_pages_rgs.parquet";
/// A file with bloom filters.
const BLOOM_FILE: &str = "df_truncated_stats_bloom.parquet";

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn corpus_file(name: &str) -> Bytes {
    fs::read(tests().join("corpus/files").join(name)).unwrap().into()
}

fn open(file: &Bytes) -> Result<Arc<FileIndex>, Error> {
    drive_bytes(Open::new(64 << 10, Arc::new(Limits::default())), file)
}

/// Every file of the corpus that can be opened.
fn openable() -> Vec<(String, Bytes, Arc<FileIndex>)> {
    let names = fs::read_dir(tests().join("corpus/files")).unwrap();
    let mut names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let opened = names.into_iter().filter_map(|name| {
        let file = corpus_file(&name);
        open(&file).ok().map(|index| (name, file, index))
    });
    opened.collect()
}

/// Asks for null and a small number in the first column, which makes the index learn page tables of all columns where
/// there are such rows. The answer may be an error: what kind of column it is does not matter here.
fn ask(index: &Arc<FileIndex>, file: &Bytes, column: &str, key: Key) -> Result<FileAnswer, Error> {
    let query = Query {
        key_column: Some(column.to_owned()),
        keys: vec![key, Key::Null],
        columns: None,
        form: Form::CompactRows,
        row_limit: Some(10),
    };
    drive_bytes(Search::new(Arc::clone(index), Arc::new(query), Arc::new(Limits::default()))?, file)
}

fn first_columns(queries: &str) -> Vec<(String, String, String)> {
    let mut found: Vec<(String, String, String)> = Vec::new();
    for line in queries.lines() {
        let query: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let (file, column) = (text(&query["file"]).unwrap(), text(&query["key"]["column"]).unwrap());
        let Some(key) = text(&query["key"]["value"]) else { continue };
        if query["expect"]["status"] == "ok" && !found.iter().any(|known| known.0 == file) {
            found.push((file, column, key));
        }
    }
    found
}

/// Files of the corpus with a lookup that finds something in each, and the index after it.
fn learned() -> Vec<(String, Bytes, Arc<FileIndex>, String, String)> {
    let queries = first_columns(&fs::read_to_string(tests().join("corpus/queries.jsonl")).unwrap());
    let learned = openable().into_iter().filter_map(|(name, file, index)| {
        let (_, column, key) = queries.iter().find(|query| query.0 == name)?;
        let _ = ask(&index, &file, column, Key::Text(key.clone()));
        Some((name, file, index, column.clone(), key.clone()))
    });
    learned.collect()
}

fn golden(name: &str) -> Vec<u8> {
    let golden = fs::read_to_string(tests().join("golden").join(name)).unwrap_or_default();
    let digits = golden.lines().flat_map(|line| line.as_bytes().chunks(2));
    digits.map(|hex| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap()).collect()
}

#[test]
fn version_2_is_written_and_read_as_it_always_was() {
    let learned = learned();
    for (name, golden_name) in [(GOLDEN_FILE, "file_index_v2.hex"), (BLOOM_FILE, "file_index_v2_bloom.hex")] {
        let golden = golden(golden_name);
        let (_, file, index, column, key) = learned.iter().find(|learned| learned.0 == name).unwrap();
        let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let hex = index.encode().chunks(48).map(line).collect::<Vec<_>>().join("\n");
        assert!(golden == index.encode(), "the format changed: give it a new version. {golden_name} is now\n{hex}\n");
        let read = Arc::new(FileIndex::decode(&golden, &Limits::default()).unwrap());
        assert_eq!(read.encode(), golden);
        assert_eq!((read.rows(), read.row_groups(), read.weight()), (index.rows(), index.row_groups(), index.weight()));
        let answers = [index, &read].map(|index| ask(index, file, column, Key::Text(key.clone())).unwrap());
        assert!(!answers[0].row_number.is_empty());
        assert_eq!(answers[0].row_number, answers[1].row_number);
        assert_eq!(answers[0].notes, answers[1].notes);
    }
}

#[test]
fn version_1_is_refused_so_that_the_file_is_read_again() {
    let error = FileIndex::decode(&golden("file_index_v1.hex"), &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("a file index of version 1, version 2 is read"), "{error}");
}

#[test]
fn other_versions_cut_bytes_and_files_beyond_the_limits_are_refused() {
    let index = open(&corpus_file(GOLDEN_FILE)).unwrap();
    let bytes = index.encode();
    let refused = |bytes: &[u8], limits: &Limits| FileIndex::decode(bytes, limits).unwrap_err().to_string();
    let mut newer = bytes.clone();
    newer[0] = 3;
    assert!(refused(&newer, &Limits::default()).contains("version 3"));
    for length in 0..bytes.len() {
        refused(&bytes[..length], &Limits::default());
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(refused(&longer, &Limits::default()).contains("beyond its end"));
    let chunks = Limits { column_chunks: index.row_groups() * index.columns() - 1, ..Limits::default() };
    assert!(refused(&bytes, &chunks).contains("column chunks"));
    let few = Limits { row_groups: index.row_groups() - 1, ..Limits::default() };
    assert!(refused(&bytes, &few).contains("row groups"));
    let narrow = Limits { schema_elements: 1, ..Limits::default() };
    assert!(refused(&bytes, &narrow).contains("schema elements"));
}

#[test]
fn indexes_are_much_smaller_as_bytes_than_in_memory() {
    let learned = learned();
    let (mut weights, mut sizes) = (FileIndex::shared_bytes(), 0);
    for (name, file, index, ..) in learned {
        let size = index.encode().len() as u64;
        println!("{name}: file {}, index in memory {}, as bytes {size}", file.len(), index.weight());
        (weights, sizes) = (weights + index.weight(), sizes + size);
    }
    println!("all: in memory {weights}, as bytes {sizes}");
    assert!(sizes * 2 < weights, "{sizes} of {weights}");
}

/// Some bytes of an encoded index replaced, and a piece of it removed or doubled.
fn damaged(bytes: &[u8], flips: &[(prop::sample::Index, u8)], cut: Option<(prop::sample::Index, u8)>) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, value) in flips {
        let at = at.index(bytes.len());
        bytes[at] = *value;
    }
    if let Some((at, length)) = cut {
        let at = at.index(bytes.len());
        let end = (at + usize::from(length)).min(bytes.len());
        if length % 2 == 0 {
            bytes.drain(at..end);
        } else {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
    }
    bytes
}

#[test]
fn damaged_bytes_are_an_error_or_an_index_that_can_be_asked() {
    let files = learned();
    let damage = (
        any::<prop::sample::Index>(),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    );
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(20_000));
    let decoded = std::cell::Cell::new(0);
    let run = runner.run(&damage, |(which, flips, cut)| {
        let (_, file, index, column, key) = &files[which.index(files.len())];
        if let Ok(index) = FileIndex::decode(&damaged(&index.encode(), &flips, cut), &Limits::default()) {
            decoded.set(decoded.get() + 1);
            let index = Arc::new(index);
            // Whatever comes of it: a wrong index may find nothing or fail, and it must not panic.
            let _ = ask(&index, file, column, Key::Text(key.clone()));
            FileIndex::decode(&index.encode(), &Limits::default()).unwrap();
        }
        Ok(())
    });
    run.unwrap();
    assert!(decoded.get() > 1_000, "only {} were read at all", decoded.get());
}
