//! Layer 3: a derived object that is being made.
//!
//! Knows its parts so far. It must not know what makes them. An object is there for others once its head is written;
//! one that is given up before leaves nothing behind, or, if the process ends, parts without a head.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alcedo_cache::{FileKey, PageStore};
use bytes::Bytes;

use super::Derived;
use super::object::{Object, Part, PartName};

/// Longest wait for one part to reach the disk: 16 MiB at half a megabyte a second.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);

/// So much of a part is handed to the writing thread at once. That has the priority of any thread, and what it has to
/// do at once delays lookups on the same processor: this is a fraction of a millisecond.
const SLICE_BYTES: usize = 256 << 10;

/// Why a part was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// It found no room, or the disk failed.
    #[error("part {number} of {bytes} bytes found no room, or the disk failed")]
    Part {
        /// The part; the head comes behind the last.
        number: u32,
        /// Its size.
        bytes: u64,
    },
    /// A part came out of turn.
    #[error("part {number} came where part {expected} was to come")]
    OutOfTurn {
        /// What came.
        number: u32,
        /// What should have.
        expected: u32,
    },
    /// A part that was written before was dropped meanwhile.
    #[error("part {number} was dropped before the object was whole: the quota is too small for it")]
    Dropped {
        /// The part.
        number: u32,
    },
}

/// An object without a head.
#[derive(Debug)]
pub struct Draft<'d> {
    derived: &'d Derived,
    version: FileKey,
    name: String,
    store: PageStore,
    is_pinned: bool,
    parts: Vec<Part>,
    is_whole: bool,
}

impl<'d> Draft<'d> {
    pub(super) fn new(derived: &'d Derived, version: &FileKey, name: &str, is_pinned: bool) -> Self {
        let store = derived.store(is_pinned).clone();
        let (version, name) = (version.clone(), name.to_owned());
        Self { derived, version, name, store, is_pinned, parts: Vec::new(), is_whole: false }
    }

    /// Keeps the next part. It blocks the thread until the part is on disk.
    ///
    /// # Errors
    /// See [`NotKept`]; the object is to be given up.
    pub fn part(&mut self, number: u32, bytes: &Bytes) -> Result<(), NotKept> {
        let expected = self.parts.len() as u32;
        if number != expected {
            return Err(NotKept::OutOfTurn { number, expected });
        }
        let part = self.keep(Some(number), bytes)?;
        self.parts.push(part);
        Ok(())
    }

    /// Keeps the head, by which the object is whole and others find it. It blocks the thread until the head is on disk.
    /// `rate` is how often a minute the object is expected to be used.
    ///
    /// # Errors
    /// See [`NotKept`]; nothing of the object is left.
    pub fn head(mut self, bytes: &Bytes, rate: f32) -> Result<Arc<Object>, NotKept> {
        // What is behind a quota that is too small for the object is not a hole in it but no object.
        let has_gone = |part: &Part| !self.store.missing(&part.key, part.bytes, 0..part.bytes).is_empty();
        if let Some(number) = self.parts.iter().position(has_gone) {
            return Err(NotKept::Dropped { number: number as u32 });
        }
        let head = self.keep(None, bytes)?;
        self.is_whole = true;
        let parts = std::mem::take(&mut self.parts);
        let object = Object::new((&self.version, &self.name), (&self.store, self.is_pinned), (head, parts), rate);
        Ok(self.derived.publish(object))
    }

    /// Bytes that were kept so far.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    fn keep(&self, number: Option<u32>, bytes: &Bytes) -> Result<Part, NotKept> {
        let key = PartName::key(&self.version, &self.name, number);
        // Something of the same name may be left from an earlier try, and would be taken for this.
        self.store.forget(&key);
        if self.write(&key, bytes) {
            return Ok(Part { key, bytes: bytes.len() as u64 });
        }
        self.store.forget(&key);
        let number = number.unwrap_or(self.parts.len() as u32);
        Err(NotKept::Part { number, bytes: bytes.len() as u64 })
    }

    /// Writes a part slice by slice; whether all of it is on disk.
    fn write(&self, key: &FileKey, bytes: &Bytes) -> bool {
        let (size, began) = (bytes.len() as u64, Instant::now());
        for start in (0..bytes.len()).step_by(SLICE_BYTES) {
            let slice = bytes.slice(start..bytes.len().min(start + SLICE_BYTES));
            self.store.write(key, size, start as u64, &slice);
            if !self.store.settle(WRITE_PATIENCE.saturating_sub(began.elapsed())) {
                return false;
            }
        }
        self.store.missing(key, size, 0..size).is_empty()
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.is_whole {
            self.parts.iter().for_each(|part| {
                self.store.forget(&part.key);
            });
        }
    }
}
