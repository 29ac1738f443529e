//! Layer 1: bytes that a worker may throw away, named by file, content version and place.
//!
//! Knows ranges of files, what of them is here ([`PageStore`]) and what is on its way ([`Flights`]). It must not know
//! what the bytes mean, who owns a file or how a request came in, and it never asks the origin itself: whoever reads
//! hands in the function that fetches. Every byte in here may vanish at any moment without a wrong answer.

mod file_key;
mod flight;
mod page;
mod page_store;

pub use file_key::FileKey;
pub use flight::{Fetch, Fetched, FlightSettings, Flights, Lost};
pub use page::{BLOCK_BYTES, PAGE_BYTES};
pub use page_store::PageStore;
