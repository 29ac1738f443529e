//! What fuzzing found, replayed: `regressions/TARGET/*`, and the seeds that fuzzing starts from.

use std::fs;
use std::path::{Path, PathBuf};

use crate::fuzzed;

type Target = fn(&[u8]);

const TARGETS: &[(&str, Target)] = &[
    ("answer", fuzzed::answer),
    ("file", fuzzed::file),
    ("file_index", fuzzed::file_index),
    ("footer", fuzzed::footer),
    ("key_text", fuzzed::key_text),
    ("keymap", fuzzed::keymap),
    ("page", fuzzed::page),
    ("page_index", fuzzed::page_index),
    ("ready", fuzzed::ready),
];

fn inputs(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}

fn replay(folder: &Path) -> usize {
    let mut replayed = 0;
    for (name, target) in TARGETS {
        for path in inputs(&folder.join(name)) {
            let input = fs::read(&path).unwrap();
            let ended = std::panic::catch_unwind(|| target(&input));
            assert!(ended.is_ok(), "{}", path.display());
            replayed += 1;
        }
    }
    replayed
}

#[test]
fn what_fuzzing_found_stays_mended() {
    let replayed = replay(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/regressions"));
    assert!(replayed > 0, "nothing was found there");
}

#[test]
fn seeds_of_every_target_are_small_and_end() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let files: Vec<PathBuf> = TARGETS.iter().flat_map(|(name, _)| inputs(&corpus.join(name))).collect();
    let bytes: u64 = files.iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(bytes < 1 << 20, "{bytes} bytes of seeds");
    assert!(TARGETS.iter().all(|(name, _)| !inputs(&corpus.join(name)).is_empty()), "a target without seeds");
    assert_eq!(replay(&corpus), files.len());
}
