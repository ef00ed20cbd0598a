//! The hospital's word on the parties of direct key negotiations: whose keys they show, and where they listen.

use component::parties::{PartyError, Registration};
use protocol::ResearcherId;
use thiserror::Error;
use transport::address::{Address, AddressError};
use transport::identity::{Fingerprint, IdentityError};
use transport::negotiation::Party;

use crate::enrolment::EnrolmentError;
use crate::handle::NodeHandle;
use crate::secure::PeerError;
use crate::store::{StoreError, Trust};

/// Why a party is not registered.
#[derive(Debug, Error)]
pub(crate) enum RegisterError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Party(#[from] PartyError),
    #[error(transparent)]
    Enrolment(#[from] EnrolmentError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Fingerprint(#[from] IdentityError),
    #[error("the party's address: {0}")]
    Address(#[from] AddressError),
    #[error(
        "the file has the key {found}, and this node knows its federation by {known}; ask for the file that `researcher certificate \
         export` writes"
    )]
    OtherAuthority { known: Fingerprint, found: Fingerprint },
    #[error("{party} has another key at this node, {known}; with --upsert the new one takes its place")]
    OtherKey { party: Party, known: Fingerprint },
    #[error("this hospital distrusts {0}; run `node peers trust` first")]
    Distrusted(Party),
}

impl NodeHandle {
    /// Writes down whose key a party shows and where it listens. A node's key is trusted by hand from then on.
    pub(crate) fn register_party(
        &self,
        researcher: Option<ResearcherId>,
        party: Party,
        fingerprint: &str,
        address: &str,
        replaces: bool,
    ) -> Result<String, RegisterError> {
        let (fingerprint, address): (Fingerprint, _) = (fingerprint.parse()?, Address::parse_with(address, PORT)?);
        let federation = match &party {
            Party::Researcher(id) => self.federation(Some(id.clone()))?,
            Party::Node(_) => self.federation(researcher)?,
        };
        match &party {
            Party::Researcher(id) => {
                let enrolment = self.store().enrolment(id)?.ok_or_else(|| EnrolmentError::Unknown(id.clone()))?;
                let known = enrolment.authority.key_fingerprint();
                if known != fingerprint {
                    return Err(RegisterError::OtherAuthority { known, found: fingerprint });
                }
            }
            Party::Node(node) => {
                let known = self.store().peer(&federation, node)?;
                match known {
                    Some(peer) if peer.trust == Trust::Distrusted => return Err(RegisterError::Distrusted(party)),
                    Some(peer) if peer.fingerprint != fingerprint && !replaces => {
                        return Err(RegisterError::OtherKey { party, known: peer.fingerprint });
                    }
                    _ => {}
                }
            }
        }
        let registration = Registration {
            federation: federation.clone(),
            party: party.clone(),
            fingerprint,
            address: address.clone(),
            since: self.now(),
        };
        if let Party::Node(node) = &party {
            // It says whether the id is this node's own.
            self.trust_peer(Some(federation), node, None, &fingerprint.to_string())?;
        }
        self.parties().register(registration, replaces)?;
        Ok(format!("{party} is registered at {address} with the key\n  {fingerprint}"))
    }

    /// Forgets where a party listens. What is known of a node's key stays.
    pub(crate) fn remove_party(&self, researcher: Option<&ResearcherId>, party: &Party) -> Result<String, PartyError> {
        self.parties().remove(researcher, party)?;
        Ok(format!("{party} is not registered any more"))
    }

    /// This node's certificate in a federation, for the other parties.
    pub(crate) fn export_certificate(&self, researcher: Option<ResearcherId>) -> Result<String, RegisterError> {
        let federation = self.federation(researcher)?;
        let enrolment = self.store().enrolment(&federation)?.ok_or(EnrolmentError::Unknown(federation))?;
        Ok(enrolment.certificate.to_pem())
    }
}

/// Where a party listens whose port is not given.
const PORT: u16 = transport::matrix::NEGOTIATION_PORT;
