//! A node in a temporary folder, and a researcher played by the test.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use component::blocking::Blocking;
use component::folder::{ComponentFolder, Kind};
use component::keystore::{KeyStore, Secret};
use learning::{initial, parameters, training_layout, validation_layout};
use node::agent::{Agent, AgentHandle};
use node::command::NewDataset;
use node::handle::{NodeHandle, Surroundings, create_with};
use node::store::Enrolment;
use node::workshop::Workshop;
use protocol::{
    BlobRef, DataType, DatasetId, Digest, ExperimentId, Family, Hello, ModelSpec, NodeId, NodeMessage, OptimizerSpec, Plan,
    Precision, Progress, ProtocolVersion, RawTrainingPlan, Refusal, Requester, ResearcherId, ResearcherMessage, RoundKey,
    Task, TaskId, Timestamp, TrainingArguments, TrainingPlan, UploadHeader, Validation, VectorSpec, Welcome, Work,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use transport::address::Address;
use transport::blob::{Chunk, PartialBlob};
use transport::clock::ManualClock;
use transport::identity::{FederationCa, NodeIdentity, SecretKey, TaskKey};
use transport::link::{Link, LinkError, Session};

/// Some columns of the heart-disease files.
pub(crate) const FEATURES: [&str; 4] = ["age", "sex", "thalach", "oldpeak"];

pub(crate) struct World {
    _dir: tempfile::TempDir,
    pub(crate) folder: ComponentFolder,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) researcher: ResearcherId,
    pub(crate) experiment: ExperimentId,
    authority: FederationCa,
    node: NodeId,
    task_key: SecretKey,
    rng: StdRng,
    /// Seeds the node's generator; another one at each opening if `is_one_of_many`.
    seed: Cell<u64>,
    is_one_of_many: bool,
    pub(crate) env: Vec<(String, String)>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(None)
    }

    /// One of several nodes of one federation, each with its own id and chance.
    pub(crate) fn numbered(number: u64) -> Self {
        Self::with(Some(number))
    }

    fn with(number: Option<u64>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("hospital-north");
        let mut rng = StdRng::seed_from_u64(11);
        let node = match number {
            Some(number) => create_with(&root, "North", &mut StdRng::seed_from_u64(number)),
            None => create_with(&root, "North", &mut rng),
        };
        let node = node.unwrap();
        let now = Timestamp::from_millis(1_700_000_000_000);
        let researcher = ResearcherId::random(&mut rng);
        Self {
            _dir: dir,
            folder: ComponentFolder::open(&root, Kind::Node).unwrap(),
            clock: Arc::new(ManualClock::at(now)),
            authority: FederationCa::create(&researcher, now, Duration::from_hours(240), &mut rng).unwrap(),
            experiment: ExperimentId::random(&mut rng),
            researcher,
            node,
            task_key: SecretKey::generate(),
            rng,
            seed: Cell::new(number.map_or(5, |number| 1_000 * number)),
            is_one_of_many: number.is_some(),
            env: Vec::new(),
        }
    }

    /// Opens the node, as a daemon that starts does.
    pub(crate) fn node(&self) -> Arc<NodeHandle> {
        let env = |name: &str| self.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let rng = StdRng::seed_from_u64(self.seed.get());
        self.seed.set(self.seed.get() + u64::from(self.is_one_of_many));
        let surroundings = Surroundings { clock: self.clock.clone(), rng, env: &env, waits_for_disk: false };
        Arc::new(NodeHandle::open_in(&self.folder, surroundings).unwrap())
    }

    /// Enrols the node with the researcher, without the network.
    pub(crate) fn enrol(&mut self, node: &NodeHandle) -> Enrolment {
        let identity = NodeIdentity::create(node.id().clone());
        let request = identity.signing_request().unwrap();
        let validity = Duration::from_hours(240);
        let certificate = self.authority.issue_node(&request, node.id(), node.now(), validity, &mut self.rng).unwrap();
        let enrolment = Enrolment {
            researcher: self.researcher.clone(),
            address: Address::parse("researcher.example:50051").unwrap(),
            authority: self.authority.certificate().clone(),
            certificate,
            task_key: TaskKey::from_point(self.task_key.public_point()).unwrap(),
            allowed: true,
            enrolled: node.now(),
        };
        node.store().save_enrolment(&enrolment).unwrap();
        let digits = enrolment.certificate.key_fingerprint().to_string().replace(' ', "").to_lowercase();
        let name = format!("{}.{}.key", self.researcher, &digits[..16]);
        let key = Secret::new(identity.key_pem().expose().to_owned());
        KeyStore::new(self.folder.keys()).write(&name, &key).unwrap();
        enrolment
    }

    /// A copy of one of the heart-disease files, for the test to change.
    pub(crate) fn heart(&self, name: &str) -> PathBuf {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/heart-disease").join(name);
        let path = self.folder.root().join("data").join(name);
        std::fs::copy(source, &path).unwrap();
        path
    }

    pub(crate) fn sign(&self, task: &Task) -> Vec<u8> {
        self.task_key.sign_task(task)
    }

    pub(crate) fn task(
        &mut self,
        dataset: &DatasetId,
        plan: Plan,
        work: Work,
        model: Option<BlobRef>,
        layout: Vec<VectorSpec>,
    ) -> Task {
        Task {
            id: TaskId::random(&mut self.rng),
            node: self.node.clone(),
            key: RoundKey { experiment: self.experiment.clone(), round: 0, attempt: 0, phase: 0 },
            requester: Requester { user: "ada".into() },
            dataset: dataset.clone(),
            plan,
            work,
            model,
            layout,
            masking: None,
        }
    }

    /// A training task from the plan's first parameters, and their bytes.
    pub(crate) fn training_task(&mut self, dataset: &DatasetId, plan: &TrainingPlan) -> (Task, Vec<u8>) {
        let n_features = plan.features().len();
        let model = initial(plan.model(), plan.precision(), n_features, 1).unwrap().to_bytes();
        let blob = BlobRef { digest: Digest::of(&model), bytes: model.len() as u64 };
        let layout = training_layout(plan, n_features, None).unwrap();
        (self.task(dataset, Plan::Training(plan.clone()), Work::Train { training_round: 1 }, Some(blob), layout), model)
    }

    pub(crate) fn validation_task(&mut self, dataset: &DatasetId, plan: &TrainingPlan, model: &[u8]) -> Task {
        let blob = BlobRef { digest: Digest::of(model), bytes: model.len() as u64 };
        let layout = validation_layout(plan);
        self.task(dataset, Plan::Training(plan.clone()), Work::Validate, Some(blob), layout)
    }
}

pub(crate) fn heart_dataset(path: &Path, tags: &[&str]) -> NewDataset {
    NewDataset {
        name: "Heart".into(),
        data_type: DataType::Csv,
        path: path.to_owned(),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        description: String::new(),
        parameters: serde_json::Value::Null,
        visible_to: Vec::new(),
    }
}

pub(crate) fn raw_plan() -> RawTrainingPlan {
    RawTrainingPlan {
        model: ModelSpec::new(Family::Logistic, 0.0).unwrap(),
        precision: Precision::Float64,
        features: FEATURES.map(str::to_owned).to_vec(),
        target: "target".into(),
        optimizer: OptimizerSpec::Sgd { learning_rate: 1e-4, momentum: 0.0 },
        arguments: TrainingArguments { epochs: Some(2), test_ratio: 0.25, seed: 3, ..TrainingArguments::default() },
        standardise: false,
        validation: Validation { on_global: true, on_local: true },
    }
}

pub(crate) fn plan() -> TrainingPlan {
    TrainingPlan::new(raw_plan()).unwrap()
}

/// The number of parameters of the plan's model.
pub(crate) fn parameter_count(plan: &TrainingPlan) -> usize {
    parameters(plan.model(), plan.features().len()).iter().map(|parameter| parameter.elements().unwrap()).sum()
}

/// A contribution's vectors, decoded, in the layout's order.
pub(crate) fn decode(layout: &[VectorSpec], bytes: &[u8]) -> Vec<Vec<f64>> {
    let mut rest = bytes;
    let mut vectors = Vec::new();
    for spec in layout {
        let (own, after) = rest.split_at(spec.byte_len().unwrap());
        rest = after;
        let mut sums = protocol::Integers::zeros(spec.encoding.width, spec.elements().unwrap());
        assert!(sums.add(spec.encoding.width, own));
        vectors.push(sums.sums().map(|sum| spec.encoding.decode(sum)).collect());
    }
    assert!(rest.is_empty());
    vectors
}

/// A researcher that a test plays.
#[derive(Clone)]
pub(crate) struct Played {
    researcher: ResearcherId,
    state: Arc<Mutex<PlayedState>>,
    sessions: mpsc::UnboundedSender<PlayedSession>,
}

#[derive(Default)]
struct PlayedState {
    blobs: HashMap<Digest, Vec<u8>>,
    uploads: Vec<(UploadHeader, Vec<u8>)>,
    /// What uploads meet before one succeeds.
    obstacles: VecDeque<LinkError>,
    is_down: bool,
    /// What a connection meets.
    refusal: Option<Refusal>,
}

/// The researcher's end of one connection. Dropping it breaks the connection.
pub(crate) struct PlayedSession {
    pub(crate) hello: Hello,
    to_node: mpsc::Sender<Result<ResearcherMessage, LinkError>>,
    from_node: mpsc::Receiver<NodeMessage>,
}

impl Played {
    pub(crate) fn new(researcher: &ResearcherId) -> (Self, mpsc::UnboundedReceiver<PlayedSession>) {
        let (sessions, receiver) = mpsc::unbounded_channel();
        (Self { researcher: researcher.clone(), state: Arc::default(), sessions }, receiver)
    }

    fn state(&self) -> MutexGuard<'_, PlayedState> {
        self.state.lock().unwrap()
    }

    pub(crate) fn offer(&self, blob: &[u8]) {
        self.state().blobs.insert(Digest::of(blob), blob.to_vec());
    }

    pub(crate) fn obstruct(&self, error: LinkError) {
        self.state().obstacles.push_back(error);
    }

    pub(crate) fn clear_the_way(&self) {
        self.state().obstacles.clear();
    }

    pub(crate) fn set_down(&self, is_down: bool) {
        self.state().is_down = is_down;
    }

    pub(crate) fn refuse(&self, refusal: Option<Refusal>) {
        self.state().refusal = refusal;
    }

    pub(crate) fn uploads(&self) -> Vec<(UploadHeader, Vec<u8>)> {
        self.state().uploads.clone()
    }

    /// Waits, in virtual time, until so many uploads have come.
    pub(crate) async fn wait_for_uploads(&self, count: usize) -> Vec<(UploadHeader, Vec<u8>)> {
        for _ in 0..100_000 {
            if self.uploads().len() >= count {
                return self.uploads();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} of {count} uploads came", self.uploads().len());
    }
}

impl PlayedSession {
    pub(crate) async fn say(&self, message: ResearcherMessage) {
        self.to_node.send(Ok(message)).await.unwrap();
    }

    /// Gives a task with its signature.
    pub(crate) async fn give(&self, world: &World, task: &Task) {
        let signature = world.sign(task);
        self.say(ResearcherMessage::Task { task: Box::new(task.clone()), signature }).await;
    }

    /// The next message that is not progress.
    pub(crate) async fn hear(&mut self) -> NodeMessage {
        loop {
            let message = tokio::time::timeout(Duration::from_mins(10), self.from_node.recv()).await;
            match message.expect("the node says something").expect("the node is connected") {
                NodeMessage::Progress { .. } => {}
                message => return message,
            }
        }
    }

    /// The next word about how far the node is.
    pub(crate) async fn hear_progress(&mut self) -> Progress {
        loop {
            let message = tokio::time::timeout(Duration::from_mins(10), self.from_node.recv()).await;
            if let NodeMessage::Progress { progress, .. } = message.expect("it works").expect("the node is connected") {
                return progress;
            }
        }
    }

    pub(crate) async fn hear_refusal(&mut self, task: &Task) -> Refusal {
        match self.hear().await {
            NodeMessage::Refused { task: id, refusal } if id == task.id => refusal,
            other => panic!("expected a refusal, heard {other:?}"),
        }
    }

    pub(crate) async fn hear_accepted(&mut self, task: &Task) {
        assert_eq!(self.hear().await, NodeMessage::Accepted { task: task.id.clone() });
    }

    /// Whether nothing but progress is said for a virtual minute.
    pub(crate) async fn is_silent(&mut self) -> bool {
        loop {
            match tokio::time::timeout(Duration::from_mins(1), self.from_node.recv()).await {
                Err(_) => return true,
                Ok(Some(NodeMessage::Progress { .. })) => {}
                Ok(_) => return false,
            }
        }
    }
}

impl Link for Played {
    async fn connect(&self, hello: Hello) -> Result<Session, LinkError> {
        if self.state().is_down {
            return Err(LinkError::Unreachable("down".into()));
        }
        if let Some(refusal) = self.state().refusal.clone() {
            return Err(LinkError::Refused(refusal));
        }
        let (to_node, inbox) = mpsc::channel(64);
        let (outbox, from_node) = mpsc::channel(64);
        let welcome = Welcome {
            protocol: ProtocolVersion::CURRENT,
            software: "test".into(),
            capabilities: Vec::new(),
            researcher: self.researcher.clone(),
        };
        let session = PlayedSession { hello, to_node, from_node };
        self.sessions.send(session).map_err(|_| LinkError::Unreachable("the test is over".into()))?;
        Ok(Session { welcome, outbox, inbox })
    }

    async fn download(&self, into: &mut PartialBlob) -> Result<(), LinkError> {
        if self.state().is_down {
            return Err(LinkError::Unreachable("down".into()));
        }
        let bytes = self.state().blobs.get(&into.blob().digest).cloned();
        let bytes =
            bytes.ok_or_else(|| LinkError::Refused(Refusal::new(protocol::RefusalCode::TaskUnknown, "no such blob")))?;
        let start = usize::try_from(into.have()).unwrap();
        into.append(&Chunk::new(into.have(), bytes[start..].to_vec())).map_err(|error| LinkError::Broken(error.to_string()))
    }

    async fn upload(&self, header: &UploadHeader, file: &Path) -> Result<(), LinkError> {
        if let Some(error) = self.state().obstacles.pop_front() {
            return Err(error);
        }
        let bytes = std::fs::read(file).map_err(|error| LinkError::Spool(error.to_string()))?;
        assert_eq!(Digest::of(&bytes), header.digest, "what leaves is what was announced");
        self.state().uploads.push((header.clone(), bytes));
        Ok(())
    }
}

/// An agent that runs until it is dropped, as a process until it is killed.
pub(crate) struct RunningAgent {
    pub(crate) handle: AgentHandle,
    task: JoinHandle<()>,
}

impl RunningAgent {
    pub(crate) fn start(node: Arc<NodeHandle>, enrolment: Enrolment, link: Played) -> Self {
        Self::start_with(node, enrolment, link, Blocking::Inline)
    }

    pub(crate) fn start_with(node: Arc<NodeHandle>, enrolment: Enrolment, link: Played, blocking: Blocking) -> Self {
        Self::start_in(node, enrolment, link, Arc::new(Workshop::new(blocking, 1)))
    }

    pub(crate) fn start_in(node: Arc<NodeHandle>, enrolment: Enrolment, link: Played, workshop: Arc<Workshop>) -> Self {
        let agent = Agent::new(node, enrolment, Arc::new(link), workshop);
        let handle = agent.handle();
        let task = tokio::spawn(async move {
            agent.run().await.unwrap();
        });
        Self { handle, task }
    }

    /// Ends at once, as `kill -9` does.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}
