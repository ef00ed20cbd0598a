//! FHIR resources of a bulk export (a JSON document on each line), flattened by a mapping that the dataset file declares.
//!
//! ```toml
//! resource = "Observation"
//! only = { path = "code.coding[*].code", values = ["8480-6"] }
//! [columns]
//! subject = { path = "subject.reference", kind = "text" }
//! systolic = { path = "component[code.coding.code=8480-6].valueQuantity.value", kind = "real" }
//! born = { path = "birthDate", kind = "year" }
//! ```
//!
//! The values are read as they stream by, a line at a time. A path that meets several values is an error, not a choice: it takes
//! an index or a condition to say which is meant.

mod path;

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use flate2::bufread::MultiGzDecoder;
use protocol::{ColumnFace, ColumnKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

pub use path::{FhirPath, PathError};

use crate::error::DataError;
use crate::files::{name, sorted_entries};
use crate::fingerprint::{FileFingerprint, Fingerprint};
use crate::image_folder::end_after_error;
use crate::scan::{Layout, Scan, go_on, open_file};
use crate::schema::Schema;
use crate::source::{Batches, Source, batch, rows_per_batch};

/// The most bytes of a line.
const MAX_LINE: usize = 16 << 20;

/// How a `fhir` dataset is to be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FhirParameters {
    /// The type whose resources are rows; the others are passed over.
    pub resource: String,
    /// The rows that are meant, if not all.
    #[serde(default)]
    pub only: Option<Only>,
    /// The columns in the order of their names; at least one.
    pub columns: BTreeMap<String, FhirColumn>,
}

/// A condition on a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Only {
    pub path: FhirPath,
    /// One of the path's values must be one of these.
    pub values: Vec<String>,
}

/// Where a column's values are, and what they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FhirColumn {
    pub path: FhirPath,
    pub kind: FhirKind,
}

/// What a value is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FhirKind {
    /// A whole number, or true (1) and false (0).
    Integer,
    Real,
    Text,
    /// The year of a date.
    Year,
}

/// Why a line is no row.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FhirError {
    #[error("cannot be read: {0}")]
    Io(io::Error),
    #[error("the line is longer than {MAX_LINE} bytes")]
    TooLong,
    #[error("not valid JSON: {0}")]
    Json(serde_json::Error),
    #[error("expected a resource with a `resourceType`")]
    NotAResource,
    #[error(
        "column {column:?}: expected one value at {path}, found {found}; say which by an index as [0] or a condition as [code=x]"
    )]
    Several { column: String, path: String, found: usize },
    #[error("column {column:?}: expected {expected}, found {found}")]
    Value { column: String, expected: &'static str, found: String },
}

/// A cell.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Missing,
    Integer(i64),
    Real(f64),
    Text(String),
}

/// A value as a message shows it.
fn shown(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

impl FhirColumn {
    fn cell(&self, column: &str, resource: &Value) -> Result<Cell, FhirError> {
        let value = match self.path.values(resource).as_slice() {
            [] | [Value::Null] => return Ok(Cell::Missing),
            [value] => *value,
            several => {
                let (column, path) = (column.to_owned(), self.path.to_string());
                return Err(FhirError::Several { column, path, found: several.len() });
            }
        };
        let wrong = |expected| FhirError::Value { column: column.to_owned(), expected, found: shown(value) };
        match (self.kind, value) {
            (FhirKind::Integer, Value::Bool(is_true)) => Ok(Cell::Integer(i64::from(*is_true))),
            (FhirKind::Integer, Value::Number(number)) => {
                number.as_i64().map(Cell::Integer).ok_or_else(|| wrong("an integer"))
            }
            (FhirKind::Integer, Value::String(text)) => {
                text.trim().parse().map(Cell::Integer).map_err(|_| wrong("an integer"))
            }
            (FhirKind::Real, Value::Number(number)) => number.as_f64().map(Cell::Real).ok_or_else(|| wrong("a number")),
            (FhirKind::Real, Value::String(text)) => {
                let number = text.trim().parse().ok().filter(|number: &f64| number.is_finite());
                number.map(Cell::Real).ok_or_else(|| wrong("a number"))
            }
            (FhirKind::Text, Value::String(text)) => Ok(Cell::Text(text.clone())),
            (FhirKind::Text, Value::Number(_) | Value::Bool(_)) => Ok(Cell::Text(value.to_string())),
            (FhirKind::Year, Value::String(text)) => {
                let year = text.get(..4).filter(|year| year.bytes().all(|byte| byte.is_ascii_digit()));
                let is_date = text.len() == 4 || text.as_bytes().get(4) == Some(&b'-');
                year.filter(|_| is_date).and_then(|year| year.parse().ok()).map(Cell::Integer).ok_or_else(|| wrong("a date"))
            }
            (FhirKind::Integer, _) => Err(wrong("an integer")),
            (FhirKind::Real, _) => Err(wrong("a number")),
            (FhirKind::Text, _) => Err(wrong("a text")),
            (FhirKind::Year, _) => Err(wrong("a date")),
        }
    }
}

impl FhirParameters {
    fn schema(&self) -> Result<Schema, DataError> {
        let kind = |kind| match kind {
            FhirKind::Integer | FhirKind::Year => ColumnKind::Integer,
            FhirKind::Real => ColumnKind::Real,
            FhirKind::Text => ColumnKind::Text,
        };
        Schema::new(
            self.columns.iter().map(|(name, column)| ColumnFace { name: name.clone(), kind: kind(column.kind) }).collect(),
        )
    }

    /// The cells of a line's resource; none if it is not meant.
    fn row(&self, line: &[u8]) -> Result<Option<Vec<Cell>>, FhirError> {
        let resource: Value = serde_json::from_slice(line).map_err(FhirError::Json)?;
        let kind = resource.get("resourceType").and_then(Value::as_str).ok_or(FhirError::NotAResource)?;
        if kind != self.resource {
            return Ok(None);
        }
        if let Some(only) = &self.only {
            let is_meant = |value: &&Value| only.values.iter().any(|meant| path::is_equal(value, meant));
            if !only.path.values(&resource).iter().any(is_meant) {
                return Ok(None);
            }
        }
        self.columns.iter().map(|(name, column)| column.cell(name, &resource)).collect::<Result<_, _>>().map(Some)
    }
}

/// The files of a dataset, in the order of its fingerprint: the one, or those of the folder.
pub(crate) fn files(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let is_export = |path: &PathBuf| {
        let name = name(path).to_lowercase();
        [".ndjson", ".ndjson.gz", ".jsonl", ".jsonl.gz"].iter().any(|ending| name.ends_with(ending))
    };
    let files: Vec<PathBuf> = sorted_entries(path)?.into_iter().filter(is_export).collect();
    if files.is_empty() {
        let expected = "files ending with .ndjson or .ndjson.gz";
        return Err(DataError::Folder { path: path.to_owned(), expected, found: "none".to_owned() });
    }
    Ok(files)
}

/// The rows of a file.
struct Rows<'a> {
    path: PathBuf,
    input: Box<dyn BufRead + Send>,
    parameters: &'a FhirParameters,
    line: u64,
    buffer: Vec<u8>,
}

impl<'a> Rows<'a> {
    fn open(path: PathBuf, parameters: &'a FhirParameters) -> Result<Self, DataError> {
        let mut file = BufReader::with_capacity(1 << 16, open_file(&path)?);
        let start = file.fill_buf().map_err(|source| DataError::Io { path: path.clone(), source })?;
        let input: Box<dyn BufRead + Send> = match start {
            [0x1f, 0x8b, ..] => Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file))),
            _ => Box::new(file),
        };
        Ok(Self { path, input, parameters, line: 0, buffer: Vec::new() })
    }

    fn read(&mut self) -> Result<Option<Vec<Cell>>, FhirError> {
        loop {
            self.line += 1;
            self.buffer.clear();
            let limited = (&mut self.input).take(MAX_LINE as u64 + 1).read_until(b'\n', &mut self.buffer);
            match limited.map_err(FhirError::Io)? {
                0 => return Ok(None),
                read if read > MAX_LINE => return Err(FhirError::TooLong),
                _ if self.buffer.trim_ascii().is_empty() => {}
                _ => {
                    if let Some(row) = self.parameters.row(&self.buffer)? {
                        return Ok(Some(row));
                    }
                }
            }
        }
    }

    fn next_row(&mut self) -> Result<Option<Vec<Cell>>, DataError> {
        let row = self.read();
        row.map_err(|source| DataError::Fhir { path: self.path.clone(), line: self.line, source })
    }
}

/// Reads and checks all rows.
pub(crate) fn scan(path: &Path, parameters: &FhirParameters, stop: &AtomicBool) -> Result<Scan, DataError> {
    let schema = parameters.schema()?;
    let (mut rows, mut missing, mut fingerprints) = (0, vec![0; schema.len()], Vec::new());
    for file in files(path)? {
        fingerprints.push(FileFingerprint::of(&file, stop)?);
        let mut input = Rows::open(file, parameters)?;
        while let Some(row) = input.next_row()? {
            go_on(stop)?;
            rows += 1;
            for (missing, cell) in missing.iter_mut().zip(&row) {
                *missing += u64::from(*cell == Cell::Missing);
            }
        }
    }
    Ok(Scan {
        layout: Layout::Fhir,
        schema,
        rows,
        missing,
        levels: BTreeMap::new(),
        marks: Vec::new(),
        fingerprint: Fingerprint { files: fingerprints },
    })
}

/// Resources whose scan is known.
#[derive(Debug)]
pub(crate) struct FhirSource {
    pub(crate) path: PathBuf,
    pub(crate) parameters: FhirParameters,
    pub(crate) schema: Schema,
    pub(crate) rows: u64,
}

impl Source for FhirSource {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn batches(&self, columns: &[&str]) -> Result<Batches<'_>, DataError> {
        let positions = self.schema.positions(columns)?;
        let mut files = files(&self.path)?.into_iter();
        let mut open: Option<Rows> = None;
        let mut rows_left = self.rows;
        let at_once = rows_per_batch(self.schema.len());
        let next = move || -> Result<Option<RecordBatch>, DataError> {
            let mut cells: Vec<Vec<Cell>> = Vec::new();
            while cells.len() < at_once {
                let Some(rows) = &mut open else {
                    match files.next() {
                        Some(path) => open = Some(Rows::open(path, &self.parameters)?),
                        None => break,
                    }
                    continue;
                };
                match rows.next_row()? {
                    Some(row) => cells.push(row),
                    None => open = None,
                }
            }
            let changed = || DataError::Changed { path: self.path.clone() };
            rows_left = rows_left.checked_sub(cells.len() as u64).ok_or_else(changed)?;
            if cells.is_empty() {
                return if rows_left == 0 { Ok(None) } else { Err(changed()) };
            }
            let arrays = positions.iter().map(|at| self.column(*at, &cells)).collect();
            Ok(Some(batch(&self.schema.arrow(&positions), arrays, cells.len())))
        };
        let mut next = next;
        Ok(Box::new(std::iter::from_fn(move || next().transpose()).scan(false, end_after_error)))
    }
}

impl FhirSource {
    fn column(&self, position: usize, rows: &[Vec<Cell>]) -> ArrayRef {
        let cells = rows.iter().map(|row| &row[position]);
        match self.schema.columns()[position].kind {
            ColumnKind::Integer => Arc::new(
                cells
                    .map(|cell| if let Cell::Integer(number) = cell { Some(*number) } else { None })
                    .collect::<Int64Array>(),
            ),
            ColumnKind::Real => Arc::new(
                cells.map(|cell| if let Cell::Real(number) = cell { Some(*number) } else { None }).collect::<Float64Array>(),
            ),
            ColumnKind::Text => Arc::new(
                cells
                    .map(|cell| if let Cell::Text(text) = cell { Some(text.as_str()) } else { None })
                    .collect::<StringArray>(),
            ),
        }
    }
}
