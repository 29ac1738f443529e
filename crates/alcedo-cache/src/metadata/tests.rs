//! The metadata store as its user sees it: what is found again, what becomes a miss, and what is begun anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::sync::mpsc;
use std::time::Instant;

use tempfile::TempDir;

use super::*;

/// Short enough for a test to wait for several of them.
const PAUSES: Pauses = Pauses { check: Duration::from_millis(10), reset: Duration::from_millis(30) };
/// Far longer than anything here takes, so that a slow machine fails no test.
const PATIENCE: Duration = Duration::from_secs(60);

fn home() -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("metadata");
    (home, path)
}

fn open(path: &Path) -> Metadata {
    Metadata::open_with(path, None, PAUSES).unwrap()
}

fn url(number: usize) -> Arc<str> {
    format!("s3://lake/table/part-{number:05}.parquet").into()
}

fn record(number: usize) -> Vec<u8> {
    format!("what is known of file {number}: ").into_bytes().repeat(20)
}

fn put(store: &Metadata, table: Table, name: &Arc<str>, record: &[u8]) {
    let record = record.to_vec();
    store.put(table, Arc::clone(name), record.len() as u64, move || record);
}

fn put_numbers(store: &Metadata, numbers: std::ops::Range<usize>) {
    for number in numbers {
        put(store, Table::Files, &url(number), &record(number));
        put(store, Table::Indexes, &url(number), &record(number + 1));
    }
    store.settle();
}

/// Lets the writing thread work.
fn pause() {
    let (_kept, nothing) = mpsc::channel::<()>();
    let _ = nothing.recv_timeout(PAUSES.check);
}

/// How many of the records are there; each is what was stored.
fn found(store: &Metadata, numbers: std::ops::Range<usize>) -> usize {
    let mut found = 0;
    for number in numbers {
        for (table, wanted) in [(Table::Files, record(number)), (Table::Indexes, record(number + 1))] {
            if let Some(got) = store.get(table, &url(number)) {
                assert_eq!(got, wanted);
                found += 1;
            }
        }
    }
    found
}

/// Puts until a record is found again, which is until the store writes.
fn wait_until_it_keeps(store: &Metadata) {
    let began = Instant::now();
    loop {
        put(store, Table::Listings, &url(7), b"again");
        store.settle();
        if store.get(Table::Listings, &url(7)).is_some() {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{:?}", store.counts());
        pause();
    }
}

#[test]
fn records_are_found_again_in_their_table_after_a_restart() {
    let (_home, path) = home();
    let store = open(&path);
    assert_eq!(store.get(Table::Files, &url(1)), None);
    put(&store, Table::Files, &url(1), b"one");
    put(&store, Table::Files, &url(2), b"two");
    put(&store, Table::Files, &url(2), b"two again");
    put(&store, Table::Files, &url(3), b"three");
    store.remove(Table::Files, url(3));
    store.settle();
    assert_eq!(store.get(Table::Files, &url(1)).unwrap(), "one");
    assert_eq!(store.get(Table::Indexes, &url(1)), None);
    put(&store, Table::Listings, &url(4), b"");
    let counts = store.counts();
    assert_eq!((counts.hits, counts.misses, counts.errors, counts.dropped_puts), (1, 2, 0, 0));
    assert!(counts.is_writing && counts.puts >= 4);
    // What is queued is written before the store is closed.
    drop(store);
    let store = open(&path);
    assert_eq!(store.get(Table::Files, &url(1)).unwrap(), "one");
    assert_eq!(store.get(Table::Files, &url(2)).unwrap(), "two again");
    assert_eq!(store.get(Table::Files, &url(3)), None);
    assert_eq!(store.get(Table::Listings, &url(4)).unwrap(), "");
    assert_eq!((store.counts().resets, store.counts().set_aside), (0, 0));
}

#[tokio::test]
async fn reads_of_a_runtime_happen_beside_it() {
    let (_home, path) = home();
    // A machine that is busy is no disk that hangs.
    let mut store = open(&path);
    store.read_timeout = PATIENCE;
    put(&store, Table::Files, &url(1), b"one");
    store.settle();
    let (one, none) = (url(1), url(2));
    let many = (0..100).map(|_| store.load(Table::Files, &one));
    let found = futures::future::join_all(many).await;
    assert!(found.iter().all(|found| found.as_deref() == Some(b"one")));
    assert_eq!(store.load(Table::Files, &none).await, None);
    // No turn comes: a miss, and counted, instead of a caller who waits for a disk that hangs.
    let turns = Arc::clone(&store.reads).acquire_many_owned(MAX_READS as u32).await.unwrap();
    store.read_timeout = READ_TIMEOUT;
    assert_eq!(store.load(Table::Files, &one).await, None);
    assert_eq!(store.counts().errors, 1);
    drop(turns);
    store.read_timeout = PATIENCE;
    assert_eq!(store.load(Table::Files, &one).await.unwrap(), "one");
}

#[test]
fn another_name_with_the_same_digest_another_format_and_damage_are_misses() {
    let (_home, path) = home();
    drop(open(&path));
    let mut damaged = envelope::seal(&url(3), b"three").unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    let mut newer = envelope::seal(&url(2), b"two").unwrap();
    newer[0] = 2;
    let disk = Disk::open(&path).unwrap();
    let stored = [
        (url(1), envelope::seal(&url(9), b"nine").unwrap()),
        (url(2), newer.clone()),
        (url(3), damaged),
        (url(4), Vec::new()),
        (url(5), envelope::seal(&url(5), b"five").unwrap()),
    ];
    let changes: Vec<Change> =
        stored.into_iter().map(|(name, bytes)| Change::Put(Table::Files, envelope::key(&name), bytes)).collect();
    disk.write(&changes).unwrap();
    drop(disk);
    let store = open(&path);
    for number in 1..5 {
        assert_eq!(store.get(Table::Files, &url(number)), None, "{number}");
    }
    assert_eq!(store.get(Table::Files, &url(5)).unwrap(), "five");
    assert_eq!((store.counts().misses, store.counts().errors), (4, 2));
    // A later version's record stays what it is until it is written over.
    drop(store);
    assert_eq!(Disk::open(&path).unwrap().get(Table::Files, &envelope::key(&url(2))).unwrap().unwrap(), newer);
}

#[test]
fn a_second_store_in_one_directory_is_refused_and_the_first_goes_on() {
    let (home, path) = home();
    let store = open(&path);
    put_numbers(&store, 0..1);
    let error = Metadata::open_with(&path, None, PAUSES).unwrap_err();
    assert!(matches!(&error, MetadataError::Locked { path: locked } if *locked == path));
    assert!(error.to_string().contains("another worker runs on this cache directory"), "{error}");
    assert_eq!(found(&store, 0..1), 2);
    wait_until_it_keeps(&store);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
}

#[test]
fn a_path_that_cannot_be_a_directory_is_a_clear_error() {
    let (_home, path) = home();
    fs::write(&path, "a file").unwrap();
    let error = Metadata::open_with(&path, None, PAUSES).unwrap_err();
    assert!(matches!(error, MetadataError::Unusable { .. }), "{error}");
    assert!(error.to_string().contains("make it a directory"), "{error}");
}

#[test]
fn a_column_family_of_a_later_version_survives() {
    let (_home, path) = home();
    put_numbers(&open(&path), 0..3);
    let options = rocksdb::Options::default();
    let names = rocksdb::DB::list_cf(&options, &path).unwrap();
    let mut database = rocksdb::DB::open_cf(&options, &path, names).unwrap();
    database.create_cf("jobs", &options).unwrap();
    database.put_cf(database.cf_handle("jobs").unwrap(), "a", "b").unwrap();
    drop(database);
    let store = open(&path);
    assert_eq!((found(&store, 0..3), store.counts().set_aside), (6, 0));
    drop(store);
    let database = rocksdb::DB::open_cf(&options, &path, rocksdb::DB::list_cf(&options, &path).unwrap()).unwrap();
    assert_eq!(database.get_cf(database.cf_handle("jobs").unwrap(), "a").unwrap().unwrap(), b"b");
}

#[test]
fn a_writer_that_cannot_keep_up_drops_and_waits_for_nobody() {
    let (_home, path) = home();
    let store = open(&path);
    let (go, gate) = mpsc::channel::<()>();
    let held = move || {
        let _ = gate.recv();
        b"held".to_vec()
    };
    store.put(Table::Files, url(0), 0, held);
    for number in 1..100_000 {
        put(&store, Table::Files, &url(number), b"x");
    }
    assert!(store.counts().dropped_puts > 80_000, "{:?}", store.counts());
    drop(go);
    store.settle();
    assert_eq!(store.get(Table::Files, &url(0)).unwrap(), "held");
    let counts = store.counts();
    assert_eq!(counts.puts + counts.dropped_puts, 100_000);
    wait_until_it_keeps(&store);
}

#[test]
fn a_removed_record_is_gone_at_once_although_removals_wait_like_all_writes() {
    let (_home, path) = home();
    let store = open(&path);
    put_numbers(&store, 0..2);
    let (go, gate) = mpsc::channel::<()>();
    let (began, begun) = mpsc::channel();
    let held = move || {
        began.send(()).unwrap();
        let _ = gate.recv();
        Vec::new()
    };
    store.put(Table::Listings, url(9), 0, held);
    begun.recv().unwrap();
    store.remove(Table::Files, url(0));
    store.remove(Table::Files, url(0));
    assert_eq!(store.get(Table::Files, &url(0)), None);
    assert!(store.get(Table::Indexes, &url(0)).is_some() && store.get(Table::Files, &url(1)).is_some());
    put(&store, Table::Files, &url(0), b"anew");
    drop(go);
    store.settle();
    assert_eq!(store.get(Table::Files, &url(0)).unwrap(), "anew");
}

#[test]
fn records_that_cannot_be_made_or_are_too_large_are_dropped() {
    let (_home, path) = home();
    let store = open(&path);
    put(&store, Table::Files, &url(1), b"one");
    store.put(Table::Files, url(1), 0, || panic!("planted"));
    store.put(Table::Files, url(2), 0, || vec![0; MAX_RECORD_BYTES + 1]);
    store.settle();
    assert_eq!(store.get(Table::Files, &url(1)).unwrap(), "one");
    assert_eq!(store.get(Table::Files, &url(2)), None);
    assert_eq!((store.counts().errors, store.counts().dropped_puts, store.counts().puts), (1, 1, 1));
    put(&store, Table::Files, &url(1), b"one");
    store.settle();
    store.reject(Table::Files, url(1));
    store.settle();
    assert_eq!((store.get(Table::Files, &url(1)), store.counts().errors), (None, 2));
}

#[test]
fn the_oldest_records_go_when_a_table_is_full() {
    const QUOTA_BYTES: u64 = 1 << 20;
    let (_home, path) = home();
    drop(open(&path));
    let disk = Disk::open_with(&path, |_| QUOTA_BYTES).unwrap();
    // Bytes that do not compress.
    let noise = |number: u64| {
        let word = |i: u64| xxhash_rust::xxh3::xxh3_64(&[number.to_le_bytes(), i.to_le_bytes()].concat());
        (0..4_000).flat_map(|i| word(i).to_le_bytes()).collect::<Vec<u8>>()
    };
    for number in 0..128_u64 {
        disk.write(&[Change::Put(Table::Listings, number.to_be_bytes(), noise(number))]).unwrap();
        disk.flush().unwrap();
    }
    let began = Instant::now();
    while disk.file_bytes() > QUOTA_BYTES {
        assert!(began.elapsed() < PATIENCE, "{}", disk.file_bytes());
        pause();
    }
    let held: Vec<u64> =
        (0..128_u64).filter(|number| disk.get(Table::Listings, &number.to_be_bytes()).unwrap().is_some()).collect();
    // What is older than the first went, and nothing else.
    assert_eq!(held, (held[0]..128).collect::<Vec<_>>());
    assert!(held.len() >= 8, "{held:?}");
}

/// What happens to one file.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Deleted,
    Emptied,
    Cut,
    Overwritten,
    /// One bit in the middle.
    Flipped,
    /// More bytes than there were.
    Grown,
}

const FAULTS: [Fault; 6] =
    [Fault::Deleted, Fault::Emptied, Fault::Cut, Fault::Overwritten, Fault::Flipped, Fault::Grown];

fn inflict(fault: Fault, file: &Path) {
    let bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    let changed = match fault {
        Fault::Deleted => return fs::remove_file(file).unwrap(),
        Fault::Emptied => Vec::new(),
        Fault::Cut => bytes[..middle].to_vec(),
        Fault::Overwritten => vec![0xa5; bytes.len()],
        Fault::Flipped => {
            let mut bytes = bytes;
            if let Some(byte) = bytes.get_mut(middle) {
                *byte ^= 0x10;
            }
            bytes
        }
        Fault::Grown => [bytes, vec![0xa5; 100]].concat(),
    };
    fs::write(file, changed).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A store with 400 records, some in files of two ages and some in the log only.
fn filled(path: &Path) {
    for round in 0..3 {
        let store = open(path);
        put_numbers(&store, round * 100..round * 100 + 100);
        if round < 2 {
            store.shared.with_disk(|disk| disk.flush().unwrap()).unwrap();
        }
    }
}

#[test]
fn whatever_happens_to_a_file_the_store_opens_and_gives_what_was_stored_or_nothing() {
    let home = tempfile::tempdir().unwrap();
    let whole = home.path().join("whole");
    filled(&whole);
    let mut names: Vec<_> = fs::read_dir(&whole).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let kind = |kind: &str| names.iter().filter(|name| name.to_string_lossy().contains(kind)).count();
    assert!(kind(".sst") >= 4 && kind(".log") >= 1 && kind("MANIFEST") == 1 && kind("CURRENT") == 1, "{names:?}");
    let (mut lost, mut anew) = (0, 0);
    for (i, name) in names.iter().enumerate() {
        for (j, fault) in FAULTS.into_iter().enumerate() {
            let path = home.path().join(format!("{i}-{j}")).join("metadata");
            copy(&whole, &path);
            inflict(fault, &path.join(name));
            let store = open(&path);
            let there = found(&store, 0..300);
            lost += usize::from(there < 600);
            anew += store.counts().set_aside;
            // It serves, and keeps what it is told from now on.
            wait_until_it_keeps(&store);
            put_numbers(&store, 0..300);
            assert_eq!(found(&store, 0..300), 600, "{name:?} {fault:?}");
            drop(store);
            let store = open(&path);
            let again = found(&store, 0..300);
            assert!(again == 600, "{name:?} {fault:?}: {again}");
            drop(store);
            assert!(fs::read_dir(path.parent().unwrap()).unwrap().count() <= 2, "{name:?} {fault:?}");
            fs::remove_dir_all(path.parent().unwrap()).unwrap();
        }
    }
    // The faults are faults: without them nothing is lost.
    assert!(lost >= 10 && anew >= 10, "{lost} {anew}");
    assert_eq!(found(&open(&whole), 0..300), 600);
}

/// Removes a directory with all that is in it, in one step for whoever uses it: file by file it may take so long that
/// the store begins anew in the middle.
fn remove(path: &Path) {
    let aside = tempfile::tempdir().unwrap();
    fs::rename(path, aside.path().join("removed")).unwrap();
}

#[test]
fn a_directory_that_is_removed_in_use_is_made_again() {
    let (home, path) = home();
    let store = open(&path);
    put_numbers(&store, 0..50);
    for round in 1..4 {
        remove(&path);
        let began = Instant::now();
        while store.counts().resets < round {
            // Whatever is found meanwhile is right.
            found(&store, 0..50);
            put_numbers(&store, 0..50);
            assert!(began.elapsed() < PATIENCE, "{:?}", store.counts());
        }
        wait_until_it_keeps(&store);
        put_numbers(&store, 0..50);
        assert_eq!(found(&store, 0..50), 100);
    }
    drop(store);
    assert_eq!(found(&open(&path), 0..50), 100);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
}

#[test]
fn a_cache_directory_that_is_emptied_in_use_stays_a_cache_directory() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("cache");
    let dir = CacheDir::open(&path, "w1").unwrap();
    let store = Metadata::open_with(&dir.metadata(), Some(dir.clone()), PAUSES).unwrap();
    drop(dir);
    put_numbers(&store, 0..50);
    // The store holds the directory as long as it lives.
    assert!(matches!(CacheDir::open(&path, "w1"), Err(crate::OpenError::Locked { .. })));
    remove(&path);
    let began = Instant::now();
    while store.counts().resets == 0 {
        assert!(began.elapsed() < PATIENCE, "{:?}", store.counts());
        pause();
    }
    wait_until_it_keeps(&store);
    put_numbers(&store, 0..50);
    drop(store);
    let store = Metadata::open(&CacheDir::open(&path, "w1").unwrap()).unwrap();
    assert_eq!(found(&store, 0..50), 100);
}

#[test]
fn files_that_are_removed_in_use_end_in_a_store_that_works() {
    let home = tempfile::tempdir().unwrap();
    for kind in ["CURRENT", "MANIFEST", ".sst", ".log", ""] {
        let path = home.path().join(format!("{kind}-")).join("metadata");
        filled(&path);
        let store = open(&path);
        for entry in fs::read_dir(&path).unwrap() {
            let file = entry.unwrap().path();
            if file.to_string_lossy().contains(kind)
                && let Err(error) = fs::remove_file(file)
            {
                // The store may have set all of them aside meanwhile.
                assert_eq!(error.kind(), io::ErrorKind::NotFound);
            }
        }
        found(&store, 0..300);
        put_numbers(&store, 0..300);
        store.shared.with_disk(|disk| disk.flush());
        found(&store, 0..300);
        drop(store);
        let store = open(&path);
        found(&store, 0..300);
        wait_until_it_keeps(&store);
        put_numbers(&store, 0..300);
        assert_eq!(found(&store, 0..300), 600, "{kind}");
    }
}

#[test]
fn a_table_that_cannot_be_read_any_more_is_begun_anew_while_in_use() {
    let (home, path) = home();
    filled(&path);
    let store = open(&path);
    for entry in fs::read_dir(&path).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|ending| ending == "sst") {
            // In place, so that files which are open change too.
            let length = fs::metadata(&file).unwrap().len() as usize;
            let mut open = fs::OpenOptions::new().write(true).open(&file).unwrap();
            io::Write::write_all(&mut open, &vec![0xa5; length]).unwrap();
        }
    }
    let began = Instant::now();
    while store.counts().resets == 0 {
        found(&store, 0..300);
        assert!(began.elapsed() < PATIENCE, "{:?}", store.counts());
    }
    assert!(store.counts().errors > 0 && store.counts().set_aside == 1);
    put_numbers(&store, 0..300);
    assert_eq!(found(&store, 0..300), 600);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2);
}
