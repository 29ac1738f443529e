//! Columns that readers stumble over, in whole files: intervals, annotations of later versions, and leaves that share a
//! struct. What is read is compared with the plain values that the parquet crate's column readers give.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;

use alcedo_lookup::answer::{Body, FileAnswer, Form, decode_pages};
use alcedo_lookup::error::Error;
use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::key::Key;
use alcedo_lookup::limits::Limits;
use alcedo_lookup::machine::drive_bytes;
use alcedo_lookup::open::Open;
use alcedo_lookup::rows::decode_rows;
use alcedo_lookup::search::{Query, Search};
use alcedo_lookup::value::Value;
use bytes::Bytes;
use parquet::data_type::{ByteArray, ByteArrayType, FixedLenByteArrayType, Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

fn open(file: &Bytes) -> Arc<FileIndex> {
    drive_bytes(Open::new(64 << 10, Arc::new(Limits::default())), file).unwrap()
}

fn ask(
    file: &Bytes,
    index: &Arc<FileIndex>,
    key: (&str, &str),
    columns: Option<&[&str]>,
    form: Form,
) -> Result<FileAnswer, Error> {
    let query = Query {
        key_column: Some(key.0.to_owned()),
        keys: vec![Key::from(key.1)],
        columns: columns.map(|columns| columns.iter().map(|column| (*column).to_owned()).collect()),
        form,
        row_limit: None,
    };
    drive_bytes(Search::new(Arc::clone(index), Arc::new(query), Arc::new(Limits::default()))?, file)
}

/// The answer's types, and its rows by both ways to them: written here, and decoded from data pages as a client does.
fn rows(file: &Bytes, key: (&str, &str), columns: &[&str]) -> (Vec<String>, Vec<Vec<Value>>) {
    rows_of(file, key, Some(columns))
}

fn rows_of(file: &Bytes, key: (&str, &str), columns: Option<&[&str]>) -> (Vec<String>, Vec<Vec<Value>>) {
    let limits = Limits::default();
    let stored = FileIndex::decode(&open(file).encode(), &limits).map(Arc::new).unwrap();
    let answers = [(Form::CompactRows, open(file)), (Form::Pages, open(file)), (Form::CompactRows, stored)];
    let mut all = answers.map(|(form, index)| {
        let answer = ask(file, &index, key, columns, form).unwrap();
        let compact = match &answer.body {
            Body::Compact(bytes) => bytes.clone(),
            Body::Pages(pages) => decode_pages(pages, &answer.schema, &answer.row_number, &limits).unwrap(),
            Body::ArrowIpc(_) => panic!("not asked for"),
        };
        let types = answer.schema.columns.iter().map(|column| column.ty.to_string()).collect();
        (types, decode_rows(&answer.schema, &compact).unwrap())
    });
    let [first, pages, stored] = &mut all;
    assert_eq!((&*first, &*first), (&*pages, &*stored));
    std::mem::take(first)
}

#[test]
fn intervals_of_another_writer_keep_all_their_twelve_bytes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/files/duck_interval.parquet");
    let file = Bytes::from(std::fs::read(path).unwrap());
    let reader = SerializedFileReader::new(file.clone()).unwrap();
    let group = reader.get_row_group(0).unwrap();
    let parquet::column::reader::ColumnReader::FixedLenByteArrayColumnReader(mut column) =
        group.get_column_reader(2).unwrap()
    else {
        panic!("the third column is of fixed length");
    };
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    column.read_records(1_000, Some(&mut levels), None, &mut values).unwrap();
    let mut values = values.into_iter();
    for (row, level) in levels.iter().enumerate() {
        let wanted = if *level == 0 {
            Value::Null
        } else {
            Value::Binary(Bytes::copy_from_slice(values.next().unwrap().data()))
        };
        if row % 97 == 0 {
            let (types, rows) = rows(&file, ("h", &row.to_string()), &["iv", "h"]);
            assert_eq!(types, ["interval", "int64"]);
            assert_eq!(rows, [[wanted, Value::Int(row as i64)]], "row {row}");
        }
    }
}

/// A file of one row group, whose columns are written by the function.
fn written(schema: &str, write: impl FnOnce(&mut SerializedFileWriter<Vec<u8>>)) -> Bytes {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(WriterProperties::default())).unwrap();
    write(&mut writer);
    writer.into_inner().unwrap().into()
}

#[test]
fn intervals_are_found_and_answered_as_their_bytes() {
    let interval = |month: u8| [month, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0];
    let file = written("message m { required fixed_len_byte_array(12) iv (INTERVAL); required int32 n; }", |writer| {
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let values: Vec<_> = (0..4).map(|month| ByteArray::from(interval(month).to_vec()).into()).collect();
        column.typed::<FixedLenByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int32Type>().write_batch(&[10, 11, 12, 13], None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    });
    let hex: String = interval(3).iter().map(|byte| format!("{byte:02x}")).collect();
    let (types, rows) = rows(&file, ("iv", &format!("hex:{hex}")), &["n", "iv"]);
    assert_eq!(types, ["int32", "interval"]);
    assert_eq!(rows, [[Value::Int(13), Value::Binary(Bytes::copy_from_slice(&interval(3)))]]);
}

#[test]
fn leaves_of_one_struct_are_answered_in_the_order_that_was_asked() {
    let schema = "message m { required int64 k; required group s { required int64 a; optional group t { \
                  required int64 b; optional binary c (UTF8); } required int64 d; } required int64 last; }";
    let file = written(schema, |writer| {
        let mut group = writer.next_row_group().unwrap();
        for (i, levels) in [None, None, Some(vec![1_i16, 0]), Some(vec![2, 0]), None, None].into_iter().enumerate() {
            let mut column = group.next_column().unwrap().unwrap();
            let all = [i as i64 * 10, i as i64 * 10 + 1];
            if i == 3 {
                column.typed::<ByteArrayType>().write_batch(&["bird".into()], levels.as_deref(), None).unwrap();
            } else {
                let values = if levels.is_some() { &all[..1] } else { &all[..] };
                column.typed::<Int64Type>().write_batch(values, levels.as_deref(), None).unwrap();
            }
            column.close().unwrap();
        }
        group.close().unwrap();
    });
    let bird = || Value::String("bird".into());
    let int = Value::Int;
    let found = |key: &str, columns: &[&str]| rows(&file, ("k", key), columns).1.remove(0);
    assert_eq!(found("0", &["s.d", "last", "s.t.c", "s.a"]), [int(40), int(50), bird(), int(10)]);
    assert_eq!(found("1", &["s.t.c", "s.t.b", "s.d"]), [Value::Null, Value::Null, int(41)]);
    assert_eq!(found("0", &["s.t.b", "s.t.b"]), [int(20), int(20)]);
    assert_eq!(rows(&file, ("s.d", "41"), &["k"]).1, [[int(1)]]);
    let whole = rows(&file, ("k", "0"), &["s.t.b", "s"]);
    assert_eq!(whole.0, ["int64", "struct<a:int64,t:struct<b:int64,c:string>,d:int64>"]);
}

#[test]
fn all_columns_of_a_file_with_one_name_twice_are_both() {
    let file = written("message m { required int32 k; required int32 v; required int32 v; }", |writer| {
        let mut group = writer.next_row_group().unwrap();
        for i in 0..3 {
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<Int32Type>().write_batch(&[i * 10, i * 10 + 1], None, None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    });
    let int = Value::Int;
    assert_eq!(rows_of(&file, ("k", "1"), None).1, [[int(1), int(11), int(21)]]);
    assert_eq!(rows(&file, ("k", "1"), &["v", "v"]).1, [[int(11), int(11)]], "by name, the first is meant each time");
    assert_eq!(rows(&file, ("k", "1"), &["k", "v", "v"]).1, [[int(1), int(11), int(11)]]);
}
