//! Layer 1: the flight map, which fetches are under way, so that no block is fetched twice at once.
//!
//! Knows ranges, the page store and the function that its user hands in for fetching. It must not know who fetches from
//! where, nor why. A fetch runs in a task of its own, within a time of its own: whoever asked first may leave without
//! harm to those who joined, and a fetch that panics is an error to them, never a wait without end. What a fetch
//! brought goes to all who wait directly as well as into the store, so a store that is full or tiny costs speed only.
//!
//! One rule makes it right: a fetch writes the store before it leaves the map, and readers look into the store while
//! they hold the map. Each block is thus seen in one of both, or is fetched.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, try_join_all};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::file_key::FileKey;
use crate::page_store::{PageStore, Stretch, joined, rounded_out};

/// Parts of the map, chosen by file, each with a lock of its own: readers of different files rarely meet.
const SHARDS: usize = 16;

/// Fetches exactly one range of the file, or fails. It is called once per flight, inside the flight's task.
pub type Fetch<E> = Arc<dyn Fn(Range<u64>) -> BoxFuture<'static, Result<Bytes, E>> + Send + Sync>;

/// Why a read failed although no fetch returned an error of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// A range that was asked for is inverted or ends behind the file.
    #[error("bytes {start}..{end} were asked of a file of {file_size} bytes; ask for ranges inside the file")]
    OutsideFile {
        /// Where the range starts.
        start: u64,
        /// Where the range ends.
        end: u64,
        /// The size of the file.
        file_size: u64,
    },
    /// As many fetches as [`FlightSettings::max_flights`] allows are under way.
    #[error("{max_flights} fetches are under way and no more are allowed; try again shortly")]
    TooManyFlights {
        /// The limit.
        max_flights: usize,
    },
    /// The fetch took longer than [`FlightSettings::flight_timeout`].
    #[error("the fetch did not end within {timeout:?}; try again, or raise the limit if the origin is slow")]
    TimedOut {
        /// The limit.
        timeout: Duration,
    },
    /// The fetch brought another number of bytes than it was asked for.
    #[error("the fetch of {expected} bytes brought {brought}; the file may have changed, look it up again")]
    WrongLength {
        /// How many were asked for.
        expected: u64,
        /// How many came.
        brought: u64,
    },
    /// The task of the fetch ended without an answer: it panicked, or the process is shutting down.
    #[error("the fetch ended without an answer; the log has the reason, try again")]
    Died,
}

/// The limits of all flights of one map.
#[derive(Debug, Clone, Copy)]
pub struct FlightSettings<E> {
    /// Missing ranges that are at most this many bytes apart become one GET: below it, the bytes between cost less than
    /// a second GET.
    pub max_gap_bytes: u64,
    /// Longest time of one fetch, whoever waits for it.
    pub flight_timeout: Duration,
    /// Most fetches under way at once; a read that needs more fails at once. Callers who come and go leave fetches
    /// behind, so their own number does not bound it.
    pub max_flights: usize,
    /// Makes the user's error of what went wrong here.
    pub lost: fn(Lost) -> E,
}

/// What a read brought, and what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The bytes of each asked range, in the order asked. A part may share its memory with a larger fetch, so whoever
    /// keeps a small one for long should copy it.
    pub parts: Vec<Bytes>,
    /// GETs that this read waited for, whoever began them.
    pub origin_gets: u32,
    /// Bytes of those GETs.
    pub origin_bytes: u64,
    /// Bytes of the parts that were in the store.
    pub from_store_bytes: u64,
}

/// The fetches under way. A clone is cheap and is the same map.
pub struct Flights<E> {
    inner: Arc<Inner<E>>,
}

struct Inner<E> {
    settings: FlightSettings<E>,
    permits: Arc<Semaphore>,
    shards: [Mutex<Shard<E>>; SHARDS],
}

/// The flights of some files.
type Shard<E> = HashMap<FileKey, FileFlights<E>>;

/// The flights of one file by where they start. They never overlap.
type FileFlights<E> = BTreeMap<u64, Flight<E>>;

#[derive(Clone)]
struct Flight<E> {
    end: u64,
    outcome: Shared<BoxFuture<'static, Result<Bytes, E>>>,
}

/// Bytes of flights that landed, by where they start.
type Landed = BTreeMap<u64, Bytes>;

/// A range that was asked for.
enum Part {
    /// The store had all of it.
    Whole(Bytes),
    /// It is made of these, in order.
    Stretches(Vec<Stretch>),
}

/// What a flight's task holds. The order of the fields matters: when the task panics, it leaves the map before those
/// who wait hear of it, so that their next try begins a new flight.
struct Departure<E> {
    listing: Listing<E>,
    range: Range<u64>,
    answer: oneshot::Sender<Result<Bytes, E>>,
}

/// A flight's entry in the map, which ends with it.
struct Listing<E> {
    inner: Arc<Inner<E>>,
    file: FileKey,
    start: u64,
    _permit: OwnedSemaphorePermit,
}

impl<E> Drop for Listing<E> {
    fn drop(&mut self) {
        let mut shard = self.inner.shard(&self.file);
        if let Some(flights) = shard.get_mut(&self.file) {
            flights.remove(&self.start);
            if flights.is_empty() {
                shard.remove(&self.file);
            }
        }
    }
}

impl<E> Inner<E> {
    fn shard(&self, file: &FileKey) -> MutexGuard<'_, Shard<E>> {
        let index = file.digest() as usize % SHARDS;
        // Nothing that may panic runs while the map is half changed, so what another holder left is whole.
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E> Clone for Flights<E> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<E> fmt::Debug for Flights<E> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Flights").field("under_way", &self.under_way()).finish()
    }
}

impl<E> Flights<E> {
    /// How many fetches are under way.
    pub fn under_way(&self) -> usize {
        limit(self.inner.settings.max_flights) - self.inner.permits.available_permits()
    }
}

impl<E: Clone + Send + Sync + 'static> Flights<E> {
    /// A map with no flights.
    pub fn new(settings: FlightSettings<E>) -> Self {
        let permits = Arc::new(Semaphore::new(limit(settings.max_flights)));
        let shards = std::array::from_fn(|_| Mutex::new(HashMap::new()));
        Self { inner: Arc::new(Inner { settings, permits, shards }) }
    }

    /// The bytes of all ranges: from the store where they are there, by joining the fetches that are under way, and by
    /// `fetch` for the rest, in blocks and with as few GETs as [`FlightSettings::max_gap_bytes`] makes of them.
    ///
    /// The future may be dropped at any time; fetches that it began go on and fill the store. It must be polled inside
    /// a tokio runtime with its clock enabled. It has no deadline of its own beyond that of each fetch.
    ///
    /// # Errors
    /// The error of the first fetch that failed, or what the user made of a [`Lost`]. Nothing is remembered of a
    /// failure: the next read tries again.
    pub async fn read(
        &self,
        store: &PageStore,
        file: &FileKey,
        file_size: u64,
        ranges: &[Range<u64>],
        fetch: Fetch<E>,
    ) -> Result<Fetched, E> {
        let lost = self.inner.settings.lost;
        if let Some(&Range { start, end }) =
            ranges.iter().find(|range| range.start > range.end || range.end > file_size)
        {
            return Err(lost(Lost::OutsideFile { start, end, file_size }));
        }
        let known: Vec<Option<Bytes>> = ranges.iter().map(|range| store.read(file, range.clone())).collect();
        if known.iter().all(Option::is_some) {
            let parts: Vec<Bytes> = known.into_iter().flatten().collect();
            let from_store_bytes = parts.iter().map(|part| part.len() as u64).sum();
            return Ok(Fetched { parts, origin_gets: 0, origin_bytes: 0, from_store_bytes });
        }
        let (parts, flights) = self.depart(store, file, file_size, ranges, known, &fetch)?;
        let (starts, outcomes): (Vec<u64>, Vec<_>) =
            flights.into_iter().map(|(start, flight)| (start, flight.outcome)).unzip();
        let landed: Landed = starts.into_iter().zip(try_join_all(outcomes).await?).collect();
        Ok(assembled(parts, &landed))
    }

    /// Looks into the store and the map at one moment, begins the flights that are wanting, and returns all that the
    /// parts are waiting for.
    fn depart(
        &self,
        store: &PageStore,
        file: &FileKey,
        file_size: u64,
        ranges: &[Range<u64>],
        known: Vec<Option<Bytes>>,
        fetch: &Fetch<E>,
    ) -> Result<(Vec<Part>, FileFlights<E>), E> {
        // Declared before the lock, so that it is dropped after it: whatever is in here takes the lock when it ends.
        let mut departures = Vec::new();
        let mut shard = self.inner.shard(file);
        let parts: Vec<Part> = known
            .into_iter()
            .zip(ranges)
            .map(|(bytes, range)| match bytes {
                Some(bytes) => Part::Whole(bytes),
                None => Part::Stretches(store.survey(file, file_size, range)),
            })
            .collect();
        let wanted = wanted(&parts, file_size);
        let extents = extents(shard.get(file), &wanted, self.inner.settings.max_gap_bytes);
        let permits = self.permits(extents.len())?;
        for (range, permit) in extents.into_iter().zip(permits) {
            let (flight, departure) = self.flight(file, range, permit);
            shard.entry(file.clone()).or_default().insert(departure.range.start, flight);
            departures.push(departure);
        }
        let over = |range| shard.get(file).into_iter().flat_map(move |flights| flights_over(flights, range));
        let joined = wanted.iter().flat_map(over).map(|(start, flight)| (start, flight.clone())).collect();
        // A runtime that shuts down drops the task inside `spawn`, and then too the lock must be free.
        drop(shard);
        for departure in departures {
            tokio::spawn(fly(departure, store.clone(), file_size, Arc::clone(fetch)));
        }
        Ok((parts, joined))
    }

    fn permits(&self, count: usize) -> Result<Vec<OwnedSemaphorePermit>, E> {
        let Inner { permits, settings, .. } = self.inner.as_ref();
        let taken: Result<Vec<_>, _> = (0..count).map(|_| Arc::clone(permits).try_acquire_owned()).collect();
        taken.map_err(|_| (settings.lost)(Lost::TooManyFlights { max_flights: settings.max_flights }))
    }

    fn flight(&self, file: &FileKey, range: Range<u64>, permit: OwnedSemaphorePermit) -> (Flight<E>, Departure<E>) {
        let (answer, outcome) = oneshot::channel();
        let lost = self.inner.settings.lost;
        let outcome = outcome.map(move |answer| answer.unwrap_or_else(|_| Err(lost(Lost::Died)))).boxed().shared();
        let inner = Arc::clone(&self.inner);
        let listing = Listing { inner, file: file.clone(), start: range.start, _permit: permit };
        (Flight { end: range.end, outcome }, Departure { listing, range, answer })
    }
}

/// The task of one flight: fetch, store, leave the map, tell everybody.
async fn fly<E>(departure: Departure<E>, store: PageStore, file_size: u64, fetch: Fetch<E>) {
    let FlightSettings { flight_timeout: timeout, lost, .. } = departure.listing.inner.settings;
    let expected = departure.range.end - departure.range.start;
    let fetching = async { fetch(departure.range.clone()).await };
    let outcome = match tokio::time::timeout(timeout, fetching).await {
        Err(_) => Err(lost(Lost::TimedOut { timeout })),
        Ok(Ok(bytes)) if bytes.len() as u64 != expected => {
            Err(lost(Lost::WrongLength { expected, brought: bytes.len() as u64 }))
        }
        Ok(outcome) => outcome,
    };
    if let Ok(bytes) = &outcome {
        store.write(&departure.listing.file, file_size, departure.range.start, bytes);
    }
    let Departure { listing, answer, .. } = departure;
    drop(listing);
    // Everybody who waited may have left; the store has the bytes.
    let _ = answer.send(outcome);
}

/// What the parts lack, in whole blocks, sorted and apart from each other.
fn wanted(parts: &[Part], file_size: u64) -> Vec<Range<u64>> {
    let mut lacking: Vec<Range<u64>> = Vec::new();
    for part in parts {
        let Part::Stretches(stretches) = part else { continue };
        for stretch in stretches {
            if let Stretch::Missing(range) = stretch {
                lacking.push(rounded_out(range, file_size));
            }
        }
    }
    lacking.sort_unstable_by_key(|range| range.start);
    let mut wanted: Vec<Range<u64>> = Vec::new();
    for range in lacking {
        match wanted.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => wanted.push(range),
        }
    }
    wanted
}

/// The ranges to fetch: what is wanted without what is under way, where small gaps are fetched along unless part of one
/// is under way itself.
fn extents<E>(flights: Option<&FileFlights<E>>, wanted: &[Range<u64>], max_gap_bytes: u64) -> Vec<Range<u64>> {
    let none = FileFlights::new();
    let flights = flights.unwrap_or(&none);
    let mut extents: Vec<Range<u64>> = Vec::new();
    let mut add = |range: Range<u64>| match extents.last_mut() {
        _ if range.is_empty() => {}
        Some(last)
            if range.start - last.end <= max_gap_bytes
                && flights_over(flights, &(last.end..range.start)).next().is_none() =>
        {
            last.end = range.end;
        }
        _ => extents.push(range),
    };
    for range in wanted {
        let mut start = range.start;
        for (flying_from, flight) in flights_over(flights, range) {
            add(start..flying_from);
            start = flight.end;
        }
        add(start..range.end);
    }
    extents
}

/// The flights that share a byte with the range, in order.
fn flights_over<'a, E>(
    flights: &'a FileFlights<E>,
    range: &Range<u64>,
) -> impl Iterator<Item = (u64, &'a Flight<E>)> + use<'a, E> {
    let (start, end) = (range.start, range.end);
    // Flights do not overlap, so only the last of those that start at or before the range can reach into it.
    let first = flights.range(..=start).next_back().map_or(start, |(first, _)| *first);
    let near = flights.range(first..end.max(first)).map(|(start, flight)| (*start, flight));
    near.filter(move |(_, flight)| flight.end > start)
}

/// The parts made whole with what the flights brought.
fn assembled(parts: Vec<Part>, landed: &Landed) -> Fetched {
    let mut from_store_bytes = 0;
    let mut whole = Vec::with_capacity(parts.len());
    for part in parts {
        let stretches = match part {
            Part::Whole(bytes) => vec![Stretch::Here(bytes)],
            Part::Stretches(stretches) => stretches,
        };
        let mut slices = Vec::with_capacity(stretches.len());
        for stretch in stretches {
            match stretch {
                Stretch::Here(bytes) => {
                    from_store_bytes += bytes.len() as u64;
                    slices.push(bytes);
                }
                Stretch::Missing(range) => cut(landed, range, &mut slices),
            }
        }
        whole.push(if slices.len() == 1 { slices.swap_remove(0) } else { joined(&slices) });
    }
    let origin_gets = u32::try_from(landed.len()).unwrap_or(u32::MAX);
    let origin_bytes = landed.values().map(|bytes| bytes.len() as u64).sum();
    Fetched { parts: whole, origin_gets, origin_bytes, from_store_bytes }
}

/// Cuts a range out of the flights that together cover it.
fn cut(landed: &Landed, range: Range<u64>, slices: &mut Vec<Bytes>) {
    let first = landed.range(..=range.start).next_back().map_or(range.start, |(first, _)| *first);
    for (start, bytes) in landed.range(first..range.end) {
        let end = start + bytes.len() as u64;
        let (from, to) = (range.start.max(*start), range.end.min(end));
        if from < to {
            // Both are inside bytes that are in memory, so they fit in its address space.
            slices.push(bytes.slice((from - start) as usize..(to - start) as usize));
        }
    }
}

/// As many permits as the semaphore can hold, which is more than memory has room for flights.
fn limit(max_flights: usize) -> usize {
    max_flights.min(Semaphore::MAX_PERMITS)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::page::{BLOCK_BYTES, PAGE_BYTES};
    use proptest::prelude::*;

    const BLOCK: u64 = BLOCK_BYTES;
    const SIZE: u64 = 40 * PAGE_BYTES + 77;
    const ROOMY: u64 = 64 << 20;

    /// Like a user's error: it can be cloned, and it has a case for what is lost here.
    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Failure {
        Origin(u32),
        Lost(Lost),
    }

    /// A file whose fetches are recorded, wait for a gate, and fail or panic on demand.
    struct Origin {
        gets: Mutex<Vec<Range<u64>>>,
        gate: Semaphore,
        faults: Mutex<Vec<Fault>>,
    }

    #[derive(Debug, Clone, Copy)]
    enum Fault {
        Error,
        PanicAtOnce,
        PanicLater,
        Short,
        Long,
        Never,
    }

    impl Origin {
        /// Opens for as many fetches as any test makes.
        const OPEN: usize = 1_000_000;

        fn new(open: usize, faults: &[Fault]) -> Arc<Self> {
            let faults = Mutex::new(faults.iter().rev().copied().collect());
            Arc::new(Self { gets: Mutex::default(), gate: Semaphore::new(open), faults })
        }

        fn fetch(self: &Arc<Self>) -> Fetch<Failure> {
            let origin = Arc::clone(self);
            Arc::new(move |range| {
                origin.gets.lock().unwrap().push(range.clone());
                let fault = origin.faults.lock().unwrap().pop();
                assert!(!matches!(fault, Some(Fault::PanicAtOnce)), "planted");
                let origin = Arc::clone(&origin);
                async move {
                    origin.gate.acquire().await.unwrap().forget();
                    match fault {
                        None => Ok(content(range)),
                        Some(Fault::Error) => Err(Failure::Origin(503)),
                        Some(Fault::Short) => Ok(content(range.start..range.end - 1)),
                        Some(Fault::Long) => Ok(content(range.start..range.end + 1)),
                        Some(Fault::Never) => std::future::pending().await,
                        Some(Fault::PanicAtOnce | Fault::PanicLater) => panic!("planted"),
                    }
                }
                .boxed()
            })
        }

        fn gets(&self) -> Vec<(u64, u64)> {
            let mut gets: Vec<_> = self.gets.lock().unwrap().iter().map(|range| (range.start, range.end)).collect();
            gets.sort_unstable();
            gets
        }

        fn open(&self) {
            self.gate.add_permits(Self::OPEN);
        }
    }

    /// One worker's end of it: a store, a map and an origin.
    #[derive(Clone)]
    struct Reader {
        store: PageStore,
        flights: Flights<Failure>,
        origin: Arc<Origin>,
    }

    impl Reader {
        fn new(capacity_bytes: u64, max_gap_bytes: u64, origin: Arc<Origin>) -> Self {
            let flight_timeout = Duration::from_secs(60);
            let settings = FlightSettings { max_gap_bytes, flight_timeout, max_flights: 100, lost: Failure::Lost };
            Self { store: PageStore::in_memory(capacity_bytes), flights: Flights::new(settings), origin }
        }

        async fn read(&self, ranges: &[Range<u64>]) -> Result<Fetched, Failure> {
            let read = self.flights.read(&self.store, &file(), SIZE, ranges, self.origin.fetch()).await;
            if let Ok(fetched) = &read {
                assert_eq!(fetched.parts.len(), ranges.len());
                for (part, range) in fetched.parts.iter().zip(ranges) {
                    assert_eq!(*part, content(range.clone()), "the bytes of {range:?} are wrong");
                }
            }
            read
        }

        async fn read_one(&self, range: Range<u64>) -> Result<Fetched, Failure> {
            self.read(&[range]).await
        }

        /// The same read in a task of its own, which has begun or joined its flights when this returns.
        async fn begin(&self, range: Range<u64>) -> tokio::task::JoinHandle<Result<Fetched, Failure>> {
            let reader = self.clone();
            let task = tokio::spawn(async move { reader.read_one(range).await });
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            task
        }
    }

    fn file() -> FileKey {
        FileKey::new("s3://lake/a.parquet", "v1")
    }

    fn content(range: Range<u64>) -> Bytes {
        range.map(|place| (place ^ (place >> 12).wrapping_mul(31)) as u8).collect::<Vec<u8>>().into()
    }

    #[tokio::test]
    async fn a_cold_range_is_fetched_once_and_then_no_more() {
        let reader = Reader::new(ROOMY, 0, Origin::new(Origin::OPEN, &[]));
        let range = PAGE_BYTES - 100..PAGE_BYTES + 100;
        let cold = reader.read_one(range.clone()).await.unwrap();
        assert_eq!((cold.origin_gets, cold.origin_bytes, cold.from_store_bytes), (1, 2 * BLOCK, 0));
        assert_eq!(reader.origin.gets(), [(PAGE_BYTES - BLOCK, PAGE_BYTES + BLOCK)]);
        let warm = reader.read_one(range).await.unwrap();
        assert_eq!((warm.origin_gets, warm.origin_bytes, warm.from_store_bytes), (0, 0, 200));
        assert_eq!(reader.origin.gets().len(), 1);
        let end = reader.read(&[SIZE - 1..SIZE, 5..5, PAGE_BYTES..PAGE_BYTES + 1]).await.unwrap();
        assert_eq!((end.origin_gets, end.origin_bytes, end.from_store_bytes), (1, 77, 1));
    }

    #[tokio::test]
    async fn a_thousand_readers_of_one_cold_range_make_one_get() {
        let reader = Reader::new(ROOMY, 0, Origin::new(0, &[]));
        let mut tasks = Vec::new();
        for number in 0..1_000 {
            tasks.push(reader.begin(number..PAGE_BYTES).await);
        }
        reader.origin.open();
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap().origin_gets, 1);
        }
        assert_eq!(reader.origin.gets(), [(0, PAGE_BYTES)]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_thousand_readers_on_many_threads_make_one_get() {
        let reader = Reader::new(ROOMY, 0, Origin::new(Origin::OPEN, &[]));
        let reads = (0..1_000).map(|number| {
            let reader = reader.clone();
            tokio::spawn(async move { reader.read_one(number..3 * PAGE_BYTES).await })
        });
        for task in reads.collect::<Vec<_>>() {
            task.await.unwrap().unwrap();
        }
        assert_eq!(reader.origin.gets(), [(0, 3 * PAGE_BYTES)]);
    }

    #[tokio::test]
    async fn overlapping_reads_fetch_no_block_twice() {
        let reader = Reader::new(ROOMY, 0, Origin::new(0, &[]));
        let ranges = [5 * BLOCK..9 * BLOCK, 7 * BLOCK + 1..12 * BLOCK, 0..20 * BLOCK, 6 * BLOCK..8 * BLOCK];
        let mut tasks = Vec::new();
        for range in ranges {
            tasks.push(reader.begin(range).await);
        }
        reader.origin.open();
        let mut gets = Vec::new();
        for task in tasks {
            let fetched = task.await.unwrap().unwrap();
            gets.push((fetched.origin_gets, fetched.origin_bytes / BLOCK));
        }
        let expected = [(0, 5), (5, 9), (9, 12), (12, 20)].map(|(start, end)| (start * BLOCK, end * BLOCK));
        assert_eq!(reader.origin.gets(), expected);
        assert_eq!(gets, [(1, 4), (2, 7), (4, 20), (1, 4)], "each read counts the flights it waited for");
    }

    #[tokio::test]
    async fn a_cancelled_leader_harms_nobody() {
        let reader = Reader::new(ROOMY, 0, Origin::new(0, &[]));
        let leader = reader.begin(0..PAGE_BYTES).await;
        let follower = reader.begin(100..200).await;
        leader.abort();
        assert!(leader.await.unwrap_err().is_cancelled());
        reader.origin.open();
        follower.await.unwrap().unwrap();
        assert_eq!(reader.origin.gets(), [(0, PAGE_BYTES)]);
    }

    #[tokio::test]
    async fn a_fetch_that_everybody_left_still_fills_the_store() {
        let reader = Reader::new(ROOMY, 0, Origin::new(0, &[]));
        reader.begin(0..PAGE_BYTES).await.abort();
        assert_eq!(reader.flights.under_way(), 1);
        reader.origin.open();
        while reader.flights.under_way() > 0 {
            tokio::task::yield_now().await;
        }
        let warm = reader.read_one(0..PAGE_BYTES).await.unwrap();
        assert_eq!((warm.origin_gets, warm.from_store_bytes), (0, PAGE_BYTES));
    }

    /// Three readers wait for one flight that fails; all hear why, nothing is kept, and the next read tries again.
    async fn fails_for_all_and_is_forgotten(fault: Fault, failure: Failure) {
        let reader = Reader::new(ROOMY, 0, Origin::new(0, &[fault]));
        let tasks = [reader.begin(0..BLOCK).await, reader.begin(1..BLOCK).await, reader.begin(2..BLOCK).await];
        reader.origin.open();
        let begun = if matches!(fault, Fault::PanicAtOnce) { 1 } else { 3 };
        for task in tasks.into_iter().take(begun) {
            assert_eq!(task.await.unwrap(), Err(failure.clone()), "{fault:?}");
        }
        while reader.flights.under_way() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(reader.flights.inner.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
        reader.read_one(0..BLOCK).await.unwrap();
        assert_eq!(reader.origin.gets().len(), 2, "{fault:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn every_kind_of_failure_reaches_all_who_wait() {
        let timeout = Duration::from_secs(60);
        fails_for_all_and_is_forgotten(Fault::Error, Failure::Origin(503)).await;
        fails_for_all_and_is_forgotten(Fault::PanicAtOnce, Failure::Lost(Lost::Died)).await;
        fails_for_all_and_is_forgotten(Fault::PanicLater, Failure::Lost(Lost::Died)).await;
        fails_for_all_and_is_forgotten(Fault::Never, Failure::Lost(Lost::TimedOut { timeout })).await;
        for (fault, brought) in [(Fault::Short, BLOCK - 1), (Fault::Long, BLOCK + 1)] {
            let failure = Failure::Lost(Lost::WrongLength { expected: BLOCK, brought });
            fails_for_all_and_is_forgotten(fault, failure).await;
        }
    }

    #[tokio::test]
    async fn a_failed_read_may_be_tried_again_at_once() {
        let reader = Reader::new(ROOMY, 0, Origin::new(Origin::OPEN, &[Fault::Error, Fault::PanicLater]));
        assert_eq!(reader.read_one(0..1).await, Err(Failure::Origin(503)));
        assert_eq!(reader.read_one(0..1).await, Err(Failure::Lost(Lost::Died)));
        reader.read_one(0..1).await.unwrap();
        assert_eq!(reader.origin.gets().len(), 3);
    }

    /// Notes, at the moment when a reader is woken, whether the map still had its flight.
    struct Witness {
        flights: Flights<Failure>,
        left_behind: Mutex<Vec<bool>>,
    }

    impl std::task::Wake for Witness {
        fn wake(self: Arc<Self>) {
            let left_behind = self.flights.inner.shards.iter().any(|shard| !shard.lock().unwrap().is_empty());
            self.left_behind.lock().unwrap().push(left_behind);
        }
    }

    #[tokio::test]
    async fn whoever_is_woken_finds_the_flight_gone() {
        for fault in [None, Some(Fault::Error), Some(Fault::PanicLater)] {
            let reader = Reader::new(ROOMY, 0, Origin::new(0, fault.as_slice()));
            let witness = Arc::new(Witness { flights: reader.flights.clone(), left_behind: Mutex::default() });
            let waker = Arc::clone(&witness).into();
            let mut read = Box::pin(reader.read_one(0..BLOCK));
            assert!(read.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
            reader.origin.open();
            while witness.left_behind.lock().unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
            assert_eq!(*witness.left_behind.lock().unwrap(), [false], "{fault:?}");
        }
    }

    #[test]
    fn a_runtime_that_ends_fails_its_flights() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (first, second) = (runtime(), runtime());
        let reader = Reader::new(ROOMY, 0, Origin::new(0, &[]));
        first.block_on(async { drop(reader.begin(0..BLOCK).await) });
        let follower = second.block_on(reader.begin(0..BLOCK));
        assert_eq!(reader.flights.under_way(), 1);
        drop(first);
        let outcome = second.block_on(follower).unwrap();
        assert!(matches!(outcome, Err(Failure::Lost(Lost::Died))), "{outcome:?}");
        assert_eq!(reader.flights.under_way(), 0);
    }

    #[tokio::test]
    async fn ranges_outside_the_file_are_refused() {
        let reader = Reader::new(ROOMY, 0, Origin::new(Origin::OPEN, &[]));
        for (start, end) in [(5, 4), (0, SIZE + 1), (u64::MAX, u64::MAX)] {
            let refused = reader.read(&[0..1, Range { start, end }]).await;
            assert_eq!(refused, Err(Failure::Lost(Lost::OutsideFile { start, end, file_size: SIZE })));
        }
        assert!(reader.origin.gets().is_empty());
    }

    #[tokio::test]
    async fn the_number_of_flights_is_bounded() {
        let reader = Reader::new(ROOMY, 0, Origin::new(0, &[]));
        let apart =
            |count: u64| (0..count).map(|number| 2 * number * BLOCK..2 * number * BLOCK + 1).collect::<Vec<_>>();
        let refused = Err(Failure::Lost(Lost::TooManyFlights { max_flights: 100 }));
        assert_eq!(reader.read(&apart(101)).await, refused);
        assert_eq!((reader.flights.under_way(), reader.origin.gets().len()), (0, 0), "nothing was begun by halves");
        let full = tokio::spawn({
            let reader = reader.clone();
            async move { reader.read(&apart(100)).await }
        });
        while reader.flights.under_way() < 100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(reader.read_one(SIZE - 1..SIZE).await, refused);
        let joining = reader.begin(0..1).await;
        reader.origin.open();
        assert_eq!(full.await.unwrap().unwrap().origin_gets, 100);
        assert_eq!(joining.await.unwrap().unwrap().origin_gets, 1);
        reader.read_one(SIZE - 1..SIZE).await.unwrap();
    }

    #[tokio::test]
    async fn small_gaps_are_fetched_along() {
        let gap = 2 * BLOCK;
        let gets = async |ranges: &[Range<u64>]| {
            let reader = Reader::new(ROOMY, gap, Origin::new(Origin::OPEN, &[]));
            let fetched = reader.read(ranges).await.unwrap();
            assert_eq!(fetched.origin_gets as usize, reader.origin.gets().len());
            reader.origin.gets().into_iter().map(|(start, end)| (start / BLOCK, end / BLOCK)).collect::<Vec<_>>()
        };
        assert_eq!(gets(&[3 * BLOCK..4 * BLOCK, 0..1]).await, [(0, 4)]);
        assert_eq!(gets(&[0..1, 3 * BLOCK..4 * BLOCK, 6 * BLOCK..7 * BLOCK]).await, [(0, 7)]);
        assert_eq!(gets(&[0..1, 4 * BLOCK..4 * BLOCK + 1]).await, [(0, 1), (4, 5)]);
        assert_eq!(gets(&[0..2 * BLOCK, BLOCK..3 * BLOCK, 3 * BLOCK..4 * BLOCK]).await, [(0, 4)]);
    }

    #[tokio::test]
    async fn a_gap_that_is_under_way_is_joined_and_not_fetched_again() {
        let reader = Reader::new(ROOMY, PAGE_BYTES, Origin::new(0, &[]));
        let middle = reader.begin(2 * BLOCK..3 * BLOCK).await;
        let around = reader.begin(0..5 * BLOCK).await;
        reader.origin.open();
        assert_eq!(around.await.unwrap().unwrap().origin_gets, 3);
        middle.await.unwrap().unwrap();
        let expected = [(0, 2), (2, 3), (3, 5)].map(|(start, end)| (start * BLOCK, end * BLOCK));
        assert_eq!(reader.origin.gets(), expected);
    }

    #[tokio::test]
    async fn a_store_that_is_too_small_still_answers() {
        for capacity in [0, 2 * PAGE_BYTES] {
            let reader = Reader::new(capacity, 0, Origin::new(Origin::OPEN, &[]));
            for _ in 0..2 {
                let fetched = reader.read(&[0..SIZE, 10..20, SIZE - 5..SIZE]).await.unwrap();
                assert!(fetched.origin_bytes + 2 * PAGE_BYTES >= SIZE);
                assert!(reader.store.bytes() <= capacity);
            }
        }
    }

    /// Any ranges by any number of readers at once: bytes are right (which `read` checks), and the cost is bounded.
    async fn many_readers(capacity: u64, max_gap_bytes: u64, reads: Vec<Vec<Range<u64>>>) {
        let reader = Reader::new(capacity, max_gap_bytes, Origin::new(Origin::OPEN, &[]));
        let tasks = reads.iter().cloned().map(|ranges| {
            let reader = reader.clone();
            tokio::spawn(async move { reader.read(&ranges).await })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap().unwrap();
        }
        let gets = reader.origin.gets();
        let fetched: u64 = gets.iter().map(|(start, end)| end - start).sum();
        let asked: u64 =
            reads.iter().flatten().map(|range| rounded_out(range, SIZE)).map(|range| range.end - range.start).sum();
        // Each range is at most one run of its own, or several with flights or present bytes between them.
        let gaps = reads.iter().map(|ranges| ranges.len() as u64 - 1).sum::<u64>() * max_gap_bytes;
        assert!(fetched <= asked + gaps, "{fetched} bytes were fetched for {asked} asked and {gaps} in gaps");
        if max_gap_bytes == 0 && capacity == ROOMY {
            let apart = gets.windows(2).all(|pair| pair[0].1 <= pair[1].0);
            assert!(apart, "a block was fetched twice: {gets:?}");
        }
        assert_eq!(reader.flights.under_way(), 0);
        assert!(reader.store.bytes() <= capacity);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        #[test]
        fn bytes_are_right_and_fetches_bounded_whatever_is_asked(
            capacity in prop_oneof![Just(0), Just(3 * PAGE_BYTES), Just(ROOMY)],
            max_gap_bytes in prop_oneof![Just(0), Just(3 * BLOCK), Just(2 * PAGE_BYTES)],
            reads in proptest::collection::vec(
                proptest::collection::vec((0..SIZE, prop_oneof![1..2 * BLOCK, 1..4 * PAGE_BYTES]), 1..5),
                1..24,
            ),
        ) {
            let reads = reads.into_iter().map(|ranges| {
                ranges.into_iter().map(|(start, length)| start..(start + length).min(SIZE)).collect()
            });
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_time().build().unwrap();
            runtime.block_on(many_readers(capacity, max_gap_bytes, reads.collect()));
        }
    }
}
