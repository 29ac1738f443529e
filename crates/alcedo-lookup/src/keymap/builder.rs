//! The machine that builds a keymap: passes over the key column, each of which makes the buckets of a range of hashes.
//!
//! It makes one part at a time and holds, beside the budget for entries, a window of the column and a part.

use std::sync::Arc;

use bytes::Bytes;

use crate::derived::{Built, PART_BYTES};
use crate::error::Error;
use crate::fetched::{Fetched, Wanted};
use crate::file_index::FileIndex;
use crate::keymap::bucket::{self, Listed};
use crate::keymap::gather::Gather;
use crate::keymap::head::{Ends, Nulls, PartHead, Subject};
use crate::keymap::key_hashes::Rows;
use crate::keymap::layout::{Layout, MAX_ROWS};
use crate::keymap::row_list;
use crate::keymap::walk::Walk;
use crate::machine::{Fed, Machine, Piece, Step, drive_bytes};
use crate::prepared::Prepared;
use crate::search::Plan;

/// Null keys that are listed at most: a column of more is searched for them.
const LISTED_NULLS: usize = 1 << 18;

/// Passes over a column at most, as far as they can be told before: a file of few bytes may stand for billions of rows.
const MAX_PASSES: u64 = 64;

/// Builds the keymap of one key column of one file version.
pub struct Builder {
    /// None only once the builder was handed on with a part.
    work: Option<Box<Work>>,
}

struct Work {
    plan: Plan,
    layout: Layout,
    fetched: Fetched,
    walk: Walk,
    gather: Gather,
    /// The shelf whose buckets are written next, once a pass is over.
    shelf: Option<usize>,
    /// Of that shelf: its next bucket, the one behind its last, and its entries that are not written.
    open: Option<Open>,
    nulls: NullRows,
    /// Where the list of null keys was written.
    null_place: Option<(u32, Listed)>,
    ends: Ends,
    parts: Vec<PartHead>,
    part: Part,
}

/// A shelf that is being written.
struct Open {
    next: u32,
    past: u32,
    entries: Vec<u64>,
    /// Entries that are written.
    written: usize,
}

/// The part that is being written.
#[derive(Default)]
struct Part {
    first_bucket: u32,
    buckets: Vec<u8>,
    lists: Vec<u8>,
}

/// The rows whose key is null, as the first pass finds them.
#[derive(Default)]
struct NullRows {
    rows: Vec<u64>,
    too_many: bool,
    /// Later passes find the same ones.
    done: bool,
}

/// Takes the rows of a pass.
struct Taking<'a> {
    gather: &'a mut Gather,
    nulls: &'a mut NullRows,
}

impl Rows for Taking<'_> {
    #[inline]
    fn take(&mut self, row: u64, hash: Option<u64>) {
        match hash {
            Some(hash) => self.gather.add(hash, row),
            None => self.nulls.add(row),
        }
    }
}

impl NullRows {
    fn add(&mut self, row: u64) {
        if self.done || self.too_many {
            return;
        }
        self.rows.push(row);
        if self.rows.len() > 2 * LISTED_NULLS {
            // A row may have come twice where a damaged index was believed at first.
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.rows.sort_unstable();
        self.rows.dedup();
        if self.rows.len() > LISTED_NULLS {
            self.too_many = true;
            self.rows = Vec::new();
        }
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let buckets = self.work.as_ref().map(|work| (work.ends.len(), work.layout.buckets()));
        f.debug_struct("Builder").field("buckets", &buckets).finish()
    }
}

impl Builder {
    /// A builder for the key column of a prepared question. `budget_bytes` is what the entries of one pass may take, 8
    /// to 9 bytes a row: with less than that for all rows the column is read several times.
    ///
    /// # Errors
    /// [`Error::Limit`] for a file of more rows than a keymap can name, or than so small a budget is for.
    pub fn new(prepared: Arc<Prepared>, budget_bytes: usize) -> Result<Self, Error> {
        let rows = check_rows(prepared.index())?;
        let layout = Layout::of(rows);
        let passes = passes(layout, rows, budget_bytes);
        if passes > MAX_PASSES {
            return Err(Error::Limit(format!(
                "a keymap of {rows} rows within {budget_bytes} bytes reads the column {passes} times, at most \
                 {MAX_PASSES} are allowed: raise the budget"
            )));
        }
        Ok(Self::with_layout(prepared, budget_bytes, layout))
    }

    /// A builder of a keymap with a layout that is not the usual one.
    pub(crate) fn with_layout(prepared: Arc<Prepared>, budget_bytes: usize, layout: Layout) -> Self {
        let mut gather = Gather::new(layout, budget_bytes);
        gather.begin(prepared.index().rows());
        let work = Work {
            plan: Plan::without_keys(prepared),
            layout,
            fetched: Fetched::default(),
            walk: Walk::default(),
            gather,
            shelf: None,
            open: None,
            nulls: NullRows::default(),
            null_place: None,
            ends: Ends::default(),
            parts: Vec::new(),
            part: Part::default(),
        };
        Self { work: Some(Box::new(work)) }
    }
}

fn check_rows(index: &FileIndex) -> Result<u64, Error> {
    let rows = index.rows();
    if rows > MAX_ROWS {
        return Err(Error::Limit(format!("a keymap of {rows} rows, at most {MAX_ROWS} have one")));
    }
    Ok(rows)
}

/// Builds a keymap over a whole file in memory: its parts and its head.
///
/// # Errors
/// The machine's, or [`Error::Corrupt`] when it asks for bytes beyond the file's end.
pub fn build_bytes(mut builder: Builder, file: &Bytes) -> Result<(Vec<Bytes>, Bytes), Error> {
    let mut parts = Vec::new();
    loop {
        match drive_bytes(builder, file)? {
            Built::Part { bytes, rest, .. } => {
                parts.push(bytes);
                builder = rest;
            }
            Built::Head(head) => return Ok((parts, head)),
        }
    }
}

fn passes(layout: Layout, rows: u64, budget_bytes: usize) -> u64 {
    rows.div_ceil(Gather::new(layout, budget_bytes).capacity() as u64).max(1)
}

/// What a keymap of a column costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worth {
    /// Bytes of its parts and its head, about: lists of duplicates make them fewer, empty buckets too.
    pub object_bytes: u64,
    /// Bytes of the column, each read once in every pass.
    pub column_bytes: u64,
    /// How often the column is read, about.
    pub passes: u64,
}

/// What a keymap of a leaf column would cost, built with this budget for entries; none where none can be built.
pub fn worth(index: &FileIndex, leaf: usize, budget_bytes: usize) -> Option<Worth> {
    let rows = check_rows(index).ok().filter(|_| leaf < index.columns())?;
    let layout = Layout::of(rows);
    let chunk_bytes = |group: usize| index.chunk_range(group, leaf).map(|range| range.end - range.start).ok();
    let column_bytes = (0..index.row_groups()).map(chunk_bytes).sum::<Option<u64>>()?;
    let object_bytes = rows * layout.entry_bytes() as u64 + u64::from(layout.buckets()) * 16;
    Some(Worth { object_bytes, column_bytes, passes: passes(layout, rows, budget_bytes) })
}

impl Work {
    /// Writes buckets of the finished pass until a part is full; none when all are written.
    fn write(&mut self) -> Option<Worked> {
        loop {
            let Some(open) = &mut self.open else {
                let shelf = self.shelf?;
                match self.gather.take_shelf(shelf) {
                    Some((buckets, entries)) => {
                        self.open = Some(Open { next: buckets.start, past: buckets.end, entries, written: 0 });
                        self.shelf = Some(shelf + 1);
                    }
                    None => self.shelf = None,
                }
                continue;
            };
            if open.next >= open.past {
                self.open = None;
                continue;
            }
            let rest = &open.entries[open.written..];
            let length = rest.partition_point(|entry| self.layout.bucket_of(*entry) == open.next);
            let is_overfull = self.gather.is_overfull(open.next, length);
            match self.part.write((self.layout, open.next), &rest[..length], is_overfull, &mut self.ends) {
                Written::Yes => {
                    open.written += length;
                    open.next += 1;
                }
                Written::PartIsFull => return Some(self.finish_part()),
            }
        }
    }

    /// Ends the part and begins the next one.
    fn finish_part(&mut self) -> Worked {
        let part = std::mem::replace(&mut self.part, Part { first_bucket: self.ends.len(), ..Part::default() });
        let mut bytes = part.buckets;
        bytes.extend_from_slice(&part.lists);
        let number = self.parts.len() as u32;
        self.parts.push(PartHead { first_bucket: part.first_bucket, bytes: bytes.len() as u32 });
        Worked::Part(number, bytes.into())
    }

    /// What comes after the last bucket: the list of null keys, the last parts, then the head.
    fn finish(&mut self) -> Worked {
        if !self.nulls.rows.is_empty() {
            let mut list = Vec::new();
            row_list::write(self.nulls.rows.iter().copied(), &mut list);
            if self.part.len() + list.len() > PART_BYTES {
                return self.finish_part();
            }
            let (offset, bytes) = (self.part.len() as u32, list.len() as u32);
            let rows = std::mem::take(&mut self.nulls.rows).len() as u32;
            self.null_place = Some((self.parts.len() as u32, Listed { rows, offset, bytes }));
            self.part.lists.extend(list);
        }
        if self.part.len() > 0 {
            return self.finish_part();
        }
        let nulls = match self.null_place {
            Some((part, list)) => Nulls::Listed(part, list),
            None if self.nulls.too_many => Nulls::TooMany,
            None => Nulls::None,
        };
        let index = self.plan.index();
        let subject = Subject { leaf: self.plan.column.leaf as u32, file_size: index.file_size(), rows: index.rows() };
        Worked::Head(std::mem::take(&mut self.ends).into_head(subject, self.layout, nulls, &self.parts))
    }

    /// A part, the head, or what is missing to go on.
    fn step(&mut self) -> Result<Worked, Error> {
        loop {
            if self.shelf.is_some() || self.open.is_some() {
                if let Some(part) = self.write() {
                    return Ok(part);
                }
                if !self.gather.is_last() {
                    self.gather.begin(self.plan.index().rows());
                    self.walk = Walk::default();
                }
                continue;
            }
            if self.nulls.done && self.gather.is_last() && self.ends.len() == self.layout.buckets() {
                return Ok(self.finish());
            }
            let mut wanted = Wanted::new(self.plan.limits.scan_bytes, 0);
            let mut taking = Taking { gather: &mut self.gather, nulls: &mut self.nulls };
            if !self.walk.go_on(&self.plan, &mut self.fetched, &mut wanted, &mut taking)? {
                self.fetched.start_round(self.plan.limits.scan_bytes);
                return Ok(Worked::Needs(wanted));
            }
            self.nulls.settle();
            self.nulls.done = true;
            self.fetched = Fetched::default();
            self.shelf = Some(0);
        }
    }
}

/// What a step of the work came to.
enum Worked {
    Needs(Wanted),
    Part(u32, Bytes),
    Head(Bytes),
}

/// Whether a bucket was written.
enum Written {
    Yes,
    PartIsFull,
}

impl Part {
    fn len(&self) -> usize {
        self.buckets.len() + self.lists.len()
    }

    /// Writes the next bucket, if it fits.
    fn write(
        &mut self,
        (layout, number): (Layout, u32),
        entries: &[u64],
        is_overfull: bool,
        ends: &mut Ends,
    ) -> Written {
        let (buckets, lists) = (self.buckets.len(), self.lists.len());
        let mut fits = !is_overfull;
        if !entries.is_empty() && fits {
            fits = bucket::write((layout, number), entries, &mut self.buckets, &mut self.lists);
            if self.len() > PART_BYTES {
                self.buckets.truncate(buckets);
                self.lists.truncate(lists);
                if buckets + lists > 0 {
                    return Written::PartIsFull;
                }
                fits = false;
            }
        }
        if self.len() == 0 && self.first_bucket > 0 {
            // Nothing was written: the bucket is the last one of the part before, so that no part is empty.
            self.first_bucket += 1;
            ends.push_empty(!fits);
        } else {
            ends.push(self.buckets.len(), !fits);
        }
        Written::Yes
    }
}

impl Machine for Builder {
    type Output = Built<Self>;

    fn step(&mut self) -> Result<Step<Self::Output>, Error> {
        let mut work = self.work.take().ok_or_else(|| Error::corrupt("a keymap's builder was handed on"))?;
        Ok(match work.step()? {
            Worked::Needs(wanted) => {
                self.work = Some(work);
                Step::Need(wanted.into_need())
            }
            Worked::Part(number, bytes) => Step::Done(Built::Part { number, bytes, rest: Self { work: Some(work) } }),
            Worked::Head(head) => Step::Done(Built::Head(head)),
        })
    }

    fn feed(&mut self, piece: &Piece, fed: Fed) {
        if let (Piece::Range(range), Some(work)) = (piece, &mut self.work) {
            work.fetched.insert(range.clone(), fed.bytes);
        }
    }

    fn stage(&self) -> &'static str {
        "keymap"
    }

    fn work_bytes(&self) -> u64 {
        // Without new bytes it sorts and writes a part.
        self.work.as_ref().map_or(0, |work| work.fetched.new_bytes().max(PART_BYTES as u64))
    }
}
