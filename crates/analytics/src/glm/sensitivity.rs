//! How much one row can move the sums of a generalised linear model, where the ranges of its columns are declared. The bounds are of sums that fit
//! their pass.

use protocol::statistic::{Errors, Link};
use protocol::{GlmFamily, Pass};

use super::{At, ERRORS, Glm, MOMENTS, NEWTON, NULL};
use crate::analysis::AnalysisError;
use crate::survey;

/// Bounds of what a row adds.
struct Bounds {
    /// |y|, the weight, and the sum of the offsets.
    response: f64,
    weight: f64,
    offset: f64,
}

/// Bounds of a row's terms at coefficients.
struct RowBounds {
    deviance: f64,
    pearson: f64,
    residual: f64,
    weight: f64,
}

pub(super) fn sensitivity(glm: &Glm, pass: &Pass, ranges: &[Option<f64>]) -> Result<Vec<f64>, AnalysisError> {
    let range = |input: usize| ranges.get(glm.inputs.numeric_index(input)).copied().flatten().unwrap_or(f64::INFINITY);
    let bounds = Bounds {
        response: range(glm.response),
        weight: glm.weights.map_or(1.0, range),
        offset: glm.offsets.iter().map(|offset| range(*offset)).sum(),
    };
    match pass.step.as_str() {
        survey::STEP => Ok(glm.survey.sensitivity()),
        MOMENTS => Ok(vec![2.0, moments(glm, pass, &bounds, ranges)?]),
        NULL | NEWTON => {
            let (at, z) = (glm.at(pass)?, columns(glm, &glm.at(pass)?, ranges));
            let row = row_bounds(glm, &at, &z, &bounds);
            let unit = |bits: i32| f64::from(-bits).exp2() * bounds.weight;
            let deviance = (row.deviance * row.deviance + row.pearson * row.pearson) * unit(at.units.deviance).powi(2);
            let score = (row.residual * unit(at.units.score)).powi(2) * squares(&z);
            let information = (row.weight * unit(at.units.information)).powi(2) * pairs(&z);
            Ok(vec![2_f64.sqrt(), (deviance + score + information).sqrt()])
        }
        ERRORS => {
            let (at, z) = (glm.at(pass)?, columns(glm, &glm.at(pass)?, ranges));
            let residual = row_bounds(glm, &at, &z, &bounds).residual * bounds.weight * f64::from(-at.units.score).exp2();
            let sums = match glm.plan.errors {
                Errors::ClusterBy(_) => residual * squares(&z).sqrt(),
                Errors::Hc0 | Errors::Hc1 => residual * residual * pairs(&z).sqrt(),
                // A leverage may be close to 1; a site's score has all its rows.
                Errors::Model | Errors::Hc2 | Errors::Hc3 | Errors::ClusterBySite => f64::INFINITY,
            };
            Ok(vec![3_f64.sqrt(), sums])
        }
        _ => Err(AnalysisError::Pass(pass.step.clone())),
    }
}

fn moments(glm: &Glm, pass: &Pass, bounds: &Bounds, ranges: &[Option<f64>]) -> Result<f64, AnalysisError> {
    let scales = glm.scales(pass)?;
    let unit = |bits: i32| f64::from(-bits).exp2();
    let weight = bounds.weight * unit(glm.weight_bits(&scales));
    let y = bounds.response * unit(glm.input_bits(&scales, glm.response));
    let saturated = match glm.plan.family {
        GlmFamily::Gaussian if glm.weights.is_none() => 0.0,
        // The logarithm of a small weight or response.
        GlmFamily::Gaussian | GlmFamily::Gamma => f64::INFINITY,
        GlmFamily::Binomial => (2.0 * bounds.weight + 1.0) * unit(glm.weight_bits(&scales)),
        // |y ln y - y - ln Γ(y + 1)| is about half the logarithm of 2πy.
        GlmFamily::Poisson => (2.0 + bounds.response.ln_1p()) * weight,
    };
    // Without offsets there is none, whatever its unit.
    let offset = if glm.offsets.is_empty() { 0.0 } else { bounds.offset * unit(glm.offset_bits(&scales)) };
    let bits = glm.column_bits(&scales);
    let columns = (0..glm.design.len()).map(|j| {
        let z = glm.design.bound(j, &glm.inputs, ranges) * unit(bits[j]);
        z * z + z * z * z * z
    });
    let fixed = [weight, weight * y, weight * y * y, saturated, offset];
    Ok((squares(&fixed) + columns.sum::<f64>()).sqrt())
}

/// |z| of each unknown.
fn columns(glm: &Glm, at: &At, ranges: &[Option<f64>]) -> Vec<f64> {
    let z = |j: usize| (glm.design.bound(j, &glm.inputs, ranges) + at.frame.center[j].abs()) / at.frame.unit(j);
    glm.has_intercept().then_some(1.0).into_iter().chain((0..glm.design.len()).map(z)).collect()
}

fn row_bounds(glm: &Glm, at: &At, z: &[f64], bounds: &Bounds) -> RowBounds {
    // A coefficient of 0 times a column without a bound is 0.
    let terms = at.coefficients.iter().zip(z).filter(|(coefficient, _)| **coefficient != 0.0);
    let eta = terms.map(|(coefficient, z)| coefficient.abs() * z).sum::<f64>() + bounds.offset;
    let y = bounds.response;
    match (glm.plan.family, glm.model.link) {
        (GlmFamily::Gaussian, _) => {
            let difference = y + eta;
            RowBounds {
                deviance: difference * difference,
                pearson: difference * difference,
                residual: difference,
                weight: 1.0,
            }
        }
        (GlmFamily::Binomial, Link::Logit) => {
            RowBounds { deviance: 2.0 * (eta + std::f64::consts::LN_2), pearson: eta.exp(), residual: 1.0, weight: 0.25 }
        }
        (GlmFamily::Poisson, _) => {
            let (mean, difference) = (eta.exp(), y.max(eta.exp()));
            RowBounds {
                deviance: 2.0 * (y * (y.ln().max(0.0) + eta) + y + mean),
                pearson: difference * difference * mean,
                residual: difference,
                weight: mean,
            }
        }
        // 1/(1 - μ) and ln(y/μ) have no bound.
        (GlmFamily::Binomial | GlmFamily::Gamma, _) => {
            RowBounds { deviance: f64::INFINITY, pearson: f64::INFINITY, residual: f64::INFINITY, weight: f64::INFINITY }
        }
    }
}

fn squares(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum()
}

/// Σ (zᵢ zⱼ)² over i ≤ j.
fn pairs(z: &[f64]) -> f64 {
    z.iter().enumerate().map(|(i, first)| z[i..].iter().map(|second| (first * second).powi(2)).sum::<f64>()).sum()
}
