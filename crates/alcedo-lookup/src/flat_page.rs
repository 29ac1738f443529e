//! Values of single rows of a flat column, picked out of one data page without decoding what lies around them.
//!
//! The parquet crate's readers decode a page from its start and reserve as they go; one row of a page needs neither.
//! What is not understood here (other encodings, lists, damage) is answered with none, and the parquet crate's readers
//! have their say. Bytes are hostile: every place is looked up, never assumed.

use std::cell::RefCell;

use bytes::Bytes;

use crate::codec::Codec;
use crate::data_page::verified_body;
use crate::error::Error;
use crate::page_header::{PageHeader, PageKind};
use crate::varint::uvarint32;

/// Parquet's `Encoding`s that are understood.
const PLAIN: i32 = 0;
const PLAIN_DICTIONARY: i32 = 2;
const RLE: i32 = 3;
const RLE_DICTIONARY: i32 = 8;

/// Buffers that a thread keeps to inflate into: of a data page and of its dictionary page.
const KEPT_BUFFERS: usize = 2;
/// Larger buffers are given back: a usual page has 1 MiB.
const MAX_KEPT_BYTES: usize = 2 << 20;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Runs something with a buffer of at least so many bytes, whose contents are anything.
fn with_buffer<T>(bytes: usize, run: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
    if buffer.len() < bytes {
        buffer.resize(bytes, 0);
    }
    let result = run(&mut buffer[..bytes]);
    if buffer.len() <= MAX_KEPT_BYTES {
        BUFFERS.with_borrow_mut(|buffers| {
            if buffers.len() < KEPT_BUFFERS {
                buffers.push(buffer);
            }
        });
    }
    result
}

/// An inflated data page of a column outside of lists and structs.
pub(crate) struct FlatPage<'a> {
    /// Whether each row has a value; none where all have.
    levels: Option<&'a [u8]>,
    values: &'a [u8],
    encoding: i32,
    /// Rows by the page's header.
    pub(crate) rows: usize,
}

/// Inflates a data page into a buffer of the thread's and runs something over it; none where its kind is not
/// understood.
///
/// # Errors
/// The page is damaged.
pub(crate) fn with_flat_page<T>(
    (bytes, header, codec): (&Bytes, &PageHeader, Codec),
    max_def: i16,
    run: impl FnOnce(&FlatPage<'_>) -> T,
) -> Result<Option<T>, Error> {
    let is_known = matches!(header.encoding, PLAIN | PLAIN_DICTIONARY | RLE_DICTIONARY) && max_def <= 1;
    if !is_known {
        return Ok(None);
    }
    let (rows, encoding) = (header.values as usize, header.encoding);
    match header.kind {
        PageKind::DataV1 { def_encoding, .. } if max_def == 0 || def_encoding == RLE => {
            with_inflated((bytes, header, codec), |body| {
                if max_def == 0 {
                    return Some(run(&FlatPage { levels: None, values: body, encoding, rows }));
                }
                let (length, rest) = body.split_first_chunk::<4>()?;
                let (levels, values) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
                Some(run(&FlatPage { levels: Some(levels), values, encoding, rows }))
            })
        }
        PageKind::DataV2 { def_bytes, rep_bytes: 0, compressed, rows: starting, .. } if starting as usize == rows => {
            let body = verified_body(bytes, header)?;
            let split =
                (body.split_at_checked(def_bytes as usize), header.inflated_bytes.checked_sub(def_bytes as usize));
            let (Some((levels, stored)), Some(length)) = split else { return Ok(None) };
            let levels = (max_def > 0).then_some(levels);
            if !compressed || codec == Codec::Uncompressed {
                let page = FlatPage { levels, values: stored, encoding, rows };
                return Ok((stored.len() == length).then(|| run(&page)));
            }
            with_buffer(length, |buffer| {
                if length > 0 {
                    codec.decompress_into(stored, buffer)?;
                }
                Ok(Some(run(&FlatPage { levels, values: buffer, encoding, rows })))
            })
        }
        _ => Ok(None),
    }
}

/// Inflates a page whose body is compressed as a whole and runs something over it.
fn with_inflated<T>(
    (bytes, header, codec): (&Bytes, &PageHeader, Codec),
    run: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<Option<T>, Error> {
    let body = verified_body(bytes, header)?;
    if codec == Codec::Uncompressed {
        return Ok(if body.len() == header.inflated_bytes { run(&body) } else { None });
    }
    with_buffer(header.inflated_bytes, |buffer| {
        codec.decompress_into(&body, buffer)?;
        Ok(run(buffer))
    })
}

/// Inflates a dictionary page and runs something over its values; none where it is no dictionary that is understood.
///
/// # Errors
/// The page is damaged.
pub(crate) fn with_dictionary<T>(
    page: (&Bytes, &PageHeader, Codec),
    run: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<Option<T>, Error> {
    // Some writers call a dictionary's plain encoding by the encoding of the data pages that use it.
    let is_plain = matches!(page.1.encoding, PLAIN | PLAIN_DICTIONARY | RLE_DICTIONARY);
    if page.1.kind != PageKind::Dictionary || !is_plain {
        return Ok(None);
    }
    with_inflated(page, run)
}

impl<'a> FlatPage<'a> {
    /// The values in plain encoding, if every row has one.
    pub(crate) fn plain_values(&self) -> Option<&'a [u8]> {
        (self.encoding == PLAIN && self.levels.is_none_or(|levels| self.is_full(levels))).then_some(self.values)
    }

    /// The levels are one run of values, as writers write it.
    fn is_full(&self, mut levels: &[u8]) -> bool {
        let run = uvarint32(&mut levels);
        run.is_some_and(|run| run & 1 == 0 && (run >> 1) as usize >= self.rows) && levels.first() == Some(&1)
    }

    /// Hands on the values of these ascending rows in plain encoding without a length, none for null. `width`: bytes
    /// per value, none for byte arrays; `dictionary`: its plain values and how many they are. None where the page does
    /// not hold them or is not understood.
    pub(crate) fn pick(
        &self,
        rows: &[usize],
        width: Option<usize>,
        dictionary: Option<(&[u8], usize)>,
        take: &mut dyn FnMut(Option<&[u8]>) -> Option<()>,
    ) -> Option<()> {
        let mut places = Vec::with_capacity(rows.len());
        let mut levels = self.levels.map(Levels::new);
        for row in rows {
            if *row >= self.rows {
                return None;
            }
            places.push(match &mut levels {
                None => Some(*row),
                Some(levels) => levels.place(*row)?,
            });
        }
        let mut values = PlainValues::new(self.values, width);
        if self.encoding == PLAIN {
            return places.into_iter().try_for_each(|place| match place {
                Some(place) => take(Some(values.get(place)?)),
                None => take(None),
            });
        }
        let (dictionary, entries) = dictionary?;
        let mut indices = Indices::new(self.values)?;
        for at in places.iter_mut().flatten() {
            *at = indices.get(*at).map(|at| at as usize).filter(|at| *at < entries)?;
        }
        let entries = dictionary_entries(dictionary, width, &places)?;
        entries.into_iter().try_for_each(take)
    }
}

/// The dictionary's values at these places, which come in any order.
fn dictionary_entries<'d>(
    dictionary: &'d [u8],
    width: Option<usize>,
    places: &[Option<usize>],
) -> Option<Vec<Option<&'d [u8]>>> {
    let mut order: Vec<usize> = (0..places.len()).filter(|i| places[*i].is_some()).collect();
    order.sort_unstable_by_key(|i| places[*i]);
    let mut values = PlainValues::new(dictionary, width);
    let mut entries = vec![None; places.len()];
    for i in order {
        entries[i] = Some(values.get(places[i]?)?);
    }
    Some(entries)
}

/// Plain values that are asked for in ascending order.
struct PlainValues<'a> {
    bytes: &'a [u8],
    width: Option<usize>,
    /// The value that starts at `at`.
    next: usize,
    at: usize,
}

impl<'a> PlainValues<'a> {
    fn new(bytes: &'a [u8], width: Option<usize>) -> Self {
        Self { bytes, width, next: 0, at: 0 }
    }

    fn get(&mut self, place: usize) -> Option<&'a [u8]> {
        if let Some(width) = self.width {
            let start = place.checked_mul(width)?;
            return self.bytes.get(start..start.checked_add(width)?);
        }
        while self.next < place {
            let length = self.bytes.get(self.at..)?.first_chunk::<4>()?;
            self.at = self.at.checked_add(4)?.checked_add(u32::from_le_bytes(*length) as usize)?;
            self.next += 1;
        }
        let (length, rest) = self.bytes.get(self.at..)?.split_first_chunk::<4>()?;
        rest.get(..u32::from_le_bytes(*length) as usize)
    }
}

/// Definition levels of one bit in Parquet's RLE/bit-packed hybrid, asked in ascending order.
struct Levels<'a> {
    rest: &'a [u8],
    /// The run: its first row, the rows in it, its levels, and the values before it.
    start: usize,
    rows: usize,
    run: Run<'a>,
    values: usize,
    /// Values within a packed run before this byte of it.
    counted: (usize, usize),
}

enum Run<'a> {
    Same(bool),
    Packed(&'a [u8]),
}

impl<'a> Levels<'a> {
    fn new(levels: &'a [u8]) -> Self {
        Self { rest: levels, start: 0, rows: 0, run: Run::Same(false), values: 0, counted: (0, 0) }
    }

    /// The place of a row's value among the page's values, none inside for null; none where the levels end before.
    fn place(&mut self, row: usize) -> Option<Option<usize>> {
        while row >= self.start + self.rows {
            self.values += match self.run {
                Run::Same(set) => usize::from(set) * self.rows,
                Run::Packed(bits) => self.count_up_to(bits, bits.len()),
            };
            self.start += self.rows;
            (self.rows, self.run) = next_run(&mut self.rest)?;
            self.counted = (0, 0);
        }
        let at = row - self.start;
        Some(match self.run {
            Run::Same(set) => set.then_some(self.values + at),
            Run::Packed(bits) => {
                let byte = *bits.get(at / 8)?;
                let before = self.count_up_to(bits, at / 8) + (byte & ((1 << (at % 8)) - 1)).count_ones() as usize;
                (byte >> (at % 8) & 1 == 1).then_some(self.values + before)
            }
        })
    }

    fn count_up_to(&mut self, bits: &[u8], byte: usize) -> usize {
        let (at, mut count) = self.counted;
        count += bits.get(at..byte).unwrap_or_default().iter().map(|byte| byte.count_ones() as usize).sum::<usize>();
        self.counted = (byte, count);
        count
    }
}

fn next_run<'a>(rest: &mut &'a [u8]) -> Option<(usize, Run<'a>)> {
    let header = uvarint32(rest)?;
    let run = (header >> 1) as usize;
    if run == 0 {
        return None;
    }
    if header & 1 == 0 {
        let (value, left) = rest.split_first()?;
        *rest = left;
        return Some((run, Run::Same(*value == 1)));
    }
    // Some writers cut the last run after its last value.
    let (bits, left) = rest.split_at(run.min(rest.len()));
    *rest = left;
    (!bits.is_empty()).then_some((bits.len() * 8, Run::Packed(bits)))
}

/// Indices of a dictionary in the same hybrid, asked in ascending order.
struct Indices<'a> {
    rest: &'a [u8],
    bits: usize,
    start: usize,
    count: usize,
    /// The value of a run, or the bytes of a packed one.
    run: Result<u32, &'a [u8]>,
}

impl<'a> Indices<'a> {
    fn new(values: &'a [u8]) -> Option<Self> {
        let (bits, rest) = values.split_first()?;
        (*bits <= 32).then_some(Self { rest, bits: usize::from(*bits), start: 0, count: 0, run: Ok(0) })
    }

    fn get(&mut self, place: usize) -> Option<u32> {
        while place >= self.start + self.count {
            self.start += self.count;
            let header = uvarint32(&mut self.rest)?;
            let run = (header >> 1) as usize;
            if run == 0 {
                return None;
            }
            if header & 1 == 0 {
                let (value, rest) = self.rest.split_at_checked(self.bits.div_ceil(8))?;
                self.rest = rest;
                let value = value.iter().rev().fold(0_u32, |value, byte| value << 8 | u32::from(*byte));
                (self.count, self.run) = (run, Ok(value));
            } else {
                let bytes = run.checked_mul(self.bits)?.min(self.rest.len());
                let (packed, rest) = self.rest.split_at(bytes);
                self.rest = rest;
                (self.count, self.run) = (run.checked_mul(8)?, Err(packed));
            }
        }
        match self.run {
            Ok(value) => Some(value),
            Err(packed) => unpack(packed, place - self.start, self.bits),
        }
    }
}

/// The `at`th number of so many bits, at most 32, packed from the least significant bit on.
fn unpack(packed: &[u8], at: usize, bits: usize) -> Option<u32> {
    let first = at.checked_mul(bits)?;
    let end = (first + bits).div_ceil(8);
    let bytes = packed.get(first / 8..end)?;
    let wide = bytes.iter().rev().fold(0_u64, |wide, byte| wide << 8 | u64::from(*byte));
    Some((wide >> (first % 8) & ((1 << bits) - 1)) as u32)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn picked(
        page: &FlatPage<'_>,
        rows: &[usize],
        width: Option<usize>,
        dictionary: Option<(&[u8], usize)>,
    ) -> Option<Vec<Option<Vec<u8>>>> {
        let mut values = Vec::new();
        page.pick(rows, width, dictionary, &mut |value| {
            values.push(value.map(<[u8]>::to_vec));
            Some(())
        })?;
        Some(values)
    }

    #[test]
    fn values_are_picked_past_nulls_in_both_kinds_of_runs() {
        // 3 rows with values, 2 without, then a packed run of 8: 0b1010_0101.
        let levels = [6, 1, 4, 0, 3, 0b1010_0101];
        let values: Vec<u8> = (0..7).collect();
        let page = FlatPage { levels: Some(&levels), values: &values, encoding: PLAIN, rows: 13 };
        let all: Vec<usize> = (0..13).collect();
        let of = |row: usize| picked(&page, &[row], Some(1), None).unwrap()[0].clone();
        let expected =
            [Some(0), Some(1), Some(2), None, None, Some(3), None, Some(4), None, None, Some(5), None, Some(6)]
                .map(|value: Option<u8>| value.map(|value| vec![value]));
        assert_eq!(picked(&page, &all, Some(1), None).unwrap(), expected);
        assert_eq!((0..13).map(of).collect::<Vec<_>>(), expected);
        assert_eq!(picked(&page, &[13], Some(1), None), None);
        assert!(page.plain_values().is_none());
    }

    #[test]
    fn texts_are_walked_to_and_damage_is_left_to_others() {
        let plain = [2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0, 1, 0, 0, 0, b'c'];
        let page = FlatPage { levels: None, values: &plain, encoding: PLAIN, rows: 4 };
        let texts = picked(&page, &[0, 1, 2], None, None).unwrap();
        assert_eq!(texts, [Some(b"ab".to_vec()), Some(Vec::new()), Some(b"c".to_vec())]);
        assert_eq!(picked(&page, &[2, 3], None, None), None);
        let long = FlatPage { levels: None, values: &[255, 255, 255, 255, 0], encoding: PLAIN, rows: 4 };
        assert_eq!((picked(&long, &[0], None, None), picked(&long, &[1], None, None)), (None, None));
    }

    #[test]
    fn dictionary_places_are_found_in_runs_and_between_bits() {
        // Width 3: five times 6, then packed 1, 2, 3, 4, 5, 6, 7, 0.
        let indices = [3, 10, 6, 3, 0b1101_0001, 0b0101_1000, 0b0001_1111];
        let dictionary: Vec<u8> = (10..18).collect();
        let page = FlatPage { levels: None, values: &indices, encoding: RLE_DICTIONARY, rows: 13 };
        let all: Vec<usize> = (0..13).collect();
        let values: Vec<u8> =
            picked(&page, &all, Some(1), Some((&dictionary, 8))).unwrap().into_iter().flatten().flatten().collect();
        assert_eq!(values, [16, 16, 16, 16, 16, 11, 12, 13, 14, 15, 16, 17, 10]);
        assert_eq!(picked(&page, &[0], Some(1), Some((&dictionary[..6], 8))), None);
        assert_eq!(picked(&page, &[0], Some(1), Some((&dictionary, 6))), None);
        assert_eq!(picked(&page, &[0], Some(1), None), None);
    }
}
