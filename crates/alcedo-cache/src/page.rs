//! Layer 1: one grid place of a file, which may be partly present.
//!
//! Knows blocks inside one page and how two lots of them become one. It must not know which file it belongs to, nor
//! where it is kept. A page never changes; a merge makes a new one, so a reader's bytes stay as they were.

use std::ops::Range;

use bytes::Bytes;

/// Bytes of one page: the grid of names. What is fetched and kept are blocks.
pub const PAGE_BYTES: u64 = 64 * 1024;
/// Bytes of one block: the unit of what is present, and what ranges to fetch are rounded out to. It is the unit of
/// disks and of the operating system's cache, and small against the price of a GET.
pub const BLOCK_BYTES: u64 = 4 * 1024;
/// Blocks of one page; a bit of a `u16` each.
const BLOCKS: u32 = (PAGE_BYTES / BLOCK_BYTES) as u32;

/// The blocks of one page that are present, packed one behind the other.
///
/// Only a file's last block is shorter than [`BLOCK_BYTES`], and nothing follows it, so the number of blocks present
/// before a block tells where it starts.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    /// Bit `n` is set when block `n` is present.
    present: u16,
    /// Size of the file whose last block may be short; pages that disagree on it are not merged.
    file_size: u64,
    packed: Bytes,
}

impl Page {
    /// A page of the blocks from `start`, an offset inside the page, on. `bytes` are whole blocks, except that the last
    /// may be cut by the file's end. The bytes are copied, so that a page never keeps a larger buffer alive.
    pub(crate) fn new(file_size: u64, start: u64, bytes: &[u8]) -> Self {
        Self { present: mask(&(start..start + bytes.len() as u64)), file_size, packed: Bytes::copy_from_slice(bytes) }
    }

    /// Bytes held.
    pub(crate) fn held_bytes(&self) -> usize {
        self.packed.len()
    }

    /// Size of the file that the page was written for.
    pub(crate) fn file_size(&self) -> u64 {
        self.file_size
    }

    /// Whether the page was written for a file of this size.
    pub(crate) fn is_of_size(&self, file_size: u64) -> bool {
        self.file_size == file_size
    }

    /// The bytes of a range inside the page, without a copy, if all of them are present.
    pub(crate) fn slice(&self, range: &Range<u64>) -> Option<Bytes> {
        let wanted = mask(range);
        if self.present & wanted != wanted {
            return None;
        }
        let before = self.present & mask(&(0..range.start / BLOCK_BYTES * BLOCK_BYTES));
        let skipped = range.start % BLOCK_BYTES;
        let start = usize::try_from(u64::from(before.count_ones()) * BLOCK_BYTES + skipped).ok()?;
        let end = start + usize::try_from(range.end - range.start).ok()?;
        // A range behind the end of a short last block is not here, although its block is.
        (end <= self.packed.len()).then(|| self.packed.slice(start..end))
    }

    /// A range inside the page in parts, in order, each with its bytes if they are present. Inside the range, parts
    /// meet at borders of blocks only.
    pub(crate) fn parts(&self, range: &Range<u64>) -> Vec<(Range<u64>, Option<Bytes>)> {
        let mut parts: Vec<(Range<u64>, bool)> = Vec::new();
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min((start / BLOCK_BYTES + 1) * BLOCK_BYTES);
            let here = self.present & mask(&(start..end)) != 0;
            match parts.last_mut() {
                Some((last, was_here)) if *was_here == here => last.end = end,
                _ => parts.push((start..end, here)),
            }
            start = end;
        }
        let with_bytes = |(part, here): (Range<u64>, bool)| {
            let bytes = if here { self.slice(&part) } else { None };
            (part, bytes)
        };
        parts.into_iter().map(with_bytes).collect()
    }

    /// Both pages' blocks in one page; where both have a block, the newer one's is taken. Pages of files of different
    /// sizes are not of one file, and the newer one stands alone.
    pub(crate) fn merged_into(&self, newer: Self) -> Self {
        if self.file_size != newer.file_size || self.present & !newer.present == 0 {
            return newer;
        }
        let present = self.present | newer.present;
        let mut packed = Vec::with_capacity((present.count_ones() as usize) * BLOCK_BYTES as usize);
        let (mut old_rest, mut new_rest): (&[u8], &[u8]) = (&self.packed, &newer.packed);
        for block in 0..BLOCKS {
            let bit = 1_u16 << block;
            let old = if self.present & bit != 0 { next_block(&mut old_rest) } else { &[] };
            let new = if newer.present & bit != 0 { next_block(&mut new_rest) } else { &[] };
            packed.extend_from_slice(if newer.present & bit != 0 { new } else { old });
        }
        Self { present, file_size: self.file_size, packed: packed.into() }
    }
}

/// Takes one block, or the short last one, from the front.
fn next_block<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let (block, behind) = rest.split_at(rest.len().min(BLOCK_BYTES as usize));
    *rest = behind;
    block
}

/// The bits of all blocks that a range inside a page touches.
fn mask(range: &Range<u64>) -> u16 {
    let first = range.start / BLOCK_BYTES;
    let behind = range.end.div_ceil(BLOCK_BYTES);
    let below = |block: u64| (1_u32 << block.min(u64::from(BLOCKS))) - 1;
    // Both are at most 16 bits wide, so nothing is cut.
    (below(behind) & !below(first)) as u16
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const BLOCK: u64 = BLOCK_BYTES;
    const SIZE: u64 = 1 << 40;

    fn bytes(fill: u8, count: u64) -> Vec<u8> {
        vec![fill; count as usize]
    }

    #[test]
    fn masks_cover_the_blocks_touched() {
        assert_eq!(mask(&(0..PAGE_BYTES)), 0xffff);
        assert_eq!(mask(&(0..0)), 0);
        assert_eq!(mask(&(BLOCK..BLOCK)), 0);
        assert_eq!(mask(&(BLOCK - 1..BLOCK + 1)), 0b11);
        assert_eq!(mask(&(15 * BLOCK..PAGE_BYTES)), 0x8000);
    }

    #[test]
    fn merging_keeps_both_and_prefers_the_newer() {
        let old = Page::new(SIZE, BLOCK, &bytes(1, 3 * BLOCK));
        let merged = old.merged_into(Page::new(SIZE, 3 * BLOCK, &bytes(2, 2 * BLOCK)));
        assert_eq!(merged.held_bytes() as u64, 4 * BLOCK);
        assert_eq!(merged.slice(&(BLOCK..3 * BLOCK)).unwrap(), bytes(1, 2 * BLOCK));
        assert_eq!(merged.slice(&(3 * BLOCK..5 * BLOCK)).unwrap(), bytes(2, 2 * BLOCK));
        assert_eq!(merged.slice(&(0..BLOCK)), None);
        assert_eq!(merged.slice(&(4 * BLOCK..5 * BLOCK + 1)), None);
    }

    #[test]
    fn blocks_with_holes_between_them_are_found() {
        let page =
            Page::new(SIZE, 9 * BLOCK, &bytes(9, BLOCK)).merged_into(Page::new(SIZE, 2 * BLOCK, &bytes(2, BLOCK)));
        let page = page.merged_into(Page::new(SIZE, 5 * BLOCK, &bytes(5, 2 * BLOCK)));
        for (block, fill) in [(2, 2), (5, 5), (6, 5), (9, 9)] {
            assert_eq!(page.slice(&(block * BLOCK + 7..block * BLOCK + 9)).unwrap(), bytes(fill, 2));
        }
        let parts = page.parts(&(2 * BLOCK + 1..6 * BLOCK + 5));
        let expected = [
            (2 * BLOCK + 1..3 * BLOCK, Some(bytes(2, BLOCK - 1).into())),
            (3 * BLOCK..5 * BLOCK, None),
            (5 * BLOCK..6 * BLOCK + 5, Some(bytes(5, BLOCK + 5).into())),
        ];
        assert_eq!(parts, expected);
    }

    #[test]
    fn a_short_last_block_ends_where_the_file_ends() {
        let size = BLOCK + 10;
        let page = Page::new(size, BLOCK, &bytes(1, 10));
        assert_eq!(page.slice(&(BLOCK..BLOCK + 10)).unwrap().len(), 10);
        assert_eq!(page.slice(&(BLOCK..BLOCK + 11)), None);
        let page = page.merged_into(Page::new(size, 0, &bytes(2, BLOCK)));
        assert_eq!(page.slice(&(BLOCK - 1..BLOCK + 10)).unwrap()[..2], [2, 1]);
        assert_eq!(page.held_bytes() as u64, size);
    }

    #[test]
    fn pages_of_different_file_sizes_do_not_mix() {
        let old = Page::new(BLOCK + 10, BLOCK, &bytes(1, 10));
        let merged = old.merged_into(Page::new(SIZE, 2 * BLOCK, &bytes(2, BLOCK)));
        assert_eq!(merged.slice(&(BLOCK..BLOCK + 10)), None);
        assert_eq!(merged.slice(&(2 * BLOCK..3 * BLOCK)).unwrap(), bytes(2, BLOCK));
    }
}
