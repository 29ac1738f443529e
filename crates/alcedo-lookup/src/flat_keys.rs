//! Rows that hold a key, found in a plainly encoded data page as it is stored: no value is decoded but by comparing it.
//!
//! What is not understood (nulls among values, other encodings, damage) is answered with none, and the page is gone
//! through value by value.

use parquet::basic::Type as Physical;

use crate::decoded_keys::partition;
use crate::flat_page::FlatPage;
use crate::key_column::{KeyColumn, Probes, Stored};
use crate::page_check::plain_width;
use crate::probe::Point;

/// Values that are compared at once: so many comparisons take no branch.
const AT_ONCE: usize = 64;

/// The rows of the page that hold a key, ascending, each with the key's index; none where the page is not understood,
/// or where they are more than so many.
pub(crate) fn find(
    page: &mut FlatPage<'_>,
    column: &KeyColumn,
    probes: &Probes,
    most: usize,
) -> Option<Vec<(u32, u32)>> {
    let rows = page.rows;
    let values = page.plain_values()?;
    let mut found = Found { rows: Vec::new(), most };
    match column.descr.physical_type() {
        Physical::INT64 => {
            let values = fixed::<8>(values, rows)?;
            let at = |i: usize| column.int64(i64::from_le_bytes(values[i]));
            let bits = |point: i128| (point as i64).to_le_bytes();
            find_ints(values.len(), probes, &at, |range, point| any_is(&values[range], bits(point)), &mut found)?;
        }
        Physical::INT32 => {
            let values = fixed::<4>(values, rows)?;
            let at = |i: usize| column.int32(i32::from_le_bytes(values[i]));
            let bits = |point: i128| (point as i32).to_le_bytes();
            find_ints(values.len(), probes, &at, |range, point| any_is(&values[range], bits(point)), &mut found)?;
        }
        Physical::BYTE_ARRAY if matches!(column.stored_bytes(&[]), Stored::Bytes(_)) => {
            find_texts(values, rows, probes, &mut found)?;
        }
        _ => return None,
    }
    Some(found.rows)
}

/// The same of these ascending rows alone.
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

/// Values of N bytes, one per row.
fn fixed<const N: usize>(values: &[u8], rows: usize) -> Option<&[[u8; N]]> {
    values.as_chunks::<N>().0.get(..rows)
}

fn any_is<const N: usize>(values: &[[u8; N]], bits: [u8; N]) -> bool {
    values.iter().fold(false, |any, value| any | (*value == bits))
}

/// `any_is` says whether any of some values is a point, by their bits.
fn find_ints(
    rows: usize,
    probes: &Probes,
    at: &dyn Fn(usize) -> i128,
    any_is: impl Fn(std::ops::Range<usize>, i128) -> bool,
    found: &mut Found,
) -> Option<()> {
    let points = probes.points();
    if let [(Point::Int(point), _)] = points {
        for start in (0..rows).step_by(AT_ONCE) {
            let range = start..rows.min(start + AT_ONCE);
            if any_is(range.clone(), *point) {
                for row in range.filter(|row| at(*row) == *point) {
                    found.add(row, points)?;
                }
            }
        }
        return Some(());
    }
    if (1..rows).all(|row| at(row - 1) <= at(row)) {
        let mut start = 0;
        for equal in points.chunk_by(|a, b| a.0 == b.0) {
            let Point::Int(point) = equal[0].0 else { continue };
            start = partition(start..rows, |row| at(row) < point);
            while start < rows && at(start) == point {
                found.add(start, equal)?;
                start += 1;
            }
        }
        return Some(());
    }
    (0..rows).try_for_each(|row| found.add(row, probes.equal_to(&Stored::Int(at(row)))))
}

fn find_texts(mut values: &[u8], rows: usize, probes: &Probes, found: &mut Found) -> Option<()> {
    let one = match probes.points() {
        [(Point::Bytes(point), _)] => Some(&**point),
        _ => None,
    };
    for row in 0..rows {
        let (length, rest) = values.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        values = rest;
        match one {
            Some(point) if point.len() != value.len() || point != value => {}
            Some(_) => found.add(row, probes.points())?,
            None => found.add(row, probes.equal_to(&Stored::Bytes(value)))?,
        }
    }
    Some(())
}
