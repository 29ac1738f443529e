//! One line of `--requests` as a lookup, or why it is none.
//!
//! Knows JSON and the fields of a lookup. It must not know how a key is brought to its column, nor who is asked.

use alcedo_lookup::schema::Type;
use serde::Deserialize;
use serde_json::Value as Json;

/// A lookup that a line asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    /// A file or a prefix, as the line has it.
    pub(super) path: String,
    /// The key column.
    pub(super) column: String,
    /// What the line says of the key's type, if it says something.
    pub(super) ty: Option<Type>,
    /// The key.
    pub(super) wanted: Wanted,
    /// The columns of the answer; empty: all.
    pub(super) select: Vec<String>,
}

/// The key of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The rows whose key column is null.
    Null,
    /// A boolean.
    Bool(bool),
    /// Any other value, in its neutral spelling.
    Text(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with path, key, op and select")]
struct LineFields {
    path: String,
    key: KeyFields,
    op: Op,
    select: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with column, type and value")]
struct KeyFields {
    column: String,
    #[serde(rename = "type")]
    ty: Option<String>,
    #[serde(default)]
    value: Json,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Op {
    Eq,
    IsNull,
}

impl Request {
    /// The lookup of a line, with or without its end.
    ///
    /// # Errors
    /// What is wrong with the line, in words.
    pub(super) fn parse(line: &[u8]) -> Result<Self, String> {
        // A derived reader would take an array for an object, by position.
        if line.trim_ascii_start().first() != Some(&b'{') {
            return Err("not a lookup: a line is one JSON object".to_owned());
        }
        let LineFields { path, key, op, select } =
            serde_json::from_slice(line).map_err(|error| format!("not a lookup: {error}"))?;
        if key.column.is_empty() {
            return Err("key.column is empty: name the key column".to_owned());
        }
        if select.as_ref().is_some_and(Vec::is_empty) {
            return Err("select names no column: write null for all of them".to_owned());
        }
        let ty = key.ty.map(|text| advice(&text)).transpose()?;
        let wanted = match op {
            Op::IsNull => Wanted::Null,
            Op::Eq => Wanted::new(key.value)?,
        };
        Ok(Self { path, column: key.column, ty, wanted, select: select.unwrap_or_default() })
    }
}

impl Wanted {
    fn new(value: Json) -> Result<Self, String> {
        match value {
            Json::Bool(value) => Ok(Self::Bool(value)),
            Json::String(text) => Ok(Self::Text(text)),
            Json::Number(number) if number.is_i64() || number.is_u64() => Ok(Self::Text(number.to_string())),
            Json::Number(_) => {
                Err("key.value is a number that JSON may have rounded: write its digits as a string".to_owned())
            }
            Json::Null => {
                Err("key.value is null, which equals nothing: ask with op is_null, or give a value".to_owned())
            }
            Json::Array(_) | Json::Object(_) => {
                Err("key.value is not a single value: a key column holds single values".to_owned())
            }
        }
    }
}

/// A type in any of the grammar's spellings: blanks count for nothing, and every time zone stands for UTC because the
/// values are instants.
fn advice(text: &str) -> Result<Type, String> {
    let mut spelled: String = if text.contains('"') { text.trim().to_owned() } else { without_blanks(text) };
    let zoned = spelled.strip_prefix("timestamp[").and_then(|rest| rest.split_once(','));
    if let Some((unit, zone)) = zoned
        && zone.len() > 1
        && zone.ends_with(']')
    {
        spelled = format!("timestamp[{unit},UTC]");
    }
    spelled.parse().map_err(|error| format!("key.type: {error}; leave it out to have the column's"))
}

fn without_blanks(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_whitespace()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Request, String> {
        Request::parse(line.as_bytes())
    }

    fn key(key: &str, op: &str) -> Result<Request, String> {
        parse(&format!(r#"{{"path":"lake/a.parquet","key":{key},"op":"{op}","select":null}}"#))
    }

    #[test]
    fn a_line_is_a_lookup() {
        let line = "{\"path\":\"lake/\",\"key\":{\"column\":\"s.id\",\"type\":\"int64\",\"value\":\"7\"},\
                    \"op\":\"eq\",\"select\":[\"a\",\"*\"]}\r\n";
        let wanted = Request {
            path: "lake/".into(),
            column: "s.id".into(),
            ty: Some(Type::Int64),
            wanted: Wanted::Text("7".into()),
            select: vec!["a".into(), "*".into()],
        };
        assert_eq!(parse(line), Ok(wanted));
        let all = key(r#"{"column":"c","type":null,"value":"x"}"#, "eq").unwrap();
        assert_eq!((all.ty, all.select.len()), (None, 0));
    }

    #[test]
    fn keys_are_strings_booleans_and_exact_numbers() {
        let wanted = |value: &str| key(&format!(r#"{{"column":"c","value":{value}}}"#), "eq").map(|r| r.wanted);
        assert_eq!(wanted("true"), Ok(Wanted::Bool(true)));
        assert_eq!(wanted(r#""""#), Ok(Wanted::Text(String::new())));
        assert_eq!(wanted("-9007199254740993"), Ok(Wanted::Text("-9007199254740993".into())));
        assert_eq!(wanted("18446744073709551615"), Ok(Wanted::Text("18446744073709551615".into())));
        for (value, problem) in [
            ("18446744073709551616", "write its digits as a string"),
            ("0.1", "write its digits as a string"),
            ("null", "ask with op is_null"),
            ("[1]", "not a single value"),
            ("{}", "not a single value"),
        ] {
            assert!(wanted(value).unwrap_err().contains(problem), "{value}");
        }
        assert_eq!(key(r#"{"column":"c"}"#, "is_null").unwrap().wanted, Wanted::Null);
        assert!(key(r#"{"column":"c"}"#, "eq").is_err());
    }

    #[test]
    fn types_may_be_spelled_in_any_way_of_the_grammar() {
        let ty = |text: &str| key(&format!(r#"{{"column":"c","type":"{text}","value":"1"}}"#), "eq").map(|r| r.ty);
        for (text, wanted) in [
            ("uint8", "uint8"),
            (" decimal(18, 4) ", "decimal(18,4)"),
            ("timestamp[us, UTC]", "timestamp[us,UTC]"),
            ("timestamp[ns,Europe/Lisbon]", "timestamp[ns,UTC]"),
            ("timestamp[s,+01:00]", "timestamp[s,UTC]"),
            ("fixed[16]", "fixed[16]"),
            ("list<struct<a: int8>>", "list<struct<a:int8>>"),
        ] {
            assert_eq!(ty(text), Ok(Some(wanted.parse().unwrap())), "{text}");
        }
        for text in ["", "int", "timestamp[us,]", "timestamp[h]", "timestamp", "fixed[n]"] {
            assert!(ty(text).unwrap_err().starts_with("key.type: "), "{text}");
        }
    }

    #[test]
    fn what_is_no_lookup_is_said() {
        let good = r#"{"column":"c","value":"1"}"#;
        for (line, problem) in [
            ("", "a line is one JSON object"),
            ("lake/a.parquet 7", "a line is one JSON object"),
            (r#"["lake/",{"column":"c","value":"1"},"eq",null]"#, "a line is one JSON object"),
            (r#"{"path":"a""#, "EOF while parsing"),
            (r#"{"path":"a"} {"#, "missing field"),
            (&format!(r#"{{"path":"a","key":{good},"op":"eq","limit":1}}"#), "unknown field `limit`"),
            (&format!(r#"{{"path":"a","path":"b","key":{good},"op":"eq"}}"#), "duplicate field `path`"),
            (&format!(r#"{{"path":"a","key":{good},"op":"lt"}}"#), "unknown variant `lt`"),
            (&format!(r#"{{"path":"a","key":{good}}}"#), "missing field `op`"),
            (&format!(r#"{{"path":7,"key":{good},"op":"eq"}}"#), "invalid type: integer"),
            (&format!(r#"{{"path":"a","key":{good},"op":"eq","select":[]}}"#), "select names no column"),
            (r#"{"path":"a","key":{"column":"","value":"1"},"op":"eq"}"#, "key.column is empty"),
            (r#"{"path":"a","key":{"column":"c","value":"1","unit":"s"},"op":"eq"}"#, "unknown field `unit`"),
            (r#"{"path":"a","key":"c","op":"eq"}"#, "expected an object with column, type and value"),
        ] {
            let said = parse(line).unwrap_err();
            assert!(said.contains(problem), "{line}: {said}");
        }
        assert!(Request::parse(b"{\"path\":\"\xff\"}").is_err());
        let deep = format!(r#"{{"path":"a","key":{{"column":"c","value":{}"#, "[".repeat(100_000));
        assert!(parse(&deep).unwrap_err().contains("recursion limit"));
    }
}
