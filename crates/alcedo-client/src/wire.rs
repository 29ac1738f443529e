//! The two halves of a connection that is read and written here, and where it leads.
//!
//! Knows TCP and Unix sockets. It must not know what travels over them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};

/// Where a connection leads.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// `host:port`.
    Tcp(Arc<str>),
    /// The path of a socket.
    Unix(Arc<str>),
}

/// What is written to, by whoever has something to write.
#[derive(Debug)]
pub(crate) enum WriteHalf {
    Tcp(tcp::OwnedWriteHalf),
    Unix(unix::OwnedWriteHalf),
}

/// What one task reads.
#[derive(Debug)]
pub(crate) enum ReadHalf {
    Tcp(tcp::OwnedReadHalf),
    Unix(unix::OwnedReadHalf),
}

/// Opens a connection.
pub(crate) async fn connect(place: &Place) -> io::Result<(ReadHalf, WriteHalf)> {
    Ok(match place {
        Place::Tcp(address) => {
            let socket = TcpStream::connect(&**address).await?;
            socket.set_nodelay(true)?;
            let (read, write) = socket.into_split();
            (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
        }
        Place::Unix(path) => {
            let (read, write) = UnixStream::connect(&**path).await?.into_split();
            (ReadHalf::Unix(read), WriteHalf::Unix(write))
        }
    })
}

impl WriteHalf {
    /// Writes what can be written now.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(half) => half.try_write(bytes),
            Self::Unix(half) => half.try_write(bytes),
        }
    }

    /// Writes what can be written, as soon as anything can. One task may wait at a time.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self {
                Self::Tcp(half) => ready!(half.as_ref().poll_write_ready(cx))?,
                Self::Unix(half) => ready!(half.as_ref().poll_write_ready(cx))?,
            }
            match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                wrote => return Poll::Ready(wrote),
            }
        }
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_read(cx, buffer),
            Self::Unix(half) => Pin::new(half).poll_read(cx, buffer),
        }
    }
}
