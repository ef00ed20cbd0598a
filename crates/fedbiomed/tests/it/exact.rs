//! What the federation computes is what one place with all rows would compute.

use std::path::Path;

use protocol::Tensors;
use serde_json::Value;

use crate::world::{HEART, World, ok};

const SITES: [&str; 4] = ["cleveland", "hungarian", "switzerland", "va"];

const FEATURES: [&str; 13] = [
    "age",
    "sex",
    "trestbps",
    "chol",
    "fbs",
    "thalach",
    "exang",
    "oldpeak",
    "cp_2",
    "cp_3",
    "cp_4",
    "restecg_1",
    "restecg_2",
];

/// Coefficients of the logistic regression on all 740 rows, intercept last: statsmodels 0.14, converged to a gradient norm of
/// 4e-12. The order is that of `FEATURES`.
const STATSMODELS: [f64; 14] = [
    0.021_329_855_673_738_508,
    1.299_612_603_195_413_4,
    0.006_164_338_030_400_56,
    -0.001_942_661_743_495_747,
    0.526_596_621_375_036_5,
    -0.014_008_867_263_394_176,
    1.008_121_145_193_083_8,
    0.628_536_945_043_989_5,
    -0.418_834_253_156_563_7,
    -0.014_580_848_024_493_796,
    1.431_577_483_415_772_4,
    -0.078_207_763_582_674_3,
    0.256_039_607_618_121_1,
    -2.197_832_841_403_576_6,
];

fn experiment(rounds: u32, learning_rate: f64) -> String {
    let features = FEATURES.map(|name| format!("{name:?}")).join(", ");
    format!(
        r#"
name = "Exact"
tags = ["heart"]
rounds = {rounds}
min_nodes = 4

[plan]
model = "logistic"
precision = "float64"
features = [{features}]
target = "target"
standardise = true

[optimizer]
type = "sgd"
learning_rate = {learning_rate}

[training]
num_updates = 1
batch_size = 0

[validation]
on_global = false
"#
    )
}

/// All rows of all sites: features in order, and the target.
fn stacked() -> (Vec<Vec<f64>>, Vec<f64>) {
    let mut rows = Vec::new();
    let mut targets = Vec::new();
    for site in SITES {
        let text = std::fs::read_to_string(format!("{HEART}/{site}.csv")).expect("the CSV");
        let mut lines = text.lines();
        let header: Vec<&str> = lines.next().expect("a header").split(',').collect();
        let place = |name: &str| header.iter().position(|column| *column == name).expect("the column");
        for line in lines {
            let cells: Vec<&str> = line.split(',').collect();
            let number = |name: &str| cells[place(name)].parse::<f64>().expect("a number");
            rows.push(FEATURES.iter().map(|name| number(name)).collect());
            targets.push(number("target"));
        }
    }
    (rows, targets)
}

/// Means and standard deviations with divisor n.
fn moments(rows: &[Vec<f64>]) -> (Vec<f64>, Vec<f64>) {
    let n = rows.len() as f64;
    let mean: Vec<f64> = (0..FEATURES.len()).map(|j| rows.iter().map(|row| row[j]).sum::<f64>() / n).collect();
    let variance = |j: usize| rows.iter().map(|row| (row[j] - mean[j]).powi(2)).sum::<f64>() / n;
    let deviation = (0..FEATURES.len()).map(|j| variance(j).sqrt()).collect();
    (mean, deviation)
}

/// Gradient descent on the mean log loss, written out: weights, then the bias.
fn gradient_descent(rows: &[Vec<f64>], targets: &[f64], steps: u32, learning_rate: f64) -> Vec<f64> {
    let p = FEATURES.len();
    let mut parameters = vec![0.0; p + 1];
    for _ in 0..steps {
        let mut gradient = vec![0.0; p + 1];
        for (row, target) in rows.iter().zip(targets) {
            let score = parameters[p] + row.iter().zip(&parameters).map(|(value, weight)| value * weight).sum::<f64>();
            let error = 1.0 / (1.0 + (-score).exp()) - target;
            row.iter().enumerate().for_each(|(j, value)| gradient[j] += error * value);
            gradient[p] += error;
        }
        let n = rows.len() as f64;
        parameters.iter_mut().zip(gradient).for_each(|(parameter, slope)| *parameter -= learning_rate * slope / n);
    }
    parameters
}

/// Weights, then the bias, of the model that a run left.
fn run(world: &World, rounds: u32, learning_rate: f64) -> (Vec<f64>, Tensors) {
    let file = world.experiment("exact.toml", &experiment(rounds, learning_rate));
    let out = ok(&world.researcher(&["run", &file, "--json"]));
    let last: Value = serde_json::from_str(out.lines().last().expect("a summary")).expect("JSON");
    let bytes = std::fs::read(last["model"].as_str().expect("a model")).expect("the model file");
    let tensors = Tensors::from_bytes(&bytes).expect("a safetensors file");
    let mut parameters = tensors.get("weight").expect("weights").scalars().to_f64();
    parameters.extend(tensors.get("bias").expect("a bias").scalars().to_f64());
    (parameters, tensors)
}

#[test]
fn federated_gradient_descent_is_pooled_gradient_descent() {
    let mut world = World::with_researcher();
    for site in SITES {
        world.admit(site, Path::new(&format!("{HEART}/{site}.csv")));
    }
    world.connected(4);
    let (mut rows, targets) = stacked();
    let (mean, deviation) = moments(&rows);
    for row in &mut rows {
        row.iter_mut().enumerate().for_each(|(j, value)| *value = (*value - mean[j]) / deviation[j]);
    }

    let (federated, _) = run(&world, 50, 0.5);
    let pooled = gradient_descent(&rows, &targets, 50, 0.5);
    let largest = pooled.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    for (federated, pooled) in federated.iter().zip(&pooled) {
        assert!((federated - pooled).abs() <= 1e-9 * largest, "{federated} against {pooled}");
    }

    // Converged, and turned back to the units of the data.
    let (federated, tensors) = run(&world, 600, 2.0);
    let means = tensors.get("standardise.mean").expect("means").scalars().to_f64();
    let scales = tensors.get("standardise.scale").expect("scales").scalars().to_f64();
    let mut raw: Vec<f64> = federated.iter().zip(&scales).map(|(weight, scale)| weight / scale).collect();
    let shift: f64 = raw.iter().zip(&means).map(|(weight, mean)| weight * mean).sum();
    raw.push(federated[FEATURES.len()] - shift);
    for (index, (federated, reference)) in raw.iter().zip(STATSMODELS).enumerate() {
        assert!((federated - reference).abs() <= 1e-4, "coefficient {index}: {federated} against {reference}");
    }
}
