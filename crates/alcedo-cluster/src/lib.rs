//! Layer 1: who is in the ring and who owns what.
//!
//! Knows workers by id, address, weight and zone, where their list comes from, and maps the canonical URL of a file to
//! its owner and replicas by the rules that `proto/alcedo/v1/cluster.proto` states. It must not know what files
//! contain, how a worker is reached or whether it is alive: the ring decides speed, never correctness, so it stays a
//! pure function of its members that a client and a worker compute alike.

mod discovery;
mod member;
mod ring;

pub use discovery::{DiscoveryError, MASS_LEAVE_HOLD, MAX_FILE_BYTES, MembersFile, POLL_INTERVAL};
pub use member::{
    DEFAULT_WEIGHT, MAX_MEMBERS, MAX_NAME_BYTES, MAX_TOTAL_WEIGHT, MAX_WEIGHT, Member, MemberError, Members,
    MembersError, Place,
};
pub use ring::{HASH_NAME, MAX_REPLICAS, Owners, Ring, VNODES_PER_WEIGHT, file_hash};
