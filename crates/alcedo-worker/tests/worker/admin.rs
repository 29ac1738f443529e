//! The admin port: its pages, its errors, and that `/metrics` is the table of metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use alcedo_origin::Freshness;
use alcedo_worker::config::AdminListen;
use alcedo_worker::{Config, METRICS, MetricKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::served::*;

fn with_admin(toml: &str) -> Config {
    let mut settings = read(toml);
    settings.admin.listen = AdminListen::At(SocketAddr::from(([127, 0, 0, 1], 0)));
    settings
}

/// The status, the headers and the body of an answer.
async fn fetch(address: SocketAddr, method: &str, path: &str) -> (u16, String, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: worker\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test]
async fn metrics_are_the_table_both_ways() {
    let served = serve_with(lake().await, Freshness::default(), with_admin(""));
    served.lookup(ask("lake/users/a.parquet", &[1])).await.unwrap();
    served.lookup(ask("lake/users/a.parquet", &[2])).await.unwrap();
    served.lookup(ask("lake/users/a.parquet", &[1_000])).await.unwrap();
    served.lookup(ask("lake/none.parquet", &[1])).await.unwrap_err();
    let (status, head, body) = fetch(served.running.admin_addr().unwrap(), "GET", "/metrics").await;
    assert_eq!(status, 200, "{body}");
    assert!(head.contains("content-type: application/openmetrics-text"), "{head}");
    let (mut types, mut units, mut labels) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for line in body.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words.as_slice() {
            ["#", "TYPE", name, kind] => drop(types.insert((*name).to_owned(), (*kind).to_owned())),
            ["#", "UNIT", name, unit] => drop(units.insert((*name).to_owned(), (*unit).to_owned())),
            ["#", ..] => {}
            _ => {
                let sample = line.split([' ', '{']).next().unwrap();
                let named = line.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
                let names: BTreeSet<String> =
                    named.split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned())).collect();
                labels.entry(sample.to_owned()).or_insert_with(BTreeSet::new).extend(names);
            }
        }
    }
    for row in METRICS {
        let unit = if row.unit.is_empty() { String::new() } else { format!("_{}", row.unit) };
        let family = format!("{}{unit}", row.name);
        let kind = match row.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
            MetricKind::Info => "info",
        };
        assert_eq!(types.remove(&family).as_deref(), Some(kind), "{family}");
        assert_eq!(units.remove(&family).unwrap_or_default(), row.unit, "{family}");
        let sample = if row.kind == MetricKind::Histogram { format!("{family}_count") } else { row.rendered_name() };
        let found = labels.get(&sample).unwrap_or_else(|| panic!("{sample} has no sample"));
        assert_eq!(found, &row.labels.iter().map(|label| (*label).to_owned()).collect(), "{sample}");
    }
    assert!(types.is_empty() && units.is_empty(), "not in the table: {types:?} {units:?}");
    for (sample, value) in [
        ("alcedo_lookups_total{result=\"ok\"}", "3"),
        ("alcedo_lookups_total{result=\"failed\"}", "1"),
        ("alcedo_lookup_duration_seconds_count{outcome=\"hit\"}", "1"),
        ("alcedo_lookup_duration_seconds_count{outcome=\"miss\"}", "1"),
        ("alcedo_lookup_duration_seconds_count{outcome=\"not_found\"}", "1"),
        ("alcedo_lookup_duration_seconds_count{outcome=\"error\"}", "1"),
        ("alcedo_ready", "1"),
        ("alcedo_ring_members", "1"),
        ("alcedo_connections", "1"),
    ] {
        assert!(body.lines().any(|line| line == format!("{sample} {value}")), "{sample} {value} in\n{body}");
    }
    assert!(!body.contains("users") && body.ends_with("# EOF\n"), "{body}");
}

#[tokio::test]
async fn pages_and_problems() {
    let served = serve_with(lake().await, Freshness::default(), with_admin(""));
    let admin = served.running.admin_addr().unwrap();
    for (path, wanted) in [("/healthz", "alive\n"), ("/readyz", "ready\n"), ("/startupz", "started\n")] {
        let (status, _, body) = fetch(admin, "GET", path).await;
        assert_eq!((status, body.as_str()), (200, wanted), "{path}");
    }
    let (status, head, body) = fetch(admin, "GET", "/").await;
    assert!(status == 200 && head.contains("text/html") && body.contains("mount lake"), "{head}\n{body}");
    assert!(!body.contains("<script") && !body.contains("src="), "{body}");
    for (method, path, wanted) in [("GET", "/nothing", 404), ("POST", "/metrics", 405)] {
        let (status, head, body) = fetch(admin, method, path).await;
        assert!(status == wanted && head.contains("application/problem+json"), "{head}");
        assert!(body.contains(&format!("\"status\":{wanted}")) && body.contains("\"detail\":"), "{body}");
    }
}

#[tokio::test]
async fn a_draining_worker_is_alive_and_not_ready() {
    let toml = "members = [\"worker=127.0.0.1:1\", \"other=127.0.0.1:2\"]\n[drain]\nnotice = \"8s\"\n";
    let served = serve_with(lake().await, Freshness::default(), with_admin(toml));
    let admin = served.running.admin_addr().unwrap();
    assert_eq!(fetch(admin, "GET", "/readyz").await.0, 200);
    let drained = tokio::spawn(served.running.drain());
    tokio::task::yield_now().await;
    let (status, head, body) = fetch(admin, "GET", "/readyz").await;
    assert!(status == 503 && head.contains("problem+json") && body.contains("draining"), "{head}\n{body}");
    assert_eq!(fetch(admin, "GET", "/healthz").await.0, 200);
    drained.await.unwrap();
    assert!(TcpStream::connect(admin).await.is_err());
}

#[tokio::test]
async fn readiness_does_not_depend_on_the_origin() {
    let store = std::sync::Arc::new(object_store::memory::InMemory::new());
    let served = serve_with(store, Freshness::default(), with_admin(""));
    served.lookup(ask("lake/none.parquet", &[1])).await.unwrap_err();
    assert_eq!(fetch(served.running.admin_addr().unwrap(), "GET", "/readyz").await.0, 200);
}
