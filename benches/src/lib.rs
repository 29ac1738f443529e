//! Layer 6: measurements of Alcedo beside floors and peers.
//!
//! Knows how sides are placed, asked alike and written down. Times are compared within one run on one machine only, so
//! each row is a ratio. [`beside_redis`], [`footer`], [`hostile`], [`ring`] and [`restart`] each measure one thing;
//! `bin/bench.rs` runs them all. Peers run as programs of the system, never as libraries.

#![allow(clippy::print_stdout, clippy::print_stderr)]

pub mod beside_redis;
pub mod footer;
pub mod hostile;
pub mod load;
pub mod machine;
pub mod placement;
pub mod redis_server;
pub mod report;
pub mod restart;
pub mod ring;
pub mod side;
