//! Layer 1: members in a watched file, one per line.
//!
//! Knows how a file changes under its reader: replaced by a rename, or written in place. It must not know what the
//! members are used for. The file is polled, because file notifications do not travel over network file systems and
//! mounted configuration.
//!
//! A change is read once the file has looked the same for one whole poll, so that a file being written is not taken for
//! a smaller one, and it is checked again after the reading. A list that leaves out more than a third of the members at
//! once is more often an accident of whatever writes the file than a plan: it is reported, and taken only after it has
//! stood there for [`MASS_LEAVE_HOLD`]. An empty list is never taken.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::member::{Members, MembersError};

/// How often the file is looked at; a change is in force after two such times at the latest.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long a list that leaves out more than a third of the members must stand unchanged before it is believed: long
/// enough for a writer that was interrupted to finish or for somebody to see the warning.
pub const MASS_LEAVE_HOLD: Duration = Duration::from_secs(30);
/// Largest file that is read: 65,536 members with names of 128 bytes fit.
pub const MAX_FILE_BYTES: u64 = 32 << 20;

/// Members may leave one by one however few they are; beyond that at most one in so many leaves at once.
const LEAVING_SHARE: usize = 3;

/// Why a members file was not taken. The last good list stays in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// The file is missing, is no regular file, or cannot be read as text.
    #[error("the members file {path} cannot be read: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The file has more than [`MAX_FILE_BYTES`].
    #[error("the members file {path} has {bytes} bytes, more than {MAX_FILE_BYTES}: is it the right file?")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file lists nobody.
    #[error("the members file {path} lists no member; write one per line as id=host:port[,weight[,zone]]")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A line is wrong, or does not fit with another.
    #[error("the members file {path}, {error}")]
    Members {
        /// The file.
        path: PathBuf,
        /// Which line, and what is wrong with it.
        error: MembersError,
    },
    /// The list leaves out more than a third of the members.
    #[error(
        "the members file {path} leaves out {leaving} of {members} members; it is taken if it stays so for \
         {MASS_LEAVE_HOLD:?}"
    )]
    MassLeave {
        /// The file.
        path: PathBuf,
        /// How many members of the list in force are not in it.
        leaving: usize,
        /// How many are in force.
        members: usize,
    },
}

/// A watched file of members.
#[derive(Debug)]
pub struct MembersFile {
    path: PathBuf,
    in_force: Members,
    /// How the file looked when it was last read, or found unreadable.
    read: Look,
    /// How it looked at the last poll.
    seen: Look,
    /// A list that leaves out many, and since when it is there.
    held: Option<(Members, Instant)>,
}

/// What tells one content of the file from another without reading it; none where there is no such file.
type Look = Option<(i64, i64, u64, u64, u64)>;

impl MembersFile {
    /// Reads the file for the first time, on the calling thread. The members are also those that a later change is
    /// compared with.
    ///
    /// # Errors
    /// The file cannot be used; there is no earlier list to go on with.
    pub fn open(path: impl Into<PathBuf>) -> Result<(Self, Members), DiscoveryError> {
        let path = path.into();
        let (look, members) = load(&path)?;
        let file = Self { path, in_force: members.clone(), read: look, seen: look, held: None };
        Ok((file, members))
    }

    /// Waits for the next list of members that differs from the last one. May be dropped and called again.
    ///
    /// # Errors
    /// The file changed into one that is not taken; told once per change. The last good list stays in force, and the
    /// next call goes on watching.
    pub async fn next(&mut self) -> Result<Members, DiscoveryError> {
        loop {
            sleep(POLL_INTERVAL).await;
            let path = self.path.clone();
            let look = blocking(move || look(&path)).await;
            if look != std::mem::replace(&mut self.seen, look) {
                // It is being written, or a list that was held is not there any more.
                self.held = None;
            } else if look != self.read {
                if let Some(members) = self.reread(look).await? {
                    return Ok(members);
                }
            } else if let Some((members, _)) = self.held.take_if(|(_, since)| since.elapsed() >= MASS_LEAVE_HOLD) {
                self.in_force = members.clone();
                return Ok(members);
            }
        }
    }

    /// Reads a file that has changed and looks like this now; nothing if its members are the same or it changed
    /// meanwhile.
    async fn reread(&mut self, polled: Look) -> Result<Option<Members>, DiscoveryError> {
        let path = self.path.clone();
        let loaded = blocking(move || load(&path)).await;
        if loaded.as_ref().is_ok_and(|(look, _)| *look != polled) {
            // Written while it was read: the next polls see that and read it again.
            return Ok(None);
        }
        // Not before the reading is over, because a caller who gives up in the middle must not lose the change.
        self.read = polled;
        let (_, members) = loaded?;
        if members == self.in_force {
            return Ok(None);
        }
        let leaving = self.in_force.iter().filter(|member| members.get(member.id()).is_none()).count();
        if leaving > 1 && leaving * LEAVING_SHARE > self.in_force.len() {
            self.held = Some((members, Instant::now()));
            let members = self.in_force.len();
            return Err(DiscoveryError::MassLeave { path: self.path.clone(), leaving, members });
        }
        self.in_force = members.clone();
        Ok(Some(members))
    }
}

/// Runs file operations off the runtime's threads, because a file may be on a network that is slow.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and with it whoever waits here.
            Err(_) => std::future::pending().await,
        },
    }
}

fn look(path: &Path) -> Look {
    std::fs::metadata(path).ok().as_ref().and_then(look_of)
}

fn look_of(found: &Metadata) -> Look {
    Some((found.mtime(), found.mtime_nsec(), found.size(), found.ino(), found.dev()))
}

/// The file's members, and how it looked after they were read.
fn load(path: &Path) -> Result<(Look, Members), DiscoveryError> {
    let unreadable = |error: io::Error| DiscoveryError::Unreadable { path: path.to_owned(), reason: error.to_string() };
    // Looked at before it is opened: opening a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::other("it is not a regular file")));
    }
    let file = File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    (&file).take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(DiscoveryError::TooLarge { path: path.to_owned(), bytes: found.size() });
    }
    let members =
        Members::from_lines(&text).map_err(|error| DiscoveryError::Members { path: path.to_owned(), error })?;
    if members.is_empty() {
        return Err(DiscoveryError::Empty { path: path.to_owned() });
    }
    Ok((look_of(&found), members))
}
