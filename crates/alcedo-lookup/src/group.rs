//! A search within one row group.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::chunk::{PageTable, Place};
use crate::data_page::inflate;
use crate::error::Error;
use crate::fetched::{Fetched, Wanted};
use crate::footer::read_column_index;
use crate::key_column::{Match, matches_in_page};
use crate::search::{FoundRows, Plan};

/// One row group that may hold a key.
pub(crate) struct GroupSearch {
    group: usize,
    tables: BTreeMap<usize, Arc<PageTable>>,
    /// Leaves whose offset index turned out to be damaged: their tables are learned from their chunks.
    distrusted: BTreeSet<usize>,
    matches: Option<Vec<Match>>,
    notes: Vec<String>,
}

impl GroupSearch {
    pub(crate) fn new(group: usize) -> Self {
        Self { group, tables: BTreeMap::new(), distrusted: BTreeSet::new(), matches: None, notes: Vec::new() }
    }

    pub(crate) fn matches_mut(&mut self) -> &mut Vec<Match> {
        self.matches.get_or_insert_default()
    }

    pub(crate) fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    pub(crate) fn found(&self) -> FoundRows<'_> {
        FoundRows { group: self.group, matches: self.matches.as_deref().unwrap_or_default(), tables: &self.tables }
    }

    /// Finds the rows that hold a key, or wants what is missing to find them.
    pub(crate) fn find_matches(&mut self, plan: &Plan, fetched: &Fetched, wanted: &mut Wanted) -> Result<(), Error> {
        if self.matches.is_some() {
            return Ok(());
        }
        let leaf = plan.column.leaf;
        let Some(table) = self.table(plan, leaf, fetched, wanted)? else {
            // The offset indexes of the answer's columns are read along: they will be needed if the key is there.
            for leaf in &plan.projection.leaves {
                self.want_offset_index(plan, *leaf, fetched, wanted);
            }
            return Ok(());
        };
        let candidates = table.candidates(&plan.probes);
        let mut ranges: Vec<Range<u64>> = candidates.iter().map(|page| table.page_range(*page)).collect();
        ranges.extend(table.dictionary.clone().filter(|_| !candidates.is_empty()));
        let missing: Vec<Range<u64>> = ranges.into_iter().filter(|range| fetched.get(range).is_none()).collect();
        if !missing.is_empty() {
            for range in missing {
                wanted.add("key pages", range);
            }
            return self.speculate(plan, &table, &candidates, fetched, wanted);
        }
        let from = if table.has_bounds() { "page index" } else { "no bounds of data pages" };
        let (group, pages) = (self.group, table.len());
        self.notes.push(format!("row group {group}: {} of {pages} key data pages ({from})", candidates.len()));
        self.matches = Some(scan(plan, self.group, &table, &candidates, fetched)?);
        Ok(())
    }

    /// Would take the answer's data pages along with the key's while they are few bytes: that saves a trip if the key
    /// is there.
    fn speculate(
        &mut self,
        plan: &Plan,
        key_table: &PageTable,
        candidates: &[usize],
        fetched: &Fetched,
        wanted: &mut Wanted,
    ) -> Result<(), Error> {
        let mut ranges = Vec::new();
        for leaf in &plan.projection.leaves {
            let known = self.tables.get(leaf).cloned().or_else(|| plan.index.table(self.group, *leaf));
            let offsets = plan.index.chunk(self.group, *leaf).offset_index(plan.index.file_size);
            let table = match known {
                // Its offset index came along with the key's. A repeated lookup must want the same pages as this one.
                None if offsets.is_some_and(|range| fetched.get(&range).is_some()) => {
                    self.table(plan, *leaf, fetched, wanted)?
                }
                known => known,
            };
            match table {
                Some(table) => {
                    let rows = candidates.iter().map(|page| key_table.page_rows(*page));
                    ranges.extend(page_ranges(&table, rows));
                }
                None => ranges.push(plan.index.chunk_range(self.group, *leaf)?),
            }
        }
        ranges.retain(|range| fetched.get(range).is_none());
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        if bytes <= plan.limits.speculate_bytes {
            for range in ranges.into_iter().filter(|range| !range.is_empty()) {
                wanted.add_along(range);
            }
        }
        Ok(())
    }

    /// Sees to it that the data pages of all found rows are there, or wants them.
    pub(crate) fn find_values(&mut self, plan: &Plan, fetched: &Fetched, wanted: &mut Wanted) -> Result<(), Error> {
        let mut missing_table = false;
        for leaf in &plan.projection.leaves {
            missing_table |= self.table(plan, *leaf, fetched, wanted)?.is_none();
        }
        if missing_table {
            return Ok(());
        }
        let rows = self.found().rows();
        for leaf in &plan.projection.leaves {
            let Some(table) = self.tables.get(leaf) else { continue };
            let ranges = page_ranges(table, rows.iter().map(|row| *row..row + 1));
            for range in ranges.into_iter().filter(|range| fetched.get(range).is_none()) {
                wanted.add("value pages", range);
            }
        }
        Ok(())
    }

    /// The page table of a leaf: known, or made from fetched bytes; else none, and what is missing is wanted.
    fn table(
        &mut self,
        plan: &Plan,
        leaf: usize,
        fetched: &Fetched,
        wanted: &mut Wanted,
    ) -> Result<Option<Arc<PageTable>>, Error> {
        if let Some(table) = self.tables.get(&leaf) {
            return Ok(Some(table.clone()));
        }
        let is_key = leaf == plan.column.leaf;
        let bounds = plan.index.chunk(self.group, leaf).column_index(plan.index.file_size).filter(|_| is_key);
        let known = plan.index.table(self.group, leaf).filter(|table| bounds.is_none() || table.has_bounds());
        let table = match known {
            Some(table) => table,
            None => {
                let Some(table) = self.indexed_table(plan, leaf, bounds, fetched, wanted)? else { return Ok(None) };
                let table = Arc::new(table);
                plan.index.keep_table(self.group, leaf, &table);
                table
            }
        };
        self.tables.insert(leaf, table.clone());
        Ok(Some(table))
    }

    fn indexed_table(
        &mut self,
        plan: &Plan,
        leaf: usize,
        bounds: Option<Range<u64>>,
        fetched: &Fetched,
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
        let Ok(table) = PageTable::from_offset_index(&offsets, &range, plan.index.groups[self.group].rows) else {
            self.notes
                .push(format!("row group {}: the offset index of leaf {leaf} is damaged and not used", self.group));
            self.distrusted.insert(leaf);
            return self.learned_table(plan, leaf, range, fetched, wanted);
        };
        Ok(Some(match column_index.flatten().map(|bytes| read_column_index(&bytes)) {
            Some(Ok(index)) => table.with_bounds(&index, &plan.column),
            Some(Err(error)) => {
                self.notes.push(format!("row group {}: {error}: not used", self.group));
                table
            }
            None => table,
        }))
    }

    fn learned_table(
        &mut self,
        plan: &Plan,
        leaf: usize,
        range: Range<u64>,
        fetched: &Fetched,
        wanted: &mut Wanted,
    ) -> Result<Option<PageTable>, Error> {
        let bytes = range.end - range.start;
        if bytes > plan.limits.learn_bytes {
            let limit = plan.limits.learn_bytes;
            return Err(Error::Limit(format!(
                "a column chunk of {bytes} bytes without an offset index, at most {limit} are read at once"
            )));
        }
        let Some(bytes) = fetched.get(&range) else {
            wanted.add("whole chunks", range);
            return Ok(None);
        };
        let chunk = plan.index.chunk(self.group, leaf);
        let place = Place {
            chunk,
            start: range.start,
            rows: plan.index.groups[self.group].rows,
            codec: chunk.codec()?,
            max_rep_level: plan.index.schema().column(leaf).max_rep_level(),
        };
        self.notes.push(format!("row group {}: learned the data pages of leaf {leaf}", self.group));
        PageTable::learn(&bytes, &place, &plan.limits).map(Some)
    }

    /// Wants a leaf's offset index if nothing is known of its data pages and the file has one.
    fn want_offset_index(&self, plan: &Plan, leaf: usize, fetched: &Fetched, wanted: &mut Wanted) {
        if self.tables.contains_key(&leaf) || plan.index.table(self.group, leaf).is_some() {
            return;
        }
        let range = plan.index.chunk(self.group, leaf).offset_index(plan.index.file_size);
        if let Some(range) = range.filter(|range| fetched.get(range).is_none()) {
            wanted.add("index", range);
        }
    }
}

/// The ranges of the data pages that hold any of these rows, and of the dictionary page that they need.
fn page_ranges(table: &PageTable, rows: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let pages: BTreeSet<usize> = rows.flat_map(|rows| table.pages_of(&rows)).collect();
    let mut ranges: Vec<Range<u64>> = pages.iter().map(|page| table.page_range(*page)).collect();
    if !pages.is_empty() {
        ranges.extend(table.dictionary.clone());
    }
    ranges
}

fn scan(
    plan: &Plan,
    group: usize,
    table: &PageTable,
    candidates: &[usize],
    fetched: &Fetched,
) -> Result<Vec<Match>, Error> {
    let codec = plan.index.chunk(group, plan.column.leaf).codec()?;
    let mut matches = Vec::new();
    if candidates.is_empty() {
        return Ok(matches);
    }
    let page = |range: &Range<u64>| {
        let bytes = fetched.get(range).ok_or_else(|| Error::corrupt("a fetched data page was lost"))?;
        inflate(&bytes, codec, &plan.limits)
    };
    let dictionary = table.dictionary.as_ref().map(page).transpose()?;
    for candidate in candidates {
        let rows = table.page_rows(*candidate);
        let page = page(&table.page_range(*candidate))?;
        if u64::from(page.num_values()) != rows.end - rows.start {
            return Err(Error::corrupt(format!(
                "a data page holds {} rows, its index says {}",
                page.num_values(),
                rows.end - rows.start
            )));
        }
        matches_in_page(&plan.column, &plan.probes, dictionary.clone(), (page, rows.start), &mut matches)?;
        if matches.len() > plan.limits.answer_rows && plan.query.row_limit.is_none() {
            let bound = plan.limits.answer_rows;
            return Err(Error::AnswerTooLarge(format!("more than {bound} rows match: set a row limit")));
        }
    }
    Ok(matches)
}
