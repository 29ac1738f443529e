//! One value as text, for tables, CSV and TSV, and as JSON.
//!
//! Part of the output layer. A value stands apart from its type: counts become dates and times here. Nothing is
//! rounded: integers print all digits, floats the shortest text that reads back as the same number, decimals their
//! digits.

use std::borrow::Cow;
use std::collections::HashSet;

use alcedo_lookup::schema::Type;
use alcedo_lookup::value::{Value, uuid_text};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value as Json};

use super::calendar;

/// How `binary` and `fixed` values print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BytesStyle {
    /// Lower-case hexadecimal digits (default of table, csv, tsv)
    Hex,
    /// Standard Base64 with padding (default of json, jsonl)
    Base64,
    /// UTF-8; what is not becomes U+FFFD
    Utf8,
}

impl BytesStyle {
    fn text(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            Self::Base64 => STANDARD.encode(bytes),
            Self::Utf8 => String::from_utf8_lossy(bytes).into_owned(),
        }
    }
}

/// The text of a value in a table or a CSV field; `None` is SQL null. Nested values are JSON.
pub(crate) fn text<'a>(value: &'a Value, ty: &Type, bytes: BytesStyle) -> Option<Cow<'a, str>> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => value.to_string().into(),
        Value::Int(count) => calendar_text(*count, ty).unwrap_or_else(|| count.to_string()).into(),
        Value::UInt(value) => value.to_string().into(),
        Value::Float32(value) => float32_text(*value).into(),
        Value::Float64(value) => float64_text(*value).into(),
        Value::Decimal(digits) => Cow::Borrowed(digits),
        Value::String(text) => Cow::Borrowed(text),
        Value::Binary(value) => binary_text(value, ty, bytes).into(),
        Value::Uuid(uuid) => uuid_text(uuid).into(),
        Value::List(_) | Value::Struct(_) | Value::Map(_) => json(value, ty, bytes).to_string().into(),
    })
}

/// A value as JSON: integers are exact, decimals and what JSON's numbers cannot say (`NaN`, `Infinity`) are strings, a
/// map is an array of `[key, value]` pairs because Parquet's keys are neither strings nor distinct.
pub(crate) fn json(value: &Value, ty: &Type, bytes: BytesStyle) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(count) => calendar_text(*count, ty).map_or_else(|| Json::from(*count), Json::String),
        Value::UInt(value) => Json::from(*value),
        // The shortest digits of the f32, read as f64, print as the same digits; a widened f32 would print its error
        // too.
        Value::Float32(value) => float_json(value.to_string().parse().unwrap_or(f64::NAN), || float32_text(*value)),
        Value::Float64(value) => float_json(*value, || float64_text(*value)),
        Value::Decimal(digits) => Json::String(digits.to_string()),
        Value::String(text) => Json::String(text.clone()),
        Value::Binary(value) => Json::String(binary_text(value, ty, bytes)),
        Value::Uuid(uuid) => Json::String(uuid_text(uuid)),
        Value::List(items) => {
            let item_type = if let Type::List(item) = ty { item } else { &Type::Null };
            items.iter().map(|item| json(item, item_type, bytes)).collect()
        }
        Value::Struct(values) => {
            let fields = if let Type::Struct(fields) = ty { fields.as_slice() } else { &[] };
            let names = distinct_names(fields.iter().map(|(name, _)| name.as_str()));
            let pairs = names.into_iter().zip(fields).zip(values);
            Json::Object(pairs.map(|((name, (_, ty)), value)| (name, json(value, ty, bytes))).collect::<Map<_, _>>())
        }
        Value::Map(entries) => {
            let (key_type, value_type) =
                if let Type::Map(key, value) = ty { (&**key, &**value) } else { (&Type::Null, &Type::Null) };
            let pair = |(key, value): &(Value, Value)| {
                Json::Array(vec![json(key, key_type, bytes), json(value, value_type, bytes)])
            };
            entries.iter().map(pair).collect()
        }
    }
}

/// Names made distinct: the second `a` becomes `a_2`, the third `a_3`, or the next such name that is free.
pub(crate) fn distinct_names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let names: Vec<&str> = names.collect();
    let mut taken: HashSet<String> = HashSet::with_capacity(names.len());
    let spelled: HashSet<&str> = names.iter().copied().collect();
    let mut distinct = Vec::with_capacity(names.len());
    for name in names {
        let mut candidate = name.to_owned();
        let mut count = 2;
        while taken.contains(&candidate) || (candidate != name && spelled.contains(candidate.as_str())) {
            candidate = format!("{name}_{count}");
            count += 1;
        }
        taken.insert(candidate.clone());
        distinct.push(candidate);
    }
    distinct
}

fn calendar_text(count: i64, ty: &Type) -> Option<String> {
    match ty {
        Type::Date32 => calendar::date(count),
        Type::Time(unit) => calendar::time(count, *unit),
        Type::Timestamp { unit, utc } => calendar::timestamp(count, *unit, *utc),
        Type::Duration(unit) => Some(calendar::duration(count, *unit)),
        _ => None,
    }
}

fn binary_text(value: &[u8], ty: &Type, bytes: BytesStyle) -> String {
    let interval = if *ty == Type::Interval { calendar::interval(value) } else { None };
    interval.unwrap_or_else(|| bytes.text(value))
}

fn float_json(value: f64, text: impl FnOnce() -> String) -> Json {
    Number::from_f64(value).map_or_else(|| Json::String(text()), Json::Number)
}

fn float64_text(value: f64) -> String {
    if value.is_infinite() { infinity(value > 0.0) } else { format!("{value:?}") }
}

fn float32_text(value: f32) -> String {
    if value.is_infinite() { infinity(value > 0.0) } else { format!("{value:?}") }
}

fn infinity(positive: bool) -> String {
    if positive { "Infinity" } else { "-Infinity" }.to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// (type, value, text, JSON) with the default style of bytes: hex in text, Base64 in JSON.
    fn cases() -> Vec<(&'static str, Value, &'static str, &'static str)> {
        let binary = |bytes: &'static [u8]| Value::Binary(Bytes::from_static(bytes));
        let string = |text: &str| Value::String(text.into());
        vec![
            ("bool", Value::Bool(true), "true", "true"),
            ("int8", Value::Int(-128), "-128", "-128"),
            ("int16", Value::Int(7), "7", "7"),
            ("int32", Value::Int(7), "7", "7"),
            ("int64", Value::Int(i64::MIN), "-9223372036854775808", "-9223372036854775808"),
            ("int64", Value::Int((1 << 53) + 1), "9007199254740993", "9007199254740993"),
            ("uint8", Value::UInt(255), "255", "255"),
            ("uint16", Value::UInt(1), "1", "1"),
            ("uint32", Value::UInt(1), "1", "1"),
            ("uint64", Value::UInt(u64::MAX), "18446744073709551615", "18446744073709551615"),
            ("float16", Value::Float32(0.5), "0.5", "0.5"),
            ("float32", Value::Float32(0.1), "0.1", "0.1"),
            ("float32", Value::Float32(3.4e38), "3.4e38", "3.4e+38"),
            ("float32", Value::Float32(f32::NEG_INFINITY), "-Infinity", "\"-Infinity\""),
            ("float64", Value::Float64(0.1), "0.1", "0.1"),
            ("float64", Value::Float64(1.0), "1.0", "1.0"),
            ("float64", Value::Float64(-0.0), "-0.0", "-0.0"),
            ("float64", Value::Float64(f64::NAN), "NaN", "\"NaN\""),
            ("float64", Value::Float64(f64::INFINITY), "Infinity", "\"Infinity\""),
            ("decimal(38,2)", Value::Decimal("-12.50".into()), "-12.50", "\"-12.50\""),
            ("string", string("a \"b\"\n"), "a \"b\"\n", r#""a \"b\"\n""#),
            ("binary", binary(&[0, 255]), "00ff", "\"AP8=\""),
            ("fixed[3]", binary(b"abc"), "616263", "\"YWJj\""),
            (
                "uuid",
                Value::Uuid(std::array::from_fn(|i| i as u8)),
                "00010203-0405-0607-0809-0a0b0c0d0e0f",
                "\"00010203-0405-0607-0809-0a0b0c0d0e0f\"",
            ),
            ("date32", Value::Int(20_484), "2026-01-31", "\"2026-01-31\""),
            ("date32", Value::Int(i64::from(i32::MAX)), "2147483647", "2147483647"),
            ("time[ms]", Value::Int(1), "00:00:00.001", "\"00:00:00.001\""),
            ("time[us]", Value::Int(1), "00:00:00.000001", "\"00:00:00.000001\""),
            ("timestamp[us]", Value::Int(0), "1970-01-01T00:00:00.000000", "\"1970-01-01T00:00:00.000000\""),
            ("timestamp[ms,UTC]", Value::Int(0), "1970-01-01T00:00:00.000Z", "\"1970-01-01T00:00:00.000Z\""),
            ("duration[ms]", Value::Int(1_500), "PT1.5S", "\"PT1.5S\""),
            ("interval", binary(&[1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]), "P1M2D", "\"P1M2D\""),
            (
                "list<date32>",
                Value::List(vec![Value::Int(0), Value::Null]),
                "[\"1970-01-01\",null]",
                "[\"1970-01-01\",null]",
            ),
            (
                "struct<a:int32,\"b c\":binary>",
                Value::Struct(vec![Value::Int(1), binary(&[255])]),
                "{\"a\":1,\"b c\":\"ff\"}",
                "{\"a\":1,\"b c\":\"/w==\"}",
            ),
            (
                "map<string,list<bool>>",
                Value::Map(vec![(string("k"), Value::List(vec![Value::Bool(false)])), (string("k"), Value::Null)]),
                "[[\"k\",[false]],[\"k\",null]]",
                "[[\"k\",[false]],[\"k\",null]]",
            ),
        ]
    }

    #[test]
    fn every_type_has_its_text_and_its_json() {
        for (ty, value, as_text, as_json) in cases() {
            let ty: Type = ty.parse().unwrap();
            assert_eq!(text(&value, &ty, BytesStyle::Hex).unwrap(), as_text, "{ty}");
            assert_eq!(json(&value, &ty, BytesStyle::Base64).to_string(), as_json, "{ty}");
        }
        for ty in ["null", "int64", "list<int8>"] {
            let ty: Type = ty.parse().unwrap();
            assert_eq!(text(&Value::Null, &ty, BytesStyle::Hex), None);
            assert_eq!(json(&Value::Null, &ty, BytesStyle::Hex), Json::Null);
        }
    }

    #[test]
    fn bytes_can_be_read_as_utf8() {
        let value = Value::Binary(Bytes::from_static(b"a\xff"));
        assert_eq!(text(&value, &Type::Binary, BytesStyle::Utf8).unwrap(), "a\u{fffd}");
    }

    #[test]
    fn a_value_that_does_not_fit_its_type_still_prints() {
        assert_eq!(json(&Value::List(vec![Value::Int(1)]), &Type::Bool, BytesStyle::Hex).to_string(), "[1]");
        assert_eq!(json(&Value::Struct(vec![Value::Int(1)]), &Type::Bool, BytesStyle::Hex).to_string(), "{}");
    }

    #[test]
    fn repeated_names_get_a_number_that_is_free() {
        assert_eq!(distinct_names(["a", "b", "a", "a"].into_iter()), ["a", "b", "a_2", "a_3"]);
        assert_eq!(distinct_names(["a", "a", "a_2"].into_iter()), ["a", "a_3", "a_2"]);
    }
}
