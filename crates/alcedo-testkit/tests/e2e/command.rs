//! The built command: what it prints, what it says, and its exit codes, with a worker and without.

use std::net::TcpListener;

use alcedo_testkit::cluster::{Finished, WorkerProcess, command, free_ports, run, worker_toml};
use alcedo_testkit::s3::{Fault, Rule};
use serde_json::Value as Json;

use crate::sample::{absent_ids, small, small_cluster};

/// An address that nobody listens on, nor will.
fn dead_endpoint() -> String {
    format!("127.0.0.1:{}", free_ports(1).unwrap()[0])
}

async fn in_home(home: &tempfile::TempDir, args: &[&str]) -> Finished {
    let mut command = command(home.path()).unwrap();
    command.args(args);
    run(command).await.unwrap()
}

#[tokio::test]
async fn a_row_is_printed_as_json_with_its_summary_beside() {
    let (cluster, lake) = (small_cluster(), small());
    let truth = lake.row(777).unwrap();
    let id = truth.id.to_string();
    let said = cluster.run(&["get", "lake/lake/", &id, "-k", "id", "-s", "id,user,flags,tags"]).await.unwrap();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let row: Json = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(row["user"], truth.user);
    assert_eq!(row["flags"], truth.flags);
    assert_eq!(row["id"], truth.id);
    assert!(said.stderr.starts_with("1 row · ") && said.stderr.contains("/16 files asked"), "{}", said.stderr);
    let quiet = cluster.run(&["get", "lake/lake/", &id, "-k", "id", "-q"]).await.unwrap();
    assert_eq!((quiet.code, quiet.stderr.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn keys_that_no_row_has_are_exit_code_3() {
    let (cluster, lake) = (small_cluster(), small());
    let absent = absent_ids(&lake, 3)[0].to_string();
    // Beyond the type's range: no row can have it, which is no error.
    for key in [absent.as_str(), "9223372036854775808", "-170141183460469231731687303715884105729"] {
        let said = cluster.run(&["get", "lake/lake/", key, "-k", "id"]).await.unwrap();
        let wanted = format!("not found: id={key} in lake/lake/\n");
        assert_eq!((said.code, said.stdout.as_str(), said.stderr), (Some(3), "", wanted));
    }
    let present = lake.row(5).unwrap().id.to_string();
    let said = cluster.run(&["get", "lake/lake/", &present, &absent, "-k", "id", "-q"]).await.unwrap();
    assert_eq!((said.code, said.stdout.lines().count()), (Some(0), 1));
    let said = cluster.run(&["get", "lake/lake/", &present, &absent, "-k", "id", "--missing", "error"]).await.unwrap();
    let wanted = format!("not found: 1 of 2 keys in lake/lake/: {absent}\n");
    assert_eq!((said.code, said.stdout.lines().count(), said.stderr), (Some(3), 1, wanted));
}

#[tokio::test]
async fn no_key_is_a_usage_error() {
    let cluster = small_cluster();
    let said = cluster.run(&["get", "lake/lake/"]).await.unwrap();
    let wanted = "error: no key was given\nhint: write keys after the path, one per line in a file for --keys-from, or \
                  --null for rows without one\n";
    assert_eq!((said.code, said.stderr.as_str()), (Some(2), wanted));
    let said = cluster.run(&["get", "lake/lake/", "1", "--keys-from", "-"]).await.unwrap();
    assert_eq!(said.code, Some(2), "{}", said.stderr);
}

#[tokio::test]
async fn more_keys_than_a_message_holds_are_no_matter_to_the_command() {
    let (cluster, lake) = (small_cluster(), small());
    let keys: Vec<String> = (0..1_025).map(|number| lake.row(number).unwrap().id.to_string()).collect();
    let mut args = vec!["get", "lake/lake/", "-k", "id", "-s", "id", "-q"];
    args.extend(keys.iter().map(String::as_str));
    let said = cluster.run(&args).await.unwrap();
    assert_eq!((said.code, said.stdout.lines().count()), (Some(0), 1_025), "{}", said.stderr);
}

#[tokio::test]
async fn a_worker_that_is_down_is_exit_code_4() {
    let home = tempfile::tempdir().unwrap();
    let endpoint = dead_endpoint();
    let said = in_home(&home, &["get", "lake/a.parquet", "1", "-e", &endpoint]).await;
    let wanted = format!(
        "error: no worker reachable: {endpoint}: connection refused (tried 1)\n\
         hint: start one with `alcedo worker run -c worker.toml`, or name another with --endpoints HOST:PORT\n"
    );
    assert_eq!((said.code, said.stderr), (Some(4), wanted));
}

#[tokio::test]
async fn a_worker_that_went_away_is_exit_code_4_and_its_successor_answers() {
    let (cluster, lake) = (small_cluster(), small());
    let id = lake.row(1).unwrap().id.to_string();
    let toml = worker_toml(&cluster.store().url(), "", "");
    let first = WorkerProcess::start(&toml, &[]).await.unwrap();
    let endpoint = first.endpoint().to_owned();
    let home = tempfile::tempdir().unwrap();
    let get = ["get", "lake/lake/", &id, "-k", "id", "-q", "-e", &endpoint];
    assert_eq!(in_home(&home, &get).await.code, Some(0));
    first.kill().await.unwrap();
    assert_eq!(in_home(&home, &get).await.code, Some(4));
    let again = toml.replace("listen = \"127.0.0.1:0\"", &format!("listen = \"{endpoint}\""));
    let _second = WorkerProcess::start(&again, &[]).await.unwrap();
    assert_eq!(in_home(&home, &get).await.code, Some(0));
}

#[tokio::test]
async fn a_settings_file_with_an_unknown_key_names_its_line() {
    let home = tempfile::tempdir().unwrap();
    let toml = "worker_id = \"w\"\nlisten = \"127.0.0.1:0\"\n\n[lookup]\nmax_candidats = 4\n";
    std::fs::write(home.path().join("worker.toml"), toml).unwrap();
    let wanted = "error: worker.toml:5: unknown key `max_candidats`: did you mean `max_candidates`?\n";
    let run = in_home(&home, &["worker", "run", "-c", "worker.toml"]).await;
    assert_eq!((run.code, run.stderr.as_str()), (Some(1), wanted));
    let check = in_home(&home, &["config", "check", "worker.toml"]).await;
    assert_eq!((check.code, check.stderr.as_str()), (Some(7), wanted));
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let home = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    std::fs::write(home.path().join("worker.toml"), format!("listen = \"{address}\"\n")).unwrap();
    let said = in_home(&home, &["worker", "run", "-c", "worker.toml"]).await;
    let wanted = format!(
        "error: cannot listen on {address}: address already in use: another worker may be running; choose \
         another [listen]\n"
    );
    assert_eq!((said.code, said.stderr), (Some(1), wanted));
}

#[tokio::test]
async fn a_mount_that_cannot_work_keeps_the_worker_from_starting() {
    let home = tempfile::tempdir().unwrap();
    let mount = |lines: &str| format!("listen = \"127.0.0.1:0\"\n[[mount]]\nname = \"lake\"\n{lines}\n");
    let cases = [
        (
            "url = \"s3://lake\"\nendpoint = \"http://store.example\"",
            "mount lake: endpoint is plain http: set allow_http = true if that is meant",
        ),
        (
            "url = \"ftp://lake\"",
            "mount lake: url ftp://lake: unknown scheme: use s3://bucket/prefix, gs://bucket/prefix, \
             az://container/prefix or file:///absolute/dir",
        ),
        (
            "url = \"file:///does-not-exist\"",
            "mount lake: directory /does-not-exist: No such file or directory (os error 2)",
        ),
        (
            "url = \"s3://lake\"\ncredentials_file = \"none\"",
            "mount lake: credentials_file none: No such file or directory (os error 2)",
        ),
    ];
    for (lines, wanted) in cases {
        std::fs::write(home.path().join("worker.toml"), mount(lines)).unwrap();
        let said = in_home(&home, &["worker", "run", "-c", "worker.toml"]).await;
        assert_eq!((said.code, said.stderr), (Some(1), format!("error: {wanted}\n")));
    }
}

#[tokio::test]
async fn explain_tells_the_rounds_and_stat_and_ls_the_files() {
    let (cluster, lake) = (small_cluster(), small());
    let id = lake.row(1).unwrap().id.to_string();
    let path = "lake/lake/part-00000.parquet";
    let said = cluster.run(&["explain", path, &id, "-k", "id", "--analyze"]).await.unwrap();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stdout.contains("origin GET"), "{}", said.stdout);
    let said = cluster.run(&["stat", path, "-o", "json"]).await.unwrap();
    let stat: Json = serde_json::from_str(&said.stdout).unwrap();
    assert!(said.code == Some(0) && stat.to_string().contains("s3://lake/lake/part-00000.parquet"), "{stat}");
    let said = cluster.run(&["ls", "lake/lake/", "-o", "name"]).await.unwrap();
    assert_eq!((said.code, said.stdout.lines().count()), (Some(0), 16), "{}", said.stdout);
    let said = cluster.run(&["stat", "lake/lake/none.parquet"]).await.unwrap();
    let wanted = "error: s3://lake/lake/none.parquet: no such file at the origin\n";
    assert_eq!((said.code, said.stderr.as_str()), (Some(3), wanted));
}

#[tokio::test]
async fn a_later_batch_that_fails_is_exit_code_5() {
    let (cluster, lake) = (small_cluster(), small());
    let home = tempfile::tempdir().unwrap();
    // More than one batch of keys; the file that the last of them needs is not readable.
    let first = lake.rows_of_file(0);
    let ids = (0..8_192).map(|at| lake.row(first[at % 1_000]).unwrap().id);
    let last = lake.row(lake.rows_of_file(9)[600]).unwrap().id;
    let lines: String = ids.chain([last]).map(|id| format!("{id}\n")).collect();
    std::fs::write(home.path().join("keys"), lines).unwrap();
    let fault = Fault::Status { code: 403, retry_after: None };
    // Each file's end is read for its bounds, and then this one's data pages.
    cluster.store().faults().add(Rule::always(fault).key("part-00009").after(1));
    let endpoint = cluster.endpoint();
    let args = ["get", "lake/lake/", "-k", "id", "-s", "id", "--keys-from", "keys", "-q", "-e", &endpoint];
    let said = in_home(&home, &args).await;
    assert_eq!((said.code, said.stdout.lines().count()), (Some(5), 8_192), "{}", said.stderr);
    assert!(said.stderr.contains("403 Forbidden (AccessDenied)"), "{}", said.stderr);
    assert!(said.stderr.trim_end().ends_with("(after 8,192 keys were answered)"), "{}", said.stderr);
}
