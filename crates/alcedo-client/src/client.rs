//! The client and its builder.
//!
//! Knows the settings and their bounds, and hands every call to routing. It must not know frames or rows.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use alcedo_cluster::{DEFAULT_WEIGHT, MemberError};
use futures::StreamExt as _;

use crate::answer::Answer;
use crate::budget::Budget;
use crate::cluster::{ClusterView, Member, WorkerStatus};
use crate::deadline::Deadline;
use crate::ending::CallError;
use crate::endpoints::Endpoints;
use crate::error::Error;
#[cfg(feature = "fallback")]
use crate::fallback::{Fallback, FallbackBudget};
use crate::kept_pages::{DEFAULT_DECODED_PAGES_BYTES, DecodedPagesUse, KeptPages};
use crate::local::Local;
use crate::lookup::Lookup;
use crate::routing::Routing;
use crate::transport::{MAX_SOCKET_PATH_BYTES, Reach, UNIX, Worker};
use crate::tries::Purse;

/// Deadline of a call where neither the builder nor the call says one.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(1);
/// Most connections to one worker. One carries hundreds of thousands of lookups a second; a few more use more cores.
pub const MAX_CONNECTIONS_PER_WORKER: usize = 64;
/// How many workers are asked at once for what each must say for itself.
const ASKED_AT_ONCE: usize = 32;

/// A client of one cluster. Cloning it is cheap, and all clones share the connections.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) routing: Arc<Routing>,
    pub(crate) deadline: Duration,
    /// The worker that answers in this process.
    pub(crate) local: Option<Local>,
    pub(crate) pages: KeptPages,
    #[cfg(feature = "fallback")]
    fallback: Option<Arc<Fallback>>,
}

/// Settings of a [`Client`]; see [`Client::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    endpoints: Vec<String>,
    members_file: Option<PathBuf>,
    local: Option<Local>,
    deadline: Duration,
    connections_per_worker: usize,
    frames: bool,
    retries: Budget,
    hedges: Budget,
    accept_pages: Option<bool>,
    decoded_pages_bytes: u64,
    #[cfg(feature = "fallback")]
    mounts: Vec<alcedo_origin::MountConfig>,
    #[cfg(feature = "fallback")]
    fallback: FallbackBudget,
}

impl Client {
    /// Settings for a new client; only the endpoints are needed.
    pub fn builder() -> Builder {
        Builder {
            endpoints: Vec::new(),
            members_file: None,
            local: None,
            deadline: DEFAULT_DEADLINE,
            connections_per_worker: 1,
            frames: true,
            retries: Budget::RETRIES,
            hedges: Budget::HEDGES,
            accept_pages: None,
            decoded_pages_bytes: DEFAULT_DECODED_PAGES_BYTES,
            #[cfg(feature = "fallback")]
            mounts: Vec::new(),
            #[cfg(feature = "fallback")]
            fallback: FallbackBudget::default(),
        }
    }

    /// The same client with another deadline per call; the connections are shared.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// A lookup in a file or in all files below a prefix. It starts when it is awaited.
    ///
    /// `path` is `mount/dir/file.parquet`, or the URL that the mount stands for; a prefix ends with `/` or names a
    /// directory.
    pub fn lookup(&self, path: impl Into<String>) -> Lookup {
        Lookup::new(self.clone(), path.into())
    }

    /// What is kept of the data pages that workers sent.
    pub fn decoded_pages(&self) -> DecodedPagesUse {
        self.pages.usage()
    }

    /// Members, ring and mounts, read from a worker now.
    ///
    /// # Errors
    /// No worker answered.
    pub async fn cluster(&self) -> Result<ClusterView, Error> {
        let deadline = self.start(self.deadline)?;
        Ok(self.routing.read_view(deadline).await?.cluster.clone())
    }

    /// How every member is doing, in the order of the members; the endpoints where no ring is known.
    ///
    /// # Errors
    /// No worker told who the members are. A single member's failure is in its place of the list.
    pub async fn status(&self) -> Result<Vec<(Member, Result<WorkerStatus, Error>)>, Error> {
        let ask = |worker: Arc<Worker>, deadline: Deadline| async move {
            worker.status(deadline.at(), deadline).await.map(WorkerStatus::from_wire)
        };
        let mut all = self.every_worker(ask).await?;
        for (member, status) in &mut all {
            if let (true, Ok(status)) = (member.id.is_empty(), status) {
                member.id.clone_from(&status.worker_id);
            }
        }
        Ok(all)
    }

    /// Asks every member, some at once, and gives their answers in the order of the members; the endpoints where no
    /// ring is known.
    ///
    /// # Errors
    /// No worker told who the members are.
    pub(crate) async fn every_worker<T, F>(
        &self,
        ask: impl Fn(Arc<Worker>, Deadline) -> F,
    ) -> Result<Vec<(Member, Result<T, Error>)>, Error>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let deadline = self.start(self.deadline)?;
        let view = self.routing.view(deadline).await?;
        let one = |(member, worker): (Member, Option<Arc<Worker>>)| {
            let asked = worker.map(|worker| (ask(Arc::clone(&worker), deadline), worker));
            async move {
                let answer = match asked {
                    Some((answer, worker)) => answer.await.map_err(|error| worker.error_of(error)),
                    None => Err(Error::invalid(format!("the address `{}` cannot be used", member.address))),
                };
                (member, answer)
            }
        };
        let workers = futures::stream::iter(self.routing.all_workers(&view));
        Ok(workers.map(one).buffered(ASKED_AT_ONCE).collect().await)
    }

    /// A message of a lookup is about to be sent.
    pub(crate) fn count_lookup(&self) {
        #[cfg(feature = "fallback")]
        if let Some(fallback) = &self.fallback {
            fallback.count();
        }
    }

    /// Answers a message from the origin where no worker is there to do it, or gives the error back.
    #[cfg(feature = "fallback")]
    pub(crate) async fn fall_back(
        &self,
        message: &alcedo_proto::v1::LookupRequest,
        deadline: Deadline,
        error: Error,
    ) -> Result<Answer, Error> {
        match &self.fallback {
            Some(fallback) if Fallback::is_for(&error) => Box::pin(fallback.lookup(message, deadline, &error)).await,
            _ => Err(error),
        }
    }

    /// Without the feature `fallback` there is no other way.
    #[cfg(not(feature = "fallback"))]
    pub(crate) async fn fall_back(
        &self,
        _: &alcedo_proto::v1::LookupRequest,
        _: Deadline,
        error: Error,
    ) -> Result<Answer, Error> {
        Err(error)
    }

    /// The deadline of a call that starts now.
    pub(crate) fn start(&self, deadline: Duration) -> Result<Deadline, Error> {
        checked(deadline).map(Deadline::after)
    }
}

fn checked(deadline: Duration) -> Result<Duration, Error> {
    if deadline.is_zero() {
        return Err(Error::invalid("a deadline of 0 cannot be met: give at least a microsecond"));
    }
    Ok(deadline)
}

impl Builder {
    /// Where to start: `host:port` of one worker or more. The others are learned from them. `http://` before it is
    /// accepted, and `unix:/path` names the Unix socket of a worker on this machine. Workers that are reached over
    /// loopback tell of such a socket themselves, and are asked over it from then on.
    pub fn endpoints(mut self, endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.endpoints = endpoints.into_iter().map(Into::into).collect();
        self
    }

    /// Asks a worker in this process, and nobody else for what it can answer: lookups, stat, list and read. It takes no
    /// endpoint. Lookups of what the worker has in memory take a few microseconds and no other thread.
    pub fn in_process(mut self, worker: Local) -> Self {
        self.local = Some(worker);
        self
    }

    /// A file that lists workers, one per line as `id=host:port[,weight[,zone]]`, as more endpoints. It is read with
    /// the first call, and again whenever the cluster changes or nobody can be reached.
    pub fn members_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.members_file = Some(path.into());
        self
    }

    /// How long a call may take if it does not say otherwise; [`DEFAULT_DEADLINE`] if not set.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Connections to each worker, 1 if not set.
    pub fn connections_per_worker(mut self, connections: usize) -> Self {
        self.connections_per_worker = connections;
        self
    }

    /// Whether lookups travel in frames on a connection of their own to workers that speak them, which costs both sides
    /// less than gRPC; yes if not set. Everything else is asked over gRPC in any case, and so are lookups of workers
    /// that do not speak frames. Switch it off where something between the client and its workers lets only HTTP/2
    /// pass: the client finds that out by itself, but with a connection each minute.
    pub fn frames(mut self, frames: bool) -> Self {
        self.frames = frames;
        self
    }

    /// How many calls that a worker may have accepted are repeated on another one; [`Budget::RETRIES`] if not set.
    /// Calls that were not accepted go on to the next worker at no cost.
    pub fn retry_budget(mut self, retries: Budget) -> Self {
        self.retries = retries;
        self
    }

    /// How many lookups are asked of a second worker while the first one is silent for longer than usual;
    /// [`Budget::HEDGES`] if not set, and [`Budget::NONE`] switches it off. Lookups under way to a worker that is
    /// found out to be silent altogether are led around it at no cost.
    pub fn hedge_budget(mut self, hedges: Budget) -> Self {
        self.hedges = hedges;
        self
    }

    /// Whether a worker that is short of CPU may send the data pages that hold a lookup's rows in place of the rows,
    /// which this side then decodes: answers stay the same, and cost bytes and this side's CPU instead of the worker's.
    /// If not set it may unless an endpoint is on this machine, whose CPU is the worker's own. Without the feature
    /// `pages`, and for a worker in this process, it never does.
    pub fn accept_pages(mut self, accept: bool) -> Self {
        self.accept_pages = Some(accept);
        self
    }

    /// Memory for data pages that were sent and are kept decoded, so that the next answer from one needs no decoding;
    /// [`DEFAULT_DECODED_PAGES_BYTES`] if not set, 0: none are kept.
    pub fn decoded_pages_bytes(mut self, bytes: u64) -> Self {
        self.decoded_pages_bytes = bytes;
        self
    }

    /// Mounts of the client's own, under the names that requests use. While no worker accepts a lookup, it is answered
    /// from the origin directly, as [`Builder::fallback_budget`] allows; [`Answer::worker`] then says `origin`. Without
    /// mounts there is no fallback.
    #[cfg(feature = "fallback")]
    pub fn mounts(mut self, mounts: impl IntoIterator<Item = alcedo_origin::MountConfig>) -> Self {
        self.mounts = mounts.into_iter().collect();
        self
    }

    /// How many lookups may be answered from the origin directly; more are turned away at once, with an error of kind
    /// [`Exhausted`](crate::Kind::Exhausted).
    #[cfg(feature = "fallback")]
    pub fn fallback_budget(mut self, fallback: FallbackBudget) -> Self {
        self.fallback = fallback;
        self
    }

    /// The client. Nothing is opened or resolved before its first call, so this succeeds also while no worker runs.
    ///
    /// # Errors
    /// A setting is not usable; the message names it.
    pub fn build(self) -> Result<Client, Error> {
        if !(1..=MAX_CONNECTIONS_PER_WORKER).contains(&self.connections_per_worker) {
            let message = format!("{} connections per worker: 1 to 64 are possible", self.connections_per_worker);
            return Err(Error::invalid(message));
        }
        let is_given = !self.endpoints.is_empty() || self.members_file.is_some();
        if is_given && self.local.is_some() {
            return Err(Error::invalid("a worker in this process is asked instead of endpoints: leave either out"));
        }
        if !is_given && self.local.is_none() {
            return Err(Error::invalid("no endpoint: give host:port of at least one worker"));
        }
        let reach = Reach { connections: self.connections_per_worker, frames: self.frames };
        let mut workers: Vec<Worker> = self.local.iter().map(|local| Worker::inside(local.clone())).collect();
        for endpoint in &self.endpoints {
            let address = address(endpoint)?;
            if !workers.iter().any(|worker| **worker.address() == *address) {
                workers.push(Worker::new(&address, reach)?);
            }
        }
        let endpoints = Endpoints::new(workers, self.members_file, reach);
        let purse = Purse::new(self.retries, self.hedges);
        let routing = Arc::new(Routing::new(endpoints, reach, purse));
        let is_near = self.local.is_some() || self.endpoints.iter().any(|endpoint| is_on_this_machine(endpoint));
        let are_accepted = self.accept_pages.unwrap_or(!is_near) && self.local.is_none();
        let pages = KeptPages::new(self.decoded_pages_bytes, are_accepted);
        Ok(Client {
            routing,
            pages,
            deadline: checked(self.deadline)?,
            local: self.local,
            #[cfg(feature = "fallback")]
            fallback: (!self.mounts.is_empty()).then(|| Arc::new(Fallback::new(self.mounts, self.fallback))),
        })
    }
}

/// Whether a usable endpoint says that its worker is here.
fn is_on_this_machine(endpoint: &str) -> bool {
    let Ok(address) = address(endpoint) else { return false };
    let host = address.rsplit_once(':').map_or("", |(host, _)| host.trim_matches(['[', ']']));
    let is_loopback = || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    address.starts_with(UNIX) || host == "localhost" || is_loopback()
}

/// `host:port` of an endpoint, by the rules for a ring's members; or `unix:` and the path of a socket.
fn address(endpoint: &str) -> Result<String, Error> {
    let trimmed = endpoint.trim();
    if let Some(path) = trimmed.strip_prefix(UNIX) {
        // Both forms of a URI mean an absolute path.
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') || path.len() > MAX_SOCKET_PATH_BYTES {
            return Err(Error::invalid(format!(
                "the endpoint `{endpoint}` is not usable: write unix:/path, at most {MAX_SOCKET_PATH_BYTES} bytes of it"
            )));
        }
        return Ok(format!("{UNIX}{path}"));
    }
    let address = trimmed.strip_prefix("http://").map_or(trimmed, |rest| rest.trim_end_matches('/'));
    if address.contains("://") {
        return Err(Error::invalid(format!(
            "the endpoint `{endpoint}` is not usable: only http:// may stand before host:port"
        )));
    }
    match alcedo_cluster::Member::new("endpoint", address, DEFAULT_WEIGHT, "") {
        Ok(member) => Ok(member.address().to_owned()),
        Err(MemberError::Address { reason, .. }) => {
            Err(Error::invalid(format!("the endpoint `{endpoint}` is not usable: {reason}; write host:port")))
        }
        Err(error) => Err(Error::invalid(format!("the endpoint `{endpoint}` is not usable: {error}"))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_checked_before_anything_is_opened() {
        for (endpoint, reason) in [
            ("localhost", "has no port"),
            ("", "has no port"),
            ("localhost:0", "port is not from 1 to 65535"),
            ("https://localhost:7610", "only http:// may stand before host:port"),
            ("user:pw@host:7610", "IPv6"),
            ("unix:alcedo.sock", "write unix:/path"),
        ] {
            let error = Client::builder().endpoints([endpoint]).build().unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
        for endpoint in
            ["localhost:7610", "http://localhost:7610/", "[::1]:7610", " 10.0.0.5:7610", "unix:/run/a", "unix:///run/a"]
        {
            Client::builder().endpoints([endpoint]).build().unwrap();
        }
    }

    #[test]
    fn pages_are_taken_where_their_decoding_is_no_work_for_the_workers_machine() {
        let compact = alcedo_proto::v1::AnswerForm::CompactRows.into();
        let takes = |builder: Builder| builder.build().unwrap().pages.are_accepted_for(compact);
        for (endpoints, is_near) in [
            (&["a:1", "10.0.0.5:7610"][..], false),
            (&["a:1", "localhost:7610"], true),
            (&["http://127.0.0.1:1/"], true),
            (&["[::1]:7610"], true),
            (&["unix:/run/a"], true),
        ] {
            let builder = || Client::builder().endpoints(endpoints.iter().copied());
            assert_eq!(takes(builder()), cfg!(feature = "pages") && !is_near, "{endpoints:?}");
            assert_eq!(takes(builder().accept_pages(true)), cfg!(feature = "pages"));
            assert!(!takes(builder().accept_pages(false)));
        }
    }

    #[test]
    fn a_client_and_its_lookups_go_to_any_thread() {
        fn shared<T: Send + Sync + Clone + 'static>(value: T) -> T {
            value
        }
        fn sent<T: Send>(_: T) {}
        let client = shared(Client::builder().endpoints(["a:1"]).build().unwrap());
        sent(client.lookup("lake/a").into_future());
    }

    #[test]
    fn settings_out_of_bounds_are_refused() {
        let none: [&str; 0] = [];
        assert!(Client::builder().endpoints(none).build().unwrap_err().to_string().contains("no endpoint"));
        let builder = Client::builder().endpoints(["a:1"]);
        assert!(builder.clone().connections_per_worker(0).build().is_err());
        assert!(builder.clone().connections_per_worker(65).build().is_err());
        assert!(builder.clone().deadline(Duration::ZERO).build().is_err());
        builder.clone().deadline(Duration::MAX).build().unwrap();
    }
}
