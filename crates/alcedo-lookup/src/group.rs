//! A search within one row group: which rows hold a key, and which data pages hold the answer's values.

use std::ops::Range;
use std::sync::Arc;

use parquet::column::page::Page;

use crate::chunk::PageTable;
use crate::data_page::read_page;
use crate::decoded::{PageKey, keys_of};
use crate::error::Error;
use crate::fetched::{Fetched, Wanted};
use crate::guard::decoding;
use crate::key_column::Probes;
use crate::key_scan::{KeyPage, KeyScan, Match};
use crate::page_header::PageHeader;
use crate::page_place::ColumnName;
use crate::search::{FoundRows, Plan};
use crate::sent_pages::SentPages;
use crate::sieve::{self, Sieve};
use crate::stretch::{Stretch, page_key};
use crate::tables::{Tables, about};

/// Inflated bytes of key data pages that are gone through with one reader.
const SCANNED_AT_ONCE_BYTES: usize = 16 << 20;

/// Bytes that a decoded key takes, about.
const KEY_BYTES: u64 = 8;

/// One row group that may hold a key.
pub(crate) struct GroupSearch {
    group: usize,
    tables: Tables,
    /// Set while the key's bloom filter is asked.
    sieve: Option<Sieve>,
    /// The keys that the bloom filter left; none before it was asked, or where it need not be.
    sifted: Option<Probes>,
    /// The only rows that may hold a key, ascending, where they are known before the search.
    at: Option<Vec<u64>>,
    /// Set while key data pages are gone through.
    scan: Option<KeyScan>,
    /// Set when all of them were.
    matches: Option<Vec<Match>>,
    /// How many of the matches are in the answer.
    written: usize,
    /// The matches that are written next.
    stretch: Option<Stretch>,
}

impl GroupSearch {
    pub(crate) fn new(group: usize) -> Self {
        let (tables, written) = (Tables::new(group), 0);
        Self { group, tables, sieve: None, sifted: None, at: None, scan: None, matches: None, written, stretch: None }
    }

    /// A search of a row group of which no row but these may hold a key; they ascend.
    pub(crate) fn at(group: usize, rows: Vec<u64>) -> Self {
        Self { at: Some(rows), tables: Tables::without_bounds(group), ..Self::new(group) }
    }

    /// Whether the rows that may hold a key are known.
    pub(crate) fn is_at_rows(&self) -> bool {
        self.at.is_some()
    }

    /// The matches found so far, of a row group that may not be gone through yet.
    pub(crate) fn matches(&self) -> &[Match] {
        let found = self.matches.as_ref().or_else(|| self.scan.as_ref().map(|scan| &scan.matches));
        found.map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether all matches are known.
    pub(crate) fn is_searched(&self) -> bool {
        self.matches.is_some()
    }

    pub(crate) fn matches_mut(&mut self) -> &mut Vec<Match> {
        self.matches.get_or_insert_default()
    }

    pub(crate) fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.tables.notes)
    }

    /// Finds the rows that hold a key, or wants what is missing to find them.
    pub(crate) fn find_matches(
        &mut self,
        plan: &Plan,
        fetched: &mut Fetched,
        wanted: &mut Wanted,
    ) -> Result<(), Error> {
        if self.matches.is_some() {
            return Ok(());
        }
        let leaf = plan.column.leaf;
        let is_indexed = plan.index.chunk(self.group, leaf).offset_index(plan.index.file_size).is_some();
        if self.tables.get(plan, leaf).is_none() && !is_indexed {
            // Nothing is known of the data pages: the whole chunk would have to be read.
            let range = plan.index.chunk_range(self.group, leaf)?;
            if !self.is_worth_it(plan, range.end - range.start, fetched, wanted) {
                return Ok(());
            }
        }
        let Some(table) = self.tables.table(plan, leaf, fetched, wanted)? else {
            // The offset indexes of the answer's columns are read along: they will be needed if the key is there.
            for leaf in &plan.projection.leaves {
                self.tables.want_offset_index(plan, *leaf, fetched, wanted);
            }
            return Ok(());
        };
        match self.scan_pages(plan, &table, fetched, wanted) {
            // The offset index may be what is wrong: it is believed only as long as the data pages agree with it.
            Err(Error::Corrupt(why)) if self.tables.distrust(plan, leaf) => {
                (self.scan, self.stretch) = (None, None);
                let group = self.group;
                self.tables.note(plan, || format!("row group {group}: the key's offset index is not used: {why}"));
                self.find_matches(plan, fetched, wanted)
            }
            result => result,
        }
    }

    /// Whether so many bytes of key data pages are to be read now. Before many are, the bloom filter is asked, if there
    /// is one; where it rules out every key, the search of the row group ends.
    fn is_worth_it(&mut self, plan: &Plan, bytes: u64, fetched: &mut Fetched, wanted: &mut Wanted) -> bool {
        if self.sifted.is_some() || self.at.is_some() || bytes < sieve::WORTH_BYTES {
            return true;
        }
        let place = plan.index.chunk(self.group, plan.column.leaf).bloom_filter(plan.index.data_end);
        let new = || place.and_then(|place| Sieve::new(place, &plan.column, &plan.probes));
        let Some(sieve) = self.sieve.take().or_else(new) else { return true };
        let Some(left) = sieve.sift(&plan.probes, &plan.limits, fetched, wanted) else {
            self.sieve = Some(sieve);
            return false;
        };
        let (asked, left_over) = (plan.probes.keys().count(), left.keys().count());
        let group = self.group;
        self.tables.note(plan, || format!("row group {group}: {left_over} of {asked} keys by the bloom filter"));
        if left_over == 0 {
            self.matches = Some(Vec::new());
        }
        self.sifted = Some(left);
        left_over > 0
    }

    /// The keys that the row group may hold.
    fn probes<'a>(&'a self, plan: &'a Plan) -> &'a Probes {
        self.sifted.as_ref().unwrap_or(&plan.probes)
    }

    fn scan_pages(
        &mut self,
        plan: &Plan,
        table: &Arc<PageTable>,
        fetched: &mut Fetched,
        wanted: &mut Wanted,
    ) -> Result<(), Error> {
        let is_first_round = self.scan.is_none();
        if is_first_round && self.sifted.is_none() {
            let length = |page: &usize| u64::from(table.pages[*page].length);
            let candidates = table.candidates(&plan.probes);
            let mut bytes = candidates.iter().map(length).sum();
            if let Some(cache) = plan.decoded().filter(|_| bytes >= sieve::WORTH_BYTES) {
                let is_stored = |page: &&usize| !cache.has(&self.key_of(plan, table, **page));
                bytes = candidates.iter().filter(is_stored).map(length).sum();
            }
            if !self.is_worth_it(plan, bytes, fetched, wanted) {
                return Ok(());
            }
        }
        let mut scan = self.scan.take().unwrap_or_else(|| self.new_scan(plan, table));
        self.go_through(plan, table, &mut scan, fetched)?;
        if !scan.left().is_empty() && !scan.has_enough(self.probes(plan)) {
            let dictionary = table.dictionary.iter().filter(|_| scan.dictionary.is_none()).cloned();
            let pages = scan.left_stored().map(|page| table.page_range(page));
            for range in dictionary.chain(pages).filter(|range| !fetched.has(range)) {
                if wanted.is_full() {
                    break;
                }
                wanted.add("key pages", range);
            }
            if self.at.is_some() {
                // What is read early is held until all row groups are searched.
                if is_first_round && fetched.held_bytes() < plan.limits.scan_bytes {
                    self.want_values_at(plan, fetched, wanted)?;
                }
            } else if is_first_round && wanted.may_speculate() {
                self.speculate(plan, table, &scan.candidates, fetched, wanted)?;
            }
            self.scan = Some(scan);
            return Ok(());
        }
        let (group, pages, candidates) = (self.group, table.len(), scan.candidates.len());
        let is_at = self.at.is_some();
        self.tables.note(plan, || {
            let from = match table.has_ranges() {
                _ if is_at => "keymap",
                true => "page index",
                false => "no bounds of data pages",
            };
            format!("row group {group}: {candidates} of {pages} key data pages ({from})")
        });
        if let Some(bounds) = scan.take_learned() {
            plan.index.keep_table(group, plan.column.leaf, &Arc::new(table.with_learned_bounds(bounds)));
        }
        self.matches = Some(scan.matches);
        Ok(())
    }

    /// A scan of the key data pages that may hold a key, before the first of them.
    fn new_scan(&self, plan: &Plan, table: &PageTable) -> KeyScan {
        let scan = match &self.at {
            Some(rows) => KeyScan::at(table.pages_of_rows(rows), rows.clone(), plan.keys, plan.row_limit),
            None => {
                let candidates = table.candidates(self.probes(plan));
                let learns = !table.has_ranges() && candidates.len() == table.len();
                KeyScan::new(candidates, plan.keys, plan.row_limit, learns)
            }
        };
        match plan.decoded() {
            Some(cache) => scan.with_decoded(|page| {
                let (rows, stored) = (table.page_rows(page), u64::from(table.pages[page].length));
                let bytes = stored.max((rows.end - rows.start).saturating_mul(KEY_BYTES));
                cache.keys(&self.key_of(plan, table, page), bytes)
            }),
            None => scan,
        }
    }

    /// Goes through the key data pages that are there, in order, up to the first that is not.
    fn go_through(
        &self,
        plan: &Plan,
        table: &PageTable,
        scan: &mut KeyScan,
        fetched: &mut Fetched,
    ) -> Result<(), Error> {
        let codec = plan.index.chunk(self.group, plan.column.leaf).codec()?;
        let about = |error| self.about(plan, None, error);
        let keys = (&plan.column, self.probes(plan));
        while let Some(next) = scan.left().first().copied().filter(|_| !scan.has_enough(keys.1)) {
            let (range, rows) = (table.page_range(next), table.page_rows(next));
            if scan.go_through_decoded(rows.start, keys.1, &plan.limits)? {
                continue;
            }
            let Some(stored) = fetched.get(&range) else { return Ok(()) };
            // What is wrong with a page is put in words below.
            let header = PageHeader::read(&stored, &plan.limits).ok();
            if let Some(header) = header.filter(|header| u64::from(header.values) == rows.end - rows.start) {
                let (known, page) = (table.ascends(next), (&stored, &header, codec));
                let mut ascends = known;
                let gone = scan.go_through_flat(keys, page, rows.start, &mut ascends, &plan.limits);
                if let (None, Some(ascends)) = (known, ascends) {
                    table.note_order(next, ascends);
                }
                if let Ok(true) = gone {
                    fetched.let_go(&range);
                    continue;
                }
            }
            if let (None, Some(range)) = (&scan.dictionary, &table.dictionary) {
                let Some(bytes) = fetched.get(range) else { return Ok(()) };
                scan.dictionary = Some(read_page(&bytes, codec, &plan.column.descr, &plan.limits).map_err(about)?);
            }
            self.go_through_values(plan, table, scan, fetched)?;
        }
        Ok(())
    }

    /// Goes through the next pages value by value; the first of them is there.
    fn go_through_values(
        &self,
        plan: &Plan,
        table: &PageTable,
        scan: &mut KeyScan,
        fetched: &mut Fetched,
    ) -> Result<(), Error> {
        let codec = plan.index.chunk(self.group, plan.column.leaf).codec()?;
        let (mut pages, mut bytes) = (Vec::new(), 0);
        for (i, candidate) in scan.left().iter().enumerate() {
            let (range, rows) = (table.page_range(*candidate), table.page_rows(*candidate));
            if bytes >= SCANNED_AT_ONCE_BYTES || scan.is_decoded(scan.done + i) {
                break;
            }
            let Some(stored) = fetched.get(&range) else { break };
            let page = read_page(&stored, codec, &plan.column.descr, &plan.limits);
            let page = page.and_then(|page| agreeing(page, &rows));
            let page = page.map_err(|error| self.about(plan, Some((*candidate, range.start)), error))?;
            bytes += page.buffer().len();
            pages.push(KeyPage { page, first_row: rows.start, keep: scan.is_to_decode(scan.done + i) });
            fetched.let_go(&range);
        }
        let first = scan.left().first().map(|page| (*page, table.page_range(*page).start));
        let what = ColumnName(&plan.column.descr);
        let keys = (&plan.column, self.probes(plan));
        let mut collected = Vec::new();
        let gone = decoding(&what, || scan.go_through(keys, pages, &mut collected, &plan.limits));
        gone.map_err(|error| self.about(plan, first, error))?;
        let Some(cache) = plan.decoded() else { return Ok(()) };
        for (first_row, keys) in collected {
            let key = page_key(plan, self.group, keys_of(plan.column.leaf), first_row);
            match keys {
                Some(keys) => cache.put_keys(key, keys),
                None => cache.refuse(key),
            }
        }
        Ok(())
    }

    /// The name of one of the key's data pages among decoded ones.
    fn key_of(&self, plan: &Plan, table: &PageTable, page: usize) -> PageKey {
        page_key(plan, self.group, keys_of(plan.column.leaf), table.page_rows(page).start)
    }

    /// Would take the answer's data pages along with the key's while they are few bytes: that saves a trip if the key
    /// is there.
    fn speculate(
        &mut self,
        plan: &Plan,
        key_table: &PageTable,
        candidates: &[usize],
        fetched: &mut Fetched,
        wanted: &mut Wanted,
    ) -> Result<(), Error> {
        let mut ranges = Vec::new();
        for leaf in &plan.projection.leaves {
            let known = self.tables.get(plan, *leaf);
            let offsets = plan.index.chunk(self.group, *leaf).offset_index(plan.index.file_size);
            let table = match known {
                // Its offset index came along with the key's. A repeated lookup must want the same pages as this one.
                None if offsets.is_some_and(|range| fetched.has(&range)) => {
                    self.tables.table(plan, *leaf, fetched, wanted)?
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
        ranges.retain(|range| !range.is_empty() && !fetched.has(range));
        wanted.speculate(ranges);
        Ok(())
    }

    /// Wants the values of the rows that may hold a key together with the key's data pages: nearly always they do.
    fn want_values_at(&mut self, plan: &Plan, fetched: &mut Fetched, wanted: &mut Wanted) -> Result<(), Error> {
        let rows = self.at.clone().unwrap_or_default();
        for leaf in &plan.projection.leaves {
            let known = self.tables.get(plan, *leaf);
            let offsets = plan.index.chunk(self.group, *leaf).offset_index(plan.index.file_size);
            let table = match known {
                None if offsets.is_some_and(|range| fetched.has(&range)) => {
                    self.tables.table(plan, *leaf, fetched, wanted)?
                }
                known => known,
            };
            let Some(table) = table else {
                self.tables.want_offset_index(plan, *leaf, fetched, wanted);
                continue;
            };
            let mut pages = table.pages_of_rows(&rows);
            // A page that is decoded takes no bytes, where it is that of the whole column.
            if let Some(cache) = plan.decoded_rows() {
                let code = plan.projection.roots.iter().find(|root| root.leaves == [*leaf]).and_then(|root| root.code);
                let key = |code, page: usize| page_key(plan, self.group, code, table.page_rows(page).start);
                pages.retain(|page| code.is_none_or(|code| !cache.has(&key(code, *page))));
            }
            let dictionary = table.dictionary.clone().filter(|_| !pages.is_empty());
            for range in pages.into_iter().map(|page| table.page_range(page)).chain(dictionary) {
                if wanted.is_full() {
                    return Ok(());
                }
                if !range.is_empty() && !fetched.has(&range) {
                    wanted.add("key pages", range);
                }
            }
        }
        Ok(())
    }

    /// Whether the values of the next matches are all there, which [`GroupSearch::found`] then gives; what is missing
    /// is wanted, if they are not. Matches of one row stay together, and their data pages fit a window.
    pub(crate) fn next_rows(&mut self, plan: &Plan, fetched: &mut Fetched, wanted: &mut Wanted) -> Result<bool, Error> {
        let mut missing_table = false;
        for leaf in &plan.projection.leaves {
            if wanted.is_full() {
                return Ok(false);
            }
            missing_table |= self.tables.table(plan, *leaf, fetched, wanted)?.is_none();
        }
        if missing_table {
            return Ok(false);
        }
        let stretch = match &mut self.stretch {
            Some(stretch) => stretch,
            none => {
                let matches = self.matches.as_deref().unwrap_or_default();
                none.insert(Stretch::cut(plan, self.group, self.tables.known(), matches, self.written)?)
            }
        };
        let mut is_there = true;
        // All of them, so that they are there together.
        for range in stretch.ranges(self.tables.known()).into_iter().filter(|range| !fetched.has(range)) {
            wanted.add("value pages", range);
            is_there = false;
        }
        Ok(is_there)
    }

    /// The next matches, with what is known of the answer's columns; none before [`GroupSearch::next_rows`].
    pub(crate) fn found(&self) -> Option<FoundRows<'_>> {
        let stretch = self.stretch.as_ref()?;
        let matches = self.matches.as_deref()?.get(stretch.matches.clone())?;
        Some(FoundRows { group: self.group, matches, tables: self.tables.known(), stretch })
    }

    /// Adds what it would take to send the data pages that hold the matches; false where not all of them are known.
    pub(crate) fn weigh_pages(&self, plan: &Plan, sent: &mut SentPages) -> Result<bool, Error> {
        let mut rows: Vec<u64> = self.matches().iter().map(|(row, _)| *row).collect();
        rows.dedup();
        sent.add(plan, self.group, &rows, |leaf| self.tables.get(plan, leaf))
    }

    /// The next matches are in the answer; true when they were the last.
    pub(crate) fn wrote(&mut self, fetched: &mut Fetched) -> bool {
        if let Some(stretch) = self.stretch.take() {
            for range in stretch.ranges(self.tables.known()) {
                fetched.let_go(&range);
            }
            self.written = stretch.matches.end;
        }
        self.matches.as_ref().is_none_or(|matches| self.written >= matches.len())
    }

    fn about(&self, plan: &Plan, page: Option<(usize, u64)>, error: Error) -> Error {
        about(plan, (self.group, plan.column.leaf), page, error)
    }
}

/// A key's data page that holds as many values as it has rows by its index: each value of a key column is one row.
pub(crate) fn agreeing(page: Page, rows: &Range<u64>) -> Result<Page, Error> {
    if u64::from(page.num_values()) == rows.end - rows.start {
        return Ok(page);
    }
    let (values, rows) = (page.num_values(), rows.end - rows.start);
    Err(Error::corrupt(format!("a data page holds {values} rows, its index says {rows}")))
}

/// The ranges of the data pages that hold any of these rows, and of the dictionary page that they need.
fn page_ranges(table: &PageTable, rows: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut pages: Vec<usize> = Vec::new();
    for rows in rows {
        // Rows ascend, so pages do: only the last one may come again.
        let last = pages.last().copied();
        pages.extend(table.pages_of(&rows).filter(|page| last.is_none_or(|last| *page > last)));
    }
    let mut ranges: Vec<Range<u64>> = pages.iter().map(|page| table.page_range(*page)).collect();
    if !pages.is_empty() {
        ranges.extend(table.dictionary.clone());
    }
    ranges
}
