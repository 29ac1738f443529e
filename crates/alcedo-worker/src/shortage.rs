//! Layer 3: whether a serving thread is short of CPU.
//!
//! Knows how long lookups waited lately for their turn on this thread, and how much of the time it worked. It must not
//! know what is done about it. A wait alone may be a burst; work alone may be all that there is to do: a thread is
//! short of CPU while both last. It is so until waits are much shorter, so that what relieves it does not end itself.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// What is looked at together before the verdict changes: hundreds of lookups of a busy thread.
const WINDOW: Duration = Duration::from_millis(100);
/// A thread becomes short when it worked for one part in so many of a window. The rest goes into sockets and frames.
const BUSY_SHARE: u32 = 2;
/// It stays short while it works for one part in so many: relief takes work away, and silence ends it.
const STILL_BUSY_SHARE: u32 = 10;
/// It stays short while waits are one part in so many of what made it so.
const STILL_WAIT_SHARE: u32 = 4;

thread_local! {
    static HERE: Cell<Shortage> = const { Cell::new(Shortage::NONE) };
}

/// The window so far, and the verdict of the one before it.
#[derive(Debug, Clone, Copy)]
struct Shortage {
    began: Option<Instant>,
    lookups: u32,
    waited: Duration,
    worked: Duration,
    is_short: bool,
}

impl Shortage {
    const NONE: Self =
        Self { began: None, lookups: 0, waited: Duration::ZERO, worked: Duration::ZERO, is_short: false };

    /// A lookup begins after this wait; `above` is the wait that makes a thread short.
    fn waited(self, wait: Duration, above: Duration, now: Instant) -> Self {
        let mut next = self;
        let elapsed = now.saturating_duration_since(*next.began.get_or_insert(now));
        if elapsed >= WINDOW {
            let mean = self.waited / self.lookups.max(1);
            let is_short = match self.is_short {
                false => mean >= above && self.worked >= elapsed / BUSY_SHARE,
                true => mean >= above / STILL_WAIT_SHARE && self.worked >= elapsed / STILL_BUSY_SHARE,
            };
            next = Self { began: Some(now), is_short, ..Self::NONE };
        }
        Self { lookups: next.lookups.saturating_add(1), waited: next.waited + wait, ..next }
    }
}

/// A lookup begins on this thread after this wait; `above` is the wait on average that makes a thread short.
pub(crate) fn waited(wait: Duration, above: Duration) {
    HERE.set(HERE.get().waited(wait, above, Instant::now()));
}

/// The thread worked for so long.
pub(crate) fn worked(took: Duration) {
    let here = HERE.get();
    HERE.set(Shortage { worked: here.worked + took, ..here });
}

/// Whether the thread was short of CPU in the last window.
pub(crate) fn is_short() -> bool {
    HERE.get().is_short
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const ABOVE: Duration = Duration::from_millis(2);

    /// A second of lookups, one each millisecond, that wait and take so long; whether the thread is short after it.
    fn after(mut here: Shortage, now: &mut Instant, wait: Duration, work: Duration) -> Shortage {
        for _ in 0..1_000 {
            *now += Duration::from_millis(1);
            here = here.waited(wait, ABOVE, *now);
            here.worked += work;
        }
        here
    }

    #[test]
    fn waits_and_work_that_last_make_a_thread_short_and_shorter_waits_end_it() {
        let (mut now, us) = (Instant::now(), Duration::from_micros);
        let idle = after(Shortage::NONE, &mut now, us(3_000), us(100));
        assert!(!idle.is_short, "bursts");
        let busy = after(idle, &mut now, us(1_500), us(900));
        assert!(!busy.is_short, "no waits");
        let short = after(busy, &mut now, us(2_500), us(900));
        assert!(short.is_short);
        // Relief makes the waits shorter and takes work away.
        let relieved = after(short, &mut now, us(1_000), us(300));
        assert!(relieved.is_short);
        assert!(!after(relieved, &mut now, us(400), us(300)).is_short);
        assert!(!after(relieved, &mut now, us(1_000), us(50)).is_short);
        // Who asks after a silence finds no shortage.
        now += Duration::from_secs(9);
        assert!(!relieved.waited(us(2_500), ABOVE, now).is_short);
    }

    #[test]
    fn one_burst_is_no_shortage() {
        let (mut here, mut now) = (Shortage::NONE, Instant::now());
        for _ in 0..64 {
            here = here.waited(Duration::from_millis(7), ABOVE, now);
            here.worked += Duration::from_micros(200);
            now += Duration::from_micros(200);
        }
        assert!(!here.is_short && !here.waited(ABOVE, ABOVE, now + WINDOW).is_short);
    }
}
