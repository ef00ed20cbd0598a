//! Meta-analysis: each site fits the model alone, and the sums over sites of estimates and weights give the fixed effect (inverse variance), the
//! variance between sites, and the random effect (DerSimonian and Laird 1986; Hedges and Olkin 1985, §9).
//!
//! Passes: `survey` and `moments`, those of the model, for the scale of its coefficients; `fits`, what each site's estimates add to the sums;
//! `random`, the same with the variance between sites. The sums do not say what a site's estimate is. Where sites give
//! theirs in clear, [`Meta::forest`] reads the pass `fits` of each site on its own.

mod answer;

use protocol::statistic::{Errors, Meta as Plan, MetaModel, Strata};
use protocol::{Encoding, Pass, Purpose, VectorSpec, Width};

use crate::analysis::{
    Analysis, AnalysisError, Answered, Batch, Cell, CellKind, Input, Next, Tallied, Tally, at_least, same_pass,
};
use crate::cox::Cox;
use crate::estimate::Coefficient;
use crate::fit::fitting;
use crate::glm::Glm;
use crate::survey::{counts, vector};

pub use answer::{FixedEffect, MetaAnswer, MetaTerm, RandomEffect, SiteEstimates};

const FITS: &str = "fits";
const RANDOM: &str = "random";

/// Σ y, Σ y², Σ v, Σ w, Σ w y, Σ w y², Σ w² with w = 1/v, of each term.
const FIT_SUMS: usize = 7;
/// Σ w, Σ w y.
const RANDOM_SUMS: usize = 2;
/// A site's numbers are below two to this power, for coefficients of about 1.
const BITS: i32 = 64;
const ENCODING: Encoding = Encoding { width: Width::Bits128, exponent: 46 };

/// A model that each site fits alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Meta {
    plan: Plan,
    model: Model,
}

#[derive(Debug, Clone, PartialEq)]
enum Model {
    Glm(Glm),
    Cox(Cox),
}

/// A site's estimate of a term.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Estimate {
    value: f64,
    variance: f64,
}

/// What a site's own fit comes to.
struct OwnFit {
    terms: Vec<Coefficient>,
    events: u64,
    rows: u64,
    converged: bool,
}

impl Meta {
    /// Fails if the model does.
    pub fn new(plan: Plan) -> Result<Self, AnalysisError> {
        let model = match &plan.model {
            MetaModel::Glm(glm) if glm.errors == Errors::ClusterBySite => {
                return Err(AnalysisError::Plan(
                    "a site's own fit has one site: its errors cannot be clustered by site".to_owned(),
                ));
            }
            MetaModel::Glm(glm) => Model::Glm(Glm::new(glm.clone())?),
            // Alone, a site has its own baseline.
            MetaModel::Cox(cox) => Model::Cox(Cox::new(protocol::Cox { strata: Strata::Site, ..cox.clone() })?),
        };
        Ok(Self { plan, model })
    }

    fn names(&self) -> Vec<String> {
        match &self.model {
            Model::Glm(glm) => glm.names(),
            Model::Cox(cox) => cox.names(),
        }
    }

    /// The passes of the model that come before it is fitted; `None` once it would be.
    fn model_pass(&self, history: &[Answered]) -> Result<Option<Pass>, AnalysisError> {
        let next = match (&self.model, history.len()) {
            (_, 2..) => return Ok(None),
            (Model::Glm(glm), _) => asked(glm.next(history)?),
            (Model::Cox(cox), _) => asked(cox.next(history)?),
        };
        Ok(next)
    }

    /// Powers of two by which each coefficient is multiplied to be about 1.
    fn coefficient_bits(&self, history: &[Answered]) -> Result<Vec<i32>, AnalysisError> {
        match &self.model {
            Model::Glm(glm) => glm.coefficient_bits(history),
            Model::Cox(cox) => cox.coefficient_bits(history),
        }
    }

    fn own_fit(&self, batches: &[Batch]) -> Result<OwnFit, AnalysisError> {
        Ok(match &self.model {
            Model::Glm(glm) => {
                let answer = alone(glm, batches)?;
                OwnFit {
                    terms: answer.terms,
                    events: answer.events.unwrap_or(answer.n),
                    rows: answer.n,
                    converged: answer.converged,
                }
            }
            Model::Cox(cox) => {
                let answer = alone(cox, batches)?;
                OwnFit { terms: answer.terms, events: answer.events, rows: answer.n, converged: answer.converged }
            }
        })
    }

    /// The scaled estimates of the terms that a site can estimate.
    fn estimates(&self, fit: &OwnFit, bits: &[i32]) -> Vec<Option<Estimate>> {
        let of = |(name, bits): (String, &i32)| {
            let term = fit.terms.iter().find(|term| term.name == name).filter(|_| fit.converged)?;
            let unit = f64::from(*bits).exp2();
            let (value, error) = (term.estimate * unit, term.std_error * unit);
            let estimate = Estimate { value, variance: error * error };
            // An error of 0 or a number that does not exist has no weight.
            (error > 0.0 && value.is_finite() && estimate.variance.is_finite()).then_some(estimate)
        };
        self.names().into_iter().zip(bits).map(of).collect()
    }

    fn bits(&self, pass: &Pass) -> Result<Vec<i32>, AnalysisError> {
        let wrong = || AnalysisError::Pass(pass.step.clone());
        let bits = pass.get("scale").filter(|bits| bits.len() == self.names().len()).ok_or_else(wrong)?;
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
        let one = |value: &f64| (value.fract() == 0.0 && value.abs() <= 2000.0).then_some(*value as i32).ok_or_else(wrong);
        bits.iter().map(one).collect()
    }

    fn fits_pass(&self, history: &[Answered], step: &str) -> Result<Pass, AnalysisError> {
        let bits = self.coefficient_bits(&history[..2])?;
        Ok(Pass::new(step).with("scale", bits.into_iter().map(f64::from).collect()))
    }

    /// What sites give in clear, each with the values of the pass `fits` that it alone gave: estimates of the terms that it can
    /// estimate.
    pub fn forest(&self, pass: &Pass, sites: &[(String, Vec<Vec<f64>>)]) -> Result<Vec<SiteEstimates>, AnalysisError> {
        answer::forest(self, pass, sites)
    }
}

fn asked<T>(next: Next<T>) -> Option<Pass> {
    match next {
        Next::Ask(pass) => Some(pass),
        Next::Done(_) => None,
    }
}

/// The answer of a statistic for the rows of one site.
fn alone<A: Analysis>(analysis: &A, batches: &[Batch]) -> Result<A::Answer, AnalysisError> {
    let mut history = Vec::new();
    loop {
        let pass = match analysis.next(&history)? {
            Next::Done(answer) => return Ok(answer),
            Next::Ask(pass) => pass,
        };
        let mut tally = analysis.tally(&pass)?;
        for batch in batches {
            tally.add(batch);
        }
        let sums = tally.finish()?.vectors.into_iter().map(|vector| vector.values).collect();
        history.push(Answered { pass, sums });
    }
}

impl Analysis for Meta {
    type Answer = MetaAnswer;

    fn inputs(&self) -> Vec<Input> {
        match &self.model {
            Model::Glm(glm) => glm.inputs(),
            Model::Cox(cox) => cox.inputs(),
        }
    }

    fn layout(&self, pass: &Pass) -> Result<Vec<VectorSpec>, AnalysisError> {
        let per_term = match pass.step.as_str() {
            FITS => FIT_SUMS,
            RANDOM => RANDOM_SUMS,
            _ => {
                return match &self.model {
                    Model::Glm(glm) => glm.layout(pass),
                    Model::Cox(cox) => cox.layout(pass),
                };
            }
        };
        let terms = self.names().len();
        let sums = VectorSpec {
            purpose: Purpose::Statistic,
            name: "sums".to_owned(),
            shape: vec![terms, per_term],
            encoding: ENCODING,
        };
        Ok(vec![counts("counts", vec![3]), counts("sites", vec![terms]), sums])
    }

    fn tally(&self, pass: &Pass) -> Result<Box<dyn Tally>, AnalysisError> {
        let between = match pass.step.as_str() {
            FITS => None,
            RANDOM => {
                let between = pass.get("between").filter(|between| between.len() == self.names().len());
                Some(between.ok_or_else(|| AnalysisError::Pass(pass.step.clone()))?.to_vec())
            }
            _ => {
                return match &self.model {
                    Model::Glm(glm) => glm.tally(pass),
                    Model::Cox(cox) => cox.tally(pass),
                };
            }
        };
        Ok(Box::new(FitTally { meta: self.clone(), bits: self.bits(pass)?, between, batches: Vec::new() }))
    }

    fn next(&self, history: &[Answered]) -> Result<Next<MetaAnswer>, AnalysisError> {
        if let Some(pass) = self.model_pass(history)? {
            return Ok(Next::Ask(pass));
        }
        let Some(fits) = history.get(2) else { return Ok(Next::Ask(self.fits_pass(history, FITS)?)) };
        let fixed = answer::Sums::read(self, fits)?;
        let Some(random) = history.get(3) else {
            let between = fixed.terms.iter().map(|term| term.between(self.plan.between)).collect();
            return Ok(Next::Ask(self.fits_pass(history, RANDOM)?.with("between", between)));
        };
        Ok(Next::Done(fixed.answer(self, random)?))
    }

    /// Nothing bounds what one row does to a site's own estimate.
    fn limited(answer: MetaAnswer, minimum: u64) -> Result<MetaAnswer, AnalysisError> {
        at_least(minimum, answer.n, "complete rows")?;
        Ok(answer)
    }

    fn sensitivity(&self, pass: &Pass, ranges: &[Option<f64>]) -> Result<Vec<f64>, AnalysisError> {
        match (pass.step.as_str(), &self.model) {
            (FITS | RANDOM, _) => Ok(vec![f64::INFINITY; 3]),
            (_, Model::Glm(glm)) => glm.sensitivity(pass, ranges),
            (_, Model::Cox(cox)) => cox.sensitivity(pass, ranges),
        }
    }
}

/// A site's rows, which it fits the model to when it has all.
struct FitTally {
    meta: Meta,
    bits: Vec<i32>,
    /// The variance between sites of each term, for the pass `random`.
    between: Option<Vec<f64>>,
    batches: Vec<Batch>,
}

impl Tally for FitTally {
    fn add(&mut self, batch: &Batch) {
        self.batches.push(batch.clone());
    }

    fn merge(&mut self, other: Box<dyn Tally>) {
        self.batches.extend(same_pass::<Self>(other).batches);
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }

    fn finish(self: Box<Self>) -> Result<Tallied, AnalysisError> {
        let all: u64 = self.batches.iter().map(|batch| batch.rows as u64).sum();
        // A site that cannot fit the model adds nothing.
        let fit = self.meta.own_fit(&self.batches).ok();
        let estimates = match &fit {
            Some(fit) => self.meta.estimates(fit, &self.bits),
            None => vec![None; self.bits.len()],
        };
        let per_term = if self.between.is_some() { RANDOM_SUMS } else { FIT_SUMS };
        let (mut sites, mut sums) = (Vec::new(), Vec::new());
        for (term, estimate) in estimates.iter().enumerate() {
            let values = estimate.map(|Estimate { value: y, variance: v }| match &self.between {
                Some(between) => vec![1.0 / (v + between[term]), y / (v + between[term])],
                None => vec![y, y * y, v, 1.0 / v, y / v, y * y / v, 1.0 / (v * v)],
            });
            let (values, fits) = fitting(values.unwrap_or_else(|| vec![f64::NAN; per_term]), BITS);
            sites.push(f64::from(u8::from(fits)));
            sums.extend(values);
        }
        let (rows, events, is_fitted) = fit.map_or((0, 0, false), |fit| (fit.rows, fit.events, fit.converged));
        let cells = vec![
            Cell { kind: CellKind::Rows, of: "complete rows".to_owned(), count: rows },
            Cell { kind: CellKind::Events, of: "events".to_owned(), count: events },
        ];
        let counts = if is_fitted { vec![rows as f64, 1.0, 0.0] } else { vec![0.0, 0.0, 1.0] };
        let vectors = vec![vector("counts", counts), vector("sites", sites), vector("sums", sums)];
        Ok(Tallied { vectors, rows: if is_fitted { rows } else { all }, cells })
    }
}
