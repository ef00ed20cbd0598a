//! One pass over a CSV stream: what it holds, or all that is wrong with it.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use protocol::{ColumnFace, ColumnKind};

use super::cell::Cell;
use super::delimiter::Delimiter;
use super::distinct::DistinctCells;
use super::marks::{Mark, Marks};
use super::problem::{CsvError, MAX_PROBLEMS, Problem, ProblemKind, shown};
use super::record::{Record, Records};
use crate::levels::LevelCount;
use crate::schema::Schema;
use crate::{MAX_COLUMNS, nearest};

/// What is known before the pass.
#[derive(Debug, Clone, Default)]
pub struct ScanOptions {
    /// The delimiter; absent: found from the first lines.
    pub delimiter: Option<Delimiter>,
    /// Columns whose kind the owner declared. A cell that does not fit is an error.
    pub declared: BTreeMap<String, ColumnKind>,
    /// The kinds that columns had before. Text in a column that was numeric is an error.
    pub previous: BTreeMap<String, ColumnKind>,
}

/// What a pass learned.
#[derive(Debug, Clone, PartialEq)]
pub struct CsvScan {
    pub delimiter: Delimiter,
    pub schema: Schema,
    pub rows: u64,
    /// Missing cells of each column.
    pub missing: Vec<u64>,
    /// The values of columns that have few.
    pub levels: BTreeMap<String, Vec<LevelCount>>,
    /// Where the file can be read in parts.
    pub marks: Vec<Mark>,
}

/// The first cell of a kind in a column.
#[derive(Debug, Clone)]
struct First {
    line: u64,
    found: String,
}

impl First {
    fn keep(first: &mut Option<Self>, line: u64, cell: &[u8]) {
        if first.is_none() {
            *first = Some(Self { line, found: shown(&String::from_utf8_lossy(cell)) });
        }
    }
}

/// What was counted in one column.
#[derive(Debug, Clone, Default)]
struct Column {
    cells: DistinctCells,
    blanks: u64,
    words: u64,
    integers: u64,
    reals: u64,
    texts: u64,
    first_real: Option<First>,
    first_text: Option<First>,
}

impl Column {
    fn count(&mut self, line: u64, cell: &[u8]) {
        self.cells.count(cell);
        match Cell::of(cell) {
            Cell::Blank => self.blanks += 1,
            Cell::MissingWord => self.words += 1,
            Cell::Integer => self.integers += 1,
            Cell::Real => {
                self.reals += 1;
                First::keep(&mut self.first_real, line, cell);
            }
            Cell::Text => {
                self.texts += 1;
                First::keep(&mut self.first_text, line, cell);
            }
        }
    }

    /// Decides the kind. What the owner declared holds. Otherwise a column without text is numeric, and one without numbers
    /// is text; where both occur, the kind it had before decides, or else the majority of its cells, and stray text in a
    /// numeric column is an error. A column of missing cells only keeps its kind or is real.
    fn kind(&self, declared: Option<ColumnKind>, previous: Option<ColumnKind>) -> Result<ColumnKind, Stray<'_>> {
        let text = |expected| self.first_text.as_ref().map(|first| Stray { first, expected, cells: self.texts });
        match declared {
            Some(ColumnKind::Text) => return Ok(ColumnKind::Text),
            Some(ColumnKind::Real) => return text(ColumnKind::Real).map_or(Ok(ColumnKind::Real), Err),
            Some(ColumnKind::Integer) => {
                let real = self.first_real.as_ref();
                let real = real.map(|first| Stray { first, expected: ColumnKind::Integer, cells: self.reals });
                let stray = [text(ColumnKind::Integer), real].into_iter().flatten().min_by_key(|stray| stray.first.line);
                return stray.map_or(Ok(ColumnKind::Integer), Err);
            }
            None => {}
        }
        let numbers = self.integers + self.reals;
        let numeric = match (numbers, self.reals) {
            (0, _) => previous.filter(|kind| kind.is_numeric()).unwrap_or(ColumnKind::Real),
            (_, 0) => ColumnKind::Integer,
            _ => ColumnKind::Real,
        };
        let Some(stray) = text(numeric) else { return Ok(if numbers == 0 { previous.unwrap_or(numeric) } else { numeric }) };
        let expects_numbers = match previous {
            Some(kind) => kind.is_numeric(),
            None => numbers > 0 && numbers >= self.texts,
        };
        // Real, because the stray cell may have been meant as either.
        if expects_numbers { Err(Stray { expected: ColumnKind::Real, ..stray }) } else { Ok(ColumnKind::Text) }
    }

    fn missing(&self, kind: ColumnKind) -> u64 {
        if kind.is_numeric() { self.blanks + self.words } else { self.blanks }
    }
}

/// Cells that do not fit their column.
struct Stray<'a> {
    first: &'a First,
    expected: ColumnKind,
    cells: u64,
}

/// The names of a header line, or what is wrong with them.
pub(super) fn header(record: &Record<'_>) -> Result<Vec<String>, CsvError> {
    let line = Some(record.line);
    if record.len() > MAX_COLUMNS {
        return Err(CsvError::one(line, None, ProblemKind::TooManyColumns { found: record.len() }));
    }
    let names: Vec<String> = record.iter().map(|name| name.trim().to_owned()).collect();
    if record.iter_bytes().all(|name| matches!(Cell::of(name), Cell::Integer | Cell::Real)) {
        return Err(CsvError::one(line, None, ProblemKind::NoHeader));
    }
    let mut problems = Vec::new();
    let mut positions = HashMap::new();
    for (index, name) in names.iter().enumerate() {
        let position = index + 1;
        let kind = if name.is_empty() {
            ProblemKind::ColumnUnnamed { position }
        } else if name.chars().count() > 256 || name.chars().any(char::is_control) {
            ProblemKind::ColumnName { position }
        } else if let Some(first) = positions.insert(name.as_str(), position) {
            ProblemKind::ColumnTwice { first, second: position }
        } else {
            continue;
        };
        problems.push(Problem { line, column: Some(name.clone()).filter(|name| !name.is_empty()), kind });
    }
    problems.truncate(MAX_PROBLEMS);
    if problems.is_empty() { Ok(names) } else { Err(CsvError::Problems(problems)) }
}

/// Reads a CSV stream to its end, in constant memory, and says what it holds, or lists the first twenty problems.
pub fn scan(input: impl Read, options: &ScanOptions) -> Result<CsvScan, CsvError> {
    let opened = match options.delimiter {
        Some(delimiter) => Records::with_delimiter(input, delimiter),
        None => Records::sniffed(input),
    };
    let mut records = opened.map_err(|error| error.stop(&[]))?;
    let delimiter = records.delimiter();
    let names = match records.next().map_err(|error| error.stop(&[]))? {
        Some(record) => header(&record)?,
        None => return Err(CsvError::one(None, None, ProblemKind::Empty)),
    };
    let mut problems = undeclared(&names, options);
    let mut columns = vec![Column::default(); names.len()];
    let (mut rows, mut marks) = (0, Marks::default());
    while problems.len() < MAX_PROBLEMS {
        marks.pass(records.place(), rows);
        match records.next() {
            Ok(None) => break,
            Ok(Some(record)) if record.len() == names.len() => {
                rows += 1;
                for (column, cell) in columns.iter_mut().zip(record.iter_bytes()) {
                    column.count(record.line, cell);
                }
            }
            Ok(Some(record)) => {
                let kind = ProblemKind::Ragged { expected: names.len(), found: record.len() };
                let column = names.get(record.len()).cloned();
                problems.push(Problem { line: Some(record.line), column, kind });
            }
            Err(error) => {
                problems.push(error.named(&names)?);
                break;
            }
        }
    }
    if rows == 0 && problems.is_empty() {
        problems.push(Problem { line: None, column: None, kind: ProblemKind::HeaderOnly });
    }
    let (schema, missing) = conclude(names, &columns, problems, options)?;
    let levels = levels(&schema, columns);
    Ok(CsvScan { delimiter, schema, rows, missing, levels, marks: marks.finish(rows) })
}

/// The values of the columns that have few.
fn levels(schema: &Schema, columns: Vec<Column>) -> BTreeMap<String, Vec<LevelCount>> {
    let all = schema.columns().iter().zip(columns);
    all.filter_map(|(face, column)| Some((face.name.clone(), column.cells.finish(face.kind)?))).collect()
}

/// The declared columns that do not exist.
fn undeclared(names: &[String], options: &ScanOptions) -> Vec<Problem> {
    let unknown = options.declared.keys().filter(|declared| !names.contains(declared));
    unknown
        .take(MAX_PROBLEMS)
        .map(|declared| Problem {
            line: None,
            column: Some(declared.clone()),
            kind: ProblemKind::DeclaredUnknown { nearest: nearest(declared, names.iter().map(String::as_str)) },
        })
        .collect()
}

/// Decides the kinds of all columns; stray cells join the problems.
fn conclude(
    names: Vec<String>,
    columns: &[Column],
    mut problems: Vec<Problem>,
    options: &ScanOptions,
) -> Result<(Schema, Vec<u64>), CsvError> {
    let mut missing = Vec::with_capacity(names.len());
    let mut faces = Vec::with_capacity(names.len());
    for (name, column) in names.into_iter().zip(columns) {
        match column.kind(options.declared.get(&name).copied(), options.previous.get(&name).copied()) {
            Ok(kind) => {
                missing.push(column.missing(kind));
                faces.push(ColumnFace { name, kind });
            }
            Err(Stray { first, expected, cells }) => {
                let kind = ProblemKind::NotNumeric { column: name.clone(), expected, found: first.found.clone(), cells };
                problems.push(Problem { line: Some(first.line), column: Some(name), kind });
            }
        }
    }
    if problems.is_empty() {
        return Ok((Schema::trusted(faces), missing));
    }
    problems.sort_by_key(|problem| problem.line);
    problems.truncate(MAX_PROBLEMS);
    Err(CsvError::Problems(problems))
}
