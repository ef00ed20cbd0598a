//! Direct key negotiation with real processes: who listens when, and what comes of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;

use crate::secagg::{THREE, begin, parameters};
use crate::sockets::Sockets;
use crate::world::{HEART, World, fedbiomed, ok, refused};

const RESEARCHER: &str = "researcher";

fn asked(way: &str) -> String {
    asked_with("lom", way)
}

fn asked_with(scheme: &str, way: &str) -> String {
    format!(
        r#"
name = "Direct"
tags = ["heart"]
rounds = 2
min_nodes = 3
secagg = "{scheme}"
key_negotiation = "{way}"

[plan]
model = "logistic"
standardise = true
features = ["age", "chol", "oldpeak"]
target = "target"

[optimizer]
type = "sgd"
learning_rate = 0.1

[training]
epochs = 1
batch_size = 0
seed = 3
"#
    )
}

/// A port below those that the system gives to outgoing connections, on which nobody listens now.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let offset = u32::from(NEXT.fetch_add(1, Ordering::Relaxed)) + std::process::id() * 16;
        let port = 16_000 + u16::try_from(offset % 16_000).expect("it is below 16,000");
        #[expect(clippy::disallowed_methods, reason = "a test looks for a port that is free")]
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn dial(port: u16) -> std::io::Result<TcpStream> {
    #[expect(clippy::disallowed_methods, reason = "a stranger does not ask the network matrix")]
    TcpStream::connect(("127.0.0.1", port))
}

/// Those of the ports that are open now, in the processes' order.
fn open(ports: &[(&'static str, u16)], processes: &[u64]) -> Vec<u16> {
    let listening = processes.iter().flat_map(|process| Sockets::of(*process).listening);
    listening.filter(|listening| ports.iter().any(|(_, port)| port == listening)).collect()
}

/// Opens a way from one port to another, in threads that end with the test.
fn pass_on(from: u16, to: u16) {
    #[expect(clippy::disallowed_methods, reason = "a way that is no part of the product")]
    let listener = std::net::TcpListener::bind(("127.0.0.1", from)).expect("the port is free");
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = dial(to) else { continue };
            let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else { continue };
            for (mut from, mut to) in [(near_too, far_too), (far, near)] {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
}

/// Components with a port each, which allow the direct way.
struct Direct {
    world: World,
    ports: Vec<(&'static str, u16)>,
}

impl Direct {
    /// Starts the components of a federation, none of which knows where the others negotiate.
    fn unregistered(rule: &str, timeout: &str) -> Self {
        let mut world = World::empty();
        let ports: Vec<_> = [RESEARCHER].iter().chain(&THREE).map(|name| (*name, free_port())).collect();
        ok(&fedbiomed(&["component", "create", "-c", "researcher", "-p", &world.path(RESEARCHER)]));
        for (name, port) in &ports {
            world.set_environment(vec![
                ("FBM_NEGOTIATION_HOST", "127.0.0.1".to_owned()),
                ("FBM_NEGOTIATION_PORT", port.to_string()),
                ("FBM_NEGOTIATION_TIMEOUT", timeout.to_owned()),
                ("FBM_SECURITY_NEGOTIATION", rule.to_owned()),
            ]);
            if *name == RESEARCHER {
                world.start(name);
            } else {
                world.admit(name, Path::new(&format!("{HEART}/{name}.csv")));
            }
        }
        world.connected(THREE.len());
        Self { world, ports }
    }

    /// As above, and every party is registered with every other.
    fn new(rule: &str, timeout: &str) -> Self {
        let direct = Self::unregistered(rule, timeout);
        for (at, _) in &direct.ports {
            for (party, port) in direct.ports.iter().filter(|(party, _)| party != at) {
                ok(&direct.register(at, party, *port, &[]));
            }
        }
        direct
    }

    fn words(&self, at: &str) -> Vec<String> {
        let role = if at == RESEARCHER { RESEARCHER } else { "node" };
        [role, "-y", "-p", &self.world.path(at)].map(str::to_owned).to_vec()
    }

    fn run(&self, at: &str, words: &[&str]) -> std::process::Output {
        let before = self.words(at);
        let all: Vec<&str> = before.iter().map(String::as_str).chain(words.iter().copied()).collect();
        fedbiomed(&all)
    }

    fn status(&self, of: &str) -> Value {
        let status: Value = serde_json::from_str(&ok(&self.run(of, &["status", "--json"]))).expect("JSON");
        status[0].clone()
    }

    fn id(&self, of: &str) -> String {
        self.status(of)["id"].as_str().expect("an id").to_owned()
    }

    fn process(&self, of: &str) -> u64 {
        self.status(of)["process"].as_u64().expect("a daemon")
    }

    /// Registers a party with the file that it exports.
    fn register(&self, at: &str, party: &str, port: u16, more: &[&str]) -> std::process::Output {
        let file = self.world.path(&format!("{party}.pem"));
        if !Path::new(&file).exists() {
            ok(&self.run(party, &["certificate", "export", "--output", &file]));
        }
        let (id, address) = (self.id(party), format!("127.0.0.1:{port}"));
        let words = ["certificate", "register", "--party-id", &id, "--public-key", &file, "--address", &address];
        self.run(at, &[&words, more].concat())
    }

    fn ended(&mut self, id: &str) -> Value {
        let mut shown = Value::Null;
        self.world.eventually("the experiment is over", |world| {
            shown = world.shown(id);
            !shown["ended"].is_null()
        });
        shown
    }
}

#[test]
fn keys_brought_directly_give_the_relayed_model_and_ports_are_open_only_meanwhile() {
    let mut direct = Direct::new("both", "60s");
    let way = free_port();
    for at in [RESEARCHER, "cleveland", "hungarian"] {
        ok(&direct.register(at, "va", way, &["--upsert"]));
    }
    let processes: Vec<u64> = direct.ports.iter().map(|(name, _)| direct.process(name)).collect();
    let ports = direct.ports.clone();

    // Relayed: nobody listens, from beginning to end.
    let id = begin(&direct.world, &asked("relay"));
    let mut relayed = Value::Null;
    direct.world.eventually("the relayed experiment ends", |world| {
        assert!(open(&ports, &processes).is_empty());
        relayed = world.shown(&id);
        !relayed["ended"].is_null()
    });
    assert_eq!(relayed["state"], "finished", "{}", relayed["ended"]["reason"]);

    // The way to one of them is closed at first, so that all wait for it and can be looked at.
    let id = begin(&direct.world, &asked("direct"));
    let awaited: Vec<u16> = ports.iter().map(|(_, port)| *port).collect();
    direct.world.eventually("all parties listen", |_| open(&ports, &processes) == awaited);
    for port in &awaited {
        // Strangers: one says nothing, one something else; the end of both is that they hear nothing, or that it is no TLS.
        let _silent = dial(*port).unwrap();
        let mut stranger = dial(*port).unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let _ = stranger.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer[0] == 21, "nothing but an alert of TLS: {answer:?}");
    }
    pass_on(way, awaited[3]);
    let shown = direct.world.finished(&id);
    assert!(open(&ports, &processes).is_empty(), "all ports are closed again");
    assert_eq!(parameters(&shown), parameters(&relayed), "the same bits");
    for (name, _) in &ports {
        let log = std::fs::read_to_string(direct.world.folder().join(name).join("log/audit.jsonl")).unwrap();
        for event in ["negotiation.opened", "negotiation.closed"] {
            assert_eq!(log.matches(event).count(), 1, "{event} at {name}");
        }
    }
    let log = std::fs::read_to_string(direct.world.folder().join("cleveland/log/audit.jsonl")).unwrap();
    assert!(log.contains("negotiation.rejected") && log.contains("it does not speak TLS"));
}

#[test]
fn shares_of_joye_libert_go_the_direct_way_too() {
    let mut direct = Direct::new("both", "60s");
    let [relayed, brought] = ["relay", "direct"].map(|way| {
        let id = begin(&direct.world, &asked_with("joye-libert", way));
        parameters(&direct.world.finished(&id))
    });
    assert_eq!(brought, relayed, "the same bits");
    let log = std::fs::read_to_string(direct.world.folder().join("va/log/audit.jsonl")).unwrap();
    let entries = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ended: Vec<Value> = entries.filter(|entry| entry["event"] == "negotiation.ended").collect();
    let steps: Vec<&str> = ended.iter().map(|entry| entry["facts"]["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["agree", "share_keys"], "once for each list of parties");
    assert!(ended.iter().all(|entry| entry["facts"]["troubles"] == serde_json::json!([])));
}

#[test]
fn a_party_that_is_registered_somewhere_else_is_named() {
    let mut direct = Direct::new("both", "4s");
    let (nobody, va) = (free_port(), direct.id("va"));
    let known = refused(&direct.register("cleveland", "va", nobody, &[]));
    assert!(known.contains("--upsert"), "{known}");
    ok(&direct.register("cleveland", "va", nobody, &["--upsert"]));
    let id = begin(&direct.world, &asked("direct"));
    let shown = direct.ended(&id);
    assert_eq!(shown["state"], "failed");
    let shown = shown.to_string();
    assert!(shown.contains(&format!("{va} could not be reached where it is registered")), "{shown}");
    assert!(!shown.contains(&nobody.to_string()), "the researcher is not told where: {shown}");
}

#[test]
fn who_is_not_registered_is_named_and_who_allows_one_way_only_says_so() {
    let mut direct = Direct::unregistered("both", "4s");
    let id = begin(&direct.world, &asked("direct"));
    let shown = direct.ended(&id);
    let reason = shown["ended"]["reason"].as_str().unwrap();
    assert!(reason.contains("is not registered for direct key negotiation"), "{reason}");

    // A file of another party is not taken.
    let file = direct.world.path("va.pem");
    ok(&direct.run("va", &["certificate", "export", "--output", &file]));
    let other = direct.id("hungarian");
    let words = ["certificate", "register", "-pi", &other, "-pk", &file, "--address", "127.0.0.1:14000"];
    assert!(refused(&direct.run("cleveland", &words)).contains("not from"));

    for (rule, way) in [("relay", "direct"), ("direct", "relay")] {
        let mut direct = Direct::new(rule, "4s");
        let id = begin(&direct.world, &asked(way));
        let shown = direct.ended(&id);
        assert_eq!(shown["state"], "failed");
        let wanted = format!("key_negotiation = \\\"{rule}\\\"");
        assert!(shown.to_string().contains(&wanted), "{rule}: {shown}");
    }
}

#[test]
fn parties_are_listed_and_removed() {
    let direct = Direct::new("relay", "4s");
    let list = |at: &str| -> Vec<Value> {
        serde_json::from_str(&ok(&direct.run(at, &["certificate", "parties", "--json"]))).unwrap()
    };
    assert_eq!((list("va").len(), list(RESEARCHER).len()), (3, 3));
    let peers: Vec<Value> = serde_json::from_str(&ok(&direct.run("va", &["peers", "list", "--json"]))).unwrap();
    assert!(peers.iter().all(|peer| peer["trust"] == "hand") && peers.len() == 2, "a registered key is a pinned one");
    let cleveland = direct.id("cleveland");
    for at in ["va", RESEARCHER] {
        ok(&direct.run(at, &["certificate", "remove", &cleveland]));
        assert!(list(at).iter().all(|row| row["party"] != cleveland.as_str()));
    }
}

#[test]
fn each_component_of_a_machine_gets_a_port_of_its_own_for_negotiations() {
    let world = World::empty();
    let create = |role: &str, name: &str| {
        let words = ["component", "create", "-c", role, "-p", &world.path(name)];
        let binary = std::process::Command::new(env!("CARGO_BIN_EXE_fedbiomed"));
        ok(&{ binary }.args(words).env("XDG_STATE_HOME", world.path("state")).output().unwrap());
        let words = [if role == "node" { "node" } else { role }, "-p", &world.path(name), "config", "show"];
        let rows = world.json(&words);
        let row = rows.as_array().unwrap().iter().find(|row| row["key"] == "negotiation.port").unwrap().clone();
        assert_eq!(row["source"], "file");
        row["value"].as_u64().unwrap()
    };
    let (researcher, north) = (create("researcher", "r"), create("node", "north"));
    assert!(researcher >= 14_000 && north > researcher);
    let south = create("node", "south");
    assert!(south > north);
    // The port of a component that is gone is given again.
    std::fs::remove_dir_all(world.path("north")).unwrap();
    assert_eq!(create("node", "west"), north);
}
