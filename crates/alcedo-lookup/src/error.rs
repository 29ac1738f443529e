//! What can be wrong with a file or a question about it.

/// Why a machine stopped without a value. The messages do not name the file: whoever drives the machine knows its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are no Parquet file at all.
    #[error("not a Parquet file: {}", Short::text(.0))]
    NotParquet(String),
    /// A Parquet file whose bytes contradict the format or themselves.
    #[error("corrupt Parquet file: {}", Short::text(.0))]
    Corrupt(String),
    /// A data page whose CRC is not that of its bytes.
    #[error("checksum mismatch in {}: the stored bytes are damaged", Short::text(.0))]
    Checksum(String),
    /// The decoder panicked over bytes that no writer makes.
    #[error("corrupt Parquet file: the decoder gave up on {0}")]
    DecoderPanicked(String),
    /// Valid Parquet that this version cannot read.
    #[error("unsupported: {}", Short::text(.0))]
    Unsupported(String),
    /// An encrypted footer or column.
    #[error("encrypted: {}", Short::text(.0))]
    Encrypted(String),
    /// A bound of [`Limits`](crate::limits::Limits) was passed.
    #[error("over a bound: {}", Short::text(.0))]
    Limit(String),
    /// The answer passes a bound of [`Limits`](crate::limits::Limits).
    #[error("answer too large: {0}")]
    AnswerTooLarge(String),
    /// A key or projected column that the file has not.
    #[error("no column `{}`{}", Short::name(.name), hint_text(.hint))]
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
    #[error(
        "key {} does not read as {} (column `{}`): {wanted}",
        Short::name(.key),
        Short::name(.ty),
        Short::name(.column)
    )]
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
    hint.as_ref().map(|name| format!(": did you mean `{}`?", Short::name(name))).unwrap_or_default()
}

/// A text that may come from a file, cut so that a message stays a line: names in files may be megabytes long.
pub(crate) struct Short<'a> {
    text: &'a str,
    bytes: usize,
}

impl<'a> Short<'a> {
    /// Bytes of a column's name, a type or a key in a message.
    pub(crate) const NAME_BYTES: usize = 100;
    /// Bytes of a whole message.
    const TEXT_BYTES: usize = 500;

    pub(crate) fn name(text: &'a str) -> Self {
        Self { text, bytes: Self::NAME_BYTES }
    }

    fn text(text: &'a str) -> Self {
        Self { text, bytes: Self::TEXT_BYTES }
    }
}

impl std::fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = self.text.floor_char_boundary(self.bytes);
        f.write_str(&self.text[..end])?;
        f.write_str(if end < self.text.len() { "…" } else { "" })
    }
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
            | Self::DecoderPanicked(_)
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
