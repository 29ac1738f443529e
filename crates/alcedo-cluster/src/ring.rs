//! Layer 1: the consistent-hash ring, from a file's canonical URL to its owner and replicas.
//!
//! Knows the rules of `RingParameters` in `proto/alcedo/v1/cluster.proto`, which other languages implement too; the
//! golden vectors in `tests/golden` hold it to them. It must not know addresses' meaning, health or load: routing uses
//! the order that the ring gives and may leave it.
//!
//! `hashring` holds the virtual nodes and finds the one that follows a hash. Three things are ours. The keys that it
//! sorts are hashed by us over explicit bytes and pass through an identity hasher, because Rust's `Hash` is not a wire
//! contract. Every virtual node carries its owner and the next distinct members, computed once when the ring is built,
//! because `get_with_replicas` clones the ring per call and repeats members. And no two virtual nodes have one hash,
//! because the binary search inside may return either of two equals.

use std::collections::HashSet;
use std::fmt;
use std::fmt::Write as _;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use hashring::HashRing;
use xxhash_rust::xxh3::xxh3_64;

use crate::member::{Member, Members};

/// Virtual nodes per unit of weight: with 50 members of weight 1 the fullest holds at most 1.15 times the mean.
pub const VNODES_PER_WEIGHT: u32 = 512;
/// Name of the ring's hash on the wire: xxh3 with 64 bits and seed 0.
pub const HASH_NAME: &str = "xxh3-64";
/// Most replicas that the ring gives for a file, beside the owner. Whoever lost four workers at once asks the origin.
pub const MAX_REPLICAS: usize = 3;

/// The owner and its replicas.
const MAX_OWNERS: usize = 1 + MAX_REPLICAS;

/// The hash that places a file on the ring: xxh3-64 of its canonical URL.
pub fn file_hash(url: &str) -> u64 {
    xxh3_64(url.as_bytes())
}

/// The ring of one set of members: who owns which file. A clone is cheap, and lookups neither allocate nor lock.
///
/// A ring of no members is allowed and owns nothing.
#[derive(Clone)]
pub struct Ring {
    inner: Arc<Inner>,
}

struct Inner {
    members: Members,
    epoch: u64,
    vnodes: HashRing<VirtualNode, Identity>,
    /// How many members each virtual node names; fewer than [`MAX_OWNERS`] only if there are fewer members.
    owners_per_file: usize,
    /// Each member's part of the hash space, in the order of the members.
    shares: Box<[f64]>,
}

impl Ring {
    /// Builds the ring. The time is that of sorting 512 numbers per unit of weight: milliseconds for 50 members.
    pub fn new(members: &Members) -> Self {
        let places = places(members.as_slice());
        let (vnodes, owners_per_file) = with_successors(&places);
        let shares = shares(&places, members.len());
        drop(places);
        let mut ring = HashRing::with_hasher(Identity);
        ring.batch_add(vnodes);
        let epoch = epoch(members.as_slice());
        let inner = Inner { members: members.clone(), epoch, vnodes: ring, owners_per_file, shares };
        Self { inner: Arc::new(inner) }
    }

    /// A digest of the members' ids, weights and zones: equal rings have equal epochs, without a coordinator.
    pub fn epoch(&self) -> u64 {
        self.inner.epoch
    }

    /// The members that the ring was built from.
    pub fn members(&self) -> &Members {
        &self.inner.members
    }

    /// The part of the hash space that each member owns, in the order of [`Self::members`]; together they are 1.
    /// Nothing if the ring has no members.
    pub fn shares(&self) -> &[f64] {
        &self.inner.shares
    }

    /// The owner of the file with this canonical URL, then up to [`MAX_REPLICAS`] replicas; all distinct. Nothing if
    /// the ring has no members.
    pub fn owners(&self, url: &str) -> Owners<'_> {
        let found = self.inner.vnodes.get(&file_hash(url));
        let indexes = found.and_then(|vnode| vnode.owners.get(..self.inner.owners_per_file)).unwrap_or_default();
        Owners { members: self.inner.members.as_slice(), indexes: indexes.iter() }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let epoch = format_args!("{:016x}", self.inner.epoch);
        out.debug_struct("Ring").field("epoch", &epoch).field("members", &self.inner.members.len()).finish()
    }
}

/// The members of one file in the order of preference; see [`Ring::owners`].
#[derive(Debug, Clone)]
pub struct Owners<'a> {
    members: &'a [Member],
    indexes: std::slice::Iter<'a, u16>,
}

impl<'a> Iterator for Owners<'a> {
    type Item = &'a Member;

    fn next(&mut self) -> Option<&'a Member> {
        self.indexes.next().and_then(|&index| self.members.get(usize::from(index)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.indexes.size_hint()
    }
}

impl ExactSizeIterator for Owners<'_> {}

/// A place on the ring with everybody who may answer from there, as indexes into the sorted members.
#[derive(Clone)]
struct VirtualNode {
    hash: u64,
    owners: [u16; MAX_OWNERS],
}

impl Hash for VirtualNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Lets hashes through that are already made, so that `hashring` sorts by the wire contract's numbers.
#[derive(Clone, Copy)]
struct Identity;

impl BuildHasher for Identity {
    type Hasher = IdentityHasher;

    fn build_hasher(&self) -> IdentityHasher {
        IdentityHasher(0)
    }
}

struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    /// Not used by the two kinds of keys here, both of which are one `u64`; kept lossless for those.
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, &byte| hash << 8 | u64::from(byte));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// All virtual nodes' hashes with the index of their member, sorted, each hash once.
fn places(members: &[Member]) -> Vec<(u64, u16)> {
    let weight: usize = members.iter().map(|member| member.weight() as usize).sum();
    let mut places = Vec::with_capacity(weight * VNODES_PER_WEIGHT as usize);
    let mut name = String::new();
    for (member, index) in members.iter().zip(0_u16..=u16::MAX) {
        for number in 0..member.weight() * VNODES_PER_WEIGHT {
            name.clear();
            // Writing to a String does not fail.
            let _ = write!(name, "{}#{number}", member.id());
            places.push((xxh3_64(name.as_bytes()), index));
        }
    }
    sorted_once(places)
}

/// Sorted by hash, each hash once. Indexes follow ids, so of two equal hashes the one of the smaller id stays.
fn sorted_once(mut places: Vec<(u64, u16)>) -> Vec<(u64, u16)> {
    places.sort_unstable();
    places.dedup_by_key(|place| place.0);
    places
}

/// The virtual nodes with their owners, and how many owners each of them has.
///
/// Walking backwards, a node's owners are its own member and then the owners of the node after it without that member.
/// The walk goes round twice, because the last node's followers are the first ones.
fn with_successors(places: &[(u64, u16)]) -> (Vec<VirtualNode>, usize) {
    let owners_per_file = places.iter().map(|place| place.1).collect::<HashSet<_>>().len().min(MAX_OWNERS);
    let mut following: Vec<u16> = Vec::with_capacity(MAX_OWNERS + 1);
    let mut vnodes = Vec::with_capacity(places.len());
    for (step, &(hash, index)) in places.iter().rev().chain(places.iter().rev()).enumerate() {
        following.retain(|&other| other != index);
        following.insert(0, index);
        following.truncate(MAX_OWNERS);
        if step >= places.len() {
            let mut owners = [0; MAX_OWNERS];
            for (owner, &member) in owners.iter_mut().zip(&following) {
                *owner = member;
            }
            vnodes.push(VirtualNode { hash, owners });
        }
    }
    (vnodes, owners_per_file)
}

/// The part of the hash space before each member's virtual nodes, which is what they own.
fn shares(places: &[(u64, u16)], members: usize) -> Box<[f64]> {
    let mut owned = vec![0_u128; members];
    let mut before = places.last().map_or(0, |last| last.0);
    for &(hash, index) in places {
        // Wrapping, because the first node owns from the last one around zero; a single node owns all, not nothing.
        let arc = hash.wrapping_sub(before);
        let arc = if arc == 0 { 1 << u64::BITS } else { u128::from(arc) };
        if let Some(owned) = owned.get_mut(usize::from(index)) {
            *owned += arc;
        }
        before = hash;
    }
    owned.into_iter().map(|owned| owned as f64 / 2_f64.powi(64)).collect()
}

/// xxh3-64 of the members sorted by id, each as `<id>,<weight>,<zone>` and a line feed.
fn epoch(members: &[Member]) -> u64 {
    let mut text = String::new();
    for member in members {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{},{},{}", member.id(), member.weight(), member.zone());
    }
    xxh3_64(text.as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeSet, HashMap};

    /// Enough files that chance moves a member's share of 50 by 2 % only.
    const FILES: usize = 100_000;

    fn members(count: usize) -> Vec<Member> {
        (0..count)
            .map(|number| Member::new(&format!("worker-{number}"), &format!("h{number}:7610"), 1, "").unwrap())
            .collect()
    }

    fn ring(members: Vec<Member>) -> Ring {
        Ring::new(&Members::new(members).unwrap())
    }

    fn url(number: usize) -> String {
        format!("s3://lake/events/day={:03}/part-{number:06}.parquet", number % 365)
    }

    fn owner(ring: &Ring, number: usize) -> String {
        ring.owners(&url(number)).next().unwrap().id().to_owned()
    }

    fn files_by_owner(ring: &Ring) -> HashMap<String, usize> {
        let mut files = HashMap::new();
        for number in 0..FILES {
            *files.entry(owner(ring, number)).or_default() += 1;
        }
        files
    }

    /// The rule as the contract states it, slowly: walk on from the hash and take every member once.
    fn owners_by_the_rule(members: &[Member], hash: u64) -> Vec<String> {
        let mut nodes: Vec<(u64, &str)> = Vec::new();
        for member in members {
            for number in 0..member.weight() * VNODES_PER_WEIGHT {
                nodes.push((xxh3_64(format!("{}#{number}", member.id()).as_bytes()), member.id()));
            }
        }
        nodes.sort_unstable();
        let start = nodes.iter().position(|node| node.0 >= hash).unwrap_or(0);
        let mut owners: Vec<String> = Vec::new();
        for (_, id) in nodes.iter().cycle().skip(start).take(nodes.len()) {
            if owners.len() < MAX_OWNERS && !owners.iter().any(|owner| owner == id) {
                owners.push((*id).to_owned());
            }
        }
        owners
    }

    #[test]
    fn a_ring_of_nobody_owns_nothing() {
        let ring = Ring::new(&Members::default());
        assert_eq!(ring.owners("s3://lake/a").len(), 0);
        assert_eq!(ring.owners("s3://lake/a").next(), None);
        assert_eq!(ring.epoch(), xxh3_64(b""));
    }

    #[test]
    fn a_small_ring_gives_everybody_once() {
        for count in 1..=6 {
            let ring = ring(members(count));
            for number in 0..1_000 {
                let owners: BTreeSet<_> = ring.owners(&url(number)).map(Member::id).collect();
                assert_eq!(owners.len(), count.min(MAX_OWNERS));
                assert_eq!(ring.owners(&url(number)).len(), owners.len());
            }
        }
    }

    #[test]
    fn fifty_members_share_evenly() {
        let files = files_by_owner(&ring(members(50)));
        let fullest = *files.values().max().unwrap() as f64 / (FILES as f64 / 50.0);
        assert_eq!(files.len(), 50);
        assert!(fullest <= 1.15, "the fullest holds {fullest:.3} times the mean");
    }

    #[test]
    fn a_joining_member_takes_its_share_and_nothing_else_moves() {
        let (before, after) = (ring(members(50)), ring(members(51)));
        let mut moved = 0;
        for number in 0..FILES {
            let now = owner(&after, number);
            if now != owner(&before, number) {
                assert_eq!(now, "worker-50", "a file moved between two members that stayed");
                moved += 1;
            }
        }
        let share = FILES as f64 / 51.0;
        assert!(
            moved as f64 <= share * 1.10 && moved as f64 >= share * 0.85,
            "{moved} files moved, {share:.0} are fair"
        );
    }

    #[test]
    fn a_leaving_owner_is_followed_by_its_first_replica() {
        let all = members(8);
        let before = ring(all.clone());
        let after = ring(all.into_iter().filter(|member| member.id() != "worker-3").collect());
        for number in 0..10_000 {
            let stayed: Vec<_> = before.owners(&url(number)).map(Member::id).filter(|id| *id != "worker-3").collect();
            let now: Vec<_> = after.owners(&url(number)).map(Member::id).take(stayed.len()).collect();
            assert_eq!(now, stayed);
        }
    }

    #[test]
    fn weight_is_a_share() {
        let heavy = |number: u32| Member::new(&format!("w{number}"), &format!("h{number}:1"), number, "").unwrap();
        let files = files_by_owner(&ring((1..=4).map(heavy).collect()));
        for number in 1..=4_u32 {
            let share = files[&format!("w{number}")] as f64 / FILES as f64 * 10.0 / f64::from(number);
            assert!((0.9..=1.1).contains(&share), "weight {number} holds {share:.3} times its share");
        }
    }

    #[test]
    fn shares_are_what_the_files_fall_on() {
        let ring = ring(members(5));
        let files = files_by_owner(&ring);
        for (member, share) in ring.members().iter().zip(ring.shares()) {
            let counted = files[member.id()] as f64 / FILES as f64;
            assert!((counted - share).abs() < 0.01, "{} owns {share:.4} and holds {counted:.4}", member.id());
        }
        assert!((ring.shares().iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(Ring::new(&Members::default()).shares().is_empty());
        assert_eq!(*shares(&[(7, 0)], 1), [1.0]);
        assert_eq!(*shares(&[(0, 1), (1 << 63, 0)], 2), [0.5, 0.5]);
    }

    #[test]
    fn the_epoch_follows_ids_weights_and_zones_and_not_addresses() {
        let epoch = |text: &str| Ring::new(&Members::from_lines(text).unwrap()).epoch();
        let one = epoch("a=h:1\nb=h:2,2,z");
        assert_eq!(one, epoch("b=other:2,2,z\na=other:1"));
        assert_eq!(one, xxh3_64(b"a,1,\nb,2,z\n"));
        for other in ["a=h:1", "a=h:1,2\nb=h:2,2,z", "a=h:1\nb=h:2,2", "a=h:1\nc=h:2,2,z"] {
            assert_ne!(one, epoch(other), "{other}");
        }
    }

    #[test]
    fn of_two_virtual_nodes_at_one_hash_the_smaller_id_counts() {
        let places = sorted_once(vec![(9, 1), (9, 0), (5, 1)]);
        assert_eq!(places, [(5, 1), (9, 0)]);
        let (vnodes, owners_per_file) = with_successors(&places);
        assert_eq!(owners_per_file, 2);
        let owners: Vec<_> = vnodes.iter().map(|vnode| (vnode.hash, vnode.owners[0], vnode.owners[1])).collect();
        assert_eq!(owners, [(9, 0, 1), (5, 1, 0)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn owners_are_those_of_the_stated_rule(
            weights in proptest::collection::vec(1_u32..4, 1..9),
            seed in any::<u32>(),
        ) {
            let members: Vec<Member> = weights.iter().enumerate().map(|(number, &weight)| {
                Member::new(&format!("n{number}-{seed}"), &format!("h{number}:1"), weight, "").unwrap()
            }).collect();
            let ring = ring(members.clone());
            for number in 0..20 {
                let url = format!("s3://lake/{seed}/{number}");
                let owners: Vec<_> = ring.owners(&url).map(|member| member.id().to_owned()).collect();
                prop_assert_eq!(owners, owners_by_the_rule(&members, file_hash(&url)));
            }
        }
    }
}
