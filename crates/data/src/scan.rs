//! From a description to a scan, and from a scan to a source.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::csv::{self, CsvSource, Delimiter, ScanOptions, delimiter_of};
use crate::description::{Description, Parameters};
use crate::error::DataError;
use crate::fingerprint::{Comparison, Depth, FileFingerprint, Fingerprint, Stamp};
use crate::mnist::{self, MnistFiles, MnistSource};
use crate::schema::Schema;
use crate::source::Source;

/// How a dataset's files are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "format", deny_unknown_fields)]
pub enum Layout {
    Csv { delimiter: Delimiter },
    Mnist,
}

/// What one pass over a dataset learned: its full fingerprint, and all that opening it needs. The node stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scan {
    pub layout: Layout,
    pub schema: Schema,
    pub rows: u64,
    /// Missing cells of each column, in the schema's order.
    pub missing: Vec<u64>,
    pub fingerprint: Fingerprint,
}

impl Scan {
    /// Whether the data is still what was scanned. Fails soon after `stop` is set.
    pub fn compare(&self, description: &Description, depth: Depth, stop: &AtomicBool) -> Result<Comparison, DataError> {
        match self.layout {
            Layout::Csv { .. } => self.fingerprint.compare(&[&description.path], depth, stop),
            Layout::Mnist => {
                let MnistFiles { images, labels } = mnist::find(&description.path)?;
                self.fingerprint.compare(&[images, labels], depth, stop)
            }
        }
    }

    /// The kinds of the columns that had values.
    fn kinds(&self) -> BTreeMap<String, protocol::ColumnKind> {
        let columns = self.schema.columns().iter().zip(&self.missing);
        let filled = columns.filter(|(_, missing)| **missing < self.rows);
        filled.map(|(column, _)| (column.name.clone(), column.kind)).collect()
    }
}

/// Opens a regular file for reading. Anything else is refused: a pipe would block, a folder cannot be read.
pub(crate) fn open_file(path: &Path) -> Result<File, DataError> {
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let metadata = path.metadata().map_err(io)?;
    if !metadata.is_file() {
        let found = if metadata.is_dir() { "a folder" } else { "a device, pipe or socket" };
        return Err(DataError::NotAFile { path: path.to_owned(), expected: "a file", found });
    }
    File::open(path).map_err(io)
}

/// The most bytes that are read before somebody who wants to stop is heard.
const BLOCK: usize = 1 << 20;

/// Fails if somebody does not wait for the data any more.
pub(crate) fn go_on(stop: &AtomicBool) -> Result<(), DataError> {
    if stop.load(Ordering::Relaxed) { Err(DataError::Stopped) } else { Ok(()) }
}

/// Says of an error that came after somebody stopped the reading that this was the reason.
pub(crate) fn or_stopped<T>(result: Result<T, DataError>, stop: &AtomicBool) -> Result<T, DataError> {
    if result.is_err() {
        go_on(stop)?;
    }
    result
}

/// Reads until somebody stops it: then each read fails.
pub(crate) struct Stoppable<'a, R> {
    pub(crate) input: R,
    pub(crate) stop: &'a AtomicBool,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        go_on(self.stop).map_err(io::Error::other)?;
        let len = buffer.len().min(BLOCK);
        self.input.read(&mut buffer[..len])
    }
}

/// Hashes what is read through it.
struct Hashing<R> {
    input: R,
    hasher: blake3::Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// Reads the data once, in constant memory: its columns, rows, missing cells and fingerprint, or what is wrong with it.
/// On a refresh the scan before is given, so that a numeric column cannot become text unnoticed. Fails soon after `stop` is set.
pub fn scan(description: &Description, previous: Option<&Scan>, stop: &AtomicBool) -> Result<Scan, DataError> {
    let scan = match &description.parameters {
        Parameters::Csv(parameters) => {
            let options = ScanOptions {
                delimiter: parameters.delimiter.or_else(|| delimiter_of(&description.path)),
                declared: parameters.column_types.clone(),
                previous: previous.map(Scan::kinds).unwrap_or_default(),
            };
            scan_csv(&description.path, &options, stop)
        }
        Parameters::Mnist => mnist::scan(&description.path, stop),
    };
    or_stopped(scan, stop)
}

fn scan_csv(path: &Path, options: &ScanOptions, stop: &AtomicBool) -> Result<Scan, DataError> {
    let file = open_file(path)?;
    let stamp = Stamp::of_file(&file, path)?;
    let mut input = Hashing { input: Stoppable { input: &file, stop }, hasher: blake3::Hasher::new() };
    let found = csv::scan(&mut input, options).map_err(|source| DataError::Csv { path: path.to_owned(), source })?;
    let digest = input.hasher.finalize().into();
    if Stamp::of_path(path)? != stamp {
        return Err(DataError::ChangedMeanwhile { path: path.to_owned() });
    }
    Ok(Scan {
        layout: Layout::Csv { delimiter: found.delimiter },
        schema: found.schema,
        rows: found.rows,
        missing: found.missing,
        fingerprint: Fingerprint { files: vec![FileFingerprint { stamp, digest }] },
    })
}

/// Opens the data of a scan. Compare first: what changed since may be refused in the middle of a stream.
pub fn open(description: &Description, scan: &Scan) -> Result<Box<dyn Source>, DataError> {
    let (path, schema, rows) = (description.path.clone(), scan.schema.clone(), scan.rows);
    match (&description.parameters, scan.layout) {
        (Parameters::Csv(_), Layout::Csv { delimiter }) => Ok(Box::new(CsvSource { path, delimiter, schema, rows })),
        (Parameters::Mnist, Layout::Mnist) => Ok(Box::new(MnistSource { folder: path, schema, rows })),
        _ => Err(DataError::OtherLayout),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_after_the_stop_fails_and_none_before_it_is_long() {
        let stop = AtomicBool::new(false);
        let mut input = Stoppable { input: io::repeat(b'1'), stop: &stop };
        let mut buffer = vec![0; 3 * BLOCK];
        assert_eq!(input.read(&mut buffer).unwrap(), BLOCK);
        stop.store(true, Ordering::Relaxed);
        let error = input.read(&mut buffer).unwrap_err();
        assert_eq!(error.to_string(), DataError::Stopped.to_string());
        assert!(matches!(or_stopped::<()>(Err(DataError::NoFeatures), &stop), Err(DataError::Stopped)));
    }
}
