//! What a requester asks for: a plan, on which data, for how many rounds, with how much patience.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{DatasetId, NodeId};
use crate::plan::Plan;
use crate::secure::{KeyNegotiation, Secagg};
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

/// How far an element of a node's difference to the global model may be from 0 in a hidden sum; beyond it is moved to the edge.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clipping {
    /// The same range for all tensors and rounds.
    Range(f64),
    /// A range for each tensor from the aggregates of earlier rounds.
    Auto,
}

impl Clipping {
    /// The range where nothing is said, and of the first round under `auto`.
    pub const DEFAULT_RANGE: f64 = 3.0;
}

impl Default for Clipping {
    fn default() -> Self {
        Self::Range(Self::DEFAULT_RANGE)
    }
}

/// How sums are hidden from the researcher.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecureSpec {
    pub secagg: Secagg,
    /// How few nodes a hidden sum may be of.
    pub min_parties: u32,
    /// How many nodes may collude with the researcher; absent: the most that let one node be lost, up to a third.
    pub max_colluders: Option<u32>,
    /// How many nodes may be lost between two rounds. Stated, it lets many nodes mask with a few neighbours each.
    #[serde(default)]
    pub max_losses: Option<u32>,
    pub clipping: Clipping,
    #[serde(default)]
    pub key_negotiation: KeyNegotiation,
}

impl Default for SecureSpec {
    fn default() -> Self {
        Self {
            secagg: Secagg::Auto,
            min_parties: 3,
            max_colluders: None,
            max_losses: None,
            clipping: Clipping::default(),
            key_negotiation: KeyNegotiation::Relay,
        }
    }
}

impl SecureSpec {
    /// Sums that are not hidden.
    pub const NONE: Self = Self {
        secagg: Secagg::None,
        min_parties: 3,
        max_colluders: None,
        max_losses: None,
        clipping: Clipping::Range(Clipping::DEFAULT_RANGE),
        key_negotiation: KeyNegotiation::Relay,
    };
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
    #[error("`min_parties` must be between 2 and 65536, found {0}")]
    MinParties(u32),
    #[error("`max_colluders` must be at most 65534, found {0}")]
    MaxColluders(u32),
    #[error("`clipping` must be a number above 0 and at most 1e30, or \"auto\", found {0}")]
    Clipping(String),
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
    #[serde(default)]
    pub secure: SecureSpec,
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
        let SecureSpec { secagg: _, min_parties, max_colluders, max_losses: _, clipping, key_negotiation: _ } = raw.secure;
        if !(2..=65_536).contains(&min_parties) {
            return Err(ExperimentError::MinParties(min_parties));
        }
        if let Some(colluders) = max_colluders.filter(|colluders| *colluders > 65_534) {
            return Err(ExperimentError::MaxColluders(colluders));
        }
        if let Clipping::Range(range) = clipping
            && !(range > 0.0 && range <= 1e30)
        {
            return Err(ExperimentError::Clipping(range.to_string()));
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

    pub fn secure(&self) -> SecureSpec {
        self.raw.secure
    }

    /// How few nodes the experiment may begin with: `min_nodes`, and `min_parties` where sums are asked to be hidden.
    pub fn least_nodes(&self) -> u32 {
        let hidden = matches!(self.raw.secure.secagg, Secagg::Lom | Secagg::JoyeLibert);
        self.raw.patience.min_nodes.max(if hidden { self.raw.secure.min_parties } else { 1 })
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
