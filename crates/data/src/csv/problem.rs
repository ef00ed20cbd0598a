//! What can be wrong with a CSV file, said so that its owner can put it right.

use std::fmt;
use std::io;

use protocol::ColumnKind;
use thiserror::Error;

use super::cell::Cell;
use crate::suggestion;

/// The most problems that are listed.
pub(super) const MAX_PROBLEMS: usize = 20;

/// The most characters of a cell or name that a message shows.
const SHOWN: usize = 40;

/// Cuts a text for a message.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// What is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProblemKind {
    #[error("the file is empty; expected a header line with column names, then rows")]
    Empty,
    #[error("the file has a header line but no rows; expected at least one row")]
    HeaderOnly,
    #[error("the first line holds only numbers; expected a header line with column names: add one")]
    NoHeader,
    #[error("column {position} has no name; name it in the header line (pandas writes one without name unless index=False)")]
    ColumnUnnamed { position: usize },
    #[error("columns {first} and {second} have the same name; rename one in the header line")]
    ColumnTwice { first: usize, second: usize },
    #[error("the name of column {position} has control characters or more than 256 characters; shorten it")]
    ColumnName { position: usize },
    #[error("found {found} columns, at most {} are read; split the file", crate::MAX_COLUMNS)]
    TooManyColumns { found: usize },
    #[error(
        "expected {expected} fields as in the header line, found {found}; look for a missing or surplus delimiter, or put the \
         field that holds one in double quotes"
    )]
    Ragged { expected: usize, found: usize },
    #[error("byte 0x{byte:02x} is not UTF-8; convert the file to UTF-8, for example with iconv -f WINDOWS-1252 -t UTF-8")]
    NotUtf8 { byte: u8 },
    #[error("the file is in UTF-16; save it as CSV in UTF-8")]
    Utf16,
    #[error("this is a {format} file, not CSV; unpack it or export it as CSV")]
    Packed { format: &'static str },
    #[error("a NUL byte is not text; the file is damaged or not CSV in UTF-8")]
    Nul,
    #[error("a carriage return without line feed; convert the line ends to LF or CRLF")]
    CarriageReturn,
    #[error("the double quote that opens here is never closed; close it, or write a quote inside a quoted field twice")]
    QuoteUnclosed,
    #[error("text follows a closing double quote; write a quote inside a quoted field twice")]
    TextAfterQuote,
    #[error("the line is longer than {} MiB; the file is damaged or not CSV", limit >> 20)]
    TooLong { limit: usize },
    #[error("expected {}, found {found:?}{}; {}", number(*.expected), others(*.cells), advice(.column, .found))]
    NotNumeric { column: String, expected: ColumnKind, found: String, cells: u64 },
    #[error("`column_types` names a column that the header line lacks{}", suggestion(.nearest.as_ref()))]
    DeclaredUnknown { nearest: Option<String> },
}

fn number(expected: ColumnKind) -> &'static str {
    match expected {
        ColumnKind::Integer => "a whole number",
        ColumnKind::Real | ColumnKind::Text => "a number",
    }
}

fn others(cells: u64) -> String {
    if cells > 1 { format!(" (and {} more such cells in the column)", cells - 1) } else { String::new() }
}

fn advice(column: &str, found: &str) -> String {
    let kind = if matches!(Cell::of(found.as_bytes()), Cell::Text) { "text" } else { "real" };
    let declared = serde_json::json!({"column_types": {column: kind}});
    format!(
        "correct it, leave it blank if it is missing, or declare the column as {kind} in the dataset file: \
         \"dataset_parameters\": {declared}"
    )
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line in the file; the first is 1.
    pub line: Option<u64>,
    /// The name of the column.
    pub column: Option<String>,
    pub kind: ProblemKind,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, &self.column) {
            (Some(line), Some(column)) => write!(formatter, "line {line}, column {:?}: ", shown(column))?,
            (Some(line), None) => write!(formatter, "line {line}: ")?,
            (None, Some(column)) => write!(formatter, "column {:?}: ", shown(column))?,
            (None, None) => {}
        }
        self.kind.fmt(formatter)
    }
}

/// Why a stream is no table.
#[derive(Debug, Error)]
pub enum CsvError {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("{}", list(.0))]
    Problems(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    let mut lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    if problems.len() >= MAX_PROBLEMS {
        lines.push("there may be more".to_owned());
    }
    lines.join("\n")
}

impl CsvError {
    pub(super) fn one(line: Option<u64>, column: Option<String>, kind: ProblemKind) -> Self {
        Self::Problems(vec![Problem { line, column, kind }])
    }
}
