//! The machine that makes lookup-ready rows of a file: it goes through all rows in windows and writes them row by row.
//!
//! What it holds is bounded: the data pages of one window, one batch of decoded rows, one part. What cannot be read
//! ends the build with an error, and lookups go on without the object.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use parquet::column::reader::{ColumnReader, get_column_reader};

use crate::answer::fetched_group;
use crate::arrow_rows::RowWriter;
use crate::chunk::PageTable;
use crate::data_page::{PageSequence, Part, read_page};
use crate::derived::{Built, PART_BYTES};
use crate::error::Error;
use crate::fetched::{Fetched, Wanted};
use crate::fetched_group::{FetchedGroup, LeafPages};
use crate::file_index::FileIndex;
use crate::guard::decoding;
use crate::int96::Int96Columns;
use crate::key_column::KeyColumn;
use crate::limits::Limits;
use crate::machine::{Fed, Machine, Piece, Step};
use crate::page_place::ColumnName;
use crate::prepared::Prepared;
use crate::ready::block::{PackedPart, Packer};
use crate::ready::columns::StoredColumns;
use crate::ready::head::{HeadWriter, Stored};
use crate::ready::stretch::Stretch;
use crate::row_batch::RowBatch;
use crate::search::Plan;
use crate::tables::{Tables, about};

/// Rows that are decoded at a time: enough that data pages are seldom inflated twice, and at 100 bytes a row 13 MB.
const BATCH_ROWS: u64 = 128 << 10;
/// Key values that are checked at a time.
const CHECKED_ROWS: usize = 8 << 10;
/// Data pages that must be inflated over and over, because few of their rows fit the bounds at a time, end the build
/// when they were inflated so many times over.
const MAX_INFLATIONS: u64 = 64;

/// Makes lookup-ready rows of one file version.
///
/// The parts and the head are the same bytes for the same file, columns and key column, whatever the windows.
pub struct ReadyBuild {
    state: Option<Box<State>>,
}

struct State {
    plan: Plan,
    columns: StoredColumns,
    fetched: Fetched,
    stage: &'static str,
    /// The row group that is read.
    group: usize,
    tables: Tables,
    /// The page tables of the projection's leaves, in their order; empty while some are not known.
    known: Vec<Arc<PageTable>>,
    stretch: Option<Stretch>,
    /// The next row to decode, within the row group.
    next_row: u64,
    /// Rows of a batch that may be read at once, as far as is known.
    most_rows: usize,
    /// Bytes that the stretch's pages inflate to, and that were inflated for it so far.
    inflated: (u64, u64),
    /// Decoded rows, and how many of them are written.
    batch: Option<(RowBatch, usize)>,
    row_writer: RowWriter,
    /// There are none: such columns are refused.
    int96: Int96Columns,
    /// A row that waits for the next part.
    row: Vec<u8>,
    packer: Packer,
    head: HeadWriter,
}

impl std::fmt::Debug for ReadyBuild {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let group = self.state.as_ref().map(|state| state.group);
        f.debug_struct("ReadyBuild").field("group", &group).finish()
    }
}

impl ReadyBuild {
    /// Plans the build of these columns' rows, to be found by a key column; none: all columns, and the first that the
    /// file declares it is sorted by.
    ///
    /// # Errors
    /// No such column, or one that cannot be a key; [`Error::Unsupported`] for INT96 timestamps, whose unit depends on
    /// the other rows of an answer.
    pub fn new(
        index: Arc<FileIndex>,
        key_column: Option<&str>,
        columns: Option<&[String]>,
        limits: Arc<Limits>,
    ) -> Result<Self, Error> {
        let (columns, projection) = StoredColumns::resolve(&index, key_column, columns)?;
        let packer = Packer::new(columns.key_field, columns.named.len(), columns.fingerprint);
        let head = HeadWriter::new(columns.key_field.is_word());
        let prepared = Prepared::of_columns(index, columns.key.clone(), Arc::new(projection), limits);
        Ok(Self {
            state: Some(Box::new(State {
                plan: Plan::without_keys(Arc::new(prepared)),
                columns,
                fetched: Fetched::default(),
                stage: "plan",
                group: 0,
                tables: Tables::new(0),
                known: Vec::new(),
                stretch: None,
                next_row: 0,
                most_rows: 0,
                inflated: (0, 0),
                batch: None,
                row_writer: RowWriter::default(),
                int96: Int96Columns::default(),
                row: Vec::new(),
                packer,
                head,
            })),
        })
    }

    /// A name for the object among the derived objects of its file version: the same columns and key column give the
    /// same name.
    pub fn name(&self) -> String {
        self.state.as_ref().map(|state| super::name_of(&state.columns)).unwrap_or_default()
    }
}

impl Machine for ReadyBuild {
    type Output = Built<Self>;

    fn step(&mut self) -> Result<Step<Built<Self>>, Error> {
        let Some(state) = &mut self.state else { return Err(Error::corrupt("a build goes on after its end")) };
        let limits = Arc::clone(&state.plan.limits);
        let mut wanted = Wanted::new(limits.scan_bytes, 0);
        loop {
            let done = state.is_done();
            let part = if done || state.write()? { state.packer.take_part() } else { None };
            if let Some(part) = part {
                let (number, bytes) = state.take(part);
                return Ok(Step::Done(Built::Part { number, bytes, rest: Self { state: self.state.take() } }));
            }
            if done {
                return Ok(Step::Done(Built::Head(state.head().into())));
            }
            state.decode(&mut wanted)?;
            if !wanted.is_empty() {
                state.fetched.start_round(limits.scan_bytes);
                state.stage = wanted.stage();
                return Ok(Step::Need(wanted.into_need()));
            }
        }
    }

    fn feed(&mut self, piece: &Piece, fed: Fed) {
        if let (Piece::Range(range), Some(state)) = (piece, &mut self.state) {
            state.fetched.insert(range.clone(), fed.bytes);
        }
    }

    fn stage(&self) -> &'static str {
        self.state.as_ref().map_or("done", |state| state.stage)
    }

    fn work_bytes(&self) -> u64 {
        let Some(state) = &self.state else { return 0 };
        // What was fetched before may still be to decode.
        let waiting = if state.batch.is_some() || state.stretch.is_some() { PART_BYTES as u64 } else { 0 };
        state.fetched.new_bytes().max(waiting)
    }
}

impl State {
    fn is_done(&self) -> bool {
        self.group >= self.plan.index.groups.len() && self.batch.is_none()
    }

    fn take(&mut self, part: PackedPart) -> (u32, bytes::Bytes) {
        let number = self.head.parts();
        self.head.add(&part);
        (number, part.bytes)
    }

    fn head(&self) -> Vec<u8> {
        self.head.finish(&Stored {
            rows: self.plan.index.rows(),
            fingerprint: self.columns.fingerprint,
            key: self.columns.key.leaf as u32,
            columns: self.columns.named.clone(),
        })
    }

    /// Writes decoded rows; true when a part is full or should end.
    fn write(&mut self) -> Result<bool, Error> {
        if let Some((batch, written)) = &mut self.batch {
            while *written < batch.rows || !self.row.is_empty() {
                if self.row.is_empty() {
                    let (columns, row) = ((&*self.plan.projection, &self.int96), (&*batch, *written));
                    self.row_writer.write(columns, row, &mut self.row, &mut Vec::new())?;
                    *written += 1;
                }
                if self.packer.is_full_for(&self.row) {
                    return Ok(true);
                }
                self.packer.add(&self.row)?;
                self.row.clear();
            }
            self.batch = None;
        }
        let rows = self.plan.index.groups.get(self.group).map_or(0, |group| group.rows);
        if self.next_row < rows || self.group >= self.plan.index.groups.len() {
            return Ok(false);
        }
        // The row group is written, and nothing that was fetched for it is needed any more, indexes included.
        self.group += 1;
        self.fetched = Fetched::default();
        (self.next_row, self.stretch) = (0, None);
        (self.tables, self.known) = (Tables::new(self.group), Vec::new());
        Ok(self.packer.is_worth_a_part())
    }

    /// Decodes the next rows, or wants what is missing for that.
    fn decode(&mut self, wanted: &mut Wanted) -> Result<(), Error> {
        let Some(group) = self.plan.index.groups.get(self.group).copied() else { return Ok(()) };
        if self.next_row >= group.rows {
            return Ok(());
        }
        if self.known.is_empty() && !self.find_tables(wanted)? {
            return Ok(());
        }
        if self.stretch.is_none() {
            let tables: Vec<&PageTable> = self.known.iter().map(AsRef::as_ref).collect();
            self.stretch = Some(Stretch::cut(&tables, (self.next_row, group.rows), &self.plan.limits)?);
            self.most_rows = 0;
        }
        let Some(stretch) = &self.stretch else { return Ok(()) };
        // All of them, so that they are there together.
        for range in stretch.pages.iter().filter(|range| !self.fetched.has(range)) {
            wanted.add("all pages", range.clone());
        }
        if wanted.is_empty() { self.decode_fetched() } else { Ok(()) }
    }

    /// The row group's page tables; false, and what is missing is wanted, while some are not known.
    fn find_tables(&mut self, wanted: &mut Wanted) -> Result<bool, Error> {
        let mut known = Vec::with_capacity(self.plan.projection.leaves.len());
        for leaf in &self.plan.projection.leaves {
            if wanted.is_full() {
                return Ok(false);
            }
            known.extend(self.tables.table(&self.plan, *leaf, &mut self.fetched, wanted)?);
        }
        if known.len() == self.plan.projection.leaves.len() {
            self.known = known;
        }
        Ok(!self.known.is_empty())
    }

    /// The fetched pages that hold these rows.
    fn fetched_group(&self, rows: &Range<u64>) -> Result<FetchedGroup<'_>, Error> {
        let leaves = self.plan.projection.leaves.iter().zip(&self.known);
        let pages: Vec<_> = leaves.map(|(leaf, table)| (*leaf, table.pages_of(rows).collect())).collect();
        fetched_group(&self.plan, (self.group, self.tables.known()), &pages, &self.fetched)
    }

    fn decode_fetched(&mut self) -> Result<(), Error> {
        let Some(stretch) = &self.stretch else { return Ok(()) };
        let end = stretch.rows.end.min(self.next_row + BATCH_ROWS);
        let rows: Vec<u64> = (self.next_row..end).collect();
        let group = self.fetched_group(&(self.next_row..end))?;
        if let Err(error) = check_rows(&group) {
            return self.distrust_key(error);
        }
        if self.most_rows == 0 {
            // The stretch is new.
            self.check_narrow_keys(stretch)?;
        }
        let (mut most_rows, bytes) = (self.most_rows, inflated_bytes(&group).max(1));
        let mut inflated = (self.inflated.0.max(bytes), self.inflated.1 + bytes);
        if most_rows == 0 {
            (most_rows, inflated) = (group.most_rows(), (bytes, bytes));
        }
        let batch = self.plan.projection.read_first(&group, &rows, &mut most_rows, &|_| true)?;
        let batches = stretch.rows.end.saturating_sub(stretch.rows.start).div_ceil(BATCH_ROWS);
        if inflated.1 / inflated.0 > MAX_INFLATIONS + batches {
            return Err(Error::Limit(format!(
                "few rows of row group {} can be read at a time: choose columns with shorter values",
                self.group
            )));
        }
        drop(group);
        (self.most_rows, self.inflated) = (most_rows, inflated);
        self.next_row += batch.rows as u64;
        self.batch = Some((batch, 0));
        if self.next_row >= stretch.rows.end {
            for range in &stretch.done {
                self.fetched.let_go(range);
            }
            self.stretch = None;
        }
        Ok(())
    }

    /// Learns the key's data pages anew if the offset index was believed so far: a search does so too.
    fn distrust_key(&mut self, error: Error) -> Result<(), Error> {
        if !self.tables.distrust(&self.plan, self.columns.key.leaf) {
            return Err(error);
        }
        self.stretch = None;
        self.known.clear();
        Ok(())
    }

    /// Refuses keys that are stored wider than their type and lie beyond it: a search compares what is stored, and rows
    /// give what the type holds.
    fn check_narrow_keys(&self, stretch: &Stretch) -> Result<(), Error> {
        let (plan, key) = (&self.plan, &self.columns.key);
        let at = plan.projection.leaves.binary_search(&key.leaf);
        let table = at.ok().and_then(|at| self.known.get(at));
        let (Some(range), Some(table)) = (self.columns.narrow_range(), table) else { return Ok(()) };
        let codec = plan.index.chunk(self.group, key.leaf).codec()?;
        let read = |range: &Range<u64>| {
            let bytes = self.fetched.get(range).ok_or_else(|| Error::corrupt("a fetched data page was lost"))?;
            let page = read_page(&bytes, codec, &key.descr, &plan.limits);
            page.map_err(|error| about(plan, (self.group, key.leaf), None, error))
        };
        let dictionary = table.dictionary.as_ref().map(read).transpose()?;
        for page in table.pages_of(&stretch.rows) {
            let rows = table.page_rows(page);
            let part = Part::Data { page: read(&table.page_range(page))?, rows: (rows.end - rows.start) as usize };
            let values = PageSequence::new(dictionary.clone(), [part], true);
            let fits = decoding(&ColumnName(&key.descr), || all_within(key, values, &range));
            if !fits.map_err(|error| about(plan, (self.group, key.leaf), None, error))? {
                let (name, ty) = (&key.name, &key.ty);
                return Err(Error::Unsupported(format!("values of column `{name}` beyond its type {ty}")));
            }
        }
        Ok(())
    }
}

/// Checks that data pages hold as many rows as their index says, where each value is one row: rows would be put
/// together of values that do not belong to each other.
fn check_rows(group: &FetchedGroup<'_>) -> Result<(), Error> {
    for leaf in group.leaves.values().filter(|leaf| leaf.column.max_rep_level() == 0) {
        for (_, rows, page) in &leaf.pages {
            let values = u64::from(page.header.values);
            if values != *rows {
                let (column, group) = (ColumnName(&leaf.column), group.group);
                return Err(Error::corrupt(format!(
                    "a data page of {column}, {group} holds {values} rows, its index says {rows}"
                )));
            }
        }
    }
    Ok(())
}

fn inflated_bytes(group: &FetchedGroup<'_>) -> u64 {
    let pages = |leaf: &LeafPages| {
        let data: usize = leaf.pages.iter().map(|(_, _, page)| page.inflated_bytes()).sum();
        data + leaf.dictionary.as_ref().map_or(0, |page| page.inflated_bytes())
    };
    group.leaves.values().map(|leaf| pages(leaf) as u64).sum()
}

/// Whether all values of these data pages are within a range, as they are stored.
fn all_within(key: &KeyColumn, pages: PageSequence, range: &RangeInclusive<i128>) -> Result<bool, Error> {
    let ColumnReader::Int32ColumnReader(mut reader) = get_column_reader(key.descr.clone(), Box::new(pages)) else {
        return Err(Error::corrupt("small numbers that are not stored as such"));
    };
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    loop {
        levels.clear();
        values.clear();
        let (rows, _, _) = reader.read_records(CHECKED_ROWS, Some(&mut levels), None, &mut values)?;
        if !values.iter().all(|value| range.contains(&key.int32(*value))) {
            return Ok(false);
        }
        if rows == 0 {
            return Ok(true);
        }
    }
}
