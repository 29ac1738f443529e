//! The pieces of a file that a search was fed, and those that it still wants.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use crate::machine::{Need, Piece};

/// How many fed pieces before a range's start are tried for one that holds it: pieces nest at most as data pages in a
/// chunk.
const LOOK_BACK: usize = 64;

/// Fed pieces by their offset in the file.
#[derive(Default)]
pub(crate) struct Fetched {
    pieces: BTreeMap<u64, Bytes>,
    new_bytes: u64,
}

impl Fetched {
    pub(crate) fn insert(&mut self, range: Range<u64>, bytes: Bytes) {
        self.new_bytes += bytes.len() as u64;
        let longer = self.pieces.get(&range.start).is_none_or(|old| old.len() < bytes.len());
        if longer {
            self.pieces.insert(range.start, bytes);
        }
    }

    /// The bytes of a range, if a fed piece holds all of it.
    pub(crate) fn get(&self, range: &Range<u64>) -> Option<Bytes> {
        self.pieces.range(..=range.start).rev().take(LOOK_BACK).find_map(|(start, bytes)| {
            let from = (range.start - start) as usize;
            let to = (range.end - start) as usize;
            (to <= bytes.len()).then(|| bytes.slice(from..to))
        })
    }

    /// From here on bytes are new again.
    pub(crate) fn start_round(&mut self) {
        self.new_bytes = 0;
    }

    /// Bytes fed since the last round: what the next step may have to decode.
    pub(crate) fn new_bytes(&self) -> u64 {
        self.new_bytes
    }
}

/// Ranges that a search wants next.
#[derive(Default)]
pub(crate) struct Wanted {
    ranges: Vec<Range<u64>>,
    along: Vec<Range<u64>>,
    stage: Option<&'static str>,
}

impl Wanted {
    /// Wants a range that must not be empty. The first stage that wants something names the round.
    pub(crate) fn add(&mut self, stage: &'static str, range: Range<u64>) {
        self.stage.get_or_insert(stage);
        self.ranges.push(range);
    }

    /// Would take a range along if the wanted ones cost a trip.
    pub(crate) fn add_along(&mut self, range: Range<u64>) {
        self.along.push(range);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(crate) fn stage(&self) -> &'static str {
        self.stage.unwrap_or("plan")
    }

    pub(crate) fn into_need(mut self) -> Need {
        self.along.retain(|range| !self.ranges.contains(range));
        Need { pieces: pieces(self.ranges), along: pieces(self.along) }
    }
}

fn pieces(mut ranges: Vec<Range<u64>>) -> Vec<Piece> {
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    ranges.dedup();
    ranges.into_iter().map(Piece::Range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_found_inside_a_longer_piece_behind_shorter_ones() {
        let mut fetched = Fetched::default();
        fetched.insert(100..200, Bytes::from(vec![1; 100]));
        fetched.insert(120..130, Bytes::from(vec![2; 10]));
        fetched.insert(100..110, Bytes::from(vec![3; 10]));
        assert_eq!(fetched.get(&(125..150)).map(|bytes| bytes.len()), Some(25));
        assert_eq!(fetched.get(&(122..124)), Some(Bytes::from(vec![2; 2])));
        assert_eq!(fetched.get(&(190..201)), None);
        assert_eq!(fetched.get(&(90..95)), None);
    }
}
