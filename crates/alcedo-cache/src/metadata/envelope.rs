//! The form of one stored record: what it is called, so that it can be compared, and a checksum over all of it.
//!
//! Knows bytes and names. It must not know what a record says. RocksDB checks its blocks when it reads them; the
//! checksum in here is ours because it holds from the place where a record is made to the place where it is used, in
//! memory and in blocks that were checked long ago too, and costs less than a microsecond.

/// First byte of a record. Another layout is another number, and a number that is not known is a miss.
const FORMAT: u8 = 1;
/// Format, CRC-32C of what follows it, and the length of the name.
const HEAD_BYTES: usize = 1 + 4 + 4;

/// What stored bytes turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened<'a> {
    /// The record of the name that was asked for.
    Found(&'a [u8]),
    /// The record of another name whose digest is the same.
    Other,
    /// Of a format that this version does not know.
    Unknown,
    /// Not what was written.
    Damaged,
}

/// The key of a name in every table: the xxh3-64 digest, big-endian.
pub(super) fn key(name: &str) -> [u8; 8] {
    xxhash_rust::xxh3::xxh3_64(name.as_bytes()).to_be_bytes()
}

/// A record as it is stored. None if the name is too long to be one.
pub(super) fn seal(name: &str, record: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(name.len()).ok()?.to_le_bytes();
    let mut bytes = Vec::with_capacity(HEAD_BYTES + name.len() + record.len());
    bytes.push(FORMAT);
    bytes.extend_from_slice(&[0; 4]);
    for part in [&length, name.as_bytes(), record] {
        bytes.extend_from_slice(part);
    }
    let sum = crc32c::crc32c(&bytes[5..]);
    bytes[1..5].copy_from_slice(&sum.to_le_bytes());
    Some(bytes)
}

/// The record in stored bytes.
pub(super) fn open<'a>(name: &str, bytes: &'a [u8]) -> Opened<'a> {
    if bytes.first().is_some_and(|format| *format != FORMAT) {
        return Opened::Unknown;
    }
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else { return Opened::Damaged };
    let [_, s0, s1, s2, s3, l0, l1, l2, l3] = *head;
    if crc32c::crc32c(&bytes[5..]) != u32::from_le_bytes([s0, s1, s2, s3]) {
        return Opened::Damaged;
    }
    match rest.split_at_checked(u32::from_le_bytes([l0, l1, l2, l3]) as usize) {
        Some((stored, record)) if stored == name.as_bytes() => Opened::Found(record),
        Some(_) => Opened::Other,
        None => Opened::Damaged,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_found_by_its_own_name_only() {
        let sealed = seal("s3://lake/a", b"record").unwrap();
        assert_eq!(open("s3://lake/a", &sealed), Opened::Found(b"record"));
        assert_eq!(open("s3://lake/b", &sealed), Opened::Other);
        assert_eq!(open("s3://lake/arecord", &sealed), Opened::Other);
        assert_eq!(open("", &seal("", b"").unwrap()), Opened::Found(b""));
    }

    #[test]
    fn damage_anywhere_is_noticed_and_another_format_is_not_read() {
        let sealed = seal("s3://lake/a", b"record").unwrap();
        for at in 0..sealed.len() {
            let mut bytes = sealed.clone();
            bytes[at] ^= 4;
            let wanted = if at == 0 { Opened::Unknown } else { Opened::Damaged };
            assert_eq!(open("s3://lake/a", &bytes), wanted, "byte {at}");
            assert_eq!(open("s3://lake/a", &sealed[..at]), Opened::Damaged);
        }
    }

    #[test]
    fn keys_are_the_digest_of_the_name() {
        assert_eq!(key("s3://lake/a"), 0xb9f1_1b41_e21c_c19d_u64.to_be_bytes());
    }
}
