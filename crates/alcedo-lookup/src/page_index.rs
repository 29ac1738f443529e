//! The page index of one column chunk: where its data pages are, and between which bounds their values lie.
//!
//! Indexes are advisory: a damaged one is left out. Source:
//! <https://github.com/apache/parquet-format/blob/master/PageIndex.md>.

use crate::error::Error;
use crate::footer::Bound;
use crate::limits::Limits;
use crate::thrift::{BINARY, I32, I64, LIST, Reader, STRUCT, TRUE};

/// A column index: per data page its bounds, or none where it holds only nulls.
pub(crate) struct ColumnIndex {
    pub(crate) null_pages: Vec<bool>,
    pub(crate) min: Vec<Bound>,
    pub(crate) max: Vec<Bound>,
    pub(crate) null_counts: Option<Vec<u64>>,
}

/// Reads a column index.
///
/// # Errors
/// It is damaged. Indexes are advisory: the caller goes on without it.
pub(crate) fn read_column_index(bytes: &[u8], limits: &Limits) -> Result<ColumnIndex, Error> {
    let mut reader = Reader::new(bytes, "column index", limits);
    let mut index = ColumnIndex { null_pages: Vec::new(), min: Vec::new(), max: Vec::new(), null_counts: None };
    reader.fields(|reader, id, ty| {
        match (id, ty) {
            (1, LIST) => {
                let count = pages(reader, TRUE, limits)?;
                index.null_pages = (0..count).map(|_| reader.list_bool()).collect::<Result<_, _>>()?;
            }
            (2, LIST) => index.min = bounds(reader, limits)?,
            (3, LIST) => index.max = bounds(reader, limits)?,
            (5, LIST) => {
                let count = pages(reader, I64, limits)?;
                index.null_counts = Some((0..count).map(|_| reader.unsigned()).collect::<Result<_, _>>()?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let pages = index.null_pages.len();
    let counts_fit = index.null_counts.as_ref().is_none_or(|counts| counts.len() == pages);
    if index.min.len() != pages || index.max.len() != pages || !counts_fit {
        return Err(reader.error("its lists differ in length"));
    }
    Ok(index)
}

/// A list with an element per data page.
fn pages(reader: &mut Reader<'_>, element: u8, limits: &Limits) -> Result<usize, Error> {
    match reader.list_of(element)? {
        count if count <= limits.chunk_pages => Ok(count),
        count => Err(Error::Limit(format!("{count} data pages, an index of at most {} is used", limits.chunk_pages))),
    }
}

fn bounds(reader: &mut Reader<'_>, limits: &Limits) -> Result<Vec<Bound>, Error> {
    let count = pages(reader, BINARY, limits)?;
    (0..count).map(|_| Ok(Bound::new(reader.binary()?))).collect()
}

/// One entry of an offset index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageLocation {
    pub(crate) offset: u64,
    /// Header and body.
    pub(crate) length: u32,
    /// Within the row group.
    pub(crate) first_row: u64,
}

/// Reads an offset index.
///
/// # Errors
/// It is damaged. Indexes are advisory: the caller goes on without it.
pub(crate) fn read_offset_index(bytes: &[u8], limits: &Limits) -> Result<Vec<PageLocation>, Error> {
    let mut reader = Reader::new(bytes, "offset index", limits);
    let mut locations = Vec::new();
    reader.fields(|reader, id, ty| {
        if (id, ty) != (1, LIST) {
            return Ok(false);
        }
        let count = pages(reader, STRUCT, limits)?;
        for _ in 0..count {
            let mut page = PageLocation { offset: 0, length: 0, first_row: 0 };
            reader.fields(|reader, id, ty| {
                match (id, ty) {
                    (1, I64) => page.offset = reader.unsigned()?,
                    (2, I32) => page.length = reader.u32()?,
                    (3, I64) => page.first_row = reader.unsigned()?,
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
            locations.push(page);
        }
        Ok(true)
    })?;
    Ok(locations)
}
