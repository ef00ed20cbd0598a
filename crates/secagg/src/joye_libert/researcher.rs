//! The researcher's part of Joye-Libert: relays sealed shares, reconstructs its key, folds ciphertexts into a sum.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::cipher::{Masks, Packing, Product};
use super::group::Group;
use super::keys::{KEY_BYTES, KeySpec, KeysId, Prime4241, SHARE_BYTES, ServerKey};
use super::node::{KeyShares, SumShare};
use super::{Label, Problem};
use crate::channel::Sealed;
use crate::mask::{Modulus, VectorName};
use crate::party::{Experiment, PartyId, Point};
use crate::problem::Problem as Common;
use crate::session::{Context, Terms};
use crate::shamir::{self, Element, Interpolation};
use crate::wire::Secret;

/// Limbs of a number of the field.
const LIMBS: usize = super::group::Wide::LIMBS;

/// The negotiations of keys of one experiment: state, to be stored after each call.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Researcher {
    experiment: Experiment,
    last_generation: Option<u32>,
    negotiations: BTreeMap<u32, Negotiation>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Negotiation {
    spec: KeySpec,
    id: KeysId,
    shares: BTreeMap<PartyId, BTreeMap<PartyId, Sealed>>,
    sums: BTreeMap<PartyId, Secret<SHARE_BYTES>>,
}

impl Researcher {
    /// Begins without keys.
    pub fn new(experiment: Experiment) -> Self {
        Self { experiment, last_generation: None, negotiations: BTreeMap::new() }
    }

    /// Gives the number for the next list of parties.
    pub fn next_generation(&self) -> u32 {
        self.last_generation.map_or(0, |last| last.saturating_add(1))
    }

    /// Begins a negotiation (Joye-Libert 2013, §3, `Setup`; specification §9). Asked the same again, changes nothing.
    pub fn begin(&mut self, group: &Group, spec: &KeySpec) -> Result<KeysId, Problem> {
        let generation = spec.generation;
        let id = spec.id(group);
        if self.negotiations.get(&generation).is_some_and(|negotiation| negotiation.spec == *spec && negotiation.id == id) {
            return Ok(id);
        }
        if let Some(last) = self.last_generation.filter(|last| generation <= *last) {
            return Err(Problem::GenerationUsed { generation, last });
        }
        if spec.experiment != self.experiment {
            return Err(Common::OtherExperiment.into());
        }
        spec.check_threshold(0)?;
        self.last_generation = Some(generation);
        let negotiation = Negotiation { spec: spec.clone(), id, shares: BTreeMap::new(), sums: BTreeMap::new() };
        self.negotiations.insert(generation, negotiation);
        Ok(id)
    }

    /// Takes the sealed shares of a party (Ben-Or, Goldwasser, Wigderson 1988: the input stage). Given the same again, changes nothing; other ones are refused.
    pub fn accept_shares(&mut self, generation: u32, from: &PartyId, shares: KeyShares) -> Result<(), Problem> {
        let negotiation = self.find_mut(generation)?;
        negotiation.check(from, shares.keys)?;
        let (parties, others) = (&negotiation.spec.parties, shares.sealed.keys());
        if others.ne(parties.iter().filter(|party| *party != from)) {
            return Err(Common::OtherShares { party: from.clone() }.into());
        }
        match negotiation.shares.get(from) {
            Some(first) if *first != shares.sealed => Err(Common::Equivocation { party: from.clone() }.into()),
            Some(_) => Ok(()),
            None => {
                negotiation.shares.insert(from.clone(), shares.sealed);
                Ok(())
            }
        }
    }

    /// Gives what to relay to a party once all have shared (Ben-Or, Goldwasser, Wigderson 1988: the input stage): the share of each other party for it.
    pub fn inbound(&self, generation: u32, to: &PartyId) -> Result<Vec<(PartyId, Sealed)>, Problem> {
        let negotiation = self.find(generation)?;
        if !negotiation.spec.parties.contains(to) {
            return Err(Common::NotAParty { party: to.clone() }.into());
        }
        let missing = |party: &&PartyId| !negotiation.shares.contains_key(*party);
        let parties: Vec<PartyId> = negotiation.spec.parties.iter().filter(missing).cloned().collect();
        if !parties.is_empty() {
            return Err(Problem::Missing { what: "key shares are", parties });
        }
        let relayed = negotiation.shares.iter().filter_map(|(from, sealed)| Some((from.clone(), sealed.get(to)?.clone())));
        Ok(relayed.collect())
    }

    /// Takes the sum of shares of a party (Ben-Or, Goldwasser, Wigderson 1988: the final stage). Given the same again, changes nothing; another one is refused.
    pub fn accept_sum(&mut self, generation: u32, from: &PartyId, sum: SumShare) -> Result<(), Problem> {
        let negotiation = self.find_mut(generation)?;
        negotiation.check(from, sum.keys)?;
        let number =
            shamir::read::<Prime4241, LIMBS>(sum.share.expose()).map_err(|_| Problem::Share { party: from.clone() })?;
        if let Some(first) = negotiation.sums.get(from) {
            let first = shamir::read::<Prime4241, LIMBS>(first.expose())?;
            return if first == number { Ok(()) } else { Err(Common::Equivocation { party: from.clone() }.into()) };
        }
        negotiation.sums.insert(from.clone(), sum.share);
        Ok(())
    }

    /// Reconstructs the sum of all keys from t sums of shares, and checks it against the others if there are more (Ben-Or,
    /// Goldwasser, Wigderson 1988: the final stage).
    pub fn server_key(&self, generation: u32) -> Result<ServerKey, Problem> {
        let negotiation = self.find(generation)?;
        let spec = &negotiation.spec;
        let threshold = usize::try_from(spec.threshold).expect("at most 65,536");
        if negotiation.sums.len() < threshold {
            return Err(Problem::TooFewSums { got: negotiation.sums.len(), least: spec.threshold });
        }
        let mut sums = Vec::new();
        for (party, sum) in &negotiation.sums {
            let point = spec.parties.point_of(party).ok_or_else(|| Common::NotAParty { party: party.clone() })?;
            sums.push((point, shamir::read::<Prime4241, LIMBS>(sum.expose())?));
        }
        if !lie_on_one_polynomial(&sums, threshold) {
            return Err(Problem::WrongSums { party: liar(&sums, threshold).map(|at| negotiation.party(at)) });
        }
        let (points, shares): (Vec<Point>, Vec<_>) = sums[..threshold].iter().copied().unzip();
        let bytes = shamir::write(&Interpolation::<Prime4241, LIMBS>::new(&points, 0).value(&shares));
        let sum = Secret::new(bytes.as_slice().try_into().expect("shares of this field have 531 bytes"));
        // Below n · 2^4224.
        let above_keys = &bytes[..SHARE_BYTES - KEY_BYTES];
        let above = above_keys.iter().fold(0_u64, |above, byte| above << 8 | u64::from(*byte));
        if above >= u64::from(spec.parties.count()) {
            return Err(Problem::WrongSums { party: None });
        }
        Ok(ServerKey { spec: spec.clone(), id: negotiation.id, sum })
    }

    /// Drops a negotiation; its number stays used (specification §9).
    pub fn forget(&mut self, generation: u32) {
        self.negotiations.remove(&generation);
    }

    fn find(&self, generation: u32) -> Result<&Negotiation, Problem> {
        self.negotiations.get(&generation).ok_or(Problem::UnknownGeneration { generation })
    }

    fn find_mut(&mut self, generation: u32) -> Result<&mut Negotiation, Problem> {
        self.negotiations.get_mut(&generation).ok_or(Problem::UnknownGeneration { generation })
    }
}

impl Negotiation {
    fn check(&self, from: &PartyId, keys: KeysId) -> Result<(), Problem> {
        if !self.spec.parties.contains(from) {
            return Err(Common::NotAParty { party: from.clone() }.into());
        }
        if keys != self.id {
            return Err(Problem::OtherKeys { party: from.clone() });
        }
        Ok(())
    }

    /// Names the party whose sum has this place among those that came.
    fn party(&self, at: usize) -> PartyId {
        self.sums.keys().nth(at).expect("a place among the sums").clone()
    }
}

type Share = (Point, Element<Prime4241, LIMBS>);

/// Tells whether the first t sums give all others.
fn lie_on_one_polynomial(sums: &[Share], threshold: usize) -> bool {
    let (points, shares): (Vec<Point>, Vec<_>) = sums[..threshold].iter().copied().unzip();
    let fits = |(point, share): &Share| Interpolation::new(&points, point.get()).value(&shares) == *share;
    sums[threshold..].iter().all(fits)
}

/// Finds the one sum without which the others agree; with fewer than t + 2 any could be it.
fn liar(sums: &[Share], threshold: usize) -> Option<usize> {
    (0..sums.len()).filter(|_| sums.len() >= threshold + 2).find(|at| {
        let others: Vec<Share> = sums.iter().enumerate().filter(|(index, _)| index != at).map(|(_, sum)| *sum).collect();
        lie_on_one_polynomial(&others, threshold)
    })
}

/// The sum of one vector over all parties, one party after the other.
pub struct Fold {
    label: Label,
    ciphertexts: usize,
    product: Product,
    missing: BTreeSet<PartyId>,
    spec: KeySpec,
}

impl Fold {
    /// Begins the sum of a vector (Joye-Libert 2013, §3, `AggrDec`; specification §9).
    pub fn new(
        group: &Group,
        key: &ServerKey,
        context: &Context,
        terms: Terms,
        vector: VectorName<'_>,
        modulus: Modulus,
        elements: usize,
    ) -> Result<Self, Problem> {
        if key.spec.id(group) != key.id {
            return Err(Problem::OtherModulus);
        }
        if key.spec.experiment != context.experiment {
            return Err(Common::OtherExperiment.into());
        }
        let packing = Packing::new(modulus, key.spec.parties.count());
        Ok(Self {
            label: Label::new(key.id, context, terms, vector),
            ciphertexts: packing.ciphertexts(elements),
            product: Product::new(group.clone(), packing, elements),
            missing: key.spec.parties.iter().cloned().collect(),
            spec: key.spec.clone(),
        })
    }

    /// Returns what masks are computed for.
    pub fn label(&self) -> &Label {
        &self.label
    }

    /// Counts the ciphertexts of the vector, and so the masks needed.
    pub fn ciphertexts(&self) -> usize {
        self.ciphertexts
    }

    /// Multiplies with the ciphertexts of a party, once (Joye-Libert 2013, §3, `AggrDec`).
    pub fn add(&mut self, party: &PartyId, ciphertexts: &[u8]) -> Result<(), Problem> {
        if !self.spec.parties.contains(party) {
            return Err(Common::NotAParty { party: party.clone() }.into());
        }
        if !self.missing.contains(party) {
            return Err(Problem::Duplicate { party: party.clone() });
        }
        let expected = self.ciphertexts;
        self.product.multiply(ciphertexts).ok_or_else(|| Problem::Ciphertexts { party: party.clone(), expected })?;
        self.missing.remove(party);
        Ok(())
    }

    /// Opens the sum, little-endian elements modulo 2^w, when all parties are in (Joye-Libert 2013, §3, `AggrDec`).
    pub fn finish(&self, masks: &Masks) -> Result<Vec<u8>, Problem> {
        if !self.missing.is_empty() {
            return Err(Problem::Missing { what: "ciphertexts are", parties: self.missing.iter().cloned().collect() });
        }
        self.product.aggregate(&self.label, masks)
    }
}
