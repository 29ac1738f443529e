//! What tests, benchmarks and the quickstart are made of. Layer 5: it may see every crate, none but the benches see it.
//!
//! - [`s3`]: an object store in this process, over HTTP, with faults, latency and exact counters. It knows nothing of
//!   Alcedo.
//! - [`cluster`]: a store, a worker and a client in one process, and the built command beside them.
//! - [`lake`]: a sample lake of Parquet files whose every row can be computed, so that each answer is compared with
//!   truth.
//! - [`quickstart`]: the program behind `cargo xtask quickstart`.
//!
//! What is here is never linked into what users run.

pub mod cluster;
pub mod lake;
pub mod quickstart;
pub mod s3;
