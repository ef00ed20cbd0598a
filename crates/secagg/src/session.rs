//! One masked sum of one list of parties: what it is for, its numbers, and its id that binds them all (specification §1).

use serde::{Deserialize, Serialize};

use crate::graph::{Graph, Layout};
use crate::party::{Experiment, Parties, PartyId};
use crate::problem::Problem;
use crate::threshold::{default_colluders, least_survivors, threshold};
use crate::wire::{Fixed, Joined};

/// Says what a masked sum is for. A deliberate retry is a new attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    pub experiment: Experiment,
    pub round: u32,
    pub attempt: u32,
    pub phase: u16,
}

impl Context {
    /// Joins the fields as the specification's `context`.
    pub(crate) fn joined(&self) -> Joined {
        Joined::default().prefixed(self.experiment.as_bytes()).u32(self.round).u32(self.attempt).u16(self.phase)
    }
}

/// Is what a node's owner demands of every session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Counts the survivors without whom nothing is revealed; 2 is the least that is obeyed.
    pub min_parties: u32,
    /// Counts the nodes that this owner fears may collude with the researcher; none: [`default_colluders`] of the session.
    pub max_colluders: Option<u32>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { min_parties: 3, max_colluders: None }
    }
}

/// Is the id of a session: the hash of everything its parties must agree on.
pub type SessionId = Fixed<32>;

/// Is the digest of everything that must be the same at all nodes for the sum to mean anything (specification §1): each node
/// computes it from what it was asked and does, and never takes it from a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Terms(pub Fixed<32>);

/// Describes a session. All parties must be given the same, or their messages do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionSpec {
    pub context: Context,
    pub parties: Parties,
    /// Is t: how many survivors must sign, and in the complete graph how many shares give a secret.
    pub threshold: u32,
    /// Is c: how many parties may collude with the researcher.
    pub colluders: u32,
    /// Counts the survivors without whom nothing is revealed.
    pub min_parties: u32,
    pub graph: Graph,
}

impl SessionSpec {
    /// Fills in what follows from the rest (specification §7): the threshold of c among all parties, and the complete graph.
    pub fn new(context: Context, parties: Parties, colluders: u32, min_parties: u32) -> Self {
        let threshold = threshold(parties.count(), colluders);
        Self { context, parties, threshold, colluders, min_parties, graph: Graph::Complete }
    }

    /// Gives the session's id (specification §1).
    pub fn id(&self) -> SessionId {
        let (neighbours, seed) = self.graph.numbers(self.parties.count());
        let joined = Joined::label("session")
            .raw(self.context.joined().as_ref())
            .u32(self.threshold)
            .u32(self.colluders)
            .u32(self.min_parties)
            .u32(neighbours)
            .raw(&seed.0)
            .list(self.parties.iter().map(PartyId::as_bytes));
        Fixed(joined.sha256())
    }

    /// Counts the survivors that the session needs.
    pub fn least_survivors(&self) -> u32 {
        least_survivors(self.threshold, self.min_parties)
    }

    /// Checks the numbers by themselves (Bonawitz et al. 2017, §6.2; specification §7): 2t > n + c, t ≤ n, and a list long enough to end with `min_parties`.
    pub fn check(&self) -> Result<(), Problem> {
        if self.min_parties < 2 {
            return Err(Problem::MinParties { got: self.min_parties, least: 2 });
        }
        self.demand(self.colluders, 2)?;
        self.graph.check(self.parties.count())
    }

    /// Checks the numbers against what a node's owner demands (specification §7).
    pub fn check_rules(&self, rules: &Rules) -> Result<(), Problem> {
        self.check()?;
        let colluders = rules.max_colluders.unwrap_or_else(|| default_colluders(self.parties.count()));
        // The thresholds among neighbours follow from the stated c, which then must be large enough itself.
        if matches!(self.graph, Graph::Sparse { .. }) && self.colluders < colluders {
            let (parties, least) = (self.parties.count(), threshold(self.parties.count(), colluders));
            return Err(Problem::Threshold { got: self.threshold, least, parties, colluders });
        }
        self.demand(self.colluders.max(colluders), rules.min_parties.max(2))
    }

    /// Gives the graph by index of party.
    pub(crate) fn layout(&self) -> Layout {
        Layout::new(&self.graph, self.parties.count(), self.colluders, self.threshold)
    }

    fn demand(&self, colluders: u32, min_parties: u32) -> Result<(), Problem> {
        let parties = self.parties.count();
        if self.colluders > parties - 2 {
            return Err(Problem::Colluders { got: self.colluders, most: parties - 2 });
        }
        let needed = self.min_parties.max(min_parties);
        if parties < needed {
            return Err(Problem::TooFewParties { got: parties, least: needed });
        }
        if self.least_survivors() < min_parties {
            return Err(Problem::MinParties { got: self.least_survivors(), least: min_parties });
        }
        let least = threshold(parties, colluders);
        if self.threshold < least || self.threshold > parties {
            return Err(Problem::Threshold { got: self.threshold, least, parties, colluders });
        }
        Ok(())
    }
}

/// Gives what survivors sign (specification §6).
pub(crate) fn survivors_signed(session: &SessionId, survivors: &[PartyId]) -> Joined {
    Joined::label("survivors").raw(&session.0).list(survivors.iter().map(PartyId::as_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(n: usize, colluders: u32, min_parties: u32) -> SessionSpec {
        let context = Context { experiment: Experiment::new("e").unwrap(), round: 1, attempt: 0, phase: 0 };
        let parties = Parties::new((0..n).map(|i| PartyId::new(format!("n{i:03}")).unwrap())).unwrap();
        SessionSpec::new(context, parties, colluders, min_parties)
    }

    #[test]
    fn smaller_numbers_than_the_owner_demands_are_refused() {
        let rules = Rules { min_parties: 3, max_colluders: Some(1) };
        assert_eq!(spec(4, 1, 3).check_rules(&rules), Ok(()));
        assert_eq!(
            spec(4, 0, 3).check_rules(&Rules { min_parties: 3, max_colluders: Some(2) }),
            Err(Problem::Threshold { got: 3, least: 4, parties: 4, colluders: 2 })
        );
        let mut low = spec(5, 1, 3);
        low.threshold = 3;
        assert_eq!(low.check_rules(&rules), Err(Problem::Threshold { got: 3, least: 4, parties: 5, colluders: 1 }));
        let mut high = spec(5, 1, 3);
        high.threshold = 6;
        assert!(high.check().is_err());
        assert_eq!(spec(2, 0, 2).check_rules(&rules), Err(Problem::TooFewParties { got: 2, least: 3 }));
        let two = Rules { min_parties: 2, max_colluders: None };
        assert_eq!(spec(2, 0, 2).check_rules(&two), Ok(()));
        assert_eq!(
            spec(3, 0, 2).check_rules(&Rules { min_parties: 3, max_colluders: None }),
            Err(Problem::MinParties { got: 2, least: 3 })
        );
        assert!(Problem::TooFewParties { got: 2, least: 3 }.to_string().contains("min_parties = 2"));
    }

    #[test]
    fn every_number_is_bound_by_the_id() {
        let base = spec(5, 1, 3);
        let mut others = vec![spec(6, 1, 3), spec(5, 0, 3), spec(5, 1, 4)];
        for change in [
            |s: &mut SessionSpec| s.context.round += 1,
            |s: &mut SessionSpec| s.context.attempt += 1,
            |s: &mut SessionSpec| s.context.phase += 1,
            |s: &mut SessionSpec| s.threshold += 1,
            |s: &mut SessionSpec| s.context.experiment = Experiment::new("f").unwrap(),
        ] {
            let mut other = base.clone();
            change(&mut other);
            others.push(other);
        }
        for (index, other) in others.iter().enumerate() {
            assert_ne!(other.id(), base.id(), "{index}");
        }
    }
}
