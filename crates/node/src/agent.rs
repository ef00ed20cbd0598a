//! A node's dealings with one researcher: pull tasks, hand them over, push what they gave.
//!
//! [`Agent::run`] is a loop over one queue of events: what the researcher says, what ended here, what the hospital orders. Decisions
//! are the participant's and the gates'; the loop carries out their actions. Where the disk fails it ends, and whoever runs
//! it starts it again: it goes on from the journal.

mod connection;
mod effects;
mod work;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use protocol::{NodeMessage, Progress, Refusal, RefusalCode, RequestId, ResearcherMessage, Tags, Task, TaskId, Work};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, oneshot};
use transport::link::Link;

use crate::answer::stopped_by_hospital;
use crate::command::RunningTask;
use crate::disclosure::{self, Cleared, Disclosure};
use crate::handle::NodeHandle;
use crate::participant::{Event, Participant, State};
use crate::policy::Permit;
use crate::secure;
use crate::store::{Enrolment, StoreError, TaskRecord};
use crate::workshop::Workshop;

pub(crate) use self::work::Aborting;
use self::work::Running;

/// Events that wait. Whoever adds one beyond that waits.
const QUEUE: usize = 64;
/// Tasks of one researcher that are not settled; more are refused.
const MOST_OPEN: usize = 256;

/// Why an agent ended before it was told to.
#[derive(Debug, Error)]
pub enum AgentError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the spool cannot be used: {0}")]
    Spool(#[from] std::io::Error),
}

/// What the hospital wants of an agent.
#[derive(Debug)]
pub enum Order {
    /// Stop one task, or all; answers how many were stopped.
    Stop { task: Option<TaskId>, refusal: Refusal, stopped: oneshot::Sender<usize> },
    /// The enrolment changed: take it from the store again.
    Reload,
}

/// What an agent is at, for people.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AgentState {
    /// `connected`, or why not.
    pub connection: String,
    pub running: Option<RunningTask>,
    pub waiting: u64,
    /// Tasks that are not over, which a restart would interrupt.
    pub open: u64,
}

/// The other end of an agent: orders in, state out.
#[derive(Debug, Clone)]
pub struct AgentHandle {
    incoming: mpsc::Sender<Incoming>,
    state: Arc<Mutex<AgentState>>,
}

/// An agent that has not begun.
pub struct Agent<L> {
    pub node: Arc<NodeHandle>,
    pub enrolment: Enrolment,
    pub link: Arc<L>,
    pub workshop: Arc<Workshop>,
    handle: AgentHandle,
    queue: mpsc::Receiver<Incoming>,
}

/// What goes through an agent's queue.
#[derive(Debug)]
enum Incoming {
    Connected(mpsc::Sender<NodeMessage>),
    Disconnected,
    Said(ResearcherMessage),
    TurnCame(TaskId),
    Progressed(TaskId, Progress),
    Worked(TaskId, WorkEnd),
    Uploaded(TaskId, UploadEnd),
    Ordered(Order),
}

/// How a task's work ended.
#[derive(Debug)]
enum WorkEnd {
    Decided(Disclosure),
    Refused(Refusal),
    /// Stopped on request: nothing to say.
    Cancelled,
}

/// How the upload of a contribution ended.
#[derive(Debug)]
enum UploadEnd {
    Delivered,
    Broke,
    Refused(Refusal),
}

/// One task that is not over.
struct Job {
    participant: Participant,
    task: Arc<Task>,
    signature: Vec<u8>,
    is_in_journal: bool,
    /// Until the work begins.
    permit: Option<Permit>,
    work: Option<Running>,
    cleared: Option<Arc<Cleared>>,
    upload: Option<Aborting>,
    progress: Option<Progress>,
}

/// The loop's own values.
struct Loop<L> {
    node: Arc<NodeHandle>,
    enrolment: Enrolment,
    link: Arc<L>,
    workshop: Arc<Workshop>,
    handle: AgentHandle,
    outbox: Option<mpsc::Sender<NodeMessage>>,
    jobs: BTreeMap<TaskId, Job>,
    /// Held by the task whose model is fetched or waits for its turn.
    desk: Arc<Semaphore>,
}

impl AgentHandle {
    pub fn state(&self) -> AgentState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives an order; one to an agent that has ended is lost.
    pub async fn order(&self, order: Order) {
        let _ = self.incoming.send(Incoming::Ordered(order)).await;
    }

    fn update(&self, change: impl FnOnce(&mut AgentState)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl<L: Link> Agent<L> {
    pub fn new(node: Arc<NodeHandle>, enrolment: Enrolment, link: Arc<L>, workshop: Arc<Workshop>) -> Self {
        let (incoming, queue) = mpsc::channel(QUEUE);
        let state = AgentState { connection: "connecting".to_owned(), ..AgentState::default() };
        let handle = AgentHandle { incoming, state: Arc::new(Mutex::new(state)) };
        Self { node, enrolment, link, workshop, handle, queue }
    }

    pub fn handle(&self) -> AgentHandle {
        self.handle.clone()
    }

    /// Deals with the researcher until it is dropped. Returns only if the own disk fails.
    pub async fn run(self) -> Result<(), AgentError> {
        let Self { node, enrolment, link, workshop, handle, mut queue } = self;
        let mut agent = Loop {
            node,
            enrolment,
            link,
            workshop,
            handle,
            outbox: None,
            jobs: BTreeMap::new(),
            desk: Arc::new(Semaphore::new(1)),
        };
        agent.restore().await?;
        let _connection = Aborting::spawn(connection::stay_connected(
            agent.link.clone(),
            agent.node.clone(),
            agent.enrolment.researcher.clone(),
            agent.handle.clone(),
        ));
        while let Some(incoming) = queue.recv().await {
            agent.take(incoming).await?;
            agent.show();
        }
        Ok(())
    }
}

impl<L: Link> Loop<L> {
    /// Takes up the open tasks of the journal. Those that the hospital does not want any more are stopped first.
    async fn restore(&mut self) -> Result<(), AgentError> {
        let is_wanted = !self.node.is_paused()? && self.node.allows(&self.enrolment);
        for record in self.node.store().open_tasks(&self.enrolment.researcher)? {
            let TaskRecord { task, signature, state, updated, .. } = record;
            let id = task.id.clone();
            let participant = Participant::restored(id.clone(), state, updated);
            self.jobs.insert(id.clone(), Job::restored(participant, task, signature));
            let event = if is_wanted && !self.node.halt().has_stopped(&id) {
                Event::Restarted
            } else {
                Event::Stopped(stopped_by_hospital())
            };
            self.apply(&id, event).await?;
        }
        self.show();
        Ok(())
    }

    async fn take(&mut self, incoming: Incoming) -> Result<(), AgentError> {
        match incoming {
            Incoming::Said(message) => self.heard(message).await,
            Incoming::Connected(outbox) => {
                self.outbox = Some(outbox);
                self.apply_to_all(&Event::Connected).await
            }
            Incoming::Disconnected => {
                self.outbox = None;
                self.apply_to_all(&Event::Disconnected).await
            }
            Incoming::TurnCame(id) => self.apply(&id, Event::TurnCame).await,
            Incoming::Progressed(id, progress) => {
                self.progressed(id, progress);
                Ok(())
            }
            Incoming::Worked(id, end) => self.worked(&id, end).await,
            Incoming::Uploaded(id, end) => self.uploaded(&id, end).await,
            Incoming::Ordered(order) => self.obey(order).await,
        }
    }

    async fn heard(&mut self, message: ResearcherMessage) -> Result<(), AgentError> {
        match message {
            ResearcherMessage::Task { task, signature } => self.asked(*task, signature).await,
            ResearcherMessage::Cancel { task, refusal } => self.apply(&task, Event::Cancelled(refusal)).await,
            ResearcherMessage::Settled { task } => self.apply(&task, Event::Settled).await,
            ResearcherMessage::Search { request, tags } => self.search(request, tags.as_ref()).await,
            ResearcherMessage::Over { experiment } => Ok(secure::end(&self.node, &self.enrolment.researcher, &experiment)?),
        }
    }

    /// Takes a task: a known one has no effect again, a new one goes through the policy.
    async fn asked(&mut self, task: Task, signature: Vec<u8>) -> Result<(), AgentError> {
        let id = task.id.clone();
        if self.jobs.contains_key(&id) {
            return self.apply(&id, Event::Repeated).await;
        }
        if let Some(TaskRecord { state, updated, .. }) = self.node.store().task(&self.enrolment.researcher, &id)? {
            let settled = Job::restored(Participant::restored(id.clone(), state, updated), task, signature);
            self.jobs.insert(id.clone(), settled);
            self.apply(&id, Event::Repeated).await?;
            self.jobs.remove(&id);
            return Ok(());
        }
        if self.jobs.len() >= MOST_OPEN {
            let refusal = Refusal::new(RefusalCode::QuotaExceeded, "too many tasks of this researcher are not settled");
            self.say(NodeMessage::Refused { task: id, refusal }).await;
            return Ok(());
        }
        let (event, permit) = match self.node.policy().admit(&self.node, &self.enrolment, &task, &signature) {
            Ok(permit) => (Event::Admitted, Some(permit)),
            // Who may not ask does not fill the journal either.
            Err(refusal) if is_of_no_standing(refusal.code) => {
                self.say(NodeMessage::Refused { task: id, refusal }).await;
                return Ok(());
            }
            Err(refusal) => (Event::Denied(refusal), None),
        };
        let participant = Participant::new(id.clone(), self.node.now());
        let is_exchange = matches!(task.work, Work::Secure { .. });
        let participant = if is_exchange { participant.of_exchange() } else { participant };
        self.jobs.insert(id.clone(), Job::new(participant, task, signature, permit));
        self.apply(&id, event).await
    }

    async fn search(&mut self, request: RequestId, tags: Option<&Tags>) -> Result<(), AgentError> {
        let is_allowed = self.node.allows(&self.enrolment);
        let datasets = self.node.store().datasets()?;
        let found = datasets.iter().filter(|dataset| {
            is_allowed
                && dataset.is_visible_to(&self.enrolment.researcher)
                && tags.is_none_or(|tags| dataset.description.tags.answer(tags))
        });
        let config = self.node.config();
        let faces = disclosure::faces(request, found, config.row_counts, config.disclosure.minimum_rows);
        self.say(faces.into_message()).await;
        Ok(())
    }

    async fn worked(&mut self, id: &TaskId, end: WorkEnd) -> Result<(), AgentError> {
        let Some(job) = self.jobs.get_mut(id) else { return Ok(()) };
        job.work = None;
        job.progress = None;
        let event = match end {
            WorkEnd::Cancelled => return Ok(()),
            WorkEnd::Decided(Disclosure::Hindered(error)) => return Err(error.into()),
            WorkEnd::Decided(Disclosure::Cleared(cleared)) => {
                let held = cleared.held().clone();
                job.cleared = Some(Arc::new(cleared));
                Event::Computed(held)
            }
            WorkEnd::Decided(Disclosure::OutOfRange { exponents }) => Event::Overflowed { exponents },
            WorkEnd::Decided(Disclosure::Answered(answer)) => Event::Answered { answer },
            WorkEnd::Decided(Disclosure::Withheld(refusal)) | WorkEnd::Refused(refusal) => Event::Failed(refusal),
        };
        self.apply(id, event).await
    }

    async fn uploaded(&mut self, id: &TaskId, end: UploadEnd) -> Result<(), AgentError> {
        if let Some(job) = self.jobs.get_mut(id) {
            job.upload = None;
        }
        let event = match end {
            UploadEnd::Delivered => Event::Delivered,
            UploadEnd::Broke => Event::UploadBroke,
            UploadEnd::Refused(refusal) => Event::UploadRefused(refusal),
        };
        self.apply(id, event).await
    }

    async fn obey(&mut self, order: Order) -> Result<(), AgentError> {
        match order {
            Order::Reload => {
                if let Some(enrolment) = self.node.store().enrolment(&self.enrolment.researcher)? {
                    self.enrolment = enrolment;
                }
            }
            Order::Stop { task, refusal, stopped } => {
                let is_meant = |id: &TaskId| task.as_ref().is_none_or(|task| task == id);
                let ids: Vec<TaskId> = self.jobs.keys().filter(|id| is_meant(id)).cloned().collect();
                let (mut count, mut result) = (0, Ok(()));
                for id in ids {
                    let was_refused = self.is_refused(&id);
                    // Where the disk fails, all work is stopped all the same; then the agent ends.
                    self.node.halt().stop_task(id.clone());
                    result = result.and(self.apply(&id, Event::Stopped(refusal.clone())).await);
                    count += usize::from(!was_refused && self.is_refused(&id));
                }
                let _ = stopped.send(count);
                return result;
            }
        }
        Ok(())
    }

    fn is_refused(&self, id: &TaskId) -> bool {
        self.jobs.get(id).is_some_and(|job| matches!(job.participant.state(), State::Refused(_)))
    }

    async fn apply_to_all(&mut self, event: &Event) -> Result<(), AgentError> {
        let ids: Vec<TaskId> = self.jobs.keys().cloned().collect();
        for id in ids {
            self.apply(&id, event.clone()).await?;
        }
        Ok(())
    }

    fn progressed(&mut self, id: TaskId, progress: Progress) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.progress = Some(progress);
        let is_hidden = job.task.masking.is_some();
        if let Some(outbox) = &self.outbox {
            // Progress is shown and forgotten: a full queue may lose it.
            let _ = outbox.try_send(disclosure::progress(id, progress, is_hidden).into_message());
        }
    }

    /// Says what the agent is at.
    fn show(&self) {
        let mut running = None;
        let (mut waiting, mut open) = (0, 0);
        for (id, job) in &self.jobs {
            match job.participant.state() {
                State::Running => {
                    let Progress { done, total, .. } = job.progress.unwrap_or(Progress { done: 0, total: 0, loss: None });
                    let key = &job.task.key;
                    let (experiment, round) = (key.experiment.clone(), key.round);
                    running = Some(RunningTask { task: id.clone(), experiment, round, done, total });
                    open += 1;
                }
                State::Accepted => {
                    waiting += 1;
                    open += 1;
                }
                State::Computed(_) => open += 1,
                _ => {}
            }
        }
        self.handle.update(|state| {
            state.running = running;
            state.waiting = waiting;
            state.open = open;
        });
    }
}

/// Whether a task is refused for where it comes from, before it is asked what it is.
fn is_of_no_standing(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::SignatureInvalid | RefusalCode::OtherNode | RefusalCode::ResearcherNotAllowed)
}

impl Job {
    /// A task that came just now; `permit` is absent if the policy refused it.
    fn new(participant: Participant, task: Task, signature: Vec<u8>, permit: Option<Permit>) -> Self {
        Self { permit, is_in_journal: false, ..Self::restored(participant, task, signature) }
    }

    /// A task of the journal; the policy is asked again before it is worked on.
    fn restored(participant: Participant, task: Task, signature: Vec<u8>) -> Self {
        Self {
            participant,
            task: Arc::new(task),
            signature,
            is_in_journal: true,
            permit: None,
            work: None,
            cleared: None,
            upload: None,
            progress: None,
        }
    }
}
