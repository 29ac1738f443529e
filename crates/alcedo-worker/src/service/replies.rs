//! Layer 3: the replies of a stream, as the connection asks for them.
//!
//! Knows who asks, and whether it has taken all that there was. It must not know what replies are made of.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use alcedo_proto::v1;
use futures::stream::Stream;
use tokio::sync::Notify;
use tonic::Status;

use super::Door;
use super::stream::{Frames, Work};
use super::watching::{Watch, watch};
use crate::connection::Line;

/// What a stream hands out.
pub(super) type Reply = Result<v1::ReplyFrame, Status>;

/// The replies to a stream of frames.
pub(super) struct Replies<F: Frames> {
    work: Arc<Mutex<Work<F>>>,
    _watch: Watch,
}

/// How the connection asks for replies.
#[derive(Default)]
pub(super) struct AskedFor {
    /// So many times so far.
    pub(super) times: u64,
    /// It took all that there was and asked once more: it will ask again when it is woken.
    pub(super) is_content: bool,
    pub(super) has_taken: bool,
    waker: Option<Waker>,
    /// Woken by the next time that it asks.
    pub(super) watch: Option<Waker>,
}

impl<F: Frames> Replies<F> {
    /// Serves these frames. `line` is the connection; none where the caller is in this process. Must be called within a
    /// runtime.
    pub(super) fn new(door: Arc<Door>, line: Option<Line>, frames: F) -> Self {
        let (busy, draining) = (Arc::new(Notify::new()), door.draining.clone());
        let work = Arc::new(Mutex::new(Work::new(door, frames, Arc::clone(&busy))));
        let watch = Watch(tokio::spawn(watch(Arc::clone(&work), line, draining, busy)));
        Self { work, _watch: watch }
    }
}

/// Nothing that may panic runs while the work is half changed; what runs requests catches their panics.
pub(super) fn lock<F: Frames>(work: &Mutex<Work<F>>) -> MutexGuard<'_, Work<F>> {
    work.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<F: Frames> Stream for Replies<F> {
    type Item = Reply;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Reply>> {
        let mut work = lock(&self.work);
        work.asked.for_reply(cx);
        let reply = work.poll_reply(cx);
        work.asked.with(&reply);
        reply
    }
}

impl AskedFor {
    fn for_reply(&mut self, cx: &Context<'_>) {
        self.times += 1;
        if self.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        if let Some(watch) = self.watch.take() {
            watch.wake();
        }
    }

    /// The connection packs what it takes in a row into one write and then asks again; one that cannot write does not.
    fn with(&mut self, reply: &Poll<Option<Reply>>) {
        self.is_content = reply.is_pending() && !self.has_taken;
        self.has_taken = reply.is_ready();
    }

    pub(super) fn wake(&self) {
        self.waker.as_ref().inspect(|waker| waker.wake_by_ref());
    }
}
