//! A lookup stream without gRPC: how its messages stand one after the other on a connection.
//!
//! Layer 0. Knows bytes, and that messages are those of `lookup.proto`, whose comment on `LookupStream` is the
//! contract. It must not know sockets: whoever reads and writes them hands bytes in and out.

use prost::Message;
use prost::bytes::{BufMut as _, BytesMut};

/// What a client sends first, and a worker that speaks frames sends back. The last byte is the version of the framing;
/// the first one is none that HTTP begins with.
pub const MAGIC: [u8; 8] = *b"ALCEDO\0\x01";

/// Bytes of the length in front of each message, which is little-endian and does not count itself.
pub const LENGTH_BYTES: usize = 4;

/// `ClusterResponse.protocol` from which on a worker speaks frames.
pub const SINCE_PROTOCOL: u32 = 3;

/// Appends a message with its length. One that is longer than a length can say is cut to what cannot be read; none is,
/// because answers are bounded far below.
pub fn put(message: &impl Message, out: &mut BytesMut) {
    let begin = out.len();
    out.put_u32_le(0);
    // The only failure is a buffer that cannot grow, which this one can.
    let _ = message.encode(out);
    let bytes = u32::try_from(out.len() - begin - LENGTH_BYTES).unwrap_or(u32::MAX);
    if let Some(length) = out.get_mut(begin..begin + LENGTH_BYTES) {
        length.copy_from_slice(&bytes.to_le_bytes());
    }
}

/// Appends a ping, or the answer to one: a length of 0.
pub fn put_ping(out: &mut BytesMut) {
    out.put_u32_le(0);
}

/// What stands at the front of bytes that have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// Nothing whole yet; so many bytes are needed from the front on, of those that are known to be needed.
    Part {
        /// Bytes of the length, and of the message once its length is there.
        needs: usize,
    },
    /// A length of 0.
    Ping,
    /// A whole message of so many bytes, behind its length.
    Message {
        /// Bytes of the message.
        bytes: usize,
    },
    /// A message that is longer than it may be. Nothing can be read from here on.
    TooLong {
        /// Its announced length.
        bytes: usize,
    },
}

/// Looks at the front of what has come, where a message may have at most so many bytes.
#[must_use]
pub fn front(come: &[u8], most: usize) -> Front {
    let Some(length) = come.first_chunk::<LENGTH_BYTES>() else { return Front::Part { needs: LENGTH_BYTES } };
    let bytes = u32::from_le_bytes(*length) as usize;
    match come.len() - LENGTH_BYTES {
        _ if bytes == 0 => Front::Ping,
        _ if bytes > most => Front::TooLong { bytes },
        there if there < bytes => Front::Part { needs: LENGTH_BYTES + bytes },
        _ => Front::Message { bytes },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::v1::{self, lookup_frame};

    #[test]
    fn a_frame_has_these_bytes() {
        let key = v1::Key { kind: Some(v1::key::Kind::Int(5)) };
        let lookup = v1::PreparedLookup { handle: 1, keys: vec![key], timeout_us: 300 };
        let frame = v1::LookupFrame { id: 7, body: Some(lookup_frame::Body::Lookup(lookup)) };
        let mut out = BytesMut::new();
        put(&frame, &mut out);
        put_ping(&mut out);
        let golden = [
            &[13_u8, 0, 0, 0][..],
            &[0x08, 7, 0x2a, 9],
            &[0x08, 1, 0x12, 2, 0x10, 10, 0x18, 0xac, 0x02],
            &[0, 0, 0, 0],
        ];
        assert_eq!(out[..], golden.concat()[..]);
        assert_eq!(front(&out, 100), Front::Message { bytes: 13 });
        assert_eq!(front(&out[17..], 100), Front::Ping);
        assert_eq!(MAGIC, [0x41, 0x4c, 0x43, 0x45, 0x44, 0x4f, 0, 1]);
    }

    #[test]
    fn what_is_not_there_yet_and_what_is_too_long_is_told_by_the_length_alone() {
        for come in [&[][..], &[9], &[9, 0, 0]] {
            assert_eq!(front(come, 100), Front::Part { needs: 4 });
        }
        assert_eq!(front(&[9, 0, 0, 0, 1, 2], 100), Front::Part { needs: 13 });
        assert_eq!(front(&[100, 0, 0, 0], 100), Front::Part { needs: 104 });
        assert_eq!(front(&[101, 0, 0, 0], 100), Front::TooLong { bytes: 101 });
        assert_eq!(front(&[255; 9], 1 << 20), Front::TooLong { bytes: u32::MAX as usize });
    }
}
