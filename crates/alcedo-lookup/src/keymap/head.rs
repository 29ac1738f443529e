//! A keymap's head: what its parts hold, and where each bucket is.
//!
//! Its bytes, all integers little-endian: magic; version (u16); bits of a row, of a bucket's number and of a
//! fingerprint (u8 each); the state of the null keys (u8); the key's leaf column (u32); the file's bytes and rows (u64
//! each); of the list of null keys its rows, part, offset and length (u32 each); the number of parts (u32); per part
//! its first bucket and its bytes (u32 each); per bucket where it ends in its part (u32), with the top bit set for one
//! that was too full to be written; a CRC-32C of all that (u32). A part holds its buckets, then its lists.

use std::ops::Range;

use bytes::Bytes;

use crate::derived::PART_BYTES;
use crate::error::Error;
use crate::keymap::bucket::Listed;
use crate::keymap::layout::{Layout, MAX_ROWS};

/// "Alcedo keymap".
const MAGIC: [u8; 4] = *b"ALKM";
/// Another layout of bytes, or another hash, is another number.
const VERSION: u16 = 1;
const FIXED_BYTES: usize = 50;
const PART_HEAD_BYTES: usize = 8;
const CRC_BYTES: usize = 4;
/// Set in the end of a bucket that was too full to be written.
const OVERFULL: u32 = 1 << 31;

const NO_NULLS: u8 = 0;
const LISTED_NULLS: u8 = 1;
const TOO_MANY_NULLS: u8 = 2;

/// One part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartHead {
    pub(crate) first_bucket: u32,
    pub(crate) bytes: u32,
}

/// The rows whose key is null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nulls {
    None,
    /// In this part, at this offset of the part itself.
    Listed(u32, Listed),
    TooMany,
}

/// Which file and column a keymap is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) leaf: u32,
    pub(crate) file_size: u64,
    pub(crate) rows: u64,
}

/// A head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) subject: Subject,
    pub(crate) layout: Layout,
    pub(crate) nulls: Nulls,
    pub(crate) parts: Box<[PartHead]>,
    /// Little-endian.
    ends: Bytes,
}

/// Where a bucket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BucketPlace {
    Empty,
    Overfull,
    At { part: u32, range: Range<u64> },
}

/// Where the buckets written so far end.
#[derive(Debug, Default)]
pub(crate) struct Ends(Vec<u8>);

impl Ends {
    /// Adds the next bucket. `end`: offset in its part.
    pub(crate) fn push(&mut self, end: usize, is_overfull: bool) {
        let flag = if is_overfull { OVERFULL } else { 0 };
        self.0.extend((end as u32 | flag).to_le_bytes());
    }

    /// Adds a bucket that ends where the one before it does.
    pub(crate) fn push_empty(&mut self, is_overfull: bool) {
        let last = self.0.last_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        self.push((last & !OVERFULL) as usize, is_overfull);
    }

    /// Buckets so far.
    pub(crate) fn len(&self) -> u32 {
        (self.0.len() / 4) as u32
    }

    /// Makes the head.
    pub(crate) fn into_head(self, subject: Subject, layout: Layout, nulls: Nulls, parts: &[PartHead]) -> Bytes {
        let mut out = Vec::with_capacity(FIXED_BYTES + parts.len() * PART_HEAD_BYTES + self.0.len() + CRC_BYTES);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        let (state, (part, list)) = match nulls {
            Nulls::None => (NO_NULLS, (0, Listed { rows: 0, offset: 0, bytes: 0 })),
            Nulls::Listed(part, list) => (LISTED_NULLS, (part, list)),
            Nulls::TooMany => (TOO_MANY_NULLS, (0, Listed { rows: 0, offset: 0, bytes: 0 })),
        };
        out.extend([layout.row_bits as u8, layout.bucket_bits as u8, layout.print_bits as u8, state]);
        out.extend(subject.leaf.to_le_bytes());
        out.extend(subject.file_size.to_le_bytes());
        out.extend(subject.rows.to_le_bytes());
        for field in [list.rows, part, list.offset, list.bytes, parts.len() as u32] {
            out.extend(field.to_le_bytes());
        }
        for part in parts {
            out.extend(part.first_bucket.to_le_bytes());
            out.extend(part.bytes.to_le_bytes());
        }
        out.extend(self.0);
        out.extend(crc32c::crc32c(&out).to_le_bytes());
        out.into()
    }
}

fn damaged(what: &str) -> Error {
    Error::corrupt(format!("a keymap's head is damaged: {what}"))
}

/// Takes integers off the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or_else(|| damaged("it ends early"))?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Error> {
        self.take().map(u64::from_le_bytes)
    }
}

impl Head {
    /// # Errors
    /// The head is damaged, of another version, or of another file or column.
    pub(crate) fn read(bytes: &Bytes, file: (u64, u64)) -> Result<Self, Error> {
        let body = bytes.len().checked_sub(CRC_BYTES).ok_or_else(|| damaged("it is too short"))?;
        let (body, crc) = bytes.split_at(body);
        let mut fields = Fields(body);
        if fields.take()? != MAGIC {
            return Err(damaged("it begins otherwise"));
        }
        let version = u16::from_le_bytes(fields.take()?);
        if version != VERSION {
            return Err(Error::corrupt(format!("a keymap of version {version}, version {VERSION} is read")));
        }
        if Fields(crc).u32()? != crc32c::crc32c(body) {
            return Err(damaged("its checksum is another"));
        }
        let [row_bits, bucket_bits, print_bits, nulls] = fields.take()?;
        let subject = Subject { leaf: fields.u32()?, file_size: fields.u64()?, rows: fields.u64()? };
        if (subject.file_size, subject.rows) != file || subject.rows > MAX_ROWS {
            return Err(damaged("it is of another file"));
        }
        let [row_bits, bucket_bits, print_bits] = [row_bits, bucket_bits, print_bits].map(u32::from);
        let layout = Layout { row_bits, bucket_bits, print_bits };
        if !layout.fits(subject.rows) {
            return Err(damaged("its entries do not fit its rows"));
        }
        let (rows, part, offset, bytes_) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
        let nulls = match nulls {
            NO_NULLS => Nulls::None,
            LISTED_NULLS => Nulls::Listed(part, Listed { rows, offset, bytes: bytes_ }),
            TOO_MANY_NULLS => Nulls::TooMany,
            _ => return Err(damaged("null keys of an unknown state")),
        };
        let parts = fields.u32()? as usize;
        let part_heads = parts.checked_mul(PART_HEAD_BYTES).filter(|bytes| *bytes <= fields.0.len());
        let ends = body.len() - fields.0.len() + part_heads.ok_or_else(|| damaged("it names too many parts"))?;
        let part_head = |_| Ok(PartHead { first_bucket: fields.u32()?, bytes: fields.u32()? });
        let parts = (0..parts).map(part_head).collect::<Result<_, Error>>()?;
        let head = Self { subject, layout, nulls, parts, ends: bytes.slice(ends..body.len()) };
        head.check()?;
        Ok(head)
    }

    /// Every bucket and list is inside its part.
    fn check(&self) -> Result<(), Error> {
        let buckets = self.layout.buckets();
        if self.ends.len() != buckets as usize * 4 {
            return Err(damaged("it names more or fewer buckets than it has"));
        }
        let mut next = 0;
        for (i, part) in self.parts.iter().enumerate() {
            let past = self.past(i);
            if part.first_bucket != next || past < next || past > buckets || part.bytes as usize > PART_BYTES {
                return Err(damaged("its parts do not follow each other"));
            }
            let mut last = 0;
            for bucket in next..past {
                let end = self.end(bucket);
                if end < last || end > part.bytes {
                    return Err(damaged("a bucket ends outside its part"));
                }
                last = end;
            }
            next = past;
        }
        let holds = |bucket: u32| self.end(bucket) != 0;
        if (next..buckets).any(holds) {
            return Err(damaged("a bucket without a part"));
        }
        match self.nulls {
            Nulls::Listed(part, list) => self.list_in(part, 0, list).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// The bucket after the last one of a part.
    fn past(&self, part: usize) -> u32 {
        self.parts.get(part + 1).map_or(self.layout.buckets(), |next| next.first_bucket)
    }

    #[inline]
    fn raw_end(&self, bucket: u32) -> u32 {
        let bytes = self.ends.get(bucket as usize * 4..).and_then(|bytes| bytes.first_chunk::<4>());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    fn end(&self, bucket: u32) -> u32 {
        self.raw_end(bucket) & !OVERFULL
    }

    /// Where a bucket is.
    #[inline]
    pub(crate) fn place(&self, bucket: u32) -> BucketPlace {
        let part = self.parts.partition_point(|part| part.first_bucket <= bucket).saturating_sub(1);
        let first = self.parts.get(part).map_or(0, |part| part.first_bucket);
        let start = if bucket == first { 0 } else { self.end(bucket - 1) };
        match self.raw_end(bucket) {
            end if end & OVERFULL != 0 => BucketPlace::Overfull,
            end if end == start => BucketPlace::Empty,
            end => BucketPlace::At { part: part as u32, range: start.into()..end.into() },
        }
    }

    /// The range of a list that a bucket of this part names.
    ///
    /// # Errors
    /// It is outside of its part.
    pub(crate) fn list(&self, part: u32, list: Listed) -> Result<Range<u64>, Error> {
        let past = self.past(part as usize);
        let first = self.parts.get(part as usize).map_or(past, |part| part.first_bucket);
        let lists = if past > first { self.end(past - 1) } else { 0 };
        self.list_in(part, lists, list)
    }

    fn list_in(&self, part: u32, lists: u32, list: Listed) -> Result<Range<u64>, Error> {
        let start = u64::from(lists) + u64::from(list.offset);
        let end = start + u64::from(list.bytes);
        let bytes = self.parts.get(part as usize).map_or(0, |part| part.bytes.into());
        if end > bytes { Err(damaged("a list outside its part")) } else { Ok(start..end) }
    }

    /// Bytes of memory that it takes.
    pub(crate) fn weight(&self) -> u64 {
        // Its parts are in the head's bytes once more.
        (size_of::<Self>() + size_of_val(&*self.parts) * 2 + self.ends.len() + FIXED_BYTES) as u64
    }
}
