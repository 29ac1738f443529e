//! The machine that learns where the data pages of column chunks without an offset index are.
//!
//! A search can learn that itself, and then what it learned is lost with it when its time is over. This machine does
//! nothing else, so that it can outlive whoever needed it first: the page tables stay in the [`FileIndex`], window by
//! window, and those who come later find them there. It says how far it got.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::chunk::{Learning, Place};
use crate::error::{Error, shown};
use crate::fetched::{Fetched, Wanted};
use crate::file_index::FileIndex;
use crate::limits::Limits;
use crate::machine::{Fed, Machine, Piece, Step};

/// What a search calls a round that reads column chunks only to learn where their data pages are.
pub const LEARNING_STAGE: &str = "whole chunks";

/// One column chunk of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkName {
    group: u32,
    leaf: u32,
}

impl FileIndex {
    /// For each of these ranges the column chunk that starts there, if nobody knows where its data pages are and only
    /// its own bytes can tell.
    pub fn unlearned(&self, ranges: &[Range<u64>]) -> Vec<Option<ChunkName>> {
        let mut wanted: HashMap<u64, Option<ChunkName>> = ranges.iter().map(|range| (range.start, None)).collect();
        for group in 0..self.row_groups() {
            for leaf in 0..self.columns() {
                if self.chunk(group, leaf).offset_index(self.file_size()).is_some() {
                    continue;
                }
                let Ok(range) = self.chunk_range(group, leaf) else { continue };
                if let Some(name) = wanted.get_mut(&range.start)
                    && self.table(group, leaf).is_none()
                {
                    *name = Some(ChunkName { group: group as u32, leaf: leaf as u32 });
                }
            }
        }
        ranges.iter().map(|range| wanted.get(&range.start).copied().flatten()).collect()
    }

    /// Whether it is known now where a chunk's data pages are.
    pub fn is_learned(&self, name: ChunkName) -> bool {
        self.table(name.group as usize, name.leaf as usize).is_some()
    }

    /// Bytes of these column chunks together.
    pub fn chunk_bytes(&self, names: &[ChunkName]) -> u64 {
        let ranges = names.iter().filter_map(|name| self.chunk_range(name.group as usize, name.leaf as usize).ok());
        ranges.map(|range| range.end - range.start).sum()
    }
}

/// Learns the page tables of some column chunks of one file, all at once.
pub struct Learn {
    index: Arc<FileIndex>,
    limits: Arc<Limits>,
    left: Vec<(ChunkName, Learning)>,
    fetched: Fetched,
    /// Bytes of the chunks that were gone through.
    walked: Arc<AtomicU64>,
}

impl std::fmt::Debug for Learn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Learn").field("left", &self.left.len()).field("walked", &self.walked).finish()
    }
}

impl Learn {
    /// For chunks that [`FileIndex::unlearned`] named. `walked` counts the bytes that are gone through.
    ///
    /// # Errors
    /// What the footer says of a chunk's place cannot be.
    pub fn new(
        index: Arc<FileIndex>,
        names: &[ChunkName],
        limits: Arc<Limits>,
        walked: Arc<AtomicU64>,
    ) -> Result<Self, Error> {
        let learning = |name: &ChunkName| {
            let range = index.chunk_range(name.group as usize, name.leaf as usize)?;
            Ok((*name, Learning::new(range)))
        };
        let left = names.iter().map(learning).collect::<Result<_, Error>>()?;
        Ok(Self { index, limits, left, fetched: Fetched::default(), walked })
    }

    /// Goes on with one chunk as far as its bytes are there; false, and what is missing is wanted, if it is not done.
    fn go_on(&mut self, name: ChunkName, learning: &mut Learning, wanted: &mut Wanted) -> Result<bool, Error> {
        let (group, leaf) = (name.group as usize, name.leaf as usize);
        let chunk = self.index.chunk(group, leaf);
        let column = self.index.schema().column(leaf);
        let about =
            |error: Error| error.within(&format!("column `{}`, row group {group}", shown(&column.path().string())));
        let rows = self.index.groups[group].rows;
        let place = Place { chunk, rows, codec: chunk.codec()?, column: column.clone() };
        loop {
            let window = learning.window(self.limits.scan_bytes);
            let Some(bytes) = self.fetched.get(&window) else {
                if !wanted.is_full() {
                    wanted.add(LEARNING_STAGE, window);
                }
                return Ok(false);
            };
            let learned = learning.go_on(&bytes, &place, &self.limits);
            self.fetched.let_go(&window);
            match learned.map_err(about)? {
                Some(table) => {
                    self.walked.fetch_add(window.end - window.start, Ordering::Relaxed);
                    self.index.keep_table(group, leaf, &Arc::new(table));
                    return Ok(true);
                }
                None => {
                    let next = learning.window(self.limits.scan_bytes).start;
                    self.walked.fetch_add(next - window.start, Ordering::Relaxed);
                }
            }
        }
    }
}

impl Machine for Learn {
    type Output = ();

    fn step(&mut self) -> Result<Step<()>, Error> {
        let mut wanted = Wanted::new(self.limits.scan_bytes, 0);
        let mut left = Vec::new();
        for (name, mut learning) in std::mem::take(&mut self.left) {
            if !self.index.is_learned(name) && !self.go_on(name, &mut learning, &mut wanted)? {
                left.push((name, learning));
            }
        }
        if left.is_empty() {
            return Ok(Step::Done(()));
        }
        self.left = left;
        self.fetched.start_round(0);
        Ok(Step::Need(wanted.into_need()))
    }

    fn feed(&mut self, piece: &Piece, fed: Fed) {
        if let Piece::Range(range) = piece {
            self.fetched.insert(range.clone(), fed.bytes);
        }
    }

    fn stage(&self) -> &'static str {
        LEARNING_STAGE
    }

    fn work_bytes(&self) -> u64 {
        self.fetched.new_bytes()
    }
}
