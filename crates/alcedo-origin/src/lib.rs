//! The truth, read carefully. Layer 0: knows mounts, canonical URLs, content versions, conditional range reads and
//! listings over `object_store`; knows nothing of Parquet, of our own disks, of the ring or of gRPC, because every
//! other crate must be able to check its bytes against this one without trusting anything in between.
//!
//! Three promises hold for every answer of this crate. A range read returns exactly the bytes that were asked for, of
//! exactly the version that was named, or an error. Every call ends by its deadline. No error, log line or `Debug`
//! output carries a credential.

mod connector;
mod credentials;
mod error;
#[cfg(test)]
mod fake;
mod limits;
mod list;
mod local;
mod mount;
mod pace;
mod place;
mod read;
mod recent;
mod resolve;
mod secret;
mod stores;
mod version;

pub use error::{Error, ErrorKind};
pub use limits::OriginLimits;
pub use list::{Listed, Listing};
pub use mount::{CountsSnapshot, Freshness, Mount, MountConfig, Scheme};
pub use object_store::path::Path;
pub use pace::Pace;
pub use place::{MAX_PATH_BYTES, Place};
pub use read::Tail;
pub use recent::Recent;
pub use resolve::Mounts;
pub use secret::Secret;
pub use version::{ContentVersion, FileStat};
