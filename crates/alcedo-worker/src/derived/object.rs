//! Layer 3: one derived object, and how its parts are named in a page store.
//!
//! Knows names, sizes and how often the object is used. It must not know what its bytes mean, nor which objects there
//! are. A part is a file of the page store: the URL of the file that it was made of, and as its version that file's
//! content version, the object's name and the part's number, with zero bytes between them. So an object of an old
//! version is never found, and what is dropped of a URL is dropped of its objects too.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use alcedo_cache::{FileKey, PageStore};
use bytes::Bytes;

/// Between the texts of a name. No content version has it: they are entity tags, dates and numbers.
const SEPARATOR: char = '\u{0}';
/// The name of the part that is made last.
const HEAD: &str = "head";
/// How the names of keymaps begin.
const KEYMAP_PREFIX: &str = "keymap";

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Key to rows.
    Keymap,
    /// Rows that need no decompression.
    Ready,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Keymap, Self::Ready];

    /// The kind of an object by its name.
    pub fn of(name: &str) -> Self {
        if name.starts_with(KEYMAP_PREFIX) { Self::Keymap } else { Self::Ready }
    }

    /// Its name in metrics and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keymap => "keymap",
            Self::Ready => "ready",
        }
    }
}

/// One part, or the head.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) key: FileKey,
    pub(crate) bytes: u64,
}

/// Which part of which object of which file version a name in the page store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartName {
    pub(crate) version: FileKey,
    pub(crate) object: String,
    /// None for the head.
    pub(crate) number: Option<u32>,
}

impl PartName {
    /// The name in the page store.
    pub(crate) fn key(version: &FileKey, object: &str, number: Option<u32>) -> FileKey {
        let number = number.map_or_else(|| HEAD.to_owned(), |number| number.to_string());
        let text = format!("{}{SEPARATOR}{object}{SEPARATOR}{number}", version.version());
        FileKey::new(version.url(), text)
    }

    /// Reads a name; none if it is not one of a part.
    pub(crate) fn read(key: &FileKey) -> Option<Self> {
        let mut texts = key.version().rsplitn(3, SEPARATOR);
        let (number, object, version) = (texts.next()?, texts.next()?, texts.next()?);
        let number = if number == HEAD { None } else { Some(number.parse().ok()?) };
        Some(Self { version: FileKey::new(key.url(), version), object: object.to_owned(), number })
    }
}

/// A derived object that was whole when it was found, or made. Its bytes may vanish at any moment.
pub struct Object {
    /// Never another object's in this process.
    pub(crate) id: u64,
    version: FileKey,
    name: Arc<str>,
    kind: Kind,
    store: PageStore,
    is_pinned: bool,
    pub(crate) head: Part,
    pub(crate) parts: Box<[Part]>,
    is_gone: AtomicBool,
    /// Reads since the rate was last taken.
    uses: AtomicU32,
    /// Reads per minute, as bits of an `f32`.
    rate: AtomicU32,
}

impl std::fmt::Debug for Object {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Object").field("url", &self.version.url()).field("name", &self.name).finish()
    }
}

impl Object {
    /// An object whose parts and head are in this store. `rate` is how often a minute it is expected to be used.
    pub(crate) fn new(
        (version, name): (&FileKey, &str),
        (store, is_pinned): (&PageStore, bool),
        (head, parts): (Part, Vec<Part>),
        rate: f32,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            version: version.clone(),
            name: name.into(),
            kind: Kind::of(name),
            store: store.clone(),
            is_pinned,
            head,
            parts: parts.into(),
            is_gone: AtomicBool::new(false),
            uses: AtomicU32::new(0),
            rate: AtomicU32::new(rate.to_bits()),
        }
    }

    /// The file version that it was made of.
    pub fn version(&self) -> &FileKey {
        &self.version
    }

    /// Its name among the objects of that version.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it stays whatever is asked.
    pub fn is_pinned(&self) -> bool {
        self.is_pinned
    }

    /// Bytes of its parts and its head.
    pub fn bytes(&self) -> u64 {
        self.head.bytes + self.parts.iter().map(|part| part.bytes).sum::<u64>()
    }

    /// Whether it was dropped: whoever holds it finds nothing in it any more.
    pub fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    /// Reads per minute, lately.
    pub fn rate(&self) -> f32 {
        f32::from_bits(self.rate.load(Ordering::Relaxed))
    }

    /// A minute has passed: what was read in it counts half, and what was read before the other half.
    pub(crate) fn tick(&self) {
        let uses = self.uses.swap(0, Ordering::Relaxed) as f32;
        self.rate.store(((self.rate() + uses) / 2.0).to_bits(), Ordering::Relaxed);
    }

    pub(crate) fn used(&self) {
        self.uses.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes of a part, if they are here and need no wait.
    pub(crate) fn read(&self, part: &Part, range: Range<u64>) -> Option<Bytes> {
        self.store.read(&part.key, range)
    }

    /// The same of bytes that carry a check of their own.
    pub(crate) fn read_unverified(&self, part: &Part, range: Range<u64>) -> Option<Bytes> {
        self.store.read_unverified(&part.key, range)
    }

    /// Bytes of a part, if they are here; may wait for the disk, but not long.
    pub(crate) async fn read_waiting(&self, part: &Part, range: Range<u64>) -> Option<Bytes> {
        self.store.read_waiting(&part.key, range).await
    }

    /// Whether something of a part is not here any more; a disk that is only slow has it.
    pub(crate) fn lacks(&self, part: &Part, range: Range<u64>) -> bool {
        range.end > part.bytes || !self.store.missing(&part.key, part.bytes, range).is_empty()
    }

    /// Drops its bytes.
    pub(crate) fn forget(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
        // The head first: parts without one are dropped by the next start, a head without its parts is found later.
        self.store.forget(&self.head.key);
        for part in &self.parts {
            self.store.forget(&part.key);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_others_are_none() {
        let version = FileKey::new("s3://lake/a.parquet", "\"etag-1\"");
        for number in [None, Some(0), Some(17)] {
            let key = PartName::key(&version, "rows-00ff", number);
            let name = PartName { version: version.clone(), object: "rows-00ff".to_owned(), number };
            assert_eq!((key.url(), PartName::read(&key)), ("s3://lake/a.parquet", Some(name)));
        }
        for other in ["v1", "v1\u{0}rows", "v1\u{0}rows\u{0}", "v1\u{0}rows\u{0}tail", "v1\u{0}rows\u{0}-1"] {
            assert_eq!(PartName::read(&FileKey::new("s3://lake/a", other)), None, "{other:?}");
        }
        assert_eq!((Kind::of("keymap-3"), Kind::of("rows-1")), (Kind::Keymap, Kind::Ready));
    }
}
