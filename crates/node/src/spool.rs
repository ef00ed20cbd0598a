//! Contributions on disk, one file each, written by the disclosure gate only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use protocol::{BlobRef, Digest, ResearcherId, TaskId};
use transport::blob::{BlobHasher, ChunkDigests};

/// A contribution up to this size lies in the journal as well, so that one commit makes both durable. The score histograms of
/// a binary validation have 64 KiB.
pub(crate) const INLINE_BYTES: u64 = 256 << 10;

/// A large contribution is forced to the disk whenever so many bytes have been added and the disk is free.
const SYNC_BYTES: usize = 1 << 20;

/// The folder of contributions on their way.
#[derive(Debug, Clone)]
pub(crate) struct Spool {
    folder: PathBuf,
}

/// A contribution being written.
pub(crate) struct SpoolWriter {
    file: File,
    path: PathBuf,
    hasher: BlobHasher,
    folder: PathBuf,
    /// Bytes since the last word to the thread below.
    unsynced: usize,
    syncing: Option<Syncing>,
}

/// A thread that forces a large contribution's name and content to the disk while it grows, so that its end has little to wait for.
struct Syncing {
    go: SyncSender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Syncing {
    fn begin(file: &File, folder: &Path) -> io::Result<Self> {
        let (file, folder) = (file.try_clone()?, File::open(folder)?);
        let (go, told) = sync_channel(1);
        let sync = move || {
            folder.sync_all()?;
            told.iter().try_for_each(|()| file.sync_data())
        };
        let thread = std::thread::Builder::new().name("spool".into()).spawn(sync)?;
        Ok(Self { go, thread })
    }

    /// Waits for what it is at. Its error is told to nobody else.
    fn end(self) -> io::Result<()> {
        drop(self.go);
        self.thread.join().map_err(|_| io::Error::other("the thread that writes a contribution panicked"))?
    }
}

impl Spool {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the contribution to a task lies.
    pub(crate) fn path(&self, researcher: &ResearcherId, task: &TaskId) -> PathBuf {
        self.folder.join(format!("{researcher}.{task}"))
    }

    /// Begins a contribution; what an earlier try left is written over.
    pub(crate) fn create(&self, researcher: &ResearcherId, task: &TaskId) -> io::Result<SpoolWriter> {
        let path = self.path(researcher, task);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let (hasher, folder) = (BlobHasher::default(), self.folder.clone());
        Ok(SpoolWriter { file, path, hasher, folder, unsynced: 0, syncing: None })
    }

    /// Removes a contribution; one that is gone already is fine.
    pub(crate) fn remove(&self, researcher: &ResearcherId, task: &TaskId) -> io::Result<()> {
        match fs::remove_file(self.path(researcher, task)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes the files that no task of `is_wanted` has: left by a crash between two steps.
    pub(crate) fn sweep(&self, is_wanted: impl Fn(&Path) -> bool) -> io::Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.is_file() && !is_wanted(&path) {
                fs::remove_file(&path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

impl SpoolWriter {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.unsynced += bytes.len();
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            let syncing = match &mut self.syncing {
                Some(syncing) => syncing,
                None => self.syncing.insert(Syncing::begin(&self.file, &self.folder)?),
            };
            // If it has not done with the last word yet, the next one will do.
            let _ = syncing.go.try_send(());
        }
        Ok(())
    }

    /// Ends the contribution. It is on the disk when this returns, unless its content goes into the journal too.
    pub(crate) fn finish(mut self, is_inline: bool) -> io::Result<(PathBuf, BlobRef, ChunkDigests)> {
        let syncing = self.syncing.take();
        let is_named = syncing.is_some();
        syncing.map_or(Ok(()), Syncing::end)?;
        if !is_inline {
            self.file.sync_data()?;
            if !is_named {
                File::open(&self.folder)?.sync_all()?;
            }
        }
        let (blob, digests) = self.hasher.finish();
        Ok((self.path, blob, digests))
    }
}

/// The digest of a file's content.
pub(crate) fn digest_of(path: &Path) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize().into())
}

/// The bytes of all files below a folder.
pub(crate) fn bytes_below(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // Removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        bytes += if metadata.is_dir() { bytes_below(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// Reads a small file whole; `None` if it is not there.
pub(crate) fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_end(&mut bytes).map(|_| Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
