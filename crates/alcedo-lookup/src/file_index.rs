//! The file index: what lookups need of a footer, decoded once, small and flat.
//!
//! It is made from the footer alone. Page tables of column chunks join it as lookups learn them, from the page index or
//! from the chunks themselves; they are shared by all lookups of the file version and counted by [`FileIndex::weight`].

mod codec;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::chunk::PageTable;
use crate::error::{Error, Short};
use crate::footer::{Chunk, Footer, RowGroup, settle};
use crate::key_column::{Bounds, KeyColumn, Probes};
use crate::limits::Limits;
use crate::packed_stats::PackedStats;
use crate::projection::{Projection, key_column, key_leaf};
use crate::schema_tree::SchemaTree;
use crate::search::Query;
use crate::shared_schemas::{self, share};

/// What an allocator takes for a piece of memory beside its bytes, rounding included, on average.
pub(crate) const ALLOCATION_BYTES: usize = 16;
/// Pieces of memory of an index without any table: itself, row groups, column chunks, orders, the map of tables.
const OWN_ALLOCATIONS: usize = 5;
/// What a page table takes in the map of tables: a slot, and the free ones that the map keeps.
const SLOT_BYTES: u64 = 80;

/// Columns that a message lists at most.
const MAX_LISTED_COLUMNS: usize = 20;

/// Numbers of file indexes, so that what is decoded of one is not taken for another's.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What a lookup needs of one content version of one file.
pub struct FileIndex {
    /// Unlike that of any other index of this process.
    pub(crate) id: u64,
    pub(crate) file_size: u64,
    /// Where the footer starts: all data and indexes are before it.
    pub(crate) data_end: u64,
    schema: Arc<SchemaTree>,
    pub(crate) groups: Box<[RowGroup]>,
    chunks: Box<[Chunk]>,
    sorted_by: Option<u32>,
    type_ordered: Box<[bool]>,
    base_weight: u64,
    tables: RwLock<HashMap<(u32, u32), Arc<PageTable>>>,
    tables_weight: AtomicU64,
}

impl std::fmt::Debug for FileIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileIndex")
            .field("rows", &self.rows())
            .field("row_groups", &self.groups.len())
            .field("columns", &self.columns())
            .field("weight", &self.weight())
            .finish()
    }
}

impl FileIndex {
    /// `data_end` is where the footer starts.
    pub(crate) fn new(mut footer: Footer, file_size: u64, data_end: u64, limits: &Limits) -> Self {
        settle(&mut footer.chunks, data_end, limits);
        let stats = |chunk: &Chunk| chunk.stats.as_ref().map_or(0, |stats| stats.len() + ALLOCATION_BYTES);
        let chunks: usize = footer.chunks.iter().map(|chunk| size_of::<Chunk>() + stats(chunk)).sum();
        let groups = footer.groups.len() * size_of::<RowGroup>();
        let (schema, schema_bytes) = share(footer.schema);
        let own = size_of::<Self>() + OWN_ALLOCATIONS * ALLOCATION_BYTES + footer.type_ordered.len();
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            file_size,
            data_end,
            schema,
            groups: footer.groups.into(),
            chunks: footer.chunks.into(),
            sorted_by: footer.sorted_by,
            type_ordered: footer.type_ordered.into(),
            base_weight: (own + schema_bytes + chunks + groups) as u64,
            tables: RwLock::default(),
            tables_weight: AtomicU64::new(0),
        }
    }

    /// Bytes of the file.
    pub fn file_size(&self) -> u64 {
        self.file_size
    }

    /// Bytes from the footer's start to the end of the file.
    pub fn footer_bytes(&self) -> u64 {
        self.file_size - self.data_end
    }

    /// Rows of the file: the sum over its row groups (a footer's own total is sometimes wrong).
    pub fn rows(&self) -> u64 {
        self.groups.last().map_or(0, |group| group.first_row + group.rows)
    }

    /// Row groups of the file.
    pub fn row_groups(&self) -> usize {
        self.groups.len()
    }

    /// Leaf columns of the schema.
    pub fn columns(&self) -> usize {
        self.schema().num_columns()
    }

    /// Whether any column chunk has an offset index.
    pub fn has_page_index(&self) -> bool {
        self.chunks.iter().any(|chunk| chunk.offset_index(self.file_size).is_some())
    }

    /// Bytes of memory that the index takes now. It grows as lookups learn page tables. A schema that indexes share is
    /// counted by [`FileIndex::shared_bytes`].
    pub fn weight(&self) -> u64 {
        self.base_weight + self.tables_weight.load(Ordering::Relaxed)
    }

    /// Bytes of the schemas that the indexes of this process share: each is in memory once, however many files have it,
    /// and all of them take some MiB at most.
    pub fn shared_bytes() -> u64 {
        shared_schemas::bytes() as u64
    }

    /// Whether any key of the query may be in the file, by the row groups' bounds.
    ///
    /// # Errors
    /// The query names a column that the file has not, or a key that cannot be read as its column's type.
    pub fn may_hold(&self, query: &Query) -> Result<bool, Error> {
        let column = self.key_column(query.key_column.as_deref())?;
        // A question that would fail must fail on every file alike, not only on those that hold the key.
        Projection::resolve(self.schema(), query.columns.as_deref())?;
        let probes = Probes::new(&query.keys, &column)?;
        Ok((0..self.groups.len())
            .any(|group| self.groups[group].rows > 0 && probes.may_be_in(&self.group_bounds(group, &column))))
    }

    pub(crate) fn schema(&self) -> &SchemaTree {
        &self.schema
    }

    /// The key column by name, or the first that the file declares it is sorted by.
    pub(crate) fn key_column(&self, name: Option<&str>) -> Result<KeyColumn, Error> {
        if let Some(name) = name {
            return key_column(self.schema(), name);
        }
        let Some(leaf) = self.sorted_by else {
            let names = self.schema.root_names();
            let more = names.len().saturating_sub(MAX_LISTED_COLUMNS);
            let mut columns: Vec<String> =
                names.take(MAX_LISTED_COLUMNS).map(|name| Short::name(name).to_string()).collect();
            columns.extend((more > 0).then(|| format!("… and {more} more")));
            return Err(Error::NoKeyColumn { columns: columns.join(", ") });
        };
        key_leaf(&self.schema, leaf as usize)
    }

    /// What the footer says of a key column's values in one row group.
    pub(crate) fn group_bounds(&self, group: usize, column: &KeyColumn) -> Bounds {
        let chunk = self.chunk(group, column.leaf);
        let stats = chunk.stats.as_ref().map(PackedStats::unpack);
        column.chunk_bounds(stats.as_ref(), chunk.values, self.type_ordered[column.leaf])
    }

    /// Whether the footer promises that a leaf's bounds are in the type's own order.
    pub(crate) fn is_type_ordered(&self, leaf: usize) -> bool {
        self.type_ordered[leaf]
    }

    pub(crate) fn chunk(&self, group: usize, leaf: usize) -> &Chunk {
        &self.chunks[group * self.columns() + leaf]
    }

    /// All chunks, row group by row group.
    pub(crate) fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    pub(crate) fn chunk_range(&self, group: usize, leaf: usize) -> Result<Range<u64>, Error> {
        self.chunk(group, leaf).range(self.data_end)
    }

    /// The page table of a chunk, if some lookup learned it.
    pub(crate) fn table(&self, group: usize, leaf: usize) -> Option<Arc<PageTable>> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables.get(&(group as u32, leaf as u32)).cloned()
    }

    /// Keeps a page table for later lookups. One with bounds replaces one without.
    pub(crate) fn keep_table(&self, group: usize, leaf: usize, table: &Arc<PageTable>) {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let old = tables.insert((group as u32, leaf as u32), table.clone());
        self.tables_weight.fetch_add(table.weight() + SLOT_BYTES, Ordering::Relaxed);
        self.tables_weight.fetch_sub(old.map_or(0, |old| old.weight() + SLOT_BYTES), Ordering::Relaxed);
    }
}
