//! What can be wrong with a file or a question about it.

/// Why a machine stopped without a value. The messages do not name the file: whoever drives the machine knows its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are no Parquet file at all.
    #[error("not a Parquet file: {0}")]
    NotParquet(String),
    /// A Parquet file whose bytes contradict the format or themselves.
    #[error("corrupt Parquet file: {0}")]
    Corrupt(String),
    /// A data page whose CRC is not that of its bytes.
    #[error("checksum mismatch in {0}: the stored bytes are damaged")]
    Checksum(String),
    /// Valid Parquet that this version cannot read.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// An encrypted footer or column.
    #[error("encrypted: {0}")]
    Encrypted(String),
    /// A bound of [`Limits`](crate::limits::Limits) was passed.
    #[error("over a bound: {0}")]
    Limit(String),
    /// The answer passes a bound of [`Limits`](crate::limits::Limits).
    #[error("answer too large: {0}")]
    AnswerTooLarge(String),
    /// A key or projected column that the file has not.
    #[error("no column `{name}`{}", hint_text(.hint))]
    NoSuchColumn {
        /// What was asked for.
        name: String,
        /// What may have been meant.
        hint: Option<String>,
    },
    /// The request named no key column and the file declares no sort order.
    #[error("the file declares no sort order: name the key column (its columns: {columns})")]
    NoKeyColumn {
        /// The file's columns, for the message.
        columns: String,
    },
    /// A key that cannot be read as the column's type.
    #[error("key {key} does not read as {ty} (column `{column}`): {wanted}")]
    BadKey {
        /// The key as it was given.
        key: String,
        /// The column's type.
        ty: String,
        /// The key column.
        column: String,
        /// What would be read.
        wanted: String,
    },
}

fn hint_text(hint: &Option<String>) -> String {
    hint.as_ref().map(|name| format!(": did you mean `{name}`?")).unwrap_or_default()
}

impl Error {
    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt(what.into())
    }

    /// The same, with the place in the file in front of what is wrong there.
    pub(crate) fn within(self, place: &str) -> Self {
        match self {
            Self::Corrupt(what) => Self::Corrupt(format!("{place}: {what}")),
            Self::Checksum(_) => Self::Checksum(place.to_owned()),
            Self::Limit(what) => Self::Limit(format!("{place}: {what}")),
            other => other,
        }
    }

    /// The file itself is at fault: asking again about the same content version gives the same error.
    pub fn is_about_the_file(&self) -> bool {
        match self {
            Self::NotParquet(_)
            | Self::Corrupt(_)
            | Self::Checksum(_)
            | Self::Unsupported(_)
            | Self::Encrypted(_)
            | Self::Limit(_) => true,
            Self::AnswerTooLarge(_) | Self::NoSuchColumn { .. } | Self::NoKeyColumn { .. } | Self::BadKey { .. } => {
                false
            }
        }
    }
}

/// A name out of a file as it stands in an error: names can be megabytes long.
pub(crate) fn shown(name: &str) -> std::borrow::Cow<'_, str> {
    const MAX_BYTES: usize = 100;
    if name.len() <= MAX_BYTES {
        return name.into();
    }
    format!("{}...", &name[..name.floor_char_boundary(MAX_BYTES)]).into()
}

impl From<parquet::errors::ParquetError> for Error {
    fn from(error: parquet::errors::ParquetError) -> Self {
        match error {
            parquet::errors::ParquetError::NYI(what) => Self::Unsupported(what),
            other => Self::Corrupt(other.to_string()),
        }
    }
}
