//! Point lookups on a Parquet data lake, through a ring of Alcedo workers.
//!
//! Layer 2, and the product that services embed: it knows the ring, the wire and how answers are decoded. It must not
//! know how a worker stores what it caches; any worker can answer for any file, and the ring only says who answers
//! fastest.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! # async fn example() -> Result<(), alcedo_client::Error> {
//! let client = alcedo_client::Client::builder()
//!     .endpoints(["127.0.0.1:7610"])
//!     .deadline(Duration::from_millis(50))
//!     .build()?; // No I/O yet; a clone is an `Arc`.
//!
//! let answer = client.lookup("lake/users/").key_column("id").keys([17, 4711]).select(["name", "score"]).await?;
//! for (file, row) in answer.rows() {
//!     println!("key {} in {}: {:?}", row.key_index, file.url, row.values);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! * A path names a mount (`lake/users/part-0.parquet`) or the URL that the mount stands for; it is a file or a prefix.
//! * Lookups travel on one long-lived stream per connection and are answered in any order. Dropping a lookup's future
//!   cancels that lookup on its worker and disturbs no other.
//! * Every call has a deadline: the builder's, unless the lookup has its own. It holds over all tries, and even if the
//!   worker is silent.
//! * A worker that did not accept a call (it is down, or it drains) is passed over for the next owner of the file, then
//!   for the other endpoints. A call that a worker may have accepted is repeated once, on the next one, as
//!   [`Builder::retry_budget`] allows; one whose deadline passed is not. [`Error::is_retryable`] says whether you may.
//! * A lookup that has no answer after the time that 95 of 100 take is asked of a second worker too, as
//!   [`Builder::hedge_budget`] allows; the first answer wins and the other call is cancelled.
//! * A worker that is short of CPU may send data pages in place of rows, which are decoded on this side
//!   ([`Builder::accept_pages`]).
//! * A client with mounts of its own (feature `fallback`) reads the origin itself while no worker is there.
//! * A question that is asked again travels by a handle, and lookups that wait together in one message;
//!   [`Client::prepare`] keeps the question itself ready as well.
//! * A worker on this machine is asked over its Unix socket if it has one, a worker in this process without a
//!   connection ([`Builder::in_process`]).
//! * The connections live in the tokio runtime of the call that first needed them. If that runtime ends, the next call
//!   connects again.
//!
//! Without the default features `pages` and `fallback` the crate links neither parquet nor an object store's client; it
//! then refuses [`Form::Pages`], reads all other forms, and has only workers to ask.

mod answer;
mod batch;
mod budget;
mod client;
mod cluster;
mod deadline;
mod decode;
mod ending;
mod endpoints;
mod error;
#[cfg(feature = "fallback")]
mod fallback;
#[cfg(any(feature = "pages", feature = "fallback"))]
mod file_calls;
mod file_error;
mod files;
mod handles;
mod health;
mod holdings;
mod kept_pages;
mod lane;
mod latency;
mod local;
mod lookup;
mod many;
mod outbound;
mod parts;
mod pending;
mod pins;
mod placement;
mod prepared;
mod question;
mod replies;
mod request;
mod routing;
mod stream;
mod transport;
mod tries;
mod typed;
mod wire;

pub use alcedo_lookup::key::Key;
pub use alcedo_lookup::schema::{Column, RowSchema, Type, Unit};
pub use alcedo_lookup::value::{Value, uuid_text};
#[cfg(feature = "fallback")]
pub use alcedo_origin::{Freshness, MountConfig, OriginLimits};
pub use answer::{Answer, FileAnswer, KeyStatus, Row, Source, Stage, Trace};
pub use budget::Budget;
pub use client::{Builder, Client, DEFAULT_DEADLINE, MAX_CONNECTIONS_PER_WORKER};
pub use cluster::{ClusterView, Member, Mount, WorkerStatus};
pub use deadline::MAX_DEADLINE;
pub use error::{Error, Kind, Reason};
#[cfg(feature = "fallback")]
pub use fallback::FallbackBudget;
pub use files::{FileInfo, ListOptions, Listing, MAX_LISTED, ParquetInfo};
pub use holdings::{Freed, Holding, Holdings};
pub use kept_pages::{DEFAULT_DECODED_PAGES_BYTES, DecodedPagesUse};
pub use local::{Local, LocalAnswer, LocalFile, LocalLookup, LocalReply};
pub use lookup::Lookup;
pub use pins::{PinEntry, PinInfo, PinState, PinThing, Pins, Unpinned};
pub use placement::{Placement, RingView};
pub use prepared::Prepared;
pub use request::{Form, MAX_KEYS_PER_MESSAGE, MAX_REQUEST_BYTES};
