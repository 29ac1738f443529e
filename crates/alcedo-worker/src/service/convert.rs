//! Layer 3: between the wire's messages and the worker's own words.
//!
//! Knows both vocabularies and nothing else. It must not know deadlines, permits or where an answer came from. Messages
//! come from anybody: what has no meaning here is refused with its place.

use std::time::Duration;

use alcedo_lookup::answer::{KeyStatus, Pages};
use alcedo_lookup::key::Key;
use alcedo_lookup::value::Value;
use alcedo_proto::v1::{self, AnswerForm, key, value};
use tokio::time::Instant;

use super::handles::Handles;
use super::parts::Parts;
use crate::cost::{Cost, Origin};
use crate::error::Error;
use crate::indexes::OpenFile;
use crate::lookups::{Answer, AtOnce};
use crate::reader::FileVersion;

/// A key of a message; `index` is its place there.
pub(super) fn key(index: usize, key: v1::Key) -> Result<Key, Error> {
    match key.kind {
        Some(key::Kind::Text(text)) => Ok(Key::Text(text)),
        Some(key::Kind::Int(value)) => Ok(Key::Int(value)),
        Some(key::Kind::Uint(value)) => Ok(Key::UInt(value)),
        Some(key::Kind::Float(value)) => Ok(Key::Float(value)),
        Some(key::Kind::Bool(value)) => Ok(Key::Bool(value)),
        Some(key::Kind::Bytes(value)) => Ok(Key::Bytes(value.into())),
        Some(key::Kind::Null(true)) => Ok(Key::Null),
        Some(key::Kind::Null(false)) => Err(Error::BadKey { index, why: "null must be true" }),
        None => {
            Err(Error::BadKey { index, why: "it has no value: set one of text, int, uint, float, bool, bytes or null" })
        }
    }
}

/// The time that a message asks for; 0 means the default.
pub(super) fn timeout(timeout_us: u64) -> Option<Duration> {
    (timeout_us > 0).then(|| Duration::from_micros(timeout_us))
}

/// The answer's message or messages, of about `part_bytes` each; new handles wait in `handles` to be announced.
pub(super) fn answer(
    answer: Answer,
    cost: &Cost,
    form: AnswerForm,
    ring_epoch: u64,
    handles: &mut Handles,
    part_bytes: usize,
) -> Parts {
    let source = match cost.slowest() {
        Origin::Memory => v1::Source::Memory,
        Origin::PageStore => v1::Source::PageStore,
        Origin::ObjectStore => v1::Source::Origin,
    };
    let end = v1::Answer {
        files: Vec::new(),
        statuses: answer.statuses.iter().map(status).collect(),
        ring_epoch,
        source: source.into(),
        files_total: answer.files_total.try_into().unwrap_or(u32::MAX),
        files_asked: answer.files_asked.try_into().unwrap_or(u32::MAX),
        origin_gets: cost.origin_gets(),
        origin_bytes: cost.origin_bytes(),
        trace: cost.is_traced().then(|| trace(cost, answer.notes)),
        parts: 0,
    };
    Parts::new(end, answer.files, form, handles, part_bytes)
}

/// The message of an answer that was made at once, which is small and in memory.
pub(super) fn answer_at_once(at_once: AtOnce, ring_epoch: u64, handles: &mut Handles) -> v1::Answer {
    let AtOnce { files, statuses, files_total, files_asked, read_keys } = at_once;
    let of_file = |file: crate::lookups::FileAtOnce| {
        let (handle, schema) = handles.target(&file.target);
        let says_something = file.key_index.iter().any(|key| *key != 0);
        v1::FileRows {
            file: handle,
            schema,
            key_index: if says_something { file.key_index } else { Vec::new() },
            row_number: file.row_number,
            compact: file.rows,
            ..v1::FileRows::default()
        }
    };
    v1::Answer {
        files: files.into_iter().map(of_file).collect(),
        statuses: statuses.iter().map(status).collect(),
        ring_epoch,
        source: if read_keys > 0 { v1::Source::PageStore } else { v1::Source::Memory }.into(),
        files_total: files_total.try_into().unwrap_or(u32::MAX),
        files_asked: files_asked.try_into().unwrap_or(u32::MAX),
        ..v1::Answer::default()
    }
}

fn status(status: &KeyStatus) -> i32 {
    match status {
        KeyStatus::NotFound => v1::KeyStatus::NotFound.into(),
        KeyStatus::Found => v1::KeyStatus::Found.into(),
        KeyStatus::Truncated => v1::KeyStatus::Truncated.into(),
    }
}

/// Data pages as a message.
pub(super) fn pages(pages: Pages) -> v1::Pages {
    let page = |page: alcedo_lookup::answer::DataPage| v1::DataPage {
        first_row: page.first_row,
        rows: page.rows,
        page: page.page,
    };
    let chunk = |chunk: alcedo_lookup::answer::PagesChunk| v1::PagesChunk {
        first_row: chunk.first_row,
        rows: chunk.rows,
        dictionary: chunk.dictionary,
        data_pages: chunk.data_pages.into_iter().map(page).collect(),
        pages_split_rows: !chunk.aligned,
    };
    let column = |column: alcedo_lookup::answer::PagesColumn| v1::PagesColumn {
        leaf: column.leaf,
        codec: column.codec,
        chunks: column.chunks.into_iter().map(chunk).collect(),
    };
    v1::Pages {
        parquet_schema: pages.parquet_schema.to_vec(),
        columns: pages.columns.into_iter().map(column).collect(),
    }
}

/// A value that any client can print.
pub(super) fn value(value: Value) -> v1::Value {
    let list = |values: Vec<Value>| v1::ValueList { values: values.into_iter().map(self::value).collect() };
    let kind = match value {
        Value::Null => value::Kind::Null(true),
        Value::Bool(value) => value::Kind::Bool(value),
        Value::Int(value) => value::Kind::Int(value),
        Value::UInt(value) => value::Kind::Uint(value),
        Value::Float32(value) => value::Kind::Float(value.into()),
        Value::Float64(value) => value::Kind::Float(value),
        Value::Decimal(digits) => value::Kind::String(digits.into()),
        Value::String(text) => value::Kind::String(text),
        Value::Binary(bytes) => value::Kind::Bytes(bytes.into()),
        Value::Uuid(bytes) => value::Kind::String(uuid_text(&bytes)),
        Value::List(values) => value::Kind::List(list(values)),
        Value::Struct(values) => value::Kind::Struct(list(values)),
        Value::Map(entries) => {
            let (keys, values): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
            value::Kind::Map(v1::ValueMap { keys: list(keys).values, values: list(values).values })
        }
    };
    v1::Value { kind: Some(kind) }
}

/// 8-4-4-4-12 hexadecimal digits (RFC 9562, section 4).
fn uuid_text(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for digit in [byte >> 4, byte & 0xf] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
    text
}

fn trace(cost: &Cost, notes: Vec<String>) -> v1::Trace {
    // Shared work may have begun before this request joined it.
    let since = |at: Instant| micros(at.saturating_duration_since(cost.began()));
    let stage = |stage: crate::cost::Stage| v1::Stage {
        name: stage.name.to_owned(),
        file: stage.file.map(|file| file.to_string()).unwrap_or_default(),
        start_us: since(stage.began),
        duration_us: micros(stage.ended.saturating_duration_since(stage.began.max(cost.began()))),
        bytes: stage.bytes,
        origin_gets: stage.origin_gets,
        origin_bytes: stage.origin_bytes,
    };
    v1::Trace { stages: cost.stages().into_iter().map(stage).collect(), total_us: since(Instant::now()), notes }
}

/// Whole microseconds, as the wire counts time.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A file's entry in a stat, a listing or a read.
pub(super) fn file_info(version: &FileVersion, opened: Option<&OpenFile>) -> v1::FileInfo {
    let stat = &version.stat;
    v1::FileInfo {
        url: stat.url.to_string(),
        size_bytes: stat.size,
        version: version.key.version().to_owned(),
        modified_us: stat.modified_us,
        is_prefix: false,
        parquet: opened.map(|file| v1::ParquetInfo {
            rows: file.index.rows(),
            row_groups: file.index.row_groups().try_into().unwrap_or(u32::MAX),
            columns: file.index.columns().try_into().unwrap_or(u32::MAX),
            has_page_index: file.index.has_page_index(),
            index_bytes: file.index.weight(),
        }),
    }
}

/// A directory's entry in a listing.
pub(super) fn prefix_info(url: &str) -> v1::FileInfo {
    v1::FileInfo { url: format!("{url}/"), is_prefix: true, ..v1::FileInfo::default() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::service::parts::Next;

    #[test]
    fn a_traced_cost_becomes_stages() {
        let cost = Cost::new(true);
        let began = cost.began();
        let stage = |name, origin_gets| crate::cost::Stage {
            name,
            file: Some("s3://lake/a".into()),
            began,
            ended: began + Duration::from_micros(30),
            bytes: 10,
            origin_gets,
            origin_bytes: 10 * u64::from(origin_gets),
        };
        cost.add(stage("open", 1));
        cost.add(stage("plan", 0));
        let empty = Answer {
            files: vec![],
            statuses: vec![KeyStatus::Truncated],
            files_total: 3,
            files_asked: 2,
            notes: vec![],
        };
        let mut parts = answer(empty, &cost, AnswerForm::CompactRows, 7, &mut Handles::default(), usize::MAX);
        let Next::End(message) = parts.next().unwrap() else { panic!("an empty answer has parts") };
        assert_eq!((message.origin_gets, message.origin_bytes, message.source()), (1, 10, v1::Source::Origin));
        assert_eq!((message.files_total, message.files_asked, message.ring_epoch), (3, 2, 7));
        let trace = message.trace.unwrap();
        assert_eq!(trace.stages.iter().map(|stage| stage.duration_us).collect::<Vec<_>>(), [30, 30]);
    }
}
