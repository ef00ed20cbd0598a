//! The researcher's part of masked sums: it relays, fixes the list of survivors, and rebuilds what unmasks their sum.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::secrets::self_commitment;
use super::{Attestation, InboundPreparation, Preparation, Revelation, SEALED_BYTES, SHARE_BYTES};
use crate::channel::{Offer, Roster, SEALING_BYTES, public_of};
use crate::mask::{Masks, Modulus, Sign, VectorName, pair_seed, self_seed};
use crate::party::{Experiment, PartyId, Point};
use crate::problem::Problem;
use crate::session::{SessionSpec, Terms, survivors_signed};
use crate::shamir::{Element, Interpolation, LIMBS_257, Prime257, read, write};
use crate::wire::Secret;

/// Bounds the sets of holders left out in the search for wrong shares of one secret.
const MOST_TRIES: usize = 4096;

type Share = Element<Prime257, LIMBS_257>;
type Weights = Interpolation<Prime257, LIMBS_257>;

/// Checks offers before they are relayed (Bonawitz et al. 2017, figure 4, server's part of round 0), so that who signed wrongly is named once and not by every node.
pub fn check_offers(experiment: &Experiment, roster: &Roster, offers: &BTreeMap<PartyId, Offer>) -> Result<(), Problem> {
    for (party, offer) in offers {
        let identity = roster.get(party).ok_or_else(|| Problem::NotInRoster { party: party.clone() })?;
        offer.check(experiment, party, identity)?;
    }
    Ok(())
}

/// Is the researcher's state of one session: preparations, then survivors, attestations, revelations. Repeated messages are taken
/// again without effect; what is refused leaves the state as it was.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResearcherSession {
    spec: SessionSpec,
    identities: Roster,
    preparations: BTreeMap<PartyId, Preparation>,
    closed: bool,
    survivors: Option<Vec<PartyId>>,
    attestations: BTreeMap<PartyId, Attestation>,
    revelations: BTreeMap<PartyId, Revelation>,
}

impl ResearcherSession {
    /// Begins a session whose numbers fit (specification §7) and whose parties have identity keys.
    pub fn new(spec: SessionSpec, roster: &Roster) -> Result<Self, Problem> {
        spec.check()?;
        let mut identities = Roster::new();
        for party in &spec.parties {
            let identity = roster.get(party).ok_or_else(|| Problem::NotInRoster { party: party.clone() })?;
            identities.insert(party.clone(), *identity);
        }
        Ok(Self {
            spec,
            identities,
            preparations: BTreeMap::new(),
            closed: false,
            survivors: None,
            attestations: BTreeMap::new(),
            revelations: BTreeMap::new(),
        })
    }

    /// Returns what was begun.
    pub fn spec(&self) -> &SessionSpec {
        &self.spec
    }

    /// Takes a party's preparation (Bonawitz et al. 2017, figure 4, server's part of rounds 0 and 1).
    pub fn accept_preparation(&mut self, from: &PartyId, preparation: Preparation) -> Result<(), Problem> {
        let index = self.spec.parties.index_of(from).ok_or_else(|| Problem::NotAParty { party: from.clone() })?;
        if let Some(before) = self.preparations.get(from) {
            return same_or(before == &preparation, from);
        }
        if self.closed {
            return Err(Problem::WrongStep { expected: "masked", got: "prepare" });
        }
        let neighbours = self.spec.layout().neighbours(index);
        let expected = neighbours.iter().map(|neighbour| &self.spec.parties.as_slice()[*neighbour]);
        if !preparation.sealed.keys().eq(expected) {
            return Err(Problem::OtherShares { party: from.clone() });
        }
        if let Some(wrong) = preparation.sealed.values().find(|sealed| sealed.0.0.len() != SEALED_BYTES + SEALING_BYTES) {
            let expected = SEALED_BYTES + SEALING_BYTES;
            return Err(Problem::Length { what: "sealed preparation", expected, got: wrong.0.0.len() });
        }
        self.preparations.insert(from.clone(), preparation);
        Ok(())
    }

    /// Lists the parties whose preparations are here.
    pub fn prepared(&self) -> impl Iterator<Item = &PartyId> {
        self.preparations.keys()
    }

    /// Ends the step (Bonawitz et al. 2017, figure 4, server's end of round 1): gives for each party that prepared what its neighbours sealed for it. Later preparations are refused.
    pub fn close_preparations(&mut self) -> Result<BTreeMap<PartyId, BTreeMap<PartyId, InboundPreparation>>, Problem> {
        let (got, least) = (count(self.preparations.len()), self.spec.least_survivors());
        if got < least {
            return Err(Problem::TooFewParties { got, least });
        }
        self.check_quorum(&self.group(self.preparations.keys()), self.preparations.keys())?;
        self.closed = true;
        let inbound_of = |party: &PartyId| {
            let inbound = |(from, preparation): (&PartyId, &Preparation)| {
                let sealed = preparation.sealed.get(party)?.clone();
                Some((from.clone(), InboundPreparation { mask_public: preparation.mask_public, sealed }))
            };
            self.preparations.iter().filter_map(inbound).collect()
        };
        Ok(self.preparations.keys().map(|party| (party.clone(), inbound_of(party))).collect())
    }

    /// Fixes the survivors (Bonawitz et al. 2017, figure 4, server's end of round 2): the parties whose masked contributions are here, whole. What arrives of others later is to be discarded
    /// unread.
    pub fn fix_survivors(&mut self, survivors: impl IntoIterator<Item = PartyId>) -> Result<&[PartyId], Problem> {
        let survivors: BTreeSet<PartyId> = survivors.into_iter().collect();
        if !self.closed {
            return Err(Problem::WrongStep { expected: "prepared", got: "survivors" });
        }
        if let Some(before) = &self.survivors
            && !before.iter().eq(&survivors)
        {
            return Err(Problem::SecondList);
        }
        if let Some(party) = survivors.iter().find(|party| !self.preparations.contains_key(*party)) {
            return Err(Problem::NotPrepared { party: party.clone() });
        }
        let (got, least) = (count(survivors.len()), self.spec.least_survivors());
        if got < least {
            return Err(Problem::TooFewSurvivors { got, least });
        }
        self.check_quorum(&self.group(&survivors), &survivors)?;
        Ok(self.survivors.insert(survivors.into_iter().collect()))
    }

    /// Takes a survivor's signature of the list (Bonawitz et al. 2017, figure 4, server's part of round 3).
    pub fn accept_attestation(&mut self, from: &PartyId, attestation: Attestation) -> Result<(), Problem> {
        let survivors = self.fixed("attest")?;
        let identity = self
            .identities
            .get(from)
            .filter(|_| survivors.binary_search(from).is_ok())
            .ok_or_else(|| Problem::NotAParty { party: from.clone() })?;
        if let Some(before) = self.attestations.get(from) {
            return same_or(*before == attestation, from);
        }
        if !identity.verifies(survivors_signed(&self.spec.id(), survivors).as_ref(), &attestation.signature) {
            return Err(Problem::Signature { what: "list of survivors", party: from.clone() });
        }
        self.attestations.insert(from.clone(), attestation);
        Ok(())
    }

    /// Gives the signatures that are here, once there are enough (Bonawitz et al. 2017, figure 4, server's end of round 3).
    pub fn attestations(&self) -> Result<&BTreeMap<PartyId, Attestation>, Problem> {
        let survivors = self.fixed("reveal")?;
        let (got, least) = (count(self.attestations.len()), self.spec.threshold);
        if got < least {
            return Err(Problem::TooFewSignatures { got, least });
        }
        self.check_quorum(&self.group(self.attestations.keys()), survivors)?;
        Ok(&self.attestations)
    }

    /// Gives the signatures to show to all: of those that are here no more than it takes, for a node checks each that it is shown.
    pub fn shown_attestations(&self) -> Result<BTreeMap<PartyId, Attestation>, Problem> {
        let (signed, survivors) = (self.attestations()?, self.group(self.fixed("reveal")?));
        let shown = self.spec.layout().thinned(&self.group(signed.keys()), &survivors, self.spec.threshold as usize);
        let is_shown = |party: &PartyId| self.spec.parties.index_of(party).is_some_and(|index| shown[index]);
        Ok(signed.iter().filter(|(party, _)| is_shown(party)).map(|(party, signed)| (party.clone(), *signed)).collect())
    }

    /// Takes a party's shares (Bonawitz et al. 2017, figure 4, server's part of round 4): of the self masks of all survivors and the masking keys of all others that prepared, as far as it holds
    /// them, and no more.
    pub fn accept_revelation(&mut self, from: &PartyId, revelation: Revelation) -> Result<(), Problem> {
        let survivors = self.fixed("reveal")?;
        let index = self
            .spec
            .parties
            .index_of(from)
            .filter(|_| self.preparations.contains_key(from))
            .ok_or_else(|| Problem::NotAParty { party: from.clone() })?;
        if let Some(before) = self.revelations.get(from) {
            return same_or(before.is_same(&revelation), from);
        }
        let layout = self.spec.layout();
        let held = self.preparations.keys().filter(|party| {
            let other = self.spec.parties.index_of(party);
            *party == from || other.is_some_and(|other| layout.are_neighbours(index, other))
        });
        let (expected_self, expected_pair): (Vec<_>, Vec<_>) =
            held.partition(|party| survivors.binary_search(party).is_ok());
        let fits = |shares: &BTreeMap<PartyId, Secret<SHARE_BYTES>>, expected: Vec<&PartyId>| {
            shares.keys().eq(expected) && shares.values().all(|share| parse(share).is_ok())
        };
        if !fits(&revelation.self_shares, expected_self) || !fits(&revelation.pair_shares, expected_pair) {
            return Err(Problem::OtherShares { party: from.clone() });
        }
        self.revelations.insert(from.clone(), revelation);
        Ok(())
    }

    /// Rebuilds the survivors' self masks and the lost parties' masking keys, and checks each against what its owner published
    /// (Bonawitz et al. 2017, figure 4, round 4). Every sum it gives is right, or there is none.
    pub fn unmasker(&self, terms: Terms) -> Result<Unmasker, Problem> {
        let survivors = self.fixed("unmask")?;
        let session = self.spec.id();
        let mut rebuilding = Rebuilding { session: self, weights: HashMap::new(), liars: BTreeSet::new() };
        let mut seeds = Vec::new();
        for party in survivors {
            let committed = self.preparations[party].self_commitment;
            let secret = rebuilding.secret(
                party,
                |revelation| &revelation.self_shares,
                |secret| self_commitment(&session, party, secret) == committed,
            )?;
            seeds.push((self_seed(&session, party, &secret), Sign::Plus.opposite()));
        }
        let layout = self.spec.layout();
        for (party, preparation) in &self.preparations {
            if survivors.binary_search(party).is_ok() {
                continue;
            }
            let secret = rebuilding.secret(
                party,
                |revelation| &revelation.pair_shares,
                |secret| public_of(secret) == preparation.mask_public,
            )?;
            let index = self.spec.parties.index_of(party).ok_or_else(|| Problem::NotAParty { party: party.clone() })?;
            for survivor in survivors {
                if self.spec.parties.index_of(survivor).is_some_and(|other| layout.are_neighbours(index, other)) {
                    let public = &self.preparations[survivor].mask_public;
                    let seed = pair_seed(&session, (party, &secret), (survivor, public))
                        .ok_or_else(|| Problem::PublicKey { what: "preparation", party: survivor.clone() })?;
                    seeds.push((seed, Sign::of(survivor, party).opposite()));
                }
            }
        }
        Ok(Unmasker { masks: Masks::new(terms, seeds), liars: rebuilding.liars.into_iter().collect() })
    }

    fn fixed(&self, got: &'static str) -> Result<&[PartyId], Problem> {
        self.survivors.as_deref().ok_or(Problem::WrongStep { expected: "survivors", got })
    }

    fn group<'party>(&self, members: impl IntoIterator<Item = &'party PartyId>) -> Vec<bool> {
        let mut group = vec![false; self.spec.parties.len()];
        for index in members.into_iter().filter_map(|party| self.spec.parties.index_of(party)) {
            group[index] = true;
        }
        group
    }

    fn check_quorum<'party>(
        &self,
        group: &[bool],
        survivors: impl IntoIterator<Item = &'party PartyId>,
    ) -> Result<(), Problem> {
        if self.spec.layout().is_quorum(group, &self.group(survivors)) { Ok(()) } else { Err(Problem::Scattered) }
    }
}

impl Revelation {
    fn is_same(&self, other: &Self) -> bool {
        let same = |one: &BTreeMap<PartyId, Secret<SHARE_BYTES>>, other: &BTreeMap<PartyId, Secret<SHARE_BYTES>>| {
            one.keys().eq(other.keys())
                && one.values().zip(other.values()).all(|(one, other)| one.expose().ct_eq(other.expose()).into())
        };
        same(&self.self_shares, &other.self_shares) && same(&self.pair_shares, &other.pair_shares)
    }
}

/// Subtracts what masks the sum of the survivors' contributions.
pub struct Unmasker {
    masks: Masks,
    liars: Vec<PartyId>,
}

impl Unmasker {
    /// Subtracts the masks from elements `first_element…` of the sum of a vector, little-endian, in place (Bonawitz et al. 2017,
    /// figure 4, server's end of round 4; specification §4).
    pub fn subtract(
        &self,
        vector: VectorName<'_>,
        modulus: Modulus,
        first_element: u64,
        elements: &mut [u8],
    ) -> Result<(), Problem> {
        self.masks.apply(vector, modulus, first_element, elements)
    }

    /// Names parties that revealed wrong shares; the sum is right all the same.
    pub fn liars(&self) -> &[PartyId] {
        &self.liars
    }
}

/// Rebuilds secrets; keeps the weights of each set of holders, since most secrets have the same.
struct Rebuilding<'session> {
    session: &'session ResearcherSession,
    weights: HashMap<(Vec<Point>, u32), Weights>,
    liars: BTreeSet<PartyId>,
}

impl Rebuilding<'_> {
    fn secret(
        &mut self,
        owner: &PartyId,
        of: impl Fn(&Revelation) -> &BTreeMap<PartyId, Secret<SHARE_BYTES>>,
        is_right: impl Fn(&Secret<32>) -> bool,
    ) -> Result<Secret<32>, Problem> {
        let least = self.session.spec.layout().share_threshold();
        let mut shares: Vec<(&PartyId, Point, Share)> = Vec::new();
        for (holder, revelation) in &self.session.revelations {
            if let Some(share) = of(revelation).get(owner)
                && let Some(point) = self.session.spec.parties.point_of(holder)
            {
                shares.push((holder, point, parse(share)?));
            }
        }
        // Who lied about another secret comes last.
        shares.sort_by_key(|(holder, ..)| self.liars.contains(*holder));
        let threshold = least as usize;
        if shares.len() < threshold {
            return Err(Problem::TooFewShares { party: owner.clone(), got: count(shares.len()), least });
        }
        let mut tries = 0;
        for left_out in 0..=shares.len() - threshold {
            let mut chosen: Vec<usize> = (0..left_out).collect();
            loop {
                let group: Vec<_> = (0..shares.len()).filter(|at| !chosen.contains(at)).take(threshold).collect();
                if let Some(secret) = narrow(&self.value(&shares, &group, 0)).filter(&is_right) {
                    let wrong = self.wrong(&shares, &group);
                    if left_out > 0 {
                        self.liars.extend(wrong.into_iter().map(|at| shares[at].0.clone()));
                    }
                    return Ok(secret);
                }
                tries += 1;
                if tries >= MOST_TRIES || !next_choice(&mut chosen, shares.len()) {
                    break;
                }
            }
            if tries >= MOST_TRIES {
                break;
            }
        }
        // More shares than needed that all fit one polynomial: who shared it shared another secret.
        let first: Vec<usize> = (0..threshold).collect();
        let dealer = shares.len() > threshold && self.wrong(&shares, &first).is_empty();
        let liars = if dealer { vec![owner.clone()] } else { Vec::new() };
        Err(Problem::WrongShares { party: owner.clone(), liars })
    }

    fn value(&mut self, shares: &[(&PartyId, Point, Share)], group: &[usize], at: u32) -> Share {
        let points: Vec<Point> = group.iter().map(|index| shares[*index].1).collect();
        let values: Vec<Share> = group.iter().map(|index| shares[*index].2).collect();
        let weights = self.weights.entry((points, at)).or_insert_with_key(|(points, at)| Weights::new(points, *at));
        weights.value(&values)
    }

    /// Lists the shares that are not on the polynomial of the group.
    fn wrong(&mut self, shares: &[(&PartyId, Point, Share)], group: &[usize]) -> Vec<usize> {
        (0..shares.len())
            .filter(|at| !group.contains(at) && self.value(shares, group, shares[*at].1.get()) != shares[*at].2)
            .collect()
    }
}

/// Goes to the next choice of as many among `most`, in lexicographic order.
fn next_choice(chosen: &mut [usize], most: usize) -> bool {
    let size = chosen.len();
    let Some(at) = (0..size).rev().find(|at| chosen[*at] < most - size + at) else { return false };
    chosen[at] += 1;
    for later in at + 1..size {
        chosen[later] = chosen[later - 1] + 1;
    }
    true
}

fn parse(share: &Secret<SHARE_BYTES>) -> Result<Share, Problem> {
    read::<Prime257, LIMBS_257>(share.expose())
}

/// Turns a number of the field into a secret; none if it is 2^256 or more.
fn narrow(value: &Share) -> Option<Secret<32>> {
    let bytes = write(value);
    let (first, rest) = bytes.split_first()?;
    if *first == 0 { Some(Secret::new(rest.try_into().ok()?)) } else { None }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).expect("lists of parties hold at most 65,536")
}

fn same_or(same: bool, party: &PartyId) -> Result<(), Problem> {
    if same { Ok(()) } else { Err(Problem::Equivocation { party: party.clone() }) }
}
