//! What can go wrong with a dataset, and what of it the other side hears.

use std::io;
use std::path::PathBuf;

use protocol::{Refusal, RefusalCode};
use thiserror::Error;

use crate::csv::CsvError;
use crate::description::DescriptionError;
use crate::idx::IdxError;
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
    #[error("no numeric column is left to be a feature")]
    NoFeatures,
    #[error("{rows} rows have a blank or not-a-number cell, in columns {}", columns.join(", "))]
    MissingValues { rows: u64, columns: Vec<String> },
    #[error("stopped while the data was read; nothing changed")]
    Stopped,
    #[error("{rows} rows of {columns} columns do not fit into memory")]
    TooLarge { rows: u64, columns: usize },
}

/// The most column names that a sentence lists.
const LISTED: usize = 5;

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
        DataError::Description(_)
        | DataError::Io { .. }
        | DataError::NotAFile { .. }
        | DataError::Csv { .. }
        | DataError::Idx { .. }
        | DataError::MnistMissing { .. }
        | DataError::TooManyColumns { .. } => (
            RefusalCode::DatasetUnreadable,
            "the dataset cannot be read; the reason is in the node's log, for the hospital to put right".to_owned(),
        ),
    };
    Refusal::new(code, sentence)
}
