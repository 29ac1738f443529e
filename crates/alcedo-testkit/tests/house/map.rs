//! Rules on `docs/ARCHITECTURE.md`: the map names what there is, and nothing that there is not.
//!
//! Knows the form of that document. It must not know more of the crates than their names and arrows.

use std::collections::BTreeSet;

use crate::arrows::HOUSE;
use crate::rust_text::functions;
use crate::tree::{assert_none, crates, files, root, text};

const MAP: &str = "docs/ARCHITECTURE.md";
const INVARIANTS: usize = 9;

/// The words in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Faults in the table of crates: a row is `` | layer | `crate` | owns | must not know | may use | ``.
fn crate_faults(map: &str, crates: &[&str]) -> Vec<String> {
    let mut faults = Vec::new();
    for name in crates {
        let row =
            map.lines().find(|line| line.split('|').nth(2).is_some_and(|cell| cell.trim() == format!("`{name}`")));
        let (Some(row), Some(room)) = (row, HOUSE.iter().find(|room| room.name == *name)) else {
            faults.push(format!("{name} has no row in the table of crates"));
            continue;
        };
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let used: BTreeSet<&str> = cells.get(5).into_iter().flat_map(|cell| quoted(cell)).collect();
        if cells[1] != room.layer.to_string() || used != room.may_see.iter().copied().collect() {
            faults.push(format!("{name}: the row's layer and arrows are not those that the arrows' test enforces"));
        }
    }
    faults
}

/// Faults in the list of invariants: numbered, each with a bold name, and a guard: tests that exist, or none yet.
fn invariant_faults(map: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let list = map.split("\n## Invariants\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or("");
    let mut faults = Vec::new();
    for number in 1..=INVARIANTS {
        let Some(item) = list.split(&format!("\n{number}. **")).nth(1) else {
            faults.push(format!("invariant {number} is missing"));
            continue;
        };
        let item = item.split(&format!("\n{}. ", number + 1)).next().unwrap_or("");
        match item.split("\n   Guard: ").nth(1).and_then(|rest| rest.lines().next()) {
            None => faults.push(format!("invariant {number} says nothing of its guard")),
            Some(guard) if !guard.contains('`') && !guard.starts_with("none yet") => {
                faults.push(format!("invariant {number} names no test as its guard"));
            }
            Some(guard) => {
                let absent = quoted(guard).filter(|name| !tests.contains(*name));
                faults.extend(absent.map(|name| format!("invariant {number}: there is no test `{name}`")));
            }
        }
    }
    faults
}

/// Faults in the paths that the map names.
fn path_faults(map: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let is_path =
        |word: &&str| word.contains('/') && !word.contains(['*', ' ', ':', '{', '<']) && !word.starts_with('/');
    quoted(map).filter(is_path).filter(|path| !exists(path)).map(|path| format!("there is no `{path}`")).collect()
}

fn all_functions() -> BTreeSet<String> {
    let sources = files().iter().filter(|file| file.path.ends_with(".rs"));
    sources.flat_map(|file| functions(&file.text)).map(|function| function.name).collect()
}

#[test]
fn the_map_names_every_crate_with_its_arrows() {
    assert_none(MAP, &crate_faults(text(MAP), &crates()));
}

#[test]
fn the_map_prints_the_invariants_and_their_guards() {
    assert_none(MAP, &invariant_faults(text(MAP), &all_functions()));
}

#[test]
fn the_map_names_only_places_that_exist() {
    assert_none(MAP, &path_faults(text(MAP), |path| root().join(path).exists()));
}

#[test]
fn planted_maps_are_reported() {
    let row = "| 1 | `alcedo-cache` | bytes | meaning | `alcedo-origin` |\n";
    assert_eq!(crate_faults(row, &["alcedo-cache"]), Vec::<String>::new());
    assert_eq!(crate_faults("see `alcedo-cache`", &["alcedo-cache"]).len(), 1);
    assert_eq!(crate_faults(&row.replace("| 1", "| 2"), &["alcedo-cache"]).len(), 1);
    assert_eq!(crate_faults(&row.replace("origin", "lookup"), &["alcedo-cache"]).len(), 1);
    assert_eq!(path_faults("`crates/x` `proto` `a::b/c`", |_| false), ["there is no `crates/x`"]);
}

#[test]
fn planted_invariants_are_reported() {
    let tests = BTreeSet::from(["a_test".to_owned()]);
    let item = |number| format!("{number}. **Name.** Text.\n   Guard: `a_test`.\n");
    let list: String = (1..=INVARIANTS).map(item).collect();
    let map = format!("# Map\n\n## Invariants\n\n{list}\n## Next\n");
    assert_eq!(invariant_faults(&map, &tests), Vec::<String>::new());
    assert_eq!(invariant_faults(&map.replace("5. **", "5. "), &tests), ["invariant 5 is missing"]);
    assert_eq!(invariant_faults(&map.replacen("   Guard: `a_test`.\n", "", 1), &tests).len(), 1);
    assert_eq!(invariant_faults(&map.replacen("`a_test`", "later", 1), &tests).len(), 1);
    assert_eq!(invariant_faults(&map.replacen("a_test", "gone", 1), &tests), ["invariant 1: there is no test `gone`"]);
    assert_eq!(invariant_faults(&map.replacen("`a_test`.", "none yet.", 1), &tests), Vec::<String>::new());
    assert_eq!(invariant_faults("# Map\n", &tests).len(), INVARIANTS);
}
