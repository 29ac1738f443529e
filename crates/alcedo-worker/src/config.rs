//! Layer 3: the worker's settings, typed and checked.
//!
//! Knows the TOML file, overrides on top of it, and the rules between settings. It must not know flags or environment
//! variables, which the binary turns into overrides: so a value is checked the same way wherever it came from, and its
//! origin can be told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use alcedo_cluster::{Member, Members};
use alcedo_origin::{MountConfig, OriginLimits};
use serde::{Deserialize, Deserializer};

pub use crate::config_document::ConfigError;
use crate::config_document::{Document, in_file, nearest, plain, unknown_key};
use crate::config_keys::{CONFIG_KEYS, ConfigKey, KeyType};
pub use crate::config_lookup::LookupConfig;
use crate::config_lookup::MAX_COUNT;
pub use crate::config_tables::{
    AdminConfig, AdminListen, BuildsConfig, ConnectionsConfig, DrainConfig, LogConfig, MemoryConfig,
};
use crate::units;

/// Ceiling of `runtimes`: more threads than any machine has cores.
const MAX_RUNTIMES: usize = 1_024;
/// What derived objects, and pins, may take at most where they are in memory: quotas are meant for disks.
const MOST_IN_MEMORY: u64 = 64 << 20;

/// Ends of what a connection may wait: below, it would close between two calls; above, it would never.
const MIN_WAIT: Duration = Duration::from_secs(1);
const MAX_WAIT: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Ceiling of the times of a drain: a service manager kills long before.
const MAX_DRAIN: Duration = Duration::from_secs(3_600);

/// Everything that can be set. [`CONFIG_KEYS`] documents each key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The worker's name for life.
    pub worker_id: String,
    /// Address of the gRPC listener.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// Path of a Unix socket that is listened on as well.
    #[serde(deserialize_with = "units::path")]
    pub listen_unix: Option<PathBuf>,
    /// host:port that clients are told when `members` is empty; empty: the address listened on.
    pub advertise: String,
    /// Allow a listener that other machines reach.
    pub insecure_bind: bool,
    /// Threads that serve requests; 0: one per core.
    pub runtimes: usize,
    /// The ring's workers; empty: this one alone.
    #[serde(deserialize_with = "members")]
    pub members: Members,
    /// A file with the ring's workers, instead of `members`.
    #[serde(deserialize_with = "units::path")]
    pub members_file: Option<PathBuf>,
    /// The origins.
    #[serde(rename = "mount")]
    pub mounts: Vec<MountConfig>,
    /// Limits of mounts that set none of their own.
    pub origin: OriginLimits,
    /// Memory.
    pub cache: CacheConfig,
    /// Bounds of lookups.
    pub lookup: LookupConfig,
    /// Background builds of derived objects.
    pub builds: BuildsConfig,
    /// Bounds of connections.
    pub connections: ConnectionsConfig,
    /// The admin port.
    pub admin: AdminConfig,
    /// How the worker stops.
    pub drain: DrainConfig,
    /// Memory of the whole process.
    pub memory: MemoryConfig,
    /// The log.
    pub log: LogConfig,
    /// What the settings were read from.
    #[serde(skip)]
    document: Document,
}

/// The table `[cache]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// Directory of the page store and the metadata store; none: both are in memory.
    #[serde(deserialize_with = "units::path")]
    pub dir: Option<PathBuf>,
    /// Bytes of the page store on disk.
    #[serde(rename = "disk", deserialize_with = "units::size")]
    pub disk_bytes: u64,
    /// Bytes of fetched pages in memory, where there is no directory.
    #[serde(rename = "pages", deserialize_with = "units::size")]
    pub pages_bytes: u64,
    /// Bytes of rows and data pages that are kept decoded, in memory; 0: none are.
    #[serde(rename = "decoded", deserialize_with = "units::size")]
    pub decoded_bytes: u64,
    /// Bytes of derived objects: on disk, or in memory where there is no directory.
    #[serde(rename = "derived", deserialize_with = "units::size")]
    pub derived_bytes: u64,
    /// Bytes of what is pinned: on disk, or in memory where there is no directory.
    #[serde(rename = "pinned", deserialize_with = "units::size")]
    pub pinned_bytes: u64,
    /// Bytes of the heads of derived objects, in memory.
    #[serde(rename = "heads", deserialize_with = "units::size")]
    pub heads_bytes: u64,
    /// Bytes of file indexes.
    #[serde(rename = "index", deserialize_with = "units::size")]
    pub index_bytes: u64,
    /// Bytes of listings.
    #[serde(rename = "listings", deserialize_with = "units::size")]
    pub listings_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            worker_id: "worker".to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 7610)),
            listen_unix: None,
            advertise: String::new(),
            insecure_bind: false,
            runtimes: 0,
            members: Members::default(),
            members_file: None,
            mounts: Vec::new(),
            origin: OriginLimits::default(),
            cache: CacheConfig::default(),
            lookup: LookupConfig::default(),
            builds: BuildsConfig::default(),
            connections: ConnectionsConfig::default(),
            admin: AdminConfig::default(),
            drain: DrainConfig::default(),
            memory: MemoryConfig::default(),
            log: LogConfig::default(),
            document: Document::default(),
        }
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            dir: None,
            disk_bytes: 16 << 30,
            pages_bytes: 256 << 20,
            decoded_bytes: 256 << 20,
            derived_bytes: 4 << 30,
            pinned_bytes: 1 << 30,
            heads_bytes: 64 << 20,
            index_bytes: 64 << 20,
            listings_bytes: 32 << 20,
        }
    }
}

impl CacheConfig {
    /// Bytes that derived objects may take.
    pub(crate) fn derived_quota(&self) -> u64 {
        self.quota(self.derived_bytes)
    }

    /// Bytes that pins may take.
    pub(crate) fn pinned_quota(&self) -> u64 {
        self.quota(self.pinned_bytes)
    }

    fn quota(&self, bytes: u64) -> u64 {
        if self.dir.is_some() { bytes } else { bytes.min(MOST_IN_MEMORY) }
    }
}

impl Config {
    /// Reads a configuration file. `file_name` is what messages call it. Rules between settings are checked by
    /// [`Config::check`], once all overrides are in.
    ///
    /// # Errors
    /// Not TOML, an unknown key, or a value of the wrong form; with the line.
    pub fn from_toml(text: &str, file_name: &str) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|error| in_file(text, file_name, &error))?;
        config.document = Document::from_toml(text, file_name)?;
        config.check_ranges()?;
        Ok(config)
    }

    /// Sets one key on top of the file, as if the file said so. `origin` is what messages and [`Config::describe`] call
    /// the place it came from, for instance `ALCEDO_CACHE_PAGES` or `--listen`. A list is written as TOML or with
    /// blanks between its items. Fields that a program changed by hand are lost.
    ///
    /// # Errors
    /// No such key, or a value of the wrong form; the configuration stays as it was.
    pub fn apply_override(&mut self, key: &str, text: &str, origin: &str) -> Result<(), ConfigError> {
        let fail = |message: String| ConfigError { place: format!("{origin}: "), message };
        let known = CONFIG_KEYS
            .iter()
            .find(|known| known.name == key)
            .ok_or_else(|| fail(unknown_key(key, &CONFIG_KEYS.iter().map(|known| known.name).collect::<Vec<_>>())))?;
        let mut document = self.document.clone();
        let value =
            override_value(known.ty, text).map_err(|wanted| fail(format!("`{key}` is {wanted}, not `{text}`")))?;
        let table = match key.split_once('.') {
            None => Some(&mut document.table),
            Some((table, _)) => document.table.entry(table).or_insert_with(|| toml::Table::new().into()).as_table_mut(),
        };
        let name = key.rsplit('.').next().unwrap_or(key);
        table.ok_or_else(|| fail(format!("`{key}` cannot be set")))?.insert(name.to_owned(), value);
        document.origins.retain(|known, _| known != key && !known.starts_with(&format!("{key}.")));
        document.origins.insert(key.to_owned(), origin.to_owned());
        let merged = toml::Value::Table(document.table.clone()).try_into::<Self>();
        let mut config = merged.map_err(|error| fail(format!("`{key}`: {}", plain(error.message()))))?;
        config.document = document;
        config.check_ranges()?;
        *self = config;
        Ok(())
    }

    /// Every setting with its value as TOML and where the value came from (`worker.toml:12`, an override's origin, or
    /// `default`), without credentials.
    pub fn describe(&self) -> Vec<(String, String, String)> {
        let mut lines = Vec::new();
        for known in CONFIG_KEYS.iter().filter(|known| known.ty != KeyType::Tables) {
            let (value, origin) = match self.document.value(known.name) {
                Some(value) => (value.to_string(), self.document.origin(known.name)),
                None => (known.default.to_owned(), "default".to_owned()),
            };
            lines.push((known.name.to_owned(), value, origin));
        }
        for (index, mount) in self.mounts.iter().enumerate() {
            let origin_of = |field: &str| match self.document.mount_field(index, field) {
                true => self.document.origin(&format!("mount.{index}.{field}")),
                false => "default".to_owned(),
            };
            for (field, value) in mount_fields(mount) {
                lines.push((format!("mount.{}.{field}", mount.name), value, origin_of(field)));
            }
        }
        lines
    }

    /// The keys whose values differ between these settings and others: those that a running worker takes, and those
    /// that need a restart.
    pub fn changed(&self, other: &Self) -> (Vec<&'static str>, Vec<&'static str>) {
        let value_of = |config: &Self, key: &str| config.document.value(key).map(ToString::to_string);
        let is_changed = |key: &&ConfigKey| {
            let default = || Some(key.default.to_owned());
            value_of(self, key.name).or_else(default) != value_of(other, key.name).or_else(default)
        };
        let (live, fixed): (Vec<_>, Vec<_>) = CONFIG_KEYS.iter().filter(is_changed).partition(|key| key.reloads);
        let names = |keys: Vec<&ConfigKey>| keys.into_iter().map(|key| key.name).collect();
        (names(live), names(fixed))
    }

    /// Checks the settings as a whole, for a worker that is to start.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_rules()?;
        // A worker that runs may be taken out of the list, for instance to drain it; one that starts is misspelt there.
        if !self.members.is_empty() && self.members.get(&self.worker_id).is_none() {
            let ids: Vec<&str> = self.members.iter().map(Member::id).collect();
            let hint = nearest(&self.worker_id, &ids).map(|id| format!(": did you mean `{id}`?")).unwrap_or_default();
            return Err(
                self.error("worker_id", format!("worker_id `{}` is not among the members{hint}", self.worker_id))
            );
        }
        Ok(())
    }

    /// Checks the rules between settings.
    pub(crate) fn check_rules(&self) -> Result<(), ConfigError> {
        self.check_ranges()?;
        if !self.listen.ip().is_loopback() && !self.insecure_bind {
            let why = format!(
                "listen = \"{}\" is reachable from other machines, and there is no authentication: listen on \
                 127.0.0.1, or set insecure_bind = true if everybody on that network may read the mounts",
                self.listen
            );
            return Err(self.error("listen", why));
        }
        if let AdminListen::At(admin) = self.admin.listen
            && !admin.ip().is_loopback()
            && !self.insecure_bind
        {
            let why = format!(
                "admin.listen = \"{admin}\" is reachable from other machines, and there is no authentication: listen \
                 on 127.0.0.1, or set insecure_bind = true if everybody on that network may see this worker's numbers"
            );
            return Err(self.error("admin.listen", why));
        }
        if self.members_file.is_some() && !self.members.is_empty() {
            let why = "members and members_file exclude each other: leave one of them out".to_owned();
            return Err(self.error("members_file", why));
        }
        if self.listen.ip().is_unspecified()
            && self.members.is_empty()
            && self.members_file.is_none()
            && self.advertise.is_empty()
        {
            let why = format!(
                "listen = \"{}\" is no address that clients can be told: set advertise or members",
                self.listen
            );
            return Err(self.error("listen", why));
        }
        Ok(())
    }

    /// Checks each setting by itself.
    fn check_ranges(&self) -> Result<(), ConfigError> {
        let advertise = if self.advertise.is_empty() { "127.0.0.1:1" } else { &self.advertise };
        Member::new(&self.worker_id, advertise, 1, "").map_err(|error| {
            let id_is_wrong = matches!(error, alcedo_cluster::MemberError::Id { .. });
            self.error(if id_is_wrong { "worker_id" } else { "advertise" }, error.to_string())
        })?;
        if self.runtimes > MAX_RUNTIMES {
            return Err(self.error("runtimes", format!("runtimes is at most {MAX_RUNTIMES}")));
        }
        self.lookup.check().map_err(|(key, why)| self.error(key, why))?;
        self.builds.check().map_err(|(key, why)| self.error(key, why))?;
        let counts = [
            ("connections.max", self.connections.max, MAX_COUNT),
            ("connections.streams", self.connections.streams as usize, MAX_COUNT),
            ("connections.unanswered", self.connections.unanswered, MAX_COUNT),
        ];
        for (key, value, ceiling) in counts {
            if value == 0 || value > ceiling {
                return Err(self.error(key, format!("{key} is at least 1 and at most {ceiling}")));
            }
        }
        let connections = &self.connections;
        let waits = [
            ("connections.idle_timeout", connections.idle_timeout),
            ("connections.write_timeout", connections.write_timeout),
            ("connections.max_age", connections.max_age),
        ];
        for (key, wait) in waits {
            if wait < MIN_WAIT || wait > MAX_WAIT {
                return Err(self.error(key, format!("{key} is at least 1s and at most 30days")));
            }
        }
        if connections.idle_timeout < self.lookup.max_timeout {
            let why = "connections.idle_timeout is at least lookup.max_timeout: a call may be silent for that long";
            return Err(self.error("connections.idle_timeout", why.to_owned()));
        }
        for (key, wait) in [("drain.notice", self.drain.notice), ("drain.grace", self.drain.grace)] {
            if wait > MAX_DRAIN {
                return Err(self.error(key, format!("{key} is at most 1h")));
            }
        }
        Ok(())
    }

    fn error(&self, key: &str, message: String) -> ConfigError {
        let place = self.document.origins.get(key).map(|origin| format!("{origin}: ")).unwrap_or_default();
        ConfigError { place, message }
    }
}

/// A mount's settings as TOML. Whoever wrote a credential into an address did it against the rules; it is not shown.
fn mount_fields(mount: &MountConfig) -> Vec<(&'static str, String)> {
    let quoted = |text: &str| match text.contains(['@', '?', '#']) {
        true => "\"[redacted]\"".to_owned(),
        false => toml::Value::from(text).to_string(),
    };
    let mut fields = vec![("url", quoted(&mount.url)), ("freshness", format!("\"{}\"", mount.freshness))];
    let texts = [("endpoint", &mount.endpoint), ("region", &mount.region), ("account", &mount.account)];
    fields.extend(texts.into_iter().filter_map(|(field, text)| Some((field, quoted(text.as_deref()?)))));
    let flags = [("allow_http", mount.allow_http), ("anonymous", mount.anonymous)];
    fields.extend(flags.into_iter().filter(|(_, set)| *set).map(|(field, set)| (field, set.to_string())));
    if let Some(path) = &mount.credentials_file {
        fields.push(("credentials_file", toml::Value::from(path.display().to_string()).to_string()));
    }
    fields
}

/// An override's text as a value of the key's type; the error is what is wanted.
fn override_value(ty: KeyType, text: &str) -> Result<toml::Value, &'static str> {
    let toml = |wanted| {
        let document: Result<toml::Table, _> = toml::from_str(&format!("value = {text}"));
        document.ok().and_then(|mut table| table.remove("value")).filter(toml::Value::is_array).ok_or(wanted)
    };
    match ty {
        KeyType::Text | KeyType::Size | KeyType::Duration => Ok(text.into()),
        KeyType::Count => text.parse::<i64>().map(toml::Value::from).map_err(|_| "a number"),
        KeyType::Flag => text.parse::<bool>().map(toml::Value::from).map_err(|_| "true or false"),
        KeyType::List if !text.trim_start().starts_with('[') => Ok(text.split_whitespace().collect::<Vec<_>>().into()),
        KeyType::List => toml("a list of texts"),
        KeyType::Tables => toml("a list of tables, [{ name = \"...\", url = \"...\" }]"),
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| serde::de::Error::custom(format!("`{text}` is not an address such as \"127.0.0.1:7610\"")))
}

fn members<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
    let items = Vec::<String>::deserialize(deserializer)?;
    Members::from_items(&items).map_err(serde::de::Error::custom)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::config_document::unknown_field;

    fn error(text: &str) -> String {
        Config::from_toml(text, "worker.toml").unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_what_may_be_meant() {
        assert_eq!(
            error("worker_id = \"w\"\n\nlisen = \"127.0.0.1:1\"\n"),
            "worker.toml:3: unknown key `lisen`: did you mean `listen`?"
        );
        assert_eq!(error("[cache]\npage = \"1MiB\"\n"), "worker.toml:2: unknown key `page`: did you mean `pages`?");
        assert_eq!(
            error("[[mount]]\nname = \"a\"\nurl = \"s3://b\"\nendpont = \"x\"\n"),
            "worker.toml:4: unknown key `endpont`: did you mean `endpoint`?"
        );
        assert_eq!(
            error("[cache]\nzzz = 1\n"),
            "worker.toml:2: unknown key `zzz`: known here are dir, disk, pages, decoded, derived, pinned, heads, \
             index, listings"
        );
    }

    #[test]
    fn a_value_of_the_wrong_form_is_named_with_its_line() {
        assert_eq!(
            error("\n[cache]\npages = \"many\"\n"),
            "worker.toml:3: `pages`: `many` is not a size such as \"256MiB\""
        );
        assert_eq!(
            error("[lookup]\ndefault_timeout = \"soon\"\n"),
            "worker.toml:2: `default_timeout`: `soon` is not a duration such as \"30s\" or \"250ms\""
        );
        assert_eq!(
            error("listen = \"localhost\"\n"),
            "worker.toml:1: `listen`: `localhost` is not an address such as \"127.0.0.1:7610\""
        );
        assert_eq!(
            error("runtimes = \"two\"\n"),
            "worker.toml:1: `runtimes`: invalid type: string \"two\", expected usize"
        );
        assert_eq!(error("[lookup]\npermits = 0\n"), "worker.toml:2: lookup.permits is at least 1 and at most 1000000");
        assert!(error("worker_id = \n").starts_with("worker.toml:1: "));
        assert!(error("members = [\"w-1\"]\n").starts_with("worker.toml:1: `members`: member 1 of the list: "));
    }

    #[test]
    fn a_listener_that_others_reach_needs_a_word_for_it() {
        let config = Config::from_toml("worker_id = \"w\"\nlisten = \"0.0.0.0:7610\"\n", "worker.toml").unwrap();
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "worker.toml:2: listen = \"0.0.0.0:7610\" is reachable from other machines, and there is no \
             authentication: listen on 127.0.0.1, or set insecure_bind = true if everybody on that network may read \
             the mounts"
        );
        let mut config = config;
        config.apply_override("insecure_bind", "true", "--insecure-bind").unwrap();
        assert!(config.check().unwrap_err().to_string().contains("set advertise or members"));
        config.apply_override("advertise", "w.example:7610", "--advertise").unwrap();
        config.check().unwrap();
    }

    #[test]
    fn the_admin_port_follows_the_same_rule() {
        let config = Config::from_toml("[admin]\nlisten = \"0.0.0.0:7611\"\n", "worker.toml").unwrap();
        let refused = config.check().unwrap_err().to_string();
        assert!(refused.starts_with("worker.toml:2: admin.listen = \"0.0.0.0:7611\" is reachable"), "{refused}");
        let read = |text: &str| Config::from_toml(text, "worker.toml").unwrap().admin.listen;
        assert_eq!(read("[admin]\nlisten = \"\"\n"), AdminListen::Off);
        assert_eq!((read(""), read("[admin]\nlisten = \"beside\"\n")), (AdminListen::Beside, AdminListen::Beside));
        assert_eq!(
            error("[admin]\nlisten = \"here\"\n"),
            "worker.toml:2: `listen`: `here` is not an address such as \"127.0.0.1:7611\", \"beside\", or empty"
        );
    }

    #[test]
    fn there_is_one_source_of_members() {
        let text = "members_file = \"m\"\nmembers = [\"worker=h:1\"]\n";
        assert_eq!(
            Config::from_toml(text, "worker.toml").unwrap().check().unwrap_err().to_string(),
            "worker.toml:1: members and members_file exclude each other: leave one of them out"
        );
    }

    #[test]
    fn waits_that_would_break_calls_are_refused() {
        assert_eq!(
            error("[connections]\nmax_age = \"10ms\"\n"),
            "worker.toml:2: connections.max_age is at least 1s and at most 30days"
        );
        assert!(error("[connections]\nidle_timeout = \"20s\"\n").contains("is at least lookup.max_timeout"));
        assert_eq!(error("[drain]\ngrace = \"2h\"\n"), "worker.toml:2: drain.grace is at most 1h");
    }

    #[test]
    fn changed_keys_are_told_apart_by_whether_they_need_a_restart() {
        let read = |text: &str| Config::from_toml(text, "worker.toml").unwrap();
        let before = read("[lookup]\npermits = 7\n");
        let after = read("runtimes = 2\n[lookup]\npermits = 7\nmax_timeout = \"20s\"\n");
        assert_eq!(before.changed(&after), (vec!["lookup.max_timeout"], vec!["runtimes"]));
        // The default, said or not, is the same.
        assert_eq!(read("runtimes = 0\n").changed(&read("")), (vec![], vec![]));
        let mount = |url: &str| read(&format!("[[mount]]\nname = \"a\"\nurl = \"s3://{url}\"\n"));
        assert_eq!(mount("b").changed(&mount("c")), (vec![], vec!["mount"]));
    }

    #[test]
    fn overrides_win_are_checked_alike_and_are_told() {
        let mut config = Config::from_toml("[cache]\npages = \"1MiB\"\n", "worker.toml").unwrap();
        assert_eq!(config.cache.pages_bytes, 1 << 20);
        config.apply_override("cache.pages", "1GiB", "ALCEDO_CACHE_PAGES").unwrap();
        config.apply_override("lookup.permits", "7", "--permits").unwrap();
        config.apply_override("members", "a=h:1 worker=h:2,3", "ALCEDO_MEMBERS").unwrap();
        assert_eq!((config.cache.pages_bytes, config.lookup.permits, config.members.len()), (1 << 30, 7, 2));
        let failed = config.apply_override("cache.pages", "x", "ALCEDO_CACHE_PAGES").unwrap_err();
        assert_eq!(failed.to_string(), "ALCEDO_CACHE_PAGES: `cache.pages`: `x` is not a size such as \"256MiB\"");
        let failed = config.apply_override("cache.page", "x", "ALCEDO_CACHE_PAGE").unwrap_err();
        assert_eq!(failed.to_string(), "ALCEDO_CACHE_PAGE: unknown key `cache.page`: did you mean `cache.pages`?");
        let failed = config.apply_override("lookup.permits", "many", "--permits").unwrap_err();
        assert_eq!(failed.to_string(), "--permits: `lookup.permits` is a number, not `many`");
        assert_eq!(config.cache.pages_bytes, 1 << 30);
        let shown = config.describe();
        let line = |key: &str| shown.iter().find(|(name, _, _)| name == key).unwrap().clone();
        assert_eq!(line("cache.pages"), ("cache.pages".into(), "\"1GiB\"".into(), "ALCEDO_CACHE_PAGES".into()));
        assert_eq!(line("listen").2, "default");
    }

    #[test]
    fn described_mounts_show_their_lines_and_no_credentials() {
        let text = "[[mount]]\nname = \"lake\"\nurl = \"s3://AK:CANARY@lake/x\"\nendpoint = \"http://u:CANARY@h\"\n";
        let config = Config::from_toml(text, "worker.toml").unwrap();
        let shown = config.describe();
        assert!(!format!("{shown:?} {config:?}").contains("CANARY"), "{shown:?} {config:?}");
        assert!(shown.contains(&("mount.lake.url".into(), "\"[redacted]\"".into(), "worker.toml:3".into())));
        assert!(shown.iter().any(|(key, _, origin)| key == "mount.lake.freshness" && origin == "default"));
    }

    #[test]
    fn the_table_of_keys_names_every_setting_and_its_default() {
        let mut written = String::new();
        let mut table = "";
        for key in CONFIG_KEYS.iter().filter(|key| key.ty != KeyType::Tables) {
            let (inside, name) = key.name.split_once('.').unwrap_or(("", key.name));
            if inside != table {
                written += &format!("[{inside}]\n");
                table = inside;
            }
            written += &format!("{name} = {}\n", key.default);
        }
        let read = Config::from_toml(&written, "all.toml").unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", Config::default()));
        // What serde says that a table has is what the table of keys has.
        let tables = ["cache", "lookup", "builds", "connections", "origin", "admin", "drain", "memory", "log"];
        for table in tables.into_iter().chain([""]) {
            let header = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
            let refused = toml::from_str::<Config>(&format!("{header}zzzzz = 1\n")).unwrap_err();
            let (_, mut known) = unknown_field(refused.message()).unwrap();
            known.retain(|name| !table.is_empty() || !tables.contains(name));
            let mut documented: Vec<&str> = CONFIG_KEYS
                .iter()
                .map(|key| key.name.split_once('.').unwrap_or(("", key.name)))
                .filter(|(inside, _)| *inside == table)
                .map(|(_, name)| name)
                .collect();
            known.sort_unstable();
            documented.sort_unstable();
            assert_eq!(known, documented, "[{table}]");
        }
    }
}
