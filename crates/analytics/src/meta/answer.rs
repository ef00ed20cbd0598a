//! What a meta-analysis comes to.

use protocol::statistic::{BetweenSites, MetaModel};
use protocol::{Confidence, Pass};
use serde::Serialize;

use super::{FIT_SUMS, FITS, Meta, RANDOM, RANDOM_SUMS};
use crate::analysis::{AnalysisError, Answered};
use crate::distributions::chi_square_upper;
use crate::estimate::{Coefficient, Reference};
use crate::survey::whole;

/// The combined coefficients of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetaAnswer {
    pub terms: Vec<MetaTerm>,
    /// Complete rows of the sites that could fit the model.
    pub n: u64,
    /// Sites that could, and that could not.
    pub sites_fitted: u64,
    pub sites_not_fitted: u64,
    pub between: BetweenSites,
    /// For a forest plot, where sites give their estimates in clear.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<SiteEstimates>,
}

/// A combined coefficient.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetaTerm {
    pub name: String,
    /// Sites with an estimate.
    pub sites: u64,
    pub fixed: FixedEffect,
    pub random: RandomEffect,
    /// The variance between sites, in the coefficient's unit squared.
    pub tau2: f64,
    /// Cochran's Q, its degrees of freedom and p-value: whether sites differ by more than chance.
    pub q: f64,
    pub q_df: u64,
    pub q_p: f64,
    /// The share of the variation that is not chance (Higgins and Thompson 2002).
    pub i2: f64,
}

/// One effect for all sites.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FixedEffect {
    pub estimate: f64,
    pub std_error: f64,
    pub z: f64,
    pub p: f64,
    pub ci_low: f64,
    pub ci_high: f64,
}

/// The mean of effects that differ by site.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RandomEffect {
    pub estimate: f64,
    pub std_error: f64,
    pub z: f64,
    pub p: f64,
    pub ci_low: f64,
    pub ci_high: f64,
    /// Where a new site's effect is expected (Higgins, Thompson and Spiegelhalter 2009); absent for fewer than three sites.
    pub prediction_low: Option<f64>,
    pub prediction_high: Option<f64>,
}

/// A site's own estimates, those that it can estimate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SiteEstimates {
    pub site: String,
    pub n: u64,
    pub terms: Vec<Coefficient>,
}

/// What the pass `fits` says.
pub(super) struct Sums {
    rows: u64,
    fitted: u64,
    not_fitted: u64,
    pub(super) terms: Vec<TermSums>,
}

/// In the unit of the pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TermSums {
    sites: u64,
    y: f64,
    y2: f64,
    v: f64,
    w: f64,
    wy: f64,
    wy2: f64,
    w2: f64,
}

impl TermSums {
    /// Cochran's Q.
    fn q(&self) -> f64 {
        if self.w > 0.0 { (self.wy2 - self.wy * self.wy / self.w).max(0.0) } else { 0.0 }
    }

    /// The variance between sites.
    pub(super) fn between(&self, method: BetweenSites) -> f64 {
        if self.sites < 2 {
            return 0.0;
        }
        let (k, df) = (self.sites as f64, self.sites as f64 - 1.0);
        match method {
            BetweenSites::DersimonianLaird => ((self.q() - df) / (self.w - self.w2 / self.w)).max(0.0),
            BetweenSites::Hedges => ((self.y2 - self.y * self.y / k) / df - self.v / k).max(0.0),
        }
    }
}

fn confidence(meta: &Meta) -> Confidence {
    match &meta.plan.model {
        MetaModel::Glm(glm) => glm.confidence,
        MetaModel::Cox(cox) => cox.confidence,
    }
}

impl Sums {
    pub(super) fn read(meta: &Meta, answered: &Answered) -> Result<Self, AnalysisError> {
        let wrong = || AnalysisError::Sums(FITS.to_owned());
        let [counts, sites, sums] = answered.sums.as_slice() else { return Err(wrong()) };
        let n_terms = meta.names().len();
        if counts.len() != 3 || sites.len() != n_terms || sums.len() != FIT_SUMS * n_terms {
            return Err(wrong());
        }
        let count = |value: f64| whole(value).ok_or_else(wrong);
        let term = |(sites, sums): (&f64, &[f64])| {
            let [y, y2, v, w, wy, wy2, w2] = sums.try_into().map_err(|_| wrong())?;
            Ok(TermSums { sites: count(*sites)?, y, y2, v, w, wy, wy2, w2 })
        };
        let terms = sites.iter().zip(sums.chunks(FIT_SUMS)).map(term).collect::<Result<_, AnalysisError>>()?;
        Ok(Self { rows: count(counts[0])?, fitted: count(counts[1])?, not_fitted: count(counts[2])?, terms })
    }

    pub(super) fn answer(&self, meta: &Meta, random: &Answered) -> Result<MetaAnswer, AnalysisError> {
        let wrong = || AnalysisError::Sums(RANDOM.to_owned());
        if self.fitted == 0 {
            return Err(AnalysisError::Data("no site can fit the model alone".to_owned()));
        }
        let bits = meta.bits(&random.pass)?;
        let [_, _, sums] = random.sums.as_slice() else { return Err(wrong()) };
        if sums.len() != RANDOM_SUMS * bits.len() {
            return Err(wrong());
        }
        let confidence = confidence(meta);
        let names = meta.names();
        let terms = self.terms.iter().zip(sums.chunks(RANDOM_SUMS)).enumerate().map(|(index, (term, random))| {
            let unit = f64::from(-bits[index]).exp2();
            let between = term.between(meta.plan.between);
            let pooled = |w: f64, wy: f64| {
                Coefficient::new("", wy / w * unit, (1.0 / w).sqrt() * unit, Reference::Normal, confidence)
            };
            let (fixed, random) = (pooled(term.w, term.wy), pooled(random[0], random[1]));
            let q_df = term.sites.saturating_sub(1);
            let q = term.q();
            let spread = (between * unit * unit + random.std_error * random.std_error).sqrt();
            let half =
                (term.sites >= 3).then(|| Reference::Student(term.sites as f64 - 2.0).half_width(confidence) * spread);
            MetaTerm {
                name: names[index].clone(),
                sites: term.sites,
                fixed: FixedEffect {
                    estimate: fixed.estimate,
                    std_error: fixed.std_error,
                    z: fixed.z,
                    p: fixed.p,
                    ci_low: fixed.ci_low,
                    ci_high: fixed.ci_high,
                },
                random: RandomEffect {
                    estimate: random.estimate,
                    std_error: random.std_error,
                    z: random.z,
                    p: random.p,
                    ci_low: random.ci_low,
                    ci_high: random.ci_high,
                    prediction_low: half.map(|half| random.estimate - half),
                    prediction_high: half.map(|half| random.estimate + half),
                },
                tau2: between * unit * unit,
                q,
                q_df,
                q_p: if q_df > 0 { chi_square_upper(q, q_df as f64) } else { f64::NAN },
                i2: if q > 0.0 { ((q - q_df as f64) / q).max(0.0) } else { 0.0 },
            }
        });
        Ok(MetaAnswer {
            terms: terms.collect(),
            n: self.rows,
            sites_fitted: self.fitted,
            sites_not_fitted: self.not_fitted,
            between: meta.plan.between,
            sites: Vec::new(),
        })
    }
}

/// Each site's own estimates out of what it alone gave to the pass `fits`.
pub(super) fn forest(
    meta: &Meta,
    pass: &Pass,
    sites: &[(String, Vec<Vec<f64>>)],
) -> Result<Vec<SiteEstimates>, AnalysisError> {
    let bits = meta.bits(pass)?;
    let names = meta.names();
    let site = |(site, sums): &(String, Vec<Vec<f64>>)| {
        let sums = Sums::read(meta, &Answered { pass: pass.clone(), sums: sums.clone() })?;
        let term = |(index, term): (usize, &TermSums)| {
            let unit = f64::from(-bits[index]).exp2();
            (term.sites == 1).then(|| {
                Coefficient::new(&names[index], term.y * unit, term.v.sqrt() * unit, Reference::Normal, confidence(meta))
            })
        };
        Ok(SiteEstimates {
            site: site.clone(),
            n: sums.rows,
            terms: sums.terms.iter().enumerate().filter_map(term).collect(),
        })
    };
    sites.iter().map(site).collect()
}
