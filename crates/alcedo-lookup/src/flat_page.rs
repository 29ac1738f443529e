//! Values of single rows of a flat column, picked out of one data page without decoding what lies around them.
//!
//! The parquet crate's readers decode a page from its start and reserve as they go; one row of a page needs neither,
//! and of a page that can be inflated in part only what lies before that row is inflated. What is not understood here
//! (other encodings, lists, damage) is answered with none, and the parquet crate's readers have their say. Bytes are
//! hostile: every place is looked up, never assumed.

use std::cell::RefCell;
use std::ops::Range;

use bytes::Bytes;

use crate::codec::Codec;
use crate::data_page::verified_body;
use crate::error::Error;
use crate::inflating::Inflating;
use crate::page_header::{PageHeader, PageKind};
use crate::plain_values::{PlainValues, WALKED_BYTES, all_plain, dictionary_entries};
use crate::varint::uvarint32;

/// Parquet's `Encoding`s that are understood.
const PLAIN: i32 = 0;
const PLAIN_DICTIONARY: i32 = 2;
const RLE: i32 = 3;
const RLE_DICTIONARY: i32 = 8;

/// Bytes of a length in front of levels.
const LENGTH_BYTES: usize = 4;
/// Bytes of what a run of indices starts with, at most: a varint of 32 bits, as it is read.
const MAX_RUN_HEAD_BYTES: usize = 10;

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

/// A data page of a column outside of lists and structs, inflated as far as its values are asked for.
pub(crate) struct FlatPage<'a> {
    levels: LevelBytes<'a>,
    body: Inflating<'a>,
    /// Where the values start in the body.
    values: usize,
    encoding: i32,
    /// Rows by the page's header.
    pub(crate) rows: usize,
}

/// What says whether each row has a value.
enum LevelBytes<'a> {
    /// All rows have one.
    None,
    Apart(&'a [u8]),
    /// They are this part of the body, which is inflated.
    Within(Range<usize>),
}

/// Opens a data page with a buffer of the thread's to inflate into and runs something over it; none where its kind is
/// not understood.
///
/// # Errors
/// The page is damaged.
pub(crate) fn with_flat_page<T>(
    (bytes, header, codec): (&Bytes, &PageHeader, Codec),
    max_def: i16,
    run: impl FnOnce(&mut FlatPage<'_>) -> T,
) -> Result<Option<T>, Error> {
    let is_known = matches!(header.encoding, PLAIN | PLAIN_DICTIONARY | RLE_DICTIONARY) && max_def <= 1;
    if !is_known {
        return Ok(None);
    }
    let (rows, encoding) = (header.values as usize, header.encoding);
    match header.kind {
        PageKind::DataV1 { def_encoding, .. } if max_def == 0 || def_encoding == RLE => {
            with_inflating((bytes, header, codec), |mut body| {
                if max_def == 0 {
                    return Some(run(&mut FlatPage { levels: LevelBytes::None, body, values: 0, encoding, rows }));
                }
                let length = body.first(LENGTH_BYTES)?.first_chunk::<LENGTH_BYTES>()?;
                let values = LENGTH_BYTES.checked_add(u32::from_le_bytes(*length) as usize)?;
                body.first(values)?;
                let levels = LevelBytes::Within(LENGTH_BYTES..values);
                Some(run(&mut FlatPage { levels, body, values, encoding, rows }))
            })
        }
        PageKind::DataV2 { def_bytes, rep_bytes: 0, compressed, rows: starting, .. } if starting as usize == rows => {
            let body = verified_body(bytes, header)?;
            let split =
                (body.split_at_checked(def_bytes as usize), header.inflated_bytes.checked_sub(def_bytes as usize));
            let (Some((levels, stored)), Some(length)) = split else { return Ok(None) };
            let levels = if max_def > 0 { LevelBytes::Apart(levels) } else { LevelBytes::None };
            let codec = if compressed { codec } else { Codec::Uncompressed };
            with_body((stored, length, codec), |body| {
                Some(run(&mut FlatPage { levels, body, values: 0, encoding, rows }))
            })
        }
        _ => Ok(None),
    }
}

/// Opens a page whose body is compressed as a whole and runs something over it.
fn with_inflating<T>(
    (bytes, header, codec): (&Bytes, &PageHeader, Codec),
    run: impl FnOnce(Inflating<'_>) -> Option<T>,
) -> Result<Option<T>, Error> {
    with_body((&verified_body(bytes, header)?, header.inflated_bytes, codec), run)
}

/// The same of stored bytes that inflate to so many.
fn with_body<T>(
    (stored, length, codec): (&[u8], usize, Codec),
    run: impl FnOnce(Inflating<'_>) -> Option<T>,
) -> Result<Option<T>, Error> {
    if codec == Codec::Uncompressed {
        return Ok(if stored.len() == length { run(Inflating::Whole(stored)) } else { None });
    }
    if length == 0 {
        // Writers store anything, or nothing, where there are no values.
        return Ok(run(Inflating::Whole(&[])));
    }
    with_buffer(length, |buffer| Ok(run(Inflating::new(codec, stored, buffer)?)))
}

/// Opens a dictionary page and runs something over its values; none where it is no dictionary that is understood.
///
/// # Errors
/// The page is damaged.
pub(crate) fn with_dictionary<T>(
    page: (&Bytes, &PageHeader, Codec),
    run: impl FnOnce(&mut Inflating<'_>) -> Option<T>,
) -> Result<Option<T>, Error> {
    // Some writers call a dictionary's plain encoding by the encoding of the data pages that use it.
    let is_plain = matches!(page.1.encoding, PLAIN | PLAIN_DICTIONARY | RLE_DICTIONARY);
    if page.1.kind != PageKind::Dictionary || !is_plain {
        return Ok(None);
    }
    with_inflating(page, |mut body| run(&mut body))
}

impl FlatPage<'_> {
    /// Every row has a value in plain encoding.
    fn is_plain(&self) -> bool {
        self.encoding == PLAIN && self.level_bytes().is_none_or(|levels| self.is_full(levels))
    }

    /// The values in plain encoding, if every row has one.
    pub(crate) fn plain_values(&mut self) -> Option<&[u8]> {
        if !self.is_plain() {
            return None;
        }
        self.body.whole()?.get(self.values..)
    }

    /// The same of values of this width up to one behind which nobody wants any, by `is_behind`, and some values more.
    pub(crate) fn plain_values_until(&mut self, width: usize, is_behind: &dyn Fn(&[u8]) -> bool) -> Option<&[u8]> {
        if !self.is_plain() {
            return None;
        }
        let (start, mut values) = (self.values, 0);
        while values < self.rows {
            values = self.rows.min(values + WALKED_BYTES.div_ceil(width));
            let end = start.checked_add(values.checked_mul(width)?)?;
            if is_behind(self.body.first(end)?.get(end - width..end)?) {
                break;
            }
        }
        self.body.there().get(start..start + values * width)
    }

    /// Hands on the byte arrays of all rows, if every row has one, until `take` says that nobody wants those behind.
    pub(crate) fn plain_texts_until(&mut self, take: &mut dyn FnMut(usize, &[u8]) -> Option<bool>) -> Option<()> {
        if !self.is_plain() {
            return None;
        }
        let mut values = PlainValues::new(&mut self.body, self.values, None);
        for row in 0..self.rows {
            if take(row, values.get(row)?)? {
                break;
            }
        }
        Some(())
    }

    /// Whether these rows are all of the page's.
    pub(crate) fn is_all(&self, rows: &[usize]) -> bool {
        rows.len() == self.rows && is_each(rows)
    }

    fn level_bytes(&self) -> Option<&[u8]> {
        match &self.levels {
            LevelBytes::None => None,
            LevelBytes::Apart(levels) => Some(levels),
            LevelBytes::Within(range) => Some(self.body.there().get(range.clone()).unwrap_or_default()),
        }
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
        &mut self,
        rows: &[usize],
        width: Option<usize>,
        dictionary: Option<(&mut Inflating<'_>, usize)>,
        take: &mut dyn FnMut(Option<&[u8]>) -> Option<()>,
    ) -> Option<()> {
        let mut places = Vec::with_capacity(rows.len());
        let mut levels = self.level_bytes().map(Levels::new);
        for row in rows {
            if *row >= self.rows {
                return None;
            }
            places.push(match &mut levels {
                None => Some(*row),
                Some(levels) => levels.place(*row)?,
            });
        }
        if self.is_all(rows) {
            // Who takes all of a page may keep it: then all of it is looked at.
            let body = self.body.whole()?;
            if self.encoding == PLAIN {
                return all_plain(body.get(self.values..)?, width, &places, take);
            }
        }
        if self.encoding == PLAIN {
            let mut values = PlainValues::new(&mut self.body, self.values, width);
            return places.into_iter().try_for_each(|place| match place {
                Some(place) => take(Some(values.get(place)?)),
                None => take(None),
            });
        }
        let (dictionary, entries) = dictionary?;
        let mut indices = Indices::new(&mut self.body, self.values)?;
        for at in places.iter_mut().flatten() {
            *at = indices.get(*at).map(|at| at as usize).filter(|at| *at < entries)?;
        }
        let ranges = dictionary_entries((&mut *dictionary, entries), width, &places)?;
        let bytes = dictionary.there();
        ranges.into_iter().try_for_each(|range| match range {
            Some(range) => take(Some(bytes.get(range)?)),
            None => take(None),
        })
    }
}

/// Whether these are the numbers from 0 on, each of them once.
fn is_each(rows: &[usize]) -> bool {
    rows.iter().enumerate().all(|(i, row)| i == *row)
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
struct Indices<'b, 'a> {
    body: &'b mut Inflating<'a>,
    /// Where the next run starts.
    at: usize,
    bits: usize,
    start: usize,
    count: usize,
    /// The value of a run, or where the bytes of a packed one are.
    run: Result<u32, Range<usize>>,
}

impl<'b, 'a> Indices<'b, 'a> {
    fn new(body: &'b mut Inflating<'a>, at: usize) -> Option<Self> {
        let bits = usize::from(*body.first(at.checked_add(1)?)?.get(at)?);
        (bits <= 32).then_some(Self { body, at: at + 1, bits, start: 0, count: 0, run: Ok(0) })
    }

    fn get(&mut self, place: usize) -> Option<u32> {
        while place >= self.start + self.count {
            self.start += self.count;
            let end = self.body.len();
            let mut rest = self.body.first(end.min(self.at + MAX_RUN_HEAD_BYTES))?.get(self.at..)?;
            let before = rest.len();
            let header = uvarint32(&mut rest)?;
            self.at += before - rest.len();
            let run = (header >> 1) as usize;
            if run == 0 {
                return None;
            }
            if header & 1 == 0 {
                let next = self.at + self.bits.div_ceil(8);
                let value = self.body.first(next)?.get(self.at..next)?;
                let value = value.iter().rev().fold(0_u32, |value, byte| value << 8 | u32::from(*byte));
                (self.at, self.count, self.run) = (next, run, Ok(value));
            } else {
                // Some writers cut the last run after its last value.
                let next = self.at.checked_add(run.checked_mul(self.bits)?)?.min(end);
                (self.count, self.run) = (run.checked_mul(8)?, Err(self.at..next));
                self.at = next;
            }
        }
        match &self.run {
            Ok(value) => Some(*value),
            Err(packed) => {
                let (at, bits) = (place - self.start, self.bits);
                let end = at.checked_add(1)?.checked_mul(bits)?.div_ceil(8).checked_add(packed.start)?;
                let packed = self.body.first(end.min(packed.end))?.get(packed.start..end.min(packed.end))?;
                unpack(packed, at, bits)
            }
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

    fn flat<'a>(levels: Option<&'a [u8]>, values: &'a [u8], encoding: i32, rows: usize) -> FlatPage<'a> {
        let levels = levels.map_or(LevelBytes::None, LevelBytes::Apart);
        FlatPage { levels, body: Inflating::Whole(values), values: 0, encoding, rows }
    }

    fn picked(
        page: &mut FlatPage<'_>,
        rows: &[usize],
        width: Option<usize>,
        dictionary: Option<(&[u8], usize)>,
    ) -> Option<Vec<Option<Vec<u8>>>> {
        let mut values = Vec::new();
        let mut dictionary = dictionary.map(|(bytes, entries)| (Inflating::Whole(bytes), entries));
        let dictionary = dictionary.as_mut().map(|(bytes, entries)| (bytes, *entries));
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
        let mut page = flat(Some(&levels), &values, PLAIN, 13);
        let all: Vec<usize> = (0..13).collect();
        let expected =
            [Some(0), Some(1), Some(2), None, None, Some(3), None, Some(4), None, None, Some(5), None, Some(6)]
                .map(|value: Option<u8>| value.map(|value| vec![value]));
        assert_eq!(picked(&mut page, &all, Some(1), None).unwrap(), expected);
        for row in 0..13 {
            assert_eq!(picked(&mut page, &[row], Some(1), None).unwrap(), expected[row..=row]);
        }
        assert_eq!(picked(&mut page, &[13], Some(1), None), None);
        // As many rows as the page has, one of them twice, are not all of its rows.
        let twice: Vec<usize> = std::iter::once(0).chain(0..12).collect();
        let values = picked(&mut page, &twice, Some(1), None).unwrap();
        assert_eq!((&values[0], &values[1..]), (&expected[0], &expected[..12]));
        assert!(page.plain_values().is_none());
    }

    #[test]
    fn texts_are_walked_to_and_damage_is_left_to_others() {
        let plain = [2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0, 1, 0, 0, 0, b'c'];
        let mut page = flat(None, &plain, PLAIN, 4);
        let texts = picked(&mut page, &[0, 1, 2], None, None).unwrap();
        assert_eq!(texts, [Some(b"ab".to_vec()), Some(Vec::new()), Some(b"c".to_vec())]);
        assert_eq!(picked(&mut page, &[2, 3], None, None), None);
        let mut long = flat(None, &[255, 255, 255, 255, 0], PLAIN, 4);
        assert_eq!((picked(&mut long, &[0], None, None), picked(&mut long, &[1], None, None)), (None, None));
    }

    #[test]
    fn dictionary_places_are_found_in_runs_and_between_bits() {
        // Width 3: five times 6, then packed 1, 2, 3, 4, 5, 6, 7, 0.
        let indices = [3, 10, 6, 3, 0b1101_0001, 0b0101_1000, 0b0001_1111];
        let dictionary: Vec<u8> = (10..18).collect();
        let mut page = flat(None, &indices, RLE_DICTIONARY, 13);
        let all: Vec<usize> = (0..13).collect();
        let values: Vec<u8> =
            picked(&mut page, &all, Some(1), Some((&dictionary, 8))).unwrap().into_iter().flatten().flatten().collect();
        assert_eq!(values, [16, 16, 16, 16, 16, 11, 12, 13, 14, 15, 16, 17, 10]);
        assert_eq!(picked(&mut page, &[0], Some(1), Some((&dictionary[..6], 8))), None);
        assert_eq!(picked(&mut page, &[0], Some(1), Some((&dictionary, 6))), None);
        assert_eq!(picked(&mut page, &[0], Some(1), None), None);
    }

    /// Runs something over the page whose body is these levels and values, packed, with how far it was inflated.
    fn packed<T>(levels: &[u8], values: &[u8], encoding: i32, run: impl FnOnce(&mut FlatPage<'_>) -> T) -> (T, f64) {
        let body = [&(levels.len() as u32).to_le_bytes()[..], levels, values].concat();
        let stored = snap::raw::Encoder::new().compress_vec(&body).unwrap();
        let mut buffer = vec![0xaa; body.len()];
        let mut body = Inflating::new(Codec::Snappy, &stored, &mut buffer).unwrap();
        let values = LENGTH_BYTES + levels.len();
        body.first(values).unwrap();
        let mut page =
            FlatPage { levels: LevelBytes::Within(LENGTH_BYTES..values), body, values, encoding, rows: ROWS };
        let result = run(&mut page);
        (result, page.body.there().len() as f64 / page.body.len() as f64)
    }

    const ROWS: usize = 2_000;
    /// One run of 2,000 values.
    const ALL: [u8; 3] = [0xa0, 0x1f, 1];

    fn text(i: usize) -> Vec<u8> {
        let text = format!("{} {i}", "kingfisher ".repeat(i * 7 % 5));
        [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
    }

    #[test]
    fn a_row_of_a_packed_page_is_the_same_and_little_behind_it_is_inflated() {
        let numbers: Vec<u8> = (0..ROWS as u64).flat_map(|i| (i * i).to_le_bytes()).collect();
        let texts: Vec<u8> = (0..ROWS).flat_map(text).collect();
        // A run of 400 times 700, then packed indices of 16 bits.
        let mut indices = vec![16, 0xa0, 0x06, 0xbc, 0x02, 0x91, 0x03];
        indices.extend((0..1_600_u16).flat_map(|i| (i.wrapping_mul(7) % 2_000).to_le_bytes()));
        for (values, encoding, width) in
            [(&numbers, PLAIN, Some(8)), (&texts, PLAIN, None), (&indices, RLE_DICTIONARY, None)]
        {
            let dictionary = (encoding != PLAIN).then_some((&texts[..], ROWS));
            let mut whole = flat(Some(&ALL), values, encoding, ROWS);
            for row in (0..ROWS).step_by(7) {
                let pick = |page: &mut FlatPage<'_>| picked(page, &[row], width, dictionary);
                let (value, share) = packed(&ALL, values, encoding, pick);
                assert!(value.is_some() && value == pick(&mut whole), "row {row}");
                let most = (row as f64 / ROWS as f64 + 0.2).min(1.0);
                assert!(share <= most || share == 1.0 && most > 0.7, "{share} of the page for row {row}");
            }
            let all: Vec<usize> = (0..ROWS).collect();
            let (value, share) = packed(&ALL, values, encoding, |page| picked(page, &all, width, dictionary));
            assert_eq!((value, share), (picked(&mut whole, &all, width, dictionary), 1.0));
        }
    }

    #[test]
    fn a_dictionary_is_inflated_up_to_the_entry() {
        let texts: Vec<u8> = (0..ROWS).flat_map(text).collect();
        let stored = snap::raw::Encoder::new().compress_vec(&texts).unwrap();
        let mut buffer = vec![0; texts.len()];
        let mut dictionary = Inflating::new(Codec::Snappy, &stored, &mut buffer).unwrap();
        let ranges = dictionary_entries((&mut dictionary, ROWS), None, &[Some(300), None, Some(5), Some(300)]).unwrap();
        let values: Vec<Option<&[u8]>> =
            ranges.into_iter().map(|range| range.map(|range| &dictionary.there()[range])).collect();
        let (five, many) = (text(5), text(300));
        assert_eq!(values, [Some(&many[4..]), None, Some(&five[4..]), Some(&many[4..])]);
        assert!(dictionary.there().len() < dictionary.len() / 4);
        assert!(dictionary_entries((&mut dictionary, ROWS), None, &[Some(ROWS)]).is_none());
    }

    #[test]
    fn values_that_ascend_are_inflated_up_to_the_one_behind_which_nobody_looks() {
        let numbers: Vec<u8> = (0..ROWS as u64).flat_map(u64::to_le_bytes).collect();
        let number = |bits: &[u8]| u64::from_le_bytes(bits.try_into().unwrap());
        for last in [0, 1, 500, 1_000, 1_999, 5_000] {
            let (values, share) = packed(&ALL, &numbers, PLAIN, |page| {
                page.plain_values_until(8, &|bits| number(bits) > last).unwrap().to_vec()
            });
            assert!(numbers.starts_with(&values) && values.len() >= numbers.len().min(last as usize * 8 + 8));
            assert!(share <= (last as f64 / ROWS as f64 + 0.2).min(1.0), "{share} for {last}");
        }
        let texts: Vec<u8> = (0..ROWS).flat_map(text).collect();
        let (seen, share) = packed(&ALL, &texts, PLAIN, |page| {
            let mut seen = 0;
            page.plain_texts_until(&mut |row, value| {
                assert_eq!(value, &text(row)[4..]);
                seen = row;
                Some(row == 700)
            })
            .unwrap();
            seen
        });
        assert!(seen == 700 && share < 0.5, "{seen}, {share}");
        let nulls = [0xa0, 0x1f, 0];
        assert!(packed(&nulls, &numbers, PLAIN, |page| page.plain_values_until(8, &|_| true).is_none()).0);
    }
}
