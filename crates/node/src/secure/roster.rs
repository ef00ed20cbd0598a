//! Whose keys are those of the other nodes.
//!
//! What the researcher says of them is taken once and never changed. That protects against a researcher that is curious, and not
//! against one that lies from the start: it could enrol nodes of its own. Against that one keys are trusted by hand.

use std::collections::BTreeSet;

use protocol::{NodeId, Refusal, RefusalCode, ResearcherId};
use secagg::channel::Roster;
use secagg::identity::IdentityPublic;
use serde_json::json;
use thiserror::Error;
use transport::identity::{Fingerprint, IdentityError};

use super::DeskError;
use crate::command::PeerRow;
use crate::config::RosterRule;
use crate::handle::NodeHandle;
use crate::store::{Peer, StoreError, Trust};

/// Why the hospital's word on another node cannot be taken.
#[derive(Debug, Error)]
pub(crate) enum PeerError {
    #[error("the node is enrolled with several researchers; say with which of them the other node is, or with none yet")]
    WhichResearcher,
    #[error("the node is not enrolled with {0}")]
    NotEnrolled(ResearcherId),
    #[error("{0} is this node itself")]
    Itself(NodeId),
    #[error("no node {0} is known here; `node peers list` shows all")]
    Unknown(NodeId),
    #[error(transparent)]
    Fingerprint(#[from] IdentityError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the researcher is told, and the log.
fn mismatch(node: &NodeHandle, researcher: &ResearcherId, peer: &str, found: &Fingerprint, sentence: String) -> DeskError {
    tracing::error!(%researcher, %peer, key = %found, "{sentence}");
    let facts = json!({ "researcher": researcher, "node": peer, "key": found.to_string(), "reason": sentence });
    if let Err(refusal) = node.audit("peer.refused", facts) {
        return refusal.into();
    }
    Refusal::new(RefusalCode::RosterMismatch, sentence).into()
}

/// Whether this node takes part in sums with exactly these; gives what is to be remembered of those not seen before.
pub(super) fn check(
    node: &NodeHandle,
    researcher: &ResearcherId,
    own: &IdentityPublic,
    roster: &Roster,
) -> Result<Vec<Peer>, DeskError> {
    let is_pinned = node.policy().secure().roster == RosterRule::Pinned;
    let (mut new, mut keys) = (Vec::new(), BTreeSet::new());
    for (party, identity) in roster {
        let found = Fingerprint::of_point(identity.as_bytes());
        let refuse = |sentence: String| Err(mismatch(node, researcher, party.as_str(), &found, sentence));
        if !keys.insert(found) {
            return refuse(format!("{party} has the key of another node in the list"));
        }
        let Ok(id) = party.as_str().parse::<NodeId>() else {
            return refuse("a party of the sum has no node id".to_owned());
        };
        if id == *node.id() {
            if identity != own {
                return refuse("the researcher gives another key for this node than its own".to_owned());
            }
            continue;
        }
        let known = node.store().peer(researcher, &id)?;
        match &known {
            Some(peer) if peer.trust == Trust::Distrusted => {
                return refuse(format!("this node takes part in no sum with {party}, which its hospital distrusts"));
            }
            Some(peer) if peer.fingerprint != found => {
                return refuse(format!(
                    "{party} has another key than this node knows; ask its hospital by phone, then run `node peers trust {party}`"
                ));
            }
            Some(Peer { trust: Trust::Hand, key: Some(_), .. }) => {}
            Some(peer) if peer.trust == Trust::Hand => {
                new.push(Peer { key: Some(*identity.as_bytes()), ..peer.clone() });
            }
            _ if is_pinned => {
                return refuse(format!(
                    "this node's hospital has not pinned the key of {party}; compare fingerprints by phone, then run \
                     `node peers trust {party}`"
                ));
            }
            Some(_) => {}
            None => new.push(Peer {
                researcher: researcher.clone(),
                node: id,
                name: None,
                fingerprint: found,
                key: Some(*identity.as_bytes()),
                trust: Trust::Enrolment,
                since: node.now(),
            }),
        }
    }
    Ok(new)
}

/// Remembers nodes that were seen for the first time, and says what that is worth.
pub(super) fn remember(node: &NodeHandle, researcher: &ResearcherId, new: &[Peer]) -> Result<(), DeskError> {
    if new.is_empty() {
        return Ok(());
    }
    for peer in new {
        let facts = json!({
            "researcher": researcher, "node": peer.node, "key": peer.fingerprint.to_string(), "trust": peer.trust.name(),
        });
        node.audit("peer.seen", facts)?;
    }
    node.store().save_peers(new)?;
    let unpinned = new.iter().filter(|peer| peer.trust == Trust::Enrolment).count();
    if unpinned > 0 {
        tracing::warn!(
            %researcher, count = unpinned,
            "keys of other nodes were taken from the researcher: that protects against a curious researcher, not against one that \
             lies and enrols nodes of its own; `node peers trust` pins keys by hand"
        );
    }
    Ok(())
}

impl NodeHandle {
    pub(crate) fn peer_rows(&self) -> Result<Vec<PeerRow>, StoreError> {
        let row = |peer: Peer| PeerRow {
            researcher: peer.researcher,
            node: peer.node,
            name: peer.name,
            fingerprint: peer.fingerprint.to_string(),
            trust: peer.trust.name().to_owned(),
            since: peer.since.to_string(),
        };
        Ok(self.store().peers()?.into_iter().map(row).collect())
    }

    /// Takes a key for that of another node, seen before or not.
    pub(crate) fn trust_peer(
        &self,
        researcher: Option<ResearcherId>,
        node: &NodeId,
        name: Option<String>,
        fingerprint: &str,
    ) -> Result<String, PeerError> {
        let fingerprint: Fingerprint = fingerprint.parse()?;
        let researcher = self.federation(researcher)?;
        if node == self.id() {
            return Err(PeerError::Itself(node.clone()));
        }
        let before = self.store().peer(&researcher, node)?;
        let key = before.as_ref().filter(|peer| peer.fingerprint == fingerprint).and_then(|peer| peer.key);
        let name = name.or_else(|| before.and_then(|peer| peer.name));
        let peer = Peer { researcher, node: node.clone(), name, fingerprint, key, trust: Trust::Hand, since: self.now() };
        self.store().save_peers(&[peer])?;
        Ok(format!("{node} is trusted with the key\n  {fingerprint}"))
    }

    /// Takes part in no sum with another node from here on.
    pub(crate) fn distrust_peer(&self, researcher: Option<ResearcherId>, node: &NodeId) -> Result<String, PeerError> {
        let researcher = self.federation(researcher)?;
        let peer = self.store().peer(&researcher, node)?.ok_or_else(|| PeerError::Unknown(node.clone()))?;
        self.store().save_peers(&[Peer { trust: Trust::Distrusted, since: self.now(), ..peer }])?;
        Ok(format!("this node takes part in no sum with {node}"))
    }

    pub(crate) fn federation(&self, researcher: Option<ResearcherId>) -> Result<ResearcherId, PeerError> {
        let mut all = self.store().enrolments()?.into_iter().map(|enrolment| enrolment.researcher);
        match researcher {
            Some(wanted) => all.find(|one| *one == wanted).ok_or(PeerError::NotEnrolled(wanted)),
            None => match (all.next(), all.next()) {
                (Some(only), None) => Ok(only),
                _ => Err(PeerError::WhichResearcher),
            },
        }
    }
}
