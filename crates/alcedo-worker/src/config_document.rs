//! Layer 3: the text that settings come from.
//!
//! Knows keys, lines and origins of a TOML document, and how an error in it is told. It must not know which settings
//! there are.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

/// How alike an unknown key must be to a known one to be suggested (Jaro-Winkler, 1 is equal).
const ALIKE: f64 = 0.75;

/// A setting that cannot be used. The message is one line: where, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}{message}")]
pub struct ConfigError {
    /// `file:line: `, `origin of an override: `, or empty for a default.
    pub(crate) place: String,
    pub(crate) message: String,
}

/// What settings were read from: the merged document, and where each key in it stands.
#[derive(Clone, Default)]
pub(crate) struct Document {
    pub(crate) table: toml::Table,
    pub(crate) origins: BTreeMap<String, String>,
}

impl std::fmt::Debug for Document {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The raw text may hold a credential in a URL.
        out.debug_struct("Document").finish_non_exhaustive()
    }
}

impl Document {
    /// Reads a file that `file_name` names in messages.
    pub(crate) fn from_toml(text: &str, file_name: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = toml::from_str(text).map_err(|error| in_file(text, file_name, &error))?;
        let spans = DeTable::parse(text).map_err(|error| in_file(text, file_name, &error))?;
        let mut origins = BTreeMap::new();
        record_origins(spans.get_ref(), "", &mut |key, at| {
            origins.insert(key, format!("{file_name}:{}", line_of(text, at)));
        });
        Ok(Self { table, origins })
    }

    pub(crate) fn value(&self, key: &str) -> Option<&toml::Value> {
        match key.split_once('.') {
            None => self.table.get(key),
            Some((table, name)) => self.table.get(table)?.get(name),
        }
    }

    pub(crate) fn mount_field(&self, index: usize, field: &str) -> bool {
        self.table.get("mount").and_then(|mounts| mounts.get(index)).is_some_and(|mount| mount.get(field).is_some())
    }

    /// Where a key stands; for a key inside an overridden list, the list's origin.
    pub(crate) fn origin(&self, key: &str) -> String {
        let found = self.origins.get(key).or_else(|| self.origins.get(key.split('.').next()?));
        found.cloned().unwrap_or_else(|| "default".to_owned())
    }
}

/// The message for an error inside a file.
pub(crate) fn in_file(text: &str, file_name: &str, error: &toml::de::Error) -> ConfigError {
    let Some(span) = error.span() else {
        return ConfigError { place: format!("{file_name}: "), message: plain(error.message()) };
    };
    let number = line_of(text, span.start);
    let line = text.lines().nth(number - 1).unwrap_or_default();
    let key =
        line.split_once('=').map(|(key, _)| key.trim()).filter(|key| !key.is_empty() && !key.starts_with(['[', '#']));
    let message = match (unknown_field(error.message()), key) {
        (Some((key, known)), _) => unknown_key(key, &known),
        (None, Some(key)) => format!("`{key}`: {}", plain(error.message())),
        (None, None) => plain(error.message()),
    };
    ConfigError { place: format!("{file_name}:{number}: "), message }
}

/// One line without the parser's line breaks.
pub(crate) fn plain(message: &str) -> String {
    message.trim().replace('\n', "; ")
}

/// Serde's words for an unknown key: the key, and the keys that its table has.
pub(crate) fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let (key, known) = message.strip_prefix("unknown field `")?.rsplit_once("`, expected ")?;
    Some((key, known.split('`').skip(1).step_by(2).collect()))
}

pub(crate) fn unknown_key(key: &str, known: &[&str]) -> String {
    match nearest(key, known) {
        Some(alike) => format!("unknown key `{key}`: did you mean `{alike}`?"),
        None => format!("unknown key `{key}`: known here are {}", known.join(", ")),
    }
}

pub(crate) fn nearest<'k>(wanted: &str, known: &[&'k str]) -> Option<&'k str> {
    let scored = known.iter().map(|key| (strsim::jaro_winkler(wanted, key), *key));
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score >= ALIKE).map(|(_, key)| key)
}

/// The 1-based line of a byte.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// Tells `found` the dotted name of every key in a table, with the byte where it stands.
fn record_origins(table: &DeTable<'_>, above: &str, found: &mut impl FnMut(String, usize)) {
    for (key, value) in table {
        let name = format!("{above}{}", key.get_ref());
        found(name.clone(), key.span().start);
        match value.get_ref() {
            DeValue::Table(inner) => record_origins(inner, &format!("{name}."), found),
            DeValue::Array(items) => {
                let tables = items.iter().enumerate().filter_map(|(i, item)| Some((i, item.get_ref().as_table()?)));
                tables.for_each(|(i, inner)| record_origins(inner, &format!("{name}.{i}."), found));
            }
            _ => {}
        }
    }
}
