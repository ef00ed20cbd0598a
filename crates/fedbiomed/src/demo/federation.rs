//! A federation on one machine: folders, enrolments and processes, made and unmade by one command.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use component::control::Connection;
use component::folder::{ComponentFolder, Kind};
use node::command::{NewDataset, ResultRow, TokenText};
use protocol::ExperimentId;
use researcher::command::{NodeState, Reply, Request};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::commands::researcher::ask;
use crate::error::{Failure, Outcome};
use crate::output::print;

/// How long a process may take until it answers, and until it ends.
const PATIENCE: Duration = Duration::from_secs(20);

/// Components and the processes that run them. Dropping it kills what still runs.
pub(crate) struct Federation {
    researcher: ComponentFolder,
    nodes: Vec<ComponentFolder>,
    processes: Vec<Child>,
}

impl Federation {
    /// Makes a researcher's folder below `root` and starts its process on a port of the loopback that the system chooses.
    pub(crate) async fn found(root: &Path) -> Result<Self, Failure> {
        let path = root.join("researcher");
        researcher::daemon::create(&path, "Demo researcher")?;
        let folder = ComponentFolder::open(&path, Kind::Researcher)?;
        let mut federation = Self { researcher: folder.clone(), nodes: Vec::new(), processes: Vec::new() };
        let place = [("FBM_SERVER_HOST", "127.0.0.1"), ("FBM_SERVER_PORT", "0")];
        federation.spawn("researcher", &folder, &place).await?;
        Ok(federation)
    }

    pub(crate) fn researcher(&self) -> &ComponentFolder {
        &self.researcher
    }

    /// The role and the folder of each component, the researcher first.
    pub(crate) fn components(&self) -> Vec<(&'static str, PathBuf)> {
        let nodes = self.nodes.iter().map(|folder| ("node", folder.root().to_owned()));
        [("researcher", self.researcher.root().to_owned())].into_iter().chain(nodes).collect()
    }

    /// Makes a node, enrols it, registers its dataset and starts its process.
    pub(crate) async fn admit(&mut self, folder_name: &str, name: &str, dataset: NewDataset) -> Outcome {
        let path = self.researcher.root().with_file_name(folder_name);
        node::daemon::create(&path, name)?;
        let folder = ComponentFolder::open(&path, Kind::Node)?;
        enrol(&self.researcher, &folder, name).await?;
        node::command::run(&folder, node::command::Request::AddDataset { dataset }).await?;
        self.spawn("node", &folder, &[]).await?;
        self.nodes.push(folder);
        Ok(())
    }

    /// Waits until every node is connected.
    pub(crate) async fn connected(&mut self) -> Outcome {
        let all = async {
            loop {
                let Reply::Nodes { nodes } = ask(&self.researcher, Request::Nodes).await? else {
                    return Err(Failure::new("the researcher did not list its nodes"));
                };
                if nodes.iter().filter(|node| node.state == NodeState::Connected).count() == self.nodes.len() {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.map_err(|_| Failure::new("not every node connected in time"))?
    }

    /// What each node keeps of its own part of an experiment, in the order of their admission.
    pub(crate) async fn results(&self, experiment: &ExperimentId) -> Result<Vec<Vec<ResultRow>>, Failure> {
        let mut results = Vec::new();
        for folder in &self.nodes {
            let request = node::command::Request::Results { experiment: Some(experiment.clone()) };
            let node::command::Reply::Results { rows } = node::command::run(folder, request).await? else {
                return Err(Failure::new("a node did not say what it measured"));
            };
            results.push(rows);
        }
        Ok(results)
    }

    async fn spawn(&mut self, role: &str, folder: &ComponentFolder, environment: &[(&str, &str)]) -> Outcome {
        let child = Command::new(std::env::current_exe()?)
            .args([OsStr::new(role), OsStr::new("--path"), folder.root().as_os_str(), OsStr::new("start")])
            .arg("--with-parent")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C on the terminal reaches this command only, which then ends the others in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        self.processes.push(child);
        let child = self.processes.last_mut().ok_or_else(|| Failure::new("no process was started"))?;
        let answering = async {
            while Connection::open(&folder.control_socket()).await.is_err() {
                if let Some(status) = child.try_wait()? {
                    let log = std::fs::read_to_string(folder.application_log()).unwrap_or_default();
                    let last = log.lines().last().unwrap_or("no word in its log").to_owned();
                    return Err(Failure::new(format!("the {role} ended at once ({status}): {last}")));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, answering)
            .await
            .map_err(|_| Failure::new(format!("the {role} did not answer in time")))?
    }

    /// Writes the port that the system chose into the researcher's configuration, so that kept nodes find it again.
    pub(crate) async fn settle_port(&self) -> Outcome {
        let Reply::Status { status } = ask(&self.researcher, Request::Status).await? else {
            return Err(Failure::new("the researcher did not say where it listens"));
        };
        let (host, port) = status.listens.rsplit_once(':').ok_or_else(|| Failure::new("the researcher has no port"))?;
        let file = self.researcher.config_file();
        let mut table: toml::Table = std::fs::read_to_string(&file)?.parse()?;
        let server = table.entry("server").or_insert_with(|| toml::Table::new().into());
        if let Some(server) = server.as_table_mut() {
            server.insert("host".into(), host.into());
            server.insert("port".into(), port.parse::<i64>()?.into());
        }
        component::folder::write_atomically(&file, table.to_string().as_bytes())?;
        Ok(())
    }

    /// Ends all processes in good order, nodes first.
    pub(crate) async fn dissolve(mut self) {
        while let Some(mut child) = self.processes.pop() {
            let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
            if let Some(pid) = pid
                && kill_process(pid, Signal::TERM).is_ok()
                && tokio::time::timeout(PATIENCE, child.wait()).await.is_ok()
            {
                continue;
            }
            let _ = child.kill().await;
        }
    }
}

/// Gives a node a token and lets it use it.
async fn enrol(researcher: &ComponentFolder, folder: &ComponentFolder, name: &str) -> Outcome {
    let Reply::Status { status } = ask(researcher, Request::Status).await? else {
        return Err(Failure::new("the researcher did not say where it listens"));
    };
    let request = Request::Invite { name: name.into(), expires_ms: 600_000, address: Some(status.listens) };
    let Reply::Invited { invitation } = ask(researcher, request).await? else {
        return Err(Failure::new("the researcher gave no token"));
    };
    node::command::run(folder, node::command::Request::Enrol { token: TokenText(invitation.token) }).await?;
    Ok(())
}

/// Enrols every node in the sub-folders of `root` with the researcher there, whose daemon must run.
pub(crate) async fn enrol_all(root: &Path) -> Outcome {
    let entries = std::fs::read_dir(root).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut paths: Vec<PathBuf> =
        entries.map_err(|error| Failure::new(format!("cannot read {}: {error}", root.display())))?;
    paths.sort();
    let researchers: Vec<_> = paths.iter().filter_map(|path| ComponentFolder::open(path, Kind::Researcher).ok()).collect();
    let nodes: Vec<_> = paths.iter().filter_map(|path| ComponentFolder::open(path, Kind::Node).ok()).collect();
    let [researcher] = researchers.as_slice() else {
        return Err(Failure::new(format!("expected one researcher below {}, found {}", root.display(), researchers.len())));
    };
    if nodes.is_empty() {
        return Err(Failure::new(format!("no node below {}", root.display())));
    }
    for folder in &nodes {
        let reply = node::command::run(folder, node::command::Request::Status).await?;
        let node::command::Reply::Status { status } = reply else {
            return Err(Failure::new("the node did not say its name"));
        };
        enrol(researcher, folder, &status.name).await?;
        print(format!("enrolled {} ({})", status.name, status.id));
    }
    Ok(())
}
