//! Every type in every layout that the Arrow writer makes: all rows of all columns come back as they were written, in
//! every form of an answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "ready/same_rows.rs"]
mod same_rows;

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
use arrow_array::types::*;
use arrow_array::*;
use arrow_buffer::{NullBuffer, OffsetBuffer, i256};
use arrow_ipc::reader::StreamReader;
use arrow_schema::{DataType, Field, Fields, TimeUnit};
use bytes::Bytes;
use half::f16;
use parquet::arrow::ArrowWriter;
use parquet::basic::{BrotliLevel, Compression, Encoding, GzipLevel, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};

const ROWS: usize = 400;

fn text(i: usize) -> String {
    match i % 5 {
        0 => String::new(),
        1 => "鳥".repeat(i % 17),
        _ => format!("the same beginning, then {}", i % 60),
    }
}

/// Some values are null, at the beginning and at the end too, and a stretch of rows is.
fn null_at(i: usize) -> bool {
    i.is_multiple_of(7) || (150..230).contains(&i) || i + 1 == ROWS
}

fn ints<T: ArrowPrimitiveType>(of: impl Fn(usize) -> T::Native, ty: DataType) -> ArrayRef {
    let values = (0..ROWS).map(|i| (!null_at(i)).then(|| of(i)));
    Arc::new(PrimitiveArray::<T>::from_iter(values).with_data_type(ty))
}

fn items<T>(of: impl Fn(usize) -> T) -> impl Iterator<Item = Option<T>> {
    (0..ROWS).map(move |i| (!null_at(i)).then(|| of(i)))
}

/// Numbers from one end of the type to the other, bits beyond the sign's among them.
fn spread(i: usize) -> i64 {
    [i64::MIN, i64::MAX, 0, -1, 1, i as i64 * 1_000_003, -(i as i64) << 33][i % 7]
}

fn wide(i: usize) -> i256 {
    let ten = i256::from_i128(10);
    let limit = ten.wrapping_pow(76).wrapping_sub(i256::ONE);
    [limit, limit.wrapping_neg(), i256::ZERO, i256::MINUS_ONE, i256::from_i128(i as i128 - 200)][i % 5]
}

fn flat() -> Vec<(&'static str, ArrayRef)> {
    let limit = 10_i128.pow(38) - 1;
    let tall = move |i: usize| [limit, -limit, 0, -1, i as i128][i % 5];
    let zone = |unit| DataType::Timestamp(unit, Some("+02:00".into()));
    let naive = |unit| DataType::Timestamp(unit, None);
    let fixed = items(|i| [i as u8, 255, 0]);
    let uuid = items(|i| (i as u128 * 0x0123_4567_89ab_cdef).to_be_bytes());
    vec![
        ("bool", Arc::new(BooleanArray::from_iter(items(|i| i % 3 == 0)))),
        ("i8", ints::<Int8Type>(|i| spread(i) as i8, DataType::Int8)),
        ("i16", ints::<Int16Type>(|i| spread(i) as i16, DataType::Int16)),
        ("i32", ints::<Int32Type>(|i| (spread(i) >> 32) as i32, DataType::Int32)),
        ("i64", ints::<Int64Type>(spread, DataType::Int64)),
        ("u8", ints::<UInt8Type>(|i| spread(i) as u8, DataType::UInt8)),
        ("u16", ints::<UInt16Type>(|i| spread(i) as u16, DataType::UInt16)),
        ("u32", ints::<UInt32Type>(|i| [u32::MAX, 1 << 31, 0, i as u32][i % 4], DataType::UInt32)),
        ("u64", ints::<UInt64Type>(|i| [u64::MAX, 1 << 63, 0, i as u64][i % 4], DataType::UInt64)),
        (
            "f16",
            ints::<Float16Type>(|i| [f16::MAX, f16::NEG_INFINITY, f16::NAN, f16::NEG_ZERO][i % 4], DataType::Float16),
        ),
        ("f32", ints::<Float32Type>(|i| [f32::MIN_POSITIVE, -0.0, f32::NAN, 0.1][i % 4], DataType::Float32)),
        ("f64", ints::<Float64Type>(|i| [f64::MAX, -0.0, f64::INFINITY, i as f64][i % 4], DataType::Float64)),
        ("text", Arc::new(StringArray::from_iter(items(text)))),
        ("binary", Arc::new(BinaryArray::from_iter(items(|i| vec![i as u8; i % 9])))),
        ("fixed", Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(fixed, 3).unwrap())),
        ("uuid", Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(uuid, 16).unwrap())),
        ("d9", ints::<Decimal128Type>(|i| i as i128 - 200, DataType::Decimal128(9, 2))),
        ("d18", ints::<Decimal128Type>(|i| -(i as i128) << 40, DataType::Decimal128(18, 4))),
        ("d38", ints::<Decimal128Type>(tall, DataType::Decimal128(38, 10))),
        ("d76", ints::<Decimal256Type>(wide, DataType::Decimal256(76, 3))),
        ("date", ints::<Date32Type>(|i| [i32::MIN, i32::MAX, 0, -1][i % 4], DataType::Date32)),
        ("time_ms", ints::<Time32MillisecondType>(|i| i as i32, DataType::Time32(TimeUnit::Millisecond))),
        ("time_us", ints::<Time64MicrosecondType>(|i| i as i64, DataType::Time64(TimeUnit::Microsecond))),
        ("time_ns", ints::<Time64NanosecondType>(|i| i as i64, DataType::Time64(TimeUnit::Nanosecond))),
        ("ts_ms", ints::<TimestampMillisecondType>(spread, naive(TimeUnit::Millisecond))),
        ("ts_us", ints::<TimestampMicrosecondType>(spread, zone(TimeUnit::Microsecond))),
        ("ts_ns", ints::<TimestampNanosecondType>(spread, naive(TimeUnit::Nanosecond))),
        ("nothing", Arc::new(StringArray::from(vec![None::<&str>; ROWS]))),
        ("null", Arc::new(NullArray::new(ROWS))),
    ]
}

/// Lists of 0 to 3 of an array's values over and over, some of them null.
fn lists(values: &ArrayRef) -> ArrayRef {
    let lengths: Vec<usize> = (0..ROWS).map(|i| if null_at(i + 1) { 0 } else { i % 4 }).collect();
    let total: usize = lengths.iter().sum();
    let indices = UInt32Array::from_iter_values((0..total as u32).map(|i| i % ROWS as u32));
    let values = arrow_select::take::take(values, &indices, None).unwrap();
    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let nulls = NullBuffer::from_iter((0..ROWS).map(|i| !null_at(i + 1)));
    Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths), values, Some(nulls)))
}

fn structs(fields: Vec<(&str, ArrayRef)>, nullable: bool) -> ArrayRef {
    let (names, arrays): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    let field = |(name, array): (&&str, &ArrayRef)| Field::new(*name, array.data_type().clone(), true);
    let fields: Fields = names.iter().zip(&arrays).map(field).collect();
    let nulls = nullable.then(|| NullBuffer::from_iter((0..ROWS).map(|i| i % 5 != 2)));
    Arc::new(StructArray::new(fields, arrays, nulls))
}

fn maps(values: ArrayRef) -> ArrayRef {
    let list = lists(&values);
    let list = list.as_list::<i32>();
    let keys = StringArray::from_iter_values((0..list.values().len()).map(text));
    let key = Field::new("key", DataType::Utf8, false);
    let value = Field::new("value", values.data_type().clone(), true);
    let entries = StructArray::new(vec![key, value].into(), vec![Arc::new(keys), list.values().clone()], None);
    let field = Arc::new(Field::new("entries", entries.data_type().clone(), false));
    Arc::new(MapArray::new(field, list.offsets().clone(), entries, list.nulls().cloned(), false))
}

fn nested() -> Vec<(&'static str, ArrayRef)> {
    let flat = flat();
    let of = |name: &str| flat.iter().find(|(other, _)| *other == name).unwrap().1.clone();
    let inner = structs(vec![("l", lists(&of("text"))), ("n", of("i32"))], true);
    vec![
        ("list", lists(&of("i64"))),
        ("texts", lists(&of("text"))),
        ("lists", lists(&lists(&of("u16")))),
        ("struct", structs(vec![("a", of("d76")), ("b", of("bool"))], false)),
        ("deep", structs(vec![("s", inner.clone()), ("t", of("ts_us"))], true)),
        ("structs", lists(&inner)),
        ("map", maps(of("d38"))),
        ("mapped", maps(structs(vec![("x", of("f64")), ("y", lists(&of("date")))], true))),
    ]
}

fn batch(columns: Vec<(&'static str, ArrayRef)>) -> RecordBatch {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..ROWS as i64).map(|row| row * 2)));
    let fields = |(name, array): (&'static str, ArrayRef)| (name, array, true);
    RecordBatch::try_from_iter_with_nullable(std::iter::once(("k", keys, false)).chain(columns.into_iter().map(fields)))
        .unwrap()
}

fn written(batch: &RecordBatch, properties: WriterProperties) -> Bytes {
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap().into()
}

/// A value by Arrow's own account of it.
fn value(array: &ArrayRef, row: usize) -> Value {
    if array.is_null(row) || *array.data_type() == DataType::Null {
        return Value::Null;
    }
    let items = |array: ArrayRef| (0..array.len()).map(|i| value(&array, i)).collect::<Vec<_>>();
    macro_rules! int {
        ($type:ty) => {
            Value::Int(array.as_primitive::<$type>().value(row).into())
        };
    }
    match array.data_type() {
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Int8 => int!(Int8Type),
        DataType::Int16 => int!(Int16Type),
        DataType::Int32 => int!(Int32Type),
        DataType::Int64 => int!(Int64Type),
        DataType::UInt8 => Value::UInt(array.as_primitive::<UInt8Type>().value(row).into()),
        DataType::UInt16 => Value::UInt(array.as_primitive::<UInt16Type>().value(row).into()),
        DataType::UInt32 => Value::UInt(array.as_primitive::<UInt32Type>().value(row).into()),
        DataType::UInt64 => Value::UInt(array.as_primitive::<UInt64Type>().value(row)),
        DataType::Float16 => Value::Float32(array.as_primitive::<Float16Type>().value(row).to_f32()),
        DataType::Float32 => Value::Float32(array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => Value::Float64(array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => Value::String(array.as_string::<i32>().value(row).to_owned()),
        DataType::Binary => Value::Binary(Bytes::copy_from_slice(array.as_binary::<i32>().value(row))),
        DataType::FixedSizeBinary(_) => Value::Binary(Bytes::copy_from_slice(array.as_fixed_size_binary().value(row))),
        DataType::Decimal128(..) => Value::Decimal(array.as_primitive::<Decimal128Type>().value_as_string(row).into()),
        DataType::Decimal256(..) => Value::Decimal(array.as_primitive::<Decimal256Type>().value_as_string(row).into()),
        DataType::Date32 => int!(Date32Type),
        DataType::Time32(TimeUnit::Millisecond) => int!(Time32MillisecondType),
        DataType::Time64(TimeUnit::Microsecond) => int!(Time64MicrosecondType),
        DataType::Time64(TimeUnit::Nanosecond) => int!(Time64NanosecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => int!(TimestampMillisecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => int!(TimestampMicrosecondType),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => int!(TimestampNanosecondType),
        DataType::List(_) => Value::List(items(array.as_list::<i32>().value(row))),
        DataType::Struct(_) => {
            Value::Struct(array.as_struct().columns().iter().map(|field| value(field, row)).collect())
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let (keys, values) = (items(entries.column(0).clone()), items(entries.column(1).clone()));
            Value::Map(keys.into_iter().zip(values).collect())
        }
        other => panic!("{other}"),
    }
}

fn ask(file: &Bytes, form: Form, rows: &[usize]) -> FileAnswer {
    let limits = Arc::new(Limits::default());
    let index = drive_bytes(Open::new(64 << 10, limits.clone()), file).unwrap();
    // Every other key is in no row; every tenth is asked for twice.
    let keys = rows.iter().flat_map(|row| {
        let key = *row as i64 * 2;
        [Some(key), Some(key + 1), (row % 10 == 0).then_some(key)].into_iter().flatten()
    });
    let keys = keys.map(Key::Int).collect();
    let query = Query { key_column: Some("k".to_owned()), keys, columns: None, form, row_limit: None };
    drive_bytes(Search::new(index, Arc::new(query), limits).unwrap(), file).unwrap()
}

fn check(what: &str, batch: &RecordBatch, file: &Bytes, rows: &[usize]) {
    let answer = ask(file, Form::CompactRows, rows);
    let twice = |row: &usize| std::iter::repeat_n(*row, if row.is_multiple_of(10) { 2 } else { 1 });
    let expected: Vec<usize> = rows.iter().flat_map(twice).collect();
    assert_eq!(answer.row_number, expected.iter().map(|row| *row as u64).collect::<Vec<_>>(), "{what}");
    let Body::Compact(compact) = &answer.body else { panic!("{what}: {answer:?}") };
    let decoded = decode_rows(&answer.schema, compact).unwrap();
    assert_eq!(decoded.len(), expected.len(), "{what}");
    for (row, values) in expected.iter().zip(&decoded) {
        for (i, column) in answer.schema.columns.iter().enumerate() {
            // As text, so that NaN equals itself and 0.0 is not -0.0.
            let (got, wanted) = (format!("{:?}", values[i]), format!("{:?}", value(batch.column(i), *row)));
            assert_eq!(got, wanted, "{what}: `{}` ({}) of row {row}", column.name, column.ty);
        }
    }
    let answer = ask(file, Form::Pages, rows);
    let Body::Pages(pages) = &answer.body else { panic!("{what}: {answer:?}") };
    let from_pages = decode_pages(pages, &answer.schema, &answer.row_number, &Limits::default()).unwrap();
    assert!(from_pages == *compact, "{what}: the pages form differs");
    let answer = ask(file, Form::ArrowIpc, rows);
    let Body::ArrowIpc(stream) = &answer.body else { panic!("{what}: {answer:?}") };
    let batches: Vec<RecordBatch> =
        StreamReader::try_new(stream.as_ref(), None).unwrap().collect::<Result<_, _>>().unwrap();
    let mut next = expected.iter();
    for got in &batches {
        for i in 0..got.num_rows() {
            let row = *next.next().unwrap();
            for column in 0..got.num_columns() {
                let (got, wanted) = (value(got.column(column), i), value(batch.column(column), row));
                assert_eq!(format!("{got:?}"), format!("{wanted:?}"), "{what}: Arrow, column {column} of row {row}");
            }
        }
    }
    assert!(next.next().is_none(), "{what}");
}

fn check_all(what: &str, columns: Vec<(&'static str, ArrayRef)>, properties: WriterPropertiesBuilder) {
    let batch = batch(columns);
    let file = written(&batch, properties.build());
    check(what, &batch, &file, &(0..ROWS).collect::<Vec<_>>());
    check(what, &batch, &file, &[3, 149, 150, 151, 229, 230, 231, 398, 399]);
    check(what, &batch, &file, &[200]);
}

fn layouts() -> Vec<(String, WriterPropertiesBuilder)> {
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::ZSTD(ZstdLevel::try_new(1).unwrap()),
        Compression::LZ4_RAW,
        Compression::GZIP(GzipLevel::try_new(1).unwrap()),
        Compression::BROTLI(BrotliLevel::try_new(1).unwrap()),
    ];
    let mut layouts = Vec::new();
    for (i, codec) in codecs.into_iter().enumerate() {
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            for (dictionary, page_rows, indexed) in [(true, 13, true), (false, 90, false), (i % 2 == 0, 1_000, true)] {
                let builder = WriterProperties::builder()
                    .set_writer_version(version)
                    .set_compression(codec)
                    .set_dictionary_enabled(dictionary)
                    .set_data_page_row_count_limit(page_rows)
                    .set_write_batch_size(page_rows)
                    .set_offset_index_disabled(!indexed);
                layouts.push((format!("{codec:?} {version:?} dictionary {dictionary} {page_rows} rows"), builder));
            }
        }
    }
    layouts
}

#[test]
fn flat_columns_come_back_as_they_were_written() {
    for (what, properties) in layouts() {
        check_all(&what, flat(), properties);
    }
}

#[test]
fn nested_columns_come_back_as_they_were_written() {
    for (what, properties) in layouts() {
        check_all(&what, nested(), properties);
    }
}

#[test]
fn encodings_come_back_as_they_were_written() {
    let ints = ["i8", "i16", "i32", "i64", "u32", "u64", "date", "time_us", "ts_ns", "d9", "d18"];
    let fixed = ["f32", "f64", "i32", "i64", "fixed", "uuid", "f16", "d38", "d76"];
    let encodings: [(Encoding, &[&str]); 5] = [
        (Encoding::DELTA_BINARY_PACKED, &ints),
        (Encoding::DELTA_BYTE_ARRAY, &["text", "binary", "uuid", "d76", "nothing"]),
        (Encoding::DELTA_LENGTH_BYTE_ARRAY, &["text", "binary", "nothing"]),
        (Encoding::BYTE_STREAM_SPLIT, &fixed),
        (Encoding::RLE, &["bool"]),
    ];
    for (encoding, names) in encodings {
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            for page_rows in [50, 1_000] {
                let mut builder = WriterProperties::builder()
                    .set_writer_version(version)
                    .set_data_page_row_count_limit(page_rows)
                    .set_write_batch_size(page_rows)
                    .set_dictionary_enabled(false);
                for name in names {
                    builder = builder.set_column_encoding((*name).into(), encoding);
                }
                let columns = flat().into_iter().filter(|(name, _)| names.contains(name)).collect();
                check_all(&format!("{encoding} {version:?} {page_rows} rows"), columns, builder);
            }
        }
    }
}

#[test]
fn a_dictionary_that_grows_too_large_goes_on_plain() {
    let properties = WriterProperties::builder()
        .set_dictionary_page_size_limit(200)
        .set_data_page_row_count_limit(40)
        .set_write_batch_size(20);
    check_all("fallback, flat", flat(), properties.clone());
    check_all("fallback, nested", nested(), properties);
}

/// All columns by `k`, in two orders; and in every tenth layout each flat column as the key.
fn check_ready(columns: fn() -> Vec<(&'static str, ArrayRef)>) {
    let names: Vec<&str> = columns().into_iter().map(|(name, _)| name).collect();
    let backwards: Vec<&str> = names.iter().rev().copied().collect();
    for (i, (what, properties)) in layouts().into_iter().enumerate() {
        let file = written(&batch(columns()), properties.build());
        let limits = Limits::default();
        let rows = same_rows::check(&file, ("k", None), &[None, Some(&backwards)], &limits);
        assert_eq!(rows, Ok(2 * ROWS), "{what}");
        for key in names.iter().filter(|_| i % 10 == 0) {
            match same_rows::check(&file, (key, Some(&["k"])), &[Some(&["k", key])], &limits) {
                Ok(rows) => assert!(rows >= ROWS / 2, "{what}, {key}: {rows}"),
                Err(error) => assert!(matches!(error, Error::Unsupported(_)), "{what}, {key}: {error}"),
            }
        }
    }
}

#[test]
fn flat_columns_are_the_same_when_lookup_ready() {
    check_ready(flat);
}

#[test]
fn nested_columns_are_the_same_when_lookup_ready() {
    check_ready(nested);
}
