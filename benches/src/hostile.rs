//! How long a hostile file keeps a worker busy.
//!
//! Knows the hostile files that the lookup crate's tests keep, and one worker over a store on loopback. Each file is
//! asked once over a connection that is there already, so the time holds the reads of the store, both of them where a
//! file is read twice before it is called broken; then once more, when what is wrong with it is known.

use std::fs;
use std::path::Path;
use std::time::Instant;

use alcedo_testkit::cluster::{ClusterOptions, TestCluster};
use anyhow::Context as _;
use bytes::Bytes;

use crate::report::Row;

/// What a hostile file may cost at most.
const TARGET_MS: f64 = 100.0;
/// A good file, which warms the connection.
const GOOD: &str = "pa_snappy_v1.parquet";

/// Asks every hostile file.
///
/// # Errors
/// The files are not there, or the worker does not start or does not live.
pub async fn run() -> anyhow::Result<Vec<Row>> {
    let files = files()?;
    let cluster = TestCluster::start(ClusterOptions { objects: files.clone(), ..ClusterOptions::default() })?;
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for (name, _) in files.iter().filter(|(name, _)| name != GOOD) {
        ask(&cluster, GOOD).await.context("the good file is refused")?;
        // Whether there is an answer or an error is the tests' subject.
        for times in [&mut first, &mut again] {
            let began = Instant::now();
            let _ = ask(&cluster, name).await;
            times.push((began.elapsed().as_secs_f64() * 1e3, name.as_str()));
        }
    }
    let row = |what: &str, times: &[(f64, &str)]| {
        let slowest = times.iter().max_by(|a, b| a.0.total_cmp(&b.0)).context("there is no hostile file")?;
        anyhow::Ok(Row {
            name: format!("hostile files, {what}: the slowest of {} ({})", times.len(), slowest.1),
            unit: "ms",
            alcedo: slowest.0,
            peer: None,
            ratio: None,
            target: format!("<= {TARGET_MS} ms"),
            met: Some(slowest.0 <= TARGET_MS),
        })
    };
    Ok(vec![row("first lookup", &first)?, row("second lookup", &again)?])
}

/// The hostile files and the good one.
fn files() -> anyhow::Result<Vec<(String, Bytes)>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/alcedo-lookup/tests/corpus/files");
    let mut files = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if name.starts_with("bad_") || name == GOOD {
            files.push((name, fs::read(&path)?.into()));
        }
    }
    files.sort();
    Ok(files)
}

async fn ask(cluster: &TestCluster, name: &str) -> Result<usize, alcedo_client::Error> {
    let lookup = cluster.client().lookup(format!("lake/{name}")).key_column("k").key(-5_000);
    Ok(lookup.await?.rows().count())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn the_hostile_files_are_there() {
        let files = files().unwrap();
        assert!(files.len() > 10 && files.iter().any(|(name, _)| name == GOOD), "{}", files.len());
    }
}
