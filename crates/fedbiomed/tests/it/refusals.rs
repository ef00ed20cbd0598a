//! Bad input gets one clear line, and nothing is lost or changed by it.

use std::io::Write;
use std::net::Shutdown;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::tutorial::EXPERIMENT;
use crate::world::{HEART, World, fedbiomed, ok, refused};

fn researcher_audit(world: &World) -> String {
    std::fs::read_to_string(world.folder().join("researcher/log/audit.jsonl")).expect("an audit log")
}

#[test]
fn a_token_works_once_and_only_whole() {
    let mut world = World::with_researcher();
    for name in ["a", "b"] {
        ok(&fedbiomed(&["component", "create", "-c", "node", "-p", &world.path(name), "-n", name]));
    }
    let token = world.invite("a");
    let mut forged = token.clone().into_bytes();
    let middle = forged.len() / 2;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    refused(&world.node("a", &["enroll", &String::from_utf8(forged).unwrap()]));
    ok(&world.node("a", &["enroll", &token]));
    let again = refused(&world.node("b", &["enroll", &token]));
    assert!(again.contains("used"), "{again}");
    assert!(researcher_audit(&world).contains("token_used"));

    let token = world.invite("b");
    let researcher = world.path("researcher");
    let open = world.json(&["researcher", "-p", &researcher, "invitations", "list"]);
    let id = open.as_array().unwrap().iter().find(|row| row["state"] == "open").unwrap()["id"].as_str().unwrap();
    ok(&world.researcher(&["invitations", "revoke", id]));
    assert!(refused(&world.node("b", &["enroll", &token])).contains("revoked"));

    assert!(refused(&world.researcher(&["invite", "--name", "x", "--address", "0.0.0.0:50051"])).contains("0.0.0.0"));
    world.start("a");
    world.connected(1);
}

#[test]
fn a_revoked_node_is_cut_at_once_and_stays_out() {
    let mut world = World::with_researcher();
    world.admit("north", Path::new(&format!("{HEART}/cleveland.csv")));
    world.connected(1);
    ok(&world.researcher(&["revoke", "north"]));
    world.connected(0);
    world.kill("researcher");
    world.start("researcher");
    let researcher = world.path("researcher");
    world.eventually("the node is told", |world| {
        std::fs::read_to_string(world.folder().join("north.stderr")).unwrap().contains("revoked")
    });
    assert_eq!(world.json(&["researcher", "-p", &researcher, "nodes"])[0]["state"], "revoked");
}

#[test]
fn damaged_tables_are_refused_with_line_and_column() {
    let dir = tempfile::tempdir().unwrap();
    let node = dir.path().join("node").to_str().unwrap().to_owned();
    ok(&fedbiomed(&["component", "create", "-c", "node", "-p", &node]));
    let cases: [(&str, &[u8], &[&str]); 5] = [
        ("ragged", b"a,b\n1,2\n3\n", &["line 3"]),
        ("text", b"a,b\n1,2\n2,3\nx,4\n", &[]),
        ("latin1", b"a,b\n1,caf\xe9\n", &["line 2"]),
        ("empty", b"", &["empty"]),
        ("nul", b"a,b\n1,\0\n", &["line 2"]),
    ];
    for (name, bytes, words) in cases {
        let file = dir.path().join(format!("{name}.csv"));
        std::fs::write(&file, bytes).unwrap();
        let description = serde_json::json!({
            "name": name, "data_type": "csv", "path": file, "tags": [name], "description": "for a test",
            "dataset_parameters": { "column_types": { "a": "integer" } },
        });
        let json = dir.path().join("dataset.json");
        std::fs::write(&json, description.to_string()).unwrap();
        let said = refused(&fedbiomed(&["node", "-p", &node, "dataset", "add", "--file", json.to_str().unwrap()]));
        for word in words {
            assert!(said.to_lowercase().contains(word), "{name}: {said}");
        }
    }
    let missing = ["dataset", "add", "--name", "gone", "--tags", "gone", "--description", "none", "--data", "/nowhere.csv"];
    refused(&fedbiomed(&[&["node", "-p", &node], missing.as_slice()].concat()));
    assert_eq!(ok(&fedbiomed(&["node", "-p", &node, "dataset", "list", "--json"])).trim(), "[]", "nothing is registered");
}

#[test]
fn reasons_of_a_node_reach_the_researcher_without_path_or_value() {
    let mut world = World::with_researcher();
    let folder = world.folder();
    let header = "age,sex,trestbps,chol,fbs,thalach,exang,oldpeak,split,target\n";
    let one_class = folder.join("secretname-one.csv");
    std::fs::write(&one_class, header.to_owned() + &"61.5,1,120,200,0,150,0,1.5,train,1\n".repeat(8)).unwrap();
    let blank = folder.join("secretname-blank.csv");
    let rows = "61.5,1,,200,0,150,0,1.5,train,1\n61.5,1,130,200,0,150,0,1.5,train,0\n";
    std::fs::write(&blank, header.to_owned() + &rows.repeat(8)).unwrap();
    for (name, csv, words) in [("one", one_class, "class"), ("blank", blank, "missing")] {
        world.admit(name, &csv);
        world.connected(1);
        let experiment = EXPERIMENT.replace("min_nodes = 2", "min_nodes = 1\non_failure = \"fail\"");
        let file = world.experiment("experiment.toml", &experiment);
        let said = refused(&world.researcher(&["run", &file]));
        assert!(said.to_lowercase().contains(words), "{name}: {said}");
        assert!(!said.contains("secretname") && !said.contains("61.5"), "{said}");
        let file = world.experiment("experiment.toml", &experiment.replace("\"age\"", "\"agee\""));
        let said = refused(&world.researcher(&["run", &file]));
        assert!(said.contains("agee"), "{said}");
        ok(&world.node(name, &["dataset", "delete", "--all"]));
        ok(&world.researcher(&["revoke", name]));
        world.connected(0);
        world.kill(name);
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "this test plays the stranger who opens sockets")]
fn random_bytes_on_the_port_disturb_nobody() {
    let mut world = World::with_researcher();
    world.admit("north", Path::new(&format!("{HEART}/cleveland.csv")));
    world.admit("south", Path::new(&format!("{HEART}/hungarian.csv")));
    world.connected(2);
    let address = world.address();
    let mut rng = StdRng::seed_from_u64(4);
    for _ in 0..10_000 {
        let mut bytes = vec![0; rng.random_range(0..256)];
        rng.fill_bytes(&mut bytes);
        let mut stream = std::net::TcpStream::connect(&address).expect("the port stays open");
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Both);
    }
    world.connected(2);
    let file = world.experiment("experiment.toml", EXPERIMENT);
    ok(&world.researcher(&["run", &file]));
}

#[test]
fn a_second_daemon_and_a_taken_port_are_refused_with_the_holder() {
    let world = World::with_researcher();
    let said = refused(&world.researcher(&["start"]));
    assert!(said.contains("in use by process"), "{said}");
    let other = world.path("other");
    ok(&fedbiomed(&["component", "create", "-c", "researcher", "-p", &other]));
    let port = world.address().rsplit(':').next().unwrap().to_owned();
    let config = format!("\n[server]\nhost = \"127.0.0.1\"\nport = {port}\n");
    let file = Path::new(&other).join("etc/config.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    let kept: Vec<&str> = before.lines().take_while(|line| !line.starts_with("[server]")).collect();
    std::fs::write(&file, kept.join("\n") + &config).unwrap();
    let said = refused(&fedbiomed(&["researcher", "-p", &other, "start"]));
    assert!(said.contains(&port), "{said}");
}
