//! Layer 3: the frame headers of an HTTP/2 connection, as its bytes pass by.
//!
//! Knows where frames begin and which kinds of them mean that a peer wants something (RFC 9113, sections 3.4, 4.1 and
//! 6). It must not know their contents, nor correct them: what breaks the protocol is for the server to refuse.

/// Bytes of the client's preface (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;
/// Bytes of a frame's header.
const HEADER_BYTES: usize = 9;
/// What keeps a connection alive but is no use of it.
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;

/// Where in the peer's bytes we are.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    preface_bytes: usize,
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    /// Of the payload, still to come.
    payload_bytes: usize,
}

impl Frames {
    /// Whether the preface has come.
    pub(crate) fn has_begun(&self) -> bool {
        self.preface_bytes >= PREFACE_BYTES
    }

    /// Takes the next bytes; whether they belong to anything that is a use of the connection.
    pub(crate) fn is_used_by(&mut self, mut bytes: &[u8]) -> bool {
        let mut is_used = false;
        while !bytes.is_empty() {
            let taken = if !self.has_begun() {
                let taken = bytes.len().min(PREFACE_BYTES - self.preface_bytes);
                self.preface_bytes += taken;
                is_used |= self.has_begun();
                taken
            } else if self.payload_bytes > 0 {
                let taken = bytes.len().min(self.payload_bytes);
                self.payload_bytes -= taken;
                taken
            } else {
                let wanted = bytes.len().min(HEADER_BYTES - self.header_bytes);
                for (place, byte) in self.header.iter_mut().skip(self.header_bytes).zip(&bytes[..wanted]) {
                    *place = *byte;
                }
                self.header_bytes += wanted;
                wanted
            };
            bytes = &bytes[taken..];
            if self.header_bytes == HEADER_BYTES {
                let [high, middle, low, kind, ..] = self.header;
                self.payload_bytes = u32::from_be_bytes([0, high, middle, low]) as usize;
                self.header_bytes = 0;
                is_used |= kind != SETTINGS && kind != PING;
            }
        }
        is_used
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = (payload as u32).to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 1], vec![1; payload].as_slice()].concat()
    }

    #[test]
    fn pings_are_no_use_and_calls_are_however_the_bytes_are_cut() {
        let quiet = [frame(SETTINGS, 18), frame(PING, 8), frame(PING, 8)].concat();
        let call = [frame(PING, 8), frame(0x1, 300), frame(0x0, 0)].concat();
        for piece in [1, 2, 9, 17, 1_000] {
            let mut frames = Frames::default();
            let mut feed = |bytes: &[u8]| {
                bytes.chunks(piece).map(|part| frames.is_used_by(part)).filter(|is_used| *is_used).count()
            };
            // The preface itself is one.
            assert_eq!(feed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 1);
            assert_eq!(feed(&quiet), 0, "{piece}");
            assert!(feed(&call) > 0, "{piece}");
            assert_eq!(feed(&quiet), 0, "{piece}");
        }
    }

    #[test]
    fn without_a_preface_nothing_has_begun() {
        let mut frames = Frames::default();
        assert!(!frames.is_used_by(&[0; 23]) && !frames.has_begun());
        assert!(frames.is_used_by(&[0]) && frames.has_begun());
    }
}
