//! A list of ascending row numbers: a CRC-32C of what follows, then LEB128 distances, the first from zero.

use crate::error::Error;
use crate::rows::write_uvarint;
use crate::varint::uvarint;

/// Appends a list.
pub(crate) fn write(rows: impl Iterator<Item = u64>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0; 4]);
    let mut last = 0;
    for row in rows {
        write_uvarint(out, row - last);
        last = row;
    }
    let crc = crc32c::crc32c(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Reads a list of `count` rows, all below `rows`, and appends them.
///
/// # Errors
/// The list is damaged.
pub(crate) fn read(bytes: &[u8], count: u32, rows: u64, out: &mut Vec<u64>) -> Result<(), Error> {
    let damaged = || Error::corrupt("a keymap's list of rows is damaged");
    let (crc, mut rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
    // Every row takes a byte at least.
    if crc32c::crc32c(rest) != u32::from_le_bytes(*crc) || count as usize > rest.len() {
        return Err(damaged());
    }
    out.reserve(count as usize);
    let mut row = 0_u64;
    for i in 0..count {
        let distance = uvarint(&mut rest).filter(|distance| i == 0 || *distance > 0).ok_or_else(damaged)?;
        row = row.checked_add(distance).filter(|row| *row < rows).ok_or_else(damaged)?;
        out.push(row);
    }
    if rest.is_empty() { Ok(()) } else { Err(damaged()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_back_and_no_damaged_one_does() {
        let rows = [0, 1, 2, 300, 70_000, 1 << 30];
        let mut bytes = Vec::new();
        write(rows.iter().copied(), &mut bytes);
        let mut out = vec![7];
        read(&bytes, 6, (1 << 30) + 1, &mut out).unwrap();
        assert_eq!(out[1..], rows);
        assert!(read(&bytes, 6, 1 << 30, &mut Vec::new()).is_err(), "a row beyond the file");
        assert!(read(&bytes, 5, 1 << 31, &mut Vec::new()).is_err(), "fewer rows than there are");
        assert!(read(&bytes, 7, 1 << 31, &mut Vec::new()).is_err(), "more rows than there are");
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(read(&damaged, 6, 1 << 31, &mut Vec::new()).is_err(), "byte {at}");
            assert!(read(&bytes[..at], 6, 1 << 31, &mut Vec::new()).is_err(), "{at} bytes");
        }
    }
}
