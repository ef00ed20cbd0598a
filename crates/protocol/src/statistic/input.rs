//! What a statistic reads of each row: the crate `data` makes it of a dataset, `analytics` adds it up.

use super::Category;
use crate::expression::Expression;

/// What is read of a row, after the question's filter.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A number: a column, or what an expression makes of columns; what is true or false is 1 or 0.
    Number(Expression),
    /// The position of the column's value among the levels.
    Levels(Category),
}

/// The code of a row whose cell is missing.
pub const MISSING: u32 = u32::MAX;
/// The code of a row whose value is none of the levels.
pub const OTHER: u32 = u32::MAX - 1;

/// One input for some rows.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// NaN where the value is missing, and finite elsewhere.
    Numbers(Vec<f64>),
    /// Positions among the input's levels, [`MISSING`] or [`OTHER`].
    Levels(Vec<u32>),
}

/// All inputs for some rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    pub rows: usize,
    /// In the order of the inputs.
    pub columns: Vec<Column>,
}
