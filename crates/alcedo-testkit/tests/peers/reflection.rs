//! A gRPC client in Python that has nothing but the worker's address: it learns everything by server reflection, and
//! reads compact rows with a decoder that was written from the comments of the contract alone.
//!
//! Knows the names in `proto/alcedo/v1` and protobuf's JSON. It must not know any of our own codecs, except to compare
//! with them.

use alcedo_lookup::rows::decode_rows;
use alcedo_lookup::schema::{Column, RowSchema};
use alcedo_testkit::lake::TruthRow;
use bytes::Bytes;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::plain::{COLUMNS, found, of_truth, of_value};
use crate::python;
use crate::served::{LAKE, Served, serve};
use crate::tour::{PREFIX, absent_id, path, row_of};

/// Rows of every type of the contract, one a line: type, bytes in hex, value. The writer's own test keeps them.
const GOLDEN_ROWS: &str = include_str!("../../../alcedo-lookup/tests/golden/compact_rows_v1.tsv");

/// A worker over the lake as a directory.
fn serve_directory() -> (TempDir, Served) {
    let directory = tempfile::tempdir().unwrap();
    LAKE.write_to(&directory.path().join("users")).unwrap();
    let served = serve(&format!("url = \"file://{}\"", directory.path().display()));
    (directory, served)
}

async fn ask(served: &Served, command: &str, argument: Json) -> Json {
    python::run("reflected.py", &[&served.address(), command], &argument).await
}

async fn call(served: &Served, method: (&str, &str), request: Json) -> Json {
    ask(served, "call", json!({ "service": method.0, "method": method.1, "request": request })).await
}

const LOOKUP: (&str, &str) = ("alcedo.v1.LookupService", "Lookup");

/// A row as protobuf's JSON prints typed values: 64-bit integers are texts there.
fn typed(row: &TruthRow) -> Json {
    let text_or_null = |text: Option<&String>| text.map_or(json!({ "null": true }), |text| json!({ "string": text }));
    let list = |tags: &Vec<&str>| tags.iter().map(|tag| json!({ "string": tag })).collect::<Vec<_>>();
    let tags = match &row.tags {
        None => json!({ "null": true }),
        // A repeated field without elements is not printed.
        Some(tags) if tags.is_empty() => json!({ "list": {} }),
        Some(tags) => json!({ "list": { "values": list(tags) } }),
    };
    let plain = of_truth(row);
    json!({ "values": [
        { "int": row.id.to_string() },
        { "string": row.user },
        text_or_null(row.name.as_ref()),
        { "string": row.city },
        { "float": plain[4] },
        { "string": plain[5] },
        { "int": row.created_micros.to_string() },
        { "int": row.flags.to_string() },
        { "bool": row.active },
        tags,
    ] })
}

/// The first row after this one of which `wanted` holds.
fn row_after(number: u64, wanted: impl Fn(&TruthRow) -> bool) -> TruthRow {
    (number..).map(|number| LAKE.row(number).unwrap()).find(|row| wanted(row)).unwrap()
}

#[tokio::test]
async fn reflection_names_every_service_and_method() {
    let (_directory, served) = serve_directory();
    let services = ask(&served, "services", json!({})).await;
    for (service, methods) in [
        ("alcedo.v1.LookupService", json!(["Lookup", "LookupStream"])),
        ("alcedo.v1.FileService", json!(["Stat", "List", "Read"])),
        ("alcedo.v1.ClusterService", json!(["Cluster", "Status"])),
        ("grpc.health.v1.Health", json!(["Check", "Watch"])),
    ] {
        let named = &services[service];
        let missing = methods.as_array().unwrap().iter().find(|method| !named.as_array().unwrap().contains(method));
        assert_eq!(missing, None, "{service}: {services}");
    }
}

#[tokio::test]
async fn a_lookup_by_reflection_alone_prints_readable_values() {
    let (_directory, served) = serve_directory();
    let rows = [
        row_of(0),
        row_after(12_345, |row| row.name.is_none()),
        row_after(23_456, |row| row.tags.is_none()),
        row_after(31_111, |row| row.tags.as_ref().is_some_and(Vec::is_empty)),
    ];
    for row in &rows {
        let request = json!({ "path": PREFIX, "key_column": "id", "keys": [{ "int": row.id }] });
        let answered = call(&served, LOOKUP, request).await;
        let response = &answered["response"];
        let file = &response["answer"]["files"][0];
        assert_eq!(file["typed"], json!([typed(row)]), "{answered}");
        let (_, name, number, _) = found(&LAKE, 0, row);
        assert_eq!(file["row_number"], json!([number.to_string()]));
        let announced = &response["announce"]["files"][0];
        assert!(announced["url"].as_str().unwrap().ends_with(&name), "{announced}");
        let columns = &response["announce"]["schemas"][0]["schema"]["columns"];
        let names: Json = columns.as_array().unwrap().iter().map(|column| column["name"].clone()).collect();
        assert_eq!(names, json!(COLUMNS));
        assert_eq!(response["answer"]["statuses"], json!(["KEY_STATUS_FOUND"]));
    }
    let texts = json!([{ "text": rows[0].user }, { "text": "u-nobody" }]);
    let request = json!({ "path": PREFIX, "key_column": "user", "keys": texts, "columns": ["amount", "created"] });
    let answer = &call(&served, LOOKUP, request).await["response"]["answer"];
    assert_eq!(answer["statuses"], json!(["KEY_STATUS_FOUND", "KEY_STATUS_NOT_FOUND"]));
    let values = typed(&rows[0])["values"].clone();
    assert_eq!(answer["files"][0]["typed"], json!([{ "values": [values[5], values[6]] }]));
}

#[tokio::test]
async fn an_error_carries_a_detail_that_reflection_can_read() {
    let (_directory, served) = serve_directory();
    let request = json!({ "path": path(0), "key_column": "idd", "keys": [{ "int": 1 }] });
    let error = call(&served, LOOKUP, request).await;
    assert_eq!(error["code"], "INVALID_ARGUMENT", "{error}");
    assert!(error["message"].as_str().unwrap().ends_with("part-00000.parquet: no column `idd`: did you mean `id`?"));
    let [detail] = error["details"].as_array().unwrap().as_slice() else { panic!("one detail: {error}") };
    assert_eq!(detail["type"], "alcedo.v1.ErrorDetail");
    let detail = &detail["detail"];
    assert_eq!((&detail["reason"], &detail["hint"]), (&json!("REASON_NO_SUCH_COLUMN"), &json!("did you mean `id`?")));
    assert!(detail["subject"].as_str().unwrap().ends_with("/users/part-00000.parquet"));
}

#[tokio::test]
async fn health_is_told_in_the_standard_way() {
    let (_directory, served) = serve_directory();
    let health = ("grpc.health.v1.Health", "Check");
    for service in ["", "alcedo.v1.LookupService"] {
        let answer = call(&served, health, json!({ "service": service })).await;
        assert_eq!(answer, json!({ "response": { "status": "SERVING" } }), "{service:?}");
    }
    assert_eq!(call(&served, health, json!({ "service": "no.such.Service" })).await["code"], "NOT_FOUND");
}

#[tokio::test]
async fn a_stream_is_read_by_a_decoder_that_was_written_from_the_comments_alone() {
    let (_directory, served) = serve_directory();
    let rows = [
        LAKE.row(100).unwrap(),
        LAKE.row(9_999).unwrap(),
        row_after(17_000, |row| row.tags.is_none()),
        row_after(25_000, |row| row.name.is_none()),
        LAKE.row(39_998).unwrap(),
    ];
    let ids: Vec<Json> = rows.iter().map(|row| json!({ "int": row.id })).collect();
    let lookup = |id: u64, path: &str, column: &str, keys: Json| {
        let request = json!({ "path": path, "key_column": column, "keys": keys, "timeout_us": 20_000_000 });
        json!({ "id": id, "request": request })
    };
    let user = &rows[3].user;
    let result = ask(
        &served,
        "stream",
        json!([
            lookup(7, PREFIX, "id", json!(ids)),
            lookup(u64::MAX, PREFIX, "user", json!([{ "text": "u-nobody" }, { "text": user }])),
            lookup(3, &path(0), "id", json!([{ "int": absent_id() }])),
            lookup(4, "lake/nowhere.parquet", "id", json!([{ "int": 1 }])),
        ]),
    )
    .await;
    let answers = &result["answers"];
    let decoded = |row: &TruthRow, key: u32| {
        let (_, name, number, values) = found(&LAKE, key, row);
        (name, json!([number, key, COLUMNS, values]))
    };
    let told = |rows: &Json| -> Vec<(String, Json)> {
        let name = |row: &Json| row["file"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let told = |row: &Json| (name(row), json!([row["row"], row["key"], row["columns"], row["values"]]));
        rows.as_array().unwrap().iter().map(told).collect()
    };
    let wanted: Vec<(String, Json)> = (0..).zip(&rows).map(|(key, row)| decoded(row, key)).collect();
    assert_eq!(told(&answers["7"]), wanted);
    assert_eq!(told(&answers[u64::MAX.to_string()]), [decoded(&rows[3], 1)]);
    assert_eq!(answers["3"], json!([]));
    assert_eq!(answers["4"]["detail"]["reason"], "REASON_NO_SUCH_FILE", "{}", answers["4"]);
    assert_order(&result["replies"]);
}

/// Every request was answered once, and what an answer used had been announced.
fn assert_order(replies: &Json) {
    let of = |body: &str| -> Vec<u64> {
        let replies = replies.as_array().unwrap().iter().filter(|reply| reply[1] == body);
        replies.map(|reply| reply[0].as_u64().unwrap()).collect()
    };
    let mut answered = of("answer");
    answered.sort_unstable();
    assert_eq!((answered, of("failure")), (vec![3, 7, u64::MAX], vec![4]), "{replies}");
    assert!(of("announce").iter().all(|id| *id == 0) && !of("announce").is_empty(), "{replies}");
}

#[tokio::test]
async fn rows_of_every_type_are_read_by_the_comments_as_by_us() {
    let (mut jobs, mut ours) = (Vec::new(), Vec::new());
    for line in GOLDEN_ROWS.lines() {
        let [ty, hex, _] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("three fields: {line}") };
        let schema = RowSchema { columns: vec![Column { name: "x".to_owned(), ty: ty.parse().unwrap() }] };
        let decoded = decode_rows(&schema, &bytes_of(hex)).unwrap();
        ours.push(decoded.iter().map(|row| row.iter().map(of_value).collect::<Json>()).collect::<Json>());
        jobs.push(json!({ "types": [ty], "hex": hex }));
    }
    assert!(jobs.len() > 40, "the golden rows were not found");
    let theirs = python::run("compact_rows.py", &[], &json!(jobs)).await;
    for ((ours, theirs), job) in ours.iter().zip(theirs.as_array().unwrap()).zip(&jobs) {
        assert_eq!(ours, theirs, "{job}");
    }
}

#[tokio::test]
async fn nested_and_wide_values_of_another_writer_are_read_by_the_comments() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("every-type.parquet");
    let written = python::run("every_type.py", &[file.to_str().unwrap()], &Json::Null).await;
    let served = serve(&format!("url = \"file://{}\"", directory.path().display()));
    let keys = json!([{ "int": 1 }, { "int": 2 }, { "int": 3 }]);
    let request = json!({ "path": "lake/every-type.parquet", "key_column": "key", "keys": keys });
    let result = ask(&served, "stream", json!([{ "id": 1, "request": request }])).await;
    let rows = result["answers"]["1"].as_array().unwrap_or_else(|| panic!("{result}"));
    assert_eq!(rows.len(), 3);
    for (number, row) in rows.iter().enumerate() {
        let columns = row["columns"].as_array().unwrap().iter().zip(row["values"].as_array().unwrap());
        assert_eq!(columns.len(), written.as_object().unwrap().len());
        for (column, value) in columns {
            assert_eq!(value, &written[column.as_str().unwrap()][number], "row {number}, column {column}");
        }
    }
}

fn bytes_of(hex: &str) -> Bytes {
    let pairs = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
    pairs.collect()
}
