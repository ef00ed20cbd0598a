//! Low-overhead masking: double masks with Shamir shares (Bonawitz et al. 2017; Bell et al. 2020; specification §2 to §8).
//!
//! The way of a session: [`NodeRole::prepare`] → [`ResearcherSession::accept_preparation`] → [`ResearcherSession::close_preparations`]
//! → [`NodeRole::masker`] and what it masks → [`ResearcherSession::fix_survivors`] → [`NodeRole::attest`] →
//! [`ResearcherSession::accept_attestation`] → [`NodeRole::reveal`] → [`ResearcherSession::accept_revelation`] →
//! [`ResearcherSession::unmasker`].

mod node;
mod record;
mod researcher;
mod secrets;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use node::{Masker, NodeRole};
pub use researcher::{ResearcherSession, Unmasker, check_offers};

use crate::channel::Sealed;
use crate::identity::Signature;
use crate::party::PartyId;
use crate::wire::{Fixed, Secret};

/// Counts the bytes of a share.
pub const SHARE_BYTES: usize = 33;

/// Counts the bytes of what a preparation seals for each neighbour: public key and two shares.
const SEALED_BYTES: usize = 32 + 2 * SHARE_BYTES;

/// Is what a node gives before a session: its masking key, its commitment to the self mask, shares for each neighbour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preparation {
    pub mask_public: Fixed<32>,
    pub self_commitment: Fixed<32>,
    pub sealed: BTreeMap<PartyId, Sealed>,
}

/// Is what the researcher relays to a node of a neighbour's preparation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InboundPreparation {
    pub mask_public: Fixed<32>,
    pub sealed: Sealed,
}

/// Is a survivor's signature of the list of survivors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attestation {
    pub signature: Signature,
}

/// Is a node's shares for the end of a session: of survivors' self masks and of lost parties' masking keys. Secret but to the
/// researcher.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revelation {
    pub self_shares: BTreeMap<PartyId, Secret<SHARE_BYTES>>,
    pub pair_shares: BTreeMap<PartyId, Secret<SHARE_BYTES>>,
}
