//! One connection to a worker and the lookup stream on it: many messages under way, answered in any order.
//!
//! Knows the way of a message from its caller to the stream and back. It must not know rings, paths or rows: it hands
//! answers out as they came, with their handles resolved. `outbound` makes the frames, `replies` reads those that come,
//! and `pending` knows who waits.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll};

use alcedo_proto::v1 as pb;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;

use crate::deadline::Deadline;
use crate::decode::Received;
use crate::ending::{CallError, End};
use crate::error::{Error, Kind, Reason};
use crate::handles::Handles;
use crate::health::Health;
use crate::lookup::Message;
use crate::outbound::Outbound;
use crate::parts::{Broken, MAX_ANSWER_BYTES, Parts};
use crate::pending::{MAX_PENDING, Pending, Reply};
use crate::replies;

/// Version of the wire contract from which on a worker knows prepared lookups.
const PREPARED_SINCE: u32 = 2;
/// What [`Link`] knows of its worker's version: nothing; that it was asked for; otherwise the version and this.
const UNKNOWN: u32 = 0;
const ASKED: u32 = 1;
const KNOWN: u32 = 2;

/// An open connection with its lookup stream. It lives as long as somebody holds it; then the stream is reset.
#[derive(Debug)]
pub(crate) struct Link {
    worker: Arc<str>,
    channel: Channel,
    stream: Arc<Stream>,
    reader: tokio::task::AbortHandle,
    protocol: AtomicU32,
}

/// What callers and the task that reads the stream share.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) outbound: Arc<Outbound>,
    pub(crate) health: Arc<Health>,
    /// Whether new calls may use the stream.
    pub(crate) usable: AtomicBool,
    pending: Mutex<Pending>,
    handles: RwLock<Handles>,
}

impl Stream {
    pub(crate) fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn handles(&self) -> std::sync::RwLockReadGuard<'_, Handles> {
        self.handles.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn handles_mut(&self) -> std::sync::RwLockWriteGuard<'_, Handles> {
        self.handles.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Opens the lookup stream on a connection. Replies are read by a task that ends with the stream or with this link.
    pub(crate) fn open(worker: Arc<str>, channel: Channel, health: Arc<Health>) -> Self {
        let stream = Arc::new(Stream {
            outbound: Arc::default(),
            health,
            usable: AtomicBool::new(true),
            pending: Mutex::default(),
            handles: RwLock::default(),
        });
        let reading = replies::read(Arc::clone(&worker), channel.clone(), Arc::clone(&stream));
        let reader = tokio::spawn(reading).abort_handle();
        Self { worker, channel, stream, reader, protocol: AtomicU32::new(UNKNOWN) }
    }

    /// Whether new calls may use it: the stream is open and not retired.
    pub(crate) fn is_usable(&self) -> bool {
        self.stream.usable.load(Ordering::Acquire)
    }

    /// Lets calls under way end, and takes no new ones.
    pub(crate) fn retire(&self) {
        self.stream.usable.store(false, Ordering::Release);
    }

    /// The connection, for unary and server-streaming calls.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// What version of the contract the worker at the other end speaks.
    pub(crate) fn note_protocol(&self, protocol: u32) {
        self.protocol.store(protocol.saturating_add(KNOWN), Ordering::Relaxed);
    }

    /// Whether the worker is known to know prepared lookups.
    pub(crate) fn knows_prepared(&self) -> bool {
        self.protocol.load(Ordering::Relaxed) >= PREPARED_SINCE + KNOWN
    }

    /// Whether somebody has to ask for the worker's version now; only one is told so.
    pub(crate) fn claim_asking(&self) -> bool {
        let protocol = &self.protocol;
        protocol.load(Ordering::Relaxed) == UNKNOWN
            && protocol.compare_exchange(UNKNOWN, ASKED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Sends one message and waits for its answer. Dropping the future cancels the message; that it takes too long is
    /// for the caller to see. `now` is the time at which it was called.
    pub(crate) async fn call(
        &self,
        message: &Message<'_>,
        deadline: Deadline,
        now: Instant,
    ) -> Result<Received, CallError> {
        let (_place, now) = match self.stream.outbound.places.try_acquire() {
            Ok(place) => (place, now),
            Err(_) => (Box::pin(self.place(deadline)).await?, Instant::now()),
        };
        let call = Call::register(self)?;
        let (outbound, timeout_us) = (&self.stream.outbound, deadline.timeout_us_at(now));
        match message.handle.filter(|_| self.knows_prepared()) {
            Some(handle) => {
                outbound.send_prepared(call.id, message.question, handle, message.keys.clone(), timeout_us);
            }
            None => {
                let request = message.question.request(message.keys.clone().into_vec());
                outbound.send(call.id, pb::LookupRequest { timeout_us, trace: message.trace, ..request });
            }
        }
        let (id, reply) = (call.id, call.await);
        self.received(id, reply)
    }

    async fn place(&self, deadline: Deadline) -> Result<SemaphorePermit<'_>, CallError> {
        let waiting = timeout_at(deadline.at(), self.stream.outbound.places.acquire()).await;
        let full = format_args!("{MAX_PENDING} lookups were under way to {}", self.worker);
        let place = waiting.map_err(|_| CallError::Silent(deadline.passed(full)))?;
        place.map_err(|_| CallError::NotAccepted("the connection was closed".to_owned()))
    }

    fn received(&self, id: u64, reply: Reply) -> Result<Received, CallError> {
        match reply {
            Reply::Answer(answer, parts) => self.whole(answer, parts),
            Reply::Share(share) => Ok(Received::Share { worker: Arc::clone(&self.worker), share }),
            Reply::Broken(broken) => {
                // The rest of it is of no use: the worker need not send it.
                self.stream.outbound.withdraw(id);
                Err(self.broken(broken))
            }
            Reply::Failure(failure) => Err(CallError::answered(Error::from_failure(failure))),
            Reply::Unreadable(what) => Err(Error::internal(format!("{} sent {what}", self.worker)).into()),
            Reply::Unknown => {
                let message = format!("{} sent a reply of a kind that this client does not know", self.worker);
                Err(Error::internal(message).into())
            }
            Reply::Ended(end) => Err(end.for_call(&self.worker)),
            Reply::Unsent(end) => Err(end.before(&self.worker)),
        }
    }

    fn whole(&self, answer: pb::Answer, parts: Option<Box<Parts>>) -> Result<Received, CallError> {
        let answer = match parts {
            // Most come in one piece.
            None if answer.parts == 0 => answer,
            parts => {
                let whole = parts.map(|parts| *parts).unwrap_or_default().end(answer);
                whole.map_err(|broken| self.broken(broken))?
            }
        };
        let named = self.stream.handles().resolve(&answer.files);
        let named = named
            .map_err(|what| Error::internal(format!("{} sent an answer that cannot be read: {what}", self.worker)))?;
        Ok(Received::Whole { worker: Arc::clone(&self.worker), answer, named })
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
        self.stream.outbound.close();
    }
}

/// One unanswered message. Dropping it takes it back: a reply that comes later is ignored.
struct Call<'a> {
    id: u64,
    stream: &'a Stream,
    is_over: bool,
}

impl<'a> Call<'a> {
    fn register(link: &'a Link) -> Result<Self, CallError> {
        let id = link.stream.pending().add().map_err(|end: End| end.before(&link.worker))?;
        Ok(Self { id, stream: &link.stream, is_over: false })
    }
}

impl Future for Call<'_> {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        let reply = self.stream.pending().poll(self.id, cx);
        self.is_over |= reply.is_ready();
        reply
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.stream.pending().remove(self.id) {
            self.stream.outbound.withdraw(self.id);
        }
    }
}
