//! From a description to a scan, and from a scan to a source.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::csv::{self, CsvSource, Delimiter, Mark, ScanOptions, delimiter_of};
use crate::description::{Description, Parameters};
use crate::dicom::{self, DicomSource};
use crate::error::DataError;
use crate::fhir::{self, FhirSource};
use crate::fingerprint::{Comparison, Depth, FileFingerprint, Fingerprint, Stamp};
use crate::image_folder::{self, ImageSource};
use crate::levels::LevelCount;
use crate::medical_folder::{self, Lacking, MedicalFolderSource};
use crate::mnist::{self, MnistFiles, MnistSource};
use crate::omop::{self, OmopSource};
use crate::parquet::{self, ParquetSource};
use crate::schema::Schema;
use crate::source::Source;

/// How a dataset's files are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "format", deny_unknown_fields)]
pub enum Layout {
    Csv {
        delimiter: Delimiter,
    },
    Parquet,
    Mnist,
    Images {
        /// Width and height of the pictures that are the table's pixels.
        size: Option<[usize; 2]>,
    },
    MedicalFolder {
        /// Of the demographics, if there are any.
        delimiter: Option<Delimiter>,
    },
    Dicom,
    Fhir,
    Omop,
    Postgres,
}

/// What one pass over a dataset learned: its full fingerprint, and all that opening it needs. The node stores it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scan {
    pub layout: Layout,
    pub schema: Schema,
    pub rows: u64,
    /// Missing cells of each column, in the schema's order.
    pub missing: Vec<u64>,
    /// The values of columns that have few, by the column's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub levels: BTreeMap<String, Vec<LevelCount>>,
    /// Where a CSV file can be read in parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Mark>,
    pub fingerprint: Fingerprint,
}

impl Scan {
    /// Whether the data is still what was scanned. Fails soon after `stop` is set.
    pub fn compare(&self, description: &Description, depth: Depth, stop: &AtomicBool) -> Result<Comparison, DataError> {
        self.fingerprint.compare(&files(description)?, depth, stop)
    }

    /// The kinds of the columns that had values.
    fn kinds(&self) -> BTreeMap<String, protocol::ColumnKind> {
        let columns = self.schema.columns().iter().zip(&self.missing);
        let filled = columns.filter(|(_, missing)| **missing < self.rows);
        filled.map(|(column, _)| (column.name.clone(), column.kind)).collect()
    }
}

/// The files of a dataset, in the order of its fingerprint.
fn files(description: &Description) -> Result<Vec<PathBuf>, DataError> {
    let path = &description.path;
    match &description.parameters {
        Parameters::Csv(_) | Parameters::Parquet => Ok(vec![path.clone()]),
        Parameters::Mnist => mnist::find(path).map(|MnistFiles { images, labels }| vec![images, labels]),
        Parameters::Images(_) => image_folder::files(path),
        Parameters::MedicalFolder(parameters) => medical_folder::files(path, parameters),
        Parameters::Dicom(_) => dicom::files(path),
        Parameters::Fhir(_) => fhir::files(path),
        Parameters::Omop(parameters) => omop::files(path, &parameters.cohort),
        Parameters::Postgres(_) => Ok(Vec::new()),
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
        Parameters::Parquet => parquet::scan(&description.path, stop),
        Parameters::Mnist => mnist::scan(&description.path, stop),
        Parameters::Images(parameters) => image_folder::scan(&description.path, *parameters, stop),
        Parameters::MedicalFolder(parameters) => medical_folder::scan(&description.path, parameters, stop),
        Parameters::Dicom(parameters) => dicom::scan(&description.path, parameters, stop),
        Parameters::Fhir(parameters) => fhir::scan(&description.path, parameters, stop),
        Parameters::Omop(parameters) => omop::scan(&description.path, &parameters.cohort, stop),
        // Scanned and opened by `postgres::Database`, which has a connection.
        Parameters::Postgres(_) => Err(DataError::NotConnected),
    };
    or_stopped(scan, stop)
}

pub(crate) fn scan_csv(path: &Path, options: &ScanOptions, stop: &AtomicBool) -> Result<Scan, DataError> {
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
        levels: found.levels,
        marks: found.marks,
        fingerprint: Fingerprint { files: vec![FileFingerprint { stamp, digest }] },
    })
}

/// Opens the data of a scan. Compare first: what changed since may be refused in the middle of a stream.
pub fn open(description: &Description, scan: &Scan) -> Result<Box<dyn Source>, DataError> {
    let (path, schema, rows) = (description.path.clone(), scan.schema.clone(), scan.rows);
    match (&description.parameters, scan.layout) {
        (Parameters::Csv(_), Layout::Csv { delimiter }) => {
            Ok(Box::new(CsvSource { path, delimiter, schema, rows, marks: scan.marks.clone() }))
        }
        (Parameters::Parquet, Layout::Parquet) => match ParquetSource::open(&path)? {
            source if *source.schema() == schema && source.rows() == rows => Ok(Box::new(source)),
            _ => Err(DataError::Changed { path }),
        },
        (Parameters::Mnist, Layout::Mnist) => Ok(Box::new(MnistSource { folder: path, schema, rows })),
        (Parameters::Images(_), Layout::Images { size }) => Ok(Box::new(ImageSource { folder: path, size, schema, rows })),
        (Parameters::MedicalFolder(parameters), Layout::MedicalFolder { delimiter }) => {
            Ok(Box::new(MedicalFolderSource::new(&path, parameters, delimiter, schema, rows)?))
        }
        (Parameters::Fhir(parameters), Layout::Fhir) => {
            Ok(Box::new(FhirSource { path, parameters: parameters.clone(), schema, rows }))
        }
        (Parameters::Postgres(_), Layout::Postgres) => Err(DataError::NotConnected),
        (Parameters::Omop(parameters), Layout::Omop) => {
            Ok(Box::new(OmopSource::open(&path, &parameters.cohort, schema, rows)?))
        }
        (Parameters::Dicom(parameters), Layout::Dicom) => {
            Ok(Box::new(DicomSource { folder: path, parameters: parameters.clone(), schema, rows }))
        }
        _ => Err(DataError::OtherLayout),
    }
}

/// A sheet of small pictures of the dataset as a PNG file; none if it holds no pictures.
pub fn thumbnails(description: &Description) -> Result<Option<Vec<u8>>, DataError> {
    let path = &description.path;
    match &description.parameters {
        Parameters::Images(_) => image_folder::thumbnails(path).map(Some),
        Parameters::MedicalFolder(parameters) => medical_folder::thumbnails(path, parameters).map(Some),
        Parameters::Dicom(_) => dicom::thumbnails(path).map(Some),
        Parameters::Csv(_)
        | Parameters::Parquet
        | Parameters::Mnist
        | Parameters::Fhir(_)
        | Parameters::Omop(_)
        | Parameters::Postgres(_) => Ok(None),
    }
}

/// What a medical folder lacks; none for other kinds.
pub fn lacking(description: &Description, scan: &Scan) -> Result<Option<Lacking>, DataError> {
    match (&description.parameters, scan.layout) {
        (Parameters::MedicalFolder(parameters), Layout::MedicalFolder { delimiter }) => {
            let (schema, rows) = (scan.schema.clone(), scan.rows);
            MedicalFolderSource::new(&description.path, parameters, delimiter, schema, rows)?.lacking().map(Some)
        }
        _ => Ok(None),
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
