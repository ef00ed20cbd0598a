//! Count, mean and variance of columns, by two passes: sums first, then squared differences from the mean that the sums gave.
//!
//! The second pass makes the variance as accurate as a pooled computation; one pass over squares would lose twice as many digits
//! as the mean has more than the deviation (Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance").

use protocol::{Contribution, Encoding, Purpose, Vector, VectorSpec, Work};
use thiserror::Error;

use crate::sum::compensated;

/// The vector that says how many values each column has.
pub const COUNTS: &str = "counts";
const SUMS: &str = "sums";
const SQUARED_DIFFERENCES: &str = "squared_differences";

/// Why moments cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MomentsError {
    #[error("expected {expected} columns, found {found}")]
    Columns { expected: usize, found: usize },
    #[error("the statistic has no part for this work")]
    OtherWork,
    #[error("the sums are not those of {expected:?}")]
    Vector { expected: &'static str },
    #[error("a value is not a finite number")]
    NotFinite,
}

/// Count, mean and variance of one column over all nodes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ColumnMoments {
    pub count: u64,
    /// Absent without values.
    pub mean: Option<f64>,
    /// Σ (x - mean)²; 0 without values.
    squared_differences: f64,
}

impl ColumnMoments {
    /// The sample variance, divisor n - 1; absent for fewer than two values.
    pub fn variance(&self) -> Option<f64> {
        (self.count > 1).then(|| self.squared_differences / (self.count - 1) as f64)
    }

    /// The standard deviation with divisor n, by which columns are standardised; absent without values.
    pub fn population_deviation(&self) -> Option<f64> {
        (self.count > 0).then(|| (self.squared_differences / self.count as f64).sqrt())
    }
}

/// Moments of all columns, in the plan's order.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    pub columns: Vec<ColumnMoments>,
}

/// What comes after a pass.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Another pass, which every node makes.
    Ask(Work),
    Done(Moments),
}

/// The first pass.
pub fn first_work() -> Work {
    Work::Sums
}

/// The vectors of a pass over `n_columns`: how many values each column has, and their sums.
///
/// Sums fit up to 2^47 in absolute value; for larger ones nodes answer with an exponent that fits.
pub fn layout(work: &Work, n_columns: usize) -> Result<Vec<VectorSpec>, MomentsError> {
    let spec = |name: &str, encoding| VectorSpec {
        purpose: Purpose::Statistic,
        name: name.to_owned(),
        shape: vec![n_columns],
        encoding,
    };
    let sums = match work {
        Work::Sums => SUMS,
        Work::SquaredDifferences { .. } => SQUARED_DIFFERENCES,
        Work::Train { .. } | Work::Validate | Work::Secure { .. } | Work::Pass { .. } => {
            return Err(MomentsError::OtherWork);
        }
    };
    Ok(vec![spec(COUNTS, Encoding::COUNT), spec(sums, Encoding::REAL)])
}

/// A node's values for a pass: of each column's own values, without its blank cells. In the order of [`layout`].
pub fn contribute(work: &Work, columns: &[&[f64]]) -> Result<Contribution, MomentsError> {
    let (name, sums): (&str, Vec<f64>) = match work {
        Work::Sums => (SUMS, columns.iter().map(|column| compensated(column.iter().copied())).collect()),
        Work::SquaredDifferences { means } if means.len() == columns.len() => {
            let squares =
                |column: &[f64], mean: f64| compensated(column.iter().map(|value| (value - mean) * (value - mean)));
            (SQUARED_DIFFERENCES, columns.iter().zip(means).map(|(column, mean)| squares(column, *mean)).collect())
        }
        Work::SquaredDifferences { means } => {
            return Err(MomentsError::Columns { expected: means.len(), found: columns.len() });
        }
        Work::Train { .. } | Work::Validate | Work::Secure { .. } | Work::Pass { .. } => {
            return Err(MomentsError::OtherWork);
        }
    };
    if !sums.iter().all(|sum| sum.is_finite()) {
        return Err(MomentsError::NotFinite);
    }
    let counts = columns.iter().map(|column| column.len() as f64).collect();
    let vector = |name: &str, values| Vector { purpose: Purpose::Statistic, name: name.to_owned(), values };
    Ok(Contribution { vectors: vec![vector(COUNTS, counts), vector(name, sums)] })
}

/// What the decoded sums of a pass lead to, vectors of [`layout`] for the pass's work.
///
/// Both passes count, so that a node which is lost between them leaves the variance one of the values that are left, taken
/// around a mean that it had a part in. The rounding of the mean changes Σ(x - mean)² in the second order only.
pub fn step(work: &Work, vectors: &[Vec<f64>]) -> Result<Step, MomentsError> {
    let expected = match work {
        Work::Sums => SUMS,
        Work::SquaredDifferences { .. } => SQUARED_DIFFERENCES,
        Work::Train { .. } | Work::Validate | Work::Secure { .. } | Work::Pass { .. } => {
            return Err(MomentsError::OtherWork);
        }
    };
    let [counts, sums] = vectors else { return Err(MomentsError::Vector { expected: COUNTS }) };
    let counts: Option<Vec<u64>> = counts.iter().map(|count| whole(*count)).collect();
    let counts = counts.ok_or(MomentsError::Vector { expected: COUNTS })?;
    if counts.len() != sums.len() {
        return Err(MomentsError::Columns { expected: counts.len(), found: sums.len() });
    }
    if !sums.iter().all(|sum| sum.is_finite()) {
        return Err(MomentsError::Vector { expected });
    }
    if let Work::SquaredDifferences { means } = work {
        return finish(&counts, means, sums).map(Step::Done);
    }
    // A column without values is asked about with mean 0: nobody has a difference to add.
    let mean = |(sum, count): (&f64, &u64)| if *count == 0 { 0.0 } else { sum / *count as f64 };
    Ok(Step::Ask(Work::SquaredDifferences { means: sums.iter().zip(&counts).map(mean).collect() }))
}

fn finish(counts: &[u64], means: &[f64], sums: &[f64]) -> Result<Moments, MomentsError> {
    if means.len() != counts.len() {
        return Err(MomentsError::Columns { expected: means.len(), found: counts.len() });
    }
    if sums.iter().any(|sum| *sum < 0.0) {
        return Err(MomentsError::Vector { expected: SQUARED_DIFFERENCES });
    }
    let columns = counts.iter().zip(means).zip(sums).map(|((count, mean), sum)| ColumnMoments {
        count: *count,
        mean: (*count > 0).then_some(*mean),
        squared_differences: *sum,
    });
    Ok(Moments { columns: columns.collect() })
}

/// A count out of a decoded sum; `None` if it is not a whole number that f64 holds exactly.
fn whole(value: f64) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number below 2^53")]
    ((0.0..9_007_199_254_740_992.0).contains(&value) && value.fract() == 0.0).then_some(value as u64)
}

#[cfg(test)]
mod tests;
