//! Answers of one file: what a search ends in, and the pages form decoded on the client's side.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StructArray};
use arrow_buffer::NullBuffer;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{Field, Schema};
use bytes::Bytes;

use crate::arrow_rows::RowWriter;
use crate::codec::Codec;
use crate::data_page::inflate;
use crate::error::Error;
use crate::fetched::Fetched;
use crate::limits::Limits;
use crate::projection::Projection;
use crate::row_reader::LeafPages;
use crate::schema::RowSchema;
use crate::schema_tree::SchemaTree;
use crate::search::{FoundRows, Plan};

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
    Pages { pages: Pages, bytes: usize },
}

impl AnswerWriter {
    /// An answer without rows yet, in the form that the plan's query asks for.
    pub(crate) fn new(plan: &Plan) -> Self {
        let body = match plan.query.form {
            Form::CompactRows => Writing::Compact(CompactRows::new(&plan.limits)),
            Form::ArrowIpc => Writing::Arrow(ArrowStream::default()),
            Form::Pages => Writing::Pages { pages: empty_pages(plan), bytes: 0 },
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
        match &mut self.body {
            Writing::Compact(rows) => {
                let batches = read_batches(plan, found, fetched)?;
                rows.write(&plan.projection, &batches, found.matches.iter().map(|(row, _)| *row))
            }
            Writing::Arrow(stream) => {
                for batch in repeat_rows(&read_batches(plan, found, fetched)?, found.matches)? {
                    stream.write(plan, &batch)?;
                }
                Ok(())
            }
            Writing::Pages { pages, bytes } => add_pages(plan, found, fetched, pages, bytes),
        }
    }

    /// The answer, with what became of each key and the search's decisions in words.
    ///
    /// # Errors
    /// The rows cannot be brought to their form.
    pub(crate) fn finish(self, statuses: Vec<KeyStatus>, notes: Vec<String>) -> Result<FileAnswer, Error> {
        let body = match self.body {
            Writing::Compact(rows) => Body::Compact(rows.bytes.into()),
            Writing::Arrow(stream) => Body::ArrowIpc(stream.finish()?),
            Writing::Pages { pages, .. } => Body::Pages(pages),
        };
        let (key_index, row_number) = (self.key_index, self.row_number);
        Ok(FileAnswer { schema: self.schema, key_index, row_number, statuses, body, notes })
    }
}

/// Compact rows in the making, within the bound of an answer.
struct CompactRows {
    writer: RowWriter,
    max_bytes: usize,
    bytes: Vec<u8>,
}

impl CompactRows {
    fn new(limits: &Limits) -> Self {
        Self { writer: RowWriter::default(), max_bytes: limits.answer_bytes, bytes: Vec::new() }
    }

    /// Writes a row per entry of `rows`, which ascend and may repeat; the batches hold the distinct ones.
    fn write(
        &mut self,
        projection: &Projection,
        batches: &[RecordBatch],
        rows: impl Iterator<Item = u64>,
    ) -> Result<(), Error> {
        let mut places = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |i| (batch, i)));
        let mut current = None;
        for row in rows {
            let place = match current {
                Some((at, place)) if at == row => Some(place),
                _ => places.next(),
            };
            let (batch, i) = place.ok_or_else(|| Error::corrupt("a found row was not read"))?;
            current = Some((row, (batch, i)));
            self.writer.write(projection, batch, i, &mut self.bytes)?;
            if self.bytes.len() > self.max_bytes {
                return Err(too_large("rows", self.max_bytes));
            }
        }
        Ok(())
    }
}

fn too_large(what: &str, bound: usize) -> Error {
    Error::AnswerTooLarge(format!("the {what} take more than {bound} bytes: select fewer columns or set a row limit"))
}

/// An Arrow IPC stream in the making; without rows it stays empty.
#[derive(Default)]
struct ArrowStream(Option<StreamWriter<Vec<u8>>>);

impl ArrowStream {
    fn write(&mut self, plan: &Plan, batch: &RecordBatch) -> Result<(), Error> {
        let batch = project(&plan.projection, batch)?;
        let writer = match &mut self.0 {
            Some(writer) => writer,
            None => self.0.insert(StreamWriter::try_new(Vec::new(), &batch.schema()).map_err(broken)?),
        };
        writer.write(&batch).map_err(broken)?;
        if writer.get_ref().len() > plan.limits.answer_bytes {
            return Err(too_large("rows", plan.limits.answer_bytes));
        }
        Ok(())
    }

    fn finish(self) -> Result<Bytes, Error> {
        self.0.map_or(Ok(Bytes::new()), |writer| Ok(writer.into_inner().map_err(broken)?.into()))
    }
}

fn broken(error: arrow_schema::ArrowError) -> Error {
    Error::corrupt(error.to_string())
}

/// The found rows of a row group as record batches.
fn read_batches(plan: &Plan, found: &FoundRows<'_>, fetched: &Fetched) -> Result<Vec<RecordBatch>, Error> {
    let rows = found.rows();
    let mut leaves = BTreeMap::new();
    for (leaf, table) in found.tables.iter().filter(|(leaf, _)| plan.projection.leaves.binary_search(leaf).is_ok()) {
        let codec = plan.index.chunk(found.group, *leaf).codec()?;
        let column = || plan.index.schema().column(*leaf).path().string();
        let page = |range: Range<u64>| {
            let bytes = fetched.get(&range).ok_or_else(|| Error::corrupt("a fetched data page was lost"))?;
            inflate(&bytes, codec, &plan.limits).map_err(|error| match error {
                Error::Checksum(what) => Error::Checksum(format!("{what} of `{}` at offset {}", column(), range.start)),
                other => other,
            })
        };
        let mut pages = LeafPages { unaligned: !table.aligned, ..LeafPages::default() };
        for i in wanted_pages(table, &rows) {
            let at = table.page_rows(i);
            pages.pages.push((at.start, at.end - at.start, page(table.page_range(i))?));
        }
        pages.dictionary = table.dictionary.clone().map(page).transpose()?;
        leaves.insert(*leaf, pages);
    }
    plan.projection.read(&plan.index.metadata, plan.index.groups[found.group].rows, &leaves, &rows)
}

/// The data pages that hold these ascending rows, ascending.
fn wanted_pages(table: &crate::chunk::PageTable, rows: &[u64]) -> Vec<usize> {
    let mut pages: Vec<usize> = rows.iter().flat_map(|row| table.pages_of(&(*row..row + 1))).collect();
    pages.sort_unstable();
    pages.dedup();
    pages
}

/// A row that several keys ask for stands in the answer once per key.
fn repeat_rows(batches: &[RecordBatch], matches: &[(u64, u32)]) -> Result<Vec<RecordBatch>, Error> {
    if matches.windows(2).all(|pair| pair[0].0 != pair[1].0) {
        return Ok(batches.to_vec());
    }
    let mut counts: Vec<usize> = Vec::new();
    for (i, (row, _)) in matches.iter().enumerate() {
        match counts.last_mut() {
            Some(count) if i > 0 && matches[i - 1].0 == *row => *count += 1,
            _ => counts.push(1),
        }
    }
    let mut counts = counts.into_iter();
    let mut repeated = Vec::new();
    for batch in batches {
        for (row, count) in (0..batch.num_rows()).zip(counts.by_ref()) {
            repeated.extend(std::iter::repeat_n(batch.slice(row, 1), count));
        }
    }
    Ok(repeated)
}

/// The answer's columns out of a batch of whole root columns.
fn project(projection: &Projection, batch: &RecordBatch) -> Result<RecordBatch, Error> {
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for (path, column) in projection.paths.iter().zip(&projection.schema.columns) {
        let array = reach(batch, path)?;
        fields.push(Field::new(&column.name, array.data_type().clone(), true));
        arrays.push(array);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(|error| Error::corrupt(error.to_string()))
}

/// Follows a path through structs; a value is null where a struct around it is.
fn reach(batch: &RecordBatch, path: &[usize]) -> Result<ArrayRef, Error> {
    use arrow_array::Array;
    let (root, inner) = path.split_first().ok_or_else(|| Error::corrupt("a column without a path"))?;
    let mut array = batch.column(*root).clone();
    for field in inner {
        let outer: &StructArray =
            array.as_any().downcast_ref().ok_or_else(|| Error::corrupt("a struct's values are no struct"))?;
        let child = outer.column(*field);
        let nulls = NullBuffer::union(outer.nulls(), child.nulls());
        let data = child.to_data().into_builder().nulls(nulls).build();
        array = arrow_array::make_array(data.map_err(|error| Error::corrupt(error.to_string()))?);
    }
    Ok(array)
}

fn empty_pages(plan: &Plan) -> Pages {
    let column = |leaf: &usize| PagesColumn { leaf: *leaf as u32, codec: 0, chunks: Vec::new() };
    let columns = plan.projection.leaves.iter().map(column).collect();
    Pages { parquet_schema: plan.index.schema_thrift.clone(), columns }
}

/// Adds the data pages that hold the found rows, none twice. `bytes` counts what the pages take.
fn add_pages(
    plan: &Plan,
    found: &FoundRows<'_>,
    fetched: &Fetched,
    pages: &mut Pages,
    bytes: &mut usize,
) -> Result<(), Error> {
    let mut piece = |range: Range<u64>| {
        let page = fetched.get(&range).ok_or_else(|| Error::corrupt("a fetched data page was lost"))?;
        *bytes += page.len();
        if *bytes > plan.limits.answer_bytes {
            Err(too_large("data pages", plan.limits.answer_bytes))
        } else {
            Ok(page)
        }
    };
    let group = plan.index.groups[found.group];
    let rows = found.rows();
    for column in &mut pages.columns {
        let leaf = column.leaf as usize;
        let Some(table) = found.tables.get(&leaf) else { continue };
        column.codec = plan.index.chunk(found.group, leaf).codec()?.to_thrift();
        if column.chunks.last().is_none_or(|chunk| chunk.first_row != group.first_row) {
            column.chunks.push(PagesChunk {
                first_row: group.first_row,
                rows: group.rows,
                dictionary: table.dictionary.clone().map(&mut piece).transpose()?.unwrap_or_default(),
                data_pages: Vec::new(),
                aligned: table.aligned,
            });
        }
        let Some(chunk) = column.chunks.last_mut() else { continue };
        let wanted = wanted_pages(table, &rows);
        // The rows of one call go on where those of the last one ended, perhaps in the same data page. Unaligned
        // chunks came whole the first time.
        let known = if table.aligned { chunk.data_pages.last().map(|page| page.first_row) } else { None };
        let skip_all = !table.aligned && !chunk.data_pages.is_empty();
        for i in wanted.into_iter().filter(|i| !skip_all && known.is_none_or(|row| table.page_rows(*i).start > row)) {
            let rows = table.page_rows(i);
            let page = piece(table.page_range(i))?;
            chunk.data_pages.push(DataPage { first_row: rows.start, rows: rows.end - rows.start, page });
        }
    }
    Ok(())
}

/// Decodes a pages answer into compact rows of `schema`, for the rows `row_number` (ascending, 0-based in the file).
///
/// # Errors
/// The pages are not what they should be.
pub fn decode_pages(pages: &Pages, schema: &RowSchema, row_number: &[u64], limits: &Limits) -> Result<Bytes, Error> {
    let file = SchemaTree::decode(&pages.parquet_schema, limits)?;
    let names: Vec<String> = schema.columns.iter().map(|column| column.name.clone()).collect();
    let projection = Projection::resolve(&file, Some(&names))?;
    let mut groups: BTreeMap<(u64, u64), BTreeMap<usize, LeafPages>> = BTreeMap::new();
    for column in &pages.columns {
        let codec = Codec::from_thrift(column.codec)?;
        for chunk in &column.chunks {
            let mut leaf = LeafPages { unaligned: !chunk.aligned, ..LeafPages::default() };
            if !chunk.dictionary.is_empty() {
                leaf.dictionary = Some(inflate(&chunk.dictionary, codec, limits)?);
            }
            for page in &chunk.data_pages {
                leaf.pages.push((page.first_row, page.rows, inflate(&page.page, codec, limits)?));
            }
            groups.entry((chunk.first_row, chunk.rows)).or_default().insert(column.leaf as usize, leaf);
        }
    }
    let mut out = CompactRows::new(limits);
    for ((first_row, rows), leaves) in groups {
        let end = first_row.checked_add(rows).ok_or_else(|| Error::corrupt("a row group ends beyond 2^64"))?;
        let within: Vec<u64> =
            row_number.iter().filter(|row| (first_row..end).contains(*row)).map(|row| row - first_row).collect();
        let mut distinct = within.clone();
        distinct.dedup();
        let batches = projection.read(file.metadata(), rows, &leaves, &distinct)?;
        out.write(&projection, &batches, within.into_iter())?;
    }
    Ok(out.bytes.into())
}
