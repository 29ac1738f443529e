//! Layer 3: the cluster service.
//!
//! Knows what a client needs to start from one address, and the worker's numbers. It must not say endpoints or
//! credentials of mounts.

use std::sync::Arc;

use alcedo_cluster::{HASH_NAME, Member, VNODES_PER_WEIGHT};
use alcedo_origin::{Freshness, Mount};
use alcedo_proto::v1;
use alcedo_proto::v1::cluster_service_server::ClusterService;
use tonic::{Request, Response, Status};

use super::{Door, convert};
use crate::connection::Line;

/// Version of the wire contract: 2 knows prepared lookups, 3 lookup streams in frames.
const PROTOCOL: u32 = alcedo_proto::framing::SINCE_PROTOCOL;

/// `alcedo.v1.ClusterService`.
pub(super) struct ClusterDoor(pub(super) Arc<Door>);

#[tonic::async_trait]
impl ClusterService for ClusterDoor {
    async fn cluster(&self, request: Request<v1::ClusterRequest>) -> Result<Response<v1::ClusterResponse>, Status> {
        let member = |member: &Member| v1::Member {
            id: member.id().to_owned(),
            address: member.address().to_owned(),
            weight: member.weight(),
            zone: member.zone().to_owned(),
        };
        let mount = |mount: &Arc<Mount>| v1::Mount {
            name: mount.name().to_owned(),
            url: mount.url().to_owned(),
            freshness: freshness_name(mount.freshness()).to_owned(),
        };
        let ring = self.0.membership.ring();
        let is_near = request.extensions().get::<Line>().is_some_and(|line| line.is_near);
        Ok(Response::new(v1::ClusterResponse {
            members: ring.members().iter().map(member).collect(),
            ring: Some(v1::RingParameters {
                epoch: ring.epoch(),
                vnodes_per_weight: VNODES_PER_WEIGHT,
                hash: HASH_NAME.to_owned(),
            }),
            mounts: self.0.lookups.mounts().iter().map(mount).collect(),
            protocol: PROTOCOL,
            unix_socket: if is_near { self.unix_socket() } else { String::new() },
            worker_id: self.0.worker_id.clone(),
        }))
    }

    async fn status(&self, _request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let Door { metrics, lookups, .. } = self.0.as_ref();
        let counts: Vec<_> = lookups.mounts().iter().map(|mount| mount.counts()).collect();
        let pages = lookups.store().pages();
        Ok(Response::new(v1::StatusResponse {
            worker_id: self.0.worker_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: convert::micros(self.0.started.elapsed()) / 1_000,
            ring_epoch: self.0.membership.epoch(),
            draining: !self.0.is_ready(),
            lookups_total: metrics.lookups_total.get(),
            lookups_failed: metrics.lookups_failed.get(),
            lookups_in_flight: metrics.lookups_in_flight.get(),
            origin_gets: counts.iter().map(|counts| counts.gets).sum(),
            origin_bytes: counts.iter().map(|counts| counts.bytes).sum(),
            index_bytes: lookups.indexes().bytes(),
            index_capacity_bytes: lookups.indexes().capacity_bytes(),
            page_bytes: pages.bytes(),
            page_capacity_bytes: pages.capacity_bytes(),
            on_disk: pages.is_on_disk(),
            shed_total: metrics.shed_total.get(),
            panics_total: metrics.panics_total.get(),
            ready: self.0.is_ready(),
        }))
    }
}

impl ClusterDoor {
    /// Where the worker listens beside its address, as a client on this machine finds it; empty where there is none.
    fn unix_socket(&self) -> String {
        let path = self.0.settings().listen_unix.as_ref().and_then(|path| std::path::absolute(path).ok());
        path.and_then(|path| path.to_str().map(str::to_owned)).unwrap_or_default()
    }
}

fn freshness_name(freshness: Freshness) -> &'static str {
    match freshness {
        Freshness::Immutable => "immutable",
        Freshness::Ttl { .. } => "ttl",
        Freshness::Always => "always",
    }
}
