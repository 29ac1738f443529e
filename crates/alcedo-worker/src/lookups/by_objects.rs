//! Layer 3: lookups by derived objects.
//!
//! Knows the ways from a key to its rows that are shorter than a search: lookup-ready rows, with a keymap where keys
//! are scattered, and a keymap before a search at rows. It must not know how objects are made. Whatever an object
//! cannot tell, or whose bytes cannot be had, is left to the search, which comes to the same answer and to the right
//! error.

use std::ops::Range;
use std::sync::Arc;

use alcedo_lookup::answer::{Body, FileAnswer, KeyStatus};
use alcedo_lookup::error::Error as FileError;
use alcedo_lookup::key::Key;
use alcedo_lookup::keymap::{Keymap, Next};
use alcedo_lookup::prepared::KeyPoint;
use alcedo_lookup::ready::{BlockRef, FoundReady, ReadyPlan, ReadyRows};
use bytes::Bytes;

use super::Lookups;
use crate::derived::{Head, Kind, Object, Objects};
use crate::hot_rows::cut_rows;
use crate::merge::in_file_order;
use crate::prepared::FileTarget;

/// Blocks that are read for one key without a keymap: beyond it the search, which has bounds of its own, is as good.
const MOST_BLOCKS: usize = 16;
/// Rows of one key that are taken from lookup-ready rows: one read each.
const MOST_ROWS: usize = 1_024;
/// From this many blocks per key on a keymap is asked first: it costs one read.
const SCATTERED_BLOCKS: f64 = 2.0;

/// How keys of one file are to be answered.
pub(super) enum Way {
    /// So.
    Answered(FileAnswer),
    /// By a search that looks at these rows alone.
    Rows(Vec<u64>),
    /// By a search.
    Search,
}

/// An object whose head is in memory.
struct Opened<H> {
    object: Arc<Object>,
    head: Arc<Head<H>>,
}

impl Lookups {
    /// Answers the keys by what was built of the file, as far as that goes.
    pub(super) async fn by_objects(&self, target: &FileTarget, keys: &[Key]) -> Way {
        let Some(objects) = self.derived.of(&target.version.key) else { return Way::Search };
        // The search says what is wrong with a key.
        let points = keys.iter().map(|key| target.prepared.key_point(key)).collect::<Result<Vec<_>, _>>();
        let Ok(points) = points else { return Way::Search };
        let keymap = self.keymap(target, &objects).await;
        if let Some((ready, plan)) = self.ready(target, &objects).await
            && let Some(answer) = self.by_ready(target, &points, (&ready, &plan), keymap.as_ref()).await
        {
            self.derived.counts().ready_keys.add(keys.len() as u64);
            return Way::Answered(answer);
        }
        let Some(keymap) = keymap else { return Way::Search };
        let mut rows = Vec::new();
        for point in points.iter().flatten() {
            match self.rows_of(&keymap, point).await {
                Some(more) if rows.len() + more.len() <= self.limits.answer_rows => rows.extend(more),
                _ => return Way::Search,
            }
        }
        self.derived.counts().keymap_keys.add(keys.len() as u64);
        Way::Rows(rows)
    }

    /// The keymap of the question's key column.
    async fn keymap(&self, target: &FileTarget, objects: &Objects) -> Option<Opened<Keymap>> {
        for object in objects.iter().filter(|object| object.kind() == Kind::Keymap) {
            let index = Arc::clone(target.prepared.index());
            let read = move |bytes: Bytes| -> Result<_, FileError> {
                let head = Keymap::read(&bytes, &index)?;
                Ok(Head { weight: usize::try_from(head.weight()).unwrap_or(usize::MAX), head })
            };
            let Some(head) = self.head(object, read).await else { continue };
            if head.head.leaf() == target.prepared.key_leaf() {
                return Some(Opened { object: Arc::clone(object), head });
            }
        }
        None
    }

    /// Lookup-ready rows that have all that the question asks for.
    async fn ready(&self, target: &FileTarget, objects: &Objects) -> Option<(Opened<ReadyRows>, ReadyPlan)> {
        for object in objects.iter().filter(|object| object.kind() == Kind::Ready) {
            let (index, limits) = (Arc::clone(target.prepared.index()), Arc::clone(&self.limits));
            let read = move |bytes: Bytes| -> Result<_, FileError> {
                let head = ReadyRows::read(bytes, &index, &limits)?;
                Ok(Head { weight: head.weight(), head })
            };
            let Some(head) = self.head(object, read).await else { continue };
            if let Some(plan) = head.head.serves(&target.prepared) {
                return Some((Opened { object: Arc::clone(object), head }, plan));
            }
        }
        None
    }

    async fn head<H: std::any::Any + Send + Sync>(
        &self,
        object: &Object,
        read: impl FnOnce(Bytes) -> Result<Head<H>, FileError> + Clone + Send + 'static,
    ) -> Option<Arc<Head<H>>> {
        match self.derived.head(object, read.clone()) {
            Some(head) => Some(head),
            None => self.derived.head_waiting(object, read).await,
        }
    }

    /// The whole answer from lookup-ready rows; none where they cannot tell.
    async fn by_ready(
        &self,
        target: &FileTarget,
        points: &[Option<KeyPoint>],
        (ready, plan): (&Opened<ReadyRows>, &ReadyPlan),
        keymap: Option<&Opened<Keymap>>,
    ) -> Option<FileAnswer> {
        let keymap = keymap.filter(|_| ready.head.head.selectivity() >= SCATTERED_BLOCKS);
        let limit = target.prepared.row_limit().map_or(usize::MAX, |limit| limit as usize);
        let mut found = FoundReady::default();
        let mut statuses = vec![KeyStatus::NotFound; points.len()];
        // Per key with rows: the key, and which of the found rows the answer has.
        let mut taken: Vec<(u32, Range<usize>)> = Vec::new();
        for (key, point) in points.iter().enumerate() {
            let Some(point) = point else { continue };
            let before = found.row_numbers.len();
            self.find(point, (ready, plan), keymap, &mut found).await?;
            let count = found.row_numbers.len() - before;
            if count > 0 {
                statuses[key] = if count > limit { KeyStatus::Truncated } else { KeyStatus::Found };
                taken.push((key as u32, before..before + count.min(limit)));
            }
            let is_large = found.row_numbers.len() > self.limits.answer_rows;
            if is_large || found.rows.len() > self.limits.answer_bytes {
                return None;
            }
        }
        let cut = cut_rows(&found.rows, found.row_numbers.len())?;
        let row = |key: u32, at: usize| Some((*found.row_numbers.get(at)?, key, *cut.get(at)?));
        let rows = taken.into_iter().flat_map(|(key, range)| range.map(move |at| (key, at)));
        let rows = rows.map(|(key, at)| row(key, at)).collect::<Option<Vec<_>>>()?;
        let (key_index, row_number, body) = in_file_order(rows);
        let schema = Arc::clone(target.prepared.schema());
        let notes = vec![format!("{} keys by lookup-ready rows", points.len())];
        Some(FileAnswer { schema, key_index, row_number, statuses, body: Body::Compact(body), notes })
    }

    /// Appends all rows of one key, in file order.
    async fn find(
        &self,
        point: &KeyPoint,
        (ready, plan): (&Opened<ReadyRows>, &ReadyPlan),
        keymap: Option<&Opened<Keymap>>,
        found: &mut FoundReady,
    ) -> Option<()> {
        let rows = &ready.head.head;
        match keymap {
            Some(keymap) => {
                let candidates = self.rows_of(keymap, point).await?;
                if candidates.len() > MOST_ROWS {
                    return None;
                }
                for row in candidates {
                    let block = rows.block_of_row(row)?;
                    let bytes = self.block(&ready.object, &block).await?;
                    let compared = rows.find_at(plan, &block, &bytes, (row, point), found);
                    self.believed(&ready.object, compared)?;
                }
            }
            None => {
                let blocks: Vec<BlockRef> = rows.blocks(point).take(MOST_BLOCKS + 1).collect();
                if blocks.len() > MOST_BLOCKS {
                    return None;
                }
                for block in blocks {
                    let bytes = self.block(&ready.object, &block).await?;
                    let compared = rows.find(plan, &block, &bytes, point, found);
                    self.believed(&ready.object, compared)?;
                }
            }
        }
        Some(())
    }

    /// The rows that may hold a key, by their numbers in the file and ascending; none where the keymap cannot tell.
    async fn rows_of(&self, keymap: &Opened<Keymap>, point: &KeyPoint) -> Option<Vec<u64>> {
        let (mut rows, mut next) = (Vec::new(), keymap.head.head.place(point));
        loop {
            match next {
                Next::Done => return Some(rows),
                Next::Search => return None,
                Next::Read(read) => {
                    let bytes = self.part(&keymap.object, read.part, read.range.clone()).await?;
                    next = self.believed(&keymap.object, keymap.head.head.rows(&read, &bytes, &mut rows))?;
                }
            }
        }
    }

    async fn block(&self, object: &Object, block: &BlockRef) -> Option<Bytes> {
        self.part(object, block.part, block.range.clone()).await
    }

    async fn part(&self, object: &Object, part: u32, range: Range<u64>) -> Option<Bytes> {
        match self.derived.read(object, part, range.clone()) {
            Some(bytes) => Some(bytes),
            None => self.derived.read_waiting(object, part, range).await,
        }
    }

    /// What was read of an object; one whose bytes are not what they should be is dropped.
    fn believed<T>(&self, object: &Object, read: Result<T, FileError>) -> Option<T> {
        read.inspect_err(|error| {
            tracing::warn!(%error, url = object.version().url(), name = object.name(), "a derived object is damaged");
            self.derived.is_broken(object);
        })
        .ok()
    }
}
