//! The last few measurements of one thing, and what they say together.
//!
//! Knows numbers and their order. It must not know what they measure. An average follows every outlier, and a sum over
//! all time never forgets; the quantile of a short memory does neither, and it is exact.

use std::collections::VecDeque;

/// Measurements that are remembered: enough for a quantile that one outlier does not move, few enough that a change is
/// known after some dozens of them.
const REMEMBERED: usize = 64;

/// The last 64 measurements.
#[derive(Debug, Clone, Default)]
pub struct Recent {
    values: VecDeque<u64>,
}

impl Recent {
    /// Remembers one more, and forgets the oldest when there are too many.
    pub fn add(&mut self, value: u64) {
        if self.values.len() == REMEMBERED {
            self.values.pop_front();
        }
        self.values.push_back(value);
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether nothing was measured yet.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The remembered values, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.values.iter().copied()
    }

    /// How many are greater than this.
    pub fn above(&self, bound: u64) -> usize {
        self.values.iter().filter(|value| **value > bound).count()
    }

    /// The value that so many per cent of all are at most, the smallest such; none if nothing was measured.
    pub fn quantile(&self, per_cent: usize) -> Option<u64> {
        let mut values: Vec<u64> = self.values.iter().copied().collect();
        values.sort_unstable();
        let rank = (values.len() * per_cent).div_ceil(100).max(1);
        values.get(rank - 1).copied()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_last_ones_only() {
        let mut recent = Recent::default();
        assert_eq!((recent.quantile(50), recent.is_empty()), (None, true));
        recent.add(7);
        assert_eq!((recent.quantile(0), recent.quantile(50), recent.quantile(100)), (Some(7), Some(7), Some(7)));
        (0..1_000).for_each(|value| recent.add(value));
        assert_eq!((recent.len(), recent.iter().next()), (REMEMBERED, Some(936)));
        assert_eq!((recent.quantile(100), recent.quantile(50), recent.quantile(20)), (Some(999), Some(967), Some(948)));
        assert_eq!((recent.above(999), recent.above(998), recent.above(0)), (0, 1, REMEMBERED));
    }

    #[test]
    fn one_outlier_moves_no_quantile_far() {
        let mut recent = Recent::default();
        (0..20).for_each(|_| recent.add(30));
        recent.add(u64::MAX);
        recent.add(0);
        assert_eq!((recent.quantile(20), recent.quantile(50)), (Some(30), Some(30)));
    }
}
