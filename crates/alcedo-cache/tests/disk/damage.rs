//! Segments that were cut, flipped, swapped: every read is right or a miss.

use std::fs;
use std::path::Path;

use alcedo_cache::PageStore;

use super::lake::{BLOCK, ROOMY, is_here, key, open, segments, settle, write};

const SIZE: u64 = 20 * BLOCK;

/// What is written: files of different lengths, some in several extents.
const WRITTEN: [(u64, u64, u64); 5] =
    [(1, 0, SIZE), (2, BLOCK, 2 * BLOCK), (3, 4 * BLOCK, 9 * BLOCK), (4, 0, BLOCK), (2, 7 * BLOCK, 8 * BLOCK)];

fn fill(path: &Path) {
    let store = open(path, ROOMY);
    for (number, start, end) in WRITTEN {
        write(&store, &key(number, 0), SIZE, start..end);
    }
    settle(&store);
}

/// How many of the extents are here; block by block, so that every part of each is looked at.
fn count_here(store: &PageStore) -> usize {
    let of_file = |number: u64| (0..SIZE / BLOCK).map(move |block| (number, block * BLOCK));
    (1..6).flat_map(of_file).for_each(|(number, at)| {
        is_here(store, &key(number, 0), at..at + BLOCK);
    });
    WRITTEN.iter().filter(|(number, start, end)| is_here(store, &key(*number, 0), *start..*end)).count()
}

/// A store over segment files with these bytes, in a directory of its own.
fn over(files: &[Vec<u8>], check: impl FnOnce(PageStore)) {
    let temp = tempfile::tempdir().unwrap();
    let pages = temp.path().join("pages");
    fs::create_dir(&pages).unwrap();
    fs::write(temp.path().join("ALCEDO-CACHE"), "alcedo-cache 1\nworker w1\n").unwrap();
    for (id, bytes) in files.iter().enumerate() {
        fs::write(pages.join(format!("{id:016x}.segment")), bytes).unwrap();
    }
    check(open(temp.path(), ROOMY));
}

/// The written part of the first segment of a filled store.
fn filled() -> Vec<u8> {
    let temp = tempfile::tempdir().unwrap();
    fill(temp.path());
    let mut bytes = fs::read(segments(temp.path()).remove(0)).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes.truncate(written + 512);
    bytes
}

#[test]
fn a_segment_may_be_cut_anywhere() {
    let bytes = filled();
    let mut here = Vec::new();
    for length in (0..bytes.len()).step_by(512).chain(bytes.len() - 600..bytes.len() - 400) {
        over(&[bytes[..length].to_vec()], |store| here.push((length, count_here(&store))));
    }
    here.sort_unstable();
    assert!(here.windows(2).all(|pair| pair[0].1 <= pair[1].1), "more was found in less: {here:?}");
    assert_eq!((here.first().unwrap().1, here.last().unwrap().1), (0, WRITTEN.len()));
}

#[test]
fn every_flipped_byte_is_found() {
    let golden = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1.segment")).unwrap();
    let size = 300;
    let parts = [(key(1, 0), 0..size), (key(2, 7), 0..size)];
    for at in 0..golden.len() {
        let mut broken = golden.clone();
        broken[at] ^= 1 << (at % 8);
        over(&[broken], |store| {
            let here = parts.iter().filter(|(file, range)| is_here(&store, file, range.clone())).count();
            let again = parts.iter().filter(|(file, range)| is_here(&store, file, range.clone())).count();
            assert_eq!(here, again);
            // Behind the last data are headers and the table, and either tells what the other lost.
            let counts = store.counts();
            let is_noticed = here == 2 || counts.corrupt > 0 || at < 32;
            assert!(is_noticed, "byte {at}: {here} parts are here and nothing was counted: {counts:?}");
            for (file, range) in &parts {
                if !is_here(&store, file, range.clone()) {
                    write(&store, file, size, range.clone());
                    assert!(is_here(&store, file, range.clone()), "a miss is repaired");
                }
            }
        });
    }
}

#[test]
fn flips_in_data_cost_their_extent_only() {
    let bytes = filled();
    for at in (0..bytes.len() - 512).step_by(997) {
        let mut broken = bytes.clone();
        broken[at] ^= 0x10;
        over(&[broken], |store| {
            let here = count_here(&store);
            assert!(here < WRITTEN.len(), "byte {at}");
            let (extents, corrupt) = (store.counts().extents, store.counts().corrupt);
            assert!(here as u64 <= extents && (corrupt > 0 || at < 32), "byte {at}: {:?}", store.counts());
        });
    }
}

#[test]
fn swapped_segment_files_are_found() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path(), 8 << 20);
    for number in 0..4 {
        write(&store, &key(number, 0), 1 << 20, 0..1 << 19);
        settle(&store);
    }
    drop(store);
    let paths = segments(temp.path());
    assert!(paths.len() >= 2, "{paths:?}");
    let (first, second) = (fs::read(&paths[0]).unwrap(), fs::read(&paths[1]).unwrap());
    over(&[first.clone(), second.clone()], |store| assert!(is_here(&store, &key(0, 0), 0..1 << 19)));
    over(&[second, first], |store| {
        (0..4).for_each(|number| assert!(!is_here(&store, &key(number, 0), 0..1)));
        assert_eq!(store.counts().corrupt, 2);
    });
}

#[test]
fn swapped_extents_are_found() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path(), ROOMY);
    for number in 0..3 {
        write(&store, &key(number, 0), SIZE, 0..BLOCK);
    }
    settle(&store);
    drop(store);
    let bytes = fs::read(segments(temp.path()).remove(0)).unwrap();
    let starts: Vec<usize> = (0..bytes.len() - 4).filter(|at| bytes[*at..].starts_with(b"ALCX")).collect();
    let length = starts[1] - starts[0];
    assert_eq!((starts.len(), starts[2] - starts[1]), (3, length), "all extents are alike but for their file");
    let mut swapped = bytes.clone();
    swapped[starts[0]..starts[1]].copy_from_slice(&bytes[starts[1]..starts[2]]);
    swapped[starts[1]..starts[2]].copy_from_slice(&bytes[starts[0]..starts[1]]);
    over(&[swapped], |store| {
        (0..3).for_each(|number| assert!(!is_here(&store, &key(number, 0), 0..BLOCK)));
        assert!(store.counts().corrupt > 0);
    });
    // Data alone, under the header of another file.
    let data = length - BLOCK as usize;
    let mut swapped = bytes.clone();
    swapped[starts[0] + data..starts[1]].copy_from_slice(&bytes[starts[1] + data..starts[2]]);
    over(&[swapped], |store| {
        assert!(!is_here(&store, &key(0, 0), 0..BLOCK) && is_here(&store, &key(1, 0), 0..BLOCK));
        assert_eq!(store.counts().corrupt, 1);
    });
}
