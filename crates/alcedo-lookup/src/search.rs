//! The machine that looks keys up in one file.
//!
//! For every row group that may hold a key: find its page tables, decode the key's candidate data pages, then read the
//! found rows from the projected columns' data pages. All row groups go in step, so that each round of reading asks for
//! everything it needs at once. What is missing to go on is asked for; whatever was learned stays in the [`FileIndex`].

use std::ops::Deref;
use std::sync::Arc;

use crate::answer::{AnswerWriter, FileAnswer, Form, KeyStatus};
use crate::decoded::DecodedPages;
use crate::error::Error;
use crate::fetched::{Fetched, Wanted};
use crate::file_index::FileIndex;
use crate::group::GroupSearch;
use crate::key::Key;
use crate::key_column::Probes;
use crate::key_scan::{Match, too_many_rows};
use crate::limits::Limits;
use crate::machine::{Fed, Machine, Piece, Step};
use crate::prepared::Prepared;
use crate::sent_pages::SentPages;
use crate::stretch::{PageTables, Stretch};

/// One question to a file.
#[derive(Debug, Clone)]
pub struct Query {
    /// The column to search; none: the first that the file declares it is sorted by.
    pub key_column: Option<String>,
    /// The keys.
    pub keys: Vec<Key>,
    /// The answer's columns in order; none: all in file order.
    pub columns: Option<Vec<String>>,
    /// The answer's form.
    pub form: Form,
    /// At most so many rows per key.
    pub row_limit: Option<u32>,
}

/// A lookup of one or more keys in one file.
pub struct Search {
    plan: Plan,
    groups: Vec<GroupSearch>,
    fetched: Fetched,
    /// Set once all matches are known.
    writing: Option<Writing>,
    /// Key data pages were wanted before: suspicions beside them are for the first time only.
    speculated: bool,
    /// Bytes of data pages that may be sent in place of rows.
    most_sent: u64,
    stage: &'static str,
    notes: Vec<String>,
}

/// An answer on its way.
struct Writing {
    answer: AnswerWriter,
    statuses: Vec<KeyStatus>,
    /// The row group whose rows are written next.
    next: usize,
}

/// What a search looks for and in what.
pub(crate) struct Plan {
    prepared: Arc<Prepared>,
    pub(crate) probes: Probes,
    /// How many keys are asked for.
    pub(crate) keys: usize,
    /// What the answer's rows are written as.
    pub(crate) form: Form,
    /// Decisions are put in words.
    pub(crate) is_noted: bool,
}

impl Plan {
    /// A plan without a key: for who goes through all rows of a column or of a file.
    pub(crate) fn without_keys(prepared: Arc<Prepared>) -> Self {
        Self::new(prepared, Probes::default(), 0)
    }

    fn new(prepared: Arc<Prepared>, probes: Probes, keys: usize) -> Self {
        Self { form: prepared.form, prepared, probes, keys, is_noted: false }
    }

    /// The cache of decoded data pages, where the answer does not consist of stored ones.
    pub(crate) fn decoded_rows(&self) -> Option<&DecodedPages> {
        self.decoded().filter(|_| self.form != Form::Pages)
    }
}

impl Deref for Plan {
    type Target = Prepared;

    fn deref(&self) -> &Prepared {
        &self.prepared
    }
}

impl std::fmt::Debug for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Search").field("stage", &self.stage).field("groups", &self.groups.len()).finish()
    }
}

impl Search {
    /// Plans a search, with notes.
    ///
    /// # Errors
    /// No such column; a key that cannot be read as its column's type.
    pub fn new(index: Arc<FileIndex>, query: Arc<Query>, limits: Arc<Limits>) -> Result<Self, Error> {
        Ok(Self::of(Arc::new(Prepared::new(index, &query, limits)?), &query.keys)?.noted())
    }

    /// Plans a search of which all but the keys is known already.
    ///
    /// # Errors
    /// A key that cannot be read as its column's type.
    pub fn of(prepared: Arc<Prepared>, keys: &[Key]) -> Result<Self, Error> {
        let probes = Probes::new(keys, &prepared.column)?;
        let candidates = prepared.candidates(&probes);
        let groups = candidates.into_iter().map(GroupSearch::new).collect();
        Ok(Self::planned(Plan::new(prepared, probes, keys.len()), groups))
    }

    fn planned(plan: Plan, groups: Vec<GroupSearch>) -> Self {
        let (fetched, notes) = (Fetched::default(), Vec::new());
        Self { plan, groups, fetched, writing: None, speculated: false, most_sent: 0, stage: "plan", notes }
    }

    /// Plans a search that compares the keys with these rows alone and reads their data pages alone: `rows` are numbers
    /// in the file, in any order, and among them are all rows that hold one of the keys. Rows that hold none are passed
    /// over.
    ///
    /// # Errors
    /// A key that cannot be read as its column's type.
    pub fn at_rows(prepared: Arc<Prepared>, keys: &[Key], mut rows: Vec<u64>) -> Result<Self, Error> {
        rows.sort_unstable();
        rows.dedup();
        let probes = Probes::new(keys, &prepared.column)?;
        let mut groups = Vec::new();
        let mut rest = &rows[..];
        for (number, group) in prepared.index.groups.iter().enumerate() {
            let (within, after) = rest.split_at(rest.partition_point(|row| *row < group.first_row + group.rows));
            rest = after;
            if !within.is_empty() {
                let rows = within.iter().map(|row| row - group.first_row).collect();
                groups.push(GroupSearch::at(number, rows));
            }
        }
        Ok(Self::planned(Plan::new(prepared, probes, keys.len()), groups))
    }

    /// The same search with its decisions in words in [`FileAnswer::notes`], which cost more than a hot lookup does.
    pub fn noted(mut self) -> Self {
        self.plan.is_noted = true;
        let (groups, of) = (self.groups.len(), self.plan.index.groups.len());
        let by = if self.groups.iter().any(GroupSearch::is_at_rows) { "the keymap" } else { "bounds" };
        self.notes.push(format!("{groups} of {of} row groups by {by} of `{}`", self.plan.column.name));
        self
    }

    /// The same search for who has bytes to spare and no time: compact rows may come as data pages, in
    /// [`Body::Pages`](crate::answer::Body::Pages), of at most so many bytes. They do where most of these bytes would
    /// have to be inflated for this answer alone, and where it is known already which they are.
    pub fn or_pages(mut self, most_bytes: u64) -> Self {
        self.most_sent = most_bytes;
        self
    }

    /// Whether data pages take the place of the rows that were found.
    fn sends_pages(&self) -> Result<bool, Error> {
        if self.most_sent == 0 || self.plan.form != Form::CompactRows || !self.plan.is_schema_fixed() {
            return Ok(false);
        }
        let mut sent = SentPages::default();
        for group in &self.groups {
            if !group.weigh_pages(&self.plan, &mut sent)? || sent.bytes() > self.most_sent {
                return Ok(false);
            }
        }
        Ok(sent.are_worth_it())
    }

    fn need(&mut self, wanted: Wanted) -> Step<FileAnswer> {
        self.fetched.start_round(self.plan.limits.scan_bytes);
        self.stage = wanted.stage();
        self.speculated |= self.stage == "key pages";
        Step::Need(wanted.into_need())
    }

    fn note_pages(&mut self) {
        if self.plan.is_noted {
            self.notes.push("data pages in place of rows".to_owned());
        }
    }

    /// Finds the matches of all row groups, in step, as far as a window reaches.
    fn find_matches(&mut self, wanted: &mut Wanted) -> Result<(), Error> {
        let mut total = 0;
        for group in &mut self.groups {
            if wanted.is_full() {
                break;
            }
            group.find_matches(&self.plan, &mut self.fetched, wanted)?;
            total += group.matches().len();
        }
        match self.plan.row_limit {
            None if total > self.plan.limits.answer_rows => Err(too_many_rows(&self.plan.limits)),
            None => Ok(()),
            Some(limit) => self.drop_the_superfluous(limit.into()),
        }
    }

    /// Drops row groups behind those that hold more rows of every key than anybody asked for.
    fn drop_the_superfluous(&mut self, limit: u64) -> Result<(), Error> {
        let mut counts = vec![0_u64; self.plan.keys];
        let mut kept = 0;
        for group in self.groups.iter().take_while(|group| group.is_searched()) {
            kept += 1;
            for (_, key) in group.matches() {
                counts[*key as usize] += 1;
            }
            if self.plan.probes.keys().all(|key| counts[key as usize] > limit) {
                self.groups.truncate(kept);
                break;
            }
        }
        // Matches beyond the limit wait for the row groups before them; what waits is bounded too.
        let total: usize = self.groups.iter().map(|group| group.matches().len()).sum();
        if total > 2 * self.plan.limits.answer_rows { Err(too_many_rows(&self.plan.limits)) } else { Ok(()) }
    }

    /// Writes found rows in file order while their values are there, and wants those that are not.
    fn write(&mut self, writing: &mut Writing, wanted: &mut Wanted) -> Result<(), Error> {
        while let Some(group) = self.groups.get_mut(writing.next) {
            if !group.next_rows(&self.plan, &mut self.fetched, wanted)? {
                break;
            }
            if let Some(found) = group.found() {
                writing.answer.add(&self.plan, &found, &self.fetched)?;
            }
            if group.wrote(&mut self.fetched) {
                self.notes.append(&mut group.take_notes());
                writing.next += 1;
            }
        }
        // The values of row groups further on come with the same trip.
        for group in self.groups.iter_mut().skip(writing.next + 1) {
            if wanted.is_empty() || wanted.is_full() {
                break;
            }
            group.next_rows(&self.plan, &mut self.fetched, wanted)?;
        }
        Ok(())
    }

    /// Cuts the rows of each key to the query's limit; row groups come in file order.
    fn cut_to_limit(&mut self) -> Result<Vec<KeyStatus>, Error> {
        let mut counts = vec![0_u64; self.plan.keys];
        let limit = self.plan.row_limit.map_or(u64::MAX, u64::from);
        let mut total = 0;
        for group in &mut self.groups {
            group.matches_mut().retain(|(_, key)| {
                let count = &mut counts[*key as usize];
                *count += 1;
                *count <= limit
            });
            total += group.matches_mut().len();
        }
        if total > self.plan.limits.answer_rows {
            let bound = self.plan.limits.answer_rows;
            return Err(Error::AnswerTooLarge(format!(
                "{total} rows match, at most {bound} are answered: set a row limit"
            )));
        }
        Ok(counts
            .into_iter()
            .map(|count| match count {
                0 => KeyStatus::NotFound,
                count if count > limit => KeyStatus::Truncated,
                _ => KeyStatus::Found,
            })
            .collect())
    }
}

impl Machine for Search {
    type Output = FileAnswer;

    fn step(&mut self) -> Result<Step<FileAnswer>, Error> {
        let limits = &self.plan.limits;
        let along = if self.speculated { 0 } else { limits.speculate_bytes };
        let mut wanted = Wanted::new(limits.scan_bytes, along);
        let mut writing = match self.writing.take() {
            Some(writing) => writing,
            None => {
                self.find_matches(&mut wanted)?;
                if !wanted.is_empty() {
                    return Ok(self.need(wanted));
                }
                let statuses = self.cut_to_limit()?;
                for group in &mut self.groups {
                    if group.matches().is_empty() {
                        self.notes.append(&mut group.take_notes());
                    }
                }
                self.groups.retain(|group| !group.matches().is_empty());
                if self.sends_pages()? {
                    self.plan.form = Form::Pages;
                    self.note_pages();
                }
                Writing { answer: AnswerWriter::new(&self.plan), statuses, next: 0 }
            }
        };
        self.write(&mut writing, &mut wanted)?;
        if !wanted.is_empty() {
            self.writing = Some(writing);
            return Ok(self.need(wanted));
        }
        writing.answer.finish(writing.statuses, std::mem::take(&mut self.notes)).map(Step::Done)
    }

    fn feed(&mut self, piece: &Piece, fed: Fed) {
        if let Piece::Range(range) = piece {
            self.fetched.insert(range.clone(), fed.bytes);
        }
    }

    fn stage(&self) -> &'static str {
        self.stage
    }

    fn work_bytes(&self) -> u64 {
        self.fetched.new_bytes()
    }
}

/// What a found row group hands to the answer.
pub(crate) struct FoundRows<'a> {
    pub(crate) group: usize,
    /// Rows within the group with their keys, ascending.
    pub(crate) matches: &'a [Match],
    /// Page tables of the projected leaves.
    pub(crate) tables: &'a PageTables,
    /// What is read of which column.
    pub(crate) stretch: &'a Stretch,
}
