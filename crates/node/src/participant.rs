//! The node's part of one task: what happens next, and nothing of how. No socket, no clock, no file.
//!
//! The agent feeds events and carries out the actions in their order. What was accepted is in the journal before the researcher
//! hears of it, and of an exchange of secure aggregation it hears the answer only; a contribution is on disk and in the journal before its first byte leaves; a task that is known is not done
//! again. After a restart [`Participant::restored`] goes on from the journal.

use std::time::Duration;

use protocol::{Digest, NodeMessage, Refusal, RefusalCode, Report, SecureMessage, TaskId, Timestamp, UploadHeader};
use rand::Rng;
use serde::{Deserialize, Serialize};
use transport::retry::Backoff;

/// A contribution on disk that has passed the disclosure gate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    pub digest: Digest,
    pub bytes: u64,
    /// Absent where the sum is hidden: the node's own numbers stay here.
    #[serde(default)]
    pub report: Option<Report>,
}

/// Where a task is. Stored, except that `Running` is stored as `Accepted`: after a restart it runs again.
///
/// ```text
/// New ─admitted─▶ Accepted ─turn came─▶ Running ─computed─▶ Computed ─delivered─▶ Delivered
///  │                 │                    │ │                  │                     │
///  │ denied          │ cancelled, stopped │ │ failed,          │ cancelled, stopped, │ cancelled
///  ▼                 ▼                    │ ▼ cancelled, …     ▼ upload refused      ▼
/// Refused ◀──────────┴────────────────────┼─┴──────────────────┴─────────────────────┘
///                                         ├─out of range─▶ OutOfRange ─cancelled, stopped─▶ Refused
///                                         └─answered─▶ Answered ─cancelled, stopped─▶ Refused
/// every state but New ─settled─▶ Settled
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "content")]
pub enum State {
    New,
    /// In the journal, waiting for its turn.
    Accepted,
    Running,
    /// The contribution may leave, and the researcher does not have all of it yet.
    Computed(Held),
    /// The researcher has all of it.
    Delivered(Held),
    /// The values did not fit the round's scales.
    OutOfRange {
        exponents: Vec<i16>,
    },
    /// An exchange of secure aggregation: what the node says, kept word for word.
    Answered {
        answer: SecureMessage,
    },
    /// The node does not contribute.
    Refused(Refusal),
    /// The researcher needs nothing more.
    Settled,
}

impl State {
    /// The state's name in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Accepted => "accepted",
            Self::Running => "running",
            Self::Computed(_) => "computed",
            Self::Delivered(_) => "delivered",
            Self::OutOfRange { .. } => "out_of_range",
            Self::Answered { .. } => "answered",
            Self::Refused(_) => "refused",
            Self::Settled => "settled",
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The policy let the new task in.
    Admitted,
    /// The policy did not.
    Denied(Refusal),
    /// The daemon started again with this task in its journal.
    Restarted,
    /// The machine is free for this task.
    TurnCame,
    Computed(Held),
    Overflowed {
        exponents: Vec<i16>,
    },
    Answered {
        answer: SecureMessage,
    },
    /// The work cannot be done, or its result may not leave.
    Failed(Refusal),
    /// The researcher can hear; what it may have missed is said again.
    Connected,
    Disconnected,
    /// The same task came again.
    Repeated,
    Delivered,
    UploadBroke,
    UploadRefused(Refusal),
    /// The researcher does not want the work any more.
    Cancelled(Refusal),
    /// The hospital stops the work.
    Stopped(Refusal),
    Settled,
}

/// What to do, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Commit the state to the journal before the actions that follow. A lazy commit may be lost with the machine's power.
    Store {
        lazy: bool,
    },
    Say(NodeMessage),
    /// Wait for a turn, then compute; begins after the last checkpoint if there is one.
    Compute,
    StopComputing,
    Upload {
        after: Duration,
    },
    StopUpload,
    /// The contribution and the checkpoint are not needed any more.
    RemoveFiles,
}

/// The node's part of one task.
#[derive(Debug, Clone)]
pub struct Participant {
    task: TaskId,
    state: State,
    is_connected: bool,
    is_computing: bool,
    is_exchange: bool,
    backoff: Backoff,
    updated: Timestamp,
}

impl Participant {
    /// A task that nobody here has seen before.
    pub fn new(task: TaskId, now: Timestamp) -> Self {
        Self::restored(task, State::New, now)
    }

    /// A task from the journal.
    pub fn restored(task: TaskId, state: State, updated: Timestamp) -> Self {
        let backoff = Backoff::transfer();
        Self { task, state, is_connected: false, is_computing: false, is_exchange: false, backoff, updated }
    }

    /// Makes it an exchange of secure aggregation, whose answer follows at once and is the first word about it: before that nobody is
    /// told that it was accepted, and the journal need not wait for the disk.
    #[must_use]
    pub fn of_exchange(self) -> Self {
        Self { is_exchange: true, ..self }
    }

    pub fn task(&self) -> &TaskId {
        &self.task
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn updated(&self) -> Timestamp {
        self.updated
    }

    /// What begins the upload of the contribution, where there is one.
    pub fn upload_header(&self) -> Option<UploadHeader> {
        let (State::Computed(held) | State::Delivered(held)) = &self.state else { return None };
        let report = held.report.clone();
        Some(UploadHeader { task: self.task.clone(), digest: held.digest, bytes: held.bytes, report })
    }

    /// Takes an event and says what to do. An event that comes too late to matter asks for nothing.
    pub fn apply(&mut self, event: Event, now: Timestamp, rng: &mut impl Rng) -> Vec<Action> {
        match event {
            Event::Connected => {
                self.is_connected = true;
                self.say_again()
            }
            Event::Disconnected => {
                self.is_connected = false;
                vec![Action::StopUpload]
            }
            Event::Repeated => self.repeat(),
            Event::Settled => self.settle(now),
            Event::Restarted if self.state == State::Accepted => self.compute(),
            Event::Admitted if self.state == State::New => {
                self.is_connected = true;
                let mut actions = if self.is_exchange {
                    (self.state, self.updated) = (State::Accepted, now);
                    vec![Action::Store { lazy: true }]
                } else {
                    self.enter(State::Accepted, now)
                };
                actions.extend(self.compute());
                actions
            }
            Event::Denied(refusal) if self.state == State::New => {
                self.is_connected = true;
                self.enter(State::Refused(refusal), now)
            }
            Event::TurnCame if self.state == State::Accepted => {
                // Not stored: after a restart the task waits for its turn again.
                self.state = State::Running;
                self.updated = now;
                Vec::new()
            }
            Event::Computed(held) => self.end_computing(State::Computed(held), now),
            Event::Overflowed { exponents } => self.end_computing(State::OutOfRange { exponents }, now),
            Event::Answered { answer } => self.end_computing(State::Answered { answer }, now),
            Event::Failed(refusal) => self.end_computing(State::Refused(refusal), now),
            Event::Delivered => self.delivered(now),
            Event::UploadBroke => self.pause_upload(rng),
            Event::UploadRefused(refusal) if matches!(self.state, State::Computed(_)) => self.refuse(refusal, now),
            Event::Cancelled(refusal) => self.cancel(refusal, now),
            Event::Stopped(refusal) => self.stop(refusal, now),
            _ => Vec::new(),
        }
    }

    /// Moves on, stores that, and says or sends what belongs to the new state.
    fn enter(&mut self, state: State, now: Timestamp) -> Vec<Action> {
        self.state = state;
        self.updated = now;
        let mut actions = vec![Action::Store { lazy: false }];
        if self.is_connected {
            actions.extend(self.word().map(Action::Say));
            if matches!(self.state, State::Computed(_)) {
                actions.push(Action::Upload { after: Duration::ZERO });
            }
        }
        actions
    }

    /// What the researcher has to hear about the present state.
    fn word(&self) -> Option<NodeMessage> {
        let task = self.task.clone();
        match &self.state {
            State::Accepted | State::Running => (!self.is_exchange).then_some(NodeMessage::Accepted { task }),
            State::OutOfRange { exponents } => Some(NodeMessage::OutOfRange { task, exponents: exponents.clone() }),
            State::Answered { answer } => Some(NodeMessage::Answered { task, answer: answer.clone() }),
            State::Refused(refusal) => Some(NodeMessage::Refused { task, refusal: refusal.clone() }),
            State::New | State::Computed(_) | State::Delivered(_) | State::Settled => None,
        }
    }

    fn compute(&mut self) -> Vec<Action> {
        self.is_computing = true;
        vec![Action::Compute]
    }

    /// After a new connection. That a task is accepted stands in the first message; a delivered one is settled by it.
    fn say_again(&mut self) -> Vec<Action> {
        self.backoff.reset();
        match &self.state {
            State::Computed(_) => vec![Action::Upload { after: Duration::ZERO }],
            State::OutOfRange { .. } | State::Answered { .. } | State::Refused(_) => {
                self.word().map(Action::Say).into_iter().collect()
            }
            State::New | State::Accepted | State::Running | State::Delivered(_) | State::Settled => Vec::new(),
        }
    }

    /// After the same task came again: the researcher does not know where it stands.
    fn repeat(&mut self) -> Vec<Action> {
        let task = self.task.clone();
        match &self.state {
            State::Computed(_) => vec![Action::Say(NodeMessage::Accepted { task })],
            State::Delivered(_) => {
                vec![Action::Say(NodeMessage::Accepted { task }), Action::Upload { after: Duration::ZERO }]
            }
            State::Settled => {
                let refusal = Refusal::new(RefusalCode::Duplicate, "this task was settled before");
                vec![Action::Say(NodeMessage::Refused { task, refusal })]
            }
            State::New
            | State::Accepted
            | State::Running
            | State::OutOfRange { .. }
            | State::Answered { .. }
            | State::Refused(_) => self.word().map(Action::Say).into_iter().collect(),
        }
    }

    fn end_computing(&mut self, state: State, now: Timestamp) -> Vec<Action> {
        self.is_computing = false;
        if !matches!(self.state, State::Accepted | State::Running) {
            // It was cancelled or stopped while the last steps ran.
            return vec![Action::RemoveFiles];
        }
        let keeps_files = matches!(state, State::Computed(_));
        let mut actions = self.enter(state, now);
        if !keeps_files {
            actions.push(Action::RemoveFiles);
        }
        actions
    }

    fn delivered(&mut self, now: Timestamp) -> Vec<Action> {
        let State::Computed(held) = &self.state else { return Vec::new() };
        // Lost with the power, the upload is offered again and the researcher says that it has it.
        self.state = State::Delivered(held.clone());
        self.updated = now;
        vec![Action::Store { lazy: true }]
    }

    fn pause_upload(&mut self, rng: &mut impl Rng) -> Vec<Action> {
        if !self.is_connected || !matches!(self.state, State::Computed(_)) {
            return Vec::new();
        }
        vec![Action::Upload { after: self.backoff.wait(rng) }]
    }

    fn refuse(&mut self, refusal: Refusal, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.is_computing {
            actions.push(Action::StopComputing);
        }
        if matches!(self.state, State::Computed(_) | State::Delivered(_)) {
            actions.push(Action::StopUpload);
        }
        actions.extend(self.enter(State::Refused(refusal), now));
        actions.push(Action::RemoveFiles);
        actions
    }

    fn cancel(&mut self, refusal: Refusal, now: Timestamp) -> Vec<Action> {
        match &self.state {
            State::New | State::Settled => Vec::new(),
            State::Refused(_) => self.word().map(Action::Say).into_iter().collect(),
            _ => self.refuse(refusal, now),
        }
    }

    /// What was delivered cannot be taken back; everything else can be stopped.
    fn stop(&mut self, refusal: Refusal, now: Timestamp) -> Vec<Action> {
        match &self.state {
            State::New | State::Settled | State::Refused(_) | State::Delivered(_) => Vec::new(),
            _ => self.refuse(refusal, now),
        }
    }

    fn settle(&mut self, now: Timestamp) -> Vec<Action> {
        if matches!(self.state, State::New | State::Settled) {
            return Vec::new();
        }
        let mut actions = Vec::new();
        if self.is_computing {
            actions.push(Action::StopComputing);
        }
        self.state = State::Settled;
        self.updated = now;
        // Lost with the power, the researcher says it again to a node that still holds the task.
        actions.extend([Action::StopUpload, Action::Store { lazy: true }, Action::RemoveFiles]);
        actions
    }
}

#[cfg(test)]
mod tests;
