//! The columns of an answer: names resolved against a file's schema, with their logical types.

use std::sync::Arc;

use arrow_schema::{DataType, Field, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::{FieldLevels, parquet_to_arrow_field_levels, parquet_to_arrow_schema_by_columns};
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor};

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
    pub(crate) levels: FieldLevels,
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
