//! What values are expected.

use serde::{Deserialize, Serialize};

use crate::plan::{PlanError, value};

/// Two finite numbers, the first below the second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "[f64; 2]", into = "[f64; 2]")]
pub struct Range {
    low: f64,
    high: f64,
}

impl Range {
    pub fn new(low: f64, high: f64) -> Result<Self, PlanError> {
        if low < high && (high - low).is_finite() {
            return Ok(Self { low, high });
        }
        Err(value("range", "two finite numbers, the first below the second", format!("{low}, {high}")))
    }

    pub fn low(self) -> f64 {
        self.low
    }

    pub fn high(self) -> f64 {
        self.high
    }

    /// The largest absolute value within.
    pub fn magnitude(self) -> f64 {
        self.low.abs().max(self.high.abs())
    }
}

impl TryFrom<[f64; 2]> for Range {
    type Error = PlanError;

    fn try_from([low, high]: [f64; 2]) -> Result<Self, PlanError> {
        Self::new(low, high)
    }
}

impl From<Range> for [f64; 2] {
    fn from(range: Range) -> Self {
        [range.low, range.high]
    }
}
