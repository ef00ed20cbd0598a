//! What a generalised linear model comes to.

use protocol::statistic::Errors;
use serde::Serialize;

use super::{ERRORS, Glm, Moments};
use crate::analysis::{AnalysisError, Answered};
use crate::estimate::{Coefficient, Reference};
use crate::linear::Symmetric;
use crate::newton::Settled;
use crate::survey::whole;

/// A fitted generalised linear model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GlmAnswer {
    /// In the order of the formula, the intercept first; without terms that are combinations of others.
    pub terms: Vec<Coefficient>,
    /// Complete rows.
    pub n: u64,
    /// Responses of 1, where every response is 0 or 1 in a binomial model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<u64>,
    pub log_likelihood: f64,
    pub deviance: f64,
    /// Of the model with the intercept alone; without an intercept, of the model without terms.
    pub null_deviance: f64,
    /// Rows less coefficients.
    pub df_residual: u64,
    /// The factor of the variance; 1 for binomial and poisson.
    pub dispersion: f64,
    pub iterations: u32,
    pub converged: bool,
    /// Terms that are combinations of terms before them, and are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliased: Vec<String>,
    /// What the reader has to know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Of the estimates, row by row in the order of `terms`.
    #[serde(skip)]
    pub covariance: Vec<Vec<f64>>,
}

/// Where Newton's method stopped.
pub(super) struct Fitted<'a> {
    pub(super) moments: &'a Moments,
    pub(super) deviance: f64,
    pub(super) pearson: f64,
    pub(super) null_deviance: f64,
    pub(super) free: &'a [bool],
    pub(super) settled: &'a Settled,
}

impl Fitted<'_> {
    /// The answer, with robust errors out of this pass if it was asked for.
    pub(super) fn answer(&self, glm: &Glm, errors: Option<&Answered>) -> Result<GlmAnswer, AnalysisError> {
        let kept = &self.settled.factor.kept;
        let n = self.moments.rows as f64;
        let df = n - kept.len() as f64;
        let mut notes = self.notes(glm);
        let dispersion = match glm.plan.family {
            _ if !glm.model.has_dispersion() => 1.0,
            _ if df <= 0.0 => return Err(AnalysisError::Data("there are no more rows than terms".to_owned())),
            protocol::GlmFamily::Gaussian => self.deviance / df,
            _ => self.pearson / df,
        };
        let inverse = self.settled.factor.inverse();
        let covariance = match errors {
            None => {
                let mut covariance = inverse;
                for i in 0..covariance.n() {
                    for j in i..covariance.n() {
                        covariance.set(i, j, covariance.get(i, j) * dispersion);
                    }
                }
                covariance
            }
            Some(answered) => self.robust(glm, &inverse, answered, df, &mut notes)?,
        };
        let back = self.moments.frame.back(glm.has_intercept());
        let covariance = covariance.transformed(&back);
        let reference = if glm.model.has_dispersion() { Reference::Student(df) } else { Reference::Normal };
        let at = &self.settled.at;
        let terms = kept.iter().map(|unknown| {
            let estimate = crate::linear::dot(&back[*unknown], at);
            let std_error = covariance.get(*unknown, *unknown).sqrt();
            Coefficient::new(glm.name(*unknown), estimate, std_error, reference, glm.plan.confidence)
        });
        let is_binary = glm.plan.family == protocol::GlmFamily::Binomial && self.moments.is_binary && glm.weights.is_none();
        Ok(GlmAnswer {
            terms: terms.collect(),
            n: self.moments.rows,
            events: is_binary.then_some(self.moments.ones),
            log_likelihood: glm.model.log_likelihood(self.moments.saturated, self.deviance, self.moments.weights, n),
            deviance: self.deviance,
            null_deviance: self.null_deviance,
            df_residual: self.moments.rows.saturating_sub(kept.len() as u64),
            dispersion,
            iterations: self.settled.iterations,
            converged: self.settled.converged,
            aliased: (0..glm.unknowns())
                .filter(|unknown| !self.free[*unknown])
                .map(|unknown| glm.name(unknown).to_owned())
                .collect(),
            notes,
            covariance: kept.iter().map(|i| kept.iter().map(|j| covariance.get(*i, *j)).collect()).collect(),
        })
    }

    fn notes(&self, glm: &Glm) -> Vec<String> {
        let names = |unknowns: &[usize]| unknowns.iter().map(|unknown| glm.name(*unknown)).collect::<Vec<_>>().join(", ");
        if !self.settled.diverging.is_empty() {
            let what =
                if glm.plan.family == protocol::GlmFamily::Binomial { "separate the outcomes" } else { "leave no events" };
            return vec![format!("no finite estimate exists: {} {what}", names(&self.settled.diverging))];
        }
        if !self.settled.converged {
            return vec!["the iterations did not converge: the estimates are those of the last one".to_owned()];
        }
        Vec::new()
    }

    /// A⁻¹ M A⁻¹ with the corrections for small samples that Stata and statsmodels make.
    fn robust(
        &self,
        glm: &Glm,
        inverse: &Symmetric,
        answered: &Answered,
        df: f64,
        notes: &mut Vec<String>,
    ) -> Result<Symmetric, AnalysisError> {
        let wrong = || AnalysisError::Sums(ERRORS.to_owned());
        let k = glm.unknowns();
        let unit = f64::from(glm.at(&answered.pass)?.units.score).exp2();
        let [counts, sums] = answered.sums.as_slice() else { return Err(wrong()) };
        let [_, misfits, sites] = counts[..] else { return Err(wrong()) };
        if misfits > 0.0 {
            return Err(AnalysisError::Data("the residuals are too unequal for the sums of robust errors".to_owned()));
        }
        let sites = whole(sites).ok_or_else(wrong)?;
        let n = self.moments.rows as f64;
        let clustered = |clusters: f64| clusters / (clusters - 1.0) * (n - 1.0) / df;
        let (meat, correction) = if let Some((_, category)) = &glm.cluster {
            if sums.len() != category.levels().len() * k {
                return Err(wrong());
            }
            let mut meat = Symmetric::zeros(k);
            let mut clusters = 0_u32;
            for score in sums.chunks(k).filter(|score| score.iter().any(|value| *value != 0.0)) {
                meat.add_outer(score, 1.0);
                clusters += 1;
            }
            notes.push(format!("errors are robust to correlation within {clusters} clusters"));
            (meat, clustered(f64::from(clusters)))
        } else {
            if sums.len() != Symmetric::packed_len(k) {
                return Err(wrong());
            }
            let correction = match glm.plan.errors {
                Errors::Hc1 => n / df,
                Errors::ClusterBySite => {
                    notes.push(format!("errors are robust to correlation within {sites} sites"));
                    clustered(sites as f64)
                }
                _ => 1.0,
            };
            (Symmetric::from_packed(k, sums), correction)
        };
        let mut scaled = Symmetric::zeros(k);
        for i in 0..k {
            for j in i..k {
                scaled.set(i, j, meat.get(i, j) * unit * unit * correction);
            }
        }
        Ok(inverse.sandwich(&scaled))
    }
}
