//! A worker that behaves in one way until it is told another, and two of them in a ring.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alcedo_client::{Builder, Client};
use alcedo_cluster::Ring;
use alcedo_proto::v1 as pb;
use pb::{lookup_frame, reply_frame};

use crate::routing::cluster;
use crate::scripted::{PATIENCE, Server, Session, echo, file, int_key};

/// What it does with a lookup.
#[derive(Clone)]
pub(crate) enum Mode {
    Answers,
    Fails(pb::Failure),
    /// These frames, whatever comes of them.
    Sends(Vec<reply_frame::Body>),
    /// To these keys it says nothing; to others it answers.
    IgnoresKeys(std::ops::Range<i64>),
}

pub(crate) struct Acting {
    pub(crate) server: Server,
    mode: Arc<Mutex<Mode>>,
    asked: Arc<AtomicUsize>,
    /// Of these, by a handle.
    by_handle: Arc<AtomicUsize>,
    cancelled: Arc<AtomicUsize>,
}

impl Acting {
    pub(crate) fn new() -> Self {
        let mut server = Server::start();
        let mut sessions = server.take_sessions();
        let mode = Arc::new(Mutex::new(Mode::Answers));
        let acting = Self { server, mode, asked: Arc::default(), by_handle: Arc::default(), cancelled: Arc::default() };
        let counts = (Arc::clone(&acting.asked), Arc::clone(&acting.by_handle), Arc::clone(&acting.cancelled));
        let mode = Arc::clone(&acting.mode);
        tokio::spawn(async move {
            while let Some(mut session) = sessions.recv().await {
                let (mode, (asked, by_handle, cancelled)) = (Arc::clone(&mode), counts.clone());
                tokio::spawn(async move {
                    let mut prepared = HashMap::new();
                    session.announce(vec![file(1, "s3://lake/a", "v1")]).await;
                    while let Some(frame) = session.next_frame().await {
                        for (id, request, is_by_handle) in requests(frame, &mut prepared) {
                            let Some(request) = request else {
                                cancelled.fetch_add(1, Ordering::SeqCst);
                                continue;
                            };
                            // Before it is counted: who sees the count and then changes the mode means later lookups.
                            let mode = mode.lock().unwrap().clone();
                            by_handle.fetch_add(usize::from(is_by_handle), Ordering::SeqCst);
                            asked.fetch_add(1, Ordering::SeqCst);
                            act(&session, mode, id, &request).await;
                        }
                    }
                });
            }
        });
        acting
    }

    pub(crate) fn is(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    pub(crate) fn is_silent(&self) {
        self.is(Mode::IgnoresKeys(i64::MIN..i64::MAX));
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn by_handle(&self) -> usize {
        self.by_handle.load(Ordering::SeqCst)
    }

    /// Says from now on that it speaks this version of the contract.
    pub(crate) fn speaks(&self, protocol: u32) {
        self.server.script.cluster.lock().unwrap().protocol = protocol;
    }

    pub(crate) fn cancelled(&self) -> usize {
        self.cancelled.load(Ordering::SeqCst)
    }
}

/// What a frame asks: id, request (none for a cancel), and whether it came by a handle.
fn requests(
    frame: pb::LookupFrame,
    prepared: &mut HashMap<u32, pb::LookupRequest>,
) -> Vec<(u64, Option<pb::LookupRequest>, bool)> {
    let by_handle = |handle, keys| pb::LookupRequest { keys, ..prepared[&handle].clone() };
    match frame.body.unwrap() {
        lookup_frame::Body::Request(request) => vec![(frame.id, Some(request), false)],
        lookup_frame::Body::Cancel(_) => vec![(frame.id, None, false)],
        lookup_frame::Body::Lookup(lookup) => vec![(frame.id, Some(by_handle(lookup.handle, lookup.keys)), true)],
        lookup_frame::Body::Batch(batch) => {
            let asked = batch.ids.into_iter().zip(batch.keys);
            asked.map(|(id, key)| (id, Some(by_handle(batch.handle, vec![key])), true)).collect()
        }
        lookup_frame::Body::Prepare(prepare) => {
            prepared.insert(prepare.handle, prepare.request.unwrap());
            Vec::new()
        }
    }
}

async fn act(session: &Session, mode: Mode, id: u64, request: &pb::LookupRequest) {
    match mode {
        Mode::IgnoresKeys(keys) if keys.contains(&int_key(&request.keys[0])) => {}
        Mode::Answers | Mode::IgnoresKeys(_) => session.answer(id, echo(request)).await,
        Mode::Sends(bodies) => {
            for body in bodies {
                session.reply(id, body).await;
            }
        }
        Mode::Fails(failure) => session.reply(id, reply_frame::Body::Failure(failure)).await,
    }
}

/// A failure with this code and reason.
pub(crate) fn failure(code: tonic::Code, reason: pb::Reason, retry_after: Duration) -> Mode {
    let retry_after_ms = retry_after.as_millis() as u64;
    let detail = pb::ErrorDetail { reason: reason.into(), retry_after_ms, ..Default::default() };
    Mode::Fails(pb::Failure { code: code.into(), message: "as told".into(), detail: Some(detail) })
}

/// Two workers in a ring.
pub(crate) struct Pair {
    pub(crate) owner: Acting,
    pub(crate) replica: Acting,
    /// A file that the first one owns.
    pub(crate) url: String,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let (owner, replica) = (Acting::new(), Acting::new());
        let ring = in_a_ring(&[&owner, &replica]);
        let urls = (0..1_000).map(|number| format!("s3://bucket/{number}"));
        let url = urls.into_iter().find(|url| ring.owners(url).next().unwrap().id() == "w-0").unwrap();
        Self { owner, replica, url }
    }

    pub(crate) fn builder(&self) -> Builder {
        Client::builder().endpoints([&self.replica.server.address]).deadline(PATIENCE)
    }
}

/// Makes all of them tell one ring, in which they are `w-0`, `w-1`, and so on.
pub(crate) fn in_a_ring(workers: &[&Acting]) -> Ring {
    let names: Vec<String> = (0..workers.len()).map(|number| format!("w-{number}")).collect();
    let listed = names.iter().zip(workers).map(|(name, worker)| (name.as_str(), worker.server.address.as_str()));
    let (view, ring) = cluster(&listed.collect::<Vec<_>>(), &[]);
    for worker in workers {
        *worker.server.script.cluster.lock().unwrap() = view.clone();
    }
    ring
}
