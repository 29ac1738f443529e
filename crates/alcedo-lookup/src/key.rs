//! Keys as callers give them, before a column's type is known.

use bytes::Bytes;

/// One key to look up. The variant need not be the column's type: the value is converted exactly or not at all, and a
/// value outside the column's range is a key that no row has.
#[derive(Debug, Clone, PartialEq)]
pub enum Key {
    /// Read by the column's type, as `proto/alcedo/v1/values.proto` says.
    Text(String),
    /// Integers; dates, times and timestamps as counts of the column's unit.
    Int(i64),
    /// Integers above 2^63 - 1.
    UInt(u64),
    /// Floating-point columns, and integers where the value is whole.
    Float(f64),
    /// Boolean columns.
    Bool(bool),
    /// Binary, fixed, string and UUID columns.
    Bytes(Bytes),
    /// The rows whose key column is null.
    Null,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "`{text}`"),
            Self::Int(value) => write!(f, "{value}"),
            Self::UInt(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Bytes(bytes) => write!(f, "of {} bytes", bytes.len()),
            Self::Null => f.write_str("null"),
        }
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Key {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<i32> for Key {
    fn from(value: i32) -> Self {
        Self::Int(value.into())
    }
}

impl From<u64> for Key {
    fn from(value: u64) -> Self {
        Self::UInt(value)
    }
}

impl From<f64> for Key {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<bool> for Key {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<Bytes> for Key {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}
