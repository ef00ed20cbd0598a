//! Folders of subjects with a folder of NIfTI volumes for each modality, as IXI and BIDS have them, and a table of demographics.
//!
//! ```text
//! subjects/SYN-A001/T1/SYN-A001_T1.nii.gz       modality T1 in folder T1
//! sub-01/anat/sub-01_T1w.nii.gz                 modality T1 in "anat/T1w": files of folder anat that end in _T1w
//! ```
//!
//! The dataset's table is that of the demographics, with a column `has_MODALITY` (1 or 0) for each modality; without
//! demographics it has only these. Statistics work on it as on any other table.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use protocol::{ColumnFace, ColumnKind};
use serde::{Deserialize, Serialize};

use crate::csv::{CsvSource, Delimiter, ScanOptions, delimiter_of};
use crate::error::DataError;
use crate::files::{folders_in, is_nifti, name, sorted_entries};
use crate::fingerprint::{FileFingerprint, Fingerprint};
use crate::image_folder::end_after_error;
use crate::nifti;
use crate::picture::{MAX_THUMBNAILS, middle_slice, sheet};
use crate::scan::{Layout, Scan, scan_csv};
use crate::schema::Schema;
use crate::source::{Batches, Source, batch, rows_per_batch};
use crate::volume::Volume;
use crate::volume::steps::{Step, apply};

/// How a `medical-folder` dataset is to be read.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MedicalFolderParameters {
    /// The table of demographics: CSV or TSV. A relative path begins in the dataset's folder.
    #[serde(default)]
    pub tabular_file: Option<PathBuf>,
    /// The column of the table that holds the names of the subjects' folders; needed with the table.
    #[serde(default)]
    pub index_col: Option<String>,
    /// The loading plan of the modalities: for each the folders that may hold it, as `T1 = ["T1", "t1-mprage", "anat/T1w"]`.
    /// Empty: each folder below a subject is a modality of its name.
    #[serde(default)]
    pub modalities_to_folders: BTreeMap<String, Vec<String>>,
    /// Voxels of every volume, checked when one is read and before any step.
    #[serde(default)]
    pub size: Option<[usize; 3]>,
    /// Taken on every volume that is read.
    #[serde(default)]
    pub steps: Vec<Step>,
}

/// The volumes of a medical folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subjects {
    /// In the order of the modalities' names.
    pub modalities: Vec<String>,
    /// For each subject the files of its modalities.
    pub files: BTreeMap<String, BTreeMap<String, PathBuf>>,
}

/// What a medical folder lacks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lacking {
    /// Subject and modality.
    pub volumes: Vec<(String, String)>,
    /// Rows of the demographics without a folder.
    pub folders: Vec<String>,
    /// Folders without a row in the demographics.
    pub rows: Vec<String>,
}

impl Subjects {
    /// Looks through the folders, without opening any volume.
    pub fn find(folder: &Path, plan: &BTreeMap<String, Vec<String>>) -> Result<Self, DataError> {
        let mut files = BTreeMap::new();
        for subject in folders_in(folder)? {
            let volumes = if plan.is_empty() { volumes_by_folder(&subject)? } else { volumes_by_plan(&subject, plan)? };
            files.insert(name(&subject), volumes);
        }
        let modalities: BTreeSet<String> = if plan.is_empty() {
            files.values().flat_map(BTreeMap::keys).cloned().collect()
        } else {
            plan.keys().cloned().collect()
        };
        if files.values().all(BTreeMap::is_empty) {
            let expected = "a folder for each subject, and in it a folder for each modality with one .nii or .nii.gz file";
            let found = format!("{} folders and no volume where the loading plan looks", files.len());
            return Err(DataError::Folder { path: folder.to_owned(), expected, found });
        }
        Ok(Self { modalities: modalities.into_iter().collect(), files })
    }

    /// The subjects with a volume of every modality.
    pub fn complete(&self) -> impl Iterator<Item = &str> {
        let all = self.modalities.len();
        self.files.iter().filter(move |(_, volumes)| volumes.len() == all).map(|(subject, _)| subject.as_str())
    }

    /// Lists what is missing, given the subjects of the demographics if there are any.
    pub fn lacking(&self, rows: Option<&[String]>) -> Lacking {
        let mut lacking = Lacking::default();
        for (subject, volumes) in &self.files {
            let absent = self.modalities.iter().filter(|modality| !volumes.contains_key(*modality));
            lacking.volumes.extend(absent.map(|modality| (subject.clone(), modality.clone())));
        }
        if let Some(rows) = rows {
            lacking.folders = rows.iter().filter(|row| !self.files.contains_key(*row)).cloned().collect();
            let rows: HashSet<&str> = rows.iter().map(String::as_str).collect();
            lacking.rows = self.files.keys().filter(|subject| !rows.contains(subject.as_str())).cloned().collect();
        }
        lacking
    }

    fn has(&self, subject: &str, modality: &str) -> bool {
        self.files.get(subject).is_some_and(|volumes| volumes.contains_key(modality))
    }

    fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.values().flat_map(BTreeMap::values)
    }
}

fn volumes_by_folder(subject: &Path) -> Result<BTreeMap<String, PathBuf>, DataError> {
    let mut volumes = BTreeMap::new();
    for folder in folders_in(subject)? {
        if let Some(path) = one_volume(&folder, None)? {
            volumes.insert(name(&folder), path);
        }
    }
    Ok(volumes)
}

fn volumes_by_plan(subject: &Path, plan: &BTreeMap<String, Vec<String>>) -> Result<BTreeMap<String, PathBuf>, DataError> {
    let mut volumes = BTreeMap::new();
    for (modality, places) in plan {
        for place in places {
            let (folder, suffix) = place.split_once('/').map_or((place.as_str(), None), |(folder, end)| (folder, Some(end)));
            // A loading plan names folders below the subject, and no way out of it.
            if matches!(folder, "" | "." | "..") {
                continue;
            }
            let folder = subject.join(folder);
            if !folder.is_dir() {
                continue;
            }
            if let Some(path) = one_volume(&folder, suffix)?
                && volumes.insert(modality.clone(), path).is_some()
            {
                let expected = "one volume for a modality";
                let found = format!("two folders of the loading plan for {modality:?}");
                return Err(DataError::Folder { path: subject.to_owned(), expected, found });
            }
        }
    }
    Ok(volumes)
}

/// The one volume in a folder whose name ends in an underscore and the suffix.
fn one_volume(folder: &Path, suffix: Option<&str>) -> Result<Option<PathBuf>, DataError> {
    let is_meant = |path: &Path| {
        let name = name(path);
        let stem = name.strip_suffix(".gz").unwrap_or(&name);
        let stem = stem.strip_suffix(".nii").unwrap_or(stem);
        suffix.is_none_or(|suffix| stem.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('_')))
    };
    let mut volumes = sorted_entries(folder)?.into_iter().filter(|path| is_nifti(path) && is_meant(path));
    let first = volumes.next();
    if volumes.next().is_some() {
        let found = "several; a loading plan can say which, as \"anat/T1w\"".to_owned();
        return Err(DataError::Folder { path: folder.to_owned(), expected: "one .nii or .nii.gz file", found });
    }
    Ok(first)
}

impl MedicalFolderParameters {
    /// The table's path, its column of subjects and how it is read.
    fn table(&self, folder: &Path) -> Result<Option<(PathBuf, &str, ScanOptions)>, DataError> {
        let wrong = |expected, found: &str| DataError::Folder { path: folder.to_owned(), expected, found: found.to_owned() };
        match (&self.tabular_file, &self.index_col) {
            (None, None) => Ok(None),
            (Some(file), Some(column)) => {
                let path = folder.join(file);
                let options = ScanOptions {
                    delimiter: delimiter_of(&path),
                    // Names of folders, also where they look like numbers.
                    declared: BTreeMap::from([(column.clone(), ColumnKind::Text)]),
                    previous: BTreeMap::new(),
                };
                Ok(Some((path, column, options)))
            }
            (Some(_), None) => Err(wrong("`index_col` beside `tabular_file`", "only the file")),
            (None, Some(_)) => Err(wrong("`tabular_file` beside `index_col`", "only the column")),
        }
    }

    /// Reads a volume: checks its size, then takes the declared steps.
    pub fn read(&self, path: &Path) -> Result<Volume, DataError> {
        let volume = nifti::read_file(path)?;
        if let Some(expected) = self.size.filter(|expected| *expected != volume.size()) {
            return Err(DataError::VolumeSize { path: path.to_owned(), expected, found: volume.size() });
        }
        apply(volume, &self.steps).map_err(|source| DataError::Step { path: path.to_owned(), source })
    }
}

/// The files of a dataset, in the order of its fingerprint.
pub(crate) fn files(folder: &Path, parameters: &MedicalFolderParameters) -> Result<Vec<PathBuf>, DataError> {
    let table = parameters.table(folder)?.map(|(path, ..)| path);
    let subjects = Subjects::find(folder, &parameters.modalities_to_folders)?;
    Ok(table.into_iter().chain(subjects.paths().cloned()).collect())
}

/// Reads the table and the header of every volume.
pub(crate) fn scan(folder: &Path, parameters: &MedicalFolderParameters, stop: &AtomicBool) -> Result<Scan, DataError> {
    let subjects = Subjects::find(folder, &parameters.modalities_to_folders)?;
    let has =
        subjects.modalities.iter().map(|modality| ColumnFace { name: has_column(modality), kind: ColumnKind::Integer });
    let (mut columns, mut missing, mut files) = (Vec::new(), Vec::new(), Vec::new());
    let (mut rows, mut delimiter, mut levels) = (subjects.files.len() as u64, None, BTreeMap::new());
    if let Some((path, column, options)) = parameters.table(folder)? {
        let table = scan_csv(&path, &options, stop)?;
        table.schema.positions(&[column])?;
        if let Layout::Csv { delimiter: found } = table.layout {
            delimiter = Some(found);
        }
        let source = CsvSource {
            path,
            delimiter: delimiter.unwrap_or(Delimiter::Comma),
            schema: table.schema.clone(),
            rows: table.rows,
            marks: Vec::new(),
        };
        ids(&source, column)?;
        rows = table.rows;
        columns.extend(table.schema.columns().iter().cloned());
        missing = table.missing;
        levels = table.levels;
        files = table.fingerprint.files;
    }
    columns.extend(has);
    missing.resize(columns.len(), 0);
    for path in subjects.paths() {
        files.push(FileFingerprint::of(path, stop)?);
        let header = nifti::read_header(path)?;
        if let Some(expected) = parameters.size.filter(|expected| *expected != header.size) {
            return Err(DataError::VolumeSize { path: path.clone(), expected, found: header.size });
        }
    }
    let schema = Schema::new(columns)?;
    Ok(Scan {
        layout: Layout::MedicalFolder { delimiter },
        schema,
        rows,
        missing,
        levels,
        marks: Vec::new(),
        fingerprint: Fingerprint { files },
    })
}

fn has_column(modality: &str) -> String {
    format!("has_{modality}")
}

/// The subjects of a table, each in one row.
fn ids(table: &CsvSource, column: &str) -> Result<Vec<String>, DataError> {
    let (mut ids, mut seen) = (Vec::new(), HashSet::new());
    for batch in table.batches(&[column])? {
        for id in batch?.column(0).as_string::<i32>().iter().flatten() {
            if !seen.insert(id.to_owned()) {
                let (path, column) = (table.path.clone(), column.to_owned());
                return Err(DataError::IdTwice { path, column, id: id.to_owned() });
            }
            ids.push(id.to_owned());
        }
    }
    Ok(ids)
}

/// A medical folder whose scan is known.
#[derive(Debug)]
pub(crate) struct MedicalFolderSource {
    subjects: Subjects,
    table: Option<(CsvSource, String)>,
    schema: Schema,
    rows: u64,
}

impl MedicalFolderSource {
    pub(crate) fn new(
        folder: &Path,
        parameters: &MedicalFolderParameters,
        delimiter: Option<Delimiter>,
        schema: Schema,
        rows: u64,
    ) -> Result<Self, DataError> {
        let subjects = Subjects::find(folder, &parameters.modalities_to_folders)?;
        let has = subjects.modalities.len();
        let table = match (parameters.table(folder)?, delimiter) {
            (Some((path, column, _)), Some(delimiter)) => {
                let own = schema.len().checked_sub(has).ok_or_else(|| DataError::Changed { path: folder.to_owned() })?;
                let own = Schema::new(schema.columns()[..own].to_vec())?;
                Some((CsvSource { path, delimiter, schema: own, rows, marks: Vec::new() }, column.to_owned()))
            }
            (None, None) => None,
            _ => return Err(DataError::OtherLayout),
        };
        let found: Vec<String> = subjects.modalities.iter().map(|modality| has_column(modality)).collect();
        let registered = &schema.columns()[schema.len().saturating_sub(has)..];
        if !registered.iter().map(|column| &column.name).eq(&found) {
            return Err(DataError::Changed { path: folder.to_owned() });
        }
        Ok(Self { subjects, table, schema, rows })
    }

    /// Lists what is missing.
    pub(crate) fn lacking(&self) -> Result<Lacking, DataError> {
        let rows = self.table.as_ref().map(|(table, column)| ids(table, column)).transpose()?;
        Ok(self.subjects.lacking(rows.as_deref()))
    }
}

impl Source for MedicalFolderSource {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn batches(&self, columns: &[&str]) -> Result<Batches<'_>, DataError> {
        let positions = self.schema.positions(columns)?;
        let first = self.schema.len() - self.subjects.modalities.len();
        let Some((table, column)) = &self.table else {
            let subjects: Vec<&str> = self.subjects.files.keys().map(String::as_str).collect();
            let at_once = rows_per_batch(positions.len());
            let batches: Vec<RecordBatch> = subjects
                .chunks(at_once)
                .map(|subjects| {
                    let arrays = positions.iter().map(|at| self.has(subjects.iter().map(|id| Some(*id)), *at)).collect();
                    batch(&self.schema.arrow(&positions), arrays, subjects.len())
                })
                .collect();
            return Ok(Box::new(batches.into_iter().map(Ok)));
        };
        // The table is read with its own columns and the subjects; each of the columns asked for is then one of its, or made.
        let mut own: Vec<&str> =
            columns.iter().zip(&positions).filter(|(_, at)| **at < first).map(|(name, _)| *name).collect();
        let id = own.iter().position(|name| name == column).unwrap_or_else(|| {
            own.push(column);
            own.len() - 1
        });
        let sources: Vec<Option<usize>> = columns.iter().map(|name| own.iter().position(|own| own == name)).collect();
        let arrow = self.schema.arrow(&positions);
        let join = move |read: Result<RecordBatch, DataError>| {
            let read = read?;
            let arrays = sources.iter().zip(&positions).map(|(source, at)| match source {
                Some(column) => Arc::clone(read.column(*column)),
                None => self.has(read.column(id).as_string::<i32>().iter(), *at),
            });
            Ok(batch(&arrow, arrays.collect(), read.num_rows()))
        };
        Ok(Box::new(table.batches(&own)?.map(join).scan(false, end_after_error)))
    }
}

impl MedicalFolderSource {
    /// The column at a position behind the table's own: 1 for the subjects that have the modality.
    fn has<'a>(&self, subjects: impl Iterator<Item = Option<&'a str>>, position: usize) -> ArrayRef {
        let modality = &self.subjects.modalities[position + self.subjects.modalities.len() - self.schema.len()];
        let has = |subject: Option<&str>| i64::from(subject.is_some_and(|subject| self.subjects.has(subject, modality)));
        Arc::new(subjects.map(has).collect::<Int64Array>())
    }
}

/// A sheet of middle slices, a row for each modality and subject in turn, as a PNG file.
pub(crate) fn thumbnails(folder: &Path, parameters: &MedicalFolderParameters) -> Result<Vec<u8>, DataError> {
    let subjects = Subjects::find(folder, &parameters.modalities_to_folders)?;
    let slices: Result<Vec<_>, DataError> =
        subjects.paths().take(MAX_THUMBNAILS).map(|path| Ok(middle_slice(&nifti::read_file(path)?))).collect();
    Ok(sheet(&slices?).to_png())
}
