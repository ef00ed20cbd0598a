//! Direct key negotiation: parties of a hidden sum bring their public keys to each other, not by way of the researcher.
//!
//! A component listens only while a negotiation runs: from [`Office::negotiate`] until it returns or is dropped. What is accepted
//! is one message from each party, over TLS 1.3 in which both sides show keys that were registered before. Which negotiation is
//! meant stands in the name that the client asks for; who asks for none that runs here does not get as far as a certificate.
//! A message counts once its sender has seen that it was taken, so that all sides end together.

pub(crate) mod frame;
mod office;
mod pins;
mod push;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::{ExperimentId, NodeId, Refusal, ResearcherId};
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::identity::{Certificate, Fingerprint};

pub use office::{Note, Office, OfficeError, Place};
pub use pins::Identity;

/// Who takes part in a negotiation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Party {
    Node(NodeId),
    Researcher(ResearcherId),
}

/// A text names no party.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected the id of a node or of a researcher, found {0:?}")]
pub struct PartyError(String);

impl FromStr for Party {
    type Err = PartyError;

    fn from_str(text: &str) -> Result<Self, PartyError> {
        let node = text.parse().map(Self::Node);
        let party = node.or_else(|_| text.parse().map(Self::Researcher));
        party.map_err(|_| PartyError(text.chars().take(64).collect()))
    }
}

impl TryFrom<String> for Party {
    type Error = PartyError;

    fn try_from(text: String) -> Result<Self, PartyError> {
        text.parse()
    }
}

impl From<Party> for String {
    fn from(party: Party) -> Self {
        party.to_string()
    }
}

impl fmt::Display for Party {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => id.fmt(formatter),
            Self::Researcher(id) => id.fmt(formatter),
        }
    }
}

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A node's public keys.
    Keys,
    /// The parties, as the researcher knows them.
    Parties,
    /// A node's sealed share of its key for Joye-Libert.
    Shares,
}

impl Purpose {
    pub(crate) const ALL: [Self; 3] = [Self::Keys, Self::Parties, Self::Shares];

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Parties => "parties",
            Self::Shares => "shares",
        }
    }
}

/// Which negotiation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub researcher: ResearcherId,
    pub experiment: ExperimentId,
    pub round: u32,
    pub attempt: u32,
    /// 0 for channel keys, above it for the shares of a key of Joye-Libert.
    pub series: u32,
}

impl Topic {
    /// What this party has to say.
    fn purpose(&self, party: &Party) -> Purpose {
        match party {
            _ if self.series > 0 => Purpose::Shares,
            Party::Node(_) => Purpose::Keys,
            Party::Researcher(_) => Purpose::Parties,
        }
    }

    /// The name that a client asks for in TLS. It is a digest, since it travels in the clear.
    fn server_name(&self) -> String {
        let Self { researcher, experiment, round, attempt, series } = self;
        let topic = format!("{researcher}/{experiment}/{round}/{attempt}/{series}");
        let digest = blake3::hash(topic.as_bytes()).to_hex();
        format!("{}.negotiation.fedbiomed.internal", &digest[..32])
    }

    fn tls_name(&self) -> ServerName<'static> {
        ServerName::try_from(self.server_name()).expect("hexadecimal digits and letters make a name")
    }
}

/// What one party says to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub topic: Topic,
    pub from: Party,
    pub to: Party,
    pub purpose: Purpose,
    pub payload: Bytes,
}

/// What another party has to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// A certificate of this key, whatever else is in it: a renewed one keeps the key.
    Key(Fingerprint),
    /// A certificate of the researcher's server that this authority signed.
    ServerOf(Certificate),
}

/// Another party: what it must show, where it listens, and what it is told.
#[derive(Debug, Clone)]
pub struct Peer {
    pub party: Party,
    pub pin: Pin,
    pub address: Address,
    pub told: Bytes,
}

/// An answer to a message, once it is known whether that is taken.
pub type Taking = std::pin::Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>>;

/// Looks at what a party says, and keeps it.
pub type Take = Arc<dyn Fn(Party, Bytes) -> Taking + Send + Sync>;

/// A component's part of one negotiation.
pub struct Part {
    pub topic: Topic,
    pub own: Party,
    pub identity: Identity,
    pub peers: Vec<Peer>,
    /// Called once for each party unless it refuses.
    pub take: Take,
    pub patience: Duration,
}

/// Why a negotiation with one party came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It could not be told: why the last try failed, for the own log.
    Unreached(String),
    /// It was told and has said nothing.
    Silent,
    /// It did not take what it was told.
    Refused(Refusal),
}

/// How a negotiation ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What each party said that has seen it taken.
    pub heard: BTreeMap<Party, Bytes>,
    /// The parties with which it failed; with all others both directions worked.
    pub troubles: BTreeMap<Party, Trouble>,
}

/// What happens at a listener, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Opened { address: String },
    Closed { address: String },
    Rejected { from: String, reason: String },
}
