//! Layer 3: which machine makes which object.
//!
//! Knows the builders of `alcedo-lookup`, and what memory they may take. It must not know why an object is made.

use std::sync::Arc;

use alcedo_lookup::answer::Form;
use alcedo_lookup::error::Error as FileError;
use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::keymap::builder::{self, Builder};
use alcedo_lookup::limits::Limits;
use alcedo_lookup::prepared::Prepared;
use alcedo_lookup::ready::{self, ReadyBuild};
use alcedo_lookup::search::Query;
use tokio::runtime::Handle;

use super::building::{Failed, build};
use super::pace::Paced;
use super::{Job, What};
use crate::cost::Cost;
use crate::derived::{Object, keymap_name};
use crate::error::Error;
use crate::reader::Reader;
use crate::service::Door;

/// Parts of a build's memory, as divisors: the data pages that it holds as they are stored ...
const SCAN_SHARE: u64 = 8;
/// ... and decompressed. The rest is for decoded rows, the part at hand and its copy on the way to the disk.
const INFLATE_SHARE: u64 = 4;
/// ... and, of a keymap, the entries of one pass over the column.
const ENTRIES_SHARE: u64 = 2;

/// Makes an object.
///
/// # Errors
/// See [`Failed`]; nothing of it is left.
pub(super) async fn make(door: &Door, io: &Handle, job: &Job) -> Result<Arc<Object>, Failed> {
    let reader = Reader::of_version(door.lookups.store(), &job.place, job.version.clone(), &Arc::new(Cost::new(false)));
    let source = Paced::new(door, io, reader.ahead_of_need(), &job.version);
    let (memory, index) = (door.settings().builds.memory_bytes, Arc::clone(&job.index));
    let limits = Arc::new(within(memory, door.lookups.limits()));
    let about = |error| Error::file(&job.place.url, error);
    match &job.what {
        What::Ready { key, columns } => {
            let machine = ReadyBuild::new(index, key.as_deref(), columns.as_deref(), limits).map_err(about)?;
            build(door, &source, job, machine).await
        }
        What::Keymap { column } => {
            let prepared = Arc::new(keyed(&index, column, &limits).map_err(about)?);
            let machine = Builder::new(prepared, entry_bytes(memory)).map_err(about)?;
            build(door, &source, job, machine).await
        }
    }
}

/// A question for a key column and nothing else.
fn keyed(index: &Arc<FileIndex>, column: &str, limits: &Arc<Limits>) -> Result<Prepared, FileError> {
    let (key_column, columns) = (Some(column.to_owned()), Some(vec![column.to_owned()]));
    let query = Query { key_column, keys: Vec::new(), columns, form: Form::CompactRows, row_limit: None };
    Prepared::new(Arc::clone(index), &query, Arc::clone(limits))
}

/// The name of an object, and about how many bytes it will have.
///
/// # Errors
/// The question does not fit the file.
pub(super) fn described(door: &Door, what: &What, index: &Arc<FileIndex>) -> Result<(String, u64), FileError> {
    match what {
        What::Ready { key, columns } => {
            let (key, columns) = (key.as_deref(), columns.as_deref());
            Ok((ready::object_name(index, key, columns)?, ready::worth(index, key, columns)?.object_bytes))
        }
        What::Keymap { column } => {
            let memory = door.settings().builds.memory_bytes;
            let leaf = keyed(index, column, door.lookups.limits())?.key_leaf();
            let worth = builder::worth(index, leaf, entry_bytes(memory));
            let worth = worth.ok_or_else(|| FileError::Limit(format!("no keymap can be made of {column}")))?;
            Ok((keymap_name(leaf), worth.object_bytes))
        }
    }
}

/// Bytes that the entries of one pass over a key column may take.
pub(super) fn entry_bytes(memory_bytes: u64) -> usize {
    usize::try_from(memory_bytes / ENTRIES_SHARE).unwrap_or(usize::MAX)
}

/// The bounds of lookups, narrowed to what a build may hold.
fn within(memory_bytes: u64, limits: &Limits) -> Limits {
    let inflate = usize::try_from(memory_bytes / INFLATE_SHARE).unwrap_or(usize::MAX);
    Limits {
        scan_bytes: limits.scan_bytes.min(memory_bytes / SCAN_SHARE).max(1),
        inflate_bytes: limits.inflate_bytes.min(inflate).max(1),
        ..limits.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_holds_its_share_and_never_more_than_a_lookup() {
        let limits = Limits { scan_bytes: 16 << 20, inflate_bytes: 128 << 20, ..Limits::default() };
        let small = within(64 << 20, &limits);
        assert_eq!((small.scan_bytes, small.inflate_bytes), (8 << 20, 16 << 20));
        let large = within(64 << 30, &limits);
        assert_eq!((large.scan_bytes, large.inflate_bytes), (16 << 20, 128 << 20));
    }
}
