//! Nodes with agreed channels.

use std::collections::BTreeMap;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use secagg::channel::Roster;
use secagg::graph::Graph;
use secagg::identity::IdentityKey;
use secagg::lom::NodeRole;
use secagg::mask::VectorName;
use secagg::party::{Experiment, Parties, PartyId};
use secagg::session::{Context, Rules, SessionSpec, Terms};
use secagg::wire::Fixed;

pub(crate) const TERMS: Terms = Terms(Fixed([5; 32]));
pub(crate) const UPDATE: VectorName<'_> = VectorName { index: 0, purpose: "update", name: "w" };

pub(crate) struct Federation {
    pub(crate) rng: ChaCha20Rng,
    pub(crate) experiment: Experiment,
    pub(crate) parties: Parties,
    pub(crate) keys: Vec<IdentityKey>,
    pub(crate) roster: Roster,
    pub(crate) nodes: Vec<NodeRole>,
}

pub(crate) fn key(index: usize) -> IdentityKey {
    IdentityKey::from_scalar(&[u8::try_from(index + 1).unwrap(); 32]).unwrap()
}

pub(crate) fn id(index: usize) -> PartyId {
    PartyId::new(format!("node-{index:03}")).unwrap()
}

impl Federation {
    pub(crate) fn new(parties: usize, rules: Rules) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let experiment = Experiment::new("figures").unwrap();
        let keys: Vec<IdentityKey> = (0..parties).map(key).collect();
        let roster: Roster = keys.iter().enumerate().map(|(index, key)| (id(index), key.public())).collect();
        let mut nodes: Vec<NodeRole> =
            (0..parties).map(|index| NodeRole::new(experiment.clone(), id(index), rules, &mut rng)).collect();
        let offers: BTreeMap<_, _> =
            nodes.iter().zip(&keys).enumerate().map(|(index, (node, key))| (id(index), node.offer(key))).collect();
        for node in &mut nodes {
            node.agree(&roster, &offers).unwrap();
        }
        Self { rng, experiment, parties: Parties::new((0..parties).map(id)).unwrap(), keys, roster, nodes }
    }

    /// Describes a session; with a graph of so many neighbours if they are given.
    pub(crate) fn spec(&mut self, round: u32, colluders: u32, neighbours: Option<u32>) -> SessionSpec {
        let context = Context { experiment: self.experiment.clone(), round, attempt: 0, phase: 0 };
        let mut spec = SessionSpec::new(context, self.parties.clone(), colluders, 3);
        if let Some(neighbours) = neighbours {
            let open = |(index, node): (usize, &mut NodeRole)| (id(index), node.open_seed(&spec.parties).unwrap());
            let seeds = self.nodes.iter_mut().enumerate().map(open).collect();
            for node in &mut self.nodes {
                spec.graph = Graph::Sparse { neighbours, seed: node.accept_seeds(&seeds).unwrap() };
            }
        }
        spec
    }
}
