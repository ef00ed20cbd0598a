//! Every question in one shape: the one place that tells statistics apart.

use protocol::statistic::Statistic;
use protocol::{Pass, VectorSpec};
use serde_json::Value;

use crate::analysis::{Analysis, AnalysisError, Answered, Input, Next, Tally};
use crate::combat::Combat;
use crate::cox::Cox;
use crate::glm::Glm;
use crate::meta::Meta;
use crate::survival::Survival;

/// A statistic whose answer is JSON, as the command line and the Python package show it. What the methods do is said at
/// [`Analysis`].
pub trait Asked: Send + Sync {
    fn inputs(&self) -> Vec<Input>;
    fn layout(&self, pass: &Pass) -> Result<Vec<VectorSpec>, AnalysisError>;
    fn tally(&self, pass: &Pass) -> Result<Box<dyn Tally>, AnalysisError>;
    /// As [`Analysis::next`]; pooled counts below `minimum` are hidden in the answer.
    fn next(&self, history: &[Answered], minimum: u64) -> Result<Next<Value>, AnalysisError>;
    fn sensitivity(&self, pass: &Pass, ranges: &[Option<f64>]) -> Result<Vec<f64>, AnalysisError>;
}

impl<A: Analysis + Send + Sync> Asked for A
where
    A::Answer: serde::Serialize,
{
    fn inputs(&self) -> Vec<Input> {
        Analysis::inputs(self)
    }

    fn layout(&self, pass: &Pass) -> Result<Vec<VectorSpec>, AnalysisError> {
        Analysis::layout(self, pass)
    }

    fn tally(&self, pass: &Pass) -> Result<Box<dyn Tally>, AnalysisError> {
        Analysis::tally(self, pass)
    }

    fn next(&self, history: &[Answered], minimum: u64) -> Result<Next<Value>, AnalysisError> {
        Ok(match Analysis::next(self, history)? {
            Next::Ask(pass) => Next::Ask(pass),
            Next::Done(answer) => Next::Done(
                serde_json::to_value(A::limited(answer, minimum)?)
                    .map_err(|_| AnalysisError::Data("the answer cannot be written".to_owned()))?,
            ),
        })
    }

    fn sensitivity(&self, pass: &Pass, ranges: &[Option<f64>]) -> Result<Vec<f64>, AnalysisError> {
        Analysis::sensitivity(self, pass, ranges)
    }
}

/// How a statistic is computed.
pub fn asked(statistic: &Statistic) -> Box<dyn Asked> {
    match statistic {
        Statistic::Count(plan) => Box::new(*plan),
        Statistic::Describe(plan) => Box::new(plan.clone()),
        Statistic::Table(plan) => Box::new(plan.clone()),
        Statistic::Correlation(plan) => Box::new(plan.clone()),
        Statistic::TTest(plan) => Box::new(plan.clone()),
        Statistic::Anova(plan) => Box::new(plan.clone()),
        Statistic::Pca(plan) => Box::new(plan.clone()),
        Statistic::Glm(plan) => boxed(Glm::new(plan.clone())),
        Statistic::Survival(plan) => boxed(Survival::new(plan.clone())),
        Statistic::Cox(plan) => boxed(Cox::new(plan.clone())),
        Statistic::Meta(plan) => boxed(Meta::new(plan.clone())),
        Statistic::Combat(plan) => boxed(Combat::new(plan.clone())),
    }
}

fn boxed<A: Asked + 'static>(analysis: Result<A, AnalysisError>) -> Box<dyn Asked> {
    match analysis {
        Ok(analysis) => Box::new(analysis),
        Err(error) => Box::new(Refused(error)),
    }
}

/// A plan that cannot be computed: whatever is asked of it, it says why.
struct Refused(AnalysisError);

impl Asked for Refused {
    fn inputs(&self) -> Vec<Input> {
        Vec::new()
    }

    fn layout(&self, _: &Pass) -> Result<Vec<VectorSpec>, AnalysisError> {
        Err(self.0.clone())
    }

    fn tally(&self, _: &Pass) -> Result<Box<dyn Tally>, AnalysisError> {
        Err(self.0.clone())
    }

    fn next(&self, _: &[Answered], _: u64) -> Result<Next<Value>, AnalysisError> {
        Err(self.0.clone())
    }

    fn sensitivity(&self, _: &Pass, _: &[Option<f64>]) -> Result<Vec<f64>, AnalysisError> {
        Err(self.0.clone())
    }
}
