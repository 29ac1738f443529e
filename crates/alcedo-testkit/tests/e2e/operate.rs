//! What an operator types against three workers: who owns a file, what is held where, dropping it, how the workers are
//! doing, and measuring them; with all of them up, and with one down.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use alcedo_client::{Client, Value};
use alcedo_testkit::cluster::{ClusterOptions, Finished, ProcessCluster, TestCluster, command, run};
use alcedo_testkit::s3::{Fault, Rule};
use serde_json::Value as Json;

use crate::sample::{absent_ids, only_row, small, small_objects, values};

/// What a down worker costs the exit code of a command that asks all of them.
const PARTIAL: Option<i32> = Some(5);

fn options() -> ClusterOptions {
    ClusterOptions { objects: small_objects(), workers: 3, ..ClusterOptions::default() }
}

fn cluster() -> TestCluster {
    TestCluster::start(options()).unwrap()
}

fn file(number: u32) -> String {
    format!("lake/lake/part-{number:05}.parquet")
}

/// A key of a file's rows in the middle, where it has not changed places with a neighbour, and its row.
fn row_of(file: u32) -> (i64, Vec<Value>) {
    let rows = small().rows_of_file(file);
    let row = small().row(rows[rows.len() / 2]).unwrap();
    (row.id, values(&row))
}

async fn ask(client: &Client, path: &str, id: i64) -> (String, Vec<Value>) {
    let answer = client.lookup(path).key_column("id").key(id).await.unwrap();
    (answer.worker.to_string(), only_row(&answer).1.to_vec())
}

/// The JSON document that a command prints.
fn json(said: &Finished) -> Json {
    serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("no JSON: {said:?}"))
}

async fn printed(cluster: &TestCluster, args: &[&str]) -> Json {
    let said = cluster.run(&[args, &["-o", "json"]].concat()).await.unwrap();
    assert_eq!((said.code, &said.stderr.is_empty()), (Some(0), &true), "{said:?}");
    json(&said)
}

/// Runs the command against the first worker of several processes.
async fn against(cluster: &ProcessCluster, home: &Path, args: &[&str]) -> Finished {
    let mut command = command(home).unwrap();
    command.args(args).env("ALCEDO_ENDPOINTS", cluster.workers()[0].endpoint());
    run(command).await.unwrap()
}

#[tokio::test]
async fn who_names_the_worker_that_answers() {
    let cluster = cluster();
    let paths: Vec<String> = (0..16).map(file).collect();
    let mut args = vec!["who", "--replicas", "3"];
    args.extend(paths.iter().map(String::as_str));
    let placed = printed(&cluster, &args).await;
    assert_eq!(placed["kind"], "PlacementList");
    let mut owners = BTreeSet::new();
    for (number, item) in placed["items"].as_array().unwrap().iter().enumerate() {
        assert_eq!(item["url"], format!("s3://{}", paths[number]), "{item}");
        assert_eq!((&item["members"], &item["members_agreeing"]), (&3.into(), &3.into()));
        assert_eq!(item["cached_bytes"], 0, "{item}");
        let named: BTreeSet<&str> = (0..3).map(|i| item["owners"][i]["id"].as_str().unwrap()).collect();
        assert_eq!(named, BTreeSet::from(["w-1", "w-2", "w-3"]));
        let (id, row) = row_of(number as u32);
        let (worker, answered) = ask(cluster.client(), &paths[number], id).await;
        assert_eq!((item["owners"][0]["address"].as_str(), answered), (Some(worker.as_str()), row), "{item}");
        owners.insert(worker);
    }
    assert!(owners.len() > 1, "one worker owns all 16 files");
    // What was looked up is where the ring says, in all of the forms.
    let again = printed(&cluster, &args).await;
    assert!(again["items"].as_array().unwrap().iter().all(|item| item["cached_bytes"].as_u64() > Some(0)), "{again}");
    let table = cluster.run(&["who", &paths[3], "lake/lake/"]).await.unwrap();
    let lines: Vec<Vec<&str>> = table.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["PATH", "HASH", "OWNER", "STANDBY", "CACHED", "EPOCH", "AGREES"]);
    assert_eq!((lines[1][2], lines[1][6]), (placed["items"][3]["owners"][0]["id"].as_str().unwrap(), "3/3"));
    let plan = printed_with_summary(&cluster, &["explain", "lake/lake/", "1", "-o", "json"]).await;
    assert_eq!((plan["owners"][0]["id"].as_str(), plan["url"].as_str()), (Some(lines[2][2]), Some("s3://lake/lake")));
    let absent = cluster.run(&["who", "lake/none.parquet", "-o", "name"]).await.unwrap();
    assert!(absent.code == Some(0) && absent.stdout.starts_with("w-"), "{absent:?}");
    assert_eq!(cluster.run(&["who", "sea/none.parquet"]).await.unwrap().code, Some(3));
}

#[tokio::test]
async fn check_tells_what_lookups_left_and_free_takes_it_away() {
    let cluster = cluster();
    let before = printed(&cluster, &["check", "lake/lake/"]).await;
    assert_eq!((&before["kind"], &before["files_total"]), (&"HoldingList".into(), &16.into()));
    assert_eq!(before["total"], serde_json::json!({ "files": 0, "cached_bytes": 0, "indexed": 0 }));
    cluster.store().reset_counters();
    let (path, (id, row)) = (file(2), row_of(2));
    let (owner, answered) = ask(cluster.client(), &path, id).await;
    assert_eq!(answered, row);
    let fetched = cluster.store().counters();
    let held = printed(&cluster, &["check", "lake/lake/", "-l"]).await;
    let cached = held["total"]["cached_bytes"].as_u64().unwrap();
    assert!(cached > 0 && cached <= fetched.bytes_sent, "{cached} of {} bytes", fetched.bytes_sent);
    assert_eq!((&held["total"]["files"], &held["total"]["indexed"]), (&1.into(), &1.into()));
    for item in held["items"].as_array().unwrap() {
        let is_owner = item["address"] == owner;
        assert_eq!(item["cached_bytes"], if is_owner { cached } else { 0 }, "{item}");
    }
    let holders: Vec<usize> =
        held["files"].as_array().unwrap().iter().map(|file| file["holders"].as_array().unwrap().len()).collect();
    assert_eq!(holders.iter().sum::<usize>(), 1, "{held}");
    assert_eq!(holders[2], 1, "{held}");
    cluster.store().reset_counters();
    assert_eq!(ask(cluster.client(), &path, id).await.1, row);
    assert_eq!(cluster.store().counters().get, 0);

    let freed = printed(&cluster, &["free", &path, "--yes"]).await;
    assert_eq!((&freed["kind"], &freed["total"]["files"]), (&"FreedList".into(), &1.into()));
    assert_eq!(freed["total"]["freed_bytes"], cached);
    let after = printed(&cluster, &["check", &path]).await;
    assert_eq!((&after["files_total"], &after["total"]), (&1.into(), &before["total"]));
    cluster.store().reset_counters();
    assert_eq!(ask(cluster.client(), &path, id).await.1, row);
    let again = cluster.store().counters();
    assert_eq!((again.get, again.bytes_sent), (fetched.get, fetched.bytes_sent), "a lookup costs what it did at first");
}

#[tokio::test]
async fn free_of_a_prefix_drops_what_every_worker_holds_below() {
    let cluster = cluster();
    for number in [0, 1, 2, 3, 4, 5] {
        ask(cluster.client(), &file(number), row_of(number).0).await;
    }
    let held = printed(&cluster, &["check", "lake/lake"]).await;
    assert_eq!(held["total"]["files"], 6);
    let shown = cluster.run(&["check", "lake/lake", "--no-headers"]).await.unwrap().stdout;
    assert_eq!((shown.lines().count(), shown.lines().filter(|line| line.starts_with("w-")).count()), (4, 3), "{shown}");
    let names = cluster.run(&["check", "lake/lake", "-o", "name"]).await.unwrap();
    assert_eq!(
        names.stdout.lines().map(str::to_owned).collect::<Vec<_>>(),
        (0..6).map(|i| format!("s3://{}", file(i))).collect::<Vec<_>>()
    );
    let freed = printed(&cluster, &["free", "lake/lake/", "-y"]).await;
    assert_eq!((&freed["total"]["files"], &freed["total"]["freed_bytes"]), (&6.into(), &held["total"]["cached_bytes"]));
    assert_eq!(printed(&cluster, &["check", "lake/lake/"]).await["total"]["cached_bytes"], 0);
    let nothing = cluster.run(&["check", "lake/nothing/"]).await.unwrap();
    assert_eq!(
        (nothing.code, nothing.stderr.as_str()),
        (Some(3), "not found: there is nothing at or below lake/nothing/\n")
    );
    for args in [["check", "lake/none.parquet", "-q"], ["check", "sea/", "-q"], ["free", "sea/", "-y"]] {
        assert_eq!(cluster.run(&args).await.unwrap().code, Some(3), "{args:?}");
    }
}

#[tokio::test]
async fn free_asks_first_and_needs_no_origin_for_a_file() {
    let cluster = cluster();
    let (path, (id, row)) = (file(7), row_of(7));
    ask(cluster.client(), &path, id).await;
    let refused = cluster.run(&["free", &path]).await.unwrap();
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
    assert!(refused.stderr.ends_with("hint: say --yes\n"), "{}", refused.stderr);
    assert!(printed(&cluster, &["check", &path]).await["total"]["cached_bytes"].as_u64() > Some(0));
    cluster.store().faults().add(Rule::always(Fault::Status { code: 503, retry_after: None }));
    cluster.store().reset_counters();
    // All three knew its version since they were asked what they hold; one has its pages.
    let freed = printed(&cluster, &["free", &path, "--yes"]).await;
    let owner = freed["items"].as_array().unwrap().iter().filter(|item| item["freed_bytes"].as_u64() > Some(0));
    assert_eq!((owner.count(), cluster.store().counters().get), (1, 0), "{freed}");
    cluster.store().faults().clear();
    assert_eq!(ask(cluster.client(), &path, id).await.1, row);
}

#[tokio::test]
async fn the_ring_the_workers_and_the_status_tell_one_story() {
    let cluster = cluster();
    for number in 0..4 {
        ask(cluster.client(), &file(number), row_of(number).0).await;
    }
    let ring = printed_with_summary(&cluster, &["ring", "show", "-o", "json"]).await;
    let members = ring["items"].as_array().unwrap();
    let share: f64 = members.iter().map(|member| member["share"].as_f64().unwrap()).sum();
    assert!((share - 1.0).abs() < 1e-9 && members.len() == 3, "{ring}");
    let spelled = cluster.run(&["ring", "show", "--members-only"]).await.unwrap();
    let addresses = cluster.workers().iter().enumerate();
    let wanted: String = addresses.map(|(i, worker)| format!("w-{}={}\n", i + 1, worker.local_addr())).collect();
    assert_eq!((spelled.stdout, spelled.stderr), (wanted, String::new()));

    let workers = printed(&cluster, &["workers"]).await;
    let items = workers["items"].as_array().unwrap();
    assert!(items.iter().all(|one| one["ring_epoch"] == ring["ring_epoch"] && one["state"] == "ready"), "{workers}");
    let sum = |field: &str| items.iter().map(|one| one[field].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("lookups_total"), sum("lookups_failed")), (4, 0));
    let status = printed(&cluster, &["status"]).await;
    assert_eq!((&status["kind"], &status["ring_epoch"]), (&"ClusterStatus".into(), &ring["ring_epoch"]));
    assert_eq!((&status["members_agreeing"], &status["workers"]["ready"]), (&3.into(), &3.into()));
    for field in ["lookups_total", "origin_gets", "page_bytes", "index_bytes", "page_capacity_bytes"] {
        assert_eq!(status[field], sum(field), "{field}");
    }
    assert_eq!(status["warnings"], Json::Array(Vec::new()));
    let held = printed(&cluster, &["check", "lake/lake/"]).await;
    assert!(held["total"]["cached_bytes"].as_u64().unwrap() <= sum("page_bytes"), "{held}");
    let text = cluster.run(&["status"]).await.unwrap();
    assert!(text.stdout.contains("(agreed 3/3)   workers 3 ready, 0 draining, 0 down\n"), "{}", text.stdout);
    let names = cluster.run(&["workers", "-o", "name"]).await.unwrap();
    assert_eq!((names.code, names.stdout.as_str()), (Some(0), "w-1\nw-2\nw-3\n"));
}

/// Of a command that also says a line about its table.
async fn printed_with_summary(cluster: &TestCluster, args: &[&str]) -> Json {
    let said = cluster.run(args).await.unwrap();
    assert_eq!((said.code, said.stderr.lines().count()), (Some(0), 1), "{said:?}");
    json(&said)
}

#[tokio::test]
async fn a_worker_that_is_down_is_shown_and_the_others_are_told() {
    let mut cluster = ProcessCluster::start(options()).await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let address = cluster.workers()[2].endpoint().to_owned();
    cluster.workers_mut()[2].crash().await.unwrap();
    let refused = format!("no answer from {address}: connection refused");

    let workers = against(&cluster, home.path(), &["workers"]).await;
    assert_eq!((workers.code, workers.stderr), (PARTIAL, format!("error: 1 of 3 workers failed: w-3: {refused}\n")));
    let states: Vec<&str> = workers.stdout.lines().map(|line| line.split_whitespace().nth(2).unwrap()).collect();
    assert_eq!(states, ["STATE", "ready", "ready", "down"]);
    let status = against(&cluster, home.path(), &["status"]).await;
    assert!(status.stdout.contains("(agreed 2/3)   workers 2 ready, 0 draining, 1 down\n"), "{}", status.stdout);
    assert!(status.code == Some(0) && status.stdout.ends_with(&format!("! w-3: down: {refused}\n")), "{status:?}");
    let check = json(&against(&cluster, home.path(), &["check", "lake/lake/", "-o", "json"]).await);
    assert_eq!((&check["items"][2]["error"], &check["files_total"]), (&refused.clone().into(), &16.into()));
    for args in [["check", "lake/lake/"].as_slice(), &["free", "lake/lake/", "--yes"]] {
        let said = against(&cluster, home.path(), args).await;
        assert!(said.code == PARTIAL && said.stdout.contains("down") && said.stdout.contains("TOTAL"), "{said:?}");
    }
    let who = against(&cluster, home.path(), &["who", &file(0)]).await;
    assert!(who.code == Some(0) && who.stdout.trim_end().ends_with("2/3"), "{who:?}");
    assert_eq!(who.stderr, format!("! w-3: down: {refused}\n"));
    let ring = against(&cluster, home.path(), &["ring", "show", "-o", "name"]).await;
    assert_eq!((ring.code, ring.stdout.as_str()), (Some(0), "w-1\nw-2\nw-3\n"));

    for worker in cluster.workers_mut() {
        worker.crash().await.unwrap();
    }
    let commands: [&[&str]; 6] = [
        &["workers"],
        &["status"],
        &["who", "lake/"],
        &["ring", "show"],
        &["check", "lake/"],
        &["free", "lake/", "-y"],
    ];
    for args in commands {
        let said = against(&cluster, home.path(), args).await;
        assert_eq!((said.code, said.stdout.as_str()), (Some(4), ""), "{args:?}: {}", said.stderr);
    }
}

async fn lookups(client: &Client) -> u64 {
    client.status().await.unwrap().iter().map(|(_, status)| status.as_ref().unwrap().lookups_total).sum()
}

#[tokio::test]
async fn bench_counts_what_the_workers_count() {
    let (cluster, home) = (cluster(), tempfile::tempdir().unwrap());
    let keys = home.path().join("keys");
    let mut ids: Vec<i64> = (0..90).map(|number| small().row(number * 200).unwrap().id).collect();
    ids.extend(absent_ids(&small(), 10));
    std::fs::write(&keys, ids.iter().map(|id| format!("{id}\n")).collect::<String>()).unwrap();
    let keys = keys.display().to_string();
    let bench = ["bench", "get", "lake/lake/", "-k", "id", "-s", "id,user", "--keys-from", &keys, "-j", "8"];
    for (batch, found, missing) in [(1, 180, 20), (10, 1_800, 200)] {
        let before = lookups(cluster.client()).await;
        let batch = batch.to_string();
        let report = printed(&cluster, &[&bench[..], &["--count", "200", "--batch", &batch]].concat()).await;
        assert_eq!((&report["kind"], &report["loop"]), (&"LookupBench".into(), &"closed".into()));
        assert_eq!((&report["lookups"], &report["failed"]), (&200.into(), &0.into()));
        // The first one, which connects, is told by itself.
        assert_eq!(lookups(cluster.client()).await - before, 201);
        // All keys were asked as often, but for the batch that the first lookup began with.
        assert_eq!((&report["keys_found"], &report["keys_missing"]), (&found.into(), &missing.into()), "{report}");
        assert_eq!(report["rows"], found);
        let times = ["p50_us", "p90_us", "p99_us", "p99_9_us", "max_us"].map(|name| report[name].as_u64().unwrap());
        assert!(times.is_sorted() && times[0] > 0 && report["first_us"].as_u64() > Some(0), "{report}");
        assert!(report["lookups_per_s"].as_u64() > Some(0), "{report}");
    }
    let text = cluster.run(&[&bench[..], &["--count", "3"]].concat()).await.unwrap();
    assert!(text.code == Some(0) && text.stdout.starts_with("lookups  3 of 1 key in "), "{text:?}");
    assert!(text.stdout.contains("\np99.9 ") && text.stdout.contains("closed loop"), "{text:?}");
    let wrong = cluster.run(&["bench", "get", "sea/", "--keys-from", &keys]).await.unwrap();
    assert_eq!((wrong.code, wrong.stdout.as_str()), (Some(3), ""), "{}", wrong.stderr);
}

#[tokio::test]
async fn bench_prints_what_it_measured_when_it_is_interrupted() {
    let (cluster, home) = (cluster(), tempfile::tempdir().unwrap());
    std::fs::write(home.path().join("keys"), format!("{}\n", row_of(0).0)).unwrap();
    let mut bench = command(home.path()).unwrap();
    bench.args(["bench", "get", "lake/lake/", "-k", "id", "--keys-from", "keys", "-d", "55s", "-o", "json"]);
    bench.env("ALCEDO_ENDPOINTS", cluster.endpoint()).stdout(Stdio::piped());
    let bench = tokio::process::Command::from(bench).kill_on_drop(true).spawn().unwrap();
    // More than the first: the loops run, and so does their ear for signals.
    while lookups(cluster.client()).await < 100 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let id = bench.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let ended = bench.wait_with_output().await.unwrap();
    let report: Json = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!((ended.status.code(), &report["interrupted"]), (Some(130), &true.into()));
    assert!(
        report["lookups"].as_u64() >= Some(99 - 64) && report["elapsed_us"].as_u64() < Some(55_000_000),
        "{report}"
    );
}

#[tokio::test]
async fn lookups_that_fail_after_the_first_are_counted_by_kind() {
    let (cluster, home) = (cluster(), tempfile::tempdir().unwrap());
    let keys = home.path().join("keys");
    std::fs::write(&keys, format!("{}\nno-number\n", row_of(0).0)).unwrap();
    let keys = keys.display().to_string();
    let args =
        ["bench", "get", "lake/lake/", "-k", "id", "--keys-from", &keys, "--count", "4", "-j", "1", "-o", "json"];
    let said = cluster.run(&args).await.unwrap();
    assert_eq!((said.code, said.stderr.as_str()), (Some(5), "error: 2 of 4 lookups failed\n"));
    let report = json(&said);
    assert_eq!((&report["lookups"], &report["errors"]), (&2.into(), &serde_json::json!({ "invalid": 2 })));
}

#[tokio::test]
async fn a_missing_directory_of_files_is_nothing_below_as_in_a_bucket() {
    let home = tempfile::tempdir().unwrap();
    let local = Some(home.path().to_path_buf());
    let cluster = TestCluster::start(ClusterOptions { local, ..ClusterOptions::default() }).unwrap();
    for path in ["local/none/", "lake/none/"] {
        let said = cluster.run(&["ls", path]).await.unwrap();
        assert_eq!((said.code, said.stderr), (Some(3), format!("not found: there is nothing below {path}\n")));
    }
}
