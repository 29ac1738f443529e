//! Rows as JSON: one document, or one object per line.
//!
//! Part of the output layer. The document's shape is a contract with programs; docs/CLI.md describes it.

use serde_json::{Map, Value as Json, json};

use super::API_VERSION;
use super::row_set::RowSet;
use super::summary::Summary;
use super::value_text::{BytesStyle, json};

/// What a document says beside its rows.
#[derive(Debug, Default)]
pub(crate) struct Beside<'a> {
    /// All keys as they were asked; `None` is the null key.
    pub(crate) keys: &'a [Option<String>],
    /// Places in `keys` of those without rows, and of those whose rows the limit cut.
    pub(crate) missing: &'a [usize],
    pub(crate) truncated: &'a [usize],
    pub(crate) summary: Summary,
    /// Traces of the lookups, if they were asked for.
    pub(crate) traces: Vec<Json>,
}

/// The document of kind `Rows`.
pub(crate) fn document(set: &RowSet, bytes: BytesStyle, beside: &Beside<'_>) -> Json {
    let key = |at: &usize| beside.keys.get(*at).cloned().flatten();
    let columns: Vec<Json> = set.columns().iter().map(|head| json!({ "name": head.name, "type": head.ty })).collect();
    let files: Vec<Json> = set.files().iter().map(|file| json!({ "url": file.url, "version": file.version })).collect();
    let rows = set.rows().iter().map(|row| {
        (0..set.columns().len())
            .map(|column| set.cell(row, column).map_or(Json::Null, |(value, ty)| json(value, ty, bytes)))
            .collect::<Json>()
    });
    let origin =
        |pick: fn((usize, u64)) -> u64| -> Json { set.rows().iter().map(|row| row.origin().map(pick)).collect() };
    let mut document = Map::new();
    document.insert("apiVersion".into(), API_VERSION.into());
    document.insert("kind".into(), "Rows".into());
    document.insert("columns".into(), columns.into());
    document.insert("rows".into(), rows.collect());
    document.insert("row_keys".into(), set.rows().iter().map(|row| key(&row.key)).collect());
    document.insert("row_files".into(), origin(|(file, _)| file as u64));
    document.insert("row_numbers".into(), origin(|(_, row_number)| row_number));
    document.insert("files".into(), files.into());
    document.insert("missing".into(), beside.missing.iter().map(key).collect());
    document.insert("truncated".into(), beside.truncated.iter().map(key).collect());
    document.extend(beside.summary.fields());
    if !beside.traces.is_empty() {
        document.insert("traces".into(), beside.traces.clone().into());
    }
    Json::Object(document)
}

/// One object per row. A row has the columns of its own file; a column that its file lacks is null.
pub(crate) fn lines(set: &RowSet, bytes: BytesStyle) -> Vec<u8> {
    let mut out = Vec::new();
    for row in set.rows() {
        let field = |(column, head): (usize, &super::row_set::Head)| {
            let value = set.cell(row, column).map_or(Json::Null, |(value, ty)| json(value, ty, bytes));
            (head.name.clone(), value)
        };
        let object: Map<String, Json> = set.columns().iter().enumerate().map(field).collect();
        out.extend(Json::Object(object).to_string().into_bytes());
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use alcedo_lookup::value::Value;

    use super::super::row_set::tests::{schema, two_rows};
    use super::super::summary::tests::one_lookup;
    use super::*;

    #[test]
    fn a_row_is_one_object_with_its_columns_in_order() {
        let printed = String::from_utf8(lines(&two_rows(), BytesStyle::Base64)).unwrap();
        assert_eq!(printed, "{\"id\":123,\"name\":\"Ada Lovelace\"}\n{\"id\":124,\"name\":null}\n");
    }

    #[test]
    fn repeated_columns_keep_all_values() {
        let mut set = RowSet::default();
        let file = set.add_file("f", "v", &schema(&[("a", "int8"), ("a", "string")]));
        set.add_row(0, file, 0, vec![Value::Int(1), Value::String("x".into())]);
        assert_eq!(String::from_utf8(lines(&set, BytesStyle::Hex)).unwrap(), "{\"a\":1,\"a_2\":\"x\"}\n");
    }

    #[test]
    fn the_document_names_columns_rows_files_and_cost() {
        let mut set = two_rows();
        set.add_missing(2, Some("9"), Some("id"), &[]);
        let keys = [Some("123".to_owned()), None, Some("9".to_owned())];
        let beside = Beside { keys: &keys, missing: &[2], truncated: &[0], summary: one_lookup(), traces: Vec::new() };
        let printed = document(&set, BytesStyle::Base64, &beside).to_string();
        let expected = concat!(
            r#"{"apiVersion":"alcedo/v1","kind":"Rows","#,
            r#""columns":[{"name":"id","type":"int64"},{"name":"name","type":"string"}],"#,
            r#""rows":[[123,"Ada Lovelace"],[124,null],[9,null]],"#,
            r#""row_keys":["123",null,"9"],"row_files":[0,0,null],"row_numbers":[20,21,null],"#,
            r#""files":[{"url":"s3://lake/a.parquet","version":"\"e1\""}],"missing":["9"],"truncated":["123"],"#,
            r#""lookups":1,"workers":["127.0.0.1:7610"],"source":"memory","ring_epoch":"0000000000000abc","#,
            r#""files_total":16,"files_asked":1,"origin_gets":0,"origin_bytes":0,"elapsed_us":410}"#,
        );
        assert_eq!(printed, expected);
    }
}
