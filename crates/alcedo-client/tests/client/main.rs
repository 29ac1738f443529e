//! The client against a scripted worker: every test says frame by frame what the worker does.
//!
//! It knows the wire and the public API only. That a real worker behaves like the script is for the end-to-end tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod acting;
mod answers;
mod fallback;
mod files;
mod frames;
mod hedges;
mod local;
mod many;
mod parts;
mod pins;
mod prepared;
mod routing;
mod scripted;
mod stream;
mod tries;
