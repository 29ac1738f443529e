//! Layer 1: which ranges one read fetches.
//!
//! Knows what is wanted, what is under way, and how long a gap may be. It must not know how anything is fetched.

use std::collections::BTreeSet;
use std::ops::Range;

use super::{FileFlights, Flight};

/// Bytes of gaps that one read fetches along, as a divisor of the bytes that it wants.
const GAP_SHARE: u64 = 4;

/// The ranges to fetch: what is wanted without what is under way, where small gaps are fetched along unless part of one
/// is under way itself. The smallest gaps go first, because all of them together have a bound too: what they save is
/// requests, and each costs bytes.
pub(super) fn extents<E>(
    flights: Option<&FileFlights<E>>,
    wanted: &[Range<u64>],
    max_gap_bytes: u64,
) -> Vec<Range<u64>> {
    let none = FileFlights::new();
    let flights = flights.unwrap_or(&none);
    let runs = lonely(flights, wanted);
    let bytes: u64 = runs.iter().map(|run| run.end - run.start).sum();
    let gap = |before: usize| runs[before].end..runs[before + 1].start;
    let length = |before: &usize| gap(*before).end - gap(*before).start;
    let mut gaps: Vec<usize> = (0..runs.len().saturating_sub(1))
        .filter(|before| length(before) <= max_gap_bytes && flights_over(flights, &gap(*before)).next().is_none())
        .collect();
    gaps.sort_by_key(length);
    let mut left = (bytes / GAP_SHARE).max(max_gap_bytes);
    let mut joined = BTreeSet::new();
    for before in gaps {
        let Some(rest) = left.checked_sub(length(&before)) else { break };
        left = rest;
        joined.insert(before + 1);
    }
    let mut extents: Vec<Range<u64>> = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        match extents.last_mut() {
            Some(last) if joined.contains(&number) => last.end = run.end,
            _ => extents.push(run.clone()),
        }
    }
    extents
}

/// What is wanted and not under way, in order; neighbours are one.
fn lonely<E>(flights: &FileFlights<E>, wanted: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    let mut add = |range: Range<u64>| match runs.last_mut() {
        _ if range.is_empty() => {}
        Some(last) if range.start == last.end => last.end = range.end,
        _ => runs.push(range),
    };
    for range in wanted {
        let mut start = range.start;
        for (flying_from, flight) in flights_over(flights, range) {
            add(start..flying_from);
            start = flight.end;
        }
        add(start..range.end);
    }
    runs
}

/// The flights that share a byte with the range, in order.
pub(super) fn flights_over<'a, E>(
    flights: &'a FileFlights<E>,
    range: &Range<u64>,
) -> impl Iterator<Item = (u64, &'a Flight<E>)> + use<'a, E> {
    let (start, end) = (range.start, range.end);
    // Flights do not overlap, so only the last of those that start at or before the range can reach into it.
    let first = flights.range(..=start).next_back().map_or(start, |(first, _)| *first);
    let near = flights.range(first..end.max(first)).map(|(start, flight)| (*start, flight));
    near.filter(move |(_, flight)| flight.end > start)
}
