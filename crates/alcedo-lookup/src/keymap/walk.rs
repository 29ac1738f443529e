//! One pass over a key column's chunks, window by window, in the order of the file.
//!
//! Page tables are known, read from the offset index or learned, as for a search; what is learned stays in the file
//! index. It knows what to read and decodes it; what becomes of the hashes is its caller's business.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::chunk::PageTable;
use crate::data_page::read_page;
use crate::error::Error;
use crate::fetched::{Fetched, Wanted};
use crate::group::agreeing;
use crate::guard::decoding;
use crate::key_scan::KeyPage;
use crate::keymap::key_hashes::{HashedDictionary, Rows, go_through};
use crate::page_place::ColumnName;
use crate::search::Plan;
use crate::tables::{Tables, about};

/// Inflated bytes of data pages that are decoded with one reader.
const DECODED_AT_ONCE_BYTES: usize = 16 << 20;
/// Row groups whose data pages are wanted at once at most: small ones share a trip.
const LOOK_AHEAD_GROUPS: usize = 64;

/// A pass.
#[derive(Default)]
pub(crate) struct Walk {
    /// The row group that is gone through.
    group: usize,
    /// Its next data page.
    page: usize,
    dictionary: Option<HashedDictionary>,
    /// The column's page table in this row group and the next ones.
    tables: BTreeMap<usize, Tables>,
}

impl Walk {
    /// Goes on as far as fetched pieces allow. True at the end; else what is missing is wanted.
    ///
    /// # Errors
    /// A chunk or data page is not what it should be.
    pub(crate) fn go_on(
        &mut self,
        plan: &Plan,
        fetched: &mut Fetched,
        wanted: &mut Wanted,
        rows: &mut impl Rows,
    ) -> Result<bool, Error> {
        while let Some(group) = plan.index.groups.get(self.group) {
            if group.rows > 0 {
                let leaf = plan.column.leaf;
                let Some(table) = self.table(plan, self.group, fetched, wanted)? else { break };
                match self.go_through(plan, &table, fetched, rows) {
                    // As in a search: the offset index is believed only as long as the data pages agree with it.
                    Err(Error::Corrupt(_)) if self.distrusts(plan, leaf) => {
                        (self.page, self.dictionary) = (0, None);
                        continue;
                    }
                    result => result?,
                }
                if self.page < table.len() {
                    break;
                }
            }
            self.tables.remove(&self.group);
            (self.group, self.page, self.dictionary) = (self.group + 1, 0, None);
        }
        if self.group >= plan.index.groups.len() {
            return Ok(true);
        }
        self.want(plan, fetched, wanted)?;
        Ok(false)
    }

    fn distrusts(&mut self, plan: &Plan, leaf: usize) -> bool {
        self.tables.get_mut(&self.group).is_some_and(|tables| tables.distrust(plan, leaf))
    }

    fn table(
        &mut self,
        plan: &Plan,
        group: usize,
        fetched: &mut Fetched,
        wanted: &mut Wanted,
    ) -> Result<Option<Arc<PageTable>>, Error> {
        let tables = self.tables.entry(group).or_insert_with(|| Tables::without_bounds(group));
        tables.table(plan, plan.column.leaf, fetched, wanted)
    }

    /// Goes through the data pages that are there, up to the first that is not.
    fn go_through(
        &mut self,
        plan: &Plan,
        table: &PageTable,
        fetched: &mut Fetched,
        into: &mut impl Rows,
    ) -> Result<(), Error> {
        let (group, leaf) = (self.group, plan.column.leaf);
        let group_row = plan.index.groups[group].first_row;
        let codec = plan.index.chunk(group, leaf).codec()?;
        let what = ColumnName(&plan.column.descr);
        let said = |page: Option<(usize, u64)>, error| about(plan, (group, leaf), page, error);
        if let (None, Some(range)) = (&self.dictionary, &table.dictionary) {
            let Some(bytes) = fetched.get(range) else { return Ok(()) };
            let page = read_page(&bytes, codec, &plan.column.descr, &plan.limits).map_err(|e| said(None, e))?;
            let hashed = decoding(&what, || HashedDictionary::of(&plan.column, page));
            self.dictionary = hashed.map_err(|e| said(None, e))?;
            fetched.let_go(range);
        }
        while self.page < table.len() {
            let (first, mut pages, mut bytes) = (self.page, Vec::new(), 0);
            for number in self.page..table.len() {
                let (range, rows) = (table.page_range(number), table.page_rows(number));
                let Some(stored) = fetched.get(&range).filter(|_| bytes < DECODED_AT_ONCE_BYTES) else { break };
                let page = read_page(&stored, codec, &plan.column.descr, &plan.limits);
                let page = page.and_then(|page| agreeing(page, &rows));
                let page = page.map_err(|error| said(Some((number, range.start)), error))?;
                bytes += page.buffer().len();
                pages.push(KeyPage { page, first_row: group_row + rows.start, keep: false });
                fetched.let_go(&range);
            }
            if pages.is_empty() {
                return Ok(());
            }
            let gone = decoding(&what, || go_through(&plan.column, self.dictionary.as_ref(), &pages, into));
            gone.map_err(|error| said(Some((first, table.page_range(first).start)), error))?;
            self.page += pages.len();
        }
        Ok(())
    }

    /// Wants the next data pages, of this row group and of those behind it, as many as a window takes.
    fn want(&mut self, plan: &Plan, fetched: &mut Fetched, wanted: &mut Wanted) -> Result<(), Error> {
        let groups = plan.index.groups.len().min(self.group + LOOK_AHEAD_GROUPS);
        for group in self.group..groups {
            if wanted.is_full() {
                break;
            }
            if plan.index.groups[group].rows == 0 {
                continue;
            }
            let Some(table) = self.table(plan, group, fetched, wanted)? else { continue };
            let (first, is_hashed) =
                if group == self.group { (self.page, self.dictionary.is_some()) } else { (0, false) };
            let dictionary = table.dictionary.iter().filter(|_| !is_hashed).cloned();
            let pages = (first..table.len()).map(|page| table.page_range(page));
            for range in dictionary.chain(pages).filter(|range| !fetched.has(range)) {
                if wanted.is_full() {
                    break;
                }
                wanted.add("key pages", range);
            }
        }
        Ok(())
    }
}
