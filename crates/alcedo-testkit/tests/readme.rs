//! What the README promises: its example is a file that compiles and runs, its links lead somewhere, its commands
//! exist.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

use alcedo_testkit::cluster::{ClusterOptions, TestCluster};
use alcedo_testkit::lake::{SampleLake, SampleSpec};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).unwrap()
}

/// The text between two fences.
fn block(text: &str, language: &str) -> String {
    let (_, rest) = text.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_readmes_example_is_the_file_that_is_compiled() {
    let example = std::fs::read_to_string(root().join("crates/alcedo-client/examples/embed.rs")).unwrap();
    let shown = block(&readme(), "rust");
    assert!(shown.lines().count() > 5);
    for line in shown.lines() {
        assert!(example.lines().any(|of_file| of_file.trim() == line.trim()), "not in embed.rs: {line}");
    }
}

#[test]
fn the_example_prints_a_row() {
    let lake = SampleLake::new(SampleSpec { rows: 2_000, files: 2, seed: 7 }).unwrap();
    let objects = lake.files().map(|file| file.map(|(name, bytes)| (format!("lake/{name}"), bytes)).unwrap()).collect();
    let cluster = TestCluster::start(ClusterOptions { objects, ..ClusterOptions::default() }).unwrap();
    let row = lake.row(1_234).unwrap();
    // Cargo builds examples beside the tests: target/<profile>/deps/readme-… and target/<profile>/examples/embed.
    let built = std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples").join("embed");
    assert!(built.exists(), "{} is not built: run `cargo xtask test`", built.display());
    let args = [cluster.endpoint(), "lake/lake/".to_owned(), row.id.to_string(), "id".to_owned()];
    let said = Command::new(built).args(args).output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert!(text.contains(&format!("user=String(\"{}\")", row.user)), "{text}");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn links_lead_to_files() {
    let text = readme();
    let links: Vec<&str> =
        text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link).collect();
    assert!(links.len() > 5);
    for link in links.into_iter().filter(|link| !link.starts_with("http")) {
        assert!(root().join(link).exists(), "README.md leads to {link}, which is not there");
    }
}
