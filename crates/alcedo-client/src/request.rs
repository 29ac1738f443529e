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

impl Form {
    /// What a message says.
    ///
    /// # Errors
    /// This build cannot read the answer.
    pub(crate) fn on_wire(self, unary: bool) -> Result<i32, Error> {
        if self == Self::Pages && !cfg!(feature = "pages") {
            return Err(Error::invalid("built without the feature `pages`: the form Pages cannot be decoded"));
        }
        let form = match (self, unary) {
            (Self::CompactRows, false) => pb::AnswerForm::CompactRows,
            (Self::CompactRows, true) => pb::AnswerForm::TypedValues,
            (Self::ArrowIpc, _) => pb::AnswerForm::ArrowIpc,
            (Self::Pages, _) => pb::AnswerForm::Pages,
        };
        Ok(form.into())
    }
}

/// The keys of one message. Most have one, which then needs no list.
#[derive(Debug, Clone)]
pub(crate) enum Keys {
    One(pb::Key),
    Many(Vec<pb::Key>),
}

impl Keys {
    pub(crate) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(crate) fn as_slice(&self) -> &[pb::Key] {
        match self {
            Self::One(key) => std::slice::from_ref(key),
            Self::Many(keys) => keys,
        }
    }

    pub(crate) fn into_vec(self) -> Vec<pb::Key> {
        match self {
            Self::One(key) => vec![key],
            Self::Many(keys) => keys,
        }
    }
}

/// Keys as messages within the bounds, in order, each with the number of its first key. `room` is what a message has
/// left for keys.
///
/// # Errors
/// There is no key, or a single one does not fit.
pub(crate) fn messages(keys: Vec<Key>, room: usize) -> Result<Vec<(u32, Keys)>, Error> {
    if keys.is_empty() {
        return Err(Error::invalid("empty key list: give at least one key"));
    }
    let mut keys: Vec<pb::Key> = keys.into_iter().map(wire_key).collect();
    let ranges = ranges(keys.iter().map(key_bytes), room)?;
    if ranges.len() == 1 {
        let only = if keys.len() == 1 { keys.pop() } else { None };
        return Ok(vec![(0, only.map_or(Keys::Many(keys), Keys::One))]);
    }
    let mut keys = keys.into_iter();
    let message = |range: Range<usize>| {
        let first = u32::try_from(range.start).map_err(|_| Error::invalid("a lookup has at most 2^32 keys"))?;
        Ok((first, Keys::Many(keys.by_ref().take(range.len()).collect())))
    };
    ranges.into_iter().map(message).collect()
}

/// One key as a message within the bounds.
///
/// # Errors
/// It does not fit.
pub(crate) fn message(key: Key, room: usize) -> Result<Keys, Error> {
    let key = wire_key(key);
    let size = key_bytes(&key);
    if size > room { Err(too_long(0, size, room)) } else { Ok(Keys::One(key)) }
}

fn key_bytes(key: &pb::Key) -> usize {
    key.encoded_len() + KEY_OVERHEAD_BYTES
}

fn too_long(number: usize, size: usize, room: usize) -> Error {
    Error::invalid(format!(
        "key {number} takes {size} bytes; a request has {MAX_REQUEST_BYTES}, of which {room} are left for keys"
    ))
}

/// Consecutive ranges of keys of these sizes that fit in `room` bytes and the bound on the number of keys.
fn ranges(sizes: impl Iterator<Item = usize>, room: usize) -> Result<Vec<Range<usize>>, Error> {
    let mut ranges = Vec::new();
    let (mut start, mut bytes, mut end) = (0, 0, 0);
    for size in sizes {
        if size > room {
            return Err(too_long(end, size, room));
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
    use crate::question::{Question, Spec};

    fn question() -> Question {
        Question::new(Spec { path: "lake/a".to_owned(), ..Spec::default() })
    }

    fn lengths(keys: Vec<Key>) -> Vec<(u32, usize)> {
        let question = question();
        let messages = messages(keys, question.room()).unwrap();
        for (_, keys) in &messages {
            assert!(question.request(keys.clone().into_vec()).encoded_len() <= MAX_REQUEST_BYTES);
        }
        messages.iter().map(|(first, keys)| (*first, keys.len())).collect()
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
        let long = || Key::Text("x".repeat(2 << 20));
        let error = messages(vec![Key::Int(1), long()], question().room()).unwrap_err();
        assert!(error.message.starts_with("key 1 takes 2097"), "{error}");
        assert!(message(long(), question().room()).unwrap_err().message.starts_with("key 0 takes 2097"));
    }

    #[test]
    fn no_key_is_refused() {
        let error = messages(Vec::new(), question().room()).unwrap_err();
        assert_eq!(error.to_string(), "empty key list: give at least one key");
    }
}
