//! One connection to a worker and the lookup stream on it: many messages under way, answered in any order.
//!
//! Knows frames, ids and what the end of a stream means. It must not know rings, paths or rows: it hands answers out as
//! they came, with their handles resolved.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use alcedo_proto::v1 as pb;
use pb::lookup_service_client::LookupServiceClient;
use pb::{lookup_frame, reply_frame};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout_at;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::deadline::Deadline;
use crate::decode::Received;
use crate::error::{Error, Kind, Reason};
use crate::handles::{Handles, MAX_HANDLES, RETIRE_HANDLES};
use crate::health::Health;
use crate::parts::{Broken, MAX_ANSWER_BYTES, Parts};

/// Most unanswered messages on one stream; further calls wait for a place within their deadline. Four times the
/// outstanding work at which a stream reaches its best rate, with room for slow origins.
pub(crate) const MAX_PENDING: usize = 1_024;
/// Frames that wait to be written, cancels included.
const OUTBOUND_FRAMES: usize = 256;
/// Largest message that is read: the largest answer (64 MiB of rows and the numbers of a million of them) of a worker
/// that does not send parts would not fit into tonic's default of 4 MiB.
pub(crate) const MAX_REPLY_BYTES: usize = 96 << 20;

/// What is said of a worker that ends its stream between two messages.
const DRAINING: &str = "the worker is draining";

/// Why a call to one worker gave no answer.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The worker never accepted the call, for this reason: another one may be asked at no cost.
    NotAccepted(String),
    /// The connection broke in the middle, and whether the worker had accepted the call is not known; or the answer
    /// broke in the middle.
    Lost(Error),
    /// No answer came by the deadline.
    Silent(Error),
    /// The worker answered with an error, or with something that cannot be read.
    Failed(Error),
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl CallError {
    /// A worker's own answer: one that drains refuses what it has not accepted.
    pub(crate) fn answered(error: Error) -> Self {
        match error.reason {
            Some(Reason::Draining) if error.kind == Kind::Unavailable => Self::NotAccepted(error.message),
            _ => Self::Failed(error),
        }
    }
}

/// An open connection with its lookup stream. It lives as long as somebody holds it; then the stream is reset.
#[derive(Debug)]
pub(crate) struct Link {
    worker: Arc<str>,
    channel: Channel,
    outbound: mpsc::Sender<pb::LookupFrame>,
    next_id: AtomicU64,
    slots: Semaphore,
    stream: Arc<Stream>,
    reader: tokio::task::AbortHandle,
}

/// What callers and the task that reads the stream share.
#[derive(Debug)]
struct Stream {
    pending: Mutex<Pending>,
    handles: RwLock<Handles>,
    /// Whether new calls may use the stream.
    usable: AtomicBool,
    health: Arc<Health>,
}

#[derive(Debug, Default)]
struct Pending {
    waiting: HashMap<u64, Waiting>,
    /// Set when the stream has ended; nothing can be added then.
    end: Option<End>,
}

/// An unanswered message, and what has come of its answer.
#[derive(Debug)]
struct Waiting {
    sender: oneshot::Sender<Reply>,
    parts: Option<Box<Parts>>,
}

#[derive(Debug)]
enum Reply {
    Answer(pb::Answer, Option<Box<Parts>>),
    /// A part of the answer makes the rest useless.
    Broken(Broken),
    Failure(pb::Failure),
    Unknown,
    Ended(End),
}

/// How a stream ended.
#[derive(Debug, Clone)]
enum End {
    /// The server did not accept what it has not answered: it drains, or it did not open the stream.
    NotAccepted(String),
    /// The server refused the stream itself, for a reason that concerns the caller.
    Refused(Box<Error>),
    /// In the middle: whether the unanswered calls were accepted is not known.
    Broken(String),
}

impl End {
    fn for_call(self, worker: &str) -> CallError {
        match self {
            Self::NotAccepted(why) => CallError::NotAccepted(why),
            Self::Refused(error) => CallError::Failed(*error),
            Self::Broken(cause) => {
                let message = format!(
                    "the connection to {worker} broke ({cause}); \
                     whether the worker had accepted the lookup is not known"
                );
                CallError::Lost(Error::new(Kind::Unavailable, message))
            }
        }
    }

    /// For a call that was not sent yet.
    fn before(self, worker: &str) -> CallError {
        match self {
            Self::Broken(cause) => CallError::NotAccepted(format!("the connection broke: {cause}")),
            end => end.for_call(worker),
        }
    }
}

impl Link {
    /// Opens the lookup stream on a connection. Replies are read by a task that ends with the stream or with this link.
    pub(crate) fn open(worker: Arc<str>, channel: Channel, health: Arc<Health>) -> Self {
        let (outbound, frames) = mpsc::channel(OUTBOUND_FRAMES);
        let (pending, handles) = (Mutex::default(), RwLock::default());
        let stream = Arc::new(Stream { pending, handles, usable: AtomicBool::new(true), health });
        let ending =
            Ending { stream: Arc::clone(&stream), end: End::Broken("the runtime of the connection ended".to_owned()) };
        let reader = tokio::spawn(read(Arc::clone(&worker), channel.clone(), frames, ending)).abort_handle();
        let slots = Semaphore::new(MAX_PENDING);
        Self { worker, channel, outbound, next_id: AtomicU64::new(1), slots, stream, reader }
    }

    /// Whether new calls may use it: the stream is open and not retired.
    pub(crate) fn is_usable(&self) -> bool {
        self.stream.usable.load(Ordering::Acquire)
    }

    /// The connection, for unary and server-streaming calls.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Sends one message and waits for its answer. Dropping the future cancels the message.
    pub(crate) async fn call(&self, mut request: pb::LookupRequest, deadline: Deadline) -> Result<Received, CallError> {
        let full = || {
            CallError::Silent(deadline.passed(format_args!("{MAX_PENDING} lookups were under way to {}", self.worker)))
        };
        let slot = timeout_at(deadline.at(), self.slots.acquire()).await.map_err(|_| full())?;
        let _slot = slot.map_err(|_| CallError::NotAccepted("the connection was closed".to_owned()))?;
        let stuck = || CallError::Silent(deadline.passed(format_args!("{} did not read what was sent", self.worker)));
        let outbound = timeout_at(deadline.at(), self.outbound.reserve()).await.map_err(|_| stuck())?;
        let outbound = outbound.map_err(|_| self.stream.ended().before(&self.worker))?;

        let mut call = Call::register(self)?;
        request.timeout_us = deadline.timeout_us();
        request.accept_parts = true;
        outbound.send(pb::LookupFrame { id: call.id, body: Some(lookup_frame::Body::Request(request)) });
        let reply = match timeout_at(deadline.give_up_at(), &mut call.reply).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => Reply::Ended(self.stream.ended()),
            Err(_) => return Err(CallError::Silent(deadline.passed(format_args!("waiting for {}", self.worker)))),
        };
        match reply {
            Reply::Answer(answer, parts) => {
                let answer = parts.map(|parts| *parts).unwrap_or_default().end(answer);
                let answer = answer.map_err(|broken| self.broken(broken))?;
                let named = self.stream.handles().resolve(&answer.files);
                let named = named.map_err(|what| {
                    Error::internal(format!("{} sent an answer that cannot be read: {what}", self.worker))
                })?;
                Ok(Received { worker: Arc::clone(&self.worker), answer, named })
            }
            Reply::Broken(broken) => {
                // The rest of it is of no use: the worker need not send it.
                call.cancel();
                Err(self.broken(broken))
            }
            Reply::Failure(failure) => Err(CallError::answered(Error::from_failure(failure))),
            Reply::Unknown => {
                let message = format!("{} sent a reply of a kind that this client does not know", self.worker);
                Err(Error::internal(message).into())
            }
            Reply::Ended(end) => Err(end.for_call(&self.worker)),
        }
    }

    fn broken(&self, broken: Broken) -> CallError {
        match broken {
            Broken::TooLarge => {
                let message = format!(
                    "the answer of {} has more than {MAX_ANSWER_BYTES} bytes, the most that this client takes: \
                     set a row limit, or ask for fewer keys or columns",
                    self.worker
                );
                CallError::Failed(Error::new(Kind::Invalid, message).with_reason(Reason::AnswerTooLarge))
            }
            // Another worker may do better.
            Broken::Message(what) => {
                let message = format!("{} sent a large answer that cannot be put together: {what}", self.worker);
                CallError::Lost(Error::internal(message))
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// One unanswered message. Dropping it takes it back: a reply that comes later is ignored.
struct Call<'a> {
    id: u64,
    reply: oneshot::Receiver<Reply>,
    link: &'a Link,
}

impl<'a> Call<'a> {
    fn register(link: &'a Link) -> Result<Self, CallError> {
        let id = link.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, reply) = oneshot::channel();
        let mut pending = link.stream.pending();
        if let Some(end) = &pending.end {
            return Err(end.clone().before(&link.worker));
        }
        pending.waiting.insert(id, Waiting { sender, parts: None });
        Ok(Self { id, reply, link })
    }

    /// Tells the worker to stop. It saves the worker's time, no more: where the queue is full it may be left out.
    fn cancel(&self) {
        let cancel = lookup_frame::Body::Cancel(pb::Cancel {});
        let _ = self.link.outbound.try_send(pb::LookupFrame { id: self.id, body: Some(cancel) });
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        // The reader takes the entry when the reply comes; what is still there was given up.
        if self.link.stream.pending().waiting.remove(&self.id).is_some() {
            self.cancel();
        }
    }
}

impl Stream {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handles(&self) -> std::sync::RwLockReadGuard<'_, Handles> {
        self.handles.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> End {
        self.pending().end.clone().unwrap_or_else(|| End::Broken("the stream was closed".to_owned()))
    }

    /// Takes one frame off the wire.
    fn take(&self, frame: pb::ReplyFrame) -> Result<(), String> {
        self.health.hear();
        let reply = match frame.body {
            Some(reply_frame::Body::Announce(announce)) => return self.announce(announce),
            Some(reply_frame::Body::Part(part)) => {
                self.gather(frame.id, part);
                return Ok(());
            }
            Some(reply_frame::Body::Answer(answer)) => Reply::Answer(answer, None),
            Some(reply_frame::Body::Failure(failure)) => Reply::Failure(failure),
            Some(reply_frame::Body::Batch(_)) | None => Reply::Unknown,
        };
        // No entry: the call was given up, and this is its late reply.
        if let Some(Waiting { sender, parts }) = self.pending().waiting.remove(&frame.id) {
            let _ = sender.send(match reply {
                Reply::Answer(answer, _) => Reply::Answer(answer, parts),
                reply => reply,
            });
        }
        Ok(())
    }

    /// Keeps a part until its answer ends. Who asked puts the parts together: the one task that reads the stream has
    /// no time for that.
    fn gather(&self, id: u64, part: pb::AnswerPart) {
        let mut pending = self.pending();
        let Entry::Occupied(mut waiting) = pending.waiting.entry(id) else { return };
        if let Err(broken) = waiting.get_mut().parts.get_or_insert_default().add(part) {
            let _ = waiting.remove().sender.send(Reply::Broken(broken));
        }
    }

    fn announce(&self, announce: pb::Announce) -> Result<(), String> {
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        handles.announce(announce);
        if handles.len() >= RETIRE_HANDLES {
            self.usable.store(false, Ordering::Release);
        }
        if handles.len() > MAX_HANDLES {
            return Err(format!("it announced more than {MAX_HANDLES} handles"));
        }
        Ok(())
    }
}

/// Ends the stream's calls when the reader stops for whatever reason, the end of its runtime included.
struct Ending {
    stream: Arc<Stream>,
    end: End,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.stream.usable.store(false, Ordering::Release);
        let waiting = {
            let mut pending = self.stream.pending();
            pending.end = Some(self.end.clone());
            std::mem::take(&mut pending.waiting)
        };
        for waiting in waiting.into_values() {
            let _ = waiting.sender.send(Reply::Ended(self.end.clone()));
        }
    }
}

/// Reads the stream to its end.
async fn read(worker: Arc<str>, channel: Channel, frames: mpsc::Receiver<pb::LookupFrame>, mut ending: Ending) {
    let mut client = LookupServiceClient::new(channel).max_decoding_message_size(MAX_REPLY_BYTES);
    ending.end = match client.lookup_stream(ReceiverStream::new(frames)).await {
        Ok(replies) => loop_over(&worker, replies.into_inner(), &ending.stream).await,
        Err(status) => match end_of(&worker, &status) {
            End::Refused(error) if error.kind == Kind::Unavailable => End::NotAccepted(error.message),
            end => end,
        },
    };
    tracing::debug!(%worker, end = ?ending.end, "lookup stream ended");
}

async fn loop_over(worker: &str, mut replies: tonic::Streaming<pb::ReplyFrame>, stream: &Stream) -> End {
    loop {
        match replies.message().await {
            Ok(Some(frame)) => {
                if let Err(what) = stream.take(frame) {
                    return End::Broken(what);
                }
            }
            // The server ends a stream between two messages only when it drains.
            Ok(None) => return End::NotAccepted(DRAINING.to_owned()),
            Err(status) => return end_of(worker, &status),
        }
    }
}

/// What a status at the end of the stream says about the unanswered calls.
fn end_of(worker: &str, status: &tonic::Status) -> End {
    use std::error::Error as _;
    if status.source().is_some() {
        return End::Broken(crate::error::cause(status));
    }
    let error = Error::from_status(worker, status);
    match error.reason {
        Some(Reason::Draining) => End::NotAccepted(DRAINING.to_owned()),
        _ => End::Refused(Box::new(error)),
    }
}
