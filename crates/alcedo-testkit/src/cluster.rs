//! A whole cluster: a store, workers over it, and a client of them; in this process, or as processes of the command.
//!
//! Layer 5. It knows how workers are configured (as text, so that the way of a real configuration is gone) and how they
//! learn of each other. It must not know what is asked of them: that is each test's. Nothing outlives its handle: the
//! threads of workers are joined, and processes are killed by their own ids.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alcedo_client::Client;
use alcedo_worker::{Config, Running, Worker};
use anyhow::{Context, ensure};
use bytes::Bytes;
use tempfile::TempDir;

pub use crate::process::{Finished, WorkerProcess, alcedo_binary, command, free_ports, run};
use crate::s3::{S3Options, S3Server};

/// The bucket that the mount `lake` stands for.
pub const BUCKET: &str = "lake";
/// Deadline of the client's calls: far longer than any answer takes, so that a slow machine fails no test.
const CLIENT_DEADLINE: Duration = Duration::from_secs(25);
/// A store on the same machine answers, however late: asked again because the machine stood still, it would count
/// requests that no worker needs. A test that wants less patience has a table `[origin]` or limits of its own.
const PATIENT_ORIGIN: &str = "[origin]\nattempt_timeout = \"20s\"\nconnect_timeout = \"20s\"\n";
/// What is known of a file is believed for longer than any test takes, unless the mount says more of it: half a minute
/// is soon over on a slow machine, and asking again would be a request too many.
const LASTING: &str = "freshness = { mode = \"ttl\", soft = \"1h\", hard = \"2h\" }\n";

/// What a cluster is made of.
#[derive(Debug, Default)]
pub struct ClusterOptions {
    /// Keys and contents of the objects in [`BUCKET`].
    pub objects: Vec<(String, Bytes)>,
    /// How the store is started.
    pub store: S3Options,
    /// Further lines of the mount `lake`, as TOML.
    pub mount: String,
    /// Further tables of each worker's configuration, as TOML.
    pub tables: String,
    /// A directory that is mounted as `local`.
    pub local: Option<PathBuf>,
    /// How many workers: `w-1`, `w-2` and so on. 0 counts as 1.
    pub workers: usize,
    /// Each worker has a cache directory of its own, which outlives it as long as the cluster's handle lives.
    pub cache: bool,
    /// What the workers take a trip to the store to cost. The store is on the same machine, where what is measured
    /// changes with every run, and with it what is worth reading along.
    pub pace: StorePace,
    /// The workers read who is in the ring from a file that may change, instead of a list in their configuration.
    pub members_file: bool,
}

/// What a trip to the store costs: how long until the first byte, and bytes per second from then on.
#[derive(Debug, Clone, Copy)]
pub struct StorePace {
    /// Zero: measured.
    pub trip: Duration,
    /// Zero: measured.
    pub bytes_per_second: u64,
}

impl StorePace {
    /// Each worker measures it.
    pub const MEASURED: Self = Self { trip: Duration::ZERO, bytes_per_second: 0 };
}

impl Default for StorePace {
    /// That of an object store in the same region, where a trip is worth 3 MB.
    fn default() -> Self {
        Self { trip: Duration::from_millis(30), bytes_per_second: 100_000_000 }
    }
}

/// What one worker is configured with beside the text that all share.
#[derive(Debug, Clone)]
struct Part {
    id: String,
    /// Its own directory, below the cluster's.
    home: PathBuf,
    /// Keys and values, set on top of the text.
    settings: Vec<(&'static str, String)>,
}

/// Where all workers of a cluster are and what they are told.
struct Plan {
    text: String,
    parts: Vec<Part>,
    /// `id=host:port` of each worker; empty for one that is alone.
    members: Vec<String>,
    home: TempDir,
    members_file: bool,
}

impl Plan {
    fn new(options: &ClusterOptions, store: &S3Server) -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        let mut text = worker_toml(&store.url(), &options.mount, &options.tables);
        if let Some(directory) = &options.local {
            text += &format!("[[mount]]\nname = \"local\"\nurl = \"file://{}\"\n", directory.display());
        }
        let count = options.workers.max(1);
        // Members name ports, so they must be known before the first worker starts. A lone worker has one of these too:
        // while it is down, nobody who takes any port takes it.
        let ports = free_ports(count)?;
        let is_alone = count == 1 && !options.members_file;
        let named = ports.iter().enumerate().filter(|_| !is_alone);
        let members: Vec<String> = named.map(|(i, port)| format!("w-{}=127.0.0.1:{port}", i + 1)).collect();
        let parts = (0..count)
            .map(|i| Self::part(home.path(), i, options, &ports, &members))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let plan = Self { text, parts, members, home, members_file: options.members_file };
        if plan.members_file {
            plan.write_members(&(0..count).collect::<Vec<_>>())?;
        }
        Ok(plan)
    }

    fn part(
        home: &Path,
        number: usize,
        options: &ClusterOptions,
        ports: &[u16],
        members: &[String],
    ) -> anyhow::Result<Part> {
        let id = format!("w-{}", number + 1);
        let own = home.join(&id);
        fs::create_dir(&own)?;
        let mut settings = vec![("worker_id", id.clone())];
        let StorePace { trip, bytes_per_second } = options.pace;
        settings.push(("origin.trip", format!("{}us", trip.as_micros())));
        settings.push(("origin.bytes_per_second", bytes_per_second.to_string()));
        if let Some(port) = ports.get(number) {
            settings.push(("listen", format!("127.0.0.1:{port}")));
        }
        if options.cache {
            settings.push(("cache.dir", own.join("cache").display().to_string()));
        }
        if options.members_file {
            settings.push(("members_file", members_path(home).display().to_string()));
        } else if !members.is_empty() {
            settings.push(("members", members.join(" ")));
        }
        Ok(Part { id, home: own, settings })
    }

    /// Writes the members' file as an operator would: aside, then renamed over the old one.
    fn write_members(&self, numbers: &[usize]) -> anyhow::Result<()> {
        ensure!(self.members_file, "this cluster was started without a members' file");
        let chosen: Option<Vec<&str>> = numbers.iter().map(|i| self.members.get(*i).map(String::as_str)).collect();
        let text = chosen.context("no such worker")?.join("\n") + "\n";
        let path = members_path(self.home.path());
        let aside = path.with_extension("new");
        fs::write(&aside, text)?;
        Ok(fs::rename(aside, path)?)
    }

    fn config(&self, part: &Part) -> anyhow::Result<Config> {
        let mut config = Config::from_toml(&self.text, "worker.toml")?;
        for (key, value) in &part.settings {
            config.apply_override(key, value, &part.id)?;
        }
        Ok(config)
    }

    fn start_all(&self) -> anyhow::Result<Vec<Running>> {
        self.parts.iter().map(|part| Ok(Worker::start(self.config(part)?)?)).collect()
    }

    fn part_at(&self, index: usize) -> anyhow::Result<&Part> {
        self.parts.get(index).with_context(|| format!("there is no worker {index}"))
    }
}

fn members_path(home: &Path) -> PathBuf {
    home.join("members")
}

fn filled_store(options: &mut ClusterOptions) -> anyhow::Result<S3Server> {
    let store = S3Server::start(std::mem::take(&mut options.store))?;
    store.create_bucket(BUCKET);
    for (key, bytes) in options.objects.drain(..) {
        store.put(BUCKET, &key, bytes);
    }
    Ok(store)
}

fn client_of(endpoints: impl IntoIterator<Item = String>) -> anyhow::Result<Client> {
    Ok(Client::builder().endpoints(endpoints).deadline(CLIENT_DEADLINE).build()?)
}

/// A store, workers in this process and a client. Dropping it stops all of them.
pub struct TestCluster {
    client: Client,
    workers: Vec<Running>,
    store: S3Server,
    plan: Plan,
}

impl TestCluster {
    /// Starts the store with its objects, then the workers. The client has not connected yet.
    ///
    /// # Errors
    /// When the configuration is wrong or something cannot be started.
    pub fn start(mut options: ClusterOptions) -> anyhow::Result<Self> {
        let store = filled_store(&mut options)?;
        let plan = Plan::new(&options, &store)?;
        let workers = plan.start_all()?;
        let client = client_of(workers.iter().map(|worker| worker.local_addr().to_string()))?;
        Ok(Self { client, workers, store, plan })
    }

    /// Stops all workers and starts them again on the same ports with the same cache directories. The store, its
    /// counters and the client stay.
    ///
    /// # Errors
    /// When one cannot be started again.
    pub fn restart(mut self) -> anyhow::Result<Self> {
        // All are gone before the first comes back: a cache directory has one owner.
        self.workers.clear();
        self.workers = self.plan.start_all()?;
        Ok(self)
    }

    /// A client of the workers.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The first worker.
    #[must_use]
    pub fn worker(&self) -> &Running {
        &self.workers[0]
    }

    /// All workers, `w-1` first.
    #[must_use]
    pub fn workers(&self) -> &[Running] {
        &self.workers
    }

    /// The store below the mount `lake`.
    #[must_use]
    pub fn store(&self) -> &S3Server {
        &self.store
    }

    /// `host:port` of the first worker.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.worker().local_addr().to_string()
    }

    /// The cache directory of a worker (0 is `w-1`), whether or not it has one.
    ///
    /// # Errors
    /// When there is no such worker.
    pub fn cache_dir(&self, index: usize) -> anyhow::Result<PathBuf> {
        Ok(self.plan.part_at(index)?.home.join("cache"))
    }

    /// Makes the members' file name exactly these workers (0 is `w-1`).
    ///
    /// # Errors
    /// When the cluster was started without such a file, or it cannot be written.
    pub fn write_members(&self, indices: &[usize]) -> anyhow::Result<()> {
        self.plan.write_members(indices)
    }

    /// The members' file, for tests that write nonsense into it.
    #[must_use]
    pub fn members_file(&self) -> PathBuf {
        members_path(self.plan.home.path())
    }

    /// Runs the built command against the first worker, in a home directory without settings.
    ///
    /// # Errors
    /// When the command is not built, or does not end.
    pub async fn run(&self, args: &[&str]) -> anyhow::Result<Finished> {
        let mut command = command(self.plan.home.path())?;
        command.args(args).env("ALCEDO_ENDPOINTS", self.endpoint());
        run(command).await
    }
}

/// The same with every worker in a process of its own, which can be killed, frozen and started again.
pub struct ProcessCluster {
    client: Client,
    workers: Vec<WorkerProcess>,
    store: S3Server,
    plan: Plan,
}

impl ProcessCluster {
    /// Starts the store with its objects, then the workers, and waits until they are ready. The client has not
    /// connected yet.
    ///
    /// # Errors
    /// When the command is not built, the configuration is wrong or something cannot be started.
    pub async fn start(mut options: ClusterOptions) -> anyhow::Result<Self> {
        let store = filled_store(&mut options)?;
        Self::over(store, &options).await
    }

    /// The same over a store that is there already, in a bucket named [`BUCKET`]; the options' own store and objects
    /// are left aside.
    ///
    /// # Errors
    /// As [`ProcessCluster::start`].
    pub async fn over(store: S3Server, options: &ClusterOptions) -> anyhow::Result<Self> {
        let plan = Plan::new(options, &store)?;
        let mut workers = Vec::with_capacity(plan.parts.len());
        for part in &plan.parts {
            let environment: Vec<(String, &str)> =
                part.settings.iter().map(|(key, value)| (variable(key), value.as_str())).collect();
            let environment: Vec<(&str, &str)> =
                environment.iter().map(|(key, value)| (key.as_str(), *value)).collect();
            workers.push(WorkerProcess::start_in(&part.home, &plan.text, &environment).await?);
        }
        let client = client_of(workers.iter().map(|worker| worker.endpoint().to_owned()))?;
        Ok(Self { client, workers, store, plan })
    }

    /// A client of the workers.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// All workers, `w-1` first.
    #[must_use]
    pub fn workers(&self) -> &[WorkerProcess] {
        &self.workers
    }

    /// All workers, to end them and to start them again.
    #[must_use]
    pub fn workers_mut(&mut self) -> &mut [WorkerProcess] {
        &mut self.workers
    }

    /// The store below the mount `lake`.
    #[must_use]
    pub fn store(&self) -> &S3Server {
        &self.store
    }

    /// The cache directory of a worker (0 is `w-1`), whether or not it has one.
    ///
    /// # Errors
    /// When there is no such worker.
    pub fn cache_dir(&self, index: usize) -> anyhow::Result<PathBuf> {
        Ok(self.plan.part_at(index)?.home.join("cache"))
    }

    /// Makes the members' file name exactly these workers (0 is `w-1`).
    ///
    /// # Errors
    /// When the cluster was started without such a file, or it cannot be written.
    pub fn write_members(&self, indices: &[usize]) -> anyhow::Result<()> {
        self.plan.write_members(indices)
    }

    /// The members' file, for tests that write nonsense into it.
    #[must_use]
    pub fn members_file(&self) -> PathBuf {
        members_path(self.plan.home.path())
    }
}

/// The environment variable of a setting: two underscores for each dot.
fn variable(key: &str) -> String {
    format!("ALCEDO_{}", key.replace('.', "__").to_uppercase())
}

/// The configuration of a worker with the mount `lake` on a store at this URL, anonymous and seldom asked again unless
/// `mount` says more, and patient with it unless `tables` has a table `[origin]`.
#[must_use]
pub fn worker_toml(store_url: &str, mount: &str, tables: &str) -> String {
    let access = if mount.contains("credentials_file") { "" } else { "anonymous = true\n" };
    let origin = if tables.contains("[origin]") { "" } else { PATIENT_ORIGIN };
    let freshness = if mount.contains("freshness") { "" } else { LASTING };
    format!(
        "worker_id = \"w-1\"\nlisten = \"127.0.0.1:0\"\nruntimes = 2\n{tables}\n{origin}\
         [[mount]]\nname = \"lake\"\nurl = \"s3://{BUCKET}\"\nendpoint = \"{store_url}\"\nregion = \"us-east-1\"\n\
         allow_http = true\n{access}{freshness}{mount}\n"
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::lake::{SampleLake, SampleSpec};

    #[test]
    fn each_worker_of_a_cluster_has_a_name_a_port_and_a_directory_of_its_own() {
        let mut options = ClusterOptions { workers: 3, cache: true, ..ClusterOptions::default() };
        let store = filled_store(&mut options).unwrap();
        let plan = Plan::new(&options, &store).unwrap();
        assert_eq!(plan.parts.iter().map(|part| part.id.as_str()).collect::<Vec<_>>(), ["w-1", "w-2", "w-3"]);
        let configs: Vec<Config> = plan.parts.iter().map(|part| plan.config(part).unwrap()).collect();
        for (config, part) in configs.iter().zip(&plan.parts) {
            assert_eq!(config.members.len(), 3);
            assert_eq!(config.cache.dir.as_deref(), Some(part.home.join("cache").as_path()));
            let own = config.members.get(&config.worker_id).unwrap();
            assert_eq!(own.address(), config.listen.to_string());
        }
        assert_ne!(configs[0].listen, configs[1].listen);
        assert!(plan.write_members(&[0]).is_err(), "there is no file");
    }

    #[test]
    fn a_lone_worker_without_a_cache_has_a_port_to_come_back_to_and_is_in_no_list() {
        let mut options = ClusterOptions::default();
        let store = filled_store(&mut options).unwrap();
        let plan = Plan::new(&options, &store).unwrap();
        let config = plan.config(&plan.parts[0]).unwrap();
        assert_eq!((config.members.len(), config.cache.dir), (0, None));
        assert_ne!(config.listen.port(), 0);
    }

    #[test]
    fn workers_are_patient_with_the_store_unless_a_test_says_otherwise() {
        let patience = |tables: &str| {
            let config = Config::from_toml(&worker_toml("http://127.0.0.1:1", "", tables), "worker.toml").unwrap();
            config.origin.attempt_timeout
        };
        assert_eq!(patience("[builds]\nparallel = 0\n"), Duration::from_secs(20));
        assert_eq!(patience("[origin]\nattempt_timeout = \"3s\"\n"), Duration::from_secs(3));
    }

    fn one_file() -> Vec<(String, Bytes)> {
        let lake = SampleLake::new(SampleSpec { rows: 400, files: 1, seed: 7 }).unwrap();
        lake.files().map(Result::unwrap).collect()
    }

    async fn answers(endpoint: &str, deadline: Duration) -> Result<usize, String> {
        let client = Client::builder().endpoints([endpoint.to_owned()]).deadline(deadline).build().unwrap();
        let path = format!("{BUCKET}/{}", SampleLake::file_name(0));
        let lake = SampleLake::new(SampleSpec { rows: 400, files: 1, seed: 7 }).unwrap();
        let key = lake.row(123).unwrap().id;
        let answer = client.lookup(path).key_column("id").key(key).await;
        answer.map(|answer| answer.rows().count()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_worker_that_is_killed_or_frozen_is_silent_until_it_is_back_at_the_same_place() {
        let store = S3Server::start(S3Options::default()).unwrap();
        store.create_bucket(BUCKET);
        for (key, bytes) in one_file() {
            store.put(BUCKET, &key, bytes);
        }
        let mut worker = WorkerProcess::start(&worker_toml(&store.url(), "", ""), &[]).await.unwrap();
        let endpoint = worker.endpoint().to_owned();
        assert_eq!(answers(&endpoint, CLIENT_DEADLINE).await, Ok(1));
        worker.freeze().unwrap();
        assert!(answers(&endpoint, Duration::from_millis(200)).await.is_err());
        worker.thaw().unwrap();
        assert_eq!(answers(&endpoint, CLIENT_DEADLINE).await, Ok(1));
        let first = worker.id();
        worker.crash().await.unwrap();
        assert_eq!(worker.id(), None);
        assert!(answers(&endpoint, CLIENT_DEADLINE).await.is_err());
        worker.restart().await.unwrap();
        assert_eq!(worker.endpoint(), endpoint);
        assert!(worker.id().is_some() && worker.id() != first);
        assert_eq!(answers(&endpoint, CLIENT_DEADLINE).await, Ok(1));
        assert_eq!(worker.terminate().await.unwrap(), Some(0), "{}", worker.stderr().unwrap());
    }

    #[tokio::test]
    async fn workers_of_a_restarted_cluster_are_where_they_were() {
        let options = ClusterOptions { objects: one_file(), workers: 2, ..ClusterOptions::default() };
        let cluster = TestCluster::start(options).unwrap();
        let places = |cluster: &TestCluster| cluster.workers().iter().map(Running::local_addr).collect::<Vec<_>>();
        let before = places(&cluster);
        let cluster = cluster.restart().unwrap();
        assert_eq!(places(&cluster), before);
        for address in before {
            assert_eq!(answers(&address.to_string(), CLIENT_DEADLINE).await, Ok(1));
        }
    }

    #[test]
    fn settings_have_the_variables_that_the_command_reads() {
        assert_eq!(variable("cache.dir"), "ALCEDO_CACHE__DIR");
        assert_eq!(variable("members_file"), "ALCEDO_MEMBERS_FILE");
    }
}
