//! Keys that no row has, asked of a file by its name: the answer says which version has no such row, and its columns.

use alcedo_client::{Answer, Form, Lookup};
use alcedo_testkit::cluster::TestCluster;

use crate::sample::{COLUMNS, absent_ids, assert_nothing, small, small_cluster};

const FILE: &str = "lake/lake/part-00001.parquet";

fn ask(cluster: &TestCluster, path: &str, key: i64) -> Lookup {
    cluster.client().lookup(path).key_column("id").key(key)
}

/// An absent key within the bounds of the file's keys, and one outside of them.
fn absent() -> [i64; 2] {
    let lake = small();
    let rows = lake.rows_of_file(1);
    let within = |id: &i64| (lake.row(rows[50]).unwrap().id..lake.row(rows[1_000]).unwrap().id).contains(id);
    let inside = absent_ids(&lake, 200).into_iter().find(within).expect("an absent key of the file");
    [inside, -1]
}

fn assert_named(answer: &Answer, like: &Answer, columns: &[&str]) {
    assert_nothing(answer, 1);
    let [file] = answer.files.as_slice() else { panic!("{answer:?}") };
    assert_eq!((&file.url, &file.version), (&like.files[0].url, &like.files[0].version));
    assert_eq!(file.schema.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), columns);
    assert!(file.arrow.is_none() && !file.version.is_empty());
}

#[tokio::test]
async fn a_file_that_is_named_is_in_the_answer_in_every_form_and_a_prefix_names_none() {
    let (cluster, lake) = (small_cluster(), small());
    let present = ask(&cluster, FILE, lake.row(lake.rows_of_file(1)[100]).unwrap().id).await.unwrap();
    for key in absent() {
        for form in [Form::CompactRows, Form::ArrowIpc, Form::Pages] {
            for unary in [false, true] {
                let lookup = || ask(&cluster, FILE, key).form(form).unary(unary);
                assert_named(&lookup().await.unwrap(), &present, &COLUMNS);
                assert_named(&lookup().select(["city", "id"]).await.unwrap(), &present, &["city", "id"]);
                assert_named(&lookup().row_limit(1).await.unwrap(), &present, &COLUMNS);
            }
        }
        for prefix in ["lake/lake/", "lake/lake"] {
            assert_eq!(ask(&cluster, prefix, key).await.unwrap().files, []);
        }
    }
    // What is outside of the bounds is known by them: no data is asked for.
    let gets = cluster.store().counters().get;
    let answer = ask(&cluster, FILE, -1).await.unwrap();
    assert_eq!((answer.files_total, answer.files_asked, cluster.store().counters().get), (1, 0, gets));
}

#[tokio::test]
async fn the_command_tells_version_and_columns_in_the_forms_for_programs_only() {
    let cluster = small_cluster();
    for key in absent().map(|key| key.to_string()) {
        let said = async |format: &str, more: &[&str]| {
            let args = [&["get", FILE, "-k", "id", "-o", format][..], more, &["--", &key]].concat();
            cluster.run(&args).await.unwrap()
        };
        for (format, more) in [("table", [].as_slice()), ("jsonl", &[]), ("csv", &[]), ("raw", &[]), ("arrow", &[])] {
            let said = said(format, more).await;
            let wanted = (Some(3), "", format!("not found: id={key} in {FILE}\n"));
            assert_eq!((said.code, said.stdout.as_str(), said.stderr), wanted, "{format}");
        }
        let json = said("json", &["--select", "city"]).await;
        let document: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!(document["columns"][0]["name"], "city");
        assert_eq!(document["files"][0]["url"], "s3://lake/lake/part-00001.parquet");
        assert_eq!((json.code, &document["rows"]), (Some(3), &serde_json::json!([])));
        let nulls = said("csv", &["--missing", "null", "--select", "id,city"]).await;
        assert_eq!((nulls.code, nulls.stdout), (Some(0), format!("id,city\n{key},\n")));
    }
}
