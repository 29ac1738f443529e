//! Where a page is, in words: errors name the column, the row group and the data page.

use std::fmt;

use parquet::schema::types::ColumnDescPtr;

use crate::error::{Error, shown};

/// One page of one column chunk.
#[derive(Clone)]
pub(crate) struct PagePlace {
    pub(crate) column: ColumnDescPtr,
    pub(crate) group: Group,
    /// Ordinal of the data page within its column chunk, none for the dictionary page. Where only some of a chunk's
    /// data pages are known, it counts among these.
    pub(crate) ordinal: Option<usize>,
    /// Offset in the file, where it is known.
    pub(crate) offset: Option<u64>,
}

/// A row group by what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// Its 0-based ordinal.
    Ordinal(usize),
    /// The 0-based number in the file of its first row.
    FromRow(u64),
}

impl PagePlace {
    /// Adds this place to an error about the page.
    pub(crate) fn name(&self, error: Error) -> Error {
        error.within(&self.to_string())
    }
}

impl fmt::Display for PagePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ordinal {
            Some(ordinal) => write!(f, "data page {ordinal}")?,
            None => f.write_str("the dictionary page")?,
        }
        if let Some(offset) = self.offset {
            write!(f, " (offset {offset})")?;
        }
        write!(f, " of {}, {}", ColumnName(&self.column), self.group)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ordinal(ordinal) => write!(f, "row group {ordinal}"),
            Self::FromRow(row) => write!(f, "the row group from row {row}"),
        }
    }
}

/// A column by its dotted name, cut.
pub(crate) struct ColumnName<'a>(pub(crate) &'a ColumnDescPtr);

impl fmt::Display for ColumnName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column `{}`", shown(&self.0.path().string()))
    }
}
