//! Files that are not what they seem: each with its exact message, its kind, and the command's exit code.

use alcedo_client::{Kind, Reason};
use bytes::Bytes;

use crate::sample::{cluster_of, refused, small_objects};

/// What a file is, what is wrong with it, and what is said of it.
fn broken() -> Vec<(&'static str, Bytes, Reason, &'static str)> {
    let whole = small_objects()[0].1.clone();
    let with_end = |part: &[u8], footer_bytes: u32| {
        let trailer = [footer_bytes.to_le_bytes().as_slice(), b"PAR1"].concat();
        Bytes::from([part, trailer.as_slice()].concat())
    };
    let mut flipped = whole.to_vec();
    let in_footer = flipped.len() - 40;
    flipped[in_footer..in_footer + 24].fill(0xff);
    vec![
        (
            "table.csv",
            Bytes::from("id,name\n1,a\n".repeat(100)),
            Reason::NotParquet,
            "not a Parquet file: it does not end in PAR1",
        ),
        ("short", Bytes::from_static(b"PAR1"), Reason::NotParquet, "not a Parquet file: 4 bytes are too few"),
        ("empty", Bytes::new(), Reason::NotParquet, "not a Parquet file: 0 bytes are too few"),
        (
            "cut.parquet",
            whole.slice(..whole.len() - 100),
            Reason::NotParquet,
            "not a Parquet file: it does not end in PAR1",
        ),
        (
            "long-footer.parquet",
            with_end(&whole[..500], 1 << 20),
            Reason::Corrupt,
            "corrupt Parquet file: the footer claims 1048576 bytes, the file has 508",
        ),
        (
            "huge-footer.parquet",
            with_end(&whole[..500], u32::MAX),
            Reason::Corrupt,
            "corrupt Parquet file: the footer claims 4294967295 bytes, the file has 508",
        ),
        (
            "flipped.parquet",
            Bytes::from(flipped),
            Reason::Corrupt,
            "corrupt Parquet file: footer at byte 5358: an integer takes more than 64 bits",
        ),
        (
            "encrypted.parquet",
            Bytes::from_static(b"PARE....\x04\0\0\0PARE"),
            Reason::Encrypted,
            "encrypted: the footer is encrypted and no key is configured",
        ),
    ]
}

#[tokio::test]
async fn what_is_no_parquet_file_is_called_that() {
    let broken = broken();
    let cluster = cluster_of(broken.iter().map(|(name, bytes, ..)| ((*name).to_owned(), bytes.clone())).collect());
    for (name, _, reason, what) in broken {
        let path = format!("lake/{name}");
        let error = refused(cluster.client().lookup(path.as_str()).key_column("id").key(1).await);
        assert_eq!((error.kind(), error.reason), (Kind::Failed, Some(reason)), "{error}");
        assert_eq!(error.message, format!("s3://lake/{name}: {what}"));
        let said = cluster.run(&["get", &path, "1", "-k", "id"]).await.unwrap();
        assert_eq!((said.code, said.stderr), (Some(1), format!("error: s3://lake/{name}: {what}\n")));
    }
}

#[tokio::test]
async fn a_broken_file_is_read_twice_and_then_known_while_its_version_stays() {
    let cluster = cluster_of(vec![("a.parquet".to_owned(), Bytes::from_static(b"not a Parquet file"))]);
    let ask = async || cluster.client().lookup("lake/a.parquet").key_column("id").key(1).await;
    let first = refused(ask().await);
    // Once more before it is believed: bytes may be damaged on their way.
    assert_eq!(cluster.store().counters().get, 2);
    for _ in 0..3 {
        assert_eq!((refused(ask().await), cluster.store().counters().get), (first.clone(), 2));
    }
}

#[tokio::test]
async fn one_broken_file_below_a_prefix_fails_the_lookup_by_name() {
    let mut objects = small_objects();
    objects.push(("lake/part-00099.parquet".to_owned(), Bytes::from_static(b"half of a file")));
    let cluster = cluster_of(objects);
    // To leave it out in silence would be an answer that may lack rows.
    let error = refused(cluster.client().lookup("lake/lake/").key_column("id").key(1).await);
    assert_eq!(error.message, "s3://lake/lake/part-00099.parquet: not a Parquet file: it does not end in PAR1");
    let good = cluster.client().lookup("lake/lake/part-00000.parquet").key_column("id").key(1).await;
    assert!(good.is_ok(), "{good:?}");
}

#[tokio::test]
async fn a_file_cut_in_its_data_never_gives_a_wrong_row() {
    // The footer is whole and speaks of bytes that are others now.
    let whole = small_objects()[0].1.clone();
    let footer_start = {
        let tail = &whole[whole.len() - 8..whole.len() - 4];
        whole.len() - 8 - u32::from_le_bytes(tail.try_into().unwrap()) as usize
    };
    for cut in [1, 100, footer_start / 2] {
        let damaged = [&whole[..footer_start - cut], &whole[footer_start..]].concat();
        let cluster = cluster_of(vec![("a.parquet".to_owned(), damaged.into())]);
        let lake = crate::sample::small();
        for number in lake.rows_of_file(0).into_iter().step_by(100) {
            let truth = lake.row(number).unwrap();
            match cluster.client().lookup("lake/a.parquet").key_column("id").key(truth.id).await {
                Ok(answer) => {
                    let rows: Vec<_> = answer.rows().map(|(_, row)| row.values.clone()).collect();
                    assert_eq!(rows, [crate::sample::values(&truth)], "cut by {cut}");
                }
                Err(error) => assert_eq!(error.kind(), Kind::Failed, "cut by {cut}: {error}"),
            }
        }
    }
}
