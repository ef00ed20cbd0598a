//! The MNIST images (data type `default`) as a table: columns `pixel_0`, `pixel_1`, … row by row from the top left, from 0 to
//! 255 as in the files, then `label`.
//!
//! The training files are read, as Fed-BioMed does, packed with gzip or not, in the given folder or in `MNIST/raw` below it,
//! where torchvision puts them.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::SchemaRef;
use flate2::bufread::MultiGzDecoder;
use protocol::{ColumnFace, ColumnKind};

use crate::error::DataError;
use crate::fingerprint::{FileFingerprint, Fingerprint, Stamp};
use crate::idx::{self, IdxError, Pairs};
use crate::scan::{Layout, Scan, Stoppable, open_file};
use crate::schema::Schema;
use crate::source::{Batches, Source, batch, rows_per_batch};

/// Where the two files are.
#[derive(Debug, Clone)]
pub(crate) struct MnistFiles {
    pub(crate) images: PathBuf,
    pub(crate) labels: PathBuf,
}

/// Finds the training files below a folder.
pub(crate) fn find(folder: &Path) -> Result<MnistFiles, DataError> {
    let metadata = folder.metadata().map_err(|source| DataError::Io { path: folder.to_owned(), source })?;
    if !metadata.is_dir() {
        let expected = "the folder that holds the MNIST files";
        return Err(DataError::NotAFile { path: folder.to_owned(), expected, found: "a file" });
    }
    let one = |kind: &'static str| {
        let folders = [folder.to_owned(), folder.join("MNIST/raw"), folder.join("raw")];
        // Some copies have a dot where the others have a hyphen.
        let names = [kind.to_owned(), kind.replacen("-idx", ".idx", 1)];
        let paths = folders.iter().flat_map(|folder| {
            names.iter().flat_map(move |name| ["", ".gz"].map(|ending| folder.join(format!("train-{name}-ubyte{ending}"))))
        });
        paths.into_iter().find(|path| path.exists()).ok_or_else(|| DataError::MnistMissing { path: folder.to_owned(), kind })
    };
    Ok(MnistFiles { images: one("images-idx3")?, labels: one("labels-idx1")? })
}

type Input = Box<dyn Read + Send>;

/// Opens a file, unpacking it if its first bytes say gzip.
fn open_unpacked(path: &Path) -> Result<Input, DataError> {
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let mut input = BufReader::with_capacity(1 << 16, open_file(path)?);
    let packed = input.fill_buf().map_err(io)?.starts_with(&[0x1f, 0x8b]);
    Ok(if packed { Box::new(MultiGzDecoder::new(input)) } else { Box::new(input) })
}

fn in_folder(folder: &Path) -> impl Fn(IdxError) -> DataError {
    move |source| DataError::Idx { path: folder.to_owned(), source }
}

fn schema(pixels: usize) -> Schema {
    let names = (0..pixels).map(|pixel| format!("pixel_{pixel}")).chain(["label".to_owned()]);
    Schema::trusted(names.map(|name| ColumnFace { name, kind: ColumnKind::Integer }).collect())
}

/// Reads and checks all images and labels.
pub(crate) fn scan(folder: &Path, stop: &AtomicBool) -> Result<Scan, DataError> {
    let MnistFiles { images, labels } = find(folder)?;
    let before = [Stamp::of_path(&images)?, Stamp::of_path(&labels)?];
    let unpacked = |path| Ok::<_, DataError>(Stoppable { input: open_unpacked(path)?, stop });
    let (rows, pixels) = idx::check(unpacked(&images)?, unpacked(&labels)?).map_err(in_folder(folder))?;
    let files = vec![FileFingerprint::of(&images, stop)?, FileFingerprint::of(&labels, stop)?];
    if !files.iter().map(|file| file.stamp).eq(before) {
        return Err(DataError::ChangedMeanwhile { path: folder.to_owned() });
    }
    let schema = schema(pixels);
    let missing = vec![0; schema.len()];
    Ok(Scan {
        layout: Layout::Mnist,
        missing,
        schema,
        rows: u64::from(rows),
        levels: std::collections::BTreeMap::new(),
        marks: Vec::new(),
        fingerprint: Fingerprint { files },
    })
}

/// The MNIST images whose scan is known.
#[derive(Debug)]
pub(crate) struct MnistSource {
    pub(crate) folder: PathBuf,
    pub(crate) schema: Schema,
    pub(crate) rows: u64,
}

impl Source for MnistSource {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn batches(&self, columns: &[&str]) -> Result<Batches<'_>, DataError> {
        let positions = self.schema.positions(columns)?;
        let files = find(&self.folder)?;
        let (images, labels) = (open_unpacked(&files.images)?, open_unpacked(&files.labels)?);
        let pairs = Pairs::new(images, labels).map_err(in_folder(&self.folder))?;
        if u64::from(pairs.count()) != self.rows || pairs.pixels() + 1 != self.schema.len() {
            return Err(DataError::Changed { path: self.folder.clone() });
        }
        let (arrow, folder) = (self.schema.arrow(&positions), self.folder.as_path());
        Ok(Box::new(MnistBatches { folder, pairs, positions, arrow, pixels: Vec::new(), labels: Vec::new(), ended: false }))
    }
}

struct MnistBatches<'a> {
    folder: &'a Path,
    pairs: Pairs<Input, Input>,
    positions: Vec<usize>,
    arrow: SchemaRef,
    pixels: Vec<u8>,
    labels: Vec<u8>,
    ended: bool,
}

impl MnistBatches<'_> {
    fn read_batch(&mut self) -> Result<Option<RecordBatch>, DataError> {
        let width = self.pairs.pixels();
        let rows = u32::try_from(rows_per_batch(width)).unwrap_or(u32::MAX);
        self.pairs.read(rows, &mut self.pixels, &mut self.labels).map_err(in_folder(self.folder))?;
        if self.labels.is_empty() {
            return Ok(None);
        }
        let column = |position: &usize| -> ArrayRef {
            let values: Int64Array = if *position == width {
                self.labels.iter().map(|label| Some(i64::from(*label))).collect()
            } else {
                self.pixels.iter().skip(*position).step_by(width).map(|pixel| Some(i64::from(*pixel))).collect()
            };
            Arc::new(values)
        };
        let arrays = self.positions.iter().map(column).collect();
        Ok(Some(batch(&self.arrow, arrays, self.labels.len())))
    }
}

impl Iterator for MnistBatches<'_> {
    type Item = Result<RecordBatch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let batch = self.read_batch();
        self.ended = !matches!(batch, Ok(Some(_)));
        batch.transpose()
    }
}
