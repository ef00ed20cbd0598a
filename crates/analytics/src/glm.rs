//! Generalised linear models by Fisher scoring (McCullagh and Nelder 1989, §2.5): each pass adds up deviance, score and expected information of
//! all rows at coefficients that the researcher gives.
//!
//! Passes: `survey`; `moments`, with which the columns are centred and brought to a size of about 1; `null`, the intercept alone, if
//! there is an offset; `newton`, until a step is below 1e-8 standard errors; `errors`, if they are robust. Linear regression is the same
//! and takes two steps: the normal equations of the centred columns, and the residuals at their solution.

mod answer;
mod family;
mod sensitivity;
mod tally;

use protocol::statistic::{Errors, Glm as Plan, Link};
use protocol::{Category, GlmFamily, Pass, Response, VectorSpec};

use crate::analysis::{Analysis, AnalysisError, Answered, Input, Next, Tally, at_least};
use crate::design::{Design, Frame, Inputs, bits_of};
use crate::linear::Symmetric;
use crate::newton::{Course, DECREMENT, Evaluation, MAX_ITERATIONS, Rules, course};
use crate::survey::{self, Scales, Survey, Surveyed, counts, whole};
use family::{Model, Units};

pub use answer::GlmAnswer;

const MOMENTS: &str = "moments";
const NULL: &str = "null";
const NEWTON: &str = "newton";
const ERRORS: &str = "errors";

/// Terms of the sums of a Newton pass are below two to this power after they were brought to about 1: larger ones do not fit, and
/// the step is halved.
const HEADROOM_BITS: i32 = 24;
/// Terms of the moments are below two to this power.
const MOMENT_BITS: i32 = 10;
/// Numbers of the moments before those of the columns.
const FIXED_MOMENTS: usize = 5;

/// A generalised linear model.
#[derive(Debug, Clone, PartialEq)]
pub struct Glm {
    plan: Plan,
    model: Model,
    inputs: Inputs,
    survey: Survey,
    design: Design,
    response: usize,
    weights: Option<usize>,
    offsets: Vec<usize>,
    cluster: Option<(usize, Category)>,
}

/// What the moments say.
#[derive(Debug, Clone, PartialEq)]
struct Moments {
    rows: u64,
    ones: u64,
    /// Whether every response is 0 or 1.
    is_binary: bool,
    weights: f64,
    /// The weighted mean of the response.
    mean: f64,
    saturated: f64,
    mean_offset: f64,
    frame: Frame,
    response_bits: i32,
    weight_bits: i32,
}

/// Where and in what units a pass adds up.
#[derive(Debug, Clone, PartialEq)]
struct At {
    frame: Frame,
    /// Of (1, z).
    coefficients: Vec<f64>,
    units: Units,
}

impl Glm {
    /// Fails if the formula, family, link and categories do not go together.
    pub fn new(plan: Plan) -> Result<Self, AnalysisError> {
        let refuse = |why: &str| Err(AnalysisError::Plan(why.to_owned()));
        let Some(model) = Model::new(plan.family, plan.link) else {
            return refuse("the family does not go with the link");
        };
        let Response::Value(response) = plan.formula.response() else {
            return refuse("a survival response needs Cox's model");
        };
        let has_intercept = plan.formula.has_intercept();
        if !has_intercept && plan.formula.terms().is_empty() {
            return refuse("the formula has no terms");
        }
        if !has_intercept && plan.family == GlmFamily::Gamma {
            return refuse("a gamma model needs an intercept");
        }
        let mut inputs = Inputs::default();
        let response = inputs.number(response);
        let design = Design::new(&plan.formula, has_intercept, &plan.categories, &mut inputs)?;
        let offsets = plan.formula.offsets().iter().map(|offset| inputs.number(offset)).collect();
        let weights = plan.weights.as_ref().map(|weights| inputs.number(weights));
        let cluster = match &plan.errors {
            Errors::ClusterBy(column) => {
                let Some(category) = plan.categories.iter().find(|category| category.column() == column) else {
                    return Err(AnalysisError::Plan(format!("the levels of {column:?} are not known")));
                };
                Some((inputs.category(category), category.clone()))
            }
            _ => None,
        };
        let survey = Survey::new(inputs.all().to_vec());
        Ok(Self { plan, model, inputs, survey, design, response, weights, offsets, cluster })
    }

    fn has_intercept(&self) -> bool {
        self.plan.formula.has_intercept()
    }

    /// Unknowns: the intercept, if there is one, and the columns.
    fn unknowns(&self) -> usize {
        usize::from(self.has_intercept()) + self.design.len()
    }

    fn name(&self, unknown: usize) -> &str {
        match (self.has_intercept(), unknown) {
            (true, 0) => crate::design::INTERCEPT,
            (true, column) => self.design.name(column - 1),
            (false, column) => self.design.name(column),
        }
    }

    /// The names of all unknowns, those that are left out of an answer included.
    pub(crate) fn names(&self) -> Vec<String> {
        (0..self.unknowns()).map(|unknown| self.name(unknown).to_owned()).collect()
    }

    /// Powers of two by which the coefficients are multiplied to be about 1, out of the first two passes.
    pub(crate) fn coefficient_bits(&self, history: &[Answered]) -> Result<Vec<i32>, AnalysisError> {
        let [first, second] = history else { return Err(AnalysisError::Pass(MOMENTS.to_owned())) };
        let moments = self.read_moments(&self.survey.read(&first.sums)?, second)?;
        let of_response = match self.model.link {
            Link::Identity => moments.response_bits,
            Link::Inverse => -moments.response_bits,
            Link::Logit | Link::Log => 0,
        };
        let intercept = self.has_intercept().then_some(-of_response);
        Ok(intercept.into_iter().chain(moments.frame.bits.iter().map(|bits| bits - of_response)).collect())
    }

    fn scales(&self, pass: &Pass) -> Result<Scales, AnalysisError> {
        Scales::of(pass, self.inputs.numeric())
    }

    /// |x| of each column of the design is at most two to this power.
    fn column_bits(&self, scales: &Scales) -> Vec<i32> {
        (0..self.design.len()).map(|j| self.design.bits(j, &self.inputs, |numeric| scales.bits(numeric))).collect()
    }

    fn input_bits(&self, scales: &Scales, input: usize) -> i32 {
        scales.bits(self.inputs.numeric_index(input))
    }

    fn weight_bits(&self, scales: &Scales) -> i32 {
        self.weights.map_or(0, |weights| self.input_bits(scales, weights))
    }

    /// A sum of this many offsets is at most two to this power.
    fn offset_bits(&self, scales: &Scales) -> i32 {
        let largest = self.offsets.iter().map(|offset| self.input_bits(scales, *offset)).max().unwrap_or(0);
        largest + bits_of(self.offsets.len().max(1) as f64)
    }

    fn read_moments(&self, surveyed: &Surveyed, answered: &Answered) -> Result<Moments, AnalysisError> {
        let wrong = || AnalysisError::Sums(MOMENTS.to_owned());
        let scales = self.scales(&answered.pass)?;
        let [counts, sums] = answered.sums.as_slice() else { return Err(wrong()) };
        let counts: Vec<u64> = counts.iter().map(|count| whole(*count).ok_or_else(wrong)).collect::<Result<_, _>>()?;
        let [rows, ones, binary, invalid] = counts[..] else { return Err(wrong()) };
        if sums.len() != FIXED_MOMENTS + 2 * self.design.len()
            || rows > surveyed.rows
            || !sums.iter().all(|sum| sum.is_finite())
        {
            return Err(wrong());
        }
        if invalid > 0 {
            return Err(AnalysisError::Data(
                "a response is none that the family can have, or a weight is negative".to_owned(),
            ));
        }
        if rows == 0 {
            return Err(AnalysisError::Data("no row has a value in every column of the formula".to_owned()));
        }
        let n = rows as f64;
        let (means, squares): (Vec<f64>, Vec<f64>) =
            sums[FIXED_MOMENTS..].chunks(2).map(|pair| (pair[0] / n, pair[1] / n)).unzip();
        let frame = Frame::of_moments(&self.column_bits(&scales), &means, &squares, self.has_intercept());
        let response_unit = f64::from(self.input_bits(&scales, self.response)).exp2();
        let weight_unit = f64::from(self.weight_bits(&scales)).exp2();
        let mean = sums[1] / sums[0] * response_unit;
        let size = (sums[2] / sums[0]).sqrt() * response_unit;
        Ok(Moments {
            rows,
            ones,
            is_binary: binary == rows,
            weights: sums[0] * weight_unit,
            mean,
            saturated: sums[3] * if self.plan.family == GlmFamily::Gaussian { 1.0 } else { weight_unit },
            mean_offset: sums[4] / n * f64::from(self.offset_bits(&scales)).exp2(),
            frame,
            response_bits: if size > 0.0 { bits_of(size) } else { 0 },
            weight_bits: bits_of(sums[0] * weight_unit / n),
        })
    }

    /// The coefficients of the intercept alone.
    fn start(&self, moments: &Moments) -> Result<Vec<f64>, AnalysisError> {
        let mut start = vec![0.0; self.unknowns()];
        if self.has_intercept() {
            start[0] = self.model.eta(moments.mean) - moments.mean_offset;
            if !start[0].is_finite() {
                return Err(AnalysisError::Data(
                    "every response is the same, at the edge of what the family can have".to_owned(),
                ));
            }
        } else if self.model.link == Link::Log && self.plan.family == GlmFamily::Binomial {
            return Err(AnalysisError::Plan("a binomial model with the log link needs an intercept".to_owned()));
        }
        Ok(start)
    }

    fn pass(&self, surveyed: &Surveyed, moments: &Moments, step: &str, at: Vec<f64>) -> Pass {
        let numbers = |bits: &[i32]| bits.iter().map(|bits| f64::from(*bits)).collect();
        let mut pass = surveyed.pass(step).with("at", at);
        if self.design.len() > 0 {
            pass = pass.with("center", moments.frame.center.clone()).with("frame", numbers(&moments.frame.bits));
        }
        pass.with("units", numbers(&[moments.response_bits, moments.weight_bits]))
    }

    /// What a pass gives: [`pass`](Self::pass) read back.
    fn at(&self, pass: &Pass) -> Result<At, AnalysisError> {
        let wrong = || AnalysisError::Pass(pass.step.clone());
        let numbers = |name: &str, len: usize| match pass.get(name) {
            None if len == 0 => Ok(Vec::new()),
            Some(values) if values.len() == len && values.iter().all(|value| value.is_finite()) => Ok(values.to_vec()),
            _ => Err(wrong()),
        };
        let whole = |values: Vec<f64>| -> Result<Vec<i32>, AnalysisError> {
            #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
            let one = |value: f64| (value.fract() == 0.0 && value.abs() <= 5000.0).then_some(value as i32).ok_or_else(wrong);
            values.into_iter().map(one).collect()
        };
        let columns = self.design.len();
        let at = numbers("at", self.unknowns())?;
        let frame = Frame { center: numbers("center", columns)?, bits: whole(numbers("frame", columns)?)? };
        let units = whole(numbers("units", 2)?)?;
        let (response, weight) = (self.model.units(units[0]), units[1]);
        let units = Units {
            deviance: response.deviance + weight,
            score: response.score + weight,
            information: response.information + weight,
        };
        Ok(At { frame, coefficients: at, units })
    }

    fn evaluation(&self, answered: &Answered) -> Result<(Evaluation, f64), AnalysisError> {
        let wrong = || AnalysisError::Sums(answered.pass.step.clone());
        let at = self.at(&answered.pass)?;
        let k = self.unknowns();
        let [counts, sums] = answered.sums.as_slice() else { return Err(wrong()) };
        let ([_, misfits], true) = (counts.as_slice(), sums.len() == 2 + k + Symmetric::packed_len(k)) else {
            return Err(wrong());
        };
        let scaled =
            |values: &[f64], bits: i32| -> Vec<f64> { values.iter().map(|value| value * f64::from(bits).exp2()).collect() };
        let deviance = scaled(&sums[..2], at.units.deviance);
        let evaluation = Evaluation {
            at: at.coefficients,
            objective: 0.5 * deviance[0],
            score: scaled(&sums[2..2 + k], at.units.score),
            information: Symmetric::from_packed(k, &scaled(&sums[2 + k..], at.units.information)),
            fits: *misfits == 0.0,
        };
        // Pearson's statistic has the units of the deviance but for gaussian and gamma, where they are the same.
        Ok((evaluation, deviance[1]))
    }

    fn rules(&self, evaluations: &[Evaluation], rows: u64) -> Rules {
        let smallest = evaluations.iter().filter(|e| e.fits).map(|e| 2.0 * e.objective).fold(f64::INFINITY, f64::min);
        let df = (rows as f64 - self.unknowns() as f64).max(1.0);
        let dispersion = if self.model.has_dispersion() { (smallest / df).max(f64::MIN_POSITIVE) } else { 1.0 };
        Rules {
            decrement: DECREMENT,
            max_iterations: MAX_ITERATIONS,
            dispersion,
            may_diverge: matches!(self.plan.family, GlmFamily::Binomial | GlmFamily::Poisson),
        }
    }
}

impl Analysis for Glm {
    type Answer = GlmAnswer;

    fn inputs(&self) -> Vec<Input> {
        self.inputs.all().to_vec()
    }

    fn layout(&self, pass: &Pass) -> Result<Vec<VectorSpec>, AnalysisError> {
        if pass.step == survey::STEP {
            return Ok(self.survey.layout());
        }
        let scales = self.scales(pass)?;
        let k = self.unknowns();
        let meat = Symmetric::packed_len(k);
        match pass.step.as_str() {
            MOMENTS => {
                let len = FIXED_MOMENTS + 2 * self.design.len();
                Ok(vec![counts("counts", vec![4]), scales.sums("sums", vec![len], MOMENT_BITS)])
            }
            NULL | NEWTON => Ok(vec![counts("counts", vec![2]), scales.sums("sums", vec![2 + k + meat], HEADROOM_BITS)]),
            ERRORS => {
                // A site's outer product has as many terms as pairs of its rows.
                let shape = match &self.cluster {
                    Some((_, category)) => vec![category.levels().len(), k],
                    None => vec![meat],
                };
                let bits = if self.plan.errors == Errors::ClusterBySite {
                    HEADROOM_BITS + scales.row_bits()
                } else {
                    HEADROOM_BITS
                };
                Ok(vec![counts("counts", vec![3]), scales.sums("sums", shape, bits)])
            }
            _ => Err(AnalysisError::Pass(pass.step.clone())),
        }
    }

    fn tally(&self, pass: &Pass) -> Result<Box<dyn Tally>, AnalysisError> {
        match pass.step.as_str() {
            survey::STEP => Ok(self.survey.tally()),
            MOMENTS => Ok(Box::new(tally::MomentsTally::new(self, &self.scales(pass)?))),
            NULL | NEWTON => Ok(Box::new(tally::NewtonTally::new(self, &self.scales(pass)?, self.at(pass)?))),
            ERRORS => tally::ErrorsTally::boxed(self, pass),
            _ => Err(AnalysisError::Pass(pass.step.clone())),
        }
    }

    fn next(&self, history: &[Answered]) -> Result<Next<GlmAnswer>, AnalysisError> {
        let Some((first, rest)) = history.split_first() else { return Ok(Next::Ask(Pass::new(survey::STEP))) };
        let surveyed = self.survey.read(&first.sums)?;
        let Some((second, rest)) = rest.split_first() else {
            return if surveyed.rows == 0 {
                Err(AnalysisError::Data("there are no rows".to_owned()))
            } else {
                Ok(Next::Ask(surveyed.pass(MOMENTS)))
            };
        };
        let moments = self.read_moments(&surveyed, second)?;
        let ask = |step: &str, at: Vec<f64>| Ok(Next::Ask(self.pass(&surveyed, &moments, step, at)));
        let evaluations = |step: &str| -> Result<Vec<(Evaluation, f64)>, AnalysisError> {
            rest.iter().filter(|answered| answered.pass.step == step).map(|answered| self.evaluation(answered)).collect()
        };
        let (mut start, mut null_deviance) = (self.start(&moments)?, None);
        if !self.offsets.is_empty() && self.has_intercept() {
            let (null, _): (Vec<_>, Vec<_>) = evaluations(NULL)?.into_iter().unzip();
            let mut free = vec![false; self.unknowns()];
            free[0] = true;
            match self.course(&null, &free, moments.rows)? {
                None => return ask(NULL, start),
                Some(Course::Evaluate(at)) => return ask(NULL, at),
                Some(Course::Settled(settled)) => {
                    null_deviance = Some(2.0 * null[settled.evaluation].objective);
                    start = settled.at;
                }
            }
        }
        let (newton, pearson): (Vec<_>, Vec<_>) = evaluations(NEWTON)?.into_iter().unzip();
        let free = match newton.first() {
            None => vec![true; self.unknowns()],
            Some(evaluation) => {
                let kept = evaluation.information.factor(&vec![true; self.unknowns()]).kept;
                (0..self.unknowns()).map(|unknown| kept.contains(&unknown)).collect()
            }
        };
        let settled = match self.course(&newton, &free, moments.rows)? {
            None => return ask(NEWTON, start),
            Some(Course::Evaluate(at)) => return ask(NEWTON, at),
            Some(Course::Settled(settled)) => settled,
        };
        let last = &newton[settled.evaluation];
        let fitted = answer::Fitted {
            moments: &moments,
            deviance: 2.0 * last.objective,
            pearson: pearson[settled.evaluation],
            null_deviance: null_deviance.unwrap_or(2.0 * newton[0].objective),
            free: &free,
            settled: &settled,
        };
        if self.plan.errors == Errors::Model {
            return Ok(Next::Done(fitted.answer(self, None)?));
        }
        if let Some(answered) = rest.iter().find(|answered| answered.pass.step == ERRORS) {
            return Ok(Next::Done(fitted.answer(self, Some(answered))?));
        }
        let pass = self.pass(&surveyed, &moments, ERRORS, settled.at.clone());
        Ok(Next::Ask(pass.with("inverse", settled.factor.inverse().packed())))
    }

    fn limited(answer: GlmAnswer, minimum: u64) -> Result<GlmAnswer, AnalysisError> {
        at_least(minimum, answer.n, "complete rows")?;
        if let Some(events) = answer.events {
            at_least(minimum, events, "events")?;
            at_least(minimum, answer.n.saturating_sub(events), "rows without the event")?;
        }
        Ok(answer)
    }

    fn sensitivity(&self, pass: &Pass, ranges: &[Option<f64>]) -> Result<Vec<f64>, AnalysisError> {
        sensitivity::sensitivity(self, pass, ranges)
    }
}

impl Glm {
    /// What comes after these evaluations; `None` if there are none.
    fn course(&self, evaluations: &[Evaluation], free: &[bool], rows: u64) -> Result<Option<Course>, AnalysisError> {
        match evaluations.first() {
            None => Ok(None),
            Some(first) if !first.fits => {
                Err(AnalysisError::Data("the responses are too unequal for the sums of this model".to_owned()))
            }
            Some(_) => Ok(Some(course(evaluations, free, self.rules(evaluations, rows)))),
        }
    }
}
