//! The corpus of golden lookups by a client of another language, made from the published `.proto` files.
//!
//! Knows where the corpus and the protos lie. The client is `tests/py/corpus_grpc.py`: each lookup goes by the unary
//! call, answered with typed values, and over the stream, answered with compact rows.

use std::path::{Path, PathBuf};
use std::time::Duration;

use alcedo_testkit::cluster::WorkerProcess;
use serde_json::json;

use crate::python::{self, end_of};
use crate::served::settings;
use crate::wild::report;

/// Only a test on a machine that does many other things takes so long.
const PATIENCE: Duration = Duration::from_secs(240);
/// Lookups of the corpus.
const LOOKUPS: u64 = 791;

/// A directory of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path).canonicalize().unwrap()
}

/// What the worker writes down: all that happens to its connections and at its origin, for the day on which a lookup
/// fails that never did.
const LOG: &str = "info,alcedo_worker=debug,alcedo_origin=debug,alcedo_cache=debug,h2=debug";

#[tokio::test]
async fn a_python_client_of_the_published_protos_has_the_right_rows_and_errors() {
    let (corpus, protos) = (repository("crates/alcedo-lookup/tests/corpus"), repository("proto"));
    let settings = settings(&format!("url = \"file://{}/files\"", corpus.display()));
    // A process of its own, because that one has a log.
    let worker = WorkerProcess::start(&settings, &[("ALCEDO_LOG", LOG)]).await.unwrap();
    let log = || format!("the end of the worker's log:\n{}", end_of(&worker.stderr().unwrap()));
    let arguments = [protos.to_str().unwrap(), worker.endpoint(), "lake", corpus.to_str().unwrap()];
    let result = python::try_within(PATIENCE, "corpus_grpc.py", &arguments, &json!(null)).await;
    let result = result.unwrap_or_else(|why| panic!("{why}\n{}", log()));
    for form in ["unary", "stream"] {
        let wrong = report(form, &result[form]);
        assert!(wrong.is_empty(), "{} lookups:\n{}\n{}", wrong.len(), wrong.join("\n"), log());
        assert_eq!(result[form]["lookups"].as_u64(), Some(LOOKUPS));
    }
    worker.kill().await.unwrap();
}
