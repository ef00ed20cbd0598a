//! The one place where bytes from the network become valid types, and back. Nobody else looks into a message, nobody checks
//! again. The limits are those that `federation.proto` states.

pub(crate) mod bulk;
pub(crate) mod control;
pub(crate) mod enrolment;
pub(crate) mod negotiation;
#[cfg(test)]
mod tests;

use std::str::FromStr;

use bytes::Bytes;
use protocol::{Digest, Refusal, RefusalCode};
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::wire;

/// The largest message of any kind that is read, in bytes; a message's own limit may be lower.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// The largest blob, in bytes.
pub const MAX_BLOB_BYTES: u64 = 1 << 40;

const MAX_NAME_CHARS: usize = 128;
const MAX_WORD_CHARS: usize = 64;
const MAX_SENTENCE_CHARS: usize = 2_000;

/// Why bytes are not a message, or a message is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ConvertError {
    #[error("`{field}` is malformed: expected {expected}")]
    Malformed { field: &'static str, expected: &'static str },
    #[error("`{field}` is too large: at most {limit} allowed, found {found}")]
    TooLarge { field: &'static str, limit: usize, found: usize },
    #[error("the message is of a kind that this version does not know")]
    Unknown,
}

impl From<ConvertError> for Refusal {
    fn from(error: ConvertError) -> Self {
        let code = match error {
            ConvertError::Malformed { .. } | ConvertError::Unknown => RefusalCode::Malformed,
            ConvertError::TooLarge { .. } => RefusalCode::TooLarge,
        };
        Self::new(code, error.to_string())
    }
}

fn malformed(field: &'static str, expected: &'static str) -> ConvertError {
    ConvertError::Malformed { field, expected }
}

fn at_most(field: &'static str, limit: usize, found: usize) -> Result<(), ConvertError> {
    if found > limit { Err(ConvertError::TooLarge { field, limit, found }) } else { Ok(()) }
}

fn id<T: FromStr>(field: &'static str, text: &str) -> Result<T, ConvertError> {
    text.parse().map_err(|_| malformed(field, "an id"))
}

/// Whether a character takes no place of its own or turns the direction of writing: with them a text can look like another one
/// (Unicode Technical Report 36, sections 2.5 and 2.10).
fn is_invisible(char: char) -> bool {
    matches!(char, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A text for people on one line: not empty, no control characters; what is invisible is replaced.
fn line(field: &'static str, text: String, limit: usize) -> Result<String, ConvertError> {
    at_most(field, limit, text.chars().count())?;
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(malformed(field, "a text without control characters"));
    }
    Ok(if text.contains(is_invisible) { printable(&text, limit) } else { text })
}

/// Replaces what a terminal or a log could take for a command and what a person would not see, and cuts what is too long.
fn printable(text: &str, limit: usize) -> String {
    text.chars().take(limit).map(|char| if char.is_control() || is_invisible(char) { '\u{fffd}' } else { char }).collect()
}

fn required<T>(field: &'static str, value: Option<T>) -> Result<T, ConvertError> {
    value.ok_or(malformed(field, "a value"))
}

fn digest(field: &'static str, bytes: &Bytes) -> Result<Digest, ConvertError> {
    let bytes: [u8; 32] = bytes.as_ref().try_into().map_err(|_| malformed(field, "32 bytes"))?;
    Ok(Digest::from_bytes(bytes))
}

fn digest_to_wire(digest: &Digest) -> Bytes {
    Bytes::copy_from_slice(digest.as_bytes())
}

fn finite(field: &'static str, value: f64) -> Result<f64, ConvertError> {
    if value.is_finite() { Ok(value) } else { Err(malformed(field, "a finite number")) }
}

fn document<T: DeserializeOwned>(field: &'static str, json: &[u8], limit: usize) -> Result<T, ConvertError> {
    at_most(field, limit, json.len())?;
    // The parser's own words may quote a value; they go no further.
    serde_json::from_slice(json).map_err(|_| malformed(field, "a document of this version"))
}

fn document_to_wire(value: &impl serde::Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("protocol types have no map with keys other than text"))
}

/// Fails if the other side would refuse the message for its size.
pub(crate) fn fits(message: &impl prost::Message) -> Result<(), ConvertError> {
    at_most("message", MAX_MESSAGE_BYTES, message.encoded_len())
}

/// Reads a refusal. Its sentence is made fit for a terminal; a code of a later version becomes `internal`.
pub(crate) fn refusal(refusal: &wire::Refusal) -> Refusal {
    let code = serde_json::from_value(serde_json::Value::String(refusal.code.clone())).unwrap_or(RefusalCode::Internal);
    Refusal::new(code, printable(&refusal.sentence, MAX_SENTENCE_CHARS))
}

pub(crate) fn refusal_to_wire(refusal: &Refusal) -> wire::Refusal {
    wire::Refusal { code: refusal.code.name(), sentence: printable(&refusal.sentence, MAX_SENTENCE_CHARS) }
}
