//! A researcher sends a blob: chunks are read as the node takes them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use protocol::{BlobRef, Refusal, RefusalCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::Stream;
use tonic::Status;

use super::status;
use crate::blob::{BlobError, Chunk, ChunkReader};
use crate::convert::bulk;
use crate::wire;

/// Chunks in memory on their way to all nodes together: 4 MiB, and as much again in what they are encoded to.
const DOWNLOAD_CHUNKS: usize = 16;
/// A node that takes nothing keeps its chunk; after this time others go on without regard to the budget.
const PATIENCE: Duration = Duration::from_millis(250);

/// What downloads may use at once. The buffers are used again and again: allocators keep what one thread takes and another
/// gives back.
#[derive(Clone)]
pub(super) struct Budget {
    permits: Arc<Semaphore>,
    buffers: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// A buffer that goes back when nobody needs its bytes any more.
struct Lent {
    bytes: Vec<u8>,
    buffers: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { permits: Arc::new(Semaphore::new(DOWNLOAD_CHUNKS)), buffers: Arc::default() }
    }

    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        timeout(PATIENCE, self.permits.clone().acquire_owned()).await.ok()?.ok()
    }

    fn buffer(&self) -> Lent {
        let bytes = self.buffers.lock().expect("nobody panics with the lock held").pop();
        Lent { bytes: bytes.unwrap_or_default(), buffers: self.buffers.clone() }
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut buffers = self.buffers.lock().expect("nobody panics with the lock held");
        if buffers.len() < DOWNLOAD_CHUNKS {
            buffers.push(std::mem::take(&mut self.bytes));
        }
    }
}

struct Read {
    chunk: Result<wire::Chunk, Status>,
    /// Held until the chunk has gone to the connection.
    permit: Option<OwnedSemaphorePermit>,
}

/// The chunks of one download.
pub(super) struct Chunks {
    reads: mpsc::Receiver<Read>,
    on_its_way: Option<OwnedSemaphorePermit>,
}

impl Stream for Chunks {
    type Item = Result<wire::Chunk, Status>;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Who asks for the next chunk has passed the last one on.
        self.on_its_way = None;
        let read = ready!(self.reads.poll_recv(context));
        Poll::Ready(read.map(|read| {
            self.on_its_way = read.permit;
            read.chunk
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
            let _ = sender.send(Read { chunk: Err(status), permit: None }).await;
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
    let mut reader = blocking(move || ChunkReader::open(&path, blob, offset)).await?;
    // A place is taken first, so that a node that takes nothing has at most two chunks in memory.
    while let Ok(place) = sender.reserve().await {
        let permit = budget.permit().await;
        let mut lent = budget.buffer();
        let (read, back) = blocking(move || {
            let read = reader.read_chunk(&mut lent.bytes)?;
            Ok((read.map(|(offset, digest)| Chunk { offset, digest, bytes: Bytes::from_owner(lent) }), reader))
        })
        .await?;
        reader = back;
        let Some(chunk) = read else { break };
        place.send(Read { chunk: Ok(bulk::chunk_to_wire(chunk)), permit });
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, BlobError> + Send + 'static) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| status::broken("the researcher is closing"))?;
    done.map_err(|error| {
        tracing::error!(%error, "a blob cannot be read");
        status::from_refusal(&Refusal::new(RefusalCode::Unavailable, "the researcher cannot read the parameters"))
    })
}
