//! Values in Parquet's plain encoding, walked through in the page that they are in.
//!
//! Knows where a value starts and ends, of one width or behind a length of four bytes. It must not know rows, levels or
//! types. Bytes are hostile: every place is looked up, never assumed. Source: Parquet's `Encodings.md`, "Plain".

use std::ops::Range;

use crate::inflating::Inflating;

/// Bytes of a length in front of a byte array.
const LENGTH_BYTES: usize = 4;
/// How much further a page is inflated where a walk over values comes to the end of what is there.
pub(crate) const WALKED_BYTES: usize = 1 << 10;

/// Hands on plain values one after the other, one for each row that has a place.
pub(crate) fn all_plain(
    mut values: &[u8],
    width: Option<usize>,
    places: &[Option<usize>],
    take: &mut dyn FnMut(Option<&[u8]>) -> Option<()>,
) -> Option<()> {
    for place in places {
        if place.is_none() {
            take(None)?;
            continue;
        }
        let length = match width {
            Some(width) => width,
            None => {
                let (length, behind) = values.split_first_chunk::<LENGTH_BYTES>()?;
                values = behind;
                u32::from_le_bytes(*length) as usize
            }
        };
        let (value, behind) = values.split_at_checked(length)?;
        values = behind;
        take(Some(value))?;
    }
    Some(())
}

/// Where the dictionary's values at these places are, which come in any order and are below its number of entries; it
/// is inflated that far.
pub(crate) fn dictionary_entries(
    (dictionary, entries): (&mut Inflating<'_>, usize),
    width: Option<usize>,
    places: &[Option<usize>],
) -> Option<Vec<Option<Range<usize>>>> {
    let mut values = PlainValues::new(dictionary, 0, width);
    if width.is_some() {
        // Where each is follows from its number.
        return places.iter().map(|place| place.map_or(Some(None), |place| values.range(place).map(Some))).collect();
    }
    if places.len() >= entries {
        let all: Vec<Range<usize>> = (0..entries).map_while(|entry| values.range(entry)).collect();
        return places
            .iter()
            .map(|place| place.map_or(Some(None), |place| all.get(place).cloned().map(Some)))
            .collect();
    }
    let mut order: Vec<usize> = (0..places.len()).filter(|i| places[*i].is_some()).collect();
    order.sort_unstable_by_key(|i| places[*i]);
    let mut ranges = vec![None; places.len()];
    for i in order {
        ranges[i] = Some(values.range(places[i]?)?);
    }
    Some(ranges)
}

/// Plain values that are asked for in ascending order.
pub(crate) struct PlainValues<'b, 'a> {
    body: &'b mut Inflating<'a>,
    /// Where the first of them starts.
    start: usize,
    width: Option<usize>,
    /// The value that starts at `at`.
    next: usize,
    at: usize,
}

impl<'b, 'a> PlainValues<'b, 'a> {
    pub(crate) fn new(body: &'b mut Inflating<'a>, start: usize, width: Option<usize>) -> Self {
        Self { body, start, width, next: 0, at: start }
    }

    pub(crate) fn get(&mut self, place: usize) -> Option<&[u8]> {
        let range = self.range(place)?;
        self.body.there().get(range)
    }

    /// Where a value is; the page is inflated up to its end.
    fn range(&mut self, place: usize) -> Option<Range<usize>> {
        let range = match self.width {
            Some(width) => {
                let start = self.start.checked_add(place.checked_mul(width)?)?;
                start..start.checked_add(width)?
            }
            None => {
                self.walk_to(place)?;
                let there = self.body.first(self.at.checked_add(LENGTH_BYTES)?)?;
                let length = there.get(self.at..)?.first_chunk::<LENGTH_BYTES>()?;
                let start = self.at + LENGTH_BYTES;
                start..start.checked_add(u32::from_le_bytes(*length) as usize)?
            }
        };
        self.body.first(range.end)?;
        Some(range)
    }

    fn walk_to(&mut self, place: usize) -> Option<()> {
        while self.next < place {
            // Some values more where there are any.
            let end = self.at.checked_add(LENGTH_BYTES)?;
            let there = self.body.first(end.max(self.body.len().min(end.checked_add(WALKED_BYTES)?)))?;
            while self.next < place
                && let Some(length) = there.get(self.at..).and_then(|rest| rest.first_chunk::<LENGTH_BYTES>())
            {
                self.at = self.at.checked_add(LENGTH_BYTES)?.checked_add(u32::from_le_bytes(*length) as usize)?;
                self.next += 1;
            }
        }
        Some(())
    }
}
