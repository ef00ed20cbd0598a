//! Chunks are read from files into buffers that are used again and again: allocators keep what one thread takes and another
//! gives back, and a buffer that was used just now is still near the processor.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::blob::{BlobError, Chunk, ChunkReader};

/// Buffers that wait to be used again.
const MOST_IDLE: usize = 16;

#[derive(Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

/// A buffer that goes back when nobody needs its bytes any more.
pub(super) struct Lent {
    bytes: Vec<u8>,
    buffers: Buffers,
}

impl Buffers {
    /// The buffer that came back last, or a new one.
    pub(super) fn lend(&self) -> Lent {
        let bytes = self.0.lock().expect("nobody panics with the lock held").pop();
        Lent { bytes: bytes.unwrap_or_default(), buffers: self.clone() }
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut idle = self.buffers.0.lock().expect("nobody panics with the lock held");
        if idle.len() < MOST_IDLE {
            idle.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// Reads the next chunk: at once if the system has it in memory, off the threads of the network otherwise.
pub(super) async fn next_chunk(mut reader: ChunkReader, mut lent: Lent) -> Result<(Option<Chunk>, ChunkReader), BlobError> {
    let mut read = reader.read_cached(&mut lent.bytes);
    if read.is_none() {
        let work = move || Ok((reader.read_chunk(&mut lent.bytes)?, reader, lent));
        let done = tokio::task::spawn_blocking(work).await;
        (read, reader, lent) = done.unwrap_or_else(|error| Err(BlobError::Io(std::io::Error::other(error))))?;
    }
    Ok((read.map(|(offset, digest)| Chunk { offset, digest, bytes: Bytes::from_owner(lent).into() }), reader))
}
