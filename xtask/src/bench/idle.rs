//! A node that has nothing to do: what it takes, and how fast it is there.

use std::fs;
use std::time::Duration;

use super::federation::{Federation, memory, until};
use super::{Bar, Figure, median};
use crate::project::{Problem, Project, stopwatch};

const STARTS: usize = 10;
/// After this a started node has settled.
const SETTLED: Duration = Duration::from_secs(2);

/// Each start is of another node with one dataset; seconds run from the process's start to the word in its log.
pub(super) fn run(project: &Project) -> Result<Vec<Figure>, Problem> {
    let mut federation = Federation::found(project, STARTS, 200)?;
    let mut starts = Vec::new();
    for number in 0..STARTS {
        let log = federation.node_folder(number).join("log/application.log");
        let begin = stopwatch();
        federation.start_node(number, None)?;
        let is_connected = || fs::read_to_string(&log).is_ok_and(|log| log.contains(" connected ")).then_some(());
        until("a node's connection", is_connected)?;
        starts.push(begin.elapsed().as_secs_f64());
    }
    federation.wait_for_nodes(STARTS)?;
    std::thread::sleep(SETTLED);
    let resident: Result<Vec<f64>, Problem> =
        federation.node_processes().map(|process| Ok(memory(process)?.1 as f64 / 1e6)).collect();
    Ok(vec![
        Figure::new("idle node, resident", median(resident?), "MB", Bar::AtMost(20.0)),
        Figure::new("node connected after its start", median(starts) * 1e3, "ms", Bar::AtMost(250.0)),
    ])
}
