//! Layer 1: bytes that a worker may throw away, named by file, content version and place.
//!
//! Knows ranges of files, what of them is here ([`PageStore`]) and what is on its way ([`Flights`]). It must not know
//! what the bytes mean, who owns a file or how a request came in, and it never asks the origin itself: whoever reads
//! hands in the function that fetches. Every byte in here may vanish at any moment without a wrong answer.

mod assembly;
mod cache_dir;
mod counts;
mod disk;
mod disk_io;
mod extent;
mod file_key;
mod flight;
mod health;
mod memory;
mod metadata;
mod page;
mod page_store;
mod places;
mod reading_threads;
mod restart;
mod segment;
mod segment_log;
mod store_name;
mod stretch;
mod synthetic;
mod table;
mod tally;
mod write_queue;
mod writer;

pub use cache_dir::{CacheDir, OpenError};
pub use counts::PageStoreCounts;
pub use file_key::FileKey;
pub use flight::{Fetch, Fetched, FlightSettings, Flights, Lost, Urgency, gap_worth_a_trip};
pub use metadata::{Metadata, MetadataCounts, MetadataError, Table};
pub use page::{BLOCK_BYTES, PAGE_BYTES};
pub use page_store::{PageStore, StoredFile};
pub use store_name::StoreName;
pub use synthetic::synthetic_segments;
