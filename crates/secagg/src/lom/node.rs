//! A node's part of masked sums. All methods that change the state are idempotent: asked the same again, also after a restart from
//! stored state, they give the same answer; whatever they refuse leaves the state as it was.

use std::collections::BTreeMap;

use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};

use super::record::{Record, Step, check_retry};
use super::secrets::{Held, Own, Received, digest_of, self_commitment};
use super::{Attestation, InboundPreparation, Preparation, Revelation};
use crate::channel::{Channels, Offer, Roster, seed_commitment};
use crate::graph::{Graph, graph_seed};
use crate::identity::IdentityKey;
use crate::mask::{Masks, Modulus, VectorName};
use crate::party::{Experiment, Parties, PartyId};
use crate::problem::Problem;
use crate::session::{Rules, SessionId, SessionSpec, Terms, survivors_signed};
use crate::wire::{Fixed, Joined};

/// Is a node's state for one experiment: to be stored, encrypted, after every call and before its answer leaves.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRole {
    rules: Rules,
    channels: Channels,
    graph: Option<OpenedGraph>,
    records: BTreeMap<SessionId, Record>,
    /// Is the first round that is not closed.
    open_round: u32,
}

/// Holds the one list of parties whose graph this node takes part in.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenedGraph {
    parties: Parties,
    /// Is known once all have opened their seeds.
    seed: Option<Fixed<32>>,
}

/// Adds this node's masks of one session.
pub struct Masker(Masks);

impl Masker {
    /// Adds the masks to elements `first_element…` of a vector, little-endian, in place (specification §4). The very same elements
    /// must never be masked twice with different values and both sent.
    pub fn add(
        &self,
        vector: VectorName<'_>,
        modulus: Modulus,
        first_element: u64,
        elements: &mut [u8],
    ) -> Result<(), Problem> {
        self.0.apply(vector, modulus, first_element, elements)
    }
}

impl NodeRole {
    /// Draws the channel key and the seed of the graph (Bonawitz et al. 2017, figure 4, round 0; specification §2).
    pub fn new(experiment: Experiment, party: PartyId, rules: Rules, rng: &mut impl CryptoRng) -> Self {
        let channels = Channels::new(experiment, party, rng);
        Self { rules, channels, graph: None, records: BTreeMap::new(), open_round: 0 }
    }

    /// Returns this node's id.
    pub fn party(&self) -> &PartyId {
        self.channels.party()
    }

    /// Begins anew with another channel key and seed: of what was, only that it was is kept (specification §6, last paragraph), so that
    /// who goes on with the experiment has no second sum of a round that was revealed.
    pub fn renew(&mut self, rng: &mut impl CryptoRng) {
        for record in self.records.values_mut() {
            record.forget();
        }
        self.graph = None;
        self.channels = Channels::new(self.channels.experiment().clone(), self.channels.party().clone(), rng);
    }

    /// Gives what this node publishes once for an experiment (Bonawitz et al. 2017, figure 4, round 0).
    pub fn offer(&self, identity: &IdentityKey) -> Offer {
        self.channels.offer(identity)
    }

    /// Takes the offers of all parties, or of those that join (Bonawitz et al. 2017, figure 4, round 1): see [`Channels::agree`].
    pub fn agree(&mut self, roster: &Roster, offers: &BTreeMap<PartyId, Offer>) -> Result<(), Problem> {
        self.channels.agree(roster, offers)
    }

    /// Gives the channels, through which shares of [`crate::joye_libert`]'s keys travel too.
    pub fn channels(&mut self) -> &mut Channels {
        &mut self.channels
    }

    /// Opens this node's seed for the graph of one list of parties, whose offers it has (Bell et al. 2020, §4.2). It does so for one
    /// list only: whoever could choose among graphs could choose a bad one.
    pub fn open_seed(&mut self, parties: &Parties) -> Result<Fixed<32>, Problem> {
        self.check_known(parties)?;
        match &self.graph {
            Some(opened) if opened.parties != *parties => return Err(Problem::GraphSeed),
            Some(_) => {}
            None => self.graph = Some(OpenedGraph { parties: parties.clone(), seed: None }),
        }
        Ok(Fixed(*self.channels.seed().expose()))
    }

    /// Takes the opened seeds of all parties and gives the graph's seed (Bell et al. 2020, §4.2; specification §8).
    pub fn accept_seeds(&mut self, seeds: &BTreeMap<PartyId, Fixed<32>>) -> Result<Fixed<32>, Problem> {
        let opened = self.graph.as_ref().ok_or(Problem::GraphSeed)?;
        if !seeds.keys().eq(opened.parties.iter()) {
            return Err(Problem::GraphSeed);
        }
        for (party, seed) in seeds {
            let committed = if party == self.party() {
                Some(seed_commitment(self.channels.experiment(), party, self.channels.seed().expose()))
            } else {
                self.channels.commitment(party)
            };
            if committed != Some(seed_commitment(self.channels.experiment(), party, &seed.0)) {
                return Err(Problem::Commitment { what: "seed", party: party.clone() });
            }
        }
        let ordered: Vec<Fixed<32>> = seeds.values().copied().collect();
        let seed = graph_seed(self.channels.experiment(), &opened.parties, &ordered);
        if let Some(opened) = &mut self.graph {
            opened.seed = Some(seed);
        }
        Ok(seed)
    }

    /// Draws masking key and self mask for a session and shares them among the neighbours (Bonawitz et al. 2017, figure 4,
    /// rounds 0 and 1, in one message).
    pub fn prepare(&mut self, spec: &SessionSpec, rng: &mut impl CryptoRng) -> Result<Preparation, Problem> {
        let session = spec.id();
        if let Some(record) = self.records.get(&session) {
            return match &record.step {
                Step::Prepared { preparation, .. } | Step::Masked { preparation, .. } => Ok(preparation.clone()),
                Step::Revealed { .. } => Err(Problem::WrongStep { expected: "revealed", got: "prepare" }),
                Step::Forgotten { .. } => Err(Problem::WrongStep { expected: "forgotten", got: "prepare" }),
            };
        }
        self.check_spec(spec)?;
        let layout = spec.layout();
        let own_index = self.own_index(spec)?;
        let (own, dealer) = Own::draw(&layout, own_index, rng)?;
        let subject = subject(&session);
        let mut sealed = BTreeMap::new();
        for index in layout.neighbours(own_index) {
            let neighbour = &spec.parties.as_slice()[index];
            sealed.insert(neighbour.clone(), self.channels.seal(neighbour, subject.as_ref(), &dealer.plaintext(index))?);
        }
        let self_commitment = self_commitment(&session, self.party(), &own.self_secret);
        let preparation = Preparation { mask_public: dealer.mask_public(), self_commitment, sealed };
        let step = Step::Prepared { own, preparation: preparation.clone() };
        self.records.insert(session, Record { spec: spec.clone(), step });
        Ok(preparation)
    }

    /// Takes the preparations of the neighbours that prepared and gives the masks (Bonawitz et al. 2017, figure 4, round 2).
    /// At least max(t, `min_parties`) parties, this one counted, must have prepared: that many meet an honest signer of any list of
    /// survivors, so that even a node told a false list shares a mask with all honest survivors.
    pub fn masker(
        &mut self,
        session: &SessionId,
        terms: Terms,
        inbound: &BTreeMap<PartyId, InboundPreparation>,
    ) -> Result<Masker, Problem> {
        let record = self.live(session)?;
        let digest = digest_of(inbound);
        let own = match &record.step {
            Step::Prepared { own, .. } => own,
            Step::Masked { received, .. } if received.terms != terms => return Err(Problem::OtherTerms),
            Step::Masked { own, received, .. } if received.digest == digest => {
                return Ok(Masker(own.masks(session, self.party(), received)?));
            }
            Step::Masked { .. } => return Err(Problem::OtherPreparations),
            Step::Revealed { .. } => return Err(Problem::WrongStep { expected: "revealed", got: "mask" }),
            Step::Forgotten { .. } => return Err(Problem::WrongStep { expected: "forgotten", got: "mask" }),
        };
        let layout = record.spec.layout();
        let own_index = self.own_index(&record.spec)?;
        let prepared = u32::try_from(inbound.len() + 1).unwrap_or(u32::MAX);
        let least = match record.spec.graph {
            Graph::Complete => record.spec.least_survivors(),
            Graph::Sparse { .. } => layout.share_threshold(),
        };
        if prepared < least {
            return Err(Problem::TooFewParties { got: prepared, least });
        }
        let subject = subject(session);
        let (mut held, mut counters) = (BTreeMap::new(), Vec::new());
        for (party, preparation) in inbound {
            let index = record.spec.parties.index_of(party);
            if !index.is_some_and(|index| layout.are_neighbours(own_index, index)) {
                return Err(Problem::NotAParty { party: party.clone() });
            }
            let (plaintext, counter) = self.channels.peek(party, subject.as_ref(), &preparation.sealed)?;
            held.insert(party.clone(), Held::parse(party, preparation, &plaintext)?);
            counters.push((party.clone(), counter));
        }
        let received = Received { terms, digest, held };
        let masker = Masker(own.masks(session, self.party(), &received)?);
        for (party, counter) in counters {
            self.channels.took(&party, counter);
        }
        if let Some(record) = self.records.get_mut(session)
            && let Step::Prepared { own, preparation } = &record.step
        {
            let (own, preparation) = (own.clone(), preparation.clone());
            record.step = Step::Masked { own, preparation, received, signed: None };
        }
        Ok(masker)
    }

    /// Signs the list of survivors; one list for a session, ever (Bonawitz et al. 2017, figure 4, round 3).
    pub fn attest(
        &mut self,
        session: &SessionId,
        survivors: &[PartyId],
        identity: &IdentityKey,
    ) -> Result<Attestation, Problem> {
        let record = self.live(session)?;
        let attestation = || Attestation { signature: identity.sign(survivors_signed(session, survivors).as_ref()) };
        match &record.step {
            Step::Masked { signed: Some(before), .. } | Step::Revealed { survivors: before, signed: true, .. } => {
                return if before == survivors { Ok(attestation()) } else { Err(Problem::SecondList) };
            }
            Step::Masked { received, .. } => {
                self.check_survivors(&record.spec, survivors, &received.held)?;
                if !survivors.contains(self.party()) {
                    return Err(Problem::NotASurvivor);
                }
            }
            Step::Revealed { survivors: before, .. } if before == survivors && survivors.contains(self.party()) => {}
            Step::Revealed { .. } => return Err(Problem::SecondList),
            Step::Prepared { .. } => return Err(Problem::WrongStep { expected: "prepared", got: "attest" }),
            Step::Forgotten { .. } => return Err(Problem::WrongStep { expected: "forgotten", got: "attest" }),
        }
        match self.records.get_mut(session).map(|record| &mut record.step) {
            Some(Step::Masked { signed, .. }) => *signed = Some(survivors.to_vec()),
            Some(Step::Revealed { signed, .. }) => *signed = true,
            _ => {}
        }
        Ok(attestation())
    }

    /// Reveals this node's shares for a list that a quorum of its members signed: of the self masks of survivors and of the masking
    /// keys of the others, never both of one party (Bonawitz et al. 2017, figure 4, round 4). The session's secrets are wiped.
    pub fn reveal(
        &mut self,
        session: &SessionId,
        survivors: &[PartyId],
        attestations: &BTreeMap<PartyId, Attestation>,
    ) -> Result<Revelation, Problem> {
        let record = self.live(session)?;
        let (own, received, signed) = match &record.step {
            Step::Masked { own, received, signed, .. } => (own, received, signed),
            Step::Revealed { survivors: before, revelation, .. } => {
                return if before == survivors { Ok(revelation.clone()) } else { Err(Problem::SecondList) };
            }
            Step::Prepared { .. } => return Err(Problem::WrongStep { expected: "prepared", got: "reveal" }),
            Step::Forgotten { .. } => return Err(Problem::WrongStep { expected: "forgotten", got: "reveal" }),
        };
        if signed.as_ref().is_some_and(|before| before != survivors) {
            return Err(Problem::SecondList);
        }
        self.check_survivors(&record.spec, survivors, &received.held)?;
        self.check_attestations(&record.spec, session, survivors, attestations)?;
        let mut revelation = Revelation { self_shares: BTreeMap::new(), pair_shares: BTreeMap::new() };
        let mine = std::iter::once((self.party(), &own.shares));
        for (party, shares) in mine.chain(received.held.iter().map(|(party, held)| (party, &held.shares))) {
            if survivors.binary_search(party).is_ok() {
                revelation.self_shares.insert(party.clone(), shares.itself.clone());
            } else {
                revelation.pair_shares.insert(party.clone(), shares.pair.clone());
            }
        }
        let step =
            Step::Revealed { signed: signed.is_some(), survivors: survivors.to_vec(), revelation: revelation.clone() };
        if let Some(record) = self.records.get_mut(session) {
            record.step = step;
        }
        Ok(revelation)
    }

    /// Wipes what is left of a session (specification §6, last paragraph), keeping only that it was, so that nothing for the same context is prepared again.
    pub fn forget(&mut self, session: &SessionId) -> Result<(), Problem> {
        self.records.get_mut(session).ok_or(Problem::UnknownSession).map(Record::forget)
    }

    /// Forgets all sessions of rounds before this one, and refuses any new one for them (specification §6).
    pub fn close_rounds_before(&mut self, round: u32) {
        self.open_round = self.open_round.max(round);
        self.records.retain(|_, record| record.spec.context.round >= round);
    }

    fn own_index(&self, spec: &SessionSpec) -> Result<usize, Problem> {
        spec.parties.index_of(self.party()).ok_or_else(|| Problem::NotAParty { party: self.party().clone() })
    }

    /// Finds a session that no later attempt has replaced.
    fn live(&self, session: &SessionId) -> Result<&Record, Problem> {
        let record = self.records.get(session).ok_or(Problem::UnknownSession)?;
        let replaced = self
            .records
            .values()
            .any(|other| other.is_attempt_with(&record.spec) && other.spec.context.attempt > record.spec.context.attempt);
        if replaced { Err(Problem::Superseded) } else { Ok(record) }
    }

    /// Checks that all parties are known, and this node is one of them.
    fn check_known(&self, parties: &Parties) -> Result<(), Problem> {
        if !parties.contains(self.party()) {
            return Err(Problem::NotAParty { party: self.party().clone() });
        }
        match parties.iter().find(|party| *party != self.party() && self.channels.identity(party).is_none()) {
            Some(party) => Err(Problem::NoChannel { party: party.clone() }),
            None => Ok(()),
        }
    }

    fn check_spec(&self, spec: &SessionSpec) -> Result<(), Problem> {
        let context = &spec.context;
        if context.experiment != *self.channels.experiment() {
            return Err(Problem::OtherExperiment);
        }
        if context.round < self.open_round {
            return Err(Problem::Closed { round: context.round });
        }
        self.check_known(&spec.parties)?;
        spec.check_rules(&self.rules)?;
        if let Graph::Sparse { seed, .. } = &spec.graph {
            let opened = self.graph.as_ref().filter(|opened| opened.parties == spec.parties);
            if opened.and_then(|opened| opened.seed.as_ref()) != Some(seed) {
                return Err(Problem::GraphSeed);
            }
        }
        for earlier in self.records.values().filter(|record| record.is_attempt_with(spec)) {
            check_retry(earlier, spec)?;
        }
        Ok(())
    }

    fn check_survivors(
        &self,
        spec: &SessionSpec,
        survivors: &[PartyId],
        held: &BTreeMap<PartyId, Held>,
    ) -> Result<(), Problem> {
        if !survivors.is_sorted_by(|a, b| a < b) {
            return Err(Problem::Malformed { what: "list of survivors" });
        }
        let (got, least) = (u32::try_from(survivors.len()).unwrap_or(u32::MAX), spec.least_survivors());
        if got < least {
            return Err(Problem::TooFewSurvivors { got, least });
        }
        let layout = spec.layout();
        let own_index = self.own_index(spec)?;
        let mut group = vec![false; spec.parties.len()];
        for party in survivors {
            let index = spec.parties.index_of(party).ok_or_else(|| Problem::NotAParty { party: party.clone() })?;
            group[index] = true;
            if layout.are_neighbours(own_index, index) && !held.contains_key(party) {
                return Err(Problem::NotPrepared { party: party.clone() });
            }
        }
        if layout.is_quorum(&group, &group) { Ok(()) } else { Err(Problem::Scattered) }
    }

    fn check_attestations(
        &self,
        spec: &SessionSpec,
        session: &SessionId,
        survivors: &[PartyId],
        attestations: &BTreeMap<PartyId, Attestation>,
    ) -> Result<(), Problem> {
        let message = survivors_signed(session, survivors);
        let mut signers = vec![false; spec.parties.len()];
        let mut survived = signers.clone();
        for index in survivors.iter().filter_map(|party| spec.parties.index_of(party)) {
            survived[index] = true;
        }
        for (party, attestation) in attestations {
            let index = spec
                .parties
                .index_of(party)
                .filter(|index| survived[*index])
                .ok_or_else(|| Problem::NotAParty { party: party.clone() })?;
            // Its own signature needs no check: a node that did not sign gains nothing from counting itself.
            let valid = match self.channels.identity(party) {
                Some(identity) => identity.verifies(message.as_ref(), &attestation.signature),
                None => self.has_signed(session),
            };
            if !valid {
                return Err(Problem::Signature { what: "list of survivors", party: party.clone() });
            }
            signers[index] = true;
        }
        let got = u32::try_from(attestations.len()).unwrap_or(u32::MAX);
        if got < spec.threshold {
            return Err(Problem::TooFewSignatures { got, least: spec.threshold });
        }
        if spec.layout().is_quorum(&signers, &survived) { Ok(()) } else { Err(Problem::Scattered) }
    }

    fn has_signed(&self, session: &SessionId) -> bool {
        self.records.get(session).is_some_and(Record::is_signed)
    }
}

/// Gives what the sealed part of a preparation is about.
fn subject(session: &SessionId) -> Joined {
    Joined::label("preparation").raw(&session.0)
}
