//! A researcher sends a blob: chunks are read as the node takes them, and once for nodes that take them at the same time.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use protocol::{BlobRef, Digest, Refusal, RefusalCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::Stream;
use tonic::Status;

use super::buffers::{Buffers, next_chunk};
use super::status;
use crate::blob::{BlobError, CHUNK_BYTES, Chunk, ChunkReader, Pieces};
use crate::convert::bulk::{self, Wrapping};

/// Chunks in memory on their way to all nodes together: 4 MiB.
const DOWNLOAD_CHUNKS: usize = 16;
/// The last chunks that were read, for other nodes: 2 MiB.
const RECENT_CHUNKS: usize = 8;
/// The first chunks of a blob whose digests are kept: those of 1 GiB.
const KNOWN_CHUNKS: usize = 4096;
/// A node that takes nothing keeps its chunk; after this time others go on without regard to the budget.
const PATIENCE: Duration = Duration::from_millis(250);

/// What downloads may use at once.
#[derive(Clone)]
pub(super) struct Budget {
    permits: Arc<Semaphore>,
    buffers: Buffers,
    /// Gone when no download is under way.
    recent: Arc<Mutex<Weak<Recent>>>,
    known: Arc<Known>,
}

/// The digests of the blob that was read last, chunk by chunk, so that it is hashed once and not for each node.
#[derive(Default)]
struct Known(Mutex<(Option<BlobRef>, Vec<Option<Digest>>)>);

impl Known {
    /// The place of a chunk's digest. The first chunk has none: a node to which a chunk came damaged, because it is not any more
    /// what was hashed, asks for the rest from a later one on, and all is hashed anew then.
    fn place(offset: u64) -> Option<usize> {
        usize::try_from(offset / CHUNK_BYTES as u64).ok().filter(|place| (1..KNOWN_CHUNKS).contains(place))
    }

    fn forget(&self) {
        *self.0.lock().expect("nobody panics with the lock held") = (None, Vec::new());
    }

    fn get(&self, blob: BlobRef, offset: u64) -> Option<Digest> {
        let known = self.0.lock().expect("nobody panics with the lock held");
        if known.0 == Some(blob) { known.1.get(Self::place(offset)?).copied().flatten() } else { None }
    }

    fn put(&self, blob: BlobRef, chunk: &Chunk) {
        let Some(place) = Self::place(chunk.offset) else { return };
        let mut known = self.0.lock().expect("nobody panics with the lock held");
        if known.0 != Some(blob) {
            *known = (Some(blob), Vec::new());
        }
        if known.1.len() <= place {
            known.1.resize(place + 1, None);
        }
        known.1[place] = Some(chunk.digest);
    }
}

/// The chunks that were read last, of any blob.
#[derive(Default)]
struct Recent(Mutex<VecDeque<(BlobRef, Chunk)>>);

impl Budget {
    pub(super) fn new() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(DOWNLOAD_CHUNKS)),
            buffers: Buffers::default(),
            recent: Arc::default(),
            known: Arc::default(),
        }
    }

    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        timeout(PATIENCE, self.permits.clone().acquire_owned()).await.ok()?.ok()
    }

    fn recent(&self) -> Arc<Recent> {
        let mut present = self.recent.lock().expect("nobody panics with the lock held");
        present.upgrade().unwrap_or_else(|| {
            let recent = Arc::default();
            *present = Arc::downgrade(&recent);
            recent
        })
    }
}

impl Recent {
    fn get(&self, blob: BlobRef, offset: u64) -> Option<Chunk> {
        let chunks = self.0.lock().expect("nobody panics with the lock held");
        let mut chunks = chunks.iter().rev();
        chunks.find(|(of, chunk)| chunk.offset == offset && *of == blob).map(|(_, chunk)| chunk.clone())
    }

    fn put(&self, blob: BlobRef, chunk: Chunk) {
        let mut chunks = self.0.lock().expect("nobody panics with the lock held");
        if chunks.len() == RECENT_CHUNKS {
            chunks.pop_front();
        }
        chunks.push_back((blob, chunk));
    }
}

struct Read {
    message: Result<Pieces, Status>,
    /// Held until the chunk has gone to the connection.
    permit: Option<OwnedSemaphorePermit>,
}

/// The chunks of one download, as messages.
pub(super) struct Chunks {
    reads: mpsc::Receiver<Read>,
    on_its_way: Option<OwnedSemaphorePermit>,
}

impl Stream for Chunks {
    type Item = Result<Pieces, Status>;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Who asks for the next chunk has passed the last one on.
        self.on_its_way = None;
        let read = ready!(self.reads.poll_recv(context));
        Poll::Ready(read.map(|read| {
            self.on_its_way = read.permit;
            read.message
        }))
    }
}

/// Begins to send the blob at `path` from `offset`; `stop` ends it with what it gives.
pub(super) fn send(
    path: PathBuf,
    blob: BlobRef,
    offset: u64,
    budget: Budget,
    stop: impl Future<Output = Status> + Send + 'static,
) -> Chunks {
    let (sender, reads) = mpsc::channel(1);
    tokio::spawn(async move {
        let failed = tokio::select! {
            done = read(path, blob, offset, &budget, &sender) => done.err(),
            status = stop => Some(status),
        };
        if let Some(status) = failed {
            // Nobody may be there any more.
            let _ = sender.send(Read { message: Err(status), permit: None }).await;
        }
    });
    Chunks { reads, on_its_way: None }
}

async fn read(
    path: PathBuf,
    blob: BlobRef,
    offset: u64,
    budget: &Budget,
    sender: &mpsc::Sender<Read>,
) -> Result<(), Status> {
    let opened = tokio::task::spawn_blocking(move || ChunkReader::open(&path, blob, offset)).await;
    let mut reader = opened.map_err(|_| status::broken("the researcher is closing"))?.map_err(|error| unreadable(&error))?;
    let recent = budget.recent();
    if offset > 0 {
        budget.known.forget();
    }
    // A place is taken first, so that a node that takes nothing has at most two chunks in memory.
    while let Ok(sender) = sender.reserve().await {
        let Some(place) = reader.place() else { break };
        let permit = budget.permit().await;
        let chunk = if let Some(chunk) = recent.get(blob, place) {
            reader.skip();
            chunk
        } else {
            let chunk;
            reader.expect(budget.known.get(blob, place));
            (chunk, reader) = next_chunk(reader, budget.buffers.lend()).await.map_err(|error| unreadable(&error))?;
            let Some(chunk) = chunk else { break };
            budget.known.put(blob, &chunk);
            recent.put(blob, chunk.clone());
            chunk
        };
        sender.send(Read { message: Ok(bulk::chunk_to_message(chunk, Wrapping::None)), permit });
    }
    Ok(())
}

fn unreadable(error: &BlobError) -> Status {
    tracing::error!(%error, "a blob cannot be read");
    status::from_refusal(&Refusal::new(RefusalCode::Unavailable, "the researcher cannot read the parameters"))
}
