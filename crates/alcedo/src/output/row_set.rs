//! Rows of one or more files under one list of columns.
//!
//! Part of the output layer, above single values and below the formats. Files below one prefix may have different
//! columns: a row set lines them up by name and gives a row without a column a null there. It keeps each value beside
//! its own file's type, so that two files that disagree about a type both print right.

use std::sync::Arc;

use alcedo_lookup::schema::{RowSchema, Type};
use alcedo_lookup::value::Value;

use super::value_text::distinct_names;

/// Rows to print, with their columns.
#[derive(Debug, Default)]
pub(crate) struct RowSet {
    columns: Vec<Head>,
    files: Vec<File>,
    rows: Vec<Row>,
    /// How many of the rows are in key order already.
    settled: usize,
}

/// A column's name and type as printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// Distinct within the row set.
    pub(crate) name: String,
    /// In the type grammar; files that disagree are joined by `|`.
    pub(crate) ty: String,
}

/// A file that rows came from.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) url: String,
    pub(crate) version: String,
    schema: Arc<RowSchema>,
    /// Per column of the row set: the file's column. Columns that were added later are not in it.
    places: Vec<Option<usize>>,
}

/// One row.
#[derive(Debug)]
pub(crate) struct Row {
    /// Position of its key among all keys that were asked.
    pub(crate) key: usize,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Found {
        file: usize,
        row_number: u64,
        values: Vec<Value>,
    },
    /// A key without rows: nulls, but for the key itself in the key's column.
    Missing {
        key: Option<(usize, Value, Type)>,
    },
}

impl Row {
    /// The file's place in [`RowSet::files`] and the row's number there; `None` for a key without rows.
    pub(crate) fn origin(&self) -> Option<(usize, u64)> {
        match self.body {
            Body::Found { file, row_number, .. } => Some((file, row_number)),
            Body::Missing { .. } => None,
        }
    }
}

impl RowSet {
    pub(crate) fn columns(&self) -> &[Head] {
        &self.columns
    }

    pub(crate) fn files(&self) -> &[File] {
        &self.files
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Adds a file's columns, and says where its rows belong.
    pub(crate) fn add_file(&mut self, url: &str, version: &str, schema: &Arc<RowSchema>) -> usize {
        let known = |file: &File| file.url == url && file.version == version && file.schema == *schema;
        if let Some(at) = self.files.iter().position(known) {
            return at;
        }
        let names = distinct_names(schema.columns.iter().map(|column| column.name.as_str()));
        let mut places = vec![None; self.columns.len()];
        for (from, name) in names.into_iter().enumerate() {
            let at = self.column(name, &schema.columns[from].ty.to_string());
            if at == places.len() {
                places.push(None);
            }
            places[at] = Some(from);
        }
        self.files.push(File { url: url.to_owned(), version: version.to_owned(), schema: Arc::clone(schema), places });
        self.files.len() - 1
    }

    /// The place of a column, which is added if it is new.
    fn column(&mut self, name: String, ty: &str) -> usize {
        let Some(at) = self.columns.iter().position(|column| column.name == name) else {
            self.columns.push(Head { name, ty: ty.to_owned() });
            return self.columns.len() - 1;
        };
        let head = &mut self.columns[at];
        if !head.ty.split('|').any(|known| known == ty) {
            head.ty = format!("{}|{ty}", head.ty);
        }
        at
    }

    /// Adds a row of a file that [`RowSet::add_file`] returned.
    pub(crate) fn add_row(&mut self, key: usize, file: usize, row_number: u64, values: Vec<Value>) {
        self.rows.push(Row { key, body: Body::Found { file, row_number, values } });
    }

    /// Adds a row of nulls for a key that was not found. Where no file told the columns, `fallback` names them.
    pub(crate) fn add_missing(
        &mut self,
        key: usize,
        text: Option<&str>,
        key_column: Option<&str>,
        fallback: &[String],
    ) {
        if self.columns.is_empty() {
            for name in distinct_names(fallback.iter().map(String::as_str)) {
                self.column(name, "null");
            }
        }
        let place = self.columns.iter().position(|column| Some(column.name.as_str()) == key_column);
        let key_value = place.zip(text).map(|(at, text)| {
            let (value, ty) = key_value(text, &self.columns[at].ty);
            (at, value, ty)
        });
        self.rows.push(Row { key, body: Body::Missing { key: key_value } });
    }

    /// Puts the rows that were added since the last call into the order of their keys; rows of one key stay in file
    /// order.
    pub(crate) fn settle(&mut self) {
        self.rows[self.settled..].sort_by_key(|row| row.key);
        self.settled = self.rows.len();
    }

    /// Forgets rows beyond the first so many.
    pub(crate) fn keep(&mut self, rows: usize) {
        self.rows.truncate(rows);
        self.settled = self.settled.min(rows);
    }

    /// The value and its type at a row and column; `None` where the row's file has no such column.
    pub(crate) fn cell<'a>(&'a self, row: &'a Row, column: usize) -> Option<(&'a Value, &'a Type)> {
        match &row.body {
            Body::Found { file, values, .. } => {
                let file = &self.files[*file];
                let from = (*file.places.get(column)?)?;
                Some((values.get(from)?, &file.schema.columns.get(from)?.ty))
            }
            Body::Missing { key } => {
                let (at, value, ty) = key.as_ref()?;
                (*at == column).then_some((value, ty))
            }
        }
    }
}

/// A key's text as a value of the column it was compared with, so that found and missing rows print alike. Other types
/// print the text.
fn key_value(text: &str, column_type: &str) -> (Value, Type) {
    let integer = || Some((Value::Int(text.parse().ok()?), Type::Int64));
    let unsigned = || Some((Value::UInt(text.parse().ok()?), Type::UInt64));
    let value = match column_type {
        "int8" | "int16" | "int32" | "int64" => integer(),
        "uint8" | "uint16" | "uint32" | "uint64" => unsigned(),
        _ => None,
    };
    value.unwrap_or_else(|| (Value::String(text.to_owned()), Type::String))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use alcedo_lookup::schema::Column;

    use super::*;

    pub(crate) fn schema(columns: &[(&str, &str)]) -> Arc<RowSchema> {
        let column = |(name, ty): &(&str, &str)| Column { name: (*name).into(), ty: ty.parse().unwrap() };
        Arc::new(RowSchema { columns: columns.iter().map(column).collect() })
    }

    /// Two rows of one file: ids 123 and 124, the second without a name.
    pub(crate) fn two_rows() -> RowSet {
        let mut set = RowSet::default();
        let file = set.add_file("s3://lake/a.parquet", "\"e1\"", &schema(&[("id", "int64"), ("name", "string")]));
        set.add_row(0, file, 20, vec![Value::Int(123), Value::String("Ada Lovelace".into())]);
        set.add_row(1, file, 21, vec![Value::Int(124), Value::Null]);
        set
    }

    #[test]
    fn files_with_other_columns_are_lined_up_by_name() {
        let mut set = two_rows();
        let other = set.add_file("s3://lake/b.parquet", "\"e2\"", &schema(&[("score", "float64"), ("id", "int32")]));
        set.add_row(0, other, 7, vec![Value::Float64(0.5), Value::Int(123)]);
        set.settle();
        let heads: Vec<_> = set.columns().iter().map(|head| (head.name.as_str(), head.ty.as_str())).collect();
        assert_eq!(heads, [("id", "int64|int32"), ("name", "string"), ("score", "float64")]);
        assert_eq!(set.rows().iter().map(|row| row.origin().unwrap().1).collect::<Vec<_>>(), [20, 7, 21]);
        let row = &set.rows()[1];
        assert_eq!(set.cell(row, 0), Some((&Value::Int(123), &Type::Int32)));
        assert_eq!(set.cell(row, 1), None);
        assert_eq!(set.cell(&set.rows()[0], 2), None);
    }

    #[test]
    fn the_same_file_is_listed_once() {
        let mut set = two_rows();
        let columns = schema(&[("id", "int64"), ("name", "string")]);
        assert_eq!(set.add_file("s3://lake/a.parquet", "\"e1\"", &columns), 0);
        assert_eq!(set.add_file("s3://lake/a.parquet", "\"e2\"", &columns), 1);
    }

    #[test]
    fn a_missing_key_is_a_row_of_nulls_with_its_key() {
        let mut set = two_rows();
        set.add_missing(2, Some("9"), Some("id"), &[]);
        assert_eq!(set.cell(&set.rows()[2], 0), Some((&Value::Int(9), &Type::Int64)));
        assert_eq!(set.cell(&set.rows()[2], 1), None);
        assert_eq!(set.rows()[2].origin(), None);

        let mut nothing = RowSet::default();
        nothing.add_missing(0, Some("x"), Some("id"), &["id".into(), "name".into()]);
        assert_eq!(nothing.columns()[1], Head { name: "name".into(), ty: "null".into() });
        assert_eq!(nothing.cell(&nothing.rows()[0], 0), Some((&Value::String("x".into()), &Type::String)));
    }
}
