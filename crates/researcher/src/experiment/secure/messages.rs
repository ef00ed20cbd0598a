//! What nodes are asked around hidden sums, and what is taken of their answers.

use std::collections::BTreeMap;

use protocol::{Masking, NodeId, SecureMessage, SecureStep, VectorSpec, layout_byte_len};
use secagg::channel::{Offer, Roster};
use secagg::exchange::{
    AgreeAnswer, AttestRequest, MaskRequest, OpenSeedsRequest, PrepareRequest, RevealAnswer, RevealRequest, decode,
};
use secagg::joye_libert::Packing;
use secagg::party::{Parties, PartyId};
use secagg::problem::Problem;
use secagg::session::{Context, Terms};
use secagg::wire::Fixed;
use transport::identity::Fingerprint;

use super::keys::Keys;
use super::{Inbound, Secure, Session, direct, message, party};
use crate::fold::{Decryption, modulus};

impl Secure {
    /// The identity keys and offers of the parties of a sum.
    fn introduction(&self, parties: &Parties) -> (Roster, BTreeMap<PartyId, Offer>) {
        let roster = self.roster.iter().filter(|(party, _)| parties.contains(party));
        let offers = self.offers.iter().filter(|(party, _)| parties.contains(party));
        let roster = roster.map(|(party, identity)| (party.clone(), *identity)).collect();
        (roster, offers.map(|(party, offer)| (party.clone(), offer.clone())).collect())
    }

    /// What a node is asked at a step.
    pub(in crate::experiment) fn request(&self, step: SecureStep, node: &NodeId) -> Result<SecureMessage, String> {
        if step == SecureStep::Agree
            && let Some(request) = self.direct_request()
        {
            return message(&request);
        }
        if let Some((keys, spec)) = self.keys.as_ref().and_then(|keys| Some((keys, keys.spec()?)))
            && step != SecureStep::Agree
        {
            if step == SecureStep::ShareKeys {
                let (roster, offers) = self.introduction(&spec.parties);
                return message(&keys.share_request(roster, offers, spec));
            }
            return message(&keys.sum_request(spec, &party(node)).map_err(|problem| problem.to_string())?);
        }
        if let (SecureStep::OpenSeeds, Some(parties)) = (step, self.ring.opening()) {
            let (roster, offers) = self.introduction(parties);
            return message(&OpenSeedsRequest { roster, offers, parties: parties.clone() });
        }
        let Some(session) = &self.session else {
            return SecureMessage::new(Vec::new()).map_err(|error| error.to_string());
        };
        let spec = session.spec();
        let survivors = || self.survivors.clone();
        match step {
            SecureStep::Agree | SecureStep::ShareKeys | SecureStep::SumKeys | SecureStep::OpenSeeds => {
                SecureMessage::new(Vec::new()).map_err(|error| error.to_string())
            }
            SecureStep::Prepare => {
                let (roster, offers) = self.introduction(&spec.parties);
                message(&PrepareRequest { roster, offers, spec: spec.clone(), seeds: self.ring.seeds(&spec.graph) })
            }
            SecureStep::Attest => message(&AttestRequest { session: spec.id(), survivors: survivors() }),
            SecureStep::Reveal => {
                let attestations = session.0.shown_attestations().map_err(|problem| problem.to_string())?;
                let next = self.next.as_ref().map(Session::spec);
                let next = next.filter(|next| next.parties.contains(&party(node))).cloned();
                message(&RevealRequest { session: spec.id(), survivors: survivors(), attestations, next })
            }
        }
    }

    /// What a node needs to hide its contribution to an attempt.
    pub(in crate::experiment) fn mask_request(
        &self,
        node: &NodeId,
        inbound: &Inbound,
        attempt: u32,
    ) -> Result<SecureMessage, String> {
        if let Some(keys) = &self.keys {
            return message(&keys.encrypt_request(attempt).ok_or("the nodes have no keys")?);
        }
        let session = self.session.as_ref().ok_or_else(|| Problem::UnknownSession.to_string())?;
        let inbound = inbound.get(&party(node)).cloned().unwrap_or_default();
        message(&MaskRequest { session: session.spec().id(), inbound })
    }

    /// What is handed to the parties of the open session, again.
    pub(in crate::experiment) fn inbound(&self) -> Inbound {
        let session = self.session.clone();
        session.and_then(|mut session| session.0.close_preparations().ok()).unwrap_or_default()
    }

    /// The number of bytes of a hidden contribution.
    pub(in crate::experiment) fn contribution_bytes(&self, layout: &[VectorSpec]) -> Option<u64> {
        match self.keys.as_ref().and_then(Keys::spec) {
            Some(spec) => {
                let vectors = layout.iter().map(|spec| (modulus(spec), spec.elements()));
                Packing::contribution_bytes(spec.parties.count(), vectors)
            }
            None => layout_byte_len(layout),
        }
    }

    /// What opens the sum of an attempt of a round under Joye-Libert.
    pub(in crate::experiment) fn decryption(
        &self,
        (round, attempt): (u32, u32),
        terms: [u8; 32],
        parties: Vec<PartyId>,
    ) -> Option<Decryption> {
        let keys = self.keys.as_ref()?;
        Some(Decryption {
            group: keys.group().clone(),
            key: keys.server_key()?.clone(),
            context: Context { experiment: self.name.clone(), round, attempt, phase: 0 },
            terms: Terms(Fixed(terms)),
            parties,
        })
    }

    /// How a task's contribution is hidden.
    pub(in crate::experiment) fn masking(&self, message: SecureMessage) -> Masking {
        Masking { scheme: self.scheme, message, clipping: self.clipping.clone() }
    }

    /// Takes a node's answer. `key` is the fingerprint of the key that it is enrolled with.
    pub(in crate::experiment) fn accept(
        &mut self,
        step: SecureStep,
        node: &NodeId,
        answer: &SecureMessage,
        key: &Fingerprint,
    ) -> Result<(), String> {
        let (from, bytes) = (party(node), answer.as_bytes());
        let accepted =
            match step {
                SecureStep::Agree => return self.accept_offer(from, bytes, key),
                SecureStep::ShareKeys | SecureStep::SumKeys => {
                    let keys = self.keys.as_mut().ok_or("no keys are negotiated")?;
                    return keys.accept(step, &from, bytes).map_err(|problem| problem.to_string());
                }
                SecureStep::OpenSeeds => {
                    decode("seed", bytes).and_then(|seed| self.ring.accept(&self.name, &self.offers, (&from, seed)))
                }
                SecureStep::Prepare => decode("preparation", bytes)
                    .and_then(|preparation| self.open()?.0.accept_preparation(&from, preparation)),
                SecureStep::Attest => decode("attestation", bytes)
                    .and_then(|attestation| self.open()?.0.accept_attestation(&from, attestation)),
                SecureStep::Reveal => decode("revelation", bytes).and_then(|answer: RevealAnswer| {
                    self.open()?.0.accept_revelation(&from, answer.revelation)?;
                    // Who prepared something else is asked once more when the next round begins.
                    if let (Some(next), Some(preparation)) = (&mut self.next, answer.next) {
                        drop(next.0.accept_preparation(&from, preparation));
                    }
                    Ok(())
                }),
            };
        accepted.map_err(|problem| problem.to_string())
    }

    fn accept_offer(&mut self, from: PartyId, bytes: &[u8], key: &Fingerprint) -> Result<(), String> {
        let answer = direct::offer(&self.name, &from, bytes, key)?;
        if let Some(direct) = &self.direct {
            direct.check(&from, &answer)?;
        }
        let AgreeAnswer { identity, offer } = answer;
        self.roster.insert(from.clone(), identity);
        self.offers.insert(from, offer);
        Ok(())
    }
}
