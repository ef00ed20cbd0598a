//! The work of one task, beside the loop: wait for a turn, fetch the model, compute, ask the disclosure gate.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::{BlobRef, Refusal, RefusalCode, Tensors, UploadHeader, Work};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;
use transport::blob::PartialBlob;
use transport::link::{Link, LinkError};
use transport::retry::Backoff;

use super::{Incoming, UploadEnd, WorkEnd};
use crate::disclosure::{Cleared, Disclosure, release};
use crate::executor::{Observer, WorkError, execute};
use crate::handle::NodeHandle;
use crate::policy::Permit;
use crate::secure::{self, DeskError};
use crate::workshop::Workshop;

/// How often a task may be started without coming to anything before the node gives it up: perhaps it is what ended the node.
const MOST_STARTS: u64 = 3;
/// How often a blob may come damaged.
const MOST_DAMAGED: u32 = 3;

/// A task of the runtime that ends when this is dropped.
pub(crate) struct Aborting(JoinHandle<()>);

impl Aborting {
    pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(future))
    }

    /// Ends the task and waits until all that it holds is dropped.
    pub(crate) async fn end(mut self) {
        self.0.abort();
        // Aborted, ended before, or panicked: it is over.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks the threads and the futures of one work to end.
#[derive(Default)]
struct Stop {
    flag: Arc<AtomicBool>,
    notify: Notify,
}

/// Work under way. Dropping it ends the work soon.
pub(super) struct Running {
    stop: Arc<Stop>,
    _task: Aborting,
}

impl Running {
    pub(super) fn spawn<L: Link>(
        node: Arc<NodeHandle>,
        workshop: Arc<Workshop>,
        link: Arc<L>,
        desk: Arc<Semaphore>,
        permit: Permit,
        queue: mpsc::Sender<Incoming>,
    ) -> Self {
        let stop = Arc::new(Stop::default());
        let stopped = stop.clone();
        let task = Aborting::spawn(async move {
            let id = permit.task().id.clone();
            let end = work(node, workshop, (link, desk), permit, &stopped, queue.clone()).await;
            let _ = queue.send(Incoming::Worked(id, end)).await;
        });
        Self { stop, _task: task }
    }

    /// Ends the work; that it ended is an event still.
    pub(super) fn stop(&self) {
        self.stop.flag.store(true, Ordering::Relaxed);
        self.stop.notify.notify_one();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn work<L: Link>(
    node: Arc<NodeHandle>,
    workshop: Arc<Workshop>,
    (link, desk): (Arc<L>, Arc<Semaphore>),
    permit: Permit,
    stop: &Stop,
    queue: mpsc::Sender<Incoming>,
) -> WorkEnd {
    let task = permit.task();
    let begin = async {
        // The model comes first: a researcher that does not send it holds up nobody else. One model of each researcher waits.
        let (_place, model) = match task.model {
            Some(blob) => {
                let place = desk.acquire().await.ok();
                (place, Some(download(&node, link.as_ref(), blob).await.map_err(WorkEnd::Refused)?))
            }
            None => (None, None),
        };
        // Before its turn: it waits for others.
        secure::direct::negotiate(&node, &workshop, &permit).await?;
        let turn = workshop.turn(&task.work).await;
        let _ = queue.send(Incoming::TurnCame(task.id.clone())).await;
        workshop.pass_time().await;
        Ok::<_, WorkEnd>((turn, model))
    };
    let begun = tokio::select! {
        biased;
        () = stop.notify.notified() => return WorkEnd::Cancelled,
        begun = begin => begun,
    };
    let (turn, model) = match begun {
        Ok(begun) => begun,
        Err(end) => return end,
    };
    let id = task.id.clone();
    let progress = move |progress| {
        // Progress is shown and forgotten: a full queue may lose it.
        let _ = queue.try_send(Incoming::Progressed(id.clone(), progress));
    };
    let cancel = stop.flag.clone();
    let observer = Observer { cancel: cancel.clone(), progress: Box::new(progress) };
    let place = workshop.clone();
    let end = place.run(move || {
        let _turn = turn;
        let (researcher, id) = (permit.researcher().clone(), permit.task().id.clone());
        match node.store().begin_task(&researcher, &id) {
            Ok(starts) if starts > MOST_STARTS => {
                return WorkEnd::Refused(Refusal::new(RefusalCode::Internal, "the node failed three times at this task"));
            }
            Ok(_) => {}
            Err(error) => return WorkEnd::Decided(Disclosure::Hindered(std::io::Error::other(error))),
        }
        if matches!(permit.task().work, Work::Secure { .. }) {
            let end = secure::answer(&node, &permit).map_or_else(WorkEnd::from, |answer| {
                permit.into_reservation().commit();
                WorkEnd::Decided(Disclosure::Answered(answer))
            });
            return end;
        }
        // Before the work: who cannot hide its contribution need not compute it.
        let masks = match secure::masks(&node, &permit) {
            Ok(masks) => masks,
            Err(error) => return error.into(),
        };
        let result = execute(&node, workshop.tables(), &permit, model, observer);
        if matches!(result, Err(WorkError::Cancelled | WorkError::Hindered(_)))
            && let Err(error) = node.store().forgive_starts(&researcher, &id)
        {
            tracing::warn!(%error, task = %id, "work that was interrupted counts as failed");
        }
        if cancel.load(Ordering::Relaxed) {
            return WorkEnd::Cancelled;
        }
        match result {
            Ok(outcome) => WorkEnd::Decided(release(&node, permit, &outcome, masks.as_ref())),
            Err(WorkError::Refused(refusal)) => {
                if let Some(Err(error)) = masks.map(|masks| secure::give_back(&node, &permit, &masks)) {
                    tracing::warn!(?error, "the masks of refused work serve no other one");
                }
                WorkEnd::Refused(refusal)
            }
            Err(WorkError::Cancelled) => WorkEnd::Cancelled,
            Err(WorkError::Hindered(error)) => WorkEnd::Decided(Disclosure::Hindered(error)),
        }
    });
    end.await.unwrap_or_else(WorkEnd::Refused)
}

impl From<DeskError> for WorkEnd {
    fn from(error: DeskError) -> Self {
        match error {
            DeskError::Refused(refusal) => Self::Refused(refusal),
            DeskError::Hindered(error) => Self::Decided(Disclosure::Hindered(error)),
        }
    }
}

/// Whether a refused transfer will be refused again. Otherwise the researcher is in trouble, or the whole connection is.
fn is_final(refusal: &Refusal) -> bool {
    use RefusalCode::{Internal, NodeRevoked, NotEnrolled, QuotaExceeded, Unavailable};
    !matches!(refusal.code, Internal | NodeRevoked | NotEnrolled | QuotaExceeded | Unavailable)
}

/// Fetches a model, however often the connection breaks meanwhile.
async fn download<L: Link>(node: &NodeHandle, link: &L, blob: BlobRef) -> Result<Tensors, Refusal> {
    let mut damaged = 0;
    let mut backoff = Backoff::transfer();
    let mut partial = PartialBlob::of_tensors(blob);
    loop {
        let before = partial.have();
        match link.download(&mut partial).await {
            Ok(()) => match partial.finish_tensors() {
                Ok(model) => return model.map_err(|error| Refusal::new(RefusalCode::PlanInvalid, error.to_string())),
                Err(error) => {
                    damaged += 1;
                    if damaged >= MOST_DAMAGED {
                        return Err(Refusal::new(RefusalCode::Damaged, "the model came damaged again and again"));
                    }
                    tracing::warn!(%error, "a download begins anew");
                    partial = PartialBlob::of_tensors(blob);
                }
            },
            Err(LinkError::Refused(refusal)) if is_final(&refusal) => return Err(refusal),
            Err(error) => tracing::debug!(%error, "a download broke"),
        }
        if partial.have() > before {
            backoff.reset();
        }
        let pause = node.draw(|rng| backoff.wait(rng));
        tokio::time::sleep(pause).await;
    }
}

/// Brings a contribution, once.
pub(super) async fn upload<L: Link>(link: &L, header: &UploadHeader, cleared: &Cleared) -> UploadEnd {
    match link.upload_hashed(header, cleared.path(), cleared.take_digests()).await {
        Ok(()) => UploadEnd::Delivered,
        Err(LinkError::Refused(refusal)) if is_final(&refusal) => UploadEnd::Refused(refusal),
        Err(error) => {
            tracing::debug!(%error, "an upload broke");
            UploadEnd::Broke
        }
    }
}
