//! Tests of the page store on disk with a disk that fails.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures::FutureExt as _;

use super::*;
use crate::disk_io::Room;
use crate::flight::{Fetch, FlightSettings, Flights, Lost, Urgency};
use crate::page::{BLOCK_BYTES, PAGE_BYTES};
use crate::page_store::PageStore;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const BLOCK: u64 = BLOCK_BYTES;
const SIZE: u64 = 40 * PAGE_BYTES + 77;
const CAPACITY: u64 = 16 << 20;
/// Far longer than anything here takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

fn file(number: u64) -> FileKey {
    FileKey::new(format!("s3://lake/{number}.parquet"), "v1")
}

fn content(range: Range<u64>) -> Bytes {
    range.map(|place| (place ^ (place >> 12).wrapping_mul(31)) as u8).collect::<Vec<u8>>().into()
}

/// A store that has patience with the disk: a machine that is busy is no disk that is slow.
fn open(path: &Path, io: &DiskIo) -> DiskPages {
    let mut pages = open_impatient(path, io);
    pages.read_timeout = PATIENCE;
    pages
}

/// A store with the patience that it has outside of tests.
fn open_impatient(path: &Path, io: &DiskIo) -> DiskPages {
    DiskPages::open((&CacheDir::open(path, "w1").unwrap(), StoreName::Pages), io, CAPACITY).unwrap()
}

/// Writes a range of a file and waits until that is over.
fn write(pages: &DiskPages, number: u64, range: Range<u64>) {
    pages.write(&file(number), SIZE, range.start, &content(range));
    assert!(pages.settle(Duration::from_secs(30)));
}

fn is_here(pages: &DiskPages, number: u64, range: Range<u64>) -> bool {
    pages.read(&file(number), range.clone()).inspect(|bytes| assert_eq!(*bytes, content(range))).is_some()
}

fn set(fault: &Mutex<Option<i32>>, number: Option<i32>) {
    *fault.lock().unwrap() = number;
}

#[test]
fn a_full_disk_drops_the_oldest_pauses_and_goes_on() {
    let temp = tempfile::tempdir().unwrap();
    let io = DiskIo::default();
    let pages = open(temp.path(), &io);
    for number in 0..4 {
        write(&pages, number, 0..16 * PAGE_BYTES);
    }
    assert!((0..4).all(|number| is_here(&pages, number, 0..16 * PAGE_BYTES)));
    let segments = pages.counts().segments;
    for fault in [&io.faults.reserve, &io.faults.write] {
        let before = pages.counts();
        set(fault, Some(ENOSPC));
        for number in 10..14 {
            write(&pages, number, 0..16 * PAGE_BYTES);
        }
        assert!(!is_here(&pages, 12, 0..1) && !is_here(&pages, 13, 0..1));
        let after = pages.counts();
        assert!(!after.down && after.write_errors - before.write_errors <= 2, "{after:?}");
        // A write that is turned away at the door counts once, whatever its length.
        assert!(after.dropped_writes - before.dropped_writes >= 3, "{after:?}");
        set(fault, None);
        pages.shared.health.end_pause();
    }
    let counts = pages.counts();
    assert!(counts.evictions > 0 && counts.segments <= segments, "{counts:?}");
    write(&pages, 20, 0..PAGE_BYTES);
    assert!(is_here(&pages, 20, 0..PAGE_BYTES));
}

#[test]
fn what_checks_itself_is_read_as_it_is_and_no_more_of_it() {
    let (temp, io) = (tempfile::tempdir().unwrap(), DiskIo::default());
    let pages = open(temp.path(), &io);
    write(&pages, 1, 0..PAGE_BYTES);
    let inside = BLOCK + 7..2 * BLOCK + 9;
    assert_eq!(pages.read_unverified(&file(1), inside.clone()).unwrap(), content(inside.clone()));
    assert_eq!(pages.read_unverified(&file(1), PAGE_BYTES - 1..PAGE_BYTES + 1), None);
    for entry in std::fs::read_dir(temp.path().join("pages")).unwrap() {
        let path = entry.unwrap().path();
        let bytes: Vec<u8> = std::fs::read(&path).unwrap().iter().map(|byte| byte ^ 0x20).collect();
        std::fs::write(&path, bytes).unwrap();
    }
    let damaged: Bytes = content(inside.clone()).iter().map(|byte| byte ^ 0x20).collect();
    assert_eq!(pages.read_unverified(&file(1), inside.clone()).unwrap(), damaged);
    io.faults.cold.store(true, Ordering::SeqCst);
    assert_eq!(pages.read_unverified(&file(1), inside.clone()), None, "it does not wait");
    io.faults.cold.store(false, Ordering::SeqCst);
    assert_eq!(pages.counts().corrupt, 0);
    assert_eq!(pages.read(&file(1), inside.clone()), None);
    assert_eq!((pages.counts().corrupt, pages.read_unverified(&file(1), inside)), (1, None), "it is gone");
}

#[test]
fn the_last_free_bytes_are_left_to_others() {
    let temp = tempfile::tempdir().unwrap();
    let io = DiskIo::default();
    let pages = open(temp.path(), &io);
    write(&pages, 1, 0..PAGE_BYTES);
    *io.faults.room.lock().unwrap() = Some(Room { free: 51 << 20, total: 1_000 << 20 });
    for number in 2..6 {
        write(&pages, number, 0..16 * PAGE_BYTES);
    }
    let counts = pages.counts();
    assert!(!is_here(&pages, 5, 0..PAGE_BYTES) && counts.dropped_writes > 0 && counts.write_errors == 0, "{counts:?}");
    assert!(counts.file_bytes < 3 << 20, "what could be dropped was: {counts:?}");
    *io.faults.room.lock().unwrap() = Some(Room { free: 53 << 20, total: 1_000 << 20 });
    pages.shared.health.end_pause();
    write(&pages, 7, 0..PAGE_BYTES);
    assert!(is_here(&pages, 7, 0..PAGE_BYTES));
}

#[test]
fn a_failed_write_seals_its_segment_off_and_nothing_of_it_comes_back() {
    let temp = tempfile::tempdir().unwrap();
    let io = DiskIo::default();
    {
        let pages = open(temp.path(), &io);
        write(&pages, 1, 0..PAGE_BYTES);
        set(&io.faults.write, Some(EIO));
        write(&pages, 2, 0..PAGE_BYTES);
        set(&io.faults.write, None);
        assert!(!is_here(&pages, 2, 0..1) && is_here(&pages, 1, 0..PAGE_BYTES));
        write(&pages, 3, 0..PAGE_BYTES);
        assert!(is_here(&pages, 3, 0..PAGE_BYTES));
        let counts = pages.counts();
        assert_eq!((counts.write_errors, counts.dropped_writes, counts.segments, counts.down), (1, 1, 2, false));
    }
    let pages = open(temp.path(), &io);
    assert!(is_here(&pages, 1, 0..PAGE_BYTES) && is_here(&pages, 3, 0..PAGE_BYTES));
    assert!(!is_here(&pages, 2, 0..PAGE_BYTES), "half of it was written");
}

#[test]
fn a_disk_that_fails_again_and_again_is_down_until_a_probe_succeeds() {
    let temp = tempfile::tempdir().unwrap();
    let io = DiskIo::default();
    let pages = open(temp.path(), &io);
    for number in 0..5 {
        write(&pages, number, 0..PAGE_BYTES);
    }
    set(&io.faults.read, Some(EIO));
    for number in 0..3 {
        assert!(!is_here(&pages, number, 0..PAGE_BYTES));
    }
    let counts = pages.counts();
    assert_eq!((counts.read_errors, counts.corrupt, counts.down), (3, 3, true));
    assert!(!is_here(&pages, 4, 0..PAGE_BYTES));
    assert_eq!(pages.counts().read_errors, 3, "the disk is not asked any more");
    assert_eq!(pages.survey(&file(4), SIZE, &(0..BLOCK)).len(), 1);
    assert!(matches!(pages.survey(&file(4), SIZE, &(0..BLOCK))[0], Stretch::Missing(_)));
    write(&pages, 6, 0..PAGE_BYTES);
    assert_eq!(pages.counts().dropped_writes, 1);
    let probed = || {
        pages.shared.health.forget_probe();
        // Any job wakes the writer.
        pages.shared.queue.reserve(0);
        pages.shared.queue.push(std::iter::once(Job::Forget(file(99), SIZE)));
        assert!(pages.settle(Duration::from_secs(30)));
        thread::sleep(Duration::from_millis(50));
    };
    probed();
    assert!(pages.counts().down, "the probe failed as well");
    set(&io.faults.read, None);
    while pages.counts().down {
        probed();
    }
    assert!(is_here(&pages, 4, 0..PAGE_BYTES), "what is known of it is still known");
    write(&pages, 7, 0..PAGE_BYTES);
    assert!(is_here(&pages, 7, 0..PAGE_BYTES));
}

#[test]
fn a_writer_that_hangs_stops_nobody_and_holds_a_bound() {
    let temp = tempfile::tempdir().unwrap();
    let io = DiskIo::default();
    let pages = open(temp.path(), &io);
    write(&pages, 0, 0..PAGE_BYTES);
    io.faults.stuck.store(true, Ordering::SeqCst);
    let bytes = Bytes::from(vec![1; 1 << 20]);
    for number in 1..200 {
        pages.write(&file(number), 1 << 20, 0, &bytes);
    }
    let counts = pages.counts();
    assert!(counts.pending_bytes <= 64 << 20 && counts.pending_bytes > 60 << 20, "{counts:?}");
    assert!(counts.dropped_writes >= 135, "{counts:?}");
    assert!(pages.read(&file(1), 0..1 << 20).is_some(), "what waits can be read");
    assert!(is_here(&pages, 0, 0..PAGE_BYTES) && !pages.settle(Duration::from_millis(5)));
    // What is forgotten while it waits is not written.
    assert_eq!(pages.forget(&file(60)), 1 << 20);
    io.faults.stuck.store(false, Ordering::SeqCst);
    assert!(pages.settle(Duration::from_secs(30)));
    assert_eq!((pages.counts().pending_bytes, pages.held_bytes(&file(60))), (0, 0));
}

/// A store behind a flight map, with an origin that counts its GETs.
struct Reader {
    store: PageStore,
    flights: Flights<Lost>,
    gets: Arc<Mutex<Vec<Range<u64>>>>,
}

impl Reader {
    fn new(pages: DiskPages) -> Self {
        let settings = FlightSettings {
            max_gap_bytes: 0,
            flight_timeout: Duration::from_secs(60),
            max_flights: 1_000,
            max_prefetches: 10,
            prefetches_at_once: 1,
            lost: |lost| lost,
        };
        Self { store: PageStore::over(pages), flights: Flights::new(settings), gets: Arc::default() }
    }

    async fn read(&self, number: u64, range: Range<u64>) -> (u32, u64) {
        let gets = Arc::clone(&self.gets);
        let fetch: Fetch<Lost> = Arc::new(move |range| {
            gets.lock().unwrap().push(range.clone());
            async move { Ok(content(range)) }.boxed()
        });
        let ranges = [range.clone()];
        let read = self.flights.read(&self.store, &file(number), SIZE, &ranges, Urgency::Demand, fetch).await;
        let fetched = read.unwrap();
        assert_eq!(fetched.parts, [content(range)]);
        (fetched.origin_gets, fetched.from_store_bytes)
    }
}

#[tokio::test]
async fn what_is_not_in_memory_is_waited_for_and_not_fetched() {
    let temp = tempfile::tempdir().unwrap();
    let io = DiskIo::default();
    let pages = open(temp.path(), &io);
    write(&pages, 1, 0..4 * PAGE_BYTES);
    io.faults.cold.store(true, Ordering::SeqCst);
    assert!(!is_here(&pages, 1, 0..PAGE_BYTES), "the read that must not wait does not");
    assert_eq!((pages.counts().corrupt, io.faults.waited.load(Ordering::SeqCst)), (0, 0));
    let reader = Reader::new(pages);
    assert_eq!(reader.read(1, 5..3 * PAGE_BYTES).await, (0, 3 * PAGE_BYTES - 5));
    assert_eq!(io.faults.waited.load(Ordering::SeqCst), 1);
    // Half of it is there.
    assert_eq!(reader.read(1, 3 * PAGE_BYTES..5 * PAGE_BYTES).await, (1, PAGE_BYTES));
    assert_eq!(*reader.gets.lock().unwrap(), [4 * PAGE_BYTES..5 * PAGE_BYTES]);
}

#[tokio::test]
async fn a_slow_disk_is_given_up_and_the_origin_asked() {
    let temp = tempfile::tempdir().unwrap();
    let io = DiskIo::default();
    let pages = open_impatient(temp.path(), &io);
    write(&pages, 1, 0..PAGE_BYTES);
    io.faults.cold.store(true, Ordering::SeqCst);
    io.faults.stuck_reads.store(true, Ordering::SeqCst);
    let reader = Reader::new(pages);
    assert_eq!(reader.read(1, 0..PAGE_BYTES).await, (1, 0));
    assert!(reader.store.counts().slow_reads >= 1);
    assert_eq!((reader.store.counts().corrupt, reader.store.counts().extents), (0, 1), "it is only slow");
    io.faults.stuck_reads.store(false, Ordering::SeqCst);
    let began = Instant::now();
    loop {
        let slow_reads = reader.store.counts().slow_reads;
        let read = reader.read(1, 0..PAGE_BYTES).await;
        if reader.store.counts().slow_reads == slow_reads {
            assert_eq!(read, (0, PAGE_BYTES));
            break;
        }
        // This machine was slow, which says nothing.
        assert!(began.elapsed() < PATIENCE, "the disk is not asked any more, or stays slow");
    }
}

#[test]
fn a_disk_that_hangs_takes_no_thread_of_the_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let temp = tempfile::tempdir().unwrap();
        let io = DiskIo::default();
        let pages = open_impatient(temp.path(), &io);
        write(&pages, 1, 0..PAGE_BYTES);
        io.faults.cold.store(true, Ordering::SeqCst);
        io.faults.stuck_reads.store(true, Ordering::SeqCst);
        let reader = Reader::new(pages);
        assert_eq!(reader.read(1, 0..PAGE_BYTES).await, (1, 0));
        // The read is on the disk until it is let go; the runtime's only thread for blocking work is free all the same.
        let other = tokio::time::timeout(Duration::from_secs(20), tokio::task::spawn_blocking(|| true)).await;
        let waited = io.faults.waited.load(Ordering::SeqCst);
        io.faults.stuck_reads.store(false, Ordering::SeqCst);
        assert!(matches!(other, Ok(Ok(true))) && waited > 0);
    });
}

#[tokio::test]
async fn what_fails_its_check_is_fetched_once_and_repaired() {
    let temp = tempfile::tempdir().unwrap();
    let io = DiskIo::default();
    let pages = open(temp.path(), &io);
    write(&pages, 1, 0..4 * PAGE_BYTES);
    write(&pages, 2, 0..PAGE_BYTES);
    let path = temp.path().join("pages/0000000000000000.segment");
    let bytes = std::fs::read(&path).unwrap();
    let broken: Vec<u8> = bytes.iter().map(|byte| byte ^ 0xff).collect();
    std::fs::write(&path, broken).unwrap();
    let reader = Reader::new(pages);
    assert_eq!(reader.read(1, PAGE_BYTES..PAGE_BYTES + 10).await, (1, 0));
    assert_eq!(*reader.gets.lock().unwrap(), [PAGE_BYTES..PAGE_BYTES + BLOCK]);
    assert_eq!((reader.store.counts().corrupt, reader.store.held_bytes(&file(1))), (1, BLOCK));
    assert_eq!(reader.read(1, PAGE_BYTES..PAGE_BYTES + 10).await, (0, 10));
    // A disk that errs while a read waits for it costs the same.
    io.faults.cold.store(true, Ordering::SeqCst);
    set(&io.faults.read, Some(EIO));
    assert_eq!(reader.read(2, 0..10).await, (1, 0));
    assert_eq!(reader.store.counts().read_errors, 1);
}

#[tokio::test]
async fn what_a_survey_showed_can_be_read_after_its_segment_went() {
    let temp = tempfile::tempdir().unwrap();
    let pages = open(temp.path(), &DiskIo::default());
    write(&pages, 0, 0..PAGE_BYTES);
    let mut stretches = pages.survey(&file(0), SIZE, &(7..PAGE_BYTES));
    let Some(Stretch::Here(Held::Disk(part))) = stretches.pop() else { panic!("{stretches:?}") };
    for number in 1..40 {
        write(&pages, number, 0..16 * PAGE_BYTES);
    }
    assert!(!is_here(&pages, 0, 0..1) && !temp.path().join("pages/0000000000000000.segment").exists());
    assert_eq!(pages.fetch(&file(0), part).await.unwrap(), content(7..PAGE_BYTES));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn many_readers_over_a_small_quota_get_right_bytes() {
    let temp = tempfile::tempdir().unwrap();
    let dir = CacheDir::open(temp.path(), "w1").unwrap();
    let pages = DiskPages::open((&dir, StoreName::Pages), &DiskIo::default(), 1 << 20).unwrap();
    let reader = Arc::new(Reader::new(pages));
    let tasks = (0..8_u64).map(|task| {
        let reader = Arc::clone(&reader);
        tokio::spawn(async move {
            for round in 0..150_u64 {
                let start = (task * 31 + round * 7_919 * 17) % (SIZE - 1);
                let end = (start + 1 + round * 1_313 % (3 * PAGE_BYTES)).min(SIZE);
                reader.read(round % 5, start..end).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert!(reader.store.counts().evictions > 0 && reader.store.counts().file_bytes <= 1 << 20);
    assert_eq!((reader.flights.under_way(), reader.store.counts().corrupt), (0, 0));
}
