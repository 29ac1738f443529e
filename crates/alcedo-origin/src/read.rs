//! Reading files: stat, last bytes, ranges. Knows attempts, deadlines, preconditions and exact lengths; must not know
//! what the bytes mean or who keeps them.
//!
//! The library is trusted with signing and parsing only. It does not compare a body's length with what was asked for
//! and it may retry for minutes; so every answer is measured here, and every attempt is counted and timed here.

use crate::error::{Error, Failure};
use crate::limits::BUFFER_UNIT_BYTES;
use crate::mount::{Counts, Mount, Scheme};
use crate::place::join;
use crate::version::FileStat;
use bytes::Bytes;
use futures::StreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore};
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// The last bytes of a file, with the version that they belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// The file as this answer describes it.
    pub stat: FileStat,
    /// Offset of the first of `bytes` in the file.
    pub start: u64,
    /// The file's bytes from `start` to its end: `min(max_bytes, size)` of them.
    pub bytes: Bytes,
}

/// A call's turn and room, given back when it ends.
struct Admission<'m> {
    _room: SemaphorePermit<'m>,
    _turn: SemaphorePermit<'m>,
}

impl Mount {
    /// What the origin says about a file now: one HEAD.
    ///
    /// # Errors
    /// See [`Error`]; among them `NotFound`, `Denied`, `Unavailable`, `Deadline`.
    pub async fn stat(&self, key: &Path, deadline: Instant) -> Result<FileStat, Error> {
        let (url, location) = self.locate(key)?;
        let (url, location) = (&url, &location);
        self.attempts(url, 0, deadline, |_| async move {
            Ok(FileStat::of(Arc::clone(url), &self.head(url, location).await?))
        })
        .await
    }

    /// The last `max_bytes` of a file (at least one byte is asked for) and what the file is: one GET of a suffix,
    /// without a HEAD before it. Azure has no suffixes, so there it is a HEAD and a conditional GET. An empty file
    /// gives an empty tail; S3 answers 416 there, which costs one HEAD more.
    ///
    /// # Errors
    /// See [`Error`]; among them `NotFound`, `Denied`, `Unavailable`, `Deadline`, `TooLarge`.
    pub async fn read_tail(&self, key: &Path, max_bytes: u64, deadline: Instant) -> Result<Tail, Error> {
        let (url, location) = self.locate(key)?;
        let (url, location) = (&url, &location);
        let max_bytes = max_bytes.max(1);
        let mut has_suffixes = self.scheme() != Scheme::Azure;
        self.attempts(url, max_bytes, deadline, move |last: Option<&Failure>| {
            // Some servers answer a suffix longer than the file, or any suffix, with 200 or 416: ask them in another
            // way.
            has_suffixes = has_suffixes && !matches!(last, Some(Failure::Odd(_)));
            let has_suffixes = has_suffixes;
            async move {
                if has_suffixes {
                    match self.suffix(url, location, max_bytes).await {
                        Err(Failure::Unsatisfiable) => {}
                        other => return other,
                    }
                }
                self.head_and_tail(url, location, max_bytes).await
            }
        })
        .await
    }

    /// Exactly the bytes of `range` of exactly the version that `stat` describes: one GET with If-Match, whose answer
    /// must have the same version and the right length. An empty range costs nothing.
    ///
    /// # Errors
    /// [`Error::VersionChanged`] if the file is another one now; [`Error::BadRange`] if the range does not lie in it;
    /// otherwise as for [`Mount::read_tail`].
    pub async fn read_range(
        &self,
        key: &Path,
        stat: &FileStat,
        range: Range<u64>,
        deadline: Instant,
    ) -> Result<Bytes, Error> {
        let (url, location) = self.locate(key)?;
        if range.start > range.end || range.end > stat.size {
            return Err(Error::BadRange { url, start: range.start, end: range.end, size: stat.size });
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let (url, location, range) = (&url, &location, &range);
        self.attempts(url, range.end - range.start, deadline, |_| self.range(url, location, stat, range)).await
    }

    /// One GET of a suffix.
    async fn suffix(&self, url: &Arc<str>, location: &Path, max_bytes: u64) -> Result<Tail, Failure> {
        let options = GetOptions { range: Some(GetRange::Suffix(max_bytes)), ..GetOptions::default() };
        let result = self.get(url, location, options).await?;
        let stat = FileStat::of(Arc::clone(url), &result.meta);
        let start = stat.size.saturating_sub(max_bytes);
        let bytes = self.body(url, result, start..stat.size).await?;
        Ok(Tail { stat, start, bytes })
    }

    /// A HEAD and a GET of what it says are the last bytes.
    async fn head_and_tail(&self, url: &Arc<str>, location: &Path, max_bytes: u64) -> Result<Tail, Failure> {
        let stat = FileStat::of(Arc::clone(url), &self.head(url, location).await?);
        let start = stat.size.saturating_sub(max_bytes);
        if stat.size == 0 {
            return Ok(Tail { stat, start, bytes: Bytes::new() });
        }
        match self.range(url, location, &stat, &(start..stat.size)).await {
            Ok(bytes) => Ok(Tail { stat, start, bytes }),
            // The caller has named no version yet, so one that came between the two requests is as good.
            Err(Failure::Final(Error::VersionChanged { .. })) => {
                Err(Failure::passing("the file was overwritten between two requests"))
            }
            Err(failure) => Err(failure),
        }
    }

    /// One conditional GET of a range that is not empty.
    async fn range(
        &self,
        url: &Arc<str>,
        location: &Path,
        stat: &FileStat,
        range: &Range<u64>,
    ) -> Result<Bytes, Failure> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            if_match: stat.etag.clone(),
            ..GetOptions::default()
        };
        let result = self.get(url, location, options).await.map_err(|failure| match failure {
            // The range lies in the version that was named, so another, shorter one has answered.
            Failure::Unsatisfiable => changed(url, "it is shorter now"),
            other => other,
        })?;
        let found = FileStat::of(Arc::clone(url), &result.meta);
        // A store that ignores If-Match must not get away with it.
        if found.version != stat.version || found.size != stat.size {
            return Err(changed(url, "the answer has another version or size than the one asked for"));
        }
        self.body(url, result, range.clone()).await
    }

    /// One HEAD.
    async fn head(&self, url: &Arc<str>, location: &Path) -> Result<ObjectMeta, Failure> {
        Counts::add(&self.counts.heads, 1);
        let options = GetOptions { head: true, ..GetOptions::default() };
        let result = self.patiently(self.store.get_opts(location, options)).await?;
        result.map(|found| found.meta).map_err(|e| Failure::sort(self.name(), url, &e))
    }

    /// One GET, up to its headers.
    async fn get(&self, url: &Arc<str>, location: &Path, options: GetOptions) -> Result<GetResult, Failure> {
        Counts::add(&self.counts.gets, 1);
        let asked = Instant::now();
        let result = self.patiently(self.store.get_opts(location, options)).await?;
        if result.is_ok() {
            self.meter.first_byte(asked.elapsed());
        }
        result.map_err(|e| Failure::sort(self.name(), url, &e))
    }

    /// The body of an answer, which must be the bytes of `range`: not fewer, not more, from nowhere else.
    async fn body(&self, url: &Arc<str>, result: GetResult, range: Range<u64>) -> Result<Bytes, Failure> {
        if result.range != range {
            let (is, wanted) = (&result.range, &range);
            let why =
                format!("the answer is bytes {}..{} instead of {}..{}", is.start, is.end, wanted.start, wanted.end);
            return Err(Failure::Odd(why.into()));
        }
        let Ok(wanted) = usize::try_from(range.end - range.start) else {
            return Err(Failure::Odd("the file is too large for this machine".into()));
        };
        // One exact allocation of our own: pieces of the network's buffers would keep much larger ones alive in caches.
        let mut bytes = Vec::with_capacity(wanted);
        let began = Instant::now();
        let mut stream = result.into_stream();
        while let Some(chunk) = self.patiently(stream.next()).await? {
            let chunk = chunk.map_err(|e| Failure::sort(self.name(), url, &e))?;
            Counts::add(&self.counts.bytes, chunk.len() as u64);
            if chunk.len() > wanted - bytes.len() {
                return Err(Failure::passing(format!("the answer's body is longer than the {wanted} bytes asked for")));
            }
            bytes.extend_from_slice(&chunk);
        }
        if bytes.len() != wanted {
            let had = bytes.len();
            return Err(Failure::passing(format!("the answer's body has {had} bytes instead of {wanted}")));
        }
        self.meter.body(wanted as u64, began.elapsed());
        Ok(bytes.into())
    }

    /// The next sign of life of the origin, or a failure after the allowed silence.
    pub(crate) async fn patiently<T>(&self, sign: impl Future<Output = T>) -> Result<T, Failure> {
        let silence = self.limits.attempt_timeout;
        match timeout(silence, sign).await {
            Ok(sign) => Ok(sign),
            Err(_) => {
                let silence = humantime::format_duration(silence);
                Err(Failure::passing(format!("the origin was silent for {silence} (limits.attempt_timeout)")))
            }
        }
    }

    /// Runs attempts until one gives a value, a failure is final, the tries are used up or the deadline passes. `once`
    /// is told how the attempt before it failed.
    pub(crate) async fn attempts<T, F, A>(
        &self,
        url: &Arc<str>,
        bytes: u64,
        deadline: Instant,
        mut once: F,
    ) -> Result<T, Error>
    where
        F: FnMut(Option<&Failure>) -> A,
        A: Future<Output = Result<T, Failure>>,
    {
        if Instant::now() >= deadline {
            return Err(late(url, None, "before anything was asked"));
        }
        let _admission = self.admit(url, bytes, deadline).await?;
        let mut last: Option<Failure> = None;
        for attempt in 1..=self.limits.tries {
            if attempt > 1 {
                Counts::add(&self.counts.retries, 1);
            }
            let failure = match timeout_at(deadline, once(last.as_ref())).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(failure)) => failure,
                Err(_) => {
                    Counts::add(&self.counts.errors, 1);
                    return Err(late(url, last, "waiting for the origin's answer"));
                }
            };
            if failure.is_the_origins() {
                Counts::add(&self.counts.errors, 1);
            }
            let is_final = matches!(failure, Failure::Final(_) | Failure::Unsatisfiable);
            if is_final || attempt == self.limits.tries {
                return Err(failure.into_error(url));
            }
            tracing::debug!(%url, ?failure, "the origin is asked again");
            last = Some(failure);
            if Instant::now() + self.limits.retry_pause >= deadline {
                return Err(late(url, last, "no time for another attempt"));
            }
            sleep(self.limits.retry_pause).await;
        }
        Err(last.unwrap_or(Failure::Unsatisfiable).into_error(url))
    }

    /// Waits for room and for a turn, at most until the deadline.
    async fn admit(&self, url: &Arc<str>, bytes: u64, deadline: Instant) -> Result<Admission<'_>, Error> {
        let limit = self.limits.buffered_bytes;
        let too_large = || Error::TooLarge { url: Arc::clone(url), bytes, limit };
        if bytes > limit / BUFFER_UNIT_BYTES * BUFFER_UNIT_BYTES {
            return Err(too_large());
        }
        let units = u32::try_from(bytes.div_ceil(BUFFER_UNIT_BYTES)).map_err(|_| too_large())?;
        let both = async {
            // Room first: a call that waits for memory must not hold a turn that a small one could use.
            let room = self.room.acquire_many(units).await;
            let turn = self.turns.acquire().await;
            room.and_then(|room| Ok(Admission { _room: room, _turn: turn? }))
        };
        match timeout_at(deadline, both).await {
            Ok(Ok(admission)) => Ok(admission),
            Ok(Err(_)) => Err(Error::Unavailable { url: Arc::clone(url), cause: "the mount is closed".into() }),
            Err(_) => {
                Counts::add(&self.counts.errors, 1);
                let turns = self.limits.concurrent_gets;
                Err(late(
                    url,
                    None,
                    &format!("waiting for one of {turns} turns (limits.concurrent_gets) or for buffer"),
                ))
            }
        }
    }

    /// A key's canonical URL and its place in the store.
    fn locate(&self, key: &Path) -> Result<(Arc<str>, Path), Error> {
        let url = self.url_of(key);
        if key.is_root() {
            return Err(Error::bad_path(&url, "it names the mount itself, not a file in it"));
        }
        Ok((url, join(&self.prefix, key)))
    }
}

/// The error for a call whose time is over, with what was known by then.
fn late(url: &Arc<str>, last: Option<Failure>, doing: &str) -> Error {
    let cause = match last {
        Some(Failure::Passing(cause) | Failure::Odd(cause)) => format!("{doing}, after: {cause}"),
        _ => doing.to_owned(),
    };
    Error::Deadline { url: Arc::clone(url), cause: cause.into() }
}

/// The failure for a file that is another one now.
fn changed(url: &Arc<str>, cause: &str) -> Failure {
    Failure::Final(Error::VersionChanged { url: Arc::clone(url), cause: cause.into() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::fake::{CANARY, Does, Fake, LATE};
    use crate::limits::OriginLimits;
    use crate::mount::{CountsSnapshot, Freshness};
    use crate::pace::Pace;
    use object_store::{ObjectStoreExt, PutPayload};
    use std::time::Duration;

    const BODY: &[u8] = b"0123456789abcdefghij";

    /// A mount over a fake with the file `p/a`, which the mount calls `a`.
    async fn mount_as(scheme: &str, body: &[u8], script: &[Does], limits: OriginLimits) -> (Mount, Arc<Fake>) {
        let fake = Arc::new(Fake::with("p/a", body, script).await);
        let store = Arc::clone(&fake) as Arc<dyn ObjectStore>;
        let mount = Mount::with_store("m", &format!("{scheme}://b/p"), store, Freshness::default(), limits).unwrap();
        (mount, fake)
    }

    async fn scripted(script: &[Does]) -> (Mount, Arc<Fake>) {
        mount_as("s3", BODY, script, OriginLimits::default()).await
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn key() -> Path {
        Path::from("a")
    }

    /// Expects exactly these counts of GETs, HEADs, retries and errors.
    fn expect(mount: &Mount, gets: u64, heads: u64, retries: u64, errors: u64) {
        let counts = CountsSnapshot { bytes: 0, lists: 0, ..mount.counts() };
        assert_eq!(counts, CountsSnapshot { gets, heads, retries, errors, ..CountsSnapshot::default() });
    }

    async fn overwrite(fake: &Fake, bytes: &'static [u8]) {
        fake.files.put(&Path::from("p/a"), PutPayload::from_static(bytes)).await.unwrap();
    }

    #[tokio::test]
    async fn a_tail_is_one_get_and_a_range_is_one_more() {
        let (mount, _) = scripted(&[]).await;
        let tail = mount.read_tail(&key(), 6, soon()).await.unwrap();
        assert_eq!((tail.start, &tail.bytes[..], &*tail.stat.url), (14, &b"efghij"[..], "s3://b/p/a"));
        assert_eq!(tail.stat.size, 20);
        expect(&mount, 1, 0, 0, 0);
        assert_eq!(mount.read_range(&key(), &tail.stat, 3..7, soon()).await.unwrap(), &b"3456"[..]);
        expect(&mount, 2, 0, 0, 0);
        assert_eq!(mount.counts().bytes, 10);
        assert_eq!(mount.stat(&key(), soon()).await.unwrap(), tail.stat);
        expect(&mount, 2, 1, 0, 0);
        let whole = mount.read_tail(&key(), 1000, soon()).await.unwrap();
        assert_eq!((whole.start, &whole.bytes[..]), (0, BODY));
    }

    #[tokio::test]
    async fn calls_can_run_in_tasks_of_their_own() {
        let (mount, _) = scripted(&[]).await;
        let mount = Arc::new(mount);
        let task = tokio::spawn(async move {
            let stat = mount.read_tail(&key(), 6, soon()).await?.stat;
            mount.list(&Path::ROOT, true, 5, soon()).await?;
            mount.stat(&key(), soon()).await?;
            mount.read_range(&key(), &stat, 0..2, soon()).await
        });
        assert_eq!(task.await.unwrap().unwrap(), &b"01"[..]);
    }

    #[tokio::test]
    async fn azure_is_asked_with_a_head_first() {
        let (mount, _) = mount_as("az", BODY, &[], OriginLimits::default()).await;
        let tail = mount.read_tail(&key(), 6, soon()).await.unwrap();
        assert_eq!((tail.start, &tail.bytes[..]), (14, &b"efghij"[..]));
        expect(&mount, 1, 1, 0, 0);
    }

    #[tokio::test]
    async fn an_empty_file_has_an_empty_tail() {
        for (scheme, gets) in [("s3", 1), ("az", 0)] {
            let (mount, _) = mount_as(scheme, b"", &[], OriginLimits::default()).await;
            let tail = mount.read_tail(&key(), 6, soon()).await.unwrap();
            assert_eq!((tail.start, tail.stat.size, tail.bytes.len()), (0, 0, 0));
            expect(&mount, gets, 1, 0, 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_try_cures_passing_failures() {
        use Does::*;
        for does in [Short, Long, Status(500), Status(503), Status(429), Break, BreakBody, Stall, StallBody, OtherRange]
        {
            let (mount, fake) = scripted(&[does]).await;
            let tail = mount.read_tail(&key(), 6, soon()).await.unwrap();
            assert_eq!(&tail.bytes[..], b"efghij", "{does:?}");
            let counts = mount.counts();
            assert_eq!((counts.gets, counts.retries, counts.errors, fake.left()), (2, 1, 1, 0), "{does:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn two_failures_are_unavailable_and_no_third_is_asked_for() {
        use Does::*;
        for does in [Short, Long, Status(500), Break, BreakBody, Stall, StallBody, OtherRange, Odd] {
            let (mount, _) = scripted(&[Answer, does, does, does]).await;
            let stat = mount.stat(&key(), soon()).await.unwrap();
            let error = mount.read_range(&key(), &stat, 2..9, soon()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{does:?}: {error}");
            expect(&mount, 2, 1, 1, 2);
            // A body that goes on is cut off where it should have ended.
            assert!(mount.counts().bytes <= 2 * 8, "{does:?}: {}", mount.counts().bytes);
            let shown = format!("{error} {error:?}");
            assert!(shown.contains("s3://b/p/a") && !shown.contains(CANARY), "{shown}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_measured_and_failures_are_not() {
        let (mount, _) = scripted(&[Does::Late, Does::Status(500), Does::Late, Does::Late]).await;
        let usual = mount.pace();
        for _ in 0..3 {
            mount.read_tail(&key(), 6, soon()).await.unwrap();
        }
        assert_eq!(mount.pace(), usual, "three answers and a failure are too few");
        let (mount, _) = scripted(&[Does::Late; 4]).await;
        for _ in 0..4 {
            mount.read_tail(&key(), 6, soon()).await.unwrap();
        }
        assert_eq!(mount.pace(), Pace { trip: LATE, ..usual }, "twenty bytes say nothing about the rate");
    }

    #[tokio::test]
    async fn tries_are_what_the_limit_says() {
        let limits = OriginLimits { tries: 1, ..OriginLimits::default() };
        let (mount, _) = mount_as("s3", BODY, &[Does::Status(500)], limits).await;
        assert_eq!(mount.read_tail(&key(), 6, soon()).await.unwrap_err().kind(), ErrorKind::Unavailable);
        expect(&mount, 1, 0, 0, 1);
    }

    #[tokio::test]
    async fn an_answer_that_does_not_fit_is_asked_for_in_another_way() {
        let (mount, _) = scripted(&[Does::Odd]).await;
        let tail = mount.read_tail(&key(), 6, soon()).await.unwrap();
        assert_eq!(&tail.bytes[..], b"efghij");
        expect(&mount, 2, 1, 1, 1);
    }

    #[tokio::test]
    async fn refusals_are_final() {
        for (does, kind) in [
            (Does::Forbid, ErrorKind::Denied),
            (Does::Status(403), ErrorKind::Denied),
            (Does::Status(401), ErrorKind::Denied),
            (Does::Status(301), ErrorKind::Config),
            (Does::Status(400), ErrorKind::Config),
        ] {
            let (mount, _) = scripted(&[does]).await;
            let error = mount.read_tail(&key(), 6, soon()).await.unwrap_err();
            assert_eq!(error.kind(), kind);
            assert!(!format!("{error} {error:?}").contains(CANARY));
            expect(&mount, 1, 0, 0, 1);
        }
        let (mount, _) = scripted(&[Does::Forbid]).await;
        let error = mount.read_tail(&key(), 6, soon()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "s3://b/p/a: the origin refused access: check the mount's credentials and the bucket policy"
        );
    }

    #[tokio::test]
    async fn a_missing_file_is_not_found_and_no_fault_of_the_origin() {
        let (mount, _) = scripted(&[]).await;
        let gone = Path::from("gone");
        let error = mount.read_tail(&gone, 6, soon()).await.unwrap_err();
        assert_eq!(error, Error::NotFound { url: "s3://b/p/gone".into() });
        assert_eq!(mount.stat(&gone, soon()).await.unwrap_err().kind(), ErrorKind::NotFound);
        expect(&mount, 1, 1, 0, 0);
    }

    #[tokio::test]
    async fn another_version_never_answers() {
        // Overwritten with the same size; with a smaller one, so that the range no longer exists; and by a store that
        // ignores If-Match or names another tag than the one that matched.
        for (body, does) in [
            (&b"jihgfedcba9876543210"[..], Does::Answer),
            (b"0", Does::Answer),
            (b"jihgfedcba9876543210", Does::IgnoreMatch),
            (b"0123456789abcdefghij-and-more", Does::IgnoreMatch),
        ] {
            let (mount, fake) = scripted(&[Does::Answer, does, does]).await;
            let stat = mount.stat(&key(), soon()).await.unwrap();
            overwrite(&fake, body).await;
            let error = mount.read_range(&key(), &stat, 2..9, soon()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::VersionChanged, "{body:?} {does:?}: {error}");
            expect(&mount, 1, 1, 0, 0);
        }
        let (mount, _) = scripted(&[Does::Answer, Does::OtherTag]).await;
        let stat = mount.stat(&key(), soon()).await.unwrap();
        let error = mount.read_range(&key(), &stat, 2..9, soon()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::VersionChanged);
        let (mount, _) = scripted(&[Does::Answer, Does::Status(416)]).await;
        let stat = mount.stat(&key(), soon()).await.unwrap();
        let error = mount.read_range(&key(), &stat, 2..9, soon()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::VersionChanged);
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_holds_whatever_the_origin_does() {
        for does in [Does::Stall, Does::StallBody] {
            let (mount, _) = scripted(&[does]).await;
            let start = Instant::now();
            let deadline = start + Duration::from_millis(300);
            let error = mount.read_tail(&key(), 6, deadline).await.unwrap_err();
            assert_eq!((error.kind(), start.elapsed()), (ErrorKind::Deadline, Duration::from_millis(300)));
            expect(&mount, 1, 0, 0, 1);
        }
        // Nothing is asked for a call whose time is already over.
        let (mount, _) = scripted(&[]).await;
        let error = mount.read_tail(&key(), 6, Instant::now()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Deadline);
        expect(&mount, 0, 0, 0, 0);
        // No second try is begun that could not end.
        let (mount, _) = scripted(&[Does::Status(503)]).await;
        let error = mount.read_tail(&key(), 6, Instant::now() + Duration::from_millis(10)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Deadline);
        assert!(error.to_string().contains("503"), "{error}");
        expect(&mount, 1, 0, 0, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_turn_or_for_room_counts_against_the_deadline() {
        let narrow = OriginLimits { concurrent_gets: 1, ..OriginLimits::default() };
        let small = OriginLimits { buffered_bytes: 8192, ..OriginLimits::default() };
        for (limits, bytes) in [(narrow, 6), (small, 8192)] {
            let (mount, _) = mount_as("s3", BODY, &[Does::Stall], limits).await;
            let soon = Instant::now() + Duration::from_secs(1);
            let key = key();
            let (first, second) = tokio::join!(
                mount.read_tail(&key, bytes, soon + Duration::from_secs(60)),
                mount.read_tail(&key, bytes, soon)
            );
            // The first is cured by its second try; the second never had a turn.
            assert_eq!(first.unwrap().stat.size, 20);
            assert_eq!(second.unwrap_err().kind(), ErrorKind::Deadline);
            assert_eq!(mount.counts().gets, 2);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_is_refused_without_asking() {
        let limits = OriginLimits { buffered_bytes: 8192, ..OriginLimits::default() };
        let (mount, _) = mount_as("s3", BODY, &[], limits).await;
        let stat = mount.stat(&key(), soon()).await.unwrap();
        let kind = |result: Result<Bytes, Error>| result.unwrap_err().kind();
        assert_eq!(kind(mount.read_range(&key(), &stat, 2..21, soon()).await), ErrorKind::BadRange);
        #[expect(clippy::reversed_empty_ranges)]
        let backwards = 9..2;
        assert_eq!(kind(mount.read_range(&key(), &stat, backwards, soon()).await), ErrorKind::BadRange);
        assert_eq!(kind(mount.read_range(&key(), &stat, u64::MAX..u64::MAX, soon()).await), ErrorKind::BadRange);
        assert_eq!(mount.read_tail(&key(), 8193, soon()).await.unwrap_err().kind(), ErrorKind::TooLarge);
        assert_eq!(mount.read_tail(&Path::ROOT, 6, soon()).await.unwrap_err().kind(), ErrorKind::BadPath);
        assert!(mount.read_range(&key(), &stat, 4..4, soon()).await.unwrap().is_empty());
        expect(&mount, 0, 1, 0, 0);
    }
}
