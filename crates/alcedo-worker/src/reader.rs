//! Layer 3: the Source of one version of one file: what is pinned, page store, flight map, origin.
//!
//! Knows where bytes are and what getting them cost. It must not know what they mean: a machine of `alcedo-lookup` asks
//! for pieces, and this room brings them, all of one content version. The first piece of a file whose version is not
//! known yet is its tail; whatever version answers is the one that all later pieces are asked of.

use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use alcedo_cache::{
    CacheDir, Fetch, FileKey, FlightSettings, Flights, OpenError, PageStore, StoreName, Urgency, gap_worth_a_trip,
};
use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::learn::{ChunkName, LEARNING_STAGE};
use alcedo_lookup::machine::{Fed, Machine, Need, Piece, Source, Step};
use alcedo_origin::{FileStat, Place, Tail};
use futures::future::try_join;
use tokio::time::Instant;

use crate::cost::{Cost, Origin, Stage};
use crate::error::Error;
use crate::indexes::{Learnings, Subject};
use crate::pinned::PinnedBytes;
use crate::tails::Tails;

/// Steps that decompress or decode more than this run in the blocking pool. At 0.5 to 1 GB/s it is about 100 us, more
/// than the two thread hops cost; less of it keeps the thread from answering others for no longer than that.
pub const INLINE_WORK_BYTES: u64 = 64 << 10;
/// Longest time of one fetch, whoever waits for it: a request's own longest time.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// Fetches under way at once: far more than origins serve at a time, and it bounds what callers who left leave behind.
const MAX_FETCHES: usize = 16_384;

/// Part of what a trip is worth, as a divisor, that the gap between two ranges may be: they are fetched at the same
/// time, so that joining them saves a request and no trip.
const GAP_SHARE: u64 = 8;
/// What a search calls a round that reads its indexes.
const INDEX_STAGE: &str = "index";

/// Fetches ahead of need, under way and waiting together.
const MAX_PREFETCHES: usize = 4_096;
/// Fetches ahead of need under way at once: a quarter of what a store usually serves one client at a time, so that
/// lookups find it free.
pub(crate) const PREFETCHES_AT_ONCE: usize = 16;

/// One content version of one file.
#[derive(Debug, Clone)]
pub struct FileVersion {
    /// Its name in all caches.
    pub key: FileKey,
    /// What is known about it.
    pub stat: Arc<FileStat>,
}

impl FileVersion {
    /// The version that a stat describes.
    pub fn new(stat: FileStat) -> Self {
        Self::from_shared(Arc::new(stat))
    }

    /// The version that a shared stat describes.
    pub(crate) fn from_shared(stat: Arc<FileStat>) -> Self {
        Self { key: FileKey::new(Arc::clone(&stat.url), stat.version.as_str()), stat }
    }
}

/// The bytes that this worker has, in memory or on disk, and the way to those that it has not.
#[derive(Debug)]
pub struct Bytestore {
    pages: PageStore,
    pinned: PinnedBytes,
    flights: Flights<Error>,
    tails: Tails,
}

/// How reads are cut, whatever is learned.
#[derive(Debug, Clone, Copy)]
pub struct ReadSizes {
    /// Longest gap between two ranges that are fetched as one.
    pub gap_bytes: u64,
    /// The first read of a file's end, until more is known of its mount.
    pub tail_bytes: u64,
}

impl Bytestore {
    /// A store of at most so many bytes, in memory.
    pub fn in_memory(capacity_bytes: u64, sizes: ReadSizes) -> Self {
        Self::over(PageStore::in_memory(capacity_bytes), sizes)
    }

    /// A store in a cache directory, with what is there from before, whose files take at most so many bytes.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn on_disk(dir: &CacheDir, capacity_bytes: u64, sizes: ReadSizes) -> Result<Self, OpenError> {
        Ok(Self::over(PageStore::open(dir, StoreName::Pages, capacity_bytes)?, sizes))
    }

    fn over(pages: PageStore, sizes: ReadSizes) -> Self {
        let settings = FlightSettings {
            max_gap_bytes: sizes.gap_bytes,
            flight_timeout: FETCH_TIMEOUT,
            max_flights: MAX_FETCHES,
            max_prefetches: MAX_PREFETCHES,
            prefetches_at_once: PREFETCHES_AT_ONCE,
            lost: Error::from,
        };
        let (pinned, flights) = (PinnedBytes::none(), Flights::new(settings));
        Self { pages, pinned, flights, tails: Tails::new(sizes.tail_bytes) }
    }

    /// The same, with a store of bytes that are pinned: they are looked for there first.
    pub(crate) fn with_pinned(self, pinned: PageStore) -> Self {
        Self { pinned: PinnedBytes::over(pinned), ..self }
    }

    /// The bytes that are pinned.
    pub(crate) fn pinned(&self) -> &PinnedBytes {
        &self.pinned
    }

    /// Drops all bytes of a version, pinned ones too: something in them is damaged.
    pub(crate) fn forget(&self, version: &FileKey) {
        self.pages.forget(version);
        self.pinned.forget(version);
    }

    #[cfg(test)]
    pub(crate) fn flights(&self) -> &Flights<Error> {
        &self.flights
    }

    /// The pages.
    pub fn pages(&self) -> &PageStore {
        &self.pages
    }

    /// How much of a file's end is read first.
    pub fn tails(&self) -> &Tails {
        &self.tails
    }
}

/// Reads one version of one file for one request.
#[derive(Debug)]
pub struct Reader {
    store: Arc<Bytestore>,
    place: Place,
    version: OnceLock<FileVersion>,
    /// What the first read brought: a block at its start may be too short for the page store.
    tail: OnceLock<Tail>,
    cost: Arc<Cost>,
    urgency: Urgency,
    /// Where page tables are learned that the file has not, and for which index.
    learner: Option<(Arc<Learnings>, Arc<FileIndex>)>,
    /// When a read of the tail gives up; ranges are fetched by flights, which have a time of their own.
    deadline: Instant,
}

impl Reader {
    /// A reader of a version that is known.
    pub fn of_version(store: &Arc<Bytestore>, place: &Place, version: FileVersion, cost: &Arc<Cost>) -> Self {
        let reader = Self::of_unknown(store, place, cost);
        // The cell is new, so this cannot fail.
        let _ = reader.version.set(version);
        reader
    }

    /// A reader of whatever version the file has when its tail is read.
    pub fn of_unknown(store: &Arc<Bytestore>, place: &Place, cost: &Arc<Cost>) -> Self {
        Self {
            store: Arc::clone(store),
            place: place.clone(),
            version: OnceLock::new(),
            tail: OnceLock::new(),
            cost: Arc::clone(cost),
            urgency: Urgency::Demand,
            learner: None,
            deadline: Instant::now() + FETCH_TIMEOUT,
        }
    }

    /// The same reader for a search in this file: what it would read only to learn where data pages are is learned in
    /// the background, once for all who need it.
    pub(crate) fn learning(self, learnings: &Arc<Learnings>, index: &Arc<FileIndex>) -> Self {
        Self { learner: Some((Arc::clone(learnings), Arc::clone(index))), ..self }
    }

    /// The same reader for work that nobody waits for: what is fetched for it stands behind what lookups need.
    pub(crate) fn ahead_of_need(self) -> Self {
        Self { urgency: Urgency::Prefetch, ..self }
    }

    /// The version that is read, once it is known.
    pub fn version(&self) -> Option<&FileVersion> {
        self.version.get()
    }

    /// The bytes of each range.
    ///
    /// # Errors
    /// The origin's; [`alcedo_origin::Error::VersionChanged`] when the file is another one now.
    pub async fn read_ranges(&self, stage: &'static str, ranges: &[Range<u64>]) -> Result<Vec<bytes::Bytes>, Error> {
        let version =
            self.version.get().ok_or_else(|| self.bug("a range was asked for before the version was known"))?;
        match self.stored(stage, version, ranges) {
            Some(parts) => Ok(parts),
            None => self.fetched(stage, version, ranges).await,
        }
    }

    /// What a machine needs of a version that is known, if all of it is here and needs no wait.
    pub(crate) fn read_here(&self, stage: &'static str, need: &Need) -> Option<Vec<Fed>> {
        let version = self.version.get()?;
        let range = |piece: &Piece| match piece {
            Piece::Tail(_) => None,
            Piece::Range(range) => Some(range.clone()),
        };
        let ranges = need.pieces.iter().map(range).collect::<Option<Vec<_>>>()?;
        let parts = self.stored(stage, version, &ranges)?.into_iter();
        let fed = |(bytes, range): (_, Range<u64>)| Fed { start: range.start, file_size: version.stat.size, bytes };
        Some(parts.zip(ranges).map(fed).collect())
    }

    /// The bytes of all ranges, not all of which are here.
    async fn fetched(
        &self,
        stage: &'static str,
        version: &FileVersion,
        ranges: &[Range<u64>],
    ) -> Result<Vec<bytes::Bytes>, Error> {
        let began = Instant::now();
        let gap_bytes = self.worth_a_trip() / GAP_SHARE;
        let (pages, flights) = (&self.store.pages, self.store.flights.with_gaps(gap_bytes));
        let (size, fetch) = (version.stat.size, self.fetch(version));
        let pinned = self.store.pinned.read_each(&version.key, ranges).await;
        let is_not_pinned = |number: &usize| pinned.get(*number).is_none_or(Option::is_none);
        let rest: Vec<_> = (0..ranges.len()).filter(is_not_pinned).map(|number| ranges[number].clone()).collect();
        let read = flights.read(pages, &version.key, size, &rest, self.urgency, fetch).await;
        let fetched = read.map_err(|error| error.about(&self.place.url))?;
        let mut brought = fetched.parts.into_iter();
        let parts: Option<Vec<_>> = pinned.into_iter().map(|part| part.or_else(|| brought.next())).collect();
        let parts = parts.ok_or_else(|| self.bug("a read brought too few parts"))?;
        self.cost.came_from(Origin::PageStore);
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        self.spent(stage, began, bytes, fetched.origin_gets, fetched.origin_bytes);
        Ok(parts)
    }

    /// The bytes of all ranges, if they can be read without the origin.
    fn stored(&self, stage: &'static str, version: &FileVersion, ranges: &[Range<u64>]) -> Option<Vec<bytes::Bytes>> {
        let began = Instant::now();
        let parts = ranges.iter().map(|range| self.here(version, range)).collect::<Option<Vec<_>>>()?;
        self.cost.came_from(Origin::PageStore);
        self.spent(stage, began, parts.iter().map(|part| part.len() as u64).sum(), 0, 0);
        Some(parts)
    }

    /// Bytes that come from the origin in the time of a trip.
    fn worth_a_trip(&self) -> u64 {
        let pace = self.place.mount.pace();
        gap_worth_a_trip(pace.trip, pace.bytes_per_second)
    }

    /// Whether reading these along takes less time than the trip that they may save. What is here costs nothing.
    fn are_worth_a_trip(&self, version: &FileVersion, ranges: &[Range<u64>]) -> bool {
        let missing = ranges.iter().filter(|range| self.here(version, range).is_none());
        missing.map(|range| range.end - range.start).sum::<u64>() <= self.worth_a_trip()
    }

    /// What a step wants and not all of which is here, and what is worth reading along. Of what would be read only to
    /// learn where data pages are, and was learned instead, there are no bytes.
    async fn read_cold(
        &self,
        stage: &'static str,
        version: &FileVersion,
        mut ranges: Vec<Range<u64>>,
        along: Vec<Range<u64>>,
    ) -> Result<Vec<(Range<u64>, bytes::Bytes)>, Error> {
        let learner = self.learner.as_ref();
        let names = learner.map(|(_, index)| index.unlearned(&ranges)).unwrap_or_default();
        let unlearned: Vec<ChunkName> = names.iter().flatten().copied().collect();
        let (Some((learnings, index)), false) = (learner, unlearned.is_empty()) else {
            if self.are_worth_a_trip(version, &along) {
                ranges.extend(along);
            }
            let parts = self.fetched(stage, version, &ranges).await?;
            return Ok(ranges.into_iter().zip(parts).collect());
        };
        let is_read = |number: &usize| names[*number].is_none();
        let read: Vec<Range<u64>> = (0..ranges.len()).filter(is_read).map(|number| ranges[number].clone()).collect();
        let of = Subject { place: &self.place, version, index };
        let learning = learnings.learn(of, &unlearned, &self.cost);
        let ((), parts) = try_join(learning, self.fetched(stage, version, &read)).await?;
        if !unlearned.iter().all(|name| index.is_learned(*name)) {
            return Err(self.bug("what was learned is not known"));
        }
        let mut parts = parts.into_iter();
        let part = |name: &Option<ChunkName>| if name.is_some() { None } else { parts.next() };
        let parts: Vec<bytes::Bytes> = names.iter().map(part).map(Option::unwrap_or_default).collect();
        Ok(ranges.into_iter().zip(parts).collect())
    }

    /// A range from the tail, from what is pinned, or from the page store.
    fn here(&self, version: &FileVersion, range: &Range<u64>) -> Option<bytes::Bytes> {
        if let Some(tail) = self.tail.get().filter(|tail| tail.start <= range.start && range.end <= tail.stat.size) {
            let from = usize::try_from(range.start - tail.start).ok()?;
            let to = usize::try_from(range.end - tail.start).ok()?;
            return (from <= to).then(|| tail.bytes.slice(from..to));
        }
        if range.end > version.stat.size {
            return None;
        }
        let pinned = self.store.pinned.read(&version.key, range);
        pinned.or_else(|| self.store.pages.read(&version.key, range.clone()))
    }

    /// Fetches ranges of this version from the origin, within a time of their own.
    fn fetch(&self, version: &FileVersion) -> Fetch<Error> {
        let (place, stat) = (self.place.clone(), Arc::clone(&version.stat));
        Arc::new(move |range| {
            let (place, stat) = (place.clone(), Arc::clone(&stat));
            Box::pin(async move {
                let deadline = Instant::now() + FETCH_TIMEOUT;
                Ok(place.mount.read_range(&place.key, &stat, range, deadline).await?)
            })
        })
    }

    /// The last bytes of a file of unknown version; learns the version.
    async fn read_tail(&self, stage: &'static str, length: u64) -> Result<(), Error> {
        let began = Instant::now();
        let tail = self.place.mount.read_tail(&self.place.key, length, self.deadline).await?;
        let version = FileVersion::new(tail.stat.clone());
        self.store.pages.write(&version.key, tail.stat.size, tail.start, &tail.bytes);
        let bytes = tail.bytes.len() as u64;
        self.spent(stage, began, bytes, 1, bytes);
        // A machine asks for one tail, so nobody else can have set these.
        let _ = self.tail.set(tail);
        let _ = self.version.set(version);
        Ok(())
    }

    fn spent(&self, name: &'static str, began: Instant, bytes: u64, origin_gets: u32, origin_bytes: u64) {
        if origin_gets > 0 || self.cost.is_traced() {
            let file = Some(Arc::clone(&self.place.url));
            self.cost.add(Stage { name, file, began, ended: Instant::now(), bytes, origin_gets, origin_bytes });
        }
    }

    fn bug(&self, what: &'static str) -> Error {
        Error::Bug { subject: self.place.url.to_string(), what }
    }
}

impl Source for Reader {
    type Error = Error;

    async fn read(&self, stage: &'static str, need: &Need) -> Result<Vec<Fed>, Error> {
        if self.version.get().is_none() {
            let tails = need.pieces.iter().filter_map(|piece| match piece {
                Piece::Tail(length) => Some(*length),
                Piece::Range(_) => None,
            });
            self.read_tail(stage, tails.max().unwrap_or(1)).await?;
        }
        let size = self.version.get().map_or(0, |version| version.stat.size);
        let range = |piece: &Piece| match piece {
            Piece::Tail(length) => size.saturating_sub(*length)..size,
            Piece::Range(range) => range.clone(),
        };
        let ranges: Vec<Range<u64>> = need.pieces.iter().map(range).collect();
        let version = self.version.get().ok_or_else(|| self.bug("a file was read and has no version"))?;
        let fed = |range: Range<u64>, bytes| Fed { start: range.start, file_size: size, bytes };
        if stage == INDEX_STAGE
            && let Some(start) = ranges.iter().map(|range| range.start).min()
        {
            self.store.tails.index_began(&self.place.mount, size.saturating_sub(start));
        }
        // What is learned for a search must not end with it, even where all bytes for it are here.
        if stage != LEARNING_STAGE
            && let Some(parts) = self.stored(stage, version, &ranges)
        {
            return Ok(parts.into_iter().zip(ranges).map(|(bytes, range)| fed(range, bytes)).collect());
        }
        let along: Vec<Range<u64>> = need.along.iter().map(range).collect();
        let read = self.read_cold(stage, version, ranges, along).await?;
        Ok(read.into_iter().map(|(range, bytes)| fed(range, bytes)).collect())
    }

    async fn step<M: Machine>(&self, mut machine: M) -> Result<(M, Step<M::Output>), Error> {
        let about = |error| Error::file(&self.place.url, error);
        if machine.work_bytes() <= INLINE_WORK_BYTES {
            #[cfg(test)]
            crate::panics::here(&self.place.url, machine.stage(), false);
            // A panic in here is caught at the border of the request or of the shared task.
            let step = machine.step().map_err(about)?;
            return Ok((machine, step));
        }
        let (name, began) = (machine.stage(), Instant::now());
        #[cfg(test)]
        let url = Arc::clone(&self.place.url);
        let done = tokio::task::spawn_blocking(move || {
            #[cfg(test)]
            crate::panics::here(&url, machine.stage(), true);
            (machine.step(), machine)
        })
        .await;
        let (step, machine) = done.map_err(|failed| match failed.try_into_panic() {
            // Goes on to the border, where it is counted like any other.
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Error::Draining,
        })?;
        if self.cost.is_traced() {
            self.spent(name, began, 0, 0, 0);
        }
        Ok((machine, step.map_err(about)?))
    }
}
