//! Commands as people type them: what they print, what they leave behind, what they say when it cannot be done.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::world::{HEART, World, fedbiomed, fedbiomed_in, ok, refused, text};

/// So many rounds that no test sees the end of them.
const ENDLESS: &str = r#"
name = "Endless"
tags = ["heart"]
rounds = 100000
min_nodes = 1
on_failure = "drop"

[plan]
model = "logistic"
features = ["age", "sex", "trestbps", "chol", "fbs", "thalach", "exang", "oldpeak"]
target = "target"

[optimizer]
type = "sgd"
learning_rate = 0.001

[training]
epochs = 1
batch_size = 64
split_column = "split"
seed = 7
"#;

fn heart(name: &str) -> String {
    format!("{HEART}/{name}.csv")
}

/// Two hospitals that are connected, and the endless experiment's file.
fn two_hospitals() -> (World, String) {
    let mut world = World::with_researcher();
    world.admit("north", Path::new(&heart("cleveland")));
    world.admit("south", Path::new(&heart("hungarian")));
    world.connected(2);
    let file = world.experiment("endless.toml", ENDLESS);
    (world, file)
}

fn experiment(world: &World, id: &str) -> Value {
    world.json(&["researcher", "-p", &world.path("researcher"), "experiments", "show", id])[0].clone()
}

fn state(world: &World, id: &str) -> String {
    experiment(world, id)["state"].as_str().expect("a state").to_owned()
}

fn closed_rounds(world: &World, id: &str) -> u64 {
    experiment(world, id)["round"].as_u64().expect("a number of rounds")
}

/// Starts `researcher run` with standard error to read from, and returns the experiment's id.
fn run(world: &World, file: &str) -> (Child, BufReader<impl Read + use<>>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_fedbiomed"))
        .args(["researcher", "-p", &world.path("researcher"), "run", file])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut first = String::new();
    lines.read_line(&mut first).expect("a first line");
    let id = first.trim().rsplit(' ').next().expect("the id is its last word").to_owned();
    (child, lines, id)
}

fn signal(child: &Child, signal: Signal) {
    let process = child.id().try_into().ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(process, signal).expect("the process is there");
}

fn open_tasks(world: &World, node: &str) -> usize {
    world.json(&["node", "-p", &world.path(node), "tasks", "list"]).as_array().expect("a list").len()
}

#[test]
fn ctrl_c_cancels_on_the_nodes_and_a_closed_terminal_detaches() {
    let (mut world, file) = two_hospitals();
    let (mut child, mut lines, id) = run(&world, &file);
    world.eventually("a round is closed", |world| closed_rounds(world, &id) > 1);
    signal(&child, Signal::INT);
    let mut said = String::new();
    lines.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    assert!(said.contains("cancelling on all nodes"), "{said}");
    assert_eq!(state(&world, &id), "cancelled");
    for node in ["north", "south"] {
        world.eventually("the node has nothing left to do", |world| open_tasks(world, node) == 0);
    }

    // Resuming follows on a cancellation at once.
    let resumed = ok(&world.researcher(&["experiments", "resume", &id, "--detach"]));
    assert_eq!(resumed.trim(), id);
    ok(&world.researcher(&["experiments", "cancel", &id]));

    let (mut child, _lines, id) = run(&world, &file);
    world.eventually("a round is closed", |world| closed_rounds(world, &id) > 1);
    signal(&child, Signal::HUP);
    child.wait().unwrap();
    let seen = closed_rounds(&world, &id);
    world.eventually("it goes on without a terminal", |world| closed_rounds(world, &id) > seen);

    // Who only follows, stops following.
    let follow = Command::new(env!("CARGO_BIN_EXE_fedbiomed"))
        .args(["researcher", "-p", &world.path("researcher"), "experiments", "follow", &id[..14]])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut follow = follow;
    let mut lines = BufReader::new(follow.stderr.take().unwrap());
    lines.read_line(&mut String::new()).unwrap();
    signal(&follow, Signal::INT);
    follow.wait().unwrap();
    assert_eq!(state(&world, &id), "running");
    ok(&world.researcher(&["experiments", "cancel", &id]));
    assert_eq!(state(&world, &id), "cancelled");
}

#[test]
fn a_hospital_that_pauses_stops_at_once_and_the_researcher_sees_it() {
    let (mut world, file) = two_hospitals();
    let id = ok(&world.researcher(&["run", &file, "--detach"])).trim().to_owned();
    world.eventually("a round is closed", |world| closed_rounds(world, &id) > 1);
    ok(&world.node("south", &["pause"]));
    world.eventually("the hospital has nothing open", |world| open_tasks(world, "south") == 0);
    assert_eq!(world.json(&["node", "-p", &world.path("south"), "status"])[0]["paused"], true);
    world.eventually("the researcher sees who stopped", |world| {
        let nodes = experiment(world, &id)["snapshot"]["nodes"].clone();
        let south = nodes.as_array().unwrap().iter().find(|node| node["name"] == "south").unwrap().clone();
        south["state"] == "stopped_by_hospital" && south["reason"].as_str().unwrap().starts_with("stopped by the hospital")
    });
    let seen = closed_rounds(&world, &id);
    world.eventually("the others go on", |world| closed_rounds(world, &id) > seen);
    assert!(ok(&world.node("south", &["resume"])).contains("takes work again"));
    let said = refused(&world.node("north", &["tasks", "cancel", "task_00000000"]));
    assert!(said.contains("task_00000000"), "{said}");
    world.eventually("the last node's task is cancelled", |world| {
        ok(&world.node("north", &["tasks", "cancel", "--all"]));
        state(world, &id) == "failed"
    });
}

#[test]
fn lists_are_arrays_whose_keys_are_the_columns() {
    let (world, _) = two_hospitals();
    let (researcher, north) = (world.path("researcher"), world.path("north"));
    let lists: [(&[&str], &[&str]); 14] = [
        (&["researcher", "-p", &researcher, "nodes"], &["id", "name", "state"]),
        (&["researcher", "-p", &researcher, "datasets"], &["node", "name", "tags", "rows"]),
        (&["researcher", "-p", &researcher, "invitations", "list"], &["id", "name", "state"]),
        (&["researcher", "-p", &researcher, "experiments", "list"], &[]),
        (&["researcher", "-p", &researcher, "certificate", "list"], &["name", "key_fingerprint"]),
        (&["researcher", "-p", &researcher, "audit", "tail"], &["time", "event", "facts"]),
        (&["researcher", "-p", &researcher, "config", "show"], &["key", "value", "source"]),
        (&["researcher", "-p", &researcher, "status"], &["id", "listens"]),
        (&["node", "-p", &north, "dataset", "list"], &["id", "name", "tags", "state"]),
        (&["node", "-p", &north, "enrolment", "list"], &["researcher", "state"]),
        (&["node", "-p", &north, "tasks", "list"], &[]),
        (&["node", "-p", &north, "config", "show"], &["key", "value", "source"]),
        (&["node", "-p", &north, "certificate", "show"], &["state", "key_fingerprint"]),
        (&["node", "-p", &north, "status"], &["id", "process"]),
    ];
    for (words, keys) in lists {
        let rows = world.json(words);
        let rows = rows.as_array().unwrap_or_else(|| panic!("{words:?} prints no array"));
        assert_eq!(rows.is_empty(), keys.is_empty(), "{words:?}");
        let table = ok(&fedbiomed(words));
        for key in keys {
            assert!(rows[0].get(key).is_some(), "{words:?} has no {key}");
            assert!(table.contains(&key.replace('_', " ")), "{words:?} shows no {key}:\n{table}");
        }
    }
}

#[test]
fn a_restored_backup_is_the_same_component() {
    let mut world = World::with_researcher();
    world.admit("north", Path::new(&heart("cleveland")));
    world.connected(1);
    let (backup, moved) = (world.path("north.backup"), world.path("moved"));
    let said = refused(&fedbiomed(&["component", "backup", "-p", &world.path("north"), "-o", &backup]));
    assert!(said.contains("in use by process"), "{said}");
    let before = world.json(&["node", "-p", &world.path("north"), "dataset", "list"]);
    world.kill("north");
    world.connected(0);
    ok(&fedbiomed(&["component", "backup", "-p", &world.path("north"), "-o", &backup]));
    std::fs::remove_dir_all(world.path("north")).unwrap();
    let restored = fedbiomed(&["component", "restore", "-i", &backup, "-p", &moved]);
    ok(&restored);
    assert!(String::from_utf8_lossy(&restored.stderr).contains("must never run at the same time"));
    let mode = std::fs::metadata(&moved).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "the folder is for its owner only");
    assert!(refused(&fedbiomed(&["component", "restore", "-i", &backup, "-p", &moved])).contains("not empty"));
    let broken = world.experiment("broken.backup", "nothing");
    refused(&fedbiomed(&["component", "restore", "-i", &broken, "-p", &world.path("other")]));
    assert!(!Path::new(&world.path("other")).exists(), "a broken backup leaves nothing behind");
    world.start("moved");
    world.connected(1);
    assert_eq!(world.json(&["node", "-p", &moved, "dataset", "list"]), before);
    assert!(ok(&world.node("moved", &["audit", "verify"])).contains("none changed"));
}

#[test]
fn datasets_are_updated_refreshed_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path();
    // Default folders, as a person in a terminal has them.
    ok(&fedbiomed_in(here, &["component", "create", "-c", "node"]));
    let again = fedbiomed_in(here, &["component", "create", "-c", "node"]);
    assert!(refused(&again).contains("--exist-ok"));
    assert!(ok(&fedbiomed_in(here, &["component", "create", "-c", "node", "-eo"])).contains("there already"));
    let node = |words: &[&str]| fedbiomed_in(here, &[&["node"], words].concat());
    std::fs::copy(heart("cleveland"), here.join("heart.csv")).unwrap();
    ok(&node(&["dataset", "add", "--name", "Heart", "--tags", "heart,uci", "--data", "heart.csv", "--description", "UCI"]));
    let show = |words: &[&str]| -> Value { serde_json::from_str(&ok(&node(&[words, &["--json"]].concat()))).unwrap() };
    let list = show(&["dataset", "list"]);
    let id = list[0]["id"].as_str().unwrap();
    let short = id.split('-').next().unwrap();

    ok(&node(&["dataset", "update", short, "--name", "Hearts", "--tags", "cardio"]));
    let detail = show(&["dataset", "show", short])[0].clone();
    assert_eq!((&detail["name"], &detail["tags"][0], &detail["rows"]), (&"Hearts".into(), &"cardio".into(), &303.into()));

    let csv = std::fs::read_to_string(here.join("heart.csv")).unwrap();
    let last = csv.lines().last().unwrap().to_owned();
    std::fs::write(here.join("heart.csv"), format!("{csv}{last}\n")).unwrap();
    assert_eq!(show(&["dataset", "list"])[0]["state"], "changed");
    ok(&node(&["dataset", "refresh", short]));
    let list = show(&["dataset", "list"]);
    assert_eq!((&list[0]["state"], &list[0]["rows"]), (&"ready".into(), &304.into()));

    assert!(refused(&node(&["dataset", "delete", "--all"])).contains("-y"), "without a terminal yes must be said");
    ok(&node(&["-y", "dataset", "delete", "--all"]));
    assert_eq!(show(&["dataset", "list"]), Value::Array(Vec::new()));
    assert!(here.join("heart.csv").exists(), "the data stay");
}

#[test]
fn background_restart_and_stop() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path();
    let missing = refused(&fedbiomed_in(here, &["node", "status"]));
    assert!(missing.contains("fedbiomed component create -c node -p fbm-node"), "{missing}");
    ok(&fedbiomed_in(here, &["component", "create", "-c", "node"]));
    let node = |words: &[&str]| fedbiomed_in(here, &[&["node"], words].concat());
    let process =
        || -> Value { serde_json::from_str::<Value>(&ok(&node(&["status", "--json"]))).unwrap()[0]["process"].clone() };
    assert_eq!(process(), Value::Null);
    ok(&node(&["start", "--background", "--debug"]));
    let first = process();
    assert!(first.is_u64());
    assert!(refused(&node(&["start", "--background"])).contains("in use by process"));
    ok(&node(&["restart"]));
    let second = process();
    assert_ne!(first, second);
    let words = std::fs::read_to_string(format!("/proc/{second}/cmdline")).unwrap();
    assert!(words.contains("--debug"), "a restart keeps the arguments: {words:?}");
    ok(&node(&["start", "--background", "--force"]));
    assert_ne!(process(), second);
    assert!(ok(&node(&["stop"])).contains("stopped process"));
    assert_eq!(process(), Value::Null);
    assert!(ok(&node(&["stop"])).contains("not running"));
}

#[test]
fn an_experiment_without_nodes_says_what_it_waits_for_and_once_why_it_failed() {
    let mut world = World::with_researcher();
    let datasets = |world: &World, words: &[&str]| ok(&world.researcher(&[&["datasets"], words].concat()));
    assert!(datasets(&world, &[]).contains("no node is connected"));
    ok(&fedbiomed(&["component", "create", "-c", "node", "-p", &world.path("north"), "-n", "north"]));
    ok(&world.node("north", &["enroll", &world.invite("north")]));
    world.start("north");
    world.connected(1);
    assert!(datasets(&world, &[]).contains("the connected nodes offer no datasets"));
    assert!(datasets(&world, &["--tags", "heart"]).contains("the connected nodes offer no datasets"));
    let csv = heart("cleveland");
    let add = ["dataset", "add", "--name", "Lung", "--tags", "lung", "--data", &csv, "--description", "UCI"];
    let added = ok(&world.node("north", &add));
    assert!(!added.contains("parameters"), "nothing was given: {added}");
    let none = datasets(&world, &["--tags", "heart"]);
    assert!(none.contains("no connected node offers a dataset with the tags heart"), "{none}");

    let file = world.experiment("endless.toml", ENDLESS);
    let said = refused(&world.researcher(&["run", &file]));
    assert!(said.contains("waits a short while"), "{said}");
    assert!(said.contains("failed after 0 passes"), "{said}");
    assert_eq!(said.matches("no node has a dataset with the tags heart").count(), 1, "{said}");
    for file in ["metrics.csv", "report.html"] {
        assert!(!said.contains(file), "nothing is in it: {said}");
    }
    let id = world.json(&["researcher", "-p", &world.path("researcher"), "experiments", "list"])[0]["id"].clone();
    let shown = ok(&world.researcher(&["experiments", "show", id.as_str().unwrap()]));
    assert!(shown.contains("no node has a dataset with the tags heart") && !shown.contains("waiting"), "{shown}");
    for short in ["", "exper_", "abc"] {
        assert!(refused(&world.researcher(&["experiments", "show", short])).contains("at least 4 digits"), "{short:?}");
        assert!(refused(&world.node("north", &["enrolment", "forbid", short])).contains("error"), "{short:?}");
        assert!(refused(&world.node("north", &["dataset", "delete", short])).contains("error"), "{short:?}");
    }
    refused(&world.node("north", &["enrolment", "forbid", "RESEARCHER"]));
    assert_eq!(world.json(&["node", "-p", &world.path("north"), "dataset", "list"]).as_array().unwrap().len(), 1);
    assert_eq!(world.json(&["node", "-p", &world.path("north"), "enrolment", "list"])[0]["allowed"], true);
}

#[test]
fn help_version_and_examples_need_no_component() {
    assert!(ok(&fedbiomed(&["--version"])).starts_with("fedbiomed "));
    assert!(ok(&fedbiomed(&["researcher", "run", "--example"])).contains("[plan]"));
    assert!(ok(&fedbiomed(&["completions", "bash"])).contains("certificate"));
    for words in [["node", "certificate", "register", "--help"], ["researcher", "experiments", "resume", "--help"]] {
        assert!(ok(&fedbiomed(&words)).contains("Usage"));
    }
    assert!(text(&fedbiomed(&["node"]).stderr).contains("Usage"));
}

#[test]
fn the_default_folder_is_made_by_commands_that_begin_something_and_by_no_other() {
    let place = tempfile::tempdir().unwrap();
    let here = |words: &[&str]| fedbiomed_in(place.path(), words);
    let is_empty = || std::fs::read_dir(place.path()).unwrap().next().is_none();
    for words in [&["node", "status"][..], &["node", "dataset", "list"], &["node", "stop"], &["researcher", "nodes"]] {
        assert!(refused(&here(words)).contains("fedbiomed component create"), "{words:?}");
    }
    // A folder that somebody named is not made by accident.
    refused(&here(&["node", "-p", "./fmb-node", "start"]));
    refused(&here(&["researcher", "-p", "./fmb-researcher", "start"]));
    assert!(is_empty());

    let csv = format!("{HEART}/cleveland.csv");
    let dataset = ["--name", "Heart", "--tags", "heart", "--description", "UCI", "--data", &csv];
    let added = here(&[&["node", "dataset", "add"][..], &dataset].concat());
    ok(&added);
    let said = String::from_utf8_lossy(&added.stderr).into_owned();
    assert!(said.contains("made NODE_") && said.contains("fbm-node"), "{said}");
    assert!(!ok(&here(&["node", "dataset", "list"])).contains("no datasets"));

    // Its port is none, so that it ends at once.
    let mut start = Command::new(env!("CARGO_BIN_EXE_fedbiomed"));
    start.args(["researcher", "start"]).current_dir(place.path()).env("FBM_SERVER_PORT", "none").stdin(Stdio::null());
    start.env("XDG_STATE_HOME", env!("CARGO_TARGET_TMPDIR"));
    let said = refused(&start.output().unwrap());
    assert!(said.contains("made RESEARCHER_") && said.contains("fbm-researcher"), "{said}");
    assert!(place.path().join("fbm-researcher").is_dir());
}
