//! Layer 3: what is known to be wrong with content versions of files.
//!
//! Knows, for a while, which versions cannot be opened and which of their parts cannot be read. It must not know how
//! that was found out, nor what is done about it. What is remembered was read twice, the second time from the origin:
//! bytes that were damaged on their way are no property of a file. Parts are remembered one by one, because the other
//! keys and columns of such a file are as good as ever.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use alcedo_cache::FileKey;
use moka::sync::Cache;

use crate::error::Error;

/// Bytes of what is remembered: tens of thousands of broken versions. A flood of them costs further reads of the
/// origin, never memory.
const MAX_BYTES: u64 = 16 << 20;
/// What an entry costs beside its texts.
const ENTRY_OVERHEAD_BYTES: usize = 256;
/// Parts of one version that are remembered. Whoever finds more of them wrong is told so without another read of the
/// origin: such a file is broken through and through, and each read anew drops all pages that are here of it.
const MAX_PARTS: usize = 16;

/// What is wrong with files, until a time has passed since it was found.
#[derive(Debug, Clone)]
pub(crate) struct Damage {
    unopened: Cache<FileKey, Error>,
    /// Digests of what was said of each part.
    parts: Cache<FileKey, Arc<[u64]>>,
}

impl Damage {
    /// Nothing yet; what will be found is believed for so long.
    pub(crate) fn new(ttl: Duration) -> Self {
        let unopened = Cache::builder().max_capacity(MAX_BYTES / 2).time_to_live(ttl);
        let unopened = unopened.weigher(|key: &FileKey, error: &Error| weight(key, error.to_string().len()));
        let parts = Cache::builder().max_capacity(MAX_BYTES / 2).time_to_live(ttl);
        let parts = parts.weigher(|key: &FileKey, parts: &Arc<[u64]>| weight(key, size_of_val(&**parts)));
        Self { unopened: unopened.build(), parts: parts.build() }
    }

    /// Why a version cannot be opened.
    pub(crate) fn of_opening(&self, key: &FileKey) -> Option<Error> {
        self.unopened.get(key)
    }

    /// A version cannot be opened.
    pub(crate) fn not_opened(&self, key: &FileKey, error: &Error) {
        self.unopened.insert(key.clone(), error.clone());
    }

    /// Whether it is known that this is what the origin's bytes of this version come to.
    pub(crate) fn is_known(&self, key: &FileKey, error: &Error) -> bool {
        let parts = self.parts.get(key);
        parts.is_some_and(|parts| parts.len() >= MAX_PARTS || parts.contains(&digest(error)))
    }

    /// A part of a version cannot be read.
    pub(crate) fn not_read(&self, key: &FileKey, error: &Error) {
        let known = self.parts.get(key).unwrap_or_default();
        // Of two who find something at the same time one may be lost, which costs another read.
        let parts = known.iter().copied().chain([digest(error)]).take(MAX_PARTS).collect();
        self.parts.insert(key.clone(), parts);
    }

    /// Nothing is known of a version any more.
    pub(crate) fn forget(&self, key: &FileKey) {
        self.unopened.invalidate(key);
        self.parts.invalidate(key);
    }
}

fn weight(key: &FileKey, bytes: usize) -> u32 {
    u32::try_from(key.url().len() + key.version().len() + bytes + ENTRY_OVERHEAD_BYTES).unwrap_or(u32::MAX)
}

/// A message names the part and may be as long as a hostile column name; to know it again takes 64 bits. Two that meet
/// cost a read of the origin that is not made.
fn digest(error: &Error) -> u64 {
    let mut hasher = DefaultHasher::new();
    error.to_string().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use alcedo_lookup::error::Error as FileError;

    const LONG: Duration = Duration::from_secs(3_600);

    fn error(part: usize) -> Error {
        Error::file(&"s3://lake/a".into(), FileError::Checksum(format!("data page {part} of `x`")))
    }

    fn key(version: &str) -> FileKey {
        FileKey::new("s3://lake/a", version)
    }

    #[test]
    fn parts_are_known_one_by_one_and_per_version() {
        let damage = Damage::new(LONG);
        assert!(!damage.is_known(&key("1"), &error(1)));
        damage.not_read(&key("1"), &error(1));
        damage.not_read(&key("1"), &error(2));
        let known = |version, part| damage.is_known(&key(version), &error(part));
        assert_eq!([known("1", 1), known("1", 2), known("1", 3), known("2", 1)], [true, true, false, false]);
        assert!(damage.of_opening(&key("1")).is_none());
        damage.not_opened(&key("1"), &error(9));
        assert_eq!(damage.of_opening(&key("1")).unwrap().to_string(), error(9).to_string());
        damage.forget(&key("1"));
        assert!(!damage.is_known(&key("1"), &error(1)) && damage.of_opening(&key("1")).is_none());
    }

    #[test]
    fn a_version_that_is_broken_everywhere_is_not_read_again_for_each_part() {
        let damage = Damage::new(LONG);
        (0..MAX_PARTS + 5).for_each(|part| damage.not_read(&key("1"), &error(part)));
        assert!(damage.is_known(&key("1"), &error(1_000_000)));
        assert_eq!(damage.parts.get(&key("1")).unwrap().len(), MAX_PARTS);
    }

    #[test]
    fn memory_is_bounded_also_where_messages_are_long() {
        let damage = Damage::new(LONG);
        let long = Error::file(&"s3://lake/a".into(), FileError::Corrupt("x".repeat(1 << 20)));
        for version in 0..100 {
            damage.not_opened(&key(&version.to_string()), &long);
            damage.not_read(&key(&version.to_string()), &long);
        }
        damage.unopened.run_pending_tasks();
        damage.parts.run_pending_tasks();
        assert!(damage.unopened.weighted_size() <= MAX_BYTES / 2, "{}", damage.unopened.weighted_size());
        assert!(damage.parts.weighted_size() < 100 << 10, "{}", damage.parts.weighted_size());
    }

    #[test]
    fn what_was_found_is_believed_for_a_while_only() {
        let damage = Damage::new(Duration::ZERO);
        damage.not_opened(&key("1"), &error(1));
        damage.not_read(&key("1"), &error(1));
        assert!(damage.of_opening(&key("1")).is_none() && !damage.is_known(&key("1"), &error(1)));
    }
}
