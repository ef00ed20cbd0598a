//! Plans: what an experiment computes. A plan is training or a statistic; both use the same round.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::{ModelSpec, Precision};
use crate::statistic::Question;

/// Why a plan is refused. Each names the key, what was expected and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    #[error("`{key}` must be {expected}, found {found}")]
    Value { key: &'static str, expected: &'static str, found: String },
    #[error("`{key}` names {name:?} twice")]
    Twice { key: &'static str, name: String },
    #[error("`target` {0:?} is also a feature")]
    TargetIsFeature(String),
    #[error("give `epochs` or `num_updates`: with neither nothing would be trained")]
    NoAmount,
}

pub(crate) fn value(key: &'static str, expected: &'static str, found: impl std::fmt::Display) -> PlanError {
    PlanError::Value { key, expected, found: format!("{found}") }
}

/// The kinds of plan that a node's policy can allow or refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanKind {
    /// Training of a native model.
    Training,
    /// A federated statistic.
    Statistic,
}

/// What an experiment computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Plan {
    Training(TrainingPlan),
    Statistic(StatisticPlan),
}

impl Plan {
    pub fn kind(&self) -> PlanKind {
        match self {
            Self::Training(_) => PlanKind::Training,
            Self::Statistic(_) => PlanKind::Statistic,
        }
    }

    /// The columns that the plan reads, without repetition; empty for a training plan that takes all numeric columns.
    pub fn columns(&self) -> Vec<&str> {
        match self {
            Self::Training(plan) => {
                plan.features().iter().map(String::as_str).chain([plan.target()]).chain(plan.split_column()).collect()
            }
            Self::Statistic(plan) => plan.columns(),
        }
    }
}

/// The most columns that a statistic names.
pub const MAX_STATISTIC_COLUMNS: usize = 4_096;
/// The most features that a training plan names.
pub const MAX_FEATURES: usize = 20_000;
/// The longest name of a column in a plan, in characters.
pub const MAX_COLUMN_NAME_CHARS: usize = 256;

/// Fails unless the names are different, and each is one that a plan may use.
pub(crate) fn check_columns<'names>(
    key: &'static str,
    names: impl IntoIterator<Item = &'names str>,
) -> Result<(), PlanError> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        check_name(key, name)?;
        if !seen.insert(name) {
            return Err(PlanError::Twice { key, name: name.to_owned() });
        }
    }
    Ok(())
}

pub(crate) fn check_name(key: &'static str, name: &str) -> Result<(), PlanError> {
    let expected = "a column name of 1 to 256 characters";
    match name.chars().take(MAX_COLUMN_NAME_CHARS + 1).count() {
        0 => Err(value(key, expected, "an empty text")),
        1..=MAX_COLUMN_NAME_CHARS => Ok(()),
        _ => Err(value(key, expected, "a longer one")),
    }
}

/// A federated statistic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "statistic", try_from = "RawStatisticPlan")]
pub enum StatisticPlan {
    /// Count, mean and variance of numeric columns, by two passes; with it training plans are standardised.
    Moments { columns: Vec<String> },
    /// Any other statistic.
    Question { question: Box<Question> },
}

impl StatisticPlan {
    /// Plans the moments of 1 to [`MAX_STATISTIC_COLUMNS`] different columns.
    pub fn moments(columns: Vec<String>) -> Result<Self, PlanError> {
        if columns.is_empty() || columns.len() > MAX_STATISTIC_COLUMNS {
            return Err(value("columns", "1 to 4096 column names", columns.len()));
        }
        check_columns("columns", columns.iter().map(String::as_str))?;
        Ok(Self::Moments { columns })
    }

    /// The columns that are read, each once.
    pub fn columns(&self) -> Vec<&str> {
        match self {
            Self::Moments { columns } => columns.iter().map(String::as_str).collect(),
            Self::Question { question } => question.columns(),
        }
    }

    /// The name of the statistic.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Moments { .. } => "moments",
            Self::Question { question } => question.statistic.name(),
        }
    }
}

/// The parts of a [`StatisticPlan`], not yet checked.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", tag = "statistic", deny_unknown_fields)]
enum RawStatisticPlan {
    Moments { columns: Vec<String> },
    Question { question: Box<Question> },
}

impl TryFrom<RawStatisticPlan> for StatisticPlan {
    type Error = PlanError;

    fn try_from(raw: RawStatisticPlan) -> Result<Self, PlanError> {
        match raw {
            RawStatisticPlan::Moments { columns } => Self::moments(columns),
            RawStatisticPlan::Question { question } => Ok(Self::Question { question }),
        }
    }
}

/// What a node does with rows that have a blank or not-a-number cell among the plan's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// The node refuses the task.
    #[default]
    Refuse,
    /// The rows are left out, and their number is reported.
    Drop,
}

/// How the parameters move along the gradient.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", deny_unknown_fields)]
pub enum OptimizerSpec {
    /// Stochastic gradient descent with momentum (Sutskever et al. 2013, as PyTorch writes it: v ← μv + g, w ← w - ηv).
    Sgd {
        learning_rate: f64,
        #[serde(default)]
        momentum: f64,
    },
    /// Adam (Kingma and Ba 2015, Algorithm 1).
    Adam {
        learning_rate: f64,
        #[serde(default = "beta1")]
        beta1: f64,
        #[serde(default = "beta2")]
        beta2: f64,
        #[serde(default = "epsilon")]
        epsilon: f64,
    },
}

fn beta1() -> f64 {
    0.9
}

fn beta2() -> f64 {
    0.999
}

fn epsilon() -> f64 {
    1e-8
}

impl OptimizerSpec {
    fn check(self) -> Result<(), PlanError> {
        let (Self::Sgd { learning_rate, .. } | Self::Adam { learning_rate, .. }) = self;
        if !learning_rate.is_finite() || learning_rate <= 0.0 {
            return Err(value("learning_rate", "a finite number above 0", learning_rate));
        }
        let shares = match self {
            Self::Sgd { momentum, .. } => vec![("momentum", momentum)],
            Self::Adam { beta1, beta2, .. } => vec![("beta1", beta1), ("beta2", beta2)],
        };
        for (key, share) in shares {
            if !(0.0..1.0).contains(&share) {
                return Err(value(key, "at least 0 and below 1", share));
            }
        }
        if let Self::Adam { epsilon, .. } = self
            && !(epsilon.is_finite() && epsilon > 0.0)
        {
            return Err(value("epsilon", "a finite number above 0", epsilon));
        }
        Ok(())
    }
}

/// How much a node trains in a round, and on which rows.
///
/// One update is one step of the optimizer on one mini-batch. Where both `num_updates` and `epochs` are given, `num_updates`
/// wins, as in Fed-BioMed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingArguments {
    /// Passes over the training rows.
    pub epochs: Option<u32>,
    /// Updates in all; 0 moves the model without training it.
    pub num_updates: Option<u32>,
    /// Rows of a mini-batch; 0 is all rows (full-batch gradient descent). The last batch of a pass may be smaller.
    #[serde(default = "batch_size")]
    pub batch_size: u32,
    /// At most so many batches in each pass.
    pub batch_maxnum: Option<u32>,
    /// One update only, to see whether everything fits.
    #[serde(default)]
    pub dry_run: bool,
    /// Whether each pass visits the rows in a new random order.
    #[serde(default = "yes")]
    pub shuffle: bool,
    /// The start of all of the experiment's random draws; each round and node derives its own stream.
    #[serde(default)]
    pub seed: u64,
    /// The share of rows held out for validation, drawn once per experiment and node. From 0 to below 1.
    #[serde(default)]
    pub test_ratio: f64,
    /// A text column whose cells `train` and `test` say which rows are held out, instead of `test_ratio`.
    pub split_column: Option<String>,
    #[serde(default)]
    pub missing: Missing,
}

fn batch_size() -> u32 {
    32
}

fn yes() -> bool {
    true
}

impl Default for TrainingArguments {
    fn default() -> Self {
        Self {
            epochs: Some(1),
            num_updates: None,
            batch_size: batch_size(),
            batch_maxnum: None,
            dry_run: false,
            shuffle: true,
            seed: 0,
            test_ratio: 0.0,
            split_column: None,
            missing: Missing::Refuse,
        }
    }
}

/// When nodes measure a model on their held-out rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validation {
    /// The aggregate, before training in each round and once more after the last: n rounds give n + 1 validations.
    #[serde(default = "yes")]
    pub on_global: bool,
    /// The node's own parameters, after training in each round.
    #[serde(default)]
    pub on_local: bool,
}

impl Default for Validation {
    fn default() -> Self {
        Self { on_global: true, on_local: false }
    }
}

/// Training of a native model by federated averaging.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawTrainingPlan", into = "RawTrainingPlan")]
pub struct TrainingPlan {
    raw: RawTrainingPlan,
}

/// The parts of a [`TrainingPlan`], not yet checked together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawTrainingPlan {
    pub model: ModelSpec,
    #[serde(default)]
    pub precision: Precision,
    /// Column names in the order of the model's weights. Empty: every numeric column but the target, in the dataset's order,
    /// which must then be the same on all nodes.
    #[serde(default)]
    pub features: Vec<String>,
    pub target: String,
    pub optimizer: OptimizerSpec,
    #[serde(default)]
    pub arguments: TrainingArguments,
    /// Whether features are centred and divided by their standard deviation (divisor n) over all nodes' training rows.
    #[serde(default)]
    pub standardise: bool,
    #[serde(default)]
    pub validation: Validation,
}

impl TrainingPlan {
    pub fn new(raw: RawTrainingPlan) -> Result<Self, PlanError> {
        if raw.features.len() > MAX_FEATURES {
            return Err(value("features", "at most 20000 column names", raw.features.len()));
        }
        check_columns("features", raw.features.iter().map(String::as_str))?;
        check_name("target", &raw.target)?;
        if raw.features.contains(&raw.target) {
            return Err(PlanError::TargetIsFeature(raw.target));
        }
        if let Some(column) = &raw.arguments.split_column {
            check_name("split_column", column)?;
        }
        raw.optimizer.check()?;
        let arguments = &raw.arguments;
        if !(0.0..1.0).contains(&arguments.test_ratio) {
            return Err(value("test_ratio", "at least 0 and below 1", arguments.test_ratio));
        }
        if arguments.split_column.is_some() && arguments.test_ratio > 0.0 {
            return Err(value("test_ratio", "absent when `split_column` is given", arguments.test_ratio));
        }
        if arguments.epochs.is_none() && arguments.num_updates.is_none() && !arguments.dry_run {
            return Err(PlanError::NoAmount);
        }
        if arguments.batch_maxnum == Some(0) {
            return Err(value("batch_maxnum", "at least 1", 0));
        }
        Ok(Self { raw })
    }

    /// The same plan with the features spelled out.
    pub fn with_features(self, features: Vec<String>) -> Result<Self, PlanError> {
        Self::new(RawTrainingPlan { features, ..self.raw })
    }

    pub fn model(&self) -> &ModelSpec {
        &self.raw.model
    }

    pub fn precision(&self) -> Precision {
        self.raw.precision
    }

    pub fn features(&self) -> &[String] {
        &self.raw.features
    }

    pub fn target(&self) -> &str {
        &self.raw.target
    }

    pub fn optimizer(&self) -> OptimizerSpec {
        self.raw.optimizer
    }

    pub fn arguments(&self) -> &TrainingArguments {
        &self.raw.arguments
    }

    pub fn standardise(&self) -> bool {
        self.raw.standardise
    }

    pub fn validation(&self) -> Validation {
        self.raw.validation
    }

    pub fn split_column(&self) -> Option<&str> {
        self.raw.arguments.split_column.as_deref()
    }

    /// Whether any rows are held out.
    pub fn holds_out_rows(&self) -> bool {
        self.raw.arguments.split_column.is_some() || self.raw.arguments.test_ratio > 0.0
    }
}

impl TryFrom<RawTrainingPlan> for TrainingPlan {
    type Error = PlanError;

    fn try_from(raw: RawTrainingPlan) -> Result<Self, PlanError> {
        Self::new(raw)
    }
}

impl From<TrainingPlan> for RawTrainingPlan {
    fn from(plan: TrainingPlan) -> Self {
        plan.raw
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(count: usize) -> Vec<String> {
        (0..count).map(|index| format!("c{index}")).collect()
    }

    #[test]
    fn a_statistic_names_a_few_different_columns() {
        assert!(StatisticPlan::moments(named(MAX_STATISTIC_COLUMNS)).is_ok());
        let twice = vec!["age".to_owned(), "age".to_owned()];
        assert!(matches!(StatisticPlan::moments(twice), Err(PlanError::Twice { key: "columns", .. })));
        let long = vec!["é".repeat(MAX_COLUMN_NAME_CHARS + 1)];
        for columns in [Vec::new(), named(MAX_STATISTIC_COLUMNS + 1), vec![String::new()], long] {
            assert!(matches!(StatisticPlan::moments(columns), Err(PlanError::Value { key: "columns", .. })));
        }
    }

    #[test]
    fn a_statistic_from_the_network_is_checked() {
        let plan = |columns: &str| {
            serde_json::from_str::<Plan>(&format!(r#"{{"kind":"statistic","statistic":"moments","columns":{columns}}}"#))
        };
        let read = plan(r#"["age","chol"]"#).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&serde_json::to_string(&read).unwrap()).unwrap(), read);
        for columns in [r#"["age","age"]"#, "[]", r#"["age"],"more":1"#] {
            assert!(plan(columns).is_err(), "{columns}");
        }
    }
}
