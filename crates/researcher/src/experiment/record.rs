//! How an experiment is shown: the record of a closed round, and where it is now.

use protocol::{NodeId, Plan, Progress, Purpose, RefusalCode, Report, StatisticPlan, TaskId, Timestamp, Vector, Work};

use super::round::{Phase, Round, Seat, SeatState};
use super::{Dropped, Experiment, Stage};
use crate::command::{
    ExperimentRow, ExperimentState, HIDDEN, Hidden, NodeProgress, NodeRecord, NodeSnapshot, RoundKind, RoundRecord, Snapshot,
};
use crate::computation;

/// What is known about a task at a node and forgotten when the daemon stops.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Live {
    /// The node has the task in its journal.
    pub is_accepted: bool,
    pub progress: Option<Progress>,
}

impl Live {
    /// Where a node is that has its task.
    pub(crate) fn state(&self) -> NodeProgress {
        match self.progress {
            Some(Progress { total: 0, .. }) => NodeProgress::Reading,
            _ => NodeProgress::Working,
        }
    }
}

fn kind(work: &Work) -> RoundKind {
    match work {
        // A round closes with its own work; exchanges of secure aggregation are parts of it.
        Work::Sums | Work::Secure { .. } => RoundKind::Sums,
        Work::SquaredDifferences { .. } => RoundKind::SquaredDifferences,
        Work::Pass { .. } => RoundKind::Pass,
        Work::Train { .. } => RoundKind::Training,
        Work::Validate => RoundKind::Validation,
    }
}

fn seat_progress(state: &SeatState) -> NodeProgress {
    match state {
        SeatState::Open | SeatState::Answered => NodeProgress::Waiting,
        SeatState::Contributed { .. } => NodeProgress::Contributed,
        SeatState::OutOfRange { .. } => NodeProgress::OutOfRange,
        SeatState::Refused { refusal } => match refusal.code {
            RefusalCode::StoppedByHospital | RefusalCode::PausedByHospital => NodeProgress::StoppedByHospital,
            _ => NodeProgress::Refused,
        },
        SeatState::Late => NodeProgress::Late,
        SeatState::Dropped { .. } => NodeProgress::Dropped,
    }
}

fn seat_reason(state: &SeatState) -> Option<String> {
    match state {
        SeatState::Refused { refusal } => Some(refusal.sentence.clone()),
        SeatState::Dropped { reason } => Some(reason.clone()),
        _ => None,
    }
}

/// The only value of the vector with this purpose, summed over nodes.
fn total(sums: &[Vector], purpose: Purpose) -> Option<f64> {
    sums.iter().find(|vector| vector.purpose == purpose).and_then(|vector| vector.values.first().copied())
}

impl Experiment {
    pub fn state(&self) -> ExperimentState {
        match self.stage {
            Stage::Selecting(_) => ExperimentState::Selecting,
            Stage::Initialising | Stage::Collecting(_) | Stage::Folding(_) => ExperimentState::Running,
            Stage::Finished { .. } => ExperimentState::Finished,
            Stage::Failed { .. } => ExperimentState::Failed,
            Stage::Cancelled { .. } => ExperimentState::Cancelled,
        }
    }

    /// When it ended, and why unless it went to its end.
    pub fn end(&self) -> Option<(Timestamp, Option<String>)> {
        match &self.stage {
            Stage::Finished { at } => Some((*at, None)),
            Stage::Failed { at, reason } => Some((*at, Some(reason.clone()))),
            Stage::Cancelled { at, by } => Some((*at, Some(format!("cancelled by {by}")))),
            _ => None,
        }
    }

    /// Training rounds that are closed.
    pub fn training_rounds(&self) -> u32 {
        self.training_rounds
    }

    /// The last metrics over all nodes.
    pub fn metrics(&self) -> &[crate::command::Pooled] {
        &self.metrics
    }

    /// Exchanges in all.
    pub(super) fn rounds(&self) -> u32 {
        match self.spec.plan() {
            Plan::Statistic(StatisticPlan::Moments { .. }) => 2,
            // How many passes there will be is known at the end.
            Plan::Statistic(StatisticPlan::Question { .. }) => self.closed_rounds + u32::from(!self.is_over()),
            Plan::Training(plan) => {
                let passes = if plan.standardise() { 2 } else { u32::from(self.counts_rows()) };
                passes + self.spec.rounds() + u32::from(self.validates_last())
            }
        }
    }

    /// Whether a round of that number may come; a question does not know its last pass before it is answered.
    pub(super) fn may_follow(&self, round: u32) -> bool {
        round < self.rounds() || matches!(self.spec.plan(), Plan::Statistic(StatisticPlan::Question { .. }))
    }

    /// Its row in the list of experiments.
    pub fn row(&self) -> ExperimentRow {
        ExperimentRow {
            id: self.id.clone(),
            name: self.spec.name().to_owned(),
            state: self.state(),
            round: self.closed_rounds,
            rounds: self.rounds(),
            nodes: self.participants.len(),
            requester: self.requester.user.clone(),
            created: self.created,
        }
    }

    pub(super) fn record(&self, round: &Round, sums: &[Vector], now: Timestamp) -> RoundRecord {
        let measures = computation::measure(self.spec.plan(), sums);
        let rows = total(sums, Purpose::Weight).or_else(|| computation::counted(sums));
        let mut remarks = measures.remarks;
        remarks.extend(self.warning().filter(|_| round.number == 0));
        let loss = total(sums, Purpose::Loss).zip(rows).filter(|(_, rows)| *rows > 0.0).map(|(loss, rows)| loss / rows);
        RoundRecord {
            experiment_id: self.id.clone(),
            round: round.number,
            attempt: round.attempt,
            kind: kind(&round.work),
            training_round: round.training_round(),
            started: round.started,
            ended: now,
            seconds: now.since(round.started).as_secs_f64(),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a sum of counts; `as` from a float saturates"
            )]
            train_rows: rows.map_or(0, |rows| rows as u64),
            loss,
            metrics: measures.metrics,
            confusion: measures.confusion,
            remarks,
            nodes: round.contribution_seats().iter().map(|(node, seat)| self.node_record(node, seat)).collect(),
            hidden: self.hidden(round, sums),
        }
    }

    /// How the open round's sum was hidden.
    fn hidden(&self, round: &Round, sums: &[Vector]) -> Option<Hidden> {
        let secure = self.secure.as_ref()?;
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let numbers = secure.numbers().unwrap_or_default();
        Some(Hidden {
            scheme: secure.scheme(),
            parties: count(numbers.parties),
            threshold: numbers.threshold,
            colluders: numbers.colluders,
            // A validation that was not revealed sums nobody.
            survivors: if sums.is_empty() { 0 } else { count(round.contributions().count()) },
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a count; `as` from a float saturates"
            )]
            clipped: total(sums, Purpose::Clipped).map(|clipped| clipped as u64),
        })
    }

    fn node_record(&self, node: &NodeId, seat: &Seat) -> NodeRecord {
        let report = match &seat.state {
            SeatState::Contributed { report: Some(report), .. } => report.clone(),
            _ => Report::default(),
        };
        let is_hidden = self.secure.is_some();
        let shown = |rows: u64| (!is_hidden).then_some(rows);
        let code = if let SeatState::Refused { refusal } = &seat.state { Some(refusal.code) } else { None };
        NodeRecord {
            id: node.clone(),
            name: self.participants.get(node).map_or_else(|| node.to_string(), |participant| participant.name.clone()),
            state: seat_progress(&seat.state),
            code,
            reason: seat_reason(&seat.state),
            train_rows: shown(report.train_rows),
            test_rows: shown(report.test_rows),
            dropped_rows: shown(report.dropped_rows),
            loss: report.loss,
            measured: report.measured,
            remarks: report.remarks,
            work_ms: shown(report.work_ms),
            hidden: is_hidden.then(|| HIDDEN.to_owned()),
        }
    }

    /// Where it is now; `live` knows what a task's node has told lately.
    pub fn snapshot(&self, live: impl Fn(&TaskId) -> Live) -> Snapshot {
        let round = self.round();
        let round_started = match (&self.stage, round) {
            (_, Some(round)) => round.started,
            (Stage::Selecting(selecting), None) => selecting.since,
            _ => self.end().map_or(self.created, |(at, _)| at),
        };
        let (kind, training_round, attempt) = match (&self.stage, round) {
            (_, Some(round)) => (kind(&round.work), round.training_round(), round.attempt),
            (Stage::Selecting(_), None) => (RoundKind::Selection, None, 0),
            // The first model is being made, or everything is over.
            _ => (RoundKind::Training, (self.training_rounds > 0).then_some(self.training_rounds), 0),
        };
        Snapshot {
            experiment_id: self.id.clone(),
            name: self.spec.name().to_owned(),
            state: self.state(),
            round: self.closed_rounds,
            rounds: self.rounds(),
            kind,
            training_round,
            attempt,
            started: self.created,
            round_started,
            nodes: self.node_snapshots(live),
            remark: self.remark(),
            scheme: self.scheme(),
            step: round.and_then(|round| match round.phase {
                Phase::Secure(step) => Some(step),
                Phase::Contribute => None,
            }),
            warning: self.warning(),
        }
    }

    /// What holds things up.
    fn remark(&self) -> Option<String> {
        match &self.stage {
            Stage::Selecting(selecting) => Some(selecting.remark(&self.spec)),
            _ => self.stalled.as_ref().map(|(reason, _)| reason.clone()),
        }
    }

    fn node_snapshots(&self, live: impl Fn(&TaskId) -> Live) -> Vec<NodeSnapshot> {
        if let Stage::Selecting(selecting) = &self.stage {
            let asked = selecting.asked.iter().map(|(node, name)| (node, name.as_str()));
            let found = selecting.found.iter().map(|(node, offer)| (node, offer.name.as_str()));
            return asked.chain(found).map(|(node, name)| waiting(node, name)).collect();
        }
        let snapshot = |(node, participant): (&NodeId, &super::Participant)| {
            let seat = self.round().and_then(|round| round.seats.get(node));
            let mut snapshot = waiting(node, &participant.name);
            if let Some(seat) = seat {
                let live = live(&seat.task);
                snapshot.task = Some(seat.task.clone());
                snapshot.state = seat_progress(&seat.state);
                snapshot.reason = seat_reason(&seat.state);
                if seat.state == SeatState::Answered || seat.state == SeatState::Open {
                    // It has contributed, and is asked about the sum.
                    let contributed = self.round().and_then(|round| round.contributed.get(node));
                    snapshot.state = contributed.map_or(snapshot.state, |seat| seat_progress(&seat.state));
                }
                if let Some(progress) = live.progress {
                    (snapshot.done, snapshot.total, snapshot.loss) = (progress.done, progress.total, progress.loss);
                }
                snapshot.loss = snapshot.loss.filter(|_| self.secure.is_none());
                if seat.state == SeatState::Open && live.is_accepted && snapshot.state == NodeProgress::Waiting {
                    snapshot.state = live.state();
                }
            }
            if self.is_over() && snapshot.state == NodeProgress::Waiting {
                snapshot.state = NodeProgress::Over;
            }
            let is_open = |state| matches!(state, NodeProgress::Waiting | NodeProgress::Working | NodeProgress::Reading);
            if is_open(snapshot.state) || snapshot.state == NodeProgress::Over {
                if let Some(Dropped { by_hospital, reason }) = &participant.dropped {
                    let state = if *by_hospital { NodeProgress::StoppedByHospital } else { NodeProgress::Dropped };
                    (snapshot.state, snapshot.reason) = (state, Some(reason.clone()));
                } else if participant.away_since.is_some() && snapshot.state != NodeProgress::Over {
                    snapshot.state = NodeProgress::Away;
                }
            }
            snapshot
        };
        self.participants.iter().map(snapshot).collect()
    }
}

fn waiting(node: &NodeId, name: &str) -> NodeSnapshot {
    NodeSnapshot {
        id: node.clone(),
        name: name.to_owned(),
        state: NodeProgress::Waiting,
        task: None,
        done: 0,
        total: 0,
        loss: None,
        reason: None,
    }
}
