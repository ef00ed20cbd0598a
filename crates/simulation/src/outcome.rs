//! What came of an experiment, in a form that two runs can be compared by, and what must hold after any run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use component::audit::AuditLog;
use protocol::{Digest, ExperimentId, Scheme, Tensors};
use researcher::command::{Ended, ExperimentState, NodeProgress, NodeRecord, RoundKind, RoundRecord};
use researcher::store::Store;
use serde_json::{Value, json};

use crate::world::{Place, World};

/// What an experiment gave, without what may differ from run to run: times, ids and attempts.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub state: ExperimentState,
    pub reason: Option<String>,
    /// The final model's tensors.
    pub model: Option<Vec<u8>>,
    /// The closed rounds, as canonical JSON: two numbers are the same text only if they are the same bits.
    pub rounds: Vec<String>,
    pub moments: String,
}

impl Outcome {
    /// Says in what the other differs; empty if in nothing.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        if (self.state, &self.reason) != (other.state, &other.reason) {
            let end = |outcome: &Self| format!("{:?} ({:?})", outcome.state, outcome.reason);
            differences.push(format!("it ended as {}, not as {}", end(other), end(self)));
        }
        if self.model != other.model {
            let model = |outcome: &Self| outcome.model.as_ref().map(|bytes| Digest::of(bytes).to_string());
            differences.push(format!("the model is {:?}, not {:?}", model(other), model(self)));
        }
        if self.rounds.len() != other.rounds.len() {
            differences.push(format!("{} rounds were closed, not {}", other.rounds.len(), self.rounds.len()));
        }
        let pairs = self.rounds.iter().zip(&other.rounds).find(|(one, other)| one != other);
        differences.extend(pairs.map(|(one, other)| format!("a round is {other}\nnot {one}")));
        if self.moments != other.moments {
            differences.push(format!("the statistic is {}, not {}", other.moments, self.moments));
        }
        differences
    }
}

/// A closed round without its times, ids and attempts.
fn canonical(record: &RoundRecord) -> String {
    let nodes = record.nodes.iter().map(|node| {
        json!({
            "name": node.name, "state": node.state, "code": node.code, "train_rows": node.train_rows,
            "test_rows": node.test_rows, "dropped_rows": node.dropped_rows, "loss": node.loss, "measured": node.measured,
            "remarks": node.remarks, "hidden": node.hidden,
        })
    });
    let round = json!({
        "round": record.round, "kind": record.kind, "training_round": record.training_round, "train_rows": record.train_rows,
        "loss": record.loss, "metrics": record.metrics, "confusion": record.confusion, "remarks": record.remarks,
        "nodes": nodes.collect::<Vec<_>>(), "hidden": record.hidden,
    });
    round.to_string()
}

/// Reads an experiment's outcome from the disk of a world that has stopped.
///
/// # Panics
/// If what the researcher wrote cannot be read.
pub fn read(world: &World, ended: &Ended) -> (Outcome, Vec<RoundRecord>) {
    let folder = world.folder(Place::Researcher);
    let store = Store::open_for_simulation(&folder.database_file()).expect("the researcher's store opens");
    let records = store.records(&ended.experiment_id, 0).expect("the researcher's records can be read");
    let model = ended.model.as_ref().map(|path| {
        let bytes = fs::read(path).expect("the model is where the end says");
        let tensors = Tensors::from_bytes(&bytes).expect("the model is a file of tensors");
        // Without the file's words about experiment and date.
        Tensors::new(tensors.into_tensors()).expect("its tensors are good").to_bytes()
    });
    let outcome = Outcome {
        state: ended.state,
        reason: ended.reason.clone(),
        model,
        rounds: records.iter().map(canonical).collect(),
        moments: json!(ended.moments).to_string(),
    };
    (outcome, records)
}

/// Says what is wrong in a world that has settled and stopped. Nothing is, whatever went wrong in it.
pub fn violations(world: &World, id: &ExperimentId, records: &[RoundRecord]) -> Vec<String> {
    let mut violations = world.violations();
    violations.extend(rounds(world, records));
    for place in world.places() {
        violations.extend(folder(world, place));
    }
    violations.extend(store(world, id));
    violations.extend(world.places().filter_map(|place| keys(world, place, id)));
    violations
}

/// Nobody keeps keys of the hidden sums of an experiment that is over.
fn keys(world: &World, place: Place, id: &ExperimentId) -> Option<String> {
    let Place::Site(_) = place else { return None };
    let store = node::store::Store::open_for_simulation(&world.folder(place).database_file());
    let keyed = store.and_then(|store| store.keyed_experiments(&world.template().researcher, 64));
    match keyed {
        Ok(keyed) => keyed.contains(id).then(|| format!("{place:?} keeps keys of {id}, which is over")),
        Err(error) => Some(error.to_string()),
    }
}

/// Every round is closed once, and what it sums is what the nodes that contributed have.
fn rounds(world: &World, records: &[RoundRecord]) -> Vec<String> {
    let mut violations = Vec::new();
    let mut next = 0;
    for (position, record) in records.iter().enumerate() {
        // Joye-Libert survives no loss: a round without a sum uses its number up.
        let may_skip = record.hidden.as_ref().is_some_and(|hidden| hidden.scheme == Scheme::JoyeLibert);
        let expected = if may_skip { next.max(record.round) } else { next };
        next = record.round + 1;
        if record.round != expected {
            violations.push(format!("the record at {position} is of round {}", record.round));
        }
        let contributed = || record.nodes.iter().filter(|node| node.state == NodeProgress::Contributed);
        let rows: Option<u64> = contributed().map(|node| node.train_rows).sum();
        if record.hidden.is_some() {
            violations.extend(record.nodes.iter().filter_map(|node| shown(node, record.round)));
            let survivors = record.hidden.as_ref().map(|hidden| hidden.survivors as usize);
            if survivors != Some(contributed().count()) {
                violations.push(format!(
                    "round {} has {survivors:?} survivors, {} gave",
                    record.round,
                    contributed().count()
                ));
            }
        // A validation sums no training rows.
        } else if record.kind != RoundKind::Validation && rows != Some(record.train_rows) {
            violations.push(format!("round {} sums {} rows, its nodes gave {rows:?}", record.round, record.train_rows));
        }
        let is_training = |_: &&NodeRecord| record.kind == RoundKind::Training && record.hidden.is_none();
        for node in contributed().filter(is_training) {
            let site = world.template().sites.iter().find(|site| site.node == node.id);
            if site
                .is_none_or(|site| node.train_rows.zip(node.test_rows).map(|(train, test)| train + test) != Some(site.rows))
            {
                violations.push(format!(
                    "{} gave {:?} + {:?} rows in round {}",
                    node.name, node.train_rows, node.test_rows, record.round
                ));
            }
        }
    }
    violations
}

/// Whatever a record tells of one node's numbers in a hidden round.
fn shown(node: &NodeRecord, round: u32) -> Option<String> {
    let NodeRecord { name, train_rows, test_rows, dropped_rows, loss, measured, remarks, work_ms, .. } = node;
    let is_hidden = [train_rows, test_rows, dropped_rows, work_ms].iter().all(|number| number.is_none())
        && loss.is_none()
        && measured.is_empty()
        && remarks.is_empty();
    (!is_hidden).then(|| format!("the researcher knows of {name} in the hidden round {round}: {node:?}"))
}

fn files_below(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![format!("{} is gone", folder.display())] };
    let mut files = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path.display().to_string());
        }
    }
    files
}

/// A component's folder: the audit log is whole, nothing is left in the spool, and the nodes' gates were asked.
fn folder(world: &World, place: Place) -> Vec<String> {
    let folder = world.folder(place);
    let mut violations = Vec::new();
    if let Err(error) = AuditLog::verify(&folder.audit_file()) {
        violations.push(format!("{place:?}: {error}"));
    }
    violations.extend(files_below(&folder.spool()).into_iter().map(|file| format!("{file} is left in a spool")));
    if let Place::Site(_) = place {
        violations.extend(files_below(&folder.experiments()).into_iter().map(|file| format!("{file} is left of a task")));
        violations.extend(gates(world, place));
    }
    violations
}

/// Whatever was brought had been admitted and released, as those very bytes.
fn gates(world: &World, place: Place) -> Vec<String> {
    let Place::Site(site) = place else { return Vec::new() };
    let mut admitted: BTreeMap<String, u64> = BTreeMap::new();
    let mut released: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let entries = AuditLog::tail(&world.folder(place).audit_file(), usize::MAX).unwrap_or_default();
    for entry in entries {
        let task = entry.facts.get("task").and_then(Value::as_str).unwrap_or_default().to_owned();
        match entry.event.as_str() {
            "task.admitted" => *admitted.entry(task).or_default() += 1,
            "contribution.released" => released.entry(task).or_default().extend(entry.facts.get("digest").cloned()),
            _ => {}
        }
    }
    let mut violations = Vec::new();
    let node = &world.template().sites[site].node;
    for (task, (bringer, header)) in world.seen().uploads() {
        if bringer != *node {
            continue;
        }
        if !admitted.contains_key(task.as_str()) {
            violations.push(format!("{task} was brought and never admitted"));
        }
        let digest = json!(header.digest);
        if !released.get(task.as_str()).is_some_and(|digests| digests.iter().all(|released| *released == digest)) {
            violations.push(format!("{task} was brought as {digest}, released as {:?}", released.get(task.as_str())));
        }
    }
    violations
}

/// The researcher's store: the experiment is over, and its end is written.
fn store(world: &World, id: &ExperimentId) -> Option<String> {
    let store = Store::open_for_simulation(&world.folder(Place::Researcher).database_file());
    let store = store.expect("the researcher's store opens");
    match store.experiment(id) {
        Ok(experiment) if !experiment.is_over() => Some(format!("{id} is not over")),
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    }
}
