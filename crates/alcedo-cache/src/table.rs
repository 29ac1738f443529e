//! Layer 1: the table of a sealed segment, format version 1.
//!
//! Knows how the headers of a whole segment are written once more, together and small, so that a restart reads one
//! range per segment. It must not know files of the disk. The headers stay what counts: a broken table is replaced by
//! them.
//!
//! All numbers are little endian. The table is: magic, format version, numbers of groups, entries and checksums, then
//! the groups, then the checksums. A group is one file: digest, size, lengths of URL and content version, number of
//! entries, both texts, and for each extent its offset in the file, the position of its data in the segment, and its
//! length; in the order in which they were written. The trailer is the last thing in a sealed file and says where the
//! table is.

use std::collections::HashMap;

use bytes::{Buf, BufMut};

use crate::extent::{FORMAT_VERSION, check_count, is_on_grid, text};
use crate::file_key::FileKey;

/// Bytes of the trailer.
pub(crate) const TRAILER_BYTES: usize = 32;
/// Bytes of the table before the groups.
const HEAD_BYTES: usize = 20;
/// Bytes of a group before its texts.
const GROUP_BYTES: usize = 28;
/// Bytes of an entry, without its checksums.
const ENTRY_BYTES: usize = 16;
const TABLE_MAGIC: u32 = u32::from_le_bytes(*b"ALCT");
const TRAILER_MAGIC: u64 = u64::from_le_bytes(*b"ALCEDOTR");

/// One extent in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where the data is in the file.
    pub(crate) offset: u64,
    /// Where the data is in the segment.
    pub(crate) data_at: u32,
    /// Bytes of data; zero says that the file's earlier extents are forgotten.
    pub(crate) data_bytes: u32,
    /// Number of its first checksum in the segment.
    pub(crate) first_check: u32,
}

/// The extents of one file in a segment, in the order in which they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) file: FileKey,
    pub(crate) file_size: u64,
    pub(crate) entries: Vec<Entry>,
}

/// All extents of a segment.
#[derive(Debug, Default)]
pub(crate) struct Table {
    groups: Vec<Group>,
    places: HashMap<(FileKey, u64), usize>,
    text_bytes: usize,
    entries: usize,
}

impl Table {
    /// Adds an extent behind all others.
    pub(crate) fn push(&mut self, file: &FileKey, file_size: u64, entry: Entry) {
        let place = *self.places.entry((file.clone(), file_size)).or_insert_with(|| {
            self.text_bytes += file.text_bytes();
            self.groups.push(Group { file: file.clone(), file_size, entries: Vec::new() });
            self.groups.len() - 1
        });
        if let Some(group) = self.groups.get_mut(place) {
            group.entries.push(entry);
            self.entries += 1;
        }
    }

    /// The groups, in order of their first extents.
    pub(crate) fn into_groups(self) -> Vec<Group> {
        self.groups
    }

    /// Bytes of the encoded table with so many checksums, if one more extent of this file is added, and of the trailer.
    pub(crate) fn bytes_with(&self, file: &FileKey, checks: usize) -> usize {
        let groups = (self.groups.len() + 1) * GROUP_BYTES + self.text_bytes + file.text_bytes();
        HEAD_BYTES + groups + (self.entries + 1) * ENTRY_BYTES + checks * 4 + TRAILER_BYTES
    }

    /// The table with these checksums of all extents by number, and behind it the trailer, as they are to be written at
    /// this position of this segment.
    pub(crate) fn encode(&self, segment: u64, at: u64, checks: &[u32]) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u32_le(TABLE_MAGIC);
        out.put_u32_le(FORMAT_VERSION);
        out.put_u32_le(self.groups.len() as u32);
        out.put_u32_le(self.entries as u32);
        out.put_u32_le(checks.len() as u32);
        let mut sorted: Vec<u32> = Vec::with_capacity(checks.len());
        for Group { file, file_size, entries } in &self.groups {
            out.put_u64_le(file.digest());
            out.put_u64_le(*file_size);
            out.put_u32_le(file.url().len() as u32);
            out.put_u32_le(file.version().len() as u32);
            out.put_u32_le(entries.len() as u32);
            out.put_slice(file.url().as_bytes());
            out.put_slice(file.version().as_bytes());
            for entry in entries {
                out.put_u64_le(entry.offset);
                out.put_u32_le(entry.data_at);
                out.put_u32_le(entry.data_bytes);
                let first = entry.first_check as usize;
                let behind = first + check_count(entry.data_bytes) as usize;
                sorted.extend_from_slice(checks.get(first..behind).unwrap_or_default());
            }
        }
        for check in sorted {
            out.put_u32_le(check);
        }
        let trailer = trailer(segment, at, &out);
        out.put_slice(&trailer);
        out
    }

    /// The groups and checksums of a table, if it is one of this segment and within a file of this size.
    pub(crate) fn decode(bytes: &[u8], segment_bytes: u64) -> Option<(Vec<Group>, Vec<u32>)> {
        let mut rest = bytes;
        if rest.len() < HEAD_BYTES || rest.get_u32_le() != TABLE_MAGIC || rest.get_u32_le() != FORMAT_VERSION {
            return None;
        }
        let (group_count, entry_count) = (rest.get_u32_le() as usize, rest.get_u32_le() as usize);
        let checks_count = rest.get_u32_le() as usize;
        // Numbers are bounded by the bytes that are there before anything is reserved for them.
        if group_count > rest.len() / GROUP_BYTES || entry_count > rest.len() / ENTRY_BYTES {
            return None;
        }
        let mut groups = Vec::with_capacity(group_count);
        let (mut entries, mut first_check) = (0, 0_u32);
        for _ in 0..group_count {
            let (group, behind) = Self::group(rest, segment_bytes, &mut first_check)?;
            entries += group.entries.len();
            groups.push(group);
            rest = behind;
        }
        if entries != entry_count || checks_count != first_check as usize || rest.len() != 4 * checks_count {
            return None;
        }
        let checks = rest.chunks_exact(4).map(|mut check| check.get_u32_le()).collect();
        Some((groups, checks))
    }

    fn group<'a>(mut rest: &'a [u8], segment_bytes: u64, first_check: &mut u32) -> Option<(Group, &'a [u8])> {
        if rest.len() < GROUP_BYTES {
            return None;
        }
        let (digest, file_size) = (rest.get_u64_le(), rest.get_u64_le());
        let (url, version) = (rest.get_u32_le() as usize, rest.get_u32_le() as usize);
        let count = rest.get_u32_le() as usize;
        let (url, rest) = text(rest, url)?;
        let (version, rest) = text(rest, version)?;
        let file = FileKey::new(url, version);
        let (raw, behind) = rest.split_at_checked(count.checked_mul(ENTRY_BYTES)?)?;
        let mut entries = Vec::with_capacity(count);
        for mut raw in raw.chunks_exact(ENTRY_BYTES) {
            let offset = raw.get_u64_le();
            let (data_at, data_bytes) = (raw.get_u32_le(), raw.get_u32_le());
            let is_inside = u64::from(data_at) + u64::from(data_bytes) <= segment_bytes;
            if !is_inside || !is_on_grid(file_size, offset, data_bytes) {
                return None;
            }
            entries.push(Entry { offset, data_at, data_bytes, first_check: *first_check });
            *first_check = first_check.checked_add(check_count(data_bytes))?;
        }
        (file.digest() == digest).then_some((Group { file, file_size, entries }, behind))
    }
}

/// Where a trailer says that the table is: its offset and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableAt {
    pub(crate) at: u64,
    pub(crate) bytes: u32,
    crc: u32,
}

impl TableAt {
    /// What a trailer says, if it is one of this segment.
    pub(crate) fn decode(segment: u64, trailer: &[u8]) -> Option<Self> {
        let (covered, mut crc) = trailer.split_at_checked(TRAILER_BYTES - 4)?;
        if crc.len() != 4 || crc.get_u32_le() != crc_in(segment, covered) {
            return None;
        }
        let mut rest = covered;
        let is_trailer = rest.get_u64_le() == TRAILER_MAGIC && rest.get_u32_le() == FORMAT_VERSION;
        let (at, bytes, crc) = (rest.get_u64_le(), rest.get_u32_le(), rest.get_u32_le());
        is_trailer.then_some(Self { at, bytes, crc })
    }

    /// Whether these are the bytes of the table.
    pub(crate) fn is_of(&self, segment: u64, table: &[u8]) -> bool {
        table.len() == self.bytes as usize && crc_in(segment, table) == self.crc
    }
}

fn trailer(segment: u64, at: u64, table: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(TRAILER_BYTES);
    out.put_u64_le(TRAILER_MAGIC);
    out.put_u32_le(FORMAT_VERSION);
    out.put_u64_le(at);
    out.put_u32_le(table.len() as u32);
    out.put_u32_le(crc_in(segment, table));
    let crc = crc_in(segment, &out);
    out.put_u32_le(crc);
    out
}

/// CRC-32C of bytes that belong to this segment.
pub(crate) fn crc_in(segment: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&segment.to_le_bytes()), bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const SEGMENT_BYTES: u64 = 1 << 20;

    fn table() -> (Table, Vec<u32>) {
        let mut table = Table::default();
        let (a, b) = (FileKey::new("s3://lake/a", "1"), FileKey::new("s3://lake/b", "22"));
        let entry = |offset: u64, data_bytes: u32, first_check| Entry { offset, data_at: 100, data_bytes, first_check };
        table.push(&a, 1 << 20, entry(0, 65_536, 0));
        table.push(&b, 5_000, entry(4_096, 904, 4));
        table.push(&a, 1 << 20, entry(65_536, 20_480, 5));
        table.push(&a, 1 << 20, entry(0, 0, 7));
        (table, (10..17).collect())
    }

    #[test]
    fn a_table_comes_back_by_files_with_its_checksums() {
        let (table, checks) = table();
        let bytes = table.encode(3, 500, &checks);
        assert!(bytes.len() <= table.bytes_with(&FileKey::new("", ""), checks.len()));
        let (body, trailer) = bytes.split_at(bytes.len() - TRAILER_BYTES);
        let place = TableAt::decode(3, trailer).unwrap();
        assert_eq!((place.at, place.bytes as usize, place.is_of(3, body)), (500, body.len(), true));
        assert!(!place.is_of(4, body) && TableAt::decode(4, trailer).is_none());
        let (groups, sorted) = Table::decode(body, SEGMENT_BYTES).unwrap();
        // The checksums are those of each entry still, in the order of the groups.
        assert_eq!(sorted, [10, 11, 12, 13, 15, 16, 14]);
        assert_eq!(groups[0].entries.iter().map(|entry| entry.first_check).collect::<Vec<_>>(), [0, 4, 6]);
        assert_eq!((groups[1].entries[0].first_check, groups[1].entries[0].data_bytes), (6, 904));
        assert_eq!(groups[0].file, table.into_groups()[0].file);
    }

    #[test]
    fn every_flip_and_cut_is_found_and_none_costs_memory() {
        let (table, checks) = table();
        let bytes = table.encode(3, 500, &checks);
        let (body, trailer) = bytes.split_at(bytes.len() - TRAILER_BYTES);
        let place = TableAt::decode(3, trailer).unwrap();
        for at in 0..body.len() {
            let mut broken = body.to_vec();
            broken[at] ^= 0x81;
            assert!(!place.is_of(3, &broken), "byte {at}");
            // Even behind a checksum that was made to fit, nothing is believed blindly.
            let _ = Table::decode(&broken, SEGMENT_BYTES);
            assert!(Table::decode(&body[..at], SEGMENT_BYTES).is_none());
        }
        for at in 0..trailer.len() {
            let mut broken = trailer.to_vec();
            broken[at] ^= 0x81;
            assert!(TableAt::decode(3, &broken).is_none() && TableAt::decode(3, &trailer[..at]).is_none());
        }
        assert!(Table::decode(body, 1_000).is_none(), "an extent behind the end of the file");
    }
}
