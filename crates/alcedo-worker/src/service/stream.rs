//! Layer 3: one lookup stream.
//!
//! Knows frames, ids and the order of replies. It must not know how a lookup works. One task serves a stream: it reads
//! frames, runs all requests of the stream at once, and writes replies in the order they are ready. When the client
//! goes away the task ends, and all requests of the stream with it.
//!
//! A client that does not read costs a bounded amount: replies wait in a short channel and then in a queue here; while
//! the queue is full no frame is read, but requests under way go on to their end, so that they hold no permits
//! meanwhile.

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
use super::{Answered, Door, convert, failure};
use crate::connection::Line;
use crate::error::Error;

/// Replies on their way to the connection. It only evens out the two tasks' turns, so it is short.
pub(super) const QUEUED_REPLIES: usize = 16;
/// Bytes of replies that wait for the client to read; beyond it no new request is taken.
const MAX_WAITING_BYTES: usize = 8 << 20;

type Reply = Result<v1::ReplyFrame, Status>;
type Outcome = (u64, Result<Answered, Error>);

/// What one stream has under way.
struct Stream {
    door: Arc<Door>,
    /// Unanswered requests by id.
    unanswered: HashMap<u64, AbortHandle>,
    under_way: FuturesUnordered<BoxFuture<'static, Outcome>>,
    handles: Handles,
    /// Replies that the channel has had no room for, and their bytes.
    waiting: VecDeque<v1::ReplyFrame>,
    waiting_bytes: usize,
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
        moved: Instant::now(),
        most_unanswered,
        closing: false,
    };
    let broken = loop {
        if stream.closing && stream.under_way.is_empty() && stream.waiting.is_empty() {
            return;
        }
        let moved = stream.moved;
        tokio::select! {
            biased;
            () = replies.closed() => return,
            room = replies.reserve(), if !stream.waiting.is_empty() => {
                let (Ok(room), Some(reply)) = (room, stream.next_reply()) else { return };
                room.send(Ok(reply));
                stream.moved = Instant::now();
            }
            Some((id, outcome)) = stream.under_way.next(), if !stream.under_way.is_empty() => {
                stream.finish(id, outcome);
            }
            // An error means that the worker's own handle is gone, which ends the process.
            _ = draining.wait_for(Option::is_some), if !stream.closing => stream.closing = true,
            Some(()) = &mut aged, if !stream.closing => stream.closing = true,
            () = unread_since(moved, stalled), if !stream.waiting.is_empty() => {
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
    }

    fn take(&mut self, frame: v1::LookupFrame) {
        let id = frame.id;
        match frame.body {
            Some(lookup_frame::Body::Request(request)) => self.begin(id, request),
            Some(lookup_frame::Body::Cancel(v1::Cancel {})) => {
                // A request that is not under way was answered already.
                if let Some(request) = self.unanswered.get(&id) {
                    request.abort();
                }
            }
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
                let work = async move { door.lookup(request, AnswerForm::CompactRows, deadline).await };
                let work = Abortable::new(work, registration);
                self.under_way.push(Box::pin(async move { (id, work.await.unwrap_or(Err(Error::Cancelled))) }));
            }
        }
    }

    fn finish(&mut self, id: u64, outcome: Result<Answered, Error>) {
        self.unanswered.remove(&id);
        let answer = outcome.and_then(|answered| {
            let epoch = self.door.membership.epoch();
            convert::answer(answered.answer, &answered.cost, answered.form, epoch, &mut self.handles)
        });
        match answer {
            Ok(answer) => {
                if let Some(announce) = self.handles.announce() {
                    self.reply(0, reply_frame::Body::Announce(announce));
                }
                self.reply(id, reply_frame::Body::Answer(answer));
            }
            Err(error) => self.refuse(id, &error),
        }
        // At a message boundary: what is under way is still answered, and the client opens a new stream.
        self.closing |= self.handles.is_full();
    }

    fn refuse(&mut self, id: u64, error: &Error) {
        self.reply(id, reply_frame::Body::Failure(failure::failure(error)));
    }

    fn reply(&mut self, id: u64, body: reply_frame::Body) {
        if self.waiting.is_empty() {
            self.moved = Instant::now();
        }
        let reply = v1::ReplyFrame { id, body: Some(body) };
        self.waiting_bytes += reply.encoded_len();
        self.waiting.push_back(reply);
    }

    fn next_reply(&mut self) -> Option<v1::ReplyFrame> {
        let reply = self.waiting.pop_front()?;
        self.waiting_bytes = self.waiting_bytes.saturating_sub(reply.encoded_len());
        Some(reply)
    }
}
