//! Layer 3: one lookup stream.
//!
//! Knows frames, ids and the order of replies. It must not know how a lookup works. The stream of replies does all of
//! it when the connection asks for the next one: it reads frames, answers at once what needs no wait, runs everything
//! else of the stream side by side, and hands out what is ready. A lookup of a hot row passes through no other task and
//! no queue. When the client goes away the connection drops the stream, and all requests under way with it.
//!
//! A client that does not read costs a bounded amount: the connection asks for no more replies than it can send. While
//! it does not ask, the stream is worked on by [`super::watching`]: requests under way go on to their end, so that they
//! hold no permits meanwhile, and what is read of the client is bounded by what waits for it.
//!
//! Large answers go out in parts, one of each in turn, and a part only when nothing else waits. They share the stream
//! with the small ones instead of having one of their own: a part is as long as a small answer may wait, handles are
//! announced in one place, and a request's frames have one order.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use alcedo_lookup::key::Key;
use alcedo_proto::v1::{self, AnswerForm, lookup_frame, reply_frame};
use futures::StreamExt as _;
use futures::future::{AbortHandle, AbortRegistration, Abortable, BoxFuture};
use futures::stream::{FuturesUnordered, Stream};
use tokio::sync::Notify;
use tonic::Status;

use super::handles::Handles;
use super::parts::{Next, PART_BYTES, Parts};
use super::questions::{Question, Questions, keys};
use super::replies::{AskedFor, Reply};
use super::unread::{Turn, Unread, failed};
use super::{Answered, Arrived, Door, convert};
use crate::admission::Deadline;
use crate::error::Error;
use crate::lookups::AtOnce;
use crate::turns;

/// Frames that are taken in a row before the connection writes and others have their turn: as many as share one write
/// well, and so few that the first answer does not wait long for the last.
const FRAMES_AT_ONCE: usize = 64;

/// Frames of a client.
pub(super) trait Frames: Stream<Item = Result<v1::LookupFrame, Status>> + Send + Unpin + 'static {}

impl<F: Stream<Item = Result<v1::LookupFrame, Status>> + Send + Unpin + 'static> Frames for F {}

/// A request that came to its end.
struct Done {
    id: u64,
    deadline: Deadline,
    accepts_parts: bool,
    outcome: Result<Answered, Error>,
}

/// A request that waits to be begun.
struct Queued {
    id: u64,
    question: Question,
    keys: Result<Vec<Key>, Error>,
    arrived: Arrived,
    registration: AbortRegistration,
    _waits: turns::Waits,
}

/// What came of a look for something to do.
enum Moved {
    Nothing,
    /// Something was done; a reply may wait.
    Something,
    /// A reply that need not wait.
    Reply(v1::ReplyFrame),
}

/// What one stream has under way.
pub(super) struct Work<F: Frames> {
    pub(super) door: Arc<Door>,
    frames: F,
    /// Why the frames ended too soon.
    broken: Option<Status>,
    /// Unanswered requests by id.
    unanswered: HashMap<u64, AbortHandle>,
    under_way: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Requests that wait for the thread to have time for them.
    queued: VecDeque<Queued>,
    /// While the connection writes and others read.
    pausing: Option<turns::Look>,
    /// Its turns at work that takes the thread.
    turn: turns::Turn,
    /// Whether any of them may have gone on since they were last looked at.
    look: bool,
    pub(super) questions: Questions,
    handles: Handles,
    pub(super) unread: Unread,
    /// Most unanswered requests, as configured when the stream began.
    most_unanswered: usize,
    /// No more requests are taken: the client said its last word, the worker drains, the
    /// connection is old, or the handles are used up.
    closing: bool,
    /// Frames taken since the last rest.
    taken: usize,
    /// Keys that were answered from memory, and lookups that were answered at once, that are not yet counted.
    pub(super) hot_keys: u64,
    pub(super) hot_lookups: u64,
    pub(super) asked: AskedFor,
    /// Tells the watch that requests are under way.
    busy: Arc<Notify>,
    is_watched: bool,
}

impl<F: Frames> Work<F> {
    /// Nothing under way yet. `busy` is told when that changes.
    pub(super) fn new(door: Arc<Door>, frames: F, busy: Arc<Notify>) -> Self {
        let (most_unanswered, closing) = (door.settings().connections.unanswered, door.draining.borrow().is_some());
        Self {
            most_unanswered,
            closing,
            door,
            frames,
            broken: None,
            unanswered: HashMap::new(),
            under_way: FuturesUnordered::new(),
            queued: VecDeque::new(),
            pausing: None,
            turn: turns::Turn::default(),
            look: false,
            questions: Questions::default(),
            handles: Handles::default(),
            unread: Unread::new(),
            taken: 0,
            hot_keys: 0,
            hot_lookups: 0,
            asked: AskedFor::default(),
            busy,
            is_watched: false,
        }
    }

    /// The next reply, of whatever is ready.
    pub(super) fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Option<Reply>> {
        loop {
            if self.pausing.is_some() && self.poll_pause(cx).is_pending() {
                return Poll::Pending;
            }
            match self.unread.turn() {
                Turn::PartFirst => return Poll::Ready(self.next_part().map(Ok)),
                Turn::Reply => return Poll::Ready(self.unread.next_reply().map(Ok)),
                Turn::Part | Turn::Nobody => {}
            }
            match self.advance(cx) {
                Moved::Reply(reply) => {
                    self.unread.passed();
                    return Poll::Ready(Some(Ok(reply)));
                }
                Moved::Something => continue,
                Moved::Nothing => {}
            }
            if self.unread.turn() == Turn::Part {
                return Poll::Ready(self.next_part().map(Ok));
            }
            if self.has_more() {
                self.tell_watch();
                if !self.asked.has_taken {
                    self.pausing = Some(turns::Look::begin());
                    continue;
                }
                // It will ask once more after it has taken what there is, and be woken in any case.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.rest();
            // The stream cannot be read any further, so there is nobody to answer but with this.
            if let Some(status) = self.broken.take() {
                return Poll::Ready(Some(Err(status)));
            }
            let is_idle = self.under_way.is_empty() && self.queued.is_empty();
            let is_over = self.closing && is_idle && self.unread.is_empty();
            return if is_over { Poll::Ready(None) } else { Poll::Pending };
        }
    }

    /// Whether there is more to do as soon as others have read and written. What waits for a turn is woken for it.
    fn has_more(&self) -> bool {
        self.taken >= FRAMES_AT_ONCE
    }

    /// Lets the connection write what it was given, and everybody else on this thread have their turn.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pausing) = &mut self.pausing {
            ready!(pausing.poll(cx));
            self.pausing = None;
            turns::looked();
            self.rest();
        }
        Poll::Ready(())
    }

    fn rest(&mut self) {
        (self.taken, self.look) = (0, true);
        if self.hot_lookups > 0 {
            let metrics = &self.door.metrics;
            metrics.lookups_total.add(std::mem::take(&mut self.hot_lookups));
            metrics.hot_rows_hits.add(std::mem::take(&mut self.hot_keys));
        }
    }

    /// Does what can be done while nobody asks for replies, which wait. It must be called again when it is woken.
    pub(super) fn work_on(&mut self, cx: &mut Context<'_>) {
        if self.poll_pause(cx).is_pending() {
            return;
        }
        self.rest();
        loop {
            match self.advance(cx) {
                Moved::Reply(reply) => self.unread.push(reply),
                Moved::Something => {}
                Moved::Nothing if self.has_more() => {
                    self.pausing = Some(turns::Look::begin());
                    if self.poll_pause(cx).is_pending() {
                        return;
                    }
                }
                Moved::Nothing => break,
            }
        }
        self.rest();
    }

    /// The next thing to do, if there is any: a request that is done, a frame, or a request that waits to be begun.
    fn advance(&mut self, cx: &mut Context<'_>) -> Moved {
        // What goes on after a wait is work like any other.
        if self.may_work(cx) && std::mem::take(&mut self.look) && !self.under_way.is_empty() {
            if let Poll::Ready(Some(done)) = self.under_way.poll_next_unpin(cx) {
                self.look = true;
                self.finish(done);
                return Moved::Something;
            }
            self.tell_watch();
        }
        if self.takes_requests() && self.taken < FRAMES_AT_ONCE {
            match self.frames.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.taken += 1;
                    return self.take(frame).map_or(Moved::Something, Moved::Reply);
                }
                Poll::Ready(Some(Err(status))) => (self.broken, self.closing) = (Some(status), true),
                Poll::Ready(None) => self.closing = true,
                Poll::Pending => {}
            }
        }
        if self.may_work(cx)
            && let Some(queued) = self.queued.pop_front()
        {
            self.start(queued);
            return Moved::Something;
        }
        Moved::Nothing
    }

    /// Whether there is work that takes the thread, and it is this stream's turn. Meanwhile it goes on to read.
    fn may_work(&mut self, cx: &mut Context<'_>) -> bool {
        if self.queued.is_empty() && (!self.look || self.under_way.is_empty()) {
            self.turn.end();
            return false;
        }
        let is_on = self.turn.is_on(cx);
        if !is_on {
            self.tell_watch();
        }
        is_on
    }

    /// Requests that wait for something must go on even if the connection does not ask for replies.
    fn tell_watch(&mut self) {
        if !std::mem::replace(&mut self.is_watched, true) {
            self.busy.notify_one();
        }
    }

    /// Whether requests are under way; asked by the watch, which looks away otherwise.
    pub(super) fn is_busy(&mut self) -> bool {
        self.is_watched = !self.under_way.is_empty() || !self.queued.is_empty();
        self.is_watched
    }

    /// Takes no more requests; those under way are answered.
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.asked.wake();
    }

    /// For how long the client has read nothing of what waits.
    pub(super) fn stalled_for(&self) -> Option<Duration> {
        self.unread.stalled_for()
    }

    pub(super) fn door(&self) -> &Arc<Door> {
        &self.door
    }

    fn takes_requests(&self) -> bool {
        !self.closing && self.unanswered.len() < self.most_unanswered && self.unread.has_room(self.most_unanswered)
    }

    /// Takes one frame; what it is answered with, if that is ready and nothing is to be said before.
    fn take(&mut self, frame: v1::LookupFrame) -> Option<v1::ReplyFrame> {
        let id = frame.id;
        match frame.body {
            Some(lookup_frame::Body::Lookup(v1::PreparedLookup { handle, keys, timeout_us })) => {
                match self.questions.get(handle) {
                    Ok(question) => self.begin(id, &question, keys, timeout_us),
                    Err(error) => self.refuse_lookup(id, &error),
                }
            }
            Some(lookup_frame::Body::Batch(batch)) => self.begin_batch(id, batch),
            Some(lookup_frame::Body::Request(mut request)) => {
                let question = Question::new(&mut request, AnswerForm::CompactRows, &self.door.lookups);
                self.begin(id, &question, request.keys, request.timeout_us)
            }
            Some(lookup_frame::Body::Prepare(prepare)) => {
                self.questions.define(prepare, AnswerForm::CompactRows, &self.door.lookups);
                None
            }
            Some(lookup_frame::Body::Cancel(v1::Cancel {})) => {
                self.cancel(id);
                None
            }
            None => Some(failed(id, &Error::BadRequest("the frame holds neither a request nor a cancel".to_owned()))),
        }
    }

    fn begin(&mut self, id: u64, question: &Question, keys: Vec<v1::Key>, timeout_us: u64) -> Option<v1::ReplyFrame> {
        if let Some(refused) = self.check_id(id) {
            return Some(refused);
        }
        let keys = self::keys(keys);
        if let (Ok(keys), Some(asked)) = (&keys, question.at_once(AnswerForm::CompactRows))
            && let Some(outcome) =
                self.door.at_once(asked, |lookups, now| Some((lookups.answer_at_once(asked, keys, now)?, ())))
        {
            return match outcome {
                Ok((answer, ())) => {
                    self.hot_keys += keys.len().saturating_sub(answer.read_keys) as u64;
                    self.hot_lookups += 1;
                    let answer = self.answered_at_once(answer);
                    self.say(v1::ReplyFrame { id, body: Some(reply_frame::Body::Answer(answer)) })
                }
                Err(error) => Some(failed(id, &error)),
            };
        }
        self.begin_work(id, question.clone(), keys, timeout_us)
    }

    pub(super) fn answered_at_once(&mut self, answer: AtOnce) -> v1::Answer {
        convert::answer_at_once(answer, self.door.membership.epoch(), &mut self.handles)
    }

    /// Hands a reply out at once, unless its handles are to be announced first.
    pub(super) fn say(&mut self, reply: v1::ReplyFrame) -> Option<v1::ReplyFrame> {
        if let Some(announce) = self.handles.announce() {
            self.announce(announce);
            self.unread.push(reply);
            return None;
        }
        Some(reply)
    }

    fn announce(&mut self, announce: v1::Announce) {
        self.unread.push(v1::ReplyFrame { id: 0, body: Some(reply_frame::Body::Announce(announce)) });
        // At a message boundary: what is under way is still answered, and the client opens a new stream.
        self.closing |= self.handles.is_full();
    }

    pub(super) fn check_id(&self, id: u64) -> Option<v1::ReplyFrame> {
        if self.unanswered.is_empty() || !self.unanswered.contains_key(&id) {
            return None;
        }
        let why = format!("the id {id} is in use by an unanswered request of this stream");
        Some(failed(id, &Error::BadRequest(why)))
    }

    /// The reply to a lookup that cannot begin.
    pub(super) fn refuse_lookup(&self, id: u64, error: &Error) -> Option<v1::ReplyFrame> {
        let in_use = self.check_id(id);
        if in_use.is_none() {
            self.door.count_failed();
        }
        in_use.or_else(|| Some(failed(id, error)))
    }

    /// A lookup that may have to wait; its reply, if it is turned away at once.
    pub(super) fn begin_work(
        &mut self,
        id: u64,
        question: Question,
        keys: Result<Vec<Key>, Error>,
        timeout_us: u64,
    ) -> Option<v1::ReplyFrame> {
        let admission = &self.door.admission;
        let mut arrived = Arrived::new(&self.door.metrics, admission.deadline(convert::timeout(timeout_us), None));
        arrived.is_of_stream = true;
        // What cannot be asked at all needs no permit to be told so.
        let weight = keys.as_ref().ok().filter(|_| question.asked.is_ok()).map(Vec::len);
        if let Some(weight) = weight {
            arrived.permit = admission.try_admit(weight);
            if let Some(error) = admission.refusal(arrived.deadline, arrived.permit.is_some()) {
                return Some(failed(id, &error));
            }
        }
        let (handle, registration) = AbortHandle::new_pair();
        self.unanswered.insert(id, handle);
        let waits_for_turn = arrived.permit.is_some();
        let queued = Queued { id, question, keys, arrived, registration, _waits: turns::Waits::new() };
        if waits_for_turn {
            self.queued.push_back(queued);
        } else {
            // It waits for a permit, and not long.
            self.start(queued);
        }
        None
    }

    fn start(&mut self, queued: Queued) {
        let Queued { id, question, keys, arrived, registration, .. } = queued;
        let (door, accepts_parts, deadline) = (Arc::clone(&self.door), question.accepts_parts, arrived.deadline);
        let work = async move { door.lookup_arrived(question, keys, arrived).await };
        let work = Abortable::new(work, registration);
        self.under_way.push(Box::pin(async move {
            let outcome = work.await.unwrap_or(Err(Error::Cancelled));
            Done { id, deadline, accepts_parts, outcome }
        }));
        self.look = true;
    }

    fn cancel(&mut self, id: u64) {
        if self.unread.cancel(id) {
            self.unanswered.remove(&id);
            self.unread.push(failed(id, &Error::Cancelled));
        } else if let Some(request) = self.unanswered.get(&id) {
            request.abort();
            self.look = true;
        }
        // A request that is not under way was answered already.
    }

    fn finish(&mut self, done: Done) {
        let Done { id, deadline, accepts_parts, outcome } = done;
        let door = Arc::clone(&self.door);
        let first = outcome.and_then(|answered| door.encoded(|| self.first_frame(answered, accepts_parts)));
        // What announces the handles goes out first, whatever comes of the answer.
        if let Some(announce) = self.handles.announce() {
            self.announce(announce);
        }
        match first {
            Ok((Next::Part(next), parts)) => return self.unread.push_cut(id, deadline, next, parts),
            Ok((Next::End(answer), _)) => {
                self.unread.push(v1::ReplyFrame { id, body: Some(reply_frame::Body::Answer(answer)) });
            }
            Err(error) => self.unread.push(failed(id, &error)),
        }
        self.unanswered.remove(&id);
    }

    fn first_frame(&mut self, answered: Answered, accepts_parts: bool) -> Result<(Next, Parts), Error> {
        let (epoch, part_bytes) = (self.door.membership.epoch(), if accepts_parts { PART_BYTES } else { usize::MAX });
        let Answered { answer, cost, form } = answered;
        let mut parts = convert::answer(answer, &cost, form, epoch, &mut self.handles, part_bytes);
        self.unread.check_room(parts.held_bytes())?;
        Ok((parts.next()?, parts))
    }

    fn next_part(&mut self) -> Option<v1::ReplyFrame> {
        let (part, is_over) = self.unread.next_part(&self.door)?;
        if is_over {
            self.unanswered.remove(&part.id);
        }
        Some(part)
    }
}
