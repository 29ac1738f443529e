//! Processes of the built command: run to their end, or as workers that can be killed, frozen and started again.
//!
//! Layer 5. It knows the command's environment, signals and the line in which a worker says where it listens. It must
//! not know what is asked of them. Nothing outlives its handle: a process is ended by its own id, never by its name.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::Child;
use tokio::time::{sleep, timeout};

/// Longest run of the command, and longest start or drain of a worker, after which it is killed and the test fails.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// How often it is looked whether a worker is ready.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Ports that are handed out ahead of time. They lie below the range from which the kernel takes ports of outgoing
/// connections, so that a worker which is down for a while finds its port free when it comes back.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// How many ports are tried until enough free ones are found.
const PORT_TRIES: usize = 2_000;
/// What a configuration says whose worker may have any port.
const ANY_PORT: &str = "listen = \"127.0.0.1:0\"";
/// The variable that sets the same.
const LISTEN: &str = "ALCEDO_LISTEN";
/// What a command may take for a call unless a test says less: no test fails because a machine is slow.
const CALL_TIMEOUT: &str = "25s";

/// The built `alcedo`: `TESTKIT_ALCEDO`, which `cargo xtask` sets, or else beside the running test or program.
///
/// # Errors
/// When it is not there.
pub fn alcedo_binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("TESTKIT_ALCEDO") {
        return Ok(path.into());
    }
    // A test is in target/<profile>/deps, a program one directory higher.
    let program = std::env::current_exe()?;
    let mut places = program.ancestors().skip(1).take(2).map(|directory| directory.join("alcedo"));
    places
        .find(|path| path.is_file())
        .context("the command `alcedo` is not built: run `cargo xtask test`, or `cargo build --workspace --bins` first")
}

/// The command with no settings of the machine or its user: an environment of its own, `home` as its directory, and
/// time for its calls.
///
/// # Errors
/// When it is not built.
pub fn command(home: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(alcedo_binary()?);
    command.env_clear().env("HOME", home).env("ALCEDO_TIMEOUT", CALL_TIMEOUT).current_dir(home).stdin(Stdio::null());
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

/// Ports of loopback that are free now and that no outgoing connection takes later. The port after each of them is free
/// as well: there a worker has its admin listener.
///
/// # Errors
/// When not enough are free.
pub fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let pairs = u32::from(PORTS.end - PORTS.start) / 2;
    // Processes that look at the same time begin far apart; within one, no port is handed out twice.
    let begin = std::process::id().wrapping_mul(0x9e37_79b9) >> 16;
    let mut ports = Vec::with_capacity(count);
    for _ in 0..PORT_TRIES {
        if ports.len() == count {
            break;
        }
        let pair = (begin + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % pairs;
        let port = PORTS.start + u16::try_from(pair * 2)?;
        let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if is_free(port) && is_free(port + 1) {
            ports.push(port);
        }
    }
    ensure!(ports.len() == count, "{PORT_TRIES} ports were tried and fewer than {count} are free");
    Ok(ports)
}

/// A configuration in which any port is one of [`free_ports`]: a worker that is down for a while must find its own free
/// when it comes back, and until then nobody may answer there.
fn at_a_kept_port(toml: &str, environment: &[(&str, &str)]) -> anyhow::Result<String> {
    if !toml.contains(ANY_PORT) || environment.iter().any(|(name, _)| *name == LISTEN) {
        return Ok(toml.to_owned());
    }
    let port = free_ports(1)?.first().copied().context("no port is free")?;
    Ok(toml.replace(ANY_PORT, &format!("listen = \"127.0.0.1:{port}\"")))
}

/// Where a worker's process lives.
enum Home {
    /// A directory that goes with the handle.
    Own(TempDir),
    /// The caller's directory.
    Given(PathBuf),
}

/// `alcedo worker run` in a process of its own, which is killed with this handle.
///
/// Its directory holds `worker.toml` and what it says (`stdout`, `stderr`); a relative `cache.dir` is below it.
pub struct WorkerProcess {
    child: Child,
    home: Home,
    environment: Vec<(String, String)>,
    endpoint: String,
}

impl WorkerProcess {
    /// Starts a worker with this configuration and these environment variables in a directory of its own, and waits
    /// until it is ready.
    ///
    /// # Errors
    /// When it ends instead; the error has what it said.
    pub async fn start(toml: &str, environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        Self::launch(Home::Own(home), toml, environment).await
    }

    /// The same in a directory of the caller's, which stays when the worker is gone.
    ///
    /// # Errors
    /// When it ends instead; the error has what it said.
    pub async fn start_in(home: &Path, toml: &str, environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::launch(Home::Given(home.to_path_buf()), toml, environment).await
    }

    async fn launch(home: Home, toml: &str, environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        fs::write(home.path().join("worker.toml"), at_a_kept_port(toml, environment)?)?;
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>();
        let child = spawn_worker(home.path(), &environment)?;
        let mut worker = Self { child, home, environment, endpoint: String::new() };
        worker.await_ready().await?;
        Ok(worker)
    }

    async fn await_ready(&mut self) -> anyhow::Result<()> {
        match timeout(COMMAND_TIMEOUT, self.ready()).await {
            Ok(Some(endpoint)) => self.endpoint = endpoint,
            Ok(None) => bail!("the worker ended: {}", self.stderr()?),
            Err(_) => bail!("the worker did not get ready within {COMMAND_TIMEOUT:?}: {}", self.stderr()?),
        }
        Ok(())
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
        self.crash().await
    }

    /// SIGKILL, and waits until it is gone; [`WorkerProcess::restart`] brings it back. Nothing happens to one that is
    /// gone already.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn crash(&mut self) -> anyhow::Result<()> {
        // The handle knows of no process once its end has been waited for.
        if self.child.id().is_some() {
            self.child.kill().await?;
        }
        Ok(())
    }

    /// SIGTERM, and waits until it has drained and ended; its exit code, none when a signal ended it.
    ///
    /// # Errors
    /// When it is gone already or does not end in time; then it is killed.
    pub async fn terminate(&mut self) -> anyhow::Result<Option<i32>> {
        self.signal(Signal::TERM)?;
        let Ok(status) = timeout(COMMAND_TIMEOUT, self.child.wait()).await else {
            self.crash().await?;
            bail!("the worker did not end within {COMMAND_TIMEOUT:?} of SIGTERM: {}", self.stderr()?)
        };
        Ok(status?.code())
    }

    /// SIGHUP: it reads its configuration again.
    ///
    /// # Errors
    /// When it is gone.
    pub fn reload(&self) -> anyhow::Result<()> {
        self.signal(Signal::HUP)
    }

    /// SIGSTOP: its sockets stay open and nothing answers, until [`WorkerProcess::thaw`].
    ///
    /// # Errors
    /// When it is gone.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT: a frozen worker goes on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Starts it again on the same port, in the same directory and environment, with what `worker.toml` says now, and
    /// waits until it is ready. One that still runs is killed first.
    ///
    /// # Errors
    /// When it ends instead; the error has what it said.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.crash().await?;
        let mut environment = self.environment.clone();
        environment.push((LISTEN.to_owned(), self.endpoint.clone()));
        self.child = spawn_worker(self.home.path(), &environment)?;
        self.await_ready().await
    }

    /// The process id; none once it has ended.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The process's directory.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// `host:port` of the worker.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What it has printed since it was last started.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn stdout(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.home.path().join("stdout"))?)
    }

    /// What it has said beside since it was last started: its log.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn stderr(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.home.path().join("stderr"))?)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        // The id is ours until the child is waited for, so nobody else can be hit.
        let id = self.child.id().context("the worker has ended")?;
        let pid = Pid::from_raw(id.try_into()?).context("the worker has no process id")?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Home {
    fn path(&self) -> &Path {
        match self {
            Self::Own(directory) => directory.path(),
            Self::Given(path) => path,
        }
    }
}

fn spawn_worker(home: &Path, environment: &[(String, String)]) -> anyhow::Result<Child> {
    let mut command = command(home)?;
    command.args(["worker", "run", "-c", "worker.toml"]);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    spawn(command, &home.join("stdout"), &home.join("stderr"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_are_distinct_and_outside_of_what_outgoing_connections_take() {
        let mut ports = free_ports(20).unwrap();
        ports.extend(free_ports(20).unwrap());
        assert!(ports.iter().all(|port| PORTS.contains(port)), "{ports:?}");
        ports.sort_unstable();
        assert_eq!(ports.len(), 40);
        assert!(ports.windows(2).all(|two| two[1] - two[0] >= 2), "each has the next one to itself: {ports:?}");
    }
    #[test]
    fn a_worker_that_may_have_any_port_has_one_that_it_finds_again() {
        let toml = format!("worker_id = \"w\"\n{ANY_PORT}\n");
        let kept = at_a_kept_port(&toml, &[]).unwrap();
        let port = kept.split_once("127.0.0.1:").unwrap().1.split_once('"').unwrap().0;
        assert!(PORTS.contains(&port.parse::<u16>().unwrap()), "{kept}");
        assert_eq!(at_a_kept_port(&toml, &[(LISTEN, "127.0.0.1:9")]).unwrap(), toml);
        assert_eq!(at_a_kept_port(&kept, &[]).unwrap(), kept);
    }
}
