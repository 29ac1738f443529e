//! Data pages that were decoded and are kept in memory, so that the next key in one costs no read and no decoding.
//!
//! It knows nothing of files: a page is named by a number of its file version, its row group, its column and its first
//! row. Decoding a whole page costs more than picking one row out of it, so a page is decoded whole only when it was
//! asked for several times within the cache's memory, and more often when others would have to go for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use arrow_array::{Array, ArrayRef};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use crate::decoded_keys::DecodedKeys;

/// Bytes that one decoded page may take: a page whose values unfold to more is read row by row. It is many usual pages
/// of 1 MiB, and few of the smallest sensible budgets.
pub(crate) const MAX_PAGE_BYTES: usize = 8 << 20;
/// Rows of a page that is decoded whole: usual pages have 20,000.
pub(crate) const MAX_PAGE_ROWS: u64 = 1 << 20;
/// Bytes that an entry takes beside its values: key, slot of the cache, headers of arrays.
const ENTRY_BYTES: u64 = 256;
/// A page as small as this is expected at least: how many entries a budget is laid out for.
const LEAST_PAGE_BYTES: u64 = 16 << 10;
/// Touches after which a page is decoded while there is room.
const TOUCHES_WITH_ROOM: u64 = 2;
/// Touches after which a page is decoded though another one has to go: one of the least pages that comes back only by
/// chance among ten times as many as fit is rarely touched so often. Of larger ones fewer fit, each is touched more
/// often within the same memory, and it takes as many more touches, up to what a counter holds.
const TOUCHES_WHEN_FULL: u64 = 4;
const MOST_TOUCHES: u64 = 128;
/// A page is decoded only where as many of it fit: fewer would only push out each other.
const FITTING_PAGES: u64 = 8;
/// What a part of the cache with a lock of its own has at least, so that it holds several of the largest pages: one
/// that does not fit its part is never kept.
const LEAST_SHARD_BYTES: u64 = FITTING_PAGES * MAX_PAGE_BYTES as u64;
/// Parts that are never waited for.
const MOST_SHARDS: u64 = 16;
/// Counters per expected entry, so that few pages share one.
const COUNTERS_PER_ENTRY: u64 = 4;
/// Touches at least within which a page must come back: budgets of few pages remember as long as this.
const MIN_MEMORY: u64 = 128;
/// Fewest and most counters, a byte each.
const MIN_COUNTERS: u64 = 4 << 10;
const MAX_COUNTERS: u64 = 4 << 20;

/// One page of one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PageKey {
    /// The file version.
    pub(crate) owner: u128,
    /// The row group, by whatever number its owner gives it.
    pub(crate) group: u64,
    /// The column and what is kept of it, see [`rows_of`] and [`keys_of`].
    pub(crate) column: u64,
    /// The first row within the row group.
    pub(crate) first_row: u64,
}

/// The column code of a root column's rows of which these leaves are read; none where that is not told by a number.
pub(crate) fn rows_of(leaves: &[usize], is_whole: bool) -> Option<u64> {
    match leaves {
        [leaf, ..] if is_whole => Some((*leaf as u64) << 2),
        [leaf] => Some((*leaf as u64) << 2 | 1),
        _ => None,
    }
}

/// The column code of a leaf's values as keys.
pub(crate) fn keys_of(leaf: usize) -> u64 {
    (leaf as u64) << 2 | 2
}

/// The rows of one data page of a root column.
#[derive(Debug)]
pub(crate) struct DecodedRows {
    /// The number of its first row within the row group.
    pub(crate) first_row: u64,
    pub(crate) array: ArrayRef,
}

impl DecodedRows {
    pub(crate) fn end(&self) -> u64 {
        self.first_row + self.array.len() as u64
    }
}

#[derive(Clone)]
enum Entry {
    Rows(Arc<DecodedRows>),
    Keys(Arc<DecodedKeys>),
    /// It unfolds to more than a page may.
    TooLarge,
}

#[derive(Clone)]
struct Weigh;

impl Weighter<PageKey, Entry> for Weigh {
    fn weight(&self, _key: &PageKey, entry: &Entry) -> u64 {
        ENTRY_BYTES
            + match entry {
                Entry::Rows(rows) => rows.array.get_array_memory_size() as u64,
                Entry::Keys(keys) => keys.bytes() as u64,
                Entry::TooLarge => 0,
            }
    }
}

/// What is to be done with a page.
pub(crate) enum Found<T> {
    Decoded(Arc<T>),
    /// It is asked for often: decode it whole and keep it.
    Decode,
    /// Read what is needed of it.
    Pass,
}

/// A cache of decoded data pages within a budget of bytes.
pub struct DecodedPages {
    cache: Cache<PageKey, Entry, Weigh>,
    heat: Heat,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl std::fmt::Debug for DecodedPages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecodedPages").field("bytes", &self.bytes()).field("capacity", &self.capacity()).finish()
    }
}

impl DecodedPages {
    /// An empty cache of at most so many bytes; 0 keeps nothing.
    pub fn new(capacity_bytes: u64) -> Self {
        let entries = usize::try_from(capacity_bytes / LEAST_PAGE_BYTES).unwrap_or(usize::MAX);
        let shards = (capacity_bytes / LEAST_SHARD_BYTES).clamp(1, MOST_SHARDS);
        let mut options = OptionsBuilder::new();
        options.estimated_items_capacity(entries).weight_capacity(capacity_bytes).shards(1 << shards.ilog2());
        let cache = match options.build() {
            Ok(options) => {
                Cache::with_options(options, Weigh, DefaultHashBuilder::default(), DefaultLifecycle::default())
            }
            // What they must have, they have.
            Err(_) => Cache::with_weighter(entries, capacity_bytes, Weigh),
        };
        Self { cache, heat: Heat::new(capacity_bytes), hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// Another budget; what does not fit any more goes. What counts how often pages are asked for stays as large as it
    /// was made.
    pub fn set_capacity(&self, bytes: u64) {
        self.cache.set_capacity(bytes);
    }

    /// Bytes that the decoded pages may take.
    pub fn capacity(&self) -> u64 {
        self.cache.capacity()
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }

    /// How many they are.
    pub fn pages(&self) -> usize {
        self.cache.len()
    }

    /// Questions for a page that was there.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Questions for a page that was not.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// A page's rows. `bytes`: what they take decoded, at least about so many.
    pub(crate) fn rows(&self, key: &PageKey, bytes: u64) -> Found<DecodedRows> {
        self.find(key, bytes, |entry| match entry {
            Entry::Rows(rows) => Some(rows),
            _ => None,
        })
    }

    /// A page's values as keys; `bytes` as of its rows.
    pub(crate) fn keys(&self, key: &PageKey, bytes: u64) -> Found<DecodedKeys> {
        self.find(key, bytes, |entry| match entry {
            Entry::Keys(keys) => Some(keys),
            _ => None,
        })
    }

    pub(crate) fn put_rows(&self, key: PageKey, rows: &Arc<DecodedRows>) {
        self.cache.insert(key, Entry::Rows(rows.clone()));
    }

    pub(crate) fn put_keys(&self, key: PageKey, keys: DecodedKeys) {
        self.cache.insert(key, Entry::Keys(Arc::new(keys)));
    }

    /// The page unfolds to too much: it is not to be tried again.
    pub(crate) fn refuse(&self, key: PageKey) {
        self.cache.insert(key, Entry::TooLarge);
    }

    /// Whether a page is there; nobody asked for it.
    pub(crate) fn has(&self, key: &PageKey) -> bool {
        matches!(self.cache.peek(key), Some(Entry::Rows(_) | Entry::Keys(_)))
    }

    /// Whether a page is neither kept nor asked for so often that it is to be, so that decoding it would be of use
    /// once. It counts as asked for.
    pub(crate) fn is_seldom(&self, key: &PageKey, bytes: u64) -> bool {
        !self.has(key) && !self.is_due(key, bytes)
    }

    /// Notes that a page of so many bytes was asked for; says whether that is often enough to decode it.
    fn is_due(&self, key: &PageKey, bytes: u64) -> bool {
        let capacity = self.capacity();
        if capacity == 0 || bytes > capacity / FITTING_PAGES {
            return false;
        }
        let has_room = self.bytes() < capacity / 4 * 3;
        let least = if has_room { TOUCHES_WITH_ROOM } else { touches_when_full(bytes) };
        u64::from(self.heat.touch(key)) >= least
    }

    fn find<T>(&self, key: &PageKey, bytes: u64, of: impl FnOnce(Entry) -> Option<Arc<T>>) -> Found<T> {
        match self.cache.get(key) {
            Some(entry) => match of(entry) {
                Some(page) => {
                    self.hits.fetch_add(1, Ordering::Relaxed);
                    Found::Decoded(page)
                }
                None => self.miss(|| Found::Pass),
            },
            None => self.miss(|| if self.is_due(key, bytes) { Found::Decode } else { Found::Pass }),
        }
    }

    fn miss<T>(&self, found: impl FnOnce() -> Found<T>) -> Found<T> {
        self.misses.fetch_add(1, Ordering::Relaxed);
        found()
    }
}

fn touches_when_full(bytes: u64) -> u64 {
    (bytes / LEAST_PAGE_BYTES).clamp(TOUCHES_WHEN_FULL, MOST_TOUCHES)
}

/// About how often pages were asked for lately: a counter per hash, each halved once in as many touches as the budget
/// has pages.
struct Heat {
    counters: Box<[AtomicU8]>,
    /// How many of them a touch halves.
    halved: usize,
    /// The next counters to halve.
    hand: AtomicUsize,
}

impl Heat {
    fn new(capacity_bytes: u64) -> Self {
        let entries = (capacity_bytes / LEAST_PAGE_BYTES).clamp(MIN_MEMORY, MAX_COUNTERS);
        let counters = (entries * COUNTERS_PER_ENTRY).clamp(MIN_COUNTERS, MAX_COUNTERS).next_power_of_two();
        let halved = (counters / entries).max(1) as usize;
        Self { counters: (0..counters).map(|_| AtomicU8::new(0)).collect(), halved, hand: AtomicUsize::new(0) }
    }

    /// Counts a question; gives how many there were.
    fn touch(&self, key: &PageKey) -> u8 {
        let mask = self.counters.len() - 1;
        let hand = self.hand.fetch_add(self.halved, Ordering::Relaxed);
        for i in 0..self.halved {
            let counter = &self.counters[hand.wrapping_add(i) & mask];
            counter.store(counter.load(Ordering::Relaxed) >> 1, Ordering::Relaxed);
        }
        let counter = &self.counters[place(key) as usize & mask];
        // A count that is lost to another thread is as good as one that was never asked.
        let count = counter.load(Ordering::Relaxed).saturating_add(1);
        counter.store(count, Ordering::Relaxed);
        count
    }
}

/// Spreads a key over the counters; who knows the hash can only make a page be decoded early.
fn place(key: &PageKey) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let parts = [key.owner as u64, (key.owner >> 64) as u64, key.group, key.column, key.first_row];
    let mixed = parts.iter().fold(0_u64, |hash, part| (hash.rotate_left(23) ^ part).wrapping_mul(ODD));
    mixed >> 32 ^ mixed
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use arrow_array::Int64Array;

    use super::*;

    fn key(first_row: u64) -> PageKey {
        PageKey { owner: 1, group: 0, column: rows_of(&[3], true).unwrap(), first_row }
    }

    fn rows(first_row: u64, count: usize) -> Arc<DecodedRows> {
        Arc::new(DecodedRows { first_row, array: Arc::new(Int64Array::from(vec![7; count])) })
    }

    fn asked(pages: &DecodedPages, first_row: u64) -> &'static str {
        asked_of(pages, first_row, LEAST_PAGE_BYTES)
    }

    fn asked_of(pages: &DecodedPages, first_row: u64, bytes: u64) -> &'static str {
        match pages.rows(&key(first_row), bytes) {
            Found::Decoded(rows) => {
                assert_eq!((rows.first_row, rows.end()), (first_row, first_row + rows.array.len() as u64));
                "decoded"
            }
            Found::Decode => "decode",
            Found::Pass => "pass",
        }
    }

    #[test]
    fn a_page_is_decoded_when_it_is_asked_for_again_and_then_it_is_there() {
        let pages = DecodedPages::new(1 << 20);
        assert_eq!((asked(&pages, 5), asked(&pages, 6), asked(&pages, 5)), ("pass", "pass", "decode"));
        pages.put_rows(key(5), &rows(5, 100));
        assert_eq!((asked(&pages, 5), pages.hits(), pages.misses(), pages.pages()), ("decoded", 1, 3, 1));
        assert!(pages.bytes() >= 800 && pages.bytes() < 2_000, "{}", pages.bytes());
        pages.refuse(key(6));
        assert_eq!([asked(&pages, 6), asked(&pages, 6), asked(&pages, 6)], ["pass"; 3]);
        pages.set_capacity(0);
        assert_eq!((pages.pages(), pages.bytes(), pages.capacity()), (0, 0, 0));
        assert_eq!([asked(&pages, 5), asked(&pages, 5), asked(&pages, 5)], ["pass"; 3]);
    }

    /// Asks for pages of so many bytes, ten times as many as fit; gives how many were decoded.
    fn decoded_by_chance(pages: &DecodedPages, bytes: u64) -> usize {
        let mut decoded = 0;
        let mut seed = 1_u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let page = (seed >> 33) % (pages.capacity() / bytes * 10);
            if asked_of(pages, page, bytes) == "decode" {
                decoded += 1;
                pages.put_rows(key(page), &rows(page, bytes as usize / 8));
            }
        }
        assert!(pages.bytes() <= pages.capacity());
        decoded
    }

    #[test]
    fn pages_that_come_back_by_chance_push_out_nothing() {
        for (capacity, bytes) in [(1 << 20, 16 << 10), (16 << 20, 64 << 10), (16 << 20, 1 << 20), (128 << 20, 8 << 20)]
        {
            let pages = DecodedPages::new(capacity);
            let decoded = decoded_by_chance(&pages, bytes);
            assert!(decoded < 2_000, "{decoded} of 20,000 questions decoded a page of {bytes} bytes");
            assert!(pages.hits() > 1_000, "{} hits of pages of {bytes} bytes", pages.hits());
        }
    }

    #[test]
    fn a_large_page_that_is_asked_for_often_pushes_out_those_that_are_not() {
        let (pages, bytes) = (DecodedPages::new(16 << 20), 1 << 20);
        decoded_by_chance(&pages, bytes);
        // As hot as four of the sixteen that fit.
        let hot = 1_000..1_004;
        let mut asked: u64 = 0;
        while hot.clone().any(|page| asked_of(&pages, page, bytes) != "decoded") {
            for page in hot.clone().filter(|page| asked_of(&pages, *page, bytes) == "decode") {
                pages.put_rows(key(page), &rows(page, bytes as usize / 8));
            }
            asked += 1;
            assert!(asked < 1_000, "four hot pages are not decoded");
        }
    }

    #[test]
    fn a_page_of_which_few_fit_is_not_decoded() {
        let pages = DecodedPages::new(16 << 20);
        assert_eq!([(); 9].map(|()| asked_of(&pages, 1, 3 << 20)), ["pass"; 9]);
        assert_eq!([(); 2].map(|()| asked_of(&pages, 1, 2 << 20)), ["pass", "decode"]);
    }

    #[test]
    fn what_is_kept_of_a_column_has_a_name_of_its_own() {
        let names = [rows_of(&[4], true), rows_of(&[4], false), Some(keys_of(4)), rows_of(&[5], true)];
        assert!(names.iter().enumerate().all(|(i, name)| name.is_some() && !names[..i].contains(name)), "{names:?}");
        assert_eq!(rows_of(&[4, 5], false), None);
        assert_eq!(rows_of(&[4, 5], true), rows_of(&[4], true));
    }
}
