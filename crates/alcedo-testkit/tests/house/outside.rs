//! Rules on what the tracked files say of the world outside: no machine's paths, no registry's hosts, no documents that
//! a reader of this repository does not have.
//!
//! Knows text. It must not know what any file is for.

use crate::tree::{File, assert_none, files};

/// Directories that belong to one machine or one person.
const PRIVATE_DIRECTORIES: &[&str] =
    &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];

/// Hosts that a link or an example may name; a name that ends so, at a dot, is meant too.
const KNOWN_HOSTS: &[&str] = &[
    // Reserved for documentation and tests (RFC 2606, RFC 6761).
    "example",
    "test",
    "invalid",
    "localhost",
    "example.com",
    "example.org",
    "example.net",
    // The origins themselves.
    "amazonaws.com",
    "googleapis.com",
    "windows.net",
    // Standards and the documentation of what we build on.
    "apache.org",
    "bixense.com",
    "docs.rs",
    "github.com",
    "github.io",
    "grpc.io",
    "ietf.org",
    "keepachangelog.com",
    "no-color.org",
    "rfc-editor.org",
    "rust-lang.org",
    "semver.org",
    "w3.org",
];

/// Settings that would send a package manager elsewhere.
const REDIRECTIONS: &[&str] = &[
    concat!("index", "-url"),
    concat!("extra", "-index"),
    concat!("find", "-links"),
    concat!("replace", "-with"),
    concat!("[sou", "rce."),
    concat!("trusted", "-host"),
];

/// Documents that are not in this repository.
const ABSENT_DOCUMENTS: &[&str] = &[
    concat!("DESI", "GN.md"),
    concat!("DESI", "GN section"),
    concat!("HOU", "SE.md"),
    concat!("FEAT", "URES.md"),
    concat!("BR", "IEF.md"),
    concat!("flo", "ors.md"),
    concat!("reliab", "ility.md"),
    concat!("ecosys", "tem.md"),
    concat!("../sha", "red"),
];

fn per_line(file: &File, find: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let lines = file.text.lines().enumerate();
    lines.filter_map(|(at, line)| Some(format!("{}:{}: {}", file.path, at + 1, find(line)?))).collect()
}

fn private_paths(file: &File) -> Vec<String> {
    per_line(file, |line| {
        PRIVATE_DIRECTORIES.iter().find_map(|directory| {
            let mut starts = line.match_indices(directory).map(|(at, _)| &line[..at]);
            starts.find(|before| starts_path(before)).map(|_| format!("a path of one machine, `{directory}`"))
        })
    })
}

/// True if an absolute path can begin after `before`: not in the middle of a relative one or of a URL's path.
fn starts_path(before: &str) -> bool {
    before.ends_with("file://") || !before.ends_with(|c: char| c.is_alphanumeric() || "._-*/}$~".contains(c))
}

fn hosts(file: &File) -> Vec<String> {
    per_line(file, |line| {
        let urls = ["http://", "https://"].into_iter().flat_map(|scheme| line.split(scheme).skip(1));
        let unknown = urls.map(host).find(|host| !is_known(host));
        unknown
            .map(|host| format!("unknown host `{host}`: use a reserved name, or add it to KNOWN_HOSTS with its reason"))
    })
}

/// The host of a URL whose scheme is cut off.
fn host(rest: &str) -> &str {
    let authority = rest.split(|c: char| c.is_whitespace() || "/?#\"'`<>(),;\\|".contains(c)).next().unwrap_or("");
    let host = authority.rsplit('@').next().unwrap_or("");
    host.split(':').next().unwrap_or("").trim_end_matches(['.', ']', '*'])
}

fn is_known(host: &str) -> bool {
    let has_no_domain = !host.contains('.') || host.contains(['{', '$', '[']);
    let is_address = host.chars().all(|c| c.is_ascii_digit() || c == '.');
    let ends_so = |known: &&str| host.strip_suffix(*known).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    has_no_domain || is_address || KNOWN_HOSTS.iter().any(ends_so)
}

fn redirections(file: &File) -> Vec<String> {
    per_line(file, |line| {
        REDIRECTIONS.iter().find(|setting| line.contains(**setting)).map(|setting| format!("`{setting}`"))
    })
}

fn absent_documents(file: &File) -> Vec<String> {
    per_line(file, |line| {
        ABSENT_DOCUMENTS.iter().find(|document| line.contains(**document)).map(|document| format!("`{document}`"))
    })
}

fn faults_of(check: impl Fn(&File) -> Vec<String>) -> Vec<String> {
    // The Apache licence is quoted, not written by us.
    files().iter().filter(|file| file.path != "LICENSE").flat_map(check).collect()
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    assert_none("a path of one machine", &faults_of(private_paths));
}

#[test]
fn no_file_names_a_registry_or_an_unknown_host() {
    assert_none("a host", &faults_of(hosts));
    assert_none("a package manager is sent elsewhere", &faults_of(redirections));
}

#[test]
fn no_file_refers_to_a_document_that_is_not_here() {
    assert_none("a document that readers do not have", &faults_of(absent_documents));
}

fn planted(text: &str) -> File {
    File { path: "a".into(), text: format!("first line\n{text}\n") }
}

#[test]
fn planted_paths_are_reported() {
    for directory in PRIVATE_DIRECTORIES {
        for text in [format!("cd {directory}x"), format!("\"{directory}x\""), format!("file://{directory}x")] {
            assert_eq!(private_paths(&planted(&text)).len(), 1, "{text}");
        }
        for text in [format!("s3://lake{directory}x"), format!("data{directory}x"), format!("{{}}{directory}x")] {
            assert_eq!(private_paths(&planted(&text)).len(), 0, "{text}");
        }
    }
}

#[test]
fn planted_hosts_are_reported() {
    let (scheme, registry) = (concat!("http", "s://"), "packages.somewhere.dev");
    for text in [
        format!("{scheme}{registry}/simple/"),
        format!("({scheme}me:x@{registry}:8443)"),
        format!("{scheme}{registry}"),
    ] {
        let faults = hosts(&planted(&text));
        assert!(
            faults.len() == 1 && faults[0].starts_with(&format!("a:2: unknown host `{registry}`")),
            "{text}: {faults:?}"
        );
    }
    for fine in
        ["127.0.0.1:7610", "[::1]:80", "localhost:9000/x", "{address}/lake", "s3.eu-west-1.amazonaws.com", "minio:9000"]
    {
        assert_eq!(hosts(&planted(&format!("{scheme}{fine}"))).len(), 0, "{fine}");
    }
    assert_eq!(hosts(&planted(&format!("{scheme}notgithub.com/x"))).len(), 1);
    for setting in REDIRECTIONS {
        assert_eq!(redirections(&planted(&format!("--{setting}=x"))).len(), 1);
    }
}

#[test]
fn planted_references_are_reported() {
    for document in ABSENT_DOCUMENTS {
        assert_eq!(absent_documents(&planted(&format!("see {document} 2"))).len(), 1);
    }
    assert_eq!(absent_documents(&planted("see docs/ARCHITECTURE.md")).len(), 0);
}
