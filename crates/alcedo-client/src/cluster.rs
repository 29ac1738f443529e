//! The cluster as callers see it: members, mounts, and how the workers are doing.
//!
//! Plain values and their translation from the wire. It must not know how the ring is computed or used.

use alcedo_proto::v1 as pb;

/// What a worker told about its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterView {
    /// The workers of the ring; empty where a worker stands alone.
    pub members: Vec<Member>,
    /// The ring's epoch: a digest of its members.
    pub epoch: u64,
    /// The names under which origins are reached.
    pub mounts: Vec<Mount>,
    /// Version of the wire contract that the worker speaks at most.
    pub protocol: u32,
}

/// One worker of the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name for life, which decides what it owns; empty for an endpoint that is not known to a ring.
    pub id: String,
    /// `host:port` of its gRPC listener.
    pub address: String,
    /// Its share of the files relative to other members.
    pub weight: u32,
    /// Where it stands; may be empty.
    pub zone: String,
}

/// A configured name for one origin prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The first part of paths below it.
    pub name: String,
    /// The prefix that it stands for, `s3://bucket/prefix`.
    pub url: String,
    /// `immutable`, `ttl` or `always`.
    pub freshness: String,
}

/// How a worker is doing. Counters count from its start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs)] // The names are those of alcedo.v1.StatusResponse and say what they count.
pub struct WorkerStatus {
    pub worker_id: String,
    pub version: String,
    pub uptime_ms: u64,
    pub ring_epoch: u64,
    pub draining: bool,
    pub lookups_total: u64,
    pub lookups_failed: u64,
    pub lookups_in_flight: u64,
    pub origin_gets: u64,
    pub origin_bytes: u64,
    pub index_bytes: u64,
    pub index_capacity_bytes: u64,
    pub page_bytes: u64,
    pub page_capacity_bytes: u64,
    pub on_disk: bool,
    pub shed_total: u64,
    pub panics_total: u64,
    pub ready: bool,
}

impl ClusterView {
    pub(crate) fn from_wire(reply: pb::ClusterResponse) -> Self {
        let member = |m: pb::Member| Member { id: m.id, address: m.address, weight: m.weight, zone: m.zone };
        let mount = |m: pb::Mount| Mount { name: m.name, url: m.url, freshness: m.freshness };
        Self {
            members: reply.members.into_iter().map(member).collect(),
            epoch: reply.ring.map_or(0, |ring| ring.epoch),
            mounts: reply.mounts.into_iter().map(mount).collect(),
            protocol: reply.protocol,
        }
    }
}

impl Member {
    /// A worker of which only the address is known.
    pub(crate) fn at(address: &str) -> Self {
        Self { id: String::new(), address: address.to_owned(), weight: 1, zone: String::new() }
    }

    /// A member as the ring holds it.
    pub(crate) fn of_ring(member: &alcedo_cluster::Member) -> Self {
        Self {
            id: member.id().to_owned(),
            address: member.address().to_owned(),
            weight: member.weight(),
            zone: member.zone().to_owned(),
        }
    }
}

impl WorkerStatus {
    pub(crate) fn from_wire(reply: pb::StatusResponse) -> Self {
        Self {
            worker_id: reply.worker_id,
            version: reply.version,
            uptime_ms: reply.uptime_ms,
            ring_epoch: reply.ring_epoch,
            draining: reply.draining,
            lookups_total: reply.lookups_total,
            lookups_failed: reply.lookups_failed,
            lookups_in_flight: reply.lookups_in_flight,
            origin_gets: reply.origin_gets,
            origin_bytes: reply.origin_bytes,
            index_bytes: reply.index_bytes,
            index_capacity_bytes: reply.index_capacity_bytes,
            page_bytes: reply.page_bytes,
            page_capacity_bytes: reply.page_capacity_bytes,
            on_disk: reply.on_disk,
            shed_total: reply.shed_total,
            panics_total: reply.panics_total,
            ready: reply.ready,
        }
    }
}
