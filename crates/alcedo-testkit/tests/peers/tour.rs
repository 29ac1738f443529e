//! The tour: questions whose answers must be the truth, whatever store the lake is in.
//!
//! Knows the lake and the client. It must not know the store.

use std::collections::BTreeSet;

use alcedo_client::{Client, KeyStatus};
use alcedo_testkit::lake::{SampleLake, TruthRow};

use crate::plain::{COLUMNS, Found, found, of_answer, of_truth};
use crate::served::LAKE;

/// The files of the lake, as the mounts of all tests have them.
pub(crate) const PREFIX: &str = "lake/users/";

/// The path of one file.
pub(crate) fn path(file: u32) -> String {
    format!("{PREFIX}{}", SampleLake::file_name(file))
}

/// A row of a file's middle.
pub(crate) fn row_of(file: u32) -> TruthRow {
    let rows = LAKE.rows_of_file(file);
    LAKE.row(rows[rows.len() / 2]).unwrap()
}

/// An id between those of the lake that no row has.
pub(crate) fn absent_id() -> i64 {
    (15_000..).find(|id| LAKE.row_of_int_key(*id).is_none()).unwrap()
}

/// Rows from all over the lake: its ends, all files' middles, and rows that changed places with a neighbour file.
pub(crate) fn rows_from_all_over() -> Vec<TruthRow> {
    let spec = LAKE.spec();
    let file_rows = spec.rows / u64::from(spec.files);
    let swapped = |file: u32| LAKE.rows_of_file(file).into_iter().filter(move |row| row / file_rows != u64::from(file));
    let mut numbers = BTreeSet::from([0, spec.rows - 1]);
    for file in 0..spec.files {
        numbers.insert(row_of(file).number);
        numbers.extend(swapped(file).take(3));
    }
    assert!(numbers.len() > 12, "there are rows that changed places: {numbers:?}");
    numbers.into_iter().map(|number| LAKE.row(number).unwrap()).collect()
}

/// Asks the prefix everything that is asked of every store. Its freshness must not be `always`: the repeated lookups
/// cost nothing.
pub(crate) async fn tour_of_prefix(client: &Client) {
    first_and_again(client).await;
    absent_keys(client).await;
    string_keys(client).await;
    many_keys(client).await;
}

async fn first_and_again(client: &Client) {
    let row = row_of(1);
    let truth = vec![found(&LAKE, 0, &row)];
    let first = client.lookup(PREFIX).key_column("id").key(row.id).await.unwrap();
    assert_eq!(of_answer(&first), truth);
    assert_eq!(first.files_total, LAKE.spec().files);
    assert!(first.origin_gets > 0, "the first lookup asks the origin");
    let again = client.lookup(PREFIX).key_column("id").key(row.id).await.unwrap();
    assert_eq!(of_answer(&again), truth);
    assert_eq!((again.origin_gets, again.origin_bytes), (0, 0), "a repeated lookup costs the origin nothing");
}

async fn absent_keys(client: &Client) {
    for id in [absent_id(), -1, i64::MAX] {
        let answer = client.lookup(PREFIX).key_column("id").key(id).await.unwrap();
        assert_eq!((of_answer(&answer), answer.statuses), (Vec::new(), vec![KeyStatus::NotFound]));
    }
}

async fn string_keys(client: &Client) {
    for file in 0..LAKE.spec().files {
        let row = row_of(file);
        let answer = client.lookup(PREFIX).key_column("user").key(row.user.as_str()).await.unwrap();
        assert_eq!(of_answer(&answer), [found(&LAKE, 0, &row)]);
    }
    let answer = client.lookup(PREFIX).key_column("user").key("u-nobody").await.unwrap();
    assert!(answer.is_empty());
}

async fn many_keys(client: &Client) {
    let rows = rows_from_all_over();
    let keys: Vec<i64> = rows.iter().map(|row| row.id).chain([absent_id()]).collect();
    let answer = client.lookup(PREFIX).key_column("id").keys(keys).await.unwrap();
    let truth: Vec<Found> = (0..).zip(&rows).map(|(key, row)| found(&LAKE, key, row)).collect();
    assert_eq!(of_answer(&answer), truth);
    let (last, others) = answer.statuses.split_last().unwrap();
    assert!(others.iter().all(|status| *status == KeyStatus::Found) && *last == KeyStatus::NotFound);
}

/// Asks each file by its name.
pub(crate) async fn tour_of_files(client: &Client) {
    for file in 0..LAKE.spec().files {
        let (path, row) = (path(file), row_of(file));
        let answer = client.lookup(&path).key_column("id").key(row.id).select(["tags", "id"]).await.unwrap();
        let (key, name, number, all) = found(&LAKE, 0, &row);
        let chosen = [COLUMNS.len() - 1, 0].iter().map(|column| all[*column].clone()).collect();
        assert_eq!(of_answer(&answer), [(key, name, number, chosen)]);
        let elsewhere = row_of((file + 1) % LAKE.spec().files);
        let answer = client.lookup(&path).key_column("id").key(elsewhere.id).await.unwrap();
        assert!(answer.is_empty(), "{path} does not hold {:?}", of_truth(&elsewhere));
    }
}
