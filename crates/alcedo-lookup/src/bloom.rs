//! Split block bloom filters: whether a key may be in a column chunk, from 32 bytes of the filter.
//!
//! Everything here is arithmetic on bytes that were fed. Filters are advisory: one that is not understood, or a key
//! whose stored form is not certain, gives none, and then the chunk is searched. Source:
//! <https://github.com/apache/parquet-format/blob/master/BloomFilter.md>.

use std::ops::Range;

use parquet::basic::Type as Physical;
use parquet::schema::types::ColumnDescriptor;
use xxhash_rust::xxh64::xxh64;

use crate::limits::Limits;
use crate::probe::Point;
use crate::schema::Type;
use crate::thrift::{I32, Reader, STRUCT};

/// Bytes of a block: eight words of 32 bits, in each of which a key sets one bit.
const BLOCK_BYTES: u64 = 32;
/// Bytes of a filter's bitset at most, as the format says.
const MAX_BITSET_BYTES: u64 = 128 << 20;
/// Bytes within which a filter's header must end. It takes about 16.
pub(crate) const MAX_HEADER_BYTES: u64 = 256;

/// Which bit of each word a key sets, as the format fixes it.
const SALT: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// Where a column chunk's filter is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BloomPlace {
    /// Header and bitset.
    pub(crate) range: Range<u64>,
    /// The file says how long it is; if not, the range goes to the end of what it may be in.
    pub(crate) exact: bool,
}

impl BloomPlace {
    /// The range to read for the header.
    pub(crate) fn header_range(&self) -> Range<u64> {
        self.range.start..self.range.end.min(self.range.start.saturating_add(MAX_HEADER_BYTES))
    }
}

/// A filter whose header was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Where the bitset is in the file.
    pub(crate) bitset: Range<u64>,
}

impl Filter {
    /// Reads the header at the start of `bytes`, which are those of [`BloomPlace::header_range`]; none for a filter of a
    /// kind that is not known, or that is not where it should be.
    pub(crate) fn read(bytes: &[u8], place: &BloomPlace, limits: &Limits) -> Option<Self> {
        let mut reader = Reader::new(bytes, "bloom filter", limits);
        let (mut bitset_bytes, mut known) = (0, [false; 3]);
        let read = reader.fields(|reader, id, ty| {
            match (id, ty) {
                (1, I32) => bitset_bytes = reader.u32()?.into(),
                // Unions whose first members are the block algorithm, xxHash, and no compression.
                (2..=4, STRUCT) => reader.fields(|_, member, _| {
                    known[id as usize - 2] = member == 1;
                    Ok(false)
                })?,
                _ => return Ok(false),
            }
            Ok(true)
        });
        read.ok()?;
        let start = place.range.start + reader.position() as u64;
        let whole = (BLOCK_BYTES..=MAX_BITSET_BYTES).contains(&bitset_bytes) && bitset_bytes % BLOCK_BYTES == 0;
        let bitset = start..start + bitset_bytes;
        (whole && known == [true; 3] && bitset.end <= place.range.end).then_some(Self { bitset })
    }

    /// The range of the file that holds the block of a hash.
    pub(crate) fn block(&self, hash: u64) -> Range<u64> {
        let blocks = (self.bitset.end - self.bitset.start) / BLOCK_BYTES;
        let start = self.bitset.start + (((hash >> 32) * blocks) >> 32) * BLOCK_BYTES;
        start..start + BLOCK_BYTES
    }
}

/// Whether a value of this hash may be among those that set bits in its block.
pub(crate) fn may_contain(block: &[u8], hash: u64) -> bool {
    let (words, _) = block.as_chunks::<4>();
    // A block that is not there says nothing.
    words.iter().zip(SALT).all(|(word, salt)| {
        let bit = (hash as u32).wrapping_mul(salt) >> 27;
        u32::from_le_bytes(*word) >> bit & 1 == 1
    })
}

/// The hashes of all stored forms of a key; none where the form that a writer hashed is not certain. A key is in the
/// chunk only if the filter may contain one of them.
pub(crate) fn hashes(column: &ColumnDescriptor, ty: &Type, point: &Point) -> Option<Vec<u64>> {
    let hash = |bytes: &[u8]| xxh64(bytes, 0);
    let one = |bytes: &[u8]| Some(vec![hash(bytes)]);
    match (column.physical_type(), point) {
        (Physical::INT32, Point::Int(value)) => one(&low_bytes::<4>(*value)?),
        (Physical::INT64, Point::Int(value)) => one(&low_bytes::<8>(*value)?),
        // A point is never -0.0, and a writer hashes the zero that it was given.
        (Physical::FLOAT, Point::Float(value)) => {
            let forms = both_zeros(*value).map(|value| hash(&(value as f32).to_le_bytes()));
            Some(forms.collect())
        }
        (Physical::DOUBLE, Point::Float(value)) => {
            Some(both_zeros(*value).map(|value| hash(&value.to_le_bytes())).collect())
        }
        (Physical::FIXED_LEN_BYTE_ARRAY, Point::Float(value)) if *ty == Type::Float16 => {
            let forms = both_zeros(*value).map(|value| hash(&half::f16::from_f64(value).to_le_bytes()));
            Some(forms.collect())
        }
        (Physical::FIXED_LEN_BYTE_ARRAY, point) if matches!(ty, Type::Decimal { .. }) => {
            one(&fixed_decimal(point, column.type_length())?)
        }
        // A decimal has many forms in bytes of any length.
        (Physical::BYTE_ARRAY, _) if matches!(ty, Type::Decimal { .. }) => None,
        (Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY, Point::Bytes(bytes)) => one(bytes),
        _ => None,
    }
}

fn both_zeros(value: f64) -> impl Iterator<Item = f64> {
    std::iter::once(value).chain((value == 0.0).then_some(-value))
}

/// An integer's bits in N bytes, little-endian, be it signed or unsigned; none where it does not fit.
fn low_bytes<const N: usize>(value: i128) -> Option<[u8; N]> {
    let bits = N as u32 * 8;
    let fits = value >> (bits - 1) == -1 || value >> bits == 0;
    let (low, _) = value.to_le_bytes().split_first_chunk::<N>().map(|(low, rest)| (*low, rest.len()))?;
    fits.then_some(low)
}

/// A decimal's unscaled value as big-endian two's complement of a column's length.
fn fixed_decimal(point: &Point, length: i32) -> Option<Vec<u8>> {
    let wide: Vec<u8> = match point {
        Point::Int(value) => value.to_be_bytes().to_vec(),
        // Points of wide decimals have their sign bit flipped, see `Point::decimal_bytes`.
        Point::Bytes(bytes) => {
            let (first, rest) = bytes.split_first()?;
            std::iter::once(first ^ 0x80).chain(rest.iter().copied()).collect()
        }
        Point::Float(_) => return None,
    };
    let length = usize::try_from(length).ok()?;
    let sign = if wide.first()? & 0x80 == 0 { 0 } else { u8::MAX };
    let (extra, kept) = wide.split_at(wide.len().saturating_sub(length));
    let mut bytes = vec![sign; length - kept.len()];
    bytes.extend_from_slice(kept);
    let fits = extra.iter().all(|byte| *byte == sign) && (bytes.first()? ^ sign) & 0x80 == 0;
    fits.then_some(bytes)
}
