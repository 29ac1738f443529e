//! The bounds of the row groups of a file, or of the data pages of a column chunk: which of them may hold a key.
//!
//! In files that are sorted by the key bounds ascend, and a key's place is found by halving.

use crate::key_column::{Bounds, Probes};

/// What is known of the values of some things in a row.
#[derive(Debug, Clone, Default)]
pub(crate) struct BoundsList {
    bounds: Box<[Bounds]>,
    /// All have a range, and neither lower nor upper ends ever descend.
    ascending: bool,
    has_ranges: bool,
}

impl BoundsList {
    pub(crate) fn new(bounds: Vec<Bounds>) -> Self {
        let ascends = |pair: &[Bounds]| match (&pair[0].range, &pair[1].range) {
            (Some(one), Some(next)) => one.0 <= next.0 && one.1 <= next.1,
            _ => false,
        };
        let ascending = bounds.iter().all(|bounds| bounds.range.is_some()) && bounds.windows(2).all(ascends);
        let has_ranges = bounds.iter().any(|bounds| bounds.range.is_some());
        Self { bounds: bounds.into(), ascending, has_ranges }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Bounds> {
        self.bounds.iter()
    }

    /// Whether something is known of the values of any, beside nulls.
    pub(crate) fn has_ranges(&self) -> bool {
        self.has_ranges
    }

    /// Which ones may hold any of the keys, ascending.
    pub(crate) fn candidates(&self, probes: &Probes) -> Vec<usize> {
        if !self.ascending || !probes.null_keys().is_empty() {
            return (0..self.bounds.len()).filter(|i| probes.may_be_in(&self.bounds[*i])).collect();
        }
        let mut candidates: Vec<usize> = Vec::new();
        let mut next = 0;
        for (point, _) in probes.points() {
            // Points ascend, so nothing before the last one's first candidate holds this one.
            let ends_before = |bounds: &Bounds| bounds.range.as_ref().is_some_and(|(_, max)| max < point);
            next += self.bounds[next..].partition_point(ends_before);
            let holds = |bounds: &&Bounds| bounds.range.as_ref().is_some_and(|(min, _)| min <= point);
            let end = next + self.bounds[next..].iter().take_while(holds).count();
            let new = candidates.last().map_or(next, |last| next.max(last + 1));
            candidates.extend(new..end);
        }
        candidates
    }

    /// Bytes of memory beside itself.
    pub(crate) fn weight(&self) -> usize {
        let bytes = |point: &crate::probe::Point| match point {
            crate::probe::Point::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        let ranges = self.bounds.iter().filter_map(|bounds| bounds.range.as_ref());
        size_of_val(&*self.bounds) + ranges.map(|(min, max)| bytes(min) + bytes(max)).sum::<usize>()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::key_column::KeyColumn;
    use crate::probe::Point;

    fn bounds(min: i128, max: i128) -> Bounds {
        Bounds { range: Some((Point::Int(min), Point::Int(max))), only_nulls: false, no_nulls: true }
    }

    fn candidates(list: &[(i128, i128)], keys: &[i64]) -> Vec<usize> {
        let keys: Vec<Key> = keys.iter().map(|key| Key::Int(*key)).collect();
        let probes = Probes::new(&keys, &KeyColumn::of_type("int64")).unwrap();
        BoundsList::new(list.iter().map(|(min, max)| bounds(*min, *max)).collect()).candidates(&probes)
    }

    #[test]
    fn candidates_are_the_same_by_halving_as_one_by_one() {
        let sorted = [(0, 5), (5, 5), (5, 9), (12, 20), (20, 20), (20, 30)];
        // The same and one that breaks the order, which is left out of the comparison.
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
    }
}
