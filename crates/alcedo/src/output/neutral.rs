//! One value in the neutral spelling of the machine form (docs/FORMATS.md).
//!
//! Part of the output layer. Programs compare these values with those of other readers, so nothing is prettified: what
//! counts something stays a count, in the unit that the type names, and whatever JSON's numbers could round is a
//! string. It knows values and types; it must not know requests or answers.

use alcedo_lookup::schema::Type;
use alcedo_lookup::value::Value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json};

use super::value_text::{BytesStyle, distinct_names, text};

/// A value as JSON. One that does not fit its type still has a spelling: its parts are then taken as untyped.
pub(crate) fn neutral(value: &Value, ty: &Type) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(count) => Json::String(count.to_string()),
        Value::UInt(count) => Json::String(count.to_string()),
        Value::Binary(bytes) => Json::String(STANDARD.encode(bytes)),
        Value::Float32(_) | Value::Float64(_) | Value::Decimal(_) | Value::String(_) | Value::Uuid(_) => {
            text(value, ty, BytesStyle::Base64).map_or(Json::Null, |text| Json::String(text.into_owned()))
        }
        Value::List(items) => {
            let item_type = if let Type::List(item) = ty { item } else { &Type::Null };
            items.iter().map(|item| neutral(item, item_type)).collect()
        }
        Value::Struct(values) => {
            let fields = if let Type::Struct(fields) = ty { fields.as_slice() } else { &[] };
            let names = distinct_names(fields.iter().map(|(name, _)| name.as_str()));
            let pairs = names.into_iter().zip(fields).zip(values);
            Json::Object(pairs.map(|((name, (_, ty)), value)| (name, neutral(value, ty))).collect::<Map<_, _>>())
        }
        Value::Map(entries) => {
            let (key_type, value_type) =
                if let Type::Map(key, value) = ty { (&**key, &**value) } else { (&Type::Null, &Type::Null) };
            let pair =
                |(key, value): &(Value, Value)| Json::Array(vec![neutral(key, key_type), neutral(value, value_type)]);
            entries.iter().map(pair).collect()
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn cases() -> Vec<(&'static str, Value, &'static str)> {
        let binary = |bytes: &'static [u8]| Value::Binary(Bytes::from_static(bytes));
        let string = |text: &str| Value::String(text.into());
        vec![
            ("bool", Value::Bool(false), "false"),
            ("int8", Value::Int(-128), r#""-128""#),
            ("int64", Value::Int((1 << 53) + 1), r#""9007199254740993""#),
            ("int64", Value::Int(i64::MIN), r#""-9223372036854775808""#),
            ("uint64", Value::UInt(u64::MAX), r#""18446744073709551615""#),
            ("float16", Value::Float32(0.5), r#""0.5""#),
            ("float32", Value::Float32(0.1), r#""0.1""#),
            ("float32", Value::Float32(f32::NEG_INFINITY), r#""-Infinity""#),
            ("float64", Value::Float64(1.0), r#""1.0""#),
            ("float64", Value::Float64(-0.0), r#""-0.0""#),
            ("float64", Value::Float64(1e300), r#""1e300""#),
            ("float64", Value::Float64(f64::NAN), r#""NaN""#),
            ("float64", Value::Float64(f64::INFINITY), r#""Infinity""#),
            ("decimal(38,2)", Value::Decimal("-12.50".into()), r#""-12.50""#),
            ("string", string("a \"b\"\n"), r#""a \"b\"\n""#),
            ("binary", binary(&[0, 255]), r#""AP8=""#),
            ("fixed[3]", binary(b"abc"), r#""YWJj""#),
            ("interval", binary(&[1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]), r#""AQAAAAIAAAAAAAAA""#),
            ("uuid", Value::Uuid(std::array::from_fn(|i| i as u8)), r#""00010203-0405-0607-0809-0a0b0c0d0e0f""#),
            ("date32", Value::Int(20_484), r#""20484""#),
            ("time[us]", Value::Int(1), r#""1""#),
            ("timestamp[ms,UTC]", Value::Int(-1), r#""-1""#),
            ("duration[s]", Value::Int(90), r#""90""#),
            ("list<timestamp[us]>", Value::List(vec![Value::Int(0), Value::Null]), r#"["0",null]"#),
            (
                "struct<b:int32,\"a c\":binary,b:bool>",
                Value::Struct(vec![Value::Int(1), binary(&[255]), Value::Bool(true)]),
                r#"{"b":"1","a c":"/w==","b_2":true}"#,
            ),
            (
                "map<string,list<date32>>",
                Value::Map(vec![(string("k"), Value::List(vec![Value::Int(3)])), (string("k"), Value::Null)]),
                r#"[["k",["3"]],["k",null]]"#,
            ),
            ("null", Value::Null, "null"),
            ("int64", Value::Null, "null"),
        ]
    }

    #[test]
    fn every_type_has_one_spelling() {
        for (ty, value, wanted) in cases() {
            let ty: Type = ty.parse().unwrap();
            assert_eq!(neutral(&value, &ty).to_string(), wanted, "{ty}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_its_type_still_has_a_spelling() {
        assert_eq!(neutral(&Value::List(vec![Value::Int(1)]), &Type::Bool).to_string(), r#"["1"]"#);
        assert_eq!(neutral(&Value::Struct(vec![Value::Int(1)]), &Type::Bool).to_string(), "{}");
    }
}
