//! Layer 3: the documented table of every setting.
//!
//! Knows each key's name, type, default and meaning as texts. It must not know how settings are read: the table is what
//! `docs/CONFIG.md` and `alcedo config show` print, and tests hold it against the settings themselves.

/// How a setting is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// A string.
    Text,
    /// A whole number.
    Count,
    /// `true` or `false`.
    Flag,
    /// A string such as `"256MiB"`, or a number of bytes.
    Size,
    /// A string such as `"30s"`.
    Duration,
    /// A list of strings.
    List,
    /// A list of tables.
    Tables,
}

impl KeyType {
    /// The type's name in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Count => "number",
            Self::Flag => "true or false",
            Self::Size => "size",
            Self::Duration => "duration",
            Self::List => "list of texts",
            Self::Tables => "list of tables",
        }
    }
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct ConfigKey {
    /// Dotted name: `cache.pages` is the key `pages` of the table `[cache]`.
    pub name: &'static str,
    /// How it is written.
    pub ty: KeyType,
    /// Its default, as TOML.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// Whether a running worker takes another value on SIGHUP; the others need a restart.
    pub reloads: bool,
}

const fn key(name: &'static str, ty: KeyType, default: &'static str, meaning: &'static str) -> ConfigKey {
    ConfigKey { name, ty, default, meaning, reloads: false }
}

/// A key that a running worker takes another value of.
const fn live(name: &'static str, ty: KeyType, default: &'static str, meaning: &'static str) -> ConfigKey {
    ConfigKey { name, ty, default, meaning, reloads: true }
}

use KeyType::{Count, Duration, Flag, List, Size, Tables, Text};

/// The settings of one `[[mount]]` table: name, form, default and meaning.
pub const MOUNT_KEYS: &[(&str, &str, &str, &str)] = &[
    ("name", "text", "required", "Its name in requests: `[a-z0-9][a-z0-9_-]{0,62}`."),
    (
        "url",
        "text",
        "required",
        "`s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or `file:///directory`.",
    ),
    (
        "endpoint",
        "text",
        "the store's own",
        "Another address of the store's API, for stores compatible with S3 and for emulators.",
    ),
    ("region", "text", "`us-east-1`", "S3 region, where the environment does not say it."),
    ("account", "text", "none", "Azure storage account."),
    (
        "allow_http",
        "true or false",
        "`false`",
        "Whether requests and data may travel without TLS, readable on the way.",
    ),
    ("anonymous", "true or false", "`false`", "Whether requests are sent unsigned, for public buckets."),
    (
        "credentials_file",
        "text",
        "none",
        "A file with the credentials; without it the store's standard variables and instance metadata are used.",
    ),
    (
        "freshness",
        "text or table",
        "`\"ttl\"`",
        "How old knowledge about a file may be: `immutable`, `always`, `ttl`, or \
         `{ mode = \"ttl\", soft = \"30s\", hard = \"5m\" }`.",
    ),
    ("limits", "table", "`[origin]`", "The keys of `[origin]` for this mount alone."),
];

/// Every setting of a worker, in the order of the documents.
pub const CONFIG_KEYS: &[ConfigKey] = &[
    key(
        "worker_id",
        Text,
        "\"worker\"",
        "The worker's name for life; the ring places files by it, never by its address.",
    ),
    key("listen", Text, "\"127.0.0.1:7610\"", "Address and port of the gRPC listener."),
    key(
        "listen_unix",
        Text,
        "\"\"",
        "Path of a Unix socket that is listened on as well, for this user's processes on this machine (mode 0600); \
         clients that connect over loopback learn of it and change over. Empty: none.",
    ),
    key(
        "advertise",
        Text,
        "\"\"",
        "host:port that clients are told when `members` is empty; empty: the address listened on.",
    ),
    key(
        "insecure_bind",
        Flag,
        "false",
        "Allow `listen` on an address that other machines reach, without authentication.",
    ),
    key("runtimes", Count, "0", "Threads that serve requests; 0: one per core."),
    live("members", List, "[]", "All workers of the ring as `id=host:port[,weight[,zone]]`; empty: this worker alone."),
    key(
        "members_file",
        Text,
        "\"\"",
        "A file with the same, one worker per line, that is watched: a new content is taken at once, a broken one is \
         logged and the last good one stays.",
    ),
    key("mount", Tables, "[]", "The origins that are served: one `[[mount]]` table each, with `name` and `url`."),
    key("origin.concurrent_gets", Count, "64", "Requests to one mount's origin under way at once."),
    key("origin.buffered_bytes", Count, "268435456", "Bytes of one mount's answers in memory on their way at once."),
    key("origin.tries", Count, "2", "Attempts per call to an origin."),
    key("origin.attempt_timeout", Duration, "\"2s\"", "Longest silence of an origin."),
    key("origin.connect_timeout", Duration, "\"1s\"", "Longest time to open a connection to an origin."),
    key("origin.retry_pause", Duration, "\"25ms\"", "Pause before a second attempt."),
    key("origin.listed_entries", Count, "100000", "Entries of one listing at most."),
    key(
        "origin.trip",
        Duration,
        "\"0s\"",
        "Time to the first byte of an origin's answer; 0s: measured. What comes in that time is worth reading along \
         where it may save a trip.",
    ),
    key("origin.bytes_per_second", Count, "0", "Bytes per second within one answer of an origin; 0: measured."),
    key(
        "cache.dir",
        Text,
        "\"\"",
        "Directory of the page store and the metadata store, for this worker alone; empty: both are in memory.",
    ),
    key("cache.disk", Size, "\"16GiB\"", "Disk space for fetched pages of files below `cache.dir`."),
    key("cache.pages", Size, "\"256MiB\"", "Memory for fetched pages of files, where there is no `cache.dir`."),
    key("cache.decoded", Size, "\"256MiB\"", "Memory for rows and data pages that are kept decoded; 0: none are."),
    key(
        "cache.derived",
        Size,
        "\"4GiB\"",
        "Room for derived objects, on disk; without `cache.dir` in memory, and 64MiB of it at most.",
    ),
    key(
        "cache.pinned",
        Size,
        "\"1GiB\"",
        "Room for what is pinned, on disk, of which nothing is dropped; without `cache.dir` in memory, and 64MiB of it \
         at most.",
    ),
    key("cache.heads", Size, "\"64MiB\"", "Memory for the heads of derived objects that are in use."),
    key("cache.index", Size, "\"64MiB\"", "Memory for file indexes."),
    key("cache.listings", Size, "\"32MiB\"", "Memory for listings of prefixes."),
    key(
        "lookup.tail_bytes",
        Size,
        "\"64KiB\"",
        "First read of a file whose footer is not known yet, until more is known of the files of its mount.",
    ),
    key("lookup.max_files", Count, "10000", "Files below a looked-up prefix at most."),
    key("lookup.max_candidates", Count, "256", "Files that one lookup asks at most, after pruning by key bounds."),
    key("lookup.permits", Count, "512", "Lookups at work at once; a lookup weighs as many as it has keys."),
    live("lookup.default_timeout", Duration, "\"1s\"", "Time for a request that names none."),
    live("lookup.max_timeout", Duration, "\"30s\"", "Longest time that a request may ask for."),
    key("lookup.max_path_bytes", Size, "\"2KiB\"", "Longest path of a request."),
    key("lookup.max_keys", Count, "1024", "Keys of one lookup at most."),
    key("lookup.answer_rows", Count, "1000000", "Rows of one answer at most."),
    key("lookup.answer_bytes", Size, "\"64MiB\"", "Bytes of one answer's rows at most."),
    key(
        "lookup.pages_wait",
        Duration,
        "\"2ms\"",
        "A serving thread is short of CPU while lookups wait so long for their turn; it then sends data pages to \
         clients that decode them. 0s: always.",
    ),
    key("lookup.pages_bytes", Size, "\"1MiB\"", "Data pages sent in place of one lookup's rows at most; 0: never."),
    key(
        "lookup.speculate_bytes",
        Size,
        "\"4MiB\"",
        "Value data pages fetched together with the key's at most, while that takes less time than a trip to the \
         origin.",
    ),
    key(
        "lookup.coalesce_gap_bytes",
        Size,
        "\"64KiB\"",
        "Two needed ranges with a gap of at most so much are fetched as one, while the gap takes less than an eighth \
         of a trip's time.",
    ),
    key("lookup.footer_bytes", Size, "\"16MiB\"", "Footer of a file at most."),
    key("lookup.schema_depth", Count, "100", "Nesting of a file's schema at most."),
    key("lookup.schema_elements", Count, "50000", "Elements of a file's schema at most."),
    key("lookup.schema_bytes", Size, "\"32MiB\"", "Memory that a file's schema takes at most."),
    key("lookup.row_groups", Count, "50000", "Row groups of a file at most."),
    key("lookup.column_chunks", Count, "500000", "Column chunks of a file at most: row groups times leaf columns."),
    key("lookup.thrift_depth", Count, "100", "Nesting of a file's metadata at most, as it is encoded."),
    key("lookup.list_elements", Count, "1000000", "Elements of one list in a file's metadata at most."),
    key("lookup.index_bytes", Size, "\"16MiB\"", "Page index of one column chunk at most; a longer one is not used."),
    key("lookup.chunk_pages", Count, "250000", "Data pages of one column chunk at most."),
    key("lookup.page_compressed_bytes", Size, "\"16MiB\"", "One data page at most, compressed."),
    key("lookup.page_bytes", Size, "\"64MiB\"", "One data page at most, decompressed."),
    key("lookup.page_values", Count, "33554432", "Values of one data page at most, nulls included."),
    key("lookup.dictionary_values", Count, "4194304", "Values of one dictionary page at most."),
    key(
        "lookup.scan_bytes",
        Size,
        "\"16MiB\"",
        "Bytes of data pages that one lookup holds at once while it looks for keys.",
    ),
    key(
        "lookup.row_bytes",
        Size,
        "\"256MiB\"",
        "Bytes of the data pages that one row of an answer takes at most, over all its columns.",
    ),
    key("lookup.inflate_bytes", Size, "\"128MiB\"", "Bytes of decompressed data pages that one lookup holds at once."),
    key(
        "lookup.learn_bytes",
        Size,
        "\"1GiB\"",
        "A column chunk without an offset index at most: it is gone through once, in windows.",
    ),
    key(
        "lookup.broken_ttl",
        Duration,
        "\"10s\"",
        "For how long it is believed that a file, or a part of it, is broken at the origin, where it was read twice.",
    ),
    key(
        "builds.parallel",
        Count,
        "1",
        "Derived objects that are built at once in the background; 0: none are, not even on request.",
    ),
    live("builds.cpu_percent", Count, "20", "Part of one processor that each build may take, in percent."),
    live("builds.memory", Size, "\"256MiB\"", "Memory that each build may take, at least 64MiB."),
    key("connections.max", Count, "4096", "Open connections at most; more wait to be accepted."),
    key("connections.streams", Count, "256", "Calls of one connection at once."),
    live(
        "connections.unanswered",
        Count,
        "1024",
        "Unanswered requests of one lookup stream; more are not read until answers leave.",
    ),
    live(
        "connections.idle_timeout",
        Duration,
        "\"5m\"",
        "A connection without a call for so long is closed. New connections take a reloaded value.",
    ),
    live(
        "connections.write_timeout",
        Duration,
        "\"30s\"",
        "A connection whose client reads nothing of its answers for so long is closed.",
    ),
    key(
        "connections.max_age",
        Duration,
        "\"30m\"",
        "A connection of this age ends at the next boundary between messages, so that clients spread anew.",
    ),
    key(
        "admin.listen",
        Text,
        "\"beside\"",
        "Address and port of metrics, health and the status page over HTTP; `beside`: 127.0.0.1 and the port after \
         `listen`'s, by default 7611; empty: none.",
    ),
    live(
        "drain.notice",
        Duration,
        "\"5s\"",
        "For how long a worker that was told to stop still serves, so that clients turn to others first; a worker \
         alone skips it.",
    ),
    live("drain.grace", Duration, "\"30s\"", "Time for requests under way after that; then they are broken off."),
    live(
        "memory.limit",
        Size,
        "\"0\"",
        "Memory of the process; from 85 % of it on caches shrink, from 92 % on nothing is built, from 95 % on requests \
         are turned away. 0: no such limit.",
    ),
    live(
        "log.filter",
        Text,
        "\"\"",
        "What is logged, such as `alcedo_worker=debug,info`; empty: what -v says. The variable ALCEDO_LOG wins.",
    ),
];

/// The text between the marks of docs/CONFIG.md.
pub fn config_page() -> String {
    let mut page = "| key | form | default | on SIGHUP | meaning |\n|---|---|---|---|---|\n".to_owned();
    for ConfigKey { name, ty, default, meaning, reloads } in CONFIG_KEYS {
        let reloads = if *reloads { "taken" } else { "restart" };
        page += &format!("| `{name}` | {} | `{default}` | {reloads} | {meaning} |\n", ty.name());
    }
    page += "\nEach `[[mount]]` table has these keys; a change of any of them needs a restart:\n\n";
    page += "| key | form | default | meaning |\n|---|---|---|---|\n";
    for (name, form, default, meaning) in MOUNT_KEYS {
        page += &format!("| `{name}` | {form} | {default} | {meaning} |\n");
    }
    page
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config_document::unknown_field;

    #[test]
    fn the_document_is_these_tables() {
        let page = config_page();
        let document = include_str!("../../../docs/CONFIG.md");
        assert!(document.ends_with(&page), "docs/CONFIG.md must end with exactly this:\n{page}");
    }

    #[test]
    fn the_keys_of_a_mount_are_all_there() {
        let refused = toml::from_str::<Config>("[[mount]]\nzzzzz = 1\n").unwrap_err();
        let (_, mut known) = unknown_field(refused.message()).unwrap();
        let mut documented: Vec<&str> = MOUNT_KEYS.iter().map(|(name, ..)| *name).collect();
        known.sort_unstable();
        documented.sort_unstable();
        assert_eq!(known, documented);
    }
}
