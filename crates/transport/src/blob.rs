//! Blobs in transit: pieces of known place and digest, put together in memory (a node's download) or in a file (an upload
//! at the researcher), and taken up again from the last good chunk after a broken connection.

use std::any::Any;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
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
    /// The digest of `bytes` at this place.
    pub digest: Digest,
    pub bytes: Bytes,
}

impl Chunk {
    /// `offset` is a multiple of [`CHUNK_BYTES`].
    pub fn new(offset: u64, bytes: Bytes) -> Self {
        Self { offset, digest: chunk_digest(offset, &bytes), bytes }
    }
}

/// The chaining value of a chunk's subtree in the BLAKE3 tree of its blob (O'Connor et al. 2020, "BLAKE3", §2.1), so that the
/// digest of the whole follows from those of the chunks and no byte is hashed twice. An empty chunk has the hash of nothing.
fn chunk_digest(offset: u64, bytes: &[u8]) -> Digest {
    if bytes.is_empty() {
        return Digest::of(bytes);
    }
    Digest::from_bytes(blake3::Hasher::new().set_input_offset(offset).update(bytes).finalize_non_root())
}

/// The digests of a blob's first chunks, which become the digest of the whole.
#[derive(Debug, Default)]
struct Chunks {
    digests: Vec<ChainingValue>,
    /// The blob's own digest, if it has one chunk only.
    only: Option<Digest>,
}

impl Chunks {
    fn push(&mut self, digest: Digest, bytes: &[u8]) {
        self.only = self.digests.is_empty().then(|| Digest::of(bytes));
        self.digests.push(*digest.as_bytes());
    }

    fn whole(&self) -> Digest {
        match (self.only, self.digests.split_at_checked(left(self.digests.len()))) {
            (None, Some((left, right))) if !left.is_empty() => {
                merge_subtrees_root(&merge(left), &merge(right), Mode::Hash).into()
            }
            (only, _) => only.unwrap_or_else(|| Digest::of(&[])),
        }
    }
}

/// How many of `chunks` belong to the left half of their tree: the largest power of two below.
fn left(chunks: usize) -> usize {
    if chunks < 2 { 0 } else { 1 << (chunks - 1).ilog2() }
}

fn merge(digests: &[ChainingValue]) -> ChainingValue {
    match digests {
        [one] => *one,
        several => {
            let (left, right) = several.split_at(left(several.len()));
            merge_subtrees_non_root(&merge(left), &merge(right), Mode::Hash)
        }
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
    // Only the last one may be short: every other begins at a multiple of the size.
    if end > blob.bytes || chunk.bytes.len() > CHUNK_BYTES || (end < blob.bytes && chunk.bytes.len() < CHUNK_BYTES) {
        return Err(BlobError::Length { expected: blob.bytes, found: end });
    }
    if chunk_digest(have, &chunk.bytes) != chunk.digest {
        return Err(BlobError::Chunk);
    }
    Ok(())
}

/// A blob being put together in memory.
#[derive(Debug)]
pub struct PartialBlob {
    blob: BlobRef,
    bytes: Vec<u8>,
    chunks: Chunks,
}

impl PartialBlob {
    pub fn new(blob: BlobRef) -> Self {
        Self { blob, bytes: Vec::new(), chunks: Chunks::default() }
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
        self.chunks.push(chunk.digest, &chunk.bytes);
        Ok(())
    }

    /// The blob, if whole and undamaged.
    pub fn finish(self) -> Result<Vec<u8>, BlobError> {
        if !self.is_complete() {
            return Err(BlobError::Length { expected: self.blob.bytes, found: self.have() });
        }
        if self.chunks.whole() != self.blob.digest {
            return Err(BlobError::Digest);
        }
        Ok(self.bytes)
    }
}

/// Something that is dropped when an upload is over, however it ends.
type Hold = Box<dyn Any + Send + Sync>;

/// A blob being put together in a file (mode 0600).
#[derive(Debug)]
pub struct PartialFile {
    blob: BlobRef,
    path: PathBuf,
    file: File,
    have: u64,
    chunks: Chunks,
    hold: Option<Hold>,
}

impl PartialFile {
    /// Opens or creates the file and goes on after its last whole chunk.
    pub fn open(path: &Path, blob: BlobRef) -> Result<Self, BlobError> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let len = file.metadata()?.len();
        let whole = len - len % CHUNK_BYTES as u64;
        let have = if len == blob.bytes { len } else { whole.min(blob.bytes) };
        file.set_len(have)?;
        let mut chunks = Chunks::default();
        let mut bytes = Vec::new();
        for offset in (0..have).step_by(CHUNK_BYTES) {
            bytes.clear();
            Read::take(&mut file, CHUNK_BYTES as u64).read_to_end(&mut bytes)?;
            chunks.push(chunk_digest(offset, &bytes), &bytes);
        }
        file.seek(SeekFrom::Start(have))?;
        Ok(Self { blob, path: path.to_owned(), file, have, chunks, hold: None })
    }

    /// Keeps something, such as a share of a quota, until this file or the whole one that it becomes is dropped.
    #[must_use]
    pub fn holding(self, hold: impl Any + Send + Sync) -> Self {
        Self { hold: Some(Box::new(hold)), ..self }
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
        self.chunks.push(chunk.digest, &chunk.bytes);
        self.have += chunk.bytes.len() as u64;
        Ok(())
    }

    /// Checks the whole and hands the file over. A damaged one is removed, so that the next try starts anew.
    pub fn finish(self) -> Result<CompleteFile, BlobError> {
        if !self.is_complete() {
            return Err(BlobError::Length { expected: self.blob.bytes, found: self.have });
        }
        if self.chunks.whole() != self.blob.digest {
            std::fs::remove_file(&self.path)?;
            return Err(BlobError::Digest);
        }
        Ok(CompleteFile { blob: self.blob, path: self.path, _hold: self.hold })
    }
}

/// A file whose content has been checked against its digest.
#[derive(Debug)]
pub struct CompleteFile {
    blob: BlobRef,
    path: PathBuf,
    _hold: Option<Hold>,
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
        let len = left.min(CHUNK_BYTES as u64);
        buffer.clear();
        buffer.reserve(CHUNK_BYTES);
        if Read::take(&mut self.file, len).read_to_end(buffer)? as u64 != len {
            return Err(BlobError::Length { expected: self.end, found: self.offset + buffer.len() as u64 });
        }
        let offset = self.offset;
        self.offset += buffer.len() as u64;
        Ok(Some((offset, chunk_digest(offset, buffer))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_the_whole_follows_from_those_of_the_chunks() {
        for len in [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 5 * CHUNK_BYTES + 7, 8 * CHUNK_BYTES] {
            let bytes: Vec<u8> = (0..len).map(|index| u8::try_from(index / 1000 % 251).unwrap()).collect();
            let blob = BlobRef { digest: Digest::of(&bytes), bytes: len as u64 };
            let mut partial = PartialBlob::new(blob);
            for (index, piece) in bytes.chunks(CHUNK_BYTES).enumerate() {
                let chunk = Chunk::new((index * CHUNK_BYTES) as u64, Bytes::copy_from_slice(piece));
                partial.append(&chunk).unwrap();
            }
            assert_eq!(partial.finish().unwrap(), bytes, "{len}");
        }
    }

    #[test]
    fn a_chunk_is_good_at_its_place_only_and_short_only_at_the_end() {
        let bytes = vec![7; 3 * CHUNK_BYTES];
        let blob = BlobRef { digest: Digest::of(&bytes), bytes: bytes.len() as u64 };
        let whole = Bytes::from(bytes);
        let mut partial = PartialBlob::new(blob);
        let short = Chunk::new(0, whole.slice(..1024));
        assert!(matches!(partial.append(&short), Err(BlobError::Length { .. })));
        let first = Chunk::new(0, whole.slice(..CHUNK_BYTES));
        partial.append(&first).unwrap();
        let moved = Chunk { offset: CHUNK_BYTES as u64, ..first };
        assert!(matches!(partial.append(&moved), Err(BlobError::Chunk)));
    }
}
