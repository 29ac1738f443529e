//! A worker as a process over files of this machine, and what it says of itself.
//!
//! Knows the worker's settings, its admin port and the command's other ends. It must not know what is asked of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use alcedo_client::{Builder, Client};
use alcedo_testkit::cluster::{BUCKET, WorkerProcess, free_ports};
use alcedo_testkit::s3::{S3Options, S3Server};
use anyhow::{Context, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Deadline of a call: far beyond what any takes, so that a busy machine ends no run.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A worker over a store of its own, warm or cold. Dropping it ends the process.
pub struct BenchWorker {
    process: WorkerProcess,
    store: S3Server,
    _home: TempDir,
}

/// The numbers of `/metrics`, by name with labels as they are written there.
#[derive(Debug, Clone, Default)]
pub struct Metrics(BTreeMap<String, f64>);

impl BenchWorker {
    /// Starts one over these objects, which are files. It has one runtime, as Redis has one thread, and its page store
    /// on disk.
    ///
    /// # Errors
    /// Something cannot be started.
    pub async fn start(settings: Settings<'_>, objects: &[(&str, &Path)]) -> anyhow::Result<Self> {
        let store = S3Server::start(S3Options::default())?;
        store.create_bucket(BUCKET);
        for (key, path) in objects {
            store.put_file(BUCKET, key, path)?;
        }
        let home = tempfile::tempdir()?;
        let toml = toml(&store.url(), &free_address()?, &home.path().join("cache"), settings);
        let process = WorkerProcess::start_in(home.path(), &toml, &[]).await?;
        Ok(Self { process, store, _home: home })
    }

    /// Settings of a client of it.
    pub fn client(&self) -> Builder {
        Client::builder().endpoints([self.process.endpoint().to_owned()]).deadline(DEADLINE)
    }

    /// `host:port`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        self.process.endpoint()
    }

    /// Its process.
    ///
    /// # Errors
    /// It has ended.
    pub fn id(&self) -> anyhow::Result<u32> {
        self.process.id().context("the worker has ended")
    }

    /// The store below it.
    #[must_use]
    pub fn store(&self) -> &S3Server {
        &self.store
    }

    /// What it counts.
    ///
    /// # Errors
    /// The admin port does not answer.
    pub async fn metrics(&self) -> anyhow::Result<Metrics> {
        Metrics::read(self.endpoint()).await
    }

    /// Bytes of memory that its process has in RAM.
    ///
    /// # Errors
    /// It has ended.
    pub fn resident_bytes(&self) -> anyhow::Result<f64> {
        resident_bytes(self.id()?)
    }
}

/// An address to listen on, whose next port is free too: there is the admin port.
///
/// # Errors
/// No port is free.
pub fn free_address() -> anyhow::Result<String> {
    Ok(format!("127.0.0.1:{}", free_ports(1)?.first().context("no port")?))
}

/// Keys and values of a worker's configuration, values as TOML.
pub type Settings<'a> = &'a [(&'a str, &'a str)];

/// A worker's configuration with the mount that [`BUCKET`] is.
#[must_use]
pub fn toml(store: &str, listen: &str, cache: &Path, settings: Settings<'_>) -> String {
    let lines: String = settings.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    format!(
        "worker_id = \"bench\"\nlisten = \"{listen}\"\nruntimes = 1\ncache.dir = \"{}\"\n{lines}\n\
         [[mount]]\nname = \"{BUCKET}\"\nurl = \"s3://{BUCKET}\"\nendpoint = \"{store}\"\nregion = \"us-east-1\"\n\
         allow_http = true\nanonymous = true\n",
        cache.display(),
    )
}

/// Bytes of memory that a process has in RAM.
///
/// # Errors
/// It has ended.
pub fn resident_bytes(process: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/statm")).context("a measured process is gone")?;
    let pages: f64 = status.split_whitespace().nth(1).context("statm has no second field")?.parse()?;
    Ok(pages * 4096.0)
}

impl Metrics {
    /// Reads those of the worker that listens there: its admin port is the next one.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn read(endpoint: &str) -> anyhow::Result<Self> {
        let (host, port) = endpoint.rsplit_once(':').context("an endpoint without a port")?;
        let port: u16 = port.parse()?;
        let mut stream = TcpStream::connect((host, port + 1)).await.context("the admin port does not answer")?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        ensure!(text.starts_with("HTTP/1.1 200"), "the admin port says {:?}", text.lines().next());
        Ok(Self::parse(&text))
    }

    pub(crate) fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            (!line.starts_with('#')).then_some((name.to_owned(), value.parse().ok()?))
        };
        Self(text.lines().filter_map(sample).collect())
    }

    /// The cumulative buckets of a histogram with this label, by their bounds in seconds, lowest first.
    #[must_use]
    pub fn buckets(&self, name: &str, label: &str) -> Vec<(f64, f64)> {
        let bucket = |(sample, count): (&String, &f64)| {
            let (its_name, labels) = sample.split_once('{')?;
            let bound = labels.split("le=\"").nth(1)?.split('"').next()?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            (its_name == name && labels.contains(label)).then_some((bound, *count))
        };
        let mut buckets: Vec<(f64, f64)> = self.0.iter().filter_map(bucket).collect();
        buckets.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        buckets
    }

    /// The sum of all samples of this name whose labels contain all of these, such as `cache="page"`.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let fits = |sample: &str| {
            let (its_name, its_labels) = sample.split_once('{').unwrap_or((sample, ""));
            its_name == name && labels.iter().all(|label| its_labels.contains(label))
        };
        self.0.iter().filter(|(sample, _)| fits(sample)).map(|(_, value)| value).sum()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_over_their_labels() {
        let text = "# TYPE a counter\na_total{cache=\"page\",result=\"hit\"} 3\n\
                    a_total{cache=\"page\",result=\"miss\"} 4\na_total{cache=\"index\",result=\"hit\"} 5\nb 1.5\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.sum("a_total", &["cache=\"page\""]), 7.0);
        assert_eq!(metrics.sum("a_total", &["cache=\"page\"", "result=\"hit\""]), 3.0);
        assert_eq!((metrics.sum("b", &[]), metrics.sum("c", &[])), (1.5, 0.0));
    }

    #[test]
    fn a_configuration_is_what_the_worker_reads() {
        let text = toml("http://127.0.0.1:1", "127.0.0.1:0", Path::new("/tmp/x"), &[("lookup.permits", "9")]);
        let config = alcedo_worker::Config::from_toml(&text, "worker.toml").unwrap();
        assert_eq!(config.cache.dir.as_deref(), Some(Path::new("/tmp/x")));
    }
}
