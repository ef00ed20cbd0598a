//! Families and links of generalised linear models: what one row adds to deviance, score and information.

use protocol::{GlmFamily, statistic::Link};

use crate::distributions::ln_gamma;

/// A family with a link that it can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) family: GlmFamily,
    pub(super) link: Link,
}

/// What a row of weight 1 adds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RowTerms {
    pub(super) deviance: f64,
    /// (y - μ)² / V(μ).
    pub(super) pearson: f64,
    /// (y - μ) dμ/dη / V(μ): the score is its product with the row.
    pub(super) residual: f64,
    /// (dμ/dη)² / V(μ): the weight of the row in the expected information.
    pub(super) weight: f64,
}

impl Model {
    /// The family with this link, or the family's own; `None` if they do not go together.
    pub(super) fn new(family: GlmFamily, link: Option<Link>) -> Option<Self> {
        let link = link.unwrap_or(family.default_link());
        let goes = match family {
            GlmFamily::Gaussian => link == Link::Identity,
            GlmFamily::Binomial => matches!(link, Link::Logit | Link::Log),
            GlmFamily::Poisson => link == Link::Log,
            GlmFamily::Gamma => matches!(link, Link::Inverse | Link::Log),
        };
        goes.then_some(Self { family, link })
    }

    /// Whether the variance has a factor that is estimated.
    pub(super) fn has_dispersion(self) -> bool {
        matches!(self.family, GlmFamily::Gaussian | GlmFamily::Gamma)
    }

    /// Whether a response is one of the family's.
    pub(super) fn allows(self, y: f64) -> bool {
        match self.family {
            GlmFamily::Gaussian => true,
            GlmFamily::Binomial => (0.0..=1.0).contains(&y),
            GlmFamily::Poisson => y >= 0.0,
            GlmFamily::Gamma => y > 0.0,
        }
    }

    /// What of a mean the terms add up to.
    pub(super) fn eta(self, mean: f64) -> f64 {
        match self.link {
            Link::Identity => mean,
            Link::Logit => (mean / (1.0 - mean)).ln(),
            Link::Log => mean.ln(),
            Link::Inverse => 1.0 / mean,
        }
    }

    /// A row of weight `w` at the linear predictor `eta`; not finite where the mean is none of the family's.
    pub(super) fn row(self, y: f64, eta: f64) -> RowTerms {
        if self.link == Link::Logit {
            return logistic(y, eta);
        }
        let (mean, slope) = match self.link {
            Link::Identity | Link::Logit => (eta, 1.0),
            Link::Log => (eta.exp(), eta.exp()),
            Link::Inverse => (1.0 / eta, -1.0 / (eta * eta)),
        };
        let difference = y - mean;
        let (variance, deviance) = match self.family {
            GlmFamily::Gaussian => (1.0, difference * difference),
            GlmFamily::Binomial => (mean * (1.0 - mean), 2.0 * (entropy_term(y, mean) + entropy_term(1.0 - y, 1.0 - mean))),
            GlmFamily::Poisson => (mean, 2.0 * (entropy_term(y, mean) - difference)),
            GlmFamily::Gamma => (mean * mean, -2.0 * ((y / mean).ln() - difference / mean)),
        };
        let is_possible = match self.family {
            GlmFamily::Gaussian => true,
            GlmFamily::Binomial => mean > 0.0 && mean < 1.0,
            GlmFamily::Poisson | GlmFamily::Gamma => mean > 0.0,
        };
        if !is_possible {
            return RowTerms { deviance: f64::NAN, pearson: f64::NAN, residual: f64::NAN, weight: f64::NAN };
        }
        RowTerms {
            deviance,
            pearson: difference * difference / variance,
            residual: difference * slope / variance,
            weight: slope * slope / variance,
        }
    }

    /// The log likelihood of a row at its own response, for a family without dispersion; for gaussian and gamma what their
    /// likelihood needs of the rows beside the deviance: half the logarithm of the weight, and the weighted logarithm of the response.
    pub(super) fn saturated(self, y: f64, weight: f64) -> f64 {
        match self.family {
            GlmFamily::Gaussian => 0.5 * weight.ln(),
            GlmFamily::Binomial if y == 0.0 || y == 1.0 => 0.0,
            GlmFamily::Binomial => {
                let choose = ln_gamma(weight + 1.0) - ln_gamma(weight * y + 1.0) - ln_gamma(weight * (1.0 - y) + 1.0);
                choose + weight * (y * y.ln() + (1.0 - y) * (1.0 - y).ln())
            }
            GlmFamily::Poisson => weight * (if y > 0.0 { y * y.ln() - y } else { 0.0 } - ln_gamma(y + 1.0)),
            GlmFamily::Gamma => weight * y.ln(),
        }
    }

    /// The log likelihood out of the sum of [`saturated`](Self::saturated), the deviance and the sum of weights over n rows. The
    /// dispersion is the deviance's mean, as in R's `logLik`.
    pub(super) fn log_likelihood(self, saturated: f64, deviance: f64, weights: f64, n: f64) -> f64 {
        match self.family {
            GlmFamily::Gaussian => saturated - 0.5 * n * ((std::f64::consts::TAU * deviance / n).ln() + 1.0),
            GlmFamily::Binomial | GlmFamily::Poisson => saturated - 0.5 * deviance,
            GlmFamily::Gamma => {
                let shape = weights / deviance;
                // Σ w (ln(y/μ) - y/μ) = -deviance/2 - Σ w.
                shape * (-0.5 * deviance - weights) + weights * (shape * shape.ln() - ln_gamma(shape)) - saturated
            }
        }
    }

    /// How much the sums are divided by, as powers of two: the deviance's, the score's and the information's, for responses of
    /// about 2^bits.
    pub(super) fn units(self, bits: i32) -> Units {
        let slope = match self.link {
            Link::Identity | Link::Logit => 0,
            Link::Log => bits,
            Link::Inverse => 2 * bits,
        };
        let (variance, deviance, response) = match self.family {
            GlmFamily::Gaussian => (0, 2 * bits, bits),
            GlmFamily::Binomial => return Units { deviance: 0, score: 0, information: 0 },
            GlmFamily::Poisson => (bits, bits, bits),
            GlmFamily::Gamma => (2 * bits, 0, bits),
        };
        Units { deviance, score: response + slope - variance, information: 2 * slope - variance }
    }
}

/// Powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Units {
    pub(super) deviance: i32,
    pub(super) score: i32,
    pub(super) information: i32,
}

/// y ln(y / μ), 0 for y = 0.
fn entropy_term(y: f64, mean: f64) -> f64 {
    if y == 0.0 { 0.0 } else { y * (y / mean).ln() }
}

/// Logistic regression without the cancellation of 1 - μ.
fn logistic(y: f64, eta: f64) -> RowTerms {
    let small = (-eta.abs()).exp();
    let (likely, unlikely) = (1.0 / (1.0 + small), small / (1.0 + small));
    let (mean, rest) = if eta >= 0.0 { (likely, unlikely) } else { (unlikely, likely) };
    // -ln μ and -ln(1 - μ).
    let (cost_of_one, cost_of_zero) = ((-eta).max(0.0) + small.ln_1p(), eta.max(0.0) + small.ln_1p());
    let own = if y == 0.0 || y == 1.0 { 0.0 } else { y * y.ln() + (1.0 - y) * (1.0 - y).ln() };
    let residual = y * rest - (1.0 - y) * mean;
    RowTerms {
        deviance: 2.0 * (own + y * cost_of_one + (1.0 - y) * cost_of_zero),
        pearson: residual * residual / (mean * rest),
        residual,
        weight: mean * rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logistic_row_keeps_its_digits_far_out() {
        let row = logistic(1.0, 40.0);
        assert!((row.residual / (-40.0_f64).exp() - 1.0).abs() < 1e-12);
        assert!((row.deviance / 2.0 / (-40.0_f64).exp() - 1.0).abs() < 1e-12);
        let row = logistic(0.0, 800.0);
        assert_eq!((row.deviance, row.residual), (1600.0, -1.0));
    }

    /// Every row's residual is minus half the slope of its deviance, and the expected curvature is the weight.
    #[test]
    fn residuals_are_slopes_of_the_deviance() {
        for (family, link, y, eta) in [
            (GlmFamily::Gaussian, Link::Identity, 1.5, 0.7),
            (GlmFamily::Binomial, Link::Logit, 0.3, -0.4),
            (GlmFamily::Binomial, Link::Log, 1.0, -0.4),
            (GlmFamily::Poisson, Link::Log, 3.0, 0.4),
            (GlmFamily::Gamma, Link::Inverse, 3.0, 0.4),
            (GlmFamily::Gamma, Link::Log, 3.0, 0.4),
        ] {
            let model = Model::new(family, Some(link)).unwrap();
            let h = 1e-5;
            let slope = (model.row(y, eta + h).deviance - model.row(y, eta - h).deviance) / (2.0 * h);
            let residual = model.row(y, eta).residual;
            assert!((residual + 0.5 * slope).abs() < 1e-8, "{family:?} {link:?}: {residual} {slope}");
        }
        assert_eq!(Model::new(GlmFamily::Poisson, Some(Link::Logit)), None);
    }
}
