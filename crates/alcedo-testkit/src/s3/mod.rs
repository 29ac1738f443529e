//! An object store in this process: real HTTP on a loopback port, objects in memory or on disk, faults on request.
//!
//! Layer 5, tests and the quickstart only. It knows the protocols of three stores as their clients speak them: S3, the
//! XML API of Google Cloud Storage (the same dialect with a generation header) and Azure Blob. It must not know
//! anything of Alcedo: what it serves and counts is what any client of a store would see, and so it can be its judge.
//!
//! One request goes straight through the files: `server` accepts, `call` parses, `auth` checks, `faults` says what goes
//! wrong, `amazon` or `azure` answers from `objects` with `content` (status, range, body) or a `refusal`, `log` counts.
//!
//! What it is strict about, so that a careless client is found out: conditions and ranges are honoured exactly as S3
//! does, a query parameter or a conditional header that it does not implement is refused and never ignored, and a
//! signature is verified when an access key is set.

mod amazon;
mod auth;
mod azure;
mod call;
mod content;
mod faults;
mod log;
mod objects;
mod range;
mod refusal;
mod server;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
mod xml;

pub use faults::{Fault, Faults, Framing, Rule, Times};
pub use log::{Counters, KeyCounters, Operation, RequestRecord, trips};
pub use server::{S3Options, S3Server};
