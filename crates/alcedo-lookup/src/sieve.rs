//! Which keys a column chunk's bloom filter rules out, asked for piece by piece.
//!
//! A filter is worth its reads only where it may save many: at most a header and one block of 32 bytes per key, against
//! the data pages that would have to be gone through. Where the file says how long the filter is, its header's length
//! follows, and header and blocks come with one trip.

use std::ops::Range;

use crate::bloom::{self, BloomPlace, Filter};
use crate::fetched::{Fetched, Wanted};
use crate::key_column::{KeyColumn, Probes};
use crate::limits::Limits;

/// Bytes of key data pages from which on a filter is asked: decoding as much takes longer than its two reads.
pub(crate) const WORTH_BYTES: u64 = 128 << 10;
/// Keys of one lookup at most that are asked for one by one: more are likely to be there in part.
const MAX_KEYS: usize = 64;
/// Bytes of a filter's block. Its bitset is a whole number of them, and its header takes less than one.
const BLOCK_BYTES: u64 = 32;

/// The questions to one filter.
pub(crate) struct Sieve {
    place: BloomPlace,
    /// What a stored form of each key hashes to, in the order of the probes' points; none for keys that cannot be
    /// asked.
    hashes: Vec<Option<Vec<u64>>>,
}

impl Sieve {
    /// None where the filter cannot help: too many keys, or nulls, which filters do not know.
    pub(crate) fn new(place: BloomPlace, column: &KeyColumn, probes: &Probes) -> Option<Self> {
        if probes.points().len() > MAX_KEYS || !probes.null_keys().is_empty() {
            return None;
        }
        let hash = |(point, _): &(_, u32)| bloom::hashes(&column.descr, &column.ty, point);
        let hashes: Vec<_> = probes.points().iter().map(hash).collect();
        hashes.iter().any(Option::is_some).then_some(Self { place, hashes })
    }

    /// The keys that may be in the chunk; none, and what is missing is wanted, if that is not known yet. A filter that
    /// is not understood rules out nothing.
    pub(crate) fn sift(
        &self,
        probes: &Probes,
        limits: &Limits,
        fetched: &mut Fetched,
        wanted: &mut Wanted,
    ) -> Option<Probes> {
        let header = self.place.header_range();
        let Some(bytes) = fetched.get(&header) else {
            wanted.add("bloom filter", header);
            if let Some(filter) = self.predicted() {
                self.want_blocks(&filter, fetched, wanted);
            }
            return None;
        };
        let Some(filter) = Filter::read(&bytes, &self.place, limits) else { return Some(probes.clone()) };
        if self.want_blocks(&filter, fetched, wanted) {
            return None;
        }
        let may_hold =
            |hash: &u64| fetched.get(&filter.block(*hash)).is_none_or(|block| bloom::may_contain(&block, *hash));
        let mut hashes = self.hashes.iter();
        let kept = probes.retain(|_| {
            hashes.next().is_none_or(|hashes| hashes.as_ref().is_none_or(|hashes| hashes.iter().any(may_hold)))
        });
        fetched.let_go(&header);
        Some(kept)
    }

    /// Where the bitset probably is, before the header was read.
    fn predicted(&self) -> Option<Filter> {
        let Range { start, end } = self.place.range;
        let header = (end - start) % BLOCK_BYTES;
        (self.place.exact && end - start > header).then_some(Filter { bitset: start + header..end })
    }

    /// Wants the blocks that are not there; false if all are.
    fn want_blocks(&self, filter: &Filter, fetched: &Fetched, wanted: &mut Wanted) -> bool {
        let mut missing = false;
        for hash in self.hashes.iter().flatten().flatten() {
            let block = filter.block(*hash);
            if !fetched.has(&block) {
                missing = true;
                wanted.add("bloom filter", block);
            }
        }
        missing
    }
}
