//! Layer 3: the settings of lookups.
//!
//! Knows the table `[lookup]`, its defaults, and which of it is a bound on files. It must not know rules between
//! settings, which `config` checks.

use std::time::Duration;

use alcedo_lookup::limits::Limits;
use alcedo_origin::MAX_PATH_BYTES;
use serde::Deserialize;

use crate::units;

/// Ceiling of `lookup.footer_bytes`: a footer is held several times over while it is parsed.
const MAX_FOOTER_BYTES: u64 = 64 << 20;
/// Ceiling of `lookup.schema_depth` and `lookup.thrift_depth`: decoding recurses per level, and a thread's stack is
/// finite.
const MAX_SCHEMA_DEPTH: usize = 100;
/// Ceiling of what a file itself counts in 32 bits with a sign: sizes and values of pages, elements of lists.
const MAX_THRIFT_COUNT: usize = i32::MAX as usize;
/// Ceiling of `lookup.broken_ttl`: a store that mends its copy of a file does not change the file's version.
const MAX_BROKEN_TTL: Duration = Duration::from_secs(3_600);
/// Ceiling of `lookup.max_keys`, which the wire contract names.
const MAX_KEYS: usize = 1_024;
/// What is read along on suspicion at most: more than a trip is worth anywhere but at the fastest of stores.
const MAX_SPECULATE_BYTES: u64 = 4 << 20;
/// Wait of lookups for their turn from which on a thread is short of CPU: that of ten lookups from compressed data
/// pages.
const PAGES_WAIT: Duration = Duration::from_millis(2);
/// Data pages in place of one lookup's rows: some columns of one row, or two columns of eight, at 64 KiB each; a line
/// of 10 Gbit/s carries them in a millisecond.
const PAGES_BYTES: u64 = 1 << 20;
/// Ceiling of `lookup.pages_bytes`: an answer's usual bound.
const MAX_PAGES_BYTES: u64 = 64 << 20;
/// Ceiling of every count that bounds a queue or a table: above it a bound protects nothing.
pub(crate) const MAX_COUNT: usize = 1_000_000;

/// The table `[lookup]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // Each key's meaning is in `CONFIG_KEYS`, under the same name.
pub struct LookupConfig {
    #[serde(deserialize_with = "units::size")]
    pub tail_bytes: u64,
    pub max_files: usize,
    pub max_candidates: usize,
    pub permits: usize,
    #[serde(deserialize_with = "units::duration")]
    pub default_timeout: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub max_timeout: Duration,
    #[serde(deserialize_with = "units::memory_size")]
    pub max_path_bytes: usize,
    pub max_keys: usize,
    pub answer_rows: usize,
    #[serde(deserialize_with = "units::memory_size")]
    pub answer_bytes: usize,
    #[serde(deserialize_with = "units::duration")]
    pub pages_wait: Duration,
    #[serde(deserialize_with = "units::size")]
    pub pages_bytes: u64,
    #[serde(deserialize_with = "units::size")]
    pub speculate_bytes: u64,
    #[serde(deserialize_with = "units::size")]
    pub coalesce_gap_bytes: u64,
    #[serde(deserialize_with = "units::size")]
    pub footer_bytes: u64,
    pub schema_depth: usize,
    pub schema_elements: usize,
    #[serde(deserialize_with = "units::memory_size")]
    pub schema_bytes: usize,
    pub row_groups: usize,
    pub column_chunks: usize,
    pub thrift_depth: usize,
    pub list_elements: usize,
    #[serde(deserialize_with = "units::memory_size")]
    pub index_bytes: usize,
    pub chunk_pages: usize,
    #[serde(deserialize_with = "units::memory_size")]
    pub page_compressed_bytes: usize,
    #[serde(deserialize_with = "units::memory_size")]
    pub page_bytes: usize,
    pub page_values: usize,
    pub dictionary_values: usize,
    #[serde(deserialize_with = "units::size")]
    pub scan_bytes: u64,
    #[serde(deserialize_with = "units::size")]
    pub row_bytes: u64,
    #[serde(deserialize_with = "units::memory_size")]
    pub inflate_bytes: usize,
    #[serde(deserialize_with = "units::size")]
    pub learn_bytes: u64,
    #[serde(deserialize_with = "units::duration")]
    pub broken_ttl: Duration,
}

impl Default for LookupConfig {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            tail_bytes: 64 << 10,
            max_files: 10_000,
            max_candidates: 256,
            permits: 512,
            default_timeout: Duration::from_secs(1),
            max_timeout: Duration::from_secs(30),
            max_path_bytes: MAX_PATH_BYTES,
            max_keys: MAX_KEYS,
            answer_rows: limits.answer_rows,
            answer_bytes: limits.answer_bytes,
            pages_wait: PAGES_WAIT,
            pages_bytes: PAGES_BYTES,
            speculate_bytes: MAX_SPECULATE_BYTES,
            coalesce_gap_bytes: limits.coalesce_gap_bytes,
            footer_bytes: limits.footer_bytes,
            schema_depth: limits.schema_depth,
            schema_elements: limits.schema_elements,
            schema_bytes: limits.schema_bytes,
            row_groups: limits.row_groups,
            column_chunks: limits.column_chunks,
            thrift_depth: limits.thrift_depth,
            list_elements: limits.list_elements,
            index_bytes: limits.index_bytes,
            chunk_pages: limits.chunk_pages,
            page_compressed_bytes: limits.page_compressed_bytes,
            page_bytes: limits.page_bytes,
            page_values: limits.page_values,
            dictionary_values: limits.dictionary_values,
            scan_bytes: limits.scan_bytes,
            row_bytes: limits.row_bytes,
            inflate_bytes: limits.inflate_bytes,
            learn_bytes: limits.learn_bytes,
            broken_ttl: Duration::from_secs(10),
        }
    }
}

impl LookupConfig {
    /// The bounds within which files are read.
    pub fn limits(&self) -> Limits {
        Limits {
            footer_bytes: self.footer_bytes,
            schema_depth: self.schema_depth,
            schema_elements: self.schema_elements,
            schema_bytes: self.schema_bytes,
            row_groups: self.row_groups,
            column_chunks: self.column_chunks,
            thrift_depth: self.thrift_depth,
            list_elements: self.list_elements,
            index_bytes: self.index_bytes,
            chunk_pages: self.chunk_pages,
            page_compressed_bytes: self.page_compressed_bytes,
            page_bytes: self.page_bytes,
            page_values: self.page_values,
            dictionary_values: self.dictionary_values,
            scan_bytes: self.scan_bytes,
            row_bytes: self.row_bytes,
            inflate_bytes: self.inflate_bytes,
            learn_bytes: self.learn_bytes,
            answer_rows: self.answer_rows,
            answer_bytes: self.answer_bytes,
            speculate_bytes: self.speculate_bytes,
            coalesce_gap_bytes: self.coalesce_gap_bytes,
        }
    }

    /// Whether every value is in its range.
    ///
    /// # Errors
    /// The first that is not: its key, and what it may be.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        for (key, value, ceiling) in self.counts() {
            if value == 0 || value > ceiling {
                return Err((key, format!("{key} is at least 1 and at most {ceiling}")));
            }
        }
        for (key, value) in [("lookup.scan_bytes", self.scan_bytes), ("lookup.row_bytes", self.row_bytes)] {
            if value == 0 {
                return Err((key, format!("{key} is at least 1")));
            }
        }
        if self.pages_bytes > MAX_PAGES_BYTES {
            return Err(("lookup.pages_bytes", "lookup.pages_bytes is at most 64MiB".to_owned()));
        }
        if self.broken_ttl > MAX_BROKEN_TTL {
            return Err(("lookup.broken_ttl", "lookup.broken_ttl is at most 1h".to_owned()));
        }
        if self.footer_bytes > MAX_FOOTER_BYTES {
            return Err(("lookup.footer_bytes", "lookup.footer_bytes is at most 64MiB".to_owned()));
        }
        if self.tail_bytes < 8 || self.tail_bytes > MAX_FOOTER_BYTES {
            let why = "lookup.tail_bytes is at least 8 and at most 64MiB".to_owned();
            return Err(("lookup.tail_bytes", why));
        }
        if self.default_timeout.is_zero() || self.default_timeout > self.max_timeout {
            let why = "lookup.default_timeout is longer than zero and at most lookup.max_timeout".to_owned();
            return Err(("lookup.default_timeout", why));
        }
        Ok(())
    }

    /// What is counted, with its ceiling.
    fn counts(&self) -> [(&'static str, usize, usize); 21] {
        [
            ("lookup.max_files", self.max_files, MAX_COUNT),
            ("lookup.max_candidates", self.max_candidates, MAX_COUNT),
            ("lookup.permits", self.permits, MAX_COUNT),
            ("lookup.max_path_bytes", self.max_path_bytes, MAX_PATH_BYTES),
            ("lookup.max_keys", self.max_keys, MAX_KEYS),
            ("lookup.answer_rows", self.answer_rows, usize::MAX),
            ("lookup.answer_bytes", self.answer_bytes, usize::MAX),
            ("lookup.schema_depth", self.schema_depth, MAX_SCHEMA_DEPTH),
            ("lookup.schema_elements", self.schema_elements, MAX_COUNT),
            ("lookup.row_groups", self.row_groups, MAX_COUNT),
            ("lookup.schema_bytes", self.schema_bytes, MAX_THRIFT_COUNT),
            ("lookup.column_chunks", self.column_chunks, MAX_THRIFT_COUNT),
            ("lookup.thrift_depth", self.thrift_depth, MAX_SCHEMA_DEPTH),
            ("lookup.list_elements", self.list_elements, MAX_THRIFT_COUNT),
            ("lookup.index_bytes", self.index_bytes, MAX_THRIFT_COUNT),
            ("lookup.chunk_pages", self.chunk_pages, MAX_THRIFT_COUNT),
            ("lookup.page_compressed_bytes", self.page_compressed_bytes, MAX_THRIFT_COUNT),
            ("lookup.page_bytes", self.page_bytes, MAX_THRIFT_COUNT),
            ("lookup.page_values", self.page_values, MAX_THRIFT_COUNT),
            ("lookup.dictionary_values", self.dictionary_values, MAX_THRIFT_COUNT),
            ("lookup.inflate_bytes", self.inflate_bytes, usize::MAX),
        ]
    }
}
