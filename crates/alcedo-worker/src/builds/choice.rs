//! Layer 3: which object is worth its build.
//!
//! Knows the heat of questions, and what an object saves and costs. It must not know how it is made. The rule: what it
//! saves in the time that heat lasts is more than what its build costs, both in microseconds of a processor.

use std::sync::Arc;

use alcedo_lookup::{keymap, ready};

use super::machines::entry_bytes;
use super::{Builds, Job, What};
use crate::derived::{Derived, keymap_name};
use crate::heat::{Heat, Hot};
use crate::prepared::FileTarget;
use crate::service::Door;

/// The hottest questions that are looked at: more of them would not be built in the time that heat lasts.
const LOOKED_AT: usize = 64;
/// For how long the heat of now is thought to last: twice its half-life.
const HORIZON_MINUTES: f32 = 10.0;
/// What a key costs with lookup-ready rows: one small read of a page store with its checksums, or two with a keymap.
const READY_MICROS: f32 = 4.0;
/// What a key costs more than that with a keymap alone: a data page per column is still decoded.
const KEYMAP_MICROS: f32 = 150.0;
/// Where a key may be in so many of the key's data pages, its values are scattered: what finds its row saves most.
const SCATTERED_PAGES: f64 = 2.0;
/// Where bounds do not tell, a key that takes longer than this had more than one key data page read for it: decoding
/// one of each column takes 60 to 230 microseconds where they have 64 KiB, and 1 to 3 milliseconds where they have 1
/// MiB.
const SCAN_MICROS: f32 = 5_000.0;
/// What any build costs beside its bytes: a thread that wakes, an object that is written, read back and kept in mind.
/// It keeps files that are asked a few times, however small they are, from being built for.
const FIXED_MICROS: f32 = 100_000.0;
/// Bytes of data pages that a build decompresses and decodes in a microsecond.
const DECODED_PER_MICRO: f32 = 200.0;
/// Bytes of an object that are encoded, checked and written in a microsecond.
const WRITTEN_PER_MICRO: f32 = 100.0;
/// Rows of which a keymap is made in a microsecond.
const KEYMAP_ROWS_PER_MICRO: f32 = 5.0;

/// Hot questions of one file version by one key column.
struct Group {
    targets: Vec<Arc<FileTarget>>,
    keys_per_minute: f32,
    micros_per_minute: f32,
}

/// The object that is most worth making now, if any is.
pub(super) fn hottest(door: &Door) -> Option<Job> {
    let (builds, lookups, memory) = (&door.builds, &door.lookups, door.settings().builds.memory_bytes);
    grouped(lookups.heat()).into_iter().find_map(|group| group.job(builds, lookups.derived(), memory))
}

/// Hot questions that one object could answer together, the hottest first.
fn grouped(heat: &Heat) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for Hot { target, keys_per_minute, micros_per_minute } in heat.hottest().into_iter().take(LOOKED_AT) {
        let is_same = |group: &&mut Group| {
            group.targets.first().is_some_and(|first| {
                first.version.key == target.version.key && first.prepared.key_leaf() == target.prepared.key_leaf()
            })
        };
        match groups.iter_mut().find(is_same) {
            Some(group) => {
                group.targets.push(target);
                group.keys_per_minute += keys_per_minute;
                group.micros_per_minute += micros_per_minute;
            }
            None => groups.push(Group { targets: vec![target], keys_per_minute, micros_per_minute }),
        }
    }
    groups.sort_by(|a, b| b.micros_per_minute.total_cmp(&a.micros_per_minute));
    groups
}

impl Group {
    /// The object that answers these questions, if it is worth it and neither there nor barred.
    fn job(&self, builds: &Builds, derived: &Derived, memory_bytes: u64) -> Option<Job> {
        let target = self.targets.first()?;
        // Keys that may be anywhere are looked for in many key data pages; else it is decoding the rows that takes the
        // time. Whichever is there already was not enough: what was noted before it was there is forgotten.
        let is_scanned = match target.prepared.key_pages() {
            Some(pages) => pages >= SCATTERED_PAGES,
            None => self.micros_per_minute > SCAN_MICROS * self.keys_per_minute,
        };
        let whats = if is_scanned { [Self::keymap, Self::ready] } else { [Self::ready, Self::keymap] };
        whats.into_iter().find_map(|what| {
            let (what, name, object_bytes, cost, left) = what(self, target, memory_bytes)?;
            let saved = (self.micros_per_minute - left * self.keys_per_minute) * HORIZON_MINUTES;
            let is_wanted = saved > cost + FIXED_MICROS
                && derived.named(&target.version.key, &name).is_none()
                && !builds.is_barred(&target.version, &name);
            is_wanted.then(|| Job {
                place: target.place.clone(),
                version: target.version.clone(),
                index: Arc::clone(target.prepared.index()),
                what,
                name,
                is_pinned: false,
                rate: self.keys_per_minute,
                object_bytes,
            })
        })
    }

    /// Lookup-ready rows of all columns that are asked for: what, its name, its bytes, the microseconds of its build,
    /// and the microseconds that a key takes with it.
    fn ready(&self, target: &FileTarget, _: u64) -> Option<(What, String, u64, f32, f32)> {
        let mut columns: Vec<String> = Vec::new();
        for target in &self.targets {
            columns.extend(target.prepared.schema().columns.iter().map(|column| column.name.clone()));
        }
        columns.sort_unstable();
        columns.dedup();
        let (index, key) = (target.prepared.index(), target.prepared.key_name());
        // What cannot be stored so is left as it is.
        let worth = ready::worth(index, Some(key), Some(&columns)).ok()?;
        let name = ready::object_name(index, Some(key), Some(&columns)).ok()?;
        let cost = worth.read_bytes as f32 / DECODED_PER_MICRO + worth.object_bytes as f32 / WRITTEN_PER_MICRO;
        let what = What::Ready { key: Some(key.to_owned()), columns: Some(columns) };
        Some((what, name, worth.object_bytes, cost, READY_MICROS))
    }

    /// A keymap of the key column, as [`Group::ready`].
    fn keymap(&self, target: &FileTarget, memory_bytes: u64) -> Option<(What, String, u64, f32, f32)> {
        let (index, leaf) = (target.prepared.index(), target.prepared.key_leaf());
        let worth = keymap::builder::worth(index, leaf, entry_bytes(memory_bytes))?;
        let passes = worth.passes as f32;
        let decoding = index.rows() as f32 / KEYMAP_ROWS_PER_MICRO + worth.column_bytes as f32 / DECODED_PER_MICRO;
        let cost = passes * decoding + worth.object_bytes as f32 / WRITTEN_PER_MICRO;
        let what = What::Keymap { column: target.prepared.key_name().to_owned() };
        Some((what, keymap_name(leaf), worth.object_bytes, cost, KEYMAP_MICROS))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
