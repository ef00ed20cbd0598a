//! Whatever is killed when, and on however many threads, experiments end with the bits of the undisturbed run.

use std::collections::BTreeMap;
use std::path::Path;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use crate::world::{HEART, World, ok};

const NODES: [&str; 3] = ["cleveland", "hungarian", "va"];
const DAEMONS: [&str; 4] = ["researcher", NODES[0], NODES[1], NODES[2]];

/// The rounds of each of two experiments that run at once: together a hundred.
const ROUNDS: u32 = 50;

/// Two trainings that have nothing in common but the rows. Rounds are long enough that a kill hits one, short enough for a test.
fn experiment(secagg: &str, precision: &str, optimizer: &str, seed: u32) -> String {
    format!(
        r#"
name = "Killed and started again"
tags = ["heart"]
rounds = {ROUNDS}
min_nodes = 3
on_failure = "retry"
node_timeout = "10m"
secagg = "{secagg}"

[plan]
model = "logistic"
precision = "{precision}"
features = ["age", "sex", "trestbps", "chol", "thalach", "oldpeak"]
target = "target"
standardise = true

[optimizer]
type = "{optimizer}"
learning_rate = 0.001

[training]
epochs = 120
batch_size = 1
test_ratio = 0.25
seed = {seed}
"#
    )
}

/// The elements of a safetensors file, after its header.
fn elements(path: &str) -> Vec<u8> {
    let bytes = std::fs::read(path).expect("the model file");
    let (prefix, rest) = bytes.split_first_chunk::<8>().expect("a length prefix");
    let header = usize::try_from(u64::from_le_bytes(*prefix)).expect("a short header");
    rest[header..].to_vec()
}

/// Two experiments under way.
struct Both([String; 2]);

impl Both {
    fn begin(world: &World, files: &[String; 2]) -> Self {
        Self(files.each_ref().map(|file| ok(&world.researcher(&["run", file, "--detach"])).trim().to_owned()))
    }

    /// How many rounds both have behind them; `None` if both are over.
    fn rounds(&self, world: &World) -> Option<u64> {
        let list = world.json(&["researcher", "-p", &world.path("researcher"), "experiments", "list"]);
        let rows = self.0.each_ref().map(|id| {
            let row = list.as_array().and_then(|rows| rows.iter().find(|row| row["id"] == **id));
            row.cloned().expect("the experiment is listed")
        });
        let is_over = |row: &Value| matches!(row["state"].as_str(), Some("finished" | "failed" | "cancelled"));
        if rows.iter().all(is_over) {
            return None;
        }
        Some(rows.iter().map(|row| row["round"].as_u64().expect("a number")).sum())
    }

    /// What the finished experiments' models hold.
    fn models(&self, world: &mut World) -> [Vec<u8>; 2] {
        self.0.each_ref().map(|id| elements(world.finished(id)["ended"]["model"].as_str().expect("a path")))
    }
}

fn undisturbed(world: &mut World, files: &[String; 2]) -> [Vec<u8>; 2] {
    let both = Both::begin(world, files);
    world.eventually("both experiments end", |world| both.rounds(world).is_none());
    both.models(world)
}

/// Kills a daemon and starts it again, over and over until both experiments are over.
fn disturbed(world: &mut World, files: &[String; 2], rng: &mut StdRng) -> [Vec<u8>; 2] {
    let both = Both::begin(world, files);
    let mut kills: BTreeMap<&str, u32> = BTreeMap::new();
    let mut deck = Vec::new();
    let mut before = Some(0);
    while let Some(rounds) = before {
        // Let them come forward by a random number of rounds, from none on, and by a random part of a round.
        let (target, looks) = (rounds + rng.random_range(0..5), rng.random_range(0..4));
        world.eventually("the experiments go on", |world| {
            before = both.rounds(world);
            before.is_none_or(|rounds| rounds >= target)
        });
        for _ in 0..looks {
            before = both.rounds(world);
        }
        if before.is_some() {
            // Everybody's turn comes, in any order.
            if deck.is_empty() {
                deck = DAEMONS.to_vec();
                deck.shuffle(rng);
            }
            let victim = deck.pop().expect("a full deck");
            world.kill(victim);
            world.start(victim);
            *kills.entry(victim).or_default() += 1;
        }
    }
    let is_enough = |daemon: &&str| kills.get(daemon).is_some_and(|kills| *kills >= 3);
    assert!(DAEMONS.iter().all(is_enough), "{kills:?}: the rounds are too short for this test");
    both.models(world)
}

/// Runs both experiments undisturbed and disturbed, on each number of threads: the same bits each time.
fn check(secagg: &str, threads: &[u8]) {
    let mut world = World::with_researcher();
    for name in NODES {
        world.admit(name, Path::new(&format!("{HEART}/{name}.csv")));
    }
    let texts = [experiment(secagg, "float32", "adam", 11), experiment(secagg, "float64", "sgd", 12)];
    let files = [0, 1].map(|place| world.experiment(&format!("experiment-{place}.toml"), &texts[place]));
    let mut expected = None;
    for threads in threads {
        // On a node: how many trainings run at once, here one of each experiment. At the researcher: on how many threads it runs.
        let number = threads.to_string();
        world.set_environment(vec![("FBM_TRAINING_THREADS", number.clone()), ("TOKIO_WORKER_THREADS", number)]);
        for daemon in DAEMONS {
            world.kill(daemon);
            world.start(daemon);
        }
        world.connected(3);
        let models = undisturbed(&mut world, &files);
        let expected = expected.get_or_insert_with(|| models.clone());
        assert_eq!(models, *expected, "undisturbed, {secagg}, {threads} threads");
        let seed = 20_261_123 + u64::from(*threads);
        let models = disturbed(&mut world, &files, &mut StdRng::seed_from_u64(seed));
        assert_eq!(models, *expected, "killed, {secagg}, {threads} threads, seed {seed}");
    }
}

#[test]
fn killed_nodes_and_researcher_end_with_the_same_bits_on_one_thread_and_on_two() {
    check("none", &[1, 2]);
}

#[test]
fn killed_nodes_and_researcher_end_with_the_same_bits_under_secure_aggregation() {
    check("lom", &[2]);
}
