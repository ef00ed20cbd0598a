//! Bringing the own message to one party, again and again until it listens.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use protocol::Refusal;
use rustls::ClientConfig;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::frame::{FrameError, read_reply, write_message};
use super::{Message, Peer};
use crate::matrix::Row;
use crate::socket;

/// How long one try may take.
const TRY: Duration = Duration::from_secs(10);

/// Why a message is not with its party yet.
pub(super) enum PushError {
    /// It may listen later.
    Again(String),
    /// It listens and does not take it.
    Refused(Refusal),
}

fn again(error: impl Into<Box<dyn Error>>) -> PushError {
    PushError::Again(error.into().to_string())
}

fn handshake_failed(error: &io::Error) -> PushError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => {
            again("who answers there shows another key than the one that was registered")
        }
        Some(rustls::Error::AlertReceived(rustls::AlertDescription::UnrecognisedName)) => {
            again("it does not negotiate this experiment")
        }
        _ => again(error.to_string()),
    }
}

/// Tries once. That the party has taken the message is certain when this returns.
pub(super) async fn push(row: &Row, config: Arc<ClientConfig>, peer: &Peer, message: &Message) -> Result<(), PushError> {
    let tried = async {
        let stream = socket::dial(row, peer.address.host(), peer.address.port()).await.map_err(again)?;
        let handshake = TlsConnector::from(config).connect(message.topic.tls_name(), stream);
        let mut stream = handshake.await.map_err(|error| handshake_failed(&error))?;
        write_message(&mut stream, message).await.map_err(|error| handshake_failed(&error))?;
        // In TLS 1.3 the other side's opinion of the own certificate comes with its first words.
        let reply = read_reply(&mut stream).await.map_err(|error| match error {
            FrameError::Io(error) => handshake_failed(&error),
            other => again(other),
        })?;
        reply.map_err(PushError::Refused)?;
        // The other side waits for this end to know that its reply has come.
        stream.shutdown().await.map_err(again)
    };
    timeout(TRY, tried).await.unwrap_or_else(|_| Err(again(format!("no answer within {} s", TRY.as_secs()))))
}
