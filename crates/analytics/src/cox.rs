//! Cox's proportional hazards model by Newton's method on the partial likelihood, with Efron's or Breslow's treatment of ties.
//!
//! With a baseline for each site, a site adds up log likelihood, score and information among its own rows, which are sorted once per pass.
//! With one baseline for all, sites add up what each bin of times brings to the risk sets, and the researcher makes the risk
//! sets out of the sums; bins are the event times, or steps whose times count as their ends.
//!
//! Passes: `survey`; `moments`, with which the columns are centred and brought to a size of about 1; `times`, several, if the baseline is one
//! for all; `newton`, until a step is below 1e-8 standard errors.

mod answer;
mod risk;
mod tally;

use protocol::statistic::{Cox as Plan, Strata, Ties, TimeResolution};
use protocol::{Pass, Response, VectorSpec};

use crate::analysis::{Analysis, AnalysisError, Answered, Batch, Input, Next, Tally, at_least};
use crate::design::{Design, Frame, Inputs, chunks, complete, numbers};
use crate::linear::Symmetric;
use crate::newton::{Course, DECREMENT, Evaluation, MAX_ITERATIONS, Rules, course};
use crate::survey::{self, Scales, Survey, Surveyed, counts, whole};
use crate::times::{Grid, LABELS, Observed, Search, TIMES, TimeSearch, TimesTally};
use risk::Likelihood;

pub use answer::{BaselineHazard, CoxAnswer, LikelihoodRatio};

const MOMENTS: &str = "moments";
const NEWTON: &str = "newton";

/// Terms of a site's sums are below two to this power, for columns of about 1.
const SITE_BITS: i32 = 24;
/// Terms of the bins' sums are: relative risks can be large.
const BIN_BITS: i32 = 36;
/// Numbers of a pass.
const MAX_SUMS: usize = 1 << 23;

/// A proportional hazards model.
#[derive(Debug, Clone, PartialEq)]
pub struct Cox {
    plan: Plan,
    inputs: Inputs,
    survey: Survey,
    design: Design,
    time: usize,
    event: usize,
    offsets: Vec<usize>,
}

#[derive(Debug, Clone, PartialEq)]
struct Moments {
    rows: u64,
    events: u64,
    frame: Frame,
}

/// Where a pass adds up.
#[derive(Debug, Clone, PartialEq)]
struct At {
    frame: Frame,
    /// Of z.
    coefficients: Vec<f64>,
    /// With one baseline for all.
    grid: Option<Grid>,
}

/// Some complete rows.
struct Rows {
    observed: Vec<Observed>,
    /// Rows whose event is neither 0 nor 1, or whose time is negative; they are in no list.
    impossible: u64,
    offsets: Vec<f64>,
    columns: Vec<Vec<f64>>,
}

impl Cox {
    /// Fails if the formula is none of a survival time, or names unknown categories.
    pub fn new(plan: Plan) -> Result<Self, AnalysisError> {
        let Response::Survival { time, event } = plan.formula.response() else {
            return Err(AnalysisError::Plan("Cox's model needs a response Surv(time, event)".to_owned()));
        };
        if !(plan.ridge >= 0.0 && plan.ridge.is_finite()) {
            return Err(AnalysisError::Plan("`ridge` must be at least 0".to_owned()));
        }
        let mut inputs = Inputs::default();
        let (time, event) = (inputs.number(time), inputs.number(event));
        // Categories are coded as if there were an intercept: the baseline is one.
        let design = Design::new(&plan.formula, true, &plan.categories, &mut inputs)?;
        if design.len() == 0 {
            return Err(AnalysisError::Plan("the formula has no terms".to_owned()));
        }
        let offsets = plan.formula.offsets().iter().map(|offset| inputs.number(offset)).collect();
        let survey = Survey::new(inputs.all().to_vec());
        Ok(Self { plan, inputs, survey, design, time, event, offsets })
    }

    /// The names of all columns, those that are left out of an answer included.
    pub(crate) fn names(&self) -> Vec<String> {
        (0..self.design.len()).map(|column| self.design.name(column).to_owned()).collect()
    }

    /// Powers of two by which the coefficients are multiplied to be about 1, out of the first two passes.
    pub(crate) fn coefficient_bits(&self, history: &[Answered]) -> Result<Vec<i32>, AnalysisError> {
        let [first, second] = history else { return Err(AnalysisError::Pass(MOMENTS.to_owned())) };
        Ok(self.read_moments(&self.survey.read(&first.sums)?, second)?.frame.bits)
    }

    fn scales(&self, pass: &Pass) -> Result<Scales, AnalysisError> {
        Scales::of(pass, self.inputs.numeric())
    }

    fn time_bits(&self, scales: &Scales) -> i32 {
        scales.bits(self.inputs.numeric_index(self.time))
    }

    fn column_bits(&self, scales: &Scales) -> Vec<i32> {
        (0..self.design.len()).map(|j| self.design.bits(j, &self.inputs, |numeric| scales.bits(numeric))).collect()
    }

    fn search(&self) -> TimeSearch {
        TimeSearch { groups: 1, resolution: self.plan.resolution }
    }

    fn rows(&self, batch: &Batch, range: std::ops::Range<usize>, frame: &Frame) -> Rows {
        let mut rows = complete(batch, range);
        let complete = rows.len() as u64;
        let (times, events) = (numbers(batch, self.time, &rows), numbers(batch, self.event, &rows));
        let is_possible = |(time, event): (&f64, &f64)| *time >= 0.0 && (*event == 0.0 || *event == 1.0);
        let mut possible = times.iter().zip(&events).map(is_possible);
        rows.retain(|_| possible.next().unwrap_or(false));
        let observed = numbers(batch, self.time, &rows).into_iter().zip(numbers(batch, self.event, &rows));
        let mut offsets = vec![0.0; rows.len()];
        for offset in &self.offsets {
            for (sum, value) in offsets.iter_mut().zip(numbers(batch, *offset, &rows)) {
                *sum += value;
            }
        }
        Rows {
            impossible: complete - rows.len() as u64,
            observed: observed.map(|(time, event)| Observed { time, is_event: event == 1.0, group: 0 }).collect(),
            offsets,
            columns: self.design.columns(batch, &rows, frame),
        }
    }

    /// Calls with the complete rows, some at a time.
    fn each(&self, batch: &Batch, frame: &Frame, mut with: impl FnMut(Rows)) {
        for range in chunks(batch) {
            with(self.rows(batch, range, frame));
        }
    }

    fn read_moments(&self, surveyed: &Surveyed, answered: &Answered) -> Result<Moments, AnalysisError> {
        let wrong = || AnalysisError::Sums(MOMENTS.to_owned());
        let [counts, sums] = answered.sums.as_slice() else { return Err(wrong()) };
        let counts: Vec<u64> = counts.iter().map(|count| whole(*count).ok_or_else(wrong)).collect::<Result<_, _>>()?;
        let [rows, events, impossible] = counts[..] else { return Err(wrong()) };
        if sums.len() != 2 * self.design.len() || rows > surveyed.rows || !sums.iter().all(|sum| sum.is_finite()) {
            return Err(wrong());
        }
        if impossible > 0 {
            return Err(AnalysisError::Data("a time is negative, or an event is neither 0 nor 1".to_owned()));
        }
        if events == 0 {
            return Err(AnalysisError::Data("no complete row has an event".to_owned()));
        }
        let n = rows as f64;
        let (means, squares): (Vec<f64>, Vec<f64>) = sums.chunks(2).map(|pair| (pair[0] / n, pair[1] / n)).unzip();
        let bits = self.column_bits(&self.scales(&answered.pass)?);
        Ok(Moments { rows, events, frame: Frame::of_moments(&bits, &means, &squares, true) })
    }

    fn pass(surveyed: &Surveyed, moments: &Moments, grid: Option<&Grid>, at: Vec<f64>) -> Pass {
        let bits = moments.frame.bits.iter().map(|bits| f64::from(*bits)).collect();
        let pass = surveyed.pass(NEWTON).with("at", at).with("center", moments.frame.center.clone()).with("frame", bits);
        match grid {
            Some(grid) => grid.with(pass),
            None => pass,
        }
    }

    /// [`pass`](Self::pass) read back.
    fn at(&self, pass: &Pass) -> Result<At, AnalysisError> {
        let wrong = || AnalysisError::Pass(pass.step.clone());
        let numbers = |name: &str| {
            let is_it = |values: &&[f64]| values.len() == self.design.len() && values.iter().all(|value| value.is_finite());
            pass.get(name).filter(is_it).map(<[f64]>::to_vec).ok_or_else(wrong)
        };
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
        let whole = |value: f64| (value.fract() == 0.0 && value.abs() <= 5000.0).then_some(value as i32).ok_or_else(wrong);
        let bits = numbers("frame")?.into_iter().map(whole).collect::<Result<_, _>>()?;
        let grid = match self.plan.strata {
            Strata::Site => None,
            Strata::None => Some(Grid::of(pass)?),
        };
        Ok(At { frame: Frame { center: numbers("center")?, bits }, coefficients: numbers("at")?, grid })
    }

    /// Numbers of a risk set: Σ w, Σ w z, Σ w z zᵀ.
    fn risk_len(&self) -> usize {
        1 + self.design.len() + Symmetric::packed_len(self.design.len())
    }

    /// Numbers of a bin: who is at risk from there on, and, for Efron, who has the event there.
    fn bin_len(&self) -> usize {
        match self.plan.ties {
            Ties::Efron => 2 * self.risk_len(),
            Ties::Breslow => self.risk_len(),
        }
    }

    fn likelihood(&self, answered: &Answered) -> Result<Likelihood, AnalysisError> {
        let wrong = || AnalysisError::Sums(NEWTON.to_owned());
        let p = self.design.len();
        match (self.plan.strata, answered.sums.as_slice()) {
            (Strata::Site, [checks, sums]) if checks.len() == 3 && sums.len() == self.risk_len() => Ok(Likelihood {
                log: sums[0],
                score: sums[1..=p].to_vec(),
                information: Symmetric::from_packed(p, &sums[1 + p..]),
                fits: checks[2] == 0.0,
                hazard: Vec::new(),
            }),
            (Strata::None, [checks, events, totals, bins]) if checks.len() == 3 && totals.len() == p + 1 => {
                let at = self.at(&answered.pass)?;
                if bins.len() != events.len() * self.bin_len() {
                    return Err(wrong());
                }
                let mut likelihood = risk::pooled(events, bins, p, self.plan.ties);
                // The event's own log risks, and their columns.
                likelihood.log += totals[p] + crate::linear::dot(&at.coefficients, &totals[..p]);
                likelihood.score.iter_mut().zip(totals).for_each(|(score, total)| *score += total);
                likelihood.fits = checks[2] == 0.0 && likelihood.log.is_finite();
                Ok(likelihood)
            }
            _ => Err(wrong()),
        }
    }

    /// The penalised likelihood, to be minimised.
    fn evaluation(&self, at: Vec<f64>, likelihood: &Likelihood, frame: &Frame) -> Evaluation {
        let mut evaluation = Evaluation {
            objective: -likelihood.log,
            score: likelihood.score.clone(),
            information: likelihood.information.clone(),
            fits: likelihood.fits,
            at,
        };
        for j in 0..self.design.len() {
            let weight = self.plan.ridge / (frame.unit(j) * frame.unit(j));
            evaluation.objective += 0.5 * weight * evaluation.at[j] * evaluation.at[j];
            evaluation.score[j] -= weight * evaluation.at[j];
            evaluation.information.add(j, j, weight);
        }
        evaluation
    }
}

impl Analysis for Cox {
    type Answer = CoxAnswer;

    fn inputs(&self) -> Vec<Input> {
        self.inputs.all().to_vec()
    }

    fn layout(&self, pass: &Pass) -> Result<Vec<VectorSpec>, AnalysisError> {
        if pass.step == survey::STEP {
            return Ok(self.survey.layout());
        }
        let scales = self.scales(pass)?;
        let p = self.design.len();
        match pass.step.as_str() {
            MOMENTS => Ok(vec![counts("counts", vec![3]), scales.sums("sums", vec![2 * p], 0)]),
            TIMES | LABELS => self.search().layout(pass, &scales),
            NEWTON => match self.at(pass)?.grid {
                None => Ok(vec![counts("counts", vec![3]), scales.sums("sums", vec![self.risk_len()], SITE_BITS)]),
                Some(grid) => {
                    let bins = grid.starts.len();
                    if bins.saturating_mul(self.bin_len()) > MAX_SUMS {
                        return Err(AnalysisError::Data("too many event times for so many terms: ask for steps".to_owned()));
                    }
                    Ok(vec![
                        counts("counts", vec![3]),
                        counts("events", vec![bins]),
                        scales.sums("totals", vec![p + 1], SITE_BITS),
                        scales.sums("sums", vec![bins, self.bin_len()], BIN_BITS),
                    ])
                }
            },
            _ => Err(AnalysisError::Pass(pass.step.clone())),
        }
    }

    fn tally(&self, pass: &Pass) -> Result<Box<dyn Tally>, AnalysisError> {
        if pass.step == survey::STEP {
            return Ok(self.survey.tally());
        }
        let scales = self.scales(pass)?;
        match pass.step.as_str() {
            MOMENTS => Ok(Box::new(tally::MomentsTally::new(self, &scales))),
            TIMES | LABELS => {
                let times = TimesTally::new(self.search(), pass, self.time_bits(&scales))?;
                Ok(Box::new(tally::SearchTally { cox: self.clone(), times }))
            }
            NEWTON => {
                // A grid that is too fine is refused before anything is allocated for it.
                self.layout(pass)?;
                let At { frame, coefficients, grid } = self.at(pass)?;
                match grid {
                    None => Ok(Box::new(tally::SiteTally::new(self, &scales, frame, coefficients))),
                    Some(grid) => Ok(Box::new(tally::BinTally::new(self, &scales, frame, coefficients, grid))),
                }
            }
            _ => Err(AnalysisError::Pass(pass.step.clone())),
        }
    }

    fn next(&self, history: &[Answered]) -> Result<Next<CoxAnswer>, AnalysisError> {
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
        let grid = match self.plan.strata {
            Strata::Site => None,
            Strata::None => match self.search().next(&surveyed, self.time_bits(&self.scales(&second.pass)?), rest)? {
                Search::Ask(pass) => return Ok(Next::Ask(pass)),
                Search::Found(grid) => Some(grid),
            },
        };
        let ask = |at: Vec<f64>| Ok(Next::Ask(Self::pass(&surveyed, &moments, grid.as_ref(), at)));
        let mut evaluations = Vec::new();
        let mut likelihoods = Vec::new();
        for answered in rest.iter().filter(|answered| answered.pass.step == NEWTON) {
            let at = self.at(&answered.pass)?.coefficients;
            let likelihood = self.likelihood(answered)?;
            evaluations.push(self.evaluation(at, &likelihood, &moments.frame));
            likelihoods.push(likelihood);
        }
        let Some(null) = evaluations.first() else { return ask(vec![0.0; self.design.len()]) };
        if !null.fits {
            return Err(AnalysisError::Data("the offsets are too unequal for the sums of this model".to_owned()));
        }
        let kept = null.information.factor(&vec![true; self.design.len()]).kept;
        let free: Vec<bool> = (0..self.design.len()).map(|unknown| kept.contains(&unknown)).collect();
        let rules = Rules {
            decrement: DECREMENT,
            max_iterations: MAX_ITERATIONS,
            dispersion: 1.0,
            may_diverge: self.plan.ridge == 0.0,
        };
        match course(&evaluations, &free, rules) {
            Course::Evaluate(at) => ask(at),
            Course::Settled(settled) => {
                let fitted = answer::Fitted {
                    moments: &moments,
                    null: &likelihoods[0],
                    last: &likelihoods[settled.evaluation],
                    at: &evaluations[settled.evaluation].at,
                    free: &free,
                    settled: &settled,
                    grid: grid.as_ref(),
                };
                Ok(Next::Done(fitted.answer(self)))
            }
        }
    }

    fn limited(answer: CoxAnswer, minimum: u64) -> Result<CoxAnswer, AnalysisError> {
        at_least(minimum, answer.n, "complete rows")?;
        at_least(minimum, answer.events, "events")?;
        Ok(answer)
    }

    fn sensitivity(&self, pass: &Pass, ranges: &[Option<f64>]) -> Result<Vec<f64>, AnalysisError> {
        answer::sensitivity(self, pass, ranges)
    }
}

impl Cox {
    fn resolution(&self) -> &'static str {
        match (self.plan.strata, self.plan.resolution) {
            (Strata::Site, _) | (_, TimeResolution::Exact) => "exact",
            (Strata::None, TimeResolution::Events(_)) => "steps",
        }
    }
}
