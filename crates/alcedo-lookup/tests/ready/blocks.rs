//! Blocks and parts of lookup-ready rows: which of them a lookup reads, how large they are, what the head takes in
//! memory; and damage, which is found wherever it is.
use std::sync::Arc;

use alcedo_lookup::derived::PART_BYTES;
use alcedo_lookup::error::Error;
use alcedo_lookup::key::Key;
use alcedo_lookup::limits::Limits;
use alcedo_lookup::ready::{FoundReady, ReadyRows};
use arrow_array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use crate::same_rows::*;

const BLOCK_BYTES: u64 = 4_096;

/// A file of these columns, `k` the first, in row groups of so many rows.
fn file(columns: Vec<(&str, ArrayRef)>, group_rows: usize) -> Bytes {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group_rows))
        .set_data_page_row_count_limit(500)
        .set_write_batch_size(100)
        .set_compression(parquet::basic::Compression::SNAPPY)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap().into()
}

fn ints(keys: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(Int64Array::from_iter(keys))
}

fn texts(keys: impl IntoIterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(keys))
}

/// The rows of all columns by `k`, after they were compared with what a search gives.
fn ready(file: &Bytes) -> (Object, ReadyRows) {
    check(file, ("k", None), &[None], &Limits::default()).unwrap();
    let index = open(file).unwrap();
    let object = build(&index, file, ("k", None), &Limits::default()).unwrap();
    let rows = ReadyRows::read(object.head.clone(), &index, &Limits::default()).unwrap();
    (object, rows)
}

/// How many blocks are read for a key.
fn blocks(file: &Bytes, rows: &ReadyRows, key: &Key) -> usize {
    let prepared = prepared(&open(file).unwrap(), "k", None);
    prepared.key_point(key).unwrap().map_or(0, |point| rows.blocks(&point).count())
}

const ROWS: i64 = 5_000;

fn filling() -> (&'static str, ArrayRef) {
    ("t", texts((0..ROWS).map(|row| format!("row {row} {}", "x".repeat(row as usize % 90)))))
}

#[test]
fn one_block_is_read_for_a_key_of_a_sorted_column() {
    let orders: [fn(i64) -> i64; 2] = [|row| row * 3, |row| -row * 3];
    for order in orders {
        let file = file(vec![("k", ints((0..ROWS).map(|row| Some(order(row))))), filling()], 1_700);
        let (object, rows) = ready(&file);
        assert!(rows.block_count() > 50, "{rows:?}");
        for row in [0, 1, 1_699, 1_700, 2_500, ROWS - 1] {
            assert_eq!(blocks(&file, &rows, &Key::Int(order(row))), 1, "row {row}");
        }
        for absent in [-ROWS * 3, ROWS * 3] {
            assert_eq!(blocks(&file, &rows, &Key::Int(absent)), 0);
        }
        assert_eq!(blocks(&file, &rows, &Key::Null), 0);
        assert!((rows.selectivity() - 1.0).abs() < 0.01, "{}", rows.selectivity());
        // Blocks of small rows are those of the page store.
        let sizes: Vec<u64> = (0..ROWS as u64).map(|row| rows.block_of_row(row).unwrap().range.start).collect();
        assert!(sizes.iter().all(|start| start.is_multiple_of(BLOCK_BYTES)), "{sizes:?}");
        let bytes: usize = object.parts.iter().map(Bytes::len).sum();
        assert_eq!(bytes as u64, rows.part_bytes());
    }
}

#[test]
fn scattered_keys_may_be_in_any_block_and_their_rows_are_in_one() {
    let file = file(vec![("k", ints((0..ROWS).map(|row| Some(row * 7_919 % ROWS)))), filling()], 1_700);
    let (_, rows) = ready(&file);
    assert!(blocks(&file, &rows, &Key::Int(ROWS / 2)) > rows.block_count() * 9 / 10);
    assert!(rows.selectivity() > rows.block_count() as f64 / 2.0, "{}", rows.selectivity());
    let block = rows.block_of_row(4_321).unwrap();
    assert!(block.range.end - block.range.start <= BLOCK_BYTES);
    assert!(rows.block_of_row(ROWS as u64).is_none() && rows.block_of_row(u64::MAX).is_none());
}

#[test]
fn duplicates_and_nulls_are_found_in_all_their_blocks() {
    // Runs of one key longer than a block and across row groups, nulls first, last and between.
    let runs = (0..ROWS).map(|row| match row {
        0..300 | 4_800.. => None,
        2_000..2_200 => None,
        row => Some(row / 400),
    });
    let file = file(vec![("k", ints(runs)), filling()], 1_000);
    let (_, rows) = ready(&file);
    assert!(blocks(&file, &rows, &Key::Int(7)) > 3, "a run of 400 rows");
    let nulls = blocks(&file, &rows, &Key::Null);
    assert!(nulls > 5 && nulls < rows.block_count() / 3, "{nulls} of {rows:?}");
    let only = |key: Option<i64>| file_of(ints((0..ROWS).map(|_| key)));
    for (key, asked) in [(None, Key::Null), (Some(5), Key::Int(5))] {
        let file = only(key);
        let (_, rows) = ready(&file);
        assert_eq!(blocks(&file, &rows, &asked), rows.block_count());
    }
}

fn file_of(keys: ArrayRef) -> Bytes {
    file(vec![("k", keys), filling()], 1_700)
}

#[test]
fn long_common_beginnings_have_no_weight_in_bounds() {
    // 60 bytes in common, then 12 digits; and bytes at both ends of the range.
    let beginning = "https://example.org/a/very/long/path/that/all/keys/share/id=";
    let file = file_of(texts((0..ROWS).map(|row| format!("{beginning}{row:012}"))));
    let (_, rows) = ready(&file);
    for row in [0, 1_699, 1_700, 4_999] {
        assert_eq!(blocks(&file, &rows, &Key::from(format!("{beginning}{row:012}"))), 1, "row {row}");
    }
    for absent in ["https://example.org", "", "zzz", beginning] {
        assert_eq!(blocks(&file, &rows, &Key::from(absent)), 0, "{absent}");
    }
    // Keys that differ only behind what bounds hold are looked for in all blocks, and found.
    let file = file_of(texts((0..ROWS).map(|row| format!("{}{row}", "a".repeat(100)))));
    let (_, rows) = ready(&file);
    assert_eq!(blocks(&file, &rows, &Key::from(format!("{}77", "a".repeat(100)))), rows.block_count());
    // Upper bounds that a cut would lower: the last key of a block is longer than what bounds hold.
    let mut keys: Vec<String> = (0..ROWS).map(|row| format!("{:03}{}{row:05}", row / 37, "y".repeat(40))).collect();
    keys.sort();
    ready(&file_of(texts(keys)));
}

#[test]
fn floats_are_found_as_numbers() {
    let keys = (0..ROWS).map(|row| match row % 5 {
        0 => -0.0,
        1 => f64::NAN,
        2 => f64::NEG_INFINITY,
        3 => 0.0,
        _ => row as f64 / 8.0 - 100.0,
    });
    let (_, rows) = ready(&file_of(Arc::new(Float64Array::from_iter_values(keys))));
    assert!(rows.rows() == ROWS as u64);
    let file = file_of(Arc::new(Float64Array::from_iter_values((0..ROWS).map(|_| f64::NAN))));
    let (_, rows) = ready(&file);
    assert_eq!(blocks(&file, &rows, &Key::Float(1.0)), 0, "no key equals NaN");
}

#[test]
fn large_rows_have_blocks_of_their_own() {
    let lengths = [10, 3_000, 4_080, 4_090, 4_100, 8_000, 10, 10, 100_000, 1, 600, 600, 600, 5_000_000, 10, 70_000];
    let keys = ints((0..320).map(|row| Some(row / 3)));
    let values = texts((0..320).map(|row| "w".repeat(if row < 16 { lengths[row] } else { row * 7 })));
    let file = file(vec![("k", keys), ("v", values)], 100);
    let (_, rows) = ready(&file);
    let mut row = 0;
    while let Some(block) = rows.block_of_row(row) {
        let length = block.range.end - block.range.start;
        let next = (row + 1..=320).find(|next| rows.block_of_row(*next).is_none_or(|other| other != block)).unwrap();
        assert!(length <= BLOCK_BYTES * 3 / 2 || next == row + 1, "{} rows in {block:?}", next - row);
        row = next;
    }
    assert_eq!(row, 320);
}

#[test]
fn parts_end_when_they_are_full_or_with_a_large_row_group() {
    let wide = |rows: i64, length: usize, group_rows| {
        let columns = vec![("k", ints((0..rows).map(Some))), ("v", texts((0..rows).map(|_| "v".repeat(length))))];
        file(columns, group_rows)
    };
    let (object, rows) = ready(&wide(40, 1 << 20, 1_000));
    assert_eq!(object.parts.len(), 3, "15 rows of 1 MiB fit a part");
    assert_eq!((rows.parts(), rows.block_of_row(15).unwrap().part), (3, 1));
    // Row groups of 2 MiB have parts of their own, those of 200 KiB share them.
    assert_eq!(ready(&wide(40, 100 << 10, 20)).0.parts.len(), 2);
    assert_eq!(ready(&wide(40, 100 << 10, 2)).0.parts.len(), 4);
    // What no part can hold is told.
    let file = wide(2, PART_BYTES, 10);
    let error = build(&open(&file).unwrap(), &file, ("k", None), &Limits::default()).unwrap_err();
    assert!(matches!(&error, Error::Limit(why) if why.contains("row 0")), "{error}");
    assert!(check(&file, ("k", Some(&[])), &[Some(&["k"])], &Limits::default()).is_ok(), "other columns fit");
}

#[test]
fn a_head_takes_32_bytes_of_memory_per_block_at_most() {
    let (_, rows) = ready(&file_of(ints((0..ROWS).map(Some))));
    let blocks = rows.part_bytes() as usize / BLOCK_BYTES as usize;
    assert!(rows.block_count() <= blocks + 1 && blocks > 50);
    let fixed = 1_024 * (1 + rows.parts() as usize);
    assert!(rows.weight() <= 32 * blocks + fixed, "{} bytes for {blocks} blocks", rows.weight());
    let empty = ready(&file(vec![("k", ints([]))], 10));
    assert_eq!((empty.0.parts.len(), empty.1.block_count(), empty.1.selectivity()), (0, 0, 0.0));
}

/// A small file with two blocks.
fn small() -> Bytes {
    let keys = ints((0..60).map(|row| if row == 30 { None } else { Some(row / 2) }));
    file(vec![("k", keys), ("t", texts((0..60).map(|row| format!("{row:0>100}"))))], 40)
}

#[test]
fn every_flipped_byte_of_a_block_is_found() {
    let file = small();
    let (object, rows) = ready(&file);
    let index = open(&file).unwrap();
    let prepared = prepared(&index, "k", None);
    let (plan, key) = (rows.serves(&prepared).unwrap(), prepared.key_point(&Key::Int(3)).unwrap().unwrap());
    let mut out = FoundReady::default();
    for row in [0, 59] {
        let block = rows.block_of_row(row).unwrap();
        let good = object.block(&block);
        assert!(rows.find(&plan, &block, good, &key, &mut out).is_ok());
        for at in 0..good.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bad = good.to_vec();
                bad[at] ^= flip;
                let found = rows.find(&plan, &block, &bad, &key, &mut out);
                assert!(matches!(found, Err(Error::Checksum(_))), "byte {at}: {found:?}");
                assert!(rows.find_at(&plan, &block, &bad, (row, &key), &mut out).is_err());
            }
        }
        for length in [0, 1, 3, 4, 5, good.len() - 1] {
            assert!(rows.find(&plan, &block, &good[..length], &key, &mut out).is_err());
        }
    }
    // Another block's bytes are no more its own than damaged ones.
    let (first, last) = (rows.block_of_row(0).unwrap(), rows.block_of_row(59).unwrap());
    assert!(rows.find(&plan, &first, object.block(&last), &key, &mut out).is_err());
    assert!(rows.find_at(&plan, &first, object.block(&first), (59, &key), &mut out).is_err());
}

#[test]
fn every_flipped_byte_of_a_head_is_found() {
    let file = small();
    let (object, _) = ready(&file);
    let (index, limits) = (open(&file).unwrap(), Limits::default());
    for at in 0..object.head.len() {
        let mut bad = object.head.to_vec();
        bad[at] ^= 1 << (at % 8);
        assert!(ReadyRows::read(bad.into(), &index, &limits).is_err(), "byte {at}");
        assert!(ReadyRows::read(object.head.slice(..at), &index, &limits).is_err(), "cut at {at}");
    }
}

/// Heads and blocks that somebody made on purpose, checksums and all: an error or some answer, and no panic.
#[test]
fn hostile_heads_and_blocks_end_in_errors() {
    let file = small();
    let (object, good) = ready(&file);
    let (index, limits) = (open(&file).unwrap(), Limits::default());
    let prepared = prepared(&index, "k", Some(&["t", "k"]));
    let points = [Key::Int(3), Key::Null, Key::Int(29)].map(|key| prepared.key_point(&key).unwrap().unwrap());
    let mut read = 0;
    let body = object.head.len() - 4;
    for at in 0..body {
        for value in [0, 1, 2, 0x7f, 0x80, 0xff, object.head[at] ^ 1, object.head[at].wrapping_add(1)] {
            let mut bad = object.head[..body].to_vec();
            bad[at] = value;
            bad.extend(crc32c::crc32c(&bad).to_le_bytes());
            let Ok(rows) = ReadyRows::read(bad.into(), &index, &limits) else { continue };
            read += 1;
            let plan = rows.serves(&prepared).unwrap();
            let mut out = FoundReady::default();
            assert!(rows.selectivity() >= 0.0 && rows.weight() > 0);
            for point in &points {
                let all = (0..=60).filter_map(|row| rows.block_of_row(row)).chain(rows.blocks(point));
                for block in all {
                    assert!(block.range.start < block.range.end && block.part < rows.parts());
                    let part = &object.parts[block.part as usize];
                    let bytes = part.get(block.range.start as usize..block.range.end as usize).unwrap_or_default();
                    let _ = rows.find(&plan, &block, bytes, point, &mut out);
                }
            }
        }
    }
    assert!(read > 100, "{read} heads were read");
    // Rows that are none, under a checksum that is right.
    let block = good.block_of_row(0).unwrap();
    let bytes = object.block(&block);
    let plan = good.serves(&prepared).unwrap();
    let fingerprint = u64::from_le_bytes(object.head[16..24].try_into().unwrap());
    let seed = (fingerprint ^ fingerprint >> 32) as u32;
    assert_eq!(crc32c::crc32c_append(seed, &bytes[4..]).to_le_bytes(), bytes[..4], "as the block's own");
    let mut errors = 0;
    for at in 4..400 {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bad = bytes.to_vec();
            bad[at] = value;
            let checksum = crc32c::crc32c_append(seed, &bad[4..]).to_le_bytes();
            bad[..4].copy_from_slice(&checksum);
            for point in &points {
                let mut out = FoundReady::default();
                errors += usize::from(good.find(&plan, &block, &bad, point, &mut out).is_err());
            }
        }
    }
    assert!(errors > 50, "{errors} errors");
}

/// The layout is a promise to files that are kept over a restart: a change of these bytes needs a new magic.
#[test]
fn an_object_is_byte_for_byte_that_of_version_1() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut text = String::new();
    let keys: [(&str, ArrayRef); 3] = [
        ("int", ints([Some(-5), None, Some(7)])),
        ("float", Arc::new(Float64Array::from(vec![Some(-0.5), Some(f64::NAN), None]))),
        ("text", texts(["common, a", "common, bb", "common, the third is longer than bounds are"].map(String::from))),
    ];
    for (name, keys) in keys {
        assert_eq!(keys.len(), 3);
        let file = file(vec![("k", keys), ("t", texts(["wing", "", "鳥"].map(String::from)))], 2);
        let object = ready(&file).0;
        text.push_str(&format!("{name} head\t{}\n", hex(&object.head)));
        for part in &object.parts {
            text.push_str(&format!("{name} part\t{}\n", hex(part)));
        }
    }
    let golden = include_str!("../golden/ready_rows_v1.tsv");
    assert!(text == golden, "the object is now:\n{text}");
}
