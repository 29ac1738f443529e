//! Files of real writers, damaged by seeds: bytes flipped, inserted, removed, overwritten by numbers that are borders,
//! in footers, indexes, page headers and data.

use std::fs;
use std::path::{Path, PathBuf};

use crate::process::Child;

/// Mutations of all files together; the environment variable asks for more.
const MUTATIONS: u64 = 2_000;
const MORE: &str = "ALCEDO_HOSTILE_MUTATIONS";

/// Numbers at which counts and offsets go wrong.
const BORDERS: [i64; 14] = [
    0,
    1,
    -1,
    63,
    64,
    127,
    i16::MAX as i64,
    i32::MAX as i64,
    i32::MIN as i64,
    u32::MAX as i64,
    1 << 40,
    i64::MAX,
    i64::MIN,
    1 << 62,
];

/// Numbers by splitmix64 (Steele, Lea and Flood, 2014): the same for the same seed on every machine.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// A damaged copy. Three of four mutations hit the metadata at the file's end, whose length is then set right, because
/// a footer that is cut ends every lookup alike.
pub(crate) fn mutated(file: &[u8], seed: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    let Some((_, trailer)) = file.split_last_chunk::<8>() else { return file.to_vec() };
    let length = u32::from_le_bytes([trailer[0], trailer[1], trailer[2], trailer[3]]) as usize;
    let Some(footer_at) = file.len().checked_sub(8 + length) else { return file.to_vec() };
    let (mut data, mut footer) = (file[..footer_at].to_vec(), file[footer_at..file.len() - 8].to_vec());
    for _ in 0..1 + numbers.below(3) {
        match numbers.below(4) {
            // Page headers and the page index: the file's first bytes, and the last before the footer.
            0 => {
                let window = data.len().min(400);
                let from = if numbers.below(2) == 0 { 4.min(data.len()) } else { data.len() - window };
                damage(&mut data, from, &mut numbers);
            }
            1 => {
                let from = numbers.below(data.len());
                damage(&mut data, from, &mut numbers);
            }
            _ => {
                let from = numbers.below(footer.len());
                damage(&mut footer, from, &mut numbers);
            }
        }
    }
    data.extend_from_slice(&footer);
    data.extend((footer.len() as u32).to_le_bytes());
    data.extend(&trailer[4..]);
    data
}

/// Changes something within the 400 bytes from `from` on.
fn damage(bytes: &mut Vec<u8>, from: usize, numbers: &mut Numbers) {
    if bytes.is_empty() {
        return;
    }
    let at = (from + numbers.below(400)).min(bytes.len() - 1);
    let end = (at + 1 + numbers.below(16)).min(bytes.len());
    let border = BORDERS[numbers.below(BORDERS.len())];
    match numbers.below(7) {
        0 => bytes[at] ^= 1 << numbers.below(8),
        1 => bytes[at] = numbers.next() as u8,
        2 => drop(bytes.drain(at..end)),
        3 => {
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
        4 => drop(bytes.splice(at..=at, super::fuzzed::craft::zigzag(border))),
        5 => {
            let number = border.to_le_bytes();
            let end = (at + 8).min(bytes.len());
            bytes[at..end].copy_from_slice(&number[..end - at]);
        }
        _ => {
            let other = numbers.below(bytes.len());
            bytes.swap(at, other);
        }
    }
}

fn corpus() -> Vec<PathBuf> {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/files");
    let mut paths: Vec<PathBuf> = fs::read_dir(files).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn damaged_files_of_real_writers_end_in_rows_or_an_error() {
    let paths = corpus();
    let all = std::env::var(MORE).map_or(MUTATIONS, |more| more.parse().unwrap());
    let each = all.div_ceil(paths.len() as u64);
    let mut wrong = Vec::new();
    for path in &paths {
        let report = Child::mutations(path, 0..each).report();
        println!("{:<60} {report}", path.file_name().unwrap().to_string_lossy());
        let seed = report.answers.iter().rfind(|answer| answer.question.starts_with("seed "));
        let seed = seed.map_or("no seed", |answer| &answer.question);
        wrong.extend(report.faults().into_iter().map(|fault| format!("{} {seed}: {fault}", path.display())));
    }
    assert!(wrong.is_empty(), "{} faults:\n  {}", wrong.len(), wrong.join("\n  "));
}

#[test]
fn a_seed_gives_one_mutation_and_seeds_differ() {
    let file = fs::read(&corpus()[0]).unwrap();
    let distinct: std::collections::BTreeSet<Vec<u8>> = (0..50).map(|seed| mutated(&file, seed)).collect();
    assert!(distinct.len() > 45, "{}", distinct.len());
    assert_eq!(mutated(&file, 7), mutated(&file, 7));
}
