//! Layer 3, tests only: a panic at each point of a lookup, and how little it costs.
//!
//! Knows the points by name: the stages of a machine, inline and in the pool, and what follows them. A panic is planted
//! at a point of one file and comes once.

use std::sync::{Mutex, PoisonError};

static PLANTED: Mutex<Vec<(String, &'static str, bool)>> = Mutex::new(Vec::new());

/// A point that work on a file passes; `pooled` is a thread of the blocking pool.
#[allow(clippy::panic)] // That is what it is for.
pub(crate) fn here(url: &str, point: &str, pooled: bool) {
    let mut planted = PLANTED.lock().unwrap_or_else(PoisonError::into_inner);
    let found = planted.iter().position(|(of, at, place)| (of.as_str(), *at, *place) == (url, point, pooled));
    if let Some(found) = found {
        planted.swap_remove(found);
        drop(planted);
        panic!("planted at {point}");
    }
}

#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::time::Duration;

    use alcedo_origin::{Freshness, Mount, Mounts, OriginLimits};
    use alcedo_proto::v1::lookup_service_client::LookupServiceClient;
    use alcedo_proto::v1::{self, key, lookup_frame, reply_frame};
    use arrow_array::{ArrayRef, Int64Array, RecordBatch};
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{ObjectStore, ObjectStoreExt as _};
    use parquet::arrow::ArrowWriter;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;
    use tonic::transport::{Channel, Endpoint};
    use tonic::{Code, Status};

    use crate::{Config, Running, Worker};

    /// Rows of a file whose steps run inline, and of one whose steps run in the pool.
    const SMALL: i64 = 100;
    const LARGE: i64 = 40_000;

    struct Served {
        running: Running,
        channel: Channel,
        bucket: String,
    }

    fn file(rows: i64) -> Vec<u8> {
        let column = |seed: i64| Arc::new(Int64Array::from_iter_values((0..rows).map(|id| id * seed))) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("id", column(1)), ("x", column(7_919))]).unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    }

    /// A worker with so many permits. Where there is one, it is noticed if it is lost.
    async fn serve(bucket: &str, rows: i64, permits: usize) -> Served {
        let store = InMemory::new();
        for name in ["a.parquet", "b.parquet"] {
            store.put(&Path::from(name), file(rows).into()).await.unwrap();
        }
        let (url, store) = (format!("s3://{bucket}"), Arc::new(store) as Arc<dyn ObjectStore>);
        let mount = Mount::with_store("lake", &url, store, Freshness::Immutable, OriginLimits::default()).unwrap();
        let mut config = Config::default();
        config.runtimes = 1;
        config.lookup.permits = permits;
        // A machine that is busy makes no other error of it.
        config.lookup.default_timeout = config.lookup.max_timeout;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let running = Worker::with_mounts(config, Mounts::from_mounts(vec![mount]).unwrap(), listener).unwrap();
        let channel = Endpoint::from_shared(format!("http://{}", running.local_addr())).unwrap().connect_lazy();
        Served { running, channel, bucket: bucket.to_owned() }
    }

    fn question(name: &str) -> v1::LookupRequest {
        let keys = vec![v1::Key { kind: Some(key::Kind::Int(7)) }];
        v1::LookupRequest { path: format!("lake/{name}"), key_column: "id".to_owned(), keys, ..Default::default() }
    }

    impl Served {
        async fn ask(&self, name: &str) -> Result<usize, Status> {
            let answer = LookupServiceClient::new(self.channel.clone()).lookup(question(name)).await?.into_inner();
            Ok(answer.answer.unwrap().files[0].row_number.len())
        }

        fn plant(&self, name: &str, point: &'static str, pooled: bool) {
            let mut planted = PLANTED.lock().unwrap_or_else(PoisonError::into_inner);
            planted.push((format!("s3://{}/{name}", self.bucket), point, pooled));
        }

        fn is_planted(&self) -> bool {
            let planted = PLANTED.lock().unwrap_or_else(PoisonError::into_inner);
            planted.iter().any(|(url, ..)| url.starts_with(&format!("s3://{}/", self.bucket)))
        }

        fn panics(&self) -> u64 {
            self.running.metrics().panics_total.get()
        }
    }

    #[tokio::test]
    async fn a_panic_at_any_point_is_one_clear_error_and_nothing_is_lost() {
        let inline = [("open", false), ("plan", false), ("merge", false), ("encode", false)];
        for (bucket, rows, points) in
            [("small", SMALL, inline.as_slice()), ("large", LARGE, &[("open", true), ("key pages", true)])]
        {
            for (number, (point, pooled)) in points.iter().enumerate() {
                let served = serve(&format!("{bucket}-{number}"), rows, 1).await;
                assert_eq!(served.ask("b.parquet").await.unwrap(), 1);
                served.plant("a.parquet", point, *pooled);
                let failed = served.ask("a.parquet").await.unwrap_err();
                assert_eq!(failed.code(), Code::Internal, "{point}, pooled {pooled}: {failed:?}");
                assert!(failed.message().contains("please report it"), "{failed:?}");
                assert_eq!((served.is_planted(), served.panics()), (false, 1), "{point}");
                // The permit is back, the flights are over, and the same question is answered.
                assert_eq!(served.ask("a.parquet").await.unwrap(), 1, "{point}");
                assert_eq!(served.ask("b.parquet").await.unwrap(), 1, "{point}");
                assert_eq!(served.running.metrics().lookups_in_flight.get(), 0);
            }
        }
    }

    #[tokio::test]
    async fn all_who_wait_for_an_opening_that_panics_are_told_and_the_next_one_works() {
        let served = serve("shared", LARGE, 64).await;
        served.plant("a.parquet", "open", true);
        let asked = futures::future::join_all((0..20).map(|_| served.ask("a.parquet"))).await;
        let failed: Vec<_> = asked.iter().filter_map(|answer| answer.as_ref().err()).collect();
        assert!(!failed.is_empty() && failed.iter().all(|failed| failed.code() == Code::Internal), "{failed:?}");
        assert_eq!((served.is_planted(), served.panics()), (false, 1));
        assert_eq!(served.ask("a.parquet").await.unwrap(), 1);
    }

    #[tokio::test]
    async fn other_requests_of_the_same_stream_do_not_notice() {
        for (number, point) in ["plan", "merge", "encode"].into_iter().enumerate() {
            let served = serve(&format!("stream-{number}"), SMALL, 1).await;
            let (frames, receiver) = mpsc::channel(8);
            let mut client = LookupServiceClient::new(served.channel.clone());
            let mut replies = client.lookup_stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
            served.plant("a.parquet", point, false);
            for (id, name) in [(1, "a.parquet"), (2, "b.parquet"), (3, "a.parquet")] {
                let body = Some(lookup_frame::Body::Request(question(name)));
                frames.send(v1::LookupFrame { id, body }).await.unwrap();
                let reply = async {
                    loop {
                        let reply = replies.message().await.unwrap().unwrap();
                        if reply.id != 0 {
                            return reply;
                        }
                    }
                };
                let reply = tokio::time::timeout(Duration::from_secs(60), reply).await.unwrap();
                let is_failure = matches!(reply.body, Some(reply_frame::Body::Failure(_)));
                assert_eq!((reply.id, is_failure), (id, id == 1), "{point}");
            }
            assert_eq!(served.panics(), 1, "{point}");
        }
    }

    #[tokio::test]
    async fn a_panic_of_an_answer_at_once_is_one_error() {
        let served = serve("at-once", SMALL, 1).await;
        let (frames, receiver) = mpsc::channel(8);
        let mut client = LookupServiceClient::new(served.channel.clone());
        let mut replies = client.lookup_stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        for id in 1..=4 {
            if id == 3 {
                served.plant("a.parquet", "at once", false);
            }
            let body = Some(lookup_frame::Body::Request(question("a.parquet")));
            frames.send(v1::LookupFrame { id, body }).await.unwrap();
            let reply = async {
                loop {
                    let reply = replies.message().await.unwrap().unwrap();
                    if reply.id != 0 {
                        return reply;
                    }
                }
            };
            let reply = tokio::time::timeout(Duration::from_secs(60), reply).await.unwrap();
            let is_failure = matches!(reply.body, Some(reply_frame::Body::Failure(_)));
            assert_eq!((reply.id, is_failure), (id, id == 3));
        }
        assert_eq!((served.is_planted(), served.panics()), (false, 1));
        assert_eq!(served.running.metrics().lookups_failed.get(), 1);
    }
}
