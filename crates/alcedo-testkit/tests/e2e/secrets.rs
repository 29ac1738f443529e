//! Secrets: whatever happens, neither an access key nor its secret is in anything that anybody can read.
//!
//! The worker here is a process with its log at its most talkative. Each test looks for its canaries in everything that
//! was said, and for a planted word too, so that a search that looks in the wrong place is noticed.

use std::fmt::Debug;

use alcedo_client::{Client, ListOptions};
use alcedo_testkit::cluster::{WorkerProcess, command, run, worker_toml};
use alcedo_testkit::s3::{Fault, Operation, Rule, S3Options, S3Server};
use std::time::Duration;

use crate::sample::{large, large_file, only_row, values};

const KEY_ID: &str = "AKIACANARY0ID0CANARY";
const SECRET: &str = "canary0secret/canary0secret+canary0secret=";
const TOKEN: &str = "canary0session0token";
/// A store that is silent is soon asked again, and what is said then is heard.
const HURRIED: &str = "[origin]\nattempt_timeout = \"2s\"\n";
/// Harmless, and said on purpose.
const PLANTED: &str = "planted0word";

/// Everything that was said, by whom.
#[derive(Default)]
struct Heard(Vec<(&'static str, String)>);

impl Heard {
    fn add(&mut self, by: &'static str, what: impl Into<String>) {
        self.0.push((by, what.into()));
    }

    fn add_debug(&mut self, by: &'static str, what: &impl Debug) {
        self.add(by, format!("{what:?}"));
    }

    /// Who said this word.
    fn said(&self, word: &str) -> Vec<&'static str> {
        self.0.iter().filter(|(_, text)| text.contains(word)).map(|(by, _)| *by).collect()
    }

    fn assert_no_secret(&self) {
        // As it is, as URLs spell it, and what is left where a text was cut or escaped.
        let spellings = [SECRET, &SECRET.replace('/', "%2F"), "canary0secret", KEY_ID, TOKEN, "Signature="];
        for secret in spellings {
            assert_eq!(self.said(secret), Vec::<&str>::new(), "{secret} was said");
        }
    }
}

fn store() -> S3Server {
    let access_key = Some((KEY_ID.to_owned(), SECRET.to_owned()));
    let store = S3Server::start(S3Options { access_key, ..S3Options::default() }).unwrap();
    store.put("lake", "big.parquet", large_file(0));
    store
}

/// Looks up through success and every kind of failure, and hears what is said.
async fn live_through(store: &S3Server, worker: &WorkerProcess, environment: &[(&str, &str)]) -> Heard {
    let mut heard = Heard::default();
    let client = Client::builder().endpoints([worker.endpoint()]).deadline(Duration::from_secs(20)).build().unwrap();
    let lake = large(7);
    let rows = lake.rows_of_file(0);
    let truth = |at: usize| lake.row(rows[at]).unwrap();
    let ask = |at: usize| client.lookup("lake/big.parquet").key_column("id").key(truth(at).id).trace(true);

    let answer = ask(70_000).await.unwrap();
    assert_eq!(only_row(&answer).1, values(&truth(70_000)), "the credentials work");
    heard.add_debug("answer", &answer);
    let status = |code| Fault::Status { code, retry_after: None };
    let to = "http://192.0.2.1/elsewhere".to_owned();
    let faults = [status(403), status(401), status(503), status(400), Fault::Redirect { to }, Fault::StallHeaders];
    for (fault, at) in faults.into_iter().zip((1..).map(|i| i * 9_000)) {
        store.faults().add(Rule::always(fault.clone()));
        let error = ask(at).deadline(Duration::from_millis(400)).await;
        heard.add_debug("client", &error.expect_err(&format!("{fault:?}")));
        heard.add_debug("list", &client.list("lake/", ListOptions::default()).await);
        heard.add_debug("stat", &client.with_deadline(Duration::from_millis(400)).stat("lake/none").await);
        store.faults().clear();
    }
    assert!(store.counters().get > 6 && store.requests().iter().any(|request| request.operation == Operation::List));
    // Its URL is in the error, and in the log because the store is asked again.
    store.faults().add(Rule::always(status(503)));
    heard.add_debug("client", &client.lookup(format!("lake/{PLANTED}.parquet")).key(1).await);
    store.faults().clear();
    heard.add_debug("cluster", &client.cluster().await.unwrap());
    heard.add_debug("status", &client.status().await.unwrap());
    let home = tempfile::tempdir().unwrap();
    for args in [&["ls"][..], &["get", "lake/big.parquet", "1", "-k", "id", "--trace", "-vvv"], &["stat", "lake/x"]] {
        let mut command = command(home.path()).unwrap();
        command.args(args).args(["-e", worker.endpoint()]).envs(environment.iter().copied());
        heard.add_debug("command", &run(command).await.unwrap());
    }
    heard.add("worker's log", worker.stderr().unwrap());
    heard.add("worker's stdout", worker.stdout().unwrap());
    heard
}

async fn show_config(toml: &str, environment: &[(&str, &str)]) -> String {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("worker.toml"), toml).unwrap();
    let mut all = String::new();
    for args in
        [&["show", "worker.toml", "--origin"][..], &["show", "worker.toml", "-o", "json"], &["check", "worker.toml"]]
    {
        let mut command = command(home.path()).unwrap();
        command.arg("config").args(args).envs(environment.iter().copied());
        let said = run(command).await.unwrap();
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        all += &format!("{said:?}");
    }
    all
}

/// The worker says its id when it is ready.
fn planted(toml: &str) -> String {
    toml.replace("\"w-1\"", &format!("\"{PLANTED}\""))
}

fn assert_planted_is_heard(heard: &Heard) {
    let by = heard.said(PLANTED);
    assert!(by.contains(&"client") && by.contains(&"worker's log"), "the search hears too little: {by:?}");
}

#[tokio::test]
async fn credentials_of_a_file_are_in_nothing_that_is_said() {
    let (store, home) = (store(), tempfile::tempdir().unwrap());
    let file = home.path().join("credentials");
    let lines = format!("[default]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n");
    std::fs::write(&file, lines).unwrap();
    let mount = format!("credentials_file = \"{}\"\n", file.display());
    let toml = planted(&worker_toml(&store.url(), &mount, HURRIED));
    let environment = [("ALCEDO_LOG", "trace"), ("RUST_LOG", "trace")];
    let worker = WorkerProcess::start(&toml, &environment).await.unwrap();
    let mut heard = live_through(&store, &worker, &environment).await;
    heard.add("config", show_config(&toml, &[]).await);
    assert_planted_is_heard(&heard);
    heard.assert_no_secret();
}

#[tokio::test]
async fn credentials_of_the_environment_are_in_nothing_that_is_said() {
    let store = store();
    let toml = planted(&worker_toml(&store.url(), "", HURRIED).replace("anonymous = true\n", ""));
    let environment = [
        ("ALCEDO_LOG", "trace"),
        ("RUST_LOG", "trace"),
        ("AWS_ACCESS_KEY_ID", KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SESSION_TOKEN", TOKEN),
    ];
    let worker = WorkerProcess::start(&toml, &environment).await.unwrap();
    let mut heard = live_through(&store, &worker, &environment).await;
    heard.add("config", show_config(&toml, &environment).await);
    assert_planted_is_heard(&heard);
    heard.assert_no_secret();
}

#[tokio::test]
async fn credentials_that_the_store_refuses_are_not_repeated_in_the_refusal() {
    let store = S3Server::start(S3Options {
        access_key: Some(("another".to_owned(), "one".to_owned())),
        ..S3Options::default()
    })
    .unwrap();
    store.put("lake", "big.parquet", large_file(0));
    let toml = worker_toml(&store.url(), "", "").replace("anonymous = true\n", "");
    let environment = [("ALCEDO_LOG", "trace"), ("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET)];
    let worker = WorkerProcess::start(&toml, &environment).await.unwrap();
    let client = Client::builder().endpoints([worker.endpoint()]).deadline(Duration::from_secs(20)).build().unwrap();
    let error = client.lookup("lake/big.parquet").key_column("id").key(1).await.unwrap_err();
    assert_eq!(
        error.message,
        "s3://lake/big.parquet: the origin answered 403 Forbidden (AccessDenied): check the mount's credentials and \
         the bucket policy"
    );
    let mut heard = Heard::default();
    heard.add_debug("client", &error);
    heard.add("worker's log", worker.stderr().unwrap());
    heard.assert_no_secret();
}

#[test]
fn a_planted_secret_is_found() {
    let mut heard = Heard::default();
    heard.add("somebody", format!("... Credential={KEY_ID}/2026 ..."));
    assert_eq!(heard.said(KEY_ID), ["somebody"]);
    assert!(std::panic::catch_unwind(|| heard.assert_no_secret()).is_err());
}
