//! Whom to ask for a path: the ring's owners first, then whoever else is known.
//!
//! Knows the ring, the mounts and which workers are ejected. It must not know what is asked, or when a call is given to
//! a second worker. The view of the cluster is read from a worker before the first call and again, in the background,
//! when a reply shows another ring or nobody could be reached.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use alcedo_cluster::{HASH_NAME, Members, Ring, VNODES_PER_WEIGHT, file_hash};
use alcedo_proto::v1 as pb;
use tokio::time::Instant;

use crate::cluster::{ClusterView, Mount};
use crate::deadline::Deadline;
use crate::ending::CallError;
use crate::endpoints::Endpoints;
use crate::error::{Error, Reason};
use crate::question::{Question, Questions};
use crate::transport::{Reach, Worker, no_worker};
use crate::tries::{self, Purse, Turn};

/// Replies of another ring make the view be read again at most this often: while a change rolls through the cluster the
/// workers disagree, and any of them can answer.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// How long one such reading may take.
const REFRESH_DEADLINE: Duration = Duration::from_secs(2);
/// Most members that are asked for one call where there is no ring to say who owns the file; the endpoints come after
/// them.
const MAX_CANDIDATES: usize = 4;

/// Who is asked for a path, as of one generation of the view.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) generation: u64,
    /// Where the path is placed.
    pub(crate) url: Arc<str>,
    /// Everybody, best first while all are well.
    pub(crate) workers: Arc<[Arc<Worker>]>,
}

/// Chooses workers and hands calls to them.
#[derive(Debug)]
pub(crate) struct Routing {
    endpoints: Endpoints,
    reach: Reach,
    purse: Purse,
    /// What is asked again and again.
    pub(crate) questions: Questions,
    view: RwLock<Option<Arc<View>>>,
    /// Counts the views and changes of the endpoints; 0 while there is no view.
    generation: AtomicU64,
    /// The view's epoch.
    epoch: AtomicU64,
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
    pub(crate) fn new(endpoints: Endpoints, reach: Reach, purse: Purse) -> Self {
        Self {
            endpoints,
            reach,
            purse,
            questions: Questions::default(),
            view: RwLock::default(),
            generation: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            first: tokio::sync::Mutex::default(),
            refresh: Mutex::default(),
        }
    }

    /// Gives a call to the workers of a path until one answers it; [`tries::run`] has the rules. `attempt` gets each
    /// try.
    ///
    /// # Errors
    /// The call's own error, or that nobody accepted it.
    pub(crate) async fn route<T, F>(
        self: &Arc<Self>,
        path: &str,
        deadline: Deadline,
        attempt: impl FnMut(Turn) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let view = self.view(deadline).await?;
        let workers = in_order(self.placed(&view, &placed_url(&view.cluster.mounts, path)));
        let answer = tries::run(&self.purse, workers, (deadline, Instant::now()), false, attempt).await;
        self.learn(answer)
    }

    /// The same for a question, of which two workers may be asked at once; gives the URL where it is placed, too. Whom
    /// to ask is found once per view.
    ///
    /// # Errors
    /// As [`Self::route`].
    pub(crate) async fn route_question<T, F>(
        self: &Arc<Self>,
        question: &Question,
        deadline: Deadline,
        attempt: impl FnMut(Turn) -> F,
    ) -> Result<(T, Arc<str>), Error>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let (route, now) = match question.route(self.generation.load(Ordering::Acquire)) {
            Some(route) => (route, deadline.began()),
            None => (Box::pin(self.find_route(question, deadline)).await?, Instant::now()),
        };
        let workers = in_order(route.workers);
        let answer = tries::run(&self.purse, workers, (deadline, now), true, attempt).await;
        self.learn(answer).map(|answer| (answer, route.url))
    }

    async fn find_route(&self, question: &Question, deadline: Deadline) -> Result<Route, Error> {
        let view = self.view(deadline).await?;
        // Read before the view is: a route that is older than it says is found anew once too often, never too seldom.
        let generation = self.generation.load(Ordering::Acquire);
        let view = self.known().unwrap_or(view);
        let url: Arc<str> = placed_url(&view.cluster.mounts, question.path()).into();
        let route = Route { generation, workers: self.placed(&view, &url), url };
        question.set_route(route.clone());
        Ok(route)
    }

    fn learn<T>(self: &Arc<Self>, answer: Result<T, Error>) -> Result<T, Error> {
        if answer.as_ref().is_err_and(|error| error.reason == Some(Reason::NoWorker)) {
            // The workers may have moved.
            self.refresh_soon();
        }
        answer
    }

    /// Everybody who may be asked for what is placed at this URL: its owners, then the endpoints.
    fn placed(&self, view: &View, url: &str) -> Arc<[Arc<Worker>]> {
        let inside: Vec<_> = self.endpoints.current().iter().filter(|one| one.is_inside()).cloned().collect();
        if !inside.is_empty() {
            return inside.into();
        }
        let mut workers = view.members_for(url);
        // Without members everybody takes the same endpoint for the same file, so that caches stay warm.
        let endpoints = self.endpoints.current();
        let start = (file_hash(url) % endpoints.len().max(1) as u64) as usize;
        for endpoint in endpoints.iter().cycle().skip(start).take(endpoints.len()) {
            if !workers.iter().any(|worker| worker.address() == endpoint.address()) {
                workers.push(Arc::clone(endpoint));
            }
        }
        workers.into()
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
        let before = self.endpoints.current();
        let endpoints = self.endpoints.reload().await?;
        if known.is_some() && !Arc::ptr_eq(&before, &endpoints) {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
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
                    return self.adopt(reply, known.as_deref(), worker).await;
                }
                Err(CallError::NotAccepted(why) | CallError::Unsent(why)) => {
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
    async fn adopt(
        &self,
        reply: pb::ClusterResponse,
        known: Option<&View>,
        source: &Arc<Worker>,
    ) -> Result<Arc<View>, Error> {
        let endpoints = self.endpoints.current();
        let existing = |id: &str, address: &str| {
            // Who was reached in a shorter way than by its address stays reached in that way.
            if source.is_by_name() && id == reply.worker_id {
                return Some(Arc::clone(source));
            }
            let endpoint = endpoints.iter().find(|worker| &**worker.address() == address);
            endpoint.or_else(|| known.and_then(|view| view.by_address.get(address))).cloned()
        };
        let mut by_address = HashMap::new();
        let mut workers = Vec::new();
        for member in &reply.members {
            let worker = match existing(&member.id, &member.address) {
                Some(worker) => worker,
                None => match Worker::new(&member.address, self.reach) {
                    Ok(worker) => Arc::new(worker),
                    Err(error) => {
                        tracing::debug!(member = member.id, %error, "a member cannot be reached by its address");
                        continue;
                    }
                },
            };
            by_address.insert(member.address.as_str().into(), Arc::clone(&worker));
            workers.push(worker);
        }
        // A ring of many members takes milliseconds to hundreds of them, too long for a runtime thread.
        let ring = tokio::task::spawn_blocking(move || (ring(&reply), reply)).await;
        let (ring, reply) = ring.map_err(|_| Error::internal("the runtime ended while the ring was computed"))?;
        let view = Arc::new(View { cluster: ClusterView::from_wire(reply), ring, workers, by_address });
        tracing::debug!(members = view.workers.len(), epoch = view.cluster.epoch, "view of the cluster");
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&view));
        self.epoch.store(view.cluster.epoch, Ordering::Release);
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(view)
    }

    /// Compares a reply's ring with the view; where they differ the view is read again in the background, within a
    /// deadline of its own, one reading at a time.
    pub(crate) fn observe(self: &Arc<Self>, ring_epoch: u64) {
        if self.generation.load(Ordering::Acquire) > 0 && self.epoch.load(Ordering::Acquire) != ring_epoch {
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

/// Those that failed a moment ago come last, except for the one call that tries whoever's pause is over.
fn in_order(workers: Arc<[Arc<Worker>]>) -> Arc<[Arc<Worker>]> {
    if workers.iter().all(|worker| worker.health().is_well()) {
        return workers;
    }
    let mut workers = workers.to_vec();
    let first = workers.iter().position(|worker| !worker.health().is_ejected() || worker.health().claim_probe());
    if let Some(first) = first {
        workers[..=first].rotate_right(1);
    }
    if let Some(rest) = workers.get_mut(1..) {
        rest.sort_by_key(|worker| worker.health().is_ejected());
    }
    workers.into()
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
