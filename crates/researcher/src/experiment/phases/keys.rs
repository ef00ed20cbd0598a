//! A round under Joye-Libert: keys for exactly the nodes that take part, then contributions of all of them.
//!
//! Keys are kept while the list of nodes stays the same. Who is missing while keys are made is left out, and others are made.
//! Who is missing from the contributions ends the round without a sum: a node that has encrypted for one list of nodes encrypts for no
//! other in the same round, since two sums would show the difference. The round begins again under a number of its own, with those who
//! are left.

use std::collections::BTreeMap;

use protocol::{NodeId, SecureStep, Timestamp};
use rand::Rng;

use crate::experiment::round::{Phase, Seat, SeatState, Tally};
use crate::experiment::secure::Secure;
use crate::experiment::steps::release;
use crate::experiment::{Action, Experiment, MAX_REPETITIONS, Stage};

impl Experiment {
    /// Asks those who are here for keys, or for contributions if they have them.
    pub(super) fn make_keys(&mut self, now: Timestamp, rng: &mut impl Rng, actions: &mut Vec<Action>) {
        let (mut nodes, fewest) = (self.present(), self.fewest());
        let Some(secure) = &mut self.secure else { return };
        nodes.retain(|node| secure.has_agreed(node));
        if nodes.len() < fewest {
            return self.end_without_sum(fewest, now, rng, actions);
        }
        if secure.has_keys(&nodes) {
            return self.open_phase(Phase::Contribute, &nodes, now, rng, actions);
        }
        match secure.begin_keys(&nodes) {
            Ok(()) => self.open_phase(Phase::Secure(SecureStep::ShareKeys), &nodes, now, rng, actions),
            Err(reason) => self.fail(reason, now, actions),
        }
    }

    /// Looks whether a step of the negotiation of keys is over.
    pub(super) fn judge_keys(
        &mut self,
        step: SecureStep,
        tally: Tally,
        is_late: bool,
        now: Timestamp,
        rng: &mut impl Rng,
        actions: &mut Vec<Action>,
    ) {
        let parties = self.secure.as_ref().map_or(0, Secure::least_survivors);
        let is_missing = tally.open + tally.answered < parties;
        if tally.open > 0 && !is_late && !is_missing {
            return;
        }
        if tally.answered < parties {
            if is_late {
                self.dismiss(actions);
            } else if let Stage::Collecting(round) = &self.stage {
                release(round, "keys are made among other nodes", actions);
            }
            return self.make_keys(now, rng, actions);
        }
        let Some(secure) = &mut self.secure else { return };
        let nodes: Vec<NodeId> = {
            let Stage::Collecting(round) = &self.stage else { return };
            let answered = round.seats.iter().filter(|(_, seat)| seat.state == SeatState::Answered);
            answered.map(|(node, _)| node.clone()).collect()
        };
        if step == SecureStep::ShareKeys {
            return self.open_phase(Phase::Secure(SecureStep::SumKeys), &nodes, now, rng, actions);
        }
        match secure.finish_keys() {
            Ok(()) => self.open_phase(Phase::Contribute, &nodes, now, rng, actions),
            Err(reason) => self.fail(reason, now, actions),
        }
    }

    /// Looks whether the contributions are in: all of them, for nothing less has a sum.
    pub(in crate::experiment) fn judge_encrypted(
        &mut self,
        tally: Tally,
        is_late: bool,
        now: Timestamp,
        rng: &mut impl Rng,
        actions: &mut Vec<Action>,
    ) {
        if tally.possible() < self.fewest_contributions() || (is_late && tally.open > 0) {
            if is_late {
                self.dismiss(actions);
            }
            self.begin_again(now, rng, actions);
        } else if tally.open > 0 {
        } else if tally.out_of_range > 0 {
            self.repeat(now, rng, actions);
        } else {
            self.fold(actions);
        }
    }

    /// The open round has no sum: its work is asked for again, as another round, of those who are left.
    pub(super) fn begin_again(&mut self, now: Timestamp, rng: &mut impl Rng, actions: &mut Vec<Action>) {
        let Stage::Collecting(round) = &self.stage else { return };
        let round = round.clone();
        let fewest = self.fewest();
        let is_late = |seat: &Seat| seat.state == SeatState::Late;
        let left = self
            .participants
            .iter()
            .filter(|(node, participant)| participant.dropped.is_none() && !round.seats.get(*node).is_some_and(is_late));
        self.repetitions += 1;
        if left.count() < fewest || self.repetitions > MAX_REPETITIONS {
            return self.end_without_sum(fewest, now, rng, actions);
        }
        release(&round, "a node is missing: the round begins again with those who are left", actions);
        self.give_up_round();
        // Who was late once is not waited for again.
        let late: BTreeMap<NodeId, Seat> = round.seats.into_iter().filter(|(_, seat)| is_late(seat)).collect();
        self.open_with(late, round.work, round.layout, now, rng, actions);
    }

    /// Uses the number of the open round up.
    pub(in crate::experiment) fn give_up_round(&mut self) {
        self.lost_rounds += 1;
        self.next_attempt = 0;
    }
}
