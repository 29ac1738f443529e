//! Found rows that are written to the answer at once, and which data pages of which columns that takes.
//!
//! Pages that are decoded already take no bytes. Of a page that is to be decoded whole all leaves of its root column
//! are read for all of its rows; of any other just the data pages of the found rows.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::chunk::PageTable;
use crate::decoded::{DecodedPages, DecodedRows, Found, MAX_PAGE_ROWS, PageKey};
use crate::error::Error;
use crate::key_scan::Match;
use crate::row_reader::Root;
use crate::search::Plan;

/// Bytes of stored pages that are read to decode one page of a root column with several leaves: another leaf's pages
/// may be much longer.
const MAX_STORED_BYTES: u64 = 4 << 20;

/// Bytes that a decoded value takes at least, about: of many a page is long though it is few bytes as it is stored.
pub(crate) const DECODED_VALUE_BYTES: u64 = 4;

/// Page tables by leaf.
pub(crate) type PageTables = BTreeMap<usize, Arc<PageTable>>;

/// A leaf and its data pages by their ordinals, ascending.
pub(crate) type LeafOrdinals = (usize, Vec<usize>);

/// Some of a row group's matches.
pub(crate) struct Stretch {
    /// Which of the row group's matches.
    pub(crate) matches: Range<usize>,
    /// Their distinct rows, ascending.
    pub(crate) rows: Vec<u64>,
    /// Leaves of which bytes are read, each with its data pages.
    pub(crate) leaves: Vec<LeafOrdinals>,
    /// Per root column of the projection.
    pub(crate) roots: Vec<RootPages>,
}

/// What of a root column's rows is not read from its found rows' data pages alone.
#[derive(Default)]
pub(crate) struct RootPages {
    /// Decoded pages, ascending.
    pub(crate) decoded: Vec<Arc<DecodedRows>>,
    /// Rows of pages that are decoded whole.
    pub(crate) whole: Vec<Range<u64>>,
}

/// How pages of a root column are named in the cache of decoded ones.
pub(crate) fn page_key(plan: &Plan, group: usize, column: u64, first_row: u64) -> PageKey {
    PageKey { owner: plan.index.id.into(), group: group as u64, column, first_row }
}

impl Stretch {
    /// The first matches from `written` on whose data pages take about a window.
    ///
    /// # Errors
    /// One row takes more than is read.
    pub(crate) fn cut(
        plan: &Plan,
        group: usize,
        tables: &PageTables,
        matches: &[Match],
        written: usize,
    ) -> Result<Self, Error> {
        let matches = cut_matches(plan, tables, matches, written)?;
        Ok(matches_in(plan, group, tables, matches))
    }

    /// The ranges of the file that its data pages take, with the dictionary pages that they need.
    pub(crate) fn ranges(&self, tables: &PageTables) -> Vec<Range<u64>> {
        let mut ranges = Vec::new();
        for (leaf, pages) in &self.leaves {
            if let Some(table) = tables.get(leaf) {
                ranges.extend(pages.iter().map(|page| table.page_range(*page)));
                ranges.extend(table.dictionary.clone());
            }
        }
        ranges
    }
}

fn matches_in(plan: &Plan, group: usize, tables: &PageTables, (matches, rows): (Range<usize>, Vec<u64>)) -> Stretch {
    let mut leaves = Vec::with_capacity(plan.projection.leaves.len());
    let mut roots = Vec::with_capacity(plan.projection.roots.len());
    for root in &plan.projection.roots {
        let mut pages = RootPages::default();
        let decoded = plan.decoded_rows().zip(root.code).filter(|_| {
            let known = |leaf| tables.get(leaf).is_some_and(|table: &Arc<PageTable>| table.aligned);
            root.leaves.iter().all(known)
        });
        match decoded {
            None => root.leaves.iter().for_each(|leaf| leaves.extend(pages_of_leaf(tables, *leaf, &rows, &[]))),
            Some((cache, code)) => {
                let rest = split_rows((plan, group), (cache, code), root, tables, &rows, &mut pages);
                let whole = &pages.whole;
                root.leaves.iter().for_each(|leaf| leaves.extend(pages_of_leaf(tables, *leaf, &rest, whole)));
            }
        }
        roots.push(pages);
    }
    Stretch { matches, rows, leaves, roots }
}

/// Tells the rows of pages that are decoded, or are to be, from the others, which it gives.
fn split_rows(
    (plan, group): (&Plan, usize),
    (cache, code): (&DecodedPages, u64),
    root: &Root,
    tables: &PageTables,
    rows: &[u64],
    pages: &mut RootPages,
) -> Vec<u64> {
    let mut rest = Vec::new();
    let Some(table) = root.leaves.first().and_then(|leaf| tables.get(leaf)) else { return rows.to_vec() };
    let mut next = 0;
    while let Some(row) = rows.get(next) {
        let page = table.page_rows(table.pages_of(&(*row..row + 1)).start);
        let end = next + rows[next..].partition_point(|row| *row < page.end).max(1);
        let stored = stored_bytes(root, tables, &page);
        let bytes = stored.max((page.end - page.start).saturating_mul(DECODED_VALUE_BYTES));
        match cache.rows(&page_key(plan, group, code, page.start), bytes) {
            Found::Decoded(decoded) if decoded.end() >= page.end => pages.decoded.push(decoded),
            Found::Decode if is_affordable(root, stored, &page) => pages.whole.push(page),
            _ => rest.extend_from_slice(&rows[next..end]),
        }
        next = end;
    }
    rest
}

/// Bytes of the stored pages of all of a root column's leaves that hold these rows.
fn stored_bytes(root: &Root, tables: &PageTables, rows: &Range<u64>) -> u64 {
    let stored = |table: &Arc<PageTable>| {
        let lengths = table.pages_of(rows).map(|page| table.page_range(page)).map(|range| range.end - range.start);
        lengths.sum::<u64>()
    };
    root.leaves.iter().filter_map(|leaf| tables.get(leaf)).map(stored).sum()
}

fn is_affordable(root: &Root, stored: u64, rows: &Range<u64>) -> bool {
    rows.end - rows.start <= MAX_PAGE_ROWS && (root.leaves.len() == 1 || stored <= MAX_STORED_BYTES)
}

/// A leaf with the data pages that hold these ascending rows and these stretches of rows; none where there are none.
fn pages_of_leaf(tables: &PageTables, leaf: usize, rows: &[u64], whole: &[Range<u64>]) -> Option<LeafOrdinals> {
    let table = tables.get(&leaf)?;
    let mut pages = table.pages_of_rows(rows);
    if !whole.is_empty() {
        pages.extend(whole.iter().flat_map(|rows| table.pages_of(rows)));
        pages.sort_unstable();
        pages.dedup();
    }
    (!pages.is_empty()).then_some((leaf, pages))
}

/// Which matches come next, and their distinct rows.
fn cut_matches(
    plan: &Plan,
    tables: &PageTables,
    matches: &[Match],
    written: usize,
) -> Result<(Range<usize>, Vec<u64>), Error> {
    let tables = plan.projection.leaves.iter().filter_map(|leaf| tables.get(leaf));
    let mut columns: Vec<Cursor<'_>> = tables.map(|table| Cursor::new(table)).collect();
    let first = matches.get(written).map(|(row, _)| *row);
    let (mut bytes, mut end, mut window) = (0_u64, written, plan.limits.scan_bytes);
    let mut rows = Vec::with_capacity(matches.len() - written.min(matches.len()));
    while let Some((row, _)) = matches.get(end) {
        if rows.last() != Some(row) {
            bytes += columns.iter_mut().map(|column| column.bytes_up_to(*row)).sum::<u64>();
            if Some(*row) == first {
                // What one row takes cannot be cut, so the window has at least that.
                window = window.max(bytes);
            } else if bytes > window {
                break;
            }
            rows.push(*row);
        }
        end += 1;
    }
    if window > plan.limits.row_bytes {
        return Err(Error::Limit(format!(
            "one row's data pages of the asked columns take {window} bytes, at most {} are read: select fewer columns",
            plan.limits.row_bytes
        )));
    }
    Ok((written..end, rows))
}

/// How far the data pages of one column have been counted.
struct Cursor<'a> {
    table: &'a PageTable,
    /// Data pages before this one are counted, and the rows before this one are theirs.
    next: usize,
    end: u64,
}

impl<'a> Cursor<'a> {
    fn new(table: &'a PageTable) -> Self {
        Self { table, next: 0, end: 0 }
    }

    /// Bytes of the data pages that this row needs and that no row before it needed. Rows ascend.
    fn bytes_up_to(&mut self, row: u64) -> u64 {
        if row < self.end && self.table.aligned {
            return 0;
        }
        let pages = self.table.pages_of(&(row..row + 1));
        let length = |range: Range<u64>| range.end - range.start;
        let dictionary = self.table.dictionary.clone().filter(|_| self.next == 0).map_or(0, length);
        let new = pages.start.max(self.next)..pages.end;
        self.next = self.next.max(pages.end);
        self.end = pages.last().map_or(row, |page| self.table.page_rows(page).end);
        dictionary + new.map(|page| length(self.table.page_range(page))).sum::<u64>()
    }
}
