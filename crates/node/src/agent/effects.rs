//! Carrying out a participant's actions.

use std::sync::Arc;
use std::time::Duration;

use component::database::Durability;
use protocol::{NodeMessage, TaskId};
use transport::link::Link;

use super::work::{self, Aborting, Running};
use super::{AgentError, Incoming, Loop, UploadEnd};
use crate::disclosure;
use crate::executor::checkpoint_path;
use crate::participant::{Action, Event, State};
use crate::store::NewTask;

/// How long a message may wait to be sent; then the connection counts as broken.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

impl<L: Link> Loop<L> {
    /// Lets a participant take an event, and does what it says.
    pub(super) async fn apply(&mut self, id: &TaskId, event: Event) -> Result<(), AgentError> {
        let Some(job) = self.jobs.get_mut(id) else { return Ok(()) };
        let now = self.node.now();
        let actions = self.node.draw(|rng| job.participant.apply(event, now, rng));
        let mut next = None;
        for action in actions {
            match action {
                Action::Store { lazy } => self.store(id, lazy)?,
                Action::Say(message) => self.say(message).await,
                Action::Compute => next = self.compute(id),
                Action::StopComputing => {
                    if let Some(work) = self.jobs.get(id).and_then(|job| job.work.as_ref()) {
                        work.stop();
                    }
                }
                Action::Upload { after } => self.upload(id, after),
                Action::StopUpload => {
                    if let Some(job) = self.jobs.get_mut(id) {
                        job.upload = None;
                    }
                }
                Action::RemoveFiles => self.remove_files(id),
            }
        }
        if self.jobs.get(id).is_some_and(|job| *job.participant.state() == State::Settled) {
            self.jobs.remove(id);
        }
        match next {
            Some(event) => Box::pin(self.apply(id, event)).await,
            None => Ok(()),
        }
    }

    fn store(&mut self, id: &TaskId, lazy: bool) -> Result<(), AgentError> {
        let Some(job) = self.jobs.get_mut(id) else { return Ok(()) };
        let researcher = &self.enrolment.researcher;
        let durability = if lazy { Durability::Lazy } else { Durability::Durable };
        if job.is_in_journal {
            let content = job.cleared.as_ref().and_then(|cleared| cleared.content());
            self.node.store().update_task(researcher, &job.participant, content, durability)?;
        } else {
            let new = NewTask { researcher, task: &job.task, signature: &job.signature };
            self.node.store().add_task(&new, &job.participant, durability)?;
            job.is_in_journal = true;
        }
        Ok(())
    }

    pub(super) async fn say(&mut self, message: NodeMessage) {
        let Some(outbox) = &self.outbox else { return };
        let sent = tokio::time::timeout(LONGEST_WAIT, outbox.send(message)).await;
        if !matches!(sent, Ok(Ok(()))) {
            // Dropping the sender ends the session; all that matters is said again after the next connection.
            self.outbox = None;
        }
    }

    /// Begins the work of a task. After a restart the policy is asked again; its refusal is the next event.
    fn compute(&mut self, id: &TaskId) -> Option<Event> {
        let job = self.jobs.get_mut(id)?;
        let permit = match job.permit.take() {
            Some(permit) => permit,
            None => match self.node.policy().admit(&self.node, &self.enrolment, &job.task, &job.signature) {
                Ok(permit) => permit,
                Err(refusal) => return Some(Event::Failed(refusal)),
            },
        };
        let queue = self.handle.incoming.clone();
        let (node, workshop, link) = (self.node.clone(), self.workshop.clone(), self.link.clone());
        job.work = Some(Running::spawn(node, workshop, link, self.desk.clone(), permit, queue));
        None
    }

    fn upload(&mut self, id: &TaskId, after: Duration) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let Some(header) = job.participant.upload_header() else { return };
        if job.upload.is_some() {
            return;
        }
        let (State::Computed(held) | State::Delivered(held)) = job.participant.state() else { return };
        let (held, cleared) = (held.clone(), job.cleared.clone());
        let (node, link, workshop) = (self.node.clone(), self.link.clone(), self.workshop.clone());
        let (researcher, id, queue) = (self.enrolment.researcher.clone(), id.clone(), self.handle.incoming.clone());
        job.upload = Some(Aborting::spawn(async move {
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            let cleared = if let Some(cleared) = cleared {
                Ok(cleared)
            } else {
                let task = id.clone();
                let restored =
                    workshop.run(move || disclosure::restore(&node, &researcher, &task, &held).map(Arc::new)).await;
                restored.and_then(|restored| restored)
            };
            let end = match cleared {
                Ok(cleared) => work::upload(link.as_ref(), &header, &cleared).await,
                Err(refusal) => UploadEnd::Refused(refusal),
            };
            let _ = queue.send(Incoming::Uploaded(id, end)).await;
        }));
    }

    /// Removes what a settled task left, beside the loop: a large file takes its time. What a crash leaves is swept at the
    /// next start.
    fn remove_files(&mut self, id: &TaskId) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.cleared = None;
        let (node, researcher, id) = (self.node.clone(), self.enrolment.researcher.clone(), id.clone());
        let checkpoint = checkpoint_path(&self.node, &researcher, &job.task);
        let workshop = self.workshop.clone();
        tokio::spawn(async move {
            let removed = workshop.run(move || {
                if let Err(error) = node.spool().remove(&researcher, &id) {
                    tracing::warn!(%error, task = %id, "a contribution that is not needed any more cannot be removed");
                }
                if std::fs::remove_file(&checkpoint).is_ok()
                    && let Some(folder) = checkpoint.parent()
                {
                    // It stays while other tasks of the experiment have checkpoints.
                    let _ = std::fs::remove_dir(folder);
                }
            });
            // A panic has been logged.
            let _ = removed.await;
        });
    }
}
