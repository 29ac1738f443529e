//! A footer, read once and within bounds, straight into the small form that a [`FileIndex`](crate::file_index) keeps.
//!
//! Row groups are read here and not by the parquet crate, because its own form of them is many times larger, and
//! because it gives up a whole file over one column that it cannot read (an encrypted one, say). What column chunks
//! claim of places in the file is compared with the file and with each other once, by [`settle`]. Source:
//! <https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift>.

use std::ops::Range;

use crate::arrow_hint;
use crate::bloom::BloomPlace;
use crate::codec::Codec;
use crate::error::Error;
use crate::limits::Limits;
use crate::packed_stats::PackedStats;
use crate::schema_tree::SchemaTree;
use crate::thrift::{BINARY, I32, I64, LIST, Reader, STRUCT};

/// Length of the little-endian footer length and the magic that end a file.
pub(crate) const TRAILER_BYTES: u64 = 8;
/// Both ends of a plain file.
pub(crate) const MAGIC: &[u8; 4] = b"PAR1";
/// Ends of a file whose footer is encrypted.
pub(crate) const MAGIC_ENCRYPTED: &[u8; 4] = b"PARE";

/// Statistics longer than this are cut, the lower bound downward and the upper bound upward: they need only separate
/// row groups and data pages.
pub(crate) const MAX_BOUND_BYTES: usize = 64;

/// A footer's content.
pub(crate) struct Footer {
    pub(crate) schema: SchemaTree,
    /// Row groups in file order.
    pub(crate) groups: Vec<RowGroup>,
    /// Row groups x leaf columns.
    pub(crate) chunks: Vec<Chunk>,
    /// First column of the first row group's declared sort order.
    pub(crate) sorted_by: Option<u32>,
    /// Per leaf: the writer promises the type's own order for min_value and max_value.
    pub(crate) type_ordered: Vec<bool>,
}

/// One row group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowGroup {
    /// 0-based number in the file of its first row.
    pub(crate) first_row: u64,
    pub(crate) rows: u64,
}

/// Where a column chunk is and what is known of its values. Offsets are as the file claims them: [`Chunk::range`]
/// checks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chunk {
    pub(crate) data_page_offset: i64,
    pub(crate) dictionary_offset: i64,
    pub(crate) compressed_bytes: i64,
    pub(crate) codec: i32,
    /// Values including nulls.
    pub(crate) values: i64,
    pub(crate) offset_index: (i64, i32),
    pub(crate) column_index: (i64, i32),
    /// Older writers leave the length out.
    pub(crate) bloom_filter: (i64, i32),
    pub(crate) stats: Option<PackedStats>,
    pub(crate) encrypted: bool,
    /// The chunk is in another file, which Parquet allows and nobody reads.
    pub(crate) elsewhere: bool,
    /// Another chunk begins inside this one, so it cannot be what the footer says. Found by [`settle`].
    pub(crate) overlaps: bool,
}

/// A chunk's statistics as the file has them; `probe` decides what may be believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) min: Option<Bound>,
    pub(crate) max: Option<Bound>,
    /// From the deprecated fields, whose order is only right for signed numbers.
    pub(crate) deprecated: bool,
    pub(crate) nulls: Option<u64>,
}

/// One bound in plain encoding; cut when it was longer than 64 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) bytes: Box<[u8]>,
    pub(crate) cut: bool,
}

impl Bound {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let kept = &bytes[..bytes.len().min(MAX_BOUND_BYTES)];
        Self { bytes: kept.into(), cut: kept.len() < bytes.len() }
    }
}

impl Chunk {
    /// The chunk's bytes, dictionary page first. `data_end` is where the footer starts.
    ///
    /// # Errors
    /// The footer's offsets are not inside the file, or the chunk cannot be read at all.
    pub(crate) fn range(&self, data_end: u64) -> Result<Range<u64>, Error> {
        if self.encrypted {
            return Err(Error::Encrypted("the column is encrypted and no key is configured".to_owned()));
        }
        if self.elsewhere {
            return Err(Error::Unsupported("a column chunk in another file".to_owned()));
        }
        if self.overlaps {
            return Err(Error::corrupt("a column chunk overlaps another"));
        }
        let start = match self.dictionary_offset {
            // Writers say "no dictionary" by leaving the field out or by 0; some set it beyond the first data page.
            offset if offset > 0 && offset < self.data_page_offset => offset,
            _ => self.data_page_offset,
        };
        let end = start.checked_add(self.compressed_bytes).filter(|_| start >= 4 && self.compressed_bytes >= 0);
        match end {
            Some(end) if end as u64 <= data_end => Ok(start as u64..end as u64),
            _ => Err(Error::corrupt(format!(
                "a column chunk of {} bytes at offset {start} is not inside the {data_end} bytes before the footer",
                self.compressed_bytes
            ))),
        }
    }

    /// Where the offset index is; none where the file has none or puts it outside of itself.
    pub(crate) fn offset_index(&self, file_size: u64) -> Option<Range<u64>> {
        index_range(self.offset_index, file_size)
    }

    /// Where the column index is.
    pub(crate) fn column_index(&self, file_size: u64) -> Option<Range<u64>> {
        index_range(self.column_index, file_size)
    }

    /// Where the bloom filter is.
    pub(crate) fn bloom_filter(&self, data_end: u64) -> Option<BloomPlace> {
        let (offset, length) = self.bloom_filter;
        if length == 0 {
            let start = u64::try_from(offset).ok().filter(|start| (4..data_end).contains(start))?;
            return Some(BloomPlace { range: start..data_end, exact: false });
        }
        index_range(self.bloom_filter, data_end).map(|range| BloomPlace { range, exact: true })
    }

    pub(crate) fn codec(&self) -> Result<Codec, Error> {
        Codec::from_thrift(self.codec)
    }
}

fn index_range((offset, length): (i64, i32), file_size: u64) -> Option<Range<u64>> {
    let end = offset.checked_add(length.into())?;
    (offset >= 4 && length > 0 && end as u64 <= file_size).then_some(offset as u64..end as u64)
}

/// Compares what column chunks claim with the file, whose footer starts at `data_end`: indexes and bloom filters that
/// are not before it or pass a bound are forgotten, because they are advisory, and chunks that another one begins
/// inside of are marked.
pub(crate) fn settle(chunks: &mut [Chunk], data_end: u64, limits: &Limits) {
    for chunk in chunks.iter_mut() {
        for index in [&mut chunk.offset_index, &mut chunk.column_index] {
            let usable = index_range(*index, data_end).is_some_and(|range| {
                usize::try_from(range.end - range.start).is_ok_and(|bytes| bytes <= limits.index_bytes)
            });
            if !usable {
                *index = (0, 0);
            }
        }
        if chunk.bloom_filter(data_end).is_none() {
            chunk.bloom_filter = (0, 0);
        }
    }
    mark_overlaps(chunks, data_end);
}

/// Marks chunks that another one begins strictly inside of. Chunks that hold nothing may be anywhere.
fn mark_overlaps(chunks: &mut [Chunk], data_end: u64) {
    let range = |chunk: &Chunk| chunk.range(data_end).ok().filter(|range| !range.is_empty());
    let mut end = 0;
    // Writers lay chunks out in the order of the footer.
    let in_order = chunks.iter().filter_map(range).all(|range| {
        let follows = range.start >= end;
        end = range.end;
        follows
    });
    if in_order {
        return;
    }
    let ranges =
        chunks.iter().enumerate().filter_map(|(i, chunk)| range(chunk).map(|range| (range.start, range.end, i)));
    let mut ranges: Vec<(u64, u64, usize)> = ranges.collect();
    ranges.sort_unstable();
    // The nearest start behind those of the ranges seen so far, from the last range to the first.
    let (mut behind, mut last_start) = (u64::MAX, u64::MAX);
    for (start, end, chunk) in ranges.into_iter().rev() {
        if start < last_start {
            (behind, last_start) = (last_start, start);
        }
        chunks[chunk].overlaps = end > behind;
    }
}

/// Reads a footer's thrift bytes.
///
/// # Errors
/// They are not a footer, or pass a bound.
pub(crate) fn read(bytes: &[u8], limits: &Limits) -> Result<Footer, Error> {
    let mut reader = Reader::new(bytes, "footer", limits);
    let mut schema: Option<SchemaTree> = None;
    let mut rows = FooterRows::default();
    let mut type_ordered = Vec::new();
    let mut hint = None;
    reader.fields(|reader, id, ty| {
        match (id, ty) {
            (2, LIST) => schema = Some(SchemaTree::read(reader, limits)?),
            (4, LIST) => {
                // The one order that all writers keep. What a chunk may claim depends on the schema.
                let schema = schema.as_ref().ok_or_else(|| reader.error("row groups stand before the schema"))?;
                rows = FooterRows::default();
                rows.read(reader, schema.num_columns(), limits)?;
            }
            (5, LIST) => hint = arrow_schema(reader)?,
            (7, LIST) => type_ordered = column_orders(reader)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let mut schema = schema.ok_or_else(|| reader.error("it has no schema"))?;
    let durations = hint.map(|hint| arrow_hint::durations(hint, &schema)).unwrap_or_default();
    if !durations.is_empty() {
        schema = schema.with_durations(&durations, limits)?;
    }
    let leaves = schema.num_columns();
    if rows.chunks.len() != rows.groups.len() * leaves {
        return Err(reader.error("it has two schemas"));
    }
    type_ordered.resize(leaves, false);
    Ok(Footer {
        groups: rows.groups,
        chunks: rows.chunks,
        sorted_by: rows.sorted_by.filter(|leaf| (*leaf as usize) < leaves),
        type_ordered,
        schema,
    })
}

/// The Arrow schema among the key-value metadata, as it is encoded there.
fn arrow_schema<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, Error> {
    let count = reader.list_of(STRUCT)?;
    let mut found = None;
    for _ in 0..count {
        let (mut key, mut value) = (None, None);
        reader.fields(|reader, id, ty| {
            match (id, ty) {
                (1, BINARY) => key = Some(reader.binary()?),
                (2, BINARY) => value = Some(reader.binary()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if key == Some(arrow_hint::KEY) {
            found = value;
        }
    }
    Ok(found)
}

/// Per leaf, whether its column order is the type's own (the only one the format defines).
fn column_orders(reader: &mut Reader<'_>) -> Result<Vec<bool>, Error> {
    let count = reader.list_of(STRUCT)?;
    let mut orders = Vec::new();
    for _ in 0..count {
        let mut type_defined = false;
        reader.fields(|_, id, ty| {
            type_defined |= (id, ty) == (1, STRUCT);
            Ok(false)
        })?;
        orders.push(type_defined);
    }
    Ok(orders)
}

#[derive(Default)]
struct FooterRows {
    groups: Vec<RowGroup>,
    chunks: Vec<Chunk>,
    sorted_by: Option<u32>,
    rows: u64,
}

impl FooterRows {
    fn read(&mut self, reader: &mut Reader<'_>, leaves: usize, limits: &Limits) -> Result<(), Error> {
        let count = reader.list_of(STRUCT)?;
        if count > limits.row_groups {
            return Err(Error::Limit(format!("{count} row groups, at most {} are read", limits.row_groups)));
        }
        check_chunks(count, leaves, limits)?;
        for group in 0..count {
            let mut rows = None;
            let mut chunks = 0;
            reader.fields(|reader, id, ty| {
                match (id, ty) {
                    (1, LIST) if chunks == 0 => chunks = self.read_chunks(reader, leaves)?,
                    (3, I64) => rows = Some(reader.unsigned()?),
                    (4, LIST) if group == 0 => self.sorted_by = first_sorting_column(reader)?,
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
            let rows = rows.ok_or_else(|| reader.error("a row group does not say how many rows it has"))?;
            if chunks != leaves {
                return Err(reader.error("a row group has another number of columns than the schema"));
            }
            self.groups.push(RowGroup { first_row: self.rows, rows });
            // Row numbers stay below 2^63, so that they fit every signed count.
            self.rows = self
                .rows
                .checked_add(rows)
                .filter(|rows| i64::try_from(*rows).is_ok())
                .ok_or_else(|| reader.error("row counts add up beyond 2^63"))?;
        }
        Ok(())
    }

    fn read_chunks(&mut self, reader: &mut Reader<'_>, leaves: usize) -> Result<usize, Error> {
        let count = reader.list_of(STRUCT)?;
        if count != leaves {
            return Err(reader.error("a row group has another number of columns than the schema"));
        }
        for _ in 0..count {
            self.chunks.push(read_chunk(reader)?);
        }
        Ok(count)
    }
}

/// Checks how many column chunks a file claims, before any is read.
pub(crate) fn check_chunks(groups: usize, leaves: usize, limits: &Limits) -> Result<(), Error> {
    match groups.checked_mul(leaves) {
        Some(chunks) if chunks <= limits.column_chunks => Ok(()),
        _ => Err(Error::Limit(format!(
            "{groups} row groups of {leaves} columns are more column chunks than the {} that are read",
            limits.column_chunks
        ))),
    }
}

fn first_sorting_column(reader: &mut Reader<'_>) -> Result<Option<u32>, Error> {
    let count = reader.list_of(STRUCT)?;
    let mut first = None;
    for column in 0..count {
        reader.fields(|reader, id, ty| {
            if (id, ty) == (1, I32) {
                let leaf = reader.i32()?;
                if column == 0 {
                    first = u32::try_from(leaf).ok();
                }
                return Ok(true);
            }
            Ok(false)
        })?;
    }
    Ok(first)
}

fn read_chunk(reader: &mut Reader<'_>) -> Result<Chunk, Error> {
    let mut chunk = Chunk::default();
    let mut has_metadata = false;
    reader.fields(|reader, id, ty| {
        match (id, ty) {
            (1, BINARY) => chunk.elsewhere = !reader.binary()?.is_empty(),
            (3, STRUCT) => {
                has_metadata = true;
                read_column_metadata(reader, &mut chunk)?;
            }
            (4, I64) => chunk.offset_index.0 = reader.int()?,
            (5, I32) => chunk.offset_index.1 = reader.i32()?,
            (6, I64) => chunk.column_index.0 = reader.int()?,
            (7, I32) => chunk.column_index.1 = reader.i32()?,
            (8, STRUCT) => {
                chunk.encrypted = true;
                return Ok(false);
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    chunk.encrypted |= !has_metadata;
    Ok(chunk)
}

fn read_column_metadata(reader: &mut Reader<'_>, chunk: &mut Chunk) -> Result<(), Error> {
    reader.fields(|reader, id, ty| {
        match (id, ty) {
            (4, I32) => chunk.codec = reader.i32()?,
            (5, I64) => chunk.values = reader.int()?,
            (7, I64) => chunk.compressed_bytes = reader.int()?,
            (9, I64) => chunk.data_page_offset = reader.int()?,
            (11, I64) => chunk.dictionary_offset = reader.int()?,
            (14, I64) => chunk.bloom_filter.0 = reader.int()?,
            (15, I32) => chunk.bloom_filter.1 = reader.i32()?,
            (12, STRUCT) => chunk.stats = read_stats(reader)?.as_ref().map(PackedStats::pack),
            _ => return Ok(false),
        }
        Ok(true)
    })
}

fn read_stats(reader: &mut Reader<'_>) -> Result<Option<Stats>, Error> {
    let (mut old_min, mut old_max) = (None, None);
    let mut stats = Stats::default();
    reader.fields(|reader, id, ty| {
        match (id, ty) {
            (1, BINARY) => old_max = Some(Bound::new(reader.binary()?)),
            (2, BINARY) => old_min = Some(Bound::new(reader.binary()?)),
            (3, I64) => stats.nulls = u64::try_from(reader.int()?).ok(),
            (5, BINARY) => stats.max = Some(Bound::new(reader.binary()?)),
            (6, BINARY) => stats.min = Some(Bound::new(reader.binary()?)),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if stats.min.is_none() && stats.max.is_none() {
        (stats.min, stats.max) = (old_min, old_max);
        stats.deprecated = true;
    }
    let any = stats.min.is_some() || stats.max.is_some() || stats.nulls.is_some();
    Ok(any.then_some(stats))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::page_index::{read_column_index, read_offset_index};
    use crate::thrift::TRUE;

    /// Where the footer of the files below starts.
    const DATA_END: u64 = 1_000;

    fn settled(mut chunks: Vec<Chunk>, limits: &Limits) -> Vec<Chunk> {
        settle(&mut chunks, DATA_END, limits);
        chunks
    }

    fn at(start: i64, bytes: i64) -> Chunk {
        Chunk { data_page_offset: start, compressed_bytes: bytes, ..Chunk::default() }
    }

    fn overlapping(chunks: &[Chunk]) -> Vec<bool> {
        let chunks = settled(chunks.to_vec(), &Limits::default());
        for chunk in chunks.iter().filter(|chunk| chunk.overlaps) {
            assert!(matches!(chunk.range(DATA_END), Err(Error::Corrupt(text)) if text.contains("overlaps")));
        }
        chunks.iter().map(|chunk| chunk.overlaps).collect()
    }

    #[test]
    fn a_chunk_that_another_begins_inside_of_is_marked() {
        assert_eq!(overlapping(&[at(4, 10), at(14, 10), at(24, 976)]), [false; 3]);
        assert_eq!(overlapping(&[at(24, 976), at(14, 10), at(4, 10)]), [false; 3], "in another order");
        assert_eq!(overlapping(&[at(4, 11), at(14, 10)]), [true, false]);
        assert_eq!(overlapping(&[at(14, 10), at(4, 11)]), [false, true]);
        // Two that are the same are no sign of damage by themselves, and a third begins inside both.
        assert_eq!(overlapping(&[at(4, 20), at(4, 20)]), [false; 2]);
        assert_eq!(overlapping(&[at(4, 20), at(23, 5), at(4, 20), at(24, 1)]), [true, true, true, false]);
        // One that holds all others, but not from its own beginning.
        assert_eq!(overlapping(&[at(4, 900), at(4, 10), at(14, 10)]), [true, false, false]);
        // What cannot be read or holds nothing may say anything.
        assert_eq!(overlapping(&[at(4, 100), at(50, 0), at(50, -1), at(50, i64::MAX)]), [false; 4]);
        let elsewhere = Chunk { elsewhere: true, ..at(50, 10) };
        assert_eq!(overlapping(&[at(4, 100), elsewhere]), [false; 2]);
    }

    #[test]
    fn chunks_end_before_the_footer_and_begin_behind_the_magic() {
        let is_readable = |chunk: Chunk| chunk.range(DATA_END).is_ok();
        assert!(is_readable(at(4, 996)));
        assert!(!is_readable(at(4, 997)) && !is_readable(at(3, 10)) && !is_readable(at(-5, 10)));
        assert!(!is_readable(at(4, -1)) && !is_readable(at(i64::MAX, i64::MAX)) && !is_readable(at(4, 1 << 50)));
        // A dictionary page in front of the data pages is the chunk's beginning; one behind them is none.
        let with_dictionary = |offset| Chunk { dictionary_offset: offset, ..at(100, 50) };
        assert_eq!(with_dictionary(90).range(DATA_END).unwrap(), 90..140);
        assert_eq!(with_dictionary(110).range(DATA_END).unwrap(), 100..150);
        assert_eq!(with_dictionary(-1).range(DATA_END).unwrap(), 100..150);
        assert!(with_dictionary(2).range(DATA_END).is_err());
    }

    #[test]
    fn indexes_and_filters_that_are_not_before_the_footer_are_forgotten() {
        let limits = Limits { index_bytes: 500, ..Limits::default() };
        let used = |index: (i64, i32)| {
            let chunk = Chunk { offset_index: index, column_index: index, bloom_filter: index, ..at(4, 10) };
            let chunk = &settled(vec![chunk], &limits)[0];
            [chunk.offset_index(DATA_END), chunk.column_index(DATA_END)].map(|range| range.is_some())
        };
        assert_eq!(used((500, 500)), [true; 2]);
        for index in
            [(501, 500), (499, 501), (3, 10), (-1, 10), (500, 0), (500, -1), (i64::MAX, i32::MAX), (4, i32::MAX)]
        {
            assert_eq!(used(index), [false; 2], "{index:?}");
        }
        let filter = |place: (i64, i32)| {
            let chunk = Chunk { bloom_filter: place, ..at(4, 10) };
            let chunk = &settled(vec![chunk], &limits)[0];
            chunk.bloom_filter(DATA_END).map(|place| (place.range, place.exact))
        };
        assert_eq!(filter((100, 900)), Some((100..1_000, true)), "as long as it likes: only blocks of it are read");
        assert_eq!(filter((100, 0)), Some((100..1_000, false)));
        for place in [(0, 0), (100, 901), (100, -1), (1_000, 0), (3, 0), (-1, 0), (i64::MIN, 0)] {
            assert_eq!(filter(place), None, "{place:?}");
        }
    }

    /// A footer of so many leaves and so many row groups with so many chunks each, which say nothing.
    fn footer(leaves: usize, groups: usize, chunks: usize) -> Vec<u8> {
        let count = |ty: u8, count: usize| {
            vec![0xf0 | ty, count as u8 | 0x80, (count >> 7) as u8 | 0x80, (count >> 14) as u8 & 0x7f]
        };
        let mut bytes = [vec![0x29], count(STRUCT, leaves + 1)].concat();
        let children = (leaves as u32) << 1;
        bytes.extend([0x55, children as u8 | 0x80, (children >> 7) as u8 | 0x80, (children >> 14) as u8 & 0x7f, 0]);
        // INT32, required, without a name.
        bytes.extend([0x15, 2, 0x25, 0, 0x18, 0, 0].repeat(leaves));
        bytes.push(0x29);
        bytes.extend(count(STRUCT, groups));
        let group = [&[0x19][..], &count(STRUCT, chunks), &vec![0; chunks], &[0x26, 2, 0]].concat();
        bytes.extend(group.repeat(groups));
        bytes.push(0);
        bytes
    }

    #[test]
    fn column_chunks_are_counted_before_any_is_read() {
        let limits = Limits { column_chunks: 600, ..Limits::default() };
        let count =
            |leaves, groups, chunks| read(&footer(leaves, groups, chunks), &limits).map(|footer| footer.chunks.len());
        assert_eq!(count(30, 20, 30).unwrap(), 600);
        assert!(matches!(count(30, 21, 30), Err(Error::Limit(text)) if text.contains("column chunks")));
        assert!(matches!(count(2, 2, 3), Err(Error::Corrupt(text)) if text.contains("another number of columns")));
        // One byte of thrift for each of a million chunks of a schema with one leaf.
        assert!(matches!(read(&footer(1, 1, 1_000_000), &Limits::default()), Err(Error::Corrupt(_))));
        let few = Limits { row_groups: 19, ..Limits::default() };
        assert!(matches!(read(&footer(30, 20, 30), &few), Err(Error::Limit(text)) if text.contains("row groups")));
    }

    #[test]
    fn row_groups_before_the_schema_and_two_schemas_are_refused() {
        let whole = footer(3, 2, 3);
        let groups_at = whole.len() - 1 - 2 * (1 + 4 + 3 + 3) - 5;
        let (schema, groups) = (&whole[..groups_at], &whole[groups_at..whole.len() - 1]);
        let limits = Limits::default();
        assert!(read(&[schema, groups, &[0]].concat(), &limits).is_ok());
        // Field 4 first, and then 2 by its whole id.
        let turned = [&[0x49][..], &groups[1..], &[0x09, 4], &schema[1..], &[0]].concat();
        assert!(matches!(read(&turned, &limits), Err(Error::Corrupt(text)) if text.contains("before the schema")));
        let other = footer(4, 0, 0);
        let again = [schema, groups, &[0x09, 4], &other[1..other.len() - 6], &[0]].concat();
        assert!(matches!(read(&again, &limits), Err(Error::Corrupt(text)) if text.contains("two schemas")));
    }

    #[test]
    fn indexes_of_more_data_pages_than_the_bound_are_refused() {
        let limits = Limits { chunk_pages: 100, ..Limits::default() };
        let list = |element: u8, count: usize, value: &[u8]| {
            [&[0xf0 | element, count as u8][..], &value.repeat(count)].concat()
        };
        let offsets = |count| [&[0x19][..], &list(STRUCT, count, &[0x16, 8, 0x15, 2, 0x16, 0, 0]), &[0]].concat();
        assert_eq!(read_offset_index(&offsets(100), &limits).unwrap().len(), 100);
        assert!(matches!(read_offset_index(&offsets(101), &limits), Err(Error::Limit(_))));
        let columns = |nulls, min, max, counts| {
            let lists =
                [list(TRUE, nulls, &[2]), list(8, min, &[1, 7]), list(8, max, &[1, 9]), list(I64, counts, &[0])];
            [&[0x19][..], &lists[0], &[0x19], &lists[1], &[0x19], &lists[2], &[0x29], &lists[3], &[0]].concat()
        };
        assert!(read_column_index(&columns(100, 100, 100, 100), &limits).is_ok());
        for over in [(101, 1, 1, 1), (1, 101, 1, 1), (1, 1, 101, 1), (1, 1, 1, 101)] {
            let error = read_column_index(&columns(over.0, over.1, over.2, over.3), &limits).map(|_| ()).unwrap_err();
            assert!(matches!(error, Error::Limit(_)), "{error}");
        }
        assert!(matches!(read_column_index(&columns(3, 3, 2, 3), &limits), Err(Error::Corrupt(_))));
    }
}
