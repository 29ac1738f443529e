//! Keys and stored values brought to one form in which they compare: a [`Point`] in the column's domain.
//!
//! A key that is outside the column's range is [`Probe::Never`]: no row has it, and that is an answer, not an error.
//! Floating point compares as numbers: -0.0 equals 0.0, and NaN equals nothing.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

use crate::error::Error;
use crate::key::Key;
use crate::schema::{Type, Unit};
use crate::value::uuid_text;

/// A value of a key column. Points of one column are all of one variant and ordered as Parquet orders the column's
/// type.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
pub(crate) enum Point {
    /// Booleans, integers, dates, times, timestamps and decimals (unscaled) up to 38 digits.
    Int(i128),
    /// Floating point; never NaN, never -0.0.
    Float(f64),
    /// Strings, binary, fixed, UUID, and wider decimals in an order-preserving form.
    Bytes(Box<[u8]>),
}

impl Point {
    pub(crate) fn float(value: f64) -> Option<Self> {
        // Adding 0.0 turns -0.0 into 0.0.
        (!value.is_nan()).then_some(Self::Float(value + 0.0))
    }

    /// A decimal's unscaled value from big-endian two's complement, as Parquet stores it in byte arrays.
    pub(crate) fn decimal_bytes(bytes: &[u8], precision: u8) -> Option<Self> {
        let negative = bytes.first().is_some_and(|top| top & 0x80 != 0);
        if precision <= crate::rows::DECIMAL128_PRECISION {
            return sign_extended::<16>(bytes, negative).map(|bytes| Self::Int(i128::from_be_bytes(bytes)));
        }
        // Flipping the sign bit makes two's complement sort as bytes.
        let mut wide = sign_extended::<32>(bytes, negative)?;
        wide[0] ^= 0x80;
        Some(Self::Bytes(wide.into()))
    }
}

/// Big-endian two's complement brought to N bytes; none when the value does not fit.
fn sign_extended<const N: usize>(bytes: &[u8], negative: bool) -> Option<[u8; N]> {
    let fill = if negative { 0xff } else { 0 };
    let (extra, kept) = bytes.split_at(bytes.len().saturating_sub(N));
    if extra.iter().any(|byte| *byte != fill) {
        return None;
    }
    let mut wide = [fill; N];
    wide[N - kept.len()..].copy_from_slice(kept);
    ((wide[0] & 0x80 != 0) == negative).then_some(wide)
}

/// A key as its column sees it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Probe {
    /// Rows that hold exactly this.
    Point(Point),
    /// Rows that hold null.
    Null,
    /// No row can hold it.
    Never,
}

/// Converts a key for a column of type `ty`: exactly or not at all.
///
/// # Errors
/// [`Error::BadKey`] when the key cannot be read as the type.
pub(crate) fn probe(key: &Key, ty: &Type, column: &str) -> Result<Probe, Error> {
    if *key == Key::Null {
        return Ok(Probe::Null);
    }
    if let Key::Float(value) = key
        && value.is_nan()
    {
        return Ok(Probe::Never);
    }
    let converted = match ty {
        Type::Bool => to_bool(key),
        Type::Int8 => to_int(key, i8::MIN.into(), i8::MAX.into()),
        Type::Int16 => to_int(key, i16::MIN.into(), i16::MAX.into()),
        Type::Int32 => to_int(key, i32::MIN.into(), i32::MAX.into()),
        Type::Int64 | Type::Duration(_) => to_int(key, i64::MIN.into(), i64::MAX.into()),
        Type::UInt8 => to_int(key, 0, u8::MAX.into()),
        Type::UInt16 => to_int(key, 0, u16::MAX.into()),
        Type::UInt32 => to_int(key, 0, u32::MAX.into()),
        Type::UInt64 => to_int(key, 0, u64::MAX.into()),
        Type::Float16 => {
            to_float(key, |text| text.parse::<half::f16>().ok().map(f64::from), |v| half::f16::from_f64(v).to_f64())
        }
        Type::Float32 => to_float(key, |text| text.parse::<f32>().ok().map(f64::from), |v| f64::from(v as f32)),
        Type::Float64 => to_float(key, |text| text.parse().ok(), |v| v),
        Type::String => to_bytes(key, None, |text| Some(text.as_bytes().to_vec())),
        Type::Binary => to_bytes(key, None, binary_text),
        Type::Fixed(length) => to_bytes(key, Some(*length as usize), binary_text),
        Type::Interval => to_bytes(key, Some(12), binary_text),
        Type::Uuid => to_bytes(key, Some(16), parse_uuid),
        Type::Decimal { precision, scale } => to_decimal(key, *precision, *scale),
        Type::Date32 => to_count(key, i32::MIN.into(), i32::MAX.into(), parse_date),
        Type::Time(unit) => to_count(key, 0, i64::MAX.into(), |text| parse_time(text, *unit)),
        Type::Timestamp { unit, utc } => to_timestamp(key, (*unit, *utc), (i64::MIN.into(), i64::MAX.into())),
        Type::Null => Some(Probe::Never),
        Type::List(_) | Type::Struct(_) | Type::Map(..) => {
            return Err(Error::Unsupported(format!("column `{column}` is a {ty}: a key column holds single values")));
        }
    };
    converted.ok_or_else(|| Error::BadKey {
        key: key.to_string(),
        ty: ty.to_string(),
        column: column.to_owned(),
        wanted: wanted(ty).to_owned(),
    })
}

/// Converts a key for an INT96 column, whose timestamps are nanoseconds but reach further than 64 bits of them do.
///
/// # Errors
/// [`Error::BadKey`] when the key cannot be read as a timestamp.
pub(crate) fn probe_int96(key: &Key, column: &str) -> Result<Probe, Error> {
    let ty = Type::Timestamp { unit: Unit::Nanosecond, utc: false };
    match key {
        Key::Text(_) => to_timestamp(key, (Unit::Nanosecond, false), (i128::MIN, i128::MAX))
            .map_or_else(|| probe(key, &ty, column), Ok),
        _ => probe(key, &ty, column),
    }
}

fn wanted(ty: &Type) -> &'static str {
    match ty {
        Type::Bool => "write true or false",
        Type::Float16 | Type::Float32 | Type::Float64 => "write a number",
        Type::String => "give text",
        Type::Binary | Type::Fixed(_) | Type::Interval => "write text, base64:… or hex:…",
        Type::Uuid => "write 8-4-4-4-12 hexadecimal digits",
        Type::Decimal { .. } => "write a number without exponent",
        Type::Date32 => "write YYYY-MM-DD or a count of days",
        Type::Time(_) => "write HH:MM:SS[.fraction] or a count of the unit",
        Type::Timestamp { utc: true, .. } => "write YYYY-MM-DDTHH:MM:SS[.fraction][Z or offset] or a count of the unit",
        Type::Timestamp { utc: false, .. } => "write YYYY-MM-DDTHH:MM:SS[.fraction] or a count of the unit",
        _ => "write a whole number",
    }
}

fn to_bool(key: &Key) -> Option<Probe> {
    match key {
        Key::Bool(value) => Some(int(i128::from(*value))),
        Key::Text(text) => match text.as_str() {
            "true" | "1" => Some(int(1)),
            "false" | "0" => Some(int(0)),
            _ => None,
        },
        _ => None,
    }
}

fn int(value: i128) -> Probe {
    Probe::Point(Point::Int(value))
}

fn within(value: i128, min: i128, max: i128) -> Probe {
    if (min..=max).contains(&value) { int(value) } else { Probe::Never }
}

fn to_int(key: &Key, min: i128, max: i128) -> Option<Probe> {
    match key {
        Key::Text(text) => parse_int(text, min, max),
        Key::Int(value) => Some(within((*value).into(), min, max)),
        Key::UInt(value) => Some(within((*value).into(), min, max)),
        // Every whole f64 below 2^127 converts exactly.
        Key::Float(value) if value.fract() == 0.0 => {
            Some(if value.abs() < 1e38 { within(*value as i128, min, max) } else { Probe::Never })
        }
        Key::Float(_) => Some(Probe::Never),
        _ => None,
    }
}

/// Whole numbers of any length: what does not fit 128 bits fits no column.
fn parse_int(text: &str, min: i128, max: i128) -> Option<Probe> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse::<i128>().map_or(Probe::Never, |value| within(value, min, max)))
}

/// `round` is the nearest value of the column's width: a key that it changes is in no row.
fn to_float(key: &Key, parse: impl Fn(&str) -> Option<f64>, round: impl Fn(f64) -> f64) -> Option<Probe> {
    let value = match key {
        Key::Text(text) => return parse(text).map(|value| Point::float(value).map_or(Probe::Never, Probe::Point)),
        Key::Float(value) => *value,
        Key::Int(value) if i128::from(*value) == (*value as f64) as i128 => *value as f64,
        Key::UInt(value) if i128::from(*value) == (*value as f64) as i128 => *value as f64,
        Key::Int(_) | Key::UInt(_) => return Some(Probe::Never),
        _ => return None,
    };
    let exact = round(value) == value;
    Some(Point::float(value).filter(|_| exact).map_or(Probe::Never, Probe::Point))
}

fn to_bytes(key: &Key, length: Option<usize>, parse: impl Fn(&str) -> Option<Vec<u8>>) -> Option<Probe> {
    let bytes = match key {
        Key::Text(text) => parse(text)?,
        Key::Bytes(bytes) => bytes.to_vec(),
        _ => return None,
    };
    if length.is_some_and(|length| bytes.len() != length) {
        return Some(Probe::Never);
    }
    Some(Probe::Point(Point::Bytes(bytes.into())))
}

fn binary_text(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    if let Some(encoded) = text.strip_prefix("base64:") {
        return base64::engine::general_purpose::STANDARD.decode(encoded).ok();
    }
    match text.strip_prefix("hex:") {
        Some(digits) => hex_bytes(digits),
        None => Some(text.as_bytes().to_vec()),
    }
}

fn hex_bytes(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}

fn parse_uuid(text: &str) -> Option<Vec<u8>> {
    let bytes = hex_bytes(&text.replace('-', ""))?;
    let array: [u8; 16] = bytes.try_into().ok()?;
    let lower = text.to_ascii_lowercase();
    let written = uuid_text(&array);
    (lower == written || lower == written.replace('-', "")).then(|| array.to_vec())
}

fn to_decimal(key: &Key, precision: u8, scale: i8) -> Option<Probe> {
    let text = match key {
        Key::Text(text) => text.clone(),
        Key::Int(value) => value.to_string(),
        Key::UInt(value) => value.to_string(),
        // The shortest digits that mean this float; an exponent is never printed.
        Key::Float(value) if value.is_finite() => value.to_string(),
        Key::Float(_) => return Some(Probe::Never),
        _ => return None,
    };
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(&text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit());
    if !all_digits || whole.len() + fraction.len() == 0 {
        return None;
    }
    Some(unscaled(whole, fraction, scale).map_or(Probe::Never, |digits| {
        if digits.len() > usize::from(precision) {
            return Probe::Never;
        }
        let bytes = decimal_be_bytes(&digits, negative);
        Point::decimal_bytes(&bytes, precision).map_or(Probe::Never, Probe::Point)
    }))
}

/// The digits of `whole.fraction * 10^scale`; none when that is not whole.
fn unscaled(whole: &str, fraction: &str, scale: i8) -> Option<String> {
    let fraction = fraction.trim_end_matches('0');
    let shift = i32::from(scale) - i32::try_from(fraction.len()).ok()?;
    let mut digits = format!("{whole}{fraction}");
    if shift >= 0 {
        digits.push_str(&"0".repeat(shift.unsigned_abs() as usize));
    } else {
        let dropped = shift.unsigned_abs() as usize;
        let zeros = digits.len() - digits.trim_end_matches('0').len();
        let only_zeros = digits.bytes().all(|b| b == b'0');
        if only_zeros {
            return Some(String::new());
        }
        if dropped > zeros {
            return None;
        }
        digits.truncate(digits.len() - dropped);
    }
    Some(digits.trim_start_matches('0').to_owned())
}

/// Decimal digits as big-endian two's complement of 33 bytes, which holds any 76-digit value with its sign.
fn decimal_be_bytes(digits: &str, negative: bool) -> [u8; 33] {
    let mut bytes = [0_u8; 33];
    for digit in digits.bytes().take(77) {
        let mut carry = u16::from(digit - b'0');
        for byte in bytes.iter_mut().rev() {
            let value = u16::from(*byte) * 10 + carry;
            *byte = value as u8;
            carry = value >> 8;
        }
    }
    if negative {
        let mut carry = true;
        for byte in bytes.iter_mut().rev() {
            let (value, overflow) = (!*byte).overflowing_add(u8::from(carry));
            *byte = value;
            carry = overflow;
        }
    }
    bytes
}

/// Dates, times and timestamps: a count as an integer, or text that `parse` reads.
fn to_count(key: &Key, min: i128, max: i128, parse: impl Fn(&str) -> Option<Probe>) -> Option<Probe> {
    match key {
        Key::Text(text) => parse_int(text, min, max).or_else(|| parse(text)),
        Key::Int(_) | Key::UInt(_) => to_int(key, min, max),
        _ => None,
    }
}

fn parse_date(text: &str) -> Option<Probe> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(int(date.signed_duration_since(NaiveDate::default()).num_days().into()))
}

fn parse_time(text: &str, unit: Unit) -> Option<Probe> {
    let time = NaiveTime::parse_from_str(text, "%H:%M:%S%.f").ok()?;
    Some(in_unit(time.num_seconds_from_midnight().into(), time.nanosecond(), unit, (0, i64::MAX.into())))
}

/// A timestamp that must be within `range`, in the column's unit.
fn to_timestamp(key: &Key, (unit, utc): (Unit, bool), range: (i128, i128)) -> Option<Probe> {
    to_count(key, range.0, range.1, |text| parse_timestamp(text, (unit, utc), range))
}

fn parse_timestamp(text: &str, (unit, utc): (Unit, bool), range: (i128, i128)) -> Option<Probe> {
    let text = text.replacen(' ', "T", 1);
    if let Ok(instant) = DateTime::parse_from_rfc3339(&text) {
        // A local timestamp is no instant: an offset would silently be dropped.
        return utc.then(|| in_unit(instant.timestamp(), instant.timestamp_subsec_nanos(), unit, range));
    }
    let local = NaiveDateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M:%S%.f")
        .ok()
        .or_else(|| NaiveDate::parse_from_str(&text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))?;
    let local = local.and_utc();
    Some(in_unit(local.timestamp(), local.timestamp_subsec_nanos(), unit, range))
}

/// Seconds and nanoseconds as a count of `unit` within `range`; finer than the unit is a value that no row has.
fn in_unit(seconds: i64, nanoseconds: u32, unit: Unit, (min, max): (i128, i128)) -> Probe {
    let per_second = i128::from(unit.per_second());
    let nanoseconds_per_unit = 1_000_000_000 / per_second;
    let fraction = i128::from(nanoseconds);
    if fraction % nanoseconds_per_unit != 0 {
        return Probe::Never;
    }
    within(i128::from(seconds) * per_second + fraction / nanoseconds_per_unit, min, max)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn text(key: &str, ty: &str) -> Result<Probe, String> {
        probe(&Key::from(key), &ty.parse().unwrap(), "c").map_err(|e| e.to_string())
    }

    #[test]
    fn text_is_read_by_the_columns_type() {
        assert_eq!(text("123", "int64"), Ok(int(123)));
        assert_eq!(text("2026-01-31", "date32"), Ok(int(20_484)));
        assert_eq!(text("00:00:01.5", "time[ms]"), Ok(int(1_500)));
        assert_eq!(text("1970-01-01T00:00:01+01:00", "timestamp[s,UTC]"), Ok(int(-3_599)));
        assert_eq!(text("1970-01-01 00:00:00.000002", "timestamp[us]"), Ok(int(2)));
        assert_eq!(text("12.5", "decimal(9,2)"), Ok(int(1_250)));
        assert_eq!(text("-12.50000", "decimal(9,2)"), Ok(int(-1_250)));
        assert_eq!(text("300", "decimal(9,-2)"), Ok(int(3)));
        assert_eq!(text("0.1", "float32"), Ok(Probe::Point(Point::Float(f64::from(0.1_f32)))));
        assert_eq!(text("-0.0", "float64"), Ok(Probe::Point(Point::Float(0.0))));
        assert_eq!(text("hex:00ff", "binary"), Ok(Probe::Point(Point::Bytes([0, 255].into()))));
        let uuid = text("00010203-0405-0607-0809-0A0B0C0D0E0F", "uuid").unwrap();
        assert_eq!(uuid, Probe::Point(Point::Bytes((0..16).collect())));
    }

    #[test]
    fn int96_reaches_years_that_64_bits_of_nanoseconds_do_not() {
        let convert = |text: &str| probe_int96(&Key::from(text), "c").map_err(|error| error.to_string());
        assert_eq!(convert("1970-01-01T00:00:00.000000001"), Ok(int(1)));
        assert_eq!(convert("9999-12-31T23:59:59.999999"), Ok(int(253_402_300_799_999_999_000)));
        assert_eq!(convert("1600-01-01T00:00:00"), Ok(int(-11_676_096_000_000_000_000)));
        assert!(convert("soon").is_err());
        assert_eq!(text("9999-12-31T23:59:59", "timestamp[ns]"), Ok(Probe::Never));
    }

    #[test]
    fn out_of_range_is_never_and_nonsense_is_an_error() {
        for (key, ty) in [
            ("300", "uint8"),
            ("-1", "uint64"),
            ("99999999999999999999999999999999999999999999", "int64"),
            ("12.505", "decimal(9,2)"),
            ("99999999", "decimal(9,2)"),
            ("NaN", "float64"),
            ("1970-01-01T00:00:00.5", "timestamp[s]"),
            ("abc", "fixed[4]"),
        ] {
            assert_eq!(text(key, ty), Ok(Probe::Never), "{key} {ty}");
        }
        for (key, ty) in
            [("12.5", "int64"), ("", "int32"), ("x", "decimal(9,2)"), ("2026-02-30", "date32"), ("zz", "uuid")]
        {
            assert!(text(key, ty).is_err(), "{key} {ty}");
        }
        assert_eq!(
            text("abc", "int64").unwrap_err(),
            "key `abc` does not read as int64 (column `c`): write a whole number"
        );
        let local = text("1970-01-01T00:00:00Z", "timestamp[us]").unwrap_err();
        assert!(local.contains("write YYYY-MM-DDTHH:MM:SS"), "{local}");
    }

    #[test]
    fn typed_keys_convert_exactly_or_not_at_all() {
        let convert = |key: Key, ty: &str| probe(&key, &ty.parse().unwrap(), "c").unwrap();
        assert_eq!(convert(Key::Float(5.0), "int8"), int(5));
        assert_eq!(convert(Key::Float(5.5), "int8"), Probe::Never);
        assert_eq!(convert(Key::Float(0.1), "float32"), Probe::Never);
        assert_eq!(convert(Key::Int((1 << 53) + 1), "float64"), Probe::Never);
        assert_eq!(convert(Key::UInt(u64::MAX), "uint64"), int(u64::MAX.into()));
        assert_eq!(convert(Key::Int(-3), "decimal(5,1)"), int(-30));
        assert!(probe(&Key::Bool(true), &Type::Int64, "c").is_err());
    }

    #[test]
    fn wide_decimals_sort_by_value() {
        let point = |text_: &str| match text(text_, "decimal(76,2)").unwrap() {
            Probe::Point(point) => point,
            other => panic!("{other:?}"),
        };
        let digits = "9".repeat(74);
        let ordered =
            [format!("-{digits}"), "-1".to_owned(), "-0.01".to_owned(), "0".to_owned(), "0.5".to_owned(), digits];
        for pair in ordered.windows(2) {
            assert!(point(&pair[0]) < point(&pair[1]), "{pair:?}");
        }
    }
}
