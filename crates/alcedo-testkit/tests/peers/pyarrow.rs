//! pyarrow as the other reader: for every key the rows that a filter over its data set finds are ours.
//!
//! Knows pyarrow's program and a `file://` mount. It must not know how either reads.

use serde_json::{Value as Json, json};

use crate::plain::{of_answer, of_truth};
use crate::python;
use crate::served::{LAKE, serve};
use crate::tour::{PREFIX, absent_id, rows_from_all_over};

/// Keys of one comparison: rows of all files, and one that is absent.
const KEYS: usize = 20;

#[tokio::test]
async fn pyarrow_finds_the_same_rows() {
    let directory = tempfile::tempdir().unwrap();
    let users = directory.path().join("users");
    LAKE.write_to(&users).unwrap();
    let served = serve(&format!("url = \"file://{}\"", directory.path().display()));
    let mut rows = rows_from_all_over();
    let stride = LAKE.spec().rows / KEYS as u64;
    rows.extend((1..).map(|n| LAKE.row(n * stride + n).unwrap()).take(KEYS - 1 - rows.len()));
    let ids: Vec<Json> = rows.iter().map(|row| json!(row.id)).chain([json!(absent_id())]).collect();
    let users_keys: Vec<Json> = rows.iter().map(|row| json!(row.user)).chain([json!("u-nobody")]).collect();
    for (column, keys) in [("id", ids), ("user", users_keys)] {
        assert_eq!(keys.len(), KEYS);
        let theirs = python::run("pyarrow_rows.py", &[users.to_str().unwrap(), column], &json!(keys)).await;
        let lookup = served.client.lookup(PREFIX).key_column(column);
        let answer = keys.iter().fold(lookup, |lookup, key| match key {
            Json::String(text) => lookup.key(text.as_str()),
            number => lookup.key(number.as_i64().unwrap()),
        });
        let found = of_answer(&answer.await.unwrap());
        let ours = (0..KEYS as u32)
            .map(|key| found.iter().filter(|(of, ..)| *of == key).map(|(.., values)| values.clone()).collect::<Json>());
        assert_eq!(ours.collect::<Json>(), theirs);
        let truth = rows.iter().map(|row| json!([of_truth(row)])).chain([json!([])]);
        assert_eq!(truth.collect::<Json>(), theirs);
    }
}
