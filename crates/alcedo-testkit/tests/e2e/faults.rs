//! A store that misbehaves: what is tried again, what is said in the end, and that no fault ever makes a wrong row.

use std::time::Duration;

use alcedo_client::{Answer, Error, Kind, Reason};
use alcedo_testkit::cluster::{ClusterOptions, TestCluster};
use alcedo_testkit::lake::TruthRow;
use alcedo_testkit::s3::{Fault, Framing, Operation, Rule};

use crate::sample::{large, large_file, only_row, refused, small, small_cluster, small_objects, values};

const PATH: &str = "lake/big.parquet";
const URL: &str = "s3://lake/big.parquet";

/// For how long the origin may say nothing where that is not the fault: longer than a slow machine takes.
const PATIENT: &str = "20s";
/// The same where it is: how often the origin is asked does not matter there, or else it has time to answer again.
const HURRIED: &str = "300ms";
const FAIRLY_HURRIED: &str = "1s";

fn cluster() -> TestCluster {
    cluster_with(PATIENT)
}

fn cluster_with(attempt_timeout: &str) -> TestCluster {
    let objects = vec![("big.parquet".to_owned(), large_file(0))];
    // No pause: the tests do not wait for it.
    let limits = format!("retry_pause = \"1ms\", connect_timeout = \"20s\", attempt_timeout = \"{attempt_timeout}\"");
    let mount = format!("limits = {{ {limits} }}\n");
    TestCluster::start(ClusterOptions { objects, mount, ..ClusterOptions::default() }).unwrap()
}

/// A cluster for one of [`passing`], hurried if the fault is a silence.
fn cluster_for(fault: &Fault, hurried: &str) -> TestCluster {
    let is_silence = matches!(fault, Fault::StallHeaders | Fault::StallBody { .. });
    cluster_with(if is_silence { hurried } else { PATIENT })
}

fn truth() -> TruthRow {
    let lake = large(7);
    lake.row(lake.rows_of_file(0)[70_000]).unwrap()
}

async fn ask(cluster: &TestCluster) -> Result<Answer, Error> {
    cluster.client().lookup(PATH).key_column("id").key(truth().id).await
}

async fn assert_right(cluster: &TestCluster) {
    assert_eq!(only_row(&ask(cluster).await.unwrap()).1, values(&truth()));
}

/// Faults that another attempt cures, with what is said when none does.
fn passing() -> Vec<(Fault, &'static str)> {
    let mut faults = vec![
        (Fault::Status { code: 503, retry_after: None }, "the origin answered 503 Service Unavailable (SlowDown)"),
        (Fault::Status { code: 503, retry_after: Some(1) }, "the origin answered 503 Service Unavailable (SlowDown)"),
        (
            Fault::Status { code: 500, retry_after: None },
            "the origin answered 500 Internal Server Error (InternalError)",
        ),
        (Fault::Status { code: 429, retry_after: None }, "the origin answered 429 Too Many Requests (TooManyRequests)"),
        (Fault::StallHeaders, "the origin was silent for 300ms (limits.attempt_timeout)"),
        (Fault::StallBody { after_bytes: 100 }, "the origin was silent for 300ms (limits.attempt_timeout)"),
        (Fault::CutBody { after_bytes: 100 }, "the connection broke: "),
        (Fault::WrongContentRange, "Generic S3 error: Requested "),
        (Fault::FullInsteadOfRange, "Generic S3 error: "),
    ];
    let no_length = "Generic S3 error: Content-Length Header missing from response";
    for (framing, short, long) in [
        (Framing::Declared, "the answer's body has ", "the answer's body is longer than the "),
        (Framing::Chunked, no_length, no_length),
        (Framing::UntilClose, no_length, no_length),
    ] {
        faults.push((Fault::ShortBody { drop_bytes: 3, framing }, short));
        faults.push((Fault::LongBody { extra_bytes: 3, framing }, long));
    }
    faults
}

#[tokio::test]
async fn a_fault_that_passes_is_asked_again_and_never_seen() {
    for (fault, _) in passing() {
        // The first read, and one of those that follow it.
        for after in [0, 1] {
            let cluster = cluster_for(&fault, FAIRLY_HURRIED);
            cluster.store().faults().add(Rule::once(fault.clone()).after(after));
            let answer = ask(&cluster).await.unwrap_or_else(|error| panic!("{fault:?} after {after}: {error}"));
            assert_eq!(only_row(&answer).1, values(&truth()), "{fault:?} after {after}");
            assert_eq!(cluster.store().faults().pending(), 0, "{fault:?} after {after} did not happen");
        }
    }
}

#[tokio::test]
async fn a_fault_that_stays_is_told_and_gives_no_row() {
    for (fault, cause) in passing() {
        for after in [0, 1] {
            let cluster = cluster_for(&fault, HURRIED);
            cluster.store().faults().add(Rule::always(fault.clone()).after(after));
            let error = refused(ask(&cluster).await);
            let about = format!("{fault:?} after {after}: {error}");
            assert_eq!((error.kind(), error.reason), (Kind::Unavailable, Some(Reason::OriginUnavailable)), "{about}");
            assert!(error.message.starts_with(&format!("{URL}: the origin is unavailable: {cause}")), "{about}");
            assert!(error.is_retryable());
            // When the store is well again, so is the lookup: nothing of the fault was kept.
            cluster.store().faults().clear();
            assert_soon_right(&cluster).await;
        }
    }
}

/// The first lookup after a fault may still join a fetch that began before and is about to fail.
async fn assert_soon_right(cluster: &TestCluster) {
    for _ in 0..1_000 {
        match ask(cluster).await {
            Ok(answer) => return assert_eq!(only_row(&answer).1, values(&truth())),
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the store is well and the lookup is not");
}

#[tokio::test]
async fn a_store_in_trouble_is_asked_twice_and_no_more() {
    let cluster = cluster();
    cluster.store().faults().add(Rule::always(Fault::Status { code: 503, retry_after: None }));
    refused(ask(&cluster).await);
    let seen = cluster.store().counters();
    assert_eq!((seen.get, seen.head, seen.list), (2, 0, 0));
}

#[tokio::test]
async fn messages_and_exit_codes_of_refusals() {
    let status = |code| Fault::Status { code, retry_after: None };
    let denied = "check the mount's credentials and the bucket policy";
    let cases = [
        (status(403), Kind::Denied, 1, format!("{URL}: the origin answered 403 Forbidden (AccessDenied): {denied}"), 1),
        (
            status(401),
            Kind::Denied,
            1,
            format!("{URL}: the origin answered 401 Unauthorized (InvalidToken): {denied}"),
            1,
        ),
        (status(404), Kind::NotFound, 3, format!("{URL}: no such file at the origin"), 1),
        (
            status(503),
            Kind::Unavailable,
            1,
            format!("{URL}: the origin is unavailable: the origin answered 503 Service Unavailable (SlowDown)"),
            2,
        ),
        (
            Fault::Redirect { to: "http://192.0.2.1/elsewhere".to_owned() },
            Kind::Unavailable,
            1,
            format!(
                "mount lake: the origin answered 307 Temporary Redirect to {URL}: redirects are not followed; check \
                 the mount's endpoint and region"
            ),
            1,
        ),
    ];
    for (fault, kind, code, message, gets) in cases {
        let cluster = cluster();
        cluster.store().faults().add(Rule::always(fault).on(Operation::Get));
        let error = refused(ask(&cluster).await);
        assert_eq!((error.kind(), error.message.as_str()), (kind, message.as_str()));
        assert_eq!(cluster.store().counters().get, gets, "{message}");
        let said = cluster.run(&["get", PATH, "1", "-k", "id"]).await.unwrap();
        let first = said.stderr.lines().next().unwrap_or_default();
        assert_eq!((said.code, first), (Some(code), format!("error: {message}").as_str()));
        cluster.store().faults().clear();
    }
}

#[tokio::test]
async fn a_refusal_in_the_middle_is_as_clear_as_one_at_the_start() {
    let denied = "check the mount's credentials and the bucket policy";
    let cases = [
        (403, Kind::Denied, format!("{URL}: the origin answered 403 Forbidden (AccessDenied): {denied}")),
        (404, Kind::NotFound, format!("{URL}: no such file at the origin")),
    ];
    for (code, kind, message) in cases {
        let cluster = cluster();
        cluster.store().faults().add(Rule::always(Fault::Status { code, retry_after: None }).after(1));
        let error = refused(ask(&cluster).await);
        assert_eq!((error.kind(), error.message), (kind, message));
        cluster.store().faults().clear();
        assert_right(&cluster).await;
    }
}

#[tokio::test]
async fn a_silent_store_ends_with_the_deadline() {
    let cluster = small_cluster();
    cluster.store().faults().add(Rule::always(Fault::StallHeaders));
    let path = "lake/lake/part-00001.parquet";
    let lookup = cluster.client().lookup(path).key_column("id").key(1).deadline(Duration::from_millis(900));
    let error = refused(lookup.await);
    assert_eq!((error.kind(), error.reason), (Kind::Deadline, Some(Reason::Deadline)));
    assert_deadline(&error.message, path);
    let said = cluster.run(&["get", path, "1", "-k", "id", "--timeout", "900ms"]).await.unwrap();
    assert_eq!(said.code, Some(6));
    assert_deadline(said.stderr.trim_end().strip_prefix("error: ").unwrap(), path);
}

/// The worker says it with the time that was left when it was asked, a little less than what was given. On a machine
/// that is too busy for the worker to say it, the client does.
fn assert_deadline(message: &str, path: &str) {
    let by_worker = message.strip_prefix(&format!("{path}: ")).and_then(|rest| rest.strip_suffix(" passed"));
    let by_client = || message.split_once(" passed while waiting for 127.0.0.1:").map(|(before, _)| before);
    let time = by_worker.or_else(by_client).and_then(|said| said.strip_prefix("the deadline of ")?.strip_suffix("ms"));
    let time = time.unwrap_or_else(|| panic!("{message}"));
    assert!(time.parse::<f64>().is_ok_and(|time| (1.0..=900.0).contains(&time)), "{message}");
}

#[tokio::test]
async fn a_listed_file_that_is_gone_is_not_missed() {
    let (cluster, lake) = (small_cluster(), small());
    let ask = async |number: u64| {
        cluster.client().lookup("lake/lake/").key_column("id").key(lake.row(number).unwrap().id).await.unwrap()
    };
    // A first lookup knows the listing and every file's end; then a file is renamed, whose beginning nobody has read.
    assert_eq!(ask(lake.rows_of_file(9)[600]).await.files_total, 16);
    cluster.store().remove("lake", "lake/part-00001.parquet");
    cluster.store().put("lake", "lake/part-00001b.parquet", small_objects()[1].1.clone());
    let number = lake.rows_of_file(1)[100];
    let answer = ask(number).await;
    let (file, row) = only_row(&answer);
    assert_eq!(row, values(&lake.row(number).unwrap()));
    assert_eq!(&*file.url, "s3://lake/lake/part-00001b.parquet");
    assert_eq!(cluster.store().counters().list, 2);
}

#[tokio::test]
async fn a_listing_in_trouble_is_told_and_asked_again() {
    let (cluster, lake) = (small_cluster(), small());
    let id = lake.row(9).unwrap().id;
    let ask = async || cluster.client().lookup("lake/lake/").key_column("id").key(id).await;
    cluster.store().faults().add(Rule::always(Fault::Status { code: 503, retry_after: None }).on(Operation::List));
    let error = refused(ask().await);
    assert_eq!((error.kind(), error.reason), (Kind::Unavailable, Some(Reason::OriginUnavailable)));
    let wanted = "s3://lake/lake: the origin is unavailable: the origin answered 503 Service Unavailable (SlowDown)";
    assert_eq!(error.message, wanted);
    cluster.store().faults().clear();
    cluster.store().faults().add(Rule::once(Fault::Status { code: 503, retry_after: None }).on(Operation::List));
    assert_eq!(only_row(&ask().await.unwrap()).1, values(&lake.row(9).unwrap()));
}
