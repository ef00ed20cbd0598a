//! Computes what a permitted task asks for: opens the data, and hands it to a statistic or a training. Nothing leaves from here:
//! the outcome goes to the disclosure gate.

mod question;
mod statistic;
mod tables;
mod training;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use data::{Comparison, DataError, Depth, Scan, refusal};
use protocol::{Plan, Progress, Refusal, RefusalCode, StatisticPlan, Tensors, Timestamp, Work};

use crate::disclosure::Outcome;
use crate::handle::NodeHandle;
use crate::policy::Permit;
use crate::store::Dataset;

pub(crate) use tables::Tables;

/// Why a task's work gave nothing.
#[derive(Debug)]
pub(crate) enum WorkError {
    Refused(Refusal),
    /// Somebody stopped it.
    Cancelled,
    /// The own disk failed; to be tried again.
    Hindered(io::Error),
}

impl From<DataError> for WorkError {
    fn from(error: DataError) -> Self {
        if matches!(error, DataError::Stopped) {
            return Self::Cancelled;
        }
        tracing::warn!(%error, "a dataset cannot be used");
        Self::Refused(refusal(&error))
    }
}

impl WorkError {
    fn refused(code: RefusalCode, sentence: impl Into<String>) -> Self {
        Self::Refused(Refusal::new(code, sentence))
    }
}

/// Who looks on while a task is worked on.
pub(crate) struct Observer {
    pub cancel: Arc<AtomicBool>,
    /// Told now and then how far it is.
    pub progress: Box<dyn FnMut(Progress) + Send>,
}

/// One task's work.
struct Job<'a> {
    node: &'a NodeHandle,
    permit: &'a Permit,
    observer: Observer,
    /// What the report will say besides numbers.
    remarks: Vec<String>,
}

/// Does the work of a permitted task. `model` is what the task refers to.
pub(crate) fn execute(
    node: &NodeHandle,
    tables: &Tables,
    permit: &Permit,
    model: Option<Tensors>,
    observer: Observer,
) -> Result<Outcome, WorkError> {
    let begun = node.now();
    let mut job = Job { node, permit, observer, remarks: Vec::new() };
    // How much there is to do is known when the data are read.
    (job.observer.progress)(Progress { done: 0, total: 0, loss: None });
    let dataset = job.current_dataset()?;
    let task = permit.task();
    let mut outcome = match (&task.plan, &task.work) {
        (Plan::Training(plan), Work::Train { training_round }) => {
            job.train(plan, *training_round, &dataset, tables, model)?
        }
        (Plan::Training(plan), Work::Validate) => job.validate(plan, &dataset, tables, model)?,
        (Plan::Training(plan), Work::Sums | Work::SquaredDifferences { .. }) => {
            let table = job.training_rows(plan, &dataset, tables)?;
            job.moments(&table)?
        }
        (Plan::Statistic(StatisticPlan::Moments { columns }), Work::Sums | Work::SquaredDifferences { .. }) => {
            let table = job.all_rows(columns, &dataset, tables)?;
            job.moments(&table)?
        }
        (Plan::Statistic(StatisticPlan::Question { question }), Work::Pass { pass }) => {
            job.pass(question, pass, &dataset)?
        }
        _ => {
            return Err(WorkError::refused(RefusalCode::PlanInvalid, "the work does not belong to the plan"));
        }
    };
    outcome.report.remarks.append(&mut job.remarks);
    outcome.report.work_ms = u64::try_from(node.now().since(begun).as_millis()).unwrap_or(u64::MAX);
    Ok(outcome)
}

impl Job<'_> {
    /// The dataset, if its data is still what was registered: its content is compared at an experiment's first task, what the
    /// file system says of it at each.
    fn current_dataset(&mut self) -> Result<Dataset, WorkError> {
        let admitted = self.permit.dataset().cloned();
        let mut dataset =
            admitted.ok_or_else(|| WorkError::refused(RefusalCode::DatasetUnknown, "the task reads no dataset"))?;
        let (researcher, experiment) = (self.permit.researcher(), &self.permit.task().key.experiment);
        let store = self.node.store();
        let failed = |error: crate::store::StoreError| WorkError::Hindered(io::Error::other(error));
        let name = format!("data.{}", dataset.id);
        let digests = |dataset: &Dataset| -> Vec<u8> {
            dataset.scan.fingerprint.files.iter().flat_map(|file| *file.digest.as_bytes()).collect()
        };
        let known = store.experiment_state(researcher, experiment, &name).map_err(failed)?;
        let is_first = known.is_none();
        let depth = if is_first { Depth::Full } else { Depth::Quick };
        match dataset.scan.compare(&dataset.description, depth, &self.observer.cancel)? {
            Comparison::Same => {}
            Comparison::Touched(fingerprint) => {
                let touched = Scan { fingerprint, ..dataset.scan.clone() };
                store.touch_dataset(&dataset.id, &dataset.scan, &touched).map_err(failed)?;
                dataset.scan = touched;
            }
            Comparison::Changed => return Err(DataError::Changed { path: dataset.description.path.clone() }.into()),
        }
        let now = digests(&dataset);
        if known.as_ref().is_some_and(|known| *known != now) {
            self.remarks
                .push("the hospital refreshed the dataset since the experiment began; rows are held out anew".to_owned());
        }
        if known.as_ref() != Some(&now) {
            store.save_experiment_state(researcher, experiment, &name, &now, self.node.now()).map_err(failed)?;
        }
        Ok(dataset)
    }

    /// Where the training's checkpoint lies.
    fn checkpoint_path(&self) -> PathBuf {
        checkpoint_path(self.node, self.permit.researcher(), self.permit.task())
    }

    fn now(&self) -> Timestamp {
        self.node.now()
    }
}

/// Where the checkpoint of a task lies, in the folder of its experiment.
pub(crate) fn checkpoint_path(node: &NodeHandle, researcher: &protocol::ResearcherId, task: &protocol::Task) -> PathBuf {
    let folder = node.folder().experiments().join(format!("{researcher}.{}", task.key.experiment));
    folder.join(format!("{}.checkpoint", task.id))
}
