//! Layer 3: the heads of derived objects that are in memory.
//!
//! Knows which object a head is of and what it weighs. It must not know what is in one: whoever asks says how it is
//! read. A head that is used stays; all heads together keep within a budget.

use std::any::Any;
use std::sync::Arc;

use alcedo_lookup::error::Error as LookupError;
use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::{Derived, Object};
use crate::reader::INLINE_WORK_BYTES;

/// What a head takes beside itself: the table's links, and the allocator's part.
const HEAD_OVERHEAD_BYTES: u64 = 160;
/// A usual head, by which the table is laid out: that of an object of some megabytes.
const USUAL_HEAD_BYTES: u64 = 64 << 10;

type AnyHead = Arc<dyn Any + Send + Sync>;

/// A head as it was read.
#[derive(Debug)]
pub struct Head<H> {
    /// What it says.
    pub head: H,
    /// Bytes of memory that it takes.
    pub weight: usize,
}

#[derive(Debug, Clone)]
struct Entry {
    head: AnyHead,
    weight: u64,
}

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<u64, Entry> for Weight {
    fn weight(&self, _: &u64, entry: &Entry) -> u64 {
        entry.weight
    }
}

/// The heads in memory, by the ids of their objects.
#[derive(Debug)]
pub(super) struct Heads {
    cache: Cache<u64, Entry, Weight>,
    /// What it may hold where memory is not scarce.
    configured_bytes: u64,
}

impl Heads {
    pub(super) fn new(capacity_bytes: u64) -> Self {
        let usual = usize::try_from(capacity_bytes / USUAL_HEAD_BYTES).unwrap_or(usize::MAX).max(1);
        Self { cache: Cache::with_weighter(usual, capacity_bytes, Weight), configured_bytes: capacity_bytes }
    }

    pub(super) fn count(&self) -> u64 {
        self.cache.len() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.cache.weight()
    }

    pub(super) fn capacity_bytes(&self) -> u64 {
        self.cache.capacity()
    }

    pub(super) fn configured_bytes(&self) -> u64 {
        self.configured_bytes
    }

    /// Lets them have this part of what is configured, in percent; heads that are too many leave, and are read again.
    pub(super) fn set_room(&self, percent: u64) {
        let bytes = self.configured_bytes / 100 * percent + self.configured_bytes % 100 * percent / 100;
        if bytes != self.cache.capacity() {
            self.cache.set_capacity(bytes);
        }
    }

    pub(super) fn drop_head(&self, object: &Object) {
        self.cache.remove(&object.id);
    }

    fn get<H: Any + Send + Sync>(&self, object: &Object) -> Option<Arc<Head<H>>> {
        self.cache.get(&object.id)?.head.downcast().ok()
    }

    fn keep<H: Any + Send + Sync>(&self, object: &Object, head: Head<H>) -> Arc<Head<H>> {
        let weight = head.weight as u64 + HEAD_OVERHEAD_BYTES;
        let head = Arc::new(head);
        let any: AnyHead = Arc::clone(&head) as _;
        self.cache.insert(object.id, Entry { head: any, weight });
        head
    }
}

impl Derived {
    /// An object's head, if it is in memory.
    pub fn known_head<H: Any + Send + Sync>(&self, object: &Object) -> Option<Arc<Head<H>>> {
        self.heads.get(object)
    }

    /// An object's head, if it can be had without a wait: it is in memory, or short. `read` makes it of its bytes; an
    /// error of it drops the object. An object's head is asked for as one type only.
    pub fn head<H: Any + Send + Sync>(
        &self,
        object: &Object,
        read: impl FnOnce(Bytes) -> Result<Head<H>, LookupError>,
    ) -> Option<Arc<Head<H>>> {
        let known = self.heads.get(object);
        if known.is_some() || object.head.bytes > INLINE_WORK_BYTES || object.is_gone() {
            return known;
        }
        let bytes = self.read_at_once(object, &object.head, 0..object.head.bytes)?;
        self.keep_head(object, read(bytes))
    }

    /// An object's head; it may wait for the disk, and a long one is read on another thread. `None` where it cannot be
    /// had; if that is because it is not there any more or is damaged, the whole object is dropped.
    pub async fn head_waiting<H: Any + Send + Sync>(
        &self,
        object: &Object,
        read: impl FnOnce(Bytes) -> Result<Head<H>, LookupError> + Send + 'static,
    ) -> Option<Arc<Head<H>>> {
        if let Some(head) = self.heads.get(object) {
            return Some(head);
        }
        let bytes = self.read_part(object, &object.head, 0..object.head.bytes).await?;
        let head = match bytes.len() as u64 > INLINE_WORK_BYTES {
            // A panic in it is the caller's, as if it were read here.
            true => match tokio::task::spawn_blocking(move || read(bytes)).await {
                Ok(head) => head,
                Err(failed) => match failed.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => return None,
                },
            },
            false => read(bytes),
        };
        self.keep_head(object, head)
    }

    fn keep_head<H: Any + Send + Sync>(
        &self,
        object: &Object,
        head: Result<Head<H>, LookupError>,
    ) -> Option<Arc<Head<H>>> {
        match head {
            Ok(head) => Some(self.heads.keep(object, head)),
            Err(error) => {
                tracing::warn!(%error, url = object.version().url(), name = object.name(), "a head cannot be read");
                self.is_broken(object);
                None
            }
        }
    }
}
