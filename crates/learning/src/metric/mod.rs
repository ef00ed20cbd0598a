//! What validation measures, exactly on one node and pooled over nodes from sums.
//!
//! Formulas are in `classification`, `auc` and `regression`. A metric that is not defined for the rows at hand is said to be so,
//! with the reason; it is never a number that means nothing.

mod auc;
mod classification;
mod regression;
mod sums;

use std::collections::BTreeMap;

use protocol::Metric;
use thiserror::Error;

pub use self::auc::SCORE_BINS;
pub use self::sums::{SumsError, ValidationSums, validation_specs};

/// Why a metric is not defined here. The sentences are for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Undefined {
    #[error("no row is held out")]
    NoRows,
    #[error("all held-out rows are of one class")]
    OneClass,
    #[error("no held-out row is of class 1")]
    NoneActual,
    #[error("no held-out row is predicted to be of class 1")]
    NonePredicted,
    #[error("the target is the same in all held-out rows")]
    ConstantTarget,
}

/// The metrics of one validation.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// Held-out rows that were measured.
    pub rows: u64,
    /// The metrics that belong to the outcome.
    pub values: BTreeMap<Metric, Result<f64, Undefined>>,
    /// How far the AUC of the histogram can be from the exact one; absent where the AUC is exact or undefined.
    pub auc_error_bound: Option<f64>,
    /// Rows by true class (first index) and predicted class; absent for real outcomes and for more than 100 classes.
    pub confusion: Option<Vec<Vec<u64>>>,
    /// Rows of each true class; empty for real outcomes.
    pub rows_per_class: Vec<u64>,
}

impl Metrics {
    /// The metric's value, if it belongs to the outcome and is defined.
    pub fn get(&self, metric: Metric) -> Option<f64> {
        self.values.get(&metric).and_then(|value| value.ok())
    }

    /// The metrics that are numbers.
    pub fn defined(&self) -> impl Iterator<Item = (Metric, f64)> {
        self.values.iter().filter_map(|(metric, value)| Some((*metric, value.ok()?)))
    }

    /// The metrics that are not, and why.
    pub fn undefined(&self) -> impl Iterator<Item = (Metric, Undefined)> {
        self.values.iter().filter_map(|(metric, value)| Some((*metric, value.err()?)))
    }
}

/// 1 / (1 + exp(-score)), without overflow.
pub(crate) fn logistic(score: f64) -> f64 {
    let tail = (-score.abs()).exp();
    let numerator = if score < 0.0 { tail } else { 1.0 };
    numerator / (1.0 + tail)
}

/// The log loss of a score z and a target y of 0 or 1: max(z, 0) - y·z + ln(1 + exp(-|z|)), without overflow.
pub(crate) fn log_loss_of_score(score: f64, target: f64) -> f64 {
    score.max(0.0) - target * score + (-score.abs()).exp().ln_1p()
}

/// The log loss of a class under the softmax of scores: ln Σ exp(zₖ) less the score of the class, without overflow.
pub(crate) fn log_loss_of_scores(scores: &[f64], class: usize) -> f64 {
    let largest = scores.iter().fold(f64::NEG_INFINITY, |largest, score| largest.max(*score));
    scores.iter().map(|score| (score - largest).exp()).sum::<f64>().ln() + largest - scores[class]
}
