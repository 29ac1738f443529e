//! Rows of the answer's columns, read from fetched data pages by the parquet crate's array readers.
//!
//! Root column by root column, and of each leaf one inflated data page at a time: what a read holds is bounded by the
//! inflated pages of one root and by the values of the rows that it was asked for. Rows are read in as few batches as
//! the bounds of `fetched_group` allow.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, NullArray, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, FieldRef, Schema};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, RowGroups, RowSelection, RowSelector};
use parquet::arrow::{FieldLevels, ProjectionMask, parquet_to_arrow_field_levels};
use parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use parquet::column::page::{Page, PageIterator};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor, Type, TypePtr};

use crate::data_page::{Dictionary, OneChunk, PageSequence, Reading, Stop};
use crate::error::Error;
use crate::fetched_group::FetchedGroup;
use crate::guard::decoding;
use crate::int96::INT96_BYTES;
use crate::page_place::ColumnName;
use crate::projection::Projection;
use crate::schema_tree::SchemaTree;

/// One root column as it is read, alone: leaf `i` to the array readers is leaf `leaves[i]` of the file.
pub(crate) struct Root {
    /// The leaves that are read, ascending, as ordinals in the file.
    pub(crate) leaves: Vec<usize>,
    levels: FieldLevels,
}

/// The root columns of these ascending leaves; `read` is the schema of these leaves alone.
///
/// # Errors
/// A type that cannot be read.
pub(crate) fn roots(read: &SchemaDescriptor, schema: &SchemaTree, leaves: &[usize]) -> Result<Vec<Root>, Error> {
    let of_one_root = leaves.chunk_by(|a, b| schema.root_of(*a) == schema.root_of(*b));
    let fields = read.root_schema().get_fields();
    let mut roots = Vec::with_capacity(fields.len());
    for (leaves, field) in of_one_root.zip(fields) {
        let alone = Type::group_type_builder("schema").with_fields(vec![readable(field)?]).build()?;
        let alone = SchemaDescriptor::new(Arc::new(alone));
        let levels = parquet_to_arrow_field_levels(&alone, ProjectionMask::all(), None)?;
        roots.push(Root { leaves: leaves.to_vec(), levels });
    }
    Ok(roots)
}

/// The column as the parquet crate reads it without loss: 12 bytes for INT96, checked text for JSON.
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
        take: &mut dyn FnMut(&RecordBatch) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut most = group.most_rows();
        let mut rest = rows;
        while !rest.is_empty() {
            let mut window = &rest[..group.affordable(rest).min(most)];
            let batch = loop {
                match self.read_window(group, window, wanted) {
                    Ok(batch) => break batch,
                    Err(Stop::Failed(error)) => return Err(error),
                    Err(Stop::TooMuch) if window.len() > 1 => {
                        most = window.len() / 2;
                        window = &window[..most];
                    }
                    Err(Stop::TooMuch) => {
                        let bound = group.value_bytes();
                        return Err(Error::AnswerTooLarge(format!(
                            "the values of one row take more than {bound} bytes: select fewer columns"
                        )));
                    }
                }
            };
            take(&batch)?;
            rest = &rest[window.len()..];
        }
        Ok(())
    }

    fn read_window(
        &self,
        group: &FetchedGroup<'_>,
        rows: &[u64],
        wanted: &dyn Fn(usize) -> bool,
    ) -> Result<RecordBatch, Stop> {
        let (mut fields, mut arrays): (Vec<FieldRef>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        for (i, root) in self.roots.iter().enumerate() {
            let (field, array): (FieldRef, ArrayRef) = if wanted(i) {
                let name = root.leaves.first().and_then(|leaf| group.leaves.get(leaf));
                let reading = Reading::new(&group.limits);
                let read = name.map_or_else(
                    || Err(Error::corrupt("a column was not fetched").into()),
                    |leaf| group.read_root(root, rows, &reading, &leaf.column),
                );
                read.map_err(|stop| reading.take_stop().unwrap_or(stop))?
            } else {
                (Arc::new(Field::new("", DataType::Null, true)), Arc::new(NullArray::new(rows.len())))
            };
            bytes += array.to_data().get_slice_memory_size().unwrap_or(0);
            if bytes > group.value_bytes() {
                return Err(Stop::TooMuch);
            }
            fields.push(field);
            arrays.push(array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
            .map_err(|error| Error::corrupt(error.to_string()).into())
    }
}

impl FetchedGroup<'_> {
    fn read_root(
        &self,
        root: &Root,
        rows: &[u64],
        reading: &Reading,
        name: &ColumnDescPtr,
    ) -> Result<(FieldRef, ArrayRef), Stop> {
        let what = format_args!("{}, {}", ColumnName(name), self.group).to_string();
        let dictionaries = self.check_root(&root.leaves, rows)?;
        let pages = RootPages { group: self, root, rows, dictionaries, reading };
        let mut field = None;
        let mut arrays = Vec::new();
        decoding(&what, || {
            for stretch in self.stretches(root, rows) {
                let pages = RootPages { rows: stretch, dictionaries: pages.dictionaries.clone(), ..pages };
                let reader = ParquetRecordBatchReader::try_new_with_row_groups(
                    &root.levels,
                    &pages,
                    stretch.len(),
                    Some(selection(stretch)),
                )?;
                let mut read = 0;
                for batch in reader {
                    let batch = batch.map_err(|error| Error::corrupt(format!("{error} in {what}")))?;
                    read += batch.num_rows();
                    field.get_or_insert_with(|| batch.schema_ref().field(0).clone());
                    arrays.push(batch.column(0).clone());
                }
                if read != stretch.len() {
                    let wanted = stretch.len();
                    return Err(Error::corrupt(format!("{wanted} rows were selected, {what} holds {read}")));
                }
            }
            Ok(())
        })?;
        let array = match &arrays[..] {
            [array] => array.clone(),
            several => {
                let several: Vec<&dyn Array> = several.iter().map(AsRef::as_ref).collect();
                arrow_select::concat::concat(&several).map_err(|error| Error::corrupt(error.to_string()))?
            }
        };
        let field = field.ok_or_else(|| Error::corrupt(format!("{what} holds no rows")))?;
        Ok((Arc::new(field), array))
    }

    /// Cuts rows where some leaf of the root has a gap between two of them: within a stretch the parquet crate may
    /// decode rows that lie between selected ones instead of skipping them, so all of them must be there.
    fn stretches<'a>(&self, root: &Root, rows: &'a [u64]) -> Vec<&'a [u64]> {
        let mut gaps: Vec<u64> = Vec::new();
        for pages in root.leaves.iter().filter_map(|leaf| self.leaves.get(leaf)).filter(|pages| !pages.unaligned) {
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

/// A stretch of rows of one root column as the parquet crate's array readers see it: just the fetched pages.
struct RootPages<'a> {
    group: &'a FetchedGroup<'a>,
    root: &'a Root,
    rows: &'a [u64],
    /// Inflated already.
    dictionaries: BTreeMap<usize, Page>,
    reading: &'a Reading,
}

impl RowGroups for RootPages<'_> {
    fn num_rows(&self) -> usize {
        self.group.rows as usize
    }

    fn column_chunks(&self, leaf: usize) -> ParquetResult<Box<dyn PageIterator>> {
        let leaf = self.root.leaves.get(leaf).copied().unwrap_or(usize::MAX);
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
