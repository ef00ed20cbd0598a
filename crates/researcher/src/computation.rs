//! The one place where the researcher tells plans apart: what nodes are asked for, and what the sums of their answers mean.

use analytics::analysis::AnalysisError;
use analytics::moments::{self, MomentsError};
use analytics::question::asked;
use learning::{ParameterError, Standardisation, StandardisationError, ValidationSums};
use protocol::{
    Measured, Metric, Plan, Purpose, StatisticPlan, Tensors, TrainingPlan, ValidatedOn, Vector, VectorSpec, Work,
};
use thiserror::Error;

use crate::command::{ColumnMoments, Pooled};

/// Why a plan cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ComputationError {
    #[error("a statistic does not train")]
    NotTraining,
    #[error("column {0:?} has no values at any node")]
    NoValues(String),
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    #[error(transparent)]
    Moments(#[from] MomentsError),
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    #[error(transparent)]
    Standardisation(#[from] StandardisationError),
}

/// What comes after a pass of a statistic.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    Ask(Work),
    Done(Vec<ColumnMoments>),
}

/// The metrics over all nodes' held-out rows.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Measures {
    pub(crate) metrics: Vec<Pooled>,
    pub(crate) confusion: Option<Vec<Vec<u64>>>,
    pub(crate) remarks: Vec<String>,
}

/// The columns whose moments the plan takes.
fn moments_columns(plan: &Plan) -> &[String] {
    match plan {
        Plan::Training(plan) => plan.features(),
        Plan::Statistic(StatisticPlan::Moments { columns }) => columns,
        Plan::Statistic(StatisticPlan::Question { .. }) => &[],
    }
}

/// What a contribution to this work consists of. `rows` is about how many training rows there are over all nodes.
pub(crate) fn layout(plan: &Plan, work: &Work, rows: Option<u64>) -> Result<Vec<VectorSpec>, ComputationError> {
    match (work, plan) {
        (Work::Sums | Work::SquaredDifferences { .. }, _) => Ok(moments::layout(work, moments_columns(plan).len())?),
        (Work::Pass { pass }, Plan::Statistic(StatisticPlan::Question { question })) => {
            Ok(asked(&question.statistic).layout(pass)?)
        }
        (Work::Train { .. }, Plan::Training(plan)) => Ok(learning::training_layout(plan, plan.features().len(), rows)?),
        (Work::Validate, Plan::Training(plan)) => Ok(learning::validation_layout(plan)),
        (Work::Train { .. } | Work::Validate, Plan::Statistic(_)) | (Work::Secure { .. } | Work::Pass { .. }, _) => {
            Err(ComputationError::NotTraining)
        }
    }
}

/// What the first pass of a statistic, or of standardisation, is.
pub(crate) fn first_pass() -> Work {
    moments::first_work()
}

/// What the summed answers to a pass lead to.
pub(crate) fn step(plan: &Plan, work: &Work, sums: &[Vector]) -> Result<Step, ComputationError> {
    let sums: Vec<Vec<f64>> = sums.iter().map(|vector| vector.values.clone()).collect();
    let moments = match moments::step(work, &sums)? {
        moments::Step::Ask(work) => return Ok(Step::Ask(work)),
        moments::Step::Done(moments) => moments,
    };
    let named = |(name, column): (&String, &moments::ColumnMoments)| {
        let (Some(mean), Some(deviation)) = (column.mean, column.population_deviation()) else {
            return Err(ComputationError::NoValues(name.clone()));
        };
        Ok(ColumnMoments { column: name.clone(), count: column.count, mean, variance: column.variance(), deviation })
    };
    Ok(Step::Done(moments_columns(plan).iter().zip(&moments.columns).map(named).collect::<Result<_, _>>()?))
}

/// How many values the fullest column of a pass has, over all nodes.
pub(crate) fn counted(sums: &[Vector]) -> Option<f64> {
    let counts = sums.iter().find(|vector| vector.purpose == Purpose::Statistic)?;
    counts.values.iter().copied().reduce(f64::max)
}

/// The first model of a training plan, with its standardisation.
pub(crate) fn initial_model(plan: &TrainingPlan, moments: Option<&[ColumnMoments]>) -> Result<Tensors, ComputationError> {
    let model = learning::initial(plan.model(), plan.precision(), plan.features().len(), plan.arguments().seed)?;
    let Some(moments) = moments else { return Ok(model) };
    let means = moments.iter().map(|column| column.mean).collect();
    let deviations: Vec<f64> = moments.iter().map(|column| column.deviation).collect();
    Ok(Standardisation::new(means, &deviations)?.attach(model))
}

/// The metrics that summed validations give; the confusion matrix is that of the global parameters.
pub(crate) fn measure(plan: &Plan, sums: &[Vector]) -> Measures {
    let Plan::Training(plan) = plan else { return Measures::default() };
    let mut measures = Measures::default();
    for (purpose, on) in [(Purpose::ValidationGlobal, ValidatedOn::Global), (Purpose::ValidationLocal, ValidatedOn::Local)] {
        let vectors: Vec<Vec<f64>> =
            sums.iter().filter(|vector| vector.purpose == purpose).map(|vector| vector.values.clone()).collect();
        if vectors.is_empty() {
            continue;
        }
        match ValidationSums::from_vectors(plan.model().outcome(), &vectors) {
            Ok(sums) => {
                let metrics = sums.metrics();
                let pooled = |(metric, value)| Pooled {
                    measured: Measured { on, metric, value },
                    error_bound: metrics.auc_error_bound.filter(|_| metric == Metric::Auc),
                };
                // Sums that no rows give, as a node that lies may send them unseen, have no metrics.
                measures.metrics.extend(metrics.defined().filter(|(_, value)| value.is_finite()).map(pooled));
                let undefined =
                    metrics.undefined().map(|(metric, why)| format!("no {} over all nodes: {why}", metric.name()));
                measures.remarks.extend(undefined);
                if on == ValidatedOn::Global {
                    measures.confusion = metrics.confusion;
                }
            }
            Err(error) => measures.remarks.push(format!("the validation over all nodes failed: {error}")),
        }
    }
    measures
}
