//! Commands to a running daemon: JSON lines over the Unix socket of its folder. A command is one line; the daemon answers
//! with one or more lines and closes. A line is `{"schema": 1, "body": …}`. Command line, Python and web page use only this.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// The longest line, in bytes.
const MAX_LINE: u64 = 64 << 20;

/// What lines hold, and what they mean.
const SCHEMA: u32 = 1;

/// One line.
#[derive(Serialize, Deserialize)]
struct Line<T> {
    schema: u32,
    body: T,
}

/// What is looked at first: a body of another schema need not be readable.
#[derive(Deserialize)]
struct Head {
    schema: u32,
}

/// Why a command did not reach a daemon, or its answer not the caller.
#[derive(Debug, Error)]
pub enum ControlError {
    #[error("no daemon runs in {0}; start it first")]
    NotRunning(std::path::PathBuf),
    #[error("the local socket failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("a line on the local socket is malformed: {0}")]
    Malformed(String),
    #[error(
        "the daemon and this command are of different versions (lines of schema {found} and {SCHEMA}); restart the daemon"
    )]
    OtherSchema { found: u32 },
}

/// One end of a local command.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    peer_uid: u32,
    /// The part of the next line that has come.
    line: Vec<u8>,
}

impl Connection {
    /// Wraps an accepted or opened stream whose peer has been checked.
    pub fn new(stream: UnixStream) -> std::io::Result<Self> {
        let peer_uid = stream.peer_cred()?.uid();
        let (reader, writer) = stream.into_split();
        Ok(Self { reader: BufReader::new(reader), writer, peer_uid, line: Vec::new() })
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
        let mut line = serde_json::to_vec(&Line { schema: SCHEMA, body: value })
            .map_err(|error| ControlError::Malformed(error.to_string()))?;
        line.push(b'\n');
        Ok(self.writer.write_all(&line).await?)
    }

    /// The next line; `None` when the other end closed. Dropped before it ends, it loses nothing: the next call goes on.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ControlError> {
        let left = MAX_LINE.saturating_sub(self.line.len() as u64);
        let mut limited = (&mut self.reader).take(left);
        limited.read_until(b'\n', &mut self.line).await?;
        let line = std::mem::take(&mut self.line);
        match line.last() {
            None => Ok(None),
            Some(b'\n') => {
                let malformed = |error: serde_json::Error| {
                    let hint = "the daemon may be of another version than this command: restart it";
                    ControlError::Malformed(format!("{error}; {hint}"))
                };
                let Head { schema: found } = serde_json::from_slice(&line).map_err(malformed)?;
                if found != SCHEMA {
                    return Err(ControlError::OtherSchema { found });
                }
                serde_json::from_slice(&line).map(|line: Line<T>| Some(line.body)).map_err(malformed)
            }
            Some(_) => Err(ControlError::Malformed("it is cut short or longer than 64 MiB".into())),
        }
    }

    /// Waits until the other end closes; a daemon that serves a long command learns so that nobody listens any more.
    pub async fn closed(&mut self) {
        let mut rest = Vec::new();
        while matches!(self.reader.read_until(b'\n', &mut rest).await, Ok(read) if read > 0) {
            rest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_of_another_version_says_so_whatever_is_in_it() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(near).unwrap();
        far.write_all(b"{\"schema\":2,\"question\":\"?\"}\n[1]\n").await.unwrap();
        let refused = connection.receive::<Vec<u32>>().await.unwrap_err();
        assert!(matches!(refused, ControlError::OtherSchema { found: 2 }), "{refused}");
        let refused = connection.receive::<Vec<u32>>().await.unwrap_err();
        assert!(matches!(refused, ControlError::Malformed(_)), "{refused}");
        far.write_all(b"{\"status\":{}}\n").await.unwrap();
        let refused = connection.receive::<Vec<u32>>().await.unwrap_err().to_string();
        assert!(refused.contains("missing field `schema`") && refused.ends_with("restart it"), "{refused}");
    }

    #[tokio::test]
    async fn a_receive_that_is_dropped_in_mid_line_loses_nothing() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(near).unwrap();
        far.write_all(b"{\"schema\":1,\"body\":[1,").await.unwrap();
        tokio::select! {
            biased;
            _ = connection.receive::<Vec<u32>>() => panic!("the line is not whole"),
            () = std::future::ready(()) => {}
        }
        far.write_all(b"2]}\n").await.unwrap();
        assert_eq!(connection.receive::<Vec<u32>>().await.unwrap(), Some(vec![1, 2]));
        drop(far);
        assert!(connection.receive::<Vec<u32>>().await.unwrap().is_none());
    }
}
