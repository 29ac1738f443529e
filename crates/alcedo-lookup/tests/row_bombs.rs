//! Hostile column chunks: a few bytes that stand for terabytes, and random bytes in every encoding. Each costs its
//! lookup one clear error and little memory, and rows beside them are still read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod chunks;

use std::sync::{Arc, Mutex, PoisonError};

use alcedo_lookup::answer::{FileAnswer, Form};
use alcedo_lookup::error::Error;
use alcedo_lookup::key::Key;
use alcedo_lookup::limits::Limits;
use alcedo_lookup::machine::drive_bytes;
use alcedo_lookup::open::Open;
use alcedo_lookup::search::{Query, Search};
use bytes::Bytes;
use parquet::basic::{Compression, ZstdLevel};

use chunks::*;

fn ask(file: &Bytes, keys: std::ops::Range<i64>, form: Form) -> Result<FileAnswer, Error> {
    let limits = Arc::new(Limits::default());
    let index = drive_bytes(Open::new(64 << 10, limits.clone()), file)?;
    let keys = keys.map(Key::Int).collect();
    let query = Query { key_column: Some("k".to_owned()), keys, columns: None, form, row_limit: None };
    drive_bytes(Search::new(index, Arc::new(query), limits)?, file)
}

fn beside(column: &str, rows: i64, pages: Column) -> Bytes {
    file(&format!("message schema {{ required int64 k; {column} }}"), rows, vec![Column::numbers(rows), pages])
}

/// Held by a test that measures the process: what another one takes meanwhile would be counted too.
static MEASURED: Mutex<()> = Mutex::new(());

/// The most memory that this process ever held, in bytes.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 1).unwrap()
}

fn zstd_codec() -> Compression {
    Compression::ZSTD(ZstdLevel::default())
}

/// One dictionary index over and over, of 1 bit.
fn one_index(count: i64, index: u8) -> Vec<u8> {
    [vec![1], uvarint((count as u64) << 1), vec![index]].concat()
}

fn error_of(file: &Bytes, keys: std::ops::Range<i64>) -> String {
    let errors = [Form::CompactRows, Form::ArrowIpc].map(|form| ask(file, keys.clone(), form).unwrap_err());
    assert_eq!(errors[0], errors[1]);
    errors[0].to_string()
}

/// One dictionary value of 16 MiB, a small one, and 5,000 rows of the first or second.
fn dictionary_bomb(index: u8) -> Bytes {
    let value = vec![b'x'; 16 << 20];
    let body = [&(value.len() as u32).to_le_bytes()[..], &value, &3_u32.to_le_bytes(), b"abc"].concat();
    let indices = one_index(5_000, index);
    let pages =
        vec![dictionary(2, body.len(), &zstd(&body)), v1(5_000, RLE_DICTIONARY, RLE, indices.len(), &zstd(&indices))];
    beside("required binary v;", 5_000, Column::with_dictionary(5_000, pages).compressed(zstd_codec()))
}

/// As a list of as many elements in the file's one row.
fn list_bomb(elements: i64) -> Bytes {
    let value = vec![b'x'; 1 << 20];
    let body = [&(value.len() as u32).to_le_bytes()[..], &value].concat();
    let levels = |first: &[u8], rest: u64, bits: u8| {
        let run = [first.to_vec(), uvarint(rest << 1), vec![bits]].concat();
        [&(run.len() as u32).to_le_bytes()[..], &run].concat()
    };
    // Repetition 0, then 1s; definition 1 everywhere.
    let data =
        [levels(&[2, 0], elements as u64 - 1, 1), levels(&[], elements as u64, 1), one_index(elements, 0)].concat();
    let pages = vec![
        dictionary(1, body.len(), &zstd(&body)),
        v1(elements as i32, RLE_DICTIONARY, RLE, data.len(), &zstd(&data)),
    ];
    beside("repeated binary v;", 1, Column::with_dictionary(elements, pages).compressed(zstd_codec()))
}

/// More codes of Parquet's encodings.
const DELTA_BINARY_PACKED: i32 = 5;
const DELTA_LENGTH_BYTE_ARRAY: i32 = 6;
const BYTE_STREAM_SPLIT: i32 = 9;

/// DELTA_BINARY_PACKED: one number over and over, of which the first few blocks are written.
fn same_deltas(count: u64, first: u64) -> Vec<u8> {
    let mut out = [uvarint(128), uvarint(4), uvarint(count), uvarint(first << 1)].concat();
    for _ in 0..count.saturating_sub(1).div_ceil(128).min(64) {
        out.extend([0, 0, 0, 0, 0]);
    }
    out
}

#[test]
fn bombs_cost_an_error_and_little_memory() {
    let _alone = MEASURED.lock().unwrap_or_else(PoisonError::into_inner);
    let before = peak_bytes();
    let error = error_of(&dictionary_bomb(0), 0..5_000);
    assert!(error.starts_with("answer too large"), "{error}");
    // Two such values fit an answer, and so do all rows of the small one.
    assert_eq!(ask(&dictionary_bomb(0), 7..9, Form::CompactRows).unwrap().row_number, [7, 8]);
    assert_eq!(ask(&dictionary_bomb(1), 0..5_000, Form::CompactRows).unwrap().row_number.len(), 5_000);
    // One row whose list repeats a value of 1 MiB.
    for elements in [2_000, 1_000_000] {
        let error = error_of(&list_bomb(elements), 0..1);
        assert!(error.starts_with("answer too large"), "{error}");
    }
    assert!(error_of(&list_bomb(9_000_000), 0..1).contains("over a bound"));
    assert!(ask(&list_bomb(3), 0..1, Form::CompactRows).is_ok());
    // Pages that claim what their bytes cannot hold: nothing is reserved for it.
    let indices = one_index(i64::from(i32::MAX), 0);
    let run = v1(i32::MAX, RLE_DICTIONARY, RLE, indices.len(), &indices);
    let claims: [(&str, Vec<Vec<u8>>); 5] = [
        ("required binary v;", vec![dictionary(1, 8, &[4, 0, 0, 0, 1, 2, 3, 4]), run]),
        ("required binary v;", vec![dictionary(3_000_000, 3 << 20, &zstd(&vec![0; 3 << 20]))]),
        ("required int32 v;", vec![v1(5, DELTA_BINARY_PACKED, RLE, 8, &same_deltas(1 << 40, 0)[..8])]),
        ("required binary v;", vec![v1(5, DELTA_LENGTH_BYTE_ARRAY, RLE, 9, &same_deltas(1 << 40, 0)[..9])]),
        ("required binary v;", vec![v1(5, PLAIN, RLE, 8, &[9, 0, 0, 0, 1, 1, 1, 1])]),
    ];
    for (column, pages) in claims {
        let mut pages = Column { has_dictionary: pages.len() > 1, ..Column::plain(5, pages) };
        pages.values = 5;
        let error = ask(&beside(column, 5, pages), 0..5, Form::CompactRows).unwrap_err();
        assert!(error.is_about_the_file(), "{column}: {error}");
    }
    let grown = (peak_bytes() - before) >> 20;
    assert!(grown < 400, "{grown} MiB");
}

#[test]
fn many_leaves_that_inflate_to_much_are_read_one_after_the_other() {
    let _alone = MEASURED.lock().unwrap_or_else(PoisonError::into_inner);
    let before = peak_bytes();
    // 8 MiB of one value each, 60 columns: 480 MiB if all were inflated at once.
    let rows = 1_i64 << 21;
    let body = vec![0_u8; 8 << 20];
    let stored = zstd(&body[..]);
    let column =
        || Column::plain(rows, vec![v1(rows as i32, PLAIN, RLE, 4 * rows as usize, &stored)]).compressed(zstd_codec());
    let names: String = (0..60).map(|i| format!("required int32 c{i};")).collect();
    let keys = (0..rows).flat_map(i64::to_le_bytes).collect::<Vec<u8>>();
    let keys = Column::plain(rows, vec![v1(rows as i32, PLAIN, RLE, keys.len(), &keys)]);
    let columns = std::iter::once(keys).chain((0..60).map(|_| column())).collect();
    let flat = file(&format!("message schema {{ required int64 k; {names} }}"), rows, columns);
    assert_eq!(ask(&flat, 5..7, Form::CompactRows).unwrap().row_number, [5, 6]);
    let grown = (peak_bytes() - before) >> 20;
    assert!(grown < 400, "{grown} MiB");
}

/// Value columns of every kind.
const COLUMNS: [&str; 12] = [
    "required boolean v;",
    "optional int32 v;",
    "required int64 v;",
    "optional int96 v;",
    "required float v;",
    "optional double v (TIMESTAMP_MILLIS);",
    "optional binary v (UTF8);",
    "required fixed_len_byte_array(7) v;",
    "optional fixed_len_byte_array(9) v (DECIMAL(18,2));",
    "optional binary v (DECIMAL(9,2));",
    "repeated int32 v;",
    "optional group v (LIST) { repeated group list { optional binary element (JSON); } }",
];

/// Every encoding that there is.
const ENCODINGS: [i32; 9] = [
    PLAIN,
    2,
    RLE,
    BIT_PACKED,
    DELTA_BINARY_PACKED,
    DELTA_LENGTH_BYTE_ARRAY,
    DELTA_BYTE_ARRAY,
    RLE_DICTIONARY,
    BYTE_STREAM_SPLIT,
];

#[test]
fn random_bytes_in_every_encoding_are_an_error_or_rows() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (mut panicked, mut read) = (0, 0);
    for column in COLUMNS.iter().filter(|column| !column.contains("double v (")) {
        for encoding in ENCODINGS {
            for case in 0..60 {
                let length = next() % 70;
                // Small numbers are more often lengths that nearly fit.
                let small = case % 3 > 0;
                let mut bytes: Vec<u8> = (0..length).map(|_| if small { next() % 12 } else { next() } as u8).collect();
                if case % 2 == 0 && bytes.len() > 12 {
                    // Levels that are right, so that values are reached.
                    bytes[..6].copy_from_slice(&[2, 0, 0, 0, 20, 1]);
                }
                let dict: Vec<u8> = (0..next() % 40).map(|_| (next() % 5) as u8).collect();
                let counts = [10, (next() % 4) as i32, 10];
                let data = match case % 4 {
                    0 | 1 => v1(10, encoding, RLE, bytes.len(), &bytes),
                    2 => v1(10, encoding, BIT_PACKED, bytes.len(), &bytes),
                    _ => v2(counts, encoding, [(next() % 5) as i32, (next() % 3) as i32], false, bytes.len(), &bytes),
                };
                let pages = vec![dictionary((next() % 6) as i32, dict.len(), &dict), data];
                let file = beside(column, 10, Column::with_dictionary(10, pages));
                match ask(&file, 2..9, Form::CompactRows) {
                    Ok(_) => read += 1,
                    Err(Error::DecoderPanicked(what)) => {
                        assert!(what.starts_with("column `v"), "{what}");
                        panicked += 1;
                    }
                    Err(error) => assert!(
                        error.is_about_the_file() || matches!(error, Error::AnswerTooLarge(_)),
                        "{column} {encoding}: {error}"
                    ),
                }
                // As a key column too, where it can be one.
                let limits = Arc::new(Limits::default());
                let index = drive_bytes(Open::new(64 << 10, limits.clone()), &file).unwrap();
                let query = Query {
                    key_column: Some("v".to_owned()),
                    keys: vec![Key::Null],
                    columns: None,
                    form: Form::CompactRows,
                    row_limit: None,
                };
                let _ = Search::new(index, Arc::new(query), limits).and_then(|search| drive_bytes(search, &file));
            }
        }
    }
    assert!(read > 100, "{read} read, {panicked} panicked");
}

#[test]
fn a_hundred_levels_are_read_on_a_small_stack() {
    let depth = 97;
    let mut column = "required int32 v;".to_owned();
    for _ in 0..depth {
        column = format!("required group g {{ {column} }}");
    }
    let body: Vec<u8> = (0..4_i32).flat_map(i32::to_le_bytes).collect();
    let file = beside(&column, 4, Column::plain(4, vec![v1(4, PLAIN, RLE, 16, &body)]));
    let thread = std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(move || [Form::CompactRows, Form::ArrowIpc].map(|form| ask(&file, 1..3, form).unwrap().row_number));
    assert_eq!(thread.unwrap().join().unwrap(), [[1, 2], [1, 2]]);
}
