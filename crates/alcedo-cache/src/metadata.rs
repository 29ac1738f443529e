//! Layer 1: what a worker learned about files, on disk, so that a restart need not learn it again.
//!
//! Knows tables of records, by canonical URL. It must not know what a record says: that, its version and its age are
//! its reader's. Like every byte of this crate a record may vanish at any moment, so whatever fails in here is a miss
//! and a count and never an error to who asks: a database that cannot be opened or written is renamed aside and begun
//! anew, off the path of requests. Reading waits for the disk, so it happens on blocking threads, a few at a time;
//! writing is done by one thread behind a bounded queue, which drops what does not fit.

mod directory;
mod disk;
mod envelope;
mod keeper;
mod queue;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use self::disk::{Change, Disk};
use self::envelope::Opened;
use self::keeper::{Keeper, Pauses};
use self::queue::{Job, Queue};
use crate::cache_dir::CacheDir;
use crate::counts::Count;

/// Reads of the disk at once. A read takes some microseconds where the disk's bytes are in memory; if the disk hangs,
/// so many blocking threads hang with it and no more.
const MAX_READS: usize = 4;
/// A read that takes longer is a miss: by then the origin would have answered.
const READ_TIMEOUT: Duration = Duration::from_millis(500);
/// A record that is larger is not stored: it would fill a file of its table by itself.
const MAX_RECORD_BYTES: usize = 16 << 20;

/// The tables; each is a column family of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// A file's URL -> its current version, and when that was checked.
    Files,
    /// A file's URL -> the index of one version of it. One per file: an older version's is of no use to anybody.
    Indexes,
    /// A prefix's URL -> the files below it, and when they were listed.
    Listings,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 3] = [Self::Files, Self::Indexes, Self::Listings];

    /// The column family's name, which is part of the format on disk.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Indexes => "indexes",
            Self::Listings => "listings",
        }
    }
}

/// Why a metadata store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// Somebody has it open.
    #[error(
        "the metadata store {} is in use: another worker runs on this cache directory; give each its own",
        .path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The directory cannot be made or written to.
    #[error(
        "cannot use {} for the metadata store: {error}; make it a directory that this user may write to",
        .path.display()
    )]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// No thread for writing.
    #[error("the metadata store's thread cannot be started: {0}")]
    Thread(io::Error),
}

/// What a metadata store did since it was opened, and how it is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetadataCounts {
    /// Reads that found a record.
    pub hits: u64,
    /// Reads that found none, for whatever reason.
    pub misses: u64,
    /// Reads and writes that failed, records that were damaged, and reads that took too long.
    pub errors: u64,
    /// Records that were written.
    pub puts: u64,
    /// Records that were not, because the queue was full or nothing can be written now.
    pub dropped_puts: u64,
    /// How often the database was opened again after it had failed.
    pub resets: u64,
    /// How often a broken database was renamed aside and begun anew, at the start too.
    pub set_aside: u64,
    /// Whether records can be written, and are found, now.
    pub is_writing: bool,
    /// Bytes of the tables' files now.
    pub file_bytes: u64,
}

/// The metadata store. Dropping it writes what is queued and closes the database.
#[derive(Debug)]
pub struct Metadata {
    shared: Arc<Shared>,
    reads: Arc<Semaphore>,
    writer: Option<JoinHandle<()>>,
    /// Longest time of a read; only tests have another.
    read_timeout: Duration,
}

/// What readers and the writing thread share.
struct Shared {
    /// None while there is no database.
    disk: RwLock<Option<Disk>>,
    queue: Queue,
    is_writing: AtomicBool,
    /// Failed reads since the database was last opened.
    failed_reads: Count,
    hits: Count,
    misses: Count,
    errors: Count,
    puts: Count,
    dropped_puts: Count,
    resets: Count,
    set_aside: Count,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("is_writing", &self.is_writing).finish_non_exhaustive()
    }
}

impl Metadata {
    /// Opens the store of a cache directory. A database that cannot be opened is renamed aside, to
    /// `metadata.broken-<n>`, and the store begins empty; a disk that is full leaves the store without records until it
    /// is not. Waits for the disk.
    ///
    /// # Errors
    /// Another process has it open, or the directory cannot be used at all.
    pub fn open(dir: &CacheDir) -> Result<Self, MetadataError> {
        Self::open_with(&dir.metadata(), Some(dir.clone()), Pauses::default())
    }

    fn open_with(path: &Path, dir: Option<CacheDir>, pauses: Pauses) -> Result<Self, MetadataError> {
        let shared = Arc::new(Shared {
            disk: RwLock::new(None),
            queue: Queue::default(),
            is_writing: AtomicBool::new(false),
            failed_reads: Count::default(),
            hits: Count::default(),
            misses: Count::default(),
            errors: Count::default(),
            puts: Count::default(),
            dropped_puts: Count::default(),
            resets: Count::default(),
            set_aside: Count::default(),
        });
        let keeper = Keeper::open(path, dir, Arc::clone(&shared), pauses)?;
        let thread = thread::Builder::new().name("alcedo-metadata".to_owned());
        let writer = thread.spawn(move || keeper.run()).map_err(MetadataError::Thread)?;
        let reads = Arc::new(Semaphore::new(MAX_READS));
        Ok(Self { shared, reads, writer: Some(writer), read_timeout: READ_TIMEOUT })
    }

    /// The record of this name, read on a blocking thread. Whatever goes wrong is a miss.
    pub async fn load(&self, table: Table, url: &Arc<str>) -> Option<Bytes> {
        let read = async {
            let turn = Arc::clone(&self.reads).acquire_owned().await.ok()?;
            let (shared, url) = (Arc::clone(&self.shared), Arc::clone(url));
            let read = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                shared.get(table, &url)
            });
            read.await.ok().flatten()
        };
        tokio::time::timeout(self.read_timeout, read).await.unwrap_or_else(|_| {
            self.shared.errors.add(1);
            self.shared.misses.add(1);
            None
        })
    }

    /// The record of this name. Waits for the disk: not for threads that serve others.
    pub fn get(&self, table: Table, url: &str) -> Option<Bytes> {
        self.shared.get(table, url)
    }

    /// Stores a record in the place of whatever has its name. `encode` makes its bytes, on the writing thread; until
    /// then `held_bytes` is what it keeps in memory. A store that cannot keep up drops it.
    pub fn put(&self, table: Table, url: Arc<str>, held_bytes: u64, encode: impl FnOnce() -> Vec<u8> + Send + 'static) {
        let job = Job::Put { table, url, held_bytes, encode: Box::new(encode) };
        if !self.is_writing() || !self.shared.queue.push(job) {
            self.shared.dropped_puts.add(1);
        }
    }

    /// Removes a record, after everything that was stored before; from now on it is not found any more.
    pub fn remove(&self, table: Table, url: Arc<str>) {
        if !self.shared.queue.push(Job::Remove { table, url }) {
            self.shared.dropped_puts.add(1);
        }
    }

    /// Removes a record whose reader could not read it, and counts that.
    pub fn reject(&self, table: Table, url: Arc<str>) {
        self.shared.errors.add(1);
        self.remove(table, url);
    }

    /// Waits until everything that was stored before is written, or dropped.
    pub fn settle(&self) {
        self.shared.queue.settle();
    }

    /// What it did so far.
    pub fn counts(&self) -> MetadataCounts {
        let shared = &self.shared;
        MetadataCounts {
            hits: shared.hits.get(),
            misses: shared.misses.get(),
            errors: shared.errors.get(),
            puts: shared.puts.get(),
            dropped_puts: shared.dropped_puts.get(),
            resets: shared.resets.get(),
            set_aside: shared.set_aside.get(),
            is_writing: self.is_writing(),
            file_bytes: shared.with_disk(Disk::file_bytes).unwrap_or(0),
        }
    }

    fn is_writing(&self) -> bool {
        self.shared.is_writing.load(Ordering::Relaxed)
    }
}

impl Drop for Metadata {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(writer) = self.writer.take() {
            // It does not panic; if it did, the database is closed all the same.
            let _ = writer.join();
        }
    }
}

impl Shared {
    /// Asks the database, unless there is none, or it is being replaced.
    fn with_disk<T>(&self, ask: impl FnOnce(&Disk) -> T) -> Option<T> {
        let disk = match self.disk.try_read() {
            Ok(disk) => disk,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        disk.as_ref().map(ask)
    }

    /// Closes the database and puts another, or none, in its place. Waits for those who read it.
    fn replace_disk(&self, disk: Option<Disk>) {
        let mut place = self.disk.write().unwrap_or_else(PoisonError::into_inner);
        *place = disk;
    }

    fn get(&self, table: Table, url: &str) -> Option<Bytes> {
        // Where removals cannot be written, what is there may be what should be gone.
        let is_open = self.is_writing.load(Ordering::Relaxed);
        let read = || if is_open { self.with_disk(|disk| disk.get(table, &envelope::key(url))) } else { None };
        let read = self.queue.unless_removing(table, url, read);
        let found = match read {
            None | Some(Ok(None)) => None,
            Some(Ok(Some(bytes))) => match envelope::open(url, &bytes) {
                Opened::Found(record) => {
                    let start = bytes.len() - record.len();
                    Some(Bytes::from(bytes).slice(start..))
                }
                Opened::Other | Opened::Unknown => None,
                Opened::Damaged => {
                    self.errors.add(1);
                    None
                }
            },
            Some(Err(_)) => {
                self.errors.add(1);
                self.failed_reads.add(1);
                None
            }
        };
        if found.is_some() {
            self.hits.add(1)
        } else {
            self.misses.add(1)
        }
        found
    }

    /// The change that a job asks for; none if its record is too large.
    fn change(job: Job) -> Option<Change> {
        match job {
            Job::Remove { table, url } => Some(Change::Remove(table, envelope::key(&url))),
            Job::Put { table, url, encode, .. } => {
                let record = encode();
                let sealed = (record.len() <= MAX_RECORD_BYTES).then(|| envelope::seal(&url, &record)).flatten();
                sealed.map(|sealed| Change::Put(table, envelope::key(&url), sealed))
            }
        }
    }
}

#[cfg(test)]
mod tests;
