//! Survival curves (Kaplan and Meier 1958) with Greenwood's errors, medians, restricted means, and the log-rank test (Mantel 1966).
//!
//! Passes: `survey`; `times`, several, which find the event times or the steps (module `times`); `curve`, the events and rows of each group in each
//! bin. In steps, the curve and the test are known at the ends of the steps; who leaves within a step is at risk for half of it
//! (Cutler and Ederer 1958), and events are in its middle for the restricted mean.

mod estimate;

use protocol::statistic::{Survival as Plan, TimeResolution};
use protocol::{Pass, VectorSpec};
use serde::Serialize;

use crate::analysis::{
    Analysis, AnalysisError, Answered, Batch, Cell, CellKind, Input, Next, Tallied, Tally, at_least, same_pass,
};
use crate::design::{Inputs, chunks, complete, levels, numbers};
use crate::survey::{self, Scales, Survey, counts, vector, whole};
use crate::times::{Grid, LABELS, Observed, Search, TIMES, TimeSearch, TimesTally};

use estimate::{AtTime, group, log_rank};
pub use estimate::{Group, LogRank, RestrictedMean};

const CURVE: &str = "curve";

/// Survival curves of a column with levels, or one curve of all rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Survival {
    plan: Plan,
    inputs: Inputs,
    survey: Survey,
    time: usize,
    event: usize,
    by: Option<usize>,
    names: Vec<String>,
}

/// Curves and what tells them apart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SurvivalAnswer {
    pub groups: Vec<Group>,
    /// With two groups at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logrank: Option<LogRank>,
    /// `exact`, or `steps`: times are the ends of steps.
    pub resolution: &'static str,
    /// The events that each step holds at least, in each group that has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_events: Option<u32>,
}

impl Survival {
    /// Fails for a horizon that is no positive number.
    pub fn new(plan: Plan) -> Result<Self, AnalysisError> {
        if plan.horizon.is_some_and(|horizon| !(horizon > 0.0 && horizon.is_finite())) {
            return Err(AnalysisError::Plan("the horizon of the restricted mean must be above 0".to_owned()));
        }
        let mut inputs = Inputs::default();
        let (time, event) = (inputs.number(&plan.time), inputs.number(&plan.event));
        let by = plan.by.as_ref().map(|by| inputs.category(by));
        let names = match &plan.by {
            Some(by) => by.levels().iter().map(ToString::to_string).collect(),
            None => vec!["all".to_owned()],
        };
        Ok(Self { survey: Survey::new(inputs.all().to_vec()), inputs, plan, time, event, by, names })
    }

    fn search(&self) -> TimeSearch {
        TimeSearch { groups: self.names.len(), resolution: self.plan.resolution }
    }

    fn scales(&self, pass: &Pass) -> Result<Scales, AnalysisError> {
        Scales::of(pass, self.inputs.numeric())
    }

    fn time_bits(&self, scales: &Scales) -> i32 {
        scales.bits(self.inputs.numeric_index(self.time))
    }

    /// Calls with each complete row; `None` where the event is neither 0 nor 1.
    fn each(&self, batch: &Batch, mut with: impl FnMut(Option<Observed>)) {
        for range in chunks(batch) {
            let rows = complete(batch, range);
            let groups = self.by.map(|by| levels(batch, by, &rows));
            let (times, events) = (numbers(batch, self.time, &rows), numbers(batch, self.event, &rows));
            for (index, (time, event)) in times.into_iter().zip(events).enumerate() {
                let group = groups.as_ref().map_or(0, |groups| groups[index]);
                with((event == 0.0 || event == 1.0).then_some(Observed { time, is_event: event == 1.0, group }));
            }
        }
    }

    fn answer(&self, grid: &Grid, answered: &Answered) -> Result<SurvivalAnswer, AnalysisError> {
        let wrong = || AnalysisError::Sums(CURVE.to_owned());
        let [counts] = answered.sums.as_slice() else { return Err(wrong()) };
        let bins = grid.starts.len();
        if counts.len() != self.names.len() * bins * 2 {
            return Err(wrong());
        }
        let counts: Vec<u64> = counts.iter().map(|count| whole(*count).ok_or_else(wrong)).collect::<Result<_, _>>()?;
        let is_exact = self.plan.resolution == TimeResolution::Exact;
        // Of each group, at each bin: who is at risk there or later.
        let table = |counts: &[u64]| {
            let mut at_risk = 0;
            let mut table: Vec<AtTime> = Vec::with_capacity(bins);
            for (bin, pair) in counts.chunks(2).enumerate().rev() {
                at_risk += pair[0] + pair[1];
                let time = grid.labels[bin];
                let before = bin.checked_sub(1).map_or(0.0, |before| grid.labels[before]);
                let (middle, leaving) = if is_exact { (time, 0) } else { (f64::midpoint(before, time), pair[1]) };
                table.push(AtTime { time, middle, at_risk, events: pair[0], leaving });
            }
            table.reverse();
            table
        };
        let tables: Vec<Vec<AtTime>> = counts.chunks(bins * 2).map(table).collect();
        let groups = self.names.iter().zip(&tables).map(|(name, table)| group(name, table, &self.plan)).collect();
        let (resolution, minimum_events) = match self.plan.resolution {
            TimeResolution::Exact => ("exact", None),
            TimeResolution::Events(least) => ("steps", Some(least)),
        };
        Ok(SurvivalAnswer { groups, logrank: log_rank(&tables), resolution, minimum_events })
    }
}

impl Analysis for Survival {
    type Answer = SurvivalAnswer;

    fn inputs(&self) -> Vec<Input> {
        self.inputs.all().to_vec()
    }

    fn layout(&self, pass: &Pass) -> Result<Vec<VectorSpec>, AnalysisError> {
        match pass.step.as_str() {
            survey::STEP => Ok(self.survey.layout()),
            TIMES | LABELS => self.search().layout(pass, &self.scales(pass)?),
            CURVE => Ok(vec![counts("counts", vec![self.names.len(), Grid::of(pass)?.starts.len(), 2])]),
            _ => Err(AnalysisError::Pass(pass.step.clone())),
        }
    }

    fn tally(&self, pass: &Pass) -> Result<Box<dyn Tally>, AnalysisError> {
        match pass.step.as_str() {
            survey::STEP => Ok(self.survey.tally()),
            TIMES | LABELS => {
                let times = TimesTally::new(self.search(), pass, self.time_bits(&self.scales(pass)?))?;
                Ok(Box::new(SearchTally { survival: self.clone(), times }))
            }
            CURVE => {
                let grid = Grid::of(pass)?;
                let counts = vec![0; self.names.len() * grid.starts.len() * 2];
                Ok(Box::new(CurveTally { survival: self.clone(), grid, rows: 0, counts }))
            }
            _ => Err(AnalysisError::Pass(pass.step.clone())),
        }
    }

    fn next(&self, history: &[Answered]) -> Result<Next<SurvivalAnswer>, AnalysisError> {
        let Some((first, rest)) = history.split_first() else { return Ok(Next::Ask(Pass::new(survey::STEP))) };
        let surveyed = self.survey.read(&first.sums)?;
        if surveyed.rows == 0 {
            return Err(AnalysisError::Data("there are no rows".to_owned()));
        }
        let time_bits = self.time_bits(&Scales::of(&surveyed.pass(TIMES), self.inputs.numeric())?);
        let grid = match self.search().next(&surveyed, time_bits, rest)? {
            Search::Ask(pass) => return Ok(Next::Ask(pass)),
            Search::Found(grid) => grid,
        };
        match rest.iter().find(|answered| answered.pass.step == CURVE) {
            None => Ok(Next::Ask(grid.with(surveyed.pass(CURVE)))),
            Some(answered) => Ok(Next::Done(self.answer(&grid, answered)?)),
        }
    }

    /// Everything is a count: a row is one of the checks twice at most, and one of the counts twice.
    fn limited(answer: SurvivalAnswer, minimum: u64) -> Result<SurvivalAnswer, AnalysisError> {
        for group in &answer.groups {
            at_least(minimum, group.n, "rows in a group")?;
            at_least(minimum, group.events, "events in a group")?;
        }
        Ok(answer)
    }

    fn sensitivity(&self, pass: &Pass, _: &[Option<f64>]) -> Result<Vec<f64>, AnalysisError> {
        match pass.step.as_str() {
            survey::STEP => Ok(self.survey.sensitivity()),
            // One row, and whether it has a fraction or is impossible; its bin, and its event.
            TIMES => Ok(vec![3_f64.sqrt(), 2_f64.sqrt()]),
            // A time is below its unit.
            LABELS | CURVE => Ok(vec![1.0; self.layout(pass)?.len()]),
            _ => Err(AnalysisError::Pass(pass.step.clone())),
        }
    }
}

struct SearchTally {
    survival: Survival,
    times: TimesTally,
}

impl Tally for SearchTally {
    fn add(&mut self, batch: &Batch) {
        let times = &mut self.times;
        self.survival.each(batch, |row| match row {
            Some(row) => times.add(row),
            None => times.add_impossible(),
        });
    }

    fn merge(&mut self, other: Box<dyn Tally>) {
        self.times.merge(same_pass::<Self>(other).times);
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }

    fn finish(self: Box<Self>) -> Result<Tallied, AnalysisError> {
        Ok(self.times.finish(&self.survival.names))
    }
}

struct CurveTally {
    survival: Survival,
    grid: Grid,
    rows: u64,
    /// Events and other rows of each bin, group by group.
    counts: Vec<u64>,
}

impl Tally for CurveTally {
    fn add(&mut self, batch: &Batch) {
        let (grid, counts, rows) = (&self.grid, &mut self.counts, &mut self.rows);
        self.survival.each(batch, |row| {
            let Some(row) = row else { return };
            let at = 2 * (row.group * grid.starts.len() + grid.bin(row.time));
            counts[at + usize::from(!row.is_event)] += 1;
            *rows += 1;
        });
    }

    fn merge(&mut self, other: Box<dyn Tally>) {
        let other = same_pass::<Self>(other);
        self.rows += other.rows;
        for (count, theirs) in self.counts.iter_mut().zip(other.counts) {
            *count += theirs;
        }
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }

    fn finish(self: Box<Self>) -> Result<Tallied, AnalysisError> {
        let mut cells = vec![Cell { kind: CellKind::Rows, of: "complete rows".to_owned(), count: self.rows }];
        // Where every time is told apart the hospital has allowed that.
        if matches!(self.survival.plan.resolution, TimeResolution::Events(_)) {
            for (name, counts) in self.survival.names.iter().zip(self.counts.chunks(2 * self.grid.starts.len())) {
                let events = counts.chunks(2).enumerate();
                cells.extend(events.map(|(step, pair)| Cell {
                    kind: CellKind::Events,
                    of: format!("{name}, step {}", step + 1),
                    count: pair[0],
                }));
            }
        }
        let counts = self.counts.iter().map(|count| *count as f64).collect();
        Ok(Tallied { vectors: vec![vector("counts", counts)], rows: self.rows, cells })
    }
}
