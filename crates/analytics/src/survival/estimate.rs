//! Estimates out of the numbers at risk and with the event.

use protocol::Confidence;
use protocol::statistic::{Survival as Plan, SurvivalInterval};
use serde::Serialize;

use crate::distributions::{chi_square_upper, normal_quantile};
use crate::linear::{Symmetric, dot};

/// A time or the end of a step, who is at risk there, and who of them has the event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct AtTime {
    pub(super) time: f64,
    /// Where the events are on average: the time, or the middle of the step.
    pub(super) middle: f64,
    pub(super) at_risk: u64,
    pub(super) events: u64,
    /// Who leaves within the step, at risk for half of it on average; 0 where times are exact.
    pub(super) leaving: u64,
}

impl AtTime {
    fn exposed(&self) -> f64 {
        self.at_risk as f64 - 0.5 * self.leaving as f64
    }
}

/// A survival curve; the lists have one element for each time at which the group has events.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    pub name: String,
    pub n: u64,
    pub events: u64,
    pub time: Vec<f64>,
    pub n_risk: Vec<u64>,
    pub n_event: Vec<u64>,
    pub survival: Vec<f64>,
    /// Of the survival probability (Greenwood 1926).
    pub std_error: Vec<f64>,
    pub ci_low: Vec<f64>,
    pub ci_high: Vec<f64>,
    /// The first time at which survival is at most one half.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub median: Option<f64>,
    /// From where the interval's upper and lower ends are at most one half.
    pub median_ci: [Option<f64>; 2],
    pub restricted_mean: RestrictedMean,
}

/// The mean of the times, each cut off at the horizon: the area below the curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RestrictedMean {
    pub horizon: f64,
    pub value: f64,
    pub std_error: f64,
}

/// Whether the curves are the same.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LogRank {
    pub chi2: f64,
    pub df: u32,
    pub p: f64,
}

/// The curve of a group out of its table, whose times ascend.
pub(super) fn group(name: &str, table: &[AtTime], plan: &Plan) -> Group {
    let n = table.first().map_or(0, |first| first.at_risk);
    let mut group = Group {
        name: name.to_owned(),
        n,
        events: table.iter().map(|at| at.events).sum(),
        time: Vec::new(),
        n_risk: Vec::new(),
        n_event: Vec::new(),
        survival: Vec::new(),
        std_error: Vec::new(),
        ci_low: Vec::new(),
        ci_high: Vec::new(),
        median: None,
        median_ci: [None, None],
        restricted_mean: RestrictedMean { horizon: 0.0, value: 0.0, std_error: 0.0 },
    };
    let (mut survival, mut hazard_variance) = (1.0, 0.0);
    for at in table.iter().filter(|at| at.events > 0) {
        let (risk, events) = (at.exposed(), at.events as f64);
        survival *= (risk - events) / risk;
        hazard_variance += events / (risk * (risk - events));
        let (low, high) = interval(survival, hazard_variance, plan.interval, plan.confidence);
        group.time.push(at.time);
        group.n_risk.push(at.at_risk);
        group.n_event.push(at.events);
        group.survival.push(survival);
        // The limit where all who are left have the event.
        group.std_error.push(if survival > 0.0 { survival * hazard_variance.sqrt() } else { 0.0 });
        group.ci_low.push(low);
        group.ci_high.push(high);
    }
    let first_below = |values: &[f64]| values.iter().position(|value| *value <= 0.5).map(|index| group.time[index]);
    let (median, low, high) = (first_below(&group.survival), first_below(&group.ci_low), first_below(&group.ci_high));
    let horizon = plan.horizon.or(table.last().map(|last| last.time)).unwrap_or(0.0);
    group.restricted_mean = restricted_mean(&group.survival, table, horizon);
    (group.median, group.median_ci) = (median, [low, high]);
    group
}

/// The interval of a survival probability, given the sum of Greenwood's formula.
fn interval(survival: f64, hazard_variance: f64, scale: SurvivalInterval, confidence: Confidence) -> (f64, f64) {
    if survival == 0.0 {
        return match scale {
            SurvivalInterval::Plain => (0.0, 0.0),
            SurvivalInterval::Log | SurvivalInterval::LogLog => (f64::NAN, f64::NAN),
        };
    }
    let z = normal_quantile(f64::midpoint(1.0, confidence.level()));
    match scale {
        SurvivalInterval::Plain => {
            let half = z * survival * hazard_variance.sqrt();
            ((survival - half).max(0.0), (survival + half).min(1.0))
        }
        SurvivalInterval::Log => {
            let factor = (z * hazard_variance.sqrt()).exp();
            (survival / factor, (survival * factor).min(1.0))
        }
        SurvivalInterval::LogLog => {
            // Kalbfleisch and Prentice 2002, §1.4.
            let half = z * hazard_variance.sqrt() / survival.ln();
            (survival.powf((-half).exp()), survival.powf(half.exp()))
        }
    }
}

/// The area below the curve up to the horizon, with the error of Klein and Moeschberger 2003, formula 4.5.2.
fn restricted_mean(survival: &[f64], table: &[AtTime], horizon: f64) -> RestrictedMean {
    // From the right: the area beyond each time.
    let (mut area, mut variance, mut end) = (0.0, 0.0, horizon);
    let with_events: Vec<&AtTime> = table.iter().filter(|at| at.events > 0).collect();
    for (at, survival) in with_events.iter().zip(survival).rev().filter(|(at, _)| at.middle < horizon) {
        area += survival * (end - at.middle);
        end = at.middle;
        let (risk, events) = (at.exposed(), at.events as f64);
        if risk > events {
            variance += area * area * events / (risk * (risk - events));
        }
    }
    RestrictedMean { horizon, value: area + end, std_error: variance.sqrt() }
}

/// The log-rank test over groups that have rows; `None` for fewer than two, or without events.
pub(super) fn log_rank(tables: &[Vec<AtTime>]) -> Option<LogRank> {
    let tables: Vec<&Vec<AtTime>> =
        tables.iter().filter(|table| table.first().is_some_and(|first| first.at_risk > 0)).collect();
    if tables.len() < 2 {
        return None;
    }
    // The last group follows from the others.
    let free = tables.len() - 1;
    let mut difference = vec![0.0; free];
    let mut variance = Symmetric::zeros(free);
    for time in 0..tables[0].len() {
        let n: f64 = tables.iter().map(|table| table[time].exposed()).sum();
        let events: u64 = tables.iter().map(|table| table[time].events).sum();
        if events == 0 {
            continue;
        }
        let d = events as f64;
        let share: Vec<f64> = tables.iter().take(free).map(|table| table[time].exposed() / n).collect();
        let factor = if n > 1.0 { d * (n - d) / (n - 1.0) } else { 0.0 };
        for i in 0..free {
            difference[i] += tables[i][time].events as f64 - d * share[i];
            for j in i..free {
                let same = if i == j { share[i] } else { 0.0 };
                variance.add(i, j, factor * (same - share[i] * share[j]));
            }
        }
    }
    let factor = variance.factor(&vec![true; free]);
    let df = u32::try_from(factor.kept.len()).ok().filter(|df| *df > 0)?;
    let chi2 = dot(&difference, &factor.solve(&difference));
    Some(LogRank { chi2, df, p: chi_square_upper(chi2, f64::from(df)) })
}
