//! Files that were made to do harm, through a worker in a process of its own: an answer or one clear error each, and
//! the worker lives, stays small, and serves the next one.

use std::fs;

use alcedo_client::{Answer, Error, Form, Reason};
use alcedo_testkit::cluster::{ClusterOptions, ProcessCluster};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StructArray};
use arrow_schema::{DataType, Field};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use serde_json::Value as Json;
use std::sync::Arc;
use std::time::Duration;

use crate::corpus::corpus_file;
use crate::sample::draw;

/// What a hostile file may cost the process at its highest.
const MOST_GROWTH_BYTES: u64 = 256 << 20;
/// A file that nothing is wrong with, and its first key.
const GOOD: &str = "pa_snappy_v1.parquet";
const KEY: i64 = -5_000;
/// Files with damage in their footers, page indexes and page headers.
const MUTATIONS: usize = 120;
/// Time for one lookup: no test fails because a machine is slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a good worker says to a query of the corpus: an error of this class, or anything but the end of the process.
type Wanted = Option<String>;

/// The hostile files of the corpus, with what each query expects.
fn of_corpus() -> Vec<(String, Vec<(i64, Wanted)>)> {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../alcedo-lookup/tests/corpus/queries.jsonl");
    let mut files: Vec<(String, Vec<(i64, Wanted)>)> = Vec::new();
    for line in fs::read_to_string(corpus).unwrap().lines() {
        let query: Json = serde_json::from_str(line).unwrap();
        let name = query["file"].as_str().unwrap();
        if !name.starts_with("bad_") {
            continue;
        }
        let key = query["key"]["value"].as_str().unwrap().parse().unwrap();
        let wanted = query["expect"]["class"].as_str().map(str::to_owned);
        match files.iter_mut().find(|(file, _)| file == name) {
            Some((_, queries)) => queries.push((key, wanted)),
            None => files.push((name.to_owned(), vec![(key, wanted)])),
        }
    }
    files
}

/// A good file with some bytes changed where metadata is: in its end, or in its first page headers.
fn mutated(seed: usize) -> Bytes {
    let mut file = corpus_file(GOOD).to_vec();
    let end = file.len() - 8;
    let footer_bytes = u32::from_le_bytes(file[end..end + 4].try_into().unwrap()) as usize;
    let footer = end - footer_bytes;
    let within = match seed % 4 {
        0 | 1 => footer..end,
        2 => footer - 4_096..footer,
        _ => 4..200,
    };
    let values = [0x00, 0xff, 0x7f, 0x80, 0x19, 0x1c, 0xf9];
    for at in draw(MUTATIONS * 4, within.len() as u64).into_iter().skip(seed * 4).take(1 + seed % 3) {
        let value = values[(seed + at as usize) % values.len()];
        file[within.start + at as usize] = value;
    }
    file.into()
}

fn class(error: &Error) -> &'static str {
    match error.reason {
        Some(Reason::NotParquet) => "not_parquet",
        Some(Reason::Corrupt | Reason::Checksum | Reason::ParquetLimit) => "corrupt",
        Some(Reason::Unsupported) => "unsupported",
        Some(Reason::Encrypted) => "encrypted",
        Some(Reason::NoSuchColumn) => "no_such_column",
        Some(Reason::AnswerTooLarge) => "answer_too_large",
        _ => "other",
    }
}

/// A number of `/proc/PID/status`, in bytes.
fn memory(cluster: &ProcessCluster, name: &str) -> u64 {
    let id = cluster.workers()[0].id().expect("the worker has ended");
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Runs some lookups and says by how much the worker grew at its highest meanwhile.
async fn growth(cluster: &ProcessCluster, work: impl Future<Output = ()>) -> u64 {
    let id = cluster.workers()[0].id().expect("the worker has ended");
    // From here on the highest resident size is counted anew (proc(5), `clear_refs`).
    fs::write(format!("/proc/{id}/clear_refs"), "5").unwrap();
    let before = memory(cluster, "VmRSS:");
    work.await;
    memory(cluster, "VmHWM:").saturating_sub(before)
}

async fn ask(cluster: &ProcessCluster, name: &str, key: i64, form: Form) -> Result<Answer, Error> {
    let lookup = cluster.client().lookup(format!("lake/{name}")).key_column("k").key(key);
    lookup.form(form).deadline(PATIENCE).await
}

async fn assert_good(cluster: &ProcessCluster, after: &str) {
    let answer = ask(cluster, GOOD, KEY, Form::CompactRows).await;
    let rows = answer.unwrap_or_else(|error| panic!("after {after}: {error}")).rows().count();
    assert_eq!(rows, 1, "after {after}");
}

async fn cluster(mut objects: Vec<(String, Bytes)>) -> ProcessCluster {
    objects.push((GOOD.to_owned(), corpus_file(GOOD)));
    let cluster = ProcessCluster::start(ClusterOptions { objects, ..ClusterOptions::default() }).await.unwrap();
    // What a worker takes once, it takes before anything is measured.
    assert_good(&cluster, "nothing").await;
    cluster
}

#[tokio::test]
async fn every_hostile_file_of_the_corpus_costs_its_own_lookup_and_no_more() {
    let files = of_corpus();
    assert!(files.len() >= 13, "{}", files.len());
    let cluster = cluster(files.iter().map(|(name, _)| (name.clone(), corpus_file(name))).collect()).await;
    let process = cluster.workers()[0].id();
    for (name, queries) in &files {
        let work = async {
            for (key, wanted) in queries {
                for form in [Form::CompactRows, Form::ArrowIpc, Form::Pages] {
                    let said = ask(&cluster, name, *key, form).await;
                    let class = said.as_ref().err().map(class);
                    assert!(class != Some("other"), "{name} {key} {form:?}: {said:?}");
                    if let Some(wanted) = wanted {
                        assert_eq!(class, Some(wanted.as_str()), "{name} {key} {form:?}: {said:?}");
                    }
                }
            }
        };
        let grown = growth(&cluster, work).await;
        assert!(grown < MOST_GROWTH_BYTES, "{name}: {} MiB", grown >> 20);
        assert_good(&cluster, name).await;
    }
    assert_eq!(cluster.workers()[0].id(), process);
}

#[tokio::test]
async fn files_with_damaged_metadata_cost_their_own_lookup_and_no_more() {
    let name = |seed: usize| format!("mutated-{seed:03}.parquet");
    let cluster = cluster((0..MUTATIONS).map(|seed| (name(seed), mutated(seed))).collect()).await;
    let process = cluster.workers()[0].id();
    let mut refused = 0;
    for seed in 0..MUTATIONS {
        let work = async {
            let said = ask(&cluster, &name(seed), KEY, Form::CompactRows).await;
            refused += usize::from(said.is_err());
            // A column may have lost its name, and a key its meaning; a defect or a lost connection is neither.
            let reason = said.as_ref().err().map(|error| error.reason);
            let is_clear = !matches!(reason, Some(None | Some(Reason::Bug | Reason::Deadline | Reason::NoWorker)));
            assert!(is_clear, "{seed}: {said:?}");
        };
        let grown = growth(&cluster, work).await;
        assert!(grown < MOST_GROWTH_BYTES, "{seed}: {} MiB", grown >> 20);
    }
    assert_good(&cluster, "all of them").await;
    assert_eq!(cluster.workers()[0].id(), process);
    assert!(refused > MUTATIONS / 4, "{refused} of {MUTATIONS} were refused");
}

/// 200 rows with a key and a value that is `depth` structs deep.
fn nested(depth: usize) -> Bytes {
    let numbers = || Arc::new(Int64Array::from_iter_values(0..200)) as ArrayRef;
    let (mut value, mut ty) = (numbers(), DataType::Int64);
    for _ in 0..depth {
        let field = Arc::new(Field::new("f", ty, true));
        value = Arc::new(StructArray::from(vec![(field, value)]));
        ty = value.data_type().clone();
    }
    let batch = RecordBatch::try_from_iter([("k", numbers()), ("deep", value)]).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap().into()
}

#[tokio::test]
async fn a_schema_at_its_deepest_is_answered_and_a_deeper_one_is_refused() {
    let cluster = cluster(vec![("deep".to_owned(), nested(97)), ("deeper".to_owned(), nested(150))]).await;
    for form in [Form::CompactRows, Form::ArrowIpc, Form::Pages] {
        let answer = ask(&cluster, "deep", 42, form).await.unwrap();
        assert_eq!(answer.rows().map(|(_, row)| row.row_number).collect::<Vec<_>>(), [42], "{form:?}");
        let refused = ask(&cluster, "deeper", 42, form).await.unwrap_err();
        assert_eq!(class(&refused), "corrupt", "{refused}");
    }
    assert_good(&cluster, "deep schemas").await;
}
