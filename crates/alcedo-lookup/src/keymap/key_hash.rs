//! The hash by which a keymap orders keys: that of a key's point, however the key is written and its values are stored.
//!
//! It is a part of the format: XXH3 of 64 bits over bytes that are named here. Equal points give equal bytes; points of
//! one column are of one variant, so nothing tells the variants apart.

use xxhash_rust::xxh3::xxh3_64;

use crate::key_column::Stored;
use crate::probe::Point;

/// Little-endian two's complement, of 8 bytes where that is enough, else of 16.
#[inline]
fn of_int(value: i128) -> u64 {
    match i64::try_from(value) {
        Ok(value) => xxh3_64(&value.to_le_bytes()),
        Err(_) => xxh3_64(&value.to_le_bytes()),
    }
}

/// The little-endian bits; both zeros are one. No key is a NaN, so it does not matter what one hashes to.
#[inline]
fn of_float(value: f64) -> u64 {
    xxh3_64(&(value + 0.0).to_bits().to_le_bytes())
}

/// The hash of a key.
#[inline]
pub(crate) fn of_point(point: &Point) -> u64 {
    match point {
        Point::Int(value) => of_int(*value),
        Point::Float(value) => of_float(*value),
        Point::Bytes(bytes) => xxh3_64(bytes),
    }
}

/// The hash of a stored value: that of the keys that equal it.
#[inline]
pub(crate) fn of_stored(value: &Stored<'_>) -> u64 {
    match value {
        Stored::Int(value) => of_int(*value),
        Stored::Float(value) => of_float(*value),
        Stored::Bytes(bytes) => xxh3_64(bytes),
        Stored::Point(Some(point)) => of_point(point),
        // No key equals it.
        Stored::Point(None) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_format() {
        assert_eq!(of_point(&Point::Int(123)), xxh3_64(&[123, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(of_point(&Point::Int(1 << 64)), xxh3_64(&(1_i128 << 64).to_le_bytes()));
        assert_eq!(of_stored(&Stored::Float(-0.0)), of_point(&Point::Float(0.0)));
        assert_eq!(of_stored(&Stored::Bytes(b"ab")), of_point(&Point::Bytes((*b"ab").into())));
        assert_eq!(of_stored(&Stored::Point(Some(Point::Int(-5)))), of_stored(&Stored::Int(-5)));
    }
}
