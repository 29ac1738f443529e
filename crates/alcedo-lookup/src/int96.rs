//! INT96 timestamps, the old way of Hive, Impala and Spark: nanoseconds of a day and a Julian day, 12 bytes.
//!
//! They reach further than 64 bits of nanoseconds, and Spark's usual "for ever" (the year 9999) lies beyond. Arrow
//! would turn it into another date without a word. So the 12 bytes are read as they are, and a column of an answer is
//! given in nanoseconds where all of its values fit, else in microseconds where that loses nothing, and otherwise is an
//! error.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, FixedSizeBinaryArray, RecordBatch, TimestampMicrosecondArray, TimestampNanosecondArray,
};
use arrow_schema::DataType;
use parquet::basic::Type as Physical;

use crate::arrow_stream::{answer_column, nullable};
use crate::error::{Error, shown};
use crate::nested_arrays::with_leaves;
use crate::projection::Projection;
use crate::schema::{Column, RowSchema, Type, Unit};
use crate::schema_tree::SchemaTree;

/// Bytes of a stored value.
pub(crate) const INT96_BYTES: i32 = 12;
/// The nanoseconds of a day.
const DAY_NANOSECONDS: i128 = 86_400_000_000_000;
/// The Julian day number of 1970-01-01.
const UNIX_EPOCH_JULIAN_DAY: i128 = 2_440_588;
const MICROSECOND_NANOSECONDS: i128 = 1_000;

/// Nanoseconds since 1970-01-01 of a stored value: a signed count of nanoseconds, then a signed Julian day.
fn nanoseconds(stored: &[u8]) -> Option<i128> {
    let (nanoseconds, day) = stored.split_first_chunk::<8>()?;
    Some(since_1970(i64::from_le_bytes(*nanoseconds), i32::from_le_bytes(day.try_into().ok()?)))
}

/// Nanoseconds since 1970-01-01 of nanoseconds in a Julian day; either may be negative.
pub(crate) fn since_1970(nanoseconds: i64, day: i32) -> i128 {
    (i128::from(day) - UNIX_EPOCH_JULIAN_DAY) * DAY_NANOSECONDS + i128::from(nanoseconds)
}

/// A stored value as a count of the unit; none where it is not a whole one of 64 bits.
pub(crate) fn count(stored: &[u8], unit: Unit) -> Option<i64> {
    let nanoseconds = nanoseconds(stored)?;
    match unit {
        Unit::Nanosecond => i64::try_from(nanoseconds).ok(),
        _ if nanoseconds % MICROSECOND_NANOSECONDS != 0 => None,
        _ => i64::try_from(nanoseconds / MICROSECOND_NANOSECONDS).ok(),
    }
}

/// A count of nanoseconds in microseconds, if that loses nothing.
pub(crate) fn to_microseconds(nanoseconds: i64) -> Option<i64> {
    (nanoseconds % MICROSECOND_NANOSECONDS as i64 == 0).then_some(nanoseconds / MICROSECOND_NANOSECONDS as i64)
}

/// The answer columns that hold INT96 timestamps, and the unit in which each is given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Int96Columns(Vec<Int96Column>);

#[derive(Debug, Clone)]
struct Int96Column {
    /// Ordinal among the answer's columns.
    column: usize,
    /// The column's type with microseconds.
    microseconds: Type,
    unit: Unit,
}

impl Int96Columns {
    /// Nanoseconds for all.
    pub(crate) fn new(projection: &Projection, schema: &SchemaTree) -> Self {
        let mut columns = Vec::new();
        for (i, (path, column)) in projection.paths.iter().zip(&projection.schema.columns).enumerate() {
            let root = path.first().and_then(|root| projection.roots.get(*root));
            let leaves = root.map(|root| root.leaves.as_slice()).unwrap_or_default();
            let is_int96 = |leaf: usize| schema.column(leaf).physical_type() == Physical::INT96;
            if !leaves.iter().any(|leaf| is_int96(*leaf)) {
                continue;
            }
            // A leaf in a struct is named by its path; a root column is all of its leaves.
            let named = |leaf: &&usize| path.len() == 1 || schema.column(**leaf).path().string() == column.name;
            let mut flags = leaves.iter().filter(named).map(|leaf| is_int96(*leaf));
            let microseconds = in_microseconds(&column.ty, &mut flags);
            if microseconds != column.ty {
                columns.push(Int96Column { column: i, microseconds, unit: Unit::Nanosecond });
            }
        }
        Self(columns)
    }

    /// The units that a sent schema names.
    pub(crate) fn of_schema(mut self, schema: &RowSchema) -> Self {
        for int96 in &mut self.0 {
            if schema.columns.get(int96.column).is_some_and(|column| column.ty == int96.microseconds) {
                int96.unit = Unit::Microsecond;
            }
        }
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The answer columns of one root column hold INT96 timestamps.
    pub(crate) fn in_root(&self, projection: &Projection, root: usize) -> bool {
        self.0.iter().any(|int96| projection.paths[int96.column].first() == Some(&root))
    }

    /// The unit of an answer column, if it has INT96 timestamps.
    pub(crate) fn unit(&self, column: usize) -> Option<Unit> {
        self.0.iter().find(|int96| int96.column == column).map(|int96| int96.unit)
    }

    /// Goes over to microseconds in the columns where the batch, which the projection read, needs it. Returns the
    /// columns that did.
    ///
    /// # Errors
    /// Values that fit neither unit.
    pub(crate) fn widen(&mut self, projection: &Projection, batch: &RecordBatch) -> Result<Vec<usize>, Error> {
        let mut widened = Vec::new();
        for int96 in &mut self.0 {
            let column = &projection.schema.columns[int96.column];
            let array = &nullable(&answer_column(batch, &projection.paths[int96.column])?)?;
            if all_fit(array, &column.ty, int96.unit) {
                continue;
            }
            if int96.unit == Unit::Microsecond || !all_fit(array, &column.ty, Unit::Microsecond) {
                return Err(no_unit(&column.name));
            }
            int96.unit = Unit::Microsecond;
            widened.push(int96.column);
        }
        Ok(widened)
    }

    /// The schema of the answer.
    pub(crate) fn schema(&self, schema: &Arc<RowSchema>) -> Arc<RowSchema> {
        if self.0.iter().all(|int96| int96.unit == Unit::Nanosecond) {
            return schema.clone();
        }
        let mut schema = RowSchema::clone(schema);
        for int96 in self.0.iter().filter(|int96| int96.unit != Unit::Nanosecond) {
            schema.columns[int96.column].ty = int96.microseconds.clone();
        }
        Arc::new(schema)
    }
}

/// What to say where no unit holds all values of a column.
pub(crate) fn no_unit(column: &str) -> Error {
    Error::Unsupported(format!(
        "INT96 timestamps of column `{}` lie outside of the years 1677 to 2262 and are finer than a microsecond \
         or beyond 64 bits: no unit holds them all",
        shown(column)
    ))
}

/// The type with microseconds at INT96 leaves; `is_int96` tells it leaf by leaf.
fn in_microseconds(ty: &Type, is_int96: &mut dyn Iterator<Item = bool>) -> Type {
    match ty {
        Type::List(item) => Type::List(Box::new(in_microseconds(item, is_int96))),
        Type::Map(key, value) => {
            let key = in_microseconds(key, is_int96);
            Type::Map(Box::new(key), Box::new(in_microseconds(value, is_int96)))
        }
        Type::Struct(fields) => {
            Type::Struct(fields.iter().map(|(name, ty)| (name.clone(), in_microseconds(ty, is_int96))).collect())
        }
        leaf => match (is_int96.next(), leaf) {
            (Some(true), Type::Timestamp { utc, .. }) => Type::Timestamp { unit: Unit::Microsecond, utc: *utc },
            _ => leaf.clone(),
        },
    }
}

/// The stored values of an INT96 leaf: elsewhere 12 bytes have another type.
fn stored<'a>(array: &'a ArrayRef, ty: &Type) -> Option<&'a FixedSizeBinaryArray> {
    if matches!(ty, Type::Timestamp { .. }) { array.as_fixed_size_binary_opt() } else { None }
}

fn all_fit(array: &ArrayRef, ty: &Type, unit: Unit) -> bool {
    if let Some(values) = stored(array, ty) {
        return values.iter().flatten().all(|value| count(value, unit).is_some());
    }
    match (array.data_type(), ty) {
        (DataType::List(_), Type::List(item)) => all_fit(array.as_list::<i32>().values(), item, unit),
        (DataType::LargeList(_), Type::List(item)) => all_fit(array.as_list::<i64>().values(), item, unit),
        (DataType::Struct(_), Type::Struct(fields)) => {
            let columns = array.as_struct().columns().iter();
            columns.zip(fields).all(|(array, (_, ty))| all_fit(array, ty, unit))
        }
        (DataType::Map(..), Type::Map(key, value)) => {
            let entries = array.as_map().entries();
            all_fit(entries.column(0), key, unit) && all_fit(entries.column(1), value, unit)
        }
        _ => true,
    }
}

/// The array with timestamps of the unit in place of the stored values.
///
/// # Errors
/// A value does not fit the unit.
pub(crate) fn to_timestamps(array: &ArrayRef, column: &Column, unit: Unit) -> Result<ArrayRef, Error> {
    let mut types = Vec::new();
    leaf_types(&column.ty, &mut types);
    let mut types = types.into_iter();
    with_leaves(array, &mut |leaf| {
        let Some(values) = types.next().and_then(|ty| stored(leaf, ty)) else { return Ok(leaf.clone()) };
        let fitted = |value: Option<&[u8]>| match value {
            Some(value) => count(value, unit).map(Some).ok_or_else(|| no_unit(&column.name)),
            None => Ok(None),
        };
        let counts: Vec<Option<i64>> = values.iter().map(fitted).collect::<Result<_, _>>()?;
        Ok(match unit {
            Unit::Nanosecond => Arc::new(TimestampNanosecondArray::from(counts)),
            _ => Arc::new(TimestampMicrosecondArray::from(counts)),
        })
    })
}

fn leaf_types<'a>(ty: &'a Type, leaves: &mut Vec<&'a Type>) {
    match ty {
        Type::List(item) => leaf_types(item, leaves),
        Type::Struct(fields) => fields.iter().for_each(|(_, ty)| leaf_types(ty, leaves)),
        Type::Map(key, value) => {
            leaf_types(key, leaves);
            leaf_types(value, leaves);
        }
        leaf => leaves.push(leaf),
    }
}
