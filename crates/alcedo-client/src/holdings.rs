//! What the workers hold of a file or of the files below a prefix, and dropping it.
//!
//! Knows these calls and that every worker is asked: a file's pages may be with its owner, with replicas that stood in,
//! and with whoever answered while rings disagreed. It must not know how a worker keeps anything. Neither call changes
//! an answer; dropping makes later ones cost more.

use alcedo_proto::v1 as pb;

use crate::client::Client;
use crate::cluster::Member;
use crate::deadline::Deadline;
use crate::ending::CallError;
use crate::error::{Error, Kind};
use crate::files::MAX_LISTED;
use crate::transport::Worker;

/// What one worker holds of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The file's canonical URL.
    pub url: String,
    /// The file's size.
    pub size_bytes: u64,
    /// The content version that the worker believes to be the current one; opaque.
    pub version: String,
    /// Bytes of that version in the worker's page store.
    pub cached_bytes: u64,
    /// Whether the worker has the file's index.
    pub indexed: bool,
}

/// What one worker holds of a file, or of the files below a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holdings {
    /// In the origin's order; files of which nothing is held too.
    pub files: Vec<Holding>,
    /// Whether more files lie below the prefix than the worker lists or [`MAX_LISTED`] allows.
    pub truncated: bool,
}

/// What one worker dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freed {
    /// Files of which anything was held.
    pub files: u64,
    /// Bytes of their pages.
    pub freed_bytes: u64,
    /// Files of which something is pinned, which stays.
    pub pinned_files: u64,
    /// Bytes of that.
    pub pinned_bytes: u64,
}

impl Client {
    /// What every member holds of a file or of the files below a prefix, in the order of the members; the endpoints
    /// where no ring is known.
    ///
    /// # Errors
    /// No worker told who the members are. A single member's failure is in its place of the list.
    pub async fn check(&self, path: &str) -> Result<Vec<(Member, Result<Holdings, Error>)>, Error> {
        self.every_worker(|worker, deadline| async move { checked(&worker, path, deadline).await }).await
    }

    /// What one member holds of a file or of the files below a prefix.
    ///
    /// # Errors
    /// The member is not one of the cluster's, did not answer, or knows no such path.
    pub async fn check_at(&self, member: &Member, path: &str) -> Result<Holdings, Error> {
        let deadline = self.start(self.deadline)?;
        let view = self.routing.view(deadline).await?;
        let mut workers = self.routing.all_workers(&view).into_iter();
        let worker = workers.find(|(one, _)| one.address == member.address).and_then(|(_, worker)| worker);
        let absent = || Error::invalid(format!("{} at {} is no member of the cluster", member.id, member.address));
        let worker = worker.ok_or_else(absent)?;
        checked(&worker, path, deadline).await.map_err(|error| worker.error_of(error))
    }

    /// Makes every member drop what it holds of a file or of the files below a prefix, in every content version. The
    /// origin's files stay, and so do answers. What is pinned stays, too.
    ///
    /// # Errors
    /// No worker told who the members are. A single member's failure is in its place of the list.
    pub async fn free(&self, path: &str) -> Result<Vec<(Member, Result<Freed, Error>)>, Error> {
        let ask = |worker: std::sync::Arc<Worker>, deadline| async move {
            let reply = worker.free(path.to_owned(), deadline).await?;
            let pb::FreeResponse { files, freed_bytes, pinned_files, pinned_bytes } = reply;
            Ok(Freed { files, freed_bytes, pinned_files, pinned_bytes })
        };
        self.every_worker(ask).await
    }
}

async fn checked(worker: &Worker, path: &str, deadline: Deadline) -> Result<Holdings, CallError> {
    let mut pages = worker.check(path.to_owned(), deadline).await?;
    let mut holdings = Holdings::default();
    while let Some(page) = worker.next_message(&mut pages, deadline).await? {
        holdings.truncated |= page.truncated;
        for held in page.holdings {
            if held.cached_bytes > held.size_bytes {
                let what = format!("more bytes of {} than it has", held.url);
                let message = format!("the answer of {} is damaged: it holds {what}", worker.address());
                return Err(CallError::Failed(Error::new(Kind::DataLoss, message)));
            }
            holdings.files.push(Holding::from_wire(held));
        }
        if holdings.files.len() as u64 > MAX_LISTED {
            holdings.files.truncate(MAX_LISTED as usize);
            holdings.truncated = true;
            break;
        }
    }
    Ok(holdings)
}

impl Holding {
    fn from_wire(held: pb::Holding) -> Self {
        Self {
            url: held.url,
            size_bytes: held.size_bytes,
            version: held.version,
            cached_bytes: held.cached_bytes,
            indexed: held.indexed,
        }
    }
}
