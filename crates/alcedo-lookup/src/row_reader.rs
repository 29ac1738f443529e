//! Rows of the answer's columns, read from fetched data pages by the parquet crate's array readers.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, RowGroups, RowSelection, RowSelector};
use parquet::column::page::{Page, PageIterator};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};

use crate::data_page::{OneChunk, PageSequence, Part};
use crate::error::Error;
use crate::projection::Projection;

/// The inflated pages of one leaf in one row group that hold wanted rows.
#[derive(Clone, Default)]
pub(crate) struct LeafPages {
    pub(crate) dictionary: Option<Page>,
    /// Ascending; each with its first row within the row group and its number of rows.
    pub(crate) pages: Vec<(u64, u64, Page)>,
    /// See [`PageSequence`].
    pub(crate) unaligned: bool,
}

/// A row group as the parquet crate's array readers see it: just the fetched pages.
struct FetchedGroup<'a> {
    metadata: &'a ParquetMetaData,
    rows: u64,
    /// Ordinals in the file of the leaves that the array readers know.
    read: &'a [usize],
    leaves: &'a BTreeMap<usize, LeafPages>,
}

impl RowGroups for FetchedGroup<'_> {
    fn num_rows(&self) -> usize {
        self.rows as usize
    }

    fn column_chunks(&self, leaf: usize) -> ParquetResult<Box<dyn PageIterator>> {
        let pages = self
            .read
            .get(leaf)
            .and_then(|leaf| self.leaves.get(leaf))
            .ok_or_else(|| ParquetError::General(format!("leaf {leaf} was not fetched")))?;
        let mut parts = Vec::with_capacity(pages.pages.len() * 2);
        let mut row = 0;
        for (first_row, rows, page) in &pages.pages {
            if *first_row > row && !pages.unaligned {
                parts.push(Part::Gap((first_row - row) as usize));
            }
            parts.push(Part::Data { page: page.clone(), rows: *rows as usize });
            row = first_row + rows;
        }
        if row < self.rows && !pages.unaligned {
            parts.push(Part::Gap((self.rows - row) as usize));
        }
        let sequence = PageSequence::new(pages.dictionary.clone(), parts, !pages.unaligned);
        Ok(Box::new(OneChunk(Some(sequence))))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(std::iter::empty())
    }

    fn metadata(&self) -> &ParquetMetaData {
        self.metadata
    }
}

impl Projection {
    /// Reads `rows` (ascending, within the row group) from fetched pages, in order.
    ///
    /// # Errors
    /// The pages do not hold those rows, or cannot be decoded.
    pub(crate) fn read(
        &self,
        metadata: &ParquetMetaData,
        group_rows: u64,
        leaves: &BTreeMap<usize, LeafPages>,
        rows: &[u64],
    ) -> Result<Vec<RecordBatch>, Error> {
        let group = FetchedGroup { metadata, rows: group_rows, read: &self.leaves, leaves };
        let mut batches = Vec::new();
        for stretch in stretches(rows, leaves) {
            let selection = selection(stretch);
            let reader = ParquetRecordBatchReader::try_new_with_row_groups(
                &self.levels,
                &group,
                stretch.len(),
                Some(selection),
            )?;
            let mut read = 0;
            for batch in reader {
                let batch = batch.map_err(|e| Error::corrupt(e.to_string()))?;
                read += batch.num_rows();
                batches.push(batch);
            }
            if read != stretch.len() {
                return Err(Error::corrupt(format!(
                    "{} rows were selected, the data pages hold {read}",
                    stretch.len()
                )));
            }
        }
        Ok(batches)
    }
}

/// Cuts rows where some leaf has a gap between two of them: within a stretch the parquet crate may decode rows that lie
/// between selected ones instead of skipping them, so all of them must be there.
fn stretches<'a>(rows: &'a [u64], leaves: &BTreeMap<usize, LeafPages>) -> Vec<&'a [u64]> {
    let mut gaps: Vec<u64> = Vec::new();
    for pages in leaves.values().filter(|pages| !pages.unaligned) {
        let mut row = 0;
        for (first_row, count, _) in &pages.pages {
            if *first_row > row {
                gaps.push(row);
            }
            row = first_row + count;
        }
    }
    gaps.sort_unstable();
    let mut stretches = Vec::new();
    let mut start = 0;
    for i in 1..rows.len() {
        let gap = gaps.partition_point(|gap| *gap <= rows[i - 1]);
        if gaps.get(gap).is_some_and(|gap| *gap <= rows[i]) {
            stretches.push(&rows[start..i]);
            start = i;
        }
    }
    if !rows.is_empty() {
        stretches.push(&rows[start..]);
    }
    stretches
}

fn selection(rows: &[u64]) -> RowSelection {
    let mut selectors: Vec<RowSelector> = Vec::new();
    let mut next = 0;
    for row in rows {
        if *row > next {
            selectors.push(RowSelector::skip((row - next) as usize));
        }
        match selectors.last_mut() {
            Some(last) if !last.skip => last.row_count += 1,
            _ => selectors.push(RowSelector::select(1)),
        }
        next = row + 1;
    }
    RowSelection::from(selectors)
}
