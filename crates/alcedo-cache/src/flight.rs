//! Layer 1: the flight map, which fetches are under way, so that no block is fetched twice at once.
//!
//! Knows ranges, the page store and the function that its user hands in for fetching. It must not know who fetches from
//! where, nor why. A fetch runs in a task of its own, within a time of its own: whoever asked first may leave without
//! harm to those who joined, and a fetch that panics is an error to them, never a wait without end. What a fetch
//! brought goes to all who wait directly as well as into the store, so a store that is full or tiny costs speed only.
//!
//! One rule makes it right: a fetch writes the store before it leaves the map, and readers look into the store's index
//! while they hold the map. Each block is thus seen in one of both, or is fetched. What the index shows is read after
//! the map was left; where that fails, the reader goes round again.
//!
//! A fetch for somebody who waits begins at once. One that was made ahead of need waits until few others of its kind
//! are under way, and begins at once too when somebody comes who waits for it.

mod extents;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Either, Shared, join, select, try_join_all};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::assembly::{Landed, Part, read_all};
use crate::file_key::FileKey;
use crate::page_store::PageStore;
use crate::stretch::{Stretch, lacking};
use extents::{extents, flights_over};

/// Parts of the map, chosen by file, each with a lock of its own: readers of different files rarely meet.
const SHARDS: usize = 16;
/// Rounds of one read at most: what the store promised may be gone when it is read, and the next round fetches that.
/// The last round does not ask the store any more.
const MOST_ROUNDS: u32 = 3;

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
    /// As many fetches as [`FlightSettings::max_flights`] or [`FlightSettings::max_prefetches`] allows are under way.
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
    /// Missing ranges that are at most this many bytes apart become one GET, as long as all gaps of one read together
    /// are at most a quarter of what it wants, or one longest gap. [`Flights::with_gaps`] makes it less where an
    /// origin's trips cost less than the bytes.
    pub max_gap_bytes: u64,
    /// Longest time of one fetch, whoever waits for it; a prefetch's wait for its turn does not count.
    pub flight_timeout: Duration,
    /// Most fetches under way at once; a read that needs more fails at once. Callers who come and go leave fetches
    /// behind, so their own number does not bound it.
    pub max_flights: usize,
    /// Most fetches ahead of need, under way and waiting together; a read ahead that needs more fails at once.
    pub max_prefetches: usize,
    /// Most fetches ahead of need under way at once: a part of what the origin serves, so that those who wait find it
    /// free.
    pub prefetches_at_once: usize,
    /// Makes the user's error of what went wrong here.
    pub lost: fn(Lost) -> E,
}

/// The longest gap between two ranges that costs less time to fetch along than one more trip to the origin.
pub fn gap_worth_a_trip(trip: Duration, bytes_per_second: u64) -> u64 {
    let bytes = trip.as_micros().saturating_mul(u128::from(bytes_per_second)) / 1_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// How much a read is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Somebody waits for it.
    Demand,
    /// It is made ahead of need.
    Prefetch,
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
    /// Of reads through this handle.
    max_gap_bytes: u64,
}

struct Inner<E> {
    settings: FlightSettings<E>,
    permits: Arc<Semaphore>,
    prefetch_permits: Arc<Semaphore>,
    /// For prefetches that are under way.
    prefetching: Arc<Semaphore>,
    shards: [Mutex<Shard<E>>; SHARDS],
}

/// The flights of some files.
type Shard<E> = HashMap<FileKey, FileFlights<E>>;

/// The flights of one file by where they start. They never overlap.
type FileFlights<E> = BTreeMap<u64, Flight<E>>;

type Outcome<E> = Shared<BoxFuture<'static, Result<Bytes, E>>>;

struct Flight<E> {
    end: u64,
    outcome: Outcome<E>,
    /// Told when somebody waits for it.
    wanted: Arc<Notify>,
}

/// A flight that a read waits for.
struct Boarded<E> {
    start: u64,
    outcome: Outcome<E>,
    /// Somebody else had begun it.
    is_joined: bool,
}

/// The error of a flight.
struct Crash<E> {
    error: E,
    is_joined: bool,
}

/// What one round of a read looks for.
struct Journey<'a, E> {
    store: &'a PageStore,
    file: &'a FileKey,
    file_size: u64,
    ranges: &'a [Range<u64>],
    /// What is there already, by range.
    known: &'a [Option<Bytes>],
    /// Whether the store is looked into.
    asks_store: bool,
    urgency: Urgency,
    fetch: &'a Fetch<E>,
}

/// What a flight's task holds. The order of the fields matters: when the task panics, it leaves the map before those
/// who wait hear of it, so that their next try begins a new flight.
struct Departure<E> {
    listing: Listing<E>,
    range: Range<u64>,
    /// Where a prefetch waits for its turn, and what ends its wait early.
    queue: Option<(Arc<Semaphore>, Arc<Notify>)>,
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

impl<E> Journey<'_, E> {
    /// The ranges that are not known yet, as far as the store has them.
    fn parts(&self) -> Vec<Part> {
        let unknown = self.ranges.iter().zip(self.known).enumerate().filter(|(_, (_, known))| known.is_none());
        let part = |(number, (range, _)): (usize, (&Range<u64>, _))| {
            let stretches = match self.asks_store {
                true => self.store.survey(self.file, self.file_size, range),
                false => vec![Stretch::Missing(range.clone())],
            };
            if stretches.iter().any(|stretch| matches!(stretch, Stretch::Missing(_))) {
                self.store.missed();
            }
            Part { number, stretches }
        };
        unknown.map(part).collect()
    }
}

impl<E> Clone for Flights<E> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), max_gap_bytes: self.max_gap_bytes }
    }
}

impl<E> fmt::Debug for Flights<E> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Flights").field("under_way", &self.under_way()).finish()
    }
}

impl<E> Flights<E> {
    /// How many fetches are under way, or wait for their turn.
    pub fn under_way(&self) -> usize {
        let Inner { settings, permits, prefetch_permits, .. } = self.inner.as_ref();
        let demanded = limit(settings.max_flights) - permits.available_permits();
        demanded + limit(settings.max_prefetches) - prefetch_permits.available_permits()
    }
}

impl<E: Clone + Send + Sync + 'static> Flights<E> {
    /// A map with no flights.
    pub fn new(settings: FlightSettings<E>) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(limit(permits)));
        let permits = semaphore(settings.max_flights);
        let prefetch_permits = semaphore(settings.max_prefetches);
        let prefetching = semaphore(settings.prefetches_at_once);
        let shards = std::array::from_fn(|_| Mutex::new(HashMap::new()));
        let max_gap_bytes = settings.max_gap_bytes;
        Self { inner: Arc::new(Inner { settings, permits, prefetch_permits, prefetching, shards }), max_gap_bytes }
    }

    /// The same map, whose reads through this handle join ranges over gaps of at most so many bytes, and never more
    /// than [`FlightSettings::max_gap_bytes`]: [`gap_worth_a_trip`] says how many an origin's trip is worth.
    #[must_use]
    pub fn with_gaps(&self, max_gap_bytes: u64) -> Self {
        let max_gap_bytes = max_gap_bytes.min(self.inner.settings.max_gap_bytes);
        Self { inner: Arc::clone(&self.inner), max_gap_bytes }
    }

    /// The bytes of all ranges: from the store where they are there, by joining the fetches that are under way, and by
    /// `fetch` for the rest, in blocks and with as few GETs as the longest gap makes of them.
    ///
    /// The future may be dropped at any time; fetches that it began go on and fill the store. It must be polled inside
    /// a tokio runtime with its clock enabled. It has no deadline of its own beyond that of each fetch.
    ///
    /// # Errors
    /// The error of the first fetch that failed, or what the user made of a [`Lost`]. A fetch that somebody else had
    /// begun may have failed for reasons of its own, so this read then tries once more itself. Nothing is remembered of
    /// a failure: the next read tries again.
    pub async fn read(
        &self,
        store: &PageStore,
        file: &FileKey,
        file_size: u64,
        ranges: &[Range<u64>],
        urgency: Urgency,
        fetch: Fetch<E>,
    ) -> Result<Fetched, E> {
        let lost = self.inner.settings.lost;
        if let Some(&Range { start, end }) =
            ranges.iter().find(|range| range.start > range.end || range.end > file_size)
        {
            return Err(lost(Lost::OutsideFile { start, end, file_size }));
        }
        let mut known: Vec<Option<Bytes>> = ranges.iter().map(|range| store.read(file, range.clone())).collect();
        let from_store_bytes = known.iter().flatten().map(|part| part.len() as u64).sum();
        let mut fetched = Fetched { parts: Vec::new(), origin_gets: 0, origin_bytes: 0, from_store_bytes };
        let (mut round, mut may_try_again) = (1, true);
        while known.iter().any(Option::is_none) {
            let (asks_store, fetch) = (round < MOST_ROUNDS, &fetch);
            let journey = Journey { store, file, file_size, ranges, known: &known, asks_store, urgency, fetch };
            let (parts, boarded) = self.depart(&journey)?;
            let (landed, parts) = join(land(boarded), read_all(store, file, parts)).await;
            let landed = match landed {
                Err(Crash { is_joined: true, .. }) if may_try_again => {
                    may_try_again = false;
                    continue;
                }
                landed => landed.map_err(|crash| crash.error)?,
            };
            fetched.origin_gets = fetched.origin_gets.saturating_add(u32::try_from(landed.len()).unwrap_or(u32::MAX));
            fetched.origin_bytes += landed.values().map(|bytes| bytes.len() as u64).sum::<u64>();
            for part in parts {
                let number = part.number;
                if let Some((bytes, from_store_bytes)) = part.whole(&landed) {
                    fetched.from_store_bytes += from_store_bytes;
                    known[number] = Some(bytes);
                }
            }
            round += 1;
        }
        fetched.parts = known.into_iter().flatten().collect();
        Ok(fetched)
    }

    /// Looks into the store's index and the map at one moment, begins the flights that are wanting, and returns all
    /// that the parts are waiting for.
    fn depart(&self, journey: &Journey<'_, E>) -> Result<(Vec<Part>, Vec<Boarded<E>>), E> {
        let Journey { store, file, file_size, urgency, fetch, .. } = *journey;
        // Declared before the lock, so that it is dropped after it: whatever is in here takes the lock when it ends.
        let mut departures = Vec::new();
        let mut shard = self.inner.shard(file);
        let parts = journey.parts();
        let wanted = lacking(parts.iter().flat_map(|part| &part.stretches), file_size);
        let extents = extents(shard.get(file), &wanted, self.max_gap_bytes);
        let permits = self.permits(extents.len(), urgency)?;
        for (range, permit) in extents.into_iter().zip(permits) {
            let (flight, departure) = self.flight(file, range, urgency, permit);
            shard.entry(file.clone()).or_default().insert(departure.range.start, flight);
            departures.push(departure);
        }
        let over = |range| shard.get(file).into_iter().flat_map(move |flights| flights_over(flights, range));
        // One flight may bring several of the ranges.
        let flights: BTreeMap<u64, &Flight<E>> = wanted.iter().flat_map(over).collect();
        // They are in order.
        let is_begun = |start: u64| departures.binary_search_by_key(&start, |departure| departure.range.start).is_ok();
        let board = |(start, flight): (u64, &Flight<E>)| {
            if urgency == Urgency::Demand {
                flight.wanted.notify_one();
            }
            Boarded { start, outcome: flight.outcome.clone(), is_joined: !is_begun(start) }
        };
        let boarded = flights.into_iter().map(board).collect();
        // A runtime that shuts down drops the task inside `spawn`, and then too the lock must be free.
        drop(shard);
        for departure in departures {
            tokio::spawn(fly(departure, store.clone(), file_size, Arc::clone(fetch)));
        }
        Ok((parts, boarded))
    }

    fn permits(&self, count: usize, urgency: Urgency) -> Result<Vec<OwnedSemaphorePermit>, E> {
        let Inner { permits, prefetch_permits, settings, .. } = self.inner.as_ref();
        let (permits, max_flights) = match urgency {
            Urgency::Demand => (permits, settings.max_flights),
            Urgency::Prefetch => (prefetch_permits, settings.max_prefetches),
        };
        let taken: Result<Vec<_>, _> = (0..count).map(|_| Arc::clone(permits).try_acquire_owned()).collect();
        taken.map_err(|_| (settings.lost)(Lost::TooManyFlights { max_flights }))
    }

    fn flight(
        &self,
        file: &FileKey,
        range: Range<u64>,
        urgency: Urgency,
        permit: OwnedSemaphorePermit,
    ) -> (Flight<E>, Departure<E>) {
        let (answer, outcome) = oneshot::channel();
        let lost = self.inner.settings.lost;
        let outcome = outcome.map(move |answer| answer.unwrap_or_else(|_| Err(lost(Lost::Died)))).boxed().shared();
        let (inner, wanted) = (Arc::clone(&self.inner), Arc::new(Notify::new()));
        let queue = match urgency {
            Urgency::Demand => None,
            Urgency::Prefetch => Some((Arc::clone(&inner.prefetching), Arc::clone(&wanted))),
        };
        let listing = Listing { inner, file: file.clone(), start: range.start, _permit: permit };
        (Flight { end: range.end, outcome, wanted }, Departure { listing, range, queue, answer })
    }
}

/// Waits for all flights.
async fn land<E: Clone>(boarded: Vec<Boarded<E>>) -> Result<Landed, Crash<E>> {
    let wait = |Boarded { start, outcome, is_joined }| async move {
        let outcome: Result<Bytes, E> = outcome.await;
        outcome.map(|bytes| (start, bytes)).map_err(|error| Crash { error, is_joined })
    };
    Ok(try_join_all(boarded.into_iter().map(wait)).await?.into_iter().collect())
}

/// The task of one flight: fetch, store, leave the map, tell everybody.
async fn fly<E>(departure: Departure<E>, store: PageStore, file_size: u64, fetch: Fetch<E>) {
    let FlightSettings { flight_timeout: timeout, lost, .. } = departure.listing.inner.settings;
    let expected = departure.range.end - departure.range.start;
    let turn = match &departure.queue {
        None => None,
        Some((prefetching, wanted)) => wait_turn(prefetching, wanted).await,
    };
    let fetching = async { fetch(departure.range.clone()).await };
    let outcome = match tokio::time::timeout(timeout, fetching).await {
        Err(_) => Err(lost(Lost::TimedOut { timeout })),
        Ok(Ok(bytes)) if bytes.len() as u64 != expected => {
            Err(lost(Lost::WrongLength { expected, brought: bytes.len() as u64 }))
        }
        Ok(outcome) => outcome,
    };
    drop(turn);
    if let Ok(bytes) = &outcome {
        store.write(&departure.listing.file, file_size, departure.range.start, bytes);
    }
    let Departure { listing, answer, .. } = departure;
    drop(listing);
    // Everybody who waited may have left; the store has the bytes.
    let _ = answer.send(outcome);
}

/// Waits until a prefetch may begin: few others are under way, or somebody waits for it.
async fn wait_turn(prefetching: &Arc<Semaphore>, wanted: &Notify) -> Option<OwnedSemaphorePermit> {
    let turn = std::pin::pin!(Arc::clone(prefetching).acquire_owned());
    let wanted = std::pin::pin!(wanted.notified());
    match select(wanted, turn).await {
        Either::Left(_) => None,
        // The semaphore is never closed.
        Either::Right((turn, _)) => turn.ok(),
    }
}

/// As many permits as the semaphore can hold, which is more than memory has room for flights.
fn limit(max_flights: usize) -> usize {
    max_flights.min(Semaphore::MAX_PERMITS)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::single_range_in_vec_init)]
mod tests {
    use super::*;
    use crate::page::{BLOCK_BYTES, PAGE_BYTES};
    use crate::stretch::rounded_out;
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
            let (max_flights, max_prefetches, prefetches_at_once) = (100, 50, 2);
            let lost = Failure::Lost;
            let settings =
                FlightSettings { max_gap_bytes, flight_timeout, max_flights, max_prefetches, prefetches_at_once, lost };
            Self { store: PageStore::in_memory(capacity_bytes), flights: Flights::new(settings), origin }
        }

        async fn read(&self, ranges: &[Range<u64>]) -> Result<Fetched, Failure> {
            self.read_as(Urgency::Demand, ranges).await
        }

        async fn read_as(&self, urgency: Urgency, ranges: &[Range<u64>]) -> Result<Fetched, Failure> {
            let fetch = self.origin.fetch();
            let read = self.flights.read(&self.store, &file(), SIZE, ranges, urgency, fetch).await;
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

    /// Three readers wait for one flight that fails: who began it hears why, the others try once more together.
    async fn fails_and_is_tried_again_by_those_who_joined(fault: Fault, failure: Failure) {
        let reader = Reader::new(ROOMY, 0, Origin::new(0, &[fault]));
        let tasks = [reader.begin(0..BLOCK).await, reader.begin(1..BLOCK).await, reader.begin(2..BLOCK).await];
        reader.origin.open();
        let [first, second, third] = tasks;
        assert_eq!(first.await.unwrap(), Err(failure), "{fault:?}");
        assert_eq!(second.await.unwrap().unwrap().origin_gets, 1, "{fault:?}");
        assert_eq!(third.await.unwrap().unwrap().origin_gets, 1, "{fault:?}");
        assert_eq!(reader.flights.under_way(), 0);
        assert!(reader.flights.inner.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
        assert_eq!(reader.origin.gets().len(), 2, "{fault:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn every_kind_of_failure_reaches_who_began_it() {
        let timeout = Duration::from_secs(60);
        fails_and_is_tried_again_by_those_who_joined(Fault::Error, Failure::Origin(503)).await;
        fails_and_is_tried_again_by_those_who_joined(Fault::PanicAtOnce, Failure::Lost(Lost::Died)).await;
        fails_and_is_tried_again_by_those_who_joined(Fault::PanicLater, Failure::Lost(Lost::Died)).await;
        fails_and_is_tried_again_by_those_who_joined(Fault::Never, Failure::Lost(Lost::TimedOut { timeout })).await;
        for (fault, brought) in [(Fault::Short, BLOCK - 1), (Fault::Long, BLOCK + 1)] {
            let failure = Failure::Lost(Lost::WrongLength { expected: BLOCK, brought });
            fails_and_is_tried_again_by_those_who_joined(fault, failure).await;
        }
    }

    #[tokio::test]
    async fn who_joins_tries_once_more_and_not_for_ever() {
        let reader = Reader::new(ROOMY, 0, Origin::new(0, &[Fault::Error, Fault::PanicLater, Fault::Error]));
        let mut tasks = Vec::new();
        for number in 0..1_000 {
            tasks.push(reader.begin(number..PAGE_BYTES).await);
        }
        reader.origin.open();
        let first = tasks.remove(0).await.unwrap();
        assert_eq!(first, Err(Failure::Origin(503)));
        for task in tasks {
            assert_eq!(task.await.unwrap(), Err(Failure::Lost(Lost::Died)));
        }
        assert_eq!(reader.origin.gets().len(), 2);
    }

    #[tokio::test]
    async fn prefetches_wait_for_each_other_and_demand_overtakes_them() {
        let reader = Reader::new(ROOMY, 0, Origin::new(0, &[]));
        let range = |number: u64| 2 * number * BLOCK..(2 * number + 1) * BLOCK;
        let ahead = (0..10).map(|number| {
            let reader = reader.clone();
            tokio::spawn(async move { reader.read_as(Urgency::Prefetch, &[range(number)]).await })
        });
        let ahead: Vec<_> = ahead.collect();
        while reader.origin.gets().len() < 2 {
            tokio::task::yield_now().await;
        }
        let other = reader.begin(range(20)).await;
        assert_eq!((reader.origin.gets().len(), reader.flights.under_way()), (3, 11), "demand does not queue");
        let promoted = reader.begin(range(7)).await;
        tokio::task::yield_now().await;
        assert!(reader.origin.gets().contains(&(range(7).start, range(7).end)), "a queued prefetch begins at once");
        assert_eq!(reader.origin.gets().len(), 4);
        reader.begin(range(0)).await;
        assert_eq!(reader.origin.gets().len(), 4, "one that has begun is joined");
        reader.origin.open();
        for task in ahead.into_iter().chain([other, promoted]) {
            assert_eq!(task.await.unwrap().unwrap().origin_gets, 1);
        }
        assert_eq!((reader.origin.gets().len(), reader.flights.under_way()), (11, 0));
    }

    #[tokio::test]
    async fn prefetches_have_a_bound_of_their_own() {
        let reader = Reader::new(ROOMY, 0, Origin::new(0, &[]));
        let apart: Vec<_> = (0..51).map(|number| 2 * number * BLOCK..2 * number * BLOCK + 1).collect();
        let refused = Err(Failure::Lost(Lost::TooManyFlights { max_flights: 50 }));
        assert_eq!(reader.read_as(Urgency::Prefetch, &apart).await, refused);
        let full = tokio::spawn({
            let reader = reader.clone();
            async move { reader.read_as(Urgency::Prefetch, &apart[..50]).await }
        });
        while reader.flights.under_way() < 50 {
            tokio::task::yield_now().await;
        }
        assert_eq!(reader.read_as(Urgency::Prefetch, &[SIZE - 1..SIZE]).await, refused);
        let demanded = reader.begin(SIZE - 1..SIZE).await;
        reader.origin.open();
        demanded.await.unwrap().unwrap();
        assert_eq!(full.await.unwrap().unwrap().origin_gets, 50);
    }

    #[test]
    fn a_gap_is_worth_what_passes_in_the_time_of_a_trip() {
        assert_eq!(gap_worth_a_trip(Duration::from_millis(20), 50_000_000), 1_000_000);
        assert_eq!(gap_worth_a_trip(Duration::ZERO, 50_000_000), 0);
        assert_eq!(gap_worth_a_trip(Duration::MAX, u64::MAX), u64::MAX);
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
        assert_eq!(reader.flights.under_way(), 0);
        reader.origin.open();
        second.block_on(follower).unwrap().unwrap();
        assert_eq!(reader.origin.gets().len(), 2, "the follower began a flight of its own");
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
        // All gaps of a read together have a bound as well, and the smallest go first.
        assert_eq!(gets(&[0..1, 3 * BLOCK..4 * BLOCK, 5 * BLOCK..6 * BLOCK]).await, [(0, 1), (3, 6)]);
        let long = [0..8 * BLOCK, 10 * BLOCK..16 * BLOCK, 18 * BLOCK..19 * BLOCK, 20 * BLOCK..21 * BLOCK];
        assert_eq!(gets(&long).await, [(0, 16), (18, 21)], "sixteen blocks pay for four, not for five");
        assert_eq!(gets(&[0..1, 4 * BLOCK..4 * BLOCK + 1]).await, [(0, 1), (4, 5)]);
        assert_eq!(gets(&[0..2 * BLOCK, BLOCK..3 * BLOCK, 3 * BLOCK..4 * BLOCK]).await, [(0, 4)]);
    }

    #[tokio::test]
    async fn a_handle_may_join_less_than_the_map_and_never_more() {
        let ranges = [0..1, 2 * BLOCK..3 * BLOCK];
        for (of_map, of_handle, gets) in [(BLOCK, 0, 2), (BLOCK, BLOCK, 1), (0, u64::MAX, 2), (BLOCK, u64::MAX, 1)] {
            let mut reader = Reader::new(ROOMY, of_map, Origin::new(Origin::OPEN, &[]));
            reader.flights = reader.flights.with_gaps(of_handle);
            assert_eq!(reader.read(&ranges).await.unwrap().origin_gets, gets, "{of_map} {of_handle}");
        }
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
