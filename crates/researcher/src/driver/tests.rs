//! A daemon that dies at any commit goes on, and ends with the same bits.

use std::collections::VecDeque;
use std::path::Path;

use component::audit::AuditLog;
use protocol::{
    BlobRef, ColumnFace, ColumnKind, DataType, DatasetId, Digest, Encoding, Family, ModelSpec, OnFailure, OptimizerSpec,
    Patience, Plan, Precision, RawExperimentSpec, RawTrainingPlan, RefusalCode, ResearcherId, RowCount, Selection, Tags,
    Task, TrainingArguments, TrainingPlan, Validation,
};
use rand::SeedableRng;
use transport::blob::{Chunk, PartialFile};
use transport::clock::ManualClock;
use transport::identity::SecretKey;

use super::*;
use crate::board::Board;
use crate::command::ExperimentState;
use crate::files::Files;
use crate::sessions::Sessions;
use component::blocking::Blocking;

const NODES: usize = 3;

fn spec(precision: Precision) -> ExperimentSpec {
    let plan = TrainingPlan::new(RawTrainingPlan {
        model: ModelSpec::new(Family::Linear, 0.0).unwrap(),
        precision,
        features: vec![],
        target: "y".into(),
        optimizer: OptimizerSpec::Sgd { learning_rate: 0.1, momentum: 0.0 },
        arguments: TrainingArguments { test_ratio: 0.25, ..TrainingArguments::default() },
        standardise: true,
        validation: Validation::default(),
    });
    ExperimentSpec::new(RawExperimentSpec {
        name: "crash".into(),
        selection: Selection::Tags(Tags::new(["t"]).unwrap()),
        nodes: None,
        plan: Plan::Training(plan.unwrap()),
        rounds: 2,
        patience: Patience { on_failure: OnFailure::Retry, min_nodes: 3, ..Patience::default() },
        secure: protocol::SecureSpec::NONE,
    })
    .unwrap()
}

/// A node that keeps its tasks, as the real one does in its journal.
struct Node {
    id: NodeId,
    number: u32,
    held: BTreeMap<TaskId, Task>,
    /// Refuses the first task of training once, to have a retry in the run.
    is_moody: bool,
}

impl Node {
    /// Values that depend on nothing but the node, the round and the place.
    fn contribution(&self, task: &Task) -> Vec<u8> {
        let mut bytes = Vec::new();
        for spec in &task.layout {
            let value = |place: usize| {
                let place = u32::try_from(place).unwrap();
                let whole = f64::from(1 + (place + self.number * 7 + task.key.round) % 13);
                if spec.encoding == Encoding::COUNT { whole } else { whole / 3.0 }
            };
            let values = (0..spec.elements().unwrap()).map(value);
            spec.encoding.encode(values, &mut bytes).unwrap();
        }
        bytes
    }
}

/// What lasts: the disk and the nodes.
struct World {
    dir: tempfile::TempDir,
    nodes: Vec<Node>,
    spec: ExperimentSpec,
    id: Option<ExperimentId>,
}

impl World {
    fn new(precision: Precision) -> Self {
        let mut rng = StdRng::seed_from_u64(1);
        let node = |number: usize| Node {
            id: NodeId::random(&mut rng),
            number: u32::try_from(number).unwrap(),
            held: BTreeMap::new(),
            is_moody: number == 1,
        };
        let nodes = (0..NODES).map(node).collect();
        Self { dir: folder(), nodes, spec: spec(precision), id: None }
    }
}

/// A temporary folder in memory where the machine has one: hundreds of runs would wait for a disk.
fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A daemon's process.
struct Process {
    driver: Driver,
    mailbox: mpsc::Receiver<Mail>,
    inboxes: Vec<mpsc::Receiver<ResearcherMessage>>,
    /// What nodes have said and the driver has not heard.
    said: VecDeque<Mail>,
}

fn desk(dir: &Path) -> (Arc<Desk>, mpsc::Receiver<Mail>) {
    let files = Files { spool: dir.join("spool"), experiments: dir.join("experiments") };
    std::fs::create_dir_all(&files.spool).unwrap();
    let (mailbox, mail) = mpsc::channel(MAILBOX);
    let desk = Desk {
        researcher: ResearcherId::random(&mut StdRng::seed_from_u64(2)),
        store: Arc::new(std::sync::Mutex::new(Store::open_for_simulation(&dir.join("store.sqlite")).unwrap())),
        files,
        audit: AuditLog::open(&dir.join("audit.jsonl")).unwrap(),
        task_key: SecretKey::generate(),
        clock: Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000))),
        blocking: Blocking::Inline,
        sessions: Sessions::default(),
        board: Arc::new(Board::default()),
        spool_quota_bytes: 1 << 30,
        modulus: secagg::joye_libert::Group::default(),
        direct: None,
        mailbox,
    };
    (Arc::new(desk), mail)
}

/// When the process dies, if it does: before the n-th transaction, or after it with none of its actions done.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Death {
    Never,
    Before(usize),
    After(usize),
}

impl Process {
    async fn start(world: &mut World, seed: u64) -> Self {
        let (desk, mailbox) = desk(world.dir.path());
        let mut driver = Driver::new(desk.clone(), StdRng::seed_from_u64(seed));
        driver.take_up().await.unwrap();
        let mut said = VecDeque::new();
        let mut inboxes = Vec::new();
        for node in &world.nodes {
            let (_, inbox) = desk.sessions.open(&node.id, "node", desk.clock.now());
            inboxes.push(inbox);
            said.push_back(Mail::Connected {
                node: node.id.clone(),
                name: format!("node {}", node.number),
                held: node.held.keys().cloned().collect(),
                keyed: Vec::new(),
            });
        }
        if world.id.is_none() {
            let (answer, _) = oneshot::channel();
            let requester = Requester { user: "ada".into() };
            said.push_back(Mail::Run { spec: Box::new(world.spec.clone()), requester, answer });
        }
        Self { driver, mailbox, inboxes, said }
    }

    /// Runs until the experiment has ended (true) or the process has died; counts transactions.
    async fn run(mut self, world: &mut World, death: Death, commits: &mut usize) -> bool {
        loop {
            let mut batch = Batch::default();
            let Some(mail) = self.next(world).await else { panic!("everybody waits for somebody else") };
            if let Mail::Ended { ended } = &mail {
                assert_eq!(ended.state, ExperimentState::Finished, "{:?}", ended.reason);
                return true;
            }
            self.driver.take(mail, &mut batch);
            if let Some(id) = self.driver.experiments.keys().next() {
                world.id.get_or_insert_with(|| id.clone());
            }
            if batch.changed.is_empty() {
                continue;
            }
            *commits += 1;
            if death == Death::Before(*commits) {
                // The very first step is not on the disk: nobody has been told that the experiment exists.
                if world.stored().is_none() {
                    world.id = None;
                }
                return false;
            }
            if death == Death::After(*commits) {
                let saved = Driver::saved(&self.driver.experiments, &batch);
                self.driver.commit(saved, batch.durability()).await.unwrap();
                return false;
            }
            self.driver.finish(batch).await.unwrap();
        }
    }

    /// The next thing that the driver hears: nodes first, then jobs.
    async fn next(&mut self, world: &mut World) -> Option<Mail> {
        for _ in 0..20 {
            self.hear(world);
            if let Some(mail) = self.said.pop_front() {
                return Some(mail);
            }
            if let Ok(mail) = self.mailbox.try_recv() {
                return Some(mail);
            }
            tokio::task::yield_now().await;
        }
        None
    }

    fn hear(&mut self, world: &mut World) {
        for (node, inbox) in world.nodes.iter_mut().zip(&mut self.inboxes) {
            while let Ok(message) = inbox.try_recv() {
                match message {
                    ResearcherMessage::Search { request, .. } => {
                        let Some(Asker::Experiment(experiment)) = self.driver.desk.sessions.answered(&node.id, &request)
                        else {
                            continue;
                        };
                        self.said.push_back(Mail::Found {
                            experiment,
                            node: node.id.clone(),
                            datasets: vec![face(node.number)],
                        });
                    }
                    ResearcherMessage::Task { task, .. } => {
                        node.held.insert(task.id.clone(), (*task).clone());
                        self.said.push_back(work(node, &task, &self.driver.desk.files));
                    }
                    ResearcherMessage::Cancel { task, refusal } => {
                        self.said.push_back(Mail::Refused { node: node.id.clone(), task, refusal });
                    }
                    ResearcherMessage::Over { .. } => {}
                    ResearcherMessage::Settled { task } => {
                        node.held.remove(&task);
                    }
                }
            }
        }
    }
}

fn face(number: u32) -> DatasetFace {
    let column = |name: &str| ColumnFace { name: name.into(), kind: ColumnKind::Real };
    DatasetFace {
        id: DatasetId::random(&mut StdRng::seed_from_u64(u64::from(number))),
        name: "d".into(),
        data_type: DataType::Csv,
        tags: Tags::new(["t"]).unwrap(),
        description: String::new(),
        rows: RowCount::Hidden,
        columns: vec![column("a"), column("b"), column("y")],
        levels: BTreeMap::new(),
    }
}

/// Does a task: uploads, or refuses if it is in the mood.
fn work(node: &mut Node, task: &Task, files: &Files) -> Mail {
    if node.is_moody && task.key.round == 2 {
        node.is_moody = false;
        let refusal = Refusal::new(RefusalCode::DatasetUnreadable, "not now");
        return Mail::Refused { node: node.id.clone(), task: task.id.clone(), refusal };
    }
    let bytes = node.contribution(task);
    let blob = BlobRef { digest: Digest::of(&bytes), bytes: bytes.len() as u64 };
    let mut file = PartialFile::open(&files.contribution(&task.id), blob).unwrap();
    let have = usize::try_from(file.have()).unwrap();
    for chunk in bytes[have..].chunks(transport::blob::CHUNK_BYTES) {
        file.append(&Chunk::new(file.have(), chunk.to_vec())).unwrap();
    }
    file.finish().unwrap();
    let header = UploadHeader { task: task.id.clone(), digest: blob.digest, bytes: blob.bytes, report: None };
    let (answer, _) = oneshot::channel();
    Mail::Contributed { node: node.id.clone(), header, answer }
}

impl World {
    fn store(&self) -> Store {
        Store::open_for_simulation(&self.dir.path().join("store.sqlite")).unwrap()
    }

    fn stored(&self) -> Option<Experiment> {
        self.store().experiments().unwrap().pop()
    }

    /// Runs to the end with a death on the way; returns the model's digest and how many transactions there were.
    async fn play(&mut self, death: Death) -> (Digest, usize) {
        let mut commits = 0;
        let process = Process::start(self, 1).await;
        if !process.run(self, death, &mut commits).await {
            let process = Process::start(self, 2).await;
            assert!(process.run(self, Death::Never, &mut commits).await);
        }
        let id = self.id.clone().unwrap();
        let ended = self.store().ended(&id).unwrap().expect("its end is in the store");
        let records = self.store().records(&id, 0).unwrap();
        assert_eq!(records.iter().map(|record| record.round).collect::<Vec<_>>(), [0, 1, 2, 3, 4], "each round once");
        assert!(records.iter().all(|record| record.nodes.len() == NODES));
        let left: Vec<_> = std::fs::read_dir(self.dir.path().join("spool")).unwrap().collect();
        assert!(left.is_empty(), "the spool is empty: {left:?}");
        assert!(self.nodes.iter().all(|node| node.held.is_empty()) || death != Death::Never, "every task is settled");
        (Digest::of(&std::fs::read(ended.model.unwrap()).unwrap()), commits)
    }
}

#[tokio::test]
async fn death_at_any_commit_changes_no_bit_of_the_model() {
    for precision in [Precision::Float32, Precision::Float64] {
        let (expected, commits) = World::new(precision).play(Death::Never).await;
        assert!(commits > 15, "{commits}");
        for commit in 1..=commits {
            for death in [Death::Before(commit), Death::After(commit)] {
                let (found, _) = World::new(precision).play(death).await;
                assert_eq!(found, expected, "{death:?} of {commits}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_loss_of_power_took_from_the_disk_is_asked_for_or_written_again() {
    let (expected, commits) = World::new(Precision::Float64).play(Death::Never).await;
    for commit in 2..commits {
        let mut world = World::new(Precision::Float64);
        let mut count = 0;
        let process = Process::start(&mut world, 1).await;
        process.run(&mut world, Death::After(commit), &mut count).await;
        let experiments = std::fs::read_dir(world.dir.path().join("experiments")).into_iter().flatten();
        let models = experiments.map(|experiment| experiment.unwrap().path().join("rounds"));
        for folder in models.chain([world.dir.path().join("spool")]).filter(|folder| folder.exists()) {
            for file in std::fs::read_dir(folder).unwrap() {
                std::fs::write(file.unwrap().path(), b"zeros, after a loss of power").unwrap();
            }
        }
        let (found, _) = world.play(Death::Never).await;
        assert_eq!(found, expected, "after {commit} of {commits}");
    }
}

#[test]
fn settlements_of_answers_wait_for_the_end_of_the_exchange() {
    let mut rng = StdRng::seed_from_u64(5);
    let experiment = ExperimentId::random(&mut rng);
    let settle = Action::Settle { node: NodeId::random(&mut rng), task: TaskId::random(&mut rng) };
    let batch = |is_large: bool, actions: &[Action]| Batch {
        is_large,
        actions: actions.iter().map(|action| (experiment.clone(), action.clone())).collect(),
        ..Batch::default()
    };
    for actions in [vec![settle.clone()], vec![settle.clone(), Action::Fold]] {
        let mut quiet = batch(false, &actions);
        assert_eq!(quiet.durability(), Durability::Durable);
        assert_eq!(quiet.take_settlements(), [(experiment.clone(), settle.clone())]);
        assert_eq!(quiet.durability(), Durability::Lazy, "nobody is told anything");
    }
    let search = Action::Search { node: NodeId::random(&mut rng), tags: None };
    for mut loud in [batch(true, std::slice::from_ref(&settle)), batch(false, &[settle.clone(), search])] {
        assert_eq!(loud.take_settlements(), []);
        assert_eq!(loud.durability(), Durability::Durable);
    }
}
