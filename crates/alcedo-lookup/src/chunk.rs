//! The page table of one column chunk: which data page holds a row, where it is, and between which bounds its values
//! lie.
//!
//! It comes from the file's page index where there is one, and otherwise is learned by walking the chunk's page headers
//! once.

use std::ops::Range;

use bytes::Bytes;

use crate::codec::Codec;
use crate::data_page::{count_rows, inflate};
use crate::error::Error;
use crate::footer::{Chunk, ColumnIndex, PageLocation, read_offset_index};
use crate::key_column::{Bounds, KeyColumn, Probes};
use crate::limits::Limits;
use crate::page_header::{PageHeader, PageKind};

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
    pub(crate) bounds: Option<Box<[Bounds]>>,
}

impl PageTable {
    /// A table from an offset index's bytes.
    ///
    /// # Errors
    /// The index contradicts the chunk: the caller learns the table from the chunk instead.
    pub(crate) fn from_offset_index(bytes: &[u8], chunk: &Range<u64>, rows: u64) -> Result<Self, Error> {
        let pages = read_offset_index(bytes)?;
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
    pub(crate) fn with_bounds(mut self, index: &ColumnIndex, column: &KeyColumn) -> Self {
        if index.null_pages.len() == self.pages.len() {
            let nulls = |page: usize| index.null_counts.as_ref().map(|counts| counts[page]);
            let bounds = (0..self.pages.len())
                .map(|i| column.page_bounds(index.null_pages[i], &index.min[i], &index.max[i], nulls(i)));
            self.bounds = Some(bounds.collect());
        }
        self
    }

    /// Learns the table from the chunk's bytes.
    ///
    /// # Errors
    /// The chunk's pages are damaged, or do not hold the row group's rows.
    pub(crate) fn learn(bytes: &Bytes, at: &Place<'_>, limits: &Limits) -> Result<Self, Error> {
        let mut table = Self { dictionary: None, pages: Box::default(), rows: at.rows, aligned: true, bounds: None };
        let (mut pages, mut offset, mut first_row, mut values) = (Vec::new(), 0_usize, 0_u64, 0_i64);
        while offset < bytes.len() && (values < at.chunk.values || first_row < at.rows) {
            let header = PageHeader::read(&bytes[offset..], limits)?;
            let end = offset + header.total_bytes();
            if end > bytes.len() {
                return Err(Error::corrupt("a page ends beyond its column chunk"));
            }
            let file_offset = at.start + offset as u64;
            let rows = match header.kind {
                PageKind::Dictionary if pages.is_empty() => {
                    table.dictionary = Some(file_offset..file_offset + header.total_bytes() as u64);
                    None
                }
                PageKind::Dictionary | PageKind::Other => None,
                PageKind::DataV2 { rows, .. } => Some(rows.into()),
                PageKind::DataV1 { .. } if at.max_rep_level == 0 => Some(header.values.into()),
                PageKind::DataV1 { .. } => {
                    let page = inflate(&bytes.slice(offset..end), at.codec, limits)?;
                    let (rows, starts_row) = count_rows(&page, at.max_rep_level)?;
                    table.aligned &= starts_row;
                    Some(rows as u64)
                }
            };
            if let Some(rows) = rows {
                let length = u32::try_from(header.total_bytes()).map_err(|_| Error::corrupt("a page of 4 GiB"))?;
                pages.push(PageLocation { offset: file_offset, length, first_row });
                first_row += rows;
                values += i64::from(header.values);
            }
            offset = end;
        }
        if first_row != at.rows {
            return Err(Error::corrupt(format!("a column chunk holds {first_row} rows, its row group {}", at.rows)));
        }
        table.pages = pages.into();
        Ok(table)
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

    /// The data pages that may hold a key.
    pub(crate) fn candidates(&self, probes: &Probes) -> Vec<usize> {
        match &self.bounds {
            None => (0..self.pages.len()).collect(),
            Some(bounds) => (0..self.pages.len()).filter(|page| probes.may_be_in(&bounds[*page])).collect(),
        }
    }

    /// Whether the table has bounds of its data pages.
    pub(crate) fn has_bounds(&self) -> bool {
        self.bounds.is_some()
    }

    /// Bytes of memory, for the index's budget.
    pub(crate) fn weight(&self) -> u64 {
        let bounds = self.bounds.iter().flat_map(|bounds| bounds.iter()).map(|bounds| {
            let bytes = |point: &crate::probe::Point| match point {
                crate::probe::Point::Bytes(bytes) => bytes.len(),
                _ => 0,
            };
            size_of::<Bounds>() + bounds.range.as_ref().map_or(0, |(min, max)| bytes(min) + bytes(max))
        });
        (size_of::<Self>() + self.pages.len() * size_of::<PageLocation>() + bounds.sum::<usize>()) as u64
    }
}

/// What learning must know of a chunk.
pub(crate) struct Place<'a> {
    pub(crate) chunk: &'a Chunk,
    /// Offset of the chunk in the file.
    pub(crate) start: u64,
    /// Rows of the row group.
    pub(crate) rows: u64,
    pub(crate) codec: Codec,
    pub(crate) max_rep_level: i16,
}
