//! An open round: one seat for each node that was asked.

use std::collections::BTreeMap;

use protocol::{Digest, NodeId, Plan, Refusal, Report, SecureStep, TaskId, Timestamp, VectorSpec, Work};
use serde::{Deserialize, Serialize};

/// What became of a node's task. `Open` leads to any other; `Contributed` back to `Open` only if its file was lost with the
/// machine's power; the others end the seat's part in this attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "seat", deny_unknown_fields)]
pub enum SeatState {
    Open,
    /// The contribution lies whole in the spool.
    Contributed {
        digest: Digest,
        bytes: u64,
        report: Option<Report>,
    },
    OutOfRange {
        exponents: Vec<i16>,
    },
    /// It has answered an exchange of secure aggregation.
    Answered,
    Refused {
        refusal: Refusal,
    },
    /// The round closed without it.
    Late,
    /// The node was left out while its seat was open.
    Dropped {
        reason: String,
    },
}

/// One node's part of a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seat {
    pub task: TaskId,
    /// Above the round's attempt by one for each time the node was asked again.
    pub attempt: u32,
    pub state: SeatState,
}

/// What nodes are asked in a round, one phase after the other. A plain round has one phase; one whose sum is hidden goes
///
/// ```text
/// lom:         [Agree] ▶ [OpenSeeds] ▶ [Prepare] ▶ Contribute ▶ Attest ▶ Reveal
/// joye-libert: [Agree] ▶ [ShareKeys ▶ SumKeys] ▶ Contribute
/// ```
///
/// where Agree is for nodes that have not agreed in this experiment, `OpenSeeds` comes once if a few neighbours are enough, Prepare is for what the last Reveal did not prepare, and
/// the keys are for a list of nodes that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The round's own work.
    #[default]
    Contribute,
    /// An exchange around the hidden sum.
    Secure(SecureStep),
}

impl Phase {
    /// Its number in a task's key.
    pub(super) fn number(self) -> u16 {
        match self {
            Self::Contribute => 0,
            Self::Secure(step) => step.phase(),
        }
    }
}

/// An open round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Round {
    /// Counts every exchange of the experiment from 0.
    pub number: u32,
    /// The attempt with which all nodes began.
    pub attempt: u32,
    pub work: Work,
    pub layout: Vec<VectorSpec>,
    pub started: Timestamp,
    /// When it closes without the nodes that are late.
    pub deadline: Option<Timestamp>,
    #[serde(default)]
    pub phase: Phase,
    /// The seats of the phase.
    pub seats: BTreeMap<NodeId, Seat>,
    /// In the phases after Contribute: the seats of that one, with the contributions.
    #[serde(default)]
    pub contributed: BTreeMap<NodeId, Seat>,
}

/// How many seats are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub open: usize,
    pub contributed: usize,
    pub out_of_range: usize,
    pub answered: usize,
}

impl Tally {
    /// Nodes that can still be part of the aggregate, perhaps after a repetition.
    pub(super) fn possible(self) -> usize {
        self.open + self.contributed + self.out_of_range + self.answered
    }
}

impl Round {
    pub(super) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for seat in self.seats.values() {
            match seat.state {
                SeatState::Open => tally.open += 1,
                SeatState::Contributed { .. } => tally.contributed += 1,
                SeatState::OutOfRange { .. } => tally.out_of_range += 1,
                SeatState::Answered => tally.answered += 1,
                SeatState::Refused { .. } | SeatState::Late | SeatState::Dropped { .. } => {}
            }
        }
        tally
    }

    /// Whether a node has fallen out of this round: it refused, was late or was dropped.
    pub(super) fn is_out(&self, node: &NodeId) -> bool {
        let seat = self.seats.get(node);
        seat.is_some_and(|seat| {
            matches!(seat.state, SeatState::Refused { .. } | SeatState::Late | SeatState::Dropped { .. })
        })
    }

    /// The seat that this task of this node has, if the task is not an older one.
    pub(super) fn seat_mut(&mut self, node: &NodeId, task: &TaskId) -> Option<&mut Seat> {
        self.seats.get_mut(node).filter(|seat| seat.task == *task)
    }

    /// The largest attempt of any seat: what comes next is above it.
    pub(super) fn last_attempt(&self) -> u32 {
        let seats = self.seats.values().chain(self.contributed.values());
        seats.map(|seat| seat.attempt).fold(self.attempt, u32::max)
    }

    /// The seats of the round's own work.
    pub fn contribution_seats(&self) -> &BTreeMap<NodeId, Seat> {
        if self.is_contributed() { &self.contributed } else { &self.seats }
    }

    /// Whether the contributions are in, and their sum is being revealed.
    pub(super) fn is_contributed(&self) -> bool {
        matches!(self.phase, Phase::Secure(SecureStep::Attest | SecureStep::Reveal))
    }

    /// The contributions that are here, by node.
    pub fn contributions(&self) -> impl Iterator<Item = (&NodeId, &TaskId, Digest, u64)> {
        self.contribution_seats().iter().filter_map(|(node, seat)| match &seat.state {
            SeatState::Contributed { digest, bytes, .. } => Some((node, &seat.task, *digest, *bytes)),
            _ => None,
        })
    }

    /// Where the experiment is, in words that follow a name: no number counts anything but training rounds.
    pub(super) fn place(&self, plan: &Plan) -> String {
        match (&self.work, plan) {
            (Work::Train { training_round }, _) => format!("in training round {training_round}"),
            (Work::Validate, _) => "in the last validation".to_owned(),
            (Work::Secure { step, .. }, _) => format!("at the step {} of secure aggregation", step.name()),
            (Work::Sums, Plan::Training(plan)) if !plan.standardise() => "while counting rows".to_owned(),
            (Work::Sums | Work::SquaredDifferences { .. }, Plan::Training(_)) => "while standardising".to_owned(),
            (Work::Sums, Plan::Statistic(_)) => "in the first pass of the statistic".to_owned(),
            (Work::SquaredDifferences { .. }, Plan::Statistic(_)) => "in the second pass of the statistic".to_owned(),
            (Work::Pass { pass }, _) => format!("in the pass {:?} of the statistic", pass.step),
        }
    }

    /// Which training round it is, from 1.
    pub fn training_round(&self) -> Option<u32> {
        match self.work {
            Work::Train { training_round } => Some(training_round),
            _ => None,
        }
    }
}
