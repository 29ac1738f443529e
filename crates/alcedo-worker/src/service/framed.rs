//! Layer 3: one connection that carries a lookup stream without gRPC.
//!
//! Knows how messages stand on it (`alcedo_proto::framing`), when it is read and when it is written. It must not know
//! lookups. One task owns the socket: it reads what is there, asks the stream for replies until it has none, and
//! writes them at once, so that a lookup of a hot row costs one wake-up, one read and one write.
//!
//! A client that does not read is not asked for: the stream is left alone then, and looked after by
//! [`super::watching`], while this goes on to read as far ahead as it may.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use alcedo_proto::framing::{self, Front, LENGTH_BYTES};
use alcedo_proto::v1;
use bytes::{Buf as _, BytesMut};
use futures::stream::Stream;
use prost::Message as _;
use tokio::io::{AsyncWrite as _, AsyncWriteExt as _};
use tokio::time::{Sleep, sleep, timeout};
use tonic::Status;

use super::replies::Replies;
use super::unread::failed;
use super::{Door, MAX_REQUEST_BYTES};
use crate::connection::Connection;
use crate::error::Error;

/// Room for one read: a hundred and more lookups by a handle.
const READ_BYTES: usize = 8 << 10;
/// Bytes that are read ahead of what the stream takes, unless one message is longer.
const READ_AHEAD_BYTES: usize = 64 << 10;
/// Replies are packed into writes of so many bytes, or of one reply that is longer.
const WRITE_BYTES: usize = 64 << 10;
/// A buffer that has grown beyond this is let go of when it is empty.
const KEPT_BYTES: usize = 256 << 10;
/// While messages wait and the stream takes none, the client hears so often that the connection lives: it gives up one
/// that is silent for 15 s.
const ALIVE_INTERVAL: Duration = Duration::from_secs(3);
/// After the last reply the client may go on to send for so long, which is ignored: closing at once would tell it that
/// the connection broke, and might take replies away that are under way.
const LINGER: Duration = Duration::from_secs(5);

/// Serves a connection that has said that it speaks frames, to its end.
pub(crate) async fn serve(connection: Connection, door: Arc<Door>) {
    let mut serving = Serving::new(connection, door);
    // Whatever is under way ends with a connection that breaks.
    if poll_fn(|cx| serving.poll_served(cx)).await.is_ok() {
        let Serving { connection, replies, .. } = serving;
        drop(replies);
        let _ = timeout(LINGER, let_go(connection)).await;
    }
}

/// Says the last word, and waits for the client to leave.
async fn let_go(mut connection: Connection) -> io::Result<()> {
    connection.shutdown().await?;
    let mut ignored = BytesMut::new();
    loop {
        ignored.clear();
        ignored.reserve(READ_BYTES);
        if poll_fn(|cx| connection.poll_bytes(cx, &mut ignored)).await? == 0 {
            return Ok(());
        }
    }
}

/// What has come of a client, between who reads it and who takes it.
#[derive(Default)]
struct Inbound {
    bytes: BytesMut,
    is_pinged: bool,
    /// Something came that is a use of the connection.
    is_used: bool,
    /// Why nothing more can be taken.
    violation: Option<Error>,
    /// Who waits for messages, and who waits for room.
    taker: Option<Waker>,
    filler: Option<Waker>,
}

/// The messages of a client as its stream takes them.
struct Taken(Arc<Mutex<Inbound>>);

/// A connection while it is served.
struct Serving {
    connection: Connection,
    replies: Replies<Taken>,
    inbound: Arc<Mutex<Inbound>>,
    /// What is still to be written.
    out: BytesMut,
    /// The stream has said its last word.
    is_over: bool,
    /// Runs while messages wait that the stream does not take.
    alive: Option<Pin<Box<Sleep>>>,
}

fn lock(inbound: &Mutex<Inbound>) -> MutexGuard<'_, Inbound> {
    inbound.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inbound {
    /// What stands at the front.
    fn front(&self) -> Front {
        framing::front(&self.bytes, MAX_REQUEST_BYTES)
    }

    /// Whether a message waits, or something that can be none.
    fn has_any(&self) -> bool {
        !matches!(self.front(), Front::Part { .. })
    }

    /// Memory grows with what has come, never with what was announced.
    fn make_room(&mut self) {
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_BYTES {
            self.bytes = BytesMut::new();
        }
        self.bytes.reserve(READ_BYTES);
    }

    fn take(&mut self) -> Option<Result<v1::LookupFrame, Error>> {
        loop {
            match self.front() {
                Front::Part { .. } => return None,
                Front::Ping => {
                    self.is_pinged = true;
                    self.bytes.advance(LENGTH_BYTES);
                }
                Front::Message { bytes } => {
                    let frame = v1::LookupFrame::decode(&self.bytes[LENGTH_BYTES..LENGTH_BYTES + bytes]);
                    self.is_used = true;
                    self.bytes.advance(LENGTH_BYTES + bytes);
                    return Some(frame.map_err(|error| Error::BadRequest(format!("a frame cannot be read: {error}"))));
                }
                Front::TooLong { bytes } => {
                    let why = format!("a frame of {bytes} bytes: at most {MAX_REQUEST_BYTES} are taken");
                    return Some(Err(Error::BadRequest(why)));
                }
            }
        }
    }
}

impl Stream for Taken {
    type Item = Result<v1::LookupFrame, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut inbound = lock(&self.0);
        let taken = inbound.take();
        let filler = taken.as_ref().and_then(|_| inbound.filler.take());
        let taken = match taken {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
            Some(Err(violation)) => {
                // The stream ends by this; what is said of it is said in a frame.
                let status = Status::invalid_argument(violation.to_string());
                inbound.violation = Some(violation);
                Poll::Ready(Some(Err(status)))
            }
            None => {
                if inbound.taker.as_ref().is_none_or(|taker| !taker.will_wake(cx.waker())) {
                    inbound.taker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        };
        drop(inbound);
        filler.into_iter().for_each(Waker::wake);
        taken
    }
}

impl Serving {
    /// Must be called within a runtime.
    fn new(connection: Connection, door: Arc<Door>) -> Self {
        let inbound = Arc::<Mutex<Inbound>>::default();
        let replies = Replies::new(door, Some(connection.line().clone()), Taken(Arc::clone(&inbound)));
        let out = BytesMut::from(&framing::MAGIC[..]);
        Self { connection, replies, inbound, out, is_over: false, alive: None }
    }

    /// Ready once the stream has said its last word and all of it is written, or the connection is broken or of no use.
    fn poll_served(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.connection.poll_over(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        loop {
            let has_read = match self.poll_fill(cx) {
                Poll::Ready(read) => read.map(|()| true)?,
                Poll::Pending => false,
            };
            // One that cannot write asks for nothing.
            let has_asked = self.out.is_empty();
            if has_asked {
                self.ask(cx);
            }
            let has_said = has_asked && !self.out.is_empty();
            match self.poll_write(cx) {
                Poll::Ready(wrote) => wrote?,
                Poll::Pending if has_read => continue,
                Poll::Pending => return Poll::Pending,
            }
            if self.is_over {
                return Poll::Ready(Ok(()));
            }
            if has_asked && !has_read && !has_said {
                return Poll::Pending;
            }
        }
    }

    /// Reads what is there, as far ahead as it may.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inbound = lock(&self.inbound);
        if inbound.bytes.len() >= READ_AHEAD_BYTES && inbound.has_any() {
            inbound.filler = Some(cx.waker().clone());
            return Poll::Pending;
        }
        inbound.make_room();
        if ready!(self.connection.poll_bytes(cx, &mut inbound.bytes))? == 0 {
            // Nobody is there to be answered.
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        // Whoever is polled here asks the stream next; only somebody else must be told.
        let taker = inbound.taker.take_if(|taker| !taker.will_wake(cx.waker()));
        drop(inbound);
        taker.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }

    /// Packs the replies that there are.
    fn ask(&mut self, cx: &mut Context<'_>) {
        while self.out.len() < WRITE_BYTES && !self.is_over {
            match Pin::new(&mut self.replies).poll_next(cx) {
                Poll::Ready(Some(Ok(reply))) => framing::put(&reply, &mut self.out),
                Poll::Ready(Some(Err(_))) => {
                    let violation = lock(&self.inbound).violation.take();
                    violation.iter().for_each(|error| framing::put(&failed(0, error), &mut self.out));
                    self.is_over = true;
                }
                Poll::Ready(None) => {
                    // A connection that ends without this was broken off: a worker that was killed says nothing.
                    framing::put(&failed(0, &Error::Draining), &mut self.out);
                    self.is_over = true;
                }
                Poll::Pending => break,
            }
        }
        let mut inbound = lock(&self.inbound);
        if std::mem::take(&mut inbound.is_used) {
            self.connection.note_use();
        }
        if std::mem::take(&mut inbound.is_pinged) {
            framing::put_ping(&mut self.out);
        }
        let is_deaf = inbound.has_any();
        drop(inbound);
        self.say_alive(is_deaf, cx);
    }

    /// Tells the client now and then that the connection lives, while nobody takes what it sends.
    fn say_alive(&mut self, is_deaf: bool, cx: &mut Context<'_>) {
        if !is_deaf {
            self.alive = None;
            return;
        }
        let alive = self.alive.get_or_insert_with(|| Box::pin(sleep(ALIVE_INTERVAL)));
        if alive.as_mut().poll(cx).is_ready() {
            self.alive = None;
            framing::put_ping(&mut self.out);
        }
    }

    /// Writes all that there is.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let wrote = ready!(Pin::new(&mut self.connection).poll_write(cx, &self.out))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(wrote);
        }
        if self.out.capacity() > KEPT_BYTES {
            self.out = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::builds::tests::Site;
    use crate::connection::{Accepted, Patience};

    #[tokio::test]
    async fn no_more_is_read_ahead_than_the_stream_may_take_soon() {
        let site = Site::new().await;
        let (ours, theirs) = UnixStream::pair().unwrap();
        [&ours, &theirs].iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
        let patience = Patience::new(&site.door().settings().connections, LINGER);
        let connection = Connection::new(Accepted::Own(theirs), patience, &Arc::default()).unwrap();
        let mut serving = Serving::new(connection, Arc::clone(site.door()));
        let other = tokio::net::UnixStream::from_std(ours).unwrap();
        let mut frames = BytesMut::new();
        while frames.len() < READ_AHEAD_BYTES {
            framing::put(&v1::LookupFrame { id: u64::MAX, body: None }, &mut frames);
        }
        // A client that sends as long as anything is taken.
        for _ in 0..100 {
            while other.try_write(&frames).is_ok() {}
            while let Poll::Ready(read) = poll_fn(|cx| Poll::Ready(serving.poll_fill(cx))).await {
                read.unwrap();
            }
            // The runtime looks at both sockets.
            sleep(Duration::from_millis(1)).await;
            if lock(&serving.inbound).filler.is_some() {
                break;
            }
        }
        let held = lock(&serving.inbound).bytes.len();
        assert!((READ_AHEAD_BYTES..4 * READ_AHEAD_BYTES).contains(&held), "{held}");
    }
}
