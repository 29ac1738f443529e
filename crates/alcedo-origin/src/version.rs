//! What tells one content of a file from another. Knows entity tags, sizes and times; must not know how they are
//! fetched or where they are kept, because page keys, index keys and answers all carry the same opaque text.
//!
//! A file's fingerprint has two parts that change independently: the content part, which is [`ContentVersion`], and a
//! metadata part (owner, mode, tags, user metadata). Only the content part decides whether cached bytes are still the
//! file's bytes, so only it is kept here.

use object_store::ObjectMeta;
use std::fmt;
use std::sync::Arc;

/// Opaque name of one content of one file. Equal versions of one file mean equal bytes; nothing else may be read out of
/// the text.
///
/// It is the strong entity tag where the origin gives one (`e:...`; RFC 9110 section 8.8.3), which S3, GCS, Azure and
/// our own `file://` store do in answers and listings alike; an object's version id where it gives only that (`v:...`);
/// else size and modification time (`s:<bytes>-m:<ns>`). The version id is not added to an entity tag because listings
/// do not carry it, and one content must not have two names. For `file://` the tag is made of inode, modification time
/// and size: content that is replaced in place within one tick of the file system's clock, at the same size, or whose
/// time is set back by hand, cannot be told apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentVersion(Arc<str>);

impl ContentVersion {
    /// The version that its text names; for versions that were stored or sent.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The opaque text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The version that an answer's or a listing's metadata shows.
    fn of(meta: &ObjectMeta) -> Self {
        Self(match (strong(meta), &meta.version) {
            (Some(etag), _) => format!("e:{etag}").into(),
            (None, Some(id)) => format!("v:{id}").into(),
            (None, None) => {
                let ns = i128::from(meta.last_modified.timestamp()) * 1_000_000_000
                    + i128::from(meta.last_modified.timestamp_subsec_nanos());
                format!("s:{}-m:{ns}", meta.size).into()
            }
        })
    }
}

impl fmt::Display for ContentVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is known about one version of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStat {
    /// Canonical URL of the file.
    pub url: Arc<str>,
    /// Its content version.
    pub version: ContentVersion,
    /// The strong entity tag, exactly as If-Match wants it, where the origin gives one.
    pub etag: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// Last modification, in microseconds since 1970 (UTC); 0 where the origin does not say.
    pub modified_us: i64,
}

impl FileStat {
    /// The stat that an answer's or a listing's metadata gives for the file at `url`.
    pub(crate) fn of(url: Arc<str>, meta: &ObjectMeta) -> Self {
        Self {
            url,
            version: ContentVersion::of(meta),
            etag: strong(meta).map(str::to_owned),
            size: meta.size,
            modified_us: meta.last_modified.timestamp_micros(),
        }
    }
}

/// The entity tag, unless it is weak: a weak one promises no equal bytes and never satisfies If-Match (RFC 9110 section
/// 13.1.1).
fn strong(meta: &ObjectMeta) -> Option<&str> {
    meta.e_tag.as_deref().filter(|etag| !etag.is_empty() && !etag.starts_with("W/"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use object_store::path::Path;

    fn meta(etag: Option<&str>, version: Option<&str>) -> ObjectMeta {
        ObjectMeta {
            location: Path::from("a"),
            last_modified: DateTime::from_timestamp(7, 5).unwrap(),
            size: 3,
            e_tag: etag.map(str::to_owned),
            version: version.map(str::to_owned),
        }
    }

    #[test]
    fn strong_tags_name_the_content_and_weak_ones_do_not() {
        let version = |etag, id| FileStat::of("s3://b/a".into(), &meta(etag, id)).version.to_string();
        assert_eq!(version(Some("\"x\""), None), "e:\"x\"");
        assert_eq!(version(Some("\"x\""), Some("7")), "e:\"x\"");
        assert_eq!(version(Some("W/\"x\""), Some("7")), "v:7");
        assert_eq!(version(Some("W/\"x\""), None), "s:3-m:7000000005");
        assert_eq!(version(None, None), "s:3-m:7000000005");
        assert_eq!(FileStat::of("u".into(), &meta(Some("W/\"x\""), None)).etag, None);
        assert_eq!(FileStat::of("u".into(), &meta(None, None)).modified_us, 7_000_000);
    }
}
