//! The columns of an answer: names resolved against a file's schema, and rows of them read from data pages.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, RowGroups, RowSelection, RowSelector};
use parquet::arrow::{FieldLevels, parquet_to_arrow_field_levels, parquet_to_arrow_schema_by_columns};
use parquet::column::page::{Page, PageIterator};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor};

use crate::data_page::{OneChunk, PageSequence, Part};
use crate::error::Error;
use crate::key_column::{KeyColumn, leaf_type};
use crate::schema::{Column, RowSchema, Type, Unit};

/// Which columns an answer has, and how they are read.
pub(crate) struct Projection {
    /// The leaf columns that are read, ascending.
    pub(crate) leaves: Vec<usize>,
    /// Name and type of the answer's columns.
    pub(crate) schema: Arc<RowSchema>,
    /// Per answer column: the way to it from a record batch's columns.
    pub(crate) paths: Vec<Vec<usize>>,
    levels: FieldLevels,
}

/// A root column of the file, or a leaf inside structs, by its dotted name.
struct Found {
    leaves: Vec<usize>,
    /// Names below the root, outermost first; empty for a root column.
    inner: Vec<String>,
    root: usize,
}

impl Projection {
    /// Resolves the names of an answer's columns; none: all root columns in file order.
    ///
    /// # Errors
    /// [`Error::NoSuchColumn`], or a type that cannot be read.
    pub(crate) fn resolve(schema: &SchemaDescriptor, names: Option<&[String]>) -> Result<Self, Error> {
        let roots = root_names(schema);
        let found: Vec<(String, Found)> = match names {
            Some(names) => names
                .iter()
                .map(|name| Ok((name.clone(), find(schema, &roots, name)?)))
                .collect::<Result<_, Error>>()?,
            None => roots.iter().enumerate().map(|(i, name)| (name.clone(), whole_root(schema, i))).collect(),
        };
        let mut leaves: Vec<usize> = found.iter().flat_map(|(_, found)| found.leaves.iter().copied()).collect();
        leaves.sort_unstable();
        leaves.dedup();
        let mask = ProjectionMask::leaves(schema, leaves.iter().copied());
        let arrow = parquet_to_arrow_schema_by_columns(schema, mask.clone(), None)?;
        let levels = parquet_to_arrow_field_levels(schema, mask, None)?;
        let types = typed_roots(schema, &leaves, arrow.fields().iter().map(AsRef::as_ref))?;
        let mut kept_roots: Vec<usize> = leaves.iter().map(|leaf| schema.get_column_root_idx(*leaf)).collect();
        kept_roots.dedup();
        let (mut columns, mut paths) = (Vec::new(), Vec::new());
        for (name, found) in found {
            let root = kept_roots.binary_search(&found.root).map_err(|_| Error::corrupt("a column without leaves"))?;
            let (path, ty) = descend(root, &types[root], &found.inner)?;
            columns.push(Column { name, ty });
            paths.push(path);
        }
        Ok(Self { leaves, schema: Arc::new(RowSchema { columns }), paths, levels })
    }
}

/// Finds a key column by name.
///
/// # Errors
/// [`Error::NoSuchColumn`]; a column that is no single leaf outside of lists.
pub(crate) fn key_column(schema: &SchemaDescriptor, name: &str) -> Result<KeyColumn, Error> {
    let found = find(schema, &root_names(schema), name)?;
    let [leaf] = found.leaves[..] else {
        return Err(Error::Unsupported(format!(
            "column `{name}` is a struct: name one of its fields as the key column"
        )));
    };
    let mask = ProjectionMask::leaves(schema, [leaf]);
    let arrow = parquet_to_arrow_schema_by_columns(schema, mask, None)?;
    let types = typed_roots(schema, &[leaf], arrow.fields().iter().map(AsRef::as_ref))?;
    let (_, ty) = descend(0, types.first().unwrap_or(&Type::Null), &found.inner)?;
    KeyColumn::new(leaf, name.to_owned(), ty, schema.column(leaf))
}

fn root_names(schema: &SchemaDescriptor) -> Vec<String> {
    schema.root_schema().get_fields().iter().map(|field| field.name().to_owned()).collect()
}

fn whole_root(schema: &SchemaDescriptor, root: usize) -> Found {
    let leaves = (0..schema.num_columns()).filter(|leaf| schema.get_column_root_idx(*leaf) == root).collect();
    Found { leaves, inner: Vec::new(), root }
}

/// A root column of exactly this name wins over a dotted path; of several with one name the first wins.
fn find(schema: &SchemaDescriptor, roots: &[String], name: &str) -> Result<Found, Error> {
    if let Some(root) = roots.iter().position(|root| root == name) {
        return Ok(whole_root(schema, root));
    }
    let in_struct = (0..schema.num_columns()).find_map(|leaf| {
        let descr = schema.column(leaf);
        let parts = descr.path().parts();
        let dotted = parts.len() > 1 && descr.max_rep_level() == 0 && parts.join(".") == name;
        dotted.then(|| Found { leaves: vec![leaf], inner: parts[1..].to_vec(), root: schema.get_column_root_idx(leaf) })
    });
    in_struct.ok_or_else(|| {
        let leaves = (0..schema.num_columns()).map(|leaf| schema.column(leaf).path().parts().join("."));
        Error::NoSuchColumn { name: name.to_owned(), hint: nearest(name, roots.iter().cloned().chain(leaves)) }
    })
}

/// The most similar name, if one is similar enough to be meant.
fn nearest(name: &str, names: impl Iterator<Item = String>) -> Option<String> {
    const SIMILAR: f64 = 0.7;
    let lower = name.to_lowercase();
    let scored = names.map(|candidate| (strsim::jaro_winkler(&lower, &candidate.to_lowercase()), candidate));
    scored.filter(|(score, _)| *score >= SIMILAR).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

/// From a root column down through structs: the way through the record batch, and the type at its end.
fn descend(root: usize, ty: &Type, inner: &[String]) -> Result<(Vec<usize>, Type), Error> {
    let mut path = vec![root];
    let mut ty = ty.clone();
    for name in inner {
        let Type::Struct(fields) = ty else { return Err(Error::corrupt("a struct's schema is no struct")) };
        let found = fields.into_iter().enumerate().find(|(_, (field, _))| field == name);
        let (i, (_, field)) = found.ok_or_else(|| Error::corrupt("a struct's schema has lost a field"))?;
        path.push(i);
        ty = field;
    }
    Ok((path, ty))
}

/// Our types of root columns, from Arrow's and the leaves' own annotations, which tell more (UUIDs, intervals).
fn typed_roots<'a>(
    schema: &SchemaDescriptor,
    leaves: &[usize],
    fields: impl Iterator<Item = &'a Field>,
) -> Result<Vec<Type>, Error> {
    let mut leaves = leaves.iter().map(|leaf| schema.column(*leaf));
    fields.map(|field| type_of(field.data_type(), &mut leaves)).collect()
}

fn type_of(arrow: &DataType, leaves: &mut impl Iterator<Item = ColumnDescPtr>) -> Result<Type, Error> {
    match arrow {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            Ok(Type::List(Box::new(type_of(item.data_type(), leaves)?)))
        }
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| Ok((field.name().clone(), type_of(field.data_type(), leaves)?)));
            Ok(Type::Struct(fields.collect::<Result<_, Error>>()?))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                let key = type_of(fields[0].data_type(), leaves)?;
                Ok(Type::Map(Box::new(key), Box::new(type_of(fields[1].data_type(), leaves)?)))
            }
            _ => Err(Error::Unsupported("a map that is not one of keys and values".to_owned())),
        },
        leaf => {
            let descr = leaves.next().ok_or_else(|| Error::corrupt("the schema has fewer leaves than its types"))?;
            Ok(leaf_type(&descr, &plain_type(leaf)?))
        }
    }
}

fn plain_type(arrow: &DataType) -> Result<Type, Error> {
    Ok(match arrow {
        DataType::Boolean => Type::Bool,
        DataType::Int8 => Type::Int8,
        DataType::Int16 => Type::Int16,
        DataType::Int32 => Type::Int32,
        DataType::Int64 => Type::Int64,
        DataType::UInt8 => Type::UInt8,
        DataType::UInt16 => Type::UInt16,
        DataType::UInt32 => Type::UInt32,
        DataType::UInt64 => Type::UInt64,
        DataType::Float16 => Type::Float16,
        DataType::Float32 => Type::Float32,
        DataType::Float64 => Type::Float64,
        DataType::Utf8 => Type::String,
        DataType::Binary => Type::Binary,
        DataType::FixedSizeBinary(length) => Type::Fixed(length.unsigned_abs()),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            Type::Decimal { precision: *precision, scale: *scale }
        }
        DataType::Date32 => Type::Date32,
        DataType::Time32(unit) | DataType::Time64(unit) => Type::Time(unit_of(*unit)),
        DataType::Timestamp(unit, zone) => Type::Timestamp { unit: unit_of(*unit), utc: zone.is_some() },
        DataType::Duration(unit) => Type::Duration(unit_of(*unit)),
        DataType::Interval(_) => Type::Interval,
        DataType::Null => Type::Null,
        other => return Err(Error::Unsupported(format!("values of type {other}"))),
    })
}

fn unit_of(unit: TimeUnit) -> Unit {
    match unit {
        TimeUnit::Second => Unit::Second,
        TimeUnit::Millisecond => Unit::Millisecond,
        TimeUnit::Microsecond => Unit::Microsecond,
        TimeUnit::Nanosecond => Unit::Nanosecond,
    }
}

/// The inflated pages of one leaf in one row group that hold wanted rows.
#[derive(Clone, Default)]
pub(crate) struct LeafPages {
    pub(crate) dictionary: Option<Page>,
    /// Ascending; each with its first row within the row group and its number of rows.
    pub(crate) pages: Vec<(u64, u64, Page)>,
    /// See [`PageSequence`].
    pub(crate) unaligned: bool,
}

/// A row group as the parquet crate's array readers see it: just the fetched pages.
struct FetchedGroup<'a> {
    metadata: &'a ParquetMetaData,
    rows: u64,
    leaves: &'a BTreeMap<usize, LeafPages>,
}

impl RowGroups for FetchedGroup<'_> {
    fn num_rows(&self) -> usize {
        self.rows as usize
    }

    fn column_chunks(&self, leaf: usize) -> ParquetResult<Box<dyn PageIterator>> {
        let pages =
            self.leaves.get(&leaf).ok_or_else(|| ParquetError::General(format!("leaf {leaf} was not fetched")))?;
        let mut parts = Vec::with_capacity(pages.pages.len() * 2);
        let mut row = 0;
        for (first_row, rows, page) in &pages.pages {
            if *first_row > row && !pages.unaligned {
                parts.push(Part::Gap((first_row - row) as usize));
            }
            parts.push(Part::Data { page: page.clone(), rows: *rows as usize });
            row = first_row + rows;
        }
        if row < self.rows && !pages.unaligned {
            parts.push(Part::Gap((self.rows - row) as usize));
        }
        let sequence = PageSequence::new(pages.dictionary.clone(), parts, !pages.unaligned);
        Ok(Box::new(OneChunk(Some(sequence))))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(std::iter::empty())
    }

    fn metadata(&self) -> &ParquetMetaData {
        self.metadata
    }
}

impl Projection {
    /// Reads `rows` (ascending, within the row group) from fetched pages, in order.
    ///
    /// # Errors
    /// The pages do not hold those rows, or cannot be decoded.
    pub(crate) fn read(
        &self,
        metadata: &ParquetMetaData,
        group_rows: u64,
        leaves: &BTreeMap<usize, LeafPages>,
        rows: &[u64],
    ) -> Result<Vec<RecordBatch>, Error> {
        let group = FetchedGroup { metadata, rows: group_rows, leaves };
        let mut batches = Vec::new();
        for stretch in stretches(rows, leaves) {
            let selection = selection(stretch);
            let reader = ParquetRecordBatchReader::try_new_with_row_groups(
                &self.levels,
                &group,
                stretch.len(),
                Some(selection),
            )?;
            let mut read = 0;
            for batch in reader {
                let batch = batch.map_err(|e| Error::corrupt(e.to_string()))?;
                read += batch.num_rows();
                batches.push(batch);
            }
            if read != stretch.len() {
                return Err(Error::corrupt(format!(
                    "{} rows were selected, the data pages hold {read}",
                    stretch.len()
                )));
            }
        }
        Ok(batches)
    }
}

/// Cuts rows where some leaf has a gap between two of them: within a stretch the parquet crate may decode rows that lie
/// between selected ones instead of skipping them, so all of them must be there.
fn stretches<'a>(rows: &'a [u64], leaves: &BTreeMap<usize, LeafPages>) -> Vec<&'a [u64]> {
    let mut gaps: Vec<u64> = Vec::new();
    for pages in leaves.values().filter(|pages| !pages.unaligned) {
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
