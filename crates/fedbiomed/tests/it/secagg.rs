//! Secure aggregation from outside: the model is that of the plain run, one node's contribution looks like noise, a lost node costs
//! nothing, and nodes refuse what their owners do not allow.

use std::path::{Path, PathBuf};

use protocol::Tensors;
use serde_json::Value;

use crate::world::{HEART, World, fedbiomed, ok, refused};

pub(crate) const THREE: [&str; 3] = ["cleveland", "hungarian", "va"];
const FOUR: [&str; 4] = ["cleveland", "hungarian", "switzerland", "va"];

/// Rows of the four files.
const ROWS: [(&str, u64); 4] = [("cleveland", 303), ("hungarian", 261), ("switzerland", 46), ("va", 130)];

/// The words after the experiment's name, the plan and its training.
struct Asked<'words> {
    header: &'words str,
    plan: &'words str,
    training: &'words str,
}

const LOGISTIC: &str = "model = \"logistic\"\nstandardise = true";

impl Asked<'_> {
    fn text(&self) -> String {
        let Self { header, plan, training } = self;
        format!(
            r#"
name = "Hidden sums"
tags = ["heart"]
{header}

[plan]
{plan}
features = ["age", "sex", "trestbps", "chol", "thalach", "oldpeak"]
target = "target"

[optimizer]
type = "sgd"
learning_rate = 0.1

[training]
{training}
"#
        )
    }
}

/// A federation of these hospitals.
pub(crate) fn federation(sites: &[&str]) -> World {
    let mut world = World::with_researcher();
    for site in sites {
        world.admit(site, Path::new(&format!("{HEART}/{site}.csv")));
    }
    world.connected(sites.len());
    world
}

pub(crate) fn begin(world: &World, text: &str) -> String {
    let file = world.experiment("experiment.toml", text);
    ok(&world.researcher(&["run", &file, "--detach"])).trim().to_owned()
}

/// Runs an experiment to its end and returns all about it.
fn run(world: &mut World, text: &str) -> Value {
    let id = begin(world, text);
    world.finished(&id)
}

/// The elements of a finished experiment's model.
pub(crate) fn parameters(shown: &Value) -> Vec<f64> {
    let bytes = std::fs::read(shown["ended"]["model"].as_str().expect("a model")).expect("the model file");
    let tensors = Tensors::from_bytes(&bytes).expect("a safetensors file");
    ["weight", "bias"].iter().flat_map(|name| tensors.get(name).expect("a tensor").scalars().to_f64()).collect()
}

/// The closed rounds of one kind.
fn rounds<'shown>(shown: &'shown Value, kind: &str) -> Vec<&'shown Value> {
    shown["records"].as_array().expect("records").iter().filter(|record| record["kind"] == kind).collect()
}

/// What was admitted at a node, by the work's name, in one round.
fn admitted(world: &World, node: &str, id: &str, round: u64) -> Vec<String> {
    let log = std::fs::read_to_string(world.folder().join(node).join("log/audit.jsonl")).expect("an audit log");
    let entries = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let facts = entries.filter(|entry| entry["event"] == "task.admitted").map(|entry| entry["facts"].clone());
    let here = facts.filter(|facts| facts["experiment"] == id && facts["round"] == round);
    here.map(|facts| facts["work"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn a_model_under_lom_is_the_plain_model_within_the_stated_bound() {
    const ROUNDS: u32 = 10;
    let mut world = federation(&THREE);
    let asked = |secagg: &str, precision: &str| {
        let header = format!("rounds = {ROUNDS}\nmin_nodes = 3\nsecagg = \"{secagg}\"");
        let plan = format!("{LOGISTIC}\nprecision = \"{precision}\"");
        Asked { header: &header, plan: &plan, training: "epochs = 2\nbatch_size = 0\ntest_ratio = 0.25\nseed = 3" }.text()
    };
    // 128 bits: the same integers are summed.
    let [plain, hidden] = ["none", "lom"].map(|secagg| run(&mut world, &asked(secagg, "float64")));
    assert_eq!(parameters(&hidden), parameters(&plain), "float64: the same bits");
    for kind in ["sums", "squared_differences", "training", "validation"] {
        let pairs = rounds(&plain, kind).into_iter().zip(rounds(&hidden, kind));
        for (plain, hidden) in pairs {
            for key in ["train_rows", "loss", "metrics", "confusion"] {
                assert_eq!(hidden[key], plain[key], "{kind} {key}");
            }
        }
        assert_eq!(rounds(&plain, kind).len(), rounds(&hidden, kind).len(), "{kind}");
    }

    // 32 bits. Rounding a weighted difference moves it by less than 2^-e with e = 31 - ceil(log2 clip) - log2 W; here clip = 3 and
    // W = 1024 is at least the 521 training rows. Three nodes round, and the mean divides by the rows. A parameter in float32 is
    // rounded too, by 2^-24 of its size. One descent of this convex loss with so short a step brings no two models further apart, so
    // that rounds add up; the square root bounds one parameter by the distance of all seven.
    let [plain, hidden] = ["none", "lom"].map(|secagg| parameters(&run(&mut world, &asked(secagg, "float32"))));
    let largest = plain.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let a_round = 2.0 * (3.0 * (-19_f64).exp2() / 521.0 + largest * (-24_f64).exp2());
    let bound = f64::from(ROUNDS) * 7_f64.sqrt() * a_round;
    for (hidden, plain) in hidden.iter().zip(&plain) {
        assert!((hidden - plain).abs() <= bound, "{hidden} against {plain}: more than {bound}");
    }
}

#[test]
fn a_statistic_under_lom_is_the_plain_statistic_to_the_last_bit() {
    let mut world = federation(&THREE);
    let asked = |secagg: &str| {
        format!(
            "name = \"Moments\"\ntags = [\"heart\"]\nsecagg = \"{secagg}\"\n\n[plan]\nstatistic = \"moments\"\n\
             columns = [\"age\", \"chol\", \"oldpeak\"]\n"
        )
    };
    let [plain, hidden] = ["none", "lom"].map(|secagg| run(&mut world, &asked(secagg))["ended"]["moments"].clone());
    assert_eq!(hidden, plain);
    assert_eq!(hidden[0]["count"], 303 + 261 + 130);
}

#[test]
fn under_lom_the_researcher_shows_no_value_of_one_node() {
    let mut world = federation(&THREE);
    let header = "rounds = 2\nmin_nodes = 3\nsecagg = \"lom\"";
    let text = Asked { header, plan: LOGISTIC, training: "epochs = 1\nbatch_size = 0\ntest_ratio = 0.25" }.text();
    let shown = run(&mut world, &text);
    for record in shown["records"].as_array().expect("records") {
        for node in record["nodes"].as_array().expect("nodes") {
            for key in ["train_rows", "test_rows", "dropped_rows", "loss", "work_ms"] {
                assert!(node[key].is_null(), "{key} of {node}");
            }
            assert!(node["measured"].as_array().is_none_or(Vec::is_empty), "{node}");
        }
    }
    let training = rounds(&shown, "training");
    assert!(training.iter().all(|round| round["loss"].is_f64() && round["train_rows"].as_u64() > Some(0)), "{training:?}");
    // What is null there is known at each hospital.
    let mut rows = 0;
    for site in THREE {
        let own = world.json(&["node", "-p", &world.path(site), "results"]);
        let own = own.as_array().expect("rows").iter().find(|row| row["work"] == "train").expect("a training").clone();
        rows += own["train_rows"].as_u64().expect("a number");
        assert!(own["loss"].is_f64(), "{own}");
    }
    assert_eq!(training[0]["train_rows"], rows);
    let metrics = std::fs::read_to_string(shown["ended"]["metrics_csv"].as_str().expect("a path")).expect("the metrics");
    for site in THREE {
        for line in metrics.lines().filter(|line| line.contains(site)) {
            assert!(!line.split(',').any(|cell| cell.parse::<f64>().is_ok_and(|value| value.fract() != 0.0)), "{line}");
        }
    }
}

#[test]
fn a_node_killed_after_its_masked_contribution_costs_no_exchange() {
    let mut world = federation(&FOUR);
    let header = "rounds = 6\nmin_nodes = 3\nnode_timeout = \"3s\"\non_failure = \"drop\"\nsecagg = \"lom\"";
    let text = Asked { header, plan: LOGISTIC, training: "epochs = 300\nbatch_size = 1" }.text();
    let id = begin(&world, &text);
    // Cleveland waits, so that the others' contributions are there and nobody can attest yet.
    let (_, round) = caught(&mut world, &id, "cleveland", 3);
    world.kill("va");
    world.resume("cleveland");
    let shown = world.finished(&id);
    let all = shown["records"].as_array().expect("records");
    let with = all.iter().find(|record| record["round"] == round).expect("the round was closed");
    assert_eq!((&with["attempt"], &with["train_rows"]), (&0.into(), &ROWS.iter().map(|(_, rows)| rows).sum::<u64>().into()));
    assert!(with["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(|node| node["state"] == "contributed")), "{with}");
    // One signature and one revelation of each, as in any other round.
    for node in ["cleveland", "hungarian", "switzerland"] {
        let works = admitted(&world, node, &id, round);
        for step in ["train", "attest", "reveal"] {
            assert_eq!(works.iter().filter(|work| *work == step).count(), 1, "{node}: {works:?}");
        }
    }
    let last = rounds(&shown, "training").pop().expect("a round").clone();
    assert_eq!((&last["training_round"], &last["train_rows"]), (&6.into(), &(303 + 261 + 46).into()), "without va");
}

#[test]
fn a_node_killed_before_its_contribution_leaves_the_sum_of_the_others() {
    let mut world = federation(&FOUR);
    let header = "rounds = 6\nmin_nodes = 3\nnode_timeout = \"3s\"\non_failure = \"drop\"\nsecagg = \"lom\"";
    let text = Asked { header, plan: LOGISTIC, training: "epochs = 300\nbatch_size = 1" }.text();
    let id = begin(&world, &text);
    let (_, round) = caught(&mut world, &id, "va", 3);
    world.kill("va");
    let shown = world.finished(&id);
    let all = shown["records"].as_array().expect("records");
    let without = all.iter().find(|record| record["round"] == round).expect("the round was closed");
    assert_eq!((&without["attempt"], &without["train_rows"]), (&0.into(), &(303 + 261 + 46).into()));
    let moved = parameters(&shown).into_iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    assert!(moved < 10.0, "masks that are left over are larger by far");
}

/// Stops one node before it has contributed to a training round, and returns the others' whole contributions as the researcher
/// keeps them, and the round's number. So many others there must be.
pub(crate) fn caught(world: &mut World, id: &str, node: &str, others: usize) -> (Vec<PathBuf>, u64) {
    /// Looks at a round that may stand still; each asks a process.
    const LOOKS: u32 = 40;
    let spool = world.folder().join("researcher/var/spool");
    for _ in 0..50 {
        world.pause(node);
        let mut shown = Value::Null;
        for _ in 0..LOOKS {
            shown = world.shown(id);
            assert!(shown["ended"].is_null(), "too late: the experiment is over");
            let snapshot = &shown["snapshot"];
            let seats: Vec<&Value> = snapshot["nodes"].as_array().expect("nodes").iter().collect();
            let contributed = |seat: &&&Value| seat["state"] == "contributed";
            let is_first = seats.iter().any(|seat| seat["name"] == node && seat["state"] == "contributed");
            if snapshot["kind"] == "training" && !is_first && seats.iter().filter(contributed).count() == others {
                let task = |seat: &&Value| spool.join(seat["task"].as_str().expect("a task"));
                let files = seats.iter().filter(contributed).map(task).collect();
                return (files, snapshot["round"].as_u64().expect("a number"));
            }
        }
        // It stopped somewhere else: on to another place.
        world.resume(node);
        let place = |shown: &Value| {
            let states = shown["snapshot"]["nodes"].as_array().map(|nodes| nodes.iter().map(|node| node["state"].clone()));
            (shown["snapshot"]["round"].clone(), shown["snapshot"]["step"].clone(), states.map(Vec::from_iter))
        };
        let before = place(&shown);
        world.eventually("the round goes on", |world| place(&world.shown(id)) != before);
    }
    panic!("{node} was never caught before it had contributed");
}

/// Pearson's statistic of the bytes' frequencies against equal ones; 255 degrees of freedom.
fn chi_square(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let expected = bytes.len() as f64 / 256.0;
    counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum()
}

/// Random bytes exceed this with a probability of 1e-7 (Wilson and Hilferty 1931: 255·(1 - 2/2295 + 5.1993·√(2/2295))³). Eight
/// statistics are looked at, so that the test fails by chance less than once in 10^6 runs.
const LARGEST_CHI_SQUARE: f64 = 390.5;

#[test]
fn what_the_researcher_stores_of_one_node_looks_like_random_bytes() {
    let mut world = federation(&THREE);
    let mut statistics = |secagg: &str| {
        let header = format!("rounds = 500\nmin_nodes = 3\nsecagg = \"{secagg}\"");
        // 6·310 + 310 + 310·310 + 310 + 310 + 1 = 98,891 parameters.
        let plan = "standardise = true\nmodel = { type = \"mlp\", hidden = [310, 310], outcome = \"binary\" }";
        let text = Asked { header: &header, plan, training: "num_updates = 5\nbatch_size = 8" }.text();
        let id = begin(&world, &text);
        let (files, _) = caught(&mut world, &id, "cleveland", 2);
        let contents: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).expect("a spooled file")).collect();
        world.resume("cleveland");
        ok(&world.researcher(&["experiments", "cancel", &id]));
        world.eventually("the nodes are free again", |world| {
            let tasks = |node| world.json(&["node", "-p", &world.path(node), "tasks", "list"]);
            THREE.into_iter().all(|node| tasks(node).as_array().is_some_and(Vec::is_empty))
        });
        assert!(contents.iter().all(|bytes| bytes.len() >= 4 * 98_891), "a whole contribution");
        // All bytes, and the highest of each element by itself: there a value that is small would show.
        let high = |bytes: &Vec<u8>| bytes.iter().skip(3).step_by(4).copied().collect::<Vec<u8>>();
        let both = contents.iter().flat_map(|bytes| [chi_square(bytes), chi_square(&high(bytes))]);
        both.collect::<Vec<f64>>()
    };
    let hidden = statistics("lom");
    assert!(hidden.iter().all(|statistic| *statistic < LARGEST_CHI_SQUARE), "masked: {hidden:?}");
    let plain = statistics("none");
    assert!(plain.iter().all(|statistic| *statistic > LARGEST_CHI_SQUARE), "not masked: {plain:?}");
}

/// What `researcher run` says when an experiment fails.
fn failure(world: &World, secagg: &str) -> String {
    let header = format!("rounds = 2\nmin_nodes = 3\non_failure = \"fail\"\nsecagg = \"{secagg}\"");
    let text = Asked { header: &header, plan: LOGISTIC, training: "epochs = 1" }.text();
    let file = world.experiment("experiment.toml", &text);
    refused(&world.researcher(&["run", &file]))
}

fn succeeds(world: &mut World, secagg: &str) {
    let header = format!("rounds = 2\nmin_nodes = 3\non_failure = \"fail\"\nsecagg = \"{secagg}\"");
    run(world, &Asked { header: &header, plan: LOGISTIC, training: "epochs = 1" }.text());
}

/// Starts a node again under other rules.
fn restart_with(world: &mut World, node: &str, rules: &[(&'static str, &str)]) {
    world.kill(node);
    world.set_environment(rules.iter().map(|(name, value)| (*name, (*value).to_owned())).collect());
    world.start(node);
    world.set_environment(Vec::new());
    world.connected(3);
}

#[test]
fn nodes_refuse_what_their_owners_do_not_allow_and_say_so_in_words() {
    const RULE: &str = "FBM_SECURITY_SECURE_AGGREGATION";
    const ROSTER: &str = "FBM_SECURITY_ROSTER";
    let mut world = federation(&THREE);

    restart_with(&mut world, "va", &[(RULE, "required"), (ROSTER, "enrolment")]);
    let said = failure(&world, "none");
    assert!(said.contains("va") && said.contains("secure_aggregation_required"), "{said}");
    succeeds(&mut world, "lom");

    restart_with(&mut world, "va", &[(RULE, "off")]);
    let said = failure(&world, "lom");
    assert!(said.contains("va") && said.contains("secure_aggregation_not_allowed"), "{said}");
    succeeds(&mut world, "none");

    // The roster is pinned by default where secure aggregation is required, and nobody is in it yet.
    restart_with(&mut world, "va", &[(RULE, "required")]);
    let said = failure(&world, "lom");
    assert!(said.contains("va") && said.contains("roster_mismatch"), "{said}");
    for other in ["cleveland", "hungarian"] {
        let own = world.json(&["node", "-p", &world.path(other), "certificate", "show"])[0].clone();
        let (node, key) = (own["node"].as_str().expect("an id"), own["key_fingerprint"].as_str().expect("a fingerprint"));
        ok(&world.node("va", &["peers", "trust", node, "--fingerprint", key]));
    }
    succeeds(&mut world, "lom");
    let peers = world.json(&["node", "-p", &world.path("va"), "peers", "list"]);
    assert_eq!(peers.as_array().map(Vec::len), Some(2), "{peers}");
    let one = peers[0]["node"].as_str().expect("an id").to_owned();
    ok(&world.node("va", &["peers", "distrust", &one]));
    let said = failure(&world, "lom");
    assert!(said.contains("roster_mismatch"), "{said}");
}

#[test]
fn two_nodes_are_told_what_each_would_learn_and_three_that_none_may_be_lost() {
    let mut world = federation(&["cleveland", "va"]);
    let text = |header: &str| Asked { header, plan: LOGISTIC, training: "epochs = 1" }.text();
    let said = |world: &World, header: &str| {
        let file = world.experiment("experiment.toml", &text(header));
        let output = world.researcher(&["run", &file]);
        (output.status.success(), String::from_utf8(output.stderr).expect("UTF-8"))
    };
    let (is_done, words) = said(&world, "rounds = 1\nmin_nodes = 2");
    assert!(
        is_done && words.contains("values are seen by this researcher"),
        "the sum of two is not hidden, and that is said: {words}"
    );
    let (is_done, words) = said(&world, "rounds = 1\nmin_nodes = 2\non_failure = \"fail\"\nsecagg = \"lom\"");
    assert!(!is_done && words.contains("min_parties"), "{words}");
    world.admit("hungarian", Path::new(&format!("{HEART}/hungarian.csv")));
    world.connected(3);
    let (is_done, words) = said(&world, "rounds = 1\nmin_nodes = 3\nsecagg = \"lom\"");
    assert!(is_done && words.contains("survives the loss of none"), "{words}");
}

#[test]
fn a_peer_is_taken_by_the_key_that_was_read_out_or_by_its_file() {
    let world = World::with_researcher();
    for name in ["north", "south"] {
        ok(&fedbiomed(&["component", "create", "-c", "node", "-p", &world.path(name), "-n", name]));
    }
    ok(&world.node("north", &["enroll", &world.invite("north")]));
    let file = world.path("south.csr");
    ok(&world.node("south", &["certificate", "generate", "--output", &file]));
    let own = world.json(&["node", "-p", &world.path("south"), "certificate", "show"])[0].clone();
    let (south, key) = (own["node"].as_str().expect("an id"), own["key_fingerprint"].as_str().expect("a fingerprint"));
    let peers = |words: &[&str]| world.node("north", &[&["peers"], words].concat());
    assert!(ok(&peers(&["list"])).contains("no other node is known here yet"));

    assert!(refused(&peers(&["trust", south])).contains("--fingerprint"), "one of the two must be given");
    refused(&peers(&["trust", south, "--fingerprint", key, "--public-key", &file]));
    refused(&peers(&["trust", south, "--fingerprint", &key[..key.len() - 1]]));
    let other = format!("{}0", &south[..south.len() - 1]);
    if other != south {
        let said = refused(&peers(&["trust", &other, "--public-key", &file]));
        assert!(said.contains("nothing changed"), "{said}");
    }
    assert_eq!(world.json(&["node", "-p", &world.path("north"), "peers", "list"]), Value::Array(Vec::new()));

    ok(&peers(&["trust", south, "--public-key", &file, "--name", "South Hospital"]));
    let list = world.json(&["node", "-p", &world.path("north"), "peers", "list"]);
    assert_eq!((&list[0]["node"], &list[0]["fingerprint"]), (&south.into(), &key.into()));
    assert_eq!((&list[0]["trust"], &list[0]["name"]), (&"hand".into(), &"South Hospital".into()));
    let short = south.split('-').next().expect("a beginning");
    ok(&peers(&["distrust", short]));
    let list = world.json(&["node", "-p", &world.path("north"), "peers", "list"]);
    assert!(list.as_array().is_some_and(|rows| rows.iter().all(|row| row["trust"] == "distrusted")), "{list}");
    assert!(ok(&world.node("north", &["results"])).contains("no round yet"));
}
