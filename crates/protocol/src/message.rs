//! What researcher and node say on the control stream. Bulk data travels apart, in chunks.

use serde::{Deserialize, Serialize};

use crate::dataset::DatasetFace;
use crate::hash::Digest;
use crate::ids::{ExperimentId, RequestId, ResearcherId, TaskId};
use crate::metric::{Metric, ValidatedOn};
use crate::refusal::Refusal;
use crate::round::Task;
use crate::secure::SecureMessage;
use crate::tags::Tags;
use crate::version::{Capability, ProtocolVersion};

/// A task that a node has in its journal and that the researcher has not settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldTask {
    pub task: TaskId,
}

/// The first message of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    pub protocol: ProtocolVersion,
    /// The software's version, for people.
    pub software: String,
    pub capabilities: Vec<Capability>,
    /// The node's name, for people; its id is read from its certificate.
    pub name: String,
    pub held: Vec<HeldTask>,
    /// Experiments whose keys of hidden sums this node keeps, since nobody told it that they are over; the latest
    /// [`MAX_KEYED_EXPERIMENTS`].
    #[serde(default)]
    pub keyed: Vec<ExperimentId>,
}

/// The most experiments that a [`Hello`] names.
pub const MAX_KEYED_EXPERIMENTS: u32 = 64;

/// The first message of a researcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    pub protocol: ProtocolVersion,
    pub software: String,
    pub capabilities: Vec<Capability>,
    pub researcher: ResearcherId,
}

/// How far a task is. Progress is shown and forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Updates done, and in all.
    pub done: u64,
    pub total: u64,
    /// Mean training loss of the last batch; absent where nothing is trained.
    pub loss: Option<f64>,
}

/// One number that a validation gave at one node.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    pub on: ValidatedOn,
    pub metric: Metric,
    pub value: f64,
}

/// What a node says about its own part of a round, in clear, beside the contribution. Absent under secure aggregation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    pub train_rows: u64,
    pub test_rows: u64,
    /// Rows left out for missing values.
    pub dropped_rows: u64,
    /// Mean training loss over the round's last pass.
    pub loss: Option<f64>,
    pub measured: Vec<Measured>,
    /// Sentences for people: a metric that means nothing here, a validation that failed.
    pub remarks: Vec<String>,
    /// How long the work took, in milliseconds.
    pub work_ms: u64,
}

/// What begins the upload of a contribution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadHeader {
    pub task: TaskId,
    pub digest: Digest,
    pub bytes: u64,
    pub report: Option<Report>,
}

/// From node to researcher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "message", deny_unknown_fields)]
pub enum NodeMessage {
    /// The task is in the journal: it will be worked on, whatever happens.
    Accepted {
        task: TaskId,
    },
    Progress {
        task: TaskId,
        progress: Progress,
    },
    /// The node will not contribute to this task. Said again after a reconnection until the researcher settles it.
    Refused {
        task: TaskId,
        refusal: Refusal,
    },
    /// The values do not fit the round's scales; `exponents` would fit, one for each vector of the layout.
    OutOfRange {
        task: TaskId,
        exponents: Vec<i16>,
    },
    /// Answers a task of secure aggregation. Said again after a reconnection until the researcher settles it.
    Answered {
        task: TaskId,
        answer: SecureMessage,
    },
    /// Answers `Search`.
    Found {
        request: RequestId,
        datasets: Vec<DatasetFace>,
    },
}

/// From researcher to node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "message", deny_unknown_fields)]
pub enum ResearcherMessage {
    /// Work. The same task may come again after a reconnection; it has its effect once.
    Task { task: Box<Task>, signature: Vec<u8> },
    /// The work is not wanted any more.
    Cancel { task: TaskId, refusal: Refusal },
    /// The researcher needs nothing more about this task: it is folded, refused or over, on disk.
    Settled { task: TaskId },
    /// The experiment is over, or goes on with other keys: those of its hidden sums are not needed any more.
    Over { experiment: ExperimentId },
    /// Which datasets carry these tags; absent: all. Answered while a task runs.
    Search { request: RequestId, tags: Option<Tags> },
}
