//! Layer 1: the name of one content of one file.
//!
//! Knows a canonical URL and a content version as texts. It must not know how either is made. Both are in every key of
//! this crate, so bytes of an old version are unreachable rather than invalidated, and both are compared in full, so a
//! collision of digests costs a little time and never an answer.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

/// One content version of one file. A clone is cheap; make it once per request.
#[derive(Debug, Clone)]
pub struct FileKey {
    url: Arc<str>,
    version: Arc<str>,
    digest: u64,
}

impl FileKey {
    /// The key of the file with this canonical URL in this content version.
    pub fn new(url: impl Into<Arc<str>>, version: impl Into<Arc<str>>) -> Self {
        let (url, version) = (url.into(), version.into());
        let mut hasher = Xxh3::new();
        for text in [&url, &version] {
            // With its length in front, no byte can move from one text to the other and leave the digest as it was.
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        let digest = hasher.digest();
        Self { url, version, digest }
    }

    /// The file's canonical URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The content version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// xxh3-64 of URL and version, each with its length in front; for choosing a place, not for telling files apart.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Bytes of both texts, which whoever keeps the key keeps alive.
    pub(crate) fn text_bytes(&self) -> usize {
        self.url.len() + self.version.len()
    }
}

impl PartialEq for FileKey {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: &Arc<str>, b: &Arc<str>| Arc::ptr_eq(a, b) || a == b;
        self.digest == other.digest && same(&self.url, &other.url) && same(&self.version, &other.version)
    }
}

impl Eq for FileKey {}

impl Hash for FileKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.digest);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn url_and_version_both_count_and_do_not_run_into_each_other() {
        let key = FileKey::new("s3://lake/a", "1");
        assert_eq!(key, FileKey::new("s3://lake/a".to_owned(), "1"));
        assert_eq!(key.digest(), FileKey::new("s3://lake/a", "1").digest());
        for other in
            [FileKey::new("s3://lake/a", "2"), FileKey::new("s3://lake/b", "1"), FileKey::new("s3://lake/a1", "")]
        {
            assert_ne!(key, other);
            assert_ne!(key.digest(), other.digest());
        }
    }

    #[test]
    fn files_whose_digests_collide_stay_apart() {
        let twin = |url: &str| FileKey { url: url.into(), version: "1".into(), digest: 7 };
        let map = HashMap::from([(twin("a"), 1), (twin("b"), 2)]);
        assert_eq!((map.len(), map[&twin("a")], map[&twin("b")]), (2, 1, 2));
    }
}
