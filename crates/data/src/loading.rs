//! Loading plans: declared steps that make the tables of several sites alike, taken on batches as they are read.
//!
//! ```toml
//! [[loading_plan]]
//! step = "rename"
//! from = "cholesterol"
//! to = "chol"
//! [[loading_plan]]
//! step = "units"                    # mmol/L to mg/dL
//! column = "chol"
//! factor = 38.67
//! [[loading_plan]]
//! step = "map"
//! column = "sex"
//! to = { male = 1, female = 0 }
//! ```
//!
//! The node declares steps for its data, a researcher for an experiment, with the numbers of federated statistics where these
//! are needed. Later steps see what earlier ones made. The steps for single volumes are [`volume::steps`](crate::volume::steps).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use protocol::statistic::{Column, Input};
use protocol::{ColumnFace, ColumnKind, Expression, KindError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::error::DataError;
use crate::image_folder::end_after_error;
use crate::inputs::Inputs;
use crate::schema::Schema;
use crate::source::{Batches, Source, batch};

/// The most steps of a plan.
pub const MAX_STEPS: usize = 500;
/// The most categories of a map.
const MAX_CATEGORIES: usize = 10_000;

/// Why a loading plan does not fit a dataset. Steps count from 1.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum LoadingError {
    #[error("expected at most {MAX_STEPS} steps, found {0}")]
    TooMany(usize),
    #[error("step {step}: there is no column {column:?}")]
    ColumnUnknown { step: usize, column: String },
    #[error("step {step}: there is already a column {column:?}")]
    ColumnTaken { step: usize, column: String },
    #[error("step {step}: column {column:?}: {expected}")]
    Column { step: usize, column: String, expected: &'static str },
    #[error("step {step}: {source}")]
    Expression { step: usize, source: KindError },
    /// Holds a cell.
    #[error("step {step}: column {column:?}: {value:?} is not among the categories of the map")]
    Unmapped { step: usize, column: String, value: String },
}

/// A value that is written out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Constant {
    Integer(i64),
    Real(f64),
    Text(String),
}

impl Constant {
    fn kind(&self) -> ColumnKind {
        match self {
            Self::Integer(_) => ColumnKind::Integer,
            Self::Real(_) => ColumnKind::Real,
            Self::Text(_) => ColumnKind::Text,
        }
    }

    fn is_finite(&self) -> bool {
        !matches!(self, Self::Real(real) if !real.is_finite())
    }

    fn real(&self) -> Option<f64> {
        match self {
            Self::Integer(integer) => Some(*integer as f64),
            Self::Real(real) => Some(*real),
            Self::Text(_) => None,
        }
    }

    fn integer(&self) -> Option<i64> {
        if let Self::Integer(integer) = self { Some(*integer) } else { None }
    }

    fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case", deny_unknown_fields)]
pub enum LoadingStep {
    /// Gives a column another name.
    Rename { from: String, to: String },
    /// Replaces the values of a text or integer column.
    Map {
        column: String,
        /// New values by old ones as they are written: all numbers, or all texts.
        to: BTreeMap<String, Constant>,
        /// What becomes of a value that is none of these.
        #[serde(default)]
        others: Others,
    },
    /// Changes a unit: the value times the factor plus the offset.
    Units {
        column: String,
        factor: f64,
        #[serde(default)]
        offset: f64,
    },
    /// Adds a column of numbers; what is true or false is 1 or 0.
    Derive { column: String, expression: Expression },
    /// Fills missing cells: with a constant, or a federated mean, median or mode.
    Impute { column: String, value: Constant },
    /// Subtracts a mean, divides by a standard deviation: the federated ones.
    Standardise { column: String, mean: f64, sd: f64 },
}

/// What becomes of a value that a map does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Others {
    /// Reading ends with an error.
    #[default]
    Refuse,
    Missing,
}

/// Steps in their order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LoadingPlan {
    pub steps: Vec<LoadingStep>,
}

impl LoadingStep {
    /// The columns behind the step; fails if it does not fit those before it.
    fn check(&self, step: usize, columns: &mut Vec<ColumnFace>) -> Result<(), LoadingError> {
        let find = |columns: &[ColumnFace], name: &str| {
            let found = columns.iter().position(|column| column.name == name);
            found.ok_or_else(|| LoadingError::ColumnUnknown { step, column: name.to_owned() })
        };
        let free = |columns: &[ColumnFace], name: &str| {
            let is_taken = columns.iter().any(|column| column.name == name);
            if is_taken { Err(LoadingError::ColumnTaken { step, column: name.to_owned() }) } else { Ok(()) }
        };
        let wrong = |column: &str, expected| LoadingError::Column { step, column: column.to_owned(), expected };
        match self {
            Self::Rename { from, to } => {
                let at = find(columns, from)?;
                free(columns, to)?;
                if to.trim().is_empty() || to.chars().any(char::is_control) {
                    return Err(wrong(from, "a new name needs letters and no control characters"));
                }
                columns[at].name.clone_from(to);
            }
            Self::Map { column, to, .. } => {
                let at = find(columns, column)?;
                if columns[at].kind == ColumnKind::Real {
                    return Err(wrong(column, "only texts and integers can be mapped"));
                }
                if !(1..=MAX_CATEGORIES).contains(&to.len()) || !to.values().all(Constant::is_finite) {
                    return Err(wrong(column, "a map has 1 to 10000 categories, with finite numbers"));
                }
                columns[at].kind = map_kind(to).ok_or_else(|| wrong(column, "a map gives numbers or texts, not both"))?;
            }
            Self::Units { column, factor, offset } => {
                let at = find(columns, column)?;
                if !columns[at].kind.is_numeric() || !factor.is_finite() || *factor == 0.0 || !offset.is_finite() {
                    return Err(wrong(column, "a unit is of numbers, its factor and offset finite and the factor not 0"));
                }
                columns[at].kind = ColumnKind::Real;
            }
            Self::Derive { column, expression } => {
                free(columns, column)?;
                let kind_of = |name: &str| columns.iter().find(|column| column.name == name).map(|column| column.kind);
                let kind = expression.kind(&kind_of).map_err(|source| LoadingError::Expression { step, source })?;
                if kind == protocol::ValueKind::Text {
                    return Err(wrong(column, "only numbers can be derived"));
                }
                columns.push(ColumnFace { name: column.clone(), kind: ColumnKind::Real });
            }
            Self::Impute { column, value } => {
                let at = find(columns, column)?;
                columns[at].kind = match (columns[at].kind, value.kind()) {
                    _ if !value.is_finite() => return Err(wrong(column, "the number is not finite")),
                    (old, new) if old == new => old,
                    (ColumnKind::Text, _) | (_, ColumnKind::Text) => {
                        return Err(wrong(column, "texts are filled with a text, numbers with a number"));
                    }
                    _ => ColumnKind::Real,
                };
            }
            Self::Standardise { column, mean, sd } => {
                let at = find(columns, column)?;
                if !columns[at].kind.is_numeric() || !mean.is_finite() || !sd.is_finite() || *sd <= 0.0 {
                    return Err(wrong(
                        column,
                        "numbers are standardised, with a finite mean and a standard deviation above 0",
                    ));
                }
                columns[at].kind = ColumnKind::Real;
            }
        }
        Ok(())
    }
}

/// The kind of what a map gives.
fn map_kind(to: &BTreeMap<String, Constant>) -> Option<ColumnKind> {
    let kinds: Vec<ColumnKind> = to.values().map(Constant::kind).collect();
    let texts = kinds.iter().filter(|kind| **kind == ColumnKind::Text).count();
    match texts {
        0 if kinds.contains(&ColumnKind::Real) => Some(ColumnKind::Real),
        0 => Some(ColumnKind::Integer),
        _ if texts == kinds.len() => Some(ColumnKind::Text),
        _ => None,
    }
}

impl LoadingPlan {
    /// The columns that the plan makes of a dataset's.
    pub fn schema(&self, schema: &Schema) -> Result<Schema, DataError> {
        if self.steps.len() > MAX_STEPS {
            return Err(LoadingError::TooMany(self.steps.len()).into());
        }
        let mut columns = schema.columns().to_vec();
        for (at, step) in self.steps.iter().enumerate() {
            step.check(at + 1, &mut columns)?;
        }
        Schema::new(columns)
    }

    /// The columns of the dataset that are needed to make these.
    fn needs(&self, columns: &[&str]) -> BTreeSet<String> {
        let mut needed: BTreeSet<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        for step in self.steps.iter().rev() {
            match step {
                LoadingStep::Rename { from, to } if needed.remove(to) => {
                    needed.insert(from.clone());
                }
                LoadingStep::Derive { column, expression } if needed.remove(column) => {
                    needed.extend(expression.columns().into_iter().map(str::to_owned));
                }
                _ => {}
            }
        }
        needed
    }
}

/// A dataset read by a plan.
pub struct Loaded<S> {
    source: S,
    plan: LoadingPlan,
    schema: Schema,
}

impl<S: Source> Loaded<S> {
    /// Fails if the plan does not fit the source.
    pub fn new(source: S, plan: LoadingPlan) -> Result<Self, DataError> {
        let schema = plan.schema(source.schema())?;
        Ok(Self { source, plan, schema })
    }

    /// Reads batches of the source's columns as the plan says.
    fn planned<'a>(
        &'a self,
        columns: &[&str],
        read: impl FnOnce(&[&str]) -> Result<Batches<'a>, DataError>,
    ) -> Result<Batches<'a>, DataError> {
        let positions = self.schema.positions(columns)?;
        let needed = self.plan.needs(columns);
        // In the source's order, and with the kinds that it says.
        let own: Vec<&ColumnFace> =
            self.source.schema().columns().iter().filter(|column| needed.contains(&column.name)).collect();
        let own: Vec<ColumnFace> = own.into_iter().cloned().collect();
        let names: Vec<&str> = own.iter().map(|column| column.name.as_str()).collect();
        let batches = read(&names)?;
        let arrow = self.schema.arrow(&positions);
        let wanted: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        let take = move |read: Result<RecordBatch, DataError>| {
            let read = read?;
            let mut frame = Frame { columns: own.clone(), arrays: read.columns().to_vec(), rows: read.num_rows() };
            for (at, step) in self.plan.steps.iter().enumerate() {
                frame.take(at + 1, step)?;
            }
            let array = |name: &String| frame.find(name).map(|at| Arc::clone(&frame.arrays[at]));
            let arrays = wanted.iter().map(|name| array(name).expect("the plan makes the columns that it says")).collect();
            Ok(batch(&arrow, arrays, frame.rows))
        };
        Ok(Box::new(batches.map(take).scan(false, end_after_error)))
    }
}

impl<S: Source> Source for Loaded<S> {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.source.rows()
    }

    fn batches(&self, columns: &[&str]) -> Result<Batches<'_>, DataError> {
        self.planned(columns, |names| self.source.batches(names))
    }

    fn parts(&self) -> usize {
        self.source.parts()
    }

    fn part(&self, part: usize, columns: &[&str]) -> Result<Batches<'_>, DataError> {
        self.planned(columns, |names| self.source.part(part, names))
    }

    fn part_bytes(&self, columns: usize) -> u64 {
        2 * self.source.part_bytes(columns)
    }
}

/// The columns of a batch between two steps.
struct Frame {
    columns: Vec<ColumnFace>,
    arrays: Vec<ArrayRef>,
    rows: usize,
}

impl Frame {
    fn find(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    fn set(&mut self, at: usize, kind: ColumnKind, array: ArrayRef) {
        self.columns[at].kind = kind;
        self.arrays[at] = array;
    }

    /// Takes a step, unless its column is not needed.
    fn take(&mut self, number: usize, step: &LoadingStep) -> Result<(), DataError> {
        match step {
            LoadingStep::Rename { from, to } => {
                if let Some(at) = self.find(from) {
                    self.columns[at].name.clone_from(to);
                }
            }
            LoadingStep::Map { column, to, others } => {
                if let Some(at) = self.find(column) {
                    let constants = self.mapped(number, at, to, *others)?;
                    let kind = map_kind(to).unwrap_or(ColumnKind::Text);
                    self.set(at, kind, constants_array(&constants, kind));
                }
            }
            LoadingStep::Units { column, factor, offset } => self.real(column, |value| value * factor + offset),
            LoadingStep::Standardise { column, mean, sd } => self.real(column, |value| (value - mean) / sd),
            LoadingStep::Derive { column, expression } => {
                if expression.columns().iter().all(|name| self.find(name).is_some()) {
                    let array = self.derived(expression)?;
                    self.columns.push(ColumnFace { name: column.clone(), kind: ColumnKind::Real });
                    self.arrays.push(array);
                }
            }
            LoadingStep::Impute { column, value } => self.impute(column, value),
        }
        Ok(())
    }

    fn real(&mut self, column: &str, change: impl Fn(f64) -> f64) {
        if let Some(at) = self.find(column) {
            let changed = reals(&self.arrays[at]).map(|value| value.map(&change).filter(|value| value.is_finite()));
            let array = Arc::new(changed.collect::<Float64Array>());
            self.set(at, ColumnKind::Real, array);
        }
    }

    fn mapped<'a>(
        &self,
        step: usize,
        at: usize,
        to: &'a BTreeMap<String, Constant>,
        others: Others,
    ) -> Result<Vec<Option<&'a Constant>>, DataError> {
        let array = &self.arrays[at];
        let texts: Box<dyn Iterator<Item = Option<String>>> = match self.columns[at].kind {
            ColumnKind::Text => Box::new(array.as_string::<i32>().iter().map(|text| text.map(str::to_owned))),
            _ => Box::new(array.as_primitive::<Int64Type>().iter().map(|number| number.map(|number| number.to_string()))),
        };
        let mapped = texts.map(|text| match text {
            None => Ok(None),
            Some(text) => match (to.get(&text), others) {
                (Some(constant), _) => Ok(Some(constant)),
                (None, Others::Missing) => Ok(None),
                (None, Others::Refuse) => {
                    let column = self.columns[at].name.clone();
                    Err(LoadingError::Unmapped { step, column, value: text }.into())
                }
            },
        });
        mapped.collect()
    }

    fn derived(&self, expression: &Expression) -> Result<ArrayRef, DataError> {
        let schema = Schema::new(self.columns.clone())?;
        let inputs = Inputs::new(&schema, &[Input::Number(expression.clone())], None)?;
        let positions = schema.positions(&inputs.columns())?;
        let arrays = positions.iter().map(|at| Arc::clone(&self.arrays[*at])).collect();
        let read = inputs.read(&batch(&schema.arrow(&positions), arrays, self.rows));
        let Some(Column::Numbers(numbers)) = read.columns.into_iter().next() else {
            unreachable!("a number was asked for");
        };
        Ok(Arc::new(
            numbers.into_iter().map(|number| Some(number).filter(|number| !number.is_nan())).collect::<Float64Array>(),
        ))
    }

    fn impute(&mut self, column: &str, value: &Constant) {
        let Some(at) = self.find(column) else { return };
        let array = Arc::clone(&self.arrays[at]);
        match (self.columns[at].kind, value) {
            (ColumnKind::Text, Constant::Text(text)) => {
                let texts = array.as_string::<i32>().iter().map(|cell| Some(cell.unwrap_or(text)));
                self.set(at, ColumnKind::Text, Arc::new(texts.collect::<StringArray>()));
            }
            (ColumnKind::Integer, Constant::Integer(integer)) => {
                let integers = array.as_primitive::<Int64Type>().iter().map(|cell| Some(cell.unwrap_or(*integer)));
                self.set(at, ColumnKind::Integer, Arc::new(integers.collect::<Int64Array>()));
            }
            (_, value) => {
                let filled = reals(&array).map(|cell| cell.or(value.real()));
                self.set(at, ColumnKind::Real, Arc::new(filled.collect::<Float64Array>()));
            }
        }
    }
}

/// The finite numbers of a numeric column.
fn reals(array: &ArrayRef) -> Box<dyn Iterator<Item = Option<f64>> + '_> {
    match array.as_primitive_opt::<Int64Type>() {
        Some(integers) => Box::new(integers.iter().map(|cell| cell.map(|integer| integer as f64))),
        None => Box::new(array.as_primitive::<Float64Type>().iter().map(|cell| cell.filter(|real| real.is_finite()))),
    }
}

fn constants_array(constants: &[Option<&Constant>], kind: ColumnKind) -> ArrayRef {
    let constants = constants.iter().copied();
    match kind {
        ColumnKind::Integer => {
            Arc::new(constants.map(|constant| constant.and_then(Constant::integer)).collect::<Int64Array>())
        }
        ColumnKind::Real => Arc::new(constants.map(|constant| constant.and_then(Constant::real)).collect::<Float64Array>()),
        ColumnKind::Text => Arc::new(constants.map(|constant| constant.and_then(Constant::text)).collect::<StringArray>()),
    }
}
