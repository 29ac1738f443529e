//! The house rules, each one a test; `docs/ARCHITECTURE.md` gives their reasons.
//!
//! Top of the house: reads manifests, the lock file, sources and documents as text. It must not know what any crate
//! does. A rule is a function from text to a list of faults, so that beside every rule a test plants the fault once and
//! sees it reported.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod arrows;
mod dependencies;
mod map;
mod outside;
mod rust_text;
mod sources;
mod tree;
