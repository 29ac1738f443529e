//! `file://` mounts as a store of our own. Knows one directory and how to stay beneath it; must not know mounts or
//! URLs. `object_store`'s own local store follows symbolic links out of its root and checks no precondition on ranges.
//!
//! Every open goes through `openat2` with `RESOLVE_BENEATH`: the kernel itself refuses to leave the directory, however
//! links are swapped meanwhile. Links that stay inside are followed. A read takes the file's identity before and after,
//! so that an overwrite in place during the read is seen. What cannot be seen is one single write that is under way for
//! the whole of the read, since the kernel stamps a write at its beginning: files of a lake are replaced by rename.

use crate::error::LEADS_OUT;
use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};

/// Blocking reads at once. A hung network file system then holds this many threads, not all of them.
const MAX_THREADS: usize = 64;

/// Times that an open is repeated after the kernel saw a rename on the way (`EAGAIN`, openat2(2)).
const MAX_RACES: usize = 16;

/// Deepest directory that a listing enters.
const MAX_DEPTH: usize = 64;

/// Most names of one directory: they are sorted in memory.
const MAX_NAMES: usize = 1_000_000;

/// Files that a walk may be ahead of its reader.
const WALK_AHEAD: usize = 256;

/// Name of this store in the library's errors.
const STORE: &str = "file";

/// A directory, read only.
#[derive(Clone)]
pub(crate) struct LocalStore {
    root: Arc<OwnedFd>,
    directory: Arc<str>,
    threads: Arc<Semaphore>,
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalStore").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl fmt::Display for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file://{}", self.directory)
    }
}

impl LocalStore {
    /// Opens an absolute directory. It stays the same directory even if its path is renamed later.
    pub(crate) fn open(directory: &str) -> std::result::Result<Self, String> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::open(directory, flags, Mode::empty()).map_err(|e| format!("directory {directory}: {e}"))?;
        // One trial open tells at once whether this kernel, or its seccomp filter, has openat2.
        open_beneath(&root, ".", OFlags::PATH | OFlags::DIRECTORY).map_err(|e| match e {
            Errno::NOSYS => NEEDS_OPENAT2.to_owned(),
            e => format!("directory {directory}: openat2: {e}"),
        })?;
        let threads = Arc::new(Semaphore::new(MAX_THREADS));
        Ok(Self { root: Arc::new(root), directory: directory.into(), threads })
    }

    /// Runs `work` on a blocking thread, of which this store has a bounded number.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&OwnedFd) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = Arc::clone(&self.threads).acquire_owned().await;
        let permit = permit.map_err(|e| Error::Generic { store: STORE, source: Box::new(e) })?;
        let root = Arc::clone(&self.root);
        tokio::task::spawn_blocking(move || {
            // The permit stays with the thread: a caller whose deadline passed gives up, the hung read does not.
            let _permit = permit;
            work(&root)
        })
        .await?
    }
}

/// What to do about a kernel without the one call that keeps links inside.
const NEEDS_OPENAT2: &str = "file:// mounts need the system call openat2 (Linux 5.6 or later, and a container runtime \
     whose seccomp profile allows it), because nothing else keeps symbolic links inside the mount";

/// Opens a path beneath `root`, never outside it, never through `/proc`'s magic links.
fn open_beneath(root: impl AsFd, path: &str, flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = match flags.contains(OFlags::PATH) {
        true => flags | OFlags::CLOEXEC,
        // NONBLOCK: opening a named pipe must not wait for its writer. It means nothing for regular files. (openat2
        // refuses either flag beside PATH, with which nothing is really opened.)
        false => flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK,
    };
    let mut last = Errno::AGAIN;
    for _ in 0..MAX_RACES {
        match rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve) {
            Err(e @ (Errno::AGAIN | Errno::INTR)) => last = e,
            other => return other,
        }
    }
    Err(last)
}

/// A system error as the library's error for `location`.
fn sorted(location: &Path, errno: Errno) -> Error {
    let path = location.to_string();
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::ISDIR => {
            Error::NotFound { path, source: errno.into() }
        }
        Errno::XDEV | Errno::LOOP => Error::PermissionDenied { path, source: LEADS_OUT.into() },
        Errno::ACCESS | Errno::PERM => {
            Error::PermissionDenied { path, source: format!("the operating system says: {errno}").into() }
        }
        Errno::NOSYS => Error::NotSupported { source: NEEDS_OPENAT2.into() },
        errno => Error::Generic { store: STORE, source: errno.into() },
    }
}

/// Like [`sorted`], for the standard library's errors.
fn sorted_io(location: &Path, error: std::io::Error) -> Error {
    match Errno::from_io_error(&error) {
        Some(errno) => sorted(location, errno),
        None => Error::Generic { store: STORE, source: Box::new(error) },
    }
}

/// The identity and size of an open file. The entity tag is `<inode>-<mtime in ns>-<size>`.
fn describe(location: &Path, stat: &Stat) -> Result<ObjectMeta> {
    let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let mtime_ns = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(nanos);
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    Ok(ObjectMeta {
        location: location.clone(),
        last_modified: DateTime::from_timestamp(stat.st_mtime, nanos).unwrap_or_default(),
        size,
        e_tag: Some(format!("{}-{mtime_ns}-{size}", stat.st_ino)),
        version: None,
    })
}

/// Whether it is a regular file; pipes, devices and directories are no files of a lake.
fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Reads one range of a file, or only describes it. `meanwhile` runs when the bytes are read and the file's identity
/// has not been taken again: tests change the file there.
fn read(root: &OwnedFd, location: &Path, options: &GetOptions, meanwhile: impl FnOnce()) -> Result<GetResult> {
    let failed = |errno| sorted(location, errno);
    let flags = if options.head { OFlags::PATH } else { OFlags::RDONLY };
    let file = open_beneath(root, location.as_ref(), flags).map_err(failed)?;
    let stat = rustix::fs::fstat(&file).map_err(failed)?;
    if !is_regular(&stat) {
        return Err(Error::NotFound { path: location.to_string(), source: "not a regular file".into() });
    }
    let meta = describe(location, &stat)?;
    options.check_preconditions(&meta)?;
    let range = match (&options.range, options.head) {
        (_, true) => 0..0,
        (None, false) => 0..meta.size,
        (Some(GetRange::Suffix(n)), false) => meta.size.saturating_sub(*n)..meta.size,
        (Some(range), false) => {
            range.as_range(meta.size).map_err(|e| Error::Generic { store: STORE, source: Box::new(e) })?
        }
    };
    let length =
        usize::try_from(range.end - range.start).map_err(|e| Error::Generic { store: STORE, source: Box::new(e) })?;
    let mut bytes = vec![0; length];
    let overwritten = || Error::Precondition {
        path: location.to_string(),
        source: "it was overwritten while it was being read".into(),
    };
    if !options.head {
        let file = File::from(file);
        match file.read_exact_at(&mut bytes, range.start) {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Err(overwritten()),
            other => other.map_err(|e| sorted_io(location, e))?,
        }
        meanwhile();
        let after = rustix::fs::fstat(&file).map_err(failed)?;
        if describe(location, &after)?.e_tag != meta.e_tag {
            return Err(overwritten());
        }
    }
    let payload = GetResultPayload::Stream(stream::once(async move { Ok(Bytes::from(bytes)) }).boxed());
    Ok(GetResult { payload, meta, range, attributes: Attributes::new() })
}

/// What a walk finds.
enum Found {
    File(ObjectMeta),
    Directory(Path),
}

/// A walk beneath the root. Names come in the order of their keys; the walk ends early when `sink` says `false`.
struct Walk<'r, S: FnMut(Found) -> bool> {
    root: &'r OwnedFd,
    sink: S,
}

impl<S: FnMut(Found) -> bool> Walk<'_, S> {
    /// Lists one directory, and those below it if `recursive`; tells whether to go on. Symbolic links to files count as
    /// files if they stay inside; links to directories are not followed, since they could form a circle.
    fn directory(&mut self, location: &Path, recursive: bool, depth: usize) -> Result<bool> {
        for (name, is_directory) in self.names(location)? {
            let Ok(below) = child(location, &name) else { continue };
            let goes_on = match is_directory {
                true => {
                    // The sink hears of directories in every listing, so that a walk through empty ones can be ended
                    // too.
                    (self.sink)(Found::Directory(below.clone()))
                        && (!recursive || depth >= MAX_DEPTH || self.descend(&below, depth + 1)?)
                }
                false => match self.file(&below)? {
                    Some(meta) => (self.sink)(Found::File(meta)),
                    None => true,
                },
            };
            if !goes_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Lists a directory further down. One that vanished, or that may not be read, hides its files; it does not fail
    /// the listing.
    fn descend(&mut self, location: &Path, depth: usize) -> Result<bool> {
        match self.directory(location, true, depth) {
            Err(Error::NotFound { .. } | Error::PermissionDenied { .. }) => Ok(true),
            other => other,
        }
    }

    /// The names in a directory with whether each is a directory, in the order of the keys below it.
    fn names(&self, location: &Path) -> Result<Vec<(String, bool)>> {
        let path = if location.is_root() { "." } else { location.as_ref() };
        let failed = |errno| sorted(location, errno);
        let directory = open_beneath(self.root, path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // Names that are not UTF-8 cannot be in a request either.
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            let is_directory = match entry.file_type() {
                FileType::Unknown => {
                    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
                    rustix::fs::statat(&directory, name, flags)
                        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
                }
                kind => kind == FileType::Directory,
            };
            names.push((name.to_owned(), is_directory));
            if names.len() > MAX_NAMES {
                return Err(Error::NotSupported {
                    source: format!("{location}: a directory with more than {MAX_NAMES} names cannot be listed").into(),
                });
            }
        }
        let order = |(name, is_directory): &(String, bool)| format!("{name}{}", if *is_directory { "/" } else { "" });
        names.sort_by_cached_key(order);
        Ok(names)
    }

    /// The description of a regular file; `None` for everything else, and for links out of the root.
    fn file(&self, location: &Path) -> Result<Option<ObjectMeta>> {
        match open_beneath(self.root, location.as_ref(), OFlags::PATH) {
            Ok(file) => {
                let stat = rustix::fs::fstat(&file).map_err(|e| sorted(location, e))?;
                is_regular(&stat).then(|| describe(location, &stat)).transpose()
            }
            Err(errno) => match sorted(location, errno) {
                Error::NotFound { .. } | Error::PermissionDenied { .. } => Ok(None),
                error => Err(error),
            },
        }
    }
}

/// The key of a name in a directory, literally.
fn child(directory: &Path, name: &str) -> std::result::Result<Path, object_store::path::Error> {
    if directory.is_root() { Path::parse(name) } else { Path::parse(format!("{directory}/{name}")) }
}

/// The answer to everything that would write.
fn read_only() -> Error {
    Error::NotSupported { source: "a mount is read only".into() }
}

#[async_trait]
impl ObjectStore for LocalStore {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(read_only())
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(read_only())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let location = location.clone();
        self.blocking(move |root| read(root, &location, &options, || {})).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        locations.map(|_| Err(read_only())).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned().unwrap_or_default();
        let (sender, receiver) = mpsc::channel(WALK_AHEAD);
        let this = self.clone();
        // The walk runs ahead of its reader by a bounded number of files and ends when the reader is dropped.
        let walk = async move {
            let failed = sender.clone();
            let walked = this.blocking(move |root| {
                let sink = |found| match found {
                    Found::File(meta) => sender.blocking_send(Ok(meta)).is_ok(),
                    Found::Directory(_) => !sender.is_closed(),
                };
                Walk { root, sink }.directory(&prefix, true, 0)
            });
            if let Err(e) = walked.await {
                // A reader that is gone needs no error.
                let _ = failed.send(Err(e)).await;
            }
        };
        let found = stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
        // Both halves are polled together, so an error of the walk reaches the reader behind what was found before it.
        let walk = stream::once(walk).filter_map(|()| async { None });
        stream::select(found, walk).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.cloned().unwrap_or_default();
        self.blocking(move |root| {
            let mut found = ListResult { common_prefixes: Vec::new(), objects: Vec::new() };
            let sink = |entry| {
                match entry {
                    Found::File(meta) => found.objects.push(meta),
                    Found::Directory(path) => found.common_prefixes.push(path),
                }
                true
            };
            Walk { root, sink }.directory(&prefix, false, 0)?;
            Ok(found)
        })
        .await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(read_only())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::error::{Error as OriginError, ErrorKind};
    use crate::limits::OriginLimits;
    use crate::list::{Listed, Listing};
    use crate::mount::{Mount, MountConfig};
    use crate::resolve::Mounts;
    use object_store::ObjectStoreExt;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, SystemTime};
    use tempfile::TempDir;
    use tokio::time::Instant;

    /// `lake/` with some files, and `secret` beside it.
    fn lake() -> (TempDir, Arc<Mount>) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("lake/sub/deep")).unwrap();
        fs::write(dir.path().join("secret"), "SECRET").unwrap();
        fs::write(dir.path().join("lake/a"), "0123456789").unwrap();
        fs::write(dir.path().join("lake/sub/b"), "sub b").unwrap();
        fs::write(dir.path().join("lake/sub/deep/c"), "deep c").unwrap();
        fs::write(dir.path().join("lake/empty"), "").unwrap();
        let config = MountConfig::new("m", format!("file://{}/lake", dir.path().display()));
        let mounts = Mounts::open(&[config], OriginLimits::default()).unwrap();
        let mount = Arc::clone(mounts.iter().next().unwrap());
        (dir, mount)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    async fn tail(mount: &Mount, key: &str) -> std::result::Result<Vec<u8>, OriginError> {
        mount.read_tail(&Path::from(key), 100, soon()).await.map(|tail| tail.bytes.to_vec())
    }

    async fn kind(mount: &Mount, key: &str) -> ErrorKind {
        tail(mount, key).await.unwrap_err().kind()
    }

    #[tokio::test]
    async fn files_are_read_like_objects() {
        let (_dir, mount) = lake();
        let key = Path::from("a");
        let read = mount.read_tail(&key, 4, soon()).await.unwrap();
        assert_eq!((read.start, &read.bytes[..], read.stat.size), (6, &b"6789"[..], 10));
        assert_eq!(mount.read_range(&key, &read.stat, 1..3, soon()).await.unwrap(), &b"12"[..]);
        assert_eq!(mount.stat(&key, soon()).await.unwrap(), read.stat);
        assert_eq!(tail(&mount, "empty").await.unwrap(), b"");
        assert_eq!(tail(&mount, "sub/deep/c").await.unwrap(), b"deep c");
        for absent in ["none", "sub", "a/b", "sub/none"] {
            assert_eq!(kind(&mount, absent).await, ErrorKind::NotFound, "{absent}");
        }
        assert!(read.stat.modified_us > 0);
        let counts = mount.counts();
        assert_eq!((counts.heads, counts.retries, counts.errors), (1, 0, 0));
    }

    #[tokio::test]
    async fn links_inside_are_followed_and_links_out_are_not() {
        let (dir, mount) = lake();
        let lake = dir.path().join("lake");
        symlink("sub/b", lake.join("inside")).unwrap();
        symlink("../a", lake.join("sub/up")).unwrap();
        symlink("sub", lake.join("subdir")).unwrap();
        assert_eq!(tail(&mount, "inside").await.unwrap(), b"sub b");
        assert_eq!(tail(&mount, "sub/up").await.unwrap(), b"0123456789");
        assert_eq!(tail(&mount, "subdir/b").await.unwrap(), b"sub b");
        symlink("../secret", lake.join("out")).unwrap();
        symlink(dir.path().join("secret"), lake.join("absolute")).unwrap();
        symlink(lake.join("a"), lake.join("absolute-inside")).unwrap();
        symlink("..", lake.join("parent")).unwrap();
        symlink("/proc/self/root", lake.join("magic")).unwrap();
        symlink("circle", lake.join("circle")).unwrap();
        for out in ["out", "absolute", "absolute-inside", "parent/secret", "magic/etc/passwd", "circle"] {
            let error = tail(&mount, out).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{out}: {error}");
            assert_eq!(mount.stat(&Path::from(out), soon()).await.unwrap_err().kind(), ErrorKind::Denied, "{out}");
        }
    }

    #[tokio::test]
    async fn a_link_that_is_swapped_while_it_is_read_never_leads_out() {
        let (dir, mount) = lake();
        let lake = dir.path().join("lake");
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/b"), "SECRET").unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let swapper = {
            let (stop, lake) = (Arc::clone(&stop), lake.clone());
            std::thread::spawn(move || {
                for n in 0u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return n;
                    }
                    let target = if n.is_multiple_of(2) { "sub" } else { "../outside" };
                    symlink(target, lake.join("next")).unwrap();
                    fs::rename(lake.join("next"), lake.join("swap")).unwrap();
                }
                0
            })
        };
        let (mut inside, mut refused) = (0, 0);
        for _ in 0..20_000 {
            match tail(&mount, "swap/b").await {
                Ok(bytes) => {
                    assert_eq!(bytes, b"sub b");
                    inside += 1;
                }
                Err(_) => refused += 1,
            }
            if inside > 200 && refused > 200 {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(swapper.join().unwrap() > 0);
        assert!(inside > 0 && refused > 0, "{inside} {refused}");
    }

    #[tokio::test]
    async fn an_overwritten_file_is_another_version() {
        let (dir, mount) = lake();
        let path = dir.path().join("lake/a");
        let key = Path::from("a");
        let stat = mount.stat(&key, soon()).await.unwrap();
        let fails = async |stat| mount.read_range(&key, stat, 0..3, soon()).await.unwrap_err().kind();
        // By rename, at the same size and time: the inode tells.
        let times = fs::FileTimes::new().set_modified(fs::metadata(&path).unwrap().modified().unwrap());
        let new = dir.path().join("lake/new");
        fs::write(&new, "9876543210").unwrap();
        File::options().write(true).open(&new).unwrap().set_times(times).unwrap();
        fs::rename(&new, &path).unwrap();
        assert_eq!(fails(&stat).await, ErrorKind::VersionChanged);
        // In place, at the same size: the time tells.
        let stat = mount.stat(&key, soon()).await.unwrap();
        let later = fs::FileTimes::new().set_modified(SystemTime::now() + Duration::from_nanos(1_000_001));
        fs::write(&path, "abcdefghij").unwrap();
        File::options().write(true).open(&path).unwrap().set_times(later).unwrap();
        assert_eq!(fails(&stat).await, ErrorKind::VersionChanged);
        // In place, at the same time: the size tells.
        let stat = mount.stat(&key, soon()).await.unwrap();
        fs::write(&path, "abc").unwrap();
        File::options().write(true).open(&path).unwrap().set_times(later).unwrap();
        assert_eq!(fails(&stat).await, ErrorKind::VersionChanged);
        fs::remove_file(&path).unwrap();
        assert_eq!(fails(&stat).await, ErrorKind::NotFound);
    }

    #[test]
    fn a_file_that_is_overwritten_while_it_is_read_is_not_answered() {
        let (dir, _mount) = lake();
        let path = dir.path().join("lake/a");
        let store = LocalStore::open(dir.path().join("lake").to_str().unwrap()).unwrap();
        let read_during = |change: &dyn Fn()| {
            let options = GetOptions { range: Some(GetRange::Bounded(0..4)), ..GetOptions::default() };
            read(&store.root, &Path::from("a"), &options, change)
        };
        assert!(read_during(&|| {}).is_ok());
        // A file that is replaced meanwhile was read as it was; it is another file now.
        let replaced = read_during(&|| {
            fs::write(dir.path().join("new"), "9876543210").unwrap();
            fs::rename(dir.path().join("new"), &path).unwrap();
        });
        assert!(replaced.is_ok());
        let grown = read_during(&|| fs::write(&path, "longer than before").unwrap());
        assert!(matches!(grown, Err(Error::Precondition { .. })));
        let touched = read_during(&|| {
            let later = fs::FileTimes::new().set_modified(SystemTime::now() + Duration::from_secs(1));
            File::options().write(true).open(&path).unwrap().set_times(later).unwrap();
        });
        assert!(matches!(touched, Err(Error::Precondition { .. })));
    }

    #[tokio::test]
    async fn pipes_directories_and_unreadable_files_are_no_files() {
        let (dir, mount) = lake();
        let pipe = dir.path().join("lake/pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(kind(&mount, "pipe").await, ErrorKind::NotFound);
        assert_eq!(kind(&mount, "sub").await, ErrorKind::NotFound);
        fs::set_permissions(dir.path().join("lake/a"), fs::Permissions::from_mode(0o000)).unwrap();
        if !rustix::process::geteuid().is_root() {
            assert_eq!(kind(&mount, "a").await, ErrorKind::Denied);
        }
        assert_eq!(mount.stat(&Path::from("a"), soon()).await.unwrap().size, 10);
    }

    fn names(mount: &Mount, listing: &Listing) -> Vec<String> {
        let name = |entry: &Listed| {
            let slash = if matches!(entry, Listed::Prefix(_)) { "/" } else { "" };
            format!("{}{slash}", entry.url().strip_prefix(&format!("{}/", mount.url())).unwrap())
        };
        listing.entries.iter().map(name).collect()
    }

    #[tokio::test]
    async fn listings_stay_beneath_the_mount() {
        let (dir, mount) = lake();
        let lake = dir.path().join("lake");
        symlink("..", lake.join("parent")).unwrap();
        symlink("../secret", lake.join("out")).unwrap();
        symlink("sub", lake.join("again")).unwrap();
        symlink("sub/b", lake.join("link")).unwrap();
        symlink(".", lake.join("sub/circle")).unwrap();
        fs::write(lake.join("sub.x"), "x").unwrap();
        fs::write(lake.join("bad\\name"), "x").unwrap();
        let deep = mount.list(&Path::ROOT, true, 100, soon()).await.unwrap();
        assert_eq!(names(&mount, &deep), ["a", "empty", "link", "sub.x", "sub/b", "sub/deep/c"]);
        assert_eq!((deep.truncated, deep.skipped), (false, 1));
        let flat = mount.list(&Path::ROOT, false, 100, soon()).await.unwrap();
        assert_eq!(names(&mount, &flat), ["a", "empty", "link", "sub.x", "sub/"]);
        let below = mount.list(&Path::from("sub"), false, 100, soon()).await.unwrap();
        assert_eq!(names(&mount, &below), ["sub/b", "sub/deep/"]);
        let few = mount.list(&Path::ROOT, true, 2, soon()).await.unwrap();
        assert_eq!((names(&mount, &few), few.truncated), (vec!["a".to_owned(), "empty".to_owned()], true));
        for entry in &deep.entries {
            let Listed::File(stat) = entry else { panic!("only files") };
            let key = Path::parse(stat.url.strip_prefix(&format!("{}/", mount.url())).unwrap()).unwrap();
            assert_eq!(stat, &mount.stat(&key, soon()).await.unwrap());
        }
        for (key, expected) in [("none", ErrorKind::NotFound), ("parent", ErrorKind::Denied)] {
            for recursive in [true, false] {
                let error = mount.list(&Path::from(key), recursive, 9, soon()).await.unwrap_err();
                assert_eq!(error.kind(), expected, "{key}");
            }
        }
    }

    #[tokio::test]
    async fn a_listing_that_nobody_reads_ends_its_walk() {
        let (dir, _) = lake();
        for n in 0..WALK_AHEAD * 2 {
            fs::write(dir.path().join(format!("lake/{n}")), "x").unwrap();
        }
        let store = LocalStore::open(dir.path().join("lake").to_str().unwrap()).unwrap();
        let mut stream = store.list(None);
        assert!(stream.next().await.unwrap().is_ok());
        assert_eq!(store.threads.available_permits(), MAX_THREADS - 1);
        drop(stream);
        while store.threads.available_permits() < MAX_THREADS {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn nothing_can_be_written() {
        let (dir, _) = lake();
        let store = LocalStore::open(dir.path().join("lake").to_str().unwrap()).unwrap();
        let key = Path::from("a");
        assert!(matches!(store.put(&key, PutPayload::from_static(b"x")).await, Err(Error::NotSupported { .. })));
        assert!(matches!(store.delete(&key).await, Err(Error::NotSupported { .. })));
        assert!(matches!(store.copy(&key, &Path::from("b")).await, Err(Error::NotSupported { .. })));
        assert!(matches!(store.put_multipart(&key).await, Err(Error::NotSupported { .. })));
        assert_eq!(fs::read(dir.path().join("lake/a")).unwrap(), b"0123456789");
    }
}
