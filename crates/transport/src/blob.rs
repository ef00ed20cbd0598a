//! Blobs in transit: pieces of known place and digest, put together in memory (a node's download) or in a file (an upload
//! at the researcher), and taken up again from the last good chunk after a broken connection.

use std::any::Any;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use bytes::Bytes;
use protocol::{BlobRef, Digest, TensorError, Tensors, TensorsReader};
use rustix::io::ReadWriteFlags;
use thiserror::Error;

/// The size of every chunk of a blob but the last, in bytes. Small enough that one for each of many nodes does not matter,
/// large enough that handing it over costs nothing.
pub const CHUNK_BYTES: usize = 256 << 10;

/// Pieces below this size, in bytes, are copied together.
const SMALL_PIECE: usize = 4 << 10;

/// A piece of a blob.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// Where it begins, in bytes from the blob's start.
    pub offset: u64,
    /// The digest of `bytes` at this place.
    pub digest: Digest,
    pub bytes: Pieces,
}

impl Chunk {
    /// `offset` is a multiple of [`CHUNK_BYTES`].
    pub fn new(offset: u64, bytes: impl Into<Pieces>) -> Self {
        let bytes = bytes.into();
        Self { offset, digest: chunk_digest(offset, bytes.iter()), bytes }
    }
}

/// Bytes as they came from the network: one after the other, not copied together.
#[derive(Debug, Clone, Default)]
pub struct Pieces {
    pieces: Vec<Bytes>,
    len: usize,
}

impl Pieces {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds bytes at the end. Small pieces are put together, so that their number does not grow beyond that of the bytes.
    pub fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        match self.pieces.last_mut() {
            _ if piece.is_empty() => {}
            Some(last) if last.len() < SMALL_PIECE && piece.len() < SMALL_PIECE => {
                *last = [last.as_ref(), piece.as_ref()].concat().into();
            }
            _ => self.pieces.push(piece),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(AsRef::as_ref)
    }

    /// The bytes in one; copied if they came in several pieces.
    pub fn into_bytes(mut self) -> Bytes {
        if self.pieces.len() == 1 { self.pieces.remove(0) } else { self.pieces.concat().into() }
    }

    pub(crate) fn append(&mut self, mut more: Self) {
        self.len += more.len;
        self.pieces.append(&mut more.pieces);
    }

    pub(crate) fn into_pieces(self) -> Vec<Bytes> {
        self.pieces
    }

    /// The first piece.
    pub(crate) fn first(&self) -> Bytes {
        self.pieces.first().cloned().unwrap_or_default()
    }

    /// Takes the first `len` bytes off.
    pub(crate) fn split_to(&mut self, len: usize) -> Self {
        let mut front = Self::default();
        let mut whole = 0;
        for piece in &mut self.pieces {
            let missing = len - front.len;
            if missing < piece.len() {
                front.push(piece.split_to(missing));
                break;
            }
            front.push(std::mem::take(piece));
            whole += 1;
        }
        self.pieces.drain(..whole);
        self.len -= front.len;
        front
    }
}

impl From<Vec<u8>> for Pieces {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        let mut pieces = Self::default();
        pieces.push(bytes);
        pieces
    }
}

/// The chaining value of a chunk's subtree in the BLAKE3 tree of its blob (O'Connor et al. 2020, "BLAKE3", §2.1), so that the
/// digest of the whole follows from those of the chunks and no byte is hashed twice. An empty chunk has the hash of nothing.
fn chunk_digest<'bytes>(offset: u64, pieces: impl Iterator<Item = &'bytes [u8]>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset);
    for piece in pieces {
        hasher.update(piece);
    }
    if hasher.count() == 0 { hasher.finalize().into() } else { Digest::from_bytes(hasher.finalize_non_root()) }
}

/// The digest of bytes that are a blob of their own.
fn whole_digest<'bytes>(pieces: impl Iterator<Item = &'bytes [u8]>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for piece in pieces {
        hasher.update(piece);
    }
    hasher.finalize().into()
}

/// The digests of a blob's first chunks, which become the digest of the whole.
#[derive(Debug, Default)]
struct Chunks {
    digests: Vec<ChainingValue>,
    /// The blob's own digest, if it has one chunk only.
    only: Option<Digest>,
}

impl Chunks {
    fn push<'bytes>(&mut self, digest: Digest, pieces: impl Iterator<Item = &'bytes [u8]>) {
        self.only = self.digests.is_empty().then(|| whole_digest(pieces));
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

/// Hashes a blob while it is written, so that who sends it afterwards need not do so again.
#[derive(Debug)]
pub struct BlobHasher {
    /// The chunk that is being written.
    chunk: blake3::Hasher,
    /// The first chunk, as long as it may be the only one.
    only: blake3::Hasher,
    bytes: u64,
    done: Vec<Digest>,
}

impl Default for BlobHasher {
    fn default() -> Self {
        Self { chunk: blake3::Hasher::new(), only: blake3::Hasher::new(), bytes: 0, done: Vec::new() }
    }
}

impl BlobHasher {
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = CHUNK_BYTES - usize::try_from(self.chunk.count()).unwrap_or(0);
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            self.chunk.update(now);
            if self.done.is_empty() {
                self.only.update(now);
            }
            self.bytes += now.len() as u64;
            if now.len() == room {
                self.end_chunk();
            }
            bytes = rest;
        }
    }

    fn end_chunk(&mut self) {
        self.done.push(Digest::from_bytes(self.chunk.finalize_non_root()));
        self.chunk = blake3::Hasher::new();
        self.chunk.set_input_offset(self.bytes);
    }

    /// The blob, and the digests of its chunks.
    pub fn finish(mut self) -> (BlobRef, ChunkDigests) {
        if self.chunk.count() > 0 {
            self.done.push(Digest::from_bytes(self.chunk.finalize_non_root()));
        }
        let digests = self.done.iter().map(|digest| *digest.as_bytes()).collect();
        let only = (self.done.len() < 2).then(|| self.only.finalize().into());
        let blob = BlobRef { digest: Chunks { digests, only }.whole(), bytes: self.bytes };
        (blob, ChunkDigests(self.done))
    }
}

/// The digests of a blob's chunks, in their order; or none.
#[derive(Debug, Clone, Default)]
pub struct ChunkDigests(Vec<Digest>);

impl ChunkDigests {
    fn at(&self, offset: u64) -> Option<Digest> {
        self.0.get(usize::try_from(offset / CHUNK_BYTES as u64).ok()?).copied()
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
    if chunk_digest(have, chunk.bytes.iter()) != chunk.digest {
        return Err(BlobError::Chunk);
    }
    Ok(())
}

/// A blob being put together in memory.
#[derive(Debug)]
pub struct PartialBlob {
    blob: BlobRef,
    content: Content,
    have: u64,
    chunks: Chunks,
}

/// What the bytes become.
#[derive(Debug)]
enum Content {
    Bytes(Vec<u8>),
    /// Tensors while they come: not in memory twice. What is no tensors is told at the end, if it is undamaged.
    Tensors(Result<TensorsReader, TensorError>),
}

impl PartialBlob {
    pub fn new(blob: BlobRef) -> Self {
        Self { blob, content: Content::Bytes(Vec::new()), have: 0, chunks: Chunks::default() }
    }

    /// A blob that is tensors, for [`Self::finish_tensors`].
    pub fn of_tensors(blob: BlobRef) -> Self {
        let reader = usize::try_from(blob.bytes).map_err(|_| TensorError::Header("larger than the memory"));
        Self { content: Content::Tensors(reader.map(TensorsReader::new)), ..Self::new(blob) }
    }

    pub fn blob(&self) -> BlobRef {
        self.blob
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
        match &mut self.content {
            Content::Bytes(bytes) => {
                if bytes.is_empty() {
                    // The announced length is reserved only once a first good chunk came.
                    let len = usize::try_from(self.blob.bytes).unwrap_or(usize::MAX);
                    bytes.try_reserve_exact(len).map_err(io::Error::other)?;
                }
                chunk.bytes.iter().for_each(|piece| bytes.extend_from_slice(piece));
            }
            Content::Tensors(reader) => {
                if let Ok(tensors) = reader
                    && let Err(error) = chunk.bytes.iter().try_for_each(|piece| tensors.push(piece))
                {
                    *reader = Err(error);
                }
            }
        }
        self.have += chunk.bytes.len() as u64;
        self.chunks.push(chunk.digest, chunk.bytes.iter());
        Ok(())
    }

    /// The blob, if whole and undamaged.
    pub fn finish(self) -> Result<Vec<u8>, BlobError> {
        match self.finish_content()? {
            Content::Bytes(bytes) => Ok(bytes),
            Content::Tensors(_) => Err(BlobError::Io(io::Error::other("the bytes have become tensors"))),
        }
    }

    /// The tensors of [`Self::of_tensors`], if the blob is whole and undamaged: or what is wrong with it although it is.
    pub fn finish_tensors(self) -> Result<Result<Tensors, TensorError>, BlobError> {
        Ok(match self.finish_content()? {
            Content::Tensors(reader) => reader.and_then(TensorsReader::finish),
            Content::Bytes(bytes) => Tensors::from_bytes(&bytes),
        })
    }

    fn finish_content(self) -> Result<Content, BlobError> {
        if !self.is_complete() {
            return Err(BlobError::Length { expected: self.blob.bytes, found: self.have });
        }
        if self.chunks.whole() != self.blob.digest {
            return Err(BlobError::Digest);
        }
        Ok(self.content)
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
            let whole = || std::iter::once(bytes.as_slice());
            chunks.push(chunk_digest(offset, whole()), whole());
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
        write_pieces(&mut self.file, &chunk.bytes)?;
        self.chunks.push(chunk.digest, chunk.bytes.iter());
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

/// Writes all pieces, with as few calls as the system needs.
fn write_pieces(file: &mut File, pieces: &Pieces) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(IoSlice::new).collect();
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
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
    known: ChunkDigests,
    /// The next chunk's, if that one is known.
    known_next: Option<Digest>,
}

impl ChunkReader {
    /// Fails unless the file has exactly `blob.bytes` bytes and `offset` lies within.
    pub fn open(path: &Path, blob: BlobRef, offset: u64) -> Result<Self, BlobError> {
        let file = File::open(path)?;
        let found = file.metadata()?.len();
        if found != blob.bytes || offset > blob.bytes {
            return Err(BlobError::Length { expected: blob.bytes, found });
        }
        Ok(Self { file, offset, end: blob.bytes, known: ChunkDigests::default(), known_next: None })
    }

    /// Believes that the chunks still have the digests with which they were written. Where they have not, the receiver finds out.
    #[must_use]
    pub fn with_digests(self, known: ChunkDigests) -> Self {
        Self { known, ..self }
    }

    /// Believes that the next chunk has this digest.
    pub(crate) fn expect(&mut self, digest: Option<Digest>) {
        self.known_next = digest;
    }

    /// Where the next chunk begins; `None` at the end.
    pub(crate) fn place(&self) -> Option<u64> {
        (self.offset < self.end).then_some(self.offset)
    }

    /// Goes over the next chunk.
    pub(crate) fn skip(&mut self) {
        self.offset = (self.offset + CHUNK_BYTES as u64).min(self.end);
    }

    /// The next chunk, `None` at the end.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, BlobError> {
        let mut bytes = Vec::new();
        let place = self.read_chunk(&mut bytes)?;
        Ok(place.map(|(offset, digest)| Chunk { offset, digest, bytes: Bytes::from(bytes).into() }))
    }

    fn make_room(&self, buffer: &mut Vec<u8>) {
        let len = (self.end - self.offset).min(CHUNK_BYTES as u64);
        buffer.resize(usize::try_from(len).unwrap_or(CHUNK_BYTES), 0);
    }

    fn advance(&mut self, buffer: &[u8]) -> (u64, Digest) {
        let offset = self.offset;
        self.offset += buffer.len() as u64;
        let digest = self.known_next.take().or_else(|| self.known.at(offset));
        (offset, digest.unwrap_or_else(|| chunk_digest(offset, std::iter::once(buffer))))
    }

    /// Reads the next chunk's bytes in place of those in `buffer`; gives their place and digest, `None` at the end.
    pub fn read_chunk(&mut self, buffer: &mut Vec<u8>) -> Result<Option<(u64, Digest)>, BlobError> {
        self.make_room(buffer);
        if buffer.is_empty() {
            return Ok(None);
        }
        self.file.read_exact_at(buffer, self.offset)?;
        Ok(Some(self.advance(buffer)))
    }

    /// As [`Self::read_chunk`], if the system has the bytes in memory; `None` if they are to be waited for, or at the end.
    pub(crate) fn read_cached(&mut self, buffer: &mut Vec<u8>) -> Option<(u64, Digest)> {
        self.make_room(buffer);
        let read = rustix::io::preadv2(&self.file, &mut [IoSliceMut::new(buffer)], self.offset, ReadWriteFlags::NOWAIT);
        (read == Ok(buffer.len()) && !buffer.is_empty()).then(|| self.advance(buffer))
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
            for size in [1000, CHUNK_BYTES, bytes.len().max(1)] {
                let mut hasher = BlobHasher::default();
                bytes.chunks(size).for_each(|piece| hasher.update(piece));
                let (hashed, digests) = hasher.finish();
                assert_eq!(hashed, blob, "{len} by {size}");
                let chunks = bytes.chunks(CHUNK_BYTES).enumerate();
                let chunks = chunks.map(|(index, piece)| Chunk::new((index * CHUNK_BYTES) as u64, piece.to_vec()).digest);
                assert_eq!(digests.0, chunks.collect::<Vec<_>>(), "{len} by {size}");
            }
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
