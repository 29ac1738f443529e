//! Prepared lookups on a stream, and rows that are answered from memory.

use std::sync::Arc;
use std::time::Duration;

use alcedo_origin::Freshness;
use alcedo_proto::v1::{self, AnswerForm, Reason, key, lookup_frame, reply_frame};
use object_store::memory::InMemory;
use tokio::sync::mpsc;
use tonic::{Code, Streaming};

use crate::served::*;

/// A stream that asks by handles.
struct Talk {
    frames: mpsc::Sender<v1::LookupFrame>,
    replies: Streaming<v1::ReplyFrame>,
}

impl Talk {
    async fn open(served: &Served) -> Self {
        let (frames, replies) = served.stream().await;
        Self { frames, replies }
    }

    async fn send(&self, id: u64, body: lookup_frame::Body) {
        self.frames.send(v1::LookupFrame { id, body: Some(body) }).await.unwrap();
    }

    async fn prepare(&self, handle: u32, request: v1::LookupRequest) {
        self.send(0, lookup_frame::Body::Prepare(v1::Prepare { handle, request: Some(request) })).await;
    }

    async fn lookup(&self, id: u64, handle: u32, keys: &[i64]) {
        let keys = ask("", keys).keys;
        self.send(id, lookup_frame::Body::Lookup(v1::PreparedLookup { handle, keys, timeout_us: 0 })).await;
    }

    async fn batch(&self, handle: u32, ids: &[u64], keys: &[i64]) {
        let (ids, keys) = (ids.to_vec(), ask("", keys).keys);
        self.send(0, lookup_frame::Body::Batch(v1::PreparedBatch { handle, ids, keys, timeout_us: 0 })).await;
    }

    /// The next frame that says more than what handles mean.
    async fn reply(&mut self) -> v1::ReplyFrame {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.replies.message()).await.unwrap().unwrap().unwrap();
            if !matches!(frame.body, Some(reply_frame::Body::Announce(_))) {
                return frame;
            }
        }
    }

    async fn answer(&mut self, id: u64) -> v1::Answer {
        let frame = self.reply().await;
        let Some(reply_frame::Body::Answer(answer)) = frame.body else { panic!("{frame:?}") };
        assert_eq!(frame.id, id);
        answer
    }

    async fn failure(&mut self, id: u64) -> (Code, Reason, String) {
        let frame = self.reply().await;
        let Some(reply_frame::Body::Failure(failure)) = frame.body else { panic!("{frame:?}") };
        assert_eq!(frame.id, id);
        (Code::from(failure.code), failure.detail.unwrap_or_default().reason(), failure.message)
    }

    /// The row numbers of each key of a prepared lookup.
    async fn rows(&mut self, id: u64, handle: u32, keys: &[i64]) -> Vec<Vec<u64>> {
        self.lookup(id, handle, keys).await;
        rows_of_keys(&self.answer(id).await, keys.len())
    }
}

fn rows_of_keys(answer: &v1::Answer, keys: usize) -> Vec<Vec<u64>> {
    let mut rows = vec![Vec::new(); keys];
    for file in &answer.files {
        for (at, number) in file.row_number.iter().enumerate() {
            rows[file.key_index.get(at).copied().unwrap_or(0) as usize].push(*number);
        }
    }
    rows
}

#[tokio::test]
async fn a_handle_stands_for_a_question_until_it_is_defined_anew() {
    let served = serve().await;
    let mut talk = Talk::open(&served).await;
    talk.prepare(1, ask("lake/users/a.parquet", &[])).await;
    assert_eq!(talk.rows(7, 1, &[42]).await, [[42]]);
    assert_eq!(talk.rows(8, 1, &[42, 5]).await, [[42], [5]]);
    // The keys of a Prepare mean nothing.
    talk.prepare(1, ask("lake/users/b.parquet", &[1, 2, 3])).await;
    assert_eq!(talk.rows(9, 1, &[95]).await, [[5]]);
    talk.prepare(1_024, ask("lake/users/", &[])).await;
    assert_eq!(talk.rows(10, 1_024, &[95, 250, 7_000]).await, [vec![95, 5], vec![50], vec![]]);
}

#[tokio::test]
async fn what_is_wrong_with_a_handle_fails_each_lookup_that_uses_it() {
    let served = serve().await;
    let mut talk = Talk::open(&served).await;
    talk.lookup(1, 5, &[1]).await;
    let (code, reason, message) = talk.failure(1).await;
    assert_eq!((code, reason), (Code::InvalidArgument, Reason::BadRequest));
    assert_eq!(message, "the handle 5 was not defined on this stream: send a Prepare first");
    for handle in [0, 1_025] {
        talk.prepare(handle, ask("lake/users/a.parquet", &[])).await;
        talk.lookup(2, handle, &[1]).await;
        assert_eq!(talk.failure(2).await.2, format!("{handle} cannot be a handle: 1 to 1024 can"));
    }
    let columns = vec!["nam".to_owned()];
    talk.prepare(5, v1::LookupRequest { columns, ..ask("lake/users/a.parquet", &[]) }).await;
    talk.prepare(6, ask("nowhere/a.parquet", &[])).await;
    for id in 3..6 {
        talk.lookup(id, 5, &[1]).await;
        assert_eq!(talk.failure(id).await.1, Reason::NoSuchColumn);
        talk.lookup(id, 6, &[1]).await;
        assert_eq!(talk.failure(id).await.1, Reason::NoSuchMount);
    }
    talk.prepare(5, ask("lake/users/a.parquet", &[])).await;
    assert_eq!(talk.rows(9, 5, &[1]).await, [[1]]);
    let metrics = served.running.metrics();
    assert_eq!((metrics.lookups_total.get(), metrics.lookups_failed.get()), (10, 9));
}

#[tokio::test]
async fn questions_of_one_stream_take_a_bounded_room() {
    let served = serve().await;
    let mut talk = Talk::open(&served).await;
    let columns: Vec<String> = (0..90).map(|number| format!("{number}").repeat(4_000)).collect();
    let long = v1::LookupRequest { columns, ..ask("lake/users/a.parquet", &[]) };
    for handle in 1..=20 {
        talk.prepare(handle, long.clone()).await;
    }
    talk.lookup(1, 20, &[1]).await;
    let (_, reason, message) = talk.failure(1).await;
    assert_eq!(reason, Reason::BadRequest);
    assert!(message.starts_with("the handles of this stream name more than 4194304 bytes"), "{message}");
    // One that is given up makes room.
    talk.prepare(1, ask("lake/users/a.parquet", &[])).await;
    assert_eq!(talk.rows(2, 1, &[1]).await, [[1]]);
}

#[tokio::test]
async fn a_batch_answers_each_of_its_requests_once() {
    let served = serve().await;
    let mut talk = Talk::open(&served).await;
    talk.prepare(3, ask("lake/users/a.parquet", &[])).await;
    for (id, key) in (1..).zip([10, 11, 12]) {
        talk.rows(id, 3, &[key]).await;
    }
    // Two are hot and one is not, one key is none, one id comes twice, and one key has no row.
    let mut keys = ask("", &[11, 50, 0, 10, 10, 99_999]).keys;
    keys[2] = v1::Key { kind: Some(key::Kind::Text("ten".to_owned())) };
    let ids = vec![21, 22, 23, 24, 24, 26];
    let batch = v1::PreparedBatch { handle: 3, ids, keys, timeout_us: 0 };
    talk.send(0, lookup_frame::Body::Batch(batch)).await;
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    while rows.len() + failed.len() < 6 {
        let frame = talk.reply().await;
        match frame.body.unwrap() {
            reply_frame::Body::Answer(answer) => rows.push((frame.id, rows_of_keys(&answer, 1).remove(0))),
            reply_frame::Body::Batch(v1::BatchAnswer { ids, answer }) => {
                let of_keys = rows_of_keys(&answer.unwrap(), ids.len());
                rows.extend(ids.into_iter().zip(of_keys));
            }
            reply_frame::Body::Failure(failure) => failed.push((frame.id, failure.detail.unwrap().reason())),
            other => panic!("{other:?}"),
        }
    }
    rows.sort();
    assert_eq!(failed, [(24, Reason::BadRequest), (23, Reason::BadKey)].into_iter().collect::<Vec<_>>());
    assert_eq!(rows, [(21, vec![11]), (22, vec![50]), (24, vec![10]), (26, vec![])]);
    // All hot: one frame, in the order of the ids.
    talk.batch(3, &[31, 32, 33], &[12, 10, 50]).await;
    let Some(reply_frame::Body::Batch(batch)) = talk.reply().await.body else { panic!() };
    assert_eq!(batch.ids, [31, 32, 33]);
    assert_eq!(rows_of_keys(&batch.answer.unwrap(), 3), [[12], [10], [50]]);
    // A batch that makes no sense fails all of its requests.
    talk.batch(3, &[41, 42], &[1]).await;
    assert_eq!((talk.failure(41).await.1, talk.failure(42).await.1), (Reason::BadRequest, Reason::BadRequest));
    talk.batch(9, &[43], &[1]).await;
    assert_eq!(talk.failure(43).await.1, Reason::BadRequest);
}

/// All forms of an answer, asked by handles on a stream.
async fn in_all_forms(talk: &mut Talk, first_id: u64, keys: &[i64]) -> Vec<v1::Answer> {
    let mut answers = Vec::new();
    for (id, form) in
        (first_id..).zip([AnswerForm::CompactRows, AnswerForm::TypedValues, AnswerForm::ArrowIpc, AnswerForm::Pages])
    {
        for (handle, path) in [(1, "lake/users/a.parquet"), (2, "lake/users/")] {
            for row_limit in [0, 1] {
                let request = v1::LookupRequest { form: form.into(), row_limit, ..ask(path, &[]) };
                talk.prepare(handle, request).await;
                talk.lookup(id, handle, keys).await;
                let mut answer = talk.answer(id).await;
                // Where bytes came from is what differs.
                (answer.source, answer.origin_gets, answer.origin_bytes) = (0, 0, 0);
                answers.push(answer);
            }
        }
    }
    answers
}

#[tokio::test]
async fn hot_rows_say_what_cold_ones_said_in_every_form() {
    let keys = [95, 3, 95, 150, -4, 99, 5_000, 12];
    let with_decoded = |decoded_bytes| {
        let mut config = config(1);
        config.cache.decoded_bytes = decoded_bytes;
        // A busy machine makes no thread short of CPU: each sends rows, and no data pages in their place.
        config.lookup.pages_wait = PATIENCE;
        config
    };
    let cold = serve_with(lake().await, Freshness::default(), with_decoded(0));
    let hot = serve_with(lake().await, Freshness::default(), with_decoded(config(1).cache.decoded_bytes));
    let (mut cold_talk, mut hot_talk) = (Talk::open(&cold).await, Talk::open(&hot).await);
    let wanted = in_all_forms(&mut cold_talk, 1, &keys).await;
    assert_eq!(in_all_forms(&mut hot_talk, 1, &keys).await, wanted);
    let filled = hot.running.metrics().hot_rows_filled.get();
    assert!(filled > 0);
    let before = hot.running.metrics().hot_rows_hits.get();
    assert_eq!(in_all_forms(&mut hot_talk, 11, &keys).await, wanted);
    assert!(hot.running.metrics().hot_rows_hits.get() > before);
    assert_eq!(hot.running.metrics().hot_rows_filled.get(), filled);
    assert_eq!(cold.running.metrics().hot_rows_hits.get(), 0);
    // Some of the keys are hot, some are not.
    let others = [1, 95, 2, 3, 150, 4];
    let wanted = in_all_forms(&mut cold_talk, 21, &others).await;
    assert_eq!(in_all_forms(&mut hot_talk, 21, &others).await, wanted);
}

#[tokio::test]
async fn the_second_ask_reads_no_page() {
    let served = serve_with(lake().await, Freshness::default(), config(1));
    let mut talk = Talk::open(&served).await;
    talk.prepare(1, ask("lake/users/a.parquet", &[])).await;
    talk.prepare(2, ask("lake/users/", &[])).await;
    let ask_all = async |talk: &mut Talk, id| {
        let mut answers = Vec::new();
        for handle in [1, 2] {
            talk.lookup(id, handle, &[42, 95, 250, 77_777]).await;
            answers.push(talk.answer(id).await);
        }
        answers
    };
    let first = ask_all(&mut talk, 1).await;
    let reads = || served.running.metrics().hot_rows_misses.get();
    let before = reads();
    let second = ask_all(&mut talk, 2).await;
    assert_eq!(reads(), before);
    assert!(second.iter().all(|answer| answer.source() == v1::Source::Memory), "{second:?}");
    let rows = |answers: &[v1::Answer]| answers.iter().map(|answer| rows_of_keys(answer, 4)).collect::<Vec<_>>();
    assert_eq!(rows(&first), rows(&second));
    // A key that was not asked is read.
    talk.rows(3, 1, &[43]).await;
    assert!(reads() > before);
}

#[tokio::test]
async fn a_new_version_is_seen_through_a_handle_by_the_freshness_of_its_mount() {
    let freshness = Freshness::Ttl { soft: Duration::from_millis(50), hard: Duration::from_millis(400) };
    for freshness in [freshness, Freshness::Always] {
        let store = Arc::new(InMemory::new());
        put(store.as_ref(), "a.parquet", file(0..100)).await;
        let served = serve_with(store.clone(), freshness, config(1));
        let mut talk = Talk::open(&served).await;
        talk.prepare(1, ask("lake/a.parquet", &[])).await;
        for id in 1..5 {
            assert_eq!(talk.rows(id, 1, &[42]).await, [[42]]);
        }
        put(store.as_ref(), "a.parquet", file(40..140)).await;
        let written = std::time::Instant::now();
        if freshness != Freshness::Always {
            // Either version, until the hard bound.
            while written.elapsed() < Duration::from_millis(400) {
                let rows = talk.rows(6, 1, &[42]).await;
                assert!(rows == [[42]] || rows == [[2]], "{rows:?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        for id in 7..10 {
            assert_eq!(talk.rows(id, 1, &[42]).await, [[2]], "{freshness:?}");
        }
        assert_eq!(talk.rows(10, 1, &[5]).await, [Vec::<u64>::new()]);
    }
}

#[tokio::test]
async fn a_file_that_is_added_below_a_prefix_is_seen_through_a_handle() {
    let store = Arc::new(InMemory::new());
    put(store.as_ref(), "t/a.parquet", file(0..100)).await;
    let freshness = Freshness::Ttl { soft: Duration::from_millis(20), hard: Duration::from_millis(200) };
    let served = serve_with(store.clone(), freshness, config(1));
    let mut talk = Talk::open(&served).await;
    talk.prepare(1, ask("lake/t/", &[])).await;
    for id in 1..5 {
        assert_eq!(talk.rows(id, 1, &[42]).await, [[42]]);
    }
    put(store.as_ref(), "t/b.parquet", file(40..50)).await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    for id in 7..10 {
        assert_eq!(talk.rows(id, 1, &[42]).await, [[42, 2]]);
    }
}

#[tokio::test]
async fn thousands_of_hot_lookups_at_once_are_each_answered() {
    let served = serve().await;
    let mut talk = Talk::open(&served).await;
    talk.prepare(1, ask("lake/users/a.parquet", &[])).await;
    let keys: Vec<i64> = (0..100).collect();
    assert_eq!(talk.rows(1, 1, &keys).await.len(), 100);
    let frames = talk.frames.clone();
    let asking = tokio::spawn(async move {
        for id in 2..5_002_u64 {
            let keys = ask("", &[(id % 100) as i64]).keys;
            let lookup = v1::PreparedLookup { handle: 1, keys, timeout_us: 0 };
            let frame = v1::LookupFrame { id, body: Some(lookup_frame::Body::Lookup(lookup)) };
            frames.send(frame).await.unwrap();
        }
    });
    for id in 2..5_002 {
        assert_eq!(rows_of_keys(&talk.answer(id).await, 1), [[id % 100]]);
    }
    asking.await.unwrap();
    eventually(|| served.running.metrics().lookups_total.get() == 5_001).await;
    assert_eq!(served.running.metrics().lookups_in_flight.get(), 0);
}

#[tokio::test]
async fn while_memory_is_short_what_is_hot_is_refused_too_and_answered_again_afterwards() {
    let served = serve_with(lake().await, Freshness::default(), config(1));
    let mut talk = Talk::open(&served).await;
    talk.prepare(1, ask("lake/users/a.parquet", &[])).await;
    for id in 1..4 {
        assert_eq!(talk.rows(id, 1, &[42]).await, [[42]]);
    }
    let with_limit = |limit_bytes| {
        let mut config = config(1);
        config.memory.limit_bytes = limit_bytes;
        served.running.reload(config).unwrap();
    };
    for (limit_bytes, is_refused) in [(1 << 20, true), (0, false)] {
        with_limit(limit_bytes);
        // The worker looks at its memory now and then.
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            assert!(tokio::time::Instant::now() < until, "it is never so: refused {is_refused}");
            talk.lookup(9, 1, &[42]).await;
            let frame = talk.reply().await;
            match frame.body.unwrap() {
                reply_frame::Body::Failure(failure) => {
                    assert_eq!(failure.detail.unwrap().reason(), Reason::Overloaded);
                    assert!(failure.message.contains("memory.limit"), "{}", failure.message);
                    if is_refused {
                        break;
                    }
                }
                reply_frame::Body::Answer(answer) => {
                    assert_eq!(rows_of_keys(&answer, 1), [[42]]);
                    if !is_refused {
                        break;
                    }
                }
                other => panic!("{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
