//! Rows as plain JSON, the form in which Alcedo, its peers and the truth are compared.
//!
//! Knows the truth's rows and the client's values. Integers, texts, booleans, nulls and lists are JSON's own; a struct
//! is a list, a map a list of pairs, bytes are hex, and floating-point numbers and decimals are their digits, because
//! not every reader of JSON keeps a number's last bit.

use alcedo_client::{Answer, Value, uuid_text};
use alcedo_testkit::lake::{SampleLake, TruthRow};
use serde_json::{Value as Json, json};

/// The columns of the lake, in its order.
pub(crate) const COLUMNS: [&str; 10] =
    ["id", "user", "name", "city", "score", "amount", "created", "flags", "active", "tags"];

/// All values of a row as they must be read.
pub(crate) fn of_truth(row: &TruthRow) -> Json {
    json!([
        row.id,
        row.user,
        row.name,
        row.city,
        format!("{:?}", row.score),
        amount(row.amount),
        row.created_micros,
        row.flags,
        row.active,
        row.tags,
    ])
}

/// Hundredths as a decimal.
fn amount(hundredths: i128) -> String {
    let sign = if hundredths < 0 { "-" } else { "" };
    let magnitude = hundredths.unsigned_abs();
    format!("{sign}{}.{:02}", magnitude / 100, magnitude % 100)
}

/// One value of the client's.
pub(crate) fn of_value(value: &Value) -> Json {
    let list = |values: &[Value]| values.iter().map(of_value).collect::<Json>();
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(value),
        Value::UInt(value) => json!(value),
        Value::Float32(value) => json!(format!("{:?}", f64::from(*value))),
        Value::Float64(value) => json!(format!("{value:?}")),
        Value::Decimal(digits) => json!(digits),
        Value::String(text) => json!(text),
        Value::Binary(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
        Value::Uuid(bytes) => json!(uuid_text(bytes)),
        Value::List(values) | Value::Struct(values) => list(values),
        Value::Map(entries) => entries.iter().map(|(key, value)| json!([of_value(key), of_value(value)])).collect(),
    }
}

/// One row with where it was found: key, file name, number in the file, values.
pub(crate) type Found = (u32, String, u64, Json);

/// The rows of an answer, by key and then in listing order.
pub(crate) fn of_answer(answer: &Answer) -> Vec<Found> {
    let found = answer.rows().map(|(file, row)| {
        let name = file.url.rsplit('/').next().unwrap().to_owned();
        (row.key_index, name, row.row_number, row.values.iter().map(of_value).collect())
    });
    let mut found: Vec<Found> = found.collect();
    found.sort_by_key(|(key, ..)| *key);
    found
}

/// Where the truth says that a row is, as the answer to this key.
pub(crate) fn found(lake: &SampleLake, key: u32, row: &TruthRow) -> Found {
    let file = lake.file_of_row(row.number).unwrap();
    let number = lake.rows_of_file(file).binary_search(&row.number).unwrap() as u64;
    (key, SampleLake::file_name(file), number, of_truth(row))
}
