//! Answers in pages form, decoded on the client's side.
//!
//! The same few data pages are sent for many keys, so what was decoded of them may be kept: a page that is kept is
//! neither inflated nor decoded again. Answers come from a worker, which is trusted with a file's rows; their bytes are
//! checked like a file's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use parquet::schema::types::ColumnDescPtr;
use xxhash_rust::xxh3::Xxh3;

use crate::answer::{CompactRows, Pages, PagesChunk};
use crate::codec::Codec;
use crate::data_page::StoredPage;
use crate::decoded::{DecodedPages, DecodedRows, Found, MAX_PAGE_ROWS, PageKey};
use crate::error::Error;
use crate::fetched_group::{FetchedGroup, LeafPages};
use crate::int96::Int96Columns;
use crate::limits::Limits;
use crate::page_place::{Group, PagePlace};
use crate::projection::Projection;
use crate::schema::RowSchema;
use crate::schema_tree::SchemaTree;
use crate::stretch::DECODED_VALUE_BYTES;

/// Decoded pages of one content version of one file among those that a client keeps.
#[derive(Debug, Clone)]
pub struct KeptPages {
    cache: Arc<DecodedPages>,
    owner: u128,
}

impl KeptPages {
    /// The place of a file's pages in a cache that no worker's index shares.
    pub fn new(cache: Arc<DecodedPages>, url: &str, version: &str) -> Self {
        let mut name = Xxh3::new();
        name.update(&(url.len() as u64).to_le_bytes());
        name.update(url.as_bytes());
        name.update(version.as_bytes());
        Self { cache, owner: name.digest128() }
    }

    /// Puts decoded pages in the place of stored ones, and decodes those that are asked for often.
    fn use_in(&self, projection: &Projection, group: &mut FetchedGroup<'_>, first_row: u64) {
        group.decoded = vec![Vec::new(); projection.roots.len()];
        for (i, root) in projection.roots.iter().enumerate() {
            let ([leaf], Some(column)) = (&root.leaves[..], root.code) else { continue };
            let Some(pages) = group.leaves.get(leaf).filter(|pages| !pages.unaligned) else { continue };
            let place = |(first, rows, page): &(u64, u64, StoredPage)| (*first, *rows, page.inflated_bytes() as u64);
            let places: Vec<(u64, u64, u64)> = pages.pages.iter().map(place).collect();
            for (first, rows, inflated) in places {
                let key = PageKey { owner: self.owner, group: first_row, column, first_row: first };
                let bytes = inflated.max(rows.saturating_mul(DECODED_VALUE_BYTES));
                let decoded = match self.cache.rows(&key, bytes) {
                    Found::Decoded(decoded) if decoded.end() == first + rows => Some(decoded),
                    Found::Decode => self.decode(projection, i, group, key, rows),
                    _ => None,
                };
                if let Some(decoded) = decoded {
                    group.decoded[i].push(decoded);
                    if let Some(pages) = group.leaves.get_mut(leaf) {
                        pages.pages.retain(|page| page.0 != first);
                    }
                }
            }
        }
    }

    fn decode(
        &self,
        projection: &Projection,
        root: usize,
        group: &mut FetchedGroup<'_>,
        key: PageKey,
        rows: u64,
    ) -> Option<Arc<DecodedRows>> {
        let array = match rows {
            0..=MAX_PAGE_ROWS => projection.decode_whole(root, group, key.first_row..key.first_row + rows),
            _ => None,
        };
        let Some(array) = array else {
            self.cache.refuse(key);
            return None;
        };
        let decoded = Arc::new(DecodedRows { first_row: key.first_row, array });
        self.cache.put_rows(key, &decoded);
        Some(decoded)
    }
}

/// Decodes a pages answer into compact rows of `schema`, for the rows `row_number` (ascending, 0-based in the file).
///
/// # Errors
/// The pages are not what they should be.
pub fn decode_pages(pages: &Pages, schema: &RowSchema, row_number: &[u64], limits: &Limits) -> Result<Bytes, Error> {
    decode_pages_with(pages, schema, row_number, limits, None)
}

/// The same with decoded pages that are kept.
///
/// # Errors
/// As of [`decode_pages`].
pub fn decode_pages_with(
    pages: &Pages,
    schema: &RowSchema,
    row_number: &[u64],
    limits: &Limits,
    kept: Option<&KeptPages>,
) -> Result<Bytes, Error> {
    let file = SchemaTree::decode(&pages.parquet_schema, limits)?;
    let names: Vec<String> = schema.columns.iter().map(|column| column.name.clone()).collect();
    let leaves: BTreeSet<u32> = pages.columns.iter().map(|column| column.leaf).collect();
    // Asked for by name, the first of two columns with one name would stand for both.
    let is_whole = file.root_names().eq(names.iter().map(String::as_str)) && leaves.len() == file.num_columns();
    let projection = Projection::resolve(&file, (!is_whole).then_some(&names[..]))?;
    let int96 = Int96Columns::new(&projection, &file).of_schema(schema);
    if *int96.schema(&projection.schema) != *schema {
        return Err(Error::corrupt("the answer's schema is not that of its pages"));
    }
    if !row_number.is_sorted() {
        return Err(Error::corrupt("the answer's rows do not ascend"));
    }
    let limits = Arc::new(limits.clone());
    let mut groups: BTreeMap<(u64, u64), BTreeMap<usize, LeafPages>> = BTreeMap::new();
    for column in &pages.columns {
        let leaf = column.leaf as usize;
        if leaf >= file.num_columns() {
            return Err(Error::corrupt(format!("pages of leaf {leaf}, which the schema has not")));
        }
        for chunk in &column.chunks {
            let pages = stored_pages(chunk, Codec::from_thrift(column.codec)?, file.column(leaf), &limits)?;
            groups.entry((chunk.first_row, chunk.rows)).or_default().insert(leaf, pages);
        }
    }
    let mut out = CompactRows::new(int96, &limits);
    for ((first_row, rows), leaves) in groups {
        let end = first_row.checked_add(rows).ok_or_else(|| Error::corrupt("a row group ends beyond 2^64"))?;
        let from = row_number.partition_point(|row| *row < first_row);
        let to = row_number.partition_point(|row| *row < end);
        let within: Vec<u64> = row_number[from..to].iter().map(|row| row - first_row).collect();
        let mut distinct = within.clone();
        distinct.dedup();
        let (limits, decoded) = (limits.clone(), Vec::new());
        let of = Group::FromRow(first_row);
        let mut group = FetchedGroup { metadata: file.metadata(), group: of, rows, leaves, decoded, limits };
        if let Some(kept) = kept {
            kept.use_in(&projection, &mut group, first_row);
        }
        let mut within = within.into_iter().peekable();
        projection.read(&group, &distinct, &|_| true, &mut |batch| out.write(&projection, batch, &mut within))?;
    }
    Ok(out.into_bytes())
}

/// The pages of one chunk as they were sent, checked.
fn stored_pages(chunk: &PagesChunk, codec: Codec, column: ColumnDescPtr, limits: &Limits) -> Result<LeafPages, Error> {
    let page = |bytes: &Bytes, ordinal: Option<usize>| {
        let group = Group::FromRow(chunk.first_row);
        let place = PagePlace { column: column.clone(), group, ordinal, offset: None };
        StoredPage::new(bytes.clone(), codec, place, limits)
    };
    let dictionary = (!chunk.dictionary.is_empty()).then(|| page(&chunk.dictionary, None)).transpose()?;
    let mut pages = Vec::with_capacity(chunk.data_pages.len());
    let mut row = 0;
    for (i, data_page) in chunk.data_pages.iter().enumerate() {
        let end = data_page.first_row.checked_add(data_page.rows).filter(|end| *end <= chunk.rows);
        row = end.filter(|_| data_page.first_row >= row).ok_or_else(|| Error::corrupt("pages that overlap"))?;
        pages.push((data_page.first_row, data_page.rows, page(&data_page.page, Some(i))?));
    }
    Ok(LeafPages { column, dictionary, pages, unaligned: !chunk.aligned })
}
