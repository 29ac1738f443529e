//! Every lookup of the corpus through the pure crate: a file in memory, no I/O, rows and pages form alike.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use bytes::Bytes;
use serde_json::{Value as Json, json};

use alcedo_lookup::answer::{Body, FileAnswer, Form, KeyStatus, decode_pages};
use alcedo_lookup::error::Error;
use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::key::Key;
use alcedo_lookup::limits::Limits;
use alcedo_lookup::machine::drive_bytes;
use alcedo_lookup::open::Open;
use alcedo_lookup::rows::decode_rows;
use alcedo_lookup::schema::Type;
use alcedo_lookup::search::{Query, Search};
use alcedo_lookup::value::{Value, uuid_text};

/// A value as the corpus writes it.
fn neutral(value: &Value, ty: &Type) -> Json {
    let base64 = |bytes: &[u8]| json!(base64::engine::general_purpose::STANDARD.encode(bytes));
    match (value, ty) {
        (Value::Null, _) => Json::Null,
        (Value::Bool(value), _) => json!(value),
        (Value::Int(value), _) => json!(value.to_string()),
        (Value::UInt(value), _) => json!(value.to_string()),
        (Value::Float32(value), _) => json!(float(f64::from(*value), value.to_string())),
        (Value::Float64(value), _) => json!(float(*value, value.to_string())),
        (Value::Decimal(text), _) => json!(text),
        (Value::String(text), _) => json!(text),
        (Value::Binary(bytes), _) => base64(bytes),
        (Value::Uuid(uuid), _) => json!(uuid_text(uuid)),
        (Value::List(items), Type::List(ty)) => items.iter().map(|item| neutral(item, ty)).collect(),
        (Value::Struct(values), Type::Struct(fields)) => {
            Json::Object(values.iter().zip(fields).map(|(v, (name, ty))| (name.clone(), neutral(v, ty))).collect())
        }
        (Value::Map(entries), Type::Map(key, ty)) => {
            entries.iter().map(|(k, v)| json!([neutral(k, key), neutral(v, ty)])).collect()
        }
        (value, ty) => panic!("{value:?} is no {ty}"),
    }
}

fn float(value: f64, shortest: String) -> String {
    match value {
        v if v.is_nan() => "NaN".into(),
        v if v == f64::INFINITY => "Infinity".into(),
        v if v == f64::NEG_INFINITY => "-Infinity".into(),
        _ => shortest,
    }
}

/// Values compare by value: floats numerically, timestamps as instants across units, decimals across scales.
fn same(got: &Json, got_type: &Type, want: &Json, want_type: &Type) -> bool {
    if got == want && got_type == want_type {
        return true;
    }
    match (got, want) {
        (Json::String(a), Json::String(b)) => match (got_type, want_type) {
            (Type::Float16 | Type::Float32 | Type::Float64, _) => {
                let (a, b): (f64, f64) = (a.parse().unwrap(), b.parse().unwrap());
                a == b || a.is_nan() && b.is_nan()
            }
            (Type::Timestamp { unit: u, .. }, Type::Timestamp { unit: v, .. })
            | (Type::Time(u), Type::Time(v))
            | (Type::Duration(u), Type::Duration(v)) => {
                let nanos = |text: &str, per_second: i64| {
                    text.parse::<i128>().unwrap() * i128::from(1_000_000_000 / per_second)
                };
                nanos(a, u.per_second()) == nanos(b, v.per_second())
            }
            (Type::Decimal { .. }, _) => {
                let trim = |text: &str| match text.contains('.') {
                    true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                    false => text.to_owned(),
                };
                trim(a) == trim(b)
            }
            _ => a == b,
        },
        (Json::Array(a), Json::Array(b)) => match (got_type, want_type) {
            (Type::List(t), Type::List(u)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, t, b, u)),
            _ => got == want,
        },
        (Json::Object(a), Json::Object(b)) => match (got_type, want_type) {
            (Type::Struct(t), Type::Struct(u)) => {
                a.len() == b.len()
                    && a.values().zip(b.values()).zip(t.iter().zip(u)).all(|((a, b), (t, u))| same(a, &t.1, b, &u.1))
            }
            _ => got == want,
        },
        _ => got == want,
    }
}

fn class(error: &Error) -> &'static str {
    match error {
        Error::NotParquet(_) => "not_parquet",
        Error::Corrupt(_) | Error::Checksum(_) | Error::Limit(_) => "corrupt",
        Error::Unsupported(_) => "unsupported",
        Error::Encrypted(_) => "encrypted",
        Error::NoSuchColumn { .. } => "no_such_column",
        _ => "other",
    }
}

fn lookup(
    index: &Result<Arc<FileIndex>, Error>,
    file: &Bytes,
    (query, form): (&Json, Form),
    limits: &Arc<Limits>,
) -> Result<FileAnswer, Error> {
    let index = index.clone()?;
    let key = &query["key"];
    let value = match (&key["value"], query["op"].as_str().unwrap()) {
        (_, "is_null") => Some(Key::Null),
        (Json::Null, _) => None,
        (Json::String(text), _) => Some(match key["type"].as_str().unwrap() {
            ty if ty == "binary" || ty.starts_with("fixed") => Key::Text(format!("base64:{text}")),
            _ => Key::Text(text.clone()),
        }),
        (Json::Bool(value), _) => Some(Key::Bool(*value)),
        (other, _) => panic!("{other}"),
    };
    let columns =
        query["project"].as_array().map(|names| names.iter().map(|n| n.as_str().unwrap().to_owned()).collect());
    let query = Query {
        key_column: Some(key["column"].as_str().unwrap().to_owned()),
        keys: value.into_iter().collect(),
        columns,
        form,
        row_limit: None,
    };
    drive_bytes(Search::new(index, Arc::new(query), Arc::clone(limits))?, file)
}

fn check_rows(answer: &FileAnswer, expect: &Json) -> Result<(), String> {
    let numbers: Vec<u64> = expect["row_numbers"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    if answer.row_number != numbers {
        return Err(format!("row numbers {:?}, expected {numbers:?}", answer.row_number));
    }
    let compact = match &answer.body {
        Body::Compact(bytes) => bytes.clone(),
        Body::Pages(pages) => {
            decode_pages(pages, &answer.schema, &answer.row_number, &Limits::default()).map_err(|e| e.to_string())?
        }
        Body::ArrowIpc(_) => panic!("not asked for"),
    };
    let rows = decode_rows(&answer.schema, &compact).map_err(|e| e.to_string())?;
    let wanted = expect["columns"].as_array().unwrap();
    let names: Vec<&str> = answer.schema.columns.iter().map(|c| c.name.as_str()).collect();
    let wanted_names: Vec<&str> = wanted.iter().map(|c| c["name"].as_str().unwrap()).collect();
    if names != wanted_names {
        return Err(format!("columns {names:?}, expected {wanted_names:?}"));
    }
    for (row, want) in rows.iter().zip(expect["rows"].as_array().unwrap()) {
        for ((value, column), (want, want_column)) in
            row.iter().zip(&answer.schema.columns).zip(want.as_array().unwrap().iter().zip(wanted))
        {
            let want_type: Type = want_column["type"].as_str().unwrap().parse().expect("a type");
            let got = neutral(value, &column.ty);
            if !same(&got, &column.ty, want, &want_type) {
                return Err(format!("`{}` is {got} ({}), expected {want} ({want_type})", column.name, column.ty));
            }
        }
    }
    if rows.len() != numbers.len() {
        return Err(format!("{} rows for {} row numbers", rows.len(), numbers.len()));
    }
    Ok(())
}

fn check(result: &Result<FileAnswer, Error>, expect: &Json) -> Result<(), String> {
    let status = expect["status"].as_str().unwrap();
    match (status, result) {
        ("any", _) | ("rows_or_error", Err(_)) => Ok(()),
        ("error", Err(error)) if class(error) == expect["class"] => Ok(()),
        ("error", Err(error)) => Err(format!("{error}: expected class {}", expect["class"])),
        ("error", Ok(answer)) => Err(format!("{} rows, expected an error", answer.row_number.len())),
        ("ok", Err(_)) if expect["alt_error"] == true => Ok(()),
        (_, Err(error)) => Err(error.to_string()),
        (_, Ok(answer)) => {
            let mut accepted = vec![expect.clone()];
            accepted.extend(expect["alternatives"].as_array().into_iter().flatten().map(|alternative| {
                let mut whole = expect.clone();
                whole.as_object_mut().unwrap().extend(alternative.as_object().unwrap().clone());
                whole
            }));
            let results: Vec<_> = accepted.iter().map(|expect| check_rows(answer, expect)).collect();
            results.iter().find(|r| r.is_ok()).unwrap_or(&results[0]).clone()
        }
    }
}

#[test]
fn every_lookup_of_the_corpus_has_the_right_rows_or_the_right_error() {
    check_all(&Limits::default(), Ok);
}

#[test]
fn a_search_through_windows_that_hold_one_data_page_answers_alike() {
    check_all(&Limits { scan_bytes: 1, speculate_bytes: 0, ..Limits::default() }, Ok);
}

#[test]
fn an_index_that_was_stored_and_read_back_before_each_lookup_answers_alike() {
    // What one lookup learned goes through the codec with the index and is what the next one works with.
    let limits = Limits::default();
    check_all(&limits, |index| FileIndex::decode(&index.encode(), &limits).map(Arc::new));
}

/// All lookups, each with what the function makes of the index that the lookups before it left.
fn check_all(limits: &Limits, prepare: impl Fn(Arc<FileIndex>) -> Result<Arc<FileIndex>, Error>) {
    let limits = Arc::new(limits.clone());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let queries = std::fs::read_to_string(root.join("queries.jsonl")).unwrap();
    let mut files: HashMap<String, (Bytes, Result<Arc<FileIndex>, Error>)> = HashMap::new();
    let (mut checked, mut failures) = (0, Vec::new());
    for line in queries.lines() {
        let query: Json = serde_json::from_str(line).unwrap();
        let name = query["file"].as_str().unwrap().to_owned();
        let (bytes, index) = files.entry(name.clone()).or_insert_with(|| {
            let bytes = Bytes::from(std::fs::read(root.join("files").join(&name)).unwrap());
            let index = drive_bytes(Open::new(64 << 10, Arc::new(Limits::default())), &bytes);
            (bytes, index)
        });
        for form in [Form::CompactRows, Form::Pages] {
            *index = index.clone().map(|index| prepare(index).expect("an index that can be prepared"));
            let result = lookup(index, bytes, (&query, form), &limits);
            checked += 1;
            if let Err(problem) = check(&result, &query["expect"]) {
                failures.push(format!("{} {form:?}: {problem}", query["qid"]));
            }
            if let Ok(answer) = result {
                let found = answer.statuses.iter().any(|status| *status != KeyStatus::NotFound);
                assert_eq!(found, !answer.row_number.is_empty(), "{}", query["qid"]);
            }
        }
    }
    assert!(failures.is_empty(), "{} of {checked} lookups:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(checked, 2 * 791);
}

#[test]
fn a_duration_that_only_the_writers_arrow_schema_tells_is_one_in_every_form() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/files/polars_small_pages.parquet");
    let file = Bytes::from(std::fs::read(file).unwrap());
    let limits = Arc::new(Limits::default());
    let opened = drive_bytes(Open::new(64 << 10, Arc::clone(&limits)), &file).unwrap();
    // It goes where the schema goes: into the stored index and to the reader of data pages.
    let index = Arc::new(FileIndex::decode(&opened.encode(), &limits).unwrap());
    let ask = |form| {
        let (keys, columns) = (vec![Key::Int(-5000)], Some(vec!["dur".to_owned()]));
        let query = Query { key_column: Some("k".to_owned()), keys, columns, form, row_limit: Some(1) };
        drive_bytes(Search::new(Arc::clone(&index), Arc::new(query), Arc::clone(&limits)).unwrap(), &file).unwrap()
    };
    let rows = ask(Form::CompactRows);
    assert_eq!(rows.schema.columns[0].ty.to_string(), "duration[us]");
    let Body::Compact(compact) = &rows.body else { panic!("not asked for") };
    let pages = ask(Form::Pages);
    let Body::Pages(body) = &pages.body else { panic!("not asked for") };
    assert_eq!(decode_pages(body, &pages.schema, &pages.row_number, &limits).unwrap(), compact);
    let Body::ArrowIpc(stream) = ask(Form::ArrowIpc).body else { panic!("not asked for") };
    let batch = arrow_ipc::reader::StreamReader::try_new(&stream[..], None).unwrap().next().unwrap().unwrap();
    assert_eq!(*batch.column(0).data_type(), arrow_schema::DataType::Duration(arrow_schema::TimeUnit::Microsecond));
}
