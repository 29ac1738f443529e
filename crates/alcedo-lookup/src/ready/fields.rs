//! Where the values of a compact row end: walking its fields without decoding them.
//!
//! The layout is that of [`crate::rows`]; what is here knows only lengths, so that a row can be cut into its fields and
//! put together in another order at the cost of a few additions. Bytes are hostile: nothing is read beyond them, and a
//! count is never believed further than the bytes that are there.

use crate::rows::{DECIMAL128_PRECISION, is_null};
use crate::schema::{Type, Unit};

/// How far a value of one type reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Extent {
    /// So many bytes.
    Fixed(usize),
    /// A length in bytes, and the bytes.
    Counted,
    List(Box<Extent>),
    Struct(Box<[Extent]>),
    Map(Box<(Extent, Extent)>),
    /// Never there: its null bit is always set.
    Nothing,
}

impl Extent {
    pub(crate) fn of(ty: &Type) -> Self {
        match ty {
            Type::Bool | Type::Int8 | Type::UInt8 => Self::Fixed(1),
            Type::Int16 | Type::UInt16 | Type::Float16 => Self::Fixed(2),
            Type::Int32 | Type::UInt32 | Type::Float32 | Type::Date32 => Self::Fixed(4),
            Type::Time(Unit::Second | Unit::Millisecond) => Self::Fixed(4),
            Type::Int64 | Type::UInt64 | Type::Float64 => Self::Fixed(8),
            Type::Time(_) | Type::Timestamp { .. } | Type::Duration(_) => Self::Fixed(8),
            Type::Decimal { precision, .. } => Self::Fixed(if *precision <= DECIMAL128_PRECISION { 16 } else { 32 }),
            Type::Uuid => Self::Fixed(16),
            Type::Interval => Self::Fixed(12),
            Type::Fixed(length) => Self::Fixed(*length as usize),
            Type::String | Type::Binary => Self::Counted,
            Type::Null => Self::Nothing,
            Type::List(item) => Self::List(Box::new(Self::of(item))),
            Type::Struct(fields) => Self::Struct(fields.iter().map(|(_, field)| Self::of(field)).collect()),
            Type::Map(key, value) => Self::Map(Box::new((Self::of(key), Self::of(value)))),
        }
    }

    /// Where a value that starts at `at` ends; none where that is beyond the bytes.
    #[inline]
    pub(crate) fn end(&self, bytes: &[u8], at: usize) -> Option<usize> {
        match self {
            Self::Fixed(length) => within(bytes, at.checked_add(*length)?),
            Self::Counted => {
                let (length, at) = uvarint(bytes, at)?;
                within(bytes, at.checked_add(length)?)
            }
            Self::List(item) => {
                let (count, at) = uvarint(bytes, at)?;
                item.items_end(bytes, at, count)
            }
            Self::Struct(fields) => {
                let nulls = bytes.get(at..at.checked_add(fields.len().div_ceil(8))?)?;
                let mut at = at + nulls.len();
                for (_, field) in fields.iter().enumerate().filter(|(i, _)| !is_null(nulls, *i)) {
                    at = field.end(bytes, at)?;
                }
                Some(at)
            }
            Self::Map(entry) => {
                let (count, at) = uvarint(bytes, at)?;
                let at = entry.0.items_end(bytes, at, count)?;
                entry.1.items_end(bytes, at, count)
            }
            Self::Nothing => None,
        }
    }

    /// Where `count` elements end of which the null bits start at `at`.
    fn items_end(&self, bytes: &[u8], at: usize, count: usize) -> Option<usize> {
        // The bitmap bounds the count by the bytes that are really there.
        let nulls = bytes.get(at..at.checked_add(count.div_ceil(8))?)?;
        let mut at = at + nulls.len();
        if let Self::Fixed(length) = self {
            let null = nulls.iter().map(|eight| eight.count_ones() as usize).sum::<usize>();
            return within(bytes, at.checked_add(count.checked_sub(null)?.checked_mul(*length)?)?);
        }
        for _ in (0..count).filter(|i| !is_null(nulls, *i)) {
            at = self.end(bytes, at)?;
        }
        Some(at)
    }
}

#[inline]
fn within(bytes: &[u8], end: usize) -> Option<usize> {
    (end <= bytes.len()).then_some(end)
}

/// The LEB128 number at `at`, and where it ends.
#[inline]
pub(crate) fn uvarint(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let first = *bytes.get(at)?;
    if first < 0x80 {
        return Some((first.into(), at + 1));
    }
    let mut value = u64::from(first & 0x7f);
    for (i, byte) in bytes.get(at + 1..)?.iter().take(9).enumerate() {
        let shift = 7 * (i as u32 + 1);
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, at + i + 2));
        }
    }
    None
}

/// Bytes that a number takes as LEB128.
pub(crate) fn uvarint_bytes(value: u64) -> usize {
    (64 - value.leading_zeros()).div_ceil(7).max(1) as usize
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::rows::write_uvarint;

    fn extent(ty: &str) -> Extent {
        Extent::of(&ty.parse().unwrap())
    }

    #[test]
    fn values_end_where_the_golden_rows_of_every_type_end() {
        let golden = include_str!("../../tests/golden/compact_rows_v1.tsv");
        let mut values = 0;
        for line in golden.lines() {
            let [ty, hex, _] = line.split('\t').collect::<Vec<_>>()[..] else { continue };
            let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            let mut row: Vec<u8> = (0..hex.len()).step_by(2).map(digits).collect();
            let (length, at) = uvarint(&row, 0).unwrap();
            let end = at + length;
            assert_eq!(end, row.len());
            if row[at] & 1 == 1 {
                continue;
            }
            values += 1;
            row.extend([0xee; 3]);
            assert_eq!(extent(ty).end(&row, at + 1), Some(end), "{ty}");
            for cut in at + 1..end {
                assert_eq!(extent(ty).end(&row[..cut], at + 1), None, "{ty} cut at {cut}");
            }
        }
        assert!(values >= 27, "{values} values");
    }

    #[test]
    fn nested_values_end_where_their_last_part_does() {
        // [[1, null], null, []] as list<list<int16>>.
        let lists = [3, 0b010, 2, 0b10, 1, 0, 0];
        assert_eq!(extent("list<list<int16>>").end(&lists, 0), Some(lists.len()));
        // {k: {"ab", null}, l: null} as a map of structs.
        let map = [2, 0, 1, b'k', 1, b'l', 0b10, 0b10, 2, b'a', b'b'];
        assert_eq!(extent("map<string,struct<x:string,y:int64>>").end(&map, 0), Some(map.len()));
    }

    #[test]
    fn counts_beyond_the_bytes_are_no_ends() {
        let mut huge = Vec::new();
        write_uvarint(&mut huge, u64::MAX);
        huge.extend([0; 16]);
        for ty in ["string", "list<int64>", "list<string>", "map<int8,int8>", "list<fixed[0]>", "null"] {
            assert_eq!(extent(ty).end(&huge, 0), None, "{ty}");
        }
        assert_eq!(uvarint(&[0x80; 12], 0), None);
        assert_eq!(uvarint(&[0xff; 1], 0), None);
    }

    #[test]
    fn lengths_of_numbers_are_those_that_are_written() {
        for value in [0, 1, 127, 128, 16_383, 16_384, 1 << 35, u64::MAX] {
            let mut written = vec![7];
            write_uvarint(&mut written, value);
            assert_eq!(uvarint_bytes(value), written.len() - 1);
            assert_eq!(uvarint(&written, 1), Some((value as usize, written.len())));
        }
    }
}
