//! Where files are placed: the ring as people look at it.
//!
//! Knows how the ring and the mounts of a worker's answer are read. It must not know connections or calls: routing does
//! by itself what is only described here.

use alcedo_cluster::{HASH_NAME, Ring, VNODES_PER_WEIGHT, file_hash};

use crate::client::Client;
use crate::cluster::Member;
use crate::error::{Error, Kind};
use crate::routing::{View, placed_url};

/// Who answers for a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The URL under which the path is placed: a mount's name is replaced by its URL, and a final slash is left out.
    pub url: String,
    /// The hash of that URL, which is its place on the ring.
    pub hash: u64,
    /// The owner, then the replicas; empty where no ring is known, because there any worker answers.
    pub owners: Vec<Member>,
}

/// The ring as this client computes it.
#[derive(Debug, Clone, PartialEq)]
pub struct RingView {
    /// A digest of the members, the same wherever the ring is.
    pub epoch: u64,
    /// Virtual nodes per unit of a member's weight.
    pub vnodes_per_weight: u32,
    /// Name of the hash that places files and virtual nodes.
    pub hash_name: String,
    /// Each member, sorted by id, and the part of the hash space that it owns; the parts sum to 1.
    pub members: Vec<(Member, f64)>,
}

impl Client {
    /// The owner and the replicas of a file or prefix, by the view of the cluster that this client routes by; it is
    /// read from a worker if there is none yet.
    ///
    /// # Errors
    /// No worker told its view, or the ring is one that this client cannot compute.
    pub async fn owners(&self, path: &str) -> Result<Placement, Error> {
        let view = self.routing.view(self.start(self.deadline)?).await?;
        let url = placed_url(&view.cluster.mounts, path);
        let owners = known(&view)?.map_or_else(Vec::new, |ring| ring.owners(&url).map(Member::of_ring).collect());
        Ok(Placement { hash: file_hash(&url), url, owners })
    }

    /// The ring, read from a worker now; without members where the worker stands alone.
    ///
    /// # Errors
    /// No worker told its view, or the ring is one that this client cannot compute.
    pub async fn ring(&self) -> Result<RingView, Error> {
        let view = self.routing.read_view(self.start(self.deadline)?).await?;
        let members = known(&view)?.map_or_else(Vec::new, |ring| {
            ring.members().iter().map(Member::of_ring).zip(ring.shares().iter().copied()).collect()
        });
        let epoch = view.cluster.epoch;
        Ok(RingView { epoch, vnodes_per_weight: VNODES_PER_WEIGHT, hash_name: HASH_NAME.to_owned(), members })
    }
}

/// The view's ring; none where there are no members to make one of.
fn known(view: &View) -> Result<Option<&Ring>, Error> {
    if view.ring.is_none() && !view.cluster.members.is_empty() {
        let message = "the ring has parameters or members that this client does not know; use a client of the \
                       workers' version";
        return Err(Error::new(Kind::Failed, message));
    }
    Ok(view.ring.as_ref())
}
