//! A worker over one mount, its client, and the lake that all peers look at.
//!
//! Knows the worker's configuration file and how a worker starts. It must not know which store is behind the mount.

use std::sync::LazyLock;
use std::time::Duration;

use alcedo_client::Client;
use alcedo_testkit::lake::{SampleLake, SampleSpec};
use alcedo_worker::{Config, Running, Worker};
use bytes::Bytes;

/// Only a hanging test waits so long.
const DEADLINE: Duration = Duration::from_secs(25);

/// Four files of about 1 MB, one of each kind and codec: none fits into the first read of its tail.
pub(crate) static LAKE: LazyLock<SampleLake> =
    LazyLock::new(|| SampleLake::new(SampleSpec { rows: 40_000, files: 4, seed: 11 }).unwrap());

/// The lake's files, made once for all tests.
pub(crate) static FILES: LazyLock<Vec<(String, Bytes)>> =
    LazyLock::new(|| LAKE.files().collect::<Result<_, _>>().unwrap());

/// A worker in this process and a client that knows its address.
pub(crate) struct Served {
    pub(crate) client: Client,
    running: Running,
}

/// What a trip to the store is taken to cost: measured on one machine it would change with every run, and with it what
/// is read along. All stores are on this machine and answer, however late: asked again because the machine stood still,
/// they would count requests that no worker needs.
const ORIGIN: &str = "[origin]\ntrip = \"30ms\"\nbytes_per_second = 100000000\nattempt_timeout = \"20s\"\n\
                      connect_timeout = \"20s\"\n";

/// The freshness of mounts that believe what they know, for longer than any test takes: asking again would be a request
/// too many.
pub(crate) const LASTING: &str = "{ mode = \"ttl\", soft = \"1h\", hard = \"2h\" }";
/// The freshness of mounts that ask first, always.
pub(crate) const ALWAYS: &str = "\"always\"";

/// The configuration file of a worker with the mount `lake`; `mount` is the rest of its table.
pub(crate) fn settings(mount: &str) -> String {
    format!("listen = \"127.0.0.1:0\"\nruntimes = 2\n\n{ORIGIN}\n[[mount]]\nname = \"lake\"\n{mount}\n")
}

/// Starts a worker with these [`settings`].
pub(crate) fn serve(mount: &str) -> Served {
    let running = Worker::start(Config::from_toml(&settings(mount), "peers.toml").unwrap()).unwrap();
    let endpoint = running.local_addr().to_string();
    let client = Client::builder().endpoints([endpoint]).deadline(DEADLINE).build().unwrap();
    Served { client, running }
}

impl Served {
    /// Where the worker listens.
    pub(crate) fn address(&self) -> String {
        self.running.local_addr().to_string()
    }
}
