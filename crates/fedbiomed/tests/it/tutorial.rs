//! By hand what the demo does, as a hospital and a researcher would: the tutorial of the book, line by line, the example that the
//! program prints, and two hospitals.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::world::{HEART, World, fedbiomed, fedbiomed_in, ok, refused, text};

const PAGE: &str = include_str!("../../../../docs/src/tutorial.md");

pub(crate) const EXPERIMENT: &str = r#"
name = "Heart disease"
tags = ["heart"]
rounds = 5
min_nodes = 2

[plan]
model = "logistic"
features = ["age", "sex", "trestbps", "chol", "fbs", "thalach", "exang", "oldpeak"]
target = "target"
standardise = true

[optimizer]
type = "sgd"
learning_rate = 0.1

[training]
epochs = 1
batch_size = 16
split_column = "split"
seed = 7
"#;

/// The fenced blocks of the page in a language; without one they are commands.
fn blocks(language: &str) -> impl Iterator<Item = &'static str> {
    let fenced = PAGE.split("```").skip(1).step_by(2);
    fenced.filter_map(|block| block.split_once('\n')).filter(move |(of, _)| *of == language).map(|(_, text)| text)
}

/// The words of a command line, as a shell cuts it where there is nothing but double quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (index, part) in line.split('"').enumerate() {
        let mut pieces = if index % 2 == 1 { vec![part] } else { part.split(' ').collect() }.into_iter();
        words.last_mut().expect("one at least").push_str(pieces.next().unwrap_or_default());
        words.extend(pieces.map(str::to_owned));
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn the_tutorial_does_what_it_says() {
    let mut world = World::empty();
    let folder = world.folder();
    symlink(Path::new(HEART).parent().unwrap(), folder.join("examples")).unwrap();
    world.experiment("dataset.json", blocks("json").next().unwrap());
    world.experiment("experiment.toml", blocks("toml").find(|block| block.contains("[plan]")).unwrap());

    let (mut token, mut id) = (String::new(), String::new());
    let mut commands = 0;
    for line in blocks("").flat_map(str::lines) {
        let mut words = words(line);
        for word in &mut words {
            match word.as_str() {
                "TOKEN" => word.clone_from(&token),
                "ID" => word.clone_from(&id),
                _ => {}
            }
        }
        // It is over by then, so there is nothing to cancel.
        if words.iter().any(|word| word == "cancel" || word == "resume") {
            continue;
        }
        if words.remove(0) != "fedbiomed" {
            let mut shell = Command::new("sh");
            shell.args(["-c", line]).current_dir(&folder).env("XDG_STATE_HOME", env!("CARGO_TARGET_TMPDIR"));
            ok(&shell.output().unwrap());
            continue;
        }
        commands += 1;
        match words.last().unwrap().as_str() {
            "start" => {
                world.start(words[2].trim_start_matches("./"));
                continue;
            }
            "nodes" => world.eventually("the node is connected", |world| {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                ok(&fedbiomed_in(&world.folder(), &words)).contains("connected")
            }),
            // The researcher of a test listens where the system lets it.
            "7d" => words.extend(["--address".to_owned(), world.address()]),
            _ => {}
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = fedbiomed_in(&folder, &words);
        let out = ok(&output);
        match words.as_slice() {
            [.., "invite", _, _, _, _, _, _] => out.split_whitespace().last().unwrap().clone_into(&mut token),
            [.., "run", _] => {
                let told = text(&output.stderr);
                assert!(told.contains("model.safetensors") && told.contains("report.html"), "{told}");
                let list = world.json(&["researcher", "-p", &world.path("fbm-researcher"), "experiments", "list"]);
                assert_eq!(list[0]["state"], "finished");
                list[0]["id"].as_str().unwrap().clone_into(&mut id);
            }
            [.., "verify"] => assert!(out.contains("none changed"), "{out}"),
            _ => {}
        }
    }
    assert!(commands > 10 && !id.is_empty(), "the page's commands were found: {commands}");
}

#[test]
fn the_printed_example_runs_on_the_data_of_the_repository() {
    let mut world = World::with_researcher();
    ok(&fedbiomed(&["component", "create", "-c", "node", "-p", &world.path("north"), "-n", "North Hospital"]));
    let token = world.invite("North Hospital");
    ok(&world.node("north", &["enroll", &token]));
    let data = format!("{HEART}/cleveland.csv");
    let dataset = ["dataset", "add", "--name", "Heart", "--tags", "heart-disease", "--data", &data, "--description", "UCI"];
    ok(&world.node("north", &dataset));
    world.start("north");
    world.connected(1);
    let example = ok(&fedbiomed(&["researcher", "run", "--example"]));
    let experiment = world.experiment("experiment.toml", &example);
    let out = ok(&world.researcher(&["run", &experiment, "--json"]));
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert!(Path::new(last["model"].as_str().unwrap()).exists(), "{out}");
}

#[test]
fn two_hospitals_train_by_hand() {
    let mut world = World::with_researcher();
    let node = world.path("north");
    ok(&fedbiomed(&["component", "create", "-c", "node", "-p", &node, "-n", "North Hospital"]));
    let token = world.invite("North Hospital");
    ok(&world.node("north", &["enroll", &token]));
    let file = world.path("dataset.json");
    let dataset = serde_json::json!({
        "name": "Heart", "data_type": "csv", "path": format!("{HEART}/cleveland.csv"),
        "tags": ["heart", "uci"], "description": "UCI heart disease",
    });
    std::fs::write(&file, dataset.to_string()).unwrap();
    ok(&world.node("north", &["dataset", "add", "--file", &file]));
    world.start("north");
    world.admit("south", Path::new(&format!("{HEART}/hungarian.csv")));
    world.connected(2);

    let researcher = world.path("researcher");
    let datasets = world.json(&["researcher", "-p", &researcher, "datasets"]);
    let shown: Vec<u64> = datasets.as_array().unwrap().iter().map(|row| row["rows"].as_u64().unwrap()).collect();
    assert_eq!(shown.len(), 2);
    assert!(shown.contains(&300) && shown.contains(&260), "row counts are rounded by default: {shown:?}");

    let experiment = world.experiment("experiment.toml", EXPERIMENT);
    let out = ok(&world.researcher(&["run", &experiment, "--json"]));
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // Two passes of standardisation, five rounds, one last validation, and the summary.
    assert_eq!(lines.len(), 9, "{out}");
    let last = lines.last().unwrap();
    assert!(Path::new(last["model"].as_str().unwrap()).exists());
    let validations = lines.iter().filter(|line| line["metrics"].as_array().is_some_and(|metrics| !metrics.is_empty()));
    assert!(validations.count() > 5, "n rounds give n + 1 global validations");

    let list = world.json(&["researcher", "-p", &researcher, "experiments", "list"]);
    assert_eq!(list[0]["state"], "finished");
    let id = list[0]["id"].as_str().unwrap();
    assert_eq!(world.json(&["researcher", "-p", &researcher, "experiments", "show", id])[0]["id"], id);
    ok(&world.researcher(&["experiments", "follow", id]));

    assert!(ok(&world.node("north", &["audit", "verify"])).contains("none changed"));
    ok(&world.node("north", &["stop"]));
    assert!(refused(&world.researcher(&["run", &experiment, "--json"])).contains("min_nodes"), "one node is fewer than two");
    assert!(text(&world.node("north", &["status", "--json"]).stdout).contains("\"process\":null"));
}
