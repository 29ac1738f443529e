//! The thread that writes, and that sees to it that there is a database to write to.
//!
//! Knows when a database is broken and what then happens: nothing is written and nothing is found, and some seconds
//! later the database is opened again, or set aside and begun anew where it cannot be opened. It must not know what
//! records are about. Nobody waits for any of this.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::directory::{self, Identity};
use super::disk::{self, Disk};
use super::queue::{Job, Next};
use super::{MetadataError, Shared};
use crate::cache_dir::CacheDir;

/// Failed reads after which a database is called broken. A damaged block holds some dozen records, each of which is
/// read in vain once and then written anew; more than that is a damaged file, through which every search goes.
const MAX_FAILED_READS: u64 = 64;

/// How patient the keeper is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pauses {
    /// Between two looks at the directory.
    pub(super) check: Duration,
    /// From a failure to the next try: a disk that is full or was taken away is not back at once.
    pub(super) reset: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { check: Duration::from_secs(2), reset: Duration::from_secs(5) }
    }
}

/// Why nothing is written now.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    since: Instant,
    /// The database itself is damaged: opening it again would not help.
    is_broken: bool,
}

/// See the module.
pub(super) struct Keeper {
    path: PathBuf,
    /// The cache directory that it is in, which may have been emptied too.
    dir: Option<CacheDir>,
    shared: Arc<Shared>,
    pauses: Pauses,
    identity: Option<Identity>,
    checked: Instant,
    /// Failed reads in all when the database was opened.
    failed_reads: u64,
    trouble: Option<Trouble>,
}

impl Keeper {
    /// Opens the database, or an empty one in its place.
    pub(super) fn open(
        path: &Path,
        dir: Option<CacheDir>,
        shared: Arc<Shared>,
        pauses: Pauses,
    ) -> Result<Self, MetadataError> {
        let (path, checked) = (path.to_owned(), Instant::now());
        let mut keeper = Self { path, dir, shared, pauses, identity: None, checked, failed_reads: 0, trouble: None };
        match keeper.prepare() {
            Ok(()) => {
                if let Err(Closed::Locked) = keeper.reopen(false) {
                    return Err(MetadataError::Locked { path: keeper.path });
                }
            }
            Err(error) if is_full(&error) => keeper.stop(&error.to_string(), false),
            Err(error) => return Err(MetadataError::Unusable { path: keeper.path, error }),
        }
        Ok(keeper)
    }

    /// Works until the store is dropped.
    pub(super) fn run(mut self) {
        loop {
            match self.shared.queue.next(self.pauses.check) {
                Next::Write(jobs) => self.write(jobs),
                Next::Idle => {}
                Next::Closed => break,
            }
            if self.checked.elapsed() >= self.pauses.check {
                self.checked = Instant::now();
                self.check();
            }
        }
        self.shared.replace_disk(None);
    }

    fn write(&mut self, jobs: Vec<Job>) {
        let (mut changes, mut puts) = (Vec::with_capacity(jobs.len()), 0);
        for job in jobs {
            let is_put = matches!(job, Job::Put { .. });
            // A record that panics while it is encoded must not end this thread.
            match catch_unwind(AssertUnwindSafe(|| Shared::change(job))) {
                Ok(Some(change)) => {
                    puts += u64::from(is_put);
                    changes.push(change);
                }
                Ok(None) => self.shared.dropped_puts.add(1),
                Err(_) => self.shared.errors.add(1),
            }
        }
        let written = match self.trouble {
            None => self.shared.with_disk(|disk| disk.write(&changes)),
            Some(_) => None,
        };
        match written {
            Some(Ok(())) => self.shared.puts.add(puts),
            None => self.shared.dropped_puts.add(puts),
            Some(Err(error)) => {
                self.shared.errors.add(1);
                self.shared.dropped_puts.add(puts);
                self.stop(error.as_ref(), error.kind() == rocksdb::ErrorKind::Corruption);
            }
        }
    }

    /// Looks whether the database is still there and whole; if it has not been for long enough, opens another.
    fn check(&mut self) {
        if self.trouble.is_none() {
            let failed_reads = self.shared.failed_reads.get() - self.failed_reads;
            if failed_reads > MAX_FAILED_READS {
                self.stop(&format!("{failed_reads} reads failed"), true);
            } else if directory::identity(&self.path) != self.identity {
                self.stop("its files were removed", false);
            }
        }
        let Some(trouble) = self.trouble.filter(|trouble| trouble.since.elapsed() >= self.pauses.reset) else { return };
        let again = Some(Trouble { since: Instant::now(), ..trouble });
        // As long as the disk takes nothing, a database could not be opened either.
        if let Err(error) = self.prepare() {
            tracing::debug!(path = %self.path.display(), %error, "the metadata store still cannot be written");
            self.trouble = again;
            return;
        }
        match self.reopen(trouble.is_broken) {
            Ok(()) => self.shared.resets.add(1),
            Err(Closed::Locked | Closed::Failed) => self.trouble = again,
        }
    }

    /// Sees to it that the directory is there and takes bytes. The cache directory comes first: without its marker a
    /// database in it would look like somebody else's.
    fn prepare(&self) -> io::Result<()> {
        if let Some(dir) = &self.dir {
            dir.repair()?;
        }
        directory::prepare(&self.path)
    }

    /// Nothing is written or found, until the database was opened again.
    fn stop(&mut self, why: &str, is_broken: bool) {
        self.shared.is_writing.store(false, Ordering::Relaxed);
        self.trouble = Some(Trouble { since: Instant::now(), is_broken });
        let retry = self.pauses.reset;
        tracing::warn!(path = %self.path.display(), why, ?retry, "the metadata store cannot be written");
    }

    /// Closes the database and opens it again; one that is damaged, or has lost the file that names all others, is set
    /// aside first.
    fn reopen(&mut self, is_broken: bool) -> Result<(), Closed> {
        self.shared.replace_disk(None);
        if is_broken || (directory::identity(&self.path).is_none() && directory::has_files(&self.path)) {
            self.set_aside("it is damaged or not whole");
        }
        let opened = Disk::open(&self.path).or_else(|error| {
            if disk::is_locked(&error) || disk::is_full(&error) {
                return Err(error);
            }
            self.set_aside(error.as_ref());
            Disk::open(&self.path)
        });
        match opened {
            Ok(disk) => {
                self.identity = directory::identity(&self.path);
                self.failed_reads = self.shared.failed_reads.get();
                self.trouble = None;
                self.shared.replace_disk(Some(disk));
                self.shared.is_writing.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(error) if disk::is_locked(&error) => Err(Closed::Locked),
            Err(error) => {
                self.stop(error.as_ref(), false);
                Err(Closed::Failed)
            }
        }
    }

    fn set_aside(&self, why: &str) {
        self.shared.set_aside.add(1);
        match directory::set_aside(&self.path) {
            Ok(aside) => {
                let (path, aside) = (self.path.display(), aside.display());
                tracing::warn!(%path, %aside, why, "the metadata store begins anew; the old one was renamed");
            }
            // The next try opens what is there, or fails for the same reason.
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, why, "the metadata store cannot be renamed");
            }
        }
    }
}

/// Why a database was not opened.
enum Closed {
    /// Somebody has it open.
    Locked,
    /// For another reason, which was logged.
    Failed,
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
