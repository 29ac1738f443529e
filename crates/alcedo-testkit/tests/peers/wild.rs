//! Files of all kinds by several writers, made while the test runs: every lookup has the right rows or its error.
//!
//! Knows the generator in `tests/py`, which computes what must be answered from the values in memory, and the machine
//! form of the built command. It must not know what the files are; the generator does.

use std::path::Path;
use std::time::Duration;

use alcedo_testkit::cluster::alcedo_binary;
use serde_json::{Value as Json, json};

use crate::python;
use crate::served::serve;

/// Only a test on a machine that does many other things takes so long.
const PATIENCE: Duration = Duration::from_secs(600);
/// Fewer lookups than this, and the generator no longer makes what it should.
const LOOKUPS: u64 = 5_000;

/// Makes the files and returns how many lookups there are.
pub(crate) async fn generate(directory: &Path) -> u64 {
    let made = python::run_within(PATIENCE, "wild.py", &[directory.to_str().unwrap()], &json!(null)).await;
    made["lookups"].as_u64().unwrap()
}

/// Prints the table by group and returns what was wrong.
#[allow(clippy::print_stdout)] // The table is what a reader of the run wants to see.
pub(crate) fn report(title: &str, result: &Json) -> Vec<String> {
    println!("{title}: group, files, lookups, right, wrong, errors as expected");
    for line in result["summary"].as_array().unwrap() {
        println!("  {line}");
    }
    result["wrong"].as_array().unwrap().iter().map(|wrong| format!("{title}: {wrong}")).collect()
}

#[tokio::test]
async fn files_of_all_kinds_by_many_writers_have_the_right_rows() {
    let directory = tempfile::tempdir().unwrap();
    let lookups = generate(directory.path()).await;
    assert!(lookups >= LOOKUPS, "{lookups} lookups");
    let served = serve(&format!("url = \"file://{}/files\"", directory.path().display()));
    let (binary, address) = (alcedo_binary().unwrap(), served.address());
    let arguments = [binary.to_str().unwrap(), &address, "lake", directory.path().to_str().unwrap()];
    // The second time the worker has what it learned of files without a page index.
    for title in ["wild files", "wild files again"] {
        let result = python::run_within(PATIENCE, "machine.py", &arguments, &json!(null)).await;
        let wrong = report(title, &result);
        let all = result["summary"].as_array().unwrap().last().unwrap();
        assert_eq!(all[2].as_u64(), Some(lookups), "every lookup was answered");
        assert!(wrong.is_empty(), "{} of {lookups} lookups:\n{}", wrong.len(), wrong.join("\n"));
    }
}
