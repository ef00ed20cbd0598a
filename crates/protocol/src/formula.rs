//! The formula of a regression, as R and patsy write it.
//!
//! ```text
//! target ~ age + sex + C(cp, ref=1) + age:sex
//! log(chol) ~ age * sex + I(thalach / age) + offset(log(days)) - 1
//! Surv(time, status = 2) ~ age + grade
//! ```
//!
//! `a:b` is an interaction, `a*b` is `a + b + a:b`, `C(x, ref=…)` takes a column as categories, `I(…)` a value that an [expression]
//! gives (its functions do without `I`), `offset(…)` a value whose coefficient is 1, `- 1` or `+ 0` leaves out the intercept. A bare
//! column is a number, or categories if it holds text; a condition in `I(…)` is 1 where it is true and 0 where it is false. Terms
//! are expanded, without repetition, main effects first and otherwise as written, as in R's `terms`.
//!
//! [expression]: crate::expression

mod display;
mod parser;

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::expression::{Expression, ExpressionError};
use crate::statistic::Level;

/// The most terms that a formula expands to.
pub const MAX_TERMS: usize = 512;
/// The most factors of one interaction.
pub const MAX_FACTORS: usize = 8;

/// What a regression explains, and by what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Formula {
    response: Response,
    has_intercept: bool,
    terms: Vec<Term>,
    offsets: Vec<Expression>,
}

/// The left side.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    Value(Expression),
    /// `Surv(time, event)`: the event is 1 or true where it happened, 0 or false where the time is censored.
    Survival {
        time: Expression,
        event: Expression,
    },
}

/// A product of factors: one is a main effect, more are an interaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    factors: Vec<Factor>,
}

/// A part of a term.
#[derive(Debug, Clone, PartialEq)]
pub enum Factor {
    /// A column as it is: a number, or categories if it holds text.
    Column(String),
    /// `C(column, ref=level)`; without a reference it is the first level.
    Category { column: String, reference: Option<Level> },
    /// `I(…)` or a function: one number for each row.
    Value(Expression),
}

impl Formula {
    pub fn response(&self) -> &Response {
        &self.response
    }

    pub fn has_intercept(&self) -> bool {
        self.has_intercept
    }

    /// The expanded terms without the intercept.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Values that are added with the coefficient 1.
    pub fn offsets(&self) -> &[Expression] {
        &self.offsets
    }

    /// The columns that it reads, each once: those of the response, the terms, the offsets.
    pub fn columns(&self) -> Vec<&str> {
        let response = match &self.response {
            Response::Value(value) => value.columns(),
            Response::Survival { time, event } => [time.columns(), event.columns()].concat(),
        };
        let factors = self.terms.iter().flat_map(|term| &term.factors).flat_map(Factor::columns);
        let offsets = self.offsets.iter().flat_map(Expression::columns);
        let mut columns = Vec::new();
        for column in response.into_iter().chain(factors).chain(offsets) {
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
        columns
    }
}

impl Term {
    /// Without repetition, in the order in which they were written.
    pub fn factors(&self) -> &[Factor] {
        &self.factors
    }

    /// Whether both are products of the same factors.
    fn is_same(&self, other: &Self) -> bool {
        self.factors.len() == other.factors.len() && self.factors.iter().all(|factor| other.factors.contains(factor))
    }
}

impl Factor {
    pub fn columns(&self) -> Vec<&str> {
        match self {
            Self::Column(column) | Self::Category { column, .. } => vec![column],
            Self::Value(value) => value.columns(),
        }
    }
}

impl FromStr for Formula {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Self, ExpressionError> {
        parser::formula(text)
    }
}

impl TryFrom<String> for Formula {
    type Error = ExpressionError;

    fn try_from(text: String) -> Result<Self, ExpressionError> {
        text.parse()
    }
}

impl From<Formula> for String {
    fn from(formula: Formula) -> Self {
        formula.to_string()
    }
}

#[cfg(test)]
mod tests;
