//! A file index as bytes, so that a worker which restarts need not read footers and page headers again.
//!
//! The format is this crate's own and is never sent: a version byte, then integers as LEB128 varints (signed ones
//! zigzag-coded, offsets as distances from where the piece before them ended), then texts with their length in front.
//! The schema stays the thrift bytes that the file has. Bytes read back are as hostile as a file: every count is
//! compared with the bytes that are left and with the [`Limits`] before anything is reserved, so that what is decoded
//! takes at most some twelve times its encoded size. Unknown versions are refused; whoever keeps such bytes reads the
//! file instead.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError};

use super::FileIndex;
use crate::bounds_list::BoundsList;
use crate::chunk::PageTable;
use crate::error::Error;
use crate::footer::{self, Bound, Chunk, Footer, MAX_BOUND_BYTES, RowGroup, Stats};
use crate::key_column::Bounds;
use crate::limits::Limits;
use crate::packed_stats::PackedStats;
use crate::page_index::PageLocation;
use crate::probe::Point;
use crate::schema_tree::SchemaTree;

/// The version that is written and read. Another layout is another number, and what has another number is not read:
/// version 1 knew neither bloom filters nor where the footer starts.
const VERSION: u8 = 2;

/// Fewest bytes of an encoded column chunk, data page, page's bounds and page table.
const MIN_CHUNK_BYTES: usize = 5;
const MIN_PAGE_BYTES: usize = 3;
const MIN_BOUNDS_BYTES: usize = 1;
const MIN_TABLE_BYTES: usize = 4;

/// Flags of a chunk.
const ENCRYPTED: u64 = 1;
const ELSEWHERE: u64 = 1 << 1;
const DICTIONARY: u64 = 1 << 2;
const OFFSET_INDEX: u64 = 1 << 3;
const COLUMN_INDEX: u64 = 1 << 4;
const STATS: u64 = 1 << 5;
const DEPRECATED: u64 = 1 << 6;
const MIN: u64 = 1 << 7;
const MAX: u64 = 1 << 8;
const NULLS: u64 = 1 << 9;
const MIN_CUT: u64 = 1 << 10;
const MAX_CUT: u64 = 1 << 11;
const BLOOM_FILTER: u64 = 1 << 12;

/// Flags of a page table.
const ALIGNED: u64 = 1;
const HAS_DICTIONARY: u64 = 1 << 1;
const HAS_BOUNDS: u64 = 1 << 2;

/// Flags of a data page's bounds; the kind of its points is in the bits above them.
const ONLY_NULLS: u64 = 1;
const NO_NULLS: u64 = 1 << 1;
const KIND_SHIFT: u32 = 2;
const KIND_NONE: u64 = 0;
const KIND_INT: u64 = 1;
const KIND_FLOAT: u64 = 2;
const KIND_BYTES: u64 = 3;

impl FileIndex {
    /// The index as bytes, with the page tables that were learned so far. The same index gives the same bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer { bytes: vec![VERSION] };
        to.uint(self.file_size);
        to.uint(self.file_size - self.data_end);
        to.text(self.schema.thrift());
        to.uint(self.sorted_by.map_or(0, |leaf| u64::from(leaf) + 1));
        for eight in self.type_ordered.chunks(8) {
            to.bytes.push(eight.iter().enumerate().fold(0, |byte, (bit, set)| byte | u8::from(*set) << bit));
        }
        to.uint(self.groups.len() as u64);
        for group in &self.groups {
            to.uint(group.rows);
        }
        let mut ends = Ends::default();
        for (i, chunk) in self.chunks.iter().enumerate() {
            to.chunk(chunk, self.groups[i / self.columns()].rows, &mut ends);
        }
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let mut tables: Vec<_> = tables.iter().map(|(at, table)| (*at, Arc::clone(table))).collect();
        tables.sort_unstable_by_key(|(at, _)| *at);
        // A table is only made of a chunk that has a range.
        let ranges = |(group, leaf): (u32, u32)| self.chunk_range(group as usize, leaf as usize).ok();
        let tables = tables.into_iter().filter_map(|(at, table)| ranges(at).map(|range| (at, range, table)));
        let tables: Vec<_> = tables.collect();
        to.uint(tables.len() as u64);
        for ((group, leaf), range, table) in tables {
            to.uint(group.into());
            to.uint(leaf.into());
            to.table(&table, &range);
        }
        to.bytes
    }

    /// Reads an index back.
    ///
    /// # Errors
    /// The bytes are of another version, are damaged, or describe a file beyond the limits.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, Error> {
        let mut from = Reader { bytes, at: 0 };
        let version = from.byte()?;
        if version != VERSION {
            return Err(Error::Corrupt(format!("a file index of version {version}, version {VERSION} is read")));
        }
        let file_size = from.uint()?;
        let data_end = file_size.checked_sub(from.uint()?);
        let data_end = data_end.ok_or_else(|| from.error("a footer longer than its file"))?;
        let schema = SchemaTree::decode(from.text()?, limits)?;
        let leaves = schema.num_columns();
        let sorted_by = from.uint()?.checked_sub(1);
        let sorted_by = sorted_by.map(|leaf| u32::try_from(leaf).ok().filter(|leaf| (*leaf as usize) < leaves));
        let sorted_by = sorted_by.map(|leaf| leaf.ok_or_else(|| from.error("no such sorted column"))).transpose()?;
        let ordered = from.take(leaves.div_ceil(8))?;
        let type_ordered = (0..leaves).map(|leaf| ordered[leaf / 8] >> (leaf % 8) & 1 == 1).collect();
        let groups = from.groups(limits)?;
        footer::check_chunks(groups.len(), leaves, limits)?;
        if groups.len() * leaves > from.left() / MIN_CHUNK_BYTES {
            return Err(from.error("it claims more column chunks than there are bytes"));
        }
        let mut ends = Ends::default();
        let mut chunks = Vec::with_capacity(groups.len() * leaves);
        for group in &groups {
            for _ in 0..leaves {
                chunks.push(from.chunk(group.rows, &mut ends)?);
            }
        }
        let footer = Footer { schema, groups, chunks, sorted_by, type_ordered };
        let index = Self::new(footer, file_size, data_end, limits);
        from.tables(&index)?;
        Ok(index)
    }
}

/// Where the pieces before a chunk ended: the next ones usually begin there. Offsets are as a file claims them, so
/// distances wrap around.
#[derive(Default)]
struct Ends {
    data: i64,
    offset_index: i64,
    column_index: i64,
    bloom_filter: i64,
}

struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn wide(&mut self, mut value: u128) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn uint(&mut self, value: u64) {
        self.wide(value.into());
    }

    fn int(&mut self, value: i64) {
        self.uint((value << 1 ^ value >> 63) as u64);
    }

    fn text(&mut self, text: &[u8]) {
        self.uint(text.len() as u64);
        self.bytes.extend_from_slice(text);
    }

    fn chunk(&mut self, chunk: &Chunk, rows: u64, ends: &mut Ends) {
        let set = |flag: u64, when: bool| if when { flag } else { 0 };
        let stats = chunk.stats.as_ref().map(PackedStats::unpack);
        let stats = stats.as_ref();
        let (min, max) = (stats.and_then(|stats| stats.min.as_ref()), stats.and_then(|stats| stats.max.as_ref()));
        let nulls = stats.and_then(|stats| stats.nulls);
        self.uint(
            set(ENCRYPTED, chunk.encrypted)
                | set(ELSEWHERE, chunk.elsewhere)
                | set(DICTIONARY, chunk.dictionary_offset != 0)
                | set(OFFSET_INDEX, chunk.offset_index != (0, 0))
                | set(COLUMN_INDEX, chunk.column_index != (0, 0))
                | set(STATS, stats.is_some())
                | set(DEPRECATED, stats.is_some_and(|stats| stats.deprecated))
                | set(MIN, min.is_some())
                | set(MAX, max.is_some())
                | set(NULLS, nulls.is_some())
                | set(MIN_CUT, min.is_some_and(|bound| bound.cut))
                | set(MAX_CUT, max.is_some_and(|bound| bound.cut))
                | set(BLOOM_FILTER, chunk.bloom_filter != (0, 0)),
        );
        self.int(chunk.data_page_offset.wrapping_sub(ends.data));
        ends.data = chunk.data_page_offset.wrapping_add(chunk.compressed_bytes);
        if chunk.dictionary_offset != 0 {
            self.int(chunk.data_page_offset.wrapping_sub(chunk.dictionary_offset));
        }
        self.int(chunk.compressed_bytes);
        self.int(chunk.codec.into());
        self.int(chunk.values.wrapping_sub(rows as i64));
        let places = [
            (chunk.offset_index, &mut ends.offset_index),
            (chunk.column_index, &mut ends.column_index),
            (chunk.bloom_filter, &mut ends.bloom_filter),
        ];
        for (index, end) in places {
            if index != (0, 0) {
                self.int(index.0.wrapping_sub(*end));
                self.int(index.1.into());
                *end = index.0.wrapping_add(index.1.into());
            }
        }
        for bound in [min, max].into_iter().flatten() {
            self.text(&bound.bytes);
        }
        if let Some(nulls) = nulls {
            self.uint(nulls);
        }
    }

    fn table(&mut self, table: &PageTable, chunk: &Range<u64>) {
        let set = |flag: u64, when: bool| if when { flag } else { 0 };
        self.uint(
            set(ALIGNED, table.aligned)
                | set(HAS_DICTIONARY, table.dictionary.is_some())
                | set(HAS_BOUNDS, table.bounds.is_some()),
        );
        if let Some(dictionary) = &table.dictionary {
            self.uint(dictionary.start - chunk.start);
            self.uint(dictionary.end - dictionary.start);
        }
        self.uint(table.pages.len() as u64);
        let (mut end, mut row) = (chunk.start, 0);
        for page in &table.pages {
            self.uint(page.offset - end);
            self.uint(page.length.into());
            self.uint(page.first_row - row);
            (end, row) = (page.offset + u64::from(page.length), page.first_row);
        }
        for bounds in table.bounds.iter().flat_map(|bounds| bounds.iter()) {
            self.bounds(&bounds);
        }
    }

    fn bounds(&mut self, bounds: &Bounds) {
        let set = |flag: u64, when: bool| if when { flag } else { 0 };
        let kind = match &bounds.range {
            None => KIND_NONE,
            Some((Point::Int(_), _)) => KIND_INT,
            Some((Point::Float(_), _)) => KIND_FLOAT,
            Some((Point::Bytes(_), _)) => KIND_BYTES,
        };
        self.uint(set(ONLY_NULLS, bounds.only_nulls) | set(NO_NULLS, bounds.no_nulls) | kind << KIND_SHIFT);
        let points = bounds.range.iter().flat_map(|(min, max)| [min, max]);
        for point in points {
            match point {
                Point::Int(value) => self.wide((value << 1 ^ value >> 127) as u128),
                Point::Float(value) => self.bytes.extend_from_slice(&value.to_le_bytes()),
                Point::Bytes(bytes) => self.text(bytes),
            }
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn error(&self, problem: &str) -> Error {
        Error::Corrupt(format!("a stored file index at byte {}: {problem}", self.at))
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        if length > self.left() {
            return Err(self.error("it ends early"));
        }
        let taken = &self.bytes[self.at..self.at + length];
        self.at += length;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.take(1)?[0])
    }

    fn wide(&mut self) -> Result<u128, Error> {
        let mut value = 0_u128;
        for shift in (0..128).step_by(7) {
            let byte = self.byte()?;
            value |= u128::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error("an integer takes more than 128 bits"))
    }

    fn uint(&mut self) -> Result<u64, Error> {
        let value = self.wide()?;
        u64::try_from(value).map_err(|_| self.error("an integer is out of range"))
    }

    fn int(&mut self) -> Result<i64, Error> {
        let zigzag = self.uint()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    fn int32(&mut self) -> Result<i32, Error> {
        let value = self.int()?;
        i32::try_from(value).map_err(|_| self.error("an integer is out of range"))
    }

    fn text(&mut self) -> Result<&'a [u8], Error> {
        let length = self.uint()?;
        let length = usize::try_from(length).map_err(|_| self.error("a length is larger than memory"))?;
        self.take(length)
    }

    /// A count of things that take at least so many bytes each.
    fn count(&mut self, least_bytes: usize) -> Result<usize, Error> {
        let count = self.uint()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.left() / least_bytes => Ok(count),
            _ => Err(self.error("it claims more elements than there are bytes")),
        }
    }

    fn groups(&mut self, limits: &Limits) -> Result<Vec<RowGroup>, Error> {
        let count = self.count(1)?;
        if count > limits.row_groups {
            return Err(Error::Limit(format!("{count} row groups, at most {} are read", limits.row_groups)));
        }
        let (mut groups, mut first_row) = (Vec::with_capacity(count), 0_u64);
        for _ in 0..count {
            let rows = self.uint()?;
            groups.push(RowGroup { first_row, rows });
            let end = first_row.checked_add(rows).filter(|rows| i64::try_from(*rows).is_ok());
            first_row = end.ok_or_else(|| self.error("row counts add up beyond 2^63"))?;
        }
        Ok(groups)
    }

    fn chunk(&mut self, rows: u64, ends: &mut Ends) -> Result<Chunk, Error> {
        let flags = self.uint()?;
        let is_set = |flag: u64| flags & flag != 0;
        let mut chunk = Chunk { encrypted: is_set(ENCRYPTED), elsewhere: is_set(ELSEWHERE), ..Chunk::default() };
        chunk.data_page_offset = self.int()?.wrapping_add(ends.data);
        if is_set(DICTIONARY) {
            chunk.dictionary_offset = chunk.data_page_offset.wrapping_sub(self.int()?);
        }
        chunk.compressed_bytes = self.int()?;
        ends.data = chunk.data_page_offset.wrapping_add(chunk.compressed_bytes);
        chunk.codec = self.int32()?;
        chunk.values = self.int()?.wrapping_add(rows as i64);
        if is_set(OFFSET_INDEX) {
            chunk.offset_index = self.index_place(&mut ends.offset_index)?;
        }
        if is_set(COLUMN_INDEX) {
            chunk.column_index = self.index_place(&mut ends.column_index)?;
        }
        if is_set(BLOOM_FILTER) {
            chunk.bloom_filter = self.index_place(&mut ends.bloom_filter)?;
        }
        if is_set(STATS) {
            let mut stats = Stats { deprecated: is_set(DEPRECATED), ..Stats::default() };
            stats.min = is_set(MIN).then(|| self.bound(is_set(MIN_CUT))).transpose()?;
            stats.max = is_set(MAX).then(|| self.bound(is_set(MAX_CUT))).transpose()?;
            stats.nulls = is_set(NULLS).then(|| self.uint()).transpose()?;
            chunk.stats = Some(PackedStats::pack(&stats));
        }
        Ok(chunk)
    }

    fn index_place(&mut self, end: &mut i64) -> Result<(i64, i32), Error> {
        let (offset, length) = (self.int()?.wrapping_add(*end), self.int32()?);
        *end = offset.wrapping_add(length.into());
        Ok((offset, length))
    }

    fn bound(&mut self, cut: bool) -> Result<Bound, Error> {
        let bytes = self.text()?;
        if bytes.len() > MAX_BOUND_BYTES {
            return Err(self.error("a bound is longer than any that is kept"));
        }
        Ok(Bound { bytes: bytes.into(), cut })
    }

    /// The page tables, which are the rest of the bytes.
    fn tables(&mut self, index: &FileIndex) -> Result<(), Error> {
        let count = self.count(MIN_TABLE_BYTES)?;
        let mut tables = HashMap::with_capacity(count);
        for _ in 0..count {
            let (group, leaf) = (self.uint()?, self.uint()?);
            if group >= index.groups.len() as u64 || leaf >= index.columns() as u64 {
                return Err(self.error("a page table of a column chunk that is not there"));
            }
            let range = index.chunk_range(group as usize, leaf as usize)?;
            let table = self.table(&range, index.groups[group as usize].rows)?;
            tables.insert((group as usize, leaf as usize), Arc::new(table));
        }
        if self.left() > 0 {
            return Err(self.error("it goes on beyond its end"));
        }
        for ((group, leaf), table) in tables {
            index.keep_table(group, leaf, &table);
        }
        Ok(())
    }

    fn table(&mut self, chunk: &Range<u64>, rows: u64) -> Result<PageTable, Error> {
        let flags = self.uint()?;
        let mut dictionary = None;
        if flags & HAS_DICTIONARY != 0 {
            let (start, length) = (self.uint()?, self.uint()?);
            let start = chunk.start.checked_add(start);
            let end = start.and_then(|start| start.checked_add(length)).filter(|end| *end <= chunk.end);
            let range = start.zip(end).map(|(start, end)| start..end);
            dictionary = Some(range.ok_or_else(|| self.error("a dictionary page outside of its column chunk"))?);
        }
        let count = self.count(MIN_PAGE_BYTES)?;
        let mut pages = Vec::with_capacity(count);
        let (mut end, mut row) = (chunk.start, 0_u64);
        for _ in 0..count {
            let (gap, length, further) = (self.uint()?, self.uint()?, self.uint()?);
            let offset = end.checked_add(gap);
            let next = offset.and_then(|offset| offset.checked_add(length)).filter(|next| *next <= chunk.end);
            let first_row = row.checked_add(further).filter(|row| *row <= rows);
            let page = (offset, next, u32::try_from(length), first_row);
            let (Some(offset), Some(next), Ok(length), Some(first_row)) = page else {
                return Err(self.error("a data page outside of its column chunk"));
            };
            pages.push(PageLocation { offset, length, first_row });
            (end, row) = (next, first_row);
        }
        let starts = pages.first().map_or(rows == 0, |page| page.first_row == 0);
        if !starts {
            return Err(self.error("a page table does not begin with the first row"));
        }
        let mut bounds = None;
        if flags & HAS_BOUNDS != 0 {
            if count > self.left() / MIN_BOUNDS_BYTES {
                return Err(self.error("it claims more bounds than there are bytes"));
            }
            bounds = Some(BoundsList::new((0..count).map(|_| self.bounds()).collect::<Result<_, _>>()?));
        }
        Ok(PageTable { dictionary, pages: pages.into(), rows, aligned: flags & ALIGNED != 0, bounds })
    }

    fn bounds(&mut self) -> Result<Bounds, Error> {
        let flags = self.uint()?;
        let range = match flags >> KIND_SHIFT {
            KIND_NONE => None,
            kind => Some((self.point(kind)?, self.point(kind)?)),
        };
        if range.as_ref().is_some_and(|(min, max)| min > max) {
            return Err(self.error("a lower bound above its upper bound"));
        }
        Ok(Bounds { range, only_nulls: flags & ONLY_NULLS != 0, no_nulls: flags & NO_NULLS != 0 })
    }

    fn point(&mut self, kind: u64) -> Result<Point, Error> {
        match kind {
            KIND_INT => {
                let zigzag = self.wide()?;
                Ok(Point::Int((zigzag >> 1) as i128 ^ -((zigzag & 1) as i128)))
            }
            KIND_FLOAT => {
                let bytes = self.take(8)?.try_into().map_err(|_| self.error("it ends early"))?;
                Point::float(f64::from_le_bytes(bytes)).ok_or_else(|| self.error("a bound is not a number"))
            }
            KIND_BYTES => Ok(Point::Bytes(self.text()?.into())),
            _ => Err(self.error("a bound of an unknown kind")),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes of the file that the indexes below are about.
    const FILE_SIZE: u64 = 1 << 40;

    /// A root with two INT64 leaves, as thrift's compact protocol writes it.
    fn schema() -> Vec<u8> {
        let leaf = |name: &str| {
            let head = [0x15, 0x04, 0x25, 0x02, 0x18, name.len() as u8];
            [&head, name.as_bytes(), &[0x00]].concat()
        };
        let root = [0x48, 0x04, b'r', b'o', b'o', b't', 0x15, 0x04, 0x00];
        [&[0x3c], &root[..], &leaf("a"), &leaf("b")].concat()
    }

    fn bound() -> impl Strategy<Value = Bound> {
        (prop::collection::vec(any::<u8>(), 0..=MAX_BOUND_BYTES), any::<bool>())
            .prop_map(|(bytes, cut)| Bound { bytes: bytes.into(), cut })
    }

    fn stats() -> impl Strategy<Value = Stats> {
        use prop::option::of;
        (of(bound()), of(bound()), any::<bool>(), of(any::<u64>())).prop_map(|(min, max, deprecated, nulls)| Stats {
            min,
            max,
            deprecated,
            nulls,
        })
    }

    /// Whatever a footer may claim.
    fn claimed_chunk() -> impl Strategy<Value = Chunk> {
        let place = || (any::<i64>(), any::<i32>());
        // Some places are inside the file.
        let place = || prop_oneof![place(), (4..1_i64 << 39, 0..1_i32 << 20), Just((0, 0))];
        let data = prop_oneof![any::<[i64; 2]>(), [4..1_i64 << 39, 0..1_i64 << 39]];
        let numbers = (data, any::<[i64; 2]>(), any::<i32>(), [place(), place(), place()]);
        (numbers, prop::option::of(stats()), any::<[bool; 2]>()).prop_map(
            |((data, longs, codec, [offset_index, column_index, bloom_filter]), stats, [encrypted, elsewhere])| Chunk {
                data_page_offset: data[0],
                dictionary_offset: longs[0],
                compressed_bytes: data[1],
                codec,
                values: longs[1],
                offset_index,
                column_index,
                bloom_filter,
                stats: stats.as_ref().map(PackedStats::pack),
                encrypted,
                elsewhere,
                overlaps: false,
            },
        )
    }

    fn point() -> impl Strategy<Value = (Point, Point)> {
        let ordered = |a: Point, b: Point| if a <= b { (a, b) } else { (b, a) };
        let bytes = || prop::collection::vec(any::<u8>(), 0..80);
        prop_oneof![
            any::<[i128; 2]>().prop_map(move |[a, b]| ordered(Point::Int(a), Point::Int(b))),
            any::<[i32; 2]>().prop_map(move |[a, b]| ordered(Point::Float(a.into()), Point::Float(b.into()))),
            (bytes(), bytes()).prop_map(move |(a, b)| ordered(Point::Bytes(a.into()), Point::Bytes(b.into()))),
        ]
    }

    /// A table of a chunk at 1,000 with so many bytes, of a row group with so many rows.
    fn table(chunk_bytes: u64, rows: u64) -> impl Strategy<Value = PageTable> {
        let bounds = (prop::option::of(point()), any::<bool>(), any::<bool>())
            .prop_map(|(range, only_nulls, no_nulls)| Bounds { range, only_nulls, no_nulls });
        let page = (0..chunk_bytes / 32, 0..chunk_bytes as u32 / 32, 0..rows / 8, bounds);
        let pages = prop::collection::vec(page, 1..8);
        (any::<[bool; 2]>(), pages, prop::option::of(0..chunk_bytes / 8)).prop_map(
            move |([aligned, has_bounds], pages, dictionary)| {
                let (mut offset, mut first_row) = (1_000, 0);
                let (mut locations, mut bounds) = (Vec::new(), Vec::new());
                for (i, (gap, length, further, bound)) in pages.into_iter().enumerate() {
                    offset += gap;
                    first_row += if i == 0 { 0 } else { further };
                    locations.push(PageLocation { offset, length, first_row });
                    offset += u64::from(length);
                    bounds.push(bound);
                }
                PageTable {
                    dictionary: dictionary.map(|length| 1_000..1_000 + length),
                    pages: locations.into(),
                    rows,
                    aligned,
                    bounds: has_bounds.then(|| BoundsList::new(bounds)),
                }
            },
        )
    }

    fn index(chunks: Vec<(u32, [Chunk; 2])>, sorted_by: Option<u32>, type_ordered: [bool; 2]) -> FileIndex {
        let mut first_row = 0;
        let group = |rows: u64| {
            let group = RowGroup { first_row, rows };
            first_row += rows;
            group
        };
        let groups = chunks.iter().map(|(rows, _)| u64::from(*rows)).map(group).collect();
        let schema = SchemaTree::decode(&schema(), &Limits::default()).unwrap();
        let chunks = chunks.into_iter().flat_map(|(_, chunks)| chunks).collect();
        let footer = Footer { schema, groups, chunks, sorted_by, type_ordered: type_ordered.to_vec() };
        FileIndex::new(footer, FILE_SIZE, FILE_SIZE - 1_000, &Limits::default())
    }

    /// Everything that an index holds, as text.
    fn all_of(index: &FileIndex) -> String {
        let tables = index.tables.read().unwrap();
        let mut tables: Vec<_> = tables.iter().map(|(at, table)| format!("{at:?} {table:?}")).collect();
        tables.sort();
        let (groups, chunks) = (&index.groups, &index.chunks);
        let (sorted_by, ordered) = (index.sorted_by, &index.type_ordered);
        let (ends, weight) = ((index.file_size, index.data_end), index.weight());
        format!("{ends:?} {groups:?} {chunks:?} {sorted_by:?} {ordered:?} {tables:?} {weight}")
    }

    proptest! {
        #[test]
        fn what_is_read_back_is_what_was_written(
            chunks in prop::collection::vec((any::<u32>(), [claimed_chunk(), claimed_chunk()]), 0..5),
            sorted_by in prop::option::of(0..2_u32),
            type_ordered in any::<[bool; 2]>(),
        ) {
            let index = index(chunks, sorted_by, type_ordered);
            let read = FileIndex::decode(&index.encode(), &Limits::default()).unwrap();
            prop_assert_eq!(all_of(&read), all_of(&index));
            prop_assert_eq!(read.encode(), index.encode());
        }

        #[test]
        fn learned_page_tables_are_read_back_too(tables in prop::collection::vec(table(1 << 20, 1 << 20), 0..4)) {
            let chunk = || Chunk { data_page_offset: 1_000, compressed_bytes: 1 << 20, ..Chunk::default() };
            let index = index(vec![(1 << 20, [chunk(), chunk()]), (1 << 20, [chunk(), chunk()])], None, [true, false]);
            for (i, table) in tables.into_iter().enumerate() {
                index.keep_table(i / 2, i % 2, &Arc::new(table));
            }
            let read = FileIndex::decode(&index.encode(), &Limits::default()).unwrap();
            prop_assert_eq!(all_of(&read), all_of(&index));
        }

        #[test]
        fn noise_is_refused(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let noise = [&[VERSION], noise.as_slice()].concat();
            prop_assert!(FileIndex::decode(&noise, &Limits::default()).is_err());
        }
    }
}
