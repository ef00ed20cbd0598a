//! An estimated coefficient with its standard error, test and interval.

use protocol::Confidence;
use serde::Serialize;

use crate::distributions::{normal_quantile, normal_two_sided, student_quantile, student_two_sided};

/// A coefficient of a regression. Numbers that do not exist are NaN, `null` in JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Coefficient {
    pub name: String,
    pub estimate: f64,
    pub std_error: f64,
    /// The estimate over its standard error.
    pub z: f64,
    /// Of the two-sided test that the coefficient is 0.
    pub p: f64,
    pub ci_low: f64,
    pub ci_high: f64,
}

/// What a Wald statistic is compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Reference {
    Normal,
    /// Student's t with these degrees of freedom.
    Student(f64),
}

impl Reference {
    pub(crate) fn p(self, z: f64) -> f64 {
        match self {
            Self::Normal => normal_two_sided(z),
            Self::Student(df) => student_two_sided(z, df),
        }
    }

    /// Half the width of an interval, in standard errors.
    pub(crate) fn half_width(self, confidence: Confidence) -> f64 {
        let p = f64::midpoint(1.0, confidence.level());
        match self {
            Self::Normal => normal_quantile(p),
            Self::Student(df) => student_quantile(p, df),
        }
    }
}

impl Coefficient {
    pub(crate) fn new(name: &str, estimate: f64, std_error: f64, reference: Reference, confidence: Confidence) -> Self {
        let z = estimate / std_error;
        let half = reference.half_width(confidence) * std_error;
        Self {
            name: name.to_owned(),
            estimate,
            std_error,
            z,
            p: reference.p(z),
            ci_low: estimate - half,
            ci_high: estimate + half,
        }
    }
}
