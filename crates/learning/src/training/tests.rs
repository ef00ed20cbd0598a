use protocol::{Activation, Family, ModelSpec, OptimizerSpec, Outcome, RawTrainingPlan, Validation};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::parameters::initial;

const SGD: OptimizerSpec = OptimizerSpec::Sgd { learning_rate: 0.05, momentum: 0.0 };
const MOMENTUM: OptimizerSpec = OptimizerSpec::Sgd { learning_rate: 0.05, momentum: 0.9 };
const ADAM: OptimizerSpec = OptimizerSpec::Adam { learning_rate: 0.01, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };

fn plan(family: Family, precision: Precision, optimizer: OptimizerSpec, arguments: TrainingArguments) -> TrainingPlan {
    TrainingPlan::new(RawTrainingPlan {
        model: ModelSpec::new(family, 0.01).unwrap(),
        precision,
        features: Vec::new(),
        target: "target".into(),
        optimizer,
        arguments,
        standardise: false,
        validation: Validation::default(),
    })
    .unwrap()
}

fn table(plan: &TrainingPlan, n_rows: u32) -> Table {
    let mut draws = Stream::initial(4).part(0);
    let columns: Vec<Vec<f64>> = (0..5).map(|_| (0..n_rows).map(|_| draws.symmetric(2.0)).collect()).collect();
    let targets: Vec<f64> = columns[0].iter().map(|value| f64::from(value + draws.symmetric(1.0) > 0.0)).collect();
    let views: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
    let numbers: Vec<u32> = (0..n_rows).collect();
    Table::from_columns((plan.model().outcome(), plan.precision()), &views, &targets, &numbers, None).unwrap()
}

fn stream(round: u32) -> Stream {
    Stream::training(7, &protocol::NodeId::random(&mut StdRng::seed_from_u64(1)), round)
}

fn run(plan: &TrainingPlan, n_rows: u32, round: u32, watcher: &mut dyn Watcher) -> Result<Trained, TrainingError> {
    let table = table(plan, n_rows);
    let start = initial(plan.model(), plan.precision(), 5, 0).unwrap();
    let assignment = Assignment { plan, table: &table, start: &start, stream: stream(round) };
    train(assignment, None, watcher)
}

fn arguments(epochs: u32, batch_size: u32) -> TrainingArguments {
    TrainingArguments { epochs: Some(epochs), batch_size, ..TrainingArguments::default() }
}

fn mlp() -> Family {
    Family::Mlp { hidden: vec![6], activation: Activation::Tanh, outcome: Outcome::Binary }
}

#[derive(Default)]
struct Recorder {
    checkpoints: Vec<Checkpoint>,
    progress: Vec<Progress>,
    cancel: bool,
}

impl Watcher for Recorder {
    fn is_cancelled(&mut self) -> bool {
        self.cancel
    }

    fn progress(&mut self, progress: Progress) {
        self.progress.push(progress);
    }

    fn checkpoint(&mut self, checkpoint: Checkpoint) {
        self.checkpoints.push(checkpoint);
    }
}

#[test]
fn updates_follow_the_rules_of_fed_biomed() {
    let given = |epochs, num_updates, batch_size, batch_maxnum, dry_run| {
        let shuffle = TrainingArguments::default();
        updates(&TrainingArguments { epochs, num_updates, batch_size, batch_maxnum, dry_run, ..shuffle }, 100)
    };
    assert_eq!(given(Some(3), None, 32, None, false), 12, "the last batch of a pass may be smaller");
    assert_eq!(given(Some(3), None, 0, None, false), 3, "0 is all rows");
    assert_eq!(given(Some(3), None, 1000, None, false), 3);
    assert_eq!(given(Some(3), None, 32, Some(2), false), 6);
    assert_eq!(given(Some(3), Some(50), 32, Some(2), false), 50, "num_updates wins, batch_maxnum is ignored");
    assert_eq!(given(Some(3), Some(0), 32, None, false), 0);
    assert_eq!(given(Some(0), None, 32, None, false), 0);
    assert_eq!(given(Some(3), None, 32, None, true), 1);
    assert_eq!(given(None, None, 32, None, true), 1);
    assert_eq!(given(None, Some(0), 32, None, true), 0);
}

#[test]
fn no_updates_leave_the_parameters_untouched() {
    let arguments = TrainingArguments { num_updates: Some(0), ..TrainingArguments::default() };
    let plan = plan(mlp(), Precision::Float32, SGD, arguments);
    let trained = run(&plan, 10, 1, &mut ()).unwrap();
    assert_eq!(trained.parameters, initial(plan.model(), Precision::Float32, 5, 0).unwrap());
    assert_eq!((trained.loss, trained.updates), (None, 0));
    assert!(run(&plan, 0, 1, &mut ()).is_ok());
}

#[test]
fn a_resumed_training_gives_the_same_bits() {
    for family in [Family::Logistic, mlp()] {
        for precision in [Precision::Float32, Precision::Float64] {
            for (optimizer, batch_size) in [(SGD, 1), (SGD, 8), (MOMENTUM, 7), (ADAM, 0)] {
                let plan = plan(family.clone(), precision, optimizer, arguments(4, batch_size));
                let mut recorder = Recorder::default();
                let whole = run(&plan, 50, 1, &mut recorder).unwrap();
                assert_eq!(recorder.checkpoints.len(), 3, "none after the last pass");
                for checkpoint in &recorder.checkpoints {
                    let bytes = checkpoint.to_tensors().to_bytes();
                    let checkpoint = Checkpoint::from_tensors(Tensors::from_bytes(&bytes).unwrap()).unwrap();
                    let (table, start) = (table(&plan, 50), initial(plan.model(), precision, 5, 0).unwrap());
                    let assignment = Assignment { plan: &plan, table: &table, start: &start, stream: stream(1) };
                    assert_eq!(train(assignment, Some(&checkpoint), &mut ()).unwrap(), whole);
                }
            }
        }
    }
}

#[test]
fn a_checkpoint_of_another_training_is_refused() {
    let mut recorder = Recorder::default();
    run(&plan(Family::Logistic, Precision::Float32, SGD, arguments(2, 8)), 50, 1, &mut recorder).unwrap();
    let other = plan(Family::Logistic, Precision::Float32, SGD, arguments(2, 16));
    let (table, start) = (table(&other, 50), initial(other.model(), Precision::Float32, 5, 0).unwrap());
    let assignment = Assignment { plan: &other, table: &table, start: &start, stream: stream(1) };
    assert_eq!(train(assignment, Some(&recorder.checkpoints[0]), &mut ()), Err(TrainingError::Checkpoint));
    let other = plan(Family::Logistic, Precision::Float32, ADAM, arguments(2, 8));
    let found = train(Assignment { plan: &other, ..assignment }, Some(&recorder.checkpoints[0]), &mut ());
    assert!(matches!(found, Err(TrainingError::Optimizer(_))), "{found:?}");
}

#[test]
fn rounds_draw_different_orders_and_the_same_round_the_same() {
    let plan = plan(Family::Logistic, Precision::Float32, SGD, arguments(1, 8));
    let train = |round| run(&plan, 50, round, &mut ()).unwrap().parameters;
    assert_eq!(train(1), train(1));
    assert_ne!(train(1), train(2));
}

#[test]
fn divergence_is_an_error_that_tells_what_may_help() {
    for batch_size in [0, 1, 8] {
        let optimizer = OptimizerSpec::Sgd { learning_rate: 1e30, momentum: 0.0 };
        let plan = plan(mlp(), Precision::Float32, optimizer, arguments(50, batch_size));
        let error = run(&plan, 50, 1, &mut ()).unwrap_err();
        assert!(matches!(error, TrainingError::Diverged { .. }), "{error}");
        assert_eq!(Refusal::from(&error).code, RefusalCode::TrainingDiverged);
    }
}

#[test]
fn a_cancelled_training_ends() {
    for batch_size in [0, 1, 8] {
        let plan = plan(Family::Logistic, Precision::Float32, SGD, arguments(1_000_000, batch_size));
        let mut recorder = Recorder { cancel: true, ..Recorder::default() };
        assert_eq!(run(&plan, 50, 1, &mut recorder), Err(TrainingError::Cancelled));
    }
}

#[test]
fn progress_ends_with_the_last_update() {
    for batch_size in [0, 1, 8] {
        let plan = plan(Family::Logistic, Precision::Float32, SGD, arguments(3, batch_size));
        let mut recorder = Recorder::default();
        let trained = run(&plan, 50, 1, &mut recorder).unwrap();
        let last = recorder.progress.last().unwrap();
        assert_eq!((last.done, last.total), (trained.updates, trained.updates));
    }
}

#[test]
fn without_rows_there_is_nothing_to_train_on() {
    let plan = plan(Family::Logistic, Precision::Float32, SGD, arguments(1, 8));
    assert_eq!(run(&plan, 0, 1, &mut ()), Err(TrainingError::NoRows));
}

#[test]
fn both_precisions_learn_the_same() {
    for family in [Family::Logistic, mlp()] {
        let train = |precision| {
            let trained = run(&plan(family.clone(), precision, ADAM, arguments(20, 8)), 200, 1, &mut ()).unwrap();
            assert!(trained.loss.unwrap() < 0.6, "{trained:?}");
            trained.parameters
        };
        let drawn_twice = train(Precision::Float32);
        for (single, double) in drawn_twice.iter().zip(train(Precision::Float64).iter()) {
            let pairs = single.scalars().to_f64().into_iter().zip(double.scalars().to_f64());
            assert!(pairs.into_iter().all(|(single, double)| (single - double).abs() < 1e-3), "{}", single.name());
        }
    }
}
