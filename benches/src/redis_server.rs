//! `redis-server` as a process of ours: on a free port of loopback, without persistence.
//!
//! Knows Redis's command line and how one connects to it. It must not know what is stored.

use std::process::Stdio;
use std::time::Duration;

use alcedo_testkit::process::free_ports;
use anyhow::{Context, bail};
use redis::IntoConnectionInfo;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// How long it may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is tried.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Longest wait for an answer: far beyond what any takes, so that a busy machine ends no run.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A running server. Dropping it kills the process.
pub struct RedisServer {
    child: Child,
    port: u16,
    _home: TempDir,
}

impl RedisServer {
    /// Starts it with its usual settings but for persistence, and waits until it answers.
    ///
    /// # Errors
    /// It is not installed or does not answer.
    pub async fn start() -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        let port = *free_ports(1)?.first().context("no port")?;
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port.to_string()]);
        command.current_dir(home.path()).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().context("cannot start redis-server: `cargo xtask bench` installs it")?;
        let server = Self { child, port, _home: home };
        let begin = Instant::now();
        while let Err(error) = server.connect().await {
            if begin.elapsed() > START_TIMEOUT {
                bail!("redis-server does not answer: {error:#}");
            }
            sleep(POLL_INTERVAL).await;
        }
        Ok(server)
    }

    /// A connection that many calls share. Without Nagle's algorithm, as Alcedo's are: this client leaves it on
    /// otherwise, and many small requests would wait for each other.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn connect(&self) -> anyhow::Result<MultiplexedConnection> {
        let info = ("127.0.0.1", self.port).into_connection_info()?;
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(RESPONSE_TIMEOUT));
        Ok(redis::Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await?)
    }

    /// The process id; none once it has ended.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }
}
