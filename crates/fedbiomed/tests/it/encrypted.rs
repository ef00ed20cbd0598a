//! Joye-Libert from outside: the sums are those of the plain run and of masks, keys are made once for a list of nodes, and a node
//! that is missing ends a round, which the others begin again.

use std::fmt::Write as _;

use serde_json::Value;

use crate::secagg::{THREE, begin, caught, federation, parameters};
use crate::world::World;

/// A linear model: its metrics are a few sums, and not histograms of thousands of bins.
fn training(header: &str, precision: &str, training: &str) -> String {
    let mut text = format!(
        "name = \"Encrypted sums\"\ntags = [\"heart\"]\n{header}\n\n[plan]\nmodel = \"linear\"\nstandardise = true\n"
    );
    let _ = writeln!(text, "precision = \"{precision}\"\nfeatures = [\"age\", \"sex\", \"chol\"]\ntarget = \"thalach\"\n");
    let _ = writeln!(text, "[optimizer]\ntype = \"sgd\"\nlearning_rate = 0.01\n\n[training]\n{training}");
    text
}

fn run(world: &mut World, text: &str) -> Value {
    let id = begin(world, text);
    world.finished(&id)
}

#[test]
fn sums_under_joye_libert_are_those_in_the_clear_and_those_under_masks() {
    let mut world = federation(&THREE);
    let mut model = |secagg: &str, precision: &str| {
        let header = format!("rounds = 3\nmin_nodes = 3\nsecagg = \"{secagg}\"");
        let shown =
            run(&mut world, &training(&header, precision, "epochs = 2\nbatch_size = 0\ntest_ratio = 0.25\nseed = 3"));
        let records = shown["records"].as_array().expect("records").iter();
        let pooled = records.map(|record| ["kind", "train_rows", "loss", "metrics"].map(|key| record[key].clone()));
        (parameters(&shown), pooled.collect::<Vec<_>>())
    };
    // 128 bits, as in the clear.
    assert_eq!(model("joye-libert", "float64"), model("none", "float64"));
    // 32 bits on the scales of masks.
    assert_eq!(model("joye-libert", "float32"), model("lom", "float32"));
}

#[test]
fn a_statistic_under_joye_libert_is_the_plain_statistic_to_the_last_bit() {
    let mut world = federation(&THREE);
    let asked = |secagg: &str| {
        format!(
            "name = \"Moments\"\ntags = [\"heart\"]\nsecagg = \"{secagg}\"\n\n[plan]\nstatistic = \"moments\"\n\
             columns = [\"age\", \"chol\", \"oldpeak\"]\n"
        )
    };
    let [plain, hidden] = ["none", "joye-libert"].map(|secagg| run(&mut world, &asked(secagg))["ended"]["moments"].clone());
    assert_eq!(hidden, plain);
    assert_eq!(hidden[0]["count"], 303 + 261 + 130);
}

#[test]
fn a_node_that_is_killed_ends_the_round_which_the_others_begin_again_with_keys_of_their_own() {
    let mut world = federation(&["cleveland", "hungarian", "switzerland", "va"]);
    let header = "rounds = 3\nmin_nodes = 3\nnode_timeout = \"3s\"\non_failure = \"drop\"\nsecagg = \"joye-libert\"";
    let id = begin(&world, &training(header, "float64", "epochs = 600\nbatch_size = 1"));
    let (_, round) = caught(&mut world, &id, "va", 3);
    world.kill("va");
    let shown = world.finished(&id);
    let all = shown["records"].as_array().expect("records");
    assert!(all.iter().all(|record| record["round"] != round), "it has no sum: {all:?}");
    let next = all.iter().find(|record| record["round"] == round + 1).expect("the round after it");
    let hidden = &next["hidden"];
    assert_eq!((&hidden["scheme"], &hidden["parties"], &hidden["survivors"]), (&"joye-libert".into(), &3.into(), &3.into()));
    assert_eq!(all.iter().filter(|record| record["kind"] == "training").count(), 3, "no training round is left out");
    let log = std::fs::read_to_string(world.folder().join("cleveland/log/audit.jsonl")).expect("an audit log");
    let said = |event: &str| log.lines().filter(|line| line.contains(event)).count();
    assert_eq!((said("secure.key_shared"), said("secure.key_summed")), (2, 2), "once for each list of nodes");
    assert!(parameters(&shown).into_iter().all(|value| value.abs() < 1e3), "masks that are left over are larger by far");
}

#[test]
fn another_modulus_at_one_node_is_told_before_any_key_is_drawn() {
    let mut world = federation(&THREE);
    world.kill("va");
    // (3·2^1022 + 1037) · (7·2^1021 + 309), two primes that everybody knows.
    let modulus = format!("0xa8{:0>255}{:0>255}\n", "4732", "4e3b1");
    std::fs::write(world.folder().join("va/etc/modulus.txt"), modulus).expect("a file");
    world.set_environment(vec![("FBM_SECURITY_JOYE_LIBERT_MODULUS", "etc/modulus.txt".to_owned())]);
    world.start("va");
    world.set_environment(Vec::new());
    world.connected(3);
    let header = "rounds = 1\nmin_nodes = 3\non_failure = \"fail\"\nsecagg = \"joye-libert\"";
    let file = world.experiment("experiment.toml", &training(header, "float64", "epochs = 1"));
    let said = crate::world::refused(&world.researcher(&["run", &file]));
    assert!(said.contains("va") && said.contains("joye_libert_modulus"), "{said}");
}
