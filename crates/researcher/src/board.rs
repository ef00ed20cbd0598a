//! What everybody may look at while the driver works: which tasks are open, and where each experiment is.
//!
//! The driver writes after each step that is on the disk; uploads, downloads and local commands read.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::{BlobRef, ExperimentId, NodeId, Progress, TaskId, layout_byte_len};
use tokio::sync::watch;

use crate::command::{Ended, NodeProgress, Snapshot};
use crate::experiment::{Experiment, Live, SeatState};

/// A task of an open round.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OpenTask {
    pub(crate) experiment: ExperimentId,
    pub(crate) node: NodeId,
    /// The size that its contribution must have.
    pub(crate) bytes: u64,
    pub(crate) model: Option<BlobRef>,
    pub(crate) place: TaskPlace,
}

/// Where a task of an open round is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskPlace {
    AtNode,
    /// Its contribution lies whole in the spool.
    Contributed,
}

/// What followers of an experiment see.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shown {
    pub(crate) snapshot: Snapshot,
    /// Closed rounds that are in the store.
    pub(crate) records: usize,
    pub(crate) ended: Option<Ended>,
}

#[derive(Debug, Default)]
struct Table {
    tasks: BTreeMap<TaskId, OpenTask>,
    live: BTreeMap<TaskId, Live>,
    shown: BTreeMap<ExperimentId, watch::Sender<Shown>>,
}

#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<Table>);

impl Board {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn task(&self, task: &TaskId) -> Option<OpenTask> {
        self.table().tasks.get(task).cloned()
    }

    /// The experiment whose open tasks of this node need this model.
    pub(crate) fn experiment_of_model(&self, node: &NodeId, blob: BlobRef) -> Option<ExperimentId> {
        let table = self.table();
        let task = table.tasks.values().find(|task| task.node == *node && task.model == Some(blob));
        task.map(|task| task.experiment.clone())
    }

    /// Bytes of contributions that are in the spool or announced, without this task's.
    pub(crate) fn spooled_bytes(&self, without: &TaskId) -> u64 {
        let table = self.table();
        let held = table.tasks.iter().filter(|(id, task)| *id != without && task.place == TaskPlace::Contributed);
        held.map(|(_, task)| task.bytes).sum()
    }

    /// Shows where an experiment is after a step; `new_records` of its rounds were closed by it.
    pub(crate) fn show(&self, experiment: &Experiment, new_records: usize) {
        let mut table = self.table();
        let table = &mut *table;
        table.tasks.retain(|_, task| task.experiment != *experiment.id());
        table.tasks.extend(open_tasks(experiment));
        table.live.retain(|task, _| table.tasks.contains_key(task));
        let snapshot = experiment.snapshot(|task| table.live.get(task).copied().unwrap_or_default());
        if let Some(shown) = table.shown.get(experiment.id()) {
            shown.send_modify(|shown| {
                shown.snapshot = snapshot;
                shown.records += new_records;
            });
        } else {
            let shown = Shown { snapshot, records: new_records, ended: None };
            table.shown.insert(experiment.id().clone(), watch::Sender::new(shown));
        }
    }

    /// Says how an experiment ended, and lets go of it.
    pub(crate) fn end(&self, ended: Ended) {
        if let Some(shown) = self.table().shown.remove(&ended.experiment_id) {
            shown.send_modify(|shown| shown.ended = Some(ended));
        }
    }

    pub(crate) fn follow(&self, experiment: &ExperimentId) -> Option<watch::Receiver<Shown>> {
        self.table().shown.get(experiment).map(watch::Sender::subscribe)
    }

    pub(crate) fn running(&self) -> usize {
        self.table().shown.len()
    }

    /// Notes that a node has a task in its journal.
    pub(crate) fn accepted(&self, node: &NodeId, task: &TaskId) {
        self.tell(node, task, |live| live.is_accepted = true);
    }

    pub(crate) fn progress(&self, node: &NodeId, task: &TaskId, progress: Progress) {
        self.tell(node, task, |live| *live = Live { is_accepted: true, progress: Some(progress) });
    }

    fn tell(&self, node: &NodeId, task: &TaskId, change: impl FnOnce(&mut Live)) {
        let mut table = self.table();
        let Some(open) = table.tasks.get(task).filter(|open| open.node == *node) else { return };
        let experiment = open.experiment.clone();
        let live = table.live.entry(task.clone()).or_default();
        change(live);
        let live = *live;
        if let Some(shown) = table.shown.get(&experiment) {
            shown.send_modify(|shown| {
                let row = shown.snapshot.nodes.iter_mut().find(|row| row.task.as_ref() == Some(task));
                let Some(row) = row else { return };
                if row.state == NodeProgress::Waiting {
                    row.state = NodeProgress::Working;
                }
                if let Some(progress) = live.progress {
                    (row.done, row.total, row.loss) = (progress.done, progress.total, progress.loss);
                }
            });
        }
    }
}

fn open_tasks(experiment: &Experiment) -> Vec<(TaskId, OpenTask)> {
    let Some(round) = experiment.round() else { return Vec::new() };
    let bytes = layout_byte_len(&round.layout).unwrap_or(0);
    let mut tasks = Vec::new();
    for (node, seat) in &round.seats {
        let place = match seat.state {
            SeatState::Open => TaskPlace::AtNode,
            SeatState::Contributed { .. } => TaskPlace::Contributed,
            _ => continue,
        };
        let model = experiment.task_model(&round.work);
        let task = OpenTask { experiment: experiment.id().clone(), node: node.clone(), bytes, model, place };
        tasks.push((seat.task.clone(), task));
    }
    tasks
}
