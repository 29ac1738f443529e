//! Rows of root columns that are single values outside of lists and structs, picked out of their data pages.
//!
//! Such columns are nearly all that are asked for, and for few rows of a page the parquet crate's readers cost several
//! times what the values do. What is not understood is read by them.

use std::sync::Arc;

use arrow_array::types::*;
use arrow_array::{ArrayRef, ArrowPrimitiveType, BinaryArray, FixedSizeBinaryArray, PrimitiveArray, StringArray};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, TimeUnit};
use parquet::basic::Type as Physical;
use parquet::schema::types::ColumnDescriptor;

use crate::data_page::Stop;
use crate::fetched_group::LeafPages;
use crate::inflating::Inflating;
use crate::page_check::plain_width;

/// A column type whose plain values are Arrow's values.
pub(crate) struct FlatType {
    ty: DataType,
    /// Bytes per value; none for byte arrays.
    width: Option<usize>,
}

impl FlatType {
    /// None where values must be converted, or are nested.
    pub(crate) fn new(column: &ColumnDescriptor, ty: &DataType) -> Option<Self> {
        if column.max_rep_level() > 0 || column.max_def_level() > 1 {
            return None;
        }
        let is_same = match (column.physical_type(), ty) {
            (Physical::INT32, DataType::Int32 | DataType::UInt32 | DataType::Date32 | DataType::Time32(_)) => true,
            (Physical::INT64, DataType::Int64 | DataType::UInt64 | DataType::Time64(_)) => true,
            (Physical::INT64, DataType::Timestamp(..)) => true,
            (Physical::FLOAT, DataType::Float32) | (Physical::DOUBLE, DataType::Float64) => true,
            (Physical::FIXED_LEN_BYTE_ARRAY, DataType::FixedSizeBinary(width)) => *width > 0,
            (Physical::BYTE_ARRAY, DataType::Utf8 | DataType::Binary) => true,
            _ => false,
        };
        is_same.then(|| Self { ty: ty.clone(), width: plain_width(column) })
    }

    /// The values of these ascending rows, none where the parquet crate has to read them: it also says what is wrong
    /// with damaged pages.
    ///
    /// # Errors
    /// They take more than so many bytes.
    pub(crate) fn read(&self, pages: &LeafPages, rows: &[u64], max_bytes: usize) -> Result<Option<ArrayRef>, Stop> {
        if pages.unaligned {
            return Ok(None);
        }
        let (bytes, ends, valid) = (Vec::new(), Vec::new(), Vec::with_capacity(rows.len()));
        let mut values = Values { bytes, ends, valid, max_bytes, is_too_much: false };
        values.bytes.reserve(self.width.unwrap_or_default().saturating_mul(rows.len()).min(max_bytes));
        let needs_dictionary = pages.touched(rows).any(|(_, _, page)| page.uses_dictionary());
        let done = match pages.dictionary.as_ref().filter(|_| needs_dictionary) {
            Some(dictionary) => {
                let entries = dictionary.header.values as usize;
                let read =
                    |bytes: &mut Inflating<'_>| self.read_pages(pages, rows, Some((bytes, entries)), &mut values);
                dictionary.with_dictionary(read).ok().flatten()
            }
            None if needs_dictionary => None,
            None => self.read_pages(pages, rows, None, &mut values),
        };
        match done {
            _ if values.is_too_much => Err(Stop::TooMuch),
            Some(()) if values.valid.len() == rows.len() => Ok(self.array(values)),
            _ => Ok(None),
        }
    }

    fn read_pages(
        &self,
        pages: &LeafPages,
        rows: &[u64],
        mut dictionary: Option<(&mut Inflating<'_>, usize)>,
        values: &mut Values,
    ) -> Option<()> {
        for (first_row, count, page) in pages.touched(rows) {
            let from = rows.partition_point(|row| row < first_row);
            let within = rows[from..].iter().take_while(|row| **row < first_row + count);
            let within: Vec<usize> = within.map(|row| (row - first_row) as usize).collect();
            let read = page.with_flat_page(pages.column.max_def_level(), |flat| {
                if flat.rows as u64 != *count {
                    return None;
                }
                if let Some(width) = self.width
                    && flat.is_all(&within)
                    && let Some(all) = flat.plain_values()
                {
                    return values.push_all(all, width, within.len());
                }
                let dictionary = dictionary.as_mut().map(|(bytes, entries)| (&mut **bytes, *entries));
                flat.pick(&within, self.width, dictionary, &mut |value| values.push(value, self.width))
            });
            read.ok()???;
        }
        Some(())
    }

    fn array(&self, values: Values) -> Option<ArrayRef> {
        let rows = values.valid.len();
        let nulls = values.valid.iter().any(|valid| !valid).then(|| NullBuffer::from(values.valid));
        if self.width.is_none() {
            let offsets = std::iter::once(0).chain(values.ends).collect::<Vec<i32>>();
            let (offsets, bytes) = (OffsetBuffer::new(offsets.into()), Buffer::from_vec(values.bytes));
            return Some(match self.ty {
                DataType::Utf8 => Arc::new(StringArray::try_new(offsets, bytes, nulls).ok()?),
                _ => Arc::new(BinaryArray::try_new(offsets, bytes, nulls).ok()?),
            });
        }
        let of = Plain { ty: &self.ty, bytes: values.bytes, rows, nulls };
        Some(match &self.ty {
            DataType::Int32 => of.array::<Int32Type>(),
            DataType::UInt32 => of.array::<UInt32Type>(),
            DataType::Date32 => of.array::<Date32Type>(),
            DataType::Time32(TimeUnit::Second) => of.array::<Time32SecondType>(),
            DataType::Time32(_) => of.array::<Time32MillisecondType>(),
            DataType::Int64 => of.array::<Int64Type>(),
            DataType::UInt64 => of.array::<UInt64Type>(),
            DataType::Time64(TimeUnit::Microsecond) => of.array::<Time64MicrosecondType>(),
            DataType::Time64(_) => of.array::<Time64NanosecondType>(),
            DataType::Timestamp(TimeUnit::Second, _) => of.array::<TimestampSecondType>(),
            DataType::Timestamp(TimeUnit::Millisecond, _) => of.array::<TimestampMillisecondType>(),
            DataType::Timestamp(TimeUnit::Microsecond, _) => of.array::<TimestampMicrosecondType>(),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => of.array::<TimestampNanosecondType>(),
            DataType::Float32 => of.array::<Float32Type>(),
            DataType::Float64 => of.array::<Float64Type>(),
            DataType::FixedSizeBinary(width) => {
                Arc::new(FixedSizeBinaryArray::try_new(*width, Buffer::from_vec(of.bytes), of.nulls).ok()?)
            }
            _ => return None,
        })
    }
}

/// Picked values: of null there are zeros, or no bytes.
struct Values {
    bytes: Vec<u8>,
    ends: Vec<i32>,
    valid: Vec<bool>,
    max_bytes: usize,
    /// They would have taken more than that: one value of a dictionary may be long, and many rows have it.
    is_too_much: bool,
}

impl Values {
    /// Takes the first of these values, each of this width.
    fn push_all(&mut self, values: &[u8], width: usize, rows: usize) -> Option<()> {
        let values = values.get(..rows.checked_mul(width)?)?;
        if self.bytes.len() + values.len() > self.max_bytes {
            self.is_too_much = true;
            return None;
        }
        self.valid.resize(self.valid.len() + rows, true);
        self.bytes.extend_from_slice(values);
        Some(())
    }

    fn push(&mut self, value: Option<&[u8]>, width: Option<usize>) -> Option<()> {
        if self.bytes.len() + value.map_or(0, <[u8]>::len) > self.max_bytes {
            self.is_too_much = true;
            return None;
        }
        self.valid.push(value.is_some());
        match (value, width) {
            (Some(value), _) => self.bytes.extend_from_slice(value),
            (None, Some(width)) => self.bytes.resize(self.bytes.len() + width, 0),
            (None, None) => {}
        }
        if width.is_none() {
            self.ends.push(i32::try_from(self.bytes.len()).ok()?);
        }
        Some(())
    }
}

/// Values of one width.
struct Plain<'a> {
    ty: &'a DataType,
    bytes: Vec<u8>,
    rows: usize,
    nulls: Option<NullBuffer>,
}

impl Plain<'_> {
    fn array<T: ArrowPrimitiveType>(self) -> ArrayRef {
        // A buffer of bytes may start anywhere, one of numbers may not; the file's order of bytes is the machine's.
        let buffer = Buffer::from_slice_ref(&self.bytes);
        let values = ScalarBuffer::<T::Native>::new(buffer, 0, self.rows);
        Arc::new(PrimitiveArray::<T>::new(values, self.nulls).with_data_type(self.ty.clone()))
    }
}
