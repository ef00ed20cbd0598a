//! Complaints about an experiment file, with the place and the line they are about.

use std::fmt;
use std::ops::Range;

use protocol::experiment::ExperimentError;
use protocol::model::ModelError;
use protocol::plan::PlanError;
use protocol::tags::TagsError;
use thiserror::Error;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    #[error("not valid TOML: {0}")]
    Syntax(String),
    #[error("unknown key `{key}` in {section}{hint}")]
    UnknownKey { key: String, section: &'static str, hint: String },
    #[error("`{key}` is missing in {section}: expected {expected}")]
    Missing { key: &'static str, section: &'static str, expected: String },
    #[error("`{key}` must be {expected}, found {found}{hint}")]
    Value { key: String, expected: String, found: String, hint: String },
    #[error("the key `{key}` must be {expected}")]
    Key { key: String, expected: &'static str },
    #[error("{key} {with}: {instead}")]
    Together { key: &'static str, with: &'static str, instead: &'static str },
    #[error(transparent)]
    Tags(#[from] TagsError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Experiment(#[from] ExperimentError),
}

/// A problem and the bytes it is about.
pub(super) struct Complaint {
    pub(super) span: Option<Range<usize>>,
    pub(super) problem: Problem,
}

/// Where in the file, counted from 1; columns are characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
    /// How many characters of the line the problem covers, at least 1.
    pub width: usize,
    /// The whole line.
    pub text: String,
}

/// Why an experiment file is refused; names line, key, what was found and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExperimentFileError {
    /// Absent for what is missing as a whole.
    pub position: Option<Position>,
    pub problem: Box<Problem>,
}

impl ExperimentFileError {
    pub(super) fn new(text: &str, complaint: Complaint) -> Self {
        Self { position: complaint.span.map(|span| locate(text, span)), problem: Box::new(complaint.problem) }
    }

    /// Draws the line in question with a mark below it; empty where there is no line.
    pub fn excerpt(&self) -> String {
        let Some(position) = &self.position else { return String::new() };
        let number = position.line.to_string();
        let gutter = " ".repeat(number.len());
        let indent = " ".repeat(position.column - 1);
        let mark = "^".repeat(position.width);
        let line = position.text.replace(|letter: char| letter.is_control(), " ");
        format!("{gutter} |\n{number} | {line}\n{gutter} | {indent}{mark}\n")
    }
}

impl fmt::Display for ExperimentFileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Position { line, column, .. }) = &self.position {
            write!(formatter, "line {line}, column {column}: ")?;
        }
        self.problem.fmt(formatter)
    }
}

impl std::error::Error for ExperimentFileError {}

fn locate(text: &str, span: Range<usize>) -> Position {
    let start = text.floor_char_boundary(span.start);
    let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
    let line = &text[line_start..line_end];
    let line = line.strip_suffix('\r').unwrap_or(line);
    let line_end = line_start + line.len();
    // What is missed at the end of a line that ends with CR LF is missed before the CR.
    let start = start.min(line_end);
    let end = text.ceil_char_boundary(span.end).clamp(start, line_end);
    Position {
        line: text[..line_start].matches('\n').count() + 1,
        column: text[line_start..start].chars().count() + 1,
        width: text[start..end].chars().count().max(1),
        text: line.to_owned(),
    }
}
