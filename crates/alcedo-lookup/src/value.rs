//! Values of a row, as the client hands them out.
//!
//! A value stands apart from its [`Type`](crate::schema::Type): timestamps, dates and times are counts in
//! the unit that the type names.

use bytes::Bytes;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// SQL null.
    Null,
    /// `bool`.
    Bool(bool),
    /// `int8` to `int64`; `date32` (days), `time`, `timestamp` and `duration` (counts of the type's unit).
    Int(i64),
    /// `uint8` to `uint64`.
    UInt(u64),
    /// `float16` and `float32`.
    Float32(f32),
    /// `float64`.
    Float64(f64),
    /// `decimal`: plain digits with the type's scale, for instance `-12.50`.
    Decimal(Box<str>),
    /// `string`.
    String(String),
    /// `binary`, `fixed` and `interval`.
    Binary(Bytes),
    /// `uuid`, in the order it is written.
    Uuid([u8; 16]),
    /// `list`.
    List(Vec<Value>),
    /// `struct`, in the order of the type's fields.
    Struct(Vec<Value>),
    /// `map`, in file order; Parquet does not promise distinct keys.
    Map(Vec<(Value, Value)>),
}

/// The digits of `unscaled * 10^-scale`, without an exponent. `unscaled` is two's complement, little-endian, of any
/// length.
pub fn decimal_text(unscaled_le: &[u8], scale: i8) -> String {
    let negative = unscaled_le.last().is_some_and(|top| top & 0x80 != 0);
    let mut magnitude = unscaled_le.to_vec();
    if negative {
        negate(&mut magnitude);
    }
    let mut digits = decimal_digits(magnitude);
    let scale = i32::from(scale);
    if scale < 0 && digits != "0" {
        digits.extend(std::iter::repeat_n('0', scale.unsigned_abs() as usize));
    }
    if scale > 0 {
        let scale = scale.unsigned_abs() as usize;
        if digits.len() <= scale {
            digits.insert_str(0, &"0".repeat(scale + 1 - digits.len()));
        }
        digits.insert(digits.len() - scale, '.');
    }
    if negative {
        digits.insert(0, '-');
    }
    digits
}

/// Two's complement negation in place.
fn negate(bytes_le: &mut [u8]) {
    let mut carry = true;
    for byte in bytes_le {
        let (sum, overflow) = (!*byte).overflowing_add(u8::from(carry));
        *byte = sum;
        carry = overflow;
    }
}

/// Unsigned little-endian bytes as decimal digits, by repeated division: values have at most 32 bytes.
fn decimal_digits(mut magnitude_le: Vec<u8>) -> String {
    let mut digits = Vec::new();
    while magnitude_le.last() == Some(&0) {
        magnitude_le.pop();
    }
    while !magnitude_le.is_empty() {
        let mut remainder = 0_u16;
        for byte in magnitude_le.iter_mut().rev() {
            let part = remainder << 8 | u16::from(*byte);
            *byte = (part / 10) as u8;
            remainder = part % 10;
        }
        digits.push(b'0' + remainder as u8);
        while magnitude_le.last() == Some(&0) {
            magnitude_le.pop();
        }
    }
    if digits.is_empty() {
        digits.push(b'0');
    }
    digits.iter().rev().map(|digit| char::from(*digit)).collect()
}

/// A UUID as it is written, 8-4-4-4-12 (RFC 9562).
pub fn uuid_text(uuid: &[u8; 16]) -> String {
    let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_every_digit_and_the_scale() {
        let cases: [(i128, i8, &str); 7] = [
            (1250, 2, "12.50"),
            (-5, 2, "-0.05"),
            (0, 2, "0.00"),
            (7, 0, "7"),
            (7, -2, "700"),
            (i128::MIN, 0, "-170141183460469231731687303715884105728"),
            (i128::MAX, 38, "1.70141183460469231731687303715884105727"),
        ];
        for (unscaled, scale, text) in cases {
            assert_eq!(decimal_text(&unscaled.to_le_bytes(), scale), text);
        }
    }

    #[test]
    fn uuids_read_as_they_are_written() {
        let bytes: [u8; 16] = std::array::from_fn(|i| i as u8);
        assert_eq!(uuid_text(&bytes), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    }
}
