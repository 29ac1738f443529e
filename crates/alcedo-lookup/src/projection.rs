//! The columns of an answer: names resolved against a file's schema, with their logical types.
//!
//! Only the columns that are asked for are converted to Arrow, so the cost does not grow with those that are not.

use std::sync::Arc;

use arrow_schema::{DataType, Field, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::{FieldLevels, parquet_to_arrow_schema_by_columns};
use parquet::basic::LogicalType;
use parquet::schema::types::SchemaDescriptor;

use crate::error::{Error, Short};
use crate::key_column::KeyColumn;
use crate::row_reader::{Root, roots};
use crate::schema::{Column, RowSchema, Type, Unit};
use crate::schema_tree::{Named, SchemaTree};

/// Which columns an answer has, and how they are read.
pub(crate) struct Projection {
    /// The leaf columns that are read, ascending.
    pub(crate) leaves: Vec<usize>,
    /// Name and type of the answer's columns.
    pub(crate) schema: Arc<RowSchema>,
    /// Per answer column: the way to it from a record batch's columns.
    pub(crate) paths: Vec<Vec<usize>>,
    /// The root columns that are read, ascending.
    pub(crate) roots: Vec<Root>,
    /// All of them, for one reader.
    pub(crate) whole: FieldLevels,
}

impl Projection {
    /// Resolves the names of an answer's columns; none: all root columns in file order.
    ///
    /// # Errors
    /// [`Error::NoSuchColumn`], or a column that cannot be read.
    pub(crate) fn resolve(schema: &SchemaTree, names: Option<&[String]>) -> Result<Self, Error> {
        let asked: Vec<(String, Named)> = match names {
            Some(names) => {
                names.iter().map(|name| Ok((name.clone(), schema.find(name)?))).collect::<Result<_, Error>>()?
            }
            None => schema.root_names().enumerate().map(|(i, name)| (name.to_owned(), Named::Root(i))).collect(),
        };
        Self::of(schema, asked)
    }

    /// The projection of columns that were found already, each with its name in the answer.
    ///
    /// # Errors
    /// A column that cannot be read.
    pub(crate) fn of(schema: &SchemaTree, asked: Vec<(String, Named)>) -> Result<Self, Error> {
        let mut leaves: Vec<usize> = asked.iter().flat_map(|(_, named)| leaves_of(schema, *named)).collect();
        leaves.sort_unstable();
        leaves.dedup();
        let read = Read::new(schema, &leaves)?;
        let (whole, roots) = roots(&read, schema, &leaves)?;
        let (mut columns, mut paths) = (Vec::with_capacity(asked.len()), Vec::with_capacity(asked.len()));
        for (name, named) in asked {
            let (path, ty) = read.reach(named)?;
            columns.push(Column { name, ty });
            paths.push(path);
        }
        Ok(Self { leaves, schema: Arc::new(RowSchema { columns }), paths, roots, whole })
    }
}

pub(crate) fn leaves_of(schema: &SchemaTree, named: Named) -> std::ops::Range<usize> {
    match named {
        Named::Root(root) => schema.root_leaves(root),
        Named::Leaf(leaf) => leaf..leaf + 1,
    }
}

/// Finds a key column by name.
///
/// # Errors
/// [`Error::NoSuchColumn`]; a column that is no single leaf outside of lists.
pub(crate) fn key_column(schema: &SchemaTree, name: &str) -> Result<KeyColumn, Error> {
    let named = schema.find(name)?;
    let leaves = leaves_of(schema, named);
    if leaves.len() != 1 {
        return Err(Error::Unsupported(format!(
            "column `{}` is a struct: name one of its fields as the key column",
            Short::name(name)
        )));
    }
    key_at(schema, leaves.start, named)
}

/// The key column that is this leaf of the file.
///
/// # Errors
/// A leaf inside a list or map.
pub(crate) fn key_leaf(schema: &SchemaTree, leaf: usize) -> Result<KeyColumn, Error> {
    key_at(schema, leaf, Named::Leaf(leaf))
}

fn key_at(schema: &SchemaTree, leaf: usize, named: Named) -> Result<KeyColumn, Error> {
    let (_, ty) = Read::new(schema, &[leaf])?.reach(named)?;
    KeyColumn::new(leaf, schema.short_name(leaf), ty, schema.column(leaf))
}

/// The part of a schema that is read, as Arrow's types and ours.
pub(crate) struct Read<'a> {
    schema: &'a SchemaTree,
    leaves: &'a [usize],
    pub(crate) descr: SchemaDescriptor,
    /// Arrow's types of the root columns.
    pub(crate) arrow: Vec<DataType>,
    /// Ordinals in the file of the root columns, and their types.
    roots: Vec<usize>,
    types: Vec<Type>,
}

impl<'a> Read<'a> {
    fn new(schema: &'a SchemaTree, leaves: &'a [usize]) -> Result<Self, Error> {
        for leaf in leaves {
            schema.check_readable(*leaf)?;
        }
        let descr = schema.pruned(leaves)?;
        let arrow = parquet_to_arrow_schema_by_columns(&descr, ProjectionMask::all(), None)?;
        let types = typed_roots(schema, leaves, arrow.fields().iter().map(AsRef::as_ref))?;
        let mut roots: Vec<usize> = leaves.iter().map(|leaf| schema.root_of(*leaf)).collect();
        roots.dedup();
        let arrow = arrow.fields().iter().map(|field| field.data_type().clone()).collect();
        Ok(Self { schema, leaves, descr, arrow, roots, types })
    }

    /// The way to a column through the record batch, and its type.
    fn reach(&self, named: Named) -> Result<(Vec<usize>, Type), Error> {
        let lost = || Error::corrupt("a column without leaves");
        let root = match named {
            Named::Root(root) => root,
            Named::Leaf(leaf) => self.schema.root_of(leaf),
        };
        let at = self.roots.binary_search(&root).map_err(|_| lost())?;
        let mut ty = self.types.get(at).ok_or_else(lost)?;
        let mut path = vec![at];
        if let Named::Leaf(leaf) = named {
            let first = self.schema.root_leaves(root).start;
            // How many leaves of the root are read before this one.
            let mut before = self.leaves.partition_point(|read| *read < leaf);
            before -= self.leaves.partition_point(|read| *read < first);
            while let Type::Struct(fields) = ty {
                let mut next = None;
                for (i, (_, field)) in fields.iter().enumerate() {
                    let leaves = leaf_count(field);
                    if before < leaves {
                        next = Some((i, field));
                        break;
                    }
                    before -= leaves;
                }
                let (i, field) = next.ok_or_else(lost)?;
                path.push(i);
                ty = field;
            }
        }
        Ok((path, ty.clone()))
    }
}

fn leaf_count(ty: &Type) -> usize {
    match ty {
        Type::Struct(fields) => fields.iter().map(|(_, field)| leaf_count(field)).sum(),
        Type::List(item) => leaf_count(item),
        Type::Map(key, value) => leaf_count(key) + leaf_count(value),
        _ => 1,
    }
}

/// Our types of root columns, from Arrow's and the leaves' own annotations, which tell more (UUIDs, intervals).
fn typed_roots<'a>(
    schema: &SchemaTree,
    leaves: &[usize],
    fields: impl Iterator<Item = &'a Field>,
) -> Result<Vec<Type>, Error> {
    let mut leaves = leaves.iter().copied();
    fields.map(|field| type_of(schema, field.data_type(), &mut leaves)).collect()
}

fn type_of(schema: &SchemaTree, arrow: &DataType, leaves: &mut impl Iterator<Item = usize>) -> Result<Type, Error> {
    match arrow {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            Ok(Type::List(Box::new(type_of(schema, item.data_type(), leaves)?)))
        }
        DataType::Struct(fields) => {
            let typed = |field: &Arc<Field>, leaves: &mut _| type_of(schema, field.data_type(), leaves);
            let fields = fields.iter().map(|field| Ok((field.name().clone(), typed(field, leaves)?)));
            Ok(Type::Struct(fields.collect::<Result<_, Error>>()?))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                let key = type_of(schema, fields[0].data_type(), leaves)?;
                Ok(Type::Map(Box::new(key), Box::new(type_of(schema, fields[1].data_type(), leaves)?)))
            }
            _ => Err(Error::Unsupported("a map that is not one of keys and values".to_owned())),
        },
        leaf => {
            let at = leaves.next().ok_or_else(|| Error::corrupt("the schema has fewer leaves than its types"))?;
            leaf_type(schema, at, leaf)
        }
    }
}

/// The logical type of a leaf (<https://github.com/apache/parquet-format/blob/master/LogicalTypes.md>).
fn leaf_type(schema: &SchemaTree, leaf: usize, arrow: &DataType) -> Result<Type, Error> {
    if schema.is_interval(leaf) {
        return Ok(Type::Interval);
    }
    if let Some(unit) = schema.duration(leaf) {
        return Ok(Type::Duration(unit));
    }
    match schema.column(leaf).logical_type_ref() {
        Some(LogicalType::Uuid) => Ok(Type::Uuid),
        _ => plain_type(arrow),
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
