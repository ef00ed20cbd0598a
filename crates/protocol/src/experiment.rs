//! What a requester asks for: a plan, on which data, for how many rounds, with how much patience.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{DatasetId, NodeId};
use crate::plan::Plan;
use crate::tags::Tags;

/// Which datasets take part: one per node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Selection {
    /// The dataset that carries all of these tags, on each node that has exactly one.
    Tags(Tags),
    /// These datasets.
    Datasets(BTreeMap<NodeId, DatasetId>),
}

/// What a node that failed does to the round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The experiment ends with the node's refusal.
    Fail,
    /// The node is left out of the rest of the experiment.
    #[default]
    Drop,
    /// The node is asked again, as a new attempt, up to three times; then as `drop`.
    Retry,
}

/// How patient an experiment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patience {
    /// How long a round may last, in milliseconds; absent: as long as nodes work on it.
    pub round_timeout_ms: Option<u64>,
    /// How few nodes a round may end with.
    pub min_nodes: u32,
    /// How long a node may be away before it is dropped, in milliseconds.
    pub node_timeout_ms: u64,
    pub on_failure: OnFailure,
}

impl Patience {
    pub fn round_timeout(self) -> Option<Duration> {
        self.round_timeout_ms.map(Duration::from_millis)
    }

    pub fn node_timeout(self) -> Duration {
        Duration::from_millis(self.node_timeout_ms)
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self { round_timeout_ms: None, min_nodes: 1, node_timeout_ms: 60_000, on_failure: OnFailure::Drop }
    }
}

/// Why an experiment is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExperimentError {
    #[error("`rounds` must be between 1 and 1000000, found {0}")]
    Rounds(u32),
    #[error("`min_nodes` must be between 1 and 65536, found {0}")]
    MinNodes(u32),
    #[error("`name` must have 1 to 128 characters without control characters")]
    Name,
    #[error("the list of datasets is empty")]
    NoDatasets,
}

/// A whole experiment as it was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawExperimentSpec", into = "RawExperimentSpec")]
pub struct ExperimentSpec {
    raw: RawExperimentSpec,
}

/// The parts of an [`ExperimentSpec`], not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawExperimentSpec {
    pub name: String,
    pub selection: Selection,
    /// Only these nodes, by id or name; absent: all.
    pub nodes: Option<BTreeSet<String>>,
    pub plan: Plan,
    /// Rounds of training; a statistic takes as many as it needs.
    pub rounds: u32,
    pub patience: Patience,
}

impl ExperimentSpec {
    pub fn new(raw: RawExperimentSpec) -> Result<Self, ExperimentError> {
        if !(1..=1_000_000).contains(&raw.rounds) {
            return Err(ExperimentError::Rounds(raw.rounds));
        }
        if !(1..=65_536).contains(&raw.patience.min_nodes) {
            return Err(ExperimentError::MinNodes(raw.patience.min_nodes));
        }
        if !(1..=128).contains(&raw.name.chars().count()) || raw.name.chars().any(char::is_control) {
            return Err(ExperimentError::Name);
        }
        if matches!(&raw.selection, Selection::Datasets(datasets) if datasets.is_empty()) {
            return Err(ExperimentError::NoDatasets);
        }
        Ok(Self { raw })
    }

    /// The same experiment with another plan, such as one whose features have been spelled out.
    #[must_use]
    pub fn with_plan(mut self, plan: Plan) -> Self {
        self.raw.plan = plan;
        self
    }

    pub fn name(&self) -> &str {
        &self.raw.name
    }

    pub fn selection(&self) -> &Selection {
        &self.raw.selection
    }

    /// Whether the experiment asks this node.
    pub fn includes(&self, node: &NodeId, name: &str) -> bool {
        let listed = self.raw.nodes.as_ref().is_none_or(|nodes| nodes.contains(node.as_str()) || nodes.contains(name));
        listed && !matches!(&self.raw.selection, Selection::Datasets(datasets) if !datasets.contains_key(node))
    }

    pub fn plan(&self) -> &Plan {
        &self.raw.plan
    }

    pub fn rounds(&self) -> u32 {
        self.raw.rounds
    }

    pub fn patience(&self) -> Patience {
        self.raw.patience
    }
}

impl TryFrom<RawExperimentSpec> for ExperimentSpec {
    type Error = ExperimentError;

    fn try_from(raw: RawExperimentSpec) -> Result<Self, ExperimentError> {
        Self::new(raw)
    }
}

impl From<ExperimentSpec> for RawExperimentSpec {
    fn from(spec: ExperimentSpec) -> Self {
        spec.raw
    }
}
