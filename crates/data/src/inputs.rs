//! What a statistic reads, as plain numbers and codes.

use std::collections::{HashMap, HashSet};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, BooleanArray, RecordBatch};
use arrow_select::filter::filter_record_batch;
use protocol::statistic::{Batch, Column, Input, MISSING, OTHER};
use protocol::{Category, ColumnKind, Expression, KindError, Level, ValueKind};

use crate::error::DataError;
use crate::evaluate::{Rows, Value, as_integer, finite};
use crate::nearest;
use crate::schema::Schema;

/// Inputs and a filter of rows that fit a dataset.
#[derive(Debug)]
pub struct Inputs {
    readers: Vec<Reader>,
    filter: Option<Expression>,
    /// What is read from the source, without repetition.
    columns: Vec<String>,
    positions: HashMap<String, usize>,
}

#[derive(Debug)]
enum Reader {
    Number(Expression),
    Integers { column: String, codes: HashMap<i64, u32> },
    Reals { column: String, codes: HashMap<u64, u32> },
    Texts { column: String, codes: HashMap<String, u32> },
}

impl Inputs {
    /// Checks inputs and filter against the columns of a dataset.
    pub fn new(schema: &Schema, inputs: &[Input], filter: Option<&Expression>) -> Result<Self, DataError> {
        let kinds: HashMap<&str, ColumnKind> =
            schema.columns().iter().map(|column| (column.name.as_str(), column.kind)).collect();
        let kind_of = |name: &str| kinds.get(name).copied();
        let check = |expression: &Expression| expression.kind(&kind_of).map_err(|error| with_nearest(error, schema));
        if let Some(filter) = filter
            && check(filter)? != ValueKind::Truth
        {
            return Err(DataError::FilterNotTruth { filter: filter.to_string() });
        }
        let mut readers = Vec::with_capacity(inputs.len());
        for input in inputs {
            readers.push(match input {
                Input::Number(expression) => {
                    if check(expression)? == ValueKind::Text {
                        return Err(DataError::ColumnNotNumeric {
                            name: expression.as_column().map_or_else(|| expression.to_string(), str::to_owned),
                        });
                    }
                    Reader::Number(expression.clone())
                }
                Input::Levels(category) => {
                    let unknown = || KindError::ColumnUnknown { name: category.column().to_owned() };
                    let kind = kind_of(category.column()).ok_or_else(|| with_nearest(unknown(), schema))?;
                    Reader::levels(category, kind)?
                }
            });
        }
        let columns = columns(&readers, filter);
        let positions = columns.iter().enumerate().map(|(position, name)| (name.clone(), position)).collect();
        Ok(Self { readers, filter: filter.cloned(), columns, positions })
    }

    /// The columns to read from the source, in the order in which [`read`](Self::read) takes them.
    pub fn columns(&self) -> Vec<&str> {
        self.columns.iter().map(String::as_str).collect()
    }

    /// Takes the rows of a batch that the filter keeps.
    pub fn read(&self, batch: &RecordBatch) -> Batch {
        self.read_kept(batch, self.kept(batch).as_ref())
    }

    /// Says which rows of a batch the filter keeps; all without a filter.
    pub fn kept(&self, batch: &RecordBatch) -> Option<BooleanArray> {
        self.filter.as_ref().map(|filter| {
            let truths = Rows { batch, positions: &self.positions }.truths(filter);
            // A row is kept only where the filter is true: what is missing becomes false.
            let kept = truths.nulls().map_or_else(|| truths.values().clone(), |nulls| truths.values() & nulls.inner());
            BooleanArray::new(kept, None)
        })
    }

    /// Takes these rows of a batch, as [`kept`](Self::kept) says.
    pub fn read_kept(&self, batch: &RecordBatch, kept: Option<&BooleanArray>) -> Batch {
        match kept {
            Some(kept) if kept.true_count() < batch.num_rows() => {
                let batch = filter_record_batch(batch, kept).expect("the filter has a value for each row");
                self.values(&batch)
            }
            _ => self.values(batch),
        }
    }

    fn values(&self, batch: &RecordBatch) -> Batch {
        let rows = Rows { batch, positions: &self.positions };
        let cells = |column: &str| batch.column(self.positions[column]);
        let value = |reader: &Reader| match reader {
            Reader::Number(expression) => Column::Numbers(numbers(rows.value(expression), batch.num_rows())),
            Reader::Integers { column, codes } => {
                let column = cells(column).as_primitive::<Int64Type>();
                Column::Levels(coded(column.iter(), |value| codes.get(&value)))
            }
            Reader::Reals { column, codes } => {
                let column = finite(cells(column).as_primitive::<Float64Type>().clone());
                Column::Levels(coded(column.iter(), |value| codes.get(&key(value))))
            }
            Reader::Texts { column, codes } => {
                Column::Levels(coded(cells(column).as_string::<i32>().iter(), |value| codes.get(value)))
            }
        };
        Batch { rows: batch.num_rows(), columns: self.readers.iter().map(value).collect() }
    }
}

/// The distinct columns of all inputs and the filter.
fn columns(inputs: &[Reader], filter: Option<&Expression>) -> Vec<String> {
    let of_inputs = inputs.iter().flat_map(|input| match input {
        Reader::Number(expression) => expression.columns(),
        Reader::Integers { column, .. } | Reader::Reals { column, .. } | Reader::Texts { column, .. } => {
            vec![column.as_str()]
        }
    });
    let mut seen = HashSet::new();
    let all = of_inputs.chain(filter.into_iter().flat_map(Expression::columns));
    all.filter(|name| seen.insert(*name)).map(str::to_owned).collect()
}

fn with_nearest(error: KindError, schema: &Schema) -> DataError {
    match error {
        KindError::ColumnUnknown { name } => {
            let nearest = nearest(&name, schema.columns().iter().map(|column| column.name.as_str()));
            DataError::ColumnUnknown { name, nearest }
        }
        error => DataError::Expression(error),
    }
}

impl Reader {
    fn levels(category: &Category, kind: ColumnKind) -> Result<Self, DataError> {
        let column = category.column().to_owned();
        let levels = (0..).zip(category.levels());
        let other = |level: &Level| DataError::LevelKind { column: column.clone(), level: level.to_string(), kind };
        match kind {
            ColumnKind::Integer => {
                // A level that is no integer is the level of no row.
                let code = |(code, level): (u32, &Level)| match level {
                    Level::Number(number) => Ok(as_integer(*number).map(|integer| (integer, code))),
                    Level::Text(_) => Err(other(level)),
                };
                let codes = levels.map(code).filter_map(Result::transpose).collect::<Result<_, _>>()?;
                Ok(Self::Integers { column, codes })
            }
            ColumnKind::Real => {
                let code = |(code, level): (u32, &Level)| match level {
                    Level::Number(number) => Ok((key(*number), code)),
                    Level::Text(_) => Err(other(level)),
                };
                let codes = levels.map(code).collect::<Result<_, _>>()?;
                Ok(Self::Reals { column, codes })
            }
            ColumnKind::Text => {
                let code = |(code, level): (u32, &Level)| match level {
                    Level::Text(text) => Ok((text.clone(), code)),
                    Level::Number(_) => Err(other(level)),
                };
                let codes = levels.map(code).collect::<Result<_, _>>()?;
                Ok(Self::Texts { column, codes })
            }
        }
    }
}

/// The bits by which finite reals are told apart: -0 is 0.
fn key(real: f64) -> u64 {
    (real + 0.0).to_bits()
}

fn coded<'c, T>(values: impl Iterator<Item = Option<T>>, code: impl Fn(T) -> Option<&'c u32>) -> Vec<u32> {
    values.map(|value| value.map_or(MISSING, |value| code(value).copied().unwrap_or(OTHER))).collect()
}

/// Numbers with NaN where they are missing.
fn numbers(value: Value, rows: usize) -> Vec<f64> {
    match value {
        Value::Integers(integers) => with_nan(integers.values().iter().map(|integer| *integer as f64).collect(), &integers),
        Value::Reals(reals) => with_nan(reals.values().to_vec(), &reals),
        Value::Integer(integer) => vec![integer as f64; rows],
        Value::Real(real) => vec![real; rows],
        Value::Truths(truths) => {
            let numbers = truths.values().iter().map(|truth| f64::from(u8::from(truth))).collect();
            with_nan(numbers, &truths)
        }
        Value::Texts(_) | Value::Text(_) => unreachable!("kinds are checked before rows are read"),
    }
}

fn with_nan(mut numbers: Vec<f64>, array: &dyn Array) -> Vec<f64> {
    if let Some(nulls) = array.nulls().filter(|nulls| nulls.null_count() > 0) {
        for (number, is_valid) in numbers.iter_mut().zip(nulls) {
            if !is_valid {
                *number = f64::NAN;
            }
        }
    }
    numbers
}
