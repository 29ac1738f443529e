//! Layer 3: answers that need not wait.
//!
//! Knows which questions can be answered from what is in memory, by the caller's own hand: no task, no permit, no
//! deadline, because it takes less time than any of them would. It must not ask the origin, a disk or another thread.
//! What it cannot answer it leaves to the general way, which comes to the same answer.

use std::sync::Arc;
use std::time::Duration;

use alcedo_lookup::answer::{Body, FileAnswer, KeyStatus};
use alcedo_lookup::key::Key;
use alcedo_origin::Freshness;
use bytes::Bytes;
use futures::FutureExt as _;
use tokio::time::Instant;

use super::by_objects::Way;
use super::{Answer, COMPARED_AT_ONCE, Lookups, Suspect};
use crate::hot_rows::{HotRow, cut_rows};
use crate::merge::{FileRows, in_file_order, later};
use crate::prepared::{Asked, FileTarget, Target};

/// Files of a prefix that are looked through at once: each costs part of a microsecond, and they are counted in 64
/// bits.
const MAX_FILES: usize = 64;
/// Rows of one answer, in bytes, about: to copy so much takes less than 100 us, and it travels in one piece.
const MAX_BYTES: usize = 192 << 10;
/// Keys of one question that are looked for in derived objects at once: each takes a read or a few.
const MAX_READ_KEYS: usize = 8;
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
    /// Some of it was read from a page store.
    pub is_read: bool,
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
    /// Keys that were looked for in derived objects, and whether any was found there.
    read_keys: usize,
    is_read: bool,
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
        for (index, key) in (0..).zip(keys.iter().take(most)) {
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
        (!gathered.answered.is_empty()).then_some(gathered)
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
        let Gathered { files, mut hits, answered, is_named, asked, is_read, .. } = gathered;
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
        Some(AtOnce { files: with_rows, statuses, files_total, files_asked, is_read })
    }

    /// What derived objects of a file say of a key, if their bytes are here.
    fn read_at_once(&self, file: &FileTarget, key: &Key) -> Option<HotRow> {
        let _suspect = Suspect { indexes: &self.indexes, version: &file.version };
        let keys = std::slice::from_ref(key);
        // What would have to wait is dropped, and left to those who may.
        match self.by_objects(file, keys).now_or_never()? {
            Way::Answered(answer) => {
                self.hot.fill(file, keys, &answer);
                HotRow::of_one(&answer)
            }
            Way::Rows(rows) if rows.is_empty() => Some(HotRow::absent()),
            Way::Rows(_) | Way::Search => None,
        }
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
        Self { files, hits, answered, is_named, asked: 0, bytes: 0, read_keys: 0, is_read: false, tried: 0 }
    }

    /// Adds what is known of one key; whether that is all of it. Nothing if the key cannot be read.
    fn add(&mut self, lookups: &Lookups, index: u32, key: &Key) -> Option<bool> {
        let (before, is_alone, mut asked) = (self.hits.len(), self.files.len() == 1, 0_u64);
        for (number, file) in self.files.iter().enumerate() {
            let may_hold = || file.prepared.may_hold(std::slice::from_ref(key)).ok();
            // Of many files most are passed by for their bounds; of one it is asked last, because it is hardly ever so.
            if !is_alone && !may_hold()? {
                continue;
            }
            let mut row = lookups.hot.get(file, key);
            if row.is_none() && self.read_keys < MAX_READ_KEYS && (!is_alone || may_hold()?) {
                self.read_keys += 1;
                row = lookups.read_at_once(file, key);
                self.is_read |= row.is_some();
            }
            let has_rows = row.as_ref().is_some_and(|row| !row.numbers().is_empty());
            if is_alone && !has_rows && !may_hold()? {
                continue;
            }
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
