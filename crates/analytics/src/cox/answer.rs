//! What Cox's model comes to.

use protocol::Pass;
use protocol::statistic::{Strata, Ties};
use serde::Serialize;

use super::risk::Likelihood;
use super::{Cox, MOMENTS, Moments, NEWTON};
use crate::analysis::AnalysisError;
use crate::distributions::chi_square_upper;
use crate::estimate::{Coefficient, Reference};
use crate::linear::dot;
use crate::newton::Settled;
use crate::survey;
use crate::times::{Grid, LABELS, TIMES};

/// A fitted proportional hazards model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CoxAnswer {
    /// In the order of the formula, without terms that are combinations of others; estimates are log hazard ratios.
    pub terms: Vec<Coefficient>,
    /// Complete rows.
    pub n: u64,
    pub events: u64,
    /// Without the ridge.
    pub log_likelihood: f64,
    pub log_likelihood_null: f64,
    /// Of the model against the one without terms; absent with a ridge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub likelihood_ratio: Option<LikelihoodRatio>,
    pub iterations: u32,
    pub converged: bool,
    pub ties: Ties,
    /// Whether each site has a baseline of its own.
    pub strata: Strata,
    /// `exact`, or `steps`: times count as the ends of their steps.
    pub resolution: &'static str,
    /// With one baseline for all: its cumulative hazard where every column is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineHazard>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliased: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Of the estimates, row by row in the order of `terms`.
    #[serde(skip)]
    pub covariance: Vec<Vec<f64>>,
}

/// A test by the ratio of two likelihoods.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LikelihoodRatio {
    pub chi2: f64,
    pub df: u64,
    pub p: f64,
}

/// A step function that starts at 0.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BaselineHazard {
    pub time: Vec<f64>,
    pub cumulative_hazard: Vec<f64>,
}

/// Where Newton's method stopped.
pub(super) struct Fitted<'a> {
    pub(super) moments: &'a Moments,
    pub(super) null: &'a Likelihood,
    pub(super) last: &'a Likelihood,
    /// Where the last one was evaluated.
    pub(super) at: &'a [f64],
    pub(super) free: &'a [bool],
    pub(super) settled: &'a Settled,
    pub(super) grid: Option<&'a Grid>,
}

impl Fitted<'_> {
    pub(super) fn answer(&self, cox: &Cox) -> CoxAnswer {
        let kept = &self.settled.factor.kept;
        let frame = &self.moments.frame;
        let inverse = self.settled.factor.inverse();
        let covariance = |i: usize, j: usize| inverse.get(i, j) / (frame.unit(i) * frame.unit(j));
        let terms = kept.iter().map(|j| {
            let estimate = self.settled.at[*j] / frame.unit(*j);
            Coefficient::new(
                cox.design.name(*j),
                estimate,
                covariance(*j, *j).sqrt(),
                Reference::Normal,
                cox.plan.confidence,
            )
        });
        let (log_likelihood, log_likelihood_null) = (self.last.log, self.null.log);
        let ratio = (cox.plan.ridge == 0.0).then(|| {
            let (chi2, df) = (2.0 * (log_likelihood - log_likelihood_null).max(0.0), kept.len() as u64);
            LikelihoodRatio { chi2, df, p: chi_square_upper(chi2, df as f64) }
        });
        CoxAnswer {
            terms: terms.collect(),
            n: self.moments.rows,
            events: self.moments.events,
            log_likelihood,
            log_likelihood_null,
            likelihood_ratio: ratio,
            iterations: self.settled.iterations,
            converged: self.settled.converged,
            ties: cox.plan.ties,
            strata: cox.plan.strata,
            resolution: cox.resolution(),
            baseline: self.grid.map(|grid| self.baseline(grid)),
            aliased: (0..cox.design.len()).filter(|j| !self.free[*j]).map(|j| cox.design.name(j).to_owned()).collect(),
            notes: self.notes(cox),
            covariance: kept.iter().map(|i| kept.iter().map(|j| covariance(*i, *j)).collect()).collect(),
        }
    }

    fn baseline(&self, grid: &Grid) -> BaselineHazard {
        let frame = &self.moments.frame;
        // Risks were relative to a row at the centre of all columns.
        let of_center: f64 = (0..self.at.len()).map(|j| self.at[j] * frame.center[j] / frame.unit(j)).sum();
        let mut baseline = BaselineHazard { time: Vec::new(), cumulative_hazard: Vec::new() };
        let mut cumulative = 0.0;
        for (time, jump) in grid.labels.iter().zip(&self.last.hazard).filter(|(_, jump)| **jump > 0.0) {
            cumulative += jump * (-of_center).exp();
            baseline.time.push(*time);
            baseline.cumulative_hazard.push(cumulative);
        }
        baseline
    }

    fn notes(&self, cox: &Cox) -> Vec<String> {
        if !self.settled.diverging.is_empty() {
            let names: Vec<&str> = self.settled.diverging.iter().map(|j| cox.design.name(*j)).collect();
            return vec![format!("no finite estimate exists: the likelihood is monotone in {}", names.join(", "))];
        }
        if !self.settled.converged {
            return vec!["the iterations did not converge: the estimates are those of the last one".to_owned()];
        }
        Vec::new()
    }
}

/// In a site's own risk sets one row moves the terms of every event before it, which nothing bounds but their number; in pooled
/// bins it moves one bin.
pub(super) fn sensitivity(cox: &Cox, pass: &Pass, ranges: &[Option<f64>]) -> Result<Vec<f64>, AnalysisError> {
    match pass.step.as_str() {
        survey::STEP => Ok(cox.survey.sensitivity()),
        TIMES => Ok(vec![3_f64.sqrt(), 2_f64.sqrt()]),
        LABELS => Ok(vec![1.0; 2]),
        MOMENTS => {
            let scales = cox.scales(pass)?;
            let bits = cox.column_bits(&scales);
            let squares = (0..cox.design.len()).map(|j| {
                let z = cox.design.bound(j, &cox.inputs, ranges) * f64::from(-bits[j]).exp2();
                z * z + z * z * z * z
            });
            Ok(vec![3_f64.sqrt(), squares.sum::<f64>().sqrt()])
        }
        NEWTON => {
            let at = cox.at(pass)?;
            if at.grid.is_none() {
                return Ok(vec![3_f64.sqrt(), f64::INFINITY]);
            }
            let z: Vec<f64> = (0..cox.design.len())
                .map(|j| (cox.design.bound(j, &cox.inputs, ranges) + at.frame.center[j].abs()) / at.frame.unit(j))
                .collect();
            let range =
                |input: &usize| ranges.get(cox.inputs.numeric_index(*input)).copied().flatten().unwrap_or(f64::INFINITY);
            let offset: f64 = cox.offsets.iter().map(range).sum();
            let size: Vec<f64> = at.coefficients.iter().map(|coefficient| coefficient.abs()).collect();
            // 0 · ∞ is a term that is not there.
            let eta = offset + size.iter().zip(&z).filter(|(size, _)| **size > 0.0).map(|(size, z)| size * z).sum::<f64>();
            let square = dot(&z, &z);
            let risk = eta.exp() * (1.0 + square + square * square).sqrt();
            let twice = if cox.plan.ties == Ties::Efron { 2_f64.sqrt() } else { 1.0 };
            Ok(vec![3_f64.sqrt(), 1.0, (square + offset * offset).sqrt(), twice * risk])
        }
        _ => Err(AnalysisError::Pass(pass.step.clone())),
    }
}
