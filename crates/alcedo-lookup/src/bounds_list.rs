//! The bounds of the row groups of a file, or of the data pages of a column chunk: which of them may hold a key.
//!
//! A large file has many, so they are kept flat: integers in 16 bytes, byte strings in one buffer without the prefix
//! that all of them share. In files that are sorted by the key bounds ascend, and a key's place is found by halving.

use std::cmp::Ordering;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;

use crate::key_column::{Bounds, Probes};
use crate::probe::Point;

/// Flags of an entry.
const ONLY_NULLS: u8 = 1;
const NO_NULLS: u8 = 1 << 1;
const HAS_RANGE: u8 = 1 << 2;
/// The values themselves ascend, or do not; neither where nobody has looked.
const ASCENDS: u8 = 1 << 3;
const HAS_NO_ORDER: u8 = 1 << 4;

/// What is known of the values of some things in a row.
#[derive(Debug, Default)]
pub(crate) struct BoundsList {
    flags: Box<[AtomicU8]>,
    ranges: Ranges,
    /// All have a range, and neither lower nor upper ends ever descend.
    ascending: bool,
}

/// Per entry a lower and an upper end; anything where there is none.
#[derive(Debug, Clone, Default)]
enum Ranges {
    #[default]
    None,
    Ints(Box<[(i64, i64)]>),
    Bytes(Texts),
    /// What is rare: wide integers and floating point.
    Points(Box<[Option<(Point, Point)>]>),
}

/// Byte strings one after the other, lower and upper ends in turn.
#[derive(Debug, Clone)]
struct Texts {
    /// What all of them start with.
    prefix: Box<[u8]>,
    /// Where each one's rest ends.
    ends: Box<[u32]>,
    rests: Box<[u8]>,
}

impl Clone for BoundsList {
    fn clone(&self) -> Self {
        let flags = self.flags.iter().map(|flags| AtomicU8::new(flags.load(Relaxed))).collect();
        Self { flags, ranges: self.ranges.clone(), ascending: self.ascending }
    }
}

impl BoundsList {
    pub(crate) fn new(bounds: Vec<Bounds>) -> Self {
        let ascends = |pair: &[Bounds]| match (&pair[0].range, &pair[1].range) {
            (Some(one), Some(next)) => one.0 <= next.0 && one.1 <= next.1,
            _ => false,
        };
        let ascending = bounds.iter().all(|bounds| bounds.range.is_some()) && bounds.windows(2).all(ascends);
        let flag = |flag: u8, is_set: bool| if is_set { flag } else { 0 };
        let flags = bounds.iter().map(|bounds| {
            flag(ONLY_NULLS, bounds.only_nulls)
                | flag(NO_NULLS, bounds.no_nulls)
                | flag(HAS_RANGE, bounds.range.is_some())
        });
        Self { flags: flags.map(AtomicU8::new).collect(), ascending, ranges: Ranges::new(bounds) }
    }

    /// Whether the values of an entry ascend, where somebody has seen all of them.
    pub(crate) fn ascends(&self, i: usize) -> Option<bool> {
        match self.flags.get(i)?.load(Relaxed) & (ASCENDS | HAS_NO_ORDER) {
            0 => None,
            order => Some(order == ASCENDS),
        }
    }

    /// Keeps whether the values of an entry ascend, for who has seen all of them.
    pub(crate) fn note_order(&self, i: usize, ascends: bool) {
        if let Some(flags) = self.flags.get(i) {
            flags.fetch_or(if ascends { ASCENDS } else { HAS_NO_ORDER }, Relaxed);
        }
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Bounds> {
        (0..self.flags.len()).map(|i| Bounds {
            range: self.has(i, HAS_RANGE).then(|| self.ranges.get(i)).flatten(),
            only_nulls: self.has(i, ONLY_NULLS),
            no_nulls: self.has(i, NO_NULLS),
        })
    }

    fn has(&self, i: usize, flag: u8) -> bool {
        self.flags[i].load(Relaxed) & flag != 0
    }

    /// The lower end of an entry's values, where it is known.
    pub(crate) fn lower(&self, i: usize) -> Option<Point> {
        let has_range = i < self.flags.len() && self.has(i, HAS_RANGE);
        has_range.then(|| self.ranges.get(i)).flatten().map(|(lower, _)| lower)
    }

    /// Whether something is known of the values of any, beside nulls.
    pub(crate) fn has_ranges(&self) -> bool {
        !matches!(self.ranges, Ranges::None)
    }

    /// Which ones may hold any of the keys, ascending.
    pub(crate) fn candidates(&self, probes: &Probes) -> Vec<usize> {
        if !self.ascending || !probes.null_keys().is_empty() {
            return (0..self.flags.len()).filter(|i| self.may_hold(*i, probes)).collect();
        }
        let mut candidates: Vec<usize> = Vec::new();
        let mut next = 0;
        for (point, _) in probes.points() {
            // Points ascend, so nothing before the last one's first candidate holds this one.
            let mut end = self.flags.len();
            while next < end {
                let middle = next + (end - next) / 2;
                if self.ranges.compare(middle, point).1.is_lt() {
                    next = middle + 1;
                } else {
                    end = middle;
                }
            }
            let mut at = next;
            while at < self.flags.len() && self.ranges.compare(at, point).0.is_le() {
                if candidates.last().is_none_or(|last| *last < at) {
                    candidates.push(at);
                }
                at += 1;
            }
        }
        candidates
    }

    fn may_hold(&self, i: usize, probes: &Probes) -> bool {
        let null = !probes.null_keys().is_empty() && !self.has(i, NO_NULLS);
        let points = probes.points();
        let point = !self.has(i, ONLY_NULLS)
            && if self.has(i, HAS_RANGE) {
                let first = points.partition_point(|(point, _)| self.ranges.compare(i, point).0.is_gt());
                points.get(first).is_some_and(|(point, _)| self.ranges.compare(i, point).1.is_ge())
            } else {
                !points.is_empty()
            };
        null || point
    }

    /// Bytes of memory beside itself.
    pub(crate) fn weight(&self) -> usize {
        let bytes = |point: &Point| match point {
            Point::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        self.flags.len()
            + match &self.ranges {
                Ranges::None => 0,
                Ranges::Ints(ranges) => size_of_val(&**ranges),
                Ranges::Bytes(texts) => texts.prefix.len() + size_of_val(&*texts.ends) + texts.rests.len(),
                Ranges::Points(ranges) => {
                    let points = ranges.iter().flatten().map(|(min, max)| bytes(min) + bytes(max));
                    size_of_val(&**ranges) + points.sum::<usize>()
                }
            }
    }
}

impl Ranges {
    fn new(bounds: Vec<Bounds>) -> Self {
        let ranges: Vec<Option<(Point, Point)>> = bounds.into_iter().map(|bounds| bounds.range).collect();
        if ranges.iter().all(Option::is_none) {
            return Self::None;
        }
        let int = |range: &Option<(Point, Point)>| match range {
            Some((Point::Int(min), Point::Int(max))) => Some((i64::try_from(*min).ok()?, i64::try_from(*max).ok()?)),
            Some(_) => None,
            None => Some((0, 0)),
        };
        if let Some(ints) = ranges.iter().map(int).collect() {
            return Self::Ints(ints);
        }
        match Texts::new(&ranges) {
            Some(texts) => Self::Bytes(texts),
            None => Self::Points(ranges.into()),
        }
    }

    fn get(&self, i: usize) -> Option<(Point, Point)> {
        match self {
            Self::None => None,
            Self::Ints(ranges) => Some((Point::Int(ranges[i].0.into()), Point::Int(ranges[i].1.into()))),
            Self::Bytes(texts) => Some((Point::Bytes(texts.get(i * 2)), Point::Bytes(texts.get(i * 2 + 1)))),
            Self::Points(ranges) => ranges[i].clone(),
        }
    }

    /// How the lower and the upper end of an entry that has them compare with a point. Of what is not comparable the
    /// entry may hold everything.
    fn compare(&self, i: usize, point: &Point) -> (Ordering, Ordering) {
        let anything = (Ordering::Less, Ordering::Greater);
        match (self, point) {
            (Self::Ints(ranges), Point::Int(point)) => {
                (i128::from(ranges[i].0).cmp(point), i128::from(ranges[i].1).cmp(point))
            }
            (Self::Bytes(texts), Point::Bytes(point)) => (texts.compare(i * 2, point), texts.compare(i * 2 + 1, point)),
            (Self::Points(ranges), point) => ranges[i].as_ref().map_or(anything, |(min, max)| {
                let min = min.partial_cmp(point).unwrap_or(Ordering::Less);
                (min, max.partial_cmp(point).unwrap_or(Ordering::Greater))
            }),
            _ => anything,
        }
    }
}

impl Texts {
    /// None where some are no byte strings, or more than 4 GiB.
    fn new(ranges: &[Option<(Point, Point)>]) -> Option<Self> {
        let mut texts: Vec<Option<&[u8]>> = Vec::with_capacity(ranges.len() * 2);
        for range in ranges {
            match range {
                Some((Point::Bytes(min), Point::Bytes(max))) => texts.extend([Some(&**min), Some(&**max)]),
                Some(_) => return None,
                None => texts.extend([None, None]),
            }
        }
        let mut prefix: &[u8] = texts.iter().copied().flatten().next()?;
        for text in texts.iter().flatten() {
            let common = prefix.iter().zip(*text).take_while(|(a, b)| a == b).count();
            prefix = &prefix[..common];
        }
        let (mut ends, mut rests) = (Vec::with_capacity(texts.len()), Vec::new());
        for text in &texts {
            rests.extend_from_slice(text.map_or(&[][..], |text| &text[prefix.len()..]));
            ends.push(u32::try_from(rests.len()).ok()?);
        }
        Some(Self { prefix: prefix.into(), ends: ends.into(), rests: rests.into() })
    }

    fn rest(&self, i: usize) -> &[u8] {
        let start = i.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.rests[start..self.ends[i] as usize]
    }

    fn get(&self, i: usize) -> Box<[u8]> {
        [&self.prefix, self.rest(i)].concat().into()
    }

    fn compare(&self, i: usize, point: &[u8]) -> Ordering {
        let (start, rest) = point.split_at(point.len().min(self.prefix.len()));
        // A point that ends within the prefix is less than what goes on.
        (*self.prefix).cmp(start).then_with(|| self.rest(i).cmp(rest))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::key_column::KeyColumn;

    fn bounds(min: Point, max: Point) -> Bounds {
        Bounds { range: Some((min, max)), only_nulls: false, no_nulls: true }
    }

    fn text(text: &str) -> Point {
        Point::Bytes(text.as_bytes().into())
    }

    fn candidates(list: &[(i128, i128)], keys: &[i64]) -> Vec<usize> {
        let keys: Vec<Key> = keys.iter().map(|key| Key::Int(*key)).collect();
        let probes = Probes::new(&keys, &KeyColumn::of_type("int64")).unwrap();
        let list = list.iter().map(|(min, max)| bounds(Point::Int(*min), Point::Int(*max)));
        BoundsList::new(list.collect()).candidates(&probes)
    }

    #[test]
    fn candidates_are_the_same_by_halving_as_one_by_one() {
        let sorted = [(0, 5), (5, 5), (5, 9), (12, 20), (20, 20), (20, 30)];
        // The same and one that breaks the order.
        let mut broken = sorted.to_vec();
        broken.push((-100, -90));
        let mut questions: Vec<Vec<i64>> = (-1..32).map(|key| vec![key]).collect();
        questions.extend([vec![5, 20], vec![4, 5, 6, 10, 13, 31], vec![20, 20, 5, 5], vec![]]);
        for keys in questions {
            let slow = candidates(&broken, &keys);
            assert_eq!(candidates(&sorted, &keys), slow, "{keys:?}");
        }
        assert_eq!(candidates(&sorted, &[5]), [0, 1, 2]);
        assert_eq!(candidates(&sorted, &[10]), [0; 0]);
        assert_eq!(candidates(&broken, &[-95]), [6]);
    }

    #[test]
    fn texts_without_their_common_prefix_compare_as_with_it() {
        let list = [("u-1", "u-1z"), ("u-2", "u-2"), ("u-", "u-0"), ("u-3", "u-9")];
        let all: Vec<Bounds> = list.iter().map(|(min, max)| bounds(text(min), text(max))).collect();
        let flat = BoundsList::new(all.clone());
        assert_eq!(flat.iter().collect::<Vec<_>>(), all);
        for key in ["", "u", "u-", "u-0", "u-1", "u-1y", "u-2", "u-20", "u-5", "u-a", "t-1", "v", "u."] {
            let probes = Probes::new(&[Key::Text(key.into())], &KeyColumn::of_type("string")).unwrap();
            let slow: Vec<usize> = (0..4).filter(|i| list[*i].0 <= key && key <= list[*i].1).collect();
            assert_eq!(flat.candidates(&probes), slow, "{key}");
        }
    }

    #[test]
    fn entries_are_given_back_as_they_were() {
        let none = |only_nulls, no_nulls| Bounds { range: None, only_nulls, no_nulls };
        let int = |min: i128, max: i128| bounds(Point::Int(min), Point::Int(max));
        let float = bounds(Point::Float(-1.5), Point::Float(2.0));
        for list in [
            vec![none(true, false), int(-3, 1 << 40), none(false, true)],
            vec![int(-(1 << 90), 1 << 90), none(false, false)],
            vec![float, none(true, false)],
            vec![none(false, false), bounds(text("a"), text("b"))],
            vec![none(true, true)],
            vec![],
        ] {
            let flat = BoundsList::new(list.clone());
            assert_eq!(flat.iter().collect::<Vec<_>>(), list);
            assert_eq!(flat.has_ranges(), list.iter().any(|bounds| bounds.range.is_some()));
        }
    }

    #[test]
    fn an_entry_of_a_sorted_key_takes_some_tens_of_bytes() {
        let ints = (0..1_000).map(|i| bounds(Point::Int(i * 1_000), Point::Int(i * 1_000 + 999))).collect();
        assert!(BoundsList::new(ints).weight() <= 17 * 1_000);
        let texts = (0..1_000).map(|i| bounds(text(&format!("customer-{i:08}")), text(&format!("customer-{i:08}z"))));
        assert!(BoundsList::new(texts.collect()).weight() <= 26 * 1_000 + 20);
    }

    #[test]
    fn whether_values_ascend_is_told_as_it_was_noted_and_changes_nothing_else() {
        let list: Vec<Bounds> = (0..3).map(|i| bounds(Point::Int(i), Point::Int(i))).collect();
        let flat = BoundsList::new(list.clone());
        flat.note_order(0, true);
        flat.note_order(2, false);
        flat.note_order(3, true);
        for flat in [flat.clone(), flat] {
            assert_eq!([0, 1, 2, 3].map(|i| flat.ascends(i)), [Some(true), None, Some(false), None]);
            assert_eq!(flat.iter().collect::<Vec<_>>(), list);
        }
    }
}
