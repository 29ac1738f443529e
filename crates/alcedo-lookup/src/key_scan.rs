//! Which rows of a key column's data pages hold a key: the only place where stored keys are compared with asked ones.
//!
//! Pages are hostile: a page of a few bytes may stand for billions of equal values, or for values that share a prefix
//! of megabytes. So values are decoded some thousand at a time, and rows that nobody can be given are not kept.

use std::ops::Range;

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::column::page::Page;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::DataType;

use crate::codec::Codec;
use crate::data_page::{PageSequence, Part};
use crate::decoded::Found;
use crate::decoded_keys::{DecodedKeys, KeyCollector};
use crate::error::Error;
use crate::flat_keys;
use crate::flat_page::{FlatPage, with_flat_page};
use crate::key_column::{Bounds, Extent, KeyColumn, Probes, Stored, int96_nanoseconds};
use crate::limits::Limits;
use crate::page_header::PageHeader;

/// Values that are decoded at a time: enough to be fast, and 8,192 of the widest numbers take 128 KiB.
const BATCH_VALUES: usize = 8_192;
/// Bytes that the values of one batch may take. Only delta-encoded texts are copied as they are decoded, and none of
/// them is longer than its page.
const BATCH_BYTES: usize = 32 << 20;
/// Bytes that the delta-encoded texts of one page may unfold to, copied in some 100 ms: 256 times a usual page, which
/// takes a shared prefix of KiBs.
const MAX_UNFOLDED_BYTES: usize = 256 << 20;

/// A row that holds a key: the row's number and the key's index in the query.
pub(crate) type Match = (u64, u32);

/// The rows of one row group that hold a key, as its data pages are gone through in order.
pub(crate) struct KeyScan {
    /// The data pages to go through.
    pub(crate) candidates: Vec<usize>,
    /// How many of them are done.
    pub(crate) done: usize,
    /// The chunk's dictionary page, inflated once.
    pub(crate) dictionary: Option<Page>,
    /// Ascending by row.
    pub(crate) matches: Vec<Match>,
    /// Rows per key so far, as far as anybody counts them.
    counts: Vec<u64>,
    /// Rows per key that are worth finding: one more than the limit shows that there are more.
    enough: u64,
    /// The only rows of the candidates that may hold a key, ascending, where they are known.
    at: Option<Vec<u64>>,
    /// Bounds of the pages gone through, where the file has none.
    learned: Option<Vec<Bounds>>,
    /// What is known of the candidates as decoded pages; empty where nothing is.
    decoded: Vec<Found<DecodedKeys>>,
}

impl KeyScan {
    /// `learns`: the pages' bounds are not known, and the candidates are all of them.
    pub(crate) fn new(candidates: Vec<usize>, keys: usize, row_limit: Option<u32>, learns: bool) -> Self {
        Self {
            candidates,
            done: 0,
            dictionary: None,
            matches: Vec::new(),
            counts: vec![0; keys],
            enough: row_limit.map_or(u64::MAX, |limit| u64::from(limit) + 1),
            at: None,
            learned: learns.then(Vec::new),
            decoded: Vec::new(),
        }
    }

    /// `rows`: no others are compared. They ascend.
    pub(crate) fn at(candidates: Vec<usize>, rows: Vec<u64>, keys: usize, row_limit: Option<u32>) -> Self {
        Self { at: Some(rows), ..Self::new(candidates, keys, row_limit, false) }
    }

    /// The rows of a data page that are compared, as runs within it.
    fn runs(&self, page: &Stretch) -> Vec<Range<usize>> {
        let Some(rows) = self.at.as_ref().filter(|_| !page.keep) else {
            return std::iter::once(0..page.rows).collect();
        };
        let from = rows.partition_point(|row| *row < page.first_row);
        let to = rows.partition_point(|row| *row < page.first_row + page.rows as u64);
        let mut runs: Vec<Range<usize>> = Vec::new();
        for row in rows[from..to].iter().map(|row| (row - page.first_row) as usize) {
            match runs.last_mut() {
                Some(run) if run.end == row => run.end += 1,
                _ => runs.push(row..row + 1),
            }
        }
        runs
    }

    /// Looks each candidate up among the decoded pages. Where bounds are to be learned all values must be seen.
    pub(crate) fn with_decoded(mut self, find: impl Fn(usize) -> Found<DecodedKeys>) -> Self {
        if self.learned.is_none() {
            self.decoded = self.candidates.iter().map(|page| find(*page)).collect();
        }
        self
    }

    /// Whether a candidate, by its place among them, is decoded.
    pub(crate) fn is_decoded(&self, candidate: usize) -> bool {
        matches!(self.decoded.get(candidate), Some(Found::Decoded(_)))
    }

    /// Whether a candidate, by its place among them, is to be decoded whole and kept.
    pub(crate) fn is_to_decode(&self, candidate: usize) -> bool {
        matches!(self.decoded.get(candidate), Some(Found::Decode))
    }

    /// The data pages that are still to be gone through and are not decoded.
    pub(crate) fn left_stored(&self) -> impl Iterator<Item = usize> {
        (self.done..self.candidates.len()).filter(|i| !self.is_decoded(*i)).map(|i| self.candidates[i])
    }

    /// Goes through the next page if it is decoded.
    ///
    /// # Errors
    /// More rows match than an answer may have.
    pub(crate) fn go_through_decoded(
        &mut self,
        first_row: u64,
        probes: &Probes,
        limits: &Limits,
    ) -> Result<bool, Error> {
        let Some(Found::Decoded(keys)) = self.decoded.get(self.done) else { return Ok(false) };
        let keys = keys.clone();
        keys.find(probes, &mut |row, key| self.found(first_row + u64::from(row), key, limits))?;
        self.done += 1;
        Ok(true)
    }

    /// Goes through the next page as it is stored, and learns its bounds if they are to be learned; false if it must be
    /// decoded. `ascends`: whether its values do, as far as that is known, and it is set where it is found out.
    ///
    /// # Errors
    /// The page is damaged, or more rows match than an answer may have.
    pub(crate) fn go_through_flat(
        &mut self,
        (column, probes): (&KeyColumn, &Probes),
        page: (&Bytes, &PageHeader, Codec),
        first_row: u64,
        ascends: &mut Option<bool>,
        limits: &Limits,
    ) -> Result<bool, Error> {
        if self.is_to_decode(self.done) {
            return Ok(false);
        }
        let learns = self.learned.is_some();
        let find = |page: &mut FlatPage<'_>| match self.at.as_deref() {
            Some(rows) => {
                let from = rows.partition_point(|row| *row < first_row);
                let within = rows[from..].iter().map(|row| (row - first_row) as usize);
                let within: Vec<usize> = within.take_while(|row| *row < page.rows).collect();
                flat_keys::find_at(page, &within, column, probes).map(|rows| (rows, None))
            }
            None => {
                let rows = flat_keys::find(page, column, probes, limits.answer_rows, ascends)?;
                let is_ascending = *ascends == Some(true);
                let bounds = if learns { Some(flat_keys::bounds(page, column, is_ascending)?) } else { None };
                Some((rows, bounds))
            }
        };
        let found = with_flat_page(page, column.descr.max_def_level(), find)?;
        let Some((rows, bounds)) = found.flatten() else { return Ok(false) };
        for (row, key) in rows {
            self.found(first_row + u64::from(row), key, limits)?;
        }
        if let Some(learned) = &mut self.learned {
            learned.extend(bounds);
        }
        self.done += 1;
        Ok(true)
    }

    /// The data pages that are still to be gone through.
    pub(crate) fn left(&self) -> &[usize] {
        &self.candidates[self.done..]
    }

    /// Every key that some row could have has more rows than anybody asked for.
    pub(crate) fn has_enough(&self, probes: &Probes) -> bool {
        probes.keys().all(|key| self.counts.get(key as usize).is_none_or(|count| *count >= self.enough))
    }

    /// Bounds of all candidates, if they were to be learned and all were gone through.
    pub(crate) fn take_learned(&mut self) -> Option<Vec<Bounds>> {
        let all = self.left().is_empty();
        self.learned.take().filter(|_| all)
    }

    /// Goes through the next data pages, all with one reader, so that their dictionary is decoded once. Those that are
    /// to be kept are added to `collected` with their first rows, without values where these are too much.
    ///
    /// # Errors
    /// A page cannot be decoded, or more rows match than an answer may have.
    pub(crate) fn go_through(
        &mut self,
        (column, probes): (&KeyColumn, &Probes),
        pages: Vec<KeyPage>,
        collected: &mut Vec<(u64, Option<DecodedKeys>)>,
        limits: &Limits,
    ) -> Result<(), Error> {
        let through = pages.len();
        let stretches = pages.iter().map(|page| Stretch::of(page, column)).collect();
        let parts = pages.into_iter().map(|KeyPage { page, .. }| (page.num_values() as usize, page));
        // A page without values is nothing to read.
        let parts = parts.filter(|(rows, _)| *rows > 0).map(|(rows, page)| Part::Data { page, rows });
        let sequence = PageSequence::new(self.dictionary.clone(), parts, true);
        let reader = get_column_reader(column.descr.clone(), Box::new(sequence));
        let mut sink =
            Sink { scan: self, column, probes, stretches, extent: None, passed: 0, collector: None, collected, limits };
        match reader {
            ColumnReader::BoolColumnReader(r) => sink.read(r, |_, v: &bool| Stored::Int((*v).into())),
            ColumnReader::Int32ColumnReader(r) => sink.read(r, |column, v| Stored::Int(column.int32(*v))),
            ColumnReader::Int64ColumnReader(r) => sink.read(r, |column, v| Stored::Int(column.int64(*v))),
            ColumnReader::Int96ColumnReader(r) => sink.read(r, |_, v| Stored::Int(int96_nanoseconds(v))),
            ColumnReader::FloatColumnReader(r) => sink.read(r, |_, v: &f32| Stored::Float((*v).into())),
            ColumnReader::DoubleColumnReader(r) => sink.read(r, |_, v| Stored::Float(*v)),
            ColumnReader::ByteArrayColumnReader(r) => sink.read(r, |column, v| column.stored_bytes(v.data())),
            ColumnReader::FixedLenByteArrayColumnReader(r) => sink.read(r, |column, v| column.stored_bytes(v.data())),
        }?;
        self.done += through;
        Ok(())
    }
}

/// One inflated data page of the key column.
pub(crate) struct KeyPage {
    pub(crate) page: Page,
    /// The number of its first row within the row group.
    pub(crate) first_row: u64,
    /// Its values are to be kept.
    pub(crate) keep: bool,
}

/// How the values of one page are decoded.
struct Stretch {
    first_row: u64,
    rows: usize,
    /// Values at a time.
    batch: usize,
    /// Its texts are copied as they are decoded, and may take more bytes than the page.
    unfolds: bool,
    keep: bool,
}

impl Stretch {
    fn of(page: &KeyPage, column: &KeyColumn) -> Self {
        let rows = page.page.num_values() as usize;
        let unfolds = column.is_byte_array() && page.page.encoding() == Encoding::DELTA_BYTE_ARRAY;
        let bytes = page.page.buffer().len().max(1);
        let batch = if unfolds { (BATCH_BYTES / bytes).clamp(1, BATCH_VALUES) } else { BATCH_VALUES };
        Self { first_row: page.first_row, rows, batch, unfolds, keep: page.keep }
    }
}

struct Sink<'a> {
    scan: &'a mut KeyScan,
    column: &'a KeyColumn,
    probes: &'a Probes,
    stretches: Vec<Stretch>,
    /// Of the page that is read.
    extent: Option<Extent>,
    /// Rows that the reader has still to skip.
    passed: usize,
    /// Of the page that is read, if it is to be kept.
    collector: Option<KeyCollector>,
    collected: &'a mut Vec<(u64, Option<DecodedKeys>)>,
    limits: &'a Limits,
}

impl Sink<'_> {
    fn read<T: DataType>(
        &mut self,
        mut reader: ColumnReaderImpl<T>,
        stored: impl for<'v> Fn(&KeyColumn, &'v T::T) -> Stored<'v>,
    ) -> Result<(), Error> {
        for stretch in std::mem::take(&mut self.stretches) {
            self.extent = self.scan.learned.as_ref().map(|_| Extent::default());
            self.collector = stretch.keep.then(KeyCollector::default);
            self.read_page(&mut reader, &stretch, &stored)?;
            if let Some(collector) = self.collector.take() {
                self.collected.push((stretch.first_row, collector.finish()));
            }
            if let (Some(learned), Some(extent)) = (&mut self.scan.learned, self.extent.take()) {
                learned.push(extent.into_bounds());
            }
        }
        Ok(())
    }

    fn read_page<T: DataType>(
        &mut self,
        reader: &mut ColumnReaderImpl<T>,
        page: &Stretch,
        stored: impl for<'v> Fn(&KeyColumn, &'v T::T) -> Stored<'v>,
    ) -> Result<(), Error> {
        let mut row = 0;
        for run in self.scan.runs(page) {
            self.passed += run.start - row;
            row = run.end;
            self.read_run(reader, page, run, &stored)?;
        }
        self.passed += page.rows - row;
        Ok(())
    }

    fn read_run<T: DataType>(
        &mut self,
        reader: &mut ColumnReaderImpl<T>,
        page: &Stretch,
        run: Range<usize>,
        stored: impl for<'v> Fn(&KeyColumn, &'v T::T) -> Stored<'v>,
    ) -> Result<(), Error> {
        let passed = std::mem::take(&mut self.passed);
        if reader.skip_records(passed)? < passed {
            return Err(Error::corrupt("a data page has fewer values than its header says"));
        }
        let (mut levels, mut values) = (Vec::new(), Vec::new());
        let max_def = self.column.descr.max_def_level();
        let (mut row, mut unfolded) = (run.start, 0_usize);
        while row < run.end {
            levels.clear();
            values.clear();
            let def_levels = (max_def > 0).then_some(&mut levels);
            let (read, _, _) = reader.read_records(page.batch.min(run.end - row), def_levels, None, &mut values)?;
            if read == 0 {
                return Err(Error::corrupt("a data page has fewer values than its header says"));
            }
            let mut next = values.iter();
            for i in 0..read {
                let at = page.first_row + (row + i) as u64;
                if max_def > 0 && levels.get(i).is_none_or(|level| *level < max_def) {
                    self.null(at)?;
                    continue;
                }
                let value = next.next().ok_or_else(|| Error::corrupt("a data page has fewer values than levels"))?;
                let value = stored(self.column, value);
                if let Stored::Bytes(bytes) = &value {
                    unfolded += bytes.len();
                }
                self.value(at, &value)?;
            }
            if page.unfolds && unfolded > MAX_UNFOLDED_BYTES {
                return Err(Error::Limit(format!("texts that unfold to more than {MAX_UNFOLDED_BYTES} bytes")));
            }
            row += read;
        }
        Ok(())
    }

    fn null(&mut self, row: u64) -> Result<(), Error> {
        if let Some(extent) = &mut self.extent {
            extent.see_null();
        }
        if let Some(collector) = &mut self.collector {
            collector.see_null();
        }
        for key in self.probes.null_keys() {
            self.scan.found(row, *key, self.limits)?;
        }
        Ok(())
    }

    #[inline]
    fn value(&mut self, row: u64, value: &Stored<'_>) -> Result<(), Error> {
        if let Some(extent) = &mut self.extent {
            extent.see(value);
        }
        if let Some(collector) = &mut self.collector {
            collector.see(value);
        }
        for (_, key) in self.probes.equal_to(value) {
            self.scan.found(row, *key, self.limits)?;
        }
        Ok(())
    }
}

impl KeyScan {
    fn found(&mut self, row: u64, key: u32, limits: &Limits) -> Result<(), Error> {
        let Some(count) = self.counts.get_mut(key as usize) else { return Ok(()) };
        if *count >= self.enough {
            return Ok(());
        }
        *count += 1;
        self.matches.push((row, key));
        // One row more than its limit is kept per key.
        if self.matches.len() > limits.answer_rows + self.counts.len() {
            return Err(too_many_rows(limits));
        }
        Ok(())
    }
}

/// More rows match than an answer may have.
pub(crate) fn too_many_rows(limits: &Limits) -> Error {
    Error::AnswerTooLarge(format!("more than {} rows match: set a row limit", limits.answer_rows))
}
