//! Layer 1: where the members come from, one file per source.
//!
//! Knows sources and what is wrong with them, and hands on checked sets of members. It must not know the ring or what
//! anybody does with a change: a source that is down or wrong leaves the last good list in force, because membership
//! decides speed and never correctness. A static list needs no source of its own: [`Members::from_items`] checks it.
//!
//! [`Members::from_items`]: crate::Members::from_items

mod file;

pub use file::{DiscoveryError, MASS_LEAVE_HOLD, MAX_FILE_BYTES, MembersFile, POLL_INTERVAL};
