//! How much of a client's load may go past the workers.
//!
//! Knows counts and time. It must not know what a lookup is. A cluster that is down must not be replaced by a storm on
//! the object store: what is beyond the bound is turned away at once, and one lookup per second always goes through, so
//! that a client of few lookups never notices.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// How many lookups may be answered from the origin directly while no worker accepts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FallbackBudget {
    /// So many at once. Each reads data pages at the origin and decodes them here.
    pub concurrent: usize,
    /// Of a hundred lookups of the last minute so many, and always one per second.
    pub percent: u32,
}

impl Default for FallbackBudget {
    /// 32 at once, and 20 % of the last minute's lookups.
    fn default() -> Self {
        Self { concurrent: 32, percent: 20 }
    }
}

/// Seconds over which a client's rate is counted.
const WINDOW_SECONDS: u64 = 60;

#[derive(Debug)]
pub(crate) struct Gate {
    budget: FallbackBudget,
    running: Semaphore,
    began: Instant,
    seconds: Mutex<[Second; WINDOW_SECONDS as usize]>,
}

/// What happened in one second; a place of the window is used again a minute later.
#[derive(Debug, Clone, Copy, Default)]
struct Second {
    number: u64,
    calls: u64,
    direct: u64,
}

impl Gate {
    pub(crate) fn new(budget: FallbackBudget) -> Self {
        let running = Semaphore::new(budget.concurrent.min(Semaphore::MAX_PERMITS));
        let seconds = Mutex::new([Second::default(); WINDOW_SECONDS as usize]);
        Self { budget, running, began: Instant::now(), seconds }
    }

    pub(crate) fn budget(&self) -> FallbackBudget {
        self.budget
    }

    /// A lookup begins, wherever it will be answered.
    pub(crate) fn count(&self) {
        self.in_this_second(|second, _| second.calls += 1);
    }

    /// Lets a lookup through to the origin until the permit is dropped, or turns it away.
    pub(crate) fn enter(&self) -> Option<SemaphorePermit<'_>> {
        let permit = self.running.try_acquire().ok()?;
        let percent = u64::from(self.budget.percent);
        let may = self.in_this_second(|second, (calls, direct)| {
            let may = second.direct == 0 || (direct + 1) * 100 <= calls * percent;
            second.direct += u64::from(may);
            may
        });
        may.then_some(permit)
    }

    /// Works on the current second, given the calls and direct ones of the last minute.
    fn in_this_second<T>(&self, work: impl FnOnce(&mut Second, (u64, u64)) -> T) -> T {
        // The clock's first second is number 1, so that the empty places of the window are long ago or empty.
        let number = 1 + self.began.elapsed().as_secs();
        let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = seconds.iter().filter(|second| second.number + WINDOW_SECONDS > number);
        let sums = recent.fold((0, 0), |(calls, direct), second| (calls + second.calls, direct + second.direct));
        let place = (number % WINDOW_SECONDS) as usize;
        let second = &mut seconds[place];
        if second.number != number {
            *second = Second { number, ..Second::default() };
        }
        work(second, sums)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::advance;

    fn admitted(gate: &Gate) -> usize {
        (0..1_000).filter(|_| gate.enter().is_some()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_fifth_of_the_last_minute_and_one_per_second() {
        let gate = Gate::new(FallbackBudget::default());
        (0..100).for_each(|_| gate.count());
        assert_eq!(admitted(&gate), 20);
        for _ in 0..10 {
            advance(Duration::from_secs(1)).await;
            assert_eq!(admitted(&gate), 1);
        }
        (0..100).for_each(|_| gate.count());
        // 200 calls allow 40, of which 30 were used.
        assert_eq!(admitted(&gate), 10);
        advance(Duration::from_secs(120)).await;
        assert_eq!(admitted(&gate), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_at_once() {
        let gate = Gate::new(FallbackBudget { concurrent: 3, percent: 100 });
        (0..100).for_each(|_| gate.count());
        let held: Vec<_> = (0..3).map(|_| gate.enter().unwrap()).collect();
        assert!(gate.enter().is_none());
        drop(held);
        assert!(gate.enter().is_some());
    }
}
