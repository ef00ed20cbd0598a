//! What one site's measures differ by, and its rows without that.

use serde::Serialize;

use super::{Combat, CombatAnswer, CombatMeasure};
use crate::analysis::{AnalysisError, Batch, Column, OTHER};
use crate::design::{Frame, complete, numbers};
use crate::sum::compensated;

/// The change of an effect, relative to 1, below which the empirical Bayes estimates have settled.
const SETTLED: f64 = 1e-13;
const MAX_ITERATIONS: u32 = 10_000;

/// The measures of a batch, each with all its rows.
pub type Harmonised = Vec<Vec<f64>>;

/// A site's own effects on each measure, in units of its deviation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SiteEffects {
    /// γ*: what the site's values are shifted by.
    pub shifts: Vec<f64>,
    /// δ*²: what their variance is multiplied by.
    pub variances: Vec<f64>,
}

impl Combat {
    /// Harmonises the rows of one site: the site's effects, and the measures of each batch, NaN where a covariate or the measure is blank.
    ///
    /// The effects are estimated from rows without blank cells, of which the site must have two; a measure without any variation
    /// around its covariates cannot be harmonised.
    pub fn apply(&self, answer: &CombatAnswer, batches: &[Batch]) -> Result<(SiteEffects, Vec<Harmonised>), AnalysisError> {
        let p = self.design.len();
        if answer.measures.len() != self.measures.len()
            || answer.measures.iter().any(|measure| measure.coefficients.len() != p)
        {
            return Err(AnalysisError::Plan("the estimates are not those of these measures and covariates".to_owned()));
        }
        if let Some(measure) =
            answer.measures.iter().find(|measure| measure.deviation.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater))
        {
            return Err(AnalysisError::Data(format!("{} does not vary around its covariates", measure.name)));
        }
        let mut standardised = vec![Vec::new(); self.measures.len()];
        for batch in batches {
            let rows = complete(batch, 0..batch.rows);
            for (all, values) in standardised.iter_mut().zip(self.standardised(answer, batch, &rows)) {
                all.extend(values.into_iter().map(|(_, z)| z));
            }
        }
        let effects = self.site_effects(&standardised)?;
        let harmonised = |batch: &Batch| {
            let rows: Vec<usize> = (0..batch.rows).filter(|row| self.has_covariates(batch, *row)).collect();
            let columns = self.standardised(answer, batch, &rows);
            columns
                .into_iter()
                .enumerate()
                .map(|(index, values)| {
                    let mut column = vec![f64::NAN; batch.rows];
                    let factor = answer.measures[index].deviation / effects.variances[index].sqrt();
                    for (row, (mean, z)) in rows.iter().zip(values) {
                        column[*row] = factor * (z - effects.shifts[index]) + mean;
                    }
                    column
                })
                .collect()
        };
        let columns = batches.iter().map(harmonised).collect();
        Ok((effects, columns))
    }

    fn has_covariates(&self, batch: &Batch, row: usize) -> bool {
        batch.columns.iter().enumerate().all(|(input, column)| match column {
            Column::Numbers(values) => values[row].is_finite() || self.measures.contains(&input),
            Column::Levels(codes) => codes[row] < OTHER,
        })
    }

    /// What each measure's value is expected to be, and how far it is from there in deviations.
    fn standardised(&self, answer: &CombatAnswer, batch: &Batch, rows: &[usize]) -> Vec<Vec<(f64, f64)>> {
        let covariates = self.design.columns(batch, rows, &Frame::none(self.design.len()));
        let of = |(measure, input): (&CombatMeasure, &usize)| {
            let values = numbers(batch, *input, rows);
            let mut means = vec![measure.intercept; rows.len()];
            for (coefficient, column) in measure.coefficients.iter().zip(&covariates) {
                means.iter_mut().zip(column).for_each(|(mean, x)| *mean += coefficient * x);
            }
            means.into_iter().zip(values).map(|(mean, value)| (mean, (value - mean) / measure.deviation)).collect()
        };
        answer.measures.iter().zip(&self.measures).map(of).collect()
    }

    fn site_effects(&self, standardised: &[Vec<f64>]) -> Result<SiteEffects, AnalysisError> {
        let n = standardised[0].len() as f64;
        if n < 2.0 {
            return Err(AnalysisError::Data("a site needs two complete rows to be harmonised".to_owned()));
        }
        let shifts: Vec<f64> = standardised.iter().map(|z| compensated(z.iter().copied()) / n).collect();
        let variances: Vec<f64> = standardised
            .iter()
            .zip(&shifts)
            .map(|(z, shift)| compensated(z.iter().map(|z| (z - shift) * (z - shift))) / (n - 1.0))
            .collect();
        if variances.iter().any(|variance| *variance <= 0.0) {
            return Err(AnalysisError::Data("a measure does not vary at a site".to_owned()));
        }
        if !self.plan.empirical_bayes {
            return Ok(SiteEffects { shifts, variances });
        }
        Ok(empirical_bayes(standardised, &shifts, &variances))
    }
}

/// The posterior means of Johnson, Li and Rabinovic 2007, equations 3.1 of the supplement: a normal prior of the shifts and an inverse gamma prior of the
/// variances, whose parameters are those that match the moments over the site's measures.
fn empirical_bayes(standardised: &[Vec<f64>], shifts: &[f64], variances: &[f64]) -> SiteEffects {
    let n = standardised[0].len() as f64;
    let ((shift_mean, shift_variance), (mean, spread)) = (mean_and_variance(shifts), mean_and_variance(variances));
    // λ = (V² + 2 S²) / S² and θ = (V³ + V S²) / S². Without any spread the prior is a point.
    let (lambda, theta) = ((mean * mean + 2.0 * spread) / spread, (mean * mean * mean + mean * spread) / spread);
    let (mut effects, mut found) = (SiteEffects { shifts: Vec::new(), variances: Vec::new() }, (0.0, 0.0));
    for (index, z) in standardised.iter().enumerate() {
        let (shift, mut variance) = (shifts[index], variances[index]);
        // Σ (z - γ)² = Σ (z - z̄)² + n (z̄ - γ)².
        let around_mean = variances[index] * (n - 1.0);
        debug_assert_eq!(z.len() as f64, n);
        for _ in 0..MAX_ITERATIONS {
            let posterior = (n * shift_variance * shift + variance * shift_mean) / (n * shift_variance + variance);
            let squares = around_mean + n * (shift - posterior) * (shift - posterior);
            let next = if spread > 0.0 { (theta + 0.5 * squares) / (0.5 * n + lambda - 1.0) } else { mean };
            let change = (next - variance).abs() + (posterior - found.0).abs();
            found = (posterior, next);
            variance = next;
            if change <= SETTLED * (1.0 + next) {
                break;
            }
        }
        effects.shifts.push(found.0);
        effects.variances.push(found.1);
    }
    effects
}

/// With divisor n - 1.
fn mean_and_variance(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = compensated(values.iter().copied()) / n;
    (mean, compensated(values.iter().map(|value| (value - mean) * (value - mean))) / (n - 1.0))
}
