//! What calls may cost beyond their first try.
//!
//! Knows tokens: every call saves up a part of one, every repetition spends one. It must not know why a call is
//! repeated. The bucket is that of gRPC's retry throttling (proposal A6) with the ratio of the SRE book: what a client
//! adds to the load of a cluster in trouble stays a small part of its usual load.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many calls may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Of a hundred calls so many may be repeated.
    pub percent: u32,
    /// So many may be repeated before that, for a client that has made few calls when a worker is lost under it.
    pub reserve: u32,
}

impl Budget {
    /// For calls that a worker may have accepted before it was lost: 10 %.
    pub const RETRIES: Self = Self { percent: 10, reserve: 100 };
    /// For lookups that are asked of a second worker while the first one is still silent: 5 %.
    pub const HEDGES: Self = Self { percent: 5, reserve: 20 };
    /// Nothing is ever repeated.
    pub const NONE: Self = Self { percent: 0, reserve: 0 };
}

/// A token in the unit in which it is saved up: a percent of one.
const TOKEN: u64 = 100;
/// Most retries that are saved up: enough for all calls that a lost worker leaves behind, few enough that a long quiet
/// time does not buy a storm.
pub(crate) const MOST_RETRIES: u32 = 1_000;
/// Most hedges that are saved up. They are for the odd slow answer: a worker that is silent altogether is led around at
/// no cost, and where all answers become slow at once, which is when workers have least to spare, more calls make them
/// slower.
pub(crate) const MOST_HEDGES: u32 = 20;

/// The budget of one client, shared by its clones.
#[derive(Debug)]
pub(crate) struct Tokens {
    percent: u64,
    most: u64,
    saved: AtomicU64,
}

impl Tokens {
    /// A budget of which at most so many, or its reserve if that is more, are saved up.
    pub(crate) fn new(budget: Budget, most_saved: u32) -> Self {
        let reserve = u64::from(budget.reserve) * TOKEN;
        let percent = u64::from(budget.percent.min(100));
        Self { percent, most: reserve.max(u64::from(most_saved) * TOKEN), saved: AtomicU64::new(reserve) }
    }

    /// A call begins.
    pub(crate) fn save(&self) {
        // Not a loop: where two calls meet, one part of a token more or less does not matter.
        if self.saved.load(Ordering::Relaxed) < self.most {
            self.saved.fetch_add(self.percent, Ordering::Relaxed);
        }
    }

    /// Whether a call may be repeated; if so, it is paid for.
    pub(crate) fn spend(&self) -> bool {
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(TOKEN)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_of_a_hundred_and_not_one_more() {
        let tokens = Tokens::new(Budget { percent: 10, reserve: 0 }, MOST_RETRIES);
        assert!(!tokens.spend());
        (0..100).for_each(|_| tokens.save());
        assert_eq!((0..100).filter(|_| tokens.spend()).count(), 10);
        (0..9).for_each(|_| tokens.save());
        assert!(!tokens.spend());
        tokens.save();
        assert!(tokens.spend());
    }

    #[test]
    fn the_reserve_is_there_once_and_savings_end() {
        let tokens = Tokens::new(Budget { percent: 5, reserve: 3 }, MOST_RETRIES);
        assert_eq!((0..100).filter(|_| tokens.spend()).count(), 3);
        (0..1_000_000).for_each(|_| tokens.save());
        assert_eq!((0..100_000).filter(|_| tokens.spend()).count(), 1_000);
        let none = Tokens::new(Budget::NONE, MOST_HEDGES);
        (0..1_000).for_each(|_| none.save());
        assert!(!none.spend());
    }
}
