//! Rules on what comes from outside: manifests, the lock file, licences, and what the client crate brings along.
//!
//! Knows Cargo's files and SPDX expressions. It must not know the arrows inside the house.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::tree::{File, assert_none, cargo, crates, files, text};

/// The only place that packages come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Crates whose types cross our API, or that are too big to have twice.
const SINGLE: &[&str] = &["object_store", "parquet", "prost", "rustls", "tokio", "tonic"];

/// Licences under which a dependency may come: each lets us ship under Apache-2.0 without further duties on our code.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// What an embedder of the client never has to build, whatever its features.
const NEVER_IN_CLIENT: &[&str] = &["rocksdb", "librocksdb-sys", "bindgen", "clang-sys", "protoc", "alcedo-cache"];

/// What the client without its default features does not bring either.
const NOT_IN_BARE_CLIENT: &[&str] = &["parquet", "arrow-array", "arrow-schema", "zstd-sys"];

/// What it brings only with the feature `fallback`.
const ONLY_FOR_FALLBACK: &[&str] = &["alcedo-origin", "moka", "object_store", "reqwest"];

/// The fuzz targets' lock file: they are a workspace of their own, which no product is built from.
const FUZZ_LOCK: &str = "crates/alcedo-lookup/fuzz/Cargo.lock";

/// The manifests of the workspace's members.
fn manifests() -> impl Iterator<Item = &'static File> {
    let other = |file: &File| file.path == "Cargo.toml" || file.text.contains("\n[workspace]\n");
    files().iter().filter(move |file| file.path.ends_with("Cargo.toml") && !other(file))
}

/// Faults of a member's manifest: versions of its own, git sources, lints that are not the workspace's.
fn manifest_faults(file: &File) -> Vec<String> {
    let mut faults = Vec::new();
    let (mut section, mut has_lints) = ("", false);
    for line in file.text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
        }
        has_lints |= section == "lints" && line == "workspace = true";
        let declares = section.ends_with("dependencies") && !line.starts_with(['[', '#']) && line.contains('=');
        if declares && !line.contains("workspace = true") {
            faults.push(format!("{}: `{line}`: versions are in the root's [workspace.dependencies]", file.path));
        }
        if section.contains("dependencies.") && line.starts_with('[') {
            faults.push(format!("{}: `{line}`: write the dependency as one line", file.path));
        }
    }
    if !has_lints {
        faults.push(format!("{}: [lints] workspace = true is missing", file.path));
    }
    faults
}

fn root_faults(manifest: &str) -> Vec<String> {
    let compact: String = manifest.chars().filter(|c| !c.is_whitespace()).collect();
    let has_git = ["{git=", ",git=", "\ngit="].iter().any(|form| compact.contains(form)) || manifest.contains("\ngit ");
    let patched = manifest.contains("[patch");
    let mut faults = Vec::new();
    faults.extend(has_git.then(|| "Cargo.toml: a git dependency".to_owned()));
    faults.extend(patched.then(|| "Cargo.toml: a [patch]".to_owned()));
    faults
}

fn lock_faults(lock: &str) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut faults = Vec::new();
    let value =
        |block: &'static str| move |line: &str| line.strip_prefix(block).map(|v| v.trim_matches('"').to_owned());
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| package.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_matches('"')));
        let (Some(name), Some(version)) = (field("name = "), field("version = ")) else { continue };
        versions.entry(name).or_default().push(version);
        let foreign = package.lines().filter_map(value("source = ")).find(|source| source != REGISTRY);
        faults.extend(foreign.map(|source| format!("{name} {version} comes from {source}")));
    }
    let single = |name: &str| SINGLE.contains(&name) || name.starts_with("arrow") || name.starts_with("parquet");
    let doubled = versions.iter().filter(|(name, found)| single(name) && found.len() > 1);
    faults.extend(doubled.map(|(name, found)| format!("{name} is there in versions {}", found.join(" and "))));
    faults
}

/// Whether an SPDX expression can be met by [`LICENCES`] alone. The old form `MIT/Apache-2.0` means `OR`.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (allowed, rest) = any_of(&words);
    allowed && rest.is_empty()
}

fn any_of<'a, 'b>(words: &'b [&'a str]) -> (bool, &'b [&'a str]) {
    let (mut allowed, mut rest) = all_of(words);
    while let ["OR", tail @ ..] = rest {
        let (next, after) = all_of(tail);
        (allowed, rest) = (allowed | next, after);
    }
    (allowed, rest)
}

fn all_of<'a, 'b>(words: &'b [&'a str]) -> (bool, &'b [&'a str]) {
    let (mut allowed, mut rest) = one_of(words);
    while let ["AND", tail @ ..] = rest {
        let (next, after) = one_of(tail);
        (allowed, rest) = (allowed & next, after);
    }
    (allowed, rest)
}

fn one_of<'a, 'b>(words: &'b [&'a str]) -> (bool, &'b [&'a str]) {
    match words {
        ["(", tail @ ..] => match any_of(tail) {
            (allowed, [")", rest @ ..]) => (allowed, rest),
            (_, rest) => (false, rest),
        },
        [licence, "WITH", exception, rest @ ..] => {
            (LICENCES.contains(&format!("{licence} WITH {exception}").as_str()), rest)
        }
        [licence, rest @ ..] => (LICENCES.contains(licence), rest),
        // Something that is never consumed, so that the whole expression is refused.
        [] => (false, &["an operand is missing"]),
    }
}

fn licence_faults(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().expect("packages");
    let refused = |package: &&Value| !package["license"].as_str().is_some_and(is_allowed);
    packages.iter().filter(refused).map(|p| format!("{} {}: {}", p["name"], p["version"], p["license"])).collect()
}

/// The names of all packages in a tree that was printed with `--prefix none`.
fn tree_faults(tree: &str, refused: &[&str]) -> Vec<String> {
    let name = |line: &str| line.split_whitespace().next().unwrap_or("").to_owned();
    let found = tree.lines().map(name).filter(|name| refused.contains(&name.as_str()));
    found.map(|name| format!("{name} is in the tree")).collect()
}

fn tree(args: &[&str]) -> String {
    let tree = cargo(&[&["tree", "--edges", "normal,build", "--prefix", "none"], args].concat());
    assert!(tree.lines().count() > 5, "{tree}");
    tree
}

#[test]
fn manifests_share_versions_and_lints() {
    assert_eq!(manifests().count(), crates().len(), "one manifest for each crate");
    assert_none("a manifest", &manifests().flat_map(manifest_faults).collect::<Vec<_>>());
    assert_none("the root manifest", &root_faults(text("Cargo.toml")));
}

#[test]
fn the_lock_file_has_one_source_and_one_version_of_what_is_shared() {
    for path in ["Cargo.lock", FUZZ_LOCK] {
        assert_none(path, &lock_faults(text(path)));
    }
}

#[test]
fn licences_are_on_the_list() {
    let version = cargo(&["--version", "--verbose"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo names its host");
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--filter-platform", host])).expect("JSON");
    assert!(metadata["packages"].as_array().is_some_and(|packages| packages.len() > 100), "few packages");
    assert_none("a licence that is not on the list", &licence_faults(&metadata));
}

#[test]
fn the_client_is_light() {
    let client = ["--package", "alcedo-client"];
    assert_none("alcedo-client", &tree_faults(&tree(&client), NEVER_IN_CLIENT));
    let refused = [NEVER_IN_CLIENT, NOT_IN_BARE_CLIENT, ONLY_FOR_FALLBACK].concat();
    let bare = tree(&[&client[..], &["--no-default-features"]].concat());
    assert_none("alcedo-client without default features", &tree_faults(&bare, &refused));
    let pages = tree(&[&client[..], &["--no-default-features", "--features", "pages"]].concat());
    assert_none("alcedo-client with pages only", &tree_faults(&pages, &[NEVER_IN_CLIENT, ONLY_FOR_FALLBACK].concat()));
    assert_eq!(tree_faults(&pages, &["parquet"]).len().min(1), 1, "parquet goes by another name");
    let whole = tree(&client);
    assert!(ONLY_FOR_FALLBACK.iter().all(|name| !tree_faults(&whole, &[name]).is_empty()), "a name is out of date");
}

#[test]
fn the_lookup_crate_links_no_runtime() {
    let tree = tree(&["--package", "alcedo-lookup"]);
    assert_none("alcedo-lookup", &tree_faults(&tree, &["tokio", "mio", "object_store", "hyper", "socket2", "polling"]));
}

fn planted(text: &str) -> File {
    File { path: "crates/x/Cargo.toml".into(), text: text.into() }
}

#[test]
fn planted_manifests_are_reported() {
    let fine = "[package]\nversion.workspace = true\n[lints]\nworkspace = true\n[dependencies]\n# = \n\
                bytes.workspace = true\ntokio = { workspace = true, features = [\"rt\"] }\n";
    assert_eq!(manifest_faults(&planted(fine)), Vec::<String>::new());
    for bad in ["bytes = \"1\"", "x = { git = \"y\" }", "x = { path = \"../x\" }", "[dependencies.x]"] {
        assert_eq!(manifest_faults(&planted(&format!("{fine}{bad}\n"))).len(), 1, "{bad}");
    }
    assert_eq!(
        manifest_faults(&planted(&format!("{fine}[target.'cfg(unix)'.dev-dependencies]\nx = \"1\"\n"))).len(),
        1
    );
    assert_eq!(manifest_faults(&planted(&fine.replace("[lints]\nworkspace = true\n", ""))).len(), 1);
    assert_eq!(root_faults("[workspace.dependencies]\nx = { git = \"y\" }\n").len(), 1);
    assert_eq!(root_faults("[workspace.dependencies.x]\ngit = \"y\"\n").len(), 1);
    assert_eq!(root_faults("[patch.crates-io]\n").len(), 1);
    assert_eq!(root_faults("[workspace.dependencies]\nx = { version = \"1\", features = [\"git\"] }\n").len(), 0);
}

#[test]
fn planted_lock_files_are_reported() {
    let package =
        |name, version, source| format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n{source}\n");
    let registry = format!("source = \"{REGISTRY}\"");
    let fine = [package("parquet", "59.0.0", registry.as_str()), package("syn", "1.0.0", &registry)].concat();
    let fine = fine + &package("syn", "2.0.0", &registry) + &package("alcedo", "0.1.0", "");
    assert_eq!(lock_faults(&fine), Vec::<String>::new());
    for name in ["parquet", "arrow-buffer", "rustls"] {
        let twice = package(name, "59.0.0", &registry) + &package(name, "58.0.0", &registry);
        assert_eq!(lock_faults(&twice), [format!("{name} is there in versions 59.0.0 and 58.0.0")]);
    }
    assert_eq!(lock_faults(&package("x", "1.0.0", "source = \"git+elsewhere\"")).len(), 1);
}

#[test]
fn planted_licences_are_reported() {
    for fine in ["MIT", "MIT/Apache-2.0", "(MIT OR GPL-3.0) AND Unicode-3.0", "Apache-2.0 WITH LLVM-exception OR X"] {
        assert!(is_allowed(fine), "{fine}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND X", "", "MIT OR", "(MIT", "MIT ISC", "MIT WITH X"] {
        assert!(!is_allowed(bad), "{bad}");
    }
    let packages = serde_json::json!({ "packages": [
        { "name": "a", "version": "1", "license": "MIT" },
        { "name": "b", "version": "1", "license": "AGPL-3.0" },
        { "name": "c", "version": "1", "license": null },
    ] });
    assert_eq!(licence_faults(&packages).len(), 2);
}

#[test]
fn planted_trees_are_reported() {
    let tree = "alcedo-client v0.1.0 (path)\nbytes v1.0.0\nparquet v59.0.0\nparquet-extra v1.0.0\n";
    assert_eq!(tree_faults(tree, &["parquet", "rocksdb"]), ["parquet is in the tree"]);
}
