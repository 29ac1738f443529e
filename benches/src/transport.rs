//! The ways between a client and a worker: TCP, a Unix socket, or none at all.
//!
//! Knows how each is configured and opened. It must not know what is asked over it.

use std::path::Path;

use alcedo_client::Client;
use alcedo_testkit::s3::S3Server;
use alcedo_worker::{Config, Running, Worker};

use crate::built;
use crate::worker::{DEADLINE, free_address, toml};

/// What a lookup travels over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP over loopback.
    Tcp,
    /// A Unix socket of the same host.
    Socket,
    /// The worker is in the client's process.
    InProcess,
}

impl Transport {
    /// What it is called in a row's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "over TCP",
            Self::Socket => "over a Unix socket",
            Self::InProcess => "in process",
        }
    }
}

/// The setting with which a worker listens on this socket too; clients on the same host then change over to it.
#[must_use]
pub fn listening(socket: &Path) -> (&'static str, String) {
    ("listen_unix", format!("\"{}\"", socket.display()))
}

/// A worker in this process. Dropping it stops it.
pub struct Embedded(Running);

impl Embedded {
    /// Starts one over this store, with its page store in this directory.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(store: &S3Server, cache: &Path) -> anyhow::Result<Self> {
        let text = toml(&store.url(), &free_address()?, cache, built::FAST);
        Ok(Self(Worker::start(Config::from_toml(&text, "worker.toml")?)?))
    }

    /// A client of it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::builder().in_process(self.0.local()).deadline(DEADLINE).build()?)
    }

    /// Where it listens too: its metrics are at the next port.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.0.local_addr().to_string()
    }
}
