//! What holds in an experiment, whatever nodes do and in which order.

use std::collections::BTreeSet;

use component::database::Durability;
use protocol::{
    ColumnFace, ColumnKind, DataType, DatasetId, Family, ModelSpec, OnFailure, OptimizerSpec, Patience, Plan, Precision,
    Purpose, RawExperimentSpec, RawTrainingPlan, RefusalCode, RowCount, Selection, TrainingArguments, TrainingPlan,
    Validation, VectorSpec, Width,
};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::command::{ExperimentState, NodeProgress, RoundKind};
use crate::store::{Saved, Store};

mod patience;
mod random;
mod secure;
mod selecting;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn columns(names: &[&str]) -> Vec<ColumnFace> {
    let column = |name: &&str| {
        let kind = if *name == "split" { ColumnKind::Text } else { ColumnKind::Real };
        ColumnFace { name: (*name).to_owned(), kind }
    };
    names.iter().map(column).collect()
}

fn training(change: impl FnOnce(&mut RawTrainingPlan)) -> Plan {
    let mut raw = RawTrainingPlan {
        model: ModelSpec::new(Family::Linear, 0.0).unwrap(),
        precision: Precision::Float64,
        features: vec!["a".into(), "b".into()],
        target: "y".into(),
        optimizer: OptimizerSpec::Sgd { learning_rate: 0.1, momentum: 0.0 },
        arguments: TrainingArguments::default(),
        standardise: false,
        validation: Validation::default(),
    };
    change(&mut raw);
    Plan::Training(TrainingPlan::new(raw).unwrap())
}

fn spec(plan: Plan, rounds: u32, patience: Patience) -> ExperimentSpec {
    ExperimentSpec::new(RawExperimentSpec {
        name: "heart".into(),
        selection: Selection::Tags(Tags::new(["heart"]).unwrap()),
        nodes: None,
        plan,
        rounds,
        patience,
        secure: protocol::SecureSpec::NONE,
    })
    .unwrap()
}

/// An experiment, its nodes and a clock, without anything in between.
struct World {
    experiment: Experiment,
    nodes: Vec<NodeId>,
    now: Timestamp,
    rng: StdRng,
    /// The last task of each node that has not been cancelled or settled.
    tasks: BTreeMap<NodeId, Task>,
    /// All actions so far.
    log: Vec<Action>,
}

/// The experiment as it is after a restart.
fn stored(experiment: &Experiment) -> Experiment {
    let mut store = Store::in_memory().unwrap();
    store.save(&[Saved::new(experiment, Vec::new(), None)], Durability::Lazy).unwrap();
    store.experiment(experiment.id()).unwrap()
}

impl World {
    fn new(spec: ExperimentSpec, nodes: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(7);
        let now = Timestamp::from_millis(1_000_000);
        let nodes: Vec<NodeId> = (0..nodes).map(|_| NodeId::random(&mut rng)).collect();
        let id = ExperimentId::random(&mut rng);
        let experiment = Experiment::new(id, spec, Requester { user: "ada".into() }, now);
        let experiment = experiment.of_researcher(ResearcherId::random(&mut rng));
        Self { experiment, nodes, now, rng, tasks: BTreeMap::new(), log: Vec::new() }
    }

    /// With all nodes connected, chosen and asked for the first round.
    fn begun(spec: ExperimentSpec, nodes: usize) -> Self {
        let mut world = Self::new(spec, nodes);
        let connected = world.nodes.iter().map(|node| (node.clone(), name(node))).collect();
        world.apply(Event::Begun { connected });
        for node in world.nodes.clone() {
            let datasets = vec![world.face(&["a", "b", "y"])];
            world.apply(Event::Found { node, datasets });
        }
        world
    }

    fn face(&mut self, names: &[&str]) -> DatasetFace {
        DatasetFace {
            id: DatasetId::random(&mut self.rng),
            name: "d".into(),
            data_type: DataType::Csv,
            tags: Tags::new(["heart"]).unwrap(),
            description: String::new(),
            rows: RowCount::Rounded(100),
            columns: columns(names),
            levels: BTreeMap::new(),
        }
    }

    /// Applies an event; jobs are done at once.
    fn apply(&mut self, event: Event) -> Vec<Action> {
        let actions = self.apply_only(event);
        for action in &actions {
            match action {
                Action::Initialise => {
                    let model = BlobRef { digest: Digest::of(b"first"), bytes: 5 };
                    self.apply(Event::Initialised { model });
                }
                Action::Fold => {
                    let event = self.folded();
                    self.apply(event);
                }
                _ => {}
            }
        }
        actions
    }

    fn apply_only(&mut self, event: Event) -> Vec<Action> {
        let actions = self.experiment.apply(event, self.now, &mut self.rng);
        for action in &actions {
            match action {
                Action::Ask { node, task } => {
                    self.tasks.insert(node.clone(), (**task).clone());
                }
                Action::Cancel { node, task, .. } | Action::Settle { node, task }
                    if self.tasks.get(node).is_some_and(|open| open.id == *task) =>
                {
                    self.tasks.remove(node);
                }
                _ => {}
            }
        }
        self.log.extend(actions.iter().cloned());
        assert_eq!(stored(&self.experiment), self.experiment, "what is stored is all there is");
        actions
    }

    /// What a fold of the open round gives.
    fn folded(&self) -> Event {
        let round = self.experiment.round().unwrap();
        let sums = round.layout.iter().filter(|spec| spec.purpose != Purpose::Model).map(|spec| Vector {
            purpose: spec.purpose,
            name: spec.name.clone(),
            values: vec![10.0; spec.elements().unwrap()],
        });
        let models = round.layout.iter().filter(|spec| spec.purpose == Purpose::Model);
        let largest = models.map(|spec| (spec.name.clone(), 3.0)).collect::<BTreeMap<_, _>>();
        let model = (!largest.is_empty()).then(|| BlobRef { digest: Digest::of(&round.number.to_le_bytes()), bytes: 5 });
        let folded = Folded { sums: sums.collect(), model, largest };
        Event::Folded { round: round.number, attempt: round.attempt, folded }
    }

    fn task(&self, node: usize) -> TaskId {
        self.tasks[&self.nodes[node]].id.clone()
    }

    fn contribute(&mut self, node: usize) -> Vec<Action> {
        let (task, node) = (self.task(node), self.nodes[node].clone());
        self.apply(Event::Contributed { node, task, digest: Digest::of(b"c"), bytes: 1, report: None })
    }

    fn contribute_all(&mut self) {
        for node in 0..self.nodes.len() {
            if self.tasks.contains_key(&self.nodes[node]) {
                self.contribute(node);
            }
        }
    }

    fn refuse(&mut self, node: usize, code: RefusalCode) -> Vec<Action> {
        let (task, node) = (self.task(node), self.nodes[node].clone());
        self.apply(Event::Refused { node, task, refusal: Refusal::new(code, "no") })
    }

    fn connect(&mut self, node: usize) -> Vec<Action> {
        let node = self.nodes[node].clone();
        self.apply(Event::Connected { name: name(&node), node })
    }

    fn disconnect(&mut self, node: usize) {
        let node = self.nodes[node].clone();
        self.apply(Event::Disconnected { node });
    }

    /// Lets time pass to the next wish to be woken, or fails if there is none within this time.
    fn wait(&mut self, longest: Duration) {
        let wake = self.experiment.wake_at().expect("nothing is waited for");
        assert!(wake <= self.now.saturating_add(longest), "the next event is later");
        self.now = self.now.max(wake);
        self.apply(Event::Tick);
    }

    fn state(&self) -> ExperimentState {
        self.experiment.state()
    }

    fn reason(&self) -> String {
        self.experiment.end().and_then(|(_, reason)| reason).unwrap_or_default()
    }

    fn records(&self) -> Vec<&RoundRecord> {
        let records = self.log.iter().filter_map(|action| match action {
            Action::Record(record) => Some(&**record),
            _ => None,
        });
        records.collect()
    }

    fn round(&self) -> u32 {
        self.experiment.round().unwrap().number
    }
}

fn name(node: &NodeId) -> String {
    format!("hospital {}", node.short())
}

#[test]
fn a_training_plan_goes_through_standardisation_training_and_the_last_validation() {
    let plan = training(|raw| {
        raw.standardise = true;
        raw.arguments.test_ratio = 0.25;
    });
    let mut world = World::begun(spec(plan, 2, Patience::default()), 3);
    while world.state() == ExperimentState::Running {
        world.contribute_all();
    }
    assert_eq!(world.state(), ExperimentState::Finished, "{}", world.reason());
    let kinds: Vec<(u32, RoundKind)> = world.records().iter().map(|record| (record.round, record.kind)).collect();
    let expected =
        [RoundKind::Sums, RoundKind::SquaredDifferences, RoundKind::Training, RoundKind::Training, RoundKind::Validation];
    assert_eq!(
        kinds,
        expected.into_iter().enumerate().map(|(n, kind)| (u32::try_from(n).unwrap(), kind)).collect::<Vec<_>>()
    );
    assert!(world.tasks.is_empty(), "every task is settled");
    assert_eq!(world.experiment.row().round, world.experiment.row().rounds);
}

#[test]
fn a_statistic_ends_with_its_moments_and_has_no_model() {
    let plan = Plan::Statistic(protocol::StatisticPlan::Moments { columns: vec!["a".into()] });
    let mut world = World::begun(spec(plan, 1, Patience::default()), 2);
    world.contribute_all();
    world.contribute_all();
    assert_eq!(world.state(), ExperimentState::Finished);
    let moments = &world.experiment.moments().unwrap()[0];
    assert_eq!((moments.count, moments.mean, moments.deviation), (10, 1.0, 1.0));
    assert_eq!(world.experiment.model(), None);
}

#[test]
fn tasks_carry_the_model_the_requester_and_the_chosen_dataset() {
    let mut world = World::begun(spec(training(|_| {}), 2, Patience::default()), 2);
    let first = world.tasks[&world.nodes[0]].clone();
    assert_eq!(first.model, world.experiment.model());
    assert_eq!(first.requester.user, "ada");
    assert_eq!(first.dataset, world.experiment.participants()[&world.nodes[0]].dataset);
    world.contribute_all();
    let second = &world.tasks[&world.nodes[0]];
    assert_ne!(second.model, first.model);
    assert_eq!((first.key.round, second.key.round), (0, 1));
}

#[test]
fn a_second_word_about_a_task_changes_nothing() {
    let mut world = World::begun(spec(training(|_| {}), 1, Patience::default()), 2);
    let task = world.task(0);
    world.contribute(0);
    let before = world.experiment.clone();
    let node = world.nodes[0].clone();
    world.apply(Event::Contributed {
        node: node.clone(),
        task: task.clone(),
        digest: Digest::of(b"x"),
        bytes: 9,
        report: None,
    });
    assert_eq!(world.experiment, before);
    let actions = world.apply(Event::Refused {
        node: node.clone(),
        task: task.clone(),
        refusal: Refusal::new(RefusalCode::Internal, ""),
    });
    assert_eq!(actions[0], Action::Settle { node, task }, "but the node is told that it is over");
    assert_eq!(world.experiment, before);
}

#[test]
fn float32_scales_follow_the_last_aggregate() {
    let plan = training(|raw| raw.precision = Precision::Float32);
    let mut world = World::begun(spec(plan, 2, Patience::default()), 2);
    let exponents = |world: &World| -> Vec<i16> {
        let layout = &world.experiment.round().unwrap().layout;
        layout.iter().filter(|spec| spec.encoding.width == Width::Bits32).map(|spec| spec.encoding.exponent).collect()
    };
    let first = exponents(&world);
    world.contribute_all();
    // The largest sum was 3.0, two bits; six bits of headroom.
    assert_eq!(exponents(&world), [23, 23]);
    assert_ne!(first, [23, 23]);
}

#[test]
fn values_out_of_range_repeat_the_round_for_all_once_all_have_answered() {
    let mut world = World::begun(spec(training(|_| {}), 1, Patience::default()), 3);
    let layout = world.experiment.round().unwrap().layout.clone();
    let before: BTreeSet<TaskId> = world.tasks.values().map(|task| task.id.clone()).collect();
    let exponents = |value: i16| layout.iter().map(|spec| spec.encoding.exponent.min(value)).collect::<Vec<_>>();
    let (node, task) = (world.nodes[0].clone(), world.task(0));
    world.apply(Event::OutOfRange { node, task, exponents: exponents(40) });
    world.contribute(1);
    assert_eq!(world.experiment.round().unwrap().attempt, 0, "one node is still to answer");
    let (node, task) = (world.nodes[2].clone(), world.task(2));
    world.apply(Event::OutOfRange { node, task, exponents: exponents(30) });
    let round = world.experiment.round().unwrap();
    assert_eq!((round.number, round.attempt, world.tasks.len()), (0, 1, 3));
    assert!(world.tasks.values().all(|task| !before.contains(&task.id) && task.key.attempt == 1));
    let model = round.layout.iter().find(|spec| spec.purpose == Purpose::Model).unwrap();
    assert_eq!(model.encoding.exponent, 29);
    world.contribute_all();
    assert_eq!(world.state(), ExperimentState::Finished);
}

#[test]
fn exponents_that_are_no_answer_count_as_a_failure_of_the_node() {
    for exponents in [vec![], vec![1], vec![1000; 4], vec![i16::MIN; 4], vec![-1; 4]] {
        let mut world = World::begun(spec(training(|_| {}), 1, Patience::default()), 2);
        let (node, task) = (world.nodes[0].clone(), world.task(0));
        world.apply(Event::OutOfRange { node, task, exponents });
        world.contribute(1);
        assert_eq!(world.state(), ExperimentState::Finished);
        assert_eq!(world.records()[0].attempt, 0);
    }
}

#[test]
fn values_that_fit_no_scale_fail_the_experiment() {
    let mut world = World::begun(spec(training(|_| {}), 1, Patience::default()), 1);
    while world.state() == ExperimentState::Running {
        let layout = &world.experiment.round().unwrap().layout;
        let wider = |spec: &VectorSpec| spec.encoding.exponent - if spec.purpose == Purpose::Model { 100 } else { 0 };
        let exponents = layout.iter().map(wider).collect();
        let (node, task) = (world.nodes[0].clone(), world.task(0));
        world.apply(Event::OutOfRange { node, task, exponents });
    }
    assert!(world.reason().contains("diverges"), "{}", world.reason());
}

#[test]
fn a_node_that_finds_no_scale_wide_enough_does_not_end_the_work_of_others() {
    let mut world = World::begun(spec(training(|_| {}), 1, Patience::default()), 3);
    // Each time a little wider: the answer is good, the node is not.
    for _ in 0..20 {
        if world.state() != ExperimentState::Running {
            break;
        }
        world.contribute(1);
        world.contribute(2);
        let layout = &world.tasks[&world.nodes[0]].layout;
        let wider = |spec: &VectorSpec| spec.encoding.exponent - i16::from(spec.purpose == Purpose::Model);
        let exponents = layout.iter().map(wider).collect();
        let (node, task) = (world.nodes[0].clone(), world.task(0));
        world.apply(Event::OutOfRange { node, task, exponents });
    }
    assert_eq!(world.state(), ExperimentState::Finished);
    assert!(world.records()[0].attempt > 0);
}

#[test]
fn a_cancelled_experiment_goes_on_after_its_last_closed_round_with_new_tasks() {
    let mut world = World::begun(spec(training(|_| {}), 3, Patience::default()), 2);
    world.contribute_all();
    let (task, model) = (world.task(0), world.experiment.model());
    world.contribute(1);
    world.apply(Event::Cancelled { by: "ada".into() });
    assert_eq!((world.state(), world.reason()), (ExperimentState::Cancelled, "cancelled by ada".into()));
    assert!(world.tasks.is_empty());
    let stale = Event::Folded { round: 1, attempt: 0, folded: Folded::default() };
    let connected = world.nodes.iter().map(|node| (node.clone(), name(node))).collect();
    world.apply(Event::Resumed { connected });
    for node in world.nodes.clone() {
        let datasets = vec![world.face(&["a", "b", "y"])];
        world.apply(Event::Found { node, datasets });
    }
    assert_eq!((world.round(), world.experiment.model()), (1, model));
    assert_ne!(world.task(0), task);
    assert_eq!(world.tasks[&world.nodes[0]].key.attempt, 1);
    world.apply(stale);
    assert_eq!(world.round(), 1, "the sum of the attempt that was given up counts for nothing");
    while world.state() == ExperimentState::Running {
        world.contribute_all();
    }
    assert_eq!((world.state(), world.records().len()), (ExperimentState::Finished, 3));
}

#[test]
fn an_unreadable_contribution_counts_as_a_failure_of_its_node() {
    let patience = Patience { on_failure: OnFailure::Drop, ..Patience::default() };
    let mut world = World::begun(spec(training(|_| {}), 1, patience), 2);
    world.contribute(0);
    let (node, task) = (world.nodes[1].clone(), world.task(1));
    world.apply_only(Event::Contributed {
        node: node.clone(),
        task: task.clone(),
        digest: Digest::of(b"c"),
        bytes: 1,
        report: None,
    });
    assert!(matches!(world.experiment.stage(), Stage::Folding(_)));
    world.apply(Event::Spoiled { node, task });
    assert_eq!(world.state(), ExperimentState::Finished);
    let states: BTreeSet<&str> = world.records()[0].nodes.iter().map(|node| node.state.name()).collect();
    assert_eq!(states, BTreeSet::from(["contributed", "refused"]));
}

#[test]
fn a_full_disk_holds_the_fold_up_and_is_shown() {
    let mut world = World::begun(spec(training(|_| {}), 1, Patience::default()), 1);
    let (node, task) = (world.nodes[0].clone(), world.task(0));
    world.apply_only(Event::Contributed { node, task, digest: Digest::of(b"c"), bytes: 1, report: None });
    world.apply_only(Event::Stalled { reason: "no space left".into() });
    assert_eq!(world.experiment.snapshot(|_| Live::default()).remark.as_deref(), Some("no space left"));
    world.wait(seconds(10));
    assert_eq!(world.state(), ExperimentState::Finished);
}
