//! The rows: by prefix, by file, by URL, each compared with the truth.

use alcedo_client::{Key, KeyStatus};
use alcedo_testkit::lake::SampleLake;

use crate::sample::{absent_ids, assert_nothing, draw, only_row, refused, small, small_cluster, values};

/// First and last row of each file, the rows at its ends that may have changed places, and random ones.
fn interesting(lake: &SampleLake) -> Vec<u64> {
    let mut numbers = draw(60, lake.spec().rows);
    for file in 0..lake.spec().files {
        let rows = lake.rows_of_file(file);
        numbers.extend(rows.iter().take(4).chain(rows.iter().rev().take(4)));
    }
    numbers
}

#[tokio::test]
async fn every_spelling_of_a_prefix_and_of_a_file_finds_the_row() {
    let (cluster, lake) = (small_cluster(), small());
    for number in interesting(&lake) {
        let truth = lake.row(number).unwrap();
        let name = SampleLake::file_name(lake.file_of_row(number).unwrap());
        let (file, prefix) = (format!("lake/lake/{name}"), "lake/lake/".to_owned());
        let (file_url, prefix_url) = (format!("s3://{file}"), "s3://lake/lake/".to_owned());
        for path in [file, file_url.clone(), prefix, prefix_url, "lake/lake".to_owned(), "lake".to_owned()] {
            let answer = cluster.client().lookup(path.as_str()).key_column("id").key(truth.id).await.unwrap();
            let (found, row) = only_row(&answer);
            assert_eq!(row, values(&truth), "row {number} by {path}");
            assert_eq!(*found.url, *file_url, "row {number} by {path}");
            let is_file = path.ends_with(".parquet");
            assert_eq!(answer.files_total, if is_file { 1 } else { 16 }, "{path}");
            // Ranges overlap with neighbours only.
            assert!((1..=if is_file { 1 } else { 3 }).contains(&answer.files_asked), "{path}: {}", answer.files_asked);
        }
    }
    let lists = cluster.store().counters().list;
    // `lake/`, the same without the slash, and the mount's root.
    assert!(lists <= 3, "{lists} listings");
}

#[tokio::test]
async fn a_key_where_ranges_overlap_asks_both_files_and_finds_one_row() {
    let (cluster, lake) = (small_cluster(), small());
    let mut overlapping = 0;
    for file in 1..lake.spec().files {
        // The first row of a file lies within the range of the one before it.
        let number = lake.rows_of_file(file)[0];
        let truth = lake.row(number).unwrap();
        let answer = cluster.client().lookup("lake/lake/").key_column("id").key(truth.id).await.unwrap();
        assert_eq!(only_row(&answer).1, values(&truth));
        overlapping += usize::from(answer.files_asked == 2);
    }
    assert_eq!(overlapping, 15);
}

#[tokio::test]
async fn keys_that_no_row_has_are_not_found() {
    let (cluster, lake) = (small_cluster(), small());
    for id in absent_ids(&lake, 40) {
        assert_nothing(&cluster.client().lookup("lake/lake/").key_column("id").key(id).await.unwrap(), 1);
    }
    // Values that the column's type cannot have are keys that no row has, however they are written.
    let beyond = [
        Key::UInt(u64::MAX),
        Key::Float(0.5),
        Key::Float(1e300),
        Key::Text("9223372036854775808".to_owned()),
        Key::Text("-99999999999999999999999999".to_owned()),
    ];
    for key in beyond {
        let answer = cluster.client().lookup("lake/lake/").key_column("id").keys([key.clone()]).await;
        assert_nothing(&answer.unwrap_or_else(|error| panic!("{key:?}: {error}")), 1);
    }
    let nulls = cluster.client().lookup("lake/lake/").key_column("id").keys([Key::Null]).await.unwrap();
    assert_nothing(&nulls, 1);
}

#[tokio::test]
async fn an_unsorted_string_key_is_found_in_whichever_file_has_it() {
    let (cluster, lake) = (small_cluster(), small());
    for number in draw(30, lake.spec().rows) {
        let truth = lake.row(number).unwrap();
        let answer = cluster.client().lookup("lake/lake/").key_column("user").key(truth.user.as_str()).await.unwrap();
        let (file, row) = only_row(&answer);
        assert_eq!(row, values(&truth));
        assert!(file.url.ends_with(&SampleLake::file_name(lake.file_of_row(number).unwrap())));
        // The names are in no order, so the files' bounds say little.
        assert!(answer.files_asked > 8, "{}", answer.files_asked);
    }
    for user in ["", "u-", "u-zzz", "Ünïcödé"] {
        assert_nothing(&cluster.client().lookup("lake/lake/").key_column("user").key(user).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_key_that_many_rows_have_gives_all_of_them_or_as_many_as_are_wanted() {
    let (cluster, lake) = (small_cluster(), small());
    let wanted: Vec<i64> = (0..lake.spec().rows)
        .filter_map(|number| lake.row(number))
        .filter_map(|row| (row.city == "Porto").then_some(row.id))
        .collect();
    let ask = || cluster.client().lookup("lake/lake/").key_column("city").key("Porto").select(["id", "city"]);
    let all = ask().await.unwrap();
    let mut ids: Vec<i64> = all
        .rows()
        .map(|(_, row)| match row.values.as_slice() {
            [alcedo_client::Value::Int(id), alcedo_client::Value::String(city)] if city == "Porto" => *id,
            other => panic!("{other:?}"),
        })
        .collect();
    ids.sort_unstable();
    assert_eq!((ids, all.statuses.as_slice()), (wanted.clone(), [KeyStatus::Found].as_slice()));
    assert!(all.files.iter().all(|file| file.rows.is_sorted_by_key(|row| row.row_number)));
    assert!(all.files.is_sorted_by_key(|file| file.url.clone()), "files are in listing order");
    for limit in [1, 7, wanted.len() as u32 - 1] {
        let some = ask().row_limit(limit).await.unwrap();
        assert_eq!((some.rows().count() as u32, some.statuses[0]), (limit, KeyStatus::Truncated));
        // The first in file order.
        let first: Vec<_> = all.rows().take(limit as usize).map(|(file, row)| (&file.url, row)).collect();
        assert_eq!(some.rows().map(|(file, row)| (&file.url, row)).collect::<Vec<_>>(), first);
    }
    let enough = ask().row_limit(wanted.len() as u32).await.unwrap();
    assert_eq!((enough.rows().count(), enough.statuses[0]), (wanted.len(), KeyStatus::Found));
}

#[tokio::test]
async fn a_hundred_mixed_keys_are_answered_each_in_its_place() {
    let (cluster, lake) = (small_cluster(), small());
    let present = draw(70, lake.spec().rows).into_iter().map(|number| lake.row(number).unwrap().id);
    let mut keys: Vec<i64> = present.collect();
    keys.extend(absent_ids(&lake, 20));
    keys.extend_from_within(..10);
    // Neither sorted nor grouped.
    keys.sort_by_key(|key| key.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64));
    let answer = cluster.client().lookup("lake/lake/").key_column("id").keys(keys.clone()).await.unwrap();
    assert_eq!(answer.statuses.len(), 100);
    let mut seen = vec![0; keys.len()];
    for (_, row) in answer.rows() {
        let key = keys[row.key_index as usize];
        assert_eq!(row.values, values(&lake.row_of_int_key(key).unwrap()));
        seen[row.key_index as usize] += 1;
    }
    for ((key, status), seen) in keys.iter().zip(&answer.statuses).zip(seen) {
        let wanted = usize::from(lake.row_of_int_key(*key).is_some());
        assert_eq!((*status == KeyStatus::Found, seen), (wanted == 1, wanted), "key {key}: {status:?}");
    }
}

#[tokio::test]
async fn more_keys_than_fit_in_a_message_are_one_answer() {
    let (cluster, lake) = (small_cluster(), small());
    let keys: Vec<i64> = (0..2_500).map(|number| lake.row(number * 8).unwrap().id).collect();
    let lookup = cluster.client().lookup("lake/lake/").key_column("id").keys(keys.clone()).select(["user", "id"]);
    let answer = lookup.await.unwrap();
    assert_eq!(answer.statuses, vec![KeyStatus::Found; keys.len()]);
    assert_eq!(answer.rows().count(), keys.len());
    for (_, row) in answer.rows() {
        let truth = values(&lake.row_of_int_key(keys[row.key_index as usize]).unwrap());
        assert_eq!(row.values, [truth[1].clone(), truth[0].clone()]);
    }
}

#[tokio::test]
async fn a_question_without_keys_is_refused_before_anything_is_asked() {
    let cluster = small_cluster();
    let error = refused(cluster.client().lookup("lake/lake/").key_column("id").keys(Vec::<i64>::new()).await);
    assert_eq!(error.message, "empty key list: give at least one key");
    assert_eq!(cluster.store().counters(), alcedo_testkit::s3::Counters::default());
}
