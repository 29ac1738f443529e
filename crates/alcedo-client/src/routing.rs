//! Whom to ask for a path: the ring's owners first, then whoever else is known.
//!
//! Knows the ring, the mounts and which workers are ejected. It must not know what is asked, or when a call is given to
//! a second worker. The view of the cluster is read from a worker before the first call and again, in the background,
//! when a reply shows another ring or nobody could be reached.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use alcedo_cluster::{HASH_NAME, Members, Ring, VNODES_PER_WEIGHT, file_hash};
use alcedo_proto::v1 as pb;
use tokio::time::Instant;

use crate::cluster::{ClusterView, Mount};
use crate::deadline::Deadline;
use crate::endpoints::Endpoints;
use crate::error::{Error, Reason};
use crate::stream::CallError;
use crate::transport::{Worker, no_worker};
use crate::tries::{self, Purse};

/// Replies of another ring make the view be read again at most this often: while a change rolls through the cluster the
/// workers disagree, and any of them can answer.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// How long one such reading may take.
const REFRESH_DEADLINE: Duration = Duration::from_secs(2);
/// Most members that are asked for one call where there is no ring to say who owns the file; the endpoints come after
/// them.
const MAX_CANDIDATES: usize = 4;

/// Chooses workers and hands calls to them.
#[derive(Debug)]
pub(crate) struct Routing {
    endpoints: Endpoints,
    connections_per_worker: usize,
    purse: Purse,
    view: RwLock<Option<Arc<View>>>,
    /// Held by the one call that reads the first view.
    first: tokio::sync::Mutex<()>,
    refresh: Mutex<Refresh>,
}

#[derive(Debug, Default)]
struct Refresh {
    running: bool,
    started: Option<Instant>,
}

/// What is known of the cluster, ready for use.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) cluster: ClusterView,
    /// None where the members cannot be placed by this client; then anybody is asked.
    pub(crate) ring: Option<Ring>,
    /// The members' workers, in the order of the worker's answer.
    workers: Vec<Arc<Worker>>,
    by_address: HashMap<Arc<str>, Arc<Worker>>,
}

impl Routing {
    pub(crate) fn new(endpoints: Endpoints, connections_per_worker: usize, purse: Purse) -> Self {
        Self {
            endpoints,
            connections_per_worker,
            purse,
            view: RwLock::default(),
            first: tokio::sync::Mutex::default(),
            refresh: Mutex::default(),
        }
    }

    /// Gives a call to the workers of a path until one answers it; [`tries::run`] has the rules. `attempt` gets the
    /// worker and the instant until which it may connect. `may_hedge` says whether two may be asked at once.
    ///
    /// # Errors
    /// The call's own error, or that nobody accepted it.
    pub(crate) async fn route<T, F>(
        self: &Arc<Self>,
        path: &str,
        deadline: Deadline,
        may_hedge: bool,
        attempt: impl FnMut(Arc<Worker>, Instant) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let view = self.view(deadline).await?;
        let candidates = self.candidates(&view, path);
        let answer = tries::run(&self.purse, candidates, deadline, may_hedge, attempt).await;
        if answer.as_ref().is_err_and(|error| error.reason == Some(Reason::NoWorker)) {
            // The workers may have moved.
            self.refresh_soon();
        }
        answer
    }

    /// The workers to ask for a path, best first; those that failed a moment ago come last.
    pub(crate) fn candidates(&self, view: &View, path: &str) -> Vec<Arc<Worker>> {
        let url = placed_url(&view.cluster.mounts, path);
        let mut candidates = view.members_for(&url);
        // Without members everybody takes the same endpoint for the same file, so that caches stay warm.
        let endpoints = self.endpoints.current();
        let start = (file_hash(&url) % endpoints.len().max(1) as u64) as usize;
        for endpoint in endpoints.iter().cycle().skip(start).take(endpoints.len()) {
            if !candidates.iter().any(|worker| worker.address() == endpoint.address()) {
                candidates.push(Arc::clone(endpoint));
            }
        }
        // One call tries an ejected worker whose pause is over; the others go around it.
        let first = candidates.iter().position(|worker| !worker.health().is_ejected() || worker.health().claim_probe());
        if let Some(first) = first {
            candidates[..=first].rotate_right(1);
        }
        if let Some(rest) = candidates.get_mut(1..) {
            rest.sort_by_key(|worker| worker.health().is_ejected());
        }
        candidates
    }

    /// The view of the cluster, read from an endpoint if there is none yet.
    pub(crate) async fn view(&self, deadline: Deadline) -> Result<Arc<View>, Error> {
        if let Some(view) = self.known() {
            return Ok(view);
        }
        let waiting = || deadline.passed("waiting for the first view of the cluster");
        let _first = tokio::time::timeout_at(deadline.at(), self.first.lock()).await.map_err(|_| waiting())?;
        match self.known() {
            Some(view) => Ok(view),
            None => self.read_view(deadline).await,
        }
    }

    fn known(&self) -> Option<Arc<View>> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for the view: members that are known, then the endpoints, until one answers.
    pub(crate) async fn read_view(&self, deadline: Deadline) -> Result<Arc<View>, Error> {
        let known = self.known();
        let endpoints = self.endpoints.reload().await?;
        let mut sources: Vec<Arc<Worker>> = endpoints.to_vec();
        let members = known.iter().flat_map(|view| view.workers.iter().take(MAX_CANDIDATES));
        let unlisted = |worker: &&Arc<Worker>| !endpoints.iter().any(|one| one.address() == worker.address());
        sources.extend(members.filter(unlisted).cloned());
        sources.sort_by_key(|worker| worker.health().is_ejected());

        let mut refusals = Vec::new();
        let mut failure = None;
        for (asked, worker) in sources.iter().enumerate() {
            let left = u32::try_from(sources.len() - asked).unwrap_or(u32::MAX);
            let share = deadline.within(deadline.remaining() / left);
            match worker.cluster(share.at(), share).await {
                Ok(reply) => {
                    worker.health().note_success();
                    return self.adopt(reply, known.as_deref()).await;
                }
                Err(CallError::NotAccepted(why)) => {
                    worker.health().note_failure();
                    refusals.push((Arc::clone(worker.address()), why));
                }
                // A worker that is silent or confused is no reason not to ask the next one.
                Err(CallError::Failed(error) | CallError::Lost(error) | CallError::Silent(error)) => {
                    worker.health().note_failure();
                    failure = Some(error);
                }
            }
        }
        Err(failure.unwrap_or_else(|| no_worker(&refusals)))
    }

    /// Makes a worker's answer the view. Workers that stay keep their connections.
    async fn adopt(&self, reply: pb::ClusterResponse, known: Option<&View>) -> Result<Arc<View>, Error> {
        let endpoints = self.endpoints.current();
        let existing = |address: &str| {
            let endpoint = endpoints.iter().find(|worker| &**worker.address() == address);
            endpoint.or_else(|| known.and_then(|view| view.by_address.get(address))).cloned()
        };
        let mut by_address = HashMap::new();
        let mut workers = Vec::new();
        for member in &reply.members {
            let worker = match existing(&member.address) {
                Some(worker) => worker,
                None => match Worker::new(&member.address, self.connections_per_worker) {
                    Ok(worker) => Arc::new(worker),
                    Err(error) => {
                        tracing::debug!(member = member.id, %error, "a member cannot be reached by its address");
                        continue;
                    }
                },
            };
            by_address.insert(Arc::clone(worker.address()), Arc::clone(&worker));
            workers.push(worker);
        }
        // A ring of many members takes milliseconds to hundreds of them, too long for a runtime thread.
        let ring = tokio::task::spawn_blocking(move || (ring(&reply), reply)).await;
        let (ring, reply) = ring.map_err(|_| Error::internal("the runtime ended while the ring was computed"))?;
        let view = Arc::new(View { cluster: ClusterView::from_wire(reply), ring, workers, by_address });
        tracing::debug!(members = view.workers.len(), epoch = view.cluster.epoch, "view of the cluster");
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&view));
        Ok(view)
    }

    /// Compares a reply's ring with the view; where they differ the view is read again in the background, within a
    /// deadline of its own, one reading at a time.
    pub(crate) fn observe(self: &Arc<Self>, ring_epoch: u64) {
        if self.known().is_some_and(|view| view.cluster.epoch != ring_epoch) {
            self.refresh_soon();
        }
    }

    /// Reads the view again in the background, unless that is being done or was done a moment ago.
    fn refresh_soon(self: &Arc<Self>) {
        {
            let mut refresh = self.refresh();
            let recent = refresh.started.is_some_and(|started| started.elapsed() < REFRESH_INTERVAL);
            if refresh.running || recent {
                return;
            }
            *refresh = Refresh { running: true, started: Some(Instant::now()) };
        }
        let running = Running(Arc::clone(self));
        tokio::spawn(async move {
            if let Err(error) = running.0.read_view(Deadline::after(REFRESH_DEADLINE)).await {
                tracing::debug!(%error, "the view of the cluster stays as it is");
            }
        });
    }

    fn refresh(&self) -> MutexGuard<'_, Refresh> {
        self.refresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All members, or the endpoints where no ring is known.
    pub(crate) fn all_workers(&self, view: &View) -> Vec<(crate::cluster::Member, Option<Arc<Worker>>)> {
        if view.cluster.members.is_empty() {
            let endpoint =
                |worker: &Arc<Worker>| (crate::cluster::Member::at(worker.address()), Some(Arc::clone(worker)));
            return self.endpoints.current().iter().map(endpoint).collect();
        }
        let members = view.cluster.members.iter();
        members.map(|member| (member.clone(), view.by_address.get(member.address.as_str()).cloned())).collect()
    }
}

/// Ends a refresh, also where its runtime ends first.
struct Running(Arc<Routing>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.refresh().running = false;
    }
}

impl View {
    /// The address of the worker that owns a path, if that is known.
    pub(crate) fn owner(&self, path: &str) -> Option<Arc<str>> {
        let owner = self.members_for(&placed_url(&self.cluster.mounts, path)).into_iter().next();
        owner.map(|worker| Arc::clone(worker.address()))
    }

    /// The members for a file: its owners, or some of all where there is no ring.
    fn members_for(&self, url: &str) -> Vec<Arc<Worker>> {
        match &self.ring {
            Some(ring) => ring.owners(url).filter_map(|owner| self.by_address.get(owner.address()).cloned()).collect(),
            None if self.workers.is_empty() => Vec::new(),
            None => {
                let start = (file_hash(url) % self.workers.len() as u64) as usize;
                let turn = self.workers.iter().cycle().skip(start);
                turn.take(self.workers.len().min(MAX_CANDIDATES)).cloned().collect()
            }
        }
    }
}

/// The ring of a worker's answer, if it is one that this client can compute.
fn ring(reply: &pb::ClusterResponse) -> Option<Ring> {
    let parameters = reply.ring.as_ref()?;
    if parameters.hash != HASH_NAME || parameters.vnodes_per_weight != VNODES_PER_WEIGHT {
        tracing::debug!(?parameters, "the ring's parameters are not known; any worker is asked");
        return None;
    }
    let member = |m: &pb::Member| alcedo_cluster::Member::new(&m.id, &m.address, m.weight, &m.zone);
    let members = reply.members.iter().map(member).collect::<Result<Vec<_>, _>>();
    let members = members.map_err(|error| error.to_string());
    match members.and_then(|members| Members::new(members).map_err(|error| error.to_string())) {
        Ok(members) => Some(Ring::new(&members)),
        Err(error) => {
            tracing::debug!(error, "the ring's members are not usable; any worker is asked");
            None
        }
    }
}

/// The URL under which a path is placed on the ring: a mount's name is replaced by what it stands for, and a prefix
/// with and without its final slash is one. The request carries the path as it was given; a wrong guess here costs a
/// detour only.
pub(crate) fn placed_url(mounts: &[Mount], path: &str) -> String {
    let cut = |prefix: &str| prefix.strip_suffix('/').unwrap_or(prefix).to_owned();
    let path = cut(path);
    if path.contains("://") {
        return path;
    }
    let (name, rest) = path.split_once('/').unwrap_or((&path, ""));
    match mounts.iter().find(|mount| mount.name == name) {
        Some(mount) if rest.is_empty() => cut(&mount.url),
        Some(mount) => format!("{}/{rest}", cut(&mount.url)),
        None => path,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn mounts() -> Vec<Mount> {
        let mount = |name: &str, url: &str| Mount { name: name.into(), url: url.into(), freshness: "ttl".into() };
        vec![mount("lake", "s3://bucket/prefix"), mount("root", "file:///")]
    }

    #[test]
    fn an_alias_and_its_url_are_placed_alike() {
        for (path, url) in [
            ("lake/a/b.parquet", "s3://bucket/prefix/a/b.parquet"),
            ("s3://bucket/prefix/a/b.parquet", "s3://bucket/prefix/a/b.parquet"),
            ("lake/a/", "s3://bucket/prefix/a"),
            ("lake/a", "s3://bucket/prefix/a"),
            ("lake", "s3://bucket/prefix"),
            ("lake/", "s3://bucket/prefix"),
            ("root/x", "file:///x"),
            ("nobody/x", "nobody/x"),
        ] {
            assert_eq!(placed_url(&mounts(), path), url, "{path}");
        }
    }
}
