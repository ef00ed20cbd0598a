//! The local commands: what the command line, Python and the web page say to a running researcher.
//!
//! They travel as JSON lines over `component::control`, on the socket in the component's folder. A connection carries one
//! [`Request`] and one [`Reply`], except that `Run`, `Resume` and `Follow` are answered by [`Reply::Started`], then any number of
//! [`Reply::Snapshot`] (at most ten per second) and [`Reply::RoundEnded`] (one for each round, none left out), and at last
//! [`Reply::Ended`]. Closing the connection stops the answers, never the experiment: only `Cancel` does. A command that cannot be
//! done is answered by [`Reply::Failed`]. Who asks is the user at the other end of the socket, as the kernel says.
//!
//! Rows of lists serialise with the names of the table's columns as keys.

use std::collections::BTreeMap;
use std::path::PathBuf;

use component::parties::Registration;
use protocol::{
    ColumnFace, DataType, DatasetFace, DatasetId, ExperimentId, ExperimentSpec, Level, Measured, NodeId, RefusalCode,
    ResearcherId, Scheme, SecureStep, Tags, TaskId, Timestamp,
};
use serde::{Deserialize, Serialize};

/// A command.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command", deny_unknown_fields)]
pub enum Request {
    /// Answered by [`Reply::Status`].
    Status,
    /// Ends the daemon in good order; experiments go on at its next start. Answered by [`Reply::Done`].
    Stop,
    /// Makes a one-time token; answered by [`Reply::Invited`]. `address` beats `server.public_address`.
    Invite { name: String, expires_ms: u64, address: Option<String> },
    /// Answered by [`Reply::Invitations`].
    Invitations,
    /// Makes a token worthless that has not been used; by its id. Answered by [`Reply::Done`].
    RevokeInvitation { id: String },
    /// Answered by [`Reply::Nodes`].
    Nodes,
    /// Asks the connected nodes now; answered by [`Reply::Datasets`].
    Datasets { tags: Option<Tags> },
    /// Enrols a node by the text of its request file; answered by [`Reply::Signed`]. `address` beats `server.public_address`;
    /// `replaces` takes another key of a node that is known.
    Sign { request: String, name: String, address: Option<String>, replaces: bool },
    /// The nodes of direct key negotiations; answered by [`Reply::Parties`].
    Parties,
    /// Writes down whose key a node shows and where it listens, HOST:PORT; answered by [`Reply::Done`].
    RegisterParty { node: NodeId, fingerprint: String, address: String, replaces: bool },
    /// Forgets where a node listens; answered by [`Reply::Done`].
    RemoveParty { node: NodeId },
    /// Makes a new key and certificate for the server, under the same authority; answered by [`Reply::Done`].
    NewServerCertificate,
    /// Shuts a node out for good and cuts its connection; by id or name. Answered by [`Reply::Done`].
    Revoke { node: String },
    /// Starts an experiment; answered by a stream.
    Run { spec: Box<ExperimentSpec> },
    /// Answered by [`Reply::Experiments`], newest first.
    Experiments,
    /// One experiment with its rounds; answered by [`Reply::Experiment`]. Here and below `id` is the whole id, or as many of its
    /// first digits (after `exper_`) as are needed to tell it from the others.
    Show { id: String },
    /// What has happened since its start, then what happens; answered by a stream.
    Follow { id: String },
    /// Goes on with a failed or cancelled experiment after its last closed round; answered by a stream.
    Resume { id: String },
    /// Ends an experiment on all nodes; answered by [`Reply::Done`].
    Cancel { id: String },
}

/// One line of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reply", deny_unknown_fields)]
pub enum Reply {
    /// It was not done, or not at all; `sentence` says why and what to do.
    Failed {
        sentence: String,
    },
    /// It was done; the sentence says what.
    Done {
        sentence: String,
    },
    Status {
        status: Status,
    },
    Invited {
        invitation: Invited,
    },
    Invitations {
        invitations: Vec<InvitationRow>,
    },
    Signed {
        signed: Signed,
    },
    Nodes {
        nodes: Vec<NodeRow>,
    },
    Parties {
        rows: Vec<Registration>,
    },
    /// `silent` are the nodes that are connected but did not answer in time, by name.
    Datasets {
        datasets: Vec<DatasetRow>,
        silent: Vec<String>,
    },
    Experiments {
        experiments: Vec<ExperimentRow>,
    },
    Experiment {
        experiment: Box<ExperimentDetails>,
    },
    /// The first line of a stream: the experiment is on the disk and will run whatever happens to this connection.
    Started {
        experiment_id: ExperimentId,
        name: String,
    },
    Snapshot {
        snapshot: Snapshot,
    },
    RoundEnded {
        record: Box<RoundRecord>,
    },
    /// The last line of a stream.
    Ended {
        ended: Box<Ended>,
    },
}

/// What the daemon is and how it fares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub id: ResearcherId,
    pub name: String,
    pub software: String,
    pub process: u32,
    pub started: Timestamp,
    /// Where nodes reach it, as it listens.
    pub listens: String,
    /// SHA-256 of the federation CA's certificate, to compare by telephone.
    pub ca_fingerprint: String,
    pub enrolled_nodes: usize,
    pub connected_nodes: usize,
    pub running_experiments: usize,
}

/// A fresh invitation. The token is shown once and kept nowhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Invited {
    pub id: String,
    pub name: String,
    pub address: String,
    pub expires: Timestamp,
    pub token: String,
}

/// What became of an invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvitationState {
    Open,
    Used,
    Expired,
    Revoked,
}

/// A row of `invitations`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InvitationRow {
    pub id: String,
    pub name: String,
    pub created: Timestamp,
    pub expires: Timestamp,
    pub state: InvitationState,
    /// The node that used it.
    pub node: Option<NodeId>,
}

/// A node that was enrolled by file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signed {
    pub node: NodeId,
    pub name: String,
    /// SHA-256 fingerprints of the node's key and of the federation CA, to compare by telephone.
    pub key_fingerprint: String,
    pub ca_fingerprint: String,
    pub good_until: Timestamp,
    /// What the answer says about where the researcher is.
    pub address: Option<String>,
    /// The text of the file for the node.
    pub answer: String,
}

/// How a node stands to the federation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    Connected,
    Away,
    Revoked,
}

/// A row of `nodes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRow {
    pub id: NodeId,
    pub name: String,
    pub state: NodeState,
    /// Since when it is connected.
    pub connected_since: Option<Timestamp>,
    /// When it was last connected; absent if it never was.
    pub last_seen: Option<Timestamp>,
    pub certificate_expires: Timestamp,
    /// SHA-256 fingerprint of the node's key, to compare by telephone.
    pub key_fingerprint: String,
    /// The node's software version, as it said when it last connected.
    pub software: Option<String>,
}

/// A row of `datasets`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetRow {
    pub node: String,
    pub node_id: NodeId,
    pub name: String,
    pub dataset_id: DatasetId,
    pub data_type: DataType,
    pub tags: Tags,
    pub description: String,
    /// As the hospital shows it: exact, rounded to two digits, or absent.
    pub rows: Option<u64>,
    pub columns: Vec<ColumnFace>,
    /// The different values of columns that have few, as the hospital shows them.
    #[serde(default)]
    pub levels: BTreeMap<String, Vec<Level>>,
}

impl DatasetRow {
    /// Joins a dataset's face with the node that showed it.
    pub fn new(node_id: NodeId, node: String, face: DatasetFace) -> Self {
        Self {
            node,
            node_id,
            name: face.name,
            dataset_id: face.id,
            data_type: face.data_type,
            tags: face.tags,
            description: face.description,
            rows: face.rows.shown(),
            columns: face.columns,
            levels: face.levels,
        }
    }
}

/// Where an experiment is, in one word for tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExperimentState {
    /// Nodes are asked for datasets.
    Selecting,
    Running,
    Finished,
    Failed,
    Cancelled,
}

impl ExperimentState {
    /// The word in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Selecting => "selecting",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more happens unless somebody resumes it.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Cancelled)
    }
}

/// A row of `experiments`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExperimentRow {
    pub id: ExperimentId,
    pub name: String,
    pub state: ExperimentState,
    /// Rounds that are closed, and in all; every exchange counts: statistics, training, the last validation.
    pub round: u32,
    pub rounds: u32,
    pub nodes: usize,
    pub requester: String,
    pub created: Timestamp,
}

/// All about one experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExperimentDetails {
    pub experiment: ExperimentRow,
    /// As asked for; columns left open are spelled out once datasets are chosen.
    pub spec: ExperimentSpec,
    pub snapshot: Snapshot,
    pub records: Vec<RoundRecord>,
    pub ended: Option<Ended>,
}

/// What a round is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoundKind {
    /// Nodes are being found.
    Selection,
    /// First pass of a statistic or of standardisation.
    Sums,
    /// Second pass.
    SquaredDifferences,
    /// A pass of another statistic.
    Pass,
    Training,
    Validation,
}

impl RoundKind {
    /// The word in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Selection => "selection",
            Self::Sums => "sums",
            Self::SquaredDifferences => "squared differences",
            Self::Pass => "pass",
            Self::Training => "training",
            Self::Validation => "validation",
        }
    }
}

/// Where a node is in a round, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeProgress {
    /// The task is on its way, or the node has it but has not begun.
    Waiting,
    Working,
    /// It reads its data, and does not know yet how much there is to do.
    Reading,
    /// Its connection is gone; it may come back within `node_timeout`.
    Away,
    /// Its contribution is here, whole.
    Contributed,
    /// Its values need a wider scale; the round is repeated when all have answered.
    OutOfRange,
    /// It said no to this round's task.
    Refused,
    /// The hospital stopped or paused the work.
    StoppedByHospital,
    /// It was too late for this round and takes part in the next.
    Late,
    /// It is left out of the rest of the experiment.
    Dropped,
    /// The experiment is over, and asks nothing of it any more; the records say what it gave to each round.
    Over,
}

impl NodeProgress {
    /// The words for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Working => "working",
            Self::Reading => "reading its data",
            Self::Away => "away",
            Self::Contributed => "contributed",
            Self::OutOfRange => "needs a wider scale",
            Self::Refused => "refused",
            Self::StoppedByHospital => "stopped by the hospital",
            Self::Late => "late",
            Self::Dropped => "dropped",
            Self::Over => "over",
        }
    }
}

/// One node in a [`Snapshot`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeSnapshot {
    pub id: NodeId,
    pub name: String,
    pub state: NodeProgress,
    /// The task that is open at this node.
    pub task: Option<TaskId>,
    /// Updates done and in all, where the node has told.
    pub done: u64,
    pub total: u64,
    /// Mean training loss of the last batch.
    pub loss: Option<f64>,
    /// Why it refused or was dropped.
    pub reason: Option<String>,
}

/// An experiment now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub experiment_id: ExperimentId,
    pub name: String,
    pub state: ExperimentState,
    /// Rounds that are closed, and in all.
    pub round: u32,
    pub rounds: u32,
    /// What the open round is for, and which training round it is (from 1).
    pub kind: RoundKind,
    pub training_round: Option<u32>,
    pub attempt: u32,
    /// When the experiment, and when the open round, began.
    pub started: Timestamp,
    pub round_started: Timestamp,
    pub nodes: Vec<NodeSnapshot>,
    /// What holds things up, if anything does: no disk space, too few nodes.
    pub remark: Option<String>,
    /// The scheme that hides the nodes' values from the researcher, if one does.
    #[serde(default)]
    pub scheme: Option<Scheme>,
    /// The exchange around the hidden sum that is under way.
    #[serde(default)]
    pub step: Option<SecureStep>,
    /// What a person should know about how values are hidden: that they are not, or that no node may be lost.
    #[serde(default)]
    pub warning: Option<String>,
}

/// One node in a closed round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    pub id: NodeId,
    pub name: String,
    /// Contributed, Refused, `StoppedByHospital`, Late or Dropped.
    pub state: NodeProgress,
    /// Which kind of refusal it was.
    pub code: Option<RefusalCode>,
    pub reason: Option<String>,
    /// Its own numbers; all absent where `hidden` says why.
    pub train_rows: Option<u64>,
    pub test_rows: Option<u64>,
    pub dropped_rows: Option<u64>,
    pub loss: Option<f64>,
    pub measured: Vec<Measured>,
    pub remarks: Vec<String>,
    pub work_ms: Option<u64>,
    /// Why the researcher does not know this node's numbers.
    #[serde(default)]
    pub hidden: Option<String>,
}

/// Why a node's own numbers are absent.
pub const HIDDEN: &str = "hidden by secure aggregation";

/// How a round's sum was hidden from the researcher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hidden {
    pub scheme: Scheme,
    /// Nodes that began, whose masks hide each other.
    pub parties: u32,
    /// How many of them had to take part in the end, and how many may collude with the researcher and learn nothing more.
    pub threshold: u32,
    pub colluders: u32,
    /// Nodes that are in the sum.
    pub survivors: u32,
    /// Elements of model differences, over all nodes, that were moved to the edge of the range; absent where nothing is clipped.
    pub clipped: Option<u64>,
}

/// A number over all nodes' rows, computed from summed contributions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pooled {
    #[serde(flatten)]
    pub measured: Measured,
    /// The exact value lies within this of `value`; absent where `value` is exact.
    pub error_bound: Option<f64>,
}

/// A closed round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundRecord {
    pub experiment_id: ExperimentId,
    /// Counts every exchange from 0.
    pub round: u32,
    pub attempt: u32,
    pub kind: RoundKind,
    /// Which training round it is, from 1; absent for other kinds.
    pub training_round: Option<u32>,
    pub started: Timestamp,
    pub ended: Timestamp,
    pub seconds: f64,
    /// Training rows over the nodes that contributed.
    pub train_rows: u64,
    /// Mean training loss over all training rows.
    pub loss: Option<f64>,
    /// Metrics over all nodes' held-out rows. A training round's `global` ones are of the model that it began with.
    pub metrics: Vec<Pooled>,
    /// The summed confusion matrix of the global parameters, rows the truth, columns the prediction; absent for real outcomes.
    pub confusion: Option<Vec<Vec<u64>>>,
    /// Sentences for people, such as why a metric over all nodes means nothing.
    pub remarks: Vec<String>,
    pub nodes: Vec<NodeRecord>,
    /// Absent where each node's contribution was seen.
    #[serde(default)]
    pub hidden: Option<Hidden>,
}

/// One column of a finished statistic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnMoments {
    pub column: String,
    pub count: u64,
    pub mean: f64,
    /// Divisor n - 1; absent for a single value.
    pub variance: Option<f64>,
    /// Standard deviation with divisor n, by which columns are standardised.
    pub deviation: f64,
}

/// How an experiment ended and where its artefacts lie. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    pub experiment_id: ExperimentId,
    pub name: String,
    pub state: ExperimentState,
    /// Why, if it failed or was cancelled.
    pub reason: Option<String>,
    /// Training rounds that were closed.
    pub rounds: u32,
    pub seconds: f64,
    pub folder: PathBuf,
    pub model: Option<PathBuf>,
    pub card: Option<PathBuf>,
    pub metrics_csv: Option<PathBuf>,
    pub report: Option<PathBuf>,
    /// The folder to give to `tensorboard --logdir`.
    pub tensorboard: Option<PathBuf>,
    /// The last metrics over all nodes.
    pub metrics: Vec<Pooled>,
    /// The result of a statistic; empty for training.
    pub moments: Vec<ColumnMoments>,
    /// What a question came to, in the words of its statistic.
    #[serde(default)]
    pub answer: Option<Answer>,
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The name of the statistic.
    pub statistic: String,
    /// Its numbers, over all sites that were used.
    pub numbers: serde_json::Value,
    /// The names of the nodes whose rows are in it.
    pub sites_used: Vec<String>,
    pub sites_left_out: Vec<SiteLeftOut>,
}

/// A node that was asked and whose rows are not in an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteLeftOut {
    pub site: String,
    pub reason: String,
}
