//! Layer 3: one lookup stream.
//!
//! Knows frames, ids and the order of replies. It must not know how a lookup works. One task serves a stream: it reads
//! frames, runs all requests of the stream at once, and writes replies in the order they are ready. When the client
//! goes away the task ends, and all requests of the stream with it.
//!
//! A client that does not read costs a bounded amount: replies wait in a short channel and then in a queue here; while
//! the queue is full no frame is read, but requests under way go on to their end, so that they hold no permits
//! meanwhile.
//!
//! Large answers go out in parts, one of each in turn, and a part only when nothing else waits. They share the stream
//! with the small ones instead of having one of their own: a part is as long as a small answer may wait, handles are
//! announced in one place, and a request's frames have one order.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use alcedo_proto::v1::{self, AnswerForm, lookup_frame, reply_frame};
use futures::StreamExt as _;
use futures::future::OptionFuture;
use futures::future::{AbortHandle, Abortable, BoxFuture};
use futures::stream::FuturesUnordered;
use prost::Message as _;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep_until};
use tonic::{Status, Streaming};

use super::handles::Handles;
use super::parts::{Next, PART_BYTES, Parts};
use super::{Answered, Door, convert, failure};
use crate::admission::Deadline;
use crate::connection::Line;
use crate::error::Error;

/// Replies on their way to the connection. It only evens out the two tasks' turns, so it is short.
pub(super) const QUEUED_REPLIES: usize = 16;
/// Bytes of replies that wait for the client to read; beyond it no new request is taken.
const MAX_WAITING_BYTES: usize = 8 << 20;
/// The same of answers that go out in parts: two of the largest (lookup.answer_bytes as it comes), so that one alone
/// does not keep others from being asked.
const MAX_CUT_BYTES: usize = 128 << 20;
/// An answer is given up if the client has left so many bytes of others unread: eight of the largest.
const MAX_UNREAD_BYTES: usize = 512 << 20;
/// Advice to a client whose answer was given up: about what MAX_CUT_BYTES take on a line of 10 Gbit/s.
const UNREAD_RETRY_AFTER: Duration = Duration::from_millis(100);
/// Replies in a row after which a part has its turn, so that a stream of small answers does not stop a large one.
const REPLIES_PER_PART: usize = 16;

type Reply = Result<v1::ReplyFrame, Status>;

/// A request that came to its end.
struct Done {
    id: u64,
    deadline: Deadline,
    accepts_parts: bool,
    outcome: Result<Answered, Error>,
}

/// An answer that goes out in parts.
struct Cut {
    id: u64,
    deadline: Deadline,
    /// The part that is next.
    next: v1::AnswerPart,
    parts: Parts,
    /// So many replies go before: what they announce is used in the parts.
    after: u64,
}

/// Which queue is to move.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Nobody,
    Reply,
    Part,
}

/// What one stream has under way.
struct Stream {
    door: Arc<Door>,
    /// Unanswered requests by id.
    unanswered: HashMap<u64, AbortHandle>,
    under_way: FuturesUnordered<BoxFuture<'static, Done>>,
    handles: Handles,
    /// Replies that the channel has had no room for, and their bytes.
    waiting: VecDeque<v1::ReplyFrame>,
    waiting_bytes: usize,
    /// Replies that have left `waiting`, and how many of them since the last part.
    sent: u64,
    in_a_row: usize,
    /// Answers that go out in parts, and their bytes.
    cut: VecDeque<Cut>,
    cut_bytes: usize,
    /// Since when the client has read none of them.
    moved: Instant,
    /// Most unanswered requests, as configured when the stream began.
    most_unanswered: usize,
    /// No more requests are taken: the client said its last word, the worker drains, the
    /// connection is old, or the handles are used up.
    closing: bool,
}

/// Serves a stream to its end.
///
/// `line` is the connection; none where the caller is in this process.
pub(super) async fn serve(
    door: Arc<Door>,
    line: Option<Line>,
    mut frames: Streaming<v1::LookupFrame>,
    replies: Sender<Reply>,
) {
    let mut draining = door.draining.clone();
    let stalled = line.as_ref().map(|line| line.stalled);
    let mut aged = pin!(OptionFuture::from(line.as_ref().map(|line| sleep_until(line.ends))));
    let most_unanswered = door.settings().connections.unanswered;
    let mut stream = Stream {
        door,
        unanswered: HashMap::new(),
        under_way: FuturesUnordered::new(),
        handles: Handles::default(),
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        sent: 0,
        in_a_row: 0,
        cut: VecDeque::new(),
        cut_bytes: 0,
        moved: Instant::now(),
        most_unanswered,
        closing: false,
    };
    let broken = loop {
        let (moved, turn) = (stream.moved, stream.turn());
        if stream.closing && stream.under_way.is_empty() && turn == Turn::Nobody {
            return;
        }
        tokio::select! {
            biased;
            () = replies.closed() => return,
            room = replies.reserve(), if turn == Turn::Reply => {
                let (Ok(room), Some(reply)) = (room, stream.next_reply()) else { return };
                room.send(Ok(reply));
                stream.moved = Instant::now();
            }
            // Only when the channel is empty: a reply that comes next then waits for one part at most.
            room = replies.reserve_many(QUEUED_REPLIES), if turn == Turn::Part => {
                let (Ok(mut room), Some(part)) = (room, stream.next_part()) else { return };
                if let Some(place) = room.next() {
                    place.send(Ok(part));
                }
                stream.moved = Instant::now();
            }
            Some(done) = stream.under_way.next(), if !stream.under_way.is_empty() => stream.finish(done),
            // An error means that the worker's own handle is gone, which ends the process.
            _ = draining.wait_for(Option::is_some), if !stream.closing => stream.closing = true,
            Some(()) = &mut aged, if !stream.closing => stream.closing = true,
            () = unread_since(moved, stalled), if turn != Turn::Nobody => {
                // Nothing else frees what waits inside the connection: its client has closed the window.
                stream.door.metrics.connections_stalled_total.up();
                line.as_ref().inspect(|line| line.cut());
                return;
            }
            frame = frames.message(), if stream.takes_requests() => match frame {
                Ok(Some(frame)) => stream.take(frame),
                Ok(None) => stream.closing = true,
                Err(status) => break status,
            },
        }
    };
    // The stream cannot be read any further, so there is nobody to answer but with this. It is refused when the client
    // has gone, which ends the task as well.
    let _ = replies.send(Err(broken)).await;
}

/// Ready once the client has read nothing for too long.
async fn unread_since(moved: Instant, stalled: Option<Duration>) {
    match stalled {
        Some(stalled) => sleep_until(moved + stalled).await,
        None => std::future::pending().await,
    }
}

impl Stream {
    fn takes_requests(&self) -> bool {
        !self.closing
            && self.unanswered.len() < self.most_unanswered
            && self.waiting.len() < self.most_unanswered
            && self.waiting_bytes < MAX_WAITING_BYTES
            && self.cut_bytes < MAX_CUT_BYTES
    }

    fn turn(&self) -> Turn {
        let part_may = self.cut.front().is_some_and(|cut| cut.after <= self.sent);
        match (self.waiting.is_empty(), part_may) {
            (true, false) => Turn::Nobody,
            (true, true) => Turn::Part,
            (false, true) if self.in_a_row >= REPLIES_PER_PART => Turn::Part,
            (false, _) => Turn::Reply,
        }
    }

    fn take(&mut self, frame: v1::LookupFrame) {
        let id = frame.id;
        match frame.body {
            Some(lookup_frame::Body::Request(request)) => self.begin(id, request),
            Some(lookup_frame::Body::Cancel(v1::Cancel {})) => self.cancel(id),
            Some(
                lookup_frame::Body::Prepare(_) | lookup_frame::Body::Lookup(_) | lookup_frame::Body::Batch(_),
            ) => self.refuse(id, &Error::BadRequest("prepared lookups are not served".to_owned())),
            None => self.refuse(id, &Error::BadRequest("the frame holds neither a request nor a cancel".to_owned())),
        }
    }

    fn begin(&mut self, id: u64, request: v1::LookupRequest) {
        let (handle, registration) = AbortHandle::new_pair();
        match self.unanswered.entry(id) {
            Entry::Occupied(_) => {
                let why = format!("the id {id} is in use by an unanswered request of this stream");
                self.refuse(id, &Error::BadRequest(why));
            }
            Entry::Vacant(free) => {
                free.insert(handle);
                let door = Arc::clone(&self.door);
                let deadline = door.admission.deadline(convert::timeout(request.timeout_us), None);
                let accepts_parts = request.accept_parts;
                let work = async move { door.lookup(request, AnswerForm::CompactRows, deadline).await };
                let work = Abortable::new(work, registration);
                self.under_way.push(Box::pin(async move {
                    let outcome = work.await.unwrap_or(Err(Error::Cancelled));
                    Done { id, deadline, accepts_parts, outcome }
                }));
            }
        }
    }

    fn cancel(&mut self, id: u64) {
        match self.cut.iter().position(|cut| cut.id == id) {
            Some(at) => {
                if let Some(cut) = self.cut.remove(at) {
                    self.over(&cut);
                }
                self.refuse(id, &Error::Cancelled);
            }
            // A request that is not under way was answered already.
            None => {
                self.unanswered.get(&id).inspect(|request| request.abort());
            }
        }
    }

    fn finish(&mut self, done: Done) {
        let Done { id, deadline, accepts_parts, outcome } = done;
        let door = Arc::clone(&self.door);
        let first = outcome.and_then(|answered| door.encoded(|| self.first_frame(answered, accepts_parts)));
        // What announces the handles goes out first, whatever comes of the answer.
        if let Some(announce) = self.handles.announce() {
            self.reply(0, reply_frame::Body::Announce(announce));
        }
        match first {
            Ok((Next::Part(next), parts)) => {
                self.start_moving();
                self.cut_bytes += parts.held_bytes();
                let after = self.sent + self.waiting.len() as u64;
                self.cut.push_back(Cut { id, deadline, next, parts, after });
            }
            Ok((Next::End(answer), _)) => {
                self.unanswered.remove(&id);
                self.reply(id, reply_frame::Body::Answer(answer));
            }
            Err(error) => {
                self.unanswered.remove(&id);
                self.refuse(id, &error);
            }
        }
        // At a message boundary: what is under way is still answered, and the client opens a new stream.
        self.closing |= self.handles.is_full();
    }

    fn first_frame(&mut self, answered: Answered, accepts_parts: bool) -> Result<(Next, Parts), Error> {
        let (epoch, part_bytes) = (self.door.membership.epoch(), if accepts_parts { PART_BYTES } else { usize::MAX });
        let Answered { answer, cost, form } = answered;
        let mut parts = convert::answer(answer, &cost, form, epoch, &mut self.handles, part_bytes);
        if self.waiting_bytes + self.cut_bytes + parts.held_bytes() > MAX_UNREAD_BYTES {
            let what = "the client leaves too many answers of this stream unread";
            return Err(Error::Overloaded { what, retry_after: UNREAD_RETRY_AFTER });
        }
        Ok((parts.next()?, parts))
    }

    fn refuse(&mut self, id: u64, error: &Error) {
        self.reply(id, reply_frame::Body::Failure(failure::failure(error)));
    }

    fn reply(&mut self, id: u64, body: reply_frame::Body) {
        self.start_moving();
        let reply = v1::ReplyFrame { id, body: Some(body) };
        self.waiting_bytes += reply.encoded_len();
        self.waiting.push_back(reply);
    }

    /// The client's time to read begins when there is something to read.
    fn start_moving(&mut self) {
        if self.waiting.is_empty() && self.cut.is_empty() {
            self.moved = Instant::now();
        }
    }

    fn next_reply(&mut self) -> Option<v1::ReplyFrame> {
        let reply = self.waiting.pop_front()?;
        self.waiting_bytes = self.waiting_bytes.saturating_sub(reply.encoded_len());
        self.sent += 1;
        self.in_a_row += 1;
        Some(reply)
    }

    /// The next part of the answer whose turn it is. The one after it is made now, while this one is sent.
    fn next_part(&mut self) -> Option<v1::ReplyFrame> {
        let mut cut = self.cut.pop_front()?;
        self.in_a_row = 0;
        let id = cut.id;
        if cut.deadline.at <= Instant::now() {
            self.over(&cut);
            let error = cut.deadline.error(&cut.parts.subject());
            return Some(v1::ReplyFrame { id, body: Some(reply_frame::Body::Failure(failure::failure(&error))) });
        }
        let body = match self.door.encoded(|| cut.parts.next()) {
            Ok(Next::Part(next)) => {
                let part = std::mem::replace(&mut cut.next, next);
                self.cut.push_back(cut);
                reply_frame::Body::Part(part)
            }
            Ok(Next::End(answer)) => {
                self.over(&cut);
                self.reply(id, reply_frame::Body::Answer(answer));
                reply_frame::Body::Part(cut.next)
            }
            Err(error) => {
                self.over(&cut);
                reply_frame::Body::Failure(failure::failure(&error))
            }
        };
        Some(v1::ReplyFrame { id, body: Some(body) })
    }

    /// A request whose answer goes out in parts is over.
    fn over(&mut self, cut: &Cut) {
        self.unanswered.remove(&cut.id);
        self.cut_bytes = self.cut_bytes.saturating_sub(cut.parts.held_bytes());
    }
}
