//! The corpus of golden lookups by a client of another language, made from the published `.proto` files.
//!
//! Knows where the corpus and the protos lie. The client is `tests/py/corpus_grpc.py`: each lookup goes by the unary
//! call, answered with typed values, and over the stream, answered with compact rows.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::python;
use crate::served::serve;
use crate::wild::report;

/// Only a test on a machine that does many other things takes so long.
const PATIENCE: Duration = Duration::from_secs(240);
/// Lookups of the corpus.
const LOOKUPS: u64 = 791;

/// A directory of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path).canonicalize().unwrap()
}

#[tokio::test]
async fn a_python_client_of_the_published_protos_has_the_right_rows_and_errors() {
    let (corpus, protos) = (repository("crates/alcedo-lookup/tests/corpus"), repository("proto"));
    let served = serve(&format!("url = \"file://{}/files\"", corpus.display()));
    let address = served.address();
    let arguments = [protos.to_str().unwrap(), &address, "lake", corpus.to_str().unwrap()];
    let result = python::run_within(PATIENCE, "corpus_grpc.py", &arguments, &json!(null)).await;
    for form in ["unary", "stream"] {
        let wrong = report(form, &result[form]);
        assert!(wrong.is_empty(), "{} lookups:\n{}", wrong.len(), wrong.join("\n"));
        assert_eq!(result[form]["lookups"].as_u64(), Some(LOOKUPS));
    }
}
