//! What tests, benchmarks and the quickstart are made of. Layer 5: it may see every crate, none but the benches see it.
//!
//! - [`s3`]: an object store in this process, over HTTP, with faults, latency and exact counters. It knows nothing of
//!   Alcedo.
//! - [`cluster`]: a store, workers and a client of them, in this process or as processes.
//! - [`process`]: the built command, and its workers as processes that can be killed and started again.
//! - [`lake`]: a sample lake of Parquet files whose every row can be computed, so that each answer is compared with
//!   truth.
//! - [`quickstart`]: the program behind `cargo xtask quickstart`.
//! - [`soak`]: a long mixed run against a worker with small bounds.
//!
//! What is here is never linked into what users run.

pub mod cluster;
pub mod lake;
pub mod process;
pub mod quickstart;
pub mod s3;
pub mod soak;
