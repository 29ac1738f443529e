//! Layer 3: what is believed of files without a wait.
//!
//! Knows the same rules of freshness as opening a file does, over what is in memory alone. It must not ask the origin
//! but in the background: where a wait would be needed it says that nothing is believed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use alcedo_lookup::limits::Limits;
use alcedo_origin::{Freshness, Place};
use tokio::time::Instant;

use super::{Indexes, Known, OpenFile};
use crate::error::Error;
use crate::prepared::{Asked, FileTarget};

/// While a version is being asked for in the background, what is known is looked at again so soon.
const REVALIDATING: Duration = Duration::from_millis(20);
/// Until when an immutable file is believed, beside other bounds.
const LONG: Duration = Duration::from_secs(3_600);

impl OpenFile {
    /// A question, resolved against this index.
    ///
    /// # Errors
    /// No such column, or one that cannot be a key.
    pub(crate) fn target(&self, asked: &Asked, place: &Place, limits: &Arc<Limits>) -> Result<Arc<FileTarget>, Error> {
        self.targets.of(asked, place, (&self.version, &self.index), limits)
    }
}

impl Indexes {
    /// Changes whenever a version that is new here is learned, and whenever something is dropped. While it stays the
    /// same, what was found before is found again.
    pub(crate) fn changes(&self) -> u64 {
        self.tables.changes.load(Ordering::Acquire)
    }

    /// Until when it is believed that this is the current version of a file that a path names, and its index the one in
    /// memory. None where it is not, and where the origin must be asked first.
    pub(crate) fn believed_until(&self, file: &FileTarget, now: Instant) -> Option<Instant> {
        let known = self.tables.current.get(&file.place.url)?;
        if known.version.key != file.version.key || !self.holds(file) {
            return None;
        }
        let age = now.saturating_duration_since(known.checked);
        match file.place.mount.freshness() {
            Freshness::Immutable => Some(now + LONG),
            Freshness::Ttl { hard, .. } if age >= hard => None,
            Freshness::Ttl { soft, hard } if age >= soft => {
                let (name, check) = self.revalidation(&file.place);
                // Refused only when too much is under way; the next lookup tries again.
                let _ = self.errands.begin(name, || check);
                Some((known.checked + hard).min(now + REVALIDATING))
            }
            Freshness::Ttl { soft, .. } => Some(known.checked + soft),
            Freshness::Always => None,
        }
    }

    /// Whether a file that is listed so has this version, and its index is the one in memory.
    pub(crate) fn is_listed(&self, file: &FileTarget, listed: &Known) -> bool {
        let learned = self.tables.current.get(&file.place.url).filter(|known| known.checked > listed.checked);
        let version = learned.map_or_else(|| listed.version.key.clone(), |known| known.version.key);
        version == file.version.key && self.holds(file)
    }

    /// Shows the cache of indexes, too, that this one is in use.
    fn holds(&self, file: &FileTarget) -> bool {
        self.tables.built.get(&file.version.key).is_some_and(|held| Arc::ptr_eq(&held.index, file.prepared.index()))
    }
}
