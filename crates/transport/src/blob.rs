//! Blobs in transit: pieces of known place and digest, put together in memory (a node's download) or in a file (an upload
//! at the researcher), and taken up again from the last good chunk after a broken connection.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use protocol::{BlobRef, Digest};
use thiserror::Error;

/// The size of every chunk of a blob but the last, in bytes. Small enough that one for each of many nodes does not matter,
/// large enough that handing it over costs nothing.
pub const CHUNK_BYTES: usize = 256 << 10;

/// A piece of a blob.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// Where it begins, in bytes from the blob's start.
    pub offset: u64,
    /// The digest of `bytes`.
    pub digest: Digest,
    pub bytes: Bytes,
}

impl Chunk {
    pub fn new(offset: u64, bytes: Bytes) -> Self {
        Self { offset, digest: Digest::of(&bytes), bytes }
    }
}

/// Why a chunk or a blob was not taken. What had been put together before stays good, except after [`BlobError::Digest`].
#[derive(Debug, Error)]
pub enum BlobError {
    #[error("expected the chunk at byte {expected}, got the one at byte {found}")]
    Place { expected: u64, found: u64 },
    #[error("a chunk is damaged: its digest differs")]
    Chunk,
    #[error("expected {expected} bytes, found at least {found}")]
    Length { expected: u64, found: u64 },
    #[error("the whole is damaged: its digest differs")]
    Digest,
    #[error("cannot write the spool")]
    Io(#[from] io::Error),
}

fn check(chunk: &Chunk, have: u64, blob: &BlobRef) -> Result<(), BlobError> {
    if chunk.offset != have {
        return Err(BlobError::Place { expected: have, found: chunk.offset });
    }
    let end = have + chunk.bytes.len() as u64;
    if end > blob.bytes || chunk.bytes.len() > CHUNK_BYTES {
        return Err(BlobError::Length { expected: blob.bytes, found: end });
    }
    if Digest::of(&chunk.bytes) != chunk.digest {
        return Err(BlobError::Chunk);
    }
    Ok(())
}

/// A blob being put together in memory.
#[derive(Debug)]
pub struct PartialBlob {
    blob: BlobRef,
    bytes: Vec<u8>,
}

impl PartialBlob {
    pub fn new(blob: BlobRef) -> Self {
        Self { blob, bytes: Vec::new() }
    }

    pub fn blob(&self) -> BlobRef {
        self.blob
    }

    /// From where to go on.
    pub fn have(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub fn is_complete(&self) -> bool {
        self.have() == self.blob.bytes
    }

    pub fn append(&mut self, chunk: &Chunk) -> Result<(), BlobError> {
        check(chunk, self.have(), &self.blob)?;
        if self.bytes.is_empty() {
            // The announced length is reserved only once a first good chunk came.
            self.bytes
                .try_reserve_exact(usize::try_from(self.blob.bytes).unwrap_or(usize::MAX))
                .map_err(io::Error::other)?;
        }
        self.bytes.extend_from_slice(&chunk.bytes);
        Ok(())
    }

    /// The blob, if whole and undamaged.
    pub fn finish(self) -> Result<Vec<u8>, BlobError> {
        if !self.is_complete() {
            return Err(BlobError::Length { expected: self.blob.bytes, found: self.have() });
        }
        if Digest::of(&self.bytes) != self.blob.digest {
            return Err(BlobError::Digest);
        }
        Ok(self.bytes)
    }
}

/// A blob being put together in a file (mode 0600).
#[derive(Debug)]
pub struct PartialFile {
    blob: BlobRef,
    path: PathBuf,
    file: File,
    have: u64,
    hasher: Box<blake3::Hasher>,
}

impl PartialFile {
    /// Opens or creates the file and goes on after its last whole chunk.
    pub fn open(path: &Path, blob: BlobRef) -> Result<Self, BlobError> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let len = file.metadata()?.len();
        let whole = len - len % CHUNK_BYTES as u64;
        let have = if len == blob.bytes { len } else { whole.min(blob.bytes) };
        file.set_len(have)?;
        let mut hasher = Box::new(blake3::Hasher::new());
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
        }
        file.seek(SeekFrom::Start(have))?;
        Ok(Self { blob, path: path.to_owned(), file, have, hasher })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From where to go on.
    pub fn have(&self) -> u64 {
        self.have
    }

    pub fn is_complete(&self) -> bool {
        self.have == self.blob.bytes
    }

    pub fn append(&mut self, chunk: &Chunk) -> Result<(), BlobError> {
        check(chunk, self.have, &self.blob)?;
        self.file.write_all(&chunk.bytes)?;
        self.hasher.update(&chunk.bytes);
        self.have += chunk.bytes.len() as u64;
        Ok(())
    }

    /// Checks the whole and hands the file over. A damaged one is removed, so that the next try starts anew.
    pub fn finish(self) -> Result<CompleteFile, BlobError> {
        if !self.is_complete() {
            return Err(BlobError::Length { expected: self.blob.bytes, found: self.have });
        }
        if Digest::from(self.hasher.finalize()) != self.blob.digest {
            std::fs::remove_file(&self.path)?;
            return Err(BlobError::Digest);
        }
        Ok(CompleteFile { blob: self.blob, path: self.path })
    }
}

/// A file whose content has been checked against its digest.
#[derive(Debug)]
pub struct CompleteFile {
    blob: BlobRef,
    path: PathBuf,
}

impl CompleteFile {
    pub fn blob(&self) -> BlobRef {
        self.blob
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads a file chunk by chunk, from an offset.
#[derive(Debug)]
pub struct ChunkReader {
    file: File,
    offset: u64,
    end: u64,
}

impl ChunkReader {
    /// Fails unless the file has exactly `blob.bytes` bytes and `offset` lies within.
    pub fn open(path: &Path, blob: BlobRef, offset: u64) -> Result<Self, BlobError> {
        let mut file = File::open(path)?;
        let found = file.metadata()?.len();
        if found != blob.bytes || offset > blob.bytes {
            return Err(BlobError::Length { expected: blob.bytes, found });
        }
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { file, offset, end: blob.bytes })
    }

    /// The next chunk, `None` at the end.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, BlobError> {
        let mut bytes = Vec::new();
        let place = self.read_chunk(&mut bytes)?;
        Ok(place.map(|(offset, digest)| Chunk { offset, digest, bytes: Bytes::from(bytes) }))
    }

    /// Reads the next chunk's bytes in place of those in `buffer`; gives their place and digest, `None` at the end.
    pub fn read_chunk(&mut self, buffer: &mut Vec<u8>) -> Result<Option<(u64, Digest)>, BlobError> {
        let left = self.end - self.offset;
        if left == 0 {
            return Ok(None);
        }
        buffer.resize(usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES), 0);
        self.file.read_exact(buffer)?;
        let offset = self.offset;
        self.offset += buffer.len() as u64;
        Ok(Some((offset, Digest::of(buffer))))
    }
}
