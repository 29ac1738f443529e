//! The peers' interpreter and how their programs are run.
//!
//! Knows processes. It must not know what a program does. Every process is killed when its handle is dropped, and every
//! wait has an end.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Longest time that a peer may take for anything, its start on a busy machine included.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A program of `tests/py`, ready to be started.
pub(crate) fn program(name: &str) -> Command {
    let Some(interpreter) = std::env::var_os("TESTKIT_PYTHON") else {
        panic!(
            "TESTKIT_PYTHON is not set: this test needs Python with the packages of tests/py/requirements.txt. Run \
             the tests through `cargo xtask test`, which installs them and sets it"
        );
    };
    let mut command = Command::new(interpreter);
    // -B: no compiled files beside the sources.
    command.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/py").join(name));
    // Everything is on this machine; no proxy between.
    command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1").env_remove("AWS_PROFILE");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs a program to its end: JSON in, JSON out.
pub(crate) async fn run(name: &str, arguments: &[&str], input: &Json) -> Json {
    run_within(PATIENCE, name, arguments, input).await
}

/// The same for a program that has more to do.
pub(crate) async fn run_within(patience: Duration, name: &str, arguments: &[&str], input: &Json) -> Json {
    let mut child = program(name).args(arguments).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&serde_json::to_vec(input).unwrap()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(patience, child.wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("{name} {arguments:?} did not end")).unwrap();
    let (said, complained) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} {arguments:?}: {complained}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{name} {arguments:?}: {error}: {said}"))
}
