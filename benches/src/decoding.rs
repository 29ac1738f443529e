//! What it costs to inflate and decode one data page of each column, by the parquet crate alone.
//!
//! Knows the crate's column readers. It is the floor under a lookup in a file whose data pages are large: nobody finds
//! a row in a compressed data page without inflating it.

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use parquet::column::reader::ColumnReader;
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::report::median;

/// Rounds over all row groups; the median one counts.
const ROUNDS: usize = 5;
/// More rows than a data page of 1 MiB has of the narrowest column.
const MOST_ROWS: usize = 200_000;

/// Microseconds to inflate and decode the first data page of these leaf columns, all of them together, in the median
/// row group.
///
/// # Errors
/// The file cannot be read.
pub fn one_page_per_column(file: &Path, leaves: &[usize]) -> anyhow::Result<f64> {
    let reader = SerializedFileReader::new(File::open(file)?)?;
    let mut times = Vec::new();
    for group in (0..reader.num_row_groups()).cycle().take(reader.num_row_groups() * ROUNDS) {
        let began = Instant::now();
        for leaf in leaves {
            let rows = rows_of_first_page(&reader, group, *leaf)?;
            let read = match reader.get_row_group(group)?.get_column_reader(*leaf)? {
                ColumnReader::Int64ColumnReader(mut column) => {
                    column.read_records(rows, None, None, &mut Vec::with_capacity(rows))?
                }
                ColumnReader::DoubleColumnReader(mut column) => {
                    column.read_records(rows, None, None, &mut Vec::with_capacity(rows))?
                }
                ColumnReader::ByteArrayColumnReader(mut column) => {
                    column.read_records(rows, None, None, &mut Vec::with_capacity(rows))?
                }
                _ => anyhow::bail!("column {leaf} is of a type that the table does not have"),
            };
            ensure!(read.0 == rows, "{} of {rows} rows were decoded", read.0);
        }
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(times))
}

/// Rows of the first data page of a column chunk.
fn rows_of_first_page(reader: &SerializedFileReader<File>, group: usize, leaf: usize) -> anyhow::Result<usize> {
    let mut pages = reader.get_row_group(group)?.get_column_page_reader(leaf)?;
    let page = pages.peek_next_page()?.context("a column chunk without a data page")?;
    let rows = page.num_rows.or(page.num_levels).context("a data page without a count")?;
    Ok(rows.min(MOST_ROWS))
}
