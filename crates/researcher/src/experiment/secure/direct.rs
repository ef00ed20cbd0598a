//! Keys that the nodes bring to each other and to this researcher themselves: it says who takes part, and holds what it is answered
//! against what it heard.

use std::collections::BTreeMap;

use protocol::NodeId;
use secagg::exchange::{AgreeAnswer, DirectRequest, decode};
use secagg::party::{Experiment as Name, Parties, PartyId};
use serde::{Deserialize, Serialize};
use transport::identity::Fingerprint;

use super::{Secure, party};

/// What a researcher keeps of direct negotiations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Direct {
    /// Who is asked to negotiate.
    parties: Option<Parties>,
    heard: BTreeMap<PartyId, AgreeAnswer>,
}

impl Direct {
    pub(super) fn request(&self) -> Option<DirectRequest> {
        self.parties.clone().map(|parties| DirectRequest { parties })
    }

    /// Whether a node answers with what it brought.
    pub(super) fn check(&self, from: &PartyId, answer: &AgreeAnswer) -> Result<(), String> {
        match self.heard.get(from) {
            None => Err("it has not brought its keys to this researcher itself".into()),
            Some(heard) if heard != answer => Err("it answers with other keys than those that it brought itself".into()),
            Some(_) => Ok(()),
        }
    }
}

/// Reads an offer that is signed with the key of this fingerprint.
pub(super) fn offer(name: &Name, from: &PartyId, bytes: &[u8], key: &Fingerprint) -> Result<AgreeAnswer, String> {
    let answer: AgreeAnswer = decode("offer", bytes).map_err(|problem| problem.to_string())?;
    if Fingerprint::of_point(answer.identity.as_bytes()) != *key {
        return Err("the key that it signs with is not the one that it is enrolled with".into());
    }
    answer.offer.check(name, from, &answer.identity).map_err(|problem| problem.to_string())?;
    Ok(answer)
}

impl Secure {
    /// Whether all nodes negotiate when a new one joins.
    pub(in crate::experiment) fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Fixes who negotiates next.
    pub(in crate::experiment) fn begin_direct(&mut self, nodes: &[NodeId]) -> Result<(), String> {
        let Some(direct) = &mut self.direct else { return Ok(()) };
        direct.parties = Some(Parties::new(nodes.iter().map(party)).map_err(|problem| problem.to_string())?);
        Ok(())
    }

    /// Who negotiates, as it is said to each.
    pub(in crate::experiment) fn direct_request(&self) -> Option<DirectRequest> {
        self.direct.as_ref()?.request()
    }

    /// Whether what a node brought is good, and no other than before.
    pub(in crate::experiment) fn check_heard(
        &self,
        node: &NodeId,
        said: &[u8],
        key: &Fingerprint,
    ) -> Result<AgreeAnswer, String> {
        let from = party(node);
        let direct = self.direct.as_ref().ok_or("no keys are negotiated directly")?;
        if !direct.parties.as_ref().is_some_and(|parties| parties.contains(&from)) {
            return Err("it is not among the parties".into());
        }
        offer(&self.name, &from, said, key)
    }

    /// Keeps what a node brought.
    pub(in crate::experiment) fn hear(&mut self, node: &NodeId, said: AgreeAnswer) {
        if let Some(direct) = &mut self.direct {
            direct.heard.insert(party(node), said);
        }
    }
}
