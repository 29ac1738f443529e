//! One element of a file's schema: what thrift says of it, and the parquet crate's type for it.
//!
//! An annotation that is unknown, or that does not fit the physical type, is left out: the format wants readers to
//! ignore what they do not know, and the plain physical values are still right. So one odd column never costs the file.
//! Source: <https://github.com/apache/parquet-format/blob/master/LogicalTypes.md>.

use std::sync::Arc;

use parquet::basic::{ConvertedType, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::schema::types::{Type, TypePtr};

use super::Odd;
use crate::error::Error;
use crate::schema::Unit;
use crate::thrift::{BINARY, BYTE, FALSE, I32, Reader, STRUCT, TRUE};

/// Bytes of a FIXED_LEN_BYTE_ARRAY value. Arrow takes the full length for a null too, so a length of gigabytes would
/// cost as much for a row of nothing; writers use a few dozen, and KiBs for vectors.
const MAX_FIXED_BYTES: i32 = 1 << 20;
/// Digits of Arrow's widest decimal, and the bytes of its two's complement.
const MAX_DECIMAL_PRECISION: i32 = 76;
const MAX_DECIMAL_BYTES: i32 = 32;
/// Bytes of an INTERVAL: months, days and milliseconds.
const INTERVAL_BYTES: i32 = 12;

/// Units in the order of Arrow's `TimeUnit`.
const UNITS: [Unit; 4] = [Unit::Second, Unit::Millisecond, Unit::Microsecond, Unit::Nanosecond];
/// A field of our own in a `SchemaElement`, which every other reader passes over: the column is a duration of this
/// unit, counted as in Arrow's format (seconds 0 to nanoseconds 3).
const DURATION: i16 = 20_001;

/// A `SchemaElement` as the file has it.
#[derive(Default)]
pub(super) struct Element {
    /// Names that are no UTF-8 have replacement characters.
    pub(super) name: String,
    pub(super) children: Option<usize>,
    physical: Option<i32>,
    length: Option<i32>,
    repetition: Option<i32>,
    converted: Option<i32>,
    scale: i32,
    precision: i32,
    logical: Option<LogicalType>,
    /// See [`DURATION`].
    duration: Option<u8>,
}

impl Element {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let mut element = Self::default();
        reader.fields(|reader, id, ty| {
            match (id, ty) {
                (1, I32) => element.physical = Some(reader.i32()?),
                (2, I32) => element.length = Some(reader.i32()?),
                (3, I32) => element.repetition = Some(reader.i32()?),
                (4, BINARY) => element.name = String::from_utf8_lossy(reader.binary()?).into_owned(),
                (5, I32) => element.children = Some(reader.u32()? as usize),
                (6, I32) => element.converted = Some(reader.i32()?),
                (7, I32) => element.scale = reader.i32()?,
                (8, I32) => element.precision = reader.i32()?,
                (10, STRUCT) => element.logical = read_logical(reader)?,
                (DURATION, BYTE) => element.duration = Some(reader.byte()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(element)
    }

    /// A leaf's bytes with the mark that it is a duration. `bytes` are those that it was read from, with the stop byte
    /// at their end.
    pub(super) fn marked(bytes: &[u8], unit: Unit) -> Vec<u8> {
        let code = UNITS.iter().position(|known| *known == unit).unwrap_or_default();
        let mut marked = bytes[..bytes.len().saturating_sub(1)].to_vec();
        // A field header with its id written out: the type, then the id as a zigzag varint.
        marked.push(BYTE);
        let mut id = u32::from(DURATION.unsigned_abs()) << 1;
        while id >= 0x80 {
            marked.push(id as u8 | 0x80);
            id >>= 7;
        }
        marked.extend([id as u8, code as u8, 0]);
        marked
    }

    /// It has no children: values are stored for it.
    pub(super) fn is_leaf(&self) -> bool {
        self.children.unwrap_or(0) == 0 && !self.is_empty_group()
    }

    /// A group without fields: it holds no values, so it has no column chunks either.
    pub(super) fn is_empty_group(&self) -> bool {
        self.children == Some(0) && self.physical.is_none()
    }

    fn repetition(&self) -> Option<Repetition> {
        match self.repetition? {
            0 => Some(Repetition::REQUIRED),
            1 => Some(Repetition::OPTIONAL),
            2 => Some(Repetition::REPEATED),
            _ => None,
        }
    }

    /// Why nothing below this element can be read, if so.
    pub(super) fn defect(&self) -> Option<Odd> {
        self.repetition().is_none().then_some(Odd::NoRepetition)
    }

    /// The leaf's type, and what is odd about it.
    pub(super) fn leaf(&self) -> Result<(TypePtr, Option<Odd>), Error> {
        let (physical, mut odd) = match self.physical() {
            Ok(physical) => (physical, self.defect()),
            // Stands in for the column in the tree; it is never read.
            Err(odd) => (Physical::BYTE_ARRAY, Some(odd)),
        };
        if odd.is_none() && self.is_interval(physical) {
            odd = Some(Odd::Interval);
        }
        if odd.is_none() && physical == Physical::INT64 && self.converted.is_none() && self.logical.is_none() {
            odd = self.duration.and_then(|code| UNITS.get(usize::from(code))).map(|unit| Odd::Duration(*unit));
        }
        let plain = || {
            let builder = Type::primitive_type_builder(&self.name, physical);
            let builder = builder.with_repetition(self.repetition().unwrap_or(Repetition::OPTIONAL));
            builder.with_length(self.length.unwrap_or(-1)).with_precision(-1).with_scale(-1)
        };
        // The builder refuses annotations that do not fit the physical type.
        let logical = self.logical.clone().filter(|logical| self.can_be_converted(physical, logical));
        let logical = logical.and_then(|logical| {
            let (scale, precision) = match &logical {
                LogicalType::Decimal(decimal) => (decimal.scale, decimal.precision),
                _ => (-1, -1),
            };
            let builder = plain().with_scale(scale).with_precision(precision);
            builder.with_logical_type(Some(logical)).build().ok()
        });
        let converted = || {
            let converted = self.converted.and_then(converted_type).filter(|_| odd.is_none())?;
            if converted == ConvertedType::DECIMAL && !self.is_readable_decimal(physical, self.precision) {
                return None;
            }
            let builder = plain().with_scale(self.scale).with_precision(self.precision);
            builder.with_converted_type(converted).build().ok()
        };
        let ty = match logical.or_else(converted) {
            Some(ty) => ty,
            None => plain().build()?,
        };
        Ok((Arc::new(ty), odd))
    }

    fn physical(&self) -> Result<Physical, Odd> {
        Ok(match self.physical.ok_or(Odd::NoType)? {
            0 => Physical::BOOLEAN,
            1 => Physical::INT32,
            2 => Physical::INT64,
            3 => Physical::INT96,
            4 => Physical::FLOAT,
            5 => Physical::DOUBLE,
            6 => Physical::BYTE_ARRAY,
            7 => match self.length {
                Some(1..=MAX_FIXED_BYTES) => Physical::FIXED_LEN_BYTE_ARRAY,
                _ => return Err(Odd::BadLength),
            },
            _ => return Err(Odd::UnknownType),
        })
    }

    /// The parquet crate reads intervals as days and milliseconds and loses the months, so the annotation is left out
    /// of its schema and remembered.
    fn is_interval(&self, physical: Physical) -> bool {
        const INTERVAL: i32 = 21;
        physical == Physical::FIXED_LEN_BYTE_ARRAY
            && self.length == Some(INTERVAL_BYTES)
            && self.converted == Some(INTERVAL)
            && self.logical.is_none()
    }

    /// What the builder lets pass and the conversion to Arrow then refuses.
    fn can_be_converted(&self, physical: Physical, logical: &LogicalType) -> bool {
        match logical {
            LogicalType::Integer(int) => matches!(int.bit_width, 8 | 16 | 32 | 64),
            LogicalType::Decimal(decimal) => self.is_readable_decimal(physical, decimal.precision),
            _ => true,
        }
    }

    fn is_readable_decimal(&self, physical: Physical, precision: i32) -> bool {
        let fits = physical != Physical::FIXED_LEN_BYTE_ARRAY || self.length <= Some(MAX_DECIMAL_BYTES);
        fits && precision <= MAX_DECIMAL_PRECISION
    }

    /// The group's type. LIST and MAP are left out where the children have not the shape that they promise.
    pub(super) fn group(&self, fields: Vec<TypePtr>) -> Result<TypePtr, Error> {
        let repetition = self.repetition().unwrap_or(Repetition::OPTIONAL);
        let logical = match (&self.logical, self.converted.and_then(converted_type)) {
            (Some(LogicalType::List), _) | (None, Some(ConvertedType::LIST)) => Some(LogicalType::List),
            (Some(LogicalType::Map), _) | (None, Some(ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE)) => {
                Some(LogicalType::Map)
            }
            _ => None,
        };
        let fits = repetition != Repetition::REPEATED
            && match (&logical, fields.as_slice()) {
                (Some(LogicalType::List), [child]) => is_repeated(child),
                (Some(LogicalType::Map), [child]) => is_repeated(child) && holds_entries(child),
                _ => false,
            };
        let builder = Type::group_type_builder(&self.name).with_repetition(repetition).with_fields(fields);
        Ok(Arc::new(builder.with_logical_type(logical.filter(|_| fits)).build()?))
    }
}

fn is_repeated(ty: &Type) -> bool {
    ty.get_basic_info().has_repetition() && ty.get_basic_info().repetition() == Repetition::REPEATED
}

/// Keys alone, or keys and values.
fn holds_entries(entries: &Type) -> bool {
    entries.is_group()
        && match entries.get_fields() {
            [_] => true,
            [key, value] => !is_repeated(key) && !is_repeated(value),
            _ => false,
        }
}

fn converted_type(code: i32) -> Option<ConvertedType> {
    Some(match code {
        0 => ConvertedType::UTF8,
        1 => ConvertedType::MAP,
        2 => ConvertedType::MAP_KEY_VALUE,
        3 => ConvertedType::LIST,
        4 => ConvertedType::ENUM,
        5 => ConvertedType::DECIMAL,
        6 => ConvertedType::DATE,
        7 => ConvertedType::TIME_MILLIS,
        8 => ConvertedType::TIME_MICROS,
        9 => ConvertedType::TIMESTAMP_MILLIS,
        10 => ConvertedType::TIMESTAMP_MICROS,
        11 => ConvertedType::UINT_8,
        12 => ConvertedType::UINT_16,
        13 => ConvertedType::UINT_32,
        14 => ConvertedType::UINT_64,
        15 => ConvertedType::INT_8,
        16 => ConvertedType::INT_16,
        17 => ConvertedType::INT_32,
        18 => ConvertedType::INT_64,
        19 => ConvertedType::JSON,
        20 => ConvertedType::BSON,
        // 21 is INTERVAL, see `is_interval`.
        _ => return None,
    })
}

/// The union `LogicalType`; none for members that change nothing here (GEOMETRY, VARIANT, ...) or that later versions
/// define.
fn read_logical(reader: &mut Reader<'_>) -> Result<Option<LogicalType>, Error> {
    let mut logical = None;
    reader.fields(|reader, id, ty| {
        if ty != STRUCT {
            return Ok(false);
        }
        logical = match id {
            5 => read_decimal(reader)?,
            7 => read_time(reader)?.map(|(utc, unit)| LogicalType::time(utc, unit)),
            8 => read_time(reader)?.map(|(utc, unit)| LogicalType::timestamp(utc, unit)),
            10 => read_integer(reader)?,
            plain => {
                reader.skip(STRUCT)?;
                plain_logical(plain)
            }
        };
        Ok(true)
    })?;
    Ok(logical)
}

fn plain_logical(member: i16) -> Option<LogicalType> {
    Some(match member {
        1 => LogicalType::String,
        2 => LogicalType::Map,
        3 => LogicalType::List,
        4 => LogicalType::Enum,
        6 => LogicalType::Date,
        11 => LogicalType::Unknown,
        12 => LogicalType::Json,
        13 => LogicalType::Bson,
        14 => LogicalType::Uuid,
        15 => LogicalType::Float16,
        _ => return None,
    })
}

fn read_decimal(reader: &mut Reader<'_>) -> Result<Option<LogicalType>, Error> {
    let (mut scale, mut precision) = (None, None);
    reader.fields(|reader, id, ty| {
        match (id, ty) {
            (1, I32) => scale = Some(reader.i32()?),
            (2, I32) => precision = Some(reader.i32()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(scale.zip(precision).map(|(scale, precision)| LogicalType::decimal(scale, precision)))
}

/// TIME and TIMESTAMP: whether they are adjusted to UTC, and their unit.
fn read_time(reader: &mut Reader<'_>) -> Result<Option<(bool, TimeUnit)>, Error> {
    let (mut utc, mut unit) = (None, None);
    reader.fields(|reader, id, ty| {
        match (id, ty) {
            (1, TRUE | FALSE) => utc = Some(ty == TRUE),
            (2, STRUCT) => {
                reader.fields(|_, id, _| {
                    unit = match id {
                        1 => Some(TimeUnit::MILLIS),
                        2 => Some(TimeUnit::MICROS),
                        3 => Some(TimeUnit::NANOS),
                        _ => None,
                    };
                    Ok(false)
                })?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(utc.zip(unit))
}

fn read_integer(reader: &mut Reader<'_>) -> Result<Option<LogicalType>, Error> {
    let (mut width, mut signed) = (None, None);
    reader.fields(|reader, id, ty| {
        match (id, ty) {
            (1, BYTE) => width = Some(reader.byte()? as i8),
            (2, TRUE | FALSE) => signed = Some(ty == TRUE),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(width.zip(signed).map(|(width, signed)| LogicalType::integer(width, signed)))
}
