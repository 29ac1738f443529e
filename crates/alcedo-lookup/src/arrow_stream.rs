//! Arrow IPC answers: record batches of the answer's columns, one stream per file.

use std::iter::Peekable;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType, Int64Type,
};
use arrow_array::{Array, ArrayRef, ListArray, MapArray, RecordBatch, RecordBatchOptions, StructArray, UInt64Array};
use arrow_buffer::NullBuffer;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields, Schema};
use arrow_select::take::{take, take_record_batch};
use bytes::Bytes;

use crate::answer::too_large;
use crate::error::Error;
use crate::int96::{Int96Columns, to_timestamps};
use crate::projection::Projection;
use crate::row_batch::RowBatch;
use crate::schema::{RowSchema, Type, Unit};
use crate::search::Plan;

/// An Arrow IPC stream in the making; without rows it stays empty.
pub(crate) struct ArrowStream {
    writer: Option<StreamWriter<Vec<u8>>>,
    int96: Int96Columns,
    /// Batches that wait for the unit of their INT96 timestamps, which the last row may still change: a stream has one
    /// schema, at its start.
    waiting: Vec<RecordBatch>,
    waiting_bytes: usize,
}

impl ArrowStream {
    pub(crate) fn new(int96: Int96Columns) -> Self {
        Self { writer: None, int96, waiting: Vec::new(), waiting_bytes: 0 }
    }

    /// Writes the rows of a batch that the plan's projection read, each as often as it comes next in `rows`, which
    /// ascend.
    ///
    /// # Errors
    /// The answer passes its bound.
    pub(crate) fn write(
        &mut self,
        plan: &Plan,
        batch: &RowBatch,
        rows: &mut Peekable<impl Iterator<Item = u64>>,
    ) -> Result<(), Error> {
        let batch = batch.record_batch()?;
        self.int96.widen(&plan.projection, &batch)?;
        let batch = project(&plan.projection, &batch)?;
        let places = places(batch.num_rows(), rows)?;
        if places.len() == batch.num_rows() {
            return self.add(batch, plan.limits.answer_bytes);
        }
        // As many copies at a time as fit an answer even if each were as large as the whole batch.
        let bytes = bytes_of(&batch).max(1);
        for places in places.chunks((plan.limits.answer_bytes / bytes).max(1)) {
            let repeated = take_record_batch(&batch, &UInt64Array::from(places.to_vec())).map_err(broken)?;
            self.add(repeated, plan.limits.answer_bytes)?;
        }
        Ok(())
    }

    fn add(&mut self, batch: RecordBatch, max_bytes: usize) -> Result<(), Error> {
        if self.int96.is_empty() {
            self.append(&batch)?;
        } else {
            self.waiting_bytes += bytes_of(&batch);
            self.waiting.push(batch);
        }
        let bytes = self.writer.as_ref().map_or(0, |writer| writer.get_ref().len()) + self.waiting_bytes;
        if bytes > max_bytes { Err(too_large("rows", max_bytes)) } else { Ok(()) }
    }

    fn append(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => self.writer.insert(StreamWriter::try_new(Vec::new(), &batch.schema()).map_err(broken)?),
        };
        writer.write(batch).map_err(broken)
    }

    /// The stream, and the units of its INT96 timestamps. `schema` is that of the projection.
    ///
    /// # Errors
    /// A column's INT96 timestamps fit no unit.
    pub(crate) fn finish(mut self, schema: &RowSchema) -> Result<(Bytes, Int96Columns), Error> {
        for batch in std::mem::take(&mut self.waiting) {
            let (mut fields, mut arrays) = (Vec::new(), Vec::new());
            for (i, (array, column)) in batch.columns().iter().zip(&schema.columns).enumerate() {
                let array = match self.int96.unit(i) {
                    Some(unit) => to_timestamps(array, column, unit)?,
                    None => array.clone(),
                };
                fields.push(Field::new(&column.name, array.data_type().clone(), true));
                arrays.push(array);
            }
            self.append(&RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(broken)?)?;
        }
        let bytes = self.writer.map_or(Ok(Vec::new()), |writer| writer.into_inner().map_err(broken))?;
        Ok((bytes.into(), self.int96))
    }
}

fn broken(error: ArrowError) -> Error {
    Error::corrupt(error.to_string())
}

fn bytes_of(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}

/// The rows of a batch as they stand in the answer: one that several keys ask for stands there once per key.
fn places(batch_rows: usize, rows: &mut Peekable<impl Iterator<Item = u64>>) -> Result<Vec<u64>, Error> {
    let mut places = Vec::with_capacity(batch_rows);
    for place in 0..batch_rows as u64 {
        let row = rows.next().ok_or_else(|| Error::corrupt("more rows were read than found"))?;
        places.push(place);
        while rows.next_if_eq(&row).is_some() {
            places.push(place);
        }
    }
    Ok(places)
}

/// The answer's columns out of a batch of whole root columns.
fn project(projection: &Projection, batch: &RecordBatch) -> Result<RecordBatch, Error> {
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for (path, column) in projection.paths.iter().zip(&projection.schema.columns) {
        let array = as_duration(nullable(&answer_column(batch, path)?)?, &column.ty);
        fields.push(Field::new(&column.name, array.data_type().clone(), true));
        arrays.push(array);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options).map_err(broken)
}

/// One column of the answer out of a batch of whole root columns: follows its path through structs. A value is null
/// where a struct around it is.
///
/// # Errors
/// The path leads through what is no struct.
pub(crate) fn answer_column(batch: &RecordBatch, path: &[usize]) -> Result<ArrayRef, Error> {
    let (root, inner) = path.split_first().ok_or_else(|| Error::corrupt("a column without a path"))?;
    let mut array = batch.column(*root).clone();
    for field in inner {
        let outer: &StructArray =
            array.as_any().downcast_ref().ok_or_else(|| Error::corrupt("a struct's values are no struct"))?;
        array = below(outer.column(*field), outer.nulls())?;
    }
    Ok(array)
}

/// Integers of a column that is a duration, as Arrow has durations.
fn as_duration(array: ArrayRef, ty: &Type) -> ArrayRef {
    let (Type::Duration(unit), Some(counts)) = (ty, array.as_primitive_opt::<Int64Type>()) else { return array };
    match unit {
        Unit::Second => Arc::new(counts.reinterpret_cast::<DurationSecondType>()),
        Unit::Millisecond => Arc::new(counts.reinterpret_cast::<DurationMillisecondType>()),
        Unit::Microsecond => Arc::new(counts.reinterpret_cast::<DurationMicrosecondType>()),
        Unit::Nanosecond => Arc::new(counts.reinterpret_cast::<DurationNanosecondType>()),
    }
}

/// A struct's field, null where the struct is null.
fn below(field: &ArrayRef, nulls: Option<&NullBuffer>) -> Result<ArrayRef, Error> {
    let Some(nulls) = nulls else { return Ok(field.clone()) };
    let rows: UInt64Array = (0..field.len()).map(|row| nulls.is_valid(row).then_some(row as u64)).collect();
    take(&nullable(field)?, &rows, None).map_err(broken)
}

/// The same values with every field inside declared nullable, but for those of maps that must not be, and null wherever
/// a struct around it is: the parquet crate leaves anything there, without a mask, which Arrow's readers refuse where a
/// field promises no nulls, and which would be taken for INT96 timestamps.
pub(crate) fn nullable(array: &ArrayRef) -> Result<ArrayRef, Error> {
    let relaxed = |field: &FieldRef, array: &ArrayRef, is_nullable: bool| -> FieldRef {
        Arc::new(field.as_ref().clone().with_data_type(array.data_type().clone()).with_nullable(is_nullable))
    };
    Ok(match array.data_type() {
        DataType::List(field) => {
            let list = array.as_list::<i32>();
            let values = nullable(list.values())?;
            let field = relaxed(field, &values, true);
            Arc::new(ListArray::try_new(field, list.offsets().clone(), values, list.nulls().cloned()).map_err(broken)?)
        }
        DataType::Struct(fields) => {
            let of = array.as_struct();
            let columns = of.columns().iter().map(|column| nullable(&below(column, of.nulls())?));
            let columns = columns.collect::<Result<Vec<_>, Error>>()?;
            let fields = fields.iter().zip(&columns).map(|(field, column)| relaxed(field, column, true)).collect();
            let nulls = of.nulls().cloned();
            Arc::new(StructArray::try_new_with_length(fields, columns, nulls, of.len()).map_err(broken)?)
        }
        DataType::Map(field, is_sorted) => {
            let map = array.as_map();
            let (keys, values) = (nullable(map.keys())?, nullable(map.values())?);
            let DataType::Struct(inner) = field.data_type() else { return Ok(array.clone()) };
            let [key, value] = &inner[..] else { return Ok(array.clone()) };
            let fields = Fields::from(vec![relaxed(key, &keys, false), relaxed(value, &values, true)]);
            let entries = StructArray::try_new(fields, vec![keys, values], None).map_err(broken)?;
            let field = Arc::new(field.as_ref().clone().with_data_type(entries.data_type().clone()));
            let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
            Arc::new(MapArray::try_new(field, offsets, entries, nulls, *is_sorted).map_err(broken)?)
        }
        _ => array.clone(),
    })
}
