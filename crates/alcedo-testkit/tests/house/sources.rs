//! Rules on the text of sources: size, width, the first line, names, and what may not be left behind.
//!
//! Knows Rust as `rust_text` shows it. It must not know what a crate is for, with one exception: that `alcedo-lookup`
//! does no I/O.

use crate::rust_text::{code_only, functions, lines_before_tests, shipped_code};
use crate::tree::{File, assert_none, files};

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;
const COLUMNS: usize = 120;

/// Names that say nothing: what would be in such a room has a noun of its own.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "core", "types", "helper", "helpers", "misc"];

/// What is never left behind, in code or in comments.
const LEFTOVERS: &[&str] = &[
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("FIX", "ME"),
    concat!("TO", "DO"),
    concat!("XX", "X"),
    concat!("#[ig", "nore"),
    concat!("dead", "_code"),
    concat!("clippy::too", "_many"),
];

/// How a program touches the world; `alcedo-lookup` does not.
const WORLD: &[&str] = &[
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::env",
    "Instant::now",
    "SystemTime",
    "tokio",
    "object_store",
];

fn rust_files() -> impl Iterator<Item = &'static File> {
    files().iter().filter(|file| file.path.ends_with(".rs"))
}

fn faults_of(check: impl Fn(&File) -> Vec<String>) -> Vec<String> {
    let listed: Vec<String> = rust_files().flat_map(check).collect();
    assert!(rust_files().count() > 10, "the sources were not found");
    listed
}

fn first_line(file: &File) -> Vec<String> {
    if file.text.starts_with("//!") {
        return Vec::new();
    }
    vec![format!("{}: the first line is not `//!`: say the layer, what it knows and must not know, and why", file.path)]
}

fn size(file: &File) -> Vec<String> {
    let lines = lines_before_tests(&file.text);
    let long = functions(&file.text).into_iter().filter(|function| function.lines > FUNCTION_LINES);
    let mut faults: Vec<String> = long
        .map(|f| format!("{}:{}: `{}` has {} lines; the limit is {FUNCTION_LINES}", file.path, f.line, f.name, f.lines))
        .collect();
    if lines > FILE_LINES {
        faults.push(format!("{}: {lines} lines before the tests; the limit is {FILE_LINES}", file.path));
    }
    faults
}

fn width(file: &File) -> Vec<String> {
    let wide = file.text.lines().enumerate().filter(|(_, line)| line.chars().count() > COLUMNS);
    wide.map(|(at, _)| format!("{}:{}: wider than {COLUMNS} columns", file.path, at + 1)).collect()
}

fn leftovers(file: &File) -> Vec<String> {
    let found = |line: &str| LEFTOVERS.iter().find(|left| line.contains(**left));
    let lines = file.text.lines().enumerate();
    lines.filter_map(|(at, line)| Some(format!("{}:{}: `{}`", file.path, at + 1, found(line)?))).collect()
}

fn names(file: &File) -> Vec<String> {
    let stems = file.path.split('/').map(|part| part.strip_suffix(".rs").unwrap_or(part));
    let in_path = stems.filter(|stem| EMPTY_NAMES.contains(stem) || EMPTY_NAMES.iter().any(|n| is_crate_of(stem, n)));
    let code = code_only(&file.text);
    let modules = code.split("mod ").skip(1).filter_map(|rest| rest.split([' ', ';', '{']).next());
    let empty = in_path.chain(modules.filter(|name| EMPTY_NAMES.contains(name)));
    empty.map(|name| format!("{}: `{name}` says nothing: name it by the noun that it holds", file.path)).collect()
}

fn is_crate_of(stem: &str, name: &str) -> bool {
    stem.strip_prefix("alcedo-").is_some_and(|rest| rest == name)
}

fn world(file: &File) -> Vec<String> {
    let code = shipped_code(&file.text);
    let touched = WORLD.iter().filter(|path| code.contains(**path));
    touched.map(|path| format!("{}: uses `{path}`, but alcedo-lookup does no I/O", file.path)).collect()
}

#[test]
fn every_source_says_first_what_it_is() {
    assert_none("a source does not say what it is", &faults_of(first_line));
}

#[test]
fn files_and_functions_fit_in_a_head() {
    assert_none("too long", &faults_of(size));
}

#[test]
fn lines_fit_on_a_screen() {
    assert_none("too wide", &faults_of(width));
}

#[test]
fn nothing_is_left_behind() {
    assert_none("left behind", &faults_of(leftovers));
}

#[test]
fn names_say_something() {
    assert_none("an empty name", &faults_of(names));
}

#[test]
fn the_lookup_crate_does_no_io() {
    let ours = |file: &&File| file.path.starts_with("crates/alcedo-lookup/src/");
    assert!(rust_files().any(|file| ours(&file)), "alcedo-lookup was not found");
    assert_none("alcedo-lookup", &rust_files().filter(ours).flat_map(world).collect::<Vec<_>>());
}

fn planted(path: &str, text: &str) -> File {
    File { path: path.into(), text: text.into() }
}

fn function_of(lines: usize) -> String {
    format!("//! x\nfn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2))
}

#[test]
fn planted_sizes_are_reported() {
    assert_eq!(size(&planted("a.rs", &function_of(70))), Vec::<String>::new());
    assert_eq!(size(&planted("a.rs", &function_of(71))), ["a.rs:2: `f` has 71 lines; the limit is 70"]);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "// x\n".repeat(600));
    assert_eq!(size(&planted("a.rs", &format!("{}{tests}", "//! x\n".repeat(500)))), Vec::<String>::new());
    let long = size(&planted("a.rs", &format!("{}{tests}", "//! x\n".repeat(501))));
    assert_eq!(long, ["a.rs: 501 lines before the tests; the limit is 500"]);
    assert_eq!(width(&planted("a.rs", &format!("{}\n{}\n", "ü".repeat(120), "ü".repeat(121)))).len(), 1);
    assert_eq!(first_line(&planted("a.rs", "// x\n//! y\n")).len(), 1);
    assert_eq!(first_line(&planted("a.rs", "//! y\n")).len(), 0);
}

#[test]
fn planted_leftovers_are_reported() {
    for left in LEFTOVERS {
        let faults = leftovers(&planted("a.rs", &format!("//! x\nfn f() {{ {left} }}\n")));
        assert_eq!(faults, [format!("a.rs:2: `{left}`")]);
    }
    assert_eq!(leftovers(&planted("a.rs", "#[allow(missing_docs)] // ignored todos")).len(), 0);
}

#[test]
fn planted_names_are_reported() {
    for path in ["crates/x/src/util.rs", "crates/alcedo-common/src/lib.rs", "crates/x/tests/helpers/mod.rs"] {
        assert_eq!(names(&planted(path, "//! x\n")).len(), 1, "{path}");
    }
    assert_eq!(names(&planted("a.rs", "pub(crate) mod types {\n}\nmod core;\n")).len(), 2);
    assert_eq!(names(&planted("crates/x/src/keymap.rs", "mod key; // mod util;\nuse core::fmt;\n")).len(), 0);
}

#[test]
fn planted_io_is_reported() {
    assert_eq!(world(&planted("a.rs", "use std::fs::File;\n")).len(), 1);
    let in_tests_only = "// std::fs\nfn f() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
    assert_eq!(world(&planted("a.rs", in_tests_only)).len(), 0);
}
