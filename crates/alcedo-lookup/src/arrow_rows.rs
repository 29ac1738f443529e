//! Compact rows, version 1, written from Arrow arrays: the counterpart of [`rows`](crate::rows).

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Decimal256Type, DurationMicrosecondType, DurationMillisecondType,
    DurationNanosecondType, DurationSecondType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_buffer::ToByteSlice;
use arrow_schema::DataType;

use crate::error::Error;
use crate::int96::{self, Int96Columns};
use crate::projection::Projection;
use crate::row_batch::RowBatch;
use crate::rows::{DECIMAL128_PRECISION, write_uvarint};
use crate::schema::{Type, Unit};

/// Writes rows of record batches that a [`Projection`] read.
#[derive(Default)]
pub(crate) struct RowWriter {
    /// One row's fields, before their length is known.
    fields: Fields,
}

#[derive(Default)]
struct Fields {
    bytes: Vec<u8>,
    /// The answer column that is written, and its unit of INT96 timestamps.
    int96: (usize, Option<Unit>),
    /// Answer column and offset in `bytes` of each INT96 timestamp.
    int96_places: Vec<(usize, usize)>,
}

impl RowWriter {
    /// Appends a row of a batch, which `projection` read, to `out`, and to `places` the answer column and the
    /// offset in `out` of each INT96 timestamp.
    ///
    /// # Errors
    /// A value of a type that rows cannot carry.
    pub(crate) fn write(
        &mut self,
        (projection, int96): (&Projection, &Int96Columns),
        (batch, row): (&RowBatch, usize),
        out: &mut Vec<u8>,
        places: &mut Vec<(usize, usize)>,
    ) -> Result<(), Error> {
        let fields = &mut self.fields;
        fields.bytes.clear();
        fields.bytes.resize(projection.paths.len().div_ceil(8), 0);
        for (i, (path, column)) in projection.paths.iter().zip(&projection.schema.columns).enumerate() {
            match reach(batch, path, row)? {
                Some((array, row)) => {
                    fields.int96 = (i, int96.unit(i));
                    write_value(fields, array, &column.ty, row)?;
                }
                None => fields.bytes[i / 8] |= 1 << (i % 8),
            }
        }
        write_uvarint(out, self.fields.bytes.len() as u64);
        places.extend(self.fields.int96_places.drain(..).map(|(column, at)| (column, out.len() + at)));
        out.extend_from_slice(&self.fields.bytes);
        Ok(())
    }
}

/// Follows a path through structs; none where the value or a struct around it is null.
fn reach<'a>(batch: &'a RowBatch, path: &[usize], row: usize) -> Result<Option<(&'a ArrayRef, usize)>, Error> {
    let (root, inner) = path.split_first().ok_or_else(|| Error::corrupt("a column without a path"))?;
    let (mut array, row) = batch.columns[*root].at(row);
    for field in inner {
        if array.is_null(row) {
            return Ok(None);
        }
        array = array.as_struct().column(*field);
    }
    Ok((!is_null(array, row)).then_some((array, row)))
}

/// A null array has no validity buffer, and all of its values are null.
fn is_null(array: &ArrayRef, row: usize) -> bool {
    *array.data_type() == DataType::Null || array.is_null(row)
}

fn write_nulls(out: &mut Fields, count: usize, is_null: impl Fn(usize) -> bool) {
    let out = &mut out.bytes;
    let start = out.len();
    out.resize(start + count.div_ceil(8), 0);
    for i in (0..count).filter(|i| is_null(*i)) {
        out[start + i / 8] |= 1 << (i % 8);
    }
}

fn number<T: ArrowPrimitiveType>(out: &mut Fields, array: &ArrayRef, row: usize) -> Result<(), Error>
where
    T::Native: ToByteSlice,
{
    let array = array.as_primitive_opt::<T>().ok_or_else(|| mismatch(array))?;
    // Arrow keeps numbers in the machine's order; the wire is little-endian, as every machine we build for.
    out.bytes.extend_from_slice(array.value(row).to_byte_slice());
    Ok(())
}

fn mismatch(array: &ArrayRef) -> Error {
    Error::Unsupported(format!("values read as {}", array.data_type()))
}

fn duration(out: &mut Fields, array: &ArrayRef, unit: Unit, row: usize) -> Result<(), Error> {
    match unit {
        // Stored as plain integers: the parquet crate is not told that they are durations.
        _ if *array.data_type() == DataType::Int64 => number::<Int64Type>(out, array, row),
        Unit::Second => number::<DurationSecondType>(out, array, row),
        Unit::Millisecond => number::<DurationMillisecondType>(out, array, row),
        Unit::Microsecond => number::<DurationMicrosecondType>(out, array, row),
        Unit::Nanosecond => number::<DurationNanosecondType>(out, array, row),
    }
}

fn write_value(out: &mut Fields, array: &ArrayRef, ty: &Type, row: usize) -> Result<(), Error> {
    match ty {
        Type::Bool => out.bytes.push(array.as_boolean_opt().ok_or_else(|| mismatch(array))?.value(row).into()),
        Type::Int8 => number::<Int8Type>(out, array, row)?,
        Type::Int16 => number::<Int16Type>(out, array, row)?,
        Type::Int32 => number::<Int32Type>(out, array, row)?,
        Type::Int64 => number::<Int64Type>(out, array, row)?,
        Type::UInt8 => number::<UInt8Type>(out, array, row)?,
        Type::UInt16 => number::<UInt16Type>(out, array, row)?,
        Type::UInt32 => number::<UInt32Type>(out, array, row)?,
        Type::UInt64 => number::<UInt64Type>(out, array, row)?,
        Type::Float16 => number::<Float16Type>(out, array, row)?,
        Type::Float32 => number::<Float32Type>(out, array, row)?,
        Type::Float64 => number::<Float64Type>(out, array, row)?,
        Type::Date32 => number::<Date32Type>(out, array, row)?,
        Type::Time(Unit::Second) => number::<Time32SecondType>(out, array, row)?,
        Type::Time(Unit::Millisecond) => number::<Time32MillisecondType>(out, array, row)?,
        Type::Time(Unit::Microsecond) => number::<Time64MicrosecondType>(out, array, row)?,
        Type::Time(Unit::Nanosecond) => number::<Time64NanosecondType>(out, array, row)?,
        Type::Timestamp { .. } if out.int96.1.is_some() && array.as_fixed_size_binary_opt().is_some() => {
            write_int96(out, array, row)?;
        }
        Type::Timestamp { unit, .. } => match unit {
            Unit::Second => number::<TimestampSecondType>(out, array, row)?,
            Unit::Millisecond => number::<TimestampMillisecondType>(out, array, row)?,
            Unit::Microsecond => number::<TimestampMicrosecondType>(out, array, row)?,
            Unit::Nanosecond => number::<TimestampNanosecondType>(out, array, row)?,
        },
        Type::Duration(unit) => duration(out, array, *unit, row)?,
        // Few digits in many bytes.
        Type::Decimal { precision, .. }
            if *precision <= DECIMAL128_PRECISION && array.as_primitive_opt::<Decimal256Type>().is_some() =>
        {
            let value = array.as_primitive::<Decimal256Type>().value(row).to_i128();
            let value = value.ok_or_else(|| Error::corrupt(format!("a value that {ty} cannot hold")))?;
            out.bytes.extend_from_slice(&value.to_le_bytes());
        }
        Type::Decimal { precision, .. } if *precision <= DECIMAL128_PRECISION => {
            number::<Decimal128Type>(out, array, row)?;
        }
        Type::Decimal { .. } => number::<Decimal256Type>(out, array, row)?,
        Type::Uuid | Type::Fixed(_) | Type::Interval => {
            out.bytes.extend_from_slice(array.as_fixed_size_binary_opt().ok_or_else(|| mismatch(array))?.value(row));
        }
        Type::String => {
            write_bytes(out, array.as_string_opt::<i32>().ok_or_else(|| mismatch(array))?.value(row).as_bytes());
        }
        Type::Binary => write_bytes(out, array.as_binary_opt::<i32>().ok_or_else(|| mismatch(array))?.value(row)),
        Type::Null => return Err(Error::corrupt("a null column has a value")),
        Type::List(item) => write_items(out, &list_items(array, row)?, item, true)?,
        Type::Struct(fields) => {
            let array = array.as_struct_opt().ok_or_else(|| mismatch(array))?;
            write_nulls(out, fields.len(), |i| is_null(array.column(i), row));
            for (i, (_, ty)) in fields.iter().enumerate() {
                if !is_null(array.column(i), row) {
                    write_value(out, array.column(i), ty, row)?;
                }
            }
        }
        Type::Map(key, value) => {
            let entries = array.as_map_opt().ok_or_else(|| mismatch(array))?.value(row);
            write_items(out, entries.column(0), key, true)?;
            write_items(out, entries.column(1), value, false)?;
        }
    }
    Ok(())
}

fn write_int96(out: &mut Fields, array: &ArrayRef, row: usize) -> Result<(), Error> {
    let (column, unit) = (out.int96.0, out.int96.1.unwrap_or(Unit::Nanosecond));
    let stored = array.as_fixed_size_binary_opt().ok_or_else(|| mismatch(array))?.value(row);
    let count = int96::count(stored, unit).ok_or_else(|| int96::no_unit(""))?;
    out.int96_places.push((column, out.bytes.len()));
    out.bytes.extend_from_slice(&count.to_le_bytes());
    Ok(())
}

fn list_items(array: &ArrayRef, row: usize) -> Result<ArrayRef, Error> {
    match array.data_type() {
        DataType::List(_) => Ok(array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => Ok(array.as_list::<i64>().value(row)),
        DataType::FixedSizeList(..) => Ok(array.as_fixed_size_list().value(row)),
        _ => Err(mismatch(array)),
    }
}

fn write_bytes(out: &mut Fields, bytes: &[u8]) {
    write_uvarint(&mut out.bytes, bytes.len() as u64);
    out.bytes.extend_from_slice(bytes);
}

fn write_items(out: &mut Fields, items: &ArrayRef, ty: &Type, with_count: bool) -> Result<(), Error> {
    if with_count {
        write_uvarint(&mut out.bytes, items.len() as u64);
    }
    write_nulls(out, items.len(), |i| is_null(items, i));
    for i in (0..items.len()).filter(|i| !is_null(items, *i)) {
        write_value(out, items, ty, i)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::sync::Arc;

    use arrow_array::builder::{Int64Builder, ListBuilder, MapBuilder, StringBuilder};
    use arrow_array::*;
    use arrow_buffer::i256;
    use arrow_schema::Field;
    use bytes::Bytes;

    use super::*;
    use crate::rows::decode_rows;
    use crate::schema::{Column, RowSchema};

    /// Every type of the grammar with two values, the second one null where a null is possible at all.
    fn samples() -> Vec<(&'static str, ArrayRef)> {
        let utc = |array: TimestampMicrosecondArray| Arc::new(array.with_timezone("UTC")) as ArrayRef;
        let mut list = ListBuilder::new(StringBuilder::new());
        list.append_value([Some("wing"), None, Some("")]);
        list.append_null();
        let mut map = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
        map.keys().append_value("k");
        map.values().append_null();
        map.append(true).unwrap();
        map.append(false).unwrap();
        let fields = [("a", Arc::new(Int32Array::from(vec![Some(-2), Some(1)])) as ArrayRef), ("b", text(&["x", "y"]))];
        let fields = fields.map(|(name, array)| (Arc::new(Field::new(name, array.data_type().clone(), true)), array));
        vec![
            ("bool", Arc::new(BooleanArray::from(vec![Some(true), None]))),
            ("int8", Arc::new(Int8Array::from(vec![Some(-1), None]))),
            ("int16", Arc::new(Int16Array::from(vec![Some(-300), None]))),
            ("int32", Arc::new(Int32Array::from(vec![Some(i32::MIN), None]))),
            ("int64", Arc::new(Int64Array::from(vec![Some(i64::MAX), None]))),
            ("uint8", Arc::new(UInt8Array::from(vec![Some(255), None]))),
            ("uint16", Arc::new(UInt16Array::from(vec![Some(65_535), None]))),
            ("uint32", Arc::new(UInt32Array::from(vec![Some(u32::MAX), None]))),
            ("uint64", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None]))),
            ("float16", Arc::new(Float16Array::from(vec![Some(half::f16::from_f32(1.5)), None]))),
            ("float32", Arc::new(Float32Array::from(vec![Some(0.1), None]))),
            ("float64", Arc::new(Float64Array::from(vec![Some(-0.1), None]))),
            ("string", Arc::new(StringArray::from(vec![Some("鳥"), None]))),
            ("binary", Arc::new(BinaryArray::from(vec![Some(&[0, 255][..]), None]))),
            ("fixed[3]", Arc::new(FixedSizeBinaryArray::try_from_iter([[1, 2, 3], [4, 5, 6]].iter()).unwrap())),
            ("uuid", Arc::new(FixedSizeBinaryArray::try_from_iter([[7_u8; 16], [8; 16]].iter()).unwrap())),
            ("decimal(9,2)", decimal(Decimal128Array::from(vec![Some(-1_250), None]), 9, 2)),
            ("decimal(76,0)", Arc::new(Decimal256Array::from(vec![Some(i256::MINUS_ONE), None]))),
            ("date32", Arc::new(Date32Array::from(vec![Some(-1), None]))),
            ("time[ms]", Arc::new(Time32MillisecondArray::from(vec![Some(1), None]))),
            ("time[ns]", Arc::new(Time64NanosecondArray::from(vec![Some(1), None]))),
            ("timestamp[ms]", Arc::new(TimestampMillisecondArray::from(vec![Some(-1), None]))),
            ("timestamp[us,UTC]", utc(TimestampMicrosecondArray::from(vec![Some(2), None]))),
            ("duration[s]", Arc::new(DurationSecondArray::from(vec![Some(3), None]))),
            ("list<string>", Arc::new(list.finish())),
            ("struct<a:int32,b:string>", Arc::new(StructArray::from(fields.to_vec()))),
            ("map<string,int64>", Arc::new(map.finish())),
            ("null", Arc::new(NullArray::new(2))),
        ]
    }

    fn text(values: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    fn decimal(array: Decimal128Array, precision: u8, scale: i8) -> ArrayRef {
        Arc::new(array.with_precision_and_scale(precision, scale).unwrap())
    }

    fn row(ty: &Type, array: &ArrayRef, row: usize) -> Vec<u8> {
        let mut fields = Fields::default();
        write_nulls(&mut fields, 1, |_| is_null(array, row));
        if !is_null(array, row) {
            write_value(&mut fields, array, ty, row).unwrap();
        }
        let mut out = Vec::new();
        write_uvarint(&mut out, fields.bytes.len() as u64);
        out.extend(fields.bytes);
        out
    }

    /// The layout is a promise: a change of these bytes needs a new version of the contract, not a new golden file.
    #[test]
    fn compact_rows_are_byte_for_byte_those_of_version_1() {
        let mut text = String::new();
        for (name, array) in samples() {
            let ty: Type = name.parse().unwrap();
            let schema = RowSchema { columns: vec![Column { name: "c".into(), ty: ty.clone() }] };
            for i in 0..2 {
                let bytes = row(&ty, &array, i);
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                let decoded = decode_rows(&schema, &Bytes::from(bytes)).unwrap();
                text.push_str(&format!("{name}\t{hex}\t{:?}\n", decoded[0][0]));
            }
        }
        let golden = include_str!("../tests/golden/compact_rows_v1.tsv");
        assert!(text == golden, "the rows are now:\n{text}");
    }
}
