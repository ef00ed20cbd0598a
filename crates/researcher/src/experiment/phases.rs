//! The phases of a round: how it is opened, and what happens around a contribution whose sum is hidden.
//!
//! A node that is lost in Agree or Prepare is treated as anywhere, and the round goes on without it. From the contributions on the
//! session stands: who contributed is a survivor, and enough of the survivors must sign and reveal. They are waited for while they
//! are connected, for as long as [`EXCHANGE_WAIT`]; who is away then costs nothing once enough have answered. Until the first node is
//! asked to reveal, a session that cannot end is given up for a new attempt with new masks; from then on it ends, or the experiment
//! fails.

mod keys;
mod scheme;
mod tasks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::{NodeId, Refusal, RefusalCode, Scheme, SecureMessage, SecureStep, TaskId, Timestamp, VectorSpec, Work};
use rand::Rng;
use transport::convert::MAX_MESSAGE_BYTES;
use transport::identity::Fingerprint;

use super::round::{Phase, Round, Seat, SeatState, Tally};
use super::secure::{REVEALED, Secure};
use super::selection::Dropped;
use super::steps::release;
use super::{Action, Experiment, KeptAnswer, MAX_REPETITIONS, Stage};

/// How long nodes that are connected may take to answer an exchange: it asks for a moment of work.
pub(super) const EXCHANGE_WAIT: Duration = Duration::from_mins(2);
/// What a task's message has beside the task, at most, in bytes: a signature and its framing.
const FRAMING_BYTES: usize = 1 << 10;

impl Experiment {
    // From phase to phase.

    pub(super) fn open(
        &mut self,
        work: Work,
        layout: Vec<VectorSpec>,
        now: Timestamp,
        rng: &mut impl Rng,
        actions: &mut Vec<Action>,
    ) {
        self.open_with(BTreeMap::new(), work, layout, now, rng, actions);
    }

    /// Opens a round that these seats have no part in.
    fn open_with(
        &mut self,
        seats: BTreeMap<NodeId, Seat>,
        work: Work,
        layout: Vec<VectorSpec>,
        now: Timestamp,
        rng: &mut impl Rng,
        actions: &mut Vec<Action>,
    ) {
        let in_time = |since: Timestamp| now < since.saturating_add(self.spec.patience().node_timeout());
        for participant in self.participants.values_mut() {
            if participant.dropped.is_none() && !participant.away_since.is_none_or(in_time) {
                participant.dropped = Some(Dropped::because("away for longer than `node_timeout`"));
            }
        }
        self.stage = Stage::Collecting(Round {
            number: self.closed_rounds + self.lost_rounds,
            attempt: self.next_attempt,
            work,
            layout,
            started: now,
            deadline: None,
            phase: Phase::Contribute,
            seats,
            contributed: BTreeMap::new(),
        });
        if self.secure.is_some() {
            self.agree(now, rng, actions);
        } else {
            self.open_phase(Phase::Contribute, &self.present(), now, rng, actions);
        }
    }

    /// The nodes that the open round can be of.
    fn present(&self) -> Vec<NodeId> {
        let is_out = |node: &NodeId| self.round().is_some_and(|round| round.is_out(node));
        let present = self.participants.iter().filter(|(node, it)| it.dropped.is_none() && !is_out(node));
        present.map(|(node, _)| node.clone()).collect()
    }

    fn agree(&mut self, now: Timestamp, rng: &mut impl Rng, actions: &mut Vec<Action>) {
        let present = self.present();
        let Some(secure) = &mut self.secure else { return };
        let strangers: Vec<NodeId> = present.iter().filter(|node| !secure.has_agreed(node)).cloned().collect();
        if strangers.is_empty() {
            self.hide(now, rng, actions);
        } else if secure.is_direct() {
            // Who has agreed already listens to the new ones.
            match secure.begin_direct(&present) {
                Ok(()) => self.open_phase(Phase::Secure(SecureStep::Agree), &present, now, rng, actions),
                Err(reason) => self.fail(reason, now, actions),
            }
        } else {
            self.open_phase(Phase::Secure(SecureStep::Agree), &strangers, now, rng, actions);
        }
    }

    /// All have agreed who can: what hides the sum is next.
    fn hide(&mut self, now: Timestamp, rng: &mut impl Rng, actions: &mut Vec<Action>) {
        match self.secure.as_ref().map(Secure::scheme) {
            Some(Scheme::JoyeLibert) => self.make_keys(now, rng, actions),
            _ => self.open_seeds(now, rng, actions),
        }
    }

    /// Many nodes may mask with a few neighbours each; which they are, nobody chooses.
    fn open_seeds(&mut self, now: Timestamp, rng: &mut impl Rng, actions: &mut Vec<Action>) {
        let (mut nodes, fewest) = (self.present(), self.fewest());
        let Some(secure) = &mut self.secure else { return };
        nodes.retain(|node| secure.has_agreed(node));
        if nodes.len() >= fewest && secure.begin_ring(&nodes) {
            self.open_phase(Phase::Secure(SecureStep::OpenSeeds), &nodes, now, rng, actions);
        } else {
            self.prepare(now, rng, actions);
        }
    }

    fn prepare(&mut self, now: Timestamp, rng: &mut impl Rng, actions: &mut Vec<Action>) {
        let (mut nodes, fewest) = (self.present(), self.fewest());
        let (Some(secure), Stage::Collecting(round)) = (&mut self.secure, &mut self.stage) else { return };
        nodes.retain(|node| secure.has_agreed(node));
        if nodes.len() < fewest {
            return self.end_without_sum(fewest, now, rng, actions);
        }
        match secure.begin(round.number, round.attempt, &nodes) {
            Ok(attempt) => round.attempt = attempt,
            Err(reason) => return self.fail(reason, now, actions),
        }
        nodes.retain(|node| !secure.has_prepared(node));
        if nodes.is_empty() {
            self.contribute(now, rng, actions);
        } else {
            self.open_phase(Phase::Secure(SecureStep::Prepare), &nodes, now, rng, actions);
        }
    }

    fn contribute(&mut self, now: Timestamp, rng: &mut impl Rng, actions: &mut Vec<Action>) {
        let mut nodes = self.present();
        let Some(secure) = &mut self.secure else { return };
        nodes.retain(|node| secure.has_prepared(node));
        if nodes.len() < secure.least_survivors() || secure.close_preparations().is_err() {
            return self.renew(now, rng, actions);
        }
        self.open_phase(Phase::Contribute, &nodes, now, rng, actions);
    }

    /// All contributions are here that are waited for: their senders are the survivors.
    pub(super) fn attest(&mut self, now: Timestamp, rng: &mut impl Rng, actions: &mut Vec<Action>) {
        let (Some(secure), Stage::Collecting(round)) = (&mut self.secure, &self.stage) else { return };
        if secure.fix_survivors(round.contributions().map(|(node, ..)| node)).is_err() {
            // Others have survived before one's file was lost.
            return self.renew(now, rng, actions);
        }
        if secure.is_revealing() {
            return self.reveal(now, rng, actions);
        }
        self.open_phase(Phase::Secure(SecureStep::Attest), &self.survivors(), now, rng, actions);
    }

    fn reveal(&mut self, now: Timestamp, rng: &mut impl Rng, actions: &mut Vec<Action>) {
        if self.is_revealed() {
            return self.fold(actions);
        }
        let next = self.next_parties();
        if let Some(secure) = &mut self.secure {
            secure.begin_revelation(next.as_ref().map(|(round, nodes)| (*round, nodes.as_slice())));
        }
        self.open_phase(Phase::Secure(SecureStep::Reveal), &self.survivors(), now, rng, actions);
    }

    /// Whether enough has been revealed to open the sum.
    fn is_revealed(&self) -> bool {
        self.unmasking(Arc::default()).is_some()
    }

    /// Sums the contributions.
    pub(super) fn fold(&mut self, actions: &mut Vec<Action>) {
        let Stage::Collecting(round) = &mut self.stage else { return };
        close_exchange(round);
        self.stage = Stage::Folding(round.clone());
        actions.push(Action::Fold);
    }

    /// The nodes whose contributions are here and that are still asked.
    fn survivors(&self) -> Vec<NodeId> {
        let is_here = |node: &NodeId| self.participants.get(node).is_some_and(|participant| participant.dropped.is_none());
        let survivors = self.round().into_iter().flat_map(Round::contributions).map(|(node, ..)| node);
        survivors.filter(|node| is_here(node)).cloned().collect()
    }

    /// Whom the next round will be of if nothing changes, and its number: they can prepare it while they reveal.
    fn next_parties(&self) -> Option<(u32, Vec<NodeId>)> {
        let (next, survivors) = (self.closed_rounds + 1, self.survivors());
        let mut asked = self.participants.iter().filter(|(_, participant)| participant.dropped.is_none());
        let are_all_here = asked.all(|(node, it)| it.away_since.is_none() && survivors.contains(node));
        (self.may_follow(next) && are_all_here && survivors.len() >= self.fewest()).then_some((next, survivors))
    }

    fn open_phase(&mut self, phase: Phase, nodes: &[NodeId], now: Timestamp, rng: &mut impl Rng, actions: &mut Vec<Action>) {
        let Stage::Collecting(round) = &mut self.stage else { return };
        if matches!(phase, Phase::Secure(SecureStep::Attest | SecureStep::Reveal)) {
            if !round.is_contributed() {
                round.contributed = std::mem::take(&mut round.seats);
            }
            round.seats.clear();
        } else {
            // Who fell out of the round is shown in its record.
            let out: Vec<NodeId> = round.seats.keys().filter(|node| round.is_out(node)).cloned().collect();
            round.seats.retain(|node, _| out.contains(node));
        }
        // Each phase has its own time: one that was long must not take the others' from them.
        let patience = self.spec.patience().round_timeout();
        let short = patience.map_or(EXCHANGE_WAIT, |patience| patience.min(EXCHANGE_WAIT));
        let patience = if phase == Phase::Contribute { patience } else { Some(short) };
        round.deadline = patience.map(|patience| now.saturating_add(patience));
        round.phase = phase;
        let attempt = round.attempt;
        let seat = |node: &NodeId| (node.clone(), Seat { task: TaskId::random(rng), attempt, state: SeatState::Open });
        round.seats.extend(nodes.iter().map(seat));
        let inbound = self.inbound();
        if let Some(node) = nodes.first() {
            // All tasks of a phase are about as long.
            let task = self.task_with(node, &inbound).and_then(|task| serde_json::to_vec(&task).ok());
            let bytes = task.map_or(usize::MAX, |task| task.len().saturating_add(FRAMING_BYTES));
            if bytes > MAX_MESSAGE_BYTES {
                return self.withdraw(bytes, now, actions);
            }
        }
        for node in nodes {
            if let Some(task) = self.task_with(node, &inbound) {
                actions.push(Action::Ask { node: node.clone(), task: Box::new(task) });
            }
        }
        if phase == Phase::Contribute && self.secure.as_ref().is_some_and(Secure::needs_all) {
            actions.push(Action::ComputeAhead);
        }
        // Nobody may be left to ask; that is judged like everything else.
        if nodes.is_empty() {
            self.advance(now, rng, actions);
        }
    }

    /// Ends an experiment whose tasks no link carries. Nobody has been asked in this phase: there is nothing to cancel.
    fn withdraw(&mut self, bytes: usize, now: Timestamp, actions: &mut Vec<Action>) {
        let Stage::Collecting(round) = &mut self.stage else { return };
        round.seats.clear();
        let reason = if bytes == usize::MAX || round.phase != Phase::Contribute {
            "the messages of secure aggregation are too large to be sent; ask fewer nodes".to_owned()
        } else {
            format!(
                "the plan is too large to be sent: a task would have {bytes} bytes, at most {MAX_MESSAGE_BYTES} are allowed; \
                 it names too many columns, or too long ones"
            )
        };
        self.fail(reason, now, actions);
    }

    // What nodes answer.

    pub(super) fn answered(
        &mut self,
        (node, task): (&NodeId, &TaskId),
        answer: &SecureMessage,
        key: &Fingerprint,
        now: Timestamp,
        rng: &mut impl Rng,
        actions: &mut Vec<Action>,
    ) {
        let settle = Action::Settle { node: node.clone(), task: task.clone() };
        let (Stage::Collecting(round), Some(secure)) = (&mut self.stage, &mut self.secure) else {
            return actions.push(settle);
        };
        let phase = round.phase;
        let Some(seat) = round.seat_mut(node, task).filter(|seat| seat.state == SeatState::Open) else {
            return actions.push(settle);
        };
        let accepted = match phase {
            Phase::Secure(step) => secure.accept(step, node, answer, key),
            Phase::Contribute => Err("this task is answered by a contribution".to_owned()),
        };
        match accepted {
            Ok(()) => {
                seat.state = SeatState::Answered;
                if let Phase::Secure(step) = phase {
                    let (node, answer, key) = (node.clone(), answer.clone(), *key);
                    actions.push(Action::Keep(Box::new(KeptAnswer { step, node, answer, key })));
                }
                actions.push(settle);
            }
            Err(reason) => {
                let refusal = Refusal::new(RefusalCode::SecureAggregationFailed, reason);
                self.refused(node, task, &refusal, now, rng, actions);
            }
        }
    }

    /// Looks whether an exchange around the contributions is over.
    pub(super) fn judge_exchange(
        &mut self,
        step: SecureStep,
        tally: Tally,
        is_late: bool,
        now: Timestamp,
        rng: &mut impl Rng,
        actions: &mut Vec<Action>,
    ) {
        if matches!(step, SecureStep::ShareKeys | SecureStep::SumKeys) {
            return self.judge_keys(step, tally, is_late, now, rng, actions);
        }
        if matches!(step, SecureStep::Agree | SecureStep::OpenSeeds | SecureStep::Prepare) {
            if tally.open > 0 && !is_late {
                return;
            }
            self.dismiss(actions);
            match step {
                SecureStep::Agree => self.hide(now, rng, actions),
                SecureStep::OpenSeeds => {
                    if let Some(secure) = &mut self.secure {
                        secure.finish_ring();
                    }
                    self.prepare(now, rng, actions);
                }
                _ => self.contribute(now, rng, actions),
            }
            return;
        }
        let is_here =
            |node: &NodeId| self.participants.get(node).is_some_and(|participant| participant.away_since.is_none());
        let seats = self.round().into_iter().flat_map(|round| &round.seats);
        let is_awaited = seats.into_iter().any(|(node, seat)| seat.state == SeatState::Open && is_here(node));
        if is_awaited && !is_late {
            return;
        }
        let is_any_away = {
            let seats = self.round().into_iter().flat_map(|round| &round.seats);
            seats.into_iter().any(|(node, seat)| seat.state == SeatState::Open && !is_here(node))
        };
        let is_attested = self.secure.as_ref().is_some_and(Secure::is_attested);
        match step {
            SecureStep::Attest if is_attested => {
                self.dismiss(actions);
                self.reveal(now, rng, actions);
            }
            SecureStep::Reveal if self.is_revealed() => {
                self.dismiss(actions);
                self.fold(actions);
            }
            // Who is away may still come; who does not is dropped after `node_timeout`. Who is here and says nothing is given up.
            _ if is_any_away => {
                if let Stage::Collecting(round) = &mut self.stage
                    && is_late
                {
                    round.deadline = Some(now.saturating_add(EXCHANGE_WAIT));
                }
            }
            _ => self.renew(now, rng, actions),
        }
    }

    /// Closes the seats of a phase that goes on without those who have not answered.
    pub(super) fn dismiss(&mut self, actions: &mut Vec<Action>) {
        let Stage::Collecting(round) = &mut self.stage else { return };
        for (node, seat) in round.seats.iter_mut().filter(|(_, seat)| seat.state == SeatState::Open) {
            seat.state = SeatState::Late;
            let refusal = Refusal::new(RefusalCode::Late, "the round was closed; this node takes part in the next one");
            actions.push(Action::Cancel { node: node.clone(), task: seat.task.clone(), refusal });
        }
    }

    // What goes wrong.

    /// The session cannot end: the round begins again with new masks and whoever is left.
    pub(super) fn renew(&mut self, now: Timestamp, rng: &mut impl Rng, actions: &mut Vec<Action>) {
        let fewest = self.fewest();
        let left = self.participants.values().filter(|participant| participant.dropped.is_none()).count();
        let is_revealing = self.secure.as_ref().is_some_and(Secure::is_revealing);
        let Stage::Collecting(round) = &self.stage else { return };
        if self.secure.as_ref().is_some_and(Secure::needs_all) {
            return self.begin_again(now, rng, actions);
        }
        if round.work == Work::Validate {
            return self.end_without_sum(fewest, now, rng, actions);
        }
        let place = round.place(self.spec.plan());
        if is_revealing {
            return self.fail(format!("{place} too few nodes are left that can reveal the sum: {REVEALED}"), now, actions);
        }
        self.repetitions += 1;
        if left < fewest || self.repetitions > MAX_REPETITIONS {
            return self.end_without_sum(self.fewest_contributions(), now, rng, actions);
        }
        let round = round.clone();
        release(&round, "the round is repeated with new masks", actions);
        self.next_attempt = round.last_attempt() + 1;
        self.open(round.work, round.layout, now, rng, actions);
    }

    /// Too few nodes are left for a sum. Only a validation can end so: the model is there, and nothing was measured.
    pub(super) fn end_without_sum(&mut self, needed: usize, now: Timestamp, rng: &mut impl Rng, actions: &mut Vec<Action>) {
        let Stage::Collecting(round) = &self.stage else { return };
        if round.work == Work::Validate {
            let round = round.clone();
            return self.close(&round, &[], now, rng, actions);
        }
        let tally = round.tally();
        let reason = self.too_few(tally.contributed + tally.out_of_range, tally, needed, false);
        self.fail(reason, now, actions);
    }

    /// A contribution's file is gone: the round is back where its node has still to send it.
    pub(super) fn lost(&mut self, task: &TaskId, actions: &mut Vec<Action>) {
        let (Stage::Collecting(round) | Stage::Folding(round)) = &mut self.stage else { return };
        let is_lost = |seat: &Seat| seat.task == *task && matches!(seat.state, SeatState::Contributed { .. });
        if !round.contribution_seats().values().any(is_lost) {
            return;
        }
        if round.is_contributed() {
            for (node, seat) in round.seats.iter().filter(|(_, seat)| seat.state == SeatState::Open) {
                let refusal = Refusal::new(RefusalCode::Cancelled, "this is asked again");
                actions.push(Action::Cancel { node: node.clone(), task: seat.task.clone(), refusal });
            }
        }
        close_exchange(round);
        let mut owner = None;
        for (node, seat) in round.seats.iter_mut().filter(|(_, seat)| is_lost(seat)) {
            seat.state = SeatState::Open;
            owner = Some(node.clone());
        }
        self.reopen();
        // It has its contribution until that is settled; who is away is asked when it is back.
        if let Some(node) = owner {
            self.ask(&node, actions);
        }
    }
}

/// Back from the exchanges after the contributions to the contributions themselves.
fn close_exchange(round: &mut Round) {
    if round.is_contributed() {
        round.seats = std::mem::take(&mut round.contributed);
        round.phase = Phase::Contribute;
    }
}
