//! Snapshots: the rows of a dataset as they were, in a Parquet file whose digest names the version.
//!
//! Functions of paths: where snapshots lie, which version is which and how long they are kept is the node's.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use protocol::Digest;

use crate::error::DataError;
use crate::fingerprint::{Comparison, Depth, FileFingerprint, Fingerprint, Stamp};
use crate::learn::Learning;
use crate::parquet::ParquetSource;
use crate::scan::{Layout, Scan, go_on};
use crate::source::Source;

/// The most rows of a group, which is what one thread reads.
const GROUP_ROWS: usize = 1 << 17;

/// Writes all rows of a source to a new file, readable by its owner only, and says what it holds. The file appears whole or not at
/// all. About `memory_bytes` are held before they are written. Fails soon after `stop` is set.
pub fn write(source: &dyn Source, path: &Path, memory_bytes: u64, stop: &AtomicBool) -> Result<Scan, DataError> {
    let partial = partial_path(path);
    let written = write_file(source, &partial, memory_bytes, stop).and_then(|written| {
        let io = |source| DataError::Io { path: path.to_owned(), source };
        std::fs::rename(&partial, path).map_err(io)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
        Ok(written)
    });
    if written.is_err() {
        // It may not be there; the reason is the error above.
        drop(std::fs::remove_file(&partial));
    }
    let Written { learning, digest } = written?;
    let rows = learning.rows();
    let (missing, levels) = learning.finish(source.schema());
    let stamp = Stamp::of_path(path)?;
    Ok(Scan {
        layout: Layout::Parquet,
        schema: source.schema().clone(),
        rows,
        missing,
        levels,
        marks: Vec::new(),
        fingerprint: Fingerprint { files: vec![FileFingerprint { stamp, digest }] },
    })
}

/// Opens a snapshot that is still what was written; at [`Depth::Full`] all of it is hashed first.
pub fn open(path: &Path, scan: &Scan, depth: Depth, stop: &AtomicBool) -> Result<Box<dyn Source>, DataError> {
    if scan.fingerprint.compare(&[path], depth, stop)? == Comparison::Changed {
        return Err(DataError::Changed { path: path.to_owned() });
    }
    let source = ParquetSource::open(path)?;
    if *source.schema() != scan.schema || source.rows() != scan.rows {
        return Err(DataError::Changed { path: path.to_owned() });
    }
    Ok(Box::new(source))
}

struct Written {
    learning: Learning,
    digest: Digest,
}

fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

fn write_file(source: &dyn Source, path: &Path, memory_bytes: u64, stop: &AtomicBool) -> Result<Written, DataError> {
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let failed = |error: parquet::errors::ParquetError| io(io::Error::other(error));
    // What an earlier write left behind when it was killed goes.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
    let output = Hashing { output: BufWriter::new(file), hasher: blake3::Hasher::new() };
    let schema = source.schema();
    let positions: Vec<usize> = (0..schema.len()).collect();
    let names: Vec<&str> = schema.columns().iter().map(|column| column.name.as_str()).collect();
    let mut writer = ArrowWriter::try_new(output, schema.arrow(&positions), Some(properties())).map_err(failed)?;
    let mut learning = Learning::new(schema);
    for batch in source.batches(&names)? {
        go_on(stop)?;
        let batch = batch?;
        learning.add(&batch);
        writer.write(&batch).map_err(failed)?;
        if writer.memory_size() as u64 > memory_bytes {
            writer.flush().map_err(failed)?;
        }
    }
    let Hashing { output, hasher } = writer.into_inner().map_err(failed)?;
    let file = output.into_inner().map_err(|error| io(error.into_error()))?;
    file.sync_all().map_err(io)?;
    Ok(Written { learning, digest: hasher.finalize().into() })
}

/// Fast to read before small: pages of reals as they are, texts and integers by their dictionaries where they have few values.
fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::None)
        .build()
}

/// Hashes what is written through it.
struct Hashing<W> {
    output: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
