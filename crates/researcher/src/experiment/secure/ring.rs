//! Who masks with whom: everybody with everybody, or, with many nodes, a few neighbours in a ring that nobody chose.
//!
//! It is decided once, when all have agreed on their keys. The seed of a ring is made of seeds that all nodes committed to with their
//! offers; each opens its own for one list of nodes and never for another. So if one does not open it, the graph is complete from then on.

use std::collections::BTreeMap;

use secagg::channel::Offer;
use secagg::graph::{Graph, graph_seed, neighbours};
use secagg::party::{Experiment as Name, Parties, PartyId};
use secagg::problem::Problem;
use secagg::wire::Fixed;
use serde::{Deserialize, Serialize};

/// Whether sums are masked among neighbours in a ring.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ring {
    #[default]
    Undecided,
    /// There is none.
    Complete,
    /// Seeds are being opened.
    Opening(Open),
    Known {
        of: Open,
        seed: Fixed<32>,
    },
}

/// The one list of nodes that a ring is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Open {
    parties: Parties,
    neighbours: u32,
    /// How many of them may be away.
    losses: u32,
    seeds: BTreeMap<PartyId, Fixed<32>>,
}

impl Ring {
    /// Decides, if that has not been done, and says whether seeds are to be opened. `numbers`: how many nodes may collude, and how
    /// many may be lost if somebody said so.
    pub(super) fn begin(&mut self, parties: &Parties, (colluders, losses): (u32, Option<u32>)) -> bool {
        if *self != Self::Undecided {
            return false;
        }
        let found = losses.and_then(|losses| Some((losses, neighbours(parties.count(), colluders, losses)?)));
        *self = match found {
            Some((losses, neighbours)) => {
                Self::Opening(Open { parties: parties.clone(), neighbours, losses, seeds: BTreeMap::new() })
            }
            None => Self::Complete,
        };
        found.is_some()
    }

    /// The nodes that open their seeds.
    pub(super) fn opening(&self) -> Option<&Parties> {
        if let Self::Opening(open) = self { Some(&open.parties) } else { None }
    }

    /// Takes an opened seed, if it is what the node committed to.
    pub(super) fn accept(
        &mut self,
        name: &Name,
        offers: &BTreeMap<PartyId, Offer>,
        (from, seed): (&PartyId, Fixed<32>),
    ) -> Result<(), Problem> {
        let Self::Opening(open) = self else { return Err(Problem::GraphSeed) };
        let offer = offers.get(from).filter(|_| open.parties.contains(from));
        offer.ok_or_else(|| Problem::NotAParty { party: from.clone() })?.check_seed(name, from, &seed)?;
        open.seeds.insert(from.clone(), seed);
        Ok(())
    }

    /// Ends the opening of seeds.
    pub(super) fn finish(&mut self, name: &Name) {
        if let Self::Opening(open) = self {
            let seeds: Vec<Fixed<32>> = open.seeds.values().copied().collect();
            *self = if seeds.len() == open.parties.len() {
                Self::Known { seed: graph_seed(name, &open.parties, &seeds), of: open.clone() }
            } else {
                tracing::warn!("a node has not opened its seed: all nodes mask with all others");
                Self::Complete
            };
        }
    }

    /// The parties and the graph of a session of these nodes: those of the ring, if no more of it are away than may be.
    pub(super) fn session(&self, nodes: Parties) -> (Parties, Graph) {
        match self {
            Self::Known { of, seed }
                if nodes.iter().all(|node| of.parties.contains(node)) && of.parties.count() - nodes.count() <= of.losses =>
            {
                (of.parties.clone(), Graph::Sparse { neighbours: of.neighbours, seed: *seed })
            }
            _ => (nodes, Graph::Complete),
        }
    }

    /// The opened seeds, for a session in the ring.
    pub(super) fn seeds(&self, graph: &Graph) -> BTreeMap<PartyId, Fixed<32>> {
        match (self, graph) {
            (Self::Known { of, .. }, Graph::Sparse { .. }) => of.seeds.clone(),
            _ => BTreeMap::new(),
        }
    }
}
