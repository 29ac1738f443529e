//! What other writers make and the Arrow writer does not: old layouts, odd codecs, INT96; and errors that name the
//! page.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod chunks;

use std::io::Write;
use std::sync::Arc;

use alcedo_lookup::answer::{Body, FileAnswer, Form, decode_pages};
use alcedo_lookup::error::Error;
use alcedo_lookup::key::Key;
use alcedo_lookup::limits::Limits;
use alcedo_lookup::machine::drive_bytes;
use alcedo_lookup::open::Open;
use alcedo_lookup::rows::decode_rows;
use alcedo_lookup::search::{Query, Search};
use alcedo_lookup::value::Value;
use arrow_array::cast::AsArray;
use arrow_array::types::{TimestampMicrosecondType, TimestampNanosecondType};
use arrow_ipc::reader::StreamReader;
use bytes::Bytes;
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};

use chunks::*;

fn ask(file: &Bytes, keys: &[i64], form: Form) -> Result<FileAnswer, Error> {
    let limits = Arc::new(Limits::default());
    let index = drive_bytes(Open::new(64 << 10, limits.clone()), file)?;
    let keys = keys.iter().map(|key| Key::Int(*key)).collect();
    let query = Query { key_column: Some("k".to_owned()), keys, columns: None, form, row_limit: None };
    drive_bytes(Search::new(index, Arc::new(query), limits)?, file)
}

/// The second column of these rows, read in compact rows and in pages form alike, with its type.
fn values(file: &Bytes, rows: &[i64]) -> Result<(String, Vec<Value>), Error> {
    let answer = ask(file, rows, Form::CompactRows)?;
    let Body::Compact(compact) = &answer.body else { panic!("{answer:?}") };
    let paged = ask(file, rows, Form::Pages)?;
    let Body::Pages(pages) = &paged.body else { panic!("{paged:?}") };
    assert_eq!(paged.schema, answer.schema);
    assert_eq!(decode_pages(pages, &paged.schema, &paged.row_number, &Limits::default())?, compact);
    let ty = answer.schema.columns[1].ty.to_string();
    let mut decoded = decode_rows(&answer.schema, compact).unwrap();
    Ok((ty, decoded.iter_mut().map(|row| row.swap_remove(1)).collect()))
}

fn only(values: Vec<Value>) -> Value {
    let [value] = <[Value; 1]>::try_from(values).unwrap();
    value
}

fn message(column: &str) -> String {
    format!("message schema {{ required int64 k; {column} }}")
}

/// A file with the numbers of its rows as keys and this column.
fn beside(column: &str, rows: i64, pages: Column) -> Bytes {
    file(&message(column), rows, vec![Column::numbers(rows), pages])
}

fn int96(day: i32, nanoseconds: i64) -> Vec<u8> {
    [&nanoseconds.to_le_bytes()[..], &day.to_le_bytes()].concat()
}

const EPOCH: i32 = 2_440_588;
const YEAR_9999: i32 = 5_373_484;

fn int96_file(stored: &[Vec<u8>]) -> Bytes {
    let (rows, body) = (stored.len(), stored.concat());
    let pages = Column::plain(rows as i64, vec![v1(rows as i32, PLAIN, RLE, body.len(), &body)]);
    beside("required int96 t;", rows as i64, pages)
}

#[test]
fn int96_beyond_nanoseconds_is_given_in_microseconds() {
    let microseconds = 253_402_214_400_000_000_i64;
    let file = int96_file(&[int96(EPOCH, 1_000), int96(YEAR_9999, 0), int96(EPOCH - 1, 1), int96(i32::MAX, 7)]);
    let number = |rows: &[i64]| values(&file, rows).unwrap();
    // Other rows of the page cost nothing.
    assert_eq!(number(&[0]), ("timestamp[ns]".into(), vec![Value::Int(1_000)]));
    assert_eq!(number(&[2]), ("timestamp[ns]".into(), vec![Value::Int(1 - 86_400_000_000_000)]));
    assert_eq!(number(&[1]), ("timestamp[us]".into(), vec![Value::Int(microseconds)]));
    // What was written before the year came is brought to its unit.
    assert_eq!(number(&[0, 1]), ("timestamp[us]".into(), vec![Value::Int(1), Value::Int(microseconds)]));
    for rows in [&[1, 2][..], &[3]] {
        let error = values(&file, rows).unwrap_err();
        assert!(error.to_string().contains("no unit holds them all"), "{error}");
        assert!(error.to_string().contains("column `t`"), "{error}");
        assert_eq!(ask(&file, rows, Form::ArrowIpc).unwrap_err(), error);
        assert_eq!(ask(&file, rows, Form::Pages).unwrap_err(), error);
    }
    let arrow = |rows: &[i64]| {
        let Body::ArrowIpc(bytes) = ask(&file, rows, Form::ArrowIpc).unwrap().body else { panic!() };
        let batches: Vec<_> = StreamReader::try_new(bytes.as_ref(), None).unwrap().map(Result::unwrap).collect();
        arrow_select::concat::concat_batches(&batches[0].schema(), &batches).unwrap().column(1).clone()
    };
    assert_eq!(arrow(&[0, 2]).as_primitive::<TimestampNanosecondType>().value(0), 1_000);
    let array = arrow(&[0, 1]);
    assert_eq!(array.as_primitive::<TimestampMicrosecondType>().values().to_vec(), [1, microseconds]);
}

#[test]
fn a_row_group_with_a_later_year_changes_the_unit_of_the_rows_before_it() {
    let one = int96_file(&[int96(EPOCH, 5_000), int96(YEAR_9999, 0)]);
    // Rows in two windows of one answer: the second key is in another data page.
    let pages: Vec<Vec<u8>> =
        [int96(EPOCH, 5_000), int96(YEAR_9999, 0)].iter().map(|body| v1(1, PLAIN, RLE, 12, body)).collect();
    let two = beside("required int96 t;", 2, Column::plain(2, pages));
    assert_eq!(values(&one, &[0, 1]).unwrap(), values(&two, &[0, 1]).unwrap());
}

#[test]
fn int96_in_lists_and_structs_keep_their_year() {
    // One list of two values: repetition levels 0 1, definition levels 2 2.
    let body = [&[2, 0, 0, 0, 3, 0b10, 2, 0, 0, 0, 4, 2][..], &int96(EPOCH, 0), &int96(YEAR_9999, 0)].concat();
    let pages = Column::plain(2, vec![v1(2, PLAIN, RLE, body.len(), &body)]);
    let file = beside("optional group l (LIST) { repeated group list { required int96 element; } }", 1, pages);
    let list = vec![Value::Int(0), Value::Int(253_402_214_400_000_000)];
    assert_eq!(values(&file, &[0]).unwrap(), ("list<timestamp[us]>".into(), vec![Value::List(list)]));
    assert!(ask(&file, &[0], Form::ArrowIpc).is_ok());
    let body = [&[2, 0, 0, 0, 2, 1][..], &int96(YEAR_9999, 0)].concat();
    let pages = Column::plain(1, vec![v1(1, PLAIN, RLE, body.len(), &body)]);
    let file = beside("optional group s { required int96 t; }", 1, pages);
    let (ty, value) = values(&file, &[0]).unwrap();
    assert_eq!(ty, "struct<t:timestamp[us]>");
    assert_eq!(only(value), Value::Struct(vec![Value::Int(253_402_214_400_000_000)]));
}

fn byte_arrays(values: &[&[u8]]) -> Vec<u8> {
    values.iter().flat_map(|value| [&(value.len() as u32).to_le_bytes()[..], value].concat()).collect()
}

#[test]
fn decimals_of_byte_arrays_of_any_length_are_read() {
    let long = [vec![0xff; 16], vec![0x85]].concat();
    let stored: [&[u8]; 6] =
        [&[1, 0], &[0xff], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7], &long, &[], &[9]];
    let body = byte_arrays(&stored);
    let pages = || Column::plain(6, vec![v1(6, PLAIN, RLE, body.len(), &body)]);
    for precision in [10, 50] {
        let file = beside(&format!("required binary d (DECIMAL({precision},2));"), 6, pages());
        let texts = ["2.56", "-0.01", "0.07", "-1.23", "0.00", "0.09"].map(|text| Value::Decimal(text.into()));
        // All rows, and every row alone: what is beside it in the page does not matter.
        assert_eq!(values(&file, &[0, 1, 2, 3, 4, 5]).unwrap().1, texts, "precision {precision}");
        assert_eq!(only(values(&file, &[3]).unwrap().1), texts[3]);
    }
    // A value of more digits than any decimal has is an error, never another value.
    let body = byte_arrays(&[&[0x7f; 40]]);
    let pages = Column::plain(1, vec![v1(1, PLAIN, RLE, body.len(), &body)]);
    let error = values(&beside("required binary d (DECIMAL(10,2));", 1, pages), &[0]).unwrap_err();
    assert!(error.is_about_the_file(), "{error}");
}

#[test]
fn old_lists_and_maps_without_values_are_read() {
    // Two elements in one repeated field: levels 0 1 and 1 1, then 1, 2.
    let levels = [2, 0, 0, 0, 3, 0b10, 2, 0, 0, 0, 4, 1];
    let body = [&levels[..], &1_i32.to_le_bytes(), &2_i32.to_le_bytes()].concat();
    let pages = || Column::plain(2, vec![v1(2, PLAIN, RLE, body.len(), &body)]);
    let list = Value::List(vec![Value::Int(1), Value::Int(2)]);
    for column in ["repeated int32 l;", "required group l (LIST) { repeated int32 array; }"] {
        let (ty, value) = values(&beside(column, 1, pages()), &[0]).unwrap();
        assert_eq!((ty.as_str(), only(value)), ("list<int32>", list.clone()), "{column}");
    }
    let column = "required group m (MAP) { repeated group key_value { required int32 key; } }";
    let (ty, value) = values(&beside(column, 1, pages()), &[0]).unwrap();
    assert_eq!((ty.as_str(), only(value)), ("list<int32>", list), "a map without values is its keys");
}

#[test]
fn bit_packed_levels_are_read_from_their_highest_bit() {
    // Definition levels 1 0 1 1 0 0 1 0 | 1, then five values.
    let numbers: Vec<u8> = [10_i32, 30, 40, 70, 90].iter().flat_map(|value| value.to_le_bytes()).collect();
    let body = [&[0b1011_0010, 0b1000_0000][..], &numbers].concat();
    let pages = Column::plain(9, vec![v1(9, PLAIN, BIT_PACKED, body.len(), &body)]);
    let file = beside("optional int32 v;", 9, pages);
    let rows: Vec<i64> = (0..9).collect();
    let wanted = [Some(10), None, Some(30), Some(40), None, None, Some(70), None, Some(90)];
    let wanted: Vec<Value> = wanted.iter().map(|value| value.map_or(Value::Null, Value::Int)).collect();
    assert_eq!(values(&file, &rows).unwrap().1, wanted);
    assert_eq!(values(&file, &[3, 8]).unwrap().1, [Value::Int(40), Value::Int(90)]);
}

#[test]
fn bit_packed_repetition_levels_say_where_rows_start() {
    // Repetition levels 0 1 | 0 | 0 1 1, definition levels 1 throughout, then six values: three rows.
    let numbers: Vec<u8> = (1..=6_i32).flat_map(i32::to_le_bytes).collect();
    let body = [&[0b0100_1100, 0b1111_1100][..], &numbers].concat();
    let pages = Column::plain(6, vec![v1(6, PLAIN, BIT_PACKED, body.len(), &body)]);
    let file = beside("repeated int32 l;", 3, pages);
    let list = |numbers: &[i64]| Value::List(numbers.iter().map(|number| Value::Int(*number)).collect());
    assert_eq!(values(&file, &[0, 1, 2]).unwrap().1, [list(&[1, 2]), list(&[3]), list(&[4, 5, 6])]);
    assert_eq!(values(&file, &[1]).unwrap().1, [list(&[3])]);
}

#[test]
fn pages_without_values_are_read() {
    let levels = [6, 0];
    let null = |page| beside("optional binary v;", 3, Column::with_dictionary(3, vec![dictionary(0, 0, &[]), page]));
    // Version 2: dictionary-encoded without a byte of values; compressed; nothing inflates from nothing.
    for encoding in [PLAIN, RLE_DICTIONARY, DELTA_BYTE_ARRAY] {
        for page in
            [v2([3, 3, 3], encoding, [2, 0], true, 2, &levels), v2([3, 3, 3], encoding, [2, 0], false, 2, &levels)]
        {
            assert_eq!(values(&null(page), &[0, 2]).unwrap().1, [Value::Null, Value::Null], "{encoding}");
        }
    }
    let body = [&[2, 0, 0, 0][..], &levels].concat();
    let page = v1(3, RLE_DICTIONARY, RLE, body.len(), &body);
    assert_eq!(values(&null(page), &[1]).unwrap().1, [Value::Null]);
    for codec in [Compression::SNAPPY, Compression::ZSTD(ZstdLevel::default()), Compression::LZ4_RAW] {
        let pages = Column::plain(3, vec![v2([3, 3, 3], PLAIN, [2, 0], true, 2, &levels)]).compressed(codec);
        assert_eq!(values(&beside("optional binary v;", 3, pages), &[1]).unwrap().1, [Value::Null], "{codec:?}");
    }
}

#[test]
fn compressed_bodies_of_many_writers_are_read() {
    let body: Vec<u8> = (0..1_000_i32).flat_map(i32::to_le_bytes).collect();
    let (one, two) = body.split_at(1_600);
    let zlib = |data: &[u8]| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    };
    let raw_deflate = |data: &[u8]| {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    };
    let streamed = |data: &[u8]| {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    };
    let snappy = |data: &[u8]| snap::raw::Encoder::new().compress_vec(data).unwrap();
    let hadoop = |data: &[u8]| {
        let packed = snappy(data);
        [&(data.len() as u32).to_be_bytes()[..], &(packed.len() as u32).to_be_bytes(), &packed].concat()
    };
    let mut framed = snap::write::FrameEncoder::new(Vec::new());
    framed.write_all(&body).unwrap();
    let (gzip, zstd) = (Compression::GZIP(GzipLevel::default()), Compression::ZSTD(ZstdLevel::default()));
    let cases = [
        ("zlib", gzip, zlib(&body)),
        ("raw deflate", gzip, raw_deflate(&body)),
        ("zstd frames without sizes", zstd, [streamed(one), streamed(two)].concat()),
        ("Hadoop's snappy", Compression::SNAPPY, [hadoop(one), hadoop(two)].concat()),
        ("framed snappy", Compression::SNAPPY, framed.into_inner().unwrap()),
    ];
    for (name, codec, stored) in cases {
        let column =
            |body: &[u8], size| Column::plain(1_000, vec![v1(1_000, PLAIN, RLE, size, body)]).compressed(codec);
        let file = beside("required int32 v;", 1_000, column(&stored, body.len()));
        assert_eq!(values(&file, &[0, 999]).unwrap().1, [Value::Int(0), Value::Int(999)], "{name}");
        // A page that inflates to another size than it says is damaged.
        for size in [body.len() - 4, body.len() + 4] {
            let error = values(&beside("required int32 v;", 1_000, column(&stored, size)), &[0]).unwrap_err();
            assert!(matches!(error, Error::Corrupt(_)), "{name}: {error}");
        }
    }
    let brotli = Compression::BROTLI(BrotliLevel::default());
    let garbage = Column::plain(1_000, vec![v1(1_000, PLAIN, RLE, body.len(), &[7; 50])]).compressed(brotli);
    assert!(matches!(values(&beside("required int32 v;", 1_000, garbage), &[0]), Err(Error::Corrupt(_))));
}

#[test]
fn errors_name_column_row_group_and_data_page() {
    let name = "x".repeat(3_000);
    let good = v1(5, PLAIN, RLE, 20, &[0; 20]);
    let bad = v1(5, PLAIN, RLE, 21, &[0; 20]);
    let offset = 4 + Column::numbers(10).pages[0].len() + good.len();
    let pages = Column::plain(10, vec![good, bad]);
    let file = beside(&format!("required int32 {name};"), 10, pages);
    let error = values(&file, &[7]).unwrap_err().to_string();
    assert!(error.contains(&format!("data page 1 (offset {offset}) of column `xxx")), "{error}");
    assert!(error.contains("row group 0") && error.len() < 400, "{error}");
    assert!(values(&file, &[3]).is_ok(), "the damaged page is not needed");
}
