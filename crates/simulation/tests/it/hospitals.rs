//! Four hospitals' rows of the UCI heart-disease data, against computations on all rows at one place.

use std::sync::{Arc, OnceLock};

use protocol::model::Activation;
use protocol::{
    Family, Metric, ModelSpec, OptimizerSpec, Outcome, Plan, Precision, RawExperimentSpec, RawTrainingPlan, Selection,
    Tensors, TrainingArguments, TrainingPlan, ValidatedOn, Validation,
};
use researcher::command::{ExperimentState, RoundKind};
use simulation::template::{TAG, Template};

use crate::experiments::patient;
use crate::federation::{Finished, undisturbed};

const SITES: [&str; 4] = ["cleveland", "hungarian", "switzerland", "va"];
const FEATURES: usize = 13;

fn files() -> [(&'static str, String); 4] {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/heart-disease");
    SITES.map(|name| (name, std::fs::read_to_string(format!("{folder}/{name}.csv")).unwrap()))
}

fn hospitals() -> Arc<Template> {
    static TEMPLATE: OnceLock<Arc<Template>> = OnceLock::new();
    TEMPLATE.get_or_init(|| Arc::new(Template::of_files(&files()))).clone()
}

/// Trains for so many rounds on standardised rows of all four.
fn train(family: Family, precision: Precision, learning_rate: f64, arguments: TrainingArguments, rounds: u32) -> Finished {
    let header = files()[0].1.lines().next().unwrap().to_owned();
    let plan = RawTrainingPlan {
        model: ModelSpec::new(family, 0.0).unwrap(),
        precision,
        features: header.split(',').skip(1).take(FEATURES).map(str::to_owned).collect(),
        target: "target".to_owned(),
        optimizer: OptimizerSpec::Sgd { learning_rate, momentum: 0.0 },
        arguments,
        standardise: true,
        validation: Validation { on_global: true, on_local: true },
    };
    let spec = RawExperimentSpec {
        name: "hospitals".to_owned(),
        selection: Selection::Tags(vec![TAG.to_owned()].try_into().unwrap()),
        nodes: None,
        plan: Plan::Training(TrainingPlan::new(plan).unwrap()),
        rounds,
        patience: protocol::Patience { min_nodes: 4, ..patient() },
        secure: protocol::SecureSpec::NONE,
    };
    let finished = undisturbed(&hospitals(), &spec);
    assert_eq!(finished.outcome.state, ExperimentState::Finished, "{:?}", finished.outcome.reason);
    finished
}

/// All sites' rows: features, standardised by mean and deviation (divisor n) over all, and the target.
fn pooled_rows() -> Vec<([f64; FEATURES], f64)> {
    let mut rows = Vec::new();
    for (_, text) in files() {
        for line in text.lines().skip(1) {
            let cells: Vec<f64> = line.split(',').skip(1).map(|cell| cell.parse().unwrap()).collect();
            let (target, features) = cells.split_last().unwrap();
            rows.push((<[f64; FEATURES]>::try_from(features).unwrap(), *target));
        }
    }
    let n = rows.len() as f64;
    for column in 0..FEATURES {
        let mean = rows.iter().map(|row| row.0[column]).sum::<f64>() / n;
        let variance = rows.iter().map(|row| (row.0[column] - mean).powi(2)).sum::<f64>() / n;
        for (features, _) in &mut rows {
            features[column] = (features[column] - mean) / variance.sqrt();
        }
    }
    rows
}

/// Full-batch gradient descent, written out: weights, then the bias.
fn gradient_descent(family: &Family, learning_rate: f64, steps: u32) -> Vec<f64> {
    let rows = pooled_rows();
    let mut coefficients = [0.0; FEATURES + 1];
    for _ in 0..steps {
        let mut gradient = [0.0; FEATURES + 1];
        for (features, target) in &rows {
            let score: f64 = features.iter().zip(&coefficients).map(|(value, weight)| value * weight).sum();
            let score = score + coefficients[FEATURES];
            let prediction = if *family == Family::Logistic { 1.0 / (1.0 + (-score).exp()) } else { score };
            for (own, value) in gradient.iter_mut().zip(features.iter().chain([&1.0])) {
                *own += (prediction - target) * value / rows.len() as f64;
            }
        }
        coefficients.iter_mut().zip(&gradient).for_each(|(coefficient, own)| *coefficient -= learning_rate * own);
    }
    coefficients.to_vec()
}

#[test]
fn one_full_batch_step_per_round_equals_pooled_gradient_descent_after_50_rounds() {
    for family in [Family::Logistic, Family::Linear] {
        let one_step = TrainingArguments { batch_size: 0, epochs: Some(1), ..TrainingArguments::default() };
        let finished = train(family.clone(), Precision::Float64, 0.2, one_step, 50);
        let model = Tensors::from_bytes(&finished.outcome.model.unwrap()).unwrap();
        let of = |name: &str| model.get(name).unwrap().scalars().to_f64();
        let federated = [of("weight"), of("bias")].concat();
        let pooled = gradient_descent(&family, 0.2, 50);
        assert_eq!(federated.len(), pooled.len());
        let largest = pooled.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
        for (federated, pooled) in federated.iter().zip(&pooled) {
            assert!((federated - pooled).abs() <= 1e-9 * largest, "{family:?}: {federated} against {pooled}");
        }
    }
}

#[test]
fn every_native_model_learns_from_four_hospitals() {
    let perceptron = |activation| Family::Mlp { hidden: vec![8], activation, outcome: Outcome::Binary };
    let arguments = || TrainingArguments {
        epochs: Some(1),
        batch_size: 16,
        split_column: Some("split".into()),
        ..TrainingArguments::default()
    };
    for family in [Family::Logistic, perceptron(Activation::Relu), perceptron(Activation::Tanh)] {
        for precision in [Precision::Float32, Precision::Float64] {
            let finished = train(family.clone(), precision, 0.05, arguments(), 21);
            // The last training round measures the model of 20 rounds, and what each node made of it.
            let last = *finished.rounds(RoundKind::Training).last().unwrap();
            assert_eq!(last.nodes.iter().map(|node| node.test_rows).sum::<Option<u64>>(), Some(254));
            assert_eq!(last.confusion.as_ref().unwrap().iter().flatten().sum::<u64>(), 254);
            for on in [ValidatedOn::Global, ValidatedOn::Local] {
                let of =
                    |metric| last.metrics.iter().find(|it| (it.measured.on, it.measured.metric) == (on, metric)).unwrap();
                // The unpenalised pooled fit has AUC 0.881 and accuracy 0.791 on these 254 rows.
                let (area, accuracy) = (of(Metric::Auc), of(Metric::Accuracy));
                assert!(area.measured.value > 0.84, "{family:?} {area:?}");
                assert!(area.error_bound.unwrap() < 0.01, "{family:?} {area:?}");
                assert!(accuracy.measured.value > 0.74, "{family:?} {accuracy:?}");
            }
        }
    }
}
