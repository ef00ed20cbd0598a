//! How sure an interval is.

use serde::{Deserialize, Serialize};

use crate::plan::{PlanError, value};

/// The probability with which an interval covers what it is about; 0.95 by default.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Confidence(f64);

impl Confidence {
    /// Fails unless it is at least 0.5 and below 1.
    pub fn new(level: f64) -> Result<Self, PlanError> {
        if (0.5..1.0).contains(&level) { Ok(Self(level)) } else { Err(value("confidence", "0.5 to below 1", level)) }
    }

    pub fn level(self) -> f64 {
        self.0
    }
}

impl Default for Confidence {
    fn default() -> Self {
        Self(0.95)
    }
}

impl TryFrom<f64> for Confidence {
    type Error = PlanError;

    fn try_from(level: f64) -> Result<Self, PlanError> {
        Self::new(level)
    }
}

impl From<Confidence> for f64 {
    fn from(confidence: Confidence) -> Self {
        confidence.0
    }
}
