//! Layer 1: the log of segments.
//!
//! Knows which segment files there are, which one is written, and how much disk they take: never more than the quota,
//! and never the last free bytes of the file system. It must not know who reads. Which segment goes first is a matter
//! of the store: the oldest whatever is in it, or those in which everything was forgotten. It belongs to one thread.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::cache_dir::{CacheDir, OpenError};
use crate::disk_io::DiskIo;
use crate::extent::MAX_EXTENT_BYTES;
use crate::file_key::FileKey;
use crate::places::Places;
use crate::segment::{Found, OpenSegment, Opened, Segment, Spot};
use crate::store_name::StoreName;
use crate::table::Group;
use crate::tally::Tally;

/// Size of a segment file: one reclaim frees so much at once, and a file system lays it out in few pieces.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Fewest segments of a quota, so that reclaiming one loses an eighth at most ...
const FEWEST_SEGMENTS: u64 = 8;
/// ... as long as a segment still has this size, which holds extents of a useful length.
const MIN_SEGMENT_BYTES: u64 = 1 << 20;
/// Most segments of a quota: each is an open file, and the usual limit of a process is 1,024.
const MOST_SEGMENTS: u64 = 512;
/// Largest segment: positions in it are 32 bits wide.
const MAX_SEGMENT_BYTES: u64 = 2 << 30;
/// An extent is at most this part of a segment, so that little of the end of a segment stays empty.
const EXTENTS_PER_SEGMENT: u64 = 8;
/// Free bytes of the file system that are left to others: the smaller of this ...
const RESERVE_BYTES: u64 = 2 << 30;
/// ... and this part of it, one in twenty.
const RESERVE_PART: u64 = 20;
/// Segments of another format version are left alone for so long, so that a rollback finds them.
const OTHER_FORMAT_KEPT: Duration = Duration::from_secs(24 * 3_600);
/// Suffix of segment files.
const SUFFIX: &str = ".segment";

/// Why an extent was not written.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// The quota has no room for one segment, or the disk is full and nothing of ours is left to drop.
    NoRoom,
    /// The disk's.
    Disk(io::Error),
}

/// A segment file of another format version.
#[derive(Debug)]
struct OtherFormat {
    path: PathBuf,
    file_bytes: u64,
    written: SystemTime,
}

/// The segments, oldest first.
pub(crate) struct SegmentLog {
    dir: CacheDir,
    name: StoreName,
    io: DiskIo,
    places: Arc<Places>,
    tally: Arc<Tally>,
    capacity_bytes: u64,
    next_id: u64,
    sealed: VecDeque<Arc<Segment>>,
    open: Option<OpenSegment>,
    others: VecDeque<OtherFormat>,
}

/// Size of the segments of a quota; none if there is no room for one.
pub(crate) fn segment_bytes(capacity_bytes: u64) -> Option<u32> {
    let bytes = (capacity_bytes / FEWEST_SEGMENTS).clamp(MIN_SEGMENT_BYTES, SEGMENT_BYTES);
    let bytes = bytes.max(capacity_bytes.div_ceil(MOST_SEGMENTS)).min(MAX_SEGMENT_BYTES);
    // At most 2 GiB, which fits.
    (bytes <= capacity_bytes).then_some(bytes as u32)
}

/// Longest extent of a quota.
pub(crate) fn longest_extent(capacity_bytes: u64) -> u32 {
    let part = segment_bytes(capacity_bytes).map_or(0, |bytes| u64::from(bytes) / EXTENTS_PER_SEGMENT);
    part.min(u64::from(MAX_EXTENT_BYTES)) as u32
}

impl SegmentLog {
    /// The log of a directory, with every segment that is there; what is in them goes into `places`.
    ///
    /// # Errors
    /// The directory cannot be read, or there are more segments than files can be opened.
    pub(crate) fn open(
        (dir, name): (&CacheDir, StoreName),
        io: &DiskIo,
        capacity_bytes: u64,
        places: &Arc<Places>,
        tally: &Arc<Tally>,
    ) -> Result<Self, OpenError> {
        let not_usable = |source| OpenError::NotUsable { dir: dir.path().to_owned(), source };
        let files = listed(&dir.segments(name)).map_err(not_usable)?;
        let (dir, io, places, tally) = (dir.clone(), io.clone(), Arc::clone(places), Arc::clone(tally));
        let next_id = files.last().map_or(0, |(id, _)| id.saturating_add(1));
        let (sealed, others) = (VecDeque::new(), VecDeque::new());
        let mut log = Self { dir, name, io, places, tally, capacity_bytes, next_id, sealed, open: None, others };
        crate::restart::restore(&mut log, &files)?;
        // A quota that was made smaller holds, also where nothing is dropped otherwise.
        while log.file_bytes() > capacity_bytes && (log.reclaim_one() || log.reclaim_oldest()) {}
        log.publish();
        Ok(log)
    }

    /// The way to the disk.
    pub(crate) fn io(&self) -> &DiskIo {
        &self.io
    }

    /// The index.
    pub(crate) fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// The counts.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The directory.
    pub(crate) fn dir(&self) -> &CacheDir {
        &self.dir
    }

    /// Which of the directory's stores this is.
    pub(crate) fn name(&self) -> StoreName {
        self.name
    }

    /// Where the segments are.
    pub(crate) fn segments_dir(&self) -> PathBuf {
        self.dir.segments(self.name)
    }

    /// Takes in one segment file as it was found; newer ones come later. `is_last` tells the newest file, which is gone
    /// on with when it was not sealed. Returns what is to go into the index.
    pub(crate) fn take(&mut self, opened: Opened, path: &Path, is_last: bool) -> Option<(Arc<Segment>, Vec<Group>)> {
        match opened {
            Opened::Found(found) => {
                self.tally.corrupt.add(u64::from(found.is_damaged));
                self.tally.restored.add(found.groups.iter().map(|group| group.entries.len() as u64).sum());
                self.open = found.open_at.filter(|_| is_last).and_then(|at| self.go_on(&found, at));
                if self.open.is_none() {
                    self.sealed.push_back(Arc::clone(&found.segment));
                }
                Some((found.segment, found.groups))
            }
            Opened::OtherFormat => {
                let metadata = fs::metadata(path);
                let file_bytes = metadata.as_ref().map_or(0, fs::Metadata::len);
                let written = metadata.and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
                self.others.push_back(OtherFormat { path: path.to_owned(), file_bytes, written });
                None
            }
            Opened::Foreign => {
                self.tally.corrupt.add(1);
                remove(path);
                None
            }
        }
    }

    fn go_on(&self, found: &Found, at: u32) -> Option<OpenSegment> {
        let capacity = segment_bytes(self.capacity_bytes)?;
        let grown = self.file_bytes() + u64::from(capacity).max(found.segment.file_bytes());
        let fits = found.segment.file_bytes() <= u64::from(capacity) && grown <= self.capacity_bytes;
        fits.then(|| OpenSegment::go_on(found, at, capacity).ok()).flatten()
    }

    /// Writes one extent, and makes room for it first where that is needed.
    ///
    /// # Errors
    /// There is no room, or the disk failed.
    pub(crate) fn append(
        &mut self,
        (file, file_size): (&FileKey, u64),
        offset: u64,
        data: &[u8],
    ) -> Result<(Arc<Segment>, Spot), AppendError> {
        let data_bytes = data.len() as u32;
        if self.open.as_ref().is_some_and(|open| !open.has_room(file, data_bytes)) {
            self.seal();
        }
        if self.open.is_none() {
            self.begin()?;
        }
        let Some(open) = self.open.as_mut().filter(|open| open.has_room(file, data_bytes)) else {
            return Err(AppendError::NoRoom);
        };
        match open.append(file, file_size, offset, data) {
            Ok(spot) => Ok((Arc::clone(open.segment()), spot)),
            Err(error) => {
                let is_full = is_full(&error);
                self.set_aside();
                if is_full {
                    self.reclaim_one();
                }
                Err(AppendError::Disk(error))
            }
        }
    }

    /// Closes the segment that is written, with its table.
    fn seal(&mut self) {
        let Some(open) = self.open.take() else { return };
        let segment = Arc::clone(open.segment());
        // Without its table it is read all the same, and a restart goes by the headers.
        self.tally.write_errors.add(u64::from(open.seal().is_err()));
        self.sealed.push_back(segment);
        self.publish();
    }

    /// Closes the segment that is written without touching it: the disk failed there.
    fn set_aside(&mut self) {
        if let Some(open) = self.open.take() {
            self.sealed.push_back(Arc::clone(open.segment()));
        }
    }

    /// Begins a segment.
    fn begin(&mut self) -> Result<(), AppendError> {
        let bytes = segment_bytes(self.capacity_bytes).ok_or(AppendError::NoRoom)?;
        self.drop_vanished();
        self.reclaim_others();
        self.reclaim_to(self.capacity_bytes - u64::from(bytes));
        let is_within = self.file_bytes() <= self.capacity_bytes - u64::from(bytes);
        let is_made = if is_within { self.make_free(u64::from(bytes)) } else { Err(AppendError::NoRoom) };
        self.publish();
        is_made?;
        self.repair();
        let (id, path) = (self.next_id, self.segments_dir().join(file_name(self.next_id)));
        self.next_id += 1;
        let made = match OpenSegment::create(&self.io, path.clone(), id, bytes) {
            // Somebody emptied the directory.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.dir.repair().and_then(|()| OpenSegment::create(&self.io, path, id, bytes))
            }
            made => made,
        };
        match made {
            Ok(open) => self.open = Some(open),
            Err(error) if is_full(&error) => {
                self.reclaim_one();
                return Err(AppendError::Disk(error));
            }
            Err(error) => return Err(AppendError::Disk(error)),
        }
        self.publish();
        Ok(())
    }

    /// Drops old segments until the file system has room for so many bytes and the reserve.
    fn make_free(&mut self, bytes: u64) -> Result<(), AppendError> {
        loop {
            let room = match self.io.room(&self.segments_dir()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.dir.repair().and_then(|()| self.io.room(&self.segments_dir()))
                }
                room => room,
            };
            let room = room.map_err(AppendError::Disk)?;
            if room.free >= bytes + RESERVE_BYTES.min(room.total / RESERVE_PART) {
                return Ok(());
            }
            if !self.reclaim_one() {
                return Err(AppendError::NoRoom);
            }
        }
    }

    /// Drops segments until so many bytes are taken at most, as far as the store drops any.
    fn reclaim_to(&mut self, bytes: u64) {
        while self.file_bytes() > bytes && self.reclaim_one() {}
    }

    /// Drops the segment that the store can do without best. Segments of another format go when nothing else is left,
    /// or when they take more than half of the quota. Returns whether there was one.
    fn reclaim_one(&mut self) -> bool {
        let other_bytes: u64 = self.others.iter().map(|other| other.file_bytes).sum();
        let is_last_resort = self.sealed.is_empty() && self.open.is_none();
        if (is_last_resort || other_bytes > self.capacity_bytes / 2)
            && let Some(other) = self.others.pop_front()
        {
            remove(&other.path);
            return true;
        }
        let is_open_empty = self.open.as_ref().is_some_and(|open| open.segment().live_bytes() == 0);
        if self.sealed.is_empty() && (self.name.evicts() || is_open_empty) {
            self.set_aside();
        }
        let empty = || self.sealed.iter().position(|segment| segment.live_bytes() == 0);
        let place = match self.name {
            StoreName::Pages => Some(0),
            StoreName::Derived => empty().or(Some(0)),
            StoreName::Pinned => empty(),
        };
        let Some(segment) = place.and_then(|place| self.sealed.remove(place)) else { return false };
        self.drop_segments(&[segment]);
        true
    }

    /// Drops the oldest segment, whatever is in it. Returns whether there was one.
    fn reclaim_oldest(&mut self) -> bool {
        if self.sealed.is_empty() {
            self.set_aside();
        }
        let oldest = self.sealed.pop_front();
        self.drop_segments(oldest.as_slice());
        oldest.is_some()
    }

    fn drop_segments(&mut self, segments: &[Arc<Segment>]) {
        segments.iter().for_each(|segment| remove(segment.path()));
        self.tally.evictions.add(self.places.drop_segments(segments));
        self.publish();
    }

    /// Drops the segments whose files somebody removed: they take room as long as they are open.
    pub(crate) fn drop_vanished(&mut self) {
        if self.open.as_ref().is_some_and(|open| !open.segment().has_name()) {
            self.set_aside();
        }
        let gone: Vec<_> = self.sealed.iter().filter(|segment| !segment.has_name()).map(Arc::clone).collect();
        if !gone.is_empty() {
            self.sealed.retain(|segment| !gone.iter().any(|gone| Arc::ptr_eq(gone, segment)));
            self.drop_segments(&gone);
        }
    }

    /// Makes again what somebody removed of the directory: the marker above all, without which the next start would
    /// take what is written here for somebody else's.
    pub(crate) fn repair(&self) {
        // Where it cannot be made, a segment cannot either, and that is told.
        let _ = self.dir.repair();
    }

    /// Removes segments of another format that nobody came back for.
    pub(crate) fn reclaim_others(&mut self) {
        let now = SystemTime::now();
        // A clock that went backwards says that the file is from the future: it is kept until the clock is there.
        let is_old = |other: &OtherFormat| now.duration_since(other.written).is_ok_and(|age| age >= OTHER_FORMAT_KEPT);
        while self.others.front().is_some_and(is_old) {
            self.others.pop_front().iter().for_each(|other| remove(&other.path));
        }
    }

    /// Bytes that all files have reserved.
    fn file_bytes(&self) -> u64 {
        let open = self.open.iter().map(OpenSegment::segment);
        let ours: u64 = self.sealed.iter().chain(open).map(|segment| segment.file_bytes()).sum();
        ours + self.others.iter().map(|other| other.file_bytes).sum::<u64>()
    }

    fn publish(&self) {
        let segments = self.sealed.len() + self.others.len() + usize::from(self.open.is_some());
        self.tally.segments.set(segments as u64);
        self.tally.file_bytes.set(self.file_bytes());
    }
}

/// Whether an error says that the disk, the user's quota on it, or the longest file is full.
fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

fn remove(path: &Path) {
    // It may be gone already. A file that stays is found by the next start, and counted then.
    let _ = fs::remove_file(path);
}

/// The name of a segment's file.
pub(crate) fn file_name(id: u64) -> String {
    format!("{id:016x}{SUFFIX}")
}

/// All segment files of the directory with their ids, oldest first; other files are nobody's business here.
fn listed(pages: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(pages)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let id = name.strip_suffix(SUFFIX).and_then(|id| u64::from_str_radix(id, 16).ok());
        if let Some(id) = id.filter(|id| file_name(*id) == name) {
            files.push((id, path));
        }
    }
    files.sort_unstable();
    Ok(files)
}
