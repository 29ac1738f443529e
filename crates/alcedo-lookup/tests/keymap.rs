//! Keymaps of the corpus: their bytes as they always were, its lookups answered through them, and what they read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alcedo_lookup::answer::{Body, FileAnswer, Form, KeyStatus};
use alcedo_lookup::key::Key;
use alcedo_lookup::keymap::builder::{Builder, build_bytes};
use alcedo_lookup::keymap::{Keymap, Next};
use alcedo_lookup::limits::Limits;
use alcedo_lookup::machine::{Fed, Machine, Piece, Step, drive_bytes};
use alcedo_lookup::open::Open;
use alcedo_lookup::prepared::Prepared;
use alcedo_lookup::search::{Query, Search};
use bytes::Bytes;

/// Room for all entries at once.
const AMPLE: usize = 1 << 20;
/// Lookups of each column of each file: the first ones tell as much as the others.
const ASKED: usize = 12;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

struct Asked {
    file: Bytes,
    prepared: Arc<Prepared>,
    keys: Vec<Key>,
    parts: Vec<Bytes>,
    head: Bytes,
    keymap: Keymap,
}

impl Asked {
    fn new(file: &str, column: &str, keys: Vec<Key>) -> Self {
        let file = Bytes::from(fs::read(tests().join("corpus/files").join(file)).unwrap());
        let prepared = prepare(&file, column);
        let (parts, head) = build_bytes(Builder::new(prepared.clone(), AMPLE).unwrap(), &file).unwrap();
        let keymap = Keymap::read(&head, prepared.index()).unwrap();
        Self { file, prepared, keys, parts, head, keymap }
    }

    fn candidates(&self, key: &Key) -> Vec<u64> {
        let mut rows = Vec::new();
        let Some(point) = self.prepared.key_point(key).unwrap() else { return rows };
        let mut next = self.keymap.place(&point);
        while let Next::Read(read) = &next {
            let bytes = &self.parts[read.part as usize][read.range.start as usize..read.range.end as usize];
            next = self.keymap.rows(read, bytes, &mut rows).unwrap();
        }
        assert_eq!(next, Next::Done, "these files are small");
        rows
    }

    fn at_candidates(&self, key: &Key) -> Search {
        Search::at_rows(self.prepared.clone(), std::slice::from_ref(key), self.candidates(key)).unwrap()
    }
}

/// All that is known of the file is its footer.
fn prepare(file: &Bytes, column: &str) -> Arc<Prepared> {
    let limits = Arc::new(Limits::default());
    let index = drive_bytes(Open::new(64 << 10, limits.clone()), file).unwrap();
    let (key_column, form) = (Some(column.to_owned()), Form::CompactRows);
    let query = Query { key_column, keys: Vec::new(), columns: None, form, row_limit: None };
    Arc::new(Prepared::new(index, &query, limits).unwrap())
}

/// The lookups of the corpus that have an answer, by file and column.
fn corpus() -> BTreeMap<(String, String), Vec<Key>> {
    let mut corpus: BTreeMap<_, Vec<Key>> = BTreeMap::new();
    for line in fs::read_to_string(tests().join("corpus/queries.jsonl")).unwrap().lines() {
        let query: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        if query["expect"]["status"] != "ok" || query["key"]["column"].is_null() {
            continue;
        }
        let key = match (&query["key"]["value"], query["op"].as_str()) {
            (_, Some("is_null")) => Key::Null,
            (serde_json::Value::Bool(value), _) => Key::Bool(*value),
            (serde_json::Value::String(value), _) => match text(&query["key"]["type"]) {
                ty if ty == "binary" || ty.starts_with("fixed") => Key::Text(format!("base64:{value}")),
                _ => Key::Text(value.clone()),
            },
            _ => continue,
        };
        let keys = corpus.entry((text(&query["file"]), text(&query["key"]["column"]))).or_default();
        if keys.len() < ASKED {
            keys.push(key);
        }
    }
    corpus
}

fn asked() -> impl Iterator<Item = ((String, String), Asked)> {
    corpus().into_iter().map(|((file, column), keys)| {
        let asked = Asked::new(&file, &column, keys);
        ((file, column), asked)
    })
}

#[test]
fn version_1_is_written_as_it_always_was() {
    let mut lines = Vec::new();
    for ((file, column), asked) in asked() {
        let crc = |bytes: &Bytes| format!("{:08x}", crc32fast::hash(bytes));
        let parts: Vec<String> = asked.parts.iter().map(crc).collect();
        let bytes: usize = asked.parts.iter().map(Bytes::len).sum();
        let (head, parts) = (crc(&asked.head), parts.join(" "));
        lines.push(format!("{file}\t{column}\t{}\t{head}\t{bytes}\t{parts}\n", asked.head.len()));
    }
    let now = lines.concat();
    let golden = fs::read_to_string(tests().join("golden/keymap_v1.tsv")).unwrap_or_default();
    assert!(golden == now, "the format or the hash changed: give it a new version. keymap_v1.tsv is now\n{now}");
}

#[test]
fn lookups_of_the_corpus_are_answered_as_without_a_keymap() {
    let (mut found, mut absent) = (0, 0);
    for ((file, column), asked) in asked() {
        for key in &asked.keys {
            let without = Search::of(asked.prepared.clone(), std::slice::from_ref(key)).unwrap();
            let without = drive_bytes(without, &asked.file).unwrap();
            let with = drive_bytes(asked.at_candidates(key), &asked.file).unwrap();
            let told =
                |answer: &FileAnswer| (answer.row_number.clone(), answer.key_index.clone(), answer.statuses.clone());
            assert_eq!(told(&with), told(&without), "{file}, {column} = {key}");
            let (Body::Compact(rows), Body::Compact(wanted)) = (&with.body, &without.body) else { panic!("not asked") };
            assert!(rows == wanted, "{file}, {column} = {key}: the rows differ");
            match with.statuses[0] {
                KeyStatus::NotFound => absent += 1,
                _ => found += 1,
            }
        }
    }
    assert!(found > 200 && absent > 50, "{found} keys found, {absent} absent");
}

/// What each round of a search asks for, to its end.
fn rounds(mut search: Search, file: &Bytes) -> (FileAnswer, Vec<Vec<Range<u64>>>) {
    let mut rounds = Vec::new();
    loop {
        match search.step().unwrap() {
            Step::Done(answer) => return (answer, rounds),
            Step::Need(need) => {
                let mut ranges = Vec::new();
                for piece in &need.pieces {
                    let Piece::Range(range) = piece else { panic!("a search knows the file") };
                    let bytes = file.slice(range.start as usize..range.end as usize);
                    search.feed(piece, Fed { start: range.start, file_size: file.len() as u64, bytes });
                    ranges.push(range.clone());
                }
                rounds.push(ranges);
            }
        }
    }
}

#[test]
fn a_row_costs_one_trip_and_one_data_page_of_each_column() {
    let mut asked = Asked::new("ar_default.parquet", "name", Vec::new());
    let columns = asked.prepared.schema().columns.len();
    // Another worker knows as little as its footer tells.
    asked.prepared = prepare(&asked.file, "name");
    let key = Key::from("name-eji-0");
    let (answer, cold) = rounds(asked.at_candidates(&key), &asked.file);
    assert_eq!(answer.row_number, [0]);
    assert_eq!(cold.len(), 2, "offset indexes, then data pages: {cold:?}");
    assert_eq!(cold[0].len(), columns, "no bounds are read: {cold:?}");
    let (answer, warm) = rounds(asked.at_candidates(&key), &asked.file);
    assert_eq!(answer.row_number, [0]);
    assert_eq!(warm.len(), 1, "{warm:?}");
    assert!(warm[0].len() <= 2 * columns, "a data page and a dictionary of each column: {warm:?}");
    let (_, absent) = rounds(asked.at_candidates(&Key::from("no such name")), &asked.file);
    assert!(absent.is_empty(), "nothing is read for an absent key: {absent:?}");
}
