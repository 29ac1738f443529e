//! Layer 1: pages on disk.
//!
//! Knows how a read goes from the index to bytes that were verified, and how a write goes into the index and the queue
//! of the writer. It must not know how segments are laid out. Nothing that a disk does is an error here: what cannot be
//! read is a miss and a count, what cannot be written is dropped and a count.

use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::cache_dir::{CacheDir, OpenError};
use crate::counts::PageStoreCounts;
use crate::disk_io::DiskIo;
use crate::extent::is_writable;
use crate::file_key::FileKey;
use crate::health::Health;
use crate::places::{DiskPart, Places};
use crate::reading_threads::{MOST_THREADS, ReadingThreads};
use crate::segment::ReadFault;
use crate::segment_log::{SegmentLog, longest_extent};
use crate::store_name::StoreName;
use crate::stretch::{Held, Stretch, joined, recordable};
use crate::tally::Tally;
use crate::write_queue::{Job, WriteQueue};
use crate::writer;

/// Reads that wait for the disk at once: as many as disks like to have queued, each with a thread of its own.
const MOST_WAITING_READS: usize = MOST_THREADS;
/// Longest wait for the disk: an origin answers in about this time, and is asked then.
const READ_TIMEOUT: Duration = Duration::from_millis(100);
/// Longest time that the last bytes get to reach the disk when the store is dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What readers, the writer of the queue and the writing thread share.
pub(crate) struct Shared {
    pub(crate) places: Arc<Places>,
    pub(crate) queue: WriteQueue,
    pub(crate) health: Health,
    pub(crate) tally: Arc<Tally>,
}

/// A page store on disk. Dropping it writes what still waits.
pub(crate) struct DiskPages {
    shared: Arc<Shared>,
    waiting: Arc<Semaphore>,
    readers: ReadingThreads,
    capacity_bytes: u64,
    longest_extent: u32,
    /// Longest wait for the disk; only tests have another.
    read_timeout: Duration,
}

impl DiskPages {
    /// Opens one of the stores in this directory with all that is in it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(crate) fn open(dir: (&CacheDir, StoreName), io: &DiskIo, capacity_bytes: u64) -> Result<Self, OpenError> {
        let (places, tally) = (Arc::new(Places::new()), Arc::new(Tally::default()));
        let log = SegmentLog::open(dir, io, capacity_bytes, &places, &tally)?;
        let (queue, health) = (WriteQueue::default(), Health::default());
        let shared = Arc::new(Shared { places, queue, health, tally });
        let of_writer = Arc::clone(&shared);
        let thread = thread::Builder::new().name("page-writer".into());
        thread.spawn(move || writer::run(&of_writer, log)).map_err(|source| OpenError::Thread { source })?;
        let waiting = Arc::new(Semaphore::new(MOST_WAITING_READS));
        let readers = ReadingThreads::default();
        let (longest_extent, read_timeout) = (longest_extent(capacity_bytes), READ_TIMEOUT);
        Ok(Self { shared, waiting, readers, capacity_bytes, longest_extent, read_timeout })
    }

    /// The bytes of a range, if all of them are here and none of them has to be waited for.
    pub(crate) fn read(&self, file: &FileKey, range: Range<u64>) -> Option<Bytes> {
        self.read_by(file, range, |part| part.segment.read(part.spot, part.inside.clone(), false))
    }

    /// The same without a look at whether they are what was written.
    pub(crate) fn read_unverified(&self, file: &FileKey, range: Range<u64>) -> Option<Bytes> {
        self.read_by(file, range, |part| part.segment.read_unverified(part.spot, part.inside.clone()))
    }

    fn read_by(
        &self,
        file: &FileKey,
        range: Range<u64>,
        read: impl Fn(&DiskPart) -> Result<Bytes, ReadFault>,
    ) -> Option<Bytes> {
        if range.start >= range.end {
            return Some(Bytes::new());
        }
        if self.shared.health.is_down() {
            return None;
        }
        let parts = self.shared.places.whole(file, range)?;
        let slices = parts.into_iter().map(|part| match part {
            Held::Bytes(bytes) => Some(bytes),
            Held::Disk(part) => match read(&part) {
                Ok(bytes) => Some(bytes),
                Err(fault) => {
                    self.draw(file, &part, &fault);
                    None
                }
            },
        });
        let slices = slices.collect::<Option<Vec<_>>>()?;
        self.shared.tally.hits.add(1);
        Some(joined(&slices))
    }

    /// The bytes of a range, if all of them are here.
    pub(crate) async fn read_waiting(&self, file: &FileKey, range: Range<u64>) -> Option<Bytes> {
        if range.start >= range.end {
            return Some(Bytes::new());
        }
        if self.shared.health.is_down() {
            return None;
        }
        let mut slices = Vec::new();
        for held in self.shared.places.whole(file, range)? {
            slices.push(match held {
                Held::Bytes(bytes) => bytes,
                Held::Disk(part) => self.fetch(file, part).await?,
            });
        }
        Some(joined(&slices))
    }

    /// Reads a part that a survey found, and waits for the disk if need be, but not long. `None` is a miss: the part
    /// was not what it should be, and is in the index no more, or the disk is too slow.
    pub(crate) async fn fetch(&self, file: &FileKey, part: DiskPart) -> Option<Bytes> {
        let fault = match part.segment.read(part.spot, part.inside.clone(), false) {
            Ok(bytes) => return Some(bytes),
            Err(ReadFault::WouldWait) => None,
            Err(fault) => Some(fault),
        };
        if let Some(fault) = fault {
            self.draw(file, &part, &fault);
            return None;
        }
        let (waiting, of_thread) = (Arc::clone(&self.waiting), part.clone());
        let read = async move {
            let permit = waiting.acquire_owned().await.ok()?;
            let read = move || {
                // It goes back when the disk answers, not when somebody stops waiting for it.
                let _permit = permit;
                of_thread.segment.read(of_thread.spot, of_thread.inside, true)
            };
            self.readers.run(read).await.ok()
        };
        match tokio::time::timeout(self.read_timeout, read).await {
            Ok(Some(Ok(bytes))) => Some(bytes),
            Ok(Some(Err(fault))) => {
                self.draw(file, &part, &fault);
                None
            }
            Ok(None) => None,
            Err(_) => {
                self.shared.tally.slow_reads.add(1);
                None
            }
        }
    }

    /// Draws the consequences of bytes that could not be had.
    fn draw(&self, file: &FileKey, part: &DiskPart, fault: &ReadFault) {
        let Shared { places, health, tally, .. } = self.shared.as_ref();
        match fault {
            ReadFault::WouldWait => {}
            ReadFault::Corrupt => {
                places.drop_extent(file, part);
                tally.corrupt.add(1);
            }
            ReadFault::Disk => {
                places.drop_extent(file, part);
                tally.corrupt.add(1);
                tally.read_errors.add(1);
                health.failed();
            }
        }
    }

    /// A range in stretches, by the index alone.
    pub(crate) fn survey(&self, file: &FileKey, file_size: u64, range: &Range<u64>) -> Vec<Stretch> {
        if self.shared.health.is_down() {
            let range = range.start..range.end.min(file_size);
            return if range.is_empty() { Vec::new() } else { vec![Stretch::Missing(range)] };
        }
        self.shared.places.survey(file, file_size, range)
    }

    /// Counts a range of which something has to be fetched.
    pub(crate) fn missed(&self) {
        self.shared.tally.misses.add(1);
    }

    /// Puts bytes in, readable at once, and hands them to the writer; what finds no room is dropped.
    pub(crate) fn write(&self, file: &FileKey, file_size: u64, offset: u64, bytes: &Bytes) {
        let Some(whole) = recordable(file_size, offset, bytes.len() as u64) else { return };
        let Shared { places, queue, health, tally } = self.shared.as_ref();
        if self.longest_extent == 0 || !is_writable(file) {
            return;
        }
        if !health.admits() {
            return tally.dropped_writes.add(1);
        }
        // The range lies inside the bytes, whose length fits in memory.
        let inside = bytes.slice((whole.start - offset) as usize..(whole.end - offset) as usize);
        let reserve = |length| {
            let has_room = queue.reserve(length);
            tally.dropped_writes.add(u64::from(!has_room));
            has_room
        };
        let admitted = places.admit((file, file_size), (whole.start, &inside), self.longest_extent, reserve);
        if !admitted.is_empty() {
            queue.push(admitted.into_iter().map(Job::Append));
        }
    }

    /// Drops all extents of the file and returns their bytes.
    pub(crate) fn forget(&self, file: &FileKey) -> u64 {
        let Shared { places, queue, tally, .. } = self.shared.as_ref();
        let Some((file_size, freed)) = places.forget(file) else { return 0 };
        if queue.reserve(0) {
            queue.push(std::iter::once(Job::Forget(file.clone(), file_size)));
        } else {
            tally.dropped_writes.add(1);
        }
        freed
    }

    /// Drops all extents of all versions of a file and returns their bytes.
    pub(crate) fn forget_url(&self, url: &str) -> u64 {
        self.shared.places.versions(url).iter().map(|file| self.forget(file)).sum()
    }

    /// Bytes of a file that are here.
    pub(crate) fn held_bytes(&self, file: &FileKey) -> u64 {
        self.shared.places.held_bytes(file)
    }

    /// All files that something is here of, each with its size and the bytes that are here.
    pub(crate) fn files(&self) -> Vec<(FileKey, u64, u64)> {
        self.shared.places.files()
    }

    /// Bytes of data that are here.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.places.disk_bytes() + self.shared.places.pending_bytes()
    }

    /// The quota of the segment files.
    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// All counts.
    pub(crate) fn counts(&self) -> PageStoreCounts {
        let Shared { places, health, tally, .. } = self.shared.as_ref();
        PageStoreCounts {
            hits: tally.hits.get(),
            misses: tally.misses.get(),
            corrupt: tally.corrupt.get(),
            dropped_writes: tally.dropped_writes.get(),
            write_errors: tally.write_errors.get(),
            read_errors: tally.read_errors.get(),
            slow_reads: tally.slow_reads.get(),
            evictions: tally.evictions.get(),
            restored_extents: tally.restored.get(),
            extents: places.extents(),
            segments: tally.segments.get(),
            file_bytes: tally.file_bytes.get(),
            pending_bytes: places.pending_bytes(),
            down: health.is_down(),
        }
    }

    /// Waits until nothing waits to be written. Returns whether that happened in time.
    pub(crate) fn settle(&self, at_most: Duration) -> bool {
        self.shared.queue.wait_empty(at_most)
    }
}

impl Drop for DiskPages {
    fn drop(&mut self) {
        self.shared.queue.close();
        // A disk that hangs does not keep the process; what it holds is a cache.
        self.shared.queue.wait_ended(CLOSE_TIMEOUT);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#[allow(clippy::disallowed_methods, clippy::single_range_in_vec_init)]
mod tests;
