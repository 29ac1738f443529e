//! Layer 1: the page store, which parts of which files are here.
//!
//! Knows the two places that pages may be in, memory and disk, and what both promise. It must not know what the bytes
//! mean nor where they come from. Everything that is written is a hint: a full store may drop it at once, so a writer
//! hands its bytes to those who wait for them by another way. Everything that is here may vanish at any moment.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::cache_dir::{CacheDir, OpenError};
use crate::counts::PageStoreCounts;
use crate::disk::DiskPages;
use crate::disk_io::DiskIo;
use crate::file_key::FileKey;
use crate::memory::MemoryPages;
use crate::store_name::StoreName;
use crate::stretch::{Held, Stretch, lacking};

/// Parts of files, held within a budget of bytes. A clone is cheap and is the same store.
#[derive(Clone)]
pub struct PageStore {
    backing: Arc<Backing>,
}

/// What a store holds of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// The file.
    pub key: FileKey,
    /// The size of all of it in bytes.
    pub size: u64,
    /// Bytes of it that are here.
    pub held_bytes: u64,
}

enum Backing {
    Memory(Box<MemoryPages>),
    Disk(DiskPages),
}

impl PageStore {
    /// An empty store that keeps its pages in memory, at most `capacity_bytes` of them. Zero keeps nothing
    /// and evicts nothing.
    pub fn in_memory(capacity_bytes: u64) -> Self {
        Self::in_memory_as(StoreName::Pages, capacity_bytes)
    }

    /// As [`PageStore::in_memory`], dropping what the store of this name may drop.
    pub fn in_memory_as(name: StoreName, capacity_bytes: u64) -> Self {
        Self { backing: Arc::new(Backing::Memory(Box::new(MemoryPages::new(capacity_bytes, name.evicts())))) }
    }

    /// The store of this name in a cache directory, with all that is there from before; its segment files take at most
    /// `capacity_bytes` of disk. A directory has one store of each name open at most. It reads the segments' tables
    /// before it returns: seconds for tens of millions of pages.
    ///
    /// In memory it takes about 80 bytes per extent, the checksums of a 64 KiB page included, plus the texts of each
    /// file's key. It keeps one file open per segment, at most about 512 for any quota up to 1 TiB.
    ///
    /// # Errors
    /// See [`OpenError`]. Broken content is not an error: it is dropped and counted.
    pub fn open(dir: &CacheDir, name: StoreName, capacity_bytes: u64) -> Result<Self, OpenError> {
        Ok(Self::over(DiskPages::open((dir, name), &DiskIo::default(), capacity_bytes)?))
    }

    /// The store over pages on disk that are open.
    pub(crate) fn over(pages: DiskPages) -> Self {
        Self { backing: Arc::new(Backing::Disk(pages)) }
    }

    /// Waits until everything that was written is where it outlives the process, or was dropped. Returns whether that
    /// happened in time. It blocks the thread. In memory there is nothing to wait for.
    pub fn settle(&self, at_most: Duration) -> bool {
        match self.backing.as_ref() {
            Backing::Memory(_) => true,
            Backing::Disk(pages) => pages.settle(at_most),
        }
    }

    /// Whether the pages are on disk and outlive the process.
    pub fn is_on_disk(&self) -> bool {
        match self.backing.as_ref() {
            Backing::Memory(_) => false,
            Backing::Disk(_) => true,
        }
    }

    /// The bytes of a range of the file, if all of them are here and can be had without waiting. There is no copy when
    /// the range lies within one page and one copy otherwise; an empty range is always here.
    pub fn read(&self, file: &FileKey, range: Range<u64>) -> Option<Bytes> {
        match self.backing.as_ref() {
            Backing::Memory(pages) => pages.read(file, range),
            Backing::Disk(pages) => pages.read(file, range),
        }
    }

    /// The same, but what a disk brings is not compared with what was written: for bytes that carry a check of their
    /// own. It reads no more than the range, where a check needs whole 16 KiB.
    pub fn read_unverified(&self, file: &FileKey, range: Range<u64>) -> Option<Bytes> {
        match self.backing.as_ref() {
            Backing::Memory(pages) => pages.read(file, range),
            Backing::Disk(pages) => pages.read_unverified(file, range),
        }
    }

    /// The bytes of a range of the file, if all of them are here; it may wait for the disk, but not long. It must be
    /// polled inside a tokio runtime with its clock enabled.
    pub async fn read_waiting(&self, file: &FileKey, range: Range<u64>) -> Option<Bytes> {
        match self.backing.as_ref() {
            Backing::Memory(pages) => pages.read(file, range),
            Backing::Disk(pages) => pages.read_waiting(file, range).await,
        }
    }

    /// The parts of a range that are not here, rounded out to blocks and cut at the end of the file, in order and apart
    /// from each other.
    pub fn missing(&self, file: &FileKey, file_size: u64, range: Range<u64>) -> Vec<Range<u64>> {
        lacking(self.survey(file, file_size, &range).iter(), file_size)
    }

    /// Records bytes of the file from `offset` on. Only whole blocks are recorded, and the last block of the file up to
    /// its end; bytes at either side are ignored. Bytes that reach beyond the end of the file contradict its size, and
    /// none of them are recorded. It never waits for a disk.
    pub fn write(&self, file: &FileKey, file_size: u64, offset: u64, bytes: &Bytes) {
        match self.backing.as_ref() {
            Backing::Memory(pages) => pages.write(file, file_size, offset, bytes),
            Backing::Disk(pages) => pages.write(file, file_size, offset, bytes),
        }
    }

    /// Records a whole file from its first byte to its last, and waits until all of it is where it outlives the
    /// process; in memory, until it is held. Returns whether that happened in time and none of it was dropped: for want
    /// of room, or because the disk failed. It blocks the thread.
    pub fn write_whole(&self, file: &FileKey, bytes: &Bytes, at_most: Duration) -> bool {
        let size = bytes.len() as u64;
        self.write(file, size, 0, bytes);
        self.settle(at_most) && self.missing(file, size, 0..size).is_empty()
    }

    /// All files that something is here of. It walks over everything.
    pub fn files(&self) -> Vec<StoredFile> {
        let files = match self.backing.as_ref() {
            Backing::Memory(pages) => pages.files(),
            Backing::Disk(pages) => pages.files(),
        };
        files.into_iter().map(|(key, size, held_bytes)| StoredFile { key, size, held_bytes }).collect()
    }

    /// Drops all pages of the file in this content version and returns how many bytes those were. In memory it walks
    /// over all pages of the store, so it is for rare moments; a page that somebody writes at the same time may stay.
    pub fn forget(&self, file: &FileKey) -> u64 {
        match self.backing.as_ref() {
            Backing::Memory(pages) => pages.forget(|key| key == file),
            Backing::Disk(pages) => pages.forget(file),
        }
    }

    /// Drops all pages of all content versions of the file with this canonical URL, and returns how many bytes those
    /// were. It walks over all files of the store.
    pub fn forget_url(&self, url: &str) -> u64 {
        match self.backing.as_ref() {
            Backing::Memory(pages) => pages.forget(|key| key.url() == url),
            Backing::Disk(pages) => pages.forget_url(url),
        }
    }

    /// Bytes of the file in this content version that are here. In memory it walks over all pages of the store.
    pub fn held_bytes(&self, file: &FileKey) -> u64 {
        match self.backing.as_ref() {
            Backing::Memory(pages) => pages.held_bytes(file),
            Backing::Disk(pages) => pages.held_bytes(file),
        }
    }

    /// Bytes held now, overhead included.
    pub fn bytes(&self) -> u64 {
        match self.backing.as_ref() {
            Backing::Memory(pages) => pages.bytes(),
            Backing::Disk(pages) => pages.bytes(),
        }
    }

    /// The budget in bytes.
    pub fn capacity_bytes(&self) -> u64 {
        match self.backing.as_ref() {
            Backing::Memory(pages) => pages.capacity_bytes(),
            Backing::Disk(pages) => pages.capacity_bytes(),
        }
    }

    /// Pages dropped for want of room since the store was made, those that were not admitted included.
    pub fn evictions(&self) -> u64 {
        match self.backing.as_ref() {
            Backing::Memory(pages) => pages.evictions(),
            Backing::Disk(pages) => pages.counts().evictions,
        }
    }

    /// What the store did since it was made; a store in memory counts evictions only.
    pub fn counts(&self) -> PageStoreCounts {
        match self.backing.as_ref() {
            Backing::Memory(pages) => PageStoreCounts { evictions: pages.evictions(), ..PageStoreCounts::default() },
            Backing::Disk(pages) => pages.counts(),
        }
    }

    /// A range in order as stretches that are here and stretches that are missing; together they are the range, cut at
    /// the end of the file. It looks into memory only and reads nothing.
    pub(crate) fn survey(&self, file: &FileKey, file_size: u64, range: &Range<u64>) -> Vec<Stretch> {
        match self.backing.as_ref() {
            Backing::Memory(pages) => pages.survey(file, file_size, range),
            Backing::Disk(pages) => pages.survey(file, file_size, range),
        }
    }
}

impl PageStore {
    /// The bytes of a part that a survey found; it may wait for the disk, but not long. `None` is a miss, and counted.
    pub(crate) async fn fetch(&self, file: &FileKey, held: Held) -> Option<Bytes> {
        match (held, self.backing.as_ref()) {
            (Held::Bytes(bytes), _) => Some(bytes),
            (Held::Disk(part), Backing::Disk(pages)) => pages.fetch(file, part).await,
            // A store in memory holds no such parts.
            (Held::Disk(_), Backing::Memory(_)) => None,
        }
    }

    /// Notes that something of a range has to be fetched.
    pub(crate) fn missed(&self) {
        if let Backing::Disk(pages) = self.backing.as_ref() {
            pages.missed();
        }
    }
}

impl std::fmt::Debug for PageStore {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (bytes, capacity_bytes) = (self.bytes(), self.capacity_bytes());
        out.debug_struct("PageStore").field("bytes", &bytes).field("capacity_bytes", &capacity_bytes).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::page::{BLOCK_BYTES, PAGE_BYTES};
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
