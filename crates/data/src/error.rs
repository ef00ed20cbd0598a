//! What can go wrong with a dataset, and what of it the other side hears.

use std::io;
use std::path::PathBuf;

use protocol::{ColumnKind, Refusal, RefusalCode};
use thiserror::Error;

use crate::csv::CsvError;
use crate::description::DescriptionError;
use crate::dicom::DicomError;
use crate::fhir::FhirError;
use crate::idx::IdxError;
use crate::loading::LoadingError;
use crate::nifti::NiftiError;
use crate::picture::PictureError;
use crate::postgres::PostgresError;
use crate::volume::steps::StepError;
use crate::{MAX_COLUMNS, suggestion};

/// Why a dataset cannot be described, read or used. The messages are for the node's owner: they hold paths and cells.
/// What may leave the node is said by [`refusal`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    #[error(transparent)]
    Description(#[from] DescriptionError),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: expected {expected}, found {found}", path.display())]
    NotAFile { path: PathBuf, expected: &'static str, found: &'static str },
    #[error("{}: {source}", path.display())]
    Csv { path: PathBuf, source: CsvError },
    #[error("{}: {reason}", path.display())]
    Parquet { path: PathBuf, reason: String },
    #[error("{}: column {column:?} has the type {found}; expected numbers, texts, truths, dates or times, and no lists or structs", path.display())]
    ParquetColumn { path: PathBuf, column: String, found: String },
    #[error("{}: {source}", path.display())]
    Idx { path: PathBuf, source: IdxError },
    #[error("{}: expected the MNIST file train-{kind}-ubyte or train-{kind}-ubyte.gz in this folder, or in MNIST/raw below it", path.display())]
    MnistMissing { path: PathBuf, kind: &'static str },
    #[error("{}: changed since it was registered; check it, then run `dataset refresh`", path.display())]
    Changed { path: PathBuf },
    #[error("{}: changed while it was read; try again when nothing writes to it", path.display())]
    ChangedMeanwhile { path: PathBuf },
    #[error("the stored scan is one of another kind of dataset; run `dataset refresh`")]
    OtherLayout,
    #[error("column {name:?} occurs twice")]
    ColumnTwice { name: String },
    #[error("expected at most {MAX_COLUMNS} columns, found {found}")]
    TooManyColumns { found: usize },
    #[error("the dataset has no column {name:?}{}", suggestion(.nearest.as_ref()))]
    ColumnUnknown { name: String, nearest: Option<String> },
    #[error("column {name:?} holds text, a number is needed")]
    ColumnNotNumeric { name: String },
    #[error(transparent)]
    Expression(protocol::KindError),
    #[error("`where` must be true or false for each row, as `age > 50`; found `{filter}`")]
    FilterNotTruth { filter: String },
    #[error("column {column:?} holds {}, and {level:?} is no level of it", kind_words(*kind))]
    LevelKind { column: String, level: String, kind: ColumnKind },
    #[error("no numeric column is left to be a feature")]
    NoFeatures,
    #[error("{rows} rows have a blank or not-a-number cell, in columns {}", columns.join(", "))]
    MissingValues { rows: u64, columns: Vec<String> },
    #[error("{}: {source}", path.display())]
    Nifti { path: PathBuf, source: NiftiError },
    #[error("{}: {source}", path.display())]
    Dicom { path: PathBuf, source: DicomError },
    #[error("{}: {source}", path.display())]
    Picture { path: PathBuf, source: PictureError },
    #[error("{}: line {line}: {source}", path.display())]
    Fhir { path: PathBuf, line: u64, source: FhirError },
    #[error("{}: the tables cannot be put together: {source}", path.display())]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    #[error("database {server}: {source}")]
    Postgres { server: String, source: PostgresError },
    #[error("a `postgres` dataset is read through a connection of the node")]
    NotConnected,
    #[error("loading plan: {0}")]
    Loading(#[from] LoadingError),
    #[error("{}: {source}", path.display())]
    Step { path: PathBuf, source: StepError },
    #[error("{}: expected a volume of {} × {} × {} voxels, found {} × {} × {}", path.display(), expected[0], expected[1], expected[2], found[0], found[1], found[2])]
    VolumeSize { path: PathBuf, expected: [usize; 3], found: [usize; 3] },
    #[error("{}: expected {expected}, found {found}", path.display())]
    Folder { path: PathBuf, expected: &'static str, found: String },
    #[error("{}: more files or deeper folders than a dataset may have", path.display())]
    TooManyFiles { path: PathBuf },
    #[error("{}: the id {id:?} occurs in several rows of column {column:?}; each person or subject needs one row", path.display())]
    IdTwice { path: PathBuf, column: String, id: String },
    #[error("stopped while the data was read; nothing changed")]
    Stopped,
    #[error("{rows} rows of {columns} columns do not fit into memory")]
    TooLarge { rows: u64, columns: usize },
}

/// The most column names that a sentence lists.
const LISTED: usize = 5;

fn kind_words(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Integer => "integers",
        ColumnKind::Real => "numbers",
        ColumnKind::Text => "texts",
    }
}

/// A sentence that shows parts of a plan, cut.
fn shortened(sentence: &str) -> String {
    let mut shown: String = sentence.chars().take(200).collect();
    if shown.len() < sentence.len() {
        shown.push('…');
    }
    shown
}

/// A name from a plan, as a sentence shows it: escaped and cut.
fn quoted(name: &str) -> String {
    let mut shown: String = name.chars().take(64).collect();
    if shown.len() < name.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

/// What the other side hears of an error: a code and a sentence with no path and no data value. Only names of columns that
/// the plan asked for occur in it.
pub fn refusal(error: &DataError) -> Refusal {
    let (code, sentence) = match error {
        DataError::ColumnUnknown { name, .. } => {
            (RefusalCode::ColumnUnknown, format!("the dataset has no column {}", quoted(name)))
        }
        DataError::ColumnNotNumeric { name } => {
            (RefusalCode::ColumnNotNumeric, format!("column {} holds text, a number is needed", quoted(name)))
        }
        DataError::Expression(error) => (RefusalCode::ColumnNotNumeric, shortened(&error.to_string())),
        DataError::FilterNotTruth { filter } => {
            (RefusalCode::PlanInvalid, format!("`where` is not true or false for a row: {}", quoted(filter)))
        }
        DataError::LevelKind { column, kind, .. } => (
            RefusalCode::ColumnNotNumeric,
            format!("column {} holds {}, the levels asked for are of another kind", quoted(column), kind_words(*kind)),
        ),
        DataError::NoFeatures => {
            (RefusalCode::ColumnNotNumeric, "the dataset has no numeric column that could be a feature".to_owned())
        }
        DataError::MissingValues { columns, .. } => {
            let names: Vec<String> = columns.iter().take(LISTED).map(|name| quoted(name)).collect();
            let more = if columns.len() > LISTED { format!(" and {} more", columns.len() - LISTED) } else { String::new() };
            let noun = if columns.len() == 1 { "column" } else { "columns" };
            let sentence = format!(
                "there are blank or not-a-number cells in the {noun} {}{more}; `missing = \"drop\"` leaves such rows out",
                names.join(", ")
            );
            (RefusalCode::MissingValues, sentence)
        }
        DataError::Changed { .. } | DataError::ChangedMeanwhile { .. } | DataError::OtherLayout => (
            RefusalCode::DatasetChanged,
            "the dataset changed since it was registered; the hospital has to check and refresh it".to_owned(),
        ),
        DataError::TooLarge { .. } => {
            (RefusalCode::QuotaExceeded, "the columns asked for do not fit into the node's memory".to_owned())
        }
        DataError::Stopped => (RefusalCode::Cancelled, "the work was stopped while the data was read".to_owned()),
        DataError::ColumnTwice { .. } => (RefusalCode::PlanInvalid, "a column is asked for twice".to_owned()),
        DataError::VolumeSize { .. } => {
            (RefusalCode::DatasetUnreadable, "a volume of the dataset has another size than the dataset says".to_owned())
        }
        DataError::Loading(LoadingError::Unmapped { column, .. }) => {
            (RefusalCode::PlanInvalid, format!("column {} has a value that the loading plan does not map", quoted(column)))
        }
        DataError::Loading(error) => (RefusalCode::PlanInvalid, shortened(&format!("loading plan: {error}"))),
        DataError::Step { .. } => (
            RefusalCode::PlanInvalid,
            "a declared step cannot be taken on a volume of the dataset; the reason is in the node's log".to_owned(),
        ),
        DataError::IdTwice { .. } => {
            (RefusalCode::DatasetUnreadable, "the dataset has several rows for one person".to_owned())
        }
        DataError::Postgres { source: PostgresError::Connect(_) | PostgresError::Io(_) | PostgresError::Closed, .. } => {
            (RefusalCode::Unavailable, "the hospital's database cannot be reached".to_owned())
        }
        DataError::Postgres { source: PostgresError::Server { code, .. }, .. } if code == "57014" => {
            (RefusalCode::Unavailable, "the hospital's database took too long".to_owned())
        }
        // Class 22: a number that no float64 holds, as a product that overflows.
        DataError::Postgres { source: PostgresError::Server { code, .. }, .. } if code.starts_with("22") => (
            RefusalCode::PlanInvalid,
            "the hospital's database cannot compute what was asked; a number is out of range".to_owned(),
        ),
        DataError::Postgres { source: PostgresError::Sums(error), .. } => {
            (RefusalCode::ColumnNotNumeric, shortened(&error.to_string()))
        }
        DataError::Postgres { .. }
        | DataError::NotConnected
        | DataError::Nifti { .. }
        | DataError::Dicom { .. }
        | DataError::Picture { .. }
        | DataError::Fhir { .. }
        | DataError::Sqlite { .. }
        | DataError::Folder { .. }
        | DataError::TooManyFiles { .. }
        | DataError::Description(_)
        | DataError::Io { .. }
        | DataError::NotAFile { .. }
        | DataError::Csv { .. }
        | DataError::Parquet { .. }
        | DataError::ParquetColumn { .. }
        | DataError::Idx { .. }
        | DataError::MnistMissing { .. }
        | DataError::TooManyColumns { .. } => (
            RefusalCode::DatasetUnreadable,
            "the dataset cannot be read; the reason is in the node's log, for the hospital to put right".to_owned(),
        ),
    };
    Refusal::new(code, sentence)
}
