//! The checkout as the rules see it: its files with their text, and what cargo says about it.
//!
//! The lowest room: knows git, the file system and how to start cargo (only commands that compile nothing). It must not
//! know any rule.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

/// One text file of the checkout.
pub(crate) struct File {
    /// Its path from the workspace root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// The directory of the root `Cargo.toml`.
pub(crate) fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap())
}

/// All text files that are tracked, or would be if they were added; read once.
pub(crate) fn files() -> &'static [File] {
    static FILES: OnceLock<Vec<File>> = OnceLock::new();
    FILES.get_or_init(|| {
        let paths = tracked(root()).unwrap_or_else(|| walked(root()));
        let read = |path: String| Some(File { text: fs::read_to_string(root().join(&path)).ok()?, path });
        paths.into_iter().filter_map(read).collect()
    })
}

/// The text of a file that must exist.
pub(crate) fn text(path: &str) -> &'static str {
    let found = files().iter().find(|file| file.path == path);
    &found.unwrap_or_else(|| panic!("{path} is missing")).text
}

/// What git tracks or would track; `None` where the directory is not a checkout of its own.
fn tracked(root: &Path) -> Option<BTreeSet<String>> {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .ok()?;
    let listed = String::from_utf8(output.stdout).ok()?;
    let paths: BTreeSet<String> = listed.split_terminator('\0').map(str::to_owned).collect();
    // In a copy inside somebody else's repository, git knows nothing of our files.
    (output.status.success() && paths.contains("Cargo.toml")).then_some(paths)
}

/// Every file below `root` but build output and git's own.
fn walked(root: &Path) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && entry.file_name() != "target" && entry.file_name() != ".git" {
                open.push(entry.path());
            } else if kind.is_file() {
                paths.insert(entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    paths
}

/// The standard output of a cargo command that reads and compiles nothing. It never touches the network: whoever runs
/// this test has just built the workspace.
pub(crate) fn cargo(args: &[&str]) -> String {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program).args(args).args(["--locked", "--offline"]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// `cargo metadata` of the workspace's own packages.
pub(crate) fn own_metadata() -> &'static Value {
    static METADATA: OnceLock<Value> = OnceLock::new();
    METADATA.get_or_init(|| serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"])).unwrap())
}

/// The names of the workspace's crates.
pub(crate) fn crates() -> Vec<&'static str> {
    own_metadata()["packages"].as_array().unwrap().iter().map(|package| package["name"].as_str().unwrap()).collect()
}

/// Fails with all faults, one per line.
pub(crate) fn assert_none(rule: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{rule}:\n  {}", faults.join("\n  "));
}

#[test]
fn both_ways_of_listing_find_the_same_sources() {
    let Some(tracked) = tracked(root()) else { return };
    let walked = walked(root());
    assert!(tracked.contains("crates/alcedo-testkit/tests/house/tree.rs"));
    let sources = |paths: &BTreeSet<String>| {
        let keep = |path: &&String| path.starts_with("crates/") && path.ends_with(".rs") && root().join(path).exists();
        paths.iter().filter(keep).cloned().collect::<Vec<_>>()
    };
    assert_eq!(sources(&tracked), sources(&walked));
}
