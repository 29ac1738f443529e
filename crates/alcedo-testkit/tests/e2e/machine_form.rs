//! The machine form of the built command: `alcedo get --requests`, asked the whole corpus of golden lookups.
//!
//! Knows the lines of docs/FORMATS.md and where the corpus lies. Its files are mounted as a directory, as a user would.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use alcedo_client::Type;
use alcedo_testkit::cluster::{ClusterOptions, Finished, TestCluster, command, free_ports, run};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

use crate::neutral::same;

/// Lookups of the corpus.
const LOOKUPS: usize = 791;
/// After this a partner that still waits for its line has lost it.
const LOST: Duration = Duration::from_secs(60);
const FILE: &str = "local/pa_key_ts_us_utc.parquet";

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../alcedo-lookup/tests/corpus").canonicalize().unwrap()
}

fn corpus_cluster() -> TestCluster {
    let local = Some(corpus().join("files"));
    TestCluster::start(ClusterOptions { local, ..ClusterOptions::default() }).unwrap()
}

fn queries() -> Vec<Json> {
    let text = std::fs::read_to_string(corpus().join("queries.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A lookup of the corpus as a line.
fn line(query: &Json) -> Json {
    let path = format!("local/{}", query["file"].as_str().unwrap());
    json!({ "path": path, "key": query["key"], "op": query["op"], "select": query["project"] })
}

fn text(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// One process that answers the lines of a file, given by its name or on stdin.
async fn answers(endpoint: &str, lines: &[String], by_name: bool) -> Finished {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("requests.jsonl");
    std::fs::write(&file, text(lines)).unwrap();
    let mut process = command(home.path()).unwrap();
    let name = if by_name { "requests.jsonl" } else { "-" };
    process.args(["get", "--requests", name, "-e", endpoint, "--timeout", "25s"]);
    if !by_name {
        process.stdin(std::fs::File::open(file).unwrap());
    }
    run(process).await.unwrap()
}

fn parsed(said: &Finished) -> Vec<Json> {
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    assert!(said.stdout.ends_with('\n'));
    said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn check_rows(reply: &Json, expect: &Json) -> Result<(), String> {
    if reply["row_numbers"] != expect["row_numbers"] {
        return Err(format!("row numbers {}, expected {}", reply["row_numbers"], expect["row_numbers"]));
    }
    let (rows, wanted) = (reply["rows"].as_array().unwrap(), expect["rows"].as_array().unwrap());
    let fields: Vec<&str> = reply.as_object().unwrap().keys().map(String::as_str).collect();
    if fields != ["rows", "types", "row_numbers", "version"] || rows.len() != wanted.len() {
        return Err(format!("{} rows, expected {}, in {fields:?}", rows.len(), wanted.len()));
    }
    let types: Vec<Type> =
        reply["types"].as_array().unwrap().iter().map(|ty| ty.as_str().unwrap().parse().unwrap()).collect();
    let columns = expect["columns"].as_array().unwrap();
    if types.len() != columns.len() || reply["version"] == "" {
        return Err(format!("{types:?} of version {}", reply["version"]));
    }
    for (row, want) in rows.iter().zip(wanted) {
        let (row, want) = (row.as_array().unwrap(), want.as_array().unwrap());
        if (row.len(), want.len()) != (types.len(), types.len()) {
            return Err(format!("{} values of {} columns", row.len(), types.len()));
        }
        for ((got, got_type), (want, column)) in row.iter().zip(&types).zip(want.iter().zip(columns)) {
            let want_type: Type = column["type"].as_str().unwrap().parse().unwrap();
            if !same(got, got_type, want, &want_type) {
                return Err(format!("{} is {got} ({got_type}), expected {want} ({want_type})", column["name"]));
            }
        }
    }
    Ok(())
}

fn check(reply: &Json, expect: &Json) -> Result<(), String> {
    let class = reply["error"]["class"].as_str();
    if class.is_some() && reply["error"]["message"].as_str().is_none_or(str::is_empty) {
        return Err("an error says nothing".to_owned());
    }
    match (expect["status"].as_str().unwrap(), class) {
        ("any", _) | ("rows_or_error", Some(_)) => Ok(()),
        ("error", class) if class == expect["class"].as_str() => Ok(()),
        ("ok", Some(_)) if expect["alt_error"] == true => Ok(()),
        ("error", _) | (_, Some(_)) => Err(format!("{reply}, expected {expect}")),
        (_, None) => {
            let mut accepted = vec![expect.clone()];
            accepted.extend(expect["alternatives"].as_array().into_iter().flatten().map(|alternative| {
                let mut whole = expect.clone();
                whole.as_object_mut().unwrap().extend(alternative.as_object().unwrap().clone());
                whole
            }));
            let results: Vec<_> = accepted.iter().map(|expect| check_rows(reply, expect)).collect();
            results.iter().find(|result| result.is_ok()).unwrap_or(&results[0]).clone()
        }
    }
}

fn check_all(queries: &[Json], replies: &[Json]) {
    assert_eq!((queries.len(), replies.len()), (LOOKUPS, LOOKUPS));
    let outcomes = queries.iter().zip(replies).map(|(query, reply)| (query, check(reply, &query["expect"])));
    let failures: Vec<String> =
        outcomes.filter_map(|(query, outcome)| Some(format!("{}: {}", query["qid"], outcome.err()?))).collect();
    assert!(failures.is_empty(), "{} of {LOOKUPS} lookups:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test]
async fn one_process_answers_every_lookup_of_the_corpus_and_the_bad_lines_between() {
    let cluster = corpus_cluster();
    let queries = queries();
    let mut lines: Vec<String> = queries.iter().map(|query| line(query).to_string()).collect();
    let bad = [(100, "select * from lake".to_owned()), (400, String::new()), (700, "x".repeat(9 << 20))];
    for (at, line) in &bad {
        lines.insert(*at, line.clone());
    }
    let mut replies = parsed(&answers(&cluster.endpoint(), &lines, false).await);
    assert_eq!(replies.len(), LOOKUPS + bad.len());
    for (at, _) in bad.iter().rev() {
        assert_eq!(replies.remove(*at)["error"]["class"], "bad_request", "line {at}");
    }
    check_all(&queries, &replies);
}

#[tokio::test]
async fn a_line_without_a_type_means_the_columns() {
    let cluster = corpus_cluster();
    let queries = queries();
    let untyped = queries.iter().enumerate().map(|(at, query)| {
        let mut line = line(query);
        if at % 2 == 0 {
            line["key"]["type"] = Json::Null;
        } else {
            line["key"].as_object_mut().unwrap().remove("type");
        }
        line.to_string()
    });
    let replies = parsed(&answers(&cluster.endpoint(), &untyped.collect::<Vec<_>>(), true).await);
    check_all(&queries, &replies);
}

fn ask(path: &str, key: Json) -> String {
    json!({ "path": path, "key": key, "op": "eq", "select": ["k"] }).to_string()
}

#[tokio::test]
async fn what_a_line_says_of_the_type_is_advice() {
    let cluster = corpus_cluster();
    let key = |ty: &str, value: &str| json!({ "column": "k", "type": ty, "value": value });
    let uuid = "local/pa_key_uuid.parquet";
    // The bytes of the UUID below, and each moment below is the first of its file.
    let bytes = "AAgGNFwUDj9UBH2/vCupHA==";
    let same_row = [
        ask(FILE, key("timestamp[us,UTC]", "1700000000000000")),
        ask(FILE, key("timestamp[us, Europe/Lisbon]", "1700000000000000")),
        ask(FILE, key("timestamp[us]", "1700000000000000")),
        ask(FILE, key("timestamp[s]", "1700000000")),
        ask(FILE, key("timestamp[ns,UTC]", "1700000000000000000")),
        ask(FILE, key("int64", "1700000000000000")),
        ask(FILE, key("string", "2023-11-14T22:13:20Z")),
        ask(FILE, json!({ "column": "k", "value": 1_700_000_000_000_000_i64 })),
        ask(uuid, key("uuid", "00080634-5c14-0e3f-5404-7dbfbc2ba91c")),
        ask(uuid, key("fixed[16]", bytes)),
        ask(uuid, key("string", "000806345C140E3F54047DBFBC2BA91C")),
        ask("local/pa_key_uint64.parquet", key("int8", "0")),
        ask("local/pa_key_uint64.parquet", key("decimal(3, 1)", "0")),
        ask("local/pa_key_uint64.parquet", key("binary", "0")),
        ask("local/pa_binary_ff.parquet", key("string", "")),
        ask("local/pa_binary_ff.parquet", key("fixed[0]", "")),
    ];
    let replies = parsed(&answers(&cluster.endpoint(), &same_row, false).await);
    for (line, reply) in same_row.iter().zip(&replies) {
        assert_eq!(reply["row_numbers"], json!([0]), "{line}: {reply}");
    }
    // A moment between two of the column's unit is in no row.
    let never = [ask(FILE, key("timestamp[ns]", "1700000000000000001")), ask(uuid, key("fixed[3]", "AP8A"))];
    for reply in parsed(&answers(&cluster.endpoint(), &never, false).await) {
        assert_eq!(reply["rows"], json!([]), "{reply}");
    }
    let bad_keys = [
        ask("local/pa_key_uint64.parquet", key("string", "ten")),
        ask("local/pa_key_uint64.parquet", json!({ "column": "k", "value": true })),
        ask("local/pa_binary_ff.parquet", json!({ "column": "k", "value": "not Base64" })),
    ];
    for reply in parsed(&answers(&cluster.endpoint(), &bad_keys, false).await) {
        assert_eq!(reply["error"]["class"], "bad_key", "{reply}");
    }
}

#[tokio::test]
async fn rows_of_several_files_are_one_answer() {
    let home = tempfile::tempdir().unwrap();
    for (name, from) in [("a", "pa_key_uint64"), ("b", "pa_key_uint32"), ("c", "pa_key_uint64")] {
        let from = corpus().join(format!("files/{from}.parquet"));
        std::fs::copy(from, home.path().join(format!("{name}.parquet"))).unwrap();
    }
    let local = Some(home.path().to_owned());
    let cluster = TestCluster::start(ClusterOptions { local, ..ClusterOptions::default() }).unwrap();
    let lines = [ask("local/", json!({ "column": "k", "type": "uint8", "value": "0" }))];
    let reply = parsed(&answers(&cluster.endpoint(), &lines, false).await).remove(0);
    assert_eq!((&reply["rows"], &reply["row_numbers"]), (&json!([["0"], ["0"]]), &json!([0, 0])), "{reply}");
    assert_eq!((&reply["types"], &reply["version"]), (&json!(["uint64"]), &reply["files"][0]["version"]));
    let files = reply["files"].as_array().unwrap();
    let named: Vec<&str> = files.iter().map(|file| file["url"].as_str().unwrap().rsplit('/').next().unwrap()).collect();
    assert_eq!(named, ["a.parquet", "c.parquet"]);
    assert!(files.iter().all(|file| file["rows"] == 1 && file["types"] == json!(["uint64"])), "{reply}");
}

/// A process that is spoken with line by line.
struct Dialogue {
    child: Child,
    lines: Option<ChildStdin>,
    replies: Lines<BufReader<ChildStdout>>,
}

impl Dialogue {
    fn start(home: &Path, endpoint: &str) -> Self {
        let mut process = command(home).unwrap();
        process.args(["get", "--requests", "-", "-e", endpoint, "--timeout", "25s"]);
        process.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = tokio::process::Command::from(process).kill_on_drop(true).spawn().unwrap();
        let replies = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { lines: child.stdin.take(), child, replies }
    }

    async fn say(&mut self, line: &str) -> Json {
        self.lines.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let reply = timeout(LOST, self.replies.next_line()).await.expect("an answer before the next line");
        serde_json::from_str(&reply.unwrap().unwrap()).unwrap()
    }

    /// No more lines; the exit code.
    async fn end(mut self) -> Option<i32> {
        drop(self.lines.take());
        assert_eq!(timeout(LOST, self.replies.next_line()).await.unwrap().unwrap(), None);
        timeout(LOST, self.child.wait()).await.unwrap().unwrap().code()
    }
}

#[tokio::test]
async fn each_line_is_answered_before_the_next_is_sent() {
    let (cluster, home) = (corpus_cluster(), tempfile::tempdir().unwrap());
    let mut dialogue = Dialogue::start(home.path(), &cluster.endpoint());
    for query in queries().iter().step_by(40) {
        let reply = dialogue.say(&line(query).to_string()).await;
        check(&reply, &query["expect"]).unwrap();
    }
    for (said, class) in [
        ("{", "bad_request"),
        (r#"{"path":"local/","key":{"column":"k","value":"0"},"op":"eq","select":null,"limit":1}"#, "bad_request"),
        (r#"{"path":"local/none.parquet","key":{"column":"k","value":"0"},"op":"eq","select":null}"#, "no_such_file"),
        (r#"{"path":"sea/none.parquet","key":{"column":"k","value":"0"},"op":"eq","select":null}"#, "no_such_mount"),
        (r#"{"path":"local/../x","key":{"column":"k","value":"0"},"op":"eq","select":null}"#, "bad_path"),
    ] {
        assert_eq!(dialogue.say(said).await["error"]["class"], class, "{said}");
    }
    let null = json!({ "path": "local/pa_none_v1.parquet", "key": { "column": "name" }, "op": "is_null" });
    assert_eq!(dialogue.say(&null.to_string()).await["row_numbers"][0], 7);
    assert_eq!(dialogue.end().await, Some(0));
}

#[tokio::test]
async fn without_a_worker_every_line_says_so() {
    let endpoint = format!("127.0.0.1:{}", free_ports(1).unwrap()[0]);
    let lines =
        [ask(FILE, json!({ "column": "k", "value": "1" })), "{".to_owned(), ask(FILE, json!({ "column": "k" }))];
    let replies = parsed(&answers(&endpoint, &lines, true).await);
    let classes: Vec<&str> = replies.iter().map(|reply| reply["error"]["class"].as_str().unwrap()).collect();
    assert_eq!(classes, ["no_worker", "bad_request", "bad_request"]);
    assert_eq!(answers(&endpoint, &[], true).await.code, Some(0));
}

#[tokio::test]
async fn what_does_not_go_with_requests_is_a_usage_error() {
    let home = tempfile::tempdir().unwrap();
    for more in [
        &["lake/a.parquet"][..],
        &["lake/a.parquet", "7"],
        &["-k", "id"],
        &["-s", "id"],
        &["--null"],
        &["--limit", "3"],
        &["--first"],
        &["--keys-from", "-"],
        &["--missing", "skip"],
        &["--trace"],
        &["--repeat", "2"],
        &["--maxrows", "0"],
        &["--bytes", "hex"],
        &["-o", "json"],
        &["--no-headers"],
    ] {
        let mut process = command(home.path()).unwrap();
        process.args(["get", "--requests", "-"]).args(more);
        let said = run(process).await.unwrap();
        assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{more:?}: {}", said.stderr);
    }
    let mut process = command(home.path()).unwrap();
    process.args(["get", "--requests", "absent.jsonl"]);
    let said = run(process).await.unwrap();
    let wanted = "error: cannot open absent.jsonl: entity not found\n";
    assert_eq!((said.code, said.stderr.as_str()), (Some(1), wanted));
}
