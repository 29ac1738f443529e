//! The peers' interpreter and how their programs are run.
//!
//! Knows processes. It must not know what a program does. Every process is killed when its handle is dropped, and every
//! wait has an end. A program that fails or does not end is told with all that it said: nobody may be there to run it
//! again when that happens once.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

/// Longest time that a peer may take for anything, its start included: on a busy machine whose disk has read none of
/// its packages before.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// A program of `tests/py`, ready to be started.
pub(crate) fn program(name: &str) -> Command {
    let Some(interpreter) = std::env::var_os("TESTKIT_PYTHON") else {
        panic!(
            "TESTKIT_PYTHON is not set: this test needs Python with the packages of tests/py/requirements.txt. Run \
             the tests through `cargo xtask test`, which installs them and sets it"
        );
    };
    let mut command = Command::new(interpreter);
    // -B: no compiled files beside the sources. The handler says where every thread is when the program is aborted.
    command.args(["-B", "-X", "faulthandler"]).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/py").join(name));
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
    try_within(patience, name, arguments, input).await.unwrap_or_else(|why| panic!("{why}"))
}

/// The same for a caller who knows more of what went on than the program says.
///
/// # Errors
/// The program did not end, ended badly, or printed no JSON: with what it said.
pub(crate) async fn try_within(
    patience: Duration,
    name: &str,
    arguments: &[&str],
    input: &Json,
) -> Result<Json, String> {
    let began = Instant::now();
    // Into files, so that what was said by a program that does not end is there as well.
    let said = tempfile::tempdir().unwrap();
    let (out, err) = (said.path().join("stdout"), said.path().join("stderr"));
    let mut command = program(name);
    command.args(arguments).stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that has failed before it read this says why.
    let given = stdin.write_all(&serde_json::to_vec(input).unwrap()).await;
    drop(stdin);
    let status = match tokio::time::timeout(patience, child.wait()).await {
        Ok(status) => status.unwrap().to_string(),
        Err(_) => format!("it did not end within {patience:?}; then {}", aborted(&mut child).await),
    };
    let text = |path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    let (printed, complained) = (text(&out), text(&err));
    match serde_json::from_str(&printed) {
        Ok(json) if status == "exit status: 0" => Ok(json),
        parsed => Err(format!(
            "{name} {arguments:?} after {:?}: {status}\ninput: {given:?}\nstdout ({:?}): {}\nstderr: {complained}",
            began.elapsed(),
            parsed.map(|_| "JSON"),
            end_of(&printed)
        )),
    }
}

/// Ends a program that hangs in a way that makes it say where; how it ended.
async fn aborted(child: &mut Child) -> String {
    let pid = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
    let told = pid.map(|pid| kill_process(pid, Signal::ABORT));
    match tokio::time::timeout(PATIENCE, child.wait()).await {
        Ok(status) => format!("{} ({told:?})", status.unwrap()),
        Err(_) => "it did not end when it was aborted either".to_owned(),
    }
}

/// The end of a text that may be very long.
pub(crate) fn end_of(text: &str) -> &str {
    const MOST_BYTES: usize = 40_000;
    &text[text.ceil_char_boundary(text.len().saturating_sub(MOST_BYTES))..]
}
