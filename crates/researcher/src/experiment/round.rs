//! An open round: one seat for each node that was asked.

use std::collections::BTreeMap;

use protocol::{Digest, NodeId, Plan, Refusal, Report, TaskId, Timestamp, VectorSpec, Work};
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
    pub seats: BTreeMap<NodeId, Seat>,
}

/// How many seats are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub open: usize,
    pub contributed: usize,
    pub out_of_range: usize,
}

impl Tally {
    /// Nodes that can still be part of the aggregate, perhaps after a repetition.
    pub(super) fn possible(self) -> usize {
        self.open + self.contributed + self.out_of_range
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
                SeatState::Refused { .. } | SeatState::Late | SeatState::Dropped { .. } => {}
            }
        }
        tally
    }

    /// The seat that this task of this node has, if the task is not an older one.
    pub(super) fn seat_mut(&mut self, node: &NodeId, task: &TaskId) -> Option<&mut Seat> {
        self.seats.get_mut(node).filter(|seat| seat.task == *task)
    }

    /// The largest attempt of any seat: what comes next is above it.
    pub(super) fn last_attempt(&self) -> u32 {
        self.seats.values().map(|seat| seat.attempt).max().unwrap_or(self.attempt)
    }

    /// The contributions that are here, by node.
    pub fn contributions(&self) -> impl Iterator<Item = (&NodeId, &TaskId, Digest, u64)> {
        self.seats.iter().filter_map(|(node, seat)| match &seat.state {
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
            (Work::Sums | Work::SquaredDifferences { .. }, Plan::Training(_)) => "while standardising".to_owned(),
            (Work::Sums, Plan::Statistic(_)) => "in the first pass of the statistic".to_owned(),
            (Work::SquaredDifferences { .. }, Plan::Statistic(_)) => "in the second pass of the statistic".to_owned(),
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
