//! Compact rows, version 1: the byte layout that `proto/alcedo/v1/values.proto` specifies, read.
//!
//! The writer is `arrow_rows` (it reads Arrow arrays); the primitives of both directions are here, so that the layout
//! has one home. Bytes come off the wire: every length is checked before it is believed.

use bytes::Bytes;

use crate::schema::{RowSchema, Type};
use crate::value::{Value, decimal_text};

/// Decimals of at most this precision take 16 bytes, others 32.
pub(crate) const DECIMAL128_PRECISION: u8 = 38;

/// Bytes that are not rows of the schema they claim.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("compact rows are damaged: {0}")]
pub struct RowsError(&'static str);

/// Decodes the rows of one file.
///
/// # Errors
/// The bytes are not whole rows of this schema.
pub fn decode_rows(schema: &RowSchema, rows: &Bytes) -> Result<Vec<Vec<Value>>, RowsError> {
    let mut reader = Reader { bytes: rows.clone() };
    let mut decoded = Vec::new();
    while !reader.bytes.is_empty() {
        let length = reader.length()?;
        let mut fields = Reader { bytes: reader.take(length)? };
        decoded.push(fields.fields(schema.columns.iter().map(|column| &column.ty))?);
        if !fields.bytes.is_empty() {
            return Err(RowsError("a row is longer than its values"));
        }
    }
    Ok(decoded)
}

/// Appends `value` as LEB128; only what reads Parquet writes rows.
#[cfg(feature = "parquet")]
pub(crate) fn write_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Reader {
    bytes: Bytes,
}

impl Reader {
    fn take(&mut self, length: usize) -> Result<Bytes, RowsError> {
        if length > self.bytes.len() {
            return Err(RowsError("a value ends beyond its row"));
        }
        Ok(self.bytes.split_to(length))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RowsError> {
        let mut array = [0; N];
        array.copy_from_slice(&self.take(N)?);
        Ok(array)
    }

    fn uvarint(&mut self) -> Result<u64, RowsError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RowsError("a length takes more than 64 bits"))
    }

    fn length(&mut self) -> Result<usize, RowsError> {
        usize::try_from(self.uvarint()?).map_err(|_| RowsError("a length is larger than memory"))
    }

    /// A null bitmap and the non-null values after it.
    fn fields<'a>(&mut self, types: impl ExactSizeIterator<Item = &'a Type>) -> Result<Vec<Value>, RowsError> {
        let nulls = self.take(types.len().div_ceil(8))?;
        types.enumerate().map(|(i, ty)| if is_null(&nulls, i) { Ok(Value::Null) } else { self.value(ty) }).collect()
    }

    fn items(&mut self, count: usize, ty: &Type) -> Result<Vec<Value>, RowsError> {
        // The bitmap bounds the count by the bytes that are really there before anything is reserved.
        let nulls = self.take(count.div_ceil(8))?;
        let mut values = Vec::with_capacity(count);
        for i in 0..count {
            values.push(if is_null(&nulls, i) { Value::Null } else { self.value(ty)? });
        }
        Ok(values)
    }

    fn value(&mut self, ty: &Type) -> Result<Value, RowsError> {
        Ok(match ty {
            Type::Bool => Value::Bool(self.array::<1>()? != [0]),
            Type::Int8 => Value::Int(i8::from_le_bytes(self.array()?).into()),
            Type::Int16 => Value::Int(i16::from_le_bytes(self.array()?).into()),
            Type::Int32 | Type::Date32 | Type::Time(crate::schema::Unit::Second | crate::schema::Unit::Millisecond) => {
                Value::Int(i32::from_le_bytes(self.array()?).into())
            }
            Type::Int64 | Type::Time(_) | Type::Timestamp { .. } | Type::Duration(_) => {
                Value::Int(i64::from_le_bytes(self.array()?))
            }
            Type::UInt8 => Value::UInt(u8::from_le_bytes(self.array()?).into()),
            Type::UInt16 => Value::UInt(u16::from_le_bytes(self.array()?).into()),
            Type::UInt32 => Value::UInt(u32::from_le_bytes(self.array()?).into()),
            Type::UInt64 => Value::UInt(u64::from_le_bytes(self.array()?)),
            Type::Float16 => Value::Float32(half::f16::from_le_bytes(self.array()?).to_f32()),
            Type::Float32 => Value::Float32(f32::from_le_bytes(self.array()?)),
            Type::Float64 => Value::Float64(f64::from_le_bytes(self.array()?)),
            Type::Decimal { precision, scale } => {
                let width = if *precision <= DECIMAL128_PRECISION { 16 } else { 32 };
                Value::Decimal(decimal_text(&self.take(width)?, *scale).into())
            }
            Type::Uuid => Value::Uuid(self.array()?),
            Type::Interval => Value::Binary(self.take(12)?),
            Type::Fixed(length) => Value::Binary(self.take(*length as usize)?),
            Type::Binary => {
                let length = self.length()?;
                Value::Binary(self.take(length)?)
            }
            Type::String => {
                let length = self.length()?;
                let text = String::from_utf8(self.take(length)?.into());
                Value::String(text.map_err(|_| RowsError("a string is not UTF-8"))?)
            }
            Type::Null => return Err(RowsError("a null column has a value")),
            Type::List(item) => {
                let count = self.length()?;
                Value::List(self.items(count, item)?)
            }
            Type::Struct(fields) => Value::Struct(self.fields(fields.iter().map(|(_, ty)| ty))?),
            Type::Map(key, value) => {
                let count = self.length()?;
                let keys = self.items(count, key)?;
                let values = self.items(count, value)?;
                Value::Map(keys.into_iter().zip(values).collect())
            }
        })
    }
}

pub(crate) fn is_null(nulls: &[u8], i: usize) -> bool {
    nulls[i / 8] & 1 << (i % 8) != 0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::schema::Column;

    fn schema(types: &[&str]) -> RowSchema {
        let column = |(i, ty): (usize, &&str)| Column { name: format!("c{i}"), ty: ty.parse().unwrap() };
        RowSchema { columns: types.iter().enumerate().map(column).collect() }
    }

    #[test]
    fn damaged_rows_are_refused_not_believed() {
        let schema = schema(&["list<int64>", "string"]);
        // A list that claims 2^40 elements, a string past its row, a row past the end, a row with bytes left over.
        let damaged: [&[u8]; 5] =
            [&[8, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 0], &[3, 1, 9, 65], &[200, 1, 0], &[2, 3, 0], &[0x80]];
        for bytes in damaged {
            assert!(decode_rows(&schema, &Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn nulls_and_nested_values_are_read() {
        let schema = schema(&["list<int8>", "string", "map<string,bool>"]);
        let bytes = [12_u8, 0b010, 3, 0b010, 1, 255, 1, 0, 1, b'k', 1, 0, 0];
        // list [1, null, -1], null string, map: one entry k -> bool, whose null bitmap says null is not set.
        let fields: Vec<u8> = vec![0b010, 3, 0b010, 1, 255, 1, 0, 1, b'k', 0, 1];
        let mut row = vec![fields.len() as u8];
        row.extend(&fields);
        let rows = decode_rows(&schema, &Bytes::from(row)).unwrap();
        assert_eq!(
            rows,
            vec![vec![
                Value::List(vec![Value::Int(1), Value::Null, Value::Int(-1)]),
                Value::Null,
                Value::Map(vec![(Value::String("k".into()), Value::Bool(true))]),
            ]]
        );
        assert!(decode_rows(&schema, &Bytes::copy_from_slice(&bytes)).is_err());
    }
}
