//! The stores of one cache directory beside each other: what each keeps, drops and refuses.
//!
//! Knows the public API. It must not know how room is made, only whose room it may be.

use std::path::Path;

use alcedo_cache::{CacheDir, FileKey, PageStore, StoreName, StoredFile};
use bytes::Bytes;

use super::lake::{self, PATIENCE};

/// Eight segments of 1 MiB.
const CAPACITY: u64 = 8 << 20;
/// Less than a segment, so that each file needs one of its own but for a small rest.
const FILE_BYTES: usize = 900 << 10;

fn open(path: &Path, name: StoreName) -> (CacheDir, PageStore) {
    let dir = CacheDir::open(path, "w1").unwrap();
    let store = PageStore::open(&dir, name, CAPACITY).unwrap();
    (dir, store)
}

fn file(number: usize) -> FileKey {
    FileKey::new(format!("s3://lake/{}.parquet", number / 100), format!("v1\u{0}{number}"))
}

fn content(number: usize) -> Bytes {
    (0..FILE_BYTES).map(|place| (place ^ (place >> 9) ^ number) as u8).collect::<Vec<u8>>().into()
}

fn put(store: &PageStore, number: usize) -> bool {
    store.write_whole(&file(number), &content(number), PATIENCE)
}

fn is_whole(store: &PageStore, number: usize) -> bool {
    store.held_bytes(&file(number)) == FILE_BYTES as u64
        && lake::read(store, &file(number), 0..FILE_BYTES as u64)
            .inspect(|bytes| assert_eq!(*bytes, content(number)))
            .is_some()
}

fn whole(store: &PageStore, numbers: std::ops::Range<usize>) -> Vec<usize> {
    numbers.filter(|number| is_whole(store, *number)).collect()
}

#[test]
fn three_stores_in_one_directory_have_nothing_in_common() {
    let temp = tempfile::tempdir().unwrap();
    let dir = CacheDir::open(temp.path(), "w1").unwrap();
    let names = [StoreName::Pages, StoreName::Derived, StoreName::Pinned];
    let stores = names.map(|name| PageStore::open(&dir, name, CAPACITY).unwrap());
    for (number, store) in stores.iter().enumerate() {
        assert!(put(store, number));
    }
    assert_eq!(stores[1].forget(&file(1)), FILE_BYTES as u64);
    assert!(put(&stores[1], 11) && stores[1].settle(PATIENCE));
    drop((stores, dir));
    let dir = CacheDir::open(temp.path(), "w1").unwrap();
    for (name, kept) in names.into_iter().zip([0, 11, 2]) {
        let files = PageStore::open(&dir, name, CAPACITY).unwrap().files();
        let bytes = FILE_BYTES as u64;
        assert_eq!(files, [StoredFile { key: file(kept), size: bytes, held_bytes: bytes }], "{name:?}");
    }
}

#[test]
fn what_is_pinned_stays_and_what_does_not_fit_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, store) = open(temp.path(), StoreName::Pinned);
    let kept: Vec<usize> = (0..12).filter(|number| put(&store, *number)).collect();
    assert_eq!(kept, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(whole(&store, 0..12), kept);
    assert!(store.counts().dropped_writes >= 4 && store.evictions() == 0, "{:?}", store.counts());
    assert!(store.counts().file_bytes <= CAPACITY);
    for number in 8..12 {
        store.forget(&file(number));
    }
    drop((dir, store));
    let (_dir, store) = open(temp.path(), StoreName::Pinned);
    assert_eq!(whole(&store, 0..12), kept, "it is all there after a restart");
    assert!(!put(&store, 20), "and there is still no room");
    store.forget(&file(20));
    // What is let go makes room for as much.
    store.forget(&file(3));
    assert!(put(&store, 21) && !put(&store, 22));
    assert_eq!(whole(&store, 0..22), [0, 1, 2, 4, 5, 6, 7, 21]);
}

#[test]
fn a_smaller_quota_holds_also_where_nothing_is_dropped_otherwise() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, store) = open(temp.path(), StoreName::Pinned);
    assert!((0..8).all(|number| put(&store, number)));
    drop((dir, store));
    let dir = CacheDir::open(temp.path(), "w1").unwrap();
    let store = PageStore::open(&dir, StoreName::Pinned, CAPACITY / 2).unwrap();
    assert!(store.counts().file_bytes <= CAPACITY / 2 && store.evictions() > 0, "{:?}", store.counts());
    assert_eq!(whole(&store, 0..8), [4, 5, 6, 7]);
}

#[test]
fn of_what_is_derived_the_forgotten_goes_before_the_old() {
    let temp = tempfile::tempdir().unwrap();
    let (_dir, store) = open(temp.path(), StoreName::Derived);
    assert!((0..8).all(|number| put(&store, number)));
    store.forget(&file(5));
    assert!(put(&store, 8));
    assert_eq!(whole(&store, 0..9), [0, 1, 2, 3, 4, 6, 7, 8]);
    assert!(put(&store, 9));
    assert_eq!(whole(&store, 0..10), [1, 2, 3, 4, 6, 7, 8, 9], "then the oldest");
    assert!(store.counts().file_bytes <= CAPACITY && store.evictions() > 0);
}

#[test]
fn in_memory_the_same_holds_of_what_is_pinned() {
    let store = PageStore::in_memory_as(StoreName::Pinned, CAPACITY);
    let kept: Vec<usize> = (0..12).filter(|number| put(&store, *number)).collect();
    assert_eq!(kept, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(store.bytes() <= CAPACITY && store.evictions() == 0);
    for number in 9..12 {
        store.forget(&file(number));
    }
    assert_eq!(store.files().len(), 9);
    store.forget(&file(0));
    assert!(put(&store, 30) && !put(&store, 31) && is_whole(&store, 30));
    assert_eq!(whole(&store, 0..12), kept[1..]);
}
