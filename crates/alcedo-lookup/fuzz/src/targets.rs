//! The targets that take bytes as they come: footers, whole files, persisted file indexes, answers.
//!
//! What is bounded by [`Limits`] is bounded tightly here, so that a bound which is not kept shows at small inputs.

use std::sync::Arc;

use alcedo_lookup::answer::{DataPage, Pages, PagesChunk, PagesColumn, decode_pages};
use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::key::Key;
use alcedo_lookup::limits::Limits;
use alcedo_lookup::rows::decode_rows;
use alcedo_lookup::schema::{Column, RowSchema, Type};
use bytes::Bytes;

use super::ask;
use super::craft;
use super::guard::run;

/// Bounds for small inputs.
pub(crate) fn limits() -> Arc<Limits> {
    Arc::new(Limits {
        footer_bytes: 1 << 20,
        page_compressed_bytes: 1 << 20,
        page_bytes: 1 << 20,
        learn_bytes: 1 << 20,
        answer_rows: 10_000,
        answer_bytes: 1 << 20,
        ..Limits::default()
    })
}

/// A file that is only this footer; or, where the bytes end as a file does, just these bytes.
pub fn footer(data: &[u8]) {
    run(|| {
        let file = if data.ends_with(b"PAR1") { data.to_vec() } else { craft::File::default().end(data) };
        ask_file(&file.into());
    });
}

/// A whole file.
pub fn file(data: &[u8]) {
    run(|| ask_file(&Bytes::copy_from_slice(data)));
}

fn ask_file(file: &Bytes) {
    let limits = limits();
    if let Ok(index) = ask::open(file, &limits) {
        let bytes = index.encode();
        let again = FileIndex::decode(&bytes, &limits).expect("what was encoded is read back");
        assert_eq!(again.encode(), bytes, "an index read back is another index");
        ask::everything(file, &limits, &mut |_| {});
    }
}

/// A persisted file index, asked about a file that it does not describe.
pub fn file_index(data: &[u8]) {
    run(|| {
        let limits = limits();
        let Ok(index) = FileIndex::decode(data, &limits) else { return };
        let again = FileIndex::decode(&index.encode(), &limits).expect("what was encoded is read back");
        assert_eq!(again.encode(), index.encode(), "an index read back is another index");
        let index = Arc::new(index);
        let file = Bytes::from(vec![0; 4096]);
        for name in ask::column_names(&index, &file, &limits).iter().take(2) {
            for form in [alcedo_lookup::answer::Form::CompactRows, alcedo_lookup::answer::Form::Pages] {
                let _ = ask::lookup(&index, &file, &limits, name, &[Key::Null, Key::from("1")], form);
            }
        }
    });
}

/// The rest of an input.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// A number that is small more often than not.
    fn number(&mut self) -> u64 {
        match self.byte() {
            255 => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
            small => small.into(),
        }
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Bytes with their length in two bytes in front.
    fn bytes(&mut self) -> Bytes {
        let length = usize::from(self.byte()) | usize::from(self.byte()) << 8;
        Bytes::copy_from_slice(self.take(length))
    }
}

/// An answer as it comes off the wire: compact rows of some schema, or data pages.
pub fn answer(data: &[u8]) {
    run(|| {
        let mut rest = Rest(data);
        let pages = rest.byte();
        let types = rest.bytes();
        let columns = std::str::from_utf8(&types).unwrap_or_default().split('\n').map(str::parse::<Type>);
        let columns = columns.enumerate().map(|(i, ty)| ty.map(|ty| Column { name: format!("c{i}"), ty }));
        let Ok(columns) = columns.collect::<Result<Vec<_>, _>>() else { return };
        let schema = RowSchema { columns };
        if pages == 0 {
            let _ = decode_rows(&schema, &Bytes::copy_from_slice(rest.0));
            return;
        }
        let parquet_schema = rest.bytes();
        let mut columns = Vec::new();
        for _ in 0..rest.byte() % 4 {
            let (leaf, codec) = (rest.byte().into(), rest.byte().into());
            columns.push(PagesColumn { leaf, codec, chunks: (0..rest.byte() % 3).map(|_| chunk(&mut rest)).collect() });
        }
        let row_number: Vec<u64> = (0..rest.byte()).map(|_| rest.number()).collect();
        let _ = decode_pages(&Pages { parquet_schema, columns }, &schema, &row_number, &limits());
    });
}

fn chunk(rest: &mut Rest<'_>) -> PagesChunk {
    let (first_row, rows, aligned, dictionary) = (rest.number(), rest.number(), rest.byte() != 0, rest.bytes());
    let page = |rest: &mut Rest<'_>| DataPage { first_row: rest.number(), rows: rest.number(), page: rest.bytes() };
    let data_pages = (0..rest.byte() % 4).map(|_| page(rest)).collect();
    PagesChunk { first_row, rows, dictionary, data_pages, aligned }
}
