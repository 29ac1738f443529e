//! Decimals that a file stores as byte arrays of any length.
//!
//! The parquet crate reads up to 16 or 32 bytes and panics over more, though leading zeros and signs may be any number.
//! So their bytes are read as they are and become decimals here.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, Decimal128Array, Decimal256Array};
use arrow_buffer::i256;
use arrow_schema::DataType;
use parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use parquet::schema::types::Type;

use crate::error::Error;
use crate::rows::DECIMAL128_PRECISION;

/// Most digits of a decimal.
const MAX_PRECISION: u8 = 76;

/// The Arrow type of a leaf that is such a decimal.
pub(crate) fn decimal_type(leaf: &Type) -> Option<DataType> {
    if !leaf.is_primitive() || leaf.get_physical_type() != Physical::BYTE_ARRAY {
        return None;
    }
    let info = leaf.get_basic_info();
    let (precision, scale) = match (info.logical_type_ref(), info.converted_type()) {
        (Some(LogicalType::Decimal(decimal)), _) => (decimal.precision, decimal.scale),
        (None, ConvertedType::DECIMAL) => (leaf.get_precision(), leaf.get_scale()),
        _ => return None,
    };
    let precision = u8::try_from(precision).ok().filter(|precision| (1..=MAX_PRECISION).contains(precision))?;
    let scale = i8::try_from(scale).ok()?;
    Some(match precision {
        0..=DECIMAL128_PRECISION => DataType::Decimal128(precision, scale),
        _ => DataType::Decimal256(precision, scale),
    })
}

/// Byte arrays as decimals of the type.
///
/// # Errors
/// A value of more digits than the type can hold.
pub(crate) fn to_decimals(array: &ArrayRef, ty: &DataType) -> Result<ArrayRef, Error> {
    let bytes = array.as_binary_opt::<i32>().ok_or_else(|| Error::corrupt("decimals that are no bytes"))?;
    let too_long = || Error::corrupt(format!("a value that {ty} cannot hold"));
    let broken = |error: arrow_schema::ArrowError| Error::corrupt(error.to_string());
    Ok(match ty {
        DataType::Decimal128(precision, scale) => {
            let value = |value: &[u8]| extended::<16>(value).map(i128::from_be_bytes).ok_or_else(too_long);
            let values: Decimal128Array =
                bytes.iter().map(|bytes| bytes.map(value).transpose()).collect::<Result<_, _>>()?;
            Arc::new(values.with_precision_and_scale(*precision, *scale).map_err(broken)?)
        }
        DataType::Decimal256(precision, scale) => {
            let value = |value: &[u8]| extended::<32>(value).map(i256::from_be_bytes).ok_or_else(too_long);
            let values: Decimal256Array =
                bytes.iter().map(|bytes| bytes.map(value).transpose()).collect::<Result<_, _>>()?;
            Arc::new(values.with_precision_and_scale(*precision, *scale).map_err(broken)?)
        }
        _ => array.clone(),
    })
}

/// Big-endian two's complement in N bytes; none where it does not fit. No bytes are zero.
fn extended<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    let (extra, kept) = bytes.split_at(bytes.len().saturating_sub(N));
    let mut extended = [fill; N];
    extended[N - kept.len()..].copy_from_slice(kept);
    let fits = extra.iter().all(|byte| *byte == fill) && (extended[0] & 0x80 != 0) == negative;
    fits.then_some(extended)
}
