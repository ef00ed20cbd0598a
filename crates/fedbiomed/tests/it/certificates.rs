//! Enrolling by files that people carry.

use std::path::Path;

use serde_json::Value;

use crate::world::{HEART, World, fedbiomed, ok, refused};

/// Makes a node with a dataset that is enrolled with nobody.
fn node(world: &World, name: &str) {
    ok(&fedbiomed(&["component", "create", "-c", "node", "-p", &world.path(name), "-n", name]));
    let csv = format!("{HEART}/cleveland.csv");
    ok(&world.node(name, &["dataset", "add", "--name", "Heart", "--tags", "heart", "--data", &csv, "--description", "UCI"]));
}

/// Makes a request file and returns its path.
fn request(world: &World, name: &str, file: &str) -> String {
    let path = world.path(file);
    ok(&world.node(name, &["certificate", "generate", "--output", &path]));
    path
}

fn sign(world: &World, request: &str, name: &str, answer: &str) -> std::process::Output {
    world.researcher(&["certificate", "register", "--public-key", request, "--name", name, "--output", answer])
}

fn certificates(world: &World, name: &str) -> Vec<Value> {
    world.json(&["node", "-p", &world.path(name), "certificate", "list"]).as_array().expect("a list").clone()
}

fn audit(world: &World, name: &str) -> String {
    std::fs::read_to_string(world.folder().join(name).join("log/audit.jsonl")).expect("an audit log")
}

/// The keys of a component, by file name.
fn keys(world: &World, name: &str) -> Vec<String> {
    let entries = std::fs::read_dir(Path::new(&world.path(name)).join("etc/keys")).expect("its keys");
    entries.map(|entry| entry.expect("a file").file_name().into_string().expect("a UTF-8 name")).collect()
}

#[test]
fn a_node_enrols_by_files_and_connects() {
    let mut world = World::with_researcher();
    node(&world, "north");
    let (asked, answer) = (request(&world, "north", "north.csr"), world.path("north.answer"));
    ok(&sign(&world, &asked, "North Hospital", &answer));
    for file in [&asked, &answer] {
        assert!(!std::fs::read_to_string(file).unwrap().contains("PRIVATE"), "the key stays at the node");
    }
    let open = certificates(&world, "north");
    assert_eq!((open.len(), &open[0]["state"]), (1, &Value::from("requested")));

    // A running node takes the answer at once, and Fed-BioMed's flag does the same as the long one.
    world.start("north");
    ok(&world.node("north", &["certificate", "register", "-pk", &answer]));
    world.connected(1);
    let own = certificates(&world, "north");
    assert_eq!((own.len(), &own[0]["state"]), (1, &Value::from("good")));
    let researcher = world.path("researcher");
    let theirs = world.json(&["researcher", "-p", &researcher, "certificate", "list"]);
    assert_eq!(theirs[0]["key_fingerprint"], own[0]["key_fingerprint"]);
    assert_eq!(theirs[0]["name"], "North Hospital");
    let federation = world.json(&["researcher", "-p", &researcher, "certificate", "show"]);
    assert_eq!(federation[0]["key_fingerprint"], own[0]["ca_fingerprint"]);
    assert!(audit(&world, "north").contains("certificate.requested") && audit(&world, "north").contains("enrolment.made"));
    assert!(audit(&world, "researcher").contains("node.enrolled_by_file"));

    // A new certificate of the server changes nothing for the nodes.
    let server = federation[1]["key_fingerprint"].clone();
    ok(&world.researcher(&["certificate", "generate"]));
    let now = world.json(&["researcher", "-p", &researcher, "certificate", "show"]);
    assert_eq!(now[0], federation[0]);
    assert_ne!(now[1]["key_fingerprint"], server);
    world.kill("north");
    world.start("north");
    world.connected(1);

    ok(&world.researcher(&["certificate", "delete", "North Hospital"]));
    world.connected(0);
    let said = refused(&sign(&world, &asked, "North Hospital", &world.path("again.answer")));
    assert!(said.contains("revoked"), "{said}");
    assert!(audit(&world, "researcher").contains("enrolment.refused"));
    assert!(!Path::new(&world.path("again.answer")).exists(), "no answer is left behind");
    let id = own[0]["researcher"].as_str().unwrap();
    ok(&world.node("north", &["certificate", "delete", id]));
    assert!(certificates(&world, "north").is_empty() && keys(&world, "north").is_empty());
}

#[test]
fn answers_that_do_not_fit_change_nothing() {
    let world = World::with_researcher();
    node(&world, "north");
    node(&world, "south");
    let (asked, answer) = (request(&world, "north", "north.csr"), world.path("north.answer"));
    ok(&sign(&world, &asked, "north", &answer));

    let said = refused(&world.node("south", &["certificate", "register", "--public-key", &answer]));
    assert!(said.contains("no request"), "{said}");
    let damaged = std::fs::read_to_string(&answer).unwrap().replacen("Address: 127.0.0.1", "Address: 127.0.0.2", 1);
    let damaged = world.experiment("damaged.answer", &damaged);
    let said = refused(&world.node("north", &["certificate", "register", "--public-key", &damaged]));
    assert!(said.contains("signature"), "{said}");
    let said = refused(&world.node("north", &["certificate", "register", "--public-key", &asked]));
    assert!(said.contains("answer"), "{said}");
    let other = "NODE_00000000-0000-4000-8000-000000000000";
    let words = ["certificate", "register", "-pk", &asked, "-pi", other, "--name", "x"];
    assert!(refused(&world.researcher(&words)).contains("not from"));
    assert!(certificates(&world, "south").is_empty());
    assert_eq!(certificates(&world, "north")[0]["state"], "requested");

    ok(&world.node("north", &["certificate", "register", "--public-key", &answer]));
    let said = refused(&world.node("north", &["certificate", "register", "--public-key", &answer]));
    assert!(said.contains("--upsert"), "{said}");
    ok(&world.node("north", &["certificate", "register", "--public-key", &answer, "--upsert"]));

    // Another key for a node that is known must be wanted at both ends.
    let second = request(&world, "north", "second.csr");
    let answer = world.path("second.answer");
    assert!(refused(&sign(&world, &second, "north", &answer)).contains("--upsert"));
    let register = ["certificate", "register", "--public-key", &second, "--output", &answer, "--upsert", "--name"];
    let said = refused(&world.researcher(&[&register[..], &["south"]].concat()));
    assert!(said.contains("enrolled as \"north\""), "nobody becomes another hospital: {said}");
    ok(&world.researcher(&[&register[..], &["north"]].concat()));
    ok(&world.node("north", &["certificate", "register", "--public-key", &answer, "--upsert"]));
    assert_eq!(keys(&world, "north").len(), 1, "old keys are gone");
    request(&world, "north", "third.csr");
    let open = certificates(&world, "north").pop().unwrap();
    let digits: String = open["key_fingerprint"].as_str().unwrap().split(' ').take(3).collect();
    ok(&world.node("north", &["certificate", "delete", &digits]));
    assert_eq!(certificates(&world, "north").len(), 1);
}

/// The known researcher's folder with another authority in it, as an impostor who knows its id would have.
fn impostor(world: &World) -> String {
    let (known, other) = (world.path("researcher"), world.path("impostor"));
    ok(&fedbiomed(&["component", "create", "-c", "researcher", "-p", &other]));
    let config = std::fs::read_to_string(Path::new(&known).join("etc/config.toml")).expect("its configuration");
    std::fs::write(Path::new(&other).join("etc/config.toml"), config).expect("a writable folder");
    other
}

#[test]
fn another_authority_of_a_known_researcher_is_refused_loudly() {
    let mut world = World::with_researcher();
    node(&world, "north");
    let (asked, answer) = (request(&world, "north", "north.csr"), world.path("north.answer"));
    ok(&sign(&world, &asked, "north", &answer));
    ok(&world.node("north", &["certificate", "register", "--public-key", &answer]));
    let before = certificates(&world, "north");

    let impostor = impostor(&world);
    world.kill("researcher");
    std::fs::rename(world.path("researcher"), world.path("true")).unwrap();
    std::fs::rename(impostor, world.path("researcher")).unwrap();
    world.start("researcher");
    let (asked, answer) = (request(&world, "north", "second.csr"), world.path("second.answer"));
    ok(&sign(&world, &asked, "north", &answer));
    let words = ["certificate", "register", "--public-key", &answer, "--upsert"];
    let said = refused(&world.node("north", &words));
    assert!(said.contains("SOMEBODY ELSE ANSWERS"), "{said}");
    assert!(audit(&world, "north").contains("SOMEBODY ELSE ANSWERS"));
    assert_eq!(certificates(&world, "north")[0], before[0], "nothing changed");

    ok(&world.node("north", &["certificate", "delete", before[0]["researcher"].as_str().unwrap()]));
    ok(&world.node("north", &words));
}
