//! Layer 3: the proof that this worker serves.
//!
//! Knows one lookup of a built-in file of one row, and that each serving thread must answer it. A timer would feed a
//! service manager's watchdog while every serving thread hangs; this does not.
//!
//! The lookup takes a request's own way: HTTP/2 and gRPC on the serving thread, the lookup service, candidates, index,
//! decoding, encoding. Three things on that way are its own. Its connection is a pair of sockets inside the process,
//! one pair per serving thread: through the listener, chance would choose the thread that answers, and a worker whose
//! connections are all taken, or that is out of file descriptors, lives and must not be restarted for it. Its permits
//! are its own, because shedding is no illness either. And its caches are its own and in memory, because a disk that
//! fails costs misses, which a restart does not cure.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use alcedo_origin::{Freshness, Mount, Mounts, OriginLimits};
use alcedo_proto::v1::lookup_service_client::LookupServiceClient;
use alcedo_proto::v1::{self, key, value};
use futures::FutureExt as _;
use hyper_util::rt::TokioIo;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutPayload};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::config::Config;
use crate::connection::Accepted;

/// One row: `id` 1, `bird` "alcedo".
const FILE: &[u8] = include_bytes!("../assets/one_row.parquet");
const MOUNT: &str = "built-in";
const KEY: &str = "one_row.parquet";
/// Memory of the built-in file's caches: it is smaller than a KiB.
const CACHE_BYTES: u64 = 1 << 20;

/// A serving thread did not answer as it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("serving thread {thread}: {why}")]
pub struct Unproven {
    /// Its number.
    pub thread: usize,
    /// What came instead of the row.
    pub why: String,
}

/// Asks every serving thread of one worker.
#[derive(Debug, Clone)]
pub struct Watchdog {
    threads: Vec<Channel>,
}

/// The mount with the built-in file, and settings under which it takes next to nothing.
pub(crate) fn built_in(config: &Config) -> Result<(Config, Mounts), String> {
    let store = InMemory::new();
    let put = store.put(&Path::from(KEY), PutPayload::from_static(FILE)).now_or_never();
    put.ok_or("a write to memory waits")?.map_err(|error| error.to_string())?;
    let mount =
        Mount::with_store(MOUNT, "file:///built-in", Arc::new(store), Freshness::Immutable, OriginLimits::default());
    let mounts = Mounts::from_mounts(vec![mount.map_err(|error| error.to_string())?]);
    let mut own = Config::default();
    own.worker_id.clone_from(&config.worker_id);
    (own.cache.pages_bytes, own.cache.index_bytes, own.cache.listings_bytes) = (CACHE_BYTES, CACHE_BYTES, CACHE_BYTES);
    own.cache.decoded_bytes = 0;
    // How long a thread may take is for who asks to say.
    own.lookup.default_timeout = own.lookup.max_timeout;
    Ok((own, mounts.map_err(|error| error.to_string())?))
}

impl Watchdog {
    /// One connection for each of the threads that these sockets are handed to. Must be called within a runtime, which
    /// must not be one of theirs.
    pub(crate) fn new(threads: &[mpsc::Sender<Accepted>]) -> Self {
        let channel = |thread: &mpsc::Sender<Accepted>| {
            let thread = thread.clone();
            let connect = move |_: Uri| {
                let thread = thread.clone();
                async move {
                    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
                    ours.set_nonblocking(true)?;
                    theirs.set_nonblocking(true)?;
                    let handed = thread.send(Accepted::Own(theirs)).await;
                    handed.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
                    Ok::<_, io::Error>(TokioIo::new(tokio::net::UnixStream::from_std(ours)?))
                }
            };
            Endpoint::from_static("http://built-in").connect_with_connector_lazy(tower::service_fn(connect))
        };
        Self { threads: threads.iter().map(channel).collect() }
    }

    /// Looks the built-in row up on every serving thread.
    ///
    /// # Errors
    /// The first thread that did not answer with the row within this time.
    pub async fn look(&self, within: Duration) -> Result<(), Unproven> {
        let asked = self.threads.iter().enumerate().map(|(thread, channel)| async move {
            match timeout(within, ask(channel.clone())).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(why)) => Err(Unproven { thread, why }),
                Err(_) => Err(Unproven { thread, why: format!("no answer within {within:?}") }),
            }
        });
        futures::future::try_join_all(asked).await.map(|_| ())
    }

    /// Looks again and again, as long as it is polled, and feeds after each proof. A proof that fails is logged, and
    /// nothing is fed.
    pub async fn run(&self, every: Duration, mut feed: impl FnMut()) {
        let mut next = Instant::now();
        loop {
            match self.look(every).await {
                Ok(()) => feed(),
                Err(unproven) => tracing::error!(%unproven, "the watchdog is not fed"),
            }
            next = (next + every).max(Instant::now());
            tokio::time::sleep_until(next).await;
        }
    }
}

async fn ask(channel: Channel) -> Result<(), String> {
    let request = v1::LookupRequest {
        path: format!("{MOUNT}/{KEY}"),
        key_column: "id".to_owned(),
        keys: vec![v1::Key { kind: Some(key::Kind::Int(1)) }],
        ..v1::LookupRequest::default()
    };
    let answer = LookupServiceClient::new(channel).lookup(request).await;
    let answer = answer.map_err(|status| status.message().to_owned())?.into_inner().answer.unwrap_or_default();
    let mut rows = answer.files.iter().flat_map(|file| &file.typed);
    let bird = rows.next().and_then(|row| row.values.get(1)).and_then(|value| value.kind.as_ref());
    match bird {
        Some(value::Kind::String(bird)) if bird == "alcedo" => Ok(()),
        _ => Err("the answer is not the row".to_owned()),
    }
}
