//! Layer 1: the page store in memory, for a worker without a cache directory.
//!
//! Knows pages by (file key, page number) within a budget of bytes. It must not know what the bytes mean nor where they
//! come from, and nothing of the page store on disk, which keeps the same promises.
//!
//! The budget is kept by a moka cache with the weight of each page; admission and eviction follow use. Each write lets
//! it settle before it returns, so that the store is never more than one page per writer above its budget.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use moka::Equivalent;
use moka::notification::RemovalCause;
use moka::sync::Cache;

use crate::file_key::FileKey;
use crate::page::{PAGE_BYTES, Page};
use crate::stretch::{Held, Stretch, joined, recordable};

/// What a page costs beside its bytes and its key's texts: entries of the cache's table, queues and frequency sketch,
/// the page itself and the allocator's rounding, estimated generously so that the budget holds.
const PAGE_OVERHEAD_BYTES: usize = 384;
/// Locks for merging, chosen by page: many more than there are cores, so that writers of different pages rarely meet.
const STRIPES: usize = 64;

/// Parts of files, held in memory within a budget of bytes.
pub(crate) struct MemoryPages {
    pages: Cache<PageKey, Page>,
    /// Held while a page is read, merged and put back, so that two writers of one page do not lose each other's blocks.
    stripes: [Mutex<()>; STRIPES],
    capacity_bytes: u64,
    /// Whether pages make room for others; else what finds no room is not kept.
    evicts: bool,
    evictions: Arc<AtomicU64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct PageKey {
    file: FileKey,
    number: u64,
}

/// A [`PageKey`] that borrows its file, for asking.
struct PageName<'a> {
    file: &'a FileKey,
    number: u64,
}

impl Hash for PageKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        PageName { file: &self.file, number: self.number }.hash(state);
    }
}

impl Hash for PageName<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.file.hash(state);
        state.write_u64(self.number);
    }
}

impl Equivalent<PageKey> for PageName<'_> {
    fn equivalent(&self, key: &PageKey) -> bool {
        self.number == key.number && *self.file == key.file
    }
}

impl MemoryPages {
    /// An empty store that keeps its pages in memory, at most `capacity_bytes` of them. Zero keeps nothing
    /// and evicts nothing. With `evicts` pages make room for others; else what finds no room is not kept.
    pub(crate) fn new(capacity_bytes: u64, evicts: bool) -> Self {
        let evictions = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&evictions);
        let pages = Cache::builder()
            .max_capacity(if evicts { capacity_bytes } else { u64::MAX })
            .weigher(|key: &PageKey, page: &Page| weight(&key.file, page))
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build();
        let stripes = std::array::from_fn(|_| Mutex::new(()));
        Self { pages, stripes, capacity_bytes, evicts, evictions }
    }

    /// The bytes of a range of the file, if all of them are here. There is no copy when the range lies within one page
    /// and one copy otherwise; an empty range is always here.
    pub(crate) fn read(&self, file: &FileKey, range: Range<u64>) -> Option<Bytes> {
        if range.start >= range.end {
            return Some(Bytes::new());
        }
        let mut slices = Vec::new();
        for (number, inside) in pages_of(range.clone()) {
            let slice = self.page(file, number)?.slice(&inside)?;
            if slice.len() as u64 == range.end - range.start {
                return Some(slice);
            }
            slices.push(slice);
        }
        Some(joined(&slices))
    }

    /// Records bytes of the file from `offset` on. Only whole blocks are recorded, and the last block of the file up to
    /// its end; bytes at either side are ignored. Bytes that reach beyond the end of the file contradict its size, and
    /// none of them are recorded.
    pub(crate) fn write(&self, file: &FileKey, file_size: u64, offset: u64, bytes: &Bytes) {
        let Some(whole) = recordable(file_size, offset, bytes.len() as u64) else { return };
        for (number, inside) in pages_of(whole) {
            let from = number * PAGE_BYTES + inside.start - offset;
            let to = from + (inside.end - inside.start);
            let (Ok(from), Ok(to)) = (usize::try_from(from), usize::try_from(to)) else { return };
            if let Some(part) = bytes.get(from..to) {
                self.merge(file, number, Page::new(file_size, inside.start, part));
            }
        }
    }

    /// Drops all pages whose file the test names, and returns their bytes. It walks over all pages of the store, so it
    /// is for rare moments; a page that somebody writes at the same time may stay.
    pub(crate) fn forget(&self, is_named: impl Fn(&FileKey) -> bool) -> u64 {
        let mut freed = 0;
        for (key, page) in self.pages.iter() {
            if is_named(&key.file) {
                freed += page.held_bytes() as u64;
                self.pages.invalidate(key.as_ref());
            }
        }
        self.pages.run_pending_tasks();
        freed
    }

    /// Bytes of the file that are here. It walks over all pages of the store.
    pub(crate) fn held_bytes(&self, file: &FileKey) -> u64 {
        let of_file = self.pages.iter().filter(|(key, _)| key.file == *file);
        of_file.map(|(_, page)| page.held_bytes() as u64).sum()
    }

    /// All files that something is here of, each with its size and the bytes that are here. It walks over all pages.
    pub(crate) fn files(&self) -> Vec<(FileKey, u64, u64)> {
        let mut files: HashMap<FileKey, (u64, u64)> = HashMap::new();
        for (key, page) in self.pages.iter() {
            let (size, held_bytes) = files.entry(key.file.clone()).or_default();
            *size = page.file_size();
            *held_bytes += page.held_bytes() as u64;
        }
        files.into_iter().map(|(file, (size, held_bytes))| (file, size, held_bytes)).collect()
    }

    /// Bytes held now, overhead included.
    pub(crate) fn bytes(&self) -> u64 {
        self.pages.weighted_size()
    }

    /// The budget in bytes.
    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// Pages dropped for want of room since the store was made, those that were not admitted included.
    pub(crate) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// A range in order as stretches that are here and stretches that are missing; together they are the range, cut at
    /// the end of the file.
    pub(crate) fn survey(&self, file: &FileKey, file_size: u64, range: &Range<u64>) -> Vec<Stretch> {
        let mut stretches = Vec::new();
        for (number, inside) in pages_of(range.start..range.end.min(file_size)) {
            let page = self.page(file, number).filter(|page| page.is_of_size(file_size));
            let parts = page.map_or_else(|| vec![(inside.clone(), None)], |page| page.parts(&inside));
            for (part, bytes) in parts {
                let part = number * PAGE_BYTES + part.start..number * PAGE_BYTES + part.end;
                match (bytes, stretches.last_mut()) {
                    (Some(bytes), _) => stretches.push(Stretch::Here(Held::Bytes(bytes))),
                    (None, Some(Stretch::Missing(last))) => last.end = part.end,
                    (None, _) => stretches.push(Stretch::Missing(part)),
                }
            }
        }
        stretches
    }

    fn page(&self, file: &FileKey, number: u64) -> Option<Page> {
        self.pages.get(&PageName { file, number })
    }

    fn merge(&self, file: &FileKey, number: u64, newer: Page) {
        let settled = self.stripe(file, number);
        let page = match self.page(file, number) {
            Some(page) => page.merged_into(newer),
            None => newer,
        };
        if !self.evicts {
            self.pages.run_pending_tasks();
            if self.pages.weighted_size() + u64::from(weight(file, &page)) > self.capacity_bytes {
                return;
            }
        }
        self.pages.insert(PageKey { file: file.clone(), number }, page);
        drop(settled);
        self.pages.run_pending_tasks();
    }

    fn stripe(&self, file: &FileKey, number: u64) -> MutexGuard<'_, ()> {
        // Where nothing makes room, one writer at a time looks whether there is any.
        let index = if self.evicts { (file.digest() ^ number) as usize % STRIPES } else { 0 };
        // The lock guards no data of its own, so a panic of another holder left nothing half done.
        self.stripes[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a page costs.
fn weight(file: &FileKey, page: &Page) -> u32 {
    u32::try_from(page.held_bytes() + file.text_bytes() + PAGE_OVERHEAD_BYTES).unwrap_or(u32::MAX)
}

/// The pages that a range touches: each page's number, and the part of the range in it as offsets inside the page.
fn pages_of(range: Range<u64>) -> impl Iterator<Item = (u64, Range<u64>)> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        if start >= range.end {
            return None;
        }
        let number = start / PAGE_BYTES;
        let inside = start % PAGE_BYTES;
        let length = (PAGE_BYTES - inside).min(range.end - start);
        start += length;
        Some((number, inside..inside + length))
    })
}
