//! DICOM series as a table: a row for each, without the names of folders, which are often patients'.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow_array::{ArrayRef, Float64Array, Int64Array, StringArray};
use protocol::{ColumnFace, ColumnKind};
use serde::{Deserialize, Serialize};

use super::{Series, find_series, read_series};
use crate::error::DataError;
use crate::files::{is_dicom, sorted_entries};
use crate::fingerprint::{FileFingerprint, Fingerprint};
use crate::image_folder::end_after_error;
use crate::picture::{MAX_THUMBNAILS, middle_slice, sheet};
use crate::scan::{Layout, Scan, go_on};
use crate::schema::Schema;
use crate::source::{Batches, Source, batch};
use crate::volume::steps::{Step, apply, moments};

/// How a `dicom` dataset is to be read.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DicomParameters {
    /// Voxels of every series, checked before any step.
    #[serde(default)]
    pub size: Option<[usize; 3]>,
    /// Taken on every series that is read.
    #[serde(default)]
    pub steps: Vec<Step>,
}

const COLUMNS: [(&str, ColumnKind); 9] = [
    ("modality", ColumnKind::Text),
    ("columns", ColumnKind::Integer),
    ("rows", ColumnKind::Integer),
    ("slices", ColumnKind::Integer),
    ("spacing_column_mm", ColumnKind::Real),
    ("spacing_row_mm", ColumnKind::Real),
    ("spacing_slice_mm", ColumnKind::Real),
    ("mean", ColumnKind::Real),
    ("sd", ColumnKind::Real),
];

impl DicomParameters {
    /// Reads the series of a folder: checks its size, then takes the declared steps.
    pub fn read(&self, folder: &Path) -> Result<Series, DataError> {
        let Series { modality, volume } = read_series(folder)?;
        if let Some(expected) = self.size.filter(|expected| *expected != volume.size()) {
            return Err(DataError::VolumeSize { path: folder.to_owned(), expected, found: volume.size() });
        }
        let volume = apply(volume, &self.steps).map_err(|source| DataError::Step { path: folder.to_owned(), source })?;
        Ok(Series { modality, volume })
    }
}

/// The files of a dataset, in the order of its fingerprint.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    for series in find_series(folder)? {
        files.extend(sorted_entries(&series)?.into_iter().filter(|path| is_dicom(path)));
    }
    Ok(files)
}

/// Reads and checks all series.
pub(crate) fn scan(folder: &Path, parameters: &DicomParameters, stop: &AtomicBool) -> Result<Scan, DataError> {
    let series = find_series(folder)?;
    if series.is_empty() {
        let (expected, found) = ("folders of files ending with .dcm, one for each series", "none".to_owned());
        return Err(DataError::Folder { path: folder.to_owned(), expected, found });
    }
    for folder in &series {
        go_on(stop)?;
        parameters.read(folder)?;
    }
    let files: Result<Vec<_>, DataError> = files(folder)?.iter().map(|path| FileFingerprint::of(path, stop)).collect();
    let columns = COLUMNS.map(|(name, kind)| ColumnFace { name: name.to_owned(), kind });
    let schema = Schema::new(columns.to_vec())?;
    let missing = vec![0; schema.len()];
    let rows = series.len() as u64;
    Ok(Scan {
        layout: Layout::Dicom,
        schema,
        rows,
        missing,
        levels: std::collections::BTreeMap::new(),
        marks: Vec::new(),
        fingerprint: Fingerprint { files: files? },
    })
}

/// Series whose scan is known.
#[derive(Debug)]
pub(crate) struct DicomSource {
    pub(crate) folder: PathBuf,
    pub(crate) parameters: DicomParameters,
    pub(crate) schema: Schema,
    pub(crate) rows: u64,
}

impl Source for DicomSource {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn batches(&self, columns: &[&str]) -> Result<Batches<'_>, DataError> {
        let positions = self.schema.positions(columns)?;
        let series = find_series(&self.folder)?;
        if series.len() as u64 != self.rows {
            return Err(DataError::Changed { path: self.folder.clone() });
        }
        let read = move |folder: PathBuf| {
            let Series { modality, volume } = self.parameters.read(&folder)?;
            let (size, spacing) = (volume.size(), volume.spacing_mm());
            let (mean, sd) = moments(|| volume.values().iter().map(|value| f64::from(*value)));
            let column = |position: &usize| -> ArrayRef {
                match *position {
                    0 => Arc::new(StringArray::from(vec![modality.as_str()])),
                    at @ 1..=3 => Arc::new(Int64Array::from(vec![i64::try_from(size[at - 1]).expect("at most 2^28")])),
                    at @ 4..=6 => Arc::new(Float64Array::from(vec![spacing[at - 4]])),
                    7 => Arc::new(Float64Array::from(vec![mean])),
                    // One voxel has no deviation.
                    _ => Arc::new(Float64Array::from(vec![Some(sd).filter(|sd| sd.is_finite())])),
                }
            };
            Ok(batch(&self.schema.arrow(&positions), positions.iter().map(column).collect(), 1))
        };
        Ok(Box::new(series.into_iter().map(read).scan(false, end_after_error)))
    }
}

/// A sheet of middle slices as a PNG file.
pub(crate) fn thumbnails(folder: &Path) -> Result<Vec<u8>, DataError> {
    let slices: Result<Vec<_>, DataError> = find_series(folder)?
        .iter()
        .take(MAX_THUMBNAILS)
        .map(|folder| Ok(middle_slice(&read_series(folder)?.volume)))
        .collect();
    Ok(sheet(&slices?).to_png())
}
