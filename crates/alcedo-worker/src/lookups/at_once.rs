//! Layer 3: answers that need not wait.
//!
//! Knows which questions can be answered from what is in memory, by the caller's own hand: no task, no permit, no
//! deadline, because it takes less time than any of them would. It must not ask the origin, a disk or another thread.
//! What it cannot answer it leaves to the general way, which comes to the same answer.

use std::sync::Arc;
use std::time::Duration;

use alcedo_lookup::answer::{Body, FileAnswer, KeyStatus};
use alcedo_lookup::key::Key;
use alcedo_lookup::ready::FoundReady;
use alcedo_origin::Freshness;
use bytes::Bytes;
use tokio::time::Instant;

use super::{Answer, COMPARED_AT_ONCE, Lookups, Suspect};
use crate::hot_rows::{HotKey, HotRow, cut_rows};
use crate::merge::{FileRows, in_file_order, later};
use crate::prepared::{Asked, FileTarget, Target};
use crate::turns;

/// Files of a prefix that are looked through at once: each costs part of a microsecond, and they are counted in 64
/// bits.
const MAX_FILES: usize = 64;
/// Rows of one answer, in bytes, about: to copy so much takes less than 100 us, and it travels in one piece.
const MAX_BYTES: usize = 192 << 10;
/// Keys of one question that are looked for in derived objects at once: each takes a read or a few of what the
/// operating system has in memory, so that all of them take less than half a millisecond.
const MAX_READ_KEYS: usize = 128;
/// What is known of a question's files is looked at again after this time at the latest, which also shows the caches
/// that hold it that it is in use.
const RECHECK: Duration = Duration::from_secs(1);

/// An answer that was made without waiting.
#[derive(Debug)]
pub struct AtOnce {
    /// As [`Answer::files`].
    pub files: Vec<FileAtOnce>,
    /// Per answered key.
    pub statuses: Vec<KeyStatus>,
    /// Files below the path.
    pub files_total: usize,
    /// Files that may hold any of the keys.
    pub files_asked: usize,
    /// Keys that were read from a page store.
    pub read_keys: usize,
}

/// The rows of one file.
#[derive(Debug)]
pub struct FileAtOnce {
    /// The file, as the question sees it.
    pub target: Arc<FileTarget>,
    /// Per row: the index of its key.
    pub key_index: Vec<u32>,
    /// Per row: its number in the file.
    pub row_number: Vec<u64>,
    /// Compact rows.
    pub rows: Bytes,
}

/// Which keys were answered.
#[derive(Debug)]
pub struct Answered {
    /// By their index among those that were asked, ascending.
    pub keys: Vec<u32>,
    /// So many of the first keys were tried.
    pub tried: usize,
}

/// The files of a question, and the hot rows of its keys in them.
struct Gathered {
    files: Vec<Arc<FileTarget>>,
    /// File, key and rows; by keys, then files.
    hits: Vec<(usize, u32, HotRow)>,
    /// Keys that are answered, by their index among those that were asked.
    answered: Vec<u32>,
    /// Whether the path names the file.
    is_named: bool,
    /// Bit by bit: the files that may hold any of the keys.
    asked: u64,
    bytes: usize,
    /// Keys that may still be looked for in derived objects, and those that were found there.
    may_read: usize,
    read_keys: usize,
    /// Room for what is read.
    found: FoundReady,
    /// Keys that were looked at.
    tried: usize,
}

impl AtOnce {
    /// Whether any key has a row.
    pub fn has_rows(&self) -> bool {
        self.statuses.iter().any(|status| *status != KeyStatus::NotFound)
    }

    /// The answer in its general form.
    pub fn into_answer(self) -> Answer {
        let Self { files, statuses, files_total, files_asked, .. } = self;
        let of_file = |file: FileAtOnce| {
            let FileAtOnce { target, key_index, row_number, rows } = file;
            let schema = Arc::clone(target.prepared.schema());
            // What became of the keys is said for all files together.
            let (statuses, body, notes) = (Vec::new(), Body::Compact(rows), Vec::new());
            let answer = FileAnswer { schema, key_index, row_number, statuses, body, notes };
            FileRows { version: target.version.clone(), answer }
        };
        let files = files.into_iter().map(of_file).collect();
        Answer { files, statuses, files_total, files_asked, notes: Vec::new() }
    }
}

impl Lookups {
    /// The answer to all of these keys, if it needs no wait.
    pub fn answer_at_once(&self, asked: &Asked, keys: &[Key], now: Instant) -> Option<AtOnce> {
        let gathered = self.gather(asked, keys, now, true)?;
        self.assembled(gathered)
    }

    /// The answer to those of the first of these keys that need no wait.
    pub fn answer_some_at_once(&self, asked: &Asked, keys: &[Key], now: Instant) -> Option<(AtOnce, Answered)> {
        let mut gathered = self.gather(asked, keys, now, false)?;
        let answered = Answered { keys: gathered.answered.clone(), tried: gathered.tried };
        for (_, key, _) in &mut gathered.hits {
            *key = answered.keys.binary_search(key).ok()?.try_into().ok()?;
        }
        Some((self.assembled(gathered)?, answered))
    }

    /// Notes which files a question goes to, unless that is known.
    pub(super) fn remember(&self, asked: &Asked, target: Target) {
        let is_useful = target.files.len() <= MAX_FILES && asked.place.mount.freshness() != Freshness::Always;
        if is_useful && asked.target().is_none() {
            asked.set_target(Some(Arc::new(target)));
        }
    }

    fn gather(&self, asked: &Asked, keys: &[Key], now: Instant, all: bool) -> Option<Gathered> {
        if keys.is_empty() || keys.len() > self.config.max_keys {
            return None;
        }
        let target = self.fresh_target(asked, now)?;
        // Rows of one key in several files are cut to the limit over all of them, which the general way does.
        if target.files.len() > 1 && asked.ask.row_limit.is_some() {
            return None;
        }
        let files: Option<Vec<_>> = target.files.iter().map(std::sync::Weak::upgrade).collect();
        let Some(files) = files else {
            asked.set_target(None);
            return None;
        };
        #[cfg(test)]
        crate::panics::here(&asked.place.url, "at once", false);
        // Others on this thread wait meanwhile.
        let most = (COMPARED_AT_ONCE / files.len().max(1)).max(1);
        if all && keys.len() > most {
            return None;
        }
        let mut gathered = Gathered::new(files, target.listing.is_none(), keys.len());
        // A thread that has read for long looks at its sockets first, and what will hardly be whole is not begun.
        let is_long = all && keys.len() > MAX_READ_KEYS;
        gathered.may_read = if is_long || turns::is_tired() { 0 } else { MAX_READ_KEYS };
        let (may_read, is_whole) =
            (gathered.may_read, self.gather_keys(&mut gathered, &keys[..most.min(keys.len())], all));
        if gathered.may_read < may_read {
            turns::worked(now.elapsed());
        }
        (is_whole.is_some() && !gathered.answered.is_empty()).then_some(gathered)
    }

    /// Adds what is known of keys; nothing if it is not all of it where it should be, or a key cannot be read.
    fn gather_keys(&self, gathered: &mut Gathered, keys: &[Key], all: bool) -> Option<()> {
        for (index, key) in (0..).zip(keys) {
            gathered.tried += 1;
            if gathered.add(self, index, key)? {
                gathered.answered.push(index);
            } else if all {
                return None;
            }
            if gathered.bytes > MAX_BYTES.min(self.limits.answer_bytes) {
                if all {
                    return None;
                }
                break;
            }
        }
        Some(())
    }

    /// What is known of a question's files, if it is fresh.
    fn fresh_target(&self, asked: &Asked, now: Instant) -> Option<Arc<Target>> {
        let target = asked.target()?;
        if target.changes == self.indexes.changes() && now < target.valid_until {
            return Some(target);
        }
        let fresh = self.refreshed(asked, &target, now).map(Arc::new);
        asked.set_target(fresh.clone());
        fresh
    }

    /// The same files, if they are still those that the question goes to.
    fn refreshed(&self, asked: &Asked, target: &Target, now: Instant) -> Option<Target> {
        let (place, changes) = (&asked.place, self.indexes.changes());
        let valid_until = match &target.listing {
            None => self.indexes.believed_until(target.files.first()?.upgrade()?.as_ref(), now)?,
            Some(listing) => {
                let (files, until) = self.listings.believed_until(place, now)?;
                let mut listed = files.iter().zip(&target.files);
                let is_same = Arc::ptr_eq(&files, listing)
                    && listed.all(|(listed, file)| {
                        file.upgrade().is_some_and(|file| self.indexes.is_listed(&file, &listed.known))
                    });
                is_same.then_some(until)?
            }
        };
        let (files, listing) = (target.files.clone(), target.listing.clone());
        Some(Target { files, listing, changes, valid_until: valid_until.min(now + RECHECK) })
    }

    fn assembled(&self, gathered: Gathered) -> Option<AtOnce> {
        let Gathered { files, mut hits, answered, is_named, asked, read_keys, .. } = gathered;
        let mut statuses = vec![KeyStatus::NotFound; answered.len()];
        for (_, key, row) in &hits {
            let status = statuses.get_mut(*key as usize)?;
            *status = later(*status, row.status());
        }
        let (files_total, files_asked) = (files.len(), asked.count_ones() as usize);
        hits.sort_by_key(|(file, ..)| *file);
        let mut rest = hits.as_slice();
        let mut with_rows = Vec::with_capacity(1);
        for (index, target) in files.into_iter().enumerate() {
            let (here, behind) = rest.split_at(rest.partition_point(|(file, ..)| *file == index));
            rest = behind;
            let (key_index, row_number, rows) = match here {
                [] => Default::default(),
                [(_, key, row)] => (vec![*key; row.numbers().len()], row.numbers().to_vec(), row.rows.clone()),
                several => in_file_order(self.cut(&target, several)?),
            };
            if is_named || !row_number.is_empty() {
                with_rows.push(FileAtOnce { target, key_index, row_number, rows });
            }
        }
        Some(AtOnce { files: with_rows, statuses, files_total, files_asked, read_keys })
    }

    /// What derived objects of a file say of a key, if their bytes are here.
    fn read_at_once(&self, file: &FileTarget, key: HotKey, found: &mut FoundReady) -> Option<HotRow> {
        let _suspect = Suspect { indexes: &self.indexes, version: &file.version };
        let row = self.key_at_once(file, key.point(), found)?;
        self.hot.keep(file, key, &row);
        Some(row)
    }

    /// The rows of several keys one by one.
    fn cut<'r>(&self, target: &FileTarget, several: &'r [(usize, u32, HotRow)]) -> Option<Vec<(u64, u32, &'r [u8])>> {
        let _suspect = Suspect { indexes: &self.indexes, version: &target.version };
        let mut rows = Vec::with_capacity(several.len());
        for (_, key, row) in several {
            match row.numbers() {
                [number] => rows.push((*number, *key, row.rows.as_ref())),
                numbers => {
                    let cut = cut_rows(&row.rows, numbers.len())?;
                    rows.extend(numbers.iter().zip(cut).map(|(number, row)| (*number, *key, row)));
                }
            }
        }
        Some(rows)
    }
}

impl Gathered {
    fn new(files: Vec<Arc<FileTarget>>, is_named: bool, keys: usize) -> Self {
        let (hits, answered) = (Vec::with_capacity(keys), Vec::with_capacity(keys));
        let (found, may_read, read_keys) = (FoundReady::default(), 0, 0);
        Self { files, hits, answered, is_named, asked: 0, bytes: 0, may_read, read_keys, found, tried: 0 }
    }

    /// Adds what is known of one key; whether that is all of it. Nothing if the key cannot be read.
    fn add(&mut self, lookups: &Lookups, index: u32, key: &Key) -> Option<bool> {
        let (before, is_alone, mut asked) = (self.hits.len(), self.files.len() == 1, 0_u64);
        for (number, file) in self.files.iter().enumerate() {
            // Of many files most are passed by for their bounds; of one it is asked last, because it is hardly ever so.
            let may_hold = || file.prepared.may_hold(std::slice::from_ref(key)).ok();
            if !is_alone && !may_hold()? {
                continue;
            }
            let hot_key = file.prepared.key_point(key).ok()?.map(|point| HotKey::new(file, point));
            let mut row = hot_key.as_ref().and_then(|key| lookups.hot.of(file, key));
            let has_rows = |row: &Option<HotRow>| row.as_ref().is_some_and(|row| !row.numbers().is_empty());
            if is_alone && !has_rows(&row) && !may_hold()? {
                continue;
            }
            if let (None, Some(key), true) = (&row, hot_key, self.may_read > 0) {
                self.may_read -= 1;
                row = lookups.read_at_once(file, key, &mut self.found);
                self.read_keys += usize::from(row.is_some());
            }
            let has_rows = has_rows(&row);
            let Some(row) = row else {
                self.hits.truncate(before);
                return Some(false);
            };
            asked |= 1 << number;
            if has_rows {
                self.bytes += row.rows.len();
                self.hits.push((number, index, row));
            }
        }
        self.asked |= asked;
        Some(true)
    }
}
