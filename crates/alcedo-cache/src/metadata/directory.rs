//! The directory that RocksDB lives in: whether it can be used, whether it is still there, and how it is set aside.
//!
//! Knows paths. It must not know what is in the files.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Written and removed again to see whether the disk takes bytes.
const PROBE_NAME: &str = "probe";
/// Bytes of it: what a database writes when it is opened, with room to spare.
const PROBE_BYTES: usize = 1 << 20;
/// The file without which RocksDB knows no other.
const CURRENT_NAME: &str = "CURRENT";
/// What follows the directory's name when it was set aside, before a number.
const ASIDE_INFIX: &str = ".broken-";

/// Tells one directory from another that took its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

/// The directory as it is now; none if it is gone, or if the database in it is.
pub(super) fn identity(path: &Path) -> Option<Identity> {
    fs::metadata(path.join(CURRENT_NAME)).ok()?;
    let metadata = fs::metadata(path).ok()?;
    Some(Identity { device: metadata.dev(), inode: metadata.ino() })
}

/// Whether there is anything in the directory.
pub(super) fn has_files(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}

/// Sees to it that the directory is there and takes bytes.
pub(super) fn prepare(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let probe = path.join(PROBE_NAME);
    let written = fs::File::create(&probe).and_then(|mut file| {
        file.write_all(&vec![0; PROBE_BYTES])?;
        file.sync_data()
    });
    let removed = fs::remove_file(&probe);
    written.and(removed)
}

/// Renames the directory, so that whoever wants to can look at what is in it, and removes what was set aside before:
/// one broken database is enough to find out why, and two would fill the disk.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (parent, prefix) = (path.parent().unwrap_or(Path::new("")), format!("{name}{ASIDE_INFIX}"));
    let mut last = 0;
    for entry in fs::read_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.strip_prefix(&prefix)?.parse::<u64>().ok());
        if let Some(number) = number {
            last = last.max(number);
            fs::remove_dir_all(entry.path())?;
        }
    }
    let aside = parent.join(format!("{prefix}{}", last.saturating_add(1)));
    fs::rename(path, &aside)?;
    Ok(aside)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn at_most_one_broken_directory_is_kept() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("metadata");
        for round in 1..4 {
            prepare(&path).unwrap();
            fs::write(path.join("round"), round.to_string()).unwrap();
            let aside = set_aside(&path).unwrap();
            assert_eq!(aside, home.path().join(format!("metadata.broken-{round}")));
            assert_eq!(fs::read_to_string(aside.join("round")).unwrap(), round.to_string());
            assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
        }
        assert!(set_aside(&path).is_err());
    }

    #[test]
    fn a_directory_that_was_replaced_is_another() {
        let home = tempfile::tempdir().unwrap();
        let (path, other) = (home.path().join("metadata"), home.path().join("other"));
        prepare(&path).unwrap();
        assert_eq!(identity(&path), None);
        fs::write(path.join(CURRENT_NAME), "").unwrap();
        let first = identity(&path).unwrap();
        assert_eq!(identity(&path), Some(first));
        fs::rename(&path, &other).unwrap();
        assert_eq!(identity(&path), None);
        prepare(&path).unwrap();
        fs::write(path.join(CURRENT_NAME), "").unwrap();
        assert_ne!(identity(&path), Some(first));
    }
}
