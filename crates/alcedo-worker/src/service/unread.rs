//! Layer 3: the replies of one stream that its client has yet to read.
//!
//! Knows their order and their bytes, and since when nothing has moved. It must not know lookups, nor where replies go.

use std::collections::VecDeque;
use std::time::Duration;

use alcedo_proto::v1::{self, reply_frame};
use prost::Message as _;
use tokio::time::Instant;

use super::parts::{Next, Parts};
use super::{Door, failure};
use crate::admission::Deadline;
use crate::error::Error;

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
pub(super) enum Turn {
    Nobody,
    Reply,
    /// A part, if nothing else is ready meanwhile.
    Part,
    /// A part, whatever else is ready.
    PartFirst,
}

/// What is on its way to one client.
pub(super) struct Unread {
    /// Replies that the connection has not asked for, and their bytes.
    waiting: VecDeque<v1::ReplyFrame>,
    waiting_bytes: usize,
    /// Replies that have left, and how many of them since the last part.
    sent: u64,
    in_a_row: usize,
    /// Answers that go out in parts, and their bytes.
    cut: VecDeque<Cut>,
    cut_bytes: usize,
    /// Since when none of them has left.
    moved: Instant,
}

impl Unread {
    pub(super) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            sent: 0,
            in_a_row: 0,
            cut: VecDeque::new(),
            cut_bytes: 0,
            moved: Instant::now(),
        }
    }

    /// Whether more may be asked for while this waits.
    pub(super) fn has_room(&self, most_waiting: usize) -> bool {
        self.waiting.len() < most_waiting && self.waiting_bytes < MAX_WAITING_BYTES && self.cut_bytes < MAX_CUT_BYTES
    }

    /// Whether an answer of so many bytes may wait as well.
    pub(super) fn check_room(&self, bytes: usize) -> Result<(), Error> {
        if self.waiting_bytes + self.cut_bytes + bytes > MAX_UNREAD_BYTES {
            let what = "the client leaves too many answers of this stream unread";
            return Err(Error::Overloaded { what, retry_after: UNREAD_RETRY_AFTER });
        }
        Ok(())
    }

    pub(super) fn turn(&self) -> Turn {
        let part_may = self.cut.front().is_some_and(|cut| cut.after <= self.sent);
        match (self.waiting.is_empty(), part_may) {
            (_, true) if self.in_a_row >= REPLIES_PER_PART => Turn::PartFirst,
            (true, false) => Turn::Nobody,
            (true, true) => Turn::Part,
            (false, _) => Turn::Reply,
        }
    }

    /// Whether no reply waits, of whatever kind.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.cut.is_empty()
    }

    /// For how long the client has read nothing of what waits.
    pub(super) fn stalled_for(&self) -> Option<Duration> {
        (!self.is_empty()).then(|| self.moved.elapsed())
    }

    pub(super) fn push(&mut self, reply: v1::ReplyFrame) {
        self.start_moving();
        self.waiting_bytes += reply.encoded_len();
        self.waiting.push_back(reply);
    }

    /// An answer of which this is the first part.
    pub(super) fn push_cut(&mut self, id: u64, deadline: Deadline, next: v1::AnswerPart, parts: Parts) {
        self.start_moving();
        self.cut_bytes += parts.held_bytes();
        let after = self.sent + self.waiting.len() as u64;
        self.cut.push_back(Cut { id, deadline, next, parts, after });
    }

    /// The client's time to read begins when there is something to read.
    fn start_moving(&mut self) {
        if self.is_empty() {
            self.moved = Instant::now();
        }
    }

    /// A reply left without waiting here.
    pub(super) fn passed(&mut self) {
        self.sent += 1;
        self.in_a_row += 1;
    }

    pub(super) fn next_reply(&mut self) -> Option<v1::ReplyFrame> {
        let reply = self.waiting.pop_front()?;
        self.waiting_bytes = self.waiting_bytes.saturating_sub(reply.encoded_len());
        self.moved = Instant::now();
        self.passed();
        Some(reply)
    }

    /// Forgets the rest of an answer; whether there was any.
    pub(super) fn cancel(&mut self, id: u64) -> bool {
        let Some(cut) = self.cut.iter().position(|cut| cut.id == id).and_then(|at| self.cut.remove(at)) else {
            return false;
        };
        self.let_go(&cut);
        true
    }

    /// The next part of the answer whose turn it is, and whether its request is over. The part after it is made now,
    /// while this one is sent.
    pub(super) fn next_part(&mut self, door: &Door) -> Option<(v1::ReplyFrame, bool)> {
        let mut cut = self.cut.pop_front()?;
        (self.in_a_row, self.moved) = (0, Instant::now());
        let id = cut.id;
        if cut.deadline.at <= self.moved {
            self.let_go(&cut);
            let error = cut.deadline.error(&cut.parts.subject());
            return Some((failed(id, &error), true));
        }
        match door.encoded(|| cut.parts.next()) {
            Ok(Next::Part(next)) => {
                let part = std::mem::replace(&mut cut.next, next);
                self.cut.push_back(cut);
                Some((v1::ReplyFrame { id, body: Some(reply_frame::Body::Part(part)) }, false))
            }
            Ok(Next::End(answer)) => {
                self.let_go(&cut);
                self.push(v1::ReplyFrame { id, body: Some(reply_frame::Body::Answer(answer)) });
                Some((v1::ReplyFrame { id, body: Some(reply_frame::Body::Part(cut.next)) }, true))
            }
            Err(error) => {
                self.let_go(&cut);
                Some((failed(id, &error), true))
            }
        }
    }

    fn let_go(&mut self, cut: &Cut) {
        self.cut_bytes = self.cut_bytes.saturating_sub(cut.parts.held_bytes());
    }
}

/// The reply to a request that failed.
pub(super) fn failed(id: u64, error: &Error) -> v1::ReplyFrame {
    v1::ReplyFrame { id, body: Some(reply_frame::Body::Failure(failure::failure(error))) }
}
