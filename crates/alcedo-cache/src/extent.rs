//! Layer 1: one extent as it lies in a segment file, format version 1.
//!
//! Knows the bytes in front of an extent's data: what they say and how they are checked. It must not know files of the
//! disk, nor which extents there are. An extent says everything about itself, and its header's checksum covers the
//! segment and the position that it was written to, so bytes that come back from a wrong place are found out.
//!
//! All numbers are little endian. The header is: magic, format version, a reserved number, bytes of the header, bytes
//! of the data, digest of the file key, size of the file, offset of the data in the file, lengths of URL and content
//! version, both texts, one CRC-32C per check block of the data, and the header's own CRC-32C. The data follows at once
//! and in one piece. An extent without data says that all earlier extents of its file are forgotten.

use bytes::{Buf, BufMut};

use crate::file_key::FileKey;
use crate::page::BLOCK_BYTES;

/// Version of all that is written into segment files. A segment of another version is left alone for a while.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Data that one checksum covers: a read verifies what it touches, which takes 2 us per check block.
pub(crate) const CHECK_BYTES: u32 = 16 * 1024;
/// Most data of one extent. Longer ranges become several, so that the writer's work and its loss are small.
pub(crate) const MAX_EXTENT_BYTES: u32 = 1 << 20;
/// Longest URL and longest content version that are written; files with longer ones stay uncached.
pub(crate) const MAX_TEXT_BYTES: usize = 16 * 1024;

const MAGIC: u32 = u32::from_le_bytes(*b"ALCX");
/// Bytes before the texts.
pub(crate) const FIXED_BYTES: usize = 48;
const CRC_BYTES: usize = 4;

/// Where a header is: in the checksum, not in the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// Id of the segment.
    pub(crate) segment: u64,
    /// Offset of the header in the segment file.
    pub(crate) at: u32,
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The file in its content version.
    pub(crate) file: FileKey,
    /// Size of the whole file.
    pub(crate) file_size: u64,
    /// Where the data is in the file.
    pub(crate) offset: u64,
    /// Bytes of data; zero for a forgotten file.
    pub(crate) data_bytes: u32,
    /// CRC-32C of each check block of the data.
    pub(crate) checks: Vec<u32>,
}

/// How many check blocks so much data has.
pub(crate) fn check_count(data_bytes: u32) -> u32 {
    data_bytes.div_ceil(CHECK_BYTES)
}

/// CRC-32C of each check block of the data.
pub(crate) fn checks(data: &[u8]) -> Vec<u32> {
    data.chunks(CHECK_BYTES as usize).map(crc32c::crc32c).collect()
}

/// Whether data may lie at this offset of a file of this size: whole blocks, but for the last of the file.
pub(crate) fn is_on_grid(file_size: u64, offset: u64, data_bytes: u32) -> bool {
    let Some(end) = offset.checked_add(u64::from(data_bytes)) else { return false };
    let ends_well = end.is_multiple_of(BLOCK_BYTES) || end == file_size;
    offset.is_multiple_of(BLOCK_BYTES) && end <= file_size && ends_well && data_bytes <= MAX_EXTENT_BYTES
}

/// Bytes of the header of an extent of this file with so much data.
pub(crate) fn header_bytes(file: &FileKey, data_bytes: u32) -> usize {
    FIXED_BYTES + file.text_bytes() + 4 * check_count(data_bytes) as usize + CRC_BYTES
}

/// Whether the file's texts are short enough to be written.
pub(crate) fn is_writable(file: &FileKey) -> bool {
    file.url().len() <= MAX_TEXT_BYTES && file.version().len() <= MAX_TEXT_BYTES
}

impl Extent {
    /// Appends the header to a buffer, as it is to be written at this position.
    pub(crate) fn encode(&self, position: Position, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u32_le(MAGIC);
        // The version is small; the upper half is reserved.
        out.put_u32_le(FORMAT_VERSION);
        out.put_u32_le(header_bytes(&self.file, self.data_bytes) as u32);
        out.put_u32_le(self.data_bytes);
        out.put_u64_le(self.file.digest());
        out.put_u64_le(self.file_size);
        out.put_u64_le(self.offset);
        out.put_u32_le(self.file.url().len() as u32);
        out.put_u32_le(self.file.version().len() as u32);
        out.put_slice(self.file.url().as_bytes());
        out.put_slice(self.file.version().as_bytes());
        for check in &self.checks {
            out.put_u32_le(*check);
        }
        let crc = placed_crc(position, out.get(start..).unwrap_or_default());
        out.put_u32_le(crc);
    }

    /// Bytes of the header that starts with these bytes, at least [`FIXED_BYTES`] of them, if they can start one. It is
    /// bounded, and says nothing about the rest of the header.
    pub(crate) fn announced_bytes(mut bytes: &[u8]) -> Option<usize> {
        if bytes.len() < FIXED_BYTES || bytes.get_u32_le() != MAGIC || bytes.get_u32_le() != FORMAT_VERSION {
            return None;
        }
        let announced = bytes.get_u32_le() as usize;
        let most = FIXED_BYTES + 2 * MAX_TEXT_BYTES + 4 * check_count(MAX_EXTENT_BYTES) as usize + CRC_BYTES;
        (FIXED_BYTES + CRC_BYTES..=most).contains(&announced).then_some(announced)
    }

    /// The extent whose whole header these bytes are, if they are one that was written at this position.
    pub(crate) fn decode(position: Position, header: &[u8]) -> Option<Self> {
        if Self::announced_bytes(header)? != header.len() {
            return None;
        }
        let (covered, mut crc) = header.split_at(header.len() - CRC_BYTES);
        if crc.get_u32_le() != placed_crc(position, covered) {
            return None;
        }
        let mut rest = covered.get(12..)?;
        let data_bytes = rest.get_u32_le();
        let digest = rest.get_u64_le();
        let (file_size, offset) = (rest.get_u64_le(), rest.get_u64_le());
        let (url, version) = (rest.get_u32_le() as usize, rest.get_u32_le() as usize);
        let (url, rest) = text(rest, url)?;
        let (version, mut rest) = text(rest, version)?;
        let file = FileKey::new(url, version);
        if file.digest() != digest || !is_on_grid(file_size, offset, data_bytes) {
            return None;
        }
        let count = check_count(data_bytes);
        if rest.len() != 4 * count as usize {
            return None;
        }
        let checks = (0..count).map(|_| rest.get_u32_le()).collect();
        Some(Self { file, file_size, offset, data_bytes, checks })
    }
}

/// A text from the front, and what follows it.
pub(crate) fn text(bytes: &[u8], length: usize) -> Option<(&str, &[u8])> {
    let (text, rest) = bytes.split_at_checked(length).filter(|_| length <= MAX_TEXT_BYTES)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

/// CRC-32C of bytes that were written at this position.
fn placed_crc(position: Position, bytes: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&position.segment.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &position.at.to_le_bytes()), bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const HERE: Position = Position { segment: 7, at: 32 };

    fn extent(data: &[u8]) -> Extent {
        let file = FileKey::new("s3://lake/a.parquet", "\"etag\"");
        let (file_size, offset) = (1 << 30, 3 * BLOCK_BYTES);
        Extent { file, file_size, offset, data_bytes: data.len() as u32, checks: checks(data) }
    }

    fn encoded(extent: &Extent) -> Vec<u8> {
        let mut bytes = Vec::new();
        extent.encode(HERE, &mut bytes);
        bytes
    }

    #[test]
    fn a_header_comes_back_as_it_was_written() {
        for length in [0, BLOCK_BYTES, u64::from(CHECK_BYTES), 5 * BLOCK_BYTES, u64::from(MAX_EXTENT_BYTES)] {
            let extent = extent(&vec![1; length as usize]);
            let bytes = encoded(&extent);
            assert_eq!(bytes.len(), header_bytes(&extent.file, length as u32));
            assert_eq!(Extent::announced_bytes(&bytes), Some(bytes.len()));
            assert_eq!(Extent::decode(HERE, &bytes), Some(extent));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_other_place_is_found() {
        let bytes = encoded(&extent(&vec![1; 5 * BLOCK_BYTES as usize]));
        for bit in 0..8 * bytes.len() {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Extent::decode(HERE, &broken), None, "bit {bit}");
        }
        for elsewhere in [Position { segment: 8, ..HERE }, Position { at: 36, ..HERE }] {
            assert_eq!(Extent::decode(elsewhere, &bytes), None);
        }
        for length in 0..bytes.len() {
            assert_eq!(Extent::decode(HERE, &bytes[..length]), None);
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused_although_its_checksum_is_right() {
        let right = extent(&[1; 4096]);
        let wrong = [
            Extent { offset: 1, ..right.clone() },
            Extent { offset: u64::MAX - 4095, ..right.clone() },
            Extent { file_size: 4096, ..right.clone() },
            Extent { data_bytes: 4095, ..right.clone() },
            Extent { checks: vec![1, 2], ..right.clone() },
            Extent { file: FileKey::new("x".repeat(MAX_TEXT_BYTES + 1), ""), ..right },
        ];
        for extent in wrong {
            assert_eq!(Extent::decode(HERE, &encoded(&extent)), None, "{extent:?}");
        }
    }
}
