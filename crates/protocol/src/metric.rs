//! The names of what validation measures.

use serde::{Deserialize, Serialize};

/// A metric of a validation. `learning::metric` has the formulas and their sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    Accuracy,
    BalancedAccuracy,
    Precision,
    Recall,
    F1,
    Auc,
    LogLoss,
    Mse,
    Rmse,
    Mae,
    R2,
    ExplainedVariance,
}

impl Metric {
    pub const ALL: [Self; 12] = [
        Self::Accuracy,
        Self::BalancedAccuracy,
        Self::Precision,
        Self::Recall,
        Self::F1,
        Self::Auc,
        Self::LogLoss,
        Self::Mse,
        Self::Rmse,
        Self::Mae,
        Self::R2,
        Self::ExplainedVariance,
    ];

    /// The name in files, tables and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::BalancedAccuracy => "balanced_accuracy",
            Self::Precision => "precision",
            Self::Recall => "recall",
            Self::F1 => "f1",
            Self::Auc => "auc",
            Self::LogLoss => "log_loss",
            Self::Mse => "mse",
            Self::Rmse => "rmse",
            Self::Mae => "mae",
            Self::R2 => "r2",
            Self::ExplainedVariance => "explained_variance",
        }
    }
}

/// Which parameters a validation looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValidatedOn {
    /// The aggregate that the round began with.
    Global,
    /// What the node's own training made of it.
    Local,
}
