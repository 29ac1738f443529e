//! A worker that behaves in one way until it is told another, and two of them in a ring.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alcedo_client::{Builder, Client};
use alcedo_cluster::Ring;
use alcedo_proto::v1 as pb;
use pb::{lookup_frame, reply_frame};

use crate::routing::cluster;
use crate::scripted::{PATIENCE, Server, echo, file, int_key};

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
    cancelled: Arc<AtomicUsize>,
}

impl Acting {
    pub(crate) fn new() -> Self {
        let mut server = Server::start();
        let mut sessions = server.take_sessions();
        let mode = Arc::new(Mutex::new(Mode::Answers));
        let (asked, cancelled) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let acting =
            Self { server, mode: Arc::clone(&mode), asked: Arc::clone(&asked), cancelled: Arc::clone(&cancelled) };
        tokio::spawn(async move {
            while let Some(mut session) = sessions.recv().await {
                let (mode, asked, cancelled) = (Arc::clone(&mode), Arc::clone(&asked), Arc::clone(&cancelled));
                tokio::spawn(async move {
                    session.announce(vec![file(1, "s3://lake/a", "v1")]).await;
                    while let Some(frame) = session.next_frame().await {
                        let Some(lookup_frame::Body::Request(request)) = frame.body else {
                            cancelled.fetch_add(1, Ordering::SeqCst);
                            continue;
                        };
                        asked.fetch_add(1, Ordering::SeqCst);
                        let mode = mode.lock().unwrap().clone();
                        match mode {
                            Mode::IgnoresKeys(keys) if keys.contains(&int_key(&request.keys[0])) => {}
                            Mode::Answers | Mode::IgnoresKeys(_) => session.answer(frame.id, echo(&request)).await,
                            Mode::Sends(bodies) => {
                                for body in bodies {
                                    session.reply(frame.id, body).await;
                                }
                            }
                            Mode::Fails(failure) => {
                                session.reply(frame.id, reply_frame::Body::Failure(failure)).await;
                            }
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

    pub(crate) fn cancelled(&self) -> usize {
        self.cancelled.load(Ordering::SeqCst)
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
