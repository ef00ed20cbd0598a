//! What service, driver and local commands share.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use component::audit::AuditLog;
use component::blocking::Blocking;
use protocol::{NodeId, Refusal, RefusalCode, ResearcherId, TaskId};
use secagg::joye_libert::Group;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use transport::clock::Clock;
use transport::identity::SecretKey;

use crate::board::Board;
use crate::driver::Mail;
use crate::experiment::Experiment;
use crate::files::Files;
use crate::negotiation::Direct;
use crate::sessions::Sessions;
use crate::store::{Store, StoreError};

pub(crate) struct Desk {
    pub(crate) researcher: ResearcherId,
    pub(crate) store: Arc<Mutex<Store>>,
    pub(crate) files: Files,
    pub(crate) audit: AuditLog,
    pub(crate) task_key: SecretKey,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) blocking: Blocking,
    pub(crate) sessions: Sessions,
    pub(crate) board: Arc<Board>,
    pub(crate) spool_quota_bytes: u64,
    /// What Joye-Libert computes in.
    pub(crate) modulus: Group,
    /// Absent where this researcher has no network of its own.
    pub(crate) direct: Option<Direct>,
    pub(crate) mailbox: mpsc::Sender<Mail>,
}

impl Desk {
    /// Uses the store where waiting for the disk holds up nobody.
    pub(crate) async fn store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.store.clone();
        self.blocking.run(move || work(&mut store.lock().unwrap_or_else(PoisonError::into_inner))).await
    }

    /// Uses the store at once, for a short read.
    pub(crate) fn store_now<T>(&self, work: impl FnOnce(&mut Store) -> Result<T, StoreError>) -> Result<T, StoreError> {
        work(&mut self.store.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells the driver something. Without a driver the daemon is ending, and what is lost is said again.
    pub(crate) async fn mail(&self, mail: Mail) {
        let _ = self.mailbox.send(mail).await;
    }

    /// Removes files that nobody needs; what cannot be removed now is at the next start.
    pub(crate) fn remove_files(&self, paths: Vec<PathBuf>) {
        if paths.is_empty() {
            return;
        }
        let blocking = self.blocking;
        tokio::spawn(async move {
            blocking.run(move || paths.iter().for_each(|path| drop(std::fs::remove_file(path)))).await;
        });
    }

    pub(crate) fn remove_contribution(&self, task: &TaskId) {
        self.remove_files(vec![self.files.contribution(task)]);
    }

    // The audit log.

    /// Writes a line. A log that cannot be written is reported, and stops nothing: refusing work would help nobody.
    pub(crate) fn note<const N: usize>(&self, event: &str, facts: [(&str, Value); N]) {
        let facts: Map<String, Value> = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        if let Err(error) = self.audit.record(self.clock.now(), event, facts) {
            tracing::error!(%error, event, "the audit log cannot be written");
        }
    }

    pub(crate) fn note_refusal(&self, node: &NodeId, task: &TaskId, refusal: &Refusal) {
        tracing::warn!(%node, %task, %refusal, "a node refused a task");
        self.note(
            "task.refused",
            [
                ("node", node.as_str().into()),
                ("task", task.as_str().into()),
                ("code", refusal.code.name().into()),
                ("sentence", refusal.sentence.as_str().into()),
            ],
        );
    }

    pub(crate) fn note_end(&self, experiment: &Experiment) {
        let reason = experiment.end().and_then(|(_, reason)| reason);
        let (id, state) = (experiment.id().as_str(), experiment.state().name());
        tracing::info!(experiment = id, state, reason = reason.as_deref().unwrap_or_default(), "experiment over");
        self.note(
            "experiment.ended",
            [("experiment", id.into()), ("state", state.into()), ("reason", reason.map_or(Value::Null, Value::from))],
        );
    }

    /// Refuses a contribution that nobody waits for any more, and logs that.
    pub(crate) fn late(&self, node: &NodeId, task: &TaskId) -> Refusal {
        tracing::info!(%node, %task, "a late contribution is refused");
        self.note("contribution.late", [("node", node.as_str().into()), ("task", task.as_str().into())]);
        Refusal::new(RefusalCode::Late, "this task is over; its contribution is not needed any more")
    }
}
