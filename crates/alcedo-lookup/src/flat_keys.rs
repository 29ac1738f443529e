//! Rows that hold a key, found in a plainly encoded data page as it is stored: no value is decoded but by comparing it.
//!
//! What is not understood (nulls among values, other encodings, damage) is answered with none, and the page is gone
//! through value by value.

use parquet::basic::Type as Physical;

use crate::decoded_keys::partition;
use crate::flat_page::FlatPage;
use crate::key_column::{Bounds, Extent, KeyColumn, Probes, Stored};
use crate::page_check::plain_width;
use crate::probe::Point;

/// Values that are compared at once: so many comparisons take no branch.
const AT_ONCE: usize = 64;

/// The rows of the page that hold a key, ascending, each with the key's index; none where the page is not understood,
/// or where they are more than so many.
///
/// `ascends`: whether the page's values do, where somebody saw them all; otherwise they are gone through here, and it
/// is set if that is found out. Of a page whose values ascend nothing is inflated far behind the last key.
pub(crate) fn find(
    page: &mut FlatPage<'_>,
    column: &KeyColumn,
    probes: &Probes,
    most: usize,
    ascends: &mut Option<bool>,
) -> Option<Vec<(u32, u32)>> {
    let mut found = Found { rows: Vec::new(), most };
    match column.descr.physical_type() {
        Physical::INT64 => {
            let value = |bits: [u8; 8]| column.int64(i64::from_le_bytes(bits));
            let bits = |point: i128| (point as i64).to_le_bytes();
            find_ints(page, probes, (&value, &bits), ascends, &mut found)?;
        }
        Physical::INT32 => {
            let value = |bits: [u8; 4]| column.int32(i32::from_le_bytes(bits));
            let bits = |point: i128| (point as i32).to_le_bytes();
            find_ints(page, probes, (&value, &bits), ascends, &mut found)?;
        }
        Physical::BYTE_ARRAY if matches!(column.stored_bytes(&[]), Stored::Bytes(_)) => {
            find_texts(page, probes, ascends, &mut found)?;
        }
        _ => return None,
    }
    Some(found.rows)
}

/// Bounds of the page's values, each of which is looked at; none where the page is not understood. `ascends`: whether
/// the values do, as [`find`] found out; then the first and the last tell.
pub(crate) fn bounds(page: &mut FlatPage<'_>, column: &KeyColumn, ascends: bool) -> Option<Bounds> {
    let mut extent = Extent::default();
    match column.descr.physical_type() {
        Physical::INT64 => {
            see_ints(page, &|bits| column.int64(i64::from_le_bytes(bits)), ascends, &mut extent)?;
        }
        Physical::INT32 => {
            see_ints(page, &|bits| column.int32(i32::from_le_bytes(bits)), ascends, &mut extent)?;
        }
        Physical::BYTE_ARRAY if matches!(column.stored_bytes(&[]), Stored::Bytes(_)) => {
            let last = page.rows.saturating_sub(1);
            page.plain_values()?;
            page.plain_texts_until(&mut |row, value| {
                if !ascends || row == 0 || row == last {
                    extent.see(&Stored::Bytes(value));
                }
                Some(false)
            })?;
        }
        _ => return None,
    }
    Some(extent.into_bounds())
}

fn see_ints<const N: usize>(
    page: &mut FlatPage<'_>,
    value: &dyn Fn([u8; N]) -> i128,
    ascends: bool,
    extent: &mut Extent,
) -> Option<()> {
    let rows = page.rows;
    let values = page.plain_values()?.as_chunks::<N>().0.get(..rows)?;
    let (Some(first), Some(last)) = (values.first(), values.last()) else { return Some(()) };
    let ends = [value(*first), value(*last)];
    let all = || values.iter().map(|bits| value(*bits));
    let (min, max) = if ascends {
        (ends[0], ends[1])
    } else {
        all().fold((ends[0], ends[0]), |(min, max), value| (min.min(value), max.max(value)))
    };
    extent.see(&Stored::Int(min));
    extent.see(&Stored::Int(max));
    Some(())
}

/// The same as [`find`] of these ascending rows alone.
pub(crate) fn find_at(
    page: &mut FlatPage<'_>,
    rows: &[usize],
    column: &KeyColumn,
    probes: &Probes,
) -> Option<Vec<(u32, u32)>> {
    let width = plain_width(&column.descr);
    let (mut found, mut next) = (Vec::new(), rows.iter());
    page.pick(rows, width, None, &mut |value| {
        let row = *next.next()? as u32;
        let Some(value) = value else {
            found.extend(probes.null_keys().iter().map(|key| (row, *key)));
            return Some(());
        };
        let stored = match column.descr.physical_type() {
            Physical::INT64 => Stored::Int(column.int64(i64::from_le_bytes(value.try_into().ok()?))),
            Physical::INT32 => Stored::Int(column.int32(i32::from_le_bytes(value.try_into().ok()?))),
            Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY => column.stored_bytes(value),
            _ => return None,
        };
        found.extend(probes.equal_to(&stored).iter().map(|(_, key)| (row, *key)));
        Some(())
    })?;
    Some(found)
}

struct Found {
    rows: Vec<(u32, u32)>,
    most: usize,
}

impl Found {
    fn add(&mut self, row: usize, keys: &[(Point, u32)]) -> Option<()> {
        self.rows.extend(keys.iter().map(|(_, key)| (row as u32, *key)));
        (self.rows.len() <= self.most).then_some(())
    }
}

/// What a value's bits stand for, and the bits that stand for a point.
type Codes<'c, const N: usize> = (&'c dyn Fn([u8; N]) -> i128, &'c dyn Fn(i128) -> [u8; N]);

/// Numbers of N bytes.
fn find_ints<const N: usize>(
    page: &mut FlatPage<'_>,
    probes: &Probes,
    (value, bits): Codes<'_, N>,
    ascends: &mut Option<bool>,
    found: &mut Found,
) -> Option<()> {
    let (points, rows) = (probes.points(), page.rows);
    if let (Some(true), Some((Point::Int(last), _))) = (*ascends, points.last()) {
        let is_behind = |bits: &[u8]| bits.try_into().is_ok_and(|bits| value(bits) > *last);
        let values = page.plain_values_until(N, &is_behind)?.as_chunks::<N>().0;
        return find_in_ascending(values.len(), points, &|row| value(values[row]), found);
    }
    let values = page.plain_values()?.as_chunks::<N>().0.get(..rows)?;
    let at = |row: usize| value(values[row]);
    let ascends = *ascends.get_or_insert_with(|| (1..rows).all(|row| at(row - 1) <= at(row)));
    if ascends {
        return find_in_ascending(rows, points, &at, found);
    }
    let [(Point::Int(point), _)] = points else {
        return (0..rows).try_for_each(|row| found.add(row, probes.equal_to(&Stored::Int(at(row)))));
    };
    let asked = bits(*point);
    for start in (0..rows).step_by(AT_ONCE) {
        let range = start..rows.min(start + AT_ONCE);
        if values[range.clone()].iter().fold(false, |any, bits| any | (*bits == asked)) {
            for row in range.filter(|row| at(*row) == *point) {
                found.add(row, points)?;
            }
        }
    }
    Some(())
}

fn find_in_ascending(
    rows: usize,
    points: &[(Point, u32)],
    at: &dyn Fn(usize) -> i128,
    found: &mut Found,
) -> Option<()> {
    let mut start = 0;
    for equal in points.chunk_by(|a, b| a.0 == b.0) {
        let Point::Int(point) = equal[0].0 else { continue };
        start = partition(start..rows, |row| at(row) < point);
        while start < rows && at(start) == point {
            found.add(start, equal)?;
            start += 1;
        }
    }
    Some(())
}

fn find_texts(page: &mut FlatPage<'_>, probes: &Probes, ascends: &mut Option<bool>, found: &mut Found) -> Option<()> {
    let points = probes.points();
    let one = match points {
        [(Point::Bytes(point), _)] => Some(&**point),
        _ => None,
    };
    let mut compare = |row: usize, value: &[u8]| match one {
        Some(point) if point.len() != value.len() || point != value => Some(()),
        Some(_) => found.add(row, points),
        None => found.add(row, probes.equal_to(&Stored::Bytes(value))),
    };
    if let (Some(true), Some((Point::Bytes(last), _))) = (*ascends, points.last()) {
        return page.plain_texts_until(&mut |row, value| {
            compare(row, value)?;
            Some(value > &**last)
        });
    }
    let rows = page.rows;
    let mut values = page.plain_values()?;
    let (mut before, mut is_ascending) = (&values[..0], true);
    for row in 0..rows {
        let (length, rest) = values.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        values = rest;
        compare(row, value)?;
        if ascends.is_none() {
            is_ascending = is_ascending && before <= value;
            before = value;
        }
    }
    ascends.get_or_insert(is_ascending);
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use bytes::Bytes;
    use parquet::schema::types::{ColumnDescriptor, Type};

    use super::*;
    use crate::codec::Codec;
    use crate::flat_page::with_flat_page;
    use crate::key::Key;
    use crate::page_header::{PageHeader, PageKind};

    /// A page of required values, packed, of which the last bytes may be cut off.
    fn page(values: &[u8], rows: usize, cut: usize) -> (Bytes, PageHeader) {
        let mut stored = snap::raw::Encoder::new().compress_vec(values).unwrap();
        stored.truncate(stored.len() - cut);
        let header = PageHeader {
            kind: PageKind::DataV1 { def_encoding: 3, rep_encoding: 3 },
            header_bytes: 0,
            body_bytes: stored.len(),
            inflated_bytes: values.len(),
            crc: None,
            values: rows as u32,
            encoding: 0,
        };
        (stored.into(), header)
    }

    type Rows = Option<Vec<(u32, u32)>>;

    fn column(ty: &str) -> KeyColumn {
        let physical = if ty == "string" { Physical::BYTE_ARRAY } else { Physical::INT64 };
        let leaf = Type::primitive_type_builder("k", physical).build().unwrap();
        let descr = ColumnDescriptor::new(leaf.into(), 0, 0, "k".into());
        KeyColumn::new(0, "k".into(), ty.parse().unwrap(), descr.into()).unwrap()
    }

    fn ask((stored, header): &(Bytes, PageHeader), ty: &str, keys: &[Key], ascends: &mut Option<bool>) -> Rows {
        let column = column(ty);
        let probes = Probes::new(keys, &column).unwrap();
        let run = |page: &mut FlatPage<'_>| find(page, &column, &probes, 1_000, ascends);
        with_flat_page((stored, header, Codec::Snappy), 0, run).unwrap().flatten()
    }

    #[test]
    fn bounds_are_those_of_all_values_one_by_one() {
        let sorted: Vec<i64> = (0..500).map(|i| i * i - 9_000).collect();
        let mut shuffled = sorted.clone();
        shuffled.swap(0, 300);
        shuffled.swap(499, 250);
        for (numbers, ty) in [(&sorted, "int64"), (&shuffled, "int64"), (&shuffled, "uint64")] {
            let word = |number: &i64| format!("{:08}", number + 9_000).repeat(40);
            let words: Vec<String> = numbers.iter().map(word).collect();
            let values: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            let (ints, words_page) = (page(&values, numbers.len(), 0), page(&texts(&words), numbers.len(), 0));
            let (int_column, text_column) = (column(ty), column("string"));
            let (mut of_ints, mut of_texts) = (Extent::default(), Extent::default());
            numbers.iter().for_each(|number| of_ints.see(&Stored::Int(int_column.int64(*number))));
            words.iter().for_each(|word| of_texts.see(&Stored::Bytes(word.as_bytes())));
            let asked = [
                (&ints, &int_column, of_ints.into_bounds(), numbers.is_sorted() && ty == "int64"),
                (&words_page, &text_column, of_texts.into_bounds(), words.is_sorted()),
            ];
            for ((stored, header), column, expected, ascends) in asked {
                let seen = |ascends: bool| {
                    let run = |page: &mut FlatPage<'_>| bounds(page, column, ascends);
                    with_flat_page((stored, header, Codec::Snappy), 0, run).unwrap().flatten()
                };
                assert_eq!(seen(false).as_ref(), Some(&expected));
                if ascends {
                    assert_eq!(seen(true).as_ref(), Some(&expected));
                }
            }
            let (stored, header) = page(&values, numbers.len(), 3);
            let run = |page: &mut FlatPage<'_>| bounds(page, &int_column, true);
            assert_eq!(with_flat_page((&stored, &header, Codec::Snappy), 0, run).unwrap().flatten(), None);
        }
    }

    fn texts(values: &[String]) -> Vec<u8> {
        values.iter().flat_map(|text| [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()).collect()
    }

    #[test]
    fn keys_are_found_whether_it_is_known_or_not_that_values_ascend() {
        let numbers: Vec<i64> = (0..1_000).map(|i| i / 3 * 5 - 400).collect();
        let mut shuffled = numbers.clone();
        shuffled.swap(20, 900);
        for numbers in [numbers, shuffled] {
            let is_sorted = numbers.is_sorted();
            let words: Vec<String> = numbers.iter().map(|number| format!("word-{:06}", number + 1_000)).collect();
            let values: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            let (ints, words) = (page(&values, numbers.len(), 0), page(&texts(&words), numbers.len(), 0));
            let mut questions = vec![vec![3, 10], vec![-401], vec![2_000], vec![100, 105, 1_200, 100]];
            // Each number once: equal ones lie on both sides of where inflating stops.
            questions.extend((0..334).map(|i| vec![i * 5 - 400]));
            for asked in questions {
                let expected: Vec<(u32, u32)> = (0..numbers.len())
                    .flat_map(|row| (0..asked.len()).map(move |key| (row, key)))
                    .filter(|(row, key)| numbers[*row] == asked[*key])
                    .map(|(row, key)| (row as u32, key as u32))
                    .collect();
                let int = asked.iter().map(|key| Key::Int(*key)).collect::<Vec<_>>();
                let text = asked.iter().map(|key| Key::Text(format!("word-{:06}", key + 1_000)));
                for (page, ty, keys) in [(&ints, "int64", int), (&words, "string", text.collect())] {
                    let mut ascends = None;
                    for _ in 0..2 {
                        assert_eq!(ask(page, ty, &keys, &mut ascends).as_ref(), Some(&expected), "{ty} {asked:?}");
                        assert_eq!(ascends, Some(is_sorted));
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_damaged_behind_the_last_key_is_not_seen_where_values_ascend() {
        let values: Vec<u8> = (0..4_000_i64).flat_map(i64::to_le_bytes).collect();
        let (whole, cut) = (page(&values, 4_000, 0), page(&values, 4_000, 10));
        for (key, is_there) in [(7, true), (1_500, true), (3_999, false), (9_999, false)] {
            assert_eq!(
                ask(&whole, "int64", &[Key::Int(key)], &mut Some(true)).unwrap().len(),
                usize::from(key < 4_000)
            );
            assert_eq!(ask(&cut, "int64", &[Key::Int(key)], &mut Some(true)).is_some(), is_there);
            assert_eq!(ask(&cut, "int64", &[Key::Int(key)], &mut None), None);
            assert_eq!(ask(&cut, "int64", &[Key::Int(key)], &mut Some(false)), None);
        }
        // A page that is shorter than its rows holds none of them.
        let short = page(&values, 4_001, 0);
        assert_eq!(ask(&short, "int64", &[Key::Int(9_999)], &mut Some(true)), None);
    }
}
