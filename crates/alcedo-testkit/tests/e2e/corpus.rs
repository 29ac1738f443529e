//! The corpus of golden lookups, written by seven writers and answered by three readers, through a worker.
//!
//! Knows where the corpus lies and its form. Its files are under `alcedo-lookup`, whose own test asks them without a
//! worker; here each lookup goes over the stream, and a sample of them in every other form.

use std::path::PathBuf;

use alcedo_client::{Answer, Client, Error, Form, Key, KeyStatus, Lookup, Reason, Type};
use alcedo_testkit::cluster::TestCluster;
use bytes::Bytes;
use serde_json::Value as Json;

use crate::neutral::{neutral, same};
use crate::sample::cluster_of;

/// Lookups of the corpus.
const LOOKUPS: usize = 791;
/// Of these, so many ask for a key that equals nothing: no key at all, which a worker refuses.
const WITHOUT_KEY: usize = 13;

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../alcedo-lookup/tests/corpus")
}

/// A file of the corpus.
pub(crate) fn corpus_file(name: &str) -> Bytes {
    std::fs::read(corpus().join("files").join(name)).unwrap().into()
}

/// All files of the corpus.
pub(crate) fn corpus_objects() -> Vec<(String, Bytes)> {
    let names = std::fs::read_dir(corpus().join("files")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.map(|name| (name.clone(), corpus_file(&name))).collect()
}

fn corpus_cluster() -> TestCluster {
    cluster_of(corpus_objects())
}

/// The lookups, with what each must come to.
pub(crate) fn queries() -> Vec<Json> {
    let text = std::fs::read_to_string(corpus().join("queries.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn lookup(cluster: &TestCluster, query: &Json) -> Lookup {
    lookup_of(cluster.client(), query)
}

/// A lookup of the corpus, asked by this client.
pub(crate) fn lookup_of(client: &Client, query: &Json) -> Lookup {
    let key = &query["key"];
    let value = match (&key["value"], query["op"].as_str().unwrap()) {
        (_, "is_null") => Some(Key::Null),
        (Json::Null, _) => None,
        (Json::String(text), _) => Some(match key["type"].as_str().unwrap() {
            ty if ty == "binary" || ty.starts_with("fixed") => Key::Text(format!("base64:{text}")),
            _ => Key::Text(text.clone()),
        }),
        (Json::Bool(value), _) => Some(Key::Bool(*value)),
        (other, _) => panic!("{other}"),
    };
    let columns = query["project"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap());
    let path = format!("lake/{}", query["file"].as_str().unwrap());
    let lookup = client.lookup(path).key_column(key["column"].as_str().unwrap());
    lookup.keys(value).select(columns)
}

fn class(error: &Error) -> &'static str {
    match error.reason {
        Some(Reason::NotParquet) => "not_parquet",
        Some(Reason::Corrupt | Reason::Checksum | Reason::ParquetLimit) => "corrupt",
        Some(Reason::Unsupported) => "unsupported",
        Some(Reason::Encrypted) => "encrypted",
        Some(Reason::NoSuchColumn) => "no_such_column",
        _ => "other",
    }
}

fn check_rows(answer: &Answer, expect: &Json) -> Result<(), String> {
    let numbers: Vec<u64> = expect["row_numbers"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    let got: Vec<u64> = answer.rows().map(|(_, row)| row.row_number).collect();
    if got != numbers {
        return Err(format!("row numbers {got:?}, expected {numbers:?}"));
    }
    let status = if numbers.is_empty() { KeyStatus::NotFound } else { KeyStatus::Found };
    if answer.statuses != [status] {
        return Err(format!("statuses {:?}", answer.statuses));
    }
    let wanted = expect["columns"].as_array().unwrap();
    let rows = expect["rows"].as_array().unwrap();
    for ((file, row), want) in answer.rows().zip(rows) {
        let names: Vec<&str> = file.schema.columns.iter().map(|column| column.name.as_str()).collect();
        let wanted_names: Vec<&str> = wanted.iter().map(|column| column["name"].as_str().unwrap()).collect();
        if names != wanted_names {
            return Err(format!("columns {names:?}, expected {wanted_names:?}"));
        }
        let columns = row.values.iter().zip(&file.schema.columns);
        for ((value, column), (want, want_column)) in columns.zip(want.as_array().unwrap().iter().zip(wanted)) {
            let want_type: Type = want_column["type"].as_str().unwrap().parse().unwrap();
            let got = neutral(value, &column.ty);
            if !same(&got, &column.ty, want, &want_type) {
                return Err(format!("`{}` is {got} ({}), expected {want} ({want_type})", column.name, column.ty));
            }
        }
    }
    Ok(())
}

/// Whether that is what came.
pub(crate) fn check(result: &Result<Answer, Error>, expect: &Json) -> Result<(), String> {
    match (expect["status"].as_str().unwrap(), result) {
        ("any", _) | ("rows_or_error", Err(_)) => Ok(()),
        ("error", Err(error)) if class(error) == expect["class"] => Ok(()),
        ("error", Err(error)) => Err(format!("{error}: expected class {}", expect["class"])),
        ("error", Ok(answer)) => Err(format!("{} rows, expected an error", answer.rows().count())),
        ("ok", Err(_)) if expect["alt_error"] == true => Ok(()),
        (_, Err(error)) => Err(error.to_string()),
        (_, Ok(answer)) => {
            let mut accepted = vec![expect.clone()];
            accepted.extend(expect["alternatives"].as_array().into_iter().flatten().map(|alternative| {
                let mut whole = expect.clone();
                whole.as_object_mut().unwrap().extend(alternative.as_object().unwrap().clone());
                whole
            }));
            let results: Vec<_> = accepted.iter().map(|expect| check_rows(answer, expect)).collect();
            results.iter().find(|r| r.is_ok()).unwrap_or(&results[0]).clone()
        }
    }
}

#[tokio::test]
async fn every_lookup_of_the_corpus_has_the_right_rows_or_the_right_error() {
    let cluster = corpus_cluster();
    let (mut checked, mut without_key, mut failures) = (0, 0, Vec::new());
    for query in queries() {
        let result = lookup(&cluster, &query).await;
        checked += 1;
        let is_without_key = query["op"] == "eq" && query["key"]["value"].is_null();
        let outcome = if is_without_key {
            without_key += 1;
            assert_eq!(query["expect"]["row_numbers"].as_array().map(Vec::len), Some(0), "{}", query["qid"]);
            let refused = result.is_err_and(|error| error.reason == Some(Reason::BadRequest));
            refused.then_some(()).ok_or_else(|| "a lookup without a key was answered".to_owned())
        } else {
            check(&result, &query["expect"])
        };
        failures.extend(outcome.err().map(|problem| format!("{}: {problem}", query["qid"])));
    }
    assert!(failures.is_empty(), "{} of {checked} lookups:\n{}", failures.len(), failures.join("\n"));
    assert_eq!((checked, without_key), (LOOKUPS, WITHOUT_KEY));
}

#[tokio::test]
async fn the_other_forms_agree_on_the_corpus() {
    let cluster = corpus_cluster();
    let mut failures = Vec::new();
    // Every third: all files and kinds of columns are among them.
    for query in queries().iter().step_by(3).filter(|query| !query["key"]["value"].is_null()) {
        let ask = || lookup(&cluster, query);
        for (form, lookup) in [("typed values", ask().unary(true)), ("pages", ask().form(Form::Pages))] {
            let outcome = check(&lookup.await, &query["expect"]);
            failures.extend(outcome.err().map(|problem| format!("{} as {form}: {problem}", query["qid"])));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
