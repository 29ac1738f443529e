//! Layer 3: what `/metrics` says, by one table.
//!
//! Knows every metric's name, type, unit and labels, and where its number is. It must not know HTTP. Names follow the
//! rules of Prometheus: prefix, base unit, `_total` for what only grows, and labels with few values: never a path or
//! key. docs/METRICS.md is this table, and a test holds both against what is really rendered.

mod derived;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::metrics::Outcome;
use crate::process;
use crate::service::Door;

/// How a metric moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Grows only; rendered with `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts in buckets.
    Histogram,
    /// Labels with the value 1.
    Info,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct MetricRow {
    /// Its name without unit and suffix.
    pub name: &'static str,
    /// How it moves.
    pub kind: MetricKind,
    /// `bytes`, `seconds` or empty; rendered as a part of the name.
    pub unit: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub meaning: &'static str,
}

const fn row(
    name: &'static str,
    kind: MetricKind,
    unit: &'static str,
    labels: &'static [&'static str],
    meaning: &'static str,
) -> MetricRow {
    MetricRow { name, kind, unit, labels, meaning }
}

use MetricKind::{Counter, Gauge, Histogram, Info as InfoKind};

/// Every metric of a worker, in the order of `/metrics`.
pub const METRICS: &[MetricRow] = &[
    row("alcedo_build", InfoKind, "", &["version"], "The version that runs"),
    row("alcedo_uptime", Gauge, "seconds", &[], "Time since the worker started"),
    row("alcedo_ready", Gauge, "", &[], "1 while the worker takes work, 0 while it drains"),
    row("alcedo_lookups", Counter, "", &["result"], "Lookups that ended: ok or failed"),
    row("alcedo_lookup_duration", Histogram, "seconds", &["outcome"], "Time of lookups, by what came of them"),
    row("alcedo_inflight_requests", Gauge, "", &[], "Lookups under way, waiting ones too"),
    row(
        "alcedo_shed",
        Counter,
        "",
        &["reason"],
        "Requests that were turned away, by what there was too much or too little of",
    ),
    row("alcedo_lookups_as_pages", Counter, "", &[], "Lookups answered with data pages because CPU was short"),
    row(
        "alcedo_panics",
        Counter,
        "",
        &[],
        "Panics that were caught: at the border of a request or of shared work, or around the decoder",
    ),
    row("alcedo_files_opened", Counter, "", &[], "File indexes that were built"),
    row(
        "alcedo_chunks_learned",
        Counter,
        "",
        &[],
        "Column chunks without an offset index whose data pages were found in the background of lookups",
    ),
    row("alcedo_chunks_learning", Gauge, "", &[], "Column chunks of which that is under way"),
    row(
        "alcedo_rereads",
        Counter,
        "",
        &["result"],
        "Files that were dropped and read anew after an error in their bytes: cured, or broken at the origin too",
    ),
    row("alcedo_cache", Gauge, "bytes", &["cache"], "Bytes that a cache holds"),
    row("alcedo_cache_capacity", Gauge, "bytes", &["cache"], "Bytes that a cache may hold"),
    row("alcedo_cache_requests", Counter, "", &["cache", "result"], "Reads of a cache: hit or miss"),
    row("alcedo_page_store_down", Gauge, "", &[], "1 while the cache's disk fails so often that it is passed by"),
    row("alcedo_cache_evictions", Counter, "", &["cache"], "Entries that a cache dropped to make room"),
    row(
        "alcedo_page_store_events",
        Counter,
        "",
        &["event"],
        "What happened to pages on disk beside reads that went well",
    ),
    row(
        "alcedo_metadata_store_writing",
        Gauge,
        "",
        &[],
        "1 while the metadata store on disk takes records; 0 while it does not, or without one",
    ),
    row(
        "alcedo_metadata_store_events",
        Counter,
        "",
        &["event"],
        "What happened in the metadata store beside reads that went well",
    ),
    row("alcedo_derived_objects", Gauge, "", &["kind"], "Derived objects that are whole: keymap or ready"),
    row(
        "alcedo_derived_events",
        Counter,
        "",
        &["event"],
        "What happened to derived objects: found at the start, whole or not, made, dropped as broken or as cold",
    ),
    row(
        "alcedo_derived_keys",
        Counter,
        "",
        &["kind"],
        "Keys that derived objects answered: ready, or keymap where the rows were read from the file",
    ),
    row("alcedo_builds_begun", Counter, "", &[], "Builds of derived objects that began"),
    row(
        "alcedo_builds",
        Counter,
        "",
        &["result"],
        "Builds that ended: done, failed, cancelled, or refused because there was no room",
    ),
    row("alcedo_builds_under_way", Gauge, "", &[], "Builds under way"),
    row(
        "alcedo_builds_yielded",
        Counter,
        "",
        &[],
        "Waits of builds, of 50 ms each, because requests needed the worker",
    ),
    row("alcedo_pins", Gauge, "", &[], "Files and prefixes that are pinned"),
    row(
        "alcedo_pinned_things",
        Gauge,
        "",
        &["state"],
        "Things of files by what came of them: pinned, waiting or refused",
    ),
    row("alcedo_pins_refused", Counter, "", &[], "Things that were refused, most of them for want of room"),
    row(
        "alcedo_pins_record_errors",
        Counter,
        "",
        &[],
        "Lists of pins that were damaged, so that all pins are lost, or that could not be written",
    ),
    row(
        "alcedo_origin_requests",
        Counter,
        "",
        &["mount", "op"],
        "Requests that were sent to an origin: get, head or list",
    ),
    row("alcedo_origin_errors", Counter, "", &["mount"], "Of these, those that brought no answer that could be used"),
    row("alcedo_origin_retries", Counter, "", &["mount"], "Of these, those after the first of their call"),
    row("alcedo_origin_received", Counter, "bytes", &["mount"], "Bytes of files that came from an origin"),
    row(
        "alcedo_origin_trip",
        Gauge,
        "seconds",
        &["mount"],
        "Time to the first byte of an origin's answer, as measured or configured",
    ),
    row(
        "alcedo_origin_rate",
        Gauge,
        "bytes",
        &["mount"],
        "Bytes per second within one answer of an origin, as measured or configured",
    ),
    row("alcedo_origin_tail", Gauge, "bytes", &["mount"], "How much is read first of the end of an unknown file"),
    row("alcedo_connections", Gauge, "", &[], "Open connections"),
    row("alcedo_connections_accepted", Counter, "", &[], "Connections that were accepted"),
    row(
        "alcedo_connections_stalled",
        Counter,
        "",
        &[],
        "Connections that were broken off because nobody read the answers",
    ),
    row(
        "alcedo_accept_errors",
        Counter,
        "",
        &[],
        "Accept calls that failed, for instance for want of file descriptors",
    ),
    row(
        "alcedo_ring_epoch",
        Gauge,
        "",
        &[],
        "The ring's epoch without its lowest 12 bits: it tells rings apart, no more",
    ),
    row("alcedo_ring_members", Gauge, "", &[], "Workers in the ring"),
    row(
        "alcedo_members_errors",
        Counter,
        "",
        &[],
        "Views of the members that could not be used; the last good one stayed",
    ),
    row("alcedo_config_reloads", Counter, "", &["result"], "Reloads of the settings: ok or refused"),
    row("process_cpu", Counter, "seconds", &[], "Processor time of this process, user and system"),
    row("process_resident_memory", Gauge, "bytes", &[], "Memory of this process that is in RAM"),
    row("process_open_fds", Gauge, "", &[], "Open file descriptors of this process"),
    row("process_max_fds", Gauge, "", &[], "Most file descriptors that this process may open"),
];

/// A number with the values of its metric's labels, in their order.
type Sample<'a, N> = (&'a [&'a str], N);

/// Reads a worker's numbers when it is asked to.
#[derive(Debug)]
struct Scrape(Arc<Door>);

/// Writes the numbers of one scrape by the table.
struct Page<'e>(DescriptorEncoder<'e>);

/// A registry that renders one worker.
pub(crate) fn registry(door: &Arc<Door>) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(Arc::clone(door))));
    registry
}

impl Page<'_> {
    fn metric<M: EncodeMetric>(&mut self, name: &str, samples: &[Sample<'_, M>]) -> fmt::Result {
        // A metric that is not in the table is a defect that rendering, and with it every test of it, shows.
        let row = METRICS.iter().find(|row| row.name == name).ok_or(fmt::Error)?;
        let unit = match row.unit {
            "bytes" => Some(Unit::Bytes),
            "seconds" => Some(Unit::Seconds),
            _ => None,
        };
        let ty = match row.kind {
            Counter => MetricType::Counter,
            Gauge => MetricType::Gauge,
            Histogram => MetricType::Histogram,
            InfoKind => MetricType::Info,
        };
        let mut encoder = self.0.encode_descriptor(row.name, row.meaning, unit.as_ref(), ty)?;
        if let [([], metric)] = samples {
            return metric.encode(encoder);
        }
        for (values, metric) in samples {
            let labels: Vec<(&str, &str)> = row.labels.iter().copied().zip(values.iter().copied()).collect();
            metric.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counters(&mut self, name: &str, samples: &[Sample<'_, u64>]) -> fmt::Result {
        let samples: Vec<_> = samples.iter().map(|(labels, value)| (*labels, ConstCounter::new(*value))).collect();
        self.metric(name, &samples)
    }

    fn counter(&mut self, name: &str, value: u64) -> fmt::Result {
        self.counters(name, &[(&[], value)])
    }

    fn gauges(&mut self, name: &str, samples: &[Sample<'_, u64>]) -> fmt::Result {
        let value = |value: u64| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let samples: Vec<_> = samples.iter().map(|(labels, number)| (*labels, value(*number))).collect();
        self.metric(name, &samples)
    }

    fn gauge(&mut self, name: &str, value: u64) -> fmt::Result {
        self.gauges(name, &[(&[], value)])
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.worker(&mut page)?;
        self.lookups(&mut page)?;
        self.caches(&mut page)?;
        self.derived(&mut page)?;
        self.origins(&mut page)?;
        self.connections(&mut page)?;
        process_numbers(&mut page)
    }
}

impl Scrape {
    fn worker(&self, page: &mut Page<'_>) -> fmt::Result {
        page.metric("alcedo_build", &[(&[], Info::new([("version", env!("CARGO_PKG_VERSION"))]))])?;
        page.gauge("alcedo_uptime", self.0.started.elapsed().as_secs())?;
        page.gauge("alcedo_ready", u64::from(self.0.is_ready()))
    }

    fn lookups(&self, page: &mut Page<'_>) -> fmt::Result {
        let metrics = &self.0.metrics;
        // Failed ones first: the total, read later, is not smaller.
        let failed = metrics.lookups_failed.get();
        let ok = metrics.lookups_total.get().saturating_sub(failed);
        page.counters("alcedo_lookups", &[(&["ok"], ok), (&["failed"], failed)])?;
        let seconds = Outcome::ALL.map(|outcome| ([outcome.name()], metrics.lookup_seconds.of(outcome)));
        let seconds: Vec<_> = seconds.iter().map(|(labels, histogram)| (labels.as_slice(), *histogram)).collect();
        page.metric("alcedo_lookup_duration", &seconds)?;
        page.gauge("alcedo_inflight_requests", metrics.lookups_in_flight.get())?;
        let shed = [(&["permits"][..], metrics.shed_total.get()), (&["memory"], metrics.shed_memory_total.get())];
        page.counters("alcedo_shed", &shed)?;
        page.counter("alcedo_lookups_as_pages", metrics.sent_pages_total.get())?;
        page.counter("alcedo_panics", metrics.panics_total.get())?;
        page.counter("alcedo_files_opened", metrics.opens_total.get())?;
        page.counter("alcedo_chunks_learned", metrics.chunks_learned_total.get())?;
        page.gauge("alcedo_chunks_learning", self.0.lookups.indexes().learnings().under_way() as u64)?;
        let rereads = [(&["cured"][..], metrics.rereads_cured.get()), (&["broken"], metrics.rereads_broken.get())];
        page.counters("alcedo_rereads", &rereads)
    }

    fn caches(&self, page: &mut Page<'_>) -> fmt::Result {
        let (pages, indexes) = (self.0.lookups.store().pages(), self.0.lookups.indexes());
        let counts = pages.counts();
        let derived = self.0.lookups.derived();
        let (objects, pinned, (_, heads, head_capacity)) = (derived.pages(), derived.pinned(), derived.heads());
        let (hot, decoded, metrics) = (self.0.lookups.hot_rows(), self.0.lookups.decoded_pages(), &self.0.metrics);
        let held = [
            (&["page"][..], pages.bytes()),
            (&["row"], hot.bytes()),
            (&["data_page"], decoded.bytes()),
            (&["index"], indexes.bytes()),
            (&["derived"], objects.bytes()),
            (&["pinned"], pinned.bytes()),
            (&["head"], heads),
        ];
        page.gauges("alcedo_cache", &held)?;
        let capacities = [
            (&["page"][..], pages.capacity_bytes()),
            (&["row"], hot.capacity_bytes()),
            (&["data_page"], decoded.capacity()),
            (&["index"], indexes.capacity_bytes()),
            (&["derived"], objects.capacity_bytes()),
            (&["pinned"], pinned.capacity_bytes()),
            (&["head"], head_capacity),
        ];
        page.gauges("alcedo_cache_capacity", &capacities)?;
        let metadata = self.0.lookups.metadata().map(|metadata| metadata.counts()).unwrap_or_default();
        let requests = [
            (&["page", "hit"][..], counts.hits),
            (&["page", "miss"], counts.misses),
            (&["row", "hit"], metrics.hot_rows_hits.get()),
            (&["row", "miss"], metrics.hot_rows_misses.get()),
            (&["data_page", "hit"], decoded.hits()),
            (&["data_page", "miss"], decoded.misses()),
            (&["derived", "hit"], derived.counts().hits.get()),
            (&["derived", "miss"], derived.counts().misses.get()),
            (&["metadata", "hit"], metadata.hits),
            (&["metadata", "miss"], metadata.misses),
        ];
        page.counters("alcedo_cache_requests", &requests)?;
        page.gauge("alcedo_page_store_down", u64::from(counts.down))?;
        let evictions =
            [(&["page"][..], counts.evictions), (&["derived"], objects.evictions()), (&["pinned"], pinned.evictions())];
        page.counters("alcedo_cache_evictions", &evictions)?;
        page.counters("alcedo_page_store_events", &page_store_events(&counts))?;
        page.gauge("alcedo_metadata_store_writing", u64::from(metadata.is_writing))?;
        page.counters("alcedo_metadata_store_events", &metadata_store_events(&metadata))
    }

    fn origins(&self, page: &mut Page<'_>) -> fmt::Result {
        let mounts: Vec<_> = self.0.lookups.mounts().iter().map(|mount| (mount.name(), mount.counts())).collect();
        let mut requests = Vec::new();
        for (name, counts) in &mounts {
            requests.extend([
                ([*name, "get"], counts.gets),
                ([*name, "head"], counts.heads),
                ([*name, "list"], counts.lists),
            ]);
        }
        let requests: Vec<_> = requests.iter().map(|(labels, value)| (labels.as_slice(), *value)).collect();
        page.counters("alcedo_origin_requests", &requests)?;
        let names: Vec<[&str; 1]> = mounts.iter().map(|(name, _)| [*name]).collect();
        let each = |number: fn(&alcedo_origin::CountsSnapshot) -> u64| -> Vec<Sample<'_, u64>> {
            names.iter().zip(&mounts).map(|(name, (_, counts))| (name.as_slice(), number(counts))).collect()
        };
        page.counters("alcedo_origin_errors", &each(|counts| counts.errors))?;
        page.counters("alcedo_origin_retries", &each(|counts| counts.retries))?;
        page.counters("alcedo_origin_received", &each(|counts| counts.bytes))?;
        let (tails, mounts) = (self.0.lookups.store().tails(), self.0.lookups.mounts());
        let paces: Vec<_> = mounts.iter().map(|mount| ([mount.name()], mount.pace(), tails.bytes(mount))).collect();
        let trips: Vec<Sample<'_, ConstGauge<f64>>> =
            paces.iter().map(|(name, pace, _)| (&name[..], ConstGauge::new(pace.trip.as_secs_f64()))).collect();
        page.metric("alcedo_origin_trip", &trips)?;
        let rates: Vec<_> = paces.iter().map(|(name, pace, _)| (&name[..], pace.bytes_per_second)).collect();
        page.gauges("alcedo_origin_rate", &rates)?;
        let tails: Vec<_> = paces.iter().map(|(name, _, tail)| (&name[..], *tail)).collect();
        page.gauges("alcedo_origin_tail", &tails)
    }

    fn connections(&self, page: &mut Page<'_>) -> fmt::Result {
        let metrics = &self.0.metrics;
        page.gauge("alcedo_connections", metrics.connections.get())?;
        page.counter("alcedo_connections_accepted", metrics.connections_total.get())?;
        page.counter("alcedo_connections_stalled", metrics.connections_stalled_total.get())?;
        page.counter("alcedo_accept_errors", metrics.accept_errors_total.get())?;
        let ring = self.0.membership.ring();
        // A gauge is a double: the upper 52 bits are exact.
        page.gauge("alcedo_ring_epoch", ring.epoch() >> 12)?;
        page.gauge("alcedo_ring_members", ring.members().len() as u64)?;
        page.counter("alcedo_members_errors", metrics.members_errors_total.get())?;
        let refused = metrics.reloads_refused_total.get();
        let ok = metrics.reloads_total.get().saturating_sub(refused);
        page.counters("alcedo_config_reloads", &[(&["ok"], ok), (&["refused"], refused)])
    }
}

fn page_store_events(counts: &alcedo_cache::PageStoreCounts) -> [Sample<'static, u64>; 6] {
    [
        (&["corrupt"], counts.corrupt),
        (&["dropped_write"], counts.dropped_writes),
        (&["write_error"], counts.write_errors),
        (&["read_error"], counts.read_errors),
        (&["slow_read"], counts.slow_reads),
        (&["restored_extent"], counts.restored_extents),
    ]
}

fn metadata_store_events(counts: &alcedo_cache::MetadataCounts) -> [Sample<'static, u64>; 5] {
    [
        (&["error"], counts.errors),
        (&["put"], counts.puts),
        (&["dropped_put"], counts.dropped_puts),
        (&["reset"], counts.resets),
        (&["set_aside"], counts.set_aside),
    ]
}

fn process_numbers(page: &mut Page<'_>) -> fmt::Result {
    let now = process::Usage::now();
    page.metric("process_cpu", &[(&[], ConstCounter::new(now.cpu_seconds))])?;
    page.gauge("process_resident_memory", now.resident_bytes)?;
    page.gauge("process_open_fds", now.open_fds)?;
    page.gauge("process_max_fds", now.max_fds)
}

/// The text between the marks of docs/METRICS.md.
pub fn metrics_page() -> String {
    let mut page = "| metric | type | unit | labels | meaning |\n|---|---|---|---|---|\n".to_owned();
    for row in METRICS {
        let kind = match row.kind {
            Counter => "counter",
            Gauge => "gauge",
            Histogram => "histogram",
            InfoKind => "info",
        };
        let unit = if row.unit.is_empty() { "-" } else { row.unit };
        let labels = if row.labels.is_empty() { "-".to_owned() } else { row.labels.join(", ") };
        page += &format!("| `{}` | {kind} | {unit} | {labels} | {} |\n", row.rendered_name(), row.meaning);
    }
    page
}

impl MetricRow {
    /// Its name in `/metrics`, without what a histogram appends.
    pub fn rendered_name(&self) -> String {
        let unit = if self.unit.is_empty() { String::new() } else { format!("_{}", self.unit) };
        let suffix = match self.kind {
            Counter => "_total",
            InfoKind => "_info",
            Gauge | Histogram => "",
        };
        format!("{}{unit}{suffix}", self.name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_this_table() {
        let page = metrics_page();
        let document = include_str!("../../../docs/METRICS.md");
        assert!(document.ends_with(&page), "docs/METRICS.md must end with exactly this:\n{page}");
    }

    #[test]
    fn names_follow_the_rules() {
        for row in METRICS {
            let name = row.rendered_name();
            assert!(name.starts_with("alcedo_") || name.starts_with("process_"), "{name}");
            assert!(!row.name.ends_with("_total") && !row.meaning.ends_with('.'), "{name}");
            assert!(row.labels.iter().all(|label| !["path", "key", "url", "file"].contains(label)), "{name}");
            assert_eq!(METRICS.iter().filter(|other| other.name == row.name).count(), 1, "{name}");
        }
    }
}
