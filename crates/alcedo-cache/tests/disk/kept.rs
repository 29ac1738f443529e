//! What is kept, what is dropped, and what a live store does when its directory is pulled from under it.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use alcedo_cache::{CacheDir, OpenError, PageStore};
use bytes::Bytes;

use super::lake::{BLOCK, PATIENCE, ROOMY, disk_bytes, is_here, key, open, segments, settle, write};

const SIZE: u64 = 10 << 20;
const PAGE: u64 = 64 << 10;

#[test]
fn what_was_written_is_there_after_a_reopen() {
    let temp = tempfile::tempdir().unwrap();
    let size = 5 * PAGE + 100;
    {
        let store = open(temp.path(), ROOMY);
        assert!(store.is_on_disk());
        for version in 0..2 {
            write(&store, &key(1, version), size, BLOCK..3 * PAGE);
            write(&store, &key(1, version), size, size - 100..size);
        }
        assert!(is_here(&store, &key(1, 0), BLOCK + 5..2 * PAGE + 7), "readable before it is written");
        settle(&store);
        assert!(is_here(&store, &key(1, 0), BLOCK + 5..2 * PAGE + 7), "and after");
        assert_eq!(store.counts().pending_bytes, 0);
    }
    for _ in 0..3 {
        let store = open(temp.path(), ROOMY);
        let held = 3 * PAGE - BLOCK + 100;
        assert_eq!((store.bytes(), store.held_bytes(&key(1, 0))), (2 * held, held));
        for version in 0..2 {
            assert!(is_here(&store, &key(1, version), BLOCK..3 * PAGE));
            assert!(is_here(&store, &key(1, version), size - 7..size));
            assert!(!is_here(&store, &key(1, version), BLOCK - 1..BLOCK + 1));
            assert_eq!(store.missing(&key(1, version), size, 0..size), [0..BLOCK, 3 * PAGE..5 * PAGE]);
        }
        assert!(!is_here(&store, &key(2, 0), BLOCK..2 * BLOCK));
        assert_eq!(store.counts().segments, 1, "an unsealed segment is gone on with");
        assert_eq!((store.counts().corrupt, store.counts().restored_extents), (0, 4));
    }
}

#[test]
fn what_is_here_is_not_written_again() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path(), ROOMY);
    for _ in 0..3 {
        write(&store, &key(1, 0), SIZE, 0..4 * PAGE);
        write(&store, &key(1, 0), SIZE, 2 * PAGE..6 * PAGE);
    }
    settle(&store);
    assert_eq!(store.bytes(), 6 * PAGE);
    assert_eq!(store.counts().extents, 2);
    assert!(is_here(&store, &key(1, 0), 0..6 * PAGE));
}

#[test]
fn the_oldest_goes_first_and_the_quota_holds_at_every_moment() {
    let temp = tempfile::tempdir().unwrap();
    let capacity = 10 << 20;
    let done = AtomicBool::new(false);
    let most = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                // Once more after the end, so that it is looked at also where this thread was never let run before.
                let is_last = done.load(Ordering::SeqCst);
                most.fetch_max(disk_bytes(temp.path()), Ordering::SeqCst);
                if is_last {
                    break;
                }
            }
        });
        let store = open(temp.path(), capacity);
        for number in 0..60 {
            write(&store, &key(number, 0), 1 << 20, 0..1 << 20);
            settle(&store);
            assert!(store.counts().file_bytes <= capacity);
        }
        let here: Vec<u64> = (0..60).filter(|number| is_here(&store, &key(*number, 0), 0..1 << 20)).collect();
        assert!(here.len() >= 7, "{here:?}");
        assert!(here.windows(2).all(|pair| pair[0] + 1 == pair[1]) && here.ends_with(&[59]), "{here:?}");
        assert!(store.evictions() > 0);
        done.store(true, Ordering::SeqCst);
    });
    let most = most.into_inner();
    assert!(most > 5 << 20 && most <= capacity, "{most} bytes were on disk, and {capacity} are allowed");
    // A smaller quota is kept from the start.
    let store = open(temp.path(), 4 << 20);
    assert!(disk_bytes(temp.path()) <= 4 << 20 && store.counts().segments >= 3);
    assert!(is_here(&store, &key(59, 0), 0..1 << 20));
}

#[test]
fn a_quota_without_room_for_a_segment_keeps_nothing() {
    let temp = tempfile::tempdir().unwrap();
    for capacity in [0, 1 << 19] {
        let store = open(temp.path(), capacity);
        write(&store, &key(1, 0), SIZE, 0..PAGE);
        settle(&store);
        assert!(!is_here(&store, &key(1, 0), 0..1));
        assert_eq!((disk_bytes(temp.path()), store.bytes()), (0, 0));
    }
}

#[test]
fn the_queue_is_bounded_and_what_does_not_fit_is_dropped() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path(), 1 << 30);
    let bytes = Bytes::from(vec![7; 1 << 20]);
    for number in 0..2_000 {
        store.write(&key(number, 0), 1 << 20, 0, &bytes);
        assert!(store.counts().pending_bytes <= 64 << 20);
    }
    settle(&store);
    let counts = store.counts();
    assert_eq!(counts.evictions + counts.extents + counts.dropped_writes, 2_000, "{counts:?}");
    assert!(counts.dropped_writes > 0 && counts.extents > 0, "{counts:?}");
}

#[test]
fn what_was_forgotten_stays_so_after_a_reopen() {
    let temp = tempfile::tempdir().unwrap();
    {
        let store = open(temp.path(), ROOMY);
        for version in 0..3 {
            write(&store, &key(1, version), SIZE, 0..PAGE);
        }
        write(&store, &key(2, 0), SIZE, 0..PAGE);
        settle(&store);
        assert_eq!(store.forget(&key(1, 0)), PAGE);
        assert_eq!((store.forget(&key(1, 0)), store.forget_url("s3://elsewhere")), (0, 0));
        write(&store, &key(1, 1), SIZE, PAGE..2 * PAGE);
        assert_eq!(store.forget_url(key(1, 0).url()), 3 * PAGE);
        write(&store, &key(1, 2), SIZE, 4 * PAGE..5 * PAGE);
        settle(&store);
    }
    let store = open(temp.path(), ROOMY);
    for version in 0..2 {
        assert_eq!(store.held_bytes(&key(1, version)), 0);
    }
    assert_eq!((store.held_bytes(&key(1, 2)), store.held_bytes(&key(2, 0))), (PAGE, PAGE), "what came after is kept");
    assert!(is_here(&store, &key(1, 2), 4 * PAGE..5 * PAGE) && !is_here(&store, &key(1, 2), 0..PAGE));
}

#[test]
fn a_live_directory_may_be_emptied() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("cache");
    let store = open(&path, 8 << 20);
    let rounds = 30;
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let store = store.clone();
            scope.spawn(move || {
                for number in 0..rounds * 10 {
                    let file = key((number * 7 + reader) % 50, 0);
                    is_here(&store, &file, 5..PAGE - 5);
                    write(&store, &file, 1 << 20, 0..1 << 18);
                    is_here(&store, &file, 5..1 << 17);
                }
            });
        }
        for _ in 0..rounds {
            for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
                // The store writes while this goes on, so some of it may be gone or new.
                let _ = fs::remove_dir_all(entry.path());
                let _ = fs::remove_file(entry.path());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    // It goes on, if need be after the pause of a disk that failed too often, and a start finds a directory in order.
    let began = Instant::now();
    while store.counts().down {
        assert!(began.elapsed() < PATIENCE, "{:?}", store.counts());
        std::thread::sleep(Duration::from_millis(10));
    }
    for number in 100..140 {
        write(&store, &key(number, 0), 1 << 20, 0..1 << 20);
        settle(&store);
    }
    assert!(is_here(&store, &key(139, 0), 0..1 << 20) && !segments(&path).is_empty());
    drop(store);
    let store = open(&path, 8 << 20);
    assert!(is_here(&store, &key(139, 0), 0..1 << 20));
}

#[test]
fn a_marker_that_is_removed_in_use_is_made_again() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path(), 8 << 20);
    fs::remove_file(temp.path().join("ALCEDO-CACHE")).unwrap();
    // Enough for a segment to be begun: nothing else of the directory is missing.
    for number in 0..4 {
        write(&store, &key(number, 0), 1 << 20, 0..1 << 20);
        settle(&store);
    }
    drop(store);
    let store = open(temp.path(), 8 << 20);
    assert!(is_here(&store, &key(3, 0), 0..1 << 20));
}

#[test]
fn a_file_that_is_not_a_segment_is_dropped_and_others_are_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    drop(open(temp.path(), ROOMY));
    let pages = temp.path().join("pages");
    fs::write(pages.join("0000000000000005.segment"), "not a segment").unwrap();
    fs::write(pages.join("0000000000000006.segment"), "").unwrap();
    fs::write(pages.join("5.segment"), "somebody's").unwrap();
    let store = open(temp.path(), ROOMY);
    assert_eq!(store.counts().corrupt, 2);
    assert_eq!(segments(temp.path()), [pages.join("5.segment")]);
    write(&store, &key(1, 0), SIZE, 0..PAGE);
    settle(&store);
    assert!(is_here(&store, &key(1, 0), 0..PAGE));
}

#[test]
fn a_segment_of_a_newer_format_is_left_for_a_day() {
    let temp = tempfile::tempdir().unwrap();
    {
        let store = open(temp.path(), 16 << 20);
        write(&store, &key(1, 0), SIZE, 0..PAGE);
        settle(&store);
    }
    let path = segments(temp.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    fs::write(&path, &bytes).unwrap();
    let rewrite = |store: &PageStore| {
        assert!(!is_here(store, &key(1, 0), 0..PAGE));
        // More than the quota, so that the store has to choose what goes.
        for number in 10..40 {
            write(store, &key(number, 0), 1 << 20, 0..1 << 20);
            settle(store);
            assert!(disk_bytes(temp.path()) <= 16 << 20);
        }
    };
    let store = open(temp.path(), 16 << 20);
    assert_eq!(store.counts().corrupt, 0);
    rewrite(&store);
    assert_eq!(fs::read(&path).unwrap(), bytes, "a rollback finds it as it was");
    drop(store);
    let yesterday = SystemTime::now() - Duration::from_secs(25 * 3_600);
    fs::File::options().write(true).open(&path).unwrap().set_modified(yesterday).unwrap();
    let store = open(temp.path(), 16 << 20);
    rewrite(&store);
    assert!(!path.exists());
}

#[test]
fn one_directory_has_one_worker_at_a_time() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path(), ROOMY);
    let refused = CacheDir::open(temp.path(), "w1").unwrap_err();
    assert!(matches!(refused, OpenError::Locked { .. }), "the store holds the lock: {refused}");
    drop(store);
    CacheDir::open(temp.path(), "w1").unwrap();
}

/// The segment that the first build of this format wrote; a test beside the format compares it byte for byte.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1.segment");
const GOLDEN_SIZE: u64 = 300;

#[test]
fn the_first_format_is_read_for_ever() {
    let temp = tempfile::tempdir().unwrap();
    drop(open(temp.path(), ROOMY));
    fs::copy(GOLDEN, temp.path().join("pages/0000000000000000.segment")).unwrap();
    let store = open(temp.path(), ROOMY);
    assert!(is_here(&store, &key(1, 0), 0..GOLDEN_SIZE) && is_here(&store, &key(2, 7), 0..GOLDEN_SIZE));
    assert_eq!(store.held_bytes(&key(3, 0)), 0);
    assert_eq!((store.counts().restored_extents, store.counts().corrupt), (4, 0));
}
