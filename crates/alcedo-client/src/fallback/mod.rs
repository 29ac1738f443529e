//! Lookups without a worker: the same machines over the origin itself.
//!
//! Knows the client's own mounts and a few file indexes. It must not know workers; the client comes here when none of
//! them accepted a lookup. An answer has the same rows as a worker's, only later: nothing is cached but indexes, and a
//! lookup may ask fewer files.

mod direct;
mod gate;
mod source;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use alcedo_lookup::answer::Form;
use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::limits::Limits;
use alcedo_lookup::search::Query;
use alcedo_origin::{ErrorKind, FileStat, MountConfig, Mounts, OriginLimits};
use alcedo_proto::v1 as pb;
use moka::sync::Cache;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use crate::answer::{Answer, Trace};
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Reason};
use crate::request::key_of;
pub use gate::FallbackBudget;
use gate::Gate;
use source::{Cost, Failure};

/// What stands for the worker in an answer that none gave; see [`Answer::worker`].
pub(crate) const ORIGIN: &str = "origin";

/// Bytes of file indexes that are kept: thousands of usual files, and little beside an embedding service.
const INDEX_BYTES: u64 = 64 << 20;
/// What an index costs in the cache beside its own weight.
const INDEX_OVERHEAD_BYTES: u64 = 512;
/// How long one who is turned away should wait: until then one lookup goes through in any case.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A file that was opened here.
#[derive(Debug, Clone)]
struct Opened {
    stat: FileStat,
    index: Arc<FileIndex>,
    /// When the origin last said that this is the current version.
    checked: Instant,
}

/// The way past the workers of one client, shared by its clones.
#[derive(Debug)]
pub(crate) struct Fallback {
    configs: Vec<MountConfig>,
    /// Opened by the first lookup that comes here, because opening may read credentials.
    mounts: OnceCell<Mounts>,
    indexes: Cache<Arc<str>, Opened>,
    gate: Gate,
    limits: Arc<Limits>,
}

impl Fallback {
    pub(crate) fn new(configs: Vec<MountConfig>, budget: FallbackBudget) -> Self {
        let weigh = |url: &Arc<str>, opened: &Opened| {
            let weight = opened.index.weight() + url.len() as u64 + INDEX_OVERHEAD_BYTES;
            u32::try_from(weight).unwrap_or(u32::MAX)
        };
        let indexes = Cache::builder().max_capacity(INDEX_BYTES).weigher(weigh).build();
        Self { configs, mounts: OnceCell::new(), indexes, gate: Gate::new(budget), limits: Arc::default() }
    }

    /// A lookup begins; the bound is a part of them.
    pub(crate) fn count(&self) {
        self.gate.count();
    }

    /// Whether what workers said leaves only the origin: nobody is there. One that answers, be it that it is busy or
    /// that the origin is down, is there.
    pub(crate) fn is_for(error: &Error) -> bool {
        error.kind == Kind::Unavailable && matches!(error.reason, None | Some(Reason::NoWorker))
    }

    /// Answers a message that no worker accepted because of `down`.
    ///
    /// # Errors
    /// Those that a worker gives; `Exhausted` over the budget.
    pub(crate) async fn lookup(
        &self,
        message: &pb::LookupRequest,
        deadline: Deadline,
        down: &Error,
    ) -> Result<Answer, Error> {
        let Some(_permit) = self.gate.enter() else { return Err(self.over_budget(down)) };
        tracing::debug!(path = message.path, %down, "answered from the origin directly");
        let began = Instant::now();
        let answering = self.answer(message, deadline);
        let late = |_| deadline.passed(format_args!("reading the origin directly ({down})"));
        let mut answer = timeout_at(deadline.at(), answering).await.map_err(late)??;
        answer.trace = message.trace.then(|| Trace {
            total_us: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
            notes: vec![format!("answered from the origin directly: {down}")],
            ..Trace::default()
        });
        Ok(answer)
    }

    async fn answer(&self, message: &pb::LookupRequest, deadline: Deadline) -> Result<Answer, Error> {
        let mounts = self.mounts().await?;
        let place = mounts.resolve(&message.path).map_err(|error| origin_error(&error))?;
        let form = match message.form() {
            pb::AnswerForm::ArrowIpc => Form::ArrowIpc,
            // Data pages become rows on this side in any case.
            _ => Form::CompactRows,
        };
        let query = Arc::new(Query {
            key_column: (!message.key_column.is_empty()).then(|| message.key_column.clone()),
            keys: message.keys.iter().filter_map(key_of).collect(),
            columns: (!message.columns.is_empty()).then(|| message.columns.clone()),
            form,
            row_limit: (message.row_limit > 0).then_some(message.row_limit),
        });
        let cost = Cost::default();
        let direct = direct::Direct { fallback: self, query, deadline: deadline.at(), cost: &cost };
        let mut answer = Box::pin(direct.answer(&place)).await?;
        answer.origin_gets = cost.gets.load(Ordering::Relaxed);
        answer.origin_bytes = cost.bytes.load(Ordering::Relaxed);
        Ok(answer)
    }

    async fn mounts(&self) -> Result<&Mounts, Error> {
        let open = || async {
            let configs = self.configs.clone();
            // Opening reads files: credentials, and the directories of local mounts.
            let opened = tokio::task::spawn_blocking(move || Mounts::open(&configs, OriginLimits::default())).await;
            let opened = opened.map_err(|_| Error::internal("the runtime ended while the mounts were opened"))?;
            opened.map_err(|error| origin_error(&error))
        };
        self.mounts.get_or_try_init(open).await
    }

    fn over_budget(&self, down: &Error) -> Error {
        let FallbackBudget { concurrent, percent } = self.gate.budget();
        let message = format!(
            "{down}; the fallback to the origin is at its bound ({concurrent} lookups at once, {percent} % of the last \
             minute's)"
        );
        let error = Error::new(Kind::Exhausted, message).with_reason(Reason::Overloaded);
        Error { retry_after: Some(RETRY_AFTER), ..error }
    }
}

/// The error of a file, with the kind and reason that a worker gives.
fn error_of(url: &str, failure: &Failure) -> Error {
    match failure {
        Failure::Origin(error) => origin_error(error),
        Failure::File(error) => crate::file_error::error(url, error),
        Failure::Died => Error::internal(format!("{url}: reading it ended without an answer")).with_subject(url),
    }
}

fn origin_error(error: &alcedo_origin::Error) -> Error {
    let (kind, reason) = match error.kind() {
        ErrorKind::BadPath => (Kind::Invalid, Reason::BadPath),
        ErrorKind::NoSuchMount => (Kind::NotFound, Reason::NoSuchMount),
        ErrorKind::NotFound => (Kind::NotFound, Reason::NoSuchFile),
        ErrorKind::Denied => (Kind::Denied, Reason::OriginDenied),
        ErrorKind::VersionChanged => (Kind::VersionChanged, Reason::VersionChanged),
        ErrorKind::Unavailable | ErrorKind::Config => (Kind::Unavailable, Reason::OriginUnavailable),
        ErrorKind::Deadline => (Kind::Deadline, Reason::Deadline),
        ErrorKind::TooLarge => (Kind::Invalid, Reason::AnswerTooLarge),
        ErrorKind::BadRange => (Kind::Invalid, Reason::BadRequest),
        _ => (Kind::Internal, Reason::Bug),
    };
    Error::new(kind, error.to_string()).with_reason(reason)
}
