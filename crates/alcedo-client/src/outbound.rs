//! What one lookup stream has still to send, and how it becomes frames.
//!
//! Knows frames, which handles the stream has defined, and when several lookups become one message. It must not know
//! who waits for them. Nothing waits for company: whoever takes frames out takes at once what is there, and only while
//! many others are under way does it let them have their turn first.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use alcedo_proto::v1 as pb;
use pb::lookup_frame::Body;
use prost::Message as _;
use tokio::sync::Semaphore;

use crate::pending::MAX_PENDING;
use crate::question::Question;
use crate::request::{Keys, MAX_KEYS_PER_MESSAGE};

/// Frames that wait to be written; beyond it no cancel is added, which costs the worker's time only. Requests are
/// bounded by the messages that may be under way.
const MOST_WAITING: usize = 4 * MAX_PENDING;
/// Longest key that travels together with others: a full message of them is half of what a worker accepts.
const MAX_JOINED_KEY_BYTES: usize = 512;
/// So many lookups besides those that wait here must be under way for others to have their turn before the next frame:
/// fewer gain less by company than the turn costs.
const BUSY: usize = 8;
/// Lookups travel together if their times differ by at most one part in so many.
const TIMEOUT_SHARE: u64 = 8;

/// The waiting frames of one stream, and the places for messages under way.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) places: Semaphore,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    waker: Option<Waker>,
    /// By handle, less one: the serial number of the question that it stands for on this stream.
    defined: Vec<u64>,
    /// Others have had their turn since there was nothing to write.
    gave_way: bool,
    is_closed: bool,
}

#[derive(Debug)]
enum Item {
    Frame(Box<pb::LookupFrame>),
    Prepare(Box<pb::Prepare>),
    /// A lookup of one key through a handle, which may travel with others.
    Single(Single),
    Cancel(u64),
}

#[derive(Debug)]
struct Single {
    id: u64,
    handle: u32,
    key: pb::Key,
    timeout_us: u64,
}

impl Default for Outbound {
    fn default() -> Self {
        Self { places: Semaphore::new(MAX_PENDING), queue: Mutex::default() }
    }
}

impl Outbound {
    /// Sends a message as it is.
    pub(crate) fn send(&self, id: u64, request: pb::LookupRequest) {
        let frame = pb::LookupFrame { id, body: Some(Body::Request(request)) };
        Self::push(self.queue(), [Item::Frame(Box::new(frame))]);
    }

    /// Sends a question's keys by the question's handle, which is defined first if this stream does not know it.
    pub(crate) fn send_prepared(&self, id: u64, question: &Question, handle: u32, keys: Keys, timeout_us: u64) {
        let item = match keys {
            Keys::One(key) if question.is_compact() && key.encoded_len() <= MAX_JOINED_KEY_BYTES => {
                Item::Single(Single { id, handle, key, timeout_us })
            }
            keys => {
                let lookup = pb::PreparedLookup { handle, keys: keys.into_vec(), timeout_us };
                Item::Frame(Box::new(pb::LookupFrame { id, body: Some(Body::Lookup(lookup)) }))
            }
        };
        let mut queue = self.queue();
        let prepare = queue.define(handle, question);
        match prepare {
            Some(prepare) => Self::push(queue, [Item::Prepare(Box::new(prepare)), item]),
            None => Self::push(queue, [item]),
        }
    }

    /// Takes a message back: it is not sent, or the worker is told to stop. The latter saves the worker's time, no
    /// more: where much waits already it is left out.
    pub(crate) fn withdraw(&self, id: u64) {
        let mut queue = self.queue();
        let waiting = queue.items.iter().rposition(|item| item.id() == Some(id));
        match waiting {
            Some(place) => {
                queue.items.remove(place);
            }
            None if queue.items.len() < MOST_WAITING => Self::push(queue, [Item::Cancel(id)]),
            None => {}
        }
    }

    /// Ends the stream's requests; gives the ids of those that were not sent.
    pub(crate) fn close(&self) -> Vec<u64> {
        let (items, waker) = {
            let mut queue = self.queue();
            queue.is_closed = true;
            (std::mem::take(&mut queue.items), queue.waker.take())
        };
        waker.into_iter().for_each(Waker::wake);
        items.iter().filter_map(Item::id).collect()
    }

    fn push<const N: usize>(mut queue: MutexGuard<'_, Queue>, items: [Item; N]) {
        queue.items.extend(items);
        let waker = queue.waker.take();
        drop(queue);
        waker.into_iter().for_each(Waker::wake);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<pb::LookupFrame>> {
        let mut queue = self.queue();
        if queue.items.is_empty() {
            queue.gave_way = false;
            if queue.is_closed {
                return Poll::Ready(None);
            }
            if !queue.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                queue.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        let under_way = MAX_PENDING - self.places.available_permits().min(MAX_PENDING);
        if !queue.gave_way && under_way >= queue.items.len() + BUSY {
            queue.gave_way = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(queue.next_frame())
    }
}

impl Item {
    /// The id of a request; a cancel and a definition are none.
    fn id(&self) -> Option<u64> {
        match self {
            Self::Frame(frame) => Some(frame.id),
            Self::Single(single) => Some(single.id),
            Self::Prepare(_) | Self::Cancel(_) => None,
        }
    }
}

impl Queue {
    /// What defines the handle, if it does not stand for this question already.
    fn define(&mut self, handle: u32, question: &Question) -> Option<pb::Prepare> {
        let place = handle.saturating_sub(1) as usize;
        if self.defined.len() <= place {
            self.defined.resize(place + 1, 0);
        }
        let defined = self.defined.get_mut(place)?;
        if *defined == question.serial() {
            return None;
        }
        *defined = question.serial();
        Some(pb::Prepare { handle, request: Some(question.request(Vec::new())) })
    }

    fn next_frame(&mut self) -> Option<pb::LookupFrame> {
        Some(match self.items.pop_front()? {
            Item::Frame(frame) => *frame,
            Item::Prepare(prepare) => pb::LookupFrame { id: 0, body: Some(Body::Prepare(*prepare)) },
            Item::Cancel(id) => pb::LookupFrame { id, body: Some(Body::Cancel(pb::Cancel {})) },
            Item::Single(single) => self.joined(single),
        })
    }

    /// A lookup together with those of its handle that wait as well.
    fn joined(&mut self, first: Single) -> pb::LookupFrame {
        let Single { id, handle, key, mut timeout_us } = first;
        let (mut ids, mut keys) = (Vec::new(), vec![key]);
        let mut is_same = true;
        if !self.items.is_empty() {
            self.items.retain_mut(|item| match item {
                Item::Single(next) if is_same && next.handle == handle && keys.len() < MAX_KEYS_PER_MESSAGE => {
                    let joins = next.timeout_us.abs_diff(timeout_us) <= timeout_us / TIMEOUT_SHARE;
                    if joins {
                        ids.push(next.id);
                        keys.push(std::mem::take(&mut next.key));
                        // Who has less time gives up on this side.
                        timeout_us = timeout_us.max(next.timeout_us);
                    }
                    !joins
                }
                Item::Prepare(prepare) => {
                    // From here on the handle means something else.
                    is_same &= prepare.handle != handle;
                    true
                }
                _ => true,
            });
        }
        if ids.is_empty() {
            return pb::LookupFrame { id, body: Some(Body::Lookup(pb::PreparedLookup { handle, keys, timeout_us })) };
        }
        ids.insert(0, id);
        pb::LookupFrame { id: 0, body: Some(Body::Batch(pb::PreparedBatch { handle, ids, keys, timeout_us })) }
    }
}

/// The frames of one stream as its request body takes them.
#[derive(Debug)]
pub(crate) struct Frames(pub(crate) Arc<Outbound>);

impl futures::Stream for Frames {
    type Item = pb::LookupFrame;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_frame(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::question::Spec;

    fn question() -> Question {
        let form = pb::AnswerForm::CompactRows.into();
        Question::new(Spec { path: "lake/a".to_owned(), form, ..Spec::default() })
    }

    fn key(value: i64) -> Keys {
        Keys::One(pb::Key { kind: Some(pb::key::Kind::Int(value)) })
    }

    /// What the stream would write now.
    fn written(outbound: &Arc<Outbound>) -> Vec<pb::LookupFrame> {
        let mut frames = Frames(Arc::clone(outbound));
        let mut cx = Context::from_waker(Waker::noop());
        let mut all = Vec::new();
        while let Poll::Ready(Some(frame)) = futures::Stream::poll_next(Pin::new(&mut frames), &mut cx) {
            all.push(frame);
        }
        all
    }

    fn kinds(frames: &[pb::LookupFrame]) -> Vec<String> {
        let kind = |frame: &pb::LookupFrame| match frame.body.as_ref().unwrap() {
            Body::Request(_) => "request".to_owned(),
            Body::Cancel(_) => format!("cancel {}", frame.id),
            Body::Prepare(prepare) => format!("prepare {}", prepare.handle),
            Body::Lookup(lookup) => format!("lookup {} by {}", frame.id, lookup.handle),
            Body::Batch(batch) => format!("batch {:?} by {}", batch.ids, batch.handle),
        };
        frames.iter().map(kind).collect()
    }

    #[test]
    fn lookups_that_wait_together_travel_together_and_a_lone_one_alone() {
        let (outbound, one, two) = (Arc::new(Outbound::default()), question(), question());
        outbound.send_prepared(1, &one, 1, key(1), 100);
        assert_eq!(kinds(&written(&outbound)), ["prepare 1", "lookup 1 by 1"]);
        outbound.send_prepared(2, &one, 1, key(2), 100);
        outbound.send_prepared(3, &two, 2, key(3), 100);
        outbound.send_prepared(4, &one, 1, key(4), 95);
        outbound.send_prepared(5, &one, 1, key(5), 1_000);
        outbound.send(6, pb::LookupRequest::default());
        let frames = written(&outbound);
        let expected = ["batch [2, 4] by 1", "prepare 2", "lookup 3 by 2", "lookup 5 by 1", "request"];
        assert_eq!(kinds(&frames), expected);
        let Some(Body::Batch(batch)) = &frames[0].body else { panic!("no batch") };
        assert_eq!((batch.timeout_us, batch.keys.len()), (100, 2));
    }

    #[test]
    fn a_handle_that_changes_its_meaning_keeps_its_lookups_apart() {
        let (outbound, one, two) = (Arc::new(Outbound::default()), question(), question());
        outbound.send_prepared(1, &one, 1, key(1), 100);
        outbound.send_prepared(2, &two, 1, key(2), 100);
        outbound.send_prepared(3, &two, 1, key(3), 100);
        let expected = ["prepare 1", "lookup 1 by 1", "prepare 1", "batch [2, 3] by 1"];
        assert_eq!(kinds(&written(&outbound)), expected);
    }

    #[test]
    fn a_batch_has_no_more_keys_than_a_message_may() {
        let (outbound, one) = (Arc::new(Outbound::default()), question());
        (1..=1_500).for_each(|id| outbound.send_prepared(id, &one, 1, key(0), 100));
        let lengths: Vec<usize> = written(&outbound)
            .iter()
            .filter_map(|frame| match &frame.body {
                Some(Body::Batch(batch)) => Some(batch.ids.len()),
                _ => None,
            })
            .collect();
        assert_eq!(lengths, [1_024, 476]);
    }

    #[test]
    fn what_was_not_sent_is_taken_back_and_what_was_is_cancelled() {
        let (outbound, one) = (Arc::new(Outbound::default()), question());
        outbound.send_prepared(1, &one, 1, key(1), 100);
        assert_eq!(kinds(&written(&outbound)), ["prepare 1", "lookup 1 by 1"]);
        outbound.send_prepared(2, &one, 1, key(2), 100);
        outbound.withdraw(1);
        outbound.withdraw(2);
        assert_eq!(kinds(&written(&outbound)), ["cancel 1"]);
        outbound.send_prepared(3, &one, 1, key(3), 100);
        assert_eq!(outbound.close(), [3]);
    }

    #[test]
    fn while_many_are_under_way_the_first_to_come_gives_way_once() {
        let (outbound, one) = (Arc::new(Outbound::default()), question());
        let held: Vec<_> = (0..20).map(|_| outbound.places.try_acquire().unwrap()).collect();
        outbound.send_prepared(1, &one, 1, key(1), 100);
        assert!(written(&outbound).is_empty());
        outbound.send_prepared(2, &one, 1, key(2), 100);
        assert_eq!(kinds(&written(&outbound)), ["prepare 1", "batch [1, 2] by 1"]);
        drop(held);
        outbound.send_prepared(3, &one, 1, key(3), 100);
        assert_eq!(kinds(&written(&outbound)), ["lookup 3 by 1"]);
    }
}
