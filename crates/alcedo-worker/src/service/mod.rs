//! Layer 3: the gRPC services and the lookup stream in frames, the only place with proto types.
//!
//! Knows messages, statuses and the order of events on a call. It must not know how a lookup works: each call is
//! checked, given a deadline and a permit, handed to its use case, and its outcome is written down.

mod batch;
mod cluster;
mod convert;
mod failure;
mod files;
mod framed;
mod handles;
mod local;
mod lookup;
mod parts;
mod pins;
mod questions;
mod replies;
mod stream;
mod unread;
mod watching;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use alcedo_lookup::answer::KeyStatus;
use alcedo_lookup::key::Key;
use alcedo_proto::v1::AnswerForm;
use alcedo_proto::v1::cluster_service_server::ClusterServiceServer;
use alcedo_proto::v1::file_service_server::FileServiceServer;
use alcedo_proto::v1::lookup_service_server::LookupServiceServer;
use futures::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tonic::Request;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;

use crate::admission::{Admission, Deadline};
use crate::builds::Builds;
use crate::config::Config;
use crate::cost::Cost;
use crate::error::Error;
use crate::files::Files;
use crate::lookups::{Answer, AtOnce, Lookup, Lookups};
use crate::membership::Membership;
use crate::metrics::{Metrics, Outcome};
use crate::pins::Pins;
use crate::prepared::Asked;
use crate::{shortage, turns};
pub(crate) use framed::serve as serve_frames;
pub(crate) use local::local;
use questions::Question;

/// Largest request: 1,024 keys of about 1 KiB.
const MAX_REQUEST_BYTES: usize = 1 << 20;
/// The header in which a call says how long it may take (gRPC over HTTP/2, "Timeout").
const TIMEOUT_HEADER: &str = "grpc-timeout";
/// Most digits of that header's number.
const MAX_TIMEOUT_DIGITS: usize = 8;

/// What every service of one worker needs. All runtimes share it.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) worker_id: String,
    pub(crate) membership: Membership,
    pub(crate) lookups: Arc<Lookups>,
    pub(crate) files: Files,
    pub(crate) admission: Admission,
    pub(crate) builds: Builds,
    pub(crate) pins: Pins,
    pub(crate) metrics: Arc<Metrics>,
    /// The settings as they were last loaded. What is read from here is what a reload can change.
    pub(crate) settings: RwLock<Arc<Config>>,
    /// The worker was told to stop; it still serves for a moment.
    pub(crate) leaving: AtomicBool,
    /// Set once the worker drains, to the time that is left for it.
    pub(crate) draining: watch::Receiver<Option<Duration>>,
    pub(crate) started: Instant,
}

/// An answer that is not yet a message.
struct Answered {
    answer: Answer,
    cost: Arc<Cost>,
    form: AnswerForm,
}

/// Counts one lookup, however it ends: a call that is dropped in the middle counts as failed.
struct Counted {
    metrics: Arc<Metrics>,
    began: Instant,
    outcome: Outcome,
}

impl Counted {
    fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.lookups_in_flight.up();
        Self { metrics: Arc::clone(metrics), began: Instant::now(), outcome: Outcome::Error }
    }
}

/// A lookup that has come in.
struct Arrived {
    counted: Counted,
    deadline: Deadline,
    /// Its permits, if it has them already.
    permit: Option<OwnedSemaphorePermit>,
    /// It works within the turns of its stream, and has none of its own.
    is_of_stream: bool,
}

impl Arrived {
    fn new(metrics: &Arc<Metrics>, deadline: Deadline) -> Self {
        Self { counted: Counted::new(metrics), deadline, permit: None, is_of_stream: false }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.lookups_in_flight.down();
        self.metrics.lookup_seconds.of(self.outcome).observe(self.began.elapsed());
        self.metrics.lookups_total.up();
        if self.outcome == Outcome::Error {
            self.metrics.lookups_failed.up();
        }
    }
}

impl Door {
    /// The settings as they were last loaded.
    pub(crate) fn settings(&self) -> Arc<Config> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the worker takes work and means to go on doing so.
    pub(crate) fn is_ready(&self) -> bool {
        !self.leaving.load(Ordering::Relaxed) && self.draining.borrow().is_none()
    }

    /// The answer to a lookup, if it is made without waiting. A panic in it is this request's error only.
    fn at_once<T>(
        &self,
        asked: &Asked,
        answer: impl FnOnce(&Lookups, tokio::time::Instant) -> Option<(AtOnce, T)>,
    ) -> Option<Result<(AtOnce, T), Error>> {
        if self.admission.memory_is_short() {
            return None;
        }
        let began = tokio::time::Instant::now();
        let made = std::panic::catch_unwind(AssertUnwindSafe(|| answer(&self.lookups, began)));
        let Ok(made) = made else {
            self.metrics.panics_total.up();
            self.count_failed();
            return Some(Err(Error::Bug { subject: asked.ask.path.clone(), what: "the lookup panicked" }));
        };
        let made = made?;
        let outcome = if made.0.has_rows() { Outcome::Hit } else { Outcome::NotFound };
        self.metrics.lookup_seconds.of(outcome).observe(began.elapsed());
        if made.0.read_keys > 0 {
            self.metrics.hot_rows_misses.add(made.0.read_keys as u64);
        }
        Some(Ok(made))
    }

    /// The same in the form of any other answer, for calls that carry one lookup.
    fn answered_at_once(&self, question: &Question, keys: &Result<Vec<Key>, Error>) -> Option<Result<Answered, Error>> {
        let (asked, keys) = (question.at_once(question.form)?, keys.as_ref().ok()?);
        let outcome = self.at_once(asked, |lookups, now| Some((lookups.answer_at_once(asked, keys, now)?, ())))?;
        Some(outcome.map(|(answer, ())| {
            self.metrics.lookups_total.up();
            self.metrics.hot_rows_hits.add(keys.len().saturating_sub(answer.read_keys) as u64);
            let (answer, cost) = (answer.into_answer(), Arc::new(Cost::new(false)));
            Answered { answer, cost, form: question.form }
        }))
    }

    /// Counts a lookup that failed before it began.
    fn count_failed(&self) {
        drop(Counted::new(&self.metrics));
    }

    /// One lookup from question to answer, by its deadline, within its permits. A panic in it is this request's error
    /// only.
    async fn lookup(
        &self,
        question: Question,
        keys: Result<Vec<Key>, Error>,
        deadline: Deadline,
    ) -> Result<Answered, Error> {
        self.lookup_arrived(question, keys, Arrived::new(&self.metrics, deadline)).await
    }

    /// The same of one that came in before.
    async fn lookup_arrived(
        &self,
        question: Question,
        keys: Result<Vec<Key>, Error>,
        arrived: Arrived,
    ) -> Result<Answered, Error> {
        let Arrived { mut counted, deadline, permit, is_of_stream } = arrived;
        let (keys, form) = (keys?, question.form);
        let cost = Arc::new(Cost::new(question.is_traced));
        let mut lookup = Lookup { asked: question.asked?, keys, sent_pages_bytes: 0 };
        let permit = match permit {
            Some(permit) => permit,
            None => self.admission.admit(lookup.keys.len(), deadline).await?,
        };
        if !is_of_stream {
            let _waits = turns::Waits::new();
            turns::turn().await;
        }
        // Several of a stream may have waited for a permit, and go on in the same turn.
        while is_of_stream && turns::is_tired() {
            tokio::task::yield_now().await;
        }
        if deadline.at <= tokio::time::Instant::now() {
            return Err(deadline.error(&lookup.asked.ask.path));
        }
        shortage::waited(counted.began.elapsed(), self.lookups.pages_wait());
        if question.accepts_pages {
            lookup.sent_pages_bytes = self.lookups.sent_pages_bytes();
        }
        let work = turns::measured(AssertUnwindSafe(self.lookups.answer(&lookup, &cost)).catch_unwind());
        let answer = match tokio::time::timeout_at(deadline.at, work).await {
            Ok(Ok(answer)) => answer?,
            Ok(Err(_)) => {
                self.metrics.panics_total.up();
                return Err(Error::Bug { subject: lookup.asked.ask.path.clone(), what: "the lookup panicked" });
            }
            Err(_) => return Err(deadline.passed(&lookup.asked.ask.path, &cost)),
        };
        drop(permit);
        let found = answer.statuses.iter().any(|status| *status != KeyStatus::NotFound);
        counted.outcome = match (found, cost.origin_gets()) {
            (false, _) => Outcome::NotFound,
            (true, 0) => Outcome::Hit,
            (true, _) => Outcome::Miss,
        };
        Ok(Answered { answer, cost, form })
    }

    /// The end of a lookup: its answer becomes a message, on the task that serves a whole stream or connection. A panic
    /// in it is this request's error only.
    fn encoded<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
            self.metrics.panics_total.up();
            Err(Error::Bug { subject: "an answer".to_owned(), what: "encoding it panicked" })
        })
    }

    /// Other work than lookups, by its deadline and within one permit.
    async fn work<T>(
        &self,
        subject: &str,
        deadline: Deadline,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let _permit = self.admission.admit(1, deadline).await?;
        match tokio::time::timeout_at(deadline.at, AssertUnwindSafe(work).catch_unwind()).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => {
                self.metrics.panics_total.up();
                Err(Error::Bug { subject: subject.to_owned(), what: "the call panicked" })
            }
            Err(_) => Err(deadline.error(subject)),
        }
    }
}

/// All services behind one door; `built_in` is the door for this process' own calls.
pub(crate) fn routes(
    door: &Arc<Door>,
    built_in: &Arc<Door>,
    health: &HealthReporter,
) -> Result<Routes, tonic_reflection::server::Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(alcedo_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let health = tonic_health::server::HealthService::from_health_reporter(health.clone());
    let lookup = lookup::LookupDoor { door: Arc::clone(door), built_in: Arc::clone(built_in) };
    let lookup = LookupServiceServer::new(lookup);
    let files = FileServiceServer::new(files::FileDoor(Arc::clone(door)));
    let cluster = ClusterServiceServer::new(cluster::ClusterDoor(Arc::clone(door)));
    Ok(Routes::new(lookup.max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(files.max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(cluster.max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(tonic_health::pb::health_server::HealthServer::new(health))
        .add_service(reflection().build_v1()?)
        // Python's reflection client, among others, knows only the service's first name.
        .add_service(reflection().build_v1alpha()?))
}

/// The services whose health is told beside the worker's own, the empty name.
pub(crate) const HEALTH_NAMES: [&str; 4] =
    ["", "alcedo.v1.LookupService", "alcedo.v1.FileService", "alcedo.v1.ClusterService"];

/// The time that a call's header gives it.
fn call_timeout<T>(request: &Request<T>) -> Option<Duration> {
    parse_timeout(request.metadata().get(TIMEOUT_HEADER)?.to_str().ok()?)
}

/// `8 digits at most` and a unit; what is malformed counts as not said.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > MAX_TIMEOUT_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_of_calls_are_read_and_nonsense_is_ignored() {
        assert_eq!(parse_timeout("20m"), Some(Duration::from_millis(20)));
        assert_eq!(parse_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        assert_eq!(parse_timeout("7n"), Some(Duration::from_nanos(7)));
        for nonsense in ["", "m", "5", "123456789S", "-1S", "1x", "1ä"] {
            assert_eq!(parse_timeout(nonsense), None, "{nonsense}");
        }
    }
}
