//! A generated table whose every value is computed from the row's number, written in two layouts.
//!
//! Knows Parquet's writer and where generated files are kept: making one takes seconds, so it is made once per table
//! and layout. It must not know who reads it. `py/peers.py` computes the same values in Python.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use arrow_array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

/// Keys are so far apart: those between them are absent.
const ID_STRIDE: u64 = 3;
/// What notes are made of: a codec finds the words again, as it does in real text.
const WORDS: [&str; 16] = [
    "amber", "birch", "copper", "delta", "ember", "fjord", "granite", "harbor", "indigo", "juniper", "kestrel",
    "lantern", "meadow", "nectar", "orchid", "pebble",
];
/// Words of a note.
const NOTE_WORDS: u32 = 8;
/// Rows of a row group, as a job with a memory bound would write them.
const GROUP_ROWS: usize = 300_000;
/// Rows that are made at once.
const BATCH_ROWS: u64 = 4_096;
/// The writer looks at a data page's size only between what it is handed.
const HANDED_ROWS: usize = 256;
/// Part of a kept file's name: another way of making files has another.
const GENERATION: u32 = 1;
/// 1 January 2025 in microseconds.
const FIRST_CREATED_MICROS: i64 = 1_735_689_600_000_000;

/// How a file of the table is written; snappy in either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Data pages of 64 KiB and a page index: as one writes who thinks of lookups.
    Seeking,
    /// Data pages of 1 MiB and no page index at all: as most do.
    Plain,
}

impl Layout {
    /// The better one first.
    pub const ALL: [Self; 2] = [Self::Seeking, Self::Plain];

    /// What it is called in a row's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Seeking => "64 KiB data pages",
            Self::Plain => "1 MiB data pages, no offset index",
        }
    }

    /// A word for file names.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Seeking => "seeking",
            Self::Plain => "plain",
        }
    }

    fn properties(self) -> WriterProperties {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_data_page_row_count_limit(usize::MAX)
            .set_dictionary_enabled(false)
            .set_column_dictionary_enabled("count".into(), true);
        match self {
            Self::Seeking => properties
                .set_statistics_enabled(EnabledStatistics::Page)
                .set_data_page_size_limit(64 << 10)
                .set_write_batch_size(HANDED_ROWS),
            Self::Plain => properties
                .set_statistics_enabled(EnabledStatistics::Chunk)
                .set_offset_index_disabled(true)
                .set_data_page_size_limit(1 << 20),
        }
        .build()
    }
}

/// A table of so many rows: `id` sorted, `user` unique and unsorted, `note`, `score`, `count`, `created`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Its rows.
    pub rows: u64,
}

impl Table {
    /// The columns that are asked for.
    pub const SELECTED: [&'static str; 2] = ["note", "score"];

    /// Bytes of the key and the selected columns of one row once they are decoded: 8 of the key, 8 of the score, and
    /// the note with its offset.
    pub const DECODED_ROW_BYTES: u64 = 8 + 8 + 4 + 53;

    /// The key of a row.
    #[must_use]
    pub fn id(row: u64) -> i64 {
        (row * ID_STRIDE + 1).cast_signed()
    }

    /// A key behind that of a row, which no row has.
    #[must_use]
    pub fn absent_id(row: u64) -> i64 {
        (row * ID_STRIDE + 2).cast_signed()
    }

    /// Unique, and in no order.
    #[must_use]
    pub fn user(row: u64) -> String {
        format!("u-{:016x}", mixed(row))
    }

    /// Some words.
    #[must_use]
    pub fn note(row: u64) -> String {
        let bits = mixed(row ^ (1 << 62));
        let word = |place| WORDS[(bits >> (4 * place) & 15) as usize];
        (0..NOTE_WORDS).map(word).collect::<Vec<_>>().join(" ")
    }

    /// From 0 to 1,000.
    #[must_use]
    pub fn score(row: u64) -> f64 {
        (mixed(row ^ (1 << 61)) >> 11) as f64 / (1_u64 << 53) as f64 * 1000.0
    }

    /// The table as a file in this layout; made when it is not there yet.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn file(self, layout: Layout) -> anyhow::Result<PathBuf> {
        let directory = data_directory()?;
        let path = directory.join(format!("{}-{}-g{GENERATION}.parquet", layout.word(), self.rows));
        if path.is_file() {
            return Ok(path);
        }
        fs::create_dir_all(&directory)?;
        // Under another name until it is whole: an interrupted run leaves nothing that looks like a file.
        let aside = path.with_extension(format!("part{}", std::process::id()));
        self.write(layout, fs::File::create(&aside)?).with_context(|| format!("cannot write {}", aside.display()))?;
        fs::rename(&aside, &path)?;
        Ok(path)
    }

    /// Writes the table in this layout.
    ///
    /// # Errors
    /// The sink refuses, or the writer does.
    pub fn write(self, layout: Layout, sink: impl std::io::Write + Send) -> anyhow::Result<()> {
        let mut writer = ArrowWriter::try_new(sink, batch(0..0)?.schema(), Some(layout.properties()))?;
        let mut from = 0;
        while from < self.rows {
            let to = self.rows.min(from + BATCH_ROWS);
            let batch = batch(from..to)?;
            for start in (0..batch.num_rows()).step_by(HANDED_ROWS) {
                writer.write(&batch.slice(start, HANDED_ROWS.min(batch.num_rows() - start)))?;
            }
            from = to;
        }
        writer.close()?;
        Ok(())
    }
}

/// Where generated files are kept: beside the programs, in the target directory.
///
/// # Errors
/// The system does not say where this program is.
pub fn data_directory() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().find(|place| place.ends_with("target")).or(program.parent());
    Ok(target.context("this program has no place")?.join("bench-data"))
}

/// SplitMix64: every input has another output.
#[must_use]
pub fn mixed(input: u64) -> u64 {
    let mut bits = input.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ bits >> 31
}

fn batch(rows: std::ops::Range<u64>) -> anyhow::Result<RecordBatch> {
    let count = |row: u64| i32::try_from(mixed(row ^ (1 << 60)) % 1000).unwrap_or_default();
    let columns: [(&str, ArrayRef); 6] = [
        ("id", Arc::new(Int64Array::from_iter_values(rows.clone().map(Table::id)))),
        ("user", Arc::new(StringArray::from_iter_values(rows.clone().map(Table::user)))),
        ("note", Arc::new(StringArray::from_iter_values(rows.clone().map(Table::note)))),
        ("score", Arc::new(Float64Array::from_iter_values(rows.clone().map(Table::score)))),
        ("count", Arc::new(Int32Array::from_iter_values(rows.clone().map(count)))),
        (
            "created",
            Arc::new(Int64Array::from_iter_values(
                rows.map(|row| FIRST_CREATED_MICROS + row.cast_signed() * 1_000_003),
            )),
        ),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};

    #[test]
    fn the_layouts_differ_as_they_say() {
        let table = Table { rows: 40_000 };
        for layout in Layout::ALL {
            let mut file = Vec::new();
            table.write(layout, &mut file).unwrap();
            let read = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
            let metadata = read.parse_and_finish(&Bytes::from(file)).unwrap();
            assert_eq!(metadata.file_metadata().num_rows(), 40_000);
            let notes = metadata.offset_index().map(|index| index[0][2].page_locations().len());
            // 40,000 notes are a little more than 2 MiB.
            assert_eq!(notes.map(|pages| (30..50).contains(&pages)), (layout == Layout::Seeking).then_some(true));
        }
    }

    #[test]
    fn a_row_takes_decoded_about_what_is_said() {
        let bytes: usize = (0..1_000).map(|row| Table::note(row).len()).sum();
        assert!((bytes as u64).abs_diff(53 * 1_000) < 1_500, "{bytes}");
        assert_eq!(Table::score(7).to_bits(), Table::score(7).to_bits());
        assert!((0..1_000).all(|row| (0.0..1000.0).contains(&Table::score(row))));
    }
}
