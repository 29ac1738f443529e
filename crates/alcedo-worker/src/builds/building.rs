//! Layer 3: one build from its machine to its object.
//!
//! Knows parts, the head, and the reasons to give up between them. It must not know what is built, nor when.

use std::sync::Arc;

use alcedo_lookup::derived::Built;
use alcedo_lookup::machine::{Machine, drive};

use super::pace::Paced;
use super::{Job, room};
use crate::derived::{Full, NotKept, Object};
use crate::error::Error;
use crate::service::Door;

/// Why an object was not made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failed {
    /// The quota has no room for it.
    #[error("{0}")]
    Full(#[from] Full),
    /// It was too large in the end, or the disk failed.
    #[error("{0}; raise the quota, or ask for fewer columns")]
    NotKept(#[from] NotKept),
    /// Its head is too large to be kept in memory.
    #[error("its head has {bytes} bytes, and at most {limit} are kept in memory: raise cache.heads")]
    Head {
        /// Its size.
        bytes: u64,
        /// The largest.
        limit: u64,
    },
    /// The file has another version by now.
    #[error("the file changed meanwhile")]
    Changed,
    /// The worker ends.
    #[error("the worker is shutting down")]
    Draining,
    /// The same object is being made already.
    #[error("it is being made already: try again later")]
    Busy,
    /// A defect of this program.
    #[error("building it panicked; please report it")]
    Panicked,
    /// The file's bytes, or the origin.
    #[error("{0}")]
    Broken(Error),
}

impl Failed {
    /// Whether the next try would most likely fail as well.
    pub(super) fn is_remembered(&self) -> bool {
        !matches!(self, Self::Changed | Self::Draining | Self::Busy)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        match error {
            Error::VersionChanged { .. } => Self::Changed,
            Error::Draining => Self::Draining,
            error if error.is_changed() || error.is_not_found() => Self::Changed,
            error => Self::Broken(error),
        }
    }
}

/// Drives a builder to its end and keeps what it makes, part by part. Nothing is left of an object that is given up.
pub(super) async fn build<M>(door: &Door, source: &Paced<'_>, job: &Job, machine: M) -> Result<Arc<Object>, Failed>
where
    M: Machine<Output = Built<M>>,
{
    room(door, job)?;
    let derived = door.lookups.derived();
    let mut draft = derived.begin(&job.version.key, &job.name, job.is_pinned);
    let mut machine = machine;
    let head = loop {
        match drive(machine, source).await? {
            Built::Part { number, bytes, rest } => {
                draft.part(number, &bytes)?;
                source.pass().await?;
                machine = rest;
            }
            Built::Head(head) => break head,
        }
    };
    let (bytes, limit) = (head.len() as u64, derived.largest_head_bytes());
    if bytes > limit {
        return Err(Failed::Head { bytes, limit });
    }
    let made = draft.head(&head, job.rate)?;
    // Nobody can ask for those of older versions any more.
    derived.forget_others(&job.version.key);
    Ok(made)
}
