//! Checks of an inflated page before the parquet crate sees it.
//!
//! The crate trusts counts and lengths inside pages: a dictionary that claims 2^32 values reserves them, a skipped
//! length beyond the page's end makes the next read reserve 2^54 bytes, a delta header reserves what it says. An
//! allocation that fails ends the process and no [`guard`](crate::guard) holds it back, so these are looked at here.
//! What the crate reads wrongly is brought to a form that it reads rightly: bit-packed levels, and dictionary-encoded
//! pages without a single value.

use bytes::Bytes;
use parquet::basic::{Encoding, Type as Physical};
use parquet::column::page::Page;
use parquet::schema::types::ColumnDescriptor;

use crate::delta;
use crate::error::Error;
use crate::varint::uvarint;

/// Checks a page of this column and brings it to a form that the parquet crate reads. Where values may take more bytes
/// than their page, what they take is given too, else 0; it is `inflate_bytes` at most.
///
/// # Errors
/// Counts or lengths that the page's bytes cannot hold; values that decode to more than a bound.
pub(crate) fn checked(page: Page, column: &ColumnDescriptor, inflate_bytes: usize) -> Result<(Page, usize), Error> {
    let (page, decoded) = match page {
        Page::DictionaryPage { ref buf, num_values, encoding, .. } => {
            check_dictionary(buf, num_values as usize, encoding, column)?;
            (page, 0)
        }
        Page::DataPage { .. } => checked_v1(page, column, inflate_bytes)?,
        Page::DataPageV2 { .. } => checked_v2(page, column, inflate_bytes)?,
    };
    Ok((delta::readable(page, column), decoded))
}

fn check_dictionary(buf: &[u8], values: usize, encoding: Encoding, column: &ColumnDescriptor) -> Result<(), Error> {
    // Version 1 of the format calls a dictionary's encoding PLAIN_DICTIONARY, and some writers RLE_DICTIONARY.
    if !matches!(encoding, Encoding::PLAIN | Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY) {
        return Err(Error::corrupt(format!("a dictionary in encoding {encoding}")));
    }
    let least = match column.physical_type() {
        Physical::BYTE_ARRAY => 4,
        _ => plain_width(column).ok_or_else(|| Error::corrupt("a dictionary of a type that has none"))?,
    };
    if values.checked_mul(least).is_none_or(|bytes| bytes > buf.len()) {
        return Err(Error::corrupt(format!("a dictionary of {values} values in {} bytes", buf.len())));
    }
    if column.physical_type() == Physical::BYTE_ARRAY { check_plain_lengths(buf, values) } else { Ok(()) }
}

/// Bytes of one value in plain encoding, where all values take the same.
pub(crate) fn plain_width(column: &ColumnDescriptor) -> Option<usize> {
    match column.physical_type() {
        Physical::BOOLEAN | Physical::BYTE_ARRAY => None,
        Physical::INT32 | Physical::FLOAT => Some(4),
        Physical::INT64 | Physical::DOUBLE => Some(8),
        Physical::INT96 => Some(12),
        Physical::FIXED_LEN_BYTE_ARRAY => usize::try_from(column.type_length()).ok(),
    }
}

fn checked_v1(page: Page, column: &ColumnDescriptor, inflate_bytes: usize) -> Result<(Page, usize), Error> {
    let Page::DataPage { buf, num_values, mut encoding, def_level_encoding, rep_level_encoding, .. } = page else {
        return Ok((page, 0));
    };
    let values = num_values as usize;
    let (rep, rest) = v1_levels(&buf, column.max_rep_level(), rep_level_encoding, values)?;
    let (def, data) = v1_levels(rest, column.max_def_level(), def_level_encoding, values)?;
    let decoded = check_values(data, values, encoding, column, inflate_bytes)?;
    if data.is_empty() {
        // Without a value there is no width of dictionary indices, which the crate would read.
        encoding = Encoding::PLAIN;
    }
    let buf = if matches!((&rep, &def), (Levels::Packed(_), _) | (_, Levels::Packed(_))) {
        let mut rewritten = Vec::with_capacity(buf.len() + 16);
        rep.write(&mut rewritten);
        def.write(&mut rewritten);
        rewritten.extend_from_slice(data);
        rewritten.into()
    } else {
        buf
    };
    let (def_level_encoding, rep_level_encoding) = (Encoding::RLE, Encoding::RLE);
    let page = Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, statistics: None };
    Ok((page, decoded))
}

fn checked_v2(page: Page, column: &ColumnDescriptor, inflate_bytes: usize) -> Result<(Page, usize), Error> {
    let Page::DataPageV2 { buf, num_values, encoding, num_nulls, def_levels_byte_len, rep_levels_byte_len, .. } = &page
    else {
        return Ok((page, 0));
    };
    let values = num_values.checked_sub(*num_nulls).ok_or_else(|| Error::corrupt("more nulls than values"))?;
    let levels = (*def_levels_byte_len as usize).checked_add(*rep_levels_byte_len as usize);
    let data = levels.and_then(|levels| buf.get(levels..));
    let (rep, def) = buf.split_at_checked(*rep_levels_byte_len as usize).unwrap_or_default();
    check_levels(rep, column.max_rep_level(), *num_values as usize)?;
    check_levels(def, column.max_def_level(), *num_values as usize)?;
    let data = data.ok_or_else(|| Error::corrupt("levels that are longer than their page"))?;
    let decoded = check_values(data, values as usize, *encoding, column, inflate_bytes)?;
    let no_values = data.is_empty();
    let mut page = page;
    if let Page::DataPageV2 { encoding, .. } = &mut page
        && no_values
    {
        *encoding = Encoding::PLAIN;
    }
    Ok((page, decoded))
}

/// The levels of a v1 data page.
enum Levels<'a> {
    /// The column has none of this kind.
    None,
    /// With their length in front, as the parquet crate reads them.
    Rle(&'a [u8]),
    /// In the deprecated encoding, brought to the other.
    Packed(Vec<u8>),
}

impl Levels<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::None => {}
            Self::Rle(bytes) => out.extend_from_slice(bytes),
            Self::Packed(bytes) => {
                out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                out.extend_from_slice(bytes);
            }
        }
    }
}

/// The levels at the start of `buf`, and what follows them.
fn v1_levels(buf: &[u8], max_level: i16, encoding: Encoding, values: usize) -> Result<(Levels<'_>, &[u8]), Error> {
    let short = || Error::corrupt("levels that are longer than their page");
    if max_level == 0 {
        return Ok((Levels::None, buf));
    }
    #[allow(deprecated)] // Old files have it.
    let packed = encoding == Encoding::BIT_PACKED;
    if packed {
        let bits = level_bits(max_level);
        let bytes = (values * bits).div_ceil(8);
        let packed = buf.get(..bytes).ok_or_else(short)?;
        return Ok((Levels::Packed(repack_levels(packed, bits, values)), &buf[bytes..]));
    }
    if encoding != Encoding::RLE {
        return Err(Error::corrupt(format!("levels in encoding {encoding}")));
    }
    let length = buf.first_chunk::<4>().ok_or_else(short)?;
    let end = (u32::from_le_bytes(*length) as usize).checked_add(4).filter(|end| *end <= buf.len());
    let (levels, rest) = buf.split_at(end.ok_or_else(short)?);
    check_levels(&levels[4..], max_level, values)?;
    Ok((Levels::Rle(levels), rest))
}

/// The runs hold a level for every value. The parquet crate goes round for ever where repetition levels end early.
fn check_levels(mut levels: &[u8], max_level: i16, values: usize) -> Result<(), Error> {
    let width = if max_level == 0 { return Ok(()) } else { level_bits(max_level) };
    let mut held = 0_usize;
    while held < values {
        let short = || Error::corrupt(format!("{held} levels for {values} values"));
        let header = usize::try_from(uvarint(&mut levels).ok_or_else(short)?).map_err(|_| short())?;
        let run = header >> 1;
        let (bytes, count) = if header & 1 == 0 {
            (width.div_ceil(8), run)
        } else {
            // Some writers cut the last run after its last value.
            let bytes = run.saturating_mul(width).min(levels.len());
            (bytes, bytes * 8 / width)
        };
        levels = levels.get(bytes..).ok_or_else(short)?;
        held = held.checked_add(count).filter(|_| count > 0).ok_or_else(short)?;
    }
    Ok(())
}

/// Bits that hold a level.
pub(crate) fn level_bits(max_level: i16) -> usize {
    (16 - (max_level as u16).leading_zeros()) as usize
}

/// Levels packed from the most significant bit on, as one bit-packed run of the RLE hybrid, which packs from the least
/// significant bit (<https://github.com/apache/parquet-format/blob/master/Encodings.md>, "BIT_PACKED = 4").
fn repack_levels(packed: &[u8], bits: usize, values: usize) -> Vec<u8> {
    let groups = values.div_ceil(8);
    let mut run = Vec::with_capacity(groups * bits + 5);
    crate::rows::write_uvarint(&mut run, (groups as u64) << 1 | 1);
    let start = run.len();
    run.resize(start + groups * bits, 0);
    for value in 0..values {
        for bit in 0..bits {
            let from = value * bits + bit;
            // The first bit of a packed level is its highest.
            let to = value * bits + (bits - 1 - bit);
            run[start + to / 8] |= (packed[from / 8] >> (7 - from % 8) & 1) << (to % 8);
        }
    }
    run
}

/// `values` is how many there may be at most. Gives the bytes of values that may be longer than their page.
fn check_values(
    data: &[u8],
    values: usize,
    encoding: Encoding,
    column: &ColumnDescriptor,
    inflate_bytes: usize,
) -> Result<usize, Error> {
    if data.is_empty() {
        return Ok(0);
    }
    match (encoding, column.physical_type()) {
        (Encoding::PLAIN, Physical::BYTE_ARRAY) => check_plain_lengths(data, values).map(|()| 0),
        (Encoding::DELTA_BINARY_PACKED | Encoding::DELTA_LENGTH_BYTE_ARRAY, _) => {
            DeltaHeader::read(data, values).map(|_| 0)
        }
        (Encoding::DELTA_BYTE_ARRAY, _) => check_delta_strings(data, values, inflate_bytes),
        (Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY, _) if data[0] > 32 => {
            Err(Error::corrupt(format!("dictionary indices of {} bits", data[0])))
        }
        _ => Ok(0),
    }
}

/// Every length in front of a plain byte array leads to the next one or to the end.
fn check_plain_lengths(mut data: &[u8], values: usize) -> Result<(), Error> {
    for _ in 0..values {
        if data.is_empty() {
            break;
        }
        let end = data.first_chunk::<4>().and_then(|length| (u32::from_le_bytes(*length) as usize).checked_add(4));
        let rest = end.and_then(|end| data.get(end..));
        data = rest.ok_or_else(|| Error::corrupt("a value is longer than its page"))?;
    }
    Ok(())
}

/// Values that share prefixes may be much longer than their page: all of them together are bounded.
fn check_delta_strings(data: &[u8], values: usize, inflate_bytes: usize) -> Result<usize, Error> {
    let (prefixes, end) = delta_lengths(data, values)?;
    let (suffixes, _) = delta_lengths(&data[end..], values)?;
    if prefixes.len() != suffixes.len() {
        return Err(Error::corrupt("values whose prefixes and suffixes differ in number"));
    }
    let (mut previous, mut total) = (0_u64, 0_u64);
    for (prefix, suffix) in prefixes.into_iter().zip(suffixes) {
        let (Ok(prefix), Ok(suffix)) = (u64::try_from(prefix), u64::try_from(suffix)) else {
            return Err(Error::corrupt("a value of negative length"));
        };
        if prefix > previous {
            return Err(Error::corrupt("a value shares more with the one before it than that has"));
        }
        previous = prefix + suffix;
        total += previous;
    }
    let bound = inflate_bytes as u64;
    if total > bound {
        return Err(Error::Limit(format!("values of {total} bytes, at most {bound} are read from one page")));
    }
    Ok(total as usize)
}

/// What a DELTA_BINARY_PACKED run starts with
/// (<https://github.com/apache/parquet-format/blob/master/Encodings.md>, "DELTA_BINARY_PACKED = 5").
struct DeltaHeader {
    mini_blocks: usize,
    mini_block_values: usize,
    total: usize,
    first: i64,
    /// Bytes of the header.
    bytes: usize,
}

impl DeltaHeader {
    fn read(data: &[u8], max_values: usize) -> Result<Self, Error> {
        let short = || Error::corrupt("delta-encoded values end early");
        let mut rest = data;
        let mut next = || uvarint(&mut rest).ok_or_else(short);
        let (block, mini_blocks, total, first) = (next()?, next()?, next()?, next()?);
        if mini_blocks == 0 || block == 0 || block % mini_blocks != 0 || (block / mini_blocks) % 32 != 0 {
            return Err(Error::corrupt(format!("delta blocks of {block} values in {mini_blocks} parts")));
        }
        if total > max_values as u64 {
            return Err(Error::corrupt(format!("{total} delta-encoded values in a page of {max_values}")));
        }
        // A block has a byte per part, so more parts than bytes are none that a page could hold.
        let (Ok(mini_blocks), Ok(mini_block_values)) =
            (usize::try_from(mini_blocks), usize::try_from(block / mini_blocks))
        else {
            return Err(short());
        };
        let bytes = data.len() - rest.len();
        Ok(Self { mini_blocks, mini_block_values, total: total as usize, first: unzigzag(first), bytes })
    }
}

/// Lengths in DELTA_BINARY_PACKED encoding, and where they end.
fn delta_lengths(data: &[u8], max_values: usize) -> Result<(Vec<i32>, usize), Error> {
    let short = || Error::corrupt("delta-encoded lengths end early");
    let header = DeltaHeader::read(data, max_values)?;
    let mut rest = &data[header.bytes..];
    let mut lengths = Vec::with_capacity(header.total);
    let mut last = header.first as i32;
    if header.total > 0 {
        lengths.push(last);
    }
    while lengths.len() < header.total {
        let min_delta = unzigzag(uvarint(&mut rest).ok_or_else(short)?) as i32;
        let widths = rest.get(..header.mini_blocks).ok_or_else(short)?;
        rest = &rest[header.mini_blocks..];
        for width in widths {
            // Parts after the last value take no bytes, whatever width they have.
            let count = (header.total - lengths.len()).min(header.mini_block_values);
            if count == 0 {
                break;
            }
            let width = usize::from(*width);
            if width > 32 {
                return Err(Error::corrupt(format!("delta-encoded lengths of {width} bits")));
            }
            let bytes = header.mini_block_values.checked_mul(width).map(|bits| bits / 8);
            let part = bytes.and_then(|bytes| rest.get(..bytes)).ok_or_else(short)?;
            rest = &rest[part.len()..];
            let (mut bits, mut held, mut at) = (0_u64, 0, 0);
            for _ in 0..count {
                while held < width {
                    bits |= u64::from(part[at]) << held;
                    (held, at) = (held + 8, at + 1);
                }
                let delta = (bits & ((1 << width) - 1)) as i32;
                (bits, held) = (bits >> width, held - width);
                last = last.wrapping_add(min_delta).wrapping_add(delta);
                lengths.push(last);
            }
        }
    }
    Ok((lengths, data.len() - rest.len()))
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Lengths of the values of a byte array dictionary, which [`checked`] has seen.
pub(crate) fn dictionary_lengths(buf: &Bytes, values: usize) -> Vec<i32> {
    let mut data: &[u8] = buf;
    let mut lengths = Vec::with_capacity(values.min(data.len() / 4));
    while let Some((length, rest)) = data.split_first_chunk::<4>().filter(|_| lengths.len() < values) {
        let length = u32::from_le_bytes(*length) as usize;
        lengths.push(i32::try_from(length).unwrap_or(i32::MAX));
        data = rest.get(length..).unwrap_or_default();
    }
    lengths
}
