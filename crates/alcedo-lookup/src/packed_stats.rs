//! A column chunk's statistics in one piece of memory.
//!
//! A file index holds them for every column of every row group, and nearly none are ever looked at: one small
//! allocation each instead of three makes an index a third smaller. It must not know what bounds mean.

use crate::footer::{Bound, MAX_BOUND_BYTES, Stats};

const MIN: u8 = 1;
const MAX: u8 = 1 << 1;
const MIN_CUT: u8 = 1 << 2;
const MAX_CUT: u8 = 1 << 3;
const DEPRECATED: u8 = 1 << 4;
const NULLS: u8 = 1 << 5;

// The length of a bound is a byte.
const _: () = assert!(MAX_BOUND_BYTES <= u8::MAX as usize);

/// Flags; the null count where it is known, in 8 bytes; the lower bound with its length in front; the upper bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackedStats(Box<[u8]>);

impl PackedStats {
    pub(crate) fn pack(stats: &Stats) -> Self {
        let flag = |flag: u8, is_set: bool| if is_set { flag } else { 0 };
        let is_cut = |bound: &Option<Bound>| bound.as_ref().is_some_and(|bound| bound.cut);
        let flags = flag(MIN, stats.min.is_some())
            | flag(MAX, stats.max.is_some())
            | flag(MIN_CUT, is_cut(&stats.min))
            | flag(MAX_CUT, is_cut(&stats.max))
            | flag(DEPRECATED, stats.deprecated)
            | flag(NULLS, stats.nulls.is_some());
        let mut packed = vec![flags];
        packed.extend(stats.nulls.iter().flat_map(|nulls| nulls.to_le_bytes()));
        if let Some(min) = &stats.min {
            packed.push(min.bytes.len() as u8);
            packed.extend_from_slice(&min.bytes);
        }
        packed.extend(stats.max.iter().flat_map(|max| &*max.bytes));
        Self(packed.into())
    }

    pub(crate) fn unpack(&self) -> Stats {
        // Only `pack` makes such bytes, so that nothing is missing.
        let (flags, mut rest) = self.0.split_first().map_or((0, &[][..]), |(flags, rest)| (*flags, rest));
        let has = |flag: u8| flags & flag != 0;
        let mut stats = Stats { deprecated: has(DEPRECATED), ..Stats::default() };
        if has(NULLS) {
            let (nulls, left) = rest.split_at(rest.len().min(8));
            stats.nulls = nulls.try_into().ok().map(u64::from_le_bytes);
            rest = left;
        }
        if has(MIN) {
            let (length, left) = rest.split_first().map_or((0, &[][..]), |(length, left)| (*length, left));
            let (min, left) = left.split_at(left.len().min(length.into()));
            stats.min = Some(Bound { bytes: min.into(), cut: has(MIN_CUT) });
            rest = left;
        }
        stats.max = has(MAX).then(|| Bound { bytes: rest.into(), cut: has(MAX_CUT) });
        stats
    }

    /// Bytes beside itself.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_unpacked_as_they_were() {
        let bounds = || {
            let texts = [vec![], vec![7], vec![255; MAX_BOUND_BYTES]];
            let bounds = texts.into_iter().flat_map(|bytes| [false, true].map(|cut| (bytes.clone(), cut)));
            std::iter::once(None).chain(bounds.map(|(bytes, cut)| Some(Bound { bytes: bytes.into(), cut })))
        };
        let mut packed = 0;
        for (min, max) in bounds().flat_map(|min| bounds().map(move |max| (min.clone(), max))) {
            for nulls in [None, Some(0), Some(u64::MAX)] {
                for deprecated in [false, true] {
                    let stats = Stats { min: min.clone(), max: max.clone(), deprecated, nulls };
                    assert_eq!(PackedStats::pack(&stats).unpack(), stats);
                    packed += 1;
                }
            }
        }
        assert_eq!(packed, 7 * 7 * 3 * 2);
    }
}
