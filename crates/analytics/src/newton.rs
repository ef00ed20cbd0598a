//! Newton's method whose every evaluation is a pass over all nodes: what to evaluate next follows from the evaluations so far.
//!
//! A step that does not improve is halved. Terms that the data drive to infinity (separation in a binomial model, a monotone likelihood in
//! Cox's) show by steps that stay as long as the one before while the objective hardly changes.

use crate::linear::{Factor, Symmetric, dot};

/// An evaluation of the objective, which is minimised: a negative log likelihood up to a constant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Evaluation {
    pub(crate) at: Vec<f64>,
    pub(crate) objective: f64,
    /// The negative gradient.
    pub(crate) score: Vec<f64>,
    pub(crate) information: Symmetric,
    /// Whether all nodes' numbers fitted.
    pub(crate) fits: bool,
}

/// When to stop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rules {
    /// The Newton decrement, scoreᵀ information⁻¹ score, below which the maximum is reached, in units of `dispersion`.
    pub(crate) decrement: f64,
    pub(crate) max_iterations: u32,
    /// What the objective is divided by to be a log likelihood: 1 where the family has no dispersion.
    pub(crate) dispersion: f64,
    /// Whether coefficients may run to infinity.
    pub(crate) may_diverge: bool,
}

/// A decrement of 1e-16 is a step of 1e-8 standard errors.
pub(crate) const DECREMENT: f64 = 1e-16;
pub(crate) const MAX_ITERATIONS: u32 = 60;
const MAX_HALVINGS: u32 = 40;
/// Steps in a row that must stay as long for a coefficient to be called infinite.
const STEADY_STEPS: usize = 4;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Course {
    Evaluate(Vec<f64>),
    Settled(Settled),
}

/// Where the method stopped.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settled {
    /// The maximum: the last accepted evaluation and one more step.
    pub(crate) at: Vec<f64>,
    /// Which evaluation that was.
    pub(crate) evaluation: usize,
    pub(crate) factor: Factor,
    pub(crate) iterations: u32,
    pub(crate) converged: bool,
    /// Unknowns that run to infinity.
    pub(crate) diverging: Vec<usize>,
}

/// What comes after these evaluations, over the unknowns that are free. There is at least one evaluation, and the first one fits.
pub(crate) fn course(evaluations: &[Evaluation], free: &[bool], rules: Rules) -> Course {
    let mut best = 0;
    let mut steps: Vec<Vec<f64>> = Vec::new();
    let mut halvings = 0;
    for (index, evaluation) in evaluations.iter().enumerate().skip(1) {
        if improves(&evaluations[best], evaluation) {
            steps.push(difference(&evaluation.at, &evaluations[best].at));
            best = index;
            halvings = 0;
        } else {
            halvings += 1;
        }
    }
    let current = &evaluations[best];
    let factor = current.information.factor(free);
    let iterations = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    let settled = |at: Vec<f64>, converged, diverging, factor| {
        Course::Settled(Settled { at, evaluation: best, factor, iterations, converged, diverging })
    };
    let step = factor.solve(&current.score);
    let decrement = dot(&step, &current.score) / rules.dispersion;
    let next: Vec<f64> = current.at.iter().zip(&step).map(|(at, step)| at + step).collect();
    if decrement <= rules.decrement {
        return settled(next, true, Vec::new(), factor);
    }
    if rules.may_diverge && halvings == 0 && decrement < 1.0 {
        let diverging = steady(&steps, &step, &factor);
        if !diverging.is_empty() {
            return settled(current.at.clone(), false, diverging, factor);
        }
    }
    if halvings > 0 {
        let last = &evaluations[evaluations.len() - 1].at;
        // Rounding, not the step, is what keeps the objective from falling.
        let is_rounding = decrement <= rules.decrement.sqrt();
        return match halvings {
            _ if is_rounding && halvings > 2 => settled(current.at.clone(), true, Vec::new(), factor),
            MAX_HALVINGS.. => settled(current.at.clone(), false, Vec::new(), factor),
            _ => Course::Evaluate(current.at.iter().zip(last).map(|(a, b)| f64::midpoint(*a, *b)).collect()),
        };
    }
    if iterations >= rules.max_iterations || next.iter().any(|value| !value.is_finite()) {
        return settled(current.at.clone(), false, Vec::new(), factor);
    }
    Course::Evaluate(next)
}

fn improves(best: &Evaluation, candidate: &Evaluation) -> bool {
    // Sums of n terms are known to about 1e-13 of themselves.
    candidate.fits && candidate.objective <= best.objective + 1e-12 * best.objective.abs()
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// Unknowns whose last steps had one sign and one length. Where the maximum is finite the steps shrink quadratically.
fn steady(steps: &[Vec<f64>], next: &[f64], factor: &Factor) -> Vec<usize> {
    if steps.len() < STEADY_STEPS {
        return Vec::new();
    }
    let recent = &steps[steps.len() - STEADY_STEPS..];
    let is_steady = |j: usize| {
        let mut lengths = recent.iter().map(|step| step[j]).chain([next[j]]);
        let mut before = lengths.next().unwrap_or(0.0);
        lengths.all(|length| {
            let ratio = length / before;
            before = length;
            (0.8..1.3).contains(&ratio)
        })
    };
    let moving: Vec<usize> = factor.kept.iter().copied().filter(|j| is_steady(*j)).collect();
    // What moves because another one does moves less than it does in its own unit; the unknowns are on a scale of about 1.
    let longest = moving.iter().map(|j| next[*j].abs()).fold(0.0, f64::max);
    moving.into_iter().filter(|j| next[*j].abs() > 0.05 * longest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { decrement: DECREMENT, max_iterations: MAX_ITERATIONS, dispersion: 1.0, may_diverge: true };

    /// Minimises a function of one unknown given as (objective, gradient, curvature); returns the outcome and the evaluations.
    fn minimise(from: f64, function: impl Fn(f64) -> (f64, f64, f64)) -> (Settled, usize) {
        let mut evaluations = Vec::new();
        let mut at = vec![from];
        loop {
            let (objective, gradient, curvature) = function(at[0]);
            let information = Symmetric::from_packed(1, &[curvature]);
            evaluations.push(Evaluation { at, objective, score: vec![-gradient], information, fits: objective.is_finite() });
            match course(&evaluations, &[true], RULES) {
                Course::Evaluate(next) => at = next,
                Course::Settled(settled) => return (settled, evaluations.len()),
            }
        }
    }

    #[test]
    fn a_parabola_takes_one_step() {
        let (settled, evaluations) = minimise(5.0, |x| ((x - 2.0) * (x - 2.0), 2.0 * (x - 2.0), 2.0));
        assert_eq!((settled.at.as_slice(), settled.iterations, evaluations, settled.converged), (&[2.0][..], 1, 2, true));
    }

    #[test]
    fn a_step_that_goes_too_far_is_halved() {
        // √(1 + x²) has its minimum at 0; plain Newton runs away from |x| > 1.
        let (settled, _) = minimise(3.0, |x| ((1.0 + x * x).sqrt(), x / (1.0 + x * x).sqrt(), (1.0 + x * x).powf(-1.5)));
        assert!(settled.converged && settled.at[0].abs() < 1e-8, "{settled:?}");
    }

    #[test]
    fn a_minimum_at_infinity_is_said() {
        // One separated observation: log(1 + exp(-x)).
        let (settled, evaluations) = minimise(0.0, |x| {
            let p = 1.0 / (1.0 + x.exp());
            ((-x).exp().ln_1p(), -p, p * (1.0 - p))
        });
        assert_eq!((settled.converged, settled.diverging.as_slice()), (false, &[0][..]));
        assert!(evaluations < 12, "{evaluations}");
    }
}
