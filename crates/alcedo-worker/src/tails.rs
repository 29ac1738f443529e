//! Layer 3: how much of a file's end is read first, learned per mount.
//!
//! Knows how far before the end of a mount's files the footer and the wanted indexes began. It must not know what they
//! hold. A tail that is too short costs a second trip, and one that is too long costs its bytes; files of one mount are
//! written alike, so the last ones say which length costs least for the next. Nothing is kept over a restart: it is
//! learned again from the first file.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use alcedo_cache::{BLOCK_BYTES, gap_worth_a_trip};
use alcedo_origin::{Mount, Recent};

/// Shortest tail that is learned: footers of files with few columns are shorter, and no read takes less time.
const MIN_TAIL_BYTES: u64 = 16 << 10;
/// Longest tail that is learned, whatever a trip is worth: beyond it few of a file's indexes are what a lookup needs.
const MAX_TAIL_BYTES: u64 = 4 << 20;
/// Files that must have been opened before a tail is shorter than the configured one: the next may be larger.
const SHORTER_FROM: usize = 8;
/// Part of a length, as a divisor, that is added to it: the next file has a few more rows.
const MARGIN: u64 = 8;

/// The lengths of all mounts' tails.
#[derive(Debug)]
pub struct Tails {
    start_bytes: u64,
    by_mount: Mutex<HashMap<String, Needs>>,
}

/// How far before the end of a mount's last files something began.
#[derive(Debug, Default)]
struct Needs {
    footers: Recent,
    indexes: Recent,
}

impl Tails {
    /// Before anything is learned a tail has so many bytes.
    pub fn new(start_bytes: u64) -> Self {
        Self { start_bytes, by_mount: Mutex::default() }
    }

    /// How many of its last bytes are read first of a file of this mount.
    pub fn bytes(&self, mount: &Mount) -> u64 {
        let pace = mount.pace();
        let worth = gap_worth_a_trip(pace.trip, pace.bytes_per_second);
        self.lock().get(mount.name()).map_or(self.start_bytes, |needs| needs.cheapest(self.start_bytes, worth))
    }

    /// A file's footer takes so many bytes.
    pub(crate) fn footer_took(&self, mount: &Mount, bytes: u64) {
        self.learn(mount, |needs| needs.footers.add(whole_blocks(bytes)));
    }

    /// A lookup needed indexes that begin so many bytes before the file's end.
    pub(crate) fn index_began(&self, mount: &Mount, bytes_before_end: u64) {
        self.learn(mount, |needs| needs.indexes.add(whole_blocks(bytes_before_end)));
    }

    fn learn(&self, mount: &Mount, add: impl FnOnce(&mut Needs)) {
        // The settings name all mounts, so there are few.
        add(self.lock().entry(mount.name().to_owned()).or_default());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Needs>> {
        self.by_mount.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Needs {
    /// The length whose bytes, and the trips that they do not save, cost least; `worth` is what a trip costs in bytes.
    fn cheapest(&self, start_bytes: u64, worth: u64) -> u64 {
        let least = if self.footers.len() < SHORTER_FROM { start_bytes } else { MIN_TAIL_BYTES.min(start_bytes) };
        let most = MAX_TAIL_BYTES.max(start_bytes);
        let lengths = self.footers.iter().chain(self.indexes.iter()).map(|need| need.saturating_add(need / MARGIN));
        let lengths = std::iter::once(least).chain(lengths.filter(|length| (least..=most).contains(length)));
        let missed = |needs: &Recent, length: u64| match needs.len() as u64 {
            0 => 0,
            all => worth.saturating_mul(needs.above(length) as u64) / all,
        };
        let cost = |length: &u64| {
            length.saturating_add(missed(&self.footers, *length)).saturating_add(missed(&self.indexes, *length))
        };
        lengths.min_by_key(|length| (cost(length), *length)).unwrap_or(start_bytes)
    }
}

/// A page store keeps whole blocks: of a tail whose first block is cut, that block is lost to later reads.
fn whole_blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES).saturating_add(1).saturating_mul(BLOCK_BYTES)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::sync::Arc;

    use alcedo_origin::{Freshness, OriginLimits};
    use object_store::memory::InMemory;

    use super::*;

    const KIB: u64 = 1 << 10;
    const START: u64 = 64 * KIB;
    /// A trip of 30 ms at 100 MB/s.
    const WORTH: u64 = 3_000_000;

    fn needs(footers: &[u64], indexes: &[u64]) -> Needs {
        let mut needs = Needs::default();
        footers.iter().for_each(|bytes| needs.footers.add(whole_blocks(*bytes)));
        indexes.iter().for_each(|bytes| needs.indexes.add(whole_blocks(*bytes)));
        needs
    }

    #[test]
    fn one_file_is_enough_to_make_the_tail_longer() {
        assert_eq!(needs(&[], &[]).cheapest(START, WORTH), START);
        let footer = needs(&[200 * KIB], &[]).cheapest(START, WORTH);
        assert!((200 * KIB..300 * KIB).contains(&footer), "{footer}");
        let index = needs(&[20 * KIB], &[500 * KIB]).cheapest(START, WORTH);
        assert!((500 * KIB..600 * KIB).contains(&index), "{index}");
    }

    #[test]
    fn many_files_with_short_footers_make_it_shorter_within_bounds() {
        assert_eq!(needs(&[2 * KIB; 7], &[4 * KIB; 7]).cheapest(START, WORTH), START);
        assert_eq!(needs(&[2 * KIB; 8], &[4 * KIB; 8]).cheapest(START, WORTH), MIN_TAIL_BYTES);
        let tail = needs(&[2 * KIB; 8], &[30 * KIB; 8]).cheapest(START, WORTH);
        assert!((30 * KIB..START).contains(&tail), "{tail}");
    }

    #[test]
    fn bytes_that_cost_more_than_a_trip_are_left_for_one() {
        // An index 2 MiB before the end is read along while that takes less time than a trip.
        let far = needs(&[20 * KIB; 10], &[2 << 20; 10]);
        assert!(far.cheapest(START, WORTH) > 2 << 20);
        assert_eq!(far.cheapest(START, 1_000_000), 24 * KIB + 3 * KIB);
        // No index is worth more than the bound.
        let farther = needs(&[20 * KIB; 10], &[5 << 20; 10]);
        assert!(farther.cheapest(START, u64::MAX) < START);
        // One file in ten with such an index does not pay for all.
        let mut rare = [30 * KIB; 10];
        rare[3] = 1 << 20;
        assert!(needs(&[20 * KIB; 10], &rare).cheapest(START, WORTH) < START);
        // Nothing about free trips, or priceless ones, is out of bounds.
        assert_eq!(far.cheapest(START, 0), MIN_TAIL_BYTES);
    }

    #[test]
    fn each_mount_has_a_length_of_its_own_by_its_footers_and_indexes() {
        let mount = |name: &str| {
            let (store, limits) = (Arc::new(InMemory::new()), OriginLimits::default());
            Mount::with_store(name, &format!("s3://{name}"), store, Freshness::default(), limits).unwrap()
        };
        let (long_footers, far_indexes, unknown) = (mount("one"), mount("two"), mount("three"));
        let tails = Tails::new(START);
        tails.footer_took(&long_footers, 200 * KIB);
        tails.index_began(&far_indexes, 500 * KIB);
        let learned = tails.bytes(&long_footers);
        assert!((200 * KIB..300 * KIB).contains(&learned), "{learned}");
        let learned = tails.bytes(&far_indexes);
        assert!((500 * KIB..600 * KIB).contains(&learned), "{learned}");
        assert_eq!(tails.bytes(&unknown), START);
    }
}
