//! Layer 6: measurements of Alcedo beside floors and peers.
//!
//! Knows how sides are placed, asked alike and written down. Times are compared within one run on one machine only, so
//! each row is a ratio wherever there is something to compare with, and every answer is compared with the truth. One
//! module measures one thing: [`beside_redis`] (hot rows), [`big_tables`], [`cold`], [`peers`], [`memory`],
//! [`scaling`], [`overload`], [`builds`], [`footer`], [`hostile`], [`ring`], [`restart`]. Under them, [`floors`] and
//! [`decoding`] are what nobody can go below; [`table`], [`keys`], [`asker`], [`flood`] and [`side`] what is asked,
//! [`load`], [`series`] and [`report`] how it is counted. `bin/bench.rs` runs them. Peers run as programs of the
//! system, never as libraries.

#![allow(clippy::print_stdout, clippy::print_stderr)]

pub mod asker;
pub mod beside_redis;
pub mod big_tables;
pub mod builds;
pub mod built;
pub mod cold;
pub mod decoding;
pub mod effort;
pub mod flood;
pub mod floors;
pub mod footer;
pub mod hostile;
pub mod keys;
pub mod load;
pub mod machine;
pub mod memory;
pub mod overload;
pub mod peers;
pub mod placement;
pub mod redis_server;
pub mod report;
pub mod restart;
pub mod ring;
pub mod scaling;
pub mod series;
pub mod side;
pub mod table;
pub mod transport;
pub mod worker;
