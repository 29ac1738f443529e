//! DELTA_BINARY_PACKED pages of INT32 that the parquet crate refuses, rewritten as PLAIN ones.
//!
//! The format lets deltas wrap around
//! (<https://github.com/apache/parquet-format/blob/master/Encodings.md>, "DELTA_BINARY_PACKED = 5"). DuckDB computes
//! those of 32-bit columns in 64 bits, so that a minimum may not fit 32 bits and packed deltas may take 33; the crate
//! ends with an error there. Values modulo 2^32 are the same either way.

use bytes::Bytes;
use parquet::basic::{Encoding, Type as Physical};
use parquet::column::page::Page;
use parquet::schema::types::ColumnDescriptor;

use crate::varint::uvarint;

/// The widest packed delta of 32-bit values that the parquet crate reads.
const MAX_READ_BITS: u8 = 32;
/// Values of a block and miniblocks in it at most; writers have 128 or 256, and 4.
const MAX_BLOCK: u64 = 1 << 20;
/// Values of a page that is rewritten at most: 64 MiB of them, as much as a page may take at all.
const MAX_VALUES: u64 = 16 << 20;

/// The page, or its PLAIN equal where the parquet crate cannot read it. What is damaged is left as it is.
pub(crate) fn readable(page: Page, descr: &ColumnDescriptor) -> Page {
    if page.encoding() != Encoding::DELTA_BINARY_PACKED || descr.physical_type() != Physical::INT32 {
        return page;
    }
    rewritten(&page, descr).unwrap_or(page)
}

fn rewritten(page: &Page, descr: &ColumnDescriptor) -> Option<Page> {
    let start = values_start(page, descr)?;
    let (levels, packed) = page.buffer().split_at_checked(start)?;
    let mut deltas = Deltas::new(packed)?;
    if !deltas.clone().is_too_wide(page.num_values())? {
        return None;
    }
    let mut plain = levels.to_vec();
    deltas.write_plain(page.num_values(), &mut plain)?;
    let (buf, encoding) = (Bytes::from(plain), Encoding::PLAIN);
    Some(match page.clone() {
        Page::DataPage { num_values, def_level_encoding, rep_level_encoding, statistics, .. } => {
            Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, statistics }
        }
        Page::DataPageV2 {
            num_values,
            num_nulls,
            num_rows,
            def_levels_byte_len,
            rep_levels_byte_len,
            is_compressed,
            statistics,
            ..
        } => Page::DataPageV2 {
            buf,
            num_values,
            encoding,
            num_nulls,
            num_rows,
            def_levels_byte_len,
            rep_levels_byte_len,
            is_compressed,
            statistics,
        },
        Page::DictionaryPage { .. } => return None,
    })
}

/// Where the values start behind the levels.
fn values_start(page: &Page, descr: &ColumnDescriptor) -> Option<usize> {
    match page {
        Page::DataPageV2 { def_levels_byte_len, rep_levels_byte_len, .. } => {
            (*def_levels_byte_len as usize).checked_add(*rep_levels_byte_len as usize)
        }
        Page::DataPage { buf, rep_level_encoding, def_level_encoding, .. } => {
            let mut start = 0_usize;
            let kinds = [(descr.max_rep_level(), rep_level_encoding), (descr.max_def_level(), def_level_encoding)];
            for (_, encoding) in kinds.into_iter().filter(|(max, _)| *max > 0) {
                let length = buf.get(start..)?.first_chunk::<4>().filter(|_| *encoding == Encoding::RLE)?;
                start = start.checked_add(4)?.checked_add(u32::from_le_bytes(*length) as usize)?;
            }
            Some(start)
        }
        Page::DictionaryPage { .. } => None,
    }
}

/// A cursor over the blocks.
#[derive(Clone)]
struct Deltas<'a> {
    bytes: &'a [u8],
    miniblocks: usize,
    /// Of one miniblock.
    values: u64,
    total: u64,
    first: i64,
}

impl<'a> Deltas<'a> {
    fn new(mut bytes: &'a [u8]) -> Option<Self> {
        let block = uvarint(&mut bytes)?;
        let miniblocks = uvarint(&mut bytes)?;
        let total = uvarint(&mut bytes)?;
        let first = zigzag(uvarint(&mut bytes)?);
        let fits = (1..=MAX_BLOCK).contains(&block) && (1..=block).contains(&miniblocks) && block % miniblocks == 0;
        let values = block.checked_div(miniblocks).filter(|values| fits && values % 8 == 0)?;
        Some(Self { bytes, miniblocks: usize::try_from(miniblocks).ok()?, values, total, first })
    }

    /// Calls `each` with every miniblock that holds values: its least delta, the bits of one, and its bytes. None where
    /// the bytes end early or stand for more values than the page has.
    fn miniblocks(&mut self, page_values: u32, mut each: impl FnMut(i64, u8, &'a [u8])) -> Option<()> {
        if self.total > page_values.into() {
            return None;
        }
        let mut left = self.total.saturating_sub(1);
        while left > 0 {
            let least = zigzag(uvarint(&mut self.bytes)?);
            let (widths, rest) = self.bytes.split_at_checked(self.miniblocks)?;
            self.bytes = rest;
            for bits in widths {
                if left == 0 {
                    break;
                }
                let length = usize::try_from(u64::from(*bits).checked_mul(self.values / 8)?).ok()?;
                // The last miniblock of some writers is cut after its last value.
                let length = length.min(self.bytes.len());
                let (packed, rest) = self.bytes.split_at(length);
                self.bytes = rest;
                each(least, *bits, packed);
                left = left.saturating_sub(self.values);
            }
        }
        Some(())
    }

    fn is_too_wide(&mut self, page_values: u32) -> Option<bool> {
        let mut wide = i32::try_from(self.first).is_err();
        self.miniblocks(page_values, |least, bits, _| wide |= i32::try_from(least).is_err() || bits > MAX_READ_BITS)?;
        Some(wide)
    }

    fn write_plain(&mut self, page_values: u32, plain: &mut Vec<u8>) -> Option<()> {
        let (total, per_miniblock) = (self.total, self.values);
        if total == 0 || total > MAX_VALUES {
            return (total == 0).then_some(());
        }
        let (mut value, mut left, mut complete) = (self.first, total - 1, true);
        plain.extend_from_slice(&(value as i32).to_le_bytes());
        self.miniblocks(page_values, |least, bits, packed| {
            for i in 0..left.min(per_miniblock) {
                let Some(delta) = unpack(packed, i, bits) else {
                    complete = false;
                    return;
                };
                value = value.wrapping_add(least).wrapping_add(delta as i64);
                plain.extend_from_slice(&(value as i32).to_le_bytes());
            }
            left = left.saturating_sub(per_miniblock);
        })?;
        complete.then_some(())
    }
}

/// The `i`th number of `bits` bits, packed from the least significant bit on.
fn unpack(packed: &[u8], i: u64, bits: u8) -> Option<u64> {
    if bits > 64 {
        return None;
    }
    let start = usize::try_from(i.checked_mul(bits.into())?).ok()?;
    (0..usize::from(bits)).try_fold(0_u64, |number, bit| {
        let at = start + bit;
        Some(number | u64::from(packed.get(at / 8)? >> (at % 8) & 1) << bit)
    })
}

fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use parquet::schema::types::{ColumnPath, Type};

    use super::*;

    fn int32_column() -> ColumnDescriptor {
        let ty = Type::primitive_type_builder("k", Physical::INT32).build().unwrap();
        ColumnDescriptor::new(Arc::new(ty), 0, 0, ColumnPath::from("k"))
    }

    /// One block of 128 values in 4 miniblocks; the deltas of the first one are packed in `bits` bits.
    fn packed(first: i64, least: i64, bits: u8, deltas: &[u64]) -> Vec<u8> {
        let zigzag = |value: i64| (value << 1 ^ value >> 63) as u64;
        let mut bytes = Vec::new();
        let mut write = |mut value: u64| {
            while value >= 0x80 {
                bytes.push(value as u8 | 0x80);
                value >>= 7;
            }
            bytes.push(value as u8);
        };
        for number in [128, 4, deltas.len() as u64 + 1, zigzag(first), zigzag(least)] {
            write(number);
        }
        bytes.extend([bits, 0, 0, 0]);
        let mut body = vec![0_u8; usize::from(bits) * 4];
        for (i, delta) in deltas.iter().enumerate() {
            for bit in (0..usize::from(bits)).filter(|bit| delta >> bit & 1 == 1) {
                let at = i * usize::from(bits) + bit;
                body[at / 8] |= 1 << (at % 8);
            }
        }
        bytes.extend(body);
        bytes
    }

    fn page(buf: Vec<u8>, num_values: u32) -> Page {
        Page::DataPage {
            buf: buf.into(),
            num_values,
            encoding: Encoding::DELTA_BINARY_PACKED,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        }
    }

    #[test]
    fn deltas_of_64_bits_become_the_values_they_stand_for() {
        // 0, then up by 4e9 (33 bits from a least of -5e9), which wraps to -294967296, then down by 4e9 to 0.
        let least = -5_000_000_000_i64;
        let values = packed(0, least, 34, &[9_000_000_000, 1_000_000_000]);
        let rewritten = readable(page(values, 3), &int32_column());
        assert_eq!(rewritten.encoding(), Encoding::PLAIN);
        let plain: Vec<i32> =
            rewritten.buffer().chunks(4).map(|bytes| i32::from_le_bytes(bytes.try_into().unwrap())).collect();
        assert_eq!(plain, [0, 4_000_000_000_u32 as i32, 0]);
    }

    #[test]
    fn a_first_value_beyond_31_bits_is_read() {
        let rewritten = readable(page(packed(4_000_000_000, -1, 1, &[1, 0]), 3), &int32_column());
        let plain = [4_000_000_000_u32, 4_000_000_000, 3_999_999_999].map(u32::to_le_bytes).concat();
        assert_eq!((rewritten.encoding(), &rewritten.buffer()[..]), (Encoding::PLAIN, &plain[..]));
    }

    #[test]
    fn what_the_crate_reads_and_what_is_damaged_stays_as_it_is() {
        let narrow = packed(7, -3, 8, &[1, 2, 3]);
        assert_eq!(readable(page(narrow, 4), &int32_column()).encoding(), Encoding::DELTA_BINARY_PACKED);
        let wide = packed(0, -5_000_000_000, 34, &[9_000_000_000, 1_000_000_000]);
        for end in 0..wide.len() {
            let cut = readable(page(wide[..end].to_vec(), 3), &int32_column());
            assert!(cut.encoding() == Encoding::DELTA_BINARY_PACKED || end + 128 > wide.len(), "cut after {end}");
        }
        // It claims more values than the page has.
        let wide = packed(0, -5_000_000_000, 34, &[1, 2, 3]);
        assert_eq!(readable(page(wide, 2), &int32_column()).encoding(), Encoding::DELTA_BINARY_PACKED);
    }
}
