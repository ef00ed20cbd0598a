//! The steps of an experiment: what each event changes.

use std::collections::BTreeMap;

use protocol::{
    BlobRef, DatasetFace, NodeId, OnFailure, Plan, Precision, Purpose, Refusal, RefusalCode, StatisticPlan, TaskId,
    Timestamp, Work,
};
use rand::Rng;

use super::round::{Phase, Round, Seat, SeatState, Tally};
use super::secure::Secure;
use super::selection::{Choice, Dropped, Selecting};
use super::{
    Action, Experiment, Folded, MAX_REPETITIONS, MAX_RETRIES, RETURN_WAIT, SELECTION_WAIT, Stage, scale, secure, selection,
};
use crate::computation::{self, Step};

/// Lets go of a round: what nodes still do is cancelled, what they gave is settled.
pub(super) fn release(round: &Round, sentence: &str, actions: &mut Vec<Action>) {
    for (node, seat) in round.seats.iter().chain(&round.contributed) {
        let (node, task) = (node.clone(), seat.task.clone());
        match seat.state {
            SeatState::Open => {
                actions.push(Action::Cancel { node, task, refusal: Refusal::new(RefusalCode::Cancelled, sentence) });
            }
            SeatState::Contributed { .. } => actions.push(Action::Settle { node, task }),
            // These have been settled when they were said.
            SeatState::Answered
            | SeatState::OutOfRange { .. }
            | SeatState::Refused { .. }
            | SeatState::Late
            | SeatState::Dropped { .. } => {}
        }
    }
}

/// What comes after a closed round.
pub(super) enum Next {
    Exchange(Work),
    Initialise,
    /// A question came to this.
    Answered(serde_json::Value),
    Impossible(String),
    Nothing,
}

impl Experiment {
    // Selection.

    pub(super) fn search(&mut self, connected: BTreeMap<NodeId, String>, actions: &mut Vec<Action>) {
        for (node, name) in connected {
            self.connected(node, name, actions);
        }
    }

    pub(super) fn found(&mut self, node: &NodeId, datasets: Vec<DatasetFace>, actions: &mut Vec<Action>) {
        if let Stage::Selecting(selecting) = &mut self.stage
            && selecting.answer(node, datasets, &self.spec)
        {
            actions.push(Action::Search { node: node.clone(), tags: None });
        }
    }

    pub(super) fn restart(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        for participant in self.participants.values_mut() {
            participant.away_since = Some(now);
        }
        self.stalled = None;
        let patience = self.spec.patience();
        match &mut self.stage {
            Stage::Selecting(selecting) => selecting.begin_again(now.saturating_add(RETURN_WAIT)),
            // The time the daemon was off does not count: nodes get a chance to come back.
            Stage::Collecting(round) => {
                let earliest = now.saturating_add(patience.node_timeout());
                round.deadline = round.deadline.map(|deadline| deadline.max(earliest));
                if round.phase == Phase::Contribute && self.secure.as_ref().is_some_and(Secure::needs_all) {
                    actions.push(Action::ComputeAhead);
                }
            }
            Stage::Initialising => actions.push(Action::Initialise),
            Stage::Folding(_) => actions.push(Action::Fold),
            Stage::Finished { .. } | Stage::Failed { .. } | Stage::Cancelled { .. } => {}
        }
    }

    pub(super) fn resume(&mut self, connected: BTreeMap<NodeId, String>, now: Timestamp, actions: &mut Vec<Action>) {
        if matches!(self.stage, Stage::Failed { .. } | Stage::Cancelled { .. }) {
            self.stage = Stage::Selecting(Selecting::new(now));
            self.repetitions = 0;
            self.search(connected, actions);
        }
    }

    // Nodes that come and go.

    pub(super) fn connected(&mut self, node: NodeId, name: String, actions: &mut Vec<Action>) {
        if let Some(participant) = self.participants.get_mut(&node) {
            participant.away_since = None;
        }
        if let Stage::Selecting(selecting) = &mut self.stage {
            if self.spec.includes(&node, &name) && !selecting.found.contains_key(&node) {
                selecting.asked.insert(node.clone(), name);
                actions.push(Action::Search { node, tags: selection::tags(&self.spec) });
            } else if !selecting.found.contains_key(&node) {
                selecting.others.insert(node, name);
            }
            return;
        }
        let is_open =
            self.round().and_then(|round| round.seats.get(&node)).is_some_and(|seat| seat.state == SeatState::Open);
        // The task may have got lost with the connection; a node that has it does it once.
        if is_open && let Some(task) = self.task(&node) {
            actions.push(Action::Ask { node, task: Box::new(task) });
        }
    }

    pub(super) fn disconnected(&mut self, node: &NodeId, now: Timestamp) {
        if let Some(participant) = self.participants.get_mut(node) {
            participant.away_since.get_or_insert(now);
        }
        if let Stage::Selecting(selecting) = &mut self.stage {
            selecting.lose(node);
        }
    }

    /// Leaves a node out of the rest of the experiment. What it has contributed to the open round stays.
    pub(super) fn drop_node(&mut self, node: &NodeId, reason: &str, actions: &mut Vec<Action>) {
        if let Stage::Selecting(selecting) = &mut self.stage {
            selecting.asked.remove(node);
            selecting.found.remove(node);
        }
        let Some(participant) = self.participants.get_mut(node) else { return };
        participant.dropped.get_or_insert_with(|| Dropped::because(reason));
        let Stage::Collecting(round) = &mut self.stage else { return };
        let Some(seat) = round.seats.get_mut(node) else { return };
        if seat.state == SeatState::Open {
            let refusal =
                Refusal::new(RefusalCode::Cancelled, format!("this node was left out of the experiment: {reason}"));
            actions.push(Action::Cancel { node: node.clone(), task: seat.task.clone(), refusal });
            seat.state = SeatState::Dropped { reason: reason.to_owned() };
        } else if matches!(seat.state, SeatState::OutOfRange { .. }) {
            seat.state = SeatState::Dropped { reason: reason.to_owned() };
        }
    }

    pub(super) fn refused(
        &mut self,
        node: &NodeId,
        task: &TaskId,
        refusal: &Refusal,
        now: Timestamp,
        rng: &mut impl Rng,
        actions: &mut Vec<Action>,
    ) {
        // A refusal is said again until it is settled, whatever became of the task.
        actions.push(Action::Settle { node: node.clone(), task: task.clone() });
        let Stage::Collecting(round) = &mut self.stage else { return };
        let first_attempt = round.attempt;
        let is_validation = round.work == Work::Validate;
        let Some(seat) = round.seat_mut(node, task).filter(|seat| seat.state == SeatState::Open) else { return };
        seat.state = SeatState::Refused { refusal: refusal.clone() };
        let attempt = seat.attempt;
        let by_hospital = matches!(refusal.code, RefusalCode::StoppedByHospital | RefusalCode::PausedByHospital);
        let patience = self.spec.patience();
        match patience.on_failure {
            // A person at the hospital said no: asking again would not be heard.
            OnFailure::Retry if !by_hospital && attempt - first_attempt < MAX_RETRIES => {
                if let Stage::Collecting(round) = &mut self.stage {
                    let seat = Seat { task: TaskId::random(rng), attempt: attempt + 1, state: SeatState::Open };
                    round.seats.insert(node.clone(), seat);
                }
                self.ask(node, actions);
            }
            // Nothing that a node does in the last validation fails the experiment.
            _ if is_validation => {}
            OnFailure::Fail => {
                let place = self.round().map(|round| round.place(self.spec.plan())).unwrap_or_default();
                self.fail(format!("{}, {place}: {refusal}", self.name(node)), now, actions);
            }
            OnFailure::Drop | OnFailure::Retry => {
                let reason = match refusal.code {
                    RefusalCode::StoppedByHospital => refusal.sentence.clone(),
                    RefusalCode::PausedByHospital => format!("stopped by the hospital: {}", refusal.sentence),
                    _ => refusal.to_string(),
                };
                if let Some(participant) = self.participants.get_mut(node) {
                    participant.dropped = Some(Dropped { by_hospital, reason });
                }
            }
        }
    }

    pub(super) fn spoiled(
        &mut self,
        node: &NodeId,
        task: &TaskId,
        now: Timestamp,
        rng: &mut impl Rng,
        actions: &mut Vec<Action>,
    ) {
        let Stage::Folding(round) = &mut self.stage else { return };
        let Some(seat) = round.seat_mut(node, task) else { return };
        seat.state = SeatState::Open;
        self.reopen();
        let refusal = Refusal::new(RefusalCode::Damaged, "the contribution does not have the layout that was asked for");
        self.refused(node, task, &refusal, now, rng, actions);
    }

    fn name<'own>(&'own self, node: &'own NodeId) -> &'own str {
        self.participants.get(node).map_or(node.as_str(), |participant| participant.name.as_str())
    }

    // Rounds.

    /// Looks whether the present stage is over, and goes on if so.
    pub(super) fn advance(&mut self, now: Timestamp, rng: &mut impl Rng, actions: &mut Vec<Action>) {
        match &self.stage {
            Stage::Selecting(selecting) => {
                let is_time_up = now >= selecting.since.saturating_add(SELECTION_WAIT);
                match selecting.choose(&self.spec, is_time_up) {
                    Choice::Wait => {}
                    Choice::Refused(reason) => self.fail(reason, now, actions),
                    Choice::Chosen { spec, participants } => {
                        self.spec = *spec;
                        self.participants = participants;
                        match self.choose_scheme() {
                            Ok(()) => self.go_on(now, rng, actions),
                            Err(reason) => self.fail(reason, now, actions),
                        }
                    }
                }
            }
            Stage::Collecting(round) => {
                let (tally, is_late) = (round.tally(), round.deadline.is_some_and(|deadline| now >= deadline));
                self.judge(tally, is_late, now, rng, actions);
            }
            _ => {}
        }
    }

    fn judge(&mut self, tally: Tally, is_late: bool, now: Timestamp, rng: &mut impl Rng, actions: &mut Vec<Action>) {
        let Stage::Collecting(round) = &self.stage else { return };
        if let Phase::Secure(step) = round.phase {
            return self.judge_exchange(step, tally, is_late, now, rng, actions);
        }
        if self.secure.as_ref().is_some_and(Secure::needs_all) {
            return self.judge_encrypted(tally, is_late, now, rng, actions);
        }
        let needed = if round.work == Work::Validate { 0 } else { self.fewest_contributions() };
        let answered = tally.contributed + tally.out_of_range;
        if is_late && tally.open > 0 && answered < needed {
            let reason = self.too_few(answered, tally, needed, is_late);
            return self.fail(reason, now, actions);
        }
        if tally.possible() < needed {
            // Fewer nodes may do for other masks.
            return if self.secure.is_some() {
                self.renew(now, rng, actions);
            } else {
                self.end_without_sum(needed, now, rng, actions);
            };
        }
        if tally.open > 0 && !is_late {
            return;
        }
        if tally.out_of_range > 0 {
            return self.repeat(now, rng, actions);
        }
        self.dismiss(actions);
        if tally.contributed == 0 || (self.secure.is_some() && tally.contributed < self.fewest_contributions()) {
            self.end_without_sum(needed, now, rng, actions);
        } else if self.secure.is_some() {
            self.attest(now, rng, actions);
        } else {
            self.fold(actions);
        }
    }

    /// Says why a round cannot end: what each node lacks, then what that amounts to.
    pub(super) fn too_few(&self, answered: usize, tally: Tally, needed: usize, is_late: bool) -> String {
        let Stage::Collecting(round) = &self.stage else { return String::new() };
        let mut parts = Vec::new();
        for (node, participant) in &self.participants {
            let why = match (round.seats.get(node).map(|seat| &seat.state), &participant.dropped) {
                (Some(SeatState::Refused { refusal }), _) => refusal.to_string(),
                (Some(SeatState::Dropped { reason }), _) | (None, Some(Dropped { reason, .. })) => reason.clone(),
                (Some(SeatState::Open), _) if is_late => "no contribution yet".to_owned(),
                _ => continue,
            };
            parts.push(format!("{}: {why}", participant.name));
        }
        let place = round.place(self.spec.plan());
        parts.push(match (is_late, tally.possible()) {
            (true, _) => match answered {
                0 => format!("when `round_timeout` had passed {place}, no node had contributed"),
                1 => format!("when `round_timeout` had passed {place}, only 1 node had contributed"),
                _ => format!("when `round_timeout` had passed {place}, only {answered} nodes had contributed"),
            },
            (false, 0) => format!("{place} no node can contribute any more"),
            (false, 1) => format!("{place} only 1 node can still contribute"),
            (false, possible) => format!("{place} only {possible} nodes can still contribute"),
        });
        match self.spec.patience().min_nodes as usize {
            min_nodes if needed > min_nodes => parts.push(format!("secure aggregation needs {needed} nodes")),
            min_nodes if min_nodes > 1 => parts.push(format!("`min_nodes` is {min_nodes}")),
            _ => {}
        }
        parts.join("; ")
    }

    /// Asks all nodes of the round again, on wider scales.
    pub(super) fn repeat(&mut self, now: Timestamp, rng: &mut impl Rng, actions: &mut Vec<Action>) {
        let Stage::Collecting(round) = &self.stage else { return };
        let mut layout = round.layout.clone();
        let asked = round.seats.values().filter_map(|seat| match &seat.state {
            SeatState::OutOfRange { exponents } => Some(exponents),
            _ => None,
        });
        let is_wider = scale::widen(&mut layout, asked);
        let bits = scale::widening(&round.layout, &layout);
        self.repetitions += 1;
        if !is_wider || self.repetitions > MAX_REPETITIONS {
            return self.refuse_out_of_range(now, rng, actions);
        }
        let round = round.clone();
        if let Some(secure) = &mut self.secure {
            if secure.is_revealing() {
                return self.fail(secure::REVEALED.to_owned(), now, actions);
            }
            secure.widen(bits);
        }
        release(&round, "the round is repeated on a wider scale", actions);
        self.next_attempt = round.last_attempt() + 1;
        self.open(round.work, layout, now, rng, actions);
    }

    /// Whoever still finds no scale wide enough has failed; the others go on.
    fn refuse_out_of_range(&mut self, now: Timestamp, rng: &mut impl Rng, actions: &mut Vec<Action>) {
        let refusal = Refusal::new(RefusalCode::TrainingDiverged, "the node's values fit no scale: its training diverges");
        let mut refused = Vec::new();
        if let Stage::Collecting(round) = &mut self.stage {
            for (node, seat) in &mut round.seats {
                if matches!(seat.state, SeatState::OutOfRange { .. }) {
                    seat.state = SeatState::Open;
                    refused.push((node.clone(), seat.task.clone()));
                }
            }
        }
        for (node, task) in refused {
            self.refused(&node, &task, &refusal, now, rng, actions);
        }
        self.advance(now, rng, actions);
    }

    pub(super) fn tick(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if let Some((_, until)) = &self.stalled
            && now >= *until
        {
            self.stalled = None;
            match self.stage {
                Stage::Initialising => actions.push(Action::Initialise),
                Stage::Folding(_) => actions.push(Action::Fold),
                _ => {}
            }
        }
        if !matches!(self.stage, Stage::Collecting(_)) {
            return;
        }
        let node_timeout = self.spec.patience().node_timeout();
        let is_gone = |since: Timestamp| now >= since.saturating_add(node_timeout);
        let gone = self.participants.iter().filter(|(_, it)| it.dropped.is_none() && it.away_since.is_some_and(is_gone));
        let gone: Vec<NodeId> = gone.map(|(node, _)| node.clone()).collect();
        for node in gone {
            self.drop_node(&node, "away for longer than `node_timeout`", actions);
        }
    }

    pub(super) fn initialised(&mut self, model: BlobRef, now: Timestamp, rng: &mut impl Rng, actions: &mut Vec<Action>) {
        if self.stage == Stage::Initialising {
            self.model = Some(model);
            self.stalled = None;
            self.go_on(now, rng, actions);
        }
    }

    pub(super) fn folded(
        &mut self,
        key: (u32, u32),
        folded: &Folded,
        now: Timestamp,
        rng: &mut impl Rng,
        actions: &mut Vec<Action>,
    ) {
        let Stage::Folding(round) = &self.stage else { return };
        // The sum of an attempt that was given up, as by a cancellation, comes too late.
        if key != (round.number, round.attempt) {
            return;
        }
        let round = round.clone();
        scale::follow(&mut self.scales, &round.layout, &folded.largest);
        let weight = folded.sums.iter().find(|vector| vector.purpose == Purpose::Weight);
        if let (Some(secure), Some(weight)) = (&mut self.secure, weight.and_then(|weight| weight.values.first())) {
            secure.learn(&folded.largest, *weight);
        }
        self.model = folded.model.or(self.model);
        self.stalled = None;
        self.close(&round, &folded.sums, now, rng, actions);
    }

    pub(super) fn close(
        &mut self,
        round: &Round,
        sums: &[protocol::Vector],
        now: Timestamp,
        rng: &mut impl Rng,
        actions: &mut Vec<Action>,
    ) {
        match &round.work {
            // Only rows were counted.
            Work::Sums if !self.lacks_moments() => {}
            Work::Sums | Work::SquaredDifferences { .. } => match computation::step(self.spec.plan(), &round.work, sums) {
                Ok(Step::Ask(work)) => self.next_pass = Some(work),
                Ok(Step::Done(moments)) => self.moments = Some(moments),
                Err(error) => return self.fail(error.to_string(), now, actions),
            },
            Work::Pass { pass } => self.take_pass(round, pass, sums),
            Work::Train { training_round } => self.training_rounds = *training_round,
            Work::Validate => self.is_validated = true,
            // An exchange within a round; the round closes with its own work.
            Work::Secure { .. } => {}
        }
        if round.work == Work::Sums
            && let (Some(secure), Some(rows)) = (&mut self.secure, computation::counted(sums))
        {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a count; `as` from a float saturates"
            )]
            secure.set_rows(rows as u64);
        }
        let record = self.record(round, sums, now);
        if let Some(secure) = &mut self.secure {
            secure.close();
        }
        if !record.metrics.is_empty() {
            self.metrics.clone_from(&record.metrics);
        }
        actions.push(Action::Record(Box::new(record)));
        release(round, "", actions);
        self.closed_rounds += 1;
        self.next_attempt = 0;
        self.repetitions = 0;
        self.go_on(now, rng, actions);
    }

    fn next(&self) -> Next {
        let pass = || Next::Exchange(self.next_pass.clone().unwrap_or_else(computation::first_pass));
        match self.spec.plan() {
            Plan::Statistic(StatisticPlan::Question { question }) => self.next_question(question),
            Plan::Statistic(StatisticPlan::Moments { .. }) if self.moments.is_none() => pass(),
            Plan::Statistic(StatisticPlan::Moments { .. }) => Next::Nothing,
            Plan::Training(_) => {
                if self.lacks_moments() {
                    pass()
                } else if self.lacks_rows() {
                    Next::Exchange(Work::Sums)
                } else if self.model.is_none() {
                    Next::Initialise
                } else if self.training_rounds < self.spec.rounds() {
                    Next::Exchange(Work::Train { training_round: self.training_rounds + 1 })
                } else if self.validates_last() && !self.is_validated {
                    Next::Exchange(Work::Validate)
                } else {
                    Next::Nothing
                }
            }
        }
    }

    fn lacks_moments(&self) -> bool {
        let wants = !matches!(self.spec.plan(), Plan::Training(plan) if !plan.standardise());
        wants && self.moments.is_none()
    }

    /// Whether rows have to be counted, in a hidden pass of their own, before float32 differences can be summed within 32 bits.
    fn lacks_rows(&self) -> bool {
        self.counts_rows()
            && self.training_rounds < self.spec.rounds()
            && self.secure.as_ref().is_some_and(Secure::lacks_row_bound)
    }

    /// Whether hidden sums of this plan need a bound of the number of rows.
    pub(super) fn counts_rows(&self) -> bool {
        let is_float32 = matches!(self.spec.plan(), Plan::Training(plan) if plan.precision() == Precision::Float32);
        self.secure.is_some() && is_float32
    }

    /// Whether the last model is validated once more after training.
    pub(super) fn validates_last(&self) -> bool {
        matches!(self.spec.plan(), Plan::Training(plan) if plan.validation().on_global && plan.holds_out_rows())
    }

    fn go_on(&mut self, now: Timestamp, rng: &mut impl Rng, actions: &mut Vec<Action>) {
        match self.next() {
            Next::Impossible(reason) => self.fail(reason, now, actions),
            Next::Exchange(work) => match computation::layout(self.spec.plan(), &work, self.rows()) {
                Ok(mut layout) => {
                    scale::apply(&mut layout, &self.scales);
                    if let (Some(secure), Work::Train { .. }) = (&mut self.secure, &work) {
                        secure.fit(&mut layout);
                    }
                    self.open(work, layout, now, rng, actions);
                }
                Err(error) => self.fail(error.to_string(), now, actions),
            },
            Next::Initialise => {
                self.stage = Stage::Initialising;
                actions.push(Action::Initialise);
            }
            Next::Answered(answer) => {
                self.keep_answer(answer);
                self.go_on(now, rng, actions);
            }
            Next::Nothing => {
                // The last round is closed already: there is nothing to let go of.
                self.stage = Stage::Finished { at: now };
                self.end_keys(actions);
                actions.push(Action::End);
            }
        }
    }

    /// How many rows the nodes have together: as counted by standardisation, or about as many as they show.
    fn rows(&self) -> Option<u64> {
        let counted = self.moments.as_ref().and_then(|moments| moments.iter().map(|column| column.count).max());
        let shown = self.participants.values().map(|participant| participant.rows.shown());
        counted.or_else(|| shown.sum())
    }
}
