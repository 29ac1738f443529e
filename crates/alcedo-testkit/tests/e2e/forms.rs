//! The forms of an answer: whatever travels, the same rows arrive.

use alcedo_client::{Answer, Form, Lookup, Reason, Value};
use alcedo_testkit::cluster::TestCluster;
use alcedo_testkit::lake::SampleLake;
use arrow_array::Array as _;
use arrow_array::cast::AsArray as _;
use arrow_array::types::Int64Type;

use crate::sample::{COLUMNS, draw, large, large_cluster, small, small_cluster, values};

fn ask(cluster: &TestCluster, path: &str, ids: &[i64]) -> Lookup {
    cluster.client().lookup(path).key_column("id").keys(ids.iter().copied())
}

/// Files with their rows, without what the forms have of their own.
fn rows(answer: &Answer) -> Vec<(String, u32, u64, Vec<Value>)> {
    let row = |(file, row): (&alcedo_client::FileAnswer, &alcedo_client::Row)| {
        (file.url.to_string(), row.key_index, row.row_number, row.values.clone())
    };
    answer.rows().map(row).collect()
}

async fn all_forms_agree(cluster: &TestCluster, path: &str, lake: &SampleLake, ids: &[i64]) {
    let compact = ask(cluster, path, ids).await.unwrap();
    for (_, row) in compact.rows() {
        assert_eq!(row.values, values(&lake.row_of_int_key(ids[row.key_index as usize]).unwrap()));
    }
    assert_eq!(compact.rows().count(), ids.len());
    for file in &compact.files {
        let names: Vec<&str> = file.schema.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, COLUMNS);
    }
    let typed = ask(cluster, path, ids).unary(true).await.unwrap();
    let pages = ask(cluster, path, ids).form(Form::Pages).await.unwrap();
    let unary_pages = match ask(cluster, path, ids).form(Form::Pages).unary(true).await {
        // Data pages of several keys may be more than a unary call returns.
        Err(error) if error.reason == Some(Reason::AnswerTooLarge) => pages.clone(),
        answer => answer.unwrap(),
    };
    for (form, answer) in [("typed", typed), ("pages", pages), ("unary pages", unary_pages)] {
        assert_eq!(rows(&answer), rows(&compact), "{form}");
        assert_eq!(answer.statuses, compact.statuses, "{form}");
        let schemas = |answer: &Answer| answer.files.iter().map(|file| file.schema.clone()).collect::<Vec<_>>();
        assert_eq!(schemas(&answer), schemas(&compact), "{form}");
    }
    arrow_agrees(&ask(cluster, path, ids).form(Form::ArrowIpc).await.unwrap(), &compact, lake);
}

fn arrow_agrees(answer: &Answer, compact: &Answer, lake: &SampleLake) {
    assert_eq!(answer.files.len(), compact.files.len());
    for (file, wanted) in answer.files.iter().zip(&compact.files) {
        let stream = file.arrow.as_ref().expect("an Arrow stream");
        let reader = arrow_ipc::reader::StreamReader::try_new(std::io::Cursor::new(stream), None).unwrap();
        assert_eq!(reader.schema().fields().iter().map(|field| field.name()).collect::<Vec<_>>(), COLUMNS);
        let mut at = 0;
        for batch in reader {
            let batch = batch.unwrap();
            for row in 0..batch.num_rows() {
                let id = batch.column(0).as_primitive::<Int64Type>().value(row);
                let user = batch.column(1).as_string::<i32>().value(row);
                let truth = lake.row_of_int_key(id).expect("a row of the lake");
                assert_eq!(user, truth.user);
                let tags = batch.column(9).as_list::<i32>();
                let tags = tags.is_valid(row).then(|| tags.value(row));
                let tags = tags.map(|tags| tags.as_string::<i32>().iter().map(|tag| tag.unwrap().to_owned()).collect());
                assert_eq!(tags, truth.tags.map(|tags| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>()));
                let wanted = &wanted.rows[at];
                assert_eq!(wanted.values[0], Value::Int(id), "the stream is in the rows' order");
                let numbers = (file.rows[at].row_number, file.rows[at].key_index);
                assert_eq!(numbers, (wanted.row_number, wanted.key_index));
                at += 1;
            }
        }
        assert_eq!(at, wanted.rows.len());
    }
}

#[tokio::test]
async fn all_forms_give_the_rows_of_a_prefix() {
    let (cluster, lake) = (small_cluster(), small());
    let ids: Vec<i64> = draw(50, lake.spec().rows).into_iter().map(|number| lake.row(number).unwrap().id).collect();
    all_forms_agree(&cluster, "lake/lake/", &lake, &ids).await;
}

#[tokio::test]
async fn all_forms_give_the_rows_of_files_of_every_kind() {
    let lake = large(7);
    for file in 0..4 {
        let cluster = large_cluster(file);
        let numbers = lake.rows_of_file(file);
        let ids: Vec<i64> =
            draw(8, numbers.len() as u64).into_iter().map(|at| lake.row(numbers[at as usize]).unwrap().id).collect();
        all_forms_agree(&cluster, "lake/big.parquet", &lake, &ids).await;
    }
}

#[tokio::test]
async fn an_absent_key_has_no_row_in_any_form() {
    let cluster = small_cluster();
    for form in [Form::CompactRows, Form::ArrowIpc, Form::Pages] {
        for unary in [false, true] {
            let answer = ask(&cluster, "lake/lake/", &[-7]).form(form).unary(unary).await.unwrap();
            assert_eq!((answer.files.len(), answer.statuses.len()), (0, 1), "{form:?}");
        }
    }
}
