//! A federation in memory: nodes, their identities, and an honest researcher that walks one session with chosen losses.

use std::collections::BTreeMap;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use secagg::channel::{Offer, Roster};
use secagg::graph::Graph;
use secagg::identity::IdentityKey;
use secagg::lom::{NodeRole, ResearcherSession, Unmasker};
use secagg::mask::{Modulus, VectorName};
use secagg::party::{Experiment, Parties, PartyId};
use secagg::problem::Problem;
use secagg::session::{Context, Rules, SessionSpec, Terms};
use secagg::wire::Fixed;

pub(crate) const TERMS: Terms = Terms(Fixed([9; 32]));

pub(crate) const LENGTH: usize = 37;

pub(crate) fn vector(index: u32) -> VectorName<'static> {
    VectorName { index, purpose: "update", name: "weights" }
}

pub(crate) fn id(index: usize) -> PartyId {
    PartyId::new(format!("node-{index:03}")).unwrap()
}

pub(crate) fn experiment() -> Experiment {
    Experiment::new("experiment").unwrap()
}

pub(crate) fn context(round: u32) -> Context {
    Context { experiment: experiment(), round, attempt: 0, phase: 0 }
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) rng: ChaCha20Rng,
    pub(crate) nodes: BTreeMap<PartyId, NodeRole>,
    pub(crate) roster: Roster,
    pub(crate) parties: Parties,
}

/// Says who vanishes before which step; who vanished before one is gone for all later.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses {
    pub(crate) prepare: Vec<bool>,
    pub(crate) mask: Vec<bool>,
    pub(crate) attest: Vec<bool>,
    pub(crate) reveal: Vec<bool>,
}

pub(crate) fn identity(index: usize) -> IdentityKey {
    let mut scalar = [0x11; 32];
    scalar[..8].copy_from_slice(&(index as u64 + 1).to_be_bytes());
    IdentityKey::from_scalar(&scalar).unwrap()
}

pub(crate) fn identity_of(party: &PartyId) -> IdentityKey {
    identity(party.as_str().strip_prefix("node-").unwrap().parse().unwrap())
}

impl World {
    pub(crate) fn new(parties: usize, rules: Rules, seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let ids: Vec<PartyId> = (0..parties).map(id).collect();
        let roster: Roster = ids.iter().map(|id| (id.clone(), identity_of(id).public())).collect();
        let mut nodes: BTreeMap<PartyId, NodeRole> =
            ids.iter().map(|id| (id.clone(), NodeRole::new(experiment(), id.clone(), rules, &mut rng))).collect();
        let offers: BTreeMap<PartyId, Offer> =
            nodes.iter().map(|(id, node)| (id.clone(), node.offer(&identity_of(id)))).collect();
        secagg::lom::check_offers(&experiment(), &roster, &offers).unwrap();
        for node in nodes.values_mut() {
            node.agree(&roster, &offers).unwrap();
        }
        Self { rng, nodes, roster, parties: Parties::new(ids).unwrap() }
    }

    pub(crate) fn spec(&self, round: u32, colluders: u32, min_parties: u32) -> SessionSpec {
        SessionSpec::new(context(round), self.parties.clone(), colluders, min_parties)
    }

    /// Opens the seeds and gives the session a sparse graph of k neighbours.
    pub(crate) fn sparse(&mut self, mut spec: SessionSpec, neighbours: u32) -> SessionSpec {
        let seeds = self.nodes.iter_mut().map(|(id, node)| (id.clone(), node.open_seed(&spec.parties).unwrap())).collect();
        for node in self.nodes.values_mut() {
            spec.graph = Graph::Sparse { neighbours, seed: node.accept_seeds(&seeds).unwrap() };
        }
        spec
    }

    pub(crate) fn values(&mut self, modulus: Modulus) -> BTreeMap<PartyId, Vec<u8>> {
        let rng = &mut self.rng;
        let draw = |id: &PartyId| {
            let mut bytes = vec![0; LENGTH * modulus.bytes()];
            rng.fill_bytes(&mut bytes);
            (id.clone(), bytes)
        };
        self.parties.iter().map(draw).collect()
    }

    /// Walks a session up to masked contributions.
    pub(crate) fn mask(
        &mut self,
        spec: &SessionSpec,
        losses: &Losses,
        values: &BTreeMap<PartyId, Vec<u8>>,
        modulus: Modulus,
    ) -> Result<(ResearcherSession, BTreeMap<PartyId, Vec<u8>>), Problem> {
        let mut researcher = ResearcherSession::new(spec.clone(), &self.roster)?;
        for (index, (id, node)) in self.nodes.iter_mut().enumerate() {
            if !losses.prepare[index] {
                researcher.accept_preparation(id, node.prepare(spec, &mut self.rng)?)?;
            }
        }
        let inbound = researcher.close_preparations()?;
        let mut contributions = BTreeMap::new();
        for (index, (id, node)) in self.nodes.iter_mut().enumerate() {
            if !losses.prepare[index] && !losses.mask[index] {
                let masker = node.masker(&spec.id(), TERMS, &inbound[id])?;
                let mut bytes = values[id].clone();
                masker.add(vector(0), modulus, 0, &mut bytes)?;
                contributions.insert(id.clone(), bytes);
            }
        }
        researcher.fix_survivors(contributions.keys().cloned())?;
        Ok((researcher, contributions))
    }

    /// Walks the end of a session.
    pub(crate) fn unmask(&mut self, researcher: &mut ResearcherSession, losses: &Losses) -> Result<Unmasker, Problem> {
        let session = researcher.spec().id();
        let survivors = survivors(researcher);
        let gone = |index: usize| losses.prepare[index] || losses.mask[index] || losses.attest[index];
        for (index, (id, node)) in self.nodes.iter_mut().enumerate() {
            if !gone(index) {
                researcher.accept_attestation(id, node.attest(&session, &survivors, &identity_of(id))?)?;
            }
        }
        let attestations = researcher.shown_attestations()?;
        for (index, (id, node)) in self.nodes.iter_mut().enumerate() {
            if !gone(index) && !losses.reveal[index] {
                researcher.accept_revelation(id, node.reveal(&session, &survivors, &attestations)?)?;
            }
        }
        researcher.unmasker(TERMS)
    }
}

/// Reads the survivors from the researcher's state.
pub(crate) fn survivors(researcher: &ResearcherSession) -> Vec<PartyId> {
    let state = serde_json::to_value(researcher).unwrap();
    serde_json::from_value(state["survivors"].clone()).unwrap()
}

/// Adds little-endian vectors element by element.
pub(crate) fn sum<'bytes>(vectors: impl IntoIterator<Item = &'bytes Vec<u8>>, modulus: Modulus) -> Vec<u8> {
    let width = modulus.bytes();
    let mut total = vec![0_u8; LENGTH * width];
    for bytes in vectors {
        for (total, bytes) in total.chunks_exact_mut(width).zip(bytes.chunks_exact(width)) {
            let mut carry = 0;
            for (total, byte) in total.iter_mut().zip(bytes) {
                let digit = u16::from(*total) + u16::from(*byte) + carry;
                *total = u8::try_from(digit & 255).unwrap();
                carry = digit >> 8;
            }
        }
    }
    total
}
