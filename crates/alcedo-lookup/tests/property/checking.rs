//! Compares an answer, in each of its forms, with what the scan says.

use std::io::Cursor;
use std::sync::Arc;

use alcedo_lookup::answer::{Body, FileAnswer, decode_pages};
use alcedo_lookup::decoded::DecodedPages;
use alcedo_lookup::limits::Limits;
use alcedo_lookup::pages_answer::{KeptPages, decode_pages_with};
use alcedo_lookup::rows::decode_rows;
use alcedo_lookup::value::Value;
use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, ArrayRef};
use arrow_buffer::i256;
use arrow_ipc::reader::StreamReader;
use arrow_schema::{DataType, IntervalUnit, TimeUnit};

use crate::asking::{Asked, Column, Truth};
use crate::schema::{Leaf, Node, Shape};
use crate::values::Datum;
use crate::writing::Row;

/// Room for all decoded pages of an answer.
const KEPT_BYTES: u64 = 16 << 20;

/// # Errors
/// What is different.
pub(crate) fn check(
    answer: &FileAnswer,
    asked: &Asked,
    truth: &Truth,
    (schema, rows): (&[Node], &[Row]),
) -> Result<(), String> {
    let found: Vec<(u64, u32)> = answer.row_number.iter().copied().zip(answer.key_index.iter().copied()).collect();
    if answer.row_number.len() != answer.key_index.len() || found != truth.rows {
        return Err(format!("rows and keys {found:?}, the scan has {:?}", truth.rows));
    }
    if answer.statuses != truth.statuses {
        return Err(format!("statuses {:?}, the scan has {:?}", answer.statuses, truth.statuses));
    }
    let root = |(i, node): (usize, &Node)| Column { name: node.name.clone(), path: vec![i] };
    let columns = asked.columns.clone().unwrap_or_else(|| schema.iter().enumerate().map(root).collect());
    let wanted: Vec<(String, String)> =
        columns.iter().map(|column| (column.name.clone(), column.node(schema).type_text())).collect();
    let got: Vec<(String, String)> =
        answer.schema.columns.iter().map(|column| (column.name.clone(), column.ty.to_string())).collect();
    if got != wanted {
        return Err(format!("columns {got:?}, expected {wanted:?}"));
    }
    let wanted =
        Wanted { schema, columns: &columns, rows: found.iter().map(|(row, _)| &rows[*row as usize]).collect() };
    match &answer.body {
        Body::Compact(bytes) => wanted.compare(&decode_rows(&answer.schema, bytes).map_err(|e| e.to_string())?),
        Body::Pages(pages) => {
            let limits = Limits { answer_bytes: usize::MAX, ..Limits::default() };
            let bytes = decode_pages(pages, &answer.schema, &answer.row_number, &limits);
            let bytes = bytes.map_err(|e| format!("the pages cannot be decoded: {e}"))?;
            let kept = KeptPages::new(Arc::new(DecodedPages::new(KEPT_BYTES)), "file", "version");
            for time in ["first", "second", "third"] {
                let again = decode_pages_with(pages, &answer.schema, &answer.row_number, &limits, Some(&kept));
                if again.as_ref() != Ok(&bytes) {
                    return Err(format!("with kept pages, {time} time: {again:?}"));
                }
            }
            wanted.compare(&decode_rows(&answer.schema, &bytes).map_err(|e| e.to_string())?)
        }
        Body::ArrowIpc(bytes) => wanted.compare_arrow(bytes),
    }
}

struct Wanted<'a> {
    schema: &'a [Node],
    columns: &'a [Column],
    rows: Vec<&'a Row>,
}

impl Wanted<'_> {
    fn compare(&self, got: &[Vec<Value>]) -> Result<(), String> {
        if got.len() != self.rows.len() {
            return Err(format!("{} rows for {} row numbers", got.len(), self.rows.len()));
        }
        for (i, (got, wanted)) in got.iter().zip(&self.rows).enumerate() {
            for (value, column) in got.iter().zip(self.columns) {
                let (node, wanted) = (column.node(self.schema), column.value(wanted));
                if !same(node, wanted, value) {
                    return Err(format!("row {i} of the answer: `{}` is {value:?}, expected {wanted:?}", column.name));
                }
            }
        }
        Ok(())
    }

    fn compare_arrow(&self, bytes: &[u8]) -> Result<(), String> {
        let mut rows = self.rows.iter().enumerate();
        if bytes.is_empty() && self.rows.is_empty() {
            return Ok(());
        }
        let reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(|e| e.to_string())?;
        let schema = reader.schema();
        let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
        let wanted: Vec<&String> = self.columns.iter().map(|column| &column.name).collect();
        if names != wanted {
            return Err(format!("Arrow columns {names:?}, expected {wanted:?}"));
        }
        for batch in reader {
            let batch = batch.map_err(|e| e.to_string())?;
            for at in 0..batch.num_rows() {
                let (i, row) = rows.next().ok_or("Arrow has too many rows")?;
                for (array, column) in batch.columns().iter().zip(self.columns) {
                    let (node, wanted) = (column.node(self.schema), column.value(row));
                    let got = arrow_value(node, array, at)?;
                    if !same_datum(&got, wanted) {
                        return Err(format!("Arrow row {i}: `{}` is {got:?}, expected {wanted:?}", column.name));
                    }
                }
            }
        }
        rows.next().map_or(Ok(()), |_| Err("Arrow has too few rows".to_owned()))
    }
}

/// Whether a value of an answer is exactly this one, to the sign of a zero.
fn same(node: &Node, wanted: &Datum, got: &Value) -> bool {
    match (&node.shape, wanted, got) {
        (_, Datum::Null, Value::Null) => true,
        (_, Datum::Bool(a), Value::Bool(b)) => a == b,
        (Shape::Leaf(Leaf::Int { signed: false, .. }, _), Datum::Int(a), Value::UInt(b)) => *a == i128::from(*b),
        (Shape::Leaf(Leaf::Int { signed: false, .. }, _), ..) => false,
        (_, Datum::Int(a), Value::Int(b)) => *a == i128::from(*b),
        (Shape::Leaf(Leaf::Float64, _), Datum::Float(a), Value::Float64(b)) => same_float(*a, *b),
        (Shape::Leaf(Leaf::Float16 | Leaf::Float32, _), Datum::Float(a), Value::Float32(b)) => {
            same_float(*a, f64::from(*b))
        }
        (Shape::Leaf(Leaf::Decimal { scale, .. }, _), Datum::Decimal(a), Value::Decimal(b)) => {
            let fraction = b.split_once('.').map_or(0, |(_, fraction)| fraction.len());
            fraction == *scale as usize && i256::from_string(&b.replace('.', "")) == Some(*a)
        }
        (Shape::Leaf(Leaf::String(_) | Leaf::Json, _), Datum::Bytes(a), Value::String(b)) => a == b.as_bytes(),
        (Shape::Leaf(Leaf::Uuid, _), Datum::Bytes(a), Value::Uuid(b)) => a == b,
        (Shape::Leaf(Leaf::Uuid, _), ..) => false,
        (_, Datum::Bytes(a), Value::Binary(b)) => a == b,
        (Shape::Struct(fields), Datum::Struct(a), Value::Struct(b)) => {
            a.len() == b.len() && fields.iter().zip(a.iter().zip(b)).all(|(field, (a, b))| same(field, a, b))
        }
        (Shape::List(_, item), Datum::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(item, a, b))
        }
        (Shape::Map(key, item), Datum::Map(a), Value::Map(b)) => {
            let entry = |(a, b): (&(Datum, Datum), &(Value, Value))| same(key, &a.0, &b.0) && same(item, &a.1, &b.1);
            a.len() == b.len() && a.iter().zip(b).all(entry)
        }
        _ => false,
    }
}

fn same_float(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

fn same_datum(a: &Datum, b: &Datum) -> bool {
    match (a, b) {
        (Datum::Float(a), Datum::Float(b)) => same_float(*a, *b),
        (Datum::List(a), Datum::List(b)) | (Datum::Struct(a), Datum::Struct(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_datum(a, b))
        }
        (Datum::Map(a), Datum::Map(b)) => {
            let entry = |(a, b): (&(Datum, Datum), &(Datum, Datum))| same_datum(&a.0, &b.0) && same_datum(&a.1, &b.1);
            a.len() == b.len() && a.iter().zip(b).all(entry)
        }
        (a, b) => a == b,
    }
}

/// A value out of an Arrow array, which must be of the node's type.
fn arrow_value(node: &Node, array: &ArrayRef, at: usize) -> Result<Datum, String> {
    if *array.data_type() == DataType::Null || array.is_null(at) {
        return Ok(Datum::Null);
    }
    let items = |items: ArrayRef, node: &Node| -> Result<Vec<Datum>, String> {
        (0..items.len()).map(|i| arrow_value(node, &items, i)).collect()
    };
    Ok(match (&node.shape, array.data_type()) {
        (Shape::Leaf(leaf, _), _) => return leaf_value(*leaf, array, at),
        (Shape::Struct(fields), DataType::Struct(_)) => {
            let columns = array.as_struct().columns();
            let values = fields.iter().zip(columns).map(|(field, column)| arrow_value(field, column, at));
            Datum::Struct(values.collect::<Result<_, _>>()?)
        }
        (Shape::List(_, item), DataType::List(_)) => Datum::List(items(array.as_list::<i32>().value(at), item)?),
        (Shape::Map(key, item), DataType::Map(..)) => {
            let entries = array.as_map().value(at);
            let (keys, values) = (items(entries.column(0).clone(), key)?, items(entries.column(1).clone(), item)?);
            Datum::Map(keys.into_iter().zip(values).collect())
        }
        (_, ty) => return Err(format!("`{}` comes as {ty}", node.name)),
    })
}

fn leaf_value(leaf: Leaf, array: &ArrayRef, at: usize) -> Result<Datum, String> {
    macro_rules! int {
        ($ty:ty) => {
            Datum::Int(array.as_primitive::<$ty>().value(at).into())
        };
    }
    Ok(match (leaf, array.data_type()) {
        (Leaf::Bool, DataType::Boolean) => Datum::Bool(array.as_boolean().value(at)),
        (Leaf::Int { bits: 8, signed: true, .. }, DataType::Int8) => int!(Int8Type),
        (Leaf::Int { bits: 16, signed: true, .. }, DataType::Int16) => int!(Int16Type),
        (Leaf::Int { bits: 32, signed: true, .. }, DataType::Int32) => int!(Int32Type),
        (Leaf::Int { bits: 64, signed: true, .. }, DataType::Int64) => int!(Int64Type),
        (Leaf::Int { bits: 8, signed: false, .. }, DataType::UInt8) => int!(UInt8Type),
        (Leaf::Int { bits: 16, signed: false, .. }, DataType::UInt16) => int!(UInt16Type),
        (Leaf::Int { bits: 32, signed: false, .. }, DataType::UInt32) => int!(UInt32Type),
        (Leaf::Int { bits: 64, signed: false, .. }, DataType::UInt64) => int!(UInt64Type),
        (Leaf::Float16, DataType::Float16) => Datum::Float(array.as_primitive::<Float16Type>().value(at).to_f64()),
        (Leaf::Float32, DataType::Float32) => Datum::Float(array.as_primitive::<Float32Type>().value(at).into()),
        (Leaf::Float64, DataType::Float64) => Datum::Float(array.as_primitive::<Float64Type>().value(at)),
        (Leaf::String(_) | Leaf::Json, DataType::Utf8) => {
            Datum::Bytes(array.as_string::<i32>().value(at).as_bytes().to_vec())
        }
        (Leaf::Binary | Leaf::Bson | Leaf::Enum, DataType::Binary) => {
            Datum::Bytes(array.as_binary::<i32>().value(at).to_vec())
        }
        (Leaf::Fixed(_) | Leaf::Uuid | Leaf::Interval, DataType::FixedSizeBinary(_)) => {
            Datum::Bytes(array.as_fixed_size_binary().value(at).to_vec())
        }
        (Leaf::Interval, DataType::Interval(IntervalUnit::MonthDayNano)) => {
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(at);
            let parts = [value.months as u32, value.days as u32, (value.nanoseconds / 1_000_000) as u32];
            Datum::Bytes(parts.iter().flat_map(|part| part.to_le_bytes()).collect())
        }
        (Leaf::Decimal { .. }, DataType::Decimal128(..)) => {
            Datum::Decimal(i256::from_i128(array.as_primitive::<Decimal128Type>().value(at)))
        }
        (Leaf::Decimal { .. }, DataType::Decimal256(..)) => {
            Datum::Decimal(array.as_primitive::<Decimal256Type>().value(at))
        }
        (Leaf::Date(_), DataType::Date32) => int!(Date32Type),
        (Leaf::Time(..), DataType::Time32(TimeUnit::Millisecond)) => int!(Time32MillisecondType),
        (Leaf::Time(..), DataType::Time64(TimeUnit::Microsecond)) => int!(Time64MicrosecondType),
        (Leaf::Time(..), DataType::Time64(TimeUnit::Nanosecond)) => int!(Time64NanosecondType),
        (Leaf::Timestamp(..), DataType::Timestamp(TimeUnit::Millisecond, _)) => int!(TimestampMillisecondType),
        (Leaf::Timestamp(..), DataType::Timestamp(TimeUnit::Microsecond, _)) => int!(TimestampMicrosecondType),
        (Leaf::Timestamp(..) | Leaf::Int96, DataType::Timestamp(TimeUnit::Nanosecond, _)) => {
            int!(TimestampNanosecondType)
        }
        (leaf, ty) => return Err(format!("{leaf:?} comes as {ty}")),
    })
}
