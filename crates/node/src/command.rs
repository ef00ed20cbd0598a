//! Local commands: what a person at the hospital asks of a node.
//!
//! Command line, Python and web page build a [`Request`] and call [`run`]: it reaches the running daemon by the Unix socket of
//! the folder, or does the same on the folder itself when no daemon runs. One request a connection, one [`Reply`] each.
//! Row types serialise with their keys as column names.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use component::control::{Connection, ControlError};
use component::folder::{ComponentFolder, FolderError};
use component::parties::Registration;
use component::user::{own_uid, user_name};
use protocol::{ColumnFace, DataType, DatasetId, ExperimentId, Measured, NodeId, RefusalCode, ResearcherId, Tags, TaskId};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use transport::negotiation::Party;

use crate::handle::{NodeHandle, OpenError};

/// Why a command has no answer.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The node's own sentence.
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the daemon closed the connection without an answer; see its log")]
    Silent,
}

/// How long to wait for somebody who holds the folder without listening: another command, a daemon that starts or ends.
const PAUSE: Duration = Duration::from_millis(50);
const MOST_TRIES: u32 = 400;

/// Does what is asked of the node in a folder, by its daemon if one runs. Never answers [`Reply::Failed`].
pub async fn run(folder: &ComponentFolder, request: Request) -> Result<Reply, CommandError> {
    let mut tries = 0;
    let reply = loop {
        tries += 1;
        match ask_daemon(folder, &request).await {
            Err(CommandError::Control(ControlError::NotRunning(_))) if !matches!(request, Request::Stop) => {}
            other => break other?,
        }
        match folder.lock() {
            Ok(_lock) => break NodeHandle::open(folder)?.answer(request, &user_name(own_uid())).await,
            // Somebody holds the folder and does not listen yet, or not any more.
            Err(FolderError::InUse { .. }) if tries < MOST_TRIES => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    };
    match reply {
        Reply::Failed { sentence } => Err(CommandError::Failed(sentence)),
        reply => Ok(reply),
    }
}

async fn ask_daemon(folder: &ComponentFolder, request: &Request) -> Result<Reply, CommandError> {
    let mut connection = Connection::open(&folder.control_socket()).await?;
    connection.send(request).await?;
    connection.receive().await?.ok_or(CommandError::Silent)
}

/// A one-time token on its way to the daemon. It does not print.
#[derive(Clone, Serialize, Deserialize, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
#[serde(transparent)]
pub struct TokenText(pub String);

impl fmt::Debug for TokenText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TokenText(…)")
    }
}

/// A question or an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command", deny_unknown_fields)]
pub enum Request {
    /// Answers [`Reply::Status`], daemon or not.
    Status,
    /// Ends the daemon in good order; running work goes on from its last checkpoint at the next start. Needs a daemon.
    Stop,
    /// Stops running work at once and refuses new tasks until [`Request::Resume`]; survives restarts.
    Pause,
    Resume,
    /// Takes a one-time token. Answers [`Reply::Done`].
    Enrol {
        token: TokenText,
    },
    /// Answers [`Reply::Enrolments`].
    Enrolments,
    /// Answers [`Reply::Certificates`].
    Certificates,
    /// Makes a key and a request for a certificate of it. Answers [`Reply::SigningRequest`].
    RequestCertificate,
    /// Takes the text of a researcher's answer to a request. `address` beats the one in the answer; `replaces` an earlier
    /// enrolment with the same researcher and authority. Answers [`Reply::Done`].
    Register {
        answer: String,
        address: Option<String>,
        replaces: bool,
    },
    /// Drops a request that was not answered, with its key; by the first digits of the key's fingerprint.
    ForgetRequest {
        key: String,
    },
    /// Allows or forbids an enrolled researcher to give work.
    Allow {
        researcher: ResearcherId,
        allowed: bool,
    },
    /// Drops an enrolment; its open tasks are dropped with it.
    Forget {
        researcher: ResearcherId,
    },
    /// Answers [`Reply::Tasks`]: the journal, newest last; settled ones too if `all`.
    Tasks {
        all: bool,
    },
    /// Stops one task; the researcher sees "stopped by the hospital".
    CancelTask {
        task: TaskId,
    },
    /// Stops every open task. Answers [`Reply::Done`].
    CancelAllTasks,
    /// Reads the whole file, then registers it. Answers [`Reply::Dataset`].
    AddDataset {
        dataset: NewDataset,
    },
    /// Answers [`Reply::Datasets`].
    Datasets,
    /// Answers [`Reply::Dataset`].
    Dataset {
        dataset: DatasetId,
    },
    /// Changes what is given, keeps the rest. Answers [`Reply::Dataset`].
    UpdateDataset {
        dataset: DatasetId,
        changes: DatasetChanges,
    },
    /// Takes the file as it is now. Answers [`Reply::Dataset`].
    RefreshDataset {
        dataset: DatasetId,
    },
    DeleteDataset {
        dataset: DatasetId,
    },
    DeleteAllDatasets,
    /// The other nodes of each federation. Answers [`Reply::Peers`].
    Peers,
    /// Takes the key with this fingerprint for that of another node. The researcher may be left out where there is one only.
    TrustPeer {
        #[serde(default)]
        researcher: Option<ResearcherId>,
        node: NodeId,
        /// A note for people; absent keeps the one before.
        #[serde(default)]
        name: Option<String>,
        /// 64 hexadecimal digits, with spaces or colons between them or not.
        fingerprint: String,
    },
    /// Takes part in no sum with another node.
    DistrustPeer {
        #[serde(default)]
        researcher: Option<ResearcherId>,
        node: NodeId,
    },
    /// The parties of direct key negotiations. Answers [`Reply::Parties`].
    Parties,
    /// Writes down whose key a party shows and where it listens, HOST:PORT. The researcher may be left out where there is one only.
    RegisterParty {
        #[serde(default)]
        researcher: Option<ResearcherId>,
        party: Party,
        fingerprint: String,
        address: String,
        replaces: bool,
    },
    /// Forgets a party, in one federation or in all.
    RemoveParty {
        #[serde(default)]
        researcher: Option<ResearcherId>,
        party: Party,
    },
    /// The node's certificate in a federation. Answers [`Reply::Certificate`].
    ExportCertificate {
        #[serde(default)]
        researcher: Option<ResearcherId>,
    },
    /// The node's own numbers of each round, of one experiment or of all, oldest first. Answers [`Reply::Results`].
    Results {
        #[serde(default)]
        experiment: Option<ExperimentId>,
    },
    /// Answers [`Reply::Config`].
    Config,
    /// The last lines of the audit log. Answers [`Reply::Audit`].
    AuditTail {
        lines: usize,
    },
    /// Checks the chain of the audit log. Answers [`Reply::AuditVerified`].
    AuditVerify,
}

/// A dataset to register.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDataset {
    pub name: String,
    pub data_type: DataType,
    /// Absolute: the daemon's working folder is not the caller's.
    pub path: PathBuf,
    pub tags: Vec<String>,
    pub description: String,
    /// The type's own parameters, as in the dataset file (`dataset_parameters`); null for none.
    #[serde(default)]
    pub parameters: serde_json::Value,
    /// Researchers that see the dataset; empty: all that are enrolled.
    #[serde(default)]
    pub visible_to: Vec<ResearcherId>,
}

/// What to change about a dataset; absent keeps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatasetChanges {
    pub name: Option<String>,
    pub tags: Option<Vec<String>>,
    pub description: Option<String>,
    /// Another place of the data; the file is read anew.
    pub path: Option<PathBuf>,
    /// Researchers that see the dataset; an empty list: all that are enrolled.
    pub visible_to: Option<Vec<ResearcherId>>,
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reply", deny_unknown_fields)]
pub enum Reply {
    /// It is done; a sentence for the person.
    Done {
        sentence: String,
    },
    /// It cannot be done; a sentence for the person. [`run`] turns it into [`CommandError::Failed`].
    Failed {
        sentence: String,
    },
    Status {
        status: Box<Status>,
    },
    Enrolments {
        rows: Vec<EnrolmentRow>,
    },
    Certificates {
        rows: Vec<CertificateRow>,
    },
    /// The file to send to the researcher, and what to read out by phone.
    SigningRequest {
        text: String,
        key_fingerprint: String,
    },
    Tasks {
        rows: Vec<TaskRow>,
    },
    Datasets {
        rows: Vec<DatasetRow>,
    },
    Dataset {
        detail: Box<DatasetDetail>,
    },
    Peers {
        rows: Vec<PeerRow>,
    },
    Parties {
        rows: Vec<Registration>,
    },
    Certificate {
        pem: String,
    },
    Results {
        rows: Vec<ResultRow>,
    },
    Config {
        rows: Vec<ConfigRow>,
    },
    Audit {
        rows: Vec<AuditRow>,
    },
    AuditVerified {
        lines: u64,
    },
}

/// How a node is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub id: NodeId,
    pub name: String,
    /// The software's version.
    pub version: String,
    /// Process id of the daemon; absent when none runs.
    pub process: Option<u32>,
    /// Since when the daemon runs, RFC 3339.
    pub since: Option<String>,
    pub paused: bool,
    pub running: Option<RunningTask>,
    /// Accepted tasks that wait for their turn.
    pub waiting: u64,
    pub datasets: u64,
    pub researchers: Vec<EnrolmentRow>,
    /// Bytes on disk in spool and node state, and how many are allowed.
    pub storage_bytes: u64,
    pub storage_quota: u64,
}

/// What the node computes now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunningTask {
    pub task: TaskId,
    pub experiment: ExperimentId,
    pub round: u32,
    /// Updates done, and in all.
    pub done: u64,
    pub total: u64,
}

/// A researcher with whom the node is enrolled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnrolmentRow {
    pub researcher: ResearcherId,
    pub address: String,
    /// `connected`, `connecting: <why not yet>`, `forbidden`, `not running`.
    pub state: String,
    pub allowed: bool,
    /// RFC 3339.
    pub enrolled: String,
    /// When the node's certificate ends, RFC 3339.
    pub certificate_until: String,
    /// SHA-256 fingerprint of the researcher's CA, to compare by phone.
    pub ca_fingerprint: String,
}

/// A certificate of this node, or a request for one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CertificateRow {
    /// `good`, `to be renewed`, `expired`, `requested`.
    pub state: String,
    pub node: NodeId,
    /// SHA-256 fingerprint of the node's key, to compare by phone.
    pub key_fingerprint: String,
    /// Absent, as is what follows, until a researcher has answered.
    pub researcher: Option<ResearcherId>,
    pub address: Option<String>,
    /// SHA-256 fingerprint of the researcher's CA, to compare by phone.
    pub ca_fingerprint: Option<String>,
    /// RFC 3339.
    pub good_from: Option<String>,
    pub good_until: Option<String>,
}

/// A line of the task journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRow {
    pub task: TaskId,
    pub researcher: ResearcherId,
    pub requester: String,
    pub experiment: ExperimentId,
    pub round: u32,
    pub attempt: u32,
    /// `sums`, `squared_differences`, `train`, `validate`, or an exchange of secure aggregation: `agree`, `prepare`, `attest`,
    /// `reveal`.
    pub work: String,
    pub dataset: DatasetId,
    /// `accepted`, `running`, `computed`, `answered`, `refused`, `out_of_range`, `settled`.
    pub state: String,
    pub refusal: Option<RefusalCode>,
    /// Bytes of the contribution, once computed.
    pub bytes: Option<u64>,
    /// RFC 3339.
    pub accepted: String,
    pub updated: String,
}

/// A registered dataset, as its owner sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetRow {
    pub id: DatasetId,
    pub name: String,
    pub data_type: DataType,
    pub tags: Tags,
    pub rows: u64,
    pub description: String,
    pub path: PathBuf,
    /// `ready`, `changed` (run `dataset refresh`), `missing`.
    pub state: String,
}

/// All about one dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetDetail {
    #[serde(flatten)]
    pub row: DatasetRow,
    pub columns: Vec<ColumnFace>,
    /// Bytes of the file or files.
    pub bytes: u64,
    /// BLAKE3 digest of the content.
    pub digest: String,
    pub parameters: serde_json::Value,
    /// Empty: all enrolled researchers.
    pub visible_to: Vec<ResearcherId>,
    /// RFC 3339.
    pub registered: String,
}

/// Another node of a federation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerRow {
    pub researcher: ResearcherId,
    pub node: NodeId,
    /// A note for people.
    pub name: Option<String>,
    /// SHA-256 fingerprint of its key, to compare by phone.
    pub fingerprint: String,
    /// Who says that the key is the node's: `enrolment` (the researcher), `hand` (this hospital); `distrusted`.
    pub trust: String,
    /// RFC 3339.
    pub since: String,
}

/// What a task gave at this node. Under secure aggregation only the node knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultRow {
    pub researcher: ResearcherId,
    pub experiment: ExperimentId,
    pub round: u32,
    pub attempt: u32,
    /// `sums`, `squared_differences`, `train`, `validate`.
    pub work: String,
    pub training_round: Option<u32>,
    pub dataset: DatasetId,
    /// Whether the contribution was masked.
    pub hidden: bool,
    pub train_rows: u64,
    pub test_rows: u64,
    pub dropped_rows: u64,
    pub loss: Option<f64>,
    /// How many elements of the model were moved into the range of a hidden sum.
    pub clipped: Option<u64>,
    pub measured: Vec<Measured>,
    pub remarks: Vec<String>,
    pub work_ms: u64,
    /// RFC 3339.
    pub time: String,
}

/// A key of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigRow {
    /// `section.key`.
    pub key: String,
    pub value: serde_json::Value,
    /// `default`, `file` or `environment FBM_…`.
    pub source: String,
    pub meaning: String,
}

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditRow {
    pub time: String,
    pub event: String,
    pub facts: serde_json::Map<String, serde_json::Value>,
}
