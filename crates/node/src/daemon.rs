//! The hospital daemon: one agent for each enrolment, and the local socket. It listens on nothing else.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use component::blocking::Blocking;
use component::control::Connection;
use component::folder::{ComponentFolder, FolderError};
use component::user::user_name;
use protocol::{NodeId, ResearcherId, TaskId, Timestamp};
use serde_json::json;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use transport::grpc::client::GrpcLink;
use transport::socket::{bind_local, is_own_peer};

use crate::agent::{Aborting, Agent, AgentHandle, Order};
use crate::answer::{enrolled, failed, stopped_by_hospital, stopped_one, stops_tasks_of, tasks};
use crate::command::{Reply, Request};
use crate::enrolment::EnrolmentError;
use crate::handle::{self, NodeHandle, OpenError};
use crate::participant::State;
use crate::store::{Enrolment, StoreError, TaskRecord};
use crate::workshop::Workshop;

/// How long to wait before an agent whose disk or identity failed begins again.
const AGENT_PAUSE: Duration = Duration::from_secs(5);
/// Between two looks at what is old.
const TIDY_PAUSE: Duration = Duration::from_hours(1);
/// Tables that no task used for so long leave the memory.
const TABLES_KEPT: Duration = Duration::from_mins(1);

/// Why a daemon does not run.
#[derive(Debug, Error)]
pub enum DaemonError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the local socket cannot be opened: {0}")]
    Socket(std::io::Error),
    #[error("{0}")]
    Audit(#[from] protocol::Refusal),
}

/// Makes a new node: its folder, its id, its configuration.
pub fn create(root: &Path, name: &str) -> Result<NodeId, OpenError> {
    handle::create(root, name)
}

/// Runs the node in a folder until `shutdown` or a stop command. Running work goes on at the next start.
pub async fn run(folder: &ComponentFolder, shutdown: impl Future<Output = ()>) -> Result<(), DaemonError> {
    let _lock = folder.lock_for_daemon().await?;
    let node = Arc::new(NodeHandle::open(folder)?);
    node.tidy()?;
    let listener = bind_local(&folder.control_socket()).map_err(DaemonError::Socket)?;
    let trainings = node.config().trainings;
    let daemon = Arc::new(Daemon {
        workshop: Arc::new(Workshop::new(Blocking::Threads, trainings)),
        since: node.now(),
        agents: Mutex::default(),
        stop: Notify::new(),
        node,
    });
    let node = &daemon.node;
    node.audit("node.started", json!({ "version": env!("CARGO_PKG_VERSION"), "process": std::process::id() }))?;
    for enrolment in node.store().enrolments()? {
        daemon.start_agent(enrolment.researcher);
    }
    if node.config().minimum_samples == 0 {
        tracing::warn!(
            "`security.minimum_samples` is 0: researchers may compute on single rows; set it to what your rules ask"
        );
    }
    tracing::info!(id = %node.id(), name = node.name(), "the node runs");
    let caretaker = Aborting::spawn(daemon.clone().take_care());
    let mut serving = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            () = daemon.stop.notified() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    while serving.try_join_next().is_some() {}
                    serving.spawn(daemon.clone().serve(stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "a local command could not be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(caretaker);
    // What waits for threads is dropped before the runtime waits for the threads: so they learn that they are to end.
    serving.shutdown().await;
    let agents = std::mem::take(&mut *daemon.agents());
    for supervised in agents.into_values() {
        supervised.task.end().await;
    }
    if let Err(error) = node.store().forgive_all_starts() {
        tracing::warn!(%error, "work that was under way counts as failed");
    }
    node.audit("node.stopped", json!({ "process": std::process::id() }))?;
    // A new daemon replaces a socket that stays.
    let _ = std::fs::remove_file(folder.control_socket());
    tracing::info!("the node ends");
    Ok(())
}

/// What a daemon holds for one enrolment.
struct Supervised {
    /// Absent while the agent waits to begin again.
    agent: Option<AgentHandle>,
    trouble: String,
    task: Aborting,
}

/// What the threads look at that read data for a command. Set when it is dropped: nobody waits for the reply any more.
#[derive(Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Daemon {
    node: Arc<NodeHandle>,
    workshop: Arc<Workshop>,
    since: Timestamp,
    agents: Mutex<BTreeMap<ResearcherId, Supervised>>,
    stop: Notify,
}

impl Daemon {
    fn agents(&self) -> MutexGuard<'_, BTreeMap<ResearcherId, Supervised>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to deal with a researcher; an agent that does so already ends.
    fn start_agent(self: &Arc<Self>, researcher: ResearcherId) {
        let task = Aborting::spawn(self.clone().supervise(researcher.clone()));
        self.agents().insert(researcher, Supervised { agent: None, trouble: String::new(), task });
    }

    fn set_agent(&self, researcher: &ResearcherId, agent: Option<AgentHandle>, trouble: &str) {
        if let Some(supervised) = self.agents().get_mut(researcher) {
            supervised.agent = agent;
            trouble.clone_into(&mut supervised.trouble);
        }
    }

    /// Runs the agent of one enrolment again and again: after its disk failed, and with a renewed certificate.
    async fn supervise(self: Arc<Self>, researcher: ResearcherId) {
        loop {
            let trouble = match self.deal_with(&researcher).await {
                Ok(()) => continue,
                Err(trouble) => trouble,
            };
            tracing::error!(%researcher, %trouble, "the agent begins again");
            self.set_agent(&researcher, None, &trouble);
            tokio::time::sleep(AGENT_PAUSE).await;
        }
    }

    /// Returns when the certificate was renewed, fails with a sentence for people.
    async fn deal_with(&self, researcher: &ResearcherId) -> Result<(), String> {
        let node = &self.node;
        let enrolment = node.store().enrolment(researcher).map_err(|error| error.to_string())?;
        let enrolment = enrolment.ok_or_else(|| "the enrolment is gone".to_owned())?;
        let link = Arc::new(node.grpc_link(&enrolment).map_err(|error| error.to_string())?);
        let agent = Agent::new(node.clone(), enrolment.clone(), link.clone(), self.workshop.clone());
        let handle = agent.handle();
        self.set_agent(researcher, Some(handle.clone()), "");
        tokio::select! {
            ended = Box::pin(agent.run()) => ended.map_err(|error| error.to_string()),
            () = renew(node, &enrolment, &link, &handle) => Ok(()),
        }
    }

    async fn take_care(self: Arc<Self>) {
        let mut untidied = Duration::ZERO;
        loop {
            tokio::time::sleep(TABLES_KEPT / 2).await;
            self.workshop.tables().forget_unused(self.node.now(), TABLES_KEPT);
            untidied += TABLES_KEPT / 2;
            if untidied < TIDY_PAUSE {
                continue;
            }
            untidied = Duration::ZERO;
            if let Err(error) = self.node.tidy_records() {
                tracing::warn!(%error, "old tasks could not be tidied up");
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: UnixStream) {
        if !is_own_peer(&stream).unwrap_or(false) {
            tracing::warn!("another user's local command was refused");
            return;
        }
        let Ok(mut connection) = Connection::new(stream) else { return };
        let reply = match connection.receive::<Request>().await {
            Ok(Some(request)) => {
                let (user, stop) = (user_name(connection.peer_uid()), Stop::default());
                let answer = self.answer(request, &user, &stop.0);
                tokio::pin!(answer);
                tokio::select! {
                    biased;
                    reply = &mut answer => reply,
                    () = connection.closed() => {
                        // Reading data ends; what else was asked is done to its end.
                        stop.0.store(true, Ordering::Relaxed);
                        answer.await
                    }
                }
            }
            Ok(None) => return,
            Err(error) => failed(&error),
        };
        if let Err(error) = connection.send(&reply).await {
            tracing::debug!(%error, "nobody waited for an answer");
        }
    }

    async fn answer(self: &Arc<Self>, request: Request, user: &str, stop: &Arc<AtomicBool>) -> Reply {
        use Request::{Allow, CancelAllTasks, CancelTask, Pause};
        if matches!(request, Pause | CancelTask { .. } | CancelAllTasks | Allow { allowed: false, .. }) {
            return self.halt(request, user).await;
        }
        if let Err(refusal) = self.node.audit_command(&request, user) {
            return failed(&refusal);
        }
        match request {
            Request::Stop => {
                self.stop.notify_one();
                Reply::Done { sentence: "the daemon ends".to_owned() }
            }
            Request::Enrol { token } => self.deal_after(self.node.enrol(&token).await),
            Request::Register { answer, address, replaces } => {
                self.deal_after(self.node.enrol_by_file(&answer, address.as_deref(), replaces))
            }
            Request::Forget { ref researcher } => {
                let researcher = researcher.clone();
                self.forget(request, researcher).await
            }
            request => self.answer_from_folder(request, stop).await,
        }
    }

    /// Stops work first and writes that down afterwards: a full disk does not keep work going. What could not be written down
    /// is told.
    async fn halt(self: &Arc<Self>, request: Request, user: &str) -> Reply {
        let (researcher, task) = match &request {
            Request::Allow { researcher, .. } => (Some(researcher), None),
            Request::CancelTask { task } => (None, Some(task)),
            _ => (None, None),
        };
        if let Some(researcher) = researcher {
            self.node.halt().allow(researcher, false);
        }
        if matches!(request, Request::Pause) {
            self.node.halt().set_paused(true);
        }
        let count = self.stop_tasks(researcher, task.cloned()).await;
        let audited = self.node.audit_command(&request, user);
        let reply = match &request {
            Request::CancelTask { task } => stopped_one(task, count),
            Request::CancelAllTasks => Reply::Done { sentence: format!("stopped {}", tasks(count)) },
            _ => self.answer_now(request.clone(), &Arc::default()).await,
        };
        if let Some(researcher) = researcher {
            self.order(Some(researcher), || Order::Reload).await;
        }
        let is_open = |record: &TaskRecord| matches!(record.state, State::Accepted | State::Computed(_));
        let is_unwritten = |record: &TaskRecord| is_open(record) && self.node.halt().has_stopped(&record.task.id);
        let reply = match self.node.store().tasks(false) {
            Ok(records) if !records.iter().any(is_unwritten) => reply,
            Ok(_) => Reply::Failed { sentence: "the journal does not have it; give the command again".to_owned() },
            Err(error) => failed(&error),
        };
        let sentence = match (audited, reply, &request) {
            (Ok(()), Reply::Done { .. }, Request::Pause) if count > 0 => {
                return Reply::Done { sentence: format!("paused; stopped {}", tasks(count)) };
            }
            (Ok(()), reply @ Reply::Failed { .. }, Request::CancelTask { .. }) if count == 0 => return reply,
            (_, Reply::Failed { sentence }, _) => sentence,
            (Err(refusal), ..) => refusal.sentence,
            (Ok(()), reply, _) => return reply,
        };
        Reply::Failed {
            sentence: format!("stopped {} at once, but not all could be written down: {sentence}", tasks(count)),
        }
    }

    /// Begins to deal with the researcher of a new enrolment.
    fn deal_after(self: &Arc<Self>, enrolment: Result<Enrolment, EnrolmentError>) -> Reply {
        let reply = enrolled(&enrolment);
        if let Ok(enrolment) = enrolment {
            self.start_agent(enrolment.researcher);
        }
        reply
    }

    /// Drops an enrolment without an agent that works on it. If it cannot be dropped, its agent begins again.
    async fn forget(self: &Arc<Self>, request: Request, researcher: ResearcherId) -> Reply {
        let had_agent = self.agents().remove(&researcher).is_some();
        let reply = self.answer_now(request, &Arc::default()).await;
        let is_gone = || matches!(self.node.store().enrolment(&researcher), Ok(None));
        if had_agent && matches!(reply, Reply::Failed { .. }) && !is_gone() {
            self.start_agent(researcher);
        }
        reply
    }

    /// Lets the folder's own functions answer, on a thread of their own.
    async fn answer_now(&self, request: Request, stop: &Arc<AtomicBool>) -> Reply {
        let (node, stop) = (self.node.clone(), stop.clone());
        let reply = self.workshop.run(move || node.answer_now(request, &stop)).await;
        reply.unwrap_or_else(|refusal| failed(&refusal))
    }

    /// Lets the folder's own functions answer, then tells the agents or adds what they know.
    async fn answer_from_folder(self: &Arc<Self>, request: Request, stop: &Arc<AtomicBool>) -> Reply {
        let reply = self.answer_now(request.clone(), stop).await;
        if matches!(reply, Reply::Failed { .. }) {
            return reply;
        }
        if let Some(datasets) = stops_tasks_of(&request) {
            match self.node.store().tasks(false) {
                Ok(records) => {
                    for record in records.into_iter().filter(|record| datasets.is_of(&record.task.dataset)) {
                        self.stop_tasks(Some(&record.researcher), Some(record.task.id)).await;
                    }
                }
                Err(error) => return failed(&error),
            }
        }
        match request {
            Request::Allow { researcher, .. } => {
                self.order(Some(&researcher), || Order::Reload).await;
                reply
            }
            _ => self.with_agents(reply),
        }
    }

    fn handles(&self, researcher: Option<&ResearcherId>) -> Vec<AgentHandle> {
        let agents = self.agents();
        let meant = agents.iter().filter(|(id, _)| researcher.is_none_or(|researcher| researcher == *id));
        meant.filter_map(|(_, supervised)| supervised.agent.clone()).collect()
    }

    async fn order(&self, researcher: Option<&ResearcherId>, order: impl Fn() -> Order) {
        for agent in self.handles(researcher) {
            agent.order(order()).await;
        }
    }

    /// Stops tasks at the agents; says how many.
    async fn stop_tasks(&self, researcher: Option<&ResearcherId>, task: Option<TaskId>) -> usize {
        if let Some(task) = &task {
            // Its agent may be waiting for the disk.
            self.node.halt().stop_task(task.clone());
        }
        let mut count = 0;
        for agent in self.handles(researcher) {
            let (stopped, answer) = oneshot::channel();
            agent.order(Order::Stop { task: task.clone(), refusal: stopped_by_hospital(), stopped }).await;
            count += answer.await.unwrap_or(0);
        }
        count
    }

    /// Adds to an answer what only the agents know.
    fn with_agents(&self, reply: Reply) -> Reply {
        let agents = self.agents();
        let state_of = |researcher: &ResearcherId| match agents.get(researcher) {
            Some(Supervised { agent: Some(agent), .. }) => agent.state().connection,
            Some(Supervised { trouble, .. }) if !trouble.is_empty() => trouble.clone(),
            _ => "starting".to_owned(),
        };
        let running = || agents.values().filter_map(|supervised| supervised.agent.as_ref()?.state().running);
        match reply {
            Reply::Status { mut status } => {
                status.process = Some(std::process::id());
                status.since = Some(self.since.to_string());
                status.running = running().next();
                let is_busy = u64::from(status.running.is_some());
                status.waiting = status.waiting.saturating_sub(is_busy);
                for row in status.researchers.iter_mut().filter(|row| row.allowed) {
                    row.state = state_of(&row.researcher);
                }
                Reply::Status { status }
            }
            Reply::Enrolments { mut rows } => {
                for row in rows.iter_mut().filter(|row| row.allowed) {
                    row.state = state_of(&row.researcher);
                }
                Reply::Enrolments { rows }
            }
            Reply::Tasks { mut rows } => {
                for task in running() {
                    if let Some(row) = rows.iter_mut().find(|row| row.task == task.task) {
                        "running".clone_into(&mut row.state);
                    }
                }
                Reply::Tasks { rows }
            }
            reply => reply,
        }
    }
}

/// Waits until the certificate is due, renews it, and returns once no work is under way that a new connection would interrupt.
async fn renew(node: &NodeHandle, enrolment: &Enrolment, link: &GrpcLink, agent: &AgentHandle) {
    /// The longest sleep: clocks are set and machines suspended.
    const LONGEST: Duration = Duration::from_hours(1);
    loop {
        let (now, certificate) = (node.now(), &enrolment.certificate);
        let life = certificate.not_after().since(certificate.not_before());
        let due = certificate.not_before().saturating_add(life / 3 * 2);
        if !certificate.is_due(now) {
            tokio::time::sleep(due.since(now).clamp(Duration::from_secs(1), LONGEST)).await;
            continue;
        }
        if agent.state().connection != "connected" {
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        }
        match node.renew(enrolment, link).await {
            Ok(renewed) if !renewed.certificate.is_due(node.now()) => break,
            // At once again would be in vain: by this machine's clock it is not valid yet, or nearly at its end.
            Ok(_) => tracing::warn!("the renewed certificate is due again: check this machine's clock"),
            Err(error) => tracing::warn!(%error, "the certificate is not renewed yet"),
        }
        tokio::time::sleep((life / 100).clamp(Duration::from_secs(1), LONGEST)).await;
    }
    while agent.state().open > 0 && !enrolment.certificate.is_expired(node.now()) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
