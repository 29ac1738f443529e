//! Lookup-ready rows give what a search gives: the corpus, windows, orders of keys, large rows, damage.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod same_rows;

use std::path::Path;

use alcedo_lookup::error::Error;
use alcedo_lookup::limits::Limits;
use bytes::Bytes;

use same_rows::*;

fn corpus() -> Vec<(String, Bytes)> {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/files");
    let mut files: Vec<_> = std::fs::read_dir(files).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), Bytes::from(std::fs::read(path).unwrap()))).collect()
}

#[test]
fn every_file_of_the_corpus_gives_what_a_search_gives() {
    for (name, file) in corpus() {
        let start = std::time::Instant::now();
        let result = check(&file, ("k", None), &[None, Some(&["k"])], &Limits::default());
        eprintln!("{name}: {result:?} {:?}", start.elapsed());
    }
}
