//! Layer 3: the smaller tables of the settings.
//!
//! Knows what each may hold and its default. It must not know rules between tables, which `config` checks.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::units;

/// The word for "the port after the gRPC listener's".
const BESIDE: &str = "beside";

/// Where the admin port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AdminListen {
    /// On 127.0.0.1 at the port after `listen`'s, or at any free one if that is taken or `listen` has any free port.
    #[default]
    Beside,
    /// Nowhere.
    Off,
    /// Here.
    At(SocketAddr),
}

impl<'de> Deserialize<'de> for AdminListen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            BESIDE => Ok(Self::Beside),
            "" => Ok(Self::Off),
            address => address.parse().map(Self::At).map_err(|_| {
                let forms = format!("an address such as \"127.0.0.1:7611\", \"{BESIDE}\", or empty");
                serde::de::Error::custom(format!("`{address}` is not {forms}"))
            }),
        }
    }
}

/// The table `[admin]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Where metrics, health and the status page are.
    pub listen: AdminListen,
}

/// The table `[connections]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionsConfig {
    /// Open connections.
    pub max: usize,
    /// Calls of one connection at once.
    pub streams: u32,
    /// Unanswered requests of one lookup stream.
    pub unanswered: usize,
    /// A connection without a call is closed after this time.
    #[serde(deserialize_with = "units::duration")]
    pub idle_timeout: Duration,
    /// A connection whose client reads nothing of its answers is closed after this time.
    #[serde(deserialize_with = "units::duration")]
    pub write_timeout: Duration,
    /// A connection ends at the next boundary between messages after this time.
    #[serde(deserialize_with = "units::duration")]
    pub max_age: Duration,
}

impl Default for ConnectionsConfig {
    fn default() -> Self {
        Self {
            max: 4_096,
            streams: 256,
            unanswered: 1_024,
            idle_timeout: Duration::from_secs(300),
            write_timeout: Duration::from_secs(30),
            max_age: Duration::from_secs(1_800),
        }
    }
}

/// Most threads that build: more builds at once are no use while each may take a part of a processor only.
const MAX_PARALLEL_BUILDS: usize = 16;
/// Least memory of a build: a part, what it is made of, and a copy on its way to the disk.
const MIN_BUILD_BYTES: u64 = 64 << 20;

/// The table `[builds]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BuildsConfig {
    /// Builds at once; 0: nothing is built.
    pub parallel: usize,
    /// Part of one processor that each may take, in percent.
    pub cpu_percent: u32,
    /// Bytes of memory that each may take.
    #[serde(rename = "memory", deserialize_with = "units::size")]
    pub memory_bytes: u64,
}

impl Default for BuildsConfig {
    fn default() -> Self {
        Self { parallel: 1, cpu_percent: 20, memory_bytes: 256 << 20 }
    }
}

impl BuildsConfig {
    /// Whether every value is in its range.
    ///
    /// # Errors
    /// The first that is not: its key, and what it may be.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        if self.parallel > MAX_PARALLEL_BUILDS {
            return Err(("builds.parallel", format!("builds.parallel is at most {MAX_PARALLEL_BUILDS}")));
        }
        if self.cpu_percent == 0 || self.cpu_percent > 100 {
            return Err(("builds.cpu_percent", "builds.cpu_percent is at least 1 and at most 100".to_owned()));
        }
        if self.memory_bytes < MIN_BUILD_BYTES {
            return Err(("builds.memory", "builds.memory is at least 64MiB".to_owned()));
        }
        Ok(())
    }
}

/// The table `[drain]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DrainConfig {
    /// For how long a worker that is to stop still serves, so that clients see it leave.
    #[serde(deserialize_with = "units::duration")]
    pub notice: Duration,
    /// Longest time for requests under way after that.
    #[serde(deserialize_with = "units::duration")]
    pub grace: Duration,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self { notice: Duration::from_secs(5), grace: Duration::from_secs(30) }
    }
}

/// The table `[memory]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryConfig {
    /// Memory of the process; 0: no limit of ours.
    #[serde(rename = "limit", deserialize_with = "units::size")]
    pub limit_bytes: u64,
}

/// The table `[log]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Which events are logged; empty: the default of the command.
    pub filter: String,
}
