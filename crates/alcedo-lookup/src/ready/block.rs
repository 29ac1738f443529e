//! Blocks of stored rows, packed into parts.
//!
//! A block is a checksum and rows, each with its length in front. Blocks of small rows fill one block of the page
//! store, 4 KiB, and start where one starts, so that a lookup reads and verifies no other; a few bytes at their end may
//! be padding. A row never lies in two blocks. A larger row has a block of its own, as long as it takes.

use bytes::Bytes;

use crate::derived::PART_BYTES;
use crate::error::Error;
use crate::ready::fields::uvarint;
use crate::ready::key_field::{Code, KeyField, WIDE_BYTES, wide_code};

/// Bytes of a block: what the page store reads and verifies at least.
pub(crate) const BLOCK_BYTES: usize = 4 << 10;
/// A block that ends at most so many bytes before a place where the next one should start is padded: an eighth of the
/// space at most is lost.
const MAX_PADDING_BYTES: usize = 512;
/// A row group's end ends a part of at least so many bytes: row groups are often sorted in themselves only, and small
/// ones share a part.
const MIN_PART_BYTES: usize = 1 << 20;
/// Bytes of the checksum at the start of a block.
const CHECKSUM_BYTES: usize = 4;
/// Bytes that the keys of a part may have in common at their beginning without weight in their codes.
pub(crate) const MAX_PREFIX_BYTES: usize = 64;

/// A block holds rows whose key is null.
pub(crate) const HAS_NULLS: u8 = 1;
/// A block holds rows whose key is a value that some key equals.
pub(crate) const HAS_VALUES: u8 = 1 << 1;

/// What a block's checksum starts from, so that rows of other places or columns are not taken for its own.
fn checksum(fingerprint: u64, first_row: u64, rows: &[u8]) -> u32 {
    let seed = fingerprint ^ fingerprint >> 32 ^ first_row ^ first_row >> 32;
    crc32c::crc32c_append(seed as u32, rows)
}

/// The rows of a block, with padding behind them.
///
/// # Errors
/// The bytes are not this block.
#[inline]
pub(crate) fn verified(bytes: &[u8], fingerprint: u64, first_row: u64) -> Result<&[u8], Error> {
    match bytes.split_first_chunk::<CHECKSUM_BYTES>() {
        Some((stored, rows)) if u32::from_le_bytes(*stored) == checksum(fingerprint, first_row, rows) => Ok(rows),
        _ => Err(Error::Checksum(format!("the block of lookup-ready rows from row {first_row}"))),
    }
}

/// Least and greatest key of a block, as their codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockNote {
    /// Where it starts in its part.
    pub(crate) offset: u32,
    /// Its first row, counted from the part's first.
    pub(crate) first_row: u32,
    pub(crate) flags: u8,
    pub(crate) min: u128,
    pub(crate) max: u128,
}

/// A finished part.
pub(crate) struct PackedPart {
    pub(crate) bytes: Bytes,
    pub(crate) rows: u32,
    /// What all keys of the part start with; empty where codes are words.
    pub(crate) prefix: Vec<u8>,
    pub(crate) blocks: Vec<BlockNote>,
}

/// Packs rows into parts.
pub(crate) struct Packer {
    key: KeyField,
    null_bytes: usize,
    fingerprint: u64,
    /// The number in the file of the part's first row.
    part_row: u64,
    bytes: Vec<u8>,
    rows: u32,
    blocks: Vec<Bounded>,
    open: Option<Bounded>,
}

/// A block with its bounds while the part's prefix is not known.
struct Bounded {
    offset: usize,
    first_row: u32,
    flags: u8,
    words: (u64, u64),
    /// The beginnings of the least and greatest value.
    wide: (Vec<u8>, Vec<u8>),
}

impl Packer {
    pub(crate) fn new(key: KeyField, columns: usize, fingerprint: u64) -> Self {
        let null_bytes = columns.div_ceil(8);
        Self { key, null_bytes, fingerprint, part_row: 0, bytes: Vec::new(), rows: 0, blocks: Vec::new(), open: None }
    }

    /// Whether this row must wait for the next part.
    pub(crate) fn is_full_for(&self, row: &[u8]) -> bool {
        let new_block = self.open.as_ref().is_none_or(|block| !self.fits(block, row));
        let checksum = if new_block { CHECKSUM_BYTES + MAX_PADDING_BYTES } else { 0 };
        !self.bytes.is_empty() && self.bytes.len() + checksum + row.len() > PART_BYTES
    }

    fn fits(&self, block: &Bounded, row: &[u8]) -> bool {
        // A block ends where one of the page store does: the next one, or the one after it if that is too near.
        let end = (block.offset + BLOCK_BYTES / 2).next_multiple_of(BLOCK_BYTES);
        self.bytes.len() + row.len() <= end
    }

    /// Adds a row with its length in front, as it is stored.
    ///
    /// # Errors
    /// A row that no part can hold, or that is none of the columns'.
    pub(crate) fn add(&mut self, row: &[u8]) -> Result<(), Error> {
        if row.len() + CHECKSUM_BYTES > PART_BYTES {
            let (number, bytes) = (self.part_row + u64::from(self.rows), row.len());
            return Err(Error::Limit(format!(
                "row {number} takes {bytes} bytes, lookup-ready rows at most {PART_BYTES}: choose fewer columns"
            )));
        }
        if self.open.as_ref().is_some_and(|block| !self.fits(block, row)) {
            self.close_block();
        }
        if self.open.is_none() {
            let offset = self.bytes.len();
            self.bytes.extend_from_slice(&[0; CHECKSUM_BYTES]);
            let (words, wide) = ((0, 0), (Vec::new(), Vec::new()));
            self.open = Some(Bounded { offset, first_row: self.rows, flags: 0, words, wide });
        }
        let not_a_row = || Error::corrupt("a row was written that is none");
        let (_, at) = uvarint(row, 0).ok_or_else(not_a_row)?;
        let fields = &row[at..];
        let nulls = fields.get(..self.null_bytes).ok_or_else(not_a_row)?;
        if let Some(block) = &mut self.open {
            if nulls[0] & 1 == 1 {
                block.flags |= HAS_NULLS;
            } else {
                let value = self.key.value(&fields[self.null_bytes..]).ok_or_else(not_a_row)?;
                block.see(self.key.code(value));
            }
        }
        self.bytes.extend_from_slice(row);
        self.rows += 1;
        Ok(())
    }

    fn close_block(&mut self) {
        let Some(block) = self.open.take() else { return };
        let aligned = self.bytes.len().next_multiple_of(BLOCK_BYTES);
        if aligned - self.bytes.len() <= MAX_PADDING_BYTES {
            self.bytes.resize(aligned, 0);
        }
        let start = block.offset + CHECKSUM_BYTES;
        let first_row = self.part_row + u64::from(block.first_row);
        let checksum = checksum(self.fingerprint, first_row, &self.bytes[start..]);
        self.bytes[block.offset..start].copy_from_slice(&checksum.to_le_bytes());
        self.blocks.push(block);
    }

    /// Whether a part should end here, at the end of a row group.
    pub(crate) fn is_worth_a_part(&self) -> bool {
        self.bytes.len() >= MIN_PART_BYTES
    }

    /// The part so far; none where it has no rows.
    pub(crate) fn take_part(&mut self) -> Option<PackedPart> {
        self.close_block();
        if self.rows == 0 {
            return None;
        }
        let (bytes, rows) = (std::mem::take(&mut self.bytes).into(), std::mem::take(&mut self.rows));
        self.part_row += u64::from(rows);
        let blocks = std::mem::take(&mut self.blocks);
        let is_word = self.key.is_word();
        let prefix = if is_word { Vec::new() } else { common_prefix(&blocks) };
        let code = |bytes: &[u8]| wide_code(bytes.get(prefix.len()..).unwrap_or_default());
        let note = |block: &Bounded| {
            let (min, max) = match is_word {
                true => (block.words.0.into(), block.words.1.into()),
                false => (code(&block.wide.0), code(&block.wide.1)),
            };
            BlockNote { offset: block.offset as u32, first_row: block.first_row, flags: block.flags, min, max }
        };
        let blocks = blocks.iter().map(note).collect();
        Some(PackedPart { bytes, rows, prefix, blocks })
    }
}

impl Bounded {
    fn see(&mut self, code: Option<Code<'_>>) {
        let Some(code) = code else { return };
        let is_first = self.flags & HAS_VALUES == 0;
        self.flags |= HAS_VALUES;
        match code {
            Code::Word(word) if is_first => self.words = (word, word),
            Code::Word(word) => self.words = (self.words.0.min(word), self.words.1.max(word)),
            Code::Wide(sorted) => {
                // What lies beyond has no weight in a code.
                let bytes = sorted.bytes();
                let bytes = &bytes[..bytes.len().min(MAX_PREFIX_BYTES + WIDE_BYTES)];
                if is_first || bytes < &self.wide.0[..] {
                    self.wide.0.clear();
                    self.wide.0.extend_from_slice(bytes);
                }
                if is_first || bytes > &self.wide.1[..] {
                    self.wide.1.clear();
                    self.wide.1.extend_from_slice(bytes);
                }
            }
        }
    }
}

/// What all values between the bounds of these blocks start with.
fn common_prefix(blocks: &[Bounded]) -> Vec<u8> {
    let bounded = || blocks.iter().filter(|block| block.flags & HAS_VALUES != 0);
    let (min, max) = (bounded().map(|block| &block.wide.0).min(), bounded().map(|block| &block.wide.1).max());
    let (Some(min), Some(max)) = (min, max) else { return Vec::new() };
    let common = min.iter().zip(max).take(MAX_PREFIX_BYTES).take_while(|(a, b)| a == b).count();
    min[..common].to_vec()
}
