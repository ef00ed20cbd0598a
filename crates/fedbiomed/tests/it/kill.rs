//! Whatever is killed when, the experiment ends with the bits of the undisturbed run.

use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use crate::world::{HEART, World, ok};

/// Long enough rounds that a kill hits one, short enough for a test.
const EXPERIMENT: &str = r#"
name = "Killed and started again"
tags = ["heart"]
rounds = 100
min_nodes = 3
on_failure = "retry"
node_timeout = "10m"

[plan]
model = "logistic"
features = ["age", "sex", "trestbps", "chol", "thalach", "oldpeak"]
target = "target"
standardise = true

[optimizer]
type = "adam"
learning_rate = 0.001

[training]
epochs = 120
batch_size = 1
test_ratio = 0.25
seed = 11
"#;

/// The elements of a safetensors file, after its header.
fn elements(path: &str) -> Vec<u8> {
    let bytes = std::fs::read(path).expect("the model file");
    let (prefix, rest) = bytes.split_first_chunk::<8>().expect("a length prefix");
    let header = usize::try_from(u64::from_le_bytes(*prefix)).expect("a short header");
    rest[header..].to_vec()
}

fn state(world: &World, id: &str) -> Value {
    world.json(&["researcher", "-p", &world.path("researcher"), "experiments", "show", id])[0].clone()
}

#[test]
fn killed_nodes_and_researcher_end_with_the_same_bits() {
    let mut world = World::with_researcher();
    let names = ["cleveland", "hungarian", "va"];
    for name in names {
        world.admit(name, Path::new(&format!("{HEART}/{name}.csv")));
    }
    world.connected(3);
    let file = world.experiment("experiment.toml", EXPERIMENT);
    let out = ok(&world.researcher(&["run", &file, "--json"]));
    let undisturbed: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();

    let seed = 20_261_123;
    let mut rng = StdRng::seed_from_u64(seed);
    let id = ok(&world.researcher(&["run", &file, "--detach"])).trim().to_owned();
    let mut kills = 0;
    let mut last_round = 0;
    loop {
        // Let it come forward by a random number of rounds, from none on, then kill whoever the draw says.
        let target = last_round + rng.random_range(0..6);
        let mut over = false;
        world.eventually("the experiment goes on", |world| {
            let experiment = &state(world, &id)["experiment"];
            over = matches!(experiment["state"].as_str(), Some("finished" | "failed" | "cancelled"));
            over || experiment["round"].as_u64().unwrap() >= target
        });
        last_round = state(&world, &id)["experiment"]["round"].as_u64().unwrap();
        if over {
            break;
        }
        let victim = ["researcher", names[0], names[1], names[2]][rng.random_range(0..4)];
        world.kill(victim);
        world.start(victim);
        kills += 1;
    }
    let ended = state(&world, &id);
    assert_eq!(ended["experiment"]["state"], "finished", "{}", ended["ended"]["reason"]);
    assert!(kills >= 10, "only {kills} kills: the rounds are too short for this test");
    let (before, after) = (undisturbed["model"].as_str().unwrap(), ended["ended"]["model"].as_str().unwrap());
    assert_ne!(before, after);
    assert_eq!(elements(before), elements(after), "after {kills} kills, seed {seed}");
}
