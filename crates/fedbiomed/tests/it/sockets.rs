//! Which sockets the daemons have, as the kernel sees it: a node listens nowhere, a researcher in one place.

use std::collections::BTreeSet;
use std::path::Path;

use crate::world::{HEART, World, ok};

/// Enough rounds that the sockets are looked at while it runs.
const EXPERIMENT: &str = r#"
name = "Watched"
tags = ["heart"]
rounds = 100

[plan]
model = "logistic"
target = "target"
standardise = true

[optimizer]
type = "sgd"
learning_rate = 0.1

[training]
epochs = 1
split_column = "split"
"#;

/// What `/proc` tells of a process.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Sockets {
    /// Local ports that accept TCP connections.
    pub(crate) listening: Vec<u16>,
    /// UDP and raw sockets.
    pub(crate) others: usize,
}

impl Sockets {
    pub(crate) fn of(process: u64) -> Self {
        let folder = Path::new("/proc").join(process.to_string());
        let open = std::fs::read_dir(folder.join("fd")).expect("a process of this user").flatten();
        // A file that was closed since has no link any more.
        let links = open.filter_map(|file| std::fs::read_link(file.path()).ok());
        let own: BTreeSet<String> =
            links.filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect();
        let mut sockets = Self::default();
        for table in ["tcp", "tcp6", "udp", "udp6", "raw", "raw6"] {
            // A machine without IPv6 has no table of it.
            let text = std::fs::read_to_string(folder.join("net").join(table)).unwrap_or_default();
            for line in text.lines().skip(1) {
                // proc_pid_net(5): 1 is the local address, 3 the state, 9 the inode.
                let fields: Vec<&str> = line.split_whitespace().collect();
                if !own.contains(fields[9]) {
                    continue;
                }
                match (table, fields[3]) {
                    ("tcp" | "tcp6", "0A") => {
                        let port = fields[1].rsplit(':').next().expect("address:port");
                        sockets.listening.push(u16::from_str_radix(port, 16).expect("a port in hexadecimal"));
                    }
                    ("tcp" | "tcp6", _) => {}
                    _ => sockets.others += 1,
                }
            }
        }
        sockets
    }
}

#[test]
fn a_node_listens_nowhere_and_a_researcher_in_one_place() {
    let mut world = World::with_researcher();
    world.admit("north", Path::new(&format!("{HEART}/cleveland.csv")));
    world.connected(1);
    let process = |role: &str, name: &str| {
        world.json(&[role, "-p", &world.path(name), "status"])[0]["process"].as_u64().expect("a daemon")
    };
    let (node, researcher) = (process("node", "north"), process("researcher", "researcher"));
    let port: u16 = world.address().rsplit(':').next().unwrap().parse().unwrap();

    let experiment = world.experiment("experiment.toml", EXPERIMENT);
    ok(&world.researcher(&["run", &experiment, "--detach"]));
    let mut seen_running = false;
    world.eventually("the experiment ends", |world| {
        let list = world.json(&["researcher", "-p", &world.path("researcher"), "experiments", "list"]);
        // The address is a number, so there is no name to look up, which would take UDP.
        let at_node = Sockets::of(node);
        assert_eq!((at_node.listening, at_node.others), (vec![], 0));
        let at_researcher = Sockets::of(researcher);
        assert_eq!((at_researcher.listening, at_researcher.others), (vec![port], 0));
        seen_running |= list[0]["state"] == "running";
        list[0]["state"] == "finished"
    });
    assert!(seen_running, "the sockets were looked at while the experiment ran");
}
