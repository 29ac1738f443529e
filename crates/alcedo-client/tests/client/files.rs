//! Stat, list and read.

use alcedo_client::{Error, Kind, ListOptions};
use alcedo_proto::v1 as pb;
use bytes::Bytes;
use tokio_stream::StreamExt as _;
use tonic::Status;

use crate::scripted::Server;

fn info(url: &str, size_bytes: u64) -> pb::FileInfo {
    pb::FileInfo { url: url.into(), size_bytes, version: "v1".into(), ..Default::default() }
}

fn chunk(file: Option<pb::FileInfo>, data: &'static [u8]) -> Result<pb::ReadResponse, Status> {
    Ok(pb::ReadResponse { file, data: data.into() })
}

async fn read(
    chunks: Vec<Result<pb::ReadResponse, Status>>,
    offset: u64,
    length: Option<u64>,
) -> Result<Vec<Bytes>, Error> {
    let server = Server::start();
    *server.script.read.lock().unwrap() = chunks;
    let chunks = server.client().read("lake/a", offset, length).collect().await;
    let asked = server.script.reads.lock().unwrap().clone();
    assert_eq!((asked[0].offset, asked[0].length), (offset, length.unwrap_or(0)));
    chunks
}

#[tokio::test]
async fn a_file_is_described() {
    let server = Server::start();
    let parquet = pb::ParquetInfo { rows: 9, row_groups: 2, columns: 3, has_page_index: true, index_bytes: 77 };
    let file = pb::FileInfo { parquet: Some(parquet), modified_us: 5, ..info("s3://lake/a", 10) };
    *server.script.stat.lock().unwrap() = Some(Ok(pb::StatResponse { file: Some(file), ring_epoch: 0 }));
    let file = server.client().stat("lake/a").await.unwrap();
    assert_eq!(
        (file.url.as_str(), file.size_bytes, file.version.as_str(), file.modified_us),
        ("s3://lake/a", 10, "v1", 5)
    );
    assert_eq!(file.parquet.unwrap().rows, 9);

    *server.script.stat.lock().unwrap() = Some(Err(Status::not_found("no such file s3://lake/b")));
    let error = server.client().stat("lake/b").await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::NotFound, "no such file s3://lake/b"));
}

#[tokio::test]
async fn a_listing_is_collected_up_to_its_limit() {
    let server = Server::start();
    let page = |names: [&str; 2], truncated| {
        Ok(pb::ListResponse { entries: names.iter().map(|name| info(name, 1)).collect(), truncated })
    };
    *server.script.list.lock().unwrap() = vec![page(["a", "b"], false), page(["c", "d"], true)];
    let listing = server.client().list("lake/", ListOptions::default()).await.unwrap();
    assert_eq!(listing.entries.iter().map(|entry| entry.url.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    assert!(listing.truncated);
    let three = ListOptions { limit: 3, ..ListOptions::default() };
    assert_eq!(server.client().list("lake/", three).await.unwrap().entries.len(), 3);

    *server.script.list.lock().unwrap() = vec![page(["a", "b"], false), Err(Status::unavailable("origin is down"))];
    let error = server.client().list("lake/", ListOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Unavailable, "origin is down"));
}

#[tokio::test]
async fn a_read_yields_all_bytes_or_an_error() {
    let first = || chunk(Some(info("s3://lake/a", 10)), b"abcd");
    let whole = read(vec![first(), chunk(None, b"efghij")], 0, None).await.unwrap();
    assert_eq!(whole.concat(), b"abcdefghij");
    // The range ends with the file.
    assert_eq!(read(vec![first()], 6, Some(100)).await.unwrap().concat(), b"abcd");
    assert_eq!(read(vec![chunk(Some(info("s3://lake/a", 10)), b"")], 10, None).await.unwrap().concat(), b"");

    let damaged = [
        (vec![first()], "it ended 6 bytes early"),
        (vec![first(), chunk(None, b"efghijk")], "it sent more bytes than were asked for"),
        (vec![chunk(None, b"abcd")], "its first message names no file"),
        (vec![], "it ended without a message"),
    ];
    for (chunks, what) in damaged {
        let error = read(chunks, 0, None).await.unwrap_err();
        assert_eq!(error.kind(), Kind::DataLoss);
        assert!(error.to_string().ends_with(what), "{error}");
    }
    let error = read(vec![first(), Err(Status::aborted("it changed"))], 0, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::VersionChanged);
}

#[tokio::test]
async fn a_read_of_nothing_asks_nobody() {
    let server = Server::start();
    assert!(server.client().read("lake/a", 5, Some(0)).next().await.is_none());
    assert_eq!(server.accepted(), 0);
}
