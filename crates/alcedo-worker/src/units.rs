//! Layer 3: sizes and durations as people write them.
//!
//! Knows the spellings `"256MiB"` and `"30s"` in settings. It must not know which setting it reads, so that every size
//! and every duration of the configuration follows one rule and gives one message.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// Reads a size such as `"256MiB"`, or a plain number of bytes.
pub(crate) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Size;
    impl Visitor<'_> for Size {
        type Value = u64;

        fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            out.write_str("a size such as \"256MiB\", or a number of bytes")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u64, E> {
            let size = text.parse::<ByteSize>();
            size.map(|size| size.as_u64()).map_err(|_| E::custom(format!("`{text}` is not a size such as \"256MiB\"")))
        }

        fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<u64, E> {
            Ok(bytes)
        }

        fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<u64, E> {
            u64::try_from(bytes).map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))
        }
    }
    deserializer.deserialize_any(Size)
}

/// Reads a size that must fit this machine's addresses.
pub(crate) fn memory_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    usize::try_from(size(deserializer)?).map_err(|_| D::Error::custom("this machine cannot address so many bytes"))
}

/// Reads the path of a file or a directory; an empty text is none.
pub(crate) fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

/// Reads a duration such as `"30s"` or `"250ms"`.
pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text)
        .map_err(|_| D::Error::custom(format!("`{text}` is not a duration such as \"30s\" or \"250ms\"")))
}
