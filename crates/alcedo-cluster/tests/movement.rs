//! What a change of the ring moves, from two workers to a thousand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;

use alcedo_cluster::{MAX_REPLICAS, Member, Members, Ring};

/// Enough files that two rings which differ in a thousandth differ in some of them.
const FILES: usize = 20_000;
/// A joining worker may take so much more than its fair part.
const TOLERANCE: f64 = 1.10;

fn ring(count: usize) -> Ring {
    let member = |number: usize| Member::new(&format!("worker-{number}"), &format!("h{number}:7610"), 1, "").unwrap();
    Ring::new(&Members::new((0..count).map(member)).unwrap())
}

fn url(number: usize) -> String {
    format!("s3://lake/events/day={:03}/part-{number:06}.parquet", number % 365)
}

fn share(ring: &Ring, id: &str) -> f64 {
    let place = ring.members().iter().position(|member| member.id() == id).unwrap();
    ring.shares()[place]
}

#[test]
fn joining_and_leaving_move_one_fair_part_and_nothing_else() {
    for before in [1, 2, 9, 49, 99, 999] {
        let (small, large) = (ring(before), ring(before + 1));
        let joined = format!("worker-{before}");
        let moved = share(&large, &joined);
        let fair = 1.0 / (before + 1) as f64;
        assert!(moved <= fair * TOLERANCE, "of {before} + 1 the new one takes {moved:.5}, fair is {fair:.5}");
        let mut changed = 0;
        for number in 0..FILES {
            let url = url(number);
            let now: Vec<&str> = large.owners(&url).map(Member::id).collect();
            let then: Vec<&str> = small.owners(&url).map(Member::id).collect();
            // Read one way this is joining, the other way leaving: whoever is neither new nor gone keeps its place.
            let stayed: Vec<&str> = now.iter().copied().filter(|id| *id != joined).collect();
            assert_eq!(stayed[..], then[..stayed.len()], "{url} among {before} + 1");
            changed += usize::from(now[0] != then[0]);
        }
        assert!(changed > 0, "nothing moved from {before} to {}", before + 1);
    }
}

#[test]
fn owners_of_a_large_ring_are_distinct_and_share_evenly() {
    let ring = ring(1_000);
    for number in 0..FILES {
        let owners: HashSet<&str> = ring.owners(&url(number)).map(Member::id).collect();
        assert_eq!(owners.len(), 1 + MAX_REPLICAS);
    }
    let fullest = ring.shares().iter().fold(0.0_f64, |most, share| most.max(*share)) * 1_000.0;
    // Of a thousand the fullest is further out than of fifty; more virtual nodes would cost memory in every client.
    assert!(fullest <= 1.20, "the fullest holds {fullest:.3} times the mean");
}

#[test]
fn of_fifty_the_fullest_holds_little_more_than_the_mean() {
    let fullest = ring(50).shares().iter().fold(0.0_f64, |most, share| most.max(*share)) * 50.0;
    assert!(fullest <= 1.15, "the fullest holds {fullest:.3} times the mean");
}
