//! The one-way analysis of variance (Fisher 1925, "Statistical Methods for Research Workers", chapter VII).

use protocol::statistic::Anova;
use protocol::{Pass, VectorSpec};
use serde::Serialize;

use crate::analysis::{Analysis, AnalysisError, Answered, Input, Next, Tally, at_least};
use crate::distributions::f_upper;
use crate::grouped::{GroupMoments, Grouped};
use crate::sum::compensated;
use crate::ttest::GroupAnswer;

/// What an analysis of variance answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AnovaAnswer {
    /// F.
    pub statistic: f64,
    /// Between groups and within them.
    pub df: [f64; 2],
    pub p: f64,
    pub sum_of_squares: [f64; 2],
    /// The groups that have values.
    pub groups: Vec<GroupAnswer>,
}

fn grouped(plan: &Anova) -> Grouped<'_> {
    Grouped { value: plan.value(), by: Some(plan.by()) }
}

impl Analysis for Anova {
    type Answer = AnovaAnswer;

    fn inputs(&self) -> Vec<Input> {
        grouped(self).inputs()
    }

    fn layout(&self, pass: &Pass) -> Result<Vec<VectorSpec>, AnalysisError> {
        grouped(self).layout(pass)
    }

    fn tally(&self, pass: &Pass) -> Result<Box<dyn Tally>, AnalysisError> {
        grouped(self).tally(pass)
    }

    fn next(&self, history: &[Answered]) -> Result<Next<AnovaAnswer>, AnalysisError> {
        match grouped(self).next(history)? {
            Next::Ask(pass) => Ok(Next::Ask(pass)),
            Next::Done(moments) => analyse(self, &moments).map(Next::Done),
        }
    }

    fn limited(answer: AnovaAnswer, minimum: u64) -> Result<AnovaAnswer, AnalysisError> {
        answer.groups.iter().try_for_each(|group| at_least(minimum, group.count, "rows in a group"))?;
        Ok(answer)
    }

    fn sensitivity(&self, pass: &Pass, ranges: &[Option<f64>]) -> Result<Vec<f64>, AnalysisError> {
        grouped(self).sensitivity(pass, ranges)
    }
}

fn analyse(plan: &Anova, moments: &[GroupMoments]) -> Result<AnovaAnswer, AnalysisError> {
    let groups: Vec<(usize, &GroupMoments)> = moments.iter().enumerate().filter(|(_, group)| group.count > 0).collect();
    let count: u64 = groups.iter().map(|(_, group)| group.count).sum();
    let n_groups = groups.len() as u64;
    if n_groups < 2 || count <= n_groups {
        return Err(AnalysisError::Data(format!("{} has values in fewer than two groups, or one in each", plan.value())));
    }
    let mean = compensated(groups.iter().map(|(_, group)| group.mean * group.count as f64)) / count as f64;
    let between =
        compensated(groups.iter().map(|(_, group)| group.count as f64 * (group.mean - mean) * (group.mean - mean)));
    let within = compensated(groups.iter().map(|(_, group)| group.squares));
    if within <= 0.0 {
        return Err(AnalysisError::Data(format!("all values of {} are the same within each group", plan.value())));
    }
    let df = [(n_groups - 1) as f64, (count - n_groups) as f64];
    let statistic = (between / df[0]) / (within / df[1]);
    let answer =
        |(group, moments): &(usize, &GroupMoments)| GroupAnswer::new(Some(plan.by().levels()[*group].clone()), moments);
    Ok(AnovaAnswer {
        statistic,
        df,
        p: f_upper(statistic, df[0], df[1]),
        sum_of_squares: [between, within],
        groups: groups.iter().map(answer).collect(),
    })
}
