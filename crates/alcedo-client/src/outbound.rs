//! What one lookup stream has still to send, and how it becomes frames.
//!
//! Knows frames, which handles the stream has defined, when several lookups become one message, and who writes them. It
//! must not know who waits for them. Nothing waits for company: whoever takes frames out takes at once what is there,
//! and only while many others are under way does it let them have their turn first.
//!
//! Over gRPC the connection takes the frames. On a connection of frames whoever asks writes, on its own thread, if
//! nobody else does and few are under way; otherwise, and what the socket does not take at once, the connection's task.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use alcedo_proto::framing;
use alcedo_proto::v1 as pb;
use bytes::{Buf as _, BytesMut};
use pb::lookup_frame::Body;
use prost::Message as _;
use tokio::sync::Semaphore;

use crate::pending::MAX_PENDING;
use crate::question::Question;
use crate::request::{Keys, MAX_KEYS_PER_MESSAGE};
use crate::wire::WriteHalf;

/// Frames that wait to be written; beyond it no cancel is added, which costs the worker's time only. Requests are
/// bounded by the messages that may be under way.
const MOST_WAITING: usize = 4 * MAX_PENDING;
/// Longest key that travels together with others: a full message of them is half of what a worker accepts.
const MAX_JOINED_KEY_BYTES: usize = 512;
/// So many lookups besides those that wait here must be under way for others to have their turn before the next frame:
/// fewer gain less by company than the turn costs.
const BUSY: usize = 8;
/// Up to so many lookups under way each is written by who asks it: more gain by company.
const FEW: usize = 3;
/// Frames are packed into writes of so many bytes, or of one frame that is longer.
const WRITE_BYTES: usize = 64 << 10;
/// A buffer that has grown beyond this is let go of when it is empty.
const KEPT_BYTES: usize = 256 << 10;
/// Lookups travel together if their times differ by at most one part in so many.
const TIMEOUT_SHARE: u64 = 8;

/// The waiting frames of one stream, and the places for messages under way.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) places: Semaphore,
    queue: Mutex<Queue>,
    /// Whether a connection of frames is written here; gRPC's takes the frames.
    has_socket: bool,
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
    /// A ping is to be sent.
    is_pinging: bool,
    /// Taken by whoever writes just now, and looks here again afterwards. When the stream ends it goes, and with it
    /// this side of the connection.
    writing: Option<Writing>,
}

/// A connection of frames, as it is written.
#[derive(Debug)]
struct Writing {
    half: WriteHalf,
    /// What is encoded and not yet written.
    encoded: BytesMut,
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
        Self { places: Semaphore::new(MAX_PENDING), queue: Mutex::default(), has_socket: false }
    }
}

impl Outbound {
    /// What is written to a socket here.
    pub(crate) fn to(half: WriteHalf) -> Self {
        let writing = Some(Writing { half, encoded: BytesMut::new() });
        Self { queue: Mutex::new(Queue { writing, ..Queue::default() }), has_socket: true, ..Self::default() }
    }

    /// Sends a message as it is.
    pub(crate) fn send(&self, id: u64, request: pb::LookupRequest) {
        let frame = pb::LookupFrame { id, body: Some(Body::Request(request)) };
        self.push(self.queue(), [Item::Frame(Box::new(frame))]);
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
            Some(prepare) => self.push(queue, [Item::Prepare(Box::new(prepare)), item]),
            None => self.push(queue, [item]),
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
            None if queue.items.len() < MOST_WAITING => self.push(queue, [Item::Cancel(id)]),
            None => {}
        }
    }

    /// Ends the stream's requests; gives the ids of those that were not sent.
    pub(crate) fn close(&self) -> Vec<u64> {
        let (items, waker) = {
            let mut queue = self.queue();
            queue.is_closed = true;
            queue.writing = None;
            (std::mem::take(&mut queue.items), queue.waker.take())
        };
        waker.into_iter().for_each(Waker::wake);
        items.iter().filter_map(Item::id).collect()
    }

    /// Asks the other end whether it is there.
    pub(crate) fn ping(&self) {
        self.queue().is_pinging = true;
    }

    fn push<'q, const N: usize>(&'q self, mut queue: MutexGuard<'q, Queue>, items: [Item; N]) {
        queue.items.extend(items);
        if self.has_socket && self.under_way() <= FEW {
            queue = self.write_at_once(queue);
        }
        let waker = if queue.has_more() { queue.waker.take() } else { None };
        drop(queue);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Writes what waits, unless that is somebody else's to do.
    fn write_at_once<'q>(&'q self, mut queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        let Some(mut writing) = queue.writing.take_if(|writing| writing.encoded.is_empty()) else { return queue };
        queue.encode(&mut writing.encoded);
        drop(queue);
        // What it does not take now, and why, is for the connection's task to see.
        let wrote = writing.half.try_write(&writing.encoded).unwrap_or(0);
        writing.consume(wrote);
        self.give_back(writing)
    }

    fn give_back(&self, writing: Writing) -> MutexGuard<'_, Queue> {
        let mut queue = self.queue();
        if !queue.is_closed {
            queue.writing = Some(writing);
        }
        queue
    }

    /// Writes all that there is to a socket, and goes on when there is more; ready when there will be no more.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut queue = self.queue();
            if ready!(self.poll_turn(&mut queue, cx)).is_none() {
                return Poll::Ready(Ok(()));
            }
            let Some(mut writing) = queue.writing.take() else {
                // Whoever writes says so when there is more.
                queue.wake_by(cx);
                return Poll::Pending;
            };
            if writing.encoded.is_empty() {
                queue.encode(&mut writing.encoded);
            }
            drop(queue);
            let wrote = writing.half.poll_write(cx, &writing.encoded);
            if let Poll::Ready(Ok(wrote)) = wrote {
                writing.consume(wrote);
            }
            drop(self.give_back(writing));
            ready!(wrote)?;
        }
    }

    fn under_way(&self) -> usize {
        MAX_PENDING - self.places.available_permits().min(MAX_PENDING)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<pb::LookupFrame>> {
        let mut queue = self.queue();
        let turn = ready!(self.poll_turn(&mut queue, cx));
        Poll::Ready(turn.and_then(|()| queue.next_frame()))
    }

    /// Whether it is time to send what waits; nothing when there will be no more.
    fn poll_turn(&self, queue: &mut Queue, cx: &mut Context<'_>) -> Poll<Option<()>> {
        if !queue.has_more() {
            queue.gave_way = false;
            if queue.is_closed {
                return Poll::Ready(None);
            }
            queue.wake_by(cx);
            return Poll::Pending;
        }
        if !queue.gave_way && self.under_way() >= queue.items.len() + BUSY {
            queue.gave_way = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(()))
    }
}

impl Writing {
    /// Forgets what was written.
    fn consume(&mut self, wrote: usize) {
        match wrote >= self.encoded.len() {
            // The whole buffer can be filled again.
            true => self.encoded.clear(),
            false => self.encoded.advance(wrote),
        }
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
    fn has_more(&self) -> bool {
        let is_encoded = self.writing.as_ref().is_some_and(|writing| !writing.encoded.is_empty());
        !self.items.is_empty() || is_encoded || self.is_pinging
    }

    fn wake_by(&mut self, cx: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
    }

    /// Makes bytes of what waits, as much as one write takes.
    fn encode(&mut self, encoded: &mut BytesMut) {
        if encoded.capacity() > KEPT_BYTES {
            *encoded = BytesMut::new();
        }
        if std::mem::take(&mut self.is_pinging) {
            framing::put_ping(encoded);
        }
        while encoded.len() < WRITE_BYTES {
            let Some(frame) = self.next_frame() else { break };
            framing::put(&frame, encoded);
        }
    }

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

    /// Longest wait for what must come.
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

    /// A connection of frames that is written here, the half that is read, and its other end.
    fn socket() -> (Outbound, tokio::net::unix::OwnedReadHalf, tokio::net::UnixStream) {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let (read, write) = ours.into_split();
        (Outbound::to(WriteHalf::Unix(write)), read, theirs)
    }

    #[tokio::test]
    async fn what_a_socket_takes_in_pieces_arrives_whole() {
        let (outbound, _read, mut other) = socket();
        let path = "p".repeat(4_000);
        (1..=500).for_each(|id| outbound.send(id, pb::LookupRequest { path: path.clone(), ..Default::default() }));
        let (mut come, mut next) = (BytesMut::new(), 1);
        let mut writing = std::pin::pin!(std::future::poll_fn(|cx| outbound.poll_write(cx)));
        while next <= 500 {
            tokio::select! {
                ended = &mut writing => panic!("{ended:?}"),
                read = tokio::io::AsyncReadExt::read_buf(&mut other, &mut come) => assert!(read.unwrap() > 0),
                () = tokio::time::sleep(PATIENCE) => panic!("{next} never came whole"),
            }
            while let framing::Front::Message { bytes } = framing::front(&come, 1 << 20) {
                come.advance(framing::LENGTH_BYTES);
                let frame = pb::LookupFrame::decode(come.split_to(bytes)).unwrap();
                assert!(frame.id == next && matches!(frame.body, Some(Body::Request(ref asked)) if asked.path == path));
                next += 1;
            }
        }
    }

    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn who_looks_after_a_connection_is_told_of_what_others_do_not_write() {
        let (outbound, _read, _other) = socket();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let times = || woken.0.load(std::sync::atomic::Ordering::Relaxed);
        assert!(outbound.poll_write(&mut Context::from_waker(&waker)).is_pending());
        outbound.send(1, pb::LookupRequest::default());
        assert_eq!(times(), 0, "who asks wrote it");
        let _held: Vec<_> = (0..=FEW).map(|_| outbound.places.try_acquire().unwrap()).collect();
        outbound.send(2, pb::LookupRequest::default());
        assert_eq!(times(), 1);
    }
}
