//! Which file a path names. Knows the rule for paths and canonical URLs; must not know the origin, so that a hostile
//! path is refused before anything is asked.
//!
//! One rule: **a path is taken literally and never percent-decoded.** `a%20b` names the object whose name has those
//! five characters. But a segment that would mean something else to a program that does decode is refused, however many
//! times it is encoded: so no program between us and the origin can be led out of the mount. Refused are: an empty path
//! or one above 2,048 bytes, empty segments, `.` and `..`, backslashes, control characters, `?` and `#` (they end the
//! path of a URL, and both spellings of a file must name the same one), and segments that decode to any of these, to a
//! `/`, or to bytes that are not UTF-8.

use crate::error::Error;
use crate::mount::Mount;
use object_store::path::Path;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Longest path of a request, in bytes. S3 allows keys of 1,024 bytes.
pub const MAX_PATH_BYTES: usize = 2048;

/// A name within a mount: where the origin keeps it, and its one canonical URL.
#[derive(Clone)]
pub struct Place {
    /// The mount that it lies in.
    pub mount: Arc<Mount>,
    /// Its name relative to the mount, as the mount's own calls want it; the mount itself is the root path.
    pub key: Path,
    /// Its canonical URL, without a slash at the end: the file's name everywhere (ring, caches, answers).
    pub url: Arc<str>,
    /// Whether the path was written with a slash at the end, as for a directory.
    pub ends_with_slash: bool,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("url", &self.url).field("ends_with_slash", &self.ends_with_slash).finish()
    }
}

impl Place {
    /// The place `relative` below this one, by the same rule as every other path.
    ///
    /// # Errors
    /// [`Error::BadPath`].
    pub fn child(&self, relative: &str) -> Result<Self, Error> {
        let (below, ends_with_slash) = parse_key(relative, relative)?;
        let key = join(&self.key, &below);
        let url = self.mount.url_of(&key);
        Ok(Self { mount: Arc::clone(&self.mount), key, url, ends_with_slash })
    }
}

impl Mount {
    /// The place of a key of this mount, such as a listed one.
    pub fn place_of(self: &Arc<Self>, key: &Path) -> Place {
        Place { mount: Arc::clone(self), key: key.clone(), url: self.url_of(key), ends_with_slash: false }
    }

    /// The canonical URL of a key of this mount.
    pub(crate) fn url_of(&self, key: &Path) -> Arc<str> {
        match key.as_ref() {
            "" => self.shared_url(),
            key => format!("{}/{key}", self.url()).into(),
        }
    }
}

/// Two paths in a row.
pub(crate) fn join(above: &Path, below: &Path) -> Path {
    above.parts().chain(below.parts()).collect()
}

/// The checked key that `text` names, and whether `text` ends with a slash. `path` is what the error shows.
pub(crate) fn parse_key(path: &str, text: &str) -> Result<(Path, bool), Error> {
    let (text, ends_with_slash) = match text.strip_suffix('/') {
        Some(text) => (text, true),
        None => (text, false),
    };
    for segment in text.split('/') {
        check_segment(segment).map_err(|why| Error::bad_path(path, why))?;
    }
    let key = Path::parse(text).map_err(|e| Error::bad_path(path, e.to_string()))?;
    Ok((key, ends_with_slash))
}

/// Whether a key that the origin lists can be named by a path at all.
pub(crate) fn is_nameable(key: &Path) -> bool {
    key.as_ref().len() <= MAX_PATH_BYTES && key.as_ref().split('/').all(|segment| check_segment(segment).is_ok())
}

/// Applies the rule to one segment, as written and as every program that decodes it would see it.
fn check_segment(segment: &str) -> Result<(), &'static str> {
    let mut seen = Cow::Borrowed(segment);
    loop {
        check_literal(&seen)?;
        let decoded = match percent_decode_str(&seen).decode_utf8() {
            Ok(decoded) => decoded.into_owned(),
            Err(_) => return Err("a segment percent-decodes to bytes that are not UTF-8"),
        };
        // Decoding shortens the text or leaves it as it is, so this ends.
        if decoded == *seen {
            return Ok(());
        }
        if decoded.contains('/') {
            return Err("a segment percent-decodes to one with a slash in it");
        }
        seen = Cow::Owned(decoded);
    }
}

/// The rule for one segment as it stands.
fn check_literal(segment: &str) -> Result<(), &'static str> {
    match segment {
        "" => return Err("a segment is empty: write single slashes, and none at the start"),
        "." | ".." => return Err("a segment is, or percent-decodes to, \".\" or \"..\""),
        _ => {}
    }
    if segment.contains('\\') {
        return Err("a segment has a backslash");
    }
    if segment.contains(['?', '#']) {
        return Err("a segment has \"?\" or \"#\", which end the path of a URL");
    }
    if segment.chars().any(char::is_control) {
        return Err("a segment has a control character");
    }
    Ok(())
}
