//! Layer 1: which extents of which files are where.
//!
//! Knows ranges of files that never overlap, and for each whether it is in a segment or on its way there. It must not
//! know what is in a segment file, nor read one. It is all in memory: 80 bytes or so per extent, checksums of a 64 KiB
//! page included, and is made anew from the segments at every start.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::counts::Count;
use crate::extent::MAX_EXTENT_BYTES;
use crate::file_key::FileKey;
use crate::segment::{Segment, Spot};
use crate::stretch::{Held, Stretch};
use crate::table::Group;

/// Parts of the map, each with a lock of its own: far more than cores, so that threads rarely meet, and so that a walk
/// over all of them holds each for a moment only.
const SHARDS: usize = 256;

/// The index of all extents.
pub(crate) struct Places {
    shards: Box<[Mutex<Shard>]>,
    /// Bytes of data in segments.
    disk_bytes: Count,
    /// Bytes of data that wait to be written.
    pending_bytes: Count,
    extents: Count,
}

type Shard = HashMap<FileKey, FilePlaces>;

struct FilePlaces {
    file_size: u64,
    /// Extents by where they start; they never overlap.
    pieces: BTreeMap<u64, Piece>,
}

#[derive(Clone)]
struct Piece {
    data_bytes: u32,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Disk { segment: Arc<Segment>, data_at: u32, first_check: u32 },
    Pending(Arc<Bytes>),
}

/// Part of an extent in a segment, which can be read also after its extent was dropped.
#[derive(Debug, Clone)]
pub(crate) struct DiskPart {
    pub(crate) segment: Arc<Segment>,
    pub(crate) spot: Spot,
    /// Where the extent starts in the file.
    pub(crate) offset: u64,
    /// Which of its bytes.
    pub(crate) inside: Range<u32>,
}

/// Bytes on their way to a segment.
#[derive(Debug, Clone)]
pub(crate) struct PendingExtent {
    pub(crate) file: FileKey,
    pub(crate) file_size: u64,
    pub(crate) offset: u64,
    pub(crate) bytes: Arc<Bytes>,
}

impl Piece {
    fn held(&self, offset: u64, inside: Range<u32>) -> Held {
        match &self.place {
            Place::Pending(bytes) => Held::Bytes(bytes.slice(inside.start as usize..inside.end as usize)),
            Place::Disk { segment, data_at, first_check } => {
                let (data_at, data_bytes, first_check) = (*data_at, self.data_bytes, *first_check);
                let spot = Spot { data_at, data_bytes, first_check };
                Held::Disk(DiskPart { segment: Arc::clone(segment), spot, offset, inside })
            }
        }
    }

    /// Where its segment counts what is in it.
    fn live(&self) -> Option<&Count> {
        match &self.place {
            Place::Disk { segment, .. } => Some(segment.live()),
            Place::Pending(_) => None,
        }
    }

    fn is_in(&self, other: &Arc<Segment>) -> bool {
        matches!(&self.place, Place::Disk { segment, .. } if Arc::ptr_eq(segment, other))
    }

    fn is_pending(&self, bytes: &Arc<Bytes>) -> bool {
        matches!(&self.place, Place::Pending(pending) if Arc::ptr_eq(pending, bytes))
    }
}

impl FilePlaces {
    /// The extents that share a byte with the range, in order, each with the part of it that is in the range.
    fn over(&self, range: Range<u64>) -> impl Iterator<Item = (u64, &Piece, Range<u32>)> {
        let first = range.start.saturating_sub(u64::from(MAX_EXTENT_BYTES));
        let near = self.pieces.range(first.min(range.end)..range.end);
        near.filter_map(move |(&offset, piece)| {
            let end = offset + u64::from(piece.data_bytes);
            let (from, to) = (range.start.max(offset), range.end.min(end));
            // Both are inside the extent, whose length is a u32.
            (from < to).then(|| (offset, piece, (from - offset) as u32..(to - offset) as u32))
        })
    }
}

impl Places {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, disk_bytes: Count::default(), pending_bytes: Count::default(), extents: Count::default() }
    }

    /// Bytes of data in segments.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.disk_bytes.get()
    }

    /// Bytes of data that wait to be written.
    pub(crate) fn pending_bytes(&self) -> u64 {
        self.pending_bytes.get()
    }

    /// Extents, those that wait included.
    pub(crate) fn extents(&self) -> u64 {
        self.extents.get()
    }

    /// The range in parts, if all of it is here.
    pub(crate) fn whole(&self, file: &FileKey, range: Range<u64>) -> Option<Vec<Held>> {
        let shard = self.shard(file);
        let (mut parts, mut reached) = (Vec::new(), range.start);
        for (offset, piece, inside) in shard.get(file)?.over(range.clone()) {
            if offset + u64::from(inside.start) != reached {
                return None;
            }
            reached = offset + u64::from(inside.end);
            parts.push(piece.held(offset, inside));
        }
        (reached == range.end).then_some(parts)
    }

    /// The range, cut at the end of the file, in stretches.
    pub(crate) fn survey(&self, file: &FileKey, file_size: u64, range: &Range<u64>) -> Vec<Stretch> {
        let range = range.start..range.end.min(file_size);
        let (mut stretches, mut reached) = (Vec::new(), range.start);
        let shard = self.shard(file);
        if let Some(places) = shard.get(file).filter(|places| places.file_size == file_size) {
            for (offset, piece, inside) in places.over(range.clone()) {
                let start = offset + u64::from(inside.start);
                if reached < start {
                    stretches.push(Stretch::Missing(reached..start));
                }
                reached = offset + u64::from(inside.end);
                stretches.push(Stretch::Here(piece.held(offset, inside)));
            }
        }
        if reached < range.end {
            stretches.push(Stretch::Missing(reached..range.end));
        }
        stretches
    }

    /// Puts bytes in, readable at once, where there are none: `bytes` from `offset` on, on the grid of blocks.
    /// `reserve` says for each extent of them whether there is room; where not, it is left out. Returns what was put
    /// in.
    pub(crate) fn admit(
        &self,
        (file, file_size): (&FileKey, u64),
        (offset, bytes): (u64, &Bytes),
        longest: u32,
        mut reserve: impl FnMut(u32) -> bool,
    ) -> Vec<PendingExtent> {
        let mut shard = self.shard(file);
        let range = offset..offset + bytes.len() as u64;
        if shard.get(file).is_some_and(|places| places.file_size != file_size) {
            // A key with two sizes: one of them is wrong, and the newer one stands alone.
            if let Some(places) = shard.remove(file) {
                self.uncount_all(&places);
            }
        }
        let places = shard.get(file);
        let mut free: Vec<Range<u64>> = Vec::new();
        let mut reached = range.start;
        for (at, _, inside) in places.into_iter().flat_map(|places| places.over(range.clone())) {
            free.push(reached..at + u64::from(inside.start));
            reached = at + u64::from(inside.end);
        }
        free.push(reached..range.end);
        let mut admitted = Vec::new();
        for gap in free {
            let mut start = gap.start;
            while start < gap.end {
                let data_bytes = (gap.end - start).min(u64::from(longest)) as u32;
                if reserve(data_bytes) {
                    let from = (start - offset) as usize;
                    let bytes = Arc::new(bytes.slice(from..from + data_bytes as usize));
                    admitted.push(PendingExtent { file: file.clone(), file_size, offset: start, bytes });
                }
                start += u64::from(data_bytes);
            }
        }
        if !admitted.is_empty() {
            let fresh = || FilePlaces { file_size, pieces: BTreeMap::new() };
            let places = shard.entry(file.clone()).or_insert_with(fresh);
            for extent in &admitted {
                let place = Place::Pending(Arc::clone(&extent.bytes));
                self.put(places, extent.offset, Piece { data_bytes: extent.bytes.len() as u32, place });
            }
        }
        admitted
    }

    /// Whether the extent still waits: nobody has forgotten it.
    pub(crate) fn is_waiting(&self, extent: &PendingExtent) -> bool {
        let shard = self.shard(&extent.file);
        let piece = shard.get(&extent.file).and_then(|places| places.pieces.get(&extent.offset));
        piece.is_some_and(|piece| piece.is_pending(&extent.bytes))
    }

    /// Says where an extent that waited is now. One that was forgotten meanwhile stays so.
    pub(crate) fn settle(&self, extent: &PendingExtent, segment: &Arc<Segment>, spot: Spot) {
        let mut shard = self.shard(&extent.file);
        let piece = shard.get_mut(&extent.file).and_then(|places| places.pieces.get_mut(&extent.offset));
        let Some(piece) = piece.filter(|piece| piece.is_pending(&extent.bytes)) else { return };
        self.uncount(piece);
        let Spot { data_at, data_bytes, first_check } = spot;
        *piece = Piece { data_bytes, place: Place::Disk { segment: Arc::clone(segment), data_at, first_check } };
        self.count(piece);
    }

    /// Drops an extent that waited and will not be written.
    pub(crate) fn abandon(&self, extent: &PendingExtent) {
        self.drop_where(&extent.file, extent.offset, |piece| piece.is_pending(&extent.bytes));
    }

    /// Drops the extent that a part belongs to, if it is still where the part was found.
    pub(crate) fn drop_extent(&self, file: &FileKey, part: &DiskPart) -> bool {
        let is_there = |piece: &Piece| match &piece.place {
            Place::Disk { segment, data_at, .. } => {
                Arc::ptr_eq(segment, &part.segment) && *data_at == part.spot.data_at
            }
            Place::Pending(_) => false,
        };
        self.drop_where(file, part.offset, is_there)
    }

    /// Drops all extents of these segments, and returns how many there were. It walks over everything.
    pub(crate) fn drop_segments(&self, segments: &[Arc<Segment>]) -> u64 {
        let mut dropped = 0;
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.retain(|_, places| {
                places.pieces.retain(|_, piece| {
                    let goes = segments.iter().any(|segment| piece.is_in(segment));
                    if goes {
                        dropped += 1;
                        self.uncount(piece);
                    }
                    !goes
                });
                !places.pieces.is_empty()
            });
        }
        dropped
    }

    /// Drops all extents of a file. Returns the file's size and the bytes dropped, if there were any.
    pub(crate) fn forget(&self, file: &FileKey) -> Option<(u64, u64)> {
        let places = self.shard(file).remove(file)?;
        self.uncount_all(&places);
        Some((places.file_size, places.pieces.values().map(|piece| u64::from(piece.data_bytes)).sum()))
    }

    /// Bytes of a file that are here.
    pub(crate) fn held_bytes(&self, file: &FileKey) -> u64 {
        let shard = self.shard(file);
        let pieces = shard.get(file).into_iter().flat_map(|places| places.pieces.values());
        pieces.map(|piece| u64::from(piece.data_bytes)).sum()
    }

    /// All files that something is here of, each with its size and the bytes that are here. It walks over everything.
    pub(crate) fn files(&self) -> Vec<(FileKey, u64, u64)> {
        let mut files = Vec::new();
        for shard in &self.shards {
            files.extend(lock(shard).iter().map(|(file, places)| {
                let held_bytes = places.pieces.values().map(|piece| u64::from(piece.data_bytes)).sum();
                (file.clone(), places.file_size, held_bytes)
            }));
        }
        files
    }

    /// All content versions of a URL that something is here of. It walks over all files.
    pub(crate) fn versions(&self, url: &str) -> Vec<FileKey> {
        let mut versions = Vec::new();
        for shard in &self.shards {
            versions.extend(lock(shard).keys().filter(|file| file.url() == url).cloned());
        }
        versions
    }

    /// Which of so many restoring threads a file belongs to.
    pub(crate) fn lane(file: &FileKey, lanes: usize) -> usize {
        file.digest() as usize % SHARDS % lanes
    }

    /// Puts in what was found in a segment; newer segments come later. An older extent that overlaps a newer one goes:
    /// live, only what is missing is written, so the older one had been found broken.
    pub(crate) fn restore(&self, group: &Group, segment: &Arc<Segment>) {
        let Group { file, file_size, entries } = group;
        let mut shard = self.shard(file);
        let fresh = || FilePlaces { file_size: *file_size, pieces: BTreeMap::new() };
        if !shard.contains_key(file) {
            shard.insert(file.clone(), fresh());
        }
        let Some(places) = shard.get_mut(file) else { return };
        if places.file_size != *file_size {
            self.uncount_all(places);
            *places = fresh();
        }
        for entry in entries {
            if entry.data_bytes == 0 {
                self.uncount_all(places);
                places.pieces.clear();
                continue;
            }
            let range = entry.offset..entry.offset + u64::from(entry.data_bytes);
            let stale: Vec<u64> = places.over(range).map(|(offset, _, _)| offset).collect();
            for offset in stale {
                places.pieces.remove(&offset).iter().for_each(|piece| self.uncount(piece));
            }
            let (data_at, first_check) = (entry.data_at, entry.first_check);
            let place = Place::Disk { segment: Arc::clone(segment), data_at, first_check };
            self.put(places, entry.offset, Piece { data_bytes: entry.data_bytes, place });
        }
        if places.pieces.is_empty() {
            shard.remove(file);
        }
    }

    fn put(&self, places: &mut FilePlaces, offset: u64, piece: Piece) {
        self.count(&piece);
        places.pieces.insert(offset, piece);
    }

    fn drop_where(&self, file: &FileKey, offset: u64, goes: impl Fn(&Piece) -> bool) -> bool {
        let mut shard = self.shard(file);
        let Some(places) = shard.get_mut(file) else { return false };
        if !places.pieces.get(&offset).is_some_and(goes) {
            return false;
        }
        places.pieces.remove(&offset).iter().for_each(|piece| self.uncount(piece));
        if places.pieces.is_empty() {
            shard.remove(file);
        }
        true
    }

    fn bytes_of(&self, piece: &Piece) -> &Count {
        match piece.place {
            Place::Disk { .. } => &self.disk_bytes,
            Place::Pending(_) => &self.pending_bytes,
        }
    }

    fn count(&self, piece: &Piece) {
        self.extents.add(1);
        self.bytes_of(piece).add(u64::from(piece.data_bytes));
        piece.live().into_iter().for_each(|live| live.add(u64::from(piece.data_bytes)));
    }

    fn uncount(&self, piece: &Piece) {
        self.extents.sub(1);
        self.bytes_of(piece).sub(u64::from(piece.data_bytes));
        piece.live().into_iter().for_each(|live| live.sub(u64::from(piece.data_bytes)));
    }

    fn uncount_all(&self, places: &FilePlaces) {
        places.pieces.values().for_each(|piece| self.uncount(piece));
    }

    fn shard(&self, file: &FileKey) -> MutexGuard<'_, Shard> {
        // The index is below the number of shards.
        lock(&self.shards[file.digest() as usize % SHARDS])
    }
}

/// What a panic of another holder left behind is whole but for counts: nothing panics between the changes of one file.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
