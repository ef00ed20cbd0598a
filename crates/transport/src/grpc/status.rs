//! Refusals as gRPC statuses and back. The refusal travels in the status's details; the code is for the tools of others.

use prost::Message;
use protocol::{Refusal, RefusalCode};
use tonic::{Code, Status};

use crate::convert;
use crate::link::LinkError;
use crate::wire;

pub(super) fn from_refusal(refusal: &Refusal) -> Status {
    use RefusalCode as Why;
    let code = match refusal.code {
        Why::TokenInvalid | Why::TokenExpired | Why::TokenUsed | Why::TokenRevoked | Why::NotEnrolled => {
            Code::Unauthenticated
        }
        Why::NodeRevoked => Code::PermissionDenied,
        Why::Malformed | Why::TooLarge => Code::InvalidArgument,
        Why::TaskUnknown => Code::NotFound,
        Why::Damaged => Code::DataLoss,
        Why::QuotaExceeded => Code::ResourceExhausted,
        Why::Unavailable => Code::Unavailable,
        Why::Internal => Code::Internal,
        _ => Code::FailedPrecondition,
    };
    let details = convert::refusal_to_wire(refusal).encode_to_vec();
    Status::with_details(code, refusal.code.name(), details.into())
}

/// What the connection suffered, without a refusal: the other side tries again, from the last good chunk.
pub(super) fn broken(sentence: &str) -> Status {
    Status::unavailable(sentence)
}

/// A chunk that was not taken. No refusal either: sent again, it may be good.
pub(super) fn damaged(sentence: &str) -> Status {
    Status::data_loss(sentence)
}

/// Whether the peer said something that no honest and healthy one says.
pub(super) fn is_fault(status: &Status) -> bool {
    matches!(status.code(), Code::InvalidArgument | Code::DataLoss)
}

/// What a call's status means to a node.
pub(super) fn to_link_error(status: &Status) -> LinkError {
    if let Some(refusal) = refusal_within(status) {
        return LinkError::Refused(refusal);
    }
    match status.code() {
        Code::Unimplemented => LinkError::Refused(Refusal::new(
            RefusalCode::Incompatible,
            "the researcher does not know this call: update its software",
        )),
        // Set by the decoder on this side.
        Code::OutOfRange => {
            LinkError::Refused(Refusal::new(RefusalCode::TooLarge, "the researcher sent a message that is too large"))
        }
        _ => LinkError::Broken(chain(status)),
    }
}

fn refusal_within(status: &Status) -> Option<Refusal> {
    let refusal = wire::Refusal::decode(status.details()).ok()?;
    if refusal.code.is_empty() { None } else { Some(convert::refusal(&refusal)) }
}

/// Tells a stream that broke from one on which nonsense came; the latter gets a refusal.
pub(super) fn nonsense(status: &Status) -> Option<Refusal> {
    match status.code() {
        Code::OutOfRange => Some(Refusal::new(RefusalCode::TooLarge, "the message is too large")),
        // tonic's word for what prost cannot decode.
        Code::Internal if status.message().contains("decode") => {
            Some(Refusal::new(RefusalCode::Malformed, "the message is malformed"))
        }
        _ => None,
    }
}

/// The status's words with those of its causes: "h2 protocol error" alone helps nobody.
fn chain(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = error.source();
    }
    text
}
