//! How a sum is hidden from the researcher: what an experiment asks for, and the messages of its exchanges.
//!
//! The messages of the schemes are made and read by crate `secagg`, which is written to be audited on its own; here they are
//! opaque bytes of a bounded length.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The most bytes of one message. In a task's JSON they become 4/3 of that.
pub const MAX_SECURE_MESSAGE_BYTES: usize = 2 << 20;

/// A scheme of secure aggregation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// Low-overhead masking: pairwise and self masks, whose seeds are shared so that nodes may be lost.
    Lom,
    /// Encryption under which sums, and only sums, can be opened; no node may be lost.
    JoyeLibert,
}

impl Scheme {
    pub const ALL: [Self; 2] = [Self::Lom, Self::JoyeLibert];

    /// The name in experiment files, tables and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lom => "lom",
            Self::JoyeLibert => "joye-libert",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What an experiment wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Secagg {
    /// Low-overhead masking if three or more nodes are asked, otherwise none, with a warning.
    #[default]
    Auto,
    None,
    Lom,
    JoyeLibert,
}

/// How keys reach the other parties of a hidden sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyNegotiation {
    /// Through the researcher.
    #[default]
    Relay,
    /// From each to each, over connections of their own.
    Direct,
}

/// A text names no scheme.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`secagg` must be \"lom\", \"joye-libert\" or \"none\", found {0:?}")]
pub struct SecaggError(String);

impl Secagg {
    /// The scheme for so many nodes; `None`: sums are not hidden.
    pub fn scheme(self, nodes: usize) -> Option<Scheme> {
        match self {
            Self::Auto => (nodes >= 3).then_some(Scheme::Lom),
            Self::None => None,
            Self::Lom => Some(Scheme::Lom),
            Self::JoyeLibert => Some(Scheme::JoyeLibert),
        }
    }
}

impl FromStr for Secagg {
    type Err = SecaggError;

    fn from_str(text: &str) -> Result<Self, SecaggError> {
        match text {
            "none" => Ok(Self::None),
            "lom" => Ok(Self::Lom),
            "joye-libert" => Ok(Self::JoyeLibert),
            other => Err(SecaggError(other.chars().take(64).collect())),
        }
    }
}

/// The exchanges around a hidden sum, beside the contribution itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecureStep {
    /// Publish a channel key.
    Agree,
    /// Draw a key of Joye-Libert, and share it among the parties.
    ShareKeys,
    /// Sum the shares of the others' keys.
    SumKeys,
    /// Open what decides who masks with whom, where that is not everybody with everybody.
    OpenSeeds,
    /// Draw what hides one sum, and share it among the neighbours.
    Prepare,
    /// Sign the list of survivors.
    Attest,
    /// Reveal shares for a list that enough nodes signed.
    Reveal,
}

impl SecureStep {
    /// The phase of a round that it is; 0 is the contribution.
    pub fn phase(self) -> u16 {
        match self {
            Self::Agree => 1,
            Self::Prepare => 2,
            Self::Attest => 3,
            Self::Reveal => 4,
            Self::ShareKeys => 5,
            Self::SumKeys => 6,
            Self::OpenSeeds => 7,
        }
    }

    /// The name in tables and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Agree => "agree",
            Self::ShareKeys => "share_keys",
            Self::SumKeys => "sum_keys",
            Self::OpenSeeds => "open_seeds",
            Self::Prepare => "prepare",
            Self::Attest => "attest",
            Self::Reveal => "reveal",
        }
    }
}

/// A message of secure aggregation: bytes for crate `secagg`. Prints its length only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecureMessage(Vec<u8>);

/// A text is no message of secure aggregation.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a message of secure aggregation must be base64 of at most {MAX_SECURE_MESSAGE_BYTES} bytes")]
pub struct SecureMessageError;

impl SecureMessage {
    pub fn new(bytes: Vec<u8>) -> Result<Self, SecureMessageError> {
        if bytes.len() > MAX_SECURE_MESSAGE_BYTES { Err(SecureMessageError) } else { Ok(Self(bytes)) }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecureMessage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SecureMessage({} bytes)", self.0.len())
    }
}

impl TryFrom<String> for SecureMessage {
    type Error = SecureMessageError;

    fn try_from(text: String) -> Result<Self, SecureMessageError> {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| SecureMessageError)?;
        Self::new(bytes)
    }
}

impl From<SecureMessage> for String {
    fn from(message: SecureMessage) -> Self {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(message.0)
    }
}

/// How the contribution of a task is hidden.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Masking {
    pub scheme: Scheme,
    /// What this node needs of the others.
    pub message: SecureMessage,
    /// The largest absolute value that an element of each model vector may have per unit of weight, by the vector's name.
    pub clipping: BTreeMap<String, f64>,
}
