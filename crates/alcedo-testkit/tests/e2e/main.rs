//! The whole road, end to end: a client, a worker over real sockets, a store over real HTTP, and the built command.
//!
//! Layer 5. Every module is one subject. They know what a user may rely on: rows, messages, exit codes, and counts of
//! requests and bytes at the store. They must not know time: nothing here fails because a machine is slow.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod absent;
mod bad_files;
mod bad_questions;
mod cache_dir;
mod cold;
mod command;
mod corpus;
mod crowd;
mod daemon;
mod damage;
mod derived;
mod faults;
mod forms;
mod hostile;
mod large;
mod learning;
mod loss;
mod machine_form;
mod near;
mod neutral;
mod operate;
mod output;
mod overwrite;
mod pins;
mod restart;
mod rows;
mod sample;
mod secrets;
mod sent_pages;
mod stream;
mod trips;
mod wire;
