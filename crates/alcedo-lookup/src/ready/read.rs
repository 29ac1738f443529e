//! Lookup-ready rows, read: which blocks may hold a key, and its rows out of a block.
//!
//! All of it runs on the way of a lookup: nothing here waits, and nothing is allocated but what the answer needs.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::answer::Form;
use crate::error::Error;
use crate::file_index::FileIndex;
use crate::limits::Limits;
use crate::prepared::{KeyPoint, Prepared};
use crate::ready::block::verified;
use crate::ready::columns::StoredColumns;
use crate::ready::directory::{BlockRef, Directory, Sought};
use crate::ready::fields::{uvarint, uvarint_bytes};
use crate::ready::head::HeadReader;
use crate::ready::key_field::Needle;
use crate::rows::{is_null, write_uvarint};
use crate::schema::RowSchema;
use crate::schema_tree::Named;

/// The head of an object in memory. Its parts stay where they are.
pub struct ReadyRows {
    columns: StoredColumns,
    directory: Directory,
    rows: u64,
}

impl std::fmt::Debug for ReadyRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadyRows")
            .field("key", &self.columns.key.name)
            .field("columns", &self.columns.named.len())
            .field("blocks", &self.directory.blocks())
            .finish()
    }
}

/// How an answer's rows are put together from stored ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyPlan {
    fingerprint: u64,
    /// Per column of the answer: its ordinal among the stored ones.
    order: Box<[usize]>,
    /// Stored columns up to the last that the answer needs.
    needed: usize,
    /// The answer's columns are all of the stored ones in their order: rows are answers as they are.
    is_whole: bool,
}

/// Rows that were found, and room that is used again.
#[derive(Debug, Default)]
pub struct FoundReady {
    /// The 0-based numbers of the rows in the file.
    pub row_numbers: Vec<u64>,
    /// The rows, as [`crate::rows`] describes them.
    pub rows: Vec<u8>,
    /// Where the stored columns' values are in the row at hand; none for null.
    places: Vec<Option<Range<usize>>>,
}

impl FoundReady {
    /// Forgets all rows and keeps the room.
    pub fn clear(&mut self) {
        self.row_numbers.clear();
        self.rows.clear();
    }
}

fn damaged(row: u64) -> Error {
    Error::Corrupt(format!("lookup-ready rows: row {row} is not one of its columns"))
}

impl ReadyRows {
    /// Reads a head of the file version that the index is of.
    ///
    /// # Errors
    /// The bytes are damaged, of another version, or of a file with other columns or rows.
    pub fn read(head: Bytes, index: &FileIndex, limits: &Limits) -> Result<Self, Error> {
        let (mut reader, stored) = HeadReader::new(&head)?;
        if stored.columns.len() > limits.schema_elements {
            return Err(Error::Limit(format!("lookup-ready rows of {} columns", stored.columns.len())));
        }
        let columns = StoredColumns::of_head(index, stored.key as usize, stored.columns.clone())?;
        let is_of_index = columns.fingerprint == stored.fingerprint
            && stored.rows == index.rows()
            && columns.key_field.is_word() == reader.is_word();
        if !is_of_index {
            return Err(Error::corrupt("lookup-ready rows of another file, or of columns that it has no more"));
        }
        let directory = Directory::read(&mut reader)?;
        reader.finish(&stored)?;
        Ok(Self { columns, directory, rows: stored.rows })
    }

    /// Bytes of memory.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.directory.weight() + self.columns.weight()
    }

    /// Rows of the file.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The columns as they are stored, the key column first.
    pub fn schema(&self) -> &Arc<RowSchema> {
        &self.columns.schema
    }

    /// How many parts the object has.
    pub fn parts(&self) -> u32 {
        self.directory.parts()
    }

    /// Blocks of all parts.
    pub fn block_count(&self) -> usize {
        self.directory.blocks()
    }

    /// Bytes of all parts.
    pub fn part_bytes(&self) -> u64 {
        self.directory.part_bytes()
    }

    /// How many blocks must be read for a key on average: 1 where the key column is sorted, nearly all blocks where its
    /// values are scattered. Then a keymap's rows find the block.
    pub fn selectivity(&self) -> f64 {
        self.directory.selectivity()
    }

    /// How to answer this question from the stored rows; none where they do not hold all that it asks for, are found by
    /// another key column, or are not what it wants. The question must be of the same file version.
    pub fn serves(&self, prepared: &Prepared) -> Option<ReadyPlan> {
        if prepared.form() != Form::CompactRows || prepared.column.leaf != self.columns.key.leaf {
            return None;
        }
        let (schema, projection) = (prepared.index.schema(), &prepared.projection);
        let mut order = Vec::with_capacity(projection.paths.len());
        for (path, column) in projection.paths.iter().zip(&projection.schema.columns) {
            let named = match &path[..] {
                [root] => Named::Root(schema.root_of(*projection.roots.get(*root)?.leaves.first()?)),
                _ => schema.find(&column.name).ok()?,
            };
            let stored = self.columns.named.iter().position(|stored| *stored == named)?;
            if self.columns.schema.columns[stored].ty != column.ty {
                return None;
            }
            order.push(stored);
        }
        let needed = order.iter().map(|stored| stored + 1).max().unwrap_or(0);
        let is_whole = order.len() == self.columns.named.len() && order.iter().enumerate().all(|(i, at)| i == *at);
        Some(ReadyPlan { fingerprint: self.columns.fingerprint, order: order.into(), needed, is_whole })
    }

    /// The blocks that may hold rows of this key, in file order. There are none where no row can have it.
    pub fn blocks<'a>(&'a self, key: &'a KeyPoint) -> impl Iterator<Item = BlockRef> + use<'a> {
        let sought = match key.point() {
            None => Sought::Null,
            Some(_) => Sought::from(self.columns.key_field.code_of_key(key)),
        };
        self.directory.find(sought)
    }

    /// The block that holds a row of the file; none beyond its last.
    pub fn block_of_row(&self, row: u64) -> Option<BlockRef> {
        self.directory.of_row(row)
    }

    /// Appends all rows of a block that have the key.
    ///
    /// # Errors
    /// The bytes are not those of the block: the whole object is to be dropped.
    pub fn find(
        &self,
        plan: &ReadyPlan,
        block: &BlockRef,
        bytes: &[u8],
        key: &KeyPoint,
        out: &mut FoundReady,
    ) -> Result<(), Error> {
        let rows = self.check(plan, block, bytes)?;
        let needle = self.columns.key_field.needle(key);
        let mut at = 0;
        for row in block.first_row..block.first_row + u64::from(block.rows) {
            let (fields, next) = fields(rows, at).ok_or_else(|| damaged(row))?;
            if self.has(&needle, fields).ok_or_else(|| damaged(row))? {
                self.push(plan, row, fields, out).ok_or_else(|| damaged(row))?;
            }
            at = next;
        }
        Ok(())
    }

    /// Appends one row of a block if it has the key; false if it has not.
    ///
    /// # Errors
    /// The bytes are not those of the block, or the row is in another one.
    pub fn find_at(
        &self,
        plan: &ReadyPlan,
        block: &BlockRef,
        bytes: &[u8],
        (row, key): (u64, &KeyPoint),
        out: &mut FoundReady,
    ) -> Result<bool, Error> {
        let rows = self.check(plan, block, bytes)?;
        let before = row.checked_sub(block.first_row).filter(|before| *before < block.rows.into());
        let before = before.ok_or_else(|| Error::corrupt(format!("row {row} is in another block")))?;
        let mut at = 0;
        for _ in 0..before {
            at = fields(rows, at).ok_or_else(|| damaged(row))?.1;
        }
        let (fields, _) = fields(rows, at).ok_or_else(|| damaged(row))?;
        let is_found = self.has(&self.columns.key_field.needle(key), fields).ok_or_else(|| damaged(row))?;
        if is_found {
            self.push(plan, row, fields, out).ok_or_else(|| damaged(row))?;
        }
        Ok(is_found)
    }

    fn check<'b>(&self, plan: &ReadyPlan, block: &BlockRef, bytes: &'b [u8]) -> Result<&'b [u8], Error> {
        if plan.fingerprint != self.columns.fingerprint {
            return Err(Error::corrupt("a plan for the rows of other columns"));
        }
        if bytes.len() as u64 != block.range.end - block.range.start {
            return Err(Error::corrupt(format!("{} bytes are not a block of lookup-ready rows", bytes.len())));
        }
        verified(bytes, self.columns.fingerprint, block.first_row)
    }

    /// Whether a row's key equals; none where the row is too short for its key.
    #[inline]
    fn has(&self, needle: &Needle<'_>, fields: &[u8]) -> Option<bool> {
        let is_null = fields.first()? & 1 == 1;
        match needle {
            Needle::Null => Some(is_null),
            _ if is_null => Some(false),
            needle => needle.equals(fields.get(self.columns.null_bytes()..)?),
        }
    }

    /// Appends a row as the answer has it; none where it is none of the columns'.
    fn push(&self, plan: &ReadyPlan, row: u64, stored: &[u8], out: &mut FoundReady) -> Option<()> {
        out.row_numbers.push(row);
        if plan.is_whole {
            write_uvarint(&mut out.rows, stored.len() as u64);
            out.rows.extend_from_slice(stored);
            return Some(());
        }
        let nulls = stored.get(..self.columns.null_bytes())?;
        let mut at = nulls.len();
        out.places.clear();
        for (i, extent) in self.columns.extents.get(..plan.needed)?.iter().enumerate() {
            let place = match is_null(nulls, i) {
                true => None,
                false => Some(at..extent.end(stored, at)?),
            };
            at = place.as_ref().map_or(at, |place| place.end);
            out.places.push(place);
        }
        let places = || plan.order.iter().map(|stored| out.places.get(*stored).cloned().flatten());
        let null_bytes = plan.order.len().div_ceil(8);
        let length: usize = places().flatten().map(|place| place.len()).sum::<usize>() + null_bytes;
        out.rows.reserve(length + uvarint_bytes(length as u64));
        write_uvarint(&mut out.rows, length as u64);
        let start = out.rows.len();
        out.rows.resize(start + null_bytes, 0);
        for (i, place) in places().enumerate() {
            match place {
                Some(place) => out.rows.extend_from_slice(&stored[place]),
                None => out.rows[start + i / 8] |= 1 << (i % 8),
            }
        }
        Some(())
    }
}

/// The fields of the row at `at`, and where the next row starts.
#[inline]
fn fields(rows: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (length, at) = uvarint(rows, at)?;
    let end = at.checked_add(length)?;
    Some((rows.get(at..end)?, end))
}
