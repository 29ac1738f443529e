//! A bucket of a keymap: the entries of the keys whose hashes begin alike.
//!
//! Its bytes, all integers little-endian: a CRC-32C (u32) over the bucket's number (u32) and what follows; the number
//! of entries (u16) and of lists (u16); the entries, ascending; so many zeros that the last entry can be read as 8
//! bytes; the lists: fingerprint, number of rows, offset among the part's lists, length, each a u32. A fingerprint has
//! entries or a list, not both.

use crate::error::Error;
use crate::keymap::layout::Layout;
use crate::keymap::row_list;

/// Rows of one fingerprint from which on they are a list of their own, so that a frequent key does not make a bucket
/// large.
const LISTED_ROWS: usize = 33;
/// Entries of a bucket at most. Only keys that were chosen to collide bring more together.
const MAX_ENTRIES: usize = 8_192;
const HEADER_BYTES: usize = 8;
const LIST_BYTES: usize = 16;

/// Appends a bucket of these packed entries, which ascend, and its lists; false, and nothing, if it has too many.
pub(crate) fn write(
    (layout, number): (Layout, u32),
    packed: &[u64],
    buckets: &mut Vec<u8>,
    lists: &mut Vec<u8>,
) -> bool {
    let (start, lists_start) = (buckets.len(), lists.len());
    let width = layout.entry_bytes();
    let (mut entries, mut records) = (0, Vec::new());
    buckets.extend([0; HEADER_BYTES]);
    for run in packed.chunk_by(|a, b| a >> layout.row_bits == b >> layout.row_bits) {
        if run.len() < LISTED_ROWS {
            entries += run.len();
            for entry in run.iter().map(|packed| layout.entry_of(*packed)) {
                buckets.extend_from_slice(&entry.to_le_bytes()[..width]);
            }
            continue;
        }
        let offset = lists.len();
        row_list::write(run.iter().map(|packed| layout.row_of(*packed)), lists);
        let print = layout.print_of(layout.entry_of(run[0]));
        for field in [print as usize, run.len(), offset, lists.len() - offset] {
            records.extend((field as u32).to_le_bytes());
        }
    }
    if entries > MAX_ENTRIES {
        buckets.truncate(start);
        lists.truncate(lists_start);
        return false;
    }
    buckets.extend(std::iter::repeat_n(0, 8 - width));
    let counts = [entries as u16, (records.len() / LIST_BYTES) as u16];
    buckets.extend(records);
    for (count, at) in counts.into_iter().zip([start + 4, start + 6]) {
        buckets[at..at + 2].copy_from_slice(&count.to_le_bytes());
    }
    let crc = checksum(number, &buckets[start + 4..]);
    buckets[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    true
}

fn checksum(number: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), bytes)
}

/// A bucket that was read and is undamaged.
pub(crate) struct Bucket<'a> {
    layout: Layout,
    entries: usize,
    /// The entries and the zeros behind them.
    bytes: &'a [u8],
    lists: &'a [[u8; LIST_BYTES]],
}

/// A list that a bucket names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) rows: u32,
    /// Among the lists of the bucket's part.
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
}

impl<'a> Bucket<'a> {
    /// # Errors
    /// The bucket is damaged, or is another one.
    pub(crate) fn read((layout, number): (Layout, u32), bytes: &'a [u8]) -> Result<Self, Error> {
        let damaged = || Error::corrupt(format!("bucket {number} of a keymap is damaged"));
        let (crc, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
        if checksum(number, rest) != u32::from_le_bytes(*crc) {
            return Err(damaged());
        }
        let ([a, b, c, d], rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let (entries, lists) = (usize::from(u16::from_le_bytes([*a, *b])), u16::from_le_bytes([*c, *d]));
        let width = layout.entry_bytes();
        let (bytes, rest) = rest.split_at_checked(entries * width + 8 - width).ok_or_else(damaged)?;
        let (records, rest) = rest.as_chunks::<LIST_BYTES>();
        if records.len() != usize::from(lists) || !rest.is_empty() {
            return Err(damaged());
        }
        Ok(Self { layout, entries, bytes, lists: records })
    }

    #[inline]
    fn entry(&self, i: usize) -> u64 {
        let width = self.layout.entry_bytes();
        let bytes = self.bytes.get(i * width..).and_then(|bytes| bytes.first_chunk::<8>());
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes)) & (u64::MAX >> (64 - 8 * width))
    }

    /// Appends the rows of a fingerprint, or says where they are listed.
    ///
    /// # Errors
    /// A row that is not below `rows`.
    pub(crate) fn find(&self, print: u64, rows: u64, out: &mut Vec<u64>) -> Result<Option<Listed>, Error> {
        let field = |record: &[u8; LIST_BYTES], i: usize| {
            record[4 * i..].first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        if let Some(record) = self.lists.iter().find(|record| u64::from(field(record, 0)) == print) {
            return Ok(Some(Listed { rows: field(record, 1), offset: field(record, 2), bytes: field(record, 3) }));
        }
        let (mut from, mut to) = (0, self.entries);
        while from < to {
            let middle = from + (to - from) / 2;
            if self.layout.print_of(self.entry(middle)) < print {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        for entry in (from..self.entries).map(|i| self.entry(i)).take_while(|e| self.layout.print_of(*e) == print) {
            let row = self.layout.row_of(entry);
            if row >= rows {
                return Err(Error::corrupt(format!("a keymap names row {row} of {rows}")));
            }
            out.push(row);
        }
        Ok(None)
    }
}
