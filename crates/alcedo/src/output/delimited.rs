//! Rows as CSV (RFC 4180, lines end with a line feed), as TSV, and as raw bytes.
//!
//! Part of the output layer. Null is an empty field; `jsonl` tells it from an empty string.

use alcedo_lookup::value::Value;

use super::row_set::{Head, RowSet};
use super::value_text::{BytesStyle, text};
use crate::failure::Failure;

/// Writes batches of rows under one header.
#[derive(Debug)]
pub(crate) struct Delimited {
    delimiter: u8,
    headers: bool,
    bytes: BytesStyle,
    /// The columns of the first batch that had rows.
    columns: Option<Vec<Head>>,
}

impl Delimited {
    pub(crate) fn new(delimiter: u8, headers: bool, bytes: BytesStyle) -> Self {
        Self { delimiter, headers, bytes, columns: None }
    }

    /// The lines of one batch.
    ///
    /// # Errors
    /// The batch has other columns than those before it.
    pub(crate) fn batch(&mut self, set: &RowSet) -> Result<Vec<u8>, Failure> {
        if set.rows().is_empty() {
            return Ok(Vec::new());
        }
        let mut writer = csv::WriterBuilder::new().delimiter(self.delimiter).from_writer(Vec::new());
        match &self.columns {
            None => {
                if self.headers {
                    writer.write_record(set.columns().iter().map(|head| &head.name)).map_err(Failure::output)?;
                }
                self.columns = Some(set.columns().to_vec());
            }
            Some(columns) if names(columns).eq(names(set.columns())) => {}
            Some(_) => {
                return Err(Failure::error(
                    "later rows have other columns than the first, and one header cannot say so",
                )
                .hint("choose columns with --select, or print -o jsonl"));
            }
        }
        for row in set.rows() {
            let field = |column| set.cell(row, column).and_then(|(value, ty)| text(value, ty, self.bytes));
            let fields = (0..set.columns().len()).map(|column| field(column).unwrap_or_default().into_owned());
            writer.write_record(fields).map_err(Failure::output)?;
        }
        writer.into_inner().map_err(|error| Failure::output(error.into_error()))
    }
}

fn names(columns: &[Head]) -> impl Iterator<Item = &str> {
    columns.iter().map(|head| head.name.as_str())
}

/// Writes the values of the only column as they are, with a line feed between two values.
#[derive(Debug, Default)]
pub(crate) struct Raw {
    written: bool,
}

impl Raw {
    /// The values of one batch.
    ///
    /// # Errors
    /// The rows have more than one column.
    pub(crate) fn batch(&mut self, set: &RowSet) -> Result<Vec<u8>, Failure> {
        if set.columns().len() > 1 && !set.rows().is_empty() {
            let error = format!("-o raw prints one column, and the rows have {}", set.columns().len());
            return Err(Failure::usage(error).hint("choose it with --select COLUMN"));
        }
        let mut out = Vec::new();
        for row in set.rows() {
            if std::mem::replace(&mut self.written, true) {
                out.push(b'\n');
            }
            match set.cell(row, 0) {
                Some((Value::Binary(bytes), _)) => out.extend_from_slice(bytes),
                Some((value, ty)) => {
                    out.extend(text(value, ty, BytesStyle::Utf8).unwrap_or_default().as_bytes());
                }
                None => {}
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;

    use super::super::row_set::tests::{schema, two_rows};
    use super::*;

    fn printed(writer: &mut Delimited, set: &RowSet) -> String {
        String::from_utf8(writer.batch(set).unwrap()).unwrap()
    }

    #[test]
    fn the_header_is_written_once_and_null_is_empty() {
        let mut writer = Delimited::new(b',', true, BytesStyle::Hex);
        assert_eq!(printed(&mut writer, &RowSet::default()), "");
        assert_eq!(printed(&mut writer, &two_rows()), "id,name\n123,Ada Lovelace\n124,\n");
        assert_eq!(printed(&mut writer, &two_rows()), "123,Ada Lovelace\n124,\n");
        let mut bare = Delimited::new(b'\t', false, BytesStyle::Hex);
        assert_eq!(printed(&mut bare, &two_rows()), "123\tAda Lovelace\n124\t\n");
    }

    #[test]
    fn fields_that_need_quotes_get_them() {
        let mut set = RowSet::default();
        let file = set.add_file("f", "v", &schema(&[("a,b", "string"), ("l", "list<int8>")]));
        set.add_row(
            0,
            file,
            0,
            vec![Value::String("say \"hi\"\n".into()), Value::List(vec![Value::Int(1), Value::Int(2)])],
        );
        let mut writer = Delimited::new(b',', true, BytesStyle::Hex);
        assert_eq!(printed(&mut writer, &set), "\"a,b\",l\n\"say \"\"hi\"\"\n\",\"[1,2]\"\n");
    }

    #[test]
    fn other_columns_in_a_later_batch_are_an_error() {
        let mut writer = Delimited::new(b',', true, BytesStyle::Hex);
        writer.batch(&two_rows()).unwrap();
        let mut other = RowSet::default();
        let file = other.add_file("f", "v", &schema(&[("id", "int64")]));
        other.add_row(0, file, 0, vec![Value::Int(1)]);
        let failure = writer.batch(&other).unwrap_err();
        assert!(failure.to_string().contains("later rows have other columns"), "{failure}");
    }

    #[test]
    fn raw_values_are_their_bytes_and_nothing_else() {
        let mut set = RowSet::default();
        let file = set.add_file("f", "v", &schema(&[("blob", "binary")]));
        set.add_row(0, file, 0, vec![Value::Binary(Bytes::from_static(b"\x00\xff\n"))]);
        let mut raw = Raw::default();
        assert_eq!(raw.batch(&set).unwrap(), b"\x00\xff\n");
        assert_eq!(raw.batch(&set).unwrap(), b"\n\x00\xff\n");
        assert_eq!(raw.batch(&two_rows()).unwrap_err().code(), 2);
    }
}
