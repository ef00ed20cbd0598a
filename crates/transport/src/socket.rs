//! The one place that opens sockets: TCP from a row of the network matrix, Unix sockets in a component's folder.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::matrix::{Direction, Row};

/// How long a peer's machine may leave sent bytes unacknowledged before the connection counts as dead.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

fn must_be(direction: Direction, row: &Row) -> io::Result<()> {
    if row.direction == direction {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("the network matrix does not allow it: {row}")))
}

/// Listens as the row allows. Port 0 lets the system choose one.
#[expect(clippy::disallowed_methods, reason = "this is the one place that opens sockets")]
pub async fn listen(row: &Row, address: SocketAddr) -> io::Result<TcpListener> {
    must_be(Direction::In, row)?;
    TcpListener::bind(address).await
}

/// Dials as the row allows. All addresses of the name are tried in turn.
#[expect(clippy::disallowed_methods, reason = "this is the one place that opens sockets")]
pub async fn dial(row: &Row, host: &str, port: u16) -> io::Result<TcpStream> {
    must_be(Direction::Out, row)?;
    let stream = TcpStream::connect((host, port)).await?;
    tune(&stream)?;
    Ok(stream)
}

/// Sets what every connection of ours has: small messages leave at once, a silent peer is noticed.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let millis = u32::try_from(UNACKNOWLEDGED.as_millis()).expect("20 s fit");
    rustix::net::sockopt::set_tcp_user_timeout(stream, millis)?;
    Ok(())
}

/// An address of a Unix socket may have 108 bytes only, a folder's path more: so the folder is opened and named by its number.
struct Place<'path> {
    folder: OwnedFd,
    name: &'path OsStr,
}

impl<'path> Place<'path> {
    fn of(path: &'path Path) -> io::Result<Self> {
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the socket's path has no file name"))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { folder, name })
    }

    fn address(&self) -> io::Result<SocketAddrUnix> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd())).join(self.name);
        Ok(SocketAddrUnix::new(path)?)
    }
}

fn unix_socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?)
}

/// Binds a socket that only this user can open (mode 0600). What a killed process left there is replaced; if somebody still
/// listens, the error is `AddrInUse`.
pub fn bind_local(path: &Path) -> io::Result<UnixListener> {
    let place = Place::of(path)?;
    let address = place.address()?;
    match rustix::net::connect(unix_socket()?, &address) {
        Ok(()) | Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::AddrInUse.into()),
        Err(rustix::io::Errno::NOENT) => {}
        Err(rustix::io::Errno::CONNREFUSED) => rustix::fs::unlinkat(&place.folder, place.name, AtFlags::empty())?,
        Err(error) => return Err(error.into()),
    }
    let socket = unix_socket()?;
    // Before the file exists, so that there is no moment at which others could open it.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 64)?;
    UnixListener::from_std(socket.into())
}

/// Opens a connection to a socket that [`bind_local`] made.
pub async fn connect_local(path: &Path) -> io::Result<UnixStream> {
    let place = Place::of(path)?;
    let address = place.address()?;
    // A Unix socket connects at once or not at all, unless the listener's queue is full.
    let socket = tokio::task::spawn_blocking(move || {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &address)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        drop(place.folder);
        Ok::<OwnedFd, io::Error>(socket)
    });
    UnixStream::from_std(socket.await.map_err(io::Error::other)??.into())
}

/// The user at the other end, as the kernel knows it.
pub fn peer_uid(stream: &UnixStream) -> io::Result<u32> {
    Ok(stream.peer_cred()?.uid())
}

/// Whether the other end may command this process: the same user, or root.
pub fn is_own_peer(stream: &UnixStream) -> io::Result<bool> {
    let uid = peer_uid(stream)?;
    Ok(uid == 0 || uid == rustix::process::geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::matrix;

    #[tokio::test]
    async fn a_path_of_any_length_works_and_is_for_the_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a".repeat(100)).join("b".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join("control.sock");
        let listener = bind_local(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (_near, far) = tokio::join!(connect_local(&path), listener.accept());
        assert!(is_own_peer(&far.unwrap().0).unwrap());
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let listener = bind_local(&path).unwrap();
        assert_eq!(bind_local(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(path.exists());
        bind_local(&path).unwrap();
    }

    #[tokio::test]
    async fn a_row_that_goes_out_does_not_listen() {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let refused = listen(&matrix::NODE_TO_RESEARCHER, address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    }
}
