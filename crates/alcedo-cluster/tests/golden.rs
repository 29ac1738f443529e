//! Golden vectors of the ring: what `tests/golden/ring_v1.tsv` says must hold for ever, in every language, because two
//! clients that disagree about an owner halve the cache. A difference is a change of the wire contract, not a new file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;

use alcedo_cluster::{HASH_NAME, MAX_REPLICAS, Member, Members, Ring, VNODES_PER_WEIGHT, file_hash};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/ring_v1.tsv");
/// Set to write the file anew after a deliberate change of the contract.
const REWRITE: &str = "ALCEDO_REWRITE_GOLDEN";

const RINGS: [&str; 6] = [
    "",
    "w-1=10.0.0.1:7610",
    "w-1=10.0.0.1:7610 w-2=10.0.0.2:7610",
    "w-1=10.0.0.1:7610 w-2=10.0.0.2:7610,3 w-3=10.0.0.3:7610,2,eu-1a",
    "worker-0=h0:7610 worker-1=h1:7610 worker-2=h2:7610 worker-10=h10:7610 Worker-1=h11:7610 worker.1=h12:7610",
    "a=[fd00::1]:7610,10,z1 b=[fd00::2]:7610,10,z2 c=[fd00::3]:7610,10,z3 d=[fd00::4]:7610,10,z1 e=[fd00::5]:7610,1,z2",
];

const URLS: [&str; 12] = [
    "",
    "a",
    "s3://lake/events/part-00000.parquet",
    "s3://lake/events/part-00001.parquet",
    "s3://lake/events/day=2026-01-31/part-00017-4f1d2c1e-9d6e-4f5b-a1f0-7f8f0a9a5c11-c000.snappy.parquet",
    "s3://lake/events/city=S%C3%A3o%20Paulo/part-00000.parquet",
    "s3://lake/events/city=São Paulo/part-00000.parquet",
    "s3://other-lake/events/part-00000.parquet",
    "gs://lake/events/part-00000.parquet",
    "az://account/lake/events/part-00000.parquet",
    "file:///srv/lake/events/part-00000.parquet",
    "s3://lake/a/rather/deep/prefix/with/many/levels/that/makes/the/name/longer/than/two/hundred/and/forty/bytes/\
     so/that/the/long/input/path/of/the/hash/is/taken/as/well/year=2026/month=01/day=31/hour=23/minute=59/tenant=\
     0123456789abcdef/part-00000.parquet",
];

fn computed() -> String {
    let mut text = format!(
        "# ring v1: hash {HASH_NAME}, {VNODES_PER_WEIGHT} virtual nodes per weight, up to {MAX_REPLICAS} replicas\n\
         members\tepoch\turl\thash\towner\treplicas\n"
    );
    for listed in RINGS {
        let ring = Ring::new(&Members::from_items(listed.split_whitespace()).unwrap());
        for url in URLS {
            let owners: Vec<&str> = ring.owners(url).map(Member::id).collect();
            let owner = owners.first().copied().unwrap_or("-");
            let replicas = if owners.len() > 1 { owners[1..].join(" ") } else { "-".to_owned() };
            let (epoch, hash) = (ring.epoch(), file_hash(url));
            writeln!(text, "{listed}\t{epoch:016x}\t{url}\t{hash:016x}\t{owner}\t{replicas}").unwrap();
        }
    }
    text
}

#[test]
fn the_ring_does_not_drift() {
    let computed = computed();
    if std::env::var_os(REWRITE).is_some() {
        std::fs::write(GOLDEN, &computed).unwrap();
    }
    let committed = std::fs::read_to_string(GOLDEN).expect("the golden vectors are part of the repository");
    assert_eq!(committed.lines().count(), computed.lines().count(), "the file has other rows than the rings and URLs");
    for (number, (committed, computed)) in committed.lines().zip(computed.lines()).enumerate() {
        assert_eq!(committed, computed, "line {} of {GOLDEN} no longer holds: the contract changed", number + 1);
    }
}

#[test]
fn the_hash_is_the_published_one() {
    // The first is xxHash's own test value for an empty input; the epochs are digests of the texts in the contract.
    assert_eq!(file_hash(""), 0x2d06_8005_38d3_94c2);
    let epoch = |items: &[&str]| Ring::new(&Members::from_items(items).unwrap()).epoch();
    assert_eq!(epoch(&[]), 0x2d06_8005_38d3_94c2);
    assert_eq!(epoch(&["b=h:1,2,z", "a=h:2"]), file_hash("a,1,\nb,2,z\n"));
}
