//! The key's value inside a stored row: compared with a key, and brought to the codes by which blocks are found.
//!
//! A code is a number that never grows smaller as values grow: values may share one, so that bounds made of codes say
//! "may be here" too often, never too rarely. Numbers of up to 64 bits have a code of their own; of all others the
//! first 16 bytes count, after a prefix that a stretch of rows has in common.

use crate::error::Error;
use crate::key_column::KeyColumn;
use crate::prepared::KeyPoint;
use crate::probe::Point;
use crate::ready::fields::{Extent, uvarint};
use crate::schema::Type;

/// Bytes of a value that a wide code holds.
pub(crate) const WIDE_BYTES: usize = 16;
/// Decimals of at most this many digits fit 64 bits.
const DECIMAL64_PRECISION: u8 = 18;

/// How a key column's values are stored, compared and coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyField {
    kind: Kind,
    /// Bytes of a value of fixed length.
    width: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Two's complement, little-endian, of at most 64 bits.
    Signed,
    /// The same, wider: decimals.
    WideSigned,
    Unsigned,
    Float,
    /// Bytes of a fixed length.
    Fixed,
    /// Bytes with their length in front.
    Counted,
    /// All values are null.
    Nothing,
}

/// A value as bytes that sort like it.
pub(crate) enum Sorted<'a> {
    Borrowed(&'a [u8]),
    Owned([u8; 32], usize),
}

impl Sorted<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes, length) => &bytes[..*length],
        }
    }
}

/// What a value is found by.
pub(crate) enum Code<'a> {
    Word(u64),
    Wide(Sorted<'a>),
}

impl KeyField {
    /// # Errors
    /// [`Error::Unsupported`] for a column that holds no single values.
    pub(crate) fn new(column: &KeyColumn) -> Result<Self, Error> {
        let kind = match &column.ty {
            Type::UInt8 | Type::UInt16 | Type::UInt32 | Type::UInt64 | Type::Bool => Kind::Unsigned,
            Type::Int8 | Type::Int16 | Type::Int32 | Type::Int64 | Type::Date32 => Kind::Signed,
            Type::Time(_) | Type::Timestamp { .. } | Type::Duration(_) => Kind::Signed,
            Type::Decimal { precision, .. } if *precision <= DECIMAL64_PRECISION => Kind::Signed,
            Type::Decimal { .. } => Kind::WideSigned,
            Type::Float16 | Type::Float32 | Type::Float64 => Kind::Float,
            Type::Fixed(_) | Type::Uuid | Type::Interval => Kind::Fixed,
            Type::String | Type::Binary => Kind::Counted,
            Type::Null => Kind::Nothing,
            ty @ (Type::List(_) | Type::Struct(_) | Type::Map(..)) => {
                return Err(Error::Unsupported(format!(
                    "column `{}` is a {ty}: a key column holds single values",
                    column.name
                )));
            }
        };
        let width = match Extent::of(&column.ty) {
            Extent::Fixed(width) => width,
            _ => 0,
        };
        Ok(Self { kind, width })
    }

    /// Codes of 64 bits; else wide ones.
    pub(crate) fn is_word(self) -> bool {
        matches!(self.kind, Kind::Signed | Kind::Unsigned | Kind::Float | Kind::Nothing)
    }

    /// The value's bytes at the start of `bytes`, without a length.
    #[inline]
    pub(crate) fn value(self, bytes: &[u8]) -> Option<&[u8]> {
        match self.kind {
            Kind::Counted => {
                let (length, at) = uvarint(bytes, 0)?;
                bytes.get(at..at.checked_add(length)?)
            }
            Kind::Nothing => None,
            _ => bytes.get(..self.width),
        }
    }

    /// The code of a value as [`KeyField::value`] gives it; none where no key equals it.
    pub(crate) fn code(self, value: &[u8]) -> Option<Code<'_>> {
        Some(match self.kind {
            Kind::Signed => Code::Word(word_of_int(signed(value)?)),
            Kind::Unsigned => Code::Word(unsigned(value)?),
            Kind::Float => {
                let value = float(value)?;
                if value.is_nan() {
                    return None;
                }
                Code::Word(word_of_float(value))
            }
            Kind::WideSigned => {
                let mut sorted = [0; 32];
                let length = value.len().min(sorted.len());
                for (to, from) in sorted.iter_mut().zip(value.iter().rev()) {
                    *to = *from;
                }
                sorted[0] ^= 0x80;
                Code::Wide(Sorted::Owned(sorted, length))
            }
            Kind::Fixed | Kind::Counted => Code::Wide(Sorted::Borrowed(value)),
            Kind::Nothing => return None,
        })
    }

    /// The code of a key; none where it is null or where no value of this column equals it.
    pub(crate) fn code_of_key(self, key: &KeyPoint) -> Option<Code<'_>> {
        Some(match (self.kind, key.point()?) {
            (Kind::Signed, Point::Int(value)) => Code::Word(word_of_int(i64::try_from(*value).ok()?.into())),
            (Kind::Unsigned, Point::Int(value)) => Code::Word(u64::try_from(*value).ok()?),
            (Kind::Float, Point::Float(value)) => Code::Word(word_of_float(*value)),
            (Kind::WideSigned, Point::Int(value)) => {
                let mut sorted = [0; 32];
                sorted[..16].copy_from_slice(&value.to_be_bytes());
                sorted[0] ^= 0x80;
                Code::Wide(Sorted::Owned(sorted, 16))
            }
            // Of decimals these bytes sort like the numbers already.
            (Kind::WideSigned | Kind::Fixed | Kind::Counted, Point::Bytes(bytes)) => {
                Code::Wide(Sorted::Borrowed(bytes))
            }
            _ => return None,
        })
    }

    /// What stored values are compared with.
    pub(crate) fn needle(self, key: &KeyPoint) -> Needle<'_> {
        let Some(point) = key.point() else { return Needle::Null };
        match (self.kind, point) {
            (Kind::Signed | Kind::WideSigned, Point::Int(value)) => {
                let bytes = value.to_le_bytes();
                let fill = if *value < 0 { 0xff } else { 0 };
                let width = self.width.min(bytes.len());
                let fits = bytes[width..].iter().all(|byte| *byte == fill)
                    && (width == bytes.len() || bytes[width - 1] & 0x80 == fill & 0x80);
                if fits { Needle::exact(&bytes[..width]) } else { Needle::Never }
            }
            (Kind::Unsigned, Point::Int(value)) => {
                let bytes = value.to_le_bytes();
                let width = self.width.min(bytes.len());
                if bytes[width..].iter().all(|byte| *byte == 0) {
                    Needle::exact(&bytes[..width])
                } else {
                    Needle::Never
                }
            }
            (Kind::Float, Point::Float(value)) => Needle::Float { value: *value, width: self.width },
            (Kind::WideSigned, Point::Bytes(sorted)) if sorted.len() == self.width => {
                let mut bytes: [u8; 32] = [0; 32];
                for (to, from) in bytes.iter_mut().zip(sorted.iter().rev()) {
                    *to = *from;
                }
                bytes[self.width - 1] ^= 0x80;
                Needle::Exact(bytes, self.width)
            }
            (Kind::Fixed, Point::Bytes(bytes)) if bytes.len() == self.width => Needle::Bytes(bytes),
            (Kind::Counted, Point::Bytes(bytes)) => Needle::Counted(bytes),
            _ => Needle::Never,
        }
    }
}

/// A key as the bytes of stored values are compared with it.
pub(crate) enum Needle<'a> {
    Null,
    /// A number's bytes.
    Exact([u8; 32], usize),
    /// Compared as a number: -0.0 equals 0.0, and NaN equals nothing.
    Float {
        value: f64,
        width: usize,
    },
    /// Bytes of a fixed length.
    Bytes(&'a [u8]),
    /// Bytes with their length in front.
    Counted(&'a [u8]),
    /// No value equals it.
    Never,
}

impl Needle<'_> {
    fn exact(bytes: &[u8]) -> Self {
        let mut exact = [0; 32];
        exact[..bytes.len()].copy_from_slice(bytes);
        Self::Exact(exact, bytes.len())
    }

    /// Whether the value at the start of `bytes` equals the key; none where it is beyond the bytes.
    #[inline]
    pub(crate) fn equals(&self, bytes: &[u8]) -> Option<bool> {
        Some(match self {
            Self::Exact(exact, length) => bytes.get(..*length)? == &exact[..*length],
            Self::Float { value, width } => float(bytes.get(..*width)?)? == *value,
            Self::Bytes(key) => bytes.get(..key.len())? == *key,
            Self::Counted(key) => {
                let (length, at) = uvarint(bytes, 0)?;
                bytes.get(at..at.checked_add(length)?)? == *key
            }
            Self::Null | Self::Never => false,
        })
    }
}

/// A number of at most 16 bytes.
fn signed(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.last()? & 0x80 != 0;
    let mut wide = [if negative { 0xff } else { 0 }; 16];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i128::from_le_bytes(wide))
}

fn unsigned(bytes: &[u8]) -> Option<u64> {
    let mut wide = [0; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(u64::from_le_bytes(wide))
}

fn float(bytes: &[u8]) -> Option<f64> {
    Some(match bytes.len() {
        2 => half::f16::from_le_bytes(bytes.try_into().ok()?).to_f64(),
        4 => f32::from_le_bytes(bytes.try_into().ok()?).into(),
        8 => f64::from_le_bytes(bytes.try_into().ok()?),
        _ => return None,
    })
}

/// Files may hold decimals of more digits than they declare: what is beyond 64 bits is brought to the nearest end.
fn word_of_int(value: i128) -> u64 {
    let clamped = value.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
    (clamped as u64) ^ 1 << 63
}

/// Floats that are not NaN, as numbers in their order.
fn word_of_float(value: f64) -> u64 {
    // Adding 0.0 turns -0.0 into 0.0.
    let bits = (value + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// The first bytes of a value as a number.
pub(crate) fn wide_code(bytes: &[u8]) -> u128 {
    let mut first = [0; WIDE_BYTES];
    let length = bytes.len().min(WIDE_BYTES);
    first[..length].copy_from_slice(&bytes[..length]);
    u128::from_be_bytes(first)
}
