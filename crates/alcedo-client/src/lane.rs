//! One connection that carries a lookup stream without gRPC, and the task that looks after it.
//!
//! Knows how messages stand on it (`alcedo_proto::framing`), and what its end means. It must not know who asked what:
//! `replies` takes each frame, as it does those of gRPC. The task reads, and writes what those who ask did not write
//! themselves; it takes all frames that are there before those who wait for them have their turn.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use alcedo_proto::framing::{self, Front, LENGTH_BYTES};
use alcedo_proto::v1 as pb;
use bytes::{Buf as _, BytesMut};
use pb::reply_frame::Body;
use prost::Message as _;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::ending::End;
use crate::error::Error;
use crate::health::Health;
use crate::outbound::Outbound;
use crate::replies::{Ending, MAX_REPLY_BYTES, refused};
use crate::stream::Stream;
use crate::transport::{CONNECT_TIMEOUT, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};
use crate::wire::{Place, ReadHalf, WriteHalf, connect};

/// After a connection of frames could not be opened, or broke while it was young, lookups stay with gRPC for so long:
/// what stands between the two seldom changes.
const PAUSE: Duration = Duration::from_secs(60);
/// A connection that breaks within this time would be opened and broken again and again.
const YOUNG: Duration = Duration::from_secs(10);
/// How long a worker may take to say that it speaks frames.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// Least and most room for one read; in between it grows with what has come.
const READ_BYTES: usize = 16 << 10;
const MOST_READ_BYTES: usize = 1 << 20;
/// From so many bytes on a frame is not copied out of what was read, but keeps it.
const SHARED_BYTES: usize = 16 << 10;
/// A buffer that has grown beyond this is let go of when it is empty.
const KEPT_BYTES: usize = 256 << 10;

/// Whether it is no use to open a connection of frames to a worker, for now.
#[derive(Debug, Default)]
pub(crate) struct Pause(Mutex<Option<Instant>>);

impl Pause {
    pub(crate) fn begin(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + PAUSE);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|until| until <= Instant::now())
    }
}

/// An open connection of frames. It lives as long as somebody holds it.
#[derive(Debug)]
pub(crate) struct Lane {
    stream: Arc<Stream>,
    task: tokio::task::AbortHandle,
}

/// Opens one.
///
/// # Errors
/// There is no connection, or nobody at its other end who speaks frames.
pub(crate) async fn open(place: &Place, worker: Arc<str>, health: Arc<Health>, pause: &Arc<Pause>) -> io::Result<Lane> {
    let (mut read, write) = timeout(CONNECT_TIMEOUT, connect(place)).await??;
    timeout(HELLO_TIMEOUT, greet(&mut read, &write)).await??;
    tracing::debug!(%worker, ?place, "lookups travel in frames from now on");
    let stream = Arc::new(Stream::new(Outbound::to(write), health));
    let task = tokio::spawn(run(worker, read, Arc::clone(&stream), Arc::clone(pause))).abort_handle();
    Ok(Lane { stream, task })
}

async fn greet(read: &mut ReadHalf, write: &WriteHalf) -> io::Result<()> {
    let mut said = 0;
    while said < framing::MAGIC.len() {
        said += poll_fn(|cx| write.poll_write(cx, &framing::MAGIC[said..])).await?;
    }
    let mut answer = [0; framing::MAGIC.len()];
    read.read_exact(&mut answer).await?;
    match answer == framing::MAGIC {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak frames")),
    }
}

impl Lane {
    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.task.abort();
        self.stream.outbound.close();
    }
}

/// Looks after the connection to its end. It is a future and not a function's body, so that the end of a runtime that
/// never polled it ends the calls as well.
fn run(
    worker: Arc<str>,
    half: ReadHalf,
    stream: Arc<Stream>,
    pause: Arc<Pause>,
) -> impl Future<Output = ()> + Send + 'static {
    let mut ending = Ending::new(stream);
    async move {
        let opened = Instant::now();
        let mut reading = Reading { half, bytes: BytesMut::new(), silence: Silence::new() };
        ending.end = poll_fn(|cx| reading.poll_end(&ending.stream, cx)).await;
        if matches!(ending.end, End::Broken(_)) && opened.elapsed() < YOUNG {
            pause.begin();
        }
        tracing::debug!(%worker, end = ?ending.end, "connection of frames ended");
    }
}

/// The connection as its task sees it.
struct Reading {
    half: ReadHalf,
    /// What has come and is not yet a whole frame.
    bytes: BytesMut,
    silence: Silence,
}

impl Reading {
    fn poll_end(&mut self, stream: &Stream, cx: &mut Context<'_>) -> Poll<End> {
        while let Poll::Ready(read) = self.poll_read(cx) {
            match read {
                Ok(0) => return Poll::Ready(self.at_end()),
                Ok(_) => {
                    self.silence.is_broken();
                    if let Err(end) = self.take(stream) {
                        return Poll::Ready(end);
                    }
                }
                Err(error) => return Poll::Ready(End::Broken(error.to_string())),
            }
        }
        match self.silence.poll(cx) {
            Poll::Ready(Quiet::Ask) => stream.outbound.ping(),
            Poll::Ready(Quiet::GiveUp) => {
                let silent = KEEPALIVE_INTERVAL + KEEPALIVE_TIMEOUT;
                return Poll::Ready(End::Broken(format!("nothing came for {silent:?}")));
            }
            Poll::Pending => {}
        }
        stream.outbound.poll_write(cx).map(|wrote| match wrote {
            Ok(()) => End::Broken("it was closed on this side".to_owned()),
            Err(error) => End::Broken(error.to_string()),
        })
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_BYTES {
            self.bytes = BytesMut::new();
        }
        // Memory grows with what has come, never with what was announced.
        self.bytes.reserve(self.bytes.len().clamp(READ_BYTES, MOST_READ_BYTES));
        pin!(self.half.read_buf(&mut self.bytes)).poll(cx)
    }

    /// A worker that drains, or lets go of an old connection, says so before.
    fn at_end(&self) -> End {
        let place = if self.bytes.is_empty() { "between two frames" } else { "in the middle of a frame" };
        End::Broken(format!("it ended {place}"))
    }

    /// Takes all frames that are there.
    fn take(&mut self, stream: &Stream) -> Result<(), End> {
        loop {
            match framing::front(&self.bytes, MAX_REPLY_BYTES) {
                Front::Part { .. } => return Ok(()),
                Front::Ping => self.bytes.advance(LENGTH_BYTES),
                Front::Message { bytes } => {
                    let frame = self.frame(bytes).map_err(|error| End::Broken(error.to_string()))?;
                    match frame.body {
                        // It is about the connection, which ends by it.
                        Some(Body::Failure(failure)) if frame.id == 0 => {
                            return Err(refused(Error::from_failure(failure)));
                        }
                        _ => stream.take(frame).map_err(End::Broken)?,
                    }
                }
                Front::TooLong { bytes } => return Err(End::Broken(format!("a frame of {bytes} bytes"))),
            }
        }
    }

    /// The frame at the front, of so many bytes.
    fn frame(&mut self, bytes: usize) -> Result<pb::ReplyFrame, prost::DecodeError> {
        if bytes >= SHARED_BYTES {
            self.bytes.advance(LENGTH_BYTES);
            return pb::ReplyFrame::decode(self.bytes.split_to(bytes).freeze());
        }
        let frame = pb::ReplyFrame::decode(&self.bytes[LENGTH_BYTES..LENGTH_BYTES + bytes]);
        self.bytes.advance(LENGTH_BYTES + bytes);
        frame
    }
}

/// For how long nothing has come.
struct Silence {
    timer: Pin<Box<Sleep>>,
    heard: Instant,
    asked: Option<Instant>,
}

/// What is to be done about it.
enum Quiet {
    Ask,
    GiveUp,
}

impl Silence {
    fn new() -> Self {
        Self { timer: Box::pin(sleep(KEEPALIVE_INTERVAL)), heard: Instant::now(), asked: None }
    }

    /// Something has come.
    fn is_broken(&mut self) {
        (self.heard, self.asked) = (Instant::now(), None);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Quiet> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let due = match self.asked {
                Some(asked) => asked + KEEPALIVE_TIMEOUT,
                None => self.heard + KEEPALIVE_INTERVAL,
            };
            if now < due {
                self.timer.as_mut().reset(due);
                continue;
            }
            if self.asked.replace(now).is_some() {
                return Poll::Ready(Quiet::GiveUp);
            }
            self.timer.as_mut().reset(now + KEEPALIVE_TIMEOUT);
            // The timer must be polled once more to wake anybody.
            cx.waker().wake_by_ref();
            return Poll::Ready(Quiet::Ask);
        }
        Poll::Pending
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{UnixListener, UnixStream};

    /// A connection of frames and its other end, which has greeted.
    async fn pair() -> (Lane, UnixStream) {
        pair_by(&Arc::default()).await
    }

    async fn pair_by(pause: &Arc<Pause>) -> (Lane, UnixStream) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let place = Place::Unix(path.to_str().unwrap().into());
        let pause = Arc::clone(pause);
        let opening = tokio::spawn(async move { open(&place, "w".into(), Arc::default(), &pause).await.unwrap() });
        let (mut other, _) = listener.accept().await.unwrap();
        let mut hello = [0; 8];
        other.read_exact(&mut hello).await.unwrap();
        other.write_all(&hello).await.unwrap();
        (opening.await.unwrap(), other)
    }

    fn is_usable(lane: &Lane) -> bool {
        lane.stream().usable.load(Ordering::Acquire)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_worker_is_asked_and_given_up_and_one_that_answers_is_not() {
        let (lane, mut other) = pair().await;
        let (began, mut ping) = (Instant::now(), [9; 4]);
        for _ in 0..3 {
            other.read_exact(&mut ping).await.unwrap();
            assert_eq!(ping, [0; 4]);
            other.write_all(&ping).await.unwrap();
        }
        let three = began.elapsed();
        assert!(three >= 3 * KEEPALIVE_INTERVAL && three < 3 * KEEPALIVE_INTERVAL + KEEPALIVE_TIMEOUT, "{three:?}");
        assert!(is_usable(&lane));
        other.read_exact(&mut ping).await.unwrap();
        let asked = Instant::now();
        assert_eq!(other.read(&mut ping).await.unwrap(), 0);
        assert!(asked.elapsed() >= KEEPALIVE_TIMEOUT && !is_usable(&lane), "{:?}", asked.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_breaks_young_makes_a_pause_that_ends_and_an_old_one_makes_none() {
        for (age, is_paused) in [(YOUNG / 2, true), (YOUNG, false)] {
            let pause = Arc::default();
            let (lane, other) = pair_by(&pause).await;
            tokio::time::advance(age).await;
            assert!(pause.is_over());
            drop(other);
            while is_usable(&lane) {
                tokio::task::yield_now().await;
            }
            assert_eq!(!pause.is_over(), is_paused, "{age:?}");
            tokio::time::advance(PAUSE).await;
            assert!(pause.is_over());
        }
    }
}
