//! A researcher and nodes that answer as they are told, in one process on tokio's paused clock.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use component::audit::AuditLog;
use component::blocking::Blocking;
use component::database::CommitWatch;
use protocol::{
    BlobRef, Capability, ColumnFace, ColumnKind, DataType, DatasetFace, DatasetId, Digest, Encoding, ExperimentId,
    ExperimentSpec, Family, HeldTask, Hello, ModelSpec, NodeId, NodeMessage, OptimizerSpec, Patience, Plan, Precision,
    ProtocolVersion, RawExperimentSpec, RawTrainingPlan, Refusal, Report, Requester, ResearcherId, ResearcherMessage,
    RowCount, Selection, Tags, Task, Timestamp, TrainingArguments, TrainingPlan, UploadHeader, Validation,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use researcher::command::Reply;
use researcher::files::Files;
use researcher::service::Service;
use researcher::store::Store;
use researcher::{Parts, Researcher};
use transport::address::Address;
use transport::blob::PartialBlob;
use transport::clock::Clock;
use transport::host::{EnrolRequest, Enrolled, Host};
use transport::identity::{FederationCa, NodeIdentity, SecretKey, TaskKey};
use transport::link::{Link, LinkError, Session};
use transport::memory::{Faults, MemoryLink, MemoryServer};
use transport::token::EnrolmentToken;

/// Goes with tokio's clock, which the tests pause.
struct TokioClock(tokio::time::Instant);

impl Clock for TokioClock {
    #[expect(clippy::disallowed_methods, reason = "this is a clock")]
    fn now(&self) -> Timestamp {
        let elapsed = tokio::time::Instant::now() - self.0;
        Timestamp::from_millis(1_700_000_000_000).saturating_add(elapsed)
    }
}

/// What lasts when the researcher's process ends.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) server: MemoryServer<Service>,
    clock: Arc<dyn Clock>,
    id: ResearcherId,
    ca: (String, transport::secret::SecretText),
    task_key: transport::secret::SecretText,
    lives: u64,
    pub(crate) quota: u64,
    /// Has its hand on the commits of the next process.
    pub(crate) watch: Option<CommitWatch>,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "the clock begins here")]
    pub(crate) fn new() -> Self {
        let mut rng = StdRng::seed_from_u64(1);
        let dir = tempfile::tempdir().unwrap();
        let id = ResearcherId::random(&mut rng);
        let clock: Arc<dyn Clock> = Arc::new(TokioClock(tokio::time::Instant::now()));
        let ca = FederationCa::create(&id, clock.now(), Duration::from_hours(24 * 365), &mut rng).unwrap();
        let ca = (ca.certificate().to_pem(), ca.key_pem());
        std::fs::create_dir(dir.path().join("spool")).unwrap();
        let task_key = SecretKey::generate().to_pem();
        Self { dir, server: MemoryServer::default(), clock, id, ca, task_key, lives: 0, quota: 1 << 20, watch: None }
    }

    /// Starts the researcher's process.
    pub(crate) async fn start(&mut self) -> Researcher {
        self.lives += 1;
        let path = |name: &str| self.dir.path().join(name);
        let mut store = Store::open_for_simulation(&path("store.sqlite")).unwrap();
        if let Some(watch) = self.watch.take() {
            store.watch_commits(watch);
        }
        let researcher = Researcher::start(Parts {
            id: self.id.clone(),
            store,
            files: Files { spool: path("spool"), experiments: path("experiments") },
            audit: AuditLog::open(&path("audit.jsonl")).unwrap(),
            ca: FederationCa::from_pem(&self.ca.0, &self.ca.1).unwrap(),
            task_key: SecretKey::from_pem(&self.task_key).unwrap(),
            certificate_validity: Duration::from_hours(24 * 90),
            spool_quota_bytes: self.quota,
            modulus: None,
            negotiating: None,
            clock: self.clock.clone(),
            blocking: Blocking::Inline,
            rng: StdRng::seed_from_u64(self.lives),
        })
        .await
        .unwrap();
        self.server.start(researcher.service().clone());
        researcher
    }

    /// The events in the audit log.
    pub(crate) fn audited(&self, event: &str) -> usize {
        let log = self.dir.path().join("audit.jsonl");
        AuditLog::verify(&log).unwrap();
        AuditLog::tail(&log, usize::MAX).unwrap().iter().filter(|entry| entry.event == event).count()
    }

    /// A way of its own for a node.
    fn way(&self, node: &NodeId, fingerprint: [u8; 32]) -> Arc<MemoryLink<Service>> {
        Arc::new(self.server.link(node.clone(), fingerprint, Faults::default(), StdRng::seed_from_u64(1)))
    }

    /// The same node on another connection.
    pub(crate) fn again(&self, node: &FakeNode) -> FakeNode {
        FakeNode {
            link: self.way(&node.id, node.fingerprint),
            id: node.id.clone(),
            task_key: node.task_key.clone(),
            folder: node.folder.clone(),
            ..*node
        }
    }

    /// Invites and enrols a node, and opens its way.
    pub(crate) async fn node(&self, researcher: &Researcher, number: u64) -> FakeNode {
        let name = format!("hospital {number}");
        let address = Address::parse("researcher.example.org").unwrap();
        let invited = researcher.invite(&name, address, Duration::from_hours(1)).await.unwrap();
        let identity = NodeIdentity::create(NodeId::random(&mut StdRng::seed_from_u64(100 + number)));
        let enrolled = enrol(researcher, &identity, &invited.token).await.unwrap();
        let certificate = transport::identity::Certificate::from_der(&enrolled.certificate).unwrap();
        let fingerprint = *certificate.key_fingerprint().as_bytes();
        let link = self.way(identity.node(), fingerprint);
        let task_key = TaskKey::from_point(&enrolled.task_key).unwrap();
        FakeNode { number, link, id: identity.node().clone(), fingerprint, task_key, folder: self.dir.path().to_owned() }
    }
}

pub(crate) async fn enrol(researcher: &Researcher, identity: &NodeIdentity, token: &str) -> Result<Enrolled, Refusal> {
    let token = EnrolmentToken::parse(token).unwrap();
    let request = EnrolRequest {
        secret: token.secret().clone(),
        node: identity.node().clone(),
        name: "n".into(),
        csr: identity.signing_request().unwrap(),
    };
    researcher.service().enrol(request, "test").await
}

/// What a node does with a task.
pub(crate) enum Answer {
    Contribute,
    Refuse(Refusal),
    Keep,
}

pub(crate) struct FakeNode {
    pub(crate) id: NodeId,
    fingerprint: [u8; 32],
    pub(crate) number: u64,
    pub(crate) link: Arc<MemoryLink<Service>>,
    task_key: TaskKey,
    folder: std::path::PathBuf,
}

impl FakeNode {
    pub(crate) async fn connect(&self, held: Vec<HeldTask>) -> Result<Session, LinkError> {
        let hello = Hello {
            protocol: ProtocolVersion::CURRENT,
            software: "test".into(),
            capabilities: Capability::current(),
            name: "as the node says".into(),
            held,
            keyed: Vec::new(),
        };
        self.link.connect(hello).await
    }

    pub(crate) fn face(&self) -> DatasetFace {
        let column = |name: &str| ColumnFace { name: name.into(), kind: ColumnKind::Real };
        DatasetFace {
            id: DatasetId::random(&mut StdRng::seed_from_u64(self.number)),
            name: "cohort".into(),
            data_type: DataType::Csv,
            tags: Tags::new(["t"]).unwrap(),
            description: String::new(),
            rows: RowCount::Rounded(100),
            columns: vec![column("a"), column("b"), column("y")],
            levels: std::collections::BTreeMap::new(),
        }
    }

    /// Answers until the connection ends.
    pub(crate) async fn live(&self, mut session: Session, mut answer: impl FnMut(&Task) -> Answer) {
        while let Some(Ok(message)) = session.inbox.recv().await {
            let reply = match message {
                ResearcherMessage::Search { request, .. } => {
                    Some(NodeMessage::Found { request, datasets: vec![self.face()] })
                }
                ResearcherMessage::Task { task, signature } => {
                    self.task_key.verify(&task, &signature).unwrap();
                    assert_eq!(task.node, self.id);
                    match answer(&task) {
                        Answer::Contribute => {
                            // A contribution that comes too late is refused; the tests that care upload by themselves.
                            let _ = self.contribute(&task).await;
                            None
                        }
                        Answer::Refuse(refusal) => Some(NodeMessage::Refused { task: task.id, refusal }),
                        Answer::Keep => Some(NodeMessage::Accepted { task: task.id }),
                    }
                }
                ResearcherMessage::Cancel { task, refusal } => Some(NodeMessage::Refused { task, refusal }),
                ResearcherMessage::Settled { .. } | ResearcherMessage::Over { .. } => None,
            };
            if let Some(reply) = reply
                && session.outbox.send(reply).await.is_err()
            {
                return;
            }
        }
    }

    /// Fetches the model if there is one, and uploads values that depend on the node, the round and the place.
    pub(crate) async fn contribute(&self, task: &Task) -> Result<(), LinkError> {
        if let Some(model) = task.model {
            let mut blob = PartialBlob::new(model);
            self.link.download(&mut blob).await?;
            protocol::Tensors::from_bytes(&blob.finish().unwrap()).unwrap();
        }
        let mut bytes = Vec::new();
        for spec in &task.layout {
            let value = |place: usize| {
                let whole = (1 + (place as u64 + self.number * 7 + u64::from(task.key.round)) % 13) as f64;
                if spec.encoding == Encoding::COUNT { whole } else { whole / 3.0 }
            };
            spec.encoding.encode((0..spec.elements().unwrap()).map(value), &mut bytes).unwrap();
        }
        let path = self.folder.join(format!("node-{}-{}", self.number, task.id));
        std::fs::write(&path, &bytes).unwrap();
        let report = Some(Report { train_rows: 10, loss: Some(0.5), ..Report::default() });
        let blob = BlobRef { digest: Digest::of(&bytes), bytes: bytes.len() as u64 };
        let header = UploadHeader { task: task.id.clone(), digest: blob.digest, bytes: blob.bytes, report };
        self.upload(&header, &path).await
    }

    pub(crate) async fn upload(&self, header: &UploadHeader, path: &Path) -> Result<(), LinkError> {
        self.link.upload(header, path).await
    }
}

pub(crate) fn spec(rounds: u32, patience: Patience) -> ExperimentSpec {
    let plan = TrainingPlan::new(RawTrainingPlan {
        model: ModelSpec::new(Family::Linear, 0.0).unwrap(),
        precision: Precision::Float32,
        features: vec![],
        target: "y".into(),
        optimizer: OptimizerSpec::Sgd { learning_rate: 0.1, momentum: 0.0 },
        arguments: TrainingArguments::default(),
        standardise: true,
        validation: Validation::default(),
    });
    ExperimentSpec::new(RawExperimentSpec {
        name: "heart".into(),
        selection: Selection::Tags(Tags::new(["t"]).unwrap()),
        nodes: None,
        plan: Plan::Training(plan.unwrap()),
        rounds,
        patience,
        secure: protocol::SecureSpec::NONE,
    })
    .unwrap()
}

pub(crate) fn ada() -> Requester {
    Requester { user: "ada".into() }
}

/// All lines of an experiment's stream.
pub(crate) async fn follow(researcher: &Researcher, id: &ExperimentId) -> Vec<Reply> {
    let mut follower = researcher.follow(id).await.unwrap();
    let mut replies = Vec::new();
    while let Some(reply) = follower.next().await.unwrap() {
        replies.push(reply);
    }
    replies
}
