//! One mount: a configured name for one prefix of one origin. Knows its configuration, freshness and counters; must not
//! know paths of requests or how reads are done, which live beside it.

use crate::error::Error;
use crate::limits::{BUFFER_UNIT_BYTES, OriginLimits, duration};
use crate::pace::{Pace, PaceMeter};
use crate::place::parse_key;
use crate::resolve::is_mount_name;
use crate::secret::scrub;
use crate::stores::{self, Opened};
use object_store::ObjectStore;
use object_store::list::PaginatedListStore;
use object_store::path::Path;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// A mount as the configuration file writes it. Unknown keys are errors. Its `Debug` output shows no credential, even
/// where somebody wrote one into a URL.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountConfig {
    /// Its name in requests: `[a-z0-9][a-z0-9_-]{0,62}`.
    pub name: String,
    /// What it mounts: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or `file:///absolute/dir`.
    pub url: String,
    /// Another address of the store's API, for stores compatible with S3 and for emulators.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// S3 region; `us-east-1` when neither this nor the environment says.
    #[serde(default)]
    pub region: Option<String>,
    /// Azure storage account.
    #[serde(default)]
    pub account: Option<String>,
    /// Whether plain HTTP may be used: requests and data travel readable by anybody on the way.
    #[serde(default)]
    pub allow_http: bool,
    /// Whether requests are sent unsigned, for public buckets.
    #[serde(default)]
    pub anonymous: bool,
    /// Credentials, outside the configuration. S3: lines `aws_access_key_id = ...`, `aws_secret_access_key = ...` and
    /// optionally `aws_session_token = ...`. GCS: a service account's JSON file. Azure: `account = ...` and `key =
    /// ...`, or `sas_token = ...`. Without it (and unless `anonymous`) the store's standard environment variables and
    /// instance metadata are used.
    #[serde(default)]
    pub credentials_file: Option<PathBuf>,
    /// How old knowledge about a file may be.
    #[serde(default)]
    pub freshness: Freshness,
    /// Limits of this mount, instead of those of all mounts.
    #[serde(default)]
    pub limits: Option<OriginLimits>,
}

impl MountConfig {
    /// A mount with a name and a URL and every other setting at its default.
    pub fn new(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            endpoint: None,
            region: None,
            account: None,
            allow_http: false,
            anonymous: false,
            credentials_file: None,
            freshness: Freshness::default(),
            limits: None,
        }
    }
}

impl fmt::Debug for MountConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountConfig")
            .field("name", &scrub(&self.name))
            .field("url", &scrub(&self.url))
            .field("endpoint", &self.endpoint.as_deref().map(scrub))
            .field("region", &self.region)
            .field("account", &self.account)
            .field("allow_http", &self.allow_http)
            .field("anonymous", &self.anonymous)
            .field("credentials_file", &self.credentials_file)
            .field("freshness", &self.freshness)
            .field("limits", &self.limits)
            .finish()
    }
}

/// For how long what is known about a file is believed without asking the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// For ever: files under this mount are never overwritten. Written `"immutable"`.
    Immutable,
    /// Until `soft` has passed without asking; then the answer is still given while the origin is asked in the
    /// background; after `hard`, the bound of staleness, the origin is asked first. Written
    /// `{ mode = "ttl", soft = "30s", hard = "5min" }`, or `"ttl"` for these same defaults.
    Ttl {
        /// Age from which the origin is asked in the background.
        soft: Duration,
        /// Age from which the origin is asked before answering.
        hard: Duration,
    },
    /// Never: every lookup asks the origin first. Written `"always"`.
    Always,
}

/// Default age from which the origin is asked in the background.
const SOFT_TTL: Duration = Duration::from_secs(30);

/// Default bound of staleness.
const HARD_TTL: Duration = Duration::from_secs(300);

impl Default for Freshness {
    fn default() -> Self {
        Self::Ttl { soft: SOFT_TTL, hard: HARD_TTL }
    }
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Immutable => f.write_str("immutable"),
            Self::Ttl { soft, hard } => {
                write!(f, "ttl {}/{}", humantime::format_duration(*soft), humantime::format_duration(*hard))
            }
            Self::Always => f.write_str("always"),
        }
    }
}

/// The table form of [`Freshness`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FreshnessTable {
    mode: String,
    #[serde(default, deserialize_with = "some_duration")]
    soft: Option<Duration>,
    #[serde(default, deserialize_with = "some_duration")]
    hard: Option<Duration>,
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

impl FreshnessTable {
    fn checked(self) -> Result<Freshness, String> {
        match self.mode.as_str() {
            "immutable" | "always" if self.soft.is_some() || self.hard.is_some() => {
                Err(format!("freshness mode \"{}\" has neither soft nor hard", self.mode))
            }
            "immutable" => Ok(Freshness::Immutable),
            "always" => Ok(Freshness::Always),
            "ttl" => {
                let hard = self.hard.unwrap_or(HARD_TTL);
                let soft = self.soft.unwrap_or(SOFT_TTL.min(hard));
                if soft > hard {
                    return Err("freshness: soft must not be longer than hard".to_owned());
                }
                Ok(Freshness::Ttl { soft, hard })
            }
            other => Err(format!("freshness mode \"{other}\" is unknown: use \"immutable\", \"ttl\" or \"always\"")),
        }
    }
}

impl<'de> Deserialize<'de> for Freshness {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Freshness;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"immutable\", \"ttl\", \"always\" or { mode = \"ttl\", soft = \"30s\", hard = \"5min\" }")
            }

            fn visit_str<E: serde::de::Error>(self, mode: &str) -> Result<Freshness, E> {
                FreshnessTable { mode: mode.to_owned(), soft: None, hard: None }.checked().map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Freshness, A::Error> {
                FreshnessTable::deserialize(MapAccessDeserializer::new(map))?.checked().map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_any(Form)
    }
}

/// The kind of an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scheme {
    /// `s3://`: Amazon S3 and stores compatible with it.
    S3,
    /// `gs://`: Google Cloud Storage.
    Gcs,
    /// `az://`: Azure Blob Storage.
    Azure,
    /// `file://`: a directory of this machine, or one mounted on it.
    File,
}

impl Scheme {
    /// The scheme as URLs write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
            Self::File => "file",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::S3, Self::Gcs, Self::Azure, Self::File].into_iter().find(|scheme| scheme.as_str() == text)
    }
}

/// What was asked of one origin, per attempt that was really sent.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) gets: AtomicU64,
    pub(crate) heads: AtomicU64,
    pub(crate) lists: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) errors: AtomicU64,
}

impl Counts {
    /// Adds to one counter.
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

/// A mount's counters since it was opened. Each grows only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CountsSnapshot {
    /// GET requests sent, failed attempts included.
    pub gets: u64,
    /// HEAD requests sent.
    pub heads: u64,
    /// Listing requests sent, one per page of a listing.
    pub lists: u64,
    /// Bytes of file content received, whether or not they could be used.
    pub bytes: u64,
    /// Attempts after the first of their call.
    pub retries: u64,
    /// Attempts that ended without an answer, with a broken or refusing one, or with the deadline. That a file does not
    /// exist or has changed is an answer.
    pub errors: u64,
}

/// One mount, ready to be read. Listing, reading and stating are in this crate's `list` and `read` modules.
pub struct Mount {
    name: Arc<str>,
    url: Arc<str>,
    scheme: Scheme,
    freshness: Freshness,
    /// Where the mount's keys start in the store.
    pub(crate) prefix: Path,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) pages: Option<Arc<dyn PaginatedListStore>>,
    pub(crate) limits: OriginLimits,
    pub(crate) counts: Counts,
    pub(crate) meter: PaceMeter,
    /// Turns of requests under way.
    pub(crate) turns: Semaphore,
    /// Room for answers on their way, in units of [`BUFFER_UNIT_BYTES`].
    pub(crate) room: Semaphore,
}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The store is left out: what a foreign store prints is unknown.
        f.debug_struct("Mount")
            .field("name", &self.name)
            .field("url", &self.url)
            .field("freshness", &self.freshness)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Mount {
    /// Opens one configured mount. `limits` hold if the configuration gives none.
    pub(crate) fn open(config: &MountConfig, limits: &OriginLimits) -> Result<Self, Error> {
        let limits = config.limits.as_ref().unwrap_or(limits).clone();
        let address = Address::parse(&config.name, &config.url)?;
        if let Some(why) = limits.defect() {
            return Err(Error::config(&config.name, why));
        }
        let opened = stores::open(config, address.scheme, &address.root, &limits)
            .map_err(|why| Error::config(&config.name, why))?;
        Self::build(&config.name, address, opened, config.freshness, limits)
    }

    /// A mount over a store of the caller's own, for tests and embedders. The store is rooted at the URL's bucket or
    /// container: the mount reads its objects under the URL's path. A `file://` mount's store is rooted at the
    /// directory.
    ///
    /// # Errors
    /// [`Error::Config`] if the name, the URL or the limits are unusable.
    pub fn with_store(
        name: &str,
        url: &str,
        store: Arc<dyn ObjectStore>,
        freshness: Freshness,
        limits: OriginLimits,
    ) -> Result<Self, Error> {
        let address = Address::parse(name, url)?;
        Self::build(name, address, Opened { store, pages: None }, freshness, limits)
    }

    fn build(
        name: &str,
        address: Address,
        opened: Opened,
        freshness: Freshness,
        limits: OriginLimits,
    ) -> Result<Self, Error> {
        if !is_mount_name(name) {
            return Err(Error::config(name, "a mount's name has the form [a-z0-9][a-z0-9_-]{0,62}"));
        }
        if let Some(why) = limits.defect() {
            return Err(Error::config(name, why));
        }
        let room = usize::try_from(limits.buffered_bytes / BUFFER_UNIT_BYTES).unwrap_or(Semaphore::MAX_PERMITS);
        Ok(Self {
            name: name.into(),
            url: address.url.into(),
            scheme: address.scheme,
            freshness,
            prefix: address.prefix,
            store: opened.store,
            pages: opened.pages,
            turns: Semaphore::new(limits.concurrent_gets),
            room: Semaphore::new(room.min(Semaphore::MAX_PERMITS)),
            meter: PaceMeter::new(address.scheme, &limits),
            limits,
            counts: Counts::default(),
        })
    }

    /// Its name in requests.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its URL, without a slash at the end; the canonical URLs of its files start with it.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn shared_url(&self) -> Arc<str> {
        Arc::clone(&self.url)
    }

    /// How old knowledge about its files may be.
    pub fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// The kind of its origin.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Its limits.
    pub fn limits(&self) -> &OriginLimits {
        &self.limits
    }

    /// What asking its origin costs: measured on the last answers, or what the limits fix.
    pub fn pace(&self) -> Pace {
        self.meter.pace()
    }

    /// What has been asked of its origin so far.
    pub fn counts(&self) -> CountsSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CountsSnapshot {
            gets: read(&self.counts.gets),
            heads: read(&self.counts.heads),
            lists: read(&self.counts.lists),
            bytes: read(&self.counts.bytes),
            retries: read(&self.counts.retries),
            errors: read(&self.counts.errors),
        }
    }
}

/// A mount's URL, taken apart.
struct Address {
    scheme: Scheme,
    /// The URL without a slash at the end.
    url: String,
    /// Bucket, container, or absolute directory.
    root: String,
    /// Where the mount's keys start below the root.
    prefix: Path,
}

impl Address {
    fn parse(name: &str, url: &str) -> Result<Self, Error> {
        let wrong = |why: String| Error::config(name, format!("url {}: {why}", scrub(url)));
        let forms = "use s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///absolute/dir";
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong(format!("not a URL: {forms}")))?;
        let scheme = Scheme::parse(scheme).ok_or_else(|| wrong(format!("unknown scheme: {forms}")))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let canonical = format!("{}://{rest}", scheme.as_str());
        if rest.split('/').next().is_some_and(|authority| authority.contains(['@', ':'])) {
            return Err(wrong("a mount's URL has neither user information nor a port: set endpoint".to_owned()));
        }
        if scheme == Scheme::File {
            let below = rest.strip_prefix('/').ok_or_else(|| wrong("the directory must be absolute".to_owned()))?;
            parse_key(url, below).map_err(|e| wrong(e.to_string()))?;
            return Ok(Self { scheme, url: canonical, root: rest.to_owned(), prefix: Path::ROOT });
        }
        let (root, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if root.is_empty() || !root.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-$".contains(&b)) {
            return Err(wrong(
                "the bucket's or container's name is missing or has a character that none may have".to_owned(),
            ));
        }
        let prefix = match prefix {
            "" => Path::ROOT,
            prefix => parse_key(url, prefix).map_err(|e| wrong(e.to_string()))?.0,
        };
        Ok(Self { scheme, url: canonical, root: root.to_owned(), prefix })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::fake::{CANARY, Fake};
    use crate::resolve::Mounts;

    fn config(json: &str) -> Result<MountConfig, serde_json::Error> {
        serde_json::from_str(json)
    }

    fn open(config: MountConfig) -> Result<Mounts, Error> {
        Mounts::open(&[config], OriginLimits::default())
    }

    #[test]
    fn freshness_is_a_word_or_a_table() {
        let freshness = |text: &str| config(&format!(r#"{{"name": "m", "url": "s3://b", "freshness": {text}}}"#));
        assert_eq!(freshness(r#""immutable""#).unwrap().freshness, Freshness::Immutable);
        assert_eq!(freshness(r#""always""#).unwrap().freshness, Freshness::Always);
        assert_eq!(freshness(r#""ttl""#).unwrap().freshness, Freshness::default());
        let (soft, hard) = (Duration::from_secs(10), Duration::from_secs(120));
        let table = freshness(r#"{"mode": "ttl", "soft": "10s", "hard": "2min"}"#).unwrap();
        assert_eq!(table.freshness, Freshness::Ttl { soft, hard });
        let table = freshness(r#"{"mode": "ttl", "hard": "10s"}"#).unwrap();
        assert_eq!(table.freshness, Freshness::Ttl { soft, hard: soft });
        for wrong in [
            r#""never""#,
            "7",
            r#"{"mode": "always", "soft": "1s"}"#,
            r#"{"mode": "ttl", "soft": "9s", "hard": "1s"}"#,
            r#"{"mode": "ttl", "sofd": "9s"}"#,
            r#"{"mode": "ttl", "soft": 9}"#,
            r#"{"soft": "9s"}"#,
        ] {
            assert!(freshness(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Freshness::default().to_string(), "ttl 30s/5m");
    }

    #[test]
    fn unknown_keys_are_errors() {
        assert!(config(r#"{"name": "m", "url": "s3://b", "secret_key": "x"}"#).is_err());
        assert!(config(r#"{"name": "m"}"#).is_err());
        let read = config(r#"{"name": "m", "url": "s3://b", "limits": {"tries": 1}}"#).unwrap();
        assert_eq!(read.limits.unwrap().tries, 1);
    }

    #[test]
    fn mounts_that_cannot_work_say_why() {
        for (name, url, word) in [
            ("M", "s3://b", "name"),
            ("-m", "s3://b", "name"),
            ("", "s3://b", "name"),
            ("m", "b/p", "not a URL"),
            ("m", "ftp://b", "scheme"),
            ("m", "s3://", "bucket"),
            ("m", "s3:///p", "bucket"),
            ("m", "s3://b/../c", "url"),
            ("m", "s3://b//c", "url"),
            ("m", "s3://b?x", "bucket"),
            ("m", "s3://b:9000/c", "endpoint"),
            ("m", "file://", "absolute"),
            ("m", "file:///", "absolute"),
            ("m", "file://relative/dir", "absolute"),
            ("m", "file:///no/such/directory", "directory"),
            ("m", "file:///tmp/../etc", "url"),
        ] {
            let config = MountConfig { anonymous: url.starts_with('s'), ..MountConfig::new(name, url) };
            let error = open(config).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(word), "{name} {url}: {error}");
        }
        let long = "a".repeat(64);
        assert!(open(MountConfig { anonymous: true, ..MountConfig::new(long, "s3://b") }).is_err());
    }

    #[test]
    fn endpoints_are_checked() {
        let with = |endpoint: &str, allow_http| MountConfig {
            endpoint: Some(endpoint.to_owned()),
            allow_http,
            anonymous: true,
            ..MountConfig::new("m", "s3://b")
        };
        assert!(open(with("http://127.0.0.1:9000", true)).is_ok());
        assert!(open(with("http://127.0.0.1:9000", false)).unwrap_err().to_string().contains("allow_http"));
        for wrong in ["127.0.0.1:9000", "ftp://h", "https://u:p@h", "https://h?q", "https://h#f"] {
            assert_eq!(open(with(wrong, true)).unwrap_err().kind(), ErrorKind::Config, "{wrong}");
        }
    }

    #[test]
    fn every_kind_of_origin_opens() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        std::fs::write(&key, format!("aws_access_key_id = A\naws_secret_access_key = {CANARY}\nkey = QUJD\n")).unwrap();
        for url in ["s3://b/p", "gs://b/p", "az://c/p"] {
            let account = url.starts_with("az").then(|| "acc".to_owned());
            let config = MountConfig { anonymous: true, account, ..MountConfig::new("m", url) };
            assert_eq!(open(config.clone()).unwrap().iter().next().unwrap().url(), url);
            if !url.starts_with("gs") {
                let config = MountConfig { anonymous: false, credentials_file: Some(key.clone()), ..config };
                let shown = format!("{config:?} {:?}", open(config.clone()).unwrap());
                assert!(!shown.contains(CANARY));
                let config = MountConfig { anonymous: true, ..config };
                assert!(open(config).unwrap_err().to_string().contains("exclude"));
            }
        }
        let local = MountConfig::new("m", format!("file://{}/", dir.path().display()));
        assert!(!open(local.clone()).unwrap().iter().next().unwrap().url().ends_with('/'));
        let odd = MountConfig { region: Some("r".to_owned()), ..local };
        assert!(open(odd).unwrap_err().to_string().contains("region"));
    }

    #[test]
    fn nothing_prints_a_secret() {
        let url = format!("s3://AK:{CANARY}@b/p?sig={CANARY}");
        let endpoint = Some(format!("https://AK:{CANARY}@h/?sig={CANARY}"));
        let config = MountConfig { endpoint, ..MountConfig::new("m", &url) };
        let error = open(config.clone()).unwrap_err();
        let config_error = open(MountConfig { url: "s3://b".to_owned(), ..config.clone() }).unwrap_err();
        let mount =
            Mount::with_store("m", "s3://b", Arc::new(Fake::default()), Freshness::default(), OriginLimits::default());
        let mounts = Mounts::from_mounts(vec![mount.unwrap()]).unwrap();
        let outside = mounts.resolve(&url).unwrap_err();
        let elsewhere = mounts.resolve(&format!("s3://other/{CANARY}@x?y")).unwrap_err();
        let shown = format!(
            "{config:?} {config:#?} {error} {error:?} {config_error} {config_error:?} {mounts:?} {outside} {outside:?} \
             {elsewhere} {elsewhere:?}"
        );
        assert!(!shown.contains(CANARY), "{shown}");
        // The check above can fail: the text does hold what may be shown.
        assert!(shown.contains("[redacted]"));
    }
}
