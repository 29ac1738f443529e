//! How answers look: rows as table, JSON, CSV, raw bytes or Arrow; everything else as aligned columns or JSON.
//!
//! The output layer turns values into bytes and writes nothing. It knows rows, columns and types; it must not know the
//! client, endpoints or commands, so that every format is tested without a worker.

pub(crate) mod aligned;
pub(crate) mod arrow;
pub(crate) mod calendar;
pub(crate) mod delimited;
pub(crate) mod neutral;
pub(crate) mod printer;
pub(crate) mod quantity;
pub(crate) mod row_set;
pub(crate) mod rows_json;
pub(crate) mod summary;
pub(crate) mod table;
pub(crate) mod tree;
pub(crate) mod value_text;

use clap::ValueEnum;

use crate::failure::Failure;

/// The version of the JSON shapes, as their `apiVersion`.
pub(crate) const API_VERSION: &str = "alcedo/v1";

/// The formats of `-o`. Which of them a command has is in its help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A boxed table for rows, aligned columns for everything else
    Table,
    /// One versioned JSON document
    Json,
    /// One JSON object per line
    Jsonl,
    /// Comma-separated values with a header line
    Csv,
    /// Tab-separated values with a header line
    Tsv,
    /// One Arrow IPC stream (not on a terminal)
    Arrow,
    /// The bytes of one column's values
    Raw,
    /// Names only, one per line
    Name,
}

impl Format {
    /// The format that was asked for, if this command has it.
    ///
    /// # Errors
    /// A usage error that names the command's formats.
    pub(crate) fn among(asked: Option<Self>, default: Self, allowed: &[Self]) -> Result<Self, Failure> {
        let format = asked.unwrap_or(default);
        if allowed.contains(&format) {
            return Ok(format);
        }
        let names: Vec<String> = allowed.iter().map(|format| format.name()).collect();
        Err(Failure::usage(format!("this command does not print {}", format.name()))
            .hint(format!("it prints: {}", names.join(", "))))
    }

    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// A JSON document as bytes that end with a line feed.
pub(crate) fn json_document(document: &serde_json::Value) -> Vec<u8> {
    let mut bytes = document.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

/// Text that cannot steer a terminal: control characters stand as escapes. Names and values come from files that
/// anybody may have written.
pub(crate) fn printable(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return text.into();
    }
    let escaped = text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() });
    escaped.collect::<String>().into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_format_that_a_command_lacks_is_a_usage_error() {
        let failure = Format::among(Some(Format::Csv), Format::Table, &[Format::Table, Format::Json]).unwrap_err();
        assert_eq!(failure.to_string(), "error: this command does not print csv\nhint: it prints: table, json\n");
        assert_eq!(failure.code(), 2);
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(printable("plain ü"), "plain ü");
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(printable("\u{9b}31m"), "\\u{9b}31m");
    }
}
