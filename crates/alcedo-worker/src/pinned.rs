//! Layer 3: bytes of files that are pinned, as readers find them.
//!
//! Knows the store of what is pinned, and of which files anything is in it. It must not know why something is pinned:
//! that is `pins`. Where nothing is, nothing is asked: a reader looks at one number.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use alcedo_cache::{FileKey, PageStore};
use bytes::Bytes;

use crate::derived::is_part;

/// The bytes of files that are pinned.
#[derive(Debug)]
pub(crate) struct PinnedBytes {
    store: PageStore,
    has_any: AtomicBool,
    /// Files of which anything is pinned, and its bytes, derived objects included.
    files: RwLock<HashMap<Arc<str>, u64>>,
}

impl PinnedBytes {
    /// Over the store of what is pinned, with what is in it.
    pub(crate) fn over(store: PageStore) -> Self {
        let has_any = AtomicBool::new(store.files().iter().any(|file| !is_part(&file.key)));
        Self { store, has_any, files: RwLock::default() }
    }

    /// A store that never has anything.
    pub(crate) fn none() -> Self {
        Self::over(PageStore::in_memory(0))
    }

    /// The bytes of a range, if all of them are pinned and need no wait.
    pub(crate) fn read(&self, version: &FileKey, range: &Range<u64>) -> Option<Bytes> {
        if !self.has_any.load(Ordering::Relaxed) {
            return None;
        }
        self.store.read(version, range.clone())
    }

    /// The bytes of each range that is pinned; it may wait for the disk, but not long.
    pub(crate) async fn read_each(&self, version: &FileKey, ranges: &[Range<u64>]) -> Vec<Option<Bytes>> {
        let mut parts = vec![None; ranges.len()];
        if self.has_any.load(Ordering::Relaxed) {
            for (part, range) in parts.iter_mut().zip(ranges) {
                // What no file can have is for others to refuse.
                if range.start < range.end {
                    *part = self.store.read_waiting(version, range.clone()).await;
                }
            }
        }
        parts
    }

    /// How many of the last bytes of a file are pinned, as far as so many; none where the last one is not.
    pub(crate) fn tail_bytes(&self, version: &FileKey, size: u64, at_most: u64) -> Option<u64> {
        if !self.has_any.load(Ordering::Relaxed) {
            return None;
        }
        let tail = size.saturating_sub(at_most)..size;
        let gaps = self.store.missing(version, size, tail.clone());
        let start = gaps.last().map_or(tail.start, |gap| gap.end);
        (start < size).then(|| size - start)
    }

    /// Keeps bytes of a file. They are where they outlive the process once the store has settled.
    pub(crate) fn write(&self, version: &FileKey, size: u64, offset: u64, bytes: &Bytes) {
        self.has_any.store(true, Ordering::Relaxed);
        self.store.write(version, size, offset, bytes);
    }

    /// Drops the bytes of a file version, and returns how many those were.
    pub(crate) fn forget(&self, version: &FileKey) -> u64 {
        if self.has_any.load(Ordering::Relaxed) { self.store.forget(version) } else { 0 }
    }

    /// The file versions of which bytes are here. It walks over everything.
    pub(crate) fn versions(&self) -> Vec<FileKey> {
        let files: Vec<_> = self.store.files().into_iter().map(|file| file.key).filter(|key| !is_part(key)).collect();
        self.has_any.store(!files.is_empty(), Ordering::Relaxed);
        files
    }

    /// Bytes that are pinned of a file, derived objects included; none where nothing is.
    pub(crate) fn kept_bytes(&self, url: &str) -> Option<u64> {
        self.files.read().unwrap_or_else(PoisonError::into_inner).get(url).copied()
    }

    /// Notes how many bytes are pinned of a file now.
    pub(crate) fn note_kept(&self, url: &Arc<str>, bytes: u64) {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        if bytes == 0 {
            files.remove(url)
        } else {
            files.insert(Arc::clone(url), bytes)
        };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tail_is_as_long_as_what_is_pinned_of_it() {
        let pinned = PinnedBytes::over(PageStore::in_memory(1 << 20));
        let version = FileKey::new("s3://lake/a", "1");
        let size = 100_000;
        assert_eq!((pinned.tail_bytes(&version, size, 50_000), pinned.read(&version, &(0..1))), (None, None));
        let start = 81_920;
        pinned.write(&version, size, start, &vec![1; (size - start) as usize].into());
        assert_eq!(pinned.tail_bytes(&version, size, 50_000), Some(size - start));
        assert_eq!(pinned.tail_bytes(&version, size, 10), Some(10));
        assert_eq!(pinned.read_each(&version, &[0..4, start..start + 2]).await, [None, Some(vec![1; 2].into())]);
        let other = FileKey::new("s3://lake/a", "2");
        pinned.write(&other, size, 0, &vec![1; 4_096].into());
        assert_eq!(pinned.tail_bytes(&other, size, 50_000), None);
        assert_eq!(pinned.versions().len(), 2);
        assert!(pinned.forget(&version) > 0 && pinned.forget(&other) > 0);
        assert!(pinned.versions().is_empty() && !pinned.has_any.load(Ordering::Relaxed));
        assert!(PinnedBytes::over(pinned.store).files.read().unwrap().is_empty());
    }
}
