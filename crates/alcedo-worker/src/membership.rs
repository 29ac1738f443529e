//! Layer 3: the ring as it is now.
//!
//! Knows the last good view of the members, and how a newer one replaces it. It must not know where views come from.
//! Every reply reads the epoch, so that is one atomic number; the ring itself is asked for rarely.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use alcedo_cluster::{Members, MembersFile, Ring};

use crate::metrics::Metrics;

/// The current ring.
#[derive(Debug)]
pub(crate) struct Membership {
    epoch: AtomicU64,
    ring: RwLock<Ring>,
}

impl Membership {
    pub(crate) fn new(ring: Ring) -> Self {
        Self { epoch: AtomicU64::new(ring.epoch()), ring: RwLock::new(ring) }
    }

    /// The epoch of the current ring.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// The current ring; a clone of it is cheap.
    pub(crate) fn ring(&self) -> Ring {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes another set of members. Building a ring of a thousand workers takes a while: not for serving threads.
    pub(crate) fn replace(&self, members: &Members, worker_id: &str) {
        let ring = Ring::new(members);
        let (epoch, before) = (ring.epoch(), self.epoch());
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = ring;
        self.epoch.store(epoch, Ordering::Relaxed);
        if epoch != before {
            tracing::info!(members = members.len(), epoch = format_args!("{epoch:016x}"), "the ring has changed");
        }
        warn_if_absent(members, worker_id);
    }
}

/// Legal while a worker joins or leaves, and worth a line: nobody is sent to it.
pub(crate) fn warn_if_absent(members: &Members, worker_id: &str) {
    if members.get(worker_id).is_none() {
        tracing::warn!(worker_id, "this worker is not among the members: it answers, but owns no files");
    }
}

/// Follows a members file for as long as it is polled. What cannot be used is logged and counted; the last good view
/// stays.
pub(crate) async fn follow(mut file: MembersFile, membership: &Membership, worker_id: &str, metrics: &Metrics) {
    loop {
        match file.next().await {
            Ok(members) => membership.replace(&members, worker_id),
            Err(error) => {
                metrics.members_errors_total.up();
                tracing::error!(%error, "the members file cannot be used; the last good members stay");
            }
        }
    }
}
