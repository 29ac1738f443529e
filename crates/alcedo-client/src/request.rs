//! Lookups as messages: how a list of keys becomes requests that a worker accepts.
//!
//! Knows the wire's bounds on a request. It must not know who sends the messages or how they are answered.

use std::ops::Range;

use alcedo_lookup::key::Key;
use alcedo_proto::v1 as pb;
use prost::Message as _;

use crate::error::Error;

/// Most keys in one message; the worker refuses more. Longer lists are split.
pub const MAX_KEYS_PER_MESSAGE: usize = 1_024;

/// Most bytes in one message: what a worker accepts. Checked on this side because a frame that is too large would end
/// the whole stream, and with it the lookups of others.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;

/// Upper bound of what a key takes in a message beyond its own encoding: the field's tag and length.
const KEY_OVERHEAD_BYTES: usize = 6;

/// How an answer's rows travel. All forms but [`Form::ArrowIpc`] end as the same [`Row`](crate::Row)s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Form {
    /// Compact rows on the stream, typed values on the unary call: decoded by the worker, cheap to read.
    #[default]
    CompactRows,
    /// One Arrow IPC stream per file, handed on as bytes in [`FileAnswer::arrow`](crate::FileAnswer::arrow).
    ArrowIpc,
    /// Compressed data pages, decoded on this side: saves the worker's CPU and costs bytes and this side's CPU. Needs
    /// the feature `pages`.
    Pages,
}

/// A lookup that is ready to be cut into messages.
#[derive(Debug)]
pub(crate) struct Request {
    /// Everything but the keys.
    base: pb::LookupRequest,
    keys: Vec<Key>,
}

impl Request {
    /// A request that can be sent.
    ///
    /// # Errors
    /// There is no key, or this build cannot read the answer.
    pub(crate) fn new(base: pb::LookupRequest, keys: Vec<Key>) -> Result<Self, Error> {
        if keys.is_empty() {
            return Err(Error::invalid("empty key list: give at least one key"));
        }
        if base.form == pb::AnswerForm::Pages as i32 && !cfg!(feature = "pages") {
            return Err(Error::invalid("built without the feature `pages`: the form Pages cannot be decoded"));
        }
        Ok(Self { base, keys })
    }

    /// The request's keys as messages within the bounds, in order, each with the number of its first key.
    ///
    /// # Errors
    /// A single key does not fit beside the rest of the request.
    pub(crate) fn messages(mut self) -> Result<Vec<(u32, pb::LookupRequest)>, Error> {
        let keys: Vec<pb::Key> = std::mem::take(&mut self.keys).into_iter().map(wire_key).collect();
        if keys.len() <= MAX_KEYS_PER_MESSAGE {
            self.base.keys = keys;
            if self.base.encoded_len() <= MAX_REQUEST_BYTES {
                return Ok(vec![(0, self.base)]);
            }
            let keys = std::mem::take(&mut self.base.keys);
            return self.split(keys);
        }
        self.split(keys)
    }

    fn split(self, keys: Vec<pb::Key>) -> Result<Vec<(u32, pb::LookupRequest)>, Error> {
        let room = MAX_REQUEST_BYTES.saturating_sub(self.base.encoded_len());
        let ranges = ranges(keys.iter().map(|key| key.encoded_len() + KEY_OVERHEAD_BYTES), room)?;
        let mut keys = keys.into_iter();
        let message = |range: Range<usize>| {
            let first = u32::try_from(range.start).map_err(|_| Error::invalid("a lookup has at most 2^32 keys"))?;
            Ok((first, pb::LookupRequest { keys: keys.by_ref().take(range.len()).collect(), ..self.base.clone() }))
        };
        ranges.into_iter().map(message).collect()
    }
}

/// Consecutive ranges of keys of these sizes that fit in `room` bytes and the bound on the number of keys.
fn ranges(sizes: impl Iterator<Item = usize>, room: usize) -> Result<Vec<Range<usize>>, Error> {
    let mut ranges = Vec::new();
    let (mut start, mut bytes, mut end) = (0, 0, 0);
    for size in sizes {
        if size > room {
            return Err(Error::invalid(format!(
                "key {end} takes {size} bytes; a request has {MAX_REQUEST_BYTES}, of which {room} are left for keys"
            )));
        }
        if end - start == MAX_KEYS_PER_MESSAGE || bytes + size > room {
            ranges.push(start..end);
            (start, bytes) = (end, 0);
        }
        bytes += size;
        end += 1;
    }
    ranges.push(start..end);
    Ok(ranges)
}

fn wire_key(key: Key) -> pb::Key {
    use pb::key::Kind;
    let kind = match key {
        Key::Text(text) => Kind::Text(text),
        Key::Int(value) => Kind::Int(value),
        Key::UInt(value) => Kind::Uint(value),
        Key::Float(value) => Kind::Float(value),
        Key::Bool(value) => Kind::Bool(value),
        Key::Bytes(bytes) => Kind::Bytes(bytes.into()),
        Key::Null => Kind::Null(true),
    };
    pb::Key { kind: Some(kind) }
}

/// The key of a message of ours.
#[cfg(feature = "fallback")]
pub(crate) fn key_of(key: &pb::Key) -> Option<Key> {
    use pb::key::Kind;
    Some(match key.kind.as_ref()? {
        Kind::Text(text) => Key::Text(text.clone()),
        Kind::Int(value) => Key::Int(*value),
        Kind::Uint(value) => Key::UInt(*value),
        Kind::Float(value) => Key::Float(*value),
        Kind::Bool(value) => Key::Bool(*value),
        Kind::Bytes(bytes) => Key::Bytes(bytes.to_vec().into()),
        Kind::Null(_) => Key::Null,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn lengths(keys: Vec<Key>) -> Vec<(u32, usize)> {
        let base = pb::LookupRequest { path: "lake/a".to_owned(), ..Default::default() };
        let messages = Request::new(base, keys).unwrap().messages().unwrap();
        assert!(messages.iter().all(|(_, message)| message.encoded_len() <= MAX_REQUEST_BYTES));
        assert!(messages.iter().all(|(_, message)| message.path == "lake/a"));
        messages.iter().map(|(first, message)| (*first, message.keys.len())).collect()
    }

    #[test]
    fn keys_are_split_at_the_bound_and_stay_in_order() {
        assert_eq!(lengths(vec![Key::Int(1)]), [(0, 1)]);
        assert_eq!(lengths(vec![Key::Int(1); 1_024]), [(0, 1_024)]);
        assert_eq!(lengths(vec![Key::Int(1); 1_025]), [(0, 1_024), (1_024, 1)]);
        assert_eq!(lengths(vec![Key::Int(1); 3_000]), [(0, 1_024), (1_024, 1_024), (2_048, 952)]);
    }

    #[test]
    fn long_keys_are_split_by_bytes() {
        let split = lengths(vec![Key::Text("x".repeat(4_096)); 1_000]);
        assert!(split.len() == 4, "{split:?}");
        assert_eq!(split.iter().map(|(_, keys)| keys).sum::<usize>(), 1_000);
    }

    #[test]
    fn a_key_that_fits_nowhere_is_refused_by_its_number() {
        let keys = vec![Key::Int(1), Key::Text("x".repeat(2 << 20))];
        let error = Request::new(pb::LookupRequest::default(), keys).unwrap().messages().unwrap_err();
        assert!(error.message.starts_with("key 1 takes 2097"), "{error}");
    }

    #[test]
    fn no_key_is_refused() {
        let error = Request::new(pb::LookupRequest::default(), Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "empty key list: give at least one key");
    }
}
