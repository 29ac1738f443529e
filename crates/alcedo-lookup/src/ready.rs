//! Lookup-ready rows: a derived object in which one row of a set of columns is one small read and no decompression.
//!
//! All rows of one file version, in file order, as compact rows ([`crate::rows`]) of a set of columns with the key
//! column's value in front, so that it is compared without looking at the rest. Rows are packed into blocks of about
//! 4 KiB and blocks into parts; the head, which stays in memory while it is used, says where each block is and between
//! which keys its rows lie. Where the key column is sorted the head alone finds a key's block; elsewhere a keymap gives
//! the row, and the head its block.
//!
//! A lookup answered from here gives the same bytes as a search: the key is always compared, fields are copied as they
//! are, and what cannot be stored so that this holds is refused when the object is built. It must not know where parts
//! and heads are kept, nor when to build them: [`worth`] only says what that costs.

mod block;
mod build;
mod columns;
mod directory;
mod fields;
mod head;
mod key_field;
mod read;
mod stretch;

pub use build::ReadyBuild;
pub use directory::BlockRef;
pub use read::{FoundReady, ReadyPlan, ReadyRows};

use crate::codec::Codec;
use crate::error::Error;
use crate::file_index::FileIndex;
use crate::page_check::plain_width;
use crate::ready::columns::StoredColumns;

/// How many times larger than stored the values of compressed texts are taken to be, where nothing else is known:
/// dictionaries and snappy together save about as much on names and addresses.
const TEXT_EXPANSION: u64 = 3;
/// Bytes that a row takes beside its values: its length and, in lists, counts.
const ROW_BYTES: u64 = 2;

/// What building an object costs, about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worth {
    /// Bytes of the file that are read: all data pages of the columns.
    pub read_bytes: u64,
    /// Bytes of the object, as far as the footer tells: lengths of texts are guessed.
    pub object_bytes: u64,
}

/// What it costs to make these columns' rows lookup-ready.
///
/// # Errors
/// As [`ReadyBuild::new`]; a column chunk that cannot be read.
pub fn worth(index: &FileIndex, key_column: Option<&str>, columns: Option<&[String]>) -> Result<Worth, Error> {
    let (columns, projection) = StoredColumns::resolve(index, key_column, columns)?;
    let (mut read_bytes, beside) = (0_u64, ROW_BYTES + columns.null_bytes() as u64);
    let mut object_bytes = index.rows().saturating_mul(beside);
    for group in 0..index.row_groups() {
        for leaf in &projection.leaves {
            let chunk = index.chunk(group, *leaf);
            let range = index.chunk_range(group, *leaf)?;
            let bytes = range.end - range.start;
            read_bytes = read_bytes.saturating_add(bytes);
            let expansion = if chunk.codec()? == Codec::Uncompressed { 1 } else { TEXT_EXPANSION };
            object_bytes = object_bytes.saturating_add(match plain_width(&index.schema().column(*leaf)) {
                Some(width) => (chunk.values.max(0) as u64).saturating_mul(width as u64),
                None => bytes.saturating_mul(expansion),
            });
        }
    }
    Ok(Worth { read_bytes, object_bytes })
}

/// The name of an object among the derived objects of its file version: the same columns and key column have the same
/// one.
///
/// # Errors
/// As [`ReadyBuild::new`].
pub fn object_name(index: &FileIndex, key_column: Option<&str>, columns: Option<&[String]>) -> Result<String, Error> {
    StoredColumns::resolve(index, key_column, columns).map(|(columns, _)| name_of(&columns))
}

fn name_of(columns: &StoredColumns) -> String {
    format!("rows-{:016x}", columns.fingerprint)
}
