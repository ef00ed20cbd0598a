//! Samples per second of native training on one core, as JSON: one epoch of logistic regression over 10⁶ rows of 30 float32
//! features in order, with one row per update and with 64, and a perceptron 784-256-10 with 64. The median of five runs each.
//!
//! `cargo run --release -p learning --example throughput [ROWS]`

#![expect(clippy::print_stdout, reason = "the figures are what the program is for")]

use std::error::Error;
use std::time::Instant;

use learning::{Assignment, Stream, Table, initial, train};
use protocol::{
    Activation, Family, ModelSpec, NodeId, OptimizerSpec, Outcome, Precision, RawTrainingPlan, TrainingArguments,
    TrainingPlan, Validation,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

fn plan(family: Family, batch_size: u32) -> Result<TrainingPlan, Box<dyn Error>> {
    Ok(TrainingPlan::new(RawTrainingPlan {
        model: ModelSpec::new(family, 0.0)?,
        precision: Precision::Float32,
        features: Vec::new(),
        target: "target".into(),
        optimizer: OptimizerSpec::Sgd { learning_rate: 0.01, momentum: 0.0 },
        arguments: TrainingArguments { batch_size, shuffle: false, ..TrainingArguments::default() },
        standardise: false,
        validation: Validation::default(),
    })?)
}

/// Uniform features, and targets that follow the first feature with noise.
fn table(plan: &TrainingPlan, rows: u32, n_features: usize) -> Result<Table, Box<dyn Error>> {
    let mut rng = StdRng::seed_from_u64(1);
    let mut uniform = || f64::from(rng.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0;
    let columns: Vec<Vec<f64>> = (0..n_features).map(|_| (0..rows).map(|_| uniform()).collect()).collect();
    let classes = match plan.model().outcome() {
        Outcome::Class { classes } => f64::from(classes),
        _ => 2.0,
    };
    let target = |feature: f64, noise: f64| ((feature + noise + 2.0) / 4.0 * classes).floor().min(classes - 1.0);
    let targets: Vec<f64> = columns[0].iter().map(|feature| target(*feature, uniform())).collect();
    let views: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
    let numbers: Vec<u32> = (0..rows).collect();
    Ok(Table::from_columns((plan.model().outcome(), plan.precision()), &views, &targets, &numbers, None)?)
}

fn samples_per_second(family: Family, batch_size: u32, rows: u32, n_features: usize) -> Result<f64, Box<dyn Error>> {
    let plan = plan(family, batch_size)?;
    let table = table(&plan, rows, n_features)?;
    let start = initial(plan.model(), plan.precision(), n_features, 0)?;
    let node = NodeId::random(&mut StdRng::seed_from_u64(1));
    let stream = Stream::training(0, &node, 1);
    let assignment = Assignment { plan: &plan, table: &table, start: &start, stream };
    let mut rates = Vec::new();
    for _ in 0..5 {
        #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
        let begin = Instant::now();
        let trained = train(assignment, None, &mut ())?;
        rates.push(f64::from(rows) / begin.elapsed().as_secs_f64());
        std::hint::black_box(trained);
    }
    rates.sort_by(f64::total_cmp);
    Ok(rates[2])
}

fn main() -> Result<(), Box<dyn Error>> {
    let rows: u32 = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let single = samples_per_second(Family::Logistic, 1, rows, 30)?;
    let batches = samples_per_second(Family::Logistic, 64, rows, 30)?;
    let outcome = Outcome::Class { classes: 10 };
    let mlp = Family::Mlp { hidden: vec![256], activation: Activation::Relu, outcome };
    let perceptron = samples_per_second(mlp, 64, rows / 50, 784)?;
    println!(
        r#"{{"samples_per_second": {{"logistic_batch_1": {single:.0}, "logistic_batch_64": {batches:.0}, "perceptron_batch_64": {perceptron:.0}}}}}"#
    );
    Ok(())
}
