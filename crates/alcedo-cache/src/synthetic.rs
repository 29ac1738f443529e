//! Layer 1: page stores without pages, for measuring how long a restart takes.
//!
//! Knows the form of a sealed segment. It must not know how a real one comes about: the data is holes, which fail their
//! checks when somebody reads them, so such a store is right, and empty to its readers.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::cache_dir::CacheDir;
use crate::extent::{check_count, header_bytes};
use crate::file_key::FileKey;
use crate::page::PAGE_BYTES;
use crate::segment::{HEADER_BYTES, encode_header};
use crate::segment_log::{file_name, segment_bytes};
use crate::store_name::StoreName;
use crate::table::{Entry, Table};

/// Size of each file: as many pages as one of a lake's usual files has.
const FILE_BYTES: u64 = 1 << 30;
/// Room for headers and tables, of 64.
const OVERHEAD_PARTS: u64 = 65;

/// Writes sealed segments that claim to hold so many pages of 64 KiB into an empty cache directory, and returns the
/// quota of the store that they fill. They take little of the disk.
///
/// # Errors
/// The operating system's.
pub fn synthetic_segments(dir: &CacheDir, pages: u64) -> io::Result<u64> {
    let capacity_bytes = pages * PAGE_BYTES / 64 * OVERHEAD_PARTS + (16 << 20);
    let segment_bytes = segment_bytes(capacity_bytes).map_or(0, u64::from);
    let (mut page, mut id) = (0, 0);
    while page < pages {
        let (mut table, mut at, mut checks) = (Table::default(), u64::from(HEADER_BYTES), 0);
        while page < pages {
            let (number, offset) = (page * PAGE_BYTES / FILE_BYTES, page * PAGE_BYTES % FILE_BYTES);
            let file = FileKey::new(format!("s3://lake/table/part-{number:08}.parquet"), format!("etag-{number:032x}"));
            let data_bytes = PAGE_BYTES as u32;
            let data_at = at + header_bytes(&file, data_bytes) as u64;
            let next_checks = checks + check_count(data_bytes);
            let end = data_at + PAGE_BYTES + table.bytes_with(&file, next_checks as usize) as u64;
            let Some(data_at) = u32::try_from(data_at).ok().filter(|_| end <= segment_bytes) else { break };
            table.push(&file, FILE_BYTES, Entry { offset, data_at, data_bytes, first_check: checks });
            (page, at, checks) = (page + 1, u64::from(data_at) + PAGE_BYTES, next_checks);
        }
        let file = File::create_new(dir.segments(StoreName::Pages).join(file_name(id)))?;
        file.write_all_at(&encode_header(id), 0)?;
        file.write_all_at(&table.encode(id, at, &vec![0; checks as usize]), at)?;
        id += 1;
    }
    Ok(capacity_bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::page_store::PageStore;

    #[test]
    fn every_page_is_found_and_none_is_believed() {
        let temp = tempfile::tempdir().unwrap();
        let dir = CacheDir::open(temp.path(), "w1").unwrap();
        let capacity_bytes = synthetic_segments(&dir, 5_000).unwrap();
        let store = PageStore::open(&dir, StoreName::Pages, capacity_bytes).unwrap();
        let counts = store.counts();
        assert_eq!((counts.extents, counts.restored_extents, counts.corrupt), (5_000, 5_000, 0));
        assert!(counts.segments > 4 && counts.file_bytes <= capacity_bytes, "{counts:?}");
        let file = FileKey::new(format!("s3://lake/table/part-{:08}.parquet", 0), format!("etag-{:032x}", 0));
        assert_eq!(store.held_bytes(&file), 5_000 * PAGE_BYTES);
        assert_eq!(store.read(&file, 0..10), None);
    }
}
