//! The sums that a node contributes, computed by the database itself: one statement, one row, no patient's value.
//!
//! Counts, and sums of integers, are exact. Sums of reals are the database's, in float64 and in its order: equal to the local ones
//! to about the number of rows times 1e-16, relative to the sum of absolute values.

use protocol::{ColumnKind, Expression, KindError, Level, ValueKind};
use thiserror::Error;

use super::expression::Compiler;
use super::{Builder, Dialect, Parameter, Statement};

/// The most sums of one statement: PostgreSQL's rows have at most 1,664 columns.
pub const MAX_SUMS: usize = 1_600;

/// One number of the answer. Rows whose value is missing count nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Sum {
    /// The rows that are meant.
    Rows,
    /// The rows where all of these are present.
    Present(Vec<Expression>),
    /// The sum.
    Total(Expression),
    /// The sum of the products of what each lies above its centre, where both are present.
    Product { left: (Expression, f64), right: (Expression, f64) },
    /// The smallest value.
    Smallest(Expression),
    /// The largest value.
    Largest(Expression),
    /// The largest absolute value.
    Magnitude(Expression),
    /// The rows with at most this value.
    AtMost(Expression, f64),
    /// The rows whose column has this value.
    Level { column: String, level: Level },
    /// The rows where the condition is true.
    Where(Expression),
}

/// Why sums cannot be asked of a database.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SumsError {
    #[error(transparent)]
    Kind(#[from] KindError),
    #[error("`{0}` is not a number")]
    NotANumber(String),
    #[error("`{0}` is not a text")]
    NotAText(String),
    #[error("`{0}` is neither true nor false")]
    NotATruth(String),
    #[error("expected 1 to {MAX_SUMS} sums, found {0}")]
    Number(usize),
}

/// Compiles `SELECT … FROM relation WHERE filter`, a float64 for each sum. `relation` is the statement of the dataset, whose
/// integers are of 64 bits and whose reals are finite or null.
pub fn compile(
    relation: Statement,
    filter: Option<&Expression>,
    sums: &[Sum],
    kind_of: &impl Fn(&str) -> Option<ColumnKind>,
) -> Result<Statement, SumsError> {
    if !(1..=MAX_SUMS).contains(&sums.len()) {
        return Err(SumsError::Number(sums.len()));
    }
    // The relation's values come first, its text in the middle.
    let from = relation.text;
    let mut builder = Builder::after(Dialect::Postgres, Statement { text: String::new(), parameters: relation.parameters });
    builder.push("SELECT ");
    for (at, sum) in sums.iter().enumerate() {
        builder.push(if at > 0 { ", CAST(" } else { "CAST(" });
        sum.check(kind_of)?;
        sum.push(&mut builder, kind_of);
        builder.push(" AS double precision)");
    }
    builder.push(" FROM (\n").push(&from).push("\n) AS d");
    if let Some(filter) = filter {
        need(filter, ValueKind::Truth, kind_of)?;
        builder.push(" WHERE ");
        Compiler { builder: &mut builder, kind_of }.truth(filter);
    }
    Ok(builder.finish())
}

fn need(part: &Expression, kind: ValueKind, kind_of: &impl Fn(&str) -> Option<ColumnKind>) -> Result<(), SumsError> {
    match (part.kind(kind_of)?, kind) {
        (ValueKind::Truth, ValueKind::Truth) | (ValueKind::Number | ValueKind::Truth, ValueKind::Number) => Ok(()),
        (_, ValueKind::Truth) => Err(SumsError::NotATruth(part.to_string())),
        _ => Err(SumsError::NotANumber(part.to_string())),
    }
}

impl Sum {
    fn check(&self, kind_of: &impl Fn(&str) -> Option<ColumnKind>) -> Result<(), SumsError> {
        let number = |part: &Expression| need(part, ValueKind::Number, kind_of);
        match self {
            Self::Rows => Ok(()),
            Self::Present(parts) => {
                parts.iter().try_for_each(|part| part.kind(kind_of).map(|_| ()).map_err(SumsError::from))
            }
            Self::Total(part)
            | Self::Smallest(part)
            | Self::Largest(part)
            | Self::Magnitude(part)
            | Self::AtMost(part, _) => number(part),
            Self::Product { left: (left, _), right: (right, _) } => number(left).and_then(|()| number(right)),
            Self::Level { column, level } => {
                let kind = kind_of(column).ok_or_else(|| KindError::ColumnUnknown { name: column.clone() })?;
                match (level, kind) {
                    (Level::Number(_), ColumnKind::Text) => Err(SumsError::NotANumber(column.clone())),
                    (Level::Text(_), ColumnKind::Integer | ColumnKind::Real) => Err(SumsError::NotAText(column.clone())),
                    _ => Ok(()),
                }
            }
            Self::Where(part) => need(part, ValueKind::Truth, kind_of),
        }
    }

    fn push(&self, builder: &mut Builder, kind_of: &impl Fn(&str) -> Option<ColumnKind>) {
        let mut compiler = Compiler { builder, kind_of };
        match self {
            Self::Rows => {
                compiler.builder.push("count(*)");
            }
            Self::Present(parts) => {
                compiler.builder.push("count(CASE WHEN TRUE");
                for part in parts {
                    compiler.builder.push(" AND NOT ");
                    compiler.is_missing(part);
                }
                compiler.builder.push(" THEN 1 END)");
            }
            Self::Total(part) => match part.as_column() {
                // The sum of integers has as many digits as it needs.
                Some(name) if kind_of(name) == Some(ColumnKind::Integer) => {
                    compiler.builder.push("sum(CAST(").name(name).push(" AS bigint))");
                }
                _ => compiler.aggregate("sum(", part, ")"),
            },
            Self::Product { left, right } => {
                compiler.builder.push("sum(");
                compiler.centred(left);
                compiler.builder.push(" * ");
                compiler.centred(right);
                compiler.builder.push(")");
            }
            Self::Smallest(part) => compiler.aggregate("min(", part, ")"),
            Self::Largest(part) => compiler.aggregate("max(", part, ")"),
            Self::Magnitude(part) => compiler.aggregate("max(abs(", part, "))"),
            Self::AtMost(part, edge) => {
                compiler.aggregate("count(CASE WHEN ", part, " <= ");
                compiler.builder.bind(Parameter::Real(*edge)).push(" THEN 1 END)");
            }
            Self::Level { column, level } => {
                let column = Expression::column(column.as_str());
                compiler.builder.push("count(CASE WHEN ");
                compiler.is_level(&column, level);
                compiler.builder.push(" THEN 1 END)");
            }
            Self::Where(part) => {
                compiler.builder.push("count(CASE WHEN ");
                compiler.truth(part);
                compiler.builder.push(" THEN 1 END)");
            }
        }
    }
}

impl<K: Fn(&str) -> Option<ColumnKind>> Compiler<'_, K> {
    fn aggregate(&mut self, open: &str, part: &Expression, close: &str) {
        self.builder.push(open);
        self.number(part);
        self.builder.push(close);
    }

    fn centred(&mut self, (part, centre): &(Expression, f64)) {
        self.builder.push("(");
        self.number(part);
        self.builder.push(" - ").bind(Parameter::Real(*centre)).push(")");
    }
}
