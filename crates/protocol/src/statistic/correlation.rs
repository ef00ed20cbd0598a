//! Correlations and covariances of columns.

use serde::{Deserialize, Serialize};

use crate::expression::Expression;
use crate::plan::{PlanError, value};

/// The most columns whose products are summed.
pub const MAX_PRODUCT_COLUMNS: usize = 1_024;

/// Two to [`MAX_PRODUCT_COLUMNS`] different columns of numbers, or what expressions make of columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Expression>", into = "Vec<Expression>")]
pub struct NumberColumns(Vec<Expression>);

impl NumberColumns {
    pub fn new(columns: Vec<Expression>) -> Result<Self, PlanError> {
        if !(2..=MAX_PRODUCT_COLUMNS).contains(&columns.len()) {
            return Err(value("columns", "2 to 1024 columns", columns.len()));
        }
        let mut names: Vec<String> = columns.iter().map(ToString::to_string).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(twice) => Err(PlanError::Twice { key: "columns", name: twice[0].clone() }),
            None => Ok(Self(columns)),
        }
    }

    pub fn as_slice(&self) -> &[Expression] {
        &self.0
    }
}

impl TryFrom<Vec<Expression>> for NumberColumns {
    type Error = PlanError;

    fn try_from(columns: Vec<Expression>) -> Result<Self, PlanError> {
        Self::new(columns)
    }
}

impl From<NumberColumns> for Vec<Expression> {
    fn from(columns: NumberColumns) -> Self {
        columns.0
    }
}

/// Pearson's correlations, with covariances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Correlation {
    pub columns: NumberColumns,
    #[serde(default)]
    pub blanks: Blanks,
}

/// Which rows count where cells are blank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blanks {
    /// Rows without a blank cell in any of the columns.
    #[default]
    Listwise,
    /// For each pair of columns the rows where both have a value.
    Pairwise,
}

impl Correlation {
    pub(super) fn names(&self) -> Vec<&str> {
        self.columns.as_slice().iter().flat_map(Expression::columns).collect()
    }
}
