//! Direct key negotiation.

use super::{ConvertError, MAX_WORD_CHARS, at_most, id, malformed, refusal, refusal_to_wire};
use crate::negotiation::{Message, Party, Purpose, Topic};
use crate::wire;

/// The largest message with its length, in bytes.
pub(crate) const MAX_FRAME_BYTES: usize = 256 << 10;

fn party(field: &'static str, text: &str) -> Result<Party, ConvertError> {
    text.parse().map_err(|_| malformed(field, "the id of a node or of a researcher"))
}

fn purpose(name: &str) -> Result<Purpose, ConvertError> {
    at_most("purpose", MAX_WORD_CHARS, name.chars().count())?;
    Purpose::ALL.into_iter().find(|purpose| purpose.name() == name).ok_or(ConvertError::Unknown)
}

pub(crate) fn message(message: wire::Negotiation) -> Result<Message, ConvertError> {
    Ok(Message {
        topic: Topic {
            researcher: id("researcher", &message.researcher)?,
            experiment: id("experiment", &message.experiment)?,
            round: message.round,
            attempt: message.attempt,
            series: message.series,
        },
        from: party("from", &message.from)?,
        to: party("to", &message.to)?,
        purpose: purpose(&message.purpose)?,
        payload: message.payload,
    })
}

pub(crate) fn message_to_wire(message: &Message) -> wire::Negotiation {
    let Message { topic, from, to, purpose, payload } = message;
    wire::Negotiation {
        researcher: topic.researcher.to_string(),
        experiment: topic.experiment.to_string(),
        round: topic.round,
        attempt: topic.attempt,
        series: topic.series,
        from: from.to_string(),
        to: to.to_string(),
        purpose: purpose.name().to_owned(),
        payload: payload.clone(),
    }
}

pub(crate) fn reply(reply: &wire::NegotiationReply) -> Result<(), protocol::Refusal> {
    reply.refusal.as_ref().map_or(Ok(()), |given| Err(refusal(given)))
}

pub(crate) fn reply_to_wire(reply: &Result<(), protocol::Refusal>) -> wire::NegotiationReply {
    wire::NegotiationReply { refusal: reply.as_ref().err().map(refusal_to_wire) }
}
