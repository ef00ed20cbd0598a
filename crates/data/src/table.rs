//! The columns of a plan in memory, as training reads them.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::AtomicBool;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType as ArrowType;
use protocol::{ColumnKind, Missing};

use crate::error::DataError;
use crate::scan::go_on;
use crate::schema::Schema;
use crate::source::Source;

/// Which columns to gather, and what to do with rows that lack a cell in one of them.
#[derive(Debug, Clone, Copy)]
pub struct ColumnChoice<'a> {
    /// Empty: every numeric column but the target and the split, in the dataset's order.
    pub features: &'a [String],
    pub target: Option<&'a str>,
    /// A column whose cells are kept as text, for the split of rows.
    pub split: Option<&'a str>,
    pub missing: Missing,
}

/// A text column: each distinct text once, in the order in which they first occur.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Split {
    levels: Vec<String>,
    /// For each row the position of its text in `levels`.
    codes: Vec<usize>,
}

impl Split {
    pub fn get(&self, row: usize) -> &str {
        &self.levels[self.codes[row]]
    }

    /// The distinct texts.
    pub fn levels(&self) -> &[String] {
        &self.levels
    }

    /// The text of each row.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.codes.iter().map(|code| self.levels[*code].as_str())
    }
}

/// Numeric columns as one dense matrix, row by row, with a target and a split beside it. No value is missing. Whole numbers
/// beyond 2^53 are rounded to the nearest float64.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    names: Vec<String>,
    features: Vec<f64>,
    target: Vec<f64>,
    split: Option<Split>,
    rows: usize,
    dropped: Vec<u64>,
}

impl Table {
    /// Reads the chosen columns of a source, a batch at a time. Fails soon after `stop` is set.
    pub fn load(source: &dyn Source, choice: ColumnChoice<'_>, stop: &AtomicBool) -> Result<Self, DataError> {
        let names = feature_names(source.schema(), choice)?;
        let columns: Vec<&str> = names.iter().map(String::as_str).chain(choice.target).chain(choice.split).collect();
        check_numeric(source.schema(), &columns[..columns.len() - usize::from(choice.split.is_some())])?;
        let mut loading = Loading {
            width: names.len(),
            has_target: choice.target.is_some(),
            missing: choice.missing,
            features: reserve(source.rows(), names.len())?,
            target: reserve(source.rows(), usize::from(choice.target.is_some()))?,
            split: choice.split.map(|_| Split::default()),
            codes: HashMap::new(),
            rows: 0,
            rows_read: 0,
            dropped: Vec::new(),
            lacking: BTreeSet::new(),
        };
        for batch in source.batches(&columns)? {
            go_on(stop)?;
            loading.add(&batch?);
        }
        if choice.missing == Missing::Refuse && !loading.dropped.is_empty() {
            let columns = loading.lacking.iter().map(|column| columns[*column].to_owned()).collect();
            return Err(DataError::MissingValues { rows: loading.dropped.len() as u64, columns });
        }
        let Loading { features, target, split, rows, dropped, .. } = loading;
        Ok(Self { names, features, target, split, rows, dropped })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The names of the features, in the order of a row.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// All features, row by row.
    pub fn features(&self) -> &[f64] {
        &self.features
    }

    /// The features of one row.
    pub fn row(&self, row: usize) -> &[f64] {
        &self.features[row * self.names.len()..][..self.names.len()]
    }

    /// The target of each row; empty if none was chosen.
    pub fn target(&self) -> &[f64] {
        &self.target
    }

    pub fn split(&self) -> Option<&Split> {
        self.split.as_ref()
    }

    /// The rows that were left out for a missing cell: their places in the dataset, from 0, ascending.
    pub fn dropped(&self) -> &[u64] {
        &self.dropped
    }

    /// Gives away features and target.
    pub fn into_parts(self) -> (Vec<f64>, Vec<f64>) {
        (self.features, self.target)
    }
}

/// The features that are meant: those named, or all numeric columns that have no other part.
fn feature_names(schema: &Schema, choice: ColumnChoice<'_>) -> Result<Vec<String>, DataError> {
    if !choice.features.is_empty() {
        return Ok(choice.features.to_vec());
    }
    let others = [choice.target, choice.split];
    let free = schema.columns().iter().filter(|column| column.kind.is_numeric() && !others.contains(&Some(&column.name)));
    let names: Vec<String> = free.map(|column| column.name.clone()).collect();
    if names.is_empty() { Err(DataError::NoFeatures) } else { Ok(names) }
}

fn check_numeric(schema: &Schema, columns: &[&str]) -> Result<(), DataError> {
    let positions = schema.positions(columns)?;
    match positions.into_iter().find(|position| schema.columns()[*position].kind == ColumnKind::Text) {
        Some(position) => Err(DataError::ColumnNotNumeric { name: schema.columns()[position].name.clone() }),
        None => Ok(()),
    }
}

/// Room for so many numbers, or the error that there is none.
fn reserve(rows: u64, columns: usize) -> Result<Vec<f64>, DataError> {
    let too_large = || DataError::TooLarge { rows, columns };
    let cells = usize::try_from(rows).ok().and_then(|rows| rows.checked_mul(columns)).ok_or_else(too_large)?;
    let mut numbers = Vec::new();
    numbers.try_reserve_exact(cells).map_err(|_| too_large())?;
    Ok(numbers)
}

/// A table that is being filled.
struct Loading {
    width: usize,
    has_target: bool,
    missing: Missing,
    features: Vec<f64>,
    target: Vec<f64>,
    split: Option<Split>,
    codes: HashMap<String, usize>,
    rows: usize,
    rows_read: u64,
    dropped: Vec<u64>,
    /// Positions of the columns in which a cell is missing.
    lacking: BTreeSet<usize>,
}

impl Loading {
    fn add(&mut self, batch: &RecordBatch) {
        let complete = self.complete_rows(batch);
        let dropped = (self.rows_read..).zip(&complete).filter(|(_, complete)| !**complete).map(|(row, _)| row);
        self.dropped.extend(dropped);
        self.rows_read += batch.num_rows() as u64;
        // After a refusal the rest is read only to count.
        if self.missing == Missing::Refuse && !self.dropped.is_empty() {
            return;
        }
        let start = self.features.len();
        let kept = complete.iter().filter(|complete| **complete).count();
        self.rows += kept;
        self.features.resize(start + kept * self.width, 0.0);
        for feature in 0..self.width {
            let places = self.features[start..].iter_mut().skip(feature).step_by(self.width);
            places.zip(numbers(batch.column(feature), &complete)).for_each(|(place, value)| *place = value);
        }
        if self.has_target {
            self.target.extend(numbers(batch.column(self.width), &complete));
        }
        if let Some(split) = &mut self.split {
            let column = batch.column(self.width + usize::from(self.has_target));
            for text in texts(column, &complete) {
                let next = split.levels.len();
                let code = self.codes.get(&text).copied().unwrap_or(next);
                if code == next {
                    split.levels.push(text.clone());
                    self.codes.insert(text, next);
                }
                split.codes.push(code);
            }
        }
    }

    /// Which rows have all cells; notes the columns that lack some.
    fn complete_rows(&mut self, batch: &RecordBatch) -> Vec<bool> {
        let mut complete = vec![true; batch.num_rows()];
        for (position, column) in batch.columns().iter().enumerate() {
            let reals = column.as_primitive_opt::<Float64Type>();
            if column.null_count() == 0 && reals.is_none_or(|reals| reals.values().iter().all(|value| value.is_finite())) {
                continue;
            }
            self.lacking.insert(position);
            for (row, complete) in complete.iter_mut().enumerate() {
                *complete &= column.is_valid(row) && reals.is_none_or(|reals| reals.value(row).is_finite());
            }
        }
        complete
    }
}

/// The numbers of the chosen rows of a column.
fn numbers<'a>(column: &'a dyn Array, chosen: &'a [bool]) -> Box<dyn Iterator<Item = f64> + 'a> {
    if let Some(integers) = column.as_primitive_opt::<Int64Type>() {
        let rows = integers.values().iter().zip(chosen).filter(|(_, chosen)| **chosen);
        Box::new(rows.map(|(value, _)| *value as f64))
    } else {
        let reals = column.as_primitive::<Float64Type>();
        let rows = reals.values().iter().zip(chosen).filter(|(_, chosen)| **chosen);
        Box::new(rows.map(|(value, _)| *value))
    }
}

/// The cells of the chosen rows as text.
fn texts<'a>(column: &'a dyn Array, chosen: &'a [bool]) -> Box<dyn Iterator<Item = String> + 'a> {
    let rows = chosen.iter().enumerate().filter(|(_, chosen)| **chosen).map(|(row, _)| row);
    match column.data_type() {
        ArrowType::Utf8 => {
            let texts = column.as_string::<i32>();
            Box::new(rows.map(|row| texts.value(row).trim().to_owned()))
        }
        ArrowType::Int64 => {
            let integers = column.as_primitive::<Int64Type>();
            Box::new(rows.map(|row| integers.value(row).to_string()))
        }
        _ => {
            let reals = column.as_primitive::<Float64Type>();
            Box::new(rows.map(|row| reals.value(row).to_string()))
        }
    }
}
