//! Layer 3: the Unix socket beside the TCP listener.
//!
//! Knows how a path becomes a socket of this worker and of nobody else's, and that it is gone when the worker is. It
//! must not know who connects, or what is served.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::worker::{LISTEN_BACKLOG, StartError};

/// A socket file that this process made. Dropping it removes the file, unless somebody has put another one there.
#[derive(Debug)]
pub(crate) struct UnixSocket {
    path: PathBuf,
    device_and_inode: Option<(u64, u64)>,
}

impl UnixSocket {
    /// Listens at `path`. A socket that nobody listens on any more is replaced: it was left behind by a process that
    /// was killed.
    ///
    /// # Errors
    /// There is something else at this path, or it is in use, or it cannot be made.
    pub(crate) fn bind(path: &Path) -> Result<(UnixListener, Self), StartError> {
        let fail = |why: String| StartError::ListenUnix { path: path.to_owned(), why };
        let address = SockAddr::unix(path).map_err(|error| fail(format!("{error}; choose a shorter [listen_unix]")))?;
        make_room(path, &address).map_err(fail)?;
        let bind = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            // Before it is bound, so that there is no moment in which others may connect.
            rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
            socket.bind(&address)?;
            socket.listen(LISTEN_BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(UnixListener::from(socket))
        };
        let listener = bind().map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => fail("its directory does not exist".to_owned()),
            _ => fail(error.to_string()),
        })?;
        Ok((listener, Self { path: path.to_owned(), device_and_inode: device_and_inode(path) }))
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        if self.device_and_inode.is_some() && device_and_inode(&self.path) == self.device_and_inode {
            // What stays behind is replaced by the next worker.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn device_and_inode(path: &Path) -> Option<(u64, u64)> {
    let file = std::fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

/// Removes a socket that nobody listens on; says why the path cannot be used otherwise.
fn make_room(path: &Path, address: &SockAddr) -> Result<(), String> {
    let file = match std::fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    if !file.file_type().is_socket() {
        return Err("there is a file that is no socket; remove it, or choose another [listen_unix]".to_owned());
    }
    let connect = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Whoever has no room for another connection now is alive.
        socket.set_nonblocking(true)?;
        socket.connect(address)
    };
    match connect().map_err(|error: io::Error| error.kind()) {
        Err(io::ErrorKind::ConnectionRefused) => std::fs::remove_file(path)
            .map_err(|error| format!("the socket left behind there cannot be removed: {error}")),
        _ => Err("it is in use: another worker may be running; choose another [listen_unix]".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixStream;

    fn refused(path: &Path) -> String {
        match UnixSocket::bind(path) {
            Err(StartError::ListenUnix { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_is_for_this_user_alone_and_goes_with_the_worker() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alcedo.sock");
        let (listener, bound) = UnixSocket::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop((listener, bound));
        assert!(!path.exists());
    }

    #[test]
    fn a_living_workers_socket_and_what_is_no_socket_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alcedo.sock");
        let held = UnixSocket::bind(&path).unwrap();
        assert!(refused(&path).contains("it is in use"));
        UnixStream::connect(&path).unwrap();
        drop(held);
        std::fs::write(&path, "notes").unwrap();
        assert!(refused(&path).contains("no socket"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "notes");
    }

    #[test]
    fn what_a_killed_worker_left_behind_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alcedo.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (_listener, late) = UnixSocket::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        // A worker that ends late leaves its successor's socket alone.
        std::fs::remove_file(&path).unwrap();
        let _successor = UnixListener::bind(&path).unwrap();
        drop(late);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_path_that_cannot_be_a_socket_is_refused_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        assert!(refused(&dir.path().join("none/alcedo.sock")).contains("directory does not exist"));
        assert!(refused(&dir.path().join("x".repeat(200))).contains("shorter"));
    }
}
