//! Values as the corpus of golden lookups writes them, and when two of them are the same.
//!
//! Knows JSON and types. It must not know files or lookups. Values compare by value: writers and readers differ in the
//! unit of a timestamp, the scale of a decimal and the digits of a float, and all of them are right.

use alcedo_client::{Type, Value, uuid_text};
use base64::Engine as _;
use serde_json::{Value as Json, json};

/// A value as the corpus writes it.
pub(crate) fn neutral(value: &Value, ty: &Type) -> Json {
    match (value, ty) {
        (Value::Null, _) => Json::Null,
        (Value::Bool(value), _) => json!(value),
        (Value::Int(value), _) => json!(value.to_string()),
        (Value::UInt(value), _) => json!(value.to_string()),
        (Value::Float32(value), _) => json!(float(f64::from(*value), value.to_string())),
        (Value::Float64(value), _) => json!(float(*value, value.to_string())),
        (Value::Decimal(text), _) => json!(text),
        (Value::String(text), _) => json!(text),
        (Value::Binary(bytes), _) => json!(base64::engine::general_purpose::STANDARD.encode(bytes)),
        (Value::Uuid(uuid), _) => json!(uuid_text(uuid)),
        (Value::List(items), Type::List(ty)) => items.iter().map(|item| neutral(item, ty)).collect(),
        (Value::Struct(values), Type::Struct(fields)) => {
            let field = |(value, (name, ty)): (&Value, &(String, Type))| (name.clone(), neutral(value, ty));
            Json::Object(values.iter().zip(fields).map(field).collect())
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

/// Whether a value that was read is the one that is wanted.
pub(crate) fn same(got: &Json, got_type: &Type, want: &Json, want_type: &Type) -> bool {
    if got == want && got_type == want_type {
        return true;
    }
    match (got, want, got_type, want_type) {
        (Json::String(a), Json::String(b), _, _) => same_text(a, got_type, b, want_type),
        (Json::Array(a), Json::Array(b), Type::List(t), Type::List(u)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, t, b, u))
        }
        (Json::Object(a), Json::Object(b), Type::Struct(t), Type::Struct(u)) => {
            let fields = a.values().zip(b.values()).zip(t.iter().zip(u));
            a.len() == b.len() && fields.into_iter().all(|((a, b), (t, u))| same(a, &t.1, b, &u.1))
        }
        _ => got == want,
    }
}

fn same_text(a: &str, a_type: &Type, b: &str, b_type: &Type) -> bool {
    match (a_type, b_type) {
        (Type::Float16 | Type::Float32 | Type::Float64, _) => {
            let (a, b): (f64, f64) = (a.parse().unwrap(), b.parse().unwrap());
            a == b || a.is_nan() && b.is_nan()
        }
        (Type::Timestamp { unit: u, .. }, Type::Timestamp { unit: v, .. })
        | (Type::Time(u), Type::Time(v))
        | (Type::Duration(u), Type::Duration(v)) => {
            let nanos =
                |text: &str, per_second: i64| text.parse::<i128>().unwrap() * i128::from(1_000_000_000 / per_second);
            nanos(a, u.per_second()) == nanos(b, v.per_second())
        }
        (Type::Decimal { .. }, _) => digits(a) == digits(b),
        _ => a == b,
    }
}

/// A decimal without the zeros that its scale adds.
fn digits(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

#[test]
fn other_values_are_not_the_same() {
    let ty = |text: &str| text.parse::<Type>().unwrap();
    let cases = [
        ("1.50", "decimal(9,2)", "1.5", "decimal(9,1)", true),
        ("1.51", "decimal(9,2)", "1.5", "decimal(9,1)", false),
        ("100", "decimal(9,0)", "1", "decimal(9,0)", false),
        ("1", "timestamp[ms]", "1000", "timestamp[us]", true),
        ("1", "timestamp[ms]", "1", "timestamp[us]", false),
        ("0.1", "float64", "1e-1", "float64", true),
        ("NaN", "float64", "NaN", "float32", true),
        ("a", "string", "b", "string", false),
    ];
    for (a, a_type, b, b_type, wanted) in cases {
        assert_eq!(same(&json!(a), &ty(a_type), &json!(b), &ty(b_type)), wanted, "{a} {a_type} and {b} {b_type}");
    }
    assert!(!same(&json!(["1"]), &ty("list<int8>"), &json!(["1", "2"]), &ty("list<int16>")));
}
