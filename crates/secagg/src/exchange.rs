//! What researcher and node say to each other around a masked sum: one request and one answer for each step. They travel as JSON
//! inside messages that others carry, sign and keep; this is where their bytes become values.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::channel::{Offer, Roster, Sealed};
use crate::identity::IdentityPublic;
use crate::joye_libert::{KeySpec, KeysId};
use crate::lom::{Attestation, InboundPreparation, Preparation, Revelation};
use crate::party::{Parties, PartyId};
use crate::problem::Problem;
use crate::session::{SessionId, SessionSpec};
use crate::wire::Fixed;

/// Answers the question for a channel key, which needs no more words than the step's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgreeAnswer {
    /// Is the key that signed the offer; the researcher compares it with the one the node enrolled with.
    pub identity: IdentityPublic,
    pub offer: Offer,
}

/// Asks for a channel key that these parties bring to each other directly before they answer; the question for a relayed one is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectRequest {
    pub parties: Parties,
}

/// Asks for a preparation; the answer is a [`Preparation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrepareRequest {
    /// Gives the identity key of each party, this node's own included, as the researcher knows it.
    pub roster: Roster,
    /// Holds the offers of all parties of the session; those already agreed are compared.
    pub offers: BTreeMap<PartyId, Offer>,
    pub spec: SessionSpec,
    /// Holds the opened seeds of all parties, if the session's graph is sparse.
    #[serde(default)]
    pub seeds: BTreeMap<PartyId, Fixed<32>>,
}

/// Asks a node to open its seed for the graph of one list of parties; the answer is the seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenSeedsRequest {
    pub roster: Roster,
    pub offers: BTreeMap<PartyId, Offer>,
    pub parties: Parties,
}

/// Gives a node what it masks its contribution with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskRequest {
    pub session: SessionId,
    pub inbound: BTreeMap<PartyId, InboundPreparation>,
}

/// Asks for a signature of the list of survivors; the answer is an [`Attestation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestRequest {
    pub session: SessionId,
    pub survivors: Vec<PartyId>,
}

/// Asks for shares, and for the preparation of the next session; the answer is a [`RevealAnswer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevealRequest {
    pub session: SessionId,
    pub survivors: Vec<PartyId>,
    pub attestations: BTreeMap<PartyId, Attestation>,
    pub next: Option<SessionSpec>,
}

/// Holds shares of the session that ends, and what the next one needs.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevealAnswer {
    pub revelation: Revelation,
    pub next: Option<Preparation>,
}

/// Asks for a key of Joye-Libert and its shares; the answer is a [`KeyShares`](crate::joye_libert::KeyShares).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareKeysRequest {
    /// Gives the identity key of each party, this node's own included, as the researcher knows it.
    pub roster: Roster,
    /// Holds the offers of all parties; those already agreed are compared.
    pub offers: BTreeMap<PartyId, Offer>,
    pub spec: KeySpec,
    /// Is the fingerprint of the researcher's modulus, compared with the node's own: see [`Group::fingerprint`](crate::joye_libert::Group::fingerprint).
    pub modulus: Fixed<32>,
}

/// Brings a node the shares of all others; the answer is a [`SumShare`](crate::joye_libert::SumShare).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SumKeysRequest {
    pub generation: u32,
    pub inbound: BTreeMap<PartyId, Sealed>,
}

/// Says under which keys a node encrypts its contribution, and in which attempt of the task's round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncryptRequest {
    pub generation: u32,
    pub keys: KeysId,
    pub attempt: u32,
}

/// Writes a request or an answer.
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("maps have text as keys, and no number is a float")
}

/// Reads a request or an answer; all values in it are checked by their types.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|_| Problem::Malformed { what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_message_is_refused() {
        let problem = Err(Problem::Malformed { what: "request" });
        for bytes in [b"".as_slice(), b"{}", b"[]", b"{\"session\":\"00\",\"survivors\":[]}", b"\xff"] {
            assert_eq!(decode::<AttestRequest>("request", bytes), problem);
        }
        let request = AttestRequest { session: Fixed([7; 32]), survivors: Vec::new() };
        assert_eq!(decode("request", &encode(&request)), Ok(request));
    }
}
