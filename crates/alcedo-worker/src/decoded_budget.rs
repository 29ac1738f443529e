//! Layer 3: how the memory for decoded things is divided.
//!
//! Knows two tiers, rows and data pages, and what each byte of them saved lately. It must not know what is in them.
//! Rows pay most where few keys are asked for again and again, pages where many keys are asked for in few places: which
//! of both a worker sees is measured, not configured.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use alcedo_lookup::decoded::DecodedPages;
use tokio::time::Instant;

use crate::hot_rows::HotRows;
use crate::metrics::Metrics;

/// How long what the tiers save is counted before some room changes hands: thousands of lookups on a busy worker.
const WINDOW: Duration = Duration::from_secs(5);
/// Hits of a window that tell enough.
const MIN_HITS: u64 = 1_000;
/// Each tier keeps at least this part of all, in percent: one that has nothing cannot show what it would save.
const LEAST_PERCENT: u64 = 10;
/// Where they begin.
const ROWS_PERCENT: u64 = 50;
/// What changes hands after a window.
const STEP_PERCENT: u64 = 5;
/// A tier takes room only from one that saves so many times less per byte: where both save alike nothing moves.
const WORTH_IT: f64 = 1.25;
/// What a decoded data page saves: to read, decompress and decode one of 64 KiB (measured: 85 to 160 us).
const PAGE_SAVES_US: f64 = 100.0;

/// The rule that divides them.
#[derive(Debug)]
pub(crate) struct DecodedBudget {
    total: u64,
    window: Mutex<Window>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    began: Instant,
    rows_percent: u64,
    /// What of the total may be used, in percent.
    room_percent: u64,
    seen: Seen,
}

/// Counts so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) row_hits: u64,
    pub(crate) page_hits: u64,
    /// Searches for keys that were not hot and needed no origin, per key, and their time.
    pub(crate) searched: u64,
    pub(crate) searched_us: u64,
}

impl DecodedBudget {
    pub(crate) fn new(total: u64) -> Self {
        let window =
            Window { began: Instant::now(), rows_percent: ROWS_PERCENT, room_percent: 100, seen: Seen::default() };
        Self { total, window: Mutex::new(window) }
    }

    /// Bytes of rows and of pages.
    pub(crate) fn parts(&self) -> (u64, u64) {
        let Window { rows_percent, room_percent, .. } = *self.lock();
        let of = |bytes: u64, percent: u64| bytes / 100 * percent + bytes % 100 * percent / 100;
        let total = of(self.total, room_percent);
        let rows = of(total, rows_percent);
        (rows, total - rows)
    }

    /// Lets both together have this part of the total, in percent.
    pub(crate) fn set_room(&self, percent: u64, rows: &HotRows, pages: &DecodedPages) {
        let before = std::mem::replace(&mut self.lock().room_percent, percent);
        if before != percent {
            self.divide(rows, pages);
        }
    }

    /// Looks whether a window is over, and then gives room to the tier whose bytes saved more in it.
    pub(crate) fn look(&self, rows: &HotRows, pages: &DecodedPages, metrics: &Metrics) {
        let seen = Seen {
            row_hits: metrics.hot_rows_hits.get(),
            page_hits: pages.hits(),
            searched: metrics.searched_keys.get(),
            searched_us: metrics.searched_us.get(),
        };
        if self.total > 0 && self.note(seen, Instant::now()) {
            self.divide(rows, pages);
        }
    }

    fn divide(&self, rows: &HotRows, pages: &DecodedPages) {
        let (row_bytes, page_bytes) = self.parts();
        // The one that becomes smaller first, so that both together never have more than there is.
        if row_bytes < rows.capacity_bytes() {
            rows.set_capacity(row_bytes);
            pages.set_capacity(page_bytes);
        } else {
            pages.set_capacity(page_bytes);
            rows.set_capacity(row_bytes);
        }
    }

    /// Whether the parts have changed.
    fn note(&self, seen: Seen, now: Instant) -> bool {
        let mut window = self.lock();
        let of = |count: fn(&Seen) -> u64| count(&seen).saturating_sub(count(&window.seen));
        let (row_hits, page_hits) = (of(|seen| seen.row_hits), of(|seen| seen.page_hits));
        if now.saturating_duration_since(window.began) < WINDOW || row_hits + page_hits < MIN_HITS {
            return false;
        }
        // A row that is not there is searched for; where nothing was, a search is taken to cost what a page does.
        let searched = of(|seen| seen.searched);
        let row_saves =
            if searched == 0 { PAGE_SAVES_US } else { of(|seen| seen.searched_us) as f64 / searched as f64 };
        let per_byte = |hits: u64, saves: f64, percent: u64| hits as f64 * saves / percent as f64;
        let rows = per_byte(row_hits, row_saves, window.rows_percent);
        let pages = per_byte(page_hits, PAGE_SAVES_US, 100 - window.rows_percent);
        let percent = if rows > pages * WORTH_IT {
            (window.rows_percent + STEP_PERCENT).min(100 - LEAST_PERCENT)
        } else if pages > rows * WORTH_IT {
            (window.rows_percent - STEP_PERCENT).max(LEAST_PERCENT)
        } else {
            window.rows_percent
        };
        let has_changed = percent != window.rows_percent;
        *window = Window { began: now, rows_percent: percent, seen, ..*window };
        has_changed
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Window> {
        // Numbers; nothing panics between their changes.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn budget_after(windows: u64, seen: Seen) -> (u64, u64) {
        let budget = DecodedBudget::new(1_000);
        for window in 1..=windows {
            let times = |count: u64| count * window;
            let Seen { row_hits, page_hits, searched, searched_us } = seen;
            let (searched, searched_us) = (times(searched), times(searched_us));
            let seen = Seen { row_hits: times(row_hits), page_hits: times(page_hits), searched, searched_us };
            budget.note(seen, Instant::now() + WINDOW * u32::try_from(window).unwrap() * 2);
        }
        budget.parts()
    }

    #[test]
    fn room_goes_to_the_tier_that_saves_more_and_both_keep_some() {
        let searched =
            |row_hits, page_hits, each: u64| Seen { row_hits, page_hits, searched: 10, searched_us: each * 10 };
        assert_eq!(budget_after(1, searched(90_000, 1_000, 100)), (550, 450));
        assert_eq!(budget_after(50, searched(90_000, 1_000, 100)), (900, 100));
        assert_eq!(budget_after(50, searched(1_000, 90_000, 100)), (100, 900));
        // Searches are cheap because of the pages: a row saves little.
        assert_eq!(budget_after(50, searched(90_000, 90_000, 5)), (100, 900));
        // Too little to tell, and both alike.
        assert_eq!(budget_after(50, searched(10, 1, 100)).0 + budget_after(1, searched(10, 1, 100)).1, 1_000);
        assert_eq!(budget_after(50, searched(50_000, 50_000, 100)), (500, 500));
        assert_eq!(DecodedBudget::new(0).parts(), (0, 0));
    }

    #[test]
    fn both_give_room_back_and_take_it_again() {
        let (budget, metrics) = (DecodedBudget::new(1_000_000), Arc::<Metrics>::default());
        let (rows, pages) = (HotRows::new(500_000, metrics), DecodedPages::new(500_000));
        for percent in [100, 40, 5, 60, 100] {
            budget.set_room(percent, &rows, &pages);
            assert_eq!((rows.capacity_bytes(), pages.capacity()), (5_000 * percent, 5_000 * percent));
        }
    }
}
