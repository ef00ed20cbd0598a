//! Messages on a stream: four bytes of length, big-endian, then the message. Nothing longer than the limit is read.

use std::io;

use bytes::Bytes;
use prost::Message as _;
use protocol::Refusal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Message;
use crate::convert::ConvertError;
use crate::convert::negotiation::{MAX_FRAME_BYTES, message, message_to_wire, reply, reply_to_wire};
use crate::wire;

/// The length's own bytes.
const HEAD: usize = size_of::<u32>();

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("its message has {0} bytes, and at most {MAX_FRAME_BYTES} are read")]
    TooLarge(u32),
    #[error("its message is malformed")]
    Malformed,
    #[error(transparent)]
    Convert(#[from] ConvertError),
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Bytes, FrameError> {
    let length = stream.read_u32().await?;
    let bytes = usize::try_from(length).ok().filter(|bytes| *bytes <= MAX_FRAME_BYTES - HEAD);
    let bytes = bytes.ok_or(FrameError::TooLarge(length))?;
    // Grows as bytes come: a length alone takes no memory.
    let mut frame = Vec::new();
    let limit = u64::try_from(bytes).expect("a frame is small");
    if stream.take(limit).read_to_end(&mut frame).await? < bytes {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(frame.into())
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), frame: Vec<u8>) -> io::Result<()> {
    let too_large = || io::Error::new(io::ErrorKind::InvalidInput, "the message is too large for a negotiation");
    let length = u32::try_from(frame.len()).ok().filter(|_| frame.len() <= MAX_FRAME_BYTES - HEAD).ok_or_else(too_large)?;
    stream.write_all(&[&length.to_be_bytes(), frame.as_slice()].concat()).await?;
    stream.flush().await
}

/// Reads what a party says.
pub(crate) async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> Result<Message, FrameError> {
    let frame = wire::Negotiation::decode(read(stream).await?).map_err(|_| FrameError::Malformed)?;
    Ok(message(frame)?)
}

pub(crate) async fn write_message(stream: &mut (impl AsyncWrite + Unpin), message: &Message) -> io::Result<()> {
    write(stream, message_to_wire(message).encode_to_vec()).await
}

/// Reads whether a message was taken.
pub(crate) async fn read_reply(stream: &mut (impl AsyncRead + Unpin)) -> Result<Result<(), Refusal>, FrameError> {
    let frame = wire::NegotiationReply::decode(read(stream).await?).map_err(|_| FrameError::Malformed)?;
    Ok(reply(&frame))
}

pub(crate) async fn write_reply(stream: &mut (impl AsyncWrite + Unpin), reply: &Result<(), Refusal>) -> io::Result<()> {
    write(stream, reply_to_wire(reply).encode_to_vec()).await
}
