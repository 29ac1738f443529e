//! Answers and errors as the lines that `--requests` prints.
//!
//! Knows the machine form of docs/FORMATS.md and how the client's reasons become its error classes. It must not know
//! lines that come in, nor how a key was meant.

use alcedo_client::{Answer, Error, FileAnswer, Kind, Reason};
use serde_json::{Value as Json, json};

use crate::output::neutral::neutral;

/// Characters of an error's message at most: it may quote a key or a line of any length.
const MAX_MESSAGE_CHARS: usize = 2_000;

/// The class of a line that is no lookup.
pub(super) const BAD_REQUEST: &str = "bad_request";
/// The class of a key that its column cannot have.
pub(super) const BAD_KEY: &str = "bad_key";

/// Why a line has no rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    class: &'static str,
    message: String,
}

impl Refusal {
    pub(super) fn new(class: &'static str, message: impl Into<String>) -> Self {
        Self { class, message: message.into() }
    }

    /// The line without its end.
    pub(super) fn json(&self) -> Json {
        let mut message: String = self.message.chars().take(MAX_MESSAGE_CHARS).collect();
        if message.len() < self.message.len() {
            message.push('…');
        }
        json!({ "error": { "class": self.class, "message": message } })
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { class: class(error.kind, error.reason), message: error.to_string() }
    }
}

/// The rows of an answer that belong to its first key, as a line without its end.
pub(super) fn rows(answer: &Answer) -> Json {
    let own = |file: &FileAnswer| file.rows.iter().filter(|row| row.key_index == 0).count();
    let files: Vec<&FileAnswer> = answer.files.iter().filter(|file| own(file) > 0).collect();
    let (mut rows, mut row_numbers) = (Vec::new(), Vec::new());
    for file in &files {
        for row in file.rows.iter().filter(|row| row.key_index == 0) {
            let values = row.values.iter().zip(&file.schema.columns);
            rows.push(values.map(|(value, column)| neutral(value, &column.ty)).collect::<Json>());
            row_numbers.push(row.row_number);
        }
    }
    // A file that was named has a version and columns also where it has no such row.
    let first = files.first().copied().or_else(|| answer.files.iter().find(|file| file.rows.is_empty()));
    let mut line = json!({
        "rows": rows,
        "types": first.map_or_else(Vec::new, types),
        "row_numbers": row_numbers,
        "version": first.map_or("", |file| &*file.version),
    });
    if files.len() > 1 {
        let part = |file: &&FileAnswer| {
            json!({
                "url": &*file.url, "version": &*file.version, "rows": own(file), "types": types(file),
            })
        };
        line["files"] = files.iter().map(part).collect();
    }
    line
}

fn types(file: &FileAnswer) -> Vec<String> {
    file.schema.columns.iter().map(|column| column.ty.to_string()).collect()
}

/// The error class of a client's error. What is wrong with a file has the class of that wrong, whoever found it.
fn class(kind: Kind, reason: Option<Reason>) -> &'static str {
    match reason {
        Some(Reason::BadRequest) => BAD_REQUEST,
        Some(Reason::BadPath) => "bad_path",
        Some(Reason::BadKey) => BAD_KEY,
        Some(Reason::NoSuchColumn) => "no_such_column",
        Some(Reason::NoSuchMount) => "no_such_mount",
        Some(Reason::NoSuchFile) => "no_such_file",
        Some(Reason::EmptyPrefix) => "empty_prefix",
        Some(Reason::TooManyKeys) => "too_many_keys",
        Some(Reason::TooManyCandidates) => "too_many_candidates",
        Some(Reason::AnswerTooLarge) => "answer_too_large",
        Some(Reason::NotParquet) => "not_parquet",
        Some(Reason::Corrupt | Reason::ParquetLimit | Reason::Checksum) => "corrupt",
        Some(Reason::Unsupported) => "unsupported",
        Some(Reason::Encrypted) => "encrypted",
        Some(Reason::VersionChanged) => "version_changed",
        Some(Reason::OriginDenied) => "origin_denied",
        Some(Reason::OriginUnavailable) => "origin_unavailable",
        Some(Reason::Draining | Reason::NoWorker) => "no_worker",
        Some(Reason::Deadline | Reason::IndexBuilding) => "deadline",
        Some(Reason::Overloaded) => "overloaded",
        Some(Reason::Cancelled) => "cancelled",
        Some(Reason::Bug) => "internal",
        _ => class_of_kind(kind),
    }
}

/// The same for an error without a reason, or with one that is newer than this command.
fn class_of_kind(kind: Kind) -> &'static str {
    match kind {
        Kind::NotFound => "no_such_file",
        Kind::Invalid => BAD_REQUEST,
        Kind::Denied => "origin_denied",
        Kind::Unavailable => "no_worker",
        Kind::Deadline => "deadline",
        Kind::Exhausted => "overloaded",
        Kind::Failed => "unsupported",
        Kind::DataLoss => "corrupt",
        Kind::VersionChanged => "version_changed",
        Kind::Cancelled => "cancelled",
        _ => "internal",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use alcedo_client::{Column, KeyStatus, Row, RowSchema, Source, Value};

    use super::*;

    fn file(url: &str, ty: &str, rows: &[(u32, u64, i64)]) -> FileAnswer {
        let columns = vec![Column { name: "c".into(), ty: ty.parse().unwrap() }];
        let row = |&(key_index, row_number, value)| Row { key_index, row_number, values: vec![Value::Int(value)] };
        FileAnswer {
            url: url.into(),
            version: format!("v of {url}").into(),
            schema: Arc::new(RowSchema { columns }),
            rows: rows.iter().map(row).collect(),
            arrow: None,
        }
    }

    fn answer(files: Vec<FileAnswer>) -> Answer {
        Answer {
            files,
            statuses: vec![KeyStatus::Found],
            ring_epoch: 7,
            worker: Arc::from("127.0.0.1:7610"),
            source: Source::Memory,
            files_total: 1,
            files_asked: 1,
            origin_gets: 0,
            origin_bytes: 0,
            trace: None,
            elapsed: Duration::ZERO,
        }
    }

    #[test]
    fn rows_of_one_file_are_four_fields() {
        let one = answer(vec![file("a", "int8", &[(0, 4, 1), (1, 5, 2), (0, 6, 3)])]);
        let wanted = r#"{"rows":[["1"],["3"]],"types":["int8"],"row_numbers":[4,6],"version":"v of a"}"#;
        assert_eq!(rows(&one).to_string(), wanted);
    }

    #[test]
    fn no_rows_name_a_version_only_where_one_file_was_asked() {
        let wanted = r#"{"rows":[],"types":[],"row_numbers":[],"version":""}"#;
        assert_eq!(rows(&answer(Vec::new())).to_string(), wanted);
        assert_eq!(rows(&answer(vec![file("a", "int8", &[(1, 4, 1)])])).to_string(), wanted);
        let named = r#"{"rows":[],"types":["int8"],"row_numbers":[],"version":"v of a"}"#;
        assert_eq!(rows(&answer(vec![file("a", "int8", &[])])).to_string(), named);
    }

    #[test]
    fn rows_of_several_files_stand_in_order_and_the_files_beside() {
        let files =
            vec![file("a", "int8", &[(0, 4, 1)]), file("b", "int8", &[(1, 0, 1)]), file("c", "int64", &[(0, 0, 2)])];
        let wanted = json!({
            "rows": [["1"], ["2"]],
            "types": ["int8"],
            "row_numbers": [4, 0],
            "version": "v of a",
            "files": [
                { "url": "a", "version": "v of a", "rows": 1, "types": ["int8"] },
                { "url": "c", "version": "v of c", "rows": 1, "types": ["int64"] },
            ],
        });
        assert_eq!(rows(&answer(files)), wanted);
    }

    #[test]
    fn errors_have_a_class() {
        for (kind, reason, wanted) in [
            (Kind::Invalid, Some(Reason::NoSuchColumn), "no_such_column"),
            (Kind::DataLoss, Some(Reason::Checksum), "corrupt"),
            (Kind::Invalid, Some(Reason::ParquetLimit), "corrupt"),
            (Kind::Failed, Some(Reason::Encrypted), "encrypted"),
            (Kind::Unavailable, Some(Reason::OriginUnavailable), "origin_unavailable"),
            (Kind::Unavailable, None, "no_worker"),
            (Kind::Deadline, None, "deadline"),
            (Kind::Internal, None, "internal"),
        ] {
            assert_eq!(class(kind, reason), wanted, "{kind:?} {reason:?}");
        }
    }

    #[test]
    fn a_message_quotes_no_endless_line() {
        let short = Refusal::new(BAD_REQUEST, "x\n\u{1b}").json().to_string();
        assert_eq!(short, r#"{"error":{"class":"bad_request","message":"x\n\u001b"}}"#);
        let long = Refusal::new(BAD_KEY, "ü".repeat(MAX_MESSAGE_CHARS + 1)).json();
        let message = long["error"]["message"].as_str().unwrap();
        assert_eq!(message.chars().count(), MAX_MESSAGE_CHARS + 1);
        assert!(message.ends_with("ü…"));
    }
}
