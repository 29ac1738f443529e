//! Layer 1: the page store, which parts of which files are here.
//!
//! Knows pages by (file key, page number) within a budget of bytes. It must not know what the bytes mean nor where they
//! come from. Everything that is written is a hint: a full store may drop it at once, so a writer hands its bytes to
//! those who wait for them by another way.
//!
//! The budget is kept by a moka cache with the weight of each page; admission and eviction follow use. Each write lets
//! it settle before it returns, so that the store is never more than one page per writer above its budget.

use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use moka::Equivalent;
use moka::notification::RemovalCause;
use moka::sync::Cache;

use crate::file_key::FileKey;
use crate::page::{BLOCK_BYTES, PAGE_BYTES, Page};

/// What a page costs beside its bytes and its key's texts: entries of the cache's table, queues and frequency sketch,
/// the page itself and the allocator's rounding, estimated generously so that the budget holds.
const PAGE_OVERHEAD_BYTES: usize = 384;
/// Locks for merging, chosen by page: many more than there are cores, so that writers of different pages rarely meet.
const STRIPES: usize = 64;

/// Parts of files, held within a budget of bytes. A clone is cheap and is the same store.
#[derive(Clone)]
pub struct PageStore {
    inner: Arc<Inner>,
}

struct Inner {
    pages: Cache<PageKey, Page>,
    /// Held while a page is read, merged and put back, so that two writers of one page do not lose each other's blocks.
    stripes: [Mutex<()>; STRIPES],
    capacity_bytes: u64,
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

/// One stretch of an asked range, as [`PageStore::survey`] found it.
#[derive(Debug, Clone)]
pub(crate) enum Stretch {
    /// Bytes that are here and stay readable whatever the store drops.
    Here(Bytes),
    /// A part that is not here; not rounded.
    Missing(Range<u64>),
}

impl PageStore {
    /// An empty store that keeps its pages in memory, at most `capacity_bytes` of them. Zero keeps nothing
    /// and evicts nothing.
    pub fn in_memory(capacity_bytes: u64) -> Self {
        let evictions = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&evictions);
        let pages = Cache::builder()
            .max_capacity(capacity_bytes)
            .weigher(|key: &PageKey, page: &Page| {
                let weight = page.held_bytes() + key.file.text_bytes() + PAGE_OVERHEAD_BYTES;
                u32::try_from(weight).unwrap_or(u32::MAX)
            })
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build();
        let stripes = std::array::from_fn(|_| Mutex::new(()));
        Self { inner: Arc::new(Inner { pages, stripes, capacity_bytes, evictions }) }
    }

    /// The bytes of a range of the file, if all of them are here. There is no copy when the range lies within one page
    /// and one copy otherwise; an empty range is always here.
    pub fn read(&self, file: &FileKey, range: Range<u64>) -> Option<Bytes> {
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

    /// The parts of a range that are not here, rounded out to blocks and cut at the end of the file, in order and apart
    /// from each other.
    pub fn missing(&self, file: &FileKey, file_size: u64, range: Range<u64>) -> Vec<Range<u64>> {
        let stretches = self.survey(file, file_size, &range);
        let parts = stretches.into_iter().filter_map(|stretch| match stretch {
            Stretch::Here(_) => None,
            Stretch::Missing(part) => Some(rounded_out(&part, file_size)),
        });
        let mut missing: Vec<Range<u64>> = Vec::new();
        for part in parts {
            match missing.last_mut() {
                Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
                _ => missing.push(part),
            }
        }
        missing
    }

    /// Records bytes of the file from `offset` on. Only whole blocks are recorded, and the last block of the file up to
    /// its end; bytes at either side are ignored. Bytes that reach beyond the end of the file contradict its size, and
    /// none of them are recorded.
    pub fn write(&self, file: &FileKey, file_size: u64, offset: u64, bytes: &Bytes) {
        let Some(end) = offset.checked_add(bytes.len() as u64).filter(|end| *end <= file_size) else { return };
        let Some(start) = offset.checked_next_multiple_of(BLOCK_BYTES) else { return };
        let end = if end == file_size { end } else { end / BLOCK_BYTES * BLOCK_BYTES };
        for (number, inside) in pages_of(start..end) {
            let from = number * PAGE_BYTES + inside.start - offset;
            let to = from + (inside.end - inside.start);
            let (Ok(from), Ok(to)) = (usize::try_from(from), usize::try_from(to)) else { return };
            if let Some(part) = bytes.get(from..to) {
                self.merge(file, number, Page::new(file_size, inside.start, part));
            }
        }
    }

    /// Drops all pages of the file in this content version. It walks over all pages of the store, so it is for rare
    /// moments; a page that somebody writes at the same time may stay.
    pub fn forget(&self, file: &FileKey) {
        for (key, _) in self.inner.pages.iter() {
            if key.file == *file {
                self.inner.pages.invalidate(key.as_ref());
            }
        }
        self.inner.pages.run_pending_tasks();
    }

    /// Bytes held now, overhead included.
    pub fn bytes(&self) -> u64 {
        self.inner.pages.weighted_size()
    }

    /// The budget in bytes.
    pub fn capacity_bytes(&self) -> u64 {
        self.inner.capacity_bytes
    }

    /// Pages dropped for want of room since the store was made, those that were not admitted included.
    pub fn evictions(&self) -> u64 {
        self.inner.evictions.load(Ordering::Relaxed)
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
                    (Some(bytes), _) => stretches.push(Stretch::Here(bytes)),
                    (None, Some(Stretch::Missing(last))) => last.end = part.end,
                    (None, _) => stretches.push(Stretch::Missing(part)),
                }
            }
        }
        stretches
    }

    fn page(&self, file: &FileKey, number: u64) -> Option<Page> {
        self.inner.pages.get(&PageName { file, number })
    }

    fn merge(&self, file: &FileKey, number: u64, newer: Page) {
        let settled = self.stripe(file, number);
        let page = match self.page(file, number) {
            Some(page) => page.merged_into(newer),
            None => newer,
        };
        self.inner.pages.insert(PageKey { file: file.clone(), number }, page);
        drop(settled);
        self.inner.pages.run_pending_tasks();
    }

    fn stripe(&self, file: &FileKey, number: u64) -> MutexGuard<'_, ()> {
        let index = (file.digest() ^ number) as usize % STRIPES;
        // The lock guards no data of its own, so a panic of another holder left nothing half done.
        self.inner.stripes[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for PageStore {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (bytes, capacity_bytes) = (self.bytes(), self.capacity_bytes());
        out.debug_struct("PageStore").field("bytes", &bytes).field("capacity_bytes", &capacity_bytes).finish()
    }
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

/// The range of whole blocks around a range, cut at the end of the file.
pub(crate) fn rounded_out(range: &Range<u64>, file_size: u64) -> Range<u64> {
    let end = range.end.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX);
    range.start / BLOCK_BYTES * BLOCK_BYTES..end.min(file_size)
}

/// All slices one behind the other.
pub(crate) fn joined(slices: &[Bytes]) -> Bytes {
    let mut whole = BytesMut::with_capacity(slices.iter().map(Bytes::len).sum());
    for slice in slices {
        whole.extend_from_slice(slice);
    }
    whole.freeze()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCK: u64 = BLOCK_BYTES;
    const ROOMY: u64 = 64 << 20;

    fn file() -> FileKey {
        FileKey::new("s3://lake/a.parquet", "v1")
    }

    /// What the file holds: every byte tells its place, and blocks differ from each other.
    fn content(range: Range<u64>) -> Bytes {
        range.map(|place| (place ^ (place >> 12).wrapping_mul(31)) as u8).collect::<Vec<u8>>().into()
    }

    fn write(store: &PageStore, file_size: u64, range: Range<u64>) {
        store.write(&file(), file_size, range.start, &content(range));
    }

    /// The missing parts as pairs.
    fn missing(store: &PageStore, file_size: u64, range: Range<u64>) -> Vec<(u64, u64)> {
        store.missing(&file(), file_size, range).iter().map(|part| (part.start, part.end)).collect()
    }

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let store = PageStore::in_memory(ROOMY);
        let size = 10 * PAGE_BYTES;
        write(&store, size, BLOCK..3 * PAGE_BYTES);
        assert_eq!(store.read(&file(), BLOCK + 5..BLOCK + 9).unwrap(), content(BLOCK + 5..BLOCK + 9));
        assert_eq!(store.read(&file(), BLOCK..3 * PAGE_BYTES).unwrap(), content(BLOCK..3 * PAGE_BYTES));
        assert_eq!(store.read(&file(), BLOCK - 1..BLOCK + 9), None);
        assert_eq!(store.read(&file(), 2 * PAGE_BYTES..3 * PAGE_BYTES + 1), None);
        assert_eq!(store.read(&file(), 7..7), Some(Bytes::new()));
        assert_eq!(store.read(&FileKey::new("s3://lake/a.parquet", "v2"), BLOCK..BLOCK + 1), None);
        assert_eq!(store.read(&FileKey::new("s3://lake/b.parquet", "v1"), BLOCK..BLOCK + 1), None);
    }

    #[test]
    fn a_range_in_one_page_is_read_without_a_copy() {
        let store = PageStore::in_memory(ROOMY);
        write(&store, PAGE_BYTES, 0..PAGE_BYTES);
        let first = store.read(&file(), 100..200).unwrap();
        let second = store.read(&file(), 100..200).unwrap();
        assert_eq!(first.as_ptr(), second.as_ptr());
    }

    #[test]
    fn only_whole_blocks_and_the_files_end_are_recorded() {
        let store = PageStore::in_memory(ROOMY);
        let size = 2 * PAGE_BYTES + 100;
        write(&store, size, 10..3 * BLOCK + 10);
        assert_eq!(missing(&store, size, 0..4 * BLOCK), [(0, BLOCK), (3 * BLOCK, 4 * BLOCK)]);
        write(&store, size, 2 * PAGE_BYTES..size - 1);
        assert_eq!(missing(&store, size, 2 * PAGE_BYTES..size), [(2 * PAGE_BYTES, size)]);
        write(&store, size, size - 100..size);
        assert_eq!(missing(&store, size, 2 * PAGE_BYTES..size), []);
        assert_eq!(store.read(&file(), size - 7..size).unwrap(), content(size - 7..size));
        assert_eq!(store.read(&file(), size - 7..size + 1), None);
        store.write(&file(), size, PAGE_BYTES, &Bytes::from(vec![9; 2 * PAGE_BYTES as usize]));
        assert_eq!(missing(&store, size, PAGE_BYTES..2 * PAGE_BYTES), [(PAGE_BYTES, 2 * PAGE_BYTES)]);
        assert_eq!(store.read(&file(), size - 7..size).unwrap(), content(size - 7..size));
    }

    #[test]
    fn missing_ranges_are_rounded_out_cut_and_apart() {
        let store = PageStore::in_memory(ROOMY);
        let size = PAGE_BYTES + 10;
        assert_eq!(missing(&store, size, 5..6), [(0, BLOCK)]);
        assert_eq!(missing(&store, size, 5..u64::MAX), [(0, size)]);
        assert_eq!(missing(&store, size, size..u64::MAX), []);
        write(&store, size, 2 * BLOCK..3 * BLOCK);
        assert_eq!(missing(&store, size, 5..size), [(0, 2 * BLOCK), (3 * BLOCK, size)]);
        assert_eq!(missing(&store, size, 2 * BLOCK + 1..3 * BLOCK), []);
    }

    #[test]
    fn a_contradicting_file_size_is_a_miss() {
        let store = PageStore::in_memory(ROOMY);
        write(&store, BLOCK + 10, 0..BLOCK + 10);
        assert_eq!(missing(&store, 9 * BLOCK, 0..3 * BLOCK), [(0, 3 * BLOCK)]);
        assert_eq!(missing(&store, 9 * BLOCK, 0..BLOCK), [(0, BLOCK)]);
        write(&store, 9 * BLOCK, 2 * BLOCK..3 * BLOCK);
        assert_eq!(missing(&store, 9 * BLOCK, 0..3 * BLOCK), [(0, 2 * BLOCK)]);
    }

    #[test]
    fn hostile_offsets_are_ignored() {
        let store = PageStore::in_memory(ROOMY);
        for offset in [u64::MAX, u64::MAX - 5, u64::MAX - BLOCK] {
            store.write(&file(), u64::MAX, offset, &Bytes::from(vec![1; 20]));
            assert_eq!(store.read(&file(), offset..u64::MAX).filter(|bytes| !bytes.is_empty()), None);
        }
        assert_eq!(store.bytes(), 0);
    }

    #[test]
    fn the_budget_holds_and_what_stays_is_right() {
        let capacity = 20 * PAGE_BYTES;
        let store = PageStore::in_memory(capacity);
        let size = 1_000 * PAGE_BYTES;
        for number in 0..1_000 {
            write(&store, size, number * PAGE_BYTES..(number + 1) * PAGE_BYTES);
            assert!(store.bytes() <= capacity, "{} bytes are held", store.bytes());
        }
        let here = (0..1_000).filter(|number| {
            let range = number * PAGE_BYTES..(number + 1) * PAGE_BYTES;
            store.read(&file(), range.clone()).inspect(|bytes| assert_eq!(*bytes, content(range))).is_some()
        });
        assert_eq!(here.count() as u64 + store.evictions(), 1_000);
        assert_eq!((store.bytes() / PAGE_BYTES, store.capacity_bytes()), (19, capacity));
    }

    #[test]
    fn a_store_without_room_keeps_nothing() {
        for (capacity, evictions) in [(0, 0), (100, 1)] {
            let store = PageStore::in_memory(capacity);
            write(&store, PAGE_BYTES, 0..PAGE_BYTES);
            assert_eq!((store.read(&file(), 0..1), store.bytes(), store.evictions()), (None, 0, evictions));
        }
    }

    #[test]
    fn forgetting_drops_one_version_of_one_file() {
        let store = PageStore::in_memory(ROOMY);
        let other = FileKey::new("s3://lake/a.parquet", "v2");
        write(&store, 3 * PAGE_BYTES, 0..3 * PAGE_BYTES);
        store.write(&other, BLOCK, 0, &content(0..BLOCK));
        store.forget(&file());
        assert_eq!(missing(&store, 3 * PAGE_BYTES, 0..3 * PAGE_BYTES), [(0, 3 * PAGE_BYTES)]);
        assert!(store.read(&other, 0..BLOCK).is_some());
        assert_eq!(store.evictions(), 0);
    }

    #[test]
    fn writers_of_one_page_lose_no_blocks() {
        for _ in 0..50 {
            let store = PageStore::in_memory(ROOMY);
            std::thread::scope(|scope| {
                for block in 0..PAGE_BYTES / BLOCK {
                    let store = store.clone();
                    scope.spawn(move || write(&store, PAGE_BYTES, block * BLOCK..(block + 1) * BLOCK));
                }
            });
            assert_eq!(store.read(&file(), 0..PAGE_BYTES), Some(content(0..PAGE_BYTES)));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn missing_and_read_agree_with_a_plain_model(
            size in 1_u64..4 * PAGE_BYTES,
            writes in proptest::collection::vec((0_u64..4 * PAGE_BYTES, 0_u64..2 * PAGE_BYTES), 0..12),
            asked in (0_u64..4 * PAGE_BYTES, 0_u64..2 * PAGE_BYTES),
        ) {
            let store = PageStore::in_memory(ROOMY);
            let blocks = size.div_ceil(BLOCK);
            let mut present = vec![false; blocks as usize];
            for (start, length) in writes {
                let range = start.min(size)..(start + length).min(size);
                write(&store, size, range.clone());
                for block in 0..blocks {
                    let whole = block * BLOCK >= range.start && ((block + 1) * BLOCK).min(size) <= range.end;
                    present[block as usize] |= whole;
                }
            }
            let asked = asked.0.min(size)..(asked.0 + asked.1).min(size);
            let touched = asked.start / BLOCK..if asked.is_empty() { 0 } else { asked.end.div_ceil(BLOCK) };
            let absent: Vec<u64> = touched.filter(|block| !present[*block as usize]).collect();
            let missing = store.missing(&file(), size, asked.clone());
            let blocks_of = |part: &Range<u64>| part.start / BLOCK..part.end.div_ceil(BLOCK);
            let listed: Vec<u64> = missing.iter().flat_map(blocks_of).collect();
            prop_assert_eq!(&listed, &absent);
            let border = |place: u64| place.is_multiple_of(BLOCK) || place == size;
            let on_grid = |part: &Range<u64>| part.start.is_multiple_of(BLOCK) && border(part.end);
            prop_assert!(missing.iter().all(on_grid));
            let expected = absent.is_empty().then(|| content(asked.clone()));
            prop_assert_eq!(store.read(&file(), asked), expected);
        }
    }
}
