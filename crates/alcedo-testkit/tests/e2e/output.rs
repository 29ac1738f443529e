//! One value, many outputs: every type of the grammar in every format of the command, as docs/FORMATS.md says.
//!
//! Knows the table of that page and writes what it expects by hand. Each output is read back by a reader that is not
//! the command's own writer: `csv`, the Arrow IPC reader, or plain text.

use std::sync::Arc;

use alcedo_testkit::cluster::TestCluster;
use arrow_array::builder::{Int32Builder, MapBuilder, StringBuilder};
use arrow_array::types::{ArrowPrimitiveType, Decimal256Type, Float16Type, IntervalDayTimeType, UInt64Type};
use arrow_array::*;
use arrow_schema::{DataType, Field, Fields};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::data_type::{FixedLenByteArray, FixedLenByteArrayType, Int32Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value as Json, json};

use crate::sample::cluster_of;

const FILE: &str = "lake/types.parquet";

/// A column of three values and a null, and how they print.
struct Column {
    name: &'static str,
    ty: &'static str,
    array: ArrayRef,
    text: [String; 3],
    json: [String; 3],
    neutral: [String; 3],
}

fn some<T>(values: [T; 3]) -> Vec<Option<T>> {
    values.map(Some).into_iter().chain([None]).collect()
}

fn quoted(text: &str) -> String {
    Json::from(text).to_string()
}

fn column<A: Array + 'static>(
    name: &'static str,
    ty: &'static str,
    array: A,
    text: [&str; 3],
    json: [String; 3],
    neutral: [String; 3],
) -> Column {
    Column { name, ty, array: Arc::new(array), text: text.map(str::to_owned), json, neutral }
}

/// Numbers of JSON, strings in the neutral form.
fn number<A: Array + 'static>(name: &'static str, ty: &'static str, array: A, text: [&str; 3]) -> Column {
    // What is no number of JSON is a string there, and exponents have their sign.
    let json = text.map(|text| match text.split_once('e') {
        _ if text.ends_with(['N', 'y']) => quoted(text),
        Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent}"),
        _ => text.to_owned(),
    });
    column(name, ty, array, text, json, text.map(quoted))
}

/// The same string everywhere.
fn string<A: Array + 'static>(name: &'static str, ty: &'static str, array: A, text: [&str; 3]) -> Column {
    column(name, ty, array, text, text.map(quoted), text.map(quoted))
}

/// A text for people, and a count for programs. What no calendar reaches is its count everywhere.
fn moment<A: Array + 'static>(
    name: &'static str,
    ty: &'static str,
    array: A,
    text: [&str; 3],
    counts: [&str; 3],
) -> Column {
    let json = [0, 1, 2].map(|i| if text[i] == counts[i] { counts[i].to_owned() } else { quoted(text[i]) });
    column(name, ty, array, text, json, counts.map(quoted))
}

/// Bytes: hexadecimal digits for people, Base64 in JSON.
fn binary<A: Array + 'static>(name: &'static str, ty: &'static str, array: A, values: [&[u8]; 3]) -> Column {
    let hex = values.map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let base64 = values.map(|bytes| quoted(&STANDARD.encode(bytes)));
    column(name, ty, array, hex.each_ref().map(String::as_str), base64.clone(), base64)
}

/// JSON everywhere, with strings for numbers in the neutral form.
fn nested<A: Array + 'static>(name: &'static str, ty: &'static str, array: A, forms: [[&str; 3]; 3]) -> Column {
    let [text, json, neutral] = forms;
    column(name, ty, array, text, json.map(str::to_owned), neutral.map(str::to_owned))
}

fn half(value: f32) -> <Float16Type as ArrowPrimitiveType>::Native {
    <Float16Type as ArrowPrimitiveType>::Native::from_f32(value)
}

fn numbers() -> Vec<Column> {
    let big = 9_007_199_254_740_993_i64;
    let bigger = ["9007199254740993", "-9223372036854775808", "9223372036854775807"];
    let unsigned = ["9007199254740993", "0", "18446744073709551615"];
    let nines = "9".repeat(76);
    let wide = |text: &str| <Decimal256Type as ArrowPrimitiveType>::Native::from_string(text);
    let d9 = Decimal128Array::from(some([1_250, -5, 999_999_999]));
    let d38 = Decimal128Array::from(some([10_i128.pow(38) - 1, 1 - 10_i128.pow(38), 0]));
    let d76 = Decimal256Array::from(vec![wide(&nines), wide(&format!("-{nines}")), wide("0"), None]);
    vec![
        column(
            "bool",
            "bool",
            BooleanArray::from(some([true, false, true])),
            ["true", "false", "true"],
            ["true", "false", "true"].map(str::to_owned),
            ["true", "false", "true"].map(str::to_owned),
        ),
        number("i8", "int8", Int8Array::from(some([1, -128, 127])), ["1", "-128", "127"]),
        number("i16", "int16", Int16Array::from(some([1, -32_768, 32_767])), ["1", "-32768", "32767"]),
        number("i32", "int32", Int32Array::from(some([0, i32::MIN, i32::MAX])), ["0", "-2147483648", "2147483647"]),
        number("i64", "int64", Int64Array::from(some([big, i64::MIN, i64::MAX])), bigger),
        number("u8", "uint8", UInt8Array::from(some([1, 0, 255])), ["1", "0", "255"]),
        number("u16", "uint16", UInt16Array::from(some([1, 0, 65_535])), ["1", "0", "65535"]),
        number("u32", "uint32", UInt32Array::from(some([1, 0, u32::MAX])), ["1", "0", "4294967295"]),
        number("u64", "uint64", UInt64Array::from(some([big as u64, 0, u64::MAX])), unsigned),
        number(
            "f16",
            "float16",
            Float16Array::from(some([half(1.5), half(-0.0), half(f32::NAN)])),
            ["1.5", "-0.0", "NaN"],
        ),
        number(
            "f32",
            "float32",
            Float32Array::from(some([0.1, f32::INFINITY, f32::NEG_INFINITY])),
            ["0.1", "Infinity", "-Infinity"],
        ),
        number("f64", "float64", Float64Array::from(some([0.1, -0.0, f64::NAN])), ["0.1", "-0.0", "NaN"]),
        number(
            "f64_far",
            "float64",
            Float64Array::from(some([1e300, 5e-324, f64::MAX])),
            ["1e300", "5e-324", "1.7976931348623157e308"],
        ),
        number(
            "f64_round",
            "float64",
            Float64Array::from(some([1.0, 16_777_217.0, 1e16])),
            ["1.0", "16777217.0", "1e16"],
        ),
        string("d9", "decimal(9,2)", d9.with_precision_and_scale(9, 2).unwrap(), ["12.50", "-0.05", "9999999.99"]),
        string(
            "d38",
            "decimal(38,10)",
            d38.with_precision_and_scale(38, 10).unwrap(),
            ["9999999999999999999999999999.9999999999", "-9999999999999999999999999999.9999999999", "0.0000000000"],
        ),
        string(
            "d76",
            "decimal(76,0)",
            d76.with_precision_and_scale(76, 0).unwrap(),
            [&nines, &format!("-{nines}"), "0"],
        ),
    ]
}

fn texts_and_bytes() -> Vec<Column> {
    let texts = ["a \"quote\", a comma,\na line\tand a tab", "", "\u{1F426} ünïcode \0 nul, ctrl \u{1b}[2J"];
    let interval = |days, millis| Some(IntervalDayTimeType::make_value(days, millis));
    let intervals = [[2_u32, 3_500], [0, 0], [1, 1]]
        .map(|[days, millis]| [0_u32, days, millis].map(u32::to_le_bytes).concat())
        .map(|bytes| quoted(&STANDARD.encode(bytes)));
    let spans = ["P2DT3.5S", "PT0S", "P1DT0.001S"];
    vec![
        string("str", "string", StringArray::from(some([texts[0], texts[1], texts[2]])), texts),
        binary(
            "bin",
            "binary",
            BinaryArray::from_opt_vec(vec![Some(&b"\0\xff"[..]), Some(b""), Some(b"abc"), None]),
            [b"\0\xff", b"", b"abc"],
        ),
        binary(
            "fixed",
            "fixed[3]",
            FixedSizeBinaryArray::try_from_sparse_iter_with_size(
                [Some(b"\0\x01\xff"), Some(b"abc"), Some(b"\xff\xfe\xfd"), None].into_iter(),
                3,
            )
            .unwrap(),
            [b"\0\x01\xff", b"abc", b"\xff\xfe\xfd"],
        ),
        column(
            "interval",
            "interval",
            IntervalDayTimeArray::from(vec![interval(2, 3_500), interval(0, 0), interval(1, 1), None]),
            spans,
            spans.map(quoted),
            intervals,
        ),
    ]
}

fn moments() -> Vec<Column> {
    vec![
        moment(
            "date",
            "date32",
            Date32Array::from(some([20_484, -1, i32::MAX])),
            ["2026-01-31", "1969-12-31", "2147483647"],
            ["20484", "-1", "2147483647"],
        ),
        moment(
            "time_ms",
            "time[ms]",
            Time32MillisecondArray::from(some([1, 0, 86_399_999])),
            ["00:00:00.001", "00:00:00.000", "23:59:59.999"],
            ["1", "0", "86399999"],
        ),
        moment(
            "time_ns",
            "time[ns]",
            Time64NanosecondArray::from(some([1, 0, 86_399_999_999_999])),
            ["00:00:00.000000001", "00:00:00.000000000", "23:59:59.999999999"],
            ["1", "0", "86399999999999"],
        ),
        moment(
            "ts_ms",
            "timestamp[ms]",
            TimestampMillisecondArray::from(some([1, -1, i64::MAX])),
            ["1970-01-01T00:00:00.001", "1969-12-31T23:59:59.999", "9223372036854775807"],
            ["1", "-1", "9223372036854775807"],
        ),
        moment(
            "ts_us_utc",
            "timestamp[us,UTC]",
            TimestampMicrosecondArray::from(some([1_769_854_830_000_000, i64::MIN, 0])).with_timezone("UTC"),
            ["2026-01-31T10:20:30.000000Z", "-9223372036854775808", "1970-01-01T00:00:00.000000Z"],
            ["1769854830000000", "-9223372036854775808", "0"],
        ),
        moment(
            "ts_ns",
            "timestamp[ns]",
            TimestampNanosecondArray::from(some([i64::MIN, i64::MAX, 0])),
            ["1677-09-21T00:12:43.145224192", "2262-04-11T23:47:16.854775807", "1970-01-01T00:00:00.000000000"],
            ["-9223372036854775808", "9223372036854775807", "0"],
        ),
        // Parquet has no durations: that the number is one is told by the writer's Arrow schema.
        moment(
            "duration",
            "duration[ms]",
            DurationMillisecondArray::from(some([1_500, -90_000, 0])),
            ["PT1.5S", "-PT90S", "PT0S"],
            ["1500", "-90000", "0"],
        ),
    ]
}

fn nests() -> Vec<Column> {
    let list = ListArray::from_iter_primitive::<UInt64Type, _, _>(vec![
        Some(vec![Some(u64::MAX), None]),
        Some(vec![]),
        Some(vec![Some(1)]),
        None,
    ]);
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    for entries in [vec![("b", Some(1)), ("a", None)], vec![], vec![("", Some(2))]] {
        for (key, value) in entries {
            map.keys().append_value(key);
            map.values().append_option(value);
        }
        map.append(true).unwrap();
    }
    map.append(false).unwrap();
    let fields = Fields::from(vec![
        Field::new("odd \"name\"", DataType::Float64, true),
        Field::new("x y", DataType::Binary, true),
        Field::new("plain", DataType::Date32, true),
    ]);
    let children: Vec<ArrayRef> = vec![
        Arc::new(Float64Array::from(vec![Some(-0.0), Some(f64::NAN), None, None])),
        Arc::new(BinaryArray::from_opt_vec(vec![Some(&b"\0\xff"[..]), None, Some(b""), None])),
        Arc::new(Date32Array::from(vec![Some(20_484), Some(i32::MAX), None, None])),
    ];
    let structs = StructArray::new(fields, children, Some(vec![true, true, true, false].into()));
    let odd = |forms: [&str; 3]| forms.map(|form| form.replace("odd", "odd \\\"name\\\"").replace("xy", "x y"));
    let json = odd([
        r#"{"odd":-0.0,"xy":"AP8=","plain":"2026-01-31"}"#,
        r#"{"odd":"NaN","xy":null,"plain":2147483647}"#,
        r#"{"odd":null,"xy":"","plain":null}"#,
    ]);
    let text = json.clone().map(|json| json.replace("AP8=", "00ff"));
    let neutral = odd([
        r#"{"odd":"-0.0","xy":"AP8=","plain":"20484"}"#,
        r#"{"odd":"NaN","xy":null,"plain":"2147483647"}"#,
        r#"{"odd":null,"xy":"","plain":null}"#,
    ]);
    let lists = ["[18446744073709551615,null]", "[]", "[1]"];
    let maps = [r#"[["b",1],["a",null]]"#, "[]", r#"[["",2]]"#];
    let struct_type = r#"struct<"odd \"name\"":float64,"x y":binary,plain:date32>"#;
    vec![
        nested("list", "list<uint64>", list, [lists, lists, [r#"["18446744073709551615",null]"#, "[]", r#"["1"]"#]]),
        nested(
            "map",
            "map<string,int32>",
            map.finish(),
            [maps, maps, [r#"[["b","1"],["a",null]]"#, "[]", r#"[["","2"]]"#]],
        ),
        Column { name: "struct", ty: struct_type, array: Arc::new(structs), text, json, neutral },
    ]
}

fn columns() -> Vec<Column> {
    [numbers(), texts_and_bytes(), moments(), nests()].into_iter().flatten().collect()
}

fn batch(columns: &[Column]) -> RecordBatch {
    let key: ArrayRef = Arc::new(Int32Array::from(vec![0, 1, 2, 3]));
    let fields = columns.iter().map(|column| (column.name, Arc::clone(&column.array), true));
    RecordBatch::try_from_iter_with_nullable([("k", key, false)].into_iter().chain(fields)).unwrap()
}

fn types_file(columns: &[Column]) -> Bytes {
    let batch = batch(columns);
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap().into()
}

fn cluster(columns: &[Column]) -> TestCluster {
    cluster_of(vec![("types.parquet".to_owned(), types_file(columns)), ("uuid.parquet".to_owned(), uuid_file())])
}

async fn printed(cluster: &TestCluster, format: &str, more: &[&str]) -> String {
    let args = ["get", FILE, "0", "1", "2", "3", "-k", "k", "-q", "-o", format];
    let said = cluster.run(&[args.as_slice(), more].concat()).await.unwrap();
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{format}");
    said.stdout
}

#[tokio::test]
async fn json_lines_and_the_json_document_hold_every_value_exactly() {
    let columns = columns();
    let cluster = cluster(&columns);
    let line = |row: usize| {
        let value = |column: &Column| column.json.get(row).map_or("null", String::as_str).to_owned();
        let fields = columns.iter().map(|column| format!(",\"{}\":{}", column.name, value(column)));
        format!("{{\"k\":{row}{}}}", fields.collect::<String>())
    };
    let lines = printed(&cluster, "jsonl", &[]).await;
    for (row, printed) in lines.lines().enumerate() {
        assert_eq!(printed, line(row));
    }
    assert_eq!(lines.lines().count(), 4);
    let document = printed(&cluster, "json", &[]).await;
    for row in 0..4 {
        let values = columns.iter().map(|column| column.json.get(row).map_or("null", String::as_str));
        let wanted = format!("[{row},{}]", values.collect::<Vec<_>>().join(","));
        assert!(document.contains(&wanted), "{wanted} is not in {document}");
    }
    let document: Json = serde_json::from_str(&document).unwrap();
    for (at, column) in columns.iter().enumerate() {
        assert_eq!(document["columns"][at + 1], json!({ "name": column.name, "type": column.ty }));
    }
}

#[tokio::test]
async fn csv_and_tsv_hold_every_value_and_null_is_an_empty_field() {
    let columns = columns();
    let cluster = cluster(&columns);
    for (format, delimiter) in [("csv", b','), ("tsv", b'\t')] {
        let printed = printed(&cluster, format, &[]).await;
        let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(printed.as_bytes());
        let names: Vec<&str> = std::iter::once("k").chain(columns.iter().map(|column| column.name)).collect();
        assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>(), names);
        for (row, record) in reader.records().enumerate() {
            let record = record.unwrap();
            for (column, field) in columns.iter().zip(record.iter().skip(1)) {
                assert_eq!(field, column.text.get(row).map_or("", String::as_str), "{format} {} {row}", column.name);
            }
        }
        // An empty string in a line of one field is told from a line without fields.
        let alone = self::printed(&cluster, format, &["-s", "str"]).await;
        let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(alone.as_bytes());
        assert_eq!(reader.records().map(Result::unwrap).count(), 4, "{alone:?}");
    }
}

#[tokio::test]
async fn a_table_shows_the_same_texts_and_what_steers_terminals_as_escapes() {
    let columns = columns();
    let table = printed(&cluster(&columns), "table", &[]).await;
    let lines: Vec<Vec<&str>> = table
        .lines()
        .filter_map(|line| line.strip_prefix('│')?.strip_suffix('│'))
        .map(|line| line.split('│').map(str::trim).collect())
        .collect();
    let [names, types, rows @ ..] = lines.as_slice() else { panic!("{table}") };
    assert_eq!(rows.len(), 4, "{table}");
    for (at, column) in columns.iter().enumerate() {
        assert_eq!((names[at + 1], types[at + 1]), (column.name, column.ty));
        for (row, cells) in rows.iter().enumerate() {
            let wanted = column.text.get(row).map_or("NULL", String::as_str);
            let escaped = wanted.replace('\n', "\\n").replace('\t', "\\t").replace('\0', "\\u{0}");
            assert_eq!(cells[at + 1], escaped.replace('\u{1b}', "\\u{1b}"), "{} {row}", column.name);
        }
    }
}

#[tokio::test]
async fn an_arrow_stream_has_the_writers_own_arrays() {
    let columns = columns();
    let cluster = cluster(&columns);
    let answer = cluster.client().lookup(FILE).key_column("k").keys(0..4_i64).form(alcedo_client::Form::ArrowIpc);
    let stream = answer.await.unwrap().files[0].arrow.clone().unwrap();
    let mut reader = arrow_ipc::reader::StreamReader::try_new(std::io::Cursor::new(stream), None).unwrap();
    let read = reader.next().unwrap().unwrap();
    assert!(reader.next().is_none());
    for column in &columns {
        let got = read.column_by_name(column.name).unwrap();
        match column.name {
            // Parquet has no such type of Arrow's.
            "interval" => {
                assert_eq!(*got.data_type(), DataType::FixedSizeBinary(12));
                continue;
            }
            name => assert_eq!(got.data_type(), column.array.data_type(), "{name}"),
        }
        // Debug output tells -0.0 from 0.0 and finds a NaN equal to itself.
        assert_eq!(format!("{got:?}"), format!("{:?}", column.array), "{}", column.name);
    }
}

#[tokio::test]
async fn the_neutral_form_holds_every_value_as_programs_compare_it() {
    let columns = columns();
    let cluster = cluster(&columns);
    let home = tempfile::tempdir().unwrap();
    let requests = home.path().join("requests.jsonl");
    let line = |key: usize| json!({ "path": FILE, "key": { "column": "k", "value": key.to_string() }, "op": "eq" });
    std::fs::write(&requests, (0..4).map(|key| format!("{}\n", line(key))).collect::<String>()).unwrap();
    let said = cluster.run(&["get", "--requests", requests.to_str().unwrap()]).await.unwrap();
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    for (row, line) in said.stdout.lines().enumerate() {
        let reply: Json = serde_json::from_str(line).unwrap();
        assert_eq!(reply["row_numbers"], json!([row]));
        for (at, column) in columns.iter().enumerate() {
            assert_eq!(reply["types"][at + 1], column.ty);
            let wanted = column.neutral.get(row).map_or("null", String::as_str);
            assert_eq!(reply["rows"][0][at + 1].to_string(), wanted, "{} {row}", column.name);
        }
    }
    assert_eq!(said.stdout.lines().count(), 4);
}

#[tokio::test]
async fn raw_is_the_bytes_of_a_value() {
    let columns = columns();
    let cluster = cluster(&columns);
    for (name, row) in [("str", 0), ("str", 2), ("d38", 0), ("i64", 1), ("date", 0), ("struct", 1)] {
        let column = columns.iter().find(|column| column.name == name).unwrap();
        let args = ["get", FILE, &row.to_string(), "-k", "k", "-q", "-o", "raw", "-s", name];
        let said = cluster.run(&args).await.unwrap();
        assert_eq!((said.code, said.stdout), (Some(0), column.text[row].clone()), "{name} {row}");
    }
    let said = cluster.run(&["get", FILE, "2", "-k", "k", "-q", "-o", "raw", "-s", "bin"]).await.unwrap();
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), "abc"));
}

/// Arrow's writer has no UUIDs.
fn uuid_file() -> Bytes {
    let schema = "message m { required int32 k; optional fixed_len_byte_array(16) u (UUID); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut keys = group.next_column().unwrap().unwrap();
    keys.typed::<Int32Type>().write_batch(&[0, 1], None, None).unwrap();
    keys.close().unwrap();
    let mut uuids = group.next_column().unwrap().unwrap();
    let value = FixedLenByteArray::from((0..16).collect::<Vec<u8>>());
    uuids.typed::<FixedLenByteArrayType>().write_batch(&[value], Some(&[1, 0]), None).unwrap();
    uuids.close().unwrap();
    group.close().unwrap();
    writer.into_inner().unwrap().into()
}

#[tokio::test]
async fn a_uuid_is_the_same_text_everywhere() {
    let cluster = cluster(&[]);
    let uuid = "00010203-0405-0607-0809-0a0b0c0d0e0f";
    for (format, wanted) in [
        ("csv", format!("k,u\n0,{uuid}\n1,\n")),
        ("jsonl", format!("{{\"k\":0,\"u\":\"{uuid}\"}}\n{{\"k\":1,\"u\":null}}\n")),
    ] {
        let args = ["get", "lake/uuid.parquet", "0", "1", "-k", "k", "-q", "-o", format];
        assert_eq!(cluster.run(&args).await.unwrap().stdout, wanted);
    }
    let found = cluster.run(&["get", "lake/uuid.parquet", uuid, "-k", "u", "-q", "-s", "k"]).await.unwrap();
    assert_eq!(found.stdout, "{\"k\":0}\n");
}
