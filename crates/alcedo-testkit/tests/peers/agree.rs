//! pyarrow and DuckDB on the same files: they find what must be found, or the difference is known and explained.
//!
//! Knows the peers' program `tests/py/agree.py`. The known differences stand in `tests/py/peers_known.py`, each with
//! its reason, and for readers in docs/FORMATS.md, "How peers differ".

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::corpus_grpc::repository;
use crate::python;
use crate::wild::generate;

/// Only a test on a machine that does many other things takes so long.
const PATIENCE: Duration = Duration::from_secs(600);
const PEERS: [&str; 2] = ["pyarrow", "DuckDB"];

/// Asks both peers at most so many lookups of each file; returns the known differences that were seen.
#[allow(clippy::print_stdout)] // How much was compared.
async fn compare(corpus: &Path, most: &str, faults: &mut Vec<String>) -> BTreeSet<u64> {
    let result = python::run_within(PATIENCE, "agree.py", &[corpus.to_str().unwrap(), most], &json!(null)).await;
    let mut known = BTreeSet::new();
    for peer in PEERS {
        let said = &result[peer];
        let count = |name: &str| said[name].as_u64().unwrap();
        let (asked, agreed) = (count("asked"), count("agreed"));
        println!("{}: {agreed} of {asked} lookups alike, {} left out", said["version"], count("left_out"));
        assert!(agreed * 10 > asked * 8 && asked > 500, "{peer} answers other questions than were asked");
        faults.extend(said["unknown"].as_array().unwrap().iter().map(|found| format!("{peer}: {found}")));
        known.extend(said["known"].as_array().unwrap().iter().filter_map(Json::as_u64));
    }
    known
}

#[tokio::test]
async fn pyarrow_and_duckdb_agree_or_the_difference_is_explained() {
    let directory = tempfile::tempdir().unwrap();
    generate(directory.path()).await;
    let mut faults = Vec::new();
    let mut seen = compare(&repository("crates/alcedo-lookup/tests/corpus"), "50", &mut faults).await;
    seen.extend(compare(directory.path(), "14", &mut faults).await);
    assert!(faults.is_empty(), "{} differences that nothing explains:\n{}", faults.len(), faults.join("\n"));
    // What is no longer so must not stand in the document either.
    let listed = python::run("peers_known.py", &[], &json!(null)).await;
    let gone: Vec<&Json> =
        (0..).zip(listed.as_array().unwrap()).filter(|(n, _)| !seen.contains(n)).map(|n| n.1).collect();
    assert!(gone.is_empty(), "known differences that were not seen: {gone:?}");
    let document = std::fs::read_to_string(repository("docs/FORMATS.md")).unwrap();
    let reasons = listed.as_array().unwrap().iter().map(|entry| entry[3].as_str().unwrap());
    let unsaid: BTreeSet<&str> = reasons.filter(|reason| !document.contains(reason)).collect();
    assert!(unsaid.is_empty(), "docs/FORMATS.md does not say: {unsaid:?}");
}
