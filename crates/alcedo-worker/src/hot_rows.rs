//! Layer 3: rows that are asked for again and again, ready to be sent.
//!
//! Knows what became of a key in one file as one question sees it: its rows, encoded, and their numbers, or that there
//! are none. It must not know where bytes are, nor how rows are found. Entries are filled from complete answers of the
//! same file version and question, so they are as right as those; a question or version that is gone leaves entries
//! that nobody asks for, which make room by themselves.

use std::sync::Arc;

use alcedo_lookup::answer::{Body, FileAnswer, KeyStatus};
use alcedo_lookup::key::Key;
use alcedo_lookup::prepared::KeyPoint;
use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::metrics::Metrics;
use crate::prepared::FileTarget;

/// The largest entry: what is larger is decoded in less time than others would lose by the room that it takes.
const MAX_ENTRY_BYTES: usize = 64 << 10;
/// Rows of one answer, and their bytes, that are looked through for entries: more would keep others waiting, and who
/// asks for so much at once asks for little of it again.
const MAX_FILLED_ROWS: usize = 16 << 10;
const MAX_FILLED_BYTES: usize = 4 << 20;
/// What an entry takes beside its rows: key and value, the table's links and hashes, and the allocator's part.
const ENTRY_OVERHEAD_BYTES: usize = 224;
/// A usual entry, by which the table is laid out.
const USUAL_ENTRY_BYTES: u64 = 512;

/// What became of one key in one file, as one question sees it.
#[derive(Debug, Clone)]
pub struct HotRow {
    /// Compact rows in file order.
    pub rows: Bytes,
    numbers: Numbers,
    is_truncated: bool,
}

#[derive(Debug, Clone)]
enum Numbers {
    None,
    One(u64),
    Many(Arc<[u64]>),
}

/// A key of one question to one file version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct HotKey {
    target: u64,
    point: KeyPoint,
}

impl HotKey {
    pub(crate) fn new(target: &FileTarget, point: KeyPoint) -> Self {
        Self { target: target.id, point }
    }

    /// The key.
    pub(crate) fn point(&self) -> &KeyPoint {
        &self.point
    }
}

impl Numbers {
    fn of(numbers: &[u64]) -> Self {
        match numbers {
            [] => Self::None,
            [number] => Self::One(*number),
            numbers => Self::Many(numbers.into()),
        }
    }
}

impl HotRow {
    /// 0-based numbers of the rows in the file.
    pub fn numbers(&self) -> &[u64] {
        match &self.numbers {
            Numbers::None => &[],
            Numbers::One(number) => std::slice::from_ref(number),
            Numbers::Many(numbers) => numbers,
        }
    }

    /// What the answer says of the key.
    pub fn status(&self) -> KeyStatus {
        match self.numbers {
            _ if self.is_truncated => KeyStatus::Truncated,
            Numbers::None => KeyStatus::NotFound,
            Numbers::One(_) | Numbers::Many(_) => KeyStatus::Found,
        }
    }

    /// The first of all rows of a key, `limit` at most; none if the bytes are not those of so many compact rows.
    pub(crate) fn of_first(rows: &[u8], numbers: &[u64], limit: usize) -> Option<Self> {
        let (Some(first), true) = (numbers.get(..limit), numbers.len() > limit) else {
            let rows = if rows.is_empty() { Bytes::new() } else { Bytes::copy_from_slice(rows) };
            return Some(Self { rows, numbers: Numbers::of(numbers), is_truncated: false });
        };
        let bytes = cut_rows(rows, numbers.len())?.iter().take(limit).map(|row| row.len()).sum();
        let rows = Bytes::copy_from_slice(rows.get(..bytes)?);
        Some(Self { rows, numbers: Numbers::of(first), is_truncated: true })
    }

    /// No row has the key.
    pub(crate) fn absent() -> Self {
        Self { rows: Bytes::new(), numbers: Numbers::None, is_truncated: false }
    }

    fn heap_bytes(&self) -> usize {
        match &self.numbers {
            Numbers::Many(numbers) => self.rows.len() + size_of_val::<[u64]>(numbers),
            Numbers::None | Numbers::One(_) => self.rows.len(),
        }
    }
}

#[derive(Debug, Clone)]
struct RealBytes;

impl Weighter<HotKey, HotRow> for RealBytes {
    fn weight(&self, key: &HotKey, row: &HotRow) -> u64 {
        (key.point.heap_bytes() + row.heap_bytes() + ENTRY_OVERHEAD_BYTES) as u64
    }
}

/// The hot rows of one worker.
#[derive(Debug)]
pub struct HotRows {
    rows: Cache<HotKey, HotRow, RealBytes>,
    metrics: Arc<Metrics>,
}

impl HotRows {
    /// None yet, and room for so many bytes of them.
    pub(crate) fn new(capacity_bytes: u64, metrics: Arc<Metrics>) -> Self {
        let usual = usize::try_from(capacity_bytes / USUAL_ENTRY_BYTES).unwrap_or(usize::MAX);
        Self { rows: Cache::with_weighter(usual, capacity_bytes, RealBytes), metrics }
    }

    /// What became of a key, if it is here. Keys that cannot be read as the column's type are not.
    pub(crate) fn get(&self, target: &FileTarget, key: &Key) -> Option<HotRow> {
        if !target.keeps_rows {
            return None;
        }
        match target.prepared.key_point(key) {
            Ok(Some(point)) => self.rows.get(&HotKey::new(target, point)),
            // No row can have it.
            Ok(None) => Some(HotRow::absent()),
            Err(_) => None,
        }
    }

    /// What became of a key, if it is here and its question keeps rows.
    pub(crate) fn of(&self, target: &FileTarget, key: &HotKey) -> Option<HotRow> {
        if target.keeps_rows { self.rows.get(key) } else { None }
    }

    /// Keeps what became of one key, all of it. That a key outside of the file's bounds has no row is known without.
    pub(crate) fn keep(&self, target: &FileTarget, key: HotKey, row: &HotRow) {
        let is_small = row.heap_bytes() + key.point.heap_bytes() <= MAX_ENTRY_BYTES;
        if target.keeps_rows && is_small && self.rows.capacity() > 0 {
            self.rows.insert(key, row.clone());
            self.metrics.hot_rows_filled.up();
        }
    }

    /// Keeps what a complete answer says of each of its keys.
    pub(crate) fn fill(&self, target: &FileTarget, keys: &[Key], answer: &FileAnswer) {
        let Body::Compact(body) = &answer.body else { return };
        let is_large = body.len() > MAX_FILLED_BYTES || answer.row_number.len() > MAX_FILLED_ROWS;
        if !target.keeps_rows || self.rows.capacity() == 0 || is_large {
            return;
        }
        let Some(rows) = cut_rows(body, answer.row_number.len()) else { return };
        let mut of_keys: Vec<(Vec<u64>, Vec<&[u8]>)> = vec![Default::default(); keys.len()];
        for ((row, key), number) in rows.iter().zip(&answer.key_index).zip(&answer.row_number) {
            if let Some((numbers, rows)) = of_keys.get_mut(*key as usize) {
                numbers.push(*number);
                rows.push(row);
            }
        }
        for ((key, (numbers, rows)), status) in keys.iter().zip(of_keys).zip(&answer.statuses) {
            let bytes: usize = rows.iter().map(|row| row.len()).sum();
            let Ok(Some(point)) = target.prepared.key_point(key) else { continue };
            // That there is no row is known without an entry where the bounds say so.
            if rows.is_empty() && !target.prepared.may_hold(std::slice::from_ref(key)).unwrap_or(false) {
                continue;
            }
            if bytes + size_of_val(numbers.as_slice()) + point.heap_bytes() > MAX_ENTRY_BYTES {
                continue;
            }
            let rows = match rows.as_slice() {
                [row] => Bytes::copy_from_slice(row),
                rows => rows.concat().into(),
            };
            let (numbers, is_truncated) = (Numbers::of(&numbers), *status == KeyStatus::Truncated);
            self.rows.insert(HotKey::new(target, point), HotRow { rows, numbers, is_truncated });
            self.metrics.hot_rows_filled.up();
        }
    }

    /// Bytes of all entries.
    pub fn bytes(&self) -> u64 {
        self.rows.weight()
    }

    /// Bytes that entries may take.
    pub fn capacity_bytes(&self) -> u64 {
        self.rows.capacity()
    }

    /// Takes another room; what is too much leaves.
    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.rows.set_capacity(bytes);
    }
}

/// Each of so many compact rows, its length included; none if the bytes are not that.
pub(crate) fn cut_rows(body: &[u8], count: usize) -> Option<Vec<&[u8]>> {
    let (mut rows, mut rest) = (Vec::with_capacity(count), body);
    for _ in 0..count {
        let (row, behind) = rest.split_at_checked(row_bytes(rest)?)?;
        rows.push(row);
        rest = behind;
    }
    rest.is_empty().then_some(rows)
}

/// Bytes of the first of these compact rows, its length included (`proto/alcedo/v1/values.proto`).
fn row_bytes(rows: &[u8]) -> Option<usize> {
    let mut rest = rows;
    let fields = usize::try_from(prost::encoding::decode_varint(&mut rest).ok()?).ok()?;
    (rows.len() - rest.len()).checked_add(fields)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn compact_rows_are_cut_and_damaged_ones_are_none() {
        assert_eq!(cut_rows(b"\x02\0a\x03\0bc", 2).unwrap(), [&b"\x02\0a"[..], b"\x03\0bc"]);
        assert_eq!(cut_rows(b"", 0).unwrap().len(), 0);
        for (bytes, count) in [(&b"\x02\0a"[..], 2), (b"\x02\0a\x03\0bc", 1), (b"\x05a", 1), (b"\x80", 1)] {
            assert_eq!(cut_rows(bytes, count), None, "{bytes:?}");
        }
        let endless = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(cut_rows(endless, 1), None);
    }
}
