//! A whole cluster in this process: a store, a worker over it, a client of it; and the built command beside them.
//!
//! Layer 5. It knows how a worker is configured (as text, so that the way of a real configuration is gone) and how the
//! command is started in an environment of its own. It must not know what is asked of them: that is each test's.
//! Nothing outlives its handle: the worker's threads are joined, and a process is killed by its own id.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use alcedo_client::Client;
use alcedo_worker::{Config, Running, Worker};
use anyhow::{Context, bail};
use bytes::Bytes;
use tempfile::TempDir;
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use crate::s3::{S3Options, S3Server};

/// The bucket that the mount `lake` stands for.
pub const BUCKET: &str = "lake";
/// Deadline of the client's calls: far longer than any answer takes, so that a slow machine fails no test.
const CLIENT_DEADLINE: Duration = Duration::from_secs(25);
/// Longest run of the command, after which it is killed and the test fails.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// How often it is looked whether a worker is ready.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// What a cluster is made of.
#[derive(Debug, Default)]
pub struct ClusterOptions {
    /// Keys and contents of the objects in [`BUCKET`].
    pub objects: Vec<(String, Bytes)>,
    /// How the store is started.
    pub store: S3Options,
    /// Further lines of the mount `lake`, as TOML.
    pub mount: String,
    /// Further tables of the worker's configuration, as TOML.
    pub tables: String,
    /// A directory that is mounted as `local`.
    pub local: Option<PathBuf>,
}

/// A store, a worker and a client. Dropping it stops all of them.
pub struct TestCluster {
    client: Client,
    worker: Running,
    store: S3Server,
    home: TempDir,
}

impl TestCluster {
    /// Starts the store with its objects, then a worker on a free port. The client has not connected yet.
    ///
    /// # Errors
    /// When the configuration is wrong or something cannot be started.
    pub fn start(options: ClusterOptions) -> anyhow::Result<Self> {
        let store = S3Server::start(options.store)?;
        store.create_bucket(BUCKET);
        for (key, bytes) in options.objects {
            store.put(BUCKET, &key, bytes);
        }
        let mut text = worker_toml(&store.url(), &options.mount, &options.tables);
        if let Some(directory) = &options.local {
            text += &format!("[[mount]]\nname = \"local\"\nurl = \"file://{}\"\n", directory.display());
        }
        let worker = Worker::start(Config::from_toml(&text, "worker.toml")?)?;
        let endpoint = worker.local_addr().to_string();
        let client = Client::builder().endpoints([endpoint]).deadline(CLIENT_DEADLINE).build()?;
        Ok(Self { client, worker, store, home: tempfile::tempdir()? })
    }

    /// A client of the worker.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The worker.
    #[must_use]
    pub fn worker(&self) -> &Running {
        &self.worker
    }

    /// The store below the mount `lake`.
    #[must_use]
    pub fn store(&self) -> &S3Server {
        &self.store
    }

    /// `host:port` of the worker.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.worker.local_addr().to_string()
    }

    /// Runs the built command against this worker, in an empty home directory.
    ///
    /// # Errors
    /// When the command is not built, or does not end.
    pub async fn run(&self, args: &[&str]) -> anyhow::Result<Finished> {
        let mut command = command(self.home.path())?;
        command.args(args).env("ALCEDO_ENDPOINTS", self.endpoint());
        run(command).await
    }
}

/// The configuration of a worker with the mount `lake` on a store at this URL, anonymous unless `mount` says more.
#[must_use]
pub fn worker_toml(store_url: &str, mount: &str, tables: &str) -> String {
    let access = if mount.contains("credentials_file") { "" } else { "anonymous = true\n" };
    format!(
        "worker_id = \"w-1\"\nlisten = \"127.0.0.1:0\"\nruntimes = 2\n{tables}\n\
         [[mount]]\nname = \"lake\"\nurl = \"s3://{BUCKET}\"\nendpoint = \"{store_url}\"\nregion = \"us-east-1\"\n\
         allow_http = true\n{access}{mount}\n"
    )
}

/// The built `alcedo`: `TESTKIT_ALCEDO`, which `cargo xtask` sets, or else beside the running test.
///
/// # Errors
/// When it is not there.
pub fn alcedo_binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("TESTKIT_ALCEDO") {
        return Ok(path.into());
    }
    let test = std::env::current_exe()?;
    let binary = test.ancestors().nth(2).map(|directory| directory.join("alcedo")).filter(|path| path.is_file());
    binary
        .context("the command `alcedo` is not built: run `cargo xtask test`, or `cargo build --workspace --bins` first")
}

/// The command with no settings of the machine or its user: an environment of its own, and `home` as its directory.
///
/// # Errors
/// When it is not built.
pub fn command(home: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(alcedo_binary()?);
    command.env_clear().env("HOME", home).current_dir(home).stdin(Stdio::null());
    Ok(command)
}

/// What a command said and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said beside.
    pub stderr: String,
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot be started or does not end by itself; then it is killed.
pub async fn run(command: Command) -> anyhow::Result<Finished> {
    let said = tempfile::tempdir()?;
    let (out, err) = (said.path().join("stdout"), said.path().join("stderr"));
    let mut child = spawn(command, &out, &err)?;
    let Ok(status) = timeout(COMMAND_TIMEOUT, child.wait()).await else {
        child.kill().await?;
        bail!("the command did not end within {COMMAND_TIMEOUT:?}; it said {}", fs::read_to_string(err)?)
    };
    Ok(Finished { code: status?.code(), stdout: fs::read_to_string(out)?, stderr: fs::read_to_string(err)? })
}

/// Starts a process that does not outlive its handle. What it says goes into files, so that it waits for no reader.
fn spawn(mut command: Command, out: &Path, err: &Path) -> anyhow::Result<Child> {
    command.stdout(File::create(out)?).stderr(File::create(err)?);
    let started = tokio::process::Command::from(command).kill_on_drop(true).spawn();
    started.context("cannot start a process")
}

/// `alcedo worker run` in a process of its own, which is killed with this handle.
pub struct WorkerProcess {
    child: Child,
    home: TempDir,
    endpoint: String,
}

impl WorkerProcess {
    /// Starts a worker with this configuration and these environment variables, and waits until it is ready.
    ///
    /// # Errors
    /// When it ends instead; the error has what it said.
    pub async fn start(toml: &str, environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        fs::write(home.path().join("worker.toml"), toml)?;
        let mut command = command(home.path())?;
        command.args(["worker", "run", "-c", "worker.toml"]).envs(environment.iter().copied());
        let child = spawn(command, &home.path().join("stdout"), &home.path().join("stderr"))?;
        let mut worker = Self { child, home, endpoint: String::new() };
        match timeout(COMMAND_TIMEOUT, worker.ready()).await {
            Ok(Some(endpoint)) => worker.endpoint = endpoint,
            Ok(None) => bail!("the worker ended: {}", worker.stderr()?),
            Err(_) => bail!("the worker did not get ready within {COMMAND_TIMEOUT:?}: {}", worker.stderr()?),
        }
        Ok(worker)
    }

    /// Where it listens, once it says so; none when it ended.
    async fn ready(&mut self) -> Option<String> {
        loop {
            let said = self.stderr().ok()?;
            let ready = said.lines().find_map(|line| line.split_once(" ready on ")?.1.split_once(','));
            if let Some((endpoint, _)) = ready {
                return Some(endpoint.to_owned());
            }
            match self.child.try_wait() {
                Ok(None) => sleep(POLL_INTERVAL).await,
                Ok(Some(_)) | Err(_) => return None,
            }
        }
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// `host:port` of the worker.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What it has printed so far.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn stdout(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.home.path().join("stdout"))?)
    }

    /// What it has said beside so far: its log.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn stderr(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.home.path().join("stderr"))?)
    }
}
