//! How much is measured: a run that counts, or a short one that shows that everything works.
//!
//! Knows numbers only. It must not know what is measured.

use std::time::Duration;

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// How often everything is asked; sides take turns within each.
    pub rounds: usize,
    /// How long each load lasts in each round.
    pub load: Duration,
    /// Whether what takes minutes is done too: the mixed run lasts ten instead of half a one.
    pub long: bool,
}

impl Default for Effort {
    /// The fewest rounds whose median a single disturbance does not move; loads of tens of thousands of Redis's answers
    /// and of hundreds of ticks of its clock.
    fn default() -> Self {
        Self { rounds: 5, load: Duration::from_millis(400), long: false }
    }
}
