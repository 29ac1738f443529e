//! Layer 3: the worker as a client in this process sees it.
//!
//! Knows how a question comes in without a connection and how its answer goes back. It must not know how a lookup
//! works: the way is that of a stream's message, without frames. What is in memory is answered on the thread that asks;
//! everything else goes to a serving thread.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use alcedo_client::{Local, LocalAnswer, LocalFile, LocalLookup, LocalReply};
use alcedo_lookup::key::Key;
use alcedo_proto::v1::{self, AnswerForm};
use futures::FutureExt as _;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::handles::Handles;
use super::parts::Next;
use super::questions::Question;
use super::{Answered, Door, convert, failure};
use crate::connection::Accepted;
use crate::error::Error;
use crate::lookups::AtOnce;
use crate::turns;

/// Bytes under way in either direction of a connection inside the process; lookups take no connection.
const PIPE_BYTES: usize = 256 << 10;

/// A serving thread: where its work is put, and where its connections are.
type Thread = (Handle, mpsc::Sender<Accepted>);

/// What a client needs of this worker. It does not keep the worker alive.
pub(crate) fn local(door: &Arc<Door>, threads: Vec<Thread>) -> Local {
    let (name, door, threads): (_, _, Arc<[Thread]>) = (door.worker_id.clone(), Arc::downgrade(door), threads.into());
    let turn = Arc::new(AtomicUsize::new(0));
    let prepare = {
        let (threads, turn) = (Arc::clone(&threads), Arc::clone(&turn));
        move |request| prepare(&door, request, &threads, &turn)
    };
    let connect = move || {
        let hand = next(&threads, &turn).map(|(_, hand)| hand.clone());
        async move {
            let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
            let gone = || io::Error::new(io::ErrorKind::ConnectionRefused, "the worker in this process has ended");
            hand.ok_or_else(gone)?.send(Accepted::Inside(theirs)).await.map_err(|_| gone())?;
            Ok::<_, io::Error>(ours)
        }
        .boxed()
    };
    Local::new(&name, prepare, connect)
}

/// The serving thread whose turn it is.
fn next<'t>(threads: &'t [Thread], turn: &AtomicUsize) -> Option<&'t Thread> {
    threads.get(turn.fetch_add(1, Ordering::Relaxed) % threads.len().max(1))
}

/// A question, kept ready to be asked.
fn prepare(
    door: &Weak<Door>,
    mut request: v1::LookupRequest,
    threads: &Arc<[Thread]>,
    turn: &Arc<AtomicUsize>,
) -> LocalLookup {
    let (threads, turn, weak) = (Arc::clone(threads), Arc::clone(turn), Weak::clone(door));
    let gone = || LocalReply::Now(Err(failure::failure(&Error::Draining)));
    let Some(door) = door.upgrade() else { return Box::new(move |_: Vec<Key>, _: Duration| gone()) };
    let question = Question::new(&mut request, AnswerForm::CompactRows, &door.lookups);
    let handles = Mutex::default();
    drop(door);
    Box::new(move |keys: Vec<Key>, timeout: Duration| {
        let Some(door) = weak.upgrade() else { return gone() };
        if door.draining.borrow().is_some() {
            return gone();
        }
        if let Some(answer) = at_once(&door, &question, &keys, &handles) {
            return LocalReply::Now(answer.map_err(|error| failure::failure(&error)));
        }
        match next(&threads, &turn) {
            Some((runtime, _)) => later(runtime, door, question.clone(), keys, timeout),
            None => gone(),
        }
    })
}

/// An answer that needs no wait.
fn at_once(
    door: &Door,
    question: &Question,
    keys: &[Key],
    handles: &Mutex<Handles>,
) -> Option<Result<LocalAnswer, Error>> {
    let asked = question.at_once(AnswerForm::CompactRows)?;
    // It is the caller's thread, which has no sockets of ours to look at.
    turns::rested();
    let made = door.at_once(asked, |lookups, now| Some((lookups.answer_at_once(asked, keys, now)?, ())))?;
    Some(made.map(|(answer, ())| {
        door.metrics.lookups_total.up();
        door.metrics.hot_rows_hits.add(keys.len().saturating_sub(answer.read_keys) as u64);
        of_memory(answer, door.membership.epoch(), handles)
    }))
}

fn of_memory(at_once: AtOnce, ring_epoch: u64, handles: &Mutex<Handles>) -> LocalAnswer {
    let file = |file: &crate::lookups::FileAtOnce| LocalFile {
        url: Arc::clone(&file.target.version.stat.url),
        version: file.target.version.key.version().into(),
        schema: Arc::clone(file.target.prepared.schema()),
    };
    let files = at_once.files.iter().map(file).collect();
    let mut handles = handles.lock().unwrap_or_else(PoisonError::into_inner);
    let answer = convert::answer_at_once(at_once, ring_epoch, &mut handles);
    // Names travel with the answer, so nobody is told of handles.
    if handles.announce().is_some() && handles.is_full() {
        *handles = Handles::default();
    }
    LocalAnswer { files, answer }
}

/// An answer that a serving thread makes. Dropping the future ends the work.
fn later(runtime: &Handle, door: Arc<Door>, question: Question, keys: Vec<Key>, timeout: Duration) -> LocalReply {
    let task = Ended(runtime.spawn(async move {
        let deadline = door.admission.deadline(Some(timeout), None);
        let answered = Box::pin(door.lookup(question, Ok(keys), deadline)).await;
        answered.and_then(|answered| door.encoded(|| whole(answered, door.membership.epoch())))
    }));
    LocalReply::Later(
        async move {
            let mut task = task;
            match (&mut task.0).await {
                Ok(answer) => answer.map_err(|error| failure::failure(&error)),
                // The thread has ended.
                Err(_) => Err(failure::failure(&Error::Draining)),
            }
        }
        .boxed(),
    )
}

/// Work that nobody waits for any more is ended.
struct Ended(tokio::task::JoinHandle<Result<LocalAnswer, Error>>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The answer in one piece.
fn whole(answered: Answered, ring_epoch: u64) -> Result<LocalAnswer, Error> {
    let Answered { answer, cost, form } = answered;
    let file = |file: &crate::merge::FileRows| LocalFile {
        url: Arc::clone(&file.version.stat.url),
        version: file.version.key.version().into(),
        schema: Arc::clone(&file.answer.schema),
    };
    let files = answer.files.iter().map(file).collect();
    let mut parts = convert::answer(answer, &cost, form, ring_epoch, &mut Handles::default(), usize::MAX);
    match parts.next()? {
        Next::End(answer) => Ok(LocalAnswer { files, answer }),
        Next::Part(_) => Err(Error::Bug { subject: parts.subject(), what: "an answer in one piece has parts" }),
    }
}
