//! A row group's fetched pages, and how many rows of them may be read at once.
//!
//! A few bytes of a hostile file can stand for terabytes: a run of one dictionary index, a page that inflates a
//! thousandfold, a million empty list elements. What reading rows would hold is known or measured here before it is
//! built. It does not know how rows are read: that is `row_reader`'s.

use std::collections::BTreeMap;
use std::sync::Arc;

use parquet::basic::{Encoding, Repetition, Type as Physical};
use parquet::column::page::Page;
use parquet::column::reader::{ColumnReader, get_column_reader};
use parquet::file::metadata::ParquetMetaData;
use parquet::schema::types::{ColumnDescPtr, ColumnDescriptor, ColumnPath, Type};

use crate::data_page::{PageSequence, Part, Stop, StoredPage};
use crate::decoded::DecodedRows;
use crate::error::Error;
use crate::guard::decoding;
use crate::limits::Limits;
use crate::page_check::{dictionary_lengths, plain_width};
use crate::page_place::{ColumnName, Group};

/// Values of one data page of a repeated column: levels and list elements are held for all that one row has, which may
/// be all of the page.
const MAX_REPEATED_VALUES: usize = 8 << 20;

/// What a value takes at least while its row is read, whatever its type.
const LEAST_VALUE_BYTES: usize = 16;

/// Rows are measured in steps of this many, so that little is held.
const MEASURED_ROWS: usize = 1_024;

/// The pages of one leaf in one row group that hold wanted rows.
pub(crate) struct LeafPages {
    pub(crate) column: ColumnDescPtr,
    pub(crate) dictionary: Option<StoredPage>,
    /// Ascending; each with its first row within the row group and its number of rows.
    pub(crate) pages: Vec<(u64, u64, StoredPage)>,
    /// See [`PageSequence`].
    pub(crate) unaligned: bool,
}

impl LeafPages {
    /// The pages that hold values of these ascending rows. Of pages that split rows, one goes on with the row before
    /// its first.
    pub(crate) fn touched(&self, rows: &[u64]) -> impl Iterator<Item = &(u64, u64, StoredPage)> {
        let early = u64::from(self.unaligned);
        self.pages.iter().filter(move |(first_row, count, _)| {
            let first = rows.partition_point(|row| *row + early < *first_row);
            rows.get(first).is_some_and(|row| *row < first_row + count)
        })
    }

    fn repeated(&self) -> bool {
        self.column.max_rep_level() > 0
    }

    /// Bytes that the values of a page take when all of them are wanted, at most; those of a dictionary are measured.
    fn page_cost(&self, page: &StoredPage) -> usize {
        let plain = if page.uses_dictionary() { 0 } else { page.inflated_bytes() };
        let width = plain_width(&self.column).unwrap_or(0).max(LEAST_VALUE_BYTES);
        let repeated = if self.repeated() { (page.header.values as usize).saturating_mul(width) } else { 0 };
        plain.saturating_add(repeated)
    }

    /// The pages as a sequence for this stretch of rows, with gaps where nobody wants rows.
    pub(crate) fn parts(&self, rows: &[u64], group_rows: u64) -> Vec<Part> {
        let data = |(_, rows, page): &(u64, u64, StoredPage)| Part::Stored { page: page.clone(), rows: *rows as usize };
        if self.unaligned {
            return self.pages.iter().map(data).collect();
        }
        let (first, last) = (rows.first().copied().unwrap_or(0), rows.last().copied().unwrap_or(0));
        let from = self.pages.partition_point(|(first_row, count, _)| first_row + count <= first);
        let to = self.pages.partition_point(|(first_row, ..)| *first_row <= last).max(from);
        let mut parts = Vec::with_capacity((to - from) * 2 + 1);
        let mut row = 0;
        for page in &self.pages[from..to] {
            if page.0 > row {
                parts.push(Part::Gap((page.0 - row) as usize));
            }
            parts.push(data(page));
            row = page.0 + page.1;
        }
        if row < group_rows {
            parts.push(Part::Gap((group_rows - row) as usize));
        }
        parts
    }
}

/// A row group's fetched pages.
pub(crate) struct FetchedGroup<'a> {
    pub(crate) metadata: &'a ParquetMetaData,
    pub(crate) group: Group,
    pub(crate) rows: u64,
    pub(crate) leaves: BTreeMap<usize, LeafPages>,
    /// Per root column of the projection the pages that are decoded already; no entries where none are.
    pub(crate) decoded: Vec<Vec<Arc<DecodedRows>>>,
    pub(crate) limits: Arc<Limits>,
}

impl FetchedGroup<'_> {
    /// The pages of a root column that are decoded already.
    pub(crate) fn decoded_of(&self, root: usize) -> &[Arc<DecodedRows>] {
        self.decoded.get(root).map(Vec::as_slice).unwrap_or_default()
    }

    /// Bytes of values that are held at once: offsets and padding come on top of what an answer counts.
    pub(crate) fn value_bytes(&self) -> usize {
        self.limits.answer_bytes.saturating_mul(2)
    }

    /// Rows of which the fixed parts of all columns stay within the bound.
    pub(crate) fn most_rows(&self) -> usize {
        let width = |leaf: &LeafPages| plain_width(&leaf.column).unwrap_or(0).max(LEAST_VALUE_BYTES);
        let row: usize = self.leaves.values().map(width).fold(0, usize::saturating_add);
        (self.value_bytes() / row.max(1)).max(1)
    }

    /// How many of the first of these rows are read at once, so that no leaf's data pages take more than the bound when
    /// all of their values are wanted. One row at least.
    pub(crate) fn affordable(&self, rows: &[u64]) -> usize {
        let mut count = rows.len();
        for leaf in self.leaves.values() {
            let mut cost = 0_usize;
            let early = u64::from(leaf.unaligned);
            for (first_row, _, page) in leaf.touched(&rows[..count]) {
                cost = cost.saturating_add(leaf.page_cost(page));
                if cost > self.value_bytes() {
                    // The rows before this page.
                    count = rows.partition_point(|row| *row + early < *first_row).clamp(1, count);
                    break;
                }
            }
        }
        count
    }

    /// Whether all columns of these rows stay within the bounds by what their pages declare, and all at once.
    pub(crate) fn is_small(&self, rows: &[u64]) -> bool {
        let (mut held, mut values) = (0_usize, 0_usize);
        for leaf in self.leaves.values() {
            let dictionary = leaf.dictionary.as_ref().map_or(0, StoredPage::inflated_bytes);
            let (mut longest, mut count) = (0, rows.len());
            for (_, _, page) in leaf.touched(rows) {
                longest = longest.max(page.inflated_bytes());
                values = values.saturating_add(leaf.page_cost(page));
                if leaf.repeated() {
                    count = count.saturating_add(page.header.values as usize);
                }
            }
            held = held.saturating_add(longest).saturating_add(dictionary);
            let each = plain_width(&leaf.column).unwrap_or(dictionary).max(LEAST_VALUE_BYTES);
            values = values.saturating_add(count.saturating_mul(each));
        }
        held <= self.limits.inflate_bytes && values <= self.value_bytes()
    }

    /// Sees that a root column of these leaves can be read within the bounds. Gives the dictionaries that it had to
    /// inflate for that.
    pub(crate) fn check_root(&self, leaves: &[usize], rows: &[u64]) -> Result<BTreeMap<usize, Page>, Stop> {
        let mut dictionaries = BTreeMap::new();
        let mut held = 0_usize;
        for leaf in leaves {
            let Some(pages) = self.leaves.get(leaf) else { continue };
            let longest = pages.touched(rows).map(|(_, _, page)| page.inflated_bytes()).max().unwrap_or(0);
            let dictionary = pages.dictionary.as_ref().map_or(0, StoredPage::inflated_bytes);
            held = held.saturating_add(longest).saturating_add(dictionary);
            let bound = self.limits.inflate_bytes;
            if leaves.len() > 1 && held > bound {
                let column = ColumnName(&pages.column);
                return Err(Error::Limit(format!(
                    "the data pages of one row inflate to more than {bound} bytes up to {column}, {}",
                    self.group
                ))
                .into());
            }
            if let Some(dictionary) = self.check_leaf(pages, rows)? {
                dictionaries.insert(*leaf, dictionary);
            }
        }
        Ok(dictionaries)
    }

    /// The same for one leaf.
    fn check_leaf(&self, pages: &LeafPages, rows: &[u64]) -> Result<Option<Page>, Stop> {
        let bound = self.value_bytes();
        let mut values = rows.len();
        if pages.repeated() {
            values = 0;
            for (_, _, page) in pages.touched(rows) {
                values = values.saturating_add(page.header.values as usize);
                if page.header.values as usize > MAX_REPEATED_VALUES {
                    let (values, column) = (page.header.values, ColumnName(&pages.column));
                    return Err(Error::Limit(format!(
                        "a data page of {values} values of {column}, at most {MAX_REPEATED_VALUES} in lists are read"
                    ))
                    .into());
                }
            }
            let width = plain_width(&pages.column).unwrap_or(0);
            if values.saturating_mul(width) > bound.saturating_mul(2) {
                return Err(Stop::TooMuch);
            }
        } else if plain_width(&pages.column).is_some_and(|width| values.saturating_mul(width) > bound) {
            return Err(Stop::TooMuch);
        }
        let Some(stored) = pages.dictionary.as_ref().filter(|_| plain_width(&pages.column).is_none()) else {
            return Ok(None);
        };
        if values.saturating_mul(stored.inflated_bytes()) <= bound {
            return Ok(None);
        }
        // A dictionary's values may be repeated at no cost: what these rows really take is measured.
        let (dictionary, _) = stored.inflate(self.limits.inflate_bytes)?;
        let lengths = dictionary_lengths(dictionary.buffer(), dictionary.num_values() as usize);
        let longest = lengths.iter().max().map_or(0, |length| *length as usize);
        if values.saturating_mul(longest) > bound {
            let what = format_args!("{}, {}", ColumnName(&pages.column), self.group).to_string();
            let measured = decoding(&what, || self.measure(pages, rows, &lengths))?;
            if measured > bound {
                return Err(Stop::TooMuch);
            }
        }
        Ok(Some(dictionary))
    }

    /// Bytes that the dictionary's values take in these rows, or more than the bound.
    fn measure(&self, pages: &LeafPages, rows: &[u64], lengths: &[i32]) -> Result<usize, Error> {
        let column = &pages.column;
        let optional = column.max_def_level() > 0;
        let ty = Type::primitive_type_builder("length", Physical::INT32).with_repetition(if optional {
            Repetition::OPTIONAL
        } else {
            Repetition::REQUIRED
        });
        let (def, rep) = (column.max_def_level(), column.max_rep_level());
        let descr = Arc::new(ColumnDescriptor::new(Arc::new(ty.build()?), def, rep, ColumnPath::new(Vec::new())));
        // The lengths in place of the values: the indices then decode to what the values take.
        let dictionary = Page::DictionaryPage {
            buf: lengths.iter().flat_map(|length| length.to_le_bytes()).collect::<Vec<u8>>().into(),
            num_values: lengths.len() as u32,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        let mut total = 0;
        for (first_row, count, page) in pages.touched(rows).filter(|(_, _, page)| page.uses_dictionary()) {
            let (page, _) = page.inflate(self.limits.inflate_bytes)?;
            let values = page.num_values() as usize;
            // Pages that split rows are measured whole.
            let all = [(0, values)];
            let wanted: Vec<(usize, usize)> = if pages.unaligned {
                all.to_vec()
            } else {
                let within = |row: &&u64| (*first_row..first_row + count).contains(row);
                runs(rows.iter().filter(within).map(|row| (row - first_row) as usize))
            };
            let parts = [Part::Data { page, rows: *count as usize }];
            let sequence = PageSequence::new(Some(dictionary.clone()), parts, true);
            let ColumnReader::Int32ColumnReader(mut reader) = get_column_reader(descr.clone(), Box::new(sequence))
            else {
                return Err(Error::corrupt("lengths that are no numbers"));
            };
            let mut at = 0;
            let (mut defs, mut reps, mut read) = (Vec::new(), Vec::new(), Vec::new());
            for (start, end) in wanted {
                reader.skip_records(start - at)?;
                at = start;
                while at < end {
                    defs.clear();
                    reps.clear();
                    read.clear();
                    let step = (end - at).min(MEASURED_ROWS);
                    let (records, _, levels) =
                        reader.read_records(step, Some(&mut defs), Some(&mut reps), &mut read)?;
                    total += read.iter().map(|length: &i32| *length as usize).sum::<usize>();
                    if total > self.value_bytes() || (records == 0 && levels == 0) {
                        break;
                    }
                    at += records.max(1);
                }
            }
            if total > self.value_bytes() {
                break;
            }
        }
        Ok(total)
    }
}

/// Ascending rows as runs of neighbours, each with its end.
fn runs(rows: impl Iterator<Item = usize>) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for row in rows {
        match runs.last_mut() {
            Some((_, end)) if *end == row => *end += 1,
            _ => runs.push((row, row + 1)),
        }
    }
    runs
}
