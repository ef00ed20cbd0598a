//! Student's and Welch's t-tests, and that of one mean.
//!
//! Formulas: Student 1908; Welch 1947, "The generalization of Student's problem when several different population variances are involved".

use protocol::statistic::{Against, TTest};
use protocol::{Level, Pass, VectorSpec};
use serde::Serialize;

use crate::analysis::{Analysis, AnalysisError, Answered, Input, Next, Tally, at_least};
use crate::distributions::{student_quantile, student_two_sided};
use crate::grouped::{GroupMoments, Grouped};

/// What a t-test answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TTestAnswer {
    /// `one_sample`, `student` or `welch`.
    pub test: &'static str,
    /// t.
    pub statistic: f64,
    pub df: f64,
    /// Two-sided.
    pub p: f64,
    /// Of the first mean and the second, or the mean asked for.
    pub difference: f64,
    pub std_error: f64,
    /// Around the difference.
    pub ci_low: f64,
    pub ci_high: f64,
    pub groups: Vec<GroupAnswer>,
}

/// The moments of a group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupAnswer {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Level>,
    pub count: u64,
    pub mean: f64,
    pub sd: Option<f64>,
    pub variance: Option<f64>,
}

impl GroupAnswer {
    pub(crate) fn new(name: Option<Level>, moments: &GroupMoments) -> Self {
        let variance = moments.variance();
        Self { name, count: moments.count, mean: moments.mean, sd: variance.map(f64::sqrt), variance }
    }
}

fn grouped(plan: &TTest) -> Grouped<'_> {
    Grouped { value: plan.value(), by: plan.against().groups() }
}

impl Analysis for TTest {
    type Answer = TTestAnswer;

    fn inputs(&self) -> Vec<Input> {
        grouped(self).inputs()
    }

    fn layout(&self, pass: &Pass) -> Result<Vec<VectorSpec>, AnalysisError> {
        grouped(self).layout(pass)
    }

    fn tally(&self, pass: &Pass) -> Result<Box<dyn Tally>, AnalysisError> {
        grouped(self).tally(pass)
    }

    fn next(&self, history: &[Answered]) -> Result<Next<TTestAnswer>, AnalysisError> {
        match grouped(self).next(history)? {
            Next::Ask(pass) => Ok(Next::Ask(pass)),
            Next::Done(moments) => test(self, &moments).map(Next::Done),
        }
    }

    fn limited(answer: TTestAnswer, minimum: u64) -> Result<TTestAnswer, AnalysisError> {
        answer.groups.iter().try_for_each(|group| at_least(minimum, group.count, "rows in a group"))?;
        Ok(answer)
    }

    fn sensitivity(&self, pass: &Pass, ranges: &[Option<f64>]) -> Result<Vec<f64>, AnalysisError> {
        grouped(self).sensitivity(pass, ranges)
    }
}

fn test(plan: &TTest, moments: &[GroupMoments]) -> Result<TTestAnswer, AnalysisError> {
    if let Some(small) = moments.iter().position(|group| group.count < 2) {
        return Err(AnalysisError::Data(format!("{} has fewer than two values", grouped(plan).name(small))));
    }
    // The squared standard error of each mean.
    let errors: Vec<f64> =
        moments.iter().map(|group| group.squares / (group.count - 1) as f64 / group.count as f64).collect();
    let df = |group: &GroupMoments| (group.count - 1) as f64;
    let (test, difference, square_error, df) = match (plan.against(), moments, errors.as_slice()) {
        (Against::Mean(mean), [all], [error]) => ("one_sample", all.mean - mean, *error, df(all)),
        (Against::Student(_), [first, second], _) => {
            let df = df(first) + df(second);
            let inverse_counts = 1.0 / first.count as f64 + 1.0 / second.count as f64;
            ("student", first.mean - second.mean, (first.squares + second.squares) / df * inverse_counts, df)
        }
        (Against::Welch(_), [first, second], [a, b]) => {
            let df = (a + b) * (a + b) / (a * a / df(first) + b * b / df(second));
            ("welch", first.mean - second.mean, a + b, df)
        }
        _ => return Err(AnalysisError::Sums("squares".to_owned())),
    };
    let std_error = square_error.sqrt();
    if std_error <= 0.0 {
        return Err(AnalysisError::Data(format!("all values of {} are the same", plan.value())));
    }
    let statistic = difference / std_error;
    let margin = student_quantile(0.5 + 0.5 * plan.confidence().level(), df) * std_error;
    let name = |group: usize| plan.against().groups().map(|by| by.levels()[group].clone());
    Ok(TTestAnswer {
        test,
        statistic,
        df,
        p: student_two_sided(statistic, df),
        difference,
        std_error,
        ci_low: difference - margin,
        ci_high: difference + margin,
        groups: moments.iter().enumerate().map(|(group, moments)| GroupAnswer::new(name(group), moments)).collect(),
    })
}
