//! Models as files that are never in memory whole: read and written tensor by tensor, window by window.
//!
//! The layout is safetensors (see `protocol::tensor`). A model's file has the name of its digest and is complete once it has it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use protocol::{BlobRef, Digest, Tensors};
use serde::Deserialize;

use super::FoldError;

/// Models of up to so many bytes are kept in the database too.
const SMALL: usize = 1 << 16;
/// Blocks of about 2^18 bytes that wait for the disk while sums go on.
const BLOCKS_QUEUED: usize = 16;
/// A large file is forced to the disk whenever so many bytes have been added, so that the end has little to wait for.
const SYNC_BYTES: usize = 2 << 20;
/// The longest header of an own file, in bytes.
const MAX_HEADER: u64 = 1 << 20;

static FILES_BEGUN: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Kind {
    F32,
    F64,
}

impl Kind {
    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

/// Where a tensor's elements lie in the file.
#[derive(Debug, Clone)]
pub(super) struct Elements {
    kind: Kind,
    start: u64,
    len: usize,
}

impl Elements {
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

#[derive(Debug, Clone)]
pub(super) struct TensorEntry {
    pub(super) name: String,
    pub(super) elements: Elements,
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: Kind,
    data_offsets: [u64; 2],
}

/// A model's file, open for reading.
#[derive(Debug)]
pub(super) struct ModelReader {
    file: File,
    header: Vec<u8>,
    tensors: Vec<TensorEntry>,
    buffer: Vec<u8>,
}

impl ModelReader {
    pub(super) fn open(path: &Path) -> Result<Self, FoldError> {
        let mut file = File::open(path)?;
        let mut prefix = [0; 8];
        file.read_exact(&mut prefix)?;
        let len = u64::from_le_bytes(prefix);
        if len > MAX_HEADER {
            return Err(FoldError::Model("its header is too long".into()));
        }
        let mut header = prefix.to_vec();
        Read::take(&file, len).read_to_end(&mut header)?;
        let tensors =
            entries(&header[8..], header.len() as u64).ok_or_else(|| FoldError::Model("its header is malformed".into()))?;
        Ok(Self { file, header, tensors, buffer: Vec::new() })
    }

    /// The bytes before the first element.
    pub(super) fn header(&self) -> &[u8] {
        &self.header
    }

    /// The tensors in the order of their elements.
    pub(super) fn tensors(&self) -> Vec<TensorEntry> {
        self.tensors.clone()
    }

    /// The bytes of `len` elements from element `start` on.
    pub(super) fn read(&mut self, elements: &Elements, start: usize, len: usize) -> io::Result<&[u8]> {
        let bytes = elements.kind.bytes();
        self.buffer.resize(len * bytes, 0);
        self.file.read_exact_at(&mut self.buffer, elements.start + (start * bytes) as u64)?;
        Ok(&self.buffer)
    }

    /// Copies a tensor as it is.
    pub(super) fn copy(&mut self, elements: &Elements, writer: &mut ModelWriter) -> io::Result<()> {
        for start in (0..elements.len).step_by(super::WINDOW) {
            writer.write_bytes(self.read(elements, start, super::WINDOW.min(elements.len - start))?)?;
        }
        Ok(())
    }
}

/// Reads the JSON of a header; the elements begin at byte `first`.
fn entries(json: &[u8], first: u64) -> Option<Vec<TensorEntry>> {
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(json).ok()?;
    let mut tensors = Vec::new();
    for (name, value) in header.into_iter().filter(|(name, _)| name != "__metadata__") {
        let RawEntry { dtype, data_offsets: [start, end] } = serde_json::from_value(value).ok()?;
        let bytes = usize::try_from(end.checked_sub(start)?).ok()?;
        let elements = Elements { kind: dtype, start: first.checked_add(start)?, len: bytes / dtype.bytes() };
        tensors.push(TensorEntry { name, elements });
    }
    tensors.sort_by_key(|tensor| tensor.elements.start);
    Some(tensors)
}

/// A model that is being written. A small one stays in memory to its end; of a larger one a thread of its own computes the
/// digest and fills the file, while the sums go on.
pub(super) struct ModelWriter {
    folder: PathBuf,
    /// What has not been passed on.
    held: Vec<u8>,
    large: Option<LargeFile>,
}

/// A model that has been written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenModel {
    pub blob: BlobRef,
    /// The bytes of a small model, for the database: its file is not forced to the disk. A larger one's file is.
    pub small: Option<Vec<u8>>,
}

impl ModelWriter {
    pub(super) fn create(folder: &Path, header: &[u8]) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned(), held: header.to_vec(), large: None })
    }

    /// Appends the elements of `old`, each moved by so much; float32 rounds to nearest. False if one is no finite number then,
    /// and the model is to be given up.
    pub(super) fn write_moved(&mut self, elements: &Elements, old: &[u8], moves: &[f64]) -> io::Result<bool> {
        let start = self.held.len();
        self.held.resize(start + old.len(), 0);
        let new = &mut self.held[start..];
        // Counted without a branch and without a check for overflow, so that several elements are worked on at once: no window has as many.
        let (mut odd, mut odd_64) = (0_u32, 0_u64);
        match elements.kind {
            Kind::F32 => {
                let pairs = new.as_chunks_mut::<4>().0.iter_mut().zip(old.as_chunks::<4>().0);
                for ((new, old), by) in pairs.zip(moves) {
                    #[expect(
                        clippy::cast_possible_truncation,
                        reason = "rounding to float32 is what the model's precision means"
                    )]
                    let moved = (f64::from(f32::from_le_bytes(*old)) + by) as f32;
                    odd = odd.wrapping_add(u32::from(!moved.is_finite()));
                    *new = moved.to_le_bytes();
                }
            }
            Kind::F64 => {
                let pairs = new.as_chunks_mut::<8>().0.iter_mut().zip(old.as_chunks::<8>().0);
                for ((new, old), by) in pairs.zip(moves) {
                    let moved = f64::from_le_bytes(*old) + by;
                    odd_64 = odd_64.wrapping_add(u64::from(!moved.is_finite()));
                    *new = moved.to_le_bytes();
                }
            }
        }
        self.pass_on()?;
        Ok(odd == 0 && odd_64 == 0)
    }

    fn write_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.held.extend_from_slice(bytes);
        self.pass_on()
    }

    /// Hands a model that has become large to its file.
    fn pass_on(&mut self) -> io::Result<()> {
        if self.held.len() <= SMALL {
            return Ok(());
        }
        let large = match &mut self.large {
            Some(large) => large,
            None => self.large.insert(LargeFile::create(&self.folder)?),
        };
        let passed = std::mem::take(&mut self.held);
        self.held.reserve(passed.len());
        large.append(passed)
    }

    /// Gives the file its name; a large one's once all of it is on the disk.
    pub(super) fn finish(self) -> io::Result<WrittenModel> {
        let Some(mut large) = self.large else {
            let blob = BlobRef { digest: Digest::of(&self.held), bytes: self.held.len() as u64 };
            let path = temporary(&self.folder);
            fs::write(&path, &self.held)?;
            fs::rename(&path, crate::files::model_in(&self.folder, blob))?;
            return Ok(WrittenModel { blob, small: Some(self.held) });
        };
        large.append(self.held)?;
        let blob = large.finish()?;
        fs::rename(&large.path, crate::files::model_in(&self.folder, blob))?;
        File::open(&self.folder)?.sync_all()?;
        Ok(WrittenModel { blob, small: None })
    }
}

/// A name that nobody else in this process uses.
fn temporary(folder: &Path) -> PathBuf {
    folder.join(format!("new.{}", FILES_BEGUN.fetch_add(1, Ordering::Relaxed)))
}

/// A file that a thread fills and forces to the disk as it grows.
struct LargeFile {
    path: PathBuf,
    /// Absent once the end has been said.
    blocks: Option<SyncSender<Vec<u8>>>,
    writer: Option<JoinHandle<io::Result<BlobRef>>>,
}

impl LargeFile {
    fn create(folder: &Path) -> io::Result<Self> {
        let path = temporary(folder);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let (blocks, queue) = sync_channel(BLOCKS_QUEUED);
        let writer = std::thread::Builder::new().name("model".into()).spawn(move || fill(file, &queue))?;
        Ok(Self { path, blocks: Some(blocks), writer: Some(writer) })
    }

    fn append(&mut self, block: Vec<u8>) -> io::Result<()> {
        match &self.blocks {
            Some(blocks) if blocks.send(block).is_ok() => Ok(()),
            // The thread has ended early: it says why.
            _ => Err(self.finish().err().unwrap_or_else(|| io::Error::other("the model's file ended early"))),
        }
    }

    /// Waits until all is on the disk.
    fn finish(&mut self) -> io::Result<BlobRef> {
        self.blocks = None;
        let writer = self.writer.take().ok_or_else(|| io::Error::other("the model's file has failed before"))?;
        writer.join().map_err(|_| io::Error::other("the thread that writes a model panicked"))?
    }
}

impl Drop for LargeFile {
    /// Removes what was given up; a finished file has another name by now.
    fn drop(&mut self) {
        drop(self.finish());
        drop(fs::remove_file(&self.path));
    }
}

fn fill(mut file: File, queue: &Receiver<Vec<u8>>) -> io::Result<BlobRef> {
    let mut hasher = blake3::Hasher::new();
    let mut unsynced = 0;
    for block in queue {
        hasher.update(&block);
        file.write_all(&block)?;
        unsynced += block.len();
        if unsynced >= SYNC_BYTES {
            file.sync_data()?;
            unsynced = 0;
        }
    }
    file.sync_data()?;
    Ok(BlobRef { bytes: hasher.count(), digest: hasher.finalize().into() })
}

impl Write for ModelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_bytes(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a whole model, such as the first one, into the folder of models.
pub fn write_model(folder: &Path, model: &Tensors) -> io::Result<WrittenModel> {
    let mut writer = ModelWriter::create(folder, &[])?;
    model.write_to(&mut writer)?;
    writer.finish()
}
