//! Layer 3: lookups by derived objects.
//!
//! Knows the ways from a key to its rows that are shorter than a search: lookup-ready rows, with a keymap where keys
//! are scattered, and a keymap before a search at rows. It must not know how objects are made. Whatever an object
//! cannot tell, or whose bytes cannot be had, is left to the search, which comes to the same answer and to the right
//! error. Who must not wait asks with [`Patience::AtOnce`]: what would need a wait is then as if it could not be told.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use alcedo_lookup::answer::{Body, FileAnswer, KeyStatus};
use alcedo_lookup::error::Error as FileError;
use alcedo_lookup::key::Key;
use alcedo_lookup::keymap::{Keymap, Next};
use alcedo_lookup::prepared::KeyPoint;
use alcedo_lookup::ready::{BlockRef, FoundReady, ReadyPlan, ReadyRows};
use bytes::Bytes;
use futures::FutureExt as _;

use super::Lookups;
use crate::derived::{Head, Kind, Object};
use crate::hot_rows::{HotRow, cut_rows};
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

/// Whether a disk may be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    Waiting,
    AtOnce,
}

/// Which objects answer a question. It is kept with the question, because to find it out costs more than to read a
/// row; it holds while no object comes or goes.
#[derive(Debug)]
pub(crate) struct Serving {
    /// [`crate::derived::Derived::changes`] when it was found out.
    changes: u64,
    ready: Option<ServingReady>,
    keymap: Option<Arc<Object>>,
}

/// Lookup-ready rows that have all that a question asks for.
#[derive(Debug)]
struct ServingReady {
    object: Arc<Object>,
    plan: ReadyPlan,
    /// A key's rows may be in so many blocks that a keymap is asked for them first.
    is_scattered: bool,
}

/// An object whose head is in memory.
struct Opened<'o, H> {
    object: &'o Object,
    head: Arc<Head<H>>,
}

/// Lookup-ready rows, and how this question's answer is put together from them.
type Ready<'o> = (Opened<'o, ReadyRows>, &'o ReadyPlan);

impl Lookups {
    /// Answers the keys by what was built of the file, as far as that goes.
    pub(super) async fn by_objects(&self, target: &FileTarget, keys: &[Key]) -> Way {
        let Some(serving) = self.serving(target, Patience::Waiting).await else { return Way::Search };
        // The search says what is wrong with a key.
        let points = keys.iter().map(|key| target.prepared.key_point(key)).collect::<Result<Vec<_>, _>>();
        let Ok(points) = points else { return Way::Search };
        if let Some((ready, keymap)) = self.open_ready(target, &serving, Patience::Waiting).await
            && let Some(answer) = self.by_ready(target, &points, &ready, keymap.as_ref()).await
        {
            self.derived.counts().ready_keys.add(keys.len() as u64);
            return Way::Answered(answer);
        }
        let Some(keymap) = self.open_keymap(target, &serving, Patience::Waiting).await else { return Way::Search };
        let mut rows = Vec::new();
        for point in points.iter().flatten() {
            match self.rows_of(&keymap, point, Patience::Waiting).await {
                Some(more) if rows.len() + more.len() <= self.limits.answer_rows => rows.extend(more),
                _ => return Way::Search,
            }
        }
        self.derived.counts().keymap_keys.add(keys.len() as u64);
        Way::Rows(rows)
    }

    /// What becomes of one key, if objects tell all of it and nothing of them has to be waited for. `found` is room
    /// that is used again.
    pub(super) fn key_at_once(&self, target: &FileTarget, key: &KeyPoint, found: &mut FoundReady) -> Option<HotRow> {
        // Without patience nothing in it waits.
        self.key_by_objects(target, key, found).now_or_never().flatten()
    }

    async fn key_by_objects(&self, target: &FileTarget, key: &KeyPoint, found: &mut FoundReady) -> Option<HotRow> {
        let serving = self.serving(target, Patience::AtOnce).await?;
        let counts = self.derived.counts();
        if let Some((ready, keymap)) = self.open_ready(target, &serving, Patience::AtOnce).await {
            found.clear();
            self.find(key, &ready, keymap.as_ref(), Patience::AtOnce, found).await?;
            let is_large = found.row_numbers.len() > self.limits.answer_rows;
            if is_large || found.rows.len() > self.limits.answer_bytes {
                return None;
            }
            let limit = target.prepared.row_limit().map_or(usize::MAX, |limit| limit as usize);
            let row = HotRow::of_first(&found.rows, &found.row_numbers, limit)?;
            counts.ready_keys.up();
            return Some(row);
        }
        let keymap = self.open_keymap(target, &serving, Patience::AtOnce).await?;
        let rows = self.rows_of(&keymap, key, Patience::AtOnce).await?;
        // Rows that there may be are compared with the key by a search.
        rows.is_empty().then(|| {
            counts.keymap_keys.up();
            HotRow::absent()
        })
    }

    /// Which objects answer a question; none where there is none, or where it cannot be told.
    async fn serving(&self, target: &FileTarget, patience: Patience) -> Option<Arc<Serving>> {
        // Before the objects are looked at: what comes meanwhile is seen the next time.
        let changes = self.derived.changes();
        let serving = match target.serving().filter(|serving| serving.changes == changes) {
            Some(serving) => serving,
            None => {
                let serving = Arc::new(self.found_serving(target, changes, patience).await?);
                target.set_serving(&serving);
                serving
            }
        };
        (serving.ready.is_some() || serving.keymap.is_some()).then_some(serving)
    }

    /// The same, found out; none where a head cannot be had, which may be another time.
    async fn found_serving(&self, target: &FileTarget, changes: u64, patience: Patience) -> Option<Serving> {
        let mut serving = Serving { changes, ready: None, keymap: None };
        let Some(objects) = self.derived.of(&target.version.key) else { return Some(serving) };
        for object in objects.iter() {
            match object.kind() {
                Kind::Keymap if serving.keymap.is_none() => {
                    let head = self.keymap_head(target, object, patience).await?;
                    if head.head.leaf() == target.prepared.key_leaf() {
                        serving.keymap = Some(Arc::clone(object));
                    }
                }
                Kind::Ready if serving.ready.is_none() => {
                    let head = self.ready_head(target, object, patience).await?;
                    if let Some(plan) = head.head.serves(&target.prepared) {
                        let is_scattered = head.head.selectivity() >= SCATTERED_BLOCKS;
                        serving.ready = Some(ServingReady { object: Arc::clone(object), plan, is_scattered });
                    }
                }
                Kind::Keymap | Kind::Ready => {}
            }
        }
        Some(serving)
    }

    /// The lookup-ready rows that answer a question, and the keymap that is asked before them.
    async fn open_ready<'o>(
        &self,
        target: &FileTarget,
        serving: &'o Serving,
        patience: Patience,
    ) -> Option<(Ready<'o>, Option<Opened<'o, Keymap>>)> {
        let ServingReady { object, plan, is_scattered } = serving.ready.as_ref()?;
        let head = self.ready_head(target, object, patience).await?;
        let keymap = match is_scattered {
            true => self.open_keymap(target, serving, patience).await,
            false => None,
        };
        Some(((Opened { object, head }, plan), keymap))
    }

    async fn open_keymap<'o>(
        &self,
        target: &FileTarget,
        serving: &'o Serving,
        patience: Patience,
    ) -> Option<Opened<'o, Keymap>> {
        let object = serving.keymap.as_ref()?;
        let head = self.keymap_head(target, object, patience).await?;
        Some(Opened { object, head })
    }

    async fn keymap_head(&self, target: &FileTarget, object: &Object, patience: Patience) -> Option<Arc<Head<Keymap>>> {
        if let Some(known) = self.derived.known_head(object) {
            return Some(known);
        }
        let index = Arc::clone(target.prepared.index());
        let read = move |bytes: Bytes| -> Result<_, FileError> {
            let head = Keymap::read(&bytes, &index)?;
            Ok(Head { weight: usize::try_from(head.weight()).unwrap_or(usize::MAX), head })
        };
        self.head(object, read, patience).await
    }

    async fn ready_head(
        &self,
        target: &FileTarget,
        object: &Object,
        patience: Patience,
    ) -> Option<Arc<Head<ReadyRows>>> {
        if let Some(known) = self.derived.known_head(object) {
            return Some(known);
        }
        let (index, limits) = (Arc::clone(target.prepared.index()), Arc::clone(&self.limits));
        let read = move |bytes: Bytes| -> Result<_, FileError> {
            let head = ReadyRows::read(bytes, &index, &limits)?;
            Ok(Head { weight: head.weight(), head })
        };
        self.head(object, read, patience).await
    }

    async fn head<H: Any + Send + Sync>(
        &self,
        object: &Object,
        read: impl FnOnce(Bytes) -> Result<Head<H>, FileError> + Clone + Send + 'static,
        patience: Patience,
    ) -> Option<Arc<Head<H>>> {
        match self.derived.head(object, read.clone()) {
            None if patience == Patience::Waiting => self.derived.head_waiting(object, read).await,
            head => head,
        }
    }

    /// The whole answer from lookup-ready rows; none where they cannot tell.
    async fn by_ready(
        &self,
        target: &FileTarget,
        points: &[Option<KeyPoint>],
        ready: &Ready<'_>,
        keymap: Option<&Opened<'_, Keymap>>,
    ) -> Option<FileAnswer> {
        let limit = target.prepared.row_limit().map_or(usize::MAX, |limit| limit as usize);
        let mut found = FoundReady::default();
        let mut statuses = vec![KeyStatus::NotFound; points.len()];
        // Per key with rows: the key, and which of the found rows the answer has.
        let mut taken: Vec<(u32, Range<usize>)> = Vec::new();
        for (key, point) in points.iter().enumerate() {
            let Some(point) = point else { continue };
            let before = found.row_numbers.len();
            self.find(point, ready, keymap, Patience::Waiting, &mut found).await?;
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
        (ready, plan): &Ready<'_>,
        keymap: Option<&Opened<'_, Keymap>>,
        patience: Patience,
        found: &mut FoundReady,
    ) -> Option<()> {
        let rows = &ready.head.head;
        match keymap {
            Some(keymap) => {
                let candidates = self.rows_of(keymap, point, patience).await?;
                if candidates.len() > MOST_ROWS {
                    return None;
                }
                for row in candidates {
                    let block = rows.block_of_row(row)?;
                    let bytes = self.block(ready.object, &block, patience).await?;
                    let compared = rows.find_at(plan, &block, &bytes, (row, point), found);
                    self.believed(ready.object, compared)?;
                }
            }
            None => {
                if rows.blocks(point).nth(MOST_BLOCKS).is_some() {
                    return None;
                }
                for block in rows.blocks(point) {
                    let bytes = self.block(ready.object, &block, patience).await?;
                    let compared = rows.find(plan, &block, &bytes, point, found);
                    self.believed(ready.object, compared)?;
                }
            }
        }
        Some(())
    }

    /// The rows that may hold a key, by their numbers in the file and ascending; none where the keymap cannot tell.
    async fn rows_of(&self, keymap: &Opened<'_, Keymap>, point: &KeyPoint, patience: Patience) -> Option<Vec<u64>> {
        let (mut rows, mut next) = (Vec::new(), keymap.head.head.place(point));
        loop {
            match next {
                Next::Done => return Some(rows),
                Next::Search => return None,
                Next::Read(read) => {
                    let bytes = self.part(keymap.object, read.part, read.range.clone(), patience).await?;
                    next = self.believed(keymap.object, keymap.head.head.rows(&read, &bytes, &mut rows))?;
                }
            }
        }
    }

    async fn block(&self, object: &Object, block: &BlockRef, patience: Patience) -> Option<Bytes> {
        let (part, range) = (block.part, block.range.clone());
        // A block has a checksum, which is compared when its rows are read.
        match self.derived.read_unverified(object, part, range.clone()) {
            None if patience == Patience::Waiting => self.derived.read_waiting(object, part, range).await,
            bytes => bytes,
        }
    }

    async fn part(&self, object: &Object, part: u32, range: Range<u64>, patience: Patience) -> Option<Bytes> {
        match self.derived.read(object, part, range.clone()) {
            None if patience == Patience::Waiting => self.derived.read_waiting(object, part, range).await,
            bytes => bytes,
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
