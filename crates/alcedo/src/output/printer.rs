//! Rows in the format that was asked for, batch by batch.
//!
//! Part of the output layer, above the formats. Lines, CSV, raw bytes and Arrow leave as they come; a table and a JSON
//! document need all rows first, and so have a bound.

use super::arrow::ArrowStream;
use super::delimited::{Delimited, Raw};
use super::row_set::RowSet;
use super::rows_json::{self, Beside};
use super::value_text::BytesStyle;
use super::{Format, json_document, table};
use crate::failure::Failure;

/// Rows that a JSON document holds at most: it is built in memory, several times the rows' size.
const MAX_HELD_ROWS: usize = 1_000_000;

/// Where rows go on their way to stdout.
#[derive(Debug)]
pub(crate) struct Printer {
    set: RowSet,
    bytes: BytesStyle,
    headers: bool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// At most so many rows.
    Table {
        max_rows: usize,
    },
    Json,
    Lines,
    Delimited(Delimited),
    Raw(Raw),
    Arrow(Box<ArrowStream>),
}

impl Printer {
    /// `bytes` overrides the format's own way to print binary values; `max_rows` concerns tables, 0 is all.
    pub(crate) fn new(format: Format, bytes: Option<BytesStyle>, headers: bool, max_rows: usize) -> Self {
        let base64 = matches!(format, Format::Json | Format::Jsonl);
        let bytes = bytes.unwrap_or(if base64 { BytesStyle::Base64 } else { BytesStyle::Hex });
        let max_rows = if max_rows == 0 { MAX_HELD_ROWS } else { max_rows.min(MAX_HELD_ROWS) };
        let kind = match format {
            Format::Table | Format::Name => Kind::Table { max_rows },
            Format::Json => Kind::Json,
            Format::Jsonl => Kind::Lines,
            Format::Csv => Kind::Delimited(Delimited::new(b',', headers, bytes)),
            Format::Tsv => Kind::Delimited(Delimited::new(b'\t', headers, bytes)),
            Format::Raw => Kind::Raw(Raw::default()),
            Format::Arrow => Kind::Arrow(Box::default()),
        };
        Self { set: RowSet::default(), bytes, headers, kind }
    }

    /// Where the rows of the next batch are added.
    pub(crate) fn rows(&mut self) -> &mut RowSet {
        &mut self.set
    }

    /// Adds the Arrow stream of one file; the other formats have no use for it.
    ///
    /// # Errors
    /// See [`ArrowStream::add`].
    pub(crate) fn add_arrow(&mut self, url: &str, stream: &[u8]) -> Result<(), Failure> {
        if let Kind::Arrow(arrow) = &mut self.kind { arrow.add(url, stream) } else { Ok(()) }
    }

    /// Ends a batch, and returns what can be written already.
    ///
    /// # Errors
    /// The rows do not fit the format.
    pub(crate) fn end_batch(&mut self) -> Result<Vec<u8>, Failure> {
        self.set.settle();
        let written = match &mut self.kind {
            Kind::Table { max_rows } => {
                self.set.keep(*max_rows);
                return Ok(Vec::new());
            }
            Kind::Json if self.set.rows().len() > MAX_HELD_ROWS => {
                let error = format!("a JSON document holds at most {MAX_HELD_ROWS} rows");
                return Err(Failure::error(error).hint("print -o jsonl, one row per line"));
            }
            Kind::Json => return Ok(Vec::new()),
            Kind::Lines => rows_json::lines(&self.set, self.bytes),
            Kind::Delimited(delimited) => delimited.batch(&self.set)?,
            Kind::Raw(raw) => raw.batch(&self.set)?,
            Kind::Arrow(arrow) => arrow.take(),
        };
        self.set = RowSet::default();
        Ok(written)
    }

    /// The rest, after the last batch.
    ///
    /// # Errors
    /// The stream cannot be ended.
    pub(crate) fn finish(self, beside: &Beside<'_>) -> Result<Vec<u8>, Failure> {
        match self.kind {
            Kind::Table { .. } => Ok(table::table(&self.set, self.headers, self.bytes)),
            Kind::Json => Ok(json_document(&rows_json::document(&self.set, self.bytes, beside))),
            Kind::Arrow(arrow) => arrow.finish(),
            Kind::Lines | Kind::Delimited(_) | Kind::Raw(_) => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use alcedo_lookup::value::Value;

    use super::super::row_set::tests::schema;
    use super::*;

    fn add(printer: &mut Printer, keys: &[usize]) -> String {
        let set = printer.rows();
        let file = set.add_file("f", "v", &schema(&[("id", "int64")]));
        for key in keys {
            set.add_row(*key, file, 0, vec![Value::Int(*key as i64)]);
        }
        String::from_utf8(printer.end_batch().unwrap()).unwrap()
    }

    fn finish(printer: Printer) -> String {
        String::from_utf8(printer.finish(&Beside::default()).unwrap()).unwrap()
    }

    #[test]
    fn lines_leave_batch_by_batch_in_key_order() {
        let mut printer = Printer::new(Format::Jsonl, None, true, 0);
        assert_eq!(add(&mut printer, &[1, 0]), "{\"id\":0}\n{\"id\":1}\n");
        assert_eq!(add(&mut printer, &[2]), "{\"id\":2}\n");
        assert_eq!(finish(printer), "");
    }

    #[test]
    fn a_table_keeps_its_first_rows() {
        let mut printer = Printer::new(Format::Table, None, false, 3);
        assert_eq!(add(&mut printer, &[1, 0]), "");
        assert_eq!(add(&mut printer, &[3, 2]), "");
        assert_eq!(finish(printer), "┌───┐\n│ 0 │\n│ 1 │\n│ 2 │\n└───┘\n");
    }

    #[test]
    fn a_document_holds_all_batches() {
        let mut printer = Printer::new(Format::Json, None, true, 1);
        add(&mut printer, &[1, 0]);
        add(&mut printer, &[2]);
        let document: serde_json::Value = serde_json::from_str(&finish(printer)).unwrap();
        assert_eq!(document["rows"].to_string(), "[[0],[1],[2]]");
        assert_eq!(document["kind"], "Rows");
    }
}
