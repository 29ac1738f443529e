//! Files that exist in arithmetic only, and stores to keep parts of them.
//!
//! Every byte tells its file, version and place, so that a wrong answer cannot look right.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use alcedo_cache::{BLOCK_BYTES, CacheDir, FileKey, OpenError, PageStore, StoreName};
use bytes::Bytes;

pub(crate) const BLOCK: u64 = BLOCK_BYTES;
pub(crate) const ROOMY: u64 = 64 << 20;
/// Far longer than anything here takes, however busy the machine and its disk are.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One version of one file.
pub(crate) fn key(number: u64, version: u64) -> FileKey {
    FileKey::new(format!("s3://lake/part-{number:05}.parquet"), format!("v{version}"))
}

/// What the file holds there.
pub(crate) fn content(file: &FileKey, range: Range<u64>) -> Bytes {
    let seed = file.digest();
    let word = |place: u64| (place ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    range.map(|place| (word(place / 8) >> (place % 8 * 8)) as u8).collect::<Vec<u8>>().into()
}

/// The store in a directory; the directory is free again when the store is dropped, or some time later where the disk
/// did not take its last bytes in the time that it gives them.
pub(crate) fn open(path: &Path, capacity_bytes: u64) -> PageStore {
    let began = Instant::now();
    let dir = loop {
        match CacheDir::open(path, "w1") {
            Err(OpenError::Locked { .. }) if began.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => break opened.unwrap(),
        }
    };
    PageStore::open(&dir, StoreName::Pages, capacity_bytes).unwrap()
}

pub(crate) fn write(store: &PageStore, file: &FileKey, file_size: u64, range: Range<u64>) {
    store.write(file, file_size, range.start, &content(file, range.clone()));
}

pub(crate) fn settle(store: &PageStore) {
    assert!(store.settle(PATIENCE), "the writer does not come to an end");
}

/// Whether the range is there; its bytes are checked.
pub(crate) fn is_here(store: &PageStore, file: &FileKey, range: Range<u64>) -> bool {
    let check =
        |bytes: &Bytes| assert_eq!(*bytes, content(file, range.clone()), "wrong bytes of {file:?} at {range:?}");
    read(store, file, range.clone()).inspect(check).is_some()
}

/// The bytes of the range, if it is there. A read that took the disk too long is asked again: it says nothing about
/// what is there.
pub(crate) fn read(store: &PageStore, file: &FileKey, range: Range<u64>) -> Option<Bytes> {
    // Not every file system can say what is in memory, and then only a read that may wait finds it.
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let waited_for = || runtime().block_on(store.read_waiting(file, range.clone()));
    let began = Instant::now();
    loop {
        let slow_reads = store.counts().slow_reads;
        let read = store.read(file, range.clone()).or_else(waited_for);
        if read.is_some() || store.counts().slow_reads == slow_reads {
            return read;
        }
        assert!(began.elapsed() < PATIENCE, "the disk does not answer in time");
    }
}

/// The segment files, oldest first.
pub(crate) fn segments(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path.join("pages")) else { return Vec::new() };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "segment"));
    paths.sort_unstable();
    paths
}

/// Bytes of the segment files: what they reserved or their length, whichever is more.
pub(crate) fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = segments(path).into_iter().filter_map(|path| fs::metadata(path).ok());
    metadata.map(|metadata| metadata.len().max(metadata.blocks() * 512)).sum()
}
