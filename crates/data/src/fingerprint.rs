//! Whether a file is still what was registered: quickly, by what the file system knows, or fully, by its digest.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use protocol::Digest;
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::scan::{Stoppable, open_file, or_stopped};

/// What the file system knows of a file; it changes with nearly every change of the content, and costs nothing to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    pub bytes: u64,
    /// Nanoseconds from 1970-01-01T00:00:00Z to the last change of the content; before that, negative.
    pub modified_ns: i64,
    pub inode: u64,
}

impl Stamp {
    fn of_metadata(metadata: &Metadata) -> Self {
        let modified_ns = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
        Self { bytes: metadata.len(), modified_ns, inode: metadata.ino() }
    }

    /// Asks the file system about an open file.
    pub(crate) fn of_file(file: &File, path: &Path) -> Result<Self, DataError> {
        let metadata = file.metadata().map_err(|source| DataError::Io { path: path.to_owned(), source })?;
        Ok(Self::of_metadata(&metadata))
    }

    /// Asks the file system about the file of this name.
    pub(crate) fn of_path(path: &Path) -> Result<Self, DataError> {
        let metadata = path.metadata().map_err(|source| DataError::Io { path: path.to_owned(), source })?;
        Ok(Self::of_metadata(&metadata))
    }
}

/// Stamp and content of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileFingerprint {
    pub stamp: Stamp,
    /// BLAKE3 of the whole file, as `b3sum` prints it.
    pub digest: Digest,
}

impl FileFingerprint {
    /// Reads a whole file.
    pub(crate) fn of(path: &Path, stop: &AtomicBool) -> Result<Self, DataError> {
        let io = |source| DataError::Io { path: path.to_owned(), source };
        let file = open_file(path)?;
        let stamp = Stamp::of_file(&file, path)?;
        let mut hasher = blake3::Hasher::new();
        or_stopped(hasher.update_reader(Stoppable { input: &file, stop }).map(drop).map_err(io), stop)?;
        if Stamp::of_path(path)? != stamp {
            return Err(DataError::ChangedMeanwhile { path: path.to_owned() });
        }
        Ok(Self { stamp, digest: hasher.finalize().into() })
    }
}

/// The files of a dataset, in the order of its layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint {
    pub files: Vec<FileFingerprint>,
}

/// How thoroughly to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Stamps; the content only where these differ. At each use.
    Quick,
    /// The content. At the start of an experiment.
    Full,
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    Same,
    /// The content is the same under other stamps (copied, restored, touched): keep this fingerprint instead.
    Touched(Fingerprint),
    Changed,
}

impl Fingerprint {
    /// Compares with the files of now, in the same order.
    pub(crate) fn compare(
        &self,
        paths: &[impl AsRef<Path>],
        depth: Depth,
        stop: &AtomicBool,
    ) -> Result<Comparison, DataError> {
        if paths.len() != self.files.len() {
            return Ok(Comparison::Changed);
        }
        let mut files = Vec::with_capacity(paths.len());
        for (before, path) in self.files.iter().zip(paths) {
            let stamp = Stamp::of_path(path.as_ref())?;
            if depth == Depth::Quick && stamp == before.stamp {
                files.push(*before);
                continue;
            }
            if stamp.bytes != before.stamp.bytes {
                return Ok(Comparison::Changed);
            }
            let now = FileFingerprint::of(path.as_ref(), stop)?;
            if now.digest != before.digest {
                return Ok(Comparison::Changed);
            }
            files.push(now);
        }
        Ok(if files == self.files { Comparison::Same } else { Comparison::Touched(Self { files }) })
    }
}
