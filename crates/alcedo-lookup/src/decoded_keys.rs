//! A key column's data page as decoded values: the rows that hold a key are found in it without bytes.
//!
//! Values are kept in the form in which keys compare. Where they ascend, as in every page of a sorted column, a key is
//! found by halving.

use std::ops::Range;

use crate::decoded::MAX_PAGE_BYTES;
use crate::key_column::{Probes, Stored};
use crate::probe::Point;

/// The values of one data page of a key column.
#[derive(Debug)]
pub(crate) struct DecodedKeys {
    values: Values,
    /// The rows of the values within the page; none where every row has one.
    places: Option<Box<[u32]>>,
    /// The rows without a value.
    nulls: Box<[u32]>,
    /// No value is less than the one before it.
    ascending: bool,
}

#[derive(Debug)]
enum Values {
    Int(Box<[i64]>),
    Float(Box<[f64]>),
    Bytes(Texts),
}

/// Byte strings one after the other.
#[derive(Debug, Default)]
struct Texts {
    ends: Box<[u32]>,
    bytes: Box<[u8]>,
}

impl Texts {
    fn get(&self, i: usize) -> &[u8] {
        let start = i.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.bytes[start..self.ends[i] as usize]
    }
}

impl DecodedKeys {
    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        let values = match &self.values {
            Values::Int(values) => size_of_val(&**values),
            Values::Float(values) => size_of_val(&**values),
            Values::Bytes(texts) => size_of_val(&*texts.ends) + texts.bytes.len(),
        };
        size_of::<Self>()
            + values
            + self.places.as_ref().map_or(0, |places| size_of_val(&**places))
            + size_of_val(&*self.nulls)
    }

    /// Hands on the rows within the page that hold a key, ascending, each with the key's index. `found` says whether to
    /// go on.
    ///
    /// # Errors
    /// Those of `found`.
    pub(crate) fn find<E>(&self, probes: &Probes, found: &mut dyn FnMut(u32, u32) -> Result<(), E>) -> Result<(), E> {
        if probes.null_keys().is_empty() {
            return self.find_points(probes, found);
        }
        // Rows with a value and rows without one take turns.
        let mut rows = Vec::new();
        self.find_points::<E>(probes, &mut |row, key| {
            rows.push((row, key));
            Ok(())
        })?;
        rows.extend(self.nulls.iter().flat_map(|row| probes.null_keys().iter().map(|key| (*row, *key))));
        rows.sort_by_key(|(row, _)| *row);
        rows.into_iter().try_for_each(|(row, key)| found(row, key))
    }

    fn find_points<E>(&self, probes: &Probes, found: &mut dyn FnMut(u32, u32) -> Result<(), E>) -> Result<(), E> {
        let points = probes.points();
        let row = |i: usize| self.places.as_ref().map_or(i as u32, |places| places[i]);
        if self.ascending {
            let mut at = 0;
            for equal in points.chunk_by(|a, b| a.0 == b.0) {
                let range = self.values.equal_range(&equal[0].0, at);
                at = range.end;
                for i in range {
                    equal.iter().try_for_each(|(_, key)| found(row(i), *key))?;
                }
            }
            return Ok(());
        }
        if let [(point, key)] = points {
            return self.values.find_one(point, &mut |i| found(row(i), *key));
        }
        for i in 0..self.values.len() {
            probes.equal_to(&self.values.stored(i)).iter().try_for_each(|(_, key)| found(row(i), *key))?;
        }
        Ok(())
    }
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::Int(values) => values.len(),
            Self::Float(values) => values.len(),
            Self::Bytes(texts) => texts.ends.len(),
        }
    }

    fn stored(&self, i: usize) -> Stored<'_> {
        match self {
            Self::Int(values) => Stored::Int(values[i].into()),
            Self::Float(values) => Stored::Float(values[i]),
            Self::Bytes(texts) => Stored::Bytes(texts.get(i)),
        }
    }

    /// Where a value stands among ascending ones, from a place on before which all are less.
    fn equal_range(&self, point: &Point, from: usize) -> Range<usize> {
        match (self, point) {
            (Self::Int(values), Point::Int(point)) => {
                equal_in(&values[from..], from, |value| i128::from(*value).cmp(point))
            }
            (Self::Float(values), Point::Float(point)) => {
                equal_in(&values[from..], from, |value| value.partial_cmp(point).unwrap_or(std::cmp::Ordering::Less))
            }
            (Self::Bytes(texts), Point::Bytes(point)) => {
                let less = partition(from..texts.ends.len(), |i| texts.get(i) < &**point);
                let end = if (less..texts.ends.len()).next().is_some_and(|i| texts.get(i) == &**point) {
                    partition(less..texts.ends.len(), |i| texts.get(i) <= &**point)
                } else {
                    less
                };
                less..end
            }
            _ => from..from,
        }
    }

    /// Goes through all values for one.
    fn find_one<E>(&self, point: &Point, found: &mut dyn FnMut(usize) -> Result<(), E>) -> Result<(), E> {
        match (self, point) {
            (Self::Int(values), Point::Int(point)) => match i64::try_from(*point) {
                Ok(point) => scan(values, |value| *value == point, found),
                Err(_) => Ok(()),
            },
            (Self::Float(values), Point::Float(point)) => scan(values, |value| value == point, found),
            (Self::Bytes(texts), Point::Bytes(point)) => {
                (0..texts.ends.len()).filter(|i| texts.get(*i) == &**point).try_for_each(found)
            }
            _ => Ok(()),
        }
    }
}

/// Values that are compared at once: so many comparisons take no branch.
const AT_ONCE: usize = 64;

fn scan<T, E>(
    values: &[T],
    is_equal: impl Fn(&T) -> bool,
    found: &mut dyn FnMut(usize) -> Result<(), E>,
) -> Result<(), E> {
    for (chunk, some) in values.chunks(AT_ONCE).enumerate() {
        if some.iter().fold(false, |any, value| any | is_equal(value)) {
            let at = chunk * AT_ONCE;
            (0..some.len()).filter(|i| is_equal(&some[*i])).try_for_each(|i| found(at + i))?;
        }
    }
    Ok(())
}

fn equal_in<T>(values: &[T], from: usize, order: impl Fn(&T) -> std::cmp::Ordering) -> Range<usize> {
    let less = values.partition_point(|value| order(value).is_lt());
    let equal = values[less..].iter().take(2).take_while(|value| order(value).is_eq()).count();
    // Keys are unique as a rule.
    let equal = if equal < 2 { equal } else { values[less..].partition_point(|value| order(value).is_eq()) };
    from + less..from + less + equal
}

/// The first place of which `is_before` is false.
pub(crate) fn partition(places: Range<usize>, is_before: impl Fn(usize) -> bool) -> usize {
    let Range { mut start, mut end } = places;
    while start < end {
        let middle = start + (end - start) / 2;
        if is_before(middle) {
            start = middle + 1;
        } else {
            end = middle;
        }
    }
    start
}

/// A page's values in the making; it gives up over values that are too wide or too many bytes.
#[derive(Default)]
pub(crate) struct KeyCollector {
    rows: u32,
    ints: Vec<i64>,
    floats: Vec<f64>,
    ends: Vec<u32>,
    bytes: Vec<u8>,
    places: Vec<u32>,
    nulls: Vec<u32>,
    is_too_much: bool,
}

impl KeyCollector {
    pub(crate) fn see_null(&mut self) {
        self.nulls.push(self.rows);
        self.rows += 1;
        self.is_too_much |= self.nulls.len() * size_of::<u32>() > MAX_PAGE_BYTES;
    }

    pub(crate) fn see(&mut self, value: &Stored<'_>) {
        if self.is_too_much {
            return;
        }
        let is_value = match value {
            Stored::Int(value) => self.int(*value),
            Stored::Float(value) => self.float(*value),
            Stored::Bytes(value) => self.text(value),
            Stored::Point(Some(Point::Int(value))) => self.int(*value),
            Stored::Point(Some(Point::Float(value))) => self.float(*value),
            Stored::Point(Some(Point::Bytes(value))) => self.text(value),
            // No key asks for it.
            Stored::Point(None) => false,
        };
        if is_value {
            self.places.push(self.rows);
        }
        self.rows += 1;
        self.is_too_much |= self.places.len() * size_of::<u64>() + self.bytes.len() > MAX_PAGE_BYTES;
    }

    fn int(&mut self, value: i128) -> bool {
        match i64::try_from(value) {
            Ok(value) => self.ints.push(value),
            Err(_) => self.is_too_much = true,
        }
        true
    }

    fn float(&mut self, value: f64) -> bool {
        if !value.is_nan() {
            self.floats.push(value);
        }
        !value.is_nan()
    }

    fn text(&mut self, value: &[u8]) -> bool {
        if self.bytes.len() + value.len() > MAX_PAGE_BYTES {
            self.is_too_much = true;
        } else {
            self.bytes.extend_from_slice(value);
            self.ends.push(self.bytes.len() as u32);
        }
        true
    }

    /// The page, unless it was too much.
    pub(crate) fn finish(self) -> Option<DecodedKeys> {
        if self.is_too_much {
            return None;
        }
        let places = (self.places.len() != self.rows as usize).then(|| self.places.into_boxed_slice());
        let texts = Texts { ends: self.ends.into(), bytes: self.bytes.into() };
        let (values, ascending) = if !texts.ends.is_empty() {
            let ascending = (1..texts.ends.len()).all(|i| texts.get(i - 1) <= texts.get(i));
            (Values::Bytes(texts), ascending)
        } else if !self.floats.is_empty() {
            let ascending = self.floats.is_sorted();
            (Values::Float(self.floats.into()), ascending)
        } else {
            let ascending = self.ints.is_sorted();
            (Values::Int(self.ints.into()), ascending)
        };
        Some(DecodedKeys { values, places, nulls: self.nulls.into(), ascending })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::key_column::KeyColumn;

    fn collected(values: &[Option<Stored<'_>>]) -> DecodedKeys {
        let mut collector = KeyCollector::default();
        for value in values {
            match value {
                Some(value) => collector.see(value),
                None => collector.see_null(),
            }
        }
        collector.finish().unwrap()
    }

    fn found(page: &DecodedKeys, ty: &str, keys: &[Key]) -> Vec<(u32, u32)> {
        let mut rows = Vec::new();
        let probes = Probes::new(keys, &KeyColumn::of_type(ty)).unwrap();
        page.find::<()>(&probes, &mut |row, key| {
            rows.push((row, key));
            Ok(())
        })
        .unwrap();
        rows
    }

    #[test]
    fn rows_of_keys_are_found_whether_values_ascend_or_not() {
        for values in [[1, 3, 3, 7, 9], [9, 3, 1, 3, 7]] {
            let page = collected(&values.map(|value| Some(Stored::Int(value))));
            let rows = |asked: i128| (0..5_u32).filter(move |i| values[*i as usize] == asked);
            for key in 0..11 {
                let expected: Vec<(u32, u32)> = rows(key.into()).map(|row| (row, 0)).collect();
                assert_eq!(found(&page, "int64", &[Key::Int(key)]), expected, "{values:?}, {key}");
            }
            // Two keys ask for the same, one for what is not there.
            let mut expected: Vec<(u32, u32)> = rows(3).flat_map(|row| [(row, 0), (row, 2)]).collect();
            expected.extend(rows(9).map(|row| (row, 3)));
            expected.sort_unstable();
            assert_eq!(found(&page, "int64", &[3, 4, 3, 9].map(Key::Int)), expected, "{values:?}");
        }
    }

    #[test]
    fn nulls_and_values_that_nobody_can_ask_for_keep_their_rows() {
        let floats = [Some(Stored::Float(1.0)), None, Some(Stored::Float(f64::NAN)), Some(Stored::Float(-0.0)), None];
        let page = collected(&floats);
        assert_eq!(found(&page, "float64", &[Key::Float(0.0)]), [(3, 0)]);
        assert_eq!(
            found(&page, "float64", &[Key::Null, Key::Float(1.0), Key::Null]),
            [(0, 1), (1, 0), (1, 2), (4, 0), (4, 2)]
        );
    }

    #[test]
    fn texts_are_found_and_too_much_is_given_up() {
        let texts = ["ab", "b", "b", "ca"];
        let page = collected(&texts.map(|text| Some(Stored::Bytes(text.as_bytes()))));
        let key = |text: &str| Key::Text(text.into());
        assert_eq!(found(&page, "string", &[key("b")]), [(1, 0), (2, 0)]);
        assert_eq!(found(&page, "string", &[key("ca"), key("a"), key("ab")]), [(0, 2), (3, 0)]);
        let mut collector = KeyCollector::default();
        collector.see(&Stored::Int(1));
        collector.see(&Stored::Int(1 << 80));
        assert!(collector.finish().is_none());
        let mut collector = KeyCollector::default();
        collector.see(&Stored::Bytes(&vec![0; MAX_PAGE_BYTES + 1]));
        assert!(collector.finish().is_none());
    }
}
