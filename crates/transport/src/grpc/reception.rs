//! A researcher receives a contribution: credits out of one budget, chunks into a file, its digest checked at the end.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocol::{NodeId, Refusal, RefusalCode, TaskId, UploadHeader};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, mpsc, watch};
use tokio::time::timeout;
use tonic::Status;

use super::credits::{Credits, Share};
use super::messages::Receiving;
use super::status;
use crate::blob::{BlobError, CHUNK_BYTES, Chunk, CompleteFile, PartialFile, Pieces};
use crate::convert::bulk::{self, UploadAnswer, UploadStep};
use crate::wire;

/// A node that has credit and sends nothing for so long gives it back.
const CHUNK_TIMEOUT: Duration = Duration::from_mins(1);
/// Chunks that are written in one go, if they are there.
const CHUNKS_AT_ONCE: usize = 4;

/// The receptions under way. A second one of the same contribution ends the first: after a broken connection the old one may
/// not have noticed yet, and two must not write to one file.
#[derive(Clone, Default)]
pub(super) struct Receptions {
    seats: Arc<Mutex<Seats>>,
}

type Seats = HashMap<(NodeId, TaskId), Arc<Seat>>;

/// Where one contribution is received.
#[derive(Default)]
struct Seat {
    /// Counts who asked for it; the last one gets it.
    newest: watch::Sender<u64>,
    taken: Arc<tokio::sync::Mutex<()>>,
}

/// One reception's right to go on. The next one begins when all clones are gone.
#[derive(Clone)]
pub(super) struct Turn {
    seat: Arc<Seat>,
    number: u64,
    _taken: Arc<OwnedMutexGuard<()>>,
}

/// A file and the right to write to it. They stay together, also in a thread that nobody waits for any more.
struct Spool {
    file: PartialFile,
    turn: Turn,
}

impl Receptions {
    /// Takes over from an earlier reception of the same contribution, which has ended when this returns.
    pub(super) async fn begin(&self, node: &NodeId, task: &TaskId) -> Turn {
        let seat = {
            let mut seats = self.seats.lock().expect("nobody panics with the lock held");
            seats.retain(|_, seat| Arc::strong_count(seat) > 1);
            seats.entry((node.clone(), task.clone())).or_default().clone()
        };
        let mut number = 0;
        seat.newest.send_modify(|newest| {
            *newest += 1;
            number = *newest;
        });
        let taken = seat.taken.clone().lock_owned().await;
        Turn { seat, number, _taken: Arc::new(taken) }
    }
}

impl Turn {
    async fn over(&self) -> Status {
        // An error cannot be: the seat holds the sender.
        let _ = self.seat.newest.subscribe().wait_for(|newest| *newest != self.number).await;
        status::broken("a newer upload of the same contribution took over")
    }
}

type Answers = mpsc::Sender<Result<wire::UploadDown, Status>>;

fn gone() -> Status {
    status::broken("the node is gone")
}

async fn answer(answers: &Answers, answer: UploadAnswer) -> Result<(), Status> {
    answers.send(Ok(bulk::upload_answer_to_wire(answer))).await.map_err(|_| gone())
}

/// Receives what is missing in `file`, and checks the whole.
pub(super) async fn receive(
    header: &UploadHeader,
    file: PartialFile,
    steps: &mut Receiving,
    answers: &Answers,
    credits: &Credits,
    turn: &Turn,
) -> Result<CompleteFile, Status> {
    let began_at = file.have();
    answer(answers, UploadAnswer::Resume(began_at)).await?;
    let spool = Spool { file, turn: turn.clone() };
    let spool = tokio::select! {
        spool = fill(header.bytes, spool, steps, answers, credits.share()) => spool?,
        status = turn.over() => return Err(status),
    };
    let finish = move || {
        let finished = spool.file.finish();
        drop(spool.turn);
        finished
    };
    blocking(finish).await.map_err(|error| match error {
        // What lay here from before may have been the damaged part; the file is gone, so the node sends all of it again.
        BlobError::Digest if began_at > 0 => status::broken("the whole is damaged: it is to be sent anew"),
        BlobError::Digest => {
            status::from_refusal(&Refusal::new(RefusalCode::Damaged, "the contribution does not fit its digest"))
        }
        error => stored_badly(&error),
    })
}

/// Bytes that were allowed to come, one permit for each chunk.
struct Granted {
    permits: VecDeque<OwnedSemaphorePermit>,
    bytes: u64,
}

async fn fill(
    total: u64,
    mut spool: Spool,
    steps: &mut Receiving,
    answers: &Answers,
    share: Share,
) -> Result<Spool, Status> {
    let mut granted = Granted { permits: VecDeque::new(), bytes: 0 };
    // Kept from turn to turn, so that the place in the queue is kept.
    let mut waiting: Option<Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send>>> = None;
    while !spool.file.is_complete() {
        let ungranted = total - spool.file.have() - granted.bytes;
        let may_ask = ungranted > 0 && granted.permits.len() <= share.ahead() / 2;
        if may_ask && waiting.is_none() {
            waiting = Some(Box::pin(Share::permit(share.permits())));
        }
        tokio::select! {
            permit = async { waiting.as_mut().expect("guarded").await }, if waiting.is_some() => {
                waiting = None;
                let before = granted.bytes;
                granted.add(permit, total - spool.file.have());
                // What is free now comes along: one answer for several chunks.
                while granted.permits.len() < share.ahead() && granted.bytes < total - spool.file.have() {
                    let Some(permit) = share.permit_now() else { break };
                    granted.add(permit, total - spool.file.have());
                }
                answer(answers, UploadAnswer::Credit(granted.bytes - before)).await?;
            }
            step = timeout(CHUNK_TIMEOUT, steps.next()), if !granted.permits.is_empty() => {
                let step = step.map_err(|_| status::broken("no chunk came although there was credit"))?;
                let mut chunks = vec![granted.take(chunk(step)?, total)?];
                // What has come already is written in one go.
                let mut failed = None;
                while chunks.len() < CHUNKS_AT_ONCE && !granted.permits.is_empty() && failed.is_none() {
                    let Some(step) = steps.next_if_there().await else { break };
                    match chunk(step).and_then(|chunk| granted.take(chunk, total)) {
                        Ok(granting) => chunks.push(granting),
                        Err(status) => failed = Some(status),
                    }
                }
                spool = append(spool, chunks).await?;
                if let Some(status) = failed {
                    return Err(status);
                }
            }
        }
    }
    Ok(spool)
}

impl Granted {
    fn add(&mut self, permit: OwnedSemaphorePermit, missing: u64) {
        self.permits.push_back(permit);
        self.bytes += (missing - self.bytes).min(CHUNK_BYTES as u64);
    }

    /// Takes a chunk that had credit, with its permit.
    fn take(&mut self, chunk: Chunk, total: u64) -> Result<Granting, Status> {
        self.bytes = self.bytes.checked_sub(chunk.bytes.len() as u64).ok_or_else(without_credit)?;
        // Only the last chunk may be short, so that permits and chunks stay one to one.
        if chunk.bytes.len() != CHUNK_BYTES && chunk.offset + chunk.bytes.len() as u64 != total {
            return Err(nonsense("a chunk is short"));
        }
        Ok((chunk, self.permits.pop_front()))
    }
}

fn nonsense(sentence: &str) -> Status {
    status::from_refusal(&Refusal::new(RefusalCode::Malformed, sentence))
}

fn without_credit() -> Status {
    nonsense("a chunk came without credit")
}

fn chunk(step: Result<Option<Pieces>, Status>) -> Result<Chunk, Status> {
    let step = step.map_err(|error| match status::nonsense(&error) {
        Some(refusal) => status::from_refusal(&refusal),
        None => gone(),
    })?;
    match bulk::upload_message(step.ok_or_else(gone)?) {
        Ok(UploadStep::Chunk(chunk)) => Ok(chunk),
        Ok(UploadStep::Header(_)) => Err(nonsense("an upload has one header")),
        Err(error) => Err(status::from_refusal(&error.into())),
    }
}

type Granting = (Chunk, Option<OwnedSemaphorePermit>);

async fn append(mut spool: Spool, chunks: Vec<Granting>) -> Result<Spool, Status> {
    let append = move || {
        for (chunk, permit) in chunks {
            spool.file.append(&chunk)?;
            // Its memory is free again.
            drop((chunk, permit));
        }
        Ok(spool)
    };
    blocking(append).await.map_err(|error| match error {
        BlobError::Chunk | BlobError::Place { .. } => status::damaged(&error.to_string()),
        error => stored_badly(&error),
    })
}

fn stored_badly(error: &BlobError) -> Status {
    match error {
        BlobError::Io(error) => {
            tracing::error!(%error, "a contribution cannot be stored");
            status::broken("the researcher cannot store it now")
        }
        _ => nonsense("the contribution has another length than announced"),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, BlobError> + Send + 'static) -> Result<T, BlobError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(BlobError::Io(std::io::Error::other(error))))
}
