//! One connection to a worker and the lookup stream on it: many messages under way, answered in any order.
//!
//! Knows the way of a message from its caller to the stream and back, and that the stream may move to a connection of
//! frames. It must not know rings, paths or rows: it hands answers out as they came, with their handles resolved.
//! `outbound` makes the frames, `replies` and `lane` read those that come, and `pending` knows who waits.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::task::{Context, Poll};

use alcedo_proto::framing;
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
use crate::lane::Lane;
use crate::lookup::Message;
use crate::outbound::Outbound;
use crate::parts::{Broken, MAX_ANSWER_BYTES, Parts};
use crate::pending::{MAX_PENDING, Pending, Reply};
use crate::replies;
use crate::wire::Place;

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
    is_retired: AtomicBool,
    /// Where a connection of frames can be opened, if anywhere.
    place: Option<Place>,
    /// The connection of frames. Lookups use it from the moment that it is there, and the link ends with it.
    lane: OnceLock<Lane>,
    /// Somebody opens it, or has done so.
    is_lane_claimed: AtomicBool,
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
    /// A stream on which nothing is under way.
    pub(crate) fn new(outbound: Outbound, health: Arc<Health>) -> Self {
        Self {
            outbound: Arc::new(outbound),
            health,
            usable: AtomicBool::new(true),
            pending: Mutex::default(),
            handles: RwLock::default(),
        }
    }

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
    /// `place` is where the same worker takes connections of frames, if anywhere.
    pub(crate) fn open(worker: Arc<str>, channel: Channel, place: Option<Place>, health: Arc<Health>) -> Self {
        let stream = Arc::new(Stream::new(Outbound::default(), health));
        let reading = replies::read(Arc::clone(&worker), channel.clone(), Arc::clone(&stream));
        let reader = tokio::spawn(reading).abort_handle();
        Self {
            worker,
            channel,
            stream,
            reader,
            protocol: AtomicU32::new(UNKNOWN),
            is_retired: AtomicBool::new(false),
            place,
            lane: OnceLock::new(),
            is_lane_claimed: AtomicBool::new(false),
        }
    }

    /// Whether new calls may use it: the stream that they would use is open, and the link not retired.
    pub(crate) fn is_usable(&self) -> bool {
        !self.is_retired.load(Ordering::Acquire) && self.current().usable.load(Ordering::Acquire)
    }

    /// Lets calls under way end, and takes no new ones.
    pub(crate) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    /// The stream of new lookups.
    fn current(&self) -> &Stream {
        self.lane.get().map_or(&self.stream, Lane::stream)
    }

    /// Whether somebody has to open a connection of frames now, and where; only one is told so. `may` is asked when
    /// everything else speaks for it.
    pub(crate) fn claim_lane(&self, may: impl FnOnce() -> bool) -> Option<&Place> {
        let claimed = &self.is_lane_claimed;
        let place = self.place.as_ref().filter(|_| self.lane.get().is_none() && !claimed.load(Ordering::Relaxed))?;
        let speaks = self.protocol.load(Ordering::Relaxed) >= framing::SINCE_PROTOCOL + KNOWN;
        let is_wanted = speaks && !self.is_retired.load(Ordering::Relaxed) && may();
        (is_wanted && !claimed.swap(true, Ordering::Relaxed)).then_some(place)
    }

    /// Takes the connection of frames over; without one, another may be opened later.
    pub(crate) fn set_lane(&self, lane: Option<Lane>) {
        match lane {
            // There is one only for who has claimed it.
            Some(lane) => drop(self.lane.set(lane)),
            // Where there is one by now, nobody is told to open another.
            None => self.is_lane_claimed.store(false, Ordering::Relaxed),
        }
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

    /// Whoever asked for the worker's version is done. If nobody has heard it, somebody may ask again.
    pub(crate) fn ask_again(&self) {
        let _ = self.protocol.compare_exchange(ASKED, UNKNOWN, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Sends one message and waits for its answer. Dropping the future cancels the message; that it takes too long is
    /// for the caller to see. `now` is the time at which it was called.
    pub(crate) async fn call(
        &self,
        message: &Message<'_>,
        deadline: Deadline,
        now: Instant,
    ) -> Result<Received, CallError> {
        let stream = self.current();
        let (_place, now) = match stream.outbound.places.try_acquire() {
            Ok(place) => (place, now),
            Err(_) => (Box::pin(self.place(stream, deadline)).await?, Instant::now()),
        };
        let call = Call::register(stream, &self.worker)?;
        let (outbound, timeout_us) = (&stream.outbound, deadline.timeout_us_at(now));
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
        self.received(stream, id, reply)
    }

    async fn place<'s>(&self, stream: &'s Stream, deadline: Deadline) -> Result<SemaphorePermit<'s>, CallError> {
        let waiting = timeout_at(deadline.at(), stream.outbound.places.acquire()).await;
        let full = format_args!("{MAX_PENDING} lookups were under way to {}", self.worker);
        let place = waiting.map_err(|_| CallError::Silent(deadline.passed(full)))?;
        place.map_err(|_| CallError::Unsent("the connection was closed".to_owned()))
    }

    fn received(&self, stream: &Stream, id: u64, reply: Reply) -> Result<Received, CallError> {
        match reply {
            Reply::Answer(answer, parts) => self.whole(stream, answer, parts),
            Reply::Share(share) => Ok(Received::Share { worker: Arc::clone(&self.worker), share }),
            Reply::Broken(broken) => {
                // The rest of it is of no use: the worker need not send it.
                stream.outbound.withdraw(id);
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

    fn whole(&self, stream: &Stream, answer: pb::Answer, parts: Option<Box<Parts>>) -> Result<Received, CallError> {
        let answer = match parts {
            // Most come in one piece.
            None if answer.parts == 0 => answer,
            parts => {
                let whole = parts.map(|parts| *parts).unwrap_or_default().end(answer);
                whole.map_err(|broken| self.broken(broken))?
            }
        };
        let named = stream.handles().resolve(&answer.files);
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
    fn register(stream: &'a Stream, worker: &str) -> Result<Self, CallError> {
        let id = stream.pending().add().map_err(|end: End| end.before(worker))?;
        Ok(Self { id, stream, is_over: false })
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_opens_a_connection_of_frames_at_a_time_and_where_there_was_none_another_later() {
        let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let link = Link::open("w".into(), channel, Some(Place::Unix("/nowhere".into())), Arc::default());
        link.note_protocol(framing::SINCE_PROTOCOL - 1);
        assert!(link.claim_lane(|| true).is_none(), "it speaks none");
        link.note_protocol(framing::SINCE_PROTOCOL);
        assert!(link.claim_lane(|| false).is_none(), "not now");
        for _ in 0..2 {
            assert!(link.claim_lane(|| true).is_some());
            assert!(link.claim_lane(|| true).is_none(), "somebody opens it");
            link.set_lane(None);
        }
        link.retire();
        assert!(link.claim_lane(|| true).is_none());
    }

    #[tokio::test]
    async fn one_asks_what_the_worker_speaks_and_another_when_it_did_not_say() {
        let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let link = Link::open("w".into(), channel, None, Arc::default());
        for _ in 0..2 {
            assert!(link.claim_asking() && !link.claim_asking());
            link.ask_again();
        }
        assert!(link.claim_asking());
        link.note_protocol(PREPARED_SINCE);
        link.ask_again();
        assert!(link.knows_prepared() && !link.claim_asking());
    }
}
