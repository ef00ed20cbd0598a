//! An experiment: what happens next, and nothing of how. No socket, no clock, no file.
//!
//! The driver feeds events, stores the experiment, and then carries out the actions; the actions of a step are carried out only
//! once the step is on the disk. An experiment is a row of rounds, one exchange with the nodes each: for a training plan the two
//! passes of standardisation if it wants that, the training rounds, and one validation of the last model; for a statistic its
//! passes. Between standardisation and training the first model is made.
//!
//! A round ends when every node that was asked has contributed, refused or been dropped, or when `round_timeout` has passed and
//! `min_nodes` have contributed. A node that fails is treated as `on_failure` says; `retry` asks that one node again, with a new
//! task of the next attempt, while the others' work stands. A node that is away for `node_timeout` is dropped whatever
//! `on_failure` says. When values do not fit the scales, all nodes answer first and then all repeat the round on wider ones, so
//! that the scales do not depend on who was first. In the last validation nothing that a node does fails the experiment.
//!
//! A round is a row of phases: one, the contribution, where sums are plain; where they are hidden from the researcher also the
//! exchanges around it, which are tasks like any other (`phases`). What they are about is kept in `secure`.

mod asked;
mod kept;
mod negotiation;
mod phases;
mod record;
mod round;
mod scale;
mod secure;
mod selection;
mod steps;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::{
    BlobRef, DatasetFace, Digest, ExperimentId, ExperimentSpec, NodeId, Refusal, RefusalCode, Report, Requester,
    ResearcherId, Scheme, SecureMessage, Tags, Task, TaskId, Timestamp, Vector, Work,
};
use rand::Rng;
use secagg::joye_libert::Group;
use serde::{Deserialize, Serialize};
use transport::identity::Fingerprint;

use crate::command::{Answer, ColumnMoments, Pooled, RoundRecord};
use asked::Asked;
pub use kept::{KeptAnswer, SecureChange};
pub use negotiation::Negotiation;
pub use record::Live;
pub use round::{Phase, Round, Seat, SeatState};
use scale::Scales;
use secure::Secure;
pub use selection::{Dropped, Offer, Participant, Selecting};

/// How long an experiment waits for nodes to connect and answer before it begins with those that did, or fails.
pub const SELECTION_WAIT: Duration = Duration::from_secs(10);
/// How much longer after a restart of the daemon: nodes without work try to come back every 30 s at least.
pub const RETURN_WAIT: Duration = Duration::from_secs(30);
/// How often a node is asked again under `on_failure = "retry"`.
pub const MAX_RETRIES: u32 = 3;
/// How often a round is repeated on wider scales.
const MAX_REPETITIONS: u32 = 8;
/// How long to wait before work that the researcher's own disk refused is tried again.
const STALL_PAUSE: Duration = Duration::from_secs(5);

/// Where an experiment is.
///
/// ```text
/// Selecting ────▶ Initialising | Collecting
/// Initialising ─▶ Collecting
/// Collecting ───▶ Collecting (on wider scales) | Folding | Finished (nobody could validate)
/// Folding ──────▶ Collecting (the next round; or a contribution was unreadable) | Initialising | Finished
/// any of these ─▶ Failed | Cancelled
/// Failed, Cancelled ─resumed─▶ Selecting, then on after the last closed round
/// Finished ─────▶ nothing
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "stage", content = "content")]
pub enum Stage {
    Selecting(Selecting),
    /// The first model is being made.
    Initialising,
    /// Nodes work.
    Collecting(Round),
    /// The contributions are being summed.
    Folding(Round),
    Finished {
        at: Timestamp,
    },
    Failed {
        at: Timestamp,
        reason: String,
    },
    Cancelled {
        at: Timestamp,
        by: String,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The experiment was asked for; these nodes are connected, by name.
    Begun {
        connected: BTreeMap<NodeId, String>,
    },
    /// The daemon started again with this experiment in its store; nobody is connected.
    Restarted,
    /// Somebody wants a failed or cancelled experiment to go on.
    Resumed {
        connected: BTreeMap<NodeId, String>,
    },
    Cancelled {
        by: String,
    },
    Connected {
        node: NodeId,
        name: String,
    },
    Disconnected {
        node: NodeId,
    },
    /// The node is shut out.
    Revoked {
        node: NodeId,
    },
    Found {
        node: NodeId,
        datasets: Vec<DatasetFace>,
    },
    /// The contribution lies in the spool, whole and checked against its digest.
    Contributed {
        node: NodeId,
        task: TaskId,
        digest: Digest,
        bytes: u64,
        report: Option<Report>,
    },
    Refused {
        node: NodeId,
        task: TaskId,
        refusal: Refusal,
    },
    OutOfRange {
        node: NodeId,
        task: TaskId,
        exponents: Vec<i16>,
    },
    /// Answers an exchange of secure aggregation; `key` is the fingerprint of the key that the node is enrolled with.
    Answered {
        node: NodeId,
        task: TaskId,
        answer: SecureMessage,
        key: Fingerprint,
    },
    /// A node brought its keys to the researcher itself; `key` is the fingerprint of the key that it showed.
    Heard {
        node: NodeId,
        said: SecureMessage,
        key: Fingerprint,
    },
    /// A contribution's file is gone or damaged, as after a loss of power; the node has it still.
    Lost {
        task: TaskId,
    },
    Initialised {
        model: BlobRef,
    },
    Folded {
        round: u32,
        attempt: u32,
        folded: Folded,
    },
    /// The bytes of this node's contribution are not what the layout demands.
    Spoiled {
        node: NodeId,
        task: TaskId,
    },
    /// The researcher's own disk failed; the work is tried again.
    Stalled {
        reason: String,
    },
    /// The work cannot be done at all.
    Broken {
        reason: String,
    },
    Tick,
}

/// What a fold gave.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Folded {
    /// The decoded sums of all vectors but the model's.
    pub sums: Vec<Vector>,
    /// The new model, for a training round.
    pub model: Option<BlobRef>,
    /// The largest absolute value in the sum of each model vector.
    pub largest: BTreeMap<String, f64>,
}

/// What to do, once the step is stored.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Search {
        node: NodeId,
        tags: Option<Tags>,
    },
    Ask {
        node: NodeId,
        task: Box<Task>,
    },
    Cancel {
        node: NodeId,
        task: TaskId,
        refusal: Refusal,
    },
    /// Tell the node that the task is over; its file in the spool is not needed any more.
    Settle {
        node: NodeId,
        task: TaskId,
    },
    /// Keep an answer that was taken, for whoever starts again.
    Keep(Box<KeptAnswer>),
    /// Tell the node that its keys of hidden sums are not needed any more.
    Over {
        node: NodeId,
    },
    /// Make the first model.
    Initialise,
    /// Compute what opens the sum of the open round, while nodes work.
    ComputeAhead,
    /// Sum the contributions of the folding round.
    Fold,
    /// Store and show a closed round.
    Record(Box<RoundRecord>),
    /// Feed a `Tick` at this time; takes the place of an earlier wish.
    WakeAt(Timestamp),
    /// The experiment is over: write what it leaves.
    End,
}

/// A whole experiment. What is stored is this value; the state of hidden sums lies beside the rest ([`SecureChange`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    id: ExperimentId,
    spec: ExperimentSpec,
    requester: Requester,
    created: Timestamp,
    participants: BTreeMap<NodeId, Participant>,
    /// Exchanges that are closed.
    closed_rounds: u32,
    /// Exchanges that ended without a sum and were begun again. The next has the number of both together.
    #[serde(default)]
    lost_rounds: u32,
    training_rounds: u32,
    is_validated: bool,
    /// The attempt with which the next round begins; above 0 after a failed one.
    next_attempt: u32,
    /// Repetitions of the open round on wider scales.
    repetitions: u32,
    /// The next pass of the statistic or of standardisation.
    next_pass: Option<Work>,
    moments: Option<Vec<ColumnMoments>>,
    /// What a question has learnt so far.
    #[serde(default)]
    asked: Asked,
    model: Option<BlobRef>,
    scales: Scales,
    /// The last metrics over all nodes.
    metrics: Vec<Pooled>,
    /// Which researcher this is; absent in experiments that are older than hidden sums.
    #[serde(default)]
    researcher: Option<ResearcherId>,
    /// What Joye-Libert computes in, if sums are hidden with it.
    #[serde(default)]
    joye_libert: Group,
    /// Present where sums are hidden.
    #[serde(default, skip_serializing)]
    secure: Option<Secure>,
    /// What holds things up, and until when to wait.
    stalled: Option<(String, Timestamp)>,
    stage: Stage,
}

impl Experiment {
    pub fn new(id: ExperimentId, spec: ExperimentSpec, requester: Requester, now: Timestamp) -> Self {
        Self {
            id,
            spec,
            requester,
            created: now,
            participants: BTreeMap::new(),
            closed_rounds: 0,
            lost_rounds: 0,
            training_rounds: 0,
            is_validated: false,
            next_attempt: 0,
            repetitions: 0,
            next_pass: None,
            moments: None,
            asked: Asked::default(),
            model: None,
            scales: Scales::new(),
            metrics: Vec::new(),
            researcher: None,
            joye_libert: Group::default(),
            secure: None,
            stalled: None,
            stage: Stage::Selecting(Selecting::new(now)),
        }
    }

    /// Names the researcher, to whose experiments keys are bound.
    #[must_use]
    pub fn of_researcher(self, researcher: ResearcherId) -> Self {
        Self { researcher: Some(researcher), ..self }
    }

    /// Sets the modulus of Joye-Libert.
    #[must_use]
    pub fn with_modulus(self, joye_libert: Group) -> Self {
        Self { joye_libert, ..self }
    }

    /// The scheme that hides the sums, if one does.
    pub fn scheme(&self) -> Option<Scheme> {
        self.secure.as_ref().map(Secure::scheme)
    }

    pub fn id(&self) -> &ExperimentId {
        &self.id
    }

    /// As asked for; features are spelled out once the datasets are chosen.
    pub fn spec(&self) -> &ExperimentSpec {
        &self.spec
    }

    pub fn requester(&self) -> &Requester {
        &self.requester
    }

    pub fn created(&self) -> Timestamp {
        self.created
    }

    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Finished { .. } | Stage::Failed { .. } | Stage::Cancelled { .. })
    }

    pub fn is_finished(&self) -> bool {
        matches!(self.stage, Stage::Finished { .. })
    }

    pub fn participants(&self) -> &BTreeMap<NodeId, Participant> {
        &self.participants
    }

    /// The global model as it is now.
    pub fn model(&self) -> Option<BlobRef> {
        self.model
    }

    /// The finished statistic, also the one that standardises.
    pub fn moments(&self) -> Option<&[ColumnMoments]> {
        self.moments.as_deref()
    }

    /// What a question came to.
    pub fn answer(&self) -> Option<Answer> {
        asked::answer(self)
    }

    /// The open round, whether nodes work or their contributions are being summed.
    pub fn round(&self) -> Option<&Round> {
        match &self.stage {
            Stage::Collecting(round) | Stage::Folding(round) => Some(round),
            _ => None,
        }
    }

    pub(crate) fn task_model(&self, work: &Work) -> Option<BlobRef> {
        if matches!(work, Work::Train { .. } | Work::Validate) { self.model } else { None }
    }

    /// Takes an event and says what to do. An event that comes too late to matter changes nothing; a node that keeps saying
    /// something about a task that is over is told so.
    pub fn apply(&mut self, event: Event, now: Timestamp, rng: &mut impl Rng) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Begun { connected } => self.search(connected, &mut actions),
            Event::Restarted => self.restart(now, &mut actions),
            Event::Resumed { connected } => self.resume(connected, now, &mut actions),
            Event::Cancelled { by } => self.stop(Stage::Cancelled { at: now, by }, &mut actions),
            Event::Connected { node, name } => self.connected(node, name, &mut actions),
            Event::Disconnected { node } => self.disconnected(&node, now),
            Event::Revoked { node } => self.drop_node(&node, "its enrolment was revoked", &mut actions),
            Event::Found { node, datasets } => self.found(&node, datasets, &mut actions),
            Event::Contributed { node, task, digest, bytes, report } => {
                // What a node says of its own values is not kept where they are hidden.
                let report = report.filter(|_| self.secure.is_none());
                self.set_seat(&node, &task, SeatState::Contributed { digest, bytes, report });
            }
            Event::Refused { node, task, refusal } => self.refused(&node, &task, &refusal, now, rng, &mut actions),
            Event::OutOfRange { node, task, exponents } if self.can_widen(&exponents) => {
                self.set_seat(&node, &task, SeatState::OutOfRange { exponents });
                actions.push(Action::Settle { node, task });
            }
            Event::OutOfRange { node, task, .. } => {
                let refusal = Refusal::new(
                    RefusalCode::Malformed,
                    "the node asks for scales that are not wider, or so wide that its training diverges",
                );
                self.refused(&node, &task, &refusal, now, rng, &mut actions);
            }
            Event::Lost { task } => self.lost(&task, &mut actions),
            Event::Answered { node, task, answer, key } => {
                self.answered((&node, &task), &answer, &key, now, rng, &mut actions);
            }
            Event::Heard { node, said, key } => self.heard(&node, &said, &key),
            Event::Initialised { model } => self.initialised(model, now, rng, &mut actions),
            Event::Folded { round, attempt, folded } => self.folded((round, attempt), &folded, now, rng, &mut actions),
            Event::Spoiled { node, task } => self.spoiled(&node, &task, now, rng, &mut actions),
            Event::Stalled { reason } => self.stalled = Some((reason, now.saturating_add(STALL_PAUSE))),
            Event::Broken { reason } => self.fail(reason, now, &mut actions),
            Event::Tick => self.tick(now, &mut actions),
        }
        self.advance(now, rng, &mut actions);
        actions.extend(self.wake_at().map(Action::WakeAt));
        actions
    }

    /// When time itself is the next event.
    fn wake_at(&self) -> Option<Timestamp> {
        let away = self.participants.values().filter(|participant| participant.dropped.is_none());
        let away = away.filter_map(|participant| participant.away_since);
        let away = away.map(|since| since.saturating_add(self.spec.patience().node_timeout())).min();
        match &self.stage {
            Stage::Selecting(selecting) => Some(selecting.since.saturating_add(SELECTION_WAIT)),
            Stage::Collecting(round) => [round.deadline, away].into_iter().flatten().min(),
            Stage::Initialising | Stage::Folding(_) => self.stalled.as_ref().map(|(_, until)| *until),
            Stage::Finished { .. } | Stage::Failed { .. } | Stage::Cancelled { .. } => None,
        }
    }

    fn set_seat(&mut self, node: &NodeId, task: &TaskId, state: SeatState) {
        let Stage::Collecting(round) = &mut self.stage else { return };
        if round.phase != Phase::Contribute {
            return;
        }
        if let Some(seat) = round.seat_mut(node, task).filter(|seat| seat.state == SeatState::Open) {
            seat.state = state;
        }
    }

    /// Whether a node's exponents are an answer to the open round's scales.
    fn can_widen(&self, exponents: &[i16]) -> bool {
        let round = self.round().filter(|round| round.phase == Phase::Contribute);
        let layout = round.map(|round| round.layout.as_slice()).unwrap_or_default();
        scale::is_answer(layout, exponents)
    }

    /// Back to waiting for nodes, with the contributions that are here.
    fn reopen(&mut self) {
        if let Stage::Folding(round) = &self.stage {
            self.stage = Stage::Collecting(round.clone());
        }
    }

    fn fail(&mut self, reason: String, now: Timestamp, actions: &mut Vec<Action>) {
        self.stop(Stage::Failed { at: now, reason }, actions);
    }

    /// Tells all nodes that took part that the keys of hidden sums are not needed any more. Who goes on agrees on others.
    fn end_keys(&mut self, actions: &mut Vec<Action>) {
        if let Some(secure) = &mut self.secure {
            secure.end();
            actions.extend(self.participants.keys().map(|node| Action::Over { node: node.clone() }));
        }
    }

    /// Whether a node that has connected keeps keys of this experiment for nothing: it was not told in time that they are over.
    pub(crate) fn has_no_use_for_keys_of(&self, node: &NodeId) -> bool {
        let is_asked =
            self.round().is_some_and(|round| round.seats.contains_key(node) || round.contributed.contains_key(node));
        !is_asked && self.secure.as_ref().is_none_or(|secure| !secure.has_agreed(node))
    }

    /// Ends the experiment; what is open at the nodes is cancelled.
    fn stop(&mut self, stage: Stage, actions: &mut Vec<Action>) {
        if self.is_over() {
            return;
        }
        let sentence = match &stage {
            Stage::Cancelled { .. } => "the researcher cancelled the experiment",
            Stage::Finished { .. } => "the experiment is finished",
            _ => "the experiment has failed",
        };
        if let Some(round) = self.round() {
            self.next_attempt = round.last_attempt() + 1;
            // Nodes that have encrypted for these parties do so for no others in this round.
            if self.secure.as_ref().is_some_and(Secure::needs_all) {
                self.give_up_round();
            }
        }
        match std::mem::replace(&mut self.stage, stage) {
            Stage::Collecting(round) | Stage::Folding(round) => steps::release(&round, sentence, actions),
            _ => {}
        }
        self.stalled = None;
        self.end_keys(actions);
        actions.push(Action::End);
    }
}
