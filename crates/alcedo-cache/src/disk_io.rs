//! Layer 1: what the disk is asked to do.
//!
//! Knows system calls on open files. It must not know what the bytes are. It is one room, so that tests can make each
//! of its calls fail as a disk does.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// The way to a disk. A clone is the same way.
#[derive(Debug, Clone, Default)]
pub(crate) struct DiskIo {
    /// Set once a read that must not wait was refused as such; then such reads are not tried again.
    waits_only: Arc<AtomicBool>,
    #[cfg(test)]
    pub(crate) faults: Arc<faults::Faults>,
}

/// Room on a file system, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// What is free for us.
    pub(crate) free: u64,
    /// All there is.
    pub(crate) total: u64,
}

impl DiskIo {
    /// Fills the buffer from this place of the file, without waiting for the disk.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when not all of it is in memory or the file system cannot tell; else the disk's.
    pub(crate) fn read_now(&self, file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
        #[cfg(test)]
        self.faults.reading(true)?;
        if self.waits_only.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = buffer.len();
        match preadv2(file, &mut [IoSliceMut::new(buffer)], at, ReadWriteFlags::NOWAIT) {
            Ok(read) if read == length => Ok(()),
            // The rest may be on the disk, or behind the end of the file: a read that waits will tell.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Err(io::ErrorKind::WouldBlock.into()),
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                self.waits_only.store(true, Ordering::Relaxed);
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Fills the buffer from this place of the file.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the file ends before; else the disk's.
    pub(crate) fn read(&self, file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
        #[cfg(test)]
        self.faults.reading(false)?;
        file.read_exact_at(buffer, at)
    }

    /// Writes all bytes at this place of the file.
    ///
    /// # Errors
    /// The disk's; then any part of the bytes may have been written.
    pub(crate) fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        #[cfg(test)]
        self.faults.writing(file, bytes, at)?;
        file.write_all_at(bytes, at)
    }

    /// Reserves so many bytes for the file. A file system that cannot is left to find room as it goes.
    ///
    /// # Errors
    /// The disk's: there is no room, or it fails.
    pub(crate) fn reserve(&self, file: &File, bytes: u64) -> io::Result<()> {
        #[cfg(test)]
        self.faults.reserving()?;
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    /// Cuts the file to so many bytes.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn cut(&self, file: &File, bytes: u64) -> io::Result<()> {
        file.set_len(bytes)
    }

    /// Whether the file still has a name in some directory.
    pub(crate) fn has_name(&self, file: &File) -> bool {
        file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
    }

    /// Room on the file system of this directory.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn room(&self, directory: &Path) -> io::Result<Room> {
        #[cfg(test)]
        if let Some(room) = self.faults.room() {
            return Ok(room);
        }
        let found = statvfs(directory)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Room { free: bytes(found.f_bavail), total: bytes(found.f_blocks) })
    }
}

/// Faults of a disk, planted by tests.
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]
pub(crate) mod faults {
    use super::*;
    use std::sync::Mutex;
    use std::time::Duration;

    /// What fails until it is set to `None` again; numbers are those of the operating system.
    #[derive(Debug, Default)]
    pub(crate) struct Faults {
        pub(crate) read: Mutex<Option<i32>>,
        pub(crate) write: Mutex<Option<i32>>,
        pub(crate) reserve: Mutex<Option<i32>>,
        pub(crate) room: Mutex<Option<Room>>,
        /// Reads that must not wait would have to.
        pub(crate) cold: AtomicBool,
        /// Writes wait until it is false.
        pub(crate) stuck: AtomicBool,
        /// Reads that may wait do so until it is false.
        pub(crate) stuck_reads: AtomicBool,
        /// Calls that read and may wait.
        pub(crate) waited: std::sync::atomic::AtomicUsize,
    }

    fn planted(fault: &Mutex<Option<i32>>) -> io::Result<()> {
        fault.lock().unwrap().map_or(Ok(()), |number| Err(io::Error::from_raw_os_error(number)))
    }

    impl Faults {
        pub(super) fn reading(&self, now: bool) -> io::Result<()> {
            if now && self.cold.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            if !now {
                self.waited.fetch_add(1, Ordering::SeqCst);
                while self.stuck_reads.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            planted(&self.read)
        }

        /// A write that fails leaves half of its bytes behind.
        pub(super) fn writing(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
            while self.stuck.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            planted(&self.write).inspect_err(|_| file.write_all_at(&bytes[..bytes.len() / 2], at).unwrap())
        }

        pub(super) fn reserving(&self) -> io::Result<()> {
            planted(&self.reserve)
        }

        pub(super) fn room(&self) -> Option<Room> {
            *self.room.lock().unwrap()
        }
    }
}
