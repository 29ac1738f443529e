//! Where a client starts: the addresses that it was given, and those in a members file.
//!
//! Knows how the file becomes workers. It must not know the ring: the workers say who is in it, and the file may be
//! older than they are.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use alcedo_cluster::MembersFile;

use crate::error::{Error, Kind, Reason};
use crate::transport::{Reach, Worker};

/// The endpoints of one client.
#[derive(Debug)]
pub(crate) struct Endpoints {
    given: Box<[Arc<Worker>]>,
    file: Option<PathBuf>,
    reach: Reach,
    /// Those given, then those of the file.
    current: RwLock<Arc<[Arc<Worker>]>>,
}

impl Endpoints {
    pub(crate) fn new(given: Vec<Worker>, file: Option<PathBuf>, reach: Reach) -> Self {
        let given: Box<[Arc<Worker>]> = given.into_iter().map(Arc::new).collect();
        let current = RwLock::new(Arc::from(given.to_vec()));
        Self { given, file, reach, current }
    }

    /// All of them, as of the last reading of the file.
    pub(crate) fn current(&self) -> Arc<[Arc<Worker>]> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the file again. Workers that stay keep their connections; a file that cannot be used changes nothing.
    ///
    /// # Errors
    /// There is no endpoint at all.
    pub(crate) async fn reload(&self) -> Result<Arc<[Arc<Worker>]>, Error> {
        let known = self.current();
        let Some(path) = self.file.clone() else { return Ok(known) };
        let read = tokio::task::spawn_blocking(move || MembersFile::open(path)).await;
        let members = match read.map_err(|_| Error::internal("the runtime ended while the members file was read"))? {
            Ok((_, members)) => members,
            Err(error) if known.is_empty() => {
                let message = format!("no worker reachable: {error}");
                return Err(Error::new(Kind::Unavailable, message).with_reason(Reason::NoWorker));
            }
            Err(error) => {
                tracing::debug!(%error, "the endpoints stay as they are");
                return Ok(known);
            }
        };
        let mut workers = self.given.to_vec();
        for member in &members {
            let is_it = |worker: &&Arc<Worker>| **worker.address() == *member.address();
            if workers.iter().any(|worker| is_it(&worker)) {
                continue;
            }
            workers.push(match known.iter().find(is_it) {
                Some(worker) => Arc::clone(worker),
                None => Arc::new(Worker::new(member.address(), self.reach)?),
            });
        }
        let workers: Arc<[Arc<Worker>]> = workers.into();
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&workers);
        Ok(workers)
    }
}
