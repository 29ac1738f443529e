//! Alcedo's wire contract, version 1, as generated from `proto/alcedo/v1`.
//!
//! Layer 0. The comments in the `.proto` files are the contract; only [`framing`], the way of a lookup stream without
//! gRPC, is written by hand. It knows nothing of Parquet, stores or the ring: a message is translated where it enters
//! (`alcedo-worker`'s `service`, `alcedo-client`'s `transport`).

pub mod framing;

/// Messages, clients and servers of package `alcedo.v1`.
#[allow(missing_docs, clippy::all, rustdoc::all, unreachable_pub, unused_qualifications)]
pub mod v1 {
    tonic::include_proto!("alcedo.v1");
}

/// The encoded `FileDescriptorSet` of package `alcedo.v1`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/alcedo.v1.bin"));
