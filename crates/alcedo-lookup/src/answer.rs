//! Answers of one file: what a search ends in.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::arrow_rows::RowWriter;
use crate::arrow_stream::ArrowStream;
use crate::data_page::{StoredPage, verify};
use crate::decoded::DecodedRows;
use crate::error::Error;
use crate::fetched::Fetched;
use crate::fetched_group::{FetchedGroup, LeafPages};
use crate::int96::{self, Int96Columns};
use crate::limits::Limits;
use crate::page_place::{Group, PagePlace};
use crate::projection::Projection;
use crate::row_batch::RowBatch;
use crate::schema::RowSchema;
use crate::search::{FoundRows, Plan};
use crate::stretch::{LeafOrdinals, PageTables, page_key};

pub use crate::pages_answer::decode_pages;

/// What an answer's rows are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// Compact rows, see [`crate::rows`].
    #[default]
    CompactRows,
    /// One Arrow IPC stream.
    ArrowIpc,
    /// Compressed data pages that the client decodes.
    Pages,
}

/// What became of one key in one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyStatus {
    /// No row has it.
    #[default]
    NotFound,
    /// All rows that have it are in the answer.
    Found,
    /// The row limit cut its rows.
    Truncated,
}

/// The rows of one file that match a query.
#[derive(Debug, Clone)]
pub struct FileAnswer {
    /// The columns of the rows.
    pub schema: Arc<RowSchema>,
    /// Per row: the index of its key in the query. As long as `row_number`.
    pub key_index: Vec<u32>,
    /// Per row: its 0-based number in the file, ascending.
    pub row_number: Vec<u64>,
    /// Per key of the query.
    pub statuses: Vec<KeyStatus>,
    /// The rows, in the order of `row_number`.
    pub body: Body,
    /// Decisions in words, for `explain`.
    pub notes: Vec<String>,
}

/// Rows in one of the [`Form`]s.
#[derive(Debug, Clone)]
pub enum Body {
    /// [`Form::CompactRows`].
    Compact(Bytes),
    /// [`Form::ArrowIpc`].
    ArrowIpc(Bytes),
    /// [`Form::Pages`].
    Pages(Pages),
}

/// Data pages that hold an answer's rows, with what a reader needs to decode them.
#[derive(Debug, Clone, Default)]
pub struct Pages {
    /// The file's schema: a thrift-compact `list<SchemaElement>`, as in its footer.
    pub parquet_schema: Bytes,
    /// The leaf columns of the projection.
    pub columns: Vec<PagesColumn>,
}

/// One leaf column of [`Pages`].
#[derive(Debug, Clone)]
pub struct PagesColumn {
    /// Ordinal of the leaf in the file.
    pub leaf: u32,
    /// Parquet's `CompressionCodec`.
    pub codec: i32,
    /// Per row group that holds rows of the answer.
    pub chunks: Vec<PagesChunk>,
}

/// One leaf in one row group.
#[derive(Debug, Clone)]
pub struct PagesChunk {
    /// 0-based number in the file of the row group's first row.
    pub first_row: u64,
    /// Rows of the row group.
    pub rows: u64,
    /// Header and body as in the file; empty if the chunk has no dictionary.
    pub dictionary: Bytes,
    /// The data pages, ascending.
    pub data_pages: Vec<DataPage>,
    /// Every data page starts a row; if not, all of the chunk's data pages are here.
    pub aligned: bool,
}

/// One data page as in the file.
#[derive(Debug, Clone)]
pub struct DataPage {
    /// 0-based number within the row group of its first row.
    pub first_row: u64,
    /// Its rows.
    pub rows: u64,
    /// Header and compressed body.
    pub page: Bytes,
}

/// An answer in the making: found rows come in file order, as their data pages come, and nothing of the pages is kept.
pub(crate) struct AnswerWriter {
    schema: Arc<RowSchema>,
    key_index: Vec<u32>,
    row_number: Vec<u64>,
    body: Writing,
}

enum Writing {
    Compact(CompactRows),
    Arrow(ArrowStream),
    Pages { pages: Pages, bytes: usize, int96: Int96Columns },
}

impl AnswerWriter {
    /// An answer without rows yet, in the form that the plan's query asks for.
    pub(crate) fn new(plan: &Plan) -> Self {
        let int96 = plan.int96.clone();
        let body = match plan.form {
            Form::CompactRows => Writing::Compact(CompactRows::new(int96, &plan.limits)),
            Form::ArrowIpc => Writing::Arrow(ArrowStream::new(int96)),
            Form::Pages => Writing::Pages { pages: empty_pages(plan), bytes: 0, int96 },
        };
        Self { schema: plan.projection.schema.clone(), key_index: Vec::new(), row_number: Vec::new(), body }
    }

    /// Adds rows of one row group, whose data pages are all in `fetched`. Row groups come in file order and a group's
    /// matches ascend over its calls; a row that several keys match is not split over two calls.
    ///
    /// # Errors
    /// The pages do not hold those rows or cannot be decoded, or the answer passes a bound.
    pub(crate) fn add(&mut self, plan: &Plan, found: &FoundRows<'_>, fetched: &Fetched) -> Result<(), Error> {
        if found.matches.is_empty() {
            return Ok(());
        }
        let first_row = plan.index.groups[found.group].first_row;
        self.key_index.extend(found.matches.iter().map(|(_, key)| *key));
        self.row_number.extend(found.matches.iter().map(|(row, _)| first_row + row));
        let distinct = &found.stretch.rows;
        let mut group = fetched_group(plan, (found.group, found.tables), &found.stretch.leaves, fetched)?;
        group.decoded = found.stretch.roots.iter().map(|root| root.decoded.clone()).collect();
        let projection = &plan.projection;
        decode_pages_of(plan, found, &mut group);
        let mut rows = found.matches.iter().map(|(row, _)| *row).peekable();
        match &mut self.body {
            Writing::Compact(compact) => projection.read(&group, distinct, &|_| true, &mut |batch| {
                compact.widen(projection, batch)?;
                compact.write(projection, batch, &mut rows)
            }),
            Writing::Arrow(stream) => {
                projection.read(&group, distinct, &|_| true, &mut |batch| stream.write(plan, batch, &mut rows))
            }
            Writing::Pages { pages, bytes, int96 } => {
                if !int96.is_empty() {
                    // Only the values say which unit the schema must name.
                    let holds_int96: Vec<bool> =
                        (0..projection.roots.len()).map(|root| int96.in_root(projection, root)).collect();
                    projection.read(&group, distinct, &|root| holds_int96[root], &mut |batch| {
                        int96.widen(projection, &batch.record_batch()?).map(|_| ())
                    })?;
                }
                add_pages(plan, found, fetched, pages, bytes)
            }
        }
    }

    /// The answer, with what became of each key and the search's decisions in words.
    ///
    /// # Errors
    /// The rows cannot be brought to their form.
    pub(crate) fn finish(self, statuses: Vec<KeyStatus>, notes: Vec<String>) -> Result<FileAnswer, Error> {
        let (body, int96) = match self.body {
            Writing::Compact(rows) => (Body::Compact(rows.bytes.into()), rows.int96),
            Writing::Arrow(stream) => {
                let (bytes, int96) = stream.finish(&self.schema)?;
                (Body::ArrowIpc(bytes), int96)
            }
            Writing::Pages { pages, int96, .. } => (Body::Pages(pages), int96),
        };
        let (key_index, row_number, schema) = (self.key_index, self.row_number, int96.schema(&self.schema));
        Ok(FileAnswer { schema, key_index, row_number, statuses, body, notes })
    }
}

/// Compact rows in the making, within the bound of an answer.
pub(crate) struct CompactRows {
    writer: RowWriter,
    int96: Int96Columns,
    /// Answer column and offset in `bytes` of each INT96 timestamp.
    int96_places: Vec<(usize, usize)>,
    max_bytes: usize,
    bytes: Vec<u8>,
}

impl CompactRows {
    pub(crate) fn new(int96: Int96Columns, limits: &Limits) -> Self {
        let max_bytes = limits.answer_bytes;
        Self { writer: RowWriter::default(), int96, int96_places: Vec::new(), max_bytes, bytes: Vec::new() }
    }

    /// The rows.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.bytes.into()
    }

    /// Brings the units of INT96 timestamps to what the batch needs, also in the rows that are written already.
    fn widen(&mut self, projection: &Projection, batch: &RowBatch) -> Result<(), Error> {
        if self.int96.is_empty() {
            return Ok(());
        }
        for column in self.int96.widen(projection, &batch.record_batch()?)? {
            for (_, at) in self.int96_places.iter().filter(|(other, _)| *other == column) {
                let Some(count) = self.bytes[*at..].first_chunk_mut::<8>() else { continue };
                let nanoseconds = i64::from_le_bytes(*count);
                let name = &projection.schema.columns[column].name;
                *count = int96::to_microseconds(nanoseconds).ok_or_else(|| int96::no_unit(name))?.to_le_bytes();
            }
        }
        Ok(())
    }

    /// Writes the batch's rows, each as often as it comes next in `rows`, which ascend.
    pub(crate) fn write(
        &mut self,
        projection: &Projection,
        batch: &RowBatch,
        rows: &mut Peekable<impl Iterator<Item = u64>>,
    ) -> Result<(), Error> {
        for i in 0..batch.rows {
            let row = rows.next().ok_or_else(|| Error::corrupt("more rows were read than found"))?;
            loop {
                let places = &mut self.int96_places;
                self.writer.write((projection, &self.int96), (batch, i), &mut self.bytes, places)?;
                if self.bytes.len() > self.max_bytes {
                    return Err(too_large("rows", self.max_bytes));
                }
                if rows.next_if_eq(&row).is_none() {
                    break;
                }
            }
        }
        Ok(())
    }
}

pub(crate) fn too_large(what: &str, bound: usize) -> Error {
    Error::AnswerTooLarge(format!("the {what} take more than {bound} bytes: select fewer columns or set a row limit"))
}

/// The fetched pages of a row group that hold the found rows.
pub(crate) fn fetched_group<'a>(
    plan: &'a Plan,
    (of, tables): (usize, &PageTables),
    pages: &[LeafOrdinals],
    fetched: &Fetched,
) -> Result<FetchedGroup<'a>, Error> {
    let mut leaves = BTreeMap::new();
    for (leaf, ordinals) in pages {
        let Some(table) = tables.get(leaf) else { continue };
        let codec = plan.index.chunk(of, *leaf).codec()?;
        let column = plan.index.schema().column(*leaf);
        let page = |range: Range<u64>, ordinal: Option<usize>| {
            let group = Group::Ordinal(of);
            let place = PagePlace { column: column.clone(), group, ordinal, offset: Some(range.start) };
            let bytes = fetched.get(&range).ok_or_else(|| Error::corrupt("a fetched data page was lost"))?;
            StoredPage::new(bytes, codec, place, &plan.limits)
        };
        let data_page = |i: usize| {
            let at = table.page_rows(i);
            Ok((at.start, at.end - at.start, page(table.page_range(i), Some(i))?))
        };
        let pages = ordinals.iter().copied().map(data_page).collect::<Result<_, Error>>()?;
        let dictionary = table.dictionary.clone().map(|range| page(range, None)).transpose()?;
        let column = column.clone();
        leaves.insert(*leaf, LeafPages { column, dictionary, pages, unaligned: !table.aligned });
    }
    Ok(FetchedGroup {
        metadata: plan.index.schema().metadata(),
        group: Group::Ordinal(of),
        rows: plan.index.groups[of].rows,
        leaves,
        decoded: Vec::new(),
        limits: plan.limits.clone(),
    })
}

/// Decodes the pages that are asked for often, and keeps them.
fn decode_pages_of(plan: &Plan, found: &FoundRows<'_>, group: &mut FetchedGroup<'_>) {
    for (i, root) in found.stretch.roots.iter().enumerate() {
        let Some((cache, code)) = plan.decoded_rows().zip(plan.projection.roots[i].code) else { continue };
        for rows in &root.whole {
            let key = page_key(plan, found.group, code, rows.start);
            match plan.projection.decode_whole(i, group, rows.clone()) {
                Some(array) => {
                    let rows = Arc::new(DecodedRows { first_row: rows.start, array });
                    cache.put_rows(key, &rows);
                    group.decoded[i].push(rows);
                }
                // What is wrong with it, if anything, is said when its rows are read.
                None => cache.refuse(key),
            }
        }
        group.decoded[i].sort_by_key(|rows| rows.first_row);
    }
}

fn empty_pages(plan: &Plan) -> Pages {
    let column = |leaf: &usize| PagesColumn { leaf: *leaf as u32, codec: 0, chunks: Vec::new() };
    let columns = plan.projection.leaves.iter().map(column).collect();
    Pages { parquet_schema: plan.index.schema().thrift().clone(), columns }
}

/// The column of a leaf and a codec; the first of a leaf, at its place in the projection, takes the codec of its first
/// chunk. Row groups of one file may have several codecs, and the others have columns of their own.
fn column_of(pages: &mut Pages, first: usize, leaf: u32, codec: i32) -> &mut PagesColumn {
    let at = if pages.columns[first].codec == codec || pages.columns[first].chunks.is_empty() {
        first
    } else {
        let fits = |column: &PagesColumn| column.leaf == leaf && column.codec == codec;
        pages.columns.iter().position(fits).unwrap_or_else(|| {
            pages.columns.push(PagesColumn { leaf, codec, chunks: Vec::new() });
            pages.columns.len() - 1
        })
    };
    pages.columns[at].codec = codec;
    &mut pages.columns[at]
}

/// Adds the data pages that hold the found rows, none twice. `bytes` counts what the pages take.
fn add_pages(
    plan: &Plan,
    found: &FoundRows<'_>,
    fetched: &Fetched,
    pages: &mut Pages,
    bytes: &mut usize,
) -> Result<(), Error> {
    let mut piece = |leaf: usize, ordinal: Option<usize>, range: Range<u64>| {
        let page = fetched.get(&range).ok_or_else(|| Error::corrupt("a fetched data page was lost"))?;
        // Whoever decodes the pages cannot tell damage at the origin from damage on the way, and can mend neither.
        verify(&page, &plan.limits).map_err(|error| {
            let (column, group) = (plan.index.schema().column(leaf), Group::Ordinal(found.group));
            PagePlace { column, group, ordinal, offset: Some(range.start) }.name(error)
        })?;
        *bytes += page.len();
        if *bytes > plan.limits.answer_bytes {
            Err(too_large("data pages", plan.limits.answer_bytes))
        } else {
            Ok(page)
        }
    };
    let group = plan.index.groups[found.group];
    for (i, leaf) in plan.projection.leaves.iter().copied().enumerate() {
        let Some(table) = found.tables.get(&leaf) else { continue };
        let codec = plan.index.chunk(found.group, leaf).codec()?.to_thrift();
        let column = column_of(pages, i, leaf as u32, codec);
        if column.chunks.last().is_none_or(|chunk| chunk.first_row != group.first_row) {
            let dictionary = table.dictionary.clone();
            column.chunks.push(PagesChunk {
                first_row: group.first_row,
                rows: group.rows,
                dictionary: dictionary.map(|range| piece(leaf, None, range)).transpose()?.unwrap_or_default(),
                data_pages: Vec::new(),
                aligned: table.aligned,
            });
        }
        let Some(chunk) = column.chunks.last_mut() else { continue };
        let wanted = table.pages_of_rows(&found.stretch.rows);
        // The rows of one call go on where those of the last one ended, perhaps in the same data page. Unaligned
        // chunks came whole the first time.
        let known = if table.aligned { chunk.data_pages.last().map(|page| page.first_row) } else { None };
        let skip_all = !table.aligned && !chunk.data_pages.is_empty();
        for i in wanted.into_iter().filter(|i| !skip_all && known.is_none_or(|row| table.page_rows(*i).start > row)) {
            let rows = table.page_rows(i);
            let page = piece(leaf, Some(i), table.page_range(i))?;
            chunk.data_pages.push(DataPage { first_row: rows.start, rows: rows.end - rows.start, page });
        }
    }
    Ok(())
}
