//! Lookup-ready rows give what a search gives: the files of the corpus, whatever the windows, whatever the key column;
//! and what cannot be stored so that this holds is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "ready/blocks.rs"]
mod blocks;
#[path = "ready/same_rows.rs"]
mod same_rows;

use std::path::Path;
use std::sync::Arc;

use alcedo_lookup::answer::Form;
use alcedo_lookup::error::Error;
use alcedo_lookup::limits::Limits;
use alcedo_lookup::prepared::Prepared;
use alcedo_lookup::ready::{ReadyBuild, ReadyRows, object_name, worth};
use alcedo_lookup::search::Query;
use bytes::Bytes;
use parquet::data_type::Int32Type;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use same_rows::*;

fn corpus() -> Vec<(String, Bytes)> {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/files");
    let mut files: Vec<_> = std::fs::read_dir(files).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), Bytes::from(std::fs::read(path).unwrap()))).collect()
}

fn corpus_file(name: &str) -> Bytes {
    corpus().into_iter().find(|(other, _)| other == name).unwrap().1
}

/// The key column of a file of the corpus.
fn key_of(name: &str) -> &'static str {
    match name {
        "duck_interval.parquet" => "h",
        "pa_nested_key_in_struct.parquet" => "s.id",
        _ => "k",
    }
}

/// Files that have INT96 timestamps, and such that a search of all their rows fails on, too.
const REFUSED: [&str; 14] = [
    "bad_chunk_size_huge.parquet",
    "bad_codec_lzo.parquet",
    "bad_csv.parquet",
    "bad_cut_half_with_tail.parquet",
    "bad_data_page_offset_negative.parquet",
    "bad_flip_key_pages_snappy.parquet",
    "bad_footer_len_huge.parquet",
    "bad_magic_only.parquet",
    "bad_page_uncompressed_size_2g.parquet",
    "bad_schema_depth_20000.parquet",
    "enc_footer.parquet",
    "fp_int96_nostats.parquet",
    "pa_key_int96.parquet",
    "spark_desc.parquet",
];

#[test]
fn every_file_of_the_corpus_gives_what_a_search_gives() {
    let (mut refused, mut rows) = (Vec::new(), 0);
    for (name, file) in corpus() {
        let key = key_of(&name);
        match check(&file, (key, None), &[None, Some(&[key])], &Limits::default()) {
            Ok(compared) => rows += compared,
            Err(error) => refused.push(format!("{name}: {error}")),
        }
    }
    let names: Vec<&str> = refused.iter().map(|error| error.split(':').next().unwrap()).collect();
    assert_eq!(names, REFUSED, "{refused:#?}");
    assert!(rows > 50_000, "{rows} rows");
}

#[test]
fn the_same_bytes_are_built_whatever_the_windows() {
    for (name, file) in corpus() {
        let (Ok(index), key) = (open(&file), key_of(&name)) else { continue };
        let Ok(object) = build(&index, &file, (key, None), &Limits::default()) else { continue };
        // Windows that hold one data page of each column, and an index that knows nothing yet.
        let tiny = Limits { scan_bytes: 1, speculate_bytes: 0, ..Limits::default() };
        let again = build(&open(&file).unwrap(), &file, (key, None), &tiny);
        assert!(again.as_ref() == Ok(&object), "{name}");
    }
}

#[test]
fn every_column_that_can_be_one_is_a_key() {
    let names = [
        "pa_zstd_v2.parquet",
        "polars_small_pages.parquet",
        "spark_small_pages_micros.parquet",
        "pa_nested_key_in_struct.parquet",
        "spark_legacy_nested.parquet",
    ];
    let mut keys = 0;
    for name in names {
        let (file, other) = (corpus_file(name), key_of(name));
        let index = open(&file).unwrap();
        let all = prepared(&index, other, None);
        for column in &all.schema().columns {
            let (key, stored, asked) = (&column.name, [other], [other, &column.name, other]);
            match check(&file, (key, Some(&stored)), &[Some(&asked)], &Limits::default()) {
                Ok(_) => keys += 1,
                Err(Error::Unsupported(why)) => assert!(why.contains("list or map") || why.contains("struct"), "{why}"),
                Err(error) => panic!("{name}, {key}: {error}"),
            }
        }
    }
    assert!(keys > 30, "{keys} key columns");
}

#[test]
fn columns_are_answered_in_any_order_and_number() {
    let file = corpus_file("polars_small_pages.parquet");
    let all = ["k", "name", "d", "l", "st", "dec", "flag"];
    let projections: [&[&str]; 7] = [
        &["flag", "dec", "st", "l", "d", "name", "k"],
        &["l"],
        &["st", "st"],
        &["k", "flag"],
        &["dec", "k", "dec", "l", "name", "d", "flag", "st", "l", "k"],
        &["k", "name", "d", "l", "st", "dec", "flag"],
        &["d", "name"],
    ];
    let projections: Vec<Option<&[&str]>> = projections.into_iter().map(Some).collect();
    assert!(check(&file, ("k", Some(&all)), &projections, &Limits::default()).unwrap() > 1_000);
    // The set's order means nothing, and the key need not be named.
    let index = open(&file).unwrap();
    let built = |columns: &[&str]| build(&index, &file, ("k", Some(columns)), &Limits::default()).unwrap();
    let mut others = all[1..].to_vec();
    let forward = built(&others);
    others.reverse();
    assert!(built(&others) == forward && built(&all) == forward);
}

#[test]
fn only_questions_that_the_rows_hold_all_of_are_served() {
    let file = corpus_file("pa_nested_key_in_struct.parquet");
    let index = open(&file).unwrap();
    let names: Vec<String> = prepared(&index, "s.id", None).schema().columns.iter().map(|c| c.name.clone()).collect();
    assert!(names.contains(&"s".to_owned()) && names.len() > 2, "{names:?}");
    let object = build(&index, &file, ("s.id", Some(&["s"])), &Limits::default()).unwrap();
    let rows = ReadyRows::read(object.head, &index, &Limits::default()).unwrap();
    let stored: Vec<&str> = rows.schema().columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(stored, ["s.id", "s"]);
    let serves = |key: &str, columns: Option<&[&str]>| rows.serves(&prepared(&index, key, columns)).is_some();
    assert!(serves("s.id", Some(&["s", "s.id"])));
    assert!(!serves("s.id", None), "it holds not all columns");
    let other = names.iter().find(|name| *name != "s").unwrap();
    assert!(!serves("s.id", Some(&[other])));
    assert!(!serves(other, Some(&["s"])), "another key column");
    for form in [Form::ArrowIpc, Form::Pages] {
        let (key_column, columns) = (Some("s.id".to_owned()), Some(vec!["s".to_owned()]));
        let query = Query { key_column, keys: Vec::new(), columns, form, row_limit: None };
        let prepared = Prepared::new(index.clone(), &query, Arc::new(Limits::default())).unwrap();
        assert!(rows.serves(&prepared).is_none(), "{form:?}");
    }
}

#[test]
fn a_head_of_another_file_or_of_other_columns_is_refused() {
    let (one, two) = (corpus_file("pa_zstd_v2.parquet"), corpus_file("polars_small_pages.parquet"));
    let index = open(&one).unwrap();
    let head = build(&index, &one, ("k", None), &Limits::default()).unwrap().head;
    assert!(ReadyRows::read(head.clone(), &index, &Limits::default()).is_ok());
    let other = ReadyRows::read(head, &open(&two).unwrap(), &Limits::default());
    assert!(matches!(other, Err(Error::Corrupt(_))), "{other:?}");
}

fn plan(file: &Bytes, key: &str, columns: &[&str]) -> Result<ReadyBuild, Error> {
    let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
    ReadyBuild::new(open(file).unwrap(), Some(key), Some(&columns), Arc::new(Limits::default()))
}

/// A file of this schema; with values, which are those of its one column.
fn numbers(message: &str, values: &[i32]) -> Bytes {
    let schema = Arc::new(parse_message_type(message).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
    if !values.is_empty() {
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int32Type>().write_batch(values, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.into_inner().unwrap().into()
}

#[test]
fn int96_is_refused_wherever_it_is() {
    let file = corpus_file("fp_int96_nostats.parquet");
    for (key, columns) in [("ts", &["k"][..]), ("k", &["ts"])] {
        let error = plan(&file, key, columns).unwrap_err();
        assert!(matches!(&error, Error::Unsupported(why) if why.contains("INT96")), "{error}");
    }
    assert!(plan(&file, "k", &["k"]).is_ok(), "other columns of the file are stored");
    let list = "optional group l (LIST) { repeated group list { optional int96 e; } }";
    let nested = numbers(&format!("message schema {{ required int32 k; {list} }}"), &[]);
    assert!(plan(&nested, "k", &["l"]).is_err() && plan(&nested, "k", &["k"]).is_ok());
}

#[test]
fn keys_beyond_their_type_are_refused_because_rows_would_hold_others() {
    let of = |ty: &str, values: [i32; 3]| {
        let file = numbers(&format!("message schema {{ required int32 v ({ty}); }}"), &values);
        check(&file, ("v", None), &[None], &Limits::default())
    };
    for (ty, fits, beyond) in [
        ("INT_8", [-128, 127, 0], 128),
        ("INT_16", [-32_768, 32_767, 0], -32_769),
        ("UINT_8", [0, 255, 1], 256),
        ("UINT_16", [0, 65_535, 1], -1),
    ] {
        assert!(matches!(of(ty, fits), Ok(3)), "{ty}");
        let error = of(ty, [fits[0], beyond, fits[1]]).unwrap_err();
        assert!(matches!(&error, Error::Unsupported(why) if why.contains("beyond its type")), "{ty}: {error}");
    }
}

#[test]
fn what_a_build_costs_is_told_before() {
    for name in ["pa_zstd_v2.parquet", "polars_small_pages.parquet", "pa_none_v1.parquet"] {
        let file = corpus_file(name);
        let index = open(&file).unwrap();
        let worth = worth(&index, Some("k"), None).unwrap();
        let object = build(&index, &file, ("k", None), &Limits::default()).unwrap();
        let bytes: usize = object.parts.iter().map(Bytes::len).sum();
        assert!(worth.read_bytes < file.len() as u64 && worth.read_bytes > file.len() as u64 / 2, "{name}: {worth:?}");
        let bytes = bytes as u64;
        assert!(worth.object_bytes > bytes / 4 && worth.object_bytes < bytes * 4, "{name}: {worth:?}, {bytes}");
    }
    let empty = corpus_file("pa_empty_no_rg.parquet");
    assert_eq!(worth(&open(&empty).unwrap(), Some("k"), None).unwrap().object_bytes, 0);
}

#[test]
fn an_object_is_named_after_its_columns() {
    let file = corpus_file("pa_zstd_v2.parquet");
    let index = open(&file).unwrap();
    let name = |key: &str, columns: &[&str]| {
        let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        object_name(&index, Some(key), Some(&columns)).unwrap()
    };
    assert_eq!(name("k", &["name", "k"]), name("k", &["k", "name", "name"]));
    assert_eq!(name("k", &["name"]), plan(&file, "k", &["name"]).unwrap().name());
    assert_ne!(name("k", &["name"]), name("name", &["k"]));
    assert_ne!(name("k", &["name"]), name("k", &["k"]));
}
