//! Principal components.

use serde::{Deserialize, Serialize};

use super::NumberColumns;
use crate::expression::Expression;

/// The directions in which columns vary most, of rows without a blank cell in any of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pca {
    pub columns: NumberColumns,
    /// How many components are answered; all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub components: Option<usize>,
    #[serde(default)]
    pub of: PcaOf,
}

/// Which matrix is decomposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PcaOf {
    /// The columns divided by their standard deviations.
    #[default]
    Correlation,
    /// The columns as they are.
    Covariance,
}

impl Pca {
    pub(super) fn names(&self) -> Vec<&str> {
        self.columns.as_slice().iter().flat_map(Expression::columns).collect()
    }
}
