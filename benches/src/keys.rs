//! Which rows are asked for, one after the other: uniformly, or some far more often than others.
//!
//! Knows distributions. It must not know tables. The same seed gives the same rows in every run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::table::mixed;

/// How skewed a distribution is by which few keys are asked most: YCSB's usual choice.
const THETA: f64 = 0.99;
/// Rows that are drawn ahead; a load that asks for more begins anew.
const DRAWN: u64 = 1 << 20;
/// A prime above any table's rows: neighbours in rank are spread over the table, and no two meet.
const SPREAD: u64 = 4_294_967_291;

/// Rows to ask for. Clones go on together, so that no two loads ask for the same ones.
#[derive(Debug, Clone)]
pub struct Keys {
    rows: Arc<[u64]>,
    next: Arc<AtomicUsize>,
}

impl Keys {
    /// Every row of a table of so many as often as any other.
    #[must_use]
    pub fn uniform(rows: u64) -> Self {
        Self::drawn(rows, 3 << 60)
    }

    /// The same, but other rows first: what makes a file hot must not make hot what is measured afterwards.
    #[must_use]
    pub fn heating(rows: u64) -> Self {
        Self::drawn(rows, 7 << 60)
    }

    fn drawn(rows: u64, seed: u64) -> Self {
        Self::from((0..DRAWN).map(|number| mixed(number ^ seed) % rows.max(1)).collect::<Vec<_>>())
    }

    /// Zipf's distribution with exponent 0.99, over a table of so many rows, spread over all of it.
    #[must_use]
    pub fn zipf(rows: u64) -> Self {
        // Gray et al., "Quickly generating billion-record synthetic databases", 1994.
        let rows = rows.max(2);
        let zeta = |count: u64| (1..=count).map(|rank| (rank as f64).powf(-THETA)).sum::<f64>();
        let (whole, two) = (zeta(rows), zeta(2));
        let alpha = 1.0 / (1.0 - THETA);
        let eta = (1.0 - (2.0 / rows as f64).powf(1.0 - THETA)) / (1.0 - two / whole);
        let rank = |number: u64| {
            let uniform = (mixed(number ^ (5 << 60)) >> 11) as f64 / (1_u64 << 53) as f64;
            match uniform * whole {
                part if part < 1.0 => 0,
                part if part < two => 1,
                _ => (rows as f64 * (eta * uniform - eta + 1.0).powf(alpha)) as u64,
            }
        };
        Self::from((0..DRAWN).map(|number| rank(number).min(rows - 1) * SPREAD % rows).collect::<Vec<_>>())
    }

    /// The next one.
    #[must_use]
    pub fn draw(&self) -> u64 {
        let place = self.next.fetch_add(1, Ordering::Relaxed);
        self.rows[place % self.rows.len()]
    }
}

impl From<Vec<u64>> for Keys {
    /// These, again and again; there must be one.
    fn from(rows: Vec<u64>) -> Self {
        Self { rows: rows.into(), next: Arc::default() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn counts(keys: &Keys, draws: usize) -> Vec<usize> {
        let mut counts: HashMap<u64, usize> = HashMap::new();
        (0..draws).for_each(|_| *counts.entry(keys.draw()).or_default() += 1);
        let mut counts: Vec<usize> = counts.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts
    }

    #[test]
    fn the_distributions_are_what_they_are_called() {
        let uniform = counts(&Keys::uniform(1_000), 100_000);
        assert!(uniform.len() == 1_000 && uniform[0] < 160, "{}", uniform[0]);
        let zipf = counts(&Keys::zipf(1_000), 100_000);
        // The harmonic number of 1,000 with exponent 0.99 is 7.7: the first has an eighth of all, the second half of
        // it.
        assert!((12_000..14_500).contains(&zipf[0]), "{}", zipf[0]);
        assert!((5_500..7_500).contains(&zipf[1]), "{}", zipf[1]);
        assert!(zipf.len() > 900);
    }
}
