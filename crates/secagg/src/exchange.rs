//! What researcher and node say to each other around a masked sum: one request and one answer for each step. They travel as JSON
//! inside messages that others carry, sign and keep; this is where their bytes become values.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::channel::{Offer, Roster};
use crate::identity::IdentityPublic;
use crate::lom::{Attestation, InboundPreparation, Preparation, Revelation};
use crate::party::PartyId;
use crate::problem::Problem;
use crate::session::{SessionId, SessionSpec};

/// Answers the question for a channel key, which needs no more words than the step's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgreeAnswer {
    /// Is the key that signed the offer; the researcher compares it with the one the node enrolled with.
    pub identity: IdentityPublic,
    pub offer: Offer,
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
    use crate::wire::Fixed;

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
