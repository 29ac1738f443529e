//! A worker process of the built binary: started, waited for, ended by its id.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long a worker may take until it says that it is ready.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it may take to drain after SIGTERM before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// What stands in front of the address in the line that says so.
const READY: &str = " ready on ";

/// A running worker. Dropping it kills the process.
pub(super) struct WorkerProcess {
    child: Child,
    address: String,
}

impl WorkerProcess {
    /// Writes a config and starts a worker on a free port of loopback.
    pub(super) async fn start(directory: &Path, mount: &str, url: &str, endpoint: &str) -> Result<Self> {
        let config = directory.join("worker.toml");
        let text = format!(
            "worker_id = \"w-1\"\nlisten = \"127.0.0.1:0\"\n\n[[mount]]\nname = \"{mount}\"\nurl = \"{url}\"\n\
             endpoint = \"{endpoint}\"\nregion = \"us-east-1\"\nallow_http = true\nanonymous = true\n"
        );
        std::fs::write(&config, text).context("cannot write the worker's config")?;
        let binary = binary()?;
        let mut child = Command::new(&binary)
            .args(["worker", "run", "-c"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let stderr = child.stderr.take().context("the worker has no stderr")?;
        let address =
            tokio::time::timeout(START_TIMEOUT, ready_address(stderr)).await.context("the worker does not start")??;
        Ok(Self { child, address })
    }

    /// host:port of its gRPC listener.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// SIGTERM, and SIGKILL if that does not end it in time.
    pub(super) async fn stop(mut self) -> Result<()> {
        let id = self.child.id().context("the worker has already ended")?;
        let ended = Command::new("kill").arg(id.to_string()).status().await.context("cannot run kill")?;
        ensure!(ended.success(), "the worker {id} cannot be signalled");
        if tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await.is_err() {
            self.child.kill().await.context("the worker cannot be killed")?;
        }
        Ok(())
    }
}

/// Reads the worker's lines until it names its address, then keeps reading so that it never blocks on a full pipe.
async fn ready_address(stderr: tokio::process::ChildStderr) -> Result<String> {
    let mut lines = BufReader::new(stderr).lines();
    let mut seen = Vec::new();
    while let Some(line) = lines.next_line().await? {
        if let Some((_, rest)) = line.split_once(READY) {
            let address = rest.split(',').next().unwrap_or(rest).trim().to_owned();
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(address);
        }
        seen.push(line);
    }
    bail!("the worker ended at once: {}", seen.join("\n"))
}

/// The `alcedo` binary: named by the environment, or beside this program.
fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TESTKIT_ALCEDO") {
        return Ok(path.into());
    }
    let beside = std::env::current_exe()?.with_file_name("alcedo");
    ensure!(beside.exists(), "{} is not built: run `cargo xtask quickstart`", beside.display());
    Ok(beside)
}

/// The binary as a person types it: relative to the current directory where that is shorter.
pub(super) fn binary_text() -> String {
    let Ok(path) = binary() else { return "alcedo".to_owned() };
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(&path).display().to_string()
}
