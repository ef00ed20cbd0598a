//! A federation of real processes in a folder of its own: components, data and daemons, made and unmade by a benchmark.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::project::{Problem, Project, output_of, run, stopwatch};

/// How long daemons may take to start and nodes to connect.
const PATIENCE: Duration = Duration::from_mins(3);

/// The features of every synthetic dataset.
pub(super) const FEATURES: usize = 30;

/// Components and the processes that run them. Dropping it ends the processes and removes the folder.
pub(super) struct Federation {
    program: PathBuf,
    root: PathBuf,
    researcher: Option<Child>,
    nodes: Vec<Child>,
    address: SocketAddr,
}

#[derive(Deserialize)]
struct Status {
    listens: SocketAddr,
}

#[derive(Deserialize)]
struct Node {
    state: String,
}

/// A closed round, as `researcher run --json` prints it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Round {
    pub(super) seconds: f64,
    pub(super) nodes: Vec<Contributor>,
}

/// A node's part of a closed round.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Contributor {
    pub(super) state: String,
}

/// A row of what a node knows of its own work.
#[derive(Debug, Clone, Deserialize)]
struct Worked {
    work: String,
    work_ms: u64,
}

/// The last object of `researcher run --json`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct End {
    pub(super) seconds: f64,
    state: String,
    reason: Option<String>,
}

/// Builds the product as its users do, unless the program to be measured is named.
fn build(project: &Project) -> Result<PathBuf, Problem> {
    if let Some(program) = std::env::var_os("FEDBIOMED_BENCH_PROGRAM") {
        return Ok(program.into());
    }
    run(project.cargo().args(["build", "--release", "--package", "fedbiomed"]))?;
    Ok(project.target().join("release/fedbiomed"))
}

impl Federation {
    /// Makes a researcher and so many nodes, each with its own rows, and starts the researcher.
    pub(super) fn found(project: &Project, nodes: usize, rows: usize) -> Result<Self, Problem> {
        let program = build(project)?;
        let root = std::env::temp_dir().join(format!("fedbiomed-bench-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).map_err(at(&root))?;
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut federation = Self { program, root, researcher: None, nodes: Vec::new(), address };
        federation.create("researcher", &federation.researcher_folder())?;
        federation.start_researcher()?;
        for number in 0..nodes {
            federation.create("node", &federation.node_folder(number))?;
            federation.add_dataset(number, rows)?;
        }
        let folder = federation.root.clone();
        output_of(federation.command().arg("certificate-dev-setup").arg(folder))?;
        Ok(federation)
    }

    /// As [`Self::found`], and waits until all nodes are connected.
    pub(super) fn start(project: &Project, nodes: usize, rows: usize) -> Result<Self, Problem> {
        let mut federation = Self::found(project, nodes, rows)?;
        for number in 0..nodes {
            federation.start_node(number, None)?;
        }
        federation.wait_for_nodes(nodes)?;
        Ok(federation)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // The settings of whoever measures are not those of the components.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FBM_")) {
            command.env_remove(name);
        }
        command
    }

    fn researcher_folder(&self) -> PathBuf {
        self.root.join("researcher")
    }

    pub(super) fn node_folder(&self, number: usize) -> PathBuf {
        self.root.join(format!("node-{number}"))
    }

    /// Where the researcher listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    fn create(&self, kind: &str, folder: &Path) -> Result<(), Problem> {
        let name = folder.file_name().unwrap_or_default();
        output_of(self.command().args(["component", "create", "-c", kind, "-p"]).arg(folder).arg("-n").arg(name))?;
        Ok(())
    }

    fn add_dataset(&self, number: usize, rows: usize) -> Result<(), Problem> {
        let folder = self.node_folder(number);
        let (table, description) = (folder.join("rows.csv"), folder.join("dataset.json"));
        fs::write(&table, csv(number as u64 + 1, rows)).map_err(at(&table))?;
        let dataset = serde_json::json!({
            "name": "Synthetic", "data_type": "csv", "path": table, "tags": ["synthetic"], "description": "for benchmarks",
        });
        fs::write(&description, dataset.to_string()).map_err(at(&description))?;
        output_of(self.command().args(["node", "-p"]).arg(&folder).args(["dataset", "add", "--file"]).arg(&description))?;
        Ok(())
    }

    fn daemon(&self, kind: &str, folder: &Path) -> Command {
        let mut command = self.command();
        command.args([kind, "-p"]).arg(folder).args(["start", "--with-parent"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn start_researcher(&mut self) -> Result<(), Problem> {
        let folder = self.researcher_folder();
        let mut command = self.daemon("researcher", &folder);
        command.env("FBM_SERVER_HOST", "127.0.0.1").env("FBM_SERVER_PORT", "0");
        self.researcher = Some(spawn(&mut command)?);
        let listens = || self.ask::<Status>(&["status"]).ok()?.pop().map(|status| status.listens);
        self.address = until("the researcher", listens)?;
        Ok(())
    }

    /// Starts a node's daemon, which dials `address` if one is given instead of the researcher itself.
    pub(super) fn start_node(&mut self, number: usize, address: Option<SocketAddr>) -> Result<u32, Problem> {
        let mut command = self.daemon("node", &self.node_folder(number));
        if let Some(address) = address {
            command.env("FBM_RESEARCHER_IP", address.ip().to_string());
            command.env("FBM_RESEARCHER_PORT", address.port().to_string());
        }
        let child = spawn(&mut command)?;
        let process = child.id();
        self.nodes.push(child);
        Ok(process)
    }

    pub(super) fn wait_for_nodes(&self, nodes: usize) -> Result<(), Problem> {
        let are_connected = || (self.connected().ok()? == nodes).then_some(());
        until("the nodes' connections", are_connected)
    }

    /// How many nodes are connected.
    pub(super) fn connected(&self) -> Result<usize, Problem> {
        let nodes: Vec<Node> = self.ask(&["nodes"])?;
        Ok(nodes.iter().filter(|node| node.state == "connected").count())
    }

    /// Asks the researcher's daemon for rows.
    fn ask<T: DeserializeOwned>(&self, words: &[&str]) -> Result<Vec<T>, Problem> {
        let mut command = self.command();
        command.args(["researcher", "-p"]).arg(self.researcher_folder()).args(words).arg("--json");
        // What it says to people is not wanted: a daemon that starts does not answer yet.
        let output = command.output().map_err(|source| Problem::NotStarted { line: format!("{command:?}"), source })?;
        parse("an answer of the researcher", &String::from_utf8_lossy(&output.stdout))
    }

    /// How long a node worked at its last training.
    pub(super) fn trained_seconds(&self, number: usize) -> Result<f64, Problem> {
        let mut command = self.command();
        command.args(["node", "-p"]).arg(self.node_folder(number)).args(["results", "--json"]);
        let rows: Vec<Worked> = parse("a node's results", &output_of(&mut command)?)?;
        let trained = rows.into_iter().filter(|row| row.work == "train").map(|row| row.work_ms);
        Ok(trained.max().unwrap_or(0) as f64 / 1e3)
    }

    pub(super) fn researcher_process(&self) -> u32 {
        self.researcher.as_ref().map_or(0, Child::id)
    }

    pub(super) fn node_processes(&self) -> impl Iterator<Item = u32> {
        self.nodes.iter().map(Child::id)
    }

    /// Begins an experiment.
    pub(super) fn begin(&self, experiment: &str) -> Result<Run, Problem> {
        let file = self.root.join("experiment.toml");
        fs::write(&file, experiment).map_err(at(&file))?;
        let mut command = self.command();
        command.args(["researcher", "-p"]).arg(self.researcher_folder()).args(["run", "--json"]).arg(&file);
        let mut child = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let lines = BufReader::new(child.stdout.take().expect("stdout was asked to be piped"));
        Ok(Run { child, lines })
    }

    /// Runs an experiment to its end.
    pub(super) fn run(&self, experiment: &str) -> Result<(Vec<Round>, End), Problem> {
        let mut run = self.begin(experiment)?;
        let mut rounds = Vec::new();
        loop {
            match run.next()? {
                Word::Round(round) => rounds.push(round),
                Word::End(end) => return Ok((rounds, end)),
            }
        }
    }
}

impl Drop for Federation {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().chain(&mut self.researcher) {
            let _ = child.kill();
        }
        for child in self.nodes.iter_mut().chain(&mut self.researcher) {
            let _ = child.wait();
        }
        if std::env::var_os("FEDBIOMED_BENCH_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

/// An experiment that is under way.
pub(super) struct Run {
    child: Child,
    lines: BufReader<ChildStdout>,
}

/// What an experiment says.
pub(super) enum Word {
    Round(Round),
    End(End),
}

impl Run {
    /// Waits for the next round's end, or the experiment's; any end but a good one is a problem.
    pub(super) fn next(&mut self) -> Result<Word, Problem> {
        let mut line = String::new();
        let what = "`researcher run --json`";
        let read = self.lines.read_line(&mut line);
        if read.is_err() || line.is_empty() {
            return Err(unexpected(what, "a round or an end", "nothing more".into()));
        }
        if line.contains("\"metrics_csv\"") {
            let end: End = parse(what, &line)?;
            if end.state != "finished" {
                return Err(unexpected(what, "a finished experiment", format!("{}: {:?}", end.state, end.reason)));
            }
            let _ = self.child.wait();
            return Ok(Word::End(end));
        }
        Ok(Word::Round(parse(what, &line)?))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Peak and present resident memory of a process, in bytes.
pub(super) fn memory(process: u32) -> Result<(u64, u64), Problem> {
    let path = PathBuf::from(format!("/proc/{process}/status"));
    let status = fs::read_to_string(&path).map_err(at(&path))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
    };
    let both = field("VmHWM:").zip(field("VmRSS:"));
    both.ok_or_else(|| unexpected("the memory of a process", "VmHWM and VmRSS", path.display().to_string()))
}

/// How many bytes a process has handed to the kernel to be written, sockets included.
pub(super) fn written(process: u32) -> Result<u64, Problem> {
    let path = PathBuf::from(format!("/proc/{process}/io"));
    let text = fs::read_to_string(&path).map_err(at(&path))?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("wchar:")?.trim().parse().ok());
    bytes.ok_or_else(|| unexpected("what a process has written", "wchar", path.display().to_string()))
}

/// Waits until `look` gives something.
pub(super) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, Problem> {
    let begin = stopwatch();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if begin.elapsed() > PATIENCE {
            return Err(unexpected(what, "an end within three minutes", "none".into()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn spawn(command: &mut Command) -> Result<Child, Problem> {
    let line = format!("{command:?}");
    command.spawn().map_err(|source| Problem::NotStarted { line, source })
}

fn parse<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, Problem> {
    serde_json::from_str(text).map_err(|error| unexpected(what, "JSON as documented", format!("{text:?}: {error}")))
}

pub(super) fn unexpected(what: &str, expected: &'static str, found: String) -> Problem {
    Problem::Unexpected { what: what.into(), expected, found }
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Problem {
    let path = path.to_owned();
    move |source| Problem::File { path, source }
}

/// Rows of uniform features and a binary target that follows them, the same for the same seed.
fn csv(seed: u64, rows: usize) -> String {
    // xorshift64* (Vigna 2016, "An experimental exploration of Marsaglia's xorshift generators, scrambled", §3).
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut uniform = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64 * 2.0 - 1.0
    };
    let mut text = String::new();
    for feature in 0..FEATURES {
        let _ = write!(text, "f{feature},");
    }
    text.push_str("target\n");
    for _ in 0..rows {
        let mut score = 0.0;
        for feature in 0..FEATURES {
            let value = uniform();
            score += if feature % 2 == 0 { value } else { -value };
            let _ = write!(text, "{value:.6},");
        }
        text.push_str(if score + uniform() > 0.0 { "1\n" } else { "0\n" });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_a_seed_are_the_same_and_have_both_classes() {
        let text = csv(3, 50);
        assert_eq!(text, csv(3, 50));
        assert_ne!(text, csv(4, 50));
        assert_eq!(text.lines().count(), 51);
        assert!(text.lines().all(|line| line.split(',').count() == FEATURES + 1));
        assert!(text.lines().any(|line| line.ends_with(",1")) && text.lines().any(|line| line.ends_with(",0")));
    }
}
