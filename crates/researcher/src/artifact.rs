//! What an experiment leaves behind: the model and its card, the metrics as CSV and for TensorBoard, and a report to look at.
//!
//! A [`Record`] goes in; every artefact is a pure function of it. [`write_all`] is the edge that makes files of them.
//!
//! All artefacts count rounds the same way: a value belongs to the number of training rounds behind the parameters it was
//! measured on. 0 is the untrained model; an experiment of n rounds ends at n.

pub mod chart;
mod files;
pub mod metrics;
pub mod model_card;
pub mod report;
pub mod secure;
pub mod tensorboard;
mod text;

use std::collections::BTreeMap;

use protocol::{
    ExperimentId, ExperimentSpec, Metric, NodeId, Plan, Refusal, Report, Requester, RowCount, Timestamp, TrainingPlan,
    ValidatedOn,
};
use serde::{Deserialize, Serialize};

use crate::command::Hidden;
pub use files::{ArtifactError, Artifacts, write_all};
pub use model_card::IntendedUse;

/// An experiment as it went, without any parameters. The driver fills it round by round; it can be stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub experiment: ExperimentFacts,
    /// In the order in which artefacts show them.
    pub sites: Vec<SiteFacts>,
    /// In the order in which they happened.
    pub rounds: Vec<RoundRecord>,
}

/// What was asked, by whom, and how it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExperimentFacts {
    pub id: ExperimentId,
    /// With the features spelled out.
    pub spec: ExperimentSpec,
    pub requester: Requester,
    /// The version of this software at the researcher.
    pub software: String,
    pub started: Timestamp,
    pub ended: Timestamp,
    /// Why the experiment ended before its last round; absent if it did not.
    pub stopped: Option<Refusal>,
    /// One entry per feature, in the order of the model's weights; empty where features are not standardised.
    pub standardisation: Vec<Standardised>,
    #[serde(default)]
    pub intended_use: IntendedUse,
}

/// What a feature is centred by and divided by before it reaches the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standardised {
    pub feature: String,
    pub mean: f64,
    /// The standard deviation with divisor n.
    pub deviation: f64,
}

/// A node that was asked to take part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteFacts {
    pub node: NodeId,
    pub name: String,
    /// The rows of its dataset, as the site shows them. Numbers of rows in reports are shown no more exactly than this.
    pub rows: RowCount,
}

/// One round of training with the validation that goes with it, or the validation after the last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundRecord {
    /// Counts training rounds from 1; the validation after the last round is one more.
    pub round: u32,
    /// Sites that were asked and have answered.
    pub sites: BTreeMap<NodeId, SiteRound>,
    /// Mean training loss over all sites' training rows.
    pub loss: Option<f64>,
    /// What the summed validation gave.
    pub pooled: Vec<PooledMetric>,
    pub ended: Timestamp,
    /// How the sites' values were hidden from the researcher; absent where they were not.
    #[serde(default)]
    pub hidden: Option<Hidden>,
    /// From the first task sent to the aggregate on disk.
    pub seconds: f64,
}

/// How a site took part in a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SiteRound {
    /// It contributed and said this about its own part.
    Reported(Report),
    /// It contributed; its own values are not known to the researcher (secure aggregation).
    Contributed,
    /// It did not contribute.
    Refused(Refusal),
}

/// A metric over all sites' held-out rows together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PooledMetric {
    pub on: ValidatedOn,
    pub metric: Metric,
    /// Absent where the metric is undefined; `remark` says why.
    pub value: Option<f64>,
    /// The largest possible distance from the value without binning (AUC from a histogram of scores).
    pub error_bound: Option<f64>,
    pub remark: Option<String>,
}

impl Record {
    /// The plan, if the experiment is training.
    pub fn training(&self) -> Option<&TrainingPlan> {
        match self.experiment.spec.plan() {
            Plan::Training(plan) => Some(plan),
            Plan::Statistic(_) => None,
        }
    }

    /// The last round with a validation of the aggregate: what is known about the final model.
    pub fn last_validation(&self) -> Option<&RoundRecord> {
        let on_global = |quantity: Quantity| matches!(quantity, Quantity::Metric(ValidatedOn::Global, _));
        self.rounds.iter().rev().find(|round| {
            round.values().any(|value| on_global(value.quantity))
                || round.pooled.iter().any(|pooled| pooled.on == ValidatedOn::Global)
        })
    }

    /// How many training rounds have been aggregated.
    pub fn trained_rounds(&self) -> u32 {
        let asked = self.experiment.spec.rounds();
        let trained = self.rounds.iter().map(|round| round.round).filter(|round| *round <= asked);
        trained.max().unwrap_or(0)
    }
}

/// What a number is the value of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    /// Mean loss over training rows, as training went.
    TrainingLoss,
    Metric(ValidatedOn, Metric),
}

impl Quantity {
    /// What was looked at, as files name it: `training`, `global` or `local`.
    pub fn on(self) -> &'static str {
        match self {
            Self::TrainingLoss => "training",
            Self::Metric(ValidatedOn::Global, _) => "global",
            Self::Metric(ValidatedOn::Local, _) => "local",
        }
    }

    /// The metric, as files name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::TrainingLoss => "loss",
            Self::Metric(_, metric) => metric.name(),
        }
    }
}

/// Whose value it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who<'a> {
    Site(&'a NodeId),
    Pooled,
}

/// A finite number that a round gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Value<'a> {
    pub who: Who<'a>,
    pub quantity: Quantity,
    /// Rounds of training behind the parameters it was measured on.
    pub trained_rounds: u32,
    pub value: f64,
}

impl RoundRecord {
    /// All finite numbers of the round: each site's, in the order of ids, then the pooled ones.
    pub fn values(&self) -> impl Iterator<Item = Value<'_>> {
        let sites = self.sites.iter().flat_map(move |(node, part)| {
            let report = match part {
                SiteRound::Reported(report) => Some(report),
                SiteRound::Contributed | SiteRound::Refused(_) => None,
            };
            report.into_iter().flat_map(move |report| {
                let loss = report.loss.map(|loss| self.value(Who::Site(node), Quantity::TrainingLoss, loss));
                let measured = report.measured.iter();
                let metrics = measured.map(move |m| self.value(Who::Site(node), Quantity::Metric(m.on, m.metric), m.value));
                loss.into_iter().chain(metrics)
            })
        });
        let loss = self.loss.map(|loss| self.value(Who::Pooled, Quantity::TrainingLoss, loss));
        let pooled = self.pooled.iter().filter_map(move |pooled| {
            pooled.value.map(|value| self.value(Who::Pooled, Quantity::Metric(pooled.on, pooled.metric), value))
        });
        sites.chain(loss).chain(pooled).filter(|value| value.value.is_finite())
    }

    fn value<'a>(&self, who: Who<'a>, quantity: Quantity, value: f64) -> Value<'a> {
        Value { who, quantity, trained_rounds: self.rounds_behind(quantity), value }
    }

    /// How many rounds of training are behind the parameters that a quantity of this round was measured on: the aggregate
    /// is validated before the round's training.
    pub fn rounds_behind(&self, quantity: Quantity) -> u32 {
        match quantity {
            Quantity::Metric(ValidatedOn::Global, _) => self.round.saturating_sub(1),
            Quantity::TrainingLoss | Quantity::Metric(ValidatedOn::Local, _) => self.round,
        }
    }
}

#[cfg(test)]
pub(crate) mod sample;
