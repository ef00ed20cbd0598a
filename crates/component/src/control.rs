//! Commands to a running daemon: JSON lines over the Unix socket of its folder. A command is one line; the daemon answers
//! with one or more lines and closes. Command line, Python and web page use only this.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// The longest line, in bytes.
const MAX_LINE: u64 = 64 << 20;

/// Why a command did not reach a daemon, or its answer not the caller.
#[derive(Debug, Error)]
pub enum ControlError {
    #[error("no daemon runs in {0}; start it first")]
    NotRunning(std::path::PathBuf),
    #[error("the local socket failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("a line on the local socket is malformed: {0}")]
    Malformed(String),
}

/// One end of a local command.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    peer_uid: u32,
}

impl Connection {
    /// Wraps an accepted or opened stream whose peer has been checked.
    pub fn new(stream: UnixStream) -> std::io::Result<Self> {
        let peer_uid = stream.peer_cred()?.uid();
        let (reader, writer) = stream.into_split();
        Ok(Self { reader: BufReader::new(reader), writer, peer_uid })
    }

    /// Opens the socket of the daemon that runs in `folder`.
    pub async fn open(socket: &Path) -> Result<Self, ControlError> {
        match transport::socket::connect_local(socket).await {
            Ok(stream) => Ok(Self::new(stream)?),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) => {
                Err(ControlError::NotRunning(socket.parent().unwrap_or(socket).to_owned()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The user at the other end.
    pub fn peer_uid(&self) -> u32 {
        self.peer_uid
    }

    pub async fn send(&mut self, value: &impl Serialize) -> Result<(), ControlError> {
        let mut line = serde_json::to_vec(value).map_err(|error| ControlError::Malformed(error.to_string()))?;
        line.push(b'\n');
        Ok(self.writer.write_all(&line).await?)
    }

    /// The next line; `None` when the other end closed.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ControlError> {
        let mut line = Vec::new();
        let mut limited = (&mut self.reader).take(MAX_LINE);
        let read = limited.read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Ok(None);
        }
        if line.last() != Some(&b'\n') {
            return Err(ControlError::Malformed("it is cut short or longer than 64 MiB".into()));
        }
        serde_json::from_slice(&line).map(Some).map_err(|error| ControlError::Malformed(error.to_string()))
    }

    /// Waits until the other end closes; a daemon that serves a long command learns so that nobody listens any more.
    pub async fn closed(&mut self) {
        let mut rest = Vec::new();
        while matches!(self.reader.read_until(b'\n', &mut rest).await, Ok(read) if read > 0) {
            rest.clear();
        }
    }
}
