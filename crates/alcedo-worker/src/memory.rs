//! Layer 3: how much of its memory the process has, and what is done about it before requests are turned away.
//!
//! Knows `memory.limit`, what the operating system says that the process has, and three marks below the limit. It must
//! not know what is in the caches that it makes smaller. From the first mark on caches give room back, a step with each
//! look; from the second on nothing is built, and room is halved; from the third on builds are broken off and requests
//! are turned away. Room comes back slowly, once there is memory again, so that it does not swing.

use std::time::Duration;

use crate::process;
use crate::service::Door;

/// From these parts of the limit on, in percent, caches become smaller, builds wait, and requests are turned away.
const SHRINK_PERCENT: u64 = 85;
const SCARCE_PERCENT: u64 = 92;
const SHORT_PERCENT: u64 = 95;
/// Below this part of the limit caches may grow again: far enough from the first mark that a step does not reach it.
const GROW_PERCENT: u64 = 80;
/// What caches give back with a look, and take again, in percent of what they are configured to have: all of it within
/// five seconds, and back within half a minute.
const SHRINK_STEP: u64 = 10;
const GROW_STEP: u64 = 2;
/// What they keep in any case, in percent: a worker without any would read everything for each lookup.
const LEAST_ROOM: u64 = 5;
/// How often the memory in use is looked at: it takes a few file reads in memory.
const LOOK: Duration = Duration::from_millis(500);

/// How much memory is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Memory {
    /// Nobody need care.
    Enough,
    /// Whatever nobody waits for does not begin.
    Scarce,
    /// Nothing begins.
    Short,
}

/// What the last looks led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Watch {
    /// What caches may have of what they are configured to have, in percent.
    room: u64,
}

impl Watch {
    const fn new() -> Self {
        Self { room: 100 }
    }

    /// The process has so many bytes of so many; 0 means that there is no limit.
    fn look(&mut self, resident: u64, limit: u64) -> Memory {
        let has = |percent: u64| limit > 0 && resident >= limit / 100 * percent;
        let kept = if has(SCARCE_PERCENT) {
            self.room / 2
        } else if has(SHRINK_PERCENT) {
            self.room.saturating_sub(SHRINK_STEP)
        } else if has(GROW_PERCENT) {
            self.room
        } else {
            self.room + GROW_STEP
        };
        self.room = kept.clamp(LEAST_ROOM, 100);
        if has(SHORT_PERCENT) {
            Memory::Short
        } else if has(SCARCE_PERCENT) {
            Memory::Scarce
        } else {
            Memory::Enough
        }
    }
}

/// Looks again and again, as long as it is polled.
pub(crate) async fn watch(door: &Door) {
    let mut watch = Watch::new();
    loop {
        look(door, &mut watch, process::resident_bytes());
        tokio::time::sleep(LOOK).await;
    }
}

/// One look: the process has so many bytes.
fn look(door: &Door, watch: &mut Watch, resident: u64) {
    let limit = door.settings().memory.limit_bytes;
    let (memory, room) = (watch.look(resident, limit), watch.room);
    let before = door.admission.memory();
    door.admission.set_memory(memory);
    if memory != before {
        tracing::warn!(?memory, resident, limit, room, "memory.limit comes near, or is farther away again");
    }
    door.lookups.divide_decoded();
    door.lookups.set_room(room);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::sync::Arc;

    use alcedo_lookup::key::Key;

    use super::*;
    use crate::Config;
    use crate::builds::tests::Site;
    use crate::cost::Cost;
    use crate::lookups::Lookup;
    use crate::prepared::Ask;

    /// Longest wait for what the watch does.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn room_goes_with_the_memory_and_comes_back_slowly() {
        let mut watch = Watch::new();
        let mut after = |resident, looks: usize| {
            let last = (0..looks).map(|_| watch.look(resident, 1_000)).last();
            (last.unwrap(), watch.room)
        };
        assert_eq!(after(849, 9), (Memory::Enough, 100));
        assert_eq!(after(850, 3), (Memory::Enough, 70));
        assert_eq!(after(920, 1), (Memory::Scarce, 35));
        assert_eq!(after(950, 1), (Memory::Short, 17));
        assert_eq!(after(2_000, 9), (Memory::Short, LEAST_ROOM));
        assert_eq!(after(800, 9), (Memory::Enough, LEAST_ROOM));
        assert_eq!(after(799, 5), (Memory::Enough, LEAST_ROOM + 10));
        assert_eq!(after(1, 99), (Memory::Enough, 100));
        assert_eq!(Watch::new().look(u64::MAX, 0), Memory::Enough);
    }

    async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        let begin = tokio::time::Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < PATIENCE, "it never came to it: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn caches_give_memory_back_before_requests_are_refused_and_take_it_again() {
        let config = |limit_bytes| {
            let mut config = Config::default();
            (config.runtimes, config.builds.parallel, config.memory.limit_bytes) = (1, 0, limit_bytes);
            (config.cache.decoded_bytes, config.cache.index_bytes) = (600 << 10, 64 << 10);
            config
        };
        let site = Site::with(config(0)).await;
        let (lookups, admission) = (&site.door().lookups, &site.door().admission);
        let (path, key_column) = ("lake/a.parquet".to_owned(), Some("id".to_owned()));
        let form = alcedo_lookup::answer::Form::CompactRows;
        let asked = lookups.asked(Ask { path, key_column, columns: None, form, row_limit: None }).unwrap();
        let ask = async |first: i64| {
            let keys = (first..first + 500).map(|row| Key::Int(2 * row)).collect();
            let lookup = Lookup { asked: Arc::clone(&asked), keys, sent_pages_bytes: 0 };
            let answer = lookups.answer(&lookup, &Arc::new(Cost::new(false))).await.unwrap();
            assert_eq!(answer.files[0].answer.row_number.len(), 500);
        };
        for first in 0..6 {
            ask(first * 500).await;
        }
        let (rows, indexes) = (lookups.hot_rows().bytes(), lookups.indexes().bytes());
        assert!(rows > 100 << 10 && indexes > 0, "{rows} {indexes}");
        let whole = lookups.hot_rows().capacity_bytes();
        // The process has far more than that, and of nothing else so much.
        site.running.reload(config(1 << 20)).unwrap();
        let (least, configured) = (whole / 100 * LEAST_ROOM, Config::default().cache.heads_bytes);
        until("the least room", || lookups.hot_rows().capacity_bytes() <= least).await;
        // One cache after the other is made smaller.
        until("rows leave", || lookups.hot_rows().bytes() <= least).await;
        until("data pages leave", || lookups.decoded_pages().bytes() <= least).await;
        until("an index leaves", || lookups.indexes().bytes() < indexes).await;
        // Each part of the cache rounds its share up.
        until("heads leave", || lookups.derived().heads().2 < configured * (LEAST_ROOM + 1) / 100).await;
        let deadline = admission.deadline(None, None);
        assert!(admission.admit(1, deadline).await.is_err());
        assert!(lookups.derived().largest_head_bytes() > configured / 8);

        site.running.reload(config(0)).unwrap();
        until("more room", || lookups.hot_rows().capacity_bytes() > least).await;
        drop(admission.admit(1, deadline).await.unwrap());
        ask(0).await;
        let (before, room) = (lookups.hot_rows().bytes(), lookups.hot_rows().capacity_bytes());
        until("rows again", || lookups.hot_rows().capacity_bytes() > room + least).await;
        ask(0).await;
        assert!(lookups.hot_rows().bytes() > before);
    }
}
