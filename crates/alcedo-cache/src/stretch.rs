//! Layer 1: what of an asked range is here and what is not.
//!
//! Knows ranges, in blocks, and bytes that stay readable whatever the store drops. It must not know who asks, nor how
//! what is missing comes here.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::page::BLOCK_BYTES;
use crate::places::DiskPart;

/// Bytes that are here and stay readable whatever the store drops.
#[derive(Debug, Clone)]
pub(crate) enum Held {
    /// In memory.
    Bytes(Bytes),
    /// In a segment file, to be read and verified.
    Disk(DiskPart),
}

/// One stretch of an asked range, as a survey of a store found it.
#[derive(Debug, Clone)]
pub(crate) enum Stretch {
    /// A part that is here.
    Here(Held),
    /// A part that is not here; not rounded.
    Missing(Range<u64>),
}

/// What the stretches lack, in whole blocks cut at the end of the file, sorted and apart from each other.
pub(crate) fn lacking<'a>(stretches: impl Iterator<Item = &'a Stretch>, file_size: u64) -> Vec<Range<u64>> {
    let mut parts: Vec<Range<u64>> = stretches
        .filter_map(|stretch| match stretch {
            Stretch::Here(_) => None,
            Stretch::Missing(part) => Some(rounded_out(part, file_size)),
        })
        .collect();
    parts.sort_unstable_by_key(|part| part.start);
    let mut lacking: Vec<Range<u64>> = Vec::new();
    for part in parts {
        match lacking.last_mut() {
            Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
            _ => lacking.push(part),
        }
    }
    lacking
}

/// The range of whole blocks around a range, cut at the end of the file.
pub(crate) fn rounded_out(range: &Range<u64>, file_size: u64) -> Range<u64> {
    let end = range.end.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX);
    range.start / BLOCK_BYTES * BLOCK_BYTES..end.min(file_size)
}

/// The part of bytes at a place of a file that may be recorded: whole blocks, and the last block of the file up to its
/// end. None where the bytes reach beyond the end of the file and so contradict its size, or hold no whole block.
pub(crate) fn recordable(file_size: u64, offset: u64, length: u64) -> Option<Range<u64>> {
    let end = offset.checked_add(length).filter(|end| *end <= file_size)?;
    let start = offset.checked_next_multiple_of(BLOCK_BYTES)?;
    let end = if end == file_size { end } else { end / BLOCK_BYTES * BLOCK_BYTES };
    (start < end).then_some(start..end)
}

/// All slices one behind the other; one slice is not copied.
pub(crate) fn joined(slices: &[Bytes]) -> Bytes {
    if let [only] = slices {
        return only.clone();
    }
    let mut whole = BytesMut::with_capacity(slices.iter().map(Bytes::len).sum());
    for slice in slices {
        whole.extend_from_slice(slice);
    }
    whole.freeze()
}
