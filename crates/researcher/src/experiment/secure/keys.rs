//! The researcher's side of Joye-Libert: keys for a list of nodes, negotiated once, and what they open.
//!
//! Who carries the messages of the negotiation is not known here.

use std::collections::BTreeMap;
use std::fmt;

use protocol::SecureStep;
use secagg::channel::{Offer, Roster};
use secagg::exchange::{EncryptRequest, ShareKeysRequest, SumKeysRequest, decode, encode};
use secagg::joye_libert::{Group, KeySpec, Problem, Researcher, ServerKey};
use secagg::party::{Experiment as Name, Parties, PartyId};
use secagg::threshold::threshold;
use secagg::wire::Fixed;
use serde::{Deserialize, Serialize};

/// The keys of the nodes that take part now.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    group: Group,
    role: Researcher,
    /// The list of nodes that has keys, or negotiates them.
    spec: Option<KeySpec>,
    /// What opens their sums, once the negotiation is over.
    key: Option<ServerKey>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Keys({:?})", self.spec)
    }
}

impl PartialEq for Keys {
    fn eq(&self, other: &Self) -> bool {
        encode(self) == encode(other)
    }
}

impl Keys {
    pub(super) fn new(group: Group, name: Name) -> Self {
        Self { group, role: Researcher::new(name), spec: None, key: None }
    }

    pub(super) fn spec(&self) -> Option<&KeySpec> {
        self.spec.as_ref()
    }

    pub(super) fn group(&self) -> &Group {
        &self.group
    }

    /// What opens the sums of these nodes, and of them only.
    pub(super) fn server_key(&self) -> Option<&ServerKey> {
        self.key.as_ref()
    }

    /// Whether exactly these nodes have keys.
    pub(super) fn are_of(&self, parties: &Parties) -> bool {
        self.key.as_ref().is_some_and(|key| key.spec().parties == *parties)
    }

    /// Begins a negotiation of fresh keys. The difference of two server keys would be a node's key if keys were kept.
    pub(super) fn begin(&mut self, experiment: Name, parties: Parties, colluders: u32) -> Result<(), Problem> {
        let threshold = threshold(parties.count(), colluders);
        let generation = self.role.next_generation();
        let spec = KeySpec { experiment, generation, parties, threshold, colluders };
        self.role.begin(&self.group, &spec)?;
        if let Some(earlier) = self.spec.replace(spec) {
            self.role.forget(earlier.generation);
        }
        self.key = None;
        Ok(())
    }

    /// Forgets the keys; the next ones have a later number.
    pub(super) fn end(&mut self) {
        if let Some(earlier) = self.spec.take() {
            self.role.forget(earlier.generation);
        }
        self.key = None;
    }

    pub(super) fn share_request(
        &self,
        roster: Roster,
        offers: BTreeMap<PartyId, Offer>,
        spec: &KeySpec,
    ) -> ShareKeysRequest {
        ShareKeysRequest { roster, offers, spec: spec.clone(), modulus: Fixed(*self.group.fingerprint()) }
    }

    /// What each party is given to sum, once all have shared.
    pub(super) fn sum_request(&self, spec: &KeySpec, party: &PartyId) -> Result<SumKeysRequest, Problem> {
        let inbound = self.role.inbound(spec.generation, party)?.into_iter().collect();
        Ok(SumKeysRequest { generation: spec.generation, inbound })
    }

    /// Says under which keys a contribution is encrypted, and for which attempt.
    pub(super) fn encrypt_request(&self, attempt: u32) -> Option<EncryptRequest> {
        let spec = self.key.as_ref()?.spec();
        Some(EncryptRequest { generation: spec.generation, keys: spec.id(&self.group), attempt })
    }

    pub(super) fn accept(&mut self, step: SecureStep, from: &PartyId, answer: &[u8]) -> Result<(), Problem> {
        let generation = self.spec.as_ref().map(|spec| spec.generation);
        let generation = generation.ok_or(Problem::UnknownGeneration { generation: 0 })?;
        if step == SecureStep::ShareKeys {
            self.role.accept_shares(generation, from, decode("key shares", answer)?)
        } else {
            self.role.accept_sum(generation, from, decode("sum of key shares", answer)?)
        }
    }

    /// Ends the negotiation: all have summed, and the sums give the researcher's key.
    pub(super) fn finish(&mut self) -> Result<(), Problem> {
        let generation = self.spec.as_ref().map(|spec| spec.generation);
        let generation = generation.ok_or(Problem::UnknownGeneration { generation: 0 })?;
        self.key = Some(self.role.server_key(generation)?);
        self.role.forget(generation);
        Ok(())
    }
}
