//! The node's part of Joye-Libert: draws and shares a key for each list of parties, encrypts each vector once.

use std::collections::{BTreeMap, BTreeSet};

use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};

use super::cipher::{self, Masker, Masks, Packing, Side};
use super::group::{Exponent, Group};
use super::keys::{KEY_BITS, KEY_BYTES, KeySpec, KeysId, Prime4241, SHARE_BYTES};
use super::{Label, Problem, Vector};
use crate::channel::{Channels, Sealed};
use crate::mask::VectorName;
use crate::party::{PartyId, Point};
use crate::problem::Problem as Common;
use crate::session::{Context, Rules, Terms};
use crate::shamir::{self, Polynomial};
use crate::wire::{Fixed, Joined, Secret};

/// What a node sends when it has drawn a key: a sealed share for every other party.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyShares {
    /// Which keys they are of.
    pub keys: KeysId,
    /// The share for each other party, which alone can open it.
    pub sealed: BTreeMap<PartyId, Sealed>,
}

/// What a node tells the researcher at the end: the sum of all shares it got. Any t of them give the sum of the keys.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SumShare {
    /// Which keys it is of.
    pub keys: KeysId,
    /// The sum, 531 bytes big-endian.
    pub share: Secret<SHARE_BYTES>,
}

/// A node's keys of one experiment and what it encrypted with them: state, to be stored after each call and before its answer
/// leaves.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    last_generation: Option<u32>,
    generations: BTreeMap<u32, Keys>,
    rounds: BTreeMap<u32, Round>,
    /// Rounds up to this one are closed.
    closed: Option<u32>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    spec: KeySpec,
    id: KeysId,
    key: Secret<KEY_BYTES>,
    own_share: Secret<SHARE_BYTES>,
    sealed: BTreeMap<PartyId, Sealed>,
    sum: Option<Sum>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sum {
    /// Digest of the messages it was made of.
    inbound: Fixed<32>,
    share: Secret<SHARE_BYTES>,
}

/// What was encrypted in a round.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Round {
    /// For each phase, the digest of the list of parties.
    lists: BTreeMap<u16, Fixed<32>>,
    /// For each context and name, the digest of the ciphertexts.
    vectors: BTreeMap<Fixed<32>, Fixed<32>>,
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

impl Node {
    /// Begins without keys.
    pub fn new() -> Self {
        Self { last_generation: None, generations: BTreeMap::new(), rounds: BTreeMap::new(), closed: None }
    }

    /// Draws a key for a list of parties and shares it among them (Ben-Or, Goldwasser, Wigderson 1988: the input stage). Asked the
    /// same again, gives the very same answer.
    pub fn share_keys(
        &mut self,
        channels: &mut Channels,
        group: &Group,
        spec: &KeySpec,
        rules: &Rules,
        rng: &mut impl CryptoRng,
    ) -> Result<KeyShares, Problem> {
        let generation = spec.generation;
        let id = spec.id(group);
        if let Some(keys) = self.generations.get(&generation).filter(|keys| keys.id == id && keys.spec == *spec) {
            return Ok(KeyShares { keys: id, sealed: keys.sealed.clone() });
        }
        if let Some(last) = self.last_generation.filter(|last| generation <= *last) {
            return Err(Problem::GenerationUsed { generation, last });
        }
        if spec.experiment != *channels.experiment() {
            return Err(Common::OtherExperiment.into());
        }
        spec.check(rules)?;
        let me = channels.party().clone();
        let own_point = spec.parties.point_of(&me).ok_or_else(|| Common::NotAParty { party: me.clone() })?;
        for party in spec.parties.iter().filter(|party| **party != me) {
            channels.identity(party).ok_or_else(|| Common::NoChannel { party: party.clone() })?;
        }
        let key = Secret::draw(rng);
        let polynomial = Polynomial::<Prime4241, _>::draw(key.expose(), spec.threshold, rng)?;
        let subject = KeySpec::subject(id);
        let mut sealed = BTreeMap::new();
        for (index, party) in spec.parties.iter().enumerate().filter(|(_, party)| **party != me) {
            let share = polynomial.share(Point::of_index(index));
            sealed.insert(party.clone(), channels.seal(party, subject.as_ref(), &share)?);
        }
        let own_share = secret(&polynomial.share(own_point));
        self.last_generation = Some(generation);
        self.generations
            .insert(generation, Keys { spec: spec.clone(), id, key, own_share, sealed: sealed.clone(), sum: None });
        Ok(KeyShares { keys: id, sealed })
    }

    /// Opens the shares of all others and adds them to the own one (Ben-Or, Goldwasser, Wigderson 1988: the computation stage of a sum). Given
    /// the same again, gives the very same answer.
    pub fn take_shares(
        &mut self,
        channels: &mut Channels,
        generation: u32,
        inbound: &[(PartyId, Sealed)],
    ) -> Result<SumShare, Problem> {
        let keys = self.generations.get_mut(&generation).ok_or(Problem::UnknownGeneration { generation })?;
        let inbound = by_party(&keys.spec, channels.party(), inbound)?;
        let digest = digest_of(&inbound);
        if let Some(sum) = &keys.sum {
            if sum.inbound == digest {
                return Ok(SumShare { keys: keys.id, share: sum.share.clone() });
            }
            return Err(Common::OtherPreparations.into());
        }
        let subject = KeySpec::subject(keys.id);
        let mut sum = shamir::read::<Prime4241, _>(keys.own_share.expose())?;
        let mut counters = Vec::new();
        for (party, sealed) in &inbound {
            let (plaintext, counter) = channels.peek(party, subject.as_ref(), sealed)?;
            let share = shamir::read(&plaintext).map_err(|_| Problem::Share { party: (*party).clone() })?;
            sum = sum.add(&share);
            counters.push((*party, counter));
        }
        for (party, counter) in counters {
            channels.took(party, counter);
        }
        let share = secret(&shamir::write(&sum));
        keys.sum = Some(Sum { inbound: digest, share: share.clone() });
        Ok(SumShare { keys: keys.id, share })
    }

    /// Prepares a node's masks, h^sk, for keys whose shares were taken (Joye-Libert 2013, §3, the factor of `Enc` without data).
    pub fn masker(&self, group: &Group, generation: u32) -> Result<Masker, Problem> {
        let keys = self.keys(group, generation)?;
        let exponent = Exponent::from_be_bytes(keys.key.expose(), KEY_BITS);
        Ok(Masker { group: group.clone(), exponent, side: Side::Node })
    }

    /// Gives the label of a vector under the keys of a generation (Joye-Libert 2013, §3, the time t of `Enc`; specification §9).
    pub fn label(&self, generation: u32, context: &Context, terms: Terms, vector: VectorName<'_>) -> Result<Label, Problem> {
        let keys = self.generations.get(&generation).ok_or(Problem::UnknownGeneration { generation })?;
        Ok(Label::new(keys.id, context, terms, vector))
    }

    /// Encrypts a vector of little-endian elements with masks computed before (Joye-Libert 2013, §3, `Enc`). One vector for
    /// each context, number, purpose and name; the same vector again gives the same bytes.
    pub fn encrypt(
        &mut self,
        group: &Group,
        generation: u32,
        context: &Context,
        terms: Terms,
        vector: Vector<'_>,
        masks: &Masks,
    ) -> Result<Vec<u8>, Problem> {
        let keys = self.keys(group, generation)?;
        if keys.spec.experiment != context.experiment {
            return Err(Common::OtherExperiment.into());
        }
        let round = context.round;
        if self.closed.is_some_and(|closed| round <= closed) {
            return Err(Common::Closed { round }.into());
        }
        let list = Fixed(Joined::default().list(keys.spec.parties.iter().map(PartyId::as_bytes)).sha256());
        let spent = self.rounds.get(&round);
        if spent.and_then(|spent| spent.lists.get(&context.phase)).is_some_and(|first| *first != list) {
            return Err(Problem::SecondList { round });
        }
        let label = Label::new(keys.id, context, terms, vector.name);
        let packing = Packing::new(vector.modulus, keys.spec.parties.count());
        let ciphertexts = cipher::encrypt(group, &packing, &label, vector.elements, masks)?;
        let digest = Fixed(Joined::default().raw(&ciphertexts).sha256());
        let name = Fixed(super::name(context.joined(), vector.name).sha256());
        if spent.and_then(|spent| spent.vectors.get(&name)).is_some_and(|first| *first != digest) {
            return Err(Problem::LabelSpent);
        }
        let spent = self.rounds.entry(round).or_default();
        spent.lists.insert(context.phase, list);
        spent.vectors.insert(name, digest);
        Ok(ciphertexts)
    }

    /// Ends all rounds up to this one (specification §9, last paragraph): nothing is encrypted for them any more, and what was is forgotten.
    pub fn close(&mut self, round: u32) {
        self.closed = self.closed.max(Some(round));
        self.rounds = self.rounds.split_off(&round.saturating_add(1));
    }

    /// Returns what the keys of a generation are for, and their digest.
    pub fn keys_of(&self, generation: u32) -> Option<(&KeySpec, KeysId)> {
        self.generations.get(&generation).map(|keys| (&keys.spec, keys.id))
    }

    /// Wipes the keys of all earlier generations (specification §9): no list of parties comes back.
    pub fn forget_before(&mut self, generation: u32) {
        self.generations = self.generations.split_off(&generation);
    }

    /// Wipes all keys (specification §9); that they were, and which rounds they encrypted for which list, is kept.
    pub fn forget_all(&mut self) {
        self.generations.clear();
    }

    /// Returns the latest generation of keys that was drawn here.
    pub fn last_generation(&self) -> Option<u32> {
        self.last_generation
    }

    /// Wipes the keys of a generation; its number stays used (specification §9).
    pub fn forget(&mut self, generation: u32) {
        self.generations.remove(&generation);
    }

    /// Finds keys whose shares were taken.
    fn keys(&self, group: &Group, generation: u32) -> Result<&Keys, Problem> {
        let keys = self.generations.get(&generation).ok_or(Problem::UnknownGeneration { generation })?;
        if keys.spec.id(group) != keys.id {
            return Err(Problem::OtherModulus);
        }
        if keys.sum.is_none() {
            return Err(Common::WrongStep { expected: "key shares of all others", got: "encryption" }.into());
        }
        Ok(keys)
    }
}

#[cfg(test)]
impl Node {
    /// Shows key and own share to the tests of this module's parent.
    pub(super) fn exposed(&self, generation: u32) -> (&[u8; KEY_BYTES], &[u8; SHARE_BYTES]) {
        let keys = &self.generations[&generation];
        (keys.key.expose(), keys.own_share.expose())
    }
}

/// Sorts messages by sender: one of each other party, none else.
fn by_party<'message>(
    spec: &KeySpec,
    me: &PartyId,
    inbound: &'message [(PartyId, Sealed)],
) -> Result<BTreeMap<&'message PartyId, &'message Sealed>, Problem> {
    let mut sorted = BTreeMap::new();
    for (party, sealed) in inbound {
        if party == me || !spec.parties.contains(party) {
            return Err(Common::NotAParty { party: party.clone() }.into());
        }
        if sorted.insert(party, sealed).is_some() {
            return Err(Common::PartyTwice { party: party.clone() }.into());
        }
    }
    let there: BTreeSet<&PartyId> = sorted.keys().copied().collect();
    let parties: Vec<PartyId> =
        spec.parties.iter().filter(|party| *party != me && !there.contains(party)).cloned().collect();
    if parties.is_empty() { Ok(sorted) } else { Err(Problem::Missing { what: "key shares are", parties }) }
}

fn digest_of(inbound: &BTreeMap<&PartyId, &Sealed>) -> Fixed<32> {
    let joined = inbound
        .iter()
        .fold(Joined::default(), |joined, (party, sealed)| joined.prefixed(party.as_bytes()).prefixed(&sealed.0.0));
    Fixed(joined.sha256())
}

fn secret(share: &[u8]) -> Secret<SHARE_BYTES> {
    Secret::new(share.try_into().expect("shares of this field have 531 bytes"))
}
