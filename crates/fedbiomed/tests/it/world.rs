//! A federation of real processes in a temporary folder, driven by the command line as people drive it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Long enough for the slowest machine; nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) const HEART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/heart-disease");

/// Runs `fedbiomed` with these words and no terminal.
pub(crate) fn fedbiomed(words: &[&str]) -> Output {
    fedbiomed_in(Path::new("."), words)
}

pub(crate) fn fedbiomed_in(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedbiomed"));
    // Not the register of ports of whoever runs the tests.
    command.env("XDG_STATE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command.args(words).current_dir(folder).stdin(Stdio::null()).output().expect("the binary runs")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

/// Asserts success and returns standard output.
pub(crate) fn ok(output: &Output) -> String {
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}\nstdout: {out}\nstderr: {error}", output.status);
    out
}

/// Asserts a clean failure and returns what was said: one line on standard error, no panic.
pub(crate) fn refused(output: &Output) -> String {
    let error = text(&output.stderr);
    assert!(!output.status.success(), "this should have been refused\nstdout: {}", text(&output.stdout));
    assert!(!error.contains("panicked"), "{error}");
    error
}

/// A researcher, its nodes, and the daemons that run.
pub(crate) struct World {
    folder: tempfile::TempDir,
    port: Option<String>,
    environment: Vec<(&'static str, String)>,
    daemons: Vec<(String, Child)>,
}

impl World {
    /// Makes a researcher and starts it on a port that the system chooses.
    pub(crate) fn with_researcher() -> Self {
        let mut world = Self::empty();
        ok(&fedbiomed(&["component", "create", "-c", "researcher", "-p", &world.path("researcher")]));
        world.start("researcher");
        world
    }

    /// A folder without components.
    pub(crate) fn empty() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            port: None,
            environment: Vec::new(),
            daemons: Vec::new(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("a UTF-8 path").to_owned()
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.as_deref().expect("the researcher was started"))
    }

    /// Runs a command of the researcher.
    pub(crate) fn researcher(&self, words: &[&str]) -> Output {
        fedbiomed(&[&["researcher", "-y", "-p", &self.path("researcher")], words].concat())
    }

    /// Runs a command of a node.
    pub(crate) fn node(&self, name: &str, words: &[&str]) -> Output {
        fedbiomed(&[&["node", "-y", "-p", &self.path(name)], words].concat())
    }

    /// The JSON that a command prints.
    #[expect(clippy::unused_self, reason = "reads as a question to the federation")]
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let out = ok(&fedbiomed(&[words, &["--json"]].concat()));
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{words:?} printed no JSON ({error}): {out}"))
    }

    /// Gets a token.
    pub(crate) fn invite(&self, name: &str) -> String {
        let out = ok(&self.researcher(&["invite", "--name", name, "--address", &self.address()]));
        out.split_whitespace().last().expect("the token is the last word").to_owned()
    }

    /// Makes a node, enrols it, gives it a dataset and starts it.
    pub(crate) fn admit(&mut self, name: &str, csv: &Path) {
        self.make_node(name, csv);
        self.start(name);
    }

    pub(crate) fn make_node(&mut self, name: &str, csv: &Path) {
        ok(&fedbiomed(&["component", "create", "-c", "node", "-p", &self.path(name), "-n", name]));
        let token = self.invite(name);
        ok(&self.node(name, &["enroll", &token]));
        let csv = csv.to_str().expect("a UTF-8 path");
        ok(&self.node(
            name,
            &["dataset", "add", "--name", "Heart", "--tags", "heart,uci", "--data", csv, "--description", "UCI heart"],
        ));
    }

    /// Gives daemons that are started from now on more variables of the environment.
    pub(crate) fn set_environment(&mut self, environment: Vec<(&'static str, String)>) {
        self.environment = environment;
    }

    /// Starts the daemon of a component and waits until it answers. A researcher keeps the port that the system chose first.
    pub(crate) fn start(&mut self, name: &str) {
        let role = if name.ends_with("researcher") { "researcher" } else { "node" };
        let log = std::fs::File::create(self.folder.path().join(format!("{name}.stderr"))).expect("a log file");
        let child = Command::new(env!("CARGO_BIN_EXE_fedbiomed"))
            .args([role, "-p", &self.path(name), "start"])
            .env("FBM_SERVER_HOST", "127.0.0.1")
            .env("FBM_SERVER_PORT", self.port.as_deref().unwrap_or("0"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary runs");
        let process = child.id();
        self.daemons.push((name.to_owned(), child));
        self.eventually(&format!("{name} answers"), |world| {
            let output = fedbiomed(&[role, "-p", &world.path(name), "status", "--json"]);
            let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            status[0]["process"] == process
        });
        if role == "researcher" {
            let status = self.json(&[role, "-p", &self.path(name), "status"]);
            let listens = status[0]["listens"].as_str().expect("an address");
            self.port = listens.rsplit(':').next().map(str::to_owned);
        }
    }

    /// Kills a daemon (SIGKILL).
    pub(crate) fn kill(&mut self, name: &str) {
        let index = self.daemons.iter().position(|(daemon, _)| daemon == name).expect("the daemon runs");
        let (_, mut child) = self.daemons.swap_remove(index);
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// Stops a daemon where it is; its connections stay open.
    pub(crate) fn pause(&self, name: &str) {
        self.signal(name, Signal::STOP);
    }

    /// Lets a daemon that was stopped go on.
    pub(crate) fn resume(&self, name: &str) {
        self.signal(name, Signal::CONT);
    }

    fn signal(&self, name: &str, signal: Signal) {
        let (_, child) = self.daemons.iter().find(|(daemon, _)| daemon == name).expect("the daemon runs");
        let process = child.id().try_into().ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(process, signal).expect("the process is there");
    }

    /// All about an experiment, as the researcher knows it.
    pub(crate) fn shown(&self, id: &str) -> Value {
        self.json(&["researcher", "-p", &self.path("researcher"), "experiments", "show", id])[0].clone()
    }

    /// Waits until an experiment is over and its artefacts are written, and returns all about it.
    pub(crate) fn finished(&mut self, id: &str) -> Value {
        let mut shown = Value::Null;
        self.eventually("the experiment is over", |world| {
            shown = world.shown(id);
            !shown["ended"].is_null()
        });
        assert_eq!(shown["state"], "finished", "{}", shown["ended"]["reason"]);
        shown
    }

    /// Asks again until it holds. The processes are real, so there is nothing to subscribe to; a failure shows the logs.
    pub(crate) fn eventually(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        #[expect(clippy::disallowed_methods, reason = "a bound for real processes, not a measurement")]
        let now = std::time::Instant::now;
        let started = now();
        while !holds(self) {
            for (name, child) in &mut self.daemons {
                if let Some(status) = child.try_wait().expect("the child can be asked") {
                    panic!("{what}: {name} ended ({status}); {}", Self::logs(self.folder.path()));
                }
            }
            assert!(
                now().duration_since(started) < PATIENCE,
                "{what}: not in {PATIENCE:?}; {}",
                Self::logs(self.folder.path())
            );
            std::thread::yield_now();
        }
    }

    fn logs(folder: &Path) -> String {
        let mut all = String::new();
        for entry in std::fs::read_dir(folder).expect("the folder is there").flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "stderr") {
                let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(15).collect();
                let last: Vec<&str> = last.into_iter().rev().collect();
                all = format!("{all}\n--- {}\n{}", entry.file_name().display(), last.join("\n"));
            }
        }
        all
    }

    /// Waits until so many nodes are connected.
    pub(crate) fn connected(&mut self, count: usize) {
        self.eventually("all nodes are connected", |world| {
            let nodes = world.json(&["researcher", "-p", &world.path("researcher"), "nodes"]);
            let connected = |node: &&Value| node["state"] == "connected";
            nodes.as_array().is_some_and(|nodes| nodes.iter().filter(connected).count() == count)
        });
    }

    /// Writes an experiment file and returns its path.
    pub(crate) fn experiment(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("the file can be written");
        path
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for (_, child) in &mut self.daemons {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
