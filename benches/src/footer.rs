//! Opening a wide file: what it costs to read a footer within bounds, beside the parquet crate's own reading of it.
//!
//! Knows a generated file and the public machines of `alcedo-lookup`. Both sides get the whole file in memory. There is
//! no pre-scan that could be measured by itself: a footer is read once, with every count, size and depth checked where
//! it stands, and the crate's reader is not used. So the whole of it is compared with what a pre-scan in front of the
//! crate's reader would be allowed: a fifth more than that reader alone.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use alcedo_lookup::answer::Form;
use alcedo_lookup::key::Key;
use alcedo_lookup::limits::Limits;
use alcedo_lookup::machine::drive_bytes;
use alcedo_lookup::open::Open;
use alcedo_lookup::search::{Query, Search};
use anyhow::ensure;
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use crate::report::Row;

const COLUMNS: usize = 100;
const ROW_GROUPS: usize = 20;
/// Rows of a row group, and of a data page.
const GROUP_ROWS: usize = 1_000;
const PAGE_ROWS: usize = 100;
/// What a worker reads first of a file that it does not know.
const TAIL_BYTES: u64 = 64 << 10;
/// Rounds; the median one counts.
const ROUNDS: usize = 41;
/// Reading within bounds may cost so many times what reading without them does.
const MOST_RATIO: f64 = 1.2;

/// Measures opening, and opening with the first lookup's part of the page index.
///
/// # Errors
/// The file cannot be made or read.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let (file, limits) = (file()?, Arc::new(Limits::default()));
    let open = || drive_bytes(Open::new(TAIL_BYTES, Arc::clone(&limits)), &file);
    let index = open()?;
    ensure!((index.columns(), index.row_groups()) == (COLUMNS, ROW_GROUPS), "another file was made");
    let crate_reads = |policy: PageIndexPolicy| {
        ParquetMetaDataReader::new().with_page_index_policy(policy).parse_and_finish(&file).map(black_box)
    };
    let query = Arc::new(Query {
        key_column: Some("c0".to_owned()),
        // Odd numbers are between the keys: all is asked of the indexes, and one data page is looked into.
        keys: vec![Key::Int(20_001)],
        columns: Some(vec!["c1".to_owned()]),
        form: Form::CompactRows,
        row_limit: None,
    });
    let first_lookup = || {
        let index = open()?;
        let search = Search::new(index, Arc::clone(&query), Arc::clone(&limits))?;
        drive_bytes(search, &file)
    };
    let alone = median(|| open().map(black_box).map(drop))?;
    let crate_alone = median(|| crate_reads(PageIndexPolicy::Skip).map(drop))?;
    let indexed = median(|| first_lookup().map(black_box).map(drop))?;
    let crate_indexed = median(|| crate_reads(PageIndexPolicy::Required).map(drop))?;
    let row = |what: &str, alcedo: f64, peer: f64| Row {
        name: format!("{COLUMNS} columns, {ROW_GROUPS} row groups: {what}"),
        unit: "us",
        alcedo,
        peer: Some(peer),
        ratio: Some(alcedo / peer),
        target: format!("<= {MOST_RATIO} x the parquet crate: a pre-scan before it may add 20 %"),
        met: Some(alcedo <= MOST_RATIO * peer),
    };
    Ok(vec![
        row("footer within bounds, beside the crate's reader", alone, crate_alone),
        row(
            "footer, key's page index and one data page, beside the crate's footer and page index",
            indexed,
            crate_indexed,
        ),
    ])
}

/// Even numbers in every column, sorted, with a page index.
fn file() -> anyhow::Result<Bytes> {
    let rows = i64::try_from(GROUP_ROWS * ROW_GROUPS)?;
    let column = |number: usize| {
        let values = Int64Array::from_iter_values((0..rows).map(|row| row * 2));
        (format!("c{number}"), Arc::new(values) as ArrayRef)
    };
    let batch = RecordBatch::try_from_iter((0..COLUMNS).map(column))?;
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::Page)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties))?;
    writer.write(&batch)?;
    Ok(writer.into_inner()?.into())
}

/// Microseconds of the median round.
fn median<E>(work: impl Fn() -> Result<(), E>) -> Result<f64, E> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        work()?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times.get(times.len() / 2).copied().unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_what_the_rows_are_named_after() {
        let file = file().unwrap();
        let read = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
        let metadata = read.parse_and_finish(&file).unwrap();
        assert_eq!((metadata.num_row_groups(), metadata.row_group(0).num_columns()), (ROW_GROUPS, COLUMNS));
        let pages = metadata.offset_index().unwrap()[0][0].page_locations().len();
        assert_eq!(pages, GROUP_ROWS / PAGE_ROWS);
    }
}
