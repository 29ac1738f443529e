//! The page table of one column chunk: which data page holds a row, where it is, and between which bounds its values
//! lie.
//!
//! It comes from the file's page index where there is one, and otherwise is learned by walking the chunk's page headers
//! once.

use std::ops::Range;

use bytes::Bytes;
use parquet::schema::types::ColumnDescPtr;

use crate::bounds_list::BoundsList;
use crate::codec::Codec;
use crate::data_page::{count_rows, read_page};
use crate::error::Error;
use crate::file_index::ALLOCATION_BYTES;
use crate::footer::Chunk;
use crate::key_column::{Bounds, KeyColumn, Probes};
use crate::limits::Limits;
use crate::page_header::{MAX_HEADER_BYTES, PageHeader, PageKind};
use crate::page_index::{ColumnIndex, PageLocation, read_offset_index};
use crate::probe::Point;

/// Where the pages of one column chunk are.
#[derive(Debug, Clone)]
pub(crate) struct PageTable {
    /// Header and body of the dictionary page, as a range of the file.
    pub(crate) dictionary: Option<Range<u64>>,
    /// Data pages in file order.
    pub(crate) pages: Box<[PageLocation]>,
    /// Rows of the row group.
    pub(crate) rows: u64,
    /// Every data page starts a row. Where pages split rows, the chunk is only read as a whole.
    pub(crate) aligned: bool,
    /// Per data page, for a key column.
    pub(crate) bounds: Option<BoundsList>,
}

impl PageTable {
    /// A table from an offset index's bytes.
    ///
    /// # Errors
    /// The index contradicts the chunk: the caller learns the table from the chunk instead.
    pub(crate) fn from_offset_index(
        bytes: &[u8],
        chunk: &Range<u64>,
        rows: u64,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let pages = read_offset_index(bytes, limits)?;
        let mut end = chunk.start;
        for (i, page) in pages.iter().enumerate() {
            let ordered = if i == 0 { page.first_row == 0 } else { page.first_row > pages[i - 1].first_row };
            let next = page.offset.checked_add(page.length.into());
            match next {
                Some(next) if ordered && page.offset >= end && next <= chunk.end && page.first_row < rows => end = next,
                _ => return Err(Error::corrupt("the offset index contradicts its column chunk")),
            }
        }
        if pages.is_empty() != (rows == 0) {
            return Err(Error::corrupt("the offset index has no pages for its rows"));
        }
        let first = pages.first().map_or(chunk.end, |page| page.offset);
        let dictionary = (first > chunk.start && !pages.is_empty()).then_some(chunk.start..first);
        Ok(Self { dictionary, pages: pages.into(), rows, aligned: true, bounds: None })
    }

    /// Adds the bounds of a column index; one that does not fit is left out, because indexes are advisory.
    /// `type_ordered` is the footer's promise that bounds are in the type's own order.
    pub(crate) fn with_bounds(mut self, index: &ColumnIndex, column: &KeyColumn, type_ordered: bool) -> Self {
        if index.null_pages.len() == self.pages.len() {
            let nulls = |page: usize| index.null_counts.as_ref().map(|counts| counts[page]);
            let bounds = (0..self.pages.len()).map(|i| {
                let (min, max) = (&index.min[i], &index.max[i]);
                column.page_bounds(index.null_pages[i], (min, max), nulls(i), type_ordered)
            });
            self.bounds = Some(BoundsList::new(bounds.collect()));
        }
        self
    }

    /// The same table with bounds that were learned from the values themselves, one per data page.
    pub(crate) fn with_learned_bounds(&self, bounds: Vec<Bounds>) -> Self {
        Self { bounds: Some(BoundsList::new(bounds)), ..self.clone() }
    }

    /// Data pages.
    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }

    /// The file range of one data page.
    pub(crate) fn page_range(&self, page: usize) -> Range<u64> {
        let location = self.pages[page];
        location.offset..location.offset + u64::from(location.length)
    }

    /// The rows of one data page, within the row group.
    pub(crate) fn page_rows(&self, page: usize) -> Range<u64> {
        let end = self.pages.get(page + 1).map_or(self.rows, |next| next.first_row);
        self.pages[page].first_row..end
    }

    /// The data pages that hold any of these rows.
    pub(crate) fn pages_of(&self, rows: &Range<u64>) -> Range<usize> {
        if !self.aligned {
            return 0..self.pages.len();
        }
        let first = self.pages.partition_point(|page| page.first_row <= rows.start).saturating_sub(1);
        let end = self.pages.partition_point(|page| page.first_row < rows.end);
        first..end.max(first)
    }

    /// The data pages that hold these ascending rows, ascending.
    pub(crate) fn pages_of_rows(&self, rows: &[u64]) -> Vec<usize> {
        if !self.aligned && !rows.is_empty() {
            return (0..self.pages.len()).collect();
        }
        let (mut pages, mut end) = (Vec::new(), 0);
        for row in rows {
            if pages.is_empty() || *row >= end {
                let page = self.pages_of(&(*row..row + 1)).start;
                end = self.page_rows(page).end;
                pages.push(page);
            }
        }
        pages
    }

    /// The data pages that may hold a key.
    pub(crate) fn candidates(&self, probes: &Probes) -> Vec<usize> {
        match &self.bounds {
            None => (0..self.pages.len()).collect(),
            Some(bounds) => bounds.candidates(probes),
        }
    }

    /// Whether the table has bounds of its data pages.
    pub(crate) fn has_bounds(&self) -> bool {
        self.bounds.is_some()
    }

    /// Whether something is known of the values of any data page, beside nulls.
    pub(crate) fn has_ranges(&self) -> bool {
        self.bounds.as_ref().is_some_and(BoundsList::has_ranges)
    }

    /// The lower end of a data page's values, where it is known.
    pub(crate) fn lower(&self, page: usize) -> Option<Point> {
        self.bounds.as_ref()?.lower(page)
    }

    /// Whether a data page's values ascend; none where the page has no bounds, or nobody has seen all of its values.
    pub(crate) fn ascends(&self, page: usize) -> Option<bool> {
        self.bounds.as_ref()?.ascends(page)
    }

    /// Keeps whether a data page's values ascend, for who has seen all of them.
    pub(crate) fn note_order(&self, page: usize, ascends: bool) {
        if let Some(bounds) = &self.bounds {
            bounds.note_order(page, ascends);
        }
    }

    /// Bytes of memory, for the index's budget.
    pub(crate) fn weight(&self) -> u64 {
        // Itself with the counts of who holds it, the pages, and two pieces of bounds.
        let allocations = 2 + 2 * usize::from(self.bounds.is_some());
        let bounds = self.bounds.as_ref().map_or(0, BoundsList::weight) + (allocations + 1) * ALLOCATION_BYTES;
        (size_of::<Self>() + self.pages.len() * size_of::<PageLocation>() + bounds) as u64
    }
}

/// Where a page header does not end in its window, the next window has twice as many bytes, and twice these at least.
const MIN_WINDOW_BYTES: usize = 1 << 10;

/// What learning must know of a chunk.
pub(crate) struct Place<'a> {
    pub(crate) chunk: &'a Chunk,
    /// Rows of the row group.
    pub(crate) rows: u64,
    pub(crate) codec: Codec,
    pub(crate) column: ColumnDescPtr,
}

/// A page table in the making: a walk over a chunk's page headers, window by window, so that a chunk of any size is
/// learned in bounded memory.
pub(crate) struct Learning {
    /// The chunk's bytes in the file.
    chunk: Range<u64>,
    /// Where the next page starts in the file.
    next: u64,
    /// The next page alone is longer than a usual window.
    least_window: u64,
    rows: u64,
    values: i64,
    dictionary: Option<Range<u64>>,
    pages: Vec<PageLocation>,
    aligned: bool,
}

impl Learning {
    pub(crate) fn new(chunk: Range<u64>) -> Self {
        let next = chunk.start;
        let pages = Vec::new();
        Self { chunk, next, least_window: 0, rows: 0, values: 0, dictionary: None, pages, aligned: true }
    }

    /// The bytes to go on with: as many as a window has, and always a whole page.
    pub(crate) fn window(&self, window_bytes: u64) -> Range<u64> {
        let end = self.next.saturating_add(window_bytes.max(self.least_window));
        self.next..end.min(self.chunk.end)
    }

    /// Whether the table is complete: all rows are found, or the chunk ends. Levels may go on after the last row
    /// started, so a repeated column is complete when its values are.
    fn is_complete(&self, at: &Place<'_>) -> bool {
        let all_rows = self.rows >= at.rows && (at.column.max_rep_level() == 0 || self.values >= at.chunk.values);
        self.next >= self.chunk.end || all_rows
    }

    /// Goes on over the bytes of [`Learning::window`]; none when it needs the next window.
    ///
    /// # Errors
    /// The chunk's pages are damaged, or do not hold the row group's rows.
    pub(crate) fn go_on(&mut self, bytes: &Bytes, at: &Place<'_>, limits: &Limits) -> Result<Option<PageTable>, Error> {
        let start = self.next;
        while !self.is_complete(at) {
            let from = usize::try_from(self.next - start).unwrap_or(usize::MAX);
            let rest = bytes.get(from..).unwrap_or_default();
            let is_last_window = start + bytes.len() as u64 >= self.chunk.end;
            let header = match PageHeader::read(rest, limits) {
                // It may only be the window that ends too early.
                Err(_) if rest.len() < MAX_HEADER_BYTES && !is_last_window => {
                    self.least_window = if from == 0 { rest.len().max(MIN_WINDOW_BYTES) as u64 * 2 } else { 0 };
                    return Ok(None);
                }
                header => header?,
            };
            let end = self.next + header.total_bytes() as u64;
            if end > self.chunk.end {
                return Err(Error::corrupt("a page ends beyond its column chunk"));
            }
            let counted = match self.rows_of(&header, rest, at, limits)? {
                Counted::Rows(rows) => Some(rows),
                Counted::NoData => None,
                Counted::NeedsBody => {
                    self.least_window = header.total_bytes() as u64;
                    return Ok(None);
                }
            };
            // Some writers leave data pages without values behind.
            if let Some(rows) = counted.filter(|_| header.values > 0) {
                self.add(&header, rows, limits)?;
            }
            (self.next, self.least_window) = (end, 0);
        }
        if self.rows != at.rows {
            return Err(Error::corrupt(format!("a column chunk holds {} rows, its row group {}", self.rows, at.rows)));
        }
        let (pages, dictionary) = (std::mem::take(&mut self.pages).into(), self.dictionary.take());
        Ok(Some(PageTable { dictionary, pages, rows: at.rows, aligned: self.aligned, bounds: None }))
    }

    fn add(&mut self, header: &PageHeader, rows: u64, limits: &Limits) -> Result<(), Error> {
        if self.pages.len() >= limits.chunk_pages {
            let bound = limits.chunk_pages;
            return Err(Error::Limit(format!("a column chunk of more than {bound} data pages")));
        }
        let length = u32::try_from(header.total_bytes()).map_err(|_| Error::corrupt("a page of 4 GiB"))?;
        self.pages.push(PageLocation { offset: self.next, length, first_row: self.rows });
        self.rows += rows;
        self.values += i64::from(header.values);
        Ok(())
    }

    /// How many rows start in the page whose header was read.
    fn rows_of(&mut self, header: &PageHeader, rest: &[u8], at: &Place<'_>, limits: &Limits) -> Result<Counted, Error> {
        Ok(match header.kind {
            PageKind::Dictionary if self.pages.is_empty() => {
                self.dictionary = Some(self.next..self.next + header.total_bytes() as u64);
                Counted::NoData
            }
            PageKind::Dictionary | PageKind::Other => Counted::NoData,
            PageKind::DataV2 { rows, .. } => Counted::Rows(rows.into()),
            PageKind::DataV1 { .. } if at.column.max_rep_level() == 0 => Counted::Rows(header.values.into()),
            PageKind::DataV1 { .. } => {
                let Some(page) = rest.get(..header.total_bytes()) else { return Ok(Counted::NeedsBody) };
                let page = read_page(&Bytes::copy_from_slice(page), at.codec, &at.column, limits)?;
                let (rows, starts_row) = count_rows(&page, at.column.max_rep_level())?;
                self.aligned &= starts_row;
                Counted::Rows(rows as u64)
            }
        })
    }
}

/// What a page adds to a table.
enum Counted {
    Rows(u64),
    /// A dictionary page or one of another kind.
    NoData,
    /// The levels must be seen, and the window ends before them.
    NeedsBody,
}
