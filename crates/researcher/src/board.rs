//! What everybody may look at while the driver works: which tasks are open, and where each experiment is.
//!
//! The driver writes after each step that is on the disk; uploads, downloads and local commands read.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::{BlobRef, ExperimentId, NodeId, Progress, TaskId};
use tokio::sync::watch;

use crate::command::{Ended, NodeProgress, Snapshot};
use crate::experiment::{Experiment, Live, Phase, SeatState};

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

/// What a contribution that has been announced takes of the spool.
#[derive(Debug, Default)]
struct Arriving {
    /// Uploads that are under way; two if a node came back before its old connection was missed.
    uploads: u32,
    /// The announced size, or what an upload that broke off has left in the spool.
    bytes: u64,
}

#[derive(Debug, Default)]
struct Table {
    tasks: BTreeMap<TaskId, OpenTask>,
    arriving: BTreeMap<TaskId, Arriving>,
    live: BTreeMap<TaskId, Live>,
    shown: BTreeMap<ExperimentId, watch::Sender<Shown>>,
}

impl Table {
    /// Bytes of contributions that are in the spool or announced, without this task's.
    fn spooled_bytes(&self, without: &TaskId) -> u64 {
        let is_here = |id: &TaskId| self.tasks.get(id).is_some_and(|task| task.place == TaskPlace::Contributed);
        let here = self.tasks.iter().filter(|(id, _)| is_here(id)).map(|(id, task)| (id, task.bytes));
        let arriving = self.arriving.iter().filter(|(id, _)| !is_here(id)).map(|(id, arriving)| (id, arriving.bytes));
        here.chain(arriving).filter(|(id, _)| *id != without).map(|(_, bytes)| bytes).sum()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<Table>);

/// A share of the spool's quota, from the announcement of an upload until it ends or breaks off.
#[derive(Debug)]
pub(crate) struct SpoolShare {
    board: Arc<Board>,
    task: TaskId,
    path: PathBuf,
}

impl Drop for SpoolShare {
    fn drop(&mut self) {
        let left = std::fs::metadata(&self.path).map_or(0, |file| file.len());
        let mut table = self.board.table();
        let is_open = table.tasks.contains_key(&self.task);
        let Some(arriving) = table.arriving.get_mut(&self.task) else { return };
        arriving.uploads = arriving.uploads.saturating_sub(1);
        if arriving.uploads == 0 {
            arriving.bytes = left;
        }
        if arriving.uploads == 0 && (!is_open || left == 0) {
            table.arriving.remove(&self.task);
        }
    }
}

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

    /// Sets bytes of the spool aside for an upload into this file; `None` if the quota has not as many left.
    pub(crate) fn announce(self: &Arc<Self>, task: &TaskId, bytes: u64, path: PathBuf, quota: u64) -> Option<SpoolShare> {
        let mut table = self.table();
        if table.spooled_bytes(task).saturating_add(bytes) > quota {
            return None;
        }
        let arriving = table.arriving.entry(task.clone()).or_default();
        (arriving.uploads, arriving.bytes) = (arriving.uploads + 1, bytes);
        Some(SpoolShare { board: self.clone(), task: task.clone(), path })
    }

    /// Shows where an experiment is after a step; `new_records` of its rounds were closed by it.
    pub(crate) fn show(&self, experiment: &Experiment, new_records: usize) {
        let mut table = self.table();
        let table = &mut *table;
        table.tasks.retain(|_, task| task.experiment != *experiment.id());
        table.tasks.extend(open_tasks(experiment));
        table.live.retain(|task, _| table.tasks.contains_key(task));
        table.arriving.retain(|task, arriving| arriving.uploads > 0 || table.tasks.contains_key(task));
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

    /// Shows what holds a task's experiment up, until its next step. Returns whether that is news.
    pub(crate) fn hold_up(&self, task: &TaskId, remark: &str) -> bool {
        let table = self.table();
        let Some(open) = table.tasks.get(task) else { return false };
        let Some(shown) = table.shown.get(&open.experiment) else { return false };
        shown.send_if_modified(|shown| {
            let is_new = shown.snapshot.remark.as_deref() != Some(remark);
            shown.snapshot.remark = Some(remark.to_owned());
            is_new
        })
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
                if matches!(row.state, NodeProgress::Waiting | NodeProgress::Working | NodeProgress::Reading) {
                    row.state = live.state();
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
    let mut tasks = Vec::new();
    // After the contributions: the exchange, and what is here.
    for (node, seat) in round.seats.iter().chain(&round.contributed) {
        let is_contribution = round.phase == Phase::Contribute || matches!(seat.state, SeatState::Contributed { .. });
        // An exchange of secure aggregation is answered by a message: there is nothing to upload.
        let bytes = if is_contribution { experiment.contribution_bytes().unwrap_or(0) } else { 0 };
        let place = match seat.state {
            SeatState::Open => TaskPlace::AtNode,
            SeatState::Contributed { .. } => TaskPlace::Contributed,
            _ => continue,
        };
        let model = experiment.task_model(&round.work).filter(|_| is_contribution);
        let task = OpenTask { experiment: experiment.id().clone(), node: node.clone(), bytes, model, place };
        tasks.push((seat.task.clone(), task));
    }
    tasks
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn what_an_upload_that_broke_off_left_counts_until_its_task_is_over() {
        let mut rng = StdRng::seed_from_u64(1);
        let dir = tempfile::tempdir().unwrap();
        let board = Arc::new(Board::default());
        let tasks: Vec<TaskId> = (0..2).map(|_| TaskId::random(&mut rng)).collect();
        for id in &tasks {
            let (experiment, node) = (ExperimentId::random(&mut rng), NodeId::random(&mut rng));
            let task = OpenTask { experiment, node, bytes: 10, model: None, place: TaskPlace::AtNode };
            board.table().tasks.insert(id.clone(), task);
        }
        let announce = |task: usize, quota| board.announce(&tasks[task], 10, dir.path().join(tasks[task].as_str()), quota);
        let share = announce(0, 10).unwrap();
        assert!(announce(1, 19).is_none() && announce(1, 20).is_some());
        std::fs::write(dir.path().join(tasks[0].as_str()), b"four").unwrap();
        drop(share);
        assert!(announce(1, 13).is_none() && announce(1, 14).is_some());
        board.table().tasks.get_mut(&tasks[0]).unwrap().place = TaskPlace::Contributed;
        assert!(announce(1, 19).is_none(), "what is whole counts as a whole");
        drop(announce(0, 20));
        board.table().tasks.remove(&tasks[0]);
        drop(announce(0, 20));
        assert!(announce(1, 10).is_some());
    }
}
