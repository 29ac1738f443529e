//! Layer 3: the derived objects of one worker: which there are, their bytes, and when they go.
//!
//! Knows objects of file versions by name, in two page stores: one under a quota, one for what is pinned. It must not
//! know how an object is made, nor what is in its parts. An object is whole or it is not there: what lacks a part, or
//! has one that is damaged, is dropped as a whole and counted, and whoever asked goes on without it.

mod draft;
mod heads;
mod object;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use alcedo_cache::{CacheDir, FileKey, OpenError, PageStore, StoreName};
use bytes::Bytes;

pub use draft::{Draft, NotKept};
pub use heads::Head;
pub use object::{Kind, Object};

use crate::config::CacheConfig;
use crate::metrics::Counter;
use heads::Heads;
use object::{Part, PartName};

/// Part of a quota, in percent, that objects may take: the rest is headers, tables and the ends of segments.
const USABLE_PERCENT: u64 = 90;
/// An object makes room for another only if it is read so many times less often: two of the same heat would take turns.
const COLDER: f32 = 2.0;
/// Longest head, as a part of the memory for heads: one of more would push out all others.
const LARGEST_HEAD_SHARE: u64 = 2;

/// The name of the keymap of a leaf column.
pub fn keymap_name(leaf: usize) -> String {
    format!("{}:{leaf}", Kind::Keymap.name())
}

/// Whether a name in a page store is that of a part of an object, and not that of a file.
pub(crate) fn is_part(key: &FileKey) -> bool {
    PartName::read(key).is_some()
}

/// All objects of one file version.
pub type Objects = Arc<[Arc<Object>]>;

/// No room for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it needs {needed} bytes, and of the {quota} that `{key}` leaves only {free} can be had")]
pub struct Full {
    /// Bytes that it needs.
    pub needed: u64,
    /// Bytes that could be had.
    pub free: u64,
    /// Bytes that all objects may take.
    pub quota: u64,
    /// The setting.
    pub key: &'static str,
}

/// What happened to objects.
#[derive(Debug, Default)]
pub struct DerivedCounts {
    /// Reads of parts and heads that brought their bytes.
    pub hits: Counter,
    /// Reads of parts and heads that are not there any more, are damaged, or took too long.
    pub misses: Counter,
    /// Objects that were found whole at the start.
    pub restored: Counter,
    /// Objects that were found in part at the start, and dropped.
    pub unfinished: Counter,
    /// Objects that were made.
    pub made: Counter,
    /// Objects that were dropped because something of them was missing or damaged.
    pub broken: Counter,
    /// Objects that were dropped to make room for hotter ones.
    pub cold: Counter,
    /// Keys that were answered by lookup-ready rows.
    pub ready_keys: Counter,
    /// Keys whose rows a keymap told.
    pub keymap_keys: Counter,
}

/// The derived objects of one worker.
#[derive(Debug)]
pub struct Derived {
    store: PageStore,
    pinned: PageStore,
    pins_file: Option<PathBuf>,
    catalog: RwLock<HashMap<FileKey, Objects>>,
    heads: Heads,
    changes: AtomicU64,
    counts: DerivedCounts,
}

/// What a start finds of one object: its head, and its parts with their numbers.
type Found = (Option<Part>, Vec<(u32, Part)>);

impl Derived {
    /// The objects in a cache directory, those from before included; without one, none yet and all in memory.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(dir: Option<&CacheDir>, config: &CacheConfig) -> Result<Self, OpenError> {
        let open = |name, disk_bytes: Option<u64>, memory_bytes| match dir {
            Some(dir) => PageStore::open(dir, name, disk_bytes.unwrap_or(memory_bytes)),
            None => Ok(PageStore::in_memory_as(name, memory_bytes)),
        };
        let derived = config.derived_quota();
        let pinned = config.pinned_quota();
        let this = Self {
            store: open(StoreName::Derived, Some(derived), derived)?,
            pinned: open(StoreName::Pinned, Some(pinned), pinned)?,
            pins_file: dir.map(CacheDir::pins),
            catalog: RwLock::default(),
            heads: Heads::new(config.heads_bytes),
            changes: AtomicU64::new(0),
            counts: DerivedCounts::default(),
        };
        this.restore(false);
        this.restore(true);
        Ok(this)
    }

    /// Finds what is whole in a store, and drops the rest: builds that a crash cut short.
    fn restore(&self, is_pinned: bool) {
        let store = self.store(is_pinned);
        let mut found: HashMap<(FileKey, String), Found> = HashMap::new();
        for file in store.files() {
            let Some(name) = PartName::read(&file.key) else { continue };
            let (head, parts) = found.entry((name.version, name.object)).or_default();
            let part = Part { key: file.key, bytes: file.size };
            match (file.size == file.held_bytes, name.number) {
                (true, None) => *head = Some(part),
                (true, Some(number)) => parts.push((number, part)),
                // What is there of it makes the object unfinished.
                (false, _) => parts.push((u32::MAX, part)),
            }
        }
        for ((version, name), (head, mut parts)) in found {
            parts.sort_unstable_by_key(|(number, _)| *number);
            let is_gapless = parts.iter().zip(0..).all(|((number, _), expected)| *number == expected);
            let parts = parts.into_iter().map(|(_, part)| part);
            match head {
                Some(head) if is_gapless => {
                    self.counts.restored.up();
                    self.enter(Object::new((&version, &name), (store, is_pinned), (head, parts.collect()), 0.0));
                }
                head => {
                    self.counts.unfinished.up();
                    head.into_iter().chain(parts).for_each(|part| {
                        store.forget(&part.key);
                    });
                }
            }
        }
    }

    fn store(&self, is_pinned: bool) -> &PageStore {
        if is_pinned { &self.pinned } else { &self.store }
    }

    /// The store of objects under a quota.
    pub fn pages(&self) -> &PageStore {
        &self.store
    }

    /// The store of what is pinned: objects, and bytes of files.
    pub fn pinned(&self) -> &PageStore {
        &self.pinned
    }

    /// Where it is written what is pinned; none where nothing outlives the process.
    pub(crate) fn pins_file(&self) -> Option<&Path> {
        self.pins_file.as_deref()
    }

    /// Bytes that may still be pinned.
    pub fn pinned_free(&self) -> u64 {
        (self.pinned.capacity_bytes() / 100 * USABLE_PERCENT).saturating_sub(self.pinned.bytes())
    }

    /// Whether so many bytes may be pinned.
    ///
    /// # Errors
    /// [`Full`].
    pub fn pinned_room(&self, needed: u64) -> Result<(), Full> {
        let (free, quota) = (self.pinned_free(), self.pinned.capacity_bytes() / 100 * USABLE_PERCENT);
        if needed > free { Err(Full { needed, free, quota, key: "cache.pinned" }) } else { Ok(()) }
    }

    /// Grows whenever an object comes or goes: while it is the same, [`Derived::of`] says the same.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The objects of a file version; none for nearly all of them. It takes part of a microsecond.
    pub fn of(&self, version: &FileKey) -> Option<Objects> {
        self.read_catalog().get(version).cloned()
    }

    /// The object of this name.
    pub fn named(&self, version: &FileKey, name: &str) -> Option<Arc<Object>> {
        self.of(version)?.iter().find(|object| object.name() == name).cloned()
    }

    /// All objects. It walks over all of them.
    pub fn all(&self) -> Vec<Arc<Object>> {
        self.read_catalog().values().flat_map(|objects| objects.iter().cloned()).collect()
    }

    /// Bytes of a part, if they are here and need no wait. `None` says only that; [`Derived::read_waiting`] knows more.
    pub fn read(&self, object: &Object, part: u32, range: Range<u64>) -> Option<Bytes> {
        let bytes = self.read_at_once(object, object.parts.get(part as usize)?, range)?;
        object.used();
        Some(bytes)
    }

    /// The same of bytes that carry a check of their own, which whoever reads them makes.
    pub fn read_unverified(&self, object: &Object, part: u32, range: Range<u64>) -> Option<Bytes> {
        let bytes = object.read_unverified(object.parts.get(part as usize)?, range)?;
        self.counts.hits.up();
        object.used();
        Some(bytes)
    }

    /// Bytes of a part; may wait for the disk, but not long. `None` where they cannot be had; if that is because they
    /// are not there any more or are damaged, the whole object is dropped.
    pub async fn read_waiting(&self, object: &Object, part: u32, range: Range<u64>) -> Option<Bytes> {
        let Some(place) = object.parts.get(part as usize) else {
            self.is_broken(object);
            return None;
        };
        let bytes = self.read_part(object, place, range).await?;
        object.used();
        Some(bytes)
    }

    /// Bytes that need no wait. That they do is no miss: whoever can wait reads them.
    fn read_at_once(&self, object: &Object, place: &Part, range: Range<u64>) -> Option<Bytes> {
        object.read(place, range).inspect(|_| self.counts.hits.up())
    }

    async fn read_part(&self, object: &Object, place: &Part, range: Range<u64>) -> Option<Bytes> {
        let bytes = object.read_waiting(place, range.clone()).await;
        if bytes.is_some() { &self.counts.hits } else { &self.counts.misses }.up();
        if bytes.is_none() && object.lacks(place, range) {
            self.is_broken(object);
        }
        bytes
    }

    /// Drops an object whose bytes are not what they should be, or are not there.
    pub fn is_broken(&self, object: &Object) {
        if self.leave(object) {
            self.counts.broken.up();
            let (url, name) = (object.version().url(), object.name());
            tracing::warn!(url, name, "a derived object lacks bytes or they are damaged; it is dropped");
        }
    }

    /// Begins an object. One of the same name that is there goes on being used until the new one is whole.
    pub fn begin(&self, version: &FileKey, name: &str, is_pinned: bool) -> Draft<'_> {
        if let Some(object) = self.named(version, name).filter(|object| object.is_pinned() == is_pinned) {
            // Both would have the same parts.
            self.leave(&object);
        }
        Draft::new(self, version, name, is_pinned)
    }

    /// Makes room for an object of so many bytes that will be read so many times a minute, by dropping those that are
    /// read far less often, the coldest first.
    ///
    /// # Errors
    /// [`Full`]; nothing was dropped.
    pub fn make_room(&self, needed: u64, rate: f32) -> Result<(), Full> {
        let quota = self.store.capacity_bytes() / 100 * USABLE_PERCENT;
        let mut objects = self.all();
        objects.retain(|object| !object.is_pinned());
        let held: u64 = objects.iter().map(|object| object.bytes()).sum();
        objects.retain(|object| object.rate() * COLDER <= rate);
        objects.sort_by(|a, b| a.rate().total_cmp(&b.rate()));
        let cold: u64 = objects.iter().map(|object| object.bytes()).sum();
        let mut free = quota.saturating_sub(held);
        if free + cold < needed {
            return Err(Full { needed, free: free + cold, quota, key: "cache.derived" });
        }
        for object in objects {
            if free >= needed {
                break;
            }
            free += object.bytes();
            if self.leave(&object) {
                self.counts.cold.up();
            }
        }
        Ok(())
    }

    /// The longest head that may be made.
    pub fn largest_head_bytes(&self) -> u64 {
        self.heads.configured_bytes() / LARGEST_HEAD_SHARE
    }

    /// Drops an object. Says whether it was there.
    pub fn drop_object(&self, object: &Object) -> bool {
        self.leave(object)
    }

    /// Drops all objects of all versions of a file but what is pinned, and returns their bytes.
    pub fn forget_url(&self, url: &str) -> u64 {
        self.forget(|object| object.version().url() == url && !object.is_pinned())
    }

    /// Drops the objects of a file version that are not pinned: bytes that they were made of were damaged.
    pub fn forget_version(&self, version: &FileKey) -> u64 {
        self.forget(|object| object.version() == version && !object.is_pinned())
    }

    /// Drops the objects of all versions of a file but this one, pinned ones too: nobody can ask for them any more.
    pub fn forget_others(&self, version: &FileKey) -> u64 {
        self.forget(|object| object.version().url() == version.url() && object.version() != version)
    }

    fn forget(&self, goes: impl Fn(&Object) -> bool) -> u64 {
        let going: Vec<_> = self.all().into_iter().filter(|object| goes(object)).collect();
        going.iter().filter(|object| self.leave(object)).map(|object| object.bytes()).sum()
    }

    /// A minute has passed.
    pub(crate) fn tick(&self) {
        self.read_catalog().values().flat_map(|objects| objects.iter()).for_each(|object| object.tick());
    }

    /// Objects and their bytes now, by kind.
    pub fn held(&self) -> [(u64, u64); Kind::ALL.len()] {
        let mut held = [(0, 0); Kind::ALL.len()];
        for object in self.read_catalog().values().flat_map(|objects| objects.iter()) {
            let (count, bytes) = &mut held[object.kind() as usize];
            (*count, *bytes) = (*count + 1, *bytes + object.bytes());
        }
        held
    }

    /// Heads in memory: how many, their bytes, and the bytes that they may take.
    pub fn heads(&self) -> (u64, u64, u64) {
        (self.heads.count(), self.heads.bytes(), self.heads.capacity_bytes())
    }

    /// Lets the heads in memory have this part of what they are configured to have, in percent.
    pub(crate) fn set_heads_room(&self, percent: u64) {
        self.heads.set_room(percent);
    }

    /// What happened so far.
    pub fn counts(&self) -> &DerivedCounts {
        &self.counts
    }

    /// Lets others find an object that is whole.
    fn publish(&self, object: Object) -> Arc<Object> {
        self.counts.made.up();
        self.enter(object)
    }

    fn enter(&self, object: Object) -> Arc<Object> {
        let object = Arc::new(object);
        let mut catalog = self.write_catalog();
        let others = catalog.get(object.version()).into_iter().flat_map(|objects| objects.iter());
        // What is pinned and what is not may stand beside each other; the pinned one is found first.
        let others = others.filter(|other| other.name() != object.name() || other.is_pinned() != object.is_pinned());
        let mut all: Vec<_> = others.cloned().chain([Arc::clone(&object)]).collect();
        all.sort_by_key(|object| !object.is_pinned());
        catalog.insert(object.version().clone(), all.into());
        drop(catalog);
        self.changed();
        object
    }

    /// Takes an object out and drops its bytes. Says whether it was there.
    fn leave(&self, object: &Object) -> bool {
        let mut catalog = self.write_catalog();
        let Some(objects) = catalog.get(object.version()) else { return false };
        let rest: Vec<_> = objects.iter().filter(|other| other.id != object.id).cloned().collect();
        let was_there = rest.len() < objects.len();
        if rest.is_empty() {
            catalog.remove(object.version());
        } else if was_there {
            catalog.insert(object.version().clone(), rest.into());
        }
        drop(catalog);
        if was_there {
            object.forget();
            self.heads.drop_head(object);
            self.changed();
        }
        was_there
    }

    fn changed(&self) {
        // After the change itself: whoever reads the new number finds what has changed.
        self.changes.fetch_add(1, Ordering::Release);
    }

    // Nothing that may panic runs while the map is half changed.
    fn read_catalog(&self) -> RwLockReadGuard<'_, HashMap<FileKey, Objects>> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_catalog(&self) -> RwLockWriteGuard<'_, HashMap<FileKey, Objects>> {
        self.catalog.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
