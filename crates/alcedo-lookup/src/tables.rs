//! The page tables of one row group's columns: known, read from the page index, or learned from the chunk.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::chunk::{Learning, PageTable, Place};
use crate::error::{Error, shown};
use crate::fetched::{Fetched, Wanted};
use crate::page_index::read_column_index;
use crate::search::Plan;

/// Page tables by leaf, as one search of one row group comes to know them.
pub(crate) struct Tables {
    group: usize,
    /// Bounds of the key's data pages are worth a read.
    with_bounds: bool,
    known: BTreeMap<usize, Arc<PageTable>>,
    /// Leaves whose offset index turned out to be damaged: their tables are learned from their chunks.
    distrusted: BTreeSet<usize>,
    /// Tables in the making.
    learning: BTreeMap<usize, Learning>,
    /// Decisions in words.
    pub(crate) notes: Vec<String>,
}

impl Tables {
    pub(crate) fn new(group: usize) -> Self {
        let (known, distrusted, learning) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { group, with_bounds: true, known, distrusted, learning, notes: Vec::new() }
    }

    /// Tables for whom bounds are of no use.
    pub(crate) fn without_bounds(group: usize) -> Self {
        Self { with_bounds: false, ..Self::new(group) }
    }

    /// Puts a decision in words, if anybody reads them.
    pub(crate) fn note(&mut self, plan: &Plan, words: impl FnOnce() -> String) {
        if plan.is_noted {
            self.notes.push(words());
        }
    }

    pub(crate) fn known(&self) -> &BTreeMap<usize, Arc<PageTable>> {
        &self.known
    }

    /// A leaf's table, if this search or one before it came to know it.
    pub(crate) fn get(&self, plan: &Plan, leaf: usize) -> Option<Arc<PageTable>> {
        self.known.get(&leaf).cloned().or_else(|| plan.index.table(self.group, leaf))
    }

    /// Learns a leaf's table anew if it came from an offset index; false if there is nothing to distrust.
    pub(crate) fn distrust(&mut self, plan: &Plan, leaf: usize) -> bool {
        let is_indexed = plan.index.chunk(self.group, leaf).offset_index(plan.index.file_size).is_some();
        let is_news = is_indexed && self.distrusted.insert(leaf);
        if is_news {
            self.known.remove(&leaf);
        }
        is_news
    }

    /// The page table of a leaf: known, or made from fetched bytes; else none, and what is missing is wanted.
    pub(crate) fn table(
        &mut self,
        plan: &Plan,
        leaf: usize,
        fetched: &mut Fetched,
        wanted: &mut Wanted,
    ) -> Result<Option<Arc<PageTable>>, Error> {
        if let Some(table) = self.known.get(&leaf) {
            return Ok(Some(table.clone()));
        }
        let bounded = self.with_bounds && leaf == plan.column.leaf;
        let bounds = plan.index.chunk(self.group, leaf).column_index(plan.index.file_size).filter(|_| bounded);
        let known = plan.index.table(self.group, leaf).filter(|table| bounds.is_none() || table.has_bounds());
        let table = match known.filter(|_| !self.distrusted.contains(&leaf)) {
            Some(table) => table,
            None => {
                let Some(table) = self.indexed_table(plan, leaf, bounds, fetched, wanted)? else { return Ok(None) };
                let table = Arc::new(table);
                plan.index.keep_table(self.group, leaf, &table);
                table
            }
        };
        self.known.insert(leaf, table.clone());
        Ok(Some(table))
    }

    fn indexed_table(
        &mut self,
        plan: &Plan,
        leaf: usize,
        bounds: Option<Range<u64>>,
        fetched: &mut Fetched,
        wanted: &mut Wanted,
    ) -> Result<Option<PageTable>, Error> {
        let (chunk, size) = (plan.index.chunk(self.group, leaf), plan.index.file_size);
        let range = plan.index.chunk_range(self.group, leaf)?;
        let Some(offset_index) = chunk.offset_index(size).filter(|_| !self.distrusted.contains(&leaf)) else {
            return self.learned_table(plan, leaf, range, fetched, wanted);
        };
        let offsets = fetched.get(&offset_index);
        let column_index = bounds.as_ref().map(|range| fetched.get(range));
        if offsets.is_none() {
            wanted.add("index", offset_index);
        }
        if let (Some(None), Some(range)) = (&column_index, bounds) {
            wanted.add("index", range);
        }
        let (Some(offsets), None | Some(Some(_))) = (offsets, &column_index) else { return Ok(None) };
        let rows = plan.index.groups[self.group].rows;
        let Ok(table) = PageTable::from_offset_index(&offsets, &range, rows, &plan.limits) else {
            let group = self.group;
            self.note(plan, || format!("row group {group}: the offset index of leaf {leaf} is damaged and not used"));
            self.distrusted.insert(leaf);
            return self.learned_table(plan, leaf, range, fetched, wanted);
        };
        Ok(Some(match column_index.flatten().map(|bytes| read_column_index(&bytes, &plan.limits)) {
            Some(Ok(index)) => table.with_bounds(&index, &plan.column, plan.index.is_type_ordered(leaf)),
            Some(Err(error)) => {
                let group = self.group;
                self.note(plan, || format!("row group {group}: {error}: not used"));
                table
            }
            None => table,
        }))
    }

    /// Learns where a chunk's data pages are, as far as the chunk's bytes are there.
    fn learned_table(
        &mut self,
        plan: &Plan,
        leaf: usize,
        range: Range<u64>,
        fetched: &mut Fetched,
        wanted: &mut Wanted,
    ) -> Result<Option<PageTable>, Error> {
        let bytes = range.end - range.start;
        if bytes > plan.limits.learn_bytes {
            let limit = plan.limits.learn_bytes;
            return Err(Error::Limit(format!(
                "a column chunk of {bytes} bytes without an offset index, at most {limit} are read"
            )));
        }
        let chunk = plan.index.chunk(self.group, leaf);
        let place = Place {
            chunk,
            rows: plan.index.groups[self.group].rows,
            codec: chunk.codec()?,
            column: plan.index.schema().column(leaf),
        };
        let learning = self.learning.entry(leaf).or_insert_with(|| Learning::new(range));
        loop {
            let window = learning.window(plan.limits.scan_bytes);
            let Some(bytes) = fetched.get(&window) else {
                wanted.add("whole chunks", window);
                return Ok(None);
            };
            let learned = learning.go_on(&bytes, &place, &plan.limits);
            fetched.let_go(&window);
            if let Some(table) = learned.map_err(|error| about(plan, (self.group, leaf), None, error))? {
                self.learning.remove(&leaf);
                let group = self.group;
                self.note(plan, || format!("row group {group}: learned the data pages of leaf {leaf}"));
                return Ok(Some(table));
            }
        }
    }

    /// Wants a leaf's offset index if nothing is known of its data pages and the file has one.
    pub(crate) fn want_offset_index(&self, plan: &Plan, leaf: usize, fetched: &Fetched, wanted: &mut Wanted) {
        if self.get(plan, leaf).is_some() {
            return;
        }
        let range = plan.index.chunk(self.group, leaf).offset_index(plan.index.file_size);
        if let Some(range) = range.filter(|range| !fetched.has(range)) {
            wanted.add("index", range);
        }
    }
}

/// Says which column chunk an error is about, and which data page: its ordinal and its offset in the file.
pub(crate) fn about(plan: &Plan, (group, leaf): (usize, usize), page: Option<(usize, u64)>, error: Error) -> Error {
    let page = page.map(|(page, offset)| format!("data page {page} (offset {offset}) of ")).unwrap_or_default();
    let column = plan.index.schema().column(leaf).path().string();
    error.within(&format!("{page}column `{}`, row group {group}", shown(&column)))
}
