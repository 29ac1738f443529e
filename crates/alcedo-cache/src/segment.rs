//! Layer 1: one segment file.
//!
//! Knows how extents follow each other in a file, how the file ends when it is full, and how to find them again. It
//! must not know which segments there are, nor which extents are wanted. Nothing is synced: after a power cut, whatever
//! did not reach the disk fails its checks and is a miss.
//!
//! The file starts with its own header: magic, format version, a reserved number, id, CRC-32C. Extents follow without
//! gaps. A sealed file ends with its table and trailer and is cut there.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::{Buf, BufMut, Bytes};

use crate::counts::Count;
use crate::disk_io::DiskIo;
use crate::extent::{CHECK_BYTES, Extent, FIXED_BYTES, FORMAT_VERSION, Position, check_count, checks, header_bytes};
use crate::file_key::FileKey;
use crate::table::{Entry, Group, TRAILER_BYTES, Table, TableAt};

/// Bytes before the first extent.
pub(crate) const HEADER_BYTES: u32 = 32;
const MAGIC: u64 = u64::from_le_bytes(*b"ALCEDOSG");
/// Longest table that is believed: far more than a segment of the largest size with the smallest extents has.
const MAX_TABLE_BYTES: u32 = 1 << 30;

/// A segment file that is open. Whoever holds it can read it, also after the file was removed.
#[derive(Debug)]
pub(crate) struct Segment {
    id: u64,
    path: PathBuf,
    file: File,
    io: DiskIo,
    /// CRC-32C of the check blocks of all extents, 4 bytes per 16 KiB of data. In memory, so that a read verifies what
    /// it touches without reading more.
    checks: RwLock<Vec<u32>>,
    /// Bytes that the file has reserved.
    file_bytes: AtomicU64,
    /// Bytes of data in it that the index still names.
    live: Count,
}

/// Where an extent's data is in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) data_at: u32,
    pub(crate) data_bytes: u32,
    pub(crate) first_check: u32,
}

/// Why bytes of a segment could not be had.
#[derive(Debug)]
pub(crate) enum ReadFault {
    /// They are not in memory, and the read must not wait.
    WouldWait,
    /// They are not what was written, or not there.
    Corrupt,
    /// The disk's.
    Disk,
}

/// What was found in a segment file.
pub(crate) struct Found {
    pub(crate) segment: Arc<Segment>,
    pub(crate) groups: Vec<Group>,
    /// Where the next extent goes, if the file was not sealed.
    pub(crate) open_at: Option<u32>,
    /// Whether something in it was broken.
    pub(crate) is_damaged: bool,
}

/// What a file that should be a segment turned out to be.
pub(crate) enum Opened {
    Found(Found),
    /// A segment of another format version.
    OtherFormat,
    /// Not a segment, or not this one.
    Foreign,
}

impl Segment {
    /// The file's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that the file has reserved.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of data in it that the index still names; the rest was forgotten, or written anew elsewhere.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live.get()
    }

    /// What the index says of its live bytes.
    pub(crate) fn live(&self) -> &Count {
        &self.live
    }

    /// Whether the file is still in its directory.
    pub(crate) fn has_name(&self) -> bool {
        self.io.has_name(&self.file)
    }

    /// Bytes of an extent's data, verified.
    pub(crate) fn read(&self, spot: Spot, inside: Range<u32>, may_wait: bool) -> Result<Bytes, ReadFault> {
        let first = inside.start / CHECK_BYTES;
        let from = first * CHECK_BYTES;
        let to = inside.end.next_multiple_of(CHECK_BYTES).min(spot.data_bytes);
        if inside.start >= inside.end || inside.end > spot.data_bytes {
            return Err(ReadFault::Corrupt);
        }
        let mut buffer = vec![0; (to - from) as usize];
        let at = u64::from(spot.data_at) + u64::from(from);
        let outcome = if may_wait {
            self.io.read(&self.file, &mut buffer, at)
        } else {
            self.io.read_now(&self.file, &mut buffer, at)
        };
        outcome.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => ReadFault::WouldWait,
            io::ErrorKind::UnexpectedEof => ReadFault::Corrupt,
            _ => ReadFault::Disk,
        })?;
        let first = (spot.first_check + first) as usize;
        let found = buffer.chunks(CHECK_BYTES as usize).map(crc32c::crc32c);
        // The lock guards a list that only grows, so what a panic left behind is whole.
        let expected = self.checks.read().unwrap_or_else(PoisonError::into_inner);
        let count = check_count(to - from) as usize;
        let is_right = expected.get(first..first + count).is_some_and(|expected| expected.iter().copied().eq(found));
        drop(expected);
        if !is_right {
            return Err(ReadFault::Corrupt);
        }
        Ok(Bytes::from(buffer).slice((inside.start - from) as usize..(inside.end - from) as usize))
    }

    /// Bytes of an extent's data as the operating system has them in memory: not verified, and no more than are asked
    /// for.
    pub(crate) fn read_unverified(&self, spot: Spot, inside: Range<u32>) -> Result<Bytes, ReadFault> {
        if inside.start >= inside.end || inside.end > spot.data_bytes {
            return Err(ReadFault::Corrupt);
        }
        let mut buffer = vec![0; (inside.end - inside.start) as usize];
        let at = u64::from(spot.data_at) + u64::from(inside.start);
        match self.io.read_now(&self.file, &mut buffer, at) {
            Ok(()) => Ok(buffer.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(ReadFault::WouldWait),
            Err(_) => Err(ReadFault::Disk),
        }
    }

    fn add_checks(&self, more: &[u32]) -> u32 {
        let mut checks = self.checks.write().unwrap_or_else(PoisonError::into_inner);
        let first = checks.len() as u32;
        checks.extend_from_slice(more);
        first
    }

    /// Opens the file and finds its extents: by its table when it is sealed, else one header after the other.
    ///
    /// # Errors
    /// The operating system's, on opening or reading.
    pub(crate) fn open(io: &DiskIo, path: &Path, id: u64) -> io::Result<Opened> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let file_bytes = file.metadata()?.len();
        let mut header = [0; HEADER_BYTES as usize];
        match io.read(&file, &mut header, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Opened::Foreign),
            outcome => outcome?,
        }
        match decode_header(&header) {
            Some((FORMAT_VERSION, found)) if found == id => {}
            Some((FORMAT_VERSION, _)) | None => return Ok(Opened::Foreign),
            Some(_) => return Ok(Opened::OtherFormat),
        }
        let (path, io) = (path.to_owned(), io.clone());
        let file_bytes = AtomicU64::new(file_bytes);
        let mut segment = Self { id, path, file, io, checks: RwLock::default(), file_bytes, live: Count::default() };
        if let Some((groups, checks)) = segment.table()? {
            segment.checks = RwLock::new(checks);
            let segment = Arc::new(segment);
            return Ok(Opened::Found(Found { segment, groups, open_at: None, is_damaged: false }));
        }
        let (table, end, is_damaged) = segment.scan()?;
        let groups = table.into_groups();
        Ok(Opened::Found(Found { segment: Arc::new(segment), groups, open_at: Some(end), is_damaged }))
    }

    /// The table, if the file ends with one that is whole.
    fn table(&self) -> io::Result<Option<(Vec<Group>, Vec<u32>)>> {
        let file_bytes = self.file_bytes();
        let Some(trailer_at) = file_bytes.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
        let mut trailer = [0; TRAILER_BYTES];
        self.io.read(&self.file, &mut trailer, trailer_at)?;
        let Some(place) = TableAt::decode(self.id, &trailer) else { return Ok(None) };
        let fits = place.at.checked_add(u64::from(place.bytes)) == Some(trailer_at);
        if !fits || place.bytes > MAX_TABLE_BYTES {
            return Ok(None);
        }
        let mut table = vec![0; place.bytes as usize];
        self.io.read(&self.file, &mut table, place.at)?;
        let is_whole = place.is_of(self.id, &table);
        Ok(is_whole.then(|| Table::decode(&table, place.at)).flatten())
    }

    /// All extents up to the first header that is not whole, where that is, and whether it is something other than the
    /// end: bytes that are neither a header nor the zeroes of a file that was never written so far.
    fn scan(&self) -> io::Result<(Table, u32, bool)> {
        let file_bytes = self.file_bytes();
        let (mut table, mut at) = (Table::default(), HEADER_BYTES);
        while let Some((extent, data_at)) = self.header_at(at, file_bytes)? {
            let Extent { file, file_size, offset, data_bytes, checks } = extent;
            let first_check = self.add_checks(&checks);
            table.push(&file, file_size, Entry { offset, data_at, data_bytes, first_check });
            at = data_at + data_bytes;
        }
        let mut behind = [0; FIXED_BYTES];
        let is_cut = file_bytes < u64::from(at) + FIXED_BYTES as u64;
        if !is_cut {
            self.io.read(&self.file, &mut behind, u64::from(at))?;
        }
        let is_damaged = file_bytes > u64::from(at) && (is_cut || behind != [0; FIXED_BYTES]);
        Ok((table, at, is_damaged))
    }

    /// The extent whose header is at this position, and where its data is, if both are inside the file.
    fn header_at(&self, at: u32, file_bytes: u64) -> io::Result<Option<(Extent, u32)>> {
        let left = file_bytes.saturating_sub(u64::from(at));
        let mut header = vec![0; FIXED_BYTES];
        if left < FIXED_BYTES as u64 {
            return Ok(None);
        }
        self.io.read(&self.file, &mut header, u64::from(at))?;
        let Some(announced) = Extent::announced_bytes(&header).filter(|announced| *announced as u64 <= left) else {
            return Ok(None);
        };
        header.resize(announced, 0);
        self.io.read(&self.file, &mut header, u64::from(at))?;
        let Some(extent) = Extent::decode(Position { segment: self.id, at }, &header) else { return Ok(None) };
        let end = u64::from(at) + announced as u64 + u64::from(extent.data_bytes);
        let is_inside = end <= file_bytes && end <= u64::from(u32::MAX);
        Ok(is_inside.then(|| (extent, at + announced as u32)))
    }
}

/// The segment that is written now.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    segment: Arc<Segment>,
    /// Where the next header goes.
    at: u32,
    table: Table,
    check_total: u32,
    capacity: u32,
}

impl OpenSegment {
    /// Makes the file and reserves its bytes.
    ///
    /// # Errors
    /// The operating system's; then there is no file.
    pub(crate) fn create(io: &DiskIo, path: PathBuf, id: u64, capacity: u32) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let made = io.reserve(&file, u64::from(capacity)).and_then(|()| io.write(&file, &encode_header(id), 0));
        if let Err(error) = made {
            // Whatever is there of it must not count as used; if even that fails, the next start removes it.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        let file_bytes = AtomicU64::new(u64::from(capacity));
        let (io, checks, live) = (io.clone(), RwLock::default(), Count::default());
        let segment = Arc::new(Segment { id, path, file, io, checks, file_bytes, live });
        Ok(Self { segment, at: HEADER_BYTES, table: Table::default(), check_total: 0, capacity })
    }

    /// Goes on with a file that was found unsealed, and reserves its bytes.
    ///
    /// # Errors
    /// The operating system's; the file's extents can be read all the same.
    pub(crate) fn go_on(found: &Found, at: u32, capacity: u32) -> io::Result<Self> {
        let segment = Arc::clone(&found.segment);
        segment.io.reserve(&segment.file, u64::from(capacity))?;
        segment.file_bytes.fetch_max(u64::from(capacity), Ordering::Relaxed);
        let mut table = Table::default();
        for group in &found.groups {
            for entry in &group.entries {
                table.push(&group.file, group.file_size, *entry);
            }
        }
        let check_total = segment.checks.read().unwrap_or_else(PoisonError::into_inner).len() as u32;
        Ok(Self { segment, at, table, check_total, capacity })
    }

    /// The file.
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Whether one more extent of this file with so much data fits, with the table behind it.
    pub(crate) fn has_room(&self, file: &FileKey, data_bytes: u32) -> bool {
        let checks = (self.check_total + check_count(data_bytes)) as usize;
        let table = self.table.bytes_with(file, checks) as u64;
        let extent = header_bytes(file, data_bytes) as u64 + u64::from(data_bytes);
        u64::from(self.at) + extent + table <= u64::from(self.capacity)
    }

    /// Writes an extent; the caller has asked for room and cut the data to what one extent takes.
    ///
    /// # Errors
    /// The operating system's; the extent is not in the segment then, and the next one takes its place.
    pub(crate) fn append(&mut self, file: &FileKey, file_size: u64, offset: u64, data: &[u8]) -> io::Result<Spot> {
        let (data_bytes, file) = (data.len() as u32, file.clone());
        let extent = Extent { file, file_size, offset, data_bytes, checks: checks(data) };
        let mut bytes = Vec::with_capacity(header_bytes(&extent.file, data_bytes) + data.len());
        extent.encode(Position { segment: self.segment.id, at: self.at }, &mut bytes);
        let data_at = self.at + bytes.len() as u32;
        bytes.extend_from_slice(data);
        self.segment.io.write(&self.segment.file, &bytes, u64::from(self.at))?;
        let first_check = self.segment.add_checks(&extent.checks);
        self.check_total += extent.checks.len() as u32;
        self.table.push(&extent.file, file_size, Entry { offset, data_at, data_bytes, first_check });
        self.at = data_at + data_bytes;
        Ok(Spot { data_at, data_bytes, first_check })
    }

    /// Writes the table and cuts the file behind it.
    ///
    /// # Errors
    /// The operating system's; the file can be read all the same, and a restart finds its extents by their headers.
    pub(crate) fn seal(self) -> io::Result<Arc<Segment>> {
        let Self { segment, at, table, .. } = self;
        let checks = segment.checks.read().unwrap_or_else(PoisonError::into_inner).clone();
        let bytes = table.encode(segment.id, u64::from(at), &checks);
        segment.io.write(&segment.file, &bytes, u64::from(at))?;
        let end = u64::from(at) + bytes.len() as u64;
        segment.io.cut(&segment.file, end)?;
        segment.file_bytes.store(end, Ordering::Relaxed);
        Ok(segment)
    }
}

/// The header of the segment with this id.
pub(crate) fn encode_header(id: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES as usize);
    out.put_u64_le(MAGIC);
    out.put_u32_le(FORMAT_VERSION);
    out.put_u32_le(0);
    out.put_u64_le(id);
    let crc = crc32c::crc32c(&out);
    out.put_u32_le(crc);
    out.put_u32_le(0);
    out
}

/// Format version and id, if these bytes start a segment. Of another version nothing but the magic and the version is
/// known, so its checksum cannot be looked at.
fn decode_header(header: &[u8; HEADER_BYTES as usize]) -> Option<(u32, u64)> {
    let mut rest = header.as_slice();
    if rest.get_u64_le() != MAGIC {
        return None;
    }
    let version = rest.get_u32_le();
    rest.advance(4);
    let id = rest.get_u64_le();
    let covered = header.get(..24).map(crc32c::crc32c);
    let is_whole = Some(rest.get_u32_le()) == covered && rest.get_u32_le() == 0;
    (is_whole || version > FORMAT_VERSION).then_some((version, id))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::page::BLOCK_BYTES;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1.segment");

    /// The same as in the tests of the whole store: every byte tells its file and place.
    fn content(file: &FileKey, range: Range<u64>) -> Vec<u8> {
        let word = |place: u64| (place ^ file.digest()).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        range.map(|place| (word(place / 8) >> (place % 8 * 8)) as u8).collect()
    }

    fn key(number: u64, version: u64) -> FileKey {
        FileKey::new(format!("s3://lake/part-{number:05}.parquet"), format!("v{version}"))
    }

    /// A small sealed segment with two files and a forgotten one.
    fn sealed(path: &Path) -> Arc<Segment> {
        let size = 300;
        let mut open = OpenSegment::create(&DiskIo::default(), path.to_owned(), 0, 1 << 20).unwrap();
        let mut append = |file: FileKey, range: Range<u64>| {
            let data = content(&file, range.clone());
            assert!(open.has_room(&file, data.len() as u32));
            open.append(&file, size, range.start, &data).unwrap()
        };
        append(key(1, 0), 0..size);
        append(key(2, 7), 0..size);
        append(key(3, 0), 0..size);
        append(key(3, 0), 0..0);
        open.seal().unwrap()
    }

    #[test]
    fn the_format_is_the_first_one_byte_for_byte() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("0.segment");
        let segment = sealed(&path);
        let written = std::fs::read(&path).unwrap();
        assert_eq!(segment.file_bytes(), written.len() as u64);
        // A difference here is a new format: it needs a version of its own, and this one must stay readable.
        assert!(written == std::fs::read(GOLDEN).unwrap(), "the format on disk is not that of version 1");
    }

    #[test]
    fn with_and_without_its_table_the_same_is_found() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("0.segment");
        let segment = sealed(&path);
        let found = |open: bool| {
            let Opened::Found(found) = Segment::open(&DiskIo::default(), &path, 0).unwrap() else { panic!() };
            assert_eq!(found.open_at.is_some(), open);
            let entries = found.groups.iter().map(|group| (group.file.clone(), group.entries.clone()));
            let parts: Vec<_> = entries.collect();
            for (file, entries) in &parts {
                for entry in entries.iter().filter(|entry| entry.data_bytes > 0) {
                    let Entry { offset, data_at, data_bytes, first_check } = *entry;
                    let read = found.segment.read(Spot { data_at, data_bytes, first_check }, 1..data_bytes, true);
                    assert_eq!(read.unwrap(), content(file, offset + 1..offset + u64::from(data_bytes)));
                }
            }
            parts
        };
        let by_table = found(false);
        segment.file.set_len(segment.file_bytes() - 1).unwrap();
        assert_eq!(found(true), by_table);
        assert!(matches!(Segment::open(&DiskIo::default(), &path, 1).unwrap(), Opened::Foreign));
    }

    #[test]
    fn the_table_always_has_room() {
        let temp = tempfile::tempdir().unwrap();
        for data_bytes in [0_u64, BLOCK_BYTES, 40 * BLOCK_BYTES] {
            let path = temp.path().join(format!("{data_bytes}.segment"));
            let mut open = OpenSegment::create(&DiskIo::default(), path, 0, 1 << 20).unwrap();
            let mut count = 0;
            for number in 0.. {
                let file = key(number, 0);
                if !open.has_room(&file, data_bytes as u32) {
                    break;
                }
                open.append(&file, 1 << 30, 0, &vec![1; data_bytes as usize]).unwrap();
                count += 1;
            }
            assert!(count > 5 && open.seal().unwrap().file_bytes() <= 1 << 20);
        }
    }
}
