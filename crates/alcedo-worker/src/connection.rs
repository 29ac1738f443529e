//! Layer 3: one accepted connection.
//!
//! Knows a socket, its place among the allowed connections, and that a peer must say something soon. It must not know
//! HTTP. A socket gives its place back when it closes, however that happens.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// A peer has so long to send the HTTP/2 preface; from then on keep-alive pings watch it.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of the preface (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;

/// A connection that counts against the worker's bound.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: TcpStream,
    /// Runs until the preface has come.
    waiting: Option<Pin<Box<Sleep>>>,
    received_bytes: usize,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// Takes over an accepted socket, on the runtime that will serve it.
    pub(crate) fn new(socket: std::net::TcpStream, place: OwnedSemaphorePermit) -> io::Result<Self> {
        let socket = TcpStream::from_std(socket)?;
        let waiting = Some(Box::pin(sleep(PREFACE_TIMEOUT)));
        Ok(Self { socket, waiting, received_bytes: 0, _place: place })
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.socket.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let had = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if let Some(waiting) = &mut self.waiting {
            if read.is_pending() {
                ready!(waiting.as_mut().poll(cx));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.received_bytes += buffer.filled().len() - had;
            if self.received_bytes >= PREFACE_BYTES {
                self.waiting = None;
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
