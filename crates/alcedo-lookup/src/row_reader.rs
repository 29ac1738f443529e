//! Rows of the answer's columns, read from fetched data pages by the parquet crate's array readers.
//!
//! Of each leaf one data page at a time is inflated. Where all columns together stay within the bounds of
//! `fetched_group` they are read with one reader; else root column by root column, in as few batches of rows as the
//! bounds allow.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow_array::{Array, ArrayRef, NullArray};
use arrow_schema::{DataType, Field, FieldRef};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, RowGroups, RowSelection, RowSelector};
use parquet::arrow::{FieldLevels, ProjectionMask, parquet_to_arrow_field_levels};
use parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use parquet::column::page::{Page, PageIterator};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::schema::types::{SchemaDescriptor, Type, TypePtr};

use crate::arrow_stream::nullable;
use crate::data_page::{Dictionary, OneChunk, PageSequence, Reading, Stop};
use crate::decimal_bytes::{decimal_type, to_decimals};
use crate::decoded::{DecodedRows, MAX_PAGE_BYTES, rows_of};
use crate::error::Error;
use crate::fetched_group::FetchedGroup;
use crate::flat_rows::FlatType;
use crate::guard::decoding;
use crate::int96::INT96_BYTES;
use crate::limits::Limits;
use crate::nested_arrays::with_leaves;
use crate::page_place::ColumnName;
use crate::projection::{Projection, Read};
use crate::row_batch::{RootRows, RowBatch};
use crate::schema_tree::SchemaTree;

/// One root column as it is read.
pub(crate) struct Root {
    /// The leaves that are read, ascending, as ordinals in the file.
    pub(crate) leaves: Vec<usize>,
    /// The column's type as the parquet crate is told it.
    field: TypePtr,
    /// Per leaf, if any is one: the type of a decimal whose bytes are read as they are.
    decimals: Vec<Option<DataType>>,
    /// For reading it alone; made when that is needed.
    levels: OnceLock<FieldLevels>,
    /// Set where rows are picked out of data pages as they are.
    flat: Option<FlatType>,
    /// How decoded pages of just these leaves are named.
    pub(crate) code: Option<u64>,
}

impl Root {
    fn levels(&self) -> Result<&FieldLevels, Error> {
        if let Some(levels) = self.levels.get() {
            return Ok(levels);
        }
        let levels = field_levels(vec![self.field.clone()])?;
        Ok(self.levels.get_or_init(|| levels))
    }
}

fn field_levels(fields: Vec<TypePtr>) -> Result<FieldLevels, Error> {
    let group = Type::group_type_builder("schema").with_fields(fields).build()?;
    let schema = SchemaDescriptor::new(Arc::new(group));
    Ok(parquet_to_arrow_field_levels(&schema, ProjectionMask::all(), None)?)
}

/// All of these ascending leaves for the array readers, and the root columns one by one; `read` is the part of the
/// schema that has these leaves alone.
///
/// # Errors
/// A type that cannot be read.
pub(crate) fn roots(read: &Read<'_>, schema: &SchemaTree, leaves: &[usize]) -> Result<(FieldLevels, Vec<Root>), Error> {
    let of_one_root = leaves.chunk_by(|a, b| schema.root_of(*a) == schema.root_of(*b));
    let fields = read.descr.root_schema().get_fields();
    let mut roots = Vec::with_capacity(fields.len());
    for ((leaves, field), ty) in of_one_root.zip(fields).zip(&read.arrow) {
        let mut decimals = Vec::new();
        decimals_of(field, &mut decimals);
        if decimals.iter().all(Option::is_none) {
            decimals.clear();
        }
        let readable = readable(field)?;
        let is_plain = field.is_primitive() && Arc::ptr_eq(&readable, field);
        let flat = leaves.first().filter(|_| is_plain).and_then(|leaf| FlatType::new(&schema.column(*leaf), ty));
        let is_whole =
            leaves.first().is_some_and(|leaf| schema.root_leaves(schema.root_of(*leaf)).len() == leaves.len());
        let (code, levels) = (rows_of(leaves, is_whole), OnceLock::new());
        roots.push(Root { leaves: leaves.to_vec(), field: readable, decimals, levels, flat, code });
    }
    Ok((field_levels(roots.iter().map(|root| root.field.clone()).collect())?, roots))
}

fn decimals_of(field: &TypePtr, decimals: &mut Vec<Option<DataType>>) {
    if field.is_primitive() {
        decimals.push(decimal_type(field));
    } else {
        field.get_fields().iter().for_each(|field| decimals_of(field, decimals));
    }
}

/// The column as the parquet crate reads it without loss: 12 bytes for INT96, the bytes of decimals,
/// checked text for JSON.
fn readable(field: &TypePtr) -> Result<TypePtr, Error> {
    let info = field.get_basic_info();
    if !field.is_primitive() {
        let fields = field.get_fields().iter().map(readable).collect::<Result<Vec<_>, _>>()?;
        if fields.iter().zip(field.get_fields()).all(|(new, old)| Arc::ptr_eq(new, old)) {
            return Ok(field.clone());
        }
        let group = Type::group_type_builder(field.name())
            .with_repetition(info.repetition())
            .with_converted_type(info.converted_type())
            .with_logical_type(info.logical_type_ref().cloned())
            .with_fields(fields);
        return Ok(Arc::new(group.build()?));
    }
    let twelve_bytes = field.get_physical_type() == Physical::INT96 || info.converted_type() == ConvertedType::INTERVAL;
    let builder = if twelve_bytes {
        Type::primitive_type_builder(field.name(), Physical::FIXED_LEN_BYTE_ARRAY).with_length(INT96_BYTES)
    } else if decimal_type(field).is_some() {
        Type::primitive_type_builder(field.name(), Physical::BYTE_ARRAY)
    } else if info.converted_type() == ConvertedType::JSON {
        Type::primitive_type_builder(field.name(), Physical::BYTE_ARRAY).with_logical_type(Some(LogicalType::String))
    } else {
        return Ok(field.clone());
    };
    Ok(Arc::new(builder.with_repetition(info.repetition()).build()?))
}

impl Projection {
    /// Reads `rows` (ascending, within the row group) from fetched pages and hands them on in order, in batches that
    /// stay within the bounds; one array per root column. Of roots that `wanted` leaves out there are only nulls.
    ///
    /// # Errors
    /// The pages do not hold those rows or cannot be decoded; one row passes a bound; what `take` ends in.
    pub(crate) fn read(
        &self,
        group: &FetchedGroup<'_>,
        rows: &[u64],
        wanted: &dyn Fn(usize) -> bool,
        take: &mut dyn FnMut(&RowBatch) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut most = group.most_rows();
        let mut rest = rows;
        while !rest.is_empty() {
            let batch = self.read_first(group, rest, &mut most, wanted)?;
            take(&batch)?;
            rest = &rest[batch.rows..];
        }
        Ok(())
    }

    /// Reads as many of the first `rows` as the bounds allow, at most `most`, which is lowered to what they turn out to
    /// allow. One row at least; `rows` must not be empty.
    ///
    /// # Errors
    /// As [`Projection::read`].
    pub(crate) fn read_first(
        &self,
        group: &FetchedGroup<'_>,
        rows: &[u64],
        most: &mut usize,
        wanted: &dyn Fn(usize) -> bool,
    ) -> Result<RowBatch, Error> {
        let mut window = &rows[..group.affordable(rows).min(*most)];
        loop {
            match self.read_window(group, window, wanted) {
                Ok(batch) => return Ok(batch),
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::TooMuch) if window.len() > 1 => {
                    *most = window.len() / 2;
                    window = &window[..*most];
                }
                Err(Stop::TooMuch) => {
                    let bound = group.value_bytes();
                    return Err(Error::AnswerTooLarge(format!(
                        "the values of one row take more than {bound} bytes: select fewer columns"
                    )));
                }
            }
        }
    }

    fn read_window(
        &self,
        group: &FetchedGroup<'_>,
        rows: &[u64],
        wanted: &dyn Fn(usize) -> bool,
    ) -> Result<RowBatch, Stop> {
        let mut columns = Vec::with_capacity(self.roots.len());
        let is_quick = |(i, root): (usize, &Root)| root.flat.is_some() || !group.decoded_of(i).is_empty();
        // Nested rows of usual files are read with one reader. What went wrong there is said by the column's own.
        if !self.roots.iter().enumerate().any(is_quick)
            && group.is_small(rows)
            && (0..self.roots.len()).all(wanted)
            && let Ok(read) = self.read_together(group, rows)
        {
            columns.extend(read.into_iter().map(|(_, array)| RootRows::of(array)));
            return Ok(RowBatch { columns, rows: rows.len() });
        }
        let mut bytes = 0;
        for (i, root) in self.roots.iter().enumerate() {
            if !wanted(i) {
                columns.push(RootRows::of(Arc::new(NullArray::new(rows.len()))));
                continue;
            }
            let (column, new_bytes) = read_root(root, group.decoded_of(i), group, rows)?;
            bytes += new_bytes;
            if bytes > group.value_bytes() {
                return Err(Stop::TooMuch);
            }
            columns.push(column);
        }
        Ok(RowBatch { columns, rows: rows.len() })
    }

    /// All rows of a data page of one root column, whose pages are all there; none where they take more than a decoded
    /// page may, or cannot be read.
    pub(crate) fn decode_whole(&self, root: usize, group: &mut FetchedGroup<'_>, rows: Range<u64>) -> Option<ArrayRef> {
        let root = self.roots.get(root)?;
        let rows: Vec<u64> = rows.collect();
        let small = Limits { answer_bytes: MAX_PAGE_BYTES / 2, ..Limits::clone(&group.limits) };
        let limits = std::mem::replace(&mut group.limits, Arc::new(small));
        let array = read_array(root, group, &rows);
        group.limits = limits;
        array.ok().filter(|array| array.get_array_memory_size() <= MAX_PAGE_BYTES)
    }

    fn read_together(&self, group: &FetchedGroup<'_>, rows: &[u64]) -> Result<Vec<Column>, Stop> {
        let (dictionaries, reading) = (BTreeMap::new(), Reading::new(&group.limits));
        let pages = Pages { group, leaves: &self.leaves, rows, dictionaries: &dictionaries, reading: &reading };
        let columns = decoding(&group.group, || pages.read(&self.whole))?;
        columns.into_iter().zip(&self.roots).map(|(column, root)| Ok(with_decimals(root, column)?)).collect()
    }
}

/// A root column's values.
type Column = (FieldRef, ArrayRef);

/// Rows of one root column, those of decoded pages from there; with the bytes of what was read.
fn read_root(
    root: &Root,
    decoded: &[Arc<DecodedRows>],
    group: &FetchedGroup<'_>,
    rows: &[u64],
) -> Result<(RootRows, usize), Stop> {
    if decoded.is_empty() {
        let array = read_array(root, group, rows)?;
        let bytes = array.to_data().get_slice_memory_size().unwrap_or(0);
        return Ok((RootRows::of(array), bytes));
    }
    let mut arrays: Vec<ArrayRef> = decoded.iter().map(|page| page.array.clone()).collect();
    let (mut places, mut rest, mut next) = (Vec::with_capacity(rows.len()), Vec::new(), 0);
    for row in rows {
        while decoded.get(next).is_some_and(|page| page.end() <= *row) {
            next += 1;
        }
        match decoded.get(next).and_then(|page| row.checked_sub(page.first_row)) {
            Some(place) => places.push((next as u32, place as u32)),
            None => {
                places.push((arrays.len() as u32, rest.len() as u32));
                rest.push(*row);
            }
        }
    }
    let mut bytes = 0;
    if !rest.is_empty() {
        let array = read_array(root, group, &rest)?;
        bytes = array.to_data().get_slice_memory_size().unwrap_or(0);
        arrays.push(array);
    }
    Ok((RootRows::placed(arrays, places), bytes))
}

/// Rows of one root column from its data pages.
fn read_array(root: &Root, group: &FetchedGroup<'_>, rows: &[u64]) -> Result<ArrayRef, Stop> {
    if let (Some(flat), [leaf]) = (&root.flat, &root.leaves[..])
        && let Some(pages) = group.leaves.get(leaf)
        && let Some(array) = flat.read(pages, rows, group.value_bytes())?
    {
        return Ok(array);
    }
    Ok(read_alone(root, group, rows)?.1)
}

/// Reads one root column with no other one's pages inflated.
fn read_alone(root: &Root, group: &FetchedGroup<'_>, rows: &[u64]) -> Result<Column, Stop> {
    let first = root.leaves.first().and_then(|leaf| group.leaves.get(leaf));
    let first = first.ok_or_else(|| Error::corrupt("a column was not fetched"))?;
    let what = format!("{}, {}", ColumnName(&first.column), group.group);
    let dictionaries = group.check_root(&root.leaves, rows)?;
    let reading = Reading::new(&group.limits);
    let pages = Pages { group, leaves: &root.leaves, rows, dictionaries: &dictionaries, reading: &reading };
    let levels = root.levels()?;
    let columns = match decoding(&what, || pages.read(levels)) {
        Ok(columns) => columns,
        Err(error) => return Err(reading.take_stop().unwrap_or_else(|| about(&what, error).into())),
    };
    let column = columns.into_iter().next().ok_or_else(|| Error::corrupt(format!("{what} holds no rows")))?;
    Ok(with_decimals(root, column).map_err(|error| about(&what, error))?)
}

fn about(what: &str, error: Error) -> Error {
    error.within(what)
}

/// Byte arrays that are decimals become such.
fn with_decimals(root: &Root, (field, array): Column) -> Result<Column, Error> {
    if root.decimals.is_empty() {
        return Ok((field, array));
    }
    let mut types = root.decimals.iter();
    let array = with_leaves(&array, &mut |leaf| match types.next() {
        Some(Some(ty)) => to_decimals(leaf, ty),
        _ => Ok(leaf.clone()),
    })?;
    Ok((Arc::new(Field::clone(&field).with_data_type(array.data_type().clone())), array))
}

impl Pages<'_> {
    /// Reads the rows, one array per root column.
    fn read(&self, levels: &FieldLevels) -> Result<Vec<Column>, Error> {
        let mut batches = Vec::new();
        for stretch in self.stretches() {
            let pages = Pages { rows: stretch, ..*self };
            let selected = Some(selection(stretch));
            let reader = ParquetRecordBatchReader::try_new_with_row_groups(levels, &pages, stretch.len(), selected)?;
            let mut read = 0;
            for batch in reader {
                let batch = batch.map_err(|error| Error::corrupt(error.to_string()))?;
                read += batch.num_rows();
                batches.push(batch);
            }
            if read != stretch.len() {
                return Err(Error::corrupt(format!("{} rows were selected, its pages hold {read}", stretch.len())));
            }
        }
        let Some(first) = batches.first() else { return Ok(Vec::new()) };
        let mut columns = Vec::with_capacity(first.num_columns());
        for (i, field) in first.schema_ref().fields().iter().enumerate() {
            let array = match &batches[..] {
                [batch] => batch.column(i).clone(),
                several => {
                    // Below a struct that is null there are nulls that its fields' types do not allow for.
                    let pieces =
                        several.iter().map(|batch| nullable(batch.column(i))).collect::<Result<Vec<_>, _>>()?;
                    let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
                    arrow_select::concat::concat(&pieces).map_err(|error| Error::corrupt(error.to_string()))?
                }
            };
            let field = field.as_ref().clone().with_data_type(array.data_type().clone());
            columns.push((Arc::new(field), array));
        }
        Ok(columns)
    }

    /// Cuts the rows where some leaf has a gap between two of them: within a stretch the parquet crate may decode rows
    /// that lie between selected ones instead of skipping them, so all of them must be there.
    fn stretches(&self) -> Vec<&[u64]> {
        let rows = self.rows;
        let mut gaps: Vec<u64> = Vec::new();
        let known = self.leaves.iter().filter_map(|leaf| self.group.leaves.get(leaf));
        for pages in known.filter(|pages| !pages.unaligned) {
            let mut row = 0;
            for (first_row, count, _) in &pages.pages {
                if *first_row > row {
                    gaps.push(row);
                }
                row = first_row + count;
            }
        }
        gaps.sort_unstable();
        let mut stretches = Vec::new();
        let mut start = 0;
        for i in 1..rows.len() {
            let gap = gaps.partition_point(|gap| *gap <= rows[i - 1]);
            if gaps.get(gap).is_some_and(|gap| *gap <= rows[i]) {
                stretches.push(&rows[start..i]);
                start = i;
            }
        }
        if !rows.is_empty() {
            stretches.push(&rows[start..]);
        }
        stretches
    }
}

/// Rows of some root columns as the parquet crate's array readers see them: just the fetched pages.
struct Pages<'a> {
    group: &'a FetchedGroup<'a>,
    /// Leaf `i` to the array readers is this leaf of the file.
    leaves: &'a [usize],
    rows: &'a [u64],
    /// Inflated already.
    dictionaries: &'a BTreeMap<usize, Page>,
    reading: &'a Reading,
}

impl RowGroups for Pages<'_> {
    fn num_rows(&self) -> usize {
        self.group.rows as usize
    }

    fn column_chunks(&self, leaf: usize) -> ParquetResult<Box<dyn PageIterator>> {
        let leaf = self.leaves.get(leaf).copied().unwrap_or(usize::MAX);
        let pages = self.group.leaves.get(&leaf);
        let pages = pages.ok_or_else(|| ParquetError::General("a column was not fetched".to_owned()))?;
        let inflated = self.dictionaries.get(&leaf).cloned().map(Dictionary::Inflated);
        let dictionary = inflated.or_else(|| pages.dictionary.clone().map(Dictionary::Stored));
        let parts = pages.parts(self.rows, self.group.rows);
        let sequence = PageSequence::stored(dictionary, parts, !pages.unaligned, self.reading.clone());
        Ok(Box::new(OneChunk(Some(sequence))))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(std::iter::empty())
    }

    fn metadata(&self) -> &ParquetMetaData {
        self.group.metadata
    }
}

fn selection(rows: &[u64]) -> RowSelection {
    let mut selectors: Vec<RowSelector> = Vec::new();
    let mut next = 0;
    for row in rows {
        if *row > next {
            selectors.push(RowSelector::skip((row - next) as usize));
        }
        match selectors.last_mut() {
            Some(last) if !last.skip => last.row_count += 1,
            _ => selectors.push(RowSelector::select(1)),
        }
        next = row + 1;
    }
    RowSelection::from(selectors)
}
