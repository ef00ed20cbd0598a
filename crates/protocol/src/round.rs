//! Rounds and the tasks they consist of.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::contribution::VectorSpec;
use crate::hash::Digest;
use crate::ids::{DatasetId, ExperimentId, NodeId, TaskId};
use crate::pass::Pass;
use crate::plan::Plan;
use crate::secure::{Masking, SecureMessage, SecureStep};

/// Where an experiment is: everything that is computed, masked or folded belongs to exactly one key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundKey {
    pub experiment: ExperimentId,
    /// Counts every exchange of the experiment from 0, statistics and the last validation included.
    pub round: u32,
    /// Counts deliberate repetitions of the round from 0.
    pub attempt: u32,
    /// Which phase of the round: 0 is the contribution, the others are exchanges of secure aggregation.
    pub phase: u16,
}

impl fmt::Display for RoundKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} round {} attempt {}", self.experiment, self.round, self.attempt)
    }
}

/// What a node does in a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "work", deny_unknown_fields)]
pub enum Work {
    /// Rows, and sums of each feature, over training rows.
    Sums,
    /// Sums of squared differences from the given means, over training rows.
    SquaredDifferences { means: Vec<f64> },
    /// One pass of a statistic that is asked as a question.
    Pass { pass: Pass },
    /// Train from the task's model in training round `training_round` (from 1), validating it first if the plan says so.
    Train { training_round: u32 },
    /// Measure the task's model on held-out rows, without training.
    Validate,
    /// An exchange around a hidden sum; answered by a message, not by a contribution.
    Secure { step: SecureStep, message: SecureMessage },
}

/// A blob that is fetched apart: its digest and its length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobRef {
    pub digest: Digest,
    pub bytes: u64,
}

/// The person who asked, as the researcher's machine knows them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requester {
    /// The local user name at the researcher.
    pub user: String,
}

/// What one node is asked to do in one attempt of one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    pub id: TaskId,
    /// The node that is asked; another one refuses.
    pub node: NodeId,
    pub key: RoundKey,
    pub requester: Requester,
    pub dataset: DatasetId,
    pub plan: Plan,
    pub work: Work,
    /// The global parameters (safetensors); absent where the work needs none.
    pub model: Option<BlobRef>,
    /// What the contribution consists of, exactly.
    pub layout: Vec<VectorSpec>,
    /// How the contribution is hidden from the researcher; absent: it is not.
    #[serde(default)]
    pub masking: Option<Masking>,
}

impl Task {
    /// What all nodes of a hidden sum must agree to have been asked: plan, work, model, layout and the range of each vector. Masks
    /// are bound to it, so that those of nodes that were asked different things do not cancel.
    pub fn terms(&self) -> [u8; 32] {
        #[derive(Serialize)]
        struct Terms<'task> {
            key: &'task RoundKey,
            plan: &'task Plan,
            work: &'task Work,
            model: Option<BlobRef>,
            layout: &'task [VectorSpec],
            clipping: Option<&'task BTreeMap<String, f64>>,
        }
        // A node that is asked again alone has a later attempt than the others; the attempt is bound by the session.
        let key = RoundKey { attempt: 0, ..self.key.clone() };
        let clipping = self.masking.as_ref().map(|masking| &masking.clipping);
        let terms =
            Terms { key: &key, plan: &self.plan, work: &self.work, model: self.model, layout: &self.layout, clipping };
        let bytes = serde_json::to_vec(&terms).expect("maps have text as keys");
        blake3::derive_key("fedbiomed 2026-11 terms of a hidden sum v1", &bytes)
    }

    /// What the researcher signs and the node checks: a label, then the task's JSON. Both sides write it from the typed value;
    /// field order and numbers are canonical, because JSON keeps the order of the fields and f64 round-trips exactly.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = b"fedbiomed task v1\0".to_vec();
        bytes.extend(serde_json::to_vec(self).expect("a task has no map with keys other than text"));
        bytes
    }
}
