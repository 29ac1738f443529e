//! LEB128 varints, as Parquet's encodings and our own lists have them.

/// Takes a varint off the front; none where the bytes end before it does, or where it is longer than ten bytes.
pub(crate) fn uvarint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The same of a number of 32 bits; none for a larger one.
pub(crate) fn uvarint32(bytes: &mut &[u8]) -> Option<u32> {
    u32::try_from(uvarint(bytes)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_ends_early_or_never_is_not() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            let mut bytes = Vec::new();
            crate::rows::write_uvarint(&mut bytes, value);
            assert_eq!(uvarint(&mut &bytes[..]), Some(value));
            assert_eq!(uvarint32(&mut &bytes[..]), u32::try_from(value).ok());
            assert_eq!(uvarint(&mut &bytes[..bytes.len() - 1]), None);
        }
        let mut rest = &[0x80, 1, 7][..];
        assert_eq!((uvarint(&mut rest), rest), (Some(128), &[7][..]));
        assert_eq!(uvarint(&mut &[0x80; 11][..]), None);
    }
}
