//! Layer 3: one accepted connection.
//!
//! Knows a socket, its place among the allowed connections, what its peer speaks, and for how long a peer may say
//! nothing, ask nothing or read nothing. Of HTTP/2 it knows the frame header only (RFC 9113, section 4.1), because
//! keep-alive pings are no use of a connection; it must not know calls. A socket gives its place back when it closes,
//! however that happens.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use alcedo_proto::framing;
use bytes::BytesMut;
use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tonic::transport::server::Connected;

use crate::config::ConnectionsConfig;
use crate::frames::Frames;
use crate::metrics::Metrics;

/// A peer has so long to send the HTTP/2 preface, or what stands for it.
pub(crate) const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);

/// For how long a connection may live and be of no use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Without a call.
    pub(crate) idle: Duration,
    /// Without reading a byte of what waits for it.
    pub(crate) stalled: Duration,
    /// At all; then it ends at the next boundary between messages.
    pub(crate) age: Duration,
    /// After its age, for what is under way; then it is broken off.
    pub(crate) grace: Duration,
}

impl Patience {
    pub(crate) fn new(config: &ConnectionsConfig, grace: Duration) -> Self {
        let ConnectionsConfig { idle_timeout, write_timeout, max_age, .. } = *config;
        Self { idle: idle_timeout, stalled: write_timeout, age: max_age, grace }
    }
}

/// An accepted socket on its way to the runtime that serves it.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// From a listener, with its place among the allowed connections.
    Peer(Peer, OwnedSemaphorePermit),
    /// One end of a pair whose other end the watchdog of this process holds.
    Own(std::os::unix::net::UnixStream),
    /// One end of a pipe whose other end a client in this process holds.
    Inside(DuplexStream),
}

/// A socket of somebody else.
#[derive(Debug)]
pub(crate) enum Peer {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Inside(DuplexStream),
}

/// What a peer speaks, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// HTTP/2, or something that nobody here knows.
    Http2,
    /// The frames of one lookup stream ([`framing`]).
    Frames,
}

/// What passes by, as far as it says whether the connection is of use.
#[derive(Debug)]
enum Traffic {
    Http2(Frames),
    /// Whoever serves it says when it is used.
    Framed,
}

/// What a call may know and want of the connection that it came on.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// The other end is this process' watchdog.
    pub(crate) is_own: bool,
    /// The other end is on this machine.
    pub(crate) is_near: bool,
    /// Streams end at the next boundary between messages from then on.
    pub(crate) ends: Instant,
    /// Longest time that an answer may wait for its reader.
    pub(crate) stalled: Duration,
    cut: Arc<Cut>,
}

#[derive(Debug, Default)]
struct Cut {
    is_cut: AtomicBool,
    reader: AtomicWaker,
}

impl Line {
    /// Breaks the connection off, with everything that waits on it.
    pub(crate) fn cut(&self) {
        self.cut.is_cut.store(true, Ordering::Release);
        self.cut.reader.wake();
    }
}

/// A connection that counts against the worker's bound.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    line: Line,
    patience: Patience,
    traffic: Traffic,
    /// First bytes that were looked at, and are still to be read.
    first: Vec<u8>,
    /// Runs until the preface has come, then from one use to the next, and at last to the end of the grace.
    waiting: Pin<Box<Sleep>>,
    used: Instant,
    broken_off: Instant,
    /// Runs while the socket takes no byte of what is to be written.
    writing: Option<Pin<Box<Sleep>>>,
    place: Option<OwnedSemaphorePermit>,
    metrics: Arc<Metrics>,
}

impl Connection {
    /// Takes over an accepted socket, on the runtime that will serve it.
    pub(crate) fn new(accepted: Accepted, patience: Patience, metrics: &Arc<Metrics>) -> io::Result<Self> {
        let is_own = matches!(accepted, Accepted::Own(_));
        let (socket, place) = match accepted {
            Accepted::Peer(Peer::Tcp(socket), place) => (Socket::Tcp(TcpStream::from_std(socket)?), Some(place)),
            Accepted::Peer(Peer::Unix(socket), place) => (Socket::Unix(UnixStream::from_std(socket)?), Some(place)),
            Accepted::Own(socket) => (Socket::Unix(UnixStream::from_std(socket)?), None),
            Accepted::Inside(pipe) => (Socket::Inside(pipe), None),
        };
        let is_near = match &socket {
            Socket::Tcp(socket) => socket.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback()),
            Socket::Unix(_) | Socket::Inside(_) => true,
        };
        let now = Instant::now();
        let ends = now + patience.age;
        let line = Line { is_own, is_near, ends, stalled: patience.stalled, cut: Arc::default() };
        if place.is_some() {
            metrics.connections.up();
        }
        Ok(Self {
            socket,
            line,
            patience,
            traffic: Traffic::Http2(Frames::default()),
            first: Vec::new(),
            waiting: Box::pin(sleep(PREFACE_TIMEOUT)),
            used: now,
            broken_off: ends + patience.grace,
            writing: None,
            place,
            metrics: Arc::clone(metrics),
        })
    }

    /// What a call may know of it.
    pub(crate) fn line(&self) -> &Line {
        &self.line
    }

    /// Waits until it is clear what the peer speaks. Bytes of HTTP/2 are still there for whoever reads next.
    ///
    /// # Errors
    /// The peer said too little in its time, or left.
    pub(crate) async fn spoken(&mut self) -> io::Result<Spoken> {
        poll_fn(|cx| self.poll_spoken(cx)).await
    }

    fn poll_spoken(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Spoken>> {
        loop {
            let Some(rest) = framing::MAGIC.strip_prefix(self.first.as_slice()) else {
                return Poll::Ready(Ok(Spoken::Http2));
            };
            if rest.is_empty() {
                self.first = Vec::new();
                self.traffic = Traffic::Framed;
                self.note_use();
                return Poll::Ready(Ok(Spoken::Frames));
            }
            if self.poll_over(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            let mut come = [0; framing::MAGIC.len()];
            let mut buffer = ReadBuf::new(&mut come[..rest.len()]);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.first.extend_from_slice(buffer.filled());
        }
    }

    /// Reads what is there of a connection that speaks frames; 0 bytes at its end.
    pub(crate) fn poll_bytes(&mut self, cx: &mut Context<'_>, bytes: &mut BytesMut) -> Poll<io::Result<usize>> {
        pin!(self.socket.read_buf(bytes)).poll(cx)
    }

    /// It was of use, now.
    pub(crate) fn note_use(&mut self) {
        self.used = Instant::now();
    }

    fn has_begun(&self) -> bool {
        match &self.traffic {
            Traffic::Http2(frames) => frames.has_begun(),
            Traffic::Framed => true,
        }
    }

    /// Ready once the connection is of no use any more.
    pub(crate) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.line.cut.reader.register(cx.waker());
        if self.line.cut.is_cut.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        while self.waiting.as_mut().poll(cx).is_ready() {
            let until = (self.used + self.patience.idle).min(self.broken_off);
            if !self.has_begun() || until <= Instant::now() {
                return Poll::Ready(());
            }
            self.waiting.set(sleep_until(until));
        }
        Poll::Pending
    }

    /// The socket's word on a write, or an error if it has taken nothing for too long.
    fn progress<T>(&mut self, wrote: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.writing = None;
            return wrote;
        }
        let stalled = self.patience.stalled;
        let writing = self.writing.get_or_insert_with(|| Box::pin(sleep(stalled)));
        writing.as_mut().poll(cx).map(|()| {
            self.metrics.connections_stalled_total.up();
            Err(io::ErrorKind::TimedOut.into())
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.place.is_some() {
            self.metrics.connections.down();
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Line;

    fn connect_info(&self) -> Line {
        self.line.clone()
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Inside(pipe) => Pin::new(pipe).poll_read(cx, buffer),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let connection = self.get_mut();
        if connection.poll_over(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let had = buffer.filled().len();
        let read = if connection.first.is_empty() {
            Pin::new(&mut connection.socket).poll_read(cx, buffer)
        } else {
            let again = connection.first.len().min(buffer.remaining());
            buffer.put_slice(&connection.first[..again]);
            connection.first.drain(..again);
            Poll::Ready(Ok(()))
        };
        if let Traffic::Http2(frames) = &mut connection.traffic
            && frames.is_used_by(buffer.filled().get(had..).unwrap_or_default())
        {
            connection.note_use();
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let connection = self.get_mut();
        let wrote = match &mut connection.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Socket::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
            Socket::Inside(pipe) => Pin::new(pipe).poll_write(cx, bytes),
        };
        connection.progress(wrote, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let connection = self.get_mut();
        let wrote = match &mut connection.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Socket::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Socket::Inside(pipe) => Pin::new(pipe).poll_write_vectored(cx, slices),
        };
        connection.progress(wrote, cx)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.socket {
            Socket::Tcp(socket) => socket.is_write_vectored(),
            Socket::Unix(socket) => socket.is_write_vectored(),
            Socket::Inside(pipe) => pipe.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Socket::Unix(socket) => Pin::new(socket).poll_flush(cx),
            Socket::Inside(pipe) => Pin::new(pipe).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Socket::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            Socket::Inside(pipe) => Pin::new(pipe).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    const PATIENCE: Patience = Patience {
        idle: Duration::from_secs(300),
        stalled: Duration::from_secs(30),
        age: Duration::from_secs(1_800),
        grace: Duration::from_secs(30),
    };
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

    fn pair() -> (Connection, UnixStream) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let connection = Connection::new(Accepted::Own(theirs), PATIENCE, &Arc::default()).unwrap();
        (connection, UnixStream::from_std(ours).unwrap())
    }

    /// How long it takes until a connection gives its peer up.
    async fn given_up(connection: &mut Connection) -> Duration {
        let (began, mut buffer) = (Instant::now(), [0; 64]);
        while connection.read(&mut buffer).await.is_ok() {}
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_is_given_up_soon() {
        let (mut connection, _peer) = pair();
        assert_eq!(given_up(&mut connection).await, PREFACE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn pings_do_not_keep_an_idle_connection() {
        let (mut connection, mut peer) = pair();
        peer.write_all(PREFACE).await.unwrap();
        let pinging = async {
            loop {
                sleep(Duration::from_secs(10)).await;
                if peer.write_all(&PING).await.is_err() {
                    return;
                }
            }
        };
        let took = tokio::select! {
            took = given_up(&mut connection) => took,
            () = pinging => panic!("the peer left"),
        };
        assert!(took >= PATIENCE.idle && took < PATIENCE.idle + Duration::from_secs(11), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_in_use_lives_for_its_age_and_grace() {
        let (mut connection, mut peer) = pair();
        peer.write_all(PREFACE).await.unwrap();
        let calling = async {
            loop {
                sleep(Duration::from_secs(60)).await;
                if peer.write_all(&[0, 0, 0, 1, 0, 0, 0, 0, 1]).await.is_err() {
                    return;
                }
            }
        };
        let took = tokio::select! {
            took = given_up(&mut connection) => took,
            () = calling => panic!("the peer left"),
        };
        let age = PATIENCE.age + PATIENCE.grace;
        assert!(took >= age && took < age + Duration::from_secs(2), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_no_bytes_is_given_up() {
        let (mut connection, _peer) = pair();
        let began = Instant::now();
        let failed = connection.write_all(&vec![0; 64 << 20]).await.unwrap_err();
        assert_eq!((failed.kind(), began.elapsed()), (io::ErrorKind::TimedOut, PATIENCE.stalled));
        assert_eq!(connection.metrics.connections_stalled_total.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_bytes_say_what_is_spoken_and_none_of_another_speech_is_lost() {
        for cut in 1..framing::MAGIC.len() {
            let (mut connection, mut peer) = pair();
            let (first, last) = framing::MAGIC.split_at(cut);
            let said = async {
                peer.write_all(first).await.unwrap();
                sleep(Duration::from_secs(1)).await;
                peer.write_all(last).await.unwrap();
            };
            let (spoken, ()) = tokio::join!(connection.spoken(), said);
            assert_eq!(spoken.unwrap(), Spoken::Frames);
        }
        let almost = b"ALCEDO!1 and more";
        for other in [PREFACE, almost, b"GET / HTTP/1.1"] {
            let (mut connection, mut peer) = pair();
            peer.write_all(other).await.unwrap();
            assert_eq!(connection.spoken().await.unwrap(), Spoken::Http2);
            drop(peer);
            let mut all = Vec::new();
            connection.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, other);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_half_of_it_is_given_up_like_one_who_says_nothing() {
        for said in [&b""[..], &framing::MAGIC[..7]] {
            let (mut connection, mut peer) = pair();
            peer.write_all(said).await.unwrap();
            let began = Instant::now();
            let failed = connection.spoken().await.unwrap_err();
            assert_eq!((failed.kind(), began.elapsed()), (io::ErrorKind::TimedOut, PREFACE_TIMEOUT));
            let (mut connection, mut peer) = pair();
            peer.write_all(said).await.unwrap();
            drop(peer);
            assert_eq!(connection.spoken().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_is_noticed_at_once() {
        let (mut connection, mut peer) = pair();
        peer.write_all(PREFACE).await.unwrap();
        let line = connection.connect_info();
        let began = Instant::now();
        let (took, ()) = tokio::join!(given_up(&mut connection), async { line.cut() });
        assert!(took.is_zero() && began.elapsed().is_zero());
    }
}
