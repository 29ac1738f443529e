//! Layer 1: the directory that a worker keeps its cache in.
//!
//! Knows how the directory is told from others, whose it is, and that one process uses it at a time. It must not know
//! what the stores below it write. A directory that holds something else is never touched.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::store_name::StoreName;

/// File whose presence makes a directory a cache.
const MARKER: &str = "ALCEDO-CACHE";
/// File that the process in charge holds a lock on.
const LOCK: &str = "LOCK";
/// What a new file system has in its root; a cache may be alone on one.
const LOST_AND_FOUND: &str = "lost+found";
/// First line of the marker. The number is the layout of the directory; stores below have formats of their own.
const LAYOUT: &str = "alcedo-cache 1";
/// Longest marker that is read.
const MAX_MARKER_BYTES: u64 = 4 << 10;

/// Why a cache directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory is not there and cannot be made, or nothing can be written to it.
    #[error(
        "the cache directory {} cannot be used: {source}; make it a directory that this user may write to",
        .dir.display()
    )]
    NotUsable {
        /// The directory.
        dir: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The directory has content, and no marker says that it is a cache.
    #[error(
        "the cache directory {} holds something else (for example {found}); it was left as it is; name an empty or new \
         directory",
        .dir.display()
    )]
    HoldsSomethingElse {
        /// The directory.
        dir: PathBuf,
        /// Something in it.
        found: String,
    },
    /// The directory was laid out by another version of this program.
    #[error(
        "the cache directory {} has the layout {found:?}, and this version knows {LAYOUT:?} only; name another \
         directory, or empty this one",
        .dir.display()
    )]
    OtherLayout {
        /// The directory.
        dir: PathBuf,
        /// The marker's first line.
        found: String,
    },
    /// Another worker's directory.
    #[error(
        "the cache directory {} belongs to worker {owner:?}, and this is worker {worker_id:?}; give each worker a \
         directory of its own, or empty this one if {owner:?} is no more",
        .dir.display()
    )]
    OtherWorker {
        /// The directory.
        dir: PathBuf,
        /// The worker that it belongs to.
        owner: String,
        /// The worker that wanted it.
        worker_id: String,
    },
    /// Another process uses it at this moment.
    #[error(
        "the cache directory {} is in use by another process; stop that one, or give this worker a directory of its \
         own",
        .dir.display()
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// No more files can be opened.
    #[error(
        "the cache in {} has {segments} segment files, and no more files can be opened; raise LimitNOFILE (ulimit -n)",
        .dir.display()
    )]
    TooManyFiles {
        /// The directory.
        dir: PathBuf,
        /// Segment files in it.
        segments: usize,
    },
    /// A thread could not be started.
    #[error("the page store's writer cannot be started: {source}; raise TasksMax (ulimit -u)")]
    Thread {
        /// The operating system's reason.
        source: io::Error,
    },
}

/// A cache directory that this process has for itself until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct CacheDir {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    worker_id: String,
    lock: OwnedFd,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Closing alone is not enough: a process that is being started at this moment has a copy of the descriptor, and
        // would hold the lock a little longer.
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

impl CacheDir {
    /// Takes the directory for this worker, and makes it if it is not there.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing in a directory that is somebody else's was changed.
    pub fn open(path: &Path, worker_id: &str) -> Result<Self, OpenError> {
        let dir = || path.to_owned();
        let not_usable = |source| OpenError::NotUsable { dir: dir(), source };
        fs::create_dir_all(path).map_err(not_usable)?;
        match read_marker(path).map_err(not_usable)? {
            Some(marker) => check_marker(path, &marker, worker_id)?,
            None => check_empty(path)?,
        }
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK));
        let lock = OwnedFd::from(lock.map_err(not_usable)?);
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(OpenError::Locked { dir: dir() }),
            Err(error) => return Err(not_usable(error.into())),
        }
        let inner = Inner { path: dir(), worker_id: worker_id.to_owned(), lock };
        let opened = Self { inner: Arc::new(inner) };
        opened.repair().map_err(not_usable)?;
        // Somebody else may have marked it between the first look and the lock.
        if let Some(marker) = read_marker(path).map_err(not_usable)? {
            check_marker(path, &marker, worker_id)?;
        }
        Ok(opened)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Where the segments of one of its page stores are.
    pub fn segments(&self, name: StoreName) -> PathBuf {
        self.inner.path.join(name.directory())
    }

    /// Where the metadata store is; it makes this directory itself.
    pub fn metadata(&self) -> PathBuf {
        self.inner.path.join("metadata")
    }

    /// Where it is written what is to stay; whoever knows what that is makes this file.
    pub fn pins(&self) -> PathBuf {
        self.inner.path.join("pins")
    }

    /// Makes again what is missing of the layout: somebody may empty a live directory.
    pub(crate) fn repair(&self) -> io::Result<()> {
        let path = &self.inner.path;
        fs::create_dir_all(path)?;
        let marker = path.join(MARKER);
        if !marker.try_exists()? {
            let made = path.join("ALCEDO-CACHE.new");
            fs::write(&made, format!("{LAYOUT}\nworker {}\n", self.inner.worker_id))?;
            fs::rename(&made, &marker)?;
        }
        StoreName::ALL.iter().try_for_each(|name| fs::create_dir_all(self.segments(*name)))
    }
}

/// The marker's text, if there is one.
fn read_marker(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path.join(MARKER)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_MARKER_BYTES).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn check_marker(path: &Path, marker: &str, worker_id: &str) -> Result<(), OpenError> {
    let dir = || path.to_owned();
    let mut lines = marker.lines();
    let layout = lines.next().unwrap_or_default();
    if layout != LAYOUT {
        return Err(OpenError::OtherLayout { dir: dir(), found: layout.to_owned() });
    }
    let owner = lines.next().and_then(|line| line.strip_prefix("worker ")).unwrap_or_default();
    if owner != worker_id {
        return Err(OpenError::OtherWorker { dir: dir(), owner: owner.to_owned(), worker_id: worker_id.to_owned() });
    }
    Ok(())
}

/// Whether nothing is there but what a start that was cut short may have left.
fn check_empty(path: &Path) -> Result<(), OpenError> {
    let not_usable = |source| OpenError::NotUsable { dir: path.to_owned(), source };
    for entry in fs::read_dir(path).map_err(not_usable)? {
        let name = entry.map_err(not_usable)?.file_name().to_string_lossy().into_owned();
        if ![LOCK, LOST_AND_FOUND, "ALCEDO-CACHE.new"].contains(&name.as_str()) {
            return Err(OpenError::HoldsSomethingElse { dir: path.to_owned(), found: name });
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_new_directory_is_made_and_an_own_one_opened_again() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("deep/cache");
        let first = CacheDir::open(&path, "w1").unwrap();
        assert_eq!(names(&path), ["ALCEDO-CACHE", "LOCK", "derived", "pages", "pinned"]);
        let locked = CacheDir::open(&path, "w1").unwrap_err();
        assert!(matches!(locked, OpenError::Locked { .. }), "{locked}");
        let clone = first.clone();
        drop(first);
        assert!(CacheDir::open(&path, "w1").is_err(), "a clone holds the lock");
        drop(clone);
        let again = CacheDir::open(&path, "w1").unwrap();
        let pages = again.segments(StoreName::Pages);
        assert_eq!((pages, again.metadata()), (path.join("pages"), path.join("metadata")));
    }

    #[test]
    fn another_workers_directory_is_refused_also_when_nobody_uses_it() {
        let temp = tempfile::tempdir().unwrap();
        drop(CacheDir::open(temp.path(), "w1").unwrap());
        let refused = CacheDir::open(temp.path(), "w2").unwrap_err().to_string();
        let dir = temp.path().display().to_string();
        assert!(refused.contains(&dir) && refused.contains("\"w1\"") && refused.contains("\"w2\""), "{refused}");
        CacheDir::open(temp.path(), "w1").unwrap();
    }

    #[test]
    fn what_holds_something_else_is_left_as_it_is() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("thesis.txt"), "years of work").unwrap();
        let refused = CacheDir::open(temp.path(), "w1").unwrap_err();
        assert!(matches!(&refused, OpenError::HoldsSomethingElse { found, .. } if found == "thesis.txt"), "{refused}");
        assert_eq!(names(temp.path()), ["thesis.txt"]);
        let fresh = tempfile::tempdir().unwrap();
        fs::create_dir(fresh.path().join(LOST_AND_FOUND)).unwrap();
        CacheDir::open(fresh.path(), "w1").unwrap();
    }

    #[test]
    fn other_layouts_and_broken_markers_are_refused() {
        for marker in ["alcedo-cache 2\nworker w1\n", "", "\u{0}\u{1}", "alcedo-cache 1", "alcedo-cache 1\nw1\n"] {
            let temp = tempfile::tempdir().unwrap();
            fs::write(temp.path().join(MARKER), marker).unwrap();
            let refused = CacheDir::open(temp.path(), "w1").unwrap_err();
            let expected = matches!(refused, OpenError::OtherLayout { .. } | OpenError::OtherWorker { .. });
            assert!(expected, "{marker:?}: {refused}");
            assert_eq!(names(temp.path()), [MARKER]);
        }
    }

    #[test]
    fn what_cannot_be_written_is_refused_with_its_name() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file.as_path(), &file.join("below"), Path::new("/proc/alcedo")] {
            let refused = CacheDir::open(path, "w1").unwrap_err();
            assert!(matches!(refused, OpenError::NotUsable { .. }), "{refused}");
            assert!(refused.to_string().contains(&path.display().to_string()), "{refused}");
        }
    }

    #[test]
    fn an_emptied_directory_is_repaired() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("cache");
        let dir = CacheDir::open(&path, "w1").unwrap();
        fs::remove_dir_all(&path).unwrap();
        dir.repair().unwrap();
        assert_eq!(names(&path), ["ALCEDO-CACHE", "derived", "pages", "pinned"]);
    }
}
